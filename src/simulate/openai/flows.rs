//! Whole conversations with the core, in virtual time: the order of events, what is refused, and what
//! each fault does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fault::{Fault, SessionFaults};
use super::record::Record;
use super::script::Script;
use super::session::{Behaviour, Output, RealtimeSession, SessionSetup};
use super::speech::SpeechLibrary;

#[test]
fn a_session_greets_only_when_asked_and_in_the_documented_order() {
    let mut talk = Talk::start();
    assert_eq!(talk.types(), ["session.created"]);
    talk.pass(10_000);
    assert_eq!(talk.types(), [""; 0]);
    talk.send(json!({"type": "response.create"}));
    talk.pass(150);
    let events = talk.events();
    assert_eq!(
        kinds(&events)[..6],
        [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
        ]
    );
    assert_eq!(events[1]["item"]["status"], "in_progress");
    assert_eq!(events[2]["item"]["content"], json!([]));
    talk.pass(10_000);
    let kinds = talk.types();
    assert_eq!(
        kinds[kinds.len() - 7..],
        [
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
        ]
    );
}

#[test]
fn a_spoken_turn_runs_from_speech_start_to_the_answer() {
    let mut talk = Talk::start();
    talk.send(json!({"type": "session.update", "session": {"type": "realtime",
        "audio": {"input": {"transcription": {"model": "gpt-transcribe"}}}}}));
    talk.hear(1_000, QUIET);
    talk.hear(1_000, LOUD);
    talk.events();
    talk.hear(500, QUIET);
    let stop = talk.events();
    assert_eq!(
        kinds(&stop),
        [
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
        ]
    );
    assert_eq!(stop[0]["audio_end_ms"], 2_500);
    assert_eq!(stop[1]["item_id"], stop[0]["item_id"]);
    assert_eq!(stop[2]["item"]["content"][0], json!({"type": "input_audio", "transcript": null}));
    talk.pass(10_000);
    let rest = talk.events();
    let place = |kind: &str| kinds(&rest).iter().position(|k| *k == kind).unwrap();
    let completed = place("conversation.item.input_audio_transcription.completed");
    assert!(completed > place("response.output_audio.delta"), "the transcript comes during the answer");
    assert_eq!(rest[completed]["transcript"], "simulated words of caller turn 1");
    assert_eq!(rest[completed]["usage"]["type"], "tokens");
    let usage = &rest[place("response.done")]["response"]["usage"];
    assert_eq!(usage["output_token_details"]["audio_tokens"], 4_000 / 50);
    assert_eq!(usage["input_token_details"]["audio_tokens"], 18);
}

#[test]
fn speech_starts_on_the_clock_of_audio_written() {
    let mut talk = Talk::start();
    talk.hear(1_000, QUIET);
    talk.pass(60_000);
    talk.hear(1_000, LOUD);
    let events = talk.events();
    let started = events.iter().find(|e| e["type"] == "input_audio_buffer.speech_started").unwrap();
    assert_eq!(started["audio_start_ms"], 700);
    talk.pass(60_000);
    assert_eq!(talk.types(), [""; 0], "without audio the silence is never seen");
}

#[test]
fn a_barge_in_cancels_what_is_being_generated_after_late_deltas() {
    let mut talk = Talk::with(|behaviour| behaviour.speed = 1.0);
    talk.send(json!({"type": "response.create"}));
    talk.pass(1_000);
    talk.events();
    talk.hear(60, LOUD);
    let events = talk.events();
    let started = kinds(&events).iter().position(|k| *k == "input_audio_buffer.speech_started").unwrap();
    let after: Vec<_> = kinds(&events[started + 1..]);
    let deltas = after.iter().filter(|kind| **kind == "response.output_audio.delta").count();
    assert_eq!(deltas, 2);
    let tail = after.iter().position(|kind| *kind == "response.output_audio.done").unwrap();
    assert_eq!(
        after[tail..],
        [
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
        ]
    );
    let done = &events[started + 1 + tail + 5]["response"];
    assert_eq!(done["status"], "cancelled");
    assert_eq!(done["status_details"], json!({"type": "cancelled", "reason": "turn_detected"}));
    assert_eq!(done["output"][0]["status"], "incomplete");
}

