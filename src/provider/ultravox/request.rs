//! The REST side as JSON: the call that is asked for, and what the service answers.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::provider::{
    CloseReason, Eagerness, HistoryItem, ProviderError, SessionSpec, Speaker, ToolSpec, TurnDetection,
};
use crate::telemetry::Wire;

use super::tools::{SelectedTool, selected};

/// What calls are made with besides their [`SessionSpec`].
#[derive(Debug, Clone, PartialEq)]
pub struct CallSettings {
    /// Model for assistants that name none; `None`: the service's default.
    pub model: Option<String>,
    /// Voice for assistants that name none; `None`: the service's default.
    pub voice: Option<String>,
    /// 0 to 1; `None`: the service's default.
    pub temperature: Option<f64>,
    /// Rate of the caller's audio: 8000, 16000, 24000 or 48000 Hz.
    pub input_sample_rate: u32,
    /// Rate of the assistant's audio, likewise.
    pub output_sample_rate: u32,
    /// How far ahead of playback the service may send.
    pub client_buffer_ms: u32,
    /// How long the service waits for the media socket.
    pub join_timeout: Duration,
    /// Longest call.
    pub max_duration: Duration,
    /// How long the service waits for the result of a tool, while the conversation stands still.
    pub tool_timeout: Duration,
    /// How it finds turns, unless the assistant says otherwise.
    pub vad: Vad,
}

impl Default for CallSettings {
    fn default() -> Self {
        Self {
            model: None,
            voice: None,
            temperature: None,
            input_sample_rate: 24_000,
            output_sample_rate: 24_000,
            client_buffer_ms: 30_000,
            join_timeout: Duration::from_secs(15),
            max_duration: Duration::from_secs(3600),
            tool_timeout: Duration::from_secs(6),
            vad: Vad::default(),
        }
    }
}

/// Turn detection; `None` is the service's default.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Vad {
    /// Silence that ends the caller's turn.
    pub turn_endpoint_delay: Option<Duration>,
    /// Speech that makes a turn.
    pub minimum_turn: Option<Duration>,
    /// Speech that interrupts the agent.
    pub minimum_interruption: Option<Duration>,
    /// 0.1 to 1: how sure it must be that a frame is speech.
    pub activation_threshold: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartCall<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    system_prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    voice: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language_hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    initial_messages: Vec<Message<'a>>,
    join_timeout: String,
    max_duration: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    selected_tools: Vec<SelectedTool<'a>>,
    medium: Medium,
    recording_enabled: bool,
    first_speaker_settings: FirstSpeaker,
    #[serde(skip_serializing_if = "VadSettings::is_default")]
    vad_settings: VadSettings,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    role: &'static str,
    text: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Medium {
    server_web_socket: ServerWebSocket,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerWebSocket {
    input_sample_rate: u32,
    output_sample_rate: u32,
    client_buffer_size_ms: u32,
    data_messages: DataMessages,
}

/// Besides those that are on anyway.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DataMessages {
    user_started_speaking: bool,
    user_stopped_speaking: bool,
}

/// The agent waits for what we tell it: a greeting, or the caller's words.
#[derive(Serialize)]
struct FirstSpeaker {
    user: Nothing,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
struct VadSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    turn_endpoint_delay: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum_turn_duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum_interruption_duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_activation_threshold: Option<f64>,
}

