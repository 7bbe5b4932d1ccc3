//! Providers: whether they can be used, a check of one, and the keys they are used with.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::problem::{FieldError, Problem, store_problem};
use crate::id::ProviderKeyId;
use crate::provider::breaker::State as BreakerState;
use crate::provider::stored_keys::KeyError;
use crate::store::Role;

/// A key somebody wants to be used.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    /// Whose calls use it; absent: those of every organization without keys of its own.
    #[serde(default)]
    organization: Option<String>,
    /// The key itself.
    #[serde(deserialize_with = "secret")]
    key: SecretString,
}

fn secret<'de, D: serde::Deserializer<'de>>(text: D) -> Result<SecretString, D::Error> {
    <String as serde::Deserialize>::deserialize(text).map(Into::into)
}

/// `GET /api/v1/providers`: state, keys and last failure of every provider.
///
/// # Errors
/// 401 without a token, 403 for a token of one organization: providers belong to the whole installation.
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, Problem> {
    may_see(&caller)?;
    Ok(Json(json!({"data": states(&api), "has_more": false, "next_cursor": null})))
}

/// `GET /api/v1/providers/{name}`.
///
/// # Errors
/// As [`list`]; 404 when there is no such provider.
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    may_see(&caller)?;
    state(&api, &name).map(Json).ok_or_else(no_such)
}

/// `POST /api/v1/providers/{name}/check`: opens a session and closes it again.
///
/// # Errors
/// As [`show`]; 403 for all but administrators.
pub async fn check(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.may_administer()?;
    let guarded = api.planner.providers.guarded(&name).ok_or_else(no_such)?;
    let begun = std::time::Instant::now();
    let outcome = guarded.check().await;
    let took = outcome.as_ref().map_or_else(|_| begun.elapsed(), |took| *took);
    Ok(Json(json!({
        "provider": name,
        "ok": outcome.is_ok(),
        "took_ms": millis(took),
        "error": outcome.err().map(|error| error.to_string()),
        "state": guarded.status().state.name(),
    })))
}

/// `POST /api/v1/providers/{name}/reset`: closes the breaker and ends the rest of every key.
///
/// # Errors
/// As [`check`].
pub async fn reset(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.may_administer()?;
    if !api.planner.providers.reset(&name) {
        return Err(no_such());
    }
    tracing::info!(provider = name, by = caller.name, "a provider was reset");
    state(&api, &name).map(Json).ok_or_else(no_such)
}

/// `GET /api/v1/providers/{name}/keys`: the keys, by their fingerprints. A token of one organization sees its own.
///
/// # Errors
/// 403 for all but administrators and an organization's managers, 404 when there is no such provider.
pub async fn keys(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    may_keep_keys(&caller, caller.organization.as_deref())?;
    let mut all = api.provider_keys.list(&name).await.map_err(key_problem)?;
    all.retain(|key| caller.sees(key.organization.as_deref()));
    Ok(Json(json!({"data": all, "has_more": false, "next_cursor": null})))
}

