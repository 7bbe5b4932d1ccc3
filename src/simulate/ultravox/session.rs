//! One call's media session as a value: frames, data messages and the passing of time go in, what to
//! send comes out.
//!
//! Call [`CallSession::poll`] until `None` after every input, then sleep until
//! [`CallSession::next_timeout`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::agent::{Doing, Reply};
use super::create::{CallRequest, FirstSpeaker};
use super::fault::SessionFaults;
use super::hearing::Hearing;
use super::invocations::Invocations;
use super::record::{Record, Totals};
use super::spoken::Library;
use super::tools::Tool;
use super::uplink::{Mistake, Uplink};
use super::wire::{self, ClientMessage};
use crate::simulate::error::ApiError;
use crate::simulate::script::{Script, Turn};
use crate::simulate::speech::{Say, Speech};

/// How the simulated service behaves; the same for all calls of a simulator.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// What the model says and does.
    pub script: Script,
    /// How it sounds where the script does not say.
    pub speech: Speech,
    /// Length of an answer that is a tone or sweep, where the script does not say.
    pub answer_ms: u32,
    /// Generation speed as a multiple of real time; infinite: all at once.
    pub speed: f64,
    /// About this much audio in one frame.
    pub chunk_ms: u32,
    /// Whether frames differ in length.
    pub vary_chunks: bool,
    /// From the end of the caller's turn to the first output.
    pub response_latency: Duration,
    /// From the end of the caller's turn to its transcript.
    pub transcription_latency: Duration,
    /// From the join to `call_started`.
    pub start_delay: Duration,
    /// How far the client's audio may be from real time.
    pub uplink_slack: Duration,
    /// Whether injected words that hold a quoted text make the agent say that text.
    pub say_quoted: bool,
    /// From the end of a call to its bill.
    pub billing_delay: Duration,
    /// What is billed is a multiple of this.
    pub billing_step: Duration,
    /// From a webhook that failed to the second attempt; doubled each time.
    pub webhook_retry: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            script: Script::builtin(),
            speech: Speech::Tone { hz: 440.0 },
            answer_ms: 4_000,
            speed: 6.0,
            chunk_ms: 60,
            vary_chunks: true,
            response_latency: Duration::from_millis(150),
            transcription_latency: Duration::from_millis(100),
            start_delay: Duration::from_millis(40),
            uplink_slack: Duration::from_millis(400),
            say_quoted: true,
            billing_delay: Duration::from_millis(200),
            billing_step: Duration::from_secs(6),
            webhook_retry: Duration::from_secs(30),
        }
    }
}

impl Behaviour {
    /// How a turn says something.
    pub fn say(&self, turn: Option<&Turn>, text: String) -> Say {
        let own = turn.and_then(|turn| turn.speech.as_ref());
        let speech = own.or(self.script.speech.as_ref()).unwrap_or(&self.speech);
        let duration_ms = turn.and_then(|turn| turn.duration_ms).or(match speech {
            // These have a length of their own.
            Speech::Wav(_) | Speech::Voice | Speech::Echo => None,
            Speech::Tone { .. } | Speech::Sweep { .. } => Some(self.answer_ms),
        });
        Say { text, speech: speech.clone(), duration_ms }
    }
}

/// What a session is made of.
#[derive(Debug, Clone)]
pub struct SessionSetup {
    /// The call.
    pub call_id: String,
    /// What was asked for.
    pub request: Arc<CallRequest>,
    /// Of all ids.
    pub seed: u64,
    /// Shared by all calls.
    pub behaviour: Arc<Behaviour>,
    /// Shared by all calls.
    pub library: Arc<Library>,
    /// What goes wrong.
    pub faults: SessionFaults,
}

/// What the connection has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a data message.
    Text(String),
    /// Send audio.
    Audio {
        /// Signed 16-bit little-endian.
        audio: Bytes,
        /// The agent's message.
        ordinal: u64,
        /// Samples of it before this frame.
        first_sample: u64,
        /// Samples in it.
        samples: u64,
    },
    /// Send a close frame; nothing follows.
    Close {
        /// WebSocket close code.
        code: u16,
        /// In words.
        reason: String,
    },
    /// Reset the TCP connection; nothing follows.
    Reset,
}

/// What REST shows of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Noted {
    /// A message of the conversation, as the messages resource shows it.
    Message(Value),
    /// Something about the call.
    Event {
        /// `info`, `warning` or `error`.
        severity: &'static str,
        /// Stable name.
        kind: String,
        /// In words.
        text: String,
    },
}

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// The client closed the socket in order.
    Closed,
    /// It broke.
    Broken,
    /// We ended it.
    Ours,
}

