//! The caller's audio on its way into messages: how much of it makes one.
//!
//! Speech leaves by the configured interval, and so does the silence that may be the end of it. Where the service
//! hears nobody speak, what is quiet gathers into larger messages until the first frame that is not, which leaves at
//! once with all before it. So what is said is not later for it, nor is its end; a whisper below the threshold may be,
//! by less than a message. A caller who listens costs the network a fraction.

use super::request::{append_message, push_pcm};
use crate::audio::{BRIDGE_RATE, level};

/// Gathers 24 kHz audio.
#[derive(Debug)]
pub struct Uplink {
    /// Octets that make a message, and that make one of quiet.
    interval: usize,
    quiet_interval: usize,
    pending: Vec<u8>,
    /// Samples since the last frame that was not quiet.
    quiet: usize,
    /// The service hears the caller speak.
    spoken: bool,
}

/// A message, and the samples in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Append {
    /// As it goes to the service.
    pub message: String,
    /// At 24 kHz.
    pub samples: u64,
}

impl Uplink {
    /// Messages of so many milliseconds; of quiet, when that is more.
    pub fn new(interval_ms: u16, quiet_interval_ms: u16) -> Self {
        let octets = |ms: u16| usize::from(ms) * SAMPLES_PER_MS * OCTETS_PER_SAMPLE;
        Self {
            interval: octets(interval_ms),
            quiet_interval: octets(quiet_interval_ms.max(interval_ms)),
            pending: Vec::new(),
            quiet: 0,
            spoken: false,
        }
    }

    /// The service hears the caller speak, or no longer does.
    pub fn spoken(&mut self, spoken: bool) {
        self.spoken = spoken;
    }

    /// The caller was heard. The message that is due with it, if one is.
    pub fn push(&mut self, pcm: &[i16]) -> Option<Append> {
        push_pcm(&mut self.pending, pcm);
        self.quiet = if level::power(pcm) < QUIET { self.quiet.saturating_add(pcm.len()) } else { 0 };
        let gathers = !self.spoken && self.quiet > QUIET_AFTER;
        let due = if gathers { self.quiet_interval } else { self.interval };
        (self.pending.len() >= due).then(|| self.take())
    }

    /// A message of this, and of what waits, whatever its length.
    pub fn push_now(&mut self, pcm: &[i16]) -> Append {
        push_pcm(&mut self.pending, pcm);
        self.take()
    }

    fn take(&mut self) -> Append {
        let samples = (self.pending.len() / OCTETS_PER_SAMPLE) as u64;
        let message = append_message(&self.pending);
        self.pending.clear();
        Append { message, samples }
    }
}

const OCTETS_PER_SAMPLE: usize = 2;
const SAMPLES_PER_MS: usize = BRIDGE_RATE as usize / 1000;
/// Mean square of a frame in which nobody says a word: -55 dBov, above what telephone lines hum.
const QUIET: f32 = 3_395.0;
/// 400 ms: by then a service has usually said whether it heard somebody speak.
const QUIET_AFTER: usize = 2 * BRIDGE_RATE as usize / 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths, in frames, of the messages that `frames` of this level make, and when the last of each came.
    fn sizes(uplink: &mut Uplink, level: i16, frames: usize) -> Vec<(usize, u64)> {
        let appends =
            (0..frames).filter_map(|at| uplink.push(&[level; 480]).map(|append| (at, append.samples / 480)));
        appends.collect()
    }

    #[test]
    fn speech_leaves_by_the_interval_and_quiet_in_larger_messages() {
        let mut uplink = Uplink::new(20, 100);
        assert_eq!(sizes(&mut uplink, 3_000, 3), [(0, 1), (1, 1), (2, 1)]);
        // So soon the service may not yet have said that somebody speaks.
        assert_eq!(sizes(&mut uplink, 20, 20).len(), 20);
        assert_eq!(sizes(&mut uplink, 20, 10), [(4, 5), (9, 5)]);
    }

    #[test]
    fn the_silence_that_may_end_a_turn_is_not_late() {
        let mut uplink = Uplink::new(20, 100);
        assert_eq!(sizes(&mut uplink, 0, 23).len(), 20);
        uplink.spoken(true);
        assert_eq!(sizes(&mut uplink, 0, 2), [(0, 4), (1, 1)], "with all that had gathered");
        assert_eq!(sizes(&mut uplink, 0, 500).len(), 500);
        uplink.spoken(false);
        assert_eq!(sizes(&mut uplink, 0, 10), [(4, 5), (9, 5)]);
    }

    #[test]
    fn the_first_word_leaves_at_once_with_the_quiet_before_it() {
        let mut uplink = Uplink::new(20, 100);
        sizes(&mut uplink, 0, 23);
        let append = uplink.push(&[500; 480]).expect("at once");
        assert_eq!(append.samples, 4 * 480);
        assert_eq!(sizes(&mut uplink, 0, 2), [(0, 1), (1, 1)]);
    }

    #[test]
    fn quiet_is_never_in_smaller_messages_than_speech() {
        let mut uplink = Uplink::new(60, 20);
        assert_eq!(sizes(&mut uplink, 3_000, 6), [(2, 3), (5, 3)]);
        assert_eq!(sizes(&mut uplink, 0, 120).len(), 40);
        assert_eq!(sizes(&mut uplink, 0, 6), [(2, 3), (5, 3)]);
    }
}
