//! A provider behind its circuit breaker: what all calls share.
//!
//! An opening goes on when its call has lost interest (it was hung up, or another provider was faster), until
//! it is answered or has failed: otherwise a service that answers nobody would never be found out. A session
//! that comes of it is closed.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::breaker::{Admission, Breaker, Outcome, PermitId, Policy, State};
use super::keys::KeyFault;
use super::lease::Keys;
use super::notice::{Notice, Witness};
use super::{
    Command, Event, OpenFuture, OpenedSession, Provider, ProviderError, Session, SessionFault, SessionSpec,
};

/// A provider that is tried only while that is of use.
pub struct Guarded {
    provider: Arc<dyn Provider>,
    guard: Arc<Guard>,
}

/// How a provider is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What its breaker lets through.
    pub state: State,
    /// Failures in a row.
    pub failed: u32,
    /// For how long nobody tries it; `None`: it is tried.
    pub retry_in: Option<Duration>,
    /// The last failure, and how long ago it was.
    pub last_failure: Option<(String, Duration)>,
    /// How often the breaker has opened.
    pub opened: u64,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Openings and sessions that failed.
    pub failures: u64,
}

struct Guard {
    name: String,
    policy: Policy,
    record: Mutex<Record>,
    /// Woken when more may try, or nobody.
    changed: Notify,
    witness: OnceLock<Arc<dyn Witness>>,
}

struct Record {
    breaker: Breaker,
    /// As last told.
    told: State,
    /// Late tries, as last noted.
    late: u64,
    last_failure: Option<(Instant, String)>,
    opened: u64,
    sessions: u64,
    failures: u64,
}

impl Guarded {
    /// This provider behind a breaker of these values.
    pub fn new(provider: Arc<dyn Provider>, policy: Policy) -> Self {
        let record = Record {
            breaker: Breaker::new(policy),
            told: State::Closed,
            late: 0,
            last_failure: None,
            opened: 0,
            sessions: 0,
            failures: 0,
        };
        let guard = Guard {
            name: provider.name().to_owned(),
            policy,
            record: Mutex::new(record),
            changed: Notify::new(),
            witness: OnceLock::new(),
        };
        guard.gauge(State::Closed);
        Self { provider, guard: Arc::new(guard) }
    }

    /// How the provider is now.
    pub fn status(&self) -> Status {
        let now = Instant::now();
        self.guard.change(now, |record| {
            let ago = |at: Instant| now.saturating_duration_since(at);
            Status {
                state: record.breaker.state(now),
                failed: record.breaker.failed(),
                retry_in: record.breaker.shut_for(now),
                last_failure: record.last_failure.clone().map(|(at, cause)| (cause, ago(at))),
                opened: record.opened,
                sessions: record.sessions,
                failures: record.failures,
            }
        })
    }

    /// Closes the breaker and ends the rest of every key.
    pub fn reset(&self) {
        self.guard.change(Instant::now(), |record| record.breaker.reset());
        if let Some(keys) = self.provider.keys() {
            keys.wake();
        }
    }

    /// Opens a session and closes it again, also while the breaker is open; then without effect on it. Answers
    /// how long the opening took.
    ///
    /// # Errors
    /// Why it did not open.
    pub async fn check(&self) -> Result<Duration, ProviderError> {
        let begun = Instant::now();
        let spec = SessionSpec::default();
        let opening = match self.guard.shut() {
            Some(_) => self.provider.open(spec),
            None => self.open(spec),
        };
        let opened = opening.await?;
        let took = begun.elapsed();
        close(opened).await;
        Ok(took)
    }

    /// Who is told what happens to it. The first stays.
    pub fn tell(&self, witness: &Arc<dyn Witness>) {
        let _already_told = self.guard.witness.set(Arc::clone(witness));
        // Metrics may not have been counted yet when this was made.
        self.guard.gauge(self.status().state);
        if let Some(keys) = self.provider.keys() {
            keys.tell(Arc::clone(witness));
        }
    }
}

impl Provider for Guarded {
    fn name(&self) -> &str {
        self.provider.name()
    }

