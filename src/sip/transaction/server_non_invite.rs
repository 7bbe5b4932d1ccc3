//! The non-INVITE server transaction: RFC 3261 section 17.2.2 (figure 8), without the 408 that RFC 4320 forbids.

use std::time::Instant;

use bytes::Bytes;

use super::timers::TimerValues;
use super::{Outbox, ServerInput, ServerOutput};

/// One request other than INVITE and ACK from a peer.
#[derive(Debug)]
pub struct NonInviteServer {
    state: State,
    values: TimerValues,
    reliable: bool,
    out: Outbox<ServerOutput>,
}

#[derive(Debug)]
enum State {
    /// Nothing answered: repeats are dropped.
    Trying,
    /// A 1xx was sent.
    Proceeding {
        last: Bytes,
    },
    /// The final response was sent; repeats get it again until timer J.
    Completed {
        last: Bytes,
        until: Instant,
    },
    Terminated,
}

impl NonInviteServer {
    /// A transaction for a request that was just received.
    pub fn new(values: TimerValues, reliable: bool) -> Self {
        Self { state: State::Trying, values, reliable, out: Outbox::default() }
    }

    /// Takes one input; then [`Self::poll`] until it is dry.
    pub fn handle(&mut self, now: Instant, input: ServerInput) {
        match input {
            ServerInput::Repeat => match &self.state {
                State::Proceeding { last } | State::Completed { last, .. } => {
                    self.out.push(ServerOutput::Resend(last.clone()));
                }
                State::Trying | State::Terminated => {}
            },
            ServerInput::Ack => {}
            ServerInput::Respond { status, response } => self.respond(now, status, response),
            ServerInput::Timeout => {
                if matches!(self.state, State::Completed { until, .. } if now >= until) {
                    self.state = State::Terminated;
                }
            }
        }
    }

    /// What to do next, until `None`.
    pub fn poll(&mut self) -> Option<ServerOutput> {
        self.out.pop()
    }

    /// When [`ServerInput::Timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Completed { until, .. } => Some(until),
            State::Trying | State::Proceeding { .. } | State::Terminated => None,
        }
    }

    /// Whether it is over and can be forgotten.
    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    fn respond(&mut self, now: Instant, status: u16, response: Bytes) {
        if let State::Completed { .. } | State::Terminated = self.state {
            return;
        }
        self.out.push(ServerOutput::Send(response.clone()));
        let wait = self.values.wait_j(self.reliable);
        self.state = match status {
            ..=199 => State::Proceeding { last: response },
            200.. if wait.is_zero() => State::Terminated,
            200.. => State::Completed { last: response, until: now + wait },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn feed(machine: &mut NonInviteServer, now: Instant, input: ServerInput) -> Option<ServerOutput> {
        machine.handle(now, input);
        machine.poll()
    }

    fn ok() -> ServerInput {
        ServerInput::Respond { status: 200, response: Bytes::from_static(b"200") }
    }

    #[test]
    fn repeats_before_the_answer_are_dropped_and_later_ones_get_it_again() {
        let now = Instant::now();
        let mut machine = NonInviteServer::new(TimerValues::default(), false);
        assert_eq!(feed(&mut machine, now, ServerInput::Repeat), None);
        assert_eq!(feed(&mut machine, now, ok()), Some(ServerOutput::Send(Bytes::from_static(b"200"))));
        let again = Some(ServerOutput::Resend(Bytes::from_static(b"200")));
        assert_eq!(feed(&mut machine, now, ServerInput::Repeat), again);
        assert_eq!(feed(&mut machine, now, ok()), None);
        let end = machine.next_timeout().expect("timer J runs");
        assert_eq!(end - now, Duration::from_secs(32));
        feed(&mut machine, end, ServerInput::Timeout);
        assert!(machine.is_terminated());
    }

    #[test]
    fn on_a_stream_it_ends_with_its_answer() {
        let mut machine = NonInviteServer::new(TimerValues::default(), true);
        feed(&mut machine, Instant::now(), ok());
        assert!(machine.is_terminated());
    }
}
