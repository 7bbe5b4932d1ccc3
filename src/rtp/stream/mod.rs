//! One party's media: received packets to bridge samples, bridge samples to packets.
//!
//! The owner passes in datagrams, calls [`Stream::tick`] once per 20 ms slot (see
//! [`SlotWheel`](crate::rtp::SlotWheel)), and [`Stream::handle_timeout`] at [`Stream::next_timeout`]; after
//! each of these it takes the audio and polls the events. Nothing here waits, and in steady state nothing
//! allocates.

mod config;
mod guard;
mod inbound;
mod outbound;
mod relaying;
mod reports;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng;

use crate::audio::{AudioError, SampleRate};
use crate::event::Quality;
use crate::rtp::dtmf::{self, DtmfError};
use crate::rtp::emodel;
use crate::rtp::histogram::Histogram;
use crate::rtp::latch::{Latch, Verdict};
use crate::rtp::packet::{self, Packet};
use crate::rtp::playout::{ItemKey, PlayError, PlayedItem, PlayoutEvent};
use crate::rtp::reception::Outcome;
use crate::rtp::rtcp::{self, Report, ReportBlock, RtcpPacket, SenderInfo};

pub use config::{Direction, StreamConfig, StreamEvent, Tick};

use guard::Guard;
use inbound::Inbound;
use outbound::Outbound;
use reports::Reports;

/// The media of one SIP leg.
#[derive(Debug)]
pub struct Stream {
    config: StreamConfig,
    began: Instant,
    rtp: Latch,
    rtcp: Latch,
    inbound: Inbound,
    outbound: Outbound,
    reports: Reports,
    events: VecDeque<StreamEvent>,
    watch: Watch,
    counts: StreamCounts,
    lateness: Histogram,
    uplink: Histogram,
    pacing_late: u64,
    guard: Guard,
    /// For reading encrypted reports.
    report: Vec<u8>,
    /// Packets sent to an address that has shown no life yet.
    unproven: u32,
    /// Packets are relayed, not heard.
    parked: bool,
    relay_epoch: u32,
    relayed: u64,
}

/// When RTP was last heard, and whether its absence was told.
#[derive(Debug)]
struct Watch {
    last: Instant,
    heard: bool,
    told: bool,
    /// When a stranger was last told of, and when somebody last reflected our own source.
    stranger: Option<Instant>,
}

/// Packets that did not become audio, by reason. For metrics; the rest is in [`Quality`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamCounts {
    /// No RTP or RTCP at all.
    pub malformed: u64,
    /// Payload type that was not agreed on.
    pub unknown_payload: u64,
    /// From a source that is not the far end.
    pub foreign: u64,
    /// From a source that had yet to prove itself.
    pub unproven: u64,
    /// Under our own synchronization source.
    pub collisions: u64,
    /// While the direction said that nothing is received.
    pub unwanted: u64,
    /// Payloads that the codec could not read.
    pub undecodable: u64,
    /// Received audio dropped because nobody took it.
    pub dropped_ms: u64,
    /// Audio of the other leg dropped because it came faster than it could be heard.
    pub live_dropped_ms: u64,
    /// Packets that did not leave, because their destination has shown no life.
    pub withheld: u64,
    /// Did not authenticate, or came again (SRTP).
    pub srtp_failed: u64,
    /// Events dropped because nobody polled them.
    pub events_dropped: u64,
}

impl Stream {
    /// A stream that begins at `now`; `rng` gives synchronization source, first sequence number and
    /// first timestamp.
    ///
    /// # Errors
    /// When there is no encoder for the codec.
    pub fn new<R: Rng + ?Sized>(config: StreamConfig, rng: &mut R, now: Instant) -> Result<Self, AudioError> {
        let random = [rng.next_u32(), rng.next_u32(), rng.next_u32()];
        Ok(Self {
            began: now,
            rtp: Latch::new(config.latch.clone(), config.remote),
            rtcp: Latch::new(config.latch.clone(), config.rtcp_remote()),
            inbound: Inbound::new(&config, now),
            outbound: Outbound::new(&config, random, now)?,
            reports: Reports::new(now, rng.next_u64()),
            events: VecDeque::new(),
            watch: Watch { last: now, heard: false, told: false, stranger: None },
            counts: StreamCounts::default(),
            lateness: Histogram::new(),
            uplink: Histogram::new(),
            pacing_late: 0,
            guard: Guard::new(config.srtp.as_ref()),
            report: Vec::new(),
            unproven: 0,
            parked: false,
            // Epochs of two streams shall not be alike.
            relay_epoch: random[0],
            relayed: 0,
            config,
        })
    }

