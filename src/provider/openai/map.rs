//! Between OpenAI's events and ours: a pure core that takes server events and commands and gives
//! [`Event`]s and client messages.
//!
//! Feed one input, then drain [`Mapper::poll_event`] and [`Mapper::poll_message`]; one input yields only
//! a handful of either, which is what bounds both queues.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::provider::{
    CloseReason, Command, Event, HistoryItem, ItemId, Speaker, Tokens, ToolSpec, TurnStatus, Usage,
};

use super::items::{Items, SAMPLES_PER_MS, Truncation};
use super::request::{
    AudioChange, ClientEvent, EventId, InputChange, NewItem, Numbered, ResponseConfig, SessionChange,
    Transcription, primary_subtag,
};
use super::sequencer::{Create, Refusal, Sequencer};
use super::wire::{
    CallerText, Delta, ErrorBody, FunctionCall, Item, Response, ServerEvent, SpeechStarted, SpeechStopped,
    Text, decode_pcm,
};

/// The protocol state of one open session.
#[derive(Debug, Default)]
pub struct Mapper {
    instructions: String,
    /// For what is charged.
    model: Arc<str>,
    /// Writes down what the caller says.
    transcriber: Arc<str>,
    items: Items,
    caller: CallerWords,
    sequencer: Sequencer,
    events: VecDeque<Event>,
    messages: VecDeque<String>,
    next_event_id: u64,
    garbage_in_a_row: u32,
    unknown_events: u64,
    /// Text messages.
    received: u64,
    samples_received: u64,
    dropped_ms: u64,
    closed: bool,
    scratch: Vec<u8>,
}

impl Mapper {
    /// A session of `model` whose system prompt is `instructions`.
    pub fn new(instructions: String, model: Arc<str>) -> Self {
        Self { instructions, model, ..Self::default() }
    }

    /// The caller's words are written down by this model.
    pub fn transcribed_by(mut self, model: &str) -> Self {
        self.transcriber = model.into();
        self
    }

    /// Takes one text frame from the service.
    pub fn handle_text(&mut self, json: &str) {
        if self.closed {
            return;
        }
        self.received += 1;
        match serde_json::from_str(json) {
            Ok(event) => {
                self.garbage_in_a_row = 0;
                self.handle(event);
            }
            Err(error) if error.is_data() => self.odd_event(&error),
            Err(error) => self.garbage(&error.to_string()),
        }
        self.ask_for_response();
    }

    /// Takes a binary frame, which this protocol does not have.
    pub fn handle_binary(&mut self, length: usize) {
        if !self.closed {
            self.garbage(&format!("a binary frame of {length} bytes"));
        }
    }

    /// Takes a command of the call.
    pub fn command(&mut self, command: Command) {
        if self.closed {
            return;
        }
        match command {
            Command::Respond { instructions: None } => self.request(Create::Continue),
            Command::Respond { instructions: Some(wanted) } => {
                // A response's instructions replace the session's, so the persona is repeated.
                let separator = if self.instructions.is_empty() { "" } else { "\n\n" };
                let instructions = format!("{}{separator}{wanted}", self.instructions);
                self.request(Create::Instructed { instructions, tools: true });
            }
            Command::Say(words) => {
                self.request(Create::Instructed { instructions: verbatim(&words), tools: false });
            }
            Command::CallerText(text) => {
                self.send(ClientEvent::ItemCreate { item: NewItem::user(&text) });
            }
            Command::Note(text) => self.put(NewItem::system(&text)),
            Command::Update { instructions, language, tools } => {
                self.update(instructions, language.as_deref(), tools.as_deref());
            }
            Command::ToolResult { id, output, respond, ok: _ } => self.answer_tool(&id, &output, respond),
            Command::Truncate { item, audio_end_ms } => self.truncate(&item, audio_end_ms),
            Command::CancelResponse => {
                if self.sequencer.cancel() {
                    self.send(ClientEvent::ResponseCancel);
                }
            }
            Command::Close => self.close(CloseReason::Requested),
        }
        self.ask_for_response();
    }

