//! Who sends when: a wheel of 20 slots of 1 ms in a 20 ms frame.
//!
//! Deadlines are absolute, `start + n × 20 ms + slot`, so lateness never adds up. A member keeps its
//! slot, which spreads the load of many streams over the frame. After a stall of our own, a member at
//! most two frames behind gets them at once; one further behind gets one frame and the count of frames
//! it missed, over which its timestamps must skip: a burst would only fill the far end's jitter buffer.

use std::time::{Duration, Instant};

/// Length of a frame.
pub const FRAME: Duration = Duration::from_millis(20);
/// Slots in a frame.
pub const SLOTS: usize = 20;

/// A member whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due<K> {
    /// The member.
    pub key: K,
    /// When its frame should have left. Lateness is the time since then.
    pub deadline: Instant,
    /// Frames that are skipped before this one.
    pub missed: u32,
}

/// A wheel of members `K`, small keys such as an index or id.
#[derive(Debug)]
pub struct SlotWheel<K> {
    start: Instant,
    slots: [Vec<Member<K>>; SLOTS],
    /// Milliseconds since `start` that have been looked at.
    passed: u64,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Member<K> {
    key: K,
    /// The first millisecond since the wheel's start that this member has not yet had.
    next: u64,
}

impl<K: Copy + PartialEq> SlotWheel<K> {
    /// An empty wheel whose slot 0 falls on `start` and every 20 ms after it.
    pub fn new(start: Instant) -> Self {
        Self { start, slots: std::array::from_fn(|_| Vec::new()), passed: 0, len: 0 }
    }

    /// The slot that begins next after `now`: a member that joins there sends its first frame within a
    /// millisecond. Crowded slots are passed over in favour of one within the next 5 ms.
    pub fn slot_after(&self, now: Instant) -> usize {
        let next = self.millis(now) + 1;
        let near = (0..NEAR).map(|n| ((next + n) % SLOTS as u64) as usize);
        near.min_by_key(|slot| self.slots[*slot].len()).unwrap_or(0)
    }

    /// Adds a member whose first deadline is the first one of `slot` (taken modulo 20) after `now`.
    pub fn join(&mut self, now: Instant, slot: usize, key: K) {
        let slot = slot % SLOTS;
        let next = first_after(self.millis(now), slot);
        self.slots[slot].push(Member { key, next });
        self.len += 1;
    }

    /// Removes a member; unknown keys are no error.
    pub fn leave(&mut self, key: K) {
        for slot in &mut self.slots {
            slot.retain(|member| member.key != key);
        }
        self.len = self.slots.iter().map(Vec::len).sum();
    }

    /// How many members.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next deadline of any member; in the past if [`due`](Self::due) was not called for a while.
    pub fn next_deadline(&self) -> Option<Instant> {
        let earliest = self.slots.iter().filter_map(|members| members.iter().map(|m| m.next).min()).min()?;
        Some(self.at(earliest))
    }

    /// Appends every member whose deadline is not after `now`, in order of deadline.
    pub fn due(&mut self, now: Instant, out: &mut Vec<Due<K>>) {
        if now < self.start {
            return;
        }
        let until = self.millis(now);
        let from = out.len();
        let span = (until + 1).saturating_sub(self.passed).min(SLOTS as u64);
        for millis in until + 1 - span..=until {
            for member in &mut self.slots[(millis % SLOTS as u64) as usize] {
                catch_up(self.start, member, until, out);
            }
        }
        self.passed = until + 1;
        out[from..].sort_by_key(|due| due.deadline);
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis() as u64
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }
}

fn catch_up<K: Copy>(start: Instant, member: &mut Member<K>, until: u64, out: &mut Vec<Due<K>>) {
    if member.next > until {
        return;
    }
    let frames = (until - member.next) / SLOTS as u64 + 1;
    let missed = if frames > AT_ONCE { frames - 1 } else { 0 };
    member.next += missed * SLOTS as u64;
    for n in 0..frames - missed {
        let deadline = start + Duration::from_millis(member.next);
        let missed = if n == 0 { u32::try_from(missed).unwrap_or(u32::MAX) } else { 0 };
        out.push(Due { key: member.key, deadline, missed });
        member.next += SLOTS as u64;
    }
}

/// The first millisecond after `now` that belongs to `slot`.
fn first_after(now: u64, slot: usize) -> u64 {
    let length = SLOTS as u64;
    let ahead = (slot as u64 + length - (now + 1) % length) % length;
    now + 1 + ahead
}

/// Overdue frames that still go out at once.
const AT_ONCE: u64 = 2;
/// Slots looked at when choosing one.
const NEAR: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    struct Clock(Instant);

