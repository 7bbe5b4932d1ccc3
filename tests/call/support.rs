//! A whole server, the simulated service it talks to, and a phone: what every whole-call test starts from.

#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tandem::audio::{Codec, SampleRate};
use tandem::config::{CodecName, Config, OpenAi, PortRange, ProviderSection, SipListen, SipTransport};
use tandem::id::CallId;
use tandem::serve::Server;
use tandem::simulate::openai::format::AudioFormat;
use tandem::simulate::openai::record::Record;
use tandem::simulate::openai::report::Report;
use tandem::simulate::openai::script::Script;
use tandem::simulate::openai::{Behaviour, Observer, OpenAiSimulator, Running, SimConfig, Speech};
use tandem::simulate::phone::{Act, CallPlan, CallReport, Phone};
use tandem::sip::message::Transport;
use tandem::sip::uri::Uri;
use tandem::store::{CallFilter, CallRecord, Committed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// How a [`Lab`] differs from the plain one.
pub struct Setup {
    /// The service.
    pub service: SimConfig,
    /// Changes to the server's configuration.
    pub configure: Box<dyn FnOnce(&mut Config) + Send>,
    /// The assistant's first words; none: the script's first turn.
    pub greeting: Option<&'static str>,
    /// Lines added to the assistant's resource.
    pub assistant: &'static str,
    /// Further resources.
    pub resources: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            service: SimConfig::default(),
            configure: Box::new(|_| ()),
            greeting: None,
            assistant: "",
            resources: String::new(),
        }
    }
}

impl Setup {
    /// The service says this by this script.
    pub fn script(mut self, script: &str) -> Self {
        self.service.behaviour.script = Script::parse(script).expect("the test's own script");
        self
    }

    /// The service sounds like this.
    pub fn speech(mut self, speech: &str) -> Self {
        self.service.behaviour.speech = speech.parse().expect("the test's own speech");
        self
    }

    /// The service misbehaves.
    pub fn fault(mut self, fault: &str) -> Self {
        self.service.faults.push(fault.parse().expect("the test's own fault"));
        self
    }

    /// What the assistant says first.
    pub fn greeting(mut self, text: &'static str) -> Self {
        self.greeting = Some(text);
        self
    }

    /// The service's behaviour.
    pub fn behave(mut self, change: impl FnOnce(&mut Behaviour)) -> Self {
        change(&mut self.service.behaviour);
        self
    }

    /// Changes the server's configuration.
    pub fn configure(mut self, change: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        self.configure = Box::new(change);
        self
    }
}

/// Server, service and phone, all on this machine.
pub struct Lab {
    pub server: Server,
    pub service: Running,
    pub phone: Phone,
    pub ears: Arc<ServiceEars>,
    pub sip: SocketAddr,
    pub directory: tempfile::TempDir,
}

impl Lab {
    /// Starts everything. `ports` are the first of 2000 that belong to the test binary.
    pub async fn open(ports: u16, setup: Setup) -> Self {
        // It fails only when one is set already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ears = Arc::new(ServiceEars::default());
        let mut service = setup.service;
        service.observer = Some(ears.clone());
        let service = OpenAiSimulator::start(service).await.expect("the simulator starts");
        let mut config = config(directory.path(), ports, &service.url());
        (setup.configure)(&mut config);
        let resources = resources(setup.greeting, setup.assistant, &setup.resources);
        let server = Server::start(config, Some(("the test's resources".to_owned(), resources)))
            .await
            .expect("the server starts");
        let sip = server.sip_addresses().first().expect("it listens").address;
        let phone = Phone::start(LOCALHOST, (ports + 1000, ports + 1999), 1).await.expect("the phone starts");
        Self { server, service, phone, ears, sip, directory }
    }

    /// A plan that dials `number` and does `acts`.
    pub fn plan(&self, number: &str, codec: Codec, acts: Vec<Act>) -> CallPlan {
        plan(self.sip, number, codec, acts)
    }

    /// Dials `number` with PCMU and sees the call to its end.
    pub async fn call(&self, number: &str, acts: Vec<Act>) -> CallReport {
        self.phone.call(self.plan(number, Codec::Pcmu, acts)).await.expect("the phone can try")
    }

    /// The record of the only call, once it is closed, with its events.
    pub async fn record(&self) -> (CallRecord, Vec<Committed>) {
        let call = self.closed(1).await.remove(0);
        let events = self.events(call.id).await;
        (call, events)
    }

    /// The records of all calls, latest first, once `count` are closed.
    pub async fn closed(&self, count: usize) -> Vec<CallRecord> {
        let filter = CallFilter { live: Some(false), ..CallFilter::default() };
        let found = within(60, "the records are closed", async || {
            let page = self.server.store().calls(&filter, None, 100).await.expect("the store answers");
            (page.data.len() >= count).then_some(page.data)
        });
        found.await
    }

