//! The machine: its cores and who gets which, scheduling, and how strained it was.

use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use rustix::thread::{CpuSet, Pid};
use serde::Serialize;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Which cores run what. The server and the far ends share none, where there are at least two.
#[derive(Debug, Clone)]
pub struct Cores {
    /// The server under test.
    pub server: Vec<usize>,
    /// The thread that sends and receives RTP.
    pub generator: Vec<usize>,
    /// The simulated service.
    pub simulator: Vec<usize>,
    /// The phones' SIP.
    pub signalling: Vec<usize>,
}

impl Cores {
    /// The last core is for the far ends; of four or more, the last two are.
    pub fn split() -> Self {
        let mut server = allowed();
        if server.len() < 2 {
            let only = server.clone();
            return Self { server, generator: only.clone(), simulator: only.clone(), signalling: only };
        }
        let last = server.split_off(server.len() - 1);
        if server.len() < 3 {
            return Self { server, generator: last.clone(), simulator: last.clone(), signalling: last };
        }
        let simulator = server.split_off(server.len() - 1);
        Self { server, generator: last, simulator: simulator.clone(), signalling: simulator }
    }

    /// Whether the two far ends compete for one core.
    pub fn far_ends_share(&self) -> bool {
        self.generator == self.simulator
    }

    /// Pins the calling thread, and what it starts from now on, to these cores.
    pub fn pin_to(&self, cores: &[usize]) {
        pin(cores);
    }
}

/// Pins the calling thread, and what it starts from now on.
pub fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(%error, "cannot pin a thread to its core; the figures will be noisier");
    }
}

fn allowed() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => vec![0],
    }
}

/// Asks for `SCHED_FIFO` for the calling thread; tells whether it was granted.
pub fn realtime(priority: u8) -> bool {
    let Ok(value) = ThreadPriorityValue::try_from(priority) else { return false };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(value), policy).is_ok()
}

/// The calling thread's id, by which [`thread_cpu`] finds it.
pub fn this_thread() -> Pid {
    rustix::thread::gettid()
}

/// Processor time a thread of this process has used.
pub fn thread_cpu(thread: Pid) -> Duration {
    let path = format!("/proc/self/task/{}/schedstat", thread.as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// Lets this process and its children open as many files as they may.
pub fn raise_file_limit() {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!(%error, "the limit on open files stays");
    }
}

/// What is asked of the processors beside this benchmark. Differences of two readings count.
#[derive(Debug, Clone, Copy, Default)]
pub struct Strain {
    /// Time in which some task waited for a processor (pressure stall information).
    pressure: Option<Duration>,
    /// Time the hypervisor gave to others, over all cores.
    steal: Option<Duration>,
}

impl Strain {
    /// Reads them.
    pub fn now() -> Self {
        let pressure = std::fs::read_to_string("/proc/pressure/cpu").ok().and_then(|text| {
            let total = text.lines().next()?.rsplit_once("total=")?.1.parse().ok()?;
            Some(Duration::from_micros(total))
        });
        let steal = std::fs::read_to_string("/proc/stat").ok().and_then(|text| {
            let ticks: u64 = text.lines().next()?.split_whitespace().nth(8)?.parse().ok()?;
            Some(of_ticks(ticks))
        });
        Self { pressure, steal }
    }

    /// Percent of `span` since `earlier`: (pressure, steal of one core).
    pub fn since(self, earlier: Self, span: Duration) -> (Option<f64>, Option<f64>) {
        let percent = |now: Option<Duration>, then: Option<Duration>| {
            Some(now?.saturating_sub(then?).as_secs_f64() / span.as_secs_f64() * 100.0)
        };
        (percent(self.pressure, earlier.pressure), percent(self.steal, earlier.steal))
    }
}

/// A count of clock ticks, as `/proc` gives processor times.
pub fn of_ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// What the figures were measured on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processor, as it calls itself.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Load average over the last minute.
    pub load: String,
}

impl Machine {
    /// This one.
    pub fn this(cores: usize) -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            cpu: cpu.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores,
            kernel: read("/proc/sys/kernel/osrelease"),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}
