//! Who said what, and how much of it was heard.
//!
//! The provider tells what it generated, the RTP stream tells what left on the wire; this core joins the
//! two into transcript lines and into the truncations the provider must be told of. It holds no audio.
//!
//! A line of the assistant is final when its audio has been played to the end or cut *and* its words are
//! known; a caller's line when the provider has transcribed it. [`Conversation::finish`] brings out what
//! is still open when the call or the session ends, so that nothing that was heard is lost.

use std::collections::VecDeque;

use crate::event::{Heard, TranscriptLine};
use crate::id::LineId;
use crate::provider::{Command, Event, HistoryItem, ItemId, Speaker};

/// What the call must do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Show the words so far of a line.
    Partial {
        /// Which line.
        line_id: LineId,
        /// Who speaks.
        who: Speaker,
        /// All words so far.
        text: String,
    },
    /// Store and show a finished line.
    Line(TranscriptLine),
    /// Tell the provider.
    Command(Command),
    /// The caller spoke over a line.
    BargeIn {
        /// Which line was cut.
        line_id: LineId,
        /// How much of it left on RTP.
        played_ms: u32,
    },
}

/// How much of one item left on RTP when playback was cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Playback {
    /// The item.
    pub item: ItemId,
    /// Milliseconds that left on RTP.
    pub played_ms: u32,
}

/// Both sides, line by line.
#[derive(Debug, Default)]
pub struct Conversation {
    clock: Clock,
    caller: Vec<CallerTurn>,
    /// Lines of caller turns that a new session hears again.
    again: VecDeque<LineId>,
    assistant: Vec<AssistantItem>,
    history: Vec<Past>,
    actions: Vec<Action>,
}

/// The time of a session: of the audio it was given.
#[derive(Debug, Default)]
struct Clock {
    /// Call time by session time, both of the beginning of a stretch, in order.
    places: Vec<(u64, u64)>,
    /// Session time at which it heard live audio.
    live_from_ms: u64,
}

impl Clock {
    fn call_ms(&self, session_ms: u64) -> u64 {
        let place = self.places.iter().rev().find(|(from, _)| *from <= session_ms);
        place.map_or(session_ms, |(from, call)| call + session_ms - from)
    }
}

/// A piece of what was said.
#[derive(Debug)]
struct Past {
    item: HistoryItem,
    /// Of something said.
    line: Option<LineId>,
    /// A tool that runs.
    pending: bool,
}

/// What a new session is told, and as of when.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What was said, and what is still being heard.
    pub history: Vec<HistoryItem>,
    length: usize,
    /// Lines that are in it though they are still being heard.
    ahead: Vec<LineId>,
    /// Tools that ran.
    pending: Vec<String>,
}

#[derive(Debug)]
struct CallerTurn {
    item: Option<ItemId>,
    line_id: LineId,
    start_ms: u64,
    end_ms: Option<u64>,
    /// Its words so far, as they were shown.
    text: String,
}

#[derive(Debug)]
struct AssistantItem {
    item: ItemId,
    line_id: LineId,
    text: String,
    text_final: bool,
    /// What of it was heard, where the service has told.
    heard_text: Option<String>,
    generated_ms: f64,
    /// No more audio comes.
    audio_done: bool,
    /// The session was lost before that: this much audio all its words would have been.
    whole_ms: Option<f64>,
    started_ms: Option<u64>,
    end: Option<End>,
    told: bool,
}

#[derive(Debug, Clone, Copy)]
struct End {
    at_ms: u64,
    heard: Heard,
    played_ms: u32,
}

impl Conversation {
    /// A conversation whose session hears the caller from `origin_ms` of call time on.
    pub fn new(origin_ms: u64) -> Self {
        let clock = Clock { places: vec![(0, origin_ms)], live_from_ms: 0 };
        Self { clock, ..Self::default() }
    }

