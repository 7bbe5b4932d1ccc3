//! The task that owns the application: carries events, commands and answers in, and requests, callers and
//! words to legs out.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::{Action, App, Command, Outgoing};
use super::client::Client;
use super::control::LegControl;
use super::events::{News, Reader};
use super::media::{self, For, MediaParts, Prepared, Shared};
use super::model::{Channel, Info};
use super::request::{Outcome, PlayTo, Request};
use super::settings::Settings;
use crate::id::{CallId, LegId};
use crate::pbx::{ChannelEvent, Departure, LegParts, Originate, OutgoingChannel, PendingMedia, Visitor};
use crate::time::UnixMs;

/// The door's name, in records and metrics.
pub const DOOR: &str = "ari";

/// What the shell is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A leg's command.
    Leg(LegId, Command),
    /// A medium is a leg's, or cannot be.
    Delivered(LegId, u32, Result<(), String>),
    /// Somebody is to be called.
    Originate(Outgoing, oneshot::Sender<LegParts>),
    /// A leg that is there already is to call somebody.
    Call(LegId, Outgoing, LegSide),
    /// A channel is to be listened to.
    Listen {
        channel: String,
        called: String,
        caller: Option<String>,
        heard: oneshot::Sender<Result<LegId, Departure>>,
    },
    /// Who hears what is played to a channel.
    PlayTo(String, oneshot::Sender<PlayTo>),
    /// The leg of a channel.
    LegOf(String, oneshot::Sender<Option<LegId>>),
}

/// How things are with the PBX.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Since when events come; `None`: they do not.
    pub connected_since: Option<UnixMs>,
    /// Why they do not.
    pub problem: Option<String>,
    /// The PBX's release, once it was told.
    pub version: Option<String>,
    /// Legs there are.
    pub legs: usize,
}

