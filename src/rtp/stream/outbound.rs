//! Towards the far end: one slot after another, as packets.

use std::net::SocketAddr;
use std::time::Instant;

use crate::audio::{AudioError, Codec, FRAME_SAMPLES};
use crate::rtp::dtmf::{DtmfSender, DtmfSlot};
use crate::rtp::packet::Header;
use crate::rtp::playout::{ItemKey, Playout, Samples, Widener};
use crate::rtp::relay::{Relayed, RelayedKind, Rewriter};
use crate::rtp::stream::config::{StreamConfig, Tick};

/// Sending side of a stream. The synchronization source stays for the life of the stream; timestamps
/// follow time, also while nothing is sent; sequence numbers follow packets.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) playout: Playout,
    pub(super) dtmf: DtmfSender,
    pub(super) ssrc: u32,
    pub(super) packets: u64,
    pub(super) octets: u64,
    sequence: u16,
    /// Of the next slot.
    timestamp: u32,
    /// When the last slot was ticked.
    ticked: Instant,
    /// The next packet is the first after a pause.
    marker: bool,
    talking: bool,
    /// What the last slot put on the wire.
    slot: Samples,
    /// Slots of a packet longer than one.
    pending: Pending,
    widener: Widener,
    wide: Vec<i16>,
    rewriter: Rewriter,
}

#[derive(Debug)]
struct Pending {
    samples: Samples,
    slots: u32,
    timestamp: u32,
    item: Option<ItemKey>,
}

impl Outbound {
    pub(super) fn new(config: &StreamConfig, random: [u32; 3], now: Instant) -> Result<Self, AudioError> {
        let [ssrc, sequence, timestamp] = random;
        Ok(Self {
            playout: Playout::new(config.codec, config.playout_limit)?,
            dtmf: DtmfSender::default(),
            ssrc,
            packets: 0,
            octets: 0,
            // Room below the turn of the counter: SRTP cannot tell a turn in the first packets (RFC 3711 3.3.1).
            sequence: sequence as u16 & 0x7fff,
            timestamp,
            ticked: now,
            marker: true,
            talking: false,
            slot: Samples::of(config.codec),
            pending: Pending::new(config),
            widener: Widener::new(config.codec)?,
            wide: Vec::with_capacity(FRAME_SAMPLES),
            rewriter: Rewriter::default(),
        })
    }

    pub(super) fn reconfigure(&mut self, config: &StreamConfig) -> Result<(), AudioError> {
        if config.codec != self.playout.codec() {
            let widener = Widener::new(config.codec)?;
            self.playout.reconfigure(config.codec, config.playout_limit)?;
            self.widener = widener;
            self.slot = Samples::of(config.codec);
            self.pending = Pending::new(config);
        } else {
            self.playout.reconfigure(config.codec, config.playout_limit)?;
        }
        if config.telephone_event.is_none() {
            self.dtmf.clear();
        }
        Ok(())
    }