    /// Takes one provider event, `now_ms` into the call.
    pub fn provider(&mut self, now_ms: u64, event: &Event) {
        match event {
            Event::SpeechStarted { at_ms, item } => self.caller_starts(*at_ms, item.as_ref()),
            Event::SpeechStopped { at_ms, item } => self.caller_stops(*at_ms, item.as_ref()),
            Event::Audio { item, pcm } => {
                self.assistant_item(item).generated_ms += pcm.len() as f64 / SAMPLES_PER_MS;
            }
            Event::TranscriptPartial { who: Speaker::Assistant, item, text } => {
                self.assistant_words(item, text, false);
            }
            Event::TranscriptFinal { who: Speaker::Assistant, item, text } => {
                self.assistant_words(item, text, true);
            }
            Event::TranscriptPartial { who: Speaker::Caller, item, text } => {
                let turn = self.caller_turn(now_ms, item);
                turn.text.clone_from(text);
                let (line_id, text) = (turn.line_id, text.clone());
                self.actions.push(Action::Partial { line_id, who: Speaker::Caller, text });
            }
            Event::TranscriptFinal { who: Speaker::Caller, item, text } => {
                self.caller_line(now_ms, item, text);
            }
            Event::Heard { item, text } => self.assistant_item(item).heard_text = Some(text.clone()),
            Event::AudioDone { item } => self.assistant_item(item).audio_done = true,
            Event::ToolCall { id, name, arguments } => self.tool_called(id, name, arguments),
            Event::TurnStarted
            | Event::TurnDone { .. }
            | Event::Used(_)
            | Event::Warning { .. }
            | Event::Closed { .. } => {}
        }
    }

    /// Whether audio of this item may still be played: not after it was cut.
    pub fn accepts(&self, item: &ItemId) -> bool {
        !self.assistant.iter().any(|known| known.item == *item && known.end.is_some())
    }

    /// Whether all that was generated has been heard, or was cut: no line waits for its end.
    pub fn is_heard_out(&self) -> bool {
        self.assistant.iter().all(|known| known.generated_ms == 0.0 || known.end.is_some())
    }

    /// The first frame of an item left on RTP.
    pub fn item_started(&mut self, now_ms: u64, item: &ItemId) {
        self.assistant_item(item).started_ms.get_or_insert(now_ms);
    }

    /// The last frame of an item left on RTP.
    pub fn item_finished(&mut self, now_ms: u64, item: &ItemId, played_ms: u32) {
        self.end_item(item, End { at_ms: now_ms, heard: Heard::Full, played_ms });
        self.tell_finished();
    }

    /// Playback was cleared because the caller speaks; `playing` are the items that were not finished,
    /// the audible one first. The provider is told of each what really left on RTP.
    pub fn interrupted(&mut self, now_ms: u64, playing: &[Playback]) {
        for playback in playing {
            let known = self.assistant_item(&playback.item);
            if known.end.is_some() {
                continue;
            }
            let line_id = known.line_id;
            let played_ms = playback.played_ms;
            self.end_item(&playback.item, End { at_ms: now_ms, heard: Heard::Cut, played_ms });
            self.actions.push(Action::Command(Command::Truncate {
                item: playback.item.clone(),
                audio_end_ms: played_ms,
            }));
            if played_ms > 0 {
                self.actions.push(Action::BargeIn { line_id, played_ms });
            }
        }
        self.tell_finished();
    }

    /// The call is over: every line that was heard in part is brought out as it stands.
    pub fn finish(&mut self, now_ms: u64, playing: &[Playback]) {
        for playback in playing {
            let played_ms = playback.played_ms;
            self.end_item(&playback.item, End { at_ms: now_ms, heard: Heard::Cut, played_ms });
        }
        for known in &mut self.assistant {
            known.text_final = true;
        }
        self.tell_finished();
        let open = std::mem::take(&mut self.caller);
        self.tell_unfinished(now_ms, open);
    }

    /// Turns of the caller that nobody will write down any more: what was shown of them is what is known.
    fn tell_unfinished(&mut self, now_ms: u64, turns: Vec<CallerTurn>) {
        for turn in turns.into_iter().filter(|turn| !turn.text.trim().is_empty()) {
            let line = TranscriptLine {
                line_id: turn.line_id,
                who: "caller".to_owned(),
                text: turn.text.trim().to_owned(),
                start_ms: turn.start_ms,
                end_ms: turn.end_ms.unwrap_or(now_ms).max(turn.start_ms),
                heard: Heard::Full,
                heard_text: None,
            };
            self.tell(Speaker::Caller, line);
        }
    }

