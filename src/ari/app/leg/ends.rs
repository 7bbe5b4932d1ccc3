//! How a leg ends: what the PBX says of its channel's end, as a cause and in words.
//!
//! A channel that was called and never answered is the delicate one. With a phone or a carrier behind it, its end has
//! the cause that came from there. With the dialplan behind it (a `Local/` channel whose extension is busy or
//! congested, or comes to its end) Asterisk ends it with cause 0, and only the `Dial` event before says why.

use super::{End, Leg, Origin};
use crate::ari::app::desk::Desk;
use crate::pbx::Departure;
use crate::telemetry::for_terminal;

impl Leg {
    /// What became of the call to it: `RINGING`, `ANSWER`, or why there is none.
    pub(in crate::ari::app) fn dialled(&mut self, status: &str, desk: &mut Desk) {
        match status {
            "RINGING" => self.ringing(desk),
            "BUSY" => self.dialled = Some(USER_BUSY),
            "NOANSWER" => self.dialled = Some(NO_ANSWER),
            "CONGESTION" => self.dialled = Some(CONGESTION),
            // Not registered, or not reachable.
            "CHANUNAVAIL" => self.dialled = Some(SUBSCRIBER_ABSENT),
            _ => {}
        }
    }

    /// It left the application.
    pub(in crate::ari::app) fn exited(&self) -> End {
        match self.hanging_up {
            _ if self.continued => End::Left,
            Some((_, cause)) => {
                let cause = cause.unwrap_or(0);
                let why = words(cause).filter(|_| cause != NORMAL_CLEARING);
                self.ended(cause, &why.map_or_else(|| "hung up".to_owned(), |why| format!("hung up: {why}")))
            }
            None => self.ended(NORMAL_CLEARING, "the PBX took the channel elsewhere"),
        }
    }

    /// It is no more.
    pub(in crate::ari::app) fn destroyed(&self, cause: u16, reason: &str, technical: Option<u16>) -> End {
        // `Unknown` is the PBX's word for cause 0.
        let said = Some(reason).filter(|said| cause != 0 && !said.is_empty());
        let cause = if cause == 0 && !self.up { self.dialled.unwrap_or(0) } else { cause };
        let mut reason = for_terminal(said.or_else(|| words(cause)).unwrap_or("the channel ended"));
        if let Some(code) = technical.filter(|code| *code != 0 && *code != 200) {
            reason.push_str(&format!(" ({code})"));
        }
        self.ended(cause, &reason)
    }

    pub(super) fn ended(&self, cause: u16, reason: &str) -> End {
        // Out of order, failed, congested, not available: that is the network's doing.
        let by_peer = !matches!(cause, 3 | 27 | 34 | 38 | 41..=44 | 47 | 58);
        let cause = match cause {
            0 if !self.up && self.origin == Origin::Called => NORMAL_UNSPECIFIED,
            0 => NORMAL_CLEARING,
            cause => cause,
        };
        End::Gone(Departure { cause, reason: reason.to_owned(), by_peer })
    }
}

pub(super) fn failed(reason: String) -> End {
    End::Drop(Departure { cause: 41, reason, by_peer: false })
}

/// What Q.850 calls a cause, where that says something to the reader of a record.
fn words(cause: u16) -> Option<&'static str> {
    Some(match cause {
        1 => "unallocated number",
        NORMAL_CLEARING => "normal clearing",
        USER_BUSY => "user busy",
        18 => "no user responding",
        NO_ANSWER => "no answer",
        SUBSCRIBER_ABSENT => "subscriber absent",
        21 => "call rejected",
        22 => "number changed",
        27 => "destination out of order",
        28 => "invalid number format",
        CONGESTION => "no circuit available",
        38 => "network out of order",
        41 => "temporary failure",
        44 => "channel unavailable",
        _ => return None,
    })
}

/// Q.850.
const NORMAL_CLEARING: u16 = 16;
const USER_BUSY: u16 = 17;
/// The user was alerted and did not answer.
const NO_ANSWER: u16 = 19;
const SUBSCRIBER_ABSENT: u16 = 20;
const NORMAL_UNSPECIFIED: u16 = 31;
/// No circuit or channel available.
const CONGESTION: u16 = 34;
