//! Judges the client's audio: one second of it per second, in small frames, from the start to the end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is wrong with the client's audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Stable name.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

/// The audio of one media socket.
#[derive(Debug)]
pub struct Uplink {
    rate: u32,
    slack: Duration,
    joined: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    bytes: u64,
    frames: u64,
    gap_max: Duration,
    /// Arrivals of the last [`WINDOW`]: when, how many bytes.
    window: VecDeque<(Instant, u64)>,
    window_bytes: u64,
    /// Each kind of mistake is told once per [`WINDOW`].
    told_excess: Option<Instant>,
    told_shortage: Option<Instant>,
}

impl Uplink {
    /// Audio at `rate` that may be `slack` ahead of real time or behind it.
    pub fn new(rate: u32, slack: Duration, joined: Instant) -> Self {
        Self {
            rate,
            slack,
            joined,
            first: None,
            last: None,
            bytes: 0,
            frames: 0,
            gap_max: Duration::ZERO,
            window: VecDeque::new(),
            window_bytes: 0,
            told_excess: None,
            told_shortage: None,
        }
    }

    /// A binary frame came.
    pub fn frame(&mut self, now: Instant, length: usize, mut mistake: impl FnMut(Mistake)) {
        let length = length as u64;
        let mut say = |code, message| mistake(Mistake { code, message });
        if !length.is_multiple_of(2) {
            say("audio_odd_frame", format!("a frame of {length} bytes ends inside a sample"));
        }
        if length == 0 {
            say("audio_empty_frame", "a frame without a sample".to_owned());
        }
        if self.time(length) > FRAME_LONGEST {
            let ms = self.time(length).as_millis();
            say("audio_long_frame", format!("a frame of {ms} ms; small ones of about 20 ms are wanted"));
        }
        if self.first.is_none() {
            let after = now.saturating_duration_since(self.joined);
            if after > START_PATIENCE + self.slack {
                say(
                    "audio_late_start",
                    format!("the first audio came {} ms after the join", after.as_millis()),
                );
            }
        }
        self.check_shortage(now, &mut say);
        self.first.get_or_insert(now);
        if let Some(last) = self.last.replace(now) {
            self.gap_max = self.gap_max.max(now.saturating_duration_since(last));
        }
        self.bytes += length;
        self.frames += 1;
        self.window.push_back((now, length));
        self.window_bytes += length;
        self.trim(now);
        let came = self.time(self.window_bytes);
        let fresh = self.told_excess.is_none_or(|told| now.saturating_duration_since(told) >= WINDOW);
        if came > WINDOW + self.slack && fresh {
            self.told_excess = Some(now);
            let (came, span) = (came.as_millis(), WINDOW.as_millis());
            say("audio_too_fast", format!("{came} ms of audio came within {span} ms"));
        }
    }

    /// Ends the account.
    pub fn finish(&mut self, now: Instant, mut mistake: impl FnMut(Mistake)) {
        let mut say = |code, message| mistake(Mistake { code, message });
        self.check_shortage(now, &mut say);
        let Some(first) = self.first else {
            let after = now.saturating_duration_since(self.joined);
            if after > START_PATIENCE + self.slack {
                say("audio_never", format!("no audio within {} ms", after.as_millis()));
            }
            return;
        };
        let span = now.saturating_duration_since(first);
        let came = self.time(self.bytes);
        let tolerance = self.slack + span / DRIFT_PART;
        if came > span + tolerance || came + tolerance < span {
            let (came, span) = (came.as_millis(), span.as_millis());
            say("audio_drift", format!("{came} ms of audio came in {span} ms"));
        }
    }

    /// Audio so far.
    pub fn heard(&self) -> Duration {
        self.time(self.bytes)
    }

    /// Frames so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The longest time between two frames.
    pub fn gap_max(&self) -> Duration {
        self.gap_max
    }

    /// When the last frame came.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// What came in the window that ends now, before the frame that has just come.
    fn check_shortage(&mut self, now: Instant, say: &mut impl FnMut(&'static str, String)) {
        let Some(first) = self.first else { return };
        self.trim(now);
        let fresh = self.told_shortage.is_none_or(|told| now.saturating_duration_since(told) >= WINDOW);
        let came = self.time(self.window_bytes);
        if now.saturating_duration_since(first) >= WINDOW && came + self.slack < WINDOW && fresh {
            self.told_shortage = Some(now);
            let (came, span) = (came.as_millis(), WINDOW.as_millis());
            say("audio_too_slow", format!("only {came} ms of audio came within {span} ms"));
        }
    }

    fn trim(&mut self, now: Instant) {
        while let Some(&(at, length)) = self.window.front()
            && now.saturating_duration_since(at) >= WINDOW
        {
            self.window.pop_front();
            self.window_bytes -= length;
        }
    }

    fn time(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes * 500_000 / u64::from(self.rate.max(1)))
    }
}

const WINDOW: Duration = Duration::from_secs(2);
const FRAME_LONGEST: Duration = Duration::from_millis(100);
const START_PATIENCE: Duration = Duration::from_secs(1);
/// Over a whole call one part in so many may be missing or too much, besides the slack.
const DRIFT_PART: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `frames` of 20 ms, each `step` after the one before, and gives the mistakes.
    fn run(uplink: &mut Uplink, at: &mut Instant, frames: u32, step: Duration) -> Vec<&'static str> {
        let mut codes = Vec::new();
        for _ in 0..frames {
            uplink.frame(*at, 960, |mistake| codes.push(mistake.code));
            *at += step;
        }
        codes
    }

    fn uplink() -> (Uplink, Instant) {
        let now = Instant::now();
        (Uplink::new(24_000, Duration::from_millis(300), now), now)
    }

    #[test]
    fn real_time_is_right() {
        let (mut uplink, mut at) = uplink();
        assert_eq!(run(&mut uplink, &mut at, 500, Duration::from_millis(20)), [] as [&str; 0]);
        uplink.finish(at, |mistake| panic!("{mistake:?}"));
        assert_eq!(uplink.heard(), Duration::from_secs(10));
    }

    #[test]
    fn bursts_and_holes_are_found() {
        let (mut burst, mut at) = uplink();
        run(&mut burst, &mut at, 100, Duration::from_millis(20));
        assert_eq!(run(&mut burst, &mut at, 30, Duration::ZERO), ["audio_too_fast"]);
        let (mut hole, mut at) = uplink();
        run(&mut hole, &mut at, 100, Duration::from_millis(20));
        at += Duration::from_millis(600);
        assert_eq!(run(&mut hole, &mut at, 1, Duration::from_millis(20)), ["audio_too_slow"]);
        let (mut drift, mut at) = uplink();
        assert_eq!(run(&mut drift, &mut at, 600, Duration::from_micros(19_000)), [] as [&str; 0]);
        let mut codes = Vec::new();
        drift.finish(at, |mistake| codes.push(mistake.code));
        assert_eq!(codes, ["audio_drift"]);
    }

    #[test]
    fn frames_are_whole_and_small() {
        let (mut uplink, at) = uplink();
        let mut codes = Vec::new();
        for length in [961, 0, 9_600] {
            uplink.frame(at, length, |mistake| codes.push(mistake.code));
        }
        assert_eq!(codes, ["audio_odd_frame", "audio_empty_frame", "audio_long_frame"]);
        let mut late = Vec::new();
        let mut never = Uplink::new(8_000, Duration::ZERO, at);
        never.finish(at + Duration::from_secs(2), |mistake| late.push(mistake.code));
        assert_eq!(late, ["audio_never"]);
    }
}
