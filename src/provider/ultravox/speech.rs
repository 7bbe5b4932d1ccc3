//! Who speaks: the agent's utterances, the caller's turns, and the words of both by their ordinals.
//!
//! Audio has no header: what belongs together is told by the agent's state, by what is cleared and by the
//! ordinals of its words. A pure core; [`super::map`] feeds it.

use std::collections::VecDeque;

use crate::provider::ItemId;

/// The agent's utterances of one session, newest last.
#[derive(Debug, Default)]
pub struct Utterances {
    known: VecDeque<Utterance>,
    named: u64,
}

/// One stretch of the agent's speech.
#[derive(Debug)]
pub struct Utterance {
    /// Its name.
    pub item: ItemId,
    /// The place of its words, once they have come.
    pub ordinal: Option<i64>,
    /// Words so far.
    pub words: String,
    /// No more words will come.
    pub words_done: bool,
    /// Samples handed on.
    pub samples: u64,
    /// No more audio will come.
    pub audio_done: bool,
    /// The service has taken back what was not heard.
    pub cut: bool,
}

impl Utterances {
    /// The utterance that audio belongs to which comes now.
    pub fn audible(&mut self) -> &mut Utterance {
        let index = self.known.iter().position(|utterance| !utterance.audio_done);
        let index = index.unwrap_or_else(|| self.add(None));
        &mut self.known[index]
    }

    /// The utterance that words of this ordinal belong to. Words without audio wait for theirs.
    pub fn of(&mut self, ordinal: i64) -> &mut Utterance {
        let nameless = |utterance: &Utterance| utterance.ordinal.is_none();
        let index = self
            .known
            .iter()
            .position(|utterance| utterance.ordinal == Some(ordinal))
            .or_else(|| self.known.iter().position(|u| nameless(u) && !u.audio_done))
            .or_else(|| self.known.iter().rposition(nameless));
        let index = index.unwrap_or_else(|| self.add(Some(ordinal)));
        self.known[index].ordinal = Some(ordinal);
        &mut self.known[index]
    }

    /// Nothing more is heard of what was begun: the item whose audio ends here, if one was audible.
    pub fn silent(&mut self, cut: bool) -> Option<ItemId> {
        let mut ended = None;
        for utterance in &mut self.known {
            utterance.cut |= cut && !(utterance.audio_done && utterance.words_done);
            if utterance.audio_done || !(utterance.samples > 0 || cut || utterance.words_done) {
                continue;
            }
            utterance.audio_done = true;
            if utterance.samples > 0 {
                ended = Some(utterance.item.clone());
            }
        }
        ended
    }

    /// The audio of all utterances before this ordinal is complete: the item whose audio ends here.
    pub fn ends_before(&mut self, ordinal: i64) -> Option<ItemId> {
        let mut ended = None;
        for utterance in &mut self.known {
            if utterance.ordinal.is_none_or(|known| known >= ordinal) || utterance.audio_done {
                continue;
            }
            utterance.audio_done = true;
            if utterance.samples > 0 {
                ended = Some(utterance.item.clone());
            }
        }
        ended
    }

    /// Utterances whose words will not come any more, because those of a later ordinal do.
    pub fn left_behind(&mut self, ordinal: i64) -> impl Iterator<Item = &mut Utterance> {
        let old = move |u: &&mut Utterance| u.ordinal.is_some_and(|o| o < ordinal) && !u.words_done;
        self.known.iter_mut().filter(old)
    }

    fn add(&mut self, ordinal: Option<i64>) -> usize {
        if self.known.len() >= KEPT {
            self.known.pop_front();
        }
        self.named += 1;
        self.known.push_back(Utterance {
            item: ItemId::from(format!("agent-{}", self.named).as_str()),
            ordinal,
            words: String::new(),
            words_done: false,
            samples: 0,
            audio_done: false,
            cut: false,
        });
        self.known.len() - 1
    }
}

