//! Whole exchanges.

use super::*;
use crate::audio::SampleRate;

const PEER: &str = "198.51.100.7";

fn side(codecs: &[Codec]) -> Negotiation {
    let capabilities = Capabilities { codecs: codecs.to_vec(), ..Capabilities::default() };
    Negotiation::new(capabilities, "203.0.113.10:20000".parse().unwrap(), 4 << 2)
}

fn g711() -> Negotiation {
    side(&[Codec::Pcmu, Codec::Pcma])
}

/// An offer with one audio section; `media` is what follows `m=audio 19534 `.
fn offer(media: &str) -> String {
    format!(
        "v=0\r\no=root 1 1 IN IP4 172.18.155.180\r\ns=x\r\nc=IN IP4 168.86.138.232\r\nt=0 0\r\nm=audio 19534 {media}\r\n"
    )
}

fn answer(side: &mut Negotiation, offer: &str) -> Result<(Sdp, MediaPlan), NegotiationError> {
    let done = side.answer(offer.as_bytes(), PEER.parse().unwrap())?;
    Ok((Sdp::parse(&done.answer.unwrap()).unwrap(), done.plan))
}

fn accept(side: &mut Negotiation, text: &str) -> Result<Negotiated, NegotiationError> {
    side.accept(text.as_bytes(), PEER.parse().unwrap())
}

fn version(sdp: &Sdp) -> String {
    sdp.origin.id_and_version().unwrap().1.to_owned()
}

const TWILIO: &str = "RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:20\r\na=sendrecv";

#[test]
fn a_twilio_offer_is_answered() {
    let mut side = g711();
    let (sdp, plan) = answer(&mut side, &offer(TWILIO)).unwrap();
    let expected = MediaPlan {
        remote: "168.86.138.232:19534".parse().unwrap(),
        remote_rtcp: "168.86.138.232:19535".parse().unwrap(),
        codec: Codec::Pcmu,
        payload_type: 0,
        receive: vec![(0, Codec::Pcmu), (8, Codec::Pcma)],
        telephone_event: Some((101, 8000)),
        receive_events: vec![(101, 8000)],
        ptime_ms: 20,
        direction: Direction::SendRecv,
        rtcp_mux: false,
        srtp: None,
        secure: false,
    };
    assert_eq!(plan, expected);
    let text = sdp.to_string();
    let expected = "v=0\r\no=- 4 1 IN IP4 203.0.113.10\r\ns=-\r\nc=IN IP4 203.0.113.10\r\nt=0 0\r\nm=audio 20000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n";
    assert_eq!(text, expected);
}

#[test]
fn the_preference_says_whose_order_decides() {
    let text = offer("RTP/AVP 8 0 111\r\na=rtpmap:111 opus/48000/2");
    let codecs = [Codec::Opus, Codec::Pcmu, Codec::Pcma];
    let (_, plan) = answer(&mut side(&codecs), &text).unwrap();
    assert_eq!((plan.codec, plan.payload_type), (Codec::Pcma, 8));

    let mut ours = side(&codecs);
    ours.capabilities.preference = Preference::Ours;
    let (sdp, plan) = answer(&mut ours, &text).unwrap();
    assert_eq!((plan.codec, plan.payload_type), (Codec::Opus, 111));
    assert_eq!(sdp.media[0].formats, ["111", "0", "8"]);
    assert_eq!(sdp.media[0].rtpmap(111).unwrap().channels, 2);
}

#[test]
fn payload_types_of_the_offer_are_used_both_ways() {
    let text = offer("RTP/AVP 96 97\r\na=rtpmap:96 L16/16000\r\na=rtpmap:97 telephone-event/16000/1");
    let (sdp, plan) = answer(&mut side(&[Codec::L16(SampleRate::HZ_16000)]), &text).unwrap();
    assert_eq!(plan.receive, [(96, Codec::L16(SampleRate::HZ_16000))]);
    assert_eq!(plan.telephone_event, Some((97, 16_000)));
    assert_eq!(sdp.media[0].formats, ["96", "97"]);
}

#[test]
fn telephone_events_have_the_clock_of_the_codec() {
    let events = "a=rtpmap:110 telephone-event/48000\r\na=rtpmap:101 telephone-event/8000";
    let text = offer(&format!("RTP/AVP 111 0 101 110\r\na=rtpmap:111 opus/48000/2\r\n{events}"));
    let (sdp, plan) = answer(&mut side(&[Codec::Opus, Codec::Pcmu]), &text).unwrap();
    assert_eq!(plan.telephone_event, Some((110, 48_000)));
    assert_eq!(sdp.media[0].formats, ["111", "0", "110", "101"]);

    let text = offer("RTP/AVP 111 101\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:101 telephone-event/8000");
    let (_, plan) = answer(&mut side(&[Codec::Opus]), &text).unwrap();
    assert_eq!(plan.telephone_event, Some((101, 8_000)), "events of another clock are better than none");
}

