//! The shell of a session: carries frames between a WebSocket, the [`Uplink`]'s clock and the [`Mapper`].
//!
//! Nothing is decided here but what a full queue means: audio that the service does not take at once is given
//! up, since late audio would only be dropped there; and, when the service has closed the socket, that the
//! call is asked why.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::provider::connect::{self, WebSocket};
use crate::provider::lease::Lease;
use crate::provider::{CloseReason, Command, Event, OpenedSession, Session, SessionStats};

use super::calls::Calls;
use super::map::Mapper;
use super::request::CallObject;
use super::uplink::Uplink;

/// What is known of a call besides its socket.
pub struct Joined {
    /// Where it can be looked up.
    pub calls: Calls,
    /// Its name there.
    pub call_id: String,
    /// The key it was made with.
    pub lease: Lease,
    /// Where requests run.
    pub runtime: tokio::runtime::Handle,
    /// When its socket was opened.
    pub joined_at: Instant,
    /// How long it may last.
    pub limit: Duration,
}

/// A call that is live and not yet on a media worker.
pub struct Opened {
    socket: WebSocket,
    mapper: Mapper,
    uplink: Uplink,
    joined: Joined,
}

impl Opened {
    /// A call whose start the service has told.
    pub fn new(socket: WebSocket, mapper: Mapper, uplink: Uplink, joined: Joined) -> Self {
        Self { socket, mapper, uplink, joined }
    }
}

impl OpenedSession for Opened {
    fn settle(mut self: Box<Self>) -> io::Result<Box<dyn Session>> {
        connect::rehome(&mut self.socket)?;
        Ok(Box::new(WsSession {
            timer: Box::pin(tokio::time::sleep_until(self.uplink.due().into())),
            socket: self.socket,
            mapper: self.mapper,
            uplink: self.uplink,
            joined: self.joined,
            began: None,
            outgoing: VecDeque::new(),
            audio_waiting: 0,
            frames_sent: 0,
            frames_dropped: 0,
            unflushed: false,
            drained: false,
            close_sent: false,
            ended: None,
            waker: None,
        }))
    }
}

/// A session on its media worker.
struct WsSession {
    socket: WebSocket,
    mapper: Mapper,
    uplink: Uplink,
    joined: Joined,
    /// First polled: the conversation hears and is heard from then on.
    began: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    outgoing: VecDeque<Message>,
    /// Audio frames among `outgoing`.
    audio_waiting: usize,
    frames_sent: u64,
    frames_dropped: u64,
    unflushed: bool,
    /// Everything that had arrived has been read.
    drained: bool,
    close_sent: bool,
    /// The socket is of no more use.
    ended: Option<Ended>,
    /// Of the task that polls, so that what is sent between two polls leaves at once.
    waker: Option<Waker>,
}

enum Ended {
    /// A write has failed: what the service said before may still be read.
    Write(String),
    /// The service has closed the socket with this code; the answer is the call as it knows it.
    Asked { code: Option<u16>, answer: oneshot::Receiver<Option<CallObject>> },
    /// Nothing more will happen.
    Gone,
}

impl Session for WsSession {
    fn send_audio(&mut self, pcm: &[i16]) {
        if self.mapper.is_closed() {
            return;
        }
        self.uplink.push(pcm);
        self.between_polls();
    }