    /// One slot. `destination` is `None` while nothing may be sent.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        config: &StreamConfig,
        destination: Option<SocketAddr>,
        out: &mut Vec<u8>,
    ) -> Option<Tick> {
        let timestamp = self.timestamp;
        self.timestamp = timestamp.wrapping_add(slot_units(config.codec.clock_rate()));
        self.ticked = now;
        self.rewriter.forget();
        self.slot.clear();
        let Some(destination) = destination else {
            self.interrupt();
            self.playout.drop_tail();
            self.slot.pad(self.playout.slot_samples());
            return None;
        };
        let (event_type, event_clock) = config.telephone_event.unwrap_or((0, 8000));
        let item = match self.dtmf.slot(timestamp, slot_units(event_clock)) {
            DtmfSlot::Audio => self.playout.slot(&mut self.slot),
            DtmfSlot::Pause => {
                self.slot.pad(self.playout.slot_samples());
                None
            }
            DtmfSlot::Event { timestamp, marker, payload } => {
                self.slot.pad(self.playout.slot_samples());
                self.pending.clear();
                self.packet(event_type, marker, timestamp, out);
                out.extend_from_slice(&payload);
                self.octets += payload.len() as u64;
                return Some(Tick { destination, item: None, dtmf: true });
            }
        };
        self.audio(timestamp, item, config, out).map(|item| Tick { destination, item, dtmf: false })
    }

    /// The audio packet that this slot completes, if it does.
    fn audio(
        &mut self,
        timestamp: u32,
        item: Option<ItemKey>,
        config: &StreamConfig,
        out: &mut Vec<u8>,
    ) -> Option<Option<ItemKey>> {
        let slots = slots_per_packet(config);
        let first = if slots == 1 { timestamp } else { self.pending.add(&self.slot, timestamp, &item) };
        let item = if slots == 1 { item } else { item.or_else(|| self.pending.item.clone()) };
        if slots > 1 && self.pending.slots < slots {
            return None;
        }
        let talks = item.is_some();
        let marker = self.marker || talks && !self.talking;
        let before = (self.sequence, self.packets);
        self.packet(config.payload_type, marker, first, out);
        let head = out.len();
        let samples = if slots == 1 { &self.slot } else { &self.pending.samples };
        let encoded = self.playout.encode(samples, out);
        self.pending.clear();
        if encoded.is_err() {
            // An encoder that refuses whole frames of its own making is broken; the far end hears a gap.
            (self.sequence, self.packets) = before;
            out.clear();
            return None;
        }
        self.octets += (out.len() - head) as u64;
        self.marker = false;
        self.talking = talks;
        Some(item)
    }

    fn packet(&mut self, payload_type: u8, marker: bool, timestamp: u32, out: &mut Vec<u8>) {
        let header = Header { payload_type, marker, sequence: self.sequence, timestamp, ssrc: self.ssrc };
        header.write(out);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets += 1;
    }

    /// Replaces `out` with a packet of another leg as ours, in the place where it belongs. `false`: it is not
    /// for this far end.
    pub(super) fn relay(
        &mut self,
        now: Instant,
        config: &StreamConfig,
        packet: &Relayed<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(payload_type) = payload_type_of(packet.kind, config) else {
            self.rewriter.leave_out(packet);
            return false;
        };
        let units = slot_units(config.codec.clock_rate());
        let first = !self.rewriter.knows(packet);
        if first {
            let timestamp = self.timestamp.wrapping_add(units.wrapping_mul(self.slots_left_out(now)));
            self.rewriter.begin(packet, self.sequence, timestamp);
        }
        let Some((sequence, timestamp)) = self.rewriter.place(packet) else { return false };
        let marker = packet.marker || first;
        Header { payload_type, marker, sequence, timestamp, ssrc: self.ssrc }.write(out);
        out.extend_from_slice(packet.payload);
        self.packets += 1;
        self.octets += packet.payload.len() as u64;
        if sequence.wrapping_sub(self.sequence) < 0x8000 {
            self.sequence = sequence.wrapping_add(1);
            if matches!(packet.kind, RelayedKind::Audio(_)) {
                self.timestamp = timestamp.wrapping_add(units);
                self.ticked = now;
            }
        }
        true
    }

    /// Slots come again: the clock has gone on meanwhile.
    pub(super) fn unpark(&mut self, now: Instant, config: &StreamConfig) {
        let slots = self.slots_left_out(now).saturating_add(slots_per_packet(config) - 1);
        self.timestamp =
            self.timestamp.wrapping_add(slot_units(config.codec.clock_rate()).wrapping_mul(slots));
        self.ticked = now;
        self.rewriter.forget();
        self.interrupt();
    }

    /// Slots that have passed since the last one, if `now` is about one.
    fn slots_left_out(&self, now: Instant) -> u32 {
        let passed = (now.saturating_duration_since(self.ticked).as_millis() + 10) / 20;
        u32::try_from(passed).unwrap_or(u32::MAX).saturating_sub(1)
    }

    /// Lets slots pass without packets.
    pub(super) fn skip(&mut self, slots: u32, config: &StreamConfig) {
        let units = slot_units(config.codec.clock_rate()).wrapping_mul(slots);
        self.timestamp = self.timestamp.wrapping_add(units);
        self.interrupt();
    }

    fn interrupt(&mut self) {
        self.marker = true;
        self.talking = false;
        self.pending.clear();
    }

    /// The RTP clock at `now`.
    pub(super) fn timestamp_at(&self, now: Instant, clock_rate: u32) -> u32 {
        let since = now.saturating_duration_since(self.ticked);
        let units = since.as_micros() * u128::from(clock_rate) / 1_000_000;
        self.timestamp.wrapping_sub(slot_units(clock_rate)).wrapping_add(units as u32)
    }

    /// What the last slot put on the wire, as 480 bridge samples.
    pub(super) fn sent_frame(&mut self, out: &mut Vec<i16>) {
        self.slot.pad(self.playout.slot_samples());
        self.wide.clear();
        self.widener.widen(&self.slot, 0..self.slot.len(), &mut self.wide);
        self.wide.resize(FRAME_SAMPLES, 0);
        out.extend_from_slice(&self.wide);
    }
}

impl Pending {
    fn new(config: &StreamConfig) -> Self {
        Self { samples: Samples::of(config.codec), slots: 0, timestamp: 0, item: None }
    }

    fn clear(&mut self) {
        self.samples.clear();
        self.slots = 0;
        self.item = None;
    }

    /// Appends a slot; returns the timestamp of the first one.
    fn add(&mut self, slot: &Samples, timestamp: u32, item: &Option<ItemKey>) -> u32 {
        if self.slots == 0 {
            self.timestamp = timestamp;
        }
        self.samples.extend_from(slot, 0..slot.len());
        self.slots += 1;
        if item.is_some() {
            self.item.clone_from(item);
        }
        self.timestamp
    }
}

/// What the far end knows a relayed payload by. Comfort noise is never agreed on by us.
fn payload_type_of(kind: RelayedKind, config: &StreamConfig) -> Option<u8> {
    match kind {
        RelayedKind::Audio(codec) => (codec == config.codec).then_some(config.payload_type),
        RelayedKind::Event(clock) => {
            config.telephone_event.filter(|(_, ours)| *ours == clock).map(|(payload_type, _)| payload_type)
        }
        RelayedKind::ComfortNoise => None,
    }
}

fn slot_units(clock_rate: u32) -> u32 {
    clock_rate / 50
}

/// Opus makes no packets beyond 60 ms.
fn slots_per_packet(config: &StreamConfig) -> u32 {
    let longest = if config.codec == Codec::Opus { 3 } else { 6 };
    ((config.ptime.as_millis() as u32).saturating_add(10) / 20).clamp(1, longest)
}
