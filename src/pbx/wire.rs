//! Where the audio of a PBX leg comes from and goes to.

use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Coding;

/// One connection that carries a leg's audio, on the leg's worker. Dropped, it is closed without a goodbye.
pub trait Wire {
    /// How payloads are coded, in both directions. It may change with a [`WireEvent::Audio`]; the next
    /// payload to be sent is then of the new one.
    fn coding(&self) -> Coding;

    /// The next thing from the far end. For [`WireEvent::Audio`] `payload` is replaced by what came, whole
    /// samples in [`Self::coding`]; otherwise it is left alone. Cancel-safe. Bounded work: a flood must not
    /// starve the slots (wake and return pending after some reads).
    fn poll(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<WireEvent>;

    /// How many slots to send now, at a tick of the 20 ms grid: 1, unless the far end has a queue of its own
    /// that wants filling (2, 3) or is full (0).
    fn due(&mut self, _now: Instant) -> u32 {
        1
    }

    /// Sends the payload of one slot, in one write; what the connection does not take now is dropped whole,
    /// never cut. `voice` is false when nothing but silence is in it. It never waits.
    fn send(&mut self, now: Instant, payload: &[u8], voice: bool);

    /// Barge-in: what waits at the far end is dropped there. Answers how much of what was sent will therefore
    /// not be heard. A far end without a queue has none.
    fn flush(&mut self, _now: Instant) -> Duration {
        Duration::ZERO
    }

    /// Says goodbye in the protocol's way. The call to [`Self::poll`] is over after that.
    fn hang_up(&mut self);

    /// When [`Self::poll`] wants to be called although nothing came: for time-outs. The leg keeps the clock.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// That time has come. Answers the end, if that is what it means.
    fn handle_timeout(&mut self, _now: Instant) -> Option<WireEnd> {
        None
    }

    /// Takes the connection off this thread.
    ///
    /// # Errors
    /// When the runtime does not give its socket back; it is closed then.
    fn detach(self: Box<Self>) -> io::Result<Box<dyn PendingWire>>;
}

/// A connection that is on no worker yet, or on its way to another one. Dropped, it is closed.
pub trait PendingWire: Send {
    /// Goes on at this thread.
    ///
    /// # Errors
    /// When the runtime takes no more sockets.
    fn attach(self: Box<Self>) -> io::Result<Box<dyn Wire>>;
}

/// What comes over a wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireEvent {
    /// A payload, read at `since`.
    Audio {
        /// Of the read from the socket.
        since: Instant,
    },
    /// A key was pressed: `0`-`9`, `*`, `#`, `A`-`D`.
    Digit(char),
    /// It is over. Nothing follows.
    Closed(WireEnd),
}

/// How a wire ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireEnd {
    /// The far end hung up in its way.
    HungUp,
    /// The connection is gone; in words, how.
    Lost(String),
    /// The far end broke the protocol; in words, how.
    Protocol(String),
}
