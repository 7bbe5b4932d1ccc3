//! The scripted assistant: a pure core that listens, and answers by its script.
//!
//! It behaves as a realtime service does: it finds the caller's turns in the audio, sends its own audio
//! in bursts faster than real time, stops generating when the caller speaks, and waits for the answers to
//! its tool calls. It does not understand a word.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audio::vad::{Detector, Edge, Settings};
use crate::audio::{BRIDGE_RATE, SampleRate};
use crate::provider::{
    CloseReason, Command, Event, HistoryItem, ItemId, SessionSpec, Speaker, TurnDetection, TurnStatus,
};

use super::script::{Line, Rendered, Turn};

/// One scripted conversation. Drain [`Self::poll_event`] after every input.
#[derive(Debug)]
pub struct ScriptedCore {
    script: Arc<Rendered>,
    detector: Detector,
    edges: Vec<Edge>,
    heard_samples: u64,
    caller: Option<CallerTurn>,
    greeted: bool,
    next_turn: usize,
    /// A turn whose answer was put off because the caller went on speaking.
    put_off: Option<Turn>,
    state: State,
    waiting: VecDeque<Answer>,
    open_calls: Vec<OpenCall>,
    silence_from: Instant,
    silences: u32,
    events: VecDeque<Event>,
    items: u64,
    samples_sent: u64,
    closed: bool,
}

#[derive(Debug)]
struct CallerTurn {
    item: ItemId,
    from_sample: u64,
    words_shown: usize,
}

/// What the assistant is about to do in one response.
#[derive(Debug, Clone)]
struct Answer {
    say: Option<Line>,
    tool: Option<(String, String)>,
    then: Option<Line>,
}

#[derive(Debug)]
struct OpenCall {
    id: String,
    then: Option<Line>,
}

#[derive(Debug)]
enum State {
    /// Nothing to say.
    Idle,
    /// The pause before an answer; the turn, should the caller go on.
    Thinking { until: Instant, turn: Turn },
    /// An answer is being generated.
    Speaking(Utterance),
}

#[derive(Debug)]
struct Utterance {
    item: ItemId,
    line: Line,
    sent: usize,
    next_chunk: Instant,
    began: Instant,
    afterwards: Answer,
}

impl ScriptedCore {
    /// A conversation that begins at `now`.
    pub fn new(script: Arc<Rendered>, spec: &SessionSpec, now: Instant) -> Self {
        let answered = |item: &&HistoryItem| matches!(item, HistoryItem::Said { who: Speaker::Caller, .. });
        Self {
            script,
            detector: Detector::new(SampleRate::HZ_24000, settings(spec.turn_detection)),
            edges: Vec::new(),
            heard_samples: 0,
            caller: None,
            greeted: !spec.history.is_empty(),
            next_turn: spec.history.iter().filter(answered).count(),
            put_off: None,
            state: State::Idle,
            waiting: VecDeque::new(),
            open_calls: Vec::new(),
            silence_from: now,
            silences: 0,
            events: VecDeque::new(),
            items: 0,
            samples_sent: 0,
            closed: false,
        }
    }

    /// Takes caller audio, 24 kHz mono.
    pub fn receive_audio(&mut self, now: Instant, pcm: &[i16]) {
        if self.closed {
            return;
        }
        self.heard_samples += pcm.len() as u64;
        let mut edges = std::mem::take(&mut self.edges);
        self.detector.feed(pcm, &mut edges);
        for edge in edges.drain(..) {
            match edge {
                Edge::Start { at, .. } => self.caller_started(at),
                Edge::End { at, .. } => self.caller_stopped(now, at),
            }
        }
        self.edges = edges;
        self.show_callers_words();
    }

    /// Takes a command, but for [`Command::Say`], whose words come with their sound by [`Self::say`].
    pub fn command(&mut self, now: Instant, command: Command) {
        if self.closed {
            return;
        }
        match command {
            Command::Respond { .. } => self.respond(now),
            Command::ToolResult { id, respond, .. } => self.tool_answered(now, &id, respond),
            Command::CancelResponse => {
                self.waiting.clear();
                self.interrupt();
            }
            Command::Close => {
                self.closed = true;
                self.events.push_back(Event::Closed { reason: CloseReason::Requested });
            }
            // The script does not depend on what was pressed or heard.
            Command::CallerText(_)
            | Command::Note(_)
            | Command::Update { .. }
            | Command::Truncate { .. }
            | Command::Say(_) => {}
        }
    }

