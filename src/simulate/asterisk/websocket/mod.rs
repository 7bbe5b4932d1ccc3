//! A channel of `chan_websocket`, as a client of a media server or as the server it connects to.

mod driver;
mod session;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub use driver::{Counts, Direction};

use super::call::{Call, Channel, Order};
use super::measure::Pace;
use super::person::{Far, Person};
use super::uuid::Uuid;
use super::voice::Voice;
use crate::pbx::Coding;
use driver::{Driver, Name};
use session::Session;

/// How the channel differs from the plain one.
#[derive(Debug, Clone)]
pub struct Setup {
    /// `c(…)`.
    pub coding: Coding,
    /// `f(json)`.
    pub json: bool,
    /// `n`: the channel is up when the application says ANSWER, not before.
    pub no_answer: bool,
    /// `p`: messages are frames.
    pub passthrough: bool,
    /// `d(…)`.
    pub direction: Direction,
    /// As a client: `v(…)`, already with `&`.
    pub query: String,
    /// As a client: of websocket_client.conf.
    pub login: Option<(String, String)>,
    /// How much slower than the media server's clock the queue's timer goes.
    pub drift_ppm: f64,
    /// Audio comes before MEDIA_START (issue 1712).
    pub audio_first: bool,
    /// `channel_variables` of a JSON MEDIA_START.
    pub variables: Value,
    /// What goes wrong.
    pub fault: Option<Fault>,
    /// Who is on the channel.
    pub person: Option<Arc<Person>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            coding: Coding::Linear(16_000),
            json: false,
            no_answer: false,
            passthrough: false,
            direction: Direction::Both,
            query: String::new(),
            login: None,
            drift_ppm: 0.0,
            audio_first: false,
            variables: json!({}),
            fault: None,
            person: None,
        }
    }
}

impl Setup {
    /// In this coding.
    pub fn of(coding: Coding) -> Self {
        Self { coding, ..Self::default() }
    }

    /// With events and commands in JSON.
    pub fn json(mut self) -> Self {
        self.json = true;
        self
    }

    /// Something goes wrong.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// After this long the connection is gone without a close.
    Reset(Duration),
    /// After this long a close with this code comes.
    Close(Duration, u16),
    /// After this long nothing is read any more.
    StopReading(Duration),
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The application said HANGUP.
    ToldToHangUp,
    /// The application closed the socket, with this code if it gave one.
    Closed(Option<u16>),
    /// The connection failed; in words.
    Reset(String),
    /// The caller hung up.
    HungUp,
    /// The application did not read for 100 ms.
    NotRead,
    /// The [`Fault`] that was asked for.
    Fault,
    /// Nobody connected.
    NobodyCame,
}

/// What is known of a call.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `connection_id`.
    pub connection: String,
    /// Of the audio, in Asterisk's word.
    pub format: String,
    /// Whether the channel is up.
    pub answered: bool,
    /// How it ended; absent while it has not.
    pub ended: Option<How>,
    /// From the connection to the end, in milliseconds.
    pub lasted_ms: f64,
    /// What came, against the clock.
    pub pace: Pace,
    /// What the driver did with it.
    pub counts: Counts,
    /// Audio messages sent.
    pub sent: u64,
    /// Mistakes of the application.
    pub violations: Vec<String>,
    /// When the end was seen.
    #[serde(skip)]
    pub ended_at: Option<Instant>,
    /// When the latest FLUSH_MEDIA came.
    #[serde(skip)]
    pub flushed_at: Option<Instant>,
}

/// A connection that was not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server answered with this status.
    #[error("refused with {0}")]
    Refused(u16),
    /// It did not come that far.
    #[error("{0}")]
    Failed(String),
}

/// A call over a WebSocket.
pub type WebSocketCall = Call<Report>;

/// The place for the application's connection.
pub(super) type Slot = oneshot::Sender<WebSocketStream<TcpStream>>;

impl WebSocketCall {
    /// Connects to a media server, as `Dial(WebSocket/<client>/…)` does. `url` is the `uri` of websocket_client.conf.
    ///
    /// # Errors
    /// When the server refuses, or does not speak the protocol `media`.
    pub async fn connect(url: &str, setup: Setup) -> Result<Self, ConnectError> {
        let person = setup.person.clone().unwrap_or_else(Person::new);
        let id = format!("1760000000.{}", rand::random::<u16>());
        let ws = dial(url, &setup).await?;
        let (call, slot) = Self::prepare("ai1", &id, setup, person.clone(), person);
        // The task that waits for it has just been started.
        let _ = slot.send(ws);
        Ok(call)
    }

