//! Calls that are fetched: a channel of the dialplan's waits as `WebSocket/INCOMING`, somebody tells us its connection
//! id and whom it is for, and we connect to it.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::warn;

use super::client::{ClientSettings, ConnectError, connect};
use super::control::controlled;
use crate::id::CallId;
use crate::pbx::door::{Guest, Refusal, Whose};
use crate::pbx::{Door, Uuid};

/// Connects to channels that wait. A handle.
#[derive(Debug, Clone)]
pub struct Connector {
    settings: Arc<ClientSettings>,
    door: Arc<Door>,
    /// For those that are being connected to: an Asterisk that does not answer must not cost the door its places.
    openings: Arc<Semaphore>,
}

/// A call to be fetched.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its `MEDIA_WEBSOCKET_CONNECTION_ID`. Those of channels that wait for us are UUIDs; those of other channels are
    /// names out of websocket_client.conf, which anybody could guess.
    pub connection: Uuid,
    /// Whom it is for: a number or an extension.
    pub called: String,
    /// Who calls.
    pub caller: Option<String>,
    /// The channel was dialled with `n`, and is to be answered when the flow does.
    pub answer_later: bool,
}

/// A call that was fetched, and is being placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The call.
    pub call: CallId,
    /// The name and the id of its channel, when they came in time.
    pub channel: Option<(String, String)>,
}

/// Why a call was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum CannotFetch {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There are enough.
    #[error("all of asterisk_websocket.max_calls ({0}) are up; try again when one has ended, or raise it")]
    Full(usize),
    /// Asterisk takes long to answer.
    #[error(
        "{OPENINGS_MAX} calls are being fetched, and Asterisk has not answered yet; try again in a second"
    )]
    Slow,
    /// It was not taken.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl CannotFetch {
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.outcome(),
            Self::Full(_) => "full",
            Self::Slow => "slow",
            Self::Refused(refusal) => refusal.outcome(),
        }
    }
}

impl Connector {
    /// Fetches calls from that Asterisk. They have the places of those who come in by `door`.
    pub fn new(settings: ClientSettings, door: Arc<Door>) -> Self {
        Self { settings: Arc::new(settings), door, openings: Arc::new(Semaphore::new(OPENINGS_MAX)) }
    }

    /// Fetches a call. Runs on the ordinary runtime.
    ///
    /// # Errors
    /// [`CannotFetch`]. A channel that was connected to is hung up then.
    pub async fn fetch(&self, waiting: Waiting) -> Result<Fetched, CannotFetch> {
        let fetched = self.try_fetch(waiting).await;
        match &fetched {
            Ok(_) => self.door.count("taken"),
            Err(problem) => {
                self.door.count(problem.outcome());
                warn!(%problem, "a call that waits at Asterisk was not fetched");
            }
        }
        fetched
    }

    async fn try_fetch(&self, waiting: Waiting) -> Result<Fetched, CannotFetch> {
        let Waiting { connection, called, caller, answer_later } = waiting;
        self.door.takes_calls()?;
        let _opening = self.openings.try_acquire().map_err(|_| CannotFetch::Slow)?;
        let place = self.door.place().ok_or(CannotFetch::Full(self.door.max_calls()))?;
        let reference = connection.to_string();
        let connected = tokio::select! {
            connected = connect(&self.settings, &reference) => connected?,
            () = self.door.lobby().stop.cancelled() => return Err(Refusal::Stopping.into()),
        };
        // It may have taken a while.
        let wire = connected.wire.with_place(place);
        self.door.takes_calls()?;
        let (control, wire) = controlled(wire, answer_later);
        let call = CallId::fresh();
        let guest = Guest { call, called, caller, reference, source: None, control };
        self.door.hand_over(Whose::Call(guest), Box::new(wire))?;
        Ok(Fetched { call, channel: connected.start.map(|start| (start.channel, start.channel_id)) })
    }
}

/// Calls that are being connected to at a time.
const OPENINGS_MAX: usize = 32;
