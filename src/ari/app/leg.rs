//! One leg of the application: a channel of the PBX's, the channel that carries its audio to us, and the
//! bridge that joins the two. What is there is compared with what there should be, whenever anything happens;
//! so it does not matter in which order answers and events arrive.

mod answers;
mod ends;
mod seen;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ari::model::Channel;
use crate::ari::request::{Extension, ExternalMedia, Outcome, Request, keys_take_ms};
use crate::id::LegId;
use crate::pbx::{ChannelEvent, Departure, Exit};

use super::desk::{Action, Asked, Desk, Step};
use super::names::Kind;
use super::{Command, View};
use ends::failed;

/// How a leg began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Caller,
    Called,
    Listening,
}

/// How a leg ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// Its channel is gone, or about to be.
    Gone(Departure),
    /// As [`End::Gone`], but the PBX must be asked to hang up.
    Drop(Departure),
    /// As [`End::Drop`], but the caller goes on in the dialplan, which is told that nobody kept them.
    PassOn(Departure),
    /// It goes on without us.
    Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    No,
    Asked,
    There,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MediaStage {
    /// None; the next is made at this time.
    Due(Instant),
    /// The shell prepares our side.
    Preparing,
    /// The PBX was asked for its side.
    Asked,
    /// The PBX has its channel.
    There,
}

#[derive(Debug)]
struct Medium {
    stage: MediaStage,
    count: u32,
    name: String,
    /// It is in our application, so it may be put into bridges.
    entered: bool,
    /// The leg has our side.
    delivered: Option<Instant>,
    /// In a row.
    failures: u32,
    problem: String,
    /// The leg says that nothing comes any more.
    lost: Option<Instant>,
    /// Its end was told before its beginning.
    ended: bool,
}

/// What is done one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Order {
    Ring,
    Hold(bool),
    Keys(String),
    Leave(Exit),
}

#[derive(Debug)]
pub(super) struct Leg {
    pub(super) id: LegId,
    pub(super) channel: String,
    pub(super) origin: Origin,
    context: Option<String>,
    /// In our application.
    entered: Option<Instant>,
    up: bool,
    told_up: bool,
    /// Outgoing: the cause that fits what the PBX said of the call to it, before any channel's end gave one.
    dialled: Option<u16>,
    answer_wanted: Option<Instant>,
    answering: bool,
    rung: bool,
    medium: Medium,
    bridge: Thing,
    bridge_name: String,
    bridges: u32,
    caller_in: Thing,
    media_in: Thing,
    /// Bridging failed so often in a row, and is tried again then.
    failures: u32,
    retry: Option<Instant>,
    orders: VecDeque<Order>,
    /// An order waits for its answer.
    busy: bool,
    leaving: Option<Exit>,
    /// Asked to go on elsewhere, without an answer; until then.
    leaving_until: Option<Instant>,
    continued: bool,
    keys_until: Option<Instant>,
    hanging_up: Option<(Instant, Option<u16>)>,
    /// The PBX has made its channel.
    born: Option<Instant>,
    /// While events are away: when the PBX last said that the channel is there, and when it is asked again.
    alive: Option<Instant>,
    alive_at: Option<Instant>,
    /// It is being asked.
    alive_asked: bool,
    /// A channel that is to be got rid of.
    pub(super) shed: Option<String>,
    /// Something that should have been told was not.
    pub(super) wants_look: bool,
    /// The medium for which that was wanted.
    looked_for: u32,
    /// When the PBX last said anything about it.
    pub(super) touched: Instant,
}

impl Leg {
    pub(super) fn new(now: Instant, id: LegId, origin: Origin, channel: String) -> Self {
        Self {
            id,
            channel,
            origin,
            context: None,
            entered: None,
            up: false,
            told_up: false,
            dialled: None,
            answer_wanted: (origin != Origin::Caller).then_some(now),
            answering: false,
            rung: false,
            medium: Medium {
                stage: MediaStage::Due(now),
                count: 0,
                name: String::new(),
                entered: false,
                delivered: None,
                failures: 0,
                problem: String::new(),
                lost: None,
                ended: false,
            },
            bridge: Thing::No,
            bridge_name: String::new(),
            bridges: 0,
            caller_in: Thing::No,
            media_in: Thing::No,
            failures: 0,
            retry: None,
            orders: VecDeque::new(),
            busy: false,
            leaving: None,
            leaving_until: None,
            continued: false,
            keys_until: None,
            hanging_up: None,
            born: (origin == Origin::Caller).then_some(now),
            alive: None,
            alive_at: None,
            alive_asked: false,
            shed: None,
            wants_look: false,
            looked_for: 0,
            touched: now,
        }
    }

