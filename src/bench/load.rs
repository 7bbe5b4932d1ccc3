//! How many calls a second the server takes: short calls at an even rate, timed on the wire.
//!
//! With a flood, another source sends ten times as many INVITEs beside calls that talk: the server must refuse
//! what is too much, and the calls must not hear it.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use super::calls::{self, Calls};
use super::child::{Goodbye, Server, Setup, threads_in_words};
use super::flood::{self, Flood};
use super::generator::{Generator, Talk};
use super::grid::{Faults, Figures, millis};
use super::machine::{Cores, Machine};
use super::report::void_phones;
use super::wire::Watch;
use super::{Check, Snapshot};
use crate::id::LegId;
use crate::sip::endpoint::EndpointHandle;
use crate::sip::message::Transport;
use crate::sip::ua::{LegCommand, LegEvent, OutgoingInvite, UaEvent};
use crate::sip::uri::Uri;

/// How the benchmark is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// New calls a second.
    pub rate: u32,
    /// For how long calls are placed.
    pub span: Duration,
    /// Ten times the rate, from another source, beside this many calls that talk.
    pub flood: Option<usize>,
    /// The server's configuration beside what the benchmark sets.
    pub server_config: Option<PathBuf>,
    /// Keep the server's directory, with its log.
    pub keep: bool,
}

/// Everything measured in one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// New calls a second that were wanted.
    pub rate: u32,
    /// Length of the run.
    pub seconds: f64,
    /// The short calls; without a flood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<ShortCalls>,
    /// The flood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood: Option<Flooded>,
    /// Processor time of the server, in percent of a core.
    pub cpu_percent: f64,
    /// The same by thread name.
    pub threads_percent: BTreeMap<String, f64>,
    /// Whether the server stopped in good order.
    pub stopped_cleanly: bool,
    /// What the server's log warned of, the first few.
    pub complaints: Vec<String>,
    /// What it was measured on.
    pub machine: Machine,
    /// Why the figures say nothing about the server; empty when they do.
    pub void: Vec<String>,
}

/// Calls placed at an even rate, each answered and hung up by the server.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ShortCalls {
    /// Calls placed.
    pub placed: usize,
    /// Calls that were answered and ended as they should.
    pub completed: usize,
    /// Why the others did not, the first few.
    pub failures: Vec<String>,
    /// INVITE to the first 180, both as seen on the socket.
    pub ringing: Figures,
    /// Messages that were sent or received a second time.
    pub retransmitted: u64,
    /// What they were, the first few.
    pub retransmissions: Vec<String>,
    /// Calls placed a second, as it came out.
    pub placed_per_second: f64,
    /// Processor time of the server for one call, in milliseconds.
    pub cpu_ms_per_call: f64,
}

/// Many more INVITEs than wanted, and calls that talk meanwhile.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flooded {
    /// INVITEs sent, and what came for them.
    pub invites: flood::Tally,
    /// Calls that talked.
    pub calls: usize,
    /// Those of them that failed.
    pub failed_calls: usize,
    /// Distance of the server's packets to the phones from their 20 ms grid, before the flood.
    pub pacing_before: Figures,
    /// And during it.
    pub pacing: Figures,
    /// Faults of the RTP clock over the whole run.
    pub rtp: Faults,
    /// How late the phones' own packets left.
    pub lateness: Figures,
}

/// Runs the benchmark on the calling thread and threads of its own.
///
/// # Errors
/// When the server does not start, or no call gets through.
pub fn run(options: &Options, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    super::on_far_end(async |cores| match options.flood {
        Some(calls) => flooded(options, calls, cores, remark).await,
        None => loaded(options, cores, remark).await,
    })
}

fn setup(options: &Options, config: &str) -> Setup {
    Setup { base: options.server_config.clone(), config: config.to_owned(), resources: RESOURCES.to_owned() }
}

// Short calls.

async fn loaded(options: &Options, cores: Cores, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    let setup = setup(options, "[[trunk]]\nname = \"carrier\"\nallow = [\"127.0.0.1\"]\n");
    let server = Server::start(&setup, &cores).await?;
    let watch = Arc::new(Watch::default());
    let (endpoint, mut events) = calls::open(Ipv4Addr::LOCALHOST, Some(Arc::clone(&watch) as _)).await?;
    // What the server says in these short calls is not listened to.
    let sink = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = sink.local_addr()?.port();
    let mut caller =
        Caller { endpoint, server: server.sip, port, legs: HashMap::new(), calls: ShortCalls::default() };
    remark(&format!("the server is ready; {} calls a second for {} s", options.rate, options.span.as_secs()));

    let before = server.usage().context("reading /proc of the server")?;
    let began = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / options.rate);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    while began.elapsed() < options.span {
        tokio::select! {
            biased;
            Some(event) = events.recv() => caller.event(event),
            _ = pace.tick() => caller.dial()?,
        }
    }
    let placing = began.elapsed();
    let patience = tokio::time::Instant::now() + ENDED_WITHIN;
    while !caller.legs.is_empty() {
        match tokio::time::timeout_at(patience, events.recv()).await {
            Ok(Some(event)) => caller.event(event),
            Ok(None) | Err(_) => break,
        }
    }
    let after = server.usage().context("the server has died; its log is in its directory")?;
    let span = began.elapsed();
    for _ in caller.legs.drain() {
        caller.calls.failures.push("not ended within 10 s".to_owned());
    }
    caller.endpoint.stop(GOODBYE).await;
    let goodbye = server.stop(options.keep).await;

    let mut report = report(options, span, &before, &after, goodbye, &cores);
    let log = watch.log();
    let mut calls = caller.calls;
    calls.placed_per_second = calls.placed as f64 / placing.as_secs_f64();
    calls.ringing = log.ringing.figures();
    calls.retransmitted = log.repeated;
    calls.retransmissions = log.examples;
    calls.cpu_ms_per_call = millis(after.cpu.saturating_sub(before.cpu)) / calls.placed as f64;
    if calls.placed_per_second < f64::from(options.rate) * 0.98 {
        let made = calls.placed_per_second;
        report.void.push(format!("only {made:.0} calls a second could be placed from this side"));
    }
    report.calls = Some(calls);
    Ok(report)
}

