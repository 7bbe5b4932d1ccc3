//! The INVITE client transaction: RFC 3261 section 17.1.1 (figure 5) with the Accepted state of RFC 6026.

use std::time::Instant;

use bytes::Bytes;

use super::timers::{Resend, TimerValues};
use super::{ClientInput, ClientOutput, Outbox};

/// One INVITE on its way to a final response.
#[derive(Debug)]
pub struct InviteClient {
    state: State,
    request: Bytes,
    values: TimerValues,
    reliable: bool,
    out: Outbox<ClientOutput>,
}

#[derive(Debug)]
enum State {
    /// Nothing heard. `resend` is timer A (none on streams), `give_up` timer B.
    Calling {
        resend: Option<Resend>,
        give_up: Instant,
    },
    /// A 1xx was heard; the callee decides how long it takes.
    Proceeding,
    /// A final 3xx-6xx was heard and acknowledged with `ack`; `until` is timer D.
    Completed {
        ack: Bytes,
        until: Instant,
    },
    /// A 2xx was heard; more may come from forks. `until` is timer M (RFC 6026 section 7.2).
    Accepted {
        until: Instant,
    },
    Terminated,
}

impl InviteClient {
    /// Sends the request.
    pub fn new(now: Instant, request: Bytes, values: TimerValues, reliable: bool) -> Self {
        let mut out = Outbox::default();
        out.push(ClientOutput::Send(request.clone()));
        let resend = (!reliable).then(|| Resend::doubling(now, &values));
        let state = State::Calling { resend, give_up: now + values.timeout() };
        Self { state, request, values, reliable, out }
    }

    /// Takes one input; then [`Self::poll`] until it is dry.
    ///
    /// A response is told by its status. For a final 3xx-6xx the caller gives the ACK (section 17.1.1.3), which
    /// the transaction sends and keeps.
    pub fn handle(&mut self, now: Instant, input: ClientInput) {
        match input {
            ClientInput::Response { status, ack } => self.response(now, status, ack),
            ClientInput::Timeout => self.timeout(now),
            ClientInput::TransportFailed => self.transport_failed(),
        }
    }

    /// What to do next, until `None`.
    pub fn poll(&mut self) -> Option<ClientOutput> {
        self.out.pop()
    }

