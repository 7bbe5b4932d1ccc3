//! What the far end will hear next: audio per item, cut into 20 ms slots.
//!
//! Providers speak faster than real time, so audio waits here, already in the codec's own rate (and for
//! G.711 in its byte form: 8 kB per second of speech). Items follow each other without a gap if the next
//! one waits already. [`Playout::clear`] is the barge-in: nothing is heard afterwards but a fade of 5 ms
//! at the start of the next slot. What was heard is counted in samples that left in slots, less the
//! delay of the resampler; it never exceeds what was given.
//!
//! Full is refused: [`PlayError::Full`] says how much was taken, and the rest is the caller's to hold back
//! or drop.

mod live;
mod samples;
mod widener;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::audio::{AudioError, BRIDGE_RATE, Codec, Encoder, SampleRate};

use live::Live;

pub use samples::Samples;
pub use widener::Widener;

/// Names one stretch of audio; a provider's item id, or a name of ours for a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemKey(pub Arc<str>);

impl From<&str> for ItemKey {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<Arc<str>> for ItemKey {
    fn from(text: Arc<str>) -> Self {
        Self(text)
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why audio is not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlayError {
    /// The queue holds as much as it may.
    #[error("the playout queue is full; {accepted} samples were taken, hold the rest back")]
    Full {
        /// Samples at 24 kHz that were still taken.
        accepted: usize,
    },
    /// The item was cleared: this is late audio of something that must not be heard any more.
    #[error("the item was cleared; its late audio is dropped")]
    Cleared,
}

/// How much of an item was heard when it was cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlayedItem {
    /// The item.
    pub item: ItemKey,
    /// What left on RTP.
    pub played_ms: u64,
    /// What was given.
    pub total_ms: u64,
    /// All that was given has left, and no more was to come.
    pub complete: bool,
}

/// What happened in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlayoutEvent {
    /// The first samples of an item left.
    Started(ItemKey),
    /// The last samples of an ended item left.
    Finished {
        /// The item.
        item: ItemKey,
        /// Its length.
        played_ms: u64,
    },
}

/// The queue.
#[derive(Debug)]
pub struct Playout {
    codec: Codec,
    encoder: Encoder,
    limit: Duration,
    items: VecDeque<Item>,
    /// Native samples that wait.
    queued: usize,
    /// What another party says, heard while no item is.
    live: Live,
    /// The fade after a clear, to be heard first.
    tail: Samples,
    /// The last sample that left, to fade from.
    last: i16,
    /// Ran out of audio within an item.
    dry: bool,
    /// Items wait, whatever they hold.
    paused: bool,
    past: VecDeque<Past>,
    events: VecDeque<PlayoutEvent>,
    native: Vec<i16>,
    spare: Option<Samples>,
    underruns: u64,
    /// Given, and heard of items that are gone; at 24 kHz.
    given: u64,
    heard: u64,
}

#[derive(Debug)]
struct Item {
    key: ItemKey,
    audio: Samples,
    /// Samples of `audio` that have left.
    left: usize,
    /// Samples that have left and are gone from `audio`.
    gone: u64,
    /// Given, at 24 kHz.
    given: u64,
    /// Heard under a previous codec, at 24 kHz.
    heard_before: u64,
    started: bool,
    ended: bool,
    /// The resampler's last samples have been drawn.
    flushed: bool,
}

#[derive(Debug)]
struct Past {
    key: ItemKey,
    played_ms: u64,
    cleared: bool,
}

impl Playout {
    /// An empty queue for `codec` that holds at most `limit` of audio.
    ///
    /// # Errors
    /// When there is no encoder for the codec.
    pub fn new(codec: Codec, limit: Duration) -> Result<Self, AudioError> {
        Ok(Self {
            codec,
            encoder: Encoder::new(codec)?,
            limit,
            items: VecDeque::new(),
            queued: 0,
            live: Live::new(codec),
            tail: Samples::of(codec),
            last: 0,
            dry: false,
            paused: false,
            past: VecDeque::with_capacity(PAST),
            events: VecDeque::new(),
            native: Vec::new(),
            spare: None,
            underruns: 0,
            given: 0,
            heard: 0,
        })
    }

