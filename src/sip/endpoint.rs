//! The shell of signalling: sockets, connections and the clock around one [`UserAgent`].
//!
//! One task owns the user agent. Each socket has a task that reads and parses; what it reads goes through one bounded
//! queue. Commands of calls come through another, and events leave through the channel given to [`Endpoint::start`].
//! When the layer above is behind, events wait here, and beyond [`BACKLOG_MAX`] nothing more is read from the
//! network: peers repeat themselves. No event is dropped.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::{Connections, Table};
use super::headers::HeaderName;
use super::limits::Limits;
use super::message::{Message, Method, Transport};
use super::stun;
use super::tap::{Seen, Tap};
use super::tcp::{self, count_closed};
use super::tls::{Certificates, Connector, HostNames, TlsError, TlsFiles, TlsRoots};
use super::transaction::tag_in;
use super::transport::{ConnectionId, HostId, Incoming, Target};
use super::trunk::Trunks;
use super::ua::{
    Advertised, Answer, LegCommand, OutRequest, OutgoingInvite, Output, Pong, UaConfig, UaEvent, UserAgent,
    shown_ip,
};
use super::udp::{self, LocalAddresses, Sockets};
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
    /// Certificate and key of `tls://` and `wss://` listeners.
    pub tls: Option<TlsFiles>,
    /// Whose certificates are believed when we connect by TLS.
    pub tls_roots: TlsRoots,
    /// A `tls://` listener without a certificate is no error: connections are only made, as a phone does, none taken.
    pub tls_without_certificate: bool,
    /// Sees every message of sources we listen to.
    pub tap: Option<Arc<dyn Tap>>,
    /// How often a stream that a call depends on, and that we opened, is kept alive (RFC 5626 section 4.4.1), and a
    /// WebSocket pinged. Default 25 s; zero: never.
    pub keep_alive: Duration,
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
            tls_roots: TlsRoots::default(),
            tls_without_certificate: false,
            tap: None,
            keep_alive: Duration::from_secs(25),
        }
    }
}

/// A transport and an address: `udp://0.0.0.0:5060`, `tcp://[::]:5060`, `tls://0.0.0.0:5061`, `ws://127.0.0.1:8088`,
/// `wss://0.0.0.0:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The transport.
    pub transport: Transport,
    /// The address.
    pub address: SocketAddr,
}

/// Text that names no listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no SIP listener; write it as udp://0.0.0.0:5060, tcp://[::]:5060, tls://0.0.0.0:5061, ws://127.0.0.1:8088 or wss://0.0.0.0:443"
)]
pub struct ListenerError(String);

impl FromStr for Listener {
    type Err = ListenerError;

