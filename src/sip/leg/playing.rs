//! What a leg says to its party: queued, held back, dropped.

use std::time::Duration;

use super::SipLeg;
use crate::rtp::{ItemKey, PlayError, PlayedItem};

impl SipLeg {
    /// Queues audio of an item, 24 kHz, behind what is queued already. Answers how many milliseconds were
    /// given up because the queue holds ten minutes.
    pub fn play(&mut self, item: &ItemKey, pcm: &[i16]) -> u64 {
        let Some(media) = &mut self.media else { return 0 };
        match media.stream().play(item, pcm) {
            Ok(()) | Err(PlayError::Cleared) => 0,
            Err(PlayError::Full { accepted }) => (pcm.len() - accepted) as u64 / 24,
        }
    }

    /// Queues live audio of the other leg, 24 kHz: heard while no item is. What would be late is given up.
    pub fn play_live(&mut self, pcm: &[i16]) {
        if let Some(media) = &mut self.media {
            media.stream().play_live(pcm);
        }
    }

    /// Audio of items that waits to be heard.
    pub fn queued(&self) -> Duration {
        self.media.as_ref().map(|media| media.stream_ref().queued()).unwrap_or_default()
    }

    /// No more audio follows for that item.
    pub fn end_item(&mut self, item: &ItemKey) {
        if let Some(media) = &mut self.media {
            media.stream().end_item(item);
        }
    }

    /// Drops everything queued, within the next slot; answers what was unfinished, the audible one first.
    pub fn clear(&mut self) -> Vec<PlayedItem> {
        self.media.as_mut().map(|media| media.stream().clear()).unwrap_or_default()
    }

    /// Holds queued audio back, within the next slot, until [`SipLeg::resume`] or [`SipLeg::clear`].
    pub fn pause(&mut self) {
        if let Some(media) = &mut self.media {
            media.stream().pause();
        }
    }

    /// Queued audio is heard again, from where it was held back.
    pub fn resume(&mut self) {
        if let Some(media) = &mut self.media {
            media.stream().resume();
        }
    }

    /// Whether nothing is being said and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.media.as_ref().is_none_or(|media| media.stream_ref().is_idle())
    }
}
