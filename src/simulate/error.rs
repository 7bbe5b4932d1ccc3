//! What a simulated service answers to something of its client that it does not accept.

use serde_json::{Value, json};

/// The body of an `error` event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// `invalid_request_error` or `server_error`.
    pub kind: &'static str,
    /// Stable name of the error.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Path of the offending field, such as `session.audio.input.format.rate`.
    pub param: Option<String>,
}

impl ApiError {
    /// An `invalid_request_error` about no field in particular.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { kind: "invalid_request_error", code, message: message.into(), param: None }
    }

    /// The same error, about the field at `path`.
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.param = Some(path.into());
        self
    }

    /// A field that does not exist.
    pub fn unknown(path: &str) -> Self {
        Self::new("unknown_parameter", format!("Unknown parameter: '{path}'.")).at(path)
    }

    /// A field that must be there.
    pub fn missing(path: &str) -> Self {
        Self::new("missing_required_parameter", format!("Missing required parameter: '{path}'.")).at(path)
    }

    /// A field of the wrong JSON type.
    pub fn wrong_type(path: &str, expected: &str, got: &Value) -> Self {
        let got = match got {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(n) if n.is_f64() => "a decimal number",
            Value::Number(_) => "an integer",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        let message = format!("Invalid type for '{path}': expected {expected}, but got {got} instead.");
        Self::new("invalid_type", message).at(path)
    }

    /// A text that is none of the `allowed` ones.
    pub fn not_one_of(path: &str, got: &str, allowed: &[&str]) -> Self {
        let got: String = got.chars().take(80).collect();
        let message = format!("Invalid value: '{got}'. Supported values are: {}.", listed(allowed));
        Self::new("invalid_value", message).at(path)
    }

    /// A value that is of the right type and still not acceptable.
    pub fn invalid(path: &str, why: &str) -> Self {
        Self::new("invalid_value", format!("Invalid '{path}': {why}")).at(path)
    }

    /// The `error` member of the event.
    pub fn to_json(&self, event_id: Option<&str>) -> Value {
        json!({
            "type": self.kind,
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "event_id": event_id,
        })
    }
}

fn listed(allowed: &[&str]) -> String {
    match allowed {
        [] => String::new(),
        [one] => format!("'{one}'"),
        [first, last] => format!("'{first}' and '{last}'"),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(|a| format!("'{a}'")).collect();
            format!("{}, and '{last}'", most.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field_and_the_remedy() {
        let error = ApiError::not_one_of("type", "x", &["a", "b", "c"]);
        assert_eq!(error.message, "Invalid value: 'x'. Supported values are: 'a', 'b', and 'c'.");
        assert_eq!(error.to_json(Some("e1"))["event_id"], "e1");
        let error = ApiError::wrong_type("item_id", "a string", &json!(1));
        assert_eq!(
            error.message,
            "Invalid type for 'item_id': expected a string, but got an integer instead."
        );
    }
}
