//! An outgoing call until its 2xx, and every 2xx after it (RFC 3261 sections 8.1, 9.1, 13.2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::auth::trunk_credentials;
use super::checks::session_description;
use super::command::{HangupReason, OutgoingInvite};
use super::event::{EndedBy, LegEvent};
use super::incoming::push_checked;
use super::legs::{Cancel, DialogKey, Established, Leg, OutgoingCall, State};
use super::reply::{accept, allow, takes};
use super::session_timer::{Refresher, SessionExpires, SessionTimer};
use super::{Purpose, UserAgent};
use crate::id::LegId;
use crate::sip::dialog::Dialog;
use crate::sip::digest::DigestClient;
use crate::sip::header::cseq::CSeq;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::headers::{HeaderName, HeaderValue, Headers};
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::transaction::{TxId, tag_in};
use crate::sip::transport::Target;
use crate::sip::trunk::Trunk;

/// An INVITE of ours that got a 2xx. Until timer M each 2xx may come again and gets its ACK again; one from a fork
/// that lost gets ACK and BYE (RFC 3261 section 13.2.2.4).
#[derive(Debug)]
pub(super) struct AnsweredInvite {
    peer: Target,
    trunk: Option<Arc<Trunk>>,
    acks: Vec<Acked>,
}

#[derive(Debug)]
struct Acked {
    remote_tag: String,
    /// Absent until the call has answered the offer in the 2xx.
    sent: Option<(Target, Bytes)>,
}

/// A BYE on its way.
#[derive(Debug)]
pub(super) struct Farewell {
    pub(super) request: Request,
    pub(super) target: Target,
    pub(super) digest: Option<DigestClient>,
}

impl UserAgent {
    pub(super) fn start_outgoing(&mut self, now: Instant, id: LegId, invite: OutgoingInvite) {
        let trunk = invite.trunk.as_deref().and_then(|name| self.trunks.named(name)).cloned();
        let credentials = invite.credentials.clone().or_else(|| trunk.as_deref().and_then(trunk_credentials));
        let digest = credentials.map(DigestClient::new);
        let key = DialogKey { call_id: self.tag(), local_tag: self.tag() };
        let request = self.first_invite(&invite, &key);
        let peer = invite.target;
        let tx = self.send_request(now, request, peer, Purpose::Invite(id));
        let call = OutgoingCall {
            tx,
            invite,
            challenges: 0,
            forks: Vec::new(),
            cancel: None,
            give_up: now + self.config.ring_timeout,
        };
        let state = State::Outgoing(Box::new(call));
        self.add_leg(id, Leg { trunk, peer, key, digest, over: false, state });
    }

    fn first_invite(&self, invite: &OutgoingInvite, key: &DialogKey) -> Request {
        let mut request = Request::new(Method::Invite, invite.to.to_request_uri());
        let from = NameAddr::new(invite.from.clone())
            .with_display_name(invite.from_display.as_deref().unwrap_or(""));
        let headers = &mut request.headers;
        headers.push(HeaderName::MaxForwards, 70);
        headers.push(HeaderName::From, from.with_tag(&key.local_tag));
        headers.push(HeaderName::To, NameAddr::new(invite.to.clone()));
        headers.push(HeaderName::CallId, HeaderValue::cleaned(&key.call_id));
        headers.push(HeaderName::CSeq, CSeq::new(1, Method::Invite));
        headers.push(HeaderName::Contact, self.contact(&invite.target));
        headers.push(HeaderName::Allow, allow());
        headers.push(HeaderName::Supported, HeaderValue::from_static("timer"));
        headers.push(HeaderName::Accept, accept());
        for (name, value) in &invite.headers {
            push_checked(headers, name, value);
        }
        if let Some(sdp) = &invite.sdp {
            request.set_body("application/sdp", sdp.clone());
        }
        request
    }

    pub(super) fn invite_response(&mut self, now: Instant, tx: TxId, id: LegId, response: Response) {
        match response.status.get() {
            100 => self.cancel_if_wanted(now, id),
            101..=199 => self.progress(now, id, &response),
            200..=299 => self.accepted(now, tx, id, &response),
            401 | 407 if self.answer_challenge(now, id, tx, &response) => {}
            _ => self.refused(id, &response),
        }
        self.rearm(id);
    }

