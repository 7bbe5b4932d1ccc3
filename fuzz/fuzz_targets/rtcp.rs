//! One datagram at a control port.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::rtp::rtcp::{self, RtcpPacket};

fuzz_target!(|datagram: &[u8]| {
    let mut packets = 0;
    for packet in rtcp::parse(datagram) {
        packets += 1;
        match packet {
            RtcpPacket::SenderReport { blocks, .. } | RtcpPacket::ReceiverReport { blocks, .. } => {
                assert!(blocks.count() <= 31);
            }
            RtcpPacket::Description { cname, .. } => {
                assert!(cname.is_none_or(|name| name.len() <= 255));
            }
            RtcpPacket::Goodbye { .. } | RtcpPacket::Other(_) => {}
        }
    }
    assert!(packets <= datagram.len() / 4, "every packet has a header of its own");
});
