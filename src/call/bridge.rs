//! Two legs that hear each other.
//!
//! The call's own leg is the near one; the far one is dialled here, or has come by a transfer. Until it answers, its
//! ringing and early media are carried to the near leg; from then on audio, keys and the end are carried both ways.
//! Each leg negotiates for itself: the parties see our addresses, Call-IDs and headers, never each other's, and
//! hold or another codec on one leg is settled with that leg alone.
//!
//! While nobody listens and both legs speak alike, packets pass as they are. Whoever may replace a leg meanwhile is
//! the business of [`transfer`](super::transfer).

use std::ops::ControlFlow;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::dial::{DialFailure, DialNews, DialRequest, Dialling, Party};
use super::handle::{CallCommand, Taken};
use super::hunt::disposition;
use super::ledger::Ending;
use super::leg::Leg;
use super::replace::Newcomer;
use super::transfer::{Far, Mover, Outcome, Place};
use super::{Call, Over, Prompts, SAMPLES_AT_ONCE, Wake};
use crate::audio::tone::Cadence;
use crate::event::{CallEventKind, Disposition, Floor, Phase};
use crate::id::LegId;
use crate::rtp::ItemKey;
use crate::sip::cause::{goodbye_across, reason_across, status_across};
use crate::sip::leg::{HangUp, HangUpCause, LegSignal};
use crate::sip::message::StatusCode;
use crate::sip::trunk::ReferPolicy;
use crate::sip::ua::HangupReason;

/// What a call needs to dial somebody and join the two.
#[derive(Clone)]
pub struct DialStep {
    /// Whom.
    pub request: DialRequest,
    /// Nothing follows: a call that nobody answers ends.
    pub last: bool,
    /// What a caller hears who was answered already, before such an end.
    pub prompts: Prompts,
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
        let kit = self.reach.kit.clone();
        let dialling = Dialling::start(kit, self.leg.pacer().clone(), step.request.clone());
        match Bridge::new(Some(dialling)).run(self).await {
            End::Over => Err(Over),
            End::Unanswered(_) if !step.last => Ok(()),
            End::Unanswered(failure) => self.unanswered(step, failure).await,
        }
    }

    /// Calls somebody and joins the two until one of them hangs up; `joined` is told when they are.
    pub(super) async fn join_with(
        &mut self,
        request: DialRequest,
        joined: impl FnOnce(&mut Call),
    ) -> Unanswered {
        if let Some(Over) = self.is_over() {
            return Unanswered::Over;
        }
        let kit = self.reach.kit.clone();
        let dialling = Dialling::start(kit, self.leg.pacer().clone(), request);
        let mut bridge = Bridge::new(Some(dialling));
        let mut joined = Some(joined);
        let end = loop {
            self.timer_armed = false;
            let woken = std::future::poll_fn(|cx| bridge.poll(self, cx)).await;
            if let Some(end) = bridge.woken(self, woken) {
                break end;
            }
            if bridge.far.is_some()
                && let Some(joined) = joined.take()
            {
                joined(self);
            }
        };
        bridge.close(self);
        match end {
            End::Over => Unanswered::Over,
            End::Unanswered(failure) => Unanswered::Failed(failure),
        }
    }

    /// Whether somebody has taken the place of the flow; then they talk with each other until one hangs up.
    pub async fn talk_with_joined(&mut self) {
        let Some(far) = self.joined.take() else { return };
        let mut bridge = Bridge::new(None);
        bridge.join(self, far);
        // Nobody is dialled, so it ends in nothing but the end.
        let _over = bridge.run(self).await;
    }

    /// Nobody answered, and nothing follows.
    pub(super) async fn unanswered(&mut self, step: &DialStep, failure: DialFailure) -> Result<(), Over> {
        let disposition = disposition(failure.status, failure.timed_out);
        let failed = matches!(disposition, Disposition::Failed);
        let reason = reason_across(failure.status, failure.cause, &failure.reason);
        if self.answered {
            let prompts = &step.prompts;
            let prompt = if failed { &prompts.apology } else { &prompts.nobody };
            self.play(prompt, None).await?;
            self.leg.hang_up(reason);
        } else {
            let header = format!("Q.850;cause={}", reason.cause);
            self.leg.reject(status_across(failure.status), vec![("Reason".to_owned(), header)]);
        }
        let by = if failed { "system" } else { "callee" };
        self.end(Ending::new(disposition, by, failure.status, failure.reason));
        Err(Over)
    }
}