    /// The only call that is up.
    pub async fn live_call(&self) -> CallRecord {
        let filter = CallFilter { live: Some(true), ..CallFilter::default() };
        let found = within(60, "a call is up", async || {
            let page = self.server.store().calls(&filter, None, 2).await.expect("the store answers");
            page.data.into_iter().next()
        });
        found.await
    }

    /// All events of a call; they are numbered 1, 2, 3, …
    pub async fn events(&self, call: CallId) -> Vec<Committed> {
        let events = self.server.feed().call_since(call, 0, 1000).await.expect("the log answers");
        let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "events are dense");
        events
    }

    /// Waits for the service to have recorded something.
    pub async fn service_until(&self, what: &str, done: impl FnMut(&Report) -> bool) {
        let wait = tokio::time::timeout(PATIENCE, self.service.wait_until(done));
        assert!(wait.await.is_ok(), "the service waited in vain until {what}");
    }

    /// Stops everything and gives the service's account.
    pub async fn close(self) -> Report {
        self.phone.stop().await;
        self.server.stop(Duration::ZERO, CancellationToken::new()).await;
        self.service.stop().await.expect("the report is complete")
    }

    /// As [`Lab::close`], for calls in which our side must not have made a mistake.
    pub async fn close_without_violations(self) -> Report {
        let report = self.close().await;
        let violations: Vec<_> = report.violations().map(|entry| &entry.record).collect();
        assert!(violations.is_empty(), "{violations:#?}");
        report
    }

    /// An HTTP request with a token: status and body.
    pub async fn http(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, Value) {
        http(self.server.http_address(), method, path, token, body).await
    }

    /// A token for the whole installation.
    pub async fn token(&self) -> String {
        let role = tandem::store::Role::Admin;
        self.server.store().create_token("test", role, None, None).await.expect("a token").secret
    }
}

/// A plan that dials `number` at `sip` and does `acts`.
pub fn plan(sip: SocketAddr, number: &str, codec: Codec, acts: Vec<Act>) -> CallPlan {
    let target = format!("sip:{number}@{sip}");
    CallPlan {
        target: Uri::parse(target.as_bytes()).expect("the test's own number"),
        remote: sip,
        transport: Transport::Udp,
        from: CALLER.to_owned(),
        codecs: vec![codec],
        credentials: None,
        acts,
        limit: Duration::from_secs(75),
    }
}

/// What the service was sent, by connection.
#[derive(Default)]
pub struct ServiceEars(Mutex<Vec<Heard>>);

/// One connection's audio.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub connection: u64,
    pub pcm: Vec<i16>,
}

impl ServiceEars {
    /// All audio of the `n`th connection, counted from 1.
    pub fn pcm(&self, n: u64) -> Vec<i16> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().find(|heard| heard.connection == n).map(|heard| heard.pcm.clone()).unwrap_or_default()
    }
}

impl Observer for ServiceEars {
    fn appended(&self, connection: u64, _at: Instant, audio: &[u8], format: AudioFormat) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = all.iter().position(|heard| heard.connection == connection).unwrap_or_else(|| {
            all.push(Heard { connection, pcm: Vec::new() });
            all.len() - 1
        });
        format.decode(audio, &mut all[index].pcm);
    }
}

/// Data of the events of one kind, in order.
pub fn data_of(events: &[Committed], kind: &str) -> Vec<Value> {
    let wanted = events.iter().filter(|event| &*event.kind == kind);
    wanted.map(|event| serde_json::from_str(event.data.get()).expect("event data is JSON")).collect()
}

/// The kinds of events, in order.
pub fn kinds(events: &[Committed]) -> Vec<&str> {
    events.iter().map(|event| &*event.kind).collect()
}

/// The truncations the service was told of: item, milliseconds heard.
pub fn truncations(report: &Report) -> Vec<(String, u64)> {
    let told = report.entries.iter().filter_map(|entry| match &entry.record {
        Record::Truncation { item, audio_end_ms, .. } => Some((item.clone(), *audio_end_ms)),
        _ => None,
    });
    told.collect()
}

/// A script of one answer that sounds like `speech` for `ms`.
pub fn answer(speech: &str, ms: u32) -> String {
    format!("[[turn]]\nsay = \"An answer of some length.\"\nspeech = \"{speech}\"\nduration_ms = {ms}\n")
}

