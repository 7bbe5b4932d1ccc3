//! How much audio belongs between two packets, so that sample count equals RTP time.
//!
//! The provider's clock is the number of samples it gets. A gap in the timestamps is therefore filled,
//! and while no packets come, silence is owed at the pace of the wall clock; what has been fed that way
//! is subtracted when packets resume. A far end (or a network) that was merely stalled then delivers
//! audio for time that has already passed as silence: nobody's words are dropped for that, but the
//! surplus is remembered and repaid from the next gaps and quiet frames.

use std::time::{Duration, Instant};

/// Samples per second of the bridge.
const RATE: i64 = 24_000;

/// Keeps the account of one stream's audio. All sample counts are at 24 kHz.
#[derive(Debug)]
pub struct Timeline {
    /// RTP time of the end of the last packet, and its clock rate.
    end: Option<(u32, u32)>,
    /// When the last packet arrived; before the first one, when the stream began.
    last_arrival: Instant,
    /// Length of the last packet.
    last_samples: i64,
    /// Silence fed since the last packet.
    fed: i64,
    /// Silence fed for time whose audio came all the same.
    surplus: i64,
    /// Part of `fed` that may turn out to be surplus if packets now come in a burst.
    doubtful: i64,
    /// The far end announced silence (comfort noise), so there is no packet to wait for.
    announced: bool,
    /// An owed frame was put off once because we were late ourselves.
    put_off: Option<Instant>,
}

impl Timeline {
    /// An account that begins with silence at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            end: None,
            last_arrival: now,
            last_samples: 0,
            fed: 0,
            surplus: 0,
            doubtful: 0,
            announced: false,
            put_off: None,
        }
    }

    /// Takes a packet of `samples` and says how many samples must be filled in before it.
    ///
    /// `restarted`: timestamps before and after it do not compare.
    pub fn packet(
        &mut self,
        arrival: Instant,
        timestamp: u32,
        clock_rate: u32,
        samples: usize,
        restarted: bool,
    ) -> usize {
        let samples = samples as i64;
        let elapsed = samples_in(arrival.saturating_duration_since(self.last_arrival));
        let burst = elapsed < self.last_samples / 2;
        self.settle_doubt(burst, samples);
        let fill = match self.gap(timestamp, clock_rate, restarted) {
            Some(gap) if gap >= 0 && gap - self.fed <= MAX_FILL.max(elapsed - self.fed + MAX_FILL) => {
                self.fill_gap(gap)
            }
            Some(gap) if gap < 0 && -gap <= samples => 0,
            _ => self.fill_by_clock(elapsed),
        };
        let units = samples * i64::from(clock_rate) / RATE;
        self.end = Some((timestamp.wrapping_add(units as u32), clock_rate));
        self.last_arrival = self.last_arrival.max(arrival);
        self.last_samples = samples;
        self.fed = 0;
        self.announced = samples == 0;
        self.put_off = None;
        fill as usize
    }

    /// Takes audio of `samples` that has no timestamp, of a stream of bytes: it is not late any more. What was lacking
    /// before it is told elsewhere.
    pub fn arrived(&mut self, arrival: Instant, samples: usize) {
        self.end = Some((0, RATE as u32));
        self.last_arrival = self.last_arrival.max(arrival);
        self.last_samples = samples as i64;
        (self.fed, self.announced, self.put_off) = (0, false, None);
    }

    /// Samples of silence owed at `now` because no packet came. Call it at
    /// [`next_timeout`](Self::next_timeout).
    pub fn owed(&mut self, now: Instant) -> usize {
        let due = self.next_timeout();
        if now < due {
            return 0;
        }
        // When we are late, the packets are probably in the socket: let them be read first.
        if now.saturating_duration_since(due) > FRAME && self.put_off.is_none() {
            self.put_off = Some(now + FRAME / 2);
            return 0;
        }
        self.put_off = None;
        let first = self.last_arrival + self.patience() + fed_time(self.fed);
        let frames = now.saturating_duration_since(first).as_millis() / FRAME.as_millis() + 1;
        let owed = FRAME_SAMPLES * frames as i64;
        self.fed += owed;
        owed as usize
    }

    /// When the next frame of silence is owed.
    pub fn next_timeout(&self) -> Instant {
        self.put_off.unwrap_or_else(|| self.last_arrival + self.patience() + fed_time(self.fed))
    }

    /// Whether a quiet frame of `samples` should be left out to repay surplus silence; if so it is
    /// taken as left out.
    pub fn leave_out(&mut self, samples: usize) -> bool {
        let repay = samples > 0 && self.surplus >= samples as i64;
        if repay {
            self.surplus -= samples as i64;
        }
        repay
    }

    /// Whether there is surplus silence to repay.
    pub fn has_surplus(&self) -> bool {
        self.surplus > 0
    }

    fn patience(&self) -> Duration {
        if self.end.is_none() || self.announced {
            return FRAME;
        }
        PATIENCE + fed_time(self.last_samples)
    }

    fn gap(&self, timestamp: u32, clock_rate: u32, restarted: bool) -> Option<i64> {
        let (end, rate) = self.end?;
        if restarted || rate != clock_rate {
            return None;
        }
        Some(i64::from(timestamp.wrapping_sub(end) as i32) * RATE / i64::from(clock_rate))
    }

    fn fill_gap(&mut self, gap: i64) -> i64 {
        let need = gap - self.fed;
        if need < 0 {
            self.doubtful = -need;
            return 0;
        }
        let repaid = need.min(self.surplus);
        self.surplus -= repaid;
        need - repaid
    }

    /// Without comparable timestamps only the clock says how long the gap was, to within the jitter.
    fn fill_by_clock(&mut self, elapsed: i64) -> i64 {
        if self.end.is_none() {
            return 0;
        }
        let need = (elapsed - self.last_samples - self.fed).clamp(0, MAX_FILL);
        need / FRAME_SAMPLES * FRAME_SAMPLES
    }

    fn settle_doubt(&mut self, burst: bool, samples: i64) {
        if self.doubtful > 0 {
            let surplus = if burst { self.doubtful.min(samples) } else { self.doubtful };
            self.surplus += if burst { surplus } else { 0 };
            self.doubtful -= surplus;
        }
    }
}

