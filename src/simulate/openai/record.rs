//! What is worth telling about a connection afterwards: mistakes of the client, and the moments a test
//! measures from.

use serde::Serialize;

/// One thing that happened on a connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record {
    /// The session exists.
    Connected {
        /// `sess_…`.
        session: String,
        /// From the URL.
        model: String,
        /// The `OpenAI-Safety-Identifier` header.
        safety_identifier: Option<String>,
        /// What this connection will suffer.
        faults: Vec<String>,
    },
    /// The handshake was not accepted.
    Refused {
        /// HTTP status; 0 when there was no answer at all.
        status: u16,
        /// Why.
        reason: String,
    },
    /// The client broke the protocol.
    Violation {
        /// The client event, where there was one.
        event: Option<String>,
        /// The error's code.
        code: String,
        /// The error's words.
        message: String,
        /// The field.
        param: Option<String>,
        /// A correct client can meet this by losing a race.
        harmless: bool,
    },
    /// The configuration was accepted.
    Configured {
        /// `session.update`s so far.
        updates: u64,
        /// The whole configuration, as shown to the client.
        session: serde_json::Value,
    },
    /// The caller's speech was heard; the event goes out at this moment.
    SpeechStarted {
        /// The turn it becomes.
        item: String,
        /// On the clock of audio written.
        audio_start_ms: u64,
        /// Whether a response was being generated.
        interrupts: bool,
    },
    /// The caller's turn is over.
    SpeechStopped {
        /// The turn.
        item: String,
        /// On the clock of audio written.
        audio_end_ms: u64,
    },
    /// The client said how much was heard.
    Truncation {
        /// The assistant's item.
        item: String,
        /// What was heard.
        audio_end_ms: u64,
        /// What there was.
        generated_ms: u64,
    },
    /// A response was asked for, by the client or by the end of a turn.
    ResponseStarted {
        /// `resp_…`.
        response: String,
    },
    /// A response is over.
    ResponseDone {
        /// `resp_…`.
        response: String,
        /// Its status.
        status: String,
        /// Audio generated for it.
        audio_ms: u64,
    },
    /// The model called a function.
    ToolCalled {
        /// The call.
        call_id: String,
        /// The function.
        name: String,
        /// Whether the client had offered it.
        offered: bool,
    },
    /// The client answered a function call.
    ToolAnswered {
        /// The call.
        call_id: String,
        /// Time since the call was complete.
        after_ms: u64,
        /// The same in microseconds.
        after_us: u64,
        /// What the model was told, shortened.
        output: String,
    },
    /// The connection is gone.
    Disconnected(Totals),
}

/// Counters of one connection.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Totals {
    /// How it ended, in words.
    pub how: String,
    /// Append events.
    pub appends: u64,
    /// Audio in them.
    pub appended_ms: u64,
    /// The longest time between two appends.
    pub append_gap_max_ms: u64,
    /// Responses begun.
    pub responses: u64,
    /// Responses cancelled.
    pub cancelled: u64,
    /// Speech starts.
    pub turns: u64,
    /// Truncations accepted.
    pub truncations: u64,
    /// Audio deltas sent.
    pub deltas: u64,
    /// Audio in them.
    pub generated_ms: u64,
    /// Mistakes of the client that no race excuses.
    pub violations: u64,
}