impl VadSettings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The body of `POST /api/calls`.
pub fn start_call(spec: &SessionSpec, settings: &CallSettings) -> String {
    let timeout = seconds(settings.tool_timeout);
    let call = StartCall {
        system_prompt: &spec.instructions,
        model: spec.model.as_deref().or(settings.model.as_deref()),
        voice: spec.voice.as_deref().or(settings.voice.as_deref()),
        temperature: settings.temperature,
        language_hint: spec.language.as_deref().and_then(language_hint),
        initial_messages: spec.history.iter().flat_map(messages).collect(),
        join_timeout: seconds(settings.join_timeout),
        max_duration: seconds(settings.max_duration),
        selected_tools: selected(&spec.tools, &timeout),
        medium: Medium {
            server_web_socket: ServerWebSocket {
                input_sample_rate: settings.input_sample_rate,
                output_sample_rate: settings.output_sample_rate,
                client_buffer_size_ms: settings.client_buffer_ms,
                data_messages: DataMessages { user_started_speaking: true, user_stopped_speaking: true },
            },
        },
        recording_enabled: false,
        first_speaker_settings: FirstSpeaker { user: Nothing {} },
        vad_settings: vad_settings(spec.turn_detection, settings.vad),
    };
    serde_json::to_string(&call).expect("a call holds only strings, numbers and JSON values")
}

/// New settings for the rest of a call, as the result of a tool: a stage.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Stage {
    /// The system prompt.
    pub instructions: Option<String>,
    /// BCP 47.
    pub language: Option<String>,
    /// The tools from here on.
    pub tools: Option<std::sync::Arc<[ToolSpec]>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewStage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language_hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selected_tools: Option<Vec<SelectedTool<'a>>>,
    tool_result_text: &'a str,
}

impl Stage {
    /// As the `result` of a tool that has said `output`; `timeout` is the tools', in the service's notation.
    pub fn result(&self, output: &str, timeout: &str) -> String {
        let stage = NewStage {
            system_prompt: self.instructions.as_deref(),
            language_hint: self.language.as_deref().and_then(language_hint),
            selected_tools: self.tools.as_deref().map(|tools| selected(tools, timeout)),
            tool_result_text: output,
        };
        serde_json::to_string(&stage).expect("a stage holds only strings, numbers and JSON values")
    }

    /// What stays of `self` where `newer` says nothing.
    pub fn and(&mut self, newer: Self) {
        self.instructions = newer.instructions.or(self.instructions.take());
        self.language = newer.language.or(self.language.take());
        self.tools = newer.tools.or(self.tools.take());
    }
}

fn messages(past: &HistoryItem) -> Vec<Message<'_>> {
    let said = |role, text| Message { role, text, invocation_id: None, tool_name: None };
    match past {
        HistoryItem::Said { who: Speaker::Caller, text } => vec![said(USER, text.into())],
        HistoryItem::Said { who: Speaker::Assistant, text } => vec![said("MESSAGE_ROLE_AGENT", text.into())],
        HistoryItem::Note(text) => vec![said(USER, aside(text).into())],
        HistoryItem::Tool { id, name, arguments, output } => {
            let of_tool = |role, text: &'static str| -> Message<'_> { said(role, text.into()) };
            let mut call = of_tool("MESSAGE_ROLE_TOOL_CALL", "");
            let mut result = of_tool("MESSAGE_ROLE_TOOL_RESULT", "");
            for (message, text) in [(&mut call, arguments), (&mut result, output)] {
                message.text = Cow::Owned(text.clone());
                message.invocation_id = Some(id);
                message.tool_name = Some(name);
            }
            vec![call, result]
        }
    }
}

/// A text that the caller has not said, for a place where only the caller speaks.
pub fn aside(text: &str) -> String {
    format!("[Not said by the caller: {text}]")
}

/// Longer ones are refused, and only a hint is lost.
fn language_hint(tag: &str) -> Option<&str> {
    Some(tag).filter(|tag| (1..=16).contains(&tag.len()))
}

fn vad_settings(wanted: TurnDetection, settings: Vad) -> VadSettings {
    let (delay, threshold) = match wanted {
        TurnDetection::ServerVad { threshold, silence_duration_ms, .. } => {
            let delay = silence_duration_ms.map(|ms| Duration::from_millis(u64::from(ms)));
            (delay, threshold.map(|threshold| (f64::from(threshold) * 1000.0).round() / 1000.0))
        }
        TurnDetection::SemanticVad { eagerness } => (eagerness.and_then(patience), None),
    };
    VadSettings {
        turn_endpoint_delay: delay.or(settings.turn_endpoint_delay).map(in_frames),
        minimum_turn_duration: settings.minimum_turn.map(seconds),
        minimum_interruption_duration: settings.minimum_interruption.map(seconds),
        frame_activation_threshold: threshold.or(settings.activation_threshold).map(|t| t.clamp(0.1, 1.0)),
    }
}

