//! Moving a call to somebody else, whatever it is doing.
//!
//! A party asks for it by REFER, or the API does. The third party is dialled (or fetched out of another call of
//! this server) while everybody talks on, and takes a place in the call only once it is there: the place of the
//! party that asked, or of the far one when the API asks. Whatever fails on the way leaves the call as it was. A
//! trunk may have REFER passed on instead: then the party that stays is asked to call by itself, and only if it
//! cannot do so the call is moved here.
//!
//! Where it leads to a number of ours, nobody is dialled: that number's flow goes on with the party that stays.
//!
//! The near leg may be swapped under any step of a flow: an assistant goes on with whoever is there now.

use std::future::Future as _;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::dial::{DialKit, DialNews, DialRequest, DialSource, DialTarget, Dialling, Party, RouteRefusal};
use super::handle::{CallCommand, CallHandle, Calls, Taken};
use super::ledger::Ending;
use super::leg::Leg;
use super::onward::{Asker, Onward};
use super::replace::{Newcomer, Partner};
use super::{Call, Wake};
use crate::event::{CallEventKind, Disposition};
use crate::id::LegId;
use crate::rtp::PlayedItem;
use crate::sip::cause::reason_across;
use crate::sip::leg::LegSignal;
use crate::sip::message::StatusCode;
use crate::sip::trunk::{ReferPolicy, Trunk};
use crate::sip::ua::{HangupReason, Referral, TransferAsked, TransferNews};
use crate::sip::uri::Uri;

/// Whom a call can reach, and what those hear who wait for it.
#[derive(Clone)]
pub struct Reach {
    /// Routes, permits, lines.
    pub kit: DialKit,
    /// The other calls of this server.
    pub calls: Calls,
    /// The number it shows.
    pub from: Option<String>,
    /// Who pays.
    pub organization: Option<String>,
    /// Hops it may still take.
    pub max_forwards: u8,
    /// What a party hears while the other holds; none: silence.
    pub hold_music: Option<Arc<[i16]>>,
}

/// The second leg of a call that has one.
pub(super) type Far = Option<Box<Party>>;

/// A place in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Near,
    Far,
}

/// Who moves a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mover {
    Near,
    Far,
    Api,
}

/// What a step towards another party has come to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The call goes on as it is.
    Open,
    /// A leg was replaced. What was not heard to its end by those who were there before.
    Replaced(Vec<PlayedItem>),
    /// The near party goes on with another flow.
    Led,
    /// The call is over.
    Over,
}

/// A transfer under way.
pub(super) struct Moving {
    by: Mover,
    to: String,
    way: Way,
    /// The party whose place it is has left.
    gone: bool,
}

enum Way {
    /// We find out whether that is a number of ours. If it is not, this is what happens.
    Asking { answer: oneshot::Receiver<Result<Option<Onward>, RouteRefusal>>, otherwise: Box<Otherwise> },
    /// We call the third party.
    Dialling(Box<Dialling>),
    /// The party that stays was asked to call it. If it cannot, this is whom we call.
    Passed(Box<DialRequest>),
    /// Another call of this server has it, on the far side of that leg.
    Joining { answer: oneshot::Receiver<Partner>, call: Option<CallHandle>, leg: LegId },
}

/// How somebody who is not ours is called.
struct Otherwise {
    /// By us.
    request: DialRequest,
    /// By the party that stays, if its trunk has REFER passed on.
    referral: Option<Referral>,
}

/// What wakes a transfer.
pub(super) enum MoveNews {
    Onward(Result<Option<Onward>, RouteRefusal>),
    Dial(DialNews),
    Partner(Option<Partner>),
}

impl std::fmt::Debug for MoveNews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MoveNews")
    }
}

impl Moving {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<MoveNews> {
        match &mut self.way {
            Way::Asking { answer, .. } => {
                let lost = |_| Err(RouteRefusal::new(503, "the server is stopping"));
                Pin::new(answer).poll(cx).map(|found| MoveNews::Onward(found.unwrap_or_else(lost)))
            }
            Way::Dialling(dialling) => dialling.poll(cx).map(MoveNews::Dial),
            Way::Joining { answer, .. } => Pin::new(answer).poll(cx).map(|p| MoveNews::Partner(p.ok())),
            Way::Passed(_) => Poll::Pending,
        }
    }

