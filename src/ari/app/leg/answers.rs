//! What the PBX's answers mean to a leg.

use std::time::{Duration, Instant};

use super::{
    ALIVE_AGAIN, BRIDGING_AGAIN, BRIDGING_TRIES, End, LEAVING_UNKNOWN, Leg, MediaStage, Thing, failed,
};
use crate::ari::app::desk::{Action, Asked, Desk, Step};
use crate::ari::model::{Channel, Variable};
use crate::ari::request::{Extension, Outcome, Request};
use crate::pbx::{ChannelEvent, Departure, Exit};

impl Leg {
    /// What came of a step.
    pub(in crate::ari::app) fn answered(
        &mut self,
        now: Instant,
        step: Step,
        outcome: Outcome,
        desk: &mut Desk,
    ) -> Option<End> {
        self.touched = now;
        match step {
            Step::Originate | Step::Snoop => {
                if outcome.is_done() {
                    self.born.get_or_insert(now);
                    return None;
                }
                let cause = match &outcome {
                    // The endpoint makes no sense, or its technology is not there.
                    Outcome::Refused { status: 400, .. } => 28,
                    Outcome::NotThere(_) => 3,
                    _ => 41,
                };
                let what = if step == Step::Snoop { "listen to the channel" } else { "make the call" };
                let reason = format!("the PBX did not {what}: {}", outcome.problem());
                let departure = Departure { cause, reason, by_peer: false };
                // Nobody knows whether a request without an answer was carried out.
                return Some(match outcome {
                    Outcome::Lost(_) => End::Drop(departure),
                    _ => End::Gone(departure),
                });
            }
            Step::Bridge { .. } => match outcome {
                Outcome::Done(_) | Outcome::Refused { status: 409, .. } => self.bridge = Thing::There,
                other => {
                    self.bridge = Thing::No;
                    return self.bridging_failed(now, &other);
                }
            },
            Step::Media { count, name } => {
                if self.medium.count != count || self.medium.stage != MediaStage::Asked {
                    return None;
                }
                match outcome {
                    Outcome::Done(_) if self.medium.ended => {
                        self.give_up_medium(now, "the PBX ended the media channel", desk);
                    }
                    Outcome::Done(body) => {
                        let channel: Channel = serde_json::from_slice(&body).unwrap_or_default();
                        self.medium.stage = MediaStage::There;
                        let channel = Box::new(Channel { id: name, ..channel });
                        desk.actions.push_back(Action::Deliver { leg: self.id, count, channel });
                    }
                    other => self.give_up_medium(now, &other.problem(), desk),
                }
            }
            Step::JoinCaller => return self.joined(now, &outcome, true),
            Step::JoinMedia { count } if count == self.medium.count => {
                return self.joined(now, &outcome, false);
            }
            Step::JoinMedia { .. } => {}
            Step::Answer => {
                self.answering = false;
                match outcome {
                    Outcome::Done(_) => self.up = true,
                    Outcome::NotThere(_) => {
                        let reason = "hung up before the answer".to_owned();
                        return Some(End::Gone(Departure { cause: 16, reason, by_peer: true }));
                    }
                    Outcome::Lost(_) => self.retry = Some(now + BRIDGING_AGAIN),
                    refused @ Outcome::Refused { .. } => {
                        return Some(failed(format!("the PBX did not answer: {}", refused.problem())));
                    }
                }
            }
            Step::Alive => {
                self.alive_asked = false;
                match outcome {
                    Outcome::NotThere(_) => {
                        let reason = "the PBX does not have the channel any more".to_owned();
                        return Some(End::Gone(Departure { cause: 41, reason, by_peer: false }));
                    }
                    Outcome::Done(_) | Outcome::Refused { .. } => self.alive = Some(now),
                    Outcome::Lost(_) => {}
                }
                self.alive_at = Some(now + ALIVE_AGAIN);
            }
            Step::Keys { take_ms } => {
                self.busy = outcome.is_done();
                match outcome.is_done() {
                    true => self.keys_until = Some(now + Duration::from_millis(take_ms)),
                    false => desk.tell(self.id, ChannelEvent::KeysSent),
                }
            }
            Step::Ring | Step::Hold => self.busy = false,
            Step::Check => self.checked(outcome, desk),
            // Whether it was in the bridge does not matter.
            Step::Remove => self.go_on(desk),
            Step::Continue => match outcome {
                Outcome::Done(_) => return Some(End::Left),
                Outcome::NotThere(_) => {
                    let reason = "hung up on the way".to_owned();
                    return Some(End::Gone(Departure { cause: 16, reason, by_peer: true }));
                }
                // The channel says whether it left.
                Outcome::Lost(_) => self.leaving_until = Some(now + LEAVING_UNKNOWN),
                refused @ Outcome::Refused { .. } => self.stayed(refused.problem(), desk),
            },
        }
        None
    }

