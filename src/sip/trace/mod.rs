//! What was said in signalling, kept for people: ladders, captures, export.
//!
//! [`Traces`] is a ring per Call-ID inside one bound. Secrets are taken out before anything is kept
//! ([`mask`]), so nothing that leaves here (ladder, capture, HEP) can carry one. The rest are views:
//! [`document`] is what the API tells of one call, [`ladder`] prints it, [`pcap`] and [`hep`] encode it for
//! other programs. All of it is pure; the queue and the socket are in [`super::tap`].

mod glance;
mod mask;

pub mod document;
pub mod hep;
pub mod ladder;
pub mod pcap;
pub mod story;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::message::Transport;
use super::tap::Seen;
use crate::time::UnixMs;
use glance::{Glance, Kind};

pub use mask::masked;

/// One message as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Microseconds since 1970-01-01 UTC.
    pub at_us: i64,
    /// From us to the peer.
    pub outgoing: bool,
    /// How it travelled.
    pub transport: Transport,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The octets, secrets masked, lengths unchanged.
    pub bytes: Bytes,
    /// The same octets were kept before: a retransmission.
    pub repeated: bool,
}

impl Kept {
    /// A copy without secrets. `epoch` is one moment on both clocks.
    pub fn new(epoch: (Instant, UnixMs), at: Instant, seen: &Seen<'_>) -> Self {
        Self {
            at_us: unix_us(epoch, at),
            outgoing: seen.outgoing,
            transport: seen.transport,
            local: seen.local,
            remote: seen.remote,
            bytes: masked(seen.bytes),
            repeated: false,
        }
    }

    /// Its Call-ID, if it has one that can be kept.
    pub fn call_id(&self) -> Option<String> {
        Glance::of(&self.bytes).map(|glance| glance.call_id.to_owned())
    }
}

/// Bounds of [`Traces`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceLimits {
    /// Most Call-IDs.
    pub calls: usize,
    /// Most octets of one Call-ID; beyond it the middle is given up, beginning and end stay.
    pub bytes_per_call: usize,
    /// Most octets of all together.
    pub bytes_total: usize,
}

impl Default for TraceLimits {
    fn default() -> Self {
        Self { calls: 2_000, bytes_per_call: 262_144, bytes_total: 64 << 20 }
    }
}

/// The messages of one Call-ID, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The Call-ID.
    pub call_id: Arc<str>,
    /// The messages that are kept.
    pub messages: Vec<Kept>,
    /// Messages given up from the middle.
    pub dropped: u64,
}

/// Messages by Call-ID, within bounds. The oldest call that has ended is forgotten first; requests outside of calls
/// (OPTIONS, REGISTER) never take more than an eighth of the room from calls.
#[derive(Debug)]
pub struct Traces {
    limits: TraceLimits,
    by_call_id: HashMap<Arc<str>, Ring>,
    /// Call-IDs by age, one row per [`Class`].
    order: [BTreeMap<u64, Arc<str>>; 3],
    next: u64,
    bytes: usize,
}

/// What may be forgotten first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Other,
    Ended,
    Live,
}

#[derive(Debug)]
struct Ring {
    number: u64,
    class: Class,
    established: bool,
    messages: VecDeque<Kept>,
    bytes: usize,
    dropped: u64,
}

impl Traces {
    /// An empty memory.
    pub fn new(limits: TraceLimits) -> Self {
        let order = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
        Self { limits, by_call_id: HashMap::new(), order, next: 0, bytes: 0 }
    }

    /// Keeps a message. Answers how many were given up to make room; a message without a Call-ID is one itself.
    pub fn keep(&mut self, mut message: Kept) -> u64 {
        let Some(glance) = Glance::of(&message.bytes) else { return 1 };
        let turn = Turn::of(glance.kind);
        let call_id: Arc<str> = match self.by_call_id.get_key_value(glance.call_id) {
            Some((known, _)) => Arc::clone(known),
            None => self.begin(glance.call_id),
        };
        let Some(ring) = self.by_call_id.get_mut(&call_id) else { return 1 };
        let before = ring.bytes;
        let mut given_up = 0;
        if let Some(same) = ring.same_as(&message) {
            // A repetition costs its place in the list, not its octets.
            message.bytes = same;
            message.repeated = true;
        }
        ring.bytes += cost(&message);
        ring.messages.push_back(message);
        while ring.bytes > self.limits.bytes_per_call.max(1) && ring.messages.len() > 1 {
            let middle = HEAD_KEPT.min(ring.messages.len() - 2);
            ring.bytes -= ring.messages.remove(middle).map_or(0, |gone| cost(&gone));
            ring.dropped += 1;
            given_up += 1;
        }
        self.bytes = self.bytes + ring.bytes - before;
        let (from, to) = (ring.class, ring.class_after(turn));
        if from != to {
            ring.class = to;
            let number = ring.number;
            self.order[from as usize].remove(&number);
            self.order[to as usize].insert(number, call_id);
        }
        given_up + self.make_room()
    }

