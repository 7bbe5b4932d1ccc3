//! What the PBX shows of a leg, and tells of its bridge, without having been asked to do anything.

use std::time::Instant;

use super::{End, Leg, MediaStage, Origin, PARTED, Thing};
use crate::ari::app::desk::Desk;
use crate::ari::app::resync::Sight;
use crate::pbx::Departure;

impl Leg {
    /// A channel is in a bridge that may be its own.
    pub(in crate::ari::app) fn joined_bridge(&mut self, now: Instant, bridge: &str, channel: &str) {
        if self.bridge != Thing::There || self.bridge_name != bridge || self.leaving.is_some() {
            return;
        }
        if let Some(place) = self.place_of(channel)
            && *place == Thing::No
        {
            *place = Thing::There;
            self.touched = now;
        }
    }

    /// A channel is not in a bridge any more that may be its own.
    pub(in crate::ari::app) fn left_bridge(&mut self, now: Instant, bridge: &str, channel: &str) {
        if self.bridge_name != bridge {
            return;
        }
        // While it is being put in, what is told is of before.
        if let Some(place) = self.place_of(channel)
            && *place == Thing::There
        {
            *place = Thing::No;
            self.touched = now;
            // It is on its way out, or is put into the bridge a second time, more often than it is lost.
            self.retry = Some(self.retry.map_or(now + PARTED, |retry| retry.max(now + PARTED)));
        }
    }

    /// A bridge that may be its own is no more.
    pub(in crate::ari::app) fn bridge_gone(&mut self, now: Instant, bridge: &str) {
        if self.bridge_name == bridge && self.bridge == Thing::There {
            self.touched = now;
            (self.bridge, self.caller_in, self.media_in) = (Thing::No, Thing::No, Thing::No);
        }
    }

    fn place_of(&mut self, channel: &str) -> Option<&mut Thing> {
        if self.channel == channel {
            return Some(&mut self.caller_in);
        }
        let medium = self.medium.stage == MediaStage::There && self.medium.name == channel;
        medium.then_some(&mut self.media_in)
    }

    /// Compares with what the PBX has. `first`: for the first time since events come.
    pub(in crate::ari::app) fn compare(
        &mut self,
        now: Instant,
        sight: &Sight,
        first: bool,
        desk: &mut Desk,
    ) -> Option<End> {
        match sight.channel(&self.channel) {
            None if self.born.is_none() => return None,
            None => {
                let reason = "the PBX does not have the channel any more".to_owned();
                return Some(End::Gone(Departure { cause: 41, reason, by_peer: false }));
            }
            Some((channel, inside)) => {
                if inside && !self.is_entered() {
                    self.enter(now, channel);
                } else if !inside && self.is_entered() {
                    return Some(self.exited());
                }
                self.up |= channel.is_up() && self.origin == Origin::Caller;
                if channel.state == "Ringing" {
                    self.ringing(desk);
                }
            }
        }
        if self.medium.stage == MediaStage::There {
            match sight.channel(&self.medium.name) {
                None => {
                    self.give_up_medium(now, "the PBX has lost the media channel", desk);
                }
                Some((_, inside)) => self.medium.entered |= inside,
            }
        }
        if self.bridge == Thing::There {
            match sight.bridge(&self.bridge_name) {
                None => {
                    (self.bridge, self.caller_in, self.media_in) = (Thing::No, Thing::No, Thing::No);
                }
                Some(bridge) => {
                    let has = |name: &String| bridge.channels.contains(name);
                    for (place, name) in
                        [(&mut self.caller_in, &self.channel), (&mut self.media_in, &self.medium.name)]
                    {
                        if *place == Thing::There && !has(name) {
                            *place = Thing::No;
                        }
                    }
                }
            }
        }
        self.retry = None;
        if first {
            // It could not be answered while events were away.
            self.answer_wanted = self.answer_wanted.map(|_| now);
        }
        None
    }
}
