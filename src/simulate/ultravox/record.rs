//! What is worth telling about a call afterwards: mistakes of the client, and the moments a test measures
//! from.

use std::time::Instant;

use serde::Serialize;

use crate::simulate::report::{self, Recorded};

/// One record with where and when; connections are numbered by the requests for calls.
pub type Entry = report::Entry<Record>;
/// Everything recorded so far.
pub type Report = report::Report<Record>;
/// Where everything leaves its records.
pub type Collector = report::Collector<Record>;

/// One thing that happened in a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record {
    /// The call exists.
    Created {
        /// Its id.
        call: String,
        /// The whole request.
        request: serde_json::Value,
        /// What this call will suffer.
        faults: Vec<String>,
    },
    /// A request, or the media socket, was not accepted.
    Refused {
        /// HTTP status; 0 when there was no answer at all.
        status: u16,
        /// Why.
        reason: String,
    },
    /// The media socket is open.
    Joined {
        /// The call.
        call: String,
    },
    /// The client broke the protocol.
    Violation {
        /// The client's message or request, where there was one.
        event: Option<String>,
        /// Stable name.
        code: String,
        /// In words.
        message: String,
        /// The field.
        param: Option<String>,
    },
    /// The caller's speech was heard.
    SpeechStarted {
        /// Milliseconds of caller audio before it.
        audio_ms: u64,
    },
    /// The caller's turn is over.
    SpeechStopped {
        /// Milliseconds of caller audio before this moment.
        audio_ms: u64,
    },
    /// The agent began to speak: its first audio goes out at this moment.
    SpeakingStarted {
        /// The message.
        ordinal: u64,
        /// Its words.
        text: String,
    },
    /// The agent has spoken, as far as playback at real time can tell.
    SpeakingDone {
        /// The message.
        ordinal: u64,
        /// The words that were heard.
        text: String,
        /// Audio sent.
        sent_ms: u64,
        /// Audio played before the cut; as much as was sent when there was none.
        played_ms: u64,
        /// Whether the caller cut it.
        interrupted: bool,
    },
    /// The client put a text into the conversation.
    TextReceived {
        /// The words.
        text: String,
        /// `immediate`, `soon` or `later`.
        urgency: &'static str,
    },
    /// The model called a client tool.
    ToolCalled {
        /// The call.
        invocation: String,
        /// The tool.
        name: String,
        /// Whether the client had offered it.
        offered: bool,
    },
    /// The client answered a tool call.
    ToolAnswered {
        /// The call.
        invocation: String,
        /// Since the invocation was sent.
        after_ms: u64,
        /// The result, or the error's type.
        result: String,
        /// Whether it was an error.
        error: bool,
    },
    /// The call goes on with other settings.
    StageChanged {
        /// As given.
        settings: serde_json::Value,
    },
    /// A webhook was sent, or was not.
    Webhook {
        /// `call.ended` and the like.
        event: String,
        /// 1, 2, 3, …
        attempt: u32,
        /// What it was answered with; 0 for no answer.
        status: u16,
    },
    /// The media socket is gone.
    Disconnected(Totals),
    /// The call is over.
    Ended {
        /// The call.
        call: String,
        /// `hangup`, `agent_hangup`, …
        reason: String,
    },
}

/// Counters of one media socket.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Totals {
    /// How it ended, in words.
    pub how: String,
    /// Audio frames of the client.
    pub appends: u64,
    /// Audio in them.
    pub appended_ms: u64,
    /// The longest time between two of them.
    pub append_gap_max_ms: u64,
    /// Times the agent spoke or wrote.
    pub responses: u64,
    /// Times it was cut.
    pub interrupted: u64,
    /// Turns of the caller.
    pub turns: u64,
    /// Audio frames sent.
    pub deltas: u64,
    /// Audio in them.
    pub generated_ms: u64,
    /// Mistakes of the client.
    pub violations: u64,
}

/// Sums over all calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Calls created.
    pub calls: u64,
    /// Requests and sockets refused.
    pub refused: u64,
    /// Media sockets opened.
    pub joined: u64,
    /// Media sockets that are gone.
    pub disconnected: u64,
    /// Calls that are over.
    pub ended: u64,
    /// Audio frames of ended calls.
    pub appends: u64,
    /// Caller audio of ended calls.
    pub appended_ms: u64,
    /// The longest time between two frames of one call.
    pub append_gap_max_ms: u64,
    /// Times an agent spoke or wrote.
    pub responses: u64,
    /// Times one was cut.
    pub interrupted: u64,
    /// Turns of callers.
    pub turns: u64,
    /// Agents' audio sent.
    pub generated_ms: u64,
    /// Webhooks sent.
    pub webhooks: u64,
    /// Mistakes of clients.
    pub violations: u64,
    /// Records not kept because there were too many; the file has them all.
    pub records_dropped: u64,
}

/// Sees things as they happen, for measurements in the same process. Called from the calls' tasks: must
/// not block.
pub trait Observer: Send + Sync {
    /// A frame of caller audio was read: signed 16-bit little-endian at `rate`.
    fn appended(&self, _connection: u64, _at: Instant, _audio: &[u8], _rate: u32) {}

    /// A frame of agent audio was handed to the socket: `samples` samples of message `ordinal` from
    /// `first_sample` on.
    fn delta_sent(&self, _connection: u64, _at: Instant, _ordinal: u64, _first_sample: u64, _samples: u64) {}

    /// A record was made.
    fn recorded(&self, _entry: &Entry) {}
}

impl Recorded for Record {
    type Summary = Summary;
    type Observer = dyn Observer;

    fn sum(&self, summary: &mut Summary) {
        match self {
            Self::Created { .. } => summary.calls += 1,
            Self::Refused { .. } => summary.refused += 1,
            Self::Joined { .. } => summary.joined += 1,
            Self::Violation { .. } => summary.violations += 1,
            Self::Webhook { .. } => summary.webhooks += 1,
            Self::Ended { .. } => summary.ended += 1,
            Self::Disconnected(totals) => summary.add(totals),
            _ => {}
        }
    }

    fn dropped(summary: &mut Summary) {
        summary.records_dropped += 1;
    }

    fn is_violation(&self) -> bool {
        matches!(self, Self::Violation { .. })
    }

    fn show(entry: &Entry, observer: &Self::Observer) {
        observer.recorded(entry);
    }
}

impl Summary {
    fn add(&mut self, totals: &Totals) {
        self.disconnected += 1;
        self.appends += totals.appends;
        self.appended_ms += totals.appended_ms;
        self.append_gap_max_ms = self.append_gap_max_ms.max(totals.append_gap_max_ms);
        self.responses += totals.responses;
        self.interrupted += totals.interrupted;
        self.turns += totals.turns;
        self.generated_ms += totals.generated_ms;
    }
}
