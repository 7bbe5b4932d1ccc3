use super::*;
use crate::audio::{Codec, SampleRate};
use crate::rtp::dtmf::DtmfMethod;
use crate::rtp::packet::Header;
use rand::SeedableRng;

pub(super) const PEER: &str = "192.0.2.1:4000";

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

pub(super) fn config(codec: Codec, payload_type: u8) -> StreamConfig {
    StreamConfig {
        telephone_event: Some((101, codec.clock_rate())),
        cname: "c".into(),
        ..StreamConfig::new(codec, payload_type, address(PEER))
    }
}

/// A stream with its far end, driven by hand.
pub(super) struct Line {
    pub(super) stream: Stream,
    pub(super) start: Instant,
    pub(super) audio: Vec<i16>,
    pub(super) out: Vec<u8>,
}

impl Line {
    pub(super) fn new(config: StreamConfig) -> Self {
        let start = Instant::now();
        let stream =
            Stream::new(config, &mut rand::rngs::StdRng::seed_from_u64(1), start).expect("a known codec");
        Self { stream, start, audio: Vec::new(), out: Vec::new() }
    }

    pub(super) fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Lets time run to `ms`, with every timeout at its moment.
    pub(super) fn run(&mut self, ms: u64) {
        let end = self.at(ms);
        let mut reports = Vec::new();
        while let Some(at) = self.stream.next_timeout().filter(|at| *at <= end) {
            self.stream.handle_timeout(at);
            self.stream.poll_rtcp(at, &mut reports);
        }
        self.stream.take_audio(&mut self.audio);
    }

    pub(super) fn hear_as(&mut self, ms: u64, header: Header, payload: &[u8], source: &str) {
        self.run(ms);
        let mut datagram = Vec::new();
        header.write(&mut datagram);
        datagram.extend_from_slice(payload);
        let now = self.at(ms);
        self.stream.receive_rtp(now, address(source), &mut datagram);
        self.stream.take_audio(&mut self.audio);
    }

    /// A 20 ms packet of G.711 at the moment its number says, or later.
    pub(super) fn hear(&mut self, ms: u64, sequence: u16) {
        let header = Header {
            payload_type: 0,
            marker: false,
            sequence,
            timestamp: u32::from(sequence) * 160,
            ssrc: 7,
        };
        self.hear_as(ms, header, &[0x9f; 160], PEER);
    }

    pub(super) fn heard_ms(&self) -> usize {
        self.audio.len() / 24
    }

    pub(super) fn tick(&mut self, ms: u64) -> Option<(Tick, Header, Vec<u8>)> {
        let now = self.at(ms);
        let tick = self.stream.tick(now, &mut self.out)?;
        let packet = Packet::parse(&self.out).expect("our own packet");
        Some((tick, packet.header, packet.payload.to_vec()))
    }

    pub(super) fn events(&mut self) -> Vec<StreamEvent> {
        std::iter::from_fn(|| self.stream.poll_event()).collect()
    }
}

fn pcmu() -> Line {
    Line::new(config(Codec::Pcmu, 0))
}

#[test]
fn clean_packets_are_heard_at_once_and_nothing_is_lost() {
    let mut line = pcmu();
    for n in 0..500u16 {
        line.hear(u64::from(n) * 20, n);
        assert_eq!(line.heard_ms(), (usize::from(n) + 1) * 20);
    }
    let quality = line.stream.quality();
    assert_eq!((quality.packets_received, quality.packets_lost, quality.packets_late), (500, 0, 0));
    assert_eq!((quality.concealed_ms, quality.silence_ms, quality.max_gap_ms), (0, 0, 20));
    assert!(quality.jitter_ms.is_some_and(|jitter| jitter < 0.001));
    assert!(quality.mos.is_some_and(|mos| mos > 4.2));
}

#[test]
fn injected_loss_is_reported_exactly_and_time_is_kept() {
    let mut line = pcmu();
    let lost = |n: u16| n % 200 == 150;
    for n in (0..2000u16).filter(|n| !lost(*n)) {
        line.hear(u64::from(n) * 20, n);
    }
    let quality = line.stream.quality();
    assert_eq!((quality.packets_lost, quality.packets_received), (10, 1990));
    assert_eq!((quality.packets_late, quality.concealed_ms), (0, 200));
    assert_eq!(line.heard_ms(), 40_000);
}