#[test]
fn without_interrupt_response_the_answer_goes_on_and_the_turn_gets_an_error() {
    let mut talk = Talk::with(|behaviour| behaviour.speed = 1.0);
    talk.send(json!({"type": "session.update", "session": {"type": "realtime", "audio": {"input":
        {"turn_detection": {"type": "server_vad", "interrupt_response": false}}}}}));
    talk.send(json!({"type": "response.create"}));
    talk.pass(500);
    talk.hear(300, LOUD);
    talk.hear(500, QUIET);
    let events = talk.events();
    assert!(!kinds(&events).contains(&"response.done"));
    let error = events.iter().find(|e| e["type"] == "error").unwrap();
    assert_eq!(error["error"]["code"], "conversation_already_has_active_response");
    talk.send(json!({"type": "response.cancel"}));
    let events = talk.events();
    let done = events.iter().find(|e| e["type"] == "response.done").unwrap();
    assert_eq!(done["response"]["status_details"]["reason"], "client_cancelled");
    talk.send(json!({"type": "response.cancel", "event_id": "c2"}));
    let error = &talk.events()[0]["error"];
    assert_eq!(
        (error["code"].as_str(), error["event_id"].as_str()),
        (Some("response_cancel_not_active"), Some("c2"))
    );
    assert_eq!(talk.violations(), [""; 0], "losing the race is no violation");
}

#[test]
fn truncation_is_checked_against_what_was_generated() {
    let mut talk = Talk::start();
    talk.send(json!({"type": "response.create"}));
    talk.pass(10_000);
    let item = talk.assistant_item();
    talk.send(truncate(&item, json!(4_001)));
    assert_eq!(talk.error()["message"], "Audio content of 4000ms is already shorter than 4001ms");
    talk.send(truncate(&item, json!(1_280.5)));
    assert_eq!(talk.error()["code"], "invalid_type");
    talk.send(truncate("item_nobody", json!(0)));
    assert_eq!(talk.error()["code"], "item_truncate_invalid_item_id");
    talk.send(truncate(&item, json!(1_280)));
    let truncated = &talk.events()[0];
    assert_eq!(truncated["type"], "conversation.item.truncated");
    assert_eq!(truncated["audio_end_ms"], 1_280);
    let expected = Record::Truncation { item, audio_end_ms: 1_280, generated_ms: 4_000 };
    assert!(talk.records().contains(&expected));
}

#[test]
fn truncating_before_any_audio_is_unsupported() {
    let mut talk = Talk::with(|behaviour| behaviour.script = script("[[turn]]\ntool = { name = \"f\" }"));
    talk.send(json!({"type": "response.create"}));
    talk.pass(1_000);
    let call = talk.assistant_item();
    talk.send(truncate(&call, json!(0)));
    let error = talk.error();
    assert_eq!(error["code"], "unsupported_content_type");
    assert_eq!(error["message"], "Only model output audio messages can be truncated");
}