    /// Changes codec and limit. Waiting audio is converted and stays.
    ///
    /// # Errors
    /// When there is no encoder for the codec; then nothing has changed.
    pub fn reconfigure(&mut self, codec: Codec, limit: Duration) -> Result<(), AudioError> {
        self.limit = limit;
        if codec == self.codec {
            return Ok(());
        }
        let mut encoder = Encoder::new(codec)?;
        let delay = self.delay_24k();
        let mut widener = Widener::new(self.codec)?;
        let (old, mut wide) = (self.codec, Vec::new());
        self.queued = 0;
        for item in &mut self.items {
            item.heard_before = item.heard(old, delay);
            wide.clear();
            widener.widen(&item.audio, item.left..item.audio.len(), &mut wide);
            self.native.clear();
            encoder.narrow(&wide, &mut self.native);
            item.audio = Samples::of(codec);
            item.audio.extend(&self.native);
            (item.left, item.gone) = (0, 0);
            self.queued += item.audio.len();
        }
        self.tail = Samples::of(codec);
        self.live.reset(codec);
        self.spare = None;
        self.encoder = encoder;
        self.codec = codec;
        Ok(())
    }

    /// Prepares packets for this share of loss on the way, in percent. Lasts until the codec changes.
    pub fn expect_loss(&mut self, percent: u8) {
        if let Err(error) = self.encoder.set_expected_loss(percent.min(100)) {
            tracing::debug!(%error, "the encoder does not adapt to loss");
        }
    }

    /// Appends 24 kHz audio to an item, which joins the queue if it is new. When another item is begun,
    /// the one before it has ended.
    ///
    /// # Errors
    /// [`PlayError::Full`] and [`PlayError::Cleared`].
    pub fn play(&mut self, key: &ItemKey, pcm24k: &[i16]) -> Result<(), PlayError> {
        if self.past.iter().any(|past| past.cleared && past.key == *key) {
            return Err(PlayError::Cleared);
        }
        self.given += pcm24k.len() as u64;
        let accepted = pcm24k.len().min(self.room_24k());
        let at = match self.items.iter().rposition(|item| item.key == *key) {
            Some(at) => at,
            None if self.items.len() < MAX_ITEMS => {
                self.flush_last();
                self.begin(key.clone());
                self.items.len() - 1
            }
            None => return Err(PlayError::Full { accepted: 0 }),
        };
        self.native.clear();
        self.encoder.narrow(&pcm24k[..accepted], &mut self.native);
        let item = &mut self.items[at];
        item.audio.extend(&self.native);
        item.given += accepted as u64;
        self.queued += self.native.len();
        if accepted < pcm24k.len() { Err(PlayError::Full { accepted }) } else { Ok(()) }
    }

    /// Appends 24 kHz audio of another party: heard while no item is, two slots late. At most 120 ms wait; the
    /// oldest go first.
    pub fn play_live(&mut self, pcm24k: &[i16]) {
        self.native.clear();
        self.encoder.narrow(pcm24k, &mut self.native);
        self.live.push(&self.native, self.codec.sample_rate().hz() as usize / 50);
    }

    /// Forgets what waits of another party.
    pub fn drop_live(&mut self) {
        self.live.clear();
    }

    /// Milliseconds of another party's audio that were given up.
    pub fn live_dropped_ms(&self) -> u64 {
        self.live.dropped * 1000 / self.rate() as u64
    }

    /// No more audio will come for an item. Unknown items are no error.
    pub fn end_item(&mut self, key: &ItemKey) {
        if self.items.back().is_some_and(|item| item.key == *key) {
            self.flush_last();
        }
        if let Some(item) = self.items.iter_mut().find(|item| item.key == *key) {
            item.ended = true;
        }
    }

    /// Drops all waiting audio and says what was heard of each item, in order. The next slot begins with
    /// a fade of at most 5 ms. Late audio of these items is refused.
    pub fn clear(&mut self) -> Vec<PlayedItem> {
        self.prepare_tail();
        let delay = self.delay_24k();
        let mut cleared = Vec::with_capacity(self.items.len());
        while let Some(item) = self.items.pop_front() {
            let heard = item.heard(self.codec, delay);
            self.heard += heard;
            let played_ms = to_ms(heard);
            self.remember(Past { key: item.key.clone(), played_ms, cleared: true });
            let complete = item.ended && item.left == item.audio.len();
            cleared.push(PlayedItem { item: item.key, played_ms, total_ms: to_ms(item.given), complete });
        }
        self.queued = 0;
        self.dry = false;
        self.paused = false;
        // What is left in the resampler must not be heard in the next item.
        self.encoder.reset_narrow();
        cleared
    }

