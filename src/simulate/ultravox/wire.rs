//! Data messages of the client: every field by name, type and value.

use serde_json::Value;

use super::create::{InitialMessage, read_initial};
use super::tools::{Tool, read_tools};
use crate::simulate::error::ApiError;
use crate::simulate::fields::Fields;

/// A data message.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// Words of the caller that were not spoken.
    UserText {
        /// The words.
        text: String,
        /// How soon they count.
        urgency: Urgency,
    },
    /// Whether the agent writes from now on.
    OutputMedium {
        /// Text in place of voice.
        text: bool,
    },
    /// The answer to a tool call.
    ToolResult(Box<ToolResult>),
    /// Words the agent must say.
    ForcedAgent(Forced),
    /// The end of the call.
    HangUp {
        /// What the agent says before.
        message: Option<String>,
    },
    /// Is anybody there?
    Ping {
        /// Comes back as it is.
        timestamp: Value,
    },
}

/// How soon injected words count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Now, interrupting what is said.
    Immediate,
    /// At the next chance.
    Soon,
    /// Only as context.
    Later,
}

/// Words the agent must say.
#[derive(Debug, Clone, PartialEq)]
pub struct Forced {
    /// The words.
    pub content: String,
    /// Tools to call afterwards: name and arguments.
    pub tool_calls: Vec<(String, Value)>,
    /// Whether the caller cannot cut it.
    pub uninterruptible: bool,
    /// Whether it cuts what is said at the moment.
    pub immediate: bool,
}

/// The answer to a tool call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// Which call.
    pub invocation_id: String,
    /// Text for the model; `None` for an error.
    pub result: Option<String>,
    /// `undefined` or `implementation-error`.
    pub error: Option<String>,
    /// Whether the agent speaks about it.
    pub speaks: bool,
    /// What follows.
    pub then: AfterTool,
}

/// What follows a tool's result.
#[derive(Debug, Clone, PartialEq)]
pub enum AfterTool {
    /// The conversation.
    GoOn,
    /// The end.
    HangUp,
    /// The conversation with other settings.
    NewStage(Box<Stage>),
}

/// What a new stage changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stage {
    /// As given.
    pub given: Value,
    /// The system prompt.
    pub system_prompt: Option<String>,
    /// BCP 47.
    pub language_hint: Option<String>,
    /// Messages before the stage.
    pub initial_messages: Option<Vec<InitialMessage>>,
    /// What the model can call.
    pub tools: Option<Vec<Tool>>,
    /// In place of the tool's result.
    pub result_text: Option<String>,
}

/// A message that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The type it says it has.
    pub kind: Option<String>,
    /// What is wrong.
    pub error: ApiError,
}

/// Reads a text frame.
///
/// # Errors
/// What is not as documented.
pub fn parse(text: &str) -> Result<ClientMessage, Unreadable> {
    let value: Value = serde_json::from_str(text).map_err(|error| Unreadable {
        kind: None,
        error: ApiError::new("invalid_json", format!("no JSON: {error}")),
    })?;
    read(&value).map_err(|error| {
        let kind = value["type"].as_str().map(|kind| kind.chars().take(60).collect());
        Unreadable { kind, error }
    })
}

/// Reads a data message, from the socket or from `send_data_message`.
///
/// # Errors
/// What is not as documented.
pub fn read(value: &Value) -> Result<ClientMessage, ApiError> {
    let mut fields = Fields::of(value, "")?;
    let message = match fields.required_one_of("type", &TYPES)? {
        "user_text_message" => ClientMessage::UserText {
            text: fields.required_string("text")?.to_owned(),
            urgency: match fields.one_of("urgency", &["immediate", "soon", "later"])? {
                Some("immediate") => Urgency::Immediate,
                Some("later") => Urgency::Later,
                _ => Urgency::Soon,
            },
        },
        "input_text_message" => ClientMessage::UserText {
            text: fields.required_string("text")?.to_owned(),
            urgency: match fields.boolean("deferResponse")? {
                Some(true) => Urgency::Later,
                _ => Urgency::Soon,
            },
        },
        "set_output_medium" => {
            let text = fields.required_one_of("medium", &["voice", "text"])? == "text";
            ClientMessage::OutputMedium { text }
        }
        "client_tool_result" => ClientMessage::ToolResult(Box::new(read_result(&mut fields)?)),
        "forced_agent_message" => ClientMessage::ForcedAgent(read_forced(&mut fields)?),
        "hang_up" => ClientMessage::HangUp { message: fields.nullable_string("message")?.map(str::to_owned) },
        _ => {
            let timestamp = fields.value("timestamp").cloned().unwrap_or(Value::Null);
            if !timestamp.is_number() {
                return Err(ApiError::wrong_type("timestamp", "a number", &timestamp));
            }
            ClientMessage::Ping { timestamp }
        }
    };
    fields.finish()?;
    Ok(message)
}

