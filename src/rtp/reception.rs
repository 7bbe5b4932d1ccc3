//! Received packets in the order they were sent.
//!
//! In-order packets pass at once. Only when a packet overtakes another does it wait, for a short time
//! and with few companions; then the hole is given up and whoever comes for it later is late. A new
//! synchronization source is believed at its second consecutive packet (RFC 3550 A.1), and the first is
//! kept until then, so that nothing of it is lost.

use std::time::{Duration, Instant};

use crate::rtp::packet::{Header, Packet};
use crate::rtp::sequence::{Arrival, Sequence};

/// A packet whose turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released<'a> {
    /// The packet.
    pub packet: Packet<'a>,
    /// Packets missing directly before it.
    pub missing: u64,
    /// The source or its numbering began anew: timestamps before and after do not compare.
    pub restarted: bool,
    /// When it arrived.
    pub arrival: Instant,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was released or is waiting for one that it overtook.
    Taken,
    /// It is the second of a new source, and both have been released.
    NewSource,
    /// It came twice.
    Duplicate,
    /// Its place has been given up.
    Late,
    /// It may be the first of a new source or a new numbering.
    Probation,
}

/// A packet that may be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Its number, extended beyond 16 bits.
    pub number: u64,
    /// The source or its numbering began anew.
    pub restarted: bool,
}

/// Packet counts over all sources so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Received, duplicates not counted.
    pub received: u64,
    /// Between first and last number of each source.
    pub expected: u64,
    /// Came twice.
    pub duplicate: u64,
    /// Came after their place was given up.
    pub late: u64,
    /// Came after a higher number, in time.
    pub reordered: u64,
}

impl Counts {
    /// Packets that never came.
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }
}

/// Puts one stream's packets in order.
#[derive(Debug)]
pub struct Reception {
    wait: Duration,
    window: usize,
    source: Option<Source>,
    /// The first packet of what may be a new source.
    candidate: Option<Held>,
    /// Packets that overtook another, by number. At most `window`.
    held: Vec<Held>,
    /// Payload buffers not in use.
    spare: Vec<Vec<u8>>,
    /// Counts of finished sources and of events.
    past: Counts,
}

#[derive(Debug)]
struct Source {
    ssrc: u32,
    sequence: Sequence,
    /// The next number to release.
    next: u64,
}

#[derive(Debug)]
struct Held {
    number: u64,
    header: Header,
    payload: Vec<u8>,
    arrival: Instant,
}

impl Reception {
    /// Waits `wait` for overtaken packets, holding at most `window` (1..=16) packets meanwhile.
    pub fn new(wait: Duration, window: usize) -> Self {
        let window = window.clamp(1, MAX_WINDOW);
        Self {
            wait,
            window,
            source: None,
            candidate: None,
            held: Vec::with_capacity(window + 1),
            spare: Vec::new(),
            past: Counts::default(),
        }
    }

    /// Changes the limits; packets that wait keep waiting.
    pub fn reconfigure(&mut self, wait: Duration, window: usize) {
        self.wait = wait;
        self.window = window.clamp(1, MAX_WINDOW);
    }

    /// The far end's synchronization source.
    pub fn ssrc(&self) -> Option<u32> {
        self.source.as_ref().map(|s| s.ssrc)
    }

    /// The current source's numbers.
    pub fn sequence(&mut self) -> Option<&mut Sequence> {
        self.source.as_mut().map(|s| &mut s.sequence)
    }

    /// Counts so far.
    pub fn counts(&self) -> Counts {
        let mut counts = self.past;
        if let Some(source) = &self.source {
            counts.received += source.sequence.received();
            counts.expected += source.sequence.expected();
        }
        counts
    }

