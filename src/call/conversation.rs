//! Who said what, and how much of it was heard.
//!
//! The provider tells what it generated, the RTP stream tells what left on the wire; this core joins the
//! two into transcript lines and into the truncations the provider must be told of. It holds no audio.
//!
//! A line of the assistant is final when its audio has been played to the end or cut *and* its words are
//! known; a caller's line when the provider has transcribed it. [`Conversation::finish`] brings out what
//! is still open when the call or the session ends, so that nothing that was heard is lost.

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

/// Both sides of one session, line by line.
#[derive(Debug, Default)]
pub struct Conversation {
    /// Call time at which the session's caller audio began; its clock starts at 0 there.
    origin_ms: u64,
    caller: Vec<CallerTurn>,
    assistant: Vec<AssistantItem>,
    history: Vec<HistoryItem>,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct CallerTurn {
    item: Option<ItemId>,
    line_id: LineId,
    start_ms: u64,
    end_ms: Option<u64>,
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
        Self { origin_ms, ..Self::default() }
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
                let line_id = self.caller_turn(now_ms, item).line_id;
                let text = text.clone();
                self.actions.push(Action::Partial { line_id, who: Speaker::Caller, text });
            }
            Event::TranscriptFinal { who: Speaker::Caller, item, text } => {
                self.caller_line(now_ms, item, text);
            }
            Event::Heard { item, text } => self.assistant_item(item).heard_text = Some(text.clone()),
            Event::AudioDone { .. }
            | Event::ToolCall { .. }
            | Event::TurnStarted
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

    /// The session or the call is over: every line that was heard in part is brought out as it stands.
    pub fn finish(&mut self, now_ms: u64, playing: &[Playback]) {
        for playback in playing {
            let played_ms = playback.played_ms;
            self.end_item(&playback.item, End { at_ms: now_ms, heard: Heard::Cut, played_ms });
        }
        for known in &mut self.assistant {
            known.text_final = true;
        }
        self.tell_finished();
    }

    /// What to do, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The turns so far, with the words that were heard: what a new session must know.
    pub fn history(&self) -> &[HistoryItem] {
        &self.history
    }

    fn caller_starts(&mut self, at_ms: u64, item: Option<&ItemId>) {
        let start_ms = self.origin_ms + at_ms;
        self.caller.push(CallerTurn {
            item: item.cloned(),
            line_id: LineId::fresh(),
            start_ms,
            end_ms: None,
        });
        if self.caller.len() > OPEN_TURNS {
            self.caller.remove(0);
        }
    }

    fn caller_stops(&mut self, at_ms: u64, item: Option<&ItemId>) {
        let end_ms = self.origin_ms + at_ms;
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
            self.history.push(HistoryItem::Said { who, text });
        }
        self.actions.push(Action::Line(line));
    }
}

impl AssistantItem {
    fn line(&self, end: End) -> TranscriptLine {
        let text = self.text.trim();
        let heard_text = match end.heard {
            Heard::Full => None,
            Heard::Cut => Some(match &self.heard_text {
                Some(told) => told.trim().to_owned(),
                None => heard_words(text, f64::from(end.played_ms) / self.generated_ms.max(1.0)),
            }),
        };
        TranscriptLine {
            line_id: self.line_id,
            who: "assistant".to_owned(),
            text: text.to_owned(),
            start_ms: self.started_ms.unwrap_or(end.at_ms.saturating_sub(u64::from(end.played_ms))),
            end_ms: end.at_ms,
            heard: end.heard,
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
