//! Tools: which there are, and a trial of one.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::dial::idempotency_key;
use super::problem::{FieldError, Problem, store_problem};
use crate::tools::toolbox::{Work, interpret};
use crate::tools::{Context, Invocation, run};

/// Query of `GET /api/v1/tools`.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub struct ListQuery {
    all: Option<bool>,
    organization: Option<String>,
}

/// `GET /api/v1/tools`: built in, of organizations, of MCP servers. `all`: also those that wait for a part of Tandem
/// that is not there yet.
///
/// # Errors
/// 401 without a token.
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, Problem> {
    let organization = caller.organization.clone().or(query.organization);
    let mut tools = api.tools.list(organization.as_deref());
    tools.retain(|tool| tool.available || tool.organization.is_some() || query.all == Some(true));
    let seen = |server: &&Arc<crate::tools::mcp::Server>| {
        organization.is_none() || server.serves(organization.as_deref())
    };
    let servers: Vec<Value> = api
        .tools
        .servers()
        .all()
        .filter(seen)
        .map(|server| json!({"name": server.name(), "tools": server.tools().len(), "away": server.away()}))
        .collect();
    Ok(Json(json!({"data": tools, "mcp_servers": servers, "has_more": false, "next_cursor": null})))
}

/// Body of `POST /api/v1/tools/{name}/test`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    organization: Option<String>,
    #[serde(default)]
    arguments: Value,
}

/// `POST /api/v1/tools/{name}/test`: checks arguments, and runs a webhook or an MCP tool with them as a model would.
/// A tool that acts on a call is checked alone.
///
/// # Errors
/// 400 without an `Idempotency-Key` for a tool that runs, 403 for whoever may only read, 404 when there is no such tool, or none this token may see.
pub async fn test(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Result<Json<Value>, Problem> {
    caller.may_act()?;
    let trial: Trial =
        serde_json::from_str(if body.trim().is_empty() { "{}" } else { &body }).map_err(|error| {
            Problem::bad_request(format!("the body must be {{\"arguments\": {{}}}}: {error}"))
        })?;
    let organization = caller.organization.clone().or(trial.organization);
    let tool = api.tools.find(organization.as_deref(), &name).ok_or_else(no_such)?;
    let arguments = if trial.arguments.is_null() { json!({}) } else { trial.arguments };
    let started = Instant::now();
    let answer = |valid: bool, ran: bool, ok: bool, outcome: &str, output: String| {
        // What a model would be told; JSON is shown as such.
        let output = serde_json::from_str(&output).unwrap_or(Value::String(output));
        let ms = started.elapsed().as_millis() as u64;
        Json(
            json!({"tool": name, "valid": valid, "ran": ran, "ok": ok, "outcome": outcome, "ms": ms, "output": output}),
        )
    };
    let job = match interpret(&tool, &arguments.to_string()) {
        Ok(job) => job,
        Err(refusal) => return Ok(answer(false, false, false, "refused", refusal.output)),
    };
    let Work::Remote(remote) = job.work else {
        let output = "the arguments fit; this tool acts on a call, and there is none".to_owned();
        return Ok(answer(true, false, true, "ok", output));
    };
    // The tool is told the same id when the request is repeated, so that it does nothing twice.
    let id = format!("test_{}", idempotency_key(&headers, "trial", "run the tool twice")?);
    tracing::info!(who = %caller.name, tool = %name, ?organization, "a tool is tried over the API");
    let context = Arc::new(Context { organization, ..Context::default() });
    let invocation = Invocation { id, arguments: job.arguments, call: None, context };
    // The request itself may take less than the tool.
    let limit = job.timeout.min(TRIAL_MOST);
    Ok(match run(remote, limit, invocation).await {
        Ok(output) => answer(true, true, true, "ok", output),
        Err(failure) => answer(true, true, false, failure.outcome, failure.text),
    })
}

/// Query of `DELETE /api/v1/tools/{name}`.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub struct RemoveQuery {
    organization: Option<String>,
}

/// `DELETE /api/v1/tools/{name}?organization=`: removes a tool that was declared. Calls that have it keep it.
///
/// # Errors
/// 403 for all but administrators, 404 when there is no such tool, 422 without an organization.
pub async fn remove(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, Problem> {
    caller.may_administer()?;
    let Some(organization) = query.organization else {
        let message = "say whose it is: ?organization=acme".to_owned();
        let error =
            FieldError { pointer: "organization".to_owned(), code: "required", message: message.clone() };
        return Err(Problem::unprocessable(message, vec![error]));
    };
    if !api.store.remove_tool(&organization, &name).await.map_err(store_problem)? {
        return Err(no_such());
    }
    let left = api.store.tools(None).await.map_err(store_problem)?;
    api.tools.declare(&left.into_iter().map(|stored| stored.value).collect::<Vec<_>>());
    Ok(StatusCode::NO_CONTENT)
}

fn no_such() -> Problem {
    Problem::not_found("there is no such tool; see /api/v1/tools")
}

/// A trial ends before the request does.
const TRIAL_MOST: std::time::Duration = std::time::Duration::from_secs(25);
