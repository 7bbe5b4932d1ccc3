//! Dialling: from "somebody is to be called" to an answered leg, or to the reason why there is none.
//!
//! [`Dialling`] runs one hunt: asks [`Outbound`] for targets, for a permit of each target's trunk, and for
//! the line its leg's events come on; sends the INVITE, gives ringing and early media to whoever polls it,
//! and goes on to the next target as [`Hunt`] says. It runs on the call's worker, but DNS, number rules and
//! pacing are the [`Outbound`]'s, on the ordinary runtime. Dropping it gives up whatever rings.

use std::collections::VecDeque;
use std::future::Future as _;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use super::hunt::{Hunt, NO_PROVISIONAL, Next, Policy, Refusal};
use super::leg::Leg;
use super::onward::{Asker, Onward};
use crate::event::{CallEventKind, Direction};
use crate::id::LegId;
use crate::pbx::{Exit, Originate, OutgoingChannel, PbxLeg, PbxSettings};
use crate::rtp::pacer::Pacer;
use crate::sip::carrier::TargetOutcome;
use crate::sip::endpoint::EndpointHandle;
use crate::sip::identity::IncomingIdentity;
use crate::sip::leg::{HangUp, LegMedia, LegSignal, SipLeg};
use crate::sip::trunk::Trunk;
use crate::sip::ua::{HangupReason, LegEvent, OutgoingInvite, ReplacesRef};
use crate::sip::uri::Uri;

/// Whom to call, and how.
#[derive(Debug, Clone)]
pub struct DialRequest {
    /// Whom.
    pub to: DialTarget,
    /// Trunks to use, in order; empty: those the installation calls out over.
    pub trunks: Vec<String>,
    /// Trunks it may go over at all; `None`: any. Phones are reached all the same.
    pub reach: Option<Vec<String>>,
    /// The number shown to the callee; absent: the trunk's own.
    pub from: Option<String>,
    /// The name shown to the callee.
    pub from_name: Option<String>,
    /// Shows neither.
    pub withheld: bool,
    /// Who pays.
    pub organization: Option<String>,
    /// Hops the call may still take; an inbound call's less one.
    pub max_forwards: u8,
    /// More headers of the INVITE.
    pub headers: Vec<(String, String)>,
    /// The dialog the callee is to replace by this one (RFC 3891).
    pub replaces: Option<ReplacesRef>,
    /// Our address, as whoever asks knows it.
    pub at: Option<IpAddr>,
    /// The call this one carries on, for what may be passed of it.
    pub inbound: Option<Arc<IncomingIdentity>>,
    /// Rings at most this long, over all targets.
    pub ring_timeout: Duration,
    /// Who asks.
    pub source: DialSource,
}

impl DialRequest {
    /// A call to `to`, everything else by default: 30 s, all trunks.
    pub fn new(to: DialTarget, source: DialSource) -> Self {
        Self {
            to,
            trunks: Vec::new(),
            reach: None,
            from: None,
            from_name: None,
            withheld: false,
            organization: None,
            max_forwards: 70,
            headers: Vec::new(),
            replaces: None,
            at: None,
            inbound: None,
            ring_timeout: Duration::from_secs(30),
            source,
        }
    }
}

/// Whom a call goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialTarget {
    /// A number, over trunks.
    Number(String),
    /// A SIP URI; only hosts of trunks are dialled.
    Uri(Uri),
    /// A phone that registers with us, by its user.
    Phone(String),
    /// A place in the PBX the caller came from: only a party on a channel of it can be sent there.
    Exit(Exit),
}

