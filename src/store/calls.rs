//! Calls as they are listed and looked up: the call detail records, and their transcripts.

use serde::Serialize;
use sqlx::{Database, Encode, QueryBuilder, Type};

use super::Store;
use super::costs::Amount;
use super::error::StoreError;
use super::row::{json, parsed, reading, row, unsigned, word};
use crate::event::{Direction, Disposition, Phase, Quality, TranscriptLine};
use crate::id::CallId;
use crate::time::UnixMs;

macro_rules! call_columns {
    () => {
        "SELECT id, node, organization, direction, from_number, to_number, trunk, assistant, provider, \
         sip_call_id, phase, floor, codec, created_at, answered_at, ended_at, disposition, ended_by, \
         sip_status, reason, duration_ms, billable_ms, last_seq, quality, recording, verstat, diversion, \
         cost, currency FROM calls"
    };
}
const LIST: &str = concat!(call_columns!(), " WHERE 1 = 1");
const BY_ID: &str = concat!(call_columns!(), " WHERE id = $1");
const TRANSCRIPT: &str = "SELECT line_id, who, text, start_ms, end_ms, heard, heard_text \
     FROM transcript_lines WHERE call_id = $1 ORDER BY seq";
const LIVE_COUNT: &str = "SELECT COUNT(*) FROM calls WHERE ended_at IS NULL";

/// The record of one call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallRecord {
    /// Its id.
    pub id: CallId,
    /// The node that carries or carried it.
    pub node: String,
    /// Owner, by name.
    pub organization: Option<String>,
    /// Who called whom.
    pub direction: Direction,
    /// Calling number or URI user.
    pub from: String,
    /// Called number or URI user.
    pub to: String,
    /// Trunk it came over.
    pub trunk: Option<String>,
    /// Assistant, by name.
    pub assistant: Option<String>,
    /// The AI service that joined last.
    pub provider: Option<String>,
    /// Call-ID header of the first leg.
    pub sip_call_id: Option<String>,
    /// Where it is.
    pub phase: Phase,
    /// Who may speak to the caller, as in [`crate::event::Floor`].
    pub floor: String,
    /// Codec in use.
    pub codec: Option<String>,
    /// When the INVITE arrived or was sent.
    pub created_at: UnixMs,
    /// When the caller first heard us.
    pub answered_at: Option<UnixMs>,
    /// When it ended; `None` while it is live.
    pub ended_at: Option<UnixMs>,
    /// How it ended.
    pub disposition: Option<Disposition>,
    /// Who ended it.
    pub ended_by: Option<String>,
    /// The status that fits the end.
    pub sip_status: Option<u16>,
    /// The end in words.
    pub reason: Option<String>,
    /// From INVITE to the end.
    pub duration_ms: Option<u64>,
    /// From answer to the end.
    pub billable_ms: Option<u64>,
    /// Number of its last event.
    pub last_seq: u64,
    /// RTP statistics, the latest there are.
    pub quality: Option<Quality>,
    /// Recording, as a file name within the data directory.
    pub recording: Option<String>,
    /// What the carrier says the caller's number is worth (STIR), such as `TN-Validation-Passed-A`.
    pub verstat: Option<String>,
    /// The number the call was diverted from, the latest.
    pub diversion: Option<String>,
    /// What it has cost, as far as that has a price. `GET /api/v1/calls/{id}/cost` has the details.
    pub cost: Option<Amount>,
}

/// Which calls are wanted. What is `None` does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallFilter {
    /// Calling number, exactly.
    pub from: Option<String>,
    /// Called number, exactly.
    pub to: Option<String>,
    /// Owner, by name.
    pub organization: Option<String>,
    /// Assistant, by name.
    pub assistant: Option<String>,
    /// How it ended.
    pub disposition: Option<Disposition>,
    /// Created at this moment or later.
    pub since: Option<UnixMs>,
    /// Created before this moment.
    pub until: Option<UnixMs>,
    /// `true`: not ended; `false`: ended.
    pub live: Option<bool>,
}

/// A page of calls, latest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallPage {
    /// The calls.
    pub data: Vec<CallRecord>,
    /// Whether there are more.
    pub has_more: bool,
    /// Where the next page begins. Opaque.
    pub next_cursor: Option<String>,
}

impl Store {
    /// A page of calls, latest first: at most `limit` (1..=[`PAGE_MAX`]), after `cursor` from the page
    /// before.
    ///
    /// # Errors
    /// When the cursor is not one of ours, or the database cannot be read.
    pub async fn calls(
        &self,
        filter: &CallFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<CallPage, StoreError> {
        let after = cursor.map(read_cursor).transpose()?;
        let limit = limit.clamp(1, PAGE_MAX);
        let mut rows: Vec<CallRow> = reading!(self, pool => {
            let mut query = QueryBuilder::new(LIST);
            narrow(&mut query, filter, after.as_ref());
            query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(i64::from(limit) + 1);
            query.build_query_as().fetch_all(pool).await
        })?;
        let has_more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next_cursor = rows.last().filter(|_| has_more).map(|row| cursor_after(row.created_at, &row.id));
        let data = rows.into_iter().map(CallRow::read).collect::<Result<_, _>>()?;
        Ok(CallPage { data, has_more, next_cursor })
    }

    /// The record of a call.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn call(&self, id: CallId) -> Result<Option<CallRecord>, StoreError> {
        let id = id.to_string();
        let row: Option<CallRow> =
            reading!(self, pool => sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await)?;
        row.map(CallRow::read).transpose()
    }

