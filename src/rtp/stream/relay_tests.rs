//! Two legs in a bridge: relayed, decoded, encrypted, and the changes between.

use super::tests::{Line, PEER, address, config};
use super::*;
use crate::audio::Codec;
use crate::rtp::dtmf::DtmfMethod;
use crate::rtp::packet::Header;
use crate::rtp::srtp::{MasterKey, SrtpKeys, SrtpSession, Suite};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn pcmu(seed: u64) -> Line {
    let mut line = Line::new(config(Codec::Pcmu, 0));
    let mut rng = StdRng::seed_from_u64(seed);
    line.stream = Stream::new(config(Codec::Pcmu, 0), &mut rng, line.start).expect("a known codec");
    line
}

fn datagram(payload_type: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header { payload_type, marker: false, sequence, timestamp, ssrc: 7 };
    let mut datagram = Vec::new();
    header.write(&mut datagram);
    datagram.extend_from_slice(payload);
    datagram
}

/// Relays a datagram of `from`'s far end at `ms`; what leaves on `to`.
fn relay(from: &mut Line, to: &mut Line, ms: u64, mut datagram: Vec<u8>) -> Option<(Header, Vec<u8>)> {
    let now = to.at(ms);
    let packet = from.stream.relay_in(now, address(PEER), &mut datagram)?;
    to.stream.relay_out(now, &packet, &mut to.out)?;
    let packet = Packet::parse(&to.out).expect("our own packet");
    Some((packet.header, packet.payload.to_vec()))
}

fn audio(n: u16) -> Vec<u8> {
    datagram(0, n, 5000 + u32::from(n) * 160, &[n as u8; 160])
}

#[test]
fn packets_pass_under_our_source_with_their_payload_order_and_gaps() {
    let (mut a, mut b) = (pcmu(1), pcmu(2));
    a.stream.park(a.start, true);
    b.stream.park(b.start, true);
    let (first, payload) = relay(&mut a, &mut b, 0, audio(10)).expect("passes");
    assert_eq!((first.ssrc, first.marker, payload), (b.stream.ssrc(), true, vec![10; 160]));
    for (ms, n) in [(20, 11), (60, 13), (61, 12), (80, 14)] {
        let (header, payload) = relay(&mut a, &mut b, ms, audio(n)).expect("passes");
        assert_eq!(header.sequence, first.sequence.wrapping_add(n - 10), "{n}");
        assert_eq!(header.timestamp, first.timestamp.wrapping_add(u32::from(n - 10) * 160));
        assert_eq!((header.marker, payload), (false, vec![n as u8; 160]));
    }
    assert_eq!(relay(&mut a, &mut b, 81, audio(14)), None, "twice");
    let quality = a.stream.quality();
    assert_eq!((quality.packets_received, quality.packets_lost, quality.packets_duplicate), (5, 0, 1));
    assert_eq!((b.stream.quality().packets_sent, b.stream.relayed()), (5, 5));
    assert!(a.stream.next_timeout() > Some(a.at(1_000)), "no silence is owed while relaying");
}

#[test]
fn numbers_and_timestamps_go_on_when_the_bridge_changes_its_mode() {
    let (mut a, mut b) = (pcmu(1), pcmu(2));
    let (_, ticked, _) = b.tick(0).expect("a packet");
    let now = b.at(30);
    b.stream.park(now, true);
    a.stream.park(now, true);
    let (relayed, _) = relay(&mut a, &mut b, 40, audio(500)).expect("passes");
    assert_eq!(relayed.sequence, ticked.sequence.wrapping_add(1));
    // The slot of 20 ms was left out; the packet stands for the one of 40 ms.
    assert_eq!(relayed.timestamp, ticked.timestamp.wrapping_add(2 * 160));
    let (relayed, _) = relay(&mut a, &mut b, 60, audio(501)).expect("passes");
    b.stream.park(b.at(70), false);
    let (_, again, _) = b.tick(80).expect("a packet");
    assert_eq!((again.sequence, again.marker), (relayed.sequence.wrapping_add(1), true));
    assert_eq!(again.timestamp, relayed.timestamp.wrapping_add(160));
    // What was overtaken by the change has no place any more.
    b.stream.park(b.at(90), true);
    assert!(relay(&mut a, &mut b, 100, audio(503)).is_some());
    assert_eq!(relay(&mut a, &mut b, 101, audio(502)), None);
}

#[test]
fn audio_is_heard_again_after_relaying_without_the_time_between() {
    let (mut a, mut b) = (pcmu(1), pcmu(2));
    a.hear(0, 0);
    a.stream.park(a.at(10), true);
    for n in 1..1000 {
        relay(&mut a, &mut b, u64::from(n) * 20, datagram(0, n, u32::from(n) * 160, &[0x9f; 160]));
    }
    a.stream.park(a.at(19_990), false);
    a.audio.clear();
    for n in 1000..1010 {
        a.hear(u64::from(n) * 20, n);
    }
    let heard = a.heard_ms();
    assert!((200..=220).contains(&heard), "{heard}");
    assert_eq!(a.stream.quality().packets_lost, 0);
}

