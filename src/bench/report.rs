//! What a run has found: figures, checks, and whether they mean anything.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::calls::Outcome;
use super::child::{Goodbye, Usage, threads_in_words};
use super::generator::Heard;
use super::grid::{Faults, Figures, Spread, millis};
use super::machine::{Cores, Machine};
use super::service::Seen;
use super::{Options, Snapshot, marker};

/// What the callers' audio comes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// RTP, with SIP.
    Rtp,
    /// AudioSocket.
    AudioSocket,
}

/// Everything measured in one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What the callers' audio comes over. "RTP" below stands for it.
    pub medium: Medium,
    /// Calls that were up during the measurement.
    pub calls: usize,
    /// Calls that were refused, never answered, or ended before they should.
    pub failed_calls: usize,
    /// Why, the first few.
    pub failures: Vec<String>,
    /// Length of the measurement.
    pub seconds: f64,
    /// Assistant audio in one message of the service, about.
    pub provider_delta_ms: u32,
    /// INVITE to 200; with AudioSocket, from connecting to the first audio.
    pub setup: Figures,
    /// Added delay, RTP in to WebSocket out: packet sent by the phone to message read by the service.
    /// The 2 ms delay of the resampling filter is inside the audio and not counted here.
    pub uplink: Figures,
    /// WebSocket in to RTP out: first audio of an answer written by the service to first loud packet at the
    /// phone. The wait for the call's next 20 ms slot is in it: 10 ms on average, 20 at most.
    pub downlink: Figures,
    /// Markers that never arrived, both ways.
    pub markers_lost: usize,
    /// Distance of the server's packets from their 20 ms grid, as they arrive.
    pub pacing: Figures,
    /// Difference of the distance of two packets from 20 ms.
    pub gaps: Figures,
    /// Faults of the RTP clock over the whole run.
    pub rtp: Faults,
    /// Packets received by the phones, of those that should have come.
    pub rtp_received_share: f64,
    /// Processor time of the server per second of each call.
    pub cpu_ms_per_call_second: f64,
    /// Of it, in the kernel.
    pub system_ms_per_call_second: f64,
    /// The same by thread name. A thread that ended meanwhile is missing.
    pub threads_ms_per_call_second: BTreeMap<String, f64>,
    /// Calls that one core at 70 % would carry at this cost.
    pub calls_per_core: u64,
    /// Growth of the server's resident memory per call.
    pub memory_kb_per_call: f64,
    /// Resident memory of the server before the first call.
    pub memory_idle_kb: u64,
    /// Open files of the server per call.
    pub files_per_call: f64,
    /// Whether the server's media workers had real-time scheduling.
    pub server_realtime: bool,
    /// Protocol violations the simulated service has found.
    pub protocol_violations: u64,
    /// Whether the server closed the sessions of all calls that were hung up.
    pub sessions_closed: bool,
    /// Whether the server stopped in good order.
    pub stopped_cleanly: bool,
    /// What the server's log warned of, the first few.
    pub complaints: Vec<String>,
    /// The far ends.
    pub far_ends: FarEnds,
    /// What it was measured on.
    pub machine: Machine,
    /// Percent of the time some task waited for a processor.
    pub cpu_pressure_percent: Option<f64>,
    /// Percent of one core the hypervisor gave to others.
    pub steal_percent: Option<f64>,
    /// Why the figures say nothing about the server; empty when they do.
    pub void: Vec<String>,
    /// The server's files, when they were kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// The benchmark's own parts.
#[derive(Debug, Clone, Serialize)]
pub struct FarEnds {
    /// Share of a core the phones' thread needed, in percent.
    pub generator_percent: f64,
    /// Share of a core the simulated service needed.
    pub simulator_percent: f64,
    /// How late packets of the phones left.
    pub lateness: Figures,
    /// Whether the phones' thread had real-time scheduling.
    pub realtime: bool,
    /// Datagrams that could not be sent.
    pub send_errors: u64,
    /// Connections whose call could not be told.
    pub unknown_connections: usize,
}

