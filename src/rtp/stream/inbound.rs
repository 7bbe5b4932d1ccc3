//! From the far end: packets to bridge samples whose count is elapsed RTP time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::audio::dtmf::{Detector, Edge};
use crate::audio::{Codec, Decoder, MAX_PACKET, SampleRate};
use crate::rtp::dtmf::{DtmfMethod, DtmfReceiver};
use crate::rtp::packet::Packet;
use crate::rtp::reception::{Outcome, Passed, Reception, Released};
use crate::rtp::relay::RelayedKind;
use crate::rtp::sequence::Jitter;
use crate::rtp::stream::config::{StreamConfig, StreamEvent};
use crate::rtp::timeline::Timeline;

/// Receiving side of a stream.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) reception: Reception,
    pub(super) jitter: Jitter,
    pub(super) listener: Listener,
    /// When the last packet came.
    last: Option<Instant>,
    pub(super) max_gap: Duration,
}

/// A packet that may be relayed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passing {
    pub(super) kind: RelayedKind,
    pub(super) number: u64,
    pub(super) restarted: bool,
    /// The key it is the first news of.
    pub(super) digit: Option<char>,
}

/// Turns packets in order into samples.
#[derive(Debug)]
pub(super) struct Listener {
    timeline: Timeline,
    payloads: Vec<Payload>,
    /// Index of the payload last heard.
    current: Option<usize>,
    /// Telephone events: payload type and clock in Hz.
    keys: Vec<(u8, u32)>,
    dtmf: DtmfReceiver,
    inband: Option<Inband>,
    /// 24 kHz, not yet taken.
    audio: Vec<i16>,
    /// Silence fed since the last packet, at 24 kHz.
    idle: usize,
    pub(super) concealed: u64,
    pub(super) silence: u64,
    /// Untaken audio dropped because nobody took it, at 24 kHz.
    pub(super) dropped: u64,
    pub(super) undecodable: u64,
}

#[derive(Debug)]
struct Payload {
    payload_type: u8,
    codec: Codec,
    /// Made when first needed.
    decoder: Option<Decoder>,
}

/// What a payload type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Audio(usize),
    /// With its clock in Hz.
    Event(u32),
    ComfortNoise,
}

/// Keys in the audio itself.
#[derive(Debug)]
struct Inband {
    detector: Detector,
    edges: Vec<Edge>,
}

impl Inband {
    fn new() -> Self {
        Self { detector: Detector::new(SampleRate::HZ_24000), edges: Vec::new() }
    }
}

impl Inbound {
    pub(super) fn new(config: &StreamConfig, now: Instant) -> Self {
        Self {
            reception: Reception::new(config.reorder_wait, config.reorder_packets),
            jitter: Jitter::default(),
            listener: Listener::new(config, now),
            last: None,
            max_gap: Duration::ZERO,
        }
    }

    pub(super) fn reconfigure(&mut self, config: &StreamConfig) {
        self.reception.reconfigure(config.reorder_wait, config.reorder_packets);
        self.listener.reconfigure(config);
        // A pause that was agreed on is no gap.
        self.last = None;
    }

    /// Whether the payload type is one that was agreed on.
    pub(super) fn knows(&self, payload_type: u8) -> bool {
        self.listener.kind(payload_type).is_some()
    }

    /// Takes a packet of the far end. `heard` is false while we must not listen.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        heard: bool,
        events: &mut VecDeque<StreamEvent>,
    ) -> Outcome {
        if let Some(last) = self.last.replace(now) {
            self.max_gap = self.max_gap.max(now.saturating_duration_since(last));
        }
        let listener = &mut self.listener;
        let outcome = self.reception.receive(now, packet, &mut |released| {
            if heard {
                listener.hear(released, events);
            }
        });
        match (outcome, self.listener.kind(packet.header.payload_type)) {
            (Outcome::NewSource, _) => self.jitter.restart(),
            // Events repeat their timestamp and would look like jitter.
            (Outcome::Taken | Outcome::Late, Some(Kind::Audio(at))) => {
                let clock = self.listener.payloads[at].codec.clock_rate();
                self.jitter.record(now, packet.header.timestamp, clock);
            }
            _ => {}
        }
        outcome
    }

    /// Counts a packet that is relayed and looks through it for keys, as [`receive`](Self::receive) does for one
    /// that is heard. `None` for one that must not be relayed.
    pub(super) fn pass(&mut self, now: Instant, packet: Packet<'_>) -> Option<Passing> {
        let header = packet.header;
        if let Some(last) = self.last.replace(now) {
            self.max_gap = self.max_gap.max(now.saturating_duration_since(last));
        }
        let kind = self.listener.kind(header.payload_type)?;
        let Passed { number, restarted } = self.reception.pass(now, header)?;
        if restarted {
            self.jitter.restart();
        }
        let mut digit = None;
        let kind = match kind {
            Kind::Audio(at) => {
                let codec = self.listener.payloads[at].codec;
                self.jitter.record(now, header.timestamp, codec.clock_rate());
                self.listener.current = Some(at);
                RelayedKind::Audio(codec)
            }
            Kind::Event(clock) => {
                digit = self.listener.dtmf.receive(now, header.ssrc, header.timestamp, packet.payload);
                RelayedKind::Event(clock)
            }
            Kind::ComfortNoise => RelayedKind::ComfortNoise,
        };
        Some(Passing { kind, number, restarted, digit })
    }

    /// Nothing is heard from here on.
    pub(super) fn park(&mut self) {
        self.reception.drop_held();
    }

    /// Audio is heard again: what was relayed meanwhile is no gap.
    pub(super) fn unpark(&mut self, now: Instant) {
        self.listener.timeline = Timeline::new(now);
        self.listener.idle = 0;
        // Their memory is of audio long gone.
        self.listener.payloads.iter_mut().for_each(|payload| payload.decoder = None);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, events: &mut VecDeque<StreamEvent>) {
        let listener = &mut self.listener;
        self.reception.handle_timeout(now, &mut |released| listener.hear(released, events));
        // While a hole is open packets do come; what is missing is made up when the hole closes.
        if self.reception.next_timeout().is_none() {
            listener.feed_silence(now, events);
        }
    }

    pub(super) fn next_timeout(&self) -> Instant {
        self.reception.next_timeout().unwrap_or_else(|| self.listener.timeline.next_timeout())
    }
}

