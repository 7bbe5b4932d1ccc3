//! The tools an assistant may call: what the model is shown, and what a call of it asks for.
//!
//! Pure: arguments come in as the model's text, a [`Request`] the call can act on comes out, or a
//! [`Refusal`] whose words let the model recover. Only tools the server can really run are listed.

use serde::Deserialize;
use serde_json::json;

use crate::provider::ToolSpec;

/// What a well-formed tool call asks of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Hang up once what is being said has been heard.
    EndCall {
        /// The model's reason, for the record.
        reason: String,
    },
    /// Press keys towards the far end.
    SendDtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`; upper case.
        digits: String,
    },
}

/// Why a tool call cannot be run, in words for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such tool, or not one of this assistant's.
    #[error("there is no tool named `{name}`; available: {available}")]
    Unknown {
        /// As the model wrote it, shortened.
        name: String,
        /// Names, comma separated.
        available: String,
    },
    /// The arguments are not JSON or do not fit.
    #[error("the arguments of `{tool}` are not usable: {cause}")]
    BadArguments {
        /// Which tool.
        tool: &'static str,
        /// What to mend.
        cause: String,
    },
}

/// The tools of one assistant.
#[derive(Debug, Clone)]
pub struct Toolbox {
    specs: std::sync::Arc<[ToolSpec]>,
}

impl Toolbox {
    /// The tools of these names. Names of tools this server does not have come back as the error.
    ///
    /// # Errors
    /// The unknown names, in order.
    pub fn of(names: &[String]) -> Result<Self, Vec<String>> {
        let unknown: Vec<String> = names.iter().filter(|name| spec(name).is_none()).cloned().collect();
        if unknown.is_empty() {
            Ok(Self { specs: names.iter().filter_map(|name| spec(name)).collect() })
        } else {
            Err(unknown)
        }
    }

    /// As shown to the model.
    pub fn specs(&self) -> std::sync::Arc<[ToolSpec]> {
        std::sync::Arc::clone(&self.specs)
    }

    /// What a call of `name` with `arguments` asks for.
    ///
    /// # Errors
    /// [`Refusal`] for a tool this assistant does not have, or arguments that do not fit its schema.
    pub fn interpret(&self, name: &str, arguments: &str) -> Result<Request, Refusal> {
        if !self.specs.iter().any(|spec| spec.name == name) {
            return Err(Refusal::Unknown {
                name: name.chars().filter(|c| !c.is_control()).take(64).collect(),
                available: self.specs.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", "),
            });
        }
        match name {
            SEND_DTMF => send_dtmf(arguments),
            _ => end_call(arguments),
        }
    }
}

/// The names of all tools of this server.
pub fn names() -> [&'static str; 2] {
    [END_CALL, SEND_DTMF]
}

fn spec(name: &str) -> Option<ToolSpec> {
    let (description, parameters) = match name {
        END_CALL => (
            "Ends the phone call. Say goodbye first; the call ends once your words have been heard.",
            json!({
                "type": "object",
                "properties": {"reason": {"type": "string", "description": "Why the call is over, in a few words"}},
                "additionalProperties": false
            }),
        ),
        SEND_DTMF => (
            "Presses keys on the phone towards the other side, for example to get through a menu.",
            json!({
                "type": "object",
                "properties": {"digits": {"type": "string", "description": "Keys in order: 0-9 * # A-D", "pattern": "^[0-9*#A-Da-d]{1,32}$"}},
                "required": ["digits"],
                "additionalProperties": false
            }),
        ),
        _ => return None,
    };
    Some(ToolSpec { name: name.to_owned(), description: description.to_owned(), parameters })
}

fn end_call(arguments: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Arguments {
        #[serde(default)]
        reason: Option<String>,
    }
    let arguments: Arguments = parse(END_CALL, arguments)?;
    let reason = arguments.reason.unwrap_or_else(|| "the conversation is over".to_owned());
    Ok(Request::EndCall { reason: reason.chars().take(200).collect() })
}

fn send_dtmf(arguments: &str) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Arguments {
        digits: String,
    }
    let digits = parse::<Arguments>(SEND_DTMF, arguments)?.digits.to_ascii_uppercase();
    let usable = |c: char| matches!(c, '0'..='9' | '*' | '#' | 'A'..='D');
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.chars().all(usable) {
        let cause = format!("`digits` must be 1 to {MAX_DIGITS} of 0-9 * # A-D");
        return Err(Refusal::BadArguments { tool: SEND_DTMF, cause });
    }
    Ok(Request::SendDtmf { digits })
}

fn parse<'a, T: Deserialize<'a>>(tool: &'static str, arguments: &'a str) -> Result<T, Refusal> {
    let text = if arguments.trim().is_empty() { "{}" } else { arguments };
    serde_json::from_str(text).map_err(|e| Refusal::BadArguments { tool, cause: e.to_string() })
}

const END_CALL: &str = "end_call";
const SEND_DTMF: &str = "send_dtmf";
const MAX_DIGITS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_call_needs_no_arguments() {
        assert_eq!(
            toolbox().interpret("end_call", ""),
            Ok(Request::EndCall { reason: "the conversation is over".to_owned() })
        );
    }

    #[test]
    fn digits_are_checked_and_upper_cased() {
        assert_eq!(
            toolbox().interpret("send_dtmf", r#"{"digits":"12a#"}"#),
            Ok(Request::SendDtmf { digits: "12A#".to_owned() })
        );
        for bad in [r#"{"digits":""}"#, r#"{"digits":"12x"}"#, "{}", "not json"] {
            let refusal = toolbox().interpret("send_dtmf", bad);
            assert!(matches!(refusal, Err(Refusal::BadArguments { .. })), "{bad}");
        }
    }

    #[test]
    fn an_unknown_tool_is_refused_in_words_that_name_the_known_ones() {
        let refusal = toolbox().interpret("transfer_call", "{}").expect_err("it is not there");
        assert_eq!(
            refusal.to_string(),
            "there is no tool named `transfer_call`; available: end_call, send_dtmf"
        );
    }

    #[test]
    fn an_assistant_has_only_the_tools_it_was_given() {
        let silent = Toolbox::of(&[]).expect("no names, no unknown ones");
        assert!(silent.interpret("end_call", "{}").is_err());
        let unknown = Toolbox::of(&["end_call".to_owned(), "fly".to_owned()]).expect_err("fly is unknown");
        assert_eq!(unknown, ["fly"]);
    }

    fn toolbox() -> Toolbox {
        Toolbox::of(&names().map(str::to_owned)).expect("all tools exist")
    }
}