/// What wakes a bridge.
enum Woken {
    Near(Wake),
    Far(LegSignal),
    Dial(DialNews),
}

/// How a call to somebody ended.
pub(super) enum Unanswered {
    /// With the call itself.
    Over,
    /// Nobody answered, and the call goes on.
    Failed(DialFailure),
}

/// How a bridge ends.
enum End {
    Over,
    Unanswered(DialFailure),
}

struct Bridge {
    /// Until somebody answers.
    dialling: Option<Dialling>,
    far: Far,
    /// The near party hears the far one's early media.
    early: bool,
    near_held: bool,
    far_held: bool,
    /// By our own command.
    parked: bool,
    /// Packets pass as they are: nobody listens, and both legs speak alike.
    relay: bool,
    /// When packets may pass again: not at once after a party has switched its codec (and how often that has
    /// happened), nor while a key that we press may still be held at the other side.
    relay_from: Option<Instant>,
    switches: u32,
    /// The Q.850 cause the near party hung up with.
    near_cause: Option<u16>,
    near_music: Music,
    far_music: Music,
    /// What an answered caller hears while somebody is called for them, in place of the ringing of their own side.
    ringing: Music,
    pcm: Vec<i16>,
}

/// What a party that waits is hearing.
#[derive(Default)]
struct Music {
    playing: Option<ItemKey>,
    /// Of the next sample.
    position: usize,
    /// The party's PBX plays some, for want of ours.
    by_pbx: bool,
}

impl Bridge {
    fn new(dialling: Option<Dialling>) -> Self {
        Self {
            dialling,
            far: None,
            early: false,
            near_held: false,
            far_held: false,
            parked: false,
            relay: false,
            relay_from: None,
            switches: 0,
            near_cause: None,
            near_music: Music::default(),
            far_music: Music::default(),
            ringing: Music::default(),
            pcm: Vec::with_capacity(960),
        }
    }

    async fn run(mut self, call: &mut Call) -> End {
        let end = loop {
            call.timer_armed = false;
            let woken = std::future::poll_fn(|cx| self.poll(call, cx)).await;
            if let Some(end) = self.woken(call, woken) {
                break end;
            }
        };
        self.close(call);
        end
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
        Poll::Pending
    }

    fn woken(&mut self, call: &mut Call, woken: Woken) -> Option<End> {
        match woken {
            Woken::Near(Wake::Leg(LegSignal::HungUp(_))) if call.left(Place::Near) => self.entertain(call),
            Woken::Near(wake) => {
                if let Wake::Leg(LegSignal::HungUp(hang_up)) = &wake {
                    self.near_cause = hang_up.cause_code;
                }
                call.noted(&wake);
                if call.over.is_some() {
                    return Some(End::Over);
                }
                return self.near(call, wake);
            }
            Woken::Far(LegSignal::HungUp(_)) if call.left(Place::Far) => self.entertain(call),
            Woken::Far(LegSignal::HungUp(hang_up)) => return Some(self.far_hung_up(call, hang_up)),
            Woken::Far(signal) => return self.far_signal(call, signal),
            Woken::Dial(news) => return self.dial_news(call, news),
        }
        None
    }

    // The near leg.