/// As chan_pjsip of Asterisk 22 offers ulaw, g722, slin16 and opus: one telephone event for each clock.
const ASTERISK: &str = "a=rtpmap:0 PCMU/8000\r\na=rtpmap:9 G722/8000\r\na=rtpmap:118 L16/16000\r\na=rtpmap:107 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=rtpmap:121 telephone-event/16000\r\na=fmtp:121 0-16\r\na=rtpmap:110 telephone-event/48000\r\na=fmtp:110 0-16\r\na=ptime:20\r\na=maxptime:140\r\na=sendrecv";

#[test]
fn of_several_event_clocks_that_of_the_codec_is_sent_and_all_that_were_answered_are_heard() {
    let l16 = Codec::L16(SampleRate::HZ_16000);
    let all = [Codec::Pcmu, Codec::G722, l16, Codec::Opus];
    let plan = |codecs: &[Codec], order: &str| {
        let text = offer(&format!("RTP/AVP {order}\r\n{ASTERISK}"));
        let (sdp, plan) = answer(&mut side(codecs), &text).unwrap();
        let answered: Vec<u8> = sdp.media[0].payload_types().collect();
        assert!(plan.receive_events.iter().all(|(event, _)| answered.contains(event)), "{answered:?}");
        let mut heard: Vec<u8> = plan.receive_events.iter().map(|(event, _)| *event).collect();
        heard.sort_unstable();
        (plan.codec, plan.telephone_event, heard)
    };
    let (at_8, at_16, at_48) = (Some((101, 8_000)), Some((121, 16_000)), Some((110, 48_000)));
    assert_eq!(plan(&all, "0 9 118 107 101 121 110"), (Codec::Pcmu, at_8, vec![101, 110, 121]));
    assert_eq!(plan(&all, "107 0 9 118 121 110 101"), (Codec::Opus, at_48, vec![101, 110, 121]));
    assert_eq!(plan(&all, "118 0 9 107 110 101 121"), (l16, at_16, vec![101, 110, 121]));
    assert_eq!(plan(&[Codec::G722], "9 110 121 101"), (Codec::G722, at_8, vec![101]));
    assert_eq!(plan(&[Codec::Opus], "107 121 101"), (Codec::Opus, at_8, vec![101]), "8 kHz stands in");
    assert_eq!(plan(&[Codec::Opus, l16], "107 118 121 101"), (Codec::Opus, at_8, vec![101, 121]));
    assert_eq!(plan(&[Codec::Opus], "107 121"), (Codec::Opus, at_16, vec![121]), "better than none");
}

#[test]
fn events_that_we_offered_are_heard_whichever_the_answer_takes() {
    let mut side = side(&[Codec::Opus, Codec::Pcmu]);
    let offered = Sdp::parse(&side.offer()).unwrap();
    assert!(
        offered.media[0].payload_types().any(|t| t == 110)
            && offered.media[0].payload_types().any(|t| t == 101)
    );
    let taken =
        "RTP/AVP 0 101 110\r\na=rtpmap:101 telephone-event/8000\r\na=rtpmap:110 telephone-event/48000";
    let done = accept(&mut side, &offer(taken)).unwrap();
    assert_eq!((done.plan.codec, done.plan.telephone_event), (Codec::Pcmu, Some((101, 8_000))));
    let mut heard = done.plan.receive_events;
    heard.sort_unstable();
    assert_eq!(heard, [(101, 8_000), (110, 48_000)]);
}

#[test]
fn everything_but_the_first_audio_is_refused_in_place() {
    let text = format!(
        "{}m=audio 7000 RTP/AVP 0\r\nm=image 9000 udptl t38\r\nm=application 0 TCP/BFCP *\r\n",
        offer("RTP/AVP 0").replace("m=audio", "m=video 5000 RTP/AVP 31 34\r\nm=audio")
    );
    let (sdp, plan) = answer(&mut g711(), &text).unwrap();
    let sections: Vec<_> = sdp.media.iter().map(|m| (m.kind.as_str(), m.port, m.formats.join(" "))).collect();
    let expected = [
        ("video", 0, "31 34".to_owned()),
        ("audio", 20_000, "0".to_owned()),
        ("audio", 0, "0".to_owned()),
        ("image", 0, "t38".to_owned()),
        ("application", 0, "*".to_owned()),
    ];
    assert_eq!(sections, expected);
    assert_eq!(sdp.media[3].proto, "udptl");
    assert_eq!(plan.remote.port(), 19_534);
}

