//! The listener: lets connections in, reads whose they are, and finds them their call.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use socket2::SockRef;
use tokio::net::TcpStream;
use tracing::{debug, warn};

use super::link::{Link, LinkEvent, LinkSettings};
use super::wire::{SocketWire, park};
use crate::config::{AudioSocket, Network};
use crate::id::CallId;
use crate::pbx::announce::NotExpected;
use crate::pbx::door::{Arrived, Guest, Label, Refusal, Whose};
use crate::pbx::{Awaited, Door, Lobby, Uuid, Wire, WireEnd};

/// The door's name, in records and metrics.
pub const DOOR: &str = "audiosocket";

/// What the listener is held to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may connect.
    pub allow: Vec<Network>,
    /// Whom those call whom nobody announced; absent: they are refused.
    pub number: Option<String>,
    /// What each connection is held to.
    pub link: LinkSettings,
    /// Most connections at a time.
    pub max_calls: usize,
}

impl From<&AudioSocket> for Settings {
    fn from(config: &AudioSocket) -> Self {
        Self {
            listen: config.listen,
            allow: config.allow.clone(),
            number: config.number.clone(),
            link: LinkSettings {
                rate: config.rate,
                uuid_timeout: config.uuid_timeout,
                idle_timeout: config.idle_timeout,
                ..LinkSettings::default()
            },
            max_calls: config.max_calls as usize,
        }
    }
}

/// How its connections are spoken of.
const LABEL: Label = Label {
    door: DOOR,
    connection: "an AudioSocket connection",
    counter: "tandem_audiosocket_connections_total",
};

/// Opens the door until the lobby is shut. Answers where it listens.
///
/// # Errors
/// When the address cannot be had.
pub async fn start(settings: Settings, lobby: Lobby) -> io::Result<SocketAddr> {
    let Settings { listen, allow, number, link, max_calls } = settings;
    let door = Arc::new(Door::new(LABEL, max_calls, lobby));
    let porter = Arc::new(Porter { door: Arc::clone(&door), number, link });
    door.listen(listen, allow, move |arrived| Arc::clone(&porter).receive(arrived)).await
}

/// Who receives the connections.
struct Porter {
    door: Arc<Door>,
    number: Option<String>,
    link: LinkSettings,
}

/// Why a connection became no call.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// It closed before it said whose it is.
    Probe,
    /// It is no AudioSocket, or said nothing.
    Protocol(String),
    /// Nobody announced it, and there is no number.
    Nobody,
    /// The door does not take it.
    Refused(Refusal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Failure {
    /// For the metric.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Protocol(_) => "protocol",
            Self::Nobody => Refusal::NotExpected(NotExpected::Unknown).outcome(),
            Self::Refused(refusal) => refusal.outcome(),
        }
    }

    fn tell(&self, source: SocketAddr) {
        match self {
            // The application connects before it looks whether its channel is answered.
            Self::Probe => debug!(%source, "an AudioSocket connection closed without a call"),
            Self::Protocol(problem) => {
                warn!(%source, problem, "a connection at the AudioSocket port is no call of Asterisk's");
            }
            Self::Nobody => warn!(
                %source,
                "an AudioSocket call that nobody announced is refused: announce its UUID before it is dialled, or \
                 set audiosocket.number to whom such calls are for"
            ),
            Self::Refused(refusal) => refusal.tell(LABEL, source),
        }
    }
}

impl Porter {
    /// One connection until a worker has it, or it is over.
    async fn receive(self: Arc<Self>, arrived: Arrived) {
        let Arrived { socket, source, place } = arrived;
        if let Err(error) = prepare(&socket) {
            debug!(%error, "an AudioSocket connection was closed as it came");
            return self.door.count("probe");
        }
        let mut wire = SocketWire::new(socket, Link::new(Instant::now(), self.link), place);
        let uuid = tokio::select! {
            named = named(&mut wire) => named,
            () = self.door.lobby().stop.cancelled() => Err(Refusal::Stopping.into()),
        };
        let whose = match uuid.and_then(|uuid| self.whose(&mut wire, uuid, source)) {
            Ok(whose) => whose,
            Err(failure) => {
                wire.hang_up();
                return self.failed(&failure, source);
            }
        };
        let Some(waiting) = wire.into_waiting() else { return self.door.count("probe") };
        let (parked, keeper) = park(waiting);
        match self.door.hand_over(whose, Box::new(parked)) {
            Ok(()) => self.door.count("taken"),
            Err(refusal) => return self.failed(&refusal.into(), source),
        }
        keeper.keep().await;
    }

    fn failed(&self, failure: &Failure, source: SocketAddr) {
        self.door.count(failure.outcome());
        failure.tell(source);
    }

    /// Whose connection it is. The silence begins here.
    fn whose(&self, wire: &mut SocketWire, uuid: Uuid, source: SocketAddr) -> Result<Whose, Failure> {
        let now = Instant::now();
        let reference = uuid.to_string();
        let arrival = self.door.lobby().announcements.take(now, &reference, source.ip());
        let whose = match (arrival, &self.number) {
            (Ok(arrival), _) => {
                if let (Some(rate), Some(link)) = (arrival.rate, wire.link()) {
                    link.set_rate(rate);
                }
                match arrival.who {
                    Awaited::Leg(media) => Whose::Leg(media),
                    Awaited::Call { called, caller } => guest(called, caller, reference, source),
                }
            }
            (Err(NotExpected::Unknown), Some(number)) => guest(number.clone(), None, reference, source),
            (Err(NotExpected::Unknown), None) => return Err(Failure::Nobody),
            (Err(error), _) => return Err(Refusal::from(error).into()),
        };
        if matches!(whose, Whose::Call(_)) {
            self.door.takes_calls()?;
        }
        // Asterisk's channel thread spins while it waits for its first frame, and hears nothing meanwhile.
        wire.send_silence(now);
        Ok(whose)
    }
}

/// A caller; the channel is answered.
fn guest(called: String, caller: Option<String>, reference: String, source: SocketAddr) -> Whose {
    let (call, source) = (CallId::fresh(), Some(source));
    Whose::Call(Guest { call, called, caller, reference, source, control: None })
}

/// Waits for the UUID.
async fn named(wire: &mut SocketWire) -> Result<Uuid, Failure> {
    let mut payload = Vec::new();
    loop {
        let Some(deadline) = wire.next_timeout() else { return Err(Failure::Probe) };
        let event = tokio::select! {
            event = poll_fn(|cx| wire.poll_link(cx, &mut payload)) => event,
            () = tokio::time::sleep_until(deadline.into()) => {
                match wire.handle_timeout(Instant::now()) {
                    Some(end) => LinkEvent::Ended(end),
                    None => continue,
                }
            }
        };
        return match event {
            LinkEvent::Named(uuid) => Ok(uuid),
            LinkEvent::Ended(WireEnd::Protocol(problem)) => Err(Failure::Protocol(problem)),
            LinkEvent::Ended(WireEnd::HungUp | WireEnd::Lost(_)) => Err(Failure::Probe),
            // There is none before the UUID.
            LinkEvent::Audio { .. } | LinkEvent::Digit(_) => continue,
        };
    }
}

/// Frames leave as they are written, and few of them wait in this machine: what waits cannot be taken back
/// when the caller speaks, and hides that the far end takes no more.
fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_send_buffer_size(SEND_BUFFER)
}

/// Bytes that may be in the system, with what is on its way; the system doubles it for its own needs. What may wait
/// for the network is less, see [`Link::new_unsent_limit`].
const SEND_BUFFER: usize = 32 * 1024;
