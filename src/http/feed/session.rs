//! One socket's subscriptions: what it is told, in which order, and what happens when it reads slowly.
//!
//! Pure. The shell feeds in the client's frames, committed events, ephemeral events and pages read from
//! the log, and sends what [`Session::next_frame`] hands out.
//!
//! A topic is either *live* (each committed event goes straight to the outbox) or *catching up* (live
//! events are only noted; pages come from the log at the client's pace). It falls back to catching up
//! when the outbox is full or a number is missing, so memory is bounded and nothing durable is lost.
//! Ephemeral events have one overwritable slot per kind and line.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::id::CallId;

/// What can be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// All calls this client may see.
    Wall,
    /// One call.
    Call(CallId),
    /// Alerts of the installation.
    System,
}

impl std::fmt::Display for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wall => f.write_str("wall"),
            Self::Call(id) => write!(f, "call:{id}"),
            Self::System => f.write_str("system"),
        }
    }
}

impl std::str::FromStr for Topic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "wall" => Ok(Self::Wall),
            None if text == "system" => Ok(Self::System),
            Some(("call", id)) => id.parse().map(Self::Call).map_err(|e| format!("{e}")),
            _ => Err(format!("`{text}` is not a topic; known: wall, system, call:{{id}}")),
        }
    }
}

/// A durable event as one topic numbers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Its number in the topic.
    pub seq: u64,
    /// The envelope without its topic, epoch and number: `"id":…,"ts":…,"type":…,"data":…`.
    pub body: Arc<str>,
}

/// What the shell must do for the client.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Check the permission, then answer with [`Session::subscribed`] or [`Session::refused`].
    Subscribe {
        /// To what.
        topic: Topic,
        /// The epoch the client knows.
        epoch: Option<String>,
        /// The last number the client has.
        since: Option<u64>,
    },
    /// Run a command, then answer with [`Session::reply`].
    Command {
        /// The client's name for it.
        cmd_id: String,
        /// Such as `call.end`.
        name: String,
        /// Its arguments.
        args: Value,
    },
    /// Close the socket.
    Close(u16, &'static str),
}

/// State of one socket.
#[derive(Debug)]
pub struct Session {
    epoch: Arc<str>,
    topics: HashMap<Topic, Subscription>,
    control: VecDeque<String>,
    durable: VecDeque<String>,
    durable_bytes: usize,
    ephemeral: VecDeque<(String, String)>,
    requests: VecDeque<Request>,
    heartbeat: Duration,
    heard: Instant,
    pinged: Instant,
    garbage: u32,
}

#[derive(Debug)]
struct Subscription {
    /// Last number put into the outbox.
    sent: u64,
    /// Highest number seen live.
    head: u64,
    live: bool,
}

#[derive(Deserialize)]
struct ClientFrame {
    #[serde(alias = "type")]
    op: String,
    #[serde(default)]
    topic: Option<String>,
    #[serde(default)]
    epoch: Option<String>,
    #[serde(default)]
    since: Option<u64>,
    #[serde(default)]
    cmd_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    args: Value,
    #[serde(default)]
    t: Value,
}

impl Session {
    /// A fresh socket; `hello` is its first frame.
    pub fn new(now: Instant, epoch: Arc<str>, session: &str, time: &str, heartbeat: Duration) -> Self {
        let hello = json!({
            "v": 1, "op": "hello", "type": "hello", "session": session,
            "build": env!("CARGO_PKG_VERSION"), "heartbeat_s": heartbeat.as_secs(), "time": time,
            "epoch": &*epoch,
        });
        Self {
            epoch,
            topics: HashMap::new(),
            control: VecDeque::from([hello.to_string()]),
            durable: VecDeque::new(),
            durable_bytes: 0,
            ephemeral: VecDeque::new(),
            requests: VecDeque::new(),
            heartbeat,
            heard: now,
            pinged: now,
            garbage: 0,
        }
    }

    /// Takes a text frame of the client. Unknown fields are ignored; a frame that cannot be understood is
    /// answered with an error, and too many of them close the socket.
    pub fn client_text(&mut self, now: Instant, text: &str) {
        self.heard = now;
        match serde_json::from_str::<ClientFrame>(text) {
            Ok(frame) => self.client_frame(frame),
            Err(_) => self.misunderstood("the frame is not a JSON object with an `op`"),
        }
    }