    fn kind(&self) -> &'static str {
        self.provider.kind()
    }

    fn open(&self, spec: SessionSpec) -> OpenFuture {
        let (provider, guard) = (Arc::clone(&self.provider), Arc::clone(&self.guard));
        Box::pin(async move {
            let permit = guard.admit().await?;
            let name = guard.name.clone();
            let organization = spec.organization.clone();
            let (tell, told) = oneshot::channel();
            tokio::spawn(async move {
                let opened = provider.open(spec).await;
                let left_without =
                    provider.keys().is_none_or(|keys| keys.left_without(organization.as_deref()));
                permit.finish(&opened, left_without);
                if let Err(Ok(unwanted)) = tell.send(opened) {
                    close(unwanted).await;
                }
            });
            told.await.unwrap_or_else(|_| {
                let cause = "opening a session failed inside".to_owned();
                Err(ProviderError::Unreachable { provider: name, cause })
            })
        })
    }

    fn unusable(&self) -> Option<ProviderError> {
        let resting = || self.provider.keys().and_then(Keys::unusable);
        self.guard.shut().or_else(resting).or_else(|| self.provider.unusable())
    }

    fn report(&self, fault: &SessionFault) {
        self.provider.report(fault);
        let cause = match fault {
            SessionFault::Lost => "a session was lost in the middle of a call",
            SessionFault::Stalled => "a session fell silent in the middle of a call",
            SessionFault::Protocol => "a session broke the protocol in the middle of a call",
            // The session has said so of its key.
            SessionFault::QuotaExhausted | SessionFault::Expired => return,
        };
        let now = Instant::now();
        self.guard.change(now, |record| {
            record.note(&self.guard.name, now, cause.to_owned());
            record.breaker.broke(now);
        });
    }

    fn keys(&self) -> Option<&Keys> {
        self.provider.keys()
    }
}

impl Guard {
    /// Waits for the right to try.
    async fn admit(self: &Arc<Self>) -> Result<Permit, ProviderError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let now = Instant::now();
            match self.change(now, |record| record.breaker.admit(now)) {
                Admission::Go(id) => return Ok(Permit { guard: Arc::clone(self), id: Some(id) }),
                Admission::Wait(until) => {
                    let _until_then = tokio::time::timeout_at(until.into(), changed).await;
                }
                Admission::Stop(wait) => return Err(self.unavailable(wait)),
            }
        }
    }

    fn shut(&self) -> Option<ProviderError> {
        let now = Instant::now();
        let wait = self.change(now, |record| record.breaker.shut_for(now))?;
        Some(self.unavailable(wait))
    }

    fn unavailable(&self, wait: Duration) -> ProviderError {
        let cause = match &self.record().last_failure {
            Some((_, cause)) => format!("it has failed too often, last: {cause}"),
            None => "it has failed too often".to_owned(),
        };
        ProviderError::Unavailable { provider: self.name.clone(), cause, retry_in: Some(wait) }
    }

    /// Changes the record, tells what became of the breaker and wakes those who wait for that.
    fn change<T>(&self, now: Instant, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut record = self.record();
        let result = change(&mut record);
        let state = record.breaker.state(now);
        let late = record.breaker.late();
        if std::mem::replace(&mut record.late, late) != late {
            record.note(&self.name, now, format!("no answer within {:?}", self.policy.slow));
        }
        let room = record.breaker.room();
        let changed = std::mem::replace(&mut record.told, state) != state;
        let mut cause = None;
        if changed && state == State::Open {
            record.opened += 1;
            cause = record.last_failure.as_ref().map(|(_, cause)| cause.clone());
        }
        drop(record);
        if changed {
            self.changed.notify_waiters();
            self.changed_to(state, cause);
        } else {
            (0..room).for_each(|_| self.changed.notify_one());
        }
        result
    }

    fn changed_to(&self, state: State, cause: Option<String>) {
        self.gauge(state);
        let provider = self.name.clone();
        let notice = match state {
            State::Open => {
                metrics::counter!("tandem_provider_breaker_opened_total", "provider" => provider.clone())
                    .increment(1);
                let cause = cause.unwrap_or_else(|| "no answer in time".to_owned());
                Notice::BreakerOpened { provider, cause, cool_down: self.policy.cool_down }
            }
            State::HalfOpen => Notice::BreakerHalfOpen { provider },
            State::Closed => Notice::BreakerClosed { provider },
        };
        if let Some(witness) = self.witness.get() {
            witness.saw(notice);
        }
    }

    fn gauge(&self, state: State) {
        let value = match state {
            State::Closed => 0.0,
            State::HalfOpen => 1.0,
            State::Open => 2.0,
        };
        metrics::gauge!("tandem_provider_breaker_state", "provider" => self.name.clone()).set(value);
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn note(&mut self, provider: &str, now: Instant, cause: String) {
        self.failures += 1;
        self.last_failure = Some((now, cause));
        metrics::counter!("tandem_provider_failures_total", "provider" => provider.to_owned()).increment(1);
    }
}

