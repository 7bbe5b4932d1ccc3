//! Carriers: where the calls of a trunk go, whether they may, and whether the other side is there.
//!
//! One task per trunk (`watch`) registers, sends OPTIONS and takes reports of calls; what it decides by are the pure
//! cores `registration`, `health` and `limits`. [`Carriers`] is the handle of everybody else. Nothing here runs on
//! a media worker.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc, watch as value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dns::{self, CANDIDATES_MAX, Candidate, Reach};
use super::endpoint::{EndpointHandle, Listener};
use super::resolver::Resolver;
use super::transport::Target;
use super::trunk::{Peer, PeerHost, Trunk, Trunks};
use super::uri::{Host, Uri};
use crate::time::UnixMs;

pub mod health;
pub mod limits;
pub mod registration;
pub mod status;
mod trial;
mod watch;

pub use health::{TargetOutcome, TrunkState};
pub use status::{RegistrationStatus, TargetStatus, TestStep, TrunkStatus, TrunkTest};

use health::{Health, Spot};
use limits::{Entry, Limits};
use registration::Registration;
use status::Moment;

/// Every trunk's way out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Carriers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    lines: Vec<Arc<Line>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What all trunks use.
#[derive(Debug)]
struct Shared {
    endpoint: EndpointHandle,
    resolver: Resolver,
    ours: Vec<Reach>,
    trunks: Trunks,
    /// Addresses of registrars we are registered with: their calls are let in.
    learned: Mutex<Vec<(String, IpAddr)>>,
}

/// One trunk.
#[derive(Debug)]
struct Line {
    trunk: Arc<Trunk>,
    limits: Mutex<Limits>,
    board: Mutex<Board>,
    reports: mpsc::Sender<(SocketAddr, TargetOutcome)>,
    /// Something may be due earlier than the task thinks.
    nudge: Notify,
    /// Counts what the task has done.
    changed: value::Sender<u64>,
}

/// What is known of a trunk.
#[derive(Debug)]
struct Board {
    health: Health,
    registrations: Vec<Registration>,
    /// Where the names led the last time.
    found: Vec<Candidate>,
    /// Why a name leads nowhere.
    lost: Option<String>,
    state: TrunkState,
    since: UnixMs,
}

/// Why a call cannot use a trunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CarrierError {
    /// There is no trunk of this name.
    #[error("there is no such trunk")]
    Unknown,
    /// Every channel is in use.
    #[error("every channel of the trunk is in use")]
    Full,
    /// Its turn would come too late.
    #[error("more calls a second than the trunk may start")]
    Pace,
    /// The server stops.
    #[error("the trunk is being stopped")]
    Down,
    /// It leads nowhere.
    #[error("the trunk has no target: {0}")]
    NoTarget(String),
}

/// A call that is counted on its trunk until this is dropped.
#[derive(Debug)]
pub struct Permit {
    line: Option<Arc<Line>>,
    outbound: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(line) = &self.line else { return };
        match self.outbound {
            true => line.limits().leave_outbound(),
            false => line.limits().leave_inbound(),
        }
        line.tell_calls();
    }
}

impl Carriers {
    /// Starts a task for each trunk. They end with `stop`, or by [`Self::stop`]. Needs a Tokio runtime.
    pub fn start(
        endpoint: EndpointHandle,
        resolver: Resolver,
        trunks: &Trunks,
        stop: CancellationToken,
    ) -> Self {
        let ours = reach(endpoint.local_addrs());
        let trunks = trunks.clone();
        let shared = Arc::new(Shared { endpoint, resolver, ours, trunks, learned: Mutex::default() });
        let tasks = TaskTracker::new();
        let mut lines = Vec::new();
        for trunk in shared.trunks.iter() {
            let (line, reports) = Line::new(Arc::clone(trunk));
            let line = Arc::new(line);
            tasks.spawn(watch::watch(Arc::clone(&line), Arc::clone(&shared), reports, stop.child_token()));
            lines.push(line);
        }
        tasks.close();
        Self(Arc::new(Inner { shared, lines, stop, tasks }))
    }

