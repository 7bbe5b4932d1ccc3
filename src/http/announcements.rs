//! Calls announced before they come by a door that tells nothing but a key.
//!
//! A dialplan asks for a key over HTTP (`CURL()`), says whom the call is for, and gives the key to `AudioSocket()` or
//! to `WebSocket/...`: the connection that comes with it is that call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::Api;
use super::auth::Caller;
use super::problem::{FieldError, Problem};
use crate::audiosocket::codec::AudioKind;
use crate::config::Network;
use crate::pbx::announce::CannotExpect;
use crate::pbx::{Announcement, Awaited, Uuid};
use crate::routing::directory::Route;

/// Body of `POST /api/v1/announcements`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// The number or extension whose flow answers.
    to: String,
    /// The caller's number or extension. Empty, as a dialplan writes a number that is withheld: not said.
    #[serde(default, deserialize_with = "said")]
    from: Option<String>,
    /// The UUID that will come; absent: a new one.
    key: Option<String>,
    /// How long it is waited for.
    ttl_s: Option<u64>,
    /// Where it may come from; empty: from wherever the door lets in.
    #[serde(default)]
    networks: Vec<String>,
    /// Sample rate of AudioSocket audio of kind 0x10, in Hz, for releases of Asterisk that do not say it.
    rate: Option<u32>,
}

/// `POST /api/v1/announcements`: 201 with the key.
///
/// # Errors
/// 409 for a key that is in use, 422 with all that is wrong, 503 when too many are announced by the organization.
pub async fn announce(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: String,
) -> Result<Response, Problem> {
    caller.may_act()?;
    let wanted: Announce = serde_json::from_str(&body)
        .map_err(|e| Problem::bad_request(format!("the body must be {{\"to\": \"100\"}}: {e}")))?;
    let ttl = wanted.ttl_s.unwrap_or(TTL_S);
    let announcement = checked(&api, &caller, &wanted, ttl)?;
    let expected = api.announcements.expect(Instant::now(), wanted.key.as_deref(), announcement);
    let key = expected.map_err(|error| match error {
        CannotExpect::Taken => Problem::conflict(error.to_string()),
        CannotExpect::Key => {
            Problem::unprocessable("some fields are wrong", vec![field("/key", "format", &error.to_string())])
        }
        CannotExpect::Full(_) => Problem::unavailable(error.to_string()),
    })?;
    Ok((StatusCode::CREATED, Json(json!({"key": key, "to": wanted.to, "ttl_s": ttl}))).into_response())
}

/// `DELETE /api/v1/announcements/{key}`: it is expected no more.
///
/// # Errors
/// 404 for one that is not expected, or is another organization's.
pub async fn withdraw(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_act()?;
    match api.announcements.withdraw(Instant::now(), &key, |organization| caller.sees(organization)) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found("no such announcement; it may have run out, or its call has come")),
    }
}

fn checked(api: &Api, caller: &Caller, wanted: &Announce, ttl: u64) -> Result<Announcement, Problem> {
    let mut errors = Vec::new();
    let route = parties(api, caller, &wanted.to, wanted.from.as_deref(), &mut errors);
    if !(1..=TTL_MOST_S).contains(&ttl) {
        errors.push(field("/ttl_s", "range", "1 to 3600 seconds"));
    }
    if wanted.rate.is_some_and(|rate| AudioKind::from_rate(rate).is_none()) {
        errors.push(field(
            "/rate",
            "range",
            "8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000 or 192000",
        ));
    }
    // All organizations' keys are in one table: what could be guessed could be taken.
    if wanted.key.as_ref().is_some_and(|key| key.parse::<Uuid>().is_err()) {
        errors.push(field("/key", "format", "a UUID, as ${UUID()} makes them, or leave it out"));
    }
    let mut networks = Vec::new();
    for (index, text) in wanted.networks.iter().enumerate() {
        match text.parse::<Network>() {
            Ok(network) => networks.push(network),
            Err(error) => errors.push(field(&format!("/networks/{index}"), "format", &error.to_string())),
        }
    }
    if !errors.is_empty() {
        return Err(Problem::unprocessable("some fields are wrong", errors));
    }
    let who = Awaited::Call { called: wanted.to.clone(), caller: wanted.from.clone() };
    let organization = route.and_then(|route| route.organization.as_deref().map(str::to_owned));
    let ttl = Duration::from_secs(ttl);
    Ok(Announcement { networks, rate: wanted.rate, organization, ..Announcement::new(who, ttl) })
}

/// Who calls whom: what answers, and what is wrong with them.
pub(super) fn parties(
    api: &Api,
    caller: &Caller,
    to: &str,
    from: Option<&str>,
    errors: &mut Vec<FieldError>,
) -> Option<Route> {
    let route = api.dialer.route(to).filter(|route| caller.sees(route.organization.as_deref()));
    if route.is_none() {
        errors.push(field("/to", "unknown", "no number of yours; its flow is what would answer"));
    }
    if from.is_some_and(|from| from.len() > NUMBER_LONGEST) {
        errors.push(field("/from", "length", "at most 64 characters, or leave it out"));
    }
    route
}

/// Text that is not empty.
pub(super) fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.filter(|text: &String| !text.is_empty()))
}

pub(super) fn field(pointer: &str, code: &'static str, message: &str) -> FieldError {
    FieldError { pointer: pointer.to_owned(), code, message: message.to_owned() }
}

const TTL_S: u64 = 60;
const TTL_MOST_S: u64 = 3_600;
const NUMBER_LONGEST: usize = 64;
