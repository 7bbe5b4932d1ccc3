//! Statistics of moments: quantiles, and how well packets keep to the 20 ms grid. Pure.

use std::time::{Duration, Instant};

use serde::Serialize;

/// How a span of time is distributed: counted in steps of 10 µs up to a second, the largest kept exactly.
#[derive(Debug, Clone)]
pub struct Spread {
    steps: Vec<u64>,
    count: u64,
    largest: Duration,
}

impl Default for Spread {
    fn default() -> Self {
        Self { steps: vec![0; STEPS], count: 0, largest: Duration::ZERO }
    }
}

impl Spread {
    /// Counts one.
    pub fn add(&mut self, span: Duration) {
        let step = (span.as_nanos() / STEP.as_nanos()).min(STEPS as u128 - 1) as usize;
        self.steps[step] += 1;
        self.count += 1;
        self.largest = self.largest.max(span);
    }

    /// The smallest span that `share` (0 to 1) of all do not exceed; rounded up to a step.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (step, count) in self.steps.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return (STEP * (step as u32 + 1)).min(self.largest);
            }
        }
        self.largest
    }

    /// The figures of it.
    pub fn figures(&self) -> Figures {
        Figures {
            count: self.count,
            p50_ms: millis(self.quantile(0.5)),
            p95_ms: millis(self.quantile(0.95)),
            p99_ms: millis(self.quantile(0.99)),
            max_ms: millis(self.largest),
        }
    }
}

impl Extend<Duration> for Spread {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, spans: T) {
        spans.into_iter().for_each(|span| self.add(span));
    }
}

/// What a report says of a [`Spread`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// How many there were; without any, the rest is 0.
    pub count: u64,
    /// Half were not longer.
    pub p50_ms: f64,
    /// Nineteen of twenty were not longer.
    pub p95_ms: f64,
    /// All but one in a hundred were not longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Figures {
    /// In one line, for people.
    pub fn line(&self, name: &str) -> String {
        format!(
            "{name:<34} p50 {:>7.3}  p95 {:>7.3}  p99 {:>7.3}  max {:>8.3} ms  ({})",
            self.p50_ms, self.p95_ms, self.p99_ms, self.max_ms, self.count
        )
    }
}

/// A span in milliseconds, to the microsecond.
pub fn millis(span: Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}

/// One stream's packets as they arrive: continuity of its clock and distance from its grid.
#[derive(Debug, Default)]
pub struct Stream {
    last: Option<Packet>,
    /// Frames since the first packet, by the timestamps.
    frame: u64,
    origin: Option<Instant>,
    /// Distances from the first packet's grid, until there are enough to tell where the grid is.
    unsettled: Vec<i64>,
    grid_ns: Option<i64>,
    /// Faults found so far.
    pub faults: Faults,
}

/// What is wrong with a stream's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Packets that came twice or after a later one.
    pub disordered: u64,
    /// Timestamps that did not advance by 160 a packet.
    pub timestamp_jumps: u64,
    /// Those that a marker bit announced: a stream that went on from another source (RFC 3551 section 4.1).
    pub restarts: u64,
}

impl Faults {
    /// Adds another stream's.
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.disordered += other.disordered;
        self.timestamp_jumps += other.timestamp_jumps;
        self.restarts += other.restarts;
    }
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    sequence: u16,
    timestamp: u32,
    at: Instant,
}

/// How a packet arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// How much the distance to the packet before differs from 20 ms.
    pub gap_error: Duration,
    /// How far it is from the stream's own grid, once that is known.
    pub grid_error: Option<Duration>,
}

