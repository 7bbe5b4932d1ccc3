//! The listener: accepts connections, judges their upgrade requests and gives each a task of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, now, recorder, reset, websocket_config};
use super::fault::{Fault, FaultScope, SessionFaults};
use super::handshake::{Accepted, Policy, Rejected, complete, faults_of};
use super::record::Record;
use super::report::{Collector, Observer, Report, Summary};
use super::session::{Behaviour, RealtimeSession, SessionSetup};
use super::speech::{SpeechError, SpeechLibrary};

/// A simulator's settings.
#[derive(Clone)]
pub struct SimConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What the service does.
    pub behaviour: Behaviour,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// For which connections.
    pub fault_scope: FaultScope,
    /// What an upgrade request must have.
    pub policy: Policy,
    /// Of all ids; the same seed gives the same ids to the same sequence of connections.
    pub seed: u64,
    /// JSON lines of everything recorded.
    pub report: Option<PathBuf>,
    /// A WAV file per session of what the client appended.
    pub record_dir: Option<PathBuf>,
    /// Sees things as they happen.
    pub observer: Option<Arc<dyn Observer>>,
    /// Connections at once; further ones are answered 503.
    pub connections_max: usize,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            behaviour: Behaviour::default(),
            faults: Vec::new(),
            fault_scope: FaultScope::All,
            policy: Policy::default(),
            seed: 1,
            report: None,
            record_dir: None,
            observer: None,
            connections_max: 10_000,
        }
    }
}

/// A simulator that could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file or folder cannot be made.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The assistant's speech cannot be made.
    #[error(transparent)]
    Speech(#[from] SpeechError),
}

/// Starts simulators.
pub struct OpenAiSimulator;

impl OpenAiSimulator {
    /// Listens and serves on the current runtime until [`Running::stop`] or until [`Running`] is dropped.
    ///
    /// # Errors
    /// When the address, a file or the speech cannot be used.
    pub async fn start(config: SimConfig) -> Result<Running, StartError> {
        let address = config.listen;
        let behaviour = &config.behaviour;
        let library =
            SpeechLibrary::with(behaviour.script.speeches().chain(std::iter::once(&behaviour.speech)))?;
        behaviour.prepare(&library);
        let write = |path: &PathBuf, cause| StartError::Write { path: path.clone(), cause };
        if let Some(dir) = &config.record_dir {
            std::fs::create_dir_all(dir).map_err(|cause| write(dir, cause))?;
        }
        let collector = Collector::new(now(), config.report.as_deref(), config.observer.clone())
            .map_err(|cause| write(&config.report.clone().unwrap_or_default(), cause))?;
        let listener =
            TcpListener::bind(address).await.map_err(|cause| StartError::Listen { address, cause })?;
        let addr = listener.local_addr().map_err(|cause| StartError::Listen { address, cause })?;
        let shared = Arc::new(Shared {
            permits: Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS))),
            behaviour: Arc::new(config.behaviour.clone()),
            library: Arc::new(library),
            collector: Arc::new(collector),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            accepted: AtomicU64::new(0),
            config,
        });
        shared.tasks.spawn(shared.clone().listen(listener));
        Ok(Running { addr, shared })
    }
}

/// A simulator at work.
pub struct Running {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Running {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What to put into a provider's `url`.
    pub fn url(&self) -> String {
        format!("ws://{}{}", self.addr, super::handshake::PATH)
    }

    /// Everything recorded so far.
    pub fn report(&self) -> Report {
        self.shared.collector.report()
    }

    /// The sums so far.
    pub fn summary(&self) -> Summary {
        self.shared.collector.summary()
    }

    /// Waits until `done` says so; it is asked again after every record. Must not call back into `self`.
    pub async fn wait_until(&self, done: impl FnMut(&Report) -> bool) {
        self.shared.collector.wait_until(done).await;
    }

    /// Closes every session with 1001, waits a little for the clients' answers, and completes the files.
    ///
    /// # Errors
    /// When the report file could not be written.
    pub async fn stop(self) -> std::io::Result<Report> {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(STOP_PATIENCE, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("some connections of the simulator did not end in time");
        }
        self.shared.collector.finish()?;
        Ok(self.report())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

struct Shared {
    config: SimConfig,
    behaviour: Arc<Behaviour>,
    library: Arc<SpeechLibrary>,
    collector: Arc<Collector>,
    stop: CancellationToken,
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
    accepted: AtomicU64,
}

impl Shared {
    async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            let stream = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of file descriptors, most likely: give connections time to end.
                        tracing::warn!(%error, "the simulator cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let number = self.accepted.fetch_add(1, Ordering::Relaxed) + 1;
            let shared = self.clone();
            self.tasks.spawn(async move {
                let stop = shared.stop.clone();
                tokio::select! {
                    () = shared.serve(number, stream) => {}
                    // A session says goodbye by itself; a handshake may be abandoned.
                    () = async { stop.cancelled().await; tokio::time::sleep(STOP_PATIENCE).await } => {}
                }
            });
        }
    }

    async fn serve(&self, number: u64, stream: TcpStream) {
        // Small messages must not wait for more.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let faults = match self.faults(number, &stream).await {
            Ok(faults) => faults,
            Err(refused) => return self.refused(number, 0, refused),
        };
        for fault in &faults {
            match fault {
                Fault::NoHandshake => {
                    self.refused(number, 0, "no handshake, as asked for".to_owned());
                    return self.stop.cancelled().await;
                }
                Fault::SlowHandshake(after) => tokio::time::sleep(*after).await,
                _ => {}
            }
        }
        let handshake = tokio::time::timeout(HANDSHAKE_PATIENCE, self.upgrade(number, stream, &faults));
        match handshake.await {
            Ok(Some(connection)) => connection.run(self.stop.clone()).await,
            Ok(None) => {}
            Err(_) => self.refused(number, 0, "the upgrade request never came".to_owned()),
        }
    }

