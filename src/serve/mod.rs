//! A whole server: wires the floors together, and takes them apart again in the right order.
//!
//! Up: store, journal, providers, workers, SIP, HTTP; calls are taken only when everything is there.
//! Down: refuse new calls, let calls finish, say BYE to the rest, write every record, close.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::call::handle::{CallCommand, Calls};
use crate::call::recording::RecordingWriter;
use crate::call::worker::Workers;
use crate::config::Config;
use crate::cost::{Alarm, Costs, start_of_day};
use crate::http::{self, Api, BoxFuture, Obstacle, Readiness};
use crate::provider::notice::Witness;
use crate::routing::dialer::Dialer;
use crate::routing::directory::{Directory, Snapshot};
use crate::routing::lines::LegLines;
use crate::routing::outbound::Trunking;
use crate::routing::plan::Planner;
use crate::routing::switchboard::{self, Exchange};
use crate::sip::carrier::Carriers;
use crate::sip::endpoint::{Endpoint, EndpointHandle, Listener};
use crate::sip::tap::{Recorder, Tap};
use crate::store::journal::Journal;
use crate::store::{Feed, JournalHandle, Store};
use crate::telemetry;
use crate::time::UnixMs;

mod apply;
mod carriers;
mod parts;
mod pbx;
mod phones;
mod providers;
mod tools;
mod trace;

use pbx::Doors;
use phones::PhoneDesk;

/// What `tandem serve` is started with beside its configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Resources to apply before the first call.
    pub apply: Option<PathBuf>,
}

/// Whether a trunk of a configuration that is right by itself cannot be made.
///
/// # Errors
/// What `tandem serve` would stop with: a profile that cannot be read, a header that may not be set.
pub fn check(config: &Config) -> anyhow::Result<()> {
    parts::costs(config, None)?;
    parts::trunks(config).map(drop)
}

/// Runs a server until it is told to stop by SIGTERM or SIGINT; the second signal hurries.
///
/// # Errors
/// When something the server needs cannot be had; the error says what to do.
pub async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    let resources = match &options.apply {
        Some(file) => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            Some((file.display().to_string(), text))
        }
        None => None,
    };
    let limit = config.drain.limit;
    let server = Server::start(config, resources).await?;
    info!(http = %server.http_address(), "ready for calls");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let hurry = CancellationToken::new();
    let hurried = hurry.clone();
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        warn!("told twice to stop: calls end now");
        hurried.cancel();
    });
    server.stop(limit, hurry).await;
    signals.abort();
    Ok(())
}

/// A running server.
pub struct Server {
    exchange: Arc<Exchange>,
    endpoint: EndpointHandle,
    carriers: Carriers,
    journal: JournalHandle,
    store: Store,
    http: http::Running,
    stopping: CancellationToken,
    draining: Arc<AtomicBool>,
    switchboard: tokio::task::JoinHandle<()>,
    admissions: TaskTracker,
    doors: Doors,
}

