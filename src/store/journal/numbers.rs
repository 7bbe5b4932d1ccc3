//! Gives events their numbers on the walls.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use metrics::counter;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::{CallEvent, CallEventKind};
use crate::id::{CallId, EventId};
use crate::store::feed::Committed;
use crate::store::log::Heads;
use crate::store::row::storable;

/// A numbered event: what is stored and shown, and what it means.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) committed: Arc<Committed>,
    /// `None` for an event whose meaning this version does not know; it is stored all the same.
    pub(super) kind: Option<CallEventKind>,
}

/// The last numbers given out, and the calls events can still come from.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    heads: Heads,
    calls: HashMap<CallId, Known>,
    ended: VecDeque<CallId>,
}

/// What is known of a call.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) organization: Option<Arc<str>>,
    pub(super) last_seq: u64,
}

impl Numbers {
    pub(super) fn heads(&self) -> &Heads {
        &self.heads
    }

    /// The calls of these events that have to be looked up before [`Numbers::assign`].
    pub(super) fn unknown(&self, events: &[CallEvent]) -> Vec<CallId> {
        let mut created = HashSet::new();
        let mut unknown = Vec::new();
        for event in events {
            if matches!(event.kind, CallEventKind::Created(_)) {
                created.insert(event.call);
            } else if !self.calls.contains_key(&event.call)
                && !created.contains(&event.call)
                && !unknown.contains(&event.call)
            {
                unknown.push(event.call);
            }
        }
        unknown
    }

    pub(super) fn learn(&mut self, call: CallId, known: Known) {
        self.calls.insert(call, known);
    }

    /// The last number of a call, as far as is known.
    pub(super) fn last_seq(&self, call: CallId) -> u64 {
        self.calls.get(&call).map_or(0, |known| known.last_seq)
    }

    /// Numbers events after what was given out last, without giving the numbers out yet. What was stored
    /// before is left out.
    pub(super) fn assign(&self, events: &[CallEvent]) -> Vec<Entry> {
        let mut wall = self.heads.wall;
        let mut organizations: HashMap<Arc<str>, u64> = HashMap::new();
        let mut calls: HashMap<CallId, Known> = HashMap::new();
        let mut entries = Vec::with_capacity(events.len());
        for event in events {
            let known = calls.entry(event.call).or_insert_with(|| self.known(event));
            if event.seq <= known.last_seq {
                counter!("tandem_journal_duplicate_events_total").increment(1);
                continue;
            }
            if event.seq != known.last_seq + 1 {
                tracing::warn!(call = %event.call, seq = event.seq, after = known.last_seq, "a call skipped numbers");
            }
            known.last_seq = event.seq;
            wall += 1;
            let org_seq = known.organization.clone().map(|name| {
                let before = self.heads.organizations.get(&name).copied().unwrap_or(0);
                let head = organizations.entry(name).or_insert(before);
                *head += 1;
                *head
            });
            entries.push(entry(event, known.organization.clone(), wall, org_seq));
        }
        entries
    }

    /// The numbers of these entries are given out: they are on disk.
    pub(super) fn advance(&mut self, entries: &[Entry]) {
        for entry in entries {
            let event = &entry.committed;
            self.heads.wall = self.heads.wall.max(event.wall_seq);
            if let (Some(name), Some(number)) = (&event.organization, event.org_seq) {
                let head = self.heads.organizations.entry(name.clone()).or_insert(0);
                *head = number.max(*head);
            }
            let known = Known { organization: event.organization.clone(), last_seq: event.seq };
            self.calls.insert(event.call, known);
            if matches!(entry.kind, Some(CallEventKind::Ended(_))) {
                self.remember_end(event.call);
            }
        }
    }

    /// Gives entries new numbers on the walls, after those given out last, without giving them out yet.
    pub(super) fn renumber(&self, entries: &[Entry]) -> Vec<Entry> {
        let mut heads = self.heads.clone();
        let renumbered = entries.iter().map(|entry| {
            let mut event = Committed::clone(&entry.committed);
            heads.wall += 1;
            event.wall_seq = heads.wall;
            event.org_seq = event.organization.clone().map(|name| {
                let head = heads.organizations.entry(name).or_insert(0);
                *head += 1;
                *head
            });
            Entry { committed: Arc::new(event), kind: entry.kind.clone() }
        });
        renumbered.collect()
    }

    /// The database has numbers up to these.
    pub(super) fn raise_heads(&mut self, heads: Heads) {
        self.heads.wall = self.heads.wall.max(heads.wall);
        for (name, head) in heads.organizations {
            let known = self.heads.organizations.entry(name).or_insert(0);
            *known = head.max(*known);
        }
    }

    /// What is known of these calls may be out of date.
    pub(super) fn forget(&mut self, calls: impl Iterator<Item = CallId>) {
        for call in calls {
            self.calls.remove(&call);
        }
    }

    fn known(&self, event: &CallEvent) -> Known {
        match (self.calls.get(&event.call), &event.kind) {
            (Some(known), _) => known.clone(),
            (None, CallEventKind::Created(created)) => {
                let organization = created.organization.as_deref().map(|name| storable(name).into());
                Known { organization, last_seq: 0 }
            }
            (None, _) => Known { organization: None, last_seq: event.seq.saturating_sub(1) },
        }
    }

    /// A few events may come after the end; the calls that ended last stay known.
    fn remember_end(&mut self, call: CallId) {
        self.ended.push_back(call);
        if self.ended.len() > ENDED_CALLS
            && let Some(oldest) = self.ended.pop_front()
        {
            self.calls.remove(&oldest);
        }
    }
}

fn entry(event: &CallEvent, organization: Option<Arc<str>>, wall_seq: u64, org_seq: Option<u64>) -> Entry {
    let (kind, data) = parts(&event.kind);
    let committed = Committed {
        event_id: EventId::fresh(),
        call: event.call,
        organization,
        seq: event.seq,
        wall_seq,
        org_seq,
        at: event.at,
        kind,
        data,
    };
    Entry { committed: Arc::new(committed), kind: Some(event.kind.clone()) }
}

#[derive(Deserialize)]
struct Parts {
    #[serde(rename = "type")]
    kind: Arc<str>,
    data: Arc<RawValue>,
}

/// The type and the data, as the feed has them.
fn parts(kind: &CallEventKind) -> (Arc<str>, Arc<RawValue>) {
    let parts = serde_json::to_string(kind).and_then(|text| serde_json::from_str::<Parts>(&text));
    match parts {
        Ok(parts) => (parts.kind, parts.data),
        Err(error) => {
            tracing::error!(%error, "an event cannot be printed");
            (Arc::from("unknown"), RawValue::NULL.to_owned().into())
        }
    }
}

/// The other way round: the meaning of a stored event, if this version knows it.
pub(super) fn meaning(event: &Committed) -> Option<CallEventKind> {
    let text = format!(r#"{{"type":"{}","data":{}}}"#, event.kind, event.data.get());
    serde_json::from_str(&text).ok()
}

const ENDED_CALLS: usize = 4096;
