//! Our tools in the service's words, and the tool calls that are open.
//!
//! The conversation stands still while a tool runs, and the service waits only for a set time. A result that
//! does not come in that time is announced, and brought as a text when it is there.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::provider::ToolSpec;

/// `selectedTools[]`: a tool of this call only, run by us.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SelectedTool<'a> {
    temporary_tool: TemporaryTool<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TemporaryTool<'a> {
    model_tool_name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dynamic_parameters: Vec<Parameter<'a>>,
    timeout: &'a str,
    client: Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct Parameter<'a> {
    name: &'a str,
    location: &'static str,
    schema: Value,
    required: bool,
}

/// The tools the service can take, each under a name of its own. `timeout` is in its notation.
pub fn selected<'a>(tools: &'a [ToolSpec], timeout: &'a str) -> Vec<SelectedTool<'a>> {
    let mut taken: Vec<&str> = Vec::new();
    let mut selected = Vec::new();
    for tool in tools.iter().filter(|tool| is_name(&tool.name)) {
        if taken.contains(&tool.name.as_str()) {
            continue;
        }
        taken.push(&tool.name);
        selected.push(SelectedTool {
            temporary_tool: TemporaryTool {
                model_tool_name: &tool.name,
                description: &tool.description,
                dynamic_parameters: parameters(&tool.parameters),
                timeout,
                client: Map::new(),
            },
        });
    }
    selected
}

/// `^[a-zA-Z0-9_-]{1,64}$`
fn is_name(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

fn parameters(schema: &Value) -> Vec<Parameter<'_>> {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let mut budget = MOST_PARTS;
    properties
        .map(|(name, property)| Parameter {
            name,
            location: "PARAMETER_LOCATION_BODY",
            schema: standing_alone(property, schema, 0, &mut budget),
            required: required.contains(&name.as_str()),
        })
        .collect()
}

/// A part of a schema without references into the whole: the service takes each parameter by itself.
fn standing_alone(part: &Value, whole: &Value, depth: usize, budget: &mut u32) -> Value {
    if depth > DEEPEST || *budget == 0 {
        // Whatever is below may be anything; the arguments are checked here anyway.
        return Value::Object(Map::new());
    }
    *budget -= 1;
    match part {
        Value::Object(fields) => {
            let target = fields.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
            if let Some(found) = target.and_then(|path| whole.pointer(path)) {
                return standing_alone(found, whole, depth + 1, budget);
            }
            let mut shown = Map::new();
            for (name, field) in fields.iter().filter(|(name, _)| *name != "$ref") {
                shown.insert(name.clone(), standing_alone(field, whole, depth + 1, budget));
            }
            Value::Object(shown)
        }
        Value::Array(parts) => {
            parts.iter().map(|part| standing_alone(part, whole, depth + 1, budget)).collect()
        }
        plain => plain.clone(),
    }
}

/// The tool calls of one session.
#[derive(Debug, Default)]
pub struct OpenTools {
    open: VecDeque<OpenTool>,
}

#[derive(Debug)]
struct OpenTool {
    id: String,
    name: String,
    asked_ms: u64,
    announced: bool,
}

/// What becomes of a result.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The service waits for it. The tool's name.
    InTime(String),
    /// The service has been told that it will come later. The tool's name.
    Late(String),
    /// No such call is open.
    Unknown,
}

impl OpenTools {
    /// The model has called a tool. `false`: the call is known already, or there are too many.
    pub fn asked(&mut self, id: &str, name: &str, now_ms: u64) -> bool {
        if self.open.len() >= MOST_OPEN || self.open.iter().any(|tool| tool.id == id) {
            return false;
        }
        let (id, name) = (id.to_owned(), name.to_owned());
        self.open.push_back(OpenTool { id, name, asked_ms: now_ms, announced: false });
        true
    }

    /// Its result is there.
    pub fn answered(&mut self, id: &str) -> Answer {
        let Some(index) = self.open.iter().position(|tool| tool.id == id) else { return Answer::Unknown };
        match self.open.remove(index) {
            Some(tool) if tool.announced => Answer::Late(tool.name),
            Some(tool) => Answer::InTime(tool.name),
            None => Answer::Unknown,
        }
    }

