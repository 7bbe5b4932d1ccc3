//! The script of a scripted conversation: a TOML file with what is said, and when.
//!
//! The scripted provider hears *that* the caller speaks, not *what*: it recognises no words. So a script
//! also says what the caller's speech is taken to be, which is what the transcript will show.
//!
//! ```toml
//! # Said first, when the call asks the assistant to speak.
//! greeting = "Good morning, this is Acme."
//!
//! # One answer to each stretch of the caller's speech, in order.
//! [[turn]]
//! caller = "Hello, when are you open?"   # what the caller is taken to have said; default "(speech)"
//! after_ms = 300                         # pause before the answer, 0 to 60000; default 300
//! say = "From nine to five."
//! wav = "hours.wav"                      # audio of `say`, beside this file; default: a synthetic voice
//!
//! [[turn]]
//! caller = "Thank you, goodbye."
//! say = "Goodbye!"
//! tool = { name = "end_call", arguments = { reason = "the caller said goodbye" } }
//! then = "..."                           # said when the tool has been answered and words are wanted
//!
//! # When nobody speaks for a while. Default: nothing.
//! [silence]
//! after_ms = 8000                        # 1000 to 600000
//! say = "Are you still there?"
//! times = 2                              # in a row; default 1
//!
//! # The answer to everything after the last turn, as often as needed: the keys of a turn.
//! # Default: a polite sentence.
//! [end]
//! say = "I am afraid that is all I know."
//! ```

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

