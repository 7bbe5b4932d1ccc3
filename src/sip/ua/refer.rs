//! Call transfer: REFER both ways, its implicit subscription, and Replaces (RFC 3515, 3891, 3892, 4488, 7647).

use std::time::{Duration, Instant};

use super::checks::Refusal;
use super::legs::{Leg, State};
use super::said::What;
use super::{DialogKey, LegEvent, UserAgent};
use crate::id::LegId;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::header::params::Params;
use crate::sip::headers::{HeaderName, HeaderValue, Headers};
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::transaction::TxId;
use crate::sip::uri::{self, Scheme, Uri};

/// A transfer we ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referral {
    /// Whom the peer is to call.
    pub to: Uri,
    /// The dialog its call is to replace there: an attended transfer.
    pub replaces: Option<ReplacesRef>,
    /// Who asks, for `Referred-By` (RFC 3892).
    pub referred_by: Option<Uri>,
}

/// A dialog as `Replaces` names it: the tags are those of the one who is to match it (RFC 3891 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacesRef {
    /// The Call-ID.
    pub call_id: String,
    /// The tag of the one who matches.
    pub to_tag: String,
    /// The tag of its peer.
    pub from_tag: String,
    /// Only while that dialog is early.
    pub early_only: bool,
}

/// A transfer the peer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferAsked {
    /// Whom to call, without headers.
    pub to: Uri,
    /// The dialog that call is to replace.
    pub replaces: Option<ReplacesRef>,
    /// That dialog is this leg of ours.
    pub ours: Option<LegId>,
    /// Who asks, by `Referred-By`.
    pub referred_by: Option<Uri>,
    /// Whether the peer wants to hear what becomes of it.
    pub notify: bool,
}

/// What becomes of a transfer we asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferNews {
    /// The peer tries it.
    Accepted,
    /// A provisional status of its call.
    Progress(u16),
    /// The final status of its call.
    Done(u16),
    /// The peer does not want to: the status of its refusal.
    Refused(u16),
    /// No final NOTIFY within 60 s, or the peer hung up before one.
    Lost,
}

/// A REFER of the peer, and the subscription it makes.
#[derive(Debug)]
pub(super) struct TransferIn {
    stage: Stage,
    notify: bool,
    /// `refer`, with an id from the second REFER on.
    event: HeaderValue,
    /// A NOTIFY is under way; the next one waits in `next`, only the latest counts.
    notifying: bool,
    next: Option<(StatusCode, Option<String>)>,
    /// What was told last.
    last: StatusCode,
}

#[derive(Debug)]
enum Stage {
    /// The call has to accept or reject.
    Asked { tx: TxId, request: Box<Request>, give_up: Instant },
    /// Accepted; the subscription lasts so long.
    Running { until: Instant },
}

impl TransferIn {
    pub(super) fn next_timeout(&self) -> Instant {
        match &self.stage {
            Stage::Asked { give_up, .. } => *give_up,
            Stage::Running { until } => *until,
        }
    }
}

/// A REFER of ours.
#[derive(Debug)]
pub(super) struct TransferOut {
    cseq: u32,
    accepted: bool,
    /// When we stop waiting for the final NOTIFY; absent when the transfer is decided. NOTIFYs that come after that are
    /// still answered.
    guard: Option<Instant>,
}

impl TransferOut {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.guard
    }
}

impl ReplacesRef {
    /// Reads a Replaces value.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let end = value.iter().position(|b| *b == b';')?;
        let call_id = std::str::from_utf8(&value[..end]).ok()?.trim();
        let visible = !call_id.is_empty() && call_id.bytes().all(|b| b.is_ascii_graphic());
        let params = Params::parse(&value[end..]).ok()?;
        let tag = |name| params.get_str(name).filter(|tag| !tag.is_empty()).map(str::to_owned);
        visible.then_some(())?;
        Some(Self {
            call_id: call_id.to_owned(),
            to_tag: tag("to-tag")?,
            from_tag: tag("from-tag")?,
            early_only: params.contains("early-only"),
        })
    }

    /// As it stands in a header.
    pub(super) fn to_text(&self) -> String {
        let early_only = if self.early_only { ";early-only" } else { "" };
        format!("{};to-tag={};from-tag={}{early_only}", self.call_id, self.to_tag, self.from_tag)
    }

    /// As it stands behind the `?` of a URI.
    fn escaped(&self) -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&b);
        let mut out = String::new();
        for byte in self.to_text().bytes() {
            match plain(byte) {
                true => out.push(char::from(byte)),
                false => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    }

    /// This dialog as the other end names it.
    fn turned(&self) -> Self {
        let (to_tag, from_tag) = (self.from_tag.clone(), self.to_tag.clone());
        Self { to_tag, from_tag, ..self.clone() }
    }
}

