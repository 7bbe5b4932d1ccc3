//! Generation: how a response's items and deltas come out over time.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::active::{Active, Outcome, Speaking, Stage, Step};
use super::config::Modality;
use super::item::{Item, ItemKind, ItemStatus, Part, Role};
use super::record::Record;
use super::script::ToolCall;
use super::session::{Output, RealtimeSession};
use super::speech::{Cut, Say};
use super::tokens::Tokens;

impl RealtimeSession {
    /// Goes as far as `now` allows; the outcome once the response is over.
    pub(super) fn advance(&mut self, now: Instant, active: &mut Active) -> Option<Outcome> {
        while active.due <= now {
            match std::mem::replace(&mut active.stage, Stage::Next) {
                Stage::Next => {
                    if let Some(code) = active.fail.take() {
                        return Some(Outcome::Failed(code));
                    }
                    match active.steps.pop_front() {
                        None => return Some(Outcome::Completed),
                        Some(Step::Say(say)) if active.modality == Modality::Text => self.write(active, &say),
                        Some(Step::Say(say)) => self.begin_speech(now, active, &say),
                        Some(Step::Call(call)) => self.call(now, active, &call),
                    }
                }
                Stage::Speaking(mut speaking) => {
                    if !self.send_piece(active, &mut speaking) {
                        self.end_speech(active, speaking, ItemStatus::Completed);
                        continue;
                    }
                    active.due = speaking.started + self.generation_time(&speaking);
                    let spent = active.spent + speaking.tokens();
                    if active.max_output_tokens.is_some_and(|max| spent.total() >= u64::from(max)) {
                        self.end_speech(active, speaking, ItemStatus::Incomplete);
                        return Some(Outcome::Incomplete("max_output_tokens"));
                    }
                    active.stage = Stage::Speaking(speaking);
                }
            }
        }
        None
    }

    fn generation_time(&self, speaking: &Speaking) -> Duration {
        let speed = self.faults.speed.unwrap_or(self.behaviour.speed);
        let seconds = speaking.samples as f64 / f64::from(speaking.utterance.format.rate());
        Duration::try_from_secs_f64(seconds / speed).unwrap_or_default()
    }

    fn begin_speech(&mut self, now: Instant, active: &mut Active, say: &Say) {
        let cut = match self.faults.giant_delta {
            true => Cut { delta_ms: u32::MAX, vary: false },
            false => self.behaviour.cut(),
        };
        let caller = self.caller_audio.as_ref().map(|caller| (&*caller.audio, caller.rate));
        let utterance = self.library.utterance(say, active.format, cut, caller);
        let transcript = Some(String::new());
        let part = Part::OutputAudio { utterance: utterance.clone(), samples: 0, transcript };
        let id = self.begin_message(active, json!({"type": "audio", "transcript": ""}), part);
        active.stage = Stage::Speaking(Speaking {
            item: id.into(),
            utterance,
            started: now,
            piece: 0,
            samples: 0,
            words: String::new(),
        });
    }

    /// Opens an assistant message with one part.
    fn begin_message(&mut self, active: &mut Active, shown: Value, part: Part) -> String {
        let id = self.fresh_id("item");
        let kind = ItemKind::Message { role: Role::Assistant, parts: Vec::new() };
        self.add_item(active, Item { id: id.clone(), status: ItemStatus::InProgress, kind });
        if let Some(Item { kind: ItemKind::Message { parts, .. }, .. }) = self.item_mut(active, &id) {
            parts.push(part);
        }
        let mut body = active.place(&id);
        body["part"] = shown;
        self.emit("response.content_part.added", body);
        id
    }

    /// Sends the next delta; `false` when there is none left.
    pub(super) fn send_piece(&mut self, active: &mut Active, speaking: &mut Speaking) -> bool {
        let utterance = speaking.utterance.clone();
        let Some(piece) = utterance.pieces.get(speaking.piece) else { return false };
        if !piece.words.is_empty() {
            let mut body = active.place(&speaking.item);
            body["delta"] = (*piece.words).into();
            self.emit("response.output_audio_transcript.delta", body);
            speaking.words.push_str(&piece.words);
        }
        let text = self.delta_text(active, &speaking.item, &piece.base64);
        self.emit_raw(Output::Audio {
            text,
            item: speaking.item.clone(),
            first_sample: speaking.samples,
            samples: piece.samples,
        });
        speaking.piece += 1;
        speaking.samples += piece.samples;
        self.spoken = true;
        self.count_delta();
        if let Some(Item { kind: ItemKind::Message { parts, .. }, .. }) =
            self.item_mut(active, &speaking.item)
            && let Some(Part::OutputAudio { samples, transcript: Some(words), .. }) = parts.first_mut()
        {
            *samples += piece.samples;
            words.push_str(&piece.words);
        }
        true
    }

    fn count_delta(&mut self) {
        self.totals.deltas += 1;
        if self.faults.die_after_deltas == Some(self.totals.deltas) {
            self.reset();
        }
        if self.faults.stall_after_deltas == Some(self.totals.deltas) {
            self.mute();
        }
    }