/// One limit.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What is limited.
    pub name: &'static str,
    /// What was measured.
    pub measured: f64,
    /// The most it may be.
    pub limit: f64,
    /// Of both.
    pub unit: &'static str,
    /// Whether it holds.
    pub ok: bool,
}

impl Check {
    /// Holds while what was measured is not above `limit`.
    pub(super) fn at_most(name: &'static str, measured: f64, limit: f64, unit: &'static str) -> Self {
        Self { name, measured, limit, unit, ok: measured <= limit }
    }
}

/// What a report is made of.
pub(super) struct Raw<'a> {
    pub options: &'a Options,
    pub medium: Medium,
    pub cores: &'a Cores,
    pub live: usize,
    pub idle: Usage,
    pub before: Snapshot,
    pub after: Snapshot,
    pub heard: Heard,
    pub service: Seen,
    pub signalling: Outcome,
    pub goodbye: Goodbye,
}

impl Report {
    /// Works it out.
    pub(super) fn of(raw: Raw<'_>) -> Self {
        let span = raw.after.at - raw.before.at;
        let call_seconds = span.as_secs_f64() * raw.live as f64;
        let per_call_second = |then: Duration, now: Duration| millis(now.saturating_sub(then)) / call_seconds;
        let (before, after) = (&raw.before.server, &raw.after.server);
        let cpu = per_call_second(before.cpu, after.cpu);
        let threads = after.threads.iter().map(|(name, now)| {
            let then = before.threads.get(name).copied().unwrap_or_default();
            (name.clone(), per_call_second(then, *now))
        });
        let per_call = |growth: f64| growth / raw.live as f64;
        let (up, down, lost) = journeys(&raw.heard, &raw.service);
        let (pressure, steal) = raw.after.machine.since(raw.before.machine, span);
        let expected = raw.live as f64 * (raw.heard.to - raw.heard.from).as_secs_f64() * 50.0;
        let far_ends = far_ends(&raw, span);
        let machine = Machine::this(raw.cores.server.len());
        Self {
            medium: raw.medium,
            calls: raw.live,
            failed_calls: raw.signalling.failures.len(),
            failures: raw.signalling.failures.iter().take(TOLD).cloned().collect(),
            seconds: span.as_secs_f64(),
            provider_delta_ms: raw.options.delta_ms,
            setup: raw.signalling.setup.figures(),
            uplink: up.figures(),
            downlink: down.figures(),
            markers_lost: lost,
            pacing: raw.heard.grid_error.figures(),
            gaps: raw.heard.gap_error.figures(),
            rtp: raw.heard.faults,
            rtp_received_share: raw.heard.received as f64 / expected,
            cpu_ms_per_call_second: cpu,
            system_ms_per_call_second: per_call_second(before.system, after.system),
            threads_ms_per_call_second: threads.collect(),
            calls_per_core: if cpu > 0.0 { (700.0 / cpu) as u64 } else { 0 },
            memory_kb_per_call: per_call((after.rss_bytes as f64 - raw.idle.rss_bytes as f64) / 1000.0),
            memory_idle_kb: raw.idle.rss_bytes / 1000,
            files_per_call: per_call(after.files as f64 - raw.idle.files as f64),
            server_realtime: after.realtime,
            protocol_violations: raw.service.summary.violations,
            sessions_closed: !raw.service.left_open,
            stopped_cleanly: raw.goodbye.clean,
            complaints: raw.goodbye.complaints.iter().take(TOLD).cloned().collect(),
            void: void(&far_ends, raw.cores, up.figures().count),
            far_ends,
            machine,
            cpu_pressure_percent: pressure,
            steal_percent: steal,
            directory: raw.goodbye.directory.map(|directory| directory.display().to_string()),
        }
    }

