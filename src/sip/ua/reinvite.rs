//! Changing an established session: re-INVITE and UPDATE both ways, glare, and session refreshes (RFC 3261 section 14,
//! RFC 3311, RFC 4028, RFC 6141).

use std::time::{Duration, Instant};

use rand::RngExt;

use super::checks::{Refusal, session_description};
use super::event::{EndedBy, LegEvent};
use super::incoming::grant_session;
use super::legs::{Established, Offered, Reoffer, Unacked};
use super::outgoing::{granted_session, min_interval, renumber, seconds};
use super::reply::{allow, supported, takes};
use super::said::What;
use super::session_timer::{Refresher, SessionExpires};
use super::{Purpose, UserAgent};
use crate::id::LegId;
use crate::sip::digest::Challenged;
use crate::sip::headers::{HeaderName, HeaderValue};
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::transaction::{Resend, TxId, tag_in};
use crate::sip::transport::Target;

impl UserAgent {
    pub(super) fn reinvite_arrived(&mut self, now: Instant, tx: TxId, request: Request, id: LegId) {
        let wait = self.short_wait();
        let Some(call) = self.established(id) else {
            // The first INVITE is not finished (section 14.2).
            let headers = [(HeaderName::RetryAfter, wait)];
            return self.reply_with(now, tx, &request, StatusCode::SERVER_INTERNAL_ERROR, &headers);
        };
        if let Err(refusal) = call.may_offer(wait) {
            return self.reply_with(now, tx, &request, refusal.status, &refusal.headers);
        }
        // Who re-INVITEs has seen our 200: a lost ACK needs no wait (RFC 5407 section 3.1.4).
        if call.unacked.take().is_some_and(|unacked| unacked.first) {
            if let Some(reason) = call.hang_up.take() {
                self.reply(now, tx, &request, StatusCode::REQUEST_TERMINATED);
                return self.say_bye(now, id, reason);
            }
            self.tell_leg(id, LegEvent::Acked { answer: None });
        }
        self.offer_arrived(now, tx, request, id);
    }

    pub(super) fn update_arrived(&mut self, now: Instant, tx: TxId, request: Request, id: LegId) {
        let has_offer = !request.body.is_empty();
        let wait = self.short_wait();
        match self.established(id) {
            Some(call) if has_offer => match call.may_offer(wait) {
                Ok(()) => self.offer_arrived(now, tx, request, id),
                Err(refusal) => self.reply_with(now, tx, &request, refusal.status, &refusal.headers),
            },
            Some(_) => self.refresh_arrived(now, tx, &request, id),
            None if has_offer => self.early_update_arrived(now, tx, request, id),
            None => self.accept_bare(now, tx, &request, id),
        }
    }

    /// Hands an offer to the call.
    fn offer_arrived(&mut self, now: Instant, tx: TxId, request: Request, id: LegId) {
        let checked = self
            .check_session_interval(&request.headers)
            .and_then(|()| session_description(&request.headers, &request.body));
        let offer = match checked {
            Ok(offer) => offer,
            Err(refusal) => return self.reply_with(now, tx, &request, refusal.status, &refusal.headers),
        };
        if self.legs.get(&id).is_some_and(|leg| leg.over) {
            return self.reply(now, tx, &request, StatusCode::REQUEST_TERMINATED);
        }
        if request.method == Method::Invite {
            let trying = Response::to_request(&request, StatusCode::TRYING, None);
            self.table.respond(now, tx, &trying);
        }
        if let Some(call) = self.established(id) {
            call.offered = Some(Offered { tx, request, give_up: now + ANSWER_TIME });
        }
        self.tell_leg(id, LegEvent::Reinvite { offer });
    }

