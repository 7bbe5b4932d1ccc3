//! The protocol, message by message.

use super::*;
use crate::provider::HistoryItem;
use serde_json::{Value, json};

fn mapper() -> Mapper {
    with(CallSettings::default(), Vec::new())
}

fn with(settings: CallSettings, history: Vec<HistoryItem>) -> Mapper {
    let tools = ["look_up", "end_call"].map(|name| ToolSpec {
        name: name.into(),
        description: String::new(),
        parameters: json!({}),
    });
    let mut mapper = Mapper::new(
        &SessionSpec { tools: tools.into(), history, ..SessionSpec::default() },
        &settings,
        "m".into(),
    );
    mapper.tick(0);
    assert_eq!(events(&mut mapper), [used(6_000)]);
    mapper
}

fn used(billed_ms: u64) -> Event {
    Event::Used(Usage::Session { model: "m".into(), billed_ms })
}

fn tell(mapper: &mut Mapper, message: Value) {
    mapper.handle_text(&message.to_string());
}

fn state(mapper: &mut Mapper, state: &str) {
    tell(mapper, json!({"type": "state", "state": state}));
}

fn agent(mapper: &mut Mapper, ordinal: i64, text: &str, last: bool) {
    tell(
        mapper,
        json!({"type": "transcript", "role": "agent", "medium": "voice", "text": text, "delta": null,
               "final": last, "ordinal": ordinal}),
    );
}

fn caller(mapper: &mut Mapper, ordinal: i64, text: &str) {
    tell(
        mapper,
        json!({"type": "transcript", "role": "user", "medium": "voice", "text": text, "final": true, "ordinal": ordinal}),
    );
}

fn audio(mapper: &mut Mapper, ms: usize) {
    mapper.handle_audio(&vec![1; ms * 48]);
}

/// Without audio, which is counted: `(item, milliseconds)`.
fn events(mapper: &mut Mapper) -> Vec<Event> {
    std::iter::from_fn(|| mapper.poll_event()).collect()
}

fn messages(mapper: &mut Mapper) -> Vec<Value> {
    std::iter::from_fn(|| mapper.poll_message()).map(|text| serde_json::from_str(&text).unwrap()).collect()
}

/// What the call would see, in short.
fn story(mapper: &mut Mapper) -> Vec<String> {
    let who = |who: &Speaker| if *who == Speaker::Caller { "caller" } else { "agent" };
    let short = |event: Event| match event {
        Event::SpeechStarted { at_ms, item } => format!("start {at_ms} {}", item.unwrap()),
        Event::SpeechStopped { at_ms, item } => format!("stop {at_ms} {}", item.unwrap()),
        Event::Audio { item, pcm } => format!("audio {item} {}", pcm.len() / 24),
        Event::AudioDone { item } => format!("silent {item}"),
        Event::TranscriptPartial { who: w, item, text } => format!("{} {item}: {text}…", who(&w)),
        Event::TranscriptFinal { who: w, item, text } => format!("{} {item}: {text}", who(&w)),
        Event::Heard { item, text } => format!("heard {item}: {text}"),
        Event::TurnStarted => "turn".into(),
        Event::TurnDone { status } => format!("done {status:?}"),
        other => format!("{other:?}"),
    };
    events(mapper).into_iter().map(short).collect()
}

#[test]
fn an_utterance_is_one_item_from_its_first_audio_to_the_end_of_speaking() {
    let mut mapper = mapper();
    state(&mut mapper, "thinking");
    state(&mut mapper, "speaking");
    audio(&mut mapper, 100);
    agent(&mut mapper, 0, "Good", false);
    tell(
        &mut mapper,
        json!({"type": "transcript", "role": "agent", "text": null, "delta": " morning.", "final": false, "ordinal": 0}),
    );
    audio(&mut mapper, 50);
    agent(&mut mapper, 0, "Good morning.", true);
    agent(&mut mapper, 0, "Good morning. Again?", true);
    state(&mut mapper, "listening");
    assert_eq!(
        story(&mut mapper),
        [
            "turn",
            "audio agent-1 100",
            "agent agent-1: Good…",
            "agent agent-1: Good morning.…",
            "audio agent-1 50",
            "agent agent-1: Good morning.",
            "silent agent-1",
            "done Completed",
        ]
    );
    state(&mut mapper, "speaking");
    agent(&mut mapper, 2, "And", false);
    audio(&mut mapper, 20);
    assert_eq!(story(&mut mapper), ["turn", "agent agent-2: And…", "audio agent-2 20"]);
    assert_eq!(mapper.audio_received_ms(), 170);
}

