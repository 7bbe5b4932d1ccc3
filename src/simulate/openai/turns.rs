//! The caller's side of a session: turns found in the audio, commits, transcripts, the idle prompt.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::detection::{DetectionKind, TurnDetection};
use super::error::ApiError;
use super::input::{Committed, Heard};
use super::item::{Item, ItemKind, ItemStatus, Part, Role};
use super::record::Record;
use super::session::RealtimeSession;
use super::tokens::Tokens;
use super::wire::ResponseRequest;

/// A transcript on its way.
#[derive(Debug)]
pub struct Transcription {
    due: Instant,
    item_id: String,
    text: String,
    seconds: f64,
    audio_tokens: u64,
}

/// The newest turn, kept for `retrieve` and for speech that echoes it.
#[derive(Debug)]
pub struct CallerAudio {
    item_id: String,
    /// Its samples.
    pub audio: Arc<[i16]>,
    /// Samples per second.
    pub rate: u32,
}

impl RealtimeSession {
    /// Looks for turns in the audio appended since.
    pub(super) fn listen(&mut self, now: Instant) {
        while let Some(heard) = self.input.scan(self.config.turn_detection.as_ref()) {
            match heard {
                Heard::Started { audio_start_ms } => self.speech_started(now, audio_start_ms),
                Heard::Stopped { audio_end_ms } => self.speech_stopped(now, audio_end_ms),
            }
        }
    }

    /// `input_audio_buffer.commit`.
    pub(super) fn commit_by_client(&mut self, now: Instant) -> Result<(), ApiError> {
        let buffered = self.input.buffered_ms();
        if buffered < COMMIT_MIN_MS {
            let message = format!(
                "Error committing input audio buffer: buffer too small. Expected at least {COMMIT_MIN_MS}ms \
                 of audio, but buffer only has {buffered}.00ms of audio."
            );
            return Err(ApiError::new("input_audio_buffer_commit_empty", message));
        }
        let item_id = self.turn_item.take().unwrap_or_else(|| self.fresh_id("item"));
        let committed = self.input.commit(true);
        self.input.reset_detection();
        self.commit(now, item_id, committed);
        Ok(())
    }

    /// When the next transcript is due.
    pub(super) fn next_transcription(&self) -> Option<Instant> {
        self.transcriptions.front().map(|transcription| transcription.due)
    }

    /// Sends the transcripts that are due.
    pub(super) fn run_transcriptions(&mut self, now: Instant) {
        while let Some(transcription) = self.transcriptions.pop_front_if(|next| next.due <= now) {
            self.transcribe(transcription);
        }
    }

    /// Prompts a caller who has been silent for too long.
    pub(super) fn run_idle(&mut self, now: Instant) {
        if self.idle_at.is_none_or(|at| at > now) {
            return;
        }
        self.idle_at = None;
        if self.input.in_speech() || self.in_band_response().is_some() {
            return;
        }
        let item_id = self.fresh_id("item");
        let (start, end) = (self.input.begin_ms(), self.input.written_ms());
        self.emit(
            "input_audio_buffer.timeout_triggered",
            json!({"audio_start_ms": start, "audio_end_ms": end, "item_id": item_id}),
        );
        let committed = self.input.commit(true);
        self.commit(now, item_id, committed);
        self.respond_to_turn(now);
    }

    /// Sets the idle prompt's deadline after a response.
    pub(super) fn arm_idle(&mut self, now: Instant) {
        if let Some(TurnDetection { kind: DetectionKind::Server { idle_timeout_ms: Some(ms), .. }, .. }) =
            self.config.turn_detection
        {
            self.idle_at = Some(self.playback_end.max(now) + std::time::Duration::from_millis(ms.into()));
        }
    }

    fn speech_started(&mut self, now: Instant, audio_start_ms: u64) {
        self.idle_at = None;
        self.totals.turns += 1;
        let item = self.fresh_id("item");
        self.turn_item = Some(item.clone());
        self.emit(
            "input_audio_buffer.speech_started",
            json!({"audio_start_ms": audio_start_ms, "item_id": item}),
        );
        let running = self.in_band_response();
        self.record(now, Record::SpeechStarted { item, audio_start_ms, interrupts: running.is_some() });
        let interrupt = self.config.turn_detection.as_ref().is_some_and(|d| d.interrupt_response);
        if let (true, Some(index)) = (interrupt, running) {
            self.cancel(now, index, "turn_detected");
        }
    }

