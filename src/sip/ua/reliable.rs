//! Provisional responses that are sent again until their PRACK (RFC 3262), as the callee.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::sip::message::StatusCode;
use crate::sip::transaction::{Resend, TimerValues};

/// The reliable provisional responses of one INVITE: one at a time, numbered in order.
#[derive(Debug)]
pub(super) struct ReliableProvisional {
    next_rseq: u32,
    unacked: Option<Unacked>,
    waiting: VecDeque<Waiting>,
}

/// What has to wait for a PRACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Waiting {
    Ring { status: StatusCode, sdp: Option<Vec<u8>> },
    Answer { sdp: Vec<u8> },
}

#[derive(Debug)]
struct Unacked {
    rseq: u32,
    response: Bytes,
    resend: Resend,
    give_up: Instant,
}

/// What time brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Send this again.
    Resend(Bytes),
    /// No PRACK came: refuse the INVITE with 5xx.
    GiveUp,
}

impl ReliableProvisional {
    /// `first` is 1 to 2^31-1, at random.
    pub(super) fn new(first: u32) -> Self {
        Self { next_rseq: first, unacked: None, waiting: VecDeque::new() }
    }

    /// Whether a response waits for its PRACK, so that the next must wait.
    pub(super) fn is_busy(&self) -> bool {
        self.unacked.is_some()
    }

    /// Keeps what must wait. Beyond a few, rings are dropped: they say nothing new.
    pub(super) fn wait(&mut self, what: Waiting) {
        if self.waiting.len() < WAITING_MAX || matches!(what, Waiting::Answer { .. }) {
            self.waiting.push_back(what);
        }
    }

    /// The number for the next response.
    pub(super) fn take_rseq(&mut self) -> u32 {
        let rseq = self.next_rseq;
        self.next_rseq += 1;
        rseq
    }

    /// A response with this number was sent.
    pub(super) fn sent(&mut self, now: Instant, rseq: u32, response: Bytes, values: &TimerValues) {
        let resend = Resend::doubling(now, values);
        self.unacked = Some(Unacked { rseq, response, resend, give_up: now + values.timeout() });
    }

    /// Takes a PRACK's RSeq number; whether it was the open one (section 3: others get 481).
    pub(super) fn acknowledge(&mut self, rseq: u32) -> bool {
        let matches = self.unacked.as_ref().is_some_and(|unacked| unacked.rseq == rseq);
        if matches {
            self.unacked = None;
        }
        matches
    }

    /// What waited, when its turn has come.
    pub(super) fn next_waiting(&mut self) -> Option<Waiting> {
        if self.is_busy() { None } else { self.waiting.pop_front() }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.unacked.as_ref().map(|unacked| unacked.resend.at().min(unacked.give_up))
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        let unacked = self.unacked.as_mut()?;
        if now >= unacked.give_up {
            self.unacked = None;
            return Some(Due::GiveUp);
        }
        unacked.resend.take_due(now).then(|| Due::Resend(unacked.response.clone()))
    }
}

const WAITING_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_response_is_open_at_a_time_and_is_sent_again_until_its_prack() {
        let (now, values) = (Instant::now(), TimerValues::default());
        let mut provisional = ReliableProvisional::new(7);
        let rseq = provisional.take_rseq();
        provisional.sent(now, rseq, Bytes::from_static(b"183"), &values);
        provisional.wait(Waiting::Answer { sdp: vec![1] });
        assert_eq!(provisional.next_waiting(), None);
        let at = now + Duration::from_millis(500);
        assert_eq!(provisional.handle_timeout(at), Some(Due::Resend(Bytes::from_static(b"183"))));
        assert_eq!(provisional.next_timeout(), Some(at + Duration::from_secs(1)));
        assert!(!provisional.acknowledge(8) && provisional.acknowledge(7) && !provisional.acknowledge(7));
        assert_eq!(provisional.next_waiting(), Some(Waiting::Answer { sdp: vec![1] }));
        assert_eq!(provisional.take_rseq(), 8);
    }

    #[test]
    fn without_prack_it_is_given_up_after_64_t1() {
        let (now, values) = (Instant::now(), TimerValues::default());
        let mut provisional = ReliableProvisional::new(1);
        provisional.sent(now, 1, Bytes::new(), &values);
        assert_eq!(provisional.handle_timeout(now + values.timeout()), Some(Due::GiveUp));
        assert_eq!(provisional.next_timeout(), None);
    }
}
