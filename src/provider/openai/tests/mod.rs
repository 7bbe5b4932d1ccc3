//! Sessions against a WebSocket server inside the test, one that does what it is told.

mod handshake;
mod server;
mod session;
