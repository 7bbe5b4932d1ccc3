//! The listener: Asterisk connects to it for each call it dials as `WebSocket/<client-id>`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::SUBPROTOCOL;
use super::client::{ConnectError, begin};
use super::control::SocketControl;
use super::protocol::MediaStart;
use super::request::{Refusal, Rules, Wanted, judge};
use super::wire::{PendingSocket, buffers, tune};
use crate::config::{AsteriskWebsocket, Network};
use crate::id::LegId;
use crate::pbx::announce::NotExpected;
use crate::pbx::{Announcements, Awaited, Coding, LegParts, PendingMedia, Visitor};
use crate::telemetry::Seldom;
use crate::web::homed::{Homed, Transport, WebSocket};

/// The door's name, in records and metrics.
pub const DOOR: &str = "asterisk_websocket";

/// What the listener is held to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What a request must have.
    pub rules: Rules,
    /// Who may connect.
    pub allow: Vec<Network>,
    /// Whom those call who do not say; absent: they are refused.
    pub number: Option<String>,
    /// The coding until `MEDIA_START` tells.
    pub fallback: Coding,
    /// Most connections at a time.
    pub max_calls: usize,
}

impl Settings {
    /// The configured door; `None` when it is not open.
    pub fn of(config: &AsteriskWebsocket) -> Option<Self> {
        let password = config.password.as_ref().map(ExposeSecret::expose_secret);
        let credentials = config.username.as_deref().map(|user| (user, password.unwrap_or_default()));
        Some(Self {
            listen: config.listen?,
            rules: Rules::new(&config.path, credentials),
            allow: config.allow.clone(),
            number: config.number.clone(),
            fallback: Coding::from_asterisk(&config.format).unwrap_or(Coding::Linear(16_000)),
            max_calls: config.max_calls as usize,
        })
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
    info!(%address, "Asterisk's WebSocket channels are listened for");
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
#[derive(Debug)]
enum Failure {
    /// It is no WebSocket, or took too long.
    Handshake(String),
    /// Its request was refused.
    Refused(Refusal),
    /// It ended before it began.
    Ended(String),
    /// It says nothing about whom it is for.
    Nobody,
    /// Nobody waits for it.
    NotExpected(NotExpected),
    /// The calls are not kept up with.
    Busy,
    /// Whoever announced it waits no longer.
    Deserted,
    /// The server stops.
    Stopping,
}

impl Failure {
    /// For the metric.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "handshake",
            Self::Refused(refusal) => refusal.outcome(),
            Self::Ended(_) => "ended",
            Self::Nobody => "nobody",
            Self::NotExpected(_) => "not_expected",
            Self::Busy => "busy",
            Self::Deserted => "deserted",
            Self::Stopping => "stopping",
        }
    }

