//! REST, the live feed, health and metrics.
//!
//! One router serves two doors: TCP, where every request outside of health, metrics and documentation
//! needs a token, and a Unix socket in the data directory, whose file permissions make whoever can open
//! it the owner of the server. Errors are problem documents ([`problem`]); every answer carries a
//! `Request-Id`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::call::handle::Calls;
use crate::id::RequestId;
use crate::routing::dialer::Dialer;
use crate::store::{Feed, Store};

pub mod announcements;
pub mod ari;
pub mod auth;
pub mod calls;
pub mod connections;
pub mod costs;
pub mod dial;
pub mod docs;
pub mod feed;
pub mod hooks;
pub mod phones;
pub mod problem;
pub mod providers;
pub mod resources;
pub mod system;
pub mod tools;
pub mod trace;
pub mod transcript;
pub mod trunks;

use auth::{Caller, Tickets};
use problem::Problem;

/// What the handlers work with.
pub struct Api {
    /// Records.
    pub store: Store,
    /// Committed events.
    pub feed: Feed,
    /// Live calls.
    pub calls: Calls,
    /// The trunks' state.
    pub carriers: crate::sip::carrier::Carriers,
    /// The PBX behind `[ari]`; `None` without the section.
    pub ari: Option<crate::ari::AriHandle>,
    /// Keeps the signalling of calls; `None` when nothing is kept.
    pub trace: Option<crate::sip::tap::Recorder>,
    /// The providers, and which of them are used by default.
    pub planner: crate::routing::plan::Planner,
    /// The providers' keys in the database.
    pub provider_keys: Arc<crate::provider::stored_keys::StoredKeys>,
    /// Starts calls.
    pub dialer: Dialer,
    /// Whether calls can be taken now, and why not.
    pub readiness: Box<dyn Readiness>,
    /// Takes resources declared in a file.
    pub resources: Box<dyn ApplyResources>,
    /// Phones, and where they are.
    pub phones: Box<dyn ManagePhones>,
    /// Who is expected at the doors of the PBX.
    pub announcements: crate::pbx::Announcements,
    /// Fetches calls that wait at Asterisk; `None` when it is not configured where.
    pub connector: Option<crate::chan_websocket::connector::Connector>,
    /// What assistants can do.
    pub tools: crate::tools::registry::Registry,
    /// The text of `/metrics`.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Outstanding WebSocket tickets.
    pub tickets: Tickets,
    /// How many more feed sockets may be open.
    pub sockets: Arc<Semaphore>,
    /// Cancelled when the server stops.
    pub stopping: CancellationToken,
    /// How often feed sockets are pinged.
    pub heartbeat: Duration,
    /// Largest request body in bytes.
    pub body_limit: usize,
}

/// Tells whether calls can be taken.
pub trait Readiness: Send + Sync {
    /// The reasons why calls cannot be taken now; empty when they can.
    fn obstacles(&self) -> BoxFuture<'_, Vec<Obstacle>>;
}

/// One reason for not being ready.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Obstacle {
    /// `store`, `sip`, `provider`, `draining`.
    pub part: &'static str,
    /// In words.
    pub reason: String,
}

/// Applies declared resources.
pub trait ApplyResources: Send + Sync {
    /// Applies the TOML text; answers what changed, as JSON.
    fn apply(&self, text: String) -> BoxFuture<'_, Result<serde_json::Value, Problem>>;
}

/// A phone somebody wants to have.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPhone {
    /// Whose it is.
    pub organization: String,
    /// Its user, which is its extension too.
    pub user: String,
    /// Its password. Only hashes of it are kept.
    #[serde(deserialize_with = "password")]
    pub password: secrecy::SecretString,
    /// The number its calls come from.
    pub number: Option<String>,
    /// Trunks it may call out over.
    #[serde(default)]
    pub trunks: Vec<String>,
}

fn password<'de, D: serde::Deserializer<'de>>(text: D) -> Result<secrecy::SecretString, D::Error> {
    <String as serde::Deserialize>::deserialize(text).map(Into::into)
}

