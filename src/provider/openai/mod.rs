//! The OpenAI Realtime API (GA) over WebSocket, or any service that speaks it.
//!
//! `wire` and `request` are its JSON, both ways; `opening` and `map` are the protocol as pure cores, with
//! `items` (what came, what was cut) and `sequencer` (when to ask for a response) inside; `uplink` gathers the
//! caller's audio; `socket` is the shell. This file configures and opens sessions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};

use self::map::Mapper;
use self::opening::{Opening, Step};
use self::socket::Opened;
use self::uplink::Uplink;
use super::connect::{Connector, WebSocket};
use super::lease::{Keys, Lease};
use super::{OpenFuture, OpenedSession, Provider, ProviderError, SessionSpec};

pub use self::opening::SessionDefaults;

pub mod items;
pub mod map;
pub mod opening;
pub mod request;
pub mod sequencer;
mod socket;
pub mod uplink;
pub mod wire;

/// One `[providers.NAME]` section of kind `openai`.
#[derive(Debug, Clone)]
pub struct OpenAiConfig {
    /// The section's name.
    pub name: String,
    /// WebSocket address of the service, without the model.
    pub url: String,
    /// Model for assistants that name none.
    pub model: String,
    /// API keys, used in turn. Empty: none is sent.
    pub api_keys: Vec<SecretString>,
    /// How long DNS, TCP, TLS, handshake and the session's configuration may take together.
    pub connect_timeout: Duration,
    /// Audio per WebSocket message, 20 to 200 ms. More saves CPU and adds delay.
    pub uplink_interval_ms: u16,
    /// Audio per message while the caller is quiet and is not heard to speak, 20 to 200 ms; at least the other.
    pub quiet_uplink_interval_ms: u16,
    /// How long the service lets a session last; `None`: for ever.
    pub session_limit: Option<Duration>,
    /// What sessions are configured with.
    pub session: SessionDefaults,
    /// Headers sent with the handshake besides ours.
    pub extra_headers: Vec<(String, String)>,
    /// Certificates trusted besides the web's, for a service with a private authority.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for OpenAiConfig {
    fn default() -> Self {
        Self {
            name: "openai".to_owned(),
            url: "wss://api.openai.com/v1/realtime".to_owned(),
            model: "gpt-realtime-2.1".to_owned(),
            api_keys: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            uplink_interval_ms: 20,
            quiet_uplink_interval_ms: 100,
            session_limit: Some(Duration::from_secs(3600)),
            session: SessionDefaults::default(),
            extra_headers: Vec::new(),
            extra_roots: Vec::new(),
        }
    }
}

/// Opens sessions with one OpenAI-compatible service.
#[derive(Debug, Clone)]
pub struct OpenAi {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: OpenAiConfig,
    connector: Connector,
    keys: Keys,
}

impl OpenAi {
    /// A provider with these settings.
    ///
    /// # Errors
    /// [`ProviderError::Misconfigured`] when the address, a header, a key or the uplink interval cannot be
    /// used.
    pub fn new(config: OpenAiConfig) -> Result<Self, ProviderError> {
        let connector = Connector::new(&config.name, &config.extra_roots)?;
        let keys = Keys::new(&config.name, config.api_keys.iter().cloned());
        let inner = Inner { config, connector, keys };
        let OpenAiConfig { uplink_interval_ms, quiet_uplink_interval_ms, .. } = inner.config;
        let intervals = [
            ("uplink_interval_ms", uplink_interval_ms),
            ("quiet_uplink_interval_ms", quiet_uplink_interval_ms),
        ];
        for (key, interval) in intervals {
            if !(20..=200).contains(&interval) {
                return Err(inner.misconfigured(format!("{key} is {interval}; it must be 20 to 200")));
            }
        }
        for key in &inner.config.api_keys {
            inner.bearer(key)?;
        }
        inner.request(&SessionSpec::default(), None)?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Provider for OpenAi {
    fn name(&self) -> &str {
        &self.inner.config.name
    }

    fn kind(&self) -> &'static str {
        "openai"
    }

    fn open(&self, spec: SessionSpec) -> OpenFuture {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let limit = inner.config.connect_timeout;
            let organization = spec.organization.clone();
            let opening = inner.keys.open(organization, |lease| inner.open(spec.clone(), lease));
            tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
                Err(ProviderError::Timeout { provider: inner.config.name.clone(), after: limit })
            })
        })
    }

    fn keys(&self) -> Option<&Keys> {
        Some(&self.inner.keys)
    }
}