impl UserAgent {
    /// The leg whose place an INVITE is to take, if it asks for one (RFC 3891 section 3).
    pub(super) fn replaced_by(&self, request: &Request) -> Result<Option<LegId>, Refusal> {
        let mut rows = request.headers.rows(HeaderName::Replaces);
        let Some(row) = rows.next() else { return Ok(None) };
        let bad = || Refusal::bare(StatusCode::BAD_REQUEST);
        let asked = ReplacesRef::parse(row).filter(|_| rows.next().is_none()).ok_or_else(bad)?;
        let missing = || Refusal::bare(StatusCode::CALL_DOES_NOT_EXIST);
        let Some((id, leg)) = self.named_by(&asked) else {
            let ended = self.ended.iter().any(|(key, tag)| asked.names(key, tag));
            return Err(if ended { Refusal::bare(StatusCode::DECLINE) } else { missing() });
        };
        match &leg.state {
            _ if leg.over => Err(Refusal::bare(StatusCode::DECLINE)),
            State::Established(_) if asked.early_only => Err(Refusal::bare(StatusCode::BUSY_HERE)),
            State::Established(_) | State::Outgoing(_) => Ok(Some(id)),
            // An early dialog that we did not begin is not replaced.
            State::Incoming(_) => Err(missing()),
        }
    }

    fn named_by(&self, asked: &ReplacesRef) -> Option<(LegId, &Leg)> {
        let key = DialogKey { call_id: asked.call_id.clone(), local_tag: asked.to_tag.clone() };
        let id = *self.dialogs.get(&key)?;
        let leg = self.legs.get(&id)?;
        leg.dialogs().any(|dialog| dialog.remote_tag() == asked.from_tag).then_some((id, leg))
    }

    /// Keeps the name of a dialog that ended, for a Replaces that comes too late.
    pub(super) fn remember_ended(&mut self, leg: &Leg) {
        let State::Established(call) = &leg.state else { return };
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back((leg.key.clone(), call.dialog.remote_tag().to_owned()));
    }

    pub(super) fn refer_arrived(&mut self, now: Instant, tx: TxId, request: Request, id: LegId) {
        let asked = match self.read_refer(&request, id) {
            Ok(asked) => asked,
            Err(refusal) => return self.reply_with(now, tx, &request, refusal.status, &refusal.headers),
        };
        let number = request.headers.cseq().map(|cseq| cseq.number).unwrap_or_default();
        let Some(call) = self.established(id) else { return };
        call.refers += 1;
        let event = match call.refers {
            1 => HeaderValue::from_static("refer"),
            _ => HeaderValue::cleaned(format!("refer;id={number}")),
        };
        call.transfer_in = Some(TransferIn {
            stage: Stage::Asked { tx, request: Box::new(request), give_up: now + DECISION_TIME },
            notify: asked.notify,
            event,
            notifying: false,
            next: None,
            last: StatusCode::TRYING,
        });
        self.tell_leg(id, LegEvent::Transfer(Box::new(asked)));
    }

