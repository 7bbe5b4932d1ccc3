//! The far end of these tests: REST and media socket on one port.

use std::future::poll_fn;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;

use super::super::*;
use crate::provider::{Event, Session};

/// The service's end of a media socket.
pub type Socket = WebSocketStream<TcpStream>;

pub struct Service {
    listener: TcpListener,
}

/// One request, as far as it matters.
#[derive(Debug)]
pub struct Asked {
    /// Method and path.
    pub line: String,
    pub key: Option<String>,
    pub body: Value,
}

impl Service {
    pub async fn start() -> Arc<Self> {
        Arc::new(Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() })
    }

    pub fn config(&self) -> UltravoxConfig {
        UltravoxConfig {
            url: format!("http://{}", self.listener.local_addr().unwrap()),
            api_keys: vec!["key.1".into(), "key.2".into()],
            connect_timeout: Duration::from_secs(30),
            ..UltravoxConfig::default()
        }
    }

    pub fn provider(&self) -> Ultravox {
        Ultravox::new(self.config()).unwrap()
    }

    /// Takes one request and answers it with a head and a body.
    pub async fn answer(&self, head: &str, body: &str) -> Asked {
        let mut tcp = self.listener.accept().await.unwrap().0;
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(tcp.read_u8().await.unwrap());
        }
        let text = String::from_utf8(text).unwrap();
        let header = |name: &str| {
            let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
            line.map(|line| line[name.len() + 1..].trim().to_owned())
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut sent = vec![0; length];
        tcp.read_exact(&mut sent).await.unwrap();
        let answer =
            format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        tcp.write_all(answer.as_bytes()).await.unwrap();
        tcp.shutdown().await.unwrap();
        Asked {
            line: text.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned(),
            key: header("x-api-key"),
            body: serde_json::from_slice(&sent).unwrap_or(Value::Null),
        }
    }

    /// Makes the call that is asked for.
    pub async fn create(&self) -> Asked {
        let url = format!("ws://{}/join/c1?token=t", self.listener.local_addr().unwrap());
        self.answer("201 Created", &json!({"callId": "c1", "joinUrl": url, "model": "m"}).to_string()).await
    }

    /// Takes the media socket. Also gives the address it was asked for.
    pub async fn join(&self) -> (Socket, String) {
        let tcp = self.listener.accept().await.unwrap().0;
        let mut start = [0; 256];
        let length = tcp.peek(&mut start).await.unwrap();
        let line = String::from_utf8_lossy(&start[..length]).lines().next().unwrap_or_default().to_owned();
        (tokio_tungstenite::accept_async(tcp).await.unwrap(), line)
    }

    /// A session and the service's end of it.
    pub async fn connect(&self, spec: SessionSpec) -> (Box<dyn Session>, Socket) {
        let provider = self.provider();
        let serve = async {
            self.create().await;
            let (mut socket, _) = self.join().await;
            tell(&mut socket, json!({"type": "call_started", "callId": "c1"})).await;
            socket
        };
        let (opened, socket) = tokio::join!(provider.open(spec), serve);
        (opened.map_err(|error| error.to_string()).unwrap().settle().unwrap(), socket)
    }
}

pub async fn tell(socket: &mut Socket, message: Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

/// The next text, and the octets of audio before it.
pub async fn hear(socket: &mut Socket) -> (Value, usize) {
    let mut octets = 0;
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return (serde_json::from_str(&text).unwrap(), octets),
            Some(Ok(Message::Binary(audio))) => octets += audio.len(),
            other => panic!("no message but {other:?}"),
        }
    }
}

/// The next event that is not about what it costs.
pub async fn next(session: &mut dyn Session) -> Event {
    loop {
        match poll_fn(|cx| session.poll_event(cx)).await {
            Event::Used(_) => {}
            event => return event,
        }
    }
}
