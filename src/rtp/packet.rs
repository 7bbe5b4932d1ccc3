//! The RTP header: RFC 3550 section 5.1, read without copying.

use thiserror::Error;

/// The fields of the fixed header that vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 0..=127.
    pub payload_type: u8,
    /// First packet of a talk-spurt or event.
    pub marker: bool,
    /// Rises by one per packet, modulo 2¹⁶.
    pub sequence: u16,
    /// In units of the payload's RTP clock, modulo 2³².
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
}

/// A received packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its header.
    pub header: Header,
    /// Its payload, without padding. May be empty (a keep-alive, RFC 6263).
    pub payload: &'a [u8],
}

/// Why bytes are no RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PacketError {
    /// Shorter than its own header says.
    #[error("{0} bytes do not hold the RTP header they announce")]
    Truncated(usize),
    /// Not version 2: STUN, DTLS, or noise.
    #[error("RTP version {0}, expected 2")]
    Version(u8),
    /// The padding count is zero or exceeds the payload.
    #[error("{count} bytes of padding in {payload} bytes of payload")]
    Padding {
        /// As announced by the last byte.
        count: usize,
        /// Bytes after the header.
        payload: usize,
    },
}

impl<'a> Packet<'a> {
    /// Reads one datagram.
    ///
    /// # Errors
    /// When version, CSRC list, extension or padding contradict the length.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, PacketError> {
        let truncated = PacketError::Truncated(datagram.len());
        let (fixed, mut rest) = datagram.split_first_chunk::<HEADER>().ok_or(truncated)?;
        let [flags, kind, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3] = *fixed;
        if flags >> 6 != VERSION {
            return Err(PacketError::Version(flags >> 6));
        }
        rest = rest.get(4 * usize::from(flags & 0x0f)..).ok_or(truncated)?;
        if flags & EXTENSION != 0 {
            let (&[_, _, high, low], after) = rest.split_first_chunk::<4>().ok_or(truncated)?;
            rest = after.get(4 * usize::from(u16::from_be_bytes([high, low]))..).ok_or(truncated)?;
        }
        if flags & PADDING != 0 {
            let count = usize::from(rest.last().copied().unwrap_or(0));
            if count == 0 || count > rest.len() {
                return Err(PacketError::Padding { count, payload: rest.len() });
            }
            rest = &rest[..rest.len() - count];
        }
        let header = Header {
            payload_type: kind & 0x7f,
            marker: kind & 0x80 != 0,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([r0, r1, r2, r3]),
        };
        Ok(Self { header, payload: rest })
    }
}

impl Header {
    /// Appends the twelve bytes of the header: no padding, no extension, no contributing sources.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION << 6);
        out.push(u8::from(self.marker) << 7 | self.payload_type & 0x7f);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
    }
}

/// Whether a datagram on a shared port is RTCP: RFC 5761 section 4.
pub fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [flags, 192..=223, ..] if flags >> 6 == VERSION)
}

/// The payload type of what may be RTP, by its first two octets; these are never encrypted.
pub fn payload_type(datagram: &[u8]) -> Option<u8> {
    match datagram {
        [flags, kind, ..] if flags >> 6 == VERSION => Some(kind & 0x7f),
        _ => None,
    }
}

/// Length of the fixed header in bytes.
pub const HEADER: usize = 12;
const VERSION: u8 = 2;
const PADDING: u8 = 0x20;
const EXTENSION: u8 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(flags: u8, after_header: &[u8]) -> Vec<u8> {
        let mut all = vec![flags, 0x80, 0, 9, 0, 0, 0, 160, 1, 2, 3, 4];
        all.extend_from_slice(after_header);
        all
    }

    #[test]
    fn reads_a_plain_packet() {
        let datagram = bytes(0x80, &[0xff; 160]);
        let packet = Packet::parse(&datagram).expect("valid");
        let header = Header { payload_type: 0, marker: true, sequence: 9, timestamp: 160, ssrc: 0x0102_0304 };
        assert_eq!((packet.header, packet.payload.len()), (header, 160));
    }

    #[test]
    fn skips_contributing_sources_and_extension_and_padding() {
        let datagram = bytes(0xb1, &[9, 9, 9, 9, 0xbe, 0xde, 0, 1, 7, 7, 7, 7, 42, 43, 0, 2]);
        assert_eq!(Packet::parse(&datagram).expect("valid").payload, [42, 43]);
    }

    #[test]
    fn refuses_what_contradicts_its_length() {
        for (flags, rest, error) in [
            (0x40, &[][..], PacketError::Version(1)),
            (0x8f, &[0; 59], PacketError::Truncated(71)),
            (0x90, &[0, 0, 0], PacketError::Truncated(15)),
            (0x90, &[0, 0, 0, 2, 1, 1, 1, 1], PacketError::Truncated(20)),
            (0xa0, &[1, 2, 4], PacketError::Padding { count: 4, payload: 3 }),
            (0xa0, &[1, 2, 0], PacketError::Padding { count: 0, payload: 3 }),
            (0xa0, &[], PacketError::Padding { count: 0, payload: 0 }),
        ] {
            assert_eq!(Packet::parse(&bytes(flags, rest)), Err(error));
        }
        assert_eq!(Packet::parse(&[0x80; 11]), Err(PacketError::Truncated(11)));
    }

    #[test]
    fn tells_rtcp_from_rtp_on_a_shared_port() {
        assert!(is_rtcp(&[0x81, 200, 0, 6]));
        assert!(!is_rtcp(&[0x80, 0, 0, 1]) && !is_rtcp(&[0x80, 0xe0 | 5]) && !is_rtcp(&[0x80]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            payload_type in 0u8..128, marker: bool, sequence: u16, timestamp: u32, ssrc: u32,
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let header = Header { payload_type, marker, sequence, timestamp, ssrc };
            let mut datagram = Vec::new();
            header.write(&mut datagram);
            datagram.extend_from_slice(&payload);
            let packet = Packet::parse(&datagram).expect("own packet");
            prop_assert_eq!((packet.header, packet.payload), (header, &payload[..]));
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(packet) = Packet::parse(&data) {
                prop_assert!(packet.payload.len() + HEADER <= data.len());
            }
        }
    }
}