    fn tell(&self, source: SocketAddr) {
        match self {
            Self::Stopping | Self::Deserted => debug!(%source, "an Asterisk WebSocket closed without a call"),
            Self::Handshake(problem) | Self::Ended(problem) => {
                warn!(%source, problem, "a connection at the Asterisk WebSocket port became no call");
            }
            Self::Refused(refusal) => {
                warn!(%source, status = refusal.status().as_u16(), "an Asterisk WebSocket is refused: {refusal}");
            }
            Self::Nobody => warn!(
                %source,
                "an Asterisk WebSocket call for nobody is refused: dial it with v(to=100), write the number behind \
                 the path of the uri, or set asterisk_websocket.number"
            ),
            Self::NotExpected(problem) => warn!(
                %source, %problem,
                "an Asterisk WebSocket call is refused: announce each call with a fresh key shortly before it is dialled"
            ),
            Self::Busy => {
                warn!(%source, "an Asterisk WebSocket call is refused: too many calls wait to be placed");
            }
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
                    warn!(%error, "Asterisk WebSockets cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !self.lets_in(source.ip()) {
                count("stranger");
                if let Some(more) = strangers.due(Instant::now()) {
                    warn!(
                        source = %source.ip(), more,
                        "an Asterisk WebSocket of a stranger is closed; if it is a PBX of yours, add its address to \
                         asterisk_websocket.allow"
                    );
                }
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                count("full");
                if let Some(more) = full.due(Instant::now()) {
                    warn!(
                        limit = self.settings.max_calls,
                        more, "an Asterisk WebSocket is closed: asterisk_websocket.max_calls are up"
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

    /// One connection until it is somebody's.
    async fn receive(self: Arc<Self>, socket: TcpStream, source: SocketAddr, place: OwnedSemaphorePermit) {
        let begun = tokio::select! {
            begun = self.greet(socket) => begun,
            () = self.stop.cancelled() => Err(Failure::Stopping),
        };
        let placed = begun.and_then(|(wanted, wire, start)| {
            let whose = self.whose(wanted, start.as_ref(), source)?;
            self.hand_over(whose, wire.with_place(place, self.tasks.clone()), source)
        });
        match placed {
            Ok(()) => count("taken"),
            Err(failure) => {
                count(failure.outcome());
                failure.tell(source);
            }
        }
    }

    /// The handshake, and what the channel says of itself.
    async fn greet(&self, socket: TcpStream) -> Result<(Wanted, PendingSocket, Option<MediaStart>), Failure> {
        let handshake = |error: &dyn std::fmt::Display| Failure::Handshake(error.to_string());
        tune(&socket).map_err(|error| handshake(&error))?;
        let transport = Transport::Plain(Homed::from(socket));
        let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, self.shake_hands(transport)).await;
        let (socket, wanted) = shaken.map_err(|_| handshake(&"no WebSocket request came in time"))??;
        let (wire, start) =
            begin(socket, self.settings.fallback, START_LIMIT).await.map_err(|error| match error {
                ConnectError::Ended(problem) => Failure::Ended(problem),
                other => Failure::Ended(other.to_string()),
            })?;
        Ok((wanted, wire, start))
    }

    async fn shake_hands(&self, transport: Transport) -> Result<(WebSocket, Wanted), Failure> {
        let mut judged = Ok(Wanted::default());
        #[expect(clippy::result_large_err, reason = "the handshake's own type")]
        let agree = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            judged = judge(&self.settings.rules, request.uri(), request.headers());
            let Err(refusal) = &judged else {
                response.headers_mut().insert(PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
                return Ok(response);
            };
            let mut answer = ErrorResponse::new(Some(format!("{refusal}\n")));
            *answer.status_mut() = refusal.status();
            if *refusal == Refusal::Credentials {
                let challenge = HeaderValue::from_static("Basic realm=\"tandem\"");
                answer.headers_mut().insert("www-authenticate", challenge);
            }
            Err(answer)
        };
        let shaken = accept_hdr_async_with_config(transport, agree, Some(buffers())).await;
        let wanted = judged.map_err(Failure::Refused)?;
        let socket = shaken.map_err(|error| Failure::Handshake(error.to_string()))?;
        Ok((socket, wanted))
    }

    /// Whose connection it is: of the key in its request, of the leg that announced its channel, or of the number
    /// it is for.
    fn whose(
        &self,
        wanted: Wanted,
        start: Option<&MediaStart>,
        source: SocketAddr,
    ) -> Result<Whose, Failure> {
        let (now, from) = (Instant::now(), source.ip());
        let channel = start.map(|start| start.channel_id.clone()).unwrap_or_default();
        let arrival = match &wanted.key {
            Some(key) => Some(self.announcements.take(now, key, from).map_err(Failure::NotExpected)?),
            // Asterisk counts its channels: anybody could guess the next one's.
            None => self.announcements.take_leg(now, &channel, from).ok(),
        };
        let reference = wanted.key.unwrap_or(channel);
        let (called, caller) = match arrival.map(|arrival| arrival.who) {
            Some(Awaited::Leg(media)) => return Ok(Whose::Leg(media)),
            Some(Awaited::Call { called, caller }) => (called, caller.or(wanted.caller)),
            None => {
                let called = wanted.called.or_else(|| self.settings.number.clone()).ok_or(Failure::Nobody)?;
                (called, wanted.caller)
            }
        };
        if self.drain.is_cancelled() {
            return Err(Failure::Stopping);
        }
        Ok(Whose::Call { called, caller, reference, answer_later: wanted.answer_later })
    }

    /// A connection that nobody takes is dropped, and hangs up.
    fn hand_over(&self, whose: Whose, wire: PendingSocket, source: SocketAddr) -> Result<(), Failure> {
        match whose {
            Whose::Leg(media) => {
                media.try_send(PendingMedia::Wire(Box::new(wire))).map_err(|_| Failure::Deserted)
            }
            Whose::Call { called, caller, reference, answer_later } => {
                let visitor = visitor(called, caller, reference, Some(source), wire, answer_later);
                self.visitors.try_send(visitor).map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => Failure::Busy,
                    mpsc::error::TrySendError::Closed(_) => Failure::Stopping,
                })
            }
        }
    }
}

/// What a connection is for.
enum Whose {
    Leg(mpsc::Sender<PendingMedia>),
    Call { called: String, caller: Option<String>, reference: String, answer_later: bool },
}

/// A caller who comes with this connection. `answer_later`: the channel was dialled with `n`.
pub fn visitor(
    called: String,
    caller: Option<String>,
    reference: String,
    source: Option<SocketAddr>,
    wire: PendingSocket,
    answer_later: bool,
) -> Visitor {
    let (control, events, wire) = if answer_later {
        let (control, orders, events) = SocketControl::new();
        (Some(Box::new(control) as Box<dyn crate::pbx::Control>), events, wire.with_orders(orders))
    } else {
        (None, mpsc::channel(1).1, wire)
    };
    let (sender, media) = mpsc::channel(1);
    // There is room for one.
    let _room = sender.try_send(PendingMedia::Wire(Box::new(wire)));
    let leg = LegParts { id: LegId::fresh(), up: !answer_later, control, events, media };
    Visitor { door: DOOR, called, caller, reference, source, leg }
}

fn count(outcome: &'static str) {
    metrics::counter!("tandem_asterisk_websocket_connections_total", "outcome" => outcome).increment(1);
}

const PROTOCOL: &str = "sec-websocket-protocol";
/// Asterisk gives us half a second by default.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long `MEDIA_START` may take.
const START_LIMIT: Duration = Duration::from_secs(2);
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