#[test]
fn a_tool_call_comes_after_the_speech_and_continues_with_its_output() {
    let text = "[[turn]]\nsay = \"One moment.\"\ntool = { name = \"lookup\", arguments = { table = 4 } }\n\
                [[turn]]\nsay = \"It is free.\"";
    let mut talk = Talk::with(|behaviour| behaviour.script = script(text));
    talk.send(json!({"type": "response.create"}));
    talk.pass(10_000);
    let events = talk.events();
    let added: Vec<_> = events.iter().filter(|e| e["type"] == "response.output_item.added").collect();
    assert_eq!((added[0]["output_index"].as_u64(), added[1]["output_index"].as_u64()), (Some(0), Some(1)));
    let from = events.iter().position(|e| e == added[1]).unwrap();
    assert_eq!(
        kinds(&events[from..]),
        [
            "response.output_item.added",
            "conversation.item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
        ]
    );
    let done = &events[from + 3];
    assert_eq!((done["name"].as_str(), done["arguments"].as_str()), (Some("lookup"), Some(r#"{"table":4}"#)));
    let output = |call: &Value| {
        json!({"type": "conversation.item.create",
            "item": {"type": "function_call_output", "call_id": call, "output": "{\"free\":true}"}})
    };
    talk.send(output(&"call_nobody".into()));
    assert_eq!(talk.error()["code"], "invalid_tool_call_id");
    talk.send(output(&done["call_id"]));
    talk.pass(10_000);
    assert_eq!(talk.types(), ["conversation.item.added", "conversation.item.done"], "silent until asked");
    talk.send(json!({"type": "response.create"}));
    talk.pass(10_000);
    let events = talk.events();
    let words = events.iter().find(|e| e["type"] == "response.output_audio_transcript.done").unwrap();
    assert_eq!(words["transcript"], "It is free.");
    assert!(talk.records().iter().any(|r| matches!(r, Record::ToolAnswered { .. })));
}

#[test]
fn a_second_response_is_refused_while_one_is_active_unless_out_of_band() {
    let mut talk = Talk::start();
    talk.send(json!({"type": "response.create"}));
    talk.events();
    talk.send(json!({"type": "response.create", "event_id": "mine"}));
    let error = talk.error();
    assert_eq!(error["code"], "conversation_already_has_active_response");
    assert_eq!(error["event_id"], "mine");
    assert_eq!(talk.violations(), ["conversation_already_has_active_response"]);
    talk.send(json!({"type": "response.create",
        "response": {"conversation": "none", "output_modalities": ["text"], "metadata": {"k": "v"}}}));
    talk.pass(10_000);
    let events = talk.events();
    let done: Vec<_> = events.iter().filter(|e| e["type"] == "response.done").collect();
    let aside = done.iter().find(|e| e["response"]["conversation_id"].is_null()).unwrap();
    assert_eq!(aside["response"]["metadata"], json!({"k": "v"}));
    assert_eq!(aside["response"]["output"][0]["content"][0]["type"], "output_text");
    let added = events.iter().filter(|e| e["type"] == "conversation.item.added").count();
    assert_eq!(added, 1, "the out-of-band item is not in the conversation");
}

#[test]
fn manual_turns_need_a_commit_of_100_ms_and_an_explicit_response() {
    let mut talk = Talk::start();
    talk.send(json!({"type": "session.update",
        "session": {"type": "realtime", "audio": {"input": {"turn_detection": null}}}}));
    talk.events();
    talk.hear(80, LOUD);
    talk.send(json!({"type": "input_audio_buffer.commit"}));
    assert_eq!(talk.error()["code"], "input_audio_buffer_commit_empty");
    talk.hear(1_000, LOUD);
    talk.send(json!({"type": "input_audio_buffer.commit"}));
    talk.pass(10_000);
    let committed = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"];
    assert_eq!(talk.types(), committed);
    talk.hear(1_000, LOUD);
    talk.send(json!({"type": "input_audio_buffer.clear"}));
    talk.send(json!({"type": "input_audio_buffer.commit"}));
    assert_eq!(talk.types(), ["input_audio_buffer.cleared", "error"]);
}

#[test]
fn g711_goes_in_and_comes_out_at_a_byte_a_sample() {
    let mut talk = Talk::start();
    talk.send(json!({"type": "session.update", "session": {"type": "realtime", "audio": {
        "input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcma"}}}}}));
    talk.events();
    let (loud, quiet) = (audio_frame(&[0x10; 160]), audio_frame(&[0xff; 160]));
    for frame in [&quiet; 50].into_iter().chain([&loud; 50]).chain([&quiet; 25]) {
        talk.send(frame.clone());
        talk.pass(20);
    }
    talk.pass(10_000);
    let events = talk.events();
    assert_eq!(events[0]["audio_start_ms"], 700);
    let bytes: usize = events
        .iter()
        .filter(|e| e["type"] == "response.output_audio.delta")
        .map(|e| base64_simd::STANDARD.decode_to_vec(e["delta"].as_str().unwrap()).unwrap().len())
        .sum();
    assert_eq!(bytes, 4_000 * 8);
}

#[test]
fn a_format_that_changes_after_audio_is_a_violation() {
    let mut talk = Talk::start();
    talk.hear(20, QUIET);
    talk.send(json!({"type": "session.update",
        "session": {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}}));
    assert_eq!(talk.violations(), ["append_before_format"]);
}

#[test]
fn audio_comes_at_the_configured_multiple_of_real_time() {
    for (speed, ms) in [(4.0, 1_000), (1.0, 4_000), (f64::INFINITY, 0)] {
        let mut talk = Talk::with(|behaviour| {
            behaviour.speed = speed;
            behaviour.response_latency = Duration::ZERO;
        });
        talk.send(json!({"type": "response.create"}));
        let begun = talk.now;
        while !talk.types().contains(&"response.done".to_owned()) {
            talk.now = talk.session.next_timeout().unwrap();
            talk.session.handle_timeout(talk.now);
        }
        assert_eq!((talk.now - begun).as_millis(), ms, "at {speed}");
    }
}

#[test]
fn items_are_created_shown_and_deleted() {
    let mut talk = Talk::start();
    talk.events();
    let message = |id: &str| {
        json!({"type": "conversation.item.create", "item": {"id": id, "type": "message", "role": "user",
            "content": [{"type": "input_text", "text": "Hello"}]}})
    };
    talk.send(message("item_a"));
    let events = talk.events();
    assert_eq!(kinds(&events), ["conversation.item.added", "conversation.item.done"]);
    assert_eq!(events[0]["item"]["object"], "realtime.item");
    talk.send(message("item_a"));
    assert_eq!(talk.error()["code"], "item_create_duplicate_item_id");
    talk.send(json!({"type": "conversation.item.retrieve", "item_id": "item_a"}));
    assert_eq!(talk.events()[0]["item"]["content"][0]["text"], "Hello");
    talk.send(json!({"type": "conversation.item.delete", "item_id": "item_a"}));
    assert_eq!(talk.types(), ["conversation.item.deleted"]);
    talk.send(json!({"type": "conversation.item.delete", "item_id": "item_a"}));
    assert_eq!(talk.error()["code"], "item_delete_invalid_item_id");
}

#[test]
fn assistant_audio_can_be_retrieved_as_far_as_it_was_not_truncated() {
    let mut talk = Talk::start();
    talk.send(json!({"type": "response.create"}));
    talk.pass(10_000);
    let item = talk.assistant_item();
    talk.send(truncate(&item, json!(500)));
    talk.events();
    talk.send(json!({"type": "conversation.item.retrieve", "item_id": item}));
    let events = talk.events();
    let part = &events[0]["item"]["content"][0];
    assert_eq!(part["transcript"], Value::Null);
    let audio = base64_simd::STANDARD.decode_to_vec(part["audio"].as_str().unwrap()).unwrap();
    assert_eq!(audio.len(), 500 * 48);
}

#[test]
fn a_quoted_text_in_a_responses_own_instructions_is_said() {
    let mut talk = Talk::start();
    talk.send(json!({"type": "response.create",
        "response": {"instructions": "Say exactly this: \"Please hold the line.\""}}));
    talk.pass(10_000);
    let events = talk.events();
    let words = events.iter().find(|e| e["type"] == "response.output_audio_transcript.done").unwrap();
    assert_eq!(words["transcript"], "Please hold the line.");
}

#[test]
fn a_silent_caller_is_prompted_after_playback_and_the_idle_timeout() {
    let mut talk = Talk::start();
    talk.send(json!({"type": "session.update", "session": {"type": "realtime", "audio": {"input":
        {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000}}}}}));
    talk.send(json!({"type": "response.create"}));
    let begun = talk.now;
    talk.hear(9_000, QUIET);
    talk.events();
    while !talk.types().contains(&"input_audio_buffer.timeout_triggered".to_owned()) {
        talk.hear(20, QUIET);
    }
    let waited = (talk.now - begun).as_millis();
    assert!((10_150..10_200).contains(&waited), "{waited} ms: latency, 4 s of playback, 6 s of silence");
}

