//! The connection on its media worker.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::protocol::Command;
use super::session::{Heard, Session};
use crate::pbx::door::Place;
use crate::pbx::{Coding, PendingWire, Wire, WireEnd, WireEvent};
use crate::web::homed::{self, WebSocket};

/// A connection that is on no worker. Dropped, it hangs up.
pub struct PendingSocket(Option<Parts>);

/// What a connection is made of.
struct Parts {
    socket: WebSocket,
    session: Session,
    /// What came before somebody was there to hear it.
    early: Vec<Message>,
    /// What the channel is told beside its audio.
    orders: Option<mpsc::Receiver<Command>>,
    /// Where it waits for the far end to read the goodbye.
    place: Option<Place>,
    /// Since when nobody has read from it.
    parked_at: Instant,
}

impl PendingSocket {
    /// An open connection. `early` is what it has brought already.
    pub(super) fn new(socket: WebSocket, session: Session, early: Vec<Message>) -> Self {
        Self(Some(Parts {
            socket,
            session,
            early,
            orders: None,
            place: Place::outside(),
            parked_at: Instant::now(),
        }))
    }

    /// Keeps this place of a door until it is over.
    pub(super) fn with_place(mut self, place: Place) -> Self {
        if let Some(parts) = &mut self.0 {
            parts.place = Some(place);
        }
        self
    }

    /// Follows these commands besides.
    pub(super) fn with_orders(mut self, orders: mpsc::Receiver<Command>) -> Self {
        if let Some(parts) = &mut self.0 {
            parts.orders = Some(orders);
        }
        self
    }
}

impl Drop for PendingSocket {
    fn drop(&mut self) {
        if let Some(parts) = self.0.take() {
            goodbye(parts);
        }
    }
}

impl PendingWire for PendingSocket {
    fn attach(mut self: Box<Self>) -> io::Result<Box<dyn Wire>> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the connection is in use elsewhere");
        let mut parts = self.0.take().ok_or_else(gone)?;
        homed::rehome(&mut parts.socket)?;
        let stale = parts.parked_at.elapsed() > FRESH;
        if stale {
            parts.early.retain(|message| !matches!(message, Message::Binary(_)));
        }
        // The latest first, to be taken from the end.
        parts.early.reverse();
        Ok(Box::new(SocketWire {
            parts: Some(parts),
            unflushed: false,
            drained: false,
            late: stale.then(VecDeque::new),
            broken: None,
            burst: 0,
            waker: None,
        }))
    }
}

/// A connection on its worker.
struct SocketWire {
    /// `None` once it is over.
    parts: Option<Parts>,
    unflushed: bool,
    /// Everything that had arrived has been read.
    drained: bool,
    /// Audio of the time in which nobody read: the latest of it, until everything that had come has been read.
    /// It would be heard in one go, and everything after it late.
    late: Option<VecDeque<Bytes>>,
    /// A write has failed: what Asterisk said before may still be read.
    broken: Option<String>,
    /// Messages since the socket was last empty.
    burst: u32,
    waker: Option<Waker>,
}

impl Wire for SocketWire {
    fn coding(&self) -> Coding {
        self.parts.as_ref().map_or(Coding::Ulaw, |parts| parts.session.coding())
    }

    fn poll(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<WireEvent> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        self.obey(cx);
        self.write(cx);
        loop {
            let Some(parts) = &mut self.parts else { return Poll::Pending };
            if self.burst >= BURST {
                self.burst = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let message = match parts.early.pop() {
                Some(message) => Some(Ok(message)),
                None => match self.read(cx) {
                    Poll::Ready(message) => message,
                    Poll::Pending => {
                        self.burst = 0;
                        if self.catch_up() {
                            continue;
                        }
                        let Some(error) = self.broken.take() else { return Poll::Pending };
                        return self.over(WireEnd::Lost(error));
                    }
                },
            };
            self.burst += 1;
            let Some(message) = self.set_aside(message) else { continue };
            let since = Instant::now();
            match self.take(since, message, payload) {
                Some(event @ WireEvent::Closed(_)) => {
                    self.parts = None;
                    return Poll::Ready(event);
                }
                Some(event) => return Poll::Ready(event),
                // What the message asks for goes out with it.
                None => self.write(cx),
            }
        }
    }

    fn due(&mut self, now: Instant) -> u32 {
        let Some(parts) = &mut self.parts else { return 1 };
        let due = parts.session.due(now);
        if due == 0 {
            // No slot takes along what is to be asked.
            let waker = self.waker.clone().unwrap_or_else(|| Waker::noop().clone());
            self.write(&mut Context::from_waker(&waker));
        }
        due
    }

    fn send(&mut self, now: Instant, payload: &[u8], voice: bool) {
        let Some(parts) = &mut self.parts else { return };
        let copies = parts.session.admit(now, voice);
        let waker = self.waker.clone().unwrap_or_else(|| Waker::noop().clone());
        let cx = &mut Context::from_waker(&waker);
        self.write(cx);
        for _ in 0..copies {
            let Some(parts) = &mut self.parts else { return };
            let Some((message, frames)) = parts.session.message(payload) else { continue };
            if self.write_audio(cx, message)
                && let Some(parts) = &mut self.parts
            {
                parts.session.sent(now, frames);
            }
        }
    }

    fn flush(&mut self, now: Instant) -> Duration {
        let Some(parts) = &mut self.parts else { return Duration::ZERO };
        let lost = parts.session.flush(now);
        let waker = self.waker.clone().unwrap_or_else(|| Waker::noop().clone());
        self.write(&mut Context::from_waker(&waker));
        lost
    }

    fn hang_up(&mut self) {
        if let Some(parts) = self.parts.take() {
            goodbye(parts);
        }
    }

    fn detach(mut self: Box<Self>) -> io::Result<Box<dyn PendingWire>> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the connection is closed");
        let mut parts = self.parts.take().ok_or_else(gone)?;
        parts.early.reverse();
        parts.parked_at = Instant::now();
        Ok(Box::new(PendingSocket(Some(parts))))
    }
}