#[test]
fn what_makes_no_session_is_refused_with_its_warning() {
    let check = |text: &str| {
        let error = answer(&mut g711(), text).unwrap_err();
        (error.status().get(), error.warning().0)
    };
    assert_eq!(check(&offer("RTP/AVP 18")), (488, 305));
    assert_eq!(check(&offer("RTP/SAVP 0")), (488, 302));
    assert_eq!(check(&offer("UDP/TLS/RTP/SAVPF 0")), (488, 302));
    assert_eq!(check("v=0\r\nm=audio 0 RTP/AVP 0\r\n"), (488, 304));
    assert_eq!(check("v=0\r\nc=IN IP4 media.example.com\r\nm=audio 4000 RTP/AVP 0\r\n"), (488, 301));
    assert_eq!(check("v=0\r\nc=IN IP6 2001:db8::1\r\nm=audio 4000 RTP/AVP 0\r\n"), (488, 300));
    assert_eq!(check("v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 0\r\n"), (488, 399));
    assert_eq!(check("v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 22 RTP/AVP 0\r\n"), (488, 399));
    assert_eq!(check("hello"), (400, 399));
    let header = NegotiationError::NoCommonCodec.warning_header("198.51.100.1:5060");
    assert_eq!(header.to_text(), "305 198.51.100.1:5060 \"Incompatible media format\"");
}

#[test]
fn an_encrypted_section_is_passed_over_for_a_plain_one() {
    let text = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/SAVP 0\r\nm=audio 4002 RTP/AVP 0\r\n";
    let (sdp, plan) = answer(&mut g711(), text).unwrap();
    assert_eq!(plan.remote.port(), 4002);
    assert_eq!((sdp.media[0].port, sdp.media[0].proto.as_str()), (0, "RTP/SAVP"));
}

#[test]
fn directions_are_answered_as_rfc_3264_says() {
    for (offered, wish, answered) in [
        ("sendrecv", Direction::SendRecv, "sendrecv"),
        ("sendonly", Direction::SendRecv, "recvonly"),
        ("recvonly", Direction::SendRecv, "sendonly"),
        ("inactive", Direction::SendRecv, "inactive"),
        ("sendrecv", Direction::SendOnly, "sendonly"),
        ("sendonly", Direction::SendOnly, "inactive"),
        ("sendrecv", Direction::Inactive, "inactive"),
    ] {
        let mut side = g711();
        side.set_direction(wish);
        let (sdp, plan) = answer(&mut side, &offer(&format!("RTP/AVP 0\r\na={offered}"))).unwrap();
        assert!(sdp.media[0].has(answered), "{offered} while we are {wish:?}: {sdp}");
        assert_eq!(plan.direction.as_str(), answered);
    }
}

#[test]
fn hold_and_unhold_of_both_fashions() {
    let mut side = g711();
    let (sdp, _) = answer(&mut side, &offer(TWILIO)).unwrap();
    assert_eq!(version(&sdp), "1");

    let (sdp, plan) = answer(&mut side, &offer(TWILIO).replace("sendrecv", "sendonly")).unwrap();
    assert!(plan.is_held() && plan.direction.receives());
    assert_eq!(version(&sdp), "2");

    let (sdp, plan) = answer(&mut side, &offer(TWILIO).replace("168.86.138.232", "0.0.0.0")).unwrap();
    assert!(plan.is_held() && sdp.media[0].has("inactive"));
    assert!(plan.remote.ip().is_unspecified());
    assert_eq!(version(&sdp), "3");

    let (sdp, plan) = answer(&mut side, &offer(TWILIO)).unwrap();
    assert!(!plan.is_held());
    assert_eq!(version(&sdp), "4");
}

#[test]
fn a_refresh_changes_neither_version_nor_plan() {
    let mut side = g711();
    let first = side.answer(offer(TWILIO).as_bytes(), PEER.parse().unwrap()).unwrap();
    let again = side.answer(offer(TWILIO).as_bytes(), PEER.parse().unwrap()).unwrap();
    assert!(first.changed && !again.changed);
    assert_eq!(first.answer, again.answer);
    assert_eq!(side.sent(), again.answer);
}

#[test]
fn changes_are_seen_by_content_even_if_the_version_stands_still() {
    let mut side = g711();
    answer(&mut side, &offer(TWILIO)).unwrap();
    let moved = offer(TWILIO).replace("19534", "19600");
    let done = side.answer(moved.as_bytes(), PEER.parse().unwrap()).unwrap();
    assert!(done.changed);
    assert_eq!(done.plan.remote.port(), 19_600);
}

