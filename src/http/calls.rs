//! Calls over REST: list, show, transcript, events, end, say. The live feed's commands end here too.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::problem::{FieldError, Problem, store_problem};
use crate::call::handle::{CallCommand, CommandError, Taken};
use crate::id::CallId;
use crate::store::{CallFilter, CallRecord, StoreError};
use crate::time::UnixMs;

/// Query of `GET /api/v1/calls`.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub struct ListQuery {
    limit: Option<String>,
    after: Option<String>,
    from: Option<String>,
    to: Option<String>,
    organization: Option<String>,
    assistant: Option<String>,
    outcome: Option<String>,
    since: Option<String>,
    until: Option<String>,
    live: Option<String>,
}

/// `GET /api/v1/calls`: latest first.
///
/// # Errors
/// 401 without a token, 422 with every parameter that cannot be read.
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let (filter, limit) = read_query(&query, &caller)?;
    let page =
        api.store.calls(&filter, query.after.as_deref(), limit).await.map_err(|error| match error {
            StoreError::Cursor => Problem::unprocessable(
                "the cursor is not one of ours; start without `after`",
                vec![FieldError { pointer: "after".to_owned(), code: "cursor", message: error.to_string() }],
            ),
            other => store_problem(other),
        })?;
    Ok(Json(page).into_response())
}

/// `GET /api/v1/calls/{id}`.
///
/// # Errors
/// 404 when there is no such call, or none this token may see.
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let call = visible(&api, &caller, &id).await?;
    let (tags, notes) = api.store.marks(call.id).await.map_err(store_problem)?;
    let mut shown = serde_json::to_value(call).map_err(|error| {
        tracing::error!(%error, "a call cannot be shown");
        Problem::unavailable("the record cannot be read")
    })?;
    shown["tags"] = tags.into();
    shown["notes"] = notes.into();
    Ok(Json(shown))
}

/// Query of the events of a call.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub struct EventsQuery {
    since: u64,
    limit: Option<u32>,
}

/// `GET /api/v1/calls/{id}/events`: durable events after a number, in order.
///
/// # Errors
/// As [`show`].
pub async fn events(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Problem> {
    let call = visible(&api, &caller, &id).await?;
    let limit = query.limit.unwrap_or(LIST_DEFAULT).clamp(1, LIST_MOST);
    let events = api.feed.call_since(call.id, query.since, limit).await.map_err(store_problem)?;
    let has_more = events.len() == limit as usize;
    let cursor = events.last().filter(|_| has_more).map(|event| event.seq);
    let data: Vec<String> = events.iter().map(|e| format!(r#"{{"seq":{},{}}}"#, e.seq, e.body())).collect();
    let cursor = cursor.map_or("null".to_owned(), |seq| format!("\"{seq}\""));
    let body = format!(r#"{{"data":[{}],"has_more":{has_more},"next_cursor":{cursor}}}"#, data.join(","));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Body of `POST /api/v1/calls/{id}/say`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Say {
    text: String,
}

/// `POST /api/v1/calls/{id}/say`: the assistant says these words. 202: the call has been told.
///
/// # Errors
/// As [`end`]; 409 without an assistant, 422 for words that are empty or too long.
pub async fn say(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    body: String,
) -> Result<Response, Problem> {
    let say: Say = serde_json::from_str(&body)
        .map_err(|e| Problem::bad_request(format!("the body must be {{\"text\": \"...\"}}: {e}")))?;
    say_on_call(&api, &caller, &id, &say.text).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"call_id": id, "status": "accepted"}))).into_response())
}

/// `POST /api/v1/calls/{id}/end`, optionally with `{"reason": "..."}`. 202: the call has been told.
///
/// # Errors
/// 403 for those who only read, 404 for an unknown call, 409 for one that has ended.
pub async fn end(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    body: String,
) -> Result<Response, Problem> {
    let args = match body.trim() {
        "" => json!({}),
        text => serde_json::from_str(text)
            .map_err(|e| Problem::bad_request(format!("the body must be JSON or empty: {e}")))?,
    };
    end_call(&api, &caller, &id, &args).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"call_id": id, "status": "ending"}))).into_response())
}

/// Ends a call for whoever asks.
///
/// # Errors
/// As [`end`].
pub async fn end_call(api: &Api, caller: &Caller, id: &str, args: &Value) -> Result<(), Problem> {
    let reason = args.get("reason").and_then(Value::as_str).unwrap_or("ended over the API");
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
    command(api, caller, id, CallCommand::End { by: "api".to_owned(), reason }).await
}

/// Lets the assistant of a call speak for whoever asks.
///
/// # Errors
/// As [`say`].
pub async fn say_on_call(api: &Api, caller: &Caller, id: &str, text: &str) -> Result<(), Problem> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > LONGEST_SAY {
        return Err(Problem::unprocessable(
            format!("`text` must have 1 to {LONGEST_SAY} characters"),
            vec![FieldError {
                pointer: "/text".to_owned(),
                code: "length",
                message: format!("1 to {LONGEST_SAY} characters"),
            }],
        ));
    }
    ask(api, caller, id, |taken| CallCommand::Say { text: text.to_owned(), taken }).await
}