#[test]
fn keys_are_told_once_and_pass_when_both_ends_know_them() {
    let (mut a, mut b) = (pcmu(1), pcmu(2));
    assert!(a.stream.passes_keys_to(&b.stream));
    relay(&mut a, &mut b, 0, audio(1));
    let mut passed = 0;
    for n in 2..6u16 {
        let event = datagram(101, n, 5320, &[3, if n > 3 { 0x8a } else { 10 }, 0, 160]);
        passed += usize::from(relay(&mut a, &mut b, u64::from(n) * 20, event.clone()).is_some());
        assert_eq!(relay(&mut a, &mut b, u64::from(n) * 20, event), None, "a duplicate");
    }
    assert_eq!(passed, 4);
    let keys: Vec<_> = a.events().into_iter().filter(|e| matches!(e, StreamEvent::Dtmf { .. })).collect();
    assert_eq!(keys, [StreamEvent::Dtmf { digit: '3', method: DtmfMethod::Rtp }]);

    let without = StreamConfig { telephone_event: None, ..config(Codec::Pcmu, 0) };
    b.stream.reconfigure(without, b.at(200)).expect("a known codec");
    assert!(!a.stream.passes_keys_to(&b.stream));
    let (before, _) = relay(&mut a, &mut b, 200, audio(6)).expect("passes");
    assert_eq!(relay(&mut a, &mut b, 220, datagram(101, 7, 6000, &[4, 10, 0, 160])), None);
    let (after, _) = relay(&mut a, &mut b, 240, audio(8)).expect("passes");
    assert_eq!(after.sequence, before.sequence.wrapping_add(1), "no loss is shown for what was left out");
}

#[test]
fn legs_that_differ_or_are_held_or_speak_are_not_relayed() {
    let a = pcmu(1).stream;
    let with = |change: &dyn Fn(&mut StreamConfig)| {
        let mut changed = config(Codec::Pcmu, 0);
        change(&mut changed);
        Line::new(changed).stream
    };
    assert!(a.can_relay_to(&with(&|_| {})));
    assert!(a.can_relay_to(&with(&|c| c.payload_type = 96)));
    assert!(!a.can_relay_to(&with(&|c| c.codec = Codec::Pcma)));
    assert!(!a.can_relay_to(&with(&|c| c.ptime = Duration::from_millis(40))));
    assert!(!a.can_relay_to(&with(&|c| c.direction = Direction::RECEIVE_ONLY)));
    assert!(!with(&|c| c.direction = Direction::SEND_ONLY).can_relay_to(&a));
    assert!(!with(&|c| c.inband_dtmf = true).can_relay_to(&a));
    let mut speaking = with(&|_| {});
    speaking.play(&"a".into(), &[9000; 960]).expect("room");
    assert!(!a.can_relay_to(&speaking));
}

#[test]
fn another_codec_of_the_far_end_is_told_and_does_not_pass() {
    let both = StreamConfig { receive: vec![(0, Codec::Pcmu), (8, Codec::Pcma)], ..config(Codec::Pcmu, 0) };
    let (mut a, mut b) = (Line::new(both), pcmu(2));
    assert!(relay(&mut a, &mut b, 0, audio(1)).is_some());
    assert_eq!(relay(&mut a, &mut b, 20, datagram(8, 2, 5320, &[1; 160])), None);
    assert!(a.events().contains(&StreamEvent::CodecHeard { codec: Codec::Pcma }));
    assert!(!a.stream.can_relay_to(&b.stream));
}

fn keys(seed: u64) -> SrtpKeys {
    let mut rng = StdRng::seed_from_u64(seed);
    let suite = Suite::AesCm128Sha80;
    let (send, receive) = (MasterKey::fresh(suite, &mut rng), MasterKey::fresh(suite, &mut rng));
    SrtpKeys { suite, send, receive, mki: None }
}

fn far_end(keys: &SrtpKeys) -> SrtpSession {
    let far = SrtpKeys { send: keys.receive.clone(), receive: keys.send.clone(), ..keys.clone() };
    SrtpSession::new(&far).expect("keys that fit")
}

