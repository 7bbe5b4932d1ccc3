//! What Asterisk has played of what it was sent.
//!
//! Asterisk's side of a connection is a queue of at most 1000 frames, of which its own clock takes one every
//! 20 ms. It tells nothing about it by itself, its clock is not ours, and what once waits in the queue waits there
//! for the rest of the call. [`Queue`] is a copy of it that runs along on our clock and is put right by what
//! Asterisk can be asked:
//!
//! - A *mark* comes back at the very tick at which the frame behind it is taken: it tells the position and the
//!   phase of Asterisk's clock. An answer can be late but never early, so what comes earlier than the copy would have it is
//!   believed at once, and what comes later only when it keeps coming later.
//! - A *status* tells the length at once. It stands in for marks where there are none (first releases, passthrough), and measures
//!   how long a question takes.
//!
//! The copy decides how many slots are sent at a tick of our grid, so that a frame waits some 10 to 40 ms for its turn. In
//! silence a slot more or less is heard by nobody: that is where the clocks' difference goes. In speech a slot is
//! held back or put in only when the queue would otherwise run empty or long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::protocol::{Command, Status};

/// The copy of one connection's queue. Every moment must be at or after the one before.
#[derive(Debug)]
pub struct Queue {
    /// How long a frame is.
    slot: Duration,
    means: Means,
    /// A flush is followed, and leaves Asterisk's counting right.
    flushable: bool,
    /// Frames sent so far.
    sent: u64,
    /// Of those, the ones that Asterisk's clock has taken, or that were dropped.
    taken: u64,
    /// When the last of them was taken: it is being played for one slot from then on.
    taken_at: Option<Instant>,
    /// Asterisk's next tick; unknown before the first frame, a guess before the first mark is back.
    next_tick: Option<Instant>,
    phase_known: bool,
    /// Marks that are not back, in the order sent.
    marks: VecDeque<Mark>,
    next_mark: u32,
    /// Some mark came back once.
    marks_work: bool,
    /// How much later than expected the latest marks came back.
    lateness: VecDeque<Duration>,
    /// Frames since the last mark.
    unmarked: u32,
    /// `MEDIA_XOFF` holds.
    stopped: bool,
    /// While it holds: the length last told, and since when it is that.
    stuck: Option<(u64, Instant)>,
    /// It says that it is full although it is not: its counting is wrong for good.
    always_full: bool,
    /// The latest slot was more than silence.
    speaking: bool,
    /// Slots of silence since then.
    silent: u32,
    /// Questions for the status that have no answer.
    asked: VecDeque<Asked>,
    /// When it is asked for again.
    ask_at: Option<Instant>,
    /// The latest times a question took.
    trips: VecDeque<Duration>,
    /// What the length in a status has too much since a flush.
    lie: u64,
    /// Readings in a row in which the queue was one frame longer (or shorter) than the copy.
    off_by_one: i32,
    /// What must be said to Asterisk, in this order.
    commands: VecDeque<Command>,
}

/// How the copy is put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Marks,
    Status,
}

#[derive(Debug)]
struct Mark {
    id: u32,
    /// Frames sent before it.
    after: u64,
    sent_at: Instant,
    /// When it should be on its way back.
    passed_at: Option<Instant>,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    sent: u64,
    /// Asked right behind a flush: whatever is said to wait does not.
    emptied: bool,
}

impl Queue {
    /// An empty queue of frames of this length. A passthrough connection takes neither marks nor flushes.
    pub fn new(slot: Duration, passthrough: bool) -> Self {
        Self {
            slot,
            means: if passthrough { Means::Status } else { Means::Marks },
            flushable: !passthrough,
            sent: 0,
            taken: 0,
            taken_at: None,
            next_tick: None,
            phase_known: false,
            marks: VecDeque::with_capacity(MARKS_MOST),
            next_mark: 1,
            marks_work: false,
            lateness: VecDeque::with_capacity(LATE_MARKS),
            unmarked: 0,
            stopped: false,
            stuck: None,
            always_full: false,
            speaking: false,
            silent: 0,
            asked: VecDeque::new(),
            ask_at: None,
            trips: VecDeque::with_capacity(TRIPS),
            lie: 0,
            off_by_one: 0,
            commands: VecDeque::new(),
        }
    }

