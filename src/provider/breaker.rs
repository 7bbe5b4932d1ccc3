//! When to stop asking a service that fails, and when to ask again: a pure core.
//!
//! ```text
//!            failures in a row                    cool-down over
//!   CLOSED ---------------------> OPEN ---------------------------> HALF OPEN
//!      ^                            ^                                   |   |
//!      |                            +------- the probe has failed ------+   |
//!      +------------------- the probes have succeeded ---------------------+
//! ```
//!
//! A breaker hands out *permits*. Who holds one may try, and says how it went with [`Breaker::finish`]. A
//! permit that is not finished within [`Policy::slow`] has failed, whatever comes of it later: a service that
//! does not answer is found out without waiting for anybody's time limit.
//!
//! **A thousand calls at once.** Counting failures alone would let all of them through to a dead service
//! before the first one has failed. So while nothing proves that the service lives, no more than
//! [`Policy::failures`] tries are under way or have failed; who comes besides is told to wait. Each sign of
//! life admits as many again, so that a service that lives is held up for a few of its answers at most.
//!
//! **In the middle of a call** sessions may break together, because one machine of the service went away.
//! That is one failure, however many calls it meets: see [`TOGETHER`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The values of one breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Failures in a row that open it. At least 1.
    pub failures: u32,
    /// How long it stays open.
    pub cool_down: Duration,
    /// An answer that takes this long is a failure.
    pub slow: Duration,
    /// Tries in a row that must succeed, one after the other, before it closes. At least 1.
    pub probes: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { failures: 5, cool_down: Duration::from_secs(30), slow: Duration::from_secs(3), probes: 1 }
    }
}

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Everybody.
    Closed,
    /// One at a time, to see whether the service is back.
    HalfOpen,
    /// Nobody.
    Open,
}

impl State {
    /// A short name, for states and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// The number of a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PermitId(u64);

/// The answer to who wants to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Try, and finish this permit.
    Go(PermitId),
    /// So many others are trying that it is wiser to see how they fare: ask again when one has finished, at
    /// the latest at this time.
    Wait(Instant),
    /// Do not try. It will be of use to ask again after this long.
    Stop(Duration),
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The service did what it was asked for.
    Succeeded,
    /// It failed.
    Failed,
    /// It answered, and what went wrong is our own mistake or the key's: neither good nor bad.
    Blameless,
    /// Nothing is known, because nobody waited for the answer.
    Abandoned,
}

/// The breaker of one service.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: Policy,
    phase: Phase,
    next: u64,
    /// When a session last broke in mid-call and was counted.
    broke: Option<Instant>,
    late: u64,
}

#[derive(Debug, Clone)]
enum Phase {
    Closed {
        /// In a row.
        failed: u32,
        /// Tries under way, the oldest first.
        tries: VecDeque<Try>,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        /// Probes that have succeeded.
        passed: u32,
        probe: Option<Try>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Try {
    id: PermitId,
    since: Instant,
    /// The service has shown no sign of life since this began.
    unproven: bool,
}

/// Sessions that break within this time of the last one that was counted broke for the same reason.
pub const TOGETHER: Duration = Duration::from_secs(1);

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: Policy) -> Self {
        let policy = Policy { failures: policy.failures.max(1), probes: policy.probes.max(1), ..policy };
        Self { policy, phase: closed(), next: 0, broke: None, late: 0 }
    }