    /// Where a call over this trunk may be sent, in the order to try: quarantined targets after the others, those
    /// that are down last. At most 16.
    ///
    /// # Errors
    /// When there is no such trunk or it leads nowhere.
    pub async fn targets(&self, trunk: &str) -> Result<Vec<(Target, Candidate)>, CarrierError> {
        let line = self.line(trunk).ok_or(CarrierError::Unknown)?;
        let (mut found, problem) = line.resolve(&self.0.shared).await;
        let now = Instant::now().into_std();
        {
            let board = line.board();
            found.sort_by_key(|candidate| board.health.rank(now, spot(candidate)));
        }
        let targets: Vec<(Target, Candidate)> = found
            .into_iter()
            .filter_map(|candidate| Some((self.0.shared.target(&candidate).ok()?, candidate)))
            .collect();
        match (targets.is_empty(), problem) {
            (false, _) => Ok(targets),
            (true, Some(problem)) => Err(CarrierError::NoTarget(problem)),
            (true, None) => Err(CarrierError::NoTarget("give it `peers` or `register`".to_owned())),
        }
    }

    /// Counts an outgoing call until the permit is dropped. Waits for its turn when the trunk has a pace, at most
    /// 2 s.
    ///
    /// # Errors
    /// When there is no such trunk, no channel is free, or the turn would come too late.
    pub async fn permit(&self, trunk: &str) -> Result<Permit, CarrierError> {
        let line = self.line(trunk).ok_or(CarrierError::Unknown)?;
        if self.0.stop.is_cancelled() {
            return Err(CarrierError::Down);
        }
        let entry = line.limits().enter_outbound(Instant::now().into_std());
        let refused = |label: &'static str, error| {
            count_attempt(&line.trunk.name, label);
            Err(error)
        };
        match entry {
            Entry::Full => refused("full", CarrierError::Full),
            Entry::Pace => refused("pace", CarrierError::Pace),
            Entry::At(at) => {
                // Whoever stops waiting drops the permit and with it the channel.
                let permit = Permit { line: Some(Arc::clone(line)), outbound: true };
                line.tell_calls();
                tokio::time::sleep_until(Instant::from_std(at)).await;
                Ok(permit)
            }
        }
    }

    /// Counts an incoming call until the permit is dropped; `None`: every channel is in use.
    pub fn enter_inbound(&self, trunk: &str) -> Option<Permit> {
        // A call of a registered phone is on no trunk of ours.
        let Some(line) = self.line(trunk) else { return Some(Permit { line: None, outbound: false }) };
        // Not in one expression: telling of the calls takes the same lock.
        let room = line.limits().enter_inbound();
        room.then(|| {
            line.tell_calls();
            Permit { line: Some(Arc::clone(line)), outbound: false }
        })
    }

    /// What became of an INVITE. Never waits; reports are dropped when too many wait.
    pub fn report(&self, trunk: &str, remote: SocketAddr, outcome: TargetOutcome) {
        let Some(line) = self.line(trunk) else { return };
        count_attempt(&line.trunk.name, outcome.as_str());
        if line.reports.try_send((remote, outcome)).is_err() {
            count_attempt(&line.trunk.name, "report_lost");
        }
    }

    /// The route of calls over this trunk, from its first registration that has one (RFC 3608).
    pub fn service_route(&self, trunk: &str) -> Vec<Uri> {
        let Some(line) = self.line(trunk) else { return Vec::new() };
        let now = Instant::now().into_std();
        let board = line.board();
        let mut holding = board.registrations.iter().filter(|one| one.is_registered(now));
        let with_route = holding.find(|one| !one.service_route().is_empty());
        with_route.map(|one| one.service_route().to_vec()).unwrap_or_default()
    }

    /// Every trunk, in the order of configuration.
    pub fn status(&self) -> Vec<TrunkStatus> {
        self.0.lines.iter().map(|line| line.status()).collect()
    }

    /// Looks a trunk's names up, sends OPTIONS to each target and registers anew. Takes at most 25 s.
    ///
    /// # Errors
    /// When there is no such trunk.
    pub async fn test(&self, trunk: &str) -> Result<TrunkTest, CarrierError> {
        let line = self.line(trunk).ok_or(CarrierError::Unknown)?;
        Ok(trial::run(line, &self.0.shared).await)
    }

    /// Takes every registration back and ends the tasks; waits at most 2 s. Permits and targets go on working.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        // Late tasks end with the runtime.
        let _late = tokio::time::timeout(watch::GOODBYE, self.0.tasks.wait()).await;
    }

    fn line(&self, name: &str) -> Option<&Arc<Line>> {
        self.0.lines.iter().find(|line| line.trunk.name == name)
    }
}

