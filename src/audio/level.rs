//! How loud: levels in dBov, relative to the overload point of 16-bit samples.

/// The level given for digital silence, in dBov: the lower end of RFC 6464's range.
pub const SILENCE_DBOV: f32 = -127.0;

/// RMS level of `samples` in dBov, from [`SILENCE_DBOV`] to 0. A full-scale square wave has 0 dBov, a
/// full-scale sine -3.01.
pub fn dbov(samples: &[i16]) -> f32 {
    power_dbov(power(samples))
}

/// Mean square of `samples`, from 0 to 2³⁰; 0 for none.
pub fn power(samples: &[i16]) -> f32 {
    if samples.is_empty() {
        return 0.0;
    }
    // In as many sums as a few registers hold, so that it vectorises; an f32 is exact to 0.01 dB over minutes.
    let mut sums = [0.0f32; LANES];
    let (blocks, rest) = samples.as_chunks::<LANES>();
    for block in blocks {
        for (sum, sample) in sums.iter_mut().zip(block) {
            *sum += square(*sample);
        }
    }
    let sum: f64 = sums.iter().copied().chain(rest.iter().copied().map(square)).map(f64::from).sum();
    (sum / samples.len() as f64) as f32
}

/// The mean square of a level in dBov of 0.
pub const OVERLOAD: f32 = 32_768.0 * 32_768.0;

fn square(sample: i16) -> f32 {
    (i32::from(sample) * i32::from(sample)) as f32
}

const LANES: usize = 16;

/// The level of a mean square, in dBov.
pub fn power_dbov(power: f32) -> f32 {
    if power == 0.0 {
        return SILENCE_DBOV;
    }
    (10.0 * (power / OVERLOAD).log10()).max(SILENCE_DBOV)
}

/// Largest absolute sample, from 0 to 32768.
pub fn peak(samples: &[i16]) -> u16 {
    samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0)
}

/// Running level of a stream, in dBov, for meters: rises at once and falls by 20 dB a second.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    level: f32,
    /// Fall per sample, in dB.
    fall: f32,
}

impl Meter {
    /// A meter at rest, for samples at `rate` Hz.
    pub fn new(rate: u32) -> Self {
        Self { level: SILENCE_DBOV, fall: 20.0 / rate.max(1) as f32 }
    }

    /// Takes in samples and returns the level, in dBov.
    pub fn feed(&mut self, samples: &[i16]) -> f32 {
        let fallen = (self.level - self.fall * samples.len() as f32).max(SILENCE_DBOV);
        self.level = fallen.max(dbov(samples));
        self.level
    }

    /// The level last returned.
    pub fn level(&self) -> f32 {
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_signal::tone;
    use super::*;

    #[test]
    fn a_full_scale_square_is_the_reference_and_a_sine_3_decibels_below() {
        assert_eq!(dbov(&[i16::MIN; 480]), 0.0);
        assert!((dbov(&tone(1_000.0, 24_000, 480, 32_767.0)) + 3.01).abs() < 0.01);
        assert!((dbov(&tone(1_000.0, 24_000, 480, 3_276.7)) + 23.01).abs() < 0.01);
    }

    #[test]
    fn silence_and_nothing_have_a_finite_level() {
        assert_eq!((dbov(&[0; 480]), dbov(&[])), (SILENCE_DBOV, SILENCE_DBOV));
        assert_eq!((peak(&[]), peak(&[3, i16::MIN, 5])), (0, 32_768));
    }

    #[test]
    fn a_meter_rises_at_once_and_falls_slowly() {
        let mut meter = Meter::new(24_000);
        assert_eq!(meter.feed(&[i16::MIN; 480]), 0.0);
        for _ in 0..50 {
            meter.feed(&[0; 480]);
        }
        assert!((meter.level() + 20.0).abs() < 0.01, "{}", meter.level());
    }
}
