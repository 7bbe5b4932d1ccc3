//! An outgoing call until its 2xx, and every 2xx after it (RFC 3261 sections 8.1, 9.1, 13.2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::auth::trunk_credentials;
use super::checks::session_description;
use super::command::{HangupReason, OutgoingInvite};
use super::event::{EndedBy, Failure, LegEvent};
use super::incoming::push_checked;
use super::legs::{Cancel, DialogKey, Established, Leg, OutgoingCall, Reoffer, State};
use super::prack::Provisional;
use super::reply::{OPTIONS, accept, allow, supported_by_caller, takes};
use super::session_timer::{INTERVAL_MAX_S, MIN_SE, Refresher, SessionExpires, SessionTimer};
use super::{Purpose, UserAgent};
use crate::id::LegId;
use crate::sip::dialog::Dialog;
use crate::sip::digest::{Challenged, DigestClient};
use crate::sip::header::cseq::CSeq;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::headers::{HeaderName, HeaderValue, Headers};
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::transaction::{TxId, tag_in};
use crate::sip::transport::Target;
use crate::sip::trunk::Trunk;
use crate::sip::uri::Scheme;

/// An INVITE of ours that got a 2xx. Until timer M each 2xx may come again and gets its ACK again; one from a fork
/// that lost gets ACK and BYE (RFC 3261 section 13.2.2.4).
#[derive(Debug)]
pub(super) struct AnsweredInvite {
    peer: Target,
    trunk: Option<Arc<Trunk>>,
    acks: Vec<Acked>,
    /// The early dialogs that lost; their numbers go on in the BYE, should they answer all the same.
    losers: Vec<Dialog>,
}

#[derive(Debug)]
struct Acked {
    remote_tag: String,
    /// Absent until the call has answered the offer in the 2xx.
    sent: Option<(Target, Bytes)>,
    /// How often it was sent again.
    repeats: u8,
}

/// A BYE on its way.
#[derive(Debug)]
pub(super) struct Farewell {
    pub(super) request: Request,
    pub(super) target: Target,
    pub(super) digest: Option<DigestClient>,
    pub(super) met: Challenged,
}

impl UserAgent {
    pub(super) fn start_outgoing(&mut self, now: Instant, id: LegId, invite: OutgoingInvite) {
        let named = |name| self.trunks.named(name).cloned().or_else(|| self.phones.trunk(name));
        let trunk = invite.trunk.as_deref().and_then(named);
        let credentials = invite.credentials.clone().or_else(|| trunk.as_deref().and_then(trunk_credentials));
        let digest = credentials.map(DigestClient::new);
        let fresh = self.tag();
        let call_id = invite.call_id.clone().filter(|id| is_call_id(id)).unwrap_or(fresh);
        let key = DialogKey { call_id, local_tag: self.tag() };
        let ring_until = invite.ring_timeout.map(|patience| now + patience);
        let request = self.first_invite(&invite, &key);
        let peer = invite.target;
        let tx = self.send_request(now, request, peer, Purpose::Invite(id));
        let call = OutgoingCall {
            tx,
            invite,
            met: Challenged::default(),
            intervals: 0,
            forks: Vec::new(),
            cancel: None,
            give_up: now + self.config.ring_timeout,
            ring_until,
        };
        let state = State::Outgoing(Box::new(call));
        self.add_leg(id, Leg { trunk, peer, key, digest, over: false, state });
    }

