//! What a start finds: events an earlier process left in the journal's files, and calls it left open.

use std::collections::HashMap;

use tracing::{info, warn};

use super::apply::apply;
use super::numbers::{Entry, Known, Numbers};
use super::overflow::Overflow;
use super::spill::Spilled;
use super::writer::BATCH;
use crate::event::{CallEnded, CallEvent, CallEventKind, Disposition};
use crate::id::CallId;
use crate::store::error::{StoreError, is_outage};
use crate::store::row::{parsed, reading, row, unsigned};
use crate::store::{BackendKind, Store};
use crate::time::UnixMs;

// An SQLite file belongs to one server, whatever its node was called before.
const OPEN_CALLS: &str = "SELECT calls.id, calls.organization, created_at, answered_at, last_seq, \
     (SELECT MAX(at_ms) FROM call_events WHERE call_id = calls.id) AS heard_of \
     FROM calls WHERE ended_at IS NULL AND (node = $1 OR $2) ORDER BY created_at, calls.id";

/// What recovery works on.
pub(super) struct Recovery<'a> {
    pub(super) store: &'a Store,
    pub(super) node: &'a str,
    pub(super) numbers: &'a mut Numbers,
    pub(super) spilled: &'a Spilled,
    pub(super) overflow: &'a Overflow,
    pub(super) last_alive: Option<UnixMs>,
}

/// Brings the database up to date and answers which calls were closed as interrupted.
pub(super) async fn recover(mut recovery: Recovery<'_>) -> Result<Vec<CallId>, StoreError> {
    recovery.numbers.raise_heads(recovery.store.heads().await?);
    recovery.replay_spilled().await?;
    recovery.numbers.raise_heads(recovery.store.heads().await?);
    recovery.replay_overflow().await?;
    recovery.close_interrupted().await
}

impl Recovery<'_> {
    async fn replay_spilled(&mut self) -> Result<(), StoreError> {
        let waiting = self.spilled.waiting();
        if waiting == 0 {
            return self.spilled.clear().await;
        }
        info!(events = waiting, "replaying the journal of an earlier process");
        let foreign = self.spilled.is_foreign().await;
        if foreign {
            warn!("the journal was written beside another database; its events get new numbers");
        }
        loop {
            let chunk = self.spilled.next(BATCH).await?;
            if chunk.is_empty() {
                return self.spilled.clear().await;
            }
            if foreign {
                self.renumber(&chunk.entries).await?;
            } else {
                self.replay(&chunk.entries).await?;
            }
            self.spilled.replayed(&chunk).await?;
        }
    }

    async fn replay(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        match apply(self.store, self.node, entries).await {
            Ok(()) => Ok(()),
            Err(error) if is_taken(&error) => {
                warn!(%error, "another process took numbers that were shown; these events get new ones");
                self.renumber(entries).await
            }
            Err(error) if is_outage(&error) => Err(error.into()),
            Err(error) if entries.len() == 1 => {
                self.spilled.reject(&entries[0].committed, &error);
                Ok(())
            }
            Err(_) => {
                for entry in entries {
                    Box::pin(self.replay(std::slice::from_ref(entry))).await?;
                }
                Ok(())
            }
        }
    }

    /// The numbers of these entries mean something else in this database.
    async fn renumber(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        self.numbers.raise_heads(self.store.heads().await?);
        let renumbered = self.numbers.renumber(entries);
        Ok(apply(self.store, self.node, &renumbered).await?)
    }

    async fn replay_overflow(&mut self) -> Result<(), StoreError> {
        let events = self.overflow.take(|| ())?;
        if !events.is_empty() {
            info!(events = events.len(), "taking over events that were never numbered");
            self.look_up(&events).await?;
            let events = close_gaps(self.numbers, events);
            for batch in events.chunks(BATCH) {
                self.store_anew(batch.to_vec()).await?;
            }
        }
        self.overflow.drained()
    }

    async fn close_interrupted(&mut self) -> Result<Vec<CallId>, StoreError> {
        let any_node = self.store.kind() == BackendKind::Sqlite;
        let rows: Vec<OpenCall> = reading!(self.store, pool => {
            sqlx::query_as(OPEN_CALLS).bind(self.node).bind(any_node).fetch_all(pool).await
        })?;
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            let call: CallId = parsed("calls", &row.id)?;
            let known = Known {
                organization: row.organization.as_deref().map(Into::into),
                last_seq: unsigned(row.last_seq),
            };
            self.numbers.learn(call, known);
            events.push(row.end(call, self.last_alive));
        }
        for batch in events.chunks(BATCH) {
            self.store_anew(batch.to_vec()).await?;
        }
        if !events.is_empty() {
            warn!(calls = events.len(), "closed the calls that the last stop interrupted");
        }
        Ok(events.iter().map(|event| event.call).collect())
    }

    async fn store_anew(&mut self, events: Vec<CallEvent>) -> Result<(), StoreError> {
        self.look_up(&events).await?;
        let entries = self.numbers.assign(&events);
        if !entries.is_empty() {
            apply(self.store, self.node, &entries).await?;
            self.numbers.advance(&entries);
        }
        Ok(())
    }

    async fn look_up(&mut self, events: &[CallEvent]) -> Result<(), StoreError> {
        for call in self.numbers.unknown(events) {
            if let Some((organization, last_seq)) = self.store.call_state(call).await? {
                self.numbers.learn(call, Known { organization, last_seq });
            }
        }
        Ok(())
    }
}

/// Between the queue of a process that died and its overflow file events may be missing. They were never
/// shown, so those after them move up and the call's numbers stay dense.
fn close_gaps(numbers: &Numbers, mut events: Vec<CallEvent>) -> Vec<CallEvent> {
    let mut last: HashMap<CallId, u64> = HashMap::new();
    for event in &mut events {
        let last = last.entry(event.call).or_insert_with(|| numbers.last_seq(event.call));
        if event.seq > *last {
            *last += 1;
            event.seq = *last;
        }
    }
    events
}

/// Whether the error says that another event has one of these numbers.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(refusal) if refusal.is_unique_violation())
}

row! {
    struct OpenCall {
        id: String,
        organization: Option<String>,
        created_at: i64,
        answered_at: Option<i64>,
        last_seq: i64,
        heard_of: Option<i64>,
    }
}

impl OpenCall {
    /// The end of a call that was up when its process died: when that process was last known to live.
    fn end(&self, call: CallId, last_alive: Option<UnixMs>) -> CallEvent {
        let heard_of = self.heard_of.unwrap_or(self.created_at);
        let ended_at = last_alive.map_or(heard_of, |alive| alive.get().max(heard_of));
        let since = |moment: i64| unsigned(ended_at - moment);
        let ended = CallEnded {
            disposition: Disposition::Interrupted,
            ended_by: "system".to_owned(),
            sip_status: 500,
            reason: "the server stopped while the call was up".to_owned(),
            duration_ms: since(self.created_at),
            billable_ms: self.answered_at.map_or(0, since),
        };
        let seq = unsigned(self.last_seq) + 1;
        CallEvent { call, seq, at: UnixMs::new(ended_at), kind: CallEventKind::Ended(ended) }
    }
}
