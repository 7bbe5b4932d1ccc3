//! Between the service's messages and our events: a pure core.
//!
//! Feed one input, then drain [`Mapper::poll_event`] and [`Mapper::poll_message`]; one input yields only a
//! handful of either, which is what bounds both queues. Its clock is [`Mapper::tick`].

use std::collections::VecDeque;
use std::sync::Arc;

use crate::audio::SampleRate;
use crate::audio::resample::Resampler;
use crate::provider::{CloseReason, Command, Event, SessionSpec, Speaker, ToolSpec, TurnStatus, Usage};

use super::request::{CallSettings, Stage, aside, seconds};
use super::speech::{Turns, Utterances, merge};
use super::tools::{Answer, OpenTools};
use super::wire::{
    AgentState, ClientMessage, Invocation, Role, ServerMessage, ToolResult, Transcript, Urgency,
};

/// The protocol state of one call that has started.
#[derive(Debug)]
pub struct Mapper {
    model: Arc<str>,
    tools: Arc<[ToolSpec]>,
    /// As the service writes it.
    tool_timeout: String,
    /// A tool that takes longer is announced.
    tool_limit_ms: u64,
    state: AgentState,
    in_turn: bool,
    utterances: Utterances,
    turns: Turns,
    open_tools: OpenTools,
    /// Texts that the next request takes along.
    held: Vec<String>,
    /// The caller has done something that one of them tells.
    caller_acted: bool,
    /// What the agent is told next interrupts it.
    cut_next: bool,
    /// Settings for the next tool's result.
    stage: Option<Stage>,
    /// We have interrupted the agent ourselves.
    we_interrupted: bool,
    /// The agent has nothing to go on from yet.
    fresh: bool,
    events: VecDeque<Event>,
    messages: VecDeque<String>,
    now_ms: u64,
    /// Between joining and the session's beginning.
    joined_before_ms: u64,
    next_usage_ms: u64,
    ping: Ping,
    resampler: Option<Resampler>,
    /// Half a sample at the end of a frame.
    carry: Option<u8>,
    samples_received: u64,
    /// Frames that have come.
    received: u64,
    unknown: u64,
    garbage_in_a_row: u32,
    closed: bool,
}

#[derive(Debug, Default)]
struct Ping {
    next_ms: u64,
    unanswered: u32,
    /// A service that never answers is not given up for that.
    answers: bool,
}

impl Mapper {
    /// A call of `model` that was made with `spec` and `settings` and has just started.
    pub fn new(spec: &SessionSpec, settings: &CallSettings, model: Arc<str>) -> Self {
        let rate = SampleRate::new(settings.output_sample_rate).unwrap_or(SampleRate::HZ_24000);
        let limit_ms = u64::try_from(settings.tool_timeout.as_millis()).unwrap_or(u64::MAX);
        Self {
            model,
            tools: Arc::clone(&spec.tools),
            tool_timeout: seconds(settings.tool_timeout),
            tool_limit_ms: limit_ms.saturating_sub(TOOL_MARGIN_MS).max(limit_ms / 2),
            state: AgentState::Idle,
            in_turn: false,
            utterances: Utterances::default(),
            turns: Turns::default(),
            open_tools: OpenTools::default(),
            held: Vec::new(),
            caller_acted: false,
            cut_next: false,
            stage: None,
            we_interrupted: false,
            fresh: spec.history.is_empty(),
            events: VecDeque::new(),
            messages: VecDeque::new(),
            now_ms: 0,
            joined_before_ms: 0,
            next_usage_ms: 0,
            ping: Ping { next_ms: PING_MS, ..Ping::default() },
            resampler: Resampler::new(rate, SampleRate::HZ_24000),
            carry: None,
            samples_received: 0,
            received: 0,
            unknown: 0,
            garbage_in_a_row: 0,
            closed: false,
        }
    }

    /// The session begins `ms` after the call was joined.
    pub fn joined_before(&mut self, ms: u64) {
        self.joined_before_ms = ms;
    }

