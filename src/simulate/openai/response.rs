//! The assistant's side of a session: responses from `response.created` to `response.done`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::active::{Active, Outcome, Stage, Step};
use super::error::ApiError;
use super::item::{Item, ItemStatus};
use super::record::Record;
use super::script::{Turn, quoted_text};
use super::session::{Output, RealtimeSession};
use super::tokens::Tokens;
use super::wire::{InputItem, ResponseRequest};

impl RealtimeSession {
    /// `response.create`, by the client or by the end of a turn.
    pub(super) fn create_response(&mut self, now: Instant, request: ResponseRequest) -> Result<(), ApiError> {
        self.check_response(&request)?;
        self.idle_at = None;
        let number = self.totals.responses;
        self.totals.responses += 1;
        if self.faults.stall == Some(self.totals.responses) {
            self.mute();
        }
        if self.faults.invalid_json {
            let text = r#"{"type":"response.output_audio.delta","delta":"AAAA"#.to_owned();
            self.emit_raw(Output::Text(text));
        }
        if self.faults.unknown_events {
            self.emit("response.premonition", json!({"certainty": 0.5, "of": ["something", {"new": true}]}));
        }
        let active = self.prepare(now, number as usize, request);
        self.record(now, Record::ResponseStarted { response: active.id.clone() });
        let shown = active.to_json("in_progress", Value::Null, Value::Null, &self.conversation_id());
        self.emit("response.created", json!({"response": shown}));
        self.responses.push(active);
        Ok(())
    }

    /// `response.cancel`.
    pub(super) fn cancel_by_client(&mut self, now: Instant, id: Option<&str>) -> Result<(), ApiError> {
        let index = match id {
            Some(id) => self.responses.iter().position(|active| active.id == id),
            None => self.in_band_response(),
        };
        let Some(index) = index else {
            let message = "Cancellation failed: no active response found";
            return Err(ApiError::new("response_cancel_not_active", message));
        };
        self.cancel(now, index, "client_cancelled");
        Ok(())
    }

    /// Cancels a response. What was in flight still goes out first.
    pub(super) fn cancel(&mut self, now: Instant, index: usize, reason: &'static str) {
        let mut active = self.responses.remove(index);
        if let Stage::Speaking(mut speaking) = std::mem::replace(&mut active.stage, Stage::Next) {
            for _ in 0..self.behaviour.late_deltas {
                self.send_piece(&mut active, &mut speaking);
            }
            self.end_speech(&mut active, speaking, ItemStatus::Incomplete);
        }
        self.totals.cancelled += 1;
        // A client that plays in real time has dropped what it had queued.
        self.playback_end = now;
        self.finish(now, active, Outcome::Cancelled(reason));
    }

    /// The response that belongs to the conversation, if one is in progress.
    pub(super) fn in_band_response(&self) -> Option<usize> {
        self.responses.iter().position(|active| !active.out_of_band)
    }

    /// When the next output is due.
    pub(super) fn next_response(&self) -> Option<Instant> {
        self.responses.iter().map(|active| active.due).min()
    }

    /// Sends what is due of all responses.
    pub(super) fn run_responses(&mut self, now: Instant) {
        for mut active in std::mem::take(&mut self.responses) {
            match self.advance(now, &mut active) {
                Some(outcome) => self.finish(now, active, outcome),
                None => self.responses.push(active),
            }
        }
    }

    fn check_response(&self, request: &ResponseRequest) -> Result<(), ApiError> {
        if let (false, Some(index)) = (request.out_of_band, self.in_band_response()) {
            let message = format!(
                "Conversation already has an active response in progress: {}. Wait until the response is \
                 finished before creating a new one.",
                self.responses[index].id
            );
            return Err(ApiError::new("conversation_already_has_active_response", message));
        }
        if self.responses.len() >= RESPONSES_MAX {
            return Err(ApiError::new("rate_limit_exceeded", "Too many responses in progress."));
        }
        if self.spoken && request.voice.as_ref().is_some_and(|voice| *voice != self.config.voice) {
            let message = "Cannot update a conversation's voice if assistant audio is present.";
            return Err(ApiError::new("cannot_update_voice", message).at("response.audio.output.voice"));
        }
        for (n, input) in request.input.iter().flatten().enumerate() {
            if let InputItem::Reference(id) = input
                && self.conversation.get(id).is_none()
            {
                let message = format!("The item with id '{id}' does not exist.");
                return Err(ApiError::new("invalid_value", message).at(format!("response.input[{n}].id")));
            }
        }
        Ok(())
    }

