//! `chan_websocket`: an Asterisk sends one call's audio over a WebSocket, and plays what it gets from a queue.
//!
//! ```text
//! server: Asterisk connects to us     (dial string WebSocket/<client-id>)
//! client: we connect to Asterisk      (ws://asterisk:8088/media/<connection id>): for a leg of ARI's, or
//!         for a call of the dialplan's whose id the connector is told
//!            -> wire: on a media worker, binary messages = audio, text messages = protocol
//!                     -> queue: what Asterisk has played of what we sent
//! ```
//!
//! Asterisk owns the clock: every 20 ms it takes a frame off its queue. Whatever is in that queue is heard
//! later, so it is kept as short as the two clocks allow, and emptied when the caller interrupts.

pub mod client;
pub mod connector;
pub mod control;
pub mod protocol;
pub mod queue;
pub mod request;
pub mod server;
pub mod session;
pub mod wire;

use crate::config::AsteriskWebsocket;
use crate::pbx::door::Label;
use crate::pbx::{Coding, Door, Lobby};

/// The door's name, in records and metrics.
pub const DOOR: &str = "asterisk_websocket";

/// How its connections are spoken of.
const LABEL: Label = Label {
    door: DOOR,
    connection: "an Asterisk WebSocket",
    counter: "tandem_asterisk_websocket_connections_total",
};

/// The door that both ways of connecting lead in by, with so many places.
pub fn door(max_calls: usize, lobby: Lobby) -> Door {
    Door::new(LABEL, max_calls, lobby)
}

/// The coding of a channel that has not said its own.
fn fallback(config: &AsteriskWebsocket) -> Coding {
    Coding::from_asterisk(&config.format).unwrap_or(Coding::Linear(16_000))
}

/// The subprotocol that both sides must name.
const SUBPROTOCOL: &str = "media";

#[cfg(test)]
mod tests;
