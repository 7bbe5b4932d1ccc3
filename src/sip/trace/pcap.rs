//! A capture file of kept messages: classic pcap with raw IP packets (LINKTYPE_RAW), for Wireshark.
//!
//! The packets are made up around the octets of each message: addresses, ports and times are the true ones, and the
//! checksums are right. Messages of streams become TCP segments in sequence; those of TLS are shown as they were before
//! encryption, because that is what one wants to read.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::Kept;
use crate::sip::message::Transport;

/// The content of a capture file, messages in the order of their times.
pub fn write<'a>(messages: impl IntoIterator<Item = &'a Kept>) -> Vec<u8> {
    let mut messages: Vec<&Kept> = messages.into_iter().collect();
    messages.sort_by_key(|message| message.at_us);
    let mut out = Vec::new();
    out.extend_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
    out.extend_from_slice(&2u16.to_le_bytes());
    out.extend_from_slice(&4u16.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&SNAP_LENGTH.to_le_bytes());
    out.extend_from_slice(&LINKTYPE_RAW.to_le_bytes());
    let mut sequences = Sequences::default();
    for message in messages {
        if message.transport == Transport::Udp {
            let (from, to) = ends(message);
            record(&mut out, message.at_us, &ip(from.ip(), to.ip(), UDP, udp(from, to, &message.bytes)));
        } else {
            for chunk in message.bytes.chunks(TCP_CHUNK) {
                let segment = sequences.segment(message, chunk);
                let (from, to) = ends(message);
                record(&mut out, message.at_us, &ip(from.ip(), to.ip(), TCP, segment));
            }
        }
    }
    out
}

/// Sender and receiver. A capture cannot mix address families in one packet; a mapped address becomes what it maps.
fn ends(message: &Kept) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (local, remote) = (canonical(message.local), canonical(message.remote));
    if message.outgoing { (local, remote) } else { (remote, local) }
}

fn record(out: &mut Vec<u8>, at_us: i64, packet: &[u8]) {
    let at_us = at_us.max(0).unsigned_abs();
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    // Seconds of the format are 32 bits, which ends in 2106.
    for word in [(at_us / 1_000_000) as u32, (at_us % 1_000_000) as u32, length, length] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(packet);
}

/// Next octet numbers by direction.
#[derive(Default)]
struct Sequences(HashMap<(SocketAddr, SocketAddr), u32>);

impl Sequences {
    fn segment(&mut self, message: &Kept, payload: &[u8]) -> Segment {
        let (from, to) = ends(message);
        let acknowledged = self.0.get(&(to, from)).copied().unwrap_or(1);
        let sequence = self.0.entry((from, to)).or_insert(1);
        let mut bytes = Vec::with_capacity(20 + payload.len());
        bytes.extend_from_slice(&from.port().to_be_bytes());
        bytes.extend_from_slice(&to.port().to_be_bytes());
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(&acknowledged.to_be_bytes());
        // Five words of header, PSH and ACK, an open window, no checksum yet, nothing urgent.
        bytes.extend_from_slice(&[0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend_from_slice(payload);
        *sequence = sequence.wrapping_add(payload.len() as u32);
        Segment { bytes, checksum_at: 16 }
    }
}

/// A transport header with its payload.
struct Segment {
    bytes: Vec<u8>,
    checksum_at: usize,
}

fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Segment {
    let payload = &payload[..payload.len().min(LARGEST_DATAGRAM)];
    let mut bytes = Vec::with_capacity(8 + payload.len());
    bytes.extend_from_slice(&from.port().to_be_bytes());
    bytes.extend_from_slice(&to.port().to_be_bytes());
    bytes.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(payload);
    Segment { bytes, checksum_at: 6 }
}

fn ip(from: IpAddr, to: IpAddr, protocol: u8, mut segment: Segment) -> Vec<u8> {
    let length = segment.bytes.len();
    let mut pseudo = Vec::with_capacity(40);
    let mut packet = Vec::with_capacity(40 + length);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            pseudo.extend_from_slice(&from.octets());
            pseudo.extend_from_slice(&to.octets());
            packet.extend_from_slice(&[0x45, 0]);
            packet.extend_from_slice(&((20 + length) as u16).to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend_from_slice(&pseudo);
            let sum = checksum(&[&packet]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (from, to) => {
            let wide = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            pseudo.extend_from_slice(&wide(from));
            pseudo.extend_from_slice(&wide(to));
            packet.extend_from_slice(&[0x60, 0, 0, 0]);
            packet.extend_from_slice(&(length as u16).to_be_bytes());
            packet.extend_from_slice(&[protocol, 64]);
            packet.extend_from_slice(&pseudo);
        }
    }
    pseudo.extend_from_slice(&(length as u32).to_be_bytes());
    pseudo.extend_from_slice(&[0, 0, 0, protocol]);
    let sum = match checksum(&[&pseudo, &segment.bytes]) {
        // A datagram's 0 would mean that there is none (RFC 768).
        0 if protocol == UDP => 0xffff,
        sum => sum,
    };
    segment.bytes[segment.checksum_at..segment.checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&segment.bytes);
    packet
}

/// RFC 1071. Each part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

const LINKTYPE_RAW: u32 = 101;
const SNAP_LENGTH: u32 = 262_144;
const UDP: u8 = 17;
const TCP: u8 = 6;
/// What fits an IPv4 packet behind both headers.
const LARGEST_DATAGRAM: usize = 65_507;
/// Far below what fits, and a number readers of captures are used to.
const TCP_CHUNK: usize = 32_768;

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(transport: Transport, local: &str, remote: &str, text: &'static str) -> Kept {
        Kept {
            at_us: 1_790_000_000_000_123,
            outgoing: true,
            transport,
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
            bytes: text.into(),
            repeated: false,
        }
    }

    #[test]
    fn a_datagram_has_true_addresses_and_right_checksums() {
        let file = write([&kept(Transport::Udp, "10.0.0.1:5060", "10.0.0.2:5080", "abc")]);
        assert_eq!(file.len(), 24 + 16 + 20 + 8 + 3);
        let packet = &file[40..];
        assert_eq!(checksum(&[&packet[..20]]), 0, "the header's sum");
        let pseudo = [&packet[12..20], &[0, 0, 0, 11, 0, 0, 0, 17]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0, "the datagram's sum");
        assert_eq!(&packet[20..24], &[19, 196, 19, 216]);
        assert_eq!(&file[24..32], &[(1_790_000_000_u32).to_le_bytes(), (123u32).to_le_bytes()].concat());
    }

    #[test]
    fn segments_of_a_stream_follow_each_other() {
        let mut back = kept(Transport::Tls, "[::1]:5061", "[::1]:40000", "de");
        back.outgoing = false;
        let first = kept(Transport::Tls, "[::1]:5061", "[::1]:40000", "abc");
        let file = write([&first, &back, &first]);
        let size = 16 + 40 + 20;
        let tcp = |n: usize| &file[24 + n..][56..];
        let numbers =
            |n: usize| [&tcp(n)[4..8], &tcp(n)[8..12]].map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        assert_eq!(numbers(0), [1, 1]);
        assert_eq!(numbers(size + 3), [1, 4]);
        assert_eq!(numbers(2 * size + 5), [4, 3]);
    }
}