    fn first_invite(&self, invite: &OutgoingInvite, key: &DialogKey) -> Request {
        let uri = invite.request_uri.as_ref().unwrap_or(&invite.to).to_request_uri();
        let mut request = Request::new(Method::Invite, uri);
        let name = invite.from_display.as_deref().filter(|_| !invite.privacy).unwrap_or_default();
        let from = NameAddr::new(invite.from.clone()).with_display_name(name);
        let headers = &mut request.headers;
        for route in &invite.route {
            headers.push(HeaderName::Route, NameAddr::new(route.clone()));
        }
        headers.push(HeaderName::MaxForwards, u32::from(invite.max_forwards));
        headers.push(HeaderName::From, from.with_tag(&key.local_tag));
        headers.push(HeaderName::To, NameAddr::new(invite.to.clone()));
        headers.push(HeaderName::CallId, HeaderValue::cleaned(&key.call_id));
        headers.push(HeaderName::CSeq, CSeq::new(1, Method::Invite));
        headers.push(HeaderName::Contact, self.contact(&invite.target));
        headers.push(HeaderName::Allow, allow());
        headers.push(HeaderName::Supported, supported_by_caller(invite.reliable));
        headers.push(HeaderName::Accept, accept());
        self.push_wishes(headers, invite);
        for (name, value) in &invite.headers {
            push_checked(headers, name, value);
        }
        if let Some(sdp) = &invite.sdp {
            request.set_body("application/sdp", sdp.clone());
        }
        request
    }

    /// Session timer, Expires and Replaces.
    fn push_wishes(&self, headers: &mut Headers, invite: &OutgoingInvite) {
        if let Some(interval) = invite.session_expires {
            let min = self.config.min_session_expires.max(MIN_SE);
            push_interval(headers, interval.max(min), min);
        }
        if let Some(patience) = invite.ring_timeout.filter(|_| invite.expires) {
            headers.push(HeaderName::Expires, seconds(patience.max(Duration::from_secs(1))));
        }
        if let Some(replaces) = &invite.replaces {
            headers.push(HeaderName::Require, HeaderValue::from_static("replaces"));
            headers.push(HeaderName::Replaces, HeaderValue::cleaned(replaces.to_text()));
        }
    }

    pub(super) fn invite_response(&mut self, now: Instant, tx: TxId, id: LegId, response: Response) {
        match response.status.get() {
            100 => {
                self.cancel_if_wanted(now, id);
                let (status, fork) = (response.status, 0);
                self.tell_leg(
                    id,
                    LegEvent::Progress { status, sdp: None, fork, early_media_authorized: None },
                );
            }
            101..=199 => self.progress(now, tx, id, &response),
            200..=299 => self.accepted(now, tx, id, &response),
            401 | 407 if self.answer_challenge(now, id, tx, &response) => {}
            421 if self.say_more_support(now, id, tx, &response) => {}
            422 if self.lengthen_session(now, id, tx, &response) => {}
            _ => self.refused(now, id, &response, Failure::of(&response)),
        }
        self.rearm(id);
    }

