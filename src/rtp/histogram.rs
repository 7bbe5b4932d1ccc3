//! A small histogram of durations with fixed buckets, for percentiles without allocation.

use std::time::Duration;

/// Counts of durations from 1 µs to 16 s in buckets at most 1/8 wide of their lower bound.
///
/// 192 counters, 768 bytes; recording is a shift and an increment.
#[derive(Clone)]
pub struct Histogram {
    buckets: [u32; BUCKETS],
    count: u64,
    max: Duration,
}

impl Histogram {
    /// An empty histogram.
    pub const fn new() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, max: Duration::ZERO }
    }

    /// Counts one duration; durations beyond the range count in the last bucket.
    pub fn record(&mut self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let bucket = &mut self.buckets[index(micros)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest recorded.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The duration that `quantile` (0..=1) of the recorded ones do not exceed, at most 12.5 % too high;
    /// `None` if nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let wanted = (quantile.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            seen += u64::from(*bucket);
            if seen >= wanted {
                return Some(Duration::from_micros(upper_bound(at)).min(self.max));
            }
        }
        Some(self.max)
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.saturating_add(*theirs);
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

/// Eight buckets per power of two; below 8 µs one per microsecond.
fn index(micros: u64) -> usize {
    if micros < 8 {
        return micros as usize;
    }
    let exponent = 63 - micros.leading_zeros();
    let step = (micros >> (exponent - 3)) & 7;
    ((exponent as usize - 2) * 8 + step as usize).min(BUCKETS - 1)
}

fn upper_bound(index: usize) -> u64 {
    if index < 8 {
        return index as u64;
    }
    let (exponent, step) = (index / 8 + 2, index % 8);
    ((8 + step as u64 + 1) << (exponent - 3)) - 1
}

const BUCKETS: usize = 192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_an_eighth() {
        let mut histogram = Histogram::new();
        (1..=10_000u64).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        for (quantile, exact) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.1, 1_000.0), (1.0, 10_000.0)] {
            let got = histogram.quantile(quantile).expect("recorded").as_micros() as f64;
            assert!(got >= exact && got <= exact * 1.125, "{quantile}: {got}");
        }
    }

    #[test]
    fn an_empty_histogram_has_no_quantile_and_any_duration_fits() {
        assert_eq!(Histogram::new().quantile(0.99), None);
        let mut histogram = Histogram::new();
        for value in [Duration::ZERO, Duration::from_micros(7), Duration::from_micros(8), Duration::MAX] {
            histogram.record(value);
        }
        assert_eq!((histogram.count(), histogram.max()), (4, Duration::MAX));
    }

    #[test]
    fn every_duration_is_below_the_bound_of_its_bucket_and_above_that_of_the_one_before() {
        for micros in (0..100_000).chain((100_000..16_000_000).step_by(997)) {
            let at = index(micros);
            assert!(micros <= upper_bound(at), "{micros}");
            assert!(at == 0 || micros > upper_bound(at - 1), "{micros}");
        }
    }
}
