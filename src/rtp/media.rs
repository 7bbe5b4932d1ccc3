//! The shell of a [`Stream`]: its sockets, its timer and its place on the 20 ms grid.
//!
//! Lives on a media worker and is polled by whoever owns it. It only carries: what a datagram, a slot or
//! a timeout means is decided in the stream.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::pacer::{Pacer, Ticket};
use super::ports::{PortGuard, PortPair};
use super::srtp::MAX_OVERHEAD;
use super::stream::{Stream, StreamEvent};
use super::timer::Timer;
use crate::audio::AudioError;

/// What media tells its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum MediaSignal {
    /// Received audio waits in [`Stream::take_audio`]; `since` is when the oldest of it was read.
    Audio {
        /// Of the read from the socket, or of the timeout that made up for a missing packet.
        since: Instant,
    },
    /// A slot has passed.
    Sent {
        /// When its packet was due.
        due: Instant,
        /// An item's audio was in it.
        item: bool,
    },
    /// Something the stream noticed.
    Event(StreamEvent),
}

/// One party's RTP, on this thread's runtime.
#[derive(Debug)]
pub struct RtpMedia {
    stream: Stream,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// `None` while packets are relayed.
    ticket: Option<Ticket>,
    pacer: Pacer,
    timer: Timer,
    packet: Vec<u8>,
    datagram: Box<[u8]>,
    /// Turns between sockets and grid, so that a flood of packets cannot starve the slots.
    reads_left: u32,
    // Dropped last: the ports are free only when the sockets are closed.
    _ports: PortGuard,
}

impl RtpMedia {
    /// Registers the sockets with this thread's runtime and joins its grid.
    ///
    /// # Errors
    /// When the runtime takes no more sockets.
    pub fn new(stream: Stream, ports: PortPair, pacer: &Pacer) -> io::Result<Self> {
        Ok(Self {
            stream,
            rtp: UdpSocket::from_std(ports.rtp)?,
            rtcp: UdpSocket::from_std(ports.rtcp)?,
            ticket: Some(pacer.join()),
            pacer: pacer.clone(),
            timer: Timer::new(),
            packet: Vec::with_capacity(256 + MAX_OVERHEAD),
            datagram: vec![0; LARGEST_DATAGRAM].into_boxed_slice(),
            reads_left: READS_A_TURN,
            _ports: ports.guard,
        })
    }

    /// The stream, for playing and asking.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// The stream, for asking.
    pub fn stream_ref(&self) -> &Stream {
        &self.stream
    }

