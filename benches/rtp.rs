//! What one call's media costs per 20 ms: receive a packet, tick a slot, write a report.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tandem::audio::Codec;
use tandem::rtp::packet::Header;
use tandem::rtp::rtcp::{Report, ReportBlock, SenderInfo};
use tandem::rtp::srtp::{MasterKey, SrtpKeys, SrtpSession, Suite};
use tandem::rtp::{Histogram, ItemKey, SlotWheel, Stream, StreamConfig};

const FRAME: Duration = Duration::from_millis(20);

fn peer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4000))
}

fn stream(now: Instant) -> Stream {
    let config = StreamConfig {
        telephone_event: Some((101, 8000)),
        unproven_packets: u32::MAX,
        cname: "bench".into(),
        ..StreamConfig::new(Codec::Pcmu, 0, peer())
    };
    Stream::new(config, &mut rand::rng(), now).expect("PCMU is known")
}

/// Goal of the whole receiving side: 600 ns, of which decoding and filter take about 500.
fn receive_one_pcmu_packet_to_24_khz_samples(c: &mut Criterion) {
    let mut now = Instant::now();
    let mut stream = stream(now);
    let (mut audio, mut datagram) = (Vec::with_capacity(480), Vec::with_capacity(172));
    let mut header = Header { payload_type: 0, marker: false, sequence: 0, timestamp: 0, ssrc: 7 };
    c.bench_function("receive one PCMU packet to 24 kHz samples", |b| {
        b.iter(|| {
            now += FRAME;
            header.sequence = header.sequence.wrapping_add(1);
            header.timestamp = header.timestamp.wrapping_add(160);
            datagram.clear();
            header.write(&mut datagram);
            datagram.resize(172, 0x9f);
            stream.receive_rtp(now, peer(), &mut datagram);
            audio.clear();
            stream.take_audio(&mut audio);
            assert_eq!(audio.len(), 480);
        });
    });
}

fn one_playout_tick(c: &mut Criterion) {
    let (now, mut packet) = (Instant::now(), Vec::with_capacity(172));
    let mut talking = stream(now);
    let item = ItemKey::from("item");
    let pcm: Vec<i16> = (0..48_000).map(|n| ((n % 200) * 100) as i16).collect();
    c.bench_function("one playout tick of speech", |b| {
        b.iter(|| {
            if talking.queued() < FRAME {
                // 2 s of speech, paid for by a hundred ticks.
                talking.play(&item, &pcm).expect("room");
            }
            while talking.poll_event().is_some() {}
            black_box(talking.tick(now, &mut packet));
        });
    });
    let mut silent = stream(now);
    c.bench_function("one playout tick of silence", |b| {
        b.iter(|| black_box(silent.tick(now, &mut packet)));
    });
    let mut recorded = stream(now);
    let mut sent = Vec::with_capacity(480);
    c.bench_function("one playout tick of silence with its copy for a recording", |b| {
        b.iter(|| {
            black_box(recorded.tick(now, &mut packet));
            sent.clear();
            recorded.sent_frame(&mut sent);
        });
    });
}

fn rtcp_report(c: &mut Criterion) {
    let sender = Some(SenderInfo { ntp: 1 << 40, timestamp: 160, packets: 100, octets: 16_000 });
    let block = Some(ReportBlock { ssrc: 7, ..ReportBlock::default() });
    let report = Report { ssrc: 9, sender, block, cname: "bench", goodbye: false };
    let mut out = Vec::with_capacity(128);
    c.bench_function("write an RTCP report", |b| {
        b.iter(|| {
            out.clear();
            black_box(&report).write(&mut out);
        });
    });
    let now = Instant::now();
    let mut stream = stream(now);
    c.bench_function("read an RTCP report", |b| b.iter(|| stream.receive_rtcp(now, peer(), &out)));
}

/// One packet from leg to leg. Both ways 50 of them a second each: the whole call has 600 µs a second, system
/// calls included, so 6 µs a packet.
fn relay_one_packet(c: &mut Criterion) {
    let mut now = Instant::now();
    let (mut from, mut to, mut out) = (stream(now), stream(now), Vec::with_capacity(256));
    let mut encrypted = stream(now);
    let secure = StreamConfig { srtp: Some(keys(Suite::AesCm128Sha80)), ..to.config().clone() };
    encrypted.reconfigure(secure, now).expect("PCMU is known");
    for stream in [&mut from, &mut to, &mut encrypted] {
        stream.park(now, true);
    }
    let mut header = Header { payload_type: 0, marker: false, sequence: 0, timestamp: 0, ssrc: 7 };
    let mut datagram = Vec::with_capacity(172);
    for (name, to) in [("plain", &mut to), ("encrypted", &mut encrypted)] {
        c.bench_function(&format!("relay one packet to a leg that is {name}"), |b| {
            b.iter(|| {
                now += FRAME;
                header.sequence = header.sequence.wrapping_add(1);
                header.timestamp = header.timestamp.wrapping_add(160);
                datagram.clear();
                header.write(&mut datagram);
                datagram.resize(172, 0x9f);
                let packet = from.relay_in(now, peer(), &mut datagram).expect("the far end's");
                black_box(to.relay_out(now, &packet, &mut out));
            });
        });
    }
}

fn keys(suite: Suite) -> SrtpKeys {
    let (send, receive) =
        (MasterKey::fresh(suite, &mut rand::rng()), MasterKey::fresh(suite, &mut rand::rng()));
    SrtpKeys { suite, send, receive, mki: None }
}

fn protect_and_unprotect_one_packet(c: &mut Criterion) {
    for suite in Suite::ALL {
        let keys = keys(suite);
        let far = SrtpKeys { send: keys.receive.clone(), receive: keys.send.clone(), ..keys.clone() };
        let (mut near, mut far) =
            (SrtpSession::new(&keys).expect("fits"), SrtpSession::new(&far).expect("fits"));
        let now = Instant::now();
        let mut header = Header { payload_type: 0, marker: false, sequence: 0, timestamp: 0, ssrc: 7 };
        let mut packet = Vec::with_capacity(200);
        c.bench_function(&format!("protect and unprotect one packet, {}", suite.sdp_name()), |b| {
            b.iter(|| {
                header.sequence = header.sequence.wrapping_add(1);
                packet.clear();
                header.write(&mut packet);
                packet.resize(172, 0x9f);
                near.protect(&mut packet);
                assert!(far.unprotect(now, &mut packet).is_ok());
            });
        });
    }
}

/// The worst case of one millisecond at 1,000 calls: all fifty members of its slot are due.
fn one_wheel_turn(c: &mut Criterion) {
    let start = Instant::now();
    let mut wheel = SlotWheel::new(start);
    for key in 0..1000u32 {
        wheel.join(start, key as usize % 20, key);
    }
    let (mut now, mut due, mut lateness) = (start, Vec::with_capacity(64), Histogram::new());
    c.bench_function("one millisecond of a wheel with 1,000 members", |b| {
        b.iter(|| {
            now += Duration::from_millis(1);
            due.clear();
            wheel.due(now, &mut due);
            due.iter().for_each(|due| lateness.record(now - due.deadline));
        });
    });
}

criterion_group!(
    benches,
    receive_one_pcmu_packet_to_24_khz_samples,
    one_playout_tick,
    rtcp_report,
    relay_one_packet,
    protect_and_unprotect_one_packet,
    one_wheel_turn
);
criterion_main!(benches);
