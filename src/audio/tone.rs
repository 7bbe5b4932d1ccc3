//! Tones: sums of sines with soft edges, and the cadences of call progress.

use std::f64::consts::TAU;

use super::BRIDGE_RATE;

/// A sum of sines that starts and stops softly. Frequencies in Hz; the level is each sine's, in dBm0,
/// where +3.14 dBm0 is a full-scale sine (G.711).
#[derive(Debug, Clone, PartialEq)]
pub struct Tone {
    /// Frequencies sounded together, in Hz.
    pub frequencies: Vec<f64>,
    /// Level of each, in dBm0.
    pub level_dbm0: f64,
}

impl Tone {
    /// A tone of these frequencies and this level.
    pub fn new(frequencies: &[f64], level_dbm0: f64) -> Self {
        Self { frequencies: frequencies.to_vec(), level_dbm0 }
    }

    /// Appends `samples` of the tone at `rate` Hz to `out`, with ramps of 2 ms at both ends.
    pub fn render(&self, rate: u32, samples: usize, out: &mut Vec<i16>) {
        let peak = peak_of(self.level_dbm0);
        let ramp = (rate / 500) as usize;
        let mut oscillators: Vec<Oscillator> =
            self.frequencies.iter().map(|frequency| Oscillator::new(*frequency, rate)).collect();
        out.extend((0..samples).map(|index| {
            let sum: f64 = oscillators.iter_mut().map(Oscillator::next).sum();
            // The cast saturates.
            (sum * peak * envelope(index, samples, ramp)).round() as i16
        }));
    }
}

/// A tone that is on and off in turn, as heard while a call is set up.
#[derive(Debug, Clone, PartialEq)]
pub struct Cadence {
    /// What is heard.
    pub tone: Tone,
    /// Milliseconds on and off, repeated; an off time of 0 is a steady tone.
    pub pattern_ms: Vec<(u32, u32)>,
}

impl Cadence {
    /// North American ringback: 440 and 480 Hz, 2 s on, 4 s off.
    pub fn ringback() -> Self {
        Self { tone: Tone::new(&[440.0, 480.0], -19.0), pattern_ms: vec![(2_000, 4_000)] }
    }

    /// North American busy: 480 and 620 Hz, half a second on and off.
    pub fn busy() -> Self {
        Self { tone: Tone::new(&[480.0, 620.0], -24.0), pattern_ms: vec![(500, 500)] }
    }

    /// North American reorder ("fast busy"): 480 and 620 Hz, a quarter of a second on and off.
    pub fn reorder() -> Self {
        Self { tone: Tone::new(&[480.0, 620.0], -24.0), pattern_ms: vec![(250, 250)] }
    }

    /// A short beep, as before a message is recorded: 1 kHz, 300 ms.
    pub fn beep() -> Self {
        Self { tone: Tone::new(&[1_000.0], -12.0), pattern_ms: vec![(300, 0)] }
    }

    /// One round of the pattern at [`BRIDGE_RATE`].
    pub fn render(&self) -> Vec<i16> {
        let mut out = Vec::new();
        for (on, off) in &self.pattern_ms {
            self.tone.render(BRIDGE_RATE, samples_in(*on), &mut out);
            out.resize(out.len() + samples_in(*off), 0);
        }
        out
    }
}

/// Peak sample of a sine at a level in dBm0.
pub(super) fn peak_of(level_dbm0: f64) -> f64 {
    32_767.0 * 10f64.powf((level_dbm0 - FULL_SCALE_DBM0) / 20.0)
}

/// Level of a full-scale sine: it has -3.01 dBov, and 0 dBm0 is -6.15 dBov (G.711's A-law, used for both).
const FULL_SCALE_DBM0: f64 = 6.15 - 3.01;

fn samples_in(ms: u32) -> usize {
    (u64::from(ms) * u64::from(BRIDGE_RATE) / 1_000) as usize
}

/// Raised cosine over `ramp` samples at both ends.
fn envelope(index: usize, samples: usize, ramp: usize) -> f64 {
    let edge = index.min(samples - 1 - index);
    if edge >= ramp { 1.0 } else { 0.5 - 0.5 * (TAU * (edge as f64 + 0.5) / (2 * ramp) as f64).cos() }
}

/// A sine by rotation: one complex multiplication a sample.
#[derive(Debug, Clone, Copy)]
struct Oscillator {
    position: (f64, f64),
    turn: (f64, f64),
}

impl Oscillator {
    fn new(frequency: f64, rate: u32) -> Self {
        let (sin, cos) = (TAU * frequency / f64::from(rate)).sin_cos();
        Self { position: (1.0, 0.0), turn: (cos, sin) }
    }

    fn next(&mut self) -> f64 {
        let ((c, s), (tc, ts)) = (self.position, self.turn);
        self.position = (c * tc - s * ts, s * tc + c * ts);
        s
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::dbov;
    use super::super::test_signal::tone;
    use super::*;

    #[test]
    fn a_tone_has_the_level_asked_for() {
        let mut out = Vec::new();
        Tone::new(&[1_000.0], -10.0).render(8_000, 8_000, &mut out);
        // 0 dBm0 is -6.15 dBov: a full-scale sine, -3.01 dBov, is +3.14 dBm0.
        assert!((f64::from(dbov(&out[100..7_900])) + 16.15).abs() < 0.05);
    }

    #[test]
    fn the_oscillator_is_a_sine_and_does_not_drift() {
        let mut out = Vec::new();
        Tone::new(&[697.0], 0.0).render(24_000, 48_000, &mut out);
        let wanted = tone(697.0, 24_000, 48_000, peak_of(0.0));
        let worst = out[100..47_900].iter().zip(&wanted[100..]).map(|(a, b)| (a - b).abs()).max();
        assert!(worst <= Some(1));
    }

    #[test]
    fn edges_are_soft() {
        let mut out = Vec::new();
        Tone::new(&[1_000.0], 0.0).render(24_000, 4_800, &mut out);
        assert!(out[..6].iter().chain(&out[4_794..]).all(|sample| sample.abs() < 1_500));
        Tone::new(&[1_000.0], 0.0).render(8_000, 0, &mut out);
        Tone::new(&[1_000.0], 0.0).render(8_000, 1, &mut out);
        assert_eq!(out.len(), 4_801);
    }

    #[test]
    fn a_cadence_is_on_and_then_off() {
        let busy = Cadence::busy().render();
        assert_eq!(busy.len(), 24_000);
        assert!(dbov(&busy[..12_000]) > -30.0);
        assert!(busy[12_000..].iter().all(|sample| *sample == 0));
        assert_eq!(Cadence::ringback().render().len(), 6 * 24_000);
        assert_eq!(Cadence::beep().render().len(), 7_200);
        assert_eq!(Cadence::reorder().render().len(), 12_000);
    }
}
