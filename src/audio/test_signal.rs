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

/// How much two aligned signals at 24 kHz differ in level at 24 frequencies up to 7 kHz, in dB: the mean over pieces of
/// 10 ms with sound in them. Unlike a signal-to-noise ratio it does not mind shifted phases, as ears do not.
pub(super) fn spectral_distance_db(sent: &[i16], heard: &[i16]) -> f64 {
    const PIECE: usize = 240;
    let frequencies = (0..24).map(|n| 100.0 + 300.0 * f64::from(n));
    let waves: Vec<Vec<(f64, f64)>> = frequencies
        .map(|frequency| {
            let wave = |i: usize| {
                let window = 0.5 - 0.5 * (2.0 * PI * i as f64 / (PIECE - 1) as f64).cos();
                let angle = 2.0 * PI * frequency * i as f64 / 24_000.0;
                (window * angle.cos(), window * angle.sin())
            };
            (0..PIECE).map(wave).collect()
        })
        .collect();
    let powers = |piece: &[i16]| -> Vec<f64> {
        let sum = |wave: &Vec<(f64, f64)>| {
            let pairs = wave.iter().zip(piece);
            let (re, im) = pairs.fold((0.0, 0.0), |(re, im), ((cos, sin), sample)| {
                (re + cos * f64::from(*sample), im + sin * f64::from(*sample))
            });
            re * re + im * im
        };
        waves.iter().map(sum).collect()
    };
    let pieces = sent.chunks_exact(PIECE).zip(heard.chunks_exact(PIECE));
    let distances: Vec<f64> = pieces
        .filter(|(sent, _)| level_db(sent) > 50.0)
        .map(|(sent, heard)| {
            let (sent, heard) = (powers(sent), powers(heard));
            // What is 50 dB below the loudest is not heard.
            let floor = sent.iter().copied().fold(0.0, f64::max) * 1e-5;
            let squares =
                sent.iter().zip(&heard).map(|(a, b)| (10.0 * ((a + floor) / (b + floor)).log10()).powi(2));
            (squares.sum::<f64>() / sent.len() as f64).sqrt()
        })
        .collect();
    distances.iter().sum::<f64>() / distances.len() as f64
}
