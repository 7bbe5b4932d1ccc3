//! Webhooks of services that tell us of our calls. They carry no token: what is not signed by somebody who knows the
//! secret is turned away.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Api;
use super::problem::Problem;
use crate::provider::ultravox_sip::webhook::Rejected;

/// `POST /hooks/ultravox/{provider}`.
pub async fn ultravox(
    State(api): State<Arc<Api>>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(agent) = api.planner.sip_agents.get(&provider) else {
        return Problem::not_found("there is no provider of this name that takes webhooks").into_response();
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (timestamp, signature) =
        (header("x-ultravox-webhook-timestamp"), header("x-ultravox-webhook-signature"));
    let outcome = agent.take(timestamp, signature, &body);
    let label = if outcome.is_ok() { "accepted" } else { "rejected" };
    metrics::counter!("tandem_provider_webhooks_total", "provider" => provider, "outcome" => label)
        .increment(1);
    match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(reason @ Rejected::Unreadable) => Problem::bad_request(reason.to_string()).into_response(),
        Err(reason) => {
            tracing::debug!(%reason, "a webhook was turned away");
            Problem::unauthorized().into_response()
        }
    }
}
