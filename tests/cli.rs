//! The manners of the command line: what goes to standard output, what to standard error, exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

/// Runs `tandem` in an empty directory of its own, with an empty environment.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.args(words).current_dir(self.path()).env_clear().stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        Ran(self.command(words).output().expect("tandem runs"))
    }
}

struct Ran(Output);

impl Ran {
    fn code(&self) -> i32 {
        self.0.status.code().expect("no signal")
    }

    fn out(&self) -> &str {
        std::str::from_utf8(&self.0.stdout).expect("text")
    }

    fn err(&self) -> &str {
        std::str::from_utf8(&self.0.stderr).expect("text")
    }

    /// Standard output is one JSON document and nothing else.
    #[track_caller]
    fn document(&self) -> Value {
        serde_json::from_str(self.out()).unwrap_or_else(|e| panic!("{e}: {:?} {:?}", self.out(), self.err()))
    }

    /// Standard error is one problem document and nothing else.
    #[track_caller]
    fn problem(&self) -> Value {
        serde_json::from_str(self.err()).unwrap_or_else(|e| panic!("{e}: {:?}", self.err()))
    }
}

#[test]
fn every_commands_json_is_one_document() {
    let home = Home::new();
    for words in [
        &["version", "--json"][..],
        &["config", "check", "--json"],
        &["config", "show", "--json"],
        &["config", "show", "--origin", "--json"],
        &["config", "schema", "--json"],
        &["config", "schema", "--resources"],
        &["completions", "bash", "--json"],
        &["man", "--out", "man", "--json"],
        &["init", "--json"],
        &["db", "migrate", "--json"],
        &["db", "status", "--json"],
        &["token", "create", "--role", "admin", "--json"],
        &["token", "list", "--json"],
    ] {
        let ran = home.run(words);
        assert_eq!(ran.code(), 0, "{words:?} {}", ran.err());
        assert_eq!(ran.err(), "", "{words:?}");
        ran.document();
    }
    let doctor = home.run(&["doctor", "--offline", "--json"]);
    assert!(doctor.document()["checks"].as_array().is_some_and(|checks| checks.len() > 8));
}

#[test]
fn misuse_exits_with_2_and_suggests() {
    let home = Home::new();
    let ran = home.run(&["confg", "check"]);
    assert_eq!((ran.code(), ran.out()), (2, ""));
    assert!(ran.err().contains("a similar subcommand exists: 'config'"), "{}", ran.err());
    let ran = home.run(&["config", "chekc", "--json"]);
    assert_eq!((ran.code(), ran.out()), (2, ""));
    let problem = ran.problem();
    assert_eq!((&problem["code"], &problem["status"]), (&json!("usage"), &json!(400)));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("'check'")), "{problem}");
    assert_eq!(home.run(&[]).code(), 2);
}

#[test]
fn help_is_no_error_and_begins_with_examples() {
    let ran = Home::new().run(&["call", "tail", "--help"]);
    assert_eq!((ran.code(), ran.err()), (0, ""));
    assert!(
        ran.out().starts_with("Examples:\n  tandem call tail\n  tandem call tail call_"),
        "{}",
        ran.out()
    );
}

#[test]
fn a_bad_configuration_is_told_in_full_and_exits_with_7() {
    let home = Home::new();
    std::fs::write(home.path().join("tandem.toml"), "[sip]\nlisen = []\n[http]\nlisten = 8080\n")
        .expect("written");
    let ran = home.run(&["config", "check"]);
    assert_eq!(ran.code(), 7);
    assert_eq!(
        ran.out(),
        "tandem.toml:2:1: error: sip.lisen: unknown key\n  fix: did you mean `listen`?\n\
         tandem.toml:4:10: error: http.listen: expected text, found a whole number\n  fix: write \"127.0.0.1:8080\"\n"
    );
    assert_eq!(ran.err(), "tandem.toml: 2 errors, 0 warnings\n");
    let ran = home.run(&["config", "check", "--json"]);
    assert_eq!(ran.code(), 7);
    let document = ran.document();
    assert_eq!((&document["ok"], &document["errors"]), (&json!(false), &json!(2)));
    assert_eq!(document["findings"][0]["line"], 2);
}

