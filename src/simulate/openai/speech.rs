//! The simulated assistant's audio cut into deltas.
//!
//! An utterance is rendered and base64-encoded once and shared by every session that says it, so that a
//! load test costs the simulator next to nothing per delta.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::format::AudioFormat;
pub use crate::simulate::speech::{DEFAULT_MS, Say, Speech, SpeechError, Voices, tone_sample};

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
    voices: Voices,
    cache: Mutex<HashMap<Key, Arc<Utterance>>>,
}

type Key = (String, String, Option<u32>, AudioFormat, Cut);

impl SpeechLibrary {
    /// A library that has read the files of all of these.
    ///
    /// # Errors
    /// When a file is missing or no PCM WAV.
    pub fn with<'a>(speeches: impl IntoIterator<Item = &'a Speech>) -> Result<Self, SpeechError> {
        Ok(Self { voices: Voices::with(speeches)?, cache: Mutex::default() })
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
            let samples = self.voices.render(say, format.rate(), caller);
            return Arc::new(Utterance::new(&say.text, format, &samples, cut.delta_ms, cut.vary));
        }
        let key = (say.text.clone(), say.speech.to_string(), say.duration_ms, format, cut);
        if let Some(known) = self.lock().get(&key) {
            return known.clone();
        }
        let samples = self.voices.render(say, format.rate(), None);
        let utterance = Arc::new(Utterance::new(&say.text, format, &samples, cut.delta_ms, cut.vary));
        let mut cache = self.lock();
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(key, utterance.clone());
        utterance
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Utterance>>> {
        // A panic while the lock is held cannot leave the map half-changed.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CACHE_MAX: usize = 256;
/// Lengths of successive deltas, in thousandths of the nominal one.
const VARIATION: [usize; 7] = [500, 1_000, 1_370, 733, 1_000, 251, 1_149];

#[cfg(test)]
mod tests {
    use super::*;

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
