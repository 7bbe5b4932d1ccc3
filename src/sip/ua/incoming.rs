//! An incoming call until its final response (RFC 3261 sections 8.2, 9.2, 12.1.1, 13.3).

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::auth::trunk_credentials;
use super::checks::{Refusal, check_accept, session_description};
use super::command::HangupReason;
use super::event::{EndedBy, IncomingInvite, LegEvent, UaEvent};
use super::legs::{DialogKey, Early, Established, IncomingCall, Leg, State, Unacked};
use super::reliable::{Due, ReliableProvisional, Waiting};
use super::reply::{knows_option, requires, takes};
use super::session_timer::{MIN_SE, Refresher, SessionExpires, SessionTimer};
use super::{UserAgent, identity};
use crate::id::LegId;
use crate::sip::dialog::Dialog;
use crate::sip::digest::DigestClient;
use crate::sip::headers::{HeaderName, HeaderValue, Headers};
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::profile::ReliableProvisional as Policy;
use crate::sip::registrar::Phone;
use crate::sip::transaction::{Resend, TxId, tag_in};
use crate::sip::transport::Target;
use crate::sip::trunk::Trunk;

impl UserAgent {
    /// An INVITE outside of any dialog. Answers 100 at once, so that the peer neither repeats it nor goes elsewhere.
    pub(super) fn invite_arrived(
        &mut self,
        now: Instant,
        tx: TxId,
        request: Request,
        trunk: Option<Arc<Trunk>>,
        back: Target,
    ) {
        // Only a trunk can bring calls; the peer of an outgoing call is no trunk.
        let phone = self.calling_phone(&request, &back);
        let trunk = phone.as_ref().map(|phone| Arc::clone(&phone.trunk)).or(trunk);
        let Some(trunk) = trunk else { return self.reply(now, tx, &request, StatusCode::FORBIDDEN) };
        let screened = self.screen(now, &request, &trunk);
        match screened.and_then(|offer| Ok((offer, self.replaced_by(&request)?))) {
            Err(refusal) => {
                self.note_wrong_password(now, &request, &refusal, back);
                self.reply_with(now, tx, &request, refusal.status, &refusal.headers);
            }
            Ok(asked) => self.open_incoming(now, tx, request, (trunk, phone), back, asked),
        }
    }

    /// Everything that may speak against a call before anybody is asked.
    fn screen(&mut self, now: Instant, request: &Request, trunk: &Trunk) -> Result<Option<Vec<u8>>, Refusal> {
        let unavailable = |ua: &Self| {
            let retry_after = ua.retry_after();
            Refusal::with(StatusCode::SERVICE_UNAVAILABLE, HeaderName::RetryAfter, retry_after)
        };
        // What a call may bring about is another call: this node counts as a hop (RFC 7332 section 4).
        if request.headers.max_forwards() == Ok(Some(0)) {
            return Err(Refusal::bare(StatusCode::TOO_MANY_HOPS));
        }
        if self.is_loop(request) {
            return Err(Refusal::bare(StatusCode::LOOP_DETECTED));
        }
        if self.draining || self.legs.len() >= self.config.legs_max {
            return Err(unavailable(self));
        }
        if trunk.max_calls > 0 && self.legs_of(trunk) >= trunk.max_calls {
            return Err(Refusal::bare(StatusCode::TEMPORARILY_UNAVAILABLE));
        }
        if request.headers.contact().is_err() {
            return Err(Refusal::bare(StatusCode::BAD_REQUEST));
        }
        if requires(&request.headers, "100rel") && trunk.profile.reliable_provisional == Policy::Never {
            let unsupported = HeaderValue::from_static("100rel");
            return Err(Refusal::with(StatusCode::BAD_EXTENSION, HeaderName::Unsupported, unsupported));
        }
        self.authenticate(now, request, trunk)?;
        check_accept(&request.headers)?;
        self.check_session_interval(&request.headers)?;
        session_description(&request.headers, &request.body)
    }

    /// An INVITE of ours that came back for the same user (RFC 3261 section 16.3 item 4).
    fn is_loop(&self, request: &Request) -> bool {
        let Ok(call_id) = request.headers.call_id() else { return false };
        let from = tag_in(&request.headers, HeaderName::From).unwrap_or_default();
        let key = DialogKey { call_id: call_id.to_owned(), local_tag: from.to_owned() };
        let Some(leg) = self.dialogs.get(&key).and_then(|id| self.legs.get(id)) else { return false };
        let State::Outgoing(call) = &leg.state else { return false };
        let sent = call.invite.request_uri.as_ref().unwrap_or(&call.invite.to);
        sent.user_decoded() == request.uri.user_decoded()
    }

