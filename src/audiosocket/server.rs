//! The listener: lets connections in, reads whose they are, and finds them their call.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::link::{Link, LinkEvent, LinkSettings};
use super::wire::{Home, SocketWire, park};
use crate::config::{AudioSocket, Network};
use crate::id::LegId;
use crate::pbx::announce::NotExpected;
use crate::pbx::{Announcements, Awaited, LegParts, PendingMedia, Uuid, Visitor, Wire, WireEnd};
use crate::telemetry::Seldom;

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

/// Listens until `stop`; connections that are calls by then go on. Callers go to `visitors`, the media of
/// legs to those who announced them. From `drain` on only the latter come in: calls that go on may lose their
/// medium, or get another leg. Answers where it listens.
///
/// # Errors
/// When the address cannot be had.
pub async fn start(
    settings: Settings,
    visitors: mpsc::Sender<Visitor>,
    announcements: Announcements,
    drain: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(settings.listen).await?;
    let address = listener.local_addr()?;
    let places = Arc::new(Semaphore::new(settings.max_calls));
    let door = Arc::new(Door { settings, visitors, announcements, tasks: tasks.clone(), drain, stop });
    info!(%address, "AudioSocket is listened for");
    tasks.spawn(door.listen(listener, places));
    Ok(address)
}

/// What all connections share.
struct Door {
    settings: Settings,
    visitors: mpsc::Sender<Visitor>,
    announcements: Announcements,
    tasks: TaskTracker,
    /// No new calls.
    drain: CancellationToken,
    stop: CancellationToken,
}

/// Why a connection became no call.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It closed before it said whose it is.
    Probe,
    /// It is no AudioSocket, or said nothing.
    Protocol(String),
    /// Nobody waits for it.
    NotExpected(NotExpected),
    /// The calls are not kept up with.
    Busy,
    /// Whoever announced it waits no longer.
    Deserted,
    /// The server stops.
    Stopping,
}

impl Refusal {
    /// For the metric.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Protocol(_) => "protocol",
            Self::NotExpected(_) => "not_expected",
            Self::Busy => "busy",
            Self::Deserted => "deserted",
            Self::Stopping => "stopping",
        }
    }
}

impl Door {
    async fn listen(self: Arc<Self>, listener: TcpListener, places: Arc<Semaphore>) {
        let (mut strangers, mut full) = (Seldom::default(), Seldom::default());
        let mut upkeep = tokio::time::interval(Duration::from_secs(1));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = upkeep.tick() => {
                    self.announcements.expire(Instant::now());
                    continue;
                }
                () = self.stop.cancelled() => return,
            };
            let (socket, source) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No file descriptors left, most likely: calls that end give some back.
                    warn!(%error, "AudioSocket connections cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !self.lets_in(source.ip()) {
                count("stranger");
                if let Some(more) = strangers.due(Instant::now()) {
                    warn!(
                        source = %source.ip(), more,
                        "an AudioSocket connection of a stranger is closed; if it is a PBX of yours, add its \
                         address to audiosocket.allow"
                    );
                }
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                count("full");
                if let Some(more) = full.due(Instant::now()) {
                    warn!(
                        limit = self.settings.max_calls,
                        more, "an AudioSocket connection is closed: audiosocket.max_calls are up"
                    );
                }
                continue;
            };
            self.tasks.spawn(Arc::clone(&self).receive(socket, source, place));
        }
    }

    fn lets_in(&self, source: IpAddr) -> bool {
        self.settings.allow.iter().any(|network| network.contains(source))
    }

    /// One connection until a worker has it, or it is over.
    async fn receive(self: Arc<Self>, socket: TcpStream, source: SocketAddr, place: OwnedSemaphorePermit) {
        if let Err(error) = prepare(&socket) {
            debug!(%error, "an AudioSocket connection was closed as it came");
            return count("probe");
        }
        let home = Home { runtime: Handle::current(), tasks: self.tasks.clone(), _place: place };
        let mut wire = SocketWire::new(socket, Link::new(Instant::now(), self.settings.link), home);
        let uuid = tokio::select! {
            named = named(&mut wire) => named,
            () = self.stop.cancelled() => Err(Refusal::Stopping),
        };
        match uuid.and_then(|uuid| self.place(&mut wire, uuid, source)) {
            Err(refusal) => {
                count(refusal.outcome());
                tell(&refusal, source);
                wire.hang_up();
            }
            Ok(whose) => {
                let Some(waiting) = wire.into_waiting() else { return count("probe") };
                let (parked, keeper) = park(waiting);
                match whose.hand_over(parked, &self, source) {
                    Ok(()) => count("taken"),
                    Err(refusal) => {
                        count(refusal.outcome());
                        tell(&refusal, source);
                        return;
                    }
                }
                keeper.keep().await;
            }
        }
    }

    /// Whose connection it is. The silence begins here.
    fn place(&self, wire: &mut SocketWire, uuid: Uuid, source: SocketAddr) -> Result<Whose, Refusal> {
        let now = Instant::now();
        let reference = uuid.to_string();
        let arrival = self.announcements.take(now, &reference, source.ip());
        let whose = match (arrival, &self.settings.number) {
            (Ok(arrival), _) => {
                if let (Some(rate), Some(link)) = (arrival.rate, wire.link()) {
                    link.set_rate(rate);
                }
                match arrival.who {
                    Awaited::Leg(media) => Whose::Leg(media),
                    Awaited::Call { called, caller } => Whose::Call { called, caller, reference },
                }
            }
            (Err(NotExpected::Unknown), Some(number)) => {
                Whose::Call { called: number.clone(), caller: None, reference }
            }
            (Err(error), _) => return Err(Refusal::NotExpected(error)),
        };
        if matches!(whose, Whose::Call { .. }) && self.drain.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        // Asterisk's channel thread spins while it waits for its first frame, and hears nothing meanwhile.
        wire.send_silence(now);
        Ok(whose)
    }
}

