//! The listener: REST and media sockets share one address.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::book::{Book, Call};
use super::create::{CallRequest, Callback};
use super::fault::{Fault, FaultScope, SessionFaults};
use super::record::{Collector, Observer, Record, Report, Summary};
use super::session::{Behaviour, CallSession, SessionSetup, uuid};
use super::sip::SipConfig;
use super::socket::{Socket, now, websocket_config};
use super::spoken::Library;
use super::webhook::Webhooks;
use crate::simulate::error::ApiError;
use crate::simulate::recorder::Recorder;
use crate::simulate::speech::SpeechError;

/// A simulator's settings.
#[derive(Clone)]
pub struct SimConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What the service does.
    pub behaviour: Behaviour,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// For which calls.
    pub fault_scope: FaultScope,
    /// The keys there are; empty: any key will do.
    pub api_keys: Vec<String>,
    /// Calls at once; further ones are answered 429.
    pub calls_max: usize,
    /// Told of the events of all calls.
    pub webhooks: Vec<Callback>,
    /// Where agents are called by SIP.
    pub sip: Option<SipConfig>,
    /// Of all ids; the same seed gives the same ids to the same sequence of calls.
    pub seed: u64,
    /// JSON lines of everything recorded.
    pub report: Option<PathBuf>,
    /// A WAV file per call of what the client sent.
    pub record_dir: Option<PathBuf>,
    /// Sees things as they happen.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            behaviour: Behaviour::default(),
            faults: Vec::new(),
            fault_scope: FaultScope::All,
            api_keys: Vec::new(),
            calls_max: 10_000,
            webhooks: Vec::new(),
            sip: None,
            seed: 1,
            report: None,
            record_dir: None,
            observer: None,
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
    /// The agent's speech cannot be made.
    #[error(transparent)]
    Speech(#[from] SpeechError),
    /// SIP cannot be answered.
    #[error("cannot answer SIP: {0:#}")]
    Sip(anyhow::Error),
    /// Webhooks cannot be sent.
    #[error("cannot send webhooks: {0}")]
    Webhooks(String),
}

/// Starts simulators.
pub struct UltravoxSimulator;

impl UltravoxSimulator {
    /// Listens and serves on the current runtime until [`Running::stop`] or until [`Running`] is dropped.
    ///
    /// # Errors
    /// When the address, a file or the speech cannot be used.
    pub async fn start(config: SimConfig) -> Result<Running, StartError> {
        let address = config.listen;
        let behaviour = &config.behaviour;
        let library = Library::with(behaviour.script.speeches().chain(std::iter::once(&behaviour.speech)))?;
        let write = |path: &PathBuf, cause| StartError::Write { path: path.clone(), cause };
        if let Some(dir) = &config.record_dir {
            std::fs::create_dir_all(dir).map_err(|cause| write(dir, cause))?;
        }
        let collector = Collector::new(now(), config.report.as_deref(), config.observer.clone())
            .map_err(|cause| write(&config.report.clone().unwrap_or_default(), cause))?;
        let collector = Arc::new(collector);
        let listener =
            TcpListener::bind(address).await.map_err(|cause| StartError::Listen { address, cause })?;
        let addr = listener.local_addr().map_err(|cause| StartError::Listen { address, cause })?;
        let stop = CancellationToken::new();
        let webhooks = Webhooks {
            client: crate::web::client(&[], WEBHOOK_LIMIT).map_err(StartError::Webhooks)?,
            collector: collector.clone(),
            retry: behaviour.webhook_retry,
            account: config.webhooks.clone().into(),
            stop: stop.clone(),
        };
        let shared = Arc::new(Shared {
            addr,
            behaviour: Arc::new(config.behaviour.clone()),
            library: Arc::new(library),
            book: Arc::new(Book::default()),
            collector,
            webhooks,
            stop,
            tasks: TaskTracker::new(),
            requests: AtomicU64::new(0),
            config,
        });
        shared.tasks.spawn(shared.clone().listen(listener));
        let mut sip_addr = None;
        if let Some(sip) = shared.config.sip {
            let phone = super::sip::open(sip).await.map_err(StartError::Sip)?;
            sip_addr = phone.address();
            shared.tasks.spawn(super::sip::serve(shared.clone(), Arc::new(phone)));
        }
        Ok(Running { shared, sip_addr })
    }
}