/// `POST /api/v1/providers/{name}/keys`: keeps a key, sealed, and uses it from here on.
///
/// # Errors
/// 403 as [`keys`], 404 for an unknown provider or organization, 409 without a master key or when the key is there
/// already, 422 when it is no key.
pub async fn add_key(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    body: String,
) -> Result<(StatusCode, Json<Value>), Problem> {
    // What serde says may quote the value.
    let new: NewKey = serde_json::from_str(&body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be {{\"key\": \"...\", \"organization\": \"acme\"}}, the organization may be left out; see line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    let organization = new.organization.as_deref().or(caller.organization.as_deref());
    may_keep_keys(&caller, organization)?;
    let added = api.provider_keys.add(&name, organization, &new.key).await.map_err(key_problem)?;
    tracing::info!(provider = name, key = added.fingerprint, by = caller.name, "a provider's key was added");
    Ok((StatusCode::CREATED, Json(json!(added))))
}

/// `DELETE /api/v1/providers/{name}/keys/{id}`: no new session uses it.
///
/// # Errors
/// 403 as [`keys`]; 404 when there is no such key.
pub async fn remove_key(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path((name, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    may_keep_keys(&caller, caller.organization.as_deref())?;
    let no_key = || Problem::not_found("there is no such key; see /api/v1/providers/{name}/keys");
    let id: ProviderKeyId = id.parse().map_err(|_| no_key())?;
    let all = api.provider_keys.list(&name).await.map_err(key_problem)?;
    let known = all.iter().find(|key| key.id == Some(id));
    let key = known.filter(|key| caller.sees(key.organization.as_deref())).ok_or_else(no_key)?;
    if !api.provider_keys.remove(&name, id).await.map_err(key_problem)? {
        return Err(no_key());
    }
    tracing::info!(provider = name, key = key.fingerprint, by = caller.name, "a provider's key was removed");
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/provider-keys/rotate`: seals every kept key anew under the present master key.
///
/// # Errors
/// 403 for all but administrators, 409 without a master key.
pub async fn rotate(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.may_administer()?;
    let rotated = api.provider_keys.rotate().await.map_err(key_problem)?;
    tracing::info!(resealed = rotated.resealed, by = caller.name, "the keys were sealed anew");
    Ok(Json(json!(rotated)))
}

/// How every provider is.
pub fn states(api: &Api) -> Vec<Value> {
    api.planner.providers.names().filter_map(|name| state(api, name)).collect()
}

fn state(api: &Api, name: &str) -> Option<Value> {
    let provider = api.planner.providers.get(name)?;
    let status = api.planner.providers.status(name)?;
    let unusable = provider.unusable();
    let reason = match (&unusable, status.state) {
        (Some(error), _) => Some(error.to_string()),
        (None, BreakerState::HalfOpen) => Some("the next call tries whether it is back".to_owned()),
        (None, _) => None,
    };
    let place = api.planner.default_chain.iter().position(|one| one == name);
    let keys = provider.keys().map(|keys| keys.states(None)).unwrap_or_default();
    let resting = keys.iter().filter(|key| key.rest.is_some()).count();
    Some(json!({
        "name": name,
        "kind": provider.kind(),
        "default_chain": place.map(|place| place + 1),
        "usable": unusable.is_none(),
        "state": status.state.name(),
        "reason": reason,
        "failures_in_a_row": status.failed,
        "retry_in_ms": status.retry_in.map(millis),
        "last_failure": status.last_failure.map(|(cause, ago)| json!({"cause": cause, "ago_ms": millis(ago)})),
        "opened": status.opened,
        "sessions": status.sessions,
        "failures": status.failures,
        "keys": keys.len(),
        "keys_resting": resting,
    }))
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn may_see(caller: &Caller) -> Result<(), Problem> {
    match caller.organization {
        None => Ok(()),
        Some(_) => Err(Problem::forbidden("providers are shown to tokens of the whole installation")),
    }
}

/// An administrator keeps all keys, an organization's manager its own.
fn may_keep_keys(caller: &Caller, organization: Option<&str>) -> Result<(), Problem> {
    let own = caller.organization.is_some() && caller.organization.as_deref() == organization;
    if own && caller.role == Role::Manager { Ok(()) } else { caller.may_administer() }
}

fn key_problem(error: KeyError) -> Problem {
    let text = error.to_string();
    match error {
        KeyError::NoProvider(_) => Problem::not_found(text),
        KeyError::Keyless(_) | KeyError::NoMasterKey => Problem::conflict(text),
        KeyError::Malformed => {
            let field = FieldError { pointer: "/key".to_owned(), code: "invalid", message: text.clone() };
            Problem::unprocessable(text, vec![field])
        }
        KeyError::Vault(_) => Problem::unavailable(text),
        KeyError::Store(error) => store_problem(error),
    }
}

fn no_such() -> Problem {
    Problem::not_found("there is no such provider; see /api/v1/providers")
}
