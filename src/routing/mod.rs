//! What happens to an inbound call: who is called ([`directory`]), which steps follow ([`flow`]), and
//! the switchboard that takes each INVITE from its arrival to its place on a media worker.

pub mod dialer;
pub mod directory;
pub mod doors;
pub mod flow;
pub mod lines;
pub mod media;
mod onward;
pub mod outbound;
mod phones;
pub mod plan;
pub mod switchboard;
