//! A PBX with people who call, a REST interface and an event socket: the far end of an ARI application.

mod external;
mod outgoing;
mod port;
mod rest;
mod rtp;
mod server;
mod state;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::audiosocket;
use super::person::Person;
use super::release::Release;
use super::websocket::{self, WebSocketCall};
use state::{Behind, State};

/// A PBX's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// http.conf; port 0 takes a free one.
    pub listen: SocketAddr,
    /// ari.conf.
    pub username: String,
    /// ari.conf.
    pub password: String,
    /// What `/asterisk/info` says.
    pub version: String,
    /// What `/asterisk/modules` says.
    pub modules: Vec<String>,
    /// Which Asterisk it is on an AudioSocket.
    pub release: Release,
    /// External media over an AudioSocket are starved by a silent server.
    pub starved: bool,
    /// websocket_client.conf: name, `uri` and login.
    pub websocket_clients: HashMap<String, (String, Option<(String, String)>)>,
    /// Contexts and extensions there are.
    pub dialplan: Vec<(String, String)>,
    /// What becomes of calls to endpoints that begin so; others answer after 50 ms.
    pub endpoints: Vec<(String, Endpoint)>,
    /// How long a playback takes.
    pub playback: Duration,
    /// `websocket_write_timeout`.
    pub write_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let modules = [
            "res_ari.so",
            "res_stasis.so",
            "chan_audiosocket.so",
            "res_audiosocket.so",
            "app_audiosocket.so",
        ];
        let more = ["chan_websocket.so", "chan_rtp.so", "res_stasis_snoop.so", "res_stasis_playback.so"];
        let names = |context: &str, all: &[&str]| -> Vec<(String, String)> {
            all.iter().map(|exten| (context.to_owned(), (*exten).to_owned())).collect()
        };
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            username: "tandem".to_owned(),
            password: "secret".to_owned(),
            version: "23.4.1".to_owned(),
            modules: modules.into_iter().chain(more).map(str::to_owned).collect(),
            release: Release::Headers,
            starved: false,
            websocket_clients: HashMap::new(),
            dialplan: [names("internal", &["100", "200"]), names("tandem-queues", &["support"])].concat(),
            endpoints: Vec::new(),
            playback: Duration::from_millis(300),
            write_timeout: Duration::from_millis(100),
        }
    }
}

/// What becomes of a call to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// It rings, and is answered after this long.
    Answers(Duration),
    /// It is busy.
    Busy,
    /// It rings for ever.
    RingsOn,
    /// It is refused with this Q.850 cause.
    Rejects(u16),
    /// It is an extension behind a `Local/` channel: its call ends with this `dialstatus`, and the channel with cause 0.
    Says(&'static str),
    /// There is no such endpoint.
    Unknown,
}

/// Where a channel went on in the dialplan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Went {
    /// The context.
    pub context: String,
    /// The extension.
    pub extension: String,
    /// The priority.
    pub priority: u32,
}

/// What became of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was hung up with this Q.850 cause, by the application or by its own side.
    HungUp {
        /// Q.850.
        cause: u16,
        /// The application did it.
        by_app: bool,
    },
    /// It went on in the dialplan.
    WentOn(Went),
    /// It was sent to another address of its own technology.
    Redirected(String),
    /// No application was there to take it.
    NotTaken,
}

/// A [`Fate`] and when it came.
#[derive(Debug, Clone)]
pub struct AppliedFate {
    /// What became of it.
    pub fate: Fate,
    /// When.
    pub at: Instant,
    /// Whose channel it was.
    pub number: String,
}

/// A request and what it was answered.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    /// `GET`, `POST` or `DELETE`.
    pub method: String,
    /// Below `/ari/`, decoded.
    pub path: String,
    /// Decoded.
    pub query: String,
    /// The answer's status.
    pub status: u16,
    /// What a refusal said.
    pub problem: String,
    /// It only asks, and may ask for what is not there.
    pub is_question: bool,
    /// When it came.
    #[serde(skip)]
    pub at: Option<Instant>,
}