    /// Takes a packet and releases all whose turn has come.
    pub fn receive(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        release: &mut impl FnMut(Released<'_>),
    ) -> Outcome {
        let Header { ssrc, sequence, .. } = packet.header;
        let Some(source) = &mut self.source else {
            self.begin(ssrc, sequence);
            release(Released { packet, missing: 0, restarted: true, arrival: now });
            return Outcome::Taken;
        };
        if source.ssrc != ssrc {
            return self.receive_other_source(now, packet, release);
        }
        let highest = source.sequence.highest();
        // Kept apart, because a restart wipes them.
        let (received, expected) = (source.sequence.received(), source.sequence.expected());
        match source.sequence.record(sequence) {
            Arrival::Duplicate => {
                self.past.duplicate += 1;
                Outcome::Duplicate
            }
            Arrival::Stray => Outcome::Probation,
            Arrival::Restart(number) => {
                self.past.received += received;
                self.past.expected += expected;
                self.release_all_held(release);
                if let Some(source) = &mut self.source {
                    source.next = number + 1;
                }
                release(Released { packet, missing: 0, restarted: true, arrival: now });
                Outcome::Taken
            }
            Arrival::New(number) if number < source.next => {
                self.past.late += 1;
                Outcome::Late
            }
            Arrival::New(number) => {
                self.past.reordered += u64::from(number < highest);
                if number == source.next {
                    source.next += 1;
                    release(Released { packet, missing: 0, restarted: false, arrival: now });
                    self.release_consecutive(release);
                } else {
                    self.hold(now, number, packet);
                    if self.held.len() > self.window {
                        self.give_hole_up(release);
                    }
                }
                Outcome::Taken
            }
        }
    }

    /// Counts a packet that is passed on as it came, in any order: nothing is kept, nothing waits. `None` for
    /// one that must not be passed on.
    pub fn pass(&mut self, now: Instant, header: Header) -> Option<Passed> {
        let passed = |number, restarted| Some(Passed { number, restarted });
        let Some(source) = &mut self.source else {
            self.begin(header.ssrc, header.sequence);
            return passed(self.source.as_ref()?.sequence.highest(), true);
        };
        if source.ssrc != header.ssrc {
            return self.pass_other_source(now, header);
        }
        let highest = source.sequence.highest();
        let (received, expected) = (source.sequence.received(), source.sequence.expected());
        match source.sequence.record(header.sequence) {
            Arrival::Duplicate => {
                self.past.duplicate += 1;
                None
            }
            Arrival::Stray => None,
            Arrival::Restart(number) => {
                self.past.received += received;
                self.past.expected += expected;
                source.next = number + 1;
                passed(number, true)
            }
            Arrival::New(number) => {
                self.past.reordered += u64::from(number < highest);
                source.next = source.next.max(number + 1);
                passed(number, false)
            }
        }
    }

    /// The second packet in a row of a new source is believed; the first is lost.
    fn pass_other_source(&mut self, now: Instant, header: Header) -> Option<Passed> {
        let follows = |first: &Held| {
            first.header.ssrc == header.ssrc && first.header.sequence.wrapping_add(1) == header.sequence
        };
        let first = self.candidate.take();
        if !first.as_ref().is_some_and(follows) {
            self.candidate = Some(self.keep(now, 0, Packet { header, payload: &[] }));
            return None;
        }
        self.begin(header.ssrc, header.sequence);
        Some(Passed { number: self.source.as_ref()?.sequence.highest(), restarted: true })
    }

    /// Forgets the packets that wait for others.
    pub fn drop_held(&mut self) {
        self.spare.extend(self.held.drain(..).map(|held| held.payload));
    }

    /// Gives up the holes whose time is over.
    pub fn handle_timeout(&mut self, now: Instant, release: &mut impl FnMut(Released<'_>)) {
        while self.next_timeout().is_some_and(|at| at <= now) {
            self.give_hole_up(release);
        }
    }

    /// When the oldest hole is given up.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.arrival).min().map(|arrival| arrival + self.wait)
    }

    fn begin(&mut self, ssrc: u32, sequence: u16) {
        if let Some(source) = self.source.take() {
            self.past.received += source.sequence.received();
            self.past.expected += source.sequence.expected();
        }
        let sequence = Sequence::new(sequence);
        let next = sequence.highest() + 1;
        self.source = Some(Source { ssrc, sequence, next });
    }

    fn receive_other_source(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        release: &mut impl FnMut(Released<'_>),
    ) -> Outcome {
        let Header { ssrc, sequence, .. } = packet.header;
        let first = self.candidate.take();
        match first {
            Some(first) if first.header.ssrc == ssrc && first.header.sequence.wrapping_add(1) == sequence => {
                self.release_all_held(release);
                self.begin(ssrc, first.header.sequence);
                if let Some(source) = &mut self.source {
                    source.sequence.record(sequence);
                    source.next += 1;
                }
                let kept = Packet { header: first.header, payload: &first.payload };
                release(Released { packet: kept, missing: 0, restarted: true, arrival: first.arrival });
                self.spare.push(first.payload);
                release(Released { packet, missing: 0, restarted: false, arrival: now });
                Outcome::NewSource
            }
            unrelated => {
                if let Some(unrelated) = unrelated {
                    self.spare.push(unrelated.payload);
                }
                self.candidate = Some(self.keep(now, 0, packet));
                Outcome::Probation
            }
        }
    }

    fn keep(&mut self, arrival: Instant, number: u64, packet: Packet<'_>) -> Held {
        let mut payload = self.spare.pop().unwrap_or_default();
        payload.clear();
        payload.extend_from_slice(packet.payload);
        Held { number, header: packet.header, payload, arrival }
    }

    fn hold(&mut self, now: Instant, number: u64, packet: Packet<'_>) {
        let held = self.keep(now, number, packet);
        let at = self.held.partition_point(|other| other.number < number);
        self.held.insert(at, held);
    }

    fn give_hole_up(&mut self, release: &mut impl FnMut(Released<'_>)) {
        self.release_first(release);
        self.release_consecutive(release);
    }

    fn release_consecutive(&mut self, release: &mut impl FnMut(Released<'_>)) {
        while let (Some(source), Some(first)) = (&self.source, self.held.first())
            && first.number == source.next
        {
            self.release_first(release);
        }
    }

    fn release_all_held(&mut self, release: &mut impl FnMut(Released<'_>)) {
        while !self.held.is_empty() {
            self.release_first(release);
        }
    }

    fn release_first(&mut self, release: &mut impl FnMut(Released<'_>)) {
        if self.held.is_empty() {
            return;
        }
        let Held { number, header, payload, arrival } = self.held.remove(0);
        let missing = self.source.as_mut().map_or(0, |source| {
            let missing = number.saturating_sub(source.next);
            source.next = source.next.max(number + 1);
            missing
        });
        let packet = Packet { header, payload: &payload };
        release(Released { packet, missing, restarted: false, arrival });
        self.spare.push(payload);
    }
}

const MAX_WINDOW: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    struct Line {
        reception: Reception,
        start: Instant,
        out: Vec<(u16, u64)>,
    }

    impl Line {
        fn new() -> Self {
            let reception = Reception::new(Duration::from_millis(30), 3);
            Self { reception, start: Instant::now(), out: Vec::new() }
        }

        fn packet(&mut self, at_ms: u64, ssrc: u32, sequence: u16) -> Outcome {
            let header = Header { payload_type: 0, marker: false, sequence, timestamp: 0, ssrc };
            let out = &mut self.out;
            self.reception.receive(
                self.start + Duration::from_millis(at_ms),
                Packet { header, payload: &[1] },
                &mut |r| out.push((r.packet.header.sequence, r.missing)),
            )
        }

        fn timeout(&mut self, at_ms: u64) {
            let out = &mut self.out;
            self.reception.handle_timeout(self.start + Duration::from_millis(at_ms), &mut |r| {
                out.push((r.packet.header.sequence, r.missing));
            });
        }

        fn released(&mut self) -> Vec<(u16, u64)> {
            std::mem::take(&mut self.out)
        }
    }

    #[test]
    fn in_order_packets_pass_at_once() {
        let mut line = Line::new();
        for n in 65_534..=65_535 {
            line.packet(0, 1, n);
        }
        line.packet(0, 1, 0);
        assert_eq!(line.released(), [(65_534, 0), (65_535, 0), (0, 0)]);
        assert_eq!(line.reception.next_timeout(), None);
    }

    #[test]
    fn an_overtaken_packet_is_put_back_in_its_place() {
        let mut line = Line::new();
        line.packet(0, 1, 1);
        line.packet(20, 1, 3);
        assert_eq!(line.released(), [(1, 0)]);
        line.packet(25, 1, 2);
        assert_eq!(line.released(), [(2, 0), (3, 0)]);
        assert_eq!(line.reception.counts().reordered, 1);
    }

    #[test]
    fn a_hole_is_given_up_by_time() {
        let mut line = Line::new();
        line.packet(0, 1, 1);
        line.packet(40, 1, 3);
        line.timeout(69);
        assert_eq!(line.released(), [(1, 0)]);
        line.timeout(70);
        assert_eq!(line.released(), [(3, 1)]);
        assert_eq!(line.packet(75, 1, 2), Outcome::Late);
        assert_eq!(line.released(), []);
        assert_eq!((line.reception.counts().late, line.reception.counts().lost()), (1, 0));
    }

    #[test]
    fn a_hole_is_given_up_when_too_many_wait() {
        let mut line = Line::new();
        for n in [1, 3, 4, 5, 6] {
            line.packet(0, 1, n);
        }
        assert_eq!(line.released(), [(1, 0), (3, 1), (4, 0), (5, 0), (6, 0)]);
    }

    #[test]
    fn two_holes_are_given_up_each_in_its_time() {
        let mut line = Line::new();
        line.packet(0, 1, 1);
        line.packet(10, 1, 3);
        line.packet(30, 1, 5);
        line.timeout(40);
        assert_eq!(line.released(), [(1, 0), (3, 1)]);
        line.timeout(60);
        assert_eq!(line.released(), [(5, 1)]);
    }

    #[test]
    fn a_duplicate_is_dropped_even_while_its_original_waits() {
        let mut line = Line::new();
        for n in [1, 1, 3] {
            line.packet(0, 1, n);
        }
        assert_eq!(line.packet(5, 1, 3), Outcome::Duplicate);
        line.timeout(100);
        assert_eq!(line.released(), [(1, 0), (3, 1)]);
        assert_eq!(line.reception.counts().duplicate, 2);
    }

    #[test]
    fn a_new_source_is_believed_at_its_second_packet_and_loses_nothing() {
        let mut line = Line::new();
        line.packet(0, 1, 1);
        assert_eq!(line.packet(20, 2, 700), Outcome::Probation);
        assert_eq!(line.packet(20, 1, 2), Outcome::Taken);
        assert_eq!(line.packet(40, 2, 701), Outcome::NewSource);
        assert_eq!(line.released(), [(1, 0), (2, 0), (700, 0), (701, 0)]);
        assert_eq!(line.reception.ssrc(), Some(2));
        assert_eq!((line.reception.counts().received, line.reception.counts().lost()), (4, 0));
    }

    #[test]
    fn a_single_packet_of_another_source_changes_nothing() {
        let mut line = Line::new();
        for n in 0..100 {
            line.packet(0, 1, n);
            line.packet(0, 1000 + u32::from(n), n);
        }
        assert_eq!(line.released().len(), 100);
        assert_eq!(line.reception.ssrc(), Some(1));
    }

    #[test]
    fn a_restarted_numbering_is_followed() {
        let mut line = Line::new();
        line.packet(0, 1, 1);
        assert_eq!(line.packet(20, 1, 30_000), Outcome::Probation);
        line.packet(40, 1, 30_001);
        line.packet(60, 1, 30_002);
        assert_eq!(line.released(), [(1, 0), (30_001, 0), (30_002, 0)]);
        assert_eq!(line.reception.counts().lost(), 0);
    }
}