    /// UPDATE without SDP: refreshes timer and target.
    fn refresh_arrived(&mut self, now: Instant, tx: TxId, request: &Request, id: LegId) {
        if let Err(refusal) = self.check_session_interval(&request.headers) {
            return self.reply_with(now, tx, request, refusal.status, &refusal.headers);
        }
        let keep = self.keeps_session_timer(id);
        let Some(mut response) = self.leg_response(id, request) else { return };
        let session = grant_session(now, &request.headers, &mut response, keep);
        if let Some(call) = self.established(id) {
            call.session = session;
            call.dialog.refresh_target(&request.headers);
        }
        self.table.respond(now, tx, &response);
    }

    pub(super) fn accept_bare(&mut self, now: Instant, tx: TxId, request: &Request, id: LegId) {
        let Some(response) = self.leg_response(id, request) else { return };
        let tag = tag_in(&request.headers, HeaderName::From).unwrap_or_default();
        let dialog = self.legs.get_mut(&id).and_then(|leg| leg.dialog_mut(tag));
        if let Some(dialog) = dialog.filter(|_| request.method == Method::Update) {
            dialog.refresh_target(&request.headers);
        }
        self.table.respond(now, tx, &response);
    }

    pub(super) fn leg_response(&self, id: LegId, request: &Request) -> Option<Response> {
        let leg = self.legs.get(&id)?;
        let mut response = self.dialog_response(request, StatusCode::OK, &leg.key.local_tag, &leg.peer);
        // Record-Route changes nothing inside a dialog (section 12.2.1.1), and peers copy what they see.
        response.headers.remove(HeaderName::RecordRoute);
        response.headers.copy_from(&request.headers, HeaderName::RecordRoute);
        Some(response)
    }

    pub(super) fn answer_reinvite(&mut self, now: Instant, id: LegId, sdp: Vec<u8>) {
        let Some(Offered { tx, request, .. }) = self.established(id).and_then(|call| call.offered.take())
        else {
            return;
        };
        let keep = self.keeps_session_timer(id);
        let Some(mut response) = self.leg_response(id, &request) else { return };
        response.set_body("application/sdp", sdp.clone());
        let session = grant_session(now, &request.headers, &mut response, keep);
        let bytes = response.to_bytes();
        let (values, target) = (self.config.timers, self.table.response_target(tx));
        let Some(call) = self.established(id) else { return };
        call.session = session;
        call.local_sdp = Some(sdp);
        call.dialog.refresh_target(&request.headers);
        if let (Method::Invite, Some(target)) = (&request.method, target) {
            call.unacked = Some(Unacked {
                cseq: request.headers.cseq().map(|cseq| cseq.number).unwrap_or_default(),
                response: bytes.clone(),
                target,
                resend: Resend::capped(now, &values),
                give_up: now + values.timeout(),
                first: false,
                offered: !matches!(session_description(&request.headers, &request.body), Ok(Some(_))),
            });
        }
        self.table.respond_bytes(now, tx, StatusCode::OK.get(), bytes);
        self.send_waiting_reinvite(now, id);
    }

    pub(super) fn reject_reinvite(&mut self, now: Instant, id: LegId, status: StatusCode) {
        let status = if status.get() < 300 { StatusCode::NOT_ACCEPTABLE_HERE } else { status };
        self.end_open_reinvite(now, id, status);
        self.send_waiting_reinvite(now, id);
    }

    /// Refuses the peer's open offer, if there is one.
    pub(super) fn end_open_reinvite(&mut self, now: Instant, id: LegId, status: StatusCode) {
        let open = self.established(id).and_then(|call| call.offered.take());
        let Some(tag) = self.legs.get(&id).map(|leg| leg.key.local_tag.clone()) else { return };
        if let Some(Offered { tx, request, .. }) = open {
            let response = self.response_to(&request, status, &tag);
            self.table.respond(now, tx, &response);
        }
    }