    /// It is now so many milliseconds after the session's beginning.
    pub fn tick(&mut self, now_ms: u64) {
        if self.closed {
            return;
        }
        self.now_ms = now_ms;
        while let Some(id) = self.open_tools.overdue(now_ms, self.tool_limit_ms) {
            self.send(&ClientMessage::ClientToolResult(ToolResult {
                invocation_id: &id,
                result: Some(STILL_RUNNING),
                response_type: None,
                agent_reaction: None,
                error_type: None,
                error_message: None,
            }));
        }
        let running = now_ms + self.joined_before_ms;
        if running >= self.next_usage_ms {
            let billed_ms = (running / USAGE_MS + 1) * USAGE_MS;
            self.next_usage_ms = billed_ms;
            self.used(billed_ms);
        }
        if now_ms >= self.ping.next_ms {
            self.ping.next_ms = now_ms + PING_MS;
            if self.ping.answers && self.ping.unanswered >= MISSED_PINGS {
                return self.close(CloseReason::ConnectionLost("the service answers no ping".to_owned()));
            }
            self.ping.unanswered += 1;
            self.send(&ClientMessage::Ping { timestamp: now_ms as f64 / 1000.0 });
        }
    }

    /// Asks for an answer that changes nothing.
    pub fn probe(&mut self) {
        self.send(&ClientMessage::Ping { timestamp: self.now_ms as f64 / 1000.0 });
    }

    /// Frames that have come so far.
    pub fn messages_received(&self) -> u64 {
        self.received
    }

    /// So much is billed so far.
    pub fn used(&mut self, billed_ms: u64) {
        let model = Arc::clone(&self.model);
        self.events.push_back(Event::Used(Usage::Session { model, billed_ms }));
    }

    /// Takes one text frame from the service.
    pub fn handle_text(&mut self, json: &str) {
        if self.closed {
            return;
        }
        self.received += 1;
        match serde_json::from_str(json) {
            Ok(message) => {
                self.garbage_in_a_row = 0;
                self.handle(message);
            }
            Err(error) if error.is_data() => {
                self.garbage_in_a_row = 0;
                self.unknown += 1;
                self.warn("odd_message", &error.to_string());
            }
            Err(error) => self.garbage(&error.to_string()),
        }
    }

    /// Takes one binary frame from the service: audio.
    pub fn handle_audio(&mut self, octets: &[u8]) {
        if self.closed {
            return;
        }
        self.received += 1;
        let mut pcm = Vec::with_capacity(octets.len() / 2 + 1);
        let mut octets = octets.iter().copied();
        if let Some(low) = self.carry.take()
            && let Some(high) = octets.next()
        {
            pcm.push(i16::from_le_bytes([low, high]));
        }
        while let Some(low) = octets.next() {
            match octets.next() {
                Some(high) => pcm.push(i16::from_le_bytes([low, high])),
                None => self.carry = Some(low),
            }
        }
        if let Some(resampler) = &mut self.resampler {
            let mut at_24k = Vec::with_capacity(3 * pcm.len() + 8);
            resampler.process(&pcm, &mut at_24k);
            pcm = at_24k;
        }
        if pcm.is_empty() {
            return;
        }
        let utterance = self.utterances.audible();
        utterance.samples += pcm.len() as u64;
        self.samples_received += pcm.len() as u64;
        self.events.push_back(Event::Audio { item: utterance.item.clone(), pcm });
    }

    /// Takes a command of the call.
    pub fn command(&mut self, command: Command) {
        if self.closed {
            return;
        }
        match command {
            Command::Respond { instructions } => self.respond(instructions.as_deref()),
            Command::Say(words) => {
                self.flush_held();
                let urgency = self.urgency();
                self.send(&ClientMessage::ForcedAgentMessage { content: &words, urgency });
            }
            Command::CallerText(text) => {
                self.caller_acted = true;
                self.held.push(text);
            }
            Command::Note(text) => self.held.push(aside(&text)),
            Command::Update { instructions, language, tools } => {
                self.update(Stage { instructions, language, tools });
            }
            Command::ToolResult { id, output, ok, respond } => self.answer_tool(&id, &output, ok, respond),
            Command::Close => self.close(CloseReason::Requested),
            // Nothing stops the service by itself, but what it is told next can.
            Command::CancelResponse => self.cut_next = true,
            // It knows by its own clock what was heard.
            Command::Truncate { .. } => {}
        }
    }

