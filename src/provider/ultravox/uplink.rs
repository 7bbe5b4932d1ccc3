//! The caller's audio on its way to the service: one second of it every second, silence included.
//!
//! The service hears by its own clock. So frames leave by an absolute 20 ms clock of ours, whatever the
//! network does to the caller's audio: a gap is filled with silence, a burst waits, and what comes faster
//! than real time for long is given up, if possible where nobody speaks. After a stall of ours nothing is
//! caught up but a few frames.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::audio::resample::Resampler;
use crate::audio::{FRAME, FRAME_SAMPLES, SampleRate};

/// Paces one session's audio.
#[derive(Debug)]
pub struct Uplink {
    /// 24 kHz audio of the caller that has not left.
    backlog: VecDeque<i16>,
    next_due: Instant,
    resampler: Option<Resampler>,
    frame: Vec<i16>,
    /// The least that stayed behind in this window: what waits without need.
    least_behind: usize,
    ticks: u32,
    /// Samples to give up at the next opportunity.
    excess: usize,
    dropped: u64,
}

impl Uplink {
    /// Audio at `rate` Hz from `now` on. Rates that cannot be resampled are sent at 24 kHz: the settings
    /// have been checked.
    pub fn new(now: Instant, rate: u32) -> Self {
        let to = SampleRate::new(rate).unwrap_or(SampleRate::HZ_24000);
        Self {
            backlog: VecDeque::with_capacity(2 * FRAME_SAMPLES),
            next_due: now,
            resampler: Resampler::new(SampleRate::HZ_24000, to),
            frame: Vec::with_capacity(FRAME_SAMPLES),
            least_behind: usize::MAX,
            ticks: 0,
            excess: 0,
            dropped: 0,
        }
    }

    /// Takes audio of the caller, 24 kHz.
    pub fn push(&mut self, pcm: &[i16]) {
        self.backlog.extend(pcm);
        self.give_up(self.backlog.len().saturating_sub(MOST_WAITING));
    }

    /// When the next frame is due.
    pub fn due(&self) -> Instant {
        self.next_due
    }

    /// The next frame as it goes onto the wire, if one is due: 20 ms, 16-bit little-endian.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.next_due {
            return None;
        }
        if now.saturating_duration_since(self.next_due) > MOST_LATE {
            self.next_due = now;
        }
        self.next_due += FRAME;
        self.trim();
        self.frame.clear();
        if self.backlog.len() >= FRAME_SAMPLES {
            self.frame.extend(self.backlog.drain(..FRAME_SAMPLES));
        } else {
            self.frame.resize(FRAME_SAMPLES, 0);
        }
        self.least_behind = self.least_behind.min(self.backlog.len());
        Some(self.encoded())
    }

    /// Milliseconds of the caller's audio that were given up.
    pub fn dropped_ms(&self) -> u64 {
        self.dropped / SAMPLES_PER_MS
    }

    fn encoded(&mut self) -> Vec<u8> {
        let octets = |pcm: &[i16]| pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        match &mut self.resampler {
            None => octets(&self.frame),
            Some(resampler) => {
                let mut pcm = Vec::with_capacity(2 * FRAME_SAMPLES);
                resampler.process(&self.frame, &mut pcm);
                octets(&pcm)
            }
        }
    }

    /// Gives up what has waited for a whole window without need, where it is quiet.
    fn trim(&mut self) {
        self.ticks += 1;
        if self.ticks >= WINDOW {
            self.excess = self.least_behind.min(self.backlog.len()) / FRAME_SAMPLES * FRAME_SAMPLES;
            (self.ticks, self.least_behind) = (0, usize::MAX);
        }
        while self.excess > 0 && self.backlog.len() >= 2 * FRAME_SAMPLES {
            let quiet = self.backlog.iter().take(FRAME_SAMPLES).all(|sample| sample.unsigned_abs() < QUIET);
            if !quiet && self.excess < LOUD_EXCESS {
                return;
            }
            self.give_up(FRAME_SAMPLES);
            self.excess -= FRAME_SAMPLES;
        }
    }

    fn give_up(&mut self, samples: usize) {
        self.backlog.drain(..samples);
        self.dropped += samples as u64;
    }
}