impl DialTarget {
    /// As written by people: `sip:...` is a URI, `phone:...` a phone, `dialplan:...` and `queue:...` a place in the
    /// caller's PBX, everything else a number (or the extension of a phone).
    ///
    /// # Errors
    /// In words, when it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        if ["sip:", "sips:"].iter().any(|scheme| lower.starts_with(scheme)) {
            return Uri::parse(text).map(Self::Uri).map_err(|error| error.to_string());
        }
        if lower.starts_with("dialplan:") {
            return Exit::dialplan(&text["dialplan:".len()..]).map(Self::Exit);
        }
        if lower.starts_with("queue:") {
            return Exit::queue(&text["queue:".len()..]).map(Self::Exit);
        }
        let known = |c: char| c.is_ascii_alphanumeric() || "+-.() *#_".contains(c);
        if lower.starts_with("phone:") {
            let user = text["phone:".len()..].trim();
            let fits = !user.is_empty() && user.len() <= LONGEST_NUMBER && user.chars().all(known);
            return match fits {
                true => Ok(Self::Phone(user.to_owned())),
                false => Err("write the user of a phone, such as phone:101".into()),
            };
        }
        // Only figures are written in groups.
        let words = text.contains([' ', '(', ')']) && text.chars().any(|c| c.is_ascii_alphabetic());
        if text.is_empty() || text.len() > LONGEST_NUMBER || words || !text.chars().all(known) {
            return Err("write a number such as +15550123, or a SIP URI such as sip:bob@example.com".into());
        }
        Ok(Self::Number(text.to_owned()))
    }
}

impl std::fmt::Display for DialTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => f.write_str(number),
            Self::Uri(uri) => f.write_str(uri.as_str()),
            Self::Phone(user) => f.write_str(user),
            Self::Exit(exit) => exit.fmt(f),
        }
    }
}

/// Who wants a call to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialSource {
    /// Somebody with a token.
    Api,
    /// A step of a flow.
    Flow,
    /// A party that moves the call.
    Transfer,
    /// A 3xx.
    Redirect,
}

/// One target, ready to be dialled.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The trunk it is reached over.
    pub trunk: Arc<Trunk>,
    /// When the next target is tried, and where redirects may lead.
    pub policy: Policy,
    /// How it is reached.
    pub way: Way,
    /// Others that ring with it; who answers first has the call.
    pub rivals: Vec<Attempt>,
}

/// How a target is reached.
#[derive(Debug, Clone)]
pub enum Way {
    /// By SIP.
    Sip {
        /// The INVITE, without SDP.
        invite: Box<OutgoingInvite>,
        /// What its leg's media is made with.
        media: Box<LegMedia>,
    },
    /// By a channel of a PBX.
    Channel {
        /// Makes it.
        by: Arc<dyn Originate>,
        /// Towards whom.
        to: OutgoingChannel,
        /// What its leg's media is made with.
        settings: PbxSettings,
    },
}

/// Why nobody can be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RouteRefusal {
    /// The SIP status that fits.
    pub status: u16,
    /// In words.
    pub reason: String,
}

impl RouteRefusal {
    /// A refusal.
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }
}

/// A channel of a trunk, in use until this is dropped.
#[derive(Default)]
pub struct Permit(Option<Box<dyn std::any::Any + Send>>);

impl Permit {
    /// Holds `held` for as long as the call lasts.
    pub fn holding(held: impl Send + 'static) -> Self {
        Self(Some(Box::new(held)))
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Permit").field(&self.0.is_some()).finish()
    }
}

/// How calls leave the house. Implemented by `routing`; every method returns at once.
pub trait Outbound: Send + Sync {
    /// The targets of a request, in the order they are to be tried.
    fn route(&self, request: DialRequest) -> oneshot::Receiver<Result<Vec<Attempt>, RouteRefusal>>;
    /// The flow of ours that a transfer leads to; `None`: somebody is to be dialled.
    fn onward(
        &self,
        request: DialRequest,
        asker: Asker,
    ) -> oneshot::Receiver<Result<Option<Onward>, RouteRefusal>>;
    /// A channel of the trunk, when its pace allows one.
    fn permit(&self, trunk: &str) -> oneshot::Receiver<Result<Permit, RouteRefusal>>;
    /// What became of an attempt.
    fn report(&self, attempt: &Attempt, outcome: TargetOutcome);
    /// Where the events of a leg come; taken before its INVITE is sent.
    fn line(&self, leg: LegId) -> mpsc::Receiver<LegEvent>;
    /// The leg was never made known to signalling.
    fn forget(&self, leg: LegId);
}

/// What a call dials with.
#[derive(Clone)]
pub struct DialKit {
    /// Routes, permits and lines.
    pub outbound: Arc<dyn Outbound>,
    /// Sends INVITEs.
    pub endpoint: EndpointHandle,
}

/// A party of a call.
pub struct Party {
    /// Its leg. Dropped before its permit: the trunk's channel is free only when the leg is gone.
    pub leg: Leg,
    /// Its channel.
    pub permit: Permit,
    /// Its trunk.
    pub trunk: Arc<Trunk>,
}

