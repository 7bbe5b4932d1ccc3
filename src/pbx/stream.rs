//! One party's audio without RTP: payloads to bridge samples, slots to payloads.
//!
//! What `rtp::Stream` is for packets, for bytes in order: no packet is ever lost or comes twice, so there is
//! nothing to put back in order; but a far end may pause (hold, DTX) and the network may stall and then
//! deliver everything at once. Samples handed to the bridge equal elapsed time all the same.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Coding;
use super::pace::{Pace, Quiet};
use crate::audio::dtmf::{Detector, Edge};
use crate::audio::{AudioError, BRIDGE_RATE, Codec, Decoder, FRAME, FRAME_SAMPLES, SampleRate};
use crate::event::Quality;
use crate::rtp::dtmf::{self, DtmfError};
use crate::rtp::playout::{Playout, PlayoutEvent, Samples, Widener};
use crate::rtp::timeline::Timeline;
use crate::rtp::{Histogram, ItemKey, PlayError, PlayedItem};

/// The media of one leg.
#[derive(Debug)]
pub struct PcmStream {
    coding: Coding,
    limit: Duration,
    decoder: Decoder,
    /// When silence must be made up because nothing comes, and how much of it all is needed.
    timeline: Timeline,
    pace: Pace,
    /// Silence was made up since the last payload.
    paused: bool,
    inband: Option<Detector>,
    edges: Vec<Edge>,
    /// 24 kHz, not yet taken.
    audio: Vec<i16>,
    playout: Playout,
    slot: Samples,
    widener: Widener,
    keys: VecDeque<char>,
    counts: Counts,
    last: Option<Instant>,
    lateness: Histogram,
    uplink: Histogram,
}

#[derive(Debug, Default)]
struct Counts {
    received: u64,
    sent: u64,
    undecodable: u64,
    silence: u64,
    dropped: u64,
    late: u64,
    max_gap: Duration,
}

/// What a slot carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// An item's audio is in it.
    pub item: bool,
    /// Anything but silence is in it.
    pub voice: bool,
}

impl PcmStream {
    /// A stream that begins at `now`, with at most `limit` of audio waiting to be heard; `inband`: listens for keys
    /// in the audio.
    ///
    /// # Errors
    /// For a linear rate that is not spoken.
    pub fn new(coding: Coding, limit: Duration, inband: bool, now: Instant) -> Result<Self, AudioError> {
        let codec = codec_of(coding)?;
        Ok(Self {
            coding,
            limit,
            decoder: Decoder::new(codec)?,
            timeline: Timeline::new(now),
            pace: Pace::new(now),
            paused: false,
            inband: inband.then(|| Detector::new(SampleRate::HZ_24000)),
            edges: Vec::new(),
            audio: Vec::new(),
            playout: Playout::new(codec, bounded(limit, codec))?,
            slot: Samples::of(codec),
            widener: Widener::new(codec)?,
            keys: VecDeque::new(),
            counts: Counts::default(),
            last: None,
            lateness: Histogram::new(),
            uplink: Histogram::new(),
        })
    }

    /// How payloads are coded.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// The codec of a SIP leg that is most like it, for records.
    pub fn codec(&self) -> Codec {
        self.playout.codec()
    }

    /// Payloads are coded otherwise from now on. Waiting audio stays.
    ///
    /// # Errors
    /// For a linear rate that is not spoken; then nothing has changed.
    pub fn set_coding(&mut self, coding: Coding) -> Result<(), AudioError> {
        if coding == self.coding {
            return Ok(());
        }
        let codec = codec_of(coding)?;
        let (decoder, widener) = (Decoder::new(codec)?, Widener::new(codec)?);
        self.playout.reconfigure(codec, bounded(self.limit, codec))?;
        (self.decoder, self.widener, self.slot, self.coding) = (decoder, widener, Samples::of(codec), coding);
        Ok(())
    }

