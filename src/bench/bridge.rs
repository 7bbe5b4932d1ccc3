//! What a plain call from trunk to trunk costs: both carriers are simulated here, one socket for both.
//!
//! Every packet carries the moment it left. A server that relays delivers it as it was, so that each packet's
//! journey is timed; one that decodes and encodes it does not, and is found out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::calls::{self, Calls, Outcome};
use super::child::{Server, Setup, Usage, threads_in_words};
use super::generator::{Generator, Heard, Talk};
use super::grid::{Faults, Figures, millis};
use super::machine::{Cores, Machine};
use super::report::void_phones;
use super::{Check, Snapshot};

/// How the benchmark is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bridged calls at a time: two legs each.
    pub calls: usize,
    /// Length of the measurement, after all calls are up.
    pub span: Duration,
    /// New calls a second while the load builds up.
    pub rate: f64,
    /// The server's configuration beside what the benchmark sets.
    pub server_config: Option<PathBuf>,
    /// Keep the server's directory, with its log.
    pub keep: bool,
}

/// Everything measured in one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Bridged calls that were up during the measurement.
    pub calls: usize,
    /// Calls that were refused, never answered, or ended before they should.
    pub failed_calls: usize,
    /// Why, the first few.
    pub failures: Vec<String>,
    /// Length of the measurement.
    pub seconds: f64,
    /// INVITE of the caller to 200 through both legs.
    pub setup: Figures,
    /// Added delay: packet sent by one party to packet read by the other.
    pub delay: Figures,
    /// Packets that came otherwise than they were sent: decoded and encoded again.
    pub transcoded: u64,
    /// Distance of packets from their 20 ms grid, as they arrive.
    pub pacing: Figures,
    /// Faults of the RTP clock over the whole run.
    pub rtp: Faults,
    /// Packets received by the parties, of those they sent.
    pub rtp_received_share: f64,
    /// Processor time of the server per second of each bridged call.
    pub cpu_ms_per_call_second: f64,
    /// Of it, in the kernel.
    pub system_ms_per_call_second: f64,
    /// The same by thread name.
    pub threads_ms_per_call_second: BTreeMap<String, f64>,
    /// Growth of the server's resident memory per call.
    pub memory_kb_per_call: f64,
    /// Open files of the server per call.
    pub files_per_call: f64,
    /// Share of a core the parties' thread needed, in percent.
    pub generator_percent: f64,
    /// How late the parties' own packets left.
    pub lateness: Figures,
    /// Whether the server stopped in good order.
    pub stopped_cleanly: bool,
    /// What the server's log warned of, the first few.
    pub complaints: Vec<String>,
    /// What it was measured on.
    pub machine: Machine,
    /// Why the figures say nothing about the server; empty when they do.
    pub void: Vec<String>,
}

/// Runs the benchmark on the calling thread and threads of its own.
///
/// # Errors
/// When the server does not start, or no call gets through.
pub fn run(options: &Options, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    super::on_far_end(async |cores| measure(options, cores, remark).await)
}

async fn measure(options: &Options, cores: Cores, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    let (endpoint, events) = calls::open(Ipv4Addr::LOCALHOST, None).await?;
    let own = endpoint.local_addrs().first().context("a socket was opened")?.address;
    let config = format!("[[trunk]]\nname = \"carriers\"\nallow = [\"127.0.0.1\"]\npeers = [\"{own}\"]\n");
    let setup = Setup { base: options.server_config.clone(), config, resources: RESOURCES.to_owned() };
    let server = Server::start(&setup, &cores).await?;
    let idle = server.usage().context("reading /proc of the server")?;
    remark("the server is ready; calls are being placed");
    let lines = 2 * options.calls;
    let generator = Generator::start(lines, Talk::Stamps, cores.generator.clone())?;
    let mut calls = Calls::over(endpoint, events, server.sip, &["100"], lines, generator.commands());
    calls.place(options.calls, options.rate).await?;
    anyhow::ensure!(calls.live() > 0, "no call was answered: {}", calls.failures_in_words());
    calls.run_for(SETTLED).await;

    remark(&format!("{} calls are up; measuring for {} s", calls.live(), options.span.as_secs()));
    let before = Snapshot::take(&server, None, &generator)?;
    generator.measure(true).await;
    calls.run_for(options.span).await;
    generator.measure(false).await;
    let after = Snapshot::take(&server, None, &generator)?;
    let live = calls.live();
    let outcome = calls.hang_up().await;
    let heard = generator.stop().await?;
    let goodbye = server.stop(options.keep).await;
    let mut report = report(live, &idle, &before, &after, &outcome, &heard);
    report.machine = Machine::this(cores.server.len() + 1);
    report.stopped_cleanly = goodbye.clean;
    report.complaints = goodbye.complaints.into_iter().take(TOLD).collect();
    Ok(report)
}