    /// Sends texts that no request has taken along.
    pub fn flush_held(&mut self) {
        self.caller_acted = false;
        if !self.held.is_empty() {
            let text = std::mem::take(&mut self.held).join("\n");
            self.send(&ClientMessage::UserTextMessage { text: &text, urgency: Urgency::Later });
        }
    }

    /// The session is over: yields [`Event::Closed`] once, for the first reason given.
    pub fn close(&mut self, reason: CloseReason) {
        if !std::mem::replace(&mut self.closed, true) {
            self.events.push_back(Event::Closed { reason });
        }
    }

    /// Whether [`Self::close`] was called or the service was given up.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next thing the call must know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether [`Self::poll_event`] has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next message for the service.
    pub fn poll_message(&mut self) -> Option<String> {
        self.messages.pop_front()
    }

    /// Audio received, in milliseconds.
    pub fn audio_received_ms(&self) -> u64 {
        self.samples_received / SAMPLES_PER_MS
    }

    /// Messages of kinds or shapes that are not known.
    pub fn unknown_messages(&self) -> u64 {
        self.unknown
    }

    fn handle(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::State { state } => self.state(state),
            ServerMessage::Transcript(words) => match words.role {
                Role::Agent => self.agent_words(words),
                Role::User => self.caller_words(words),
                Role::Other => self.unknown += 1,
            },
            ServerMessage::ClientToolInvocation(call) => self.tool_call(call),
            ServerMessage::PlaybackClearBuffer => self.cleared(),
            ServerMessage::UserStartedSpeaking => self.caller_starts(),
            ServerMessage::UserStoppedSpeaking => {
                self.turns.stopped(self.now_ms);
                self.tell_stop();
            }
            ServerMessage::Pong => {
                self.ping.answers = true;
                self.ping.unanswered = 0;
            }
            ServerMessage::CallStarted { .. } | ServerMessage::Debug => {}
            ServerMessage::Other => self.unknown += 1,
        }
    }

    fn state(&mut self, state: AgentState) {
        match state {
            AgentState::Thinking => {
                self.audio_ends(false);
                self.turns.stopped(self.now_ms);
                self.tell_stop();
                self.turn_begins();
            }
            AgentState::Speaking => {
                self.tell_stop();
                self.turn_begins();
            }
            AgentState::Listening | AgentState::Idle => {
                self.audio_ends(false);
                self.turn_ends(TurnStatus::Completed);
            }
            AgentState::Other => {
                self.unknown += 1;
                return;
            }
        }
        self.state = state;
        if state != AgentState::Speaking {
            self.we_interrupted = false;
        }
    }

    fn turn_begins(&mut self) {
        self.fresh = false;
        if !std::mem::replace(&mut self.in_turn, true) {
            self.events.push_back(Event::TurnStarted);
        }
    }

    fn turn_ends(&mut self, status: TurnStatus) {
        if std::mem::take(&mut self.in_turn) {
            self.events.push_back(Event::TurnDone { status });
        }
    }

    fn audio_ends(&mut self, cut: bool) {
        if let Some(item) = self.utterances.silent(cut) {
            self.events.push_back(Event::AudioDone { item });
        }
        self.audio_starts_afresh();
    }

    fn audio_starts_afresh(&mut self) {
        self.carry = None;
        if let Some(resampler) = &mut self.resampler {
            resampler.reset();
        }
    }

    /// While the agent speaks, the caller's voice alone stops nothing: the service decides.
    fn caller_starts(&mut self) {
        self.turns.started(self.now_ms);
        if self.state != AgentState::Speaking
            && let Some((at_ms, item)) = self.turns.start_to_tell(false)
        {
            self.events.push_back(Event::SpeechStarted { at_ms, item: Some(item) });
        }
    }

    fn tell_stop(&mut self) {
        if let Some((at_ms, item)) = self.turns.stop_to_tell(self.now_ms) {
            self.events.push_back(Event::SpeechStopped { at_ms, item: Some(item) });
        }
    }

    fn cleared(&mut self) {
        self.audio_ends(true);
        let ours = std::mem::take(&mut self.we_interrupted) && !self.turns.is_open();
        let began = if ours {
            // No words of the caller's will belong to this.
            Some((self.now_ms, self.turns.name()))
        } else {
            if !self.turns.is_open() {
                self.turns.started(self.now_ms);
            }
            self.turns.start_to_tell(true)
        };
        if let Some((at_ms, item)) = began {
            self.events.push_back(Event::SpeechStarted { at_ms, item: Some(item.clone()) });
            if ours {
                self.events.push_back(Event::SpeechStopped { at_ms, item: Some(item) });
            }
        }
        self.turn_ends(TurnStatus::Cancelled);
    }

    fn agent_words(&mut self, words: Transcript) {
        if let Some(item) = self.utterances.ends_before(words.ordinal) {
            self.events.push_back(Event::AudioDone { item });
            self.audio_starts_afresh();
        }
        self.finish_words_before(words.ordinal);
        let utterance = self.utterances.of(words.ordinal);
        if utterance.words_done {
            return;
        }
        let item = utterance.item.clone();
        if !words.last {
            merge(&mut utterance.words, words.text, words.delta);
            if !utterance.cut {
                let text = utterance.words.clone();
                self.events.push_back(Event::TranscriptPartial { who: Speaker::Assistant, item, text });
            }
            return;
        }
        utterance.words_done = true;
        let mut text = utterance.words.clone();
        merge(&mut text, words.text, words.delta);
        if utterance.cut {
            // The last words of a cut utterance are those that were heard.
            self.events.push_back(Event::Heard { item: item.clone(), text: text.clone() });
            if utterance.words.len() > text.len() {
                text.clone_from(&utterance.words);
            }
        }
        self.events.push_back(Event::TranscriptFinal { who: Speaker::Assistant, item, text });
    }

    fn finish_words_before(&mut self, ordinal: i64) {
        for old in self.utterances.left_behind(ordinal) {
            old.words_done = true;
            let (item, text) = (old.item.clone(), old.words.clone());
            self.events.push_back(Event::TranscriptFinal { who: Speaker::Assistant, item, text });
        }
    }

    /// What we have injected ourselves comes back as text, and nobody has said it.
    fn caller_words(&mut self, words: Transcript) {
        if words.medium.as_deref() == Some("text") {
            return;
        }
        self.fresh = false;
        self.tell_stop();
        let Some((item, text)) = self.turns.words(words.ordinal, words.text, words.delta, words.last) else {
            return;
        };
        let who = Speaker::Caller;
        self.events.push_back(if words.last {
            Event::TranscriptFinal { who, item, text }
        } else {
            Event::TranscriptPartial { who, item, text }
        });
    }

    fn tool_call(&mut self, call: Invocation) {
        if self.open_tools.asked(&call.invocation_id, &call.tool_name, self.now_ms) {
            let arguments =
                if call.parameters.is_null() { "{}".to_owned() } else { call.parameters.to_string() };
            let (id, name) = (call.invocation_id, call.tool_name);
            self.events.push_back(Event::ToolCall { id, name, arguments });
        } else {
            self.warn("tool_call_ignored", "it is known already, or too many are open");
        }
    }

    fn answer_tool(&mut self, id: &str, output: &str, ok: bool, respond: bool) {
        match self.open_tools.answered(id) {
            Answer::InTime(name) => self.answer_in_time(id, &name, output, ok, respond),
            Answer::Late(name) => {
                let what = if ok { "result" } else { "error" };
                let text =
                    aside(&format!("the {what} of the tool {name}, which was still running: {output}"));
                let urgency = if respond { Urgency::Soon } else { Urgency::Later };
                self.send(&ClientMessage::UserTextMessage { text: &text, urgency });
            }
            Answer::Unknown => {
                self.warn("unknown_tool_call", "no such call is open; its answer was not sent")
            }
        }
    }

    fn answer_in_time(&mut self, id: &str, name: &str, output: &str, ok: bool, respond: bool) {
        let known = self.tools.iter().any(|tool| tool.name == name);
        let agent_reaction = (!respond).then_some("listens");
        let mut answer = ToolResult {
            invocation_id: id,
            result: Some(output),
            response_type: None,
            agent_reaction,
            error_type: None,
            error_message: None,
        };
        if !ok {
            answer.result = None;
            answer.error_type = Some(if known { "implementation-error" } else { "undefined" });
            answer.error_message = Some(output);
            return self.send(&ClientMessage::ClientToolResult(answer));
        }
        let Some(stage) = self.stage.take() else {
            return self.send(&ClientMessage::ClientToolResult(answer));
        };
        let result = stage.result(output, &self.tool_timeout);
        answer.result = Some(&result);
        answer.response_type = Some("new-stage");
        self.send(&ClientMessage::ClientToolResult(answer));
        if let Some(tools) = stage.tools {
            self.tools = tools;
        }
    }

    /// Settings change only with a tool's result. Where none is due the agent is told in words meanwhile.
    fn update(&mut self, wanted: Stage) {
        if !self.open_tools.is_waiting() {
            if let Some(language) = &wanted.language {
                self.held.push(aside(&format!("from here on, speak the caller's language, {language}")));
            }
            if let Some(instructions) = &wanted.instructions {
                self.held.push(aside(&format!("your instructions from here on: {instructions}")));
            }
        }
        self.stage.get_or_insert_default().and(wanted);
    }

    fn respond(&mut self, instructions: Option<&str>) {
        let mut texts = std::mem::take(&mut self.held);
        match instructions {
            Some(instructions) => texts.push(aside(instructions)),
            None if !texts.is_empty() => {}
            None if self.fresh => texts.push(aside(BEGIN)),
            None => texts.push(aside(GO_ON)),
        }
        let urgency = if std::mem::take(&mut self.caller_acted) {
            self.we_interrupted = true;
            Urgency::Immediate
        } else {
            self.urgency()
        };
        self.send(&ClientMessage::UserTextMessage { text: &texts.join("\n"), urgency });
        self.fresh = false;
    }

    /// What the agent says now is not cut for what it is told next; but a tool does not hold that up.
    fn urgency(&mut self) -> Urgency {
        let generating = self.state == AgentState::Thinking && !self.open_tools.is_waiting();
        if !std::mem::take(&mut self.cut_next) && (self.state == AgentState::Speaking || generating) {
            return Urgency::Soon;
        }
        self.we_interrupted = true;
        Urgency::Immediate
    }

    fn send(&mut self, message: &ClientMessage<'_>) {
        self.messages.push_back(message.to_json());
    }

    fn garbage(&mut self, what: &str) {
        self.garbage_in_a_row += 1;
        self.unknown += 1;
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

const SAMPLES_PER_MS: u64 = 24;
/// An answer takes its time to the service, too.
const TOOL_MARGIN_MS: u64 = 1_000;
/// What the model is told of a tool that takes longer than the service waits.
const STILL_RUNNING: &str = r#"{"status":"running","note":"This takes a moment. The result will follow; do not call the tool again."}"#;
/// How often the running time is told: a tenth of a minute, rounded up.
const USAGE_MS: u64 = 6_000;
/// How often the service is asked whether it is there.
const PING_MS: u64 = 5_000;
/// So many unanswered pings in a row are the end.
const MISSED_PINGS: u32 = 4;
/// Consecutive texts that are not JSON before the service is given up.
const MAX_GARBAGE_IN_A_ROW: u32 = 5;
const BEGIN: &str = "the call has been answered. Greet the caller now and begin.";
const GO_ON: &str = "it is your turn. Go on with the conversation; do not mention this note.";

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
