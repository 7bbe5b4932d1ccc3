//! Calls of our own over REST: start one, and move, hold or press keys on one that is up.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::auth::Caller;
use super::calls::ask;
use super::problem::{FieldError, Problem, store_problem};
use crate::ari::AriHandle;
use crate::call::dial::{DialRequest, DialSource, DialTarget, RouteRefusal};
use crate::call::handle::CallCommand;
use crate::routing::directory::{Route, Unclear};
use crate::store::idempotency::{IdempotencyKey, Known};

/// Body of `POST /api/v1/calls`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartCall {
    /// Number or SIP URI.
    to: String,
    /// The number shown.
    from: Option<String>,
    /// Owner; a token of one organization needs none.
    organization: Option<String>,
    /// The assistant that talks to whoever answers; absent, the only one there is, or the built-in one.
    assistant: Option<String>,
    /// A number of ours whose flow runs once somebody answers.
    flow: Option<String>,
    /// The trunk to use.
    trunk: Option<String>,
    /// `X-` headers of the INVITE.
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    /// How long it may ring.
    timeout_s: Option<u64>,
}

/// `POST /api/v1/calls`: 202 with the call's id. Its record exists; nothing has been dialled yet.
///
/// # Errors
/// 400 without an `Idempotency-Key`, 409 for a key that came with another body, 422 with all that is wrong.
pub async fn start(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: String,
) -> Result<Response, Problem> {
    caller.may_act()?;
    let key = idempotency_key(&headers, "call", "dial twice")?;
    let key = IdempotencyKey::new(caller.organization.as_deref(), "/api/v1/calls", &key);
    let wanted: StartCall = serde_json::from_str(&body).map_err(|e| {
        Problem::bad_request(format!(
            "the body must be {{\"to\": \"+1555...\", \"assistant\": \"...\"}}: {e}"
        ))
    })?;
    let (dial, then) = checked(&api, &caller, wanted)?;
    match api.store.claim(&key, &body).await.map_err(store_problem)? {
        Known::New => {}
        Known::Answered { response, .. } => return Ok(accepted(response)),
        Known::UnderWay => return Err(Problem::conflict("this request is being carried out; ask again")),
        Known::Conflict => {
            return Err(Problem::conflict(
                "this Idempotency-Key came with another body; use a new key for a new call",
            ));
        }
    }
    match api.dialer.start_call(dial, then).await {
        Ok(id) => {
            let response = json!({"id": id, "status": "dialling"}).to_string();
            // The call is on its way; a key that is lost now only makes a repetition another call.
            if let Err(error) = api.store.keep_answer(&key, 202, &response).await {
                tracing::warn!(%error, "the answer of an Idempotency-Key could not be kept");
            }
            Ok(accepted(response))
        }
        Err(refusal) => {
            // A key that stays claimed is free after a day.
            let _claimed = api.store.release(&key).await;
            Err(refused(&refusal))
        }
    }
}

/// Body of `POST /api/v1/calls/{id}/transfer`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferCall {
    to: String,
    trunk: Option<String>,
}

/// `POST /api/v1/calls/{id}/transfer`: somebody else takes the place of the callee, or of the flow and its
/// assistant, once they answer; or, over a trunk with `refer = "pass"`, the caller's side is asked to call them.
/// A number of the call's organization is not called: its flow goes on with the caller.
/// 202: it is tried; `call.transfer` events say how it ends.
///
/// # Errors
/// 403, 404 and 409 as for ending a call; 409 also for a call that is not answered or is being transferred
/// already, 422 for something that cannot be dialled.
pub async fn transfer(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    body: String,
) -> Result<Response, Problem> {
    let wanted: TransferCall = serde_json::from_str(&body)
        .map_err(|e| Problem::bad_request(format!("the body must be {{\"to\": \"...\"}}: {e}")))?;
    let to = target(&wanted.to).map_err(|error| invalid(vec![error]))?;
    ask(&api, &caller, &id, |taken| CallCommand::Transfer { to, trunk: wanted.trunk, taken }).await?;
    Ok(told(&id))
}

/// Body of `POST /api/v1/calls/{id}/hold`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldCall {
    on: bool,
}

/// `POST /api/v1/calls/{id}/hold`: the parties of a bridged call stop hearing each other, or hear each other
/// again.
///
/// # Errors
/// As [`transfer`]; 409 for a call that is not joined with another party.
pub async fn hold(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    body: String,
) -> Result<Response, Problem> {
    let wanted: HoldCall = serde_json::from_str(&body)
        .map_err(|e| Problem::bad_request(format!("the body must be {{\"on\": true}}: {e}")))?;
    ask(&api, &caller, &id, |taken| CallCommand::Hold { on: wanted.on, taken }).await?;
    Ok(told(&id))
}

/// Body of `POST /api/v1/calls/{id}/dtmf`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PressKeys {
    digits: String,
}

