//! The copy beside the thing itself: an Asterisk with a clock of its own behind a network.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::protocol::{Command, Status};
use super::Queue;

const SLOT_US: u64 = 20_000;

/// What travels.
#[derive(Debug, Clone, Copy)]
enum Message {
    Frame(u64),
    Command(Command),
    Marked(u32),
    Length(u32, bool),
    Xoff,
    Xon,
}

/// One direction of a TCP connection: in order, each message late by the network's whim.
struct Pipe {
    least_us: u64,
    jitter_us: u64,
    way: VecDeque<(u64, Message)>,
}

impl Pipe {
    fn new(least_us: u64, jitter_us: u64) -> Self {
        Self { least_us, jitter_us, way: VecDeque::new() }
    }

    fn push(&mut self, now_us: u64, message: Message, dice: &mut StdRng) {
        let arrives = now_us + self.least_us + dice.random_range(0..=self.jitter_us);
        let arrives = self.way.back().map_or(arrives, |(before, _)| arrives.max(*before));
        self.way.push_back((arrives, message));
    }
}

/// `channels/chan_websocket.c` in a few lines: a FIFO, a tick, and answers.
#[derive(Default)]
struct Asterisk {
    fifo: VecDeque<Message>,
    length: i64,
    full: bool,
    /// First releases.
    counts_flushed: bool,
    knows_no_marks: bool,
    passthrough: bool,
    /// Every frame taken, and when.
    taken: Vec<(u64, u64)>,
    deepest: i64,
    flushes: u32,
}

impl Asterisk {
    fn hear(&mut self, message: Message) -> Option<Message> {
        match message {
            Message::Frame(_) if self.length >= 1000 => None,
            Message::Frame(_) => {
                self.fifo.push_back(message);
                self.length += 1;
                let frames = self.fifo.iter().filter(|m| matches!(m, Message::Frame(_))).count();
                self.deepest = self.deepest.max(frames as i64);
                let full = self.length >= 900 && !self.full;
                self.full |= full;
                full.then_some(Message::Xoff)
            }
            Message::Command(Command::Mark(_)) if self.knows_no_marks || self.passthrough => None,
            Message::Command(Command::Mark(id)) => {
                self.fifo.push_back(Message::Marked(id));
                None
            }
            Message::Command(Command::Flush) if self.passthrough => None,
            Message::Command(Command::Flush) => {
                self.fifo.clear();
                self.flushes += 1;
                if !self.counts_flushed {
                    self.length = 0;
                }
                None
            }
            Message::Command(Command::GetStatus) => Some(Message::Length(self.length as u32, self.full)),
            _ => None,
        }
    }

    fn tick(&mut self, now_us: u64, mut say: impl FnMut(Message)) {
        if self.full && self.length < 800 {
            self.full = false;
            say(Message::Xon);
        }
        while let Some(message) = self.fifo.pop_front() {
            match message {
                Message::Frame(index) => {
                    self.length -= 1;
                    self.taken.push((index, now_us));
                    return;
                }
                mark => say(mark),
            }
        }
    }

    /// What of the frames before `sent` is not played at a moment, in microseconds.
    fn unplayed_us(&self, sent: u64, flushed: &[std::ops::Range<u64>], now_us: u64) -> u64 {
        let last = self.taken.last();
        let next = last.map_or(0, |(index, _)| index + 1);
        let waiting = (next..sent).filter(|frame| !flushed.iter().any(|gone| gone.contains(frame))).count();
        let playing = last.map_or(0, |(_, at)| (at + SLOT_US).saturating_sub(now_us));
        waiting as u64 * SLOT_US + playing
    }
}

struct World {
    asterisk: Asterisk,
    queue: Queue,
    origin: Instant,
    dice: StdRng,
    there: Pipe,
    back: Pipe,
    now_us: u64,
    our_tick_us: u64,
    /// Exact, in microseconds.
    their_tick_us: f64,
    their_slot_us: f64,
    sent: u64,
    flushed: Vec<std::ops::Range<u64>>,
    voice: bool,
    turn_at_us: u64,
    /// How far the copy's idea of what is unplayed was off.
    errors_us: Vec<i64>,
    /// Ticks of Asterisk's in speech with nothing to take.
    starved: u32,
    stands_until_us: u64,
}