    /// CANCEL of a re-INVITE: it gets 487, the session stays (section 14).
    pub(super) fn cancel_reinvite(&mut self, now: Instant, invite: TxId) {
        let is_open = |call: &Established| call.offered.as_ref().is_some_and(|offered| offered.tx == invite);
        let mut legs = self.legs.iter();
        let found = legs.find(|(_, leg)| match &leg.state {
            super::legs::State::Established(call) => is_open(call),
            super::legs::State::Incoming(_) | super::legs::State::Outgoing(_) => false,
        });
        if let Some(id) = found.map(|(id, _)| *id) {
            self.end_open_reinvite(now, id, StatusCode::REQUEST_TERMINATED);
            self.rearm(id);
        }
    }

    pub(super) fn reinvite(&mut self, now: Instant, id: LegId, sdp: Vec<u8>) {
        let Some(call) = self.established(id) else { return };
        if let Reoffer::Pending { .. } = call.reoffer {
            // One at a time; the call hears that this one came too early.
            return self
                .tell_leg(id, LegEvent::ReinviteResult { status: StatusCode::REQUEST_PENDING, sdp: None });
        }
        call.reoffer = Reoffer::Waiting { sdp, not_before: None, tries: 0 };
        self.send_waiting_reinvite(now, id);
    }

    /// Sends the re-INVITE that waits, if nothing else is open.
    pub(super) fn send_waiting_reinvite(&mut self, now: Instant, id: LegId) {
        let Some(call) = self.established(id) else { return };
        let Reoffer::Waiting { not_before, .. } = &mut call.reoffer else { return };
        if not_before.is_some_and(|at| now < at) {
            return;
        }
        // Its time has come; from here on it waits for what is open, not for the clock.
        *not_before = None;
        if call.offered.is_some() || call.unacked.is_some() || call.awaiting_answer.is_some() {
            return;
        }
        let Reoffer::Waiting { sdp, tries, .. } = std::mem::replace(&mut call.reoffer, Reoffer::None) else {
            return;
        };
        let session = call.session_headers();
        let Some((mut request, target)) = self.dialog_request_of(id, Method::Invite) else { return };
        self.complete_offer(&mut request, &target, session);
        request.set_body("application/sdp", sdp.clone());
        self.authorize_unasked(id, &mut request);
        self.send_reinvite(now, id, (request, target), sdp, tries, Challenged::default());
    }

    fn send_reinvite(
        &mut self,
        now: Instant,
        id: LegId,
        (request, target): (Request, Target),
        sdp: Vec<u8>,
        tries: u8,
        met: Challenged,
    ) {
        let tx = self.send_request(now, request, target, Purpose::Reinvite(id));
        self.undecided.set(tx, Some(now + 2 * self.config.timers.timeout()));
        if let Some(call) = self.established(id) {
            call.reoffer = Reoffer::Pending { tx, sdp, tries, met };
        }
    }

    pub(super) fn complete_offer(
        &self,
        request: &mut Request,
        target: &Target,
        session: Vec<(HeaderName, HeaderValue)>,
    ) {
        request.headers.push(HeaderName::Contact, self.contact(target));
        request.headers.push(HeaderName::Allow, allow());
        request.headers.push(HeaderName::Supported, supported());
        for (name, value) in session {
            request.headers.push(name, value);
        }
    }

    pub(super) fn reinvite_response(&mut self, now: Instant, tx: TxId, id: LegId, response: &Response) {
        let status = response.status;
        if status.is_provisional() || status.is_success() && self.repeat_ack(tx, response) {
            return;
        }
        let Some(call) = self.established(id) else {
            // The call ended meanwhile, but the peer still waits for its ACK.
            if status.is_success() {
                self.ack_late(tx, response);
            }
            return;
        };
        if !matches!(&call.reoffer, Reoffer::Pending { tx: pending, .. } if *pending == tx) {
            return;
        }
        let Reoffer::Pending { sdp, tries, met, .. } = std::mem::replace(&mut call.reoffer, Reoffer::None)
        else {
            return;
        };
        match status.get() {
            200..=299 => self.reinvite_accepted(now, tx, id, response, sdp),
            491 if tries < GLARE_TRIES_MAX => self.wait_after_glare(now, id, sdp, tries + 1),
            401 | 407 if self.reinvite_challenged(now, tx, id, response, (&sdp, tries, &met)) => {}
            422 if tries < GLARE_TRIES_MAX && self.lengthen_running_session(id, response) => {
                if let Some(call) = self.established(id) {
                    call.reoffer = Reoffer::Waiting { sdp, not_before: None, tries: tries + 1 };
                }
                self.send_waiting_reinvite(now, id);
            }
            408 | 481 => self.lose(now, id, EndedBy::Lost, "the peer does not know the call any more", 481),
            _ => {
                self.refresh_again(now, id);
                self.tell_leg(id, LegEvent::ReinviteResult { status, sdp: None });
            }
        }
        self.rearm(id);
    }

