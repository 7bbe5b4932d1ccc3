//! How the simulated assistant sounds, and its audio cut into deltas.
//!
//! An utterance is rendered and base64-encoded once and shared by every session that says it, so that a
//! load test costs the simulator next to nothing per delta.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use super::format::AudioFormat;
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

/// One stretch of assistant speech, ready to be sent.
#[derive(Debug, PartialEq)]
pub struct Utterance {
    /// The words.
    pub text: String,
    /// Format of the deltas.
    pub format: AudioFormat,
    /// Samples altogether, at the format's rate.
    pub samples: u64,
    /// The deltas.
    pub pieces: Vec<Piece>,
}

/// One delta.
#[derive(Debug, PartialEq)]
pub struct Piece {
    /// Its audio.
    pub base64: Box<str>,
    /// Samples in it.
    pub samples: u64,
    /// Words that go with it, for the transcript delta; empty between words.
    pub words: Box<str>,
}

impl Utterance {
    /// Cuts samples, which are at the format's rate, into deltas of about `delta_ms`. With `vary` the
    /// deltas differ in length, as the service's do.
    pub fn new(text: &str, format: AudioFormat, samples: &[i16], delta_ms: u32, vary: bool) -> Self {
        let nominal = (u64::from(delta_ms.max(1)) * u64::from(format.rate()) / 1_000) as usize;
        let mut pieces = Vec::new();
        let mut rest = samples;
        while !rest.is_empty() {
            let permille = if vary { VARIATION[pieces.len() % VARIATION.len()] } else { 1_000 };
            let length = (nominal * permille / 1_000).clamp(1, rest.len());
            let (piece, after) = rest.split_at(length);
            let base64 = base64_simd::STANDARD.encode_to_string(format.encode(piece)).into();
            pieces.push(Piece { base64, samples: length as u64, words: "".into() });
            rest = after;
        }
        spread_words(text, &mut pieces);
        Self { text: text.to_owned(), format, samples: samples.len() as u64, pieces }
    }

    /// The first `samples` samples in one base64 text.
    pub fn base64_of_first(&self, samples: u64) -> String {
        let mut bytes = Vec::new();
        for piece in &self.pieces {
            // The pieces were encoded here; were one unreadable, it would only be missing.
            let _ = base64_simd::STANDARD.decode_append(piece.base64.as_bytes(), &mut bytes);
        }
        bytes.truncate(samples as usize * self.format.width());
        base64_simd::STANDARD.encode_to_string(bytes)
    }
}

/// Gives each word to the delta that is sent about when the word begins.
fn spread_words(text: &str, pieces: &mut [Piece]) {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    if pieces.is_empty() {
        return;
    }
    let mut texts = vec![String::new(); pieces.len()];
    for (n, word) in words.iter().enumerate() {
        texts[n * pieces.len() / words.len()].push_str(word);
    }
    for (piece, text) in pieces.iter_mut().zip(texts) {
        piece.words = text.into();
    }
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

/// How deltas are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cut {
    /// About this much audio in a delta.
    pub delta_ms: u32,
    /// Whether they differ in length.
    pub vary: bool,
}

/// Renders utterances and keeps them.
#[derive(Debug, Default)]
pub struct SpeechLibrary {
    files: HashMap<PathBuf, (Vec<i16>, u32)>,
    cache: Mutex<HashMap<Key, Arc<Utterance>>>,
}

type Key = (String, String, Option<u32>, AudioFormat, Cut);

