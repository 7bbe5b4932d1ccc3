//! The listener: Asterisk connects to it for each call it dials as `WebSocket/<client-id>`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tracing::warn;

use super::client::{ConnectError, begin};
use super::control::controlled;
use super::protocol::MediaStart;
use super::request::{self, Rules, Wanted, judge};
use super::wire::{PendingSocket, buffers, tune};
use super::{LABEL, SUBPROTOCOL, fallback};
use crate::config::{AsteriskWebsocket, Network};
use crate::id::CallId;
use crate::pbx::door::{Arrived, Guest, Refusal, Whose};
use crate::pbx::{Awaited, Coding, Door};
use crate::web::homed::{Homed, Transport, WebSocket};

/// A connection whose channel has said what it is.
type Greeted = (Wanted, PendingSocket, Option<MediaStart>);

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
            fallback: fallback(config),
        })
    }
}

/// Lets connections in by `door` until it is shut. Answers where it listens.
///
/// # Errors
/// When the address cannot be had.
pub async fn start(settings: Settings, door: Arc<Door>) -> io::Result<SocketAddr> {
    let Settings { listen, allow, rules, number, fallback } = settings;
    let porter = Arc::new(Porter { door: Arc::clone(&door), rules, number, fallback });
    door.listen(listen, allow, move |arrived| Arc::clone(&porter).receive(arrived)).await
}

/// Who receives the connections.
struct Porter {
    door: Arc<Door>,
    rules: Rules,
    number: Option<String>,
    fallback: Coding,
}

/// Why a connection became no call.
#[derive(Debug)]
enum Failure {
    /// It is no WebSocket, or took too long.
    Handshake(String),
    /// Its request was refused.
    Request(request::Refusal),
    /// It ended before it began.
    Ended(String),
    /// It says nothing about whom it is for.
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
            Self::Handshake(_) => "handshake",
            Self::Request(refusal) => refusal.outcome(),
            Self::Ended(_) => "ended",
            Self::Nobody => "nobody",
            Self::Refused(refusal) => refusal.outcome(),
        }
    }

    fn tell(&self, source: SocketAddr) {
        match self {
            Self::Handshake(problem) | Self::Ended(problem) => {
                warn!(%source, problem, "a connection at the Asterisk WebSocket port became no call");
            }
            Self::Request(refusal) => {
                warn!(%source, status = refusal.status().as_u16(), "an Asterisk WebSocket is refused: {refusal}");
            }
            Self::Nobody => warn!(
                %source,
                "an Asterisk WebSocket call for nobody is refused: dial it with v(to=100), write the number behind \
                 the path of the uri, or set asterisk_websocket.number"
            ),
            Self::Refused(refusal) => refusal.tell(LABEL, source),
        }
    }
}

impl Porter {
    /// One connection until it is somebody's.
    async fn receive(self: Arc<Self>, arrived: Arrived) {
        let Arrived { socket, source, place } = arrived;
        let begun = tokio::select! {
            begun = self.greet(socket) => begun,
            () = self.door.lobby().stop.cancelled() => Err(Refusal::Stopping.into()),
        };
        let placed = begun.and_then(|(wanted, wire, start)| {
            let (whose, wire) = self.whose(wanted, start.as_ref(), source, wire.with_place(place))?;
            Ok(self.door.hand_over(whose, Box::new(wire))?)
        });
        match placed {
            Ok(()) => self.door.count("taken"),
            Err(failure) => {
                self.door.count(failure.outcome());
                failure.tell(source);
            }
        }
    }

    /// The handshake, and what the channel says of itself.
    async fn greet(&self, socket: TcpStream) -> Result<Greeted, Failure> {
        let handshake = |error: &dyn std::fmt::Display| Failure::Handshake(error.to_string());
        tune(&socket).map_err(|error| handshake(&error))?;
        let transport = Transport::Plain(Homed::from(socket));
        let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, self.shake_hands(transport)).await;
        let (socket, wanted) = shaken.map_err(|_| handshake(&"no WebSocket request came in time"))??;
        let (wire, start) = begin(socket, self.fallback, START_LIMIT).await.map_err(|error| match error {
            ConnectError::Ended(problem) => Failure::Ended(problem),
            other => Failure::Ended(other.to_string()),
        })?;
        Ok((wanted, wire, start))
    }

    async fn shake_hands(&self, transport: Transport) -> Result<(WebSocket, Wanted), Failure> {
        let mut judged = Ok(Wanted::default());
        #[expect(clippy::result_large_err, reason = "the handshake's own type")]
        let agree = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            judged = judge(&self.rules, request.uri(), request.headers());
            let Err(refusal) = &judged else {
                response.headers_mut().insert(PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
                return Ok(response);
            };
            let mut answer = ErrorResponse::new(Some(format!("{refusal}\n")));
            *answer.status_mut() = refusal.status();
            if *refusal == request::Refusal::Credentials {
                let challenge = HeaderValue::from_static("Basic realm=\"tandem\"");
                answer.headers_mut().insert("www-authenticate", challenge);
            }
            Err(answer)
        };
        let shaken = accept_hdr_async_with_config(transport, agree, Some(buffers())).await;
        let wanted = judged.map_err(Failure::Request)?;
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
        wire: PendingSocket,
    ) -> Result<(Whose, PendingSocket), Failure> {
        let (now, from) = (Instant::now(), source.ip());
        let announcements = &self.door.lobby().announcements;
        let channel = start.map(|start| start.channel_id.clone()).unwrap_or_default();
        let arrival = match &wanted.key {
            Some(key) => Some(announcements.take(now, key, from).map_err(Refusal::from)?),
            // Asterisk counts its channels: anybody could guess the next one's.
            None => announcements.take_leg(now, &channel, from).ok(),
        };
        let reference = wanted.key.unwrap_or(channel);
        let (called, caller) = match arrival.map(|arrival| arrival.who) {
            Some(Awaited::Leg(media)) => return Ok((Whose::Leg(media), wire)),
            Some(Awaited::Call { called, caller }) => (called, caller.or(wanted.caller)),
            None => {
                let called = wanted.called.or_else(|| self.number.clone()).ok_or(Failure::Nobody)?;
                (called, wanted.caller)
            }
        };
        self.door.takes_calls()?;
        let (control, wire) = controlled(wire, wanted.answer_later);
        let (call, source) = (CallId::fresh(), Some(source));
        Ok((Whose::Call(Guest { call, called, caller, reference, source, control }), wire))
    }
}

const PROTOCOL: &str = "sec-websocket-protocol";
/// Asterisk gives us half a second by default.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long `MEDIA_START` may take.
const START_LIMIT: Duration = Duration::from_secs(2);