#[test]
fn usage_counts_the_whole_conversation_again_and_caches_its_prefix() {
    let mut talk = Talk::with(|behaviour| behaviour.speed = f64::INFINITY);
    let long = "instructions ".repeat(100);
    talk.send(json!({"type": "session.update", "session": {"type": "realtime", "instructions": long}}));
    let mut usages = Vec::new();
    for _ in 0..2 {
        talk.send(json!({"type": "response.create"}));
        talk.pass(1_000);
        let events = talk.events();
        let done = events.iter().find(|e| e["type"] == "response.done").unwrap();
        usages.push(done["response"]["usage"].clone());
    }
    assert_eq!(usages[0]["input_token_details"]["cached_tokens"], 0);
    assert_eq!(usages[1]["input_token_details"]["cached_tokens"], 320);
    assert_eq!(usages[1]["input_token_details"]["audio_tokens"], 80);
    let (input, output) = (usages[1]["input_tokens"].as_u64(), usages[1]["output_tokens"].as_u64());
    assert_eq!(usages[1]["total_tokens"].as_u64(), input.zip(output).map(|(i, o)| i + o));
}

#[test]
fn max_output_tokens_leaves_a_response_incomplete() {
    let mut talk = Talk::start();
    talk.send(json!({"type": "response.create", "response": {"max_output_tokens": 20}}));
    talk.pass(10_000);
    let events = talk.events();
    let done = &events.iter().find(|e| e["type"] == "response.done").unwrap()["response"];
    assert_eq!(done["status"], "incomplete");
    assert_eq!(done["status_details"]["reason"], "max_output_tokens");
}

