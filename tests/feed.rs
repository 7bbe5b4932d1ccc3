//! The live feed of a whole server: subscriptions, resuming, slow readers, garbage, who may see what.

#[path = "call/support.rs"]
mod support;

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tandem::audio::Codec;
use tandem::id::CallId;
use tandem::simulate::phone::Act;
use tandem::store::Role;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use support::{Lab, PATIENCE, Setup, acts, answer, listen, ms, utterance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_seen_on_the_wall_and_by_itself_in_order_and_without_a_gap() {
    let lab = Lab::open(PORTS, Setup::default().script(&answer("tone:600", 600))).await;
    let token = lab.token().await;
    let mut wall = Watcher::open(lab.server.http_address(), Pass::Token(&token)).await;
    assert_eq!(wall.protocol.as_deref(), Some("tandem.console.v1"));
    let hello = wall.frame().await;
    assert_eq!((hello["type"].as_str(), hello["v"].as_u64()), (Some("hello"), Some(1)));
    wall.send(json!({"op": "subscribe", "topic": "wall"})).await;
    let subscribed = wall.frame().await;
    assert_eq!(
        (subscribed["type"].as_str(), subscribed["mode"].as_str()),
        (Some("subscribed"), Some("snapshot"))
    );
    assert_eq!(wall.frame().await["type"], "snapshot");

    talk(&lab, "100").await;
    let seen = wall.until("call.ended").await;
    let numbers: Vec<_> = seen.iter().map(|event| event["seq"].as_u64().expect("durable")).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let (call, events) = lab.record().await;
    let of_log: Vec<_> = events.iter().map(|event| event.event_id.to_string()).collect();
    let of_wall: Vec<_> = seen.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(of_wall, of_log, "what is shown is what is stored");

    // Whoever was away asks for what it missed.
    let topic = format!("call:{}", call.id);
    wall.send(json!({"op": "subscribe", "topic": topic, "epoch": hello["epoch"], "since": 3})).await;
    let subscribed = wall.frame().await;
    assert_eq!(
        (subscribed["mode"].as_str(), subscribed["head"].as_u64()),
        (Some("replay"), Some(call.last_seq))
    );
    let missed = wall.until("call.ended").await;
    let numbers: Vec<_> = missed.iter().map(|event| event["seq"].as_u64().expect("durable")).collect();
    assert_eq!(numbers, (4..=call.last_seq).collect::<Vec<_>>());
    assert!(missed.iter().all(|event| event["topic"] == topic.as_str()));

    // Without a number, or with another epoch's, there is a snapshot in place of the past.
    wall.send(json!({"op": "unsubscribe", "topic": topic})).await;
    wall.send(json!({"op": "subscribe", "topic": topic, "epoch": "another", "since": 3})).await;
    assert_eq!(wall.frame().await["mode"], "snapshot");
    let snapshot = wall.frame().await;
    assert_eq!(
        (snapshot["type"].as_str(), snapshot["seq"].as_u64()),
        (Some("snapshot"), Some(call.last_seq))
    );
    assert_eq!(snapshot["data"].to_string().matches("An answer of some length.").count(), 2, "{snapshot}");
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_watches_a_call_sees_who_speaks_and_how_loudly() {
    let lab = Lab::open(PORTS, Setup::default().script(&answer("tone:600", 900))).await;
    let token = lab.token().await;
    let mut watcher = Watcher::open(lab.server.http_address(), Pass::Token(&token)).await;
    watcher.send(json!({"op": "subscribe", "topic": "wall"})).await;
    let watch = async {
        let created = watcher.until("call.created").await;
        let topic = format!("call:{}", created[0]["call_id"].as_str().expect("an id"));
        watcher.send(json!({"op": "subscribe", "topic": topic})).await;
        let mut levels = Vec::new();
        loop {
            let frame = watcher.any_frame().await;
            match frame["type"].as_str() {
                Some("speech.level") => levels.push(frame),
                Some("call.ended") => return (topic, levels),
                _ => {}
            }
        }
    };
    let ((), (topic, levels)) = tokio::join!(talk(&lab, "100"), watch);
    let level = |frame: &Value, who: &str| frame["data"][who].as_i64().expect("a level");
    let speaks = |frame: &Value| {
        let (caller, assistant) = (level(frame, "caller_dbov") > -20, level(frame, "assistant_dbov") > -30);
        if caller {
            "caller"
        } else if assistant {
            "assistant"
        } else {
            "nobody"
        }
    };
    let mut turns: Vec<_> = levels.iter().map(speaks).filter(|who| *who != "nobody").collect();
    turns.dedup();
    assert_eq!(turns, ["assistant", "caller", "assistant"], "{levels:#?}");
    assert!(levels.iter().all(|frame| frame["topic"] == topic.as_str() && frame["seq"].is_null()));
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_sleeps_through_everything_catches_up() {
    let lab = Lab::open(PORTS, Setup::default()).await;
    let token = lab.token().await;
    let mut reader = Watcher::open(lab.server.http_address(), Pass::Token(&token)).await;
    reader.send(json!({"op": "subscribe", "topic": "wall", "since": 0})).await;
    // More than sockets, outbox and backlog hold together, while nobody reads.
    let feed = lab.server.feed();
    let mut refused = 0;
    while feed.wall_head(None) < EVENTS {
        let batch = (0..50).map(|_| lab.phone.call(support::plan(lab.sip, "999", Codec::Pcmu, Vec::new())));
        refused += futures_util::future::join_all(batch).await.len();
        lab.closed(refused.min(100)).await;
    }
    let head = feed.wall_head(None);
    let mut next = 1;
    while next <= head {
        let frame = reader.frame().await;
        if let Some(seq) = frame["seq"].as_u64().filter(|_| frame["id"].is_string()) {
            assert_eq!(seq, next, "{frame}");
            next += 1;
        }
    }
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_to_the_installation_is_shown_to_administrators_and_again_to_those_who_were_away() {
    let lab = Lab::open(PORTS, Setup::default().fault("refuse:503")).await;
    let token = lab.token().await;
    let mut present = Watcher::open(lab.server.http_address(), Pass::Token(&token)).await;
    let hello = present.frame().await;
    present.send(json!({"op": "subscribe", "topic": "system"})).await;
    assert_eq!(present.frame().await["mode"], "snapshot");
    let snapshot = present.frame().await;
    assert_eq!(snapshot["data"]["providers"][0]["state"], "closed", "{snapshot}");
    for _ in 0..5 {
        lab.call("100", Vec::new()).await;
    }
    let seen = present.until("system.alert").await;
    let of = |frames: &[Value]| -> Vec<(u64, String)> {
        let kind = |frame: &Value| frame["type"].as_str().unwrap_or_default().to_owned();
        frames.iter().filter_map(|frame| Some((frame["seq"].as_u64()?, kind(frame)))).collect()
    };
    let expected = [(1, "breaker.opened".to_owned()), (2, "system.alert".to_owned())];
    assert_eq!(of(&seen), expected);
    let alert = seen.last().expect("the alert");
    assert_eq!(
        (alert["topic"].as_str(), alert["data"]["provider"].as_str()),
        (Some("system"), Some("openai"))
    );

    let mut away = Watcher::open(lab.server.http_address(), Pass::Token(&token)).await;
    away.send(json!({"op": "subscribe", "topic": "system", "epoch": hello["epoch"], "since": 0})).await;
    assert_eq!(of(&away.until("system.alert").await), expected);

    let store = lab.server.store();
    let other = store.create_token("t", Role::Manager, Some("acme"), None).await.expect("a token").secret;
    let mut stranger = Watcher::open(lab.server.http_address(), Pass::Token(&other)).await;
    stranger.frame().await;
    stranger.send(json!({"op": "subscribe", "topic": "system"})).await;
    assert_eq!(stranger.frame().await["problem"]["status"], 403);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_sees_its_own_calls_and_no_others() {
    let lab = Lab::open(PORTS, Setup::default()).await;
    let store = lab.server.store();
    let globex =
        store.create_token("t", Role::Supervisor, Some("globex"), None).await.expect("a token").secret;
    let mut wall = Watcher::open(lab.server.http_address(), Pass::Token(&globex)).await;
    wall.send(json!({"op": "subscribe", "topic": "wall", "since": 0})).await;
    let hang_up = || vec![Act::Wait(ms(100)), Act::HangUp];
    lab.call("100", hang_up()).await;
    lab.call("500", hang_up()).await;
    let seen = wall.until("call.ended").await;
    let numbers: Vec<_> = seen.iter().map(|event| event["seq"].as_u64().expect("durable")).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "its wall is dense too");
    let calls = lab.closed(2).await;
    let id = |organization| {
        let call = calls.iter().find(|call| call.organization.as_deref() == Some(organization));
        call.expect("both have a call").id.to_string()
    };
    assert!(seen.iter().all(|event| event["call_id"] == id("globex").as_str()), "{seen:?}");
    for topic in [format!("call:{}", id("acme")), format!("call:{}", CallId::fresh()), "system".to_owned()] {
        wall.send(json!({"op": "subscribe", "topic": topic, "since": 0})).await;
        let refusal = wall.frame().await;
        assert_eq!(refusal["type"], "error", "{topic}: {refusal}");
    }
    let path = format!("/api/v1/calls/{}", id("acme"));
    assert_eq!(lab.http("GET", &path, &globex, "").await.0, 404);
    assert_eq!(lab.http("POST", &format!("{path}/end"), &globex, "").await.0, 404);
    let (_, list) = lab.http("GET", "/api/v1/calls", &globex, "").await;
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1));
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_enters_without_a_token_and_a_ticket_is_good_once() {
    let lab = Lab::open(PORTS, Setup::default()).await;
    let address = lab.server.http_address();
    assert_eq!(refused(address, Pass::None).await, 401);
    assert_eq!(refused(address, Pass::Token("tandem_0000")).await, 401);
    assert_eq!(refused(address, Pass::Ticket("0000")).await, 401);
    let token = lab.token().await;
    let (status, ticket) = lab.http("POST", "/api/v1/ws-tickets", &token, "").await;
    assert!((200..300).contains(&status), "{status}");
    let ticket = ticket["ticket"].as_str().expect("a ticket");
    assert_eq!(Watcher::open(address, Pass::Ticket(ticket)).await.frame().await["type"], "hello");
    assert_eq!(refused(address, Pass::Ticket(ticket)).await, 401);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_make_no_sense_are_answered_and_too_many_end_the_socket() {
    let lab = Lab::open(PORTS, Setup::default()).await;
    let token = lab.token().await;
    let mut odd = Watcher::open(lab.server.http_address(), Pass::Token(&token)).await;
    assert_eq!(odd.frame().await["type"], "hello");
    for nonsense in ["", "[]", "{\"op\": 5}", "{\"op\":\"subscribe\",\"topic\":\"moon\"}", "\u{0}\u{1b}[31m"]
    {
        odd.socket.send(Message::text(nonsense)).await.expect("it is still open");
        let answer = odd.frame().await;
        assert_eq!(
            (answer["type"].as_str(), answer["problem"]["status"].as_u64()),
            (Some("error"), Some(400))
        );
    }
    odd.send(json!({"op": "ping", "t": 7})).await;
    assert_eq!(odd.frame().await["t"], 7, "it works on");
    odd.send(json!({"op": "command", "cmd_id": "c1", "name": "call.fly", "args": {}})).await;
    let reply = odd.frame().await;
    assert_eq!((reply["cmd_id"].as_str(), reply["ok"].as_bool()), (Some("c1"), Some(false)));
    for _ in 0..40 {
        // The server closes in the middle of this.
        let _closed = odd.socket.send(Message::text("nonsense")).await;
    }
    assert_eq!(odd.close_code().await, Some(4009));
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_says_so() {
    let lab = Lab::open(PORTS, Setup::default()).await;
    let token = lab.token().await;
    let mut watcher = Watcher::open(lab.server.http_address(), Pass::Token(&token)).await;
    assert_eq!(watcher.frame().await["type"], "hello");
    let stopping = lab.server.stop(ms(0), CancellationToken::new());
    let told = async {
        let bye = watcher.frame().await;
        assert_eq!((bye["type"].as_str(), bye["reason"].as_str()), (Some("bye"), Some("restart")));
        watcher.close_code().await
    };
    let ((), code) = tokio::join!(stopping, told);
    assert_eq!(code, Some(4012));
    lab.phone.stop().await;
}

/// One short conversation.
async fn talk(lab: &Lab, number: &str) {
    lab.call(number, acts([&listen(), &[utterance(400)], &listen(), &[Act::HangUp]])).await;
}

/// How somebody proves who they are.
enum Pass<'a> {
    None,
    Token(&'a str),
    Ticket(&'a str),
}

/// A console's end of the feed.
struct Watcher {
    socket: WebSocketStream<TcpStream>,
    protocol: Option<String>,
}

impl Watcher {
    async fn open(server: SocketAddr, pass: Pass<'_>) -> Self {
        Self::try_open(server, pass).await.expect("the feed opens")
    }

    async fn try_open(server: SocketAddr, pass: Pass<'_>) -> Result<Self, tungstenite::Error> {
        let query = if let Pass::Ticket(ticket) = pass { format!("?ticket={ticket}") } else { String::new() };
        let mut request = format!("ws://{server}/api/v1/events{query}").into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", "tandem.console.v1".parse().expect("a header"));
        if let Pass::Token(token) = pass {
            headers.insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        }
        let stream = TcpStream::connect(server).await?;
        let (socket, answer) = tokio_tungstenite::client_async(request, stream).await?;
        let protocol = answer.headers().get("sec-websocket-protocol");
        let protocol = protocol.and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Self { socket, protocol })
    }

    async fn send(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.expect("the socket is open");
    }

    /// The next text frame that is not ephemeral.
    async fn frame(&mut self) -> Value {
        loop {
            let frame = self.any_frame().await;
            let event = frame["topic"].is_string() && frame["data"].is_object();
            if !event || frame["seq"].is_u64() {
                return frame;
            }
        }
    }

    /// The next text frame.
    async fn any_frame(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a frame in time");
            let message = message.expect("the socket is open").expect("the socket works");
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).expect("frames are JSON");
            }
        }
    }

    /// Durable events up to the first of that kind.
    async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let frame = self.frame().await;
            let last = frame["type"] == kind;
            if frame["id"].is_string() {
                events.push(frame);
            }
            if last {
                return events;
            }
        }
    }

    async fn close_code(&mut self) -> Option<u16> {
        let close = async {
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Close(frame) = message {
                    return frame.map(|frame| frame.code.into());
                }
            }
            None
        };
        tokio::time::timeout(PATIENCE, close).await.expect("an end in time")
    }
}

/// The HTTP status of a refused upgrade.
async fn refused(server: SocketAddr, pass: Pass<'_>) -> u16 {
    match Watcher::try_open(server, pass).await {
        Err(tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the feed is open to anybody"),
    }
}

/// Enough to overflow every buffer between the log and a reader.
const EVENTS: u64 = 1500;
/// First of the RTP ports of this test binary.
const PORTS: u16 = 26_000;
