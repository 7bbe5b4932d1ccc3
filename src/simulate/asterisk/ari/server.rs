//! The HTTP server: REST, the event socket and media sockets share one address.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request as Upgrade, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use tokio_util::sync::CancellationToken;

use super::rest::Asked;
use super::state::{App, Behind};
use super::{Request, Shared};
use crate::simulate::asterisk::websocket::{Slot, config};

pub(super) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    while let Some(accepted) = shared.stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: give connections time to end.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let up = shared.up.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(up) = up else {
            // Nobody is there: as good as a refused connection.
            let _ = stream.set_zero_linger();
            continue;
        };
        let task = serve(shared.clone(), stream, up.clone());
        shared.tasks.spawn(async move { up.run_until_cancelled(task).await });
    }
}

/// The first line tells what a connection is for; it is looked at without being taken.
async fn serve(shared: Arc<Shared>, stream: TcpStream, up: CancellationToken) {
    // Small messages must not wait for more; without it they are only later.
    let _ = stream.set_nodelay(true);
    let mut head = [0; 2_048];
    let Ok(Ok(seen)) = tokio::time::timeout(IDLE, stream.peek(&mut head)).await else { return };
    let line = String::from_utf8_lossy(&head[..seen]).into_owned();
    let target = line.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    if let Some(connection) = path.strip_prefix("/media/") {
        media(&shared, connection, stream).await;
    } else if path == "/ari/events" && line.to_ascii_lowercase().contains("upgrade: websocket") {
        events(&shared, stream, up).await;
    } else {
        let service = service_fn(|request| answer(shared.clone(), request));
        // As http.conf has it: a session that idles for 15 seconds is closed.
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = served.await {
            tracing::debug!(%error, "a REST connection of the simulated PBX");
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix("/ari/").unwrap_or_default();
    let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let query = pairs(parts.uri.query().unwrap_or_default());
    let login = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let body = Limited::new(body, BODY_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (status, value) = if !allowed(&shared, login, &query) {
        (401, json!({"message": "Authentication required"}))
    } else if let Some(body) = read_body(&body) {
        shared.answer(parts.method.as_str(), &segments, &Asked { query: query.clone(), body }).await
    } else {
        (400, json!({"message": "Request body parse error"}))
    };
    let is_question = parts.method == "GET";
    let shown = query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    let request = Request {
        method: parts.method.to_string(),
        path: segments.join("/"),
        query: shown,
        status,
        problem: value.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        is_question: is_question && status == 404,
        at: Some(Instant::now()),
    };
    shared.with(|state| state.note(request));
    let text = if status == 204 { String::new() } else { value.to_string() };
    let mut response = hyper::Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert("server", hyper::header::HeaderValue::from_static("Asterisk"));
    headers.insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    if status == 401 {
        let realm = hyper::header::HeaderValue::from_static("Basic realm=\"Asterisk REST Interface\"");
        headers.insert("www-authenticate", realm);
    }
    Ok(response)
}

/// `None` for what is no JSON.
fn read_body(body: &[u8]) -> Option<Value> {
    if body.is_empty() { Some(Value::Null) } else { serde_json::from_slice(body).ok() }
}

fn allowed(shared: &Shared, login: Option<&str>, query: &BTreeMap<String, String>) -> bool {
    let pair = format!("{}:{}", shared.config.username, shared.config.password);
    if query.get("api_key").is_some_and(|key| *key == pair) {
        return true;
    }
    let encoded = login.and_then(|login| login.strip_prefix("Basic "));
    encoded.is_some_and(|encoded| encoded == base64_simd::STANDARD.encode_to_string(pair))
}

/// The event socket: an application, or several.
async fn events(shared: &Arc<Shared>, stream: TcpStream, up: CancellationToken) {
    let mut wanted = Err(StatusCode::BAD_REQUEST);
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let judge = |request: &Upgrade, mut response: Response| {
        let query = pairs(request.uri().query().unwrap_or_default());
        let login = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let apps: Vec<String> =
            query.get("app").map(|apps| apps.split(',').map(str::to_owned).collect()).unwrap_or_default();
        wanted = match apps.is_empty() || apps.iter().any(String::is_empty) {
            _ if !allowed(shared, login, &query) => Err(StatusCode::UNAUTHORIZED),
            true => Err(StatusCode::BAD_REQUEST),
            false => Ok(apps),
        };
        // The subprotocol `ari` may be asked for, and is confirmed then.
        if let Some(protocol) = request.headers().get("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
        }
        match &wanted {
            Ok(_) => Ok(response),
            Err(status) => Err(refusal(*status)),
        }
    };
    let ws = accept_hdr_async_with_config(stream, judge, Some(config())).await;
    let apps = match (ws, wanted) {
        (Ok(ws), Ok(apps)) => (ws, apps),
        (_, Err(status)) => return shared.violation(format!("GET events: {status}")),
        (Err(_), Ok(_)) => return,
    };
    let (ws, apps) = apps;
    let (events, queue) = mpsc::channel(EVENTS_QUEUED);
    let generation = shared.with(|state| {
        state.report.sockets += 1;
        let generation = state.report.sockets;
        for app in &apps {
            state.tell(app, json!({"type": "ApplicationReplaced"}));
            state.apps.insert(app.clone(), App { events: events.clone(), generation });
        }
        generation
    });
    drop(events);
    let cut = shared.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let told = tell(shared, ws, queue);
    tokio::select! {
        () = told => {}
        () = cut.cancelled() => {}
        () = up.cancelled() => {}
    }
    shared.with(|state| state.apps.retain(|_, app| app.generation != generation));
}

async fn tell(shared: &Arc<Shared>, ws: WebSocketStream<TcpStream>, mut queue: mpsc::Receiver<Value>) {
    let (mut sink, mut source) = ws.split();
    loop {
        tokio::select! {
            event = queue.recv() => {
                // Nobody sends to it any more: another socket has taken over.
                let Some(event) = event else { return };
                let send = sink.send(Message::text(event.to_string()));
                match tokio::time::timeout(shared.config.write_timeout, send).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => return shared.violation("the event socket was not read in time, and is cut".to_owned()),
                }
            }
            message = source.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            }
        }
    }
}

/// A media socket: the application connects to a channel.
async fn media(shared: &Arc<Shared>, connection: &str, stream: TcpStream) {
    let connection = decode(connection);
    let mut taken: Result<Slot, StatusCode> = Err(StatusCode::NOT_FOUND);
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let judge = |request: &Upgrade, mut response: Response| {
        let protocol = request.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
        let asks = protocol.is_some_and(|all| all.split(',').any(|one| one.trim() == "media"));
        taken = if asks { take(shared, &connection) } else { Err(StatusCode::BAD_REQUEST) };
        match &taken {
            Ok(_) => {
                let media = tokio_tungstenite::tungstenite::http::HeaderValue::from_static("media");
                response.headers_mut().insert("sec-websocket-protocol", media);
                Ok(response)
            }
            Err(status) => Err(refusal(*status)),
        }
    };
    let ws = accept_hdr_async_with_config(stream, judge, Some(config())).await;
    match (ws, taken) {
        (Ok(ws), Ok(slot)) => {
            // A channel that has gone meanwhile closes it.
            let _ = slot.send(ws);
            shared.with(|state| {
                let found = state.channels.values().find(|channel| is_behind(&channel.behind, &connection));
                let Some((id, app)) = found.map(|channel| (channel.id.clone(), channel.app_data.clone()))
                else {
                    return;
                };
                state.channels.entry(id.clone()).and_modify(|channel| channel.app = Some(app.clone()));
                state.change(&id, "Up");
                state.enter(&id, &app, &[]);
            });
        }
        (_, Err(status)) => shared.violation(format!("GET /media/{}: {status}", connection.escape_debug())),
        (Err(_), Ok(_)) => {}
    }
}

fn take(shared: &Arc<Shared>, connection: &str) -> Result<Slot, StatusCode> {
    shared.with(|state| {
        state.waiting.retain(|_, waiting| !*waiting.done.borrow());
        if let Some(waiting) = state.waiting.get_mut(connection) {
            return waiting.slot.take().ok_or(StatusCode::CONFLICT);
        }
        let found = state.channels.values_mut().find(|channel| is_behind(&channel.behind, connection));
        match found.map(|channel| &mut channel.behind) {
            Some(Behind::WebSocket(_, slot)) => slot.take().ok_or(StatusCode::CONFLICT),
            _ => Err(StatusCode::NOT_FOUND),
        }
    })
}

fn is_behind(behind: &Behind, connection: &str) -> bool {
    matches!(behind, Behind::WebSocket(call, _) if call.connection() == connection)
}

fn refusal(status: StatusCode) -> ErrorResponse {
    let mut refused = ErrorResponse::new(None);
    *refused.status_mut() = status;
    refused
}

/// A query's pairs, decoded.
fn pairs(query: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) => (decode(name), decode(&value.replace('+', " "))),
        None => (decode(pair), String::new()),
    };
    query.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let pair = more.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// `session_keep_alive`.
const IDLE: Duration = Duration::from_secs(15);
const BODY_MAX: usize = 64 << 10;
/// Events that may wait for a socket to be written to.
const EVENTS_QUEUED: usize = 4_096;
