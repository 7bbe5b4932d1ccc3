//! AudioSocket: an Asterisk connects by TCP and sends one call's audio in small framed messages.
//!
//! ```text
//! TCP  ->  codec: messages  ->  link: one session  ->  wire: a leg's audio on its worker
//!          server: lets connections in, reads whose they are, keeps them alive until a worker has them
//! ```
//!
//! The protocol says nothing of a call but a UUID: what it stands for was announced
//! ([`crate::pbx::Announcements`]), or the configuration names a number for those that nobody announced.

pub mod codec;
mod kinds;
pub mod link;
pub mod server;
pub mod wire;

#[cfg(test)]
mod tests;
