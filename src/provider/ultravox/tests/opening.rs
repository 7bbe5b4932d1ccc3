//! Making a call, joining it, and what may go wrong.

use serde_json::json;

use super::super::*;
use super::service::{Service, tell};

async fn refused(service: &Service, provider: &Ultravox, head: &str, body: &str) -> ProviderError {
    let (opened, _) = tokio::join!(provider.open(SessionSpec::default()), service.answer(head, body));
    opened.map(|_| ()).unwrap_err()
}

#[tokio::test]
async fn a_call_is_made_with_a_key_and_joined_at_its_address() {
    let service = Service::start().await;
    let provider = service.provider();
    let spec = SessionSpec { instructions: "Be kind.".into(), ..SessionSpec::default() };
    let serve = async {
        let asked = service.create().await;
        let (mut socket, line) = service.join().await;
        // Audio flows from the start, texts do not.
        let mut octets = 0;
        while octets < 5 * 960 {
            match socket.next().await {
                Some(Ok(Message::Binary(audio))) => octets += audio.len(),
                other => panic!("no audio but {other:?}"),
            }
        }
        tell(&mut socket, json!({"type": "state", "state": "idle"})).await;
        tell(&mut socket, json!({"type": "call_started", "callId": "c1"})).await;
        (asked, line)
    };
    let (opened, (asked, line)) = tokio::join!(provider.open(spec), serve);
    assert!(opened.is_ok());
    assert_eq!(asked.line, "POST /api/calls?enableGreetingPrompt=false");
    assert_eq!(asked.key.as_deref(), Some("key.1"));
    assert_eq!(asked.body["systemPrompt"], "Be kind.");
    assert_eq!(line, "GET /join/c1?token=t&apiVersion=1 HTTP/1.1");
}

#[tokio::test]
async fn a_limited_key_makes_room_for_the_next_and_rests() {
    let service = Service::start().await;
    let provider = service.provider();
    let serve = async {
        let first = service.answer("429 Too Many Requests\r\nretry-after: 30", "{}").await;
        let second = service.create().await;
        let (mut socket, _) = service.join().await;
        tell(&mut socket, json!({"type": "call_started", "callId": "c1"})).await;
        (first.key, second.key)
    };
    let (opened, keys) = tokio::join!(provider.open(SessionSpec::default()), serve);
    assert!(opened.is_ok());
    assert_eq!(keys, (Some("key.1".into()), Some("key.2".into())));
    let resting = provider.keys().unwrap().states(None).iter().filter(|key| key.rest.is_some()).count();
    assert_eq!(resting, 1);
}

#[tokio::test]
async fn refusals_keep_their_meaning() {
    let service = Service::start().await;
    let provider = service.provider();
    let error = refused(&service, &provider, "400 Bad Request", r#"{"voice":["unknown"]}"#).await;
    assert!(matches!(error, ProviderError::Misconfigured { .. }), "{error}");
    let error = refused(&service, &provider, "503 Service Unavailable\r\nretry-after: 7", "").await;
    let ProviderError::Refused { status: 503, retry_after, .. } = error else { panic!("{error}") };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
    let error = refused(&service, &provider, "201 Created", "not json").await;
    assert!(matches!(error, ProviderError::Unreachable { .. }), "{error}");
    for url in [json!(null), json!("https://example.com"), json!("ws://")] {
        let body = json!({"callId": "c", "joinUrl": url}).to_string();
        let error = refused(&service, &provider, "201 Created", &body).await;
        assert!(error.to_string().contains("joinUrl"), "{error}");
    }
}

#[tokio::test]
async fn a_call_that_does_not_start_is_no_session() {
    let service = Service::start().await;
    let config = UltravoxConfig { connect_timeout: Duration::from_millis(300), ..service.config() };
    let provider = Ultravox::new(config).unwrap();
    let serve = async {
        service.create().await;
        service.join().await.0
    };
    let (opened, _socket) = tokio::join!(provider.open(SessionSpec::default()), serve);
    assert!(matches!(opened.map(|_| ()), Err(ProviderError::Timeout { .. })));
    let provider = service.provider();
    let serve = async {
        service.create().await;
        let (mut socket, _) = service.join().await;
        socket.close(None).await.unwrap();
    };
    let (opened, ()) = tokio::join!(provider.open(SessionSpec::default()), serve);
    assert!(matches!(opened.map(|_| ()), Err(ProviderError::Unreachable { .. })));
}

#[test]
fn settings_that_cannot_work_are_said_at_once() {
    let config = UltravoxConfig::default;
    let odd_rate = CallSettings { input_sample_rate: 44_100, ..CallSettings::default() };
    for (wrong, word) in [
        (UltravoxConfig { url: "ftp://example.com".into(), ..config() }, "https://"),
        (UltravoxConfig { url: "nonsense".into(), ..config() }, "address"),
        (UltravoxConfig { api_keys: vec!["a\nb".into()], ..config() }, "API key"),
        (UltravoxConfig { call: odd_rate, ..config() }, "44100"),
    ] {
        let error = Ultravox::new(wrong).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("a\nb"), "{error}");
    }
    assert!(Ultravox::new(config()).is_ok());
}

#[test]
fn the_version_is_added_to_an_address_that_has_none() {
    for (url, expected) in [
        ("wss://x/j", "wss://x/j?apiVersion=1"),
        ("wss://x/j?", "wss://x/j?apiVersion=1"),
        ("wss://x/j?a=b", "wss://x/j?a=b&apiVersion=1"),
        ("wss://x/j?apiVersion=2&a=b", "wss://x/j?apiVersion=2&a=b"),
    ] {
        assert_eq!(with_version(url), expected);
    }
}