    fn prepare(&mut self, now: Instant, number: usize, request: ResponseRequest) -> Active {
        let turn = self.behaviour.script.turn(number).clone();
        let input = self.input_tokens(&request);
        let cached = self.cached;
        if !request.out_of_band {
            self.cached = input;
        }
        let latency =
            turn.latency_ms.map_or(self.behaviour.response_latency, |ms| Duration::from_millis(ms.into()));
        let fail = match self.faults.fail_responses {
            true => Some("server_error".to_owned()),
            false => turn.fail.clone(),
        };
        let tool_choice = request.tool_choice.as_ref().unwrap_or(&self.config.tool_choice);
        let steps = self.steps(&turn, request.instructions.as_deref(), tool_choice != "none");
        Active {
            id: self.fresh_id("resp"),
            out_of_band: request.out_of_band,
            modality: request.modality.unwrap_or(self.config.modality),
            format: request.output_format.unwrap_or(self.config.output_format),
            voice: request.voice.unwrap_or_else(|| self.config.voice.clone()),
            max_output_tokens: request.max_output_tokens.unwrap_or(self.config.max_output_tokens),
            metadata: request.metadata,
            input,
            cached,
            fail,
            steps,
            stage: Stage::Next,
            due: now + latency,
            output: Vec::new(),
            own_item: None,
            spent: Tokens::default(),
            audio_ms: 0,
        }
    }

    fn steps(&self, turn: &Turn, instructions: Option<&str>, tools: bool) -> VecDeque<Step> {
        let behaviour = &self.behaviour;
        let quoted = instructions.filter(|_| behaviour.say_quoted).and_then(quoted_text);
        let mut steps = VecDeque::new();
        if let Some(text) = quoted.map(str::to_owned).or_else(|| turn.say.clone()) {
            steps.push_back(Step::Say(behaviour.say(turn, text)));
        }
        if tools && quoted.is_none() {
            steps.extend(turn.tool.iter().chain(&turn.tools).cloned().map(Step::Call));
        }
        steps
    }

    fn input_tokens(&self, request: &ResponseRequest) -> Tokens {
        let instructions = request.instructions.as_deref().unwrap_or(&self.config.instructions);
        let tools = request.tools.as_ref().unwrap_or(&self.config.tools);
        let fixed = tools.iter().map(|tool| Tokens::text(&tool.to_string())).sum::<Tokens>()
            + Tokens::text(instructions);
        let Some(input) = &request.input else { return fixed + self.conversation.tokens() };
        let items = input.iter().map(|input| match input {
            InputItem::Reference(id) => self.conversation.get(id).map(Item::tokens).unwrap_or_default(),
            InputItem::New(new) => {
                let (id, status) = (String::new(), ItemStatus::Completed);
                Item { id, status, kind: new.kind.clone() }.tokens()
            }
        });
        fixed + items.sum()
    }

    fn finish(&mut self, now: Instant, active: Active, outcome: Outcome) {
        let usage = active.usage();
        self.tokens_used += active.input.total() + active.spent.total();
        let status = outcome.status();
        let shown = active.to_json(status, outcome.details(), usage, &self.conversation_id());
        self.emit("response.done", json!({"response": shown}));
        let limits = self.rate_limits();
        self.emit("rate_limits.updated", json!({"rate_limits": limits}));
        let (response, audio_ms) = (active.id, active.audio_ms);
        self.record(now, Record::ResponseDone { response, status: status.to_owned(), audio_ms });
        if !active.out_of_band {
            self.arm_idle(now);
        }
    }

    fn rate_limits(&self) -> Value {
        let remaining = |limit: u64, used: u64| limit.saturating_sub(used);
        json!([
            {"name": "requests", "limit": 5_000, "remaining": remaining(5_000, self.totals.responses),
                "reset_seconds": 0.012},
            {"name": "tokens", "limit": 4_000_000, "remaining": remaining(4_000_000, self.tokens_used),
                "reset_seconds": 0.5},
        ])
    }

    fn conversation_id(&self) -> String {
        self.config.id.replace("sess_", "conv_")
    }
}

/// In progress at once, out-of-band ones included.
const RESPONSES_MAX: usize = 8;
