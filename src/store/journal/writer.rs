//! The writer's task: from the queue into the database, or into the spill file while there is none.
//! How it finds back from an outage is in `outage.rs`.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};
use tracing::{error, warn};

use super::apply::apply;
use super::lock::Lock;
use super::numbers::{Entry, Known, Numbers};
use super::outage::Outage;
use super::overflow::Overflow;
use super::recovery::is_taken;
use super::spill::Spilled;
use super::{Item, JournalHealth};
use crate::event::CallEvent;
use crate::store::Store;
use crate::store::error::{StoreError, is_outage};
use crate::store::feed::Feed;

/// Owns the numbers; the only one who writes calls.
pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) node: String,
    pub(super) numbers: Numbers,
    pub(super) spilled: Spilled,
    pub(super) overflow: Arc<Overflow>,
    feed: Feed,
    lock: Lock,
    inbox: mpsc::Receiver<Item>,
    health: watch::Sender<JournalHealth>,
    /// Events that could not be written anywhere yet.
    pub(super) held: Vec<CallEvent>,
    /// Who waits for everything recorded so far.
    flushes: Vec<oneshot::Sender<()>>,
    pub(super) outage: Option<Outage>,
}

/// What one turn of the writer works on.
#[derive(Default)]
struct Turn {
    events: Vec<CallEvent>,
    /// Who waits for an event of `events`, by its place.
    opens: Vec<(usize, oneshot::Sender<Result<(), StoreError>>)>,
    close: Option<oneshot::Sender<()>>,
}

/// Why the database did not take a batch.
pub(super) enum Refusal {
    /// It is away, or too slow.
    Outage(String),
    /// Somebody else gave out these numbers.
    Taken(sqlx::Error),
    /// It does not like a value.
    Values(sqlx::Error),
}

/// What the writer is started with.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) node: String,
    pub(super) numbers: Numbers,
    pub(super) spilled: Spilled,
    pub(super) overflow: Arc<Overflow>,
    pub(super) feed: Feed,
    pub(super) lock: Lock,
    pub(super) inbox: mpsc::Receiver<Item>,
    pub(super) health: watch::Sender<JournalHealth>,
}

