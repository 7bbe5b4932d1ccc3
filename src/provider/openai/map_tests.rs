//! The traps of the protocol, one test each: JSON in, events and messages out.

use super::*;
use crate::provider::{Tokens, Usage};
use serde_json::{Value, json};

// Going on with other settings.

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

// Barge-in.

#[test]
fn late_deltas_of_an_interrupted_response_are_dropped() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.audio("r1", "a1", 40);
    talk.speech_started();
    talk.events();
    talk.audio("r1", "a1", 40);
    talk.audio("r1", "a2", 40);
    talk.words("r1", "a1", "late");
    assert_eq!(talk.events(), []);
    talk.audio_done("r1", "a1");
    talk.response_done("r1", "cancelled");
    assert_eq!(
        talk.events(),
        [
            Event::AudioDone { item: "a1".into() },
            last(Speaker::Assistant, "a1", "late"),
            turn_done(TurnStatus::Cancelled),
        ]
    );
    talk.response_created("r2");
    talk.audio("r2", "a3", 20);
    assert_eq!(talk.events(), [Event::TurnStarted, pcm("a3", 20)]);
}

#[test]
fn late_deltas_of_a_truncated_item_are_dropped_and_others_are_not() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.audio("r1", "a1", 100);
    talk.truncate("a1", 60);
    talk.audio("r1", "a1", 100);
    talk.audio("r1", "a2", 20);
    assert_eq!(talk.events(), [Event::TurnStarted, pcm("a1", 100), pcm("a2", 20)]);
}

#[test]
fn a_cut_item_still_gets_all_its_words() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.words("r1", "a1", "one two");
    talk.audio("r1", "a1", 100);
    talk.speech_started();
    talk.truncate("a1", 60);
    talk.events();
    talk.words_done("r1", "a1", "one two three");
    assert_eq!(talk.events(), [last(Speaker::Assistant, "a1", "one two three")]);
    talk.response_done("r1", "cancelled");
    let end = [Event::AudioDone { item: "a1".into() }, turn_done(TurnStatus::Cancelled)];
    assert_eq!(talk.events(), end, "words are told once");
}

#[test]
fn truncation_names_what_was_heard_of_what_came() {
    // (ms received, whether complete, ms heard) -> the message, if any
    let truncated = |ms: u32| {
        Some(json!({"type": "conversation.item.truncate", "item_id": "a1", "content_index": 0,
                    "audio_end_ms": ms}))
    };
    let deleted = Some(json!({"type": "conversation.item.delete", "item_id": "a1"}));
    for (received_ms, complete, heard_ms, expected) in [
        (1000, true, 440, truncated(440)),
        (1000, true, 1000, None),
        (1000, true, 1020, None),
        (1000, false, 1020, truncated(1000)),
        (1000, true, 0, deleted),
        (0, false, 0, None),
        (0, false, 200, None),
    ] {
        let mut talk = Talk::new();
        talk.response_created("r1");
        if received_ms > 0 {
            talk.audio("r1", "a1", received_ms);
        }
        if complete {
            talk.audio_done("r1", "a1");
            talk.response_done("r1", "completed");
        }
        talk.speech_started();
        talk.truncate("a1", heard_ms);
        talk.truncate("a1", heard_ms);
        let expected: Vec<Value> = expected.into_iter().collect();
        assert_eq!(talk.sent(), expected, "{heard_ms} of {received_ms}, complete: {complete}");
    }
}

#[test]
fn each_item_of_a_response_is_counted_on_its_own() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.audio("r1", "a1", 300);
    talk.audio_done("r1", "a1");
    talk.audio("r1", "a2", 500);
    talk.speech_started();
    talk.truncate("a1", 300);
    talk.truncate("a2", 900);
    let sent = talk.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((&sent[0]["item_id"], &sent[0]["audio_end_ms"]), (&json!("a2"), &json!(500)));
}

