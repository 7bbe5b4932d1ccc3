//! How the layers above reach the endpoint.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Listener;
use crate::id::LegId;
use crate::sip::message::Transport;
use crate::sip::registrar::{Binding, PhoneBook};
use crate::sip::tls::{Connector, HostNames, agreed};
use crate::sip::transport::{HostId, Target};
use crate::sip::trunk::Trunks;
use crate::sip::ua::{Advertised, Answer, LegCommand, OutRequest, OutgoingInvite, Pong, shown_ip};
use crate::sip::udp::LocalAddresses;

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

/// How calls reach the endpoint. Cheap to clone; the endpoint stops when the last one is dropped, or by
/// [`EndpointHandle::stop`].
#[derive(Debug, Clone)]
pub struct EndpointHandle {
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) listeners: Arc<[Listener]>,
    pub(super) hosts: HostNames,
    pub(super) connector: Connector,
    pub(super) shown: Arc<(Option<IpAddr>, Vec<Advertised>)>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// What the endpoint is asked for.
pub(super) enum Ask {
    Command(LegId, LegCommand),
    Invite(LegId, Box<OutgoingInvite>),
    Ping(Target, oneshot::Sender<Pong>),
    Request(Box<OutRequest>, oneshot::Sender<Result<Answer, EndpointError>>),
    Drain(bool),
    Trunks(Box<Trunks>),
    Phones(Arc<PhoneBook>),
    Bindings(String, oneshot::Sender<Vec<Binding>>),
    /// Answered once no leg and no request of ours is left.
    Idle(oneshot::Sender<()>),
    Count(oneshot::Sender<usize>),
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

    /// Tries the TLS handshake with a target on a connection of its own, and tells what was agreed on, or why not.
    ///
    /// # Errors
    /// In words, when nobody listens or the peer does not prove its name. Waits at most 5 s.
    pub async fn handshake(&self, target: &Target) -> Result<String, String> {
        let (remote, name) = (target.remote, target.name);
        let shaking = async {
            let stream = TcpStream::connect(remote).await?;
            self.connector.connect(stream, name, remote).await
        };
        match tokio::time::timeout(HANDSHAKE_LIMIT, shaking).await {
            Ok(Ok(stream)) => Ok(agreed(&stream)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no handshake within {} s", HANDSHAKE_LIMIT.as_secs())),
        }
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

    /// Opens the registrar to these phones, or takes another list of them.
    ///
    /// # Errors
    /// When the endpoint is overloaded or has stopped.
    pub fn phones(&self, book: Arc<PhoneBook>) -> Result<(), EndpointError> {
        self.ask(Ask::Phones(book))
    }

    /// Where a registered phone is, the preferred contact first; nowhere when the endpoint has stopped.
    pub async fn bindings(&self, user: &str) -> Vec<Binding> {
        let (answer, bindings) = oneshot::channel();
        match self.ask(Ask::Bindings(user.to_owned(), answer)) {
            Ok(()) => bindings.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
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

/// Commands not yet handled; the endpoint takes them before anything else.
pub(super) const ASK_QUEUE: usize = 8_192;

/// Longest time [`EndpointHandle::handshake`] takes.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
