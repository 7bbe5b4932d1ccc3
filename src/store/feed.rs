//! The live feed: what was committed, to whoever listens now.
//!
//! Durable events come as [`FeedItem::Committed`] in the order of their `wall_seq`, after they are on disk.
//! The channel holds the last [`DURABLE_BACKLOG`] of them; a subscriber that falls behind is told so by
//! [`FeedItem::Lagged`] and reads what it missed from the log ([`Feed::wall_since`],
//! [`Feed::call_since`]): nothing durable is lost, and a slow reader costs no memory. Ephemeral events
//! have a channel of their own and are simply skipped by whoever is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Store;
use super::error::StoreError;
use super::journal::Spilled;
use super::log::Heads;
use super::system::SystemEvent;
use crate::event::Ephemeral;
use crate::id::{CallId, EventId};
use crate::time::UnixMs;

/// A durable event, as it is in the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Committed {
    /// Its own id.
    pub event_id: EventId,
    /// The call.
    pub call: CallId,
    /// Owner of the call, by name.
    pub organization: Option<Arc<str>>,
    /// 1, 2, 3, … within the call.
    pub seq: u64,
    /// 1, 2, 3, … over all calls: the number on the whole installation's wall.
    pub wall_seq: u64,
    /// 1, 2, 3, … over the organization's calls: the number on its wall. Absent without organization.
    pub org_seq: Option<u64>,
    /// When it happened.
    pub at: UnixMs,
    /// Such as `transcript.final`.
    pub kind: Arc<str>,
    /// Its data, as JSON text.
    pub data: Arc<RawValue>,
}

impl Committed {
    /// The envelope's members that are the same on every topic, without braces:
    /// `"id":…,"ts":…,"type":…,"call_id":…,"data":…`.
    pub fn body(&self) -> String {
        format!(
            r#""id":"{}","ts":"{}","type":"{}","call_id":"{}","data":{}"#,
            self.event_id,
            self.at.to_rfc3339(),
            self.kind,
            self.call,
            self.data.get(),
        )
    }
}

/// An event that was shown and is not kept.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The call.
    pub call: CallId,
    /// Owner of the call, by name.
    pub organization: Option<Arc<str>>,
    /// When it was shown.
    pub at: UnixMs,
    /// What it says.
    pub event: Ephemeral,
}

/// What a subscriber receives.
#[derive(Debug, Clone)]
pub enum FeedItem {
    /// A durable event, now on disk.
    Committed(Arc<Committed>),
    /// Something that happened to the installation, now on disk.
    System(Arc<SystemEvent>),
    /// An event to show and forget.
    Shown(Arc<Shown>),
    /// This subscriber was too slow; that many durable events were skipped. Read them from the log.
    Lagged(u64),
}

/// The feed. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Hub>);

#[derive(Debug)]
struct Hub {
    epoch: Arc<str>,
    store: Store,
    spilled: Spilled,
    durable: broadcast::Sender<Arc<Committed>>,
    ephemeral: broadcast::Sender<Arc<Shown>>,
    system: broadcast::Sender<Arc<SystemEvent>>,
    system_head: AtomicU64,
    wall_head: AtomicU64,
    org_heads: DashMap<Arc<str>, u64>,
    live: DashMap<CallId, Live>,
}

/// A call that has not ended, as the journal knows it.
#[derive(Debug, Clone)]
struct Live {
    organization: Option<Arc<str>>,
    head: u64,
}

impl Feed {
    pub(super) fn new(store: Store, spilled: Spilled, epoch: Arc<str>, heads: &Heads) -> Self {
        let org_heads = heads.organizations.iter().map(|(name, head)| (name.clone(), *head)).collect();
        Self(Arc::new(Hub {
            epoch,
            store,
            spilled,
            durable: broadcast::Sender::new(DURABLE_BACKLOG),
            ephemeral: broadcast::Sender::new(EPHEMERAL_BACKLOG),
            system: broadcast::Sender::new(SYSTEM_BACKLOG),
            system_head: AtomicU64::new(0),
            wall_head: AtomicU64::new(heads.wall),
            org_heads,
            live: DashMap::new(),
        }))
    }