/// Asterisk with `direct_media=yes` and a phone that faxes: the version in `o=` may stand still throughout.
#[test]
fn a_pbx_moves_media_to_a_phone_asks_for_fax_and_takes_media_back() {
    let mut side = g711();
    let pbx = offer(TWILIO);
    let (first, plan) = answer(&mut side, &pbx).unwrap();
    let phone = pbx.replace("c=IN IP4 168.86.138.232", "c=IN IP4 192.0.2.55").replace("19534", "4002");
    let direct = side.answer(phone.as_bytes(), PEER.parse().unwrap()).unwrap();
    assert!(direct.changed);
    assert_eq!(direct.plan.remote, "192.0.2.55:4002".parse().unwrap());
    assert_eq!(direct.plan.remote_rtcp, "192.0.2.55:4003".parse().unwrap());
    let again = Sdp::parse(&direct.answer.unwrap()).unwrap();
    assert_eq!(again, first, "our address, port and version stay: the PBX has locked on to them");
    let fax = "v=0\r\no=- 1 2 IN IP4 198.51.100.7\r\ns=Asterisk\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\nm=image 4444 udptl t38\r\na=T38FaxVersion:0\r\n";
    assert_eq!(answer(&mut side, fax).unwrap_err().status().get(), 488);
    assert_eq!(side.plan().map(|plan| plan.remote), Some(direct.plan.remote), "the call goes on");
    let back = side.answer(pbx.as_bytes(), PEER.parse().unwrap()).unwrap();
    assert_eq!((back.changed, back.plan), (true, plan));
}

#[test]
fn a_refused_reinvite_leaves_the_session_alone() {
    let mut side = g711();
    let (_, plan) = answer(&mut side, &offer(TWILIO)).unwrap();
    let (sent, version) = (side.sent(), side.version);
    assert!(answer(&mut side, &offer("RTP/AVP 18")).is_err());
    assert_eq!((side.plan(), side.sent(), side.version), (Some(&plan), sent, version));
}

#[test]
fn ptime_is_the_peers_wish_within_what_we_can() {
    for (attributes, expected) in [
        ("", 20),
        ("\r\na=ptime:40", 40),
        ("\r\na=ptime:30", 20),
        ("\r\na=ptime:40\r\na=maxptime:20", 20),
        ("\r\na=ptime:40\r\na=maxptime:0", 40),
        ("\r\na=ptime:huge", 20),
    ] {
        let (_, plan) = answer(&mut g711(), &offer(&format!("RTP/AVP 0{attributes}"))).unwrap();
        assert_eq!(plan.ptime_ms, expected, "{attributes}");
    }
}

#[test]
fn rtcp_goes_where_the_offer_says() {
    let (_, plan) = answer(&mut g711(), &offer("RTP/AVP 0\r\na=rtcp:53020 IN IP4 192.0.2.9")).unwrap();
    assert_eq!(plan.remote_rtcp, "192.0.2.9:53020".parse().unwrap());
    let (sdp, plan) = answer(&mut g711(), &offer("RTP/AVPF 0\r\na=rtcp-mux\r\na=rtcp:53020")).unwrap();
    assert_eq!(plan.remote_rtcp, plan.remote);
    assert!(plan.rtcp_mux && sdp.media[0].has("rtcp-mux") && sdp.media[0].proto == "RTP/AVPF");
}

#[test]
fn a_late_offer_is_answered_in_the_ack() {
    let mut side = side(&[Codec::Pcmu, Codec::G722, Codec::Opus]);
    let ours = Sdp::parse(&side.offer()).unwrap();
    assert_eq!(ours.media[0].formats, ["0", "9", "111", "101", "110"]);
    assert!(side.is_offering());
    let done = accept(&mut side, &offer("RTP/AVP 9 101\r\na=rtpmap:101 telephone-event/8000")).unwrap();
    assert_eq!((done.plan.codec, done.plan.telephone_event), (Codec::G722, Some((101, 8_000))));
    assert!(done.plan.receive.contains(&(111, Codec::Opus)), "all we offered may come");
    side.offer_done();
    assert_eq!(accept(&mut side, &offer("RTP/AVP 9")).unwrap_err(), NegotiationError::NoOffer);
}

