//! The guard with providers that fail in one way or another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt as _;

use super::super::{CloseReason, SessionStats};
use super::*;

/// A provider that counts how often it was tried.
struct Fake {
    tried: Arc<AtomicUsize>,
    behaviour: Behaviour,
    keys: Keys,
}

#[derive(Clone, Copy)]
enum Behaviour {
    Refuses(u16),
    NeverAnswers,
    Answers,
    /// After others had their turn.
    AnswersLater,
}

impl Provider for Fake {
    fn name(&self) -> &str {
        "fake"
    }

    fn open(&self, spec: SessionSpec) -> OpenFuture {
        let (tried, behaviour, keys) = (Arc::clone(&self.tried), self.behaviour, self.keys.clone());
        Box::pin(async move {
            keys.open(spec.organization, |_lease| {
                tried.fetch_add(1, Ordering::Relaxed);
                async move {
                    match behaviour {
                        Behaviour::Refuses(status) => {
                            Err(ProviderError::Refused { provider: "fake".into(), status, retry_after: None })
                        }
                        Behaviour::NeverAnswers => std::future::pending().await,
                        Behaviour::Answers => Ok(Box::new(Idle::default()) as Box<dyn OpenedSession>),
                        Behaviour::AnswersLater => {
                            for _ in 0..10 {
                                tokio::task::yield_now().await;
                            }
                            Ok(Box::new(Idle::default()) as _)
                        }
                    }
                }
            })
            .await
        })
    }

    fn keys(&self) -> Option<&Keys> {
        Some(&self.keys)
    }
}

/// Says goodbye when it is told to.
#[derive(Default)]
struct Idle(bool);

impl OpenedSession for Idle {
    fn settle(self: Box<Self>) -> std::io::Result<Box<dyn Session>> {
        Ok(self)
    }
}

impl Session for Idle {
    fn send_audio(&mut self, _pcm: &[i16]) {}
    fn send(&mut self, command: Command) {
        self.0 = command == Command::Close;
    }
    fn poll_event(&mut self, _cx: &mut Context<'_>) -> Poll<Event> {
        match std::mem::take(&mut self.0) {
            true => Poll::Ready(Event::Closed { reason: CloseReason::Requested }),
            false => Poll::Pending,
        }
    }
    fn stats(&self) -> SessionStats {
        SessionStats::default()
    }
}

#[derive(Default)]
struct Noticed(Mutex<Vec<Notice>>);

impl Witness for Noticed {
    fn saw(&self, notice: Notice) {
        self.0.lock().unwrap().push(notice);
    }
}

fn guarded(behaviour: Behaviour, keys: &[&str]) -> (Arc<Guarded>, Arc<AtomicUsize>) {
    with(Policy::default(), behaviour, keys)
}

fn with(policy: Policy, behaviour: Behaviour, keys: &[&str]) -> (Arc<Guarded>, Arc<AtomicUsize>) {
    let tried = Arc::new(AtomicUsize::new(0));
    let keys = Keys::new("fake", keys.iter().map(|key| (*key).into()));
    let fake = Fake { tried: Arc::clone(&tried), behaviour, keys };
    (Arc::new(Guarded::new(Arc::new(fake), policy)), tried)
}

/// This many calls at once, and what each came to.
async fn calls(guarded: &Arc<Guarded>, count: usize) -> Vec<Result<(), ProviderError>> {
    let calls: Vec<_> = (0..count)
        .map(|_| {
            let guarded = Arc::clone(guarded);
            tokio::spawn(async move { guarded.open(SessionSpec::default()).await.map(drop) })
        })
        .collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    outcomes
}

#[tokio::test]
async fn a_thousand_calls_to_a_service_that_refuses_are_a_handful_of_attempts() {
    let (guarded, tried) = guarded(Behaviour::Refuses(503), &[]);
    let outcomes = calls(&guarded, 1000).await;
    assert_eq!(tried.load(Ordering::Relaxed), 5);
    let untried = outcomes.iter().filter(|o| matches!(o, Err(ProviderError::Unavailable { .. }))).count();
    assert_eq!(untried, 995);
    assert_eq!(guarded.status().state, State::Open);
}

#[tokio::test]
async fn a_thousand_calls_to_a_service_that_never_answers_know_it_after_slow() {
    let policy = Policy { slow: Duration::from_millis(50), ..Policy::default() };
    let (guarded, tried) = with(policy, Behaviour::NeverAnswers, &[]);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let guarded = Arc::clone(&guarded);
        calls.spawn(async move { guarded.open(SessionSpec::default()).await.map(drop) });
    }
    for _ in 0..995 {
        let outcome = calls.join_next().await.unwrap().unwrap();
        assert!(matches!(outcome, Err(ProviderError::Unavailable { .. })), "{outcome:?}");
    }
    assert_eq!(tried.load(Ordering::Relaxed), 5);
    let (cause, _) = guarded.status().last_failure.unwrap();
    assert_eq!(cause, "no answer within 50ms");
}

#[tokio::test]
async fn a_thousand_calls_to_a_service_that_lives_are_all_let_through() {
    let (guarded, tried) = guarded(Behaviour::AnswersLater, &[]);
    assert!(calls(&guarded, 1000).await.iter().all(Result::is_ok));
    assert_eq!(tried.load(Ordering::Relaxed), 1000);
    assert_eq!((guarded.status().failed, guarded.status().sessions), (0, 1000));
}