    impl Clock {
        fn ms(&self, millis: u64) -> Instant {
            self.0 + Duration::from_millis(millis)
        }
    }

    fn wheel() -> (Clock, SlotWheel<u32>) {
        let start = Instant::now();
        (Clock(start), SlotWheel::new(start))
    }

    fn due(wheel: &mut SlotWheel<u32>, clock: &Clock, at: u64) -> Vec<(u32, u64, u32)> {
        let mut out = Vec::new();
        wheel.due(clock.ms(at), &mut out);
        out.iter().map(|d| (d.key, (d.deadline - clock.0).as_millis() as u64, d.missed)).collect()
    }

    #[test]
    fn a_member_is_due_once_per_frame_on_an_absolute_grid() {
        let (clock, mut wheel) = wheel();
        wheel.join(clock.ms(0), 7, 1);
        let mut seen = Vec::new();
        for at in (0..100).step_by(3) {
            seen.extend(due(&mut wheel, &clock, at));
        }
        assert_eq!(seen, [(1, 7, 0), (1, 27, 0), (1, 47, 0), (1, 67, 0), (1, 87, 0)]);
    }

    #[test]
    fn a_new_member_waits_for_its_first_slot_and_not_for_a_past_one() {
        let (clock, mut wheel) = wheel();
        wheel.join(clock.ms(105), 5, 1);
        assert_eq!(wheel.next_deadline(), Some(clock.ms(125)));
        assert_eq!(due(&mut wheel, &clock, 124), []);
        assert_eq!(due(&mut wheel, &clock, 125), [(1, 125, 0)]);
    }

    #[test]
    fn two_overdue_frames_go_out_at_once_and_more_are_skipped() {
        let (clock, mut wheel) = wheel();
        wheel.join(clock.ms(0), 10, 1);
        assert_eq!(due(&mut wheel, &clock, 11), [(1, 10, 0)]);
        assert_eq!(due(&mut wheel, &clock, 52), [(1, 30, 0), (1, 50, 0)]);
        assert_eq!(due(&mut wheel, &clock, 555), [(1, 550, 24)]);
        assert_eq!(due(&mut wheel, &clock, 569), []);
        assert_eq!(due(&mut wheel, &clock, 570), [(1, 570, 0)]);
    }

    #[test]
    fn members_are_due_in_order_of_deadline() {
        let (clock, mut wheel) = wheel();
        for (slot, key) in [(19, 3), (2, 1), (2, 2), (0, 9)] {
            wheel.join(clock.ms(0), slot, key);
        }
        let keys: Vec<u32> = due(&mut wheel, &clock, 20).iter().map(|d| d.0).collect();
        assert_eq!(keys, [1, 2, 3, 9]);
    }

    #[test]
    fn one_who_left_is_not_due() {
        let (clock, mut wheel) = wheel();
        wheel.join(clock.ms(0), 1, 1);
        wheel.join(clock.ms(0), 2, 2);
        wheel.leave(1);
        wheel.leave(77);
        assert_eq!(due(&mut wheel, &clock, 19), [(2, 2, 0)]);
        assert_eq!(wheel.len(), 1);
    }

    #[test]
    fn members_spread_over_nearby_slots() {
        let (clock, mut wheel) = wheel();
        for key in 0..10 {
            let slot = wheel.slot_after(clock.ms(3));
            assert!((4..9).contains(&slot));
            wheel.join(clock.ms(3), slot, key);
        }
        assert!((4..9).all(|slot| wheel.slots[slot].len() == 2));
    }

    #[test]
    fn over_any_stall_frames_sent_and_missed_add_up_to_elapsed_time() {
        let (clock, mut wheel) = wheel();
        wheel.join(clock.ms(0), 3, 1);
        let (mut frames, mut at) = (0u64, 0u64);
        for step in [1, 20, 41, 39, 300, 7, 19, 1000, 60, 61, 62] {
            at += step;
            frames += due(&mut wheel, &clock, at).iter().map(|d| 1 + u64::from(d.2)).sum::<u64>();
            assert_eq!(frames, if at < 3 { 0 } else { (at - 3) / 20 + 1 });
        }
    }
}
