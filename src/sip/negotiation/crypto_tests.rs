//! Keys in offers and answers, by policy, in both roles.

use super::*;

const PEER: &str = "198.51.100.7";
const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
const OTHER: &str = "NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj";

fn side(srtp: SrtpPolicy) -> Negotiation {
    let capabilities = Capabilities { srtp, ..Capabilities::default() };
    let mut side = Negotiation::new(capabilities, "203.0.113.10:20000".parse().unwrap(), 16);
    side.set_key_source([7; 32]);
    side
}

fn offer(proto: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("a=crypto:{line}\r\n")).collect();
    format!("v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 {proto} 0\r\n{lines}")
}

fn line(tag: u32, suite: &str, rest: &str) -> String {
    format!("{tag} {suite} inline:{rest}")
}

fn answer(side: &mut Negotiation, text: &str) -> Result<(Sdp, MediaPlan), NegotiationError> {
    let done = side.answer(text.as_bytes(), PEER.parse().unwrap())?;
    Ok((Sdp::parse(&done.answer.unwrap()).unwrap(), done.plan))
}

fn accept(side: &mut Negotiation, text: &str) -> Result<MediaPlan, NegotiationError> {
    side.accept(text.as_bytes(), PEER.parse().unwrap()).map(|done| done.plan)
}

fn crypto(sdp: &Sdp) -> Vec<String> {
    let lines = sdp.media[0].attributes.iter().filter(|a| a.name == "crypto");
    lines.filter_map(|a| a.value.clone()).collect()
}

const SHA80: &str = "AES_CM_128_HMAC_SHA1_80";
const SHA32: &str = "AES_CM_128_HMAC_SHA1_32";

#[test]
fn an_encrypted_offer_is_answered_with_one_line_under_its_tag() {
    for policy in [SrtpPolicy::Optional, SrtpPolicy::Required, SrtpPolicy::Opportunistic] {
        let lines = [line(3, "F8_128_HMAC_SHA1_80", KEY), line(5, SHA32, KEY), line(6, SHA80, OTHER)];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (sdp, plan) = answer(&mut side(policy), &offer("RTP/SAVP", &lines)).unwrap();
        assert_eq!(sdp.media[0].proto, "RTP/SAVP");
        let keys = plan.srtp.unwrap();
        assert!(plan.secure);
        assert_eq!((keys.suite, keys.receive.to_inline().as_str()), (Suite::AesCm128Sha32, KEY));
        assert_eq!(crypto(&sdp), [line(5, SHA32, &keys.send.to_inline())]);
        assert_ne!(keys.send, keys.receive);
    }
    assert_eq!(
        answer(&mut side(SrtpPolicy::Off), &offer("RTP/SAVP", &[&line(1, SHA80, KEY)])).unwrap_err(),
        NegotiationError::Transport
    );
}

#[test]
fn lines_that_weaken_or_cannot_be_read_are_passed_over() {
    for bad in [
        line(1, SHA80, &format!("{KEY} UNENCRYPTED_SRTP")),
        line(1, SHA80, &format!("{KEY} UNAUTHENTICATED_SRTP")),
        line(1, SHA80, &format!("{KEY} UNENCRYPTED_SRTCP WSH=64")),
        line(1, SHA80, &format!("{KEY} FEC_ORDER=FEC_SRTP")),
        line(1, SHA80, &format!("{KEY} KDR=3")),
        line(1, SHA80, &format!("{KEY};inline:{OTHER}")),
        line(1, SHA80, "c2hvcnQ="),
        line(1, SHA80, &format!("{KEY}|1:99")),
        format!("x {SHA80} inline:{KEY}"),
        format!("1 {SHA80} uri:{KEY}"),
        "1".to_owned(),
    ] {
        let mut side = side(SrtpPolicy::Required);
        let error = answer(&mut side, &offer("RTP/SAVP", &[&bad])).unwrap_err();
        assert_eq!(error, NegotiationError::NoCommonCrypto, "{bad}");
        assert_eq!((error.status().get(), error.warning().0), (488, 305));
        let (_, plan) = answer(&mut side, &offer("RTP/SAVP", &[&bad, &line(2, SHA80, OTHER)])).unwrap();
        assert_eq!(plan.srtp.unwrap().receive.to_inline(), OTHER);
    }
    for good in [format!("{KEY}|2^20|1:4 WSH=64 -x"), format!("{KEY}|2^48"), format!("{KEY}|1:4")] {
        let (sdp, plan) =
            answer(&mut side(SrtpPolicy::Optional), &offer("RTP/SAVP", &[&line(1, SHA80, &good)])).unwrap();
        let mki = good.contains("1:4").then(|| vec![0, 0, 0, 1]);
        assert_eq!(plan.srtp.unwrap().mki, mki, "{good}");
        assert!(!crypto(&sdp)[0].contains('|'), "ours has neither");
    }
}

#[test]
fn policy_decides_what_becomes_of_plain_offers() {
    let (plain, beside) = (offer("RTP/AVP", &[]), offer("RTP/AVP", &[&line(1, SHA80, KEY)]));
    for (policy, of_plain, of_beside) in [
        (SrtpPolicy::Off, Ok(false), Ok(false)),
        (SrtpPolicy::Optional, Ok(false), Ok(false)),
        (SrtpPolicy::Opportunistic, Ok(false), Ok(true)),
        (SrtpPolicy::Required, Err(NegotiationError::InTheClear), Ok(true)),
    ] {
        for (text, expected) in [(&plain, of_plain), (&beside, of_beside)] {
            let outcome = answer(&mut side(policy), text);
            assert_eq!(outcome.as_ref().map(|(_, plan)| plan.secure).map_err(|e| *e), expected, "{policy:?}");
            if let Ok((sdp, plan)) = outcome {
                assert_eq!(
                    (sdp.media[0].proto.as_str(), crypto(&sdp).len()),
                    ("RTP/AVP", usize::from(plan.secure))
                );
            }
        }
    }
}