    /// Listens from now on. To miss nothing, subscribe first and read the log up to the head after that;
    /// what comes twice is recognised by its number.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            durable: self.0.durable.subscribe(),
            system: self.0.system.subscribe(),
            ephemeral: self.0.ephemeral.subscribe(),
        }
    }

    /// The name of the numbering. A client that knows another one must start from a snapshot.
    pub fn epoch(&self) -> Arc<str> {
        self.0.epoch.clone()
    }

    /// The last number on the wall of an organization, or of the whole installation; 0 before the first.
    pub fn wall_head(&self, organization: Option<&str>) -> u64 {
        match organization {
            None => self.0.wall_head.load(Ordering::Acquire),
            Some(name) => self.0.org_heads.get(name).map_or(0, |head| *head),
        }
    }

    /// The number of the system's last event; 0 before the first.
    pub fn system_head(&self) -> u64 {
        self.0.system_head.load(Ordering::Acquire)
    }

    /// Up to `limit` events of the system after number `since`, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn system_since(&self, since: u64, limit: u32) -> Result<Vec<SystemEvent>, StoreError> {
        self.0.store.system_since(since, limit).await
    }

    pub(super) fn system_begins_at(&self, head: u64) {
        self.0.system_head.fetch_max(head, Ordering::AcqRel);
    }

    pub(super) fn publish_system(&self, event: &Arc<SystemEvent>) {
        self.0.system_head.fetch_max(event.seq, Ordering::AcqRel);
        // An error means that nobody listens.
        let _ = self.0.system.send(Arc::clone(event));
    }

    /// The last number of a call; 0 when there is no such call.
    ///
    /// # Errors
    /// When the call is over and the database cannot be read.
    pub async fn call_head(&self, call: CallId) -> Result<u64, StoreError> {
        if let Some(head) = self.0.live.get(&call).map(|live| live.head) {
            return Ok(head);
        }
        match self.waiting(call).await?.last() {
            Some(event) => Ok(event.seq),
            None => self.0.store.call_head(call).await,
        }
    }

    /// The owner of a call, by name: the outer `None` means that there is no such call.
    ///
    /// # Errors
    /// When the call is over and the database cannot be read.
    pub async fn owner(&self, call: CallId) -> Result<Option<Option<Arc<str>>>, StoreError> {
        if let Some(organization) = self.0.live.get(&call).map(|live| live.organization.clone()) {
            return Ok(Some(organization));
        }
        match self.waiting(call).await?.pop() {
            Some(event) => Ok(Some(event.organization)),
            None => self.0.store.call_owner(call).await,
        }
    }

    /// The events of a call that the database does not have yet.
    async fn waiting(&self, call: CallId) -> Result<Vec<Committed>, StoreError> {
        let number = |event: &Committed| (event.call == call).then_some(event.seq);
        self.0.spilled.after(0, usize::MAX, number).await
    }

    /// Up to `limit` events after number `since` on the wall of an organization, or of the whole
    /// installation, in order. What the database does not have yet comes from the journal's files.
    ///
    /// # Errors
    /// When the database cannot be read and the journal's files do not begin early enough.
    pub async fn wall_since(
        &self,
        organization: Option<&str>,
        since: u64,
        limit: u32,
    ) -> Result<Vec<Committed>, StoreError> {
        let head = self.wall_head(organization);
        self.page(Log::Wall(organization), since, head, limit).await
    }

    /// Up to `limit` events of a call after number `since`, in order, as [`Feed::wall_since`].
    ///
    /// # Errors
    /// As [`Feed::wall_since`].
    pub async fn call_since(
        &self,
        call: CallId,
        since: u64,
        limit: u32,
    ) -> Result<Vec<Committed>, StoreError> {
        let head = self.0.live.get(&call).map_or(0, |live| live.head);
        self.page(Log::Call(call), since, head, limit).await
    }

    /// A page of the log and what is not yet in it. An event moves from the files into the database and
    /// is for a moment in both, never in neither; so a page that ends before the head is read again.
    async fn page(
        &self,
        log: Log<'_>,
        since: u64,
        head: u64,
        limit: u32,
    ) -> Result<Vec<Committed>, StoreError> {
        let number = |event: &Committed| log.number(event);
        let mut page: Vec<Committed> = Vec::new();
        for _ in 0..PAGE_ATTEMPTS {
            let last = page.last().and_then(number).unwrap_or(since);
            let from_database = match log {
                Log::Wall(organization) => self.0.store.wall_since(organization, last, limit).await,
                Log::Call(call) => self.0.store.events_since(call, last, limit).await,
            };
            let outage = match from_database {
                Ok(events) => {
                    page.extend(events);
                    None
                }
                Err(error) => Some(error),
            };
            let last = page.last().and_then(number).unwrap_or(since);
            let room = (limit as usize).saturating_sub(page.len());
            if room > 0 {
                let waiting = self.0.spilled.after(last, room, number).await?;
                if let Some(error) = outage
                    && waiting.first().and_then(number) != Some(last + 1)
                {
                    // Without the database it is unknown whether anything lies in between.
                    return if page.is_empty() && last < head { Err(error) } else { Ok(page) };
                }
                page.extend(waiting);
            }
            let last = page.last().and_then(number).unwrap_or(since);
            if page.len() >= limit as usize || last >= head {
                break;
            }
        }
        page.truncate(limit as usize);
        Ok(page)
    }

    pub(super) fn publish(&self, event: &Arc<Committed>) {
        self.0.wall_head.fetch_max(event.wall_seq, Ordering::AcqRel);
        if let (Some(name), Some(head)) = (&event.organization, event.org_seq) {
            self.0.org_heads.insert(name.clone(), head);
        }
        if &*event.kind == "call.ended" {
            self.0.live.remove(&event.call);
        } else if event.seq == 1 {
            let live = Live { organization: event.organization.clone(), head: 1 };
            self.0.live.insert(event.call, live);
        } else if let Some(mut live) = self.0.live.get_mut(&event.call) {
            live.head = event.seq;
        }
        // An error means that nobody listens.
        let _ = self.0.durable.send(event.clone());
    }

    pub(super) fn show(&self, call: CallId, event: Ephemeral) {
        if self.0.ephemeral.receiver_count() == 0 {
            return;
        }
        let organization = self.0.live.get(&call).and_then(|live| live.organization.clone());
        // An error means that the last listener left a moment ago.
        let _ = self.0.ephemeral.send(Arc::new(Shown { call, organization, at: UnixMs::now(), event }));
    }
}