/// What the PBX has to tell.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Mistakes of the application.
    pub violations: Vec<String>,
    /// What was asked of the PBX, in order.
    pub requests: Vec<Request>,
    /// Channels that went on in the dialplan.
    pub went: Vec<(String, Went)>,
    /// Event sockets that were opened.
    pub sockets: u64,
    /// What the application made and did not remove: ids of channels and bridges. As of this report.
    pub left_over: Vec<String>,
}

/// The PBX. Dropped, it is gone.
pub struct Asterisk {
    shared: Arc<Shared>,
}

impl Asterisk {
    /// Listens and serves on the current runtime.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start(settings: Settings) -> std::io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let shared = Arc::new(Shared {
            addr: listener.local_addr()?,
            config: settings,
            state: Mutex::default(),
            changes: watch::Sender::new(()),
            stop: CancellationToken::new(),
            up: Mutex::new(Some(CancellationToken::new())),
            sockets: Mutex::new(CancellationToken::new()),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(server::listen(shared.clone(), listener));
        Ok(Self { shared })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// What to put into `ari.url`.
    pub fn url(&self) -> String {
        format!("http://{}/ari", self.shared.addr)
    }

    /// What to put into `asterisk_websocket.connect`.
    pub fn media_url(&self) -> String {
        format!("ws://{}/media", self.shared.addr)
    }

    /// Somebody calls an extension whose dialplan is `Stasis(app)`.
    pub fn call(&self, app: &str, extension: &str, from: &str) -> Caller {
        self.call_with(app, &[], extension, from)
    }

    /// The same, with arguments: `Stasis(app,args…)`.
    pub fn call_with(&self, app: &str, args: &[&str], extension: &str, from: &str) -> Caller {
        self.call_as(app, args, extension, from, Person::new())
    }

    /// The same, by somebody who is there already.
    pub fn call_as(
        &self,
        app: &str,
        args: &[&str],
        extension: &str,
        from: &str,
        person: Arc<Person>,
    ) -> Caller {
        let id = self.shared.with(|state| {
            let id = state.fresh_id();
            let name = format!("PJSIP/{from}-{:08x}", state.counter);
            let mut made = rest::channel_of(&id, name, Behind::Person, person.clone());
            (made.state, made.number) = ("Ring", from.to_owned());
            (made.context, made.exten) = ("internal".to_owned(), extension.to_owned());
            state.insert(made);
            if !state.enter(&id, app, args) {
                state.leave(&id, Fate::NotTaken);
            }
            id
        });
        Caller { shared: self.shared.clone(), id, person }
    }

    /// The far end of a channel that the application made.
    pub fn party(&self, channel: &str) -> Option<Caller> {
        let person =
            self.shared.with(|state| state.channels.get(channel).map(|found| found.person.clone()))?;
        Some(Caller { shared: self.shared.clone(), id: channel.to_owned(), person })
    }

    /// Two people talk to each other, both in the application: what a snoop is for.
    pub fn conversation(&self, app: &str, bridge: &str, numbers: [&str; 2]) -> [Caller; 2] {
        let both = numbers.map(|number| self.call(app, "s", number));
        self.shared.with(|state| {
            let made = state::Bridge {
                id: bridge.to_owned(),
                name: String::new(),
                channels: Vec::new(),
                ticking: None,
            };
            state.bridges.insert(bridge.to_owned(), made);
            for caller in &both {
                state.change(&caller.id, "Up");
                state.join(bridge, &caller.id, false);
            }
        });
        both
    }

