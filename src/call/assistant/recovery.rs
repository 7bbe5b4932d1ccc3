//! The session is lost in mid-call.

use tracing::warn;

use super::talk::Talk;
use super::{AssistantPlan, Talked, unfinished, words};
use crate::call::ledger::Ending;
use crate::call::{Call, Over};
use crate::event::{CallEventKind, Disposition, Floor, Phase};
use crate::provider::CloseReason;

impl Call {
    /// The session is gone: what was generated is still played, then the caller is told.
    pub(super) async fn lost(
        &mut self,
        talk: &mut Talk,
        plan: &AssistantPlan,
        reason: &CloseReason,
    ) -> Talked {
        warn!(?reason, "the assistant is lost");
        metrics::counter!("tandem_provider_lost_total").increment(1);
        let provider = plan.provider().to_owned();
        self.ledger.record(CallEventKind::ProviderLost { provider, reason: words(reason).to_owned() });
        self.bring_out(talk);
        self.phase(Phase::InCall, Floor::None);
        self.play(&plan.prompts.apology, None).await?;
        let ending = Ending::new(Disposition::Failed, "system", 502, "the assistant was lost");
        self.leg.hang_up(crate::sip::ua::HangupReason {
            protocol: "Q.850",
            cause: 41,
            text: ending.reason.clone(),
        });
        self.end(ending);
        Err(Over)
    }

    /// Every line heard so far goes into the record.
    pub(super) fn bring_out(&mut self, talk: &mut Talk) {
        let playing = unfinished(self.leg.clear());
        talk.conversation.finish(self.now_ms(), &playing);
        self.act(talk);
        if talk.dropped_ms > 0 {
            warn!(dropped_ms = talk.dropped_ms, "assistant audio was given up: ten minutes were waiting");
        }
        let stats = talk.session.stats();
        metrics::counter!("tandem_provider_audio_dropped_ms_total").increment(stats.audio_dropped_ms);
        metrics::counter!("tandem_provider_unknown_events_total").increment(stats.unknown_events);
    }
}
