//! Phones that register: who they are, and where.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::auth::Caller;
use super::problem::Problem;
use super::{Api, NewPhone};
use crate::store::Applied;

/// `GET /api/v1/phones`: phones of the organizations the token sees, with where they are registered.
///
/// # Errors
/// 401 without a token, 503 when the store does not answer.
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, Problem> {
    let mut all = api.phones.list().await?;
    all.retain(|phone| sees(&caller, phone));
    Ok(Json(json!({"data": all, "has_more": false, "next_cursor": null})))
}

/// `GET /api/v1/phones/{user}`.
///
/// # Errors
/// As [`list`]; 404 when there is no such phone, or none this token may see.
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<Json<Value>, Problem> {
    let phone = api.phones.show(user).await?;
    phone.filter(|phone| sees(&caller, phone)).map(Json).ok_or_else(no_such)
}

/// `POST /api/v1/phones`: makes a phone, or changes the one of this user; idempotent. 201 when it is new.
///
/// # Errors
/// 403 for all but administrators, 404 for an unknown organization, 409 when the user is another organization's,
/// 422 with one entry for each fault.
pub async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: String,
) -> Result<(StatusCode, Json<Value>), Problem> {
    caller.may_administer()?;
    // What serde says names the field and never its value.
    let phone: NewPhone = serde_json::from_str(&body).map_err(|error| {
        let shape = "{\"organization\": \"acme\", \"user\": \"101\", \"password\": \"...\"}";
        Problem::bad_request(format!(
            "the body must be {shape}; see line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    let (applied, shown) = api.phones.put(phone).await?;
    let status = if applied == Applied::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown)))
}

/// `DELETE /api/v1/phones/{user}`: it can register no more, and its registrations are forgotten. Calls go on.
///
/// # Errors
/// 403 for all but administrators; 404 when there is no such phone.
pub async fn remove(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_administer()?;
    if api.phones.remove(user).await? { Ok(StatusCode::NO_CONTENT) } else { Err(no_such()) }
}

fn sees(caller: &Caller, phone: &Value) -> bool {
    caller.sees(phone["organization"].as_str())
}

fn no_such() -> Problem {
    Problem::not_found("there is no such phone; see /api/v1/phones")
}
