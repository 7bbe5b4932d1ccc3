//! How many calls a trunk carries and how fast new ones may start.

use std::time::{Duration, Instant};

/// Counts the calls of one trunk and paces its outgoing ones.
#[derive(Debug)]
pub struct Limits {
    channels: usize,
    outbound_max: usize,
    interval: Duration,
    inbound: usize,
    outbound: usize,
    /// The earliest moment the next outgoing call may start.
    free_at: Option<Instant>,
}

/// Whether a call may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It is counted, and may start then (which may be now).
    At(Instant),
    /// Every channel is in use.
    Full,
    /// Its turn would come after more than [`WAIT_MAX`].
    Pace,
}

impl Limits {
    /// At most `channels` calls in both directions, `outbound` outgoing ones and `cps` new outgoing ones a
    /// second; 0 is no limit.
    pub fn new(channels: usize, outbound: usize, cps: f32) -> Self {
        let interval = if cps > 0.0 { Duration::from_secs_f32(1.0 / cps.max(0.001)) } else { Duration::ZERO };
        Self { channels, outbound_max: outbound, interval, inbound: 0, outbound: 0, free_at: None }
    }

    /// Counts an outgoing call, unless it has to be refused.
    pub fn enter_outbound(&mut self, now: Instant) -> Entry {
        if self.is_full() || (self.outbound_max > 0 && self.outbound >= self.outbound_max) {
            return Entry::Full;
        }
        let at = self.free_at.map_or(now, |free_at| free_at.max(now));
        if at > now + WAIT_MAX {
            return Entry::Pace;
        }
        self.free_at = Some(at + self.interval);
        self.outbound += 1;
        Entry::At(at)
    }

    /// Counts an incoming call; `false`: every channel is in use.
    pub fn enter_inbound(&mut self) -> bool {
        let room = !self.is_full();
        self.inbound += usize::from(room);
        room
    }

    /// An outgoing call is over.
    pub fn leave_outbound(&mut self) {
        self.outbound = self.outbound.saturating_sub(1);
    }

    /// An incoming call is over.
    pub fn leave_inbound(&mut self) {
        self.inbound = self.inbound.saturating_sub(1);
    }

    /// Calls in both directions.
    pub fn calls(&self) -> usize {
        self.inbound + self.outbound
    }

    fn is_full(&self) -> bool {
        self.channels > 0 && self.calls() >= self.channels
    }
}

/// Longest time an outgoing call waits for its turn.
pub const WAIT_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_count_both_directions_and_are_given_back() {
        let now = Instant::now();
        let mut limits = Limits::new(2, 0, 0.0);
        assert!(limits.enter_inbound());
        assert_eq!(limits.enter_outbound(now), Entry::At(now));
        assert_eq!((limits.enter_inbound(), limits.enter_outbound(now)), (false, Entry::Full));
        limits.leave_inbound();
        assert!(limits.enter_inbound());
        assert_eq!(limits.calls(), 2);
    }

    #[test]
    fn outgoing_calls_have_a_limit_of_their_own() {
        let now = Instant::now();
        let mut limits = Limits::new(0, 1, 0.0);
        assert_eq!(limits.enter_outbound(now), Entry::At(now));
        assert_eq!(limits.enter_outbound(now), Entry::Full);
        assert!(limits.enter_inbound());
    }

    #[test]
    fn the_pace_spreads_calls_and_refuses_those_that_would_wait_too_long() {
        let now = Instant::now();
        let mut limits = Limits::new(0, 0, 1.0);
        let turns: Vec<Entry> = (0..4).map(|_| limits.enter_outbound(now)).collect();
        let at = |seconds| Entry::At(now + Duration::from_secs(seconds));
        assert_eq!(turns, [at(0), at(1), at(2), Entry::Pace]);
        assert_eq!(limits.calls(), 3);
        let later = now + Duration::from_secs(10);
        assert_eq!(limits.enter_outbound(later), Entry::At(later));
    }
}
