//! Hold and transfer on one leg.

use super::SipLeg;
use crate::sip::message::StatusCode;
use crate::sip::sdp;
use crate::sip::ua::{LegCommand, Referral};

impl SipLeg {
    /// Puts the peer on hold by re-INVITE (RFC 3264 section 8.4), or takes it back.
    pub fn hold(&mut self, on: bool) {
        self.negotiation.set_direction(if on { sdp::Direction::SendOnly } else { sdp::Direction::SendRecv });
        let sdp = self.negotiation.offer();
        self.command(LegCommand::Reinvite { sdp });
    }

    /// Takes the peer's wish to move the call.
    pub fn accept_transfer(&self) {
        self.command(LegCommand::AcceptTransfer);
    }

    /// Refuses it.
    pub fn reject_transfer(&self, status: StatusCode) {
        self.command(LegCommand::RejectTransfer { status });
    }

    /// Tells the peer how its transfer is getting on; 200 and above is the last word.
    pub fn transfer_progress(&self, status: StatusCode) {
        self.command(LegCommand::TransferProgress { status, reason: None });
    }

    /// Asks the peer to call somebody else.
    pub fn refer(&self, referral: Referral) {
        self.command(LegCommand::Refer(Box::new(referral)));
    }
}
