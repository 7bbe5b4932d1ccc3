//! The machine: limits, scheduling, clock, disk.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::config::Config;
use crate::time::UnixMs;

/// Each call has sockets for RTP, RTCP and the provider, and a recording.
const FILES_PER_CALL: u64 = 4;
const FILES_BESIDES: u64 = 200;

pub(super) fn open_files(config: &Config) -> Check {
    let calls = u64::from(config.call_limit());
    let wanted = calls * FILES_PER_CALL + FILES_BESIDES;
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return Check::ok("open_files", "no limit");
    };
    let what = format!("{limit} open files allowed, {wanted} needed for {calls} calls");
    if limit >= wanted {
        return Check::ok("open_files", what);
    }
    let fits = limit.saturating_sub(FILES_BESIDES) / FILES_PER_CALL;
    let why = "calls beyond what the files allow are refused";
    let fix = format!(
        "raise it (`ulimit -n {wanted}`, or LimitNOFILE={wanted} in the unit), or set sip.max_calls = {fits}"
    );
    Check::warn("open_files", what, why, fix)
}

pub(super) fn realtime(config: &Config) -> Check {
    let priority = config.media.realtime_priority;
    if priority == 0 {
        return Check::ok("realtime", "not wanted (media.realtime_priority is 0)");
    }
    // On a thread of its own, which takes the priority with it.
    let got =
        std::thread::spawn(move || crate::call::worker::raise_priority(priority)).join().unwrap_or(false);
    if got {
        return Check::ok("realtime", "media workers get real-time scheduling");
    }
    Check::warn(
        "realtime",
        "media workers get ordinary scheduling",
        "when the machine is busy, audio can be late by 20 ms and more",
        "allow it: `setcap cap_sys_nice=+ep` on the program, LimitRTPRIO=20 in the unit, `--cap-add SYS_NICE` in a container; or set media.realtime_priority = 0",
    )
}

pub(super) fn clock() -> Check {
    let now = UnixMs::now();
    let told = now.to_rfc3339();
    if now < EARLIEST {
        let fix = "set the clock; run chrony or systemd-timesyncd";
        return Check::fail("clock", told, "the date is in the past: TLS and tokens do not work", fix);
    }
    let timesyncd = Path::new("/run/systemd/timesync");
    if timesyncd.exists() && !timesyncd.join("synchronized").exists() {
        let fix = "check `timedatectl timesync-status`";
        return Check::warn(
            "clock",
            format!("{told}, not synchronized"),
            "call records carry wrong times",
            fix,
        );
    }
    Check::ok("clock", told)
}

/// 2026-11-01, before which no version of this program was built.
const EARLIEST: UnixMs = UnixMs::new(1_793_491_200_000);

pub(super) fn disk(config: &Config) -> Check {
    let wanted =
        if config.recording.enabled { config.recordings_dir() } else { config.node.data_dir.clone() };
    let wanted = std::path::absolute(&wanted).unwrap_or(wanted);
    let Some(dir) = wanted.ancestors().find(|dir| dir.exists()) else {
        return Check::fail(
            "disk",
            format!("{} does not exist", wanted.display()),
            "nothing can be kept",
            "create it",
        );
    };
    let why = "the database, and recordings if they are on, are kept there";
    if rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_err() {
        let fix = "let the user running Tandem write there, or set node.data_dir";
        return Check::fail("disk", format!("{} cannot be written", dir.display()), why, fix);
    }
    let free = match rustix::fs::statvfs(dir) {
        Ok(space) => space.f_bavail.saturating_mul(space.f_frsize),
        Err(error) => {
            return Check::warn("disk", format!("{}: {error}", dir.display()), why, "check the file system");
        }
    };
    let what = format!(
        "{}: {:.1} GB free, {} h of recordings",
        dir.display(),
        free as f64 / 1e9,
        free / BYTES_PER_HOUR
    );
    let fix = "make room, or set node.data_dir and recording.dir to a larger disk";
    match free {
        ..100_000_000 => Check::fail("disk", what, why, fix),
        100_000_000..1_000_000_000 => Check::warn("disk", what, why, fix),
        _ => Check::ok("disk", what),
    }
}

/// Stereo, 16 bits, 24 kHz.
const BYTES_PER_HOUR: u64 = 24_000 * 2 * 2 * 3_600;
