//! The API's client: over the Unix socket of this host, or HTTP(S) to another.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::failure::{Exit, Failure};
use crate::config::values::split_url;

/// Speaks to one server.
pub struct Client {
    server: Server,
    token: Option<SecretString>,
}

enum Server {
    Socket(PathBuf),
    Url { host: String, port: u16, tls: bool },
}

/// A connected byte stream of either kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A feed socket.
pub type FeedSocket = WebSocketStream<Box<dyn Stream>>;

impl Client {
    /// A client of `--server URL`, or of the local socket. The token is that of `TANDEM_TOKEN`.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(server: Option<&str>, socket: PathBuf) -> Result<Self, Failure> {
        let token = std::env::var("TANDEM_TOKEN").ok().filter(|token| !token.is_empty()).map(Into::into);
        let server = match server {
            None => Server::Socket(socket),
            Some(url) => {
                let parts = split_url(url).filter(|parts| matches!(parts.scheme, "http" | "https"));
                let parts = parts.ok_or_else(|| {
                    let fix = "write it like https://tandem.example.com or http://127.0.0.1:8080";
                    Failure::new(Exit::Usage, format!("--server: \"{url}\" is no URL of a server"), fix)
                })?;
                let (host, tls) = (parts.host.to_owned(), parts.scheme == "https");
                Server::Url { host, port: parts.port_or_default(), tls }
            }
        };
        Ok(Self { server, token })
    }

    /// Whether no server is named and none has been started on this host: nothing is wrong when none answers.
    pub fn has_no_server(&self) -> bool {
        matches!(&self.server, Server::Socket(path) if !path.exists())
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.request(Method::GET, path, None).await
    }

    /// `GET path` of something that is no JSON, such as a file.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn get_file(&self, path: &str) -> Result<Bytes, Failure> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(header::HOST, self.authority())
            .header(header::USER_AGENT, concat!("tandem/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        let request = request.body(Full::new(Bytes::new())).map_err(|error| {
            Failure::new(Exit::Usage, format!("the request cannot be sent: {error}"), "check TANDEM_TOKEN")
        })?;
        let (status, bytes) =
            timeout(ANSWER_PATIENCE, self.exchange(request)).await.unwrap_or_else(|_| {
                Err(self.unreachable(&format!("no answer within {} s", ANSWER_PATIENCE.as_secs())))
            })?;
        if !(200..300).contains(&status) {
            return Err(Failure::from_problem(status, serde_json::from_slice(&bytes).unwrap_or_default()));
        }
        Ok(bytes)
    }

    /// `POST path` with a body of that content type.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn post(&self, path: &str, content_type: &str, body: String) -> Result<Value, Failure> {
        self.request(Method::POST, path, Some((content_type, body))).await
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.request(Method::DELETE, path, None).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<Value, Failure> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::HOST, self.authority())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("tandem/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        if method == Method::POST {
            // A retry after a lost answer must not say or end anything twice.
            request = request.header("idempotency-key", format!("{:032x}", rand::random::<u128>()));
        }
        let (content_type, body) = body.unwrap_or_default();
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| {
            Failure::new(Exit::Usage, format!("the request cannot be sent: {error}"), "check TANDEM_TOKEN")
        })?;
        let exchange = async {
            let (status, bytes) = self.exchange(request).await?;
            read_answer(status, &bytes)
        };
        timeout(ANSWER_PATIENCE, exchange).await.unwrap_or_else(|_| {
            Err(self.unreachable(&format!("no answer within {} s", ANSWER_PATIENCE.as_secs())))
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), Failure> {
        let lost = |error: hyper::Error| self.unreachable(&super::output::chain(&error));
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(lost)?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        // The connection lives as long as the exchange; nothing is left running after it.
        tokio::pin!(exchange);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            answer = &mut exchange => answer.map_err(lost),
            ended = &mut connection => match ended {
                Ok(()) => exchange.await.map_err(lost),
                Err(error) => Err(lost(error)),
            },
        }
    }

    /// Opens the live feed.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn feed(&self) -> Result<FeedSocket, Failure> {
        let url = format!("ws://{}/api/v1/events", self.authority());
        let unusable = |error: &dyn std::error::Error| self.unreachable(&error.to_string());
        let mut request = url.into_client_request().map_err(|error| unusable(&error))?;
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", header::HeaderValue::from_static(SUBPROTOCOL));
        if let Some(token) = &self.token {
            let value = header::HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(
                |_| Failure::new(Exit::Usage, "TANDEM_TOKEN is no token", "set it to the token alone"),
            )?;
            headers.insert(header::AUTHORIZATION, value);
        }
        let stream = self.connect().await?;
        let shaken = timeout(ANSWER_PATIENCE, tokio_tungstenite::client_async(request, stream)).await;
        match shaken.map_err(|_| self.unreachable("no answer to the WebSocket handshake"))? {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let problem = serde_json::from_slice(body).unwrap_or_default();
                Err(Failure::from_problem(response.status().as_u16(), problem))
            }
            Err(error) => Err(unusable(&error)),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        timeout(CONNECT_PATIENCE, self.connect_patiently()).await.unwrap_or_else(|_| {
            Err(self.unreachable(&format!("no connection within {} s", CONNECT_PATIENCE.as_secs())))
        })
    }

    async fn connect_patiently(&self) -> Result<Box<dyn Stream>, Failure> {
        let lost = |error: std::io::Error| self.unreachable(&error.to_string());
        match &self.server {
            Server::Socket(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(lost)?)),
            Server::Url { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(lost)?;
                stream.set_nodelay(true).map_err(lost)?;
                if !tls {
                    return Ok(Box::new(stream));
                }
                let name = ServerName::try_from(host.clone())
                    .map_err(|error| self.unreachable(&error.to_string()))?;
                Ok(Box::new(tls_connector().connect(name, stream).await.map_err(lost)?))
            }
        }
    }

    fn authority(&self) -> String {
        match &self.server {
            Server::Socket(_) => "localhost".into(),
            Server::Url { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Server::Url { host, port, .. } => format!("{host}:{port}"),
        }
    }

    fn unreachable(&self, cause: &str) -> Failure {
        let (where_, fix) = match &self.server {
            Server::Socket(path) => (
                path.display().to_string(),
                "start Tandem with `tandem serve`, or name a running one with --server URL".to_owned(),
            ),
            Server::Url { .. } => (self.authority(), "check the URL, and that the server runs".to_owned()),
        };
        Failure::new(Exit::Unreachable, format!("no Tandem can be reached at {where_}: {cause}"), fix)
    }
}

/// The sub-protocol of the live feed.
pub const SUBPROTOCOL: &str = "tandem.console.v1";

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

fn tls_connector() -> TlsConnector {
    let roots: rustls::RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn read_answer(status: u16, body: &[u8]) -> Result<Value, Failure> {
    let value: Option<Value> =
        if body.is_empty() { Some(Value::Null) } else { serde_json::from_slice(body).ok() };
    if !(200..300).contains(&status) {
        return Err(Failure::from_problem(status, value.unwrap_or_default()));
    }
    value.ok_or_else(|| {
        let fix = "check that --server names a Tandem of about this version";
        Failure::new(Exit::Failure, "the server's answer is not JSON", fix)
    })
}
