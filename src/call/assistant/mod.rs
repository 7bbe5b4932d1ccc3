//! A caller talks with an assistant: the heart of a call.
//!
//! Caller audio goes from the leg into the session as it arrives; assistant audio goes from the session
//! into the leg's playout queue. When the session hears the caller speak, the queue is dropped at once
//! and the session is told what really left on RTP. Everything said goes through the
//! [`Conversation`](super::conversation::Conversation) into the record.
//!
//! `opening` finds a session, `talk` is the conversation, `tools` what the assistant does besides speaking,
//! `recovery` what happens when the session is lost, `usage` what it costs. What recovery decides stands in pure
//! cores: `race` (whom to try next), `watch` (what the caller is owed and for how long), `backlog` (what must be
//! heard again), `renewal` (when a session's time is up), `pulse` (whether the service still hears the caller).
//! `line` is the session of the moment; `manners` is when it speaks unasked and how it is interrupted (`habits`
//! does it).

use std::sync::Arc;
use std::time::Duration;

use super::conversation::{Playback, Snapshot};
use super::{Call, Over, Prompts};
use crate::config::Money;
use crate::event::{CallEventKind, Floor, Phase};
use crate::provider::{CloseReason, ItemId, Provider, SessionSpec};
use crate::rtp::{ItemKey, PlayedItem};
use crate::tools::builtin::COLLECT_DIGITS;
use crate::tools::toolbox::Toolbox;

use line::Line;
use manners::Manners;
use opening::Ready;
use talk::Talk;

pub mod backlog;
mod habits;
mod line;
pub mod manners;
mod opening;
pub mod pulse;
pub mod race;
mod recovery;
pub mod renewal;
mod talk;
mod tools;
mod usage;
pub mod watch;

pub use watch::Patience;

/// Who talks with the caller, and how.
#[derive(Clone)]
pub struct AssistantPlan {
    /// Its providers, in order of preference; at least one.
    pub chain: Vec<Arc<dyn Provider>>,
    /// Of each of them: whether it is of another kind than the first, whose voice and model `spec` names.
    pub foreign: Vec<bool>,
    /// What its sessions are opened with.
    pub spec: SessionSpec,
    /// The first words; `None`: the assistant finds its own.
    pub greeting: Option<String>,
    /// What it may do.
    pub toolbox: Toolbox,
    /// The call ends politely after this long.
    pub max_duration: Option<Duration>,
    /// How it behaves on the phone.
    pub manners: Manners,
    /// Most a call with it may cost.
    pub max_cost: Option<Money>,
    /// What the caller hears when the assistant is lost.
    pub prompts: Prompts,
    /// What is done when a provider fails.
    pub recovery: Recovery,
    /// Nothing follows: a call that no provider can serve ends.
    pub last: bool,
}

/// What is done when a provider fails.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// When the next provider is tried beside one that is slow to open a session.
    pub hedge_after: Duration,
    /// How long is too long.
    pub patience: Patience,
    /// What a caller hears who would wait in silence.
    pub filler: Option<Arc<[i16]>>,
}

impl AssistantPlan {
    /// The name of the provider at that place of the chain.
    fn provider(&self, place: usize) -> &str {
        self.chain.get(place).map_or("none", |provider| provider.name())
    }

    /// What the provider at that place is opened with to go on with a conversation.
    fn spec_of(&self, place: usize, spec: &SessionSpec, so_far: &Snapshot) -> SessionSpec {
        let mut spec = SessionSpec { history: so_far.history.clone(), ..spec.clone() };
        if self.foreign.get(place).copied().unwrap_or(false) {
            (spec.voice, spec.model) = (None, None);
        }
        spec
    }
}

/// That a conversation ended while the call goes on means that no provider could go on with it: what follows in the
/// flow takes its place.
type Talked = Result<(), Over>;

impl Call {
    /// Connects the caller with the assistant and lets them talk until one of them hangs up. The phone
    /// rings while the session is being opened, so that the caller never hears silence. Answers without [`Over`]
    /// only when no provider can serve the call and something follows.
    ///
    /// # Errors
    /// [`Over`] when the call has ended, which is how a conversation ends.
    pub async fn converse(&mut self, plan: &AssistantPlan) -> Talked {
        if !self.may_spend(plan.max_cost).await? {
            return Ok(());
        }
        self.keys_hidden = plan.toolbox.has(COLLECT_DIGITS);
        if !self.is_answered() {
            self.phase(Phase::Connecting, Floor::None);
        }
        let Some(Ready { place, session, dialled, connect_ms, .. }) = self.open(plan).await? else {
            self.keys_hidden = false;
            return self.without_assistant(plan).await;
        };
        let provider = plan.provider(place).to_owned();
        let connected =
            CallEventKind::ProviderConnected { provider, connect_ms, resumed: false, gap_ms: None };
        self.ledger.record(connected);
        self.answer().await?;
        self.phase(Phase::InCall, Floor::Assistant);
        let line = Line::new(session, place, self.sessions);
        let mut talk = Talk::new(line, dialled, self.now_ms(), plan);
        self.mind_the_manners(&mut talk, plan);
        let ended = self.talk(&mut talk, plan).await;
        self.close_tools();
        self.keys_hidden = false;
        self.bring_out(&mut talk);
        talk.line.take_down();
        self.sessions = talk.line.number();
        ended
    }
}

fn unfinished(cleared: Vec<PlayedItem>) -> Vec<Playback> {
    let unfinished = cleared.into_iter().filter(|played| !played.complete && !is_filler(&played.item));
    unfinished.map(|p| Playback { item: item_id(p.item), played_ms: millis(p.played_ms) }).collect()
}

/// Whether it is no words of the assistant's.
fn is_filler(key: &ItemKey) -> bool {
    key.0.starts_with(FILLER)
}

fn item_id(key: ItemKey) -> ItemId {
    ItemId(key.0)
}

fn millis(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn words(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::Requested => "closed by us",
        CloseReason::Expired => "the session reached its time limit",
        CloseReason::QuotaExhausted => "the account has no quota left",
        CloseReason::HungUp => "the assistant hung up",
        CloseReason::ByService { .. } => "closed by the service",
        CloseReason::ConnectionLost(_) => "the connection broke",
        CloseReason::Protocol(_) => "the service broke its protocol",
    }
}

/// What the names of fillers begin with.
const FILLER: &str = "filler-";