    /// Its channel came into the application.
    pub(super) fn enter(&mut self, now: Instant, channel: &Channel) {
        self.touched = now;
        self.born.get_or_insert(now);
        if !channel.dialplan.context.is_empty() {
            self.context = Some(channel.dialplan.context.clone());
        }
        self.entered.get_or_insert(now);
        self.up |= channel.is_up() || self.origin != Origin::Caller;
        if self.origin == Origin::Called {
            self.answer_wanted = Some(now);
        }
    }

    pub(super) const fn is_entered(&self) -> bool {
        self.entered.is_some()
    }

    pub(super) const fn is_up(&self) -> bool {
        self.up
    }

    /// Whether it is in a bridge that others may play into, and which.
    pub(super) fn bridged(&self) -> Option<&str> {
        (self.caller_in == Thing::There).then_some(self.bridge_name.as_str())
    }

    /// Another channel has taken the place of its own.
    pub(super) fn replace_channel(&mut self, now: Instant, channel: &Channel) {
        self.touched = now;
        self.channel.clone_from(&channel.id);
        // The new one may be in the bridge already; putting it in a second time does no harm.
        self.caller_in = Thing::No;
    }

    /// The state of its channel.
    pub(super) fn state(&mut self, now: Instant, state: &str, desk: &mut Desk) {
        self.touched = now;
        match state {
            "Ringing" => self.ringing(desk),
            "Up" if self.origin == Origin::Caller => self.up = true,
            _ => {}
        }
    }

    pub(super) fn ringing(&mut self, desk: &mut Desk) {
        if self.origin == Origin::Called && !self.up && !self.rung {
            self.rung = true;
            desk.tell(self.id, ChannelEvent::Ringing);
        }
    }

    /// Somebody wants it to end; the end follows.
    pub(super) fn hang_up_asked(&mut self, now: Instant, cause: Option<u16>) {
        self.touched = now;
        self.hanging_up.get_or_insert((now, cause));
    }

    /// The channel that carries its audio came into the application.
    pub(super) fn medium_entered(&mut self, now: Instant, name: &str) -> bool {
        let ours = self.medium.name == name && !matches!(self.medium.stage, MediaStage::Due(_));
        if ours {
            self.touched = now;
            self.medium.entered = true;
        }
        ours
    }

    /// The channel that carries its audio is gone.
    pub(super) fn medium_gone(&mut self, now: Instant, name: &str, desk: &mut Desk) {
        if self.medium.name != name {
            return;
        }
        self.touched = now;
        match self.medium.stage {
            MediaStage::There => self.give_up_medium(now, "the PBX ended the media channel", desk),
            MediaStage::Asked => self.medium.ended = true,
            MediaStage::Due(_) | MediaStage::Preparing => {}
        }
    }

    /// The shell has prepared our side.
    pub(super) fn prepared(
        &mut self,
        now: Instant,
        count: u32,
        medium: Result<ExternalMedia, String>,
        desk: &mut Desk,
        view: &View<'_>,
    ) {
        if self.medium.count != count || self.medium.stage != MediaStage::Preparing {
            return;
        }
        match medium {
            Ok(medium) => {
                self.medium.stage = MediaStage::Asked;
                let name = self.medium.name.clone();
                let request = Request::ExternalMedia {
                    channel: name.clone(),
                    application: view.settings.application.clone(),
                    medium,
                    format: view.settings.format,
                };
                desk.ask(Asked::Leg(self.id, Step::Media { count, name }), request);
            }
            Err(problem) => self.give_up_medium(now, &problem, desk),
        }
    }

    /// The leg has our side, or it could not be made.
    pub(super) fn delivered(
        &mut self,
        now: Instant,
        count: u32,
        result: Result<(), String>,
        desk: &mut Desk,
    ) {
        if self.medium.count != count || self.medium.delivered.is_some() {
            return;
        }
        match (self.medium.stage, result) {
            // A connection may be there before the PBX's answer is.
            (MediaStage::Asked | MediaStage::There, Ok(())) => self.medium.delivered = Some(now),
            (_, Ok(())) => {}
            (MediaStage::Due(_), Err(problem)) => self.medium.problem = problem,
            (stage, Err(problem)) => {
                self.shed = (stage == MediaStage::There).then(|| self.medium.name.clone());
                self.give_up_medium(now, &problem, desk);
            }
        }
    }

