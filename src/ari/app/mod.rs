//! The Stasis application: every channel of it, what is asked of the PBX for it, and what its leg is told.
//!
//! ```text
//! event, command, outcome, time  ->  App  ->  Action: request, caller, word to a leg, medium to prepare
//! ```
//!
//! A channel that comes in becomes a leg at once; a bridge and a channel that carries audio to us are made while
//! it still rings, and it is answered when both are in the bridge, so that no greeting is cut. Bridges and media
//! channels do not go by themselves: whatever is left of a leg is *doomed*, and asked to be deleted until the PBX
//! says that it is not there. After the event socket was away, everything on the PBX is looked at and compared.

mod desk;
mod doomed;
mod leg;
mod names;
mod resync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::id::LegId;
use crate::pbx::{ChannelEvent, Departure, Exit};

use super::model::{Channel, Event};
use super::request::{ExternalMedia, Originate, Outcome, PlayTo, Request};

pub use desk::Action;
use desk::{Asked, Desk, Step};
use doomed::{Doomed, Thing};
use leg::{End, Leg, Origin};
pub use names::{Kind, Names};
use resync::Look;

/// What is decided outside.
#[derive(Debug, Clone)]
pub struct AppSettings {
    /// Name of the Stasis application.
    pub application: String,
    /// Name of this node.
    pub node: String,
    /// Asterisk's name of the codec that media channels use.
    pub format: &'static str,
    /// What becomes of callers that are found in the application.
    pub orphans: Orphans,
    /// Context in which queues are extensions.
    pub queue_context: String,
}

/// What becomes of callers that are in the application and nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// Their flow answers them again.
    Adopt,
    /// They go on in the dialplan.
    Continue,
    /// They are hung up on.
    HangUp,
}

/// What a leg asks of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Lets the caller hear ringing.
    Ring,
    /// Answers as soon as audio can flow.
    Answer,
    /// Ends it with this Q.850 cause.
    HangUp(u16),
    /// Presses keys.
    Keys(String),
    /// Keeps the far end waiting, or takes it back.
    Hold(bool),
    /// Goes on elsewhere.
    Leave(Exit),
    /// The leg's medium is lost.
    MediaLost,
}

/// A call to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// `PJSIP/+15550100@carrier`.
    pub endpoint: String,
    /// What the far end is told about the caller.
    pub caller: Option<String>,
    /// How long it may ring.
    pub timeout: Duration,
    /// Variables of the channel.
    pub variables: Vec<(String, String)>,
}

/// The application as its legs see it.
pub(super) struct View<'a> {
    settings: &'a AppSettings,
    names: &'a Names,
    /// Since when events are missing.
    away: Option<Instant>,
}

/// See the module.
pub struct App {
    settings: AppSettings,
    names: Names,
    fresh: Box<dyn FnMut() -> LegId + Send>,
    desk: Desk,
    legs: BTreeMap<LegId, Leg>,
    by_channel: HashMap<String, LegId>,
    doomed: BTreeMap<String, Doomed>,
    /// Channels that went on in the dialplan, until nobody mistakes them for orphans.
    departed: HashMap<String, Instant>,
    orphans: Vec<(Instant, Channel)>,
    away: Option<Instant>,
    look: Option<Look>,
    look_at: Option<Instant>,
    /// No look has been completed since events come.
    first_look: bool,
    rounds: u64,
    listening: HashMap<LegId, Wanted>,
    closed: bool,
}

/// A leg that listens, before its channel is there.
#[derive(Debug, Clone)]
struct Wanted {
    called: String,
    caller: Option<String>,
}

impl App {
    /// An application that nobody is in, whose events do not come yet. `fresh` names new legs.
    pub fn new(now: Instant, settings: AppSettings, fresh: Box<dyn FnMut() -> LegId + Send>) -> Self {
        Self {
            names: Names::new(&settings.node, &settings.application),
            settings,
            fresh,
            desk: Desk::default(),
            legs: BTreeMap::new(),
            by_channel: HashMap::new(),
            doomed: BTreeMap::new(),
            departed: HashMap::new(),
            orphans: Vec::new(),
            away: Some(now),
            look: None,
            look_at: None,
            first_look: true,
            rounds: 0,
            listening: HashMap::new(),
            closed: false,
        }
    }