impl Listener {
    fn new(config: &StreamConfig, now: Instant) -> Self {
        let mut listener = Self {
            timeline: Timeline::new(now),
            payloads: Vec::new(),
            current: None,
            keys: Vec::new(),
            dtmf: DtmfReceiver::default(),
            inband: None,
            audio: Vec::new(),
            idle: 0,
            concealed: 0,
            silence: 0,
            dropped: 0,
            undecodable: 0,
        };
        listener.reconfigure(config);
        listener
    }

    fn reconfigure(&mut self, config: &StreamConfig) {
        let mut old = std::mem::take(&mut self.payloads);
        let current = self.current.take().and_then(|at| old.get(at)).map(|p| (p.payload_type, p.codec));
        let own = (config.payload_type, config.codec);
        for (payload_type, codec) in config.receive.iter().copied().chain([own]) {
            if self.payloads.iter().any(|p| p.payload_type == payload_type) {
                continue;
            }
            let kept = old.iter_mut().find(|p| p.payload_type == payload_type && p.codec == codec);
            let decoder = kept.and_then(|p| p.decoder.take());
            self.payloads.push(Payload { payload_type, codec, decoder });
        }
        self.current = current.and_then(|(pt, codec)| {
            self.payloads.iter().position(|p| p.payload_type == pt && p.codec == codec)
        });
        self.keys.clear();
        self.keys.extend(config.telephone_event.iter().chain(&config.receive_events));
        if config.inband_dtmf != self.inband.is_some() {
            self.inband = config.inband_dtmf.then(Inband::new);
        }
    }

    fn kind(&self, payload_type: u8) -> Option<Kind> {
        if let Some(at) = self.payloads.iter().position(|p| p.payload_type == payload_type) {
            return Some(Kind::Audio(at));
        }
        if let Some((_, clock)) = self.keys.iter().find(|(key, _)| *key == payload_type) {
            return Some(Kind::Event(*clock));
        }
        (payload_type == COMFORT_NOISE).then_some(Kind::ComfortNoise)
    }

    fn hear(&mut self, released: Released<'_>, events: &mut VecDeque<StreamEvent>) {
        let Packet { header, payload } = released.packet;
        match self.kind(header.payload_type) {
            Some(Kind::Event(_)) => {
                let digit = self.dtmf.receive(released.arrival, header.ssrc, header.timestamp, payload);
                events.extend(digit.map(|digit| StreamEvent::Dtmf { digit, method: DtmfMethod::Rtp }));
            }
            Some(Kind::ComfortNoise) => self.announced_silence(&released, events),
            Some(Kind::Audio(at)) => self.audio(at, &released, events),
            // Agreed on when it came, no longer when its turn came.
            None => {}
        }
    }

    fn announced_silence(&mut self, released: &Released<'_>, events: &mut VecDeque<StreamEvent>) {
        let Some(clock) = self.current.map(|at| self.payloads[at].codec.clock_rate()) else { return };
        let timestamp = released.packet.header.timestamp;
        let fill = self.timeline.packet(released.arrival, timestamp, clock, 0, released.restarted);
        let from = self.audio.len();
        self.fill(fill, released.missing, 0, &[]);
        self.finish(from, events);
    }

