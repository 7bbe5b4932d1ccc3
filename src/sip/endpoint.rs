//! The shell of signalling: sockets, connections and the clock around one [`UserAgent`].
//!
//! One task owns the user agent. Each socket has a task that reads and parses; what it reads goes through one bounded
//! queue. Commands of calls come through another, and events leave through the channel given to [`Endpoint::start`].
//! When the layer above is behind, events wait here, and beyond [`BACKLOG_MAX`] nothing more is read from the
//! network: peers repeat themselves. No event is dropped.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::limits::Limits;
use super::message::Transport;
use super::tcp::{self, Connection, count_closed};
use super::transport::{ConnectionId, Incoming, Target};
use super::trunk::Trunks;
use super::ua::{LegCommand, OutgoingInvite, Output, Pong, UaConfig, UaEvent, UserAgent};
use super::udp::{self, LocalAddresses};
use crate::id::LegId;
use crate::time::UnixMs;

/// What an endpoint is made with.
pub struct EndpointConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: Vec<Listener>,
    /// The user agent's settings. `listeners` and `epoch` are filled in by the endpoint.
    pub ua: UaConfig,
    /// Who may call, and whom we call.
    pub trunks: Trunks,
    /// Bounds of messages.
    pub limits: Limits,
    /// Most stream connections at a time; further ones are closed at once.
    pub connections_max: usize,
    /// Streams without traffic and without a call are closed after this long.
    pub idle_timeout: Duration,
    /// A message that has begun on a stream must be complete within this time, or somebody holds the connection
    /// open on purpose. Default 10 s.
    pub message_timeout: Duration,
    /// Certificate and key of `tls://` listeners.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl EndpointConfig {
    /// These listeners and trunks, everything else by default.
    pub fn new(listen: Vec<Listener>, trunks: Trunks) -> Self {
        Self {
            listen,
            ua: UaConfig::default(),
            trunks,
            limits: Limits::default(),
            connections_max: 1_000,
            idle_timeout: Duration::from_secs(300),
            message_timeout: Duration::from_secs(10),
            tls: None,
        }
    }
}

/// A transport and an address: `udp://0.0.0.0:5060`, `tcp://[::]:5060`, `tls://0.0.0.0:5061`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The transport.
    pub transport: Transport,
    /// The address.
    pub address: SocketAddr,
}

/// Text that names no listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SIP listener; write it as udp://0.0.0.0:5060, tcp://[::]:5060 or tls://0.0.0.0:5061")]
pub struct ListenerError(String);

impl FromStr for Listener {
    type Err = ListenerError;

    fn from_str(text: &str) -> Result<Self, ListenerError> {
        let error = || ListenerError(text.to_owned());
        let (scheme, address) = text.split_once("://").ok_or_else(error)?;
        let transport = Transport::from_token(scheme)
            .filter(|t| matches!(t, Transport::Udp | Transport::Tcp | Transport::Tls))
            .ok_or_else(error)?;
        Ok(Self { transport, address: address.parse().map_err(|_| error())? })
    }
}

/// Why an endpoint could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use, not ours, or not allowed.
    #[error("listening on {}://{}", .listener.transport.uri_token(), .listener.address)]
    Bind {
        /// Which.
        listener: Listener,
        /// Why.
        source: io::Error,
    },
    /// A `tls://` listener without a certificate.
    #[error("listening on tls://{0} needs sip.tls.certificate and sip.tls.private_key")]
    NoCertificate(SocketAddr),
}

/// Why a request of the layer above was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The endpoint has stopped.
    #[error("SIP has stopped")]
    Stopped,
    /// The endpoint's queue is full.
    #[error("SIP is overloaded")]
    Busy,
    /// No listener has the transport and address family of the target.
    #[error("no SIP listener can reach {0}")]
    NoListener(SocketAddr),
}

/// The shell; see [`Endpoint::start`].
pub struct Endpoint;