    /// A channel that waits for the application to connect; `id` is the channel's.
    pub(super) fn incoming(id: &str, setup: Setup, far: Arc<dyn Far>, person: Arc<Person>) -> (Self, Slot) {
        Self::prepare(&Uuid::random().to_string(), id, setup, far, person)
    }

    /// A channel of the client `client`, connected to `url`.
    pub(super) async fn outgoing(
        (client, url): (&str, &str),
        id: &str,
        setup: Setup,
        far: Arc<dyn Far>,
        person: Arc<Person>,
    ) -> Result<Self, ConnectError> {
        let ws = dial(url, &setup).await?;
        let (call, slot) = Self::prepare(client, id, setup, far, person);
        let _ = slot.send(ws);
        Ok(call)
    }

    fn prepare(
        connection: &str,
        id: &str,
        setup: Setup,
        far: Arc<dyn Far>,
        person: Arc<Person>,
    ) -> (Self, Slot) {
        let format = setup.coding.asterisk().unwrap_or("slin").to_owned();
        let report = Report {
            connection: connection.to_owned(),
            format: format.clone(),
            answered: false,
            ended: None,
            lasted_ms: 0.0,
            pace: Pace::default(),
            counts: Counts::default(),
            sent: 0,
            violations: Vec::new(),
            ended_at: None,
            flushed_at: None,
        };
        let name = Name {
            connection: connection.to_owned(),
            channel: format!("WebSocket/{connection}/0x7f20ac00{:04x}", rand::random::<u16>()),
            id: id.to_owned(),
            format,
            variables: setup.variables.clone(),
        };
        let frame = setup.coding.bytes_in(super::measure::SLOT);
        let driver = Driver::new(name, frame, setup.json, setup.passthrough, setup.direction);
        let (call, Channel { orders, report, finished }) = Self::new(connection.to_owned(), person, report);
        let (slot, arrives) = oneshot::channel::<WebSocketStream<TcpStream>>();
        tokio::spawn(async move {
            match (Voice::of(setup.coding), wait(arrives, orders).await) {
                (Ok(voice), Some((ws, orders))) => {
                    Session::new(ws, driver, voice, setup, far, report, orders).run().await;
                }
                _ => {
                    far.leave();
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.ended = Some(How::NobodyCame);
                    report.ended_at = Some(Instant::now());
                }
            }
            finished.send_replace(true);
        });
        (call, slot)
    }

    /// What the application connects to, after `/media/`.
    pub fn connection(&self) -> &str {
        self.name()
    }
}

/// The connection, unless the caller hangs up before.
async fn wait(
    arrives: oneshot::Receiver<WebSocketStream<TcpStream>>,
    mut orders: mpsc::Receiver<Order>,
) -> Option<(WebSocketStream<TcpStream>, mpsc::Receiver<Order>)> {
    // Nobody is told of keys that are pressed while there is no connection, as in chan_websocket; those after it
    // has come are the session's.
    let hung_up = async { while let Some(Order::Press(_)) = orders.recv().await {} };
    let ws = tokio::select! {
        biased;
        ws = arrives => ws.ok(),
        () = hung_up => None,
    };
    ws.map(|ws| (ws, orders))
}

/// The client's side of the upgrade.
async fn dial(url: &str, setup: &Setup) -> Result<WebSocketStream<TcpStream>, ConnectError> {
    let failed = |error: &dyn std::fmt::Display| ConnectError::Failed(error.to_string());
    let mut url = url.to_owned();
    if !setup.query.is_empty() {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&setup.query);
    }
    let uri: Uri = url.parse().map_err(|error| failed(&error))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let mut request: Request = uri.clone().into_client_request().map_err(|error| failed(&error))?;
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", HeaderValue::from_static("media"));
    if let Some((user, password)) = &setup.login {
        let pair = base64_simd::STANDARD.encode_to_string(format!("{user}:{password}"));
        let value = HeaderValue::from_str(&format!("Basic {pair}")).map_err(|error| failed(&error))?;
        headers.insert("Authorization", value);
    }
    let connect = async {
        let stream =
            TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await.map_err(|e| failed(&e))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        tokio_tungstenite::client_async_with_config(request, stream, Some(config())).await.map_err(|error| {
            match error {
                tokio_tungstenite::tungstenite::Error::Http(answer) => {
                    ConnectError::Refused(answer.status().as_u16())
                }
                other => failed(&other),
            }
        })
    };
    match tokio::time::timeout(CONNECT_PATIENCE, connect).await {
        Ok(connected) => connected.map(|(ws, _)| ws),
        Err(_) => Err(ConnectError::Failed("no answer in 2 seconds".to_owned())),
    }
}

pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .write_buffer_size(0)
        .max_message_size(Some(1 << 20))
        .max_frame_size(Some(1 << 20))
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