#[test]
fn odd_answers_are_understood() {
    // Extra codecs, another order, a dynamic type without rtpmap, and one renumbered.
    let mut side = side(&[Codec::Pcmu, Codec::Opus]);
    side.offer();
    let done = accept(&mut side, &offer("RTP/AVP 18 101 111 0")).unwrap();
    assert_eq!((done.plan.codec, done.plan.payload_type), (Codec::Opus, 111));
    assert_eq!(done.plan.telephone_event, Some((101, 8_000)));
    let done = accept(&mut side, &offer("RTP/AVP 107\r\na=rtpmap:107 opus/48000/2")).unwrap();
    assert_eq!(done.plan.payload_type, 107);
    assert_eq!(done.plan.receive, [(0, Codec::Pcmu), (111, Codec::Opus), (107, Codec::Opus)]);
}

#[test]
fn an_answer_that_refuses_or_does_not_fit_changes_nothing() {
    let mut side = g711();
    side.offer();
    for text in [offer("RTP/AVP 0").replace("19534", "0"), offer("RTP/SAVP 0"), "v=0\r\n".to_owned()] {
        assert_eq!(accept(&mut side, &text).unwrap_err(), NegotiationError::AnswerMismatch);
    }
    assert_eq!(accept(&mut side, &offer("RTP/AVP 18")).unwrap_err(), NegotiationError::NoCommonCodec);
    assert!(side.plan().is_none() && side.is_offering());
}

#[test]
fn our_reinvite_keeps_payload_types_and_sections() {
    let mut side = side(&[Codec::Opus, Codec::Pcmu]);
    let text = offer("RTP/AVP 107 0\r\na=rtpmap:107 opus/48000/2\r\na=rtcp-mux")
        .replace("m=audio", "m=video 1 RTP/AVP 31\r\nm=audio");
    answer(&mut side, &text).unwrap();
    side.set_direction(Direction::SendOnly);
    let ours = Sdp::parse(&side.offer()).unwrap();
    assert_eq!((ours.media[0].kind.as_str(), ours.media[0].port), ("video", 0));
    assert_eq!(ours.media[1].formats[..2], ["107", "0"]);
    assert!(ours.media[1].has("sendonly") && ours.media[1].has("rtcp-mux"));
    assert_eq!(version(&ours), "2");
    side.withdraw_offer();
    assert!(side.plan().is_some_and(|plan| plan.direction == Direction::SendRecv));
}

#[test]
fn loopback_media_is_for_loopback_peers() {
    let text = offer("RTP/AVP 0").replace("168.86.138.232", "127.0.0.1");
    let done = g711().answer(text.as_bytes(), "127.0.0.1".parse().unwrap());
    assert!(done.is_ok());
}

#[test]
fn ipv6_is_answered_in_ipv6() {
    let mut side = Negotiation::new(Capabilities::default(), "[2001:db8::5]:20000".parse().unwrap(), 4);
    let text = "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let done = side.answer(text.as_bytes(), "2001:db8::1".parse().unwrap()).unwrap();
    let answer = String::from_utf8(done.answer.unwrap()).unwrap();
    assert!(answer.contains("c=IN IP6 2001:db8::5\r\n") && !answer.contains('['));
    assert_eq!(offered_address(&Sdp::parse(text.as_bytes()).unwrap()), "2001:db8::1".parse().ok());
}

proptest::proptest! {
    #[test]
    fn an_answer_has_the_sections_of_its_offer(kinds in proptest::collection::vec(0usize..4, 1..8), held in proptest::bool::ANY) {
        let lines = ["m=audio 4000 RTP/AVP 8 0\r\n", "m=video 4002 RTP/AVP 31\r\n", "m=audio 0 RTP/AVP 0\r\n", "m=audio 4004 RTP/SAVP 0\r\n"];
        let text: String = kinds.iter().map(|kind| lines[*kind]).collect();
        let text = format!("v=0\r\nc=IN IP4 192.0.2.1\r\na={}\r\n{text}", if held { "sendonly" } else { "sendrecv" });
        let offered = Sdp::parse(text.as_bytes()).unwrap();
        if let Ok((sdp, _)) = answer(&mut g711(), &text) {
            proptest::prop_assert_eq!(sdp.media.len(), offered.media.len());
            proptest::prop_assert_eq!(sdp.media.iter().filter(|m| m.port != 0).count(), 1);
            for (ours, theirs) in sdp.media.iter().zip(&offered.media) {
                proptest::prop_assert_eq!((&ours.kind, &ours.proto), (&theirs.kind, &theirs.proto));
                proptest::prop_assert!(ours.formats.iter().all(|format| theirs.formats.contains(format)));
            }
        } else {
            proptest::prop_assert!(!kinds.contains(&0));
        }
    }
}