#[test]
fn a_reordered_packet_costs_nothing_and_a_duplicate_adds_nothing() {
    let mut line = pcmu();
    for (ms, n) in [(0, 0), (20, 2), (25, 1), (60, 3), (61, 3), (62, 1)] {
        line.hear(ms, n);
    }
    let quality = line.stream.quality();
    assert_eq!((quality.packets_reordered, quality.packets_duplicate, quality.packets_lost), (1, 2, 0));
    assert_eq!(line.heard_ms(), 80);
}

#[test]
fn a_late_packet_adds_nothing() {
    let mut line = pcmu();
    for (ms, n) in [(0, 0), (40, 2), (75, 1), (76, 3)] {
        line.hear(ms, n);
    }
    assert_eq!(line.heard_ms(), 80);
    let quality = line.stream.quality();
    assert_eq!((quality.packets_late, quality.packets_lost, quality.concealed_ms), (1, 0, 20));
}

#[test]
fn a_mute_caller_is_silence_at_the_pace_of_time() {
    let mut line = pcmu();
    line.run(10_000);
    assert_eq!(line.heard_ms(), 10_000);
    line.hear(10_000, 0);
    line.run(20_000);
    assert!((19_960..=20_020).contains(&line.heard_ms()), "{}", line.heard_ms());
}

#[test]
fn after_a_pause_time_is_exact_again() {
    let mut line = pcmu();
    for n in 0..10 {
        line.hear(n * 20, n as u16);
    }
    for n in 10..12u16 {
        let timestamp = u32::from(n) * 160 + 3000 * 8;
        let header = Header { payload_type: 0, marker: n == 10, sequence: n, timestamp, ssrc: 7 };
        line.hear_as(u64::from(n) * 20 + 3000, header, &[0x9f; 160], PEER);
    }
    assert_eq!(line.heard_ms(), 12 * 20 + 3000);
    assert_eq!((line.stream.quality().silence_ms, line.stream.quality().packets_lost), (3000, 0));
}

#[test]
fn comfort_noise_is_silence_without_delay() {
    let mut line = pcmu();
    line.hear(0, 0);
    let header = Header { payload_type: 13, marker: false, sequence: 1, timestamp: 160, ssrc: 7 };
    line.hear_as(20, header, &[40], PEER);
    line.run(1000);
    assert!((980..=1020).contains(&line.heard_ms()), "{}", line.heard_ms());
    let header = Header { payload_type: 0, marker: true, sequence: 2, timestamp: 50 * 160, ssrc: 7 };
    line.hear_as(1000, header, &[0x9f; 160], PEER);
    assert_eq!(line.heard_ms(), 1020);
    assert_eq!(line.stream.quality().packets_lost, 0);
}

#[test]
fn a_burst_after_our_own_stall_is_heard_at_once() {
    let mut line = pcmu();
    line.hear(0, 0);
    // Nobody called for half a second; then the socket is full and the timeout overdue.
    line.stream.handle_timeout(line.at(500));
    for n in 1..=25 {
        let header =
            Header { payload_type: 0, marker: false, sequence: n, timestamp: u32::from(n) * 160, ssrc: 7 };
        let mut datagram = Vec::new();
        header.write(&mut datagram);
        datagram.extend_from_slice(&[0x9f; 160]);
        line.stream.receive_rtp(line.at(500), address(PEER), &mut datagram);
    }
    line.stream.take_audio(&mut line.audio);
    assert_eq!(line.heard_ms(), 520);
}

#[test]
fn words_that_a_stalled_line_delivers_late_are_all_heard_and_time_is_made_good_in_the_next_pause() {
    let mut line = Line::new(config(Codec::L16(SampleRate::HZ_24000), 96));
    let hear = |line: &mut Line, ms, n: u16, level: i16| {
        let timestamp = u32::from(n) * 480;
        let header = Header { payload_type: 96, marker: false, sequence: n, timestamp, ssrc: 7 };
        let payload: Vec<u8> = (0..480).flat_map(|_| level.to_be_bytes()).collect();
        line.hear_as(ms, header, &payload, PEER);
    };
    for n in 0..10 {
        hear(&mut line, u64::from(n) * 20, n, 8000);
    }
    // 400 ms without a packet; then all of them at once.
    for n in 10..30 {
        hear(&mut line, 600, n, 8000);
    }
    // The first words, their fading in the gap, and all the rest.
    assert!(line.audio.iter().filter(|sample| **sample == 8000).count() >= 30 * 480);
    assert!(line.heard_ms() > 600, "{}", line.heard_ms());
    for n in 30..80 {
        hear(&mut line, u64::from(n) * 20, n, 0);
    }
    assert_eq!(line.heard_ms(), 80 * 20);
}