    /// The session is gone: no more words or audio will come. What came is still heard to its end. Answers the items
    /// that must be ended in playback.
    pub fn lost(&mut self) -> Vec<ItemId> {
        let mut cut_short = Vec::new();
        for known in &mut self.assistant {
            known.text_final = true;
            if known.generated_ms == 0.0 {
                // Words without a sound.
                known.told = true;
            } else if !std::mem::replace(&mut known.audio_done, true) && known.end.is_none() {
                let estimate = known.text.trim().chars().count() as f64 * MS_PER_CHAR;
                known.whole_ms = Some(estimate).filter(|whole| *whole > known.generated_ms * SHORT);
                cut_short.push(known.item.clone());
            }
        }
        self.tell_finished();
        cut_short
    }

    /// What a session that is opened now must know. What is still being heard counts as heard.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot { length: self.history.len(), ..Snapshot::default() };
        snapshot.history = self.history.iter().map(|past| past.item.clone()).collect();
        for past in self.history.iter().filter(|past| past.pending) {
            if let HistoryItem::Tool { id, .. } = &past.item {
                snapshot.pending.push(id.clone());
            }
        }
        for known in self.assistant.iter().filter(|known| !known.told && known.generated_ms > 0.0) {
            let text = known.heard_in_the_end();
            if !text.is_empty() {
                snapshot.history.push(HistoryItem::said(Speaker::Assistant, text));
                snapshot.ahead.push(known.line_id);
            }
        }
        snapshot
    }

    /// What has been said and done since that snapshot.
    pub fn since(&self, snapshot: &Snapshot) -> Vec<HistoryItem> {
        let (before, after) = self.history.split_at(snapshot.length.min(self.history.len()));
        let done = before.iter().filter(|past| match &past.item {
            HistoryItem::Tool { id, .. } => !past.pending && snapshot.pending.contains(id),
            HistoryItem::Said { .. } | HistoryItem::Note(_) => false,
        });
        let said = after.iter().filter(|past| past.line.is_none_or(|line| !snapshot.ahead.contains(&line)));
        done.chain(said).map(|past| past.item.clone()).collect()
    }

    /// Another session has taken over at `now_ms`. It heard `replayed_ms` of the caller's audio first, whose
    /// stretches lie at `places` (its time, call time); then what is heard from now on.
    pub fn resume(&mut self, now_ms: u64, places: &[(u64, u64)], replayed_ms: u64) {
        let mut places = places.to_vec();
        places.push((replayed_ms, now_ms));
        self.clock = Clock { places, live_from_ms: replayed_ms };
        let open = std::mem::take(&mut self.caller);
        if replayed_ms > 0 {
            self.again = open.into_iter().map(|turn| turn.line_id).collect();
        } else {
            self.again.clear();
            self.tell_unfinished(now_ms, open);
        }
    }

    /// Whether that moment of the session's time lies in what it heard first.
    pub fn was_replayed(&self, session_ms: u64) -> bool {
        session_ms < self.clock.live_from_ms
    }

    /// Something a later session must know, and the present one was told.
    pub fn note(&mut self, item: HistoryItem) {
        self.history.push(Past { item, line: None, pending: false });
    }

    /// A tool has answered.
    pub fn tool_answered(&mut self, id: &str, answer: &str) {
        for past in self.history.iter_mut().rev().filter(|past| past.pending) {
            if let HistoryItem::Tool { id: called, output, .. } = &mut past.item
                && called == id
            {
                answer.clone_into(output);
                past.pending = false;
                return;
            }
        }
    }

    /// The name of a tool that was called.
    pub fn tool_name(&self, id: &str) -> Option<&str> {
        self.history.iter().rev().find_map(|past| match &past.item {
            HistoryItem::Tool { id: called, name, .. } if called == id => Some(name.as_str()),
            _ => None,
        })
    }

    /// The words of an item that are or will be heard, and whether those are all there are.
    pub fn heard_of(&self, item: &ItemId) -> Option<String> {
        let known = self.assistant.iter().find(|known| known.item == *item)?;
        Some(known.heard_in_the_end()).filter(|text| !text.is_empty())
    }

    /// What to do, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn tool_called(&mut self, id: &str, name: &str, arguments: &str) {
        let (id, name, arguments) = (id.to_owned(), name.to_owned(), arguments.to_owned());
        let item = HistoryItem::Tool { id, name, arguments, output: PENDING.to_owned() };
        self.history.push(Past { item, line: None, pending: true });
    }

    fn caller_starts(&mut self, at_ms: u64, item: Option<&ItemId>) {
        let start_ms = self.clock.call_ms(at_ms);
        // What is shown of it already is the same line.
        let again = self.again.pop_front().filter(|_| self.was_replayed(at_ms));
        self.caller.push(CallerTurn {
            item: item.cloned(),
            line_id: again.unwrap_or_else(LineId::fresh),
            start_ms,
            end_ms: None,
            text: String::new(),
        });
        if self.caller.len() > OPEN_TURNS {
            self.caller.remove(0);
        }
    }

    fn caller_stops(&mut self, at_ms: u64, item: Option<&ItemId>) {
        let end_ms = self.clock.call_ms(at_ms);
        let turn = self.caller.iter_mut().rev().find(|turn| item.is_none() || turn.item.as_ref() == item);
        if let Some(turn) = turn {
            turn.end_ms = Some(end_ms);
        }
    }

    /// The open turn of that item; a transcription that was not announced opens one.
    fn caller_turn(&mut self, now_ms: u64, item: &ItemId) -> &mut CallerTurn {
        let found = self
            .caller
            .iter()
            .position(|turn| turn.item.as_ref() == Some(item))
            .or_else(|| self.caller.iter().position(|turn| turn.item.is_none()));
        let index = found.unwrap_or_else(|| {
            self.caller.push(CallerTurn {
                item: Some(item.clone()),
                line_id: LineId::fresh(),
                start_ms: now_ms,
                end_ms: Some(now_ms),
                text: String::new(),
            });
            self.caller.len() - 1
        });
        self.caller[index].item.get_or_insert_with(|| item.clone());
        &mut self.caller[index]
    }

    fn caller_line(&mut self, now_ms: u64, item: &ItemId, text: &str) {
        let turn = self.caller_turn(now_ms, item);
        let line = TranscriptLine {
            line_id: turn.line_id,
            who: "caller".to_owned(),
            text: text.trim().to_owned(),
            start_ms: turn.start_ms,
            end_ms: turn.end_ms.unwrap_or(now_ms).max(turn.start_ms),
            heard: Heard::Full,
            heard_text: None,
        };
        self.caller.retain(|turn| turn.line_id != line.line_id);
        if !line.text.is_empty() {
            self.tell(Speaker::Caller, line);
        }
    }

    fn assistant_item(&mut self, item: &ItemId) -> &mut AssistantItem {
        let index = self.assistant.iter().position(|known| known.item == *item).unwrap_or_else(|| {
            self.forget_old_items();
            self.assistant.push(AssistantItem {
                item: item.clone(),
                line_id: LineId::fresh(),
                text: String::new(),
                text_final: false,
                heard_text: None,
                generated_ms: 0.0,
                audio_done: false,
                whole_ms: None,
                started_ms: None,
                end: None,
                told: false,
            });
            self.assistant.len() - 1
        });
        &mut self.assistant[index]
    }

    fn forget_old_items(&mut self) {
        if self.assistant.len() >= KEPT_ITEMS
            && let Some(index) = self.assistant.iter().position(|known| known.told)
        {
            self.assistant.remove(index);
        }
    }

    fn assistant_words(&mut self, item: &ItemId, text: &str, last: bool) {
        let known = self.assistant_item(item);
        if known.told {
            return;
        }
        text.clone_into(&mut known.text);
        known.text_final |= last;
        let (line_id, cut) = (known.line_id, known.end.is_some());
        if !cut && !last {
            let text = text.to_owned();
            self.actions.push(Action::Partial { line_id, who: Speaker::Assistant, text });
        }
        self.tell_finished();
    }

    fn end_item(&mut self, item: &ItemId, end: End) {
        self.assistant_item(item).end.get_or_insert(end);
    }

    /// Brings out, in order of speech, every line whose end and words are both known.
    fn tell_finished(&mut self) {
        for index in 0..self.assistant.len() {
            let known = &mut self.assistant[index];
            let Some(end) = known.end.filter(|_| known.text_final && !known.told) else { continue };
            known.told = true;
            if known.text.trim().is_empty() || (end.heard == Heard::Cut && end.played_ms == 0) {
                continue;
            }
            let line = known.line(end);
            self.tell(Speaker::Assistant, line);
        }
    }

    fn tell(&mut self, who: Speaker, line: TranscriptLine) {
        let text = line.heard_text.clone().unwrap_or_else(|| line.text.clone());
        if !text.is_empty() {
            let item = HistoryItem::Said { who, text };
            self.history.push(Past { item, line: Some(line.line_id), pending: false });
        }
        self.actions.push(Action::Line(line));
    }
}