/// What a connection is for.
enum Whose {
    Leg(mpsc::Sender<PendingMedia>),
    Call { called: String, caller: Option<String>, reference: String },
}

impl Whose {
    /// A connection that nobody takes is dropped, and hangs up.
    fn hand_over(self, parked: super::wire::Parked, door: &Door, source: SocketAddr) -> Result<(), Refusal> {
        let medium = PendingMedia::Wire(Box::new(parked));
        match self {
            Self::Leg(media) => media.try_send(medium).map_err(|_| Refusal::Deserted),
            Self::Call { called, caller, reference } => {
                let (_, events) = mpsc::channel(1);
                let (sender, media) = mpsc::channel(1);
                sender.try_send(medium).map_err(|_| Refusal::Deserted)?;
                let leg = LegParts { id: LegId::fresh(), up: true, control: None, events, media };
                let visitor = Visitor { door: DOOR, called, caller, reference, source: Some(source), leg };
                door.visitors.try_send(visitor).map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => Refusal::Busy,
                    mpsc::error::TrySendError::Closed(_) => Refusal::Stopping,
                })
            }
        }
    }
}

/// Waits for the UUID.
async fn named(wire: &mut SocketWire) -> Result<Uuid, Refusal> {
    let mut payload = Vec::new();
    loop {
        let Some(deadline) = wire.next_timeout() else { return Err(Refusal::Probe) };
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
            LinkEvent::Ended(WireEnd::Protocol(problem)) => Err(Refusal::Protocol(problem)),
            LinkEvent::Ended(WireEnd::HungUp | WireEnd::Lost(_)) => Err(Refusal::Probe),
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

fn tell(refusal: &Refusal, source: SocketAddr) {
    match refusal {
        // The application connects before it looks whether its channel is answered.
        Refusal::Probe | Refusal::Stopping => {
            debug!(%source, "an AudioSocket connection closed without a call")
        }
        Refusal::Protocol(problem) => {
            warn!(%source, problem, "a connection at the AudioSocket port is no call of Asterisk's");
        }
        Refusal::NotExpected(NotExpected::Unknown) => warn!(
            %source,
            "an AudioSocket call that nobody announced is refused: announce its UUID before it is dialled, or \
             set audiosocket.number to whom such calls are for"
        ),
        Refusal::NotExpected(problem) => warn!(
            %source, %problem,
            "an AudioSocket call is refused: announce each call with a fresh UUID shortly before it is dialled"
        ),
        Refusal::Busy => warn!(%source, "an AudioSocket call is refused: too many calls wait to be placed"),
        Refusal::Deserted => debug!(%source, "an AudioSocket connection came for a call that is over"),
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("tandem_audiosocket_connections_total", "outcome" => outcome).increment(1);
}

/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that may be in the system, with what is on its way; the system doubles it for its own needs. What may wait
/// for the network is less, see [`Link::new_unsent_limit`].
const SEND_BUFFER: usize = 32 * 1024;
