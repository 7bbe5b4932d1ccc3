//! Requests inside dialogs, and the established call (RFC 3261 sections 12.2, 13.3.1.4, 15; RFC 6086).

use std::sync::Arc;
use std::time::Instant;

use super::UserAgent;
use super::checks::{Refusal, check, session_description};
use super::command::HangupReason;
use super::event::{EndedBy, LegEvent};
use super::incoming::{q850_of, reason_of};
use super::info::{dtmf_relay, read_dtmf, read_dtmf_relay};
use super::legs::{DialogKey, Leg, Reoffer, State, stray};
use super::reply::accept;
use super::said::What;
use crate::id::LegId;
use crate::sip::dialog::OutOfOrder;
use crate::sip::headers::{HeaderName, HeaderValue, Headers};
use crate::sip::message::{Method, Request, StatusCode};
use crate::sip::transaction::{TxId, tag_in};
use crate::sip::transport::Target;
use crate::sip::trunk::Trunk;

/// The dialog a request names: none without a To tag.
pub(super) fn key_of(headers: &Headers) -> Option<DialogKey> {
    let local_tag = tag_in(headers, HeaderName::To)?.to_owned();
    Some(DialogKey { call_id: headers.call_id().ok()?.to_owned(), local_tag })
}

impl UserAgent {
    /// A new request other than ACK and CANCEL.
    pub(super) fn request_arrived(
        &mut self,
        now: Instant,
        tx: TxId,
        request: Request,
        trunk: Option<Arc<Trunk>>,
        back: Target,
    ) {
        let in_dialog = tag_in(&request.headers, HeaderName::To).is_some();
        if request.method == Method::Register && !in_dialog && self.phones.is_open() {
            return self.register_arrived(now, tx, &request, back);
        }
        if let Err(refusal) = check(&request, in_dialog) {
            return self.reply_with(now, tx, &request, refusal.status, &refusal.headers);
        }
        match request.method {
            _ if in_dialog => self.dialog_request(now, tx, request),
            Method::Invite => self.invite_arrived(now, tx, request, trunk, back),
            Method::Options => self.options_arrived(now, tx, &request),
            _ => self.reply(now, tx, &request, StatusCode::CALL_DOES_NOT_EXIST),
        }
    }

    fn dialog_request(&mut self, now: Instant, tx: TxId, request: Request) {
        let Some(id) = self.leg_of(&request) else {
            return self.reply(now, tx, &request, StatusCode::CALL_DOES_NOT_EXIST);
        };
        let number = request.headers.cseq().map(|cseq| cseq.number).unwrap_or_default();
        if let Some(leg) = self.legs.get_mut(&id)
            && leg.receive_cseq(&request, number).is_err()
        {
            return self.reply(now, tx, &request, StatusCode::SERVER_INTERNAL_ERROR);
        }
        match request.method {
            Method::Bye => self.bye_arrived(now, tx, &request, id),
            Method::Invite => self.reinvite_arrived(now, tx, request, id),
            Method::Update => self.update_arrived(now, tx, request, id),
            Method::Info => self.info_arrived(now, tx, &request, id),
            Method::Options => self.options_arrived(now, tx, &request),
            Method::Prack => self.prack_arrived(now, tx, request, id),
            Method::Refer => self.refer_arrived(now, tx, request, id),
            Method::Notify => self.notify_arrived(now, tx, &request, id),
            // `check` let nothing else through.
            _ => self.reply(now, tx, &request, StatusCode::CALL_DOES_NOT_EXIST),
        }
        self.rearm(id);
    }

    /// The leg whose dialog a request names by Call-ID and both tags.
    fn leg_of(&self, request: &Request) -> Option<LegId> {
        let id = *self.dialogs.get(&key_of(&request.headers)?)?;
        let tag = tag_in(&request.headers, HeaderName::From).unwrap_or_default();
        let leg = self.legs.get(&id)?;
        leg.dialogs().any(|dialog| dialog.remote_tag() == tag).then_some(id)
    }