    /// A channel `WebSocket/INCOMING` of the dialplan's: the application may connect to `/media/<connection>`.
    pub fn incoming_media(&self, setup: websocket::Setup) -> WebSocketCall {
        let person = setup.person.clone().unwrap_or_else(Person::new);
        let id = self.shared.with(State::fresh_id);
        let (call, slot) = WebSocketCall::incoming(&id, setup, person.clone(), person);
        let waiting = state::Waiting { slot: Some(slot), done: call.done() };
        self.shared.lock().waiting.insert(call.connection().to_owned(), waiting);
        call
    }

    /// What there is to tell so far.
    pub fn report(&self) -> Report {
        self.shared.with(|state| {
            let mut report = state.report.clone();
            let ours = state
                .channels
                .values()
                .filter(|channel| !matches!(channel.behind, Behind::Person) || channel.is_ours);
            report.left_over =
                ours.map(|channel| channel.id.clone()).chain(state.bridges.keys().cloned()).collect();
            report
        })
    }

    /// Waits until the report is as `done` wants it; asks after every change.
    pub async fn until(&self, mut done: impl FnMut(&Report) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        while !done(&self.report()) {
            // The sender is ours: it cannot be gone.
            let _ = changes.changed().await;
        }
    }

    /// Waits until an application is there.
    pub async fn until_app(&self, name: &str) {
        let mut changes = self.shared.changes.subscribe();
        while !self.shared.lock().apps.contains_key(name) {
            // As above.
            let _ = changes.changed().await;
        }
    }

    /// The counts of the external medium of this channel, if it is an AudioSocket.
    pub fn audiosocket(&self, channel: &str) -> Option<audiosocket::Report> {
        self.shared.with(|state| match &state.channels.get(channel)?.behind {
            Behind::AudioSocket(call) => Some(call.report()),
            _ => None,
        })
    }

    /// The counts of the external medium of this channel, if it is a WebSocket.
    pub fn websocket(&self, channel: &str) -> Option<websocket::Report> {
        self.shared.with(|state| match &state.channels.get(channel)?.behind {
            Behind::WebSocket(call, _) => Some(call.report()),
            _ => None,
        })
    }

    /// Ids of the channels there are.
    pub fn channels(&self) -> Vec<String> {
        self.shared.with(|state| state.channels.keys().cloned().collect())
    }

    /// Waits until a channel is there whose id is as `wanted` says; its id.
    pub async fn until_channel(&self, mut wanted: impl FnMut(&str) -> bool) -> String {
        let mut changes = self.shared.changes.subscribe();
        loop {
            if let Some(found) = self.channels().into_iter().find(|id| wanted(id)) {
                return found;
            }
            // As above.
            let _ = changes.changed().await;
        }
    }

    /// The keys that were pressed towards a channel with `…/dtmf`.
    pub fn keys(&self, channel: &str) -> Option<String> {
        self.shared.with(|state| state.channels.get(channel).map(|found| found.keys.clone()))
    }

    /// Whether the application holds a channel.
    pub fn is_held(&self, channel: &str) -> bool {
        self.shared.with(|state| state.channels.get(channel).is_some_and(|found| found.held || found.music))
    }

    /// Sends an event of somebody's choice to an application.
    pub fn tell(&self, app: &str, event: Value) {
        self.shared.with(|state| state.tell(app, event));
    }

    /// All event sockets are cut, as by a network; nothing else happens.
    pub fn cut_events(&self) {
        let mut sockets = self.shared.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *sockets).cancel();
    }

    /// The PBX goes down: every connection and every channel is gone, and nobody is answered.
    pub fn go_down(&self) {
        if let Some(up) = self.shared.up.lock().unwrap_or_else(PoisonError::into_inner).take() {
            up.cancel();
        }
        self.cut_events();
        self.shared.with(|state| {
            state.apps.clear();
            for id in state.channels.keys().cloned().collect::<Vec<_>>() {
                state.leave(&id, Fate::HungUp { cause: 27, by_app: false });
            }
            state.bridges.clear();
            state.playbacks.clear();
        });
    }

    /// The PBX is there again, with nothing in it.
    pub fn come_up(&self) {
        let mut up = self.shared.up.lock().unwrap_or_else(PoisonError::into_inner);
        up.get_or_insert_with(CancellationToken::new);
    }
}