fn report(
    live: usize,
    idle: &Usage,
    before: &Snapshot,
    after: &Snapshot,
    outcome: &Outcome,
    heard: &Heard,
) -> Report {
    let span = after.at - before.at;
    let call_seconds = live as f64 * span.as_secs_f64();
    let per_call_second = |then: Duration, now: Duration| millis(now.saturating_sub(then)) / call_seconds;
    let (was, is) = (&before.server, &after.server);
    let threads = is.threads.iter().map(|(name, now)| {
        (name.clone(), per_call_second(was.threads.get(name).copied().unwrap_or_default(), *now))
    });
    let generator = (after.generator_cpu - before.generator_cpu).as_secs_f64() / span.as_secs_f64() * 100.0;
    let lateness = heard.lateness.figures();
    Report {
        calls: live,
        failed_calls: outcome.failures.len(),
        failures: outcome.failures.iter().take(TOLD).cloned().collect(),
        seconds: span.as_secs_f64(),
        setup: outcome.setup.figures(),
        delay: heard.delay.figures(),
        transcoded: heard.unstamped,
        pacing: heard.grid_error.figures(),
        rtp: heard.faults,
        rtp_received_share: heard.received as f64 / (heard.sent as f64).max(1.0),
        cpu_ms_per_call_second: per_call_second(was.cpu, is.cpu),
        system_ms_per_call_second: per_call_second(was.system, is.system),
        threads_ms_per_call_second: threads.collect(),
        memory_kb_per_call: (is.rss_bytes as f64 - idle.rss_bytes as f64) / 1000.0 / live as f64,
        files_per_call: (is.files as f64 - idle.files as f64) / live as f64,
        generator_percent: generator,
        lateness,
        stopped_cleanly: false,
        complaints: Vec::new(),
        machine: Machine::this(0),
        void: void_phones(generator, &lateness),
    }
}

impl Report {
    /// The limits this server is built to.
    pub fn checks(&self) -> Vec<Check> {
        vec![
            Check::at_most("processor time per call-second", self.cpu_ms_per_call_second, 0.8, "ms"),
            Check::at_most("added delay, p99", self.delay.p99_ms, 5.0, "ms"),
            Check::at_most("packets transcoded", self.transcoded as f64, 0.0, ""),
            Check::at_most("packets lost", self.rtp.lost as f64, 0.0, ""),
            Check::at_most("failed calls", self.failed_calls as f64, 0.0, ""),
        ]
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!(
                "{} bridged calls for {:.0} s, {} failed; {} on {} core(s), Linux {}, load {}",
                self.calls,
                self.seconds,
                self.failed_calls,
                self.machine.cpu,
                self.machine.cores,
                self.machine.kernel,
                self.machine.load
            ),
            String::new(),
            self.setup.line("call setup through both legs"),
            self.delay.line("RTP in -> RTP out"),
            self.pacing.line("pacing: off the 20 ms grid"),
            format!(
                "RTP: {:.2} % of what was sent came, {} lost, {} disordered, {} transcoded",
                self.rtp_received_share * 100.0,
                self.rtp.lost,
                self.rtp.disordered,
                self.transcoded
            ),
            String::new(),
            format!(
                "processor: {:.3} ms per call-second ({:.3} in the kernel)",
                self.cpu_ms_per_call_second, self.system_ms_per_call_second
            ),
            format!("  by thread: {}", threads_in_words(&self.threads_ms_per_call_second)),
            format!(
                "memory: {:.0} kB per call; files: {:.2} per call",
                self.memory_kb_per_call, self.files_per_call
            ),
            self.lateness.line("far ends: their own lateness"),
            format!("far ends: {:.0} % of a core", self.generator_percent),
        ];
        lines.extend(self.failures.iter().map(|why| format!("failed call: {why}")));
        lines.extend(self.complaints.iter().map(|line| format!("server: {line}")));
        lines.extend(self.void.iter().map(|why| format!("VOID: {why}")));
        if !self.stopped_cleanly {
            lines.push("the server did not stop in good order".to_owned());
        }
        lines
    }
}

const RESOURCES: &str = r#"
[[organization]]
name = "bench"

[[number]]
organization = "bench"
number = "100"
flow = [{ step = "dial", to = "+15550100200", timeout = 20 }]
"#;
/// From the last answer until media flows evenly.
const SETTLED: Duration = Duration::from_secs(3);
/// Failures and complaints told.
const TOLD: usize = 5;