fn samples_in(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / RATE) * RATE / 1_000_000
}

fn fed_time(samples: i64) -> Duration {
    Duration::from_micros((samples * 1_000_000 / RATE) as u64)
}

const FRAME: Duration = Duration::from_millis(20);
const FRAME_SAMPLES: i64 = 480;
/// How late a packet may be before silence is fed in its stead: two frames of jitter.
const PATIENCE: Duration = Duration::from_millis(40);
/// The most that is filled into a gap which the clock does not confirm: 500 ms.
const MAX_FILL: i64 = 12_000;

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        timeline: Timeline,
        start: Instant,
        samples: usize,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Self { timeline: Timeline::new(start), start, samples: 0 }
        }

        /// A 20 ms packet of an 8 kHz clock.
        fn packet(&mut self, at_ms: u64, timestamp: u32) -> usize {
            let at = self.start + Duration::from_millis(at_ms);
            let fill = self.timeline.packet(at, timestamp, 8000, 480, false);
            self.samples += fill + 480;
            fill
        }

        fn idle_until(&mut self, at_ms: u64) {
            let end = self.start + Duration::from_millis(at_ms);
            while self.timeline.next_timeout() <= end {
                self.samples += self.timeline.owed(self.timeline.next_timeout());
            }
        }
    }

    #[test]
    fn continuous_packets_need_no_filling() {
        let mut bench = Bench::new();
        for n in 0..50u32 {
            assert_eq!(bench.packet(u64::from(n) * 20, n.wrapping_mul(160).wrapping_sub(4000)), 0);
        }
    }

    #[test]
    fn silence_before_the_first_packet_is_fed_at_the_pace_of_time() {
        let mut bench = Bench::new();
        bench.idle_until(10_000);
        assert_eq!(bench.samples, 240_000);
        assert_eq!(bench.packet(10_005, 77), 0);
    }

    #[test]
    fn after_a_pause_sample_count_equals_rtp_time() {
        for pause_ms in [20u64, 60, 100, 101, 119, 500, 3_000, 60_000] {
            let mut bench = Bench::new();
            bench.packet(0, 0);
            bench.idle_until(pause_ms + 20);
            let timestamp = (pause_ms + 20) as u32 * 8;
            bench.packet(pause_ms + 20, timestamp);
            assert_eq!(bench.samples as u64, (pause_ms + 40) * 24, "{pause_ms}");
        }
    }

    #[test]
    fn silence_trails_time_by_at_most_60_ms() {
        let mut bench = Bench::new();
        bench.packet(0, 0);
        for at in 0..5_000 {
            bench.idle_until(at);
            let behind = (at + 20).saturating_sub(bench.samples as u64 / 24);
            assert!(behind <= 60, "{at}: {behind}");
        }
    }

    #[test]
    fn an_implausible_jump_is_not_filled() {
        let mut bench = Bench::new();
        bench.packet(0, 0);
        assert_eq!(bench.packet(20, 8_000_000), 0);
        assert_eq!(bench.packet(40, 8_000_160), 0);
        assert_eq!(bench.packet(60, 5), 0);
    }

    #[test]
    fn a_gap_confirmed_by_the_clock_is_filled_however_long() {
        let mut bench = Bench::new();
        bench.packet(0, 0);
        // Our own stall: nobody fed silence meanwhile.
        assert_eq!(bench.packet(10_020, 80_160), 240_000);
    }

    #[test]
    fn a_stalled_line_delivers_all_and_the_surplus_is_repaid() {
        let mut bench = Bench::new();
        bench.packet(0, 0);
        bench.idle_until(1_000);
        let fed = bench.samples - 480;
        assert!(fed > 20_000);
        for n in 1..50 {
            assert_eq!(bench.packet(1_000, n * 160), 0);
        }
        assert!(bench.timeline.has_surplus());
        // A pause of 1.5 s repays it.
        bench.idle_until(1_060);
        let repaid = bench.packet(2_500, 160 * 50 + 12_000);
        assert!(repaid < 36_000);
        assert!(!bench.timeline.has_surplus() || bench.samples as u64 >= 2_520 * 24);
        assert!((bench.samples as i64 - 2_520 * 24).abs() <= 480 * 2, "{}", bench.samples);
    }

    #[test]
    fn a_timestamp_that_stood_still_over_a_pause_leaves_no_surplus() {
        let mut bench = Bench::new();
        bench.packet(0, 0);
        bench.idle_until(2_000);
        for n in 0..10 {
            bench.packet(2_000 + n * 20, 160 + n as u32 * 160);
        }
        assert!(!bench.timeline.has_surplus());
    }

    #[test]
    fn when_we_are_late_ourselves_packets_are_read_before_silence_is_fed() {
        let mut bench = Bench::new();
        bench.packet(0, 0);
        let late = bench.start + Duration::from_millis(400);
        assert_eq!(bench.timeline.owed(late), 0);
        assert_eq!(bench.packet(400, 160), 0);
        assert!(!bench.timeline.has_surplus());
        let later = late + Duration::from_millis(400);
        assert_eq!(bench.timeline.owed(later), 0);
        let owed = bench.timeline.owed(later + Duration::from_millis(10));
        assert!(owed >= 480 * 16, "{owed}");
    }
}
