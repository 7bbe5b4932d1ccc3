//! Finds a session for a call.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{AssistantPlan, Talked};
use crate::call::{Call, Over, Wake};
use crate::event::CallEventKind;
use crate::provider::{ProviderError, Session};
use crate::sip::leg::LegSignal;
use crate::sip::message::StatusCode;

impl Call {
    /// Opens a session on the ordinary runtime while the call goes on here.
    pub(super) async fn open(
        &mut self,
        plan: &AssistantPlan,
    ) -> Result<Result<Box<dyn Session>, ProviderError>, Over> {
        let (tell, mut told) = tokio::sync::oneshot::channel();
        let Some(provider) = plan.chain.first() else {
            let (provider, cause) = ("none".to_owned(), "the assistant has no provider".to_owned());
            return Ok(Err(ProviderError::Misconfigured { provider, cause }));
        };
        let opening = provider.open(plan.spec.clone());
        let task = self.runtime.spawn(async move {
            // A call that ended meanwhile does not want the session any more.
            let _unwanted = tell.send(opening.await);
        });
        let guard = AbortOnDrop(task.abort_handle());
        let opened = loop {
            let wait = self.next(None, Some(Instant::now() + OPENING_CHECK));
            tokio::select! {
                biased;
                opened = &mut told => break opened,
                wake = wait => if let Wake::Leg(LegSignal::Audio { .. }) = wake? {
                    self.hear(|_| ());
                },
            }
        };
        drop(guard);
        let name = provider.name().to_owned();
        Ok(match opened {
            Ok(Ok(session)) => session
                .settle()
                .map_err(|error| ProviderError::Unreachable { provider: name, cause: error.to_string() }),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                Err(ProviderError::Unreachable { provider: name, cause: "opening it failed".to_owned() })
            }
        })
    }

    pub(super) async fn without_assistant(&mut self, plan: &AssistantPlan, error: &ProviderError) -> Talked {
        warn!(%error, "no assistant for this call");
        metrics::counter!("tandem_provider_open_failures_total").increment(1);
        let (provider, reason) = (plan.provider().to_owned(), error.to_string());
        self.ledger.record(CallEventKind::ProviderLost { provider, reason });
        if self.is_answered() {
            self.play(&plan.prompts.apology, None).await?;
        }
        self.fail(StatusCode::SERVICE_UNAVAILABLE, "no assistant could be reached");
        Err(Over)
    }
}

/// Gives up opening a session when the call has ended.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// While a session is being opened the call looks up this often even if nothing happens.
const OPENING_CHECK: Duration = Duration::from_secs(1);