    /// Whether the service goes on with a response while the caller speaks.
    pub fn talk_on(&mut self, talks_on: bool) {
        self.sequencer.talk_on(talks_on);
    }

    /// Puts a piece of the past into the conversation.
    pub fn replay(&mut self, past: &HistoryItem) {
        match past {
            HistoryItem::Said { who: Speaker::Caller, text } => self.put(NewItem::user(text)),
            HistoryItem::Said { who: Speaker::Assistant, text } => self.put(NewItem::assistant(text)),
            HistoryItem::Note(text) => self.put(NewItem::system(text)),
            HistoryItem::Tool { id, name, arguments, output } => {
                self.put(NewItem::FunctionCall { call_id: id, name, arguments });
                self.put(NewItem::FunctionCallOutput { call_id: id, output });
            }
        }
    }

    /// Changes what is given of the session's configuration.
    fn update(&mut self, instructions: Option<String>, language: Option<&str>, tools: Option<&[ToolSpec]>) {
        let transcriber = Arc::clone(&self.transcriber);
        let model = (language.is_some() && !transcriber.is_empty()).then_some(&*transcriber);
        let audio = model.map(|model| {
            let transcription = Transcription { model, language: language.map(primary_subtag) };
            AudioChange { input: InputChange { transcription } }
        });
        let tools = tools.map(|tools| tools.iter().map(Into::into).collect());
        if instructions.is_none() && audio.is_none() && tools.is_none() {
            return;
        }
        if let Some(instructions) = &instructions {
            self.instructions.clone_from(instructions);
        }
        let instructions = instructions.as_deref();
        self.send(ClientEvent::SessionChange {
            session: SessionChange { kind: "realtime", instructions, audio, tools },
        });
    }

    fn put(&mut self, item: NewItem<'_>) {
        self.send(ClientEvent::ItemCreate { item });
    }

    /// This much more caller audio was handed to the connection.
    pub fn audio_sent(&mut self, ms: u32) {
        self.sequencer.audio_sent(ms);
        self.ask_for_response();
    }

    /// This much caller audio was given up. The service's clock runs on what it gets, so its times are
    /// moved by that much.
    pub fn audio_dropped(&mut self, ms: u32) {
        self.dropped_ms += u64::from(ms);
    }

    /// The session is over: yields [`Event::Closed`] once, for the first reason given.
    pub fn close(&mut self, reason: CloseReason) {
        if !std::mem::replace(&mut self.closed, true) {
            self.events.push_back(Event::Closed { reason });
        }
    }

    /// Whether [`Self::close`] was called or the service ended the session in its own words.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether [`Self::poll_event`] has one.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next event for the call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next message for the service.
    pub fn poll_message(&mut self) -> Option<String> {
        self.messages.pop_front()
    }

    /// Events of unknown kind or shape so far.
    pub fn unknown_events(&self) -> u64 {
        self.unknown_events
    }

    /// Text messages that have come so far.
    pub fn messages_received(&self) -> u64 {
        self.received
    }

    /// Asks for an answer that changes nothing.
    pub fn probe(&mut self) {
        let change = SessionChange { kind: "realtime", instructions: None, audio: None, tools: None };
        self.send(ClientEvent::SessionChange { session: change });
    }

    /// Assistant audio handed on so far.
    pub fn audio_received_ms(&self) -> u64 {
        self.samples_received / SAMPLES_PER_MS
    }

