//! The task of one trunk: carries between its cores, the resolver and the endpoint.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::health::{Spot, TargetOutcome, TrunkState};
use super::registration::{Ask, Heard, Reply};
use super::{Line, Shared};
use crate::sip::digest::Credentials;
use crate::sip::dns::Candidate;
use crate::sip::message::Method;
use crate::sip::transport::Target;
use crate::sip::trunk::{RegistrationSpec, Trunk};
use crate::sip::ua::{Answer, ContactSpec, OutRequest};
use crate::sip::uri::Uri;
use crate::telemetry::Wire;
use crate::time::UnixMs;

/// What a job of the task came to.
enum Done {
    /// Names were looked up; they hold this long.
    Resolved(Duration),
    Pinged(Spot, Result<(u16, Duration), String>),
    Registered {
        index: usize,
        reply: Reply,
        found: Vec<Candidate>,
    },
}

struct Watch {
    line: Arc<Line>,
    shared: Arc<Shared>,
    jobs: JoinSet<Done>,
    rng: StdRng,
    /// When names have to be looked up again; `None` while that is done.
    resolve_at: Option<Instant>,
}

/// Runs until `stop`, then takes the registrations back.
pub(super) async fn watch(
    line: Arc<Line>,
    shared: Arc<Shared>,
    mut reports: mpsc::Receiver<(SocketAddr, TargetOutcome)>,
    stop: CancellationToken,
) {
    let rng = StdRng::from_rng(&mut rand::rng());
    let resolve_at = Some(Instant::now());
    let mut watch = Watch { line, shared, jobs: JoinSet::new(), rng, resolve_at };
    loop {
        watch.start_due();
        watch.tell();
        let wake = watch.next_timeout();
        let line = Arc::clone(&watch.line);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some((remote, outcome)) = reports.recv() => {
                line.board().health.called(now(), remote, outcome, &mut watch.rng);
            }
            Some(done) = watch.jobs.join_next() => {
                if let Ok(done) = done {
                    watch.done(done);
                }
            }
            () = line.nudge.notified() => {}
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    watch.leave().await;
}

impl Watch {
    fn next_timeout(&self) -> Instant {
        let board = self.line.board();
        let cores = board.registrations.iter().filter_map(|one| one.next_timeout());
        let cores = cores.chain(board.health.next_timeout()).map(Instant::from_std);
        let idle = Instant::now() + Duration::from_secs(3600);
        cores.chain(self.resolve_at).fold(idle, Instant::min)
    }

    fn start_due(&mut self) {
        if self.resolve_at.is_some_and(|at| at <= Instant::now()) {
            self.resolve_at = None;
            let (line, shared) = (Arc::clone(&self.line), Arc::clone(&self.shared));
            self.jobs.spawn(async move { Done::Resolved(resolve(&line, &shared).await) });
        }
        let line = Arc::clone(&self.line);
        let mut board = line.board();
        for spot in board.health.due(now(), &mut self.rng) {
            let (line, shared) = (Arc::clone(&self.line), Arc::clone(&self.shared));
            self.jobs.spawn(async move { Done::Pinged(spot, ping(&line, &shared, spot).await) });
        }
        for (index, registration) in board.registrations.iter_mut().enumerate() {
            let Some(ask) = registration.due(now()) else { continue };
            let (spec, line, shared) =
                (registration.spec().clone(), Arc::clone(&self.line), Arc::clone(&self.shared));
            self.jobs.spawn(async move {
                let (reply, found) = register(&line.trunk, &shared, &spec, &ask).await;
                Done::Registered { index, reply, found }
            });
        }
    }

    fn done(&mut self, done: Done) {
        let mut board = self.line.board();
        match done {
            Done::Resolved(holds) => self.resolve_at = Some(Instant::now() + holds),
            Done::Pinged(spot, Ok((status, took))) => board.health.pinged(now(), spot, status, took),
            Done::Pinged(spot, Err(reason)) => board.health.silent(spot, &reason),
            Done::Registered { index, reply, found } => {
                let Some(registration) = board.registrations.get_mut(index) else { return };
                registration.answered(now(), &reply, found.len(), &mut self.rng);
                if registration.is_registered(now()) {
                    self.shared.learn(&self.line.trunk.name, &found);
                }
            }
        }
    }

    /// Shows the state to metrics, the log and whoever waits for a change.
    fn tell(&self) {
        let (name, mut board) = (&self.line.trunk.name, self.line.board());
        let state = board.state_at(now());
        metrics::gauge!("tandem_trunk_state", "trunk" => name.clone()).set(f64::from(state.level()));
        if !board.registrations.is_empty() {
            let all = board.registrations.iter().all(|one| one.is_registered(now()));
            metrics::gauge!("tandem_trunk_registered", "trunk" => name.clone()).set(f64::from(u8::from(all)));
        }
        if state != board.state {
            (board.state, board.since) = (state, UnixMs::now());
            let reason = board.reason().unwrap_or_default();
            match state {
                TrunkState::Down | TrunkState::Degraded => {
                    tracing::warn!(trunk = %name, state = state.as_str(), reason = %Wire(reason.as_bytes()), "trunk");
                }
                TrunkState::Up | TrunkState::Unknown => {
                    tracing::info!(trunk = %name, state = state.as_str(), "trunk");
                }
            }
        }
        self.line.changed.send_modify(|count| *count += 1);
    }

    async fn leave(self) {
        let asks: Vec<(RegistrationSpec, Ask)> = {
            let mut board = self.line.board();
            let leaving = board.registrations.iter_mut();
            leaving.filter_map(|one| Some((one.spec().clone(), one.leave(now())?))).collect()
        };
        let gone = asks.iter().map(|(spec, ask)| register(&self.line.trunk, &self.shared, spec, ask));
        // The registrar forgets us by itself when this is late.
        let _late = timeout(GOODBYE, futures_util::future::join_all(gone)).await;
    }
}

/// Looks the trunk's names up; answers how long that holds.
async fn resolve(line: &Line, shared: &Shared) -> Duration {
    let (found, problem) = line.resolve(shared).await;
    if problem.is_some() {
        return RESOLVE_MIN;
    }
    let first = found.iter().filter_map(|candidate| candidate.expires).min();
    let holds = first.map(|at| at.saturating_duration_since(now()));
    holds.unwrap_or(RESOLVE_MAX).clamp(RESOLVE_MIN, RESOLVE_MAX)
}

/// Sends OPTIONS. A status of the peer's own is an answer; one that was made up is none.
pub(super) async fn ping(line: &Line, shared: &Shared, spot: Spot) -> Result<(u16, Duration), String> {
    let (transport, address) = spot;
    // Each target has to prove the name that led to it.
    let known = line.board().found.iter().find(|one| super::spot(one) == spot).cloned();
    let unknown = || Candidate { transport, address, name: address.ip().to_string().into(), expires: None };
    let candidate = known.unwrap_or_else(unknown);
    let target = shared.target(&candidate)?;
    let trunk = &line.trunk;
    let (host, port) = trunk.host_at(&candidate.name, address);
    let uri = Uri::sip("", &host, port).map_err(|error| error.to_string())?;
    let from = match &trunk.domain {
        Some(domain) => Uri::sip(trunk.username.as_deref().unwrap_or("tandem"), domain, None),
        None => Uri::sip("tandem", &target.local.ip().to_string(), Some(target.local.port())),
    };
    let mut request = out_request(Method::Options, target, uri.clone(), uri);
    request.from = from.map_err(|error| error.to_string())?;
    request.route.extend(trunk.outbound_proxy.clone());
    request.credentials = credentials(trunk);
    request.contact = Some(ContactSpec::default());
    let answer = timeout(PING_LIMIT, shared.endpoint.request(request)).await;
    let undelivered = matches!(&answer, Ok(Ok(answer)) if answer.response.is_none());
    if undelivered && transport.is_secure() {
        // Signalling does not say why there is no connection; the handshake does.
        shared.endpoint.handshake(&target).await.map_err(|reason| format!("TLS: {reason}"))?;
    }
    match answer {
        Err(_) => Err(format!("no answer within {} s", PING_LIMIT.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(answer)) if answer.response.is_some() => Ok((answer.status.get(), answer.round_trip)),
        Ok(Ok(answer)) => Err(made_up(&answer)),
    }
}

/// Sends a REGISTER to the address of the registrar that it names; answers also all its addresses.
async fn register(
    trunk: &Trunk,
    shared: &Shared,
    spec: &RegistrationSpec,
    ask: &Ask,
) -> (Reply, Vec<Candidate>) {
    let proxy = trunk.outbound_proxy.as_ref().and_then(super::peer_of);
    let peer = proxy.as_ref().unwrap_or(&spec.registrar);
    let found = match shared.resolver.resolve(peer, &shared.ours).await {
        Ok(found) => found,
        Err(error) => return (Reply::None(error.to_string()), Vec::new()),
    };
    let chosen = ask.candidate.checked_rem(found.len()).and_then(|place| found.get(place));
    let target = chosen.ok_or_else(|| "no address".to_owned()).and_then(|one| shared.target(one));
    let request = target.and_then(|target| register_request(trunk, spec, ask, target));
    let reply = match request {
        Ok(request) => send(shared, request, found.len()).await,
        Err(reason) => Reply::None(reason),
    };
    (reply, found)
}

fn register_request(
    trunk: &Trunk,
    spec: &RegistrationSpec,
    ask: &Ask,
    target: Target,
) -> Result<OutRequest, String> {
    let registrar = Uri::sip("", &spec.domain, None).map_err(|error| error.to_string())?;
    let user = Uri::sip(&spec.aor_user, &spec.domain, None).map_err(|error| error.to_string())?;
    let mut request = out_request(Method::Register, target, registrar, user);
    request.call_id = Some(ask.call_id.clone());
    request.cseq = Some(ask.cseq);
    request.route.extend(trunk.outbound_proxy.clone());
    request.credentials = credentials(trunk);
    request.headers = vec![("Expires".to_owned(), ask.expires.to_string())];
    request.contact =
        Some(ContactSpec { user: spec.contact_user.clone(), params: ask.contact_params.clone() });
    Ok(request)
}

async fn send(shared: &Shared, request: OutRequest, addresses: usize) -> Reply {
    // With one address there is nothing better to do than to wait for Timer F.
    let limit = if addresses > 1 { REGISTER_LIMIT } else { Duration::from_secs(40) };
    match timeout(limit, shared.endpoint.request(request)).await {
        Err(_) => Reply::None("no answer".to_owned()),
        Ok(Err(error)) => Reply::None(error.to_string()),
        Ok(Ok(answer)) => match &answer.response {
            Some(response) => Reply::Final(Box::new(Heard::of(response, answer.cseq))),
            None => Reply::None(made_up(&answer)),
        },
    }
}

fn out_request(method: Method, target: Target, uri: Uri, of: Uri) -> OutRequest {
    OutRequest {
        method,
        target,
        uri,
        from: of.clone(),
        to: of,
        call_id: None,
        cseq: None,
        route: Vec::new(),
        credentials: None,
        headers: Vec::new(),
        contact: None,
    }
}

fn credentials(trunk: &Trunk) -> Option<Credentials> {
    let (username, password) = (trunk.username.clone()?, trunk.password.clone()?);
    Some(Credentials { username, password })
}

fn made_up(answer: &Answer) -> String {
    match answer.status.get() {
        408 => "no answer".to_owned(),
        _ => "could not be delivered".to_owned(),
    }
}

pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Longest time registrations are taken back in.
pub(super) const GOODBYE: Duration = Duration::from_secs(2);
/// Longest time an OPTIONS may take. UDP repeats it four times in this.
const PING_LIMIT: Duration = Duration::from_secs(8);
/// Longest time a REGISTER may take when another address is left to try.
const REGISTER_LIMIT: Duration = Duration::from_secs(10);
/// Names are looked up at most this often, and at least so often.
const RESOLVE_MIN: Duration = Duration::from_secs(30);
const RESOLVE_MAX: Duration = Duration::from_secs(3600);