    /// Takes nobody in any more: who comes goes on in the dialplan. Who is in stays, and goes on there too when cut off
    /// by cause 41.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.desk.actions.pop_front()
    }

    /// Legs there are.
    pub fn legs(&self) -> usize {
        self.legs.len()
    }

    /// Whether nothing is left to be done for anybody.
    pub fn is_idle(&self) -> bool {
        self.legs.is_empty() && self.doomed.is_empty() && self.desk.asked.is_empty()
    }

    /// Whether this channel is a leg's, and the leg's id.
    pub fn leg_of(&self, channel: &str) -> Option<LegId> {
        self.by_channel.get(channel).copied()
    }

    /// Who hears what is played to a channel.
    pub fn play_to(&self, channel: &str) -> PlayTo {
        let leg = self.leg_of(channel).and_then(|id| self.legs.get(&id));
        match leg.and_then(Leg::bridged) {
            Some(bridge) => PlayTo::Bridge(bridge.to_owned()),
            None => PlayTo::Channel(channel.to_owned()),
        }
    }

    /// Events come (again): whatever was missed is looked for.
    pub fn connected(&mut self, now: Instant) {
        self.away = None;
        self.first_look = true;
        self.start_look(now);
        self.advance_all(now);
    }

    /// Events do not come any more.
    pub fn disconnected(&mut self, now: Instant) {
        self.away.get_or_insert(now);
        (self.look, self.look_at) = (None, None);
        self.orphans.clear();
    }

    /// Events have been dropped: whatever was missed is looked for.
    pub fn missed(&mut self, now: Instant) {
        if self.away.is_none() {
            self.look_at = Some(now);
        }
    }

    /// Calls somebody. What becomes of it is told under the answered id.
    pub fn originate(&mut self, now: Instant, call: Outgoing) -> LegId {
        let id = (self.fresh)();
        self.originate_as(now, id, call);
        id
    }

    /// The same for a leg that has its name already.
    pub fn originate_as(&mut self, now: Instant, id: LegId, call: Outgoing) {
        if self.away.is_some() {
            return self.unreachable(id);
        }
        let channel = self.names.of(Kind::Out, id, 1);
        let mut leg = Leg::new(now, id, Origin::Called, channel.clone());
        let request = Request::Originate(Originate {
            channel: channel.clone(),
            endpoint: call.endpoint,
            application: self.settings.application.clone(),
            caller: call.caller,
            timeout: u32::try_from(call.timeout.as_secs().max(1)).unwrap_or(u32::MAX),
            variables: call.variables,
        });
        self.desk.ask(Asked::Leg(id, Step::Originate), request);
        self.by_channel.insert(channel, id);
        leg.touched = now;
        self.legs.insert(id, leg);
        self.advance(now, id);
    }

    /// Listens to a channel of the PBX's; a visitor for `called` follows, unless the PBX refuses.
    pub fn listen(&mut self, now: Instant, channel: &str, called: String, caller: Option<String>) -> LegId {
        let id = (self.fresh)();
        if self.away.is_some() {
            self.unreachable(id);
            return id;
        }
        let snoop = self.names.of(Kind::Snoop, id, 1);
        let leg = Leg::new(now, id, Origin::Listening, snoop.clone());
        let application = self.settings.application.clone();
        let request = Request::Snoop { channel: channel.to_owned(), snoop: snoop.clone(), application };
        self.desk.ask(Asked::Leg(id, Step::Snoop), request);
        self.by_channel.insert(snoop, id);
        self.legs.insert(id, leg);
        self.listening.insert(id, Wanted { called, caller });
        id
    }

    /// What would become of a new channel could not be heard: none is made.
    fn unreachable(&mut self, id: LegId) {
        let reason = "the PBX cannot be reached: its events do not come".to_owned();
        self.desk.tell(id, ChannelEvent::Gone(Departure { cause: 41, reason, by_peer: false }));
    }

    /// A command of a leg's; one that is over has none.
    pub fn command(&mut self, now: Instant, id: LegId, command: Command) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Command::HangUp(cause) = command {
            let departure = Departure { cause, reason: "hung up".to_owned(), by_peer: false };
            // Whom a server that stops cuts off goes on in the dialplan, as by the other doors.
            let cut = self.closed && cause == TEMPORARY_FAILURE && leg.origin == Origin::Caller;
            let end = if cut { End::PassOn(departure) } else { End::Drop(departure) };
            return self.over(now, id, end);
        }
        leg.command(now, command);
        self.advance(now, id);
    }

    /// The shell has prepared our side of a medium, or cannot.
    pub fn prepared(&mut self, now: Instant, id: LegId, count: u32, medium: Result<ExternalMedia, String>) {
        let view = View { settings: &self.settings, names: &self.names, away: self.away };
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.prepared(now, count, medium, &mut self.desk, &view);
        }
        self.advance(now, id);
    }

    /// The leg has its medium, or cannot have it.
    pub fn delivered(&mut self, now: Instant, id: LegId, count: u32, result: Result<(), String>) {
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.delivered(now, count, result, &mut self.desk);
        }
        self.advance(now, id);
    }

    /// An event of the PBX's.
    pub fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Entered { channel, args, replaces } => self.entered(now, *channel, &args, replaces),
            Event::Exited { channel } => self.gone(now, &channel, |leg| leg.exited()),
            Event::Destroyed { channel, cause, reason, technical } => {
                self.doomed.remove(&channel);
                self.gone(now, &channel, |leg| leg.destroyed(cause, &reason, technical));
            }
            Event::State { channel, state } => {
                self.with(now, &channel, |leg, desk| leg.state(now, &state, desk));
            }
            Event::Dialled { peer, status } => {
                self.with(now, &peer, |leg, desk| leg.dialled(&status, desk));
            }
            Event::Key { channel, key } if matches!(key, '0'..='9' | '*' | '#' | 'A'..='D') => {
                self.with(now, &channel, |leg, desk| desk.tell(leg.id, ChannelEvent::Digit(key)));
            }
            Event::Held { channel, held } => {
                self.with(now, &channel, |leg, desk| desk.tell(leg.id, ChannelEvent::Held(held)));
            }
            Event::HangUpAsked { channel, cause } => {
                self.with(now, &channel, |leg, _| leg.hang_up_asked(now, cause));
            }
            Event::Joined { bridge, channel } => {
                self.with_bridge(now, &bridge, |leg| leg.joined_bridge(now, &bridge, &channel));
            }
            Event::Parted { bridge, channel } => {
                self.with_bridge(now, &bridge, |leg| leg.left_bridge(now, &bridge, &channel));
            }
            Event::BridgeGone { bridge } => {
                self.doomed.remove(&bridge);
                self.with_bridge(now, &bridge, |leg| leg.bridge_gone(now, &bridge));
            }
            Event::Key { .. } | Event::Played { .. } | Event::Replaced => {}
        }
    }

    /// What came of a request.
    pub fn answered(&mut self, now: Instant, request: u64, outcome: Outcome) {
        match self.desk.asked.remove(&request) {
            Some(Asked::Leg(id, step)) => self.leg_answered(now, id, step, outcome),
            Some(Asked::Doomed(name)) => self.doomed_answered(now, name, &outcome),
            Some(Asked::Look { round, part }) => {
                let Some(look) = self.look.as_mut().filter(|look| look.round == round) else { return };
                if let Err(problem) = look.take(part, outcome) {
                    tracing::warn!(problem, "what the PBX has cannot be found out; asking again");
                    self.look = None;
                    self.look_at = Some(now + LOOK_AGAIN);
                } else if look.is_complete()
                    && let Some(look) = self.look.take()
                {
                    let since = look.since;
                    let sight = look.sight(&self.settings.application);
                    self.compare(now, since, &sight);
                }
            }
            None => {}
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let view = View { settings: &self.settings, names: &self.names, away: self.away };
        let legs = self.legs.values().filter_map(|leg| leg.next_timeout(&view));
        let doomed = self.doomed.values().filter_map(|doomed| doomed.at);
        let orphans = self.orphans.iter().map(|(at, _)| *at);
        legs.chain(doomed).chain(orphans).chain(self.look_at).min()
    }

    /// That time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance_all(now);
        let due = |doomed: &Doomed| doomed.at.is_some_and(|at| at <= now);
        let names: Vec<_> =
            self.doomed.iter().filter(|(_, d)| due(d)).map(|(name, _)| name.clone()).collect();
        names.into_iter().for_each(|name| self.ask_doomed(name));
        if self.look_at.is_some_and(|at| at <= now) && self.away.is_none() {
            self.start_look(now);
        }
        self.departed.retain(|_, since| now < *since + DEPARTED);
        let (ripe, waiting) = std::mem::take(&mut self.orphans).into_iter().partition(|(at, _)| *at <= now);
        self.orphans = waiting;
        let ripe: Vec<(Instant, Channel)> = ripe;
        ripe.into_iter().for_each(|(_, channel)| self.orphan(now, channel));
    }

    /// A leg's channel has something to say.
    fn with(&mut self, now: Instant, channel: &str, act: impl FnOnce(&mut Leg, &mut Desk)) {
        let Some(id) = self.leg_of(channel) else { return };
        if let Some(leg) = self.legs.get_mut(&id) {
            act(leg, &mut self.desk);
        }
        self.advance(now, id);
    }

    /// A bridge has something to say.
    fn with_bridge(&mut self, now: Instant, bridge: &str, act: impl FnOnce(&mut Leg)) {
        let Some((Kind::Bridge, id)) = self.names.read(bridge) else { return };
        if let Some(leg) = self.legs.get_mut(&id) {
            act(leg);
        }
        self.advance(now, id);
    }

    fn entered(&mut self, now: Instant, channel: Channel, args: &[String], replaces: Option<String>) {
        self.departed.remove(&channel.id);
        self.orphans.retain(|(_, orphan)| orphan.id != channel.id);
        match self.doomed.get(&channel.id) {
            // It went on in the dialplan, and the dialplan sent it here again.
            Some(doomed) if doomed.is_passed_on() => drop(self.doomed.remove(&channel.id)),
            Some(_) => return,
            None => {}
        }
        match self.names.read(&channel.id) {
            Some((Kind::Media, id)) => {
                let known = self.legs.get_mut(&id).is_some_and(|leg| leg.medium_entered(now, &channel.id));
                match known {
                    true => self.advance(now, id),
                    false => self.doom(now, channel.id, Thing::Channel(16)),
                }
            }
            Some((kind @ (Kind::Out | Kind::Snoop), _)) => {
                match self.leg_of(&channel.id).and_then(|id| self.legs.get_mut(&id)) {
                    Some(leg) => {
                        leg.enter(now, &channel);
                        let id = leg.id;
                        self.show_listener(id);
                        self.advance(now, id);
                    }
                    // Whom we called went to the dialplan, and the dialplan sends them back.
                    None if kind == Kind::Out => self.visit(now, channel, args),
                    None => self.doom(now, channel.id, Thing::Channel(16)),
                }
            }
            Some((Kind::Bridge, _)) => {}
            None => {
                let replaced = replaces.and_then(|old| self.by_channel.remove(&old));
                if let Some(leg) = replaced.and_then(|id| self.legs.get_mut(&id)) {
                    leg.replace_channel(now, &channel);
                    let id = leg.id;
                    self.by_channel.insert(channel.id, id);
                    return self.advance(now, id);
                }
                match self.leg_of(&channel.id).and_then(|id| self.legs.get_mut(&id)) {
                    Some(leg) => leg.enter(now, &channel),
                    None => self.visit(now, channel, args),
                }
            }
        }
    }

    /// A caller is here.
    fn visit(&mut self, now: Instant, channel: Channel, args: &[String]) {
        if self.closed {
            return self.pass_on(now, channel.id);
        }
        let id = (self.fresh)();
        let mut leg = Leg::new(now, id, Origin::Caller, channel.id.clone());
        leg.enter(now, &channel);
        let named =
            args.iter().find_map(|arg| arg.strip_prefix("called=")).filter(|called| !called.is_empty());
        let called = named.map_or_else(|| channel.dialplan.exten.clone(), str::to_owned);
        let caller = Some(channel.caller.number).filter(|number| !number.is_empty());
        self.by_channel.insert(channel.id.clone(), id);
        let up = leg.is_up();
        self.legs.insert(id, leg);
        self.desk.actions.push_back(Action::Visitor { leg: id, called, caller, channel: channel.id, up });
        self.advance(now, id);
    }

    /// Its channel is there: now it is a visitor.
    fn show_listener(&mut self, id: LegId) {
        let Some(wanted) = self.listening.remove(&id) else { return };
        let Some(leg) = self.legs.get(&id) else { return };
        self.desk.actions.push_back(Action::Visitor {
            leg: id,
            called: wanted.called,
            caller: wanted.caller,
            channel: leg.channel.clone(),
            up: true,
        });
    }

    fn gone(&mut self, now: Instant, channel: &str, end: impl FnOnce(&Leg) -> End) {
        self.orphans.retain(|(_, orphan)| orphan.id != channel);
        if let Some(id) = self.leg_of(channel) {
            let Some(leg) = self.legs.get(&id) else { return };
            let end = end(leg);
            return self.over(now, id, end);
        }
        if let Some((Kind::Media, id)) = self.names.read(channel)
            && let Some(leg) = self.legs.get_mut(&id)
        {
            leg.medium_gone(now, channel, &mut self.desk);
            self.advance(now, id);
        }
    }

    fn leg_answered(&mut self, now: Instant, id: LegId, step: Step, outcome: Outcome) {
        let Some(leg) = self.legs.get_mut(&id) else {
            return self.late(now, id, &step, &outcome);
        };
        // It was given up before the answer came.
        if let Step::Media { name, .. } | Step::Bridge { name } = &step
            && !leg.owns(name)
        {
            self.late(now, id, &step, &outcome);
            return self.advance(now, id);
        }
        let uncertain = matches!(outcome, Outcome::Lost(_));
        let name = match &step {
            Step::Media { name, .. } if uncertain => Some((name.clone(), Thing::Channel(16))),
            Step::Bridge { name } if uncertain => Some((name.clone(), Thing::Bridge)),
            Step::Originate | Step::Snoop if uncertain => Some((leg.channel.clone(), Thing::Channel(16))),
            _ => None,
        };
        match leg.answered(now, step, outcome, &mut self.desk) {
            Some(end) => self.over(now, id, end),
            None => self.advance(now, id),
        }
        // It may be there, under a name that will not be used again.
        if let Some((name, thing)) = name {
            self.doom(now + UNCERTAIN, name, thing);
        }
    }

    /// An answer for a leg that is over: what has come to be is not wanted any more.
    fn late(&mut self, now: Instant, id: LegId, step: &Step, outcome: &Outcome) {
        let (name, thing) = match step {
            Step::Media { name, .. } => (name.clone(), Thing::Channel(16)),
            Step::Bridge { name } => (name.clone(), Thing::Bridge),
            Step::Originate => (self.names.of(Kind::Out, id, 1), Thing::Channel(16)),
            Step::Snoop => (self.names.of(Kind::Snoop, id, 1), Thing::Channel(16)),
            _ => return,
        };
        match outcome {
            Outcome::Done(_) => self.doom(now, name, thing),
            Outcome::Lost(_) => self.doom(now + UNCERTAIN, name, thing),
            Outcome::NotThere(_) | Outcome::Refused { .. } => {}
        }
    }

    fn advance(&mut self, now: Instant, id: LegId) {
        let view = View { settings: &self.settings, names: &self.names, away: self.away };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let end = leg.advance(now, &mut self.desk, &view);
        if std::mem::take(&mut leg.wants_look) {
            self.look_at.get_or_insert(now);
        }
        if let Some(name) = leg.shed.take() {
            self.doom(now, name, Thing::Channel(16));
        }
        if let Some(end) = end {
            self.over(now, id, end);
        }
    }

    fn advance_all(&mut self, now: Instant) {
        let ids: Vec<_> = self.legs.keys().copied().collect();
        ids.into_iter().for_each(|id| self.advance(now, id));
    }

    /// A leg is over: it is told, and what it had is doomed.
    fn over(&mut self, now: Instant, id: LegId, end: End) {
        let Some(leg) = self.legs.remove(&id) else { return };
        self.by_channel.remove(&leg.channel);
        let unseen = self.listening.remove(&id).is_some();
        let (bridge, media) = leg.belongings();
        match end {
            End::Gone(departure) => self.desk.tell(id, ChannelEvent::Gone(departure)),
            End::Drop(departure) => {
                self.doom(now, leg.channel, Thing::Channel(departure.cause));
                self.desk.tell(id, ChannelEvent::Gone(departure));
            }
            End::PassOn(departure) => {
                self.pass_on(now, leg.channel);
                self.desk.tell(id, ChannelEvent::Gone(departure));
            }
            End::Left => {
                self.departed.insert(leg.channel, now);
                self.desk.tell(id, ChannelEvent::Left);
            }
        }
        tracing::debug!(leg = %id, unseen, "a leg of the PBX is over");
        if let Some(media) = media {
            self.doom(now, media, Thing::Channel(16));
        }
        if let Some(bridge) = bridge {
            self.doom(now, bridge, Thing::Bridge);
        }
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("legs", &self.legs.len())
            .field("away", &self.away)
            .finish_non_exhaustive()
    }
}

/// Q.850; what a server that stops ends calls with, and calls that fail for a fault of ours or of the network's: while
/// it stops those go on in the dialplan, too.
const TEMPORARY_FAILURE: u16 = 41;
/// An answer that did not come may mean that the PBX is about to do what it was asked.
const UNCERTAIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const DEPARTED: Duration = Duration::from_secs(10);