#[test]
fn truncation_names_the_part_that_held_the_audio() {
    let mut talk = Talk::new();
    talk.service(json!({"type": "response.output_audio.delta", "response_id": "r1", "item_id": "a1",
                        "output_index": 0, "content_index": 1, "delta": base64(100)}));
    talk.truncate("a1", 50);
    assert_eq!(talk.sent()[0]["content_index"], 1);
}

#[test]
fn speech_of_the_caller_cancels_nothing_that_the_service_cancels_itself() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.audio("r1", "a1", 100);
    talk.speech_started();
    talk.command(Command::CancelResponse);
    assert_eq!(talk.sent(), Vec::<Value>::new());
}

#[test]
fn cancelling_without_a_response_sends_nothing() {
    let mut talk = Talk::new();
    talk.command(Command::CancelResponse);
    talk.response_created("r1");
    talk.response_done("r1", "completed");
    talk.command(Command::CancelResponse);
    assert_eq!(talk.sent(), Vec::<Value>::new());
}

#[test]
fn a_cancelled_response_is_silent_at_once() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.command(Command::CancelResponse);
    assert_eq!(talk.sent(), [json!({"type": "response.cancel"})]);
    talk.audio("r1", "a1", 100);
    talk.response_done("r1", "cancelled");
    assert_eq!(talk.events(), [Event::TurnStarted, turn_done(TurnStatus::Cancelled)]);
}

// Asking for responses.

#[test]
fn a_greeting_keeps_the_persona() {
    let mut talk = Talk::with_instructions("You are Ann.");
    talk.command(Command::Respond { instructions: Some("Greet the caller.".into()) });
    assert_eq!(
        talk.sent(),
        [json!({"type": "response.create",
                "response": {"instructions": "You are Ann.\n\nGreet the caller."}})]
    );
}

#[test]
fn words_to_say_are_quoted_and_call_no_tools() {
    let mut talk = Talk::new();
    talk.command(Command::Say("Please hold.".into()));
    let sent = talk.sent();
    let response = &sent[0]["response"];
    assert!(response["instructions"].as_str().unwrap().contains("\nPlease hold.\n"));
    assert_eq!(response["tool_choice"], "none");
}

#[test]
fn a_callers_text_joins_the_conversation_without_a_response() {
    let mut talk = Talk::new();
    talk.command(Command::CallerText("The caller pressed 5.".into()));
    assert_eq!(
        talk.sent(),
        [json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user",
                "content": [{"type": "input_text", "text": "The caller pressed 5."}]}})]
    );
}

#[test]
fn a_request_waits_for_the_end_of_the_response_in_progress() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.command(Command::Respond { instructions: None });
    talk.command(Command::Respond { instructions: None });
    assert_eq!(talk.sent(), Vec::<Value>::new());
    talk.response_done("r1", "completed");
    assert_eq!(talk.sent(), [json!({"type": "response.create"})]);
    talk.response_created("r2");
    talk.response_done("r2", "completed");
    assert_eq!(talk.sent(), Vec::<Value>::new());
}

#[test]
fn a_refused_request_is_made_again_after_the_response_that_was_in_its_way() {
    let mut talk = Talk::new();
    talk.command(Command::Say("Hello.".into()));
    let event_id = talk.sent_raw()[0]["event_id"].clone();
    talk.response_created("vad");
    talk.service(json!({"type": "error", "error": {"type": "invalid_request_error",
                        "code": "conversation_already_has_active_response", "event_id": event_id}}));
    assert_eq!(talk.sent(), Vec::<Value>::new());
    talk.response_done("vad", "completed");
    assert_eq!(talk.sent()[0]["type"], "response.create");
    assert_eq!(talk.warnings(), Vec::<String>::new());
}

// Tools.

