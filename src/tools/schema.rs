//! A tool's parameters as a JSON Schema: compiled once, and what is wrong with arguments in words for a model.

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

/// A compiled schema of arguments.
pub struct Schema(Validator);

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    /// Compiles a schema. Its patterns run in linear time, so that no text a model writes can keep a call waiting.
    ///
    /// # Errors
    /// In words: it is no schema of an object, or refers to another document.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        if schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err("the parameters are a JSON Schema with \"type\": \"object\"".to_owned());
        }
        if schema.to_string().len() > SCHEMA_MOST {
            return Err(format!("the parameters are larger than {SCHEMA_MOST} bytes"));
        }
        let patterns = PatternOptions::regex().size_limit(4 << 20).dfa_size_limit(4 << 20);
        jsonschema::options()
            .with_pattern_options(patterns)
            .should_validate_formats(true)
            .build(schema)
            .map(Self)
            .map_err(|error| shortened(&format!("the parameters are no JSON Schema: {error}")))
    }

    /// What is wrong with `arguments`, each with its place; empty: nothing.
    pub fn problems(&self, arguments: &Value) -> Vec<String> {
        let told = |error: jsonschema::ValidationError<'_>| {
            let place = error.instance_path().to_string();
            let place =
                if place.is_empty() { "the arguments".to_owned() } else { format!("`{}`", &place[1..]) };
            shortened(&format!("{place}: {error}"))
        };
        self.0.iter_errors(arguments).take(PROBLEMS_MOST).map(told).collect()
    }
}

/// The arguments in a model's text; none at all are an empty object.
///
/// # Errors
/// In words for the model.
pub fn parse(text: &str) -> Result<Value, String> {
    if text.len() > ARGUMENTS_MOST {
        return Err(format!("the arguments have {} bytes; {ARGUMENTS_MOST} at most", text.len()));
    }
    let text = if text.trim().is_empty() { "{}" } else { text };
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(_) => Err("the arguments must be one JSON object".to_owned()),
        Err(error) => Err(format!("the arguments are not JSON: {error}")),
    }
}

/// A schema as a model sees it: without what is ours alone.
pub fn shown(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let members = members.iter().filter(|(name, _)| !matches!(name.as_str(), SENSITIVE | "$schema"));
            Value::Object(members.map(|(name, value)| (name.clone(), shown(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(shown).collect()),
        other => other.clone(),
    }
}

/// What a model is told of a call that cannot be run.
pub fn refusal(message: &str, problems: &[String]) -> String {
    match problems {
        [] => json!({"error": message}).to_string(),
        problems => json!({"error": message, "problems": problems}).to_string(),
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(PROBLEM_LENGTH).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Marks a property whose value is never shown.
pub const SENSITIVE: &str = "x-sensitive";
/// Bytes of a tool call's arguments.
const ARGUMENTS_MOST: usize = 32 << 10;
const SCHEMA_MOST: usize = 64 << 10;
/// Faults told at a time.
const PROBLEMS_MOST: usize = 8;
/// Characters of one fault.
const PROBLEM_LENGTH: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_names_the_field_and_what_is_expected() {
        let schema = Schema::compile(&json!({
            "type": "object",
            "properties": {"to": {"type": "string", "enum": ["sales", "support"]}, "count": {"type": "integer"}},
            "required": ["to"],
            "additionalProperties": false
        }))
        .unwrap();
        assert!(schema.problems(&json!({"to": "sales"})).is_empty());
        let wrong = schema.problems(&json!({"to": "moon", "count": "two", "x": 1})).join("\n");
        for word in ["`to`", "support", "`count`", "integer", "'x'"] {
            assert!(wrong.contains(word), "{word} in {wrong}");
        }
        assert!(schema.problems(&json!({}))[0].contains("\"to\" is a required property"));
    }

    #[test]
    fn what_is_no_schema_of_an_object_is_refused() {
        for bad in [json!({}), json!({"type": "string"}), json!({"type": "object", "properties": 4})] {
            assert!(Schema::compile(&bad).is_err(), "{bad}");
        }
        // Would need backtracking.
        let lookaround =
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)y"}}});
        assert!(Schema::compile(&lookaround).is_err());
    }

    #[test]
    fn arguments_are_one_object() {
        assert_eq!(parse(""), Ok(json!({})));
        assert_eq!(parse("null"), Ok(json!({})));
        for bad in ["[]", "4", "{", "not json", &format!("{{\"a\":\"{}\"}}", "x".repeat(40_000))] {
            assert!(parse(bad).is_err());
        }
    }

    #[test]
    fn marks_of_ours_are_not_shown_to_a_model() {
        let schema =
            json!({"type": "object", "properties": {"pin": {"type": "string", "x-sensitive": true}}});
        assert_eq!(shown(&schema), json!({"type": "object", "properties": {"pin": {"type": "string"}}}));
    }
}
