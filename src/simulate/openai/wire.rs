//! Client events, read strictly: a field the protocol does not know, a missing one or one of the wrong
//! type is an [`ApiError`] with the field's path, never a guess.

use serde::Deserialize;
use serde_json::Value;

use super::config::{Modality, SessionPatch};
use super::error::ApiError;
use super::fields::Fields;
use super::format::AudioFormat;
use super::item::{ItemKind, Part, Role};
use super::settings::{
    check_prompt, check_reasoning, read_max_tokens, read_tool_choice, read_tools, read_voice,
};

/// A client event with the id the client gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientMessage {
    /// Comes back in the `error` event this message may cause.
    pub event_id: Option<String>,
    /// What is asked.
    pub event: ClientEvent,
}

/// Everything a client may ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientEvent {
    /// Change the configuration.
    SessionUpdate(Box<SessionPatch>),
    /// Caller audio, decoded from base64 but not from its format.
    Append(Vec<u8>),
    /// End a manual turn.
    Commit,
    /// Forget what was appended since the last commit.
    Clear,
    /// WebRTC and SIP only.
    OutputClear,
    /// Put an item into the conversation.
    ItemCreate {
        /// `root`, an item, or the end.
        previous: Option<String>,
        /// The item.
        item: NewItem,
    },
    /// Show an item with its audio.
    ItemRetrieve {
        /// Which.
        item_id: String,
    },
    /// Forget the part of an assistant item that was not heard.
    ItemTruncate {
        /// Which.
        item_id: String,
        /// 0 for the only audio part there is.
        content_index: usize,
        /// What was heard.
        audio_end_ms: u64,
    },
    /// Remove an item.
    ItemDelete {
        /// Which.
        item_id: String,
    },
    /// Let the model speak.
    ResponseCreate(Box<ResponseRequest>),
    /// Stop it.
    ResponseCancel {
        /// The response in progress when absent.
        response_id: Option<String>,
    },
}

impl ClientEvent {
    /// The event's `type`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SessionUpdate(_) => "session.update",
            Self::Append(_) => "input_audio_buffer.append",
            Self::Commit => "input_audio_buffer.commit",
            Self::Clear => "input_audio_buffer.clear",
            Self::OutputClear => "output_audio_buffer.clear",
            Self::ItemCreate { .. } => "conversation.item.create",
            Self::ItemRetrieve { .. } => "conversation.item.retrieve",
            Self::ItemTruncate { .. } => "conversation.item.truncate",
            Self::ItemDelete { .. } => "conversation.item.delete",
            Self::ResponseCreate(_) => "response.create",
            Self::ResponseCancel { .. } => "response.cancel",
        }
    }
}

/// An item as the client wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewItem {
    /// The client's own id, at most 32 characters.
    pub id: Option<String>,
    /// The content.
    pub kind: ItemKind,
}

/// The `response` member of `response.create`: what differs from the session for this one response.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResponseRequest {
    /// Instead of the session's instructions.
    pub instructions: Option<String>,
    /// Speak or write.
    pub modality: Option<Modality>,
    /// Format of the deltas.
    pub output_format: Option<AudioFormat>,
    /// A voice for this response.
    pub voice: Option<Value>,
    /// `conversation: "none"`: out of band, nothing is added to the conversation.
    pub out_of_band: bool,
    /// Context in place of the conversation.
    pub input: Option<Vec<InputItem>>,
    /// `Some(None)`: without limit.
    pub max_output_tokens: Option<Option<u32>>,
    /// Comes back in the response object.
    pub metadata: Option<Value>,
    /// Tools for this response.
    pub tools: Option<Vec<Value>>,
    /// Whether and which tools may be called.
    pub tool_choice: Option<Value>,
}

/// One element of a response's own input.
#[derive(Debug, Clone, PartialEq)]
pub enum InputItem {
    /// An item of the conversation.
    Reference(String),
    /// An item only for this response.
    New(NewItem),
}

/// What could not be read, with the client's event id as far as it was readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The answer.
    pub error: ApiError,
    /// The client's id of the event.
    pub event_id: Option<String>,
    /// The client's `type` of the event.
    pub event_type: Option<String>,
}

/// The fast path: an append without anything unusual about it, borrowed from the message.
///
/// `None` means nothing more than "take [`parse`]": another event, an unknown field, an escaped text.
pub fn append_audio(text: &str) -> Option<&str> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Append<'a> {
        r#type: &'a str,
        audio: &'a str,
        #[serde(default)]
        event_id: Option<&'a str>,
    }
    let append: Append<'_> = serde_json::from_str(text).ok()?;
    let fits = append.r#type == "input_audio_buffer.append"
        && append.event_id.is_none_or(|id| id.len() <= EVENT_ID_CHARS)
        && append.audio.len() <= APPEND_BYTES;
    fits.then_some(append.audio)
}

