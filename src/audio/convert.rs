//! Offline conversion between any two rates, for files: a windowed sinc around every output sample.
//!
//! Calls use [`resample`](super::resample), which streams and is thirty times faster, but knows four rates.

use super::resample::{kaiser, sinc};

/// `samples` at `from` Hz, brought to `to` Hz. Nothing is delayed: sample 0 stays at time 0. The length is
/// that of the same time, rounded up. Flat within 0.1 dB to 88 % of the lower rate's Nyquist frequency;
/// images and aliases are 80 dB down from 112 % on. A rate of zero gives nothing.
pub fn convert(samples: &[i16], from: u32, to: u32) -> Vec<i16> {
    if from == to {
        return samples.to_vec();
    }
    if from == 0 || to == 0 {
        return Vec::new();
    }
    let kernel = Kernel::new(f64::from(to) / f64::from(from));
    let length = (samples.len() as u64 * u64::from(to)).div_ceil(u64::from(from));
    let position = |index: u64| index as f64 * f64::from(from) / f64::from(to);
    (0..length).map(|index| kernel.apply(samples, position(index))).collect()
}

/// One side of a windowed sinc, tabulated finely enough to interpolate linearly.
#[derive(Debug)]
pub(super) struct Kernel {
    table: Vec<f32>,
    /// Zero crossings of the sinc per input sample: below 1 when the rate falls.
    scale: f64,
}

impl Kernel {
    pub(super) fn new(ratio: f64) -> Self {
        let scale = ratio.min(1.0);
        let point = |index: usize| {
            let crossings = index as f64 / FINENESS as f64;
            (scale * sinc(crossings) * kaiser(crossings / CROSSINGS as f64, BETA)) as f32
        };
        // One more point, so that the last can be interpolated.
        let mut table: Vec<f32> = (0..=CROSSINGS * FINENESS).map(point).collect();
        table.push(0.0);
        Self { table, scale }
    }

    /// The sample at `position`, counted in samples of the input; what lies outside of it is silence.
    pub(super) fn apply(&self, samples: &[i16], position: f64) -> i16 {
        let reach = CROSSINGS as f64 / self.scale;
        let first = (position - reach).ceil().max(0.0) as usize;
        let end = ((position + reach).floor() as usize + 1).min(samples.len());
        let window = samples.get(first..end).unwrap_or(&[]);
        let terms = window.iter().enumerate().map(|(offset, sample)| {
            let distance = ((first + offset) as f64 - position).abs() * self.scale;
            self.at(distance) * f32::from(*sample)
        });
        // The cast saturates.
        terms.sum::<f32>().round() as i16
    }

    /// Samples of the input on each side that a sample of the output is made of.
    pub(super) fn reach(&self) -> usize {
        (CROSSINGS as f64 / self.scale).ceil() as usize
    }

    fn at(&self, crossings: f64) -> f32 {
        let place = (crossings * FINENESS as f64) as f32;
        let index = (place as usize).min(self.table.len() - 2);
        let (here, next) = (self.table[index], self.table[index + 1]);
        here + (next - here) * (place - index as f32)
    }
}

/// Zero crossings on each side, and table points between two of them.
const CROSSINGS: usize = 24;
const FINENESS: usize = 512;

/// Shape of the Kaiser window: 80 dB.
const BETA: f64 = 8.0;

#[cfg(test)]
mod tests {
    use super::super::test_signal::{level_db, tone};
    use super::*;

    #[test]
    fn a_tone_is_the_same_tone_at_the_new_rate() {
        for (from, to) in
            [(44_100, 24_000), (22_050, 24_000), (11_025, 24_000), (8_000, 24_000), (48_000, 8_000)]
        {
            let out = convert(&tone(1_000.0, from, from as usize / 10, 10_000.0), from, to);
            let wanted = tone(1_000.0, to, out.len(), 10_000.0);
            let middle = out.len() / 4..out.len() * 3 / 4;
            let error: Vec<i16> =
                out[middle.clone()].iter().zip(&wanted[middle]).map(|(a, b)| a - b).collect();
            assert!(level_db(&error) < level_db(&wanted) - 65.0, "{from} to {to}: {}", level_db(&error));
        }
    }

    #[test]
    fn what_the_new_rate_cannot_hold_is_removed() {
        let out = convert(&tone(14_500.0, 44_100, 4_410, 30_000.0), 44_100, 24_000);
        assert!(level_db(&out[400..2_000]) < 20.0, "{}", level_db(&out[400..2_000]));
    }

    #[test]
    fn the_length_is_that_of_the_same_time() {
        assert_eq!(convert(&[0; 44_100], 44_100, 24_000).len(), 24_000);
        assert_eq!(convert(&[0; 1], 8_000, 24_000).len(), 3);
        assert_eq!(convert(&[1, 2, 3], 24_000, 24_000), [1, 2, 3]);
        assert!(convert(&[], 8_000, 24_000).is_empty() && convert(&[1], 0, 24_000).is_empty());
    }
}
