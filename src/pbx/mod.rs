//! Legs towards a PBX that are not SIP: audio on a connection of the PBX's, and a channel that may be told
//! things.
//!
//! ```text
//! audiosocket, chan_websocket, RTP  ->  Wire: bytes of audio in and out, keys, the end
//! ari                               ->  Control: ring, answer, hold, keys, back to the dialplan
//!                        PbxLeg  =  a stream of samples + a Wire (or RTP) + perhaps a Control
//! ```
//!
//! A leg begins with or without its media: a channel of ARI's is there before anything is heard of it.
//! [`PcmStream`] is the core: it turns payloads into bridge samples whose count is elapsed time, and slots
//! into payloads. [`PbxLeg`] is the shell on a media worker, with the face that a SIP leg has. [`Door`] is what
//! the listeners share: who may come in, how many at a time, and what becomes of them.

pub mod announce;
pub mod coding;
pub mod control;
pub mod door;
pub mod leg;
pub mod media;
pub mod pace;
pub mod stream;
pub mod uuid;
pub mod visitor;
pub mod wire;

pub use announce::{Announcement, Announcements, Awaited};
pub use coding::Coding;
pub use control::{ChannelEvent, Control, Departure, Exit, Originate, OutgoingChannel};
pub use door::{Door, Lobby};
pub use leg::{DetachedPbxLeg, PbxLeg, PbxSignal};
pub use media::PbxSettings;
pub use stream::PcmStream;
pub use uuid::Uuid;
pub use visitor::{LegParts, PendingMedia, Visitor};
pub use wire::{PendingWire, Wire, WireEnd, WireEvent};
