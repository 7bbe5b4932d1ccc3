//! The live feed: `GET /api/v1/events`, a WebSocket of JSON frames.
//!
//! [`session`] holds the protocol, [`socket`] the shell. Authentication is that of every request: a
//! token in the `Authorization` header, the server's own Unix socket, or a single-use ticket.

pub mod session;
pub mod socket;