#[test]
fn the_codec_may_change_in_mid_stream() {
    let mut line = Line::new(StreamConfig {
        receive: vec![(0, Codec::Pcmu), (8, Codec::Pcma)],
        ..config(Codec::Pcmu, 0)
    });
    for n in 0..10u16 {
        let payload_type = if n < 5 { 0 } else { 8 };
        let timestamp = u32::from(n) * 160;
        let header = Header { payload_type, marker: false, sequence: n, timestamp, ssrc: 7 };
        line.hear_as(u64::from(n) * 20, header, &[0x55; 160], PEER);
    }
    assert_eq!(line.heard_ms(), 200);
    let header = Header { payload_type: 9, marker: false, sequence: 10, timestamp: 1600, ssrc: 7 };
    line.hear_as(200, header, &[0; 160], PEER);
    assert_eq!(line.stream.counts().unknown_payload, 1);
}

#[test]
fn a_stranger_is_not_heard_not_answered_and_told_of_once() {
    let mut line = pcmu();
    line.hear(0, 0);
    line.events();
    let header = Header { payload_type: 0, marker: false, sequence: 5, timestamp: 5, ssrc: 666 };
    for _ in 0..100 {
        line.hear_as(0, header, &[0; 160], "203.0.113.66:4000");
    }
    assert_eq!(line.heard_ms(), 20);
    assert_eq!(line.stream.quality().packets_foreign, 100);
    assert_eq!(line.events().len(), 1);
    let (tick, ..) = line.tick(0).expect("a packet");
    assert_eq!(tick.destination, address(PEER));
}

#[test]
fn a_peer_behind_nat_is_followed() {
    let mut line = pcmu();
    for n in 0..5u16 {
        let header =
            Header { payload_type: 0, marker: false, sequence: n, timestamp: u32::from(n) * 160, ssrc: 7 };
        line.hear_as(u64::from(n) * 20, header, &[0; 160], "192.0.2.1:62000");
    }
    assert!(line.events().contains(&StreamEvent::Latched { source: address("192.0.2.1:62000") }));
    assert_eq!(line.tick(100).expect("a packet").0.destination, address("192.0.2.1:62000"));
}

#[test]
fn media_timeout_is_told_once_and_not_on_hold() {
    let both = || StreamConfig { media_timeout: Some(Duration::from_secs(5)), ..config(Codec::Pcmu, 0) };
    let mut line = Line::new(both());
    line.hear(0, 0);
    let told = |events: &[StreamEvent]| {
        events.iter().filter(|event| matches!(event, StreamEvent::MediaTimeout { .. })).count()
    };
    line.run(4_990);
    assert_eq!(told(&line.events()), 0);
    line.run(12_000);
    assert_eq!(told(&line.events()), 1);
    line.hear(12_000, 600);
    assert!(line.events().contains(&StreamEvent::MediaResumed));
    let held = StreamConfig { direction: Direction::INACTIVE, ..both() };
    line.stream.reconfigure(held, line.at(13_000)).expect("a known codec");
    line.run(20_000);
    assert_eq!(told(&line.events()), 0);
    let held = StreamConfig { direction: Direction { send: false, receive: true }, ..both() };
    line.stream.reconfigure(held, line.at(20_000)).expect("a known codec");
    line.run(30_000);
    assert_eq!(told(&line.events()), 0, "who holds may be silent");
    line.stream.reconfigure(both(), line.at(30_000)).expect("a known codec");
    line.run(34_990);
    assert_eq!(told(&line.events()), 0);
    line.run(35_010);
    assert_eq!(told(&line.events()), 1);
}