    fn progress(&mut self, now: Instant, id: LegId, response: &Response) {
        let patience = self.config.ring_timeout;
        let Some(call) = self.outgoing_call(id) else { return };
        if call.cancel.is_none() {
            call.give_up = now + patience;
        }
        let tx = call.tx;
        let tag = tag_in(&response.headers, HeaderName::To);
        let is_new = tag.is_some_and(|tag| call.forks.iter().all(|fork| fork.remote_tag() != tag));
        if is_new && call.forks.len() < FORKS_MAX {
            let dialog =
                self.table.sent_invite(tx).and_then(|invite| Dialog::of_caller(invite, response).ok());
            if let (Some(dialog), Some(call)) = (dialog, self.outgoing_call(id)) {
                call.forks.push(dialog);
            }
        }
        self.cancel_if_wanted(now, id);
        // What we cannot read of an early description, the 200 will repeat.
        let sdp = session_description(&response.headers, &response.body).ok().flatten();
        self.tell_leg(id, LegEvent::Progress { status: response.status, sdp });
    }

    fn accepted(&mut self, now: Instant, tx: TxId, id: LegId, response: &Response) {
        if self.repeat_ack(tx, response) {
            return;
        }
        let wanted = self.outgoing_call(id).is_some_and(|call| call.cancel.is_none());
        if !wanted {
            return self.dismiss(now, tx, id, response);
        }
        let Some(Ok(dialog)) = self.table.sent_invite(tx).map(|invite| Dialog::of_caller(invite, response))
        else {
            return self.refused(id, response);
        };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let State::Outgoing(call) = &mut leg.state else { return };
        let offered = call.invite.sdp.take();
        let late = offered.is_none();
        let remote_tag = dialog.remote_tag().to_owned();
        let mut established = Established::new(dialog, true);
        established.local_sdp = offered;
        established.peer_takes_update = takes(&response.headers, &Method::Update);
        established.session = granted_session(now, &response.headers);
        established.awaiting_answer = late.then_some(tx);
        let (peer, trunk) = (leg.peer, leg.trunk.clone());
        leg.state = State::Established(Box::new(established));
        let acks = vec![Acked { remote_tag, sent: None }];
        self.answered.insert(tx, AnsweredInvite { peer, trunk, acks });
        let sdp = session_description(&response.headers, &response.body).ok().flatten();
        if !late {
            self.ack_answer(id, tx, None);
        }
        self.tell_leg(id, LegEvent::Answered { sdp });
    }

    /// Sends the ACK of the 2xx that made or changed the leg's session, and keeps it for repeats.
    pub(super) fn ack_answer(&mut self, id: LegId, tx: TxId, sdp: Option<Vec<u8>>) {
        let Some(invite) = self.table.sent_invite(tx) else { return };
        let cseq = invite.headers.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let credentials = [HeaderName::Authorization, HeaderName::ProxyAuthorization];
        let mut copied = Headers::new();
        for name in credentials {
            copied.copy_from(&invite.headers, name);
        }
        let Some(leg) = self.legs.get(&id) else { return };
        let State::Established(call) = &leg.state else { return };
        let mut ack = call.dialog.ack(cseq);
        for name in credentials {
            ack.headers.copy_from(&copied, name);
        }
        if let Some(sdp) = sdp {
            ack.set_body("application/sdp", sdp);
        }
        let target = self.dialog_target(&call.dialog, leg.peer, leg.trunk.as_deref());
        let remote_tag = call.dialog.remote_tag().to_owned();
        let bytes = self.send_ack(ack, target);
        self.keep_ack(id, tx, remote_tag, (target, bytes));
    }