/// How calls reach the endpoint. Cheap to clone; the endpoint stops when the last one is dropped, or by
/// [`EndpointHandle::stop`].
#[derive(Debug, Clone)]
pub struct EndpointHandle {
    asks: mpsc::Sender<Ask>,
    listeners: Arc<[Listener]>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

enum Ask {
    Command(LegId, LegCommand),
    Invite(LegId, Box<OutgoingInvite>),
    Ping(Target, oneshot::Sender<Pong>),
    Drain(bool),
    /// Answered once no leg and no request of ours is left.
    Idle(oneshot::Sender<()>),
    Count(oneshot::Sender<usize>),
}

/// What the socket tasks tell the endpoint.
pub(super) enum Wire {
    Message(Box<Incoming>),
    Accepted { stream: TcpStream, transport: Transport, remote: SocketAddr, local: SocketAddr },
    Idle { id: ConnectionId },
    Closed { id: ConnectionId, broken: bool },
}

impl Endpoint {
    /// Binds every listener and starts the tasks. Events of calls go to `events`.
    ///
    /// # Errors
    /// When a listener cannot be bound.
    pub async fn start(
        config: EndpointConfig,
        events: mpsc::Sender<UaEvent>,
    ) -> Result<EndpointHandle, StartError> {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let limits = Arc::new(config.limits.clone());
        let (wire, from_wire) = mpsc::channel(WIRE_QUEUE);
        let mut sockets = Sockets::default();
        let mut listeners = Vec::new();
        for listener in &config.listen {
            let error = |source| StartError::Bind { listener: *listener, source };
            let transport = listener.transport;
            let bound = match transport {
                Transport::Udp => {
                    let socket = Arc::new(udp::bind(listener.address).map_err(error)?);
                    let bound = socket.local_addr().map_err(error)?;
                    let reading = Arc::clone(&socket);
                    tasks.spawn(udp::receive(
                        reading,
                        bound,
                        Arc::clone(&limits),
                        wire.clone(),
                        stop.clone(),
                    ));
                    sockets.udp.push((bound, socket));
                    bound
                }
                Transport::Tls if config.tls.is_none() => {
                    return Err(StartError::NoCertificate(listener.address));
                }
                Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                    let accepting = tcp::bind(listener.address).map_err(error)?;
                    let bound = accepting.local_addr().map_err(error)?;
                    tasks.spawn(tcp::accept(accepting, transport, wire.clone(), stop.clone()));
                    bound
                }
            };
            tracing::info!(%transport, address = %bound, "SIP listens");
            listeners.push(Listener { transport, address: bound });
        }
        let (asks, from_calls) = mpsc::channel(ASK_QUEUE);
        let mut ua = config.ua;
        ua.listeners = listeners.iter().map(|listener| (listener.transport, listener.address)).collect();
        ua.epoch = Some((Instant::now().into_std(), UnixMs::now()));
        let driver = Driver {
            ua: UserAgent::new(ua, config.trunks, StdRng::from_rng(&mut rand::rng())),
            sockets,
            connections: Connections {
                open: HashMap::new(),
                by_remote: HashMap::new(),
                next: 0,
                max: config.connections_max,
                idle_timeout: config.idle_timeout,
                message_timeout: config.message_timeout,
                limits,
                wire,
                stop: stop.clone(),
                tasks: tasks.clone(),
                tls: config.tls.map(TlsAcceptor::from),
            },
            events,
            backlog: VecDeque::new(),
            pings: HashMap::new(),
            next_ping: 0,
            idle: Vec::new(),
        };
        tasks.spawn(driver.run(from_calls, from_wire, stop.clone()));
        tasks.close();
        Ok(EndpointHandle { asks, listeners: listeners.into(), stop, tasks })
    }
}