#[test]
fn a_session_expires_with_an_error_and_a_close() {
    let mut talk = Talk::start();
    talk.pass(3_600_000);
    let outputs = talk.outputs();
    let Some(Output::Close { code, reason }) = outputs.last() else { panic!("no close") };
    assert_eq!(*code, 1001);
    assert_eq!(reason, "Your session hit the maximum duration of 60 minutes.");
    let Output::Text(error) = &outputs[outputs.len() - 2] else { panic!("no error") };
    assert!(error.contains("session_expired"));
}

#[test]
fn the_voice_is_fixed_once_there_was_audio() {
    let mut talk = Talk::start();
    let voice = |name: &str| {
        json!({"type": "session.update",
            "session": {"type": "realtime", "audio": {"output": {"voice": name}}}})
    };
    talk.send(voice("cedar"));
    talk.send(json!({"type": "response.create"}));
    talk.pass(10_000);
    talk.events();
    talk.send(voice("marin"));
    assert_eq!(talk.error()["code"], "cannot_update_voice");
}

#[test]
fn faults_of_the_stream_do_what_they_say() {
    let mut talk = Talk::faulty(Fault::Stall(2));
    talk.send(json!({"type": "response.create"}));
    talk.pass(10_000);
    assert!(talk.types().contains(&"response.done".to_owned()));
    talk.send(json!({"type": "response.create"}));
    talk.pass(60_000);
    assert_eq!(talk.types(), [""; 0]);

    let mut talk = Talk::faulty(Fault::GiantDelta);
    talk.send(json!({"type": "response.create"}));
    talk.pass(10_000);
    let deltas = talk.types().iter().filter(|k| *k == "response.output_audio.delta").count();
    assert_eq!(deltas, 1);

    let mut talk = Talk::faulty(Fault::SlowDrip(0.5));
    talk.send(json!({"type": "response.create"}));
    talk.pass(150 + 7_000);
    assert!(!talk.types().contains(&"response.done".to_owned()), "4 s of audio take 8 s");
    talk.pass(1_000);
    assert!(talk.types().contains(&"response.done".to_owned()));

    let mut talk = Talk::faulty(Fault::DieAfterDeltas(3));
    talk.send(json!({"type": "response.create"}));
    talk.pass(10_000);
    assert_eq!(talk.outputs().last(), Some(&Output::Reset));

    let mut talk = Talk::faulty(Fault::InvalidJson);
    talk.send(json!({"type": "response.create"}));
    let broken = talk.outputs().into_iter().filter(|output| match output {
        Output::Text(text) => serde_json::from_str::<Value>(text).is_err(),
        _ => false,
    });
    assert_eq!(broken.count(), 1);

    let mut talk = Talk::faulty(Fault::UnknownEvents);
    talk.send(json!({"type": "response.create"}));
    assert!(talk.types().contains(&"response.premonition".to_owned()));

    let mut talk = Talk::faulty(Fault::InvalidApiKey);
    let outputs = talk.outputs();
    assert!(matches!(&outputs[0], Output::Text(text) if text.contains("invalid_api_key")));
    assert!(matches!(outputs[1], Output::Close { code: 3000, .. }));

    let mut talk = Talk::faulty(Fault::FailResponses);
    talk.send(json!({"type": "response.create"}));
    talk.pass(1_000);
    let events = talk.events();
    let done = &events.iter().find(|e| e["type"] == "response.done").unwrap()["response"];
    assert_eq!(done["status"], "failed");
    assert_eq!(done["status_details"]["error"]["code"], "server_error");
}

