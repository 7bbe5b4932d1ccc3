//! Offers before the call is answered: in PRACK and UPDATE, both ways (RFC 3262 section 5, RFC 3311 section 5).

use std::time::Instant;

use super::checks::session_description;
use super::command::HangupReason;
use super::legs::{Early, Leg, Offered, Reoffer, State};
use super::reinvite::ANSWER_TIME;
use super::said::What;
use super::{LegEvent, UserAgent};
use crate::id::LegId;
use crate::sip::headers::HeaderName;
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::transaction::{TxId, tag_in};

impl Leg {
    /// The offers of one early dialog.
    pub(super) fn early_mut(&mut self, tag: &str) -> Option<&mut Early> {
        match &mut self.state {
            State::Incoming(call) => Some(&mut call.early),
            State::Outgoing(call) => {
                let mut forks = call.forks.iter_mut();
                forks.find(|fork| fork.dialog.remote_tag() == tag).map(|fork| &mut fork.early)
            }
            State::Established(_) => None,
        }
    }

    fn earlies_mut(&mut self) -> impl Iterator<Item = &mut Early> {
        let (one, many) = match &mut self.state {
            State::Incoming(call) => (Some(&mut call.early), None),
            State::Outgoing(call) => (None, Some(call.forks.iter_mut().map(|fork| &mut fork.early))),
            State::Established(_) => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

impl UserAgent {
    /// UPDATE with an offer before the answer: 491 while ours is open, 500 while theirs is (RFC 3311 section 5.2).
    pub(super) fn early_update_arrived(&mut self, now: Instant, tx: TxId, request: Request, id: LegId) {
        let tag = tag_in(&request.headers, HeaderName::From).unwrap_or_default().to_owned();
        let wait = self.short_wait();
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let we_offered_first = match &leg.state {
            State::Outgoing(call) => call.invite.sdp.is_some(),
            State::Incoming(call) => call.offered_early.is_some(),
            State::Established(_) => false,
        };
        let over = leg.over;
        let Some(early) = leg.early_mut(&tag) else {
            return self.reply(now, tx, &request, StatusCode::CALL_DOES_NOT_EXIST);
        };
        if over {
            return self.reply(now, tx, &request, StatusCode::REQUEST_TERMINATED);
        }
        if early.pending.is_some() || !early.settled && we_offered_first {
            return self.reply(now, tx, &request, StatusCode::REQUEST_PENDING);
        }
        if early.offered.is_some() || !early.settled {
            let headers = [(HeaderName::RetryAfter, wait)];
            return self.reply_with(now, tx, &request, StatusCode::SERVER_INTERNAL_ERROR, &headers);
        }
        self.early_offer_arrived(now, tx, request, id);
    }

    /// Hands an offer in PRACK or UPDATE to the call; a body that is none is refused. An offer that cannot be read
    /// leaves the request without effect.
    pub(super) fn early_offer_arrived(&mut self, now: Instant, tx: TxId, request: Request, id: LegId) {
        let offer = match session_description(&request.headers, &request.body) {
            Ok(Some(offer)) => offer,
            Ok(None) => return self.accept_bare(now, tx, &request, id),
            Err(refusal) => return self.reply_with(now, tx, &request, refusal.status, &refusal.headers),
        };
        let tag = tag_in(&request.headers, HeaderName::From).unwrap_or_default().to_owned();
        let wait = self.short_wait();
        let Some(early) = self.legs.get_mut(&id).and_then(|leg| leg.early_mut(&tag)) else {
            return self.reply(now, tx, &request, StatusCode::CALL_DOES_NOT_EXIST);
        };
        if early.offered.is_some() {
            // One exchange at a time (RFC 3311 section 5.2).
            let headers = [(HeaderName::RetryAfter, wait)];
            return self.reply_with(now, tx, &request, StatusCode::SERVER_INTERNAL_ERROR, &headers);
        }
        early.offered = Some(Offered { tx, request, give_up: now + ANSWER_TIME });
        self.tell_leg(id, LegEvent::EarlyOffer { offer });
    }

    pub(super) fn answer_early(&mut self, now: Instant, id: LegId, sdp: Vec<u8>) {
        if self.answer_in_prack(now, id, &sdp) {
            return;
        }
        let Some((Offered { tx, request, .. }, tag)) = self.take_early_offer(id) else { return };
        let Some(mut response) = self.leg_response(id, &request) else { return };
        response.set_body("application/sdp", sdp.clone());
        if let Some(leg) = self.legs.get_mut(&id) {
            if let Some(early) = leg.early_mut(&tag) {
                early.local_sdp = Some(sdp);
            }
            if let Some(dialog) = leg.dialog_mut(&tag).filter(|_| request.method == Method::Update) {
                dialog.refresh_target(&request.headers);
            }
        }
        self.table.respond(now, tx, &response);
        self.ring_waiting(now, id);
    }

    pub(super) fn reject_early(&mut self, now: Instant, id: LegId, status: StatusCode) {
        let status = if status.get() < 300 { StatusCode::NOT_ACCEPTABLE_HERE } else { status };
        let holds = |call: &super::legs::OutgoingCall| call.forks.iter().any(|fork| fork.held.is_some());
        if self.outgoing_call(id).is_some_and(|call| holds(call)) {
            // An offer in a response cannot be refused, only the call can (RFC 6337 section 3.1).
            let text = "the offer does not suit".to_owned();
            return self.give_up(now, id, Some(HangupReason { protocol: "SIP", cause: status.get(), text }));
        }
        if let Some((offered, _)) = self.take_early_offer(id) {
            self.refuse_offered(now, id, &offered, status);
            self.ring_waiting(now, id);
        }
    }

    fn take_early_offer(&mut self, id: LegId) -> Option<(Offered, String)> {
        let mut earlies = self.legs.get_mut(&id)?.earlies_mut();
        let offered = earlies.find_map(|early| early.offered.take())?;
        let tag = tag_in(&offered.request.headers, HeaderName::From).unwrap_or_default().to_owned();
        Some((offered, tag))
    }

    fn refuse_offered(&mut self, now: Instant, id: LegId, offered: &Offered, status: StatusCode) {
        let Some(tag) = self.legs.get(&id).map(|leg| leg.key.local_tag.clone()) else { return };
        let response = self.response_to(&offered.request, status, &tag);
        self.table.respond(now, offered.tx, &response);
    }

    /// Answers what the peer offered in early dialogs, before the leg changes or ends.
    pub(super) fn close_early(&mut self, now: Instant, id: LegId) {
        while let Some((offered, _)) = self.take_early_offer(id) {
            self.refuse_offered(now, id, &offered, StatusCode::REQUEST_TERMINATED);
        }
    }

    pub(super) fn early_timeout(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let due = |early: &mut Early| early.offered.take_if(|offered| now >= offered.give_up);
        let Some(offered) = leg.earlies_mut().find_map(due) else { return };
        self.refuse_offered(now, id, &offered, StatusCode::SERVER_INTERNAL_ERROR);
        self.ring_waiting(now, id);
    }

    /// UPDATE with an offer of ours, in the first early dialog whose first offer has its answer.
    pub(super) fn offer_early(&mut self, now: Instant, id: LegId, sdp: Vec<u8>) {
        let found = self.legs.get(&id).and_then(|leg| match &leg.state {
            State::Incoming(call) => {
                let free = call.early.is_free() && call.takes_update();
                free.then(|| call.dialog.remote_tag().to_owned())
            }
            State::Outgoing(call) => {
                let mut forks = call.forks.iter();
                let free = forks.find(|fork| fork.early.is_free() && fork.takes_update)?;
                Some(free.dialog.remote_tag().to_owned())
            }
            State::Established(_) => None,
        });
        let sent = found.and_then(|tag| {
            let (mut update, target) = self.request_in(id, &tag, Method::Update)?;
            self.complete_offer(&mut update, &target, Vec::new());
            update.set_body("application/sdp", sdp.clone());
            let tx = self.say(now, id, What::EarlyOffer { sdp }, update, target)?;
            self.legs.get_mut(&id)?.early_mut(&tag)?.pending = Some(tx);
            Some(())
        });
        if sent.is_none() {
            // Not now, or not at all: the call may try again once it is answered.
            let status = StatusCode::REQUEST_PENDING;
            self.tell_leg(id, LegEvent::ReinviteResult { status, sdp: None });
        }
    }

    /// The same offer under another transaction, because it was challenged.
    pub(super) fn early_offer_renamed(&mut self, id: LegId, tag: &str, old: TxId, new: TxId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Some(early) = leg.early_mut(tag).filter(|early| early.pending == Some(old)) {
            early.pending = Some(new);
        }
        if let State::Established(call) = &mut leg.state
            && let Reoffer::Pending { tx, .. } = &mut call.reoffer
            && *tx == old
        {
            *tx = new;
        }
    }

    pub(super) fn early_offer_answered(
        &mut self,
        now: Instant,
        tx: TxId,
        id: LegId,
        (tag, offer): (&str, Vec<u8>),
        response: &Response,
    ) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let success = response.status.is_success();
        let held = match &mut leg.state {
            State::Established(call) => {
                if matches!(&call.reoffer, Reoffer::Pending { tx: pending, .. } if *pending == tx) {
                    call.reoffer = Reoffer::None;
                }
                Some(&mut call.local_sdp)
            }
            State::Incoming(_) | State::Outgoing(_) => leg.early_mut(tag).map(|early| {
                early.pending.take_if(|pending| *pending == tx);
                &mut early.local_sdp
            }),
        };
        if let Some(local_sdp) = held.filter(|_| success) {
            *local_sdp = Some(offer);
        }
        if let Some(dialog) = leg.dialog_mut(tag).filter(|_| success) {
            dialog.refresh_target(&response.headers);
        }
        let sdp = session_description(&response.headers, &response.body).ok().flatten();
        let sdp = sdp.filter(|_| success);
        self.tell_leg(id, LegEvent::ReinviteResult { status: response.status, sdp });
        self.ring_waiting(now, id);
        self.send_waiting_reinvite(now, id);
    }
}