impl Writer {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { store, node, numbers, spilled, overflow, feed, lock, inbox, health } = parts;
        Self {
            store,
            node,
            numbers,
            spilled,
            overflow,
            feed,
            lock,
            inbox,
            health,
            held: Vec::new(),
            flushes: Vec::new(),
            outage: None,
        }
    }

    /// Runs until it is asked to close or every handle is gone.
    pub(super) async fn run(mut self) {
        let mut items = Vec::with_capacity(BATCH);
        let mut alive = interval(ALIVE_EVERY);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let retry_at = self.outage.as_ref().map(|outage| outage.retry_at);
            let mut finished = false;
            tokio::select! {
                biased;
                _ = alive.tick() => self.lock.touch(),
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => self.retry().await,
                // Held events go first; while they cannot be written the queue fills and overflows.
                count = self.inbox.recv_many(&mut items, BATCH), if self.held.is_empty() => finished = count == 0,
            }
            let close = self.turn(&mut items).await;
            if finished || close.is_some() {
                self.finish().await;
                // The lock goes first: whoever waits may start a new journal at once.
                drop(self);
                if let Some(done) = close {
                    // An error means that nobody waits any more.
                    let _ = done.send(());
                }
                return;
            }
        }
    }

    /// Writes what is queued.
    async fn turn(&mut self, items: &mut Vec<Item>) -> Option<oneshot::Sender<()>> {
        if !self.held.is_empty() {
            return None;
        }
        self.gather(items).await;
        let overflowed = self.take_overflow(items);
        let mut turn = self.sort(items);
        let from_file = overflowed.len();
        turn.events.extend(overflowed);
        gauge!("tandem_journal_queue_depth").set(self.inbox.len() as f64);
        let written = self.write_all(&turn.events).await;
        // A call that is refused has no first event, and its opener is told so.
        let is_refused = |place: usize| turn.opens.iter().any(|(open, _)| *open == place);
        let rest = std::mem::take(&mut turn.events).into_iter().enumerate().skip(written);
        self.held = rest.filter(|(place, _)| !is_refused(*place)).map(|(_, event)| event).collect();
        self.tell_health();
        for (place, done) in turn.opens {
            // An error means that whoever opened the call has given up; it is stored all the same.
            let _ = done.send(if place < written { Ok(()) } else { Err(StoreError::NotDurable) });
        }
        if self.held.is_empty() {
            self.nothing_held(from_file > 0);
        }
        turn.close
    }

    /// Waits a moment for more, unless somebody waits for an answer.
    async fn gather(&mut self, items: &mut Vec<Item>) {
        let deadline = Instant::now() + LINGER;
        let urgent = |items: &[Item]| items.iter().any(|item| !matches!(item, Item::Event(_)));
        while !items.is_empty() && items.len() < BATCH && !urgent(items) {
            let room = BATCH - items.len();
            match timeout_at(deadline, self.inbox.recv_many(items, room)).await {
                Ok(count) if count > 0 => {}
                _ => return,
            }
        }
        while items.len() < BATCH {
            match self.inbox.try_recv() {
                Ok(item) => items.push(item),
                Err(_) => return,
            }
        }
    }

    fn take_overflow(&mut self, items: &mut Vec<Item>) -> Vec<CallEvent> {
        if !self.overflow.is_active() {
            return Vec::new();
        }
        let inbox = &mut self.inbox;
        let taken = self.overflow.take(|| {
            while let Ok(item) = inbox.try_recv() {
                items.push(item);
            }
        });
        taken.unwrap_or_else(|error| {
            error!(%error, "the journal's overflow cannot be read; its events wait there");
            Vec::new()
        })
    }

    fn sort(&mut self, items: &mut Vec<Item>) -> Turn {
        let mut turn = Turn::default();
        for item in items.drain(..) {
            match item {
                Item::Event(event) => turn.events.push(event),
                Item::Open(event, done) => {
                    turn.opens.push((turn.events.len(), done));
                    turn.events.push(event);
                }
                Item::Flush(done) => self.flushes.push(done),
                Item::Close(done) => turn.close = Some(done),
            }
        }
        turn
    }

    pub(super) fn nothing_held(&mut self, drained: bool) {
        if drained && let Err(error) = self.overflow.drained() {
            warn!(%error, "the journal's overflow file stays; it is taken over again at the next start");
        }
        for done in self.flushes.drain(..) {
            // An error means that nobody waits any more.
            let _ = done.send(());
        }
    }

    /// Writes events in order; answers how many are on disk.
    pub(super) async fn write_all(&mut self, events: &[CallEvent]) -> usize {
        let mut written = 0;
        for batch in events.chunks(BATCH) {
            if let Err(error) = self.write(batch).await {
                error!(%error, waiting = events.len() - written, "events can be written nowhere; they wait");
                break;
            }
            written += batch.len();
        }
        written
    }

    async fn write(&mut self, events: &[CallEvent]) -> Result<(), StoreError> {
        self.look_up(events).await;
        for _ in 0..RENUMBER_ATTEMPTS {
            let entries = self.numbers.assign(events);
            if entries.is_empty() {
                return Ok(());
            }
            if self.outage.is_some() {
                return self.spill(entries).await;
            }
            match self.commit(&entries).await {
                Ok(()) => {
                    self.publish(&entries);
                    return Ok(());
                }
                Err(Refusal::Outage(cause)) => {
                    self.begin_outage(&cause);
                    return self.spill(entries).await;
                }
                Err(Refusal::Taken(cause)) => self.catch_up(&cause, events).await,
                Err(Refusal::Values(cause)) if events.len() == 1 => {
                    self.reject(&entries, &cause);
                    return Ok(());
                }
                Err(Refusal::Values(_)) => {
                    for event in events {
                        Box::pin(self.write(std::slice::from_ref(event))).await?;
                    }
                    return Ok(());
                }
            }
        }
        self.begin_outage("other processes write events into the same database");
        let entries = self.numbers.assign(events);
        self.spill(entries).await
    }

    pub(super) async fn commit(&self, entries: &[Entry]) -> Result<(), Refusal> {
        let started = Instant::now();
        let answer = timeout(COMMIT_PATIENCE, apply(&self.store, &self.node, entries)).await;
        histogram!("tandem_journal_commit_seconds").record(started.elapsed().as_secs_f64());
        match answer {
            Ok(Ok(())) => {
                histogram!("tandem_journal_batch_events").record(entries.len() as f64);
                Ok(())
            }
            Ok(Err(error)) if is_taken(&error) => Err(Refusal::Taken(error)),
            Ok(Err(error)) if is_outage(&error) => Err(Refusal::Outage(error.to_string())),
            Ok(Err(error)) => Err(Refusal::Values(error)),
            Err(_) => Err(Refusal::Outage(format!("no answer within {COMMIT_PATIENCE:?}"))),
        }
    }

    async fn spill(&mut self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let entries: Arc<[Entry]> = entries.into();
        self.spilled.append(entries.clone()).await?;
        counter!("tandem_journal_spilled_events_total").increment(entries.len() as u64);
        self.publish(&entries);
        Ok(())
    }

    /// They are on disk: their numbers are given out, and everybody may see them.
    fn publish(&mut self, entries: &[Entry]) {
        self.numbers.advance(entries);
        for entry in entries {
            self.feed.publish(&entry.committed);
        }
    }

    async fn look_up(&mut self, events: &[CallEvent]) {
        for call in self.numbers.unknown(events) {
            match timeout(COMMIT_PATIENCE, self.store.call_state(call)).await {
                Ok(Ok(Some((organization, last_seq)))) => {
                    self.numbers.learn(call, Known { organization, last_seq });
                }
                Ok(Ok(None)) => warn!(%call, "an event of a call that was never opened"),
                Ok(Err(_)) | Err(_) => warn!(%call, "an event of a call that cannot be looked up now"),
            }
        }
    }

    /// Another process numbered events meanwhile: go on after its numbers.
    async fn catch_up(&mut self, cause: &sqlx::Error, events: &[CallEvent]) {
        warn!(%cause, "another process writes events into this database; only one may");
        if let Ok(Ok(heads)) = timeout(COMMIT_PATIENCE, self.store.heads()).await {
            self.numbers.raise_heads(heads);
        }
        self.numbers.forget(events.iter().map(|event| event.call));
        self.look_up(events).await;
    }

    pub(super) fn reject(&self, entries: &[Entry], cause: &sqlx::Error) {
        for entry in entries {
            self.spilled.reject(&entry.committed, cause);
        }
    }

    pub(super) fn tell_health(&self) {
        let now = JournalHealth {
            degraded: self.outage.is_some(),
            spilled: self.spilled.waiting(),
            stuck: !self.held.is_empty(),
        };
        self.health.send_if_modified(|before| std::mem::replace(before, now) != now);
    }
}

/// Events in one transaction at most.
pub(super) const BATCH: usize = 256;

/// How long an event waits for others to share its transaction.
const LINGER: Duration = Duration::from_millis(5);
/// How long the database may take before events go to the file: they must be on disk within a second.
pub(super) const COMMIT_PATIENCE: Duration = Duration::from_millis(800);
const RENUMBER_ATTEMPTS: u32 = 3;
const ALIVE_EVERY: Duration = Duration::from_secs(1);
