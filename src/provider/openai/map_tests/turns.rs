//! Settings that change, and turns of the caller.

use super::*;

#[test]
fn an_update_sends_what_changes_and_nothing_else() {
    let mut talk = Talk::new();
    let update = |instructions: Option<&str>, language: Option<&str>, tools| Command::Update {
        instructions: instructions.map(str::to_owned),
        language: language.map(str::to_owned),
        tools,
    };
    talk.mapper.command(update(None, Some("de-AT"), None));
    assert_eq!(talk.sent(), Vec::<Value>::new(), "nobody writes down what the caller says");
    talk.mapper = std::mem::take(&mut talk.mapper).transcribed_by("gpt-transcribe");
    talk.mapper.command(update(None, Some("de-AT"), None));
    let tool = ToolSpec { name: "a".into(), description: "b".into(), parameters: json!({"type": "object"}) };
    talk.mapper.command(update(Some("Be brief."), None, Some([tool].into())));
    talk.mapper.command(update(None, None, None));
    let sent: Vec<_> = talk
        .sent()
        .into_iter()
        .map(|message| (message["type"].clone(), message["session"].clone()))
        .collect();
    assert_eq!(
        sent,
        [
            (
                "session.update".into(),
                json!({"type": "realtime", "audio": {"input": {"transcription":
                {"model": "gpt-transcribe", "language": "de"}}}})
            ),
            (
                "session.update".into(),
                json!({"type": "realtime", "instructions": "Be brief.", "tools": [
                {"type": "function", "name": "a", "description": "b", "parameters": {"type": "object"}}]})
            ),
        ]
    );
    // A response that has instructions of its own repeats the new ones.
    talk.mapper.command(Command::Respond { instructions: Some("Greet.".into()) });
    let response = talk.sent().remove(0);
    assert!(response["response"]["instructions"].as_str().unwrap().starts_with("Be brief."), "{response}");
}

// Turns of the caller.

#[test]
fn a_spoken_turn_becomes_its_events_in_order() {
    let mut talk = Talk::new();
    talk.service(json!({"type": "input_audio_buffer.speech_started", "event_id": "e1",
                        "audio_start_ms": 1200, "item_id": "u1"}));
    talk.service(json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 2400, "item_id": "u1"}));
    talk.service(json!({"type": "input_audio_buffer.committed", "previous_item_id": null, "item_id": "u1"}));
    talk.service(json!({"type": "conversation.item.added", "item": {"id": "u1", "type": "message",
                        "role": "user", "content": [{"type": "input_audio", "transcript": null}]}}));
    talk.service(json!({"type": "conversation.item.done", "item": {"id": "u1"}}));
    talk.response_created("r1");
    talk.service(json!({"type": "response.output_item.added", "response_id": "r1", "output_index": 0,
                        "item": {"id": "a1", "type": "message", "status": "in_progress", "content": []}}));
    talk.service(json!({"type": "response.content_part.added", "response_id": "r1", "item_id": "a1",
                        "part": {"type": "audio"}}));
    talk.words("r1", "a1", "Good ");
    talk.audio("r1", "a1", 20);
    talk.words("r1", "a1", "morning.");
    talk.audio_done("r1", "a1");
    talk.words_done("r1", "a1", "Good morning.");
    talk.service(json!({"type": "response.content_part.done", "item_id": "a1", "part": {"type": "audio"}}));
    talk.service(json!({"type": "response.output_item.done", "response_id": "r1",
                        "item": {"id": "a1", "type": "message", "status": "completed"}}));
    talk.response_done("r1", "completed");
    talk.service(json!({"type": "rate_limits.updated", "rate_limits": []}));
    assert_eq!(
        talk.events(),
        [
            Event::SpeechStarted { at_ms: 1200, item: Some("u1".into()) },
            Event::SpeechStopped { at_ms: 2400, item: Some("u1".into()) },
            Event::TurnStarted,
            partial(Speaker::Assistant, "a1", "Good "),
            pcm("a1", 20),
            partial(Speaker::Assistant, "a1", "Good morning."),
            Event::AudioDone { item: "a1".into() },
            last(Speaker::Assistant, "a1", "Good morning."),
            turn_done(TurnStatus::Completed),
        ]
    );
    assert_eq!(talk.sent(), Vec::<Value>::new());
    assert_eq!(talk.mapper.unknown_events(), 0);
    assert_eq!(talk.mapper.audio_received_ms(), 20);
}

#[test]
fn the_callers_words_may_come_at_any_time_and_add_up() {
    let mut talk = Talk::new();
    let transcription = "conversation.item.input_audio_transcription";
    talk.response_created("r1");
    talk.service(json!({"type": format!("{transcription}.delta"), "item_id": "u1", "content_index": 0,
                        "delta": "My name"}));
    talk.audio("r1", "a1", 20);
    talk.service(json!({"type": format!("{transcription}.delta"), "item_id": "u2", "delta": "Hm"}));
    talk.service(json!({"type": format!("{transcription}.delta"), "item_id": "u1", "delta": " is"}));
    talk.service(json!({"type": format!("{transcription}.segment"), "item_id": "u1", "text": "x"}));
    talk.service(json!({"type": format!("{transcription}.completed"), "item_id": "u1",
                        "transcript": "My name is Ann.", "usage": {"type": "duration", "seconds": 2}}));
    let words: Vec<Event> = talk.events().into_iter().filter(is_words).collect();
    assert_eq!(
        words,
        [
            partial(Speaker::Caller, "u1", "My name"),
            partial(Speaker::Caller, "u2", "Hm"),
            partial(Speaker::Caller, "u1", "My name is"),
            last(Speaker::Caller, "u1", "My name is Ann."),
        ]
    );
}

#[test]
fn a_failed_transcription_is_a_warning_and_no_line() {
    let mut talk = Talk::new();
    talk.service(json!({"type": "conversation.item.input_audio_transcription.failed", "item_id": "u1",
                        "error": {"type": "transcription_error", "code": "audio_unintelligible"}}));
    assert_eq!(talk.warnings(), ["transcription_failed"]);
}

#[test]
fn the_services_clock_is_moved_by_audio_it_never_got() {
    let mut talk = Talk::new();
    talk.mapper.audio_dropped(500);
    talk.service(json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 1000.0}));
    assert_eq!(talk.events(), [Event::SpeechStarted { at_ms: 1500, item: None }]);
}
