//! Whether the service still hears the caller: a pure core.
//!
//! A session can be dead without having ended: its connection stands and nothing comes any more, not even word that
//! the caller speaks. A detector of our own notices that they do. When the service says nothing to that, it is asked
//! for a sign of life, for it may only have taken the sound for noise; one that gives none is lost.

use std::time::{Duration, Instant};

use crate::audio::vad::{Detector, Edge, Settings};
use crate::audio::{SampleRate, level};

/// Listens to the caller and to what the service makes of it.
#[derive(Debug)]
pub struct Pulse {
    ears: Detector,
    edges: Vec<Edge>,
    /// The caller has spoken since, and the service has not said a word.
    spoke: Option<Spoke>,
    asked: Option<Asked>,
    not_before: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Spoke {
    since: Instant,
    until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    /// Messages of the service before.
    messages: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The service must be asked for a sign of life.
    Ask,
    /// It has given none.
    Dead,
    /// It lives: what was heard was not for it.
    Lives,
}

impl Default for Pulse {
    fn default() -> Self {
        let settings =
            Settings { margin_db: 15.0, least_dbov: LEAST_DBOV, min_speech_ms: 200, ..Settings::default() };
        Self {
            ears: Detector::new(SampleRate::HZ_24000, settings),
            edges: Vec::new(),
            spoke: None,
            asked: None,
            not_before: None,
        }
    }
}

impl Pulse {
    /// The caller was heard, 24 kHz, with that mean square; answers whether they have just begun to speak.
    pub fn hear(&mut self, now: Instant, pcm: &[i16], power: f32) -> bool {
        let mut edges = std::mem::take(&mut self.edges);
        // All of it in one block of 10 ms would still be too soft for speech.
        if power * (pcm.len() as f32 / BLOCK) < level::OVERLOAD * LEAST {
            self.ears.feed_quiet(pcm, level::power_dbov(power), &mut edges);
        } else {
            self.ears.feed(pcm, &mut edges);
        }
        let mut began = false;
        for edge in edges.drain(..) {
            match edge {
                Edge::Start { .. } => {
                    began = true;
                    self.spoke.get_or_insert(Spoke { since: now, until: None });
                }
                Edge::End { .. } => {
                    if let Some(spoke) = &mut self.spoke {
                        spoke.until.get_or_insert(now);
                    }
                }
            }
        }
        self.edges = edges;
        began
    }

    /// The service has said something.
    pub fn told(&mut self) {
        (self.spoke, self.asked) = (None, None);
    }

    /// What is to be done; `messages` have come from the service so far.
    pub fn look(&mut self, now: Instant, messages: u64) -> Option<Finding> {
        if let Some(asked) = self.asked {
            if messages > asked.messages {
                self.told();
                self.not_before = Some(now + AGAIN_AFTER);
                return Some(Finding::Lives);
            }
            return (now >= asked.at + ANSWER_WITHIN).then_some(Finding::Dead);
        }
        let due = self.asks_at().is_some_and(|at| now >= at);
        due.then(|| {
            self.asked = Some(Asked { at: now, messages });
            Finding::Ask
        })
    }

    fn asks_at(&self) -> Option<Instant> {
        let spoke = self.spoke?;
        let suspect = match spoke.until {
            Some(until) => until + AFTER_SPEECH,
            None => spoke.since + DURING_SPEECH,
        };
        Some(self.not_before.map_or(suspect, |at| suspect.max(at)))
    }

    /// When [`Self::look`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.asked {
            Some(asked) => Some(asked.at + ANSWER_WITHIN),
            None => self.asks_at(),
        }
    }

    /// This service cannot be asked.
    pub fn give_up(&mut self, now: Instant) {
        self.told();
        self.not_before = Some(now + NEVER);
    }

    /// Another service is listened for.
    pub fn of_another(&mut self) {
        self.told();
        self.not_before = None;
    }
}

const LEAST_DBOV: f32 = -40.0;
/// The same as a share of overload.
const LEAST: f32 = 1e-4;
/// Samples in 10 ms.
const BLOCK: f32 = 240.0;
/// A service has noticed speech so long after its end, whatever its turn detection.
const AFTER_SPEECH: Duration = Duration::from_millis(700);
/// Or so long after its beginning.
const DURING_SPEECH: Duration = Duration::from_millis(2500);
/// A sign of life takes a round trip.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// A service that lives is not asked again before.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_says_nothing_to_speech_is_asked_and_then_dead() {
        let (mut pulse, at) = new();
        speak(&mut pulse, &at, 1000, 800);
        assert_eq!(pulse.look(at(2900), 7), None, "{:?}", pulse.deadline());
        assert_eq!(pulse.look(at(3100), 7), Some(Finding::Ask));
        assert_eq!(pulse.look(at(4500), 7), None);
        assert_eq!(pulse.look(at(4600), 7), Some(Finding::Dead));
    }

    #[test]
    fn a_service_that_answers_lives_and_is_left_alone_for_a_while() {
        let (mut pulse, at) = new();
        speak(&mut pulse, &at, 1000, 800);
        assert_eq!(pulse.look(at(3100), 7), Some(Finding::Ask));
        assert_eq!(pulse.look(at(3200), 8), Some(Finding::Lives));
        speak(&mut pulse, &at, 4000, 800);
        assert_eq!(pulse.look(at(9000), 8), None);
    }

    #[test]
    fn word_of_the_caller_is_a_sign_of_life() {
        let (mut pulse, at) = new();
        speak(&mut pulse, &at, 1000, 800);
        pulse.told();
        assert_eq!((pulse.look(at(9000), 7), pulse.deadline()), (None, None));
    }

    #[test]
    fn someone_who_does_not_stop_speaking_is_not_waited_for() {
        let (mut pulse, at) = new();
        speak(&mut pulse, &at, 1000, 0);
        for ms in (1000..4000).step_by(20) {
            hear(&mut pulse, at(ms), &loud());
        }
        assert_eq!(pulse.look(at(4000), 0), Some(Finding::Ask));
    }

    fn new() -> (Pulse, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let mut pulse = Pulse::default();
        for twenty in 0..50 {
            hear(&mut pulse, start + Duration::from_millis(twenty * 20), &[0; 480]);
        }
        (pulse, move |ms| start + Duration::from_millis(ms))
    }

    fn speak(pulse: &mut Pulse, at: &impl Fn(u64) -> Instant, from: u64, ms: u64) {
        for twenty in 0..ms / 20 {
            hear(pulse, at(from + twenty * 20), &loud());
        }
        for twenty in 0..30 {
            hear(pulse, at(from + ms + twenty * 20), &[0; 480]);
        }
    }

    fn hear(pulse: &mut Pulse, now: Instant, pcm: &[i16]) {
        pulse.hear(now, pcm, level::power(pcm));
    }

    fn loud() -> [i16; 480] {
        std::array::from_fn(|n| if n % 48 < 24 { 6000 } else { -6000 })
    }
}
