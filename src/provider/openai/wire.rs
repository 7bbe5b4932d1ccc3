//! What the service sends: OpenAI Realtime's server events (GA) as they are on the wire.
//!
//! Lenient by design: unknown fields are ignored, unknown events are [`ServerEvent::Other`], and fields
//! that only inform may be missing or null. Long strings are borrowed from the message.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use crate::provider::Tokens;

/// One server event.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub enum ServerEvent<'a> {
    /// Something went wrong; the session usually goes on.
    #[serde(rename = "error")]
    Error {
        /// What.
        error: ErrorBody,
    },
    /// The session exists.
    #[serde(rename = "session.created")]
    SessionCreated,
    /// A configuration was accepted.
    #[serde(rename = "session.updated")]
    SessionUpdated,
    /// The caller began to speak.
    #[serde(rename = "input_audio_buffer.speech_started")]
    SpeechStarted(SpeechStarted),
    /// The caller stopped.
    #[serde(rename = "input_audio_buffer.speech_stopped")]
    SpeechStopped(SpeechStopped),
    /// The caller's unfinished turn was thrown away.
    #[serde(rename = "input_audio_buffer.cleared")]
    InputCleared,
    /// Some of the caller's words.
    #[serde(rename = "conversation.item.input_audio_transcription.delta", borrow)]
    CallerDelta(Delta<'a>),
    /// All of the caller's words.
    #[serde(rename = "conversation.item.input_audio_transcription.completed", borrow)]
    CallerDone(CallerText<'a>),
    /// The caller's words could not be written down.
    #[serde(rename = "conversation.item.input_audio_transcription.failed")]
    CallerFailed {
        /// Why.
        #[serde(default)]
        error: ErrorBody,
    },
    /// A response began.
    #[serde(rename = "response.created")]
    ResponseCreated {
        /// Which.
        response: Response,
    },
    /// A response ended, one way or another.
    #[serde(rename = "response.done")]
    ResponseDone {
        /// How.
        response: Response,
    },
    /// An item of a response is complete or was cut.
    #[serde(rename = "response.output_item.done")]
    ItemDone {
        /// The response it belongs to.
        #[serde(default)]
        response_id: String,
        /// The item.
        item: Item,
    },
    /// Some audio.
    #[serde(rename = "response.output_audio.delta", borrow)]
    AudioDelta(Delta<'a>),
    /// No more audio of this item.
    #[serde(rename = "response.output_audio.done", borrow)]
    AudioDone(Text<'a>),
    /// Some of the assistant's words, spoken or written.
    #[serde(rename = "response.output_audio_transcript.delta", alias = "response.output_text.delta", borrow)]
    WordsDelta(Delta<'a>),
    /// All of the assistant's words.
    #[serde(rename = "response.output_audio_transcript.done", alias = "response.output_text.done", borrow)]
    WordsDone(Text<'a>),
    /// The model wants a tool run.
    #[serde(rename = "response.function_call_arguments.done")]
    ToolCall(FunctionCall),
    /// Events that are known and tell nothing a call needs.
    #[serde(
        rename = "rate_limits.updated",
        alias = "conversation.created",
        alias = "conversation.item.added",
        alias = "conversation.item.done",
        alias = "conversation.item.created",
        alias = "conversation.item.retrieved",
        alias = "conversation.item.truncated",
        alias = "conversation.item.deleted",
        alias = "conversation.item.input_audio_transcription.segment",
        alias = "input_audio_buffer.committed",
        alias = "input_audio_buffer.timeout_triggered",
        alias = "input_audio_buffer.dtmf_event_received",
        alias = "output_audio_buffer.started",
        alias = "output_audio_buffer.stopped",
        alias = "output_audio_buffer.cleared",
        alias = "response.output_item.added",
        alias = "response.content_part.added",
        alias = "response.content_part.done",
        alias = "response.function_call_arguments.delta",
        alias = "response.mcp_call_arguments.delta",
        alias = "response.mcp_call_arguments.done",
        alias = "response.mcp_call.in_progress",
        alias = "response.mcp_call.completed",
        alias = "response.mcp_call.failed",
        alias = "mcp_list_tools.in_progress",
        alias = "mcp_list_tools.completed",
        alias = "mcp_list_tools.failed"
    )]
    Uninteresting,
    /// An event this version does not know.
    #[serde(other)]
    Other,
}

/// Body of an `error` event and of failures.
#[derive(Debug, Default, Deserialize)]
pub struct ErrorBody {
    /// Class, such as `invalid_request_error`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Code, such as `session_expired`.
    #[serde(default)]
    pub code: Option<String>,
    /// In words.
    #[serde(default)]
    pub message: Option<String>,
    /// The client event that caused it.
    #[serde(default)]
    pub event_id: Option<String>,
}

impl ErrorBody {
    /// The code, or the class where there is none.
    pub fn name(&self) -> &str {
        self.code.as_deref().or(self.kind.as_deref()).unwrap_or("error")
    }
}

/// The caller began to speak.
#[derive(Debug, Deserialize)]
pub struct SpeechStarted {
    /// On the clock of the audio written.
    #[serde(default, deserialize_with = "whole")]
    pub audio_start_ms: u64,
    /// The item the speech will become.
    #[serde(default)]
    pub item_id: Option<String>,
}

/// The caller stopped.
#[derive(Debug, Deserialize)]
pub struct SpeechStopped {
    /// On the clock of the audio written.
    #[serde(default, deserialize_with = "whole")]
    pub audio_end_ms: u64,
    /// The item the speech becomes.
    #[serde(default)]
    pub item_id: Option<String>,
}

/// A piece of audio or text.
#[derive(Debug, Deserialize)]
pub struct Delta<'a> {
    /// The item it belongs to.
    #[serde(borrow)]
    pub item_id: Cow<'a, str>,
    /// The response it belongs to; empty for the caller's items.
    #[serde(borrow, default)]
    pub response_id: Cow<'a, str>,
    /// Which part of the item.
    #[serde(default)]
    pub content_index: u32,
    /// Base64 or text.
    #[serde(borrow, default)]
    pub delta: Cow<'a, str>,
}

/// The end of a piece of audio or text.
#[derive(Debug, Deserialize)]
pub struct Text<'a> {
    /// The item it belongs to.
    #[serde(borrow)]
    pub item_id: Cow<'a, str>,
    /// The response it belongs to; empty for the caller's items.
    #[serde(borrow, default)]
    pub response_id: Cow<'a, str>,
    /// All words; empty for audio.
    #[serde(borrow, default, alias = "text")]
    pub transcript: Cow<'a, str>,
}

/// All of the caller's words, and what writing them down is billed by.
#[derive(Debug, Deserialize)]
pub struct CallerText<'a> {
    /// The item it belongs to.
    #[serde(borrow)]
    pub item_id: Cow<'a, str>,
    /// All words.
    #[serde(borrow, default)]
    pub transcript: Cow<'a, str>,
    /// What it costs.
    #[serde(default)]
    pub usage: Option<TranscriptionUsage>,
}