    fn progress(&mut self, now: Instant, tx: TxId, id: LegId, response: &Response) {
        let patience = self.config.ring_timeout;
        let Some(call) = self.outgoing_call(id).filter(|call| call.tx == tx) else { return };
        if call.cancel.is_none() {
            call.give_up = now + patience;
        }
        let at = self.fork_of(id, tx, response);
        let reliability = at.map_or(Provisional::Plain, |at| self.reliability(id, at, response));
        self.cancel_if_wanted(now, id);
        if reliability == Provisional::Ignored {
            return;
        }
        // What we cannot read of an early description, the 200 will repeat.
        let mut sdp = session_description(&response.headers, &response.body).ok().flatten();
        if let (Some(at), Provisional::Next(rseq)) = (at, reliability)
            && self.acknowledge_provisional(now, id, at, rseq, response, sdp.as_deref())
        {
            sdp = None;
        }
        let progress = LegEvent::Progress {
            status: response.status,
            sdp,
            fork: at.and_then(|at| u16::try_from(at).ok()).unwrap_or_default(),
            early_media_authorized: early_media(&response.headers),
        };
        self.tell_leg(id, progress);
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
            return self.refused(now, id, response, Failure::of(response));
        };
        let remote_tag = dialog.remote_tag().to_owned();
        self.close_early(now, id);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let State::Outgoing(call) = &mut leg.state else { return };
        let mut forks = std::mem::take(&mut call.forks);
        let place = forks.iter().position(|fork| fork.dialog.remote_tag() == remote_tag);
        let early = place.map(|at| forks.swap_remove(at));
        let offered = call.invite.sdp.take();
        let min_interval = self.table.sent_invite(tx).and_then(|invite| min_interval(&invite.headers));
        let late = offered.is_none() && early.as_ref().is_none_or(|fork| !fork.early.settled);
        let dialog = early.iter().fold(dialog, |dialog, fork| dialog.continuing(&fork.dialog));
        let mut established = Established::new(dialog, true);
        established.local_sdp = offered;
        established.peer_takes_update = takes(&response.headers, &Method::Update);
        established.session = granted_session(now, &response.headers);
        established.min_interval = min_interval;
        established.awaiting_answer = late.then_some(tx);
        if let Some(fork) = early {
            established.peer_takes_update |= fork.takes_update;
            established.local_sdp = fork.early.local_sdp.or(established.local_sdp.take());
            if let Some(tx) = fork.early.pending {
                established.reoffer =
                    Reoffer::Pending { tx, sdp: Vec::new(), tries: 0, met: Challenged::default() };
            }
        }
        let (peer, trunk) = (leg.peer, leg.trunk.clone());
        leg.state = State::Established(Box::new(established));
        let acks = vec![Acked { remote_tag, sent: None, repeats: 0 }];
        let losers = forks.into_iter().map(|fork| fork.dialog).collect();
        self.answered.insert(tx, AnsweredInvite { peer, trunk, acks, losers });
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
        let answered = self.answered.entry(tx).or_insert_with(|| AnsweredInvite {
            peer,
            trunk,
            acks: Vec::new(),
            losers: Vec::new(),
        });
        match answered.acks.iter_mut().find(|acked| acked.remote_tag == remote_tag) {
            Some(acked) => acked.sent = Some(sent),
            None => answered.acks.push(Acked { remote_tag, sent: Some(sent), repeats: 0 }),
        }
    }

    /// A 2xx that was seen before: its ACK was lost. Returns whether it was one.
    pub(super) fn repeat_ack(&mut self, tx: TxId, response: &Response) -> bool {
        let Some(answered) = self.answered.get_mut(&tx) else { return false };
        let tag = tag_in(&response.headers, HeaderName::To).unwrap_or_default();
        let Some(acked) = answered.acks.iter_mut().find(|acked| acked.remote_tag == tag) else {
            return false;
        };
        acked.repeats = acked.repeats.saturating_add(1);
        if let Some((target, bytes)) = acked.sent.clone().filter(|_| acked.repeats <= ACK_REPEATS_MAX) {
            metrics::counter!("tandem_sip_retransmissions_total").increment(1);
            self.send(target, bytes);
        }
        true
    }

    /// A 2xx nobody wants, from a fork that lost or after CANCEL: ACK, then BYE.
    pub(super) fn dismiss(&mut self, now: Instant, tx: TxId, id: LegId, response: &Response) {
        let Some(invite) = self.table.sent_invite(tx) else { return };
        let Ok(dialog) = Dialog::of_caller(invite, response) else { return };
        let cseq = dialog.local_cseq();
        let mut dialog = match self.early_dialog(tx, id, dialog.remote_tag()) {
            Some(early) => dialog.continuing(early),
            None => dialog,
        };
        let leg = self.legs.get(&id).map(|leg| (leg.peer, leg.trunk.clone(), leg.digest.clone()));
        let kept = self.answered.get(&tx).map(|answered| (answered.peer, answered.trunk.clone(), None));
        let Some((peer, trunk, digest)) = leg.or(kept) else { return };
        let target = self.dialog_target(&dialog, peer, trunk.as_deref());
        let bytes = self.send_ack(dialog.ack(cseq), target);
        let remote_tag = dialog.remote_tag().to_owned();
        let acked = Acked { remote_tag, sent: Some((target, bytes)), repeats: 0 };
        let answered = AnsweredInvite { peer, trunk, acks: Vec::new(), losers: Vec::new() };
        self.answered.entry(tx).or_insert(answered).acks.push(acked);
        let reason = HeaderValue::from(HangupReason::normal().to_header());
        self.send_bye(now, &mut dialog, target, reason, digest);
        // A cancelled call has no more to wait for.
        if self.legs.get(&id).is_some_and(|leg| leg.over) {
            self.forget_leg(id);
        }
    }

    /// A re-INVITE of ours that is still open: its 2xx wants an ACK, though the call is over.
    pub(super) fn expect_late_2xx(&mut self, leg: &Leg) {
        let State::Established(call) = &leg.state else { return };
        let Reoffer::Pending { tx, .. } = &call.reoffer else { return };
        if self.table.is_pending(*tx) {
            let (peer, trunk, losers) = (leg.peer, leg.trunk.clone(), vec![call.dialog.clone()]);
            self.answered.insert(*tx, AnsweredInvite { peer, trunk, acks: Vec::new(), losers });
        }
    }

    /// The 2xx to a re-INVITE of a call that is over.
    pub(super) fn ack_late(&mut self, tx: TxId, response: &Response) {
        let tag = tag_in(&response.headers, HeaderName::To).unwrap_or_default();
        let cseq = response.headers.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let Some(kept) = self.answered.get(&tx) else { return };
        let Some(dialog) = kept.losers.iter().find(|dialog| dialog.remote_tag() == tag) else { return };
        let target = self.dialog_target(dialog, kept.peer, kept.trunk.as_deref());
        let (ack, remote_tag) = (dialog.ack(cseq), tag.to_owned());
        let bytes = self.send_ack(ack, target);
        if let Some(kept) = self.answered.get_mut(&tx) {
            kept.acks.push(Acked { remote_tag, sent: Some((target, bytes)), repeats: 0 });
        }
    }

    /// The early dialog that a late 2xx belongs to.
    fn early_dialog(&self, tx: TxId, id: LegId, tag: &str) -> Option<&Dialog> {
        let lost = self.answered.get(&tx).into_iter().flat_map(|answered| &answered.losers);
        let early = self.legs.get(&id).into_iter().flat_map(Leg::dialogs);
        lost.chain(early).find(|dialog| dialog.remote_tag() == tag)
    }

    pub(super) fn send_bye(
        &mut self,
        now: Instant,
        dialog: &mut Dialog,
        target: Target,
        reason: HeaderValue,
        mut digest: Option<DigestClient>,
    ) {
        let mut bye = dialog.request(Method::Bye);
        bye.headers.push(HeaderName::Reason, reason);
        if let Some(digest) = digest.as_mut().filter(|digest| digest.is_asked()) {
            self.put_credentials(&mut bye, digest);
        }
        let farewell = Farewell { request: bye.clone(), target, digest, met: Challenged::default() };
        self.send_request(now, bye, target, Purpose::Bye(Box::new(farewell)));
    }

    fn refused(&mut self, now: Instant, id: LegId, response: &Response, details: Failure) {
        if self.outgoing_call(id).is_none() {
            return;
        }
        self.close_early(now, id);
        let retry_after = response.headers.retry_after().ok().flatten();
        self.tell_leg(
            id,
            LegEvent::Failed {
                status: response.status,
                reason: printable(&response.reason),
                retry_after: retry_after.map(|s| Duration::from_secs(u64::from(s))),
                details: Box::new(details),
            },
        );
        self.expect_crossing_2xx(id);
        self.forget_leg(id);
    }

    /// A 2xx that crossed the refusal is still to be ended, until the transaction is over.
    fn expect_crossing_2xx(&mut self, id: LegId) {
        let Some(leg) = self.legs.get(&id) else { return };
        let State::Outgoing(call) = &leg.state else { return };
        if self.table.sent_invite(call.tx).is_some() {
            let losers = leg.dialogs().cloned().collect();
            let (peer, trunk) = (leg.peer, leg.trunk.clone());
            self.answered.insert(call.tx, AnsweredInvite { peer, trunk, acks: Vec::new(), losers });
        }
    }

    pub(super) fn invite_unanswered(&mut self, now: Instant, id: LegId, status: StatusCode) {
        let timed_out = status == StatusCode::REQUEST_TIMEOUT;
        let details = Failure { timed_out, transport_failed: !timed_out, ..Failure::default() };
        self.refused(now, id, &Response::new(status), details);
    }

    /// A new INVITE with credentials. Returns whether it was sent.
    fn answer_challenge(&mut self, now: Instant, id: LegId, tx: TxId, response: &Response) -> bool {
        let Some(leg) = self.legs.get(&id) else { return false };
        let State::Outgoing(call) = &leg.state else { return false };
        let Some(mut digest) = leg.digest.clone().filter(|_| call.cancel.is_none()) else { return false };
        let mut met = call.met.clone();
        let Some(mut request) = self.table.sent_invite(tx).cloned() else { return false };
        if !self.authorize(&mut request, response, &mut digest, &mut met) {
            return false;
        }
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.digest = Some(digest);
        }
        if let Some(call) = self.outgoing_call(id) {
            call.met = met;
        }
        self.invite_again(now, id, request)
    }

    /// The INVITE of a call once more, changed: in the same dialog-to-be, with the same Call-ID and From tag, the next
    /// CSeq (RFC 3261 section 8.1.3.5) and a branch of its own.
    fn invite_again(&mut self, now: Instant, id: LegId, mut request: Request) -> bool {
        self.close_early(now, id);
        let Some(target) = self.legs.get(&id).map(|leg| leg.peer) else { return false };
        renumber(&mut request);
        let tx = self.send_request(now, request, target, Purpose::Invite(id));
        if let Some(call) = self.outgoing_call(id) {
            call.tx = tx;
            call.forks.clear();
        }
        true
    }

    /// 422: the INVITE again with an interval that is long enough for who refused (RFC 4028 section 7.3). Returns
    /// whether it was sent.
    fn lengthen_session(&mut self, now: Instant, id: LegId, tx: TxId, response: &Response) -> bool {
        let Some(min) = min_interval(&response.headers) else { return false };
        let min = min.max(self.config.min_session_expires).max(MIN_SE);
        let Some(call) = self.outgoing_call(id).filter(|call| call.cancel.is_none()) else { return false };
        let Some(asked) = call.invite.session_expires.filter(|_| call.intervals < INTERVALS_MAX) else {
            return false;
        };
        call.intervals += 1;
        call.invite.session_expires = Some(asked.max(min));
        let Some(mut request) = self.table.sent_invite(tx).cloned() else { return false };
        push_interval(&mut request.headers, asked.max(min), min);
        self.authorize_unasked(id, &mut request);
        self.invite_again(now, id, request)
    }

    /// 421: the INVITE again, saying that we know what the callee insists on, if we do and had not said so (section
    /// 21.4.16). Returns whether it was sent.
    fn say_more_support(&mut self, now: Instant, id: LegId, tx: TxId, response: &Response) -> bool {
        let wanted = response.headers.require().unwrap_or_default();
        let known = |tag: &&str| OPTIONS.iter().any(|ours| ours.eq_ignore_ascii_case(tag));
        if wanted.is_empty() || !wanted.iter().all(known) {
            return false;
        }
        let Some(call) = self.outgoing_call(id) else { return false };
        if call.invite.reliable || call.cancel.is_some() {
            return false;
        }
        call.invite.reliable = true;
        let Some(mut request) = self.table.sent_invite(tx).cloned() else { return false };
        request.headers.replace(HeaderName::Supported, supported_by_caller(true));
        self.authorize_unasked(id, &mut request);
        self.invite_again(now, id, request)
    }

    /// Hang-up before the answer: CANCEL, as soon as it may be sent (section 9.1).
    pub(super) fn give_up(&mut self, now: Instant, id: LegId, reason: Option<HangupReason>) {
        let reason = reason.unwrap_or_else(HangupReason::normal);
        let give_up = now + self.config.timers.timeout();
        self.close_early(now, id);
        let Some(call) = self.outgoing_call(id) else { return };
        call.cancel = Some(Cancel { reason: HeaderValue::from(reason.to_header()), sent: false });
        call.give_up = give_up;
        self.cancel_if_wanted(now, id);
        self.tell_leg(id, LegEvent::Ended { by: EndedBy::Us, reason: Some(reason.text), cause: None });
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
        self.early_timeout(now, id);
        let Some(call) = self.outgoing_call(id) else { return };
        if now < call.deadline() {
            return;
        }
        if call.cancel.is_some() {
            // No 487 came within 64*T1 (section 9.1): the callee is gone.
            let tx = call.tx;
            self.close_early(now, id);
            self.forget_leg(id);
            return self.table.abandon(tx);
        }
        self.close_early(now, id);
        let Some(call) = self.outgoing_call(id) else { return };
        let reason = "No answer in time".to_owned();
        let cancel = HangupReason { protocol: "SIP", cause: 408, text: reason.clone() };
        let header = HeaderValue::from(cancel.to_header());
        call.cancel = Some(Cancel { reason: header, sent: false });
        call.give_up = now + patience;
        self.cancel_if_wanted(now, id);
        let status = StatusCode::REQUEST_TIMEOUT;
        let details = Box::new(Failure { timed_out: true, ..Failure::default() });
        self.tell_leg(id, LegEvent::Failed { status, reason, retry_after: None, details });
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

impl Failure {
    fn of(response: &Response) -> Self {
        let headers = &response.headers;
        let mut contacts: Vec<(NameAddr, u16)> = match response.status.class() {
            3 => headers.values(HeaderName::Contact).filter_map(read_contact).take(CONTACTS_MAX).collect(),
            _ => Vec::new(),
        };
        contacts.sort_by_key(|(_, q)| std::cmp::Reverse(*q));
        let told = headers.iter().filter(|(name, _)| is_telling(name));
        let told = told.map(|(name, value)| (name.to_owned(), cut(value)));
        Self {
            contacts,
            causes: headers.reasons(),
            timed_out: false,
            transport_failed: false,
            headers: told.take(TOLD_MAX).collect(),
        }
    }
}

/// A place to call instead, and how much it is preferred in thousandths; without `q` as much as can be.
fn read_contact(value: &[u8]) -> Option<(NameAddr, u16)> {
    let contact = NameAddr::parse(value).ok().filter(|contact| contact.uri.scheme() != Scheme::Other)?;
    let q = contact.params.get_str("q").and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(1.0);
    let q = if q.is_finite() { (q.clamp(0.0, 1.0) * 1_000.0).round() as u16 } else { 1_000 };
    Some((contact, q))
}

/// Headers of a refusal that the layer above may want to see.
fn is_telling(name: &str) -> bool {
    let own = name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("X-"));
    own || ["Warning", "Identity-Info"].iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn cut(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(TOLD_OCTETS_MAX)]);
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Whether the callee may send media before its answer (RFC 5009 section 8).
fn early_media(headers: &Headers) -> Option<bool> {
    let row = headers.get("P-Early-Media")?;
    let mut words = row.split(|b| matches!(b, b',' | b';')).map(<[u8]>::trim_ascii);
    words.find_map(|word| match word.to_ascii_lowercase().as_slice() {
        b"sendrecv" | b"sendonly" => Some(true),
        b"recvonly" | b"inactive" => Some(false),
        _ => None,
    })
}

/// The smallest interval a 422 permits.
pub(super) fn min_interval(headers: &Headers) -> Option<Duration> {
    let min = headers.number(HeaderName::MinSe).ok().flatten()?;
    Some(Duration::from_secs(u64::from(min.min(INTERVAL_MAX_S))))
}

fn push_interval(headers: &mut Headers, interval: Duration, min: Duration) {
    headers.replace(HeaderName::SessionExpires, seconds(interval));
    headers.replace(HeaderName::MinSe, seconds(min));
}

pub(super) fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

fn is_call_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Text of the peer without what could disturb a log or a terminal.
fn printable(value: &HeaderValue) -> String {
    value.to_text().chars().filter(|c| !c.is_control()).take(128).collect()
}

/// A 2xx comes at most 11 times (section 13.3.1.4), perhaps doubled by the network. A peer that answers every ACK with
/// its 2xx would keep both of us busy for as long as the transaction lasts.
const ACK_REPEATS_MAX: u8 = 64;
/// Each element on the way may want a longer interval than the one before.
const INTERVALS_MAX: u8 = 3;
const CONTACTS_MAX: usize = 16;
const TOLD_MAX: usize = 16;
const TOLD_OCTETS_MAX: usize = 256;