impl AssistantItem {
    /// What the caller will have heard once all that came has been played.
    fn heard_in_the_end(&self) -> String {
        match self.whole_ms {
            Some(whole) => heard_words(self.text.trim(), self.generated_ms / whole),
            None => self.text.trim().to_owned(),
        }
    }

    fn line(&self, end: End) -> TranscriptLine {
        let text = self.text.trim();
        let heard = if self.whole_ms.is_some() { Heard::Cut } else { end.heard };
        let whole_ms = self.whole_ms.unwrap_or(self.generated_ms).max(1.0);
        let heard_text = match heard {
            Heard::Full => None,
            Heard::Cut => Some(match &self.heard_text {
                Some(told) => told.trim().to_owned(),
                None => heard_words(text, f64::from(end.played_ms) / whole_ms),
            }),
        };
        TranscriptLine {
            line_id: self.line_id,
            who: "assistant".to_owned(),
            text: text.to_owned(),
            start_ms: self.started_ms.unwrap_or(end.at_ms.saturating_sub(u64::from(end.played_ms))),
            end_ms: end.at_ms,
            heard,
            heard_text,
        }
    }
}

/// The first part of `text`, `share` of its characters long, cut back to the end of a word. Speech is
/// near enough even in characters a second; no provider aligns words with audio for us.
fn heard_words(text: &str, share: f64) -> String {
    let total = text.chars().count();
    let wanted = (total as f64 * share.clamp(0.0, 1.0)).round() as usize;
    if wanted >= total {
        return text.to_owned();
    }
    let end = text.char_indices().nth(wanted).map_or(text.len(), |(index, _)| index);
    let whole_word = text[end..].starts_with(char::is_whitespace);
    let cut = if whole_word { end } else { text[..end].rfind(char::is_whitespace).unwrap_or(0) };
    text[..cut].trim_end().to_owned()
}

