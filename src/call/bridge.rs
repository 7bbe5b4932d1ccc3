//! Two legs that hear each other.
//!
//! The call's own leg is the near one; the far one is dialled here. Until it answers, its ringing and early
//! media are carried to the near leg; from then on audio, keys and the end are carried both ways. Each leg
//! negotiates for itself: the parties see our addresses, Call-IDs and headers, never each other's.
//!
//! A party (or the API) may move the call: the third party is dialled while the two still talk, and takes the
//! place of a leg only once it has answered. Whatever fails on the way leaves the bridge as it was.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::dial::{
    AnsweredLeg, DialFailure, DialKit, DialNews, DialRequest, DialSource, DialTarget, Dialling,
};
use super::handle::CallCommand;
use super::hunt::disposition;
use super::ledger::Ending;
use super::{Call, Over, Wake};
use crate::event::{CallEventKind, Disposition, Floor, Phase};
use crate::rtp::ItemKey;
use crate::sip::cause::{goodbye_across, reason_across, status_across};
use crate::sip::leg::{HangUp, HangUpCause, LegSignal, SipLeg};
use crate::sip::message::StatusCode;
use crate::sip::trunk::ReferPolicy;
use crate::sip::ua::{HangupReason, Referral, TransferAsked, TransferNews};

/// What a call needs to dial somebody and join the two.
#[derive(Clone)]
pub struct DialStep {
    /// Routes, permits, lines.
    pub kit: DialKit,
    /// Whom.
    pub request: DialRequest,
    /// Nothing follows: a call that nobody answers ends.
    pub last: bool,
    /// What becomes of a REFER of the near party.
    pub refer: ReferPolicy,
    /// What a party hears while the other holds; none: silence.
    pub hold_music: Option<Arc<[i16]>>,
}

impl Call {
    /// Calls somebody and joins the two until one of them hangs up. Answers without [`Over`] only when nobody
    /// answered and something follows.
    ///
    /// # Errors
    /// [`Over`].
    pub async fn dial(&mut self, step: &DialStep) -> Result<(), Over> {
        if let Some(Over) = self.is_over() {
            return Err(Over);
        }
        let mut bridge = Bridge::new(self, step);
        let joined = loop {
            self.timer_armed = false;
            let woken = std::future::poll_fn(|cx| bridge.poll(self, cx)).await;
            if let Some(end) = bridge.woken(self, woken) {
                break end;
            }
        };
        bridge.close(self);
        joined
    }
}

/// What wakes a bridge.
enum Woken {
    Near(Wake),
    Far(LegSignal),
    Dial(DialNews),
    Move(DialNews),
}

struct Bridge<'a> {
    step: &'a DialStep,
    /// Until somebody answers.
    dialling: Option<Dialling>,
    far: Option<Box<AnsweredLeg>>,
    moving: Option<Box<Moving>>,
    /// The near party hears the far one's early media.
    early: bool,
    near_held: bool,
    far_held: bool,
    /// By our own command.
    parked: bool,
    /// Packets pass as they are: nobody listens, and both legs speak alike.
    relay: bool,
    live: ItemKey,
    music: ItemKey,
    pcm: Vec<i16>,
}

/// A transfer under way.
struct Moving {
    by: Mover,
    to: String,
    /// `None`: the other leg was asked to call by itself.
    dialling: Option<Dialling>,
    /// The party that asked for it has left.
    gone: bool,
    done: Option<tokio::sync::oneshot::Sender<Result<(), String>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mover {
    Near,
    Far,
    Api,
}

type End = Option<Result<(), Over>>;

impl<'a> Bridge<'a> {
    fn new(call: &Call, step: &'a DialStep) -> Self {
        let dialling = Dialling::start(step.kit.clone(), call.leg.pacer().clone(), step.request.clone());
        Self {
            step,
            dialling: Some(dialling),
            far: None,
            moving: None,
            early: false,
            near_held: false,
            far_held: false,
            parked: false,
            relay: false,
            live: ItemKey::from("bridge"),
            music: ItemKey::from("hold"),
            pcm: Vec::with_capacity(960),
        }
    }