    /// Takes a payload of the far end; its bytes are used up. What is no whole number of samples loses the rest.
    pub fn receive(&mut self, now: Instant, payload: &mut [u8]) {
        if let Some(last) = self.last.replace(now) {
            self.counts.max_gap = self.counts.max_gap.max(now.saturating_duration_since(last));
        }
        self.counts.received += 1;
        if let Coding::Linear(_) = self.coding {
            // The decoder reads the network's order.
            payload.as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.reverse());
        }
        let whole = if let Coding::Linear(_) = self.coding { payload.len() & !1 } else { payload.len() };
        let payload = &payload[..whole];
        let samples = self.decoder.payload_duration(payload);
        if samples == 0 {
            self.counts.undecodable += u64::from(!payload.is_empty());
            return;
        }
        let from = self.audio.len();
        let fill = self.pace.arrived(now, samples, std::mem::take(&mut self.paused));
        self.timeline.arrived(now, samples);
        self.silence(fill);
        let most = self.coding.bytes_in(LONGEST).unwrap_or(whole);
        payload.chunks(most).for_each(|piece| self.decode(piece));
        self.finish(from);
    }

    fn decode(&mut self, payload: &[u8]) {
        let samples = self.decoder.payload_duration(payload);
        let start = self.audio.len();
        if self.decoder.decode(payload, &mut self.audio).is_err() {
            self.counts.undecodable += 1;
            self.audio.truncate(start);
            self.decoder.conceal(samples, &mut self.audio);
        }
        self.audio.resize(start + samples, 0);
        let quiet = match self.pace.wants_quiet() && is_quiet(&self.audio[start..]) {
            true => self.pace.quiet(samples),
            false => Quiet::Keep,
        };
        match quiet {
            Quiet::Keep => self.pace.handed(samples),
            Quiet::LeaveOut => self.audio.truncate(start),
            Quiet::MakeUp(missing) => {
                self.pace.handed(samples);
                self.silence(missing);
            }
        }
    }

    /// Makes up silence.
    fn silence(&mut self, samples: usize) {
        if samples > 0 {
            let from = self.audio.len();
            self.decoder.silence(samples, &mut self.audio);
            let made = self.audio.len() - from;
            self.counts.silence += made as u64;
            self.pace.handed(made);
        }
    }

    /// Whatever comes next comes by another way, or by one that was cut: the time between belongs before it.
    pub fn interrupted(&mut self) {
        self.paused = true;
    }

    /// When silence must be made up because nothing comes.
    pub fn next_timeout(&self) -> Instant {
        self.timeline.next_timeout()
    }

    /// That time has come. Answers whether there is audio now.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let owed = self.timeline.owed(now);
        if owed == 0 {
            return false;
        }
        let from = self.audio.len();
        self.paused = true;
        self.silence(owed);
        self.finish(from);
        true
    }

    /// Looks for keys in what was appended, and keeps the buffer within its bound.
    fn finish(&mut self, from: usize) {
        if let Some(detector) = &mut self.inband {
            detector.feed(&self.audio[from..], &mut self.edges);
            let pressed = self.edges.drain(..).filter_map(|edge| match edge {
                Edge::Pressed { digit, .. } => Some(digit.to_char()),
                Edge::Released { .. } => None,
            });
            self.keys.extend(pressed);
            self.keys.truncate(MAX_KEYS);
        }
        if self.audio.len() > MAX_UNTAKEN {
            let excess = self.audio.len() - MAX_UNTAKEN;
            self.audio.drain(..excess);
            self.counts.dropped += excess as u64;
        }
    }

    /// A key heard in the audio itself.
    pub fn poll_key(&mut self) -> Option<char> {
        self.keys.pop_front()
    }

    /// Appends the far end's audio: 24 kHz, sample count equal to elapsed time. What is not taken for 10 s is
    /// dropped, oldest first.
    pub fn take_audio(&mut self, out: &mut Vec<i16>) {
        out.append(&mut self.audio);
    }

    /// Queues 24 kHz audio for the far end behind what waits already.
    ///
    /// # Errors
    /// [`PlayError::Full`] beyond the limit; [`PlayError::Cleared`] for late audio of an item that was cleared.
    pub fn play(&mut self, item: &ItemKey, pcm24k: &[i16]) -> Result<(), PlayError> {
        self.playout.play(item, pcm24k)
    }

    /// Appends live audio of another party, 24 kHz: heard while no item is.
    pub fn play_live(&mut self, pcm24k: &[i16]) {
        self.playout.play_live(pcm24k);
    }

    /// Queues keys as tones, as one item.
    ///
    /// # Errors
    /// When a digit does not exist, or the queue is full; then nothing is queued.
    pub fn play_keys(&mut self, item: &ItemKey, digits: &str, press: Duration) -> Result<(), DtmfError> {
        let mut tones = Vec::new();
        dtmf::render_tones(digits, press, &mut tones)?;
        self.play(item, &tones).map_err(|_| DtmfError::Full)?;
        self.end_item(item);
        Ok(())
    }

    /// No more audio will come for an item.
    pub fn end_item(&mut self, item: &ItemKey) {
        self.playout.end_item(item);
    }

    /// Barge-in: drops all that waits and says what was heard of it. `unheard` is what was sent and will not be heard
    /// all the same, because the far end dropped it from a queue of its own.
    pub fn clear(&mut self, unheard: Duration) -> Vec<PlayedItem> {
        let mut cleared = self.playout.clear();
        // What was sent last waits last: silence between items is not known here, so an item takes all of it.
        let mut rest = unheard.as_millis() as u64;
        for item in cleared.iter_mut().rev() {
            let taken = item.played_ms.min(rest);
            item.played_ms -= taken;
            rest -= taken;
            item.complete &= taken == 0;
        }
        cleared
    }

    /// Holds items back from the next slot on.
    pub fn pause(&mut self) {
        self.playout.pause();
    }

    /// Items are heard again.
    pub fn resume(&mut self) {
        self.playout.resume();
    }

    /// Audio of items that waits.
    pub fn queued(&self) -> Duration {
        self.playout.queued()
    }

    /// Whether nothing is being said and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.playout.is_idle()
    }

    /// What happened to items since the last poll.
    pub fn poll_event(&mut self) -> Option<PlayoutEvent> {
        self.playout.poll_event()
    }

    /// One 20 ms slot: replaces `out` with its payload.
    pub fn tick(&mut self, out: &mut Vec<u8>) -> Slot {
        out.clear();
        self.slot.clear();
        let item = self.playout.slot(&mut self.slot).is_some();
        let voice = item || !is_silent(&self.slot);
        match (&self.slot, self.coding) {
            (Samples::Linear(pcm), Coding::Linear(_)) => {
                out.resize(2 * pcm.len(), 0);
                for (pair, sample) in out.as_chunks_mut::<2>().0.iter_mut().zip(pcm) {
                    *pair = sample.to_le_bytes();
                }
            }
            (samples, _) => {
                // An encoder that refuses whole slots of its own making is broken; the far end hears a gap.
                if self.playout.encode(samples, out).is_err() {
                    out.clear();
                }
            }
        }
        self.counts.sent += u64::from(!out.is_empty());
        Slot { item, voice }
    }

    /// Appends 480 bridge samples: what the last slot carried. For recordings; call it after every tick or never.
    pub fn sent_frame(&mut self, out: &mut Vec<i16>) {
        let from = out.len();
        self.slot.pad(self.playout.slot_samples());
        self.widener.widen(&self.slot, 0..self.slot.len(), out);
        out.resize(from + FRAME_SAMPLES, 0);
    }

    /// Notes how late a slot was.
    pub fn note_lateness(&mut self, late: Duration) {
        self.counts.late += u64::from(late > TOLERANCE);
        self.lateness.record(late);
    }

    /// Notes how long received audio took to the provider's socket.
    pub fn note_uplink(&mut self, took: Duration) {
        self.uplink.record(took);
    }

    /// The stream's statistics so far. Nothing is ever lost on the way: what there is no packet for stays zero.
    pub fn quality(&self) -> Quality {
        let millis = |span: Duration| span.as_secs_f64() * 1000.0;
        Quality {
            packets_received: self.counts.received,
            packets_sent: self.counts.sent,
            silence_ms: self.counts.silence * 1000 / u64::from(BRIDGE_RATE),
            max_gap_ms: self.counts.max_gap.as_millis() as u64,
            pacing_late: self.counts.late,
            pacing_p99_ms: self.lateness.quantile(0.99).map(millis),
            underruns: self.playout.underruns(),
            uplink_p99_ms: self.uplink.quantile(0.99).map(millis),
            assistant_generated_ms: self.playout.generated_ms(),
            assistant_played_ms: self.playout.heard_ms(),
            ..Quality::default()
        }
    }
}

