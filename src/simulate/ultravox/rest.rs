//! The REST resources: calls, their messages and events, and what goes into them.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::create::CallRequest;
use super::fault::Fault;
use super::record::Record;
use super::server::Shared;
use super::wire::{self, ClientMessage};
use crate::simulate::error::ApiError;

/// All resources.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/calls", post(create))
        .route("/api/calls/{id}", get(show).delete(remove))
        .route("/api/calls/{id}/messages", get(messages))
        .route("/api/calls/{id}/events", get(events))
        .route("/api/calls/{id}/send_data_message", post(send))
        .route("/api/models", get(models))
        .route("/api/voices", get(voices))
        .fallback(nothing)
        .with_state(shared)
}

type Api = State<Arc<Shared>>;

async fn create(State(shared): Api, RawQuery(query): RawQuery, headers: HeaderMap, body: Bytes) -> Response {
    let number = shared.next_number();
    let faults = shared.faults(number);
    for fault in &faults {
        match *fault {
            Fault::NoHandshake => {
                shared
                    .record(number, Record::Refused { status: 0, reason: "no answer, as asked for".into() });
                shared.stop.cancelled().await;
            }
            Fault::SlowHandshake(after) => tokio::time::sleep(after).await,
            _ => {}
        }
    }
    let refuse = |status: u16, body: Value, reason: &str| {
        shared.record(number, Record::Refused { status, reason: reason.to_owned() });
        answer(status, body)
    };
    if let Some(reason) = shared.key_problem(&headers) {
        shared.violation(number, "POST /api/calls", &ApiError::new("api_key", reason));
        return refuse(401, json!({"detail": reason}), reason);
    }
    for fault in &faults {
        if let Fault::Refuse { status, retry_after } = *fault {
            let mut refused = refuse(status, json!({"detail": detail(status)}), "as asked for");
            if let Some(seconds) = retry_after {
                refused.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            return refused;
        }
    }
    if shared.is_full() {
        let mut refused = refuse(429, json!({"detail": detail(429)}), "too many calls at once");
        refused.headers_mut().insert(header::RETRY_AFTER, 1.into());
        return refused;
    }
    let asked = check_query(query.as_deref()).and_then(|()| read_body(&headers, &body));
    let read = asked.and_then(|asked| CallRequest::read(&asked).map(|request| (asked, request)));
    match read {
        Ok((asked, request)) => answer(201, shared.open(number, request, asked, faults)),
        Err(error) => {
            shared.violation(number, "POST /api/calls", &error);
            let field = error.param.clone().unwrap_or_else(|| "detail".to_owned());
            refuse(400, json!({field: [error.message]}), error.code)
        }
    }
}

async fn show(State(shared): Api, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Some(refused) = unauthorized(&shared, &headers) {
        return refused;
    }
    shared.book.get(&id).map_or_else(|| answer(404, not_found()), |call| answer(200, call.to_json()))
}

async fn remove(State(shared): Api, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Some(refused) = unauthorized(&shared, &headers) {
        return refused;
    }
    match shared.book.get(&id) {
        None => answer(404, not_found()),
        Some(call) if call.ended.is_none() => answer(425, json!({"detail": "The call is ongoing."})),
        Some(_) => {
            shared.book.remove(&id);
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

async fn messages(
    State(shared): Api,
    headers: HeaderMap,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    if let Some(refused) = unauthorized(&shared, &headers) {
        return refused;
    }
    let Some(all) = shared.book.messages(&id) else { return answer(404, not_found()) };
    page(&shared, &format!("/api/calls/{id}/messages"), query.as_deref(), all, &["mode"])
}

async fn events(
    State(shared): Api,
    headers: HeaderMap,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    if let Some(refused) = unauthorized(&shared, &headers) {
        return refused;
    }
    let Some(all) = shared.book.events(&id) else { return answer(404, not_found()) };
    page(&shared, &format!("/api/calls/{id}/events"), query.as_deref(), all, &["minimum_severity", "type"])
}

async fn send(State(shared): Api, headers: HeaderMap, Path(id): Path<String>, body: Bytes) -> Response {
    if let Some(refused) = unauthorized(&shared, &headers) {
        return refused;
    }
    let message = read_body(&headers, &body).and_then(|value| wire::read(&value));
    let message = match message {
        Ok(message) => message,
        Err(error) => {
            shared.violation(0, "POST send_data_message", &error);
            return answer(400, json!({"detail": error.message}));
        }
    };
    let fits = matches!(
        message,
        ClientMessage::UserText { .. } | ClientMessage::ForcedAgent(_) | ClientMessage::HangUp { .. }
    );
    if !fits {
        return answer(400, json!({"detail": "This type of message cannot be sent here."}));
    }
    match shared.book.command(&id, message) {
        None => answer(404, not_found()),
        Some(true) => StatusCode::NO_CONTENT.into_response(),
        Some(false) => answer(422, json!({"detail": "The call is not joined, or it is over."})),
    }
}

async fn models(State(shared): Api, headers: HeaderMap) -> Response {
    if let Some(refused) = unauthorized(&shared, &headers) {
        return refused;
    }
    let models = ["ultravox-v0.7", "ultravox-v0.6", "fixie-ai/ultravox"].map(|name| json!({"name": name}));
    answer(200, json!({"next": null, "previous": null, "results": models, "total": models.len()}))
}

async fn voices(State(shared): Api, headers: HeaderMap) -> Response {
    if let Some(refused) = unauthorized(&shared, &headers) {
        return refused;
    }
    let voice = json!({"voiceId": "00000000-0000-4000-8000-000000000001", "name": "Mark"});
    answer(200, json!({"next": null, "previous": null, "results": [voice], "total": 1}))
}

async fn nothing() -> Response {
    answer(404, not_found())
}

fn unauthorized(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    shared.key_problem(headers).map(|reason| answer(401, json!({"detail": reason})))
}

fn answer(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(body)).into_response()
}

fn not_found() -> Value {
    json!({"detail": "Not found."})
}

fn detail(status: u16) -> &'static str {
    match status {
        401 => "Invalid API key.",
        402 => "Your account has no minutes left.",
        403 => "This key may not do that.",
        429 => "Request was throttled.",
        _ => "The simulator was asked to refuse this.",
    }
}

fn check_query(query: Option<&str>) -> Result<(), ApiError> {
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "enableGreetingPrompt" if matches!(value, "true" | "false") => {}
            "throttle" => {}
            "priorCallId" => return Err(ApiError::invalid(name, "prior calls are not simulated.")),
            _ => return Err(ApiError::unknown(&name.chars().take(60).collect::<String>())),
        }
    }
    Ok(())
}

fn read_body(headers: &HeaderMap, body: &[u8]) -> Result<Value, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/json") {
        return Err(ApiError::new("content_type", "Content-Type must be application/json."));
    }
    serde_json::from_slice(body)
        .map_err(|error| ApiError::new("invalid_json", format!("JSON parse error: {error}")))
}

/// One page of a list: `cursor` counts its items.
fn page(shared: &Shared, path: &str, query: Option<&str>, all: Vec<Value>, more: &[&str]) -> Response {
    let (mut from, mut size) = (0, PAGE_DEFAULT);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (name, value.parse::<usize>()) {
            ("cursor", Ok(cursor)) => from = cursor,
            ("pageSize", Ok(wanted)) if (1..=PAGE_MAX).contains(&wanted) => size = wanted,
            (name, _) if more.contains(&name) => {}
            _ => return answer(400, json!({name: ["Invalid."]})),
        }
    }
    let total = all.len();
    let results: Vec<Value> = all.into_iter().skip(from).take(size).collect();
    let next = (from + size < total)
        .then(|| format!("{}{path}?cursor={}&pageSize={size}", shared.origin(), from + size));
    answer(200, json!({"next": next, "previous": null, "results": results, "total": total}))
}

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1_000;