struct Caller {
    endpoint: EndpointHandle,
    server: std::net::SocketAddr,
    port: u16,
    /// Whether it was answered.
    legs: HashMap<LegId, bool>,
    calls: ShortCalls,
}

impl Caller {
    fn dial(&mut self) -> anyhow::Result<()> {
        let call = self.calls.placed;
        let target = self.endpoint.target(Transport::Udp, self.server)?;
        let uri =
            |user: &str, at: std::net::SocketAddr| Uri::sip(user, &at.ip().to_string(), Some(at.port()));
        let (to, from) = (uri("short", self.server)?, uri("bench", target.local)?);
        let sdp = calls::offer(call, self.port, self.port).into_bytes();
        let id = LegId::fresh();
        self.endpoint
            .invite(id, OutgoingInvite { sdp: Some(sdp), ..OutgoingInvite::new(target, to, from) })?;
        self.legs.insert(id, false);
        self.calls.placed += 1;
        Ok(())
    }

    fn event(&mut self, event: UaEvent) {
        let UaEvent::Leg(id, event) = event else { return };
        let why = match event {
            LegEvent::Answered { sdp: Some(_) } => {
                self.legs.insert(id, true);
                return;
            }
            LegEvent::Answered { sdp: None } => {
                self.endpoint.command(id, LegCommand::Hangup { reason: None });
                "the answer has no SDP".to_owned()
            }
            LegEvent::Failed { status, reason, .. } => format!("{} {reason}", status.get()),
            LegEvent::Ended { by, reason, .. } => match self.legs.remove(&id) {
                Some(true) => {
                    self.calls.completed += 1;
                    return;
                }
                _ => format!("ended by {by:?}: {}", reason.unwrap_or_default()),
            },
            _ => return,
        };
        self.legs.remove(&id);
        if self.calls.failures.len() < FAILURES_KEPT {
            self.calls.failures.push(why);
        }
    }
}

// The flood.

async fn flooded(
    options: &Options,
    talking: usize,
    cores: Cores,
    remark: impl Fn(&str),
) -> anyhow::Result<Report> {
    let config = format!(
        "[sip.flood]\ninvites_per_second = {}\n\
         [[trunk]]\nname = \"carrier\"\nallow = [\"127.0.0.1\"]\n\
         [[trunk]]\nname = \"flood\"\nallow = [\"127.0.0.2\"]\n",
        options.rate
    );
    let server = Server::start(&setup(options, &config), &cores).await?;
    let generator = Generator::start(talking, Talk::Markers, cores.generator.clone())?;
    let mut calls = Calls::start(server.sip, &["echo"], talking, generator.commands()).await?;
    calls.place(talking, 20.0).await?;
    anyhow::ensure!(calls.live() > 0, "no call was answered: {}", calls.failures_in_words());
    // Until the phones know their grids.
    calls.run_for(SETTLED).await;
    remark(&format!(
        "{} calls talk; listening for {} s before the flood",
        calls.live(),
        options.span.as_secs()
    ));
    generator.measure(true).await;
    calls.run_for(options.span).await;
    let quiet = generator.turn_page().await?;

    let rate = 10 * options.rate;
    remark(&format!("{rate} INVITEs a second for {} s", options.span.as_secs()));
    let before = Snapshot::take(&server, None, &generator)?;
    let flood = Flood::start(Ipv4Addr::new(127, 0, 0, 2), server.sip, rate, cores.signalling.clone())?;
    calls.run_for(options.span).await;
    let invites = flood.stop()?;
    generator.measure(false).await;
    let after = Snapshot::take(&server, None, &generator)?;
    let live = calls.live();
    let outcome = calls.hang_up().await;
    let heard = generator.stop().await?;
    let goodbye = server.stop(options.keep).await;
    let span = after.at - before.at;
    let mut report = report(options, span, &before.server, &after.server, goodbye, &cores);
    let lateness = heard.lateness.figures();
    let busy = (after.generator_cpu - before.generator_cpu).as_secs_f64() / span.as_secs_f64() * 100.0;
    report.void = void_phones(busy, &lateness);
    if invites.sent < (f64::from(rate) * options.span.as_secs_f64() * 0.95) as u64 {
        report.void.push(format!("only {} INVITEs could be sent from this side", invites.sent));
    }
    report.flood = Some(Flooded {
        invites,
        calls: live,
        failed_calls: outcome.failures.len(),
        pacing_before: quiet.figures(),
        pacing: heard.grid_error.figures(),
        rtp: heard.faults,
        lateness,
    });
    Ok(report)
}