impl World {
    fn new(seed: u64, ppm: f64, delay_us: u64, jitter_us: u64, passthrough: bool) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let phase = dice.random_range(0..SLOT_US) as f64;
        Self {
            asterisk: Asterisk { passthrough, ..Asterisk::default() },
            queue: Queue::new(Duration::from_micros(SLOT_US), passthrough),
            origin: Instant::now(),
            there: Pipe::new(delay_us, jitter_us),
            back: Pipe::new(delay_us, jitter_us),
            now_us: 0,
            our_tick_us: 1_000,
            their_tick_us: phase,
            their_slot_us: SLOT_US as f64 * (1.0 + ppm / 1e6),
            sent: 0,
            flushed: Vec::new(),
            voice: false,
            turn_at_us: 500_000,
            errors_us: Vec::new(),
            starved: 0,
            stands_until_us: 0,
            dice,
        }
    }

    fn at(&self, us: u64) -> Instant {
        self.origin + Duration::from_micros(us)
    }

    fn say_commands(&mut self) {
        while let Some(command) = self.queue.poll_command() {
            self.there.push(self.now_us, Message::Command(command), &mut self.dice);
        }
    }

    fn our_tick(&mut self) {
        if self.now_us >= self.turn_at_us {
            self.voice = !self.voice;
            let ms = if self.voice { 300..6_000 } else { 200..3_000 };
            self.turn_at_us = self.now_us + self.dice.random_range(ms) * 1_000;
        }
        let now = self.at(self.now_us);
        let due = self.queue.due(now);
        self.say_commands();
        for _ in 0..due {
            let copies = self.queue.admit(now, self.voice);
            self.say_commands();
            for _ in 0..copies {
                self.there.push(self.now_us, Message::Frame(self.sent), &mut self.dice);
                self.sent += 1;
                self.queue.sent(now, 1);
            }
        }
        let believed = self.queue.behind(now).as_micros() as i64;
        let truth = self.asterisk.unplayed_us(self.sent, &self.flushed, self.now_us) as i64;
        self.errors_us.push(believed - truth);
        // The worker wakes a little late, and the grid does not move.
        let base = (self.our_tick_us / SLOT_US + 1) * SLOT_US;
        self.our_tick_us = base + self.dice.random_range(0..1_500);
    }

    fn flush(&mut self) -> u64 {
        let now = self.at(self.now_us);
        let lost = self.queue.flush(now);
        self.say_commands();
        let before = self.sent;
        if !lost.is_zero() {
            let frames = lost.as_micros() as u64 / SLOT_US;
            self.flushed.push(before - frames..before);
        }
        self.voice = false;
        self.turn_at_us = self.now_us + 700_000;
        before
    }

    fn run(&mut self, until_us: u64) {
        while self.now_us < until_us {
            let arrival = |pipe: &Pipe| pipe.way.front().map_or(u64::MAX, |(at, _)| *at);
            let stands = self.stands_until_us > self.now_us;
            let mut theirs = self.their_tick_us as u64;
            let mut there = arrival(&self.there);
            if stands {
                theirs = theirs.max(self.stands_until_us);
                there = there.max(self.stands_until_us);
            }
            let back = arrival(&self.back);
            let next = self.our_tick_us.min(theirs).min(there).min(back);
            self.now_us = next.max(self.now_us);
            if next == back {
                let (_, message) = self.back.way.pop_front().unwrap();
                let now = self.at(self.now_us);
                match message {
                    Message::Marked(id) => self.queue.mark_processed(now, id),
                    Message::Length(queue_length, queue_full) => {
                        self.queue.status(now, Status { queue_length, queue_full });
                    }
                    Message::Xoff => self.queue.stop(),
                    Message::Xon => self.queue.go_on(),
                    Message::Frame(_) | Message::Command(_) => unreachable!("ours"),
                }
                self.say_commands();
            } else if next == there {
                let (_, message) = self.there.way.pop_front().unwrap();
                if let Some(answer) = self.asterisk.hear(message) {
                    self.back.push(self.now_us, answer, &mut self.dice);
                }
            } else if next == theirs {
                let (back, dice, now_us) = (&mut self.back, &mut self.dice, self.now_us);
                let before = self.asterisk.taken.len();
                self.asterisk.tick(now_us, |message| back.push(now_us, message, dice));
                if self.voice && self.asterisk.taken.len() == before && self.now_us > 3_000_000 {
                    self.starved += 1;
                }
                // A clock that stood still does not catch up.
                self.their_tick_us = self.their_tick_us.max(next as f64) + self.their_slot_us;
            } else {
                self.our_tick();
            }
        }
    }
}