    fn keep_ack(&mut self, id: LegId, tx: TxId, remote_tag: String, sent: (Target, Bytes)) {
        let Some(leg) = self.legs.get(&id) else { return };
        let (peer, trunk) = (leg.peer, leg.trunk.clone());
        let answered =
            self.answered.entry(tx).or_insert_with(|| AnsweredInvite { peer, trunk, acks: Vec::new() });
        match answered.acks.iter_mut().find(|acked| acked.remote_tag == remote_tag) {
            Some(acked) => acked.sent = Some(sent),
            None => answered.acks.push(Acked { remote_tag, sent: Some(sent) }),
        }
    }

    /// A 2xx that was seen before: its ACK was lost. Returns whether it was one.
    pub(super) fn repeat_ack(&mut self, tx: TxId, response: &Response) -> bool {
        let Some(answered) = self.answered.get(&tx) else { return false };
        let tag = tag_in(&response.headers, HeaderName::To).unwrap_or_default();
        let Some(acked) = answered.acks.iter().find(|acked| acked.remote_tag == tag) else { return false };
        if let Some((target, bytes)) = acked.sent.clone() {
            metrics::counter!("tandem_sip_retransmissions_total").increment(1);
            self.send(target, bytes);
        }
        true
    }

    /// A 2xx nobody wants, from a fork that lost or after CANCEL: ACK, then BYE.
    pub(super) fn dismiss(&mut self, now: Instant, tx: TxId, id: LegId, response: &Response) {
        let Some(invite) = self.table.sent_invite(tx) else { return };
        let Ok(mut dialog) = Dialog::of_caller(invite, response) else { return };
        let cseq = dialog.local_cseq();
        let leg = self.legs.get(&id).map(|leg| (leg.peer, leg.trunk.clone(), leg.digest.clone()));
        let kept = self.answered.get(&tx).map(|answered| (answered.peer, answered.trunk.clone(), None));
        let Some((peer, trunk, digest)) = leg.or(kept) else { return };
        let target = self.dialog_target(&dialog, peer, trunk.as_deref());
        let bytes = self.send_ack(dialog.ack(cseq), target);
        let acked = Acked { remote_tag: dialog.remote_tag().to_owned(), sent: Some((target, bytes)) };
        let answered = AnsweredInvite { peer, trunk, acks: Vec::new() };
        self.answered.entry(tx).or_insert(answered).acks.push(acked);
        let reason = HeaderValue::from(HangupReason::normal().to_header());
        self.send_bye(now, &mut dialog, target, reason, digest);
        // A cancelled call has no more to wait for.
        if self.legs.get(&id).is_some_and(|leg| leg.over) {
            self.forget_leg(id);
        }
    }

    pub(super) fn send_bye(
        &mut self,
        now: Instant,
        dialog: &mut Dialog,
        target: Target,
        reason: HeaderValue,
        digest: Option<DigestClient>,
    ) {
        let mut bye = dialog.request(Method::Bye);
        bye.headers.push(HeaderName::Reason, reason);
        let farewell = Farewell { request: bye.clone(), target, digest };
        self.send_request(now, bye, target, Purpose::Bye(Box::new(farewell)));
    }

    fn refused(&mut self, id: LegId, response: &Response) {
        if self.outgoing_call(id).is_none() {
            return;
        }
        let retry_after = response.headers.retry_after().ok().flatten();
        self.tell_leg(
            id,
            LegEvent::Failed {
                status: response.status,
                reason: printable(&response.reason),
                retry_after: retry_after.map(|s| Duration::from_secs(u64::from(s))),
            },
        );
        self.forget_leg(id);
    }

    pub(super) fn invite_unanswered(&mut self, id: LegId, status: StatusCode) {
        self.refused(id, &Response::new(status));
    }