const SAMPLES_PER_MS: u64 = 24;
/// What may wait at most: more jitter than that is not worth the delay.
const MOST_WAITING: usize = 10 * FRAME_SAMPLES;
/// A clock that is later than this goes on from now instead of catching up: a worker that was busy for a moment
/// owes the service that moment, one that stood still does not.
const MOST_LATE: Duration = Duration::from_millis(200);
/// Frames, one second, in which the least that waited is looked for.
const WINDOW: u32 = 50;
/// About -36 dBov.
const QUIET: u16 = 500;
/// So much is given up even while somebody speaks.
const LOUD_EXCESS: usize = 4 * FRAME_SAMPLES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_takes_fifty_frames_whatever_the_caller_sends() {
        for per_frame in [0, 100, 480, 700, 5000] {
            let start = Instant::now();
            let mut uplink = Uplink::new(start, 24_000);
            let mut octets = 0;
            for ms in 0..10_000 {
                if ms % 20 == 7 {
                    uplink.push(&vec![1000; per_frame]);
                }
                let mut frames = 0;
                while let Some(frame) = uplink.poll(start + Duration::from_millis(ms)) {
                    octets += frame.len();
                    frames += 1;
                }
                assert!(frames <= 1, "a burst of {frames} at {ms} ms");
            }
            assert_eq!(octets, 10 * 48_000, "{per_frame} samples each 20 ms");
        }
    }

    #[test]
    fn audio_that_comes_in_time_leaves_unchanged_and_gaps_are_silent() {
        let start = Instant::now();
        let mut uplink = Uplink::new(start, 24_000);
        let at = |n: u32| start + FRAME * n;
        assert_eq!(uplink.poll(at(0)), Some(vec![0; 960]));
        uplink.push(&[0x0102; 480]);
        assert_eq!(uplink.poll(at(1)), Some([0x02, 0x01].repeat(480)));
        uplink.push(&[0x0102; 400]);
        assert_eq!(uplink.poll(at(2)), Some(vec![0; 960]), "a part of a frame waits for the rest");
        uplink.push(&[0x0102; 80]);
        assert_eq!(uplink.poll(at(3)), Some([0x02, 0x01].repeat(480)));
        assert_eq!((uplink.poll(at(3)), uplink.dropped_ms()), (None, 0));
    }

    #[test]
    fn a_stall_is_not_caught_up() {
        let start = Instant::now();
        let mut uplink = Uplink::new(start, 8_000);
        assert_eq!(uplink.poll(start).map(|frame| frame.len()), Some(320));
        uplink.push(&vec![3000; 24_000]);
        let later = start + Duration::from_secs(1);
        let mut frames = 0;
        while uplink.poll(later).is_some() {
            frames += 1;
        }
        assert_eq!(frames, 1);
        assert_eq!(uplink.due(), later + FRAME);
        assert_eq!(uplink.dropped_ms(), 800, "200 ms may wait");
    }

    #[test]
    fn what_waits_without_need_is_given_up_where_it_is_quiet() {
        let start = Instant::now();
        let mut uplink = Uplink::new(start, 24_000);
        uplink.push(&[9000; 3 * 480]);
        for n in 0..60 {
            uplink.push(&[9000; 480]);
            uplink.poll(start + FRAME * n);
        }
        assert_eq!(uplink.dropped_ms(), 0, "somebody speaks");
        for n in 60..80 {
            uplink.push(&[0; 480]);
            uplink.poll(start + FRAME * n);
        }
        assert_eq!(uplink.dropped_ms(), 60);
    }

    #[test]
    fn other_rates_have_frames_of_twenty_milliseconds_too() {
        for (rate, octets) in [(8_000, 320), (16_000, 640), (24_000, 960), (48_000, 1920)] {
            let start = Instant::now();
            let mut uplink = Uplink::new(start, rate);
            for n in 0..5 {
                assert_eq!(uplink.poll(start + FRAME * n).map(|frame| frame.len()), Some(octets), "{rate}");
            }
        }
    }
}
