//! What happened to the installation itself, as opposed to one of its calls: the feed's `system` topic.
//!
//! Telling never waits. One task writes what was told, numbers it without gaps, and shows it once it is on
//! disk. While the database is away, [`QUEUE`] events wait; beyond that they are only logged.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::Store;
use super::error::StoreError;
use super::feed::Feed;
use super::row::{parsed, reading, row, signed, unsigned, writing};
use crate::id::EventId;
use crate::time::UnixMs;

const ADD: &str = "INSERT INTO system_events (seq, id, at_ms, type, data) VALUES ($1, $2, $3, $4, $5)";
const SINCE: &str = "SELECT seq, id, at_ms, type AS kind, data FROM system_events \
     WHERE seq > $1 ORDER BY seq LIMIT $2";
const HEAD: &str = "SELECT COALESCE(MAX(seq), 0) AS head FROM system_events";
const FORGET: &str = "DELETE FROM system_events WHERE seq <= $1";

/// Something that happened to the installation.
#[derive(Debug, Clone)]
pub struct SystemEvent {
    /// Its own id.
    pub event_id: EventId,
    /// 1, 2, 3, …
    pub seq: u64,
    /// When it happened.
    pub at: UnixMs,
    /// Such as `breaker.opened`.
    pub kind: Arc<str>,
    /// Its data, as JSON text.
    pub data: Arc<RawValue>,
}

impl SystemEvent {
    /// The envelope's members that are the same for every client, without braces.
    pub fn body(&self) -> String {
        format!(
            r#""id":"{}","ts":"{}","type":"{}","data":{}"#,
            self.event_id,
            self.at.to_rfc3339(),
            self.kind,
            self.data.get(),
        )
    }
}

/// Takes what happened. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct SystemLog(mpsc::Sender<Told>);

#[derive(Debug)]
struct Told {
    at: UnixMs,
    kind: &'static str,
    data: Value,
}

impl SystemLog {
    /// Starts the task that writes; it ends when the last handle is dropped.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn start(store: Store, feed: Feed) -> Result<Self, StoreError> {
        let head = store.system_head().await?;
        feed.system_begins_at(head);
        let (tell, told) = mpsc::channel(QUEUE);
        tokio::spawn(write(store, feed, head, told));
        Ok(Self(tell))
    }

    /// This has happened. Never waits.
    pub fn tell(&self, kind: &'static str, data: Value) {
        if self.0.try_send(Told { at: UnixMs::now(), kind, data }).is_err() {
            tracing::warn!(kind, "an event of the system is not kept: too many wait for the database");
        }
    }
}

async fn write(store: Store, feed: Feed, mut head: u64, mut told: mpsc::Receiver<Told>) {
    while let Some(told) = told.recv().await {
        let Ok(data) = serde_json::value::to_raw_value(&told.data) else { continue };
        let mut event = SystemEvent {
            event_id: EventId::fresh(),
            seq: head + 1,
            at: told.at,
            kind: told.kind.into(),
            data: data.into(),
        };
        if !kept(&store, &mut event).await {
            continue;
        }
        head = event.seq;
        feed.publish_system(&Arc::new(event));
        if head.is_multiple_of(FORGET_EVERY)
            && let Err(error) = store.forget_system_events(head.saturating_sub(KEPT)).await
        {
            tracing::debug!(%error, "old events of the system were not deleted");
        }
    }
}

