//! RTCP of one stream: when to report, what was reported to us.

use std::time::{Duration, Instant};

use crate::rtp::rtcp::{self, ReportBlock, RtcpPacket};

/// What RTCP has told, and when we speak next.
#[derive(Debug)]
pub(super) struct Reports {
    /// When the next report of ours is due.
    next: Instant,
    /// State of the generator that spreads the intervals.
    random: u64,
    /// Compact NTP time of the peer's last SR, and when it came.
    last_sr: Option<(u32, Instant)>,
    /// Packets we had sent at the previous report.
    sent_before: u64,
    pub(super) round_trip: Option<Duration>,
    /// Lost of our packets, and the highest sequence number the peer saw.
    pub(super) peer: Option<ReportBlock>,
    pub(super) goodbye: bool,
    /// Of our packets, in percent: rises with a report at once and falls slowly.
    loss: u8,
}

impl Reports {
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        let mut reports = Self {
            next: now,
            random: seed,
            last_sr: None,
            sent_before: 0,
            round_trip: None,
            peer: None,
            goodbye: false,
            loss: 0,
        };
        // The first interval is half as long (RFC 3550 6.2).
        reports.next = now + reports.interval() / 2;
        reports
    }

    pub(super) fn next_timeout(&self) -> Instant {
        self.next
    }

    /// Whether a report is due; if so the next one is scheduled.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.interval();
        }
        due
    }

    /// Whether we have sent since the previous report; asks once per report.
    pub(super) fn is_sender(&mut self, packets: u64) -> bool {
        std::mem::replace(&mut self.sent_before, packets) != packets
    }

    /// LSR and DLSR at `now`.
    pub(super) fn last_sr(&self, now: Instant) -> (u32, u32) {
        self.last_sr
            .map_or((0, 0), |(lsr, at)| (lsr, rtcp::compact_span(now.saturating_duration_since(at)).max(1)))
    }

    /// Takes one packet of a compound that came at `now`, which is `ntp` on our NTP clock.
    pub(super) fn receive(&mut self, now: Instant, ntp: u64, ours: u32, packet: RtcpPacket<'_>) {
        let mut blocks = match packet {
            RtcpPacket::SenderReport { sender, blocks, .. } => {
                self.last_sr = Some((rtcp::compact(sender.ntp), now));
                blocks
            }
            RtcpPacket::ReceiverReport { blocks, .. } => blocks,
            RtcpPacket::Goodbye { .. } => {
                self.goodbye = true;
                return;
            }
            RtcpPacket::Description { .. } | RtcpPacket::Other(_) => return,
        };
        let Some(block) = blocks.find(|block| block.ssrc == ours) else { return };
        if block.last_sr != 0 {
            let units =
                rtcp::compact(ntp).wrapping_sub(block.last_sr).wrapping_sub(block.delay_since_last_sr);
            let trip = rtcp::span(units);
            // Nonsense from a peer that counts wrongly would come out as hours.
            if trip < LONGEST_TRIP {
                self.round_trip = Some(trip);
            }
        }
        let reported = (u16::from(block.fraction_lost) * 100).div_ceil(256) as u8;
        self.loss = reported.max(self.loss / 4 * 3);
        self.peer = Some(block);
    }

    /// Share of our packets that the far end has been missing, in percent.
    pub(super) fn loss(&self) -> u8 {
        self.loss
    }

    /// 5 s, give or take half (RFC 3550 6.2 and 6.3.1).
    fn interval(&mut self) -> Duration {
        // SplitMix64: only has to keep streams from reporting in step.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis(2_500 + (mixed ^ mixed >> 31) % 5_001)
    }
}

const LONGEST_TRIP: Duration = Duration::from_secs(30);
