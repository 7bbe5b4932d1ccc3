//! How the last attempts to open a session went.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ProviderError;

/// The record of one provider. Touched once per call, on the ordinary runtime.
#[derive(Debug, Default)]
pub struct Health(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    /// Attempts that failed since the last one that did not.
    failed: u32,
    /// The last of them.
    last: Option<(Instant, ProviderError)>,
}

impl Health {
    /// Notes how an attempt ended. One that failed for what was asked says nothing of the provider.
    pub fn note(&self, now: Instant, outcome: Result<(), &ProviderError>) {
        let mut record = self.record();
        match outcome {
            Ok(()) => *record = Record::default(),
            Err(ProviderError::Misconfigured { .. }) => {}
            Err(error) => {
                record.failed = record.failed.saturating_add(1);
                record.last = Some((now, error.clone()));
            }
        }
    }

    /// Why calls would hardly reach this provider: its last attempts failed, and not long ago. Nothing is
    /// known for long: without attempts the record would stay bad for ever.
    pub fn complaint(&self, now: Instant) -> Option<String> {
        let record = self.record();
        let (at, error) = record.last.as_ref()?;
        let ago = now.saturating_duration_since(*at);
        let recent = record.failed >= FAILURES && ago <= MEMORY;
        recent.then(|| {
            format!("{error} ({} attempts in a row failed, the last {} s ago)", record.failed, ago.as_secs())
        })
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many failures in a row are no accident.
const FAILURES: u32 = 3;
/// A failure counts for this long.
const MEMORY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_complained_of_after_three_failures_in_a_row_and_for_a_minute() {
        let (health, start) = (Health::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        for _ in 0..2 {
            health.note(start, Err(&refused()));
        }
        assert_eq!(health.complaint(start), None);
        health.note(at(10), Err(&refused()));
        let complaint = health.complaint(at(15));
        let expected = "provider openai refused the connection with HTTP 503 (3 attempts in a row failed, the last 5 s ago)";
        assert_eq!(complaint.as_deref(), Some(expected));
        assert_eq!(health.complaint(at(71)), None);
    }

    #[test]
    fn one_success_makes_up_for_all_failures() {
        let (health, now) = (Health::default(), Instant::now());
        for _ in 0..9 {
            health.note(now, Err(&refused()));
        }
        health.note(now, Ok(()));
        health.note(now, Err(&refused()));
        assert_eq!(health.complaint(now), None);
    }

    #[test]
    fn a_wrong_script_is_no_fault_of_the_provider() {
        let (health, now) = (Health::default(), Instant::now());
        let error = ProviderError::Misconfigured { provider: "scripted".into(), cause: "script `x`".into() };
        for _ in 0..9 {
            health.note(now, Err(&error));
        }
        assert_eq!(health.complaint(now), None);
    }

    fn refused() -> ProviderError {
        ProviderError::Refused { provider: "openai".into(), status: 503, retry_after: None }
    }
}
