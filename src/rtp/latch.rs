//! Symmetric RTP without RTPBleed (RFC 7362, RFC 4961): which source address is the far end.
//!
//! Behind NAT the far end sends from another address than its SDP says, so the stream must follow the
//! packets; but whoever follows any packet hands calls to strangers. The rule here:
//!
//! * the signalled address is believed at once;
//! * another address is believed only if policy allows its network (the SDP address itself, and
//!   [`LatchPolicy::allowed`]: signalling source, trunk's media networks) and it sends
//!   [`LatchPolicy::packets`] consistent packets: one SSRC, rising sequence numbers, negotiated types;
//! * then it is locked. It moves again only after new signalling, or when the locked source has been
//!   silent for [`LatchPolicy::relatch_after`] and the same SSRC shows up elsewhere (NAT rebinding).
//!
//! Everything else is foreign: counted, never heard, never answered.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// Who may be the far end besides the signalled address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatchPolicy {
    /// Follow packets at all. `false`: only the signalled address is heard and sent to. Default `true`.
    pub symmetric: bool,
    /// Networks that media may come from. The host of the signalled address always may. Default none.
    pub allowed: Vec<IpNet>,
    /// Consistent packets needed before an unsignalled source is believed. Default 2.
    pub packets: u32,
    /// Silence of the locked source after which the same SSRC may come from elsewhere. Default 1 s.
    pub relatch_after: Duration,
}

impl Default for LatchPolicy {
    fn default() -> Self {
        Self { symmetric: true, allowed: Vec::new(), packets: 2, relatch_after: Duration::from_secs(1) }
    }
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the far end's.
    Accept,
    /// It is the far end's, which has just been found at this address.
    AcceptAndLatch,
    /// Perhaps; not before it has sent more. Drop this packet.
    Wait,
    /// A stranger's. Drop and count it.
    Foreign,
}

/// Finds and remembers the far end's source address.
#[derive(Debug)]
pub struct Latch {
    policy: LatchPolicy,
    signalled: SocketAddr,
    locked: Option<Locked>,
    /// Where the far end was before signalling moved it, and since when it is heard from there all the same.
    former: Option<(SocketAddr, Option<Instant>)>,
    candidate: Option<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Locked {
    source: SocketAddr,
    ssrc: u32,
    last: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    source: SocketAddr,
    ssrc: u32,
    sequence: u16,
    seen: u32,
}

impl Latch {
    /// Waits for the far end at `signalled`.
    pub fn new(policy: LatchPolicy, signalled: SocketAddr) -> Self {
        Self { policy, signalled: canonical(signalled), locked: None, former: None, candidate: None }
    }

    /// Takes new signalling. The lock is kept if the address is the same, so that a session refresh
    /// does not open the door to somebody else; and if it is unspecified (`0.0.0.0`, the old way to say
    /// hold), because that names nobody new.
    pub fn reconfigure(&mut self, policy: LatchPolicy, signalled: SocketAddr) {
        let signalled = if signalled.ip().is_unspecified() { self.signalled } else { canonical(signalled) };
        if signalled != self.signalled || !policy.symmetric {
            self.former = self.locked.take().map(|locked| (locked.source, None));
        }
        self.candidate = None;
        self.signalled = signalled;
        self.policy = policy;
    }

    /// The locked source, if the far end has been heard.
    pub fn source(&self) -> Option<SocketAddr> {
        self.locked.map(|l| l.source)
    }

    /// Where to send: the locked source, before that the signalled address.
    pub fn destination(&self) -> SocketAddr {
        self.source().unwrap_or(self.signalled)
    }

