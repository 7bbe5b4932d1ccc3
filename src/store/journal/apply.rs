//! Writes a batch of numbered events, and the state they change, in one transaction.
//!
//! Whatever the batch holds, it takes at most five statements: the events, the calls created, the lines,
//! the changes of calls, folded into one row per call, and what they have used. All of them may be repeated: an event that is
//! there is left alone, and a call changes only by events after its `last_seq`.

use std::collections::BTreeMap;

use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, Database, Encode, Postgres, QueryBuilder, Type};

use super::numbers::Entry;
use crate::event::{CallCreated, CallEnded, CallEventKind, CostItem, Floor, Heard, Phase, TranscriptLine};
use crate::id::CallId;
use crate::store::row::{signed, storable};
use crate::store::{Backend, Store};

const INSERT_EVENTS: &str = "INSERT INTO call_events \
     (wall_seq, call_id, seq, id, at_ms, type, data, organization, org_seq) ";
const INSERT_LINES: &str = "INSERT INTO transcript_lines \
     (line_id, call_id, seq, who, text, start_ms, end_ms, heard, heard_text) ";
const INSERT_COSTS: &str = "INSERT INTO call_costs \
     (id, call_id, seq, part, provider, model, what, quantity, unit, amount) ";
const INSERT_CALLS: &str = "INSERT INTO calls \
     (id, node, organization, direction, from_number, to_number, trunk, assistant, sip_call_id, \
      created_at, last_seq, phase, floor, verstat, diversion) ";
// The columns of `changes` are those of `update_calls`; both back ends name them so.
const UPDATE_CALLS: &str = "UPDATE calls SET last_seq = changes.column2, \
     phase = COALESCE(changes.column3, phase), floor = COALESCE(changes.column4, floor), \
     codec = COALESCE(changes.column5, codec), answered_at = COALESCE(answered_at, changes.column6), \
     provider = COALESCE(changes.column7, provider), quality = COALESCE(changes.column8, quality), \
     recording = COALESCE(changes.column9, recording), ended_at = COALESCE(ended_at, changes.column10), \
     disposition = COALESCE(disposition, changes.column11), \
     ended_by = COALESCE(ended_by, changes.column12), \
     sip_status = COALESCE(sip_status, changes.column13), reason = COALESCE(reason, changes.column14), \
     duration_ms = COALESCE(duration_ms, changes.column15), \
     billable_ms = COALESCE(billable_ms, changes.column16), cost = COALESCE(changes.column17, cost), \
     currency = COALESCE(changes.column18, currency) FROM (";
const UPDATE_WHERE: &str =
    ") AS changes WHERE calls.id = changes.column1 AND calls.last_seq < changes.column2";

/// The statements, for the transaction of either back end.
macro_rules! write_batch {
    ($transaction:ident, $node:ident, $entries:ident, $changes:ident) => {{
        run!($transaction, insert_events($entries), $entries);
        if !$changes.created.is_empty() {
            run!($transaction, insert_calls($node, &$changes.created), $changes.created);
        }
        if !$changes.lines.is_empty() {
            run!($transaction, insert_lines(&$changes.lines), $changes.lines);
        }
        if !$changes.changed.is_empty() {
            run!($transaction, update_calls(&$changes.changed), $changes.changed);
        }
        if !$changes.costs.is_empty() {
            run!($transaction, insert_costs(&$changes.costs), $changes.costs);
        }
    }};
}

/// Runs one statement. Those for a few rows come again and are kept prepared.
macro_rules! run {
    ($transaction:ident, $query:expr, $rows:expr) => {
        $query.build().persistent($rows.len() <= PREPARED_ROWS).execute(&mut *$transaction).await?
    };
}

/// Writes `entries`. On an error nothing is written, or (when the connection was lost while committing)
/// everything is: writing the same entries again is right in both cases.
pub(super) async fn apply(store: &Store, node: &str, entries: &[Entry]) -> Result<(), sqlx::Error> {
    let changes = Changes::of(entries);
    match store.backend() {
        Backend::Sqlite { writer, .. } => {
            let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
            write_batch!(transaction, node, entries, changes);
            transaction.commit().await
        }
        Backend::Postgres { journal, .. } => {
            let mut guard = Unfinished(Some(journal.acquire().await?));
            if let Some(connection) = &mut guard.0 {
                let mut transaction = connection.begin().await?;
                write_batch!(transaction, node, entries, changes);
                transaction.commit().await?;
            }
            guard.0 = None;
            Ok(())
        }
    }
}

/// Whether a transaction for writing can begin.
pub(super) async fn probe(store: &Store) -> Result<(), sqlx::Error> {
    match store.backend() {
        Backend::Sqlite { writer, .. } => writer.begin_with("BEGIN IMMEDIATE").await?.rollback().await,
        Backend::Postgres { journal, .. } => {
            let mut guard = Unfinished(Some(journal.acquire().await?));
            if let Some(connection) = &mut guard.0 {
                connection.begin().await?.rollback().await?;
            }
            guard.0 = None;
            Ok(())
        }
    }
}