#[test]
fn words_of_a_later_ordinal_begin_another_item_while_the_agent_speaks_on() {
    let mut mapper = mapper();
    state(&mut mapper, "speaking");
    audio(&mut mapper, 40);
    agent(&mut mapper, 0, "One moment.", false);
    agent(&mut mapper, 3, "Here it is.", false);
    audio(&mut mapper, 60);
    agent(&mut mapper, 0, "One moment.", true);
    assert_eq!(
        story(&mut mapper),
        [
            "turn",
            "audio agent-1 40",
            "agent agent-1: One moment.…",
            "silent agent-1",
            "agent agent-1: One moment.",
            "agent agent-2: Here it is.…",
            "audio agent-2 60",
        ]
    );
}

#[test]
fn only_the_service_stops_the_agent_and_what_was_heard_is_told() {
    let mut mapper = mapper();
    state(&mut mapper, "speaking");
    audio(&mut mapper, 4000);
    agent(&mut mapper, 0, "One two three four five six.", false);
    mapper.tick(1500);
    tell(&mut mapper, json!({"type": "user_started_speaking"}));
    assert_eq!(
        story(&mut mapper)[..3],
        ["turn", "audio agent-1 4000", "agent agent-1: One two three four five six.…"]
    );
    mapper.tick(1600);
    tell(&mut mapper, json!({"type": "playback_clear_buffer"}));
    agent(&mut mapper, 0, "One two", true);
    state(&mut mapper, "listening");
    mapper.tick(2400);
    tell(&mut mapper, json!({"type": "user_stopped_speaking"}));
    state(&mut mapper, "thinking");
    caller(&mut mapper, 1, "Stop.");
    state(&mut mapper, "speaking");
    audio(&mut mapper, 20);
    assert_eq!(
        story(&mut mapper),
        [
            "silent agent-1",
            "start 1500 caller-1",
            "done Cancelled",
            "heard agent-1: One two",
            "agent agent-1: One two three four five six.",
            "stop 2400 caller-1",
            "turn",
            "caller caller-1: Stop.",
            "audio agent-2 20",
        ]
    );
}

#[test]
fn the_callers_turn_has_its_times_and_one_line() {
    let mut mapper = mapper();
    state(&mut mapper, "listening");
    mapper.tick(1000);
    tell(&mut mapper, json!({"type": "user_started_speaking"}));
    mapper.tick(1800);
    tell(&mut mapper, json!({"type": "user_stopped_speaking"}));
    mapper.tick(2000);
    tell(&mut mapper, json!({"type": "user_started_speaking"}));
    mapper.tick(2500);
    state(&mut mapper, "thinking");
    caller(&mut mapper, 0, "Hello, it is me.");
    caller(&mut mapper, 0, "Hello, it is me.");
    assert_eq!(
        story(&mut mapper),
        ["start 1000 caller-1", "stop 1800 caller-1", "turn", "caller caller-1: Hello, it is me."]
    );
    // A line without any sign of speech before it is a line all the same.
    caller(&mut mapper, 4, "And you?");
    assert_eq!(story(&mut mapper), ["caller caller-2: And you?"]);
}

#[test]
fn what_we_have_injected_is_nobodys_line() {
    let mut mapper = mapper();
    tell(
        &mut mapper,
        json!({"type": "transcript", "role": "user", "medium": "text", "text": "[…]", "final": true, "ordinal": 0}),
    );
    assert_eq!(story(&mut mapper), [""; 0]);
}

#[test]
fn keys_and_the_wish_for_an_answer_are_one_message_that_interrupts() {
    let mut mapper = mapper();
    state(&mut mapper, "speaking");
    audio(&mut mapper, 500);
    mapper.command(Command::CallerText("(The caller pressed 12.)".into()));
    mapper.command(Command::Respond { instructions: None });
    assert_eq!(
        messages(&mut mapper),
        [json!({"type": "user_text_message", "text": "(The caller pressed 12.)", "urgency": "immediate"})]
    );
    story(&mut mapper);
    tell(&mut mapper, json!({"type": "playback_clear_buffer"}));
    assert_eq!(
        story(&mut mapper),
        ["silent agent-1", "start 0 caller-1", "stop 0 caller-1", "done Cancelled"]
    );
    // The next words are not those of the interruption.
    state(&mut mapper, "thinking");
    caller(&mut mapper, 5, "Hello?");
    assert_eq!(story(&mut mapper), ["turn", "caller caller-2: Hello?"]);
}

#[test]
fn texts_nobody_waits_for_are_context() {
    let mut mapper = mapper();
    mapper.command(Command::CallerText("A text.".into()));
    mapper.command(Command::Note("a fact".into()));
    mapper.flush_held();
    mapper.flush_held();
    assert_eq!(
        messages(&mut mapper),
        [
            json!({"type": "user_text_message", "text": "A text.\n[Not said by the caller: a fact]", "urgency": "later"})
        ]
    );
}

