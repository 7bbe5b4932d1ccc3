//! ARI: channels of an Asterisk, controlled through its REST interface and followed by its events.
//!
//! ```text
//! events  ->  shell: App (pure)  ->  client: REST
//!               |  \-> Visitor, ChannelEvent, media
//! control ------/
//! ```
//!
//! [`app`] decides, [`model`] reads what the PBX says, [`request`] writes what it is asked.

pub mod app;
pub mod model;
pub mod request;