    fn read_refer(&mut self, request: &Request, id: LegId) -> Result<TransferAsked, Refusal> {
        let bad = Refusal::bare(StatusCode::BAD_REQUEST);
        let mut targets = request.headers.addresses(HeaderName::ReferTo).map_err(|_| bad)?;
        let (Some(to), true) = (targets.pop(), targets.is_empty()) else {
            return Err(Refusal::bare(StatusCode::BAD_REQUEST));
        };
        if to.uri.scheme() == Scheme::Other {
            return Err(Refusal::bare(StatusCode::UNSUPPORTED_URI_SCHEME));
        }
        if to.uri.param("method").is_some_and(|method| !method.eq_ignore_ascii_case("INVITE")) {
            return Err(Refusal::bare(StatusCode::DECLINE));
        }
        let replaces = read_escaped_replaces(&to.uri)?;
        match self.legs.get(&id).map(|leg| (leg.over, &leg.state)) {
            None | Some((true, _)) => return Err(Refusal::bare(StatusCode::CALL_DOES_NOT_EXIST)),
            Some((false, State::Established(call))) if call.transfer_in.is_some() => {
                return Err(Refusal::bare(StatusCode::REQUEST_PENDING));
            }
            Some((false, State::Established(_))) => {}
            Some((false, State::Incoming(_) | State::Outgoing(_))) => {
                return Err(Refusal::bare(StatusCode::DECLINE));
            }
        }
        let ours = replaces.as_ref().and_then(|replaces| {
            self.named_by(replaces).or_else(|| self.named_by(&replaces.turned())).map(|(leg, _)| leg)
        });
        let by = request.headers.addresses(HeaderName::ReferredBy).ok();
        Ok(TransferAsked {
            to: to.uri.to_request_uri(),
            replaces,
            ours,
            referred_by: by.and_then(|by| by.into_iter().next()).map(|by| by.uri),
            notify: !says_no_subscription(&request.headers),
        })
    }

    pub(super) fn accept_transfer(&mut self, now: Instant, id: LegId) {
        let Some(call) = self.established(id) else { return };
        let Some(transfer) = call.transfer_in.as_mut() else { return };
        let running = Stage::Running { until: now + SUBSCRIPTION_TIME };
        let Stage::Asked { tx, request, .. } = std::mem::replace(&mut transfer.stage, running) else {
            return;
        };
        let notify = transfer.notify;
        if !notify {
            call.transfer_in = None;
        }
        let Some(leg) = self.legs.get(&id) else { return };
        let mut response =
            self.dialog_response(&request, StatusCode::ACCEPTED, &leg.key.local_tag, &leg.peer);
        response.headers.remove(HeaderName::RecordRoute);
        if !notify {
            response.headers.push(HeaderName::ReferSub, HeaderValue::from_static("false"));
        }
        self.table.respond(now, tx, &response);
        if notify {
            self.notify(now, id, StatusCode::TRYING, None);
        }
    }

    pub(super) fn reject_transfer(&mut self, now: Instant, id: LegId, status: StatusCode) {
        let status = if status.get() < 300 { StatusCode::DECLINE } else { status };
        let open = |call: &mut super::legs::Established| {
            call.transfer_in.take_if(|transfer| matches!(transfer.stage, Stage::Asked { .. }))
        };
        let Some(transfer) = self.established(id).and_then(open) else { return };
        let Some(leg) = self.legs.get(&id) else { return };
        if let Stage::Asked { tx, request, .. } = transfer.stage {
            let response = self.response_to(&request, status, &leg.key.local_tag);
            self.table.respond(now, tx, &response);
        }
    }

    pub(super) fn transfer_progress(
        &mut self,
        now: Instant,
        id: LegId,
        status: StatusCode,
        reason: Option<String>,
    ) {
        let running = |call: &super::legs::Established| {
            matches!(call.transfer_in, Some(TransferIn { stage: Stage::Running { .. }, .. }))
        };
        if self.established(id).is_some_and(|call| running(call)) {
            self.notify(now, id, status, reason);
        }
    }

    /// Tells the transferor, when what was told before has its answer.
    fn notify(&mut self, now: Instant, id: LegId, status: StatusCode, reason: Option<String>) {
        let Some(transfer) = self.established(id).and_then(|call| call.transfer_in.as_mut()) else { return };
        if transfer.notifying {
            transfer.next = Some((status, reason));
            return;
        }
        let state = match status.is_final() {
            true => HeaderValue::from_static("terminated;reason=noresource"),
            false => {
                let left = transfer.next_timeout().saturating_duration_since(now).as_secs();
                HeaderValue::cleaned(format!("active;expires={left}"))
            }
        };
        self.send_notify(now, id, status, reason, state);
    }