    /// Polls the grid, the sockets and the timer. Cancel-safe.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<MediaSignal> {
        self.park(false);
        loop {
            if let Some(event) = self.stream.poll_event() {
                return Poll::Ready(MediaSignal::Event(event));
            }
            if let Some(Poll::Ready(tick)) = self.ticket.as_mut().map(|ticket| ticket.poll_tick(cx)) {
                if tick.missed > 0 {
                    self.stream.skip(tick.missed);
                }
                let item = self.send_slot(tick.deadline);
                self.reads_left = READS_A_TURN;
                return Poll::Ready(MediaSignal::Sent { due: tick.deadline, item });
            }
            if let Poll::Ready(since) = self.poll_rtp(cx) {
                return Poll::Ready(MediaSignal::Audio { since });
            }
            if self.poll_rtcp(cx).is_ready() {
                continue;
            }
            let now = ready!(self.poll_timer(cx));
            self.stream.handle_timeout(now);
            self.send_report(now);
            return Poll::Ready(MediaSignal::Audio { since: now });
        }
    }

    /// Leaves the grid (`true`): no slots, for a leg whose packets are relayed; or joins it again. Polling does
    /// it by itself.
    pub fn park(&mut self, parked: bool) {
        if parked == self.ticket.is_none() {
            return;
        }
        self.stream.park(Instant::now(), parked);
        self.ticket = (!parked).then(|| self.pacer.join());
    }

    /// As [`poll`](Self::poll) for a leg whose packets leave on `to` as they are: polls sockets and timer, and
    /// is ready with events only. Poll the other way round as well, with the same waker. See
    /// [`relaying`](crate::rtp::stream::Stream::can_relay_to) for when it may be used.
    pub fn poll_relay(&mut self, cx: &mut Context<'_>, to: &mut RtpMedia) -> Poll<MediaSignal> {
        self.park(true);
        self.reads_left = READS_A_TURN;
        loop {
            if let Some(event) = self.stream.poll_event() {
                return Poll::Ready(MediaSignal::Event(event));
            }
            if self.poll_pass(cx, to).is_ready() || self.poll_rtcp(cx).is_ready() {
                continue;
            }
            let now = ready!(self.poll_timer(cx));
            self.stream.handle_timeout(now);
            self.send_report(now);
        }
    }

    /// Ready when a datagram was taken, and sent on if it is one to send.
    fn poll_pass(&mut self, cx: &mut Context<'_>, to: &mut RtpMedia) -> Poll<()> {
        if self.reads_left == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut buffer = ReadBuf::new(&mut self.datagram);
        // An ICMP error of an earlier packet is no reason to stop; the socket is still good.
        let Ok(source) = ready!(self.rtp.poll_recv_from(cx, &mut buffer)) else { return Poll::Ready(()) };
        self.reads_left -= 1;
        let now = Instant::now();
        let Some(packet) = self.stream.relay_in(now, source, buffer.filled_mut()) else {
            return Poll::Ready(());
        };
        if let Some(destination) = to.stream.relay_out(now, &packet, &mut to.packet)
            && to.rtp.try_send_to(&to.packet, destination).is_err()
        {
            metrics::counter!("tandem_rtp_send_errors_total").increment(1);
        }
        Poll::Ready(())
    }

    /// Says goodbye over RTCP. The last thing to do; media that is only dropped says none.
    pub fn finish(self) {
        let stream = self.leave();
        let (failed, relayed) = (stream.counts().srtp_failed, stream.relayed());
        for (name, count) in [("tandem_srtp_failed_total", failed), ("tandem_rtp_relayed_total", relayed)] {
            if count > 0 {
                metrics::counter!(name).increment(count);
            }
        }
    }

    /// Says goodbye over RTCP and gives the ports up. The stream, with what waits in it, may go on over others:
    /// [`DetachedMedia::take_over`].
    pub fn leave(mut self) -> Stream {
        if let Some(to) = self.stream.finish(Instant::now(), &mut self.packet) {
            // A goodbye that cannot be sent is not missed: signalling ends the call.
            let _lost = self.rtcp.try_send_to(&self.packet, to);
        }
        self.stream
    }

    /// Takes the media off this thread, to go on elsewhere: nothing is sent or heard meanwhile.
    ///
    /// # Errors
    /// When the runtime does not give its sockets back.
    pub fn detach(mut self) -> io::Result<DetachedMedia> {
        self.park(false);
        Ok(DetachedMedia {
            stream: self.stream,
            rtp: self.rtp.into_std()?,
            rtcp: self.rtcp.into_std()?,
            guard: self._ports,
        })
    }

    /// Sends this slot's packet; tells whether an item's audio was in it.
    fn send_slot(&mut self, deadline: Instant) -> bool {
        let now = Instant::now();
        let Some(tick) = self.stream.tick(now, &mut self.packet) else { return false };
        match self.rtp.try_send_to(&self.packet, tick.destination) {
            Ok(_) => {}
            // A full socket buffer or an ICMP error costs this one packet, as loss on the way would.
            Err(_) => metrics::counter!("tandem_rtp_send_errors_total").increment(1),
        }
        self.stream.note_lateness(now.saturating_duration_since(deadline));
        tick.item.is_some()
    }

    /// Ready with the time of the read when a datagram was taken.
    fn poll_rtp(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        if self.reads_left == 0 {
            self.reads_left = READS_A_TURN;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut buffer = ReadBuf::new(&mut self.datagram);
        match ready!(self.rtp.poll_recv_from(cx, &mut buffer)) {
            Ok(source) => {
                self.reads_left -= 1;
                let now = Instant::now();
                self.stream.receive_rtp(now, source, buffer.filled_mut());
                Poll::Ready(now)
            }
            // An ICMP error of an earlier packet; the socket is still good.
            Err(_) => Poll::Ready(Instant::now()),
        }
    }

    fn poll_rtcp(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = ReadBuf::new(&mut self.datagram);
        if let Ok(source) = ready!(self.rtcp.poll_recv_from(cx, &mut buffer)) {
            self.stream.receive_rtcp(Instant::now(), source, buffer.filled());
        }
        Poll::Ready(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        let Some(next) = self.stream.next_timeout() else { return Poll::Pending };
        self.timer.poll(cx, next)
    }

    fn send_report(&mut self, now: Instant) {
        if let Some(to) = self.stream.poll_rtcp(now, &mut self.packet) {
            let socket = if self.stream.config().rtcp_mux { &self.rtp } else { &self.rtcp };
            // A report that cannot be sent is made up for by the next one.
            let _lost = socket.try_send_to(&self.packet, to);
        }
    }
}

/// Media on its way from one worker to another.
#[derive(Debug)]
pub struct DetachedMedia {
    stream: Stream,
    rtp: std::net::UdpSocket,
    rtcp: std::net::UdpSocket,
    guard: PortGuard,
}

impl DetachedMedia {
    /// Media that has been at no thread yet.
    pub fn new(stream: Stream, ports: PortPair) -> Self {
        Self { stream, rtp: ports.rtp, rtcp: ports.rtcp, guard: ports.guard }
    }

    /// `former` goes on over these ports, to this far end, as it does after a new offer and answer: what waits to be
    /// heard is heard here, and the counts go on.
    ///
    /// # Errors
    /// When there is no encoder for the codec.
    pub fn take_over(&mut self, mut former: Stream) -> Result<(), AudioError> {
        former.reconfigure(self.stream.config().clone(), Instant::now())?;
        self.stream = former;
        Ok(())
    }

    /// Goes on at this thread, where it left off.
    ///
    /// # Errors
    /// When the runtime takes no more sockets.
    pub fn attach(self, pacer: &Pacer) -> io::Result<RtpMedia> {
        RtpMedia::new(self.stream, PortPair { rtp: self.rtp, rtcp: self.rtcp, guard: self.guard }, pacer)
    }
}

/// Larger than any audio packet we take; what is longer is cut and then refused.
const LARGEST_DATAGRAM: usize = 2048;
/// Datagrams read before the other sources get their turn.
const READS_A_TURN: u32 = 16;