impl Shared {
    /// The target of a candidate: TLS peers have to prove the name that was asked for.
    fn target(&self, candidate: &Candidate) -> Result<Target, String> {
        let target = self.endpoint.target(candidate.transport, candidate.address);
        let target = target.map_err(|error| error.to_string())?;
        let named = candidate.transport.is_secure() && candidate.name.parse::<IpAddr>().is_err();
        if !named {
            return Ok(target);
        }
        let host = self.endpoint.host(&candidate.name);
        host.map(|host| target.named(host)).ok_or_else(|| "too many host names are known".to_owned())
    }

    /// Lets calls of these addresses in under this trunk.
    fn learn(&self, trunk: &str, found: &[Candidate]) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let before = learned.len();
        for candidate in found {
            let source = (trunk.to_owned(), candidate.address.ip());
            if !learned.contains(&source) && learned.len() < LEARNED_MAX {
                learned.push(source);
            }
        }
        if learned.len() > before
            && let Err(error) = self.endpoint.trunks(self.trunks.with_learned(&learned))
        {
            // The next refresh tries again.
            learned.truncate(before);
            tracing::debug!(%error, "the registrar's addresses are not let in yet");
        }
    }
}

impl Line {
    fn new(trunk: Arc<Trunk>) -> (Self, mpsc::Receiver<(SocketAddr, TargetOutcome)>) {
        let (reports, from_calls) = mpsc::channel(REPORTS);
        let now = Instant::now().into_std();
        let registrations = trunk.registrations.iter().map(|spec| {
            let (call_id, instance) = (fresh_token(), format!("urn:uuid:{}", fresh_uuid()));
            Registration::new(spec.clone(), call_id, instance, now)
        });
        let board = Board {
            health: Health::new(trunk.health.clone()),
            registrations: registrations.collect(),
            found: Vec::new(),
            lost: None,
            state: TrunkState::Unknown,
            since: UnixMs::now(),
        };
        let line = Self {
            limits: Mutex::new(Limits::new(trunk.channels, trunk.outbound_calls, trunk.cps)),
            board: Mutex::new(board),
            reports,
            nudge: Notify::new(),
            changed: value::Sender::new(0),
            trunk,
        };
        (line, from_calls)
    }

    /// Where calls go, by name: through the outbound proxy, to the peers, or else to the registrars.
    fn peers(&self) -> Vec<Peer> {
        let trunk = &self.trunk;
        if let Some(peer) = trunk.outbound_proxy.as_ref().and_then(peer_of) {
            return vec![peer];
        }
        let peers = match trunk.peers.is_empty() {
            true => trunk.registrations.iter().map(|one| one.registrar.clone()).collect(),
            false => trunk.peers.clone(),
        };
        let rng = &mut StdRng::from_rng(&mut rand::rng());
        dns::in_order(peers, |peer| (peer.priority, peer.weight), rng)
    }

