//! Two parties that speak alike: their packets pass as they are, and what happens when they cannot.

use tandem::event::Disposition;

use super::support::{Setup, data_of, within};
use super::transfer::Stage;
use super::wire::{Packet, Talk, header, status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_pass_unchanged_under_our_own_source() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let (mut ann, bob) = stage.bridged().await;
    bob.line.hears(25, "ann's own octets", is_raw).await;
    ann.line.hears(25, "bob's own octets", is_raw).await;
    assert_unbroken(&bob);
    assert_unbroken(&ann);
    assert_ne!(bob.line.heard()[0].ssrc, u32::from(ann.line.port), "the source is ours, not ann's");
    stage.ann.bye(&mut ann).await;
    let (call, events) = stage.lab.record().await;
    assert_eq!(call.disposition, Some(Disposition::Completed));
    let modes: Vec<_> = data_of(&events, "call.bridged").iter().map(|e| e["mode"].to_string()).collect();
    assert_eq!(modes, ["\"transcode\"", "\"relay\""]);
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_goes_through_once() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let (mut ann, mut bob) = stage.bridged().await;
    bob.line.hears(5, "ann's own octets", is_raw).await;
    for key in [5, 11] {
        ann.line.press(key);
        bob.line.hears(2, "the end of the key", |p| is_end_of(p, key)).await;
    }
    bob.line.hears(25, "ann again", is_raw).await;
    assert_eq!(pressed(&bob), [5, 11]);
    // By INFO it has to be made into packets, which interrupts the relay for as long as it lasts.
    let body = "Signal=7\r\nDuration=160\r\n";
    let info = stage.ann.info(&mut ann, body).await;
    assert_eq!(info, 200);
    bob.line.hears(2, "the end of the key", |p| is_end_of(p, 7)).await;
    bob.line.hears(25, "ann again", is_raw).await;
    assert_eq!(pressed(&bob), [5, 11, 7]);
    assert_unbroken(&bob);
    stage.bob.bye(&mut bob).await;
    stage.ann.hung_up(&ann).await;
    let (_, events) = stage.lab.record().await;
    let keys = data_of(&events, "dtmf.received");
    assert_eq!(keys.len(), 3, "{keys:?}");
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_goes_on_through_hold_and_back() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let (mut ann, bob) = stage.bridged().await;
    for _ in 0..2 {
        bob.line.hears(10, "ann's own octets", is_raw).await;
        stage.ann.offer(&mut ann, "0 101", "sendonly").await;
        // Without music of ours, ann's own is heard.
        bob.line.hears(25, "ann's music", |p| p.is_loud()).await;
        ann.line.hush(true);
        bob.line.hears(10, "silence", |p| p.payload_type == 0 && !p.is_loud()).await;
        ann.line.hush(false);
        stage.ann.offer(&mut ann, "0 101", "sendrecv").await;
    }
    bob.line.hears(25, "ann's own octets", is_raw).await;
    ann.line.hears(25, "bob's own octets", is_raw).await;
    assert_unbroken(&bob);
    stage.ann.bye(&mut ann).await;
    let (_, events) = stage.lab.record().await;
    let modes: Vec<_> = data_of(&events, "call.bridged").iter().map(|e| e["mode"].to_string()).collect();
    assert_eq!(modes[1..], ["\"relay\"", "\"transcode\"", "\"relay\"", "\"transcode\"", "\"relay\""]);
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_call_is_listened_to() {
    let mut setup = Setup::default().configure(|config| config.recording.enabled = true);
    setup.resources = "\n[[organization]]\nname = \"initech\"\nrecording = \"on\"\n".to_owned();
    let mut stage = Stage::open_for("local", "initech", setup).await;
    let (mut ann, bob) = stage.bridged().await;
    bob.line.hears(25, "ann", Packet::is_loud).await;
    assert_unbroken(&bob);
    stage.ann.bye(&mut ann).await;
    let (_, events) = stage.lab.record().await;
    let modes: Vec<_> = data_of(&events, "call.bridged").iter().map(|e| e["mode"].to_string()).collect();
    assert_eq!(modes, ["\"transcode\""]);
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_that_switches_its_codec_is_heard_on() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let at = stage.at();
    let (ann, bob) = tokio::join!(stage.ann.call_with(at, "600", "", "0 101"), stage.bob.pick_up("0 8 101"));
    let mut ann = ann.expect("it is answered");
    ann.line.hears(10, "bob's own octets", is_raw).await;
    // The answer took both codecs; bob may switch without a word.
    bob.line.switch(8);
    within(60, "bob is heard through the other codec", async || {
        let heard = ann.line.heard();
        heard.iter().rev().take(25).all(|packet| packet.is_loud() && !is_raw(packet)).then_some(())
    })
    .await;
    bob.line.switch(0);
    ann.line.hears(25, "bob's own octets again", is_raw).await;
    assert_unbroken(&ann);
    stage.ann.bye(&mut ann).await;
    stage.lab.record().await;
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_leg_settles_its_own_media() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let (mut ann, mut bob) = stage.bridged().await;
    assert_eq!(header(&bob.invite, "Max-Forwards"), "69", "one hop less");
    // Both change at the same time: neither stands in the other's way.
    let (near, far) = tokio::join!(
        stage.ann.offer(&mut ann, "8 101", "sendrecv"),
        stage.bob.offer(&mut bob, "0 101", "sendonly"),
    );
    assert_eq!((status(&near), status(&far)), (200, 200));
    assert!(near.contains("RTP/AVP 8") && far.contains("a=recvonly"), "{near}{far}");
    let back = stage.bob.update(&mut bob, "0 101", "sendrecv").await;
    assert!(status(&back) == 200 && back.contains("a=sendrecv"), "{back}");
    ann.line.switch(8);
    bob.line.hears(25, "ann, transcoded", |p| p.is_loud() && !is_raw(p)).await;
    ann.line.hears(25, "bob, transcoded", |p| p.payload_type == 8).await;
    // An offer that cannot be taken changes nothing.
    let refused = stage.ann.offer(&mut ann, "99", "sendrecv").await;
    assert_eq!(status(&refused), 488);
    bob.line.hears(25, "ann still", Packet::is_loud).await;
    assert_unbroken(&bob);
    stage.ann.bye(&mut ann).await;
    stage.lab.record().await;
    stage.lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_it_ends_is_told_across() {
    let mut stage = Stage::open("local", Setup::default()).await;
    let why = "Reason: Q.850;cause=31;text=\"Normal, unspecified\"\r\n";
    let (mut ann, bob) = stage.bridged().await;
    stage.ann.ask(&mut ann, "BYE", why, "").await;
    let bye = stage.bob.hung_up(&bob).await;
    assert_eq!(header(&bye, "Reason"), "Q.850;cause=31;text=\"Normal, unspecified\"");
    let (ann, mut bob) = stage.bridged().await;
    stage.bob.ask(&mut bob, "BYE", why, "").await;
    let bye = stage.ann.hung_up(&ann).await;
    assert_eq!(header(&bye, "Reason"), "Q.850;cause=31;text=\"Normal, unspecified\"");
    // A status is the hop's business, its cause is not.
    let at = stage.at();
    let refusing = async {
        let (invite, server) = stage.bob.ringing().await;
        stage.bob.refuse_with(&invite, server, "503 No", "Reason: Q.850;cause=34\r\n").await;
    };
    let (refused, ()) = tokio::join!(stage.ann.refused(at, "600", 70), refusing);
    assert_eq!(status(&refused), 500);
    assert!(header(&refused, "Reason").starts_with("Q.850;cause=34"), "{refused}");
    // A call that may take one hop has taken it here.
    assert_eq!(status(&stage.ann.refused(at, "600", 1).await), 483);
    let call = stage.lab.closed(4).await.remove(0);
    let events = stage.lab.events(call.id).await;
    assert_eq!((call.sip_status, data_of(&events, "leg.added").len()), (Some(483), 0));
    let bridged = stage.lab.closed(4).await.remove(3);
    let ended = data_of(&stage.lab.events(bridged.id).await, "leg.ended");
    assert!(ended[0]["quality"]["packets_received"].as_u64() > Some(5), "{ended:?}");
    stage.lab.close().await;
}

/// A packet of the other [`Wire`](super::wire::Wire), octet by octet.
fn is_raw(packet: &Packet) -> bool {
    packet.payload_type == 0
        && packet
            .payload
            .iter()
            .enumerate()
            .all(|(n, byte)| *byte == if n / 8 % 2 == 0 { 0x10 } else { 0x90 })
}

fn is_end_of(packet: &Packet, key: u8) -> bool {
    packet.payload_type == 101 && packet.payload[0] == key && packet.payload[1] & 0x80 != 0
}

/// Keys by their events: one timestamp is one key.
fn pressed(talk: &Talk) -> Vec<u8> {
    let mut last = None;
    let heard = talk.line.heard();
    let events = heard.iter().filter(|packet| packet.payload_type == 101);
    let begun = events.filter(|packet| last.replace(packet.timestamp) != Some(packet.timestamp));
    begun.map(|packet| packet.payload[0]).collect()
}

/// One source whose numbers follow each other without a hole and whose time never runs back.
fn assert_unbroken(talk: &Talk) {
    let heard = talk.line.heard();
    for pair in heard.windows(2) {
        assert_eq!(pair[0].ssrc, pair[1].ssrc);
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        let passed = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        let events = [&pair[0], &pair[1]].iter().any(|packet| packet.payload_type == 101);
        assert!(events || passed < 1 << 31, "{} after {}", pair[1].timestamp, pair[0].timestamp);
    }
}
