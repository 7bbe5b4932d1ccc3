//! One realtime session as a value: client events and the passing of time go in, server events come out.
//!
//! Call [`RealtimeSession::poll`] until `None` after every input, then sleep until
//! [`RealtimeSession::next_timeout`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::active::Active;
use super::config::SessionConfig;
use super::conversation::Conversation;
use super::error::ApiError;
use super::fault::SessionFaults;
use super::format::AudioFormat;
use super::input::InputBuffer;
use super::record::{Record, Totals};
use super::script::{Script, Turn};
use super::speech::{Cut, Say, Speech, SpeechLibrary};
use super::tokens::Tokens;
use super::turns::{CallerAudio, Transcription};
use super::wire::{self, ClientEvent, ClientMessage};

/// How the simulated service behaves; the same for all sessions of a simulator.
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
    /// About this much audio in one delta.
    pub delta_ms: u32,
    /// Whether deltas differ in length.
    pub vary_deltas: bool,
    /// Audio deltas that still come after a cancellation, as if they had been in flight.
    pub late_deltas: usize,
    /// From the end of the caller's turn, or `response.create`, to the first output.
    pub response_latency: Duration,
    /// From the end of the caller's turn to its transcript.
    pub transcription_latency: Duration,
    /// The longest a session can last.
    pub session_limit: Duration,
    /// Whether a response whose own instructions hold a text in double quotes says that text.
    pub say_quoted: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            script: Script::builtin(),
            speech: Speech::Tone { hz: 440.0 },
            answer_ms: 4_000,
            speed: 6.0,
            delta_ms: 200,
            vary_deltas: true,
            late_deltas: 2,
            response_latency: Duration::from_millis(150),
            transcription_latency: Duration::from_millis(300),
            session_limit: Duration::from_secs(3_600),
            say_quoted: true,
        }
    }
}

impl Behaviour {
    /// How a turn says something.
    pub fn say(&self, turn: &Turn, text: String) -> Say {
        let speech = turn.speech.as_ref().or(self.script.speech.as_ref()).unwrap_or(&self.speech);
        let duration_ms = turn.duration_ms.or(match speech {
            // These have a length of their own.
            Speech::Wav(_) | Speech::Voice | Speech::Echo => None,
            Speech::Tone { .. } | Speech::Sweep { .. } => Some(self.answer_ms),
        });
        Say { text, speech: speech.clone(), duration_ms }
    }

    /// How utterances are cut into deltas.
    pub fn cut(&self) -> Cut {
        Cut { delta_ms: self.delta_ms, vary: self.vary_deltas }
    }

    /// Renders what the script says, so that no session has to wait for it.
    pub fn prepare(&self, library: &SpeechLibrary) {
        for turn in &self.script.turns {
            let Some(text) = &turn.say else { continue };
            library.utterance(&self.say(turn, text.clone()), AudioFormat::Pcm, self.cut(), None);
        }
    }
}

/// What a session is made of.
#[derive(Debug, Clone)]
pub struct SessionSetup {
    /// From the URL.
    pub model: String,
    /// Of all ids.
    pub seed: u64,
    /// The time of day at the start, for `expires_at`.
    pub unix_seconds: u64,
    /// Shared by all sessions.
    pub behaviour: Arc<Behaviour>,
    /// Shared by all sessions.
    pub library: Arc<SpeechLibrary>,
    /// What goes wrong.
    pub faults: SessionFaults,
    /// Why there will be no session: said in an `error` event before the close.
    pub refusal: Option<ApiError>,
}

/// What the connection has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a text message.
    Text(String),
    /// Send a text message that is an audio delta.
    Audio {
        /// The message.
        text: String,
        /// The assistant's item.
        item: Arc<str>,
        /// Samples of the item before this delta.
        first_sample: u64,
        /// Samples in it.
        samples: u64,
    },
    /// Send a close frame; nothing follows.
    Close {
        /// WebSocket close code.
        code: u16,
        /// At most 123 bytes.
        reason: String,
    },
    /// Reset the TCP connection; nothing follows.
    Reset,
}

