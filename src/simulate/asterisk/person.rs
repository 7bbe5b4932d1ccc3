//! Who is on a channel of the simulated PBX: a mouth and two ears.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::simulate::sound;

/// Somebody who says what they are told, in real time, and remembers what they heard.
#[derive(Debug)]
pub struct Person {
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    mouth: Mouth,
    heard: Tape,
    keep: Option<Duration>,
    gone: bool,
}

/// What was heard, in order of arrival.
#[derive(Debug, Clone, Default)]
pub struct Tape {
    /// Of [`Self::pcm`] in Hz, the highest that was heard; 0 until something was.
    pub rate: u32,
    /// The samples one after the other: silence in which nothing arrived is not on it.
    pub pcm: Vec<i16>,
    /// When each piece arrived.
    pub arrivals: Vec<Arrival>,
    /// Samples that came after there was no more room.
    pub unkept: u64,
}

/// A piece of a [`Tape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it was there.
    pub at: Instant,
    /// Its first sample's place on the tape.
    pub start: usize,
}

impl Tape {
    /// What arrived at or after `since`.
    pub fn since(&self, since: Instant) -> &[i16] {
        let first = self.arrivals.iter().find(|arrival| arrival.at >= since);
        first.map_or(&[], |arrival| &self.pcm[arrival.start..])
    }

    /// The latest arrival of a sample that is louder than `loud`.
    pub fn last_loud(&self, loud: u16) -> Option<Instant> {
        let sample = self.pcm.iter().rposition(|sample| sample.unsigned_abs() > loud)?;
        self.arrivals.iter().rfind(|arrival| arrival.start <= sample).map(|arrival| arrival.at)
    }

    /// The first arrival of a sample that is louder than `loud`.
    pub fn first_loud(&self, loud: u16) -> Option<Instant> {
        let sample = self.pcm.iter().position(|sample| sample.unsigned_abs() > loud)?;
        self.arrivals.iter().rfind(|arrival| arrival.start <= sample).map(|arrival| arrival.at)
    }

    /// How much was heard.
    pub fn length(&self) -> Duration {
        match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(self.pcm.len() as f64 / f64::from(rate)),
        }
    }

    fn add(&mut self, at: Instant, rate: u32, pcm: &[i16], keep: Option<Duration>) {
        if rate > self.rate {
            self.raise(rate);
        }
        if keep.is_some_and(|keep| self.length() >= keep) {
            self.unkept += pcm.len() as u64;
            return;
        }
        self.arrivals.push(Arrival { at, start: self.pcm.len() });
        if self.rate == rate {
            self.pcm.extend_from_slice(pcm);
        } else {
            self.pcm.extend(sound::resample(pcm, rate, self.rate));
        }
    }

    /// What was heard before at a lower rate is brought to this one: a server may begin at 8 kHz, before it knows.
    fn raise(&mut self, rate: u32) {
        if self.rate > 0 {
            self.pcm = sound::resample(&self.pcm, self.rate, rate);
            let place = |start: usize| (start as u64 * u64::from(rate) / u64::from(self.rate)) as usize;
            self.arrivals.iter_mut().for_each(|arrival| arrival.start = place(arrival.start));
        }
        self.rate = rate;
    }
}

#[derive(Debug, Default)]
struct Mouth {
    lines: VecDeque<(Arc<[i16]>, u32)>,
    /// The first line at the rate it is being said at, and how far.
    current: Option<(Vec<i16>, u32, usize)>,
    /// Nothing is sent at all, not even silence.
    muted: bool,
}

impl Mouth {
    fn is_busy(&self) -> bool {
        self.current.is_some() || !self.lines.is_empty()
    }

    /// Fills the frame up to `samples`, silence where there are no words.
    fn speak(&mut self, rate: u32, samples: usize, frame: &mut Vec<i16>) {
        frame.clear();
        while frame.len() < samples {
            if self.current.as_ref().is_none_or(|(_, at, _)| *at != rate) {
                let rest = self.current.take().map(|(pcm, at, done)| (Arc::from(&pcm[done..]), at));
                let Some((pcm, at)) = rest.or_else(|| self.lines.pop_front()) else { break };
                self.current = Some((sound::resample(&pcm, at, rate), rate, 0));
            }
            let Some((pcm, _, done)) = &mut self.current else { break };
            let end = pcm.len().min(*done + samples - frame.len());
            frame.extend_from_slice(&pcm[*done..end]);
            *done = end;
            if end == pcm.len() {
                self.current = None;
            }
        }
        frame.resize(samples, 0);
    }
}

/// What is at the other end of a channel's audio.
pub(super) trait Far: std::fmt::Debug + Send + Sync {
    /// What goes out in the next `samples`; `false` when nothing at all is to be sent.
    fn speak(&self, rate: u32, samples: usize, frame: &mut Vec<i16>) -> bool;

    /// Something came in.
    fn listen(&self, at: Instant, rate: u32, pcm: &[i16]);

    /// The line is gone: who waits for something waits no longer.
    fn leave(&self);
}

