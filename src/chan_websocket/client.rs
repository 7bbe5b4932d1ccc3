//! Connecting to Asterisk: a channel that waits for us under `/media/<connection id>`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rustls::pki_types::{CertificateDer, ServerName};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};

use super::SUBPROTOCOL;
use super::protocol::MediaStart;
use super::request::basic;
use super::session::{Heard, Session};
use super::wire::{PendingSocket, buffers, closed, foreign, lost, tune};
use crate::config::AsteriskWebsocket;
use crate::config::values::split_url;
use crate::pbx::{Coding, WireEnd};
use crate::web::homed::{Homed, Transport, WebSocket};

/// How Asterisk is reached.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The media resource of its web server: `ws://127.0.0.1:8088/media`.
    pub url: String,
    /// User and password for a proxy before it. Asterisk itself asks for none: the connection id is the secret.
    pub credentials: Option<(String, SecretString)>,
    /// Certificates that are believed besides the web's, for `wss://`.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long `MEDIA_START` may take; then the channel is taken to have `fallback`.
    pub start_timeout: Duration,
    /// The coding until `MEDIA_START` tells.
    pub fallback: Coding,
}

impl ClientSettings {
    /// This Asterisk, with 3 s to connect and 2 s to begin.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            credentials: None,
            extra_roots: Vec::new(),
            connect_timeout: Duration::from_secs(3),
            start_timeout: Duration::from_secs(2),
            fallback: Coding::Linear(16_000),
        }
    }

    /// The configured one; `None` when none is.
    pub fn of(config: &AsteriskWebsocket) -> Option<Self> {
        let password = config.connect_password.clone();
        let credentials = config.connect_username.clone().map(|user| (user, password.unwrap_or_default()));
        let fallback = super::fallback(config);
        Some(Self { credentials, fallback, ..Self::new(config.connect.clone()?) })
    }
}

/// A connection of ours to a channel of Asterisk's.
pub struct Connected {
    /// Its audio. Dropped, the channel is hung up.
    pub wire: PendingSocket,
    /// What `MEDIA_START` said, if it came in time.
    pub start: Option<MediaStart>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is none.
    #[error(
        "`{0}` is no WebSocket address; write the one of Asterisk's media, such as ws://127.0.0.1:8088/media"
    )]
    Address(String),
    /// 404.
    #[error(
        "Asterisk knows no channel that waits under this connection id; dial WebSocket/INCOMING first, and connect while it waits"
    )]
    Unknown,
    /// 409.
    #[error("the channel of this connection id is connected already")]
    Taken,
    /// Another status.
    #[error(
        "Asterisk refused the connection with status {0}; is chan_websocket loaded, and http.conf enabled?"
    )]
    Refused(u16),
    /// There is no way there.
    #[error("Asterisk cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("Asterisk did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// It connected and went away at once.
    #[error("the connection ended before it began: {0}")]
    Ended(String),
}

impl ConnectError {
    /// For the metric.
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Unknown => "unknown",
            Self::Taken => "occupied",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Ended(_) => "ended",
        }
    }
}

/// Connects to the channel that waits under this id. Runs on the ordinary runtime.
///
/// # Errors
/// [`ConnectError`]; nothing is left behind then.
pub async fn connect(settings: &ClientSettings, connection_id: &str) -> Result<Connected, ConnectError> {
    let limit = settings.connect_timeout;
    let opening = tokio::time::timeout(limit, open(settings, connection_id));
    let socket = opening.await.map_err(|_| ConnectError::Timeout(limit))??;
    let (wire, start) = begin(socket, settings.fallback, settings.start_timeout).await?;
    Ok(Connected { wire, start })
}

async fn open(settings: &ClientSettings, connection_id: &str) -> Result<WebSocket, ConnectError> {
    let base = settings.url.trim_end_matches('/');
    let address = || ConnectError::Address(settings.url.clone());
    let parts = split_url(base).filter(|parts| ["ws", "wss"].contains(&parts.scheme)).ok_or_else(address)?;
    // The id is Asterisk's own word and needs no escaping; what does is no id.
    if !connection_id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b)) {
        return Err(ConnectError::Unknown);
    }
    let request = format!("{base}/{connection_id}").into_client_request();
    let mut request: Request = request.map_err(|_| address())?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    if let Some((user, password)) = &settings.credentials {
        let shown = format!("Basic {}", basic(user, password.expose_secret()));
        let mut shown = HeaderValue::try_from(shown).map_err(|_| address())?;
        shown.set_sensitive(true);
        request.headers_mut().insert("authorization", shown);
    }

    let unreachable = |error: &dyn std::fmt::Display| ConnectError::Unreachable(error.to_string());
    let tcp = TcpStream::connect((parts.host, parts.port_or_default())).await.map_err(|e| unreachable(&e))?;
    tune(&tcp).map_err(|error| unreachable(&error))?;
    let tcp = Homed::from(tcp);
    let transport = if parts.scheme == "wss" {
        let trust = crate::web::trust(&settings.extra_roots).map_err(|error| unreachable(&error))?;
        let name = ServerName::try_from(parts.host.to_owned()).map_err(|_| address())?;
        let connecting = tokio_rustls::TlsConnector::from(Arc::new(trust)).connect(name, tcp);
        let tls = connecting.await.map_err(|error| ConnectError::Unreachable(format!("TLS: {error}")))?;
        Transport::Tls(Box::new(tls.into()))
    } else {
        Transport::Plain(tcp)
    };
    match tokio_tungstenite::client_async_with_config(request, transport, Some(buffers())).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(match response.status().as_u16() {
            404 => ConnectError::Unknown,
            409 => ConnectError::Taken,
            status => ConnectError::Refused(status),
        }),
        Err(error) => Err(ConnectError::Unreachable(format!("WebSocket handshake: {error}"))),
    }
}

/// Waits for `MEDIA_START`. Under load, audio may come before it.
pub(super) async fn begin(
    mut socket: WebSocket,
    fallback: Coding,
    limit: Duration,
) -> Result<(PendingSocket, Option<MediaStart>), ConnectError> {
    let mut session = Session::new(fallback);
    let mut early = Vec::new();
    let until = tokio::time::Instant::now() + limit;
    let ended = |end: WireEnd| {
        Err(ConnectError::Ended(match end {
            WireEnd::HungUp => "the channel was hung up".to_owned(),
            WireEnd::Lost(why) | WireEnd::Protocol(why) => why,
        }))
    };
    while session.start().is_none() && early.len() < EARLY_MOST {
        let Ok(message) = tokio::time::timeout_at(until, socket.next()).await else { break };
        match message {
            Some(Ok(Message::Text(text))) => match session.text(Instant::now(), &text) {
                Heard::Nothing => {}
                Heard::Digit(_) => early.push(Message::Text(text)),
                Heard::Foreign(format) => return ended(foreign(&format)),
            },
            Some(Ok(Message::Binary(octets))) => early.push(Message::Binary(octets)),
            Some(Ok(Message::Close(frame))) => return ended(closed(frame.as_ref())),
            Some(Ok(_)) => {}
            Some(Err(error)) => return ended(lost(&error)),
            None => return ended(WireEnd::HungUp),
        }
    }
    if session.start().is_none() {
        tracing::warn!(
            coding = %fallback,
            "Asterisk sent no MEDIA_START; its audio is taken to be what asterisk_websocket.format says"
        );
    }
    let start = session.start().cloned();
    Ok((PendingSocket::new(socket, session, early), start))
}

/// Messages kept for a channel whose format is not known.
const EARLY_MOST: usize = 50;