#[test]
fn serve_refuses_a_bad_configuration_with_all_that_is_wrong() {
    let home = Home::new();
    let ran = home.run(&["serve", "--set", "sip.listn=x", "--set", "media.workers=many"]);
    assert_eq!((ran.code(), ran.out()), (1, ""));
    assert!(ran.err().contains("the configuration has 2 errors"), "{}", ran.err());
    assert!(ran.err().contains("option --set sip.listn: error:"), "{}", ran.err());
    assert!(ran.err().contains("did you mean `listen`?"), "{}", ran.err());
}

#[test]
fn config_show_tells_origins_and_masks_passwords() {
    let home = Home::new();
    std::fs::write(home.path().join("tandem.toml"), "[node]\nname = \"edge-7\"\n").expect("written");
    let ran = Ran(home
        .command(&["config", "show", "--origin"])
        .env("TANDEM__STORE__URL", "postgres://tandem:hunter2@db/tandem")
        .output()
        .expect("tandem runs"));
    assert!(ran.out().contains("tandem.toml:2:8"), "{}", ran.out());
    assert!(ran.out().contains("environment variable TANDEM__STORE__URL"), "{}", ran.out());
    assert!(!ran.out().contains("hunter2") && ran.out().contains("***"), "{}", ran.out());
}

#[test]
fn the_configuration_is_found_by_option_variable_and_directory() {
    let home = Home::new();
    for name in ["tandem.toml", "variable.toml", "option.toml"] {
        std::fs::write(home.path().join(name), format!("[node]\nname = \"{name}\"\n")).expect("written");
    }
    let name = |words: &[&str], variable: Option<&str>| {
        let mut command = home.command(&[words, &["config", "show", "--json"]].concat());
        command.envs(variable.map(|file| ("TANDEM_CONFIG", file)));
        Ran(command.output().expect("tandem runs")).document()["node"]["name"].clone()
    };
    assert_eq!(name(&[], None), "tandem.toml");
    assert_eq!(name(&[], Some("variable.toml")), "variable.toml");
    assert_eq!(name(&["--config", "option.toml"], Some("variable.toml")), "option.toml");
}

#[test]
fn init_does_not_replace_a_file_unless_forced() {
    let home = Home::new();
    let first = home.run(&["init"]);
    assert_eq!((first.code(), first.out()), (0, "tandem.toml\n"));
    assert!(first.err().contains("Next steps:"), "{}", first.err());
    let second = home.run(&["init", "--json"]);
    assert_eq!((second.code(), second.out()), (5, ""));
    assert_eq!(second.problem()["code"], "conflict");
    assert_eq!(home.run(&["init", "--force"]).code(), 0);
    assert_eq!(home.run(&["config", "check"]).code(), 0);
}

#[test]
fn without_a_server_calls_exit_with_6() {
    let home = Home::new();
    let ran = home.run(&["call", "list"]);
    assert_eq!((ran.code(), ran.out()), (6, ""));
    assert!(ran.err().contains("fix: start Tandem with `tandem serve`"), "{}", ran.err());
    let ran = home.run(&["call", "tail", "--server", "http://127.0.0.1:1", "--json"]);
    assert_eq!((ran.code(), ran.out()), (6, ""));
    assert_eq!(ran.problem()["code"], "unreachable");
    assert_eq!(home.run(&["call", "list", "--server", "ftp://x"]).code(), 2);
}

#[test]
fn an_id_that_is_none_is_misuse() {
    let ran = Home::new().run(&["call", "show", "leg_1"]);
    assert_eq!(ran.code(), 2);
    assert!(ran.err().contains("is not a call id"), "{}", ran.err());
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let home = Home::new();
    let made = home.run(&["token", "create", "--role", "admin", "--expires", "30d"]);
    assert_eq!(made.code(), 0, "{}", made.err());
    assert!(made.out().starts_with("tandem_") && made.out().lines().count() == 1, "{}", made.out());
    let listed = home.run(&["token", "list", "--json"]).document();
    let id = listed["data"][0]["id"].as_str().expect("an id").to_owned();
    assert!(!listed.to_string().contains(made.out().trim()));
    assert!(listed["data"][0]["expires_at"].is_string());
    assert_eq!(home.run(&["token", "list", "-q"]).out().trim(), id);
    assert_eq!(home.run(&["token", "revoke", &id]).code(), 0);
    assert_eq!(home.run(&["token", "revoke", &id]).code(), 3);
    assert_eq!(home.run(&["token", "create", "--role", "boss"]).code(), 2);
    assert_eq!(home.run(&["token", "create", "--role", "agent", "--org", "nobody"]).code(), 3);
}