    fn joined(&mut self, now: Instant, outcome: &Outcome, caller: bool) -> Option<End> {
        let place = if caller { &mut self.caller_in } else { &mut self.media_in };
        if outcome.is_done() {
            // Taken out meanwhile: then the answer is an old one.
            if *place == Thing::Asked {
                *place = Thing::There;
            }
            if self.caller_in == Thing::There && self.media_in == Thing::There {
                self.failures = 0;
            }
            return None;
        }
        *place = Thing::No;
        if matches!(outcome, Outcome::NotThere(_)) && self.bridge == Thing::There {
            self.bridge = Thing::No;
        }
        self.bridging_failed(now, outcome)
    }

    fn bridging_failed(&mut self, now: Instant, outcome: &Outcome) -> Option<End> {
        self.failures += 1;
        self.retry = Some(now + BRIDGING_AGAIN * self.failures);
        (self.failures >= BRIDGING_TRIES)
            .then(|| failed(format!("the PBX does not bridge the call: {}", outcome.problem())))
    }

    pub(super) fn checked(&mut self, outcome: Outcome, desk: &mut Desk) {
        let known = match &outcome {
            Outcome::Done(body) => serde_json::from_slice(body).ok(),
            // Without the function nobody knows; the dialplan then says what it says.
            _ => None,
        };
        let known: Option<Variable> = known;
        match (&self.leaving, known) {
            (Some(exit), Some(answer)) if answer.value == "0" => {
                let place = exit.to_string();
                self.stayed(format!("the PBX's dialplan has no `{place}`"), desk);
            }
            (Some(_), _) if self.bridge_name.is_empty() => self.go_on(desk),
            (Some(_), _) => {
                let bridge = self.bridge_name.clone();
                let request = Request::RemoveChannel { bridge, channel: self.channel.clone() };
                self.caller_in = Thing::No;
                desk.ask(Asked::Leg(self.id, Step::Remove), request);
            }
            (None, _) => self.busy = false,
        }
    }

    fn go_on(&mut self, desk: &mut Desk) {
        let Some(exit) = &self.leaving else { return };
        let to = match exit {
            Exit::Continue => None,
            Exit::Dialplan { context, extension, priority } => {
                // The interface looks in `default` when it is told no context.
                let context = context.clone().or_else(|| self.context.clone());
                Some(Extension { context, extension: extension.clone(), priority: *priority })
            }
            // Became an extension when the order was taken up.
            Exit::Queue(_) => None,
        };
        self.continued = true;
        let request = Request::Continue { channel: self.channel.clone(), to };
        desk.ask(Asked::Leg(self.id, Step::Continue), request);
    }

    pub(super) fn stayed(&mut self, reason: String, desk: &mut Desk) {
        (self.leaving, self.leaving_until, self.continued, self.busy) = (None, None, false, false);
        desk.tell(self.id, ChannelEvent::Stayed(reason));
    }
}