/// What a new subscriber of a wall starts from.
///
/// # Errors
/// 503 when the store does not answer.
pub async fn wall_snapshot(api: &Api, caller: &Caller) -> Result<Value, Problem> {
    let filter =
        CallFilter { organization: caller.organization.clone(), live: Some(true), ..CallFilter::default() };
    let page = api.store.calls(&filter, None, LIST_MOST).await.map_err(store_problem)?;
    Ok(json!({"calls": page.data, "has_more": page.has_more}))
}

/// What a new subscriber of a call starts from.
///
/// # Errors
/// As [`wall_snapshot`]; 404 when there is no such call.
pub async fn call_snapshot(api: &Api, id: CallId) -> Result<Value, Problem> {
    let call = api.store.call(id).await.map_err(store_problem)?.ok_or_else(|| unknown(&id.to_string()))?;
    let lines = api.store.transcript(id).await.map_err(store_problem)?;
    Ok(json!({"call": call, "lines": lines}))
}

/// Tells a live call something.
///
/// # Errors
/// As [`end`].
pub(super) async fn command(
    api: &Api,
    caller: &Caller,
    id: &str,
    command: CallCommand,
) -> Result<(), Problem> {
    caller.may_act()?;
    let record = visible(api, caller, id).await?;
    let handle = api.calls.get(record.id).ok_or_else(|| Problem::conflict("the call has ended"))?;
    handle.command(command).map_err(|error| match error {
        CommandError::Gone => Problem::conflict("the call has ended"),
        CommandError::Busy => Problem::unavailable("the call does not keep up; try again"),
    })
}

/// Asks a live call for something that it takes only in some states.
///
/// # Errors
/// As [`end`]; 409 with the reason when the call does not take it.
pub(super) async fn ask(
    api: &Api,
    caller: &Caller,
    id: &str,
    what: impl FnOnce(Taken) -> CallCommand,
) -> Result<(), Problem> {
    let (taken, told) = Taken::ask();
    command(api, caller, id, what(taken)).await?;
    match tokio::time::timeout(ANSWER_TIME, told).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(why))) => Err(Problem::conflict(why)),
        Ok(Err(_)) => Err(Problem::conflict("the call cannot do that in its present state")),
        Err(_) => Err(Problem::unavailable("the call does not keep up; try again")),
    }
}

/// The call, if this caller may see it. One they may not see does not exist for them.
pub(super) async fn visible(api: &Api, caller: &Caller, id: &str) -> Result<CallRecord, Problem> {
    let parsed: CallId = id.parse().map_err(|_| unknown(id))?;
    let call = api.store.call(parsed).await.map_err(store_problem)?;
    call.filter(|call| caller.sees(call.organization.as_deref())).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("there is no call `{}`; `tandem call list` shows them", id.escape_debug()))
}

/// Everything wrong with the query at once.
fn read_query(query: &ListQuery, caller: &Caller) -> Result<(CallFilter, u32), Problem> {
    let mut errors = Vec::new();
    let mut wrong = |pointer: &str, code: &'static str, message: String| {
        errors.push(FieldError { pointer: pointer.to_owned(), code, message });
    };
    let limit = match query.limit.as_deref().map(str::parse::<u32>) {
        None => LIST_DEFAULT,
        Some(Ok(limit)) if (1..=LIST_MOST).contains(&limit) => limit,
        Some(_) => {
            wrong("limit", "range", format!("a number from 1 to {LIST_MOST}"));
            LIST_DEFAULT
        }
    };
    let mut moment = |name: &str, text: &Option<String>| {
        let parsed = text.as_deref().map(UnixMs::parse_rfc3339);
        match parsed {
            Some(Err(_)) => {
                wrong(name, "time", "an RFC 3339 time such as 2026-11-21T09:30:00Z".to_owned());
                None
            }
            Some(Ok(moment)) => Some(moment),
            None => None,
        }
    };
    let (since, until) = (moment("since", &query.since), moment("until", &query.until));
    let disposition = query.outcome.as_deref().and_then(|outcome| {
        let parsed = serde_json::from_value(Value::from(outcome)).ok();
        if parsed.is_none() {
            wrong(
                "outcome",
                "enum",
                "completed, cancelled, rejected, busy, no_answer, failed or interrupted".to_owned(),
            );
        }
        parsed
    });
    let live = query.live.as_deref().and_then(|live| {
        let parsed = live.parse().ok();
        if parsed.is_none() {
            wrong("live", "enum", "true or false".to_owned());
        }
        parsed
    });
    if !errors.is_empty() {
        return Err(Problem::unprocessable("some parameters cannot be read", errors));
    }
    let filter = CallFilter {
        from: query.from.clone(),
        to: query.to.clone(),
        // A token of one organization sees that one, whatever it asks for.
        organization: caller.organization.clone().or_else(|| query.organization.clone()),
        assistant: query.assistant.clone(),
        disposition,
        since,
        until,
        live,
    };
    Ok((filter, limit))
}

const LIST_DEFAULT: u32 = 50;
const LIST_MOST: u32 = 200;
const LONGEST_SAY: usize = 2000;
/// A call answers within a few slots of its grid.
const ANSWER_TIME: Duration = Duration::from_secs(5);
