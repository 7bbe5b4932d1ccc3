//! Whole calls through the core, without a socket and with a clock of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::create::CallRequest;
use super::fault::{Fault, SessionFaults};
use super::record::Record;
use super::session::{Behaviour, CallSession, Gone, Noted, Output, SessionSetup};
use super::spoken::Library;
use crate::simulate::script::Script;
use crate::simulate::speech::Speech;

/// A client that does everything in real time.
struct Client {
    session: CallSession,
    now: Instant,
    /// Data messages so far, and `{"type": "audio", "samples": …}` for audio.
    heard: Vec<Value>,
    /// How far the audio sent was ahead of playback, at most.
    ahead_max: Duration,
    playback_end: Instant,
    records: Vec<Record>,
    noted: Vec<Noted>,
    closed: Option<u16>,
    reset: bool,
}

impl Client {
    fn open(script: &str, change: Value, faults: &[&str]) -> Self {
        let mut body = json!({
            "medium": {"serverWebSocket": {"inputSampleRate": 8_000, "clientBufferSizeMs": 30_000}},
            "firstSpeakerSettings": {"user": {}},
        });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let script = if script.is_empty() { Script::builtin() } else { Script::parse(script).unwrap() };
        let behaviour = Behaviour {
            script,
            speech: Speech::Tone { hz: 440.0 },
            answer_ms: 1_000,
            ..Behaviour::default()
        };
        let faults: Vec<Fault> = faults.iter().map(|fault| fault.parse().unwrap()).collect();
        let now = Instant::now();
        let setup = SessionSetup {
            call_id: "c".to_owned(),
            request: Arc::new(CallRequest::read(&body).unwrap()),
            seed: 1,
            behaviour: Arc::new(behaviour),
            library: Arc::new(Library::default()),
            faults: SessionFaults::of(&faults),
        };
        let mut client = Self {
            session: CallSession::new(setup, now),
            now,
            heard: Vec::new(),
            ahead_max: Duration::ZERO,
            playback_end: now,
            records: Vec::new(),
            noted: Vec::new(),
            closed: None,
            reset: false,
        };
        client.drain();
        client
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Text(text) => {
                    self.heard.push(serde_json::from_str(&text).unwrap_or(json!({"type": "broken"})));
                }
                Output::Audio { audio, samples, .. } => {
                    assert_eq!(audio.len() as u64, samples * 2);
                    let length = Duration::from_micros(samples * 125);
                    self.playback_end = self.playback_end.max(self.now) + length;
                    self.ahead_max = self.ahead_max.max(self.playback_end - self.now);
                    self.heard.push(json!({"type": "audio", "samples": samples}));
                }
                Output::Close { code, .. } => self.closed = Some(code),
                Output::Reset => self.reset = true,
            }
        }
        while let Some((_, record)) = self.session.poll_record() {
            self.records.push(record);
        }
        while let Some(noted) = self.session.poll_noted() {
            self.noted.push(noted);
        }
    }

    /// Lets time pass in which the caller is silent or speaks.
    fn pass(&mut self, ms: u64, loud: bool) {
        let sample: i16 = if loud { 6_000 } else { 0 };
        let frame: Vec<u8> =
            (0..160).flat_map(|n| if n % 16 < 8 { sample } else { -sample }.to_le_bytes()).collect();
        for _ in 0..ms / 20 {
            let until = self.now + Duration::from_millis(20);
            while let Some(at) = self.session.next_timeout().filter(|at| *at <= until) {
                self.now = self.now.max(at);
                self.session.handle_timeout(self.now);
                self.drain();
            }
            self.now = until;
            self.session.receive_audio(self.now, &frame);
            self.drain();
        }
    }

    fn silent(&mut self, ms: u64) {
        self.pass(ms, false);
    }

    fn speak(&mut self, ms: u64) {
        self.pass(ms, true);
    }

    fn send(&mut self, message: Value) {
        self.session.receive_text(self.now, &message.to_string());
        self.drain();
    }

    fn of(&self, kind: &str) -> Vec<&Value> {
        self.heard.iter().filter(|message| message["type"] == kind).collect()
    }

    fn states(&self) -> Vec<&str> {
        self.of("state").iter().map(|message| message["state"].as_str().unwrap()).collect()
    }

    /// Role, words and whether they are final, by ordinal: as a client puts them together.
    fn lines(&self) -> Vec<(String, String, bool)> {
        let mut lines: std::collections::BTreeMap<u64, (String, String, bool)> = Default::default();
        for message in self.of("transcript") {
            let line = lines.entry(message["ordinal"].as_u64().unwrap()).or_default();
            line.0 = message["role"].as_str().unwrap().to_owned();
            match (message["text"].as_str(), message["delta"].as_str()) {
                (Some(text), None) => line.1 = text.to_owned(),
                (None, Some(delta)) => line.1 += delta,
                both => panic!("{both:?}"),
            }
            line.2 |= message["final"] == true;
        }
        lines.into_values().collect()
    }

    fn audio_ms(&self) -> u64 {
        self.of("audio").iter().map(|message| message["samples"].as_u64().unwrap()).sum::<u64>() / 8
    }

    fn violations(&self) -> Vec<&str> {
        let codes = self.records.iter().filter_map(|record| match record {
            Record::Violation { code, .. } => Some(code.as_str()),
            _ => None,
        });
        codes.collect()
    }

    fn invocation(&self, n: usize) -> String {
        self.of("client_tool_invocation")[n]["invocationId"].as_str().unwrap().to_owned()
    }
}