/// A call's media session.
#[derive(Debug)]
pub struct CallSession {
    pub(super) call_id: String,
    pub(super) request: Arc<CallRequest>,
    pub(super) behaviour: Arc<Behaviour>,
    pub(super) library: Arc<Library>,
    pub(super) faults: SessionFaults,
    pub(super) tools: Vec<Tool>,
    pub(super) doing: Doing,
    pub(super) waiting: VecDeque<Reply>,
    pub(super) text_output: bool,
    pub(super) next_ordinal: u64,
    /// Turns of the script taken so far.
    pub(super) script_turn: usize,
    pub(super) hearing: Hearing,
    pub(super) invocations: Invocations,
    /// Since when nobody has spoken.
    pub(super) idle_from: Option<Instant>,
    pub(super) idle_next: usize,
    /// When the agent begins because the caller does not.
    pub(super) fallback_at: Option<Instant>,
    pub(super) totals: Totals,
    pub(super) state: &'static str,
    pub(super) joined: Instant,
    start_at: Option<Instant>,
    expires_at: Option<Instant>,
    die_at: Option<Instant>,
    close_at: Option<Instant>,
    uplink: Uplink,
    end_reason: Option<&'static str>,
    rng: StdRng,
    out: VecDeque<Output>,
    records: VecDeque<(Instant, Record)>,
    noted: VecDeque<Noted>,
    muted: bool,
    over: bool,
}

impl CallSession {
    /// A session whose media socket has just been opened.
    pub fn new(setup: SessionSetup, now: Instant) -> Self {
        let faults = setup.faults;
        let medium = &setup.request.medium;
        let limit = faults.expire.unwrap_or(setup.request.max_duration);
        let start_delay = faults.slow_start.unwrap_or(setup.behaviour.start_delay);
        let mut session = Self {
            call_id: setup.call_id,
            tools: setup.request.tools.clone(),
            doing: Doing::Listening,
            waiting: VecDeque::new(),
            text_output: setup.request.text_output,
            next_ordinal: 0,
            script_turn: 0,
            hearing: Hearing::new(medium.input_rate, &setup.request.vad),
            invocations: Invocations::default(),
            idle_from: None,
            idle_next: 0,
            fallback_at: None,
            totals: Totals::default(),
            state: "idle",
            joined: now,
            start_at: Some(now + start_delay),
            expires_at: now.checked_add(limit),
            die_at: faults.die.map(|after| now + after),
            close_at: faults.close.map(|after| now + after),
            uplink: Uplink::new(medium.input_rate, setup.behaviour.uplink_slack, now),
            end_reason: None,
            rng: StdRng::seed_from_u64(setup.seed),
            out: VecDeque::new(),
            records: VecDeque::new(),
            noted: VecDeque::new(),
            muted: false,
            over: false,
            request: setup.request,
            behaviour: setup.behaviour,
            library: setup.library,
            faults,
        };
        let record = Record::Joined { call: session.call_id.clone() };
        session.record(now, record);
        session.handle_timeout(now);
        session
    }

    /// Takes one binary frame.
    pub fn receive_audio(&mut self, now: Instant, audio: &[u8]) {
        if self.over {
            return;
        }
        let mut mistakes = Vec::new();
        self.uplink.frame(now, audio.len(), |mistake| mistakes.push(mistake));
        self.blame(now, mistakes);
        if self.faults.die_after_appends == Some(self.uplink.frames()) {
            return self.reset();
        }
        self.hear(now, audio);
        self.run_due(now);
    }

    /// Takes one text frame.
    pub fn receive_text(&mut self, now: Instant, text: &str) {
        if self.over {
            return;
        }
        match wire::parse(text) {
            Ok(message) => self.handle(now, message),
            Err(bad) => self.violation(now, bad.kind.as_deref(), bad.error),
        }
    }