#[test]
fn a_tool_is_answered_at_once_and_spoken_about_after_its_response() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.tool_call("r1", "c1", "lookup", r#"{"order":"#);
    assert_eq!(
        talk.events()[1],
        Event::ToolCall { id: "c1".into(), name: "lookup".into(), arguments: r#"{"order":"#.into() }
    );
    talk.command(result("c1", true));
    assert_eq!(
        talk.sent(),
        [json!({"type": "conversation.item.create",
                "item": {"type": "function_call_output", "call_id": "c1", "output": "42"}})]
    );
    talk.response_done("r1", "completed");
    assert_eq!(talk.sent(), [json!({"type": "response.create"})]);
}

#[test]
fn several_tools_of_one_response_get_one_continuation() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.tool_call("r1", "c1", "lookup", "{}");
    talk.tool_call("r1", "c2", "lookup", "{}");
    talk.response_done("r1", "completed");
    talk.command(result("c2", true));
    assert_eq!(talk.kinds_sent(), ["conversation.item.create"]);
    talk.command(result("c1", true));
    assert_eq!(talk.kinds_sent(), ["conversation.item.create", "response.create"]);
}

#[test]
fn a_tool_call_is_told_once_wherever_it_is_announced() {
    let item = json!({"id": "f1", "type": "function_call", "status": "completed", "call_id": "c1",
                      "name": "lookup", "arguments": "{}"});
    let nameless = json!({"type": "response.function_call_arguments.done", "response_id": "r1",
                          "item_id": "f1", "call_id": "c1", "arguments": "{}"});
    let item_done = json!({"type": "response.output_item.done", "response_id": "r1", "item": item});
    let done = json!({"type": "response.done",
                      "response": {"id": "r1", "status": "completed", "output": [item]}});
    for events in [vec![&nameless, &item_done, &done], vec![&nameless, &done], vec![&done]] {
        let mut talk = Talk::new();
        talk.response_created("r1");
        events.into_iter().for_each(|event| talk.service(event.clone()));
        let calls = talk.events().into_iter().filter(|event| matches!(event, Event::ToolCall { .. })).count();
        assert_eq!(calls, 1);
        talk.command(result("c1", true));
        assert_eq!(talk.kinds_sent(), ["conversation.item.create", "response.create"]);
    }
}

#[test]
fn a_call_that_was_cut_while_its_arguments_came_is_not_told() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.service(json!({"type": "response.output_item.done", "response_id": "r1",
                        "item": {"id": "f1", "type": "function_call", "status": "incomplete",
                                 "call_id": "c1", "name": "lookup", "arguments": "{\"or"}}));
    assert_eq!(talk.events(), [Event::TurnStarted]);
}

#[test]
fn a_tool_answered_during_the_callers_turn_is_sent_without_a_second_response() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.tool_call("r1", "c1", "lookup", "{}");
    talk.response_done("r1", "completed");
    talk.speech_started();
    talk.command(result("c1", true));
    assert_eq!(talk.kinds_sent(), ["conversation.item.create"]);
    talk.service(json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 9000, "item_id": "u"}));
    talk.response_created("vad");
    talk.response_done("vad", "completed");
    assert_eq!(talk.kinds_sent(), Vec::<String>::new());
}

#[test]
fn an_answer_to_a_call_that_is_not_open_is_not_sent() {
    let mut talk = Talk::new();
    talk.command(result("c9", true));
    assert_eq!(talk.sent(), Vec::<Value>::new());
    assert_eq!(talk.warnings(), ["unknown_tool_call"]);
}

// Ends, costs and oddities.

