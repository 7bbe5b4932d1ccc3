//! Legs that change calls: an INVITE that replaces one of ours, and parties that are joined across two calls.
//!
//! An attended transfer names a second dialog of the party that asks. When that dialog is ours as well, two calls
//! of this server become one: the one that is asked gets the other's party, whole, over to its own worker. What
//! travels hangs up when nobody takes it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Call;
use super::dial::{Party, Permit};
use super::ledger::Ending;
use super::leg::Detached;
use super::transfer::{Far, Outcome, Place};
use crate::event::Disposition;
use crate::id::LegId;
use crate::rtp::pacer::Pacer;
use crate::sip::endpoint::EndpointHandle;
use crate::sip::leg::{LegMedia, SipLeg};
use crate::sip::message::StatusCode;
use crate::sip::trunk::{ReferPolicy, Trunk};
use crate::sip::ua::{HangupReason, LegCommand, LegEvent, TransferNews};

/// Who comes to take the place of a leg.
#[derive(Debug)]
pub enum Newcomer {
    /// By an INVITE that is not answered yet.
    Arriving(Box<Arriving>),
    /// Out of another call.
    Party(Box<Parting>),
}

/// An INVITE that wants the place of one of our legs. Dropped, it is refused with 481.
pub struct Arriving {
    leg: LegId,
    endpoint: EndpointHandle,
    offer: Option<Vec<u8>>,
    media: LegMedia,
    trunk: Arc<Trunk>,
    /// Absent once it is decided.
    rest: Option<(mpsc::Receiver<LegEvent>, Permit)>,
}

impl Arriving {
    /// The INVITE of `leg`, whose events come by `events`.
    pub fn new(
        leg: LegId,
        endpoint: EndpointHandle,
        offer: Option<Vec<u8>>,
        media: LegMedia,
        trunk: Arc<Trunk>,
        (events, permit): (mpsc::Receiver<LegEvent>, Permit),
    ) -> Self {
        Self { leg, endpoint, offer, media, trunk, rest: Some((events, permit)) }
    }

    fn refuse(&mut self, status: StatusCode) {
        if self.rest.take().is_some() {
            let reject = LegCommand::Reject { status, reason: None, headers: Vec::new() };
            self.endpoint.command(self.leg, reject);
        }
    }

    /// Answers. `None`: its media does not suit, and it was told so.
    fn settle(mut self, pacer: Pacer) -> Option<Box<Party>> {
        let (mut events, permit) = self.rest.take()?;
        // Who gave up while its INVITE waited for us takes nobody's place.
        if !matches!(events.try_recv(), Err(mpsc::error::TryRecvError::Empty)) {
            return None;
        }
        let (endpoint, media) = (self.endpoint.clone(), self.media.clone());
        let leg = SipLeg::incoming(self.leg, endpoint, events, pacer, media, self.offer.as_deref());
        let mut leg = leg.ok()?;
        leg.answer();
        Some(Box::new(Party { leg: leg.into(), permit, trunk: Arc::clone(&self.trunk) }))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.refuse(StatusCode::CALL_DOES_NOT_EXIST);
    }
}

impl std::fmt::Debug for Arriving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Arriving").field(&self.leg).finish()
    }
}

/// A party on its way to another call.
#[derive(Debug)]
pub struct Parting {
    leg: Detached,
    permit: Permit,
    trunk: Arc<Trunk>,
}

impl Parting {
    /// `None`: its sockets were lost on the way, and it was hung up.
    pub(super) fn settle(self, pacer: Pacer) -> Option<Box<Party>> {
        let leg = self.leg.attach(pacer)?;
        Some(Box::new(Party { leg, permit: self.permit, trunk: self.trunk }))
    }
}

impl Party {
    /// Takes the party off this call. `None`: its sockets were lost, and it was hung up.
    pub(super) fn part(self) -> Option<Parting> {
        let leg = self.leg.detach()?;
        Some(Parting { leg, permit: self.permit, trunk: self.trunk })
    }
}