    fn send(&mut self, command: Command) {
        self.mapper.command(command);
        self.between_polls();
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        // Whoever had a request to make together with a text has made it.
        self.mapper.flush_held();
        loop {
            self.clock(cx);
            self.write(cx);
            if let Some(event) = self.mapper.poll_event() {
                return Poll::Ready(event);
            }
            if self.mapper.is_closed() || self.read(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn probe(&mut self) -> bool {
        self.mapper.probe();
        self.between_polls();
        true
    }

    fn silence_ends_turns(&self) -> bool {
        false
    }

    fn limit(&self) -> Option<Duration> {
        Some(self.joined.limit)
    }

    fn stats(&self) -> SessionStats {
        SessionStats {
            audio_sent_ms: self.frames_sent * FRAME_MS,
            audio_dropped_ms: self.frames_dropped * FRAME_MS + self.uplink.dropped_ms(),
            audio_received_ms: self.mapper.audio_received_ms(),
            unknown_events: self.mapper.unknown_messages(),
            messages: self.mapper.messages_received(),
        }
    }
}

impl WsSession {
    fn between_polls(&mut self) {
        // Before the first poll there is nobody to wake; that poll will write.
        let Some(waker) = self.waker.take() else { return };
        self.write(&mut Context::from_waker(&waker));
        if self.ended.is_some() || self.mapper.has_events() {
            waker.wake_by_ref();
        }
        self.waker = Some(waker);
    }

    /// Sends the frames that are due and arms the timer for the next one.
    fn clock(&mut self, cx: &mut Context<'_>) {
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.mapper.is_closed() {
                return;
            }
            let now = Instant::now();
            while let Some(frame) = self.uplink.poll(now) {
                if self.ended.is_none() {
                    self.queue_audio(frame);
                }
            }
            let joined_at = self.joined.joined_at;
            let began = *self.began.get_or_insert_with(|| {
                self.mapper.joined_before(millis(now.saturating_duration_since(joined_at)));
                now
            });
            self.mapper.tick(millis(now.saturating_duration_since(began)));
            self.timer.as_mut().reset(self.uplink.due().into());
        }
    }

    fn queue_audio(&mut self, frame: Vec<u8>) {
        if self.audio_waiting >= MOST_WAITING {
            let oldest = self.outgoing.iter().position(|message| matches!(message, Message::Binary(_)));
            if let Some(index) = oldest {
                self.outgoing.remove(index);
                self.audio_waiting -= 1;
                self.frames_dropped += 1;
            }
        }
        self.outgoing.push_back(Message::binary(frame));
        self.audio_waiting += 1;
    }

    /// Writes what the socket takes. An error is kept for [`Self::read`]: what the service said before the
    /// connection broke tells more than the error does.
    fn write(&mut self, cx: &mut Context<'_>) {
        if self.ended.is_none()
            && let Err(error) = self.try_write(cx)
        {
            self.ended = Some(Ended::Write(error.to_string()));
        }
    }

    fn try_write(&mut self, cx: &mut Context<'_>) -> Result<(), tungstenite::Error> {
        while let Some(message) = self.mapper.poll_message() {
            self.outgoing.push_back(Message::text(message));
        }
        while !self.outgoing.is_empty() {
            if self.socket.poll_ready_unpin(cx)?.is_pending() {
                return Ok(());
            }
            let Some(message) = self.outgoing.pop_front() else { break };
            if matches!(message, Message::Binary(_)) {
                self.audio_waiting -= 1;
                self.frames_sent += 1;
            }
            self.unflushed = true;
            self.socket.start_send_unpin(message)?;
        }
        // The service ends a call whose socket is closed.
        if self.mapper.is_closed() && !std::mem::replace(&mut self.close_sent, true) {
            self.unflushed = true;
            self.socket.start_send_unpin(Message::Close(None))?;
        }
        if self.unflushed && self.socket.poll_flush_unpin(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.ended {
            Some(Ended::Asked { code, answer }) => {
                let code = *code;
                let Poll::Ready(call) = Pin::new(answer).poll(cx) else { return Poll::Pending };
                self.ended = Some(Ended::Gone);
                self.ends(code, call.ok().flatten());
                return Poll::Ready(());
            }
            Some(Ended::Gone) => return Poll::Pending,
            Some(Ended::Write(_)) | None => {}
        }
        // A call is polled a hundred times a second, mostly for its RTP: the library, which would prepare a
        // buffer each time, is asked only when there may be something to read.
        if self.drained && self.ended.is_none() && self.socket.get_ref().poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let next = self.socket.poll_next_unpin(cx);
        self.drained = next.is_pending();
        match next {
            Poll::Ready(Some(Ok(Message::Text(text)))) => self.mapper.handle_text(&text),
            Poll::Ready(Some(Ok(Message::Binary(octets)))) => self.mapper.handle_audio(&octets),
            Poll::Ready(Some(Ok(Message::Close(frame)))) => self.closed(frame.map(|frame| frame.code.into())),
            // The library has queued a pong; it leaves with the next flush.
            Poll::Ready(Some(Ok(_))) => self.unflushed = true,
            Poll::Ready(Some(Err(error))) => self.mapper.close(loss(&error)),
            Poll::Ready(None) => self.mapper.close(CloseReason::ConnectionLost("closed".to_owned())),
            Poll::Pending => match &self.ended {
                Some(Ended::Write(error)) => self.mapper.close(CloseReason::ConnectionLost(error.clone())),
                _ => return Poll::Pending,
            },
        }
        Poll::Ready(())
    }

    /// The service has closed the socket. Its code does not tell why; the call does. What is queued for the
    /// caller is heard meanwhile.
    fn closed(&mut self, code: Option<u16>) {
        let (tell, answer) = oneshot::channel();
        let (calls, lease) = (self.joined.calls.clone(), self.joined.lease.clone());
        let id = self.joined.call_id.clone();
        self.joined.runtime.spawn(async move {
            let asking = ended_call(&calls, &lease, &id);
            let call = tokio::time::timeout(ASKING_LIMIT, asking).await.ok().flatten();
            // A call that is over does not want to know.
            let _unwanted = tell.send(call);
        });
        self.ended = Some(Ended::Asked { code, answer });
        // The library answers the close when it is flushed; if that fails, the service has seen enough.
        let mut nobody = Context::from_waker(Waker::noop());
        let _either_way = self.socket.poll_flush_unpin(&mut nobody);
    }

    fn ends(&mut self, code: Option<u16>, call: Option<CallObject>) {
        let call = call.unwrap_or_default();
        if let Some(billed_ms) = call.billed_ms() {
            self.mapper.used(billed_ms);
        }
        self.mapper.close(call.close_reason(code));
    }
}

/// The call once it has an end; the service may need a moment to know it.
async fn ended_call(calls: &Calls, lease: &Lease, id: &str) -> Option<CallObject> {
    loop {
        let call = calls.get(lease.secret(), id).await?;
        if call.end_reason.is_some() {
            return Some(call);
        }
        tokio::time::sleep(ASKING_PAUSE).await;
    }
}

fn loss(error: &tungstenite::Error) -> CloseReason {
    use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    match error {
        tungstenite::Error::Protocol(ResetWithoutClosingHandshake) | tungstenite::Error::Io(_) => {
            CloseReason::ConnectionLost(error.to_string())
        }
        _ => CloseReason::Protocol(error.to_string()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const FRAME_MS: u64 = 20;
/// Frames that may wait for a service that does not read.
const MOST_WAITING: usize = 10;
/// How long the reason of an end may take. The caller may be waiting for somebody else to take over.
const ASKING_LIMIT: Duration = Duration::from_millis(800);
const ASKING_PAUSE: Duration = Duration::from_millis(100);