/// What others may ask of the PBX.
#[derive(Debug, Clone)]
pub struct AriHandle {
    messages: mpsc::Sender<Message>,
    client: Client,
    status: watch::Receiver<Status>,
    settings: Arc<(Settings, MediaParts)>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AriError {
    /// The channel, or whatever was named, is not there.
    #[error("the PBX has no such channel")]
    NotThere,
    /// The PBX refused.
    #[error("the PBX refused: {0}")]
    Refused(String),
    /// The PBX did not answer.
    #[error("the PBX cannot be reached: {0}")]
    Unreachable(String),
    /// The section names no endpoint for outgoing calls.
    #[error("[ari] makes no calls: write an endpoint such as \"PJSIP/{{number}}@carrier\" as `dial`")]
    NoDial,
    /// Tandem is shutting down.
    #[error("Tandem is shutting down")]
    Stopping,
}

/// Opens the door: callers go to `visitors`. From `stop` on they are let go on in the dialplan; who is in stays, and
/// its tasks end when nobody is.
///
/// # Errors
/// In words, when the settings cannot be used. A PBX that is not there is no error: it is waited for.
pub fn start(
    settings: Settings,
    parts: MediaParts,
    visitors: mpsc::Sender<Visitor>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<AriHandle, String> {
    let client = Client::new(&settings.access)?;
    let (messages, inbox) = mpsc::channel(MESSAGES);
    let (news_sender, news) = mpsc::channel(EVENTS);
    let (status_sender, status) = watch::channel(Status::default());
    let missed = Arc::new(AtomicBool::new(false));
    let reader = Reader {
        access: settings.access.clone(),
        application: settings.app.application.clone(),
        news: news_sender,
        missed: Arc::clone(&missed),
    };
    let done = CancellationToken::new();
    tasks.spawn(reader.run(done.clone()));
    let app = App::new(Instant::now(), settings.app.clone(), Box::new(LegId::fresh));
    let shared = Arc::new((settings, parts));
    let shell = Shell {
        app,
        shared: Arc::clone(&shared),
        client: client.clone(),
        messages: messages.clone(),
        visitors,
        status: status_sender,
        legs: HashMap::new(),
        prepared: HashMap::new(),
        asking: JoinSet::new(),
        listeners: HashMap::new(),
        complained: false,
    };
    tasks.spawn(shell.run(inbox, news, missed, stop, done));
    Ok(AriHandle { messages, client, status, settings: shared })
}

impl AriHandle {
    /// How things are.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until events come.
    pub async fn connected(&self) {
        let mut status = self.status.clone();
        let _closed = status.wait_for(|status| status.connected_since.is_some()).await;
    }

    /// Name of the Stasis application.
    pub fn application(&self) -> &str {
        &self.settings.0.app.application
    }

    /// The PBX's address.
    pub fn url(&self) -> &str {
        &self.settings.0.access.url
    }

    /// Whether calls leave over the PBX's channels.
    pub fn dials(&self) -> bool {
        self.settings.0.dial.is_some()
    }

    /// Calls a number. What becomes of it is told to the leg.
    ///
    /// # Errors
    /// When no endpoint is configured, or Tandem is shutting down.
    pub async fn call(
        &self,
        number: &str,
        caller: Option<String>,
        timeout: Duration,
    ) -> Result<LegParts, AriError> {
        let endpoint = self.settings.0.endpoint(number).ok_or(AriError::NoDial)?;
        self.originate(Outgoing { endpoint, caller, timeout, variables: Vec::new() }).await
    }

    /// Calls an endpoint. What becomes of it is told to the leg.
    ///
    /// # Errors
    /// When Tandem is shutting down.
    pub async fn originate(&self, call: Outgoing) -> Result<LegParts, AriError> {
        let (sender, receiver) = oneshot::channel();
        self.send(Message::Originate(call, sender)).await?;
        receiver.await.map_err(|_| AriError::Stopping)
    }

    /// Listens to a channel: a visitor comes who has called `called`. Answers when the PBX lets us hear.
    ///
    /// # Errors
    /// When there is no such channel, or the PBX refuses or does not answer.
    pub async fn listen(&self, channel: &str, called: &str) -> Result<LegId, AriError> {
        let heard = self.channel(channel).await?;
        let caller = Some(heard.caller.number).filter(|number| !number.is_empty());
        let (sender, receiver) = oneshot::channel();
        let (channel, called) = (channel.to_owned(), called.to_owned());
        self.send(Message::Listen { channel, called, caller, heard: sender }).await?;
        let heard = tokio::time::timeout(LISTEN_LIMIT, receiver).await;
        let late = |_| AriError::Unreachable("its channel did not come".to_owned());
        let heard = heard.map_err(late)?.map_err(|_| AriError::Stopping)?;
        heard.map_err(|departure| AriError::Refused(departure.reason))
    }

    /// One channel of the PBX.
    ///
    /// # Errors
    /// When it is not there, or the PBX does not tell.
    pub async fn channel(&self, id: &str) -> Result<Channel, AriError> {
        read(&self.ask(Request::Channel { channel: id.to_owned() }).await?)
    }

    /// All channels of the PBX.
    ///
    /// # Errors
    /// When the PBX does not tell.
    pub async fn channels(&self) -> Result<Vec<Channel>, AriError> {
        read(&self.ask(Request::Channels).await?)
    }

    /// The leg that a channel is of.
    ///
    /// # Errors
    /// When Tandem is shutting down.
    pub async fn leg_of(&self, channel: &str) -> Result<Option<LegId>, AriError> {
        let (sender, receiver) = oneshot::channel();
        self.send(Message::LegOf(channel.to_owned(), sender)).await?;
        receiver.await.map_err(|_| AriError::Stopping)
    }

    /// Plays a sound of the PBX's, such as `sound:hello-world`, to a channel of the application and whoever is in
    /// its bridge. Answers the playback, for [`Self::stop_play`].
    ///
    /// # Errors
    /// When the channel is not there, or the PBX refuses.
    pub async fn play(&self, channel: &str, media: &str) -> Result<String, AriError> {
        let (sender, receiver) = oneshot::channel();
        self.send(Message::PlayTo(channel.to_owned(), sender)).await?;
        let to = receiver.await.map_err(|_| AriError::Stopping)?;
        let playback = format!("tandem-play-{}", LegId::fresh());
        self.ask(Request::Play { to, playback: playback.clone(), media: media.to_owned() }).await?;
        Ok(playback)
    }

    /// Stops a playback; one that is over already is.
    ///
    /// # Errors
    /// When the PBX does not answer.
    pub async fn stop_play(&self, playback: &str) -> Result<(), AriError> {
        match self.ask(Request::StopPlay { playback: playback.to_owned() }).await {
            Ok(_) | Err(AriError::NotThere) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask(&self, request: Request) -> Result<Vec<u8>, AriError> {
        match self.client.ask(&request).await {
            Outcome::Done(body) => Ok(body),
            Outcome::NotThere(_) => Err(AriError::NotThere),
            refused @ Outcome::Refused { .. } => Err(AriError::Refused(refused.problem())),
            Outcome::Lost(cause) => Err(AriError::Unreachable(cause)),
        }
    }

    async fn send(&self, message: Message) -> Result<(), AriError> {
        self.messages.send(message).await.map_err(|_| AriError::Stopping)
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, AriError> {
    serde_json::from_slice(body)
        .map_err(|error| AriError::Refused(format!("its answer makes no sense: {error}")))
}

/// Where what concerns a leg goes.
#[derive(Debug)]
pub(super) struct LegSide {
    events: mpsc::Sender<ChannelEvent>,
    media: mpsc::Sender<PendingMedia>,
    /// Not yet anybody's.
    receivers: Option<(mpsc::Receiver<ChannelEvent>, mpsc::Receiver<PendingMedia>)>,
}

impl LegSide {
    fn new() -> Self {
        let (events, heard) = mpsc::channel(LEG_EVENTS);
        let (media, come) = mpsc::channel(2);
        Self { events, media, receivers: Some((heard, come)) }
    }
}

impl Originate for AriHandle {
    fn originate(&self, leg: LegId, to: &OutgoingChannel) -> LegParts {
        let mut side = LegSide::new();
        let receivers = side.receivers.take();
        let events_in = side.events.clone();
        let refused = |reason: String| {
            // The queue is empty yet.
            let departure = Departure { cause: SWITCH_CONGESTION, reason, by_peer: false };
            let _room = events_in.try_send(ChannelEvent::Gone(departure));
        };
        match self.settings.0.endpoint(&to.number) {
            None => refused(AriError::NoDial.to_string()),
            Some(endpoint) => {
                let (caller, timeout) = (caller_id(to), to.ring_timeout);
                let call = Outgoing { endpoint, caller, timeout, variables: Vec::new() };
                if self.messages.try_send(Message::Call(leg, call, side)).is_err() {
                    refused("too much is asked of the PBX at once".to_owned());
                }
            }
        }
        let (events, media) = receivers.unwrap_or_else(|| (mpsc::channel(1).1, mpsc::channel(1).1));
        let control = LegControl::new(leg, self.messages.clone());
        LegParts { id: leg, up: false, control: Some(Box::new(control)), events, media }
    }
}

/// As Asterisk writes a caller: `"Name" <number>`.
fn caller_id(to: &OutgoingChannel) -> Option<String> {
    let number = to.caller.as_ref()?;
    Some(match &to.caller_name {
        Some(name) => format!("\"{}\" <{number}>", name.replace(['"', '<', '>'], "")),
        None => number.clone(),
    })
}

/// Q.850.
const SWITCH_CONGESTION: u16 = 42;

struct Shell {
    app: App,
    shared: Shared,
    client: Client,
    messages: mpsc::Sender<Message>,
    visitors: mpsc::Sender<Visitor>,
    status: watch::Sender<Status>,
    legs: HashMap<LegId, LegSide>,
    prepared: HashMap<(LegId, u32), Prepared>,
    asking: JoinSet<(u64, Outcome)>,
    listeners: HashMap<LegId, oneshot::Sender<Result<LegId, Departure>>>,
    complained: bool,
}

impl Shell {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut news: mpsc::Receiver<News>,
        missed: Arc<AtomicBool>,
        stop: CancellationToken,
        done: CancellationToken,
    ) {
        let mut stopping = false;
        loop {
            self.act();
            self.tell_status();
            if stopping && self.app.is_idle() {
                break;
            }
            let now = Instant::now();
            let wake = self.app.next_timeout().unwrap_or(now + LONGEST_SLEEP);
            tokio::select! {
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.app.close();
                }
                Some(message) = inbox.recv() => {
                    // Calls that are cut off say so in the same moment: whoever is passed on must know why.
                    if !stopping && stop.is_cancelled() {
                        stopping = true;
                        self.app.close();
                    }
                    self.message(message);
                }
                Some(news) = news.recv() => self.news(news),
                Some(answer) = self.asking.join_next() => match answer {
                    Ok((request, outcome)) => self.app.answered(Instant::now(), request, outcome),
                    Err(error) => tracing::error!(%error, "a request to the PBX was given up"),
                },
                () = tokio::time::sleep_until(wake.into()) => self.app.handle_timeout(Instant::now()),
            }
            if missed.swap(false, Ordering::AcqRel) {
                tracing::warn!(
                    "events of the PBX came faster than they could be taken; looking at the PBX instead"
                );
                self.app.missed(Instant::now());
            }
        }
        done.cancel();
    }

    fn message(&mut self, message: Message) {
        let now = Instant::now();
        match message {
            Message::Leg(leg, command) => self.app.command(now, leg, command),
            Message::Delivered(leg, count, result) => {
                if let Err(problem) = &result {
                    tracing::warn!(%leg, problem, "no audio between the PBX and us");
                }
                self.app.delivered(now, leg, count, result);
            }
            Message::Originate(call, reply) => {
                let leg = self.app.originate(now, call);
                let parts = self.parts(leg);
                // Nobody waits any more: dropping the parts hangs up.
                let _unwanted = parts.map(|parts| reply.send(parts));
            }
            Message::Call(leg, call, side) => {
                self.legs.insert(leg, side);
                self.app.originate_as(now, leg, call);
            }
            Message::Listen { channel, called, caller, heard } => {
                let leg = self.app.listen(now, &channel, called, caller);
                self.legs.insert(leg, LegSide::new());
                self.listeners.insert(leg, heard);
            }
            Message::PlayTo(channel, reply) => {
                let _unwanted = reply.send(self.app.play_to(&channel));
            }
            Message::LegOf(channel, reply) => {
                let _unwanted = reply.send(self.app.leg_of(&channel));
            }
        }
    }

    fn news(&mut self, news: News) {
        let now = Instant::now();
        match news {
            News::Event(event) => self.app.event(now, event),
            News::Connected => {
                self.complained = false;
                tracing::info!(application = self.shared.0.app.application, "the PBX's events come");
                self.status.send_modify(|status| {
                    (status.connected_since, status.problem) = (Some(UnixMs::now()), None);
                });
                self.app.connected(now);
                self.ask_version();
            }
            News::Disconnected(problem) => {
                // Once until it works again; the rest is in the status.
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(problem, "the PBX's events do not come; trying again");
                }
                self.status.send_modify(|status| {
                    (status.connected_since, status.problem) = (None, Some(problem));
                });
                self.app.disconnected(now);
            }
        }
    }

    fn ask_version(&mut self) {
        let (client, status) = (self.client.clone(), self.status.clone());
        tokio::spawn(async move {
            if let Outcome::Done(body) = client.ask(&Request::Info).await
                && let Ok(info) = serde_json::from_slice::<Info>(&body)
            {
                status.send_modify(|status| status.version = Some(info.system.version));
            }
        });
    }

    fn tell_status(&mut self) {
        let legs = self.app.legs();
        self.status.send_if_modified(|status| std::mem::replace(&mut status.legs, legs) != legs);
    }

    /// Does what the application wants done.
    fn act(&mut self) {
        while let Some(action) = self.app.poll_action() {
            match action {
                Action::Ask(id, request) => self.ask(id, request),
                Action::Visitor { leg, called, caller, channel, up: _ } => {
                    self.visit(leg, called, caller, channel);
                }
                Action::Tell(leg, event) => self.tell(leg, event),
                Action::Prepare { leg, count } => self.prepare(leg, count),
                Action::Deliver { leg, count, channel } => {
                    let who = self.who(leg, count);
                    if let (Some(who), Some(prepared)) = (who, self.prepared.remove(&(leg, count))) {
                        let (settings, parts) = &*self.shared;
                        let prepared = media::deliver(settings, parts, who, prepared, &channel);
                        self.prepared.insert((leg, count), prepared);
                    }
                }
                Action::Discard { leg, count } => drop(self.prepared.remove(&(leg, count))),
            }
        }
    }

    fn ask(&mut self, id: u64, request: Request) {
        if self.asking.len() >= WAITING {
            let full = Outcome::Lost("too many requests wait for the PBX".to_owned());
            return self.app.answered(Instant::now(), id, full);
        }
        let client = self.client.clone();
        metrics::counter!("tandem_ari_requests_total").increment(1);
        self.asking.spawn(async move {
            // Whoever waits for the outcome must have one, whatever happens here.
            let asked = AssertUnwindSafe(client.ask(&request)).catch_unwind().await;
            let outcome = asked.unwrap_or_else(|_| Outcome::Lost("the request failed here".to_owned()));
            if !outcome.is_done() {
                metrics::counter!("tandem_ari_requests_failed_total").increment(1);
                tracing::debug!(?request, problem = outcome.problem(), "the PBX did not do it");
            }
            (id, outcome)
        });
    }

    fn visit(&mut self, leg: LegId, called: String, caller: Option<String>, channel: String) {
        let Some(parts) = self.parts(leg) else { return };
        if let Some(heard) = self.listeners.remove(&leg) {
            let _unwanted = heard.send(Ok(leg));
        }
        let (call, reference) = (CallId::fresh(), channel);
        let visitor = Visitor { call, door: DOOR, called, caller, reference, source: None, leg: parts };
        if self.visitors.try_send(visitor).is_err() {
            // The parts are dropped, which hangs up.
            metrics::counter!("tandem_ari_refused_total").increment(1);
            tracing::warn!("a caller of the PBX is refused: too many wait already");
        }
    }

    /// What a leg is made of; `None`: it has been taken.
    fn parts(&mut self, leg: LegId) -> Option<LegParts> {
        let side = self.legs.entry(leg).or_insert_with(LegSide::new);
        let (events, media) = side.receivers.take()?;
        let control = LegControl::new(leg, self.messages.clone());
        // Whether the caller is answered already is not told: first the audio is put in order, and "up" said then.
        Some(LegParts { id: leg, up: false, control: Some(Box::new(control)), events, media })
    }

    fn tell(&mut self, leg: LegId, event: ChannelEvent) {
        let last = matches!(event, ChannelEvent::Gone(_) | ChannelEvent::Left);
        if let ChannelEvent::Gone(departure) = &event
            && let Some(heard) = self.listeners.remove(&leg)
        {
            let _unwanted = heard.send(Err(departure.clone()));
        }
        if let Some(side) = self.legs.get(&leg) {
            // The last place is kept for the end.
            let room = side.events.capacity() > 1;
            if !(last || room) || side.events.try_send(event).is_err() {
                metrics::counter!("tandem_leg_queue_full_total").increment(1);
            }
        }
        if last {
            self.legs.remove(&leg);
            self.prepared.retain(|(whose, _), _| *whose != leg);
        }
    }

    fn who(&self, leg: LegId, count: u32) -> Option<For> {
        let media = self.legs.get(&leg)?.media.clone();
        Some(For { leg, count, media, messages: self.messages.clone() })
    }

    fn prepare(&mut self, leg: LegId, count: u32) {
        // A visitor's parts are made when the visitor is; a medium may be wanted first.
        self.legs.entry(leg).or_insert_with(LegSide::new);
        let Some(who) = self.who(leg, count) else { return };
        let (settings, parts) = &*self.shared;
        let release = self.status.borrow().version.clone();
        let sized = release.is_none_or(|release| media::sizes_audio(&release));
        let medium = match media::prepare(settings, parts, who, sized) {
            Ok((medium, prepared)) => {
                self.prepared.insert((leg, count), prepared);
                Ok(medium)
            }
            Err(problem) => {
                tracing::warn!(%leg, problem, "no audio between the PBX and us");
                Err(problem)
            }
        };
        self.app.prepared(Instant::now(), leg, count, medium);
    }
}

/// Commands and news of media that wait.
const MESSAGES: usize = 1024;
/// Events that wait: those of a thousand calls that begin at once.
const EVENTS: usize = 8192;
const LEG_EVENTS: usize = 64;
/// Requests under way or waiting.
const WAITING: usize = 4096;
/// A request's limit, and the channel's.
const LISTEN_LIMIT: Duration = Duration::from_secs(15);
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
