//! What the simulated model says and does, turn by turn.
//!
//! ```toml
//! speech = "tone:440"              # how it sounds unless a turn says otherwise
//! hears = ["I need a table"]       # transcripts of the caller's turns, in order, the last one repeated
//! restart = false                  # after the last turn: begin again, or repeat the last one
//!
//! [[turn]]
//! say = "Good morning."
//! duration_ms = 2000               # for tone and sweep
//!
//! [[turn]]
//! say = "One moment, I will look."
//! tool = { name = "lookup", arguments = { table = 4 } }
//!
//! [[turn]]
//! fail = "server_error"            # response.done with status failed
//! ```

use serde::Deserialize;
use serde_json::Value;

use super::speech::Speech;

/// A whole script. Each response takes the next turn.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// How the assistant sounds; absent: the simulator's setting.
    #[serde(default)]
    pub speech: Option<Speech>,
    /// Transcripts of the caller's turns, in order; the last one is repeated.
    #[serde(default)]
    pub hears: Vec<String>,
    /// Begin again after the last turn.
    #[serde(default)]
    pub restart: bool,
    /// At least one.
    #[serde(rename = "turn")]
    pub turns: Vec<Turn>,
}

/// One response.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// What is said, before any tool call.
    #[serde(default)]
    pub say: Option<String>,
    /// How it sounds.
    #[serde(default)]
    pub speech: Option<Speech>,
    /// Length of a tone or sweep, most of a voice or WAV file.
    #[serde(default)]
    pub duration_ms: Option<u32>,
    /// Time to the first output.
    #[serde(default)]
    pub latency_ms: Option<u32>,
    /// A tool to call.
    #[serde(default)]
    pub tool: Option<ToolCall>,
    /// More tools to call in the same response.
    #[serde(default)]
    pub tools: Vec<ToolCall>,
    /// Fail with this error code.
    #[serde(default)]
    pub fail: Option<String>,
}

/// A function call of the model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Function name, offered by the client or not.
    pub name: String,
    /// A table; or a text that is sent as it stands, valid JSON or not.
    #[serde(default)]
    pub arguments: Value,
}

impl ToolCall {
    /// The arguments as the model writes them.
    pub fn arguments_text(&self) -> String {
        match &self.arguments {
            Value::Null => "{}".to_owned(),
            Value::String(text) => text.clone(),
            value => value.to_string(),
        }
    }
}

impl Script {
    /// Greets, then answers each turn of the caller for as long as the simulator is set to.
    pub fn builtin() -> Self {
        let say = |text: &str| Turn { say: Some(text.to_owned()), ..Turn::default() };
        Self {
            speech: None,
            hears: Vec::new(),
            restart: false,
            turns: vec![
                say("Hello, this is the simulated assistant. How can I help you?"),
                say("This is the simulated answer to what you just said, long enough to be interrupted."),
            ],
        }
    }

    /// Reads a script file's text.
    ///
    /// # Errors
    /// What is wrong with it, with the line.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let script: Self = toml::from_str(text)?;
        if script.turns.is_empty() {
            return Err(ScriptError::Empty);
        }
        Ok(script)
    }

    /// The turn of the `n`th response, counted from 0.
    pub fn turn(&self, n: usize) -> &Turn {
        let last = self.turns.len() - 1;
        &self.turns[if self.restart { n % self.turns.len() } else { n.min(last) }]
    }

    /// The words of the caller's `n`th turn, counted from 0.
    pub fn hears(&self, n: usize) -> String {
        match self.hears.len() {
            0 => format!("simulated words of caller turn {}", n + 1),
            count => self.hears[n.min(count - 1)].clone(),
        }
    }

    /// Every way of sounding that occurs.
    pub fn speeches(&self) -> impl Iterator<Item = &Speech> {
        self.speech.iter().chain(self.turns.iter().filter_map(|turn| turn.speech.as_ref()))
    }
}

/// The text between `<<<` and `>>>`, or else between the first and the last double quote.
pub fn quoted_text(instructions: &str) -> Option<&str> {
    let between = |open, close| {
        let (_, rest) = instructions.split_once(open)?;
        rest.rsplit_once(close).map(|(quoted, _)| quoted.trim())
    };
    between("<<<", ">>>").or_else(|| between("\"", "\"")).filter(|quoted| !quoted.is_empty())
}

/// A script that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Not TOML, or keys that do not exist.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// No `[[turn]]`.
    #[error("the script has no turn; add at least one [[turn]] with `say = \"…\"`")]
    Empty,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_taken_in_order_and_the_last_repeats() {
        let script = Script::parse(
            "hears = [\"a table\"]\n[[turn]]\nsay = \"one\"\n[[turn]]\nspeech = \"tone:440\"\n\
             tool = { name = \"lookup\", arguments = { table = 4 } }",
        )
        .unwrap();
        assert_eq!(script.turn(0).say.as_deref(), Some("one"));
        assert_eq!(script.turn(7).tool.as_ref().unwrap().arguments_text(), r#"{"table":4}"#);
        assert_eq!(script.hears(3), "a table");
    }

    #[test]
    fn a_misspelt_key_and_an_empty_script_are_errors() {
        assert!(Script::parse("[[turn]]\nsays = \"one\"").unwrap_err().to_string().contains("says"));
        assert!(matches!(Script::parse("turn = []"), Err(ScriptError::Empty)));
    }
}
