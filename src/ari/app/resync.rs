//! What the PBX has, seen after the event socket was away: compared with what we believe.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::desk::{Asked, Desk, Part};
use super::doomed::Thing;
use super::names::Kind;
use super::{App, LOOK_AGAIN, Leg, Orphans};
use crate::ari::model::{Application, Bridge, Channel};
use crate::ari::request::{Outcome, Request};

/// One look at the PBX: three questions.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) round: u64,
    /// Whatever happened later is not in it.
    pub(super) since: Instant,
    application: Option<Application>,
    channels: Option<Vec<Channel>>,
    bridges: Option<Vec<Bridge>>,
}

impl Look {
    pub(super) fn start(now: Instant, round: u64, application: &str, desk: &mut Desk) -> Self {
        let requests = [
            (Part::Application, Request::Application { application: application.to_owned() }),
            (Part::Channels, Request::Channels),
            (Part::Bridges, Request::Bridges),
        ];
        for (part, request) in requests {
            desk.ask(Asked::Look { round, part }, request);
        }
        Self { round, since: now, application: None, channels: None, bridges: None }
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// In words, when it tells nothing.
    pub(super) fn take(&mut self, part: Part, outcome: Outcome) -> Result<(), String> {
        let body = match outcome {
            Outcome::Done(body) => body,
            // Nobody has ever been in the application.
            Outcome::NotThere(_) if part == Part::Application => b"{}".to_vec(),
            other => return Err(other.problem()),
        };
        let wrong = |error: serde_json::Error| error.to_string();
        match part {
            Part::Application => self.application = Some(serde_json::from_slice(&body).map_err(wrong)?),
            Part::Channels => self.channels = Some(serde_json::from_slice(&body).map_err(wrong)?),
            Part::Bridges => self.bridges = Some(serde_json::from_slice(&body).map_err(wrong)?),
        }
        Ok(())
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.application.is_some() && self.channels.is_some() && self.bridges.is_some()
    }

    pub(super) fn sight(self, application: &str) -> Sight {
        let told = self.application.unwrap_or_default().channel_ids.into_iter().collect();
        let channels = self.channels.unwrap_or_default().into_iter();
        let bridges = self.bridges.unwrap_or_default().into_iter();
        Sight {
            application: application.to_owned(),
            told,
            channels: channels.map(|channel| (channel.id.clone(), channel)).collect(),
            bridges: bridges.map(|bridge| (bridge.id.clone(), bridge)).collect(),
        }
    }
}

/// All that the PBX has.
#[derive(Debug)]
pub(super) struct Sight {
    application: String,
    /// Channels that the application is told of.
    told: HashSet<String>,
    channels: HashMap<String, Channel>,
    bridges: HashMap<String, Bridge>,
}

impl Sight {
    /// A channel, and whether our application has it.
    pub(super) fn channel(&self, id: &str) -> Option<(&Channel, bool)> {
        let channel = self.channels.get(id)?;
        Some((channel, self.is_inside(channel)))
    }

    /// Whether the channel runs our application now; one that is only told of may be in a queue of the PBX's.
    fn runs_ours(&self, channel: &Channel) -> bool {
        channel.is_in(&self.application)
    }

    pub(super) fn bridge(&self, id: &str) -> Option<&Bridge> {
        self.bridges.get(id)
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = (&Channel, bool)> {
        self.channels.values().map(|channel| (channel, self.is_inside(channel)))
    }

    pub(super) fn bridges(&self) -> impl Iterator<Item = &Bridge> {
        self.bridges.values()
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.channels.contains_key(id) || self.bridges.contains_key(id)
    }

    /// In a bridge a channel may show another application than Stasis; one that is being called is told of and not
    /// yet inside.
    fn is_inside(&self, channel: &Channel) -> bool {
        channel.is_in(&self.application) || (self.told.contains(&channel.id) && !is_called(channel))
    }
}

/// Whether it has been called and has not answered yet.
fn is_called(channel: &Channel) -> bool {
    matches!(channel.state.as_str(), "Down" | "Dialing" | "Ringing" | "Rsrvd")
}

impl App {
    pub(super) fn start_look(&mut self, now: Instant) {
        self.rounds += 1;
        self.look_at = None;
        self.look = Some(Look::start(now, self.rounds, &self.settings.application, &mut self.desk));
    }

