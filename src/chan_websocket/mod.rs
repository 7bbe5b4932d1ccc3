//! `chan_websocket`: an Asterisk sends one call's audio over a WebSocket, and plays what it gets from a queue.
//!
//! ```text
//! server: Asterisk connects to us     (dial string WebSocket/<client-id>)
//! client: we connect to Asterisk      (ws://asterisk:8088/media/<connection id>)
//!            -> wire: on a media worker, binary messages = audio, text messages = protocol
//!                     -> queue: what Asterisk has played of what we sent
//! ```
//!
//! Asterisk owns the clock: every 20 ms it takes a frame off its queue. Whatever is in that queue is heard
//! later, so it is kept as short as the two clocks allow, and emptied when the caller interrupts.

pub mod client;
pub mod control;
pub mod protocol;
pub mod queue;
pub mod request;
pub mod server;
pub mod session;
pub mod wire;

/// The subprotocol that both sides must name.
const SUBPROTOCOL: &str = "media";

#[cfg(test)]
mod tests;
