//! The vectors of the RFCs, packets of libsrtp, and what an attacker may try.

use super::transform::Aes;
use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octet = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(text, 16).expect("hexadecimal")
    };
    digits.chunks(2).map(octet).collect()
}

fn salt14(text: &str) -> [u8; 14] {
    hex(text).try_into().expect("14 octets")
}

#[test]
fn rfc_3711_b_2_and_rfc_6188_7_1_key_streams() {
    let mut iv = [0; 16];
    iv.copy_from_slice(&hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd0000"));
    for (key, expected) in [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab41e95b3bb0a2e8dd477901e4fca894c0",
        ),
        (
            "57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98",
            "92bdd28a93c3f52511c677d08b5515a49da71b2378a854f67050756ded165bac63c4868b7096d88421b563b8c94c9a31",
        ),
    ] {
        let mut stream = vec![0; 48];
        Aes::new(&hex(key)).expect("a key").keystream(iv, &mut stream);
        assert_eq!(stream, hex(expected));
    }
}

#[test]
fn rfc_3711_b_3_and_rfc_6188_7_4_key_derivation() {
    for (master, salt, key, session_salt, auth) in [
        (
            "e1f97a0d3e018be0d64fa32c06de4139",
            "0ec675ad498afeebb6960b3aabe6",
            "c61e7a93744f39ee10734afe3ff7a087",
            "30cbbc08863d8c85d49db34a9ae1",
            "cebe321f6ff7716b6fd4ab49af256a156d38baa4",
        ),
        (
            "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6",
            "3b04803de51ee7c96423ab5b78d2",
            "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4",
            "fa31791685ca444a9e07c6c64e93",
            "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05",
        ),
    ] {
        let master = Aes::new(&hex(master)).expect("a key");
        for (label, expected) in [(0, key), (1, auth), (2, session_salt)] {
            let mut derived = vec![0; expected.len() / 2];
            master.derive(&salt14(salt), label, &mut derived);
            assert_eq!(derived, hex(expected), "label {label}");
        }
    }
}

#[test]
fn rfc_7714_16_packets_of_rtp() {
    let plain = hex(
        "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573",
    );
    for (key, expected) in [
        (
            "000102030405060708090a0b0c0d0e0f",
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ] {
        let salt = hex("517569642070726f2071756f").try_into().expect("12 octets");
        let transform = Transform::galois(&hex(key), salt).expect("a key");
        let place = Place { ssrc: 0x5501_a0b2, index: 0xf17b, head: 12 };
        let mut packet = plain.clone();
        transform.seal(place, [0; 4], false, &mut packet);
        assert_eq!(packet, hex(expected));
        transform.open(place, [0; 4], false, &mut packet, &[]).expect("its own packet");
        assert_eq!(packet[..plain.len()], plain);
    }
}

#[test]
fn rfc_7714_17_packets_of_rtcp() {
    let plain = hex(
        "81c8000d4d617273 4e5450314e545032 525450200000042a 0000e9304c756e61 deadbeefdeadbeef deadbeefdeadbeef deadbeef",
    );
    let expected = "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4";
    let salt = hex("517569642070726f2071756f").try_into().expect("12 octets");
    let transform = Transform::galois(&hex("000102030405060708090a0b0c0d0e0f"), salt).expect("a key");
    let place = Place { ssrc: 0x4d61_7273, index: 0x5d4, head: 8 };
    let mut packet = plain;
    transform.seal(place, 0x8000_05d4_u32.to_be_bytes(), true, &mut packet);
    assert_eq!(packet, hex(expected));
}

const TEST_KEY: &str = "e1f97a0d3e018be0d64fa32c06de4139 0ec675ad498afeebb6960b3aabe6";
const TEST_KEY_256: &str =
    "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6 3b04803de51ee7c96423ab5b78d2";
const PLAIN: &str = "800f1234decafbadcafebabe abababababababababababababababab";
const PLAIN_RTCP: &str = "81c8000bcafebabe abababababababababababababababab";

fn same_both_ways(suite: Suite, octets: &str) -> SrtpSession {
    let key = MasterKey::of(suite, &hex(octets)).expect("a key of that length");
    SrtpSession::new(&SrtpKeys { suite, send: key.clone(), receive: key, mki: None }).expect("keys that fit")
}

#[test]
fn packets_are_those_of_libsrtp() {
    for (suite, key, expected) in [
        (
            Suite::AesCm128Sha80,
            TEST_KEY,
            "800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb",
        ),
        (Suite::AesCm128Sha32, TEST_KEY, "800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc"),
        (
            Suite::AesCm256Sha80,
            TEST_KEY_256,
            "800f1234decafbadcafebabef1d9de17ff251ff1aa007774b0b4b40da08d9d9a5b3a55d8873b",
        ),
    ] {
        let mut session = same_both_ways(suite, key);
        let mut packet = hex(PLAIN);
        session.protect(&mut packet);
        assert_eq!(packet, hex(expected), "{suite:?}");
        assert_eq!(session.unprotect(Instant::now(), &mut packet), Ok(&hex(PLAIN)[..]));
    }
    let mut session = same_both_ways(Suite::AesCm128Sha32, TEST_KEY);
    let mut packet = hex(PLAIN_RTCP);
    session.protect_rtcp(&mut packet);
    let expected = "81c8000bcafebabe7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798";
    assert_eq!(packet, hex(expected), "tags of RTCP are long");
    assert_eq!(session.unprotect_rtcp(Instant::now(), &mut packet), Ok(&hex(PLAIN_RTCP)[..]));
}

/// Two ends of a leg with fresh keys.
fn pair(suite: Suite, seed: u64) -> (SrtpSession, SrtpSession, SrtpKeys) {
    let mut rng = StdRng::seed_from_u64(seed);
    let keys = SrtpKeys {
        suite,
        send: MasterKey::fresh(suite, &mut rng),
        receive: MasterKey::fresh(suite, &mut rng),
        mki: None,
    };
    let far = mirrored(&keys);
    (SrtpSession::new(&keys).expect("fits"), SrtpSession::new(&far).expect("fits"), keys)
}

fn mirrored(keys: &SrtpKeys) -> SrtpKeys {
    SrtpKeys { send: keys.receive.clone(), receive: keys.send.clone(), ..keys.clone() }
}

fn packet(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 9]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[0x5a; 160]);
    packet
}

