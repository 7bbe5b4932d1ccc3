//! Whole calls over REST, media sockets and webhooks.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{self, Message};

use super::fault::FaultScope;
use super::record::Record;
use super::server::{Running, SimConfig, UltravoxSimulator};
use super::session::Behaviour;
use super::webhook::signature;
use crate::simulate::speech::Speech;

async fn start(faults: &[&str]) -> Running {
    let behaviour = Behaviour {
        speech: Speech::Tone { hz: 440.0 },
        answer_ms: 200,
        billing_delay: Duration::from_millis(20),
        webhook_retry: Duration::from_millis(20),
        ..Behaviour::default()
    };
    let faults = faults.iter().map(|fault| fault.parse().unwrap()).collect();
    let config = SimConfig { behaviour, faults, api_keys: vec!["key".to_owned()], ..SimConfig::default() };
    UltravoxSimulator::start(config).await.unwrap()
}

async fn request(running: &Running, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let client = crate::web::client(&[], Duration::from_secs(20)).unwrap();
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = client.request(method, format!("{}{path}", running.url())).header("x-api-key", "key");
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let retry = answer.headers().get("retry-after").map(|after| after.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let mut body: Value = answer.json().await.unwrap_or(Value::Null);
    if let Some(after) = retry {
        body["retry-after"] = after.into();
    }
    (status, body)
}

fn body() -> Value {
    json!({
        "systemPrompt": "Be kind.",
        "medium": {"serverWebSocket": {"inputSampleRate": 8_000, "clientBufferSizeMs": 30_000}},
    })
}

async fn create(running: &Running) -> Value {
    let (status, call) = request(running, "POST", "calls", Some(body())).await;
    assert_eq!(status, 201, "{call}");
    call
}

type Ws = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

async fn join(running: &Running, url: &str) -> Result<Ws, tungstenite::Error> {
    let stream = tokio::net::TcpStream::connect(running.addr()).await.unwrap();
    let (ws, _) = tokio_tungstenite::client_async(format!("{url}&apiVersion=1"), stream).await?;
    Ok(ws)
}

async fn until(ws: &mut Ws, kind: &str) -> Value {
    loop {
        match tokio::time::timeout(Duration::from_secs(20), ws.next()).await.unwrap().unwrap().unwrap() {
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == kind {
                    return message;
                }
            }
            Message::Binary(_) if kind == "audio" => return Value::Null,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_call_from_its_request_to_its_bill() {
    let running = start(&[]).await;
    let call = create(&running).await;
    assert_eq!(call["billingStatus"], "BILLING_STATUS_PENDING");
    let mut ws = join(&running, call["joinUrl"].as_str().unwrap()).await.unwrap();
    assert_eq!(until(&mut ws, "call_started").await["callId"], call["callId"]);
    until(&mut ws, "audio").await;
    let id = call["callId"].as_str().unwrap();
    let message = json!({"type": "forced_agent_message", "content": "By REST.", "urgency": "immediate"});
    let (status, _) =
        request(&running, "POST", &format!("calls/{id}/send_data_message"), Some(message)).await;
    assert_eq!(status, 204);
    until(&mut ws, "playback_clear_buffer").await;
    assert_eq!(request(&running, "DELETE", &format!("calls/{id}"), None).await.0, 425);
    ws.close(None).await.unwrap();
    running.wait_until(|report| report.summary.ended == 1).await;
    let billed = loop {
        let (_, call) = request(&running, "GET", &format!("calls/{id}"), None).await;
        if call["billingStatus"] == "BILLING_STATUS_BILLED" {
            break call;
        }
    };
    assert_eq!(
        (billed["endReason"].as_str(), billed["billedDuration"].as_str()),
        (Some("hangup"), Some("6s"))
    );
    let late = json!({"type": "hang_up"});
    let (status, _) = request(&running, "POST", &format!("calls/{id}/send_data_message"), Some(late)).await;
    assert_eq!(status, 422);
    let (_, first) = request(&running, "GET", &format!("calls/{id}/messages?pageSize=1"), None).await;
    assert_eq!(first["results"][0]["role"], "MESSAGE_ROLE_AGENT");
    assert_eq!(request(&running, "DELETE", &format!("calls/{id}"), None).await.0, 204);
    assert_eq!(request(&running, "GET", &format!("calls/{id}"), None).await.0, 404);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn the_join_url_is_for_one_client_and_used_as_it_is() {
    let running = start(&[]).await;
    let call = create(&running).await;
    let url = call["joinUrl"].as_str().unwrap();
    let wrong = url.replace("token=", "token=x");
    assert!(matches!(join(&running, &wrong).await, Err(tungstenite::Error::Http(r)) if r.status() == 403));
    let _ws = join(&running, url).await.unwrap();
    assert!(matches!(join(&running, url).await, Err(tungstenite::Error::Http(r)) if r.status() == 409));
    let codes: Vec<String> = running
        .report()
        .violations()
        .map(|entry| match &entry.record {
            Record::Violation { code, .. } => code.clone(),
            _ => String::new(),
        })
        .collect();
    assert_eq!(codes, ["join_url_changed", "join_twice"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn mistakes_and_faults_have_their_status() {
    let running = start(&[]).await;
    let mut wrong = body();
    wrong["maxDuration"] = json!(60);
    let (status, refused) = request(&running, "POST", "calls", Some(wrong)).await;
    assert_eq!((status, refused.as_object().unwrap().keys().next().unwrap().as_str()), (400, "maxDuration"));
    assert_eq!(running.summary().violations, 1);
    running.stop().await.unwrap();
    for (fault, status) in [("refuse:402", 402), ("refuse:429:7", 429), ("invalid-api-key", 401)] {
        let running = start(&[fault]).await;
        let (got, body) = request(&running, "POST", "calls", Some(body())).await;
        assert_eq!((got, body["retry-after"].as_str()), (status, (status == 429).then_some("7")));
        running.stop().await.unwrap();
    }
    let running = start(&["unjoinable"]).await;
    let call = create(&running).await;
    assert!(join(&running, call["joinUrl"].as_str().unwrap()).await.is_err());
    assert_eq!(running.summary().violations, 0);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_call_that_nobody_joins_ends_as_unjoined() {
    let running = start(&[]).await;
    let mut body = body();
    body["joinTimeout"] = json!("0.05s");
    let (_, call) = request(&running, "POST", "calls", Some(body)).await;
    running.wait_until(|report| report.summary.ended == 1).await;
    let path = format!("calls/{}", call["callId"].as_str().unwrap());
    assert_eq!(request(&running, "GET", &path, None).await.1["endReason"], "unjoined");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn webhooks_are_signed_and_sent_until_they_are_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = format!("http://{}/hook", listener.local_addr().unwrap());
    let (tell, mut told) = mpsc::channel(16);
    let failures = Arc::new(std::sync::atomic::AtomicU32::new(1));
    let app = axum::Router::new().route(
        "/hook",
        axum::routing::post(move |headers: HeaderMap, body: String| async move {
            let first = failures.swap(0, std::sync::atomic::Ordering::Relaxed) == 1;
            let header = |name: &str| headers[name].to_str().unwrap().to_owned();
            let stamp = header("x-ultravox-webhook-timestamp");
            let right =
                [signature("new", body.as_bytes(), &stamp), signature("old", body.as_bytes(), &stamp)];
            assert_eq!(header("x-ultravox-webhook-signature"), right.join(","));
            let event: Value = serde_json::from_str(&body).unwrap();
            tell.send((first, event["event"].as_str().unwrap().to_owned())).await.unwrap();
            if first { axum::http::StatusCode::BAD_GATEWAY } else { axum::http::StatusCode::NO_CONTENT }
        }),
    );
    let served = tokio::spawn(async move { axum::serve(listener, app).await });
    let running = start(&["webhooks-twice"]).await;
    let mut body = body();
    let to = json!({"url": hook, "secrets": ["new", "old"]});
    body["callbacks"] = json!({"joined": to, "ended": to, "billed": to});
    let (_, call) = request(&running, "POST", "calls", Some(body)).await;
    let mut ws = join(&running, call["joinUrl"].as_str().unwrap()).await.unwrap();
    let mut events = Vec::new();
    for _ in 0..3 {
        events.push(told.recv().await.unwrap());
    }
    let joined = |failed| (failed, "call.joined".to_owned());
    assert_eq!(events, [joined(true), joined(false), joined(false)], "once again, and the copy");
    ws.close(None).await.unwrap();
    let mut rest = Vec::new();
    for _ in 0..4 {
        rest.push(told.recv().await.unwrap().1);
    }
    rest.sort();
    assert_eq!(rest, ["call.billed", "call.billed", "call.ended", "call.ended"]);
    running.stop().await.unwrap();
    served.abort();
}

#[tokio::test]
async fn faults_are_for_the_calls_they_are_for() {
    let config = SimConfig {
        faults: vec!["refuse:500".parse().unwrap()],
        fault_scope: FaultScope::First(1),
        ..SimConfig::default()
    };
    let running = UltravoxSimulator::start(config).await.unwrap();
    assert_eq!(request(&running, "POST", "calls", Some(body())).await.0, 500);
    assert_eq!(request(&running, "POST", "calls", Some(body())).await.0, 201);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn audio_that_is_no_real_time_is_a_violation() {
    let running = start(&[]).await;
    let call = create(&running).await;
    let mut ws = join(&running, call["joinUrl"].as_str().unwrap()).await.unwrap();
    until(&mut ws, "call_started").await;
    for _ in 0..150 {
        ws.send(Message::binary(vec![0; 320])).await.unwrap();
    }
    running.wait_until(|report| report.violations().next().is_some()).await;
    let report = running.stop().await.unwrap();
    let Record::Violation { code, .. } = &report.violations().next().unwrap().record else { panic!() };
    assert_eq!(code, "audio_too_fast");
}