    /// Where the third party is to go.
    pub(super) fn place(&self) -> Place {
        match self.by {
            Mover::Near => Place::Near,
            Mover::Far | Mover::Api => Place::Far,
        }
    }
}

impl Call {
    /// Takes what concerns other parties; lets pass what does not.
    pub(super) fn other_parties(&mut self, far: &mut Far, wake: Wake) -> ControlFlow<Outcome, Wake> {
        ControlFlow::Break(match wake {
            Wake::Leg(LegSignal::Transfer(asked)) => self.transfer_asked(far, Mover::Near, *asked),
            Wake::Leg(LegSignal::Transferring(news)) => self.referred(far, news),
            Wake::Move(news) => self.move_news(far, news),
            Wake::Command(CallCommand::Transfer { to, trunk, taken }) => {
                self.transfer_commanded(far, to, trunk, taken);
                Outcome::Open
            }
            Wake::Command(CallCommand::Replace { leg, with }) => self.replaced(far, leg, with),
            Wake::Command(CallCommand::GiveUp { leg, answer }) => self.give_up(far, leg, answer),
            other => return ControlFlow::Continue(other),
        })
    }

    /// A party asks for the call to be moved.
    pub(super) fn transfer_asked(&mut self, far: &mut Far, by: Mover, asked: TransferAsked) -> Outcome {
        let policy = match far {
            Some(far) if by == Mover::Far => far.trunk.refer,
            _ => self.trunk.refer,
        };
        let to = asked.to.as_str().to_owned();
        self.note_transfer("asked", &to, 0);
        let refusal = match policy {
            _ if self.moving.is_some() => Some(StatusCode::REQUEST_PENDING),
            ReferPolicy::Refuse => Some(StatusCode::FORBIDDEN),
            ReferPolicy::Local | ReferPolicy::Pass => None,
        };
        if let Some(status) = refusal {
            self.party(far, by).into_iter().for_each(|leg| leg.reject_transfer(status));
            metrics::counter!("tandem_transfers_total", "outcome" => "refused").increment(1);
            self.note_transfer("refused", &to, status.get());
            return Outcome::Open;
        }
        self.party(far, by).into_iter().for_each(|leg| leg.accept_transfer());
        self.note_transfer("accepted", &to, 202);
        let TransferAsked { to: uri, replaces, ours, referred_by, .. } = asked;
        if let Some(ours) = ours {
            self.join_across(by, to, ours);
            return Outcome::Open;
        }
        let request =
            DialRequest { replaces: replaces.clone(), ..self.request(far, by, DialTarget::Uri(uri.clone())) };
        let passes = policy == ReferPolicy::Pass;
        let referral = passes.then_some(Referral { to: uri, replaces, referred_by });
        self.seek(far, by, to, Otherwise { request, referral });
        Outcome::Open
    }

    /// The API asks for the call to be moved.
    fn transfer_commanded(&mut self, far: &Far, to: DialTarget, trunk: Option<String>, taken: Taken) {
        if !self.answered {
            return taken.no("the call has not been answered yet");
        }
        if self.moving.is_some() {
            return taken.no("the call is being transferred already");
        }
        if let DialTarget::Exit(exit) = &to
            && !self.leg.can_leave(exit)
        {
            return taken.no(NO_WAY_BACK);
        }
        taken.yes();
        self.move_on(far, to, trunk);
    }