#[test]
fn responses_end_in_four_ways() {
    for (response, expected) in [
        (json!({"status": "completed"}), TurnStatus::Completed),
        (
            json!({"status": "cancelled", "status_details": {"type": "cancelled", "reason": "turn_detected"}}),
            TurnStatus::Cancelled,
        ),
        (
            json!({"status": "incomplete", "status_details": {"reason": "max_output_tokens"}}),
            TurnStatus::Incomplete("max_output_tokens".into()),
        ),
        (
            json!({"status": "failed", "status_details":
                   {"type": "failed", "error": {"type": "server_error", "code": "rate_limit_exceeded"}}}),
            TurnStatus::Failed("rate_limit_exceeded".into()),
        ),
        (json!({"status": "failed", "status_details": null}), TurnStatus::Failed("failed".into())),
    ] {
        let mut talk = Talk::new();
        talk.service(json!({"type": "response.done", "response": response}));
        assert_eq!(talk.events(), [turn_done(expected)]);
    }
}

#[test]
fn usage_is_read_with_the_cached_tokens_as_a_subset() {
    let mut talk = Talk::new();
    talk.service(json!({"type": "response.done", "response": {"id": "r", "status": "cancelled", "usage":
        {"total_tokens": 253, "input_tokens": 132, "output_tokens": 121,
         "input_token_details": {"text_tokens": 119, "audio_tokens": 13, "image_tokens": 0, "cached_tokens": 64,
             "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0, "image_tokens": 0}},
         "output_token_details": {"text_tokens": 30, "audio_tokens": 91}}}}));
    let tokens = Tokens {
        input_text: 119,
        input_audio: 13,
        cached_text: 64,
        cached_audio: 0,
        output_text: 30,
        output_audio: 91,
    };
    let used = Event::Used(Usage::Response { model: "m".into(), tokens });
    assert_eq!(talk.events(), [used, Event::TurnDone { status: TurnStatus::Cancelled }]);
}

#[test]
fn a_response_that_ends_without_its_done_events_closes_its_items() {
    let mut talk = Talk::new();
    talk.response_created("r1");
    talk.words("r1", "a1", "Half a");
    talk.audio("r1", "a1", 20);
    talk.events();
    talk.response_done("r1", "failed");
    assert_eq!(
        talk.events(),
        [
            Event::AudioDone { item: "a1".into() },
            last(Speaker::Assistant, "a1", "Half a"),
            turn_done(TurnStatus::Failed("failed".into())),
        ]
    );
}

#[test]
fn written_answers_are_words_too() {
    let mut talk = Talk::new();
    talk.service(json!({"type": "response.output_text.delta", "item_id": "a1", "delta": "Hi"}));
    talk.service(json!({"type": "response.output_text.done", "item_id": "a1", "text": "Hi."}));
    assert_eq!(
        talk.events(),
        [partial(Speaker::Assistant, "a1", "Hi"), last(Speaker::Assistant, "a1", "Hi.")]
    );
}

#[test]
fn harmless_errors_are_warnings_and_the_session_goes_on() {
    for (error, code) in [
        (
            json!({"type": "invalid_request_error", "code": "response_cancel_not_active"}),
            "response_cancel_not_active",
        ),
        (
            json!({"type": "invalid_request_error", "code": "input_audio_buffer_commit_empty"}),
            "input_audio_buffer_commit_empty",
        ),
        (
            json!({"type": "invalid_request_error", "code": "unsupported_content_type", "param": null}),
            "unsupported_content_type",
        ),
        (json!({"type": "server_error", "code": null, "message": "Oops."}), "server_error"),
        (json!({}), "error"),
    ] {
        let mut talk = Talk::new();
        talk.service(json!({"type": "error", "event_id": "e", "error": error}));
        assert_eq!(talk.warnings(), [code]);
        assert!(!talk.mapper.is_closed());
    }
}

#[test]
fn an_expired_session_is_closed_as_such_and_once() {
    let mut talk = Talk::new();
    talk.service(
        json!({"type": "error", "error": {"type": "invalid_request_error", "code": "session_expired",
                        "message": "Your session hit the maximum duration of 60 minutes."}}),
    );
    talk.mapper.close(CloseReason::ByService { code: Some(1001), reason: String::new() });
    talk.audio("r1", "a1", 20);
    talk.command(Command::Say("too late".into()));
    assert_eq!(talk.events(), [Event::Closed { reason: CloseReason::Expired }]);
    assert_eq!(talk.sent(), Vec::<Value>::new());
}

#[test]
fn unknown_events_and_fields_are_ignored_and_counted() {
    let mut talk = Talk::new();
    talk.service(json!({"type": "response.dream.delta", "delta": [1, 2], "item_id": {}}));
    talk.service(json!({"type": "response.created", "response": {"id": "r", "mood": "fine"}, "weather": 1}));
    talk.service(json!({"type": "conversation.item.created", "item": {"id": "a"}}));
    talk.service(json!({"type": "conversation.created", "conversation": {"id": "c"}}));
    talk.service(json!({"type": "input_audio_buffer.dtmf_event_received", "event": "5", "received_at": 1}));
    assert_eq!(talk.events(), [Event::TurnStarted]);
    assert_eq!(talk.mapper.unknown_events(), 1);
}

#[test]
fn known_events_of_odd_shape_are_counted_and_survived() {
    let mut talk = Talk::new();
    for odd in [
        json!({"type": "response.output_audio.delta", "delta": "AAAA"}),
        json!({"type": "response.created"}),
        json!({"type": 7}),
        json!([]),
        json!(null),
        json!({}),
    ] {
        talk.service(odd);
    }
    assert_eq!(talk.mapper.unknown_events(), 6);
    assert!(!talk.mapper.is_closed());
}

#[test]
fn garbage_is_a_warning_and_much_of_it_in_a_row_the_end() {
    let mut talk = Talk::new();
    for _ in 0..10 {
        (1..MAX_GARBAGE_IN_A_ROW).for_each(|_| talk.mapper.handle_text("{\"type\":"));
        talk.service(json!({"type": "rate_limits.updated"}));
    }
    assert!(!talk.mapper.is_closed());
    talk.mapper.handle_binary(3);
    (1..MAX_GARBAGE_IN_A_ROW).for_each(|_| talk.mapper.handle_text("\u{0}"));
    let end = talk.events().pop();
    assert!(matches!(end, Some(Event::Closed { reason: CloseReason::Protocol(_) })), "{end:?}");
}

#[test]
fn audio_that_is_not_base64_is_a_warning() {
    let mut talk = Talk::new();
    talk.service(json!({"type": "response.output_audio.delta", "response_id": "r", "item_id": "a",
                        "delta": "***"}));
    talk.audio("r", "a", 20);
    assert_eq!(talk.events()[1], pcm("a", 20));
}

#[test]
fn a_giant_delta_is_one_event_and_its_buffer_is_not_kept() {
    let mut talk = Talk::new();
    talk.audio("r1", "a1", 60_000);
    assert_eq!(talk.events(), [pcm("a1", 60_000)]);
    assert!(talk.mapper.scratch.capacity() <= SCRATCH_BYTES);
}

#[test]
fn closing_is_told_once() {
    let mut talk = Talk::new();
    talk.command(Command::Close);
    talk.command(Command::Close);
    talk.service(json!({"type": "input_audio_buffer.speech_started"}));
    assert_eq!(talk.events(), [Event::Closed { reason: CloseReason::Requested }]);
}

// Whatever happens.

proptest::proptest! {
    #[test]
    fn no_response_is_asked_for_while_one_is_in_progress(steps in proptest::collection::vec(0..10u8, 1..200)) {
        let mut talk = Talk::new();
        let mut service = StrictService::default();
        for step in steps {
            service.step(&mut talk, step);
        }
        // At the end the caller is quiet and every tool is answered: nothing stays queued for ever.
        service.wind_down(&mut talk);
    }

    #[test]
    fn no_text_makes_it_panic(texts in proptest::collection::vec(".*", 0..20)) {
        let mut talk = Talk::new();
        for text in texts {
            talk.mapper.handle_text(&text);
            talk.service(json!({"type": "response.output_audio.delta", "item_id": "a", "delta": text}));
            talk.service(json!({"type": text, "item_id": text, "delta": text, "response": text}));
        }
    }
}

/// A service that answers the caller's turns itself and takes no request in between.
#[derive(Default)]
struct StrictService {
    active: Option<String>,
    /// A request that has arrived and not been acted upon.
    asked: bool,
    responses: u32,
    calls: u32,
    unanswered: Vec<String>,
}

impl StrictService {
    fn step(&mut self, talk: &mut Talk, step: u8) {
        match step {
            0 => talk.command(say_hello()),
            1 => talk.command(Command::Respond { instructions: None }),
            2 => self.interrupt(talk),
            3 => self.answer_caller(talk),
            4 | 5 => self.end_response(talk, "completed"),
            6 => self.call_tool(talk),
            7 => self.answer_tool(talk),
            8 => talk.mapper.audio_sent(500),
            _ => talk.command(Command::CancelResponse),
        }
        self.read(talk);
        if self.asked && step.is_multiple_of(2) {
            self.begin(talk);
        }
        self.read(talk);
    }

    fn wind_down(&mut self, talk: &mut Talk) {
        self.interrupt(talk);
        self.answer_caller(talk);
        for _ in 0..1000 {
            while !self.unanswered.is_empty() {
                self.answer_tool(talk);
            }
            self.read(talk);
            if self.asked {
                self.begin(talk);
            }
            if self.active.is_none() {
                assert!(!self.asked);
                assert_eq!(talk.mapper.sequencer.take_next(), None);
                return;
            }
            self.end_response(talk, "completed");
            self.read(talk);
        }
        panic!("it never comes to rest");
    }

    fn read(&mut self, talk: &mut Talk) {
        for message in talk.sent() {
            match message["type"].as_str().unwrap() {
                "response.create" => {
                    assert!(self.active.is_none() && !self.asked, "a response is in progress");
                    self.asked = true;
                }
                "response.cancel" => {
                    assert!(self.active.is_some() || self.asked, "nothing to cancel");
                    if self.asked {
                        self.begin(talk);
                    }
                    self.end_response(talk, "cancelled");
                }
                "conversation.item.create" => {
                    let call = message["item"]["call_id"].as_str().unwrap();
                    let known = self.unanswered.iter().position(|open| open == call);
                    self.unanswered.remove(known.expect("answered once"));
                }
                other => panic!("{other}"),
            }
        }
    }

    fn begin(&mut self, talk: &mut Talk) {
        self.asked = false;
        self.responses += 1;
        let id = format!("r{}", self.responses);
        talk.response_created(&id);
        self.active = Some(id);
    }

    fn end_response(&mut self, talk: &mut Talk, status: &str) {
        if let Some(id) = self.active.take() {
            talk.response_done(&id, status);
        }
    }

    fn interrupt(&mut self, talk: &mut Talk) {
        // Requests on their way are acted upon first: this service has no races.
        if self.asked {
            self.begin(talk);
        }
        talk.speech_started();
        self.end_response(talk, "cancelled");
        self.read(talk);
    }

    fn answer_caller(&mut self, talk: &mut Talk) {
        if self.asked || self.active.is_some() {
            return;
        }
        talk.service(json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 0}));
        talk.service(json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 9000}));
        self.begin(talk);
    }

    fn call_tool(&mut self, talk: &mut Talk) {
        let Some(response) = self.active.clone() else { return };
        self.calls += 1;
        let call = format!("c{}", self.calls);
        talk.tool_call(&response, &call, "lookup", "{}");
        self.unanswered.push(call);
    }

    fn answer_tool(&mut self, talk: &mut Talk) {
        if let Some(call) = self.unanswered.last().cloned() {
            talk.command(result(&call, true));
            self.read(talk);
        }
    }
}

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