#[test]
fn keys_are_heard_under_every_payload_type_that_was_answered() {
    let mut line = pcmu();
    let both = StreamConfig { receive_events: vec![(101, 8_000), (110, 48_000)], ..config(Codec::Pcmu, 0) };
    line.stream.reconfigure(both, line.at(0)).expect("a known codec");
    line.hear(0, 0);
    for (n, payload_type, event) in [(1u16, 110, 1), (2, 101, 2), (3, 121, 3)] {
        let timestamp = u32::from(n) * 160;
        let header = Header { payload_type, marker: true, sequence: n, timestamp, ssrc: 7 };
        line.hear_as(u64::from(n) * 20, header, &[event, 0x8a, 0, 160], PEER);
    }
    let keys: Vec<_> = line
        .events()
        .into_iter()
        .filter_map(|event| match event {
            StreamEvent::Dtmf { digit, .. } => Some(digit),
            _ => None,
        })
        .collect();
    assert_eq!(keys, ['1', '2'], "121 was not agreed on");
    assert_eq!(line.stream.counts().unknown_payload, 1);
}

#[test]
fn a_pressed_key_is_told_once_and_time_goes_on() {
    let mut line = pcmu();
    line.hear(0, 0);
    for n in 1..=8u16 {
        let ended = if n > 5 { 0x80 } else { 0 };
        let header = Header { payload_type: 101, marker: n == 1, sequence: n, timestamp: 160, ssrc: 7 };
        line.hear_as(u64::from(n) * 20, header, &[5, ended | 10, 0, 0], PEER);
    }
    let header = Header { payload_type: 0, marker: false, sequence: 9, timestamp: 9 * 160, ssrc: 7 };
    line.hear_as(180, header, &[0x9f; 160], PEER);
    let keys: Vec<_> = line.events().into_iter().filter(|e| matches!(e, StreamEvent::Dtmf { .. })).collect();
    assert_eq!(keys, [StreamEvent::Dtmf { digit: '5', method: DtmfMethod::Rtp }]);
    assert_eq!(line.heard_ms(), 200);
    let quality = line.stream.quality();
    assert_eq!(quality.packets_lost, 0);
    assert!(quality.jitter_ms.is_some_and(|jitter| jitter < 0.001), "events are no jitter");
}

#[test]
fn every_slot_is_one_packet_with_running_numbers() {
    let mut line = pcmu();
    let mut before: Option<Header> = None;
    for n in 0..100 {
        let (tick, header, payload) = line.tick(n * 20).expect("a packet");
        assert_eq!((tick.item, payload.len(), header.payload_type), (None, 160, 0));
        assert!(payload.iter().all(|byte| *byte == 0xff), "silence");
        assert_eq!(header.marker, before.is_none());
        if let Some(before) = before {
            assert_eq!(header.sequence, before.sequence.wrapping_add(1));
            assert_eq!(header.timestamp, before.timestamp.wrapping_add(160));
            assert_eq!(header.ssrc, before.ssrc);
        }
        before = Some(header);
    }
}

#[test]
fn a_talk_spurt_begins_with_a_marker() {
    let mut line = pcmu();
    line.tick(0);
    line.tick(20);
    line.stream.play(&"a".into(), &[9000; 960]).expect("room");
    line.stream.end_item(&"a".into());
    let markers: Vec<bool> = (2..8).map(|n| line.tick(n * 20).expect("a packet").1.marker).collect();
    assert_eq!(markers, [true, false, false, false, false, false]);
    let finished = StreamEvent::ItemFinished { item: "a".into(), played_ms: 40 };
    assert_eq!(line.events(), [StreamEvent::ItemStarted { item: "a".into() }, finished]);
}

#[test]
fn on_hold_nothing_is_sent_and_the_clock_runs_on() {
    let mut line = pcmu();
    let before = line.tick(0).expect("a packet").1;
    line.stream.play(&"a".into(), &[9000; 4800]).expect("room");
    for held in [
        StreamConfig { direction: Direction::RECEIVE_ONLY, ..config(Codec::Pcmu, 0) },
        StreamConfig::new(Codec::Pcmu, 0, address("0.0.0.0:4000")),
    ] {
        line.stream.reconfigure(held, line.at(20)).expect("a known codec");
        for n in 0..50 {
            assert_eq!(line.tick(20 + n * 20), None);
        }
    }
    line.stream.reconfigure(config(Codec::Pcmu, 0), line.at(2020)).expect("a known codec");
    let (tick, after, _) = line.tick(2020).expect("a packet");
    assert_eq!(after.timestamp, before.timestamp.wrapping_add(101 * 160));
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert_eq!(after.ssrc, before.ssrc);
    assert!(after.marker);
    assert_eq!(tick.item, Some("a".into()), "what waited is not lost");
}