    /// The ACK of a 2xx.
    pub(super) fn ack_arrived(&mut self, now: Instant, request: &Request) {
        let Some(id) = self.leg_of(request) else { return stray() };
        let number = request.headers.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let Some(call) = self.established(id) else { return stray() };
        let Some(unacked) = call.unacked.take_if(|unacked| unacked.cseq == number) else { return };
        let answer = match unacked.offered {
            true => session_description(&request.headers, &request.body).ok().flatten(),
            false => None,
        };
        let silent = unacked.offered && answer.is_none();
        if let Some(reason) = call.hang_up.take() {
            return self.say_bye(now, id, reason);
        }
        if unacked.first && silent {
            let text = "the ACK brought no answer to our offer";
            let reason = HangupReason { protocol: "SIP", cause: 400, text: text.to_owned() };
            self.say_bye(now, id, HeaderValue::from(reason.to_header()));
            return self.end_leg(id, EndedBy::ProtocolError, Some(text.to_owned()));
        }
        let event = match (unacked.first, unacked.offered) {
            (true, _) => Some(LegEvent::Acked { answer }),
            (false, true) => Some(LegEvent::ReinviteAcked { answer }),
            (false, false) => None,
        };
        if let Some(event) = event {
            self.tell_leg(id, event);
        }
        self.send_waiting_reinvite(now, id);
        self.rearm(id);
    }

    fn bye_arrived(&mut self, now: Instant, tx: TxId, request: &Request, id: LegId) {
        self.reply(now, tx, request, StatusCode::OK);
        let Some(leg) = self.legs.get(&id) else { return };
        match leg.state {
            State::Incoming(_) => self.early_bye(now, id, request),
            // A callee may not end an early dialog by BYE (section 15); its final response will.
            State::Outgoing(_) => {}
            State::Established(_) => {
                self.close_requests(now, id);
                let (reason, cause) = (reason_of(&request.headers), q850_of(&request.headers));
                self.tell_leg(id, LegEvent::Ended { by: EndedBy::Peer, reason, cause });
                self.forget_leg(id);
            }
        }
    }

    /// Keys by INFO; other packages and bodies are refused as RFC 6086 section 4.2.2 says.
    fn info_arrived(&mut self, now: Instant, tx: TxId, request: &Request, id: LegId) {
        match read_info(request) {
            Ok(Some(event)) => {
                self.reply(now, tx, request, StatusCode::OK);
                self.tell_leg(id, event);
            }
            Ok(None) => self.reply(now, tx, request, StatusCode::OK),
            Err(refusal) => self.reply_with(now, tx, request, refusal.status, &refusal.headers),
        }
    }

    pub(super) fn send_dtmf(&mut self, now: Instant, id: LegId, digit: char, duration_ms: u32) {
        let Some(body) = dtmf_relay(digit, duration_ms) else { return };
        let Some((mut info, target)) = self.dialog_request_of(id, Method::Info) else { return };
        info.set_body("application/dtmf-relay", body);
        self.say(now, id, What::Info, info, target);
    }

    /// The next request of an established call and where it goes.
    pub(super) fn dialog_request_of(&mut self, id: LegId, method: Method) -> Option<(Request, Target)> {
        let leg = self.legs.get_mut(&id)?;
        let State::Established(call) = &mut leg.state else { return None };
        let request = call.dialog.request(method);
        let leg = self.legs.get(&id)?;
        let State::Established(call) = &leg.state else { return None };
        Some((request, self.dialog_target(&call.dialog, leg.peer, leg.trunk.as_deref())))
    }

    /// Ends an established call. The callee may not BYE before the ACK (section 15): the call is told at once, the peer
    /// when it may be.
    pub(super) fn hang_up(&mut self, now: Instant, id: LegId, reason: Option<HangupReason>) {
        let reason = reason.unwrap_or_else(HangupReason::normal);
        let header = HeaderValue::from(reason.to_header());
        self.close_requests(now, id);
        let Some(call) = self.established(id) else { return };
        let ended = LegEvent::Ended { by: EndedBy::Us, reason: Some(reason.text), cause: None };
        if call.unacked.as_ref().is_some_and(|unacked| unacked.first) {
            call.hang_up = Some(header);
            call.reoffer = Reoffer::None;
            return self.tell_leg(id, ended);
        }
        self.tell_leg(id, ended);
        self.say_bye(now, id, header);
    }