/// The codec that does the same work. Linear samples are queued and resampled like those of L16.
fn codec_of(coding: Coding) -> Result<Codec, AudioError> {
    Ok(match coding {
        Coding::Ulaw => Codec::Pcmu,
        Coding::Alaw => Codec::Pcma,
        Coding::G722 => Codec::G722,
        Coding::Opus => Codec::Opus,
        Coding::Linear(hz) => Codec::L16(SampleRate::new(hz).unwrap_or(SampleRate::HZ_8000)),
    })
}

/// Ten minutes at 192 kHz would be a quarter of a gigabyte: a queue holds what its limit allows at 24 kHz.
fn bounded(limit: Duration, codec: Codec) -> Duration {
    let rate = codec.sample_rate().hz().max(BRIDGE_RATE);
    limit * BRIDGE_RATE / rate
}

fn is_quiet(samples: &[i16]) -> bool {
    samples.iter().all(|sample| sample.unsigned_abs() < QUIET)
}

fn is_silent(samples: &Samples) -> bool {
    match samples {
        Samples::Linear(pcm) => pcm.iter().all(|sample| *sample == 0),
        // Both zeros of u-law; of A-law the two smallest steps.
        Samples::Mu(bytes) => bytes.iter().all(|byte| matches!(byte, 0xff | 0x7f)),
        Samples::A(bytes) => bytes.iter().all(|byte| matches!(byte, 0xd5 | 0x55)),
    }
}