/// A connection with work in progress. Dropped before the work is done (it took too long), it is closed:
/// behind a network that swallows packets it would never be of use again.
struct Unfinished(Option<PoolConnection<Postgres>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}

fn insert_events<DB>(entries: &[Entry]) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
    Option<String>: for<'q> Encode<'q, DB> + Type<DB>,
    Option<i64>: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new(INSERT_EVENTS);
    query.push_values(entries, |mut row, entry| {
        let event = &entry.committed;
        row.push_bind(signed(event.wall_seq))
            .push_bind(event.call.to_string())
            .push_bind(signed(event.seq))
            .push_bind(event.event_id.to_string())
            .push_bind(event.at.get())
            .push_bind(event.kind.to_string())
            .push_bind(event.data.get().to_owned())
            .push_bind(event.organization.as_deref().map(str::to_owned))
            .push_bind(event.org_seq.map(signed));
    });
    query.push(" ON CONFLICT (call_id, seq) DO NOTHING");
    query
}

fn insert_calls<DB>(node: &str, created: &[(&Entry, &CallCreated)]) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
    Option<String>: for<'q> Encode<'q, DB> + Type<DB>,
{
    let optional = |text: &Option<String>| text.as_deref().map(|text| storable(text).into_owned());
    let mut query = QueryBuilder::new(INSERT_CALLS);
    query.push_values(created, |mut row, (entry, created)| {
        let event = &entry.committed;
        row.push_bind(event.call.to_string())
            .push_bind(node.to_owned())
            .push_bind(event.organization.as_deref().map(str::to_owned))
            .push_bind(created.direction.as_str().to_owned())
            .push_bind(storable(&created.from).into_owned())
            .push_bind(storable(&created.to).into_owned())
            .push_bind(optional(&created.trunk))
            .push_bind(optional(&created.assistant))
            .push_bind(optional(&created.sip_call_id))
            .push_bind(event.at.get())
            .push_bind(signed(event.seq))
            .push_bind(Phase::Ringing.as_str().to_owned())
            .push_bind(Floor::None.to_string())
            .push_bind(optional(&created.verstat))
            .push_bind(optional(&created.diversion));
    });
    query.push(" ON CONFLICT (id) DO NOTHING");
    query
}

fn update_calls<DB>(changed: &BTreeMap<CallId, Change>) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
    Option<String>: for<'q> Encode<'q, DB> + Type<DB>,
    Option<i64>: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new(UPDATE_CALLS);
    query.push_values(changed, |mut row, (call, change)| {
        let ended = change.ended.as_ref();
        row.push_bind(call.to_string())
            .push_bind(signed(change.last_seq))
            .push_bind(change.phase.map(|phase| phase.as_str().to_owned()))
            .push_bind(change.floor.clone())
            .push_bind(change.codec.clone())
            .push_bind(change.answered_at)
            .push_bind(change.provider.clone())
            .push_bind(change.quality.clone())
            .push_bind(change.recording.clone())
            .push_bind(change.ended_at)
            .push_bind(ended.map(|ended| ended.disposition.as_str().to_owned()))
            .push_bind(ended.map(|ended| storable(&ended.ended_by).into_owned()))
            .push_bind(ended.map(|ended| i64::from(ended.sip_status)))
            .push_bind(ended.map(|ended| storable(&ended.reason).into_owned()))
            .push_bind(ended.map(|ended| signed(ended.duration_ms)))
            .push_bind(ended.map(|ended| signed(ended.billable_ms)))
            .push_bind(change.cost.as_ref().map(|(total, _)| *total))
            .push_bind(change.cost.as_ref().map(|(_, currency)| currency.clone()));
    });
    query.push(UPDATE_WHERE);
    query
}

fn insert_lines<DB>(lines: &[(&Entry, &TranscriptLine)]) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
    Option<String>: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new(INSERT_LINES);
    query.push_values(lines, |mut row, (entry, line)| {
        let heard = match line.heard {
            Heard::Full => "full",
            Heard::Cut => "cut",
        };
        row.push_bind(line.line_id.to_string())
            .push_bind(entry.committed.call.to_string())
            .push_bind(signed(entry.committed.seq))
            .push_bind(storable(&line.who).into_owned())
            .push_bind(storable(&line.text).into_owned())
            .push_bind(signed(line.start_ms))
            .push_bind(signed(line.end_ms))
            .push_bind(heard.to_owned())
            .push_bind(line.heard_text.as_deref().map(|text| storable(text).into_owned()));
    });
    query.push(" ON CONFLICT (line_id) DO NOTHING");
    query
}