    fn poll(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<Woken> {
        if let Some(far) = self.far.as_mut().filter(|_| self.relay) {
            if let Poll::Ready(signal) = call.leg.poll_relay(cx, &mut far.leg) {
                return Poll::Ready(Woken::Near(Wake::Leg(signal)));
            }
            if let Poll::Ready(signal) = far.leg.poll_relay(cx, &mut call.leg) {
                return Poll::Ready(Woken::Far(signal));
            }
        } else if let Poll::Ready(signal) = call.leg.poll(cx) {
            return Poll::Ready(Woken::Near(Wake::Leg(signal)));
        }
        if let Poll::Ready(wake) = call.poll_others(cx, None) {
            return Poll::Ready(Woken::Near(wake));
        }
        if let Some(far) = self.far.as_mut().filter(|_| !self.relay)
            && let Poll::Ready(signal) = far.leg.poll(cx)
        {
            return Poll::Ready(Woken::Far(signal));
        }
        if let Some(dialling) = &mut self.dialling
            && let Poll::Ready(news) = dialling.poll(cx)
        {
            return Poll::Ready(Woken::Dial(news));
        }
        if let Some(moving) = &mut self.moving
            && let Some(dialling) = &mut moving.dialling
            && let Poll::Ready(news) = dialling.poll(cx)
        {
            return Poll::Ready(Woken::Move(news));
        }
        Poll::Pending
    }

    fn woken(&mut self, call: &mut Call, woken: Woken) -> End {
        match woken {
            Woken::Near(Wake::Leg(LegSignal::HungUp(_))) if self.left(Mover::Near) => None,
            Woken::Near(wake) => {
                call.noted(&wake);
                if call.over.is_some() {
                    return Some(Err(Over));
                }
                self.near(call, wake);
                None
            }
            Woken::Far(LegSignal::HungUp(_)) if self.left(Mover::Far) => None,
            Woken::Far(LegSignal::HungUp(hang_up)) => Some(self.far_hung_up(call, hang_up)),
            Woken::Far(signal) => {
                self.far_signal(call, signal);
                None
            }
            Woken::Dial(news) => self.dial_news(call, news),
            Woken::Move(news) => self.move_news(call, news),
        }
    }

    // The near leg.

    fn near(&mut self, call: &mut Call, wake: Wake) {
        match wake {
            Wake::Leg(LegSignal::Audio { .. }) => self.near_audio(call),
            Wake::Leg(LegSignal::Dtmf { digit, method }) if method != "inband" => {
                if let Some(far) = self.far_leg() {
                    far.send_dtmf(digit.encode_utf8(&mut [0; 4]));
                }
            }
            Wake::Leg(LegSignal::MediaChanged { state, .. }) => {
                self.near_held = state == HELD;
                self.entertain(call);
            }
            Wake::Leg(LegSignal::ItemFinished { item, .. }) if item == self.music => {
                self.entertain(call);
            }
            Wake::Leg(LegSignal::Transfer(asked)) => self.asked(call, Mover::Near, *asked),
            Wake::Leg(LegSignal::Transferring(news)) => self.referred(call, news),
            Wake::Command(command) => self.command(call, command),
            Wake::Leg(_) | Wake::Provider(_) | Wake::Deadline | Wake::Stop => {}
        }
    }

    fn near_audio(&mut self, call: &mut Call) {
        let (live, quiet) = (self.live.clone(), self.far_held || self.parked || self.near_held);
        let far = match (&mut self.far, &mut self.dialling) {
            (Some(far), _) => Some(&mut far.leg),
            (None, Some(dialling)) => dialling.leg(),
            (None, None) => None,
        };
        call.hear(|pcm| {
            if let Some(far) = far.filter(|_| !quiet) {
                far.play_live(&live, pcm);
            }
        });
    }

    fn command(&mut self, call: &mut Call, command: CallCommand) {
        match command {
            CallCommand::Transfer { to, trunk, done, .. } if self.far.is_some() && self.moving.is_none() => {
                let trunks = trunk.into_iter().collect();
                self.begin_move(call, Mover::Api, to, trunks, None, done);
            }
            CallCommand::Transfer { done, .. } => {
                if let Some(done) = done {
                    // Who asked may have gone.
                    let _gone = done.send(Err("the call cannot be transferred now".to_owned()));
                }
            }
            CallCommand::Hold { on } => {
                self.parked = on;
                let codec = call.leg.codec().map_or_else(String::new, |codec| codec.to_string());
                let state = if on { "held_by_us" } else { "active" }.to_owned();
                call.ledger.record(CallEventKind::Media { state, codec });
                self.entertain(call);
            }
            CallCommand::Dtmf { digits } => {
                if let Some(far) = self.far_leg() {
                    far.send_dtmf(&digits);
                }
            }
            CallCommand::End { .. } | CallCommand::Say { .. } | CallCommand::Drain => {}
        }
    }

    /// Chooses between passing packets and passing audio.
    fn retune(&mut self, call: &mut Call) {
        let Some(far) = &mut self.far else { return };
        let quiet = self.near_held || self.far_held || self.parked;
        let relay = !quiet
            && call.recorder.is_none()
            && call.leg.can_relay_to(&far.leg)
            && far.leg.can_relay_to(&call.leg);
        if relay != self.relay {
            self.relay = relay;
            call.leg.park(relay);
            far.leg.park(relay);
            bridged(call, &far.leg, relay);
        }
    }

    /// Music for whoever waits, and none for whoever does not.
    fn entertain(&mut self, call: &mut Call) {
        let music = self.step.hold_music.clone();
        let (near_waits, far_waits) = (self.far_held || self.parked, self.near_held || self.parked);
        let item = self.music.clone();
        self.retune(call);
        play_or_clear(&mut call.leg, near_waits && !self.near_held, &item, music.as_deref());
        let far_held = self.far_held;
        if let Some(far) = self.far_leg() {
            play_or_clear(far, far_waits && !far_held, &item, music.as_deref());
        }
    }

    // The far leg.

    fn far_leg(&mut self) -> Option<&mut SipLeg> {
        self.far.as_mut().map(|far| &mut far.leg)
    }

    fn far_signal(&mut self, call: &mut Call, signal: LegSignal) {
        match signal {
            LegSignal::Audio { .. } => {
                self.pcm.clear();
                let quiet = self.far_held || self.parked || self.near_held;
                if let Some(far) = &mut self.far {
                    far.leg.take_audio(&mut self.pcm);
                }
                if !quiet {
                    call.leg.play_live(&self.live, &self.pcm);
                }
            }
            LegSignal::Dtmf { digit, method } if method != "inband" => {
                call.leg.send_dtmf(digit.encode_utf8(&mut [0; 4]));
            }
            LegSignal::MediaChanged { state, .. } => {
                self.far_held = state == HELD;
                self.entertain(call);
            }
            LegSignal::ItemFinished { item, .. } if item == self.music => self.entertain(call),
            LegSignal::Transfer(asked) => self.asked(call, Mover::Far, *asked),
            LegSignal::Transferring(news) => self.referred(call, news),
            LegSignal::Dtmf { .. }
            | LegSignal::Sent { .. }
            | LegSignal::ItemStarted(_)
            | LegSignal::ItemFinished { .. }
            | LegSignal::DtmfSent
            | LegSignal::Trying
            | LegSignal::Ringing { .. }
            | LegSignal::EarlyMedia
            | LegSignal::Established
            | LegSignal::HungUp(_) => {}
        }
    }

    fn far_hung_up(&mut self, call: &mut Call, hang_up: HangUp) -> Result<(), Over> {
        let by = if hang_up.cause == HangUpCause::Peer { "callee" } else { "system" };
        if let Some(far) = self.far.take() {
            leg_ended(call, &far.leg, hang_up.status, &hang_up.reason, by);
        }
        call.leg.hang_up(goodbye_across(hang_up.cause_code, &hang_up.reason));
        let (disposition, by) = match (hang_up.cause, call.outbound) {
            (HangUpCause::Peer, false) => (Disposition::Completed, "callee"),
            (HangUpCause::Peer, true) => (Disposition::Completed, "agent"),
            _ => (Disposition::Failed, "system"),
        };
        call.end(Ending::new(disposition, by, hang_up.status, hang_up.reason));
        Err(Over)
    }

    // Until somebody answers.

    fn dial_news(&mut self, call: &mut Call, news: DialNews) -> End {
        match news {
            DialNews::Note(note) => call.ledger.record(note),
            DialNews::Signal(signal) => self.dial_signal(call, signal),
            DialNews::Answered(far) => {
                self.dialling = None;
                return self.join(call, far);
            }
            DialNews::Failed(failure) => {
                self.dialling = None;
                return Some(self.unanswered(call, &failure));
            }
        }
        None
    }

    fn dial_signal(&mut self, call: &mut Call, signal: LegSignal) {
        match signal {
            LegSignal::EarlyMedia => self.early = call.leg.codec().is_some(),
            LegSignal::Ringing { status } if !call.answered => {
                let status = StatusCode::new(status).unwrap_or(StatusCode::RINGING);
                call.leg.progress(status, self.early);
                call.phase(Phase::Ringing, Floor::None);
            }
            LegSignal::Audio { .. } if self.early => {
                self.pcm.clear();
                if let Some(leg) = self.dialling.as_mut().and_then(Dialling::leg) {
                    leg.take_audio(&mut self.pcm);
                }
                call.leg.play_live(&self.live, &self.pcm);
            }
            LegSignal::Dtmf { .. }
            | LegSignal::Audio { .. }
            | LegSignal::Sent { .. }
            | LegSignal::ItemStarted(_)
            | LegSignal::ItemFinished { .. }
            | LegSignal::MediaChanged { .. }
            | LegSignal::DtmfSent
            | LegSignal::Trying
            | LegSignal::Ringing { .. }
            | LegSignal::Transfer(_)
            | LegSignal::Transferring(_)
            | LegSignal::Established
            | LegSignal::HungUp(_) => {}
        }
    }

    fn join(&mut self, call: &mut Call, mut far: Box<AnsweredLeg>) -> End {
        far.leg.watch_slots(false);
        call.leg.clear();
        self.early = false;
        call.answer_now();
        bridged(call, &far.leg, false);
        self.far = Some(far);
        self.retune(call);
        None
    }

    fn unanswered(&mut self, call: &mut Call, failure: &DialFailure) -> Result<(), Over> {
        if !self.step.last {
            return Ok(());
        }
        let reason = reason_across(failure.status, &failure.reason);
        if call.answered {
            call.leg.hang_up(reason);
        } else {
            let header = format!("Q.850;cause={}", reason.cause);
            call.leg.reject(status_across(failure.status), vec![("Reason".to_owned(), header)]);
        }
        let disposition = disposition(failure.status, failure.timed_out);
        let by = if matches!(disposition, Disposition::Failed) { "system" } else { "callee" };
        call.end(Ending::new(disposition, by, failure.status, failure.reason.clone()));
        Err(Over)
    }

    // Transfers.

    /// A party asks for the call to be moved.
    fn asked(&mut self, call: &mut Call, by: Mover, asked: TransferAsked) {
        let policy = match by {
            Mover::Near => self.step.refer,
            Mover::Far | Mover::Api => self.far.as_ref().map(|far| far.trunk.refer).unwrap_or_default(),
        };
        transferred(call, "asked", asked.to.as_str(), 0);
        let possible = self.far.is_some() && self.moving.is_none();
        if policy == ReferPolicy::Refuse || !possible || asked.ours.is_some() {
            let status = if possible { StatusCode::FORBIDDEN } else { StatusCode::REQUEST_PENDING };
            self.party(call, by).into_iter().for_each(|leg| leg.reject_transfer(status));
            return transferred(call, "refused", asked.to.as_str(), status.get());
        }
        self.party(call, by).into_iter().for_each(|leg| leg.accept_transfer());
        if policy == ReferPolicy::Pass {
            let referral =
                Referral { to: asked.to.clone(), replaces: asked.replaces, referred_by: asked.referred_by };
            let other = if by == Mover::Near { Mover::Far } else { Mover::Near };
            self.party(call, other).into_iter().for_each(|leg| leg.refer(referral.clone()));
            let to = asked.to.as_str().to_owned();
            let moving = Moving { by, to, dialling: None, gone: false, done: None };
            self.moving = Some(Box::new(moving));
            return transferred(call, "accepted", asked.to.as_str(), 202);
        }
        self.begin_move(call, by, DialTarget::Uri(asked.to), Vec::new(), asked.replaces, None);
    }

    fn begin_move(
        &mut self,
        call: &mut Call,
        by: Mover,
        to: DialTarget,
        trunks: Vec<String>,
        replaces: Option<crate::sip::ua::ReplacesRef>,
        done: Option<tokio::sync::oneshot::Sender<Result<(), String>>>,
    ) {
        let text = to.to_string();
        let base = DialRequest::new(to, DialSource::Transfer);
        let request = DialRequest {
            trunks,
            replaces,
            from: self.step.request.from.clone(),
            organization: self.step.request.organization.clone(),
            max_forwards: self.step.request.max_forwards,
            ..base
        };
        let dialling = Dialling::start(self.step.kit.clone(), call.leg.pacer().clone(), request);
        transferred(call, "accepted", &text, 202);
        let moving = Moving { by, to: text, dialling: Some(dialling), gone: false, done };
        self.moving = Some(Box::new(moving));
    }

    fn move_news(&mut self, call: &mut Call, news: DialNews) -> End {
        match news {
            DialNews::Note(note) => call.ledger.record(note),
            DialNews::Signal(LegSignal::Ringing { status }) => {
                if let Some(status) = StatusCode::new(status) {
                    self.tell_mover(call, status);
                }
            }
            DialNews::Signal(_) => {}
            DialNews::Answered(leg) => self.moved(call, leg),
            DialNews::Failed(failure) => return self.not_moved(call, failure.status, &failure.reason),
        }
        None
    }

    /// The third party has answered and takes the place of whoever moved the call.
    fn moved(&mut self, call: &mut Call, mut third: Box<AnsweredLeg>) {
        self.tell_mover(call, StatusCode::OK);
        let Some(moving) = self.moving.take() else { return };
        transferred(call, "completed", &moving.to, 200);
        metrics::counter!("tandem_transfers_total", "outcome" => "completed").increment(1);
        if let Some(done) = moving.done {
            // Who asked may have gone.
            let _gone = done.send(Ok(()));
        }
        (self.near_held, self.far_held) = (false, false);
        if std::mem::take(&mut self.relay) {
            call.leg.park(false);
            self.far_leg().into_iter().for_each(|far| far.park(false));
        }
        call.leg.clear();
        if moving.by == Mover::Near {
            std::mem::swap(&mut call.leg, &mut third.leg);
            std::mem::swap(&mut call.permit, &mut third.permit);
            call.leg.watch_slots(call.recorder.is_some());
            leg_ended(call, &third.leg, 200, "transferred", "caller");
            self.far_leg().into_iter().for_each(|far| drop(far.clear()));
        } else {
            third.leg.watch_slots(false);
            let old = self.far.replace(third);
            if let Some(mut old) = old {
                old.leg.hang_up(HangupReason::normal());
                leg_ended(call, &old.leg, 200, "transferred", "callee");
            }
        }
        if let Some(far) = &self.far {
            bridged(call, &far.leg, false);
        }
        self.retune(call);
    }

    /// The two go on as they were, unless the one who moved the call has left.
    fn not_moved(&mut self, call: &mut Call, status: u16, reason: &str) -> End {
        let told =
            StatusCode::new(status).filter(|s| s.get() >= 300).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        self.tell_mover(call, told);
        let moving = self.moving.take()?;
        transferred(call, "failed", &moving.to, status);
        metrics::counter!("tandem_transfers_total", "outcome" => "failed").increment(1);
        if let Some(done) = moving.done {
            // Who asked may have gone.
            let _gone = done.send(Err(reason.to_owned()));
        }
        if !moving.gone {
            return None;
        }
        call.leg.hang_up(reason_across(status, reason));
        let by = if moving.by == Mover::Near { "caller" } else { "callee" };
        call.end(Ending::new(Disposition::Completed, by, 200, "transferred, and nobody answered"));
        Some(Err(Over))
    }

    /// What the other leg makes of a REFER that was passed to it.
    fn referred(&mut self, call: &mut Call, news: TransferNews) {
        let Some(moving) = self.moving.as_mut().filter(|moving| moving.dialling.is_none()) else { return };
        match news {
            TransferNews::Accepted => {}
            TransferNews::Progress(status) => {
                if let Some(status) = StatusCode::new(status) {
                    self.tell_mover(call, status);
                }
            }
            TransferNews::Done(status) if status < 300 => {
                self.tell_mover(call, StatusCode::OK);
                if let Some(moving) = self.moving.take() {
                    transferred(call, "completed", &moving.to, status);
                    metrics::counter!("tandem_transfers_total", "outcome" => "passed").increment(1);
                }
            }
            // A peer that cannot: we do it ourselves.
            TransferNews::Refused(_) => {
                let (by, to) = (moving.by, moving.to.clone());
                self.moving = None;
                match crate::sip::uri::Uri::parse(&to) {
                    Ok(uri) => self.begin_move(call, by, DialTarget::Uri(uri), Vec::new(), None, None),
                    Err(_) => drop(self.not_moved(call, 400, "no URI")),
                }
            }
            TransferNews::Done(status) => drop(self.not_moved(call, status, "refused")),
            TransferNews::Lost => drop(self.not_moved(call, 408, "no news of the transfer")),
        }
    }

    fn tell_mover(&mut self, call: &mut Call, status: StatusCode) {
        let Some(by) = self.moving.as_ref().filter(|moving| !moving.gone).map(|moving| moving.by) else {
            return;
        };
        self.party(call, by).into_iter().for_each(|leg| leg.transfer_progress(status));
    }

    /// A party that has left after asking for a transfer: the others go on without it. Answers whether it is one.
    fn left(&mut self, who: Mover) -> bool {
        let Some(moving) = self.moving.as_mut().filter(|moving| moving.by == who) else { return false };
        moving.gone = true;
        moving.dialling.is_some()
    }

    fn party<'b>(&'b mut self, call: &'b mut Call, who: Mover) -> Option<&'b mut SipLeg> {
        match who {
            Mover::Near => Some(&mut call.leg),
            Mover::Far => self.far_leg(),
            Mover::Api => None,
        }
    }

    /// The far leg is told why, and its end recorded.
    fn close(mut self, call: &mut Call) {
        let (cause, text) = match &call.over {
            Some(over) if over.disposition == Disposition::Completed => (None, over.reason.clone()),
            Some(over) => (Some(reason_across(over.sip_status, "").cause), over.reason.clone()),
            None => (None, String::new()),
        };
        if let Some(mut dialling) = self.dialling.take()
            && let Some(leg) = dialling.leg()
        {
            leg.hang_up(goodbye_across(cause, &text));
            leg_ended(call, leg, 487, "given up", "caller");
        }
        if let Some(mut far) = self.far.take() {
            far.leg.hang_up(goodbye_across(cause, &text));
            let by = call.over.as_ref().map_or_else(|| "system".to_owned(), |over| over.by.clone());
            leg_ended(call, &far.leg, 200, "the other party left", &by);
        }
        if let Some(done) = self.moving.take().and_then(|moving| moving.done) {
            // Who asked may have gone.
            let _gone = done.send(Err("the call has ended".to_owned()));
        }
    }
}

fn play_or_clear(leg: &mut SipLeg, wanted: bool, item: &ItemKey, music: Option<&[i16]>) {
    leg.clear();
    if let Some(music) = music.filter(|_| wanted) {
        leg.play(item, music);
        leg.end_item(item);
    }
}

fn bridged(call: &mut Call, far: &SipLeg, relay: bool) {
    let legs = vec![call.leg.id().to_string(), far.id().to_string()];
    let mode = if relay { "relay" } else { "transcode" };
    call.ledger.record(CallEventKind::Bridged { legs, mode: mode.to_owned() });
    call.phase(Phase::InCall, Floor::None);
}

fn leg_ended(call: &mut Call, leg: &SipLeg, status: u16, reason: &str, by: &str) {
    let (leg, reason, by) = (leg.id().to_string(), reason.to_owned(), by.to_owned());
    call.ledger.record(CallEventKind::LegEnded { leg, status, reason, by });
}

fn transferred(call: &mut Call, state: &str, to: &str, status: u16) {
    let (state, to) = (state.to_owned(), to.to_owned());
    call.ledger.record(CallEventKind::Transfer { state, to, status });
}

/// As [`LegSignal::MediaChanged`] says it.
const HELD: &str = "held_by_peer";
