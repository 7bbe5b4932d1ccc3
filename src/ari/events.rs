//! The event socket: read at once, always. Asterisk cuts a client that is slower than 100 ms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::client::authorization;
use super::model::Event;
use super::request::encode;
use super::settings::Access;
use crate::config::values::split_url;
use crate::telemetry::for_terminal;

/// What the reader tells.
#[derive(Debug)]
pub enum News {
    /// Events come.
    Connected,
    /// An event.
    Event(Event),
    /// Events do not come; in words, why.
    Disconnected(String),
}

/// Reads events until `stop`.
#[derive(Debug)]
pub struct Reader {
    /// How the PBX is reached.
    pub access: Access,
    /// The application.
    pub application: String,
    /// Where events go.
    pub news: mpsc::Sender<News>,
    /// Set when events were dropped because nobody took them: look at the PBX instead.
    pub missed: Arc<AtomicBool>,
}

trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}
type Socket = WebSocketStream<Box<dyn Transport>>;

impl Reader {
    /// Connects, reads, connects again.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            let open = stop.run_until_cancelled(tokio::time::timeout(CONNECT_LIMIT, self.open()));
            let Some(opened) = open.await else { return };
            let problem = match opened.unwrap_or_else(|_| Err("no answer within 5 s".to_owned())) {
                Ok(socket) => {
                    metrics::gauge!("tandem_ari_connected").set(1.0);
                    if self.news.send(News::Connected).await.is_err() {
                        return;
                    }
                    let since = Instant::now();
                    let end = self.read(socket, &stop).await;
                    metrics::gauge!("tandem_ari_connected").set(0.0);
                    backoff.lasted(since.elapsed(), matches!(end, End::Replaced));
                    match end {
                        End::Lost(problem) => problem,
                        End::Replaced => REPLACED.to_owned(),
                        End::Stopped => return,
                    }
                }
                Err(problem) => problem,
            };
            metrics::counter!("tandem_ari_disconnects_total").increment(1);
            if self.news.send(News::Disconnected(problem)).await.is_err() {
                return;
            }
            if stop.run_until_cancelled(tokio::time::sleep(backoff.next())).await.is_none() {
                return;
            }
        }
    }

    async fn open(&self) -> Result<Socket, String> {
        let mut address = format!("{}/events?app=", self.access.socket_url());
        encode(&mut address, &self.application);
        let parts = split_url(&address).ok_or_else(|| format!("`{}` is no address", self.access.url))?;
        let mut request = address.as_str().into_client_request().map_err(|error| error.to_string())?;
        request.headers_mut().insert("authorization", authorization(&self.access)?);
        let tcp = TcpStream::connect((parts.host, parts.port_or_default())).await;
        let tcp = tcp.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let transport: Box<dyn Transport> = if parts.scheme == "wss" {
            let trust = crate::web::trust(&[]).map_err(|error| error.to_string())?;
            let name = ServerName::try_from(parts.host.to_owned()).map_err(|error| error.to_string())?;
            let connecting = tokio_rustls::TlsConnector::from(Arc::new(trust)).connect(name, tcp);
            Box::new(connecting.await.map_err(|error| format!("TLS: {error}"))?)
        } else {
            Box::new(tcp)
        };
        match tokio_tungstenite::client_async(request, transport).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => Err(match answer.status().as_u16() {
                401 => "the PBX refused user or password (401); see [ari] and ari.conf".to_owned(),
                403 => "the PBX refused the user (403); is it read_only in ari.conf?".to_owned(),
                404 => "the PBX has no ARI there (404); see `enabled` in ari.conf, http.conf and the path of ari.url"
                    .to_owned(),
                status => format!("the PBX refused the event socket with status {status}"),
            }),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn read(&self, mut socket: Socket, stop: &CancellationToken) -> End {
        let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
        let mut heard = Instant::now();
        loop {
            let message = tokio::select! {
                biased;
                message = socket.next() => message,
                () = stop.cancelled() => {
                    // Asterisk complains of those who just go.
                    let _gone = tokio::time::timeout(GOODBYE, socket.close(None)).await;
                    return End::Stopped;
                }
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE {
                        return End::Lost("the PBX has been silent".to_owned());
                    }
                    if let Err(error) = socket.send(Message::Ping(tungstenite::Bytes::new())).await {
                        return End::Lost(error.to_string());
                    }
                    continue;
                }
            };
            heard = Instant::now();
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(_))) | None => return End::Lost("the PBX closed it".to_owned()),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return End::Lost(error.to_string()),
            };
            match Event::read(&text) {
                Ok(Some(Event::Replaced)) => return End::Replaced,
                Ok(Some(event)) => {
                    metrics::counter!("tandem_ari_events_total").increment(1);
                    if self.news.try_send(News::Event(event)).is_err() {
                        metrics::counter!("tandem_ari_events_dropped_total").increment(1);
                        self.missed.store(true, Ordering::Release);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    let text: String = text.chars().take(200).collect();
                    tracing::debug!(%error, text = %for_terminal(&text), "an event of the PBX cannot be read");
                }
            }
        }
    }
}

enum End {
    Lost(String),
    Replaced,
    Stopped,
}

/// How long until the next try.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    replaced: Duration,
    wait_replaced: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SHORTEST, replaced: REPLACED_SHORTEST, wait_replaced: false }
    }
}

impl Backoff {
    /// The connection was there for so long.
    fn lasted(&mut self, span: Duration, replaced: bool) {
        self.wait_replaced = replaced;
        if span >= STABLE {
            self.next = SHORTEST;
        }
        if span >= REPLACED_LONGEST {
            self.replaced = REPLACED_SHORTEST;
        }
    }

    fn next(&mut self) -> Duration {
        // Two Tandems on one application must not take it from each other all the time.
        if std::mem::take(&mut self.wait_replaced) {
            let wait = self.replaced;
            self.replaced = (wait * 2).min(REPLACED_LONGEST);
            return jittered(wait);
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        jittered(wait)
    }
}

/// Up to a quarter less.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 - rand::random::<f64>() / 4.0)
}

const REPLACED: &str =
    "another client took the Stasis application over; give each Tandem an application of its own";
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const GOODBYE: Duration = Duration::from_millis(500);
const PING: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(25);
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);
const STABLE: Duration = Duration::from_secs(10);
const REPLACED_SHORTEST: Duration = Duration::from_secs(30);
const REPLACED_LONGEST: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_long_after_a_takeover() {
        let mut backoff = Backoff::default();
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            last = backoff.next();
            assert!(last <= LONGEST && last >= SHORTEST * 3 / 4);
        }
        assert!(last >= LONGEST * 3 / 4);
        backoff.lasted(Duration::from_secs(11), false);
        assert!(backoff.next() <= SHORTEST);
        backoff.lasted(Duration::from_secs(1), true);
        assert!(backoff.next() >= REPLACED_SHORTEST * 3 / 4);
    }
}
