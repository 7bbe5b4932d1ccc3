//! Asking for responses, and what tools answer.

use super::*;

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
