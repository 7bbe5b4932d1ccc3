//! `tandem trunk test`: every name, every target, every registration, one step each.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::health::Spot;
use super::status::{TestStep, TrunkTest, millis};
use super::watch::{now, ping};
use super::{Line, Shared};
use crate::sip::dns::Candidate;

/// Runs the steps: names first, then targets all at once, then registrations.
pub(super) async fn run(line: &Arc<Line>, shared: &Shared) -> TrunkTest {
    let mut steps = Vec::new();
    let mut spots: Vec<Spot> = Vec::new();
    let mut places: Vec<Candidate> = Vec::new();
    for peer in line.peers() {
        let started = Instant::now();
        let answer = shared.resolver.resolve(&peer, &shared.ours).await;
        let (ok, detail) = match &answer {
            Ok(found) => {
                let listed = found.iter().map(|one| format!("{} {}", one.transport, one.address));
                (true, listed.collect::<Vec<_>>().join(", "))
            }
            Err(error) => (false, error.to_string()),
        };
        steps.push(step("dns", peer.to_string(), ok, detail, started));
        let found = answer.unwrap_or_default();
        places.extend(found.iter().cloned());
        spots.extend(found.iter().map(super::spot).filter(|spot| !spots.contains(spot)).collect::<Vec<_>>());
    }
    line.board().found.clone_from(&places);
    let secure = places.iter().filter(|one| one.transport.is_secure());
    steps.extend(futures_util::future::join_all(secure.map(|one| handshake(shared, one))).await);
    let pings = spots.into_iter().map(|spot| options(line, shared, spot));
    steps.extend(futures_util::future::join_all(pings).await);
    steps.extend(registrations(line).await);
    TrunkTest::of(&line.trunk.name, steps)
}

async fn handshake(shared: &Shared, place: &Candidate) -> TestStep {
    let started = Instant::now();
    let tried = match shared.target(place) {
        Ok(target) => shared.endpoint.handshake(&target).await,
        Err(reason) => Err(reason),
    };
    let ok = tried.is_ok();
    let name = format!("{} at {}", place.name, place.address);
    step("tls", name, ok, tried.unwrap_or_else(|reason| reason), started)
}

async fn options(line: &Line, shared: &Shared, spot: Spot) -> TestStep {
    let started = Instant::now();
    let (ok, detail) = match ping(line, shared, spot).await {
        Ok((status, _)) => (true, format!("answered {status}")),
        Err(reason) => (false, reason),
    };
    step("options", format!("{} {}", spot.0, spot.1), ok, detail, started)
}

/// Registers anew and waits for what comes of it.
async fn registrations(line: &Line) -> Vec<TestStep> {
    let started = Instant::now();
    let mut changes = line.changed.subscribe();
    line.board().registrations.iter_mut().for_each(|one| one.hurry(now()));
    line.nudge.notify_one();
    let settled = async {
        while !line.board().registrations.iter().all(|one| one.is_settled(now())) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    // What is not settled by then is told as it is.
    let _late = timeout(REGISTER_LIMIT, settled).await;
    let board = line.board();
    let told = board.registrations.iter().map(|one| {
        let spec = one.spec();
        let late = !one.is_settled(now());
        let (ok, detail) = match (late, one.reason()) {
            (true, _) => (false, "no answer yet".to_owned()),
            (false, Some(reason)) => (false, reason.to_owned()),
            (false, None) => (true, "registered".to_owned()),
        };
        step("register", format!("{}@{}", spec.aor_user, spec.registrar), ok, detail, started)
    });
    told.collect()
}

fn step(step: &'static str, target: String, ok: bool, detail: String, started: Instant) -> TestStep {
    TestStep { step, target, ok, detail, took_ms: millis(started.elapsed()) }
}

/// Longest time registrations are waited for.
const REGISTER_LIMIT: Duration = Duration::from_secs(12);
