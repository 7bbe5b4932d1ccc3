//! Who comes in by a door that is not SIP, and what legs towards a PBX are made of.

use std::net::SocketAddr;

use tokio::sync::mpsc;

use super::{ChannelEvent, Control, PendingWire};
use crate::id::{CallId, LegId};
use crate::rtp::media::DetachedMedia;

/// A caller at one of the PBX's doors, not yet anybody's call. Dropped, the parts of the leg hang up.
#[derive(Debug)]
pub struct Visitor {
    /// What the call will be called, if it becomes one.
    pub call: CallId,
    /// The door, as the record and the metrics name it: `audiosocket`, `asterisk_websocket`, `ari`.
    pub door: &'static str,
    /// Whom they called: an E.164 number or an extension, as the PBX has it.
    pub called: String,
    /// Their number or extension; `None` when it is withheld, or the door does not tell.
    pub caller: Option<String>,
    /// What the PBX calls the call: a UUID or a channel's id.
    pub reference: String,
    /// Where the connection came from, if the caller came with one.
    pub source: Option<SocketAddr>,
    /// Their leg.
    pub leg: LegParts,
}

/// What a PBX leg is made of. It crosses threads; the leg itself lives on one.
pub struct LegParts {
    /// Its name.
    pub id: LegId,
    /// Whether the far end is answered already (an AudioSocket always is).
    pub up: bool,
    /// The channel, where somebody controls it.
    pub control: Option<Box<dyn Control>>,
    /// What the channel tells; a sender that is dropped without a [`ChannelEvent::Gone`] tells nothing more.
    pub events: mpsc::Receiver<ChannelEvent>,
    /// The media, one after the other: the latest is the leg's. When the sender is dropped, none follows.
    pub media: mpsc::Receiver<PendingMedia>,
}

impl std::fmt::Debug for LegParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LegParts").field("id", &self.id).field("up", &self.up).finish_non_exhaustive()
    }
}

/// A medium that is on no worker yet.
pub enum PendingMedia {
    /// A connection of the PBX's.
    Wire(Box<dyn PendingWire>),
    /// RTP without signalling of its own.
    Rtp(Box<DetachedMedia>),
}

impl std::fmt::Debug for PendingMedia {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Wire(_) => "Wire",
            Self::Rtp(_) => "Rtp",
        })
    }
}