    /// Compares what is believed with what the PBX has.
    pub(super) fn compare(&mut self, now: Instant, since: Instant, sight: &Sight) {
        let first = std::mem::take(&mut self.first_look);
        let ids: Vec<_> = self.legs.keys().copied().collect();
        for id in ids {
            let Some(leg) = self.legs.get_mut(&id) else { continue };
            if leg.touched >= since {
                // It changed while we looked.
                self.look_at.get_or_insert(now + LOOK_AGAIN);
                continue;
            }
            let inside_before = leg.is_entered();
            match leg.compare(now, sight, first, &mut self.desk) {
                Some(end) => self.over(now, id, end),
                None => {
                    let entered = !inside_before && self.legs.get(&id).is_some_and(Leg::is_entered);
                    if entered {
                        self.show_listener(id);
                    }
                    self.advance(now, id);
                }
            }
        }
        self.doomed.retain(|name, doomed| doomed.at.is_none() || doomed.attempts == 0 || sight.has(name));
        let bridges: Vec<_> = sight.bridges().filter(|bridge| self.is_left_over(&bridge.id)).collect();
        let bridges: Vec<_> = bridges.into_iter().map(|bridge| bridge.id.clone()).collect();
        let ours = |bridge: &&Bridge| self.names.read(&bridge.id).is_some();
        let bridged: HashSet<_> = sight.bridges().filter(ours).flat_map(|bridge| &bridge.channels).collect();
        let theirs = |bridge: &&Bridge| bridge.id.starts_with("tandem-") && !ours(bridge);
        let with_others: HashSet<_> =
            sight.bridges().filter(theirs).flat_map(|bridge| &bridge.channels).collect();
        let mut channels = Vec::new();
        for (channel, inside) in sight.channels() {
            match self.names.read(&channel.id) {
                // Whom we called may have gone to a queue, or on in the dialplan: those are not ours any more.
                Some((Kind::Out, _))
                    if !sight.runs_ours(channel) && !is_called(channel) && !bridged.contains(&channel.id) => {
                }
                Some(_) if self.is_left_over(&channel.id) => channels.push(channel.id.clone()),
                Some(_) => {}
                None => {
                    let known = self.by_channel.contains_key(&channel.id)
                        || self.doomed.contains_key(&channel.id)
                        || self.departed.contains_key(&channel.id)
                        || self.orphans.iter().any(|(_, orphan)| orphan.id == channel.id);
                    let others = channel.id.starts_with("tandem-") || with_others.contains(&channel.id);
                    if inside && !known && !others {
                        // Its beginning may stand in an event that has not been read yet.
                        self.orphans.push((now + ORPHANED, channel.clone()));
                    }
                }
            }
        }
        bridges.into_iter().for_each(|name| self.doom(now, name, Thing::Bridge));
        channels.into_iter().for_each(|name| self.doom(now, name, Thing::Channel(16)));
    }

    /// Whether it has a name of ours and nobody has it, nor is it on its way out.
    fn is_left_over(&self, name: &str) -> bool {
        let Some((_, id)) = self.names.read(name) else { return false };
        let owned = self.by_channel.contains_key(name)
            || self.departed.contains_key(name)
            || self.legs.get(&id).is_some_and(|leg| leg.owns(name));
        !owned && !self.doomed.contains_key(name)
    }

    /// A caller who was in the application before us.
    pub(super) fn orphan(&mut self, now: Instant, channel: Channel) {
        let known = self.by_channel.contains_key(&channel.id)
            || self.departed.contains_key(&channel.id)
            || self.doomed.contains_key(&channel.id);
        if known || self.away.is_some() {
            return;
        }
        tracing::info!(then = ?self.settings.orphans, "a caller of before is in the application");
        match self.settings.orphans {
            Orphans::Adopt => {
                let args = channel.stasis_args(&self.settings.application);
                self.visit(now, channel, &args);
            }
            Orphans::HangUp => self.doom(now, channel.id, Thing::Channel(41)),
            Orphans::Continue => self.pass_on(now, channel.id),
        }
    }
}

const ORPHANED: Duration = Duration::from_secs(1);
