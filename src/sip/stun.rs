//! The answer to a STUN binding request on the SIP port: phones behind NAT keep their mapping open with it, and learn
//! the address we see them at (RFC 5626 section 3.5.2, RFC 8489 section 14.2).

use std::net::{IpAddr, SocketAddr};

/// Whether a datagram is STUN: its first two bits are zero, which no SIP message begins with.
pub(super) fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| *first < 4) && datagram.len() >= HEADER_BYTES
}

/// The answer to a binding request; `None` for anything else. A request with attributes we would have to understand
/// is not answered.
pub(super) fn answer(request: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let (head, attributes) = request.split_at_checked(HEADER_BYTES)?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let binding = head[..2] == BINDING_REQUEST && head[4..8] == COOKIE && length == attributes.len();
    if !binding || !all_optional(attributes) {
        return None;
    }
    let mut key = [0; 16];
    key.copy_from_slice(&head[4..]);
    let (family, mut address) = match source.ip().to_canonical() {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    address.iter_mut().zip(key).for_each(|(octet, mask)| *octet ^= mask);
    let port = source.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    let value_bytes = u16::try_from(4 + address.len()).ok()?;
    let mut answer = Vec::with_capacity(HEADER_BYTES + 8 + address.len());
    answer.extend(BINDING_SUCCESS);
    answer.extend((value_bytes + 4).to_be_bytes());
    answer.extend(key);
    answer.extend(XOR_MAPPED_ADDRESS);
    answer.extend(value_bytes.to_be_bytes());
    answer.extend([0, family]);
    answer.extend(port.to_be_bytes());
    answer.extend(address);
    Some(answer)
}

/// Attributes below 0x8000 must be understood (section 14); of those, software and the like never come.
fn all_optional(mut attributes: &[u8]) -> bool {
    while let Some((head, rest)) = attributes.split_at_checked(4) {
        let padded = usize::from(u16::from_be_bytes([head[2], head[3]])).next_multiple_of(4);
        if head[0] < 0x80 {
            return false;
        }
        attributes = rest.get(padded..).unwrap_or_default();
    }
    true
}

const HEADER_BYTES: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

#[cfg(test)]
mod tests {
    use super::*;

    /// Transaction id of the samples in RFC 5769.
    const ID: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn request(attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).expect("short").to_be_bytes();
        [&BINDING_REQUEST[..], &length, &COOKIE, &ID, attributes].concat()
    }

    #[test]
    fn the_address_is_told_as_in_rfc_5769() {
        let source = "192.0.2.1:32853".parse().expect("an address");
        let answer = answer(&request(&[]), source).expect("an answer");
        assert_eq!(answer[20..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let source = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().expect("an address");
        let v6 = super::answer(&request(&[]), source).expect("an answer");
        assert_eq!(v6[24..28], [0, 2, 0xa1, 0x47]);
        assert_eq!(v6[28..36], [0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79]);
    }

    #[test]
    fn nothing_but_a_plain_binding_request_is_answered() {
        let source = "192.0.2.1:5060".parse().expect("an address");
        assert!(answer(&request(&[0x80, 0x22, 0, 4, b'a', b'b', b'c', b'd']), source).is_some(), "software");
        let user = request(&[0x00, 0x06, 0, 4, b'a', b'b', b'c', b'd']);
        let mut short = request(&[]);
        short[3] = 4;
        let mut indication = request(&[]);
        indication[1] = 0x11;
        for other in [user, short, indication, vec![0; 20], vec![0, 1]] {
            assert_eq!(answer(&other, source), None, "{other:x?}");
        }
    }
}