    /// Judges a well-formed packet with a negotiated payload type.
    pub fn judge(&mut self, now: Instant, source: SocketAddr, ssrc: u32, sequence: u16) -> Verdict {
        let source = canonical(source);
        if let Some(locked) = &mut self.locked {
            if locked.source == source {
                locked.last = now;
                locked.ssrc = ssrc;
                return Verdict::Accept;
            }
            let silent = now.saturating_duration_since(locked.last) >= self.policy.relatch_after;
            if !silent || (locked.ssrc != ssrc && source != self.signalled) {
                return Verdict::Foreign;
            }
        }
        if source == self.signalled {
            return self.lock(now, source, ssrc);
        }
        // Packets from before a move are still on their way, and prove nothing.
        if let Some((_, since)) = self.former.as_mut().filter(|(former, _)| *former == source)
            && now.saturating_duration_since(*since.get_or_insert(now)) < self.policy.relatch_after
        {
            return Verdict::Foreign;
        }
        if !self.policy.symmetric || !self.is_allowed(source.ip()) {
            return Verdict::Foreign;
        }
        let seen = match self.candidate {
            Some(c) if c.source == source && c.ssrc == ssrc && follows(c.sequence, sequence) => c.seen + 1,
            // One candidate at a time: another source must wait until this one proves inconsistent or
            // is replaced, which costs the honest one a packet and the stranger gains nothing.
            _ => 1,
        };
        if seen >= self.policy.packets {
            return self.lock(now, source, ssrc);
        }
        self.candidate = Some(Candidate { source, ssrc, sequence, seen });
        Verdict::Wait
    }

    /// Judges an RTCP packet, which has no sequence number: any two of one source are consistent.
    pub fn judge_report(&mut self, now: Instant, source: SocketAddr, ssrc: u32) -> Verdict {
        let sequence = self.candidate.map_or(0, |c| c.sequence.wrapping_add(1));
        self.judge(now, source, ssrc, sequence)
    }

    /// Believes a source without further proof.
    pub fn trust(&mut self, now: Instant, source: SocketAddr, ssrc: u32) -> Verdict {
        self.lock(now, canonical(source), ssrc)
    }

    fn lock(&mut self, now: Instant, source: SocketAddr, ssrc: u32) -> Verdict {
        let moved = self.destination() != source;
        self.locked = Some(Locked { source, ssrc, last: now });
        (self.former, self.candidate) = (None, None);
        if moved { Verdict::AcceptAndLatch } else { Verdict::Accept }
    }

    fn is_allowed(&self, ip: IpAddr) -> bool {
        ip == self.signalled.ip() || self.policy.allowed.iter().any(|net| net.contains(&ip))
    }
}

/// An IPv4 address that came through an IPv6 socket is the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn follows(earlier: u16, later: u16) -> bool {
    (1..=MAX_STEP).contains(&later.wrapping_sub(earlier))
}