    /// Sends BYE and forgets the leg; what is still under way is finished without it.
    pub(super) fn say_bye(&mut self, now: Instant, id: LegId, reason: HeaderValue) {
        if let Some(tx) = self.established(id).and_then(|call| call.awaiting_answer.take()) {
            self.ack_answer(id, tx, None);
        }
        let Some(leg) = self.legs.get(&id) else { return };
        let State::Established(call) = &leg.state else { return };
        let mut dialog = call.dialog.clone();
        let target = self.dialog_target(&dialog, leg.peer, leg.trunk.as_deref());
        let digest = leg.digest.clone();
        self.send_bye(now, &mut dialog, target, reason, digest);
        if self.legs.get(&id).is_some_and(|leg| leg.over) {
            self.forget_leg(id);
        }
    }

    /// Our answer to the offer in a 2xx (late offer).
    pub(super) fn acknowledge(&mut self, now: Instant, id: LegId, sdp: Vec<u8>) {
        let Some(call) = self.established(id) else { return };
        let Some(tx) = call.awaiting_answer.take() else { return };
        call.local_sdp = Some(sdp.clone());
        self.ack_answer(id, tx, Some(sdp));
        self.send_waiting_reinvite(now, id);
    }

    pub(super) fn established_timeout(&mut self, now: Instant, id: LegId) {
        self.unacked_timeout(now, id);
        self.reinvite_timeout(now, id);
        self.session_timeout(now, id);
        self.transfer_timeout(now, id);
    }

    /// Answers what the peer still waits for, before the leg ends.
    fn close_requests(&mut self, now: Instant, id: LegId) {
        self.end_open_reinvite(now, id, StatusCode::REQUEST_TERMINATED);
        self.close_transfers(now, id);
    }

    fn unacked_timeout(&mut self, now: Instant, id: LegId) {
        let Some(unacked) = self.established(id).and_then(|call| call.unacked.as_mut()) else { return };
        if now >= unacked.give_up {
            return self.lose(now, id, EndedBy::NoAck, "our answer was never acknowledged", 408);
        }
        if unacked.resend.take_due(now) {
            let (target, response) = (unacked.target, unacked.response.clone());
            metrics::counter!("tandem_sip_retransmissions_total").increment(1);
            self.send(target, response);
        }
    }

    /// Ends a call that cannot go on, with BYE in case the peer still listens.
    pub(super) fn lose(&mut self, now: Instant, id: LegId, by: EndedBy, text: &str, cause: u16) {
        self.close_requests(now, id);
        let reason = HangupReason { protocol: "SIP", cause, text: text.to_owned() };
        self.tell_leg(id, LegEvent::Ended { by, reason: Some(text.to_owned()), cause: None });
        self.say_bye(now, id, HeaderValue::from(reason.to_header()));
    }
}

impl Leg {
    fn receive_cseq(&mut self, request: &Request, number: u32) -> Result<(), OutOfOrder> {
        let tag = tag_in(&request.headers, HeaderName::From).unwrap_or_default();
        self.dialog_mut(tag).map_or(Ok(()), |dialog| dialog.receive(number))
    }
}

fn read_info(request: &Request) -> Result<Option<LegEvent>, Refusal> {
    if request.headers.contains(HeaderName::InfoPackage) {
        let none = HeaderValue::from_static("");
        return Err(Refusal::with(StatusCode::BAD_INFO_PACKAGE, HeaderName::RecvInfo, none));
    }
    if request.body.is_empty() {
        return Ok(None);
    }
    let kind = request.headers.content_type().ok().flatten();
    let read = match kind {
        Some(kind) if kind.is("application", "dtmf-relay") => read_dtmf_relay(&request.body),
        Some(kind) if kind.is("application", "dtmf") => read_dtmf(&request.body),
        Some(_) | None => {
            return Err(Refusal::with(StatusCode::UNSUPPORTED_MEDIA_TYPE, HeaderName::Accept, accept()));
        }
    };
    let key = read.ok_or_else(|| Refusal::bare(StatusCode::BAD_REQUEST))?;
    Ok(Some(LegEvent::Dtmf { digit: key.digit, duration_ms: key.duration_ms }))
}
