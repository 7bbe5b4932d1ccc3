//! SRTP and SRTCP: any octets are refused without harm, and what one end protects the other reads as it was.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tandem::rtp::srtp::{MAX_OVERHEAD, MasterKey, SrtpKeys, SrtpSession, Suite};

fuzz_target!(|input: &[u8]| {
    let Some((&how, octets)) = input.split_first() else { return };
    let suite = Suite::ALL[usize::from(how) % Suite::ALL.len()];
    let mut rng = StdRng::seed_from_u64(u64::from(how));
    let keys = SrtpKeys {
        suite,
        send: MasterKey::fresh(suite, &mut rng),
        receive: MasterKey::fresh(suite, &mut rng),
        mki: (how & 0x40 != 0).then(|| vec![1, 2]),
    };
    let far = SrtpKeys { send: keys.receive.clone(), receive: keys.send.clone(), suite, mki: None };
    let mut near = SrtpSession::new(&keys).expect("keys of the suite");
    let mut far = SrtpSession::new(&far).expect("keys of the suite");
    let now = Instant::now();
    for packet in octets.split(|octet| *octet == 0xfe).take(8) {
        // A tag of 32 bits is guessed now and then.
        let opened = near.unprotect(now, &mut packet.to_vec()).is_ok();
        assert!(!opened || suite.tag_len() == 4, "nobody guesses a tag");
        assert!(near.unprotect_rtcp(now, &mut packet.to_vec()).is_err(), "nobody guesses a tag");
        let mut sealed = packet.to_vec();
        near.protect(&mut sealed);
        assert!(sealed.len() <= packet.len() + MAX_OVERHEAD);
        if !sealed.is_empty() {
            // A number far behind the highest is refused as too old, and nothing else is.
            if let Ok(opened) = far.unprotect(now, &mut sealed) {
                assert_eq!(opened, packet);
            }
        }
        let mut sealed = packet.to_vec();
        near.protect_rtcp(&mut sealed);
        if !sealed.is_empty() {
            assert_eq!(far.unprotect_rtcp(now, &mut sealed), Ok(packet));
        }
    }
});
