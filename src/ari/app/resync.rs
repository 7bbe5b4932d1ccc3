//! What the PBX has, seen after the event socket was away: compared with what we believe.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use crate::ari::model::{Application, Bridge, Channel};

use super::desk::{Asked, Desk, Part};
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
        let calling = matches!(channel.state.as_str(), "Down" | "Dialing" | "Ringing" | "Rsrvd");
        channel.is_in(&self.application) || (self.told.contains(&channel.id) && !calling)
    }
}