fn insert_costs<DB>(costs: &BTreeMap<String, (&Entry, &CostItem)>) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
    Option<i64>: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new(INSERT_COSTS);
    query.push_values(costs, |mut row, (id, (entry, item))| {
        row.push_bind(id.clone())
            .push_bind(entry.committed.call.to_string())
            .push_bind(signed(entry.committed.seq))
            .push_bind(item.part.as_str().to_owned())
            .push_bind(storable(&item.provider).into_owned())
            .push_bind(storable(&item.model).into_owned())
            .push_bind(storable(&item.what).into_owned())
            .push_bind(signed(item.quantity))
            .push_bind(storable(&item.unit).into_owned())
            .push_bind(item.amount.map(signed));
    });
    query.push(
        " ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, quantity = excluded.quantity, \
         amount = excluded.amount WHERE call_costs.seq < excluded.seq",
    );
    query
}

/// What a batch changes beside the log.
#[derive(Debug, Default)]
struct Changes<'a> {
    created: Vec<(&'a Entry, &'a CallCreated)>,
    lines: Vec<(&'a Entry, &'a TranscriptLine)>,
    /// By what it is: the latest of each.
    costs: BTreeMap<String, (&'a Entry, &'a CostItem)>,
    changed: BTreeMap<CallId, Change>,
}

/// What the events of a batch change in one call's record. What is `None` stays as it is.
#[derive(Debug, Default)]
struct Change {
    last_seq: u64,
    phase: Option<Phase>,
    floor: Option<String>,
    codec: Option<String>,
    answered_at: Option<i64>,
    provider: Option<String>,
    quality: Option<String>,
    recording: Option<String>,
    ended_at: Option<i64>,
    ended: Option<CallEnded>,
    cost: Option<(i64, String)>,
}

fn cost_id(entry: &Entry, item: &CostItem) -> String {
    let (call, part) = (entry.committed.call, item.part.as_str());
    storable(&format!("{call}/{part}/{}/{}/{}", item.provider, item.model, item.what)).into_owned()
}

impl<'a> Changes<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let mut changes = Self::default();
        for entry in entries {
            match &entry.kind {
                Some(CallEventKind::Created(created)) => changes.created.push((entry, created)),
                kind => {
                    if let Some(CallEventKind::Transcript(line)) = kind {
                        changes.lines.push((entry, line));
                    }
                    if let Some(CallEventKind::Cost(cost)) = kind {
                        let rows = cost.items.iter().map(|item| (cost_id(entry, item), (entry, item)));
                        changes.costs.extend(rows);
                    }
                    let change = changes.changed.entry(entry.committed.call).or_default();
                    change.last_seq = entry.committed.seq;
                    change.apply(entry.committed.at.get(), kind.as_ref());
                }
            }
        }
        changes
    }
}

impl Change {
    fn apply(&mut self, at_ms: i64, kind: Option<&CallEventKind>) {
        match kind {
            Some(CallEventKind::Answered { codec }) => {
                self.answered_at.get_or_insert(at_ms);
                self.codec = Some(storable(codec).into_owned());
            }
            Some(CallEventKind::Phase { phase, floor }) => {
                self.phase = Some(*phase);
                self.floor = Some(storable(&floor.to_string()).into_owned());
            }
            Some(CallEventKind::Media { codec, .. }) => self.codec = Some(storable(codec).into_owned()),
            Some(CallEventKind::Quality(quality)) => self.quality = serde_json::to_string(quality).ok(),
            Some(CallEventKind::ProviderConnected { provider, .. }) => {
                self.provider = Some(storable(provider).into_owned());
            }
            Some(CallEventKind::Recording { state, file }) if state != "failed" => {
                self.recording = Some(storable(file).into_owned());
            }
            Some(CallEventKind::Ended(ended)) => {
                self.phase = Some(Phase::Ended);
                self.floor = Some(Floor::None.to_string());
                self.ended_at = Some(at_ms);
                self.ended = Some(ended.clone());
            }
            Some(CallEventKind::Cost(cost)) => {
                self.cost = Some((signed(cost.total), storable(&cost.currency).into_owned()));
            }
            // In the log only; a line of the transcript has a table of its own.
            Some(
                CallEventKind::Created(_)
                | CallEventKind::Transcript(_)
                | CallEventKind::Recording { .. }
                | CallEventKind::Dtmf { .. }
                | CallEventKind::ToolStarted { .. }
                | CallEventKind::ToolFinished { .. }
                | CallEventKind::Tagged { .. }
                | CallEventKind::Noted { .. }
                | CallEventKind::ProviderLost { .. }
                | CallEventKind::LegAdded { .. }
                | CallEventKind::LegEnded { .. }
                | CallEventKind::Bridged { .. }
                | CallEventKind::Transfer { .. }
                | CallEventKind::CostLimit(_)
                | CallEventKind::BargeIn { .. },
            )
            | None => {}
        }
    }
}

/// Rows up to which a statement is worth keeping prepared.
const PREPARED_ROWS: usize = 8;
