//! Opens a WebSocket on one runtime and moves it to another.
//!
//! DNS, TCP, TLS and the WebSocket handshake run on the ordinary runtime, where nothing else suffers when
//! they take long. The open connection is then *re-homed*: its TCP socket is taken out of the runtime that
//! opened it and registered with the one of the calling thread. Bytes that TLS or the WebSocket layer hold
//! at that moment stay in those layers, which know of no runtime, so nothing is lost or repeated.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::time::UnixMs;
use crate::web::homed::{Homed, Transport};
use crate::web::trust;

pub use crate::web::homed::{WebSocket, rehome};

use super::ProviderError;

/// Opens WebSockets for one provider.
#[derive(Debug, Clone)]
pub struct Connector {
    provider: Arc<str>,
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// A connector that trusts the web's certificate authorities, and `extra_roots` besides them.
    ///
    /// # Errors
    /// [`ProviderError::Misconfigured`] when one of `extra_roots` is not a certificate.
    pub fn new(provider: &str, extra_roots: &[CertificateDer<'static>]) -> Result<Self, ProviderError> {
        let tls = if extra_roots.is_empty() {
            web_trust().map_err(|error| error.to_string())
        } else {
            trust(extra_roots).map(Arc::new).map_err(|error| error.to_string())
        };
        let tls = tls.map_err(|cause| ProviderError::Misconfigured {
            provider: provider.to_owned(),
            cause: format!("TLS cannot be set up: {cause}"),
        })?;
        Ok(Self { provider: provider.into(), tls })
    }

    /// Connects to a `ws://` or `wss://` address. Has no time limit of its own.
    ///
    /// # Errors
    /// [`ProviderError`]: unreachable, refused with its HTTP status, or an unusable address.
    pub async fn connect(&self, request: Request) -> Result<WebSocket, ProviderError> {
        let target = Target::of(&request).map_err(|cause| self.misconfigured(cause))?;
        let tcp = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(|error| self.unreachable(format!("{}:{}: {error}", target.host, target.port)))?;
        tune(&tcp).map_err(|error| self.unreachable(error))?;
        let tcp = Homed::from(tcp);
        let transport = if target.secure {
            let name = ServerName::try_from(target.host.clone()).map_err(|e| self.misconfigured(e))?;
            let connecting = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp);
            let tls = connecting.await.map_err(|error| self.unreachable(format!("TLS: {error}")))?;
            Transport::Tls(Box::new(tls.into()))
        } else {
            Transport::Plain(tcp)
        };
        let shaken = tokio_tungstenite::client_async_with_config(request, transport, Some(buffers())).await;
        shaken.map(|(socket, _)| socket).map_err(|error| self.handshake_failed(error))
    }

    fn handshake_failed(&self, error: tungstenite::Error) -> ProviderError {
        match error {
            tungstenite::Error::Http(response) => ProviderError::Refused {
                provider: self.provider.to_string(),
                status: response.status().as_u16(),
                retry_after: retry_after(response.headers(), UnixMs::now()),
            },
            other => self.unreachable(format!("WebSocket handshake: {other}")),
        }
    }

    fn unreachable(&self, cause: impl ToString) -> ProviderError {
        ProviderError::Unreachable { provider: self.provider.to_string(), cause: cause.to_string() }
    }

    fn misconfigured(&self, cause: impl ToString) -> ProviderError {
        ProviderError::Misconfigured { provider: self.provider.to_string(), cause: cause.to_string() }
    }
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    secure: bool,
}

impl Target {
    fn of(request: &Request) -> Result<Self, String> {
        let uri = request.uri();
        let secure = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") => false,
            _ => return Err(format!("`{uri}` is no WebSocket address; it must start with ws:// or wss://")),
        };
        let host = uri.host().ok_or_else(|| format!("`{uri}` names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }), secure })
    }
}

/// Small frames leave at once, and a service that does not read is noticed soon: what waits in the
/// kernel's send buffer can no longer be given up in favour of newer audio.
fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    socket2::SockRef::from(tcp).set_send_buffer_size(SEND_BUFFER_BYTES)
}

/// The library's default buffers cost 160 kB a connection. This one holds 200 ms of assistant audio, which is
/// what services commonly send at a time; it grows for longer messages.
fn buffers() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(12 << 10)
        .write_buffer_size(4 << 10)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// The configuration all connections to public services share, with its session cache.
fn web_trust() -> Result<Arc<ClientConfig>, rustls::Error> {
    static SHARED: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(shared) = SHARED.get() {
        return Ok(Arc::clone(shared));
    }
    let config = Arc::new(trust(&[])?);
    Ok(Arc::clone(SHARED.get_or_init(|| config)))
}

/// `Retry-After` as seconds or as a date (RFC 9110 section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: UnixMs) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    let wait_ms = date.timestamp_millis() - now.get();
    Some(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)))
}

/// About one second of caller audio in base64; the kernel doubles it for its own bookkeeping.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// A delta may hold many seconds of audio.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    #[test]
    fn an_address_gives_host_port_and_whether_tls_is_needed() {
        for (address, host, port, secure) in [
            ("ws://127.0.0.1:9400/v1/realtime", "127.0.0.1", 9400, false),
            ("wss://api.example.com/v1/realtime?model=m", "api.example.com", 443, true),
            ("ws://[::1]/x", "::1", 80, false),
        ] {
            let request = address.into_client_request().unwrap();
            assert_eq!(Target::of(&request), Ok(Target { host: host.into(), port, secure }));
        }
        assert!(Target::of(&Request::get("https://example.com/").body(()).unwrap()).is_err());
        assert!(Target::of(&Request::get("/v1").body(()).unwrap()).is_err());
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = UnixMs::parse_rfc3339("2026-11-21T07:28:00Z").unwrap();
        for (text, seconds) in [
            ("20", Some(20)),
            ("Sat, 21 Nov 2026 07:28:30 GMT", Some(30)),
            ("Fri, 20 Nov 2026 07:28:30 GMT", Some(0)),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("Retry-After", text.parse().unwrap());
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