/// Between two packets of a candidate a few may be lost.
const MAX_STEP: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &str = "192.0.2.1:4000";

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("address")
    }

    fn latch(allowed: &[&str]) -> Latch {
        let allowed = allowed.iter().map(|n| n.parse().expect("network")).collect();
        Latch::new(LatchPolicy { allowed, ..LatchPolicy::default() }, at(SDP))
    }

    #[test]
    fn the_signalled_address_is_believed_at_once() {
        let mut latch = latch(&[]);
        assert_eq!(latch.judge(Instant::now(), at(SDP), 7, 1), Verdict::Accept);
        assert_eq!(latch.destination(), at(SDP));
    }

    #[test]
    fn packets_from_before_a_move_do_not_undo_it() {
        let (mut latch, now) = (latch(&["192.0.2.0/24"]), Instant::now());
        let (old, new) = (at(SDP), at("192.0.2.9:5000"));
        latch.judge(now, old, 7, 1);
        latch.reconfigure(latch.policy.clone(), new);
        for sequence in 2..5 {
            assert_eq!(latch.judge(now, old, 7, sequence), Verdict::Foreign);
        }
        assert_eq!(latch.destination(), new);
        assert_eq!(latch.judge(now, new, 7, 5), Verdict::Accept);
        assert_eq!(latch.judge(now, old, 7, 6), Verdict::Foreign);
    }

    #[test]
    fn another_port_of_the_signalled_host_needs_two_packets_in_a_row() {
        let (mut latch, now) = (latch(&[]), Instant::now());
        let nat = at("192.0.2.1:61000");
        assert_eq!(latch.judge(now, nat, 7, 65535), Verdict::Wait);
        assert_eq!(latch.judge(now, nat, 7, 0), Verdict::AcceptAndLatch);
        assert_eq!(latch.destination(), nat);
    }

    #[test]
    fn a_stranger_is_never_believed() {
        let (mut latch, now) = (latch(&["198.51.100.0/24"]), Instant::now());
        for sequence in 0..1000 {
            assert_eq!(latch.judge(now, at("203.0.113.9:5000"), 7, sequence), Verdict::Foreign);
        }
        assert_eq!(latch.source(), None);
    }

    #[test]
    fn inconsistent_packets_of_an_allowed_network_are_not_believed() {
        let (mut latch, now) = (latch(&["198.51.100.0/24"]), Instant::now());
        let source = at("198.51.100.7:5000");
        for n in 0..50 {
            assert_eq!(latch.judge(now, source, n, n as u16), Verdict::Wait, "a new SSRC each time");
        }
        for n in 0..50u16 {
            assert_eq!(latch.judge(now, source, 1, n.wrapping_mul(1000)), Verdict::Wait, "wild sequence");
        }
    }

    #[test]
    fn once_locked_even_an_allowed_source_is_foreign() {
        let (mut latch, now) = (latch(&["198.51.100.0/24"]), Instant::now());
        latch.judge(now, at(SDP), 7, 1);
        for sequence in 2..10 {
            assert_eq!(latch.judge(now, at("198.51.100.7:5000"), 7, sequence), Verdict::Foreign);
        }
    }

    #[test]
    fn a_rebound_nat_is_followed_after_silence_and_only_with_the_same_ssrc() {
        let (mut latch, now) = (latch(&[]), Instant::now());
        latch.judge(now, at(SDP), 7, 1);
        let rebound = at("192.0.2.1:7000");
        let later = now + Duration::from_millis(1100);
        assert_eq!(latch.judge(later, rebound, 8, 2), Verdict::Foreign);
        assert_eq!(latch.judge(later, rebound, 7, 2), Verdict::Wait);
        assert_eq!(latch.judge(later, rebound, 7, 3), Verdict::AcceptAndLatch);
        assert_eq!(latch.judge(later, at(SDP), 7, 4), Verdict::Foreign);
    }

    #[test]
    fn a_session_refresh_keeps_the_lock_and_a_move_opens_it() {
        let (mut latch, now) = (latch(&[]), Instant::now());
        latch.judge(now, at("192.0.2.1:61000"), 7, 1);
        latch.judge(now, at("192.0.2.1:61000"), 7, 2);
        latch.reconfigure(LatchPolicy::default(), at(SDP));
        assert_eq!(latch.destination(), at("192.0.2.1:61000"));
        latch.reconfigure(LatchPolicy::default(), at("192.0.2.200:4000"));
        assert_eq!(latch.destination(), at("192.0.2.200:4000"));
        assert_eq!(latch.judge(now, at("192.0.2.200:4000"), 9, 1), Verdict::Accept);
    }

    #[test]
    fn hold_by_an_unspecified_address_keeps_the_lock() {
        let (mut latch, now) = (latch(&[]), Instant::now());
        latch.judge(now, at("192.0.2.1:61000"), 7, 1);
        latch.judge(now, at("192.0.2.1:61000"), 7, 2);
        latch.reconfigure(LatchPolicy::default(), at("0.0.0.0:4000"));
        latch.reconfigure(LatchPolicy::default(), at(SDP));
        assert_eq!(latch.destination(), at("192.0.2.1:61000"));
    }

    #[test]
    fn an_ipv4_peer_on_a_dual_stack_socket_is_the_same_peer() {
        let mut latch = latch(&[]);
        assert_eq!(latch.judge(Instant::now(), at("[::ffff:192.0.2.1]:4000"), 7, 1), Verdict::Accept);
    }
}