impl SocketWire {
    fn over(&mut self, end: WireEnd) -> Poll<WireEvent> {
        self.parts = None;
        Poll::Ready(WireEvent::Closed(end))
    }

    /// Takes orders.
    fn obey(&mut self, cx: &mut Context<'_>) {
        let Some(parts) = &mut self.parts else { return };
        let Some(orders) = &mut parts.orders else { return };
        loop {
            match orders.poll_recv(cx) {
                Poll::Ready(Some(command)) => parts.session.order(command),
                Poll::Ready(None) => {
                    parts.orders = None;
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, tungstenite::Error>>> {
        let Some(parts) = &mut self.parts else { return Poll::Pending };
        // The library prepares a buffer each time it is asked: it is, when there may be something to read.
        if self.drained && parts.socket.get_ref().poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let next = parts.socket.poll_next_unpin(cx);
        self.drained = next.is_pending();
        next
    }

    /// Keeps audio back while there may be newer: answers what is not audio.
    fn set_aside(
        &mut self,
        message: Option<Result<Message, tungstenite::Error>>,
    ) -> Option<Option<Result<Message, tungstenite::Error>>> {
        let (Some(late), Some(parts)) = (&mut self.late, &self.parts) else { return Some(message) };
        let octets = match message {
            Some(Ok(Message::Binary(octets))) => octets,
            other => return Some(other),
        };
        late.push_back(octets);
        let too_much = |late: &VecDeque<Bytes>| match parts.session.coding().bytes_in(FRESH) {
            Some(most) => late.iter().map(Bytes::len).sum::<usize>() > most,
            None => late.len() > FRESH_PACKETS,
        };
        while too_much(late) {
            late.pop_front();
        }
        None
    }

    /// Everything that had come has been read: whether audio of it is to be heard.
    fn catch_up(&mut self) -> bool {
        let (Some(late), Some(parts)) = (&mut self.late, &mut self.parts) else { return false };
        if late.is_empty() {
            // The runtime has not looked at the socket yet, or nothing has come.
            return false;
        }
        let mut messages: Vec<_> = late.drain(..).rev().map(Message::Binary).collect();
        messages.append(&mut parts.early);
        parts.early = messages;
        self.late = None;
        true
    }

    /// What a message is to the leg.
    fn take(
        &mut self,
        since: Instant,
        message: Option<Result<Message, tungstenite::Error>>,
        payload: &mut Vec<u8>,
    ) -> Option<WireEvent> {
        let parts = self.parts.as_mut()?;
        match message {
            Some(Ok(Message::Binary(octets))) => {
                parts.session.audio(&octets, payload).then_some(WireEvent::Audio { since })
            }
            Some(Ok(Message::Text(text))) => match parts.session.text(since, &text) {
                Heard::Nothing => None,
                Heard::Digit(key) => Some(WireEvent::Digit(key)),
                Heard::Foreign(format) => Some(WireEvent::Closed(foreign(&format))),
            },
            // The library has queued the close's answer or the pong; it leaves with the next flush.
            Some(Ok(Message::Close(frame))) => {
                let _either_way = parts.socket.poll_flush_unpin(&mut Context::from_waker(Waker::noop()));
                Some(WireEvent::Closed(closed(frame.as_ref())))
            }
            Some(Ok(_)) => {
                self.unflushed = true;
                None
            }
            Some(Err(error)) => Some(WireEvent::Closed(lost(&error))),
            None => Some(WireEvent::Closed(WireEnd::Lost("the connection was closed".to_owned()))),
        }
    }

    /// Writes what is to be said.
    fn write(&mut self, cx: &mut Context<'_>) {
        if self.broken.is_none()
            && let Err(error) = self.try_write(cx)
        {
            self.broke(cx, &error);
        }
    }

    fn try_write(&mut self, cx: &mut Context<'_>) -> Result<(), tungstenite::Error> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        // Each message is a write of its own: behind TLS, Asterisk does not notice a second one in a record.
        while parts.socket.poll_ready_unpin(cx)?.is_ready() {
            let Some(text) = parts.session.poll_text() else { break };
            parts.socket.start_send_unpin(Message::text(text))?;
            self.unflushed = true;
        }
        if self.unflushed && parts.socket.poll_flush_unpin(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(())
    }

    /// Writes a frame, if the connection takes it now. Whether it does.
    fn write_audio(&mut self, cx: &mut Context<'_>, message: Bytes) -> bool {
        let Some(parts) = &mut self.parts else { return false };
        if self.broken.is_some() || self.unflushed {
            // Something stands before it. What came late would stay late.
            return false;
        }
        let written = match parts.socket.poll_ready_unpin(cx) {
            Poll::Ready(Ok(())) => parts.socket.start_send_unpin(Message::Binary(message)),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => return false,
        };
        let flushed = written.and_then(|()| match parts.socket.poll_flush_unpin(cx) {
            Poll::Ready(flushed) => flushed.map(|()| true),
            Poll::Pending => Ok(false),
        });
        match flushed {
            Ok(flushed) => {
                self.unflushed = !flushed;
                true
            }
            Err(error) => {
                self.broke(cx, &error);
                false
            }
        }
    }

    /// What Asterisk said before the connection broke tells more than the error: it is read first.
    fn broke(&mut self, cx: &mut Context<'_>, error: &tungstenite::Error) {
        self.broken = Some(error.to_string());
        cx.waker().wake_by_ref();
    }
}

/// Hangs up, and reads until Asterisk has closed: a socket that is closed with something unread in it takes back
/// what it said.
fn goodbye(parts: Parts) {
    let Parts { mut socket, mut session, place, .. } = parts;
    session.hang_up();
    let last = std::iter::from_fn(|| session.poll_text()).map(Message::text);
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let mut last = last.chain([Message::Close(Some(frame))]).collect::<VecDeque<_>>();
    // At once, as far as the socket takes it: the server may be about to stop.
    let _later = poll_part(&mut socket, &mut last, &mut Context::from_waker(Waker::noop()));
    let Some(place) = place else { return };
    place.see_off(async move {
        // The worker's runtime may end before the far end has read it.
        if homed::rehome(&mut socket).is_err() {
            return;
        }
        let parting = async {
            std::future::poll_fn(|cx| poll_part(&mut socket, &mut last, cx)).await?;
            while let Some(message) = socket.next().await {
                message?;
            }
            Ok::<(), tungstenite::Error>(())
        };
        // Gone is gone.
        let _gone = tokio::time::timeout(GOODBYE_LIMIT, parting).await;
    });
}

/// Writes the last messages.
fn poll_part(
    socket: &mut WebSocket,
    last: &mut VecDeque<Message>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), tungstenite::Error>> {
    while !last.is_empty() {
        ready!(socket.poll_ready_unpin(cx))?;
        let Some(message) = last.pop_front() else { break };
        socket.start_send_unpin(message)?;
    }
    socket.poll_flush_unpin(cx)
}

/// What a close says: everything but a normal one is a loss.
pub(super) fn closed(frame: Option<&CloseFrame>) -> WireEnd {
    match frame.map(|frame| frame.code) {
        None | Some(CloseCode::Normal | CloseCode::Away | CloseCode::Status) => WireEnd::HungUp,
        Some(code) => WireEnd::Lost(format!("Asterisk closed the connection with code {}", u16::from(code))),
    }
}

/// A format that we do not speak.
pub(super) fn foreign(format: &str) -> WireEnd {
    let format = crate::telemetry::Wire::from(format);
    WireEnd::Protocol(format!(
        "the channel's format is {format}; dial it with c(slin16), c(slin24), c(ulaw), c(alaw), c(g722) or c(opus)"
    ))
}

pub(super) fn lost(error: &tungstenite::Error) -> WireEnd {
    use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    match error {
        tungstenite::Error::Protocol(ResetWithoutClosingHandshake)
        | tungstenite::Error::Io(_)
        | tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed => WireEnd::Lost(error.to_string()),
        _ => WireEnd::Protocol(error.to_string()),
    }
}

/// Every message is written as it is; small buffers hold what calls need. Asterisk's messages end at 65535 octets.
pub(super) fn buffers() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(64 << 10)
        .max_message_size(Some(MESSAGE_MOST))
        .max_frame_size(Some(MESSAGE_MOST))
}

/// Small frames leave at once. What an Asterisk that does not read leaves in our send buffer is old by the time it is
/// read; one that acknowledges nothing at all for a while is gone.
pub(super) fn tune(tcp: &tokio::net::TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = socket2::SockRef::from(tcp);
    socket.set_tcp_user_timeout(Some(SILENCE_LIMIT))?;
    socket.set_send_buffer_size(SEND_BUFFER)
}

const MESSAGE_MOST: usize = 65_535;
/// The kernel doubles it; some 300 ms of 24 kHz linear audio.
const SEND_BUFFER: usize = 16 << 10;
/// TCP gives up after a quarter of an hour by itself.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// Messages read at a time: audio of most of a second, after which the slots have their turn.
const BURST: u32 = 32;
/// Older audio of a time in which nobody read is not heard.
const FRESH: Duration = Duration::from_millis(200);
/// The same where a packet does not say how long it is: of 20 ms each.
const FRESH_PACKETS: usize = 10;
/// How long Asterisk may take to close.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
