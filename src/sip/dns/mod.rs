//! Where a SIP name leads: the selection of RFC 3263 sections 4.1 and 4.2, with the weights of RFC 2782.
//!
//! Pure: what DNS says comes from a [`Lookup`]. When it does not know something yet, [`select`] names the
//! questions; whoever asks fetches the answers and selects again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;
use rand::rngs::StdRng;

use super::message::Transport;
use super::trunk::{Peer, PeerHost};

/// Rows of one kind under one name; none when the name has no such rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records<T> {
    /// The rows, as DNS gave them.
    pub rows: Vec<T>,
    /// When they have to be asked for again; `None`: never.
    pub expires: Option<Instant>,
}

/// A NAPTR row (RFC 3403).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naptr {
    /// Lower comes first.
    pub order: u16,
    /// Lower comes first among equal orders.
    pub preference: u16,
    /// `s`: the replacement has SRV rows.
    pub flags: String,
    /// `SIP+D2U`, `SIP+D2T`, `SIPS+D2T`.
    pub service: String,
    /// The name to ask next.
    pub replacement: String,
}

/// An SRV row (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among rows of the same priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host; `.`: the service is not offered.
    pub target: String,
}

/// What is known of DNS. `None`: this was not asked yet.
pub trait Lookup {
    /// The NAPTR rows of a name.
    fn naptr(&mut self, name: &str) -> Option<Records<Naptr>>;
    /// The SRV rows of a name.
    fn srv(&mut self, name: &str) -> Option<Records<Srv>>;
    /// The A and AAAA rows of a name.
    fn addresses(&mut self, name: &str) -> Option<Records<IpAddr>>;
}

/// What has to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// NAPTR rows.
    Naptr(String),
    /// SRV rows.
    Srv(String),
    /// A and AAAA rows.
    Addresses(String),
}

/// How far the selection got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These answers are missing.
    Need(Vec<Question>),
    /// Where to send, best first, at most [`CANDIDATES_MAX`].
    Done(Result<Vec<Candidate>, DnsError>),
}

/// One address a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// How to reach it.
    pub transport: Transport,
    /// Where it is.
    pub address: SocketAddr,
    /// The name or address that was asked for: what a TLS certificate must prove (RFC 5922 section 4), not the
    /// host an SRV row led to.
    pub name: Arc<str>,
    /// When the answer is stale; `None`: never.
    pub expires: Option<Instant>,
}

/// A transport of ours and the address families it can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The transport.
    pub transport: Transport,
    /// Whether it reaches IPv4 addresses.
    pub v4: bool,
    /// Whether it reaches IPv6 addresses.
    pub v6: bool,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// DNS has no address for it.
    #[error("`{0}` has no address in DNS")]
    NoAddress(String),
    /// No listener of ours has a transport or address family the peer can be reached with.
    #[error("`{0}` is reached by no listener of sip.listen: add one of its transport and address family")]
    Unreachable(String),
}

/// Follows a peer's name to addresses. `ours` are our transports, best first.
pub fn select(peer: &Peer, ours: &[Reach], lookup: &mut dyn Lookup, rng: &mut StdRng) -> Step {
    let usable: Vec<Reach> = ours
        .iter()
        .copied()
        // A WebSocket is opened by the other side (RFC 7118).
        .filter(|ours| matches!(ours.transport, Transport::Udp | Transport::Tcp | Transport::Tls))
        .filter(|ours| peer.transport.is_none_or(|wanted| wanted == ours.transport))
        .collect();
    let Some(first) = usable.first() else {
        return Step::Done(Err(DnsError::Unreachable(peer.to_string())));
    };
    let plain = peer.transport.unwrap_or(first.transport);
    let mut search = Search { lookup, rng, usable: &usable, need: Vec::new(), found: Vec::new() };
    let name: Arc<str> = peer.host_text().into();
    let filled = match (&peer.host, peer.port) {
        (PeerHost::Ip(ip), port) => {
            let port = port.unwrap_or(plain.default_port());
            search.keep(plain, SocketAddr::new(*ip, port), None);
            true
        }
        (PeerHost::Name(host), Some(port)) => search.host(plain, host, port, None),
        (PeerHost::Name(host), None) => search.service(host, peer.transport) || search.bare(host, plain),
    };
    let Search { need, found, .. } = search;
    if !need.is_empty() {
        return Step::Need(need);
    }
    if found.is_empty() {
        let name = peer.to_string();
        return Step::Done(Err(if filled { DnsError::Unreachable(name) } else { DnsError::NoAddress(name) }));
    }
    let candidates = found.into_iter().take(CANDIDATES_MAX);
    Step::Done(Ok(candidates
        .map(|(transport, address, expires)| Candidate {
            transport,
            address,
            name: Arc::clone(&name),
            expires,
        })
        .collect()))
}

/// One selection in progress. Its methods tell whether DNS had something, of use to us or not.
struct Search<'a> {
    lookup: &'a mut dyn Lookup,
    rng: &'a mut StdRng,
    usable: &'a [Reach],
    need: Vec<Question>,
    found: Vec<(Transport, SocketAddr, Option<Instant>)>,
}

