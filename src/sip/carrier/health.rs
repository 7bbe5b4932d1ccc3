//! Which targets of a trunk answer: by OPTIONS, and by what becomes of calls.
//!
//! A target that fails a call is put last for a while (quarantine). With OPTIONS it also goes through up,
//! degraded and down, with hysteresis, so that one lost datagram changes no route.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::sip::message::Transport;
use crate::sip::trunk::HealthPolicy;

/// A target: how and where.
pub type Spot = (Transport, SocketAddr);

/// State of a trunk or of one of its targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrunkState {
    /// Nothing was heard of it yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It fails now and then, or some of its parts fail.
    Degraded,
    /// It does not answer.
    Down,
}

impl TrunkState {
    /// As the gauge `tandem_trunk_state` shows it.
    pub const fn level(self) -> u8 {
        self as u8
    }

    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }

    /// The state of a whole whose parts have these states; parts of which nothing is known do not count.
    pub fn of_all(parts: impl Iterator<Item = Self> + Clone) -> Self {
        let known = parts.filter(|state| *state != Self::Unknown);
        let (mut all_up, mut all_down, mut any) = (true, true, false);
        for state in known {
            any = true;
            all_up &= state == Self::Up;
            all_down &= state == Self::Down;
        }
        match (any, all_up, all_down) {
            (false, _, _) => Self::Unknown,
            (true, true, _) => Self::Up,
            (true, _, true) => Self::Down,
            (true, false, false) => Self::Degraded,
        }
    }
}

/// What became of an INVITE at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetOutcome {
    /// The call was answered.
    Answered,
    /// The target refused with a status that says nothing against it.
    Refused(u16),
    /// No answer in time.
    Timeout,
    /// The message could not be delivered.
    TransportFailed,
    /// 503, or what the trunk fails over on.
    Overloaded {
        /// For how long, if it said so.
        retry_after: Option<Duration>,
    },
}

impl TargetOutcome {
    /// As a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused(_) => "refused",
            Self::Timeout => "timeout",
            Self::TransportFailed => "transport_failed",
            Self::Overloaded { .. } => "overloaded",
        }
    }
}

/// The targets of one trunk.
#[derive(Debug)]
pub struct Health {
    policy: HealthPolicy,
    watched: Vec<Watched>,
}

/// One target.
#[derive(Debug, Clone)]
pub struct Watched {
    /// How and where.
    pub spot: Spot,
    state: TrunkState,
    failures: u8,
    answers: u8,
    quarantined: Option<Instant>,
    ping_at: Instant,
    pinging: bool,
    /// Of the last OPTIONS that was answered.
    pub round_trip: Option<Duration>,
    /// Why it failed the last time; `None` since it answered.
    pub reason: Option<String>,
}

impl Watched {
    fn new(spot: Spot, now: Instant) -> Self {
        Self {
            spot,
            state: TrunkState::Unknown,
            failures: 0,
            answers: 0,
            quarantined: None,
            ping_at: now,
            pinging: false,
            round_trip: None,
            reason: None,
        }
    }

    /// Until when it is tried last.
    pub fn quarantined(&self, now: Instant) -> Option<Instant> {
        self.quarantined.filter(|until| *until > now)
    }

    fn is_alive(&mut self, policy: &HealthPolicy) {
        self.failures = 0;
        self.answers = self.answers.saturating_add(1);
        if self.state != TrunkState::Down || self.answers >= policy.up_after {
            self.state = TrunkState::Up;
            self.reason = None;
        }
    }

    fn called(&mut self, now: Instant, outcome: TargetOutcome, usual: Duration, policy: &HealthPolicy) {
        match outcome {
            TargetOutcome::Answered => {
                self.quarantined = None;
                self.is_alive(policy);
            }
            TargetOutcome::Refused(_) => self.is_alive(policy),
            TargetOutcome::Timeout => {
                self.quarantined = Some(now + usual);
                self.failed(policy, "INVITE: no answer".to_owned());
            }
            TargetOutcome::TransportFailed => {
                self.quarantined = Some(now + usual);
                self.failed(policy, "INVITE: could not be delivered".to_owned());
            }
            TargetOutcome::Overloaded { retry_after } => {
                self.quarantined = Some(now + retry_after.map_or(usual, |wait| wait.min(RETRY_AFTER_MAX)));
                self.reason = Some("INVITE: overloaded".to_owned());
            }
        }
    }