/// A script as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    greeting: Option<String>,
    #[serde(default)]
    turn: Vec<TurnText>,
    silence: Option<SilenceText>,
    end: Option<TurnText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnText {
    caller: Option<String>,
    #[serde(default = "TurnText::after_ms")]
    after_ms: u64,
    say: Option<String>,
    wav: Option<String>,
    tool: Option<ToolText>,
    then: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolText {
    name: String,
    #[serde(default)]
    arguments: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SilenceText {
    after_ms: u64,
    say: String,
    #[serde(default = "SilenceText::times")]
    times: u32,
}

/// Why a script cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// Not TOML, or not a script.
    #[error("{0}")]
    Syntax(String),
    /// A value that cannot be.
    #[error("{place}: {problem}")]
    Value {
        /// Such as `turn 3`.
        place: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// A script with its audio.
#[derive(Debug)]
pub struct Rendered {
    /// Said first.
    pub greeting: Option<Line>,
    /// One for each stretch of the caller's speech.
    pub turns: Vec<Turn>,
    /// When nobody speaks.
    pub silence: Option<Silence>,
    /// After the last turn.
    pub end: Turn,
}

/// Words and their sound.
#[derive(Debug, Clone)]
pub struct Line {
    /// The words.
    pub text: Arc<str>,
    /// 24 kHz mono.
    pub pcm: Arc<[i16]>,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Turn {
    /// What the caller is taken to have said before.
    pub caller: Arc<str>,
    /// Pause before the answer.
    pub after: Duration,
    /// What is said.
    pub say: Option<Line>,
    /// A tool that is called afterwards: name, and arguments as JSON text.
    pub tool: Option<(String, String)>,
    /// What is said about its result.
    pub then: Option<Line>,
}

/// What is said when nobody speaks.
#[derive(Debug, Clone)]
pub struct Silence {
    /// Silence it takes, counted from the end of what the assistant said.
    pub after: Duration,
    /// What is said.
    pub say: Line,
    /// How often in a row.
    pub times: u32,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// [`ScriptError`] with line or turn, and what to mend.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let script: Self = toml::from_str(text).map_err(|error| ScriptError::Syntax(error.to_string()))?;
        script.check()?;
        Ok(script)
    }

    /// Gives every line its sound. `read_wav` reads a `wav` key's file as 24 kHz mono; `speak` is the
    /// voice for the lines without one.
    ///
    /// # Errors
    /// [`ScriptError`] with what `read_wav` said.
    pub fn render(
        self,
        mut read_wav: impl FnMut(&str) -> Result<Vec<i16>, String>,
        mut speak: impl FnMut(&str) -> Vec<i16>,
    ) -> Result<Rendered, ScriptError> {
        let mut turns = Vec::with_capacity(self.turn.len());
        for (index, turn) in self.turn.into_iter().enumerate() {
            turns.push(turn.render(&place(index), &mut read_wav, &mut speak)?);
        }
        let end = self.end.unwrap_or_else(TurnText::polite);
        Ok(Rendered {
            greeting: self.greeting.map(|text| Line::spoken(&text, &mut speak)),
            turns,
            silence: self.silence.map(|silence| Silence {
                after: Duration::from_millis(silence.after_ms),
                say: Line::spoken(&silence.say, &mut speak),
                times: silence.times,
            }),
            end: end.render("end", &mut read_wav, &mut speak)?,
        })
    }

    fn check(&self) -> Result<(), ScriptError> {
        if self.turn.len() > MAX_TURNS {
            let problem = format!("{} turns; at most {MAX_TURNS} are read", self.turn.len());
            return Err(ScriptError::Value { place: "the script".to_owned(), problem });
        }
        check_text("greeting", self.greeting.as_deref())?;
        for (index, turn) in self.turn.iter().enumerate() {
            turn.check(&place(index))?;
        }
        if let Some(silence) = &self.silence {
            check_text("silence", Some(&silence.say))?;
            check_range("silence", "after_ms", silence.after_ms, 1_000, 600_000)?;
        }
        self.end.as_ref().map_or(Ok(()), |end| end.check("end"))
    }
}

impl TurnText {
    const fn after_ms() -> u64 {
        300
    }

    fn polite() -> Self {
        Self {
            caller: None,
            after_ms: Self::after_ms(),
            say: Some("Thank you. I heard you, but my script ends here.".to_owned()),
            wav: None,
            tool: None,
            then: None,
        }
    }

    fn check(&self, place: &str) -> Result<(), ScriptError> {
        let wrong =
            |problem: &str| Err(ScriptError::Value { place: place.to_owned(), problem: problem.to_owned() });
        for text in [&self.caller, &self.say, &self.then] {
            check_text(place, text.as_deref())?;
        }
        check_range(place, "after_ms", self.after_ms, 0, 60_000)?;
        if self.say.is_none() && self.wav.is_none() && self.tool.is_none() {
            return wrong("nothing happens; give it `say`, `wav` or `tool`");
        }
        if self.then.is_some() && self.tool.is_none() {
            return wrong("`then` follows a tool's answer, and there is no `tool`");
        }
        Ok(())
    }

    fn render(
        self,
        place: &str,
        read_wav: &mut impl FnMut(&str) -> Result<Vec<i16>, String>,
        speak: &mut impl FnMut(&str) -> Vec<i16>,
    ) -> Result<Turn, ScriptError> {
        let say = match (self.say, self.wav) {
            (text, Some(wav)) => {
                let problem = |cause| format!("wav `{wav}`: {cause}");
                let pcm = read_wav(&wav).map_err(|cause| ScriptError::Value {
                    place: place.to_owned(),
                    problem: problem(cause),
                })?;
                Some(Line { text: text.unwrap_or_default().into(), pcm: pcm.into() })
            }
            (Some(text), None) => Some(Line::spoken(&text, speak)),
            (None, None) => None,
        };
        Ok(Turn {
            caller: self.caller.as_deref().unwrap_or(UNKNOWN_SPEECH).into(),
            after: Duration::from_millis(self.after_ms),
            say,
            tool: self.tool.map(|tool| (tool.name, json(&tool.arguments))),
            then: self.then.map(|text| Line::spoken(&text, speak)),
        })
    }
}

impl SilenceText {
    const fn times() -> u32 {
        1
    }
}

impl Line {
    fn spoken(text: &str, speak: &mut impl FnMut(&str) -> Vec<i16>) -> Self {
        Self { text: text.into(), pcm: speak(text).into() }
    }
}

fn json(arguments: &toml::Table) -> String {
    serde_json::to_string(arguments).expect("every TOML value has a JSON form")
}

fn place(index: usize) -> String {
    format!("turn {}", index + 1)
}

fn check_text(place: &str, text: Option<&str>) -> Result<(), ScriptError> {
    let length = text.map_or(0, str::len);
    if length <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let problem = format!("a text of {length} bytes; at most {MAX_TEXT_BYTES} are spoken, so split it");
    Err(ScriptError::Value { place: place.to_owned(), problem })
}

fn check_range(place: &str, key: &str, value: u64, least: u64, most: u64) -> Result<(), ScriptError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let problem = format!("`{key}` is {value}; it must be {least} to {most}");
    Err(ScriptError::Value { place: place.to_owned(), problem })
}

/// What the caller is taken to have said where the script does not tell.
pub const UNKNOWN_SPEECH: &str = "(speech)";
/// The longest text that is spoken: some five minutes.
pub const MAX_TEXT_BYTES: usize = 4_000;
const MAX_TURNS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_becomes_lines_with_sound() {
        let script = r#"
            greeting = "Hi"
            [[turn]]
            caller = "Who is it?"
            say = "Me"
            wav = "me.wav"
            after_ms = 0
            tool = { name = "end_call", arguments = { reason = "done", n = 3 } }
            then = "Bye"
            [[turn]]
            say = "Again"
            [silence]
            after_ms = 5000
            say = "Hello?"
            [end]
            tool = { name = "end_call" }
        "#;
        let rendered = render(script).unwrap();
        assert_eq!(rendered.greeting.unwrap().pcm.len(), 2);
        let turn = &rendered.turns[0];
        assert_eq!((&*turn.caller, turn.after), ("Who is it?", Duration::ZERO));
        assert_eq!((&*turn.say.as_ref().unwrap().text, turn.say.as_ref().unwrap().pcm.len()), ("Me", 1000));
        assert_eq!(turn.tool, Some(("end_call".into(), r#"{"n":3,"reason":"done"}"#.into())));
        assert_eq!(&*turn.then.as_ref().unwrap().text, "Bye");
        assert_eq!(
            (&*rendered.turns[1].caller, rendered.turns[1].after),
            ("(speech)", Duration::from_millis(300))
        );
        assert_eq!(rendered.silence.unwrap().times, 1);
        assert_eq!(rendered.end.tool, Some(("end_call".into(), "{}".into())));
    }

    #[test]
    fn an_empty_script_answers_politely() {
        let rendered = render("").unwrap();
        assert!(rendered.greeting.is_none() && rendered.turns.is_empty());
        assert!(rendered.end.say.is_some());
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let long = format!("greeting = \"{}\"", "a".repeat(5000));
        for (script, expected) in [
            ("greting = \"Hi\"", "unknown field `greting`"),
            ("[[turn]]\ncaller = \"x\"", "turn 1: nothing happens"),
            ("[[turn]]\nsay = \"x\"\nthen = \"y\"", "turn 1: `then` follows"),
            ("[[turn]]\nsay = \"x\"\nafter_ms = 90000", "turn 1: `after_ms` is 90000"),
            ("[end]\ncaller = \"x\"", "end: nothing happens"),
            ("[silence]\nafter_ms = 1\nsay = \"x\"", "silence: `after_ms` is 1; it must be 1000"),
            ("[[turn]]\nwav = \"gone.wav\"", "turn 1: wav `gone.wav`: no such file"),
            (&long, "greeting: a text of 5000 bytes"),
            ("[[turn]", "line 1"),
        ] {
            let error = render(script).unwrap_err().to_string();
            assert!(error.contains(expected), "{script}: {error}");
        }
    }

    fn render(script: &str) -> Result<Rendered, ScriptError> {
        let read_wav = |name: &str| {
            if name == "me.wav" { Ok(vec![0; 1000]) } else { Err("no such file".to_owned()) }
        };
        Script::parse(script)?.render(read_wav, |text| vec![0; text.len()])
    }
}
