//! Signals that several tests of this folder listen to.

use std::f64::consts::PI;

/// Noise from a seed, the same on every machine.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A value from -1 to 1.
    pub(super) fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    pub(super) fn samples(&mut self, length: usize, peak: f32) -> Vec<i16> {
        (0..length).map(|_| (self.next() * peak) as i16).collect()
    }
}

/// A sine of `frequency` and `peak` at `rate`, both in Hz.
pub(super) fn tone(frequency: f64, rate: u32, length: usize, peak: f64) -> Vec<i16> {
    let step = 2.0 * PI * frequency / f64::from(rate);
    (0..length).map(|i| ((step * i as f64).sin() * peak).round() as i16).collect()
}

/// A buzz like a voiced vowel: harmonics of a pitch that wanders a little, in bursts with pauses, with
/// breath noise under them.
pub(super) fn speech_like(rate: u32, length: usize, peak: f64) -> Vec<i16> {
    let mut noise = Noise::new(5);
    let (mut phase, rate) = (0.0f64, f64::from(rate));
    let sample = |i: usize| {
        let time = i as f64 / rate;
        phase += 2.0 * PI * (120.0 + 25.0 * (2.0 * PI * 0.9 * time).sin()) / rate;
        let formant = |k: f64, f: f64, w: f64| (-((k * 120.0 - f) / w).powi(2)).exp();
        let weight = |k: f64| formant(k, 550.0, 250.0) + 0.5 * formant(k, 1_600.0, 300.0) + 0.02;
        let voice: f64 = (1..24).map(f64::from).map(|k| weight(k) * (k * phase).sin()).sum();
        let syllable = (2.0 * PI * 3.3 * time).sin().max(0.0).sqrt();
        ((voice * syllable * 0.25 + f64::from(noise.next()) * 0.01) * peak) as i16
    };
    (0..length).map(sample).collect()
}

/// RMS level in dB relative to one unit.
pub(super) fn level_db(samples: &[i16]) -> f64 {
    let power: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64;
    10.0 * power.max(1e-9).log10()
}