    /// Any sign of life: a pong, a binary frame.
    pub fn client_alive(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The subscription is allowed; `head` is the topic's last number now. With `snapshot` the client
    /// starts from that state, otherwise the events after `since` follow.
    pub fn subscribed(&mut self, topic: Topic, since: Option<u64>, head: u64, snapshot: Option<Value>) {
        let mode = if snapshot.is_some() { "snapshot" } else { "replay" };
        self.push_control(json!({
            "v": 1, "op": "subscribed", "type": "subscribed", "topic": topic.to_string(),
            "epoch": &*self.epoch, "head": head, "mode": mode,
        }));
        if let Some(state) = &snapshot {
            self.push_control(json!({
                "v": 1, "op": "snapshot", "type": "snapshot", "topic": topic.to_string(),
                "epoch": &*self.epoch, "seq": head, "data": state,
            }));
        }
        let sent = if snapshot.is_some() { head } else { since.unwrap_or(head).min(head) };
        // Even from a snapshot the first look is at the log: an event may have been committed between
        // the reading of the head and now.
        self.topics.insert(topic, Subscription { sent, head, live: false });
    }

    /// The subscription is not allowed or makes no sense.
    pub fn refused(&mut self, topic: &Topic, problem: &Value) {
        self.push_control(json!({
            "v": 1, "op": "error", "type": "error", "topic": topic.to_string(), "problem": problem,
        }));
    }

    /// The answer to a command.
    pub fn reply(&mut self, cmd_id: &str, outcome: Result<(), Value>) {
        let frame = match outcome {
            Ok(()) => json!({"v": 1, "op": "reply", "type": "reply", "cmd_id": cmd_id, "ok": true}),
            Err(problem) => {
                json!({"v": 1, "op": "reply", "type": "reply", "cmd_id": cmd_id, "ok": false, "problem": problem})
            }
        };
        self.push_control(frame);
    }

    /// Whether anybody here listens to that topic.
    pub fn listens(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    /// An event was committed.
    pub fn committed(&mut self, topic: &Topic, event: &Numbered) {
        let room = self.has_room();
        let Some(subscription) = self.topics.get_mut(topic) else { return };
        subscription.head = subscription.head.max(event.seq);
        if !subscription.live || event.seq <= subscription.sent {
            return;
        }
        if event.seq == subscription.sent + 1 && room {
            subscription.sent = event.seq;
            self.push_durable(topic, event);
        } else {
            subscription.live = false;
        }
    }

    /// Committed events were missed: every topic looks into the log.
    pub fn lagged(&mut self) {
        for subscription in self.topics.values_mut() {
            subscription.live = false;
        }
    }

    /// An event to show and forget; `key` names what it replaces.
    pub fn ephemeral(&mut self, topic: &Topic, key: &str, body: &str) {
        if !self.listens(topic) {
            return;
        }
        let key = format!("{topic} {key}");
        let frame = format!(r#"{{"v":1,"topic":"{topic}","epoch":"{}",{body},"cmd_id":null}}"#, self.epoch);
        if let Some((_, slot)) = self.ephemeral.iter_mut().find(|(known, _)| *known == key) {
            *slot = frame;
        } else if self.ephemeral.len() < EPHEMERAL_SLOTS {
            self.ephemeral.push_back((key, frame));
        }
    }

    /// The log page this socket wants next, if its outbox has room: the topic and the number after which
    /// it starts. At most [`PAGE`] events are asked for.
    pub fn wants_page(&self) -> Option<(Topic, u64)> {
        if self.durable.len() + PAGE > OUTBOX_FRAMES || self.durable_bytes > OUTBOX_BYTES / 2 {
            return None;
        }
        self.topics.iter().find(|(_, s)| !s.live).map(|(topic, s)| (topic.clone(), s.sent))
    }

    /// A page of the log, in order, asked for by [`Self::wants_page`].
    pub fn page(&mut self, topic: &Topic, events: &[Numbered]) {
        let Some(sent) = self.topics.get(topic).map(|s| s.sent) else { return };
        let mut last = sent;
        for event in events.iter().filter(|event| event.seq > sent) {
            last = event.seq;
            self.push_durable(topic, event);
        }
        if let Some(subscription) = self.topics.get_mut(topic) {
            subscription.sent = last;
            subscription.live = events.len() < PAGE && last >= subscription.head;
            // The log is behind what was shown (it is being written late): go on live from there.
            if events.is_empty() && last < subscription.head {
                subscription.sent = subscription.head;
                subscription.live = true;
            }
        }
    }

    /// What the client asks for.
    pub fn next_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The next frame to send: control first, then durable, then ephemeral.
    pub fn next_frame(&mut self) -> Option<String> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        if let Some(frame) = self.durable.pop_front() {
            self.durable_bytes -= frame.len();
            return Some(frame);
        }
        self.ephemeral.pop_front().map(|(_, frame)| frame)
    }

    /// When [`Self::handle_timeout`] must be called.
    pub fn next_timeout(&self) -> Instant {
        (self.pinged + self.heartbeat).min(self.heard + self.patience())
    }

    /// Sends heartbeats; asks for the end of a socket that is dead. Answers whether to send a ping.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if now >= self.heard + self.patience() {
            self.requests.push_back(Request::Close(CLOSE_SLOW, "no sign of life for three heartbeats"));
            return false;
        }
        let due = now >= self.pinged + self.heartbeat;
        if due {
            self.pinged = now;
        }
        due
    }