impl Drop for Asterisk {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.go_down();
    }
}

/// Somebody on a channel of the PBX.
pub struct Caller {
    shared: Arc<Shared>,
    id: String,
    person: Arc<Person>,
}

impl Caller {
    /// The channel's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Mouth and ears.
    pub fn person(&self) -> &Arc<Person> {
        &self.person
    }

    /// Says this, after all else.
    pub fn say(&self, pcm: impl Into<Arc<[i16]>>, rate: u32) {
        self.person.say(pcm, rate);
    }

    /// The next `span` of what is heard.
    pub async fn hear(&self, span: Duration) -> Vec<i16> {
        self.person.hear(span).await
    }

    /// Presses a key: the application is told, and what is in the bridge, unless that absorbs it.
    pub fn press(&self, digit: char) {
        self.shared.with(|state| {
            let event =
                json!({"type": "ChannelDtmfReceived", "digit": digit.to_string(), "duration_ms": 120});
            state.tell_of(&self.id, event);
            let Some(channel) = state.channels.get(&self.id).filter(|channel| !channel.absorbs) else {
                return;
            };
            let members = channel.bridge.as_ref().and_then(|bridge| state.bridges.get(bridge));
            let others = members.map(|bridge| bridge.channels.clone()).unwrap_or_default();
            for other in others.iter().filter_map(|id| state.channels.get(id)) {
                match &other.behind {
                    Behind::AudioSocket(call) => call.press(digit),
                    Behind::WebSocket(call, _) => call.press(digit),
                    Behind::Person | Behind::Rtp(_) | Behind::Snoop(_) => {}
                }
            }
        });
    }

    /// Puts the other side on hold, or takes it back.
    pub fn hold(&self, on: bool) {
        let event = if on { "ChannelHold" } else { "ChannelUnhold" };
        self.person.mute(on);
        self.shared.with(|state| state.tell_of(&self.id, json!({ "type": event })));
    }

    /// Hangs up.
    pub fn hang_up(&self) {
        self.shared.with(|state| state.hang_up(&self.id, 16, false));
    }

    /// `Ring`, `Up` and so on; `None` when the channel is gone.
    pub fn state(&self) -> Option<String> {
        self.shared.with(|state| state.channels.get(&self.id).map(|channel| channel.state.to_owned()))
    }

    /// Waits until the channel is up; `false` when it went before.
    pub async fn answered(&self) -> bool {
        let mut changes = self.shared.changes.subscribe();
        loop {
            match self.state().as_deref() {
                Some("Up") => return true,
                None => return false,
                Some(_) => {}
            }
            // As above.
            let _ = changes.changed().await;
        }
    }

    /// Waits for what becomes of the channel.
    pub async fn fate(&self) -> AppliedFate {
        let mut changes = self.shared.changes.subscribe();
        loop {
            if let Some(fate) = self.shared.lock().fates.get(&self.id) {
                return fate.clone();
            }
            // As above.
            let _ = changes.changed().await;
        }
    }
}

/// What all of the PBX's tasks share.
pub(super) struct Shared {
    addr: SocketAddr,
    config: Settings,
    state: Mutex<State>,
    changes: watch::Sender<()>,
    stop: CancellationToken,
    /// Connections live as long as this one; `None` while the PBX is down.
    up: Mutex<Option<CancellationToken>>,
    /// Event sockets live as long as this one.
    sockets: Mutex<CancellationToken>,
    tasks: TaskTracker,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a failed test already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells those who wait for it.
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changes.send_replace(());
        result
    }

    fn violation(&self, what: String) {
        self.with(|state| {
            if !state.report.violations.contains(&what) {
                state.violation(what);
            }
        });
    }
}