impl SpeechLibrary {
    /// A library that has read the files of all of these.
    ///
    /// # Errors
    /// When a file is missing or no PCM WAV.
    pub fn with<'a>(speeches: impl IntoIterator<Item = &'a Speech>) -> Result<Self, SpeechError> {
        let mut library = Self::default();
        for speech in speeches {
            if let Speech::Wav(path) = speech {
                library.files.insert(path.clone(), read_wav(path)?);
            }
        }
        Ok(library)
    }

    /// The audio of one utterance in one format. `caller` is what [`Speech::Echo`] repeats: samples and
    /// their rate.
    pub fn utterance(
        &self,
        say: &Say,
        format: AudioFormat,
        cut: Cut,
        caller: Option<(&[i16], u32)>,
    ) -> Arc<Utterance> {
        if say.speech == Speech::Echo {
            let (samples, rate) = caller.unwrap_or((&[], format.rate()));
            let samples = sound::resample(samples, rate, format.rate());
            return Arc::new(Utterance::new(&say.text, format, &samples, cut.delta_ms, cut.vary));
        }
        let key = (say.text.clone(), say.speech.to_string(), say.duration_ms, format, cut);
        if let Some(known) = self.lock().get(&key) {
            return known.clone();
        }
        let samples = self.render(say, format.rate());
        let utterance = Arc::new(Utterance::new(&say.text, format, &samples, cut.delta_ms, cut.vary));
        let mut cache = self.lock();
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(key, utterance.clone());
        utterance
    }

    fn render(&self, say: &Say, rate: u32) -> Vec<i16> {
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
            Speech::Echo => Vec::new(),
        };
        if let Some(ms) = say.duration_ms {
            samples.truncate(count(ms) as usize);
        }
        samples
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Utterance>>> {
        // A panic while the lock is held cannot leave the map half-changed.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
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
const CACHE_MAX: usize = 256;
/// Lengths of successive deltas, in thousandths of the nominal one.
const VARIATION: [usize; 7] = [500, 1_000, 1_370, 733, 1_000, 251, 1_149];

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

    #[test]
    fn deltas_join_to_the_exact_tone() {
        let library = SpeechLibrary::default();
        let say = Say { text: "a b c".into(), speech: Speech::Tone { hz: 941.0 }, duration_ms: Some(1_000) };
        let cut = Cut { delta_ms: 130, vary: true };
        let utterance = library.utterance(&say, AudioFormat::Pcm, cut, None);
        let mut bytes = Vec::new();
        for piece in &utterance.pieces {
            base64_simd::STANDARD.decode_append(piece.base64.as_bytes(), &mut bytes).unwrap();
        }
        let mut samples = Vec::new();
        AudioFormat::Pcm.decode(&bytes, &mut samples);
        assert_eq!(samples.len(), 24_000);
        assert!((0..).zip(&samples).all(|(n, sample)| *sample == tone_sample(941.0, 24_000, n)));
        let words: String = utterance.pieces.iter().map(|piece| &*piece.words).collect();
        assert_eq!(words, "a b c");
        assert!(Arc::ptr_eq(&utterance, &library.utterance(&say, AudioFormat::Pcm, cut, None)));
    }

    #[test]
    fn echo_repeats_the_caller_in_the_output_format() {
        let library = SpeechLibrary::default();
        let say = Say { text: String::new(), speech: Speech::Echo, duration_ms: None };
        let caller = vec![1_000i16; 24_000];
        let cut = Cut { delta_ms: 200, vary: false };
        let utterance = library.utterance(&say, AudioFormat::Pcmu, cut, Some((&caller, 24_000)));
        assert_eq!(utterance.samples, 8_000);
        assert_eq!(utterance.pieces.len(), 5);
    }

    #[test]
    fn a_wav_file_is_brought_to_the_output_rate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hello.wav");
        let samples: Vec<i16> = (0..8_000).map(|n| tone_sample(440.0, 8_000, n)).collect();
        std::fs::write(&path, crate::audio::wav::mono_file(&samples, 8_000)).unwrap();
        let speech = Speech::Wav(path.clone());
        let library = SpeechLibrary::with([&speech]).unwrap();
        let say = Say { text: "hello".into(), speech, duration_ms: None };
        let cut = Cut { delta_ms: 200, vary: true };
        assert_eq!(library.utterance(&say, AudioFormat::Pcm, cut, None).samples, 24_000);
        assert_eq!(library.utterance(&say, AudioFormat::Pcmu, cut, None).samples, 8_000);
        std::fs::write(&path, b"no WAV").unwrap();
        assert!(SpeechLibrary::with([&Speech::Wav(path)]).is_err());
    }

    #[test]
    fn a_voice_says_something() {
        let say = Say { text: "good morning".into(), speech: Speech::Voice, duration_ms: None };
        let cut = Cut { delta_ms: 200, vary: true };
        let utterance = SpeechLibrary::default().utterance(&say, AudioFormat::Pcm, cut, None);
        assert!(utterance.samples > 2_400);
    }
}