    fn client_frame(&mut self, frame: ClientFrame) {
        match frame.op.as_str() {
            "subscribe" => match frame.topic.as_deref().unwrap_or_default().parse() {
                Ok(topic) if self.topics.len() < TOPICS => {
                    let (epoch, since) = (frame.epoch, frame.since);
                    self.requests.push_back(Request::Subscribe { topic, epoch, since });
                }
                Ok(_) => self.misunderstood("too many topics on one socket"),
                Err(cause) => self.misunderstood(&cause),
            },
            "unsubscribe" => {
                if let Ok(topic) = frame.topic.as_deref().unwrap_or_default().parse() {
                    self.topics.remove(&topic);
                }
            }
            "command" => match (frame.cmd_id, frame.name) {
                (Some(cmd_id), Some(name)) => {
                    self.requests.push_back(Request::Command { cmd_id, name, args: frame.args });
                }
                _ => self.misunderstood("a command needs `cmd_id` and `name`"),
            },
            "ping" => self.push_control(json!({"v": 1, "op": "pong", "type": "pong", "t": frame.t})),
            "ack" => {}
            _ => self.misunderstood("unknown `op`; known: subscribe, unsubscribe, command, ping, ack"),
        }
    }

    fn misunderstood(&mut self, cause: &str) {
        self.garbage += 1;
        if self.garbage > GARBAGE_LIMIT {
            self.requests.push_back(Request::Close(CLOSE_PROTOCOL, "too many frames that make no sense"));
            return;
        }
        self.push_control(json!({
            "v": 1, "op": "error", "type": "error",
            "problem": {"status": 400, "code": "bad_frame", "title": "Bad frame", "detail": cause},
        }));
    }

    /// A client that says nothing for this long is dead.
    fn patience(&self) -> Duration {
        self.heartbeat * 3
    }

    fn has_room(&self) -> bool {
        self.durable.len() < OUTBOX_FRAMES && self.durable_bytes < OUTBOX_BYTES
    }

    fn push_control(&mut self, frame: Value) {
        if self.control.len() >= CONTROL_FRAMES {
            self.requests.push_back(Request::Close(CLOSE_SLOW, "the socket is not read"));
            return;
        }
        self.control.push_back(frame.to_string());
    }

    fn push_durable(&mut self, topic: &Topic, event: &Numbered) {
        let frame = format!(
            r#"{{"v":1,"topic":"{topic}","epoch":"{}","seq":{},{},"cmd_id":null}}"#,
            self.epoch, event.seq, event.body
        );
        self.durable_bytes += frame.len();
        self.durable.push_back(frame);
    }
}

/// Events in one page of the log.
pub const PAGE: usize = 100;
/// Close code: the client reads too slowly or is dead.
pub const CLOSE_SLOW: u16 = 4008;
/// Close code: the client does not speak the protocol.
pub const CLOSE_PROTOCOL: u16 = 4009;
/// Close code: the server restarts.
pub const CLOSE_RESTART: u16 = 4012;
/// Close code: too many sockets.
pub const CLOSE_TOO_MANY: u16 = 4029;

