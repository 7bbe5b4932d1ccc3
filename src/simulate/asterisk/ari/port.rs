//! How audio gets from one channel of a bridge to the others.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::state::{Behind, Channel};
use crate::audio::BRIDGE_RATE;
use crate::audio::mix::add_saturating;
use crate::simulate::asterisk::measure::SLOT;
use crate::simulate::asterisk::person::{Far, Person};
use crate::simulate::sound;

/// The side of an external medium that is in a bridge: what the others say goes out, what comes in the others hear.
#[derive(Debug, Default)]
pub(super) struct Port {
    others: Mutex<Vec<Arc<dyn Far>>>,
}

impl Port {
    pub(super) fn connect(&self, others: Vec<Arc<dyn Far>>) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = others;
    }

    fn others(&self) -> Vec<Arc<dyn Far>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Far for Port {
    fn speak(&self, rate: u32, samples: usize, frame: &mut Vec<i16>) -> bool {
        frame.clear();
        frame.resize(samples, 0);
        let (mut any, mut one) = (false, Vec::new());
        for other in self.others() {
            if other.speak(rate, samples, &mut one) {
                add_saturating(frame, &one);
                any = true;
            }
        }
        any
    }

    fn listen(&self, at: Instant, rate: u32, pcm: &[i16]) {
        for other in self.others() {
            other.listen(at, rate, pcm);
        }
    }

    fn leave(&self) {}
}

/// What a snoop channel hears: both directions of another one, added.
#[derive(Debug, Default)]
pub(super) struct Spy {
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    said: VecDeque<i16>,
    told: VecDeque<i16>,
    stopped: bool,
}

impl Spy {
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, rate: u32, pcm: &[i16], said: bool) {
        let pcm = sound::resample(pcm, rate, BRIDGE_RATE);
        let mut heard = self.lock();
        let queue = if said { &mut heard.said } else { &mut heard.told };
        queue.extend(pcm);
        let surplus = queue.len().saturating_sub(BRIDGE_RATE as usize);
        queue.drain(..surplus);
    }
}

impl Far for Spy {
    fn speak(&self, rate: u32, samples: usize, frame: &mut Vec<i16>) -> bool {
        let wanted = samples * BRIDGE_RATE as usize / rate.max(1) as usize;
        let mut heard = self.lock();
        let pop = |queue: &mut VecDeque<i16>| -> Vec<i16> {
            let count = wanted.min(queue.len());
            let mut piece: Vec<i16> = queue.drain(..count).collect();
            piece.resize(wanted, 0);
            piece
        };
        let mut sum = pop(&mut heard.said);
        let told = pop(&mut heard.told);
        drop(heard);
        add_saturating(&mut sum, &told);
        *frame = sound::resample(&sum, BRIDGE_RATE, rate);
        frame.resize(samples, 0);
        true
    }

    fn listen(&self, _at: Instant, _rate: u32, _pcm: &[i16]) {}

    fn leave(&self) {}
}

/// Somebody with spies.
#[derive(Debug)]
struct Tapped {
    person: Arc<Person>,
    spies: Arc<Mutex<Vec<Arc<Spy>>>>,
}

impl Tapped {
    fn tell(&self, rate: u32, pcm: &[i16], said: bool) {
        let mut spies = self.spies.lock().unwrap_or_else(PoisonError::into_inner);
        spies.retain(|spy| !spy.is_stopped());
        spies.iter().for_each(|spy| spy.take(rate, pcm, said));
    }
}

impl Far for Tapped {
    fn speak(&self, rate: u32, samples: usize, frame: &mut Vec<i16>) -> bool {
        let speaks = self.person.speak(rate, samples, frame);
        if speaks {
            self.tell(rate, frame, true);
        }
        speaks
    }

    fn listen(&self, at: Instant, rate: u32, pcm: &[i16]) {
        self.person.listen(at, rate, pcm);
        self.tell(rate, pcm, false);
    }

    fn leave(&self) {}
}

impl Channel {
    /// The channel as the others in a bridge meet it.
    pub(super) fn end(&self) -> Arc<dyn Far> {
        match &self.behind {
            Behind::Snoop(spy) => spy.clone(),
            _ => Arc::new(Tapped { person: self.person.clone(), spies: self.spies.clone() }),
        }
    }
}

/// People hear each other.
pub(super) async fn converse(people: Vec<Arc<dyn Far>>, stop: CancellationToken) {
    let mut slots = tokio::time::interval(SLOT);
    let samples = crate::audio::FRAME_SAMPLES;
    let mut frame = Vec::new();
    while stop.run_until_cancelled(slots.tick()).await.is_some() {
        let now = Instant::now();
        for (index, speaker) in people.iter().enumerate() {
            if speaker.speak(BRIDGE_RATE, samples, &mut frame) {
                let others = people.iter().enumerate().filter(|(other, _)| *other != index);
                others.for_each(|(_, other)| other.listen(now, BRIDGE_RATE, &frame));
            }
        }
    }
}