    fn near(&mut self, call: &mut Call, wake: Wake) -> Option<End> {
        match wake {
            Wake::Leg(LegSignal::Audio { .. }) => self.near_audio(call),
            Wake::Leg(LegSignal::Dtmf { digit, method }) => self.near_key(call, digit, method),
            Wake::Leg(LegSignal::MediaChanged { state, .. }) => {
                self.near_held = state == HELD;
                self.entertain(call);
            }
            Wake::Leg(LegSignal::DtmfSent | LegSignal::Established) => self.retune(call),
            Wake::Leg(LegSignal::CodecHeard(_)) => self.codec_switched(call),
            Wake::Command(CallCommand::Transfer { taken, .. }) if self.far.is_none() => taken.no(NOBODY),
            Wake::Command(CallCommand::Replace { leg, with }) if self.is_dialling(leg) => {
                return self.picked_up(call, with);
            }
            Wake::Command(CallCommand::Hold { on, taken }) => self.park(call, on, taken),
            Wake::Command(CallCommand::Dtmf { digits, taken }) => self.press(call, &digits, taken),
            Wake::Command(CallCommand::Say { taken, .. }) => taken.no("no assistant is on the call"),
            // What is left means nothing to two people who talk.
            other => {
                if let ControlFlow::Break(outcome) = call.other_parties(&mut self.far, other) {
                    return self.changed(call, outcome);
                }
            }
        }
        None
    }

    fn near_audio(&mut self, call: &mut Call) {
        self.slot(call);
        // A party that holds may play music of its own (RFC 3264 section 8.4); ours goes before it.
        let own_music = self.near_held && !self.far_held && self.lets_play(call);
        let quiet = self.is_quiet(call) && !own_music;
        let far = match (&mut self.far, &mut self.dialling) {
            (Some(far), _) => Some(&mut far.leg),
            (None, Some(dialling)) => dialling.leg(),
            (None, None) => None,
        };
        call.hear(|pcm| {
            if let Some(far) = far.filter(|_| !quiet) {
                far.play_live(pcm);
            }
        });
    }

    /// A key goes on in the far leg's own way, unless its packets pass already or its tones are heard.
    fn near_key(&mut self, call: &mut Call, digit: char, method: &str) {
        let Some(far) = &mut self.far else { return };
        let passes = self.relay && method == "rtp" && call.leg.passes_keys_to(&far.leg);
        if method != "inband" && !passes {
            far.leg.send_dtmf(digit.encode_utf8(&mut [0; 4]));
            self.key_pressed(call);
        }
    }

    fn far_key(&mut self, call: &mut Call, digit: char, method: &str) {
        let Some(far) = &self.far else { return };
        let passes = self.relay && method == "rtp" && far.leg.passes_keys_to(&call.leg);
        if method != "inband" && !passes {
            call.leg.send_dtmf(digit.encode_utf8(&mut [0; 4]));
            self.key_pressed(call);
        }
    }

    /// A key of ours is on its way. If it is one the other party still holds, the rest of its packets must not pass
    /// as a second one.
    fn key_pressed(&mut self, call: &mut Call) {
        self.relay_from = self.relay_from.max(Some(Instant::now() + KEY_PAUSE));
        self.retune(call);
    }

    fn press(&mut self, call: &mut Call, digits: &str, taken: Taken) {
        let Some(far) = &mut self.far else { return taken.no(NOBODY) };
        taken.yes();
        far.leg.send_dtmf(digits);
        self.key_pressed(call);
    }

    fn park(&mut self, call: &mut Call, on: bool, taken: Taken) {
        if self.far.is_none() {
            return taken.no(NOBODY);
        }
        taken.yes();
        self.parked = on;
        let codec = call.leg.codec().map_or_else(String::new, |codec| codec.to_string());
        let state = if on { "held_by_us" } else { "active" }.to_owned();
        call.ledger.record(CallEventKind::Media { state, codec });
        self.entertain(call);
    }

    // What both hear.

    /// Whether the two do not hear each other now.
    fn is_quiet(&self, call: &Call) -> bool {
        let left = call.has_left(Place::Near) || call.has_left(Place::Far);
        self.near_held || self.far_held || self.parked || left
    }

    /// Whether a party that holds is heard with the music of its own.
    fn lets_play(&self, call: &Call) -> bool {
        call.reach.hold_music.is_none() && !self.parked
    }

