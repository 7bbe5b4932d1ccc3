//! What the application wants done, and what it has asked for.

use std::collections::{HashMap, VecDeque};

use crate::ari::model::Channel;
use crate::ari::request::Request;
use crate::id::LegId;
use crate::pbx::ChannelEvent;

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a request; its outcome goes to [`super::App::answered`] under this number.
    Ask(u64, Request),
    /// A caller is here.
    Visitor {
        /// Their leg.
        leg: LegId,
        /// Whom they called.
        called: String,
        /// Their number.
        caller: Option<String>,
        /// Their channel.
        channel: String,
        /// Whether they are answered.
        up: bool,
    },
    /// Tell a leg. After [`ChannelEvent::Gone`] or [`ChannelEvent::Left`] nothing follows, and what was prepared for
    /// the leg is given up.
    Tell(LegId, ChannelEvent),
    /// Prepare a medium, then say so with [`super::App::prepared`].
    Prepare {
        /// For whom.
        leg: LegId,
        /// The how-manieth of that leg.
        count: u32,
    },
    /// The PBX has made its side of the medium: finish ours, hand it to the leg and say so with
    /// [`super::App::delivered`].
    Deliver {
        /// For whom.
        leg: LegId,
        /// The how-manieth of that leg.
        count: u32,
        /// The PBX's channel.
        channel: Box<Channel>,
    },
    /// Give up what was prepared or delivered for a medium.
    Discard {
        /// For whom.
        leg: LegId,
        /// The how-manieth of that leg.
        count: u32,
    },
}

/// What a request was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// A step of a leg.
    Leg(LegId, Step),
    /// To get rid of something.
    Doomed(String),
    /// To see what there is: the `part`-th question of the `round`-th look.
    Look { round: u64, part: Part },
}

/// What a leg asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Originate,
    Snoop,
    Bridge { name: String },
    Media { count: u32, name: String },
    JoinCaller,
    JoinMedia { count: u32 },
    Answer,
    Alive,
    Ring,
    Hold,
    Keys { take_ms: u64 },
    Check,
    Remove,
    Continue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Application,
    Channels,
    Bridges,
}

/// Requests and other actions, in order.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) actions: VecDeque<Action>,
    pub(super) asked: HashMap<u64, Asked>,
    next: u64,
}

impl Desk {
    pub(super) fn ask(&mut self, asked: Asked, request: Request) {
        self.next += 1;
        self.asked.insert(self.next, asked);
        self.actions.push_back(Action::Ask(self.next, request));
    }

    pub(super) fn tell(&mut self, leg: LegId, event: ChannelEvent) {
        self.actions.push_back(Action::Tell(leg, event));
    }
}