    /// A call whose result has not come within `limit_ms` and must be announced now.
    pub fn overdue(&mut self, now_ms: u64, limit_ms: u64) -> Option<String> {
        let late = |tool: &&mut OpenTool| !tool.announced && now_ms.saturating_sub(tool.asked_ms) >= limit_ms;
        let tool = self.open.iter_mut().find(late)?;
        tool.announced = true;
        Some(tool.id.clone())
    }

    /// Whether the conversation stands still for a tool.
    pub fn is_waiting(&self) -> bool {
        self.open.iter().any(|tool| !tool.announced)
    }
}

/// Levels of a parameter's schema that are shown.
const DEEPEST: usize = 24;
/// Parts of a tool's schema that are shown: references to themselves can grow without end.
const MOST_PARTS: u32 = 5000;
/// Tool calls that may be open at a time.
const MOST_OPEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(name: &str, parameters: Value) -> ToolSpec {
        ToolSpec { name: name.into(), description: "Does it.".into(), parameters }
    }

    #[test]
    fn a_tool_has_the_shape_of_a_temporary_client_tool() {
        let tools = [tool(
            "send_dtmf",
            json!({"type": "object", "required": ["digits"], "properties": {
                "digits": {"type": "string", "description": "Keys."}, "slow": {"type": "boolean"}}}),
        )];
        assert_eq!(
            serde_json::to_value(selected(&tools, "5s")).unwrap(),
            json!([{"temporaryTool": {
                "modelToolName": "send_dtmf", "description": "Does it.", "timeout": "5s", "client": {},
                "dynamicParameters": [
                    {"name": "digits", "location": "PARAMETER_LOCATION_BODY", "required": true,
                     "schema": {"type": "string", "description": "Keys."}},
                    {"name": "slow", "location": "PARAMETER_LOCATION_BODY", "required": false,
                     "schema": {"type": "boolean"}},
                ],
            }}])
        );
    }

    #[test]
    fn names_the_service_would_refuse_are_left_out() {
        let tools = ["a", "a", "b.c", "", &"x".repeat(65), "D-9_z"].map(|name| tool(name, json!({})));
        let shown = serde_json::to_value(selected(&tools, "5s")).unwrap();
        let names: Vec<_> =
            shown.as_array().unwrap().iter().map(|t| &t["temporaryTool"]["modelToolName"]).collect();
        assert_eq!(names, ["a", "D-9_z"]);
        assert!(shown[0]["temporaryTool"].get("dynamicParameters").is_none());
    }

    #[test]
    fn references_are_written_out_and_endless_ones_end() {
        let tools = [tool(
            "t",
            json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/kind"}, "b": {"$ref": "#/$defs/self"}},
                   "$defs": {"kind": {"enum": ["x", "y"]}, "self": {"properties": {"me": {"$ref": "#/$defs/self"}}}}}),
        )];
        let text = serde_json::to_string(&selected(&tools, "5s")).unwrap();
        assert!(text.contains(r#""schema":{"enum":["x","y"]}"#) && !text.contains("$ref"), "{text}");
    }

    #[test]
    fn a_slow_result_is_announced_once_and_comes_late() {
        let mut tools = OpenTools::default();
        assert!(tools.asked("1", "slow", 1000) && !tools.asked("1", "slow", 1000));
        assert_eq!(tools.overdue(4999, 4000), None);
        assert!(tools.is_waiting());
        assert_eq!(tools.overdue(5000, 4000).as_deref(), Some("1"));
        assert_eq!((tools.overdue(9000, 4000), tools.is_waiting()), (None, false));
        assert_eq!(tools.answered("1"), Answer::Late("slow".into()));
        assert_eq!(tools.answered("1"), Answer::Unknown);
        assert!(tools.asked("2", "fast", 9000));
        assert_eq!(tools.answered("2"), Answer::InTime("fast".into()));
    }
}
