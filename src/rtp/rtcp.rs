//! RTCP: sender and receiver reports, source description and goodbye (RFC 3550 section 6).
//!
//! Reading is tolerant: unknown packet types are passed over, and a compound packet is used up to its
//! first contradiction. Writing always makes a valid compound packet.

use std::time::Duration;

/// One packet of a compound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtcpPacket<'a> {
    /// SR: what the sender sent, and what it received.
    SenderReport {
        /// Who reports.
        ssrc: u32,
        /// Its sending side.
        sender: SenderInfo,
        /// Its receiving side.
        blocks: Blocks<'a>,
    },
    /// RR: what a party that sends nothing received.
    ReceiverReport {
        /// Who reports.
        ssrc: u32,
        /// Its receiving side.
        blocks: Blocks<'a>,
    },
    /// SDES: the first chunk's source and CNAME, if it has one.
    Description {
        /// Who describes itself.
        ssrc: u32,
        /// Canonical name, as bytes.
        cname: Option<&'a [u8]>,
    },
    /// BYE: the first source that leaves.
    Goodbye {
        /// Who leaves.
        ssrc: u32,
    },
    /// Another type, such as APP, XR or feedback.
    Other(u8),
}

/// The sending side of an SR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// NTP time, 32.32 fixed point.
    pub ntp: u64,
    /// The same moment on the RTP clock.
    pub timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
}

/// What a party received of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Loss since its previous report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all; negative when duplicates exceed losses. 24 bits on the wire.
    pub cumulative_lost: i32,
    /// Highest sequence number, with its cycles.
    pub highest_sequence: u32,
    /// Interarrival jitter in units of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last SR received from the source; 0 if none.
    pub last_sr: u32,
    /// Time between receiving that SR and sending this report, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// The report blocks of one SR or RR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks<'a>(&'a [u8]);

impl Iterator for Blocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.0.split_first_chunk::<BLOCK>()?;
        self.0 = rest;
        let lost = u32_at(block, 4);
        Some(ReportBlock {
            ssrc: u32_at(block, 0),
            fraction_lost: block[4],
            // Sign-extended from 24 bits.
            cumulative_lost: ((lost << 8) as i32) >> 8,
            highest_sequence: u32_at(block, 8),
            jitter: u32_at(block, 12),
            last_sr: u32_at(block, 16),
            delay_since_last_sr: u32_at(block, 20),
        })
    }
}

/// The packets of a datagram, as far as it makes sense.
pub fn parse(datagram: &[u8]) -> Compound<'_> {
    Compound(datagram)
}

/// See [`parse`].
#[derive(Debug, Clone, Copy)]
pub struct Compound<'a>(&'a [u8]);

impl<'a> Iterator for Compound<'a> {
    type Item = RtcpPacket<'a>;

    fn next(&mut self) -> Option<RtcpPacket<'a>> {
        let (&[flags, kind, high, low], _) = self.0.split_first_chunk::<4>()?;
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        if flags >> 6 != 2 || length > self.0.len() {
            self.0 = &[];
            return None;
        }
        let (packet, rest) = self.0.split_at(length);
        self.0 = rest;
        let packet = read(kind, usize::from(flags & 0x1f), &packet[4..]);
        if packet.is_none() {
            self.0 = &[];
        }
        packet
    }
}

fn read(kind: u8, count: usize, body: &[u8]) -> Option<RtcpPacket<'_>> {
    if !(SR..=BYE).contains(&kind) {
        return Some(RtcpPacket::Other(kind));
    }
    if body.len() < 4 {
        // A BYE or SDES may name no source at all.
        return (count == 0).then_some(RtcpPacket::Other(kind));
    }
    let ssrc = u32_at(body, 0);
    match kind {
        SR => {
            let info = body.get(4..24)?;
            let ntp = u64::from(u32_at(info, 0)) << 32 | u64::from(u32_at(info, 4));
            let sender = SenderInfo {
                ntp,
                timestamp: u32_at(info, 8),
                packets: u32_at(info, 12),
                octets: u32_at(info, 16),
            };
            let blocks = Blocks(body.get(24..24 + BLOCK * count)?);
            Some(RtcpPacket::SenderReport { ssrc, sender, blocks })
        }
        RR => {
            let blocks = Blocks(body.get(4..4 + BLOCK * count)?);
            Some(RtcpPacket::ReceiverReport { ssrc, blocks })
        }
        SDES => Some(RtcpPacket::Description { ssrc, cname: cname(&body[4..]) }),
        _ => Some(RtcpPacket::Goodbye { ssrc }),
    }
}

fn cname(mut items: &[u8]) -> Option<&[u8]> {
    while let &[kind, length, ref rest @ ..] = items {
        if kind == 0 {
            return None;
        }
        let text = rest.get(..usize::from(length))?;
        if kind == CNAME {
            return Some(text);
        }
        items = &rest[usize::from(length)..];
    }
    None
}

/// What goes into a compound packet of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report<'a> {
    /// Our synchronization source.
    pub ssrc: u32,
    /// Our sending side; `None` makes a receiver report.
    pub sender: Option<SenderInfo>,
    /// Our receiving side, if we have received anything.
    pub block: Option<ReportBlock>,
    /// Our canonical name; cut to 255 bytes.
    pub cname: &'a str,
    /// Whether we leave.
    pub goodbye: bool,
}

