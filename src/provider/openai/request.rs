//! What we send: OpenAI Realtime's client events (GA) as they are on the wire.

use std::fmt;

use serde::Serialize;

use crate::provider::{ToolSpec, TurnDetection, Turns};

/// One client event with the id that errors about it will name.
#[derive(Debug, Serialize)]
pub struct Numbered<'a> {
    /// Ours.
    pub event_id: EventId,
    /// The event.
    #[serde(flatten)]
    pub event: ClientEvent<'a>,
}

impl Numbered<'_> {
    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("client events hold only strings, numbers and JSON values")
    }
}

/// Names a client event within its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId(pub u64);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tandem_{}", self.0)
    }
}

impl EventId {
    /// Whether `text` is this id as the service returned it.
    pub fn is(self, text: &str) -> bool {
        text.strip_prefix("tandem_").and_then(|number| number.parse().ok()) == Some(self.0)
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// One client event, but for audio, which [`append_message`] writes.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub enum ClientEvent<'a> {
    /// Configures the session.
    #[serde(rename = "session.update")]
    SessionUpdate {
        /// What to change.
        session: Box<SessionConfig<'a>>,
    },
    /// Changes some of the session's configuration; what is absent stays.
    #[serde(rename = "session.update")]
    SessionChange {
        /// What to change.
        session: SessionChange<'a>,
    },
    /// Adds to the end of the conversation.
    #[serde(rename = "conversation.item.create")]
    ItemCreate {
        /// What.
        item: NewItem<'a>,
    },
    /// Cuts assistant audio to what was heard.
    #[serde(rename = "conversation.item.truncate")]
    ItemTruncate {
        /// Which item.
        item_id: &'a str,
        /// Which part of it.
        content_index: u32,
        /// What was heard of it.
        audio_end_ms: u32,
    },
    /// Removes an item that was not heard at all.
    #[serde(rename = "conversation.item.delete")]
    ItemDelete {
        /// Which.
        item_id: &'a str,
    },
    /// Lets the model speak.
    #[serde(rename = "response.create")]
    ResponseCreate {
        /// How, if not as the session says.
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<ResponseConfig<'a>>,
    },
    /// Stops the response in progress.
    #[serde(rename = "response.cancel")]
    ResponseCancel,
}

/// Part of a session's configuration; absent fields keep the service's default.
#[derive(Debug, Serialize)]
pub struct SessionConfig<'a> {
    /// Always `realtime`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Always audio, which comes with a transcript.
    pub output_modalities: [&'static str; 1],
    /// System prompt.
    pub instructions: &'a str,
    /// Both directions.
    pub audio: AudioConfig<'a>,
    /// What the model may call.
    pub tools: Vec<ToolConfig<'a>>,
    /// Always `auto`.
    pub tool_choice: &'static str,
    /// Longest answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
}

/// What of a session's configuration is to change.
#[derive(Debug, Serialize)]
pub struct SessionChange<'a> {
    /// Always `realtime`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// System prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<&'a str>,
    /// From the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioChange<'a>>,
    /// What the model may call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ToolConfig<'a>>>,
}

/// What of the audio's configuration is to change.
#[derive(Debug, Serialize)]
pub struct AudioChange<'a> {
    /// From the caller.
    pub input: InputChange<'a>,
}

/// What of the caller's audio is to change.
#[derive(Debug, Serialize)]
pub struct InputChange<'a> {
    /// Writing down the caller's words.
    pub transcription: Transcription<'a>,
}

/// `de` of `de-AT`: transcription takes ISO 639-1.
pub fn primary_subtag(tag: &str) -> &str {
    tag.split(['-', '_']).next().unwrap_or(tag)
}

/// Audio both ways.
#[derive(Debug, Serialize)]
pub struct AudioConfig<'a> {
    /// From the caller.
    pub input: InputConfig<'a>,
    /// From the assistant.
    pub output: OutputConfig<'a>,
}