/// Decodes the base64 of an append into `out`, which is cleared first.
///
/// # Errors
/// `invalid_value` for anything but standard base64 with padding.
pub fn decode_base64(audio: &str, out: &mut Vec<u8>) -> Result<(), ApiError> {
    out.clear();
    base64_simd::STANDARD.decode_append(audio, out).map_err(|_| {
        let why = "Expected base64-encoded audio bytes, but got a value that is not valid base64.";
        ApiError::new("invalid_value", format!("Invalid 'audio'. {why}")).at("audio")
    })
}

/// Reads one client event.
///
/// # Errors
/// The first thing wrong with it.
pub fn parse(text: &str) -> Result<ClientMessage, Box<Unreadable>> {
    let value: Value = serde_json::from_str(text).map_err(|error| Unreadable {
        error: ApiError::new("invalid_json", format!("Could not parse the message as JSON: {error}.")),
        event_id: None,
        event_type: None,
    })?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let unreadable =
        |error| Box::new(Unreadable { error, event_id: field("event_id"), event_type: field("type") });
    let mut fields = Fields::of(&value, "").map_err(unreadable)?;
    let event = read_event(&mut fields).and_then(|event| fields.finish().map(|()| event));
    event.map(|event| ClientMessage { event_id: field("event_id"), event }).map_err(unreadable)
}

fn read_event(fields: &mut Fields<'_>) -> Result<ClientEvent, ApiError> {
    let event_id = fields.nullable_string("event_id")?;
    if event_id.is_some_and(|id| id.len() > EVENT_ID_CHARS) {
        return Err(too_long("event_id", EVENT_ID_CHARS));
    }
    Ok(match fields.required_one_of("type", EVENTS)? {
        "session.update" => {
            let session = fields.object("session")?.ok_or_else(|| ApiError::missing("session"))?;
            ClientEvent::SessionUpdate(Box::new(SessionPatch::read(session)?))
        }
        "input_audio_buffer.append" => read_append(fields)?,
        "input_audio_buffer.commit" => ClientEvent::Commit,
        "input_audio_buffer.clear" => ClientEvent::Clear,
        "output_audio_buffer.clear" => ClientEvent::OutputClear,
        "conversation.item.create" => {
            let previous = fields.nullable_string("previous_item_id")?.map(str::to_owned);
            let item = fields.object("item")?.ok_or_else(|| ApiError::missing("item"))?;
            ClientEvent::ItemCreate { previous, item: read_item(item)? }
        }
        "conversation.item.retrieve" => ClientEvent::ItemRetrieve { item_id: item_id(fields)? },
        "conversation.item.truncate" => ClientEvent::ItemTruncate {
            item_id: item_id(fields)?,
            content_index: usize::try_from(fields.required_integer("content_index", 0, i64::MAX)?)
                .unwrap_or(usize::MAX),
            audio_end_ms: fields.required_integer("audio_end_ms", 0, i64::MAX)?.unsigned_abs(),
        },
        "conversation.item.delete" => ClientEvent::ItemDelete { item_id: item_id(fields)? },
        "response.create" => {
            let request = match fields.object("response")? {
                Some(response) => read_response(response)?,
                None => ResponseRequest::default(),
            };
            ClientEvent::ResponseCreate(Box::new(request))
        }
        _ => ClientEvent::ResponseCancel {
            response_id: fields.nullable_string("response_id")?.map(str::to_owned),
        },
    })
}

fn item_id(fields: &mut Fields<'_>) -> Result<String, ApiError> {
    fields.required_string("item_id").map(str::to_owned)
}

fn read_append(fields: &mut Fields<'_>) -> Result<ClientEvent, ApiError> {
    let audio = fields.required_string("audio")?;
    if audio.len() > APPEND_BYTES {
        return Err(too_long("audio", APPEND_BYTES));
    }
    let mut bytes = Vec::new();
    decode_base64(audio, &mut bytes)?;
    Ok(ClientEvent::Append(bytes))
}

fn too_long(path: &str, limit: usize) -> ApiError {
    let why = format!("string too long. Expected a string with maximum length {limit}.");
    ApiError { code: "string_above_max_length", ..ApiError::invalid(path, &why) }
}

