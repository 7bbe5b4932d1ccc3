//! The journal: the one writer of calls and their events.
//!
//! ```text
//! calls ──record()──► bounded queue ──► writer task ──► one transaction per batch ──► feed
//!            │                             │ database away
//!            └─ queue full ─► overflow     └─► spill.jsonl (fsync) ──► feed; replayed when it is back
//! ```
//!
//! Promises, in order of importance: an event that was shown is on disk, in the database or in
//! `DATA_DIR/journal/spill.jsonl`; numbers are dense and are the same after any crash; a call's events
//! are applied in their order; recording an event never waits.
//!
//! Written answers to "full": the queue ([`QUEUE`] events) overflows into `overflow.jsonl` (written, not
//! synced: it survives the death of the process), from which the writer takes it in order. When that
//! file cannot be written either, events wait in memory ([`overflow::MEMORY`]); beyond that they are
//! lost, counted in `tandem_journal_lost_events_total` and reported as errors.

use std::path::Path;
use std::sync::Arc;

use metrics::counter;
use tokio::sync::{mpsc, oneshot};

use self::numbers::Numbers;
use self::overflow::Overflow;
use self::writer::Writer;
use super::Store;
use super::error::StoreError;
use super::feed::Feed;
use crate::event::{CallEvent, Ephemeral, EventSink};
use crate::id::CallId;

mod apply;
mod lock;
mod numbers;
mod outage;
mod overflow;
mod recovery;
mod spill;
mod writer;

pub(super) use spill::Spilled;

/// Takes events. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct JournalHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Item>,
    overflow: Arc<Overflow>,
    feed: Feed,
    health: tokio::sync::watch::Receiver<JournalHealth>,
    interrupted: Vec<CallId>,
}

/// How the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct JournalHealth {
    /// Whether the database takes events; if not, they go to the journal's files.
    pub degraded: bool,
    /// Events in the journal's files that the database does not have yet.
    pub spilled: u64,
    /// Whether neither takes events: nothing is shown, and new calls must be refused.
    pub stuck: bool,
}

/// What the writer is asked.
#[derive(Debug)]
enum Item {
    Event(CallEvent),
    Open(CallEvent, oneshot::Sender<Result<(), StoreError>>),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// Starts the journal.
#[derive(Debug)]
pub struct Journal;

impl Journal {
    /// Starts the writer on a migrated database: takes the lock of `data_dir/journal`, replays what an
    /// earlier process left in its files, closes the calls it left open (see
    /// [`JournalHandle::interrupted`]), and only then takes events. `node` is written into each call.
    ///
    /// # Errors
    /// When another process holds the lock, the files cannot be used, or the database does not answer.
    pub async fn start(
        store: Store,
        node: &str,
        data_dir: &Path,
    ) -> Result<(JournalHandle, Feed), StoreError> {
        let folder = data_dir.join("journal");
        std::fs::create_dir_all(&folder).map_err(|e| StoreError::file(&folder, e))?;
        let lock = lock::Lock::take(&folder)?;
        let epoch: Arc<str> = store.epoch().await?.into();
        let spilled = Spilled::open(&folder, epoch.clone())?;
        let overflow = Arc::new(Overflow::new(&folder));
        let mut numbers = Numbers::default();
        let interrupted = recovery::recover(recovery::Recovery {
            store: &store,
            node,
            numbers: &mut numbers,
            spilled: &spilled,
            overflow: &overflow,
            last_alive: lock.last_alive(),
        })
        .await?;
        let feed = Feed::new(store.clone(), spilled.clone(), epoch, numbers.heads());
        let (queue, inbox) = mpsc::channel(QUEUE);
        let (tell, health) = tokio::sync::watch::channel(JournalHealth::default());
        let writer = Writer::new(writer::Parts {
            store,
            node: node.to_owned(),
            numbers,
            spilled,
            overflow: overflow.clone(),
            feed: feed.clone(),
            lock,
            inbox,
            health: tell,
        });
        tokio::spawn(writer.run());
        let inner = Inner { queue, overflow, feed: feed.clone(), health, interrupted };
        Ok((JournalHandle(Arc::new(inner)), feed))
    }
}

impl JournalHandle {
    /// Writes a call's first event ([`crate::event::CallEventKind::Created`], number 1) and its record,
    /// and waits until both are on disk. Answer the INVITE only after that.
    ///
    /// # Errors
    /// [`StoreError::NotDurable`] when neither the database nor the journal's files take it: refuse the
    /// call. [`StoreError::Closed`] after [`JournalHandle::close`].
    pub async fn open_call(&self, event: CallEvent) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.0.queue.send(Item::Open(event, done)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Waits until everything recorded before is on disk.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after [`JournalHandle::close`].
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.0.queue.send(Item::Flush(done)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Writes what is queued and stops the writer. What is recorded later goes to the overflow file and
    /// is written at the next start. Closing twice is harmless.
    pub async fn close(&self) {
        let (done, answer) = oneshot::channel();
        if self.0.queue.send(Item::Close(done)).await.is_ok() {
            // An error means that the writer is gone, which is what was asked for.
            let _ = answer.await;
        }
    }

    /// How the journal is now.
    pub fn health(&self) -> JournalHealth {
        *self.0.health.borrow()
    }

    /// The calls that an earlier process left open and that were closed at the start.
    pub fn interrupted(&self) -> &[CallId] {
        &self.0.interrupted
    }

    /// The feed of what is committed.
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }
}

impl EventSink for JournalHandle {
    fn record(&self, event: CallEvent) {
        if self.0.overflow.is_active() {
            return self.overflow(event);
        }
        if let Err(back) = self.0.queue.try_send(Item::Event(event)) {
            match back.into_inner() {
                Item::Event(event) => self.overflow(event),
                Item::Open(..) | Item::Flush(_) | Item::Close(_) => {}
            }
        }
    }

    fn show(&self, call: CallId, event: Ephemeral) {
        self.0.feed.show(call, event);
    }
}

impl JournalHandle {
    fn overflow(&self, event: CallEvent) {
        counter!("tandem_journal_overflow_events_total").increment(1);
        let queue = &self.0.queue;
        self.0.overflow.push(event, |event| match queue.try_send(Item::Event(event)) {
            Ok(()) => None,
            Err(back) => match back.into_inner() {
                Item::Event(event) => Some(event),
                Item::Open(..) | Item::Flush(_) | Item::Close(_) => None,
            },
        });
    }
}

/// Events that may wait for the writer.
pub const QUEUE: usize = 16_384;