#[test]
fn apply_finds_faults_before_it_asks_a_server() {
    let home = Home::new();
    std::fs::write(home.path().join("r.toml"), "[[organization]]\nnam = \"acme\"\n").expect("written");
    let dry = home.run(&["apply", "-f", "r.toml", "--dry-run"]);
    assert_eq!(dry.code(), 7);
    assert!(
        dry.out()
            .contains("r.toml:2:1: error: organization[0].nam: unknown key\n  fix: did you mean `name`?"),
        "{}",
        dry.out()
    );
    let ran = home.run(&["apply", "-f", "r.toml", "--json"]);
    assert_eq!((ran.code(), ran.out()), (1, ""));
    ran.problem();
    assert_eq!(home.run(&["apply", "-f", "absent.toml"]).code(), 3);
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let home = Home::new();
    assert_eq!(home.run(&["man", "--out", "pages"]).code(), 0);
    for page in ["tandem.1", "tandem-serve.1", "tandem-call-tail.1", "tandem-simulate-openai.1"] {
        assert!(home.path().join("pages").join(page).is_file(), "{page}");
    }
}

#[test]
fn colour_is_for_terminals_or_on_request() {
    let home = Home::new();
    std::fs::write(home.path().join("tandem.toml"), "x = 1\n").expect("written");
    assert!(!home.run(&["config", "check"]).out().contains('\x1b'));
    assert!(home.run(&["config", "check", "--color", "always"]).out().contains('\x1b'));
}

/// A server that gives one answer on the local socket and says what it was asked.
fn answer_once(home: &Home, status: &'static str, body: Value) -> std::thread::JoinHandle<String> {
    std::fs::create_dir_all(home.path().join("data")).expect("made");
    let listener = UnixListener::bind(home.path().join("data/tandem.sock")).expect("bound");
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let asked = read_request(&stream);
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        (&stream).write_all(format!("{head}{body}").as_bytes()).expect("written");
        asked
    })
}

fn read_request(stream: &UnixStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        reader.read_line(&mut head).expect("a line");
        let line = head[start..].trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    head + std::str::from_utf8(&body).expect("text")
}

const CALL: &str = "call_01KE0000000000000000000000";

#[test]
fn calls_are_listed_for_people_and_for_programs() {
    let page = json!({ "data": [{
        "id": CALL, "from": "+15550100", "to": "100", "phase": "in_call", "disposition": null,
        "created_at": "2026-01-01T00:00:00.000Z", "duration_ms": 61_000, "assistant": "reception", "trunk": null,
    }], "has_more": false, "next_cursor": null });
    for (words, expected) in [
        (&["call", "list", "--live"][..], "ID                               FROM       TO   STATE    BEGAN             LENGTH  ASSISTANT  TRUNK\ncall_01KE0000000000000000000000  +15550100  100  in_call  2026-01-01 00:00  1:01    reception\n".to_owned()),
        (&["call", "list", "--live", "-q"], format!("{CALL}\n")),
        (&["call", "list", "--live", "--json"], format!("{page}\n")),
    ] {
        let home = Home::new();
        let server = answer_once(&home, "200 OK", page.clone());
        let ran = home.run(words);
        assert_eq!((ran.code(), ran.out()), (0, expected.as_str()), "{}", ran.err());
        let asked = server.join().expect("answered");
        assert!(asked.starts_with("GET /api/v1/calls?limit=50&live=true HTTP/1.1\r\n"), "{asked}");
    }
}