    fn send_notify(
        &mut self,
        now: Instant,
        id: LegId,
        status: StatusCode,
        reason: Option<String>,
        state: HeaderValue,
    ) {
        let Some(call) = self.established(id) else { return };
        let Some(transfer) = call.transfer_in.as_mut() else { return };
        transfer.notifying = true;
        transfer.last = status;
        let event = transfer.event.clone();
        let Some((mut request, target)) = self.dialog_request_of(id, Method::Notify) else { return };
        request.headers.push(HeaderName::Event, event);
        let ends = state.as_bytes().starts_with(b"terminated");
        request.headers.push(HeaderName::SubscriptionState, state);
        request.headers.push(HeaderName::Contact, self.contact(&target));
        request.set_body(SIPFRAG, sipfrag(status, reason));
        self.say(now, id, What::Notify, request, target);
        if let Some(call) = self.established(id).filter(|_| ends) {
            call.transfer_in = None;
        }
    }

    pub(super) fn notify_answered(&mut self, now: Instant, id: LegId, status: StatusCode) {
        let Some(call) = self.established(id) else { return };
        let Some(transfer) = call.transfer_in.as_mut() else { return };
        transfer.notifying = false;
        if !status.is_success() {
            // The subscription is gone; the call is another matter (RFC 5057).
            call.transfer_in = None;
        } else if let Some((status, reason)) = transfer.next.take() {
            self.notify(now, id, status, reason);
        }
    }

    /// The leg ends: an open REFER is refused, and what waits to be told is told.
    pub(super) fn close_transfers(&mut self, now: Instant, id: LegId) {
        self.reject_transfer(now, id, StatusCode::REQUEST_TERMINATED);
        let Some(call) = self.established(id) else { return };
        if let Some(transfer) = call.transfer_in.as_mut() {
            transfer.notifying = false;
            if let Some((status, reason)) = transfer.next.take_if(|(status, _)| status.is_final()) {
                self.notify(now, id, status, reason);
            }
        }
        let Some(call) = self.established(id) else { return };
        if call.transfer_out.as_mut().is_some_and(|transfer| transfer.guard.take().is_some()) {
            self.tell_leg(id, LegEvent::Transferring(TransferNews::Lost));
        }
    }

    pub(super) fn transfer_timeout(&mut self, now: Instant, id: LegId) {
        let Some(call) = self.established(id) else { return };
        let lost = call
            .transfer_out
            .as_mut()
            .is_some_and(|transfer| transfer.guard.take_if(|guard| now >= *guard).is_some());
        if lost {
            self.tell_leg(id, LegEvent::Transferring(TransferNews::Lost));
        }
        let Some(transfer) = self.established(id).and_then(|call| call.transfer_in.as_mut()) else { return };
        if now < transfer.next_timeout() {
            return;
        }
        let last = transfer.last;
        match transfer.stage {
            Stage::Asked { .. } => self.reject_transfer(now, id, StatusCode::DECLINE),
            Stage::Running { .. } => {
                let state = HeaderValue::from_static("terminated;reason=timeout");
                self.send_notify(now, id, last, None, state);
            }
        }
    }

    /// Asks the peer to call somebody else.
    pub(super) fn refer(&mut self, now: Instant, id: LegId, referral: &Referral) {
        let Some(call) = self.established(id) else { return };
        if call.transfer_out.as_ref().is_some_and(|transfer| transfer.guard.is_some()) {
            let pending = StatusCode::REQUEST_PENDING.get();
            return self.tell_leg(id, LegEvent::Transferring(TransferNews::Refused(pending)));
        }
        let Some(to) = refer_to(referral) else {
            let bad = StatusCode::BAD_REQUEST.get();
            return self.tell_leg(id, LegEvent::Transferring(TransferNews::Refused(bad)));
        };
        let Some((mut request, target)) = self.dialog_request_of(id, Method::Refer) else { return };
        request.headers.push(HeaderName::Contact, self.contact(&target));
        request.headers.push(HeaderName::ReferTo, NameAddr::new(to));
        if let Some(by) = &referral.referred_by {
            request.headers.push(HeaderName::ReferredBy, NameAddr::new(by.clone()));
        }
        let cseq = request.headers.cseq().map(|cseq| cseq.number).unwrap_or_default();
        self.say(now, id, What::Refer, request, target);
        if let Some(call) = self.established(id) {
            call.transfer_out = Some(TransferOut { cseq, accepted: false, guard: Some(now + NEWS_TIME) });
        }
    }