impl Server {
    /// Starts everything. `resources` are the name and text of a resources file to apply first.
    ///
    /// # Errors
    /// When something cannot be had: a port, the database, a profile, a script.
    pub async fn start(config: Config, resources: Option<(String, String)>) -> anyhow::Result<Self> {
        let store = open_store(&config).await?;
        if let Some((name, text)) = resources {
            apply::apply(&store, &apply::Installation::of(&config), None, &name, &text).await?;
        }
        let (journal, feed) = Journal::start(store.clone(), &config.node.name, &config.node.data_dir)
            .await
            .context("starting the journal")?;
        for call in journal.interrupted() {
            warn!(%call, "a call was cut off when the server last stopped; its record is closed");
        }
        let directory = Directory::new(Snapshot::read(&store).await?);
        let stopping = CancellationToken::new();
        let tools = tools::registry(&config, &store, &stopping).await?;
        let planner = parts::planner(&config, tools.clone())?;
        let (reporter, keys) = providers::open(&config, &store, &feed, &planner).await?;
        let costs = costs(&config, &store, reporter.of_costs()).await?;
        let workers = Workers::start(usize::from(config.media.workers), config.media.realtime_priority)?;
        let (events, inbox) = mpsc::channel(SIGNALLING_QUEUE);
        let recorder = trace::recorder(&config)?;
        let mut sip = parts::endpoint(&config)?;
        sip.tap = recorder.clone().map(|tap| Arc::new(tap) as Arc<dyn Tap>);
        let endpoint = Endpoint::start(sip, events)
            .await
            .context("opening the SIP sockets; choose another port in sip.listen or stop what uses it")?;
        let carriers = carriers::start(&config, &endpoint)?;
        let calls = Calls::default();
        let draining = Arc::new(AtomicBool::new(false));
        let media = parts::media(&config)?;
        let lines = LegLines::default();
        let desk = PhoneDesk::new(&config, &store, &directory, &endpoint);
        let mut doors = Doors::open(&config, &media.ports).await?;
        let outbound = Trunking {
            endpoint: endpoint.clone(),
            trunks: parts::trunks(&config)?,
            order: Vec::new(),
            lines: lines.clone(),
            media: media.clone(),
            advertise: config.sip.advertise,
            carriers: carriers.clone(),
            directory: directory.clone(),
            planner: planner.clone(),
            domains: config.sip.registrar.domains.clone(),
            phone_srtp: carriers::default_srtp(config.media.srtp),
            pbx: doors.way_out(&config),
            runtime: tokio::runtime::Handle::current(),
        };
        let exchange = Arc::new(Exchange {
            directory: directory.clone(),
            planner,
            journal: journal.clone(),
            workers,
            media,
            lines,
            outbound: Arc::new(outbound),
            carriers: carriers.clone(),
            costs,
            calls: calls.clone(),
            recordings: parts::recordings(&config)?,
            hold_music: parts::hold_music(&config)?,
            endpoint: endpoint.clone(),
            draining: Arc::clone(&draining),
        });
        let admissions = TaskTracker::new();
        let switchboard = tokio::spawn(switchboard::run(Arc::clone(&exchange), inbox, admissions.clone()));
        desk.open()?;
        doors.admit(&exchange, &admissions);
        let metrics = telemetry::Metrics::install()?;
        let witness: Arc<dyn Witness> = reporter;
        exchange.planner.providers.tell(&witness);
        let upkeep = metrics.clone();
        let api = Arc::new(Api {
            store: store.clone(),
            feed,
            calls,
            carriers: carriers.clone(),
            ari: doors.ari.clone(),
            trace: recorder.filter(Recorder::keeps),
            planner: exchange.planner.clone(),
            provider_keys: keys,
            dialer: Dialer::new(&exchange),
            readiness: Box::new(Ready {
                store: store.clone(),
                journal: journal.clone(),
                endpoint: endpoint.clone(),
                planner: exchange.planner.clone(),
                draining: Arc::clone(&draining),
            }),
            resources: Box::new(apply::Applier {
                store: store.clone(),
                phones: desk.clone(),
                installation: apply::Installation::of(&config),
                tools: tools.clone(),
            }),
            announcements: doors.lobby.announcements.clone(),
            connector: doors.connector.clone(),
            tools,
            phones: Box::new(desk),
            metrics: Box::new(move || metrics.render()),
            tickets: http::auth::Tickets::default(),
            sockets: Arc::new(Semaphore::new(http::FEED_SOCKETS)),
            stopping: stopping.clone(),
            heartbeat: config.http.feed_heartbeat,
            body_limit: config.http.max_body_bytes as usize,
        });
        tokio::spawn(keep_up(upkeep, stopping.clone()));
        let http = http::start(api, config.http.listen, Some(&config.socket_path())).await?;
        Ok(Self {
            exchange,
            endpoint,
            carriers,
            journal,
            store,
            http,
            stopping,
            draining,
            switchboard,
            admissions,
            doors,
        })
    }

    /// Where SIP is listened for, with the ports the system gave.
    pub fn sip_addresses(&self) -> &[Listener] {
        self.endpoint.local_addrs()
    }

    /// Where AudioSocket connections come in, if they do.
    pub fn audiosocket_address(&self) -> Option<SocketAddr> {
        self.doors.audiosocket
    }

    /// Where Asterisk's WebSocket media comes in, if it does.
    pub fn asterisk_websocket_address(&self) -> Option<SocketAddr> {
        self.doors.websocket
    }