    fn give_up_medium(&mut self, now: Instant, problem: &str, desk: &mut Desk) {
        desk.actions.push_back(Action::Discard { leg: self.id, count: self.medium.count });
        let lived = self.medium.delivered.is_some_and(|since| now >= since + MEDIUM_HOLDS);
        let medium = &mut self.medium;
        medium.failures = if lived { 0 } else { medium.failures + 1 };
        let wait = MEDIUM_AGAIN * 2u32.pow(medium.failures.min(4));
        medium.stage = MediaStage::Due(now + wait);
        medium.problem = problem.to_owned();
        (medium.entered, medium.delivered, medium.lost, medium.ended) = (false, None, None, false);
        self.media_in = Thing::No;
    }

    /// A command of the leg's. Hanging up is not among them.
    pub(super) fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Ring if !self.up && !self.rung => {
                self.rung = true;
                self.orders.push_back(Order::Ring);
            }
            Command::Answer => {
                self.answer_wanted.get_or_insert(now);
            }
            Command::Keys(keys) => self.orders.push_back(Order::Keys(keys)),
            Command::Hold(on) => self.orders.push_back(Order::Hold(on)),
            Command::Leave(exit) => self.orders.push_back(Order::Leave(exit)),
            Command::MediaLost if self.medium.stage == MediaStage::There => {
                // It may be the former one that the leg speaks of.
                let fresh = self.medium.count > 1
                    && self.medium.delivered.is_none_or(|since| now < since + MEDIUM_FRESH);
                if !fresh {
                    self.medium.lost.get_or_insert(now);
                }
            }
            Command::Ring | Command::MediaLost | Command::HangUp(_) => {}
        }
    }

    /// Asks for what is missing.
    pub(super) fn advance(&mut self, now: Instant, desk: &mut Desk, view: &View<'_>) -> Option<End> {
        if let Some(end) = self.overdue(now, desk, view) {
            return Some(end);
        }
        self.retry = self.retry.filter(|retry| now < *retry);
        self.build(now, desk, view);
        self.join(desk);
        self.answer(desk);
        self.take_order(desk, view);
        None
    }

    /// What has waited too long.
    fn overdue(&mut self, now: Instant, desk: &mut Desk, view: &View<'_>) -> Option<End> {
        if let Some((since, cause)) = self.hanging_up
            && now >= since + HANGING_UP
        {
            // It may be there still: then it must go.
            return Some(match self.ended(cause.unwrap_or(0), "hung up") {
                End::Gone(departure) => End::Drop(departure),
                end => end,
            });
        }
        if self.unheard().is_some_and(|limit| now >= limit) {
            let reason = "the PBX made a channel to listen with, and it did not come".to_owned();
            return Some(End::Drop(Departure { cause: 41, reason, by_peer: false }));
        }
        if self.keys_until.is_some_and(|until| now >= until) {
            (self.keys_until, self.busy) = (None, false);
            desk.tell(self.id, ChannelEvent::KeysSent);
        }
        if self.leaving_until.is_some_and(|until| now >= until) {
            self.stayed("the PBX did not say whether it took the call".to_owned(), desk);
        }
        if let Some(end) = self.away(now, desk, view) {
            return Some(end);
        }
        if self.medium.failures >= MEDIUM_TRIES {
            return Some(failed(format!("no audio to or from the PBX: {}", self.medium.problem)));
        }
        let waiting = self.answer_wanted.filter(|_| self.is_entered() && !self.told_up);
        if view.away.is_none() && waiting.is_some_and(|since| now >= since + ANSWER_LIMIT) {
            let problem = match self.medium.problem.as_str() {
                "" => "it took too long",
                problem => problem,
            };
            return Some(failed(format!("no audio to or from the PBX: {problem}")));
        }
        None
    }

    /// A call goes on without the PBX's events as long as the PBX, asked, has its channel.
    fn away(&mut self, now: Instant, desk: &mut Desk, view: &View<'_>) -> Option<End> {
        let Some(since) = view.away else {
            (self.alive, self.alive_at) = (None, None);
            return None;
        };
        if now >= self.away_limit(since) {
            let reason = format!("the PBX cannot be reached since {} s", (now - since).as_secs());
            return Some(End::Drop(Departure { cause: 41, reason, by_peer: false }));
        }
        if !self.alive_asked && now >= self.alive_at.unwrap_or(since + AWAY) {
            self.alive_asked = true;
            desk.ask(Asked::Leg(self.id, Step::Alive), Request::Channel { channel: self.channel.clone() });
        }
        None
    }

    /// When it ends because nothing is heard of the PBX.
    fn away_limit(&self, since: Instant) -> Instant {
        match self.medium.lost.is_some() || matches!(self.medium.stage, MediaStage::Due(_)) {
            true => since + AWAY_WITHOUT_MEDIA,
            false => self.alive.unwrap_or(since) + AWAY_WITHOUT_ANSWER,
        }
    }

    /// When a listener whose channel was made must have it.
    fn unheard(&self) -> Option<Instant> {
        let waits = self.origin == Origin::Listening && !self.is_entered();
        self.born.filter(|_| waits).map(|born| born + LISTENING)
    }

    /// When the medium that the leg has must be in the bridge, or its beginning was not told.
    fn unjoined(&self) -> Option<Instant> {
        let waits = self.medium.stage == MediaStage::There
            && !self.medium.entered
            && self.looked_for != self.medium.count;
        self.medium.delivered.filter(|_| waits).map(|delivered| delivered + UNJOINED)
    }

    /// The bridge and the channel that carries the audio.
    fn build(&mut self, now: Instant, desk: &mut Desk, view: &View<'_>) {
        if view.away.is_some() {
            return;
        }
        if let Some(since) = self.medium.lost
            && self.medium.stage == MediaStage::There
            && now >= since + MEDIUM_LOST
        {
            self.shed = Some(self.medium.name.clone());
            self.give_up_medium(now, "the connection was lost", desk);
        }
        if self.unjoined().is_some_and(|limit| now >= limit) {
            (self.wants_look, self.looked_for) = (true, self.medium.count);
        }
        if self.bridge == Thing::No && self.retry.is_none() {
            self.bridges += 1;
            self.bridge = Thing::Asked;
            self.bridge_name = view.names.of(Kind::Bridge, self.id, self.bridges);
            (self.caller_in, self.media_in) = (Thing::No, Thing::No);
            let name = self.bridge_name.clone();
            desk.ask(
                Asked::Leg(self.id, Step::Bridge { name: name.clone() }),
                Request::CreateBridge { bridge: name },
            );
        }
        if let MediaStage::Due(at) = self.medium.stage
            && now >= at
            && self.leaving.is_none()
        {
            self.medium.count += 1;
            self.medium.stage = MediaStage::Preparing;
            self.medium.name = view.names.of(Kind::Media, self.id, self.medium.count);
            desk.actions.push_back(Action::Prepare { leg: self.id, count: self.medium.count });
        }
    }

    fn join(&mut self, desk: &mut Desk) {
        if self.bridge != Thing::There || self.retry.is_some() {
            return;
        }
        let add = |channel: &str, absorb_keys| Request::AddChannel {
            bridge: self.bridge_name.clone(),
            channel: channel.to_owned(),
            absorb_keys,
        };
        if self.caller_in == Thing::No && self.is_entered() && self.leaving.is_none() {
            desk.ask(Asked::Leg(self.id, Step::JoinCaller), add(&self.channel, true));
            self.caller_in = Thing::Asked;
        }
        if self.media_in == Thing::No && self.medium.entered && self.medium.stage == MediaStage::There {
            let step = Step::JoinMedia { count: self.medium.count };
            desk.ask(Asked::Leg(self.id, step), add(&self.medium.name, false));
            self.media_in = Thing::Asked;
        }
    }

    fn answer(&mut self, desk: &mut Desk) {
        let joined = self.caller_in == Thing::There && self.media_in == Thing::There;
        let ready = joined && self.medium.delivered.is_some();
        if self.answer_wanted.is_none() || self.told_up || !ready {
            return;
        }
        if self.up {
            self.told_up = true;
            desk.tell(self.id, ChannelEvent::Up);
        } else if !self.answering && self.origin == Origin::Caller && self.retry.is_none() {
            self.answering = true;
            let channel = self.channel.clone();
            desk.ask(Asked::Leg(self.id, Step::Answer), Request::Answer { channel });
        }
    }

    fn take_order(&mut self, desk: &mut Desk, view: &View<'_>) {
        while !self.busy && self.is_entered() {
            let Some(order) = self.orders.pop_front() else { return };
            self.busy = true;
            let channel = self.channel.clone();
            let (step, request) = match order {
                Order::Ring if self.up => {
                    self.busy = false;
                    continue;
                }
                Order::Ring => (Step::Ring, Request::Ring { channel }),
                Order::Hold(on) => (Step::Hold, Request::Hold { channel, on }),
                Order::Keys(keys) => {
                    (Step::Keys { take_ms: keys_take_ms(&keys) }, Request::Keys { channel, keys })
                }
                Order::Leave(_) if self.origin == Origin::Listening => {
                    self.stayed("a channel that only listens cannot go anywhere".to_owned(), desk);
                    continue;
                }
                Order::Leave(exit) => {
                    let exit = match exit {
                        Exit::Queue(name) => Exit::Dialplan {
                            context: Some(view.settings.queue_context.clone()),
                            extension: name,
                            priority: 1,
                        },
                        other => other,
                    };
                    self.leaving = Some(exit.clone());
                    let Exit::Dialplan { context, extension, priority } = exit else {
                        self.checked(Outcome::Lost(String::new()), desk);
                        continue;
                    };
                    let context = context.or_else(|| self.context.clone());
                    let extension = Extension { context, extension, priority };
                    (Step::Check, Request::Exists { channel, extension })
                }
            };
            desk.ask(Asked::Leg(self.id, step), request);
        }
    }

    /// When [`Self::advance`] has something to do although nothing happens.
    pub(super) fn next_timeout(&self, view: &View<'_>) -> Option<Instant> {
        let medium = match self.medium.stage {
            MediaStage::Due(at) if view.away.is_none() && self.leaving.is_none() => Some(at),
            _ => None,
        };
        let waiting = self.answer_wanted.filter(|_| self.is_entered() && !self.told_up);
        let ask = |since: Instant| self.alive_at.unwrap_or(since + AWAY);
        let times = [
            medium,
            self.medium.lost.filter(|_| view.away.is_none()).map(|since| since + MEDIUM_LOST),
            self.retry,
            self.unheard(),
            self.unjoined().filter(|_| view.away.is_none()),
            self.keys_until,
            self.leaving_until,
            self.hanging_up.map(|(since, _)| since + HANGING_UP),
            view.away.map(|since| self.away_limit(since)),
            view.away.filter(|_| !self.alive_asked).map(ask),
            waiting.filter(|_| view.away.is_none()).map(|since| since + ANSWER_LIMIT),
        ];
        times.into_iter().flatten().min()
    }

    /// What it has on the PBX besides its own channel: bridges, then channels. What is being asked for is got rid of
    /// when the answer comes.
    pub(super) fn belongings(&self) -> (Option<String>, Option<String>) {
        let bridge = (self.bridge == Thing::There).then(|| self.bridge_name.clone());
        let media = (self.medium.stage == MediaStage::There).then(|| self.medium.name.clone());
        (bridge, media)
    }

    /// Whether that name is one it has, or is asking for.
    pub(super) fn owns(&self, name: &str) -> bool {
        let medium = !matches!(self.medium.stage, MediaStage::Due(_)) && self.medium.name == name;
        self.channel == name || medium || (self.bridge != Thing::No && self.bridge_name == name)
    }
}

