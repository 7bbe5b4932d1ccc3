//! What the conversation costs, and what happens when that is too much.

use std::time::Instant;

use tracing::info;

use super::talk::Talk;
use super::tools::{FAREWELL, Leaving};
use crate::call::{Call, Over};
use crate::config::{Money, OnLimit};
use crate::cost::Charge;
use crate::provider::{Command, Usage};

impl Call {
    /// The service has done something that it charges for.
    pub(super) fn used(&mut self, talk: &mut Talk, provider: &str, usage: &Usage) {
        let charge = match usage {
            Usage::Response { model, tokens } => Charge::Response { model, tokens: *tokens },
            Usage::Transcription { model, tokens, audio_ms } => {
                Charge::Transcription { model, tokens: *tokens, audio_ms: *audio_ms }
            }
            Usage::Session { model, billed_ms } => Charge::Session { model, billed_ms: *billed_ms },
        };
        self.ledger.charge(provider, charge);
        self.mind_the_cost(talk);
    }

    /// Says goodbye once a limit is used up, or goes on with the flow.
    fn mind_the_cost(&mut self, talk: &mut Talk) {
        if talk.leaving.is_some() || talk.onward.is_some() {
            return;
        }
        let Some((scope, on_limit, farewell)) = self.ledger.out_of_money() else { return };
        info!(?scope, "the conversation ends: a limit of cost is used up");
        talk.send(Command::CancelResponse);
        if on_limit == OnLimit::ContinueFlow {
            talk.onward = Some(Instant::now() + FAREWELL);
            return;
        }
        talk.send(Command::Say(farewell.as_ref().to_owned()));
        let reason = "a limit of cost was reached".to_owned();
        talk.leaving = Some(Leaving { reason, until: Instant::now() + FAREWELL });
    }

    /// Whether this conversation, which may cost no more than `most`, may begin at all. If not, the caller is told and the call ends, or the flow goes on.
    ///
    /// # Errors
    /// [`Over`] when the call has ended.
    pub(in crate::call) async fn may_spend(&mut self, most: Option<Money>) -> Result<bool, Over> {
        self.ledger.limit_cost(most);
        let Some((scope, on_limit, farewell)) = self.ledger.out_of_money() else { return Ok(true) };
        info!(?scope, ?on_limit, "no assistant for this call: a limit of cost is used up");
        if on_limit == OnLimit::ContinueFlow {
            return Ok(false);
        }
        self.answer().await?;
        // Few calls come here, and none is kept waiting by the few milliseconds.
        let words = crate::audio::voice::speak(&farewell);
        self.play(&words, None).await?;
        self.hang_up("system", "a limit of cost was reached");
        Err(Over)
    }
}
