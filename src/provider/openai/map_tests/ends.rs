//! Ends, costs and oddities.

use super::*;

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
