//! Whether this machine kept time while a test listened to a call.
//!
//! What a verdict on sound or on milliseconds is worth depends on phone, server and service having run when their
//! time came. On a machine that is busy with something else they do not, and the product does what it should: it
//! fills with silence, drops, catches up. So a thread sees how late this machine wakes it. A verdict against a call
//! during which that was late is none, and the call is made again. Verdicts on what happened, and in which order,
//! need no clock and belong behind the call: a race that only a busy machine shows must not be hidden here.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

/// Makes a call and judges it by the clock; again, when it fails and this machine was late meanwhile. A call that
/// fails although the machine kept time fails at once, and one that never gets its time fails, too.
pub async fn in_real_time<T>(call: impl AsyncFn() -> T) -> T {
    watch();
    let (mut attempts, mut alone) = (1, None);
    loop {
        let began = Instant::now();
        let panic = match AssertUnwindSafe(call()).catch_unwind().await {
            Ok(done) => return done,
            Err(panic) => panic,
        };
        // Others that wait have their turn first.
        drop(alone.take());
        let late = lateness(began, Instant::now());
        if late.is_zero() || attempts == ATTEMPTS {
            eprintln!("failed in attempt {attempts}, during which this machine was {late:?} late");
            resume_unwind(panic);
        }
        eprintln!("no verdict: this machine was {late:?} late in attempt {attempts}; once more, alone");
        attempts += 1;
        alone = Some(ALONE.lock().await);
    }
}

/// Looks on from now on.
pub fn watch() {
    LazyLock::force(&CLOCK);
}

/// How late this machine was at most between these moments; nothing when it was as good as in time.
pub fn lateness(from: Instant, to: Instant) -> Duration {
    let delays = CLOCK.lock();
    let during = delays.iter().filter(|(at, late)| *at >= from && *at <= to + *late);
    during.map(|(_, late)| *late).max().unwrap_or_default()
}

/// The latest delays, each with the moment it ended.
struct Clock(Mutex<VecDeque<(Instant, Duration)>>);

static CLOCK: LazyLock<Clock> = LazyLock::new(|| {
    std::thread::spawn(|| {
        loop {
            let due = Instant::now() + TICK;
            #[expect(clippy::disallowed_methods, reason = "how late it wakes up is what is measured")]
            std::thread::sleep(TICK);
            let now = Instant::now();
            let late = now.saturating_duration_since(due);
            if late > TOLERANCE {
                let mut delays = CLOCK.lock();
                delays.push_back((now, late));
                if delays.len() > REMEMBERED {
                    delays.pop_front();
                }
            }
        }
    });
    Clock(Mutex::new(VecDeque::new()))
});

impl Clock {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Duration)>> {
        // Each change under the lock is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls that are made again do not disturb each other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const TICK: Duration = Duration::from_millis(5);
/// Half a slot. Whoever works more than this thread does waits longer than it.
const TOLERANCE: Duration = Duration::from_millis(10);
/// More than there are in a call's minute.
const REMEMBERED: usize = 6_000;
/// A machine on which so many calls one after the other get no verdict is none to listen on.
const ATTEMPTS: u32 = 6;