fn report(
    options: &Options,
    span: Duration,
    before: &super::child::Usage,
    after: &super::child::Usage,
    goodbye: Goodbye,
    cores: &Cores,
) -> Report {
    let percent =
        |then: Duration, now: Duration| now.saturating_sub(then).as_secs_f64() / span.as_secs_f64() * 100.0;
    let threads = after.threads.iter().map(|(name, now)| {
        (name.clone(), percent(before.threads.get(name).copied().unwrap_or_default(), *now))
    });
    Report {
        rate: options.rate,
        seconds: span.as_secs_f64(),
        calls: None,
        flood: None,
        cpu_percent: percent(before.cpu, after.cpu),
        threads_percent: threads.collect(),
        stopped_cleanly: goodbye.clean,
        complaints: goodbye.complaints.into_iter().take(TOLD).collect(),
        machine: Machine::this(cores.server.len()),
        void: Vec::new(),
    }
}

impl Report {
    /// The limits this server is built to.
    pub fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        if let Some(calls) = &self.calls {
            let failed = calls.placed - calls.completed;
            checks.push(Check::at_most("INVITE -> 180, p99", calls.ringing.p99_ms, 20.0, "ms"));
            checks.push(Check::at_most("failed calls", failed as f64, 0.0, ""));
            checks.push(Check::at_most("retransmitted messages", calls.retransmitted as f64, 0.0, ""));
        }
        if let Some(flood) = &self.flood {
            let admitted = flood.invites.answered(|status| status != 503) as f64 / self.seconds;
            let lost = (flood.rtp.lost + flood.rtp.timestamp_jumps) as f64;
            // A bucket is full when the flood begins.
            let rated = f64::from(self.rate) * (1.0 + 1.5 / self.seconds);
            checks.push(Check::at_most("admitted INVITEs a second", admitted, rated, ""));
            checks.push(Check::at_most("INVITEs without an answer", flood.invites.silent() as f64, 0.0, ""));
            checks.push(Check::at_most(
                "pacing error of calls that talk, p99",
                flood.pacing.p99_ms,
                2.0,
                "ms",
            ));
            checks.push(Check::at_most("their packets lost or jumping", lost, 0.0, ""));
            checks.push(Check::at_most("their calls failed", flood.failed_calls as f64, 0.0, ""));
        }
        checks
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} calls a second for {:.0} s; {} on {} core(s), Linux {}, load {}",
            self.rate,
            self.seconds,
            self.machine.cpu,
            self.machine.cores,
            self.machine.kernel,
            self.machine.load
        )];
        if let Some(calls) = &self.calls {
            lines.push(format!(
                "{} calls placed ({:.1} a second), {} completed, {} messages retransmitted",
                calls.placed, calls.placed_per_second, calls.completed, calls.retransmitted
            ));
            lines.push(calls.ringing.line("INVITE -> 180"));
            lines.push(format!("processor: {:.2} ms per call", calls.cpu_ms_per_call));
            lines.extend(calls.failures.iter().take(TOLD).map(|why| format!("failed call: {why}")));
            lines.extend(calls.retransmissions.iter().map(|what| format!("retransmission: {what}")));
        }
        if let Some(flood) = &self.flood {
            lines.push(format!("flood: {}", flood.invites));
            lines.push(format!("{} calls talked, {} failed", flood.calls, flood.failed_calls));
            lines.push(flood.pacing_before.line("pacing before the flood"));
            lines.push(flood.pacing.line("pacing, flood included"));
            lines.push(flood.lateness.line("far ends: their own lateness"));
            lines.push(format!(
                "RTP to the phones: {} lost, {} disordered, {} timestamp jumps",
                flood.rtp.lost, flood.rtp.disordered, flood.rtp.timestamp_jumps
            ));
        }
        lines.push(format!("processor: {:.0} % of a core", self.cpu_percent));
        lines.push(format!("  by thread, percent: {}", threads_in_words(&self.threads_percent)));
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
number = "short"
flow = [{ step = "progress", seconds = 0.2 }, { step = "answer" }, { step = "wait", seconds = 1 }, { step = "hangup" }]

[[number]]
organization = "bench"
number = "echo"
flow = [{ step = "echo" }]

[[number]]
organization = "bench"
number = "busy"
flow = [{ step = "reject", status = 486 }]
"#;
const ENDED_WITHIN: Duration = Duration::from_secs(10);
const GOODBYE: Duration = Duration::from_secs(5);
const SETTLED: Duration = Duration::from_secs(4);
/// Failures and complaints told, and kept.
const TOLD: usize = 5;
const FAILURES_KEPT: usize = 100;