impl Report<'_> {
    /// Appends the compound packet: SR or RR, SDES, and BYE if we leave.
    pub fn write(&self, out: &mut Vec<u8>) {
        let count = u8::from(self.block.is_some());
        let kind = if self.sender.is_some() { SR } else { RR };
        let words = 1 + if self.sender.is_some() { 5 } else { 0 } + 6 * u16::from(count);
        head(out, count, kind, words);
        put(out, self.ssrc);
        if let Some(sender) = &self.sender {
            out.extend_from_slice(&sender.ntp.to_be_bytes());
            put(out, sender.timestamp);
            put(out, sender.packets);
            put(out, sender.octets);
        }
        if let Some(block) = &self.block {
            write_block(out, block);
        }
        let cname = &self.cname.as_bytes()[..self.cname.len().min(255)];
        // Source, two bytes of item head, text, at least one zero, to a multiple of four.
        let words = 1 + (2 + cname.len()) / 4 + 1;
        head(out, 1, SDES, words as u16);
        let end = out.len() + 4 * words;
        put(out, self.ssrc);
        out.push(CNAME);
        out.push(cname.len() as u8);
        out.extend_from_slice(cname);
        out.resize(end, 0);
        if self.goodbye {
            head(out, 1, BYE, 1);
            put(out, self.ssrc);
        }
    }
}

fn write_block(out: &mut Vec<u8>, block: &ReportBlock) {
    put(out, block.ssrc);
    let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
    put(out, u32::from(block.fraction_lost) << 24 | lost);
    put(out, block.highest_sequence);
    put(out, block.jitter);
    put(out, block.last_sr);
    put(out, block.delay_since_last_sr);
}

/// NTP time, 32.32 fixed point, of a time since 1970.
pub fn ntp(since_1970: Duration) -> u64 {
    let seconds = since_1970.as_secs().wrapping_add(SECONDS_1900_TO_1970);
    let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
    (seconds << 32) | fraction
}

/// The middle 32 bits of an NTP time, as in LSR.
pub fn compact(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// A span in units of 1/65536 s, as in DLSR.
pub fn compact_span(span: Duration) -> u32 {
    u32::try_from((span.as_micros() << 16) / 1_000_000).unwrap_or(u32::MAX)
}

/// The span that `units` of 1/65536 s are.
pub fn span(units: u32) -> Duration {
    Duration::from_micros((u64::from(units) * 1_000_000) >> 16)
}

fn head(out: &mut Vec<u8>, count: u8, kind: u8, words: u16) {
    out.extend_from_slice(&[0x80 | count, kind]);
    out.extend_from_slice(&words.to_be_bytes());
}

fn put(out: &mut Vec<u8>, word: u32) {
    out.extend_from_slice(&word.to_be_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;
const CNAME: u8 = 1;
const BLOCK: usize = 24;
const SECONDS_1900_TO_1970: u64 = 2_208_988_800;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block() -> ReportBlock {
        ReportBlock {
            ssrc: 0xaabb_ccdd,
            fraction_lost: 12,
            cumulative_lost: -3,
            highest_sequence: 0x1_0005,
            jitter: 40,
            last_sr: 5,
            delay_since_last_sr: 65_536,
        }
    }

    #[test]
    fn a_compound_is_read_as_written() {
        let sender = SenderInfo { ntp: 0x0102_0304_0506_0708, timestamp: 160, packets: 3, octets: 480 };
        let report =
            Report { ssrc: 9, sender: Some(sender), block: Some(block()), cname: "abcde", goodbye: true };
        let mut out = Vec::new();
        report.write(&mut out);
        assert_eq!(out.len() % 4, 0);
        let packets: Vec<_> = parse(&out).collect();
        let [RtcpPacket::SenderReport { ssrc: 9, sender: read, mut blocks }, description, goodbye] =
            packets[..]
        else {
            panic!("{packets:?}");
        };
        assert_eq!((read, blocks.next(), blocks.next()), (sender, Some(block()), None));
        assert_eq!(description, RtcpPacket::Description { ssrc: 9, cname: Some(b"abcde") });
        assert_eq!(goodbye, RtcpPacket::Goodbye { ssrc: 9 });
    }

    #[test]
    fn names_of_any_length_keep_the_compound_aligned() {
        for length in 0..300 {
            let cname = "x".repeat(length);
            let mut out = Vec::new();
            Report { ssrc: 1, sender: None, block: None, cname: &cname, goodbye: false }.write(&mut out);
            let packets: Vec<_> = parse(&out).collect();
            assert_eq!(packets.len(), 2, "{length}");
            let wanted = &cname.as_bytes()[..length.min(255)];
            assert_eq!(packets[1], RtcpPacket::Description { ssrc: 1, cname: Some(wanted) });
            // At least one zero ends the item list.
            assert_eq!(out.last(), Some(&0));
        }
    }

    #[test]
    fn a_compound_is_used_up_to_its_first_contradiction() {
        let mut out = Vec::new();
        Report { ssrc: 1, sender: None, block: None, cname: "a", goodbye: false }.write(&mut out);
        let good = parse(&out).count();
        out.extend_from_slice(&[0x81, 200, 0, 1, 0, 0, 0, 1, 0x80, 203, 0, 0]);
        assert_eq!(parse(&out).count(), good);
        assert_eq!(parse(&[0x80, 207, 0, 0]).collect::<Vec<_>>(), [RtcpPacket::Other(207)]);
        assert_eq!(parse(&[0x80, 203, 0, 9]).count(), 0);
    }

    #[test]
    fn ntp_times_are_what_the_rfc_says() {
        assert_eq!(ntp(Duration::ZERO) >> 32, 2_208_988_800);
        assert_eq!(ntp(Duration::from_millis(500)) as u32, 0x8000_0000);
        assert_eq!(compact_span(Duration::from_millis(1500)), 98_304);
        assert_eq!(span(98_304), Duration::from_millis(1500));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_passed_over(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            for packet in parse(&data) {
                if let RtcpPacket::SenderReport { blocks, .. } | RtcpPacket::ReceiverReport { blocks, .. } = packet {
                    prop_assert!(blocks.count() <= 31);
                }
            }
        }
    }
}
