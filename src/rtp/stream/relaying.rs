//! Packets from one stream to another without decoding: two legs of one codec.
//!
//! Each leg stays a far end of its own: latch, keys, reports and numbers belong to the leg. What passes is
//! the payload, with its place in time. How a bridge uses it:
//!
//! 1. while `a.can_relay_to(b) && b.can_relay_to(a)` and nobody listens, poll both with
//!    [`RtpMedia::poll_relay`](crate::rtp::media::RtpMedia::poll_relay) (it parks the legs: no slots);
//! 2. else poll both with [`RtpMedia::poll`](crate::rtp::media::RtpMedia::poll) (it takes them back), and
//!    carry the audio from `take_audio` to `play_live`. Numbers and timestamps go on at every change;
//! 3. keys are told as [`StreamEvent::Dtmf`] in both modes; make them anew on the other leg only when
//!    not [`Stream::passes_keys_to`].

use std::net::SocketAddr;
use std::time::Instant;

use super::inbound::Passing;
use super::{Stream, StreamEvent};
use crate::rtp::relay::{Relayed, RelayedKind};

impl Stream {
    /// Whether packets of this stream may go out on `other` as they are: same codec and packet length, media
    /// may flow this way, nobody listens for tones, and `other` has nothing of its own to say.
    pub fn can_relay_to(&self, other: &Self) -> bool {
        let (from, to) = (&self.config, &other.config);
        let flows = from.direction.receive && to.may_send() && !from.inband_dtmf;
        let alike = from.codec == to.codec && from.ptime == to.ptime;
        let heard = self.inbound.listener.codec().is_none_or(|codec| codec == to.codec);
        flows && alike && heard && other.is_idle()
    }

    /// Whether telephone events of this stream reach the far end of `other` while packets are relayed.
    pub fn passes_keys_to(&self, other: &Self) -> bool {
        let clock = |stream: &Self| stream.config.telephone_event.map(|(_, clock)| clock);
        clock(self).is_some() && clock(self) == clock(other)
    }

    /// Begins (`true`) or ends a time in which packets are relayed and not heard: no slots are ticked, no
    /// silence is fed.
    pub fn park(&mut self, now: Instant, parked: bool) {
        if parked == self.parked {
            return;
        }
        self.parked = parked;
        if parked {
            self.inbound.park();
            self.outbound.playout.drop_live();
        } else {
            self.inbound.unpark(now);
            self.outbound.unpark(now, &self.config);
        }
    }

    /// Takes a datagram of the RTP socket that is to be relayed: authenticated, latched, counted and looked
    /// through for keys as any other. `None`: nothing to relay.
    pub fn relay_in<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a mut [u8],
    ) -> Option<Relayed<'a>> {
        let packet = self.admit(now, source, datagram)?;
        self.note_heard(now, source);
        let header = packet.header;
        let before = self.inbound.listener.codec();
        let passing = self.inbound.pass(now, packet)?;
        let Passing { kind, number, restarted, digit } = passing;
        if restarted {
            self.relay_epoch = self.relay_epoch.wrapping_add(1);
        }
        if !self.config.direction.receive {
            return None;
        }
        if let Some(digit) = digit {
            self.tell(StreamEvent::Dtmf { digit, method: crate::rtp::DtmfMethod::Rtp });
        }
        if let RelayedKind::Audio(codec) = kind
            && before.is_some_and(|before| before != codec)
        {
            self.tell(StreamEvent::CodecHeard { codec });
        }
        let (marker, timestamp, payload) = (header.marker, header.timestamp, packet.payload);
        Some(Relayed { kind, marker, number, timestamp, epoch: self.relay_epoch, payload })
    }

    /// Replaces `out` with a packet of the other leg as ours; says where it goes. `None`: it does not fit
    /// this leg, or nothing may be sent.
    pub fn relay_out(&mut self, now: Instant, packet: &Relayed<'_>, out: &mut Vec<u8>) -> Option<SocketAddr> {
        out.clear();
        let destination = self.config.may_send().then(|| self.rtp.destination())?;
        let fits = self.outbound.relay(now, &self.config, packet, out);
        if !fits || !self.may_reach(destination) || !self.guard.seal(out) {
            return None;
        }
        self.relayed += 1;
        Some(destination)
    }

    /// Packets of other legs that went out here.
    pub fn relayed(&self) -> u64 {
        self.relayed
    }
}