    /// Takes one data message, from the socket or from REST.
    pub fn handle(&mut self, now: Instant, message: ClientMessage) {
        if self.over {
            return;
        }
        if self.start_at.is_some() {
            let error =
                ApiError::new("before_call_started", "data messages are wanted after call_started only");
            self.violation(now, None, error);
        }
        if !self.muted {
            self.obey(now, message);
        }
        self.run_due(now);
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.die_at) {
            return self.reset();
        }
        if due(self.close_at) {
            self.end_reason = Some("system_error");
            return self.close(1011, "internal error");
        }
        if due(self.idle_end()) {
            self.event("error", "media_idle", "no audio came for as long as mediaIdleTimeout".to_owned());
            return self.end("connection_error");
        }
        if due(self.expires_at) {
            self.expires_at = None;
            match self.request.time_exceeded_message.clone().filter(|_| !self.muted) {
                Some(text) => self.say_last(now, text, "timeout"),
                None => return self.end("timeout"),
            }
        }
        if due(self.start_at) {
            self.start_at = None;
            self.start(now);
        }
        self.run_due(now);
    }

    /// When [`CallSession::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let fixed = [self.expires_at, self.die_at, self.close_at, self.idle_end()];
        let working =
            [self.start_at, self.next_agent(), self.hearing.next_transcript(), self.invocations.next()];
        let idle = [self.fallback_at, self.inactive_at()];
        let working = working.into_iter().chain(idle).filter(|_| !self.muted);
        fixed.into_iter().chain(working).flatten().min()
    }

    /// The next thing to do for the connection.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Outputs not polled yet.
    pub fn queued(&self) -> usize {
        self.out.len()
    }

    /// The next thing to remember.
    pub fn poll_record(&mut self) -> Option<(Instant, Record)> {
        self.records.pop_front()
    }

    /// The next thing to show on REST.
    pub fn poll_noted(&mut self) -> Option<Noted> {
        self.noted.pop_front()
    }

    /// Ends the books: the connection is gone. Gives the call's `endReason`.
    pub fn disconnected(&mut self, now: Instant, gone: Gone, how: &str) -> &'static str {
        let mut mistakes = Vec::new();
        self.uplink.finish(now, |mistake| mistakes.push(mistake));
        self.blame(now, mistakes);
        self.totals.how = how.to_owned();
        self.totals.appends = self.uplink.frames();
        self.totals.appended_ms = self.uplink.heard().as_millis() as u64;
        self.totals.append_gap_max_ms = self.uplink.gap_max().as_millis() as u64;
        self.records.push_back((now, Record::Disconnected(self.totals.clone())));
        self.over = true;
        self.end_reason.unwrap_or(match gone {
            Gone::Closed => "hangup",
            Gone::Broken | Gone::Ours => "connection_error",
        })
    }

    /// Caller audio so far.
    pub(super) fn heard_ms(&self) -> u64 {
        self.uplink.heard().as_millis() as u64
    }

    fn start(&mut self, now: Instant) {
        if self.request.medium.messages.call_started {
            let id = self.call_id.clone();
            self.emit("call_started", json!({"callId": id}));
        }
        for message in self.request.clone().initial_messages.iter() {
            self.note_message(&message.role, &message.text, "voice", |shown| {
                if let (Some(id), Some(name)) = (&message.invocation_id, &message.tool_name) {
                    shown["invocationId"] = id.as_str().into();
                    shown["toolName"] = name.as_str().into();
                }
            });
        }
        match self.request.clone().first_speaker.clone() {
            FirstSpeaker::Agent { text, delay, uninterruptible } => {
                let reply = match text {
                    Some(text) => Reply::Words { text, uninterruptible, tools: Vec::new(), end: None },
                    None => Reply::Turn { answers_caller: false },
                };
                self.think_for(now, reply, delay.max(self.behaviour.response_latency));
            }
            FirstSpeaker::User { fallback } => {
                self.fallback_at = fallback.and_then(|(delay, _)| now.checked_add(delay));
                self.listen(now);
            }
        }
    }

    fn run_due(&mut self, now: Instant) {
        if self.muted || self.start_at.is_some() {
            return;
        }
        self.run_transcripts(now);
        self.run_invocations(now);
        self.run_idle(now);
        self.run_agent(now);
    }

    fn run_idle(&mut self, now: Instant) {
        let quiet = matches!(self.doing, Doing::Listening) && !self.hearing.speaking();
        if self.fallback_at.is_some_and(|at| at <= now) && quiet {
            self.fallback_at = None;
            let FirstSpeaker::User { fallback: Some((_, text)) } = self.request.clone().first_speaker.clone()
            else {
                return;
            };
            let reply = match text {
                Some(text) => Reply::Words { text, uninterruptible: false, tools: Vec::new(), end: None },
                None => Reply::Turn { answers_caller: false },
            };
            self.think(now, reply);
        } else if self.inactive_at().is_some_and(|at| at <= now) && quiet {
            self.say_inactivity(now);
        }
    }

    /// When the caller has been silent for too long.
    fn inactive_at(&self) -> Option<Instant> {
        let quiet = matches!(self.doing, Doing::Listening) && !self.hearing.speaking();
        let message = self.request.inactivity.get(self.idle_next).filter(|_| quiet)?;
        self.idle_from?.checked_add(message.after)
    }

    /// When the media have been idle for too long.
    fn idle_end(&self) -> Option<Instant> {
        let limit = self.request.medium.idle_timeout?;
        self.uplink.last().unwrap_or(self.joined).checked_add(limit)
    }

    fn blame(&mut self, now: Instant, mistakes: Vec<Mistake>) {
        for Mistake { code, message } in mistakes {
            self.event("warning", code, message.clone());
            self.violation(now, Some("audio"), ApiError::new(code, message));
        }
    }

    /// Remembers a mistake of the client. The service has no message that would tell of it.
    pub(super) fn violation(&mut self, now: Instant, event: Option<&str>, error: ApiError) {
        self.totals.violations += 1;
        self.event("warning", error.code, error.message.clone());
        self.record(
            now,
            Record::Violation {
                event: event.map(str::to_owned),
                code: error.code.to_owned(),
                message: error.message,
                param: error.param,
            },
        );
    }

    /// Queues a data message.
    pub(super) fn emit(&mut self, kind: &'static str, mut body: Value) {
        if self.muted || self.over {
            return;
        }
        body["type"] = kind.into();
        if self.faults.unknown_events {
            body["xFutureField"] = json!({"nested": [1, null, "two"]});
        }
        self.out.push_back(Output::Text(body.to_string()));
    }

    /// Queues something that is ready to be sent.
    pub(super) fn emit_raw(&mut self, output: Output) {
        if !self.muted && !self.over {
            self.out.push_back(output);
        }
    }

    /// Says what the agent is doing, when that has changed.
    pub(super) fn set_state(&mut self, state: &'static str) {
        if self.state != state {
            self.state = state;
            if self.request.medium.messages.state {
                self.emit("state", json!({"state": state}));
            }
        }
    }

    /// Words of either side.
    pub(super) fn transcript(&mut self, role: &str, medium: &str, ordinal: u64, words: Words<'_>) {
        if !self.request.medium.messages.transcript {
            return;
        }
        let (text, delta, last) = match words {
            Words::Text(text, last) => (Some(text), None, last),
            Words::Delta(delta, last) => (None, Some(delta), last),
        };
        let body = json!({
            "role": role, "medium": medium, "text": text, "delta": delta, "final": last, "ordinal": ordinal,
        });
        self.emit("transcript", body);
    }

    /// Adds a message to those that REST shows.
    pub(super) fn note_message(
        &mut self,
        role: &str,
        text: &str,
        medium: &str,
        more: impl FnOnce(&mut Value),
    ) {
        let medium = if medium == "text" { "MESSAGE_MEDIUM_TEXT" } else { "MESSAGE_MEDIUM_VOICE" };
        let mut shown = json!({"role": role, "text": text, "medium": medium});
        more(&mut shown);
        self.noted.push_back(Noted::Message(shown));
    }

    pub(super) fn event(&mut self, severity: &'static str, kind: &str, text: String) {
        self.noted.push_back(Noted::Event { severity, kind: kind.to_owned(), text });
    }

    pub(super) fn record(&mut self, now: Instant, record: Record) {
        self.records.push_back((now, record));
    }

    /// From here on the service says nothing, and the connection stays open.
    pub(super) fn mute(&mut self) {
        self.muted = true;
    }

    pub(super) fn reset(&mut self) {
        self.out.push_back(Output::Reset);
        self.over = true;
    }

    /// Ends the call.
    pub(super) fn end(&mut self, reason: &'static str) {
        self.end_reason = Some(reason);
        self.close(1000, "");
    }

    /// Ends the session with a close frame.
    pub fn close(&mut self, code: u16, reason: &str) {
        if !self.over {
            self.out.push_back(Output::Close { code, reason: reason.to_owned() });
            self.over = true;
        }
    }

    pub(super) fn ordinal(&mut self) -> u64 {
        self.next_ordinal += 1;
        self.next_ordinal - 1
    }

    pub(super) fn fresh_id(&mut self) -> String {
        uuid(&mut self.rng)
    }
}

/// Words in a `transcript`, and whether they are the last.
#[derive(Debug, Clone, Copy)]
pub(super) enum Words<'a> {
    /// All words so far.
    Text(&'a str, bool),
    /// More words.
    Delta(&'a str, bool),
}

/// A random id in the service's form.
pub fn uuid(rng: &mut StdRng) -> String {
    let bits: u128 = rng.random();
    let hex = format!("{:032x}", bits & !(0xf << 76) | (4 << 76));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