/// `POST /api/v1/calls/{id}/dtmf`: presses keys towards the party (of a bridged call: the callee).
///
/// # Errors
/// As [`transfer`]; 422 for what is no key.
pub async fn dtmf(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    body: String,
) -> Result<Response, Problem> {
    let wanted: PressKeys = serde_json::from_str(&body)
        .map_err(|e| Problem::bad_request(format!("the body must be {{\"digits\": \"123#\"}}: {e}")))?;
    let known = |c: char| c.is_ascii_digit() || "*#ABCD".contains(c);
    if wanted.digits.is_empty() || wanted.digits.len() > KEYS_MAX || !wanted.digits.chars().all(known) {
        return Err(invalid(vec![field("/digits", "format", "1 to 64 of 0-9, *, #, A-D")]));
    }
    ask(&api, &caller, &id, |taken| CallCommand::Dtmf { digits: wanted.digits, taken }).await?;
    Ok(told(&id))
}

/// Everything wrong with the request at once.
fn checked(api: &Api, caller: &Caller, wanted: StartCall) -> Result<(DialRequest, Route), Problem> {
    let mut errors = Vec::new();
    let to = target(&wanted.to).map_err(|error| errors.push(error)).ok();
    if let Some(from) = &wanted.from
        && !matches!(DialTarget::parse(from), Ok(DialTarget::Number(_)))
    {
        errors.push(field("/from", "format", "a number such as +15550100"));
    }
    if let Some(trunk) = &wanted.trunk
        && !api.carriers.status().iter().any(|known| known.name == *trunk)
        && !(trunk == crate::ari::DOOR && api.ari.as_ref().is_some_and(AriHandle::dials))
    {
        errors.push(field(
            "/trunk",
            "unknown",
            "there is no trunk of this name; `tandem trunk list` shows them",
        ));
    }
    let timeout = wanted.timeout_s.unwrap_or(RING_S);
    if !(1..=RING_MOST_S).contains(&timeout) {
        errors.push(field("/timeout_s", "range", "1 to 180"));
    }
    let foreign = |name: &String| !name.to_ascii_lowercase().starts_with("x-");
    if wanted.headers.len() > HEADERS_MAX || wanted.headers.keys().any(foreign) {
        errors.push(field("/headers", "format", "at most 16 headers whose names begin with X-"));
    }
    let then = route(api, caller, &wanted).map_err(|error| errors.push(error)).ok();
    let (Some(to), Some(then), true) = (to, then, errors.is_empty()) else { return Err(invalid(errors)) };
    let dial = DialRequest {
        trunks: wanted.trunk.into_iter().collect(),
        from: wanted.from,
        organization: then.organization.clone(),
        headers: wanted.headers.into_iter().collect(),
        ring_timeout: Duration::from_secs(timeout),
        ..DialRequest::new(to, DialSource::Api)
    };
    Ok((dial, then))
}

/// What runs once somebody answers.
fn route(api: &Api, caller: &Caller, wanted: &StartCall) -> Result<Route, FieldError> {
    let organization = caller.organization.clone().or_else(|| wanted.organization.clone());
    match (&wanted.assistant, &wanted.flow) {
        (assistant, None) => {
            let found = api.dialer.conversation(organization.as_deref(), assistant.as_deref());
            found.map_err(|unclear| match unclear {
                Unclear::Unknown => field("/assistant", "unknown", "there is no such assistant"),
                Unclear::Several(names) => {
                    let message = format!("more than one fits; give assistant and organization: {names}");
                    field("/assistant", "ambiguous", &message)
                }
            })
        }
        (None, Some(number)) => {
            let route = api.dialer.route(number).filter(|route| caller.sees(route.organization.as_deref()));
            route.ok_or_else(|| field("/flow", "unknown", "no number of yours; its flow is what would run"))
        }
        (Some(_), Some(_)) => Err(field("/assistant", "exclusive", "give either assistant or flow")),
    }
}

fn target(to: &str) -> Result<DialTarget, FieldError> {
    DialTarget::parse(to).map_err(|message| field("/to", "format", &message))
}

/// The request's `Idempotency-Key`. A repetition without one would, for a new `what`, do `harm`.
///
/// # Errors
/// 400 when there is none.
pub(super) fn idempotency_key(headers: &HeaderMap, what: &str, harm: &str) -> Result<String, Problem> {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::trim);
    match key {
        Some(key) if !key.is_empty() && key.len() <= KEY_MAX => Ok(key.to_owned()),
        _ => Err(Problem::bad_request(format!(
            "send an Idempotency-Key of 1 to 255 characters, new for each {what}, so that a repeated request \
             does not {harm}"
        ))),
    }
}

fn accepted(body: String) -> Response {
    let id = serde_json::from_str::<serde_json::Value>(&body).ok();
    let id = id.and_then(|body| body["id"].as_str().map(|id| format!("/api/v1/calls/{id}")));
    let kind = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (StatusCode::ACCEPTED, kind, body).into_response();
    if let Some(location) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn told(id: &str) -> Response {
    (StatusCode::ACCEPTED, Json(json!({"call_id": id, "status": "accepted"}))).into_response()
}

fn refused(refusal: &RouteRefusal) -> Problem {
    Problem::unavailable(refusal.reason.clone())
}

fn invalid(errors: Vec<FieldError>) -> Problem {
    Problem::unprocessable("some fields are wrong", errors)
}

fn field(pointer: &str, code: &'static str, message: &str) -> FieldError {
    FieldError { pointer: pointer.to_owned(), code, message: message.to_owned() }
}

const RING_S: u64 = 30;
const RING_MOST_S: u64 = 180;
const HEADERS_MAX: usize = 16;
const KEYS_MAX: usize = 64;
const KEY_MAX: usize = 255;
