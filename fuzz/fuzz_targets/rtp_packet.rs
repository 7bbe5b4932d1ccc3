//! One datagram at a media port.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::rtp::packet::{Packet, is_rtcp};

fuzz_target!(|datagram: &[u8]| {
    let _ = is_rtcp(datagram);
    match Packet::parse(datagram) {
        Ok(packet) => {
            assert!(packet.payload.len() + 12 <= datagram.len());
            let mut out = Vec::new();
            packet.header.write(&mut out);
            out.extend_from_slice(packet.payload);
            assert_eq!(Packet::parse(&out), Ok(packet), "a written packet is read the same");
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
});