#[test]
fn missed_slots_are_skipped_over_in_timestamps_only() {
    let mut line = pcmu();
    let before = line.tick(0).expect("a packet").1;
    line.stream.skip(24);
    let after = line.tick(500).expect("a packet").1;
    assert_eq!(after.timestamp, before.timestamp.wrapping_add(25 * 160));
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert!(after.marker);
}

#[test]
fn digits_mute_the_audio_and_hold_it() {
    let mut line = pcmu();
    line.stream.play(&"a".into(), &[9000; 4800]).expect("room");
    line.stream.send_dtmf("1", Duration::from_millis(60)).expect("negotiated");
    let (mut events, mut first_audio, mut numbers) = (Vec::new(), None, Vec::new());
    for n in 0..10 {
        let (tick, header, payload) = line.tick(n * 20).expect("a packet");
        numbers.push(header.sequence);
        if tick.dtmf {
            events.push((header.payload_type, header.marker, header.timestamp, payload));
        } else if tick.item.is_some() && first_audio.is_none() {
            first_audio = Some(n);
        }
    }
    assert_eq!(events.len(), 5);
    assert!(events.iter().all(|event| event.0 == 101 && event.2 == events[0].2));
    assert_eq!(events.iter().filter(|event| event.1).count(), 1);
    assert_eq!(events.iter().filter(|event| event.3[1] & 0x80 != 0).count(), 3);
    assert_eq!(first_audio, Some(6));
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
    assert!(line.events().contains(&StreamEvent::DtmfSent));
    let without = StreamConfig { telephone_event: None, ..config(Codec::Pcmu, 0) };
    line.stream.reconfigure(without, line.at(200)).expect("a known codec");
    let refused = line.stream.send_dtmf("1", Duration::from_millis(60));
    assert_eq!(refused, Err(DtmfError::NotNegotiated));
}

#[test]
fn tones_are_heard_as_keys_by_a_far_end_that_listens_for_them() {
    let mut sender = pcmu();
    sender.stream.send_dtmf_tones(&"keys".into(), "159,0#D", Duration::from_millis(80)).expect("digits");
    let mut receiver = Line::new(StreamConfig { inband_dtmf: true, ..config(Codec::Pcmu, 0) });
    for n in 0..90 {
        let (_, header, payload) = sender.tick(n * 20).expect("a packet");
        receiver.hear_as(n * 20, Header { ssrc: 7, ..header }, &payload, PEER);
    }
    let keys: String = receiver
        .events()
        .iter()
        .filter_map(|event| match event {
            StreamEvent::Dtmf { digit, method: DtmfMethod::Inband } => Some(*digit),
            _ => None,
        })
        .collect();
    assert_eq!(keys, "1590#D");
    assert!(sender.stream.is_idle());
    let refused = sender.stream.send_dtmf_tones(&"keys".into(), "1x", Duration::from_millis(80));
    assert_eq!(refused, Err(DtmfError::NoSuchDigit('x')));
}

#[test]
fn longer_packets_carry_the_same_audio_at_the_same_pace() {
    let slow = StreamConfig { ptime: Duration::from_millis(40), ..config(Codec::Pcmu, 0) };
    let mut line = Line::new(slow);
    let mut before: Option<u32> = None;
    for n in 0..20 {
        let Some((_, header, payload)) = line.tick(n * 20) else { continue };
        assert_eq!((n % 2, payload.len()), (1, 320));
        assert!(before.is_none_or(|before| header.timestamp == before.wrapping_add(320)));
        before = Some(header.timestamp);
    }
    assert!(before.is_some());
}

#[test]
fn a_change_of_codec_goes_on_under_the_same_source() {
    let mut line = pcmu();
    line.stream.play(&"a".into(), &[9000; 9600]).expect("room");
    let before = line.tick(0).expect("a packet").1;
    let wide = config(Codec::L16(SampleRate::HZ_16000), 96);
    line.stream.reconfigure(wide, line.at(10)).expect("a known codec");
    let (tick, after, payload) = line.tick(20).expect("a packet");
    assert_eq!((after.ssrc, after.payload_type, payload.len()), (before.ssrc, 96, 640));
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert_eq!(tick.item, Some("a".into()));
    let level = i16::from_be_bytes([payload[320], payload[321]]);
    assert!((8000..10_000).contains(&level), "{level}");
}

