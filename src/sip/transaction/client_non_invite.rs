//! The non-INVITE client transaction: RFC 3261 section 17.1.2 (figure 6).

use std::time::Instant;

use bytes::Bytes;

use super::timers::{Resend, TimerValues};
use super::{ClientInput, ClientOutput, Outbox};

/// One request other than INVITE and ACK on its way to a final response.
#[derive(Debug)]
pub struct NonInviteClient {
    state: State,
    request: Bytes,
    values: TimerValues,
    reliable: bool,
    out: Outbox<ClientOutput>,
}

#[derive(Debug)]
enum State {
    /// Nothing heard. `resend` is timer E (none on streams), `give_up` timer F.
    Trying {
        resend: Option<Resend>,
        give_up: Instant,
    },
    /// A 1xx was heard: timer E runs at T2.
    Proceeding {
        resend: Option<Resend>,
        give_up: Instant,
    },
    /// A final response was heard; repeats are absorbed until timer K.
    Completed {
        until: Instant,
    },
    Terminated,
}

impl NonInviteClient {
    /// Sends the request.
    pub fn new(now: Instant, request: Bytes, values: TimerValues, reliable: bool) -> Self {
        let mut out = Outbox::default();
        out.push(ClientOutput::Send(request.clone()));
        let resend = (!reliable).then(|| Resend::capped(now, &values));
        let state = State::Trying { resend, give_up: now + values.timeout() };
        Self { state, request, values, reliable, out }
    }

    /// Takes one input; then [`Self::poll`] until it is dry.
    pub fn handle(&mut self, now: Instant, input: ClientInput) {
        match input {
            ClientInput::Response { status, .. } => self.response(now, status),
            ClientInput::Timeout => self.timeout(now),
            ClientInput::TransportFailed => match self.state {
                State::Trying { .. } | State::Proceeding { .. } => self.end(ClientOutput::TransportFailed),
                State::Completed { .. } | State::Terminated => {}
            },
        }
    }

    /// What to do next, until `None`.
    pub fn poll(&mut self) -> Option<ClientOutput> {
        self.out.pop()
    }

    /// When [`ClientInput::Timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Trying { resend, give_up } | State::Proceeding { resend, give_up } => {
                Some(resend.map_or(*give_up, |resend| resend.at().min(*give_up)))
            }
            State::Completed { until } => Some(*until),
            State::Terminated => None,
        }
    }

    /// Whether it is over and can be forgotten.
    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    fn response(&mut self, now: Instant, status: u16) {
        match &self.state {
            State::Trying { give_up, .. } | State::Proceeding { give_up, .. } if status < 200 => {
                if let State::Trying { .. } = self.state {
                    let resend = (!self.reliable).then(|| Resend::every_t2(now, &self.values));
                    self.state = State::Proceeding { resend, give_up: *give_up };
                }
                self.out.push(ClientOutput::Pass);
            }
            State::Trying { .. } | State::Proceeding { .. } => {
                let wait = self.values.wait_ik(self.reliable);
                self.state =
                    if wait.is_zero() { State::Terminated } else { State::Completed { until: now + wait } };
                self.out.push(ClientOutput::Pass);
            }
            State::Completed { .. } | State::Terminated => {}
        }
    }

    fn timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Trying { give_up, .. } | State::Proceeding { give_up, .. } if now >= *give_up => {
                self.end(ClientOutput::TimedOut);
            }
            State::Trying { resend: Some(resend), .. } | State::Proceeding { resend: Some(resend), .. } => {
                if resend.take_due(now) {
                    self.out.push(ClientOutput::Resend(self.request.clone()));
                }
            }
            State::Completed { until } if now >= *until => self.state = State::Terminated,
            State::Trying { .. } | State::Proceeding { .. } | State::Completed { .. } | State::Terminated => {
            }
        }
    }

    fn end(&mut self, output: ClientOutput) {
        self.state = State::Terminated;
        self.out.push(output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(reliable: bool) -> (Instant, NonInviteClient) {
        let now = Instant::now();
        let mut machine =
            NonInviteClient::new(now, Bytes::from_static(b"BYE"), TimerValues::default(), reliable);
        assert_eq!(machine.poll(), Some(ClientOutput::Send(Bytes::from_static(b"BYE"))));
        (now, machine)
    }

    fn next(machine: &mut NonInviteClient, start: Instant) -> (u128, Option<ClientOutput>) {
        let at = machine.next_timeout().expect("a deadline");
        machine.handle(at, ClientInput::Timeout);
        ((at - start).as_millis(), machine.poll())
    }

    fn hear(machine: &mut NonInviteClient, at: Instant, status: u16) -> Option<ClientOutput> {
        machine.handle(at, ClientInput::Response { status, ack: None });
        machine.poll()
    }

    #[test]
    fn an_unanswered_request_is_sent_eleven_times_and_given_up_after_64_t1() {
        let (start, mut machine) = machine(false);
        let again = Some(ClientOutput::Resend(Bytes::from_static(b"BYE")));
        for at in [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500] {
            assert_eq!(next(&mut machine, start), (at, again.clone()));
        }
        assert_eq!(next(&mut machine, start), (32_000, Some(ClientOutput::TimedOut)));
        assert!(machine.is_terminated());
    }

    #[test]
    fn after_a_provisional_response_it_is_sent_every_t2() {
        let (start, mut machine) = machine(false);
        assert_eq!(hear(&mut machine, start, 100), Some(ClientOutput::Pass));
        for at in [4_000, 8_000, 12_000] {
            assert_eq!(next(&mut machine, start).0, at);
        }
    }

    #[test]
    fn a_final_response_is_passed_once_and_repeats_are_absorbed_for_t4() {
        let (start, mut machine) = machine(false);
        assert_eq!(hear(&mut machine, start, 200), Some(ClientOutput::Pass));
        assert_eq!(hear(&mut machine, start, 200), None);
        assert_eq!(next(&mut machine, start), (5_000, None));
        assert!(machine.is_terminated());
    }

    #[test]
    fn on_a_stream_nothing_is_repeated_or_absorbed() {
        let (start, mut machine) = machine(true);
        assert_eq!(machine.next_timeout(), Some(start + TimerValues::default().timeout()));
        assert_eq!(hear(&mut machine, start, 200), Some(ClientOutput::Pass));
        assert!(machine.is_terminated());
    }

    #[test]
    fn a_dead_transport_is_reported_once() {
        let (start, mut machine) = machine(true);
        machine.handle(start, ClientInput::TransportFailed);
        assert_eq!(machine.poll(), Some(ClientOutput::TransportFailed));
        machine.handle(start, ClientInput::TransportFailed);
        assert_eq!(machine.poll(), None);
    }
}
