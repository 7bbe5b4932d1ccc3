//! The agent's speech as it goes onto the media socket: raw samples, rendered once for all calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::simulate::speech::{Say, Speech, SpeechError, Voices};

/// One stretch of speech.
#[derive(Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The words.
    pub text: String,
    /// Samples per second.
    pub rate: u32,
    /// Signed 16-bit little-endian.
    pub audio: Bytes,
}

impl Spoken {
    fn new(text: &str, rate: u32, samples: &[i16]) -> Self {
        let audio: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        Self { text: text.to_owned(), rate, audio: audio.into() }
    }

    /// Samples altogether.
    pub fn samples(&self) -> u64 {
        self.audio.len() as u64 / 2
    }

    /// These samples.
    pub fn slice(&self, from: u64, to: u64) -> Bytes {
        self.audio.slice(from as usize * 2..to as usize * 2)
    }

    /// The words that have begun when `samples` have been played, spread evenly over the sound.
    pub fn words_until(&self, samples: u64) -> &str {
        let words: Vec<&str> = self.text.split_inclusive(' ').collect();
        let total = self.samples().max(1);
        let begun = (words.len() as u64 * samples).div_ceil(total).min(words.len() as u64) as usize;
        let length: usize = words[..begun].iter().map(|word| word.len()).sum();
        &self.text[..length]
    }
}

/// Renders speech and keeps it.
#[derive(Debug, Default)]
pub struct Library {
    voices: Voices,
    cache: Mutex<HashMap<Key, Arc<Spoken>>>,
}

type Key = (String, String, Option<u32>, u32);

impl Library {
    /// A library that has read the files of all of these.
    ///
    /// # Errors
    /// When a file is missing or no PCM WAV.
    pub fn with<'a>(speeches: impl IntoIterator<Item = &'a Speech>) -> Result<Self, SpeechError> {
        Ok(Self { voices: Voices::with(speeches)?, cache: Mutex::default() })
    }

    /// What `say` sounds like at `rate`; `caller` is the caller's last turn at its own rate.
    pub fn spoken(&self, say: &Say, rate: u32, caller: (&[i16], u32)) -> Arc<Spoken> {
        if say.speech == Speech::Echo {
            return Arc::new(Spoken::new(&say.text, rate, &self.voices.render(say, rate, Some(caller))));
        }
        let key = (say.text.clone(), say.speech.to_string(), say.duration_ms, rate);
        if let Some(known) = self.lock().get(&key) {
            return known.clone();
        }
        let spoken = Arc::new(Spoken::new(&say.text, rate, &self.voices.render(say, rate, None)));
        let mut cache = self.lock();
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(key, spoken.clone());
        spoken
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Spoken>>> {
        // A panic while the lock is held cannot leave the map half-changed.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CACHE_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_with_their_sound() {
        let say = Say { text: "a b c d".into(), speech: Speech::Tone { hz: 440.0 }, duration_ms: Some(400) };
        let library = Library::default();
        let spoken = library.spoken(&say, 8_000, (&[], 8_000));
        assert_eq!(spoken.samples(), 3_200);
        let words: Vec<&str> = [0, 1, 800, 801, 3_200].map(|n| spoken.words_until(n)).into();
        assert_eq!(words, ["", "a ", "a ", "a b ", "a b c d"]);
        assert!(Arc::ptr_eq(&spoken, &library.spoken(&say, 8_000, (&[], 8_000))));
    }
}
