//! Calls that wait at Asterisk until they are connected to: the dialplan has dialled `WebSocket/INCOMING`, and tells
//! the channel's connection id over HTTP.
//!
//! The address connected to is the configured one; the request names a UUID there and nothing else.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::announcements::{field, parties, said};
use super::auth::Caller;
use super::problem::Problem;
use crate::chan_websocket::client::ConnectError;
use crate::chan_websocket::connector::{CannotFetch, Waiting};
use crate::pbx::Uuid;

/// Body of `POST /api/v1/connections`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// `MEDIA_WEBSOCKET_CONNECTION_ID` of the channel.
    connection_id: String,
    /// The number or extension whose flow answers.
    to: String,
    /// The caller's number or extension. Empty: not said.
    #[serde(default, deserialize_with = "said")]
    from: Option<String>,
    /// Who answers the channel.
    #[serde(default)]
    answer: Answer,
}

/// Who answers a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// Asterisk, when we are connected.
    #[default]
    Auto,
    /// The flow, for a channel that was dialled with `n`.
    Manual,
}

/// `POST /api/v1/connections`: 201 with the call once we are connected.
///
/// # Errors
/// 404 when no channel waits under that id, 409 when somebody is connected to it or nothing is configured, 422 with
/// all that is wrong, 502 when Asterisk refuses or cannot be reached, 503 when no more calls are taken, 504 when
/// Asterisk does not answer.
pub async fn connect(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: String,
) -> Result<(StatusCode, Json<Value>), Problem> {
    caller.may_act()?;
    let wanted: Connect = serde_json::from_str(&body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be {{\"connection_id\": \"...\", \"to\": \"100\"}}: {error}"
        ))
    })?;
    let connector = api.connector.as_ref().ok_or_else(|| {
        Problem::conflict(
            "no Asterisk to connect to is configured: add connect = \"ws://HOST:8088/media\" to [asterisk_websocket] \
             and restart",
        )
    })?;
    let mut errors = Vec::new();
    parties(&api, &caller, &wanted.to, wanted.from.as_deref(), &mut errors);
    let connection = match wanted.connection_id.parse::<Uuid>() {
        Ok(connection) => connection,
        Err(_) => {
            let hint = "the UUID in MEDIA_WEBSOCKET_CONNECTION_ID of a channel dialled as WebSocket/INCOMING";
            errors.push(field("/connection_id", "format", hint));
            return Err(Problem::unprocessable("some fields are wrong", errors));
        }
    };
    if !errors.is_empty() {
        return Err(Problem::unprocessable("some fields are wrong", errors));
    }
    let answer_later = wanted.answer == Answer::Manual;
    let (called, from) = (wanted.to.clone(), wanted.from);
    let waiting = Waiting { connection, called, caller: from, answer_later };
    let fetched = connector.fetch(waiting).await.map_err(problem)?;
    let (name, id) = fetched.channel.unzip();
    let answer = json!({
        "call": fetched.call,
        "connection_id": connection.to_string(),
        "to": wanted.to,
        "channel": name,
        "channel_id": id,
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

fn problem(error: CannotFetch) -> Problem {
    let text = error.to_string();
    let bad = |status, title| Problem::new(status, "pbx_refused", title, text.clone());
    match &error {
        CannotFetch::Full(_) | CannotFetch::Slow | CannotFetch::Refused(_) => Problem::unavailable(text),
        CannotFetch::Connect(error) => match error {
            ConnectError::Unknown => Problem::not_found(text),
            ConnectError::Taken => Problem::conflict(text),
            ConnectError::Timeout(_) => bad(StatusCode::GATEWAY_TIMEOUT, "The PBX did not answer"),
            ConnectError::Unreachable(_) => bad(StatusCode::BAD_GATEWAY, "The PBX cannot be reached"),
            ConnectError::Address(_) | ConnectError::Refused(_) | ConnectError::Ended(_) => {
                bad(StatusCode::BAD_GATEWAY, "The PBX refused")
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pbx::door::Refusal;

    #[test]
    fn each_way_to_fail_has_its_status() {
        for (error, status, code) in [
            (ConnectError::Unknown.into(), 404, "not_found"),
            (ConnectError::Taken.into(), 409, "conflict"),
            (ConnectError::Refused(401).into(), 502, "pbx_refused"),
            (ConnectError::Ended("hung up".into()).into(), 502, "pbx_refused"),
            (ConnectError::Unreachable("refused".into()).into(), 502, "pbx_refused"),
            (ConnectError::Timeout(Duration::from_secs(3)).into(), 504, "pbx_refused"),
            (CannotFetch::Full(10), 503, "unavailable"),
            (Refusal::Stopping.into(), 503, "unavailable"),
        ] {
            let said = CannotFetch::to_string(&error);
            let document = problem(error).to_json();
            assert_eq!((&document["status"], &document["code"]), (&status.into(), &code.into()), "{said}");
            assert_eq!(document["detail"], said);
        }
    }
}