/// By as much a clock that is off by 500 ppm goes wrong in two seconds, from one mark to a few later ones.
const DRIFT_US: u64 = 1_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_queue_stays_short_and_known_whatever_the_clocks(
        seed in any::<u64>(),
        ppm in prop::sample::select(vec![-500.0, -100.0, -37.0, 0.0, 100.0, 500.0]),
        delay_us in 50..3_000_u64,
        jitter_us in 0..2_000_u64,
    ) {
        let mut world = World::new(seed, ppm, delay_us, jitter_us, false);
        // Whatever the phase: two slots may be on their way before anything is known.
        world.run(2_000_000);
        world.errors_us.clear();
        world.run(90_000_000);
        prop_assert!(world.asterisk.deepest <= 4, "{} frames waited", world.asterisk.deepest);
        let worst = world.errors_us.iter().map(|error| error.unsigned_abs()).max().unwrap_or(0);
        prop_assert!(worst <= SLOT_US + DRIFT_US, "the position was wrong by {worst} us");
        // Where a tick falls between two messages, a frame may miss it once.
        prop_assert!(world.starved <= 2, "{} ticks of speech found nothing", world.starved);
        prop_assert_eq!(world.asterisk.flushes, 0);
    }

    #[test]
    fn after_a_flush_nothing_old_is_heard(
        seed in any::<u64>(),
        ppm in -500.0..500.0,
        delay_us in 50..3_000_u64,
        flush_ms in prop::collection::vec(200..4_000_u64, 1..8),
    ) {
        let mut world = World::new(seed, ppm, delay_us, 1_000, false);
        world.run(2_000_000);
        for wait in flush_ms {
            world.turn_at_us = world.now_us;
            world.voice = false;
            world.run(world.now_us + wait * 1_000);
            let at = world.now_us;
            let taken = world.asterisk.taken.len();
            let before = world.flush();
            world.run(at + 700_000);
            let late: Vec<_> = world.asterisk.taken[taken..].iter().filter(|(index, _)| *index < before).collect();
            prop_assert!(late.len() <= 1, "{late:?}");
            prop_assert!(late.iter().all(|(_, when)| *when <= at + SLOT_US), "{late:?} after {at}");
        }
        prop_assert!(world.asterisk.deepest <= 4);
        world.errors_us.clear();
        world.run(world.now_us + 10_000_000);
        let worst = world.errors_us.iter().map(|error| error.unsigned_abs()).max().unwrap_or(0);
        prop_assert!(worst <= SLOT_US + DRIFT_US, "the position was wrong by {worst} us");
    }

    #[test]
    fn without_marks_the_status_keeps_it_short(seed in any::<u64>(), ppm in -500.0..500.0, passthrough: bool) {
        let mut world = World::new(seed, ppm, 300, 500, passthrough);
        world.asterisk.knows_no_marks = true;
        world.asterisk.counts_flushed = true;
        world.run(90_000_000);
        prop_assert!(world.asterisk.deepest <= 5, "{} frames waited", world.asterisk.deepest);
    }

    #[test]
    fn a_far_network_costs_its_own_time_only(seed in any::<u64>(), ppm in -200.0..200.0) {
        let mut world = World::new(seed, ppm, 30_000, 4_000, false);
        world.run(3_000_000);
        world.starved = 0;
        world.run(60_000_000);
        // As many as nearby, and those on their way while an answer is: 68 ms there and back.
        prop_assert!(world.asterisk.deepest <= 8, "{} frames waited", world.asterisk.deepest);
        prop_assert!(world.starved <= 4, "{} ticks of speech found nothing", world.starved);
    }
}