    /// The delta event, written without a JSON tree: nothing in it needs escaping.
    fn delta_text(&mut self, active: &Active, item: &str, base64: &str) -> String {
        let event = self.fresh_id("event");
        let mut text = String::with_capacity(base64.len() + 260);
        let unknown = if self.faults.unknown_events { r#","x_future_field":[]"# } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"{{"type":"response.output_audio.delta","event_id":"{event}","response_id":"{}","item_id":"{item}","output_index":{},"content_index":0,"delta":"{base64}"{unknown}}}"#,
            active.id,
            active.output.len(),
        );
        text
    }

    /// Closes the spoken item.
    pub(super) fn end_speech(&mut self, active: &mut Active, speaking: Speaking, status: ItemStatus) {
        let rate = u64::from(speaking.utterance.format.rate());
        let ms = speaking.samples * 1_000 / rate;
        active.audio_ms += ms;
        self.totals.generated_ms += ms;
        active.spent = active.spent + speaking.tokens();
        self.playback_end = self.playback_end.max(speaking.started) + Duration::from_millis(ms);
        let place = active.place(&speaking.item);
        self.emit("response.output_audio.done", place.clone());
        let mut body = place.clone();
        body["transcript"] = speaking.words.as_str().into();
        self.emit("response.output_audio_transcript.done", body);
        let mut body = place;
        body["part"] = json!({"type": "audio", "transcript": speaking.words});
        self.emit("response.content_part.done", body);
        self.end_item(active, &speaking.item, status);
    }

    /// A message in text.
    fn write(&mut self, active: &mut Active, say: &Say) {
        let part = Part::OutputText(say.text.clone());
        let id = self.begin_message(active, json!({"type": "text", "text": ""}), part);
        for delta in say.text.split_inclusive(' ') {
            let mut body = active.place(&id);
            body["delta"] = delta.into();
            self.emit("response.output_text.delta", body);
        }
        active.spent = active.spent + Tokens::text(&say.text);
        let mut body = active.place(&id);
        body["text"] = say.text.as_str().into();
        self.emit("response.output_text.done", body);
        let mut body = active.place(&id);
        body["part"] = json!({"type": "text", "text": say.text});
        self.emit("response.content_part.done", body);
        self.end_item(active, &id, ItemStatus::Completed);
    }

    /// A function call, its arguments in several deltas.
    fn call(&mut self, now: Instant, active: &mut Active, call: &ToolCall) {
        let (id, call_id) = (self.fresh_id("item"), self.fresh_id("call"));
        let arguments = call.arguments_text();
        let name = call.name.clone();
        let kind = ItemKind::FunctionCall { call_id: call_id.clone(), name, arguments: String::new() };
        self.add_item(active, Item { id: id.clone(), status: ItemStatus::InProgress, kind });
        let (response, index) = (active.id.clone(), active.output.len());
        let place =
            || json!({"response_id": response, "item_id": id, "output_index": index, "call_id": call_id});
        let letters: Vec<char> = arguments.chars().collect();
        for delta in letters.chunks(ARGUMENTS_DELTA_CHARS) {
            let mut body = place();
            body["delta"] = delta.iter().collect::<String>().into();
            self.emit("response.function_call_arguments.delta", body);
        }
        let mut body = place();
        body["name"] = call.name.as_str().into();
        body["arguments"] = arguments.as_str().into();
        self.emit("response.function_call_arguments.done", body);
        active.spent = active.spent + Tokens::text(&call.name) + Tokens::text(&arguments);
        if let Some(Item { kind: ItemKind::FunctionCall { arguments: place, .. }, .. }) =
            self.item_mut(active, &id)
        {
            *place = arguments;
        }
        self.end_item(active, &id, ItemStatus::Completed);
        let offered = self.config.tools.iter().any(|tool| tool["name"] == call.name);
        self.open_calls.push((call_id.clone(), now));
        self.record(now, Record::ToolCalled { call_id, name: call.name.clone(), offered });
    }

    fn add_item(&mut self, active: &mut Active, item: Item) {
        let shown = item.to_json();
        let body = json!({"response_id": active.id, "output_index": active.output.len(), "item": shown});
        self.emit("response.output_item.added", body);
        if active.out_of_band {
            active.own_item = Some(item);
            return;
        }
        let previous = self.conversation.push(item);
        self.emit("conversation.item.added", json!({"previous_item_id": previous, "item": shown}));
    }

    fn end_item(&mut self, active: &mut Active, id: &str, status: ItemStatus) {
        // The client may have deleted the item while it was being generated.
        let gone = || json!({"id": id, "object": "realtime.item", "status": "incomplete"});
        let shown = self.item_mut(active, id).map_or_else(gone, |item| {
            item.status = status;
            item.to_json()
        });
        if !active.out_of_band {
            let previous = self.previous_of(id);
            let body = json!({"previous_item_id": previous, "item": shown});
            self.emit("conversation.item.done", body);
        }
        let body = json!({"response_id": active.id, "output_index": active.output.len(), "item": shown});
        self.emit("response.output_item.done", body);
        active.output.push(shown);
    }

    fn previous_of(&self, id: &str) -> Option<String> {
        let items = self.conversation.items();
        let position = items.iter().position(|item| item.id == id)?;
        position.checked_sub(1).map(|before| items[before].id.clone())
    }

    fn item_mut<'a>(&'a mut self, active: &'a mut Active, id: &str) -> Option<&'a mut Item> {
        match active.out_of_band {
            true => active.own_item.as_mut(),
            false => self.conversation.get_mut(id),
        }
    }
}

const ARGUMENTS_DELTA_CHARS: usize = 12;