    fn audio(&mut self, at: usize, released: &Released<'_>, events: &mut VecDeque<StreamEvent>) {
        let Packet { header, payload } = released.packet;
        let entry = &mut self.payloads[at];
        if entry.decoder.is_none() {
            entry.decoder = Decoder::new(entry.codec).ok();
        }
        let clock = entry.codec.clock_rate();
        let samples = entry.decoder.as_ref().map_or(0, |decoder| decoder.payload_duration(payload));
        if samples == 0 || samples > MAX_SAMPLES {
            // An empty packet is a keep-alive (RFC 6263); anything else is none of the codec's.
            self.undecodable += u64::from(!payload.is_empty());
            return;
        }
        let fill =
            self.timeline.packet(released.arrival, header.timestamp, clock, samples, released.restarted);
        if released.missing > 0 {
            // The silence since the last packet stood for lost ones.
            self.silence -= self.idle as u64;
            self.concealed += self.idle as u64;
        }
        self.idle = 0;
        let from = self.audio.len();
        // The gap is made up in the voice heard before it; Opus may know how it ended.
        let next = if self.current == Some(at) { payload } else { &[] };
        self.fill(fill, released.missing, samples, next);
        self.current = Some(at);
        self.decode(at, payload, samples);
        self.finish(from, events);
    }

    fn decode(&mut self, at: usize, payload: &[u8], samples: usize) {
        let from = self.audio.len();
        let Some(decoder) = &mut self.payloads[at].decoder else { return };
        if decoder.decode(payload, &mut self.audio).is_err() {
            self.undecodable += 1;
            self.audio.truncate(from);
            decoder.conceal(samples, &mut self.audio);
        }
        // The account is kept by what the payload stands for.
        self.audio.resize(from + samples, 0);
        if self.timeline.has_surplus() && is_quiet(&self.audio[from..]) && self.timeline.leave_out(samples) {
            self.audio.truncate(from);
        }
    }

    fn feed_silence(&mut self, now: Instant, events: &mut VecDeque<StreamEvent>) {
        let owed = self.timeline.owed(now);
        if owed == 0 {
            return;
        }
        let from = self.audio.len();
        let fading = CONCEALED.saturating_sub(self.idle).min(owed);
        self.idle += owed;
        self.silence += owed as u64;
        match self.current.and_then(|at| self.payloads[at].decoder.as_mut()) {
            Some(decoder) => {
                // Whether the packets stopped on purpose is not known: the voice fades in either case.
                if fading > 0 {
                    decoder.conceal(fading, &mut self.audio);
                }
                decoder.silence(owed - fading, &mut self.audio);
            }
            None => self.audio.resize(from + owed, 0),
        }
        self.finish(from, events);
    }

    /// Makes up `samples` between two packets, of which `missing` were lost. `next` is the packet after
    /// the gap and `next_samples` its length, if they can help.
    fn fill(&mut self, samples: usize, missing: u64, next_samples: usize, next: &[u8]) {
        if samples == 0 {
            return;
        }
        let from = self.audio.len();
        *(if missing > 0 { &mut self.concealed } else { &mut self.silence }) += samples as u64;
        if let Some(decoder) = self.current.and_then(|at| self.payloads[at].decoder.as_mut()) {
            let recovered = if missing > 0 && !next.is_empty() { samples.min(next_samples) } else { 0 };
            let concealed = if missing > 0 { (samples - recovered).min(CONCEALED) } else { 0 };
            if concealed > 0 {
                decoder.conceal(concealed, &mut self.audio);
            }
            if samples > concealed + recovered {
                decoder.silence(samples - concealed - recovered, &mut self.audio);
            }
            if recovered > 0 {
                decoder.recover(recovered, next, &mut self.audio);
            }
        }
        self.audio.resize(from + samples, 0);
    }

    /// Looks at what was appended since `from`, and keeps the buffer within its bound.
    fn finish(&mut self, from: usize, events: &mut VecDeque<StreamEvent>) {
        if let Some(inband) = &mut self.inband {
            inband.detector.feed(&self.audio[from.min(self.audio.len())..], &mut inband.edges);
            events.extend(inband.edges.drain(..).filter_map(|edge| match edge {
                Edge::Pressed { digit, .. } => {
                    Some(StreamEvent::Dtmf { digit: digit.to_char(), method: DtmfMethod::Inband })
                }
                Edge::Released { .. } => None,
            }));
        }
        if self.audio.len() > MAX_UNTAKEN {
            let excess = self.audio.len() - MAX_UNTAKEN;
            self.audio.drain(..excess);
            self.dropped += excess as u64;
        }
    }

    /// The codec last heard.
    pub(super) fn codec(&self) -> Option<Codec> {
        self.current.map(|at| self.payloads[at].codec)
    }

    pub(super) fn take_audio(&mut self, out: &mut Vec<i16>) {
        out.append(&mut self.audio);
    }
}

fn is_quiet(samples: &[i16]) -> bool {
    samples.iter().all(|sample| sample.unsigned_abs() < QUIET)
}

/// RFC 3389.
const COMFORT_NOISE: u8 = 13;
/// Made up in the caller's voice before a gap falls silent: 60 ms at 24 kHz.
const CONCEALED: usize = 1440;
/// Audio that may wait to be taken, 10 s at 24 kHz; the oldest goes first.
const MAX_UNTAKEN: usize = 240_000;
/// Longer packets are not decoded.
const MAX_SAMPLES: usize = SampleRate::HZ_24000.samples_in(MAX_PACKET);
/// Below -40 dB of full scale nobody misses a frame.
const QUIET: u16 = 328;
