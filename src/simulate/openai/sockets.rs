//! The simulator over real sockets: handshakes, faults of the connection, what is reported.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::format::AudioFormat;
use super::record::Record;
use super::report::Observer;
use super::speech::{Speech, tone_sample};
use super::{OpenAiSimulator, Running, SimConfig};

#[tokio::test]
async fn a_client_gets_a_session_and_exactly_the_tone_it_was_promised() {
    let mut config = fast();
    config.behaviour.speech = Speech::Tone { hz: 697.0 };
    let running = OpenAiSimulator::start(config).await.unwrap();
    let mut client = Client::connect(&running, "").await.unwrap();
    assert_eq!(client.next().await["type"], "session.created");
    client.send(json!({"type": "response.create"})).await;
    let mut bytes = Vec::new();
    loop {
        let event = client.next().await;
        match event["type"].as_str().unwrap() {
            "response.output_audio.delta" => {
                base64_simd::STANDARD.decode_append(event["delta"].as_str().unwrap(), &mut bytes).unwrap();
            }
            "response.done" => break,
            _ => {}
        }
    }
    let mut samples = Vec::new();
    AudioFormat::Pcm.decode(&bytes, &mut samples);
    assert_eq!(samples.len(), 4 * 24_000);
    assert!((0..).zip(&samples).all(|(n, sample)| *sample == tone_sample(697.0, 24_000, n)));
}

#[tokio::test]
async fn refusals_are_http_statuses_with_retry_after() {
    let running = OpenAiSimulator::start(fast()).await.unwrap();
    for status in [401, 403, 404, 429, 500, 503] {
        let refused = Client::connect(&running, &format!("&fault=refuse:{status}:7")).await.err().unwrap();
        let Error::Http(response) = refused else { panic!("{refused}") };
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers()["retry-after"], "7");
        let body: Value = serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
        assert!(body["error"]["code"].is_string());
    }
    assert_eq!(running.summary().violations, 0, "a refusal that was asked for is not the client's fault");
}

#[tokio::test]
async fn a_handshake_can_stay_unanswered() {
    let running = OpenAiSimulator::start(fast()).await.unwrap();
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(b"GET /v1/realtime?model=m&fault=no-handshake HTTP/1.1\r\n\r\n").await.unwrap();
    running.wait_until(|report| report.summary.refused == 1).await;
    let error = stream.try_read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_wrong_key_can_cost_the_session_after_the_handshake() {
    let running = OpenAiSimulator::start(fast()).await.unwrap();
    let mut client = Client::connect(&running, "&fault=invalid-api-key").await.unwrap();
    assert_eq!(client.next().await["error"]["code"], "invalid_api_key");
    assert_eq!(client.close_code().await, 3000);
}

#[tokio::test]
async fn the_beta_header_is_a_violation_and_the_end() {
    let running = OpenAiSimulator::start(fast()).await.unwrap();
    let mut client = Client::connect_with(&running, "", &[("openai-beta", "realtime=v1")]).await.unwrap();
    assert_eq!(client.next().await["error"]["code"], "beta_api_shape_disabled");
    client.close_code().await;
    assert_eq!(codes(&running), ["beta_header"]);
}

#[tokio::test]
async fn a_connection_can_die_by_reset() {
    let running = OpenAiSimulator::start(fast()).await.unwrap();
    for fault in ["die:0.02", "die-after-appends:3", "die-after-deltas:2"] {
        let mut client = Client::connect(&running, &format!("&fault={fault}")).await.unwrap();
        client.send(json!({"type": "response.create"})).await;
        for _ in 0..3 {
            client.send(silence()).await;
        }
        let end = loop {
            match client.ws.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("an orderly close"),
            }
        };
        let reset = match &end {
            Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => true,
            _ => false,
        };
        assert!(reset, "{fault}: {end}");
    }
}

#[tokio::test]
async fn faults_can_be_for_the_first_connections_only() {
    let mut config = fast();
    config.faults = vec!["refuse:503".parse().unwrap()];
    config.fault_scope = "first:2".parse().unwrap();
    let running = OpenAiSimulator::start(config).await.unwrap();
    assert!(Client::connect(&running, "").await.is_err());
    assert!(Client::connect(&running, "").await.is_err());
    assert!(Client::connect(&running, "").await.is_ok());
}

#[tokio::test]
async fn a_session_that_expires_says_so_and_closes_with_1001() {
    let running = OpenAiSimulator::start(fast()).await.unwrap();
    let mut client = Client::connect(&running, "&fault=expire:20ms").await.unwrap();
    client.next().await;
    assert_eq!(client.next().await["error"]["code"], "session_expired");
    assert_eq!(client.close_code().await, 1001);
}