    fn from_str(text: &str) -> Result<Self, ListenerError> {
        let error = || ListenerError(text.to_owned());
        let (scheme, address) = text.split_once("://").ok_or_else(error)?;
        let transport = Transport::from_token(scheme).ok_or_else(error)?;
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
    /// A `tls://` or `wss://` listener without a certificate.
    #[error("listening on {}://{} needs sip.tls.certificate and sip.tls.private_key", .0.transport.uri_token(), .0.address)]
    NoCertificate(Listener),
    /// Certificates that cannot be used.
    #[error("setting up TLS for SIP")]
    Tls(#[from] TlsError),
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
    hosts: HostNames,
    shown: Arc<(Option<IpAddr>, Vec<Advertised>)>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

enum Ask {
    Command(LegId, LegCommand),
    Invite(LegId, Box<OutgoingInvite>),
    Ping(Target, oneshot::Sender<Pong>),
    Request(Box<OutRequest>, oneshot::Sender<Result<Answer, EndpointError>>),
    Drain(bool),
    Trunks(Box<Trunks>),
    /// Answered once no leg and no request of ours is left.
    Idle(oneshot::Sender<()>),
    Count(oneshot::Sender<usize>),
}

/// How the socket tasks reach the endpoint.
///
/// What they say that would make new state waits in a queue of its own, so that a flood of it does not hold up what
/// is said in calls.
#[derive(Clone)]
pub(super) struct ToEndpoint {
    pub(super) first: mpsc::Sender<Wire>,
    pub(super) fresh: mpsc::Sender<Wire>,
    /// Messages are wanted as they came, too.
    pub(super) tapped: bool,
}

impl ToEndpoint {
    /// The queue for this message. A CANCEL stays behind its INVITE.
    pub(super) fn queue(&self, incoming: &Incoming) -> &mpsc::Sender<Wire> {
        let fresh = match &incoming.message {
            Ok(Message::Response(_)) => false,
            Ok(Message::Request(request)) => match request.method {
                Method::Cancel => true,
                Method::Ack | Method::Bye => false,
                _ => tag_in(&request.headers, HeaderName::To).is_none(),
            },
            Err(_) => true,
        };
        if fresh { &self.fresh } else { &self.first }
    }
}

/// What the socket tasks tell the endpoint.
pub(super) enum Wire {
    Message(Box<Incoming>),
    Accepted {
        stream: TcpStream,
        transport: Transport,
        remote: SocketAddr,
        local: SocketAddr,
    },
    Idle {
        id: ConnectionId,
    },
    Closed {
        id: ConnectionId,
        broken: bool,
    },
    /// What looks like STUN, on the datagram socket bound here.
    Stun {
        bound: SocketAddr,
        source: SocketAddr,
        datagram: Bytes,
    },
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
        let (first, from_first) = mpsc::channel(WIRE_QUEUE);
        let (fresh, from_fresh) = mpsc::channel(FRESH_QUEUE);
        let wire = ToEndpoint { first, fresh, tapped: config.tap.is_some() };
        let hosts = HostNames::default();
        let shown = config.tls.as_ref().is_some_and(|files| files.to_servers);
        let certificates = match config.tls {
            Some(files) => {
                let (certificates, renewal) = Certificates::load(files, stop.clone())?;
                tasks.spawn(renewal);
                Some(certificates)
            }
            None => None,
        };
        let own = certificates.clone().filter(|_| shown);
        let connector = Connector::new(&config.tls_roots, hosts.clone(), own)?;
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
                Transport::Tls if certificates.is_none() && config.tls_without_certificate => {
                    // Nobody is let in: the port only gives our address over TLS a name.
                    let held = tcp::bind(listener.address).map_err(error)?;
                    let bound = held.local_addr().map_err(error)?;
                    let stopped = stop.clone();
                    tasks.spawn(async move {
                        stopped.cancelled().await;
                        drop(held);
                    });
                    bound
                }
                Transport::Tls | Transport::Wss if certificates.is_none() => {
                    stop.cancel();
                    return Err(StartError::NoCertificate(*listener));
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
        let shown = Arc::new((ua.advertise, ua.advertise_for.clone()));
        ua.listeners = listeners.iter().map(|listener| (listener.transport, listener.address)).collect();
        ua.epoch = Some((Instant::now().into_std(), UnixMs::now()));
        let driver = Driver {
            ua: UserAgent::new(ua, config.trunks, StdRng::from_rng(&mut rand::rng())),
            sockets,
            connections: Connections {
                max: config.connections_max,
                idle_timeout: config.idle_timeout,
                message_timeout: config.message_timeout,
                keep_alive: config.keep_alive,
                limits,
                wire,
                stop: stop.clone(),
                tasks: tasks.clone(),
                certificates,
                connector,
                table: Table::default(),
            },
            events,
            backlog: VecDeque::new(),
            pings: HashMap::new(),
            answers: HashMap::new(),
            next_ask: 0,
            hosts: hosts.clone(),
            tap: config.tap,
            idle: Vec::new(),
        };
        tasks.spawn(driver.run(from_calls, from_first, from_fresh, stop.clone()));
        tasks.close();
        Ok(EndpointHandle { asks, listeners: listeners.into(), hosts, shown, stop, tasks })
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

    /// The number of a name that a TLS peer must prove, for [`Target::named`]; `None` when the name is empty or too
    /// many are known.
    pub fn host(&self, name: &str) -> Option<HostId> {
        self.hosts.number(name)
    }

    /// Sends a request outside of any dialog, such as REGISTER or OPTIONS, and waits for its final answer; with none
    /// that is 408 after 32 s. What the request leaves out is made here, and challenges are answered.
    ///
    /// # Errors
    /// When the endpoint is overloaded or has stopped.
    pub async fn request(&self, request: OutRequest) -> Result<Answer, EndpointError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Request(Box::new(request), answer))?;
        answered.await.map_err(|_| EndpointError::Stopped)?
    }

    /// The address that this target reaches us at: the one to put into SDP.
    pub fn shown(&self, target: &Target) -> IpAddr {
        shown_ip(self.shown.0, &self.shown.1, target)
    }

    /// Replaces the trunks: sources learnt from DNS, or a new configuration. Calls that exist keep theirs.
    ///
    /// # Errors
    /// When the endpoint is overloaded or has stopped.
    pub fn trunks(&self, trunks: Trunks) -> Result<(), EndpointError> {
        self.ask(Ask::Trunks(Box::new(trunks)))
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
    answers: HashMap<u64, oneshot::Sender<Result<Answer, EndpointError>>>,
    /// Numbers pings and requests.
    next_ask: u64,
    hosts: HostNames,
    tap: Option<Arc<dyn Tap>>,
    idle: Vec<oneshot::Sender<()>>,
}

impl Driver {
    async fn run(
        mut self,
        mut asks: mpsc::Receiver<Ask>,
        mut first: mpsc::Receiver<Wire>,
        mut fresh: mpsc::Receiver<Wire>,
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
                Some(wire) = first.recv(), if reading => self.heard(wire),
                Some(wire) = fresh.recv(), if reading => self.heard(wire),
            }
        }
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Command(leg, command) => self.ua.command(now(), leg, command),
            Ask::Invite(leg, invite) => self.ua.invite(now(), leg, *invite),
            Ask::Ping(target, answer) => {
                self.next_ask += 1;
                self.pings.insert(self.next_ask, answer);
                self.ua.ping(now(), self.next_ask, target);
            }
            Ask::Request(request, answer) => self.request(*request, answer),
            Ask::Drain(draining) => self.ua.drain(draining),
            Ask::Trunks(trunks) => self.ua.set_trunks(*trunks),
            Ask::Idle(answer) => self.idle.push(answer),
            Ask::Count(answer) => {
                // Who asked may have gone.
                let _gone = answer.send(self.ua.leg_count());
            }
        }
    }