const ANSWERS: &str = "hears = [\"hello there\"]\nrestart = true\n[[turn]]\nsay = \"one two three four\"\n\
                       [[turn]]\nsay = \"five six seven\"";

#[test]
fn a_turn_of_the_caller_is_answered_and_written_down_in_order() {
    let mut client = Client::open(ANSWERS, json!({}), &[]);
    client.silent(200);
    assert_eq!(client.of("call_started").len(), 1);
    client.speak(500);
    client.silent(2_500);
    assert_eq!(client.states(), ["listening", "thinking", "speaking", "listening"]);
    let lines = client.lines();
    assert_eq!(lines[0], ("user".to_owned(), "hello there".to_owned(), true));
    assert_eq!(lines[1], ("agent".to_owned(), "one two three four".to_owned(), true));
    assert_eq!(client.audio_ms(), 1_000);
    client.session.disconnected(client.now, Gone::Closed, "test");
    client.drain();
    assert_eq!(client.violations(), [] as [&str; 0]);
}

#[test]
fn a_small_buffer_is_paced_and_a_large_one_is_filled() {
    let mut large = Client::open(ANSWERS, json!({"firstSpeakerSettings": {"agent": {}}}), &[]);
    large.silent(2_000);
    assert!(large.ahead_max > Duration::from_millis(700), "{:?}", large.ahead_max);
    let medium = json!({"serverWebSocket": {"inputSampleRate": 8_000, "clientBufferSizeMs": 90}});
    let more = json!({"firstSpeakerSettings": {"agent": {}}, "medium": medium});
    let mut small = Client::open(ANSWERS, more, &[]);
    small.silent(2_000);
    assert!(small.ahead_max <= Duration::from_millis(91), "{:?}", small.ahead_max);
    assert_eq!((small.audio_ms(), large.audio_ms()), (1_000, 1_000));
}

#[test]
fn barge_in_clears_the_buffer_and_keeps_what_was_heard() {
    let mut client = Client::open(ANSWERS, json!({"firstSpeakerSettings": {"agent": {}}}), &[]);
    client.silent(500);
    client.speak(400);
    assert_eq!(client.of("playback_clear_buffer").len(), 1);
    let (role, words, last) = client.lines().remove(0);
    assert_eq!((role.as_str(), words.as_str(), last), ("agent", "one two ", true));
    let cut = client.records.iter().find_map(|record| match record {
        Record::SpeakingDone { interrupted: true, played_ms, sent_ms, .. } => Some((*played_ms, *sent_ms)),
        _ => None,
    });
    let (played, sent) = cut.unwrap();
    assert!((300..=600).contains(&played) && sent == 1_000, "{played} of {sent}");
    client.silent(2_500);
    assert_eq!(client.lines()[2].1, "five six seven");
}