    /// The limits this server is built to.
    pub fn checks(&self) -> Vec<Check> {
        let check = Check::at_most;
        if self.medium == Medium::AudioSocket {
            return vec![
                check("AudioSocket in -> WebSocket out, p50", self.uplink.p50_ms, 1.0, "ms"),
                check("AudioSocket in -> WebSocket out, p99", self.uplink.p99_ms, 5.0, "ms"),
                check(
                    "WebSocket in -> AudioSocket out beyond the slot, p99",
                    self.downlink.p99_ms - SLOT_MS,
                    5.0,
                    "ms",
                ),
                check("pacing error, p99", self.pacing.p99_ms, 2.0, "ms"),
                check("processor time per call-second", self.cpu_ms_per_call_second, 0.7, "ms"),
                check("memory per call", self.memory_kb_per_call, 150.0, "kB"),
                check("failed calls", self.failed_calls as f64, 0.0, ""),
                check("markers lost", self.markers_lost as f64, 0.0, ""),
            ];
        }
        vec![
            check("RTP in -> WebSocket out, p50", self.uplink.p50_ms, 1.0, "ms"),
            check("RTP in -> WebSocket out, p99", self.uplink.p99_ms, 5.0, "ms"),
            check("WebSocket in -> RTP out beyond the slot, p99", self.downlink.p99_ms - SLOT_MS, 5.0, "ms"),
            check("pacing error, p99", self.pacing.p99_ms, 2.0, "ms"),
            check("processor time per call-second", self.cpu_ms_per_call_second, 1.5, "ms"),
            check("memory per call", self.memory_kb_per_call, 150.0, "kB"),
            check("failed calls", self.failed_calls as f64, 0.0, ""),
            check("markers lost", self.markers_lost as f64, 0.0, ""),
            // One source all along: a marker excuses nothing.
            check("timestamp jumps", (self.rtp.timestamp_jumps + self.rtp.restarts) as f64, 0.0, ""),
        ]
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let figures = |name: &str, figures: &Figures| figures.line(name);
        let yes = |granted: bool| if granted { "real-time" } else { "ordinary" };
        let percent =
            |share: Option<f64>| share.map_or("unknown".to_owned(), |share| format!("{share:.1} %"));
        let (setup, medium) = match self.medium {
            Medium::Rtp => ("call setup (INVITE -> 200)", "RTP"),
            Medium::AudioSocket => ("call setup (connect -> audio)", "AudioSocket"),
        };
        let mut lines = vec![
            format!(
                "{} calls for {:.0} s, {} failed; {} on {} core(s), Linux {}, load {}",
                self.calls,
                self.seconds,
                self.failed_calls,
                self.machine.cpu,
                self.machine.cores,
                self.machine.kernel,
                self.machine.load
            ),
            String::new(),
            figures(setup, &self.setup),
            figures(&format!("{medium} in -> WebSocket out"), &self.uplink),
            figures(&format!("WebSocket in -> {medium}, with slot"), &self.downlink),
            figures("pacing: off the 20 ms grid", &self.pacing),
            figures("pacing: |gap - 20 ms|", &self.gaps),
            format!(
                "{medium} to the phones: {:.2} % came, {} lost, {} disordered, {} timestamp jumps; {} markers lost",
                self.rtp_received_share * 100.0,
                self.rtp.lost,
                self.rtp.disordered,
                self.rtp.timestamp_jumps,
                self.markers_lost
            ),
            String::new(),
            format!(
                "processor: {:.3} ms per call-second ({:.3} in the kernel) = {} calls on a core at 70 %",
                self.cpu_ms_per_call_second, self.system_ms_per_call_second, self.calls_per_core
            ),
            format!("  by thread: {}", threads_in_words(&self.threads_ms_per_call_second)),
            format!(
                "memory: {:.0} kB per call over {} kB; files: {:.2} per call; {} scheduling",
                self.memory_kb_per_call,
                self.memory_idle_kb,
                self.files_per_call,
                yes(self.server_realtime)
            ),
            figures("far ends: phones' own lateness", &self.far_ends.lateness),
            format!(
                "far ends: phones {:.0} % and service {:.0} % of a core, {} scheduling; pressure {}, steal {}",
                self.far_ends.generator_percent,
                self.far_ends.simulator_percent,
                yes(self.far_ends.realtime),
                percent(self.cpu_pressure_percent),
                percent(self.steal_percent)
            ),
            "(the resampling filter delays audio by a further 2 ms each way)".to_owned(),
        ];
        let mut told =
            |what: &str, list: &[String]| lines.extend(list.iter().map(|one| format!("{what}: {one}")));
        told("failed call", &self.failures);
        told("server", &self.complaints);
        told("VOID", &self.void);
        if !self.sessions_closed {
            lines.push("the server left sessions open after their calls".to_owned());
        }
        if !self.stopped_cleanly {
            lines.push("the server did not stop in good order".to_owned());
        }
        lines
    }
}

