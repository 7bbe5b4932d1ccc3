//! Realtime speech AIs behind one face.
//!
//! A [`Provider`] opens sessions; a [`Session`] is one conversation with an AI. Opening (DNS, TLS,
//! handshake, configuration) happens on the ordinary runtime. The opened session is then *settled* on
//! the media worker of its call, where it is polled by the call's own task: a frame of audio goes from
//! RTP into the provider's WebSocket without a lock or a thread hop.
//!
//! Invariants: only `openai/` knows OpenAI's JSON; no call logic lives here; commands never block.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::cost::Tokens;

pub mod breaker;
pub mod connect;
pub mod guarded;
pub mod keys;
pub mod lease;
pub mod notice;
pub mod openai;
pub mod registry;
pub mod scripted;
pub mod stored_keys;
pub mod ultravox;
pub mod ultravox_sip;

/// Opens sessions with one realtime AI service.
pub trait Provider: Send + Sync {
    /// The name of its `[providers.NAME]` section.
    fn name(&self) -> &str;

    /// The `kind` of its section.
    fn kind(&self) -> &'static str {
        "other"
    }

    /// Opens a session and waits until the service has accepted its configuration.
    fn open(&self, spec: SessionSpec) -> OpenFuture;

    /// Why it is of no use to open a session now, for calls that have another provider to try; `None`: try it.
    fn unusable(&self) -> Option<ProviderError> {
        None
    }

    /// A session that was open has failed its call in this way: the provider's record takes note.
    fn report(&self, _fault: &SessionFault) {}

    /// The keys it opens sessions with, for kinds that need any.
    fn keys(&self) -> Option<&lease::Keys> {
        None
    }
}

/// What went wrong with a session that had been open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionFault {
    /// The connection broke or the service closed it.
    Lost,
    /// A response was due and nothing came.
    Stalled,
    /// The service broke its protocol.
    Protocol,
    /// The account has no quota left.
    QuotaExhausted,
    /// It reached the service's time limit: nobody's fault.
    Expired,
}

/// What [`Provider::open`] returns.
pub type OpenFuture = Pin<Box<dyn Future<Output = Result<Box<dyn OpenedSession>, ProviderError>> + Send>>;

/// A session that is ready but not yet attached to a media worker.
pub trait OpenedSession: Send {
    /// Attaches the session to the runtime of the calling thread.
    ///
    /// # Errors
    /// When the socket cannot be registered with this thread's runtime.
    fn settle(self: Box<Self>) -> std::io::Result<Box<dyn Session>>;
}

/// One conversation with an AI, owned and polled by a call's task on its media worker.
pub trait Session {
    /// Sends caller audio: 24 kHz mono, in order, as it arrives. Bounded: when the service does not
    /// read, the oldest unsent audio is dropped and counted in [`SessionStats::audio_dropped_ms`].
    fn send_audio(&mut self, pcm: &[i16]);

    /// Queues a command. Commands are few and never dropped while the session lives.
    fn send(&mut self, command: Command);

    /// Writes what is queued and yields the next event. After [`Event::Closed`] it stays pending.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event>;

    /// Counters so far.
    fn stats(&self) -> SessionStats;

    /// Takes what the caller said before the session took over, 24 kHz mono, all at once and before any other audio.
    /// `false`: this service hears nothing but what is spoken now.
    fn send_backlog(&mut self, _pcm: &[i16]) -> bool {
        false
    }

    /// Whether a long silence while an answer is due means that the service has stalled.
    fn can_stall(&self) -> bool {
        true
    }

    /// Asks the service for a sign of life: a message, which [`SessionStats::messages`] then counts. `false`: it cannot be
    /// asked.
    fn probe(&mut self) -> bool {
        false
    }

    /// Whether silence after speech is the end of a turn, which the service answers. Otherwise it may have been a noise,
    /// and only the beginning of an answer tells.
    fn silence_ends_turns(&self) -> bool {
        true
    }

    /// How long the service lets a session last, from its opening.
    fn limit(&self) -> Option<Duration> {
        None
    }
}

/// What a session is opened with.
#[derive(Debug, Clone, Default)]
pub struct SessionSpec {
    /// The system prompt.
    pub instructions: String,
    /// Provider's voice name; `None` takes its default.
    pub voice: Option<String>,
    /// Model name; `None` takes the provider's configured one.
    pub model: Option<String>,
    /// BCP 47 language of the caller, as a hint for transcription.
    pub language: Option<String>,
    /// Tools the model may call.
    pub tools: Arc<[ToolSpec]>,
    /// How the service finds the end of the caller's turn.
    pub turn_detection: TurnDetection,
    /// Provider-specific: the script of the `scripted` provider, as a file path or an inline name.
    pub script: Option<String>,
    /// The conversation so far, for a session that takes over from another one.
    pub history: Vec<HistoryItem>,
    /// Whose call it is, by name: its own keys are used where it has some.
    pub organization: Option<Arc<str>>,
    /// The service's noise reduction; `None`: the provider's configured one.
    pub noise_reduction: Option<NoiseReduction>,
    /// What the service does by itself when the caller speaks or falls silent.
    pub turns: Turns,
    /// How fast the voice speaks, as a multiple; `None`: its own pace.
    pub speed: Option<f32>,
    /// Longest answer in tokens; `None`: the provider's configured limit.
    pub max_output_tokens: Option<u32>,
    /// A stable pseudonym of the caller for abuse reporting; never a phone number.
    pub safety_identifier: Option<String>,
}

