//! One party's media over time: packets in any order, keys, reports, playback and renegotiation while the
//! clock goes on. Whatever comes in, what goes out is well formed.
#![no_main]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tandem::audio::{Codec, SampleRate};
use tandem::rtp::packet::{Header, Packet};
use tandem::rtp::{Direction, ItemKey, Stream, StreamConfig};

/// What one run may cost, in samples at 24 kHz heard or said, weighed by [`cost`]. A filter costs four times
/// what the stream around it does, and it is the stream that is looked at here.
const BUDGET: usize = 8_000;

fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    let Some(kind) = script.octet() else { return };
    let Some(mut run) = Run::new(kind) else { return };
    while let Some(op) = script.octet() {
        run.act(op, &mut script);
        if run.spent > BUDGET {
            break;
        }
    }
    run.finish();
});

/// The rest of the input.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn octet_or_zero(&mut self) -> u8 {
        self.octet().unwrap_or(0)
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

struct Run {
    stream: Stream,
    now: Instant,
    spent: usize,
    sequence: u16,
    timestamp: u32,
    heard: Vec<i16>,
    packet: Vec<u8>,
}

impl Run {
    fn new(kind: u8) -> Option<Self> {
        let now = Instant::now();
        let mut config = StreamConfig::new(codec(kind), 96, "192.0.2.1:4000".parse().ok()?);
        config.telephone_event = Some((101, 8000));
        config.receive.push((0, Codec::Pcmu));
        config.receive.push((9, Codec::G722));
        config.inband_dtmf = kind & 0x40 != 0;
        config.rtcp_mux = kind & 0x80 != 0;
        let mut random = SmallRng::seed_from_u64(u64::from(kind));
        let stream = Stream::new(config, &mut random, now).ok()?;
        let (heard, packet) = (Vec::new(), Vec::new());
        Some(Self { stream, now, spent: 0, sequence: 65_500, timestamp: 0, heard, packet })
    }

    fn act(&mut self, op: u8, script: &mut Script) {
        match op % 16 {
            0..=5 => self.in_step(op, script),
            6 => {
                let length = usize::from(script.octet_or_zero());
                self.stream.receive_rtp(self.now, source(op), &mut script.take(length).to_vec());
            }
            7 => {
                let length = usize::from(script.octet_or_zero());
                self.stream.receive_rtcp(self.now, source(op), script.take(length));
            }
            8 | 9 => self.slot(),
            10 => {
                self.now += Duration::from_millis(u64::from(script.octet_or_zero()));
                self.stream.handle_timeout(self.now);
            }
            11 => {
                let samples = 31 * usize::from(script.octet_or_zero());
                let _ = self.stream.play(&item(op), &vec![i16::from(op) * 100; samples]);
            }
            12 => self.stream.end_item(&item(op)),
            13 => {
                for played in self.stream.clear() {
                    assert!(played.played_ms <= played.total_ms);
                }
            }
            14 => {
                let _ = self.stream.send_dtmf("1#A", Duration::from_millis(u64::from(op)));
            }
            _ => self.reconfigure(script.octet_or_zero()),
        }
        while self.stream.poll_event().is_some() {}
        self.heard.clear();
        self.stream.take_audio(&mut self.heard);
        // Something for the step itself, so that a long input of small ones ends too.
        self.spent += STEP + self.heard.len() * cost(self.stream.config().codec);
    }

    /// A packet with a right header, a little off in sequence and time as the script says.
    fn in_step(&mut self, op: u8, script: &mut Script) {
        let (step, length) = (script.octet_or_zero(), script.octet_or_zero());
        self.sequence = self.sequence.wrapping_add(u16::from(step & 7)).wrapping_sub(u16::from(step >> 6));
        self.timestamp = self.timestamp.wrapping_add(160 * u32::from(step & 7));
        let payload_type = [96, 96, 96, 0, 101, 9][usize::from(op % 16)];
        let header = Header {
            payload_type,
            marker: step & 0x20 != 0,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: if step & 0x10 != 0 && step & 8 != 0 { 2 } else { 1 },
        };
        let mut datagram = Vec::new();
        header.write(&mut datagram);
        datagram.extend_from_slice(script.take(usize::from(length)));
        self.stream.receive_rtp(self.now, source(op), &mut datagram);
    }

    fn slot(&mut self) {
        self.spent += 480 * cost(self.stream.config().codec);
        self.now += Duration::from_millis(20);
        self.stream.handle_timeout(self.now);
        self.packet.clear();
        if self.stream.tick(self.now, &mut self.packet).is_some() {
            let packet = Packet::parse(&self.packet).expect("what we send is RTP");
            assert!(self.packet.len() <= 1500 || packet.payload.len() > 1400, "fits an Ethernet frame");
        }
        let mut sent = Vec::new();
        self.stream.sent_frame(&mut sent);
        assert!(sent.len() <= 480, "a frame is 20 ms");
        self.packet.clear();
        let _ = self.stream.poll_rtcp(self.now, &mut self.packet);
    }

    fn reconfigure(&mut self, how: u8) {
        let mut config = self.stream.config().clone();
        config.codec = codec(how);
        config.receive[0] = (96, config.codec);
        config.direction = match how >> 6 {
            0 | 1 => Direction::BOTH,
            2 => Direction::SEND_ONLY,
            _ => Direction::INACTIVE,
        };
        if how & 0x20 != 0 {
            config.ptime = Duration::from_millis(60);
        }
        let _ = self.stream.reconfigure(config, self.now);
    }

    fn finish(mut self) {
        self.packet.clear();
        let _ = self.stream.finish(self.now, &mut self.packet);
        let quality = self.stream.quality();
        let _ = format!("{quality:?}");
    }
}

/// Most runs speak what needs no filter; payload types 0 and 9 are understood in all of them.
fn codec(kind: u8) -> Codec {
    match kind & 0x0f {
        0..=8 => Codec::L16(SampleRate::HZ_24000),
        9 | 10 => Codec::Pcmu,
        11 => Codec::Pcma,
        12 => Codec::G722,
        13 => Codec::L16(SampleRate::HZ_16000),
        14 => Codec::L16(SampleRate::HZ_8000),
        _ => Codec::Opus,
    }
}

fn cost(codec: Codec) -> usize {
    match codec {
        Codec::L16(SampleRate::HZ_24000) => 1,
        Codec::Pcmu | Codec::Pcma | Codec::L16(_) => 4,
        Codec::G722 => 6,
        Codec::Opus => 10,
    }
}

/// Of the [`BUDGET`]: no more than 80 steps.
const STEP: usize = 100;

/// The far end, now and then a stranger.
fn source(op: u8) -> SocketAddr {
    let text = if op & 0xc0 == 0xc0 { "203.0.113.66:6666" } else { "192.0.2.1:4000" };
    text.parse().expect("an address")
}

fn item(op: u8) -> ItemKey {
    ItemKey::from(if op & 0x10 == 0 { "one" } else { "two" })
}
