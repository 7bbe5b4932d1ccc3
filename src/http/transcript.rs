//! The transcript of a call over REST: its lines, and where another provider went on with the conversation.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Api;
use super::auth::Caller;
use super::calls::visible;
use super::problem::{FieldError, Problem, store_problem};
use crate::event::{CallEventKind, TranscriptLine};
use crate::store::{CallRecord, Committed, StoreError};

/// Query of the transcript: `json` (default), `text` or `vtt`.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub struct TranscriptQuery {
    format: Option<String>,
}

/// A provider was lost, or another session has gone on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// From the start of the call.
    pub at_ms: u64,
    /// `lost` or `resumed`.
    pub what: &'static str,
    /// Provider name.
    pub provider: String,
    /// Why it was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the caller had no assistant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<u64>,
}

/// `GET /api/v1/calls/{id}/transcript`.
///
/// # Errors
/// As [`super::calls::show`]; 422 for an unknown format.
pub async fn transcript(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<TranscriptQuery>,
) -> Result<Response, Problem> {
    let call = visible(&api, &caller, &id).await?;
    let lines = api.store.transcript(call.id).await.map_err(store_problem)?;
    let changes = changes(&api, &call).await.map_err(store_problem)?;
    let text = |kind: &'static str, body: String| ([(header::CONTENT_TYPE, kind)], body).into_response();
    match query.format.as_deref().unwrap_or("json") {
        "json" => Ok(Json(json!({"call_id": call.id, "data": lines, "changes": changes})).into_response()),
        "text" => Ok(text("text/plain; charset=utf-8", as_text(&lines, &changes))),
        "vtt" => Ok(text("text/vtt; charset=utf-8", as_vtt(&lines))),
        _ => Err(Problem::unprocessable(
            "`format` is json, text or vtt",
            vec![FieldError {
                pointer: "format".to_owned(),
                code: "enum",
                message: "json, text or vtt".to_owned(),
            }],
        )),
    }
}

/// Every change of a call, in order.
async fn changes(api: &Api, call: &CallRecord) -> Result<Vec<Change>, StoreError> {
    let (mut changes, mut since) = (Vec::new(), 0);
    loop {
        let events = api.feed.call_since(call.id, since, PAGE).await?;
        let Some(last) = events.last() else { return Ok(changes) };
        since = last.seq;
        changes.extend(events.iter().filter_map(|event| change(call, event)));
        if events.len() < PAGE as usize {
            return Ok(changes);
        }
    }
}

fn change(call: &CallRecord, event: &Committed) -> Option<Change> {
    if !event.kind.starts_with("provider.") {
        return None;
    }
    let at_ms = u64::try_from(event.at.get() - call.created_at.get()).unwrap_or_default();
    let kind = format!(r#"{{"type":"{}","data":{}}}"#, event.kind, event.data.get());
    match serde_json::from_str(&kind).ok()? {
        CallEventKind::ProviderLost { provider, reason } => {
            Some(Change { at_ms, what: "lost", provider, reason: Some(reason), gap_ms: None })
        }
        CallEventKind::ProviderConnected { provider, resumed: true, gap_ms, .. } => {
            Some(Change { at_ms, what: "resumed", provider, reason: None, gap_ms })
        }
        _ => None,
    }
}

fn as_text(lines: &[TranscriptLine], changes: &[Change]) -> String {
    let line = |l: &TranscriptLine| (l.start_ms, format!("{}: {}", l.who, heard(l)));
    let change = |c: &Change| {
        let words = match &c.reason {
            Some(reason) => format!("[{} lost: {reason}]", c.provider),
            None => format!("[{} goes on]", c.provider),
        };
        (c.at_ms, words)
    };
    let mut all: Vec<_> = lines.iter().map(line).chain(changes.iter().map(change)).collect();
    if !changes.is_empty() {
        // Lines come in the order in which they were finished, which stands where nothing is put between.
        all.sort_by_key(|(at, _)| *at);
    }
    all.iter().map(|(at, words)| format!("{} {words}\n", clock(*at))).collect()
}

fn as_vtt(lines: &[TranscriptLine]) -> String {
    let cue = |line: &TranscriptLine| {
        let (start, end) = (clock(line.start_ms), clock(line.end_ms));
        let text = heard(line).replace('&', "&amp;").replace('<', "&lt;");
        format!("{start} --> {end}\n<v {}>{text}\n\n", line.who)
    };
    format!("WEBVTT\n\n{}", lines.iter().map(cue).collect::<String>())
}

/// What was heard; a line that was cut ends with a dash.
fn heard(line: &TranscriptLine) -> String {
    match &line.heard_text {
        Some(heard) => format!("{heard} —"),
        None => line.text.clone(),
    }
}

fn clock(ms: u64) -> String {
    let (s, m, h) = (ms / 1000 % 60, ms / 60_000 % 60, ms / 3_600_000);
    format!("{h:02}:{m:02}:{s:02}.{:03}", ms % 1000)
}

/// Events read at a time.
const PAGE: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Heard;
    use crate::id::LineId;

    #[test]
    fn the_text_says_where_another_provider_went_on() {
        let line = |start_ms, who: &str, heard_text: Option<&str>| TranscriptLine {
            line_id: LineId::fresh(),
            who: who.into(),
            text: "One two three.".into(),
            start_ms,
            end_ms: start_ms + 900,
            heard: if heard_text.is_some() { Heard::Cut } else { Heard::Full },
            heard_text: heard_text.map(str::to_owned),
        };
        let lines = [line(1000, "assistant", Some("One two")), line(2500, "assistant", None)];
        let lost = Change {
            at_ms: 2000,
            what: "lost",
            provider: "openai".into(),
            reason: Some("the connection broke".into()),
            gap_ms: None,
        };
        let resumed = Change {
            at_ms: 2080,
            what: "resumed",
            provider: "backup".into(),
            reason: None,
            gap_ms: Some(80),
        };
        assert_eq!(
            as_text(&lines, &[lost, resumed]),
            "00:00:01.000 assistant: One two —\n00:00:02.000 [openai lost: the connection broke]\n\
             00:00:02.080 [backup goes on]\n00:00:02.500 assistant: One two three.\n"
        );
    }
}