    fn speech_stopped(&mut self, now: Instant, audio_end_ms: u64) {
        let item = self.turn_item.take().unwrap_or_else(|| self.fresh_id("item"));
        self.emit(
            "input_audio_buffer.speech_stopped",
            json!({"audio_end_ms": audio_end_ms, "item_id": item}),
        );
        self.record(now, Record::SpeechStopped { item: item.clone(), audio_end_ms });
        let committed = self.input.commit(false);
        self.commit(now, item, committed);
        if self.config.turn_detection.as_ref().is_some_and(|detection| detection.create_response) {
            self.respond_to_turn(now);
        }
    }

    /// A response of the service's own accord. It fails when one is running already.
    fn respond_to_turn(&mut self, now: Instant) {
        if let Err(error) = self.create_response(now, ResponseRequest::default()) {
            self.emit("error", json!({"error": error.to_json(None)}));
        }
    }

    fn commit(&mut self, now: Instant, item_id: String, committed: Committed) {
        let previous = self.conversation.last_id().map(str::to_owned);
        self.emit("input_audio_buffer.committed", json!({"previous_item_id": previous, "item_id": item_id}));
        self.keep_caller_audio(&item_id, &committed);
        let Committed { audio, rate } = committed;
        let samples = audio.len() as u64;
        let part = Part::InputAudio { samples, rate, transcript: None, audio: Some(audio) };
        let kind = ItemKind::Message { role: Role::User, parts: vec![part] };
        let item = Item { id: item_id.clone(), status: ItemStatus::Completed, kind };
        let body = json!({"previous_item_id": previous, "item": item.to_json()});
        self.conversation.push(item);
        self.emit("conversation.item.added", body.clone());
        self.emit("conversation.item.done", body);
        let number = self.caller_turns;
        self.caller_turns += 1;
        if self.config.transcription.is_some() {
            self.transcriptions.push_back(Transcription {
                due: now + self.behaviour.transcription_latency,
                item_id,
                text: self.behaviour.script.hears(number),
                seconds: samples as f64 / f64::from(rate),
                audio_tokens: Tokens::heard(samples, rate).audio,
            });
        }
    }

    /// Keeps the newest turn's samples and lets go of those before.
    fn keep_caller_audio(&mut self, item_id: &str, committed: &Committed) {
        let newest =
            CallerAudio { item_id: item_id.to_owned(), audio: committed.audio.clone(), rate: committed.rate };
        let Some(before) = self.caller_audio.replace(newest) else { return };
        if let Some(item) = self.conversation.get_mut(&before.item_id)
            && let ItemKind::Message { parts, .. } = &mut item.kind
            && let Some(Part::InputAudio { audio, .. }) = parts.first_mut()
        {
            *audio = None;
        }
    }

    fn transcribe(&mut self, transcription: Transcription) {
        let Transcription { item_id, text, seconds, audio_tokens, .. } = transcription;
        if self.faults.fail_transcription {
            let error = json!({"type": "server_error", "code": "transcription_failed", "param": null,
                "message": "Input transcription failed."});
            let body = json!({"item_id": item_id, "content_index": 0, "error": error});
            return self.emit("conversation.item.input_audio_transcription.failed", body);
        }
        let model = self.config.transcription.as_ref().and_then(|t| t["model"].as_str());
        let by_duration = model.is_some_and(|model| model.contains("whisper"));
        let deltas: Vec<&str> = match by_duration {
            true => vec![&text],
            false => text.split_inclusive(' ').collect(),
        };
        for delta in deltas {
            let body = json!({"item_id": item_id, "content_index": 0, "delta": delta});
            self.emit("conversation.item.input_audio_transcription.delta", body);
        }
        let usage = if by_duration {
            json!({"type": "duration", "seconds": seconds})
        } else {
            token_usage(&text, audio_tokens)
        };
        if let Some(item) = self.conversation.get_mut(&item_id)
            && let ItemKind::Message { parts, .. } = &mut item.kind
            && let Some(Part::InputAudio { transcript, .. }) = parts.first_mut()
        {
            *transcript = Some(text.clone());
        }
        let body = json!({"item_id": item_id, "content_index": 0, "transcript": text, "usage": usage});
        self.emit("conversation.item.input_audio_transcription.completed", body);
    }
}

fn token_usage(text: &str, audio_tokens: u64) -> Value {
    let output = Tokens::text(text).text;
    json!({
        "type": "tokens",
        "total_tokens": audio_tokens + output,
        "input_tokens": audio_tokens,
        "input_token_details": {"text_tokens": 0, "audio_tokens": audio_tokens},
        "output_tokens": output,
    })
}

/// The shortest turn a client may commit.
const COMMIT_MIN_MS: u64 = 100;
