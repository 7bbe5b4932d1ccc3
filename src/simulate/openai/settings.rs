//! Reading and checking of single settings, those of the session and those a response may override.

use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, integer};

/// `"inf"` or a number.
pub fn max_tokens_json(max: Option<u32>) -> Value {
    max.map_or_else(|| "inf".into(), Value::from)
}

/// Reads `max_output_tokens`: 1..=4096 or `"inf"`.
pub fn read_max_tokens(fields: &mut Fields<'_>) -> Result<Option<Option<u32>>, ApiError> {
    let path = fields.path_of("max_output_tokens");
    match fields.value("max_output_tokens") {
        None => Ok(None),
        Some(Value::String(text)) if text == "inf" => Ok(Some(None)),
        Some(Value::String(text)) => Err(ApiError::not_one_of(&path, text, &["inf"])),
        Some(value) => {
            let tokens = integer(&path, value, 1, 4_096)?;
            Ok(Some(u32::try_from(tokens).ok()))
        }
    }
}

/// Reads `voice`: a known name or `{"id": "voice_…"}`.
pub fn read_voice(fields: &mut Fields<'_>) -> Result<Option<Value>, ApiError> {
    let path = fields.path_of("voice");
    match fields.value("voice") {
        None => Ok(None),
        Some(Value::String(name)) if VOICES.contains(&name.as_str()) => Ok(Some(name.as_str().into())),
        Some(Value::String(name)) => Err(ApiError::not_one_of(&path, name, VOICES)),
        Some(value) => {
            let mut custom = Fields::of(value, path)?;
            custom.required_string("id")?;
            custom.finish()?;
            Ok(Some(value.clone()))
        }
    }
}

/// Reads `tools`: functions by name, description and schema; MCP servers by label.
pub fn read_tools(fields: &mut Fields<'_>) -> Result<Option<Vec<Value>>, ApiError> {
    let Some(list) = fields.array("tools")? else { return Ok(None) };
    let mut tools = Vec::with_capacity(list.len());
    for (path, value) in list {
        let mut tool = Fields::of(value, path)?;
        match tool.required_one_of("type", &["function", "mcp"])? {
            "function" => {
                let name = tool.required_string("name")?;
                check_name(&tool.path_of("name"), name)?;
                tool.string("description")?;
                if let Some(schema) = tool.value("parameters") {
                    Fields::of(schema, tool.path_of("parameters"))?;
                }
            }
            _ => {
                tool.required_string("server_label")?;
                for known in MCP_FIELDS {
                    tool.value(known);
                }
            }
        }
        tool.finish()?;
        tools.push(value.clone());
    }
    Ok(Some(tools))
}

/// Reads `tool_choice`: a mode, or one tool.
pub fn read_tool_choice(fields: &mut Fields<'_>) -> Result<Option<Value>, ApiError> {
    let path = fields.path_of("tool_choice");
    match fields.value("tool_choice") {
        None => Ok(None),
        Some(value @ Value::String(mode)) => match mode.as_str() {
            "auto" | "none" | "required" => Ok(Some(value.clone())),
            other => Err(ApiError::not_one_of(&path, other, &["none", "auto", "required"])),
        },
        Some(value) => {
            let mut choice = Fields::of(value, path)?;
            match choice.required_one_of("type", &["function", "mcp"])? {
                "function" => {
                    choice.required_string("name")?;
                }
                _ => {
                    choice.required_string("server_label")?;
                    choice.string("name")?;
                }
            }
            choice.finish()?;
            Ok(Some(value.clone()))
        }
    }
}

/// Checks a `reasoning` member.
pub fn check_reasoning(path: &str, value: &Value) -> Result<(), ApiError> {
    if value.is_null() {
        return Ok(());
    }
    let mut reasoning = Fields::of(value, path)?;
    reasoning.one_of("effort", &["minimal", "low", "medium", "high", "xhigh"])?;
    reasoning.finish()
}

/// Checks a `prompt` member.
pub fn check_prompt(path: &str, value: &Value) -> Result<(), ApiError> {
    if value.is_null() {
        return Ok(());
    }
    let mut prompt = Fields::of(value, path)?;
    prompt.required_string("id")?;
    prompt.nullable_string("version")?;
    prompt.object("variables")?;
    prompt.finish()
}

/// Checks a `transcription` member.
pub fn check_transcription(mut fields: Fields<'_>) -> Result<(), ApiError> {
    fields.one_of("model", TRANSCRIPTION_MODELS)?;
    fields.string("language")?;
    fields.string("prompt")?;
    for name in ["languages", "keywords"] {
        for (path, value) in fields.array(name)?.unwrap_or_default() {
            value.as_str().ok_or_else(|| ApiError::wrong_type(&path, "a string", value))?;
        }
    }
    fields.value("delay");
    fields.finish()
}

/// Checks a `truncation` member.
pub fn check_truncation(path: &str, value: &Value) -> Result<(), ApiError> {
    match value {
        Value::String(mode) if matches!(mode.as_str(), "auto" | "disabled") => Ok(()),
        Value::String(mode) => Err(ApiError::not_one_of(path, mode, &["auto", "disabled"])),
        value => {
            let mut ratio = Fields::of(value, path)?;
            ratio.required_one_of("type", &["retention_ratio"])?;
            if ratio.number("retention_ratio", 0.0, 1.0)?.is_none() {
                return Err(ApiError::missing(&ratio.path_of("retention_ratio")));
            }
            if let Some(mut limits) = ratio.object("token_limits")? {
                limits.integer("post_instructions", 0, i64::MAX)?;
                limits.finish()?;
            }
            ratio.finish()
        }
    }
}

/// Checks a `tracing` member.
pub fn check_tracing(path: &str, value: &Value) -> Result<(), ApiError> {
    match value {
        Value::Null => Ok(()),
        Value::String(mode) if mode == "auto" => Ok(()),
        Value::String(mode) => Err(ApiError::not_one_of(path, mode, &["auto"])),
        value => {
            let mut tracing = Fields::of(value, path)?;
            tracing.string("workflow_name")?;
            tracing.string("group_id")?;
            tracing.object("metadata")?;
            tracing.finish()
        }
    }
}

/// Checks a `include` member.
pub fn check_include(path: &str, value: &Value) -> Result<(), ApiError> {
    let list = match value {
        Value::Null => return Ok(()),
        Value::Array(list) => list,
        other => return Err(ApiError::wrong_type(path, "an array", other)),
    };
    for (index, value) in list.iter().enumerate() {
        if value != "item.input_audio_transcription.logprobs" {
            let got = value.as_str().unwrap_or_default();
            let path = format!("{path}[{index}]");
            return Err(ApiError::not_one_of(&path, got, &["item.input_audio_transcription.logprobs"]));
        }
    }
    Ok(())
}

fn check_name(path: &str, name: &str) -> Result<(), ApiError> {
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if fits {
        return Ok(());
    }
    let why = "string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.";
    Err(ApiError::invalid(path, why))
}

const VOICES: &[&str] =
    &["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"];
const TRANSCRIPTION_MODELS: &[&str] = &[
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
];
const MCP_FIELDS: [&str; 9] = [
    "server_url",
    "connector_id",
    "tunnel_id",
    "authorization",
    "headers",
    "allowed_tools",
    "require_approval",
    "server_description",
    "defer_loading",
];