    fn handle(&mut self, event: ServerEvent<'_>) {
        match event {
            ServerEvent::Error { error } => self.error(&error),
            ServerEvent::SpeechStarted(started) => self.speech_started(started),
            ServerEvent::SpeechStopped(stopped) => self.speech_stopped(stopped),
            ServerEvent::InputCleared => self.sequencer.caller_cleared(),
            ServerEvent::CallerDelta(delta) => self.caller_delta(&delta),
            ServerEvent::CallerDone(done) => self.caller_done(&done),
            ServerEvent::CallerFailed { error } => self.warn("transcription_failed", error.name()),
            ServerEvent::ResponseCreated { response } => {
                self.sequencer.created(response.id.unwrap_or_default());
                self.events.push_back(Event::TurnStarted);
            }
            ServerEvent::ResponseDone { response } => self.response_done(response),
            ServerEvent::ItemDone { response_id, item } => self.item_done(&response_id, item),
            ServerEvent::AudioDelta(delta) => self.audio(&delta),
            ServerEvent::AudioDone(done) => self.audio_done(&done),
            ServerEvent::WordsDelta(delta) => self.words(&delta),
            ServerEvent::WordsDone(done) => self.words_done(&done),
            ServerEvent::ToolCall(call) => self.tool_call(call),
            ServerEvent::SessionCreated | ServerEvent::SessionUpdated | ServerEvent::Uninteresting => {}
            ServerEvent::Other => self.unknown_events += 1,
        }
    }

    fn error(&mut self, error: &ErrorBody) {
        let code = error.name();
        if code == "session_expired" {
            return self.close(CloseReason::Expired);
        }
        if code == "insufficient_quota" {
            return self.close(CloseReason::QuotaExhausted);
        }
        let busy = code == "conversation_already_has_active_response";
        match self.sequencer.error(error.event_id.as_deref(), busy) {
            // A race with the service's own turn-taking, dealt with: nobody needs to know.
            Refusal::Settled => {}
            Refusal::Lost | Refusal::NotOurs => {
                self.warn(code, error.message.as_deref().unwrap_or_default());
            }
        }
    }

    fn speech_started(&mut self, started: SpeechStarted) {
        self.sequencer.caller_started();
        let at_ms = started.audio_start_ms + self.dropped_ms;
        self.events.push_back(Event::SpeechStarted { at_ms, item: item_id(started.item_id) });
    }

    fn speech_stopped(&mut self, stopped: SpeechStopped) {
        self.sequencer.caller_stopped();
        let at_ms = stopped.audio_end_ms + self.dropped_ms;
        self.events.push_back(Event::SpeechStopped { at_ms, item: item_id(stopped.item_id) });
    }

    fn caller_delta(&mut self, delta: &Delta<'_>) {
        let text = self.caller.add(&delta.item_id, &delta.delta);
        let item = ItemId::from(&*delta.item_id);
        self.events.push_back(Event::TranscriptPartial { who: Speaker::Caller, item, text });
    }

    fn caller_done(&mut self, done: &CallerText<'_>) {
        self.caller.forget(&done.item_id);
        if let Some(usage) = &done.usage {
            let model = Arc::clone(&self.transcriber);
            let (tokens, audio_ms) = (usage.tokens(), usage.audio_ms());
            self.events.push_back(Event::Used(Usage::Transcription { model, tokens, audio_ms }));
        }
        self.events.push_back(Event::TranscriptFinal {
            who: Speaker::Caller,
            item: ItemId::from(&*done.item_id),
            text: done.transcript.clone().into_owned(),
        });
    }