/// Manages phones.
pub trait ManagePhones: Send + Sync {
    /// All phones, with where they are registered.
    fn list(&self) -> BoxFuture<'_, Result<Vec<serde_json::Value>, Problem>>;
    /// One phone.
    fn show(&self, user: String) -> BoxFuture<'_, Result<Option<serde_json::Value>, Problem>>;
    /// Stores a phone, new or other than before.
    fn put(
        &self,
        phone: NewPhone,
    ) -> BoxFuture<'_, Result<(crate::store::Applied, serde_json::Value), Problem>>;
    /// Removes a phone and its registrations; whether there was one.
    fn remove(&self, user: String) -> BoxFuture<'_, Result<bool, Problem>>;
}

/// A boxed future that other threads may poll.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the HTTP side could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TCP address cannot be had.
    #[error("http.listen {address} cannot be had; choose another port or stop what uses it")]
    Tcp {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The Unix socket cannot be had.
    #[error("the control socket {} cannot be had", path.display())]
    Unix {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A running HTTP side.
#[derive(Debug)]
pub struct Running {
    /// The TCP address, with the port the system gave.
    pub address: SocketAddr,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    socket: Option<PathBuf>,
}

impl Running {
    /// Waits for requests in progress, at most `patience`. The server's stop token must be cancelled.
    pub async fn stop(self, patience: Duration) {
        for mut task in self.tasks {
            if tokio::time::timeout(patience, &mut task).await.is_err() {
                task.abort();
            }
        }
        if let Some(path) = self.socket {
            // Whoever finds a stale socket replaces it, so a failure here changes nothing.
            let _stale = std::fs::remove_file(path);
        }
    }
}

/// Opens both doors. `socket` is the path of the Unix socket.
///
/// # Errors
/// When an address cannot be bound.
pub async fn start(api: Arc<Api>, listen: SocketAddr, socket: Option<&Path>) -> Result<Running, StartError> {
    let tcp =
        TcpListener::bind(listen).await.map_err(|source| StartError::Tcp { address: listen, source })?;
    let address = tcp.local_addr().map_err(|source| StartError::Tcp { address: listen, source })?;
    let router = router(&api);
    let stop = api.stopping.clone();
    let over_tcp = axum::serve(tcp, router.clone()).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut tasks = vec![tokio::spawn(async move {
        if let Err(error) = over_tcp.await {
            tracing::error!(%error, "the HTTP server stopped");
        }
    })];
    if let Some(path) = socket {
        let unix = bind_unix(path).map_err(|source| StartError::Unix { path: path.to_owned(), source })?;
        let local = router.layer(Extension(Caller::local()));
        let over_unix = axum::serve(unix, local).with_graceful_shutdown(stop.cancelled_owned());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = over_unix.await {
                tracing::error!(%error, "the control socket stopped");
            }
        }));
    }
    Ok(Running { address, tasks, socket: socket.map(Path::to_owned) })
}

