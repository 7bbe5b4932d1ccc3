//! Where requests of ours go, and what they say about where they come from.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{Advertised, Purpose, UserAgent};
use crate::sip::dialog::Dialog;
use crate::sip::header::via::Via;
use crate::sip::headers::{HeaderName, HeaderValue};
use crate::sip::message::{Method, Request, Transport};
use crate::sip::profile::NextHop;
use crate::sip::transaction::TxId;
use crate::sip::transport::Target;
use crate::sip::trunk::Trunk;
use crate::sip::uri::{Host, Scheme, Uri};

impl UserAgent {
    /// The address we show towards a target.
    pub(super) fn advertised(&self, target: &Target) -> IpAddr {
        shown_ip(self.config.advertise, &self.config.advertise_for, target)
    }

    /// The port we show towards a target.
    pub(super) fn advertised_port(&self, target: &Target) -> u16 {
        let shown = shown_to(&self.config.advertise_for, target).and_then(|shown| shown.port);
        shown.unwrap_or(target.local.port())
    }

    /// Where the requests of a dialog go: along the route set, or else to the remote target (RFC 3261 section
    /// 12.2.1.1). Only an address is followed; for a host name, and where the profile says so, the peer's own
    /// address is used.
    pub(super) fn dialog_target(&self, dialog: &Dialog, peer: Target, trunk: Option<&Trunk>) -> Target {
        let to_source = trunk.is_some_and(|trunk| trunk.profile.next_hop == NextHop::Source);
        if to_source { peer } else { self.hop(dialog.next_hop(), peer) }
    }

    fn hop(&self, uri: &Uri, peer: Target) -> Target {
        // A WebSocket client can be reached on its own connection only (RFC 7118 section 5).
        if matches!(peer.transport, Transport::Ws | Transport::Wss) {
            return peer;
        }
        let Some(Host::Ip(ip)) = uri.host() else { return peer };
        if ip.is_unspecified() || ip.is_multicast() || ip.is_ipv4() != peer.local.is_ipv4() {
            return peer;
        }
        let transport = match uri.transport() {
            Some(transport @ (Transport::Udp | Transport::Tcp | Transport::Tls)) => transport,
            // RFC 5630 section 3.1.3: sips takes TLS, and never less.
            _ if uri.scheme() == Scheme::Sips => Transport::Tls,
            Some(Transport::Ws | Transport::Wss) | None => peer.transport,
        };
        let remote = SocketAddr::new(ip, uri.port().unwrap_or(transport.default_port()));
        let connection = peer.connection.filter(|_| transport == peer.transport && ip == peer.remote.ip());
        // Another host has another certificate.
        let name = peer.name.filter(|_| ip == peer.remote.ip());
        Target { transport, remote, local: self.local_for(transport, peer), connection, name }
    }

    /// Our address on another transport than the peer's.
    pub(super) fn local_for(&self, transport: Transport, peer: Target) -> SocketAddr {
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

    /// Sends a request in a transaction of its own: adds Via with a new branch, and our name. One that is too large
    /// for a datagram goes by TCP where that may be.
    pub(super) fn send_request(
        &mut self,
        now: Instant,
        mut request: Request,
        target: Target,
        purpose: Purpose,
    ) -> TxId {
        let branch = self.stamp(&mut request, &target);
        let tx = match self.by_tcp(now, &request, &target) {
            None => self.table.request(now, request, &branch, target),
            Some(by_tcp) => {
                request.headers.remove(HeaderName::Via);
                request.headers.remove(HeaderName::UserAgent);
                let bare = request.clone();
                let branch = self.stamp(&mut request, &by_tcp);
                let tx = self.table.request(now, request, &branch, by_tcp);
                self.outsize.keep(tx, bare, target);
                tx
            }
        };
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
        if let Ok(via) = Via::new(target.transport, &host, Some(self.advertised_port(target)), &branch) {
            request.headers.push_front(HeaderName::Via, via);
        }
        if request.method != Method::Ack && !self.config.user_agent.is_empty() {
            request.headers.push(HeaderName::UserAgent, HeaderValue::cleaned(&self.config.user_agent));
        }
        branch
    }
}

/// The address to show towards a target: one for its network, the general one, or our own.
pub(crate) fn shown_ip(advertise: Option<IpAddr>, some: &[Advertised], target: &Target) -> IpAddr {
    let shown = shown_to(some, target).map(|shown| shown.address).or(advertise);
    shown.filter(|ip| ip.is_ipv4() == target.local.is_ipv4()).unwrap_or(target.local.ip())
}

fn shown_to<'a>(some: &'a [Advertised], target: &Target) -> Option<&'a Advertised> {
    let peer = target.remote.ip().to_canonical();
    let over = |listener: SocketAddr| {
        let ip = listener.ip();
        listener.port() == target.local.port() && (ip.is_unspecified() || ip == target.local.ip())
    };
    some.iter().find(|shown| {
        shown.network.contains(&peer)
            && shown.address.is_ipv4() == target.local.is_ipv4()
            && shown.listener.is_none_or(over)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_is_shown_the_address_it_can_reach() {
        let shown = |network: &str, listener: Option<&str>, address: &str| Advertised {
            network: network.parse().expect("a network"),
            listener: listener.map(|text| text.parse().expect("an address")),
            address: address.parse().expect("an address"),
            port: None,
        };
        let some =
            [shown("10.1.0.0/16", Some("0.0.0.0:5070"), "10.1.0.7"), shown("10.0.0.0/8", None, "10.0.0.5")];
        let general = "203.0.113.10".parse().ok();
        for (remote, local, expected) in [
            ("10.1.2.3:5060", "192.0.2.1:5060", "10.0.0.5"),
            ("10.1.2.3:5060", "192.0.2.1:5070", "10.1.0.7"),
            ("198.51.100.1:5060", "192.0.2.1:5060", "203.0.113.10"),
            ("[2001:db8::9]:5060", "[2001:db8::1]:5060", "2001:db8::1"),
        ] {
            let at = |text: &str| text.parse().expect("an address");
            let target = Target::new(Transport::Udp, at(remote), at(local));
            assert_eq!(shown_ip(general, &some, &target).to_string(), expected, "{remote} {local}");
        }
    }
}
