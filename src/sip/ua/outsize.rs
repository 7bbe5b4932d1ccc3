//! Requests that are too large for a datagram: by TCP, and by UDP after all where the peer has none (RFC 3261 section
//! 18.1.1).
//!
//! CANCEL, and the ACK of a refusal, follow their INVITE: they are made from its transaction. What comes after a 2xx
//! goes where the dialog says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::legs::{Reoffer, State};
use super::said::What;
use super::{Purpose, UserAgent};
use crate::sip::headers::HeaderName;
use crate::sip::message::{Method, Request, Transport};
use crate::sip::transaction::TxId;
use crate::sip::transport::Target;
use crate::sip::trunk::PeerHost;

/// What went by TCP for its size, and who is known to have no TCP.
#[derive(Debug, Default)]
pub(super) struct Outsize {
    under_way: HashMap<TxId, Switched>,
    /// Until when TCP is not tried.
    without_tcp: HashMap<SocketAddr, Instant>,
}

/// A request as it would have gone by UDP.
#[derive(Debug)]
struct Switched {
    request: Request,
    target: Target,
}

impl Outsize {
    /// The peer has said something: it has TCP, and the request is in its hands.
    pub(super) fn heard(&mut self, tx: TxId) {
        self.under_way.remove(&tx);
    }

    pub(super) fn keep(&mut self, tx: TxId, request: Request, target: Target) {
        self.under_way.insert(tx, Switched { request, target });
    }

    fn has_no_tcp(&self, now: Instant, peer: SocketAddr) -> bool {
        self.without_tcp.get(&peer).is_some_and(|until| now < *until)
    }

    fn note_no_tcp(&mut self, now: Instant, peer: SocketAddr) {
        if self.without_tcp.len() >= PEERS_MAX {
            self.without_tcp.retain(|_, until| now < *until);
        }
        if self.without_tcp.len() < PEERS_MAX {
            self.without_tcp.insert(peer, now + ASK_AGAIN);
        }
    }
}

impl UserAgent {
    /// Where a request goes that outgrew the datagram, with its Via and everything; `None`: where it was to go.
    pub(super) fn by_tcp(&self, now: Instant, request: &Request, target: &Target) -> Option<Target> {
        let limit = self.config.udp_switch_bytes;
        if target.transport != Transport::Udp || limit == 0 || request.method == Method::Cancel {
            return None;
        }
        if request.to_bytes().len() <= limit || self.outsize.has_no_tcp(now, target.remote) {
            return None;
        }
        // A phone is reached over the flow it registered on (RFC 5626 section 5.3).
        if self.phones.is_flow(target) {
            return None;
        }
        let listens = |(transport, at): &(Transport, SocketAddr)| {
            *transport == Transport::Tcp && at.is_ipv4() == target.local.is_ipv4()
        };
        if !self.config.listeners.iter().any(listens) || insists_on_udp(request) || self.is_pinned(target) {
            return None;
        }
        let local = self.local_for(Transport::Tcp, *target);
        Some(Target { transport: Transport::Tcp, local, ..*target })
    }

    /// Whether a trunk is configured to be reached by UDP there and by nothing else.
    fn is_pinned(&self, target: &Target) -> bool {
        let source = target.remote.ip();
        let admitting = self.trunks.admit(source).map(|trunk| trunk.name.as_str());
        self.trunks.iter().any(|trunk| {
            let mut peers = trunk.peers.iter().filter(|peer| peer.transport == Some(Transport::Udp));
            peers.any(|peer| match &peer.host {
                PeerHost::Ip(ip) => {
                    *ip == source && peer.port.is_none_or(|port| port == target.remote.port())
                }
                PeerHost::Name(_) => admitting == Some(trunk.name.as_str()),
            })
        })
    }

    /// The connection could not be had: the request goes by UDP, with a new branch. Returns whether it does.
    pub(super) fn fall_back_to_udp(&mut self, now: Instant, failed: TxId) -> bool {
        let Some(Switched { request, target }) = self.outsize.under_way.remove(&failed) else { return false };
        self.outsize.note_no_tcp(now, target.remote);
        if !self.is_still_wanted(failed) {
            return false;
        }
        let Some(purpose) = self.purposes.remove(&failed) else { return false };
        let about = Subject::of(&purpose);
        let tx = self.send_request(now, request, target, purpose);
        self.rename(failed, tx, about);
        true
    }

    /// Whether nobody gave up what the request is for while the connection was tried.
    fn is_still_wanted(&self, tx: TxId) -> bool {
        let state = |id| self.legs.get(id).map(|leg| &leg.state);
        match self.purposes.get(&tx) {
            Some(Purpose::Invite(id)) => {
                matches!(state(id), Some(State::Outgoing(call)) if call.cancel.is_none())
            }
            Some(Purpose::Reinvite(id)) => matches!(state(id), Some(State::Established(_))),
            _ => true,
        }
    }

    /// The same request under another transaction.
    fn rename(&mut self, old: TxId, new: TxId, about: Subject) {
        match about {
            Subject::Invite(id) => {
                if let Some(call) = self.outgoing_call(id).filter(|call| call.tx == old) {
                    call.tx = new;
                }
            }
            Subject::Reinvite(id) => {
                let deadline = self.undecided.get(&old);
                self.undecided.set(old, None);
                self.undecided.set(new, deadline);
                if let Some(State::Established(call)) = self.legs.get_mut(&id).map(|leg| &mut leg.state)
                    && let Reoffer::Pending { tx, .. } = &mut call.reoffer
                    && *tx == old
                {
                    *tx = new;
                }
            }
            Subject::EarlyOffer(id, tag) => self.early_offer_renamed(id, &tag, old, new),
            Subject::Other => {}
        }
    }
}

/// Who remembers a request by its transaction.
enum Subject {
    Invite(crate::id::LegId),
    Reinvite(crate::id::LegId),
    EarlyOffer(crate::id::LegId, String),
    Other,
}

impl Subject {
    fn of(purpose: &Purpose) -> Self {
        match purpose {
            Purpose::Invite(id) => Self::Invite(*id),
            Purpose::Reinvite(id) => Self::Reinvite(*id),
            Purpose::Said(said) if matches!(said.what, What::EarlyOffer { .. }) => {
                Self::EarlyOffer(said.leg, said.tag.clone())
            }
            Purpose::Said(_) | Purpose::Bye(_) | Purpose::Cancel | Purpose::Ping { .. } => Self::Other,
            Purpose::Request(_) => Self::Other,
        }
    }
}

/// Whether the next hop is written with `transport=udp`.
fn insists_on_udp(request: &Request) -> bool {
    let says_udp = |uri: &crate::sip::Uri| uri.transport() == Some(Transport::Udp);
    let routes = request.headers.addresses(HeaderName::Route).unwrap_or_default();
    routes.first().map_or_else(|| says_udp(&request.uri), |route| says_udp(&route.uri))
}

/// How long a peer that refused TCP is not asked again.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// Peers without TCP to remember; of more, each is asked again every time.
const PEERS_MAX: usize = 1_024;
