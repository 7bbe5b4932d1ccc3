//! The items of a conversation and their JSON.

use std::sync::Arc;

use serde_json::{Value, json};

use super::speech::Utterance;
use super::tokens::Tokens;

/// Who an item's words belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the wire's own")]
pub enum Role {
    User,
    Assistant,
    System,
}

/// How far an item has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the wire's own")]
pub enum ItemStatus {
    InProgress,
    Completed,
    Incomplete,
}

impl ItemStatus {
    /// As on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

/// One element of the conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// `item_…`, or the client's own.
    pub id: String,
    /// How far it has come.
    pub status: ItemStatus,
    /// What it is.
    pub kind: ItemKind,
}

/// What an item is.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemKind {
    /// Words.
    Message {
        /// Whose.
        role: Role,
        /// The content.
        parts: Vec<Part>,
    },
    /// The model wants a function run.
    FunctionCall {
        /// Names the call in the answer.
        call_id: String,
        /// The function.
        name: String,
        /// JSON text.
        arguments: String,
    },
    /// The client's answer to a function call.
    FunctionCallOutput {
        /// The call.
        call_id: String,
        /// Its result.
        output: String,
    },
    /// Accepted and of no effect: no MCP server stands behind the simulator.
    McpApproval,
}

/// One part of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text from the client.
    InputText(String),
    /// Caller audio.
    InputAudio {
        /// How much.
        samples: u64,
        /// Samples per second.
        rate: u32,
        /// From the transcription, once it is there.
        transcript: Option<String>,
        /// The samples, kept for the newest turn only.
        audio: Option<Arc<[i16]>>,
    },
    /// An image, not looked at.
    InputImage,
    /// Text of the assistant.
    OutputText(String),
    /// Speech of the assistant.
    OutputAudio {
        /// What is being said; the same value for all sessions that say it.
        utterance: Arc<Utterance>,
        /// Samples of it generated so far and not truncated.
        samples: u64,
        /// Its words so far; `None` after truncation.
        transcript: Option<String>,
    },
}

impl Item {
    /// The item as events show it: without audio data.
    pub fn to_json(&self) -> Value {
        self.render(false)
    }

    /// The item as `conversation.item.retrieved` shows it.
    pub fn to_json_with_audio(&self) -> Value {
        self.render(true)
    }

    fn render(&self, with_audio: bool) -> Value {
        let mut json = json!({
            "id": self.id,
            "object": "realtime.item",
            "status": self.status.name(),
        });
        match &self.kind {
            ItemKind::Message { role, parts } => {
                json["type"] = "message".into();
                json["role"] = match role {
                    Role::User => "user",
                    Role::Assistant => "assistant",
                    Role::System => "system",
                }
                .into();
                json["content"] = parts.iter().map(|part| part.to_json(with_audio)).collect();
            }
            ItemKind::FunctionCall { call_id, name, arguments } => {
                json["type"] = "function_call".into();
                json["call_id"] = call_id.as_str().into();
                json["name"] = name.as_str().into();
                json["arguments"] = arguments.as_str().into();
            }
            ItemKind::FunctionCallOutput { call_id, output } => {
                json["type"] = "function_call_output".into();
                json["call_id"] = call_id.as_str().into();
                json["output"] = output.as_str().into();
            }
            ItemKind::McpApproval => json["type"] = "mcp_approval_response".into(),
        }
        json
    }

    /// What the item costs as input of a response.
    pub fn tokens(&self) -> Tokens {
        match &self.kind {
            ItemKind::Message { parts, .. } => parts.iter().map(Part::tokens).sum(),
            ItemKind::FunctionCall { name, arguments, .. } => Tokens::text(name) + Tokens::text(arguments),
            ItemKind::FunctionCallOutput { output, .. } => Tokens::text(output),
            ItemKind::McpApproval => Tokens::default(),
        }
    }
}

impl Part {
    fn to_json(&self, with_audio: bool) -> Value {
        match self {
            Self::InputText(text) => json!({"type": "input_text", "text": text}),
            Self::OutputText(text) => json!({"type": "output_text", "text": text}),
            Self::InputImage => json!({"type": "input_image"}),
            Self::InputAudio { transcript, audio, .. } => {
                let mut json = json!({"type": "input_audio", "transcript": transcript});
                if let (true, Some(audio)) = (with_audio, audio) {
                    let bytes: Vec<u8> = audio.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                    json["audio"] = base64_simd::STANDARD.encode_to_string(bytes).into();
                }
                json
            }
            Self::OutputAudio { utterance, samples, transcript } => {
                let mut json = json!({"type": "output_audio", "transcript": transcript});
                if with_audio {
                    json["audio"] = utterance.base64_of_first(*samples).into();
                }
                json
            }
        }
    }

    fn tokens(&self) -> Tokens {
        match self {
            Self::InputText(text) | Self::OutputText(text) => Tokens::text(text),
            Self::InputImage => Tokens::default(),
            Self::InputAudio { samples, rate, .. } => Tokens::heard(*samples, *rate),
            Self::OutputAudio { utterance, samples, transcript } => {
                Tokens::spoken(*samples, utterance.format.rate())
                    + transcript.as_deref().map_or_else(Tokens::default, Tokens::text)
            }
        }
    }
}