    /// Takes the outcome of a new offer and answer: hold, unhold, another address or codec. Our source,
    /// sequence numbers and timestamps go on; waiting audio stays and is converted.
    ///
    /// # Errors
    /// When there is no encoder for the codec; then nothing has changed.
    pub fn reconfigure(&mut self, config: StreamConfig, now: Instant) -> Result<(), AudioError> {
        self.outbound.reconfigure(&config)?;
        self.inbound.reconfigure(&config);
        self.rtp.reconfigure(config.latch.clone(), config.remote);
        self.rtcp.reconfigure(config.latch.clone(), config.rtcp_remote());
        self.guard.reconfigure(config.srtp.as_ref(), now);
        self.watch.last = now;
        self.watch.told = false;
        if config.remote != self.config.remote {
            self.unproven = 0;
        }
        // The clock of our reports goes on: a new one would make every round trip longer by what has passed.
        self.config = StreamConfig { wall_clock: self.config.wall_clock, ..config };
        Ok(())
    }

    /// What the stream is configured with.
    pub fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// From now on a silence of the far end that lasts so long is told; `None`: none is.
    pub fn watch_silence(&mut self, now: Instant, timeout: Option<Duration>) {
        self.config.media_timeout = timeout;
        self.watch.last = now;
        self.watch.told = false;
    }

    /// Takes a datagram of the RTP socket. Whatever it is, it is used, dropped or counted.
    pub fn receive_rtp(&mut self, now: Instant, source: SocketAddr, datagram: &mut [u8]) {
        if let Some(packet) = self.admit(now, source, datagram) {
            self.accept(now, source, packet);
        }
    }

