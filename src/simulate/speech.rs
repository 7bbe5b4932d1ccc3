//! How a simulated assistant sounds.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::sound;

/// How the assistant sounds.
#[derive(Debug, Clone, PartialEq)]
pub enum Speech {
    /// A sine of constant frequency: sample n is `8000 * sin(2π · hz · n / rate)`, rounded.
    Tone {
        /// Frequency.
        hz: f64,
    },
    /// A sine that rises exponentially.
    Sweep {
        /// First frequency.
        from_hz: f64,
        /// Last frequency.
        to_hz: f64,
    },
    /// A synthetic voice that babbles the words.
    Voice,
    /// A WAV file.
    Wav(PathBuf),
    /// The caller's last turn.
    Echo,
}

impl FromStr for Speech {
    type Err = SpeechError;

    fn from_str(text: &str) -> Result<Self, SpeechError> {
        let (kind, argument) = match text.split_once(':') {
            Some((kind, argument)) => (kind, Some(argument)),
            None => (text, None),
        };
        let unknown = || SpeechError::Unknown(text.to_owned());
        let frequency = |text: &str| match text.parse::<f64>() {
            Ok(hz) if (1.0..12_000.0).contains(&hz) => Ok(hz),
            _ => Err(unknown()),
        };
        match (kind, argument) {
            ("tone", None) => Ok(Self::Tone { hz: 440.0 }),
            ("tone", Some(hz)) => Ok(Self::Tone { hz: frequency(hz)? }),
            ("sweep", None) => Ok(Self::Sweep { from_hz: 200.0, to_hz: 3_400.0 }),
            ("sweep", Some(range)) => {
                let (from, to) = range.split_once('-').ok_or_else(unknown)?;
                Ok(Self::Sweep { from_hz: frequency(from)?, to_hz: frequency(to)? })
            }
            ("voice", None) => Ok(Self::Voice),
            ("wav", Some(path)) if !path.is_empty() => Ok(Self::Wav(path.into())),
            ("echo", None) => Ok(Self::Echo),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Speech {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tone { hz } => write!(f, "tone:{hz}"),
            Self::Sweep { from_hz, to_hz } => write!(f, "sweep:{from_hz}-{to_hz}"),
            Self::Voice => f.write_str("voice"),
            Self::Wav(path) => write!(f, "wav:{}", path.display()),
            Self::Echo => f.write_str("echo"),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Speech {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Speech that cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// Not one of the kinds.
    #[error(
        "`{0}` is no kind of speech; give tone, tone:HZ, sweep, sweep:HZ-HZ, voice, wav:FILE or echo \
         (frequencies from 1 to 11999 Hz)"
    )]
    Unknown(String),
    /// A file that cannot be used.
    #[error("cannot use {path} as speech: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

/// The sample that [`Speech::Tone`] has at `index`.
pub fn tone_sample(hz: f64, rate: u32, index: u64) -> i16 {
    let phase = std::f64::consts::TAU * hz * index as f64 / f64::from(rate);
    (AMPLITUDE * phase.sin()).round() as i16
}

/// What is to be said and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Say {
    /// The words.
    pub text: String,
    /// The sound.
    pub speech: Speech,
    /// Length of a tone or sweep, most of a voice or file; `None`: its own, or [`DEFAULT_MS`].
    pub duration_ms: Option<u32>,
}

/// The files that speech is made from, read once.
#[derive(Debug, Default)]
pub struct Voices {
    files: HashMap<PathBuf, (Vec<i16>, u32)>,
}

impl Voices {
    /// Has read the files of all of these.
    ///
    /// # Errors
    /// When a file is missing or no PCM WAV.
    pub fn with<'a>(speeches: impl IntoIterator<Item = &'a Speech>) -> Result<Self, SpeechError> {
        let mut voices = Self::default();
        for speech in speeches {
            if let Speech::Wav(path) = speech {
                voices.files.insert(path.clone(), read_wav(path)?);
            }
        }
        Ok(voices)
    }

    /// The samples of `say`. `caller` is what [`Speech::Echo`] repeats: samples and their rate.
    pub fn render(&self, say: &Say, rate: u32, caller: Option<(&[i16], u32)>) -> Vec<i16> {
        let count = |ms: u32| u64::from(ms) * u64::from(rate) / 1_000;
        let wanted = count(say.duration_ms.unwrap_or(DEFAULT_MS));
        let mut samples = match &say.speech {
            Speech::Tone { hz } => (0..wanted).map(|n| tone_sample(*hz, rate, n)).collect(),
            Speech::Sweep { from_hz, to_hz } => sweep(*from_hz, *to_hz, rate, wanted),
            Speech::Voice => sound::speak(&say.text, rate),
            Speech::Wav(path) => match self.files.get(path) {
                Some((samples, from)) => sound::resample(samples, *from, rate),
                None => Vec::new(),
            },
            Speech::Echo => {
                let (samples, from) = caller.unwrap_or((&[], rate));
                return sound::resample(samples, from, rate);
            }
        };
        if let Some(ms) = say.duration_ms {
            samples.truncate(count(ms) as usize);
        }
        samples
    }
}

fn sweep(from_hz: f64, to_hz: f64, rate: u32, samples: u64) -> Vec<i16> {
    let seconds = samples as f64 / f64::from(rate);
    let growth = (to_hz / from_hz).ln();
    let sample = |n: u64| {
        let t = n as f64 / f64::from(rate);
        let cycles = if growth.abs() < 1e-9 {
            from_hz * t
        } else {
            from_hz * seconds / growth * ((t / seconds * growth).exp() - 1.0)
        };
        (AMPLITUDE * (std::f64::consts::TAU * cycles).sin()).round() as i16
    };
    (0..samples).map(sample).collect()
}

fn read_wav(path: &Path) -> Result<(Vec<i16>, u32), SpeechError> {
    let fail = |cause: String| SpeechError::File { path: path.to_owned(), cause };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    sound::read_wav(&bytes).map_err(fail)
}

/// Length of a tone or sweep nobody gave one.
pub const DEFAULT_MS: u32 = 3_000;
const AMPLITUDE: f64 = 8_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_speech_are_read_and_printed() {
        for text in ["tone:440", "sweep:200-3400", "voice", "wav:a.wav", "echo"] {
            assert_eq!(text.parse::<Speech>().unwrap().to_string(), text);
        }
        for text in ["", "tone:", "tone:99999", "sweep:1", "wav:", "shout"] {
            assert!(text.parse::<Speech>().is_err(), "{text}");
        }
    }
}
