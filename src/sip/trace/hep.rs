//! HEP version 3, the encapsulation Homer's capture servers take
//! (<https://github.com/sipcapture/HEP/blob/master/docs/HEP3NetworkProtocolSpecification_REV26.pdf>).

use std::net::{IpAddr, SocketAddr};

use super::Kept;
use crate::sip::message::Transport;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture<'a> {
    /// The number of this agent at the collector.
    pub id: u32,
    /// The collector's password, if it wants one.
    pub password: Option<&'a str>,
}

/// One datagram for the collector; `None` when the message does not fit one.
pub fn encode(message: &Kept, capture: &Capture<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(message.bytes.len() + 256);
    out.extend_from_slice(b"HEP3\0\0");
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (local, remote) = (canonical(message.local), canonical(message.remote));
    let (from, to) = if message.outgoing { (local, remote) } else { (remote, local) };
    let protocol = if message.transport == Transport::Udp { 17 } else { 6 };
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            chunk(&mut out, FAMILY, &[2]);
            chunk(&mut out, PROTOCOL, &[protocol]);
            chunk(&mut out, SOURCE_V4, &from.octets());
            chunk(&mut out, DESTINATION_V4, &to.octets());
        }
        (from, to) => {
            let wide = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            chunk(&mut out, FAMILY, &[10]);
            chunk(&mut out, PROTOCOL, &[protocol]);
            chunk(&mut out, SOURCE_V6, &wide(from));
            chunk(&mut out, DESTINATION_V6, &wide(to));
        }
    }
    chunk(&mut out, SOURCE_PORT, &from.port().to_be_bytes());
    chunk(&mut out, DESTINATION_PORT, &to.port().to_be_bytes());
    let at_us = message.at_us.max(0).unsigned_abs();
    chunk(&mut out, SECONDS, &((at_us / 1_000_000) as u32).to_be_bytes());
    chunk(&mut out, MICROSECONDS, &((at_us % 1_000_000) as u32).to_be_bytes());
    chunk(&mut out, PROTOCOL_TYPE, &[SIP]);
    chunk(&mut out, CAPTURE_ID, &capture.id.to_be_bytes());
    if let Some(password) = capture.password {
        chunk(&mut out, AUTH_KEY, password.as_bytes());
    }
    if let Some(call_id) = message.call_id() {
        chunk(&mut out, CORRELATION, call_id.as_bytes());
    }
    if out.len() + 6 + message.bytes.len() > LARGEST_DATAGRAM {
        return None;
    }
    chunk(&mut out, PAYLOAD, &message.bytes);
    let length = u16::try_from(out.len()).ok()?;
    out[4..6].copy_from_slice(&length.to_be_bytes());
    Some(out)
}

/// Vendor 0, type, length with this header, value.
fn chunk(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&((6 + value.len()) as u16).to_be_bytes());
    out.extend_from_slice(value);
}

const FAMILY: u16 = 0x01;
const PROTOCOL: u16 = 0x02;
const SOURCE_V4: u16 = 0x03;
const DESTINATION_V4: u16 = 0x04;
const SOURCE_V6: u16 = 0x05;
const DESTINATION_V6: u16 = 0x06;
const SOURCE_PORT: u16 = 0x07;
const DESTINATION_PORT: u16 = 0x08;
const SECONDS: u16 = 0x09;
const MICROSECONDS: u16 = 0x0a;
const PROTOCOL_TYPE: u16 = 0x0b;
const CAPTURE_ID: u16 = 0x0c;
const AUTH_KEY: u16 = 0x0e;
const PAYLOAD: u16 = 0x0f;
const CORRELATION: u16 = 0x11;
/// Protocol type of SIP.
const SIP: u8 = 1;
const LARGEST_DATAGRAM: usize = 65_507;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_where_a_collector_looks() {
        let message = Kept {
            at_us: 1_790_000_000_000_123,
            outgoing: false,
            transport: Transport::Udp,
            local: "10.0.0.1:5060".parse().expect("an address"),
            remote: "10.0.0.2:5080".parse().expect("an address"),
            bytes: "OPTIONS sip:a SIP/2.0\r\nCall-ID: c1\r\n\r\n".into(),
            repeated: false,
        };
        let packet = encode(&message, &Capture { id: 2001, password: Some("pw") }).expect("it fits");
        assert_eq!(&packet[..4], b"HEP3");
        assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len());
        let mut found = Vec::new();
        let mut rest = &packet[6..];
        while rest.len() >= 6 {
            let length = usize::from(u16::from_be_bytes([rest[4], rest[5]]));
            found.push((rest[3], rest[6..length].to_vec()));
            rest = &rest[length..];
        }
        let value = |kind: u8| found.iter().find(|(k, _)| *k == kind).map(|(_, v)| v.as_slice());
        assert_eq!(value(1), Some(&[2][..]));
        assert_eq!(value(2), Some(&[17][..]));
        assert_eq!((value(3), value(4)), (Some(&[10, 0, 0, 2][..]), Some(&[10, 0, 0, 1][..])));
        assert_eq!(
            (value(7), value(8)),
            (Some(&5080u16.to_be_bytes()[..]), Some(&5060u16.to_be_bytes()[..]))
        );
        assert_eq!(value(9), Some(&1_790_000_000u32.to_be_bytes()[..]));
        assert_eq!(value(10), Some(&123u32.to_be_bytes()[..]));
        assert_eq!((value(11), value(12)), (Some(&[1][..]), Some(&2001u32.to_be_bytes()[..])));
        assert_eq!((value(14), value(17)), (Some(&b"pw"[..]), Some(&b"c1"[..])));
        assert_eq!(value(15), Some(&message.bytes[..]));
    }
}
