//! Moving a call to somebody else, whatever it is doing.
//!
//! A party asks for it by REFER, or the API does. The third party is dialled (or fetched out of another call of
//! this server) while everybody talks on, and takes a place in the call only once it is there: the place of the
//! party that asked, or of the far one when the API asks. Whatever fails on the way leaves the call as it was. A
//! trunk may have REFER passed on instead: then the party that stays is asked to call by itself, and only if it
//! cannot do so the call is moved here.
//!
//! The near leg may be swapped under any step of a flow: an assistant goes on with whoever is there now.

use std::future::Future as _;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::dial::{DialKit, DialNews, DialRequest, DialSource, DialTarget, Dialling, Party};
use super::handle::{CallCommand, CallHandle, Calls, Taken};
use super::ledger::Ending;
use super::replace::{Newcomer, Partner};
use super::{Call, Wake};
use crate::event::{CallEventKind, Disposition};
use crate::id::LegId;
use crate::rtp::PlayedItem;
use crate::sip::cause::reason_across;
use crate::sip::leg::{LegSignal, SipLeg};
use crate::sip::message::StatusCode;
use crate::sip::trunk::{ReferPolicy, Trunk};
use crate::sip::ua::{HangupReason, Referral, ReplacesRef, TransferAsked, TransferNews};
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
    /// We call the third party.
    Dialling(Box<Dialling>),
    /// The party that stays was asked to call it. If it cannot, this is whom we call.
    Passed(Box<(DialTarget, Option<ReplacesRef>)>),
    /// Another call of this server has it, on the far side of that leg.
    Joining { answer: oneshot::Receiver<Partner>, call: Option<CallHandle>, leg: LegId },
}

/// What wakes a transfer.
pub(super) enum MoveNews {
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
                self.transfer_commanded(to, trunk, taken);
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
        let other = if by == Mover::Near { Mover::Far } else { Mover::Near };
        let target = DialTarget::Uri(uri.clone());
        if policy == ReferPolicy::Pass
            && let Some(other) = self.party(far, other)
        {
            other.refer(Referral { to: uri, replaces: replaces.clone(), referred_by });
            self.begin(by, to, Way::Passed(Box::new((target, replaces))));
        } else {
            let by = self.mover(far, by);
            self.dial_third(by, target, Vec::new(), replaces);
        }
        Outcome::Open
    }

    /// The API asks for the call to be moved.
    fn transfer_commanded(&mut self, to: DialTarget, trunk: Option<String>, taken: Taken) {
        if !self.answered {
            return taken.no("the call has not been answered yet");
        }
        if self.moving.is_some() {
            return taken.no("the call is being transferred already");
        }
        taken.yes();
        let text = to.to_string();
        self.note_transfer("accepted", &text, 202);
        let passes = self.trunk.refer == ReferPolicy::Pass && trunk.is_none();
        match passes.then(|| uri_at(&to, &self.trunk)).flatten() {
            Some(uri) => {
                self.leg.refer(Referral { to: uri, replaces: None, referred_by: None });
                self.begin(Mover::Api, text, Way::Passed(Box::new((to, None))));
            }
            None => self.dial_third((Mover::Api, None), to, trunk.into_iter().collect(), None),
        }
    }

    fn begin(&mut self, by: Mover, to: String, way: Way) {
        self.moving = Some(Box::new(Moving { by, to, way, gone: false }));
    }

    /// Who moves the call, and over which trunks it may.
    fn mover(&self, far: &Far, by: Mover) -> (Mover, Option<Vec<String>>) {
        let trunk = match by {
            Mover::Near => Some(&self.trunk),
            Mover::Far => far.as_ref().map(|far| &far.trunk),
            Mover::Api => None,
        };
        (by, trunk.and_then(|trunk| trunk.reach.clone()))
    }

    fn dial_third(
        &mut self,
        by: (Mover, Option<Vec<String>>),
        to: DialTarget,
        trunks: Vec<String>,
        replaces: Option<ReplacesRef>,
    ) {
        let text = to.to_string();
        let (by, reach) = by;
        let request = DialRequest {
            trunks,
            reach,
            replaces,
            from: self.reach.from.clone(),
            organization: self.reach.organization.clone(),
            max_forwards: self.reach.max_forwards,
            ..DialRequest::new(to, DialSource::Transfer)
        };
        let dialling = Dialling::start(self.reach.kit.clone(), self.leg.pacer().clone(), request);
        self.begin(by, text, Way::Dialling(Box::new(dialling)));
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
        if let Some(parting) = self.part_with(other) {
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
        let passed = |moving: &&mut Box<Moving>| matches!(moving.way, Way::Passed(_));
        let Some(moving) = self.moving.as_mut().filter(passed) else { return Outcome::Open };
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
                let by = moving.by;
                let gone = moving.gone;
                if let Some(Moving { way: Way::Passed(rest), .. }) = self.moving.take().map(|m| *m) {
                    let (to, replaces) = *rest;
                    let by = self.mover(far, by);
                    self.dial_third(by, to, Vec::new(), replaces);
                    self.moving.iter_mut().for_each(|moving| moving.gone = gone);
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

    fn party<'a>(&'a mut self, far: &'a mut Far, who: Mover) -> Option<&'a mut SipLeg> {
        match who {
            Mover::Near => Some(&mut self.leg),
            Mover::Far => far.as_mut().map(|far| &mut far.leg),
            Mover::Api => None,
        }
    }

    fn note_transfer(&mut self, state: &str, to: &str, status: u16) {
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

/// A target as the peer of `trunk` can call it.
fn uri_at(to: &DialTarget, trunk: &Trunk) -> Option<Uri> {
    let number = match to {
        DialTarget::Uri(uri) => return Some(uri.clone()),
        DialTarget::Number(number) => number,
        DialTarget::Phone(_) => return None,
    };
    let peer = trunk.peers.first();
    let host = trunk.domain.clone().or_else(|| peer.map(|peer| peer.host_text()))?;
    let port = peer.filter(|_| trunk.domain.is_none()).and_then(|peer| peer.port);
    Uri::sip(number, &host, port).ok()
}