/// Which numbering is read.
#[derive(Debug, Clone, Copy)]
enum Log<'a> {
    /// An organization's wall, or that of the whole installation.
    Wall(Option<&'a str>),
    /// One call.
    Call(CallId),
}

impl Log<'_> {
    /// The event's number here; `None` when it does not belong here.
    fn number(self, event: &Committed) -> Option<u64> {
        match self {
            Self::Wall(None) => Some(event.wall_seq),
            Self::Wall(owner) if event.organization.as_deref() == owner => event.org_seq,
            Self::Wall(Some(_)) => None,
            Self::Call(call) => (event.call == call).then_some(event.seq),
        }
    }
}

/// One listener.
#[derive(Debug)]
pub struct Subscription {
    durable: broadcast::Receiver<Arc<Committed>>,
    system: broadcast::Receiver<Arc<SystemEvent>>,
    ephemeral: broadcast::Receiver<Arc<Shown>>,
}

impl Subscription {
    /// The next item; `None` once the journal is closed and everything was received. Cancel-safe.
    pub async fn next(&mut self) -> Option<FeedItem> {
        loop {
            tokio::select! {
                biased;
                durable = self.durable.recv() => return match durable {
                    Ok(event) => Some(FeedItem::Committed(event)),
                    Err(RecvError::Lagged(count)) => Some(FeedItem::Lagged(count)),
                    Err(RecvError::Closed) => None,
                },
                system = self.system.recv() => match system {
                    Ok(event) => return Some(FeedItem::System(event)),
                    Err(RecvError::Lagged(count)) => return Some(FeedItem::Lagged(count)),
                    Err(RecvError::Closed) => return self.durable.recv().await.ok().map(FeedItem::Committed),
                },
                ephemeral = self.ephemeral.recv() => match ephemeral {
                    Ok(event) => return Some(FeedItem::Shown(event)),
                    // Ephemeral events may be dropped: the next one replaces what was missed.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return self.durable.recv().await.ok().map(FeedItem::Committed),
                },
            }
        }
    }
}

/// Durable events a subscriber may fall behind before it is told to read the log.
pub const DURABLE_BACKLOG: usize = 1024;
/// Events of the system a subscriber may fall behind before it is told to read the log.
pub const SYSTEM_BACKLOG: usize = 256;
/// Ephemeral events a subscriber may fall behind before they are skipped.
pub const EPHEMERAL_BACKLOG: usize = 1024;

const PAGE_ATTEMPTS: u32 = 3;