impl Search<'_> {
    /// NAPTR, then SRV.
    fn service(&mut self, host: &str, wanted: Option<Transport>) -> bool {
        if let Some(transport) = wanted {
            return self.srv(transport, &srv_name(transport, host), None);
        }
        let Some(records) = self.lookup.naptr(host) else {
            self.need.push(Question::Naptr(host.to_owned()));
            return true;
        };
        let mut rows = records.rows;
        rows.retain(|row| row.flags.eq_ignore_ascii_case("s"));
        rows.sort_by_key(|row| (row.order, row.preference));
        rows.truncate(ROWS_MAX);
        let mut any = false;
        for row in &rows {
            if let Some(transport) = service_transport(&row.service)
                && self.usable.iter().any(|ours| ours.transport == transport)
            {
                any |= self.srv(transport, &row.replacement, records.expires);
            }
        }
        // Without NAPTR each transport of ours is asked for (section 4.1).
        if !any {
            let transports: Vec<Transport> = self.usable.iter().map(|ours| ours.transport).collect();
            for transport in transports {
                any |= self.srv(transport, &srv_name(transport, host), None);
            }
        }
        any
    }

    /// No SRV anywhere: the name itself at the default port.
    fn bare(&mut self, host: &str, transport: Transport) -> bool {
        self.host(transport, host, transport.default_port(), None)
    }

    fn srv(&mut self, transport: Transport, name: &str, expires: Option<Instant>) -> bool {
        let Some(records) = self.lookup.srv(name) else {
            self.need.push(Question::Srv(name.to_owned()));
            return true;
        };
        let mut rows = records.rows;
        rows.retain(|row| !row.target.trim_end_matches('.').is_empty());
        rows.truncate(ROWS_MAX);
        let expires = sooner(expires, records.expires);
        for row in in_order(rows, |row| (row.priority, row.weight), self.rng) {
            self.host(transport, row.target.trim_end_matches('.'), row.port, expires);
        }
        !self.found.is_empty() || !self.need.is_empty()
    }

    fn host(&mut self, transport: Transport, host: &str, port: u16, expires: Option<Instant>) -> bool {
        let Some(records) = self.lookup.addresses(host) else {
            self.need.push(Question::Addresses(host.to_owned()));
            return true;
        };
        let expires = sooner(expires, records.expires);
        for ip in records.rows.iter().take(ROWS_MAX) {
            self.keep(transport, SocketAddr::new(*ip, port), expires);
        }
        !records.rows.is_empty()
    }

    fn keep(&mut self, transport: Transport, address: SocketAddr, expires: Option<Instant>) {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let reaches =
            |ours: &Reach| ours.transport == transport && if address.is_ipv4() { ours.v4 } else { ours.v6 };
        let known = self.found.iter().any(|(t, a, _)| (*t, *a) == (transport, address));
        if !known && self.usable.iter().any(reaches) {
            self.found.push((transport, address, expires));
        }
    }
}

/// Rows by priority, and within one by chance as their weights say (RFC 2782, "Weight"). Rows of a priority
/// that all weigh nothing keep their order.
pub fn in_order<T>(mut rows: Vec<T>, key: impl Fn(&T) -> (u16, u16), rng: &mut StdRng) -> Vec<T> {
    rows.sort_by_key(|row| key(row).0);
    let mut ordered = Vec::with_capacity(rows.len());
    while let Some(first) = rows.first() {
        let priority = key(first).0;
        let group = rows.iter().take_while(|row| key(row).0 == priority).count();
        let sum: u32 = rows.iter().take(group).map(|row| u32::from(key(row).1)).sum();
        let draw = if sum == 0 { 0 } else { rng.random_range(1..=sum) };
        let mut running = 0;
        let chosen = rows.iter().take(group).position(|row| {
            running += u32::from(key(row).1);
            running >= draw
        });
        ordered.push(rows.remove(chosen.unwrap_or(0)));
    }
    ordered
}

fn srv_name(transport: Transport, host: &str) -> String {
    match transport {
        Transport::Udp => format!("_sip._udp.{host}"),
        Transport::Tcp | Transport::Ws => format!("_sip._tcp.{host}"),
        Transport::Tls | Transport::Wss => format!("_sips._tcp.{host}"),
    }
}

fn service_transport(service: &str) -> Option<Transport> {
    [("SIP+D2U", Transport::Udp), ("SIP+D2T", Transport::Tcp), ("SIPS+D2T", Transport::Tls)]
        .into_iter()
        .find(|(name, _)| service.eq_ignore_ascii_case(name))
        .map(|(_, transport)| transport)
}

fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Most addresses one name leads to; further ones are left out.
pub const CANDIDATES_MAX: usize = 16;
/// Most rows of one answer that are followed, so that a zone cannot keep us asking.
const ROWS_MAX: usize = 16;

#[cfg(test)]
mod tests;