    /// 422 to a request of ours inside the call: the next one asks for what the peer takes (RFC 4028 section 7.3).
    /// Returns whether that is longer than what it has refused.
    fn lengthen_running_session(&mut self, id: LegId, response: &Response) -> bool {
        let Some(min) = min_interval(&response.headers) else { return false };
        let Some(call) = self.established(id) else { return false };
        call.min_interval = call.min_interval.max(Some(min));
        call.session.as_mut().is_some_and(|session| session.lengthen(min))
    }

    /// What was to refresh the session did not: once more in a while; the timer decides in the end.
    fn refresh_again(&mut self, now: Instant, id: LegId) {
        let Some(session) = self.established(id).and_then(|call| call.session.as_mut()) else { return };
        if session.is_ours() {
            session.refresh_at.get_or_insert(now + REFRESH_AGAIN);
        }
    }

    fn reinvite_accepted(&mut self, now: Instant, tx: TxId, id: LegId, response: &Response, sdp: Vec<u8>) {
        if let Some(call) = self.established(id) {
            call.dialog.refresh_target(&response.headers);
            call.session = granted_session(now, &response.headers);
            call.local_sdp = Some(sdp);
        }
        self.ack_answer(id, tx, None);
        let answer = session_description(&response.headers, &response.body).ok().flatten();
        self.tell_leg(id, LegEvent::ReinviteResult { status: response.status, sdp: answer });
        self.send_waiting_reinvite(now, id);
    }

    /// Section 14.1: the owner of the Call-ID waits 2.1 to 4 s, the other up to 2 s, in steps of 10 ms.
    fn wait_after_glare(&mut self, now: Instant, id: LegId, sdp: Vec<u8>, tries: u8) {
        let Some(caller) = self.established(id).map(|call| call.caller) else { return };
        let steps =
            if caller { self.rng.random_range(210..=400_u64) } else { self.rng.random_range(0..=200) };
        let not_before = Some(now + Duration::from_millis(10 * steps));
        if let Some(call) = self.established(id) {
            call.reoffer = Reoffer::Waiting { sdp, not_before, tries };
        }
    }