fn sealed(session: &mut SrtpSession, sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut octets = packet(sequence, ssrc);
    session.protect(&mut octets);
    octets
}

#[test]
fn every_suite_goes_around_the_world_three_times() {
    let now = Instant::now();
    for suite in Suite::ALL {
        let (mut near, mut far, _) = pair(suite, 1);
        for number in (0..3 * 65_536u32).step_by(7) {
            let sequence = number.wrapping_add(65_000) as u16;
            let mut octets = sealed(&mut near, sequence, 7);
            assert_eq!(octets.len(), 172 + suite.tag_len());
            assert_eq!(far.unprotect(now, &mut octets), Ok(&packet(sequence, 7)[..]), "{suite:?} {number}");
        }
        let mut report = hex(PLAIN_RTCP);
        far.protect_rtcp(&mut report);
        assert_eq!(near.unprotect_rtcp(now, &mut report), Ok(&hex(PLAIN_RTCP)[..]));
    }
}

#[test]
fn nothing_is_taken_twice_and_nothing_older_than_the_window() {
    let now = Instant::now();
    let (mut near, mut far, _) = pair(Suite::AesCm128Sha80, 2);
    let kept: Vec<Vec<u8>> = (0..200).map(|n| sealed(&mut near, 65_500u16.wrapping_add(n), 7)).collect();
    let mut take = |n: usize| far.unprotect(now, &mut kept[n].clone()).map(|_| ());
    assert_eq!(take(0), Ok(()));
    // Over the turn of the counter and out of order.
    for n in [50, 40, 36, 35, 100] {
        assert_eq!((take(n), take(n)), (Ok(()), Err(SrtpError::Replay)), "{n}");
    }
    assert_eq!(take(199), Ok(()));
    assert_eq!((take(72), take(71)), (Ok(()), Err(SrtpError::Replay)));
}

#[test]
fn a_changed_octet_anywhere_is_noticed_and_costs_nothing_later() {
    let now = Instant::now();
    for suite in Suite::ALL {
        let (mut near, mut far, _) = pair(suite, 3);
        let octets = sealed(&mut near, 9, 7);
        for at in 0..octets.len() {
            let mut bad = octets.clone();
            bad[at] ^= 0x10;
            assert!(far.unprotect(now, &mut bad).is_err(), "{suite:?} octet {at}");
            assert!(far.unprotect(now, &mut octets[..at].to_vec()).is_err());
        }
        assert!(far.unprotect(now, &mut octets.clone()).is_ok(), "no state was changed by the bad ones");
        let mut report = hex(PLAIN_RTCP);
        near.protect_rtcp(&mut report);
        for at in 0..report.len() {
            let mut bad = report.clone();
            bad[at] ^= 0x80;
            assert!(far.unprotect_rtcp(now, &mut bad).is_err(), "{suite:?} octet {at} of RTCP");
        }
        assert!(far.unprotect_rtcp(now, &mut report.clone()).is_ok());
        assert_eq!(far.unprotect_rtcp(now, &mut report), Err(SrtpError::Replay));
    }
}

#[test]
fn each_source_has_its_own_rollover_counter_and_the_table_is_bounded() {
    let now = Instant::now();
    let (mut near, mut far, _) = pair(Suite::AesCm128Sha80, 4);
    for ssrc in 0..50 {
        for sequence in [65_534, 65_535, 0, 1] {
            assert!(far.unprotect(now, &mut sealed(&mut near, sequence, ssrc)).is_ok(), "{ssrc} {sequence}");
        }
    }
    assert_eq!(far.receiver.sources.len(), SOURCES);
}

