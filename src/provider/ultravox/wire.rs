//! The data messages of Ultravox, both ways, as they are on the wire.
//!
//! What the service sends is read leniently: unknown fields are ignored, unknown messages are
//! [`ServerMessage::Other`]. What we send has the vendor's fields and no others; what is at its default is
//! left out.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One message of the service.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The call is live: texts may be sent from here on.
    CallStarted {
        /// The service's name of the call.
        #[serde(default, rename = "callId")]
        call_id: Option<String>,
    },
    /// What the agent does now.
    State {
        /// Which.
        state: AgentState,
    },
    /// Words of one party.
    Transcript(Transcript),
    /// The model wants a tool run.
    ClientToolInvocation(Invocation),
    /// All audio that has not been played is to be dropped.
    PlaybackClearBuffer,
    /// The answer to a ping.
    Pong,
    /// The caller began to speak, by simple voice activity. It interrupts nothing by itself.
    UserStartedSpeaking,
    /// The caller stopped.
    UserStoppedSpeaking,
    /// Messages that are known and tell nothing a call needs.
    #[serde(alias = "call_event", alias = "tool_used", alias = "invoking_tool")]
    Debug,
    /// Not known here.
    #[serde(other)]
    Other,
}

/// What the agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// Nothing.
    Idle,
    /// It hears the caller.
    Listening,
    /// It generates.
    Thinking,
    /// It is heard.
    Speaking,
    /// Not known here.
    #[serde(other)]
    Other,
}

/// Words of one party.
#[derive(Debug, Deserialize)]
pub struct Transcript {
    /// Who.
    pub role: Role,
    /// `voice` or `text`.
    #[serde(default)]
    pub medium: Option<String>,
    /// All words so far.
    #[serde(default)]
    pub text: Option<String>,
    /// Words that follow those before.
    #[serde(default)]
    pub delta: Option<String>,
    /// No more will come for this ordinal.
    #[serde(default, rename = "final")]
    pub last: bool,
    /// Place of the message in the call, counted over both parties.
    pub ordinal: i64,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the service's own")]
pub enum Role {
    User,
    Agent,
    #[serde(other)]
    Other,
}

/// A tool call.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invocation {
    /// The tool, possibly one that does not exist.
    pub tool_name: String,
    /// Names the call in the answer.
    pub invocation_id: String,
    /// The arguments, an object.
    #[serde(default)]
    pub parameters: Value,
}

/// One message of ours.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage<'a> {
    /// A text as if the caller had said it.
    UserTextMessage {
        /// The text.
        text: &'a str,
        /// Whether it interrupts and whether it is answered.
        urgency: Urgency,
    },
    /// Words the agent must say.
    ForcedAgentMessage {
        /// The words.
        content: &'a str,
        /// `immediate` or `soon`.
        urgency: Urgency,
    },
    /// The answer to a tool call.
    ClientToolResult(ToolResult<'a>),
    /// Is the service there?
    Ping {
        /// Seconds, comes back as it is.
        timestamp: f64,
    },
}

impl ClientMessage<'_> {
    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("client messages hold only strings, numbers and JSON values")
    }
}

/// Whether a message interrupts and whether it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Interrupts and is acted on at once.
    Immediate,
    /// Is acted on at the next opportunity.
    Soon,
    /// Is context only.
    Later,
}

/// The answer to a tool call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult<'a> {
    /// Which call.
    pub invocation_id: &'a str,
    /// Text for the model; absent when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'a str>,
    /// `new-stage` when `result` holds new settings; absent: a plain answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_type: Option<&'static str>,
    /// `listens` when the agent should not speak about it; absent: it speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_reaction: Option<&'static str>,
    /// `undefined` or `implementation-error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<&'static str>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<&'a str>,
}