    /// Chooses between passing packets and passing audio.
    fn retune(&mut self, call: &mut Call) {
        let quiet = self.is_quiet(call);
        let Some(far) = &mut self.far else { return };
        let relay = !quiet
            && self.relay_from.is_none()
            && call.recorder.is_none()
            && call.leg.can_relay_to(&far.leg)
            && far.leg.can_relay_to(&call.leg);
        if relay != self.relay {
            self.relay = relay;
            call.leg.park(relay);
            far.leg.park(relay);
            let far = far.leg.id();
            bridged(call, far, relay);
        }
    }

    /// A party sends in another codec that was agreed on. It may go back and forth; the packets pass again only
    /// after a while, and at some point not at all.
    fn codec_switched(&mut self, call: &mut Call) {
        self.switches += 1;
        self.relay_from = Some(Instant::now() + SWITCH_PAUSE * self.switches.pow(2));
        self.retune(call);
    }

    /// What is due while nothing is relayed: audio, or the silence in its place, comes every 20 ms from either side.
    fn slot(&mut self, call: &mut Call) {
        let music = call.reach.hold_music.as_deref();
        self.near_music.go_on(&mut call.leg, music);
        self.ringing.go_on(&mut call.leg, Some(&RINGBACK));
        if let Some(far) = &mut self.far {
            self.far_music.go_on(&mut far.leg, music);
        }
        self.resume_relay(call);
    }

    fn resume_relay(&mut self, call: &mut Call) {
        if self.relay_from.take_if(|at| Instant::now() >= *at).is_some() {
            self.retune(call);
            // The party still speaks in its other codec: look again later.
            if !self.relay && self.switches > 0 {
                self.relay_from = Some(Instant::now() + SWITCH_PAUSE * self.switches.pow(2));
            }
        }
    }

    /// Music for whoever waits, and none for whoever does not.
    fn entertain(&mut self, call: &mut Call) {
        let near_left = call.has_left(Place::Near);
        let far_left = call.has_left(Place::Far);
        let near_waits = (self.far_held || self.parked || far_left) && !self.near_held;
        let far_waits = (self.near_held || self.parked || near_left) && !self.far_held;
        let music = call.reach.hold_music.clone();
        self.near_music.play(&mut call.leg, near_waits, music.as_deref());
        if let Some(far) = &mut self.far {
            self.far_music.play(&mut far.leg, far_waits, music.as_deref());
        }
        self.retune(call);
    }

    /// A leg was replaced, or the call has ended.
    fn changed(&mut self, call: &mut Call, outcome: Outcome) -> Option<End> {
        match outcome {
            Outcome::Open => {
                // A party may have come back out of a transfer that failed.
                self.entertain(call);
                None
            }
            Outcome::Over | Outcome::Led => Some(End::Over),
            Outcome::Replaced(_) => {
                (self.near_held, self.far_held, self.relay) = (false, false, false);
                (self.relay_from, self.switches) = (None, 0);
                (self.near_music.playing, self.far_music.playing) = (None, None);
                (self.near_music.by_pbx, self.far_music.by_pbx) = (false, false);
                // Nobody has answered yet: there is nothing to join.
                let far = self.far.as_ref().map(|far| far.leg.id())?;
                bridged(call, far, false);
                self.entertain(call);
                None
            }
        }
    }

    // The far leg.

    fn far_signal(&mut self, call: &mut Call, signal: LegSignal) -> Option<End> {
        match signal {
            LegSignal::Audio { .. } => self.far_audio(call),
            LegSignal::Dtmf { digit, method } => self.far_key(call, digit, method),
            LegSignal::MediaChanged { state, .. } => {
                self.far_held = state == HELD;
                self.entertain(call);
            }
            LegSignal::DtmfSent | LegSignal::Established => self.retune(call),
            LegSignal::CodecHeard(_) => self.codec_switched(call),
            LegSignal::Transfer(asked) => {
                let outcome = call.transfer_asked(&mut self.far, Mover::Far, *asked);
                return self.changed(call, outcome);
            }
            LegSignal::Transferring(news) => {
                let outcome = call.referred(&mut self.far, news);
                return self.changed(call, outcome);
            }
            LegSignal::Sent { .. }
            | LegSignal::ItemStarted(_)
            | LegSignal::ItemFinished { .. }
            | LegSignal::Trying
            | LegSignal::Ringing { .. }
            | LegSignal::EarlyMedia
            | LegSignal::HungUp(_) => {}
        }
        None
    }