impl EndpointHandle {
    /// Sends a command to a leg. Never waits. A command that ends a leg is delivered even when the queue is full;
    /// another is then dropped and counted (`tandem_sip_commands_dropped_total`).
    pub fn command(&self, leg: LegId, command: LegCommand) {
        let ends = matches!(command, LegCommand::Hangup { .. } | LegCommand::Reject { .. });
        match self.asks.try_send(Ask::Command(leg, command)) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(ask)) if ends => {
                // One task per leg at most: a leg ends once.
                let asks = self.asks.clone();
                self.tasks.spawn(async move {
                    let _gone = asks.send(ask).await;
                });
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::counter!("tandem_sip_commands_dropped_total").increment(1);
            }
        }
    }

    /// Starts an outgoing call; `leg` is a fresh id.
    ///
    /// # Errors
    /// When the endpoint is overloaded or has stopped.
    pub fn invite(&self, leg: LegId, invite: OutgoingInvite) -> Result<(), EndpointError> {
        self.ask(Ask::Invite(leg, Box::new(invite)))
    }

    /// Sends OPTIONS and waits for any answer, at most 32 s.
    ///
    /// # Errors
    /// When the endpoint is overloaded or has stopped, or no listener reaches the peer.
    pub async fn ping(&self, transport: Transport, remote: SocketAddr) -> Result<Pong, EndpointError> {
        let target = self.target(transport, remote)?;
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Ping(target, answer))?;
        answered.await.map_err(|_| EndpointError::Stopped)
    }

    /// A target for an outgoing call: the peer, and our address towards it.
    ///
    /// # Errors
    /// When no listener has this transport and address family.
    pub fn target(&self, transport: Transport, remote: SocketAddr) -> Result<Target, EndpointError> {
        let fits = |l: &&Listener| l.transport == transport && l.address.is_ipv4() == remote.is_ipv4();
        let listener = self.listeners.iter().find(fits).ok_or(EndpointError::NoListener(remote))?;
        let local = LocalAddresses::new(listener.address).towards(remote);
        Ok(Target::new(transport, remote, local.ok_or(EndpointError::NoListener(remote))?))
    }

    /// Where it really listens, in the order of the configuration.
    pub fn local_addrs(&self) -> &[Listener] {
        &self.listeners
    }

    /// Refuses new calls (503, OPTIONS 503) from here on, or takes them again.
    ///
    /// # Errors
    /// When the endpoint is overloaded or has stopped.
    pub fn drain(&self, draining: bool) -> Result<(), EndpointError> {
        self.ask(Ask::Drain(draining))
    }

    /// How many legs there are.
    pub async fn leg_count(&self) -> usize {
        let (answer, answered) = oneshot::channel();
        match self.ask(Ask::Count(answer)) {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_) => 0,
        }
    }

    /// Waits at most `patience` until every leg is gone and every request of ours (the last BYEs) is answered, then
    /// closes every socket and ends every task.
    pub async fn stop(&self, patience: Duration) {
        let (answer, answered) = oneshot::channel();
        if self.ask(Ask::Idle(answer)).is_ok() {
            // Late or stopped already: closing is right either way.
            let _late = tokio::time::timeout(patience, answered).await;
        }
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Whether the endpoint's task runs.
    pub fn is_running(&self) -> bool {
        !self.asks.is_closed()
    }

    fn ask(&self, ask: Ask) -> Result<(), EndpointError> {
        self.asks.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => EndpointError::Busy,
            mpsc::error::TrySendError::Closed(_) => EndpointError::Stopped,
        })
    }
}

/// The task that owns the user agent.
struct Driver {
    ua: UserAgent,
    sockets: Sockets,
    connections: Connections,
    events: mpsc::Sender<UaEvent>,
    /// Events the layer above had no room for.
    backlog: VecDeque<UaEvent>,
    pings: HashMap<u64, oneshot::Sender<Pong>>,
    next_ping: u64,
    idle: Vec<oneshot::Sender<()>>,
}

