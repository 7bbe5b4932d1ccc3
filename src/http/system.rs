//! Is the server alive, can it take calls, what does it count, and who am I.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::problem::Problem;

/// `GET /health`: the process runs and answers.
pub async fn health() -> Json<Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /ready`: 200 when calls can be taken, otherwise 503 with every reason.
pub async fn ready(State(api): State<Arc<Api>>) -> Response {
    let obstacles = api.readiness.obstacles().await;
    if obstacles.is_empty() {
        return Json(json!({"status": "ready"})).into_response();
    }
    let body = Json(json!({"status": "not_ready", "reasons": obstacles}));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// `GET /metrics`: Prometheus text.
pub async fn metrics(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (api.metrics)()).into_response()
}

/// `POST /api/v1/ws-tickets`: a single-use pass of 30 s for the live feed.
///
/// # Errors
/// 401 without a token, 503 when too many tickets are outstanding.
pub async fn ws_ticket(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    let ticket = api
        .tickets
        .issue(caller, Instant::now())
        .ok_or_else(|| Problem::unavailable("too many tickets are outstanding"))?;
    Ok((StatusCode::CREATED, Json(json!({"ticket": ticket, "expires_in_s": 30}))).into_response())
}

/// `GET /api/v1/me`: what this token is.
pub async fn me(caller: Caller) -> Json<Value> {
    Json(json!({"name": caller.name, "role": caller.role, "organization": caller.organization}))
}