#[test]
fn the_servers_problem_is_passed_on() {
    let problem = json!({ "type": "/docs/errors#not_found", "title": "Not found", "status": 404,
        "detail": "There is no such call.", "code": "not_found" });
    let home = Home::new();
    let server = answer_once(&home, "404 Not Found", problem.clone());
    let ran = home.run(&["call", "say", CALL, "one", "moment", "--json"]);
    assert_eq!((ran.code(), ran.out()), (3, ""));
    assert_eq!(ran.problem(), problem);
    let asked = server.join().expect("answered");
    assert!(asked.starts_with(&format!("POST /api/v1/calls/{CALL}/say HTTP/1.1\r\n")), "{asked}");
    assert!(asked.ends_with(r#"{"text":"one moment"}"#), "{asked}");
}

#[test]
fn a_transcript_says_what_was_cut() {
    let page = json!({ "data": [
        { "who": "assistant", "text": "Good morning, Acme.", "start_ms": 900, "end_ms": 2_000, "heard": "full" },
        { "who": "caller", "text": "Hello \u{1b}[31mthere", "start_ms": 2_500, "end_ms": 3_000, "heard": "full" },
        { "who": "assistant", "text": "Our hours are nine to five", "start_ms": 61_000, "end_ms": 63_000,
          "heard": "cut", "heard_text": "Our hours" },
    ] });
    let home = Home::new();
    let server = answer_once(&home, "200 OK", page);
    let ran = home.run(&["call", "transcript", CALL]);
    assert_eq!(ran.code(), 0, "{}", ran.err());
    assert_eq!(
        ran.out(),
        "   0:00  assistant   Good morning, Acme.\n   0:02  caller      Hello ·[31mthere\n   1:01  assistant   Our hours are nine to five [cut, heard: \"Our hours\"]\n"
    );
    server.join().expect("answered");
}

/// Accepts the handshake in the sub-protocol of the live feed.
#[expect(clippy::result_large_err, reason = "the library's own type")]
fn in_our_protocol(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get("sec-websocket-protocol").cloned().expect("a sub-protocol");
    assert_eq!(offered, "tandem.console.v1");
    response.headers_mut().insert("sec-websocket-protocol", offered);
    Ok(response)
}

#[test]
fn a_tail_resumes_after_a_lost_connection_and_ends_with_the_call() {
    let home = Home::new();
    std::fs::create_dir_all(home.path().join("data")).expect("made");
    let listener = UnixListener::bind(home.path().join("data/tandem.sock")).expect("bound");
    let server = std::thread::spawn(move || {
        let topic = format!("call:{CALL}");
        let event = |seq: u64, kind: &str, data: Value| {
            json!({ "v": 1, "topic": topic, "epoch": "e1", "seq": seq, "type": kind, "data": data })
                .to_string()
        };
        let digit =
            |seq: u64| event(seq, "dtmf.received", json!({ "digit": seq.to_string(), "method": "rtp" }));
        let subscribed =
            json!({ "op": "subscribed", "type": "subscribed", "topic": topic, "epoch": "e1", "head": 2 });
        let mut asked = Vec::new();
        for round in 0..2 {
            let (stream, _) = listener.accept().expect("a client");
            let mut socket = tungstenite::accept_hdr(stream, in_our_protocol).expect("a handshake");
            asked.push(socket.read().expect("a frame").into_text().expect("text").to_string());
            let mut send = |frame: String| socket.send(frame.into()).expect("sent");
            send(json!({ "type": "hello", "op": "hello" }).to_string());
            send(subscribed.to_string());
            send(digit(1));
            send(digit(2));
            if round == 1 {
                send(event(3, "call.ended", json!({ "disposition": "completed" })));
                while socket.read().is_ok() {}
            }
        }
        asked
    });
    let ran = home.run(&["call", "tail", CALL, "--json"]);
    assert_eq!((ran.code(), ran.err()), (0, ""));
    let seqs: Vec<u64> = ran
        .out()
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("one object a line")["seq"].as_u64().expect("a number")
        })
        .collect();
    assert_eq!(seqs, [1, 2, 3]);
    let asked = server.join().expect("answered");
    assert_eq!(
        asked[0],
        json!({ "op": "subscribe", "topic": format!("call:{CALL}"), "since": 0 }).to_string()
    );
    let again = json!({ "op": "subscribe", "topic": format!("call:{CALL}"), "since": 2, "epoch": "e1" });
    assert_eq!(asked[1], again.to_string());
}