/// The service judges turns by what was said in any case; what is left is how long it waits.
fn patience(eagerness: Eagerness) -> Option<Duration> {
    match eagerness {
        Eagerness::Low => Some(Duration::from_millis(768)),
        Eagerness::High => Some(Duration::from_millis(256)),
        Eagerness::Medium | Eagerness::Auto => None,
    }
}

/// Whole frames of the service's voice activity detection.
fn in_frames(delay: Duration) -> String {
    let ms = (delay.as_millis() as u64).next_multiple_of(VAD_FRAME_MS).max(VAD_FRAME_MS);
    seconds(Duration::from_millis(ms))
}

/// The service's notation: seconds, with as many decimals as are needed.
pub fn seconds(duration: Duration) -> String {
    let (whole, millis) = (duration.as_secs(), duration.subsec_millis());
    let decimals = format!("{millis:03}");
    match decimals.trim_end_matches('0') {
        "" => format!("{whole}s"),
        decimals => format!("{whole}.{decimals}s"),
    }
}

/// A call as the service describes it. Fields that only inform may be missing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallObject {
    /// Its name.
    pub call_id: String,
    /// Where its media socket is.
    #[serde(default)]
    pub join_url: Option<String>,
    /// The model that was taken.
    #[serde(default)]
    pub model: Option<String>,
    /// Why it ended.
    #[serde(default)]
    pub end_reason: Option<String>,
    /// What is billed, in the service's notation.
    #[serde(default)]
    pub billed_duration: Option<String>,
    /// Whether that is known.
    #[serde(default)]
    pub billing_status: Option<String>,
}

impl CallObject {
    /// Billed milliseconds, once they are known.
    pub fn billed_ms(&self) -> Option<u64> {
        if self.billing_status.as_deref() == Some("BILLING_STATUS_PENDING") {
            return None;
        }
        let seconds: f64 = self.billed_duration.as_deref()?.strip_suffix('s')?.parse().ok()?;
        (0.0..1e9).contains(&seconds).then(|| (seconds * 1000.0).round() as u64)
    }

    /// Why a media socket was closed that the service closed with this code.
    pub fn close_reason(&self, code: Option<u16>) -> CloseReason {
        match self.end_reason.as_deref() {
            Some("agent_hangup") => CloseReason::HungUp,
            Some("timeout") => CloseReason::Expired,
            Some(reason @ "connection_error") => CloseReason::ConnectionLost(reason.to_owned()),
            reason => CloseReason::ByService { code, reason: reason.map(clip).unwrap_or_default() },
        }
    }
}

/// Why the service did not make the call.
pub fn refusal(provider: &str, status: u16, retry_after: Option<Duration>, body: &str) -> ProviderError {
    let provider = provider.to_owned();
    match status {
        400 | 422 => {
            ProviderError::Misconfigured { provider, cause: format!("it was refused: {}", complaint(body)) }
        }
        _ => ProviderError::Refused { provider, status, retry_after },
    }
}

/// The fields a refusal names, or its first words.
fn complaint(body: &str) -> String {
    match serde_json::from_str(body) {
        Ok(Value::Object(fields)) if !fields.is_empty() => {
            let told = fields.iter().take(5).map(|(field, what)| {
                let what = what.as_str().map_or_else(|| what.to_string(), str::to_owned);
                format!("{}: {}", clip(field), clip(&what))
            });
            told.collect::<Vec<_>>().join("; ")
        }
        _ => clip(body),
    }
}

fn clip(text: &str) -> String {
    Wire::from(text.chars().take(120).collect::<String>().as_str()).to_string()
}

const USER: &str = "MESSAGE_ROLE_USER";
const VAD_FRAME_MS: u64 = 32;

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
