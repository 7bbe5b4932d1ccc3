//! The INVITE server transaction: RFC 3261 section 17.2.1 (figure 7) with the Accepted state of RFC 6026.

use std::time::Instant;

use bytes::Bytes;

use super::timers::{Resend, TimerValues};
use super::{Outbox, ServerInput, ServerOutput};

/// One INVITE from a peer, from its first arrival to the end of its repeats.
#[derive(Debug)]
pub struct InviteServer {
    state: State,
    values: TimerValues,
    reliable: bool,
    out: Outbox<ServerOutput>,
}

#[derive(Debug)]
enum State {
    /// No final response yet; `last` answers repeats of the INVITE.
    Proceeding {
        last: Option<Bytes>,
    },
    /// A 3xx-6xx was sent. `resend` is timer G (none on streams), `give_up` timer H.
    Completed {
        last: Bytes,
        resend: Option<Resend>,
        give_up: Instant,
    },
    /// The ACK came; its repeats are absorbed until timer I.
    Confirmed {
        until: Instant,
    },
    /// A 2xx was sent; its repeats are the user agent's. `until` is timer L (RFC 6026 section 7.1).
    Accepted {
        until: Instant,
    },
    Terminated,
}

impl InviteServer {
    /// A transaction for an INVITE that was just received.
    pub fn new(values: TimerValues, reliable: bool) -> Self {
        Self { state: State::Proceeding { last: None }, values, reliable, out: Outbox::default() }
    }

    /// Takes one input; then [`Self::poll`] until it is dry.
    pub fn handle(&mut self, now: Instant, input: ServerInput) {
        match input {
            ServerInput::Repeat => self.repeated(),
            ServerInput::Ack => self.ack(now),
            ServerInput::Respond { status, response } => self.respond(now, status, response),
            ServerInput::Timeout => self.timeout(now),
        }
    }

    /// What to do next, until `None`.
    pub fn poll(&mut self) -> Option<ServerOutput> {
        self.out.pop()
    }