/// Looks until there is something, for at most `seconds`.
pub async fn within<T>(seconds: u64, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let search = async {
        loop {
            tick.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(seconds), search).await;
    found.unwrap_or_else(|_| panic!("waited {seconds} s in vain until {what}"))
}

/// A request over HTTP/1.1: status and JSON body, `null` where there is none.
pub async fn http(to: SocketAddr, method: &str, path: &str, token: &str, body: &str) -> (u16, Value) {
    http_with(to, method, path, token, "", body).await
}

/// As [`http`], with more headers, each with its line end.
pub async fn http_with(
    to: SocketAddr,
    method: &str,
    path: &str,
    token: &str,
    headers: &str,
    body: &str,
) -> (u16, Value) {
    let mut stream = TcpStream::connect(to).await.expect("the server listens");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         {headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    read.await.expect("an answer in time").expect("the server answers");
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    let (head, body) = text.split_once("\r\n\r\n").expect("a header's end");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "this client reads no chunks: {head}");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Says this and goes on when it is said.
pub fn say(pcm: impl Into<Arc<[i16]>>) -> Act {
    Act::Say(pcm.into())
}

/// Half a second of speech-like sound: enough for any turn detection.
pub fn utterance(millis: usize) -> Act {
    say(tone(500.0, 9000.0, millis))
}

/// A sine at the bridge's rate.
pub fn tone(hz: f64, amplitude: f64, millis: usize) -> Vec<i16> {
    let step = std::f64::consts::TAU * hz / 24_000.0;
    (0..millis * 24).map(|n| (amplitude * (step * n as f64).sin()).round() as i16).collect()
}

/// The phone listens until the assistant has spoken.
pub fn listen() -> [Act; 2] {
    [Act::WaitForSpeech(ms(200)), Act::WaitForSilence(ms(600))]
}

/// Acts one after the other.
pub fn acts<const N: usize>(parts: [&[Act]; N]) -> Vec<Act> {
    parts.concat()
}

/// The codecs of the issue.
pub fn codecs() -> [Codec; 5] {
    [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus, Codec::L16(SampleRate::HZ_16000)]
}

/// A server's configuration: loopback, free ports, SQLite in `directory`.
pub fn config(directory: &std::path::Path, ports: u16, service: &str) -> Config {
    let mut config = Config::default();
    directory.clone_into(&mut config.node.data_dir);
    config.store.url = format!("sqlite://{}", directory.join("tandem.db").display());
    let loopback = SocketAddr::new(LOCALHOST, 0);
    config.sip.listen =
        [SipTransport::Udp].map(|transport| SipListen { transport, address: loopback }).into();
    config.http.listen = loopback;
    config.media.rtp_ports = PortRange { first: ports, last: ports + 999 };
    config.media.port_quarantine = Duration::from_secs(1);
    config.media.workers = 1;
    config.media.codecs =
        vec![CodecName::Opus, CodecName::G722, CodecName::Pcmu, CodecName::Pcma, CodecName::L16];
    let openai = OpenAi { url: service.to_owned(), api_keys: vec!["sk-test".into()], ..OpenAi::default() };
    config.providers.insert("openai".to_owned(), ProviderSection::Openai(openai));
    config.routing.default_chain = vec!["openai".to_owned()];
    config
}

/// Two organizations. `acme`: 100 is the assistant, 200 rings for long, 300 refuses, 400 is a line test.
/// `globex`: 500 is its own assistant.
pub fn resources(greeting: Option<&str>, assistant: &str, more: &str) -> String {
    let greeting = greeting.map(|text| format!("greeting = \"{text}\"\n")).unwrap_or_default();
    format!(
        r#"
[[organization]]
name = "acme"

[[organization]]
name = "globex"

[[assistant]]
organization = "acme"
name = "reception"
chain = ["openai"]
instructions = "You answer the phone for Acme."
tools = ["end_call", "send_dtmf"]
{greeting}{assistant}

[[assistant]]
organization = "globex"
name = "desk"
chain = ["openai"]

[[number]]
organization = "acme"
number = "100"
flow = [{{ step = "assistant", assistant = "reception" }}]

[[number]]
organization = "acme"
number = "200"
flow = [{{ step = "progress", seconds = 60 }}]

[[number]]
organization = "acme"
number = "300"
flow = [{{ step = "reject", status = 486 }}]

[[number]]
organization = "acme"
number = "400"
flow = [{{ step = "echo" }}]

[[number]]
organization = "globex"
number = "500"
flow = [{{ step = "assistant", assistant = "desk" }}]
{more}
"#
    )
}

/// Whom the phone says it is.
pub const CALLER: &str = "+15550177321";
pub const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How long anything that does happen may take on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A voice in place of a tone.
pub const VOICE: Speech = Speech::Voice;