    /// Where calls go, by address, and why some name led nowhere. The board learns it.
    async fn resolve(&self, shared: &Shared) -> (Vec<Candidate>, Option<String>) {
        let peers = self.peers();
        let answers = join_all(peers.iter().map(|peer| shared.resolver.resolve(peer, &shared.ours))).await;
        let (mut found, mut problem) = (Vec::<Candidate>::new(), None);
        for answer in answers {
            match answer {
                Ok(candidates) => found.extend(candidates),
                Err(error) => problem = problem.or(Some(error.to_string())),
            }
        }
        let mut spots: Vec<Spot> = Vec::new();
        found.retain(|candidate| {
            let news = !spots.contains(&spot(candidate)) && spots.len() < CANDIDATES_MAX;
            spots.extend(news.then(|| spot(candidate)));
            news
        });
        let mut board = self.board();
        if board.health.know(Instant::now().into_std(), &spots) {
            self.nudge.notify_one();
        }
        board.lost.clone_from(&problem);
        board.found.clone_from(&found);
        (found, problem)
    }

    fn status(&self) -> TrunkStatus {
        let at = Moment { now: Instant::now().into_std(), wall: UnixMs::now() };
        let calls = self.limits().calls();
        let board = self.board();
        TrunkStatus {
            name: self.trunk.name.clone(),
            profile: self.trunk.profile.description.clone(),
            state: board.state_at(at.now),
            since: board.since,
            reason: board.reason(),
            registered: status::registrations(at, &board.registrations),
            targets: status::targets(at, &board.health),
            calls,
            channels: self.trunk.channels,
            cps: self.trunk.cps,
            srtp: self.trunk.srtp.as_str(),
        }
    }

    fn tell_calls(&self) {
        let calls = self.limits().calls();
        metrics::gauge!("tandem_trunk_calls", "trunk" => self.trunk.name.clone()).set(calls as f64);
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn state_at(&self, now: std::time::Instant) -> TrunkState {
        let leads_nowhere = self.lost.is_some() && self.found.is_empty();
        status::trunk_state(now, &self.health, &self.registrations, leads_nowhere)
    }

    /// Why the trunk is not as it should be.
    fn reason(&self) -> Option<String> {
        let registrations = self.registrations.iter().find_map(|one| one.reason().map(str::to_owned));
        let targets = || self.health.watched().iter().find_map(|one| one.reason.clone());
        registrations
            .map(|reason| format!("REGISTER: {reason}"))
            .or_else(|| self.lost.clone())
            .or_else(targets)
    }
}

/// Our transports, in the order of the configuration.
fn reach(listeners: &[Listener]) -> Vec<Reach> {
    let mut ours: Vec<Reach> = Vec::new();
    for listener in listeners {
        let (v4, v6) = (listener.address.is_ipv4(), listener.address.is_ipv6());
        match ours.iter_mut().find(|one| one.transport == listener.transport) {
            Some(one) => (one.v4, one.v6) = (one.v4 || v4, one.v6 || v6),
            None => ours.push(Reach { transport: listener.transport, v4, v6 }),
        }
    }
    ours
}

fn spot(candidate: &Candidate) -> Spot {
    (candidate.transport, candidate.address)
}

/// The host of a URI as a peer.
fn peer_of(uri: &Uri) -> Option<Peer> {
    let host = match uri.host()? {
        Host::Ip(ip) => PeerHost::Ip(ip),
        Host::Name(name) => PeerHost::Name(name.to_ascii_lowercase().into()),
    };
    Some(Peer { port: uri.port(), transport: uri.transport(), ..Peer::new(host) })
}

fn count_attempt(trunk: &str, outcome: &'static str) {
    metrics::counter!("tandem_trunk_attempts_total", "trunk" => trunk.to_owned(), "outcome" => outcome)
        .increment(1);
}

fn fresh_token() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A random UUID (RFC 9562 section 5.4).
fn fresh_uuid() -> String {
    let bits = rand::random::<u128>() & !(0xf000_u128 << 64) & !(0xc000_u128 << 48);
    let hex = format!("{:032x}", bits | (0x4000_u128 << 64) | (0x8000_u128 << 48));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Reports of calls that may wait for a trunk's task; further ones are dropped and counted.
const REPORTS: usize = 1_024;
/// Most addresses of registrars that are let in.
const LEARNED_MAX: usize = 256;

#[cfg(test)]
mod tests;