#[test]
fn reports_carry_loss_and_round_trip() {
    let mut line = pcmu();
    for n in (0..100u16).filter(|n| n % 10 != 5) {
        line.hear(u64::from(n) * 20, n);
    }
    for n in 0..100 {
        line.tick(n * 20);
    }
    // The peer's SR at 2000 ms, reporting 3 lost of ours.
    let mut report = Vec::new();
    let sender = SenderInfo { ntp: 0x0001_0002_0003_0004, timestamp: 1, packets: 90, octets: 1 };
    let ssrc = line.stream.ssrc();
    let block = ReportBlock { ssrc, fraction_lost: 8, cumulative_lost: 5, ..ReportBlock::default() };
    Report { ssrc: 7, sender: Some(sender), block: Some(block), cname: "p", goodbye: false }
        .write(&mut report);
    let now = line.at(2000);
    line.stream.receive_rtcp(now, address("192.0.2.1:4001"), &report);
    // Ours comes in due time and answers it.
    let mut out = Vec::new();
    let mut at = 2000;
    let destination = loop {
        at += 10;
        if let Some(destination) = line.stream.poll_rtcp(line.start + Duration::from_millis(at), &mut out) {
            break destination;
        }
        assert!(at < 8000, "no report");
    };
    assert_eq!(destination, address("192.0.2.1:4001"));
    let Some(RtcpPacket::SenderReport { sender, mut blocks, .. }) = rtcp::parse(&out).next() else {
        panic!("an SR first");
    };
    let block = blocks.next().expect("a block");
    assert_eq!((sender.packets, sender.octets), (100, 16_000));
    assert_eq!((block.ssrc, block.cumulative_lost, block.highest_sequence), (7, 10, 99));
    assert!((20..35).contains(&block.fraction_lost), "{}", block.fraction_lost);
    assert_eq!(block.last_sr, 0x0002_0003);
    let held = rtcp::span(block.delay_since_last_sr).as_millis() as u64;
    assert!(held.abs_diff(at - 2000) <= 1, "{held}");
    // A re-INVITE meanwhile moves no clock.
    let reinvited =
        StreamConfig { wall_clock: crate::time::UnixMs::new(60_000), ..line.stream.config().clone() };
    let now = line.at(at + 20);
    line.stream.reconfigure(reinvited, now).expect("the codec is the same");
    // The peer answers 80 ms later, having kept it for 30 ms.
    let answer = ReportBlock {
        ssrc,
        cumulative_lost: 5,
        last_sr: rtcp::compact(sender.ntp),
        delay_since_last_sr: rtcp::compact_span(Duration::from_millis(30)),
        ..ReportBlock::default()
    };
    report.clear();
    Report { ssrc: 7, sender: None, block: Some(answer), cname: "p", goodbye: true }.write(&mut report);
    let now = line.at(at + 80);
    line.stream.receive_rtcp(now, address("192.0.2.1:4001"), &report);
    let quality = line.stream.quality();
    assert!(quality.round_trip_ms.is_some_and(|trip| (trip - 50.0).abs() < 1.0), "{quality:?}");
    assert_eq!(quality.peer_loss, Some(0.05));
    assert!(line.events().contains(&StreamEvent::PeerBye));
    assert_eq!(line.stream.finish(now, &mut out), Some(address("192.0.2.1:4001")));
    assert!(rtcp::parse(&out).any(|packet| matches!(packet, RtcpPacket::Goodbye { .. })));
}

