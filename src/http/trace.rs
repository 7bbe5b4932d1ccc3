//! A call's signalling and media story over REST, and its capture file.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Api;
use super::auth::Caller;
use super::problem::{Problem, store_problem};
use crate::id::CallId;
use crate::sip::trace::document::TraceDocument;
use crate::sip::trace::{Trace, pcap, story};
use crate::store::Committed;

/// `GET /api/v1/calls/{id}/trace`: messages by time, secrets masked, and what became of the media.
///
/// # Errors
/// 404 when there is no such call, or none this token may see.
pub async fn trace(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<TraceDocument>, Problem> {
    let known = Known::of(&api, &caller, &id).await?;
    let events = known.events();
    let told = story::tell(events.iter().map(|(at, kind, data)| (*at, *kind, data)));
    Ok(Json(TraceDocument::new(known.call.to_string(), &known.sip_call_ids, &known.traces, told)))
}

/// `GET /api/v1/calls/{id}/pcap`: the messages as a capture file.
///
/// # Errors
/// As [`trace`]; 404 as well when no message is kept.
pub async fn capture(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let known = Known::of(&api, &caller, &id).await?;
    if known.traces.is_empty() {
        return Err(Problem::not_found(
            "no message of this call is kept; sip.trace.calls says how many calls are, sip.trace.keep whether any",
        ));
    }
    let file = pcap::write(known.traces.iter().flat_map(|trace| &trace.messages));
    let name = format!("attachment; filename=\"{}.pcap\"", known.call);
    let mut response = ([(header::CONTENT_TYPE, "application/vnd.tcpdump.pcap")], file).into_response();
    if let Ok(name) = HeaderValue::from_str(&name) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// What is known of a call.
struct Known {
    call: CallId,
    rows: Vec<Committed>,
    sip_call_ids: Vec<String>,
    traces: Vec<Trace>,
}

impl Known {
    async fn of(api: &Api, caller: &Caller, id: &str) -> Result<Self, Problem> {
        let call = visible(api, caller, id).await?;
        let rows = rows(api, call).await?;
        let mut known = Self { call, rows, sip_call_ids: Vec::new(), traces: Vec::new() };
        known.sip_call_ids =
            story::sip_call_ids(known.events().iter().map(|(at, kind, data)| (*at, *kind, data)));
        if let Some(recorder) = &api.trace {
            known.traces = recorder.traces(known.sip_call_ids.clone()).await;
        }
        Ok(known)
    }

    fn events(&self) -> Vec<(i64, &str, Value)> {
        let read = |row: &Committed| serde_json::from_str(row.data.get()).unwrap_or_default();
        self.rows.iter().map(|row| (row.at.get(), &*row.kind, read(row))).collect()
    }
}

/// The call, if this caller may see it. One they may not see does not exist for them.
async fn visible(api: &Api, caller: &Caller, id: &str) -> Result<CallId, Problem> {
    let unknown = || {
        let shown = id.escape_debug();
        Problem::not_found(format!("there is no call `{shown}`; `tandem call list` shows them"))
    };
    let parsed: CallId = id.parse().map_err(|_| unknown())?;
    let call = api.store.call(parsed).await.map_err(store_problem)?;
    let seen = call.filter(|call| caller.sees(call.organization.as_deref()));
    seen.map(|call| call.id).ok_or_else(unknown)
}

/// The call's events that matter here, from the beginning.
async fn rows(api: &Api, call: CallId) -> Result<Vec<Committed>, Problem> {
    let mut rows = Vec::new();
    let mut since = 0;
    for _ in 0..PAGES_MOST {
        let page = api.feed.call_since(call, since, PAGE).await.map_err(store_problem)?;
        let (Some(last), length) = (page.last().map(|row| row.seq), page.len()) else { break };
        since = last;
        rows.extend(
            page.into_iter().filter(|row| row.kind.starts_with("call.") || row.kind.starts_with("leg.")),
        );
        if length < PAGE as usize {
            break;
        }
    }
    Ok(rows)
}

const PAGE: u32 = 500;
/// Far more events than a call of a day has.
const PAGES_MOST: usize = 100;
