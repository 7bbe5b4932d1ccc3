//! A response in progress, and the response object events show.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::config::Modality;
use super::format::AudioFormat;
use super::item::Item;
use super::script::ToolCall;
use super::settings::max_tokens_json;
use super::speech::{Say, Utterance};
use super::tokens::Tokens;

/// A response in progress.
#[derive(Debug)]
pub struct Active {
    pub(super) id: String,
    pub(super) out_of_band: bool,
    pub(super) modality: Modality,
    pub(super) format: AudioFormat,
    pub(super) voice: Value,
    pub(super) max_output_tokens: Option<u32>,
    pub(super) metadata: Option<Value>,
    pub(super) input: Tokens,
    pub(super) cached: Tokens,
    pub(super) fail: Option<String>,
    pub(super) steps: VecDeque<Step>,
    pub(super) stage: Stage,
    pub(super) due: Instant,
    /// Finished items, as shown in `response.done`.
    pub(super) output: Vec<Value>,
    /// The item being generated when it is no part of the conversation.
    pub(super) own_item: Option<Item>,
    pub(super) spent: Tokens,
    pub(super) audio_ms: u64,
}

#[derive(Debug)]
pub(super) enum Step {
    Say(Say),
    Call(ToolCall),
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Between two items.
    Next,
    Speaking(Speaking),
}

#[derive(Debug)]
pub(super) struct Speaking {
    pub(super) item: Arc<str>,
    pub(super) utterance: Arc<Utterance>,
    pub(super) started: Instant,
    pub(super) piece: usize,
    pub(super) samples: u64,
    pub(super) words: String,
}

/// How a response ends.
#[derive(Debug)]
pub(super) enum Outcome {
    Completed,
    Cancelled(&'static str),
    Incomplete(&'static str),
    Failed(String),
}

impl Outcome {
    /// As on the wire.
    pub(super) const fn status(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled(_) => "cancelled",
            Self::Incomplete(_) => "incomplete",
            Self::Failed(_) => "failed",
        }
    }

    /// The response's `status_details`.
    pub(super) fn details(&self) -> Value {
        match self {
            Self::Completed => Value::Null,
            Self::Cancelled(reason) | Self::Incomplete(reason) => {
                json!({"type": self.status(), "reason": reason})
            }
            Self::Failed(code) => json!({"type": "failed", "error": {
                "type": "server_error",
                "code": code,
                "message": "The server had an error while generating the response.",
            }}),
        }
    }
}

impl Speaking {
    /// What was generated so far costs.
    pub(super) fn tokens(&self) -> Tokens {
        Tokens::spoken(self.samples, self.utterance.format.rate()) + Tokens::text(&self.words)
    }
}

impl Active {
    /// The ids every event about a part carries.
    pub(super) fn place(&self, item: &str) -> Value {
        json!({
            "response_id": self.id,
            "item_id": item,
            "output_index": self.output.len(),
            "content_index": 0,
        })
    }

    /// The `usage` member of `response.done`.
    pub(super) fn usage(&self) -> Value {
        // The service caches whole blocks of the prefix.
        let block = |cached: u64, input: u64| cached.min(input) / CACHE_BLOCK * CACHE_BLOCK;
        let text = block(self.cached.text, self.input.text);
        let audio = block(self.cached.audio, self.input.audio);
        json!({
            "total_tokens": self.input.total() + self.spent.total(),
            "input_tokens": self.input.total(),
            "output_tokens": self.spent.total(),
            "input_token_details": {
                "text_tokens": self.input.text,
                "audio_tokens": self.input.audio,
                "image_tokens": 0,
                "cached_tokens": text + audio,
                "cached_tokens_details": {"text_tokens": text, "audio_tokens": audio, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": self.spent.text, "audio_tokens": self.spent.audio},
        })
    }

    /// The response object.
    pub(super) fn to_json(&self, status: &str, details: Value, usage: Value, conversation: &str) -> Value {
        json!({
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": self.output,
            "conversation_id": (!self.out_of_band).then_some(conversation),
            "output_modalities": [self.modality.name()],
            "max_output_tokens": max_tokens_json(self.max_output_tokens),
            "audio": {"output": {"format": self.format.to_json(), "voice": self.voice}},
            "usage": usage,
            "metadata": self.metadata,
        })
    }
}

const CACHE_BLOCK: u64 = 64;
