//! The timer values of RFC 3261 (section 17, table 4) and the retransmission schedule they make.

use std::time::{Duration, Instant};

/// T1, T2 and T4; every other timer follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerValues {
    /// Estimate of the round trip, and first retransmission interval. Default 500 ms.
    pub t1: Duration,
    /// Longest interval between retransmissions of non-INVITE requests and of responses to INVITE. Default 4 s.
    pub t2: Duration,
    /// How long a message may stay in the network. Default 5 s.
    pub t4: Duration,
}

impl TimerValues {
    /// 64 × T1: timers B, F, H, J, L and M, and the life of an unacknowledged 2xx. 32 s by default.
    pub const fn timeout(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// Timer D: how long an INVITE client stays to acknowledge repeated finals. At least 32 s on UDP, 0 on streams.
    pub fn wait_d(&self, reliable: bool) -> Duration {
        if reliable { Duration::ZERO } else { self.timeout().max(Duration::from_secs(32)) }
    }

    /// Timers I and K: how long repeats are absorbed. T4 on UDP, 0 on streams.
    pub const fn wait_ik(&self, reliable: bool) -> Duration {
        if reliable { Duration::ZERO } else { self.t4 }
    }

    /// Timer J: how long a non-INVITE server repeats its final. 64 × T1 on UDP, 0 on streams.
    pub const fn wait_j(&self, reliable: bool) -> Duration {
        if reliable { Duration::ZERO } else { self.timeout() }
    }
}

impl Default for TimerValues {
    fn default() -> Self {
        Self { t1: Duration::from_millis(500), t2: Duration::from_secs(4), t4: Duration::from_secs(5) }
    }
}

/// When to send again, and how long to wait after that: T1, doubling, up to a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resend {
    at: Instant,
    interval: Duration,
    cap: Duration,
}

impl Resend {
    /// First again after T1; the wait doubles without a cap (timer A; RFC 3262 section 3).
    pub fn doubling(now: Instant, values: &TimerValues) -> Self {
        Self { at: now + values.t1, interval: values.t1, cap: Duration::MAX }
    }

    /// First again after T1; the wait doubles up to T2 (timers E and G, and 2xx of RFC 3261 section 13.3.1.4).
    pub fn capped(now: Instant, values: &TimerValues) -> Self {
        Self { at: now + values.t1, interval: values.t1, cap: values.t2 }
    }

    /// Every T2 from here (timer E after a provisional response).
    pub fn every_t2(now: Instant, values: &TimerValues) -> Self {
        Self { at: now + values.t2, interval: values.t2, cap: values.t2 }
    }

    /// The moment of the next transmission.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Whether it is time; if so, the next moment is set. A late call does not make up for missed ones.
    pub fn take_due(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        self.interval = self.interval.saturating_mul(2).min(self.cap);
        self.at = now + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(mut resend: Resend, start: Instant, count: usize) -> Vec<u128> {
        let mut at = start;
        (0..count)
            .map(|_| {
                let wait = resend.at() - at;
                at = resend.at();
                assert!(resend.take_due(at));
                wait.as_millis()
            })
            .collect()
    }

    #[test]
    fn timer_a_doubles_without_a_cap() {
        let now = Instant::now();
        let resend = Resend::doubling(now, &TimerValues::default());
        assert_eq!(waits(resend, now, 6), [500, 1_000, 2_000, 4_000, 8_000, 16_000]);
    }

    #[test]
    fn timers_e_and_g_double_up_to_t2() {
        let now = Instant::now();
        let resend = Resend::capped(now, &TimerValues::default());
        assert_eq!(waits(resend, now, 6), [500, 1_000, 2_000, 4_000, 4_000, 4_000]);
    }

    #[test]
    fn streams_wait_for_nothing() {
        let values = TimerValues::default();
        assert_eq!(values.wait_d(true) + values.wait_ik(true) + values.wait_j(true), Duration::ZERO);
        assert_eq!(values.wait_j(false), Duration::from_secs(32));
    }
}
