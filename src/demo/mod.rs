//! `tandem demo`: one whole call on this machine.
//!
//! A real server and a simulated caller in one process, joined by real SIP and RTP over loopback. The
//! caller talks to the assistant, interrupts it once, and says goodbye; lines appear as they are spoken.
//! At the end everything is measured from the waveforms ([`measure`]) and, with `--check`, asserted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::audio::{Codec, voice};
use crate::config::{Config, OpenAi, PortRange, ProviderSection, Scripted, SipListen, SipTransport};
use crate::id::CallId;
use crate::serve::Server;
use crate::simulate::phone::{Act, CallPlan, Phone};
use crate::sip::message::Transport;
use crate::sip::uri::Uri;
use crate::store::{CallFilter, Committed};

pub mod measure;
mod screen;
mod summary;

use screen::Screen;
use summary::Summary;

/// How the demo is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Assert every step and exit with 0 or 1.
    pub check: bool,
    /// Open nothing in a browser. (There is nothing to open yet.)
    pub no_open: bool,
    /// `scripted` or `openai`.
    pub provider: String,
    /// Keep recording and database here; otherwise in a temporary directory, of which the recording stays.
    pub keep: Option<PathBuf>,
    /// One JSON document instead of lines.
    pub json: bool,
    /// Colour for people.
    pub colour: bool,
}

/// What the simulated caller says, in the order of the demo's script.
const CALLER: [&str; 4] = [
    "Good morning. When are you open this week?",
    "Sorry, just today, please.",
    "And where do I find you?",
    "Thank you, goodbye.",
];

/// Runs the demo.
///
/// # Errors
/// When the server or the phone cannot be started.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let screen = Screen::new(&options);
    let directory = match &options.keep {
        Some(directory) => directory.clone(),
        None => std::env::temp_dir().join(format!("tandem-demo-{}", std::process::id())),
    };
    std::fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let server = Server::start(config(&options, &directory)?, Some(resources(&options.provider))).await?;
    let sip = server.sip_addresses().first().context("the demo's server does not listen")?.address;
    screen.greet(&options.provider, sip, server.http_address());
    let listening = screen.follow(server.feed().subscribe());
    let phone = Phone::start(IpAddr::V4(Ipv4Addr::LOCALHOST), PHONE_PORTS, 1).await?;
    let report = phone.call(plan(sip)?).await?;
    phone.stop().await;
    let (call, events) = record(&server).await?;
    listening.finish().await;
    server.settle_recordings();
    server.stop(Duration::from_secs(5), CancellationToken::new()).await;
    let recording = directory.join("recordings").join(format!("{call}.wav"));
    let heard = directory.join("caller.wav");
    crate::simulate::phone::cli::write_recording(&heard, &report)?;
    let summary = Summary::of(&options, &report, &events, &recording);
    if options.keep.is_none() {
        tidy_up(&directory);
    }
    screen.summarise(&summary, &recording)?;
    let passed = !options.check || summary.failures() == 0;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn config(options: &Options, directory: &Path) -> anyhow::Result<Config> {
    let mut config = Config::default();
    config.node.data_dir = directory.to_owned();
    config.store.url = format!("sqlite://{}", directory.join("tandem.db").display());
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    config.sip.listen = vec![SipListen { transport: SipTransport::Udp, address: loopback }];
    config.http.listen = loopback;
    config.media.rtp_ports = PortRange { first: SERVER_PORTS.0, last: SERVER_PORTS.1 };
    config.media.workers = 1;
    config.recording.enabled = true;
    config.routing.default_chain = vec![options.provider.clone()];
    let section = if options.provider == "openai" {
        let key = std::env::var("OPENAI_API_KEY")
            .ok()
            .filter(|key| !key.is_empty())
            .context("--provider openai needs an API key in the variable OPENAI_API_KEY")?;
        let mut openai = OpenAi { api_keys: vec![key.into()], ..OpenAi::default() };
        if let Ok(url) = std::env::var("OPENAI_BASE_URL") {
            openai.url = url;
        }
        ProviderSection::Openai(openai)
    } else {
        ProviderSection::Scripted(Scripted { script: Some("demo".into()) })
    };
    config.providers.insert(options.provider.clone(), section);
    Ok(config)
}

fn resources(provider: &str) -> (String, String) {
    let text = format!(
        r#"
[[organization]]
name = "acme"
recording = "on"

[[assistant]]
organization = "acme"
name = "reception"
chain = ["{provider}"]
instructions = """You answer the phone for Acme, a shop. Open Monday to Friday 9 to 18, Saturday 10 to 14, closed \
on Sunday; 12 Harbour Street, next to the station. When asked for the opening hours, answer at length. When the \
caller says goodbye, say goodbye and call end_call."""
greeting = "Acme, good morning. How can I help you?"
tools = ["end_call"]

[[number]]
organization = "acme"
number = "100"
flow = [{{ step = "assistant", assistant = "reception" }}]
"#
    );
    ("the demo's resources".to_owned(), text)
}

fn plan(sip: SocketAddr) -> anyhow::Result<CallPlan> {
    let line = |text: &str| Act::Say(Arc::from(voice::speak(text)));
    let ms = Duration::from_millis;
    let target = format!("sip:100@{sip}");
    Ok(CallPlan {
        target: Uri::parse(target.as_bytes()).map_err(|error| anyhow::anyhow!("{target}: {error}"))?,
        remote: sip,
        transport: Transport::Udp,
        from: "+15550122".to_owned(),
        codecs: vec![Codec::Pcmu],
        credentials: None,
        acts: vec![
            Act::WaitForSpeech(ms(300)),
            Act::WaitForSilence(ms(900)),
            line(CALLER[0]),
            // The answer is long; after three seconds of it the caller has heard enough.
            Act::WaitForSpeech(ms(3000)),
            line(CALLER[1]),
            Act::WaitForSpeech(ms(300)),
            Act::WaitForSilence(ms(900)),
            line(CALLER[2]),
            Act::WaitForSpeech(ms(300)),
            Act::WaitForSilence(ms(900)),
            line(CALLER[3]),
        ],
        limit: Duration::from_secs(90),
    })
}

/// The call's events, once its record is closed.
async fn record(server: &Server) -> anyhow::Result<(CallId, Vec<Committed>)> {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..500 {
        look.tick().await;
        let page = server.store().calls(&CallFilter::default(), None, 1).await?;
        let Some(call) = page.data.first() else { continue };
        if call.ended_at.is_some() {
            return Ok((call.id, server.feed().call_since(call.id, 0, 1000).await?));
        }
    }
    anyhow::bail!("the call's record was not closed within 10 s")
}

/// Only the recording is worth keeping.
fn tidy_up(directory: &Path) {
    for name in ["tandem.db", "tandem.db-wal", "tandem.db-shm", "journal"] {
        let path = directory.join(name);
        let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        if let Err(error) = gone
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "a file of the demo stays behind");
        }
    }
}

/// Data of one event kind, in order.
fn data_of(events: &[Committed], kind: &str) -> Vec<Value> {
    let wanted = events.iter().filter(|event| &*event.kind == kind);
    wanted.map(|event| serde_json::from_str(event.data.get()).unwrap_or_else(|_| json!({}))).collect()
}

const SERVER_PORTS: (u16, u16) = (23_000, 23_399);
const PHONE_PORTS: (u16, u16) = (23_400, 23_799);