    /// The packet of a datagram, if it is the far end's: authenticated before anything of it is believed.
    fn admit<'a>(&mut self, now: Instant, source: SocketAddr, datagram: &'a mut [u8]) -> Option<Packet<'a>> {
        if packet::is_rtcp(datagram) {
            self.receive_rtcp(now, source, datagram);
            return None;
        }
        let datagram = self.open(now, datagram)?;
        let Ok(packet) = Packet::parse(datagram) else {
            self.counts.malformed += 1;
            return None;
        };
        let header = packet.header;
        if !self.inbound.knows(header.payload_type) {
            self.counts.unknown_payload += 1;
            return None;
        }
        match self.rtp.judge(now, source, header.ssrc, header.sequence) {
            Verdict::Accept => {}
            Verdict::AcceptAndLatch => self.tell(StreamEvent::Latched { source }),
            Verdict::Wait => {
                self.counts.unproven += 1;
                return None;
            }
            Verdict::Foreign => {
                self.foreign(now, source);
                return None;
            }
        }
        if header.ssrc == self.outbound.ssrc {
            self.collide();
            return None;
        }
        Some(packet)
    }

    /// Takes SRTP off. What is no packet of this session by its look is not worth the arithmetic.
    fn open<'a>(&mut self, now: Instant, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
        if self.guard.is_clear() {
            return Some(datagram);
        }
        match packet::payload_type(datagram) {
            None => self.counts.malformed += 1,
            Some(kind) if !self.inbound.knows(kind) => self.counts.unknown_payload += 1,
            Some(_) => {
                let opened = self.guard.open(now, datagram);
                self.counts.srtp_failed += u64::from(opened.is_none());
                return opened;
            }
        }
        None
    }

    /// Takes a datagram of the RTCP socket.
    pub fn receive_rtcp(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        if self.guard.is_clear() {
            return self.read_rtcp(now, source, datagram);
        }
        let mut copy = std::mem::take(&mut self.report);
        copy.clear();
        copy.extend_from_slice(datagram);
        match self.guard.open_rtcp(now, &mut copy) {
            Some(plain) => self.read_rtcp(now, source, plain),
            None => self.counts.srtp_failed += 1,
        }
        self.report = copy;
    }

    fn read_rtcp(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        let Some(sender) = rtcp::parse(datagram).find_map(sender_of) else {
            self.counts.malformed += 1;
            return;
        };
        // Who sends the RTP we already believe may report on it without further proof.
        let trusted = self.rtp.source().is_some_and(|rtp| rtp.ip() == source.ip().to_canonical())
            && self.inbound.reception.ssrc() == Some(sender);
        let verdict = if trusted {
            self.rtcp.trust(now, source, sender)
        } else {
            // Reports have no sequence numbers: any two of one source are consistent.
            self.rtcp.judge_report(now, source, sender)
        };
        match verdict {
            Verdict::Accept | Verdict::AcceptAndLatch => {}
            Verdict::Wait => {
                self.counts.unproven += 1;
                return;
            }
            Verdict::Foreign => return self.foreign(now, source),
        }
        let (ntp, loss) = (self.ntp(now), self.reports.loss());
        for packet in rtcp::parse(datagram) {
            self.reports.receive(now, ntp, self.outbound.ssrc, packet);
        }
        if loss > 0 || self.reports.loss() > 0 {
            self.outbound.playout.expect_loss(self.reports.loss());
        }
        if std::mem::take(&mut self.reports.goodbye) {
            self.tell(StreamEvent::PeerBye);
        }
    }

    /// Does what time demands: gives up holes, feeds silence, notices that media stopped.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.parked {
            self.inbound.handle_timeout(now, &mut self.events);
        }
        if self.media_deadline().is_some_and(|deadline| now >= deadline) {
            self.watch.told = true;
            let silent = now.saturating_duration_since(self.watch.last);
            self.tell(StreamEvent::MediaTimeout { silent });
        }
        self.bound_events();
    }

    /// When [`handle_timeout`](Self::handle_timeout) or [`poll_rtcp`](Self::poll_rtcp) has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let reports = self.reports.next_timeout();
        let next = if self.parked { reports } else { self.inbound.next_timeout().min(reports) };
        Some(self.media_deadline().map_or(next, |deadline| next.min(deadline)))
    }

    /// The next thing the owner should know. Poll after every packet, timeout and tick.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front().or_else(|| {
            Some(match self.outbound.playout.poll_event()? {
                PlayoutEvent::Started(item) => StreamEvent::ItemStarted { item },
                PlayoutEvent::Finished { item, played_ms } => StreamEvent::ItemFinished { item, played_ms },
            })
        })
    }

    /// Appends the far end's audio that is due: 24 kHz, in order, sample count equal to elapsed RTP time.
    /// Audio that is not taken for 10 s is dropped, oldest first.
    pub fn take_audio(&mut self, out: &mut Vec<i16>) {
        self.inbound.listener.take_audio(out);
    }

    /// Queues 24 kHz audio for the far end behind what waits already.
    ///
    /// # Errors
    /// [`PlayError::Full`] beyond [`StreamConfig::playout_limit`]; [`PlayError::Cleared`] for late audio
    /// of an item that [`clear`](Self::clear) dropped.
    pub fn play(&mut self, item: &ItemKey, pcm24k: &[i16]) -> Result<(), PlayError> {
        self.outbound.playout.play(item, pcm24k)
    }

    /// No more audio will come for an item. An item that never had any leaves no event.
    pub fn end_item(&mut self, item: &ItemKey) {
        self.outbound.playout.end_item(item);
    }

    /// Barge-in: drops all queued audio and says what was heard of it. The next slot carries at most a
    /// fade of 5 ms.
    pub fn clear(&mut self) -> Vec<PlayedItem> {
        self.outbound.playout.clear()
    }

    /// Holds queued audio back from the next slot on, which carries at most a fade of 5 ms.
    pub fn pause(&mut self) {
        self.outbound.playout.pause();
    }

    /// Queued audio is sent again, from where it was held back.
    pub fn resume(&mut self) {
        self.outbound.playout.resume();
    }

    /// Milliseconds of an item that have left on RTP, less the resampler's delay.
    pub fn played_ms(&self, item: &ItemKey) -> Option<u64> {
        self.outbound.playout.played_ms(item)
    }

    /// Audio that waits to be sent.
    pub fn queued(&self) -> Duration {
        self.outbound.playout.queued()
    }

    /// Whether nothing is being said and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.outbound.playout.is_idle() && !self.outbound.dtmf.is_active()
    }

    /// Sends digits as telephone events, one after the other; queued audio waits meanwhile.
    ///
    /// # Errors
    /// When events were not negotiated, a digit does not exist, or too many wait.
    pub fn send_dtmf(&mut self, digits: &str, duration: Duration) -> Result<(), DtmfError> {
        if self.config.telephone_event.is_none() {
            return Err(DtmfError::NotNegotiated);
        }
        self.outbound.dtmf.queue(digits, duration)
    }

    /// Queues digits as tones in the audio, as one item behind what waits. For far ends that take no
    /// telephone events.
    ///
    /// # Errors
    /// When a digit does not exist, or the queue is full; then nothing is queued.
    pub fn send_dtmf_tones(
        &mut self,
        item: &ItemKey,
        digits: &str,
        duration: Duration,
    ) -> Result<(), DtmfError> {
        let mut tones = Vec::new();
        dtmf::render_tones(digits, duration, &mut tones)?;
        if self.queued() + SampleRate::HZ_24000.duration_of(tones.len()) > self.config.playout_limit {
            return Err(DtmfError::Full);
        }
        self.play(item, &tones).map_err(|_| DtmfError::Full)?;
        self.end_item(item);
        Ok(())
    }

    /// Appends audio of the other leg, 24 kHz: heard while no item is. At most 120 ms wait; the oldest go first
    /// and are counted.
    pub fn play_live(&mut self, pcm24k: &[i16]) {
        self.outbound.playout.play_live(pcm24k);
    }

    /// One 20 ms slot: replaces `out` with the packet to send, if there is one. While nothing may be sent
    /// the RTP clock runs on and queued audio waits.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Tick> {
        out.clear();
        let destination = self.config.may_send().then(|| self.rtp.destination());
        let sending = self.outbound.dtmf.is_active();
        let tick = self.outbound.tick(now, &self.config, destination, out);
        if sending && !self.outbound.dtmf.is_active() {
            self.tell(StreamEvent::DtmfSent);
        }
        let tick = tick?;
        if !self.may_reach(tick.destination) || !self.guard.seal(out) {
            out.clear();
            return None;
        }
        Some(tick)
    }

    /// Lets `slots` pass that were missed: timestamps skip over them, queued audio stays.
    pub fn skip(&mut self, slots: u32) {
        self.outbound.skip(slots, &self.config);
    }

    /// Appends 480 bridge samples: what the last [`tick`](Self::tick) put on the wire, silence if nothing. For
    /// recordings; call it after every tick or never.
    pub fn sent_frame(&mut self, out: &mut Vec<i16>) {
        self.outbound.sent_frame(out);
    }

    /// Replaces `out` with an RTCP report if one is due and there is somewhere to send it.
    pub fn poll_rtcp(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<SocketAddr> {
        if !self.reports.is_due(now) {
            return None;
        }
        self.report(now, out, false)
    }

    /// Replaces `out` with the last report and a BYE. Send it and drop the stream.
    pub fn finish(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<SocketAddr> {
        self.report(now, out, true)
    }

    /// Notes how late a packet left after its slot's deadline.
    pub fn note_lateness(&mut self, late: Duration) {
        self.pacing_late += u64::from(late > PACING_TOLERANCE);
        self.lateness.record(late);
    }

    /// Notes how long a received packet took to the provider's socket.
    pub fn note_uplink(&mut self, took: Duration) {
        self.uplink.record(took);
    }

    /// Lateness of sent packets.
    pub fn lateness(&self) -> &Histogram {
        &self.lateness
    }

    /// Our synchronization source.
    pub fn ssrc(&self) -> u32 {
        self.outbound.ssrc
    }

    /// Where the far end was found, once it was heard.
    pub fn source(&self) -> Option<SocketAddr> {
        self.rtp.source()
    }

    /// Packets that did not become audio.
    pub fn counts(&self) -> StreamCounts {
        let listener = &self.inbound.listener;
        StreamCounts {
            undecodable: listener.undecodable,
            dropped_ms: listener.dropped * 1000 / BRIDGE_RATE,
            live_dropped_ms: self.outbound.playout.live_dropped_ms(),
            ..self.counts
        }
    }

    /// The stream's statistics so far.
    pub fn quality(&self) -> Quality {
        let packets = self.inbound.reception.counts();
        let (listener, playout) = (&self.inbound.listener, &self.outbound.playout);
        let heard = packets.received > 0;
        let jitter = self.inbound.jitter.seconds() * 1000.0;
        Quality {
            packets_received: packets.received,
            packets_sent: self.outbound.packets,
            packets_lost: packets.lost(),
            packets_late: packets.late,
            packets_duplicate: packets.duplicate,
            packets_reordered: packets.reordered,
            packets_foreign: self.counts.foreign,
            concealed_ms: listener.concealed * 1000 / BRIDGE_RATE,
            silence_ms: listener.silence * 1000 / BRIDGE_RATE,
            max_gap_ms: self.inbound.max_gap.as_millis() as u64,
            jitter_ms: heard.then_some(jitter),
            round_trip_ms: self.reports.round_trip.map(millis),
            peer_loss: self.peer_loss(),
            mos: self.mos(),
            pacing_late: self.pacing_late,
            pacing_p99_ms: self.lateness.quantile(0.99).map(millis),
            underruns: playout.underruns(),
            uplink_p99_ms: self.uplink.quantile(0.99).map(millis),
            assistant_generated_ms: playout.generated_ms(),
            assistant_played_ms: playout.heard_ms(),
        }
    }

    /// Whether a packet may go there: the address has shown life, is of a network we trust, or has not got
    /// many yet.
    fn may_reach(&mut self, destination: SocketAddr) -> bool {
        if self.rtp.source().is_some() {
            return true;
        }
        if self.unproven < self.config.unproven_packets {
            self.unproven += 1;
            return true;
        }
        let ip = destination.ip();
        let trusted = self.config.latch.allowed.iter().any(|network| network.contains(&ip));
        let reported = self.rtcp.source().is_some_and(|source| source.ip() == ip);
        self.counts.withheld += u64::from(!trusted && !reported);
        trusted || reported
    }

    fn note_heard(&mut self, now: Instant, source: SocketAddr) {
        self.watch.last = now;
        if !std::mem::replace(&mut self.watch.heard, true) {
            self.tell(StreamEvent::MediaStarted { source });
        }
        if std::mem::take(&mut self.watch.told) {
            self.tell(StreamEvent::MediaResumed);
        }
    }

    fn accept(&mut self, now: Instant, source: SocketAddr, packet: Packet<'_>) {
        self.note_heard(now, source);
        let heard = self.config.direction.receive;
        self.counts.unwanted += u64::from(!heard);
        let outcome = self.inbound.receive(now, packet, heard, &mut self.events);
        if outcome == Outcome::NewSource {
            self.tell(StreamEvent::SsrcChanged { ssrc: packet.header.ssrc });
        }
        self.bound_events();
    }

    fn foreign(&mut self, now: Instant, source: SocketAddr) {
        self.counts.foreign += 1;
        let quiet = |told: Instant| now.saturating_duration_since(told) < STRANGER_INTERVAL;
        if !self.watch.stranger.is_some_and(quiet) {
            self.watch.stranger = Some(now);
            self.tell(StreamEvent::ForeignSource { source, total: self.counts.foreign });
        }
    }

    /// Somebody uses our source: we take another (RFC 3550 8.2). A far end that reflects our packets
    /// would make us change for ever, so after a few times they are only dropped.
    fn collide(&mut self) {
        self.counts.collisions += 1;
        if self.counts.collisions <= MAX_COLLISIONS {
            self.outbound.ssrc = self.outbound.ssrc.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        }
    }

    fn report(&mut self, now: Instant, out: &mut Vec<u8>, goodbye: bool) -> Option<SocketAddr> {
        out.clear();
        let destination = self.rtcp_destination()?;
        let sending = self.reports.is_sender(self.outbound.packets);
        let sender = sending.then(|| SenderInfo {
            ntp: self.ntp(now),
            timestamp: self.outbound.timestamp_at(now, self.config.codec.clock_rate()),
            packets: self.outbound.packets as u32,
            octets: self.outbound.octets as u32,
        });
        let block = self.block(now);
        let cname = &self.config.cname;
        Report { ssrc: self.outbound.ssrc, sender, block, cname, goodbye }.write(out);
        self.guard.seal_rtcp(out).then_some(destination)
    }

    fn rtcp_destination(&self) -> Option<SocketAddr> {
        let destination = if self.config.rtcp_mux { self.rtp.destination() } else { self.rtcp.destination() };
        let signalled = self.config.rtcp_remote().ip();
        let somewhere = |ip: IpAddr| !ip.is_unspecified();
        let possible = somewhere(signalled) && somewhere(destination.ip()) && destination.port() != 0;
        possible.then_some(destination)
    }

    fn block(&mut self, now: Instant) -> Option<ReportBlock> {
        let (last_sr, delay_since_last_sr) = self.reports.last_sr(now);
        let jitter = self.inbound.jitter.seconds() * f64::from(self.config.codec.clock_rate());
        let ssrc = self.inbound.reception.ssrc()?;
        let sequence = self.inbound.reception.sequence()?;
        Some(ReportBlock {
            ssrc,
            fraction_lost: sequence.take_fraction_lost(),
            cumulative_lost: i32::try_from(sequence.lost()).unwrap_or(i32::MAX),
            // Numbers are kept with one cycle of room below the first.
            highest_sequence: (sequence.highest() as u32).wrapping_sub(1 << 16),
            jitter: jitter as u32,
            last_sr,
            delay_since_last_sr,
        })
    }

    fn peer_loss(&self) -> Option<f64> {
        let block = self.reports.peer?;
        let sent = self.outbound.packets.max(1) as f64;
        Some((f64::from(block.cumulative_lost.max(0)) / sent).min(1.0))
    }

    /// Loss counts what came too late to be heard; delay is half the round trip plus a packet and a
    /// jitter buffer.
    fn mos(&self) -> Option<f64> {
        let packets = self.inbound.reception.counts();
        if packets.expected == 0 {
            return None;
        }
        let loss = (packets.lost() + packets.late) as f64 / packets.expected as f64;
        let delay = self.reports.round_trip.unwrap_or(USUAL_TRIP) / 2 + self.config.ptime + USUAL_BUFFER;
        let codec = self.inbound.listener.codec().unwrap_or(self.config.codec);
        Some(emodel::mos(emodel::rating(codec, delay, loss)))
    }

    fn ntp(&self, now: Instant) -> u64 {
        let wall = Duration::from_millis(u64::try_from(self.config.wall_clock.get()).unwrap_or(0));
        rtcp::ntp(wall + now.saturating_duration_since(self.began))
    }

    fn media_deadline(&self) -> Option<Instant> {
        let timeout = self.config.media_timeout?;
        // Who holds (RFC 3264 section 8.4) may fall silent: it wants to hear nothing, and often has no music.
        let both = self.config.direction.receive && self.config.direction.send;
        (both && !self.watch.told).then(|| self.watch.last + timeout)
    }

    fn tell(&mut self, event: StreamEvent) {
        self.events.push_back(event);
        self.bound_events();
    }

    fn bound_events(&mut self) {
        while self.events.len() > MAX_EVENTS {
            self.events.pop_back();
            self.counts.events_dropped += 1;
        }
    }
}

fn sender_of(packet: RtcpPacket<'_>) -> Option<u32> {
    match packet {
        RtcpPacket::SenderReport { ssrc, .. }
        | RtcpPacket::ReceiverReport { ssrc, .. }
        | RtcpPacket::Description { ssrc, .. }
        | RtcpPacket::Goodbye { ssrc } => Some(ssrc),
        RtcpPacket::Other(_) => None,
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

const BRIDGE_RATE: u64 = crate::audio::BRIDGE_RATE as u64;
/// A packet this late after its slot is counted as late.
const PACING_TOLERANCE: Duration = Duration::from_millis(2);
const STRANGER_INTERVAL: Duration = Duration::from_secs(5);
const MAX_COLLISIONS: u64 = 3;
/// Events that may wait to be polled; new ones are dropped beyond.
const MAX_EVENTS: usize = 256;
/// Assumed while RTCP has not told.
const USUAL_TRIP: Duration = Duration::from_millis(50);
/// A far end's jitter buffer.
const USUAL_BUFFER: Duration = Duration::from_millis(40);

#[cfg(test)]
mod model;
#[cfg(test)]
mod relay_tests;
#[cfg(test)]
mod tests;