const OUTBOX_FRAMES: usize = 512;
const OUTBOX_BYTES: usize = 1 << 20;
const CONTROL_FRAMES: usize = 256;
const EPHEMERAL_SLOTS: usize = 256;
const TOPICS: usize = 256;
const GARBAGE_LIMIT: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_gets_what_it_missed_and_then_what_happens() {
        let mut session = open();
        let topic = subscribe(&mut session, Some(2), 4);
        assert_eq!(session.wants_page(), Some((topic.clone(), 2)));
        session.committed(&topic, &event(5));
        session.page(&topic, &[event(3), event(4), event(5)]);
        assert_eq!(session.wants_page(), None);
        session.committed(&topic, &event(5));
        session.committed(&topic, &event(6));
        assert_eq!(sent(&mut session), [3, 4, 5, 6]);
    }

    #[test]
    fn an_event_committed_while_a_page_was_read_is_not_missed() {
        let mut session = open();
        let topic = subscribe(&mut session, Some(0), 1);
        session.committed(&topic, &event(2));
        session.page(&topic, &[event(1)]);
        assert_eq!(session.wants_page(), Some((topic.clone(), 1)));
        session.page(&topic, &[event(2)]);
        assert_eq!(sent(&mut session), [1, 2]);
    }

    #[test]
    fn a_slow_reader_is_served_from_the_log_without_loss_or_growth() {
        let mut session = open();
        let topic = subscribe(&mut session, None, 0);
        session.page(&topic, &[]);
        for seq in 1..=2000 {
            session.committed(&topic, &event(seq));
        }
        assert!(session.durable.len() <= OUTBOX_FRAMES);
        let mut seen = sent(&mut session);
        while let Some((_, since)) = session.wants_page() {
            let page: Vec<_> = (since + 1..=2000).take(PAGE).map(event).collect();
            session.page(&topic, &page);
            seen.extend(sent(&mut session));
        }
        assert_eq!(seen, (1..=2000).collect::<Vec<_>>());
    }

    #[test]
    fn a_missing_number_sends_the_topic_to_the_log() {
        let mut session = open();
        let topic = subscribe(&mut session, None, 0);
        session.page(&topic, &[]);
        session.committed(&topic, &event(1));
        session.committed(&topic, &event(3));
        assert_eq!(session.wants_page(), Some((topic, 1)));
    }

    #[test]
    fn of_two_partials_of_one_line_only_the_newer_is_sent() {
        let mut session = open();
        let topic = subscribe(&mut session, None, 0);
        session.ephemeral(&topic, "line_1", r#""type":"transcript.partial","data":{"text":"I"}"#);
        session.ephemeral(&topic, "line_1", r#""type":"transcript.partial","data":{"text":"I am"}"#);
        let frames: Vec<_> = std::iter::from_fn(|| session.next_frame()).collect();
        assert_eq!(frames.iter().filter(|f| f.contains("partial")).count(), 1);
        assert!(frames.iter().any(|f| f.contains("I am")));
    }

    #[test]
    fn garbage_is_answered_and_in_the_end_refused() {
        let mut session = open();
        for _ in 0..=GARBAGE_LIMIT {
            session.client_text(Instant::now(), "}{");
        }
        assert!(matches!(session.next_request(), Some(Request::Close(CLOSE_PROTOCOL, _))));
    }

    #[test]
    fn a_client_without_a_sign_of_life_is_given_up() {
        let start = Instant::now();
        let (heartbeat, dead_after) = (Duration::from_secs(20), Duration::from_secs(60));
        let mut session = Session::new(start, "e".into(), "s", "t", heartbeat);
        assert!(session.handle_timeout(start + heartbeat));
        session.client_alive(start + heartbeat);
        assert!(session.handle_timeout(start + heartbeat * 2));
        assert!(!session.handle_timeout(start + heartbeat + dead_after));
        assert!(matches!(session.next_request(), Some(Request::Close(CLOSE_SLOW, _))));
    }

    #[test]
    fn frames_are_understood_with_op_or_type() {
        let mut session = open();
        let id = CallId::from_parts(1, 1);
        let wanted = |since| Request::Subscribe { topic: Topic::Call(id), epoch: None, since };
        session.client_text(Instant::now(), &format!(r#"{{"op":"subscribe","topic":"call:{id}"}}"#));
        assert_eq!(session.next_request(), Some(wanted(None)));
        let text = format!(r#"{{"type":"subscribe","topic":"call:{id}","since":7,"new":1}}"#);
        session.client_text(Instant::now(), &text);
        assert_eq!(session.next_request(), Some(wanted(Some(7))));
    }

    fn open() -> Session {
        Session::new(Instant::now(), "e1".into(), "s", "t", Duration::from_secs(20))
    }

    fn subscribe(session: &mut Session, since: Option<u64>, head: u64) -> Topic {
        session.subscribed(Topic::Wall, since, head, None);
        Topic::Wall
    }

    fn event(seq: u64) -> Numbered {
        Numbered { seq, body: r#""type":"call.phase","data":{}"#.into() }
    }

    fn sent(session: &mut Session) -> Vec<u64> {
        std::iter::from_fn(|| session.next_frame())
            .filter_map(|frame| serde_json::from_str::<Value>(&frame).ok()?.get("seq")?.as_u64())
            .collect()
    }
}
