//! Packets that go from one leg to the other as they are.

use crate::audio::Codec;

/// A packet on its way from one [`Stream`](crate::rtp::Stream) to another: already authenticated, counted
/// and in the clear. Made by `Stream::relay_in`, written by `Stream::relay_out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed<'a> {
    /// What it carries.
    pub kind: RelayedKind,
    /// First packet of a talk-spurt or event.
    pub marker: bool,
    /// The source's number, extended beyond 16 bits.
    pub number: u64,
    /// The source's timestamp.
    pub timestamp: u32,
    /// Counts up when the source or its numbering begins anew: numbers and timestamps do not compare.
    pub epoch: u32,
    /// Without padding and header extension.
    pub payload: &'a [u8],
}

/// What a relayed packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayedKind {
    /// Audio of this codec.
    Audio(Codec),
    /// A telephone event of this clock rate.
    Event(u32),
    /// Comfort noise.
    ComfortNoise,
}

/// Gives the packets of another source places in a stream of ours, whose numbers and timestamps go on.
#[derive(Debug, Default)]
pub struct Rewriter {
    map: Option<Map>,
}

#[derive(Debug, Clone, Copy)]
struct Map {
    epoch: u32,
    /// Numbers below have no place: they belong to what was sent before.
    floor: u64,
    /// `number` has `sequence`.
    number: u64,
    sequence: u16,
    /// Ours minus theirs.
    offset: u32,
}

impl Rewriter {
    /// Whether packets of this epoch have places already.
    pub fn knows(&self, packet: &Relayed<'_>) -> bool {
        self.map.is_some_and(|map| map.epoch == packet.epoch)
    }

    /// Gives `packet` the next place of ours, and those after it the places that follow.
    pub fn begin(&mut self, packet: &Relayed<'_>, sequence: u16, timestamp: u32) {
        self.map = Some(Map {
            epoch: packet.epoch,
            floor: packet.number,
            number: packet.number,
            sequence,
            offset: timestamp.wrapping_sub(packet.timestamp),
        });
    }

    /// Sequence number and timestamp for a packet; `None` when it comes too late to have one.
    pub fn place(&self, packet: &Relayed<'_>) -> Option<(u16, u32)> {
        let map = self.map.filter(|map| map.epoch == packet.epoch && packet.number >= map.floor)?;
        let sequence = map.sequence.wrapping_add(packet.number.wrapping_sub(map.number) as u16);
        Some((sequence, packet.timestamp.wrapping_add(map.offset)))
    }

    /// Leaves a packet out on purpose: the far end shall see no loss, so the next one takes its place.
    pub fn leave_out(&mut self, packet: &Relayed<'_>) {
        let Some((sequence, _)) = self.place(packet) else { return };
        if let Some(map) = &mut self.map {
            (map.number, map.sequence) = (packet.number + 1, sequence);
            map.floor = packet.number + 1;
        }
    }

    /// Something else was sent: the next packet begins anew.
    pub fn forget(&mut self) {
        self.map = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(number: u64) -> Relayed<'static> {
        let timestamp = (number as u32).wrapping_mul(160);
        let kind = RelayedKind::Audio(Codec::Pcmu);
        Relayed { kind, marker: false, number, timestamp, epoch: 1, payload: &[] }
    }

    #[test]
    fn order_gaps_and_pauses_are_passed_on() {
        let mut rewriter = Rewriter::default();
        rewriter.begin(&packet(70_000), 65_534, 5);
        for (number, sequence) in [(70_000, 65_534), (70_001, 65_535), (70_004, 2), (70_003, 1)] {
            let timestamp = 5u32.wrapping_add((number - 70_000) * 160);
            assert_eq!(rewriter.place(&packet(number.into())), Some((sequence, timestamp)));
        }
        assert_eq!(rewriter.place(&packet(69_999)), None, "sent before by somebody else");
        assert_eq!(rewriter.place(&Relayed { epoch: 2, ..packet(70_005) }), None);
    }

    #[test]
    fn what_is_left_out_leaves_no_hole() {
        let mut rewriter = Rewriter::default();
        rewriter.begin(&packet(100), 7, 0);
        rewriter.leave_out(&packet(101));
        assert_eq!(rewriter.place(&packet(102)), Some((8, 320)));
        assert_eq!(rewriter.place(&packet(100)), None);
        rewriter.forget();
        assert!(!rewriter.knows(&packet(103)));
    }
}