    fn audio(&mut self, delta: &Delta<'_>) {
        let item = self.items.of(&delta.item_id, &delta.response_id);
        if item.cut || item.audio_done || self.sequencer.is_interrupted(&item.response_id) {
            return;
        }
        let Ok(pcm) = decode_pcm(&delta.delta, &mut item.carry, &mut self.scratch) else {
            return self.warn("invalid_audio", "a delta is not base64");
        };
        // A scratch buffer that once held a giant delta is not kept for the rest of the call.
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES);
        if pcm.is_empty() {
            return;
        }
        item.content_index = delta.content_index;
        item.samples += pcm.len() as u64;
        self.samples_received += pcm.len() as u64;
        self.events.push_back(Event::Audio { item: item.id.clone(), pcm });
    }

    fn audio_done(&mut self, done: &Text<'_>) {
        let item = self.items.of(&done.item_id, &done.response_id);
        if !std::mem::replace(&mut item.audio_done, true) && item.samples > 0 {
            self.events.push_back(Event::AudioDone { item: item.id.clone() });
        }
    }

    fn words(&mut self, delta: &Delta<'_>) {
        let item = self.items.of(&delta.item_id, &delta.response_id);
        if item.words_done {
            return;
        }
        item.words.push_str(&delta.delta);
        if !item.cut && !self.sequencer.is_interrupted(&item.response_id) {
            self.events.push_back(Event::TranscriptPartial {
                who: Speaker::Assistant,
                item: item.id.clone(),
                text: item.words.clone(),
            });
        }
    }

    /// Also of cut items: the call needs all words to tell what was heard of them.
    fn words_done(&mut self, done: &Text<'_>) {
        let item = self.items.of(&done.item_id, &done.response_id);
        if std::mem::replace(&mut item.words_done, true) {
            return;
        }
        // A cancelled part may end without its words; those that came stand.
        let words = std::mem::take(&mut item.words);
        let text = if done.transcript.is_empty() { words } else { done.transcript.clone().into_owned() };
        let item = item.id.clone();
        self.events.push_back(Event::TranscriptFinal { who: Speaker::Assistant, item, text });
    }

    fn tool_call(&mut self, call: FunctionCall) {
        // Without a name it is told when its item is done.
        if let Some(name) = call.name {
            self.tell_tool_call(&call.response_id, call.call_id, name, call.arguments);
        }
    }

    fn tell_tool_call(&mut self, response_id: &str, id: String, name: String, arguments: String) {
        if self.sequencer.tool_called(response_id, &id) {
            self.events.push_back(Event::ToolCall { id, name, arguments });
        }
    }

    fn item_done(&mut self, response_id: &str, item: Item) {
        if item.kind.as_deref() == Some("function_call") && item.status.as_deref() != Some("incomplete") {
            if let (Some(call_id), Some(name)) = (item.call_id, item.name) {
                self.tell_tool_call(response_id, call_id, name, item.arguments.unwrap_or_default());
            }
        } else if let Some(id) = item.id
            && item.kind.as_deref() == Some("message")
        {
            self.items.of(&id, response_id);
            self.end_items(response_id, Some(&id));
        }
    }

    fn response_done(&mut self, response: Response) {
        let id = response.id.clone().unwrap_or_default();
        self.end_items(&id, None);
        let status = status(&response);
        for item in response.output.into_iter().flatten() {
            self.item_done(&id, item);
        }
        self.sequencer.done(&id);
        let tokens: Tokens = response.usage.unwrap_or_default().into();
        if tokens != Tokens::default() {
            self.events.push_back(Event::Used(Usage::Response { model: Arc::clone(&self.model), tokens }));
        }
        self.events.push_back(Event::TurnDone { status });
    }

    /// Closes what a cancelled response may have left open: of one item, or of all.
    fn end_items(&mut self, response_id: &str, only: Option<&str>) {
        for item in self.items.of_response(response_id) {
            if only.is_some_and(|id| *item.id.0 != *id) {
                continue;
            }
            if !std::mem::replace(&mut item.audio_done, true) && item.samples > 0 {
                self.events.push_back(Event::AudioDone { item: item.id.clone() });
            }
            if !item.words.is_empty() && !std::mem::replace(&mut item.words_done, true) {
                let (item, text) = (item.id.clone(), std::mem::take(&mut item.words));
                self.events.push_back(Event::TranscriptFinal { who: Speaker::Assistant, item, text });
            }
        }
    }

    fn answer_tool(&mut self, call_id: &str, output: &str, respond: bool) {
        if self.sequencer.tool_answered(call_id, respond) {
            self.send(ClientEvent::ItemCreate { item: NewItem::FunctionCallOutput { call_id, output } });
        } else {
            self.warn("unknown_tool_call", "no such call is open; its answer was not sent");
        }
    }

    fn truncate(&mut self, item: &ItemId, audio_end_ms: u32) {
        match self.items.truncate(item, audio_end_ms) {
            Truncation::None => {}
            Truncation::Delete => {
                self.send(ClientEvent::ItemDelete { item_id: &item.0 });
            }
            Truncation::At { content_index, audio_end_ms } => {
                self.send(ClientEvent::ItemTruncate { item_id: &item.0, content_index, audio_end_ms });
            }
        }
    }

    fn request(&mut self, create: Create) {
        if !self.sequencer.request(create) {
            self.warn("too_many_requests", "too many responses wait to be spoken; this one is given up");
        }
    }

    fn ask_for_response(&mut self) {
        if self.closed {
            return;
        }
        while let Some(create) = self.sequencer.take_next() {
            let response = match &create {
                Create::Continue => None,
                Create::Instructed { instructions, tools } => {
                    Some(ResponseConfig { instructions, tool_choice: (!tools).then_some("none") })
                }
            };
            let event_id = self.send(ClientEvent::ResponseCreate { response });
            self.sequencer.sent(event_id, create);
        }
    }

    fn send(&mut self, event: ClientEvent<'_>) -> EventId {
        self.next_event_id += 1;
        let event_id = EventId(self.next_event_id);
        self.messages.push_back(Numbered { event_id, event }.to_json());
        event_id
    }

    fn odd_event(&mut self, error: &serde_json::Error) {
        self.unknown_events += 1;
        self.garbage_in_a_row = 0;
        self.warn("odd_event", &error.to_string());
    }

    fn garbage(&mut self, what: &str) {
        self.garbage_in_a_row += 1;
        self.unknown_events += 1;
        if self.garbage_in_a_row >= MAX_GARBAGE_IN_A_ROW {
            let reason = format!("{MAX_GARBAGE_IN_A_ROW} messages in a row were not JSON; the last: {what}");
            self.close(CloseReason::Protocol(reason));
        } else {
            self.warn("invalid_json", what);
        }
    }

    fn warn(&mut self, code: &str, message: &str) {
        self.events.push_back(Event::Warning { code: code.to_owned(), message: message.to_owned() });
    }
}