/// Who the party of a [`GiveUp`](super::handle::CallCommand::GiveUp) talks with.
#[derive(Debug)]
pub enum Partner {
    /// Somebody, who comes with this.
    Party(Box<Parting>),
    /// The flow, such as its assistant: whoever is to be joined with it must come here.
    Flow,
}

impl Newcomer {
    pub(super) fn refuse(self, status: StatusCode) {
        match self {
            Self::Arriving(mut arriving) => arriving.refuse(status),
            Self::Party(_) => {}
        }
    }

    pub(super) fn settle(self, pacer: Pacer) -> Option<Box<Party>> {
        match self {
            Self::Arriving(arriving) => arriving.settle(pacer),
            Self::Party(parting) => parting.settle(pacer),
        }
    }
}

impl Call {
    /// Somebody asks for the place of a leg.
    pub(super) fn replaced(&mut self, far: &mut Far, leg: LegId, with: Newcomer) -> Outcome {
        let far_trunk = far.as_ref().filter(|far| far.leg.id() == leg).map(|far| far.trunk.refer);
        let (place, policy) = match far_trunk {
            Some(policy) => (Place::Far, policy),
            None if leg == self.leg.id() && self.answered => (Place::Near, self.trunk.refer),
            None => return Outcome::Open,
        };
        // Whoever comes out of another call was asked for under the policy of this one.
        if policy == ReferPolicy::Refuse && matches!(with, Newcomer::Arriving(_)) {
            with.refuse(StatusCode::FORBIDDEN);
            return Outcome::Open;
        }
        let Some(third) = with.settle(self.leg.pacer().clone()) else { return Outcome::Open };
        metrics::counter!("tandem_transfers_total", "outcome" => "replaced").increment(1);
        // Whoever is replaced is not there to move the call any more.
        let _given_up = self.moving.take_if(|moving| moving.place() == place);
        self.note_joined(third.leg.id(), &third.trunk.name);
        let outcome = self.take_place(far, place, third, "replaced");
        // Whoever was to call the third party by itself is gone: then we do.
        let _open = self.referred(far, TransferNews::Refused(481));
        outcome
    }

    /// A party asks for the other one, to join it with that of another call.
    pub(super) fn give_up(&mut self, far: &mut Far, leg: LegId, answer: oneshot::Sender<Partner>) -> Outcome {
        let asks = far.as_ref().filter(|far| far.leg.id() == leg).map_or(&self.trunk, |far| &far.trunk);
        let refused = asks.refer == ReferPolicy::Refuse;
        if refused || self.moving.is_some() || !self.answered || answer.is_closed() {
            return Outcome::Open;
        }
        let Some(mut other) = far.take() else {
            if leg == self.leg.id() {
                // Who asked may have gone.
                let _gone = answer.send(Partner::Flow);
            }
            return Outcome::Open;
        };
        if leg == other.leg.id() {
            self.trade_places(&mut other);
        } else if leg != self.leg.id() {
            *far = Some(other);
            return Outcome::Open;
        }
        // A call that has gone meanwhile leaves its partner to be hung up with this.
        let _gone = self.part_with(*other).map(|parting| answer.send(Partner::Party(Box::new(parting))));
        self.left_alone()
    }

    /// The far party becomes the near one, and the other way round.
    pub(super) fn trade_places(&mut self, other: &mut Party) {
        std::mem::swap(&mut self.leg, &mut other.leg);
        std::mem::swap(&mut self.permit, &mut other.permit);
        std::mem::swap(&mut self.trunk, &mut other.trunk);
    }

    /// A party goes to another call.
    pub(super) fn part_with(&mut self, mut party: Party) -> Option<Parting> {
        // Music and prompts of this call stay behind.
        party.leg.clear();
        self.listed.disown(party.leg.id());
        self.note_leg_ended(&party.leg, 200, "joined with another call", "system");
        party.part()
    }

    /// The party that talked with both has nobody left here.
    pub(super) fn left_alone(&mut self) -> Outcome {
        self.leg.hang_up(HangupReason::normal());
        let reason = "joined with another call";
        self.end(Ending::new(Disposition::Completed, "system", 200, reason));
        Outcome::Over
    }
}
