//! What a leg tells its call.

use std::time::{Duration, Instant};

use crate::audio::Codec;
use crate::rtp::ItemKey;
use crate::sip::ua::{Failure, TransferAsked, TransferNews};

/// What a leg tells its call.
#[derive(Debug, Clone, PartialEq)]
pub enum LegSignal {
    /// Audio of the party waits in [`super::SipLeg::take_audio`].
    Audio {
        /// When the oldest of it was read from the socket.
        since: Instant,
    },
    /// A slot has passed; what it put on the wire can be read with [`super::SipLeg::sent_frame`].
    Sent {
        /// When its packet was due.
        due: Instant,
        /// An item's audio was in it.
        item: bool,
    },
    /// A key was pressed.
    Dtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// `rtp`, `inband` or `info`.
        method: &'static str,
    },
    /// The first frame of an item has left.
    ItemStarted(ItemKey),
    /// The last frame of an item has left.
    ItemFinished {
        /// Which.
        item: ItemKey,
        /// All of it.
        played_ms: u64,
    },
    /// Hold, unhold or another codec, by the peer.
    MediaChanged {
        /// `active` or `held_by_peer`.
        state: &'static str,
        /// The codec we send now.
        codec: Codec,
    },
    /// All keys of [`super::SipLeg::send_dtmf`] have been sent.
    DtmfSent,
    /// While packets are relayed: the peer has switched to another codec that was agreed on, which may not be
    /// relayed as it is.
    CodecHeard(Codec),
    /// Outgoing call: the next hop has it.
    Trying,
    /// Outgoing call: it rings.
    Ringing {
        /// 101 to 199.
        status: u16,
    },
    /// Outgoing call: the callee may be heard before the answer.
    EarlyMedia,
    /// The dialog is confirmed: our 200 was acknowledged, or (outgoing) theirs arrived.
    Established,
    /// The peer asks for somebody else to be called in its place: [`super::SipLeg::accept_transfer`] or
    /// [`super::SipLeg::reject_transfer`].
    Transfer(Box<TransferAsked>),
    /// What becomes of our [`super::SipLeg::refer`].
    Transferring(TransferNews),
    /// The leg is over; nothing follows.
    HungUp(HangUp),
}

/// How a leg ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HangUp {
    /// What happened.
    pub cause: HangUpCause,
    /// The status that fits.
    pub status: u16,
    /// In words, from the peer where it gave any.
    pub reason: String,
    /// Q.850 cause of the peer's `Reason` header.
    pub cause_code: Option<u16>,
    /// Outgoing call: how long the peer asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Outgoing call: what the refusal said besides.
    pub failure: Option<Box<Failure>>,
}

/// What ended a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUpCause {
    /// The peer said BYE.
    Peer,
    /// The caller gave up before the answer.
    Cancelled,
    /// The callee refused, or was never reached.
    Refused,
    /// No RTP for longer than allowed.
    MediaTimeout,
    /// Signalling with the peer was lost, or it broke the protocol.
    Lost,
}