#[test]
fn the_same_key_goes_on_and_a_new_one_overlaps_the_old_for_two_seconds() {
    let now = Instant::now();
    for suite in [Suite::AesCm128Sha80, Suite::AeadAes256Gcm] {
        let (mut near, mut far, keys) = pair(suite, 5);
        for sequence in [65_535, 0] {
            assert!(far.unprotect(now, &mut sealed(&mut near, sequence, 7)).is_ok());
        }
        near.rekey(&keys, now).expect("fits");
        far.rekey(&mirrored(&keys), now).expect("fits");
        assert!(far.unprotect(now, &mut sealed(&mut near, 1, 7)).is_ok(), "the rollover counter was kept");

        let late = [sealed(&mut near, 2, 7), sealed(&mut near, 3, 7)];
        let send = MasterKey::fresh(suite, &mut StdRng::seed_from_u64(6));
        let changed = SrtpKeys { send, ..keys };
        near.rekey(&changed, now).expect("fits");
        far.rekey(&mirrored(&changed), now).expect("fits");
        assert!(far.unprotect(now, &mut sealed(&mut near, 4, 7)).is_ok());
        let within = now + Duration::from_millis(1_999);
        assert!(far.unprotect(within, &mut late[0].clone()).is_ok(), "{suite:?}");
        let after = now + Duration::from_secs(2);
        assert_eq!(far.unprotect(after, &mut late[1].clone()), Err(SrtpError::Authentication));
    }
}

#[test]
fn an_identifier_of_the_peer_is_expected_and_taken_off() {
    // As libsrtp puts it.
    let key = MasterKey::of(Suite::AesCm128Sha80, &hex(TEST_KEY)).expect("a key");
    let mki = Some(hex("e1f97a0d"));
    let keys = SrtpKeys { suite: Suite::AesCm128Sha80, send: key.clone(), receive: key, mki };
    let mut session = SrtpSession::new(&keys).expect("fits");
    let with = "800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402e1f97a0db78d6acc99ea179b8dbb";
    assert_eq!(session.unprotect(Instant::now(), &mut hex(with)), Ok(&hex(PLAIN)[..]));
    let other = with.replace("e1f97a0d", "e1f97a0e");
    assert!(session.unprotect(Instant::now(), &mut hex(&other)).is_err());
    let rtcp = "81c8000bcafebabe7128035be487b9bdbef89041f977a5a880000001e1f97a0d993e08cd54d6c1230798";
    assert_eq!(session.unprotect_rtcp(Instant::now(), &mut hex(rtcp)), Ok(&hex(PLAIN_RTCP)[..]));
}

#[test]
fn header_extensions_stay_readable_and_are_authenticated() {
    let (mut near, mut far, _) = pair(Suite::AeadAes128Gcm, 7);
    let mut octets = packet(1, 7);
    octets[0] |= 0x11;
    octets.splice(12..12, hex("00000009 bede0001 10ff0000"));
    let plain = octets.clone();
    near.protect(&mut octets);
    assert_eq!(octets[..24], plain[..24]);
    assert_eq!(far.unprotect(Instant::now(), &mut octets), Ok(&plain[..]));
}

#[test]
fn keys_are_read_and_written_as_sdes_does_and_never_printed() {
    let text = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
    let key = MasterKey::from_inline(text, Suite::AesCm128Sha80).expect("30 octets");
    assert_eq!(key.to_inline(), text);
    assert_eq!(format!("{key:?}"), "***");
    assert!(MasterKey::from_inline(text, Suite::AesCm256Sha80).is_none());
    assert!(MasterKey::from_inline("no base64!", Suite::AesCm128Sha80).is_none());
    let long = MasterKey::fresh(Suite::AesCm256Sha80, &mut StdRng::seed_from_u64(8));
    for padded in [long.to_inline(), long.to_inline().trim_end_matches('=').to_owned()] {
        assert_eq!(MasterKey::from_inline(&padded, Suite::AesCm256Sha80), Some(long.clone()));
    }
    let keys = SrtpKeys { suite: Suite::AesCm128Sha80, send: long.clone(), receive: long, mki: None };
    assert_eq!(SrtpSession::new(&keys).err(), Some(SrtpError::Keys));
}

proptest::proptest! {
    #[test]
    fn any_octets_are_taken_or_refused(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120), how in 0usize..6) {
        let (mut near, _, _) = pair(Suite::ALL[how], 9);
        let now = Instant::now();
        proptest::prop_assert!(near.unprotect(now, &mut octets.clone()).is_err());
        proptest::prop_assert!(near.unprotect_rtcp(now, &mut octets.clone()).is_err());
        let mut ours = octets.clone();
        near.protect(&mut ours);
        proptest::prop_assert!(ours.is_empty() || ours.len() > octets.len());
    }
}