const SAMPLES_PER_MS: f64 = 24.0;
/// Fast speech: what words without all of their audio would at least have taken.
const MS_PER_CHAR: f64 = 50.0;
/// Words whose audio would have been this much longer were not all spoken.
const SHORT: f64 = 1.15;
/// The answer of a tool that still runs when another session takes over.
const PENDING: &str = r#"{"status":"still running; its result follows"}"#;
/// Finished items kept so that late words and deltas still find theirs.
const KEPT_ITEMS: usize = 64;
/// Caller turns that may wait for their transcription.
const OPEN_TURNS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_played_to_the_end_is_told_once_its_words_are_known() {
        let mut talk = Conversation::new(0);
        talk.provider(10, &audio("a", 1000));
        talk.item_started(20, &"a".into());
        talk.item_finished(1020, &"a".into(), 1000);
        assert_eq!(lines(&mut talk), []);
        talk.provider(1100, &words("a", "Good morning."));
        assert_eq!(lines(&mut talk), [("assistant", "Good morning.", None)]);
        assert_eq!(lines(&mut talk), []);
    }

    #[test]
    fn a_barge_in_truncates_at_what_left_on_rtp_and_tells_what_was_heard() {
        let mut talk = Conversation::new(0);
        talk.provider(10, &audio("a", 4000));
        talk.provider(10, &words("a", "one two three four five six seven eight"));
        talk.item_started(20, &"a".into());
        talk.provider(1000, &audio("b", 2000));
        talk.interrupted(2020, &[playback("a", 2000), playback("b", 0)]);
        let actions = talk.take_actions();
        let commands: Vec<_> = actions.iter().filter(|a| matches!(a, Action::Command(_))).collect();
        assert_eq!(
            commands,
            [
                &Action::Command(Command::Truncate { item: "a".into(), audio_end_ms: 2000 }),
                &Action::Command(Command::Truncate { item: "b".into(), audio_end_ms: 0 }),
            ]
        );
        let told = actions.iter().find_map(|a| match a {
            Action::Line(line) => Some(line.clone()),
            _ => None,
        });
        let line = told.expect("the cut line is told");
        assert_eq!(line.heard, Heard::Cut);
        assert_eq!(line.heard_text.as_deref(), Some("one two three four"));
        assert!(!talk.accepts(&"a".into()) && !talk.accepts(&"b".into()) && talk.accepts(&"c".into()));
    }

    #[test]
    fn the_assistant_is_heard_out_once_every_line_has_its_end() {
        let mut talk = Conversation::new(0);
        assert!(talk.is_heard_out());
        talk.provider(0, &audio("a", 1000));
        talk.item_started(20, &"a".into());
        assert!(!talk.is_heard_out());
        talk.item_finished(1020, &"a".into(), 1000);
        assert!(talk.is_heard_out());
        talk.provider(1030, &audio("b", 1000));
        talk.interrupted(1500, &[playback("b", 400)]);
        assert!(talk.is_heard_out());
    }

    #[test]
    fn a_line_that_was_never_heard_is_not_told() {
        let mut talk = Conversation::new(0);
        talk.provider(0, &audio("a", 1000));
        talk.provider(0, &words("a", "never heard"));
        talk.interrupted(5, &[playback("a", 0)]);
        assert_eq!(lines(&mut talk), []);
    }

    #[test]
    fn the_callers_words_come_with_the_times_of_their_speech() {
        let mut talk = Conversation::new(500);
        let item = Some(ItemId::from("u"));
        talk.provider(2000, &Event::SpeechStarted { at_ms: 1000, item: item.clone() });
        talk.provider(3000, &Event::SpeechStopped { at_ms: 2000, item });
        talk.provider(
            3500,
            &Event::TranscriptFinal { who: Speaker::Caller, item: "u".into(), text: " Hello. ".into() },
        );
        let line = match talk.take_actions().pop() {
            Some(Action::Line(line)) => line,
            other => panic!("no line but {other:?}"),
        };
        assert_eq!((line.start_ms, line.end_ms, line.text.as_str()), (1500, 2500, "Hello."));
    }

    #[test]
    fn the_end_of_the_call_brings_out_what_was_heard_so_far() {
        let mut talk = Conversation::new(0);
        talk.provider(0, &audio("a", 1000));
        talk.provider(
            0,
            &Event::TranscriptPartial { who: Speaker::Assistant, item: "a".into(), text: "I will".into() },
        );
        talk.item_started(10, &"a".into());
        talk.finish(510, &[playback("a", 500)]);
        assert_eq!(lines(&mut talk), [("assistant", "I will", Some("I"))]);
    }

    #[test]
    fn what_came_of_a_lost_session_is_heard_to_its_end_and_told_once() {
        let mut talk = Conversation::new(0);
        talk.provider(0, &audio("a", 1000));
        let text = "One two three four five six seven eight nine ten".to_owned();
        talk.provider(
            0,
            &Event::TranscriptPartial { who: Speaker::Assistant, item: "a".into(), text: text.clone() },
        );
        talk.take_actions();
        talk.item_started(10, &"a".into());
        assert_eq!(talk.lost(), ["a".into()]);
        let snapshot = talk.snapshot();
        let heard = "One two three four";
        assert_eq!(snapshot.history, [HistoryItem::said(Speaker::Assistant, heard)]);
        talk.item_finished(1010, &"a".into(), 1000);
        assert_eq!(lines(&mut talk), [("assistant", text.leak() as &str, Some(heard))]);
        assert_eq!(talk.since(&snapshot), [], "what was still being heard is in the snapshot");
        assert_eq!(talk.snapshot().history, [HistoryItem::said(Speaker::Assistant, heard)]);
    }

    #[test]
    fn a_line_whose_audio_was_complete_is_heard_in_full_after_a_loss() {
        let mut talk = Conversation::new(0);
        talk.provider(0, &audio("a", 300));
        talk.provider(0, &words("a", "Good morning to you all."));
        talk.provider(0, &Event::AudioDone { item: "a".into() });
        assert_eq!(talk.lost(), []);
        talk.item_finished(400, &"a".into(), 300);
        assert_eq!(lines(&mut talk), [("assistant", "Good morning to you all.", None)]);
    }

    #[test]
    fn a_turn_that_another_session_hears_again_stays_the_same_line_at_its_own_time() {
        let mut talk = Conversation::new(0);
        talk.provider(3000, &Event::SpeechStarted { at_ms: 2800, item: Some("u".into()) });
        talk.provider(
            3500,
            &Event::TranscriptPartial { who: Speaker::Caller, item: "u".into(), text: "I would".into() },
        );
        let shown = match talk.take_actions().pop() {
            Some(Action::Partial { line_id, .. }) => line_id,
            other => panic!("no partial but {other:?}"),
        };
        talk.lost();
        talk.resume(6000, &[(0, 2500)], 2000);
        assert!(talk.was_replayed(300) && !talk.was_replayed(2000));
        talk.provider(6100, &Event::SpeechStarted { at_ms: 300, item: Some("2:u".into()) });
        talk.provider(6100, &Event::SpeechStopped { at_ms: 1300, item: Some("2:u".into()) });
        let text = "I would like a table.".to_owned();
        talk.provider(6200, &Event::TranscriptFinal { who: Speaker::Caller, item: "2:u".into(), text });
        let line = match talk.take_actions().pop() {
            Some(Action::Line(line)) => line,
            other => panic!("no line but {other:?}"),
        };
        assert_eq!((line.line_id, line.start_ms, line.end_ms), (shown, 2800, 3800));
        talk.provider(8000, &Event::SpeechStarted { at_ms: 3000, item: Some("2:v".into()) });
        let text = "Tonight.".to_owned();
        talk.provider(8500, &Event::TranscriptFinal { who: Speaker::Caller, item: "2:v".into(), text });
        let line = match talk.take_actions().pop() {
            Some(Action::Line(line)) => line,
            other => panic!("no line but {other:?}"),
        };
        assert_eq!(line.start_ms, 7000, "live audio began at 6000, a second ago");
    }

    #[test]
    fn a_tool_that_answers_after_a_loss_is_news_to_the_next_session() {
        let mut talk = Conversation::new(0);
        let call = Event::ToolCall { id: "t".into(), name: "lookup".into(), arguments: "{}".into() };
        talk.provider(0, &call);
        let snapshot = talk.snapshot();
        assert!(matches!(&snapshot.history[..], [HistoryItem::Tool { output, .. }] if output == PENDING));
        assert_eq!((talk.since(&snapshot), talk.tool_name("t")), (vec![], Some("lookup")));
        talk.tool_answered("t", "42");
        talk.note(HistoryItem::Note("Later.".into()));
        let since = talk.since(&snapshot);
        assert!(matches!(&since[0], HistoryItem::Tool { output, .. } if output == "42"));
        assert_eq!(since[1..], [HistoryItem::Note("Later.".into())]);
    }

    #[test]
    fn heard_words_end_at_a_word() {
        assert_eq!(heard_words("alpha beta gamma", 0.5), "alpha");
        assert_eq!(heard_words("alpha beta gamma", 0.63), "alpha beta");
        assert_eq!(heard_words("alpha beta gamma", 1.0), "alpha beta gamma");
        assert_eq!(heard_words("äöü äöü", 0.5), "äöü");
        assert_eq!(heard_words("", 0.5), "");
    }

    fn audio(item: &str, ms: usize) -> Event {
        Event::Audio { item: item.into(), pcm: vec![0; ms * 24] }
    }

    fn words(item: &str, text: &str) -> Event {
        Event::TranscriptFinal { who: Speaker::Assistant, item: item.into(), text: text.into() }
    }

    fn playback(item: &str, played_ms: u32) -> Playback {
        Playback { item: item.into(), played_ms }
    }

    fn lines(talk: &mut Conversation) -> Vec<(&'static str, &'static str, Option<&'static str>)> {
        talk.take_actions()
            .into_iter()
            .filter_map(|action| match action {
                Action::Line(line) => Some((leak(line.who), leak(line.text), line.heard_text.map(leak))),
                _ => None,
            })
            .collect()
    }

    fn leak(text: String) -> &'static str {
        text.leak()
    }
}