fn read_response(mut fields: Fields<'_>) -> Result<ResponseRequest, ApiError> {
    let mut request = ResponseRequest {
        instructions: fields.string("instructions")?.map(str::to_owned),
        modality: Modality::read(&mut fields)?,
        out_of_band: fields.one_of("conversation", &["auto", "none"])? == Some("none"),
        max_output_tokens: read_max_tokens(&mut fields)?,
        tools: read_tools(&mut fields)?,
        tool_choice: read_tool_choice(&mut fields)?,
        ..ResponseRequest::default()
    };
    if let Some(mut audio) = fields.object("audio")? {
        if let Some(mut output) = audio.object("output")? {
            request.output_format = AudioFormat::read(&mut output)?;
            request.voice = read_voice(&mut output)?;
            output.finish()?;
        }
        audio.finish()?;
    }
    if let Some(list) = fields.array("input")? {
        let items = list.into_iter().map(|(path, value)| read_input_item(path, value));
        request.input = Some(items.collect::<Result<_, _>>()?);
    }
    request.metadata = read_metadata(&mut fields)?;
    for (name, check) in [("prompt", check_prompt as Check), ("reasoning", check_reasoning)] {
        let path = fields.path_of(name);
        if let Some(value) = fields.value(name) {
            check(&path, value)?;
        }
    }
    fields.boolean("parallel_tool_calls")?;
    fields.finish()?;
    Ok(request)
}

type Check = fn(&str, &Value) -> Result<(), ApiError>;

fn read_metadata(fields: &mut Fields<'_>) -> Result<Option<Value>, ApiError> {
    let path = fields.path_of("metadata");
    match fields.value("metadata") {
        None | Some(Value::Null) => Ok(None),
        Some(value @ Value::Object(map)) => {
            if map.len() > 16 {
                return Err(ApiError::invalid(&path, "at most 16 keys are allowed."));
            }
            for (key, value) in map {
                value
                    .as_str()
                    .ok_or_else(|| ApiError::wrong_type(&format!("{path}.{key}"), "a string", value))?;
            }
            Ok(Some(value.clone()))
        }
        Some(other) => Err(ApiError::wrong_type(&path, "an object", other)),
    }
}

fn read_input_item(path: String, value: &Value) -> Result<InputItem, ApiError> {
    let mut fields = Fields::of(value, path)?;
    if value.get("type").and_then(Value::as_str) != Some("item_reference") {
        return read_item(fields).map(InputItem::New);
    }
    fields.value("type");
    let id = fields.required_string("id")?.to_owned();
    fields.finish()?;
    Ok(InputItem::Reference(id))
}

fn read_item(mut fields: Fields<'_>) -> Result<NewItem, ApiError> {
    let id = fields.string("id")?.map(str::to_owned);
    if id.as_ref().is_some_and(|id| id.len() > ITEM_ID_CHARS) {
        return Err(too_long(&fields.path_of("id"), ITEM_ID_CHARS));
    }
    fields.one_of("object", &["realtime.item"])?;
    fields.one_of("status", &["completed", "incomplete", "in_progress"])?;
    let kind = match fields.required_one_of("type", ITEM_TYPES)? {
        "message" => read_message(&mut fields)?,
        "function_call" => ItemKind::FunctionCall {
            call_id: fields.string("call_id")?.unwrap_or_default().to_owned(),
            name: fields.required_string("name")?.to_owned(),
            arguments: fields.required_string("arguments")?.to_owned(),
        },
        "function_call_output" => ItemKind::FunctionCallOutput {
            call_id: fields.required_string("call_id")?.to_owned(),
            output: fields.required_string("output")?.to_owned(),
        },
        _ => {
            fields.required_string("approval_request_id")?;
            if fields.boolean("approve")?.is_none() {
                return Err(ApiError::missing(&fields.path_of("approve")));
            }
            fields.nullable_string("reason")?;
            ItemKind::McpApproval
        }
    };
    fields.finish()?;
    Ok(NewItem { id, kind })
}

fn read_message(fields: &mut Fields<'_>) -> Result<ItemKind, ApiError> {
    let role = match fields.required_one_of("role", &["user", "assistant", "system"])? {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => Role::System,
    };
    let list = fields.array("content")?.ok_or_else(|| ApiError::missing(&fields.path_of("content")))?;
    let parts = list.into_iter().map(|(path, value)| read_part(role, path, value));
    Ok(ItemKind::Message { role, parts: parts.collect::<Result<_, _>>()? })
}