/// The caller's turns of one session.
#[derive(Debug, Default)]
pub struct Turns {
    /// The turn whose words have not come.
    open: Option<Turn>,
    /// Words that are not complete, by ordinal.
    words: VecDeque<Words>,
    /// Ordinals whose words were complete.
    done: VecDeque<i64>,
    named: u64,
}

/// A turn whose words have not come.
#[derive(Debug)]
struct Turn {
    item: ItemId,
    started_ms: u64,
    stopped_ms: Option<u64>,
    told: bool,
    stop_told: bool,
}

#[derive(Debug)]
struct Words {
    ordinal: i64,
    item: ItemId,
    text: String,
}

impl Turns {
    /// The caller began to speak. A turn that has no words after a while was none.
    pub fn started(&mut self, now_ms: u64) {
        let over = |turn: &Turn| turn.stopped_ms.is_some_and(|at| now_ms.saturating_sub(at) > FORGOTTEN_MS);
        if self.open.as_ref().is_none_or(over) {
            let item = self.name();
            self.open =
                Some(Turn { item, started_ms: now_ms, stopped_ms: None, told: false, stop_told: false });
        } else if let Some(turn) = &mut self.open {
            turn.stopped_ms = None;
        }
    }

    /// The caller stopped.
    pub fn stopped(&mut self, now_ms: u64) {
        if let Some(turn) = &mut self.open {
            turn.stopped_ms.get_or_insert(now_ms);
        }
    }

    /// The start of the open turn, unless it was told; `again`: told or not.
    pub fn start_to_tell(&mut self, again: bool) -> Option<(u64, ItemId)> {
        let turn = self.open.as_mut()?;
        let tells = !std::mem::replace(&mut turn.told, true) || again;
        // Whoever is told of a start again waits for its end again.
        turn.stop_told &= !tells;
        tells.then(|| (turn.started_ms, turn.item.clone()))
    }

    /// The end of the open turn, once: `now_ms` where nobody said.
    pub fn stop_to_tell(&mut self, now_ms: u64) -> Option<(u64, ItemId)> {
        let turn = self.open.as_mut().filter(|turn| turn.told && !turn.stop_told)?;
        turn.stop_told = true;
        Some((turn.stopped_ms.unwrap_or(now_ms), turn.item.clone()))
    }

    /// Whether the caller may be speaking.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// An item that no words will belong to.
    pub fn name(&mut self) -> ItemId {
        self.named += 1;
        ItemId::from(format!("caller-{}", self.named).as_str())
    }

    /// Words of the caller: the turn they belong to, and all of its words. `None`: they were complete.
    pub fn words(
        &mut self,
        ordinal: i64,
        text: Option<String>,
        delta: Option<String>,
        last: bool,
    ) -> Option<(ItemId, String)> {
        if self.done.contains(&ordinal) {
            return None;
        }
        let index = self.words.iter().position(|words| words.ordinal == ordinal).unwrap_or_else(|| {
            let item = self.open.take().map(|turn| turn.item);
            let item = item.unwrap_or_else(|| self.name());
            if self.words.len() >= KEPT {
                self.words.pop_front();
            }
            self.words.push_back(Words { ordinal, item, text: String::new() });
            self.words.len() - 1
        });
        let words = &mut self.words[index];
        merge(&mut words.text, text, delta);
        let told = (words.item.clone(), words.text.clone());
        if last {
            self.words.remove(index);
            if self.done.len() >= KEPT {
                self.done.pop_front();
            }
            self.done.push_back(ordinal);
        }
        Some(told)
    }
}

/// `text` replaces what was there, `delta` follows it.
pub fn merge(words: &mut String, text: Option<String>, delta: Option<String>) {
    match (text, delta) {
        (Some(text), _) => *words = text,
        (None, Some(delta)) => words.push_str(&delta),
        (None, None) => {}
    }
}

/// Utterances and turns that are remembered.
const KEPT: usize = 64;
/// A turn that brought no words within this time after its end was a noise.
const FORGOTTEN_MS: u64 = 8_000;