#[test]
fn a_backlog_from_a_standstill_does_not_stay() {
    let mut world = World::new(7, 0.0, 300, 300, false);
    world.run(5_000_000);
    // Asterisk neither reads nor plays for 1.2 s, and finds 60 frames then.
    world.stands_until_us = world.now_us + 1_200_000;
    world.run(8_000_000);
    world.asterisk.deepest = 0;
    world.run(20_000_000);
    assert!(world.asterisk.deepest <= 4, "{} frames waited", world.asterisk.deepest);
}

#[test]
fn xoff_stops_everything_until_xon() {
    let mut queue = Queue::new(Duration::from_millis(20), false);
    let start = Instant::now();
    assert_eq!((queue.due(start), queue.admit(start, true)), (1, 1));
    queue.sent(start, 1);
    while queue.poll_command().is_some() {}
    queue.stop();
    assert_eq!(queue.poll_command(), Some(Command::Flush), "18 s of latency are not kept");
    let later = start + Duration::from_millis(20);
    assert_eq!((queue.due(later), queue.admit(later, true)), (0, 0));
    queue.go_on();
    assert_eq!((queue.due(later), queue.admit(later, true)), (1, 1));
}

#[test]
fn an_asterisk_that_counts_what_it_dropped_is_flushed_once() {
    let mut world = World::new(3, 0.0, 200, 200, false);
    world.asterisk.counts_flushed = true;
    world.run(3_000_000);
    for _ in 0..20 {
        world.voice = true;
        world.turn_at_us = world.now_us + 5_000_000;
        world.run(world.now_us + 500_000);
        world.flush();
        world.run(world.now_us + 500_000);
    }
    // At 1000 frames that were never taken it would be deaf.
    assert!(world.asterisk.flushes <= 2, "{} flushes", world.asterisk.flushes);
    assert!(world.asterisk.deepest <= 4);
}

#[test]
fn an_asterisk_that_stays_full_after_a_flush_is_sent_to_again() {
    let mut world = World::new(4, 0.0, 200, 200, false);
    world.asterisk.counts_flushed = true;
    world.run(1_000_000);
    // As after a standstill of its clock.
    let already = world.asterisk.length;
    for _ in already..899 {
        world.asterisk.fifo.push_back(Message::Frame(u64::MAX));
        world.asterisk.length += 1;
    }
    world.voice = true;
    world.turn_at_us = u64::MAX;
    world.run(1_300_000);
    assert!(world.asterisk.full, "{} frames", world.asterisk.length);
    world.asterisk.taken.clear();
    world.asterisk.deepest = 0;
    world.run(5_000_000);
    let heard = world.asterisk.taken.len();
    assert!(heard > 50, "{heard} frames were heard after the flush");
    let before = world.sent;
    world.run(15_000_000);
    assert!(world.sent - before > 450, "{} frames in 10 s", world.sent - before);
    assert!(world.asterisk.length < 1_000, "it hears");
}

#[test]
fn passthrough_is_never_flushed_or_marked() {
    let mut queue = Queue::new(Duration::from_millis(20), true);
    let mut now = Instant::now();
    for _ in 0..100 {
        for _ in 0..queue.due(now) {
            let copies = queue.admit(now, true);
            queue.sent(now, copies);
        }
        while let Some(command) = queue.poll_command() {
            assert_eq!(command, Command::GetStatus);
        }
        now += Duration::from_millis(20);
    }
    assert_eq!(queue.flush(now), Duration::ZERO);
    assert_eq!(queue.poll_command(), None);
}