/// The right to try once. Dropped without an outcome, the try counts neither way.
struct Permit {
    guard: Arc<Guard>,
    id: Option<PermitId>,
}

impl Permit {
    fn finish(mut self, opened: &Result<Box<dyn OpenedSession>, ProviderError>, left_without_key: bool) {
        let outcome =
            opened.as_ref().map_or_else(|error| judged(error, left_without_key), |_| Outcome::Succeeded);
        let Some(id) = self.id.take() else { return };
        let now = Instant::now();
        self.guard.change(now, |record| {
            let counted = record.breaker.finish(now, id, outcome);
            match opened {
                Ok(_) => record.sessions += 1,
                Err(error) if counted && outcome == Outcome::Failed => {
                    record.note(&self.guard.name, now, error.to_string());
                }
                Err(_) => {}
            }
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let now = Instant::now();
            let _counts_neither_way =
                self.guard.change(now, |record| record.breaker.finish(now, id, Outcome::Abandoned));
        }
    }
}

/// Says goodbye on a session that nobody wants.
async fn close(opened: Box<dyn OpenedSession>) {
    // A session lives on one thread, which an ordinary task has not.
    let farewell = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut session = opened.settle()?;
            session.send(Command::Close);
            let closed = async { while !matches!(next(&mut *session).await, Event::Closed { .. }) {} };
            // A service that does not say goodbye is left without.
            let _impolite = tokio::time::timeout(FAREWELL, closed).await;
            // The last words leave with the next look at the socket.
            let _impolite = tokio::time::timeout(LAST_WORDS, next(&mut *session)).await;
            std::io::Result::Ok(())
        })
    });
    if let Ok(Err(error)) = farewell.await {
        tracing::debug!(%error, "a session was left without a goodbye");
    }
}

async fn next(session: &mut dyn Session) -> Event {
    std::future::poll_fn(|cx| session.poll_event(cx)).await
}

const FAREWELL: Duration = Duration::from_secs(1);
const LAST_WORDS: Duration = Duration::from_millis(50);

/// What a failed opening says of the service. A key's fault is the service's when it has no other key for us.
fn judged(error: &ProviderError, left_without_key: bool) -> Outcome {
    if KeyFault::of(error).is_some() {
        return if left_without_key { Outcome::Failed } else { Outcome::Blameless };
    }
    match error {
        ProviderError::Unreachable { .. } | ProviderError::Timeout { .. } => Outcome::Failed,
        // The request was not for it to answer; 408 is: it did not wait for our request.
        ProviderError::Refused { status: 400..=407 | 409..=499, .. } => Outcome::Blameless,
        ProviderError::Refused { .. } => Outcome::Failed,
        ProviderError::SessionRefused { code, .. } if services_own(code) => Outcome::Failed,
        ProviderError::SessionRefused { .. } => Outcome::Blameless,
        ProviderError::Unavailable { .. } | ProviderError::Misconfigured { .. } => Outcome::Abandoned,
    }
}

/// Whether an error code that ends an opening is the service's own trouble, not our request's.
fn services_own(code: &str) -> bool {
    const TROUBLE: [&str; 6] =
        ["server_error", "internal", "overloaded", "unavailable", "timeout", "not_a_realtime_service"];
    TROUBLE.iter().any(|word| code.contains(word))
}

#[cfg(test)]
#[path = "guarded_tests.rs"]
mod tests;
