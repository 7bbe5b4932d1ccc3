//! What was heard of an answer that was interrupted.

use super::*;

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