/// Events and answers pass each other; later than that after the medium is there, one was missed.
const UNJOINED: Duration = Duration::from_secs(2);
/// A channel that was made to listen with comes into the application at once.
const LISTENING: Duration = Duration::from_secs(5);
/// A channel that leaves a bridge leaves the application or comes back to the bridge within that time.
const PARTED: Duration = Duration::from_millis(250);
/// From the PBX's word that somebody hangs up to our belief without more proof.
const HANGING_UP: Duration = Duration::from_secs(3);
/// Whether a channel went on in the dialplan is known after that.
const LEAVING_UNKNOWN: Duration = Duration::from_secs(3);
/// Audio must be there that long after it is wanted.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const BRIDGING_AGAIN: Duration = Duration::from_millis(300);
const BRIDGING_TRIES: u32 = 5;
const MEDIUM_AGAIN: Duration = Duration::from_millis(100);
const MEDIUM_TRIES: u32 = 4;
/// A medium that lived so long was a good one.
const MEDIUM_HOLDS: Duration = Duration::from_secs(5);
const MEDIUM_FRESH: Duration = Duration::from_secs(1);
/// The PBX's own word that a medium is gone usually comes within that time.
const MEDIUM_LOST: Duration = Duration::from_millis(250);
/// How long a call goes on without the PBX's events before the PBX is asked for it, and asked again.
const AWAY: Duration = Duration::from_secs(120);
const ALIVE_AGAIN: Duration = Duration::from_secs(30);
/// How long it goes on without an answer to that.
const AWAY_WITHOUT_ANSWER: Duration = Duration::from_secs(300);
const AWAY_WITHOUT_MEDIA: Duration = Duration::from_secs(10);