/// Audio from the caller.
#[derive(Debug, Serialize)]
pub struct InputConfig<'a> {
    /// Samples.
    pub format: Format,
    /// Before turn detection; null for none.
    pub noise_reduction: Option<NoiseReductionConfig>,
    /// Writing down the caller's words; null for not.
    pub transcription: Option<Transcription<'a>>,
    /// Finding the end of the caller's turn.
    pub turn_detection: TurnDetectionConfig,
}

/// Audio from the assistant.
#[derive(Debug, Serialize)]
pub struct OutputConfig<'a> {
    /// Samples.
    pub format: Format,
    /// Voice; absent for the service's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voice: Option<&'a str>,
    /// Pace; absent for the service's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
}

/// 16-bit little-endian mono PCM at 24 kHz.
#[derive(Debug, Serialize)]
pub struct Format {
    #[serde(rename = "type")]
    kind: &'static str,
    rate: u32,
}

/// The bridge's own format, which is also the service's only PCM format.
pub const PCM_24K: Format = Format { kind: "audio/pcm", rate: 24_000 };

/// Noise reduction.
#[derive(Debug, Serialize)]
pub struct NoiseReductionConfig {
    /// `near_field` or `far_field`.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// The model that writes down what the caller says.
#[derive(Debug, Serialize)]
pub struct Transcription<'a> {
    /// Its name.
    pub model: &'a str,
    /// ISO 639-1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<&'a str>,
}

/// Turn detection that answers and interrupts by itself.
#[derive(Debug, Serialize)]
pub struct TurnDetectionConfig {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_padding_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    silence_duration_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eagerness: Option<crate::provider::Eagerness>,
    /// Server VAD only.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout_ms: Option<u32>,
    create_response: bool,
    interrupt_response: bool,
}

impl TurnDetectionConfig {
    /// Turns are found like this, and this is done about them.
    pub fn new(wanted: TurnDetection, turns: Turns) -> Self {
        let plain = Self {
            kind: "server_vad",
            threshold: None,
            prefix_padding_ms: None,
            silence_duration_ms: None,
            eagerness: None,
            idle_timeout_ms: None,
            create_response: turns.create_response,
            interrupt_response: turns.interrupt_response,
        };
        match wanted {
            TurnDetection::ServerVad { threshold, prefix_padding_ms, silence_duration_ms } => {
                let threshold = threshold.and_then(decimal);
                let idle_timeout_ms = turns.idle_timeout_ms;
                Self { threshold, prefix_padding_ms, silence_duration_ms, idle_timeout_ms, ..plain }
            }
            TurnDetection::SemanticVad { eagerness } => Self { kind: "semantic_vad", eagerness, ..plain },
        }
    }
}

/// Through decimal text, so that 0.7 is not written as 0.699999988079071.
pub fn decimal(value: f32) -> Option<f64> {
    value.to_string().parse().ok()
}

/// A tool.
#[derive(Debug, Serialize)]
pub struct ToolConfig<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    spec: &'a ToolSpec,
}

impl<'a> From<&'a ToolSpec> for ToolConfig<'a> {
    fn from(spec: &'a ToolSpec) -> Self {
        Self { kind: "function", spec }
    }
}

/// An item that the client may create.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NewItem<'a> {
    /// A turn of text.
    Message {
        /// `user` or `assistant`.
        role: &'static str,
        /// One part.
        content: [Content<'a>; 1],
    },
    /// A tool call of an earlier session.
    FunctionCall {
        /// Which call.
        call_id: &'a str,
        /// Tool name.
        name: &'a str,
        /// JSON text.
        arguments: &'a str,
    },
    /// The answer to a tool call.
    FunctionCallOutput {
        /// Which call.
        call_id: &'a str,
        /// Text for the model.
        output: &'a str,
    },
}

impl<'a> NewItem<'a> {
    /// Something the caller said or did.
    pub fn user(text: &'a str) -> Self {
        Self::Message { role: "user", content: [Content { kind: "input_text", text }] }
    }

    /// Something nobody said.
    pub fn system(text: &'a str) -> Self {
        Self::Message { role: "system", content: [Content { kind: "input_text", text }] }
    }