    pub(super) fn refer_answered(&mut self, now: Instant, id: LegId, response: &Response) {
        let Some(transfer) = self.established(id).and_then(|call| call.transfer_out.as_mut()) else { return };
        if let Ok(cseq) = response.headers.cseq() {
            // A challenged REFER was sent again under another number.
            transfer.cseq = cseq.number;
        }
        if transfer.guard.is_none() {
            return;
        }
        let news = match response.status.is_success() {
            true if transfer.accepted => return,
            true => {
                transfer.accepted = true;
                transfer.guard = Some(now + NEWS_TIME);
                TransferNews::Accepted
            }
            false => {
                transfer.guard = None;
                TransferNews::Refused(response.status.get())
            }
        };
        self.tell_leg(id, LegEvent::Transferring(news));
    }

    /// A NOTIFY about our transfer; it may overtake the 202 (RFC 6665 section 4.1.2.4).
    pub(super) fn notify_arrived(&mut self, now: Instant, tx: TxId, request: &Request, id: LegId) {
        let read = match read_notify(request) {
            Ok(read) => read,
            Err(refusal) => {
                // What we never asked for needs no body we understand.
                let unasked = self.established(id).is_none_or(|call| call.transfer_out.is_none());
                if unasked && refusal.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
                    return self.reply(now, tx, request, StatusCode::CALL_DOES_NOT_EXIST);
                }
                return self.reply_with(now, tx, request, refusal.status, &refusal.headers);
            }
        };
        let transfer = self.established(id).and_then(|call| call.transfer_out.as_mut());
        // The id is the number of the REFER; a challenged one has several.
        let Some(transfer) = transfer.filter(|transfer| read.id.is_none_or(|id| id >= transfer.cseq)) else {
            return self.reply(now, tx, request, StatusCode::CALL_DOES_NOT_EXIST);
        };
        let open = transfer.guard.is_some();
        let accepted = std::mem::replace(&mut transfer.accepted, true);
        let decided = read.status >= 200 || read.terminated;
        transfer.guard = (open && !decided).then(|| now + NEWS_TIME);
        self.reply(now, tx, request, StatusCode::OK);
        if !open {
            return;
        }
        if !accepted {
            self.tell_leg(id, LegEvent::Transferring(TransferNews::Accepted));
        }
        let news = match read.status {
            200.. => TransferNews::Done(read.status),
            _ if read.terminated => TransferNews::Lost,
            status => TransferNews::Progress(status),
        };
        self.tell_leg(id, LegEvent::Transferring(news));
    }
}

impl ReplacesRef {
    fn names(&self, key: &DialogKey, remote_tag: &str) -> bool {
        self.call_id == key.call_id && self.to_tag == key.local_tag && self.from_tag == remote_tag
    }
}

/// What a NOTIFY of a transfer says.
struct News {
    id: Option<u32>,
    status: u16,
    terminated: bool,
}

fn read_notify(request: &Request) -> Result<News, Refusal> {
    let headers = &request.headers;
    let bad_event = || {
        let ours = HeaderValue::from_static("refer");
        Refusal::with(StatusCode::BAD_EVENT, HeaderName::AllowEvents, ours)
    };
    let event = headers.get(HeaderName::Event).ok_or_else(bad_event)?;
    let end = event.iter().position(|b| *b == b';').unwrap_or(event.len());
    if !event[..end].trim_ascii().eq_ignore_ascii_case(b"refer") {
        return Err(bad_event());
    }
    let params = Params::parse(&event[end..]).map_err(|_| Refusal::bare(StatusCode::BAD_REQUEST))?;
    let state = headers.get(HeaderName::SubscriptionState).unwrap_or_default();
    let state = state.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let terminated = state.eq_ignore_ascii_case(b"terminated");
    if request.body.is_empty() && terminated {
        return Ok(News { id: None, status: 100, terminated });
    }
    let is_fragment = headers.content_type().ok().flatten().is_some_and(|kind| kind.is("message", "sipfrag"));
    if !is_fragment {
        let ours = HeaderValue::from_static("message/sipfrag");
        return Err(Refusal::with(StatusCode::UNSUPPORTED_MEDIA_TYPE, HeaderName::Accept, ours));
    }
    let status = read_sipfrag(&request.body).ok_or_else(|| Refusal::bare(StatusCode::BAD_REQUEST))?;
    Ok(News { id: params.get_str("id").and_then(|id| id.parse().ok()), status, terminated })
}