fn read_part(role: Role, path: String, value: &Value) -> Result<Part, ApiError> {
    let mut fields = Fields::of(value, path)?;
    let allowed: &[&str] = match role {
        Role::User => &["input_text", "input_audio", "input_image"],
        Role::System => &["input_text"],
        Role::Assistant => &["output_text"],
    };
    let part = match fields.required_one_of("type", allowed)? {
        "input_text" => Part::InputText(fields.required_string("text")?.to_owned()),
        "output_text" => Part::OutputText(fields.required_string("text")?.to_owned()),
        "input_audio" => {
            let mut bytes = Vec::new();
            decode_base64(fields.required_string("audio")?, &mut bytes)?;
            let transcript = fields.string("transcript")?.map(str::to_owned);
            Part::InputAudio { samples: bytes.len() as u64 / 2, rate: 24_000, transcript, audio: None }
        }
        _ => {
            fields.required_string("image_url")?;
            fields.one_of("detail", &["auto", "low", "high"])?;
            Part::InputImage
        }
    };
    fields.finish()?;
    Ok(part)
}

const EVENTS: &[&str] = &[
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "output_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "conversation.item.delete",
    "response.create",
    "response.cancel",
];
const ITEM_TYPES: &[&str] = &["message", "function_call", "function_call_output", "mcp_approval_response"];
/// 15 MiB of base64 in one append.
const APPEND_BYTES: usize = 15 << 20;
const EVENT_ID_CHARS: usize = 512;
const ITEM_ID_CHARS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (&'static str, Option<String>) {
        let unreadable = parse(text).unwrap_err();
        (unreadable.error.code, unreadable.error.param)
    }

    #[test]
    fn a_plain_append_takes_the_fast_path() {
        let text = r#"{"event_id":"e1","type":"input_audio_buffer.append","audio":"AAAA"}"#;
        assert_eq!(append_audio(text), Some("AAAA"));
        let escaped = r#"{"type":"input_audio_buffer.append","audio":"\/\/8="}"#;
        assert_eq!(append_audio(escaped), None);
        assert_eq!(parse(escaped).unwrap().event, ClientEvent::Append(vec![255, 255]));
        assert_eq!(append_audio(r#"{"type":"input_audio_buffer.append","audio":"AAAA","x":1}"#), None);
        assert_eq!(append_audio(r#"{"type":"input_audio_buffer.commit"}"#), None);
    }

    #[test]
    fn every_mistake_is_named_with_its_path() {
        let at = |path: &str| Some(path.to_owned());
        assert_eq!(refused("{"), ("invalid_json", None));
        assert_eq!(refused("[]"), ("invalid_type", at("")));
        assert_eq!(refused("{}"), ("missing_required_parameter", at("type")));
        assert_eq!(refused(r#"{"type":"response.stop"}"#), ("invalid_value", at("type")));
        assert_eq!(
            refused(r#"{"type":"input_audio_buffer.append","audio":"AAAA","x":1}"#),
            ("unknown_parameter", at("x"))
        );
        assert_eq!(
            refused(r#"{"type":"input_audio_buffer.append","audio":"*"}"#),
            ("invalid_value", at("audio"))
        );
        assert_eq!(
            refused(r#"{"type":"input_audio_buffer.append"}"#),
            ("missing_required_parameter", at("audio"))
        );
        assert_eq!(
            refused(
                r#"{"type":"conversation.item.truncate","item_id":"a","content_index":0,"audio_end_ms":12.5}"#
            ),
            ("invalid_type", at("audio_end_ms"))
        );
        assert_eq!(
            refused(
                r#"{"type":"conversation.item.create","item":{"type":"function_call_output","call_id":"c","output":{}}}"#
            ),
            ("invalid_type", at("item.output"))
        );
        assert_eq!(
            refused(
                r#"{"type":"conversation.item.create","item":{"type":"message","role":"assistant","content":[{"type":"text","text":"a"}]}}"#
            ),
            ("invalid_value", at("item.content[0].type"))
        );
        assert_eq!(
            refused(r#"{"type":"response.create","response":{"modalities":["audio"]}}"#),
            ("unknown_parameter", at("response.modalities"))
        );
    }

    #[test]
    fn the_event_id_survives_a_mistake() {
        let unreadable = parse(r#"{"type":"response.create","event_id":"mine","oops":true}"#).unwrap_err();
        assert_eq!(unreadable.event_id.as_deref(), Some("mine"));
    }

    #[test]
    fn reads_what_a_response_may_override() {
        let text = r#"{"type":"response.create","response":{"conversation":"none","instructions":"Hi",
            "output_modalities":["text"],"metadata":{"k":"v"},"input":[{"type":"item_reference","id":"item_1"}]}}"#;
        let ClientEvent::ResponseCreate(request) = parse(text).unwrap().event else {
            panic!("another event")
        };
        assert!(request.out_of_band);
        assert_eq!(request.modality, Some(Modality::Text));
        assert_eq!(request.input, Some(vec![InputItem::Reference("item_1".into())]));
    }
}
