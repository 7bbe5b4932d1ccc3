//! The shell of a [`Link`]: its socket, on the worker of the call; and the socket of a caller whom no worker
//! has yet.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::link::{Link, LinkEvent};
use crate::pbx::door::Place;
use crate::pbx::{Coding, PendingWire, Wire, WireEnd, WireEvent};

/// One connection, on this thread's runtime.
pub(super) struct SocketWire {
    /// Absent once it is closed.
    socket: Option<TcpStream>,
    link: Option<Link>,
    place: Option<Place>,
    /// Keys that came before the call had the connection.
    keys: VecDeque<char>,
    /// It ended before the call had it.
    ended: Option<WireEnd>,
    /// Turns between this connection and whatever else its leg does.
    reads_left: u32,
}

impl SocketWire {
    pub(super) fn new(socket: TcpStream, link: Link, place: Place) -> Self {
        Self {
            socket: Some(socket),
            link: Some(link),
            place: Some(place),
            keys: VecDeque::new(),
            ended: None,
            reads_left: READS_A_TURN,
        }
    }

    /// As [`Wire::poll`], with what comes before a session is up. Cancel-safe.
    pub(super) fn poll_link(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<LinkEvent> {
        let (Some(socket), Some(link)) = (&mut self.socket, &mut self.link) else {
            return Poll::Ready(LinkEvent::Ended(WireEnd::HungUp));
        };
        // The rest of a frame waits for room, and for nothing else: a frame in pieces ends the call at the far
        // end when its next one takes more than 5 ms.
        while !link.unsent().is_empty() {
            match Pin::new(&mut *socket).poll_write(cx, link.unsent()) {
                Poll::Ready(Ok(count)) => link.sent(Instant::now(), count),
                Poll::Ready(Err(error)) => {
                    link.failed(&error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        loop {
            if let Some(event) = link.event(payload) {
                return Poll::Ready(event);
            }
            if self.reads_left == 0 {
                self.reads_left = READS_A_TURN;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut buffer = ReadBuf::new(link.space());
            let Poll::Ready(read) = Pin::new(&mut *socket).poll_read(cx, &mut buffer) else {
                self.reads_left = READS_A_TURN;
                return Poll::Pending;
            };
            self.reads_left -= 1;
            let count = buffer.filled().len();
            match read {
                Ok(()) => link.received(Instant::now(), count),
                Err(error) => link.failed(&error),
            }
        }
    }

    /// The session.
    pub(super) fn link(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// One slot of silence.
    pub(super) fn send_silence(&mut self, now: Instant) {
        let bytes = self.coding().bytes_in(SLOT).unwrap_or_default();
        self.send(now, &SILENCE[..bytes.min(SILENCE.len())], false);
    }

    /// Takes the connection off this thread; `None` when it is closed, or the runtime does not give it back.
    pub(super) fn into_waiting(mut self) -> Option<Waiting> {
        let socket = self.socket.take()?.into_std().ok()?;
        let (link, place) = (self.link.take()?, self.place.take()?);
        let (keys, ended) = (std::mem::take(&mut self.keys), self.ended.take());
        Some(Waiting { socket, link, place, keys, ended })
    }
}

impl Wire for SocketWire {
    fn coding(&self) -> Coding {
        self.link.as_ref().map_or(Coding::Linear(8_000), Link::coding)
    }

    fn poll(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<WireEvent> {
        if let Some(key) = self.keys.pop_front() {
            return Poll::Ready(WireEvent::Digit(key));
        }
        if let Some(end) = self.ended.take() {
            self.socket = None;
            return Poll::Ready(WireEvent::Closed(end));
        }
        loop {
            return Poll::Ready(match ready!(self.poll_link(cx, payload)) {
                LinkEvent::Audio { since } => WireEvent::Audio { since },
                LinkEvent::Digit(key) => WireEvent::Digit(key),
                LinkEvent::Ended(end) => {
                    self.socket = None;
                    WireEvent::Closed(end)
                }
                // The server has read it.
                LinkEvent::Named(_) => continue,
            });
        }
    }

    fn send(&mut self, now: Instant, payload: &[u8], _voice: bool) {
        if let (Some(socket), Some(link)) = (&self.socket, &mut self.link)
            && link.frame(now, payload)
        {
            write_frame(SockRef::from(socket), link, now);
        }
    }

    fn hang_up(&mut self) {
        let (Some(socket), Some(link)) = (self.socket.take(), self.link.as_mut()) else { return };
        let Ok(socket) = socket.into_std() else { return };
        say_goodbye(socket, link, self.place.take());
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.link.as_ref().and_then(Link::next_timeout)
    }

    fn handle_timeout(&mut self, now: Instant) -> Option<WireEnd> {
        let end = self.link.as_mut()?.handle_timeout(now)?;
        self.socket = None;
        Some(end)
    }

    fn detach(self: Box<Self>) -> io::Result<Box<dyn PendingWire>> {
        let closed = || io::Error::new(io::ErrorKind::NotConnected, "the connection is closed");
        Ok(Box::new(Detached(Some(self.into_waiting().ok_or_else(closed)?))))
    }
}

impl Drop for SocketWire {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            report(link);
        }
    }
}

/// Writes the frame of `link` with one call; what is not taken stays there.
fn write_frame(socket: SockRef<'_>, link: &mut Link, now: Instant) {
    // What waits here for the network is sent in one go when it is back, and cannot be taken back when the caller
    // speaks. The system takes no more than this; it counts by frames because each is a record of its own.
    if let Some(bytes) = link.new_unsent_limit()
        && let Err(error) = socket.set_tcp_notsent_lowat(bytes)
    {
        return link.failed(&error);
    }
    // Past the runtime, whose idea of a full buffer is older than this moment's.
    match rustix::net::send(&*socket, link.unsent(), SendFlags::EOR) {
        Ok(count) => link.sent(now, count),
        Err(Errno::AGAIN) => link.sent(now, 0),
        Err(error) => link.failed(&error.into()),
    }
}

/// Sends the goodbye and closes our half; then somebody else waits for the far end to close its half. A socket
/// that is closed with audio of the far end unread resets the connection, and Asterisk takes the caller down
/// instead of going on in the dialplan.
fn say_goodbye(socket: std::net::TcpStream, link: &mut Link, place: Option<Place>) {
    let Some(bytes) = link.hang_up() else { return };
    let sock = SockRef::from(&socket);
    // A far end that takes no more will not read this one either.
    let _unheard = sock.send(bytes);
    let _closed = sock.shutdown(Shutdown::Write);
    let Some(place) = place else { return };
    place.see_off(async move {
        let _until_closed = tokio::time::timeout(LINGER, drain(socket)).await;
    });
}

/// Reads until the far end closes.
async fn drain(socket: std::net::TcpStream) -> io::Result<()> {
    let mut socket = TcpStream::from_std(socket)?;
    let mut unwanted = vec![0; 4096];
    while socket.read(&mut unwanted).await? > 0 {}
    Ok(())
}

/// A connection between two workers. Dropped, it hangs up.
struct Detached(Option<Waiting>);

impl PendingWire for Detached {
    fn attach(mut self: Box<Self>) -> io::Result<Box<dyn Wire>> {
        self.0.take().ok_or_else(taken)?.attach()
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some(waiting) = self.0.take() {
            waiting.hang_up();
        }
    }
}

fn taken() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "somebody has it already")
}

/// A connection that nobody's runtime knows.
pub(super) struct Waiting {
    socket: std::net::TcpStream,
    link: Link,
    place: Place,
    keys: VecDeque<char>,
    /// It is over, which whoever takes it is told.
    ended: Option<WireEnd>,
}

impl Waiting {
    fn attach(self) -> io::Result<Box<dyn Wire>> {
        let mut wire = SocketWire::new(TcpStream::from_std(self.socket)?, self.link, self.place);
        (wire.keys, wire.ended) = (self.keys, self.ended);
        Ok(Box::new(wire))
    }

    /// One slot of waiting: reads what has come, keeps the keys, and sends silence. Whether it goes on.
    fn pass_slot(&mut self, now: Instant, payload: &mut Vec<u8>) -> bool {
        for _ in 0..READS_A_TURN {
            while let Some(event) = self.link.event(payload) {
                match event {
                    LinkEvent::Digit(key) if self.keys.len() < KEYS_KEPT => self.keys.push_back(key),
                    // Nobody listens yet: as with RTP before the answer.
                    LinkEvent::Digit(_) | LinkEvent::Audio { .. } | LinkEvent::Named(_) => {}
                    LinkEvent::Ended(end) => {
                        self.ended = Some(end);
                        return false;
                    }
                }
            }
            match (&self.socket).read(self.link.space()) {
                Ok(count) => self.link.received(now, count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.link.failed(&error),
            }
        }
        self.ended = self.link.handle_timeout(now);
        if self.ended.is_some() {
            return false;
        }
        if !self.link.unsent().is_empty() {
            write_frame(SockRef::from(&self.socket), &mut self.link, now);
        }
        let bytes = self.link.coding().bytes_in(SLOT).unwrap_or_default();
        if self.link.frame(now, &SILENCE[..bytes.min(SILENCE.len())]) {
            write_frame(SockRef::from(&self.socket), &mut self.link, now);
        }
        true
    }

    /// Ends it in the protocol's way.
    fn hang_up(mut self) {
        say_goodbye(self.socket, &mut self.link, Some(self.place));
        report(&self.link);
    }
}

/// A caller whom no worker has yet: the server keeps the connection alive until one takes it. Dropped, it
/// hangs up.
pub(super) struct Parked(Arc<Shared>);

/// The server's hold on a [`Parked`] connection.
pub(super) struct Keeper(Arc<Shared>);

/// Held while a slot is written or the connection is taken: once in the life of a call by a worker.
type Shared = Mutex<Option<Waiting>>;

/// Parks a connection.
pub(super) fn park(waiting: Waiting) -> (Parked, Keeper) {
    let shared = Arc::new(Mutex::new(Some(waiting)));
    (Parked(Arc::clone(&shared)), Keeper(shared))
}

impl PendingWire for Parked {
    fn attach(self: Box<Self>) -> io::Result<Box<dyn Wire>> {
        lock(&self.0).take().ok_or_else(taken)?.attach()
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some(waiting) = lock(&self.0).take() {
            waiting.hang_up();
        }
    }
}

impl Keeper {
    /// Sends silence every 20 ms until a worker has the connection, or it is over.
    pub(super) async fn keep(self) {
        let mut slots = tokio::time::interval(SLOT);
        // No bursts: the far end has no buffer to put them into.
        slots.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        // The first silence has been sent when the connection was named.
        slots.tick().await;
        let mut payload = Vec::new();
        loop {
            slots.tick().await;
            let mut held = lock(&self.0);
            let Some(waiting) = held.as_mut() else { return };
            if !waiting.pass_slot(Instant::now(), &mut payload) {
                return;
            }
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Option<Waiting>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection lost, for the metrics.
fn report(link: &Link) {
    let counts = link.counts();
    let odd = [
        ("unknown", counts.oddities.unknown),
        ("empty", counts.oddities.empty),
        ("odd", counts.oddities.odd),
        ("key", counts.oddities.keys),
        ("unsettled", counts.unsettled),
    ];
    for (kind, count) in odd.into_iter().filter(|(_, count)| *count > 0) {
        metrics::counter!("tandem_audiosocket_odd_messages_total", "kind" => kind).increment(count);
    }
    if counts.dropped > 0 {
        metrics::counter!("tandem_audiosocket_frames_dropped_total").increment(counts.dropped);
    }
}

/// One slot.
const SLOT: Duration = Duration::from_millis(20);

/// A slot of the highest rate.
static SILENCE: [u8; 7_680] = [0; 7_680];

/// Reads before a connection lets its leg do something else.
const READS_A_TURN: u32 = 8;

/// Keys kept of a caller whom no worker has.
const KEYS_KEPT: usize = 32;

/// How long the far end may take to close after our goodbye.
const LINGER: Duration = Duration::from_secs(2);
