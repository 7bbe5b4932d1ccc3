//! The stream connections of an endpoint: which there are, which a message takes, and when one is made.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::endpoint::ToEndpoint;
use super::limits::Limits;
use super::message::Transport;
use super::tcp::{Connection, count_closed};
use super::tls::{Certificates, Connector};
use super::transport::{ConnectionId, HostId, Target};

/// The stream connections.
pub(super) struct Connections {
    pub(super) max: usize,
    pub(super) idle_timeout: Duration,
    pub(super) message_timeout: Duration,
    pub(super) keep_alive: Duration,
    pub(super) limits: Arc<Limits>,
    pub(super) wire: ToEndpoint,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// What listeners prove themselves with.
    pub(super) certificates: Option<Certificates>,
    pub(super) connector: Connector,
    pub(super) table: Table,
}

/// Which connections there are.
pub(super) struct Table {
    open: HashMap<ConnectionId, Open>,
    by_remote: HashMap<Way, ConnectionId>,
    next: u64,
    handshakes: Arc<Semaphore>,
}

/// What makes two connections the same to a message: a connection proven for one name is none for another
/// (RFC 5923 section 4), and one that a peer made has proven nothing.
type Way = (Transport, SocketAddr, Option<HostId>);

struct Open {
    way: Way,
    outgoing: mpsc::Sender<Bytes>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            by_remote: HashMap::new(),
            next: 0,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        }
    }
}

impl Connections {
    /// Serves a connection that a peer made.
    pub(super) fn take(
        &mut self,
        stream: TcpStream,
        transport: Transport,
        remote: SocketAddr,
        local: SocketAddr,
    ) {
        let Ok((acceptor, handshake)) = self.before_talk(transport) else { return count_closed("too_many") };
        let way = (transport, remote, None);
        let Some(connection) = self.add(way, local, handshake) else { return count_closed("too_many") };
        // Signalling is small and must not wait for more to say.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "SIP connection keeps Nagle's algorithm");
        }
        self.tasks.spawn(connection.serve(stream, acceptor));
    }

    /// Whether somebody who is neither a peer nor a registered phone may connect: half of the room is not theirs.
    pub(super) fn has_room_for_strangers(&self) -> bool {
        let (open, handshakes) = (self.table.open.len(), self.table.handshakes.available_permits());
        open < self.max.div_ceil(2) && handshakes > HANDSHAKES_MAX / 2
    }

    /// What a connection of a peer needs before the first message: TLS, and room among the handshakes.
    fn before_talk(
        &self,
        transport: Transport,
    ) -> Result<(Option<TlsAcceptor>, Option<OwnedSemaphorePermit>), tokio::sync::TryAcquireError> {
        if transport == Transport::Tcp {
            return Ok((None, None));
        }
        let room = Arc::clone(&self.table.handshakes).try_acquire_owned()?;
        let secure = matches!(transport, Transport::Tls | Transport::Wss);
        let acceptor = self.certificates.as_ref().filter(|_| secure).map(Certificates::acceptor);
        Ok((acceptor, Some(room)))
    }

    /// Whether there is a connection for this target already.
    pub(super) fn has(&self, target: &Target) -> bool {
        self.find(target).is_some()
    }

    fn find(&self, target: &Target) -> Option<ConnectionId> {
        let way = (target.transport, target.remote, target.name);
        let named = target.connection.filter(|id| self.table.open.contains_key(id));
        named.or_else(|| self.table.by_remote.get(&way).copied())
    }

    /// Whether it was queued. A full queue means a peer that does not read: its connection is closed.
    pub(super) fn send(&mut self, target: &Target, bytes: Bytes) -> bool {
        let Some(id) = self.find(target).or_else(|| self.connect(target)) else { return false };
        let Some(open) = self.table.open.get(&id) else { return false };
        if open.outgoing.try_send(bytes).is_ok() {
            return true;
        }
        count_closed("slow_reader");
        self.close(id);
        false
    }

    fn connect(&mut self, target: &Target) -> Option<ConnectionId> {
        let tls = match target.transport {
            Transport::Tcp => None,
            Transport::Tls => Some((self.connector.clone(), target.name)),
            // WebSocket clients connect to us, never we to them (RFC 7118 section 5).
            Transport::Udp | Transport::Ws | Transport::Wss => return None,
        };
        let way = (target.transport, target.remote, target.name);
        let connection = self.add(way, target.local, None)?;
        let id = connection.id;
        self.tasks.spawn(connection.connect(tls));
        Some(id)
    }

    fn add(
        &mut self,
        way: Way,
        local: SocketAddr,
        handshake: Option<OwnedSemaphorePermit>,
    ) -> Option<Connection> {
        let table = &mut self.table;
        if table.open.len() >= self.max {
            return None;
        }
        table.next += 1;
        let id = ConnectionId(table.next);
        let (sender, outgoing) = mpsc::channel(WRITE_QUEUE);
        table.open.insert(id, Open { way, outgoing: sender });
        table.by_remote.insert(way, id);
        metrics::gauge!("tandem_sip_connections").set(table.open.len() as f64);
        Some(Connection {
            id,
            transport: way.0,
            remote: way.1,
            local,
            limits: Arc::clone(&self.limits),
            idle_timeout: self.idle_timeout,
            message_timeout: self.message_timeout,
            keep_alive: self.keep_alive,
            wire: self.wire.clone(),
            handshake,
            outgoing,
            stop: self.stop.clone(),
        })
    }

    pub(super) fn close(&mut self, id: ConnectionId) -> Option<(Transport, SocketAddr)> {
        let table = &mut self.table;
        let open = table.open.remove(&id)?;
        if table.by_remote.get(&open.way) == Some(&id) {
            table.by_remote.remove(&open.way);
        }
        metrics::gauge!("tandem_sip_connections").set(table.open.len() as f64);
        Some((open.way.0, open.way.1))
    }
}

/// Messages that wait for one slow peer.
const WRITE_QUEUE: usize = 256;
/// Peers that may be in the midst of a TLS or WebSocket handshake.
const HANDSHAKES_MAX: usize = 256;