/// Every metric the sources name is described to Prometheus.
#[test]
fn every_metric_is_documented() {
    fn sources(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).expect("readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("text");
                for kind in ["counter!(", "gauge!(", "histogram!("] {
                    for (at, _) in text.match_indices(kind) {
                        let rest = text[at + kind.len()..].trim_start();
                        let name = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
                        found.extend(name.map(str::to_owned));
                    }
                }
            }
        }
    }
    let mut used = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut used);
    used.retain(|name| !tandem::telemetry::METRICS.iter().any(|metric| metric.name == name));
    used.sort();
    used.dedup();
    assert_eq!(used, [""; 0], "list them in src/telemetry/names.rs");
}

/// An AudioSocket server of a few lines: it answers one connection with a tone, and hangs up after so many frames.
fn audiosocket_server(frames: usize, kind: u8) -> (std::net::SocketAddr, std::thread::JoinHandle<Vec<u8>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let served = std::thread::spawn(move || {
        let mut stream = listener.accept().expect("somebody calls").0;
        let mut uuid = [0; 19];
        stream.read_exact(&mut uuid).expect("a UUID");
        let (mut header, mut payload, mut digits) = ([0; 3], Vec::new(), Vec::new());
        for frame in 0..frames {
            // One of theirs, one of ours: the caller's clock is the pace.
            loop {
                stream.read_exact(&mut header).expect("a message");
                payload.resize(usize::from(u16::from_be_bytes([header[1], header[2]])), 0);
                stream.read_exact(&mut payload).expect("its payload");
                if header[0] != 3 {
                    break;
                }
                digits.push(payload[0]);
            }
            let step = std::f64::consts::TAU * 440.0 / 8_000.0;
            let sample = |n: usize| ((8_000.0 * (step * n as f64).sin()) as i16).to_le_bytes();
            let mut message = vec![kind, 1, 64];
            message.extend((frame * 160..(frame + 1) * 160).flat_map(sample));
            stream.write_all(&message).expect("the caller reads");
        }
        // A kind that is not ours ends the call as well as a hang-up does.
        let _ = stream.write_all(&[0, 0, 0]);
        digits
    });
    (address, served)
}

#[test]
fn a_simulated_asterisk_calls_an_audiosocket_server_and_tells_what_it_heard() {
    let (address, served) = audiosocket_server(60, 0x10);
    let home = Home::new();
    let uuid = "40325ec2-5efd-4bd3-805f-53576e581d13";
    let to = address.to_string();
    let words =
        ["simulate", "audiosocket", "--to", &to, "--uuid", uuid, "--dtmf", "5", "--strict", "--json", "-q"];
    let ran = home.run(&words);
    assert_eq!(ran.code(), 0, "{} {}", ran.out(), ran.err());
    let told = ran.document();
    let call = &told["calls"][0];
    assert_eq!(
        (&call["uuid"], &call["ended"], &call["digits"]),
        (&json!(uuid), &json!("server_hung_up"), &json!("5"))
    );
    let hz = call["heard"]["tone"]["hz"].as_f64().expect("a tone");
    assert!((hz - 440.0).abs() < 1.0, "{call}");
    assert_eq!(served.join().expect("served"), b"5");
}

#[test]
fn a_server_that_breaks_audiosocket_is_found_out() {
    let (address, served) = audiosocket_server(1, 0x20);
    let to = address.to_string();
    let ran = Home::new().run(&[
        "simulate",
        "asterisk",
        "--http",
        "127.0.0.1:0",
        "--audiosocket",
        &to,
        "--format",
        "slin",
        "--strict",
        "--json",
        "-q",
    ]);
    assert_eq!(ran.code(), 7, "{} {}", ran.out(), ran.err());
    let told = ran.document();
    let wrong = told["calls"][0]["violations"][0].as_str().expect("a violation");
    assert!(wrong.contains("kind 0x20"), "{wrong}");
    served.join().expect("served");
    let ran = Home::new().run(&["simulate", "audiosocket", "--to", "127.0.0.1:9", "--dtmf", "x"]);
    assert!(ran.err().contains("`X` is no key"), "{}", ran.err());
}