/// A session with one client.
#[derive(Debug)]
pub struct RealtimeSession {
    pub(super) behaviour: Arc<Behaviour>,
    pub(super) library: Arc<SpeechLibrary>,
    pub(super) faults: SessionFaults,
    pub(super) config: SessionConfig,
    pub(super) conversation: Conversation,
    pub(super) input: InputBuffer,
    pub(super) responses: Vec<Active>,
    pub(super) transcriptions: VecDeque<Transcription>,
    pub(super) caller_audio: Option<CallerAudio>,
    pub(super) turn_item: Option<String>,
    /// Turns committed so far.
    pub(super) caller_turns: usize,
    /// `session.update`s accepted so far.
    pub(super) updates: u64,
    /// Voice is fixed from here on.
    pub(super) spoken: bool,
    /// When a client that plays in real time has played everything.
    pub(super) playback_end: Instant,
    pub(super) idle_at: Option<Instant>,
    /// What the previous response read, so far as it is still the same.
    pub(super) cached: Tokens,
    pub(super) tokens_used: u64,
    pub(super) open_calls: Vec<(String, Instant)>,
    pub(super) totals: Totals,
    expires_at: Instant,
    die_at: Option<Instant>,
    close_at: Option<Instant>,
    mute_at: Option<Instant>,
    last_append: Option<Instant>,
    rng: StdRng,
    out: VecDeque<Output>,
    records: VecDeque<(Instant, Record)>,
    scratch: Vec<u8>,
    muted: bool,
    over: bool,
}

impl RealtimeSession {
    /// A session that has just been connected; `session.created` is the first output.
    pub fn new(setup: SessionSetup, now: Instant) -> Self {
        let limit = setup.faults.expire.unwrap_or(setup.behaviour.session_limit);
        let mut rng = StdRng::seed_from_u64(setup.seed);
        let id = fresh_id(&mut rng, "sess");
        let config = SessionConfig::new(id, setup.model, setup.unix_seconds + limit.as_secs());
        let mut session = Self {
            input: InputBuffer::new(config.input_format),
            behaviour: setup.behaviour,
            library: setup.library,
            faults: setup.faults,
            config,
            conversation: Conversation::default(),
            responses: Vec::new(),
            transcriptions: VecDeque::new(),
            caller_audio: None,
            turn_item: None,
            caller_turns: 0,
            updates: 0,
            spoken: false,
            playback_end: now,
            idle_at: None,
            cached: Tokens::default(),
            tokens_used: 0,
            open_calls: Vec::new(),
            totals: Totals::default(),
            expires_at: now + limit,
            die_at: setup.faults.die.map(|after| now + after),
            close_at: setup.faults.close.map(|after| now + after),
            mute_at: setup.faults.mute.map(|after| now + after),
            last_append: None,
            rng,
            out: VecDeque::new(),
            records: VecDeque::new(),
            scratch: Vec::new(),
            muted: false,
            over: false,
        };
        let bad_key = || ApiError::new("invalid_api_key", "Incorrect API key provided.");
        match setup.refusal.or_else(|| session.faults.invalid_api_key.then(bad_key)) {
            Some(error) => session.refuse_session(error),
            None => {
                let shown = session.config.to_json();
                session.emit("session.created", json!({"session": shown}));
            }
        }
        session
    }

    /// `sess_…`.
    pub fn id(&self) -> &str {
        &self.config.id
    }

    /// The format of the audio the client appends.
    pub fn input_format(&self) -> AudioFormat {
        self.config.input_format
    }