#[test]
fn an_encrypted_leg_hears_and_speaks_and_believes_nothing_else() {
    let secure = StreamConfig { srtp: Some(keys(1)), ..config(Codec::Pcmu, 0) };
    let (mut line, mut far) = (Line::new(secure), far_end(&keys(1)));
    let mut sealed = audio(1);
    far.protect(&mut sealed);
    // A stranger's packets neither latch nor are heard: in the clear, and made up.
    for octets in [audio(1), {
        let mut bad = sealed.clone();
        bad[20] ^= 1;
        bad
    }] {
        line.stream.receive_rtp(line.at(0), address("192.0.2.1:9999"), &mut octets.clone());
        line.stream.receive_rtp(line.at(0), address(PEER), &mut octets.clone());
    }
    assert_eq!((line.stream.counts().srtp_failed, line.stream.source()), (4, None));
    line.stream.receive_rtp(line.at(0), address(PEER), &mut sealed.clone());
    line.stream.receive_rtp(line.at(1), address(PEER), &mut sealed);
    assert_eq!(line.stream.counts().srtp_failed, 5, "a replay");
    line.stream.take_audio(&mut line.audio);
    assert_eq!((line.heard_ms(), line.stream.source()), (20, Some(address(PEER))));

    let mut out = Vec::new();
    assert!(line.stream.tick(line.at(20), &mut out).is_some());
    assert_eq!(out.len(), 172 + 10);
    let now = line.at(20);
    assert!(Packet::parse(far.unprotect(now, &mut out).expect("ours")).is_ok());
    assert!(line.stream.finish(now, &mut out).is_some());
    let report = far.unprotect_rtcp(now, &mut out).expect("ours");
    assert!(matches!(rtcp::parse(report).next(), Some(RtcpPacket::SenderReport { .. })));
    let mut goodbye = report.to_vec();
    goodbye[4..8].copy_from_slice(&7u32.to_be_bytes());
    let mut plain = goodbye.clone();
    line.stream.receive_rtcp(now, address("192.0.2.1:4001"), &plain);
    assert_eq!(line.stream.counts().srtp_failed, 6);
    far.protect_rtcp(&mut plain);
    line.stream.receive_rtcp(now, address("192.0.2.1:4001"), &plain);
    assert_eq!(line.stream.counts().srtp_failed, 6);
}

#[test]
fn relaying_between_a_plain_and_an_encrypted_leg_and_a_change_of_keys() {
    let secure = StreamConfig { srtp: Some(keys(1)), ..config(Codec::Pcmu, 0) };
    let (mut a, mut b) = (pcmu(3), Line::new(secure.clone()));
    let mut far = far_end(&keys(1));
    let now = a.at(0);
    let mut octets = audio(1);
    let packet = a.stream.relay_in(now, address(PEER), &mut octets).expect("passes");
    b.stream.relay_out(now, &packet, &mut b.out).expect("passes");
    let clear = Packet::parse(far.unprotect(now, &mut b.out).expect("ours")).expect("RTP").payload.to_vec();
    assert_eq!(clear, [1; 160]);
    let mut back = audio(9);
    far.protect(&mut back);
    let packet = b.stream.relay_in(now, address(PEER), &mut back).expect("passes");
    assert_eq!(packet.payload, [9; 160]);

    let rekeyed = StreamConfig { srtp: Some(keys(2)), ..secure };
    b.stream.reconfigure(rekeyed, now).expect("a known codec");
    let (mut late, mut fresh) = (audio(10), audio(11));
    far.protect(&mut late);
    far_end(&keys(2)).protect(&mut fresh);
    assert!(b.stream.relay_in(now, address(PEER), &mut fresh).is_some());
    assert!(b.stream.relay_in(now, address(PEER), &mut late).is_some(), "old keys overlap");
}

#[test]
fn keys_that_do_not_fit_let_nothing_pass() {
    let mut odd = keys(1);
    odd.suite = Suite::AesCm256Sha80;
    let mut line = Line::new(StreamConfig { srtp: Some(odd), ..config(Codec::Pcmu, 0) });
    assert_eq!(line.tick(0), None);
    line.hear(0, 1);
    assert_eq!((line.out.len(), line.stream.counts().srtp_failed), (0, 1));
}

#[test]
fn an_address_that_shows_no_life_gets_five_seconds_and_no_more() {
    let mut line = pcmu(1);
    let sent = (0..400).filter(|n| line.tick(n * 20).is_some()).count();
    assert_eq!((sent, line.stream.counts().withheld), (250, 150));
    line.hear(8_000, 1);
    assert!(line.tick(8_020).is_some(), "alive");

    let mut trusted = config(Codec::Pcmu, 0);
    trusted.latch.allowed.push("192.0.2.0/24".parse().expect("a network"));
    let mut line = Line::new(trusted);
    assert!((0..400).all(|n| line.tick(n * 20).is_some()), "a network of the trunk is not limited");
}

#[test]
fn live_audio_is_heard_in_order_and_never_more_than_120_ms_late() {
    let mut line = pcmu(1);
    let frame = |level: i16| vec![level; 480];
    line.stream.play_live(&frame(8000));
    assert!(line.tick(0).expect("a packet").2.iter().all(|octet| *octet == 0xff), "one frame is not enough");
    line.stream.play_live(&frame(8000));
    let (tick, _, payload) = line.tick(20).expect("a packet");
    assert_eq!(tick.item, None);
    assert!(payload[150] != 0xff && payload[150] & 0x80 != 0);
    for _ in 0..20 {
        line.stream.play_live(&frame(-8000));
    }
    assert_eq!(line.stream.counts().live_dropped_ms, 300);
    let heard = (2..20).filter(|n| line.tick(n * 20).expect("a packet").2[80] & 0x80 == 0).count();
    assert_eq!(heard, 6);
    line.stream.play(&"a".into(), &[9000; 960]).expect("room");
    line.stream.play_live(&frame(8000));
    assert_eq!(line.tick(400).expect("a packet").0.item, Some("a".into()), "an item goes first");
}