    /// What is known of a Call-ID.
    pub fn of(&self, call_id: &str) -> Option<Trace> {
        let (call_id, ring) = self.by_call_id.get_key_value(call_id)?;
        let messages = ring.messages.iter().cloned().collect();
        Some(Trace { call_id: Arc::clone(call_id), messages, dropped: ring.dropped })
    }

    /// How many Call-IDs are kept.
    pub fn len(&self) -> usize {
        self.by_call_id.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.by_call_id.is_empty()
    }

    /// Octets kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn begin(&mut self, call_id: &str) -> Arc<str> {
        let call_id: Arc<str> = call_id.into();
        let number = self.next;
        self.next += 1;
        let ring = Ring {
            number,
            class: Class::Other,
            established: false,
            messages: VecDeque::new(),
            bytes: 0,
            dropped: 0,
        };
        self.by_call_id.insert(Arc::clone(&call_id), ring);
        self.order[Class::Other as usize].insert(number, Arc::clone(&call_id));
        call_id
    }

    fn make_room(&mut self) -> u64 {
        let mut given_up = 0;
        while self.by_call_id.len() > 1
            && (self.by_call_id.len() > self.limits.calls.max(1) || self.bytes > self.limits.bytes_total)
        {
            let Some(call_id) = self.next_to_go() else { break };
            if let Some(ring) = self.by_call_id.remove(&call_id) {
                self.order[ring.class as usize].remove(&ring.number);
                self.bytes -= ring.bytes;
                given_up += ring.messages.len() as u64;
            }
        }
        given_up
    }

    fn next_to_go(&self) -> Option<Arc<str>> {
        let first = |class: Class| self.order[class as usize].values().next();
        let others = self.order[Class::Other as usize].len();
        let crowded = others > self.limits.calls / 8;
        let found = first(Class::Other).filter(|_| crowded).or_else(|| first(Class::Ended));
        found.or_else(|| first(Class::Other)).or_else(|| first(Class::Live)).cloned()
    }
}

impl Ring {
    /// The octets of an equal message that went the same way a short while ago.
    fn same_as(&self, message: &Kept) -> Option<Bytes> {
        let same = |old: &&Kept| {
            old.outgoing == message.outgoing && old.remote == message.remote && old.bytes == message.bytes
        };
        self.messages.iter().rev().take(LOOK_BACK).find(same).map(|old| old.bytes.clone())
    }

    fn class_after(&mut self, turn: Turn) -> Class {
        match turn {
            Turn::Invited if !self.established => Class::Live,
            Turn::Answered => {
                self.established = true;
                Class::Live
            }
            Turn::Refused if !self.established => Class::Ended,
            Turn::Over => Class::Ended,
            Turn::Invited | Turn::Refused | Turn::None => self.class,
        }
    }
}

/// What a message does to a call as a whole.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Invited,
    Answered,
    Refused,
    Over,
    None,
}

impl Turn {
    fn of(kind: Kind<'_>) -> Self {
        match kind {
            Kind::Request { method: "INVITE" } => Self::Invited,
            Kind::Response { status: 200..300, method: "INVITE" } => Self::Answered,
            Kind::Response { status: 300.., method: "INVITE" } => Self::Refused,
            Kind::Response { status: 200.., method: "BYE" } => Self::Over,
            Kind::Request { .. } | Kind::Response { .. } => Self::None,
        }
    }
}

/// What a message takes: its octets unless they are shared, and its place.
fn cost(message: &Kept) -> usize {
    size_of::<Kept>() + if message.repeated { 0 } else { message.bytes.len() }
}

fn unix_us(epoch: (Instant, UnixMs), at: Instant) -> i64 {
    let (instant, wall) = epoch;
    let wall = wall.get().saturating_mul(1_000);
    let micros = |span: std::time::Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    match at.checked_duration_since(instant) {
        Some(later) => wall.saturating_add(micros(later)),
        None => wall.saturating_sub(micros(instant.saturating_duration_since(at))),
    }
}

/// Messages at the beginning of a call that are never given up for later ones: the set-up.
const HEAD_KEPT: usize = 24;
/// Messages among which a repetition is looked for.
const LOOK_BACK: usize = 12;

#[cfg(test)]
mod tests;