    /// The assistant moves the call: whoever answers takes its place. What comes of it is told to its tool call.
    pub(super) fn move_for_assistant(&mut self, to: DialTarget) -> Result<(), &'static str> {
        if !self.answered {
            return Err("the call has not been answered yet");
        }
        if self.moving.is_some() {
            return Err("the call is being moved already");
        }
        if matches!(&to, DialTarget::Exit(exit) if !self.leg.can_leave(exit)) {
            return Err(NO_WAY_BACK);
        }
        self.move_on(&None, to, None);
        Ok(())
    }

    fn move_on(&mut self, far: &Far, to: DialTarget, trunk: Option<String>) {
        let text = to.to_string();
        self.note_transfer("accepted", &text, 202);
        if let DialTarget::Exit(exit) = &to {
            // The PBX does it, and tells as a party does that was asked to call somebody else.
            self.leg.leave(&exit.clone());
            let request = Box::new(self.request(far, Mover::Api, to));
            return self.begin(Mover::Api, text, Way::Passed(request));
        }
        let passes = self.trunk.refer == ReferPolicy::Pass && trunk.is_none();
        let uri = passes.then(|| uri_at(&to, &self.trunk)).flatten();
        let referral = uri.map(|to| Referral { to, replaces: None, referred_by: None });
        let request =
            DialRequest { trunks: trunk.into_iter().collect(), ..self.request(far, Mover::Api, to) };
        self.seek(far, Mover::Api, text, Otherwise { request, referral });
    }

    fn begin(&mut self, by: Mover, to: String, way: Way) {
        self.moving = Some(Box::new(Moving { by, to, way, gone: false }));
    }

    /// A call to whoever is to take a place in this one.
    fn request(&self, far: &Far, by: Mover, to: DialTarget) -> DialRequest {
        let asks = match (by, far) {
            (Mover::Near, _) => Some((&self.trunk, &self.leg)),
            (Mover::Far, Some(far)) => Some((&far.trunk, &far.leg)),
            (Mover::Far, None) | (Mover::Api, _) => None,
        };
        DialRequest {
            reach: asks.and_then(|(trunk, _)| trunk.reach.clone()),
            at: asks.map(|(_, leg)| leg.shown()),
            from: self.reach.from.clone(),
            organization: self.reach.organization.clone(),
            max_forwards: self.reach.max_forwards,
            ..DialRequest::new(to, DialSource::Transfer)
        }
    }

    /// Finds out where that leads.
    fn seek(&mut self, far: &Far, by: Mover, to: String, otherwise: Otherwise) {
        let phone = match by {
            Mover::Near => self.trunk.phone.clone(),
            Mover::Far => far.as_ref().and_then(|far| far.trunk.phone.clone()),
            Mover::Api => None,
        };
        let asker = match phone {
            Some(user) => Asker::Phone(user),
            None if by == Mover::Api => Asker::Api,
            None => Asker::Trunk,
        };
        let answer = self.reach.kit.outbound.onward(otherwise.request.clone(), asker);
        self.begin(by, to, Way::Asking { answer, otherwise: Box::new(otherwise) });
    }

    /// What was asked for is no number of ours: somebody is called, by us or by the party that stays.
    fn call_third(&mut self, far: &mut Far) {
        let Some(Moving { by, to, way: Way::Asking { otherwise, .. }, gone }) =
            self.moving.take().map(|moving| *moving)
        else {
            return;
        };
        let Otherwise { request, referral } = *otherwise;
        let stays = if by == Mover::Near { Mover::Far } else { Mover::Near };
        let asked = referral.is_some_and(|referral| {
            let party = self.party(far, stays);
            party.is_some_and(|leg| leg.refer(referral))
        });
        let way = if asked { Way::Passed(Box::new(request)) } else { self.dialling(request) };
        self.moving = Some(Box::new(Moving { by, to, way, gone }));
    }

    fn dialling(&self, request: DialRequest) -> Way {
        Way::Dialling(Box::new(Dialling::start(self.reach.kit.clone(), self.leg.pacer().clone(), request)))
    }

    /// A number of ours: its flow goes on with the party that stays, and the other one hears BYE. Whose the call is
    /// does not change by that: what may be asked of it later goes by its record.
    fn led(&mut self, far: &mut Far, onward: Onward) -> Outcome {
        let by = self.moving.as_ref().map(|moving| moving.by);
        if by == Some(Mover::Near) && far.is_none() {
            // Who asks talks with a flow, which cannot talk with another one.
            return self.not_moved(far, 488, "nobody else is there to be transferred");
        }
        self.tell_mover(far, StatusCode::OK);
        let Some(moving) = self.moving.take() else { return Outcome::Open };
        self.note_transfer("completed", &moving.to, 200);
        metrics::counter!("tandem_transfers_total", "outcome" => "completed").increment(1);
        if let Some(mut leaves) = far.take() {
            let by = if moving.by == Mover::Near { "caller" } else { "callee" };
            if moving.by == Mover::Near {
                self.trade_places(&mut leaves);
                // Who stays was called.
                self.outbound = true;
            }
            leaves.leg.hang_up(HangupReason::normal());
            self.listed.disown(leaves.leg.id());
            self.note_leg_ended(&leaves.leg, 200, "transferred", by);
        }
        self.onward = Some(onward);
        Outcome::Led
    }

    /// The third party is on the far side of a leg of ours: its call is asked for it.
    fn join_across(&mut self, by: Mover, to: String, leg: LegId) {
        let own = self.ledger.call();
        let call = self.reach.calls.of_leg(leg).filter(|call| call.id() != own);
        let (give, answer) = oneshot::channel();
        let asked = call.filter(|call| call.command(CallCommand::GiveUp { leg, answer: give }).is_ok());
        // A call that is not there has dropped the question, which is an answer.
        self.begin(by, to, Way::Joining { answer, call: asked, leg });
    }

    pub(super) fn move_news(&mut self, far: &mut Far, news: MoveNews) -> Outcome {
        match news {
            MoveNews::Onward(Ok(Some(onward))) => return self.led(far, onward),
            MoveNews::Onward(Ok(None)) => self.call_third(far),
            MoveNews::Onward(Err(refusal)) => return self.not_moved(far, refusal.status, &refusal.reason),
            MoveNews::Dial(DialNews::Note(note)) => self.ledger.record(note),
            MoveNews::Dial(DialNews::Signal(LegSignal::Ringing { status })) => {
                if let Some(status) = StatusCode::new(status) {
                    self.tell_mover(far, status);
                }
            }
            MoveNews::Dial(DialNews::Signal(LegSignal::Audio { .. })) => self.drain_third(),
            MoveNews::Dial(DialNews::Signal(_)) => {}
            MoveNews::Dial(DialNews::Answered(third)) => return self.moved(far, third),
            MoveNews::Dial(DialNews::Failed(failure)) => {
                return self.not_moved(far, failure.status, &failure.reason);
            }
            MoveNews::Partner(Some(Partner::Party(party))) => {
                return match party.settle(self.leg.pacer().clone()) {
                    Some(third) => {
                        let (leg, to) = (third.leg.id(), third.trunk.name.clone());
                        self.note_joined(leg, &to);
                        self.moved(far, third)
                    }
                    None => self.not_moved(far, 500, "the other party was lost"),
                };
            }
            MoveNews::Partner(Some(Partner::Flow)) => return self.go_there(far),
            MoveNews::Partner(None) => return self.not_moved(far, 481, "the other call has nobody to join"),
        }
        Outcome::Open
    }

    /// Early media of the third party has no listener; it must not pile up.
    fn drain_third(&mut self) {
        self.audio.clear();
        if let Some(Way::Dialling(dialling)) = self.moving.as_mut().map(|moving| &mut moving.way)
            && let Some(leg) = dialling.leg()
        {
            leg.take_audio(&mut self.audio);
        }
    }

    /// The third party is there and takes the place of whoever moved the call.
    fn moved(&mut self, far: &mut Far, third: Box<Party>) -> Outcome {
        self.tell_mover(far, StatusCode::OK);
        let Some(moving) = self.moving.take() else { return Outcome::Open };
        self.note_transfer("completed", &moving.to, 200);
        metrics::counter!("tandem_transfers_total", "outcome" => "completed").increment(1);
        self.take_place(far, moving.place(), third, "transferred")
    }

    /// `third` takes a place; who had it hears BYE.
    pub(super) fn take_place(
        &mut self,
        far: &mut Far,
        place: Place,
        mut third: Box<Party>,
        reason: &str,
    ) -> Outcome {
        self.listed.own(third.leg.id());
        // Where the flow alone talked with the near party, it brings out by itself what was heard.
        let leaves_flow = place == Place::Far && far.is_none();
        let cleared = if leaves_flow { Vec::new() } else { self.leg.clear() };
        let old = match place {
            Place::Near => {
                self.trade_places(&mut third);
                self.leg.watch_slots(self.recorder.is_some());
                if let Some(far) = far {
                    far.leg.clear();
                }
                Some(third)
            }
            Place::Far => {
                third.leg.watch_slots(false);
                far.replace(third)
            }
        };
        if let Some(mut old) = old {
            old.leg.hang_up(HangupReason::normal());
            self.listed.disown(old.leg.id());
            let by = if place == Place::Near { "caller" } else { "callee" };
            self.note_leg_ended(&old.leg, 200, reason, by);
        }
        Outcome::Replaced(cleared)
    }

    /// The third party talks with the flow of another call: the party that stays goes there.
    fn go_there(&mut self, far: &mut Far) -> Outcome {
        let Some(mut other) = far.take() else { return self.not_moved(far, 488, "nobody to join") };
        let Some(moving) = self.moving.take() else { return Outcome::Open };
        if moving.by == Mover::Far {
            self.trade_places(&mut other);
        }
        // The near leg is that of the party that asked now.
        let Way::Joining { call, leg, .. } = moving.way else { return Outcome::Open };
        if !moving.gone {
            self.leg.transfer_progress(StatusCode::OK);
        }
        self.note_transfer("completed", &moving.to, 200);
        metrics::counter!("tandem_transfers_total", "outcome" => "completed").increment(1);
        if let Some(parting) = self.part_with(*other) {
            // A call that has ended meanwhile leaves the party to be hung up with this.
            let with = Newcomer::Party(Box::new(parting));
            let _gone = call.map(|call| call.command(CallCommand::Replace { leg, with }));
        }
        self.left_alone()
    }

    /// The call goes on as it was, unless the party that moved it has left.
    fn not_moved(&mut self, far: &mut Far, status: u16, reason: &str) -> Outcome {
        let told =
            StatusCode::new(status).filter(|s| s.get() >= 300).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        self.tell_mover(far, told);
        let Some(moving) = self.moving.take() else { return Outcome::Open };
        self.note_transfer("failed", &moving.to, status);
        metrics::counter!("tandem_transfers_total", "outcome" => "failed").increment(1);
        if !moving.gone {
            return Outcome::Open;
        }
        self.leg.hang_up(reason_across(status, None, reason));
        let by = if moving.place() == Place::Near { "caller" } else { "callee" };
        let reason = "left after a transfer that failed";
        self.end(Ending::new(Disposition::Completed, by, 200, reason));
        Outcome::Over
    }

    /// What a leg makes of a REFER of ours.
    pub(super) fn referred(&mut self, far: &mut Far, news: TransferNews) -> Outcome {
        if !self.moving.as_ref().is_some_and(|moving| matches!(moving.way, Way::Passed(_))) {
            return Outcome::Open;
        }
        match news {
            TransferNews::Accepted => {}
            TransferNews::Progress(status) => {
                if let Some(status) = StatusCode::new(status) {
                    self.tell_mover(far, status);
                }
            }
            TransferNews::Done(status) if status < 300 => return self.passed(far, status),
            // A peer that cannot: we do it ourselves.
            TransferNews::Refused(_) => {
                if let Some(Moving { by, to, way: Way::Passed(request), gone }) =
                    self.moving.take().map(|moving| *moving)
                {
                    let way = self.dialling(*request);
                    self.moving = Some(Box::new(Moving { by, to, way, gone }));
                }
            }
            TransferNews::Done(status) => return self.not_moved(far, status, "refused"),
            TransferNews::Lost => return self.not_moved(far, 408, "no news of the transfer"),
        }
        Outcome::Open
    }

    /// The party that stays has called the third one by itself: nothing is left for us to do.
    fn passed(&mut self, far: &mut Far, status: u16) -> Outcome {
        self.tell_mover(far, StatusCode::OK);
        let Some(moving) = self.moving.take() else { return Outcome::Open };
        self.note_transfer("completed", &moving.to, status);
        metrics::counter!("tandem_transfers_total", "outcome" => "passed").increment(1);
        self.leg.hang_up(HangupReason::normal());
        let by = match moving.by {
            Mover::Near => "caller",
            Mover::Far => "callee",
            Mover::Api => "api",
        };
        self.end(Ending::new(Disposition::Completed, by, 200, "transferred"));
        Outcome::Over
    }

    /// The call has ended before its transfer did.
    pub(super) fn give_up_moving(&mut self) {
        let Some(mut moving) = self.moving.take() else { return };
        if let Way::Dialling(dialling) = &mut moving.way
            && let Some(leg) = dialling.leg()
        {
            leg.hang_up(HangupReason::normal());
            self.note_leg_ended(leg, 487, "given up", "system");
        }
        self.note_transfer("failed", &moving.to, 487);
        metrics::counter!("tandem_transfers_total", "outcome" => "failed").increment(1);
    }

    fn tell_mover(&mut self, far: &mut Far, status: StatusCode) {
        let moving = self.moving.as_ref().filter(|moving| !moving.gone);
        if let Some(by) = moving.map(|moving| moving.by) {
            self.party(far, by).into_iter().for_each(|leg| leg.transfer_progress(status));
        }
    }

    /// Whether a party that has hung up did so while somebody else is on the way to its place: the call goes on
    /// without it.
    pub(super) fn left(&mut self, place: Place) -> bool {
        let Some(moving) = self.moving.as_mut().filter(|moving| moving.place() == place) else {
            return false;
        };
        moving.gone = true;
        true
    }

    /// Whether that party has left so.
    pub(super) fn has_left(&self, place: Place) -> bool {
        self.moving.as_ref().is_some_and(|moving| moving.gone && moving.place() == place)
    }

    fn party<'a>(&'a mut self, far: &'a mut Far, who: Mover) -> Option<&'a mut Leg> {
        match who {
            Mover::Near => Some(&mut self.leg),
            Mover::Far => far.as_mut().map(|far| &mut far.leg),
            Mover::Api => None,
        }
    }

    fn note_transfer(&mut self, state: &str, to: &str, status: u16) {
        if let Some(desk) = &mut self.desk {
            match state {
                "completed" => desk.transferred(Ok(())),
                "failed" => desk.transferred(Err(status)),
                _ => {}
            }
        }
        let (state, to) = (state.to_owned(), to.to_owned());
        self.ledger.record(CallEventKind::Transfer { state, to, status });
    }

    pub(super) fn note_joined(&mut self, leg: LegId, trunk: &str) {
        self.ledger.record(CallEventKind::LegAdded {
            leg: leg.to_string(),
            direction: crate::event::Direction::Inbound,
            to: "the place of another party".to_owned(),
            trunk: Some(trunk.to_owned()),
            sip_call_id: None,
        });
    }
}

/// Said when somebody is to be sent to a dialplan who did not come out of one.
const NO_WAY_BACK: &str =
    "the caller is not on a channel of a PBX that we control: give a number, or let the call come in by ARI";

/// A target as the peer of `trunk` can call it.
fn uri_at(to: &DialTarget, trunk: &Trunk) -> Option<Uri> {
    let number = match to {
        DialTarget::Uri(uri) => return Some(uri.clone()),
        DialTarget::Number(number) => number,
        DialTarget::Phone(_) | DialTarget::Exit(_) => return None,
    };
    let peer = trunk.peers.first();
    let host = trunk.domain.clone().or_else(|| peer.map(|peer| peer.host_text()))?;
    let port = peer.filter(|_| trunk.domain.is_none()).and_then(|peer| peer.port);
    Uri::sip(number, &host, port).ok()
}
