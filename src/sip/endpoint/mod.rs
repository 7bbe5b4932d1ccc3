//! The shell of signalling: sockets, connections and the clock around one [`UserAgent`].
//!
//! One task owns the user agent. Each socket has a task that reads and parses; what it reads goes through one bounded
//! queue. Commands of calls come through another, and events leave through the channel given to [`Endpoint::start`].
//! When the layer above is behind, events wait here, and beyond a bound nothing more is read from the
//! network: peers repeat themselves. No event is dropped.

mod driver;
mod handle;
mod listener;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use handle::{EndpointError, EndpointHandle};
pub use listener::{Listener, ListenerError};
pub(super) use wire::{ToEndpoint, Wire};

use super::connections::{Connections, Table};
use super::limits::Limits;
use super::message::Transport;
use super::tap::Tap;
use super::tcp;
use super::tls::{Certificates, Connector, HostNames, TlsError, TlsFiles, TlsRoots};
use super::trunk::Trunks;
use super::ua::{UaConfig, UaEvent, UserAgent};
use super::udp::{self, Sockets};
use crate::time::UnixMs;
use driver::Driver;
use handle::ASK_QUEUE;
use wire::{FRESH_QUEUE, WIRE_QUEUE};

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

/// The shell; see [`Endpoint::start`].
pub struct Endpoint;

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
        let prober = connector.clone();
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
        let listeners = listeners.into();
        Ok(EndpointHandle { asks, listeners, hosts, connector: prober, shown, stop, tasks })
    }
}