    fn failed(&mut self, policy: &HealthPolicy, reason: String) {
        self.answers = 0;
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(reason);
        if self.failures >= policy.down_after {
            self.state = TrunkState::Down;
        } else if self.failures >= policy.degraded_after && self.state != TrunkState::Down {
            self.state = TrunkState::Degraded;
        }
    }
}

impl Health {
    /// Nothing watched yet.
    pub fn new(policy: HealthPolicy) -> Self {
        Self { policy, watched: Vec::new() }
    }

    /// These are the targets now. What is known of those that stay is kept; new ones are asked at once. Tells
    /// whether there is a new one.
    pub fn know(&mut self, now: Instant, spots: &[Spot]) -> bool {
        let mut news = false;
        let mut watched = Vec::with_capacity(spots.len());
        for spot in spots {
            let known = self.watched.iter().position(|one| one.spot == *spot);
            watched.push(match known {
                Some(index) => self.watched.swap_remove(index),
                None => {
                    news = true;
                    Watched::new(*spot, now)
                }
            });
        }
        self.watched = watched;
        news
    }

    /// Targets that are to be asked by OPTIONS now.
    pub fn due(&mut self, now: Instant, rng: &mut StdRng) -> Vec<Spot> {
        if !self.policy.options {
            return Vec::new();
        }
        let interval = self.policy.interval;
        let mut due = Vec::new();
        for one in self.watched.iter_mut().filter(|one| !one.pinging && one.ping_at <= now) {
            one.pinging = true;
            // Targets of many trunks are not asked in step.
            one.ping_at = now + interval.mul_f32(rng.random_range(0.9..=1.1));
            due.push(one.spot);
        }
        due
    }

    /// When [`Self::due`] will have something.
    pub fn next_timeout(&self) -> Option<Instant> {
        let waiting = self.watched.iter().filter(|one| self.policy.options && !one.pinging);
        waiting.map(|one| one.ping_at).min()
    }

    /// A target answered OPTIONS: any final status of its own means that it lives. A 503 puts it last.
    pub fn pinged(&mut self, now: Instant, spot: Spot, status: u16, round_trip: Duration) {
        let policy = self.policy.clone();
        let Some(one) = self.find(spot) else { return };
        one.pinging = false;
        one.round_trip = Some(round_trip);
        one.is_alive(&policy);
        if status == 503 {
            one.quarantined = Some(now + policy.quarantine);
            one.reason = Some("OPTIONS got 503".to_owned());
        }
    }

    /// A target did not answer OPTIONS.
    pub fn silent(&mut self, spot: Spot, reason: &str) {
        let policy = self.policy.clone();
        let Some(one) = self.find(spot) else { return };
        one.pinging = false;
        one.round_trip = None;
        one.failed(&policy, format!("OPTIONS: {reason}"));
    }

    /// What became of a call.
    pub fn called(&mut self, now: Instant, remote: SocketAddr, outcome: TargetOutcome, rng: &mut StdRng) {
        let usual = self.policy.quarantine.mul_f32(rng.random_range(0.8..=1.2));
        for one in self.watched.iter_mut().filter(|one| one.spot.1 == remote) {
            one.called(now, outcome, usual, &self.policy);
        }
    }

    /// How late a target is tried: 0 in its turn, 1 after the others, 2 last.
    pub fn rank(&self, now: Instant, spot: Spot) -> u8 {
        let Some(one) = self.watched.iter().find(|one| one.spot == spot) else { return 0 };
        match (self.state_of(now, one), one.quarantined(now)) {
            (TrunkState::Down, _) => 2,
            (_, Some(_)) => 1,
            (TrunkState::Unknown | TrunkState::Up | TrunkState::Degraded, None) => 0,
        }
    }

    /// The targets.
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// The state of one target. Without OPTIONS only calls tell, so what they told is forgotten with the
    /// quarantine: else a target would stay down for ever because nobody calls it.
    pub fn state_of(&self, now: Instant, one: &Watched) -> TrunkState {
        let quarantined = one.quarantined(now).is_some();
        match one.state {
            TrunkState::Degraded | TrunkState::Down if !self.policy.options && !quarantined => {
                TrunkState::Unknown
            }
            TrunkState::Up | TrunkState::Unknown if quarantined => TrunkState::Degraded,
            state => state,
        }
    }

    /// The state of all targets together.
    pub fn state(&self, now: Instant) -> TrunkState {
        TrunkState::of_all(self.watched.iter().map(|one| self.state_of(now, one)))
    }