impl Driver {
    async fn run(
        mut self,
        mut asks: mpsc::Receiver<Ask>,
        mut wire: mpsc::Receiver<Wire>,
        stop: CancellationToken,
    ) {
        let events = self.events.clone();
        loop {
            self.drain_outputs();
            self.tell_idle();
            let wake = self.ua.next_timeout().map(Instant::from_std);
            let reading = self.backlog.len() < BACKLOG_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ask = asks.recv() => match ask {
                    Some(ask) => self.asked(ask),
                    None => {
                        stop.cancel();
                        return;
                    }
                },
                room = events.reserve(), if !self.backlog.is_empty() => match (room, self.backlog.pop_front()) {
                    (Ok(room), Some(event)) => room.send(event),
                    // Nobody listens any more; calls end by their timers.
                    _ => self.backlog.clear(),
                },
                () = sleep_until(wake), if wake.is_some() => self.ua.handle_timeout(now()),
                message = wire.recv(), if reading => {
                    if let Some(message) = message {
                        self.heard(message);
                    }
                }
            }
        }
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Command(leg, command) => self.ua.command(now(), leg, command),
            Ask::Invite(leg, invite) => self.ua.invite(now(), leg, *invite),
            Ask::Ping(target, answer) => {
                self.next_ping += 1;
                self.pings.insert(self.next_ping, answer);
                self.ua.ping(now(), self.next_ping, target);
            }
            Ask::Drain(draining) => self.ua.drain(draining),
            Ask::Idle(answer) => self.idle.push(answer),
            Ask::Count(answer) => {
                // Who asked may have gone.
                let _gone = answer.send(self.ua.leg_count());
            }
        }
    }

    fn heard(&mut self, wire: Wire) {
        match wire {
            Wire::Message(incoming) => self.ua.receive(now(), *incoming),
            Wire::Accepted { stream, transport, remote, local } => {
                if self.ua.may_connect(remote) {
                    self.connections.take(stream, transport, remote, local);
                } else {
                    metrics::counter!("tandem_sip_dropped_total", "reason" => "unknown_connection")
                        .increment(1);
                }
            }
            Wire::Idle { id } => {
                if !self.ua.uses_connection(id) {
                    count_closed("idle");
                    self.connections.close(id);
                }
            }
            Wire::Closed { id, broken } => {
                if let Some((transport, remote)) = self.connections.close(id)
                    && broken
                {
                    self.ua.transport_failed(now(), transport, remote, Some(id));
                }
            }
        }
    }

    fn drain_outputs(&mut self) {
        while let Some(output) = self.ua.poll() {
            match output {
                Output::Send { target, bytes } => self.send(target, bytes),
                Output::Event(UaEvent::Pong(pong)) => {
                    if let Some(answer) = self.pings.remove(&pong.id) {
                        // Who asked may have gone.
                        let _gone = answer.send(pong);
                    }
                }
                Output::Event(event) => self.tell(event),
            }
        }
        let (servers, clients) = self.ua.transaction_counts();
        metrics::gauge!("tandem_sip_transactions", "role" => "server").set(servers as f64);
        metrics::gauge!("tandem_sip_transactions", "role" => "client").set(clients as f64);
    }

    fn tell(&mut self, event: UaEvent) {
        if self.backlog.is_empty() {
            match self.events.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(event)) => self.backlog.push_back(event),
            }
        } else {
            self.backlog.push_back(event);
        }
        metrics::gauge!("tandem_sip_event_backlog").set(self.backlog.len() as f64);
    }

    fn send(&mut self, target: Target, bytes: Bytes) {
        let sent = match target.transport {
            Transport::Udp => self.sockets.send(&target, &bytes),
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                self.connections.send(&target, bytes)
            }
        };
        if !sent {
            self.ua.transport_failed(now(), target.transport, target.remote, target.connection);
        }
    }

    fn tell_idle(&mut self) {
        if !self.idle.is_empty() && !self.ua.is_busy() && self.backlog.is_empty() {
            for waiting in self.idle.drain(..) {
                let _gone = waiting.send(());
            }
        }
    }
}

/// The datagram sockets.
#[derive(Default)]
struct Sockets {
    udp: Vec<(SocketAddr, Arc<UdpSocket>)>,
}