    fn heard(&mut self, wire: Wire) {
        match wire {
            Wire::Message(incoming) => {
                self.tap_incoming(&incoming);
                self.ua.receive(now(), *incoming);
            }
            Wire::Stun { bound, source, datagram } => {
                // Strangers hear nothing here either.
                if self.ua.may_connect(source)
                    && let Some(answer) = stun::answer(&datagram, source)
                {
                    self.sockets.send_from(bound, source, &answer);
                }
            }
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
                Output::Event(UaEvent::Answer { id, answer }) => {
                    if let Some(waiting) = self.answers.remove(&id) {
                        let _gone = waiting.send(Ok(*answer));
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

    fn request(&mut self, request: OutRequest, answer: oneshot::Sender<Result<Answer, EndpointError>>) {
        // Who gave up waiting makes room first.
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.retain(|_, waiting| !waiting.is_closed());
        }
        if self.answers.len() >= ANSWERS_MAX {
            let _gone = answer.send(Err(EndpointError::Busy));
            return;
        }
        self.next_ask += 1;
        self.answers.insert(self.next_ask, answer);
        self.ua.request(now(), self.next_ask, request);
    }

    fn tap_incoming(&self, incoming: &Incoming) {
        if let Some(tap) = &self.tap
            && (tap.wants_strangers() || self.ua.may_connect(incoming.source))
        {
            let Incoming { transport, local, source, ref raw, .. } = *incoming;
            let seen = Seen { outgoing: false, transport, local, remote: source, bytes: raw };
            tap.message(now(), &seen);
        }
    }

    /// A peer of a trunk that is reached by address proves the name the trunk is configured with: routes inside calls
    /// often are addresses, and hardly a certificate holds one.
    fn proven(&self, target: Target) -> Target {
        if target.transport != Transport::Tls || target.name.is_some() || self.connections.has(&target) {
            return target;
        }
        let name = self.ua.name_of_peer(target.remote.ip()).and_then(|name| self.hosts.number(name));
        Target { name, ..target }
    }

    fn send(&mut self, target: Target, bytes: Bytes) {
        if let Some(tap) = &self.tap {
            let Target { transport, local, remote, .. } = target;
            tap.message(now(), &Seen { outgoing: true, transport, local, remote, bytes: &bytes });
        }
        let target = self.proven(target);
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

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Messages of calls read and not yet handled.
const WIRE_QUEUE: usize = 1_024;
/// Messages that would make new state, likewise. Short, so that a new call that does get in does not wait long
/// behind a flood.
const FRESH_QUEUE: usize = 512;
/// Requests outside of dialogs that wait for their answers.
const ANSWERS_MAX: usize = 4_096;
/// Commands not yet handled; the endpoint takes them before anything else.
const ASK_QUEUE: usize = 8_192;
/// Events that wait for the layer above; beyond it the network is not read.
const BACKLOG_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_written_as_urls() {
        let listener: Listener = "tcp://[::]:5060".parse().expect("a listener");
        assert_eq!((listener.transport, listener.address.port()), (Transport::Tcp, 5060));
        for wrong in ["5060", "http://0.0.0.0:80", "udp://example.com:5060", "udp://0.0.0.0"] {
            assert!(wrong.parse::<Listener>().is_err(), "{wrong}");
        }
    }
}