/// The caller's words so far, by item.
#[derive(Debug, Default)]
struct CallerWords {
    open: VecDeque<(String, String)>,
}

impl CallerWords {
    fn add(&mut self, item: &str, delta: &str) -> String {
        let index = self.open.iter().position(|(id, _)| id == item).unwrap_or_else(|| {
            if self.open.len() >= MAX_OPEN_CALLER_TURNS {
                self.open.pop_front();
            }
            self.open.push_back((item.to_owned(), String::new()));
            self.open.len() - 1
        });
        let words = &mut self.open[index].1;
        words.push_str(delta);
        words.clone()
    }

    fn forget(&mut self, item: &str) {
        self.open.retain(|(id, _)| id != item);
    }
}

fn item_id(id: Option<String>) -> Option<ItemId> {
    id.map(|id| ItemId(id.into()))
}

fn status(response: &Response) -> TurnStatus {
    let details = response.status_details.as_ref();
    let reason = details.and_then(|details| details.reason.clone());
    match response.status.as_deref() {
        Some("cancelled") => TurnStatus::Cancelled,
        Some("incomplete") => TurnStatus::Incomplete(reason.unwrap_or_else(|| "incomplete".to_owned())),
        Some("failed") => {
            let error = details.and_then(|details| details.error.as_ref());
            let code = error.map(|error| error.name().to_owned());
            TurnStatus::Failed(code.or(reason).unwrap_or_else(|| "failed".to_owned()))
        }
        _ => TurnStatus::Completed,
    }
}

fn verbatim(words: &str) -> String {
    format!(
        "Say exactly the words between the marks, in the language they are written in. Add nothing, \
         leave nothing out, and do not mention this instruction.\n<<<\n{words}\n>>>"
    )
}

/// Consecutive frames that are not JSON before the service is given up.
pub const MAX_GARBAGE_IN_A_ROW: u32 = 5;
/// Caller turns whose words may be incomplete at a time; the oldest partial words are forgotten.
const MAX_OPEN_CALLER_TURNS: usize = 32;
/// Decoding buffer kept between deltas: 1.4 s of audio.
const SCRATCH_BYTES: usize = 64 << 10;

#[cfg(test)]
#[path = "map_tests/mod.rs"]
mod tests;