#[test]
fn opus_pays_for_copies_while_the_far_end_reports_loss() {
    let mut line = Line::new(config(Codec::Opus, 111));
    let pcm = crate::audio::voice::speak(
        "Good morning, you have reached the front desk. How can I help you today?",
    );
    let mut ms = 0;
    let mut say = |line: &mut Line, item: &str| -> usize {
        line.stream.play(&item.into(), &pcm).expect("there is room");
        let sizes = pcm.chunks(480).map(|_| {
            ms += 20;
            line.tick(ms).map_or(0, |(_, _, payload)| payload.len())
        });
        sizes.sum()
    };
    let report = |line: &mut Line, fraction_lost: u8| {
        let block = ReportBlock { ssrc: line.stream.ssrc(), fraction_lost, ..ReportBlock::default() };
        let mut report = Vec::new();
        Report { ssrc: 7, sender: None, block: Some(block), cname: "p", goodbye: false }.write(&mut report);
        // Two, until the source is believed.
        for _ in 0..2 {
            line.stream.receive_rtcp(line.start, address("192.0.2.1:4001"), &report);
        }
    };
    let clean = say(&mut line, "a");
    report(&mut line, 13);
    let lossy = say(&mut line, "b");
    for _ in 0..4 {
        report(&mut line, 0);
    }
    let clean_again = say(&mut line, "c");
    assert!(lossy > clean * 6 / 5, "{lossy} bytes under loss, {clean} before");
    assert!(clean_again < clean * 21 / 20, "{clean_again} bytes afterwards, {clean} before");
}

#[test]
fn reports_come_every_five_seconds_give_or_take_half_also_on_hold() {
    let mut line = Line::new(StreamConfig { direction: Direction::INACTIVE, ..config(Codec::Pcmu, 0) });
    let (mut out, mut last, mut count) = (Vec::new(), 0u64, 0u32);
    for ms in (0..300_000).step_by(10) {
        if line.stream.poll_rtcp(line.start + Duration::from_millis(ms), &mut out).is_none() {
            continue;
        }
        assert!(matches!(rtcp::parse(&out).next(), Some(RtcpPacket::ReceiverReport { .. })));
        assert!(count == 0 || (2_500..=7_510).contains(&(ms - last)), "{}", ms - last);
        (last, count) = (ms, count + 1);
    }
    assert!((45..80).contains(&count), "{count}");
}

#[test]
fn our_own_source_seen_elsewhere_is_given_up() {
    let mut line = pcmu();
    let ours = line.stream.ssrc();
    let header = Header { payload_type: 0, marker: false, sequence: 0, timestamp: 0, ssrc: ours };
    line.hear_as(0, header, &[0; 160], PEER);
    assert_ne!(line.stream.ssrc(), ours);
    assert_eq!(line.heard_ms(), 0);
}

#[test]
fn the_sent_frame_is_what_left() {
    let mut line = Line::new(config(Codec::L16(SampleRate::HZ_24000), 96));
    let ramp: Vec<i16> = (0..960).collect();
    line.stream.play(&"a".into(), &ramp).expect("room");
    let mut sent = Vec::new();
    for n in 0..2 {
        line.tick(n * 20);
        line.stream.sent_frame(&mut sent);
    }
    assert_eq!(sent, ramp);
    line.stream.clear();
    line.stream
        .reconfigure(
            StreamConfig { direction: Direction::INACTIVE, ..config(Codec::L16(SampleRate::HZ_24000), 96) },
            line.at(40),
        )
        .expect("a known codec");
    line.tick(40);
    sent.clear();
    line.stream.sent_frame(&mut sent);
    assert_eq!(sent, [0; 480]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn any_datagrams_are_used_dropped_or_counted(
        datagrams in proptest::collection::vec(
            (proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80), 0u64..50, 0u8..4), 0..60),
    ) {
        let mut line = Line::new(StreamConfig {
            receive: vec![(0, Codec::Pcmu), (9, Codec::G722), (96, Codec::L16(SampleRate::HZ_24000))],
            ..config(Codec::Pcmu, 0)
        });
        let mut ms = 0;
        for (mut datagram, step, kind) in datagrams {
            ms += step;
            line.run(ms);
            // Most are made to look like packets, so that they get somewhere.
            if let ([flags, payload_type, ..], true) = (&mut datagram[..], kind > 0) {
                *flags = *flags & 0x3f | 0x80;
                *payload_type = [0, 101, 200][usize::from(kind) - 1];
            }
            let now = line.at(ms);
            line.stream.receive_rtcp(now, address("192.0.2.1:4001"), &datagram);
            line.stream.receive_rtp(now, address(PEER), &mut datagram);
            line.tick(ms);
        }
        line.run(ms + 1000);
        line.stream.quality();
    }
}