/// Decoded at a time.
const LONGEST: Duration = FRAME;
/// Audio that may wait to be taken, 10 s at 24 kHz; the oldest goes first.
const MAX_UNTAKEN: usize = 240_000;
/// Keys that may wait to be taken.
const MAX_KEYS: usize = 32;
/// Below -40 dB of full scale nobody misses a frame.
const QUIET: u16 = 328;
/// A slot this late is counted.
const TOLERANCE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, rate: u32, from: usize, count: usize) -> Vec<i16> {
        let at = |index: usize| std::f64::consts::TAU * hz * (from + index) as f64 / f64::from(rate);
        (0..count).map(|index| (at(index).sin() * 10_000.0) as i16).collect()
    }

    /// Frequency by turns of the sign, and level relative to the tone's.
    fn heard(samples: &[i16], rate: u32) -> (f64, f64) {
        let turns = samples.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count() as f64;
        let power: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64;
        let level = 10.0 * (power / (10_000.0f64.powi(2) / 2.0)).log10();
        (turns / 2.0 / (samples.len() as f64 / f64::from(rate)), level)
    }

    #[test]
    fn a_tone_keeps_pitch_level_and_length_at_every_linear_rate_both_ways() {
        for rate in [8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000] {
            let now = Instant::now();
            let mut stream =
                PcmStream::new(Coding::Linear(rate), Duration::from_secs(60), false, now).unwrap();
            let slot = rate as usize / 50;
            let mut out = Vec::new();
            for number in 0..50 {
                let pcm = tone(1_000.0, rate, number * slot, slot);
                let mut payload: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                stream.receive(now + FRAME * number as u32, &mut payload);
                stream.take_audio(&mut out);
            }
            assert_eq!(out.len(), 24_000, "{rate}");
            let (hertz, level) = heard(&out[6_000..18_000], 24_000);
            assert!((hertz - 1_000.0).abs() < 4.0 && level.abs() < 0.2, "{rate} in: {hertz} Hz {level} dB");

            let item = ItemKey::from("tone");
            stream.play(&item, &tone(1_000.0, 24_000, 0, 24_000)).unwrap();
            let (mut payload, mut sent, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..49 {
                let carried = stream.tick(&mut payload);
                assert_eq!(carried, Slot { item: true, voice: true });
                assert_eq!(Some(payload.len()), Coding::Linear(rate).bytes_in(FRAME));
                sent.extend(payload.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)));
                stream.sent_frame(&mut recorded);
            }
            let (hertz, level) = heard(&sent[sent.len() / 4..sent.len() / 4 * 3], rate);
            assert!((hertz - 1_000.0).abs() < 4.0 && level.abs() < 0.2, "{rate} out: {hertz} Hz {level} dB");
            assert_eq!(recorded.len(), 49 * FRAME_SAMPLES);
        }
    }

    #[test]
    fn a_far_end_that_pauses_is_silence_and_a_burst_after_a_stall_is_not_heard_twice_as_long() {
        let start = Instant::now();
        let mut stream =
            PcmStream::new(Coding::Linear(24_000), Duration::from_secs(60), false, start).unwrap();
        let mut out = Vec::new();
        let mut at = start;
        let feed = |stream: &mut PcmStream, at: Instant, loud: bool| {
            let sample: i16 = if loud { 5_000 } else { 0 };
            stream.receive(at, &mut sample.to_le_bytes().repeat(480));
        };
        for _ in 0..10 {
            feed(&mut stream, at, true);
            at += FRAME;
        }
        // One second of nothing.
        let until = at + Duration::from_secs(1);
        while stream.next_timeout() < until {
            let due = stream.next_timeout();
            stream.handle_timeout(due);
        }
        stream.take_audio(&mut out);
        let paused = out.len();
        assert!((27_360..=28_800).contains(&paused), "{paused}");
        // Then what was stalled comes at once, quiet, and goes on in time.
        for _ in 0..50 {
            feed(&mut stream, until, false);
        }
        at = until;
        for _ in 0..50 {
            at += FRAME;
            feed(&mut stream, at, false);
        }
        stream.take_audio(&mut out);
        let elapsed = 24_000 * (at - start).as_millis() as usize / 1000;
        assert!(out.len().abs_diff(elapsed) <= 2 * FRAME_SAMPLES, "{} of {elapsed}", out.len());
    }

    #[test]
    fn samples_equal_elapsed_time_over_many_pauses_however_the_payloads_are_cut() {
        for (coding, payload_ms) in [
            (Coding::Linear(8_000), 20),
            (Coding::Linear(16_000), 10),
            (Coding::Ulaw, 60),
            (Coding::G722, 20),
        ] {
            let start = Instant::now();
            let mut stream = PcmStream::new(coding, Duration::from_secs(60), false, start).unwrap();
            let span = Duration::from_millis(payload_ms);
            let bytes = coding.bytes_in(span).unwrap();
            let (mut at, mut given, mut out) = (start, 0, Vec::new());
            let mut first = None;
            let until = |stream: &mut PcmStream, at: Instant| {
                while stream.next_timeout() <= at {
                    let due = stream.next_timeout();
                    stream.handle_timeout(due);
                }
            };
            for pause in 0..20u64 {
                for number in 0..15 {
                    at += span;
                    // What came in time or up to 9 ms late.
                    let arrival = at + Duration::from_millis((number * 7 + pause) % 10);
                    until(&mut stream, arrival);
                    stream.receive(arrival, &mut vec![0x55; bytes]);
                }
                stream.take_audio(&mut out);
                given += std::mem::take(&mut out).len();
                let ahead = given as i64 - (at - start).as_millis() as i64 * 24;
                let off = ahead - *first.get_or_insert(ahead);
                assert!(off.abs() <= 20 * 24, "{coding} after {pause} pauses: {} ms", off / 24);
                // From 70 ms, which are barely noticed, to 4 s.
                at += Duration::from_millis(70 + pause * pause * 11);
            }
        }
    }

    #[test]
    fn a_wire_that_stalls_is_paid_back_from_what_is_quiet() {
        let start = Instant::now();
        let mut stream =
            PcmStream::new(Coding::Linear(24_000), Duration::from_secs(60), false, start).unwrap();
        let mut out = Vec::new();
        let mut receive = |stream: &mut PcmStream, at: u64, sample: i16| {
            stream.receive(start + Duration::from_millis(at), &mut sample.to_le_bytes().repeat(480));
            stream.take_audio(&mut out);
            out.len() as i64 - (at as i64) * 24
        };
        let home = receive(&mut stream, 20, 5_000);
        for number in 2..=10 {
            assert_eq!(receive(&mut stream, number * 20, 5_000), home);
        }
        // Nothing for 400 ms, then all of it at once, loud: none of it may be lost.
        while stream.next_timeout() <= start + Duration::from_millis(600) {
            let due = stream.next_timeout();
            stream.handle_timeout(due);
        }
        let ahead = (0..20).map(|_| receive(&mut stream, 600, 5_000)).last().unwrap();
        assert!(ahead - home >= 380 * 24, "{ahead}");
        let ahead = (31..=60).map(|number| receive(&mut stream, number * 20, 0)).last().unwrap();
        assert!((ahead - home).abs() <= 480, "{ahead} {home}");
    }

    #[test]
    fn what_the_far_end_dropped_from_its_queue_was_not_heard() {
        let now = Instant::now();
        let mut stream = PcmStream::new(Coding::Linear(16_000), Duration::from_secs(60), false, now).unwrap();
        let item = ItemKey::from("answer");
        stream.play(&item, &tone(400.0, 24_000, 0, 24_000)).unwrap();
        let mut payload = Vec::new();
        for _ in 0..20 {
            stream.tick(&mut payload);
        }
        let cleared = stream.clear(Duration::from_millis(40));
        assert_eq!(cleared.len(), 1);
        // 400 ms less the two slots and the filter's delay of 1.25 ms.
        assert!((357..=360).contains(&cleared[0].played_ms), "{}", cleared[0].played_ms);
        let after = stream.tick(&mut payload);
        assert!(!after.item);
        assert!(!stream.tick(&mut payload).voice);
    }

    #[test]
    fn half_samples_garbage_and_floods_are_bounded() {
        let now = Instant::now();
        let mut stream = PcmStream::new(Coding::Linear(8_000), Duration::from_secs(60), false, now).unwrap();
        stream.receive(now, &mut [1]);
        stream.receive(now, &mut []);
        stream.receive(now, &mut [1, 2, 3]);
        for _ in 0..40 {
            stream.receive(now, &mut vec![0; 65_534]);
        }
        let mut out = Vec::new();
        stream.take_audio(&mut out);
        assert!(out.len() <= MAX_UNTAKEN);
        assert!(PcmStream::new(Coding::Linear(11_025), Duration::from_secs(1), false, now).is_err());
    }
}
