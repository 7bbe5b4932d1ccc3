//! Scripts of a simulated phone: what it does, act by act, over several calls.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{Act, AnswerPlan, CallPlan, CallReport, Phone, Registration};
use crate::audio::voice;
use crate::audio::wav::Wav;
use crate::sip::uri::Uri;

/// A script as it is written: a list of `[[act]]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The acts, in order.
    pub act: Vec<Line>,
}

/// One act. Those from `say` on belong to the call that was placed or taken before.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// Registers, as `--register` says.
    Register {},
    /// Takes the registration back.
    Unregister {},
    /// Places a call.
    Call {
        /// Whom to.
        to: String,
    },
    /// Waits for a call and takes it.
    Answer {
        /// Rings this long first.
        #[serde(default = "ring")]
        ring_s: f64,
        /// Waits this long for the call.
        #[serde(default = "patience")]
        within_s: f64,
    },
    /// Says this with the built-in voice.
    Say {
        /// The words.
        text: String,
    },
    /// Plays a WAV file.
    Play {
        /// The file.
        file: PathBuf,
    },
    /// Waits.
    Wait {
        /// How long.
        seconds: f64,
    },
    /// Waits until the other side has spoken for this long.
    WaitForSpeech {
        /// How long.
        seconds: f64,
    },
    /// Waits until the other side has been silent for this long.
    WaitForSilence {
        /// How long.
        seconds: f64,
    },
    /// Puts the other side on hold.
    Hold {},
    /// Takes it back.
    Unhold {},
    /// Presses keys.
    Dtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        keys: String,
    },
    /// Asks the other side to call somebody else (REFER), and waits for the outcome.
    Transfer {
        /// Whom.
        to: String,
    },
    /// Hangs up.
    HangUp {},
}

impl Script {
    /// Reads a script and judges it as a whole.
    ///
    /// # Errors
    /// When it cannot be read, names something unknown, or an act stands where it cannot.
    pub fn load(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", file.display()))
    }

    /// As [`Self::load`], from text.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let script: Self = toml::from_str(text)?;
        let mut in_call = false;
        for (index, line) in script.act.iter().enumerate() {
            match line {
                Line::Call { .. } | Line::Answer { .. } => in_call = true,
                Line::Register {} | Line::Unregister {} => in_call = false,
                _ if !in_call => bail!("act {} needs a call; put `call` or `answer` before it", index + 1),
                Line::Dtmf { keys } if !keys.chars().all(|c| "0123456789*#ABCDabcd".contains(c)) => {
                    bail!("act {}: keys are 0-9, *, # and A-D", index + 1)
                }
                _ => {}
            }
        }
        Ok(script)
    }

    /// Whether it takes calls.
    pub fn answers(&self) -> bool {
        self.act.iter().any(|line| matches!(line, Line::Answer { .. }))
    }

    /// Whether it registers.
    pub fn registers(&self) -> bool {
        self.act.iter().any(|line| matches!(line, Line::Register {} | Line::Unregister {}))
    }
}

/// Makes something of what people write.
pub type Made<'a, T> = Box<dyn Fn(&str) -> anyhow::Result<T> + 'a>;

/// What a script is performed with.
pub struct Stage<'a> {
    /// Who performs.
    pub phone: &'a Arc<Phone>,
    /// For `register`.
    pub registration: Option<Registration>,
    /// A call like this, but to whom the script says.
    pub call: Made<'a, CallPlan>,
    /// The target of a transfer as people write it.
    pub target: Made<'a, Uri>,
    /// Calls are taken like this.
    pub answer: AnswerPlan,
}