/// What a hunt tells.
pub enum DialNews {
    /// For the record.
    Note(CallEventKind),
    /// The present target rings, or plays early media ([`LegSignal::Audio`], [`LegSignal::Sent`] and keys).
    Signal(LegSignal),
    /// Somebody answered. Nothing follows.
    Answered(Box<Party>),
    /// Nobody did. Nothing follows.
    Failed(DialFailure),
}

/// Why nobody answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialFailure {
    /// The status that fits.
    pub status: u16,
    /// In words.
    pub reason: String,
    /// The Q.850 cause the last target gave.
    pub cause: Option<u16>,
    /// It rang for as long as it may.
    pub timed_out: bool,
}

/// One hunt; see the module.
pub struct Dialling {
    kit: DialKit,
    pacer: Pacer,
    request: DialRequest,
    state: State,
    attempts: Vec<Attempt>,
    hunt: Hunt,
    redirecting: bool,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    news: VecDeque<DialNews>,
}

enum State {
    Routing(oneshot::Receiver<Result<Vec<Attempt>, RouteRefusal>>),
    Permit(usize, oneshot::Receiver<Result<Permit, RouteRefusal>>),
    Calling(Box<Calling>),
    Done,
}

struct Calling {
    leg: Leg,
    /// Legs that ring beside it, of the same target.
    rivals: Vec<Leg>,
    /// What the callee said on one of them, while others rang on.
    said: Option<HangUp>,
    permit: Permit,
    target: usize,
    /// When silence is taken for an absence; `None` once the target has said something.
    silent_until: Option<Instant>,
}

impl Dialling {
    /// Begins at once; poll it.
    pub fn start(kit: DialKit, pacer: Pacer, request: DialRequest) -> Self {
        let deadline = Instant::now() + request.ring_timeout;
        let routing = kit.outbound.route(request.clone());
        Self {
            kit,
            pacer,
            request,
            state: State::Routing(routing),
            attempts: Vec::new(),
            hunt: Hunt::new(Vec::new(), deadline),
            redirecting: false,
            timer: Box::pin(tokio::time::sleep_until(deadline.into())),
            timer_at: None,
            news: VecDeque::new(),
        }
    }

    /// The leg that rings now.
    pub fn leg(&mut self) -> Option<&mut Leg> {
        match &mut self.state {
            State::Calling(calling) => Some(&mut calling.leg),
            State::Routing(_) | State::Permit(..) | State::Done => None,
        }
    }

    /// The trunk of the target that is called now.
    pub fn trunk(&self) -> Option<&Trunk> {
        match &self.state {
            State::Calling(calling) => {
                self.attempts.get(calling.target).map(|attempt| attempt.trunk.as_ref())
            }
            State::Routing(_) | State::Permit(..) | State::Done => None,
        }
    }

