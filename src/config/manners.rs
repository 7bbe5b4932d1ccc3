//! How an assistant behaves on the phone, whatever it is about: who speaks first, what happens when nobody does, and
//! how it lets itself be interrupted. Part of an assistant's resource; the store keeps the same types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::flow::Seconds;
use super::resources::{Assistant, TurnDetection};

/// Who speaks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct FirstSpeaker {
    /// The assistant, or the caller.
    #[serde(default)]
    pub who: Who,
    /// The assistant waits this long, and greets only if the caller has said nothing by then. Absent: it greets at
    /// once, or never if the caller is to speak first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 4)]
    pub delay: Option<Seconds>,
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Who {
    /// Whoever answers a phone speaks first.
    #[default]
    Assistant,
    /// Such as somebody who was called.
    Caller,
}

/// What happens when nobody says anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Silence {
    /// So long after the last word, of whomever it was. Time on hold does not count.
    #[schemars(example = 8)]
    pub after: Seconds,
    /// What the assistant says then, one after the other, each after another such silence. The caller's next word
    /// begins the list anew.
    #[serde(default)]
    #[schemars(example = ["Are you still there?"])]
    pub prompts: Vec<String>,
    /// What happens after the last of them: `end` says the assistant's `closing` words and hangs up, `continue` goes on
    /// with the flow.
    #[serde(default)]
    pub then: AfterSilence,
}

/// What happens when a caller has gone silent for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum AfterSilence {
    /// The assistant says goodbye and the call ends.
    #[default]
    End,
    /// The flow goes on with the steps after the assistant's.
    Continue,
}

/// How the caller interrupts the assistant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct BargeIn {
    /// `provider`: as the service hears it. `local`: the assistant pauses as soon as this server hears speech; it stops
    /// for good when the service hears it too or the speech lasts, and goes on where it paused when it was but a cough.
    /// `off`: the assistant finishes what it says.
    pub mode: BargeInMode,
    /// For `local`: speech that makes the assistant pause, in milliseconds. 20 to 1000.
    #[schemars(range(min = 20, max = 1000))]
    pub min_ms: u32,
    /// For `local`: speech during the pause that stops it for good, in milliseconds. 100 to 5000.
    #[schemars(range(min = 100, max = 5000))]
    pub confirm_ms: u32,
}

impl Default for BargeIn {
    fn default() -> Self {
        Self { mode: BargeInMode::Provider, min_ms: 80, confirm_ms: 500 }
    }
}

/// Who decides that the caller interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum BargeInMode {
    /// The service.
    #[default]
    Provider,
    /// This server at first, the service after it.
    Local,
    /// Nobody.
    Off,
}

/// The switches of an assistant that a provider of this kind does not do.
pub(super) fn unheeded(assistant: &Assistant, kind: &str) -> Vec<&'static str> {
    let turns = match assistant.turn_detection {
        Some(TurnDetection::ServerVad { idle_timeout_ms, create_response, interrupt_response, .. }) => {
            idle_timeout_ms.is_some() || create_response.is_some() || interrupt_response.is_some()
        }
        Some(TurnDetection::SemanticVad { create_response, interrupt_response, .. }) => {
            create_response.is_some() || interrupt_response.is_some()
        }
        None => false,
    };
    let semantic = matches!(assistant.turn_detection, Some(TurnDetection::SemanticVad { .. }));
    let off = assistant.barge_in.is_some_and(|barge_in| barge_in.mode == BargeInMode::Off);
    let all = [
        ("noise_reduction", assistant.noise_reduction.is_some(), "openai"),
        ("speed", assistant.speed.is_some(), "openai"),
        ("max_output_tokens", assistant.max_output_tokens.is_some(), "openai"),
        ("turn_detection", turns || semantic, "openai"),
        // It drops what it has sent by itself.
        ("barge_in", off && kind == "ultravox", "openai"),
    ];
    all.into_iter().filter(|(_, set, can)| *set && kind != *can).map(|(switch, ..)| switch).collect()
}

/// What an assistant says at the end of a call when nothing else was said for it.
pub const CLOSING: &str = "I am sorry, our time is up. Goodbye.";