impl Stage<'_> {
    /// Performs a script; the report of every call.
    ///
    /// # Errors
    /// When an act cannot be done: nobody calls in time, the registrar refuses, a file cannot be read.
    pub async fn perform(&self, script: &Script) -> anyhow::Result<Vec<CallReport>> {
        let mut reports = Vec::new();
        let mut lines = script.act.as_slice();
        while let Some((line, rest)) = lines.split_first() {
            let within = rest.iter().take_while(|line| line.is_in_call()).count();
            let (acts, rest) = rest.split_at(within);
            lines = rest;
            match line {
                Line::Register {} => self.register(None).await?,
                Line::Unregister {} => self.register(Some(Duration::ZERO)).await?,
                Line::Call { to } => {
                    let plan = CallPlan { acts: self.acts(acts)?, ..(self.call)(to)? };
                    reports.push(self.phone.call(plan).await?);
                }
                Line::Answer { ring_s, within_s } => {
                    let plan =
                        AnswerPlan { ring: span(*ring_s), acts: self.acts(acts)?, ..self.answer.clone() };
                    reports.push(self.phone.answer_within(plan, span(*within_s)).await?);
                }
                // `parse` lets no other act stand here.
                _ => {}
            }
        }
        Ok(reports)
    }

    async fn register(&self, expires: Option<Duration>) -> anyhow::Result<()> {
        let mut registration =
            self.registration.clone().context("the script registers; add --register URI")?;
        registration.expires = expires.unwrap_or(registration.expires);
        super::cli::register(self.phone, &registration).await
    }

    fn acts(&self, lines: &[Line]) -> anyhow::Result<Vec<Act>> {
        lines.iter().filter_map(|line| self.act(line).transpose()).collect()
    }

    fn act(&self, line: &Line) -> anyhow::Result<Option<Act>> {
        Ok(Some(match line {
            Line::Say { text } => Act::Say(Arc::from(voice::speak(text))),
            Line::Play { file } => {
                let opened =
                    std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?;
                let wav = Wav::read(opened, super::cli::LONGEST_WAV)
                    .with_context(|| format!("reading {}", file.display()))?;
                Act::Say(wav.to_bridge().into())
            }
            Line::Wait { seconds } => Act::Wait(span(*seconds)),
            Line::WaitForSpeech { seconds } => Act::WaitForSpeech(span(*seconds)),
            Line::WaitForSilence { seconds } => Act::WaitForSilence(span(*seconds)),
            Line::Hold {} => Act::Hold,
            Line::Unhold {} => Act::Unhold,
            Line::Dtmf { keys } => Act::Press(keys.to_ascii_uppercase()),
            Line::Transfer { to } => Act::Transfer((self.target)(to)?),
            Line::HangUp {} => Act::HangUp,
            Line::Register {} | Line::Unregister {} | Line::Call { .. } | Line::Answer { .. } => {
                return Ok(None);
            }
        }))
    }
}

impl Line {
    fn is_in_call(&self) -> bool {
        !matches!(self, Self::Register {} | Self::Unregister {} | Self::Call { .. } | Self::Answer { .. })
    }
}

fn span(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

fn ring() -> f64 {
    0.2
}

fn patience() -> f64 {
    60.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_act_by_act() {
        let script = Script::parse(
            "[[act]]\nact = \"register\"\n[[act]]\nact = \"answer\"\nring_s = 1\n[[act]]\nact = \"dtmf\"\nkeys = \"12#\"\n\
             [[act]]\nact = \"hang_up\"\n",
        )
        .expect("a script");
        assert_eq!(script.act[1], Line::Answer { ring_s: 1.0, within_s: 60.0 });
        assert!(script.answers() && script.registers());
        assert_eq!(script.act.iter().filter(|line| line.is_in_call()).count(), 2);
    }

    #[test]
    fn what_cannot_be_performed_is_refused_before_it_begins() {
        for (text, says) in [
            ("[[act]]\nact = \"hold\"\n", "act 1 needs a call"),
            (
                "[[act]]\nact = \"call\"\nto = \"1\"\n[[act]]\nact = \"unregister\"\n[[act]]\nact = \"hold\"\n",
                "act 3",
            ),
            ("[[act]]\nact = \"answer\"\n[[act]]\nact = \"dtmf\"\nkeys = \"x\"\n", "act 2: keys"),
            ("[[act]]\nact = \"dance\"\n", "dance"),
            ("[[act]]\nact = \"answer\"\nrings = 3\n", "rings"),
        ] {
            let error = format!("{:#}", Script::parse(text).expect_err("wrong"));
            assert!(error.contains(says), "{error}");
        }
    }
}