/// What writing down is billed by: tokens or time. Everything may be missing.
#[derive(Debug, Default, Deserialize)]
pub struct TranscriptionUsage {
    #[serde(default)]
    seconds: Option<f64>,
    #[serde(default, deserialize_with = "whole")]
    input_tokens: u64,
    #[serde(default, deserialize_with = "whole")]
    output_tokens: u64,
    #[serde(default)]
    input_token_details: Option<TokenCounts>,
}

impl TranscriptionUsage {
    /// The tokens; without details all input is audio.
    pub fn tokens(&self) -> Tokens {
        let details = self.input_token_details.as_ref();
        let known = details.map(|details| (details.text_tokens, details.audio_tokens));
        let (input_text, input_audio) =
            known.filter(|known| *known != (0, 0)).unwrap_or((0, self.input_tokens));
        Tokens { input_text, input_audio, output_text: self.output_tokens, ..Tokens::default() }
    }

    /// Billed audio in milliseconds.
    pub fn audio_ms(&self) -> u64 {
        // A float becomes the nearest whole number, and what is none becomes 0.
        self.seconds.map_or(0, |seconds| (seconds * 1000.0).round() as u64)
    }
}

/// A finished function call.
#[derive(Debug, Deserialize)]
pub struct FunctionCall {
    /// The response it belongs to.
    #[serde(default)]
    pub response_id: String,
    /// Names the call in its answer.
    pub call_id: String,
    /// The tool; older servers name it only in the item.
    #[serde(default)]
    pub name: Option<String>,
    /// JSON text, possibly invalid.
    #[serde(default)]
    pub arguments: String,
}

/// A response.
#[derive(Debug, Default, Deserialize)]
pub struct Response {
    /// Its id.
    #[serde(default)]
    pub id: Option<String>,
    /// `in_progress`, `completed`, `cancelled`, `failed` or `incomplete`.
    #[serde(default)]
    pub status: Option<String>,
    /// Why it ended so.
    #[serde(default)]
    pub status_details: Option<StatusDetails>,
    /// Its items.
    #[serde(default)]
    pub output: Option<Vec<Item>>,
    /// What it cost.
    #[serde(default)]
    pub usage: Option<UsageBody>,
}

/// Why a response ended as it did.
#[derive(Debug, Default, Deserialize)]
pub struct StatusDetails {
    /// `turn_detected`, `client_cancelled`, `max_output_tokens` or `content_filter`.
    #[serde(default)]
    pub reason: Option<String>,
    /// For failed responses.
    #[serde(default)]
    pub error: Option<ErrorBody>,
}

/// An item, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub struct Item {
    /// Its id.
    #[serde(default)]
    pub id: Option<String>,
    /// `message`, `function_call` and others.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// `completed`, `incomplete` or `in_progress`.
    #[serde(default)]
    pub status: Option<String>,
    /// Of a function call.
    #[serde(default)]
    pub call_id: Option<String>,
    /// Of a function call.
    #[serde(default)]
    pub name: Option<String>,
    /// Of a function call.
    #[serde(default)]
    pub arguments: Option<String>,
}

