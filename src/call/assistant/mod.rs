//! A caller talks with an assistant: the heart of a call.
//!
//! Caller audio goes from the leg into the session as it arrives; assistant audio goes from the session
//! into the leg's playout queue. When the session hears the caller speak, the queue is dropped at once
//! and the session is told what really left on RTP. Everything said goes through the
//! [`Conversation`](super::conversation::Conversation) into the record.
//!
//! `opening` finds a session, `talk` is the conversation, `tools` what the assistant does besides speaking,
//! `recovery` what happens when the session is lost, `usage` what it costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Call, Over, Prompts};
use crate::config::Money;
use crate::event::{CallEventKind, Floor, Phase};
use crate::provider::{CloseReason, Command, ItemId, Provider, SessionSpec};
use crate::rtp::{ItemKey, PlayedItem};
use crate::tools::toolbox::Toolbox;

use super::conversation::Playback;
use talk::Talk;

mod opening;
mod recovery;
mod talk;
mod tools;
mod usage;

/// Who talks with the caller, and how.
#[derive(Clone)]
pub struct AssistantPlan {
    /// Its providers, in order of preference; at least one.
    pub chain: Vec<Arc<dyn Provider>>,
    /// What its sessions are opened with.
    pub spec: SessionSpec,
    /// The first words; `None`: the assistant finds its own.
    pub greeting: Option<String>,
    /// What it may do.
    pub toolbox: Toolbox,
    /// The call ends politely after this long.
    pub max_duration: Option<Duration>,
    /// Most a call with it may cost.
    pub max_cost: Option<Money>,
    /// What the caller hears when the assistant is lost.
    pub prompts: Prompts,
}

impl AssistantPlan {
    /// The name of the first provider.
    fn provider(&self) -> &str {
        self.chain.first().map_or("none", |provider| provider.name())
    }
}

/// Why a conversation ended while the call goes on. There is no such reason yet but a flow that continues
/// after its assistant step once the assistant has hung up is cut short by [`Over`].
type Talked = Result<(), Over>;

impl Call {
    /// Connects the caller with the assistant and lets them talk until one of them hangs up. The phone
    /// rings while the session is being opened, so that the caller never hears silence.
    ///
    /// # Errors
    /// [`Over`] when the call has ended, which is how a conversation ends.
    pub async fn converse(&mut self, plan: &AssistantPlan) -> Talked {
        if !self.may_spend(plan).await? {
            return Ok(());
        }
        if !self.is_answered() {
            self.phase(Phase::Connecting, Floor::None);
        }
        let dialled = Instant::now();
        let session = match self.open(plan).await? {
            Ok(session) => session,
            Err(error) => return self.without_assistant(plan, &error).await,
        };
        let connect_ms = dialled.elapsed().as_millis() as u64;
        metrics::histogram!("tandem_provider_connect_seconds").record(dialled.elapsed());
        let provider = plan.provider().to_owned();
        self.ledger.record(CallEventKind::ProviderConnected { provider, connect_ms });
        self.answer().await?;
        self.phase(Phase::InCall, Floor::Assistant);
        let mut talk = Talk::new(session, self.now_ms(), plan);
        // Whoever answers a phone speaks first.
        talk.send(match &plan.greeting {
            Some(greeting) => Command::Say(greeting.clone()),
            None => Command::Respond { instructions: None },
        });
        let ended = self.talk(&mut talk, plan).await;
        self.close_tools();
        self.bring_out(&mut talk);
        talk.send(Command::Close);
        ended
    }
}

fn unfinished(cleared: Vec<PlayedItem>) -> Vec<Playback> {
    let unfinished = cleared.into_iter().filter(|played| !played.complete);
    unfinished.map(|p| Playback { item: item_id(p.item), played_ms: millis(p.played_ms) }).collect()
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