/// A simulator at work.
pub struct Running {
    shared: Arc<Shared>,
    sip_addr: Option<SocketAddr>,
}

impl Running {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// Where agents are called by SIP.
    pub fn sip_addr(&self) -> Option<SocketAddr> {
        self.sip_addr
    }

    /// What to put into a provider's `url`: the base of all resources.
    pub fn url(&self) -> String {
        format!("{}/api/", self.shared.origin())
    }

    /// Tells these of all calls from now on, in place of those before.
    pub fn tell(&self, webhooks: Vec<Callback>) {
        let mut account = self.shared.webhooks.account.lock().unwrap_or_else(PoisonError::into_inner);
        *account = webhooks;
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

    /// Closes every media socket with 1001, waits a little for the clients' answers, and completes the
    /// files.
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

/// What all connections share.
pub(super) struct Shared {
    addr: SocketAddr,
    config: SimConfig,
    behaviour: Arc<Behaviour>,
    library: Arc<Library>,
    pub(super) book: Arc<Book>,
    collector: Arc<Collector>,
    webhooks: Webhooks,
    pub(super) stop: CancellationToken,
    tasks: TaskTracker,
    requests: AtomicU64,
}

impl Shared {
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(super) fn next_number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The faults of the `number`th call.
    pub(super) fn faults(&self, number: u64) -> Vec<Fault> {
        match self.config.fault_scope.covers(number) {
            true => self.config.faults.clone(),
            false => Vec::new(),
        }
    }

    /// Why a request's key is not accepted.
    pub(super) fn key_problem(&self, headers: &HeaderMap) -> Option<&'static str> {
        let key = headers.get("x-api-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
        if key.is_empty() {
            return Some("Authentication credentials were not provided.");
        }
        let keys = &self.config.api_keys;
        (!keys.is_empty() && !keys.iter().any(|right| right == key)).then_some("Invalid API key.")
    }

    pub(super) fn is_full(&self) -> bool {
        self.book.live() >= self.config.calls_max
    }

    pub(super) fn record(&self, number: u64, record: Record) {
        self.collector.add(number, now(), record);
    }

    pub(super) fn violation(&self, number: u64, event: &str, error: &ApiError) {
        let (event, code) = (Some(event.to_owned()), error.code.to_owned());
        let (message, param) = (error.message.clone(), error.param.clone());
        self.record(number, Record::Violation { event, code, message, param });
    }

    /// Opens a call; its object.
    pub(super) fn open(
        self: &Arc<Self>,
        number: u64,
        request: CallRequest,
        asked: Value,
        faults: Vec<Fault>,
    ) -> Value {
        let mut rng = StdRng::seed_from_u64(self.seed(number));
        let (id, token) = (uuid(&mut rng), uuid(&mut rng));
        let join_url = format!("ws://{}/join/{id}?token={token}", self.addr);
        let created = Record::Created {
            call: id.clone(),
            request: asked.clone(),
            faults: faults.iter().map(ToString::to_string).collect(),
        };
        self.record(number, created);
        let patience = request.join_timeout;
        let call = Call::new((number, id.clone(), token), join_url, request, asked, faults);
        let shown = call.to_json();
        self.book.insert(call.clone());
        let shared = self.clone();
        self.tasks.spawn(async move {
            shared.webhooks.tell("call.started", &call).await;
            let waited = tokio::time::timeout(patience, shared.stop.cancelled()).await;
            let unjoined = shared.book.get(&id).is_some_and(|call| call.joined.is_none());
            if waited.is_err() && unjoined {
                shared.end(&id, "unjoined").await;
            }
        });
        shown
    }

    /// Opens a call that came by SIP; its id.
    pub(super) fn open_sip(
        &self,
        number: u64,
        request: CallRequest,
        asked: Value,
        faults: Vec<Fault>,
    ) -> String {
        let id = uuid(&mut StdRng::seed_from_u64(self.seed(number)));
        let created = Record::Created {
            call: id.clone(),
            request: asked.clone(),
            faults: faults.iter().map(ToString::to_string).collect(),
        };
        self.record(number, created);
        self.book.insert(super::sip::entry(number, id.clone(), request, asked, faults));
        id
    }

    /// The caller and the agent hear each other.
    pub(super) async fn joined(self: &Arc<Self>, id: &str) {
        let call = self.book.change(id, |call| {
            call.joined = Some(chrono::Utc::now());
            call.clone()
        });
        let Some(call) = call else { return };
        self.record(call.number, Record::Joined { call: id.to_owned() });
        let shared = self.clone();
        self.tasks.spawn(async move {
            shared.webhooks.tell("call.started", &call).await;
            shared.webhooks.tell("call.joined", &call).await;
        });
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub(super) fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// What `say` sounds like.
    pub(super) fn samples(&self, say: &crate::simulate::speech::Say, rate: u32) -> Vec<i16> {
        let spoken = self.library.spoken(say, rate, (&[], rate));
        let (pairs, _) = spoken.audio.as_chunks::<2>();
        pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
    }

    /// Ends a call, tells of it, and bills it.
    pub(super) async fn end(&self, id: &str, reason: &'static str) {
        let Some(call) = self.book.end(id, reason) else { return };
        self.record(call.number, Record::Ended { call: id.to_owned(), reason: reason.to_owned() });
        let never = call.faults.contains(&Fault::BillNever);
        let late = call.faults.iter().find_map(|fault| match fault {
            Fault::BillLate(after) => Some(*after),
            _ => None,
        });
        let bill = async {
            let pause = tokio::time::sleep(late.unwrap_or(self.behaviour.billing_delay));
            tokio::select! {
                () = pause => {}
                () = self.stop.cancelled() => return,
            }
            let billed = billed(call.duration(), self.behaviour.billing_step);
            let call = self.book.change(id, |call| {
                call.billed = Some(billed);
                call.clone()
            });
            if let Some(call) = call {
                self.webhooks.tell("call.billed", &call).await;
            }
        };
        let ended = self.webhooks.tell("call.ended", &call);
        if never {
            ended.await;
        } else {
            tokio::join!(ended, bill);
        }
    }

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
            let shared = self.clone();
            self.tasks.spawn(shared.serve(stream));
        }
    }

    /// The first line tells a media socket from REST; it is looked at without being taken.
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        // Small messages must not wait for more.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let mut head = [0; 2_048];
        let seen = tokio::select! {
            seen = tokio::time::timeout(REQUEST_PATIENCE, stream.peek(&mut head)) => seen,
            () = self.stop.cancelled() => return,
        };
        let Ok(Ok(seen)) = seen else { return };
        let line = String::from_utf8_lossy(&head[..seen]);
        let target = line.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        match target.strip_prefix(JOIN) {
            Some(rest) => {
                let id = rest.split(['?', '/']).next().unwrap_or_default().to_owned();
                self.join(&id, stream).await;
            }
            None => self.rest(stream).await,
        }
    }