impl Inner {
    async fn open(&self, spec: SessionSpec, lease: Lease) -> Result<Box<dyn OpenedSession>, ProviderError> {
        let mut socket = self.connector.connect(self.request(&spec, lease.secret())?).await?;
        let model = spec.model.clone().unwrap_or_else(|| self.config.model.clone());
        let opening = Opening::new(spec, &self.config.session, &model);
        let mapper = self.configure(&mut socket, opening).await?;
        let OpenAiConfig { uplink_interval_ms, quiet_uplink_interval_ms, session_limit, .. } = self.config;
        let uplink = Uplink::new(uplink_interval_ms, quiet_uplink_interval_ms);
        Ok(Box::new(Opened::new(socket, mapper, uplink, session_limit, lease)))
    }

    async fn configure(&self, socket: &mut WebSocket, mut opening: Opening) -> Result<Mapper, ProviderError> {
        loop {
            let step = match socket.next().await {
                Some(Ok(Message::Text(text))) => opening.handle_text(&text),
                Some(Ok(Message::Binary(_))) => opening.garbage(),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(self.gone(format!("closed with {}: {}", frame.code, frame.reason)));
                }
                Some(Ok(Message::Close(None))) | None => return Err(self.gone("closed")),
                Some(Ok(_)) => Step::Wait,
                Some(Err(error)) => return Err(self.gone(error)),
            };
            match step {
                Step::Wait => {}
                Step::Send(message) => {
                    socket.send(Message::text(message)).await.map_err(|error| self.gone(error))?;
                }
                Step::Refused(code) => {
                    return Err(ProviderError::SessionRefused { provider: self.config.name.clone(), code });
                }
                Step::Ready(mapper) => return Ok(*mapper),
            }
        }
    }

    fn request(&self, spec: &SessionSpec, key: Option<&SecretString>) -> Result<Request, ProviderError> {
        let address = with_model(&self.config.url, spec.model.as_deref().unwrap_or(&self.config.model));
        let mut request = address
            .as_str()
            .into_client_request()
            .map_err(|error| self.misconfigured(format!("the address `{}`: {error}", self.config.url)))?;
        if !matches!(request.uri().scheme_str(), Some("ws" | "wss")) {
            let cause = format!("the address `{}` must start with ws:// or wss://", self.config.url);
            return Err(self.misconfigured(cause));
        }
        let headers = request.headers_mut();
        for (name, value) in &self.config.extra_headers {
            let unusable = |error: &dyn fmt::Display| self.misconfigured(format!("header `{name}`: {error}"));
            let header = HeaderName::try_from(name.as_str()).map_err(|error| unusable(&error))?;
            headers.insert(header, HeaderValue::from_str(value).map_err(|error| unusable(&error))?);
        }
        if let Some(pseudonym) = &spec.safety_identifier
            && let Ok(value) = HeaderValue::from_str(pseudonym)
        {
            headers.insert(SAFETY_IDENTIFIER, value);
        }
        if let Some(key) = key {
            headers.insert(AUTHORIZATION, self.bearer(key)?);
        }
        Ok(request)
    }

    fn bearer(&self, key: &SecretString) -> Result<HeaderValue, ProviderError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret().trim()))
            .map_err(|_| self.misconfigured("an API key holds characters that no header can carry"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn gone(&self, cause: impl fmt::Display) -> ProviderError {
        ProviderError::Unreachable {
            provider: self.config.name.clone(),
            cause: format!("the connection ended before the session began: {cause}"),
        }
    }

    fn misconfigured(&self, cause: impl Into<String>) -> ProviderError {
        ProviderError::Misconfigured { provider: self.config.name.clone(), cause: cause.into() }
    }
}

/// `url` with its `model` parameter.
fn with_model(url: &str, model: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    let mut address = format!("{url}{joint}model=");
    for byte in model.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => address.push(byte.into()),
            _ => address.push_str(&format!("%{byte:02X}")),
        }
    }
    address
}

const AUTHORIZATION: HeaderName = HeaderName::from_static("authorization");
const SAFETY_IDENTIFIER: HeaderName = HeaderName::from_static("openai-safety-identifier");

#[cfg(test)]
mod tests;