    /// How many slots to make at a tick of our grid: 0, 1 or 2.
    pub fn due(&mut self, now: Instant) -> u32 {
        self.advance(now);
        if self.stopped {
            if self.ask_at.is_none_or(|at| now >= at) {
                self.ask(now, false);
            }
            return 0;
        }
        // Whether silence is sent is decided when it is known to be silence.
        if !self.speaking {
            return 1;
        }
        let wait = self.wait(now);
        match () {
            () if wait <= self.least_wait(SPEECH_LEAST) => 2,
            () if wait > self.least_wait(SPEECH_MOST) => 0,
            () => 1,
        }
    }

    /// A slot has been made: how many times it is to be sent, 0, 1 or 2. Only silence is left out or doubled.
    /// What must be said first comes from [`Self::poll_command`].
    pub fn admit(&mut self, now: Instant, voice: bool) -> u32 {
        self.advance(now);
        self.judge_marks(now);
        if self.stopped {
            return 0;
        }
        let begins = voice && !self.speaking;
        self.speaking = voice;
        self.silent = if voice { 0 } else { self.silent.saturating_add(1) };
        if self.ask_at.is_none_or(|at| now >= at) {
            self.ask(now, false);
        }
        let copies = if voice { 1 } else { self.copies_of_silence(now) };
        let every = if voice { MARK_EVERY } else { MARK_EVERY_SILENT };
        if copies > 0 && (begins || self.unmarked >= every || self.next_mark == 1) {
            self.mark(now);
        }
        copies
    }

    /// The connection has taken this many frames.
    pub fn sent(&mut self, now: Instant, frames: u32) {
        self.advance(now);
        if self.next_tick.is_none() {
            // Anywhere within a slot: the middle is wrong by half a slot at most.
            self.next_tick = Some(now + self.slot / 2);
        }
        self.sent += u64::from(frames);
        self.unmarked = self.unmarked.saturating_add(frames);
    }

    /// The next thing to be said to Asterisk; before the slot that [`Self::admit`] has let through.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// How much of what was sent has not been played.
    pub fn behind(&mut self, now: Instant) -> Duration {
        self.advance(now);
        let playing =
            self.taken_at.map_or(Duration::ZERO, |at| (at + self.slot).saturating_duration_since(now));
        self.waiting() + playing.min(self.slot)
    }

    /// Drops what waits, and answers how long it would have been heard. A frame that has begun is heard; so is
    /// everything where Asterisk does not follow a flush, or has counted wrongly after one.
    pub fn flush(&mut self, now: Instant) -> Duration {
        self.advance(now);
        if !self.flushable {
            return Duration::ZERO;
        }
        let lost = self.waiting();
        self.drop_all();
        self.speaking = false;
        // It has nothing to count now: what it says nevertheless shows how wrong it is.
        self.ask(now, true);
        lost
    }

    fn drop_all(&mut self) {
        self.taken = self.sent;
        self.marks.clear();
        self.lateness.clear();
        self.commands.retain(|command| !matches!(command, Command::Mark(_)));
        self.commands.push_back(Command::Flush);
    }

    /// A mark is back.
    pub fn mark_processed(&mut self, now: Instant, id: u32) {
        self.advance(now);
        // One that a flush has dropped may have been on its way.
        let Some(index) = self.marks.iter().position(|mark| mark.id == id) else { return };
        let Some(mark) = self.marks.drain(..=index).next_back() else { return };
        self.marks_work = true;
        let late = match mark.passed_at {
            None => Duration::ZERO,
            Some(_) if !self.phase_known => Duration::ZERO,
            Some(at) => now.saturating_duration_since(at),
        };
        let believed = mark.passed_at.is_none() || !self.phase_known || late > LATE_AT_ONCE;
        self.phase_known = true;
        if believed {
            self.lateness.clear();
            self.anchor(now, now, mark.after);
            return;
        }
        if self.lateness.len() == LATE_MARKS {
            self.lateness.pop_front();
        }
        self.lateness.push_back(late);
        let least = self.lateness.iter().min().copied().unwrap_or_default();
        if self.lateness.len() == LATE_MARKS && least > LATE_NEVERMIND {
            self.lateness.iter_mut().for_each(|late| *late -= least);
            // This one took `late - least` longer than the quickest.
            let then = now.checked_sub(late - least).unwrap_or(now);
            self.anchor(now, then, mark.after);
        }
    }

