//! The task that owns the user agent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handle::{Ask, EndpointError};
use super::wire::Wire;
use crate::sip::connections::Connections;
use crate::sip::message::Transport;
use crate::sip::stun;
use crate::sip::tap::{Seen, Tap};
use crate::sip::tcp::count_closed;
use crate::sip::tls::HostNames;
use crate::sip::transport::{Incoming, Target};
use crate::sip::ua::{Answer, OutRequest, Output, Pong, UaEvent, UserAgent};
use crate::sip::udp::Sockets;

/// The task that owns the user agent.
pub(super) struct Driver {
    pub(super) ua: UserAgent,
    pub(super) sockets: Sockets,
    pub(super) connections: Connections,
    pub(super) events: mpsc::Sender<UaEvent>,
    /// Events the layer above had no room for.
    pub(super) backlog: VecDeque<UaEvent>,
    pub(super) pings: HashMap<u64, oneshot::Sender<Pong>>,
    pub(super) answers: HashMap<u64, oneshot::Sender<Result<Answer, EndpointError>>>,
    /// Numbers pings and requests.
    pub(super) next_ask: u64,
    pub(super) hosts: HostNames,
    pub(super) tap: Option<Arc<dyn Tap>>,
    pub(super) idle: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) async fn run(
        mut self,
        mut asks: mpsc::Receiver<Ask>,
        mut first: mpsc::Receiver<Wire>,
        mut fresh: mpsc::Receiver<Wire>,
        stop: CancellationToken,
    ) {
        let events = self.events.clone();
        loop {
            self.drain_outputs();
            self.tell_idle();
            let wake = self.ua.next_timeout().map(Instant::from_std);
            let reading = self.backlog.len() < BACKLOG_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ask = asks.recv() => match ask {
                    Some(ask) => self.asked(ask),
                    None => {
                        stop.cancel();
                        return;
                    }
                },
                room = events.reserve(), if !self.backlog.is_empty() => match (room, self.backlog.pop_front()) {
                    (Ok(room), Some(event)) => room.send(event),
                    // Nobody listens any more; calls end by their timers.
                    _ => self.backlog.clear(),
                },
                () = sleep_until(wake), if wake.is_some() => self.ua.handle_timeout(now()),
                Some(wire) = first.recv(), if reading => self.heard(wire),
                Some(wire) = fresh.recv(), if reading => self.heard(wire),
            }
        }
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Command(leg, command) => self.ua.command(now(), leg, command),
            Ask::Invite(leg, invite) => self.ua.invite(now(), leg, *invite),
            Ask::Ping(target, answer) => {
                self.next_ask += 1;
                self.pings.insert(self.next_ask, answer);
                self.ua.ping(now(), self.next_ask, target);
            }
            Ask::Request(request, answer) => self.request(*request, answer),
            Ask::Drain(draining) => self.ua.drain(draining),
            Ask::Trunks(trunks) => self.ua.set_trunks(*trunks),
            Ask::Phones(book) => self.ua.set_phones(book),
            Ask::Bindings(user, answer) => {
                // Who asked may have gone.
                let _gone = answer.send(self.ua.bindings(now(), &user));
            }
            Ask::Idle(answer) => self.idle.push(answer),
            Ask::Count(answer) => {
                // Who asked may have gone.
                let _gone = answer.send(self.ua.leg_count());
            }
        }
    }

    fn heard(&mut self, wire: Wire) {
        match wire {
            Wire::Message(incoming) => {
                self.tap_incoming(&incoming);
                self.ua.receive(now(), *incoming);
            }
            Wire::Stun { bound, source, datagram } => {
                // Strangers hear nothing here either.
                if self.ua.hears(source)
                    && let Some(answer) = stun::answer(&datagram, source)
                {
                    self.sockets.send_from(bound, source, &answer);
                }
            }
            Wire::Accepted { stream, transport, remote, local } => {
                let known = self.ua.hears(remote);
                if known || self.ua.may_connect(remote) && self.connections.has_room_for_strangers() {
                    self.connections.take(stream, transport, remote, local);
                } else {
                    metrics::counter!("tandem_sip_dropped_total", "reason" => "unknown_connection")
                        .increment(1);
                }
            }
            Wire::Idle { id } => {
                if !self.ua.uses_connection(id) {
                    count_closed("idle");
                    self.connections.close(id);
                    self.ua.connection_closed(id);
                }
            }
            Wire::Closed { id, broken } => {
                self.ua.connection_closed(id);
                if let Some((transport, remote)) = self.connections.close(id)
                    && broken
                {
                    self.ua.transport_failed(now(), transport, remote, Some(id));
                }
            }
        }
    }

    fn drain_outputs(&mut self) {
        while let Some(output) = self.ua.poll() {
            match output {
                Output::Send { target, bytes } => self.send(target, bytes),
                Output::Event(UaEvent::Pong(pong)) => {
                    if let Some(answer) = self.pings.remove(&pong.id) {
                        // Who asked may have gone.
                        let _gone = answer.send(pong);
                    }
                }
                Output::Event(UaEvent::Answer { id, answer }) => {
                    if let Some(waiting) = self.answers.remove(&id) {
                        let _gone = waiting.send(Ok(*answer));
                    }
                }
                Output::Event(event) => self.tell(event),
            }
        }
        let (servers, clients) = self.ua.transaction_counts();
        metrics::gauge!("tandem_sip_transactions", "role" => "server").set(servers as f64);
        metrics::gauge!("tandem_sip_transactions", "role" => "client").set(clients as f64);
    }

    fn tell(&mut self, event: UaEvent) {
        if self.backlog.is_empty() {
            match self.events.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(event)) => self.backlog.push_back(event),
            }
        } else {
            self.backlog.push_back(event);
        }
        metrics::gauge!("tandem_sip_event_backlog").set(self.backlog.len() as f64);
    }

    fn request(&mut self, request: OutRequest, answer: oneshot::Sender<Result<Answer, EndpointError>>) {
        // Who gave up waiting makes room first.
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.retain(|_, waiting| !waiting.is_closed());
        }
        if self.answers.len() >= ANSWERS_MAX {
            let _gone = answer.send(Err(EndpointError::Busy));
            return;
        }
        self.next_ask += 1;
        self.answers.insert(self.next_ask, answer);
        self.ua.request(now(), self.next_ask, request);
    }

    fn tap_incoming(&self, incoming: &Incoming) {
        if let Some(tap) = &self.tap
            && (tap.wants_strangers() || self.ua.hears(incoming.source))
        {
            let Incoming { transport, local, source, ref raw, .. } = *incoming;
            let seen = Seen { outgoing: false, transport, local, remote: source, bytes: raw };
            tap.message(now(), &seen);
        }
    }

    /// A peer of a trunk that is reached by address proves the name the trunk is configured with: routes inside calls
    /// often are addresses, and hardly a certificate holds one.
    fn proven(&self, target: Target) -> Target {
        if target.transport != Transport::Tls || target.name.is_some() || self.connections.has(&target) {
            return target;
        }
        let name = self.ua.name_of_peer(target.remote.ip()).and_then(|name| self.hosts.number(name));
        Target { name, ..target }
    }

    fn send(&mut self, target: Target, bytes: Bytes) {
        if let Some(tap) = &self.tap {
            let Target { transport, local, remote, .. } = target;
            tap.message(now(), &Seen { outgoing: true, transport, local, remote, bytes: &bytes });
        }
        let target = self.proven(target);
        let sent = match target.transport {
            Transport::Udp => self.sockets.send(&target, &bytes),
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                self.connections.send(&target, bytes)
            }
        };
        if !sent {
            self.ua.transport_failed(now(), target.transport, target.remote, target.connection);
        }
    }

    fn tell_idle(&mut self) {
        if !self.idle.is_empty() && !self.ua.is_busy() && self.backlog.is_empty() {
            for waiting in self.idle.drain(..) {
                let _gone = waiting.send(());
            }
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Requests outside of dialogs that wait for their answers.
const ANSWERS_MAX: usize = 4_096;
/// Events that wait for the layer above; beyond it the network is not read.
const BACKLOG_MAX: usize = 1_024;
