//! How many calls this machine carries, measured from outside.
//!
//! The server under test is a process of its own, started with a configuration of our making; its CPU and
//! memory are read from `/proc`. This process is both far ends: `N` phones with real SIP and RTP
//! ([`calls`], [`generator`]) and the OpenAI simulator ([`service`]). Loud packets among quiet ones
//! ([`marker`]) are followed through the server in both directions, so nothing here believes the server's
//! own clocks or counters.
//!
//! A run in which a far end was the bottleneck says nothing about the server: it is declared void.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

pub mod audiosocket;
pub mod bridge;
mod calls;
mod child;
pub mod failover;
mod flood;
mod generator;
mod grid;
mod line;
pub mod load;
mod machine;
mod marker;
mod report;
mod service;
pub mod soak;
pub mod tools;
mod wire;

pub use report::{Check, Report};

use calls::Calls;
use child::{Server, Setup};
use generator::{Generator, Talk};
use machine::Cores;
use service::Service;

/// How the benchmark is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Calls at a time, 1 to [`marker::CALLS_MAX`].
    pub calls: usize,
    /// Length of the measurement, after all calls are up.
    pub span: Duration,
    /// New calls a second while the load builds up.
    pub rate: f64,
    /// Assistant audio in one message of the simulated service, about.
    pub delta_ms: u32,
    /// The server's configuration beside what the benchmark sets.
    pub server_config: Option<PathBuf>,
    /// Keep the server's directory, with its log.
    pub keep: bool,
}

/// Runs the benchmark on the calling thread and threads of its own.
///
/// # Errors
/// When the server does not start, or no call gets through.
pub fn run(options: &Options, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    on_far_end(async |cores| measure(options, &cores, remark).await)
}

/// Runs a benchmark on this thread, which is the phones' signalling.
fn on_far_end<T>(work: impl AsyncFnOnce(Cores) -> anyhow::Result<T>) -> anyhow::Result<T> {
    machine::raise_file_limit();
    let cores = Cores::split();
    cores.pin_to(&cores.signalling);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work(cores))
}

async fn measure(options: &Options, cores: &Cores, remark: impl Fn(&str)) -> anyhow::Result<Report> {
    let service = Service::start(options, cores.simulator.clone())?;
    let server = Server::start(&setup(options, &service.url), cores).await?;
    let idle = server.usage().context("reading /proc of the server")?;
    remark("the server is ready; calls are being placed");
    let generator = Generator::start(options.calls, Talk::Markers, cores.generator.clone())?;
    let mut calls = Calls::start(server.sip, &["100"], options.calls, generator.commands()).await?;
    calls.place(options.calls, options.rate).await?;
    anyhow::ensure!(calls.live() > 0, "no call was answered: {}", calls.failures_in_words());
    calls.run_for(marker::SETTLED).await;

    remark(&format!("{} calls are up; measuring for {} s", calls.live(), options.span.as_secs()));
    let before = Snapshot::take(&server, Some(&service), &generator)?;
    generator.measure(true).await;
    calls.run_for(options.span).await;
    generator.measure(false).await;
    let after = Snapshot::take(&server, Some(&service), &generator)?;
    // What was sent last is still under way.
    calls.run_for(marker::LIMIT).await;

    let live = calls.live();
    let signalling = calls.hang_up().await;
    let heard = generator.stop().await?;
    let service = service.stop().await?;
    let goodbye = server.stop(options.keep).await;
    Ok(Report::of(report::Raw {
        options,
        medium: report::Medium::Rtp,
        cores,
        live,
        idle,
        before,
        after,
        heard,
        service,
        signalling,
        goodbye,
    }))
}

fn setup(options: &Options, service: &str) -> Setup {
    let config = format!(
        "[routing]\ndefault_chain = [\"bench\"]\n\
         [providers.bench]\nkind = \"openai\"\nurl = \"{service}\"\napi_key_env = [\"TANDEM_BENCH_KEY\"]\n"
    );
    Setup { base: options.server_config.clone(), config, resources: RESOURCES.to_owned() }
}

/// Everything that is read at the beginning and at the end of the measurement.
struct Snapshot {
    at: Instant,
    server: child::Usage,
    generator_cpu: Duration,
    simulator_cpu: Duration,
    machine: machine::Strain,
}

impl Snapshot {
    fn take(server: &Server, service: Option<&Service>, generator: &Generator) -> anyhow::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            server: server.usage().context("the server has died; its log is in its directory")?,
            generator_cpu: machine::thread_cpu(generator.thread),
            simulator_cpu: service.map_or(Duration::ZERO, |service| machine::thread_cpu(service.thread)),
            machine: machine::Strain::now(),
        })
    }
}

const RESOURCES: &str = r#"
[[organization]]
name = "bench"

[[assistant]]
organization = "bench"
name = "reception"
chain = ["bench"]
instructions = "You answer the phone."
greeting = "Good morning."

[[number]]
organization = "bench"
number = "100"
flow = [{ step = "assistant", assistant = "reception" }]
"#;