/// A tool as shown to the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// Function name, `[a-z_]+`.
    pub name: String,
    /// When and how the model should use it.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: serde_json::Value,
}

/// Noise reduction before turn detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseReduction {
    /// None.
    Off,
    /// For a handset or headset.
    NearField,
    /// For a speakerphone.
    FarField,
}

/// How the end of the caller's turn is found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TurnDetection {
    /// By silence after speech.
    ServerVad {
        /// 0..=1; higher needs louder speech. `None`: the service's default.
        #[serde(default)]
        threshold: Option<f32>,
        /// Audio kept from before the detected start.
        #[serde(default)]
        prefix_padding_ms: Option<u32>,
        /// Silence that ends a turn.
        #[serde(default)]
        silence_duration_ms: Option<u32>,
    },
    /// By what was said.
    SemanticVad {
        /// `low`, `medium`, `high` or `auto`.
        #[serde(default)]
        eagerness: Option<Eagerness>,
    },
}

impl Default for TurnDetection {
    fn default() -> Self {
        Self::ServerVad { threshold: None, prefix_padding_ms: None, silence_duration_ms: None }
    }
}

/// What the service does by itself, where it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// Answers when the caller's turn is over.
    pub create_response: bool,
    /// Stops its answer when the caller speaks.
    pub interrupt_response: bool,
    /// Speaks again after this much silence; `None`: it does not.
    pub idle_timeout_ms: Option<u32>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { create_response: true, interrupt_response: true, idle_timeout_ms: None }
    }
}

/// How soon semantic turn detection believes that a turn is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the service's own")]
pub enum Eagerness {
    Low,
    Medium,
    High,
    Auto,
}

/// One piece of the conversation so far, replayed into a fresh session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryItem {
    /// Somebody spoke.
    Said {
        /// Who.
        who: Speaker,
        /// What was said and, for the assistant, heard.
        text: String,
    },
    /// The model called a tool and was answered.
    Tool {
        /// The service's name of the call.
        id: String,
        /// Tool name.
        name: String,
        /// JSON text.
        arguments: String,
        /// What the model was told.
        output: String,
    },
    /// Something the model must know that nobody said.
    Note(String),
}

impl HistoryItem {
    /// Somebody spoke.
    pub fn said(who: Speaker, text: impl Into<String>) -> Self {
        Self::Said { who, text: text.into() }
    }
}

/// The two parties of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speaker {
    /// The person on the phone.
    Caller,
    /// The AI.
    Assistant,
}

/// The provider's name for one stretch of speech or one turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId(pub Arc<str>);

impl From<&str> for ItemId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for ItemId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a call asks of a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Let the assistant speak now; with instructions, about that only (a greeting, a nudge).
    Respond {
        /// Instructions for this one response; `None` continues the conversation.
        instructions: Option<String>,
    },
    /// Let the assistant say these words as they stand.
    Say(String),
    /// Put a text into the conversation as if the caller had said it (pressed digits, for example).
    CallerText(String),
    /// Put a fact into the conversation that nobody said.
    Note(String),
    /// Go on with other settings; what is `None` stays.
    Update {
        /// The system prompt.
        instructions: Option<String>,
        /// BCP 47 language of the caller.
        language: Option<String>,
        /// Tools the model may call from here on.
        tools: Option<Arc<[ToolSpec]>>,
    },
    /// Answer a tool call. `respond` lets the assistant speak about it.
    ToolResult {
        /// From [`Event::ToolCall`].
        id: String,
        /// Text for the model, usually JSON.
        output: String,
        /// Whether the tool did what it was asked for; an error's text is the output, too.
        ok: bool,
        /// Whether the assistant should go on speaking.
        respond: bool,
    },
    /// The caller heard only this much of an item.
    Truncate {
        /// The item that was playing.
        item: ItemId,
        /// Milliseconds of it that left on RTP.
        audio_end_ms: u32,
    },
    /// Stop generating the response in progress, if any.
    CancelResponse,
    /// End the session; [`Event::Closed`] follows.
    Close,
}

