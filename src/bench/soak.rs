//! Whether the server stays as it is: calls of three kinds come and go for a long time, and memory, files and
//! ports are read all along.
//!
//! Growth is the difference between two middles: of the second quarter of the run, when caches have filled, and
//! of the last. After the last call the server must hold no more files than before the first.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use super::Check;
use super::calls::{self, Calls};
use super::child::{Server, Setup};
use super::generator::{Generator, Talk};
use super::grid::Faults;
use super::machine::{Cores, Machine};

/// How the benchmark is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Calls at a time.
    pub calls: usize,
    /// For how long they come and go.
    pub span: Duration,
    /// How long a call lasts.
    pub call_span: Duration,
    /// The server's configuration beside what the benchmark sets.
    pub server_config: Option<PathBuf>,
    /// Keep the server's directory, with its log.
    pub keep: bool,
}

/// Everything measured in one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Calls at a time.
    pub calls: usize,
    /// Calls placed in all.
    pub placed: usize,
    /// Calls that were refused, never answered, or ended before they should.
    pub failed_calls: usize,
    /// Why, the first few.
    pub failures: Vec<String>,
    /// Length of the run.
    pub seconds: f64,
    /// What the server held, over time.
    pub samples: Vec<Sample>,
    /// Before the first call.
    pub before: Sample,
    /// Some seconds after the last.
    pub after: Sample,
    /// Growth of resident memory from the second quarter of the run to the last, in kilobytes.
    pub memory_growth_kb: f64,
    /// The same per call that came and went meanwhile, in bytes.
    pub memory_growth_bytes_per_call: f64,
    /// Growth of open files over the same time.
    pub files_growth: f64,
    /// Faults of the RTP clock over the whole run.
    pub rtp: Faults,
    /// Whether the server stopped in good order.
    pub stopped_cleanly: bool,
    /// What the server's log warned of, the first few.
    pub complaints: Vec<String>,
    /// What it was measured on.
    pub machine: Machine,
}

/// What the server holds at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Sample {
    /// Seconds since the calls began.
    pub at_s: f64,
    /// Resident memory.
    pub rss_kb: u64,
    /// Open files: two UDP sockets for each leg among them.
    pub files: usize,
    /// RTP port pairs in use, as the server counts them.
    pub port_pairs: Option<u64>,
    /// Calls of ours that are up.
    pub live: usize,
}

/// Runs the benchmark on the calling thread and threads of its own.
///
/// # Errors
/// When the server does not start, or no call gets through.
pub fn run(options: &Options, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    super::on_far_end(async |cores| soak(options, cores, remark).await)
}

async fn soak(options: &Options, cores: Cores, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    let (endpoint, events) = calls::open(Ipv4Addr::LOCALHOST, None).await?;
    let own = endpoint.local_addrs().first().context("a socket was opened")?.address;
    // Traces of calls that are over are kept up to a number of calls, which shall be reached early.
    let config = format!(
        "[sip.trace]\ncalls = {TRACED}\n\
         [[trunk]]\nname = \"carriers\"\nallow = [\"127.0.0.1\"]\npeers = [\"{own}\"]\n"
    );
    let setup = Setup { base: options.server_config.clone(), config, resources: RESOURCES.to_owned() };
    let server = Server::start(&setup, &cores).await?;
    let began = Instant::now();
    let before = sample(&server, began, 0).await?;
    // Two legs for a bridged call, and room for those that are leaving.
    let lines = 3 * options.calls + 64;
    let generator = Generator::start(lines, Talk::Markers, cores.generator.clone())?;
    let mut calls = Calls::over(endpoint, events, server.sip, NUMBERS, lines, generator.commands());
    calls.place(options.calls, BUILD_RATE).await?;
    anyhow::ensure!(calls.live() > 0, "no call was answered: {}", calls.failures_in_words());
    remark(&format!("{} calls are up; they come and go for {} s", calls.live(), options.span.as_secs()));

    let rate = options.calls as f64 / options.call_span.as_secs_f64();
    let (began, step) = (Instant::now(), (options.span / SAMPLES).max(Duration::from_secs(1)));
    let mut samples = Vec::new();
    while began.elapsed() < options.span {
        calls.churn(step, rate).await?;
        let now = sample(&server, began, calls.live()).await?;
        if (samples.len() as u32).is_multiple_of(REMARK_EVERY) {
            remark(&now.in_words());
        }
        samples.push(now);
    }
    let seconds = began.elapsed().as_secs_f64();
    let machine = Machine::this(cores.server.len());
    let outcome = calls.hang_up().await;
    let heard = generator.stop().await?;
    tokio::time::sleep(AFTERWARDS).await;
    let after = sample(&server, began, 0).await?;
    let goodbye = server.stop(options.keep).await;
    let memory = growth(&samples, |sample| sample.rss_kb as f64);
    // Between the middles of the quarters lies half of the run.
    let between = rate * seconds / 2.0;
    Ok(Report {
        calls: options.calls,
        placed: outcome.placed,
        failed_calls: outcome.failures.len(),
        failures: outcome.failures.iter().take(TOLD).cloned().collect(),
        seconds,
        before,
        after,
        memory_growth_kb: memory,
        memory_growth_bytes_per_call: memory * 1000.0 / between,
        files_growth: growth(&samples, |sample| sample.files as f64),
        samples,
        rtp: heard.faults,
        stopped_cleanly: goodbye.clean,
        complaints: goodbye.complaints.into_iter().take(TOLD).collect(),
        machine,
    })
}