    /// Takes one text message and returns the audio it held, if it was an append.
    pub fn receive(&mut self, now: Instant, text: &str) -> Option<&[u8]> {
        if self.over {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        let mut appended = false;
        match wire::append_audio(text) {
            Some(audio) => match wire::decode_base64(audio, &mut bytes) {
                Ok(()) => appended = true,
                Err(error) => {
                    let event_id = wire::parse(text).err().and_then(|unreadable| unreadable.event_id);
                    self.refuse(now, error, event_id.as_deref(), Some("input_audio_buffer.append"));
                }
            },
            None => match wire::parse(text) {
                Ok(ClientMessage { event: ClientEvent::Append(audio), .. }) => {
                    bytes = audio;
                    appended = true;
                }
                Ok(message) => self.handle(now, message),
                Err(bad) => self.refuse(now, bad.error, bad.event_id.as_deref(), bad.event_type.as_deref()),
            },
        }
        if appended {
            self.append(now, &bytes);
        }
        self.scratch = bytes;
        appended.then_some(self.scratch.as_slice())
    }

    /// Takes a binary message, which the protocol does not have.
    pub fn receive_binary(&mut self, now: Instant) {
        let message = "Binary messages are not supported; send JSON text.";
        self.refuse(now, ApiError::new("invalid_message_type", message), None, None);
    }

    /// Takes caller audio in the session's input format.
    pub fn append(&mut self, now: Instant, audio: &[u8]) {
        if self.over {
            return;
        }
        self.totals.appends += 1;
        if let Some(last) = self.last_append.replace(now) {
            let gap = now.saturating_duration_since(last).as_millis() as u64;
            self.totals.append_gap_max_ms = self.totals.append_gap_max_ms.max(gap);
        }
        if self.faults.die_after_appends == Some(self.totals.appends) {
            return self.reset();
        }
        if !self.input.append(audio) {
            self.note_violation(now, "odd_audio", "appended PCM ends inside a sample");
        }
        self.listen(now);
        self.run_due(now);
    }

    /// Takes one client event.
    pub fn handle(&mut self, now: Instant, message: ClientMessage) {
        if self.over {
            return;
        }
        let name = message.event.name();
        if let Err(error) = self.obey(now, message.event) {
            self.refuse(now, error, message.event_id.as_deref(), Some(name));
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
            return self.close(1011, "The server had an error while processing your request.");
        }
        if due(self.mute_at) {
            self.mute_at = None;
            self.mute();
        }
        if self.expires_at <= now {
            return self.expire();
        }
        self.run_due(now);
    }

    /// When [`RealtimeSession::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let fixed = [Some(self.expires_at), self.die_at, self.close_at, self.mute_at];
        let working = [self.idle_at, self.next_transcription(), self.next_response()];
        let working = working.into_iter().filter(|_| !self.muted);
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

    /// Ends the books: the connection is gone.
    pub fn disconnected(&mut self, now: Instant, how: &str) {
        for call_id in self.conversation.unanswered_calls() {
            self.records.push_back((
                now,
                Record::Violation {
                    event: None,
                    code: "tool_call_unanswered".to_owned(),
                    message: format!("the function call {call_id} was never answered"),
                    param: None,
                    harmless: true,
                },
            ));
        }
        self.totals.how = how.to_owned();
        self.totals.appended_ms = self.input.written_ms();
        self.records.push_back((now, Record::Disconnected(self.totals.clone())));
        self.over = true;
    }

    fn run_due(&mut self, now: Instant) {
        self.run_transcriptions(now);
        self.run_responses(now);
        self.run_idle(now);
    }

    fn expire(&mut self) {
        let limit = self.faults.expire.unwrap_or(self.behaviour.session_limit).as_secs();
        let span = if limit >= 60 { format!("{} minutes", limit / 60) } else { format!("{limit} seconds") };
        let message = format!("Your session hit the maximum duration of {span}.");
        let error = ApiError::new("session_expired", message.clone());
        self.emit("error", json!({"error": error.to_json(None)}));
        self.close(1001, &message);
    }

    /// Says why there will be no session, and closes.
    fn refuse_session(&mut self, error: ApiError) {
        let reason = format!("{}.{}", error.kind, error.code);
        self.emit("error", json!({"error": error.to_json(None)}));
        self.close(3000, &reason);
    }

    /// Answers a client event with an `error` event and remembers it.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        error: ApiError,
        event_id: Option<&str>,
        event: Option<&str>,
    ) {
        self.emit("error", json!({"error": error.to_json(event_id)}));
        // A correct client can meet these by losing a race.
        let harmless =
            ["response_cancel_not_active", "input_audio_buffer_commit_empty"].contains(&error.code);
        self.totals.violations += u64::from(!harmless);
        self.record(
            now,
            Record::Violation {
                event: event.map(|name| name.chars().take(80).collect()),
                code: error.code.to_owned(),
                message: error.message,
                param: error.param,
                harmless,
            },
        );
    }

    /// Remembers a mistake that the service itself would not mention.
    pub fn note_violation(&mut self, now: Instant, code: &str, message: &str) {
        self.totals.violations += 1;
        let (code, message) = (code.to_owned(), message.to_owned());
        self.record(now, Record::Violation { event: None, code, message, param: None, harmless: false });
    }

    /// Queues a server event.
    pub(super) fn emit(&mut self, kind: &'static str, mut body: Value) {
        if self.muted || self.over {
            return;
        }
        body["type"] = kind.into();
        body["event_id"] = self.fresh_id("event").into();
        if self.faults.unknown_events {
            body["x_future_field"] = json!({"nested": [1, null, "two"]});
        }
        self.out.push_back(Output::Text(body.to_string()));
    }

    /// Queues something that is ready to be sent.
    pub(super) fn emit_raw(&mut self, output: Output) {
        if !self.muted && !self.over {
            self.out.push_back(output);
        }
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

    /// Ends the session with a close frame.
    pub fn close(&mut self, code: u16, reason: &str) {
        self.out.push_back(Output::Close { code, reason: reason.to_owned() });
        self.over = true;
    }

    pub(super) fn fresh_id(&mut self, prefix: &str) -> String {
        fresh_id(&mut self.rng, prefix)
    }
}

/// `prefix_` and 21 letters or digits, as the service's ids look.
fn fresh_id(rng: &mut StdRng, prefix: &str) -> String {
    let mut bits: u128 = rng.random();
    let mut id = String::with_capacity(prefix.len() + 22);
    id.push_str(prefix);
    id.push('_');
    for _ in 0..21 {
        id.push(char::from(ID_DIGITS[(bits % 62) as usize]));
        bits /= 62;
    }
    id
}

const ID_DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
