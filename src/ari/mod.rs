//! ARI: channels of an Asterisk, controlled through its REST interface and followed by its events.
//!
//! ```text
//! Reader: event socket  ->  Shell: App (pure)  ->  Client: REST
//!                             |  ^        \----->  Visitor, ChannelEvent, media
//!                 LegControl -+  +-- AriHandle: calls, listening, sounds
//! ```
//!
//! [`app`] decides; [`model`] reads what the PBX says, [`request`] writes what it is asked; [`media`] makes our side
//! of the audio, over AudioSocket, RTP or WebSocket.

pub mod app;
pub mod client;
pub mod control;
pub mod events;
pub mod media;
pub mod model;
pub mod request;
pub mod settings;
pub mod shell;

pub use media::MediaParts;
pub use settings::{Access, Settings};
pub use shell::{AriError, AriHandle, DOOR, Status, start};