/// How long markers took up and down, and how many were lost.
fn journeys(heard: &Heard, service: &Seen) -> (Spread, Spread, usize) {
    let (mut up, mut down, mut lost) = (Spread::default(), Spread::default(), 0);
    let nothing = super::service::Moments::default();
    for (call, phone) in heard.calls.iter().enumerate() {
        let Some(phone) = phone else { continue };
        let moments = service.calls.get(&call).unwrap_or(&nothing);
        let risen = marker::journeys(&phone.marked, &moments.heard, heard.from, heard.to);
        let fallen = marker::journeys(&moments.spoke, &phone.heard, heard.from, heard.to);
        lost += risen.missing + fallen.missing;
        up.extend(risen.took);
        down.extend(fallen.took);
    }
    (up, down, lost)
}

fn far_ends(raw: &Raw<'_>, span: Duration) -> FarEnds {
    let percent =
        |then: Duration, now: Duration| now.saturating_sub(then).as_secs_f64() / span.as_secs_f64() * 100.0;
    FarEnds {
        generator_percent: percent(raw.before.generator_cpu, raw.after.generator_cpu),
        simulator_percent: percent(raw.before.simulator_cpu, raw.after.simulator_cpu),
        lateness: raw.heard.lateness.figures(),
        realtime: raw.heard.realtime,
        send_errors: raw.heard.send_errors,
        unknown_connections: raw.service.unknown,
    }
}

fn void(far_ends: &FarEnds, cores: &Cores, markers: u64) -> Vec<String> {
    let mut void = void_phones(far_ends.generator_percent, &far_ends.lateness);
    let share = far_ends.generator_percent + far_ends.simulator_percent;
    void.extend(too_busy("service", far_ends.simulator_percent));
    if cores.far_ends_share() && share > BUSIEST_PERCENT && void.is_empty() {
        void.push(format!(
            "phones and service share a core and needed {share:.0} % of it, more than {BUSIEST_PERCENT:.0} %"
        ));
    }
    if markers == 0 {
        void.push("no marker was seen: measure for at least 5 s".to_owned());
    }
    void
}

/// What makes figures of the generator's phones say nothing about the server.
pub(super) fn void_phones(percent: f64, lateness: &Figures) -> Vec<String> {
    let late = lateness.p99_ms;
    let late = (late > LATEST_MS)
        .then(|| format!("the phones' own packets were late: p99 {late:.1} ms, more than {LATEST_MS:.0} ms"));
    too_busy("phones", percent).into_iter().chain(late).collect()
}

fn too_busy(name: &str, percent: f64) -> Option<String> {
    (percent > BUSIEST_PERCENT)
        .then(|| format!("the {name} needed {percent:.0} % of a core, more than {BUSIEST_PERCENT:.0} %"))
}

const BUSIEST_PERCENT: f64 = 70.0;
const LATEST_MS: f64 = 2.0;
const SLOT_MS: f64 = 20.0;
/// Failures and complaints told.
const TOLD: usize = 5;
