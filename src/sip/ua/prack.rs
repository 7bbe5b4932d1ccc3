//! Acknowledging reliable provisional responses as the caller (RFC 3262 section 4).

use std::time::Instant;

use super::legs::{Early, Fork};
use super::reply::{requires, takes};
use super::said::What;
use super::{LegEvent, UserAgent};
use crate::id::LegId;
use crate::sip::dialog::Dialog;
use crate::sip::headers::{HeaderName, HeaderValue};
use crate::sip::message::{Method, Response};
use crate::sip::transaction::{TxId, tag_in};

/// What a provisional response is, as far as its reliability goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provisional {
    /// Not reliable, or not to be taken as such.
    Plain,
    /// The next in order, to be acknowledged.
    Next(u32),
    /// Seen before, or one before it is missing: says nothing, and gets no PRACK.
    Ignored,
}

/// A PRACK that waits for the call's answer to the offer in the response.
#[derive(Debug)]
pub(super) struct HeldPrack {
    rack: HeaderValue,
}

impl UserAgent {
    /// The place of the early dialog a response belongs to, made if it is new. `None` without a To tag, or when there
    /// are too many.
    pub(super) fn fork_of(&mut self, id: LegId, tx: TxId, response: &Response) -> Option<usize> {
        let tag = tag_in(&response.headers, HeaderName::To)?;
        let call = self.outgoing_call(id)?;
        if let Some(at) = call.forks.iter().position(|fork| fork.dialog.remote_tag() == tag) {
            return Some(at);
        }
        if call.forks.len() >= FORKS_MAX {
            return None;
        }
        let dialog = Dialog::of_caller(self.table.sent_invite(tx)?, response).ok()?;
        let fork = Fork { dialog, last_rseq: None, takes_update: false, early: Early::default(), held: None };
        let call = self.outgoing_call(id)?;
        call.forks.push(fork);
        Some(call.forks.len() - 1)
    }

    /// Looks at `Require: 100rel` and RSeq of a 101-199, and takes the number if it is the next one.
    pub(super) fn reliability(&mut self, id: LegId, at: usize, response: &Response) -> Provisional {
        let Some(call) = self.outgoing_call(id) else { return Provisional::Plain };
        if !call.invite.reliable || !requires(&response.headers, "100rel") {
            return Provisional::Plain;
        }
        let Some(fork) = call.forks.get_mut(at) else { return Provisional::Plain };
        fork.takes_update |= takes(&response.headers, &Method::Update);
        let Ok(Some(rseq)) = response.headers.number(HeaderName::RSeq) else { return Provisional::Plain };
        if fork.last_rseq.is_some_and(|last| Some(rseq) != last.checked_add(1)) {
            return Provisional::Ignored;
        }
        fork.last_rseq = Some(rseq);
        Provisional::Next(rseq)
    }

    /// Acknowledges; with an offer in the response (of an INVITE that brought none) the call has to answer it first.
    /// Returns whether the response's description was such an offer.
    pub(super) fn acknowledge_provisional(
        &mut self,
        now: Instant,
        id: LegId,
        at: usize,
        rseq: u32,
        response: &Response,
        sdp: Option<&[u8]>,
    ) -> bool {
        let Ok(cseq) = response.headers.cseq() else { return false };
        let rack = HeaderValue::cleaned(format!("{rseq} {} INVITE", cseq.number));
        let Some(call) = self.outgoing_call(id) else { return false };
        let cancelled = call.cancel.is_some();
        let late = call.invite.sdp.is_none();
        let Some(fork) = call.forks.get_mut(at) else { return false };
        let offer = sdp.filter(|_| late && !fork.early.settled && !cancelled).map(<[u8]>::to_vec);
        if let Some(offer) = offer {
            fork.held = Some(HeldPrack { rack });
            self.tell_leg(id, LegEvent::EarlyOffer { offer });
            return true;
        }
        fork.early.settled |= sdp.is_some();
        self.send_prack(now, id, at, rack, None);
        false
    }

    fn send_prack(&mut self, now: Instant, id: LegId, at: usize, rack: HeaderValue, sdp: Option<Vec<u8>>) {
        let Some(fork) = self.outgoing_call(id).and_then(|call| call.forks.get(at)) else { return };
        let tag = fork.dialog.remote_tag().to_owned();
        let Some((mut prack, target)) = self.request_in(id, &tag, Method::Prack) else { return };
        prack.headers.push(HeaderName::RAck, rack);
        if let Some(sdp) = sdp {
            prack.set_body("application/sdp", sdp);
        }
        self.say(now, id, What::Prack, prack, target);
    }

    /// The call's answer to an offer in a reliable provisional response. Returns whether one waited for it.
    pub(super) fn answer_in_prack(&mut self, now: Instant, id: LegId, sdp: &[u8]) -> bool {
        let Some(call) = self.outgoing_call(id) else { return false };
        let mut forks = call.forks.iter_mut().enumerate();
        let Some((at, held)) = forks.find_map(|(at, fork)| Some((at, fork.held.take()?))) else {
            return false;
        };
        if let Some(fork) = call.forks.get_mut(at) {
            fork.early.settled = true;
            fork.early.local_sdp = Some(sdp.to_vec());
        }
        self.send_prack(now, id, at, held.rack, Some(sdp.to_vec()));
        true
    }
}

/// Early dialogs of one INVITE; more are followed only by their 2xx.
const FORKS_MAX: usize = 16;
