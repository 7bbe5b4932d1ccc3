//! What calls have cost: one call's details, and sums over many.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::calls::visible;
use super::problem::{FieldError, Problem, store_problem};
use crate::cost::start_of_day;
use crate::store::{CallCost, CostBy};
use crate::time::UnixMs;

/// `GET /api/v1/calls/{id}/cost`.
///
/// # Errors
/// 404 when there is no such call, or none this token may see.
pub async fn of_call(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<CallCost>, Problem> {
    let call = visible(&api, &caller, &id).await?;
    api.store.call_cost(call.id).await.map(Json).map_err(store_problem)
}

/// Query of `GET /api/v1/costs`.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub struct SumsQuery {
    from: Option<String>,
    to: Option<String>,
    by: Option<String>,
    organization: Option<String>,
}

/// `GET /api/v1/costs`: sums over the calls that began within a time.
///
/// # Errors
/// 401 without a token, 422 with every parameter that cannot be read.
pub async fn sums(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<SumsQuery>,
) -> Result<Json<Value>, Problem> {
    let now = UnixMs::now();
    let mut errors = Vec::new();
    let mut moment = |name: &str, text: &Option<String>, default: UnixMs| match text.as_deref() {
        None => default,
        Some(text) => UnixMs::parse_rfc3339(text).unwrap_or_else(|_| {
            let message = "an RFC 3339 time such as 2026-11-21T09:30:00Z".to_owned();
            errors.push(FieldError { pointer: name.to_owned(), code: "time", message });
            default
        }),
    };
    let from = moment("from", &query.from, start_of_day(now));
    let to = moment("to", &query.to, now);
    let by = match query.by.as_deref().unwrap_or("day") {
        "organization" => CostBy::Organization,
        "assistant" => CostBy::Assistant,
        "provider" => CostBy::Provider,
        "model" => CostBy::Model,
        "day" => CostBy::Day,
        _ => {
            let message = "organization, assistant, day, provider or model".to_owned();
            errors.push(FieldError { pointer: "by".to_owned(), code: "enum", message });
            CostBy::Day
        }
    };
    if !errors.is_empty() {
        return Err(Problem::unprocessable("some parameters cannot be read", errors));
    }
    // A token of one organization sees that one, whatever it asks for.
    let organization = caller.organization.clone().or(query.organization);
    let organization = organization.as_deref();
    let rows = api.store.costs(by, from, to, organization).await.map_err(store_problem)?;
    let unpriced = api.store.unpriced_calls(from, to, organization).await.map_err(store_problem)?;
    Ok(Json(
        json!({"from": from, "to": to, "data": rows, "has_more": false, "next_cursor": null, "unpriced_calls": unpriced}),
    ))
}
