//! Trunks: whether they can be used, and a test of one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::problem::Problem;
use crate::sip::carrier::{TrunkStatus, TrunkTest};

/// `GET /api/v1/trunks`: state, targets and registrations of every trunk.
///
/// # Errors
/// 401 without a token, 403 for a token of one organization: trunks belong to the whole installation.
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Value>, Problem> {
    may_see(&caller)?;
    Ok(Json(json!({"data": api.carriers.status(), "has_more": false, "next_cursor": null})))
}

/// `GET /api/v1/trunks/{name}`.
///
/// # Errors
/// As [`list`]; 404 when there is no such trunk.
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<TrunkStatus>, Problem> {
    may_see(&caller)?;
    api.carriers.status().into_iter().find(|trunk| trunk.name == name).map(Json).ok_or_else(no_such)
}

/// `POST /api/v1/trunks/{name}/test`: looks names up, sends OPTIONS, registers anew. Takes up to 25 s.
///
/// # Errors
/// As [`show`]; 403 for all but administrators.
pub async fn test(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<TrunkTest>, Problem> {
    may_see(&caller)?;
    caller.may_administer()?;
    api.carriers.test(&name).await.map(Json).map_err(|_| no_such())
}

fn may_see(caller: &Caller) -> Result<(), Problem> {
    match caller.organization {
        None => Ok(()),
        Some(_) => Err(Problem::forbidden("trunks are shown to tokens of the whole installation")),
    }
}

fn no_such() -> Problem {
    Problem::not_found("there is no such trunk; see /api/v1/trunks")
}