    /// Holds items back after a fade of at most 5 ms, until [`Playout::resume`] or [`Playout::clear`]. Nothing is lost:
    /// what was not heard is heard then.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Items are heard again, from where they were held back.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// Milliseconds of an item that have left, also of one that is gone, if it is among the last 32.
    pub fn played_ms(&self, key: &ItemKey) -> Option<u64> {
        let delay = self.delay_24k();
        let waiting = self.items.iter().find(|item| item.key == *key);
        waiting
            .map(|item| to_ms(item.heard(self.codec, delay)))
            .or_else(|| self.past.iter().rev().find(|past| past.key == *key).map(|past| past.played_ms))
    }

    /// Appends exactly `slot_samples` samples to `out` and says which item is heard in them; of two, the later.
    pub fn slot(&mut self, out: &mut Samples) -> Option<ItemKey> {
        let start = out.len();
        let end = start + self.slot_samples();
        let fade = self.fade_samples();
        let mut heard = None;
        if !self.tail.is_empty() {
            out.extend_from(&self.tail, 0..self.tail.len());
            self.tail.clear();
        }
        while !self.paused && out.len() < end && self.skip_finished() {
            let Some(item) = self.items.front_mut() else { break };
            if !item.started {
                item.started = true;
                self.events.push_back(PlayoutEvent::Started(item.key.clone()));
            }
            let take = (item.audio.len() - item.left).min(end - out.len());
            let at = out.len();
            out.extend_from(&item.audio, item.left..item.left + take);
            item.left += take;
            item.forget_what_left();
            self.queued -= take;
            if std::mem::take(&mut self.dry) {
                out.ramp(at..at + take.min(fade), 0.0, 1.0);
            }
            if heard.as_ref() != Some(&item.key) {
                heard = Some(item.key.clone());
            }
        }
        self.skip_finished();
        if !self.items.is_empty() || heard.is_some() {
            self.live.clear();
        } else if out.len() == start {
            self.live.take(out, end - start);
        }
        if out.len() < end {
            self.run_dry(out, start, end);
        }
        self.last = out.last();
        while self.events.len() > MAX_EVENTS {
            self.events.pop_front();
        }
        heard
    }

    /// Appends one packet made of `samples` to `out`.
    ///
    /// # Errors
    /// When the encoder refuses.
    pub fn encode(&mut self, samples: &Samples, out: &mut Vec<u8>) -> Result<(), AudioError> {
        match samples {
            Samples::Mu(bytes) | Samples::A(bytes) => out.extend_from_slice(bytes),
            Samples::Linear(pcm) => drop(self.encoder.encode(pcm, out)?),
        }
        Ok(())
    }

    /// What happened in the slots since the last poll.
    pub fn poll_event(&mut self) -> Option<PlayoutEvent> {
        self.events.pop_front()
    }

    /// The codec audio waits for.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Samples of a 20 ms slot at the codec's own rate.
    pub fn slot_samples(&self) -> usize {
        self.rate() / 50
    }

    /// Audio that waits.
    pub fn queued(&self) -> Duration {
        self.codec.sample_rate().duration_of(self.queued)
    }

    /// Whether nothing waits and no item is unfinished.
    pub fn is_idle(&self) -> bool {
        self.items.is_empty()
    }

    /// Forgets the fade after a clear, when the far end is not listening anyhow.
    pub fn drop_tail(&mut self) {
        self.tail.clear();
        self.last = 0;
    }

    /// Times an item ran out of audio before its end.
    pub fn underruns(&self) -> u64 {
        self.underruns
    }

    /// Milliseconds given in all, refused audio included.
    pub fn generated_ms(&self) -> u64 {
        to_ms(self.given)
    }

    /// Milliseconds that left in all.
    pub fn heard_ms(&self) -> u64 {
        let delay = self.delay_24k();
        let waiting: u64 = self.items.iter().map(|item| item.heard(self.codec, delay)).sum();
        to_ms(self.heard + waiting)
    }

    fn rate(&self) -> usize {
        self.codec.sample_rate().hz() as usize
    }

    fn fade_samples(&self) -> usize {
        self.rate() / 200
    }

    fn delay_24k(&self) -> u64 {
        SampleRate::HZ_24000.samples_in(self.encoder.delay()) as u64
    }

    fn room_24k(&self) -> usize {
        let room = self.codec.sample_rate().samples_in(self.limit).saturating_sub(self.queued);
        room * BRIDGE_RATE as usize / self.rate()
    }

