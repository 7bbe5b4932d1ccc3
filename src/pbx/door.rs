//! A door of a PBX's: who may come in by it, how many at a time, and what becomes of a connection once it is known
//! whose it is. What is said over the connection until then is the business of the door's protocol.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::announce::NotExpected;
use super::{Announcements, ChannelEvent, Control, LegParts, PendingMedia, PendingWire, Visitor};
use crate::config::Network;
use crate::id::{CallId, LegId};
use crate::telemetry::Seldom;

/// What all doors lead to. A handle.
#[derive(Debug, Clone)]
pub struct Lobby {
    /// Takes callers.
    pub visitors: mpsc::Sender<Visitor>,
    /// Who is expected. Expected legs get their connections.
    pub announcements: Announcements,
    /// No new calls from here on. Legs still get theirs: calls that go on may lose their medium, or get another leg.
    pub drain: CancellationToken,
    /// Nobody at all from here on. Connections that are calls by then go on.
    pub stop: CancellationToken,
    /// Listeners, and connections that are nobody's yet or nobody's any more.
    pub tasks: TaskTracker,
}

/// How a door is spoken of.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its section of the configuration, and its name in records.
    pub door: &'static str,
    /// A connection of it in a sentence, with its article.
    pub connection: &'static str,
    /// The metric that counts connections, by what becomes of them.
    pub counter: &'static str,
}

/// Why a door does not take a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody waits for it.
    #[error("{0}")]
    NotExpected(NotExpected),
    /// The calls are not kept up with.
    #[error("too many calls wait to be placed; try again in a second")]
    Busy,
    /// Whoever announced it waits no longer.
    #[error("the call it was for is over")]
    Deserted,
    /// The server drains or stops.
    #[error("the server is shutting down and takes no new calls")]
    Stopping,
}

impl From<NotExpected> for Refusal {
    fn from(problem: NotExpected) -> Self {
        match problem {
            // A caller of ARI's, say, who hung up while their audio was put in order: nobody's fault.
            NotExpected::Deserted => Self::Deserted,
            problem => Self::NotExpected(problem),
        }
    }
}

impl Refusal {
    /// For the metric.
    pub const fn outcome(self) -> &'static str {
        match self {
            Self::NotExpected(_) => "not_expected",
            Self::Busy => "busy",
            Self::Deserted => "deserted",
            Self::Stopping => "stopping",
        }
    }

    /// For the log.
    pub fn tell(self, label: Label, source: SocketAddr) {
        let connection = label.connection;
        match self {
            Self::Deserted => debug!(%source, "{connection} came for a call that is over"),
            Self::Stopping => debug!(%source, "{connection} closed without a call"),
            Self::Busy => warn!(%source, "{connection} is refused: too many calls wait to be placed"),
            Self::NotExpected(problem) => warn!(
                %source, %problem,
                "{connection} is refused: announce each call with a fresh key shortly before it is dialled"
            ),
        }
    }
}

/// A place among the connections of a door, and the runtime where a connection is seen off. The place is free again
/// when this is dropped.
#[derive(Debug)]
pub struct Place {
    runtime: Handle,
    /// The door waits for these before it is shut.
    tasks: Option<TaskTracker>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Of a connection that came by no door. `None` outside of a runtime.
    pub fn outside() -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        Some(Self { runtime, tasks: None, permit: None })
    }

    /// Goes on with the farewell of a connection where it came in: the worker it was on may end before the far end
    /// has read the goodbye.
    pub fn see_off(self, farewell: impl Future<Output = ()> + Send + 'static) {
        let Self { runtime, tasks, permit } = self;
        let whole = async move {
            farewell.await;
            drop(permit);
        };
        match tasks {
            Some(tasks) => tasks.spawn_on(whole, &runtime),
            None => runtime.spawn(whole),
        };
    }
}

/// A connection that has come, from an address that may come in.
pub struct Arrived {
    /// Itself.
    pub socket: TcpStream,
    /// Where from.
    pub source: SocketAddr,
    /// Its place.
    pub place: Place,
}

/// Whose a connection is.
pub enum Whose {
    /// A leg's that is there already: it is its medium.
    Leg(mpsc::Sender<PendingMedia>),
    /// A new call's.
    Call(Guest),
}

/// Who calls whom over a connection.
pub struct Guest {
    /// What the call will be called.
    pub call: CallId,
    /// Whom they call.
    pub called: String,
    /// Who they are; `None` when it is withheld or not told.
    pub caller: Option<String>,
    /// What the PBX calls the call.
    pub reference: String,
    /// Where the connection came from, if it came.
    pub source: Option<SocketAddr>,
    /// What answers the channel, and what that tells. Absent: it is answered.
    pub control: Option<(Box<dyn Control>, mpsc::Receiver<ChannelEvent>)>,
}

