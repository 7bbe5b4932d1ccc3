//! How long a tool call takes beyond its tool: from the service's message to the answer it is sent.
//!
//! The simulated service calls a tool in every turn, a webhook of this process answers it after a while, and the way
//! there and back is what is left of the time at the service once the webhook's own is taken off. Nothing here
//! believes the server's own clocks.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::State;
use axum::http::HeaderMap;
use dashmap::DashMap;
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::net::TcpListener;

use super::child::{Server, Setup};
use super::grid::{Figures, Spread};
use super::{Check, on_far_end};
use crate::audio::Codec;
use crate::simulate::openai::record::Record;
use crate::simulate::openai::script::Script;
use crate::simulate::openai::{OpenAiSimulator, SimConfig};
use crate::simulate::phone::{Act, CallPlan, Phone};
use crate::sip::message::Transport;
use crate::sip::uri::Uri;

/// How the benchmark is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Calls, all in all.
    pub calls: usize,
    /// Calls at a time.
    pub at_once: usize,
    /// Tool calls of each call, 1 to [`ROUNDS_MAX`].
    pub rounds: usize,
    /// The server's configuration beside what the benchmark sets.
    pub server_config: Option<PathBuf>,
    /// Keep the server's directory, with its log.
    pub keep: bool,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Calls that took place.
    pub calls: usize,
    /// Tool calls that should have been answered.
    pub expected: usize,
    /// The way to the tool and back, without the tool's own time.
    pub overhead: Figures,
    /// Mistakes the service has seen.
    pub violations: usize,
    /// Why the run says nothing.
    pub void: Vec<String>,
}

/// Tool calls that a call may make without a word of the caller.
pub const ROUNDS_MAX: usize = 24;

impl Report {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let Figures { count, p50_ms, p95_ms, p99_ms, max_ms } = self.overhead;
        vec![
            format!("{count} of {} tool calls in {} calls were answered", self.expected, self.calls),
            format!(
                "there and back, without the tool: p50 {p50_ms:.2} ms, p95 {p95_ms:.2} ms, p99 {p99_ms:.2} ms, \
                 max {max_ms:.2} ms"
            ),
        ]
    }

    /// The figures held against their limits.
    pub fn checks(&self) -> Vec<Check> {
        let missing = self.expected.saturating_sub(self.overhead.count as usize);
        vec![
            Check::at_most("tool round trip beyond the tool, p99", self.overhead.p99_ms, 5.0, "ms"),
            Check::at_most("tool calls without an answer", missing as f64, 0.0, ""),
            Check::at_most("violations of the protocol", self.violations as f64, 0.0, ""),
        ]
    }
}

/// Runs the benchmark.
///
/// # Errors
/// When the server does not start, or no call gets through.
pub fn run(options: &Options, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    on_far_end(async |cores| {
        let service = SimConfig { seed: 1, ..SimConfig::default() };
        let mut service = service;
        service.behaviour.script = script(options.rounds)?;
        let service = OpenAiSimulator::start(service).await?;
        let times = Times::default();
        let hook = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = hook.local_addr()?;
        let app = axum::Router::new().fallback(answer).with_state(times.clone());
        let hook = tokio::spawn(async move { axum::serve(hook, app).await });
        let config = format!(
            "[routing]\ndefault_chain = [\"bench\"]\n[tools]\nallow_networks = [\"127.0.0.0/8\"]\n\
             [providers.bench]\nkind = \"openai\"\nurl = \"{}\"\napi_key_env = [\"TANDEM_BENCH_KEY\"]\n",
            service.url()
        );
        let resources =
            format!("{RESOURCES}url = \"http://{address}/lookup\"\nsecret_env = \"TANDEM_BENCH_KEY\"\n");
        let setup = Setup { base: options.server_config.clone(), config, resources };
        let server = Server::start(&setup, &cores).await?;
        remark("the server is ready; calls are being placed");
        let calls = place(options, server.sip).await?;
        let goodbye = server.stop(options.keep).await;
        hook.abort();
        let report = service.stop().await?;
        let mut overhead = Spread::default();
        for entry in &report.entries {
            if let Record::ToolAnswered { call_id, after_us, .. } = &entry.record {
                let own = times.get(call_id).map_or(Duration::ZERO, |time| *time);
                overhead.add(Duration::from_micros(*after_us).saturating_sub(own));
            }
        }
        let void = if goodbye.clean { Vec::new() } else { vec!["the server did not end cleanly".to_owned()] };
        Ok(Report {
            calls,
            expected: calls * options.rounds,
            overhead: overhead.figures(),
            violations: report.violations().count(),
            void,
        })
    })
}

/// Places the calls; answers how many took place.
async fn place(options: &Options, server: std::net::SocketAddr) -> anyhow::Result<usize> {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let phone = Phone::start(local, PHONE_PORTS, 1).await?;
    let target = Uri::parse(format!("sip:100@{server}").as_bytes()).context("the number of the benchmark")?;
    let plan = || CallPlan {
        target: target.clone(),
        remote: server,
        transport: Transport::Udp,
        from: "bench".to_owned(),
        codecs: vec![Codec::Pcmu],
        credentials: None,
        acts: vec![Act::WaitForSpeech(Duration::from_millis(200)), Act::HangUp],
        limit: Duration::from_secs(60),
    };
    let calls = futures_util::stream::iter(0..options.calls).map(|_| phone.call(plan()));
    let made: Vec<_> = calls.buffer_unordered(options.at_once).collect().await;
    phone.stop().await;
    let answered = made.iter().filter(|call| call.is_ok()).count();
    anyhow::ensure!(answered > 0, "no call was answered");
    Ok(answered)
}

/// How long the tool itself took, by tool call.
type Times = Arc<DashMap<String, Duration>>;

/// The tool: takes its time, and tells how much.
async fn answer(State(times): State<Times>, headers: HeaderMap, _body: String) -> &'static str {
    let began = Instant::now();
    tokio::time::sleep(TOOL).await;
    if let Some(id) = headers.get("tandem-tool-call").and_then(|id| id.to_str().ok()) {
        times.insert(id.to_owned(), began.elapsed());
    }
    r#"{"found": true}"#
}

fn script(rounds: usize) -> anyhow::Result<Script> {
    let turn = "[[turn]]\nlatency_ms = 20\ntool = { name = \"lookup\", arguments = { order = \"A17\" } }\n";
    let last = "[[turn]]\nsay = \"That is all.\"\nspeech = \"tone:440\"\nduration_ms = 1000\n";
    Ok(Script::parse(&format!("{}{last}", turn.repeat(rounds)))?)
}

/// What the tool takes by itself.
const TOOL: Duration = Duration::from_millis(5);
/// RTP ports of the phone.
const PHONE_PORTS: (u16, u16) = (30_000, 30_999);

const RESOURCES: &str = r#"
[[organization]]
name = "bench"

[[assistant]]
organization = "bench"
name = "reception"
chain = ["bench"]
tools = ["lookup"]

[[number]]
organization = "bench"
number = "100"
flow = [{ step = "assistant", assistant = "reception" }]

[[tool]]
organization = "bench"
name = "lookup"
description = "Finds an order."
parameters = { type = "object", properties = { order = { type = "string" } }, required = ["order"] }
"#;