    fn find(&mut self, spot: Spot) -> Option<&mut Watched> {
        self.watched.iter_mut().find(|one| one.spot == spot)
    }
}

/// A longer Retry-After is cut to this, so that a mistake of the peer heals the same day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn spot(last: u8) -> Spot {
        (Transport::Udp, SocketAddr::from(([192, 0, 2, last], 5060)))
    }

    fn health(options: bool) -> (Health, Instant, StdRng) {
        let now = Instant::now();
        let mut health = Health::new(HealthPolicy { options, ..HealthPolicy::default() });
        health.know(now, &[spot(1), spot(2)]);
        (health, now, StdRng::seed_from_u64(1))
    }

    const FAST: Duration = Duration::from_millis(5);

    #[test]
    fn a_target_goes_down_after_three_silences_and_up_after_two_answers() {
        let (mut health, now, _) = health(true);
        let mut seen = Vec::new();
        for answered in [true, false, true, false, false, false, true, true] {
            match answered {
                true => health.pinged(now, spot(1), 200, FAST),
                false => health.silent(spot(1), "no answer"),
            }
            seen.push(health.state(now));
        }
        use TrunkState::{Degraded, Down, Up};
        assert_eq!(seen, [Up, Degraded, Up, Degraded, Degraded, Down, Down, Up]);
    }

    #[test]
    fn a_trunk_with_one_dead_target_is_degraded() {
        let (mut health, now, _) = health(true);
        health.pinged(now, spot(1), 404, FAST);
        (0..3).for_each(|_| health.silent(spot(2), "refused"));
        assert_eq!(health.state(now), TrunkState::Degraded);
        assert_eq!((health.rank(now, spot(1)), health.rank(now, spot(2))), (0, 2));
        (0..3).for_each(|_| health.silent(spot(1), "refused"));
        assert_eq!(health.state(now), TrunkState::Down);
    }

    #[test]
    fn each_target_is_asked_once_an_interval() {
        let (mut health, now, mut rng) = health(true);
        assert_eq!(health.due(now, &mut rng).len(), 2);
        assert_eq!((health.due(now, &mut rng).len(), health.next_timeout()), (0, None));
        health.pinged(now, spot(1), 200, FAST);
        let next = health.next_timeout().expect("the answered one is asked again") - now;
        assert!((27..=33).contains(&next.as_secs()), "{next:?}");
        assert_eq!(health.due(now + Duration::from_secs(34), &mut rng), [spot(1)]);
    }

    #[test]
    fn a_failed_call_puts_the_target_last_for_a_while() {
        let (mut health, now, mut rng) = health(false);
        health.called(now, spot(1).1, TargetOutcome::Timeout, &mut rng);
        assert_eq!((health.rank(now, spot(1)), health.state(now)), (1, TrunkState::Degraded));
        let later = now + Duration::from_secs(73);
        assert_eq!((health.rank(later, spot(1)), health.state(later)), (0, TrunkState::Unknown));
        health.called(later, spot(1).1, TargetOutcome::Answered, &mut rng);
        assert_eq!(health.state(later), TrunkState::Up);
    }

    #[test]
    fn retry_after_of_a_503_is_kept_to() {
        let (mut health, now, mut rng) = health(true);
        let outcome = TargetOutcome::Overloaded { retry_after: Some(Duration::from_secs(7)) };
        health.called(now, spot(1).1, outcome, &mut rng);
        assert_eq!(health.rank(now + Duration::from_secs(6), spot(1)), 1);
        assert_eq!(health.rank(now + Duration::from_secs(8), spot(1)), 0);
        let outcome = TargetOutcome::Overloaded { retry_after: Some(Duration::from_secs(1 << 40)) };
        health.called(now, spot(1).1, outcome, &mut rng);
        assert_eq!(health.rank(now + RETRY_AFTER_MAX, spot(1)), 0);
    }

    #[test]
    fn what_is_known_stays_when_dns_changes_its_mind() {
        let (mut health, now, _) = health(true);
        health.pinged(now, spot(1), 200, FAST);
        health.know(now, &[spot(3), spot(1)]);
        let states: Vec<_> = health.watched().iter().map(|one| (one.spot, one.state)).collect();
        assert_eq!(states, [(spot(3), TrunkState::Unknown), (spot(1), TrunkState::Up)]);
    }
}