    /// Where HTTP is listened for.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address
    }

    /// What is committed.
    pub fn feed(&self) -> &Feed {
        self.journal.feed()
    }

    /// Records.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Writes recordings out, so that their files can be read.
    pub fn settle_recordings(&self) {
        if let Some(recordings) = &self.exchange.recordings {
            recordings.settle();
        }
    }

    /// Refuses new calls, waits up to `limit` for the others (or until `hurry`), then ends them and closes
    /// everything.
    pub async fn stop(self, limit: Duration, hurry: CancellationToken) {
        self.draining.store(true, Ordering::Release);
        self.doors.shut();
        if let Err(error) = self.endpoint.drain(true) {
            warn!(%error, "SIP cannot be told to refuse new calls");
        }
        // Carriers we are registered with call elsewhere from here on.
        let carriers = self.carriers.clone();
        let leaving = tokio::spawn(async move { carriers.stop().await });
        let calls = self.exchange.calls.clone();
        info!(calls = calls.len(), limit_s = limit.as_secs(), "draining: new calls are refused");
        for call in calls.all() {
            // A call that has just ended needs no telling.
            let _gone = call.command(CallCommand::Drain);
        }
        self.admissions.close();
        wait_for_calls(&calls, limit, &hurry).await;
        self.admissions.wait().await;
        let cut = calls.len();
        if cut > 0 {
            warn!(calls = cut, "calls are ended: the drain limit is over");
        }
        self.exchange.workers.stop_token().cancel();
        wait_for_calls(&calls, GOODBYE, &CancellationToken::new()).await;
        self.doors.settle(GOODBYE).await;
        if leaving.await.is_err() {
            warn!("taking registrations back ended in a panic");
        }
        // The last BYEs have left and are answered, or are given up.
        self.endpoint.stop(GOODBYE).await;
        if self.switchboard.await.is_err() {
            warn!("the switchboard stopped in a panic");
        }
        settle(self.exchange.recordings.clone()).await;
        self.stopping.cancel();
        self.http.stop(GOODBYE).await;
        self.journal.close().await;
        if let Some(exchange) = Arc::into_inner(self.exchange)
            && !exchange.workers.stop(GOODBYE).await
        {
            warn!("a call did not end in time");
        }
        self.store.close().await;
        info!("stopped");
    }
}

/// Lets the metrics forget what nobody will ask for any more.
async fn keep_up(metrics: telemetry::Metrics, stop: CancellationToken) {
    let mut due = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            _ = due.tick() => metrics.upkeep(),
            () = stop.cancelled() => return,
        }
    }
}

async fn settle(recordings: Option<RecordingWriter>) {
    if let Some(recordings) = recordings {
        // The writer answers within a disk write; a panic there loses nothing that is not lost already.
        let _settled = tokio::task::spawn_blocking(move || recordings.settle()).await;
    }
}

/// Looks at the table of calls until it is empty, `limit` is over or `hurry` is told.
async fn wait_for_calls(calls: &Calls, limit: Duration, hurry: &CancellationToken) {
    let until = Instant::now() + limit;
    let mut look = tokio::time::interval(LOOK);
    while !calls.is_empty() && Instant::now() < until {
        tokio::select! {
            _ = look.tick() => {}
            () = hurry.cancelled() => return,
        }
    }
}

async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let store = Store::open_with(&config.store.url, config.store.connections).await?;
    store.migrate().await.context("bringing the database up to date")?;
    Ok(store)
}

/// Prices and limits, with what today's calls have cost before the server was started.
async fn costs(config: &Config, store: &Store, alarm: Box<dyn Alarm>) -> anyhow::Result<Costs> {
    let costs = parts::costs(config, Some(alarm))?;
    let now = UnixMs::now();
    costs.resume(now, store.spent_since(start_of_day(now)).await.context("reading today's costs")?);
    Ok(costs)
}

struct Ready {
    store: Store,
    journal: JournalHandle,
    endpoint: EndpointHandle,
    planner: Planner,
    draining: Arc<AtomicBool>,
}

impl Readiness for Ready {
    fn obstacles(&self) -> BoxFuture<'_, Vec<Obstacle>> {
        Box::pin(async {
            let mut obstacles = Vec::new();
            let mut obstacle = |part, reason: String| obstacles.push(Obstacle { part, reason });
            if self.draining.load(Ordering::Acquire) {
                obstacle("draining", "the server is stopping".to_owned());
            }
            if let Err(error) = self.store.ping().await {
                obstacle("store", error.to_string());
            }
            if self.journal.health().stuck {
                obstacle("journal", "neither the database nor the journal's files take events".to_owned());
            }
            if !self.endpoint.is_running() {
                obstacle("sip", "no SIP socket is open".to_owned());
            }
            if let Some(complaint) = self.planner.complaint() {
                obstacle("provider", complaint);
            }
            obstacles
        })
    }
}

/// Calls that are told to end get this long for their goodbyes; so do the last requests and BYEs.
const GOODBYE: Duration = Duration::from_secs(5);
/// How often the table of calls is looked at while it empties.
const LOOK: Duration = Duration::from_millis(20);
/// How often the metrics are tidied.
const UPKEEP: Duration = Duration::from_secs(5);
/// Signalling events that may wait for the switchboard; beyond it the endpoint holds back.
const SIGNALLING_QUEUE: usize = 4096;