#[tokio::test]
async fn everything_is_reported_and_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Seen::default());
    let mut config = fast();
    config.report = Some(dir.path().join("report.jsonl"));
    config.record_dir = Some(dir.path().join("heard"));
    config.observer = Some(seen.clone());
    let running = OpenAiSimulator::start(config).await.unwrap();
    let mut client = Client::connect(&running, "").await.unwrap();
    let created = client.next().await;
    for _ in 0..5 {
        client.send(silence()).await;
    }
    client.send(json!({"type": "response.create", "response": {"modalities": ["audio"]}})).await;
    let error = client.next().await;
    assert_eq!(error["error"]["param"], "response.modalities");
    client.ws.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.next().await["error"]["code"], "invalid_message_type");
    client.ws.close(None).await.unwrap();
    running.wait_until(|report| report.summary.ended == 1).await;
    let report = running.stop().await.unwrap();
    assert_eq!(report.violations().count(), 2);
    assert_eq!((report.summary.appends, report.summary.appended_ms), (5, 100));
    assert_eq!(seen.appends.lock().unwrap().len(), 5);
    let text = std::fs::read_to_string(dir.path().join("report.jsonl")).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((last["type"].as_str(), last["violations"].as_u64()), (Some("summary"), Some(2)));
    let session = created["session"]["id"].as_str().unwrap();
    let wav = std::fs::read(dir.path().join("heard").join(format!("{session}.wav"))).unwrap();
    assert_eq!(wav.len(), 44 + 5 * 960);
}

#[tokio::test]
async fn stopping_closes_every_session_with_1001() {
    let running = OpenAiSimulator::start(fast()).await.unwrap();
    let mut client = Client::connect(&running, "").await.unwrap();
    client.next().await;
    let (stopped, code) = tokio::join!(running.stop(), client.close_code());
    assert_eq!(code, 1001);
    let report = stopped.unwrap();
    assert_eq!(report.summary.ended, 1);
}

#[tokio::test]
async fn a_stranger_who_sends_garbage_is_counted() {
    let running = OpenAiSimulator::start(fast()).await.unwrap();
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x00\x00garbage\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An error and a plain end are both fine, as long as it ends.
    let _ = stream.read_to_end(&mut answer).await;
    running.wait_until(|report| report.summary.refused == 1).await;
}

/// A simulator that loses no time.
fn fast() -> SimConfig {
    let mut config = SimConfig::default();
    config.behaviour.speed = f64::INFINITY;
    config.behaviour.response_latency = std::time::Duration::ZERO;
    config.behaviour.speech = Speech::Tone { hz: 440.0 };
    config
}

fn codes(running: &Running) -> Vec<String> {
    let report = running.report();
    let codes = report.violations().filter_map(|entry| match &entry.record {
        Record::Violation { code, .. } => Some(code.clone()),
        _ => None,
    });
    codes.collect()
}

fn silence() -> Value {
    json!({"type": "input_audio_buffer.append", "audio": base64_simd::STANDARD.encode_to_string([0; 960])})
}

#[derive(Default)]
struct Seen {
    appends: Mutex<Vec<Instant>>,
}

impl Observer for Seen {
    fn appended(&self, _connection: u64, at: Instant, _audio: &[u8], _format: AudioFormat) {
        self.appends.lock().unwrap().push(at);
    }
}

struct Client {
    ws: WebSocketStream<TcpStream>,
}

impl Client {
    async fn connect(running: &Running, query: &str) -> Result<Self, Error> {
        Self::connect_with(running, query, &[]).await
    }

    async fn connect_with(
        running: &Running,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Error> {
        let url = format!("{}?model=gpt-realtime-2.1{query}", running.url());
        let mut request = url.into_client_request()?;
        for (name, value) in [("authorization", "Bearer sk-test")].iter().chain(headers) {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(running.addr()).await?;
        client_async(request, stream).await.map(|(ws, _)| Self { ws })
    }

    async fn send(&mut self, event: Value) {
        // The other side may be gone already: reading will tell.
        let _ = self.ws.send(Message::text(event.to_string())).await;
    }

    async fn next(&mut self) -> Value {
        let message = self.ws.next().await.expect("the connection ended").unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.ws.next().await.expect("no close frame").unwrap() {
                return frame.unwrap().code.into();
            }
        }
    }
}
