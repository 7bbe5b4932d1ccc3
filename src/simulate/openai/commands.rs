//! The client's events and what each of them does.

use std::time::Instant;

use serde_json::json;

use super::error::ApiError;
use super::format::AudioFormat;
use super::item::{Item, ItemKind, ItemStatus};
use super::record::Record;
use super::session::RealtimeSession;
use super::tokens::Tokens;
use super::wire::{ClientEvent, NewItem};

impl RealtimeSession {
    /// Does what a client event asks for.
    pub(super) fn obey(&mut self, now: Instant, event: ClientEvent) -> Result<(), ApiError> {
        match event {
            ClientEvent::SessionUpdate(patch) => {
                self.note_format_change(now, patch.input_format());
                let detection = self.config.turn_detection.clone();
                let before = (self.config.instructions.clone(), self.config.tools.clone());
                self.config.apply(*patch, self.spoken)?;
                self.input.set_format(self.config.input_format);
                if detection != self.config.turn_detection {
                    self.input.reset_detection();
                    self.turn_item = None;
                    self.idle_at = None;
                }
                if before.0 != self.config.instructions || before.1 != self.config.tools {
                    self.cached = Tokens::default();
                }
                self.updates += 1;
                let shown = self.config.to_json();
                self.record(now, Record::Configured { updates: self.updates, session: shown.clone() });
                self.emit("session.updated", json!({"session": shown}));
            }
            ClientEvent::Append(audio) => self.append(now, &audio),
            ClientEvent::Commit => self.commit_by_client(now)?,
            ClientEvent::Clear => {
                self.input.clear();
                self.turn_item = None;
                self.emit("input_audio_buffer.cleared", json!({}));
            }
            ClientEvent::OutputClear => {
                let message = "output_audio_buffer.clear is only supported over WebRTC and SIP.";
                return Err(ApiError::new("invalid_value", message).at("type"));
            }
            ClientEvent::ItemCreate { previous, item } => self.create_item(now, item, previous.as_deref())?,
            ClientEvent::ItemRetrieve { item_id } => {
                let item = self.conversation.retrieve(&item_id)?;
                self.emit("conversation.item.retrieved", json!({"item": item}));
            }
            ClientEvent::ItemTruncate { item_id, content_index, audio_end_ms } => {
                self.truncate(now, &item_id, content_index, audio_end_ms)?;
            }
            ClientEvent::ItemDelete { item_id } => {
                self.conversation.delete(&item_id)?;
                self.cached = Tokens::default();
                self.emit("conversation.item.deleted", json!({"item_id": item_id}));
            }
            ClientEvent::ResponseCreate(request) => self.create_response(now, *request)?,
            ClientEvent::ResponseCancel { response_id } => {
                self.cancel_by_client(now, response_id.as_deref())?
            }
        }
        Ok(())
    }

    fn note_format_change(&mut self, now: Instant, wanted: Option<AudioFormat>) {
        if self.totals.appends > 0 && wanted.is_some_and(|format| format != self.config.input_format) {
            let message = "audio was appended before the session.update that changes its format";
            self.note_violation(now, "append_before_format", message);
        }
    }

    fn create_item(&mut self, now: Instant, new: NewItem, previous: Option<&str>) -> Result<(), ApiError> {
        let id = new.id.unwrap_or_else(|| self.fresh_id("item"));
        let answered = match &new.kind {
            ItemKind::FunctionCallOutput { call_id, output } => {
                Some((call_id.clone(), output.chars().take(OUTPUT_KEPT).collect::<String>()))
            }
            _ => None,
        };
        if answered.as_ref().is_some_and(|(call, _)| self.conversation.has_output(call)) {
            self.note_violation(now, "duplicate_tool_output", "a function call was answered twice");
        }
        let item = Item { id, status: ItemStatus::Completed, kind: new.kind };
        let shown = item.to_json();
        let previous = self.conversation.insert(item, previous)?;
        if let Some((call_id, output)) = answered {
            self.tool_answered(now, call_id, output);
        }
        let body = json!({"previous_item_id": previous, "item": shown});
        self.emit("conversation.item.added", body.clone());
        self.emit("conversation.item.done", body);
        Ok(())
    }

    fn tool_answered(&mut self, now: Instant, call_id: String, output: String) {
        match self.open_calls.iter().position(|(id, _)| *id == call_id) {
            Some(position) => {
                let (_, since) = self.open_calls.swap_remove(position);
                let after = now.saturating_duration_since(since);
                let (after_ms, after_us) = (after.as_millis() as u64, after.as_micros() as u64);
                self.record(now, Record::ToolAnswered { call_id, after_ms, after_us, output });
            }
            // A call of replayed history.
            None => self.record(now, Record::ToolAnswered { call_id, after_ms: 0, after_us: 0, output }),
        }
    }

    fn truncate(&mut self, now: Instant, id: &str, part: usize, audio_end_ms: u64) -> Result<(), ApiError> {
        let truncated = self.conversation.truncate(id, part, audio_end_ms)?;
        self.cached = Tokens::default();
        self.totals.truncations += 1;
        let generated_ms = truncated.generated_ms;
        self.record(now, Record::Truncation { item: id.to_owned(), audio_end_ms, generated_ms });
        let body = json!({"item_id": id, "content_index": part, "audio_end_ms": audio_end_ms});
        self.emit("conversation.item.truncated", body);
        Ok(())
    }
}

/// Characters of a tool's answer that the report keeps.
const OUTPUT_KEPT: usize = 2000;