    /// A status is here.
    pub fn status(&mut self, now: Instant, status: Status) {
        self.advance(now);
        let Some(asked) = self.asked.pop_front() else { return };
        if self.trips.len() == TRIPS {
            self.trips.pop_front();
        }
        self.trips.push_back(now.saturating_duration_since(asked.at));
        let length = u64::from(status.queue_length);
        if asked.emptied {
            // At 1000 frames that are not there, Asterisk would take no more.
            self.flushable &= length == 0;
            self.lie = length;
            return;
        }
        if status.queue_full && !self.always_full {
            self.stop();
            self.judge_stop(now, length);
        }
        if self.means == Means::Marks {
            return;
        }
        let length = length.saturating_sub(self.lie);
        let taken = asked.sent.saturating_sub(length);
        // Both sides may be right although a tick lies between them.
        let off = i64::try_from(self.taken).unwrap_or(i64::MAX) - i64::try_from(taken).unwrap_or(i64::MAX);
        let once = i32::try_from(off.signum()).unwrap_or(0);
        self.off_by_one = if self.off_by_one.signum() == once { self.off_by_one + once } else { once };
        if off.abs() > 1 || self.off_by_one.abs() >= OFF_READINGS {
            self.taken = taken.min(self.sent);
            self.off_by_one = 0;
        }
    }

    /// `MEDIA_XOFF`: nothing is sent until [`Self::go_on`]. What waits would be heard 18 seconds late: it is dropped.
    pub fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        self.stuck = None;
        // How full it is will be asked soon.
        self.ask_at = None;
        if self.flushable {
            self.drop_all();
        }
    }

    /// It is full, and this long. First releases do not count what a flush drops: they would stay full for ever, and
    /// `MEDIA_XON` would never come. What really waits is taken every slot.
    fn judge_stop(&mut self, now: Instant, length: u64) {
        match self.stuck {
            Some((before, since)) if before == length => {
                if now.saturating_duration_since(since) >= STUCK {
                    (self.flushable, self.always_full, self.lie) = (false, true, length);
                    self.taken = self.sent;
                    self.go_on();
                }
            }
            _ => self.stuck = Some((length, now)),
        }
    }

    /// `MEDIA_XON`.
    pub fn go_on(&mut self) {
        self.stopped = false;
        self.stuck = None;
    }

    /// The connection turned out to be in passthrough mode.
    pub fn pass_through(&mut self) {
        self.flushable = false;
        self.no_marks();
    }

    /// Asterisk does not follow `MARK_MEDIA` here.
    pub fn no_marks(&mut self) {
        self.means = Means::Status;
        self.marks.clear();
        self.commands.retain(|command| !matches!(command, Command::Mark(_)));
        self.ask_at = None;
    }

    /// What waits without having begun.
    fn waiting(&self) -> Duration {
        slots(self.slot, self.sent - self.taken)
    }

    /// How long a frame sent now waits for its turn.
    fn wait(&self, now: Instant) -> Duration {
        let tick = self.next_tick.map_or(Duration::ZERO, |tick| tick.saturating_duration_since(now));
        self.waiting() + tick
    }

    /// What seems to wait that long at Asterisk has been on the way for a part of it.
    fn least_wait(&self, wait: Duration) -> Duration {
        wait + self.trips.iter().min().copied().unwrap_or_default().min(TRIP_LONGEST)
    }

    fn copies_of_silence(&mut self, now: Instant) -> u32 {
        let wait = self.wait(now);
        if wait <= self.least_wait(SILENCE_LEAST) {
            return 2;
        }
        if wait <= self.least_wait(SILENCE_MOST) {
            return 1;
        }
        let waits = self.sent - self.taken;
        if self.flushable && waits > FLUSH_ABOVE && u64::from(self.silent) > waits + FLUSH_ABOVE {
            // All of it is silence by now.
            let _silence = self.flush(now);
        }
        0
    }

    fn mark(&mut self, now: Instant) {
        if self.means != Means::Marks || self.marks.len() >= MARKS_MOST {
            return;
        }
        let id = self.next_mark;
        self.next_mark = self.next_mark.wrapping_add(1);
        self.marks.push_back(Mark { id, after: self.sent, sent_at: now, passed_at: None });
        self.commands.push_back(Command::Mark(id));
        self.unmarked = 0;
    }

    fn ask(&mut self, now: Instant, emptied: bool) {
        let seldom = self.means == Means::Marks && !self.stopped;
        self.ask_at = Some(now + if seldom { ASK_SELDOM } else { ASK_OFTEN });
        // Every question has an answer, in order: when none come, there is nobody to ask.
        if self.asked.len() >= QUESTIONS_MOST {
            return;
        }
        self.asked.push_back(Asked { at: now, sent: self.sent, emptied });
        self.commands.push_back(Command::GetStatus);
    }

    /// First releases know no marks, and say nothing.
    fn judge_marks(&mut self, now: Instant) {
        let Some(oldest) = self.marks.front() else { return };
        if !self.marks_work && now.saturating_duration_since(oldest.sent_at) > MARK_LIMIT {
            self.no_marks();
        }
    }

    /// At `then`, Asterisk's clock has begun the frame behind the first `after`, or had none.
    fn anchor(&mut self, now: Instant, then: Instant, after: u64) {
        if after < self.sent {
            self.taken = after + 1;
            self.taken_at = Some(then);
        } else {
            self.taken = self.sent;
            // The last one has been played.
            self.taken_at = self.taken_at.map(|at| then.checked_sub(self.slot).unwrap_or(at).min(at));
        }
        for mark in &mut self.marks {
            mark.passed_at = (mark.after <= after).then_some(then);
        }
        self.next_tick = Some(then + self.slot);
        self.advance(now);
    }

    /// Lets the copy run to this moment.
    fn advance(&mut self, now: Instant) {
        let Some(mut tick) = self.next_tick else { return };
        while tick <= now {
            if self.taken == self.sent && self.marks.iter().all(|mark| mark.passed_at.is_some()) {
                // Nothing but idle ticks.
                let idle = now.duration_since(tick).as_nanos() / self.slot.as_nanos() + 1;
                tick += slots(self.slot, u64::try_from(idle).unwrap_or(u64::MAX));
                break;
            }
            for mark in self.marks.iter_mut().filter(|mark| mark.passed_at.is_none()) {
                if mark.after > self.taken {
                    break;
                }
                mark.passed_at = Some(tick);
            }
            if self.taken < self.sent {
                self.taken += 1;
                self.taken_at = Some(tick);
            }
            tick += self.slot;
        }
        self.next_tick = Some(tick);
    }
}

