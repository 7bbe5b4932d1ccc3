//! The shell of a session: carries messages between a WebSocket and the [`Mapper`].
//!
//! Nothing is decided here but what a full queue means: caller audio that the service does not take is
//! kept for two seconds, then the oldest goes, is counted, and the session's clock is told.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::provider::connect::{self, WebSocket};
use crate::provider::keys::KeyFault;
use crate::provider::lease::Lease;
use crate::provider::{CloseReason, Command, Event, OpenedSession, Session, SessionStats, TurnStatus};

use super::items::SAMPLES_PER_MS;
use super::map::Mapper;
use super::uplink::{Append, Uplink};

/// A session that is configured and not yet on a media worker.
pub struct Opened(WsSession);

impl Opened {
    /// A session whose audio is sent as `uplink` gathers it, that the service ends after `limit`, opened with this key.
    pub fn new(
        socket: WebSocket,
        mapper: Mapper,
        uplink: Uplink,
        limit: Option<Duration>,
        lease: Lease,
    ) -> Self {
        Self(WsSession {
            socket,
            mapper,
            lease,
            uplink,
            outgoing: VecDeque::new(),
            queued_samples: 0,
            backlog_samples: 0,
            limit,
            sent_samples: 0,
            dropped_samples: 0,
            unflushed: false,
            drained: false,
            close_sent: false,
            write_error: None,
            waker: None,
        })
    }
}

impl OpenedSession for Opened {
    fn settle(mut self: Box<Self>) -> io::Result<Box<dyn Session>> {
        connect::rehome(&mut self.0.socket)?;
        Ok(Box::new(self.0))
    }
}

/// A session on its media worker.
struct WsSession {
    socket: WebSocket,
    mapper: Mapper,
    /// The key it was opened with, which rests when the service says so in the middle of a call.
    lease: Lease,
    uplink: Uplink,
    outgoing: VecDeque<Outgoing>,
    queued_samples: u64,
    /// Of them, at most: what was said before this session.
    backlog_samples: u64,
    limit: Option<Duration>,
    sent_samples: u64,
    dropped_samples: u64,
    unflushed: bool,
    /// Everything that had arrived has been read.
    drained: bool,
    close_sent: bool,
    write_error: Option<String>,
    /// Of the task that polls, so that what is sent between two polls leaves at once.
    waker: Option<Waker>,
}

enum Outgoing {
    Audio(Append),
    Control(String),
}

impl Session for WsSession {
    fn send_audio(&mut self, pcm: &[i16]) {
        if self.mapper.is_closed() {
            return;
        }
        let Some(append) = self.uplink.push(pcm) else { return };
        self.queue(append);
        self.write_between_polls();
        self.give_up_old_audio();
    }

