//! Streaming resampling by a ratio without small numbers: 44.1 kHz.
//!
//! A windowed sinc is evaluated around each output sample, at a place that is counted in whole numbers so that
//! it never drifts. Ten times the work of [`resample`](super::resample), for a rate that hardly anybody uses.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::convert::Kernel;

/// Converts a stream, keeping its past between chunks.
#[derive(Debug, Clone)]
pub struct Fractional {
    from: u64,
    to: u64,
    kernel: Arc<Kernel>,
    /// The last `2 * reach` samples and some more, then what was just given.
    window: Vec<i16>,
    /// Samples given and made, since the beginning or a whole number of seconds after it.
    given: u64,
    made: u64,
}

impl Fractional {
    /// From one rate to another, in Hz, neither of them zero, with silence behind it.
    pub fn new(from: u32, to: u32) -> Self {
        let kernel = kernel(from, to);
        let window = vec![0; 2 * kernel.reach() + SLACK];
        Self { from: u64::from(from), to: u64::from(to), kernel, window, given: 0, made: 0 }
    }

    /// Appends the resampled `input` to `out`. After `n` samples in all, `n * to / from` have come out.
    pub fn process(&mut self, input: &[i16], out: &mut Vec<i16>) {
        let reach = self.kernel.reach();
        let begin = self.given;
        self.window.extend_from_slice(input);
        self.given += input.len() as u64;
        let due = self.given * self.to / self.from;
        for number in self.made..due {
            // Delayed by `reach`, so that both sides are there. The place may lie a little before this chunk.
            let whole = number * self.from / self.to;
            let part = (number * self.from % self.to) as f64 / self.to as f64;
            let position = (whole + (reach + SLACK) as u64 - begin) as f64 + part;
            out.push(self.kernel.apply(&self.window, position));
        }
        self.made = due;
        self.window.drain(..input.len());
        // Whole seconds are whole samples on both sides.
        let seconds = (self.given / self.from).min(self.made / self.to);
        self.given -= seconds * self.from;
        self.made -= seconds * self.to;
    }

    /// Forgets the past, as if it had been silence.
    pub fn reset(&mut self) {
        self.window.fill(0);
        (self.given, self.made) = (0, 0);
    }

    /// By how much samples come out later than they went in.
    pub fn delay(&self) -> Duration {
        Duration::from_secs_f64(self.kernel.reach() as f64 / self.from as f64)
    }
}

/// The filter of a ratio: one table for all streams of the two directions that occur.
fn kernel(from: u32, to: u32) -> Arc<Kernel> {
    static DOWN: OnceLock<Arc<Kernel>> = OnceLock::new();
    static UP: OnceLock<Arc<Kernel>> = OnceLock::new();
    let make = || Arc::new(Kernel::new(f64::from(to) / f64::from(from)));
    match (from, to) {
        (44_100, 24_000) => Arc::clone(DOWN.get_or_init(make)),
        (24_000, 44_100) => Arc::clone(UP.get_or_init(make)),
        _ => make(),
    }
}

/// Samples by which the next output can lie before the next input: the larger ratio, rounded up.
const SLACK: usize = 2;

#[cfg(test)]
mod tests {
    use super::super::test_signal::{Noise, level_db, tone};
    use super::*;

    #[test]
    fn any_chunking_gives_the_same_samples_and_none_is_lost_over_seconds() {
        for (from, to) in [(44_100, 24_000), (24_000, 44_100)] {
            let input = Noise::new(5).samples(from as usize * 3 + 17, 9_000.0);
            let mut whole = Vec::new();
            Fractional::new(from, to).process(&input, &mut whole);
            for size in [1, 441, 882, 1_000] {
                let (mut fractional, mut out) = (Fractional::new(from, to), Vec::new());
                input.chunks(size).for_each(|chunk| fractional.process(chunk, &mut out));
                assert!(out == whole, "{from} to {to} in chunks of {size}");
            }
            assert_eq!(whole.len() as u64, input.len() as u64 * u64::from(to) / u64::from(from));
        }
    }

    #[test]
    fn a_tone_comes_out_clean_and_after_the_stated_delay() {
        for (from, to) in [(44_100, 24_000), (24_000, 44_100)] {
            let (mut fractional, mut out) = (Fractional::new(from, to), Vec::new());
            fractional.process(&tone(1_000.0, from, from as usize / 5, 10_000.0), &mut out);
            let wanted: Vec<i16> = (0..out.len())
                .map(|at| {
                    let time = at as f64 / f64::from(to) - fractional.delay().as_secs_f64();
                    ((std::f64::consts::TAU * 1_000.0 * time).sin() * 10_000.0).round() as i16
                })
                .collect();
            let middle = out.len() / 4..out.len() * 3 / 4;
            let error: Vec<i16> =
                out[middle.clone()].iter().zip(&wanted[middle.clone()]).map(|(a, b)| a - b).collect();
            assert!(level_db(&error) < level_db(&wanted[middle]) - 60.0, "{from} to {to}");
        }
    }
}