    /// Says these words after what is being said.
    pub fn say(&mut self, now: Instant, line: Line) {
        if !self.closed {
            self.begin(now, Answer::saying(Some(line)));
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while !self.closed && self.next_timeout().is_some_and(|due| due <= now) {
            match std::mem::replace(&mut self.state, State::Idle) {
                State::Idle => self.nobody_speaks(now),
                State::Thinking { turn, .. } => self.begin(now, Answer::from(turn)),
                State::Speaking(utterance) => self.send_chunk(now, utterance),
            }
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            _ if self.closed => None,
            State::Thinking { until, .. } => Some(*until),
            State::Speaking(utterance) => Some(utterance.next_chunk),
            State::Idle => {
                let silence = self.script.silence.as_ref()?;
                let quiet = self.caller.is_none() && self.open_calls.is_empty() && self.greeted;
                (quiet && self.silences < silence.times).then(|| self.silence_from + silence.after)
            }
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether [`Self::poll_event`] has one.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Caller audio heard and assistant audio sent, in milliseconds.
    pub fn audio_ms(&self) -> (u64, u64) {
        (self.heard_samples / SAMPLES_PER_MS, self.samples_sent / SAMPLES_PER_MS)
    }

    fn respond(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.greeted, true) {
            let greeting = self.script.greeting.clone();
            return self.begin(now, Answer::saying(greeting));
        }
        let turn = self.take_turn();
        self.begin(now, Answer::from(turn));
    }

    fn take_turn(&mut self) -> Turn {
        let turn = self.script.turns.get(self.next_turn).unwrap_or(&self.script.end).clone();
        self.next_turn += 1;
        turn
    }

    // The caller's turns.

    fn caller_started(&mut self, at: u64) {
        self.silences = 0;
        match std::mem::replace(&mut self.state, State::Idle) {
            // They had only paused: the answer waits for the real end of their turn.
            State::Thinking { turn, .. } => self.put_off = Some(turn),
            other => {
                self.state = other;
                self.interrupt();
            }
        }
        self.items += 1;
        let item = ItemId(format!("caller-{}", self.items).into());
        self.events.push_back(Event::SpeechStarted { at_ms: at / SAMPLES_PER_MS, item: Some(item.clone()) });
        self.caller = Some(CallerTurn { item, from_sample: at, words_shown: 0 });
    }

    fn show_callers_words(&mut self) {
        let Some(caller) = &mut self.caller else { return };
        let spoken_ms = self.heard_samples.saturating_sub(caller.from_sample) / SAMPLES_PER_MS;
        let upcoming = self.script.turns.get(self.next_turn).unwrap_or(&self.script.end);
        let words = if self.put_off.is_some() { GOES_ON } else { &upcoming.caller };
        let shown = words_up_to(words, (spoken_ms / MS_PER_WORD) as usize);
        if shown.len() > caller.words_shown {
            caller.words_shown = shown.len();
            let (item, text) = (caller.item.clone(), shown.to_owned());
            self.events.push_back(Event::TranscriptPartial { who: Speaker::Caller, item, text });
        }
    }

    fn caller_stopped(&mut self, now: Instant, at: u64) {
        let Some(CallerTurn { item, .. }) = self.caller.take() else { return };
        self.silence_from = now;
        let at_ms = at / SAMPLES_PER_MS;
        self.events.push_back(Event::SpeechStopped { at_ms, item: Some(item.clone()) });
        let (turn, text) = match self.put_off.take() {
            Some(turn) => (turn, GOES_ON.to_owned()),
            None => {
                let turn = self.take_turn();
                let text = turn.caller.to_string();
                (turn, text)
            }
        };
        self.events.push_back(Event::TranscriptFinal { who: Speaker::Caller, item, text });
        self.greeted = true;
        match self.state {
            State::Idle => self.state = State::Thinking { until: now + turn.after, turn },
            // Something the call wants said comes first.
            State::Thinking { .. } | State::Speaking(_) => self.enqueue(Answer::from(turn)),
        }
    }

    fn nobody_speaks(&mut self, now: Instant) {
        self.silences += 1;
        let line = self.script.silence.as_ref().map(|silence| silence.say.clone());
        self.begin(now, Answer::saying(line));
    }

    // The assistant's answers.

    fn begin(&mut self, now: Instant, answer: Answer) {
        if !matches!(self.state, State::Idle) {
            return self.enqueue(answer);
        }
        self.events.push_back(Event::TurnStarted);
        let Answer { say, tool, then } = answer;
        let afterwards = Answer { say: None, tool, then };
        match say {
            Some(line) => {
                self.items += 1;
                let item = ItemId(format!("assistant-{}", self.items).into());
                self.send_chunk(
                    now,
                    Utterance { item, line, sent: 0, next_chunk: now, began: now, afterwards },
                );
            }
            None => self.finish(now, afterwards),
        }
    }

    fn enqueue(&mut self, answer: Answer) {
        if self.waiting.len() >= MAX_WAITING {
            let message = "too many answers wait to be spoken; this one is given up".to_owned();
            self.events.push_back(Event::Warning { code: "too_many_requests".to_owned(), message });
        } else {
            self.waiting.push_back(answer);
        }
    }

    fn send_chunk(&mut self, now: Instant, mut utterance: Utterance) {
        let Utterance { item, line, sent, next_chunk, .. } = &mut utterance;
        let end = (*sent + CHUNK_SAMPLES).min(line.pcm.len());
        let shown = part_of(&line.text, end, line.pcm.len());
        if !shown.is_empty() {
            let (item, text) = (item.clone(), shown.to_owned());
            self.events.push_back(Event::TranscriptPartial { who: Speaker::Assistant, item, text });
        }
        if end > *sent {
            let pcm = line.pcm[*sent..end].to_vec();
            self.samples_sent += pcm.len() as u64;
            self.events.push_back(Event::Audio { item: item.clone(), pcm });
        }
        *sent = end;
        *next_chunk += CHUNK_INTERVAL;
        if *sent < line.pcm.len() {
            self.state = State::Speaking(utterance);
            return;
        }
        let length = Duration::from_millis(line.pcm.len() as u64 / SAMPLES_PER_MS);
        self.silence_from = now.max(utterance.began + length);
        self.end_speech(&utterance);
        self.finish(now, utterance.afterwards);
    }

    /// The speech of a response ends here, complete or not: with the words of what was sent.
    fn end_speech(&mut self, utterance: &Utterance) {
        let Utterance { item, line, sent, .. } = utterance;
        self.events.push_back(Event::AudioDone { item: item.clone() });
        let text = part_of(&line.text, *sent, line.pcm.len()).to_owned();
        if !text.is_empty() {
            let item = item.clone();
            self.events.push_back(Event::TranscriptFinal { who: Speaker::Assistant, item, text });
        }
    }

    fn finish(&mut self, now: Instant, afterwards: Answer) {
        if let Some((name, arguments)) = afterwards.tool {
            self.items += 1;
            let id = format!("call-{}", self.items);
            self.open_calls.push(OpenCall { id: id.clone(), then: afterwards.then });
            self.events.push_back(Event::ToolCall { id, name, arguments });
        }
        self.turn_done(TurnStatus::Completed);
        self.state = State::Idle;
        if let Some(next) = self.waiting.pop_front() {
            self.begin(now, next);
        }
    }

    /// The caller spoke or the call wants quiet: what was not generated yet never will be.
    fn interrupt(&mut self) {
        if let State::Speaking(utterance) = std::mem::replace(&mut self.state, State::Idle) {
            self.end_speech(&utterance);
            self.turn_done(TurnStatus::Cancelled);
        }
    }

    fn turn_done(&mut self, status: TurnStatus) {
        self.events.push_back(Event::TurnDone { status });
    }

    fn tool_answered(&mut self, now: Instant, id: &str, respond: bool) {
        let Some(index) = self.open_calls.iter().position(|call| call.id == id) else {
            let message = "no such call is open".to_owned();
            self.events.push_back(Event::Warning { code: "unknown_tool_call".to_owned(), message });
            return;
        };
        let call = self.open_calls.remove(index);
        self.silence_from = self.silence_from.max(now);
        if respond && call.then.is_some() && self.caller.is_none() {
            self.begin(now, Answer::saying(call.then));
        }
    }
}

impl Answer {
    fn saying(say: Option<Line>) -> Self {
        Self { say, tool: None, then: None }
    }
}

impl From<Turn> for Answer {
    fn from(turn: Turn) -> Self {
        Self { say: turn.say, tool: turn.tool, then: turn.then }
    }
}

fn settings(wanted: TurnDetection) -> Settings {
    let defaults = Settings::default();
    match wanted {
        TurnDetection::ServerVad { threshold, prefix_padding_ms, silence_duration_ms } => Settings {
            prefix_ms: prefix_padding_ms.unwrap_or(defaults.prefix_ms),
            silence_ms: silence_duration_ms.unwrap_or(defaults.silence_ms),
            ..threshold.map_or(defaults, |threshold| defaults.with_threshold(threshold))
        },
        // There is no meaning here to find the end of a turn by.
        TurnDetection::SemanticVad { .. } => defaults,
    }
}

/// The first `count` words.
fn words_up_to(text: &str, count: usize) -> &str {
    let mut ends = text.char_indices().filter(|(_, c)| c.is_whitespace()).map(|(index, _)| index);
    match count.checked_sub(1) {
        None => "",
        Some(before) => ends.nth(before).map_or(text, |end| &text[..end]),
    }
}

/// The words that belong to the first `sent` of `total` samples.
fn part_of(text: &str, sent: usize, total: usize) -> &str {
    if sent >= total {
        return text;
    }
    let words = text.split_whitespace().count();
    words_up_to(text, (words * sent).div_ceil(total.max(1)).max(1))
}

/// What is shown for speech that continues a turn after a pause.
const GOES_ON: &str = "(goes on)";
const SAMPLES_PER_MS: u64 = BRIDGE_RATE as u64 / 1_000;
/// 200 ms, sent every 40 ms: five times faster than real time.
const CHUNK_SAMPLES: usize = 200 * SAMPLES_PER_MS as usize;
const CHUNK_INTERVAL: Duration = Duration::from_millis(40);
/// Pace at which the caller's words are shown while they speak.
const MS_PER_WORD: u64 = 350;
/// Answers that may wait; more are given up with a warning.
const MAX_WAITING: usize = 32;

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
