//! Ultravox Realtime over its WebSocket medium: a call is made by REST, its media socket is joined.
//!
//! `request` and `wire` are its JSON; `map` is the protocol as a pure core, with `speech` (who speaks) and
//! `tools` (what is open) inside; `uplink` is the clock the caller's audio leaves by; `calls` and `socket`
//! are shells. This file configures and opens sessions.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;

use self::calls::Calls;
use self::map::Mapper;
use self::request::CallObject;
use self::socket::{Joined, Opened};
use self::uplink::Uplink;
use self::wire::ServerMessage;
use super::connect::{Connector, WebSocket};
use super::lease::{Keys, Lease};
use super::{OpenFuture, OpenedSession, Provider, ProviderError, SessionSpec};

pub use self::request::{CallSettings, Vad};

mod calls;
pub mod map;
pub mod request;
mod socket;
pub mod speech;
pub mod tools;
pub mod uplink;
pub mod wire;

/// One `[providers.NAME]` section of kind `ultravox`.
#[derive(Debug, Clone)]
pub struct UltravoxConfig {
    /// The section's name.
    pub name: String,
    /// Address of the service.
    pub url: String,
    /// API keys, used in turn. Empty: none is sent.
    pub api_keys: Vec<SecretString>,
    /// How long making the call, joining it and its start may take together.
    pub connect_timeout: Duration,
    /// What calls are made with.
    pub call: CallSettings,
    /// Certificates trusted besides the web's, for a service with a private authority.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for UltravoxConfig {
    fn default() -> Self {
        Self {
            name: "ultravox".to_owned(),
            url: "https://api.ultravox.ai".to_owned(),
            api_keys: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            call: CallSettings::default(),
            extra_roots: Vec::new(),
        }
    }
}

/// Opens sessions with Ultravox.
#[derive(Debug, Clone)]
pub struct Ultravox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: UltravoxConfig,
    connector: Connector,
    calls: Calls,
    keys: Keys,
}

impl Ultravox {
    /// A provider with these settings.
    ///
    /// # Errors
    /// [`ProviderError::Misconfigured`] when the address, a key or a sample rate cannot be used.
    pub fn new(config: UltravoxConfig) -> Result<Self, ProviderError> {
        let connector = Connector::new(&config.name, &config.extra_roots)?;
        let calls = Calls::new(&config.name, &config.url, &config.extra_roots, config.connect_timeout)?;
        let keys = Keys::new(&config.name, config.api_keys.iter().cloned());
        let inner = Inner { config, connector, calls, keys };
        for rate in [inner.config.call.input_sample_rate, inner.config.call.output_sample_rate] {
            if !RATES.contains(&rate) {
                return Err(inner.misconfigured(format!(
                    "a sample rate is {rate}; it must be 8000, 16000, 24000 or 48000"
                )));
            }
        }
        for key in &inner.config.api_keys {
            if reqwest::header::HeaderValue::from_str(key.expose_secret().trim()).is_err() {
                return Err(inner.misconfigured("an API key holds characters that no header can carry"));
            }
        }
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Provider for Ultravox {
    fn name(&self) -> &str {
        &self.inner.config.name
    }

    fn kind(&self) -> &'static str {
        "ultravox"
    }

    fn open(&self, spec: SessionSpec) -> OpenFuture {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let limit = inner.config.connect_timeout;
            let organization = spec.organization.clone();
            let opening = inner.keys.open(organization, |lease| inner.open(&spec, lease));
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
    async fn open(&self, spec: &SessionSpec, lease: Lease) -> Result<Box<dyn OpenedSession>, ProviderError> {
        let settings = &self.config.call;
        let call = self.calls.create(lease.secret(), request::start_call(spec, settings)).await?;
        let mut socket = self.connector.connect(self.join(&call)?).await?;
        let joined_at = Instant::now();
        let mut uplink = Uplink::new(joined_at, settings.input_sample_rate);
        self.started(&mut socket, &mut uplink).await?;
        let model = call.model.as_deref().or(spec.model.as_deref()).or(settings.model.as_deref());
        let mapper = Mapper::new(spec, settings, model.unwrap_or(DEFAULT_MODEL).into());
        let joined = Joined {
            calls: self.calls.clone(),
            call_id: call.call_id,
            lease,
            runtime: tokio::runtime::Handle::current(),
            joined_at,
            limit: settings.max_duration,
        };
        Ok(Box::new(Opened::new(socket, mapper, uplink, joined)))
    }

    /// Waits until the call is live. The service hears silence meanwhile, which it must, from the start.
    async fn started(&self, socket: &mut WebSocket, uplink: &mut Uplink) -> Result<(), ProviderError> {
        let mut garbage = 0;
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                () = tokio::time::sleep_until(uplink.due().into()) => {
                    if let Some(frame) = uplink.poll(Instant::now()) {
                        socket.send(Message::binary(frame)).await.map_err(|error| self.gone(error))?;
                    }
                    continue;
                }
            };
            match message {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                    Ok(ServerMessage::CallStarted { .. }) => return Ok(()),
                    Ok(_) => {}
                    Err(_) => garbage += 1,
                },
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(self.gone(format!("closed with {}: {}", frame.code, frame.reason)));
                }
                Some(Ok(Message::Close(None))) | None => return Err(self.gone("closed")),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.gone(error)),
            }
            if garbage >= MAX_GARBAGE {
                return Err(self.gone("what it sends is no JSON"));
            }
        }
    }

    /// The call's media socket: the service's address as it is, with the version of the protocol we speak.
    fn join(&self, call: &CallObject) -> Result<Request, ProviderError> {
        let wrong = |cause: &dyn fmt::Display| ProviderError::Unreachable {
            provider: self.config.name.clone(),
            cause: format!("the call's joinUrl {cause}"),
        };
        let url = call.join_url.as_deref().ok_or_else(|| wrong(&"is missing"))?;
        let secure = url.starts_with("wss://");
        if !secure && (self.calls.is_secure() || !url.starts_with("ws://")) {
            return Err(wrong(&"is not a wss:// address"));
        }
        with_version(url).into_client_request().map_err(|error| wrong(&format!("is unusable: {error}")))
    }

    fn gone(&self, cause: impl fmt::Display) -> ProviderError {
        ProviderError::Unreachable {
            provider: self.config.name.clone(),
            cause: format!("the connection ended before the call began: {cause}"),
        }
    }

    fn misconfigured(&self, cause: impl Into<String>) -> ProviderError {
        ProviderError::Misconfigured { provider: self.config.name.clone(), cause: cause.into() }
    }
}

fn with_version(url: &str) -> String {
    let query = url.split_once('?').map(|(_, query)| query);
    match query {
        Some(query) if query.split('&').any(|part| part.starts_with("apiVersion=")) => url.to_owned(),
        Some("") => format!("{url}apiVersion=1"),
        Some(_) => format!("{url}&apiVersion=1"),
        None => format!("{url}?apiVersion=1"),
    }
}

/// Rates that can be made of the bridge's 24 kHz.
const RATES: [u32; 4] = [8_000, 16_000, 24_000, 48_000];
/// What the service takes when none is named.
const DEFAULT_MODEL: &str = "ultravox-v0.7";
/// Texts that are no JSON before the service is given up.
const MAX_GARBAGE: u32 = 5;

#[cfg(test)]
mod tests;
