//! What is told about trunks: their state, targets, registrations, and the outcome of a test.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::health::{Health, TrunkState};
use super::registration::Registration;
use crate::time::UnixMs;

/// A trunk as `tandem trunk list` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrunkStatus {
    /// Its name.
    pub name: String,
    /// Its profile.
    pub profile: String,
    /// Whether it can be used.
    pub state: TrunkState,
    /// Since when.
    pub since: UnixMs,
    /// Why it is not up, or what its names lead to.
    pub reason: Option<String>,
    /// Its registrations.
    pub registered: Vec<RegistrationStatus>,
    /// Where its calls go, in the order of configuration and DNS.
    pub targets: Vec<TargetStatus>,
    /// Calls in both directions.
    pub calls: usize,
    /// Most calls in both directions; 0: no limit.
    pub channels: usize,
    /// Most new outgoing calls a second; 0: no limit.
    pub cps: f32,
    /// Encryption of media: `off`, `optional`, `required`, `opportunistic`.
    pub srtp: &'static str,
}

/// One registration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegistrationStatus {
    /// With whom.
    pub registrar: String,
    /// As whom.
    pub user: String,
    /// Whether the registrar knows us.
    pub registered: bool,
    /// Until when.
    pub until: Option<UnixMs>,
    /// Why the last REGISTER failed.
    pub reason: Option<String>,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TargetStatus {
    /// `udp`, `tcp`, `tls`.
    pub transport: String,
    /// Address and port.
    pub address: String,
    /// Whether it answers.
    pub state: TrunkState,
    /// Until when it is tried last.
    pub quarantined_until: Option<UnixMs>,
    /// Of the last OPTIONS, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Why it failed the last time.
    pub reason: Option<String>,
}

/// The outcome of `tandem trunk test`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrunkTest {
    /// The trunk.
    pub trunk: String,
    /// Whether every step succeeded.
    pub ok: bool,
    /// The steps, in order.
    pub steps: Vec<TestStep>,
}

/// One step of a test.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TestStep {
    /// `dns`, `tls`, `options`, `register`.
    pub step: &'static str,
    /// Of what.
    pub target: String,
    /// Whether it succeeded.
    pub ok: bool,
    /// What was found, or what is wrong.
    pub detail: String,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
}

impl TrunkTest {
    /// The outcome of these steps; no step at all is no success.
    pub fn of(trunk: &str, steps: Vec<TestStep>) -> Self {
        let ok = !steps.is_empty() && steps.iter().all(|step| step.ok);
        Self { trunk: trunk.to_owned(), ok, steps }
    }
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the clock of deadlines.
    pub now: Instant,
    /// By the clock on the wall.
    pub wall: UnixMs,
}

impl Moment {
    /// What the wall clock shows at a deadline ahead.
    pub fn wall_at(&self, at: Instant) -> UnixMs {
        let ahead = at.saturating_duration_since(self.now).as_millis();
        UnixMs::new(self.wall.get() + i64::try_from(ahead).unwrap_or(i64::MAX / 2))
    }
}

/// The state of a trunk: of its targets, and of its registrations. A failed registration makes it degraded, and
/// down when there is no other sign of life.
/// A trunk whose names lead nowhere is down as well.
pub fn trunk_state(
    now: Instant,
    health: &Health,
    registrations: &[Registration],
    leads_nowhere: bool,
) -> TrunkState {
    let targets = match health.state(now) {
        TrunkState::Unknown if leads_nowhere => TrunkState::Down,
        state => state,
    };
    let registered = registrations.iter().filter_map(|one| match (one.is_registered(now), one.reason()) {
        (true, _) => Some(TrunkState::Up),
        (false, Some(_)) => Some(TrunkState::Down),
        (false, None) => None,
    });
    TrunkState::of_all(registered.chain([targets]))
}

/// The registrations as they are told.
pub fn registrations(at: Moment, registrations: &[Registration]) -> Vec<RegistrationStatus> {
    let told = |one: &Registration| RegistrationStatus {
        registrar: one.spec().registrar.to_string(),
        user: one.spec().aor_user.clone(),
        registered: one.is_registered(at.now),
        until: one.holds_until().filter(|until| *until > at.now).map(|until| at.wall_at(until)),
        reason: one.reason().map(str::to_owned),
    };
    registrations.iter().map(told).collect()
}

/// The targets as they are told.
pub fn targets(at: Moment, health: &Health) -> Vec<TargetStatus> {
    let told = |one: &super::health::Watched| TargetStatus {
        transport: one.spot.0.uri_token().to_owned(),
        address: one.spot.1.to_string(),
        state: health.state_of(at.now, one),
        quarantined_until: one.quarantined(at.now).map(|until| at.wall_at(until)),
        round_trip_ms: one.round_trip.map(millis),
        reason: one.reason.clone(),
    };
    health.watched().iter().map(told).collect()
}

/// In milliseconds, to the microsecond.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