    /// When [`ClientInput::Timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Calling { resend, give_up } => {
                Some(resend.map_or(*give_up, |resend| resend.at().min(*give_up)))
            }
            State::Completed { until, .. } | State::Accepted { until } => Some(*until),
            State::Proceeding | State::Terminated => None,
        }
    }

    /// Whether it is over and can be forgotten.
    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    /// Whether a CANCEL may be sent: a 1xx and no final response was heard (section 9.1).
    pub fn is_proceeding(&self) -> bool {
        matches!(self.state, State::Proceeding)
    }

    /// Whether no final response was heard.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, State::Calling { .. } | State::Proceeding)
    }

    fn response(&mut self, now: Instant, status: u16, ack: Option<Bytes>) {
        match &self.state {
            State::Calling { .. } | State::Proceeding => match status {
                100..=199 => {
                    self.state = State::Proceeding;
                    self.out.push(ClientOutput::Pass);
                }
                200..=299 => {
                    self.state = State::Accepted { until: now + self.values.timeout() };
                    self.out.push(ClientOutput::Pass);
                }
                _ => self.refused(now, ack),
            },
            State::Accepted { .. } => {
                if (200..300).contains(&status) {
                    self.out.push(ClientOutput::Pass);
                }
            }
            State::Completed { ack, .. } => match status {
                // A callee answered while another one's, or a proxy's, refusal was on its way: the call must be ended.
                200..=299 => self.out.push(ClientOutput::Pass),
                300.. => self.out.push(ClientOutput::Resend(ack.clone())),
                _ => {}
            },
            State::Terminated => {}
        }
    }

    fn refused(&mut self, now: Instant, ack: Option<Bytes>) {
        self.state = match ack {
            Some(ack) => {
                self.out.push(ClientOutput::Send(ack.clone()));
                let wait = self.values.wait_d(self.reliable);
                if wait.is_zero() { State::Terminated } else { State::Completed { ack, until: now + wait } }
            }
            None => State::Terminated,
        };
        self.out.push(ClientOutput::Pass);
    }

    fn timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Calling { give_up, .. } if now >= *give_up => {
                self.state = State::Terminated;
                self.out.push(ClientOutput::TimedOut);
            }
            State::Calling { resend: Some(resend), .. } => {
                if resend.take_due(now) {
                    self.out.push(ClientOutput::Resend(self.request.clone()));
                }
            }
            State::Completed { until, .. } | State::Accepted { until } if now >= *until => {
                self.state = State::Terminated;
            }
            State::Calling { .. }
            | State::Proceeding
            | State::Completed { .. }
            | State::Accepted { .. }
            | State::Terminated => {}
        }
    }

    fn transport_failed(&mut self) {
        match self.state {
            State::Calling { .. } | State::Proceeding => {
                self.state = State::Terminated;
                self.out.push(ClientOutput::TransportFailed);
            }
            // The outcome is known; a lost ACK is asked for again by the peer.
            State::Completed { .. } | State::Accepted { .. } | State::Terminated => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Bench {
        now: Instant,
        start: Instant,
        machine: InviteClient,
    }

    impl Bench {
        fn new(reliable: bool) -> Self {
            let now = Instant::now();
            let request = Bytes::from_static(b"INVITE");
            let mut machine = InviteClient::new(now, request, TimerValues::default(), reliable);
            assert_eq!(machine.poll(), Some(ClientOutput::Send(Bytes::from_static(b"INVITE"))));
            Self { now, start: now, machine }
        }

        fn hear(&mut self, status: u16) -> Vec<ClientOutput> {
            let ack = (status >= 300).then(|| Bytes::from_static(b"ACK"));
            self.machine.handle(self.now, ClientInput::Response { status, ack });
            std::iter::from_fn(|| self.machine.poll()).collect()
        }

        /// Lets time pass to the next deadline.
        fn wait(&mut self) -> (u128, Vec<ClientOutput>) {
            self.now = self.machine.next_timeout().expect("a deadline");
            self.machine.handle(self.now, ClientInput::Timeout);
            let outputs = std::iter::from_fn(|| self.machine.poll()).collect();
            ((self.now - self.start).as_millis(), outputs)
        }
    }

    fn resent(text: &'static str) -> ClientOutput {
        ClientOutput::Resend(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn an_unheard_invite_is_sent_seven_times_and_given_up_after_64_t1() {
        let mut bench = Bench::new(false);
        for at in [500, 1_500, 3_500, 7_500, 15_500, 31_500] {
            assert_eq!(bench.wait(), (at, vec![resent("INVITE")]));
        }
        assert_eq!(bench.wait(), (32_000, vec![ClientOutput::TimedOut]));
        assert!(bench.machine.is_terminated());
    }

    #[test]
    fn on_a_stream_the_invite_is_sent_once() {
        let mut bench = Bench::new(true);
        assert_eq!(bench.wait(), (32_000, vec![ClientOutput::TimedOut]));
    }

    #[test]
    fn a_provisional_response_stops_the_clock() {
        let mut bench = Bench::new(false);
        assert!(!bench.machine.is_proceeding());
        assert_eq!(bench.hear(100), [ClientOutput::Pass]);
        assert!(bench.machine.is_proceeding());
        assert_eq!(bench.machine.next_timeout(), None);
        assert_eq!(bench.hear(180), [ClientOutput::Pass]);
    }

    #[test]
    fn a_refusal_is_acknowledged_each_time_and_passed_once() {
        let mut bench = Bench::new(false);
        let ack = ClientOutput::Send(Bytes::from_static(b"ACK"));
        assert_eq!(bench.hear(486), [ack, ClientOutput::Pass]);
        assert_eq!(bench.hear(486), [resent("ACK")]);
        assert_eq!(bench.hear(180), []);
        assert_eq!(bench.wait(), (32_000, vec![]));
        assert!(bench.machine.is_terminated());
    }

    #[test]
    fn on_a_stream_a_refusal_ends_it_at_once() {
        let mut bench = Bench::new(true);
        assert_eq!(bench.hear(486).len(), 2);
        assert!(bench.machine.is_terminated());
    }

    #[test]
    fn every_2xx_of_the_accepted_state_is_passed_until_timer_m() {
        let mut bench = Bench::new(true);
        assert_eq!(bench.hear(200), [ClientOutput::Pass]);
        assert_eq!(bench.hear(200), [ClientOutput::Pass]);
        assert_eq!(bench.hear(486), []);
        assert_eq!(bench.wait(), (32_000, vec![]));
        assert!(bench.machine.is_terminated());
    }

    #[test]
    fn a_dead_transport_ends_a_pending_invite_but_not_an_answered_one() {
        let mut bench = Bench::new(true);
        bench.machine.handle(bench.now, ClientInput::TransportFailed);
        assert_eq!(bench.machine.poll(), Some(ClientOutput::TransportFailed));
        assert!(bench.machine.is_terminated());
        let mut bench = Bench::new(true);
        bench.hear(200);
        bench.machine.handle(bench.now + Duration::from_secs(1), ClientInput::TransportFailed);
        assert_eq!(bench.machine.poll(), None);
        assert!(!bench.machine.is_terminated());
    }
}