impl Sockets {
    /// Whether it was sent, or will be asked for again: a full buffer loses a datagram like any network.
    fn send(&self, target: &Target, bytes: &[u8]) -> bool {
        let fits = |bound: &SocketAddr| bound.is_ipv4() == target.remote.is_ipv4();
        let exact = |bound: &SocketAddr| {
            bound.port() == target.local.port()
                && (bound.ip().is_unspecified() || bound.ip() == target.local.ip())
        };
        let mut all = self.udp.iter().filter(|(bound, _)| fits(bound));
        let found = all.clone().find(|(bound, _)| exact(bound)).or_else(|| all.next());
        let Some((_, socket)) = found else { return false };
        match socket.try_send_to(bytes, target.remote) {
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
}

/// The stream connections.
struct Connections {
    open: HashMap<ConnectionId, Open>,
    by_remote: HashMap<(Transport, SocketAddr), ConnectionId>,
    next: u64,
    max: usize,
    idle_timeout: Duration,
    message_timeout: Duration,
    limits: Arc<Limits>,
    wire: mpsc::Sender<Wire>,
    stop: CancellationToken,
    tasks: TaskTracker,
    tls: Option<TlsAcceptor>,
}

struct Open {
    transport: Transport,
    remote: SocketAddr,
    outgoing: mpsc::Sender<Bytes>,
}

impl Connections {
    fn take(&mut self, stream: TcpStream, transport: Transport, remote: SocketAddr, local: SocketAddr) {
        let Some(connection) = self.add(transport, remote, local) else { return count_closed("too_many") };
        // Signalling is small and must not wait for more to say.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "SIP connection keeps Nagle's algorithm");
        }
        let tls = self.tls.clone().filter(|_| transport == Transport::Tls);
        self.tasks.spawn(connection.serve(stream, tls));
    }

    /// Whether it was queued. A full queue means a peer that does not read: its connection is closed.
    fn send(&mut self, target: &Target, bytes: Bytes) -> bool {
        let by_remote = || self.by_remote.get(&(target.transport, target.remote)).copied();
        let known = target.connection.filter(|id| self.open.contains_key(id)).or_else(by_remote);
        let id = match known.or_else(|| self.connect(target)) {
            Some(id) => id,
            None => return false,
        };
        let Some(open) = self.open.get(&id) else { return false };
        if open.outgoing.try_send(bytes).is_ok() {
            return true;
        }
        count_closed("slow_reader");
        self.close(id);
        false
    }

    fn connect(&mut self, target: &Target) -> Option<ConnectionId> {
        // Towards TLS peers a certificate check is due, which outbound trunks bring.
        if target.transport != Transport::Tcp {
            return None;
        }
        let connection = self.add(target.transport, target.remote, target.local)?;
        let id = connection.id;
        self.tasks.spawn(connection.connect());
        Some(id)
    }

    fn add(&mut self, transport: Transport, remote: SocketAddr, local: SocketAddr) -> Option<Connection> {
        if self.open.len() >= self.max {
            return None;
        }
        self.next += 1;
        let id = ConnectionId(self.next);
        let (sender, outgoing) = mpsc::channel(WRITE_QUEUE);
        self.open.insert(id, Open { transport, remote, outgoing: sender });
        self.by_remote.insert((transport, remote), id);
        metrics::gauge!("tandem_sip_connections").set(self.open.len() as f64);
        Some(Connection {
            id,
            transport,
            remote,
            local,
            limits: Arc::clone(&self.limits),
            idle_timeout: self.idle_timeout,
            message_timeout: self.message_timeout,
            wire: self.wire.clone(),
            outgoing,
            stop: self.stop.clone(),
        })
    }

    fn close(&mut self, id: ConnectionId) -> Option<(Transport, SocketAddr)> {
        let open = self.open.remove(&id)?;
        let key = (open.transport, open.remote);
        if self.by_remote.get(&key) == Some(&id) {
            self.by_remote.remove(&key);
        }
        metrics::gauge!("tandem_sip_connections").set(self.open.len() as f64);
        Some(key)
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Messages read and not yet handled.
const WIRE_QUEUE: usize = 1_024;
/// Commands not yet handled; the endpoint takes them before anything else.
const ASK_QUEUE: usize = 8_192;
/// Events that wait for the layer above; beyond it the network is not read.
const BACKLOG_MAX: usize = 1_024;
/// Messages that wait for one slow peer.
const WRITE_QUEUE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_written_as_urls() {
        let listener: Listener = "tcp://[::]:5060".parse().expect("a listener");
        assert_eq!((listener.transport, listener.address.port()), (Transport::Tcp, 5060));
        for wrong in ["5060", "ws://0.0.0.0:80", "udp://example.com:5060", "udp://0.0.0.0"] {
            assert!(wrong.parse::<Listener>().is_err(), "{wrong}");
        }
    }
}