    /// Polls the hunt. Cancel-safe. Pending for ever after the last news.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DialNews> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Poll::Ready(news);
            }
            if matches!(self.state, State::Done) {
                return Poll::Pending;
            }
            let moved = self.poll_state(cx) || self.poll_clock(cx);
            if !moved {
                return Poll::Pending;
            }
        }
    }

    /// Whether something has happened.
    fn poll_state(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.state {
            State::Routing(route) => match Pin::new(route).poll(cx) {
                Poll::Ready(route) => self.routed(route.unwrap_or_else(|_| Err(stopping()))),
                Poll::Pending => return false,
            },
            State::Permit(target, permit) => match Pin::new(permit).poll(cx) {
                Poll::Ready(permit) => {
                    let target = *target;
                    self.permitted(target, permit.unwrap_or_else(|_| Err(stopping())));
                }
                Poll::Pending => return false,
            },
            State::Calling(calling) => {
                if let Poll::Ready(signal) = calling.leg.poll(cx) {
                    self.signal(signal);
                    return true;
                }
                let rivals = calling.rivals.iter_mut().enumerate();
                let heard =
                    rivals.map(|(index, leg)| (index, leg.poll(cx))).find(|(_, poll)| poll.is_ready());
                let Some((index, Poll::Ready(signal))) = heard else { return false };
                self.rival(index, signal);
            }
            State::Done => return false,
        }
        true
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> bool {
        let silent_until = match &self.state {
            State::Calling(calling) => calling.silent_until.filter(|_| self.hunt.has_more()),
            State::Routing(_) | State::Permit(..) | State::Done => None,
        };
        let deadline = self.hunt.deadline();
        let due = silent_until.map_or(deadline, |silent| silent.min(deadline));
        if self.timer_at != Some(due) {
            self.timer.as_mut().reset(due.into());
            self.timer_at = Some(due);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.timer_at = None;
        if due >= deadline {
            self.rang_out()
        } else {
            self.given_up()
        }
        true
    }

    fn routed(&mut self, route: Result<Vec<Attempt>, RouteRefusal>) {
        let attempts = match route {
            Ok(attempts) => attempts,
            Err(refusal) => return self.failed(refused_route(refusal), false),
        };
        let policies = attempts.iter().map(|attempt| attempt.policy.clone()).collect();
        self.attempts = attempts;
        let next = if self.redirecting {
            self.hunt.redirect(policies)
        } else {
            self.hunt = Hunt::new(policies, self.hunt.deadline());
            self.hunt.first()
        };
        self.go_on(next);
    }

    fn go_on(&mut self, next: Next) {
        match next {
            Next::Dial(target) => {
                let trunk = self.attempts.get(target).map(|attempt| attempt.trunk.name.clone());
                self.state = State::Permit(target, self.kit.outbound.permit(&trunk.unwrap_or_default()));
            }
            Next::Redirect(to) => {
                self.redirecting = true;
                let (to, source) = (DialTarget::Uri(to), DialSource::Redirect);
                let request = DialRequest { to, source, ..self.request.clone() };
                self.state = State::Routing(self.kit.outbound.route(request));
            }
            Next::GiveUp(refusal) => self.failed(refusal, false),
        }
    }

    fn permitted(&mut self, target: usize, permit: Result<Permit, RouteRefusal>) {
        let called = permit.map_err(refused_route).and_then(|permit| self.call(target, permit));
        match called {
            Ok(calling) => self.state = State::Calling(Box::new(calling)),
            Err(refusal) => {
                let next = self.hunt.skipped(refusal);
                self.go_on(next);
            }
        }
    }

    /// Calls a target: all its legs.
    fn call(&mut self, target: usize, permit: Permit) -> Result<Calling, Refusal> {
        let mut attempt =
            self.attempts.get(target).cloned().ok_or_else(|| unavailable("no target".to_owned()))?;
        let rivals = std::mem::take(&mut attempt.rivals);
        let mut first = self.ring(attempt);
        let mut legs = Vec::with_capacity(rivals.len());
        for rival in rivals {
            match (self.ring(rival), &first) {
                (Ok(leg), Ok(_)) => legs.push(leg),
                (leg, Err(_)) => first = leg,
                (Err(_), Ok(_)) => {}
            }
        }
        let silent_until = Some(Instant::now() + NO_PROVISIONAL);
        first.map(|leg| Calling { leg, rivals: legs, said: None, permit, target, silent_until })
    }

    /// Sends the INVITE.
    fn ring(&mut self, attempt: Attempt) -> Result<Leg, Refusal> {
        let id = LegId::fresh();
        let trunk = attempt.trunk.name.clone();
        let (leg, call_id) = match attempt.way {
            Way::Sip { invite, media } => self.invite(id, *invite, *media)?,
            Way::Channel { by, to, settings } => {
                let parts = by.originate(id, &to);
                (PbxLeg::new(parts, settings, self.pacer.clone()).into(), None)
            }
        };
        metrics::counter!("tandem_trunk_attempts_total", "trunk" => trunk.clone(), "outcome" => "dialled")
            .increment(1);
        self.news.push_back(DialNews::Note(CallEventKind::LegAdded {
            leg: id.to_string(),
            direction: Direction::Outbound,
            to: self.request.to.to_string(),
            trunk: Some(trunk),
            sip_call_id: call_id,
        }));
        Ok(leg)
    }

    fn invite(
        &mut self,
        id: LegId,
        invite: OutgoingInvite,
        media: LegMedia,
    ) -> Result<(Leg, Option<String>), Refusal> {
        let events = self.kit.outbound.line(id);
        let endpoint = self.kit.endpoint.clone();
        let made = SipLeg::outgoing(id, endpoint, events, self.pacer.clone(), media);
        let (leg, offer) = made.map_err(|error| {
            self.kit.outbound.forget(id);
            unavailable(error.to_string())
        })?;
        let call_id = leg_call_id();
        let invite = OutgoingInvite { sdp: Some(offer), call_id: Some(call_id.clone()), ..invite };
        if let Err(error) = self.kit.endpoint.invite(id, invite) {
            self.kit.outbound.forget(id);
            return Err(unavailable(error.to_string()));
        }
        Ok((leg.into(), Some(call_id)))
    }

    fn signal(&mut self, signal: LegSignal) {
        let State::Calling(calling) = &mut self.state else { return };
        match signal {
            LegSignal::Established => self.answered(),
            LegSignal::HungUp(hang_up) => self.refused(hang_up),
            LegSignal::Trying => calling.silent_until = None,
            other @ LegSignal::Ringing { .. } => {
                calling.silent_until = None;
                self.news.push_back(DialNews::Signal(other));
            }
            other => self.news.push_back(DialNews::Signal(other)),
        }
    }

    /// One of the legs beside the first.
    fn rival(&mut self, index: usize, signal: LegSignal) {
        let State::Calling(calling) = &mut self.state else { return };
        match signal {
            LegSignal::Established => {
                std::mem::swap(&mut calling.leg, &mut calling.rivals[index]);
                self.answered();
            }
            // A 6xx is meant for all of them (RFC 3261 section 16.7 item 5).
            LegSignal::HungUp(hang_up) if hang_up.status >= 600 => {
                std::mem::swap(&mut calling.leg, &mut calling.rivals[index]);
                self.refused(hang_up);
            }
            LegSignal::HungUp(hang_up) => {
                let id = calling.rivals.remove(index).id();
                self.leg_ended(id, hang_up.status, &hang_up.reason, "callee");
                self.note_word(hang_up);
            }
            LegSignal::Trying => calling.silent_until = None,
            LegSignal::Ringing { .. } => {
                calling.silent_until = None;
                self.news.push_back(DialNews::Signal(signal));
            }
            // The caller hears the early media of one leg alone.
            LegSignal::Audio { .. } => calling.rivals[index].take_audio(&mut Vec::new()),
            _ => {}
        }
    }

    /// Keeps what says most about the callee.
    fn note_word(&mut self, hang_up: HangUp) {
        let State::Calling(calling) = &mut self.state else { return };
        let absent = |status: u16| matches!(status, 408 | 480 | 487 | 500..600);
        if calling.said.as_ref().is_none_or(|said| absent(said.status)) {
            calling.said = Some(hang_up);
        }
    }

    fn answered(&mut self) {
        let State::Calling(calling) = std::mem::replace(&mut self.state, State::Done) else { return };
        let Calling { leg, rivals, permit, target, .. } = *calling;
        // RFC 3326 section 2: a phone that hears this shows no missed call.
        self.give_up(rivals, HangupReason { protocol: "SIP", cause: 200, text: ELSEWHERE.to_owned() });
        let Some(trunk) = self.report(target, TargetOutcome::Answered) else { return };
        metrics::counter!("tandem_dials_total", "outcome" => "answered").increment(1);
        self.news.push_back(DialNews::Answered(Box::new(Party { leg, permit, trunk })));
    }

    fn refused(&mut self, hang_up: HangUp) {
        if let State::Calling(calling) = &mut self.state
            && hang_up.status < 600
            && let Some(next) = calling.rivals.pop()
        {
            let id = std::mem::replace(&mut calling.leg, next).id();
            self.leg_ended(id, hang_up.status, &hang_up.reason, "callee");
            return self.note_word(hang_up);
        }
        let State::Calling(calling) = std::mem::replace(&mut self.state, State::Done) else { return };
        let Calling { leg, rivals, said, permit, target, .. } = *calling;
        let id = leg.id();
        drop(leg);
        drop(permit);
        self.give_up(rivals, HangupReason::normal());
        self.report(target, outcome(&hang_up));
        self.leg_ended(id, hang_up.status, &hang_up.reason, "callee");
        let hang_up = said.filter(|_| hang_up.status < 600).unwrap_or(hang_up);
        let contacts = redirects(&hang_up);
        let cause = q850(&hang_up);
        let refusal = Refusal { status: hang_up.status, reason: hang_up.reason, cause, contacts };
        let next = self.hunt.failed(Instant::now(), target, refusal);
        self.go_on(next);
    }

    /// The present target says nothing, and there is another.
    fn given_up(&mut self) {
        let reason = "no response";
        let Some((id, target)) = self.cancel(reason) else { return };
        self.report(target, TargetOutcome::Timeout);
        self.leg_ended(id, 408, reason, "system");
        let refusal = Refusal { status: 408, reason: reason.to_owned(), ..Refusal::default() };
        let next = self.hunt.failed(Instant::now(), target, refusal);
        self.go_on(next);
    }

    /// Nobody answered in time.
    fn rang_out(&mut self) {
        let reason = "no answer in time";
        if let Some((id, _)) = self.cancel(reason) {
            self.leg_ended(id, 408, reason, "system");
        }
        let refusal = Refusal { status: 408, reason: reason.to_owned(), ..Refusal::default() };
        self.failed(refusal, true);
    }

    fn cancel(&mut self, reason: &str) -> Option<(LegId, usize)> {
        let State::Calling(mut calling) = std::mem::replace(&mut self.state, State::Done) else {
            return None;
        };
        let reason = HangupReason { protocol: "SIP", cause: 408, text: reason.to_owned() };
        calling.leg.hang_up(reason.clone());
        let rivals = std::mem::take(&mut calling.rivals);
        self.give_up(rivals, reason);
        Some((calling.leg.id(), calling.target))
    }

    fn give_up(&mut self, legs: Vec<Leg>, reason: HangupReason) {
        for mut leg in legs {
            let (id, text) = (leg.id(), reason.text.clone());
            leg.hang_up(reason.clone());
            self.leg_ended(id, 487, &text, "system");
        }
    }

    fn failed(&mut self, refusal: Refusal, timed_out: bool) {
        self.state = State::Done;
        metrics::counter!("tandem_dials_total", "outcome" => "failed").increment(1);
        let Refusal { status, reason, cause, .. } = refusal;
        self.news.push_back(DialNews::Failed(DialFailure { status, reason, cause, timed_out }));
    }

    fn leg_ended(&mut self, leg: LegId, status: u16, reason: &str, by: &str) {
        let (leg, reason, by) = (leg.to_string(), reason.to_owned(), by.to_owned());
        self.news.push_back(DialNews::Note(CallEventKind::LegEnded {
            leg,
            status,
            reason,
            by,
            quality: None,
        }));
    }

    fn report(&self, target: usize, outcome: TargetOutcome) -> Option<Arc<Trunk>> {
        let attempt = self.attempts.get(target)?;
        self.kit.outbound.report(attempt, outcome);
        Some(Arc::clone(&attempt.trunk))
    }
}

fn outcome(hang_up: &HangUp) -> TargetOutcome {
    let failure = hang_up.failure.as_ref();
    if failure.is_some_and(|failure| failure.timed_out) {
        return TargetOutcome::Timeout;
    }
    if failure.is_some_and(|failure| failure.transport_failed) {
        return TargetOutcome::TransportFailed;
    }
    match hang_up.status {
        503 => TargetOutcome::Overloaded { retry_after: hang_up.retry_after },
        status => TargetOutcome::Refused(status),
    }
}

fn q850(hang_up: &HangUp) -> Option<u16> {
    let causes = hang_up.failure.as_ref().map(|failure| failure.causes.as_slice()).unwrap_or_default();
    let said = causes.iter().find(|reason| reason.protocol.eq_ignore_ascii_case("Q.850"));
    said.and_then(|reason| reason.cause).or(hang_up.cause_code)
}

fn redirects(hang_up: &HangUp) -> Vec<Uri> {
    let contacts = hang_up.failure.as_ref().map(|failure| failure.contacts.as_slice()).unwrap_or_default();
    contacts.iter().map(|(contact, _)| contact.uri.clone()).collect()
}

fn unavailable(reason: String) -> Refusal {
    Refusal { status: 503, reason, ..Refusal::default() }
}

fn refused_route(refusal: RouteRefusal) -> Refusal {
    Refusal { status: refusal.status, reason: refusal.reason, ..Refusal::default() }
}

fn stopping() -> RouteRefusal {
    RouteRefusal::new(503, "the server is stopping")
}

const ELSEWHERE: &str = "Call completed elsewhere";

/// Chosen here so that the record can name it. Says nothing about us.
fn leg_call_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

const LONGEST_NUMBER: usize = 64;
