//! The far end of these tests: a WebSocket server that follows orders.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;

use super::super::*;
use crate::provider::{Command, Event, Session};

/// What the server speaks over.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A server's end of one connection.
pub type Service = WebSocketStream<Box<dyn Wire>>;

pub struct Server {
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Server {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), tls: None }
    }

    pub async fn start_tls() -> Self {
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../testdata/localhost.key.pem")).unwrap();
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate()], key)
            .unwrap();
        let tls = Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        Self { tls, ..Self::start().await }
    }

    /// A provider that uses this server and trusts its certificate.
    pub fn provider(&self) -> OpenAi {
        OpenAi::new(self.config()).unwrap()
    }

    pub fn config(&self) -> OpenAiConfig {
        let port = self.listener.local_addr().unwrap().port();
        let url = match self.tls {
            Some(_) => format!("wss://localhost:{port}/v1/realtime"),
            None => format!("ws://127.0.0.1:{port}/v1/realtime"),
        };
        OpenAiConfig {
            url,
            model: "test model".into(),
            api_keys: vec!["key-1".into(), "key-2".into()],
            connect_timeout: Duration::from_secs(30),
            extra_roots: vec![certificate()],
            ..OpenAiConfig::default()
        }
    }

    pub async fn accept_tcp(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// Accepts a connection as far as TLS, which may fail.
    pub async fn accept_tcp_tls(&self) -> std::io::Result<()> {
        let tcp = self.accept_tcp().await;
        let tls = self.tls.as_ref().expect("this server speaks TLS");
        tls.accept(tcp).await.map(drop)
    }

    /// Reads the request and answers with these bytes in place of a handshake. Returns the request.
    pub async fn answer(&self, response: &str) -> String {
        let mut tcp = self.accept_tcp().await;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(tcp.read_u8().await.unwrap());
        }
        tcp.write_all(response.as_bytes()).await.unwrap();
        tcp.shutdown().await.unwrap();
        String::from_utf8(request).unwrap()
    }

    /// Accepts a connection as far as the WebSocket handshake.
    pub async fn accept(&self) -> Service {
        let tcp = self.accept_tcp().await;
        let wire: Box<dyn Wire> = match &self.tls {
            Some(tls) => Box::new(tls.accept(tcp).await.unwrap()),
            None => Box::new(tcp),
        };
        tokio_tungstenite::accept_async(wire).await.unwrap()
    }

    /// Accepts a connection and its session. Returns the configuration it asked for.
    pub async fn accept_session(&self) -> (Service, Value) {
        let mut service = self.accept().await;
        tell(&mut service, json!({"type": "session.created", "session": {"id": "s"}})).await;
        let update = hear(&mut service).await;
        tell(&mut service, json!({"type": "session.updated", "session": {}})).await;
        (service, update)
    }

    /// A session and the service's end of it.
    pub async fn connect(&self, spec: SessionSpec) -> (Box<dyn Session>, Service) {
        let provider = self.provider();
        let (opened, (service, _)) = tokio::join!(provider.open(spec), self.accept_session());
        (opened.map_err(|error| error.to_string()).unwrap().settle().unwrap(), service)
    }
}

pub fn certificate() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(include_bytes!("../../testdata/localhost.cert.pem")).unwrap()
}

pub async fn tell(service: &mut Service, event: Value) {
    service.send(Message::text(event.to_string())).await.unwrap();
}

pub async fn hear(service: &mut Service) -> Value {
    match service.next().await {
        Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
        other => panic!("no message but {other:?}"),
    }
}

pub async fn next(session: &mut dyn Session) -> Event {
    poll_fn(|cx| session.poll_event(cx)).await
}

/// The next event while the service waits for one message: both have to move.
pub async fn heard_while_polled(session: &mut dyn Session, service: &mut Service) -> Value {
    tokio::select! {
        message = hear(service) => message,
        event = next(session) => panic!("an event in between: {event:?}"),
    }
}

pub fn say(words: &str) -> Command {
    Command::Say(words.to_owned())
}