    fn far_audio(&mut self, call: &mut Call) {
        self.slot(call);
        let own_music = self.far_held && !self.near_held && self.lets_play(call);
        let quiet = self.is_quiet(call) && !own_music;
        self.pcm.clear();
        if let Some(far) = &mut self.far {
            far.leg.take_audio(&mut self.pcm);
        }
        if !quiet {
            call.leg.play_live(&self.pcm);
        }
    }

    fn far_hung_up(&mut self, call: &mut Call, hang_up: HangUp) -> End {
        let by_peer = hang_up.cause == HangUpCause::Peer;
        let (disposition, by) = match by_peer {
            true => (Disposition::Completed, "callee"),
            false => (Disposition::Failed, "system"),
        };
        if let Some(far) = self.far.take() {
            call.note_leg_ended(&far.leg, hang_up.status, &hang_up.reason, by);
        }
        call.leg.hang_up(goodbye_across(hang_up.cause_code, &hang_up.reason));
        call.end(Ending::new(disposition, by, hang_up.status, hang_up.reason));
        End::Over
    }

    // Until somebody answers.

    fn dial_news(&mut self, call: &mut Call, news: DialNews) -> Option<End> {
        match news {
            DialNews::Note(note) => call.ledger.record(note),
            DialNews::Signal(signal) => self.dial_signal(call, signal),
            DialNews::Answered(far) => {
                self.dialling = None;
                self.join(call, far);
            }
            DialNews::Failed(failure) => {
                self.dialling = None;
                self.ringing.play(&mut call.leg, false, None);
                return Some(End::Unanswered(failure));
            }
        }
        None
    }

    fn dial_signal(&mut self, call: &mut Call, signal: LegSignal) {
        match signal {
            LegSignal::EarlyMedia => {
                self.early = call.leg.codec().is_some();
                if self.early {
                    self.ringing.play(&mut call.leg, false, None);
                }
            }
            LegSignal::Ringing { status } => {
                // Whoever has been answered hears no ringing but ours.
                let hears_us = call.answered || call.leg.is_open();
                let wanted = hears_us && !self.early && !self.near_held;
                self.ringing.play(&mut call.leg, wanted, Some(&RINGBACK));
                if let Some(leg) = self.dialling.as_mut().and_then(Dialling::leg) {
                    call.listed.own(leg.id());
                }
                if !call.answered {
                    let status = StatusCode::new(status).unwrap_or(StatusCode::RINGING);
                    call.leg.progress(status, self.early);
                    call.phase(Phase::Ringing, Floor::None);
                }
            }
            LegSignal::Audio { .. } => {
                self.pcm.clear();
                if let Some(leg) = self.dialling.as_mut().and_then(Dialling::leg) {
                    leg.take_audio(&mut self.pcm);
                }
                if self.early {
                    call.leg.play_live(&self.pcm);
                }
            }
            _ => {}
        }
    }

    fn is_dialling(&mut self, leg: LegId) -> bool {
        self.dialling.as_mut().and_then(Dialling::leg).is_some_and(|ringing| ringing.id() == leg)
    }

    /// Somebody takes a call that still rings elsewhere.
    fn picked_up(&mut self, call: &mut Call, with: Newcomer) -> Option<End> {
        let trunk = self.dialling.as_ref().and_then(Dialling::trunk);
        if trunk.is_none_or(|trunk| trunk.refer == ReferPolicy::Refuse) {
            with.refuse(StatusCode::FORBIDDEN);
            return None;
        }
        let far = with.settle(call.leg.pacer().clone())?;
        let text = "Call completed elsewhere".to_owned();
        let told = HangupReason { protocol: "SIP", cause: 200, text };
        self.give_up_dialling(call, "picked up elsewhere", told);
        self.join(call, far);
        None
    }