    /// What it lets through now.
    pub fn state(&mut self, now: Instant) -> State {
        self.advance(now);
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Failures in a row, while it is closed.
    pub fn failed(&self) -> u32 {
        match self.phase {
            Phase::Closed { failed, .. } => failed,
            _ => self.policy.failures,
        }
    }

    /// Tries so far that took too long.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// For how long nobody can try; `None`: somebody can.
    pub fn shut_for(&mut self, now: Instant) -> Option<Duration> {
        self.advance(now);
        match &self.phase {
            Phase::Closed { .. } | Phase::HalfOpen { probe: None, .. } => None,
            Phase::Open { until } => Some(until.saturating_duration_since(now)),
            Phase::HalfOpen { probe: Some(probe), .. } => {
                Some((probe.since + self.policy.slow).saturating_duration_since(now))
            }
        }
    }

    /// Somebody wants to try.
    pub fn admit(&mut self, now: Instant) -> Admission {
        if let Some(wait) = self.shut_for(now) {
            return Admission::Stop(wait);
        }
        let (room, slow) = (self.room(), self.policy.slow);
        let id = PermitId(self.next);
        let this = Try { id, since: now, unproven: true };
        match &mut self.phase {
            Phase::Closed { tries, .. } if room == 0 => {
                // Without room there is an unproven try: failures alone would have opened it.
                let oldest = tries.iter().find(|one| one.unproven).map_or(now, |one| one.since);
                return Admission::Wait(oldest + slow);
            }
            Phase::Closed { tries, .. } => tries.push_back(this),
            Phase::HalfOpen { probe, .. } => *probe = Some(this),
            Phase::Open { .. } => {}
        }
        self.next += 1;
        Admission::Go(id)
    }

    /// A try has ended. One that was counted as slow, or began before the breaker last opened, changes nothing
    /// any more: false.
    pub fn finish(&mut self, now: Instant, id: PermitId, outcome: Outcome) -> bool {
        self.advance(now);
        let mut failed_at = None;
        match &mut self.phase {
            Phase::Closed { failed, tries } => {
                let Some(index) = tries.iter().position(|one| one.id == id) else { return false };
                tries.remove(index);
                match outcome {
                    Outcome::Succeeded => {
                        *failed = 0;
                        tries.iter_mut().for_each(|one| one.unproven = false);
                    }
                    Outcome::Blameless => tries.iter_mut().for_each(|one| one.unproven = false),
                    Outcome::Failed => failed_at = Some(now),
                    Outcome::Abandoned => {}
                }
            }
            Phase::HalfOpen { passed, probe } => {
                if probe.is_none_or(|one| one.id != id) {
                    return false;
                }
                *probe = None;
                match outcome {
                    Outcome::Succeeded if *passed + 1 >= self.policy.probes => self.phase = closed(),
                    Outcome::Succeeded => *passed += 1,
                    Outcome::Failed => failed_at = Some(now),
                    Outcome::Blameless | Outcome::Abandoned => {}
                }
            }
            Phase::Open { .. } => return false,
        }
        if let Some(at) = failed_at {
            self.fail(at);
        }
        true
    }

    /// A session that was open has broken.
    pub fn broke(&mut self, now: Instant) {
        self.advance(now);
        let together = self.broke.is_some_and(|before| now < before + TOGETHER);
        if !together && matches!(self.phase, Phase::Closed { .. }) {
            self.broke = Some(now);
            self.fail(now);
        }
    }

    /// Somebody knows better: closed, and nothing held against the service.
    pub fn reset(&mut self) {
        (self.phase, self.broke) = (closed(), None);
    }

    /// How many more may try at once.
    pub fn room(&self) -> usize {
        match &self.phase {
            Phase::Closed { failed, tries } => {
                let unproven = tries.iter().filter(|one| one.unproven).count();
                (self.policy.failures.saturating_sub(*failed) as usize).saturating_sub(unproven)
            }
            Phase::HalfOpen { probe: None, .. } => 1,
            Phase::HalfOpen { .. } | Phase::Open { .. } => 0,
        }
    }

    /// What time alone has brought about, each at the moment it happened.
    fn advance(&mut self, now: Instant) {
        loop {
            match &mut self.phase {
                Phase::Closed { tries, .. } => match tries.front() {
                    Some(oldest) if oldest.since + self.policy.slow <= now => {
                        let at = oldest.since + self.policy.slow;
                        tries.pop_front();
                        self.late += 1;
                        self.fail(at);
                    }
                    _ => return,
                },
                Phase::Open { until } if *until <= now => {
                    self.phase = Phase::HalfOpen { passed: 0, probe: None };
                }
                Phase::HalfOpen { probe: Some(probe), .. } if probe.since + self.policy.slow <= now => {
                    let at = probe.since + self.policy.slow;
                    self.late += 1;
                    self.fail(at);
                }
                Phase::Open { .. } | Phase::HalfOpen { .. } => return,
            }
        }
    }

    fn fail(&mut self, at: Instant) {
        if let Phase::Closed { failed, .. } = &mut self.phase {
            *failed += 1;
            if *failed < self.policy.failures {
                return;
            }
        }
        self.phase = Phase::Open { until: at + self.policy.cool_down };
    }
}

fn closed() -> Phase {
    Phase::Closed { failed: 0, tries: VecDeque::new() }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
