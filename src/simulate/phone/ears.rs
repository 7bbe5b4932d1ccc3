//! Whether the other side is speaking, by loudness alone.

use std::time::{Duration, Instant};

use crate::audio::BRIDGE_RATE;

/// Follows what is heard.
#[derive(Debug, Default)]
pub struct Ears {
    /// Speech heard since the present act began, short pauses included.
    speech: Duration,
    /// Since when there has been silence; `None` while the other side speaks or before anything was heard.
    quiet_since: Option<Instant>,
    heard_any: bool,
}

impl Ears {
    /// A new act begins: what was heard before does not count for it.
    pub fn begin(&mut self, now: Instant) {
        self.speech = Duration::ZERO;
        if self.quiet_since.is_some() {
            self.quiet_since = Some(now);
        }
        self.heard_any = false;
    }

    /// Takes 24 kHz audio that ends at `now`.
    pub fn hear(&mut self, now: Instant, pcm: &[i16]) {
        let length = Duration::from_secs_f64(pcm.len() as f64 / f64::from(BRIDGE_RATE));
        if loudness(pcm) > SPEECH_LEVEL {
            self.speech += length;
            self.quiet_since = None;
            self.heard_any = true;
        } else {
            let quiet_since = *self.quiet_since.get_or_insert(now);
            let pause = now.saturating_duration_since(quiet_since);
            if pause < LONGEST_PAUSE {
                self.speech += if self.heard_any { length } else { Duration::ZERO };
            } else {
                self.speech = Duration::ZERO;
                self.heard_any = false;
            }
        }
    }

    /// Whether the other side has been speaking for this long.
    pub fn speaking_for(&self, span: Duration) -> bool {
        self.heard_any && self.speech >= span
    }

    /// Whether there has been silence for this long.
    pub fn silent_for(&self, now: Instant, span: Duration) -> bool {
        self.quiet_since.is_some_and(|since| now.saturating_duration_since(since) >= span)
    }
}

/// Mean absolute sample.
fn loudness(pcm: &[i16]) -> u32 {
    let sum: u64 = pcm.iter().map(|sample| u64::from(sample.unsigned_abs())).sum();
    u32::try_from(sum / pcm.len().max(1) as u64).unwrap_or(u32::MAX)
}

/// About -46 dBov: far above companding noise, far below speech.
const SPEECH_LEVEL: u32 = 160;
/// Pauses inside speech.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_and_silence_are_told_apart() {
        let start = Instant::now();
        let mut ears = Ears::default();
        for n in 0..10 {
            ears.hear(start + Duration::from_millis(20 * n), &[4000; 480]);
        }
        assert!(ears.speaking_for(Duration::from_millis(200)) && !ears.silent_for(start, Duration::ZERO));
        for n in 10..40 {
            ears.hear(start + Duration::from_millis(20 * n), &[3; 480]);
        }
        let now = start + Duration::from_millis(800);
        assert!(ears.silent_for(now, Duration::from_millis(500)));
        assert!(!ears.speaking_for(Duration::from_millis(1)));
    }
}
