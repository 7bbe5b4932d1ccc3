//! The PBX behind `[ari]`: whether it is there, its channels, and listening to one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::problem::{FieldError, Problem};
use crate::ari::model::Channel;
use crate::ari::{AriError, AriHandle};
use crate::time::UnixMs;

/// How things are with the PBX.
#[derive(Debug, Serialize)]
pub struct AriStatus {
    connected: bool,
    connected_since: Option<UnixMs>,
    reason: Option<String>,
    version: Option<String>,
    url: String,
    application: String,
    legs: usize,
}

/// `GET /api/v1/ari`.
///
/// # Errors
/// 401 without a token, 403 for a token of one organization, 409 without `[ari]`.
pub async fn status(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<AriStatus>, Problem> {
    let ari = of(&api, &caller)?;
    let status = ari.status();
    Ok(Json(AriStatus {
        connected: status.connected_since.is_some(),
        connected_since: status.connected_since,
        reason: status.problem,
        version: status.version,
        url: ari.url().to_owned(),
        application: ari.application().to_owned(),
        legs: status.legs,
    }))
}

/// `GET /api/v1/ari/channels`: all of the PBX's.
///
/// # Errors
/// As [`status`]; 503 when the PBX does not tell.
pub async fn channels(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, Problem> {
    let ari = of(&api, &caller)?;
    let mut channels = ari.channels().await.map_err(problem)?;
    channels.sort_by(|a, b| a.id.cmp(&b.id));
    let mut shown = Vec::with_capacity(channels.len());
    for channel in channels {
        let leg = ari.leg_of(&channel.id).await.map_err(problem)?;
        let ours = channel.is_in(ari.application());
        let Channel { id, name, state, caller, connected, dialplan, .. } = channel;
        shown.push(json!({
            "id": id,
            "name": name,
            "state": state,
            "caller": caller.number,
            "connected": connected.number,
            "context": dialplan.context,
            "extension": dialplan.exten,
            "in_application": ours,
            "leg": leg,
        }));
    }
    Ok(Json(json!({"data": shown, "has_more": false, "next_cursor": null})))
}

/// Body of `POST /api/v1/ari/channels/{id}/listen`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Number or extension whose flow hears the channel.
    to: String,
}

/// `POST /api/v1/ari/channels/{id}/listen`: whoever talks on that channel is heard, both ways, by the flow of `to`.
/// 202 with the leg once the PBX lets us hear; it becomes a call of its own.
///
/// # Errors
/// As [`status`]; 403 for all but administrators, 404 for an unknown channel, 422 without `to`, 502 when the PBX
/// refuses.
pub async fn listen(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    body: String,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let ari = of(&api, &caller)?;
    // Hearing what people say to each other.
    caller.may_administer()?;
    let wanted: Listen = serde_json::from_str(&body)
        .map_err(|error| Problem::bad_request(format!("the body must be {{\"to\": \"200\"}}: {error}")))?;
    if wanted.to.trim().is_empty() {
        let missing = FieldError {
            pointer: "/to".to_owned(),
            code: "required",
            message: "name the number or extension whose flow hears the channel".to_owned(),
        };
        return Err(Problem::unprocessable("nobody would hear it", vec![missing]));
    }
    let leg = ari.listen(&id, wanted.to.trim()).await.map_err(problem)?;
    Ok((StatusCode::ACCEPTED, Json(json!({"leg": leg, "channel": id, "to": wanted.to.trim()}))))
}

fn of<'a>(api: &'a Api, caller: &Caller) -> Result<&'a AriHandle, Problem> {
    if caller.organization.is_some() {
        return Err(Problem::forbidden("the PBX is shown to tokens of the whole installation"));
    }
    api.ari.as_ref().ok_or_else(|| {
        Problem::conflict(
            "no PBX is configured: add a section [ari] to tandem.toml and restart; see `tandem init`",
        )
    })
}

fn problem(error: AriError) -> Problem {
    let text = error.to_string();
    match error {
        AriError::NotThere => Problem::not_found("the PBX has no such channel; see /api/v1/ari/channels"),
        AriError::Refused(_) => Problem::new(StatusCode::BAD_GATEWAY, "pbx_refused", "The PBX refused", text),
        AriError::NoDial => Problem::conflict(text),
        AriError::Unreachable(_) | AriError::Stopping => Problem::unavailable(text),
    }
}
