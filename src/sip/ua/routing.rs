//! Where requests of ours go, and what they say about where they come from.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{Purpose, UserAgent};
use crate::sip::dialog::Dialog;
use crate::sip::header::via::Via;
use crate::sip::headers::{HeaderName, HeaderValue};
use crate::sip::message::{Method, Request, Transport};
use crate::sip::profile::NextHop;
use crate::sip::transaction::TxId;
use crate::sip::transport::Target;
use crate::sip::trunk::Trunk;
use crate::sip::uri::{Host, Uri};

impl UserAgent {
    /// The address we show towards a target.
    pub(super) fn advertised(&self, target: &Target) -> IpAddr {
        match self.config.advertise {
            Some(ip) if ip.is_ipv4() == target.local.is_ipv4() => ip,
            Some(_) | None => target.local.ip(),
        }
    }

    /// Where the requests of a dialog go: along the route set, or else to the remote target (RFC 3261 section
    /// 12.2.1.1). Only an address is followed; for a host name, and where the profile says so, the peer's own
    /// address is used.
    pub(super) fn dialog_target(&self, dialog: &Dialog, peer: Target, trunk: Option<&Trunk>) -> Target {
        let to_source = trunk.is_some_and(|trunk| trunk.profile.next_hop == NextHop::Source);
        if to_source { peer } else { self.hop(dialog.next_hop(), peer) }
    }

    fn hop(&self, uri: &Uri, peer: Target) -> Target {
        let Some(Host::Ip(ip)) = uri.host() else { return peer };
        if ip.is_unspecified() || ip.is_multicast() || ip.is_ipv4() != peer.local.is_ipv4() {
            return peer;
        }
        let transport = match uri.transport() {
            Some(transport @ (Transport::Udp | Transport::Tcp | Transport::Tls)) => transport,
            Some(Transport::Ws | Transport::Wss) | None => peer.transport,
        };
        let remote = SocketAddr::new(ip, uri.port().unwrap_or(transport.default_port()));
        let connection = peer.connection.filter(|_| transport == peer.transport && ip == peer.remote.ip());
        Target { transport, remote, local: self.local_for(transport, peer), connection }
    }

    /// Our address on another transport than the peer's.
    fn local_for(&self, transport: Transport, peer: Target) -> SocketAddr {
        if transport == peer.transport {
            return peer.local;
        }
        let same_family = |address: &SocketAddr| address.is_ipv4() == peer.local.is_ipv4();
        let mut listeners = self.config.listeners.iter();
        match listeners.find(|(t, address)| *t == transport && same_family(address)) {
            Some((_, address)) => SocketAddr::new(peer.local.ip(), address.port()),
            None => peer.local,
        }
    }

    /// Sends a request in a transaction of its own: adds Via with a new branch, and our name.
    pub(super) fn send_request(
        &mut self,
        now: Instant,
        mut request: Request,
        target: Target,
        purpose: Purpose,
    ) -> TxId {
        let branch = self.stamp(&mut request, &target);
        let tx = self.table.request(now, request, &branch, target);
        self.purposes.insert(tx, purpose);
        tx
    }

    /// Sends an ACK of a 2xx, which has no transaction. Returns it for its repeats.
    pub(super) fn send_ack(&mut self, mut ack: Request, target: Target) -> bytes::Bytes {
        self.stamp(&mut ack, &target);
        let bytes = ack.to_bytes();
        self.send(target, bytes.clone());
        bytes
    }

    fn stamp(&mut self, request: &mut Request, target: &Target) -> String {
        let branch = format!("z9hG4bK{}", self.tag());
        let host = self.advertised(target).to_string();
        if let Ok(via) = Via::new(target.transport, &host, Some(target.local.port()), &branch) {
            request.headers.push_front(HeaderName::Via, via);
        }
        if request.method != Method::Ack && !self.config.user_agent.is_empty() {
            request.headers.push(HeaderName::UserAgent, HeaderValue::cleaned(&self.config.user_agent));
        }
        branch
    }
}
