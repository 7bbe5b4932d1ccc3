//! Organizations, assistants and numbers: what is declared, and declaring it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::problem::{Problem, store_problem};

/// `POST /api/v1/apply`: a TOML text of resources; idempotent. All that is wrong comes back at once and
/// nothing is changed then.
///
/// # Errors
/// 403 for all but administrators, 422 with one entry for each fault.
pub async fn apply(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: String,
) -> Result<Json<Value>, Problem> {
    caller.may_administer()?;
    api.resources.apply(body).await.map(Json)
}

/// `GET /api/v1/organizations`.
///
/// # Errors
/// 401 without a token, 503 when the store does not answer.
pub async fn organizations(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, Problem> {
    let all = api.store.organizations().await.map_err(store_problem)?;
    listed(all.into_iter().filter(|stored| caller.sees(Some(&stored.value.name))))
}

/// `GET /api/v1/assistants`.
///
/// # Errors
/// As [`organizations`].
pub async fn assistants(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, Problem> {
    let all = api.store.assistants(caller.organization.as_deref()).await.map_err(store_problem)?;
    listed(all.into_iter())
}

/// `GET /api/v1/numbers`.
///
/// # Errors
/// As [`organizations`].
pub async fn numbers(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, Problem> {
    let all = api.store.numbers(caller.organization.as_deref()).await.map_err(store_problem)?;
    listed(all.into_iter())
}

fn listed(items: impl Iterator<Item = impl serde::Serialize>) -> Result<Json<Value>, Problem> {
    let data = items.map(serde_json::to_value).collect::<Result<Vec<_>, _>>().map_err(|error| {
        tracing::error!(%error, "a stored resource cannot be shown");
        Problem::unavailable("a stored resource cannot be read")
    })?;
    Ok(Json(json!({"data": data, "has_more": false, "next_cursor": null})))
}
