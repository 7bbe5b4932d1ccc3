//! Audio of another party that is heard as it comes, not in items.

use super::Samples;
use crate::audio::Codec;

/// A short queue at the codec's rate. It begins to flow with two slots, so that the next late packet makes no
/// gap, and holds at most six: the oldest go first, because what is late in a conversation is of no use.
#[derive(Debug)]
pub(super) struct Live {
    audio: Samples,
    flowing: bool,
    /// At the codec's rate.
    pub(super) dropped: u64,
}

impl Live {
    pub(super) fn new(codec: Codec) -> Self {
        Self { audio: Samples::of(codec), flowing: false, dropped: 0 }
    }

    /// Another codec: what waits is given up.
    pub(super) fn reset(&mut self, codec: Codec) {
        self.audio = Samples::of(codec);
        self.flowing = false;
    }

    pub(super) fn push(&mut self, native: &[i16], slot: usize) {
        self.audio.extend(native);
        let excess = self.audio.len().saturating_sub(MOST * slot);
        if excess > 0 {
            self.audio.discard_front(excess);
            self.dropped += excess as u64;
        }
    }

    /// Appends a slot to `out`, if there is one to be heard.
    pub(super) fn take(&mut self, out: &mut Samples, slot: usize) {
        self.flowing |= self.audio.len() >= FIRST * slot;
        if !self.flowing || self.audio.len() < slot {
            self.flowing = false;
            return;
        }
        out.extend_from(&self.audio, 0..slot);
        self.audio.discard_front(slot);
    }

    pub(super) fn clear(&mut self) {
        self.audio.clear();
        self.flowing = false;
    }
}

/// Slots that may wait: 120 ms.
const MOST: usize = 6;
/// Slots that must wait before the first is heard.
const FIRST: usize = 2;
