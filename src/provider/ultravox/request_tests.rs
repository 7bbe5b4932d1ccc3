//! What is asked for and what is answered, field by field.

use super::*;
use serde_json::json;

fn body(spec: &SessionSpec, settings: &CallSettings) -> Value {
    serde_json::from_str(&start_call(spec, settings)).unwrap()
}

#[test]
fn a_plain_call_asks_for_nothing_but_what_it_needs() {
    let expected = json!({
        "joinTimeout": "15s", "maxDuration": "3600s", "recordingEnabled": false,
        "firstSpeakerSettings": {"user": {}},
        "medium": {"serverWebSocket": {
            "inputSampleRate": 24000, "outputSampleRate": 24000, "clientBufferSizeMs": 30000,
            "dataMessages": {"userStartedSpeaking": true, "userStoppedSpeaking": true},
        }},
    });
    assert_eq!(body(&SessionSpec::default(), &CallSettings::default()), expected);
}

#[test]
fn a_call_that_takes_over_has_the_conversation_so_far() {
    let spec = SessionSpec {
        instructions: "Be brief.".into(),
        language: Some("de-AT".into()),
        voice: Some("Mark".into()),
        turn_detection: TurnDetection::ServerVad {
            threshold: Some(0.7),
            prefix_padding_ms: Some(300),
            silence_duration_ms: Some(500),
        },
        history: vec![
            HistoryItem::said(Speaker::Caller, "Hello."),
            HistoryItem::said(Speaker::Assistant, "Good morning."),
            HistoryItem::Tool {
                id: "i".into(),
                name: "look_up".into(),
                arguments: "{\"a\":1}".into(),
                output: "{}".into(),
            },
            HistoryItem::Note("the line was lost".into()),
        ],
        ..SessionSpec::default()
    };
    let settings = CallSettings {
        model: Some("ultravox-v0.7".into()),
        voice: Some("other".into()),
        temperature: Some(0.3),
        input_sample_rate: 8_000,
        vad: Vad { minimum_interruption: Some(Duration::from_millis(90)), ..Vad::default() },
        ..CallSettings::default()
    };
    let sent = body(&spec, &settings);
    assert_eq!(
        sent["initialMessages"],
        json!([
            {"role": "MESSAGE_ROLE_USER", "text": "Hello."},
            {"role": "MESSAGE_ROLE_AGENT", "text": "Good morning."},
            {"role": "MESSAGE_ROLE_TOOL_CALL", "text": "{\"a\":1}", "invocationId": "i", "toolName": "look_up"},
            {"role": "MESSAGE_ROLE_TOOL_RESULT", "text": "{}", "invocationId": "i", "toolName": "look_up"},
            {"role": "MESSAGE_ROLE_USER", "text": "[Not said by the caller: the line was lost]"},
        ])
    );
    assert_eq!(
        sent["vadSettings"],
        json!({"turnEndpointDelay": "0.512s", "minimumInterruptionDuration": "0.09s", "frameActivationThreshold": 0.7})
    );
    let plain = ["systemPrompt", "model", "voice", "temperature", "languageHint"].map(|field| &sent[field]);
    assert_eq!(
        plain,
        [&json!("Be brief."), &json!("ultravox-v0.7"), &json!("Mark"), &json!(0.3), &json!("de-AT")]
    );
    assert_eq!(sent["medium"]["serverWebSocket"]["inputSampleRate"], 8000);
}

#[test]
fn durations_are_seconds_with_an_s() {
    for (ms, text) in
        [(0, "0s"), (30_000, "30s"), (384, "0.384s"), (2_500, "2.5s"), (90, "0.09s"), (60_001, "60.001s")]
    {
        assert_eq!(seconds(Duration::from_millis(ms)), text);
    }
}

#[test]
fn a_language_the_service_would_refuse_is_not_hinted() {
    let spec = SessionSpec { language: Some("x-a-very-long-private-tag".into()), ..SessionSpec::default() };
    assert!(body(&spec, &CallSettings::default()).get("languageHint").is_none());
}

#[test]
fn a_stage_changes_what_was_asked_for_and_keeps_the_rest() {
    let mut stage = Stage { language: Some("de".into()), ..Stage::default() };
    stage.and(Stage { instructions: Some("Go on in German.".into()), ..Stage::default() });
    let text = stage.result("{\"ok\":true}", "6s");
    let expected =
        json!({"languageHint": "de", "systemPrompt": "Go on in German.", "toolResultText": "{\"ok\":true}"});
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
}

#[test]
fn refusals_tell_what_to_do() {
    let of = |status, body| refusal("uv", status, Some(Duration::from_secs(3)), body);
    let wrong = of(400, r#"{"voice":["Unknown voice.\u001b[2J"],"model":"no such model"}"#).to_string();
    assert!(wrong.contains("voice: ") && wrong.contains("model: no such model"), "{wrong}");
    assert!(!wrong.contains('\u{1b}'));
    assert!(matches!(of(400, "<html>"), ProviderError::Misconfigured { .. }));
    for status in [401, 402, 403, 404, 429, 500, 503] {
        let ProviderError::Refused { status: told, retry_after, .. } = of(status, "{}") else {
            panic!("{status}")
        };
        assert_eq!((told, retry_after), (status, Some(Duration::from_secs(3))));
    }
}

#[test]
fn the_end_of_a_call_is_told_by_the_call() {
    let call = |fields: Value| {
        let mut all = json!({"callId": "c", "joinUrl": null});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value::<CallObject>(all).unwrap()
    };
    let pending = call(json!({"billingStatus": "BILLING_STATUS_PENDING", "billedDuration": "0s"}));
    assert_eq!(pending.billed_ms(), None);
    let billed = call(json!({"billingStatus": "BILLING_STATUS_BILLED", "billedDuration": "12.6s"}));
    assert_eq!(billed.billed_ms(), Some(12_600));
    let reason = |end| call(json!({"endReason": end})).close_reason(Some(1000));
    assert_eq!(reason("agent_hangup"), CloseReason::HungUp);
    assert_eq!(reason("timeout"), CloseReason::Expired);
    assert!(matches!(reason("connection_error"), CloseReason::ConnectionLost(_)));
    assert_eq!(
        reason("system_error"),
        CloseReason::ByService { code: Some(1000), reason: "system_error".into() }
    );
}