    fn legs_of(&self, trunk: &Trunk) -> usize {
        self.legs.values().filter(|leg| leg.trunk.as_ref().is_some_and(|t| t.name == trunk.name)).count()
    }

    /// RFC 4028 section 9: an interval below ours is refused with what we take, if the client knows timers.
    pub(super) fn check_session_interval(&self, headers: &Headers) -> Result<(), Refusal> {
        let min = self.config.min_session_expires.max(MIN_SE);
        match SessionExpires::read(headers) {
            Some(asked) if asked.interval < min && knows_option(headers, "timer") => {
                let value = HeaderValue::from(u32::try_from(min.as_secs()).unwrap_or(u32::MAX));
                Err(Refusal::with(StatusCode::SESSION_INTERVAL_TOO_SMALL, HeaderName::MinSe, value))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn open_incoming(
        &mut self,
        now: Instant,
        tx: TxId,
        request: Request,
        (trunk, phone): (Arc<Trunk>, Option<Phone>),
        back: Target,
        (offer, replaces): (Option<Vec<u8>>, Option<LegId>),
    ) {
        let local_tag = self.tag();
        let addresses = (request.headers.from(), request.headers.to());
        let (Ok(dialog), (Ok(from), Ok(to))) = (Dialog::of_callee(&request, &local_tag), addresses) else {
            return self.reply(now, tx, &request, StatusCode::BAD_REQUEST);
        };
        let trying = Response::to_request(&request, StatusCode::TRYING, None);
        self.table.respond(now, tx, &trying);
        let id = self.new_leg_id(now);
        let mut identity = identity::read(&request, &trunk);
        if let Some(phone) = &phone {
            phone.identify(&mut identity);
        }
        let local = std::net::SocketAddr::new(self.advertised(&back), back.local.port());
        let event = IncomingInvite {
            leg: id,
            trunk: Arc::clone(&trunk),
            call_id: dialog.call_id().to_owned(),
            from,
            to,
            called: identity.called.clone(),
            caller: identity.caller.clone(),
            caller_name: identity.caller_name.clone(),
            request: request.clone(),
            offer,
            source: back.remote,
            local,
            transport: back.transport,
            replaces,
            max_forwards: request.headers.max_forwards().ok().flatten().unwrap_or(70),
            phone: phone.map(|phone| phone.user),
            identity: Box::new(identity),
        };
        let key = DialogKey { call_id: dialog.call_id().to_owned(), local_tag };
        let call = self.incoming_state(now, tx, request, dialog, &trunk);
        self.incoming.insert(tx, id);
        let state = State::Incoming(Box::new(call));
        let digest = trunk_credentials(&trunk).map(DigestClient::new);
        self.add_leg(id, Leg { trunk: Some(trunk), peer: back, key, digest, over: false, state });
        self.tell(UaEvent::Invite(Box::new(event)));
    }

    fn incoming_state(
        &mut self,
        now: Instant,
        tx: TxId,
        invite: Request,
        dialog: Dialog,
        trunk: &Trunk,
    ) -> IncomingCall {
        let wants_reliable = match trunk.profile.reliable_provisional {
            Policy::WhenRequired => requires(&invite.headers, "100rel"),
            Policy::WhenSupported => knows_option(&invite.headers, "100rel"),
            Policy::Never => false,
        };
        let first = self.rng.random_range(1..=i32::MAX as u32 / 2);
        let expires = invite.headers.expires().ok().flatten().map(|s| Duration::from_secs(u64::from(s)));
        let expires = expires.filter(|expires| *expires < self.config.ring_timeout);
        IncomingCall {
            tx,
            dialog,
            give_up: now + expires.unwrap_or(self.config.ring_timeout),
            expires: expires.is_some(),
            reliable: wants_reliable.then(|| ReliableProvisional::new(first)),
            answered_early: false,
            offered_early: None,
            early: Early::default(),
            invite,
        }
    }

    pub(super) fn ring(&mut self, now: Instant, id: LegId, status: StatusCode, sdp: Option<Vec<u8>>) {
        let Some(call) = self.incoming_call(id) else { return };
        if !(101..=199).contains(&status.get()) {
            return;
        }
        let busy = call.is_busy();
        if let Some(reliable) = call.reliable.as_mut().filter(|_| busy) {
            return reliable.wait(Waiting::Ring { status, sdp });
        }
        let late_offer = call.is_late_offer();
        let reliable = call.reliable.is_some();
        // Without an offer of the peer ours stands in the first reliable response, and only there (RFC 3261 section
        // 13.2.1).
        let sdp = sdp.filter(|_| !late_offer || reliable && call.offered_early.is_none());
        if late_offer && sdp.is_some() {
            call.offered_early.clone_from(&sdp);
        }
        call.answered_early |= sdp.is_some() && reliable && !late_offer;
        let rseq = call.reliable.as_mut().map(ReliableProvisional::take_rseq);
        let Some((tx, mut response)) = self.call_response(id, status) else { return };
        if let Some(sdp) = sdp {
            response.set_body("application/sdp", sdp);
        }
        let Some(rseq) = rseq else { return self.table.respond(now, tx, &response) };
        response.headers.push(HeaderName::Require, HeaderValue::from_static("100rel"));
        response.headers.push(HeaderName::RSeq, HeaderValue::from(rseq));
        let bytes = response.to_bytes();
        self.table.respond_bytes(now, tx, status.get(), bytes.clone());
        let timers = self.config.timers;
        if let Some(reliable) = self.incoming_call(id).and_then(|call| call.reliable.as_mut()) {
            reliable.sent(now, rseq, bytes, &timers);
        }
    }

    /// A response of the leg's INVITE that makes the dialog.
    fn call_response(&self, id: LegId, status: StatusCode) -> Option<(TxId, Response)> {
        let leg = self.legs.get(&id)?;
        let State::Incoming(call) = &leg.state else { return None };
        Some((call.tx, self.dialog_response(&call.invite, status, &leg.key.local_tag, &leg.peer)))
    }

    pub(super) fn answer(&mut self, now: Instant, id: LegId, sdp: Vec<u8>) {
        let Some(call) = self.incoming_call(id) else { return };
        let busy = call.is_busy();
        if let Some(reliable) = call.reliable.as_mut().filter(|_| busy) {
            return reliable.wait(Waiting::Answer { sdp });
        }
        let Some((tx, mut response)) = self.call_response(id, StatusCode::OK) else { return };
        let keeps_timer = self.keeps_session_timer(id);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let State::Incoming(call) = &mut leg.state else { return };
        let agreed = call.early.local_sdp.take();
        let late_offer = call.is_late_offer() && !call.early.settled;
        // What PRACK or UPDATE agreed on is not said again: here it would be an offer, or an old answer.
        if agreed.is_none() {
            response.set_body("application/sdp", sdp.clone());
        }
        let session = grant_session(now, &call.invite.headers, &mut response, keeps_timer);
        let bytes = response.to_bytes();
        let target = self.table.response_target(tx).unwrap_or(leg.peer);
        let mut established = Established::new(call.dialog.clone(), false);
        established.session = session;
        established.peer_takes_update = takes(&call.invite.headers, &Method::Update);
        established.local_sdp = Some(agreed.unwrap_or(sdp));
        established.unacked = Some(Unacked {
            cseq: call.invite.headers.cseq().map(|cseq| cseq.number).unwrap_or_default(),
            response: bytes.clone(),
            target,
            resend: Resend::capped(now, &self.config.timers),
            give_up: now + self.config.timers.timeout(),
            first: true,
            offered: late_offer,
        });
        leg.state = State::Established(Box::new(established));
        self.table.respond_bytes(now, tx, StatusCode::OK.get(), bytes);
    }

    /// Whether a session timer the peer asks for is kept.
    pub(super) fn keeps_session_timer(&self, id: LegId) -> bool {
        let trunk = self.legs.get(&id).and_then(|leg| leg.trunk.as_ref());
        trunk.is_none_or(|trunk| trunk.profile.session_timer)
    }

    pub(super) fn reject(
        &mut self,
        now: Instant,
        id: LegId,
        status: StatusCode,
        reason: Option<String>,
        headers: &[(String, String)],
    ) {
        if status.get() < 300 {
            return;
        }
        self.finish_incoming(now, id, status, reason, headers);
        self.end_leg(id, EndedBy::Us, Some(status.default_reason().to_owned()));
    }

    /// Hang-up before the answer: 480, with the reason given.
    pub(super) fn decline(&mut self, now: Instant, id: LegId, reason: Option<HangupReason>) {
        let reason = reason.unwrap_or_else(HangupReason::normal);
        let value = HeaderValue::from(reason.to_header()).to_text().into_owned();
        let headers = [("Reason".to_owned(), value)];
        self.finish_incoming(now, id, StatusCode::TEMPORARILY_UNAVAILABLE, None, &headers);
        self.end_leg(id, EndedBy::Us, Some(reason.text));
    }

    fn finish_incoming(
        &mut self,
        now: Instant,
        id: LegId,
        status: StatusCode,
        reason: Option<String>,
        headers: &[(String, String)],
    ) {
        self.close_early(now, id);
        let Some(leg) = self.legs.get(&id) else { return };
        let State::Incoming(call) = &leg.state else { return };
        let mut response = self.response_to(&call.invite, status, &leg.key.local_tag);
        if let Some(reason) = reason {
            response.reason = HeaderValue::cleaned(reason);
        }
        for (name, value) in headers {
            push_checked(&mut response.headers, name, value);
        }
        let tx = call.tx;
        self.table.respond(now, tx, &response);
    }

    /// CANCEL is answered in any case; it ends the call only before the final response (section 9.2).
    pub(super) fn cancel_arrived(&mut self, now: Instant, tx: TxId, invite: Option<TxId>, request: &Request) {
        let Some(invite) = invite else {
            return self.reply(now, tx, request, StatusCode::CALL_DOES_NOT_EXIST);
        };
        let leg = self.incoming.get(&invite).copied();
        let tag = leg.and_then(|id| self.legs.get(&id)).map(|leg| leg.key.local_tag.clone());
        let tag = tag.unwrap_or_else(|| self.tag());
        let response = self.response_to(request, StatusCode::OK, &tag);
        self.table.respond(now, tx, &response);
        if let Some(id) = leg.filter(|_| self.table.is_unanswered(invite)) {
            self.finish_incoming(now, id, StatusCode::REQUEST_TERMINATED, None, &[]);
            let reason = reason_of(&request.headers);
            self.tell_leg(id, LegEvent::Cancelled { reason });
            self.forget_leg(id);
        } else {
            self.cancel_reinvite(now, invite);
        }
    }

    /// BYE in an early dialog: the caller may (section 15); the INVITE gets 487.
    pub(super) fn early_bye(&mut self, now: Instant, id: LegId, request: &Request) {
        self.finish_incoming(now, id, StatusCode::REQUEST_TERMINATED, None, &[]);
        self.tell_leg(id, LegEvent::Cancelled { reason: reason_of(&request.headers) });
        self.forget_leg(id);
    }

    /// PRACK: `RAck: <rseq> <cseq> INVITE` must name the open response (RFC 3262 section 3).
    pub(super) fn prack_arrived(&mut self, now: Instant, tx: TxId, request: Request, id: LegId) {
        let named = request.headers.get_str(HeaderName::RAck).and_then(read_rack);
        let Some(call) = self.incoming_call(id) else {
            return self.reply(now, tx, &request, StatusCode::CALL_DOES_NOT_EXIST);
        };
        let cseq = call.invite.headers.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let matches = match (named, call.reliable.as_mut()) {
            (Some((rseq, number)), Some(reliable)) => number == cseq && reliable.acknowledge(rseq),
            _ => false,
        };
        if !matches {
            return self.reply(now, tx, &request, StatusCode::CALL_DOES_NOT_EXIST);
        }
        if call.offered_early.is_some() && !call.early.settled {
            return self.early_answer_arrived(now, tx, &request, id);
        }
        call.early.settled |= call.answered_early;
        // The offer is answered before anything else is sent (section 5).
        match call.early.settled && !request.body.is_empty() {
            true => self.early_offer_arrived(now, tx, request, id),
            false => self.reply(now, tx, &request, StatusCode::OK),
        }
        self.ring_waiting(now, id);
    }

    /// The answer to our offer in a reliable 18x. A PRACK without one leaves the offer to our 200.
    fn early_answer_arrived(&mut self, now: Instant, tx: TxId, request: &Request, id: LegId) {
        match session_description(&request.headers, &request.body) {
            Ok(None) => self.reply(now, tx, request, StatusCode::OK),
            Ok(Some(answer)) => {
                self.reply(now, tx, request, StatusCode::OK);
                if let Some(call) = self.incoming_call(id) {
                    call.early.settled = true;
                    call.early.local_sdp.clone_from(&call.offered_early);
                }
                self.tell_leg(id, LegEvent::EarlyAnswer { answer });
            }
            Err(refusal) => self.reply_with(now, tx, request, refusal.status, &refusal.headers),
        }
        self.ring_waiting(now, id);
    }

    /// Sends what waited for a PRACK or for an open offer, when its turn has come.
    pub(super) fn ring_waiting(&mut self, now: Instant, id: LegId) {
        if self.incoming_call(id).is_none_or(|call| call.is_busy()) {
            return;
        }
        let next = self.incoming_call(id).and_then(|call| call.reliable.as_mut()?.next_waiting());
        match next {
            Some(Waiting::Ring { status, sdp }) => self.ring(now, id, status, sdp),
            Some(Waiting::Answer { sdp }) => self.answer(now, id, sdp),
            None => {}
        }
    }

    pub(super) fn incoming_timeout(&mut self, now: Instant, id: LegId) {
        self.early_timeout(now, id);
        let Some(call) = self.incoming_call(id) else { return };
        if now >= call.give_up {
            let status = match call.expires {
                true => StatusCode::REQUEST_TERMINATED,
                false => StatusCode::TEMPORARILY_UNAVAILABLE,
            };
            self.finish_incoming(now, id, status, None, &[]);
            return self.end_leg(id, EndedBy::Us, Some("not answered in time".to_owned()));
        }
        let tx = call.tx;
        match call.reliable.as_mut().and_then(|reliable| reliable.handle_timeout(now)) {
            Some(Due::Resend(bytes)) => {
                if let Some(target) = self.table.response_target(tx) {
                    metrics::counter!("tandem_sip_retransmissions_total").increment(1);
                    self.send(target, bytes);
                }
            }
            Some(Due::GiveUp) => {
                self.finish_incoming(now, id, StatusCode::SERVER_TIMEOUT, None, &[]);
                self.end_leg(
                    id,
                    EndedBy::Lost,
                    Some("a provisional response was never acknowledged".to_owned()),
                );
            }
            None => {}
        }
    }
}

/// Grants the session timer a request asks for, if it does, and says so in the 2xx (RFC 4028 section 9). The server
/// of the request is us.
pub(super) fn grant_session(
    now: Instant,
    request: &Headers,
    response: &mut Response,
    keep: bool,
) -> Option<SessionTimer> {
    // Too short an interval of a client that cannot be told so (no 422 without `timer`) is none.
    let asked = SessionExpires::read(request).filter(|asked| keep && asked.interval >= MIN_SE)?;
    let client_knows = knows_option(request, "timer");
    let granted = asked.granted(client_knows);
    response.headers.push(HeaderName::SessionExpires, granted.to_value());
    if granted.refresher == Some(Refresher::Uac) {
        response.headers.push(HeaderName::Require, HeaderValue::from_static("timer"));
    }
    Some(SessionTimer::start(now, granted.interval, granted.refresher == Some(Refresher::Uas)))
}

/// Adds a header whose value comes from the layer above; one that could break the message is left out.
pub(super) fn push_checked(headers: &mut Headers, name: &str, value: &str) {
    let Ok(value) = HeaderValue::new(value) else {
        metrics::counter!("tandem_sip_headers_refused_total").increment(1);
        return;
    };
    if headers.push_named(name, value).is_err() {
        metrics::counter!("tandem_sip_headers_refused_total").increment(1);
    }
}

/// The first Reason header, as text for a record.
pub(super) fn reason_of(headers: &Headers) -> Option<String> {
    let value = headers.get(HeaderName::Reason)?;
    let text = String::from_utf8_lossy(value);
    Some(text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect())
}

/// The Q.850 cause a Reason header gives, wherever it stands in the list (RFC 3326 allows one of each protocol).
pub(super) fn q850_of(headers: &Headers) -> Option<u16> {
    let mut reasons = headers.reasons().into_iter();
    reasons.find(|reason| reason.protocol.eq_ignore_ascii_case("Q.850"))?.cause
}

fn read_rack(value: &str) -> Option<(u32, u32)> {
    let mut words = value.split_ascii_whitespace();
    let numbers = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (words.next() == Some("INVITE")).then_some(numbers)
}

const REASON_CHARS_MAX: usize = 256;