    /// A new INVITE with credentials, in the same dialog-to-be: same Call-ID and From tag, next CSeq (RFC 3261 section
    /// 8.1.3.5). Returns whether it was sent.
    fn answer_challenge(&mut self, now: Instant, id: LegId, tx: TxId, response: &Response) -> bool {
        let Some(leg) = self.legs.get(&id) else { return false };
        let State::Outgoing(call) = &leg.state else { return false };
        if call.challenges >= CHALLENGES_MAX || call.cancel.is_some() {
            return false;
        }
        let Some(mut digest) = leg.digest.clone() else { return false };
        let target = leg.peer;
        let Some(mut request) = self.table.sent_invite(tx).cloned() else { return false };
        renumber(&mut request);
        if !self.authorize(&mut request, response, &mut digest) {
            return false;
        }
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.digest = Some(digest);
        }
        let tx = self.send_request(now, request, target, Purpose::Invite(id));
        if let Some(call) = self.outgoing_call(id) {
            call.tx = tx;
            call.challenges += 1;
            call.forks.clear();
        }
        true
    }

    /// Hang-up before the answer: CANCEL, as soon as it may be sent (section 9.1).
    pub(super) fn give_up(&mut self, now: Instant, id: LegId, reason: Option<HangupReason>) {
        let reason = reason.unwrap_or_else(HangupReason::normal);
        let give_up = now + self.config.timers.timeout();
        let Some(call) = self.outgoing_call(id) else { return };
        call.cancel = Some(Cancel { reason: HeaderValue::from(reason.to_header()), sent: false });
        call.give_up = give_up;
        self.cancel_if_wanted(now, id);
        self.tell_leg(id, LegEvent::Ended { by: EndedBy::Us, reason: Some(reason.text) });
    }

    fn cancel_if_wanted(&mut self, now: Instant, id: LegId) {
        let Some(call) = self.outgoing_call(id) else { return };
        let Some(cancel) = call.cancel.as_ref().filter(|cancel| !cancel.sent) else { return };
        let (tx, reason) = (call.tx, cancel.reason.clone());
        let Some(cancel_tx) = self.table.cancel(now, tx, Some(reason)) else { return };
        self.purposes.insert(cancel_tx, Purpose::Cancel);
        let give_up = now + self.config.timers.timeout();
        if let Some(call) = self.outgoing_call(id) {
            call.give_up = give_up;
            if let Some(cancel) = call.cancel.as_mut() {
                cancel.sent = true;
            }
        }
    }

    pub(super) fn outgoing_timeout(&mut self, now: Instant, id: LegId) {
        let patience = self.config.timers.timeout();
        let Some(call) = self.outgoing_call(id) else { return };
        if now < call.give_up {
            return;
        }
        if call.cancel.is_some() {
            // No 487 came within 64*T1 (section 9.1): the callee is gone.
            let tx = call.tx;
            self.forget_leg(id);
            return self.table.abandon(tx);
        }
        let reason = "No answer in time".to_owned();
        let cancel = HangupReason { protocol: "SIP", cause: 408, text: reason.clone() };
        let header = HeaderValue::from(cancel.to_header());
        call.cancel = Some(Cancel { reason: header, sent: false });
        call.give_up = now + patience;
        self.cancel_if_wanted(now, id);
        let status = StatusCode::REQUEST_TIMEOUT;
        self.tell_leg(id, LegEvent::Failed { status, reason, retry_after: None });
    }
}

/// Next CSeq; the old Via goes, the new transaction brings its own.
pub(super) fn renumber(request: &mut Request) {
    request.headers.remove(HeaderName::Via);
    request.headers.remove(HeaderName::UserAgent);
    if let Ok(mut cseq) = request.headers.cseq() {
        cseq.number += 1;
        request.headers.replace(HeaderName::CSeq, cseq);
    }
}

/// What a 2xx says about the session timer; the client of the request is us. Without a refresher it is us, too.
pub(super) fn granted_session(now: Instant, headers: &Headers) -> Option<SessionTimer> {
    let granted = SessionExpires::read(headers)?;
    (granted.interval >= Duration::from_secs(30))
        .then(|| SessionTimer::start(now, granted.interval, granted.refresher != Some(Refresher::Uas)))
}

/// Text of the peer without what could disturb a log or a terminal.
fn printable(value: &HeaderValue) -> String {
    value.to_text().chars().filter(|c| !c.is_control()).take(128).collect()
}

/// Early dialogs of one INVITE; more are followed only by their 2xx.
const FORKS_MAX: usize = 16;
/// A 407 of a proxy and a 401 of the callee, each perhaps stale once.
const CHALLENGES_MAX: u8 = 4;