#[tokio::test]
async fn a_hedge_that_wins_hides_no_dead_service() {
    let policy = Policy { slow: Duration::from_millis(20), ..Policy::default() };
    let (guarded, tried) = with(policy, Behaviour::NeverAnswers, &[]);
    for _ in 0..5 {
        // Given up as soon as it has begun.
        assert!(guarded.open(SessionSpec::default()).now_or_never().is_none());
    }
    let sixth = guarded.open(SessionSpec::default()).await.err();
    assert!(matches!(sixth, Some(ProviderError::Unavailable { .. })), "{sixth:?}");
    assert_eq!(tried.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn a_try_that_ends_with_its_runtime_counts_neither_way() {
    let (guarded, _) = with(Policy { failures: 1, ..Policy::default() }, Behaviour::NeverAnswers, &[]);
    let other = Arc::clone(&guarded);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { assert!(other.open(SessionSpec::default()).now_or_never().is_none()) });
    })
    .join()
    .unwrap();
    assert_eq!((guarded.status().state, guarded.status().failed), (State::Closed, 0));
}

#[tokio::test]
async fn keys_are_blamed_before_the_service_is() {
    let noticed = Arc::new(Noticed::default());
    let (guarded, tried) = guarded(Behaviour::Refuses(401), &["a", "b"]);
    let witness: Arc<dyn Witness> = noticed.clone();
    guarded.tell(&witness);
    for _ in 0..20 {
        assert!(guarded.open(SessionSpec::default()).await.is_err());
    }
    assert_eq!(tried.load(Ordering::Relaxed), 2, "each key once");
    let status = guarded.status();
    assert_eq!((status.state, status.failed), (State::Closed, 1));
    let why = guarded.unusable().unwrap().to_string();
    assert_eq!(why, "provider fake is not tried: the service has rejected all its keys");
    assert_eq!(noticed.0.lock().unwrap().len(), 2);
    guarded.reset();
    assert!(guarded.unusable().is_none());
}

#[tokio::test]
async fn our_own_mistakes_and_those_of_an_organizations_keys_are_not_held_against_the_service() {
    for status in [400, 404, 422] {
        let (guarded, tried) = guarded(Behaviour::Refuses(status), &["a"]);
        for _ in 0..20 {
            assert!(guarded.open(SessionSpec::default()).await.is_err());
        }
        assert_eq!((tried.load(Ordering::Relaxed), guarded.status().failed), (20, 0));
    }
    let (guarded, _) = guarded(Behaviour::Refuses(401), &["a"]);
    guarded.keys().unwrap().set_stored(Some("acme"), ["x".into()]);
    for _ in 0..20 {
        let spec = SessionSpec { organization: Some("acme".into()), ..SessionSpec::default() };
        assert!(guarded.open(spec).await.is_err());
    }
    assert_eq!(guarded.status().failed, 0);
    assert!(guarded.unusable().is_none());
}

#[tokio::test]
async fn what_happens_to_the_breaker_is_told() {
    let noticed = Arc::new(Noticed::default());
    let (guarded, _) = guarded(Behaviour::Refuses(500), &[]);
    let witness: Arc<dyn Witness> = noticed.clone();
    guarded.tell(&witness);
    for _ in 0..7 {
        assert!(guarded.open(SessionSpec::default()).await.is_err());
    }
    guarded.reset();
    let expected = [
        Notice::BreakerOpened {
            provider: "fake".into(),
            cause: "provider fake refused the connection with HTTP 500".into(),
            cool_down: Duration::from_secs(30),
        },
        Notice::BreakerClosed { provider: "fake".into() },
    ];
    assert_eq!(*noticed.0.lock().unwrap(), expected);
    assert_eq!((guarded.status().opened, guarded.status().failures), (1, 5));
}

#[tokio::test]
async fn sessions_that_are_lost_in_mid_call_count() {
    let (guarded, _) = guarded(Behaviour::Answers, &[]);
    assert!(guarded.open(SessionSpec::default()).await.is_ok());
    guarded.report(&SessionFault::Expired);
    guarded.report(&SessionFault::QuotaExhausted);
    assert_eq!((guarded.status().failed, guarded.status().failures), (0, 0));
    guarded.report(&SessionFault::Lost);
    assert_eq!((guarded.status().failed, guarded.status().sessions), (1, 1));
    assert!(guarded.open(SessionSpec::default()).await.is_ok());
    assert_eq!(guarded.status().failed, 0);
}

#[test]
fn errors_are_judged_by_whose_they_are() {
    let refused = |status| ProviderError::Refused { provider: "p".into(), status, retry_after: None };
    let session = |code: &str| ProviderError::SessionRefused { provider: "p".into(), code: code.into() };
    for (error, outcome) in [
        (refused(301), Outcome::Failed),
        (refused(400), Outcome::Blameless),
        (refused(404), Outcome::Blameless),
        (refused(408), Outcome::Failed),
        (refused(500), Outcome::Failed),
        (session("invalid_value"), Outcome::Blameless),
        (session("server_error"), Outcome::Failed),
        (session("not_a_realtime_service"), Outcome::Failed),
    ] {
        assert_eq!(judged(&error, false), outcome, "{error}");
    }
    assert_eq!(judged(&refused(429), false), Outcome::Blameless);
    assert_eq!(judged(&refused(429), true), Outcome::Failed);
    assert_eq!(judged(&session("invalid_api_key"), true), Outcome::Failed);
}

#[tokio::test]
async fn a_check_opens_and_closes_a_session_even_while_the_breaker_is_open() {
    let (lives, _) = guarded(Behaviour::Answers, &[]);
    assert!(lives.check().await.is_ok());
    assert_eq!(lives.status().sessions, 1);
    let (dead, tried) = guarded(Behaviour::Refuses(503), &[]);
    calls(&dead, 5).await;
    assert!(dead.check().await.is_err());
    assert_eq!((tried.load(Ordering::Relaxed), dead.status().failures), (6, 5));
}