    fn begin(&mut self, key: ItemKey) {
        let audio = self.spare.take().unwrap_or_else(|| Samples::of(self.codec));
        self.items.push_back(Item {
            key,
            audio,
            left: 0,
            gone: 0,
            given: 0,
            heard_before: 0,
            started: false,
            ended: false,
            flushed: false,
        });
    }

    /// Draws the last samples of the last item from the resampler.
    fn flush_last(&mut self) {
        let delay = self.delay_24k() as usize;
        let Some(item) = self.items.back_mut().filter(|item| !item.flushed && item.given > 0) else { return };
        item.flushed = true;
        self.native.clear();
        self.encoder.narrow(&[0; FLUSH][..delay.min(FLUSH)], &mut self.native);
        item.audio.extend(&self.native);
        self.queued += self.native.len();
    }

    /// Removes finished items from the front; `false` when the front has nothing to play.
    fn skip_finished(&mut self) -> bool {
        while let Some(item) = self.items.front() {
            if item.left < item.audio.len() {
                return true;
            }
            // An item whose end was never told has ended when another one waits behind it.
            if !item.ended && self.items.len() == 1 {
                return false;
            }
            let Some(item) = self.items.pop_front() else { return false };
            self.heard += item.given;
            let played_ms = to_ms(item.given);
            self.events.push_back(PlayoutEvent::Finished { item: item.key.clone(), played_ms });
            self.remember(Past { key: item.key, played_ms, cleared: false });
            if item.audio.len() <= SPARE_SAMPLES {
                let mut audio = item.audio;
                audio.clear();
                self.spare = Some(audio);
            }
        }
        false
    }

    /// Fills the slot with silence, faded into.
    fn run_dry(&mut self, out: &mut Samples, start: usize, end: usize) {
        let unfinished = self.items.front().is_some_and(|item| item.started && !item.ended);
        if self.paused {
            // What follows is faded into; what was just heard is faded out of below.
            self.dry |= self.items.front().is_some_and(|item| item.started);
        } else if unfinished && !self.dry {
            self.underruns += 1;
            self.dry = true;
            let fade = self.fade_samples().min(out.len() - start);
            out.ramp(out.len() - fade..out.len(), 1.0, 0.0);
        }
        let from = if out.len() == start { self.last } else { out.last() };
        if from.unsigned_abs() > QUIET {
            let steps = self.fade_samples().min(end - out.len());
            for step in 0..steps {
                let gain = 1.0 - (step + 1) as f32 / steps as f32;
                out.push((f32::from(from) * gain) as i16);
            }
        }
        out.pad(end);
    }

    fn prepare_tail(&mut self) {
        let fade = self.fade_samples();
        let Some(item) = self.items.front().filter(|item| item.started && !self.dry) else { return };
        self.tail.clear();
        let take = fade.min(item.audio.len() - item.left);
        self.tail.extend_from(&item.audio, item.left..item.left + take);
        self.tail.ramp(0..take, 1.0, 0.0);
    }

    fn remember(&mut self, past: Past) {
        if self.past.len() == PAST {
            self.past.pop_front();
        }
        self.past.push_back(past);
    }
}

impl Item {
    /// Keeps an item that never ends from growing: what has left goes when it is the larger part.
    fn forget_what_left(&mut self) {
        if self.left > COMPACT && self.left > self.audio.len() / 2 {
            self.audio.discard_front(self.left);
            self.gone += self.left as u64;
            self.left = 0;
        }
    }

    fn heard(&self, codec: Codec, delay_24k: u64) -> u64 {
        let left =
            (self.gone + self.left as u64) * u64::from(BRIDGE_RATE) / u64::from(codec.sample_rate().hz());
        (self.heard_before + left.saturating_sub(delay_24k)).min(self.given)
    }
}

fn to_ms(samples_24k: u64) -> u64 {
    samples_24k * 1000 / u64::from(BRIDGE_RATE)
}

/// Items gone that are remembered, to refuse their late audio and to answer how much was heard.
const PAST: usize = 32;
/// Items that may wait.
const MAX_ITEMS: usize = 256;
/// Events that may wait to be polled; the oldest go first.
const MAX_EVENTS: usize = 1024;
/// A buffer of at most this many samples is kept for the next item.
const SPARE_SAMPLES: usize = 80_000;
/// Samples that have left of an item are kept up to this many, and as long as more are waiting.
const COMPACT: usize = 16_000;
/// More zeros than any encoder delays, at 24 kHz.
const FLUSH: usize = 480;
/// A sample this small may be followed by silence without a click.
const QUIET: u16 = 16;

#[cfg(test)]
mod tests;
