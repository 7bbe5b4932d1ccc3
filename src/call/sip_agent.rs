//! A caller talks with an agent of a service that is called by SIP.
//!
//! The two are joined as two people are. What was said and what it costs is the service's to tell, and it
//! tells that after the call: the record is closed when it has, or when it takes too long.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::{info, warn};

use super::bridge::{DialStep, Unanswered};
use super::ledger::{Ending, Ledger};
use super::{Call, Over};
use crate::config::Money;
use crate::cost::Charge;
use crate::event::{CallEventKind, Heard, TranscriptLine};
use crate::id::LineId;
use crate::provider::Speaker;
use crate::provider::ultravox_sip::account::Line;
use crate::provider::ultravox_sip::{Account, Following, SipAgent};
use crate::telemetry::Wire;

/// Who is called, and how.
#[derive(Clone)]
pub struct SipAgentStep {
    /// Whom to ask afterwards.
    pub agent: Arc<SipAgent>,
    /// The call to it, and what the caller hears when it fails and nothing follows.
    pub dial: DialStep,
    /// The assistant's name here.
    pub assistant: String,
    /// Most a call with it may cost. What it costs is known at its end, so this decides only whether it begins.
    pub max_cost: Option<Money>,
}

impl Call {
    /// Joins the caller with the agent until one of them hangs up. Answers without [`Over`] only when the agent did
    /// not answer, or may not cost anything more, and something follows.
    ///
    /// # Errors
    /// [`Over`].
    pub async fn talk_with_sip_agent(&mut self, step: &SipAgentStep) -> Result<(), Over> {
        if !self.may_spend(step.max_cost).await? {
            return Ok(());
        }
        let provider = step.agent.name().to_owned();
        let mark = self.ledger.call().to_string();
        // Followed before it is dialled: the first webhook may be faster than the answer.
        let following = step.agent.follow(mark.clone(), step.dial.request.from.clone());
        let mut request = step.dial.request.clone();
        // The service shows a call's display name and headers to whoever asks it about the call.
        request.from_name = Some(mark.clone());
        request.headers.push(("X-Tandem-Call".to_owned(), mark));
        if !step.assistant.is_empty() {
            request.headers.push(("X-Tandem-Assistant".to_owned(), step.assistant.clone()));
        }
        let dialled = Instant::now();
        match self
            .join_with(request, |call| {
                let connect_ms = dialled.elapsed().as_millis() as u64;
                metrics::histogram!("tandem_provider_connect_seconds").record(dialled.elapsed());
                let provider = provider.clone();
                call.ledger.record(CallEventKind::ProviderConnected {
                    provider,
                    connect_ms,
                    resumed: false,
                    gap_ms: None,
                });
                let since_ms = call.ledger.elapsed_ms(Instant::now());
                call.epilogue = Some(Epilogue { following, since_ms });
            })
            .await
        {
            Unanswered::Over => Err(Over),
            Unanswered::Failed(failure) => {
                warn!(provider = step.agent.name(), status = failure.status, "an agent could not be called");
                metrics::counter!("tandem_provider_open_failures_total").increment(1);
                let (provider, reason) = (step.agent.name().to_owned(), failure.reason.clone());
                self.ledger.record(CallEventKind::ProviderLost { provider, reason });
                if step.dial.last { self.unanswered(&step.dial, failure).await } else { Ok(()) }
            }
        }
    }
}

/// What is still to come when a call is over: what the service tells of it.
pub(super) struct Epilogue {
    following: Following,
    /// When the agent answered, from the start of the call.
    since_ms: u64,
}

impl Epilogue {
    /// Waits for the service's account, writes it, and closes the record. A server that stops waits no longer.
    pub(super) async fn write(
        self,
        mut ledger: Ledger,
        stop: Pin<Box<WaitForCancellationFutureOwned>>,
        ended: Instant,
        ending: Ending,
    ) {
        let (provider, since_ms) = (self.following.provider().to_owned(), self.since_ms);
        tokio::select! {
            account = self.following.account() => tell(&mut ledger, &provider, since_ms, ended, account),
            () = stop => {}
        }
        ledger.end(ended, ending);
    }
}

fn tell(ledger: &mut Ledger, provider: &str, since_ms: u64, ended: Instant, account: Account) {
    let end_ms = ledger.elapsed_ms(ended);
    for line in account.lines {
        ledger.record(CallEventKind::Transcript(transcript(line, since_ms, end_ms)));
    }
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if let Some(bill) = account.bill {
        let model = account.model.as_str();
        ledger.charge(provider, Charge::Session { model, billed_ms: ms(bill.session) });
        if let Some(sip) = bill.sip {
            ledger.charge(provider, Charge::Session { model: SIP_PART, billed_ms: ms(sip) });
        }
    }
    if let Some(missing) = account.missing {
        info!(provider, missing = %Wire(missing.as_bytes()), "the service's account of a call is not complete");
    }
}

fn transcript(line: Line, since_ms: u64, end_ms: u64) -> TranscriptLine {
    let ms = |span: Duration| {
        since_ms.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)).min(end_ms)
    };
    let (start_ms, line_end_ms) = line.span.map_or((since_ms, since_ms), |(start, end)| (ms(start), ms(end)));
    TranscriptLine {
        line_id: LineId::fresh(),
        who: match line.who {
            Speaker::Caller => "caller",
            Speaker::Assistant => "assistant",
        }
        .to_owned(),
        text: line.text,
        start_ms,
        end_ms: line_end_ms,
        // The service keeps of a cut line what was heard.
        heard: Heard::Full,
        heard_text: None,
    }
}

/// Stands for the model in the price table: the minutes of SIP, which are billed besides.
const SIP_PART: &str = "sip";
