//! Transactions: one request and its responses, made reliable (RFC 3261 section 17, RFC 6026).
//!
//! The four machines know nothing of messages: they see statuses and ready-made bytes, and say what to send and
//! when to be woken. [`TransactionTable`] finds the transaction a message belongs to and owns the machines.

mod client_invite;
mod client_non_invite;
mod matching;
mod server_invite;
mod server_non_invite;
mod table;
mod timers;

use bytes::Bytes;

pub use client_invite::InviteClient;
pub use client_non_invite::NonInviteClient;
pub(crate) use matching::tag_in;
pub use matching::{ClientKey, MergeKey, ServerKey};
pub use server_invite::InviteServer;
pub use server_non_invite::NonInviteServer;
pub use table::{Arrival, TableOutput, TransactionTable, TxEvent, TxId};
pub(crate) use table::{annotate, response_target};
pub use timers::{Resend, TimerValues};

/// What a client transaction is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientInput {
    /// A response that belongs to it.
    Response {
        /// Its status.
        status: u16,
        /// The ACK to send, for a 3xx-6xx to INVITE.
        ack: Option<Bytes>,
    },
    /// `next_timeout` has come.
    Timeout,
    /// The request could not be sent.
    TransportFailed,
}

/// What a client transaction wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOutput {
    /// Send this.
    Send(Bytes),
    /// Send this again.
    Resend(Bytes),
    /// Hand the response that was just given to the transaction user.
    Pass,
    /// No answer in time: a 408 for the transaction user (section 8.1.3.1).
    TimedOut,
    /// The transport failed: a 503 for the transaction user (section 8.1.3.1).
    TransportFailed,
}

/// What a server transaction is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerInput {
    /// The request came again.
    Repeat,
    /// An ACK that matches the INVITE.
    Ack,
    /// The transaction user answers.
    Respond {
        /// The status.
        status: u16,
        /// The whole response.
        response: Bytes,
    },
    /// `next_timeout` has come.
    Timeout,
}

/// What a server transaction wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerOutput {
    /// Send this.
    Send(Bytes),
    /// Send this again.
    Resend(Bytes),
    /// Hand the ACK that was just given to the transaction user.
    PassAck,
    /// A refusal was never acknowledged.
    NoAck,
}

/// The outputs of one step; a machine never has more than two.
#[derive(Debug)]
struct Outbox<T>([Option<T>; 2]);

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self([None, None])
    }
}

impl<T> Outbox<T> {
    fn push(&mut self, output: T) {
        match self.0.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(output),
            None => debug_assert!(false, "a machine was fed before it was polled dry"),
        }
    }

    fn pop(&mut self) -> Option<T> {
        let first = self.0[0].take();
        self.0.swap(0, 1);
        first
    }
}