#[test]
fn an_encrypted_section_goes_before_a_plain_one() {
    let text =
        format!("{}m=audio 4002 RTP/SAVP 0\r\na=crypto:{}\r\n", offer("RTP/AVP", &[]), line(1, SHA80, KEY));
    let (sdp, plan) = answer(&mut side(SrtpPolicy::Optional), &text).unwrap();
    assert!(plan.secure && sdp.media[0].port == 0 && sdp.media[1].port != 0);
    let (sdp, plan) = answer(&mut side(SrtpPolicy::Off), &text).unwrap();
    assert!(!plan.secure && sdp.media[0].port != 0 && sdp.media[1].port == 0);
}

#[test]
fn a_refresh_repeats_the_key_and_a_change_of_theirs_leaves_ours() {
    let mut side = side(SrtpPolicy::Optional);
    let first = offer("RTP/SAVP", &[&line(1, SHA80, KEY)]);
    let (sdp, plan) = answer(&mut side, &first).unwrap();
    let (again, unchanged) = answer(&mut side, &first).unwrap();
    assert_eq!((&sdp, &plan), (&again, &unchanged), "the version of o= as well");
    let (_, changed) = answer(&mut side, &first.replace(KEY, OTHER)).unwrap();
    let (before, after) = (plan.srtp.unwrap(), changed.srtp.unwrap());
    assert_eq!((&before.send, after.receive.to_inline().as_str()), (&after.send, OTHER));
    let (_, other) = answer(&mut side, &offer("RTP/SAVP", &[&line(1, SHA32, OTHER)])).unwrap();
    assert_ne!(other.srtp.unwrap().send, before.send, "another suite, another key");
    // Never in the clear again, nor is the session touched by the attempt.
    let held = side.plan().cloned();
    assert_eq!(answer(&mut side, &offer("RTP/AVP", &[])).unwrap_err(), NegotiationError::InTheClear);
    assert_eq!(side.plan().cloned(), held);
}

#[test]
fn our_offers_follow_policy_and_a_line_must_be_taken_up() {
    for (policy, proto, lines) in [
        (SrtpPolicy::Off, "RTP/AVP", 0),
        (SrtpPolicy::Optional, "RTP/AVP", 0),
        (SrtpPolicy::Required, "RTP/SAVP", 6),
        (SrtpPolicy::Opportunistic, "RTP/AVP", 6),
    ] {
        let mut side = side(policy);
        let ours = Sdp::parse(&side.offer()).unwrap();
        assert_eq!((ours.media[0].proto.as_str(), crypto(&ours).len()), (proto, lines));
        let plain = accept(&mut side, &offer("RTP/AVP", &[]));
        match policy {
            SrtpPolicy::Required => assert_eq!(plain.unwrap_err(), NegotiationError::AnswerMismatch),
            _ => assert!(!plain.unwrap().secure),
        }
        if lines == 0 {
            continue;
        }
        let stranger = accept(&mut side, &offer(proto, &[&line(9, SHA80, KEY)]));
        assert!(stranger.is_err() || !stranger.unwrap().secure, "a tag we did not offer");
        let plan = accept(&mut side, &offer(proto, &[&line(1, SHA80, KEY)])).unwrap();
        let keys = plan.srtp.unwrap();
        assert_eq!(crypto(&ours)[0], line(1, SHA80, &keys.send.to_inline()));
        assert_eq!(keys.receive.to_inline(), KEY);
        // From here on it is encrypted, and our own re-INVITE says the same key.
        assert!(accept(&mut side, &offer(proto, &[])).is_err());
        side.offer_done();
        let again = Sdp::parse(&side.offer()).unwrap();
        assert_eq!((again.media[0].proto.as_str(), crypto(&again)), (proto, vec![crypto(&ours)[0].clone()]));
        assert!(accept(&mut side, &offer(proto, &[&line(1, SHA80, KEY)])).unwrap().secure);
    }
}

#[test]
fn two_of_us_agree_on_the_same_keys_and_nothing_prints_them() {
    for (caller, callee) in [
        (SrtpPolicy::Required, SrtpPolicy::Optional),
        (SrtpPolicy::Opportunistic, SrtpPolicy::Opportunistic),
        (SrtpPolicy::Opportunistic, SrtpPolicy::Required),
    ] {
        let (mut near, mut far) = (side(caller), side(callee));
        far.set_key_source([8; 32]);
        let (sdp, theirs) = answer(&mut far, &String::from_utf8(near.offer()).unwrap()).unwrap();
        let ours = accept(&mut near, &sdp.to_string()).unwrap().srtp.unwrap();
        let theirs = theirs.srtp.unwrap();
        assert_eq!((&ours.send, &ours.receive), (&theirs.receive, &theirs.send));
        let printed = format!("{ours:?}");
        assert!(!printed.contains(&ours.send.to_inline()) && printed.contains("***"));
    }
}

#[test]
fn without_a_source_of_keys_there_is_no_encryption_and_nothing_in_its_stead() {
    let capabilities = Capabilities { srtp: SrtpPolicy::Required, ..Capabilities::default() };
    let mut side = Negotiation::new(capabilities, "203.0.113.10:20000".parse().unwrap(), 16);
    assert!(crypto(&Sdp::parse(&side.offer()).unwrap()).is_empty());
    for text in [offer("RTP/AVP", &[]), offer("RTP/SAVP", &[&line(1, SHA80, KEY)])] {
        assert!(answer(&mut side, &text).is_err());
    }
}
