//! Datagram sockets: bind, receive, and find the local address a peer reaches us at.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::endpoint::{ToEndpoint, Wire};
use super::limits::Limits;
use super::message::Transport;
use super::parse::parse_datagram;
use super::stun::is_stun;
use super::transport::{Incoming, Target};

/// Binds a socket for SIP. An IPv6 socket takes IPv6 only, so that `0.0.0.0` and `[::]` can be bound side by side.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // A burst of calls must fit while the node is busy; the system may grant less.
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
        tracing::debug!(%error, "SIP receive buffer stays at the system's size");
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Reads datagrams until cancelled, and hands them on parsed. When the endpoint is behind, datagrams are dropped
/// and counted: their senders repeat them.
pub(super) async fn receive(
    socket: Arc<UdpSocket>,
    bound: SocketAddr,
    limits: Arc<Limits>,
    wire: ToEndpoint,
    stop: CancellationToken,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut locals = LocalAddresses::new(bound);
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = stop.cancelled() => return,
        };
        let (length, source) = match received {
            Ok(received) => received,
            Err(error) => {
                // An ICMP error of an earlier send, or a passing shortage; neither ends a listener.
                tracing::debug!(%error, "receiving a SIP datagram");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let datagram = &buffer[..length];
        if is_keep_alive(datagram) {
            continue;
        }
        if is_stun(datagram) {
            // One that is lost is asked for again.
            let _full =
                wire.fresh.try_send(Wire::Stun { bound, source, datagram: Bytes::copy_from_slice(datagram) });
            continue;
        }
        let Some(local) = locals.towards(source) else { continue };
        let raw = if wire.tapped { Bytes::copy_from_slice(datagram) } else { Bytes::new() };
        let incoming = Incoming {
            message: parse_datagram(datagram, &limits),
            source,
            local,
            transport: Transport::Udp,
            connection: None,
            raw,
        };
        match wire.queue(&incoming).try_send(Wire::Message(Box::new(incoming))) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::counter!("tandem_sip_dropped_total", "reason" => "endpoint_behind").increment(1);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}

/// The datagram sockets.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) udp: Vec<(SocketAddr, Arc<UdpSocket>)>,
}

impl Sockets {
    /// Whether it was sent, or will be asked for again: a full buffer loses a datagram like any network.
    pub(super) fn send(&self, target: &Target, bytes: &[u8]) -> bool {
        let fits = |bound: &SocketAddr| bound.is_ipv4() == target.remote.is_ipv4();
        let exact = |bound: &SocketAddr| {
            bound.port() == target.local.port()
                && (bound.ip().is_unspecified() || bound.ip() == target.local.ip())
        };
        let mut all = self.udp.iter().filter(|(bound, _)| fits(bound));
        let found = all.clone().find(|(bound, _)| exact(bound)).or_else(|| all.next());
        let Some((_, socket)) = found else { return false };
        send(socket, target.remote, bytes)
    }

    /// From the socket bound here, if there is one.
    pub(super) fn send_from(&self, bound: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        if let Some((_, socket)) = self.udp.iter().find(|(address, _)| *address == bound) {
            send(socket, remote, bytes);
        }
    }
}

fn send(socket: &UdpSocket, remote: SocketAddr, bytes: &[u8]) -> bool {
    match socket.try_send_to(bytes, remote) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            metrics::counter!("tandem_sip_dropped_total", "reason" => "send_buffer").increment(1);
            true
        }
        Err(error) => {
            tracing::debug!(%error, "sending a SIP datagram");
            // A refusal is an answer to an earlier datagram; timers decide about this one.
            error.kind() == io::ErrorKind::ConnectionRefused
        }
    }
}

/// The local address under which peers reach a socket; for a wildcard socket the one the system would send from.
#[derive(Debug)]
pub(super) struct LocalAddresses {
    bound: SocketAddr,
    known: HashMap<IpAddr, IpAddr>,
}

impl LocalAddresses {
    pub(super) fn new(bound: SocketAddr) -> Self {
        Self { bound, known: HashMap::new() }
    }

    /// Our address towards this peer; `None` when there is no way to it.
    pub(super) fn towards(&mut self, peer: SocketAddr) -> Option<SocketAddr> {
        if !self.bound.ip().is_unspecified() {
            return Some(self.bound);
        }
        if let Some(local) = self.known.get(&peer.ip()) {
            return Some(SocketAddr::new(*local, self.bound.port()));
        }
        let local = local_ip_towards(peer)?;
        if self.known.len() >= KNOWN_PEERS_MAX {
            self.known.clear();
        }
        self.known.insert(peer.ip(), local);
        Some(SocketAddr::new(local, self.bound.port()))
    }
}

/// The address the system would send from to reach this peer. Nothing is sent.
pub fn local_ip_towards(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = std::net::UdpSocket::bind((any, 0)).ok()?;
    probe.connect(peer).ok()?;
    probe.local_addr().ok().map(|address| address.ip())
}

/// RFC 5626 section 3.5.1 CRLF, a lone NUL as some NAT helpers send, or what is too short to be STUN.
fn is_keep_alive(datagram: &[u8]) -> bool {
    datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | b' ' | 0))
        || datagram[0] < 4 && !is_stun(datagram)
}

const DATAGRAM_BYTES_MAX: usize = 65_536;
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
const KNOWN_PEERS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_socket_is_reached_at_the_address_the_system_sends_from() {
        let bound = "0.0.0.0:5060".parse().expect("an address");
        let mut locals = LocalAddresses::new(bound);
        let peer = "127.0.0.9:4000".parse().expect("an address");
        assert_eq!(locals.towards(peer), "127.0.0.1:5060".parse().ok());
    }

    #[test]
    fn a_bound_socket_is_reached_where_it_is_bound() {
        let bound = "127.0.0.2:5062".parse().expect("an address");
        let peer = "192.0.2.1:5060".parse().expect("an address");
        assert_eq!(LocalAddresses::new(bound).towards(peer), Some(bound));
    }

    #[test]
    fn keep_alives_are_told_from_messages() {
        assert!(
            is_keep_alive(b"\r\n\r\n")
                && is_keep_alive(b"\0")
                && is_keep_alive(b"")
                && is_keep_alive(&[0, 1, 0, 0])
        );
        assert!(!is_keep_alive(&[1; 20]), "STUN gets an answer");
        assert!(!is_keep_alive(b"OPTIONS sip:a@b SIP/2.0\r\n"));
    }
}
