//! What a call leaves in the logs: no number, no word, nothing a caller could have slipped in.

#[path = "call/support.rs"]
mod support;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tandem::config::MasterKey;
use tandem::simulate::phone::Act;
use tandem::telemetry::capture;
use tokio::net::UdpSocket;
use tracing::Level;

use support::{CALLER, Lab, PATIENCE, Setup, acts, listen, utterance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_call_logs_no_number_and_no_word() {
    let captured = capture::install().expect("this test has the process for itself");
    let script = "speech = \"tone:600\"\nhears = [\"my secret is marmalade\"]\n[[turn]]\nsay = \"A zeppelin awaits.\"\n\
                  duration_ms = 800\n[[turn]]\nsay = \"Mind the porcupine.\"\nduration_ms = 1500\n\
                  tool = { name = \"send_dtmf\", arguments = { digits = \"8642\" } }\n";
    let setup = Setup::default().greeting("Walrus and company.").script(script);
    let setup = setup.configure(|config| config.secrets.key = Some(MasterKey::new([7; 32])));
    let lab = Lab::open(PORTS, setup).await;
    let token = lab.token().await;
    let key = r#"{"key": "sk-kept-in-the-database", "organization": "acme"}"#;
    assert_eq!(lab.http("POST", "/api/v1/providers/openai/keys", &token, key).await.0, 201);
    let keys = Act::Press("7531".to_owned());
    let talk =
        acts([&listen(), &[utterance(400)], &listen(), &[utterance(400), keys], &listen(), &[Act::HangUp]]);
    lab.call("100", talk).await;
    // And one that fails at every turn.
    lab.call("999", Vec::new()).await;
    let sip = lab.sip;
    let hostile = invite(sip, "\"\u{1b}[31mMallory\u{7}\"", CALLER, "100").await;
    assert!(hostile.is_some(), "it is an ordinary call");
    let lines = lab.server.store().transcript(lab.closed(2).await[1].id).await.expect("the store answers");
    assert!(lines.iter().any(|line| line.text.contains("marmalade")), "the record has the words: {lines:?}");
    lab.close().await;

    assert!(captured.mentions(Level::INFO, "call ended").len() >= 2, "the call is logged");
    let number = CALLER.trim_start_matches('+');
    for secret in
        [number, "marmalade", "zeppelin", "porcupine", "walrus", "8642", "7531", "mallory", "sk-test"]
    {
        let told = captured.mentions(Level::INFO, secret);
        assert!(told.is_empty(), "{secret} is in the log: {told:#?}");
    }
    assert!(!captured.mentions(Level::INFO, "a provider's key was added").is_empty(), "that is told");
    for key in ["sk-test", "sk-kept-in"] {
        let keys = captured.mentions(Level::TRACE, key);
        assert!(keys.is_empty(), "a key is in the log: {keys:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_name_reaches_no_terminal() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let sip = free_port();
    let config = format!(
        "[sip]\nlisten = [\"udp://{sip}\"]\n[http]\nlisten = \"127.0.0.1:0\"\n[media]\nrtp_ports = \"{}-{}\"\nworkers = 1\n\
         [log]\nlevel = \"trace\"\n",
        PORTS + 1000,
        PORTS + 1999
    );
    std::fs::write(home.path().join("tandem.toml"), config).expect("it can be written");
    let mut server = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(["serve", "--config", "tandem.toml"])
        .current_dir(home.path())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tandem runs");
    let mut log = BufReader::new(server.stderr.take().expect("a pipe"));
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains("ready for calls") {
        assert!(log.read_until(b'\n', &mut bytes).expect("the log is readable") > 0, "the server ended");
    }
    let rest = std::thread::spawn(move || {
        // It ends with the process.
        let _ended = std::io::Read::read_to_end(&mut log, &mut bytes);
        bytes
    });
    let names = ["\"\u{1b}[31mMallory\u{7}\"", "\"a\u{9b}2Jb\"", "\"x\u{202e}y\"", "\"<script>\\\"\""];
    for name in names {
        assert!(invite(sip, name, "+1555\u{1b}[0m", "nobody").await.is_some(), "{name:?} is answered");
    }
    server.kill().expect("it can be killed");
    server.wait().expect("it ends");
    let log = String::from_utf8(rest.join().expect("no panic")).expect("the log is text");
    let bad = |c: &char| (c.is_control() && *c != '\n') || matches!(*c, '\u{202a}'..='\u{202e}');
    let line = log.lines().find(|line| line.chars().any(|c| bad(&c)));
    assert_eq!(line.map(str::escape_debug).map(|line| line.to_string()), None);
}

/// Sends an INVITE, waits for the final answer and ends it. Its status line.
async fn invite(sip: SocketAddr, display: &str, from: &str, to: &str) -> Option<String> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let own = socket.local_addr().expect("an address");
    let id: u64 = rand::random();
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\n",
        own.port()
    );
    let message = |method: &str, branch: &str, tag: &str, body: &str| {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} sip:{to}@{sip} SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bK{branch}{id}\r\n\
             Max-Forwards: 70\r\nFrom: {display} <sip:{from}@{own}>;tag=a{id}\r\nTo: <sip:{to}@{sip}>{tag}\r\n\
             Call-ID: {id}@test\r\nCSeq: {} {method}\r\nContact: <sip:x@{own}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            if method == "BYE" { 2 } else { 1 },
            body.len()
        )
    };
    let send = async |text: String| socket.send_to(text.as_bytes(), sip).await.expect("loopback takes it");
    send(message("INVITE", "i", "", &sdp)).await;
    let mut datagram = vec![0; 65_536];
    let answer = async {
        loop {
            let length = socket.recv(&mut datagram).await.expect("loopback works");
            let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
            if text.starts_with("SIP/2.0 ") && !text.starts_with("SIP/2.0 1") {
                return text;
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await.ok()?;
    let to_line = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("to:"))?;
    let tag = to_line.split_once(";tag=").map(|(_, tag)| format!(";tag={}", tag.trim()))?;
    let accepted = answer.starts_with("SIP/2.0 2");
    send(message("ACK", if accepted { "a" } else { "i" }, &tag, "")).await;
    if accepted {
        send(message("BYE", "b", &tag, "")).await;
    }
    answer.lines().next().map(str::to_owned)
}

fn free_port() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("an address")
}

/// First of the RTP ports of this test binary. The two tests share them out.
const PORTS: u16 = 28_000;