/// Tokens of one response; everything may be missing.
#[derive(Debug, Default, Deserialize)]
pub struct UsageBody {
    #[serde(default)]
    input_token_details: Option<InputTokens>,
    #[serde(default)]
    output_token_details: Option<TokenCounts>,
}

#[derive(Debug, Default, Deserialize)]
struct InputTokens {
    #[serde(default, deserialize_with = "whole")]
    text_tokens: u64,
    #[serde(default, deserialize_with = "whole")]
    audio_tokens: u64,
    #[serde(default)]
    cached_tokens_details: Option<TokenCounts>,
}

#[derive(Debug, Default, Deserialize)]
struct TokenCounts {
    #[serde(default, deserialize_with = "whole")]
    text_tokens: u64,
    #[serde(default, deserialize_with = "whole")]
    audio_tokens: u64,
}

impl From<UsageBody> for Tokens {
    fn from(body: UsageBody) -> Self {
        let input = body.input_token_details.unwrap_or_default();
        let cached = input.cached_tokens_details.unwrap_or_default();
        let output = body.output_token_details.unwrap_or_default();
        Self {
            input_text: input.text_tokens,
            input_audio: input.audio_tokens,
            cached_text: cached.text_tokens,
            cached_audio: cached.audio_tokens,
            output_text: output.text_tokens,
            output_audio: output.audio_tokens,
        }
    }
}

/// A count or a time: also as a fraction or null, as some compatible servers write it.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Option::<f64>::deserialize(from).map(|number| number.unwrap_or(0.0) as u64)
}

/// Decodes a delta into samples that follow `carry`, half a sample that an earlier delta ended in.
///
/// # Errors
/// When the text is not base64. `carry` is then as it was.
pub fn decode_pcm(
    base64: &str,
    carry: &mut Option<u8>,
    scratch: &mut Vec<u8>,
) -> Result<Vec<i16>, base64_simd::Error> {
    scratch.clear();
    scratch.extend(*carry);
    base64_simd::STANDARD.decode_append(base64.as_bytes(), scratch)?;
    let (pairs, rest) = scratch.as_chunks::<2>();
    *carry = rest.first().copied();
    let samples = pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    // A long delta must not cost every call its length for the rest of the call.
    scratch.shrink_to(KEPT_SCRATCH);
    Ok(samples)
}

/// Bytes of the decoding buffer kept between deltas.
const KEPT_SCRATCH: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_is_borrowed_from_its_message() {
        let json = r#"{"type":"response.output_audio.delta","event_id":"e","response_id":"r","item_id":"i",
            "output_index":0,"content_index":0,"delta":"AAAB"}"#;
        let Ok(ServerEvent::AudioDelta(delta)) = serde_json::from_str(json) else { panic!() };
        assert!(matches!(delta.delta, Cow::Borrowed("AAAB")));
        assert!(matches!(delta.item_id, Cow::Borrowed("i")));
    }

    #[test]
    fn escaped_text_is_unescaped() {
        let json =
            r#"{"type":"response.output_audio_transcript.delta","item_id":"i","delta":"\"\u00e4\" \n"}"#;
        let Ok(ServerEvent::WordsDelta(delta)) = serde_json::from_str(json) else { panic!() };
        assert_eq!(delta.delta, "\"ä\" \n");
    }

    #[test]
    fn unknown_events_are_other_whatever_their_fields_hold() {
        let json = r#"{"delta":{"no":"string"},"item_id":7,"type":"response.telepathy.delta"}"#;
        assert!(matches!(serde_json::from_str(json), Ok(ServerEvent::Other)));
    }

    #[test]
    fn missing_and_null_usage_fields_count_as_nothing() {
        let json = r#"{"total_tokens":253,"input_token_details":{"text_tokens":119,"audio_tokens":null,
            "cached_tokens_details":{"text_tokens":64}},"output_token_details":null}"#;
        let usage: UsageBody = serde_json::from_str(json).unwrap();
        let expected = Tokens { input_text: 119, cached_text: 64, ..Tokens::default() };
        assert_eq!(Tokens::from(usage), expected);
    }

    #[test]
    fn a_sample_split_between_deltas_is_put_together() {
        let (mut carry, mut scratch) = (None, Vec::new());
        let encode = |bytes: &[u8]| base64_simd::STANDARD.encode_to_string(bytes);
        assert_eq!(decode_pcm(&encode(&[1, 0, 2]), &mut carry, &mut scratch).unwrap(), [1]);
        assert!(decode_pcm("not base64!", &mut carry, &mut scratch).is_err());
        assert_eq!(decode_pcm(&encode(&[1, 255, 255]), &mut carry, &mut scratch).unwrap(), [258, -1]);
        assert_eq!(carry, None);
    }
}