    async fn rest(self: Arc<Self>, stream: TcpStream) {
        let service = TowerToHyperService::new(super::rest::router(self.clone()));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            served = connection => if let Err(error) = served {
                tracing::debug!(%error, "a REST connection of the simulator");
            },
            () = self.stop.cancelled() => {}
        }
    }

    async fn join(&self, id: &str, stream: TcpStream) {
        let (number, faults) = self.book.get(id).map_or((0, Vec::new()), |call| (call.number, call.faults));
        if faults.contains(&Fault::NoJoin) {
            self.record(number, Record::Refused { status: 0, reason: "no join, as asked for".to_owned() });
            return self.stop.cancelled().await;
        }
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let mut judged = None;
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let callback = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            let verdict = self.judge(number, id, request, &faults, commands);
            let answer = match &verdict {
                Ok(_) => Ok(response),
                Err(status) => {
                    let mut refused = ErrorResponse::new(None);
                    *refused.status_mut() = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_REQUEST);
                    Err(refused)
                }
            };
            judged = Some(verdict);
            answer
        };
        let upgrade = accept_hdr_async_with_config(stream, callback, Some(websocket_config()));
        let upgraded = tokio::time::timeout(REQUEST_PATIENCE, upgrade).await;
        let (Ok(Ok(ws)), Some(Ok(call))) = (upgraded, judged) else {
            if self.book.get(id).is_some_and(|call| call.joined.is_some() && call.ended.is_none()) {
                // Taken, and lost before it was open.
                tracing::debug!("a media socket of the simulator was lost in its handshake");
            }
            return;
        };
        let setup = SessionSetup {
            call_id: call.id.clone(),
            request: call.request.clone(),
            seed: self.seed(number).rotate_left(17),
            behaviour: self.behaviour.clone(),
            library: self.library.clone(),
            faults: SessionFaults::of(&call.faults),
        };
        let socket = Socket {
            number,
            call: call.id.clone(),
            rate: call.request.medium.input_rate,
            ws,
            session: CallSession::new(setup, now()),
            commands: received,
            book: self.book.clone(),
            collector: self.collector.clone(),
            recorder: self.config.record_dir.as_ref().map(|dir| Recorder::new(dir, &call.id)),
        };
        let run = async {
            let reason = socket.run(self.stop.clone()).await;
            self.end(id, reason).await;
        };
        tokio::join!(run, self.webhooks.tell("call.joined", &call));
    }

    /// Judges the upgrade request of a media socket: the call, or the status to refuse it with.
    fn judge(
        &self,
        number: u64,
        id: &str,
        request: &Request,
        faults: &[Fault],
        commands: mpsc::Sender<super::wire::ClientMessage>,
    ) -> Result<Call, u16> {
        for name in ["x-api-key", "authorization"] {
            if request.headers().contains_key(name) {
                let error = ApiError::new("key_on_media_socket", format!("{name} must not be sent here"));
                self.violation(number, "join", &error);
            }
        }
        if faults.contains(&Fault::Unjoinable) {
            self.record(number, Record::Refused { status: 503, reason: "as asked for".to_owned() });
            return Err(503);
        }
        let query = request.uri().query().unwrap_or_default();
        let token = query.split('&').find_map(|pair| pair.strip_prefix("token="));
        self.book.join(id, token, commands).map_err(|(status, code, message)| {
            self.violation(number, "join", &ApiError::new(code, message));
            self.record(number, Record::Refused { status, reason: message.to_owned() });
            status
        })
    }

    fn seed(&self, number: u64) -> u64 {
        self.config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number)
    }
}

/// What is billed for so long a call.
fn billed(duration: Duration, step: Duration) -> Duration {
    let step = step.as_millis().max(1);
    let steps = duration.as_millis().div_ceil(step);
    Duration::from_millis(u64::try_from(steps * step).unwrap_or(u64::MAX))
}

const JOIN: &str = "/join/";
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(3);
const WEBHOOK_LIMIT: Duration = Duration::from_secs(10);
/// Data messages by REST that may wait for the session.
const COMMANDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_billed_is_rounded_up() {
        let ms = Duration::from_millis;
        assert_eq!(billed(ms(6_001), ms(6_000)), ms(12_000));
        assert_eq!(billed(ms(6_000), ms(6_000)), ms(6_000));
        assert_eq!(billed(ms(0), ms(6_000)), ms(0));
    }
}