#[test]
fn the_same_seed_gives_the_same_session() {
    let run = || {
        let mut talk = Talk::start();
        talk.send(json!({"type": "response.create"}));
        talk.pass(10_000);
        talk.outputs()
    };
    assert_eq!(run(), run());
}

/// A client in virtual time.
struct Talk {
    session: RealtimeSession,
    now: Instant,
    records: Vec<Record>,
}

const LOUD: i16 = 5_000;
const QUIET: i16 = 0;

impl Talk {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Behaviour)) -> Self {
        let mut behaviour = Behaviour::default();
        change(&mut behaviour);
        Self::new(behaviour, SessionFaults::default())
    }

    fn faulty(fault: Fault) -> Self {
        Self::new(Behaviour::default(), SessionFaults::of(&[fault]))
    }

    fn new(behaviour: Behaviour, faults: SessionFaults) -> Self {
        let now = Instant::now();
        let setup = SessionSetup {
            model: "gpt-realtime-2.1".into(),
            seed: 7,
            unix_seconds: 1_790_000_000,
            behaviour: Arc::new(behaviour),
            library: Arc::new(SpeechLibrary::default()),
            faults,
            refusal: None,
        };
        Self { session: RealtimeSession::new(setup, now), now, records: Vec::new() }
    }

    fn send(&mut self, event: Value) {
        self.session.receive(self.now, &event.to_string());
    }

    /// Lets time go by, deadline by deadline.
    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.session.next_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.session.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// Appends a square wave in real time.
    fn hear(&mut self, ms: u64, amplitude: i16) {
        let sample = |n: usize| if n % 40 < 20 { amplitude } else { -amplitude };
        let bytes: Vec<u8> = (0..480).flat_map(|n| sample(n).to_le_bytes()).collect();
        let frame = audio_frame(&bytes);
        for _ in 0..ms / 20 {
            self.pass(20);
            self.send(frame.clone());
        }
    }

    fn outputs(&mut self) -> Vec<Output> {
        while let Some((_, record)) = self.session.poll_record() {
            self.records.push(record);
        }
        std::iter::from_fn(|| self.session.poll()).collect()
    }

    fn events(&mut self) -> Vec<Value> {
        let texts = self.outputs().into_iter().filter_map(|output| match output {
            Output::Text(text) | Output::Audio { text, .. } => Some(text),
            Output::Close { .. } | Output::Reset => None,
        });
        texts.map(|text| serde_json::from_str(&text).unwrap()).collect()
    }

    fn types(&mut self) -> Vec<String> {
        self.events().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    fn error(&mut self) -> Value {
        let events = self.events();
        events.into_iter().find(|event| event["type"] == "error").expect("no error event")["error"].clone()
    }

    fn assistant_item(&mut self) -> String {
        let events = self.events();
        let added = events.iter().rfind(|e| e["type"] == "response.output_item.added").unwrap();
        added["item"]["id"].as_str().unwrap().to_owned()
    }

    fn records(&mut self) -> &[Record] {
        self.outputs();
        &self.records
    }

    fn violations(&mut self) -> Vec<String> {
        let codes = self.records().iter().filter_map(|record| match record {
            Record::Violation { code, harmless: false, .. } => Some(code.clone()),
            _ => None,
        });
        codes.collect()
    }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn audio_frame(bytes: &[u8]) -> Value {
    json!({"type": "input_audio_buffer.append", "audio": base64_simd::STANDARD.encode_to_string(bytes)})
}

fn truncate(item: &str, ms: Value) -> Value {
    json!({"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": ms})
}

fn script(text: &str) -> Script {
    Script::parse(text).unwrap()
}
