//! Sequence numbers and jitter of one source: RFC 3550 appendices A.1, A.3 and A.8.

use std::time::Instant;

/// Where a sequence number falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Seen for the first time; its number extended beyond 16 bits.
    New(u64),
    /// Seen before.
    Duplicate,
    /// Far off. Ignored unless the next packet follows it.
    Stray,
    /// The second packet in a row that is far off: the source has restarted with this extended number.
    Restart(u64),
}

/// What has been received of one source.
#[derive(Debug, Clone)]
pub struct Sequence {
    first: u64,
    highest: u64,
    /// Bit n: `highest - n` has been received.
    seen: u128,
    received: u64,
    stray: Option<u16>,
    /// Expected and received before the last report, for the fraction lost.
    reported: (u64, u64),
}

impl Sequence {
    /// Starts with the first packet of a source, which counts as received.
    pub fn new(sequence: u16) -> Self {
        // Room below, for packets that the first one overtook.
        let first = (1 << 16) | u64::from(sequence);
        Self { first, highest: first, seen: 1, received: 1, stray: None, reported: (0, 0) }
    }

    /// Takes the next packet's number.
    pub fn record(&mut self, sequence: u16) -> Arrival {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead == 0 {
            return Arrival::Duplicate;
        }
        if ahead < MAX_DROPOUT {
            self.advance(u64::from(ahead));
            return Arrival::New(self.highest);
        }
        let behind = (self.highest as u16).wrapping_sub(sequence);
        if behind <= MAX_MISORDER {
            return self.fill(u64::from(behind));
        }
        if self.stray == Some(sequence) {
            *self = Self::new(sequence);
            return Arrival::Restart(self.highest);
        }
        self.stray = Some(sequence.wrapping_add(1));
        Arrival::Stray
    }

    /// Packets between the first and the highest number.
    pub fn expected(&self) -> u64 {
        self.highest - self.first + 1
    }

    /// Packets received, duplicates not counted.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The first extended number.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The highest extended number. Its low 32 bits are the cycles and number of a report block.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Packets that have not come.
    pub fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received)
    }

    /// Loss since the previous call, in 1/256 (A.3).
    pub fn take_fraction_lost(&mut self) -> u8 {
        let expected = self.expected().saturating_sub(self.reported.0);
        let received = self.received.saturating_sub(self.reported.1);
        self.reported = (self.expected(), self.received);
        let lost = expected.saturating_sub(received);
        (lost << 8).checked_div(expected).unwrap_or(0).min(255) as u8
    }

    fn advance(&mut self, steps: u64) {
        self.seen = if steps < 128 { self.seen << steps | 1 } else { 1 };
        self.highest += steps;
        self.received += 1;
        self.stray = None;
    }

    fn fill(&mut self, behind: u64) -> Arrival {
        let bit = 1u128 << behind;
        if self.seen & bit != 0 {
            return Arrival::Duplicate;
        }
        self.seen |= bit;
        let number = self.highest - behind;
        self.first = self.first.min(number);
        self.received += 1;
        Arrival::New(number)
    }
}

/// Interarrival jitter (A.8), kept in seconds so that a change of clock rate does not upset it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Jitter {
    seconds: f64,
    previous: Option<(Instant, u32)>,
}

impl Jitter {
    /// Takes a packet's arrival and timestamp.
    pub fn record(&mut self, arrival: Instant, timestamp: u32, clock_rate: u32) {
        if let Some((then, before)) = self.previous.replace((arrival, timestamp)) {
            let sent = f64::from(timestamp.wrapping_sub(before) as i32) / f64::from(clock_rate);
            let difference = (arrival.saturating_duration_since(then).as_secs_f64() - sent).abs();
            // A restarted timestamp says nothing about the network.
            if difference < MAX_TRANSIT_STEP {
                self.seconds += (difference - self.seconds) / 16.0;
            }
        }
    }

    /// Forgets the previous packet, as after a change of source or clock; the estimate stays.
    pub fn restart(&mut self) {
        self.previous = None;
    }

    /// The estimate in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }
}

/// A jump ahead by this much is a restart (A.1).
const MAX_DROPOUT: u16 = 3000;
/// A packet this far behind is late, farther is a restart (A.1).
const MAX_MISORDER: u16 = 100;
const MAX_TRANSIT_STEP: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn counts_through_the_wrap() {
        let mut sequence = Sequence::new(65_530);
        for n in 1..=20u16 {
            assert_eq!(sequence.record(65_530u16.wrapping_add(n)), Arrival::New(131_066 + u64::from(n)));
        }
        assert_eq!((sequence.expected(), sequence.received(), sequence.lost()), (21, 21, 0));
    }

    #[test]
    fn a_duplicate_is_no_packet_and_a_late_one_fills_its_place() {
        let mut sequence = Sequence::new(10);
        sequence.record(13);
        assert_eq!(sequence.lost(), 2);
        assert_eq!(sequence.record(11), Arrival::New(65_547));
        assert_eq!(sequence.record(11), Arrival::Duplicate);
        assert_eq!(sequence.record(13), Arrival::Duplicate);
        assert_eq!((sequence.lost(), sequence.received()), (1, 3));
    }

    #[test]
    fn what_the_first_packet_overtook_still_counts() {
        let mut sequence = Sequence::new(1);
        assert_eq!(sequence.record(0), Arrival::New(65_536));
        assert_eq!(sequence.record(65_535), Arrival::New(65_535));
        assert_eq!((sequence.expected(), sequence.lost()), (3, 0));
    }

    #[test]
    fn one_wild_packet_is_ignored_and_two_in_a_row_restart() {
        let mut sequence = Sequence::new(100);
        assert_eq!(sequence.record(40_000), Arrival::Stray);
        assert_eq!(sequence.record(101), Arrival::New(65_637));
        assert_eq!(sequence.record(40_000), Arrival::Stray);
        assert_eq!(sequence.record(40_001), Arrival::Restart(105_537));
        assert_eq!(sequence.record(40_002), Arrival::New(105_538));
    }

    #[test]
    fn fraction_lost_is_of_the_interval() {
        let mut sequence = Sequence::new(0);
        for n in (1..100).filter(|n| n % 4 != 0) {
            sequence.record(n);
        }
        assert_eq!(sequence.take_fraction_lost(), 61, "24 of 100");
        for n in 100..200 {
            sequence.record(n);
        }
        assert_eq!(sequence.take_fraction_lost(), 0);
        assert_eq!(sequence.take_fraction_lost(), 0, "nothing expected, nothing lost");
    }

    #[test]
    fn jitter_is_zero_on_a_perfect_line_and_follows_an_uneven_one() {
        let (mut jitter, start) = (Jitter::default(), Instant::now());
        for n in 0..100u32 {
            jitter.record(start + Duration::from_millis(20) * n, n * 160, 8000);
        }
        assert!(jitter.seconds() < 1e-9);
        for n in 100..500u32 {
            let wobble = Duration::from_millis(if n % 2 == 0 { 4 } else { 0 });
            jitter.record(start + Duration::from_millis(20) * n + wobble, n * 160, 8000);
        }
        assert!((jitter.seconds() - 0.004).abs() < 0.0005, "{}", jitter.seconds());
    }
}