    /// The faults of this connection: configured ones, and those its URL asks for. The request is looked
    /// at without being taken from the socket, so that it can be left unanswered.
    async fn faults(&self, number: u64, stream: &TcpStream) -> Result<Vec<Fault>, String> {
        let configured = self.config.fault_scope.covers(number);
        let mut faults = if configured { self.config.faults.clone() } else { Vec::new() };
        let mut head = [0; 2_048];
        let seen = match tokio::time::timeout(HANDSHAKE_PATIENCE, stream.peek(&mut head)).await {
            Ok(Ok(0)) | Err(_) => return Err("the upgrade request never came".to_owned()),
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => return Err(error.to_string()),
        };
        let line = String::from_utf8_lossy(&head[..seen]);
        let target = line.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        match faults_of(target) {
            Ok(asked) => faults.extend(asked),
            Err(error) => {
                reset(stream);
                return Err(error.to_string());
            }
        }
        Ok(faults)
    }

    async fn upgrade(&self, number: u64, stream: TcpStream, faults: &[Fault]) -> Option<Connection> {
        let permit = self.permits.clone().try_acquire_owned().ok();
        let mut judged = None;
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let callback = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            let verdict = match permit {
                Some(_) => self.config.policy.judge(request, faults),
                None => Err(Box::new(full())),
            };
            let answer = match &verdict {
                Ok(_) => Ok(complete(request, response)),
                Err(rejected) => Err(rejected.response()),
            };
            judged = Some(verdict);
            answer
        };
        let upgraded = accept_hdr_async_with_config(stream, callback, Some(websocket_config())).await;
        match (upgraded, judged) {
            (Ok(ws), Some(Ok(accepted))) => Some(self.connection(number, ws, accepted, faults, permit?)),
            (_, Some(Err(rejected))) => {
                if rejected.violation {
                    self.violation(number, rejected.error.code, &rejected.error.message);
                }
                self.refused(number, rejected.status, rejected.error.message);
                None
            }
            (Err(error), _) => {
                self.refused(number, 0, error.to_string());
                None
            }
            (Ok(_), None) => None,
        }
    }

    fn connection(
        &self,
        number: u64,
        ws: tokio_tungstenite::WebSocketStream<TcpStream>,
        accepted: Accepted,
        faults: &[Fault],
        permit: tokio::sync::OwnedSemaphorePermit,
    ) -> Connection {
        let setup = SessionSetup {
            model: accepted.model.clone(),
            seed: self.config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number),
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            behaviour: self.behaviour.clone(),
            library: self.library.clone(),
            faults: SessionFaults::of(faults),
            refusal: accepted.session_refused,
        };
        let session = RealtimeSession::new(setup, now());
        let connected = Record::Connected {
            session: session.id().to_owned(),
            model: accepted.model,
            safety_identifier: accepted.safety_identifier,
            faults: faults.iter().map(ToString::to_string).collect(),
        };
        self.collector.add(number, now(), connected);
        for (code, message) in accepted.violations {
            self.violation(number, code, &message);
        }
        Connection {
            number,
            ws,
            recorder: recorder(self.config.record_dir.as_ref(), session.id()),
            session,
            collector: self.collector.clone(),
            _permit: permit,
        }
    }

    fn refused(&self, number: u64, status: u16, reason: String) {
        self.collector.add(number, now(), Record::Refused { status, reason });
    }

    fn violation(&self, number: u64, code: &str, message: &str) {
        let (code, message) = (code.to_owned(), message.to_owned());
        let record = Record::Violation { event: None, code, message, param: None, harmless: false };
        self.collector.add(number, now(), record);
    }
}

fn full() -> Rejected {
    let error = super::error::ApiError {
        kind: "server_error",
        ..super::error::ApiError::new("server_error", "The simulator serves as many connections as it may.")
    };
    Rejected { status: 503, retry_after: Some(1), error, violation: false }
}

const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(3);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
