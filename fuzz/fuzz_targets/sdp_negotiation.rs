//! Offers and answers: what we say to an offer can be read, and a failed exchange changes nothing.
//!
//! The first octet chooses what we can do; a NUL octet separates one description from the next.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use tandem::audio::{Codec, SampleRate};
use tandem::sip::negotiation::{Capabilities, Negotiation, Preference};
use tandem::sip::sdp::Sdp;

fuzz_target!(|input: &[u8]| {
    let Some((&how, octets)) = input.split_first() else { return };
    let local: SocketAddr =
        if how & 1 == 0 { "192.0.2.200:4000" } else { "[2001:db8::1]:4000" }.parse().expect("an address");
    let peer: IpAddr = if how & 1 == 0 { "198.51.100.7" } else { "2001:db8::7" }.parse().expect("an address");
    let mut capabilities = Capabilities::default();
    if how & 2 != 0 {
        let l16 = Codec::L16(SampleRate::HZ_16000);
        capabilities.codecs = vec![Codec::Opus, Codec::G722, Codec::Pcma, Codec::Pcmu, l16];
    }
    if how & 4 != 0 {
        capabilities.preference = Preference::Ours;
    }
    capabilities.single_codec = how & 8 != 0;
    let mut negotiation = Negotiation::new(capabilities, local, 9);
    for (turn, text) in octets.split(|octet| *octet == 0).take(4).enumerate() {
        if let Ok(sdp) = Sdp::parse(text) {
            // Control octets are printed as spaces, which reading trims: the second printing is the last.
            let settled = reread(&sdp).to_bytes();
            let again = Sdp::parse(&settled).expect("a printed description can be read");
            assert_eq!(again.to_bytes(), settled);
        }
        let before = negotiation.plan().cloned();
        let result = if how & 16 != 0 && turn == 0 {
            Sdp::parse(&negotiation.offer()).expect("our offer can be read");
            negotiation.accept(text, peer)
        } else {
            negotiation.answer(text, peer)
        };
        match result {
            Ok(_) => {
                assert!(negotiation.plan().is_some());
                let sent = negotiation.sent().expect("something was sent");
                Sdp::parse(&sent).expect("what we send can be read");
            }
            Err(error) => {
                assert_eq!(negotiation.plan().cloned(), before, "a failed exchange changes nothing");
                let _ = (error.to_string(), error.warning_header("a"));
                negotiation.withdraw_offer();
            }
        }
    }
});

fn reread(sdp: &Sdp) -> Sdp {
    Sdp::parse(&sdp.to_bytes()).expect("a printed description can be read")
}
