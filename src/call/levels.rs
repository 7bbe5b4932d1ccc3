//! Who speaks how loudly: what the live feed shows as `speech.level`.
//!
//! The caller's audio is measured as it is heard. The assistant's comes faster than it is played, so its
//! loudness is kept by the time at which it will be heard, until the clock gets there or the caller
//! interrupts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::audio::{BRIDGE_RATE, level};
use crate::event::Ephemeral;

/// The meter of one conversation.
#[derive(Debug)]
pub struct Levels {
    /// Loudest of the caller since the last look.
    caller: f32,
    assistant: Envelope,
    look_at: Instant,
    /// Last shown: caller, assistant.
    shown: (i16, i16),
}

impl Levels {
    /// A meter at rest.
    pub fn new(now: Instant) -> Self {
        Self {
            caller: 0.0,
            assistant: Envelope { blocks: VecDeque::new(), until: now },
            look_at: now,
            shown: (QUIET_DBOV, QUIET_DBOV),
        }
    }

    /// The caller was heard; answers with the mean square.
    pub fn heard(&mut self, pcm: &[i16]) -> f32 {
        let power = level::power(pcm);
        self.caller = self.caller.max(power);
        power
    }

    /// Audio of the assistant joined what is being played.
    pub fn playing(&mut self, now: Instant, pcm: &[i16]) {
        self.assistant.push(now, pcm);
    }

    /// What is not yet played never will be.
    pub fn cleared(&mut self, now: Instant) {
        self.assistant = Envelope { blocks: VecDeque::new(), until: now };
    }

    /// The levels, when it is time to show them and they are not much the same as those shown last.
    pub fn look(&mut self, now: Instant) -> Option<Ephemeral> {
        if now < self.look_at {
            return None;
        }
        self.look_at = now + INTERVAL;
        let caller = shown(std::mem::take(&mut self.caller));
        let assistant = shown(self.assistant.take(now));
        let (caller_before, assistant_before) = self.shown;
        if caller.abs_diff(caller_before) < NOTABLE_DB && assistant.abs_diff(assistant_before) < NOTABLE_DB {
            return None;
        }
        self.shown = (caller, assistant);
        Some(Ephemeral::Level { caller_dbov: caller, assistant_dbov: assistant })
    }
}

/// The loudness of audio that waits to be played.
#[derive(Debug)]
struct Envelope {
    blocks: VecDeque<Block>,
    /// When the last of them has been played.
    until: Instant,
}

#[derive(Debug)]
struct Block {
    starts: Instant,
    ends: Instant,
    power: f32,
}

impl Envelope {
    fn push(&mut self, now: Instant, pcm: &[i16]) {
        self.until = self.until.max(now);
        for samples in pcm.chunks(BLOCK_SAMPLES) {
            if self.blocks.len() == BLOCKS_MAX {
                return;
            }
            let starts = self.until;
            let micros = samples.len() as u64 * 1_000_000 / u64::from(BRIDGE_RATE);
            self.until += Duration::from_micros(micros);
            self.blocks.push_back(Block { starts, ends: self.until, power: level::power(samples) });
        }
    }

    /// The loudest that was played since the last look. A block that still plays counts again.
    fn take(&mut self, now: Instant) -> f32 {
        let mut loudest = 0.0f32;
        while let Some(block) = self.blocks.front().filter(|block| block.starts <= now) {
            loudest = loudest.max(block.power);
            if block.ends > now {
                break;
            }
            self.blocks.pop_front();
        }
        loudest
    }
}

/// A power in whole dBov.
fn shown(power: f32) -> i16 {
    (level::power_dbov(power).round() as i16).max(QUIET_DBOV)
}

/// Levels are shown at most this often.
const INTERVAL: Duration = Duration::from_millis(200);
/// Smaller changes are not shown.
const NOTABLE_DB: u16 = 3;
/// Everything below is silence on a telephone.
const QUIET_DBOV: i16 = -60;
/// 100 ms.
const BLOCK_SAMPLES: usize = BRIDGE_RATE as usize / 10;
/// Ten minutes, as much as may wait to be played; what comes beyond is not measured.
const BLOCKS_MAX: usize = 6_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_shown_five_times_a_second_at_most_and_only_when_they_change() {
        let start = Instant::now();
        let mut levels = Levels::new(start);
        let seen: Vec<_> = (0..100u64)
            .filter_map(|slot| {
                // A second of silence, then half a second loud and half a second not so loud.
                let amplitude = [0, 8_000, 2_000][[0, 0, 1, 2][slot as usize / 25]];
                levels.heard(&[amplitude; 480]);
                let shown = levels.look(start + Duration::from_millis(20 * slot))?;
                Some((20 * slot, caller_of(&shown)))
            })
            .collect();
        // What is shown at 1600 ms still has the end of the loud part in it.
        assert_eq!(seen, [(1000, -12), (1800, -24)]);
    }

    #[test]
    fn the_assistant_is_shown_when_it_is_heard_not_when_it_is_generated() {
        let start = Instant::now();
        let mut levels = Levels::new(start);
        // Two seconds at once: silence and then a loud one.
        levels.playing(start, &vec![0; 24_000]);
        levels.playing(start, &vec![8_000; 24_000]);
        assert_eq!(assistant(&mut levels, start, 0..=1900), [(1000, -12)]);
        assert_eq!(assistant(&mut levels, start, 2000..=4000), [(2200, -60)]);
    }

    #[test]
    fn an_interrupted_assistant_falls_silent_at_once() {
        let start = Instant::now();
        let mut levels = Levels::new(start);
        levels.playing(start, &vec![8_000; 240_000]);
        assert_eq!(assistant(&mut levels, start, 0..=500), [(0, -12)]);
        levels.cleared(start + Duration::from_millis(520));
        assert_eq!(assistant(&mut levels, start, 520..=9000), [(600, -60)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let start = Instant::now();
        let mut levels = Levels::new(start);
        for _ in 0..700 {
            levels.playing(start, &vec![1; 24_000]);
        }
        assert_eq!(levels.assistant.blocks.len(), BLOCKS_MAX);
    }

    /// What is shown of the assistant in slots of 20 ms.
    fn assistant(
        levels: &mut Levels,
        start: Instant,
        millis: std::ops::RangeInclusive<u64>,
    ) -> Vec<(u64, i16)> {
        let looks = millis.step_by(20);
        looks
            .filter_map(|at| match levels.look(start + Duration::from_millis(at))? {
                Ephemeral::Level { assistant_dbov, .. } => Some((at, assistant_dbov)),
                Ephemeral::Partial { .. } => None,
            })
            .collect()
    }

    fn caller_of(shown: &Ephemeral) -> i16 {
        match shown {
            Ephemeral::Level { caller_dbov, .. } => *caller_dbov,
            Ephemeral::Partial { .. } => panic!("no level"),
        }
    }
}