/// The status line a fragment begins with (RFC 3515 section 2.4.5).
fn read_sipfrag(body: &[u8]) -> Option<u16> {
    let line = body.split(|b| matches!(b, b'\r' | b'\n')).next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let version = words.next()?;
    let status = words.next()?.parse().ok()?;
    (version.eq_ignore_ascii_case("SIP/2.0") && (100..700).contains(&status)).then_some(status)
}

fn sipfrag(status: StatusCode, reason: Option<String>) -> Vec<u8> {
    let reason = reason.unwrap_or_else(|| status.default_reason().to_owned());
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
    format!("SIP/2.0 {} {reason}\r\n", status.get()).into_bytes()
}

/// Refer-To with its Replaces (RFC 3891 section 6.1).
fn refer_to(referral: &Referral) -> Option<Uri> {
    let Some(replaces) = &referral.replaces else { return Some(referral.to.clone()) };
    let text = referral.to.as_str();
    let joint = if text.contains('?') { '&' } else { '?' };
    Uri::parse(format!("{text}{joint}Replaces={}", replaces.escaped())).ok()
}

fn read_escaped_replaces(to: &Uri) -> Result<Option<ReplacesRef>, Refusal> {
    let mut found = to.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Replaces"));
    let Some((_, value)) = found.next() else { return Ok(None) };
    let read = ReplacesRef::parse(&uri::decode(value)).filter(|_| found.next().is_none());
    read.map(Some).ok_or_else(|| Refusal::bare(StatusCode::BAD_REQUEST))
}

/// `Refer-Sub: false` (RFC 4488).
fn says_no_subscription(headers: &Headers) -> bool {
    let value = headers.get(HeaderName::ReferSub).unwrap_or_default();
    let word = value.split(|b| *b == b';').next().unwrap_or_default();
    word.trim_ascii().eq_ignore_ascii_case(b"false")
}

const SIPFRAG: &str = "message/sipfrag;version=2.0";
/// How long the call may take to accept or reject a transfer.
const DECISION_TIME: Duration = Duration::from_secs(20);
/// How long the peer hears of a transfer it asked for.
const SUBSCRIPTION_TIME: Duration = Duration::from_secs(180);
/// How long we wait for news of a transfer we asked for.
const NEWS_TIME: Duration = Duration::from_secs(60);
const ENDED_MAX: usize = 256;
const REASON_CHARS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_is_read_and_written_escaped_and_plain() {
        let read = ReplacesRef::parse(b"12345@192.168.118.3 ;to-tag=12345;from-tag=5FFE-3994;early-only");
        let replaces = read.expect("it is well formed");
        assert_eq!(replaces.to_text(), "12345@192.168.118.3;to-tag=12345;from-tag=5FFE-3994;early-only");
        let to = Uri::parse("sip:bob@biloxi.example").expect("a URI");
        let referral = Referral { to, replaces: Some(replaces.clone()), referred_by: None };
        let uri = refer_to(&referral).expect("a URI");
        assert_eq!(read_escaped_replaces(&uri).ok().flatten(), Some(replaces));
        for broken in ["a@b", ";to-tag=1;from-tag=2", "a@b;to-tag=1", "a@b;from-tag=1;to-tag="] {
            assert_eq!(ReplacesRef::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn a_fragment_begins_with_a_status_line() {
        assert_eq!(read_sipfrag(b"SIP/2.0 180 Ringing\r\nTo: x\r\n"), Some(180));
        assert_eq!(read_sipfrag(b"SIP/2.0 200"), Some(200));
        assert_eq!(read_sipfrag(b"INVITE sip:a@b SIP/2.0"), None);
        assert_eq!(read_sipfrag(&sipfrag(StatusCode::BUSY_HERE, Some("Busy\r\nX: y".into()))), Some(486));
    }
}