    fn join(&mut self, call: &mut Call, mut far: Box<Party>) {
        far.leg.watch_slots(false);
        call.listed.own(far.leg.id());
        call.leg.clear();
        self.ringing.playing = None;
        self.early = false;
        call.answer_now();
        bridged(call, far.leg.id(), false);
        self.far = Some(far);
        self.entertain(call);
    }

    fn give_up_dialling(&mut self, call: &mut Call, reason: &str, told: HangupReason) {
        if let Some(mut dialling) = self.dialling.take()
            && let Some(leg) = dialling.leg()
        {
            leg.hang_up(told);
            call.note_leg_ended(leg, 487, reason, "caller");
        }
    }

    /// The far leg is told why, and its end recorded.
    fn close(mut self, call: &mut Call) {
        let (cause, text) = match &call.over {
            Some(over) if over.disposition == Disposition::Completed => {
                (self.near_cause, over.reason.clone())
            }
            Some(over) => {
                let cause = reason_across(over.sip_status, self.near_cause, "").cause;
                (Some(cause), over.reason.clone())
            }
            None => (None, String::new()),
        };
        self.give_up_dialling(call, "given up", goodbye_across(cause, &text));
        if let Some(mut far) = self.far.take() {
            far.leg.hang_up(goodbye_across(cause, &text));
            let by = call.over.as_ref().map_or_else(|| "system".to_owned(), |over| over.by.clone());
            call.note_leg_ended(&far.leg, 200, "the other party left", &by);
        }
    }
}

impl Music {
    /// Lets `leg` hear `music` over and over, or stops it.
    fn play(&mut self, leg: &mut Leg, wanted: bool, music: Option<&[i16]>) {
        let by_pbx = wanted && music.is_none();
        if by_pbx != std::mem::replace(&mut self.by_pbx, by_pbx) {
            leg.hold(by_pbx);
        }
        if !wanted {
            if self.playing.take().is_some() {
                leg.clear();
            }
        } else if self.playing.is_none() && music.is_some() {
            // A name of its own each time: what was cleared once is not played again.
            self.playing = Some(ItemKey::from(format!("hold-{:016x}", rand::random::<u64>()).as_str()));
            self.position = 0;
            self.go_on(leg, music);
        }
    }

    /// Queues the next bit, if it is time. All of a long piece at once would keep the worker's other calls waiting.
    fn go_on(&mut self, leg: &mut Leg, music: Option<&[i16]>) {
        let (Some(item), Some(music)) = (&self.playing, music) else { return };
        if leg.queued() < MUSIC_AHEAD {
            let end = music.len().min(self.position + SAMPLES_AT_ONCE);
            leg.play(item, &music[self.position..end]);
            self.position = if end == music.len() { 0 } else { end };
        }
    }
}

fn bridged(call: &mut Call, far: LegId, relay: bool) {
    let legs = vec![call.leg.id().to_string(), far.to_string()];
    let mode = if relay { "relay" } else { "transcode" };
    call.ledger.record(CallEventKind::Bridged { legs, mode: mode.to_owned() });
    call.phase(Phase::InCall, Floor::None);
}

/// One round of ringing.
static RINGBACK: LazyLock<Vec<i16>> = LazyLock::new(|| Cadence::ringback().render());
/// As [`LegSignal::MediaChanged`] says it.
const HELD: &str = "held_by_peer";
/// Music that waits to be heard, at least.
const MUSIC_AHEAD: Duration = Duration::from_millis(200);
const NOBODY: &str = "nobody has answered the call yet";
/// How long a party that has switched its codec must have left it alone before its packets pass again; times the
/// square of how often it has.
const SWITCH_PAUSE: Duration = Duration::from_secs(1);
/// How long packets do not pass after a key that we made: longer than keys are held.
const KEY_PAUSE: Duration = Duration::from_secs(2);
