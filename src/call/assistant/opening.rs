//! Finds a session: by opening it with the providers of a chain on the ordinary runtime, while the call goes on here.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use super::race::{Race, Step};
use super::{AssistantPlan, Talked};
use crate::call::conversation::Snapshot;
use crate::call::{Call, Over, Wake};
use crate::event::CallEventKind;
use crate::provider::{OpenedSession, ProviderError, Session, SessionSpec};
use crate::sip::leg::LegSignal;
use crate::sip::message::StatusCode;

/// A search for a session. What it has under way ends with it.
pub(super) struct Openings {
    race: Race,
    tell: mpsc::Sender<Opening>,
    told: mpsc::Receiver<Opening>,
    tasks: Vec<AbortOnDrop>,
    /// Providers the record says something of already.
    noted: Vec<usize>,
}

/// How opening a session ended.
pub(super) struct Opening {
    pub(super) place: usize,
    pub(super) dialled: Instant,
    /// What it was told.
    pub(super) snapshot: Snapshot,
    pub(super) opened: Result<Box<dyn OpenedSession>, ProviderError>,
}

/// A session that is ready to be used.
pub(super) struct Ready {
    pub(super) place: usize,
    pub(super) session: Box<dyn Session>,
    pub(super) dialled: Instant,
    pub(super) connect_ms: u64,
    pub(super) snapshot: Snapshot,
}

/// Nobody is left to try.
pub(super) struct GivenUp;

impl Openings {
    /// Tries the providers in this order, `rounds` times.
    pub(super) fn new(order: Vec<usize>, rounds: u32, plan: &AssistantPlan) -> Self {
        // None is tried twice at a time.
        let (tell, told) = mpsc::channel(order.len().max(1));
        let race = Race::new(order, rounds, plan.recovery.hedge_after);
        Self { race, tell, told, tasks: Vec::new(), noted: Vec::new() }
    }

    /// The next opening that has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Opening {
        match self.told.recv().await {
            Some(opening) => opening,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.race.deadline()
    }

    /// Tries `rounds` times at least.
    pub(super) fn insist(&mut self, rounds: u32) {
        self.race.insist(rounds);
    }
}

impl Call {
    /// Opens what is due. `spec` and `snapshot` are what sessions are told.
    pub(super) fn open_more(
        &mut self,
        openings: &mut Openings,
        plan: &AssistantPlan,
        spec: &SessionSpec,
        snapshot: impl Fn() -> Snapshot,
    ) -> Result<(), GivenUp> {
        let now = Instant::now();
        loop {
            let mut useless = Vec::new();
            let step = openings.race.next(now, |place| {
                let why = plan.chain.get(place).map(|provider| provider.unusable());
                match why {
                    Some(None) => true,
                    Some(Some(error)) => {
                        useless.push((place, error));
                        false
                    }
                    None => false,
                }
            });
            for (place, error) in useless {
                self.not_opened(openings, plan, place, &error);
            }
            match step {
                None => return Ok(()),
                Some(Step::GiveUp) => return Err(GivenUp),
                Some(Step::Open(place)) => self.open_one(openings, plan, place, spec, snapshot()),
            }
        }
    }

    fn open_one(
        &self,
        openings: &mut Openings,
        plan: &AssistantPlan,
        place: usize,
        spec: &SessionSpec,
        snapshot: Snapshot,
    ) {
        let Some(provider) = plan.chain.get(place) else { return };
        let opening = provider.open(plan.spec_of(place, spec, &snapshot));
        let (tell, dialled) = (openings.tell.clone(), Instant::now());
        let task = self.runtime.spawn(async move {
            let opened = opening.await;
            // A search that has ended does not want the session any more.
            let _unwanted = tell.send(Opening { place, dialled, snapshot, opened }).await;
        });
        openings.tasks.push(AbortOnDrop(task.abort_handle()));
    }

    /// Takes the session of an opening that has ended, if it has one.
    pub(super) fn settled(
        &mut self,
        openings: &mut Openings,
        plan: &AssistantPlan,
        opening: Opening,
    ) -> Option<Ready> {
        let Opening { place, dialled, snapshot, opened } = opening;
        let provider = plan.provider(place).to_owned();
        let settled = opened.and_then(|opened| {
            let cause = |error: std::io::Error| error.to_string();
            opened.settle().map_err(|error| ProviderError::Unreachable { provider, cause: cause(error) })
        });
        match settled {
            Ok(session) => {
                metrics::histogram!("tandem_provider_connect_seconds").record(dialled.elapsed());
                let connect_ms = dialled.elapsed().as_millis() as u64;
                Some(Ready { place, session, dialled, connect_ms, snapshot })
            }
            Err(error) => {
                openings.race.failed(Instant::now(), place);
                metrics::counter!("tandem_provider_open_failures_total").increment(1);
                self.not_opened(openings, plan, place, &error);
                None
            }
        }
    }

    fn not_opened(
        &mut self,
        openings: &mut Openings,
        plan: &AssistantPlan,
        place: usize,
        error: &ProviderError,
    ) {
        if openings.noted.contains(&place) {
            return;
        }
        openings.noted.push(place);
        warn!(%error, "no session with this provider");
        let (provider, reason) = (plan.provider(place).to_owned(), error.to_string());
        self.ledger.record(CallEventKind::ProviderLost { provider, reason });
    }

    /// Opens the first session, while the phone rings or the caller waits.
    pub(super) async fn open(&mut self, plan: &AssistantPlan) -> Result<Option<Ready>, Over> {
        let mut openings = Openings::new((0..plan.chain.len()).collect(), 1, plan);
        // A recorded greeting is known beforehand.
        let known = || {
            let mut known = Snapshot::default();
            known.history.clone_from(&plan.spec.history);
            known
        };
        loop {
            if let Err(GivenUp) = self.open_more(&mut openings, plan, &plan.spec, known) {
                return Ok(None);
            }
            let look = Instant::now() + OPENING_CHECK;
            let deadline = openings.deadline().map_or(look, |at| at.min(look));
            let opened = tokio::select! {
                biased;
                opened = openings.next() => opened,
                wake = self.next(None, Some(deadline)) => {
                    if let Wake::Leg(LegSignal::Audio { .. }) = wake? {
                        self.hear(|_| ());
                    }
                    continue;
                }
            };
            if let Some(ready) = self.settled(&mut openings, plan, opened) {
                return Ok(Some(ready));
            }
        }
    }

    /// No session was to be had: the flow goes on, or the call ends.
    pub(super) async fn without_assistant(&mut self, plan: &AssistantPlan) -> Talked {
        metrics::counter!("tandem_calls_without_assistant_total").increment(1);
        if !plan.last {
            return Ok(());
        }
        if self.is_answered() {
            self.play(&plan.prompts.apology, None).await?;
        }
        self.fail(StatusCode::SERVICE_UNAVAILABLE, "no assistant could be reached");
        Err(Over)
    }
}

/// Gives up opening a session when nobody wants it any more.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// While a session is being opened the call looks up this often even if nothing happens.
const OPENING_CHECK: Duration = Duration::from_secs(1);
