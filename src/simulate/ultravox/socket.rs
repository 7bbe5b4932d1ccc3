//! One media socket's task: carries frames between the socket and the session's core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::record::Collector;
use super::session::{CallSession, Gone, Output};
use super::wire::ClientMessage;
use crate::simulate::recorder::Recorder;

/// A session and the socket it speaks through.
pub(super) struct Socket {
    pub number: u64,
    pub call: String,
    pub rate: u32,
    pub ws: WebSocketStream<TcpStream>,
    pub session: CallSession,
    /// Data messages that came by REST.
    pub commands: mpsc::Receiver<ClientMessage>,
    pub book: Arc<Book>,
    pub collector: Arc<Collector>,
    pub recorder: Option<Recorder>,
}

impl Socket {
    /// Runs until either side ends it; gives the call's `endReason`.
    pub(super) async fn run(mut self, stop: CancellationToken) -> &'static str {
        let (gone, how) = self.serve(stop).await;
        let reason = self.session.disconnected(now(), gone, &how);
        self.tell();
        if let Some(Err(error)) = self.recorder.as_mut().map(Recorder::finish) {
            tracing::warn!(%error, "a recording of the simulator could not be completed");
        }
        reason
    }

    async fn serve(&mut self, stop: CancellationToken) -> (Gone, String) {
        let mut stopped = false;
        loop {
            self.tell();
            match tokio::time::timeout(WRITE_PATIENCE, self.write()).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(ended))) => return ended,
                Ok(Err(error)) => return (Gone::Broken, error.to_string()),
                Err(_) => return (Gone::Broken, "the client does not read".to_owned()),
            }
            let wake = self.session.next_timeout().unwrap_or_else(|| now() + WRITE_PATIENCE);
            tokio::select! {
                message = self.ws.next() => match message {
                    Some(Ok(Message::Close(_))) => {
                        // The answer to the client's close frame is the library's.
                        let _ = tokio::time::timeout(CLOSE_PATIENCE, self.ws.flush()).await;
                        return (Gone::Closed, "closed by the client".to_owned());
                    }
                    Some(Ok(message)) => self.take(now(), message),
                    Some(Err(tungstenite::Error::ConnectionClosed)) | None => {
                        return (Gone::Closed, "closed".to_owned());
                    }
                    Some(Err(error)) => return (Gone::Broken, error.to_string()),
                },
                Some(command) = self.commands.recv() => self.session.handle(now(), command),
                () = tokio::time::sleep_until(wake.into()) => self.session.handle_timeout(now()),
                () = stop.cancelled(), if !stopped => {
                    stopped = true;
                    self.session.close(1001, "the simulator is going away");
                }
            }
        }
    }

    /// Writes what is queued; an end of ours comes back.
    async fn write(&mut self) -> Result<Option<(Gone, String)>, tungstenite::Error> {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Text(text) => self.ws.feed(Message::text(text)).await?,
                Output::Audio { audio, ordinal, first_sample, samples } => {
                    self.ws.feed(Message::Binary(audio)).await?;
                    if let Some(observer) = self.collector.observer() {
                        observer.delta_sent(self.number, now(), ordinal, first_sample, samples);
                    }
                }
                Output::Close { code, reason } => {
                    let frame = CloseFrame { code: code.into(), reason: reason.into() };
                    self.ws.send(Message::Close(Some(frame))).await?;
                    return Ok(Some((Gone::Ours, self.closed().await)));
                }
                Output::Reset => {
                    if let Err(error) = self.ws.get_ref().set_zero_linger() {
                        tracing::debug!(%error, "cannot reset the connection; closing it");
                    }
                    return Ok(Some((Gone::Ours, "reset by the simulator".to_owned())));
                }
            }
        }
        self.ws.flush().await?;
        Ok(None)
    }

    /// Waits for the client's answer to our close frame.
    async fn closed(&mut self) -> String {
        let answer = async { while let Some(Ok(_)) = self.ws.next().await {} };
        match tokio::time::timeout(CLOSE_PATIENCE, answer).await {
            Ok(()) => "closed by the simulator".to_owned(),
            Err(_) => "closed by the simulator, unanswered".to_owned(),
        }
    }

    fn take(&mut self, now: Instant, message: Message) {
        match message {
            Message::Text(text) => self.session.receive_text(now, &text),
            Message::Binary(audio) => {
                self.session.receive_audio(now, &audio);
                if let Some(observer) = self.collector.observer() {
                    observer.appended(self.number, now, &audio, self.rate);
                }
                if let Some(recorder) = &mut self.recorder
                    && let Err(error) = recorder.write(&audio, self.rate)
                {
                    tracing::warn!(%error, "the simulator cannot record; the recording ends here");
                    self.recorder = None;
                }
            }
            // Answered by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }

    fn tell(&mut self) {
        while let Some((at, record)) = self.session.poll_record() {
            self.collector.add(self.number, at, record);
        }
        while let Some(noted) = self.session.poll_noted() {
            self.book.note(&self.call, noted);
        }
    }
}

/// tokio's clock, which a test may have paused.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Settings of every media socket.
pub(super) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(1 << 20))
        .max_frame_size(Some(1 << 20))
}

/// Time for a client to take what is sent, before it is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
