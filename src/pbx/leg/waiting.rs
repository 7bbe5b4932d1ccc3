//! What is to be said to a party whose first medium is not there yet.

use std::time::Duration;

use crate::rtp::{ItemKey, PlayedItem};

/// Audio for a party whose media is not there yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) items: Vec<(ItemKey, Vec<i16>, bool)>,
    samples: usize,
    /// Items whose late audio must not be heard any more.
    cleared: Vec<ItemKey>,
    pub(super) paused: bool,
}

impl Waiting {
    pub(super) fn play(&mut self, item: &ItemKey, pcm: &[i16]) -> u64 {
        if self.cleared.contains(item) {
            return 0;
        }
        let known = self.items.iter().any(|(key, ..)| key == item);
        let room = known || self.items.len() < ITEMS_MOST;
        let accepted = pcm.len().min(WAITING_MOST.saturating_sub(self.samples)) * usize::from(room);
        self.samples += accepted;
        match self.items.iter_mut().find(|(key, ..)| key == item) {
            Some((_, waiting, _)) => waiting.extend_from_slice(&pcm[..accepted]),
            None if room => self.items.push((item.clone(), pcm[..accepted].to_vec(), false)),
            None => {}
        }
        (pcm.len() - accepted) as u64 / 24
    }

    pub(super) fn end(&mut self, item: &ItemKey) {
        self.items.iter_mut().filter(|(key, ..)| key == item).for_each(|(.., ended)| *ended = true);
    }

    pub(super) fn length(&self) -> Duration {
        Duration::from_millis(self.samples as u64 / 24)
    }

    pub(super) fn clear(&mut self) -> Vec<PlayedItem> {
        let unheard = |(item, pcm, _): (ItemKey, Vec<i16>, bool)| PlayedItem {
            item,
            played_ms: 0,
            total_ms: pcm.len() as u64 / 24,
            complete: false,
        };
        self.samples = 0;
        self.paused = false;
        let cleared: Vec<_> = std::mem::take(&mut self.items).into_iter().map(unheard).collect();
        self.cleared.extend(cleared.iter().map(|played| played.item.clone()));
        let old = self.cleared.len().saturating_sub(ITEMS_MOST);
        self.cleared.drain(..old);
        cleared
    }
}

/// Audio that may wait for media, at 24 kHz: 20 s. A greeting comes at once, and media within a moment.
const WAITING_MOST: usize = 20 * crate::audio::BRIDGE_RATE as usize;
/// Items that may wait for media, and that are remembered as cleared.
const ITEMS_MOST: usize = 64;
