//! What is known of each item of the assistant: how much audio came, and what was cut.

use std::collections::VecDeque;

use crate::provider::ItemId;

/// The assistant's items of one session, newest last.
#[derive(Debug, Default)]
pub struct Items {
    known: VecDeque<Item>,
}

/// One stretch of the assistant's speech.
#[derive(Debug)]
pub struct Item {
    /// Its id.
    pub id: ItemId,
    /// The response it belongs to.
    pub response_id: String,
    /// The part of the item that holds the audio.
    pub content_index: u32,
    /// Samples handed on.
    pub samples: u64,
    /// Half a sample at the end of a delta.
    pub carry: Option<u8>,
    /// No more audio will come.
    pub audio_done: bool,
    /// The caller will not hear the rest.
    pub cut: bool,
    /// Words so far.
    pub words: String,
    /// The words are complete and were told.
    pub words_done: bool,
}

/// What the service must be told of an item that was not heard to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// Nothing: it was heard in full, was cut before, or has no audio.
    None,
    /// Not a word was heard: remove it.
    Delete,
    /// This much was heard.
    At {
        /// The part of the item that holds the audio.
        content_index: u32,
        /// Milliseconds heard, never more than came.
        audio_end_ms: u32,
    },
}

impl Items {
    /// The item of that id, new if it is not known.
    pub fn of(&mut self, id: &str, response_id: &str) -> &mut Item {
        let index = self.known.iter().rposition(|item| &*item.id.0 == id).unwrap_or_else(|| {
            if self.known.len() >= KEPT {
                self.known.pop_front();
            }
            self.known.push_back(Item::new(id));
            self.known.len() - 1
        });
        let item = &mut self.known[index];
        if item.response_id.is_empty() {
            response_id.clone_into(&mut item.response_id);
        }
        item
    }

    /// The items of one response.
    pub fn of_response(&mut self, response_id: &str) -> impl Iterator<Item = &mut Item> {
        self.known.iter_mut().filter(move |item| item.response_id == response_id)
    }

    /// The caller heard `audio_end_ms` of an item and will hear no more of it.
    pub fn truncate(&mut self, id: &ItemId, audio_end_ms: u32) -> Truncation {
        let item = self.of(&id.0, "");
        if std::mem::replace(&mut item.cut, true) || item.samples == 0 {
            return Truncation::None;
        }
        let received_ms = u32::try_from(item.samples / SAMPLES_PER_MS).unwrap_or(u32::MAX);
        if item.audio_done && audio_end_ms >= received_ms {
            Truncation::None
        } else if audio_end_ms == 0 {
            Truncation::Delete
        } else {
            let audio_end_ms = audio_end_ms.min(received_ms);
            Truncation::At { content_index: item.content_index, audio_end_ms }
        }
    }
}

impl Item {
    fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            response_id: String::new(),
            content_index: 0,
            samples: 0,
            carry: None,
            audio_done: false,
            cut: false,
            words: String::new(),
            words_done: false,
        }
    }
}

/// Samples of one millisecond at 24 kHz.
pub const SAMPLES_PER_MS: u64 = 24;
/// Items kept; late events of older ones start afresh.
const KEPT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_is_of_what_came_and_was_not_heard() {
        let at = |audio_end_ms| Truncation::At { content_index: 0, audio_end_ms };
        for (received_ms, done, heard_ms, expected) in [
            (1000, true, 400, at(400)),
            (1000, true, 999, at(999)),
            (1000, true, 1000, Truncation::None),
            (1000, true, 5000, Truncation::None),
            (1000, false, 1000, at(1000)),
            (1000, false, 5000, at(1000)),
            (1000, true, 0, Truncation::Delete),
            (1000, false, 0, Truncation::Delete),
            (0, false, 0, Truncation::None),
            (0, false, 300, Truncation::None),
        ] {
            let mut items = Items::default();
            let item = items.of("a", "r");
            (item.samples, item.audio_done) = (received_ms * SAMPLES_PER_MS, done);
            let case = format!("{heard_ms} of {received_ms}, done: {done}");
            assert_eq!(items.truncate(&"a".into(), heard_ms), expected, "{case}");
            assert_eq!(items.truncate(&"a".into(), heard_ms), Truncation::None, "{case}, again");
            assert!(items.of("a", "r").cut);
        }
    }

    #[test]
    fn the_oldest_items_are_forgotten() {
        let mut items = Items::default();
        (0..KEPT + 10).for_each(|n| items.of(&n.to_string(), "r").samples = 1);
        assert_eq!(items.known.len(), KEPT);
        assert_eq!(items.of("137", "r").samples, 1);
        assert_eq!(items.of("9", "r").samples, 0);
    }
}
