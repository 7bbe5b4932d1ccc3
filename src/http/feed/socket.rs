//! The shell of one feed socket: carries frames, committed events and log pages to and from its session.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep_until;

use super::session::{CLOSE_RESTART, Numbered, PAGE, Request, Session, Topic};
use crate::event::Ephemeral;
use crate::http::auth::Caller;
use crate::http::problem::{Problem, store_problem};
use crate::http::{Api, calls, providers};
use crate::store::{Committed, FeedItem, Shown, Subscription, SystemEvent};
use crate::time::UnixMs;

/// Upgrades an authenticated request to the feed.
///
/// # Errors
/// 401 without a token, 403 for a page of another origin, 503 when too many sockets are open.
pub async fn events(
    State(api): State<Arc<Api>>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    let Extension(caller) = caller.ok_or_else(Problem::unauthorized)?;
    same_origin(&headers)?;
    let permit = Arc::clone(&api.sockets)
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("too many feed sockets are open"))?;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(LARGEST_FRAME)
        .max_frame_size(LARGEST_FRAME)
        .write_buffer_size(0);
    Ok(upgrade.on_upgrade(move |socket| Connection::new(api, caller, socket, permit).run()).into_response())
}

/// Browsers say where a page comes from; programs do not.
fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get("origin").and_then(|v| v.to_str().ok()) else { return Ok(()) };
    let host = headers.get("host").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let from = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    if from.eq_ignore_ascii_case(host) {
        Ok(())
    } else {
        Err(Problem::forbidden("the page that opens this socket comes from another origin"))
    }
}

/// As the system's topic numbers it.
fn of_system(event: &SystemEvent) -> Numbered {
    Numbered { seq: event.seq, body: event.body().into() }
}

struct Connection {
    api: Arc<Api>,
    caller: Caller,
    socket: WebSocket,
    feed: Subscription,
    session: Session,
    _permit: OwnedSemaphorePermit,
}

enum Woken {
    Client(Option<Result<Message, axum::Error>>),
    Feed(Option<FeedItem>),
    Timeout,
    Stopping,
}

impl Connection {
    fn new(api: Arc<Api>, caller: Caller, socket: WebSocket, permit: OwnedSemaphorePermit) -> Self {
        let feed = api.feed.subscribe();
        let name = format!("{:016x}", rand::random::<u64>());
        let time = UnixMs::now().to_rfc3339();
        let session = Session::new(Instant::now(), api.feed.epoch(), &name, &time, api.heartbeat);
        Self { api, caller, socket, feed, session, _permit: permit }
    }

    async fn run(mut self) {
        metrics::gauge!("tandem_feed_sockets").increment(1.0);
        // The peer has gone or is closed: there is nobody to tell.
        let _gone = self.serve().await;
        metrics::gauge!("tandem_feed_sockets").decrement(1.0);
    }

    async fn serve(&mut self) -> Result<(), axum::Error> {
        loop {
            if !self.answer_requests().await? {
                return Ok(());
            }
            self.read_pages().await;
            while let Some(frame) = self.session.next_frame() {
                // While a slow client holds this up, the feed's own bounded backlog holds what happens,
                // and beyond that the log does.
                let sent = tokio::time::timeout(WRITE_PATIENCE, self.socket.send(Message::text(frame))).await;
                if sent.is_err() {
                    return self.close(super::session::CLOSE_SLOW, "the socket is not read").await;
                }
                sent.unwrap_or(Ok(()))?;
            }
            if self.session.wants_page().is_some() {
                continue;
            }
            let woken = tokio::select! {
                message = self.socket.recv() => Woken::Client(message),
                item = self.feed.next() => Woken::Feed(item),
                () = sleep_until(self.session.next_timeout().into()) => Woken::Timeout,
                () = self.api.stopping.cancelled() => Woken::Stopping,
            };
            match woken {
                Woken::Client(Some(message)) => match message? {
                    Message::Text(text) => self.session.client_text(Instant::now(), &text),
                    Message::Close(_) => return Ok(()),
                    Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {
                        self.session.client_alive(Instant::now());
                    }
                },
                Woken::Client(None) => return Ok(()),
                Woken::Feed(Some(item)) => self.feed_item(&item),
                Woken::Feed(None) | Woken::Stopping => {
                    let bye =
                        json!({"v": 1, "op": "bye", "type": "bye", "reason": "restart", "retry_ms": 1000});
                    self.socket.send(Message::text(bye.to_string())).await?;
                    return self.close(CLOSE_RESTART, "the server restarts").await;
                }
                Woken::Timeout => {
                    if self.session.handle_timeout(Instant::now()) {
                        self.socket.send(Message::Ping(Vec::new().into())).await?;
                    }
                }
            }
        }
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), axum::Error> {
        let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // A client that does not even read this is gone all the same.
        if tokio::time::timeout(FAREWELL, self.socket.send(frame)).await.is_err() {
            return Ok(());
        }
        // What the client has under way is still read: a socket closed over unread bytes is reset, and the
        // client would never see why.
        let farewell = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        // A client that does not say goodbye is left without.
        let _impolite = tokio::time::timeout(FAREWELL, farewell).await;
        Ok(())
    }