    /// The lines of a call, in the order in which they were finished.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn transcript(&self, call: CallId) -> Result<Vec<TranscriptLine>, StoreError> {
        let id = call.to_string();
        let rows: Vec<LineRow> =
            reading!(self, pool => sqlx::query_as(TRANSCRIPT).bind(id).fetch_all(pool).await)?;
        rows.into_iter().map(LineRow::read).collect()
    }

    /// How many calls have not ended, on all nodes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn live_calls(&self) -> Result<u64, StoreError> {
        let count: i64 = reading!(self, pool => sqlx::query_scalar(LIVE_COUNT).fetch_one(pool).await)?;
        Ok(unsigned(count))
    }
}

fn narrow<DB>(query: &mut QueryBuilder<DB>, filter: &CallFilter, after: Option<&(i64, String)>)
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let texts = [
        (" AND from_number = ", filter.from.clone()),
        (" AND to_number = ", filter.to.clone()),
        (" AND organization = ", filter.organization.clone()),
        (" AND assistant = ", filter.assistant.clone()),
        (" AND disposition = ", filter.disposition.map(|d| d.as_str().to_owned())),
    ];
    for (condition, value) in texts {
        if let Some(value) = value {
            query.push(condition).push_bind(value.replace('\0', "\u{fffd}"));
        }
    }
    let moments = [(" AND created_at >= ", filter.since), (" AND created_at < ", filter.until)];
    for (condition, moment) in moments {
        if let Some(moment) = moment {
            query.push(condition).push_bind(moment.get());
        }
    }
    match filter.live {
        Some(true) => query.push(" AND ended_at IS NULL"),
        Some(false) => query.push(" AND ended_at IS NOT NULL"),
        None => query,
    };
    if let Some((created_at, id)) = after {
        query.push(" AND (created_at < ").push_bind(*created_at);
        query.push(" OR (created_at = ").push_bind(*created_at);
        query.push(" AND id < ").push_bind(id.clone()).push("))");
    }
}

fn cursor_after(created_at: i64, id: &str) -> String {
    format!("{created_at:x}.{id}")
}

fn read_cursor(cursor: &str) -> Result<(i64, String), StoreError> {
    let (created_at, id) = cursor.split_once('.').ok_or(StoreError::Cursor)?;
    let created_at = i64::from_str_radix(created_at, 16).map_err(|_| StoreError::Cursor)?;
    let id: CallId = id.parse().map_err(|_| StoreError::Cursor)?;
    Ok((created_at, id.to_string()))
}

row! {
    struct CallRow {
        id: String,
        node: String,
        organization: Option<String>,
        direction: String,
        from_number: String,
        to_number: String,
        trunk: Option<String>,
        assistant: Option<String>,
        provider: Option<String>,
        sip_call_id: Option<String>,
        phase: String,
        floor: String,
        codec: Option<String>,
        created_at: i64,
        answered_at: Option<i64>,
        ended_at: Option<i64>,
        disposition: Option<String>,
        ended_by: Option<String>,
        sip_status: Option<i64>,
        reason: Option<String>,
        duration_ms: Option<i64>,
        billable_ms: Option<i64>,
        last_seq: i64,
        quality: Option<String>,
        recording: Option<String>,
        verstat: Option<String>,
        diversion: Option<String>,
        cost: Option<i64>,
        currency: Option<String>,
    }
}

impl CallRow {
    fn read(self) -> Result<CallRecord, StoreError> {
        Ok(CallRecord {
            id: parsed("calls", &self.id)?,
            node: self.node,
            organization: self.organization,
            direction: word("calls", self.direction)?,
            from: self.from_number,
            to: self.to_number,
            trunk: self.trunk,
            assistant: self.assistant,
            provider: self.provider,
            sip_call_id: self.sip_call_id,
            phase: word("calls", self.phase)?,
            floor: self.floor,
            codec: self.codec,
            created_at: UnixMs::new(self.created_at),
            answered_at: self.answered_at.map(UnixMs::new),
            ended_at: self.ended_at.map(UnixMs::new),
            disposition: self.disposition.map(|text| word("calls", text)).transpose()?,
            ended_by: self.ended_by,
            sip_status: self.sip_status.and_then(|status| u16::try_from(status).ok()),
            reason: self.reason,
            duration_ms: self.duration_ms.map(unsigned),
            billable_ms: self.billable_ms.map(unsigned),
            last_seq: unsigned(self.last_seq),
            quality: self.quality.map(|text| json("calls", &text)).transpose()?,
            recording: self.recording,
            verstat: self.verstat,
            diversion: self.diversion,
            cost: Amount::read(self.cost, self.currency),
        })
    }
}

row! {
    struct LineRow {
        line_id: String,
        who: String,
        text: String,
        start_ms: i64,
        end_ms: i64,
        heard: String,
        heard_text: Option<String>,
    }
}

impl LineRow {
    fn read(self) -> Result<TranscriptLine, StoreError> {
        Ok(TranscriptLine {
            line_id: parsed("transcript_lines", &self.line_id)?,
            who: self.who,
            text: self.text,
            start_ms: unsigned(self.start_ms),
            end_ms: unsigned(self.end_ms),
            heard: word("transcript_lines", self.heard)?,
            heard_text: self.heard_text,
        })
    }
}

/// Calls in a page at most.
pub const PAGE_MAX: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_ours_is_read_and_any_other_refused() {
        let id = CallId::from_parts(1_790_000_000_123, 7);
        let cursor = cursor_after(1_790_000_000_123, &id.to_string());
        assert_eq!(read_cursor(&cursor).unwrap(), (1_790_000_000_123, id.to_string()));
        for bad in ["", "x", "1.call_", "zz.call_01", "1.' OR 1=1"] {
            assert!(matches!(read_cursor(bad), Err(StoreError::Cursor)), "{bad}");
        }
    }
}