async fn sample(server: &Server, began: Instant, live: usize) -> anyhow::Result<Sample> {
    let usage = server.usage().context("the server has died; its log is in its directory")?;
    Ok(Sample {
        at_s: (began.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        rss_kb: usage.rss_bytes / 1000,
        files: usage.files,
        port_pairs: server.metric(PORTS).await,
        live,
    })
}

/// From the middle of the second quarter to the middle of the last.
fn growth(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let quarter = samples.len() / 4;
    let middle = |samples: &[Sample]| {
        let mut values: Vec<f64> = samples.iter().map(&of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    middle(&samples[samples.len() - quarter..]) - middle(&samples[quarter..2 * quarter])
}

impl Sample {
    fn in_words(&self) -> String {
        let ports = self.port_pairs.map_or("unknown".to_owned(), |pairs| pairs.to_string());
        let Self { at_s, rss_kb, files, live, .. } = self;
        format!("{at_s:>7.1} s  {rss_kb:>8} kB  {files:>5} files  {ports:>5} port pairs  {live:>4} calls")
    }
}

impl Report {
    /// What flat means: nothing a month of this would notice.
    pub fn checks(&self) -> Vec<Check> {
        let ports = |sample: &Sample| sample.port_pairs.unwrap_or(u64::MAX) as f64;
        let middle = self.samples.get(self.samples.len() / 2).map_or(0.0, |sample| sample.rss_kb as f64);
        vec![
            Check::at_most("growth of memory", self.memory_growth_kb, (middle * 0.03).max(2_000.0), "kB"),
            Check::at_most("growth of open files", self.files_growth, 8.0, ""),
            Check::at_most(
                "files more than before, afterwards",
                self.after.files as f64,
                self.before.files as f64 + 4.0,
                "",
            ),
            Check::at_most("port pairs in use afterwards", ports(&self.after), 0.0, ""),
            Check::at_most("failed calls", self.failed_calls as f64, 0.0, ""),
        ]
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!(
                "{} calls at a time for {:.0} s, {} in all, {} failed; {} on {} core(s), Linux {}, load {}",
                self.calls,
                self.seconds,
                self.placed,
                self.failed_calls,
                self.machine.cpu,
                self.machine.cores,
                self.machine.kernel,
                self.machine.load
            ),
            format!("before     {}", self.before.in_words()),
        ];
        let every = (self.samples.len() / 8).max(1);
        lines.extend(
            self.samples.iter().step_by(every).map(|sample| format!("           {}", sample.in_words())),
        );
        lines.push(format!("afterwards {}", self.after.in_words()));
        lines.push(format!(
            "growth from the second quarter to the last: {:.0} kB ({:.0} octets for each call in between), {:.0} files",
            self.memory_growth_kb, self.memory_growth_bytes_per_call, self.files_growth
        ));
        lines.push(format!(
            "RTP to the phones: {} lost, {} disordered, {} timestamp jumps, {} announced",
            self.rtp.lost, self.rtp.disordered, self.rtp.timestamp_jumps, self.rtp.restarts
        ));
        lines.extend(self.failures.iter().map(|why| format!("failed call: {why}")));
        lines.extend(self.complaints.iter().map(|line| format!("server: {line}")));
        if !self.stopped_cleanly {
            lines.push("the server did not stop in good order".to_owned());
        }
        lines
    }
}

/// An assistant, a bridge and an echo.
const NUMBERS: &[&str] = &["100", "101", "102"];
const RESOURCES: &str = r#"
[[organization]]
name = "bench"

[[assistant]]
organization = "bench"
name = "reception"
chain = ["scripted"]
greeting = "Good morning."

[[number]]
organization = "bench"
number = "100"
flow = [{ step = "assistant", assistant = "reception" }]

[[number]]
organization = "bench"
number = "101"
flow = [{ step = "dial", to = "+15550100200", timeout = 20 }]

[[number]]
organization = "bench"
number = "102"
flow = [{ step = "echo" }]
"#;
const PORTS: &str = "tandem_rtp_port_pairs";
const TRACED: u32 = 150;
/// Calls a second while the load builds up.
const BUILD_RATE: f64 = 20.0;
/// Samples in a run.
const SAMPLES: u32 = 120;
const REMARK_EVERY: u32 = 10;
/// From the last BYE to the last look.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// Failures and complaints told.
const TOLD: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_seen_through_noise_and_a_start_is_none() {
        let run = |rss: fn(u64) -> u64| -> Vec<Sample> {
            (0..40).map(|n| Sample { rss_kb: rss(n), ..Sample::default() }).collect()
        };
        // Fills up in the first quarter, then wavers.
        let flat = run(|n| 1_000 + n.min(10) * 50 + n % 3);
        assert!(growth(&flat, |sample| sample.rss_kb as f64).abs() <= 2.0);
        let leaking = run(|n| 1_000 + n * 10);
        assert_eq!(growth(&leaking, |sample| sample.rss_kb as f64), 200.0);
    }
}