fn read_forced(fields: &mut Fields<'_>) -> Result<Forced, ApiError> {
    let mut tool_calls = Vec::new();
    for (path, value) in fields.array("toolCalls")?.unwrap_or_default() {
        let mut call = Fields::of(value, path)?;
        call.nullable_string("id")?;
        let name = call.required_string("name")?.to_owned();
        tool_calls.push((name, call.value("arguments").cloned().unwrap_or(Value::Null)));
        call.finish()?;
    }
    let content = fields.nullable_string("content")?.unwrap_or_default().to_owned();
    if content.is_empty() && tool_calls.is_empty() {
        return Err(ApiError::missing("content"));
    }
    Ok(Forced {
        content,
        tool_calls,
        uninterruptible: fields.boolean("uninterruptible")?.unwrap_or(false),
        immediate: fields.one_of("urgency", &["immediate", "soon"])? == Some("immediate"),
    })
}

fn read_result(fields: &mut Fields<'_>) -> Result<ToolResult, ApiError> {
    let invocation_id = fields.required_string("invocationId")?.to_owned();
    let result = fields.nullable_string("result")?.map(str::to_owned);
    let error = fields.one_of("errorType", &["undefined", "implementation-error"])?.map(str::to_owned);
    fields.nullable_string("errorMessage")?;
    fields.object("updateCallState")?;
    let speaks = fields.one_of("agentReaction", &["speaks", "listens", "speaks-once"])? != Some("listens");
    let kind = fields.one_of("responseType", &["tool-response", "hang-up", "new-stage"])?;
    match (&result, &error) {
        (None, None) => return Err(ApiError::missing("result")),
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("result", "it cannot be given together with errorType."));
        }
        _ => {}
    }
    let then = match kind {
        Some("hang-up") => AfterTool::HangUp,
        Some("new-stage") => {
            let text = result.as_deref().ok_or_else(|| ApiError::missing("result"))?;
            AfterTool::NewStage(Box::new(read_stage(text)?))
        }
        _ => AfterTool::GoOn,
    };
    Ok(ToolResult { invocation_id, result, error, speaks, then })
}

/// The settings of a new stage, which are the JSON text of a result.
fn read_stage(text: &str) -> Result<Stage, ApiError> {
    let given: Value = serde_json::from_str(text)
        .map_err(|error| ApiError::invalid("result", &format!("a new stage is a JSON object: {error}")))?;
    let mut fields = Fields::of(&given, "result")?;
    let mut stage = Stage {
        system_prompt: fields.nullable_string("systemPrompt")?.map(str::to_owned),
        language_hint: fields.nullable_string("languageHint")?.map(str::to_owned),
        result_text: fields.nullable_string("toolResultText")?.map(str::to_owned),
        ..Stage::default()
    };
    fields.number("temperature", 0.0, 1.0)?;
    fields.nullable_string("voice")?;
    if fields.value("initialMessages").is_some() {
        stage.initial_messages = Some(read_initial(&mut fields)?);
    }
    if fields.value("selectedTools").is_some() {
        stage.tools = Some(read_tools(&mut fields)?);
    }
    fields.finish()?;
    stage.given = given;
    Ok(stage)
}

const TYPES: [&str; 7] = [
    "user_text_message",
    "input_text_message",
    "set_output_medium",
    "client_tool_result",
    "forced_agent_message",
    "hang_up",
    "ping",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read() {
        let text = r#"{"type":"user_text_message","text":"5","urgency":"immediate"}"#;
        let read = ClientMessage::UserText { text: "5".into(), urgency: Urgency::Immediate };
        assert_eq!(parse(text), Ok(read));
        let text = r#"{"type":"client_tool_result","invocationId":"i","responseType":"new-stage",
                       "result":"{\"languageHint\":\"de\",\"toolResultText\":\"ok\"}"}"#;
        let Ok(ClientMessage::ToolResult(result)) = parse(text) else { panic!("a result") };
        let AfterTool::NewStage(stage) = result.then else { panic!("a stage") };
        assert_eq!(stage.language_hint.as_deref(), Some("de"));
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("{", None, "invalid_json"),
            (r#"{"type":"session.update"}"#, Some("type"), "invalid_value"),
            (r#"{"type":"ping"}"#, Some("timestamp"), "invalid_type"),
            (r#"{"type":"user_text_message","text":"a","urgent":true}"#, Some("urgent"), "unknown_parameter"),
            (
                r#"{"type":"client_tool_result","invocationId":"i","result":{"a":1}}"#,
                Some("result"),
                "invalid_type",
            ),
            (
                r#"{"type":"client_tool_result","invocationId":"i","responseType":"new-stage",
                    "result":"{\"model\":\"x\"}"}"#,
                Some("result.model"),
                "unknown_parameter",
            ),
            (
                r#"{"type":"client_tool_result","invocationId":"i"}"#,
                Some("result"),
                "missing_required_parameter",
            ),
        ];
        for (text, param, code) in cases {
            let error = parse(text).unwrap_err().error;
            assert_eq!((error.param.as_deref(), error.code), (param, code), "{text}");
        }
    }
}