#[test]
fn forced_words_are_said_and_the_uninterruptible_ones_are_not_cut() {
    let mut client = Client::open(ANSWERS, json!({}), &[]);
    client.silent(100);
    client.send(json!({"type": "forced_agent_message", "content": "Please hold on.",
                       "uninterruptible": true, "urgency": "immediate"}));
    client.silent(300);
    client.speak(300);
    client.silent(3_000);
    assert_eq!(client.of("playback_clear_buffer").len(), 0);
    let words: Vec<String> = client.lines().into_iter().map(|line| line.1).collect();
    assert_eq!(words, ["Please hold on.", "hello there", "one two three four"]);
}

#[test]
fn injected_texts_count_as_their_urgency_says() {
    let mut client = Client::open(ANSWERS, json!({}), &[]);
    client.silent(100);
    client.send(json!({"type": "user_text_message", "text": "a fact", "urgency": "later"}));
    client.silent(1_000);
    assert_eq!(client.audio_ms(), 0);
    client.send(json!({"type": "user_text_message", "text": "5", "urgency": "immediate"}));
    client.silent(400);
    assert_eq!(client.lines()[2].0, "agent");
    client.send(json!({"type": "user_text_message", "text": "(Say \"Good bye.\")", "urgency": "immediate"}));
    client.silent(2_500);
    assert_eq!(client.of("playback_clear_buffer").len(), 1);
    assert_eq!(client.lines().last().unwrap().1, "Good bye.");
}

const LOOKUP: &str = "restart = true\n[[turn]]\nsay = \"one moment\"\n\
                      tool = { name = \"lookup\", arguments = { table = 4 } }\n[[turn]]\nsay = \"it is free\"";

fn lookup() -> Value {
    json!({
        "firstSpeakerSettings": {"agent": {}},
        "selectedTools": [{"temporaryTool": {
            "modelToolName": "lookup", "description": "d", "timeout": "2s", "client": {},
        }}],
    })
}

#[test]
fn a_tool_is_called_after_the_speech_and_answered_once() {
    let mut client = Client::open(LOOKUP, lookup(), &[]);
    client.silent(1_000);
    assert_eq!(client.of("client_tool_invocation").len(), 0, "it still speaks");
    client.silent(500);
    let id = client.invocation(0);
    assert_eq!(client.of("client_tool_invocation")[0]["parameters"], json!({"table": 4}));
    let result = json!({"type": "client_tool_result", "invocationId": id, "result": "{\"free\":true}"});
    client.send(result.clone());
    client.silent(1_500);
    assert_eq!(client.lines()[1].1, "it is free");
    client.send(result);
    client.send(json!({"type": "client_tool_result", "invocationId": "x", "result": ""}));
    assert_eq!(client.violations(), ["tool_result_twice", "tool_result_unknown"]);
}

#[test]
fn a_result_that_comes_too_late_is_a_mistake_and_the_call_goes_on() {
    let mut client = Client::open(LOOKUP, lookup(), &[]);
    client.silent(4_800);
    assert_eq!(client.violations(), ["tool_result_late"]);
    assert_eq!(client.lines()[1].1, "it is free");
}

#[test]
fn a_result_can_begin_a_stage_or_end_the_call() {
    let mut client = Client::open(LOOKUP, lookup(), &[]);
    client.silent(1_500);
    let id = client.invocation(0);
    client.send(json!({"type": "client_tool_result", "invocationId": id, "responseType": "new-stage",
                       "result": "{\"languageHint\":\"de\"}", "agentReaction": "listens"}));
    client.silent(1_000);
    let stage = client.records.iter().any(|record| matches!(record, Record::StageChanged { .. }));
    assert!(stage && client.lines().len() == 1, "{:?}", client.records);
    let mut client = Client::open(LOOKUP, lookup(), &[]);
    client.silent(1_500);
    let id = client.invocation(0);
    client.send(json!({"type": "client_tool_result", "invocationId": id, "responseType": "hang-up",
                       "result": "ok"}));
    assert_eq!(client.closed, Some(1_000));
    assert_eq!(client.session.disconnected(client.now, Gone::Ours, "test"), "agent_hangup");
}