impl Person {
    /// Somebody with an endless memory.
    pub fn new() -> Arc<Self> {
        Self::with_memory(None)
    }

    /// Somebody who remembers the first so much of what they hear.
    pub fn with_memory(keep: Option<Duration>) -> Arc<Self> {
        let state = Mutex::new(State { keep, ..State::default() });
        Arc::new(Self { state, changes: watch::Sender::new(()) })
    }

    /// Says this after all else. Between lines, and without any, they send silence.
    pub fn say(&self, pcm: impl Into<Arc<[i16]>>, rate: u32) {
        self.lock().mouth.lines.push_back((pcm.into(), rate));
    }

    /// Sends nothing at all any more (held, or a phone with voice activity detection), or sends again.
    pub fn mute(&self, on: bool) {
        self.lock().mouth.muted = on;
    }

    /// All that was heard.
    pub fn tape(&self) -> Tape {
        self.lock().heard.clone()
    }

    /// Waits until everything is said, or until the line is gone.
    pub async fn said(&self) {
        self.wait(|state| (!state.mouth.is_busy()).then_some(())).await;
    }

    /// The next `span` of what is heard from now on; less when the line is gone before.
    pub async fn hear(&self, span: Duration) -> Vec<i16> {
        // Counted in pieces: the rate may rise meanwhile.
        let from = self.lock().heard.arrivals.len();
        let piece = |tape: &Tape| match tape.arrivals.get(from) {
            Some(arrival) => tape.pcm[arrival.start..].to_vec(),
            None => Vec::new(),
        };
        let heard = self.wait(|state| {
            let tape = &state.heard;
            let wanted = (span.as_secs_f64() * f64::from(tape.rate)) as usize;
            let mut pcm = piece(tape);
            (tape.rate > 0 && pcm.len() >= wanted).then(|| {
                pcm.truncate(wanted);
                pcm
            })
        });
        match heard.await {
            Some(pcm) => pcm,
            None => piece(&self.lock().heard),
        }
    }

    /// Waits until what was heard is as `done` wants it; `false` when the line is gone before.
    pub async fn until(&self, mut done: impl FnMut(&Tape) -> bool) -> bool {
        self.wait(|state| done(&state.heard).then_some(())).await.is_some()
    }

    async fn wait<T>(&self, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut changes = self.changes.subscribe();
        loop {
            let (found, gone) = {
                let state = self.lock();
                (look(&state), state.gone)
            };
            if found.is_some() || gone {
                return found;
            }
            // The sender is ours: it cannot be gone.
            let _ = changes.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Far for Person {
    fn speak(&self, rate: u32, samples: usize, frame: &mut Vec<i16>) -> bool {
        let mut state = self.lock();
        if state.mouth.muted {
            return false;
        }
        let was_busy = state.mouth.is_busy();
        state.mouth.speak(rate, samples, frame);
        let is_done = was_busy && !state.mouth.is_busy();
        drop(state);
        if is_done {
            self.changes.send_replace(());
        }
        true
    }

    fn listen(&self, at: Instant, rate: u32, pcm: &[i16]) {
        let mut state = self.lock();
        let keep = state.keep;
        state.heard.add(at, rate, pcm, keep);
        drop(state);
        self.changes.send_replace(());
    }

    fn leave(&self) {
        self.lock().gone = true;
        self.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_said_frame_by_frame_and_silence_follows() {
        let person = Person::new();
        person.say(vec![5; 300], 8_000);
        person.say(vec![6; 100], 8_000);
        let mut frame = Vec::new();
        assert!(person.speak(8_000, 160, &mut frame) && frame == [5; 160]);
        assert!(person.speak(8_000, 160, &mut frame));
        assert_eq!((frame[139], frame[140], frame[159]), (5, 6, 6));
        assert!(person.speak(8_000, 160, &mut frame));
        assert_eq!((frame[79], frame[80], frame.len()), (6, 0, 160));
        person.mute(true);
        assert!(!person.speak(8_000, 160, &mut frame));
    }

    #[test]
    fn a_tape_knows_when_what_arrived() {
        let (mut tape, start) = (Tape::default(), Instant::now());
        for n in 0..4u64 {
            let loud = if n == 1 || n == 2 { 1000 } else { 0 };
            tape.add(start + Duration::from_millis(20 * n), 8_000, &[loud; 160], None);
        }
        assert_eq!(tape.first_loud(500), Some(start + Duration::from_millis(20)));
        assert_eq!(tape.last_loud(500), Some(start + Duration::from_millis(40)));
        assert_eq!(tape.since(start + Duration::from_millis(30)).len(), 320);
        tape.add(start, 8_000, &[1; 160], Some(Duration::from_millis(80)));
        assert_eq!((tape.unkept, tape.length()), (160, Duration::from_millis(80)));
        tape.add(start + Duration::from_millis(80), 24_000, &[7; 480], None);
        assert_eq!((tape.rate, tape.pcm.len(), &tape.pcm[1_920..]), (24_000, 2_400, &[7; 480][..]));
        assert_eq!((tape.arrivals[3].start, tape.arrivals[4].start), (1_440, 1_920));
    }
}