fn slots(slot: Duration, count: u64) -> Duration {
    slot * u32::try_from(count).unwrap_or(u32::MAX)
}

/// A frame of speech that would wait no longer than this gets another one behind it, and one that would wait longer
/// than that is held back.
const SPEECH_LEAST: Duration = Duration::from_millis(5);
const SPEECH_MOST: Duration = Duration::from_millis(50);
/// The same for silence, where nobody hears it.
const SILENCE_LEAST: Duration = Duration::from_millis(10);
const SILENCE_MOST: Duration = Duration::from_millis(36);
/// More frames of silence than this are flushed, not waited for.
const FLUSH_ABOVE: u64 = 4;

/// Frames between marks: 200 ms of speech, a second of silence.
const MARK_EVERY: u32 = 10;
const MARK_EVERY_SILENT: u32 = 50;
/// Marks on their way; more are not sent.
const MARKS_MOST: usize = 32;
/// When no mark ever came back by then, none will.
const MARK_LIMIT: Duration = Duration::from_secs(5);
/// So many marks in a row must be late before the copy is slowed down.
const LATE_MARKS: usize = 3;
/// A mark that is later than this is believed at once: Asterisk stood still.
const LATE_AT_ONCE: Duration = Duration::from_millis(90);
/// Not worth a correction.
const LATE_NEVERMIND: Duration = Duration::from_micros(500);

/// How often the status is asked for: beside marks, and in their place.
const ASK_SELDOM: Duration = Duration::from_secs(5);
const ASK_OFTEN: Duration = Duration::from_millis(500);
/// A full queue that is as long as before after this time is not one: its length was not counted down.
const STUCK: Duration = Duration::from_millis(1_500);
/// Questions on their way.
const QUESTIONS_MOST: usize = 8;
/// Readings in a row that must disagree by one frame.
const OFF_READINGS: i32 = 3;
/// How many of the latest answers tell how long one takes, and how much of that is believed.
const TRIPS: usize = 4;
const TRIP_LONGEST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