    fn send(&mut self, command: Command) {
        self.mapper.command(command);
        self.write_between_polls();
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        loop {
            self.write(cx);
            if let Some(event) = self.mapper.poll_event() {
                match event {
                    Event::SpeechStarted { .. } => self.uplink.spoken(true),
                    Event::SpeechStopped { .. } => self.uplink.spoken(false),
                    _ => {}
                }
                if let Some(fault) = key_fault(&event) {
                    self.lease.fault(fault);
                }
                return Poll::Ready(event);
            }
            if self.mapper.is_closed() || self.read(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn send_backlog(&mut self, pcm: &[i16]) -> bool {
        // It comes after the conversation so far.
        while let Some(message) = self.mapper.poll_message() {
            self.outgoing.push_back(Outgoing::Control(message));
        }
        for part in pcm.chunks(BACKLOG_SAMPLES) {
            let append = self.uplink.push_now(part);
            self.queue(append);
        }
        self.backlog_samples = pcm.len() as u64;
        self.write_between_polls();
        true
    }

    fn probe(&mut self) -> bool {
        self.mapper.probe();
        self.write_between_polls();
        true
    }

    fn limit(&self) -> Option<Duration> {
        self.limit
    }

    fn stats(&self) -> SessionStats {
        SessionStats {
            audio_sent_ms: self.sent_samples / SAMPLES_PER_MS,
            audio_dropped_ms: self.dropped_samples / SAMPLES_PER_MS,
            audio_received_ms: self.mapper.audio_received_ms(),
            unknown_events: self.mapper.unknown_events(),
            messages: self.mapper.messages_received(),
        }
    }
}

impl WsSession {
    fn queue(&mut self, append: Append) {
        self.queued_samples += append.samples;
        self.outgoing.push_back(Outgoing::Audio(append));
    }

    fn write_between_polls(&mut self) {
        // Before the first poll there is nobody to wake; that poll will write.
        let Some(waker) = self.waker.take() else { return };
        self.write(&mut Context::from_waker(&waker));
        if self.write_error.is_some() || self.mapper.has_events() {
            waker.wake_by_ref();
        }
        self.waker = Some(waker);
    }

    /// Writes what the socket takes. An error is kept for [`Self::read`]: what the service said before the
    /// connection broke tells more than the error does.
    fn write(&mut self, cx: &mut Context<'_>) {
        if self.write_error.is_none()
            && let Err(error) = self.try_write(cx)
        {
            self.write_error = Some(error.to_string());
        }
    }

    fn try_write(&mut self, cx: &mut Context<'_>) -> Result<(), tungstenite::Error> {
        loop {
            while let Some(message) = self.mapper.poll_message() {
                self.outgoing.push_back(Outgoing::Control(message));
            }
            if self.outgoing.is_empty() {
                break;
            }
            if self.socket.poll_ready_unpin(cx)?.is_pending() {
                return Ok(());
            }
            let message = match self.outgoing.pop_front() {
                Some(Outgoing::Control(message)) => message,
                Some(Outgoing::Audio(Append { message, samples })) => {
                    self.audio_left(samples);
                    message
                }
                None => break,
            };
            self.unflushed = true;
            self.socket.start_send_unpin(Message::text(message))?;
        }
        if self.mapper.is_closed() && !std::mem::replace(&mut self.close_sent, true) {
            self.unflushed = true;
            self.socket.start_send_unpin(Message::Close(None))?;
        }
        if self.unflushed && self.socket.poll_flush_unpin(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(())
    }

    fn audio_left(&mut self, samples: u64) {
        self.queued_samples -= samples;
        self.sent_samples += samples;
        self.mapper.audio_sent((samples / SAMPLES_PER_MS) as u32);
    }

    fn give_up_old_audio(&mut self) {
        self.backlog_samples = self.backlog_samples.min(self.queued_samples);
        while self.queued_samples > MAX_QUEUED_SAMPLES + self.backlog_samples {
            let oldest = self.outgoing.iter().position(|queued| matches!(queued, Outgoing::Audio(_)));
            let Some(Outgoing::Audio(Append { samples, .. })) =
                oldest.and_then(|index| self.outgoing.remove(index))
            else {
                return;
            };
            self.queued_samples -= samples;
            self.dropped_samples += samples;
            self.mapper.audio_dropped((samples / SAMPLES_PER_MS) as u32);
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A call is polled a hundred times a second, mostly for its RTP: the library, which would prepare a
        // buffer each time, is asked only when there may be something to read.
        if self.drained
            && self.write_error.is_none()
            && self.socket.get_ref().poll_read_ready(cx).is_pending()
        {
            return Poll::Pending;
        }
        let next = self.socket.poll_next_unpin(cx);
        self.drained = next.is_pending();
        match next {
            Poll::Ready(Some(Ok(Message::Text(text)))) => self.mapper.handle_text(&text),
            Poll::Ready(Some(Ok(Message::Binary(bytes)))) => self.mapper.handle_binary(bytes.len()),
            Poll::Ready(Some(Ok(Message::Close(frame)))) => self.mapper.close(close_reason(frame)),
            // The library has queued a pong; it leaves with the next flush.
            Poll::Ready(Some(Ok(_))) => self.unflushed = true,
            Poll::Ready(Some(Err(error))) => self.mapper.close(loss(&error)),
            Poll::Ready(None) => self.mapper.close(CloseReason::ConnectionLost("closed".to_owned())),
            Poll::Pending => match &self.write_error {
                Some(error) => self.mapper.close(CloseReason::ConnectionLost(error.clone())),
                None => return Poll::Pending,
            },
        }
        Poll::Ready(())
    }
}

/// What an event says of the key.
fn key_fault(event: &Event) -> Option<KeyFault> {
    match event {
        Event::TurnDone { status: TurnStatus::Failed(code) } => KeyFault::of_code(code),
        Event::Closed { reason: CloseReason::QuotaExhausted } => Some(KeyFault::NoQuota),
        _ => None,
    }
}

fn close_reason(frame: Option<CloseFrame>) -> CloseReason {
    let code = frame.as_ref().map(|frame| frame.code.into());
    let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
    if code == Some(GOING_AWAY) && reason.contains("maximum duration") {
        return CloseReason::Expired;
    }
    CloseReason::ByService { code, reason }
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

/// Two seconds. Older words would be answered too late to make sense.
const MAX_QUEUED_SAMPLES: u64 = 2 * 24_000;
/// 200 ms in a message of what was said before.
const BACKLOG_SAMPLES: usize = 4800;
/// WebSocket close code 1001.
const GOING_AWAY: u16 = 1001;
