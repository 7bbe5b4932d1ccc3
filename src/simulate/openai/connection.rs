//! One connection's task: carries messages between the socket and the session's core.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::{Sink, Stream};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::format::AudioFormat;
use super::report::Collector;
use super::session::{Output, RealtimeSession};
use crate::simulate::recorder::Recorder;

/// A session and the socket it speaks through.
pub struct Connection {
    /// 1, 2, 3, … in the order of arrival.
    pub number: u64,
    /// The socket.
    pub ws: WebSocketStream<TcpStream>,
    /// The core.
    pub session: RealtimeSession,
    /// Where its records go.
    pub collector: Arc<Collector>,
    /// Where to record the client's audio.
    pub recorder: Option<Recorder>,
    /// Its place among the connections there may be.
    pub _permit: OwnedSemaphorePermit,
}

enum Step {
    Message(Message),
    Timeout,
    Stop,
    Reset,
    Gone(String),
}

impl Connection {
    /// Runs until either side ends it.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut waits =
            Waits { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), wake_at: None, closing: None };
        let mut stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>> =
            Some(Box::pin(stop.cancelled_owned()));
        let how = loop {
            let step = std::future::poll_fn(|cx| self.poll_step(cx, &mut waits, &mut stopping)).await;
            let now = now();
            match step {
                Step::Message(message) => self.take(now, message),
                Step::Timeout if waits.closing.is_some_and(|until| until <= now) => {
                    break "closed by the simulator, unanswered".to_owned();
                }
                Step::Timeout => self.session.handle_timeout(now),
                Step::Stop => self.session.close(1001, "The simulator is going away."),
                Step::Reset => {
                    reset(self.ws.get_ref());
                    break "reset by the simulator".to_owned();
                }
                Step::Gone(how) => break how,
            }
            self.tell();
        };
        self.session.disconnected(now(), &how);
        self.tell();
        if let Some(Err(error)) = self.recorder.as_mut().map(Recorder::finish) {
            tracing::warn!(%error, "a recording of the simulator could not be completed");
        }
    }

    /// Writes what is queued, then waits for whatever comes first. Cancel-safe: nothing is taken from
    /// the session that has not been handed to the socket.
    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        waits: &mut Waits,
        stopping: &mut Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ) -> Poll<Step> {
        match self.poll_write(cx, waits) {
            Ok(None) => {}
            Ok(Some(step)) => return Poll::Ready(step),
            Err(error) => return Poll::Ready(Step::Gone(error.to_string())),
        }
        match Pin::new(&mut self.ws).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => return Poll::Ready(Step::Message(message)),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Step::Gone(error.to_string())),
            Poll::Ready(None) => return Poll::Ready(Step::Gone("closed".to_owned())),
            Poll::Pending => {}
        }
        if waits.poll(cx, self.session.next_timeout()).is_ready() {
            return Poll::Ready(Step::Timeout);
        }
        if let Some(stop) = stopping
            && stop.as_mut().poll(cx).is_ready()
        {
            *stopping = None;
            return Poll::Ready(Step::Stop);
        }
        Poll::Pending
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        waits: &mut Waits,
    ) -> Result<Option<Step>, tungstenite::Error> {
        while waits.closing.is_none() {
            match Pin::new(&mut self.ws).poll_ready(cx)? {
                Poll::Pending if self.session.queued() > QUEUED_MAX => {
                    return Ok(Some(Step::Gone("the client does not read".to_owned())));
                }
                Poll::Pending => return Ok(None),
                Poll::Ready(()) => {}
            }
            let Some(output) = self.session.poll() else { break };
            let ws = Pin::new(&mut self.ws);
            match output {
                Output::Text(text) => ws.start_send(Message::text(text))?,
                Output::Audio { text, item, first_sample, samples } => {
                    ws.start_send(Message::text(text))?;
                    if let Some(observer) = self.collector.observer() {
                        observer.delta_sent(self.number, now(), &item, first_sample, samples);
                    }
                }
                Output::Close { code, reason } => {
                    waits.closing = Some(now() + CLOSE_PATIENCE);
                    ws.start_send(Message::Close(Some(CloseFrame {
                        code: code.into(),
                        reason: reason.into(),
                    })))?;
                }
                Output::Reset => return Ok(Some(Step::Reset)),
            }
        }
        match Pin::new(&mut self.ws).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(None),
        }
    }

    fn take(&mut self, now: Instant, message: Message) {
        match message {
            Message::Text(text) => {
                let format = self.session.input_format();
                let Some(audio) = self.session.receive(now, &text) else { return };
                if let Some(observer) = self.collector.observer() {
                    observer.appended(self.number, now, audio, format);
                }
                if let Some(recorder) = &mut self.recorder
                    && let Err(error) = record(recorder, audio, format)
                {
                    tracing::warn!(%error, "the simulator cannot record; the recording ends here");
                    self.recorder = None;
                }
            }
            Message::Binary(_) => self.session.receive_binary(now),
            // Answered by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }

    fn tell(&mut self) {
        while let Some((at, record)) = self.session.poll_record() {
            self.collector.add(self.number, at, record);
        }
    }
}

/// Records audio of the wire.
fn record(recorder: &mut Recorder, audio: &[u8], format: AudioFormat) -> std::io::Result<()> {
    if format == AudioFormat::Pcm {
        return recorder.write(audio, format.rate());
    }
    let mut samples = Vec::with_capacity(audio.len());
    format.decode(audio, &mut samples);
    recorder.write(&AudioFormat::Pcm.encode(&samples), format.rate())
}

/// The deadlines of a connection, on one timer.
struct Waits {
    sleep: Pin<Box<Sleep>>,
    wake_at: Option<Instant>,
    /// Until when the client may answer our close frame.
    closing: Option<Instant>,
}

impl Waits {
    fn poll(&mut self, cx: &mut Context<'_>, session: Option<Instant>) -> Poll<()> {
        let Some(at) = [session, self.closing].into_iter().flatten().min() else { return Poll::Pending };
        if self.wake_at != Some(at) {
            self.wake_at = Some(at);
            self.sleep.as_mut().reset(at.into());
        }
        let ready = self.sleep.as_mut().poll(cx);
        if ready.is_ready() {
            self.wake_at = None;
        }
        ready
    }
}

/// Makes the kernel send RST when the socket is dropped.
pub fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "cannot reset the connection; closing it");
    }
}

/// tokio's clock, which a test may have paused.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Settings of every server-side WebSocket.
pub fn websocket_config() -> WebSocketConfig {
    // An append may hold 15 MiB of base64.
    WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(32 << 10)
        .max_message_size(Some(20 << 20))
        .max_frame_size(Some(20 << 20))
}

/// Where a recording goes, if anywhere.
pub fn recorder(dir: Option<&PathBuf>, session: &str) -> Option<Recorder> {
    dir.map(|dir| Recorder::new(dir, session))
}

/// Events that may wait for a client that does not read, before it is given up.
const QUEUED_MAX: usize = 50_000;
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
