//! The simulated service's own voice activity detection: energy against a threshold and a noise floor.
//!
//! It is kept apart from the engine's detector on purpose: a far end that shares the engine's code
//! cannot show the engine's mistakes.

/// What a frame changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Speech began `frames` frames before the end of this one.
    Start {
        /// Frames from the onset to here, this one included.
        frames: u32,
    },
    /// The silence after speech is long enough.
    Stop,
}

/// Fed with 20 ms frames of one stream.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    speaking: bool,
    voiced_run: u32,
    silent_run: u32,
    noise: f32,
}

impl Detector {
    /// A detector in silence.
    pub const fn new() -> Self {
        Self { speaking: false, voiced_run: 0, silent_run: 0, noise: 0.0 }
    }

    /// Whether speech is going on.
    pub const fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// Judges the next frame. `threshold` is the protocol's 0..=1, `silence_ms` what ends a turn.
    pub fn feed(&mut self, frame: &[i16], threshold: f64, silence_ms: u32) -> Option<Change> {
        let power = mean_square(frame);
        let voiced = power > floor_power(threshold).max(self.noise * NOISE_MARGIN);
        if !self.speaking {
            let speed = if power < self.noise { 0.3 } else { 0.02 };
            self.noise += (power.min(NOISE_MAX) - self.noise) * if voiced { 0.002 } else { speed };
        }
        if voiced {
            self.voiced_run += 1;
            self.silent_run = 0;
        } else {
            self.silent_run += 1;
            self.voiced_run = 0;
        }
        if !self.speaking && self.voiced_run >= ONSET_FRAMES {
            self.speaking = true;
            return Some(Change::Start { frames: self.voiced_run });
        }
        if self.speaking && self.silent_run * FRAME_MS >= silence_ms.max(FRAME_MS) {
            self.speaking = false;
            return Some(Change::Stop);
        }
        None
    }
}

fn mean_square(frame: &[i16]) -> f32 {
    let sum: f32 = frame.iter().map(|&sample| f32::from(sample) * f32::from(sample)).sum();
    sum / frame.len().max(1) as f32
}

/// 0.5 is -42 dBov, each tenth 4 dB.
fn floor_power(threshold: f64) -> f32 {
    let dbov = -62.0 + 40.0 * threshold as f32;
    FULL_SCALE * 10f32.powf(dbov / 10.0)
}

/// Length of a frame.
pub const FRAME_MS: u32 = 20;
const ONSET_FRAMES: u32 = 3;
const FULL_SCALE: f32 = 32_768.0 * 32_768.0;
/// Speech is at least 9 dB above the noise.
const NOISE_MARGIN: f32 = 8.0;
/// -40 dBov: louder is never taken for noise.
const NOISE_MAX: f32 = FULL_SCALE * 1e-4;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(detector: &mut Detector, amplitude: i16, frames: usize) -> Vec<(usize, Change)> {
        let frame: Vec<i16> = (0..480).map(|n| if n % 20 < 10 { amplitude } else { -amplitude }).collect();
        (0..frames).filter_map(|n| detector.feed(&frame, 0.5, 500).map(|change| (n, change))).collect()
    }

    #[test]
    fn speech_starts_after_60_ms_and_stops_after_the_silence() {
        let mut detector = Detector::new();
        assert_eq!(run(&mut detector, 0, 50), []);
        assert_eq!(run(&mut detector, 3_000, 50), [(2, Change::Start { frames: 3 })]);
        assert_eq!(run(&mut detector, 0, 50), [(24, Change::Stop)]);
    }

    #[test]
    fn a_click_and_line_noise_are_no_speech() {
        let mut detector = Detector::new();
        assert_eq!(run(&mut detector, 60, 500), []);
        assert_eq!(run(&mut detector, 8_000, 2), []);
        assert_eq!(run(&mut detector, 60, 50), []);
        assert_eq!(run(&mut detector, 3_000, 5), [(2, Change::Start { frames: 3 })]);
    }
}