    /// When [`ServerInput::Timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Completed { resend, give_up, .. } => {
                Some(resend.map_or(*give_up, |resend| resend.at().min(*give_up)))
            }
            State::Confirmed { until } | State::Accepted { until } => Some(*until),
            State::Proceeding { .. } | State::Terminated => None,
        }
    }

    /// Whether it is over and can be forgotten.
    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    /// Whether a final response may still be chosen.
    pub fn is_proceeding(&self) -> bool {
        matches!(self.state, State::Proceeding { .. })
    }

    fn repeated(&mut self) {
        match &self.state {
            State::Proceeding { last: Some(last) } | State::Completed { last, .. } => {
                self.out.push(ServerOutput::Resend(last.clone()));
            }
            // In Accepted the 2xx is sent again by its own schedule.
            State::Proceeding { last: None }
            | State::Confirmed { .. }
            | State::Accepted { .. }
            | State::Terminated => {}
        }
    }

    fn ack(&mut self, now: Instant) {
        match &self.state {
            State::Completed { .. } => {
                let wait = self.values.wait_ik(self.reliable);
                self.state =
                    if wait.is_zero() { State::Terminated } else { State::Confirmed { until: now + wait } };
            }
            // The ACK of a 2xx has a branch of its own; one that has the INVITE's is the user agent's all the same.
            State::Accepted { .. } => self.out.push(ServerOutput::PassAck),
            State::Proceeding { .. } | State::Confirmed { .. } | State::Terminated => {}
        }
    }

    fn respond(&mut self, now: Instant, status: u16, response: Bytes) {
        match &self.state {
            State::Proceeding { .. } => {
                self.out.push(ServerOutput::Send(response.clone()));
                let give_up = now + self.values.timeout();
                self.state = match status {
                    ..=199 => State::Proceeding { last: Some(response) },
                    200..=299 => State::Accepted { until: give_up },
                    300.. => {
                        let resend = (!self.reliable).then(|| Resend::capped(now, &self.values));
                        State::Completed { last: response, resend, give_up }
                    }
                };
            }
            State::Accepted { .. } if (200..300).contains(&status) => {
                self.out.push(ServerOutput::Resend(response));
            }
            // A final response is final.
            State::Accepted { .. }
            | State::Completed { .. }
            | State::Confirmed { .. }
            | State::Terminated => {}
        }
    }

    fn timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Completed { give_up, .. } if now >= *give_up => {
                self.state = State::Terminated;
                self.out.push(ServerOutput::NoAck);
            }
            State::Completed { resend: Some(resend), last, .. } => {
                if resend.take_due(now) {
                    self.out.push(ServerOutput::Resend(last.clone()));
                }
            }
            State::Confirmed { until } | State::Accepted { until } if now >= *until => {
                self.state = State::Terminated;
            }
            State::Proceeding { .. }
            | State::Completed { .. }
            | State::Confirmed { .. }
            | State::Accepted { .. }
            | State::Terminated => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        now: Instant,
        start: Instant,
        machine: InviteServer,
    }

    impl Bench {
        fn new(reliable: bool) -> Self {
            let now = Instant::now();
            Self { now, start: now, machine: InviteServer::new(TimerValues::default(), reliable) }
        }

        fn feed(&mut self, input: ServerInput) -> Option<ServerOutput> {
            self.machine.handle(self.now, input);
            let output = self.machine.poll();
            assert_eq!(self.machine.poll(), None);
            output
        }

        fn respond(&mut self, status: u16) -> Option<ServerOutput> {
            self.feed(ServerInput::Respond { status, response: text(status) })
        }

        fn wait(&mut self) -> (u128, Option<ServerOutput>) {
            self.now = self.machine.next_timeout().expect("a deadline");
            let output = self.feed(ServerInput::Timeout);
            ((self.now - self.start).as_millis(), output)
        }
    }

    fn text(status: u16) -> Bytes {
        Bytes::from(status.to_string())
    }

    #[test]
    fn a_repeated_invite_gets_the_last_provisional_response() {
        let mut bench = Bench::new(false);
        assert_eq!(bench.feed(ServerInput::Repeat), None);
        assert_eq!(bench.respond(100), Some(ServerOutput::Send(text(100))));
        assert_eq!(bench.respond(180), Some(ServerOutput::Send(text(180))));
        assert_eq!(bench.feed(ServerInput::Repeat), Some(ServerOutput::Resend(text(180))));
    }

    #[test]
    fn a_refusal_is_repeated_until_timer_h() {
        let mut bench = Bench::new(false);
        bench.respond(486);
        for at in [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500] {
            assert_eq!(bench.wait(), (at, Some(ServerOutput::Resend(text(486)))));
        }
        assert_eq!(bench.wait(), (32_000, Some(ServerOutput::NoAck)));
        assert!(bench.machine.is_terminated());
    }

    #[test]
    fn an_acknowledged_refusal_is_quiet_and_absorbs_repeats_for_t4() {
        let mut bench = Bench::new(false);
        bench.respond(486);
        assert_eq!(bench.feed(ServerInput::Repeat), Some(ServerOutput::Resend(text(486))));
        assert_eq!(bench.feed(ServerInput::Ack), None);
        assert_eq!(bench.feed(ServerInput::Ack), None);
        assert_eq!(bench.feed(ServerInput::Repeat), None);
        assert_eq!(bench.wait(), (5_000, None));
        assert!(bench.machine.is_terminated());
    }

    #[test]
    fn on_a_stream_a_refusal_is_sent_once_and_waits_for_its_ack() {
        let mut bench = Bench::new(true);
        bench.respond(404);
        assert_eq!(bench.machine.next_timeout(), Some(bench.start + TimerValues::default().timeout()));
        bench.feed(ServerInput::Ack);
        assert!(bench.machine.is_terminated());
    }

    #[test]
    fn a_success_leaves_the_transaction_absorbing_repeats_until_timer_l() {
        let mut bench = Bench::new(false);
        assert_eq!(bench.respond(200), Some(ServerOutput::Send(text(200))));
        assert_eq!(bench.feed(ServerInput::Repeat), None);
        assert_eq!(bench.respond(200), Some(ServerOutput::Resend(text(200))));
        assert_eq!(bench.respond(487), None);
        assert_eq!(bench.feed(ServerInput::Ack), Some(ServerOutput::PassAck));
        assert_eq!(bench.wait(), (32_000, None));
        assert!(bench.machine.is_terminated());
    }

    #[test]
    fn a_final_response_cannot_be_taken_back() {
        let mut bench = Bench::new(false);
        bench.respond(486);
        assert_eq!(bench.respond(200), None);
        assert_eq!(bench.respond(180), None);
    }
}