#[test]
fn mistakes_are_remembered() {
    let mut client = Client::open(ANSWERS, json!({}), &["slow-start:1"]);
    client.send(json!({"type": "ping", "timestamp": 1.5}));
    client.silent(1_100);
    client.send(json!({"type": "hello"}));
    client.send(json!({"type": "ping", "timestamp": 2.5}));
    let codes = client.violations();
    assert_eq!(codes, ["before_call_started", "invalid_value"]);
    assert_eq!(client.of("pong").last().unwrap()["timestamp"], 2.5);
}

#[test]
fn a_silent_caller_is_asked_and_then_left() {
    let messages = json!([
        {"duration": "1s", "message": "Are you there?"},
        {"duration": "1s", "message": "Good bye.", "endBehavior": "END_BEHAVIOR_HANG_UP_SOFT"},
    ]);
    let mut client = Client::open(ANSWERS, json!({"inactivityMessages": messages}), &[]);
    client.silent(6_000);
    let words: Vec<String> = client.lines().into_iter().map(|line| line.1).collect();
    assert_eq!(words, ["Are you there?", "Good bye."]);
    assert_eq!(client.session.disconnected(client.now, Gone::Ours, "test"), "agent_hangup");
}

#[test]
fn the_time_limit_is_announced() {
    let more = json!({"maxDuration": "2s", "timeExceededMessage": "Time is up."});
    let mut client = Client::open(ANSWERS, more, &[]);
    client.silent(4_000);
    assert_eq!(client.lines()[0].1, "Time is up.");
    assert_eq!(client.session.disconnected(client.now, Gone::Ours, "test"), "timeout");
    let mut client = Client::open(ANSWERS, json!({}), &[]);
    client.silent(100);
    client.send(json!({"type": "hang_up", "message": "Bye."}));
    client.silent(2_000);
    assert_eq!((client.lines()[0].1.as_str(), client.closed), ("Bye.", Some(1_000)));
    assert_eq!(client.session.disconnected(client.now, Gone::Ours, "test"), "hangup");
}

#[test]
fn faults_do_what_they_say() {
    let agent = || json!({"firstSpeakerSettings": {"agent": {}}});
    let run = |fault: &str| {
        let mut client = Client::open(ANSWERS, agent(), &[fault]);
        client.silent(3_000);
        client
    };
    assert!(run("die:1").reset && run("die-after-appends:50").reset && run("die-after-deltas:3").reset);
    assert_eq!(run("close:1").closed, Some(1_011));
    assert_eq!(run("expire:1").closed, Some(1_000));
    assert_eq!(run("hang-up").closed, Some(1_000));
    assert_eq!(run("giant-delta").of("audio").len(), 1);
    assert_eq!(run("stall").audio_ms(), 0);
    assert!((1..1_000).contains(&run("stall-after-deltas:2").audio_ms()));
    assert_eq!(run("invalid-json").of("broken").len(), 1);
    assert!(!run("unknown-events").of("x_future_message").is_empty());
    let slow = run("slow-drip:0.5");
    assert!(slow.audio_ms() == 1_000 && slow.ahead_max < Duration::from_millis(200));
}

#[test]
fn the_conversation_is_shown_on_rest() {
    let history = json!([{"role": "MESSAGE_ROLE_USER", "text": "before"}]);
    let mut client = Client::open(ANSWERS, json!({"initialMessages": history}), &[]);
    client.speak(500);
    client.silent(2_500);
    let shown: Vec<String> = client
        .noted
        .iter()
        .filter_map(|noted| match noted {
            Noted::Message(message) => Some(format!("{} {}", message["role"], message["text"])),
            Noted::Event { .. } => None,
        })
        .collect();
    assert_eq!(
        shown,
        [
            "\"MESSAGE_ROLE_USER\" \"before\"",
            "\"MESSAGE_ROLE_USER\" \"hello there\"",
            "\"MESSAGE_ROLE_AGENT\" \"one two three four\""
        ]
    );
}
