//! How everybody but the call's own task talks to a call: by bounded messages.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::dial::DialTarget;
use crate::id::CallId;

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
    },
    /// Move the call to somebody else: they are dialled, and take the callee's place once they answer.
    Transfer {
        /// Who asks: `api`.
        by: String,
        /// Whom to dial.
        to: DialTarget,
        /// Over which trunk.
        trunk: Option<String>,
        /// Told how it ends, if anybody wants to know.
        done: Option<oneshot::Sender<Result<(), String>>>,
    },
    /// Put a bridged call on hold, or take it back.
    Hold {
        /// Hold.
        on: bool,
    },
    /// Press keys towards the party (of a bridged call: the callee).
    Dtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digits: String,
    },
    /// The server drains: a call that is still ringing is refused with 503.
    Drain,
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

    /// Ends the call at once, politely if it can.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// The one shared table: live calls by id.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<DashMap<CallId, CallHandle>>);

impl Calls {
    /// Lists a call until the returned guard is dropped.
    pub fn enter(&self, handle: CallHandle) -> Listed {
        let id = handle.id;
        self.0.insert(id, handle);
        Listed { calls: self.clone(), id }
    }

    /// The live call of that id.
    pub fn get(&self, id: CallId) -> Option<CallHandle> {
        self.0.get(&id).map(|entry| entry.value().clone())
    }

    /// All live calls.
    pub fn all(&self) -> Vec<CallHandle> {
        self.0.iter().map(|entry| entry.value().clone()).collect()
    }

    /// How many calls are live.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no call is live.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Keeps a call in the table; owned by the call's task.
#[derive(Debug)]
pub struct Listed {
    calls: Calls,
    id: CallId,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.calls.0.remove(&self.id);
    }
}

const MAILBOX: usize = 64;