/// What a session tells its call.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The service heard the caller start to speak: playback must stop now.
    SpeechStarted {
        /// Milliseconds of caller audio sent before the speech began.
        at_ms: u64,
        /// The turn this speech will become, when known.
        item: Option<ItemId>,
    },
    /// The caller's turn seems to be over.
    SpeechStopped {
        /// Milliseconds of caller audio sent before the speech ended.
        at_ms: u64,
        /// The turn.
        item: Option<ItemId>,
    },
    /// Assistant audio, 24 kHz mono, usually faster than real time.
    Audio {
        /// The stretch of speech it belongs to.
        item: ItemId,
        /// Samples that follow those of the previous event of the same item.
        pcm: Vec<i16>,
    },
    /// No more audio will come for this item.
    AudioDone {
        /// The finished item.
        item: ItemId,
    },
    /// Words so far of one turn; replaces the previous partial of the same item.
    TranscriptPartial {
        /// Who speaks.
        who: Speaker,
        /// The turn.
        item: ItemId,
        /// All words so far.
        text: String,
    },
    /// The words of one turn.
    TranscriptFinal {
        /// Who spoke.
        who: Speaker,
        /// The turn.
        item: ItemId,
        /// All words.
        text: String,
    },
    /// Of a turn that was cut, the words the service believes to have been heard. The rest of its words, if
    /// any are known, come as its [`Event::TranscriptFinal`] afterwards.
    Heard {
        /// The turn.
        item: ItemId,
        /// The words.
        text: String,
    },
    /// The model wants a tool run. Always answered by [`Command::ToolResult`].
    ToolCall {
        /// Names the call in the answer.
        id: String,
        /// Tool name, possibly one that does not exist.
        name: String,
        /// JSON text, possibly invalid.
        arguments: String,
    },
    /// A response began; until `TurnDone` the service is busy generating.
    TurnStarted,
    /// A response is complete, cancelled or failed.
    TurnDone {
        /// How it ended.
        status: TurnStatus,
    },
    /// Something that is paid for.
    Used(Usage),
    /// Something went wrong that the session survives.
    Warning {
        /// The service's code, or a short name of ours.
        code: String,
        /// For logs at DEBUG: may quote the service.
        message: String,
    },
    /// The session is over.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// How a response ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnStatus {
    /// All was generated.
    Completed,
    /// By barge-in or command.
    Cancelled,
    /// Cut by a limit or filter; the text names it.
    Incomplete(String),
    /// By the service; the text is its reason.
    Failed(String),
}

/// What a service charges for.
#[derive(Debug, Clone, PartialEq)]
pub enum Usage {
    /// The tokens of one response, a cancelled one too.
    Response {
        /// The model that answered.
        model: Arc<str>,
        /// How many.
        tokens: Tokens,
    },
    /// Writing down what the caller said, where the service bills that apart.
    Transcription {
        /// The model that wrote.
        model: Arc<str>,
        /// How many tokens; 0 where it is billed by time.
        tokens: Tokens,
        /// Billed audio, where it is billed by time.
        audio_ms: u64,
    },
    /// The time of the whole session so far, where that is billed. The last one is the truth.
    Session {
        /// The model.
        model: Arc<str>,
        /// Billed so far.
        billed_ms: u64,
    },
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// We asked for it.
    Requested,
    /// The service's time limit for a session.
    Expired,
    /// The account has no quota left.
    QuotaExhausted,
    /// The assistant ended the conversation at the service (a hang-up tool of its own).
    HungUp,
    /// The service closed it, with a WebSocket code where there was one.
    ByService {
        /// WebSocket close code.
        code: Option<u16>,
        /// The service's words.
        reason: String,
    },
    /// The connection broke.
    ConnectionLost(String),
    /// The service broke its protocol badly enough to give up.
    Protocol(String),
}

/// Counters of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionStats {
    /// Caller audio handed to the connection.
    pub audio_sent_ms: u64,
    /// Caller audio given up because the service did not read.
    pub audio_dropped_ms: u64,
    /// Assistant audio received.
    pub audio_received_ms: u64,
    /// Events of kinds or shapes we do not know.
    pub unknown_events: u64,
    /// Messages that have come, where the session can be probed.
    pub messages: u64,
}

/// Why a session could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProviderError {
    /// No TCP or TLS connection.
    #[error("provider {provider} is unreachable: {cause}")]
    Unreachable {
        /// Which one.
        provider: String,
        /// What the network said.
        cause: String,
    },
    /// The handshake was refused.
    #[error("provider {provider} refused the connection with HTTP {status}")]
    Refused {
        /// Which one.
        provider: String,
        /// HTTP status.
        status: u16,
        /// From `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The service accepted the connection and then refused the session.
    #[error("provider {provider} refused the session: {code}")]
    SessionRefused {
        /// Which one.
        provider: String,
        /// The service's error code, such as `invalid_api_key`.
        code: String,
    },
    /// Nothing came in time.
    #[error("provider {provider} did not answer within {after:?}")]
    Timeout {
        /// Which one.
        provider: String,
        /// The limit.
        after: Duration,
    },
    /// Not tried: it has failed too often lately, or all its keys rest.
    #[error("provider {provider} is not tried: {cause}")]
    Unavailable {
        /// Which one.
        provider: String,
        /// Why.
        cause: String,
        /// When it will be tried again.
        retry_in: Option<Duration>,
    },
    /// The script or setting is unusable.
    #[error("provider {provider} is not usable: {cause}")]
    Misconfigured {
        /// Which one.
        provider: String,
        /// What to mend.
        cause: String,
    },
}