    fn reinvite_challenged(
        &mut self,
        now: Instant,
        tx: TxId,
        id: LegId,
        response: &Response,
        (sdp, tries, met): (&[u8], u8, &Challenged),
    ) -> bool {
        let Some(mut digest) = self.legs.get(&id).and_then(|leg| leg.digest.clone()) else { return false };
        let Some(challenged) = self.table.sent_invite(tx).cloned() else { return false };
        let Some((numbered, target)) = self.dialog_request_of(id, Method::Invite) else { return false };
        let mut request = challenged;
        renumber(&mut request);
        if let Ok(cseq) = numbered.headers.cseq() {
            request.headers.replace(HeaderName::CSeq, cseq);
        }
        let mut met = met.clone();
        if !self.authorize(&mut request, response, &mut digest, &mut met) {
            return false;
        }
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.digest = Some(digest);
        }
        self.send_reinvite(now, id, (request, target), sdp.to_vec(), tries, met);
        true
    }

    pub(super) fn reinvite_timeout(&mut self, now: Instant, id: LegId) {
        let Some(call) = self.established(id) else { return };
        if call.offered.as_ref().is_some_and(|offered| now >= offered.give_up) {
            self.end_open_reinvite(now, id, StatusCode::SERVER_INTERNAL_ERROR);
        }
        self.send_waiting_reinvite(now, id);
    }

    pub(super) fn session_timeout(&mut self, now: Instant, id: LegId) {
        let Some(call) = self.established(id) else { return };
        let Some(session) = call.session.as_mut() else { return };
        if now >= session.expires_at {
            return self.lose(now, id, EndedBy::SessionExpired, "the session timer ran out", 408);
        }
        if session.refresh_at.take_if(|at| now >= *at).is_some() {
            self.refresh_session(now, id);
        }
    }

    /// By UPDATE where the peer takes it, else by a re-INVITE that repeats our last description.
    fn refresh_session(&mut self, now: Instant, id: LegId) {
        let Some(call) = self.established(id) else { return };
        if !call.peer_takes_update {
            if let (Reoffer::None, Some(sdp)) = (&call.reoffer, call.local_sdp.clone()) {
                call.reoffer = Reoffer::Waiting { sdp, not_before: None, tries: 0 };
                self.send_waiting_reinvite(now, id);
            }
            return;
        }
        let session = call.session_headers();
        let Some((mut update, target)) = self.dialog_request_of(id, Method::Update) else { return };
        self.complete_offer(&mut update, &target, session);
        self.say(now, id, What::Refresh, update, target);
    }

    pub(super) fn refresh_response(&mut self, now: Instant, id: LegId, response: &Response) {
        match response.status.get() {
            100..=199 => return,
            200..=299 => {
                let Some(call) = self.established(id) else { return };
                call.session = granted_session(now, &response.headers);
                call.dialog.refresh_target(&response.headers);
            }
            408 | 481 => self.lose(now, id, EndedBy::Lost, "the peer does not know the call any more", 481),
            422 if self.lengthen_running_session(id, response) => self.refresh_session(now, id),
            status => {
                let liked = takes(&response.headers, &Method::Update) || matches!(status, 422 | 491 | 500);
                if let Some(call) = self.established(id).filter(|_| !liked) {
                    call.peer_takes_update = false;
                }
                self.refresh_again(now, id);
            }
        }
        self.rearm(id);
    }
}

impl Established {
    /// Whether the peer may make an offer: 491 while ours is open, 500 while its own earlier one is (section 14.2).
    fn may_offer(&self, wait: HeaderValue) -> Result<(), Refusal> {
        let ours = matches!(self.reoffer, Reoffer::Pending { .. })
            || self.unacked.as_ref().is_some_and(|unacked| unacked.offered);
        if ours {
            return Err(Refusal::bare(StatusCode::REQUEST_PENDING));
        }
        if self.offered.is_some() || self.awaiting_answer.is_some() {
            return Err(Refusal::with(StatusCode::SERVER_INTERNAL_ERROR, HeaderName::RetryAfter, wait));
        }
        Ok(())
    }

    /// The interval in force, with whoever refreshes named from the view of a request of ours, and the smallest one
    /// that somebody on the way takes.
    fn session_headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let Some(session) = &self.session else { return Vec::new() };
        let refresher = if session.is_ours() { Refresher::Uac } else { Refresher::Uas };
        let asked = SessionExpires { interval: session.interval(), refresher: Some(refresher) };
        let min = self.min_interval.map(|min| (HeaderName::MinSe, HeaderValue::from(seconds(min))));
        [(HeaderName::SessionExpires, asked.to_value())].into_iter().chain(min).collect()
    }
}

/// How long the call may take to answer a re-INVITE.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(20);
const GLARE_TRIES_MAX: u8 = 5;
const REFRESH_AGAIN: Duration = Duration::from_secs(5);
