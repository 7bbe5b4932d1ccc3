//! The traps of the protocol, one test each: JSON in, events and messages out.

mod always;
mod barge_in;
mod ends;
mod responses;
mod turns;

use super::*;
use crate::provider::{Tokens, Usage};
use serde_json::{Value, json};

fn say_hello() -> Command {
    Command::Say("Hello.".into())
}

/// A session and both ends of it.
struct Talk {
    mapper: Mapper,
}

impl Talk {
    fn new() -> Self {
        Self::with_instructions("")
    }

    fn with_instructions(instructions: &str) -> Self {
        Self { mapper: Mapper::new(instructions.into(), "m".into()) }
    }

    fn service(&mut self, event: Value) {
        self.mapper.handle_text(&event.to_string());
    }

    fn command(&mut self, command: Command) {
        self.mapper.command(command);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.mapper.poll_event()).collect()
    }

    fn warnings(&mut self) -> Vec<String> {
        let code = |event| match event {
            Event::Warning { code, .. } => Some(code),
            _ => None,
        };
        self.events().into_iter().filter_map(code).collect()
    }

    /// What was sent since, without the event ids.
    fn sent(&mut self) -> Vec<Value> {
        let mut sent = self.sent_raw();
        for message in &mut sent {
            let id = message.as_object_mut().and_then(|message| message.remove("event_id"));
            assert!(id.is_some_and(|id| id.as_str().is_some_and(|id| id.starts_with("tandem_"))));
        }
        sent
    }

    fn sent_raw(&mut self) -> Vec<Value> {
        let messages = std::iter::from_fn(|| self.mapper.poll_message());
        messages.map(|json| serde_json::from_str(&json).unwrap()).collect()
    }

    fn kinds_sent(&mut self) -> Vec<String> {
        self.sent().iter().map(|message| message["type"].as_str().unwrap().to_owned()).collect()
    }

    fn speech_started(&mut self) {
        self.service(json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 5000,
                            "item_id": "u"}));
    }

    fn response_created(&mut self, id: &str) {
        self.service(json!({"type": "response.created", "response": {"id": id, "status": "in_progress",
                            "status_details": null, "output": [], "usage": null}}));
    }

    fn response_done(&mut self, id: &str, status: &str) {
        self.service(
            json!({"type": "response.done", "response": {"id": id, "status": status, "output": []}}),
        );
    }

    fn audio(&mut self, response: &str, item: &str, ms: usize) {
        self.service(json!({"type": "response.output_audio.delta", "response_id": response, "item_id": item,
                            "output_index": 0, "content_index": 0, "delta": base64(ms)}));
    }

    fn audio_done(&mut self, response: &str, item: &str) {
        self.service(json!({"type": "response.output_audio.done", "response_id": response, "item_id": item,
                            "output_index": 0, "content_index": 0}));
    }

    fn words(&mut self, response: &str, item: &str, delta: &str) {
        self.service(json!({"type": "response.output_audio_transcript.delta", "response_id": response,
                            "item_id": item, "content_index": 0, "delta": delta}));
    }

    fn words_done(&mut self, response: &str, item: &str, transcript: &str) {
        self.service(json!({"type": "response.output_audio_transcript.done", "response_id": response,
                            "item_id": item, "content_index": 0, "transcript": transcript}));
    }

    fn tool_call(&mut self, response: &str, call: &str, name: &str, arguments: &str) {
        self.service(json!({"type": "response.function_call_arguments.delta", "response_id": response,
                            "item_id": call, "call_id": call, "delta": arguments}));
        self.service(json!({"type": "response.function_call_arguments.done", "response_id": response,
                            "item_id": call, "call_id": call, "name": name, "arguments": arguments}));
    }

    fn truncate(&mut self, item: &str, audio_end_ms: u32) {
        self.command(Command::Truncate { item: item.into(), audio_end_ms });
    }
}

fn base64(ms: usize) -> String {
    base64_simd::STANDARD.encode_to_string(vec![0; ms * 48])
}

fn pcm(item: &str, ms: usize) -> Event {
    Event::Audio { item: item.into(), pcm: vec![0; ms * 24] }
}

fn partial(who: Speaker, item: &str, text: &str) -> Event {
    Event::TranscriptPartial { who, item: item.into(), text: text.into() }
}

fn last(who: Speaker, item: &str, text: &str) -> Event {
    Event::TranscriptFinal { who, item: item.into(), text: text.into() }
}

fn is_words(event: &Event) -> bool {
    matches!(event, Event::TranscriptPartial { .. } | Event::TranscriptFinal { .. })
}

fn turn_done(status: TurnStatus) -> Event {
    Event::TurnDone { status }
}

fn result(call: &str, respond: bool) -> Command {
    Command::ToolResult { id: call.into(), output: "42".into(), ok: true, respond }
}
