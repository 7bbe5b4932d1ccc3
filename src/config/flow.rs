//! Flows: what happens to an inbound call, as ordered steps.
//!
//! A step that needs an answered call answers it first; a flow that comes to its end hangs up.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{parse_duration, print_duration};

/// One step of a flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Answers the call. One that is answered already stays so.
    Answer {},
    /// Rings, or plays early media, without answering.
    Progress {
        /// For how long.
        #[schemars(example = 4)]
        seconds: Seconds,
        /// WAV file to play as early media (183). Absent: 180, and the caller's side makes the ringing tone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(example = &"sounds/welcome.wav")]
        file: Option<PathBuf>,
    },
    /// Plays a WAV file to its end.
    Play {
        /// The file, PCM or μ-law, mono or stereo.
        #[schemars(example = &"sounds/welcome.wav")]
        file: PathBuf,
    },
    /// Lets an assistant talk to the caller until one of them ends it. The steps that follow run when no provider of its
    /// chain can be had, or go on with the conversation: somebody else takes the call.
    Assistant {
        /// Name of an assistant of the number's organization.
        #[schemars(example = &"reception")]
        assistant: String,
    },
    /// Calls somebody over a trunk and joins the two. Nobody answers: the steps that follow run; when none
    /// follows, the call ends as the callee would have ended it.
    Dial {
        /// Number or SIP URI.
        #[schemars(example = &"+15550123")]
        to: String,
        /// How long it may ring.
        #[serde(default = "ring_time")]
        #[schemars(example = 30)]
        timeout: Seconds,
    },
    /// Sends the caller's audio back: a line test.
    Echo {
        /// For how long. Absent: until the caller hangs up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(example = 30)]
        seconds: Option<Seconds>,
    },
    /// Sends silence.
    Wait {
        /// For how long.
        #[schemars(example = 2)]
        seconds: Seconds,
    },
    /// Ends the call.
    Hangup {},
    /// Refuses the call. It must not be answered yet.
    Reject {
        /// SIP status, 400 to 699.
        #[serde(default = "busy_here")]
        #[schemars(range(min = 400, max = 699), example = 486)]
        status: u16,
    },
}

impl Step {
    /// As written in `step`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Answer {} => "answer",
            Self::Progress { .. } => "progress",
            Self::Play { .. } => "play",
            Self::Assistant { .. } => "assistant",
            Self::Dial { .. } => "dial",
            Self::Echo { .. } => "echo",
            Self::Wait { .. } => "wait",
            Self::Hangup {} => "hangup",
            Self::Reject { .. } => "reject",
        }
    }

    /// Whether the step works on an answered call only, so that the call is answered before it.
    pub const fn needs_answer(&self) -> bool {
        match self {
            Self::Answer {} | Self::Play { .. } | Self::Assistant { .. } | Self::Echo { .. } => true,
            Self::Progress { .. }
            | Self::Dial { .. }
            | Self::Wait { .. }
            | Self::Hangup {}
            | Self::Reject { .. } => false,
        }
    }

    /// Whether the step can only come before the answer.
    pub const fn needs_unanswered(&self) -> bool {
        matches!(self, Self::Progress { .. } | Self::Reject { .. })
    }

    /// Whether nothing can follow the step.
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Hangup {} | Self::Reject { .. } | Self::Echo { seconds: None })
    }
}

fn ring_time() -> Seconds {
    Seconds(Duration::from_secs(30))
}

const fn busy_here() -> u16 {
    486
}

/// A time in a flow: a number of seconds (`2`, `0.5`) or a text with a unit (`"500ms"`). At most a day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub Duration);

impl fmt::Debug for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print_duration(self.0))
    }
}

impl Serialize for Seconds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.subsec_nanos() {
            0 => serializer.serialize_u64(self.0.as_secs()),
            _ => serializer.serialize_f64(self.0.as_secs_f64()),
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecondsVisitor)
    }
}

struct SecondsVisitor;

impl serde::de::Visitor<'_> for SecondsVisitor {
    type Value = Seconds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of seconds, or a text such as \"500ms\"")
    }

    fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Seconds, E> {
        let unexpected = || E::invalid_value(serde::de::Unexpected::Float(seconds), &self);
        if !(0.0..=DAY_SECONDS).contains(&seconds) {
            return Err(unexpected());
        }
        Ok(Seconds(Duration::from_millis((seconds * 1_000.0).round() as u64)))
    }

    fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Seconds, E> {
        self.visit_f64(seconds as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<Seconds, E> {
        self.visit_f64(seconds as f64)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Seconds, E> {
        let duration = parse_duration(text).map_err(E::custom)?;
        self.visit_f64(duration.as_secs_f64())
    }
}

impl JsonSchema for Seconds {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["number", "string"],
            "format": "duration-text",
            "minimum": 0,
            "maximum": DAY_SECONDS,
            "x-maximum": "1d",
        })
    }
}

const DAY_SECONDS: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_survive_json() {
        for (json, step) in [
            (r#"{"step":"answer"}"#, Step::Answer {}),
            (r#"{"step":"wait","seconds":0.5}"#, Step::Wait { seconds: Seconds(Duration::from_millis(500)) }),
            (r#"{"step":"echo"}"#, Step::Echo { seconds: None }),
            (
                r#"{"step":"assistant","assistant":"reception"}"#,
                Step::Assistant { assistant: "reception".into() },
            ),
            (r#"{"step":"reject","status":603}"#, Step::Reject { status: 603 }),
        ] {
            assert_eq!(serde_json::from_str::<Step>(json).expect("valid"), step);
            assert_eq!(serde_json::to_string(&step).expect("valid"), json);
        }
    }

    #[test]
    fn a_misspelt_field_of_a_step_is_refused() {
        assert!(serde_json::from_str::<Step>(r#"{"step":"hangup","seconds":1}"#).is_err());
        assert!(serde_json::from_str::<Step>(r#"{"step":"wait","second":1}"#).is_err());
        assert!(serde_json::from_str::<Step>(r#"{"step":"wait","seconds":-1}"#).is_err());
    }
}