    /// Answers what the client asked for; `false` once the socket is closed.
    async fn answer_requests(&mut self) -> Result<bool, axum::Error> {
        while let Some(request) = self.session.next_request() {
            match request {
                Request::Subscribe { topic, epoch, since } => {
                    if let Err(problem) = self.subscribe(&topic, epoch, since).await {
                        self.session.refused(&topic, &problem.to_json());
                    }
                }
                Request::Command { cmd_id, name, args } => {
                    let outcome = self.command(&name, &args).await;
                    self.session.reply(&cmd_id, outcome.map_err(|problem| problem.to_json()));
                }
                Request::Close(code, reason) => {
                    self.close(code, reason).await?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn subscribe(
        &mut self,
        topic: &Topic,
        epoch: Option<String>,
        since: Option<u64>,
    ) -> Result<(), Problem> {
        let known = self.api.feed.epoch();
        let head = self.head(topic).await?;
        let resumes = epoch.is_none_or(|epoch| *epoch == *known) && since.is_some_and(|since| since <= head);
        let snapshot = if resumes { None } else { Some(self.snapshot(topic).await?) };
        self.session.subscribed(topic.clone(), since, head, snapshot);
        Ok(())
    }

    /// The topic's last number, for those who may see it.
    async fn head(&mut self, topic: &Topic) -> Result<u64, Problem> {
        match topic {
            Topic::Wall => Ok(self.api.feed.wall_head(self.caller.organization.as_deref())),
            Topic::System => self.caller.may_administer().map(|()| self.api.feed.system_head()),
            Topic::Call(call) => {
                let owner = self.api.feed.owner(*call).await.map_err(store_problem)?;
                let owner = owner.filter(|owner| self.caller.sees(owner.as_deref()));
                if owner.is_none() {
                    return Err(Problem::not_found(format!("there is no call {call}")));
                }
                self.api.feed.call_head(*call).await.map_err(store_problem)
            }
        }
    }

    async fn snapshot(&mut self, topic: &Topic) -> Result<Value, Problem> {
        match topic {
            Topic::Wall => calls::wall_snapshot(&self.api, &self.caller).await,
            Topic::Call(call) => calls::call_snapshot(&self.api, *call).await,
            Topic::System => Ok(json!({"providers": providers::states(&self.api)})),
        }
    }

    async fn command(&mut self, name: &str, args: &Value) -> Result<(), Problem> {
        let call = args.get("call_id").and_then(Value::as_str).unwrap_or_default();
        let text = args.get("text").and_then(Value::as_str).unwrap_or_default();
        match name {
            "call.end" => calls::end_call(&self.api, &self.caller, call, args).await,
            "call.say" => calls::say_on_call(&self.api, &self.caller, call, text).await,
            _ => Err(Problem::bad_request(format!(
                "there is no command `{}`; known: call.end, call.say",
                name.escape_debug()
            ))),
        }
    }

    /// Reads what slow topics are missing, as far as the outbox has room.
    async fn read_pages(&mut self) {
        while let Some((topic, since)) = self.session.wants_page() {
            if topic == Topic::System {
                let events = self.api.feed.system_since(since, PAGE as u32).await;
                let events = events.unwrap_or_else(|error| {
                    tracing::warn!(%error, "the system's log cannot be read for a feed socket");
                    Vec::new()
                });
                self.session.page(&topic, &events.iter().map(of_system).collect::<Vec<_>>());
                continue;
            }
            let events = match &topic {
                Topic::Wall => {
                    let organization = self.caller.organization.as_deref();
                    self.api.feed.wall_since(organization, since, PAGE as u32).await
                }
                Topic::Call(call) => self.api.feed.call_since(*call, since, PAGE as u32).await,
                Topic::System => Ok(Vec::new()),
            };
            match events {
                Ok(events) => {
                    let numbered: Vec<_> = events.iter().filter_map(|e| self.numbered(&topic, e)).collect();
                    self.session.page(&topic, &numbered);
                }
                Err(error) => {
                    tracing::warn!(%error, "the log cannot be read for a feed socket");
                    self.session.page(&topic, &[]);
                }
            }
        }
    }

    fn feed_item(&mut self, item: &FeedItem) {
        match item {
            FeedItem::Committed(event) => {
                for topic in [Topic::Wall, Topic::Call(event.call)] {
                    if self.session.listens(&topic)
                        && self.caller.sees(event.organization.as_deref())
                        && let Some(numbered) = self.numbered(&topic, event)
                    {
                        self.session.committed(&topic, &numbered);
                    }
                }
            }
            FeedItem::System(event) => self.session.committed(&Topic::System, &of_system(event)),
            FeedItem::Shown(shown) => self.shown(shown),
            FeedItem::Lagged(count) => {
                metrics::counter!("tandem_feed_lagged_total").increment(*count);
                self.session.lagged();
            }
        }
    }

    fn shown(&mut self, shown: &Shown) {
        let topic = Topic::Call(shown.call);
        if !self.session.listens(&topic) || !self.caller.sees(shown.organization.as_deref()) {
            return;
        }
        let key = match &shown.event {
            Ephemeral::Partial { line_id, .. } => line_id.to_string(),
            Ephemeral::Level { .. } => "level".to_owned(),
        };
        let Ok(Value::Object(event)) = serde_json::to_value(&shown.event) else { return };
        let (kind, data) = (event.get("type"), event.get("data"));
        if let (Some(kind), Some(data)) = (kind, data) {
            let ts = shown.at.to_rfc3339();
            let body = format!(r#""ts":"{ts}","type":{kind},"call_id":"{}","data":{data}"#, shown.call);
            self.session.ephemeral(&topic, &key, &body);
        }
    }

    /// The event as that topic numbers it for this client.
    fn numbered(&self, topic: &Topic, event: &Committed) -> Option<Numbered> {
        let seq = match topic {
            Topic::Call(_) => event.seq,
            Topic::Wall if self.caller.organization.is_some() => event.org_seq?,
            Topic::Wall => event.wall_seq,
            Topic::System => return None,
        };
        Some(Numbered { seq, body: event.body().into() })
    }
}

/// The WebSocket sub-protocol of the feed.
pub const PROTOCOL: &str = "tandem.console.v1";
const LARGEST_FRAME: usize = 64 * 1024;
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);
const WRITE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