#[test]
fn the_agent_says_and_responds_as_it_is_told() {
    let mut mapper = mapper();
    mapper.command(Command::Say("Good morning.".into()));
    mapper.command(Command::Respond { instructions: None });
    state(&mut mapper, "speaking");
    mapper.command(Command::Say("Please hold.".into()));
    mapper.command(Command::Respond { instructions: Some("Ask for the name.".into()) });
    let sent = messages(&mut mapper);
    assert_eq!(
        sent[0],
        json!({"type": "forced_agent_message", "content": "Good morning.", "urgency": "immediate"})
    );
    assert_eq!(sent[1], json!({"type": "user_text_message", "text": aside(BEGIN), "urgency": "immediate"}));
    assert_eq!(
        sent[2],
        json!({"type": "forced_agent_message", "content": "Please hold.", "urgency": "soon"})
    );
    assert_eq!(
        sent[3],
        json!({"type": "user_text_message", "text": "[Not said by the caller: Ask for the name.]", "urgency": "soon"})
    );
    mapper.command(Command::CancelResponse);
    mapper.command(Command::Say("Our time is up.".into()));
    mapper.command(Command::Say("Goodbye.".into()));
    let urgencies: Vec<_> = messages(&mut mapper).iter().map(|sent| sent["urgency"].clone()).collect();
    assert_eq!(urgencies, ["immediate", "soon"]);
    let mut taken_over = with(CallSettings::default(), vec![HistoryItem::said(Speaker::Caller, "Hello.")]);
    taken_over.command(Command::Respond { instructions: None });
    assert_eq!(messages(&mut taken_over)[0]["text"], aside(GO_ON));
}

fn invoke(mapper: &mut Mapper, id: &str, name: &str) {
    tell(
        mapper,
        json!({"type": "client_tool_invocation", "toolName": name, "invocationId": id, "parameters": {"a": 1}}),
    );
}

fn result(id: &str, output: &str, ok: bool, respond: bool) -> Command {
    Command::ToolResult { id: id.into(), output: output.into(), ok, respond }
}

