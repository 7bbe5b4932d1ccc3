//! How many samples a stream of bytes is worth.
//!
//! The provider's clock is the number of samples it gets. Packets of RTP say by their timestamps how much time lies
//! between them; bytes on a connection do not: a far end that pauses simply sends nothing. So the samples handed
//! over, received and made up, are held against the time that has passed since the first of them, at one distance
//! for the life of the stream. What a pause did not get while it lasted (silence is made up late, so as not to
//! mistake jitter for a pause) it gets when it ends. What was made up although its audio came all the same, because
//! the network had merely stalled, is left out again where it is quiet.

use std::time::{Duration, Instant};

/// The account of one stream. All sample counts are at 24 kHz.
#[derive(Debug)]
pub struct Pace {
    begin: Instant,
    /// Samples handed over since then.
    given: i64,
    /// How far `given` is ahead of time behind an ordinary payload, chosen with the first one.
    home: Option<i64>,
    /// The same of that payload of the present window which waited least on its way.
    best: Option<i64>,
    /// Payloads in the present window.
    payloads: u32,
    /// Samples too many, and too few.
    surplus: i64,
    missing: i64,
}

impl Pace {
    /// An account that begins with silence at `now`.
    pub fn new(now: Instant) -> Self {
        Self { begin: now, given: 0, home: None, best: None, payloads: 0, surplus: 0, missing: 0 }
    }

    /// That many samples have been handed over, received or made up.
    pub fn handed(&mut self, samples: usize) {
        self.given += count(samples);
    }

    /// A payload of `samples` has come. Answers how many samples of silence belong before it. `paused`: silence has
    /// been made up since the one before.
    pub fn arrived(&mut self, now: Instant, samples: usize, paused: bool) -> usize {
        let ahead = self.given + count(samples) - samples_in(now.saturating_duration_since(self.begin));
        let home = *self.home.get_or_insert(ahead);
        let fill = if paused { (home - ahead).clamp(0, MOST) } else { 0 };
        let ahead = ahead + fill;
        if paused {
            (self.best, self.payloads, self.missing) = (None, 0, 0);
        }
        let best = self.best.map_or(ahead, |best| best.max(ahead));
        (self.best, self.payloads) = (Some(best), self.payloads + 1);
        if self.payloads == WINDOW {
            // However little a payload waited, it came late: short pauses have added up, or the far end's clock is a
            // slow one.
            self.missing = Some(home - best).filter(|missing| *missing >= TOLERANCE).unwrap_or(0);
            (self.best, self.payloads) = (None, 0);
        }
        self.surplus = ahead - home;
        fill as usize
    }

    /// Whether a quiet frame is of use: [`Pace::quiet`] has something to do.
    pub fn wants_quiet(&self) -> bool {
        self.surplus > 0 || self.missing > 0
    }

    /// A quiet frame of `samples` is about to be handed over. What is to be done so that the account is level again?
    pub fn quiet(&mut self, samples: usize) -> Quiet {
        let samples = count(samples);
        if samples > 0 && self.surplus >= samples {
            self.surplus -= samples;
            return Quiet::LeaveOut;
        }
        match self.missing.min(STEP) {
            0 => Quiet::Keep,
            step => {
                self.missing -= step;
                self.best = self.best.map(|best| best + step);
                Quiet::MakeUp(step as usize)
            }
        }
    }
}

/// What becomes of a quiet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// It is handed over.
    Keep,
    /// It is not.
    LeaveOut,
    /// It is, and so many samples of silence with it.
    MakeUp(usize),
}

fn count(samples: usize) -> i64 {
    i64::try_from(samples).unwrap_or(i64::MAX)
}

fn samples_in(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX).saturating_mul(RATE / 1_000) / 1_000
}

/// Samples per second of the bridge.
const RATE: i64 = crate::audio::BRIDGE_RATE as i64;
/// Payloads after which a late one was no accident: a second of the usual ones.
const WINDOW: u32 = 50;
/// Less than a frame is not worth a step.
const TOLERANCE: i64 = 480;
/// The most that is made up within what is quiet: two frames, for it may be the pause between two words, which is not
/// to pass for the end of what is said.
const STEP: i64 = 2 * TOLERANCE;
/// The most that is made up at once, after a pause: 10 s.
const MOST: i64 = 10 * RATE;

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 480;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Feeds a frame that comes so long after the beginning; answers what was made up before it.
    fn frame(pace: &mut Pace, begin: Instant, at: u64, paused: bool) -> usize {
        let fill = pace.arrived(begin + ms(at), FRAME, paused);
        pace.handed(fill + FRAME);
        fill
    }

    #[test]
    fn what_a_pause_did_not_get_it_gets_when_it_ends() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        assert_eq!(frame(&mut pace, begin, 20, false), 0);
        // 100 ms, of which 80 were made up while they lasted.
        pace.handed(80 * 24);
        assert_eq!(frame(&mut pace, begin, 140, true), 20 * 24);
        // The next frame of a network that had stalled comes at once: it is one too many.
        assert_eq!(frame(&mut pace, begin, 140, false), 0);
        assert_eq!(pace.quiet(FRAME), Quiet::LeaveOut);
        assert_eq!(pace.quiet(FRAME), Quiet::Keep);
    }

    #[test]
    fn short_pauses_that_looked_like_jitter_are_made_good_where_it_is_quiet() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let mut at = 0;
        for number in 0..200 {
            at += 20 + if number < 5 { 10 } else { 0 };
            assert_eq!(frame(&mut pace, begin, at, false), 0);
            let jitter = number % 3;
            at += jitter;
            let made_up = match pace.quiet(FRAME) {
                Quiet::MakeUp(samples) => samples,
                quiet => {
                    assert_eq!(quiet, Quiet::Keep);
                    0
                }
            };
            pace.handed(made_up);
            at -= jitter;
        }
        let behind = samples_in(ms(at)) - pace.given;
        assert!(behind.abs() <= TOLERANCE, "{behind}");
    }

    #[test]
    fn jitter_alone_changes_nothing() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        for number in 1..=500u64 {
            let late = [0, 13, 4, 19, 7][number as usize % 5];
            assert_eq!(frame(&mut pace, begin, number * 20 + late, false), 0);
            assert_eq!(pace.quiet(FRAME), Quiet::Keep, "{number}");
        }
    }
}
