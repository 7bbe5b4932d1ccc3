//! What stands between a stream and the wire: nothing, or SRTP.

use std::time::Instant;

use crate::rtp::srtp::{SrtpKeys, SrtpSession};

/// Protects what leaves and checks what comes.
#[derive(Debug)]
pub(super) enum Guard {
    /// In the clear.
    Clear,
    /// SRTP both ways.
    Srtp(Box<SrtpSession>),
    /// The keys do not fit their suite: nothing passes, least of all in the clear.
    Shut,
}

impl Guard {
    pub(super) fn new(keys: Option<&SrtpKeys>) -> Self {
        match keys.map(SrtpSession::new) {
            None => Self::Clear,
            Some(Ok(session)) => Self::Srtp(Box::new(session)),
            Some(Err(_)) => Self::Shut,
        }
    }

    /// Takes the keys of a new offer and answer. The same ones go on as they were.
    pub(super) fn reconfigure(&mut self, keys: Option<&SrtpKeys>, now: Instant) {
        if let (Self::Srtp(session), Some(keys)) = (&mut *self, keys)
            && session.rekey(keys, now).is_ok()
        {
            return;
        }
        *self = Self::new(keys);
    }

    pub(super) fn is_clear(&self) -> bool {
        matches!(self, Self::Clear)
    }

    /// The packet of a datagram; `None` when it is not to be believed.
    pub(super) fn open<'a>(&mut self, now: Instant, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Clear => Some(datagram),
            Self::Srtp(session) => session.unprotect(now, datagram).ok(),
            Self::Shut => None,
        }
    }

    /// As [`open`](Self::open), of RTCP.
    pub(super) fn open_rtcp<'a>(&mut self, now: Instant, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Clear => Some(datagram),
            Self::Srtp(session) => session.unprotect_rtcp(now, datagram).ok(),
            Self::Shut => None,
        }
    }

    /// Makes a packet fit to be sent. `false`: it must not leave.
    pub(super) fn seal(&mut self, packet: &mut Vec<u8>) -> bool {
        match self {
            Self::Clear => {}
            Self::Srtp(session) => session.protect(packet),
            Self::Shut => packet.clear(),
        }
        !packet.is_empty()
    }

    /// As [`seal`](Self::seal), of RTCP.
    pub(super) fn seal_rtcp(&mut self, packet: &mut Vec<u8>) -> bool {
        match self {
            Self::Clear => {}
            Self::Srtp(session) => session.protect_rtcp(packet),
            Self::Shut => packet.clear(),
        }
        !packet.is_empty()
    }
}
