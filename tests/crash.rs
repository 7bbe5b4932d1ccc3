//! `kill -9` in the middle of a call: nothing that was shown is lost, and nothing stays open.

#[path = "call/support.rs"]
mod support;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tandem::audio::Codec;
use tandem::simulate::openai::script::Script;
use tandem::simulate::openai::{OpenAiSimulator, SimConfig};
use tandem::simulate::phone::{Act, Phone};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use support::{LOCALHOST, PATIENCE, acts, http, listen, ms, plan, resources, utterance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_has_every_line_it_had_shown_and_no_open_call() {
    let mut service = SimConfig::default();
    service.behaviour.script = Script::parse(SCRIPT).expect("the test's own script");
    service.behaviour.transcription_latency = ms(20);
    let service = OpenAiSimulator::start(service).await.expect("the simulator starts");
    let home = tempfile::tempdir().expect("a temporary directory");
    let sip = free_address();
    write_files(home.path(), sip, &service.url());
    let token = token(home.path());
    let server = Served::start(home.path());
    let phone = Phone::start(LOCALHOST, (PORTS + 1000, PORTS + 1999), 1).await.expect("the phone starts");
    let talk = acts([&listen(), &[utterance(300)], &listen(), &[utterance(300)], &[Act::Wait(PATIENCE)]]);
    let mut calling = plan(sip, "100", Codec::Pcmu, talk);
    // The phone says BYE to nobody in the end.
    calling.limit = ms(12_000);
    let calling = phone.call(calling);

    let shown = async {
        let mut lines = Vec::new();
        let mut feed = subscribe(server.http, &token).await;
        // The third line is the assistant's answer to the caller's first; the kill follows on its heels.
        while lines.len() < 3 {
            let message = tokio::time::timeout(PATIENCE, feed.next()).await.expect("a frame in time");
            let Some(Ok(Message::Text(text))) = message else { panic!("the feed broke: {message:?}") };
            let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
            if frame["type"] == "transcript.final" {
                lines.push(frame);
            }
        }
        server.kill();
        lines
    };
    let (report, shown) = tokio::join!(calling, shown);
    assert!(report.expect("the phone can try").answered.is_some());

    let server = Served::start(home.path());
    let id = shown[0]["call_id"].as_str().expect("an id").to_owned();
    let (status, call) = http(server.http, "GET", &format!("/api/v1/calls/{id}"), &token, "").await;
    assert_eq!((status, call["disposition"].as_str()), (200, Some("interrupted")), "{call}");
    assert!(call["ended_at"].is_string() || call["ended_at"].is_number(), "{call}");
    let (_, live) = http(server.http, "GET", "/api/v1/calls?live=true", &token, "").await;
    assert_eq!(live["data"], json!([]));
    let (_, transcript) =
        http(server.http, "GET", &format!("/api/v1/calls/{id}/transcript"), &token, "").await;
    let kept = transcript["data"].as_array().expect("lines");
    for line in &shown {
        let kept = kept.iter().find(|kept| kept["line_id"] == line["data"]["line_id"]);
        let kept = kept.unwrap_or_else(|| panic!("lost: {line}"));
        assert_eq!((&kept["text"], &kept["heard"]), (&line["data"]["text"], &line["data"]["heard"]));
    }
    let (_, events) =
        http(server.http, "GET", &format!("/api/v1/calls/{id}/events?limit=100"), &token, "").await;
    let events = events["data"].as_array().expect("events");
    let numbers: Vec<_> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let ends: Vec<_> = events.iter().filter(|event| event["type"] == "call.ended").collect();
    assert_eq!(ends.len(), 1, "{events:?}");
    server.kill();

    // A second crash and start change nothing: the record is closed once and for all.
    let server = Served::start(home.path());
    let (_, again) = http(server.http, "GET", &format!("/api/v1/calls/{id}"), &token, "").await;
    assert_eq!(again, call);
    server.kill();
    phone.stop().await;
    service.stop().await.expect("the report is complete");
}

/// `tandem serve` as a process of its own.
struct Served {
    child: std::sync::Mutex<Child>,
    http: SocketAddr,
}

impl Served {
    fn start(home: &Path) -> Self {
        let mut child = tandem(home)
            .args(["serve", "--config", "tandem.toml", "--apply", "resources.toml"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("tandem runs");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut said = String::new();
        let http = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the server did not start:\n{said}") };
            if let Some((_, address)) = line.split_once("http=").filter(|_| line.contains("ready for calls"))
            {
                break address.trim().parse().expect("an address");
            }
            said.push_str(&line);
            said.push('\n');
        };
        // The pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child: child.into(), http }
    }

    /// SIGKILL, and waits until the process is gone.
    fn kill(&self) {
        let mut child = self.child.lock().expect("no test thread panicked");
        child.kill().expect("it can be killed");
        child.wait().expect("it is gone");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            // It may be gone already.
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

fn tandem(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command
        .current_dir(home)
        .env_clear()
        .env("TEST_KEY", "sk-test")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn token(home: &Path) -> String {
    let mut command = tandem(home);
    command.args(["token", "create", "--role", "admin", "--json", "--config", "tandem.toml"]);
    let made = command.stdout(Stdio::piped()).output().expect("tandem runs");
    let document: Value = serde_json::from_slice(&made.stdout)
        .unwrap_or_else(|_| panic!("no token: {}", String::from_utf8_lossy(&made.stderr)));
    let secret = document["token"].as_str().or(document["secret"].as_str());
    secret.unwrap_or_else(|| panic!("no secret in {document}")).to_owned()
}

fn write_files(home: &Path, sip: SocketAddr, service: &str) {
    let config = format!(
        "[sip]\nlisten = [\"udp://{sip}\"]\n[http]\nlisten = \"127.0.0.1:0\"\n[media]\nrtp_ports = \"{}-{}\"\nworkers = 1\n\
         [providers.openai]\nkind = \"openai\"\nurl = \"{service}\"\napi_key_env = [\"TEST_KEY\"]\n",
        PORTS,
        PORTS + 999
    );
    std::fs::write(home.join("tandem.toml"), config).expect("it can be written");
    std::fs::write(home.join("resources.toml"), resources(None, "", "")).expect("it can be written");
}

async fn subscribe(server: SocketAddr, token: &str) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    let mut request = format!("ws://{server}/api/v1/events").into_client_request().expect("a request");
    let bearer = format!("Bearer {token}").parse().expect("a header");
    request.headers_mut().insert("authorization", bearer);
    let stream = TcpStream::connect(server).await.expect("the server listens");
    let (mut feed, _) = tokio_tungstenite::client_async(request, stream).await.expect("the feed opens");
    let wall = json!({"op": "subscribe", "topic": "wall", "since": 0}).to_string();
    feed.send(Message::text(wall)).await.expect("the feed is open");
    feed
}

fn free_address() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("an address")
}

const SCRIPT: &str = "speech = \"tone:600\"\nhears = [\"the first thing\", \"the second thing\"]\n\
    [[turn]]\nsay = \"Good morning.\"\nduration_ms = 500\n[[turn]]\nsay = \"I see.\"\nduration_ms = 500\n\
    [[turn]]\nsay = \"And now for something long.\"\nduration_ms = 9000\n";
/// First of the RTP ports of this test binary.
const PORTS: u16 = 30_000;
