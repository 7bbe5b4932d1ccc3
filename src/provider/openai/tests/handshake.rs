//! Connections that do not become sessions, and what is said on the way to those that do.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::super::*;
use super::server::{Server, tell};

#[tokio::test]
async fn a_refused_handshake_keeps_its_status_and_when_to_come_back() {
    for (head, status, retry_after) in [
        ("401 Unauthorized", 401, None),
        ("403 Forbidden", 403, None),
        ("404 Not Found", 404, None),
        ("429 Too Many Requests\r\nRetry-After: 17", 429, Some(17)),
        ("503 Service Unavailable\r\nRetry-After: 1", 503, Some(1)),
    ] {
        let server = Server::start().await;
        let api_keys = vec!["key-1".into()];
        let provider = OpenAi::new(OpenAiConfig { api_keys, ..server.config() }).unwrap();
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 2\r\n\r\n{{}}");
        let (opened, _) = tokio::join!(provider.open(SessionSpec::default()), server.answer(&answer));
        let refused = ProviderError::Refused {
            provider: "openai".into(),
            status,
            retry_after: retry_after.map(Duration::from_secs),
        };
        assert_eq!(format!("{:?}", opened.err()), format!("{:?}", Some(refused)));
    }
}

#[tokio::test]
async fn the_request_names_model_key_and_pseudonym_and_no_beta() {
    let server = Server::start().await;
    let extra_headers = vec![("X-Tenant".to_owned(), "acme".to_owned())];
    let provider = OpenAi::new(OpenAiConfig { extra_headers, ..server.config() }).unwrap();
    let mut requests = Vec::new();
    for pseudonym in [Some("c0ffee".to_owned()), None, None] {
        let spec = SessionSpec { safety_identifier: pseudonym, ..SessionSpec::default() };
        let refusal = "HTTP/1.1 500 Oops\r\n\r\n";
        requests.push(tokio::join!(provider.open(spec), server.answer(refusal)).1.to_lowercase());
    }
    assert!(requests[0].starts_with("get /v1/realtime?model=test%20model http/1.1\r\n"), "{}", requests[0]);
    assert!(requests[0].contains("\r\nopenai-safety-identifier: c0ffee\r\n"));
    assert!(!requests[1].contains("safety-identifier"));
    let keys: Vec<bool> =
        requests.iter().map(|r| r.contains("\r\nauthorization: bearer key-1\r\n")).collect();
    assert_eq!(keys, [true, false, true], "keys are used in turn");
    for request in requests {
        assert!(request.contains("\r\nx-tenant: acme\r\n") && !request.contains("openai-beta"));
    }
}

#[tokio::test]
async fn a_key_that_is_refused_is_followed_by_the_next_in_the_same_opening() {
    let server = Server::start().await;
    let provider = server.provider();
    let refuse_then_accept = async {
        let refused = server.answer("HTTP/1.1 429 Slow down\r\nRetry-After: 60\r\n\r\n").await;
        assert!(refused.contains("Bearer key-1"), "{refused}");
        server.accept_session().await
    };
    let (opened, _) = tokio::join!(provider.open(SessionSpec::default()), refuse_then_accept);
    assert!(opened.is_ok());
    let states = provider.keys().unwrap().states(None);
    let resting: Vec<bool> = states.iter().map(|key| key.rest.is_some()).collect();
    assert_eq!(resting, [true, false]);
}

#[tokio::test]
async fn a_service_that_does_not_shake_hands_is_a_timeout() {
    let server = Server::start().await;
    let connect_timeout = Duration::from_millis(20);
    let provider = OpenAi::new(OpenAiConfig { connect_timeout, ..server.config() }).unwrap();
    let (opened, _tcp) = tokio::join!(provider.open(SessionSpec::default()), server.accept_tcp());
    assert!(matches!(opened.err(), Some(ProviderError::Timeout { after, .. }) if after == connect_timeout));
}

#[tokio::test]
async fn a_service_that_never_creates_the_session_is_a_timeout() {
    let server = Server::start().await;
    let connect_timeout = Duration::from_millis(50);
    let provider = OpenAi::new(OpenAiConfig { connect_timeout, ..server.config() }).unwrap();
    let (opened, _service) = tokio::join!(provider.open(SessionSpec::default()), server.accept());
    assert!(matches!(opened.err(), Some(ProviderError::Timeout { .. })));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let server = Server::start().await;
    let provider = server.provider();
    drop(server);
    let error = provider.open(SessionSpec::default()).await.err();
    assert!(matches!(error, Some(ProviderError::Unreachable { .. })), "{error:?}");
}

#[tokio::test]
async fn a_key_refused_after_the_handshake_refuses_the_session() {
    let server = Server::start().await;
    let api_keys = vec!["key-1".into()];
    let provider = OpenAi::new(OpenAiConfig { api_keys, ..server.config() }).unwrap();
    let refuse = async {
        let mut service = server.accept().await;
        let error = json!({"type": "invalid_request_error", "code": "invalid_api_key", "message": "No."});
        tell(&mut service, json!({"type": "error", "error": error})).await;
        service.close(None).await.unwrap();
    };
    let (opened, ()) = tokio::join!(provider.open(SessionSpec::default()), refuse);
    let error = opened.err();
    assert!(
        matches!(&error, Some(ProviderError::SessionRefused { code, .. }) if code == "invalid_api_key"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_close_before_the_session_says_why() {
    let server = Server::start().await;
    let provider = server.provider();
    let close = async {
        let mut service = server.accept().await;
        let frame = CloseFrame { code: 1013.into(), reason: "try again later".into() };
        service.close(Some(frame)).await.unwrap();
    };
    let (opened, ()) = tokio::join!(provider.open(SessionSpec::default()), close);
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("1013: try again later"), "{error}");
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_unreachable() {
    let server = Server::start_tls().await;
    let provider = OpenAi::new(OpenAiConfig { extra_roots: Vec::new(), ..server.config() }).unwrap();
    let shake = async {
        // Its own handshake fails, too; that is the point.
        drop(server.accept_tcp_tls().await);
    };
    let (opened, ()) = tokio::join!(provider.open(SessionSpec::default()), shake);
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("TLS"), "{error}");
}

#[test]
fn unusable_settings_are_refused_before_the_first_call() {
    let config = OpenAiConfig::default;
    for (wrong, expected) in [
        (OpenAiConfig { url: "https://api.openai.com/v1".into(), ..config() }, "ws:// or wss://"),
        (OpenAiConfig { url: "not a url".into(), ..config() }, "the address `not a url`"),
        (OpenAiConfig { uplink_interval_ms: 10, ..config() }, "uplink_interval_ms is 10"),
        (OpenAiConfig { uplink_interval_ms: 500, ..config() }, "uplink_interval_ms is 500"),
        (OpenAiConfig { api_keys: vec!["a\nb".into()], ..config() }, "an API key holds"),
        (
            OpenAiConfig { extra_headers: vec![("no good".into(), "x".into())], ..config() },
            "header `no good`",
        ),
    ] {
        let error = OpenAi::new(wrong).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let shown = format!("{:?}", OpenAiConfig { api_keys: vec!["sk-secret".into()], ..config() });
    assert!(!shown.contains("sk-secret"), "{shown}");
}