impl Stream {
    /// Takes the next packet; nothing is said of the first one and of those after a fault.
    pub fn packet(&mut self, sequence: u16, timestamp: u32, marker: bool, at: Instant) -> Option<Arrival> {
        let origin = *self.origin.get_or_insert(at);
        let last = self.last.replace(Packet { sequence, timestamp, at })?;
        match sequence.wrapping_sub(last.sequence) {
            1 => {}
            step @ 2..0x8000 => self.faults.lost += u64::from(step - 1),
            _ => {
                self.faults.disordered += 1;
                self.last = Some(last);
                return None;
            }
        }
        let steps = u32::from(sequence.wrapping_sub(last.sequence));
        let advance = timestamp.wrapping_sub(last.timestamp);
        if advance != steps * SAMPLES {
            let kind = if marker { &mut self.faults.restarts } else { &mut self.faults.timestamp_jumps };
            *kind += 1;
        }
        self.frame += u64::from(advance / SAMPLES);
        if steps != 1 || advance != SAMPLES {
            return None;
        }
        let gap_error = (at - last.at).abs_diff(FRAME);
        let due = FRAME.as_nanos() as i64 * self.frame as i64;
        let grid_error = self.grid_error((at - origin).as_nanos() as i64 - due);
        Some(Arrival { gap_error, grid_error })
    }

    /// The grid is where the middle one of the first packets was.
    fn grid_error(&mut self, distance: i64) -> Option<Duration> {
        if let Some(grid) = self.grid_ns {
            return Some(Duration::from_nanos(distance.abs_diff(grid)));
        }
        self.unsettled.push(distance);
        if self.unsettled.len() == SETTLE {
            self.unsettled.sort_unstable();
            self.grid_ns = Some(self.unsettled[SETTLE / 2]);
            self.unsettled = Vec::new();
        }
        None
    }
}

const STEP: Duration = Duration::from_micros(10);
const STEPS: usize = 100_000;
const FRAME: Duration = Duration::from_millis(20);
/// Of a frame at 8 kHz.
const SAMPLES: u32 = 160;
/// Packets from which the grid is found: 2 s.
const SETTLE: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_a_step() {
        let mut spread = Spread::default();
        spread.extend((1..=1000).map(|n| Duration::from_micros(n * 10)));
        let figures = spread.figures();
        assert_eq!(figures.count, 1000);
        assert!((figures.p50_ms - 5.0).abs() <= 0.011, "{figures:?}");
        assert!((figures.p99_ms - 9.9).abs() <= 0.011, "{figures:?}");
        assert_eq!(figures.max_ms, 10.0);
        assert_eq!(Spread::default().figures(), Figures::default());
    }

    #[test]
    fn a_late_packet_is_off_the_grid_and_does_not_move_it() {
        let start = Instant::now();
        let mut stream = Stream::default();
        let mut arrive = |n: u64, late_us: u64| {
            let at = start + Duration::from_millis(20 * n) + Duration::from_micros(late_us);
            stream.packet(n as u16, n as u32 * SAMPLES, false, at)
        };
        for n in 0..=SETTLE as u64 {
            arrive(n, if n == 0 { 900 } else { 100 });
        }
        let next = SETTLE as u64 + 1;
        let late = arrive(next, 3_100).unwrap();
        assert_eq!(late.gap_error, Duration::from_micros(3_000));
        assert_eq!(late.grid_error, Some(Duration::from_micros(3_000)));
        assert_eq!(arrive(next + 1, 100).unwrap().grid_error, Some(Duration::ZERO));
        assert_eq!(stream.faults, Faults::default());
    }

    #[test]
    fn loss_disorder_and_jumps_are_told_apart_across_the_wrap() {
        let now = Instant::now();
        let mut stream = Stream::default();
        for (sequence, timestamp) in
            [(65_534, 0), (65_535, 160), (1, 480), (0, 320), (2, 640), (3, 1_600), (4, 1_760)]
        {
            stream.packet(sequence, timestamp, false, now);
        }
        stream.packet(5, 9_000, true, now);
        assert_eq!(stream.faults, Faults { lost: 1, disordered: 1, timestamp_jumps: 1, restarts: 1 });
    }
}
