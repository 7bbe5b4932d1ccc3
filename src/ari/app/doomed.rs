//! What has to go: things of ours on the PBX, and callers who are let go on in the dialplan. Each is asked for until
//! the PBX says that it is done, or that there is nothing there.

use std::time::{Duration, Instant};

use super::App;
use super::desk::Asked;
use crate::ari::request::{Outcome, Request};

/// Something on the PBX that has to go.
#[derive(Debug)]
pub(super) struct Doomed {
    kind: Thing,
    pub(super) attempts: u32,
    /// `None`: the PBX is being asked.
    pub(super) at: Option<Instant>,
}

impl Doomed {
    /// Whether the PBX was asked to let it go on in the dialplan.
    pub(super) fn is_passed_on(&self) -> bool {
        self.kind == Thing::Passing { marked: true }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    /// With the Q.850 cause it is hung up with.
    Channel(u16),
    Bridge,
    /// A caller's, who goes on in the dialplan: which is told first that nobody took them, by [`STATUS`].
    Passing {
        marked: bool,
    },
}

impl App {
    /// Wants it deleted, as soon as that time has come.
    pub(super) fn doom(&mut self, at: Instant, name: String, kind: Thing) {
        self.orphans.retain(|(_, orphan)| orphan.id != name);
        if self.doomed.get(&name).is_some_and(|doomed| doomed.at.is_none()) {
            return;
        }
        self.doomed.insert(name.clone(), Doomed { kind, attempts: 0, at: Some(at) });
    }

    /// Lets a channel that is nobody's go on in the dialplan.
    pub(super) fn pass_on(&mut self, now: Instant, channel: String) {
        self.departed.insert(channel.clone(), now);
        self.doom(now, channel.clone(), Thing::Passing { marked: false });
        self.ask_doomed(channel);
    }

    pub(super) fn ask_doomed(&mut self, name: String) {
        let Some(doomed) = self.doomed.get_mut(&name) else { return };
        doomed.at = None;
        doomed.attempts += 1;
        let request = match doomed.kind {
            Thing::Channel(cause) => Request::HangUp { channel: name.clone(), cause },
            Thing::Bridge => Request::DeleteBridge { bridge: name.clone() },
            Thing::Passing { marked: false } => {
                let (variable, value) = (STATUS.to_owned(), CLOSED.to_owned());
                Request::SetVariable { channel: name.clone(), variable, value }
            }
            Thing::Passing { marked: true } => Request::Continue { channel: name.clone(), to: None },
        };
        self.desk.ask(Asked::Doomed(name), request);
    }

    pub(super) fn doomed_answered(&mut self, now: Instant, name: String, outcome: &Outcome) {
        let Some(doomed) = self.doomed.get_mut(&name) else { return };
        match (doomed.kind, outcome) {
            // A dialplan that does not hear it goes on nevertheless.
            (Thing::Passing { marked: false }, Outcome::Done(_) | Outcome::Refused { .. }) => {
                (doomed.kind, doomed.attempts) = (Thing::Passing { marked: true }, 0);
                self.ask_doomed(name);
            }
            (kind, Outcome::Done(_) | Outcome::NotThere(_)) => {
                self.doomed.remove(&name);
                if matches!(kind, Thing::Passing { .. }) {
                    self.departed.insert(name, now);
                }
            }
            // It went on when the PBX was asked before, and the answer was lost.
            (Thing::Passing { .. }, Outcome::Refused { status: 409, .. }) => {
                self.doomed.remove(&name);
                self.departed.insert(name, now);
            }
            // Gone with the PBX, or still there: the next look tells.
            _ if doomed.attempts >= DELETE_TRIES && self.away.is_none() => {
                let problem = outcome.problem();
                tracing::warn!(problem, "something of ours stays on the PBX");
                self.doomed.remove(&name);
                self.departed.remove(&name);
                self.look_at.get_or_insert(now + LOOK_AFTER_FAILURE);
            }
            _ => doomed.at = Some(now + DELETE_AGAIN * doomed.attempts.min(DELETE_TRIES)),
        }
    }
}

/// The channel variable that tells the dialplan what became of `Stasis()`, which itself calls it a success.
const STATUS: &str = "TANDEMSTATUS";
/// Nobody took the caller.
const CLOSED: &str = "CLOSED";
const DELETE_AGAIN: Duration = Duration::from_millis(500);
const DELETE_TRIES: u32 = 8;
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(10);