/// One door. Several ways may lead in by it: they share its places.
#[derive(Debug)]
pub struct Door {
    label: Label,
    max_calls: usize,
    places: Arc<Semaphore>,
    lobby: Lobby,
}

impl Door {
    /// A door with so many places.
    pub fn new(label: Label, max_calls: usize, lobby: Lobby) -> Self {
        Self { label, max_calls, places: Arc::new(Semaphore::new(max_calls)), lobby }
    }

    /// How it is spoken of.
    pub const fn label(&self) -> Label {
        self.label
    }

    /// Where it leads.
    pub const fn lobby(&self) -> &Lobby {
        &self.lobby
    }

    /// Most connections at a time.
    pub const fn max_calls(&self) -> usize {
        self.max_calls
    }

    /// One more connection, counted by what became of it.
    pub fn count(&self, outcome: &'static str) {
        metrics::counter!(self.label.counter, "outcome" => outcome).increment(1);
    }

    /// One of its places; `None` when all are taken. Runs on the ordinary runtime.
    pub fn place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let (runtime, tasks) = (Handle::current(), Some(self.lobby.tasks.clone()));
        Some(Place { runtime, tasks, permit: Some(permit) })
    }

    /// Whether new calls come in.
    ///
    /// # Errors
    /// [`Refusal::Stopping`].
    pub fn takes_calls(&self) -> Result<(), Refusal> {
        if self.lobby.drain.is_cancelled() { Err(Refusal::Stopping) } else { Ok(()) }
    }

    /// Hands a connection to whose it is. One that nobody takes is dropped, and hangs up.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn hand_over(&self, whose: Whose, wire: Box<dyn PendingWire>) -> Result<(), Refusal> {
        let medium = PendingMedia::Wire(wire);
        match whose {
            Whose::Leg(media) => media.try_send(medium).map_err(|_| Refusal::Deserted),
            Whose::Call(guest) => {
                let visitor = guest.with(self.label.door, medium);
                self.lobby.visitors.try_send(visitor).map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => Refusal::Busy,
                    mpsc::error::TrySendError::Closed(_) => Refusal::Stopping,
                })
            }
        }
    }

    /// Listens until the doors are shut; each connection of who may come in goes to `greet`. Answers where it listens;
    /// port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn listen<F>(
        self: Arc<Self>,
        listen: SocketAddr,
        allow: Vec<Network>,
        greet: impl Fn(Arrived) -> F + Send + 'static,
    ) -> io::Result<SocketAddr>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        info!(%address, door = self.label.door, "a door of the PBX is open");
        let tasks = self.lobby.tasks.clone();
        tasks.spawn(self.accept(listener, allow, greet));
        Ok(address)
    }

    async fn accept<F>(
        self: Arc<Self>,
        listener: TcpListener,
        allow: Vec<Network>,
        greet: impl Fn(Arrived) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let Label { door, connection, .. } = self.label;
        let lets_in = |source: IpAddr| allow.iter().any(|network| network.contains(source));
        let (mut strangers, mut full) = (Seldom::default(), Seldom::default());
        let mut upkeep = tokio::time::interval(UPKEEP);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = upkeep.tick() => {
                    self.lobby.announcements.expire(Instant::now());
                    continue;
                }
                () = self.lobby.stop.cancelled() => return,
            };
            let (socket, source) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No file descriptors left, most likely: calls that end give some back.
                    warn!(%error, "{connection} cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !lets_in(source.ip()) {
                self.count("stranger");
                if let Some(more) = strangers.due(Instant::now()) {
                    warn!(
                        source = %source.ip(), more,
                        "{connection} of a stranger is closed; if it is a PBX of yours, add its address to {door}.allow"
                    );
                }
                continue;
            }
            let Some(place) = self.place() else {
                self.count("full");
                if let Some(more) = full.due(Instant::now()) {
                    warn!(limit = self.max_calls, more, "{connection} is closed: {door}.max_calls are up");
                }
                continue;
            };
            self.lobby.tasks.spawn(greet(Arrived { socket, source, place }));
        }
    }
}

impl Guest {
    fn with(self, door: &'static str, medium: PendingMedia) -> Visitor {
        let Self { call, called, caller, reference, source, control } = self;
        let up = control.is_none();
        let (control, events) = match control {
            Some((control, events)) => (Some(control), events),
            None => (None, mpsc::channel(1).1),
        };
        let (sender, media) = mpsc::channel(1);
        // There is room for one, and the receiver is here.
        let _room = sender.try_send(medium);
        let leg = LegParts { id: LegId::fresh(), up, control, events, media };
        Visitor { call, door, called, caller, reference, source, leg }
    }
}

/// How often what has run out is let go of.
const UPKEEP: Duration = Duration::from_secs(1);
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