/// The socket file can be used by its owner alone. One that a dead server left behind is replaced; one
/// that answers belongs to a server that runs, and is left alone.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another server already runs with this data_dir; stop it or choose another data_dir",
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn router(api: &Arc<Api>) -> Router {
    let v1 = Router::new()
        .route("/calls", get(calls::list).post(dial::start))
        .route("/calls/{id}", get(calls::show))
        .route("/calls/{id}/transcript", get(transcript::transcript))
        .route("/calls/{id}/events", get(calls::events))
        .route("/calls/{id}/cost", get(costs::of_call))
        .route("/calls/{id}/end", post(calls::end))
        .route("/calls/{id}/say", post(calls::say))
        .route("/calls/{id}/transfer", post(dial::transfer))
        .route("/calls/{id}/hold", post(dial::hold))
        .route("/calls/{id}/dtmf", post(dial::dtmf))
        .route("/calls/{id}/trace", get(trace::trace))
        .route("/calls/{id}/pcap", get(trace::capture))
        .route("/announcements", post(announcements::announce))
        .route("/announcements/{key}", delete(announcements::withdraw))
        .route("/connections", post(connections::connect))
        .route("/costs", get(costs::sums))
        .route("/events", get(feed::socket::events))
        .route("/ws-tickets", post(system::ws_ticket))
        .route("/me", get(system::me))
        .route("/apply", post(resources::apply))
        .route("/organizations", get(resources::organizations))
        .route("/assistants", get(resources::assistants))
        .route("/numbers", get(resources::numbers))
        .route("/phones", get(phones::list).post(phones::put))
        .route("/phones/{user}", get(phones::show).delete(phones::remove))
        .route("/ari", get(ari::status))
        .route("/ari/channels", get(ari::channels))
        .route("/ari/channels/{id}/listen", post(ari::listen))
        .route("/trunks", get(trunks::list))
        .route("/trunks/{name}", get(trunks::show))
        .route("/trunks/{name}/test", post(trunks::test))
        .route("/tools", get(tools::list))
        .route("/tools/{name}", axum::routing::delete(tools::remove))
        .route("/tools/{name}/test", post(tools::test))
        .route("/providers", get(providers::list))
        .route("/providers/{name}", get(providers::show))
        .route("/providers/{name}/check", post(providers::check))
        .route("/providers/{name}/reset", post(providers::reset))
        .route("/providers/{name}/keys", get(providers::keys).post(providers::add_key))
        .route("/providers/{name}/keys/{id}", axum::routing::delete(providers::remove_key))
        .route("/provider-keys/rotate", post(providers::rotate))
        .route("/openapi.json", get(docs::openapi))
        .fallback(async || Problem::not_found("there is no such path; see /docs"));
    Router::new()
        .route("/health", get(system::health))
        .route("/ready", get(system::ready))
        .route("/metrics", get(system::metrics))
        .route("/hooks/ultravox/{provider}", post(hooks::ultravox))
        .route("/docs", get(docs::page))
        .route("/docs/errors", get(docs::errors))
        .nest("/api/v1", v1)
        .fallback(async || Problem::not_found("there is no such path; see /docs"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
                "this path exists, but not with this method; see /docs",
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(api), auth::identify))
        .layer(DefaultBodyLimit::max(api.body_limit))
        .layer(middleware::from_fn(around))
        .with_state(Arc::clone(api))
}

/// Gives the request its id and a time limit, and the answer its headers.
async fn around(request: Request, next: Next) -> Response {
    let id = RequestId::fresh().to_string();
    let mut response = match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("the request took too long").into_response(),
    };
    if response.extensions().get::<Problem>().is_none()
        && let Some((code, title)) = rejection(response.status())
    {
        response = explained(response, code, title).await;
    }
    if let Some(problem) = response.extensions().get::<Problem>() {
        let mut document = problem.to_json();
        document["request_id"] = id.as_str().into();
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(axum::http::header::CONTENT_LENGTH);
        response = Response::from_parts(parts, document.to_string().into());
    }
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    headers.insert(
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static("default-src 'self'; frame-ancestors 'none'"),
    );
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("request-id"), id);
    }
    response
}

/// The code and title of a refusal that no handler has written: a body or a parameter that does not fit.
fn rejection(status: StatusCode) -> Option<(&'static str, &'static str)> {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Some(("too_large", "The request is too large")),
        StatusCode::BAD_REQUEST
        | StatusCode::LENGTH_REQUIRED
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Some(("bad_request", "The request cannot be understood")),
        _ => None,
    }
}

/// The refusal as a problem document, in the words it came with.
async fn explained(response: Response, code: &'static str, title: &'static str) -> Response {
    let status = response.status();
    let words = axum::body::to_bytes(response.into_body(), REJECTION_MOST).await.unwrap_or_default();
    let words = String::from_utf8_lossy(&words).replace(char::is_control, " ");
    let words = if words.is_empty() { "see /docs for what this path takes".to_owned() } else { words };
    Problem::new(status, code, title, words).into_response()
}

/// The library's words are one line.
const REJECTION_MOST: usize = 4096;

/// Feed sockets that may be open at a time.
pub const FEED_SOCKETS: usize = 2000;
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_of_the_library_is_a_problem_document_in_its_words() {
        let refused = || async { (StatusCode::PAYLOAD_TOO_LARGE, "length limit\nexceeded") };
        let router: Router = Router::new().route("/", get(refused)).layer(middleware::from_fn(around));
        let request = Request::builder().uri("/").body(axum::body::Body::empty()).unwrap();
        let answer = tower::ServiceExt::oneshot(router, request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let body = axum::body::to_bytes(answer.into_body(), 4096).await.unwrap();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&document["code"], &document["detail"]),
            (&"too_large".into(), &"length limit exceeded".into())
        );
        assert!(document["request_id"].is_string());
    }
}