    /// Something the assistant said; its audio cannot be given back.
    pub fn assistant(text: &'a str) -> Self {
        Self::Message { role: "assistant", content: [Content { kind: "output_text", text }] }
    }
}

/// A part of a message.
#[derive(Debug, Serialize)]
pub struct Content<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
}

/// Overrides for one response.
#[derive(Debug, Serialize)]
pub struct ResponseConfig<'a> {
    /// In place of the session's.
    pub instructions: &'a str,
    /// `none` when the words are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<&'static str>,
}

/// Appends samples to `bytes` as the service reads them.
pub fn push_pcm(bytes: &mut Vec<u8>, pcm: &[i16]) {
    let start = bytes.len();
    bytes.resize(start + 2 * pcm.len(), 0);
    for (pair, sample) in bytes[start..].as_chunks_mut::<2>().0.iter_mut().zip(pcm) {
        *pair = sample.to_le_bytes();
    }
}

/// The message that appends these samples to the service's input.
pub fn append_message(pcm: &[u8]) -> String {
    let base64 = base64_simd::STANDARD;
    let size = APPEND_HEAD.len() + base64.encoded_length(pcm.len()) + APPEND_TAIL.len();
    let mut message = String::with_capacity(size);
    message.push_str(APPEND_HEAD);
    base64.encode_append(pcm, &mut message);
    message.push_str(APPEND_TAIL);
    message
}

const APPEND_HEAD: &str = r#"{"type":"input_audio_buffer.append","audio":""#;
const APPEND_TAIL: &str = r#""}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_append_template_is_valid_json_with_little_endian_samples() {
        let mut bytes = Vec::new();
        push_pcm(&mut bytes, &[1, -2]);
        push_pcm(&mut bytes, &[i16::MIN]);
        let message: Value = serde_json::from_str(&append_message(&bytes)).unwrap();
        assert_eq!(message["type"], "input_audio_buffer.append");
        let audio = message["audio"].as_str().unwrap();
        let decoded = base64_simd::STANDARD.decode_to_vec(audio).unwrap();
        assert_eq!(decoded, [1, 0, 254, 255, 0, 128]);
    }

    #[test]
    fn turn_detection_answers_and_interrupts_unless_told_otherwise() {
        let server = TurnDetection::ServerVad {
            threshold: Some(0.7),
            prefix_padding_ms: None,
            silence_duration_ms: Some(400),
        };
        assert_eq!(
            serde_json::to_value(TurnDetectionConfig::new(server, Turns::default())).unwrap(),
            json!({"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 400,
                   "create_response": true, "interrupt_response": true})
        );
        let semantic = TurnDetection::SemanticVad { eagerness: Some(crate::provider::Eagerness::Low) };
        assert_eq!(
            serde_json::to_value(TurnDetectionConfig::new(semantic, Turns::default())).unwrap(),
            json!({"type": "semantic_vad", "eagerness": "low",
                   "create_response": true, "interrupt_response": true})
        );
        let turns = Turns { create_response: false, interrupt_response: false, idle_timeout_ms: Some(6_000) };
        let told = serde_json::to_value(TurnDetectionConfig::new(server, turns)).unwrap();
        assert_eq!((&told["create_response"], &told["idle_timeout_ms"]), (&json!(false), &json!(6_000)));
        let told = serde_json::to_value(TurnDetectionConfig::new(semantic, turns)).unwrap();
        assert_eq!((&told["interrupt_response"], &told["idle_timeout_ms"]), (&json!(false), &Value::Null));
    }

    #[test]
    fn an_event_carries_its_id_and_reads_it_back() {
        let event = Numbered { event_id: EventId(7), event: ClientEvent::ResponseCreate { response: None } };
        let json: Value = serde_json::from_str(&event.to_json()).unwrap();
        assert_eq!(json, json!({"event_id": "tandem_7", "type": "response.create"}));
        assert!(EventId(7).is("tandem_7") && !EventId(7).is("tandem_77") && !EventId(7).is("7"));
    }
}