#[test]
fn every_tool_call_has_one_answer() {
    let mut mapper = mapper();
    invoke(&mut mapper, "1", "look_up");
    invoke(&mut mapper, "1", "look_up");
    assert_eq!(
        events(&mut mapper)[0],
        Event::ToolCall { id: "1".into(), name: "look_up".into(), arguments: r#"{"a":1}"#.into() }
    );
    mapper.command(result("1", r#"{"ok":true}"#, true, true));
    mapper.command(result("1", "again", true, true));
    invoke(&mut mapper, "2", "end_call");
    mapper.command(result("2", "{}", true, false));
    invoke(&mut mapper, "3", "fly");
    mapper.command(result("3", "no such tool", false, true));
    invoke(&mut mapper, "4", "look_up");
    mapper.command(result("4", "it broke", false, true));
    assert_eq!(
        messages(&mut mapper),
        [
            json!({"type": "client_tool_result", "invocationId": "1", "result": "{\"ok\":true}"}),
            json!({"type": "client_tool_result", "invocationId": "2", "result": "{}", "agentReaction": "listens"}),
            json!({"type": "client_tool_result", "invocationId": "3", "errorType": "undefined", "errorMessage": "no such tool"}),
            json!({"type": "client_tool_result", "invocationId": "4", "errorType": "implementation-error", "errorMessage": "it broke"}),
        ]
    );
}

#[test]
fn a_slow_tool_is_announced_in_time_and_its_result_follows_as_a_text() {
    let mut mapper = mapper();
    invoke(&mut mapper, "1", "look_up");
    mapper.tick(4980);
    assert_eq!(messages(&mut mapper), [""; 0]);
    mapper.tick(5000);
    let sent = messages(&mut mapper);
    assert_eq!(sent[0]["type"], "client_tool_result");
    assert_eq!((&sent[0]["invocationId"], &sent[0]["result"]), (&json!("1"), &json!(STILL_RUNNING)));
    assert!(sent[0].get("errorType").is_none());
    mapper.tick(9000);
    mapper.command(result("1", "42", true, true));
    let sent: Vec<_> = messages(&mut mapper).into_iter().filter(|sent| sent["type"] != "ping").collect();
    let text = "[Not said by the caller: the result of the tool look_up, which was still running: 42]";
    assert_eq!(sent, [json!({"type": "user_text_message", "text": text, "urgency": "soon"})]);
}

#[test]
fn new_settings_come_with_the_next_tool_result() {
    let mut mapper = mapper();
    invoke(&mut mapper, "1", "look_up");
    mapper.command(Command::Update { instructions: None, language: Some("de".into()), tools: None });
    mapper.command(result("1", "done", true, true));
    mapper.flush_held();
    let sent = messages(&mut mapper);
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (&sent[0]["type"], &sent[0]["responseType"]),
        (&json!("client_tool_result"), &json!("new-stage"))
    );
    let stage: Value = serde_json::from_str(sent[0]["result"].as_str().unwrap()).unwrap();
    assert_eq!(stage, json!({"languageHint": "de", "toolResultText": "done"}));
    // Where no tool is open the agent is told in words, and the stage waits.
    let tools = vec![ToolSpec { name: "fly".into(), description: String::new(), parameters: json!({}) }];
    mapper.command(Command::Update {
        instructions: None,
        language: Some("fr".into()),
        tools: Some(tools.into()),
    });
    mapper.flush_held();
    assert_eq!(messages(&mut mapper)[0]["urgency"], "later");
    invoke(&mut mapper, "2", "look_up");
    mapper.command(result("2", "done", true, true));
    let stage: Value = serde_json::from_str(messages(&mut mapper)[0]["result"].as_str().unwrap()).unwrap();
    assert_eq!(stage["selectedTools"][0]["temporaryTool"]["modelToolName"], "fly");
    invoke(&mut mapper, "3", "look_up");
    mapper.command(result("3", "gone", false, true));
    assert_eq!(messages(&mut mapper)[0]["errorType"], "undefined", "the tools have changed");
}

#[test]
fn a_service_that_stops_answering_pings_is_lost_and_one_that_never_did_is_not() {
    for answers in [false, true] {
        let mut mapper = mapper();
        for n in 1..=8 {
            mapper.tick(n * 5_000);
            if answers && n == 1 {
                tell(&mut mapper, json!({"type": "pong", "timestamp": 5.0}));
            }
        }
        assert_eq!(mapper.is_closed(), answers);
        assert_eq!(messages(&mut mapper)[0], json!({"type": "ping", "timestamp": 5.0}));
    }
}

#[test]
fn the_running_time_is_told_in_tenths_of_a_minute() {
    let mut mapper = mapper();
    mapper.joined_before(500);
    mapper.tick(5_480);
    assert_eq!(events(&mut mapper), []);
    mapper.tick(5_500);
    assert_eq!(events(&mut mapper), [used(12_000)]);
    mapper.tick(30_000);
    assert_eq!(events(&mut mapper), [used(36_000)]);
}

#[test]
fn what_is_unknown_is_counted_and_what_is_no_json_ends_it() {
    let mut mapper = mapper();
    for odd in [
        r#"{"type":"brand_new","a":[1,{"b":null}]}"#,
        r#"{"type":"state","state":"dancing"}"#,
        r#"{"type":"transcript","role":"user"}"#,
        r#"{"type":"call_started"}"#,
        r#"{"type":"call_event","message":"x"}"#,
        "[1]",
    ] {
        mapper.handle_text(odd);
    }
    assert_eq!(mapper.unknown_messages(), 4);
    (0..4).for_each(|_| mapper.handle_text("{"));
    audio(&mut mapper, 20);
    assert!(!mapper.is_closed());
    mapper.handle_text("{");
    let last = events(&mut mapper).pop();
    assert!(matches!(last, Some(Event::Closed { reason: CloseReason::Protocol(_) })), "{last:?}");
    audio(&mut mapper, 20);
    state(&mut mapper, "speaking");
    mapper.command(Command::Say("x".into()));
    assert_eq!((events(&mut mapper), messages(&mut mapper)), (vec![], vec![]));
}

#[test]
fn samples_may_be_split_between_frames_and_other_rates_are_made_ours() {
    let mut mapper = mapper();
    state(&mut mapper, "speaking");
    mapper.handle_audio(&[0x34]);
    mapper.handle_audio(&[0x12, 0x78, 0x56, 0x01]);
    mapper.handle_audio(&[0x02]);
    let pcm: Vec<i16> = events(&mut mapper)
        .into_iter()
        .filter_map(|event| if let Event::Audio { pcm, .. } = event { Some(pcm) } else { None })
        .flatten()
        .collect();
    assert_eq!(pcm, [0x1234, 0x5678, 0x0201]);
    let settings = CallSettings { output_sample_rate: 8_000, ..CallSettings::default() };
    let mut mapper = with(settings, Vec::new());
    mapper.handle_audio(&vec![0; 2 * 160]);
    assert_eq!(story(&mut mapper), ["audio agent-1 20"]);
}