/// Keeps an event, at the next free number when its own is taken; whether that could be done.
async fn kept(store: &Store, event: &mut SystemEvent) -> bool {
    for _ in 0..TRIES {
        let Err(error) = store.add_system_event(event).await else { return true };
        match store.system_head().await {
            // Its answer was lost, or another process writes here, too.
            Ok(head) if head >= event.seq => {
                let there = store.system_since(event.seq - 1, 1).await;
                if there.is_ok_and(|rows| rows.iter().any(|row| row.event_id == event.event_id)) {
                    return true;
                }
                event.seq = head + 1;
            }
            Ok(_) | Err(_) => {
                tracing::warn!(%error, kind = %event.kind, "an event of the system could not be kept");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    false
}

impl Store {
    /// Up to `limit` events of the system after number `seq`, in order. The last [`KEPT`] are there.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn system_since(&self, seq: u64, limit: u32) -> Result<Vec<SystemEvent>, StoreError> {
        let (seq, limit) = (signed(seq), i64::from(limit));
        let rows: Vec<Row> = reading!(self, pool => {
            sqlx::query_as(SINCE).bind(seq).bind(limit).fetch_all(pool).await
        })?;
        rows.into_iter().map(Row::read).collect()
    }

    /// The number of the system's last event; 0 before the first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn system_head(&self) -> Result<u64, StoreError> {
        let head: i64 = reading!(self, pool => sqlx::query_scalar(HEAD).fetch_one(pool).await)?;
        Ok(unsigned(head))
    }

    async fn add_system_event(&self, event: &SystemEvent) -> Result<(), StoreError> {
        writing!(self, pool => {
            sqlx::query(ADD)
                .bind(signed(event.seq))
                .bind(event.event_id.to_string())
                .bind(event.at.get())
                .bind(&*event.kind)
                .bind(event.data.get())
                .execute(pool)
                .await
                .map(|_| ())
        })?;
        Ok(())
    }

    async fn forget_system_events(&self, up_to: u64) -> Result<(), StoreError> {
        let up_to = signed(up_to);
        writing!(self, pool => sqlx::query(FORGET).bind(up_to).execute(pool).await.map(|_| ()))?;
        Ok(())
    }
}

row! { struct Row { seq: i64, id: String, at_ms: i64, kind: String, data: String } }

impl Row {
    fn read(self) -> Result<SystemEvent, StoreError> {
        let data = RawValue::from_string(self.data)
            .map_err(|cause| StoreError::Corrupt { table: "system_events", cause: cause.to_string() })?;
        Ok(SystemEvent {
            event_id: parsed("system_events", &self.id)?,
            seq: unsigned(self.seq),
            at: UnixMs::new(self.at_ms),
            kind: self.kind.into(),
            data: data.into(),
        })
    }
}

/// Events of the system that are kept.
pub const KEPT: u64 = 10_000;

const QUEUE: usize = 256;
const FORGET_EVERY: u64 = 100;
/// An event is given up after two minutes, so that those that follow are not.
const TRIES: u32 = 60;
const RETRY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::FeedItem;
    use crate::store::journal::Journal;

    #[tokio::test]
    async fn what_is_told_is_numbered_kept_and_shown_and_goes_on_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("t.db").display())).await.unwrap();
        store.migrate().await.unwrap();
        let (journal, feed) = Journal::start(store.clone(), "n", folder.path()).await.unwrap();
        let mut listener = feed.subscribe();
        for round in 0..2u64 {
            let log = SystemLog::start(store.clone(), feed.clone()).await.unwrap();
            assert_eq!(feed.system_head(), 2 * round);
            log.tell("breaker.opened", json!({"provider": "openai"}));
            log.tell("breaker.closed", json!({"provider": "openai"}));
            for seq in [2 * round + 1, 2 * round + 2] {
                let Some(FeedItem::System(event)) = listener.next().await else { panic!("shown") };
                assert_eq!(event.seq, seq);
            }
        }
        let kept = store.system_since(1, 10).await.unwrap();
        let kinds: Vec<_> = kept.iter().map(|event| (event.seq, &*event.kind)).collect();
        assert_eq!(kinds, [(2, "breaker.closed"), (3, "breaker.opened"), (4, "breaker.closed")]);
        assert_eq!(kept[0].data.get(), r#"{"provider":"openai"}"#);
        store.forget_system_events(3).await.unwrap();
        assert_eq!(
            (store.system_since(0, 10).await.unwrap().len(), store.system_head().await.unwrap()),
            (1, 4)
        );
        journal.close().await;
    }

    #[tokio::test]
    async fn a_number_that_is_taken_does_not_stop_what_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("t.db").display())).await.unwrap();
        store.migrate().await.unwrap();
        let event = |seq| SystemEvent {
            event_id: EventId::fresh(),
            seq,
            at: UnixMs::now(),
            kind: "system.alert".into(),
            data: RawValue::from_string("{}".to_owned()).unwrap().into(),
        };
        for seq in 1..=3 {
            store.add_system_event(&event(seq)).await.unwrap();
        }
        let mut late = event(2);
        assert!(kept(&store, &mut late).await);
        assert_eq!((late.seq, store.system_head().await.unwrap()), (4, 4));
        assert!(kept(&store, &mut late).await, "it was kept, but nobody was told so");
        assert_eq!((late.seq, store.system_head().await.unwrap()), (4, 4));
    }
}
