//! Reading the log of durable events: by call, by organization, or all of it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::Store;
use super::error::StoreError;
use super::feed::Committed;
use super::row::{parsed, reading, row, signed, unsigned};
use crate::id::CallId;
use crate::time::UnixMs;

macro_rules! events_where {
    ($condition:literal) => {
        concat!(
            "SELECT wall_seq, call_id, seq, id, at_ms, type AS kind, data, organization, org_seq ",
            "FROM call_events WHERE ",
            $condition,
            " LIMIT $3"
        )
    };
}
const OF_CALL: &str = events_where!("call_id = $1 AND seq > $2 ORDER BY seq");
const OF_ORGANIZATION: &str = events_where!("organization = $1 AND org_seq > $2 ORDER BY org_seq");
// `$1` is not used, but both back ends want as many values as the highest number.
const OF_ALL: &str = events_where!("CAST($1 AS TEXT) IS NULL AND wall_seq > $2 ORDER BY wall_seq");

const WALL_HEAD: &str = "SELECT COALESCE(MAX(wall_seq), 0) AS head FROM call_events";
const CALL_STATE: &str = "SELECT organization, last_seq FROM calls WHERE id = $1";
// Steps from one organization to the next by index: its cost does not grow with the log.
const ORGANIZATION_HEADS: &str = "WITH RECURSIVE owners (name) AS ( \
       SELECT MIN(organization) FROM call_events WHERE organization IS NOT NULL \
       UNION ALL \
       SELECT (SELECT MIN(organization) FROM call_events WHERE organization > owners.name) \
       FROM owners WHERE owners.name IS NOT NULL) \
     SELECT name, COALESCE((SELECT MAX(org_seq) FROM call_events WHERE organization = owners.name), 0) AS head \
     FROM owners WHERE name IS NOT NULL";

const MARKS: &str = "SELECT type AS kind, data FROM call_events \
     WHERE call_id = $1 AND type IN ('call.tagged', 'call.noted') ORDER BY seq LIMIT 500";

/// The last numbers given out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    /// Over all calls; 0 before the first event.
    pub wall: u64,
    /// Per organization, by name.
    pub organizations: HashMap<Arc<str>, u64>,
}

impl Store {
    /// Up to `limit` events of a call after number `seq`, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events_since(
        &self,
        call: CallId,
        seq: u64,
        limit: u32,
    ) -> Result<Vec<Committed>, StoreError> {
        self.events(OF_CALL, Some(call.to_string()), seq, limit).await
    }

    /// Up to `limit` events after number `seq` on the wall of an organization, or of the whole
    /// installation, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn wall_since(
        &self,
        organization: Option<&str>,
        seq: u64,
        limit: u32,
    ) -> Result<Vec<Committed>, StoreError> {
        let text = if organization.is_some() { OF_ORGANIZATION } else { OF_ALL };
        self.events(text, organization.map(str::to_owned), seq, limit).await
    }

    /// The last numbers given out, as far as the database knows.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn heads(&self) -> Result<Heads, StoreError> {
        row! { struct Head { head: i64 } }
        row! { struct OrganizationHead { name: String, head: i64 } }
        let wall: Head = reading!(self, pool => sqlx::query_as(WALL_HEAD).fetch_one(pool).await)?;
        let heads: Vec<OrganizationHead> =
            reading!(self, pool => sqlx::query_as(ORGANIZATION_HEADS).fetch_all(pool).await)?;
        let organizations = heads.into_iter().map(|row| (row.name.into(), unsigned(row.head))).collect();
        Ok(Heads { wall: unsigned(wall.head), organizations })
    }

    /// A call's tags, each once, and its notes: 500 at most.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn marks(&self, call: CallId) -> Result<(Vec<String>, Vec<String>), StoreError> {
        row! { struct Mark { kind: String, data: String } }
        let call = call.to_string();
        let marks: Vec<Mark> =
            reading!(self, pool => sqlx::query_as(MARKS).bind(call).fetch_all(pool).await)?;
        let (mut tags, mut notes) = (Vec::new(), Vec::new());
        for mark in marks {
            let data: serde_json::Value = serde_json::from_str(&mark.data)
                .map_err(|cause| StoreError::Corrupt { table: "call_events", cause: cause.to_string() })?;
            let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
            match mark.kind.as_str() {
                "call.tagged" if !tags.contains(&text("tag")) => tags.push(text("tag")),
                "call.noted" => notes.push(text("text")),
                _ => {}
            }
        }
        Ok((tags, notes))
    }

    /// The last number of a call; 0 when there is no such call.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn call_head(&self, call: CallId) -> Result<u64, StoreError> {
        Ok(self.call_state(call).await?.map_or(0, |(_, head)| head))
    }

    /// The owner of a call, by name: the outer `None` means that there is no such call.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn call_owner(&self, call: CallId) -> Result<Option<Option<Arc<str>>>, StoreError> {
        Ok(self.call_state(call).await?.map(|(organization, _)| organization))
    }

    /// Owner and last number.
    pub(super) async fn call_state(
        &self,
        call: CallId,
    ) -> Result<Option<(Option<Arc<str>>, u64)>, StoreError> {
        row! { struct State { organization: Option<String>, last_seq: i64 } }
        let id = call.to_string();
        let state: Option<State> =
            reading!(self, pool => sqlx::query_as(CALL_STATE).bind(id).fetch_optional(pool).await)?;
        Ok(state.map(|row| (row.organization.map(Arc::from), unsigned(row.last_seq))))
    }

    async fn events(
        &self,
        text: &'static str,
        key: Option<String>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Committed>, StoreError> {
        let (after, limit) = (signed(after), i64::from(limit));
        let rows: Vec<EventRow> = reading!(self, pool => {
            sqlx::query_as(text).bind(key).bind(after).bind(limit).fetch_all(pool).await
        })?;
        rows.into_iter().map(EventRow::read).collect()
    }
}

row! {
    struct EventRow {
        wall_seq: i64,
        call_id: String,
        seq: i64,
        id: String,
        at_ms: i64,
        kind: String,
        data: String,
        organization: Option<String>,
        org_seq: Option<i64>,
    }
}

impl EventRow {
    fn read(self) -> Result<Committed, StoreError> {
        let data: Box<RawValue> = RawValue::from_string(self.data)
            .map_err(|cause| StoreError::Corrupt { table: "call_events", cause: cause.to_string() })?;
        Ok(Committed {
            event_id: parsed("call_events", &self.id)?,
            call: parsed("call_events", &self.call_id)?,
            organization: self.organization.map(Arc::from),
            seq: unsigned(self.seq),
            wall_seq: unsigned(self.wall_seq),
            org_seq: self.org_seq.map(unsigned),
            at: UnixMs::new(self.at_ms),
            kind: self.kind.into(),
            data: data.into(),
        })
    }
}
