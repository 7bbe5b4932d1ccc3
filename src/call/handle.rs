//! How everybody but the call's own task talks to a call: by bounded messages.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::dial::DialTarget;
use super::replace::{Newcomer, Partner};
use crate::id::{CallId, LegId};

/// What the API, the CLI and other calls may ask of a call.
#[derive(Debug)]
pub enum CallCommand {
    /// End the call with a BYE (or a final response, if it was never answered).
    End {
        /// Who asks: `api`, `system`.
        by: String,
        /// In words, for the record.
        reason: String,
    },
    /// Let the assistant say these words.
    Say {
        /// What to say.
        text: String,
        /// Told whether there is an assistant.
        taken: Taken,
    },
    /// Move the call to somebody else: they are dialled, and take the place of the callee (or of the flow) once
    /// they answer. A number of ours has its flow go on with the caller.
    Transfer {
        /// Whom to dial.
        to: DialTarget,
        /// Over which trunk.
        trunk: Option<String>,
        /// Told whether it is tried; how it ends is in the record.
        taken: Taken,
    },
    /// Put a bridged call on hold, or take it back.
    Hold {
        /// Hold.
        on: bool,
        /// Told whether the call is bridged.
        taken: Taken,
    },
    /// Press keys towards the party (of a bridged call: the callee).
    Dtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digits: String,
        /// Told whether there is a party.
        taken: Taken,
    },
    /// Somebody takes the place of one of the call's legs (RFC 3891). Not taken, the newcomer is refused.
    Replace {
        /// Which leg.
        leg: LegId,
        /// By whom.
        with: Newcomer,
    },
    /// A party that talks with both asks for the call's other party, to join it with that of another call.
    GiveUp {
        /// The leg of the party that asks.
        leg: LegId,
        /// Dropped: there is nothing to join.
        answer: oneshot::Sender<Partner>,
    },
    /// The server drains: a call that is still ringing is refused with 503.
    Drain,
}

/// Tells whoever gave a command whether the call takes it. Dropped, it says no.
#[derive(Debug)]
pub struct Taken(oneshot::Sender<Result<(), &'static str>>);

impl Taken {
    /// One to put into a command, and where the answer comes: why not, in words.
    pub fn ask() -> (Self, oneshot::Receiver<Result<(), &'static str>>) {
        let (tell, told) = oneshot::channel();
        (Self(tell), told)
    }

    pub(super) fn yes(self) {
        // Who asked may have gone.
        let _gone = self.0.send(Ok(()));
    }

    pub(super) fn no(self, why: &'static str) {
        // Who asked may have gone.
        let _gone = self.0.send(Err(why));
    }
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The call has ended.
    #[error("the call has ended")]
    Gone,
    /// The call's mailbox is full; it is not keeping up.
    #[error("the call is busy; try again")]
    Busy,
}

/// A live call, as others see it.
#[derive(Debug, Clone)]
pub struct CallHandle {
    id: CallId,
    mailbox: mpsc::Sender<CallCommand>,
    cancel: CancellationToken,
}

impl CallHandle {
    /// A handle, and the mailbox its call reads.
    pub fn new(id: CallId, cancel: CancellationToken) -> (Self, mpsc::Receiver<CallCommand>) {
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        (Self { id, mailbox, cancel }, inbox)
    }

    /// Which call.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Puts a command into the call's mailbox.
    ///
    /// # Errors
    /// [`CommandError::Gone`] after the end, [`CommandError::Busy`] when the mailbox is full.
    pub fn command(&self, command: CallCommand) -> Result<(), CommandError> {
        self.mailbox.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::Gone,
        })
    }

    /// Ends the call when it is cancelled.
    pub fn stop_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Ends the call at once, politely if it can.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// The one shared table: live calls by id, and which leg is whose.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Tables>);

#[derive(Debug, Default)]
struct Tables {
    calls: DashMap<CallId, CallHandle>,
    legs: DashMap<LegId, CallId>,
}

impl Calls {
    /// Lists a call until the returned guard is dropped.
    pub fn enter(&self, handle: CallHandle) -> Listed {
        let id = handle.id;
        self.0.calls.insert(id, handle);
        Listed { calls: self.clone(), id, legs: Vec::new() }
    }

    /// The live call of that id.
    pub fn get(&self, id: CallId) -> Option<CallHandle> {
        self.0.calls.get(&id).map(|entry| entry.value().clone())
    }

    /// The live call that leg belongs to.
    pub fn of_leg(&self, leg: LegId) -> Option<CallHandle> {
        let call = *self.0.legs.get(&leg)?.value();
        self.get(call)
    }

    /// All live calls.
    pub fn all(&self) -> Vec<CallHandle> {
        self.0.calls.iter().map(|entry| entry.value().clone()).collect()
    }

    /// How many calls are live.
    pub fn len(&self) -> usize {
        self.0.calls.len()
    }

    /// Whether no call is live.
    pub fn is_empty(&self) -> bool {
        self.0.calls.is_empty()
    }
}

/// Keeps a call in the table; owned by the call's task.
#[derive(Debug)]
pub struct Listed {
    calls: Calls,
    id: CallId,
    legs: Vec<LegId>,
}

impl Listed {
    /// This leg is the call's from now on.
    pub(super) fn own(&mut self, leg: LegId) {
        self.calls.0.legs.insert(leg, self.id);
        self.legs.push(leg);
    }

    /// This leg is over, or another call's.
    pub(super) fn disown(&mut self, leg: LegId) {
        self.legs.retain(|own| *own != leg);
        self.calls.0.legs.remove_if(&leg, |_, call| *call == self.id);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        for leg in std::mem::take(&mut self.legs) {
            self.disown(leg);
        }
        self.calls.0.calls.remove(&self.id);
    }
}

/// Commands that may wait for a call; it reads them within a slot.
const MAILBOX: usize = 64;
