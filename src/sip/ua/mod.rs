//! The user agent: every call this node has by SIP, as one value without sockets, tasks or clocks.
//!
//! Feed it messages ([`UserAgent::receive`]), commands and the passing of time; after each, [`UserAgent::poll`] it
//! until it is dry. A [`leg`](Leg) is a call as seen from here: an INVITE from a peer or to one, the dialog that
//! comes of it, and everything said inside it. Requests from sources that no trunk admits are not answered.

mod admission;
mod auth;
mod checks;
mod command;
mod config;
mod early;
mod established;
mod event;
mod identity;
mod incoming;
mod info;
mod legs;
mod outgoing;
mod outsize;
mod ping;
mod prack;
mod refer;
mod register;
mod reinvite;
mod reliable;
mod reply;
mod requests;
mod routing;
mod said;
mod session_timer;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;

pub use command::{ContactSpec, Credentials, HangupReason, LegCommand, OutRequest, OutgoingInvite};
pub use config::{Advertised, UaConfig};
pub use event::{Answer, EndedBy, Failure, IncomingInvite, LegEvent, PhoneNews, Pong, UaEvent};
pub use refer::{Referral, ReplacesRef, TransferAsked, TransferNews};
pub(crate) use routing::shown_ip;

use super::deadlines::Deadlines;
use super::digest::DigestServer;
use super::message::{Message, Transport};
use super::transaction::{TableOutput, TransactionTable, TxEvent, TxId};
use super::transport::{ConnectionId, Incoming, Target};
use super::trunk::Trunks;
use crate::id::LegId;
use admission::Admission;
use legs::{DialogKey, Leg};
use outgoing::AnsweredInvite;
use outsize::Outsize;

/// What the user agent wants.
#[derive(Debug)]
pub enum Output {
    /// Send these octets.
    Send {
        /// To whom.
        target: Target,
        /// The message.
        bytes: Bytes,
    },
    /// Something for the layer above.
    Event(UaEvent),
}

/// All transactions, dialogs and legs of one node.
#[derive(Debug)]
pub struct UserAgent {
    config: UaConfig,
    trunks: Trunks,
    rng: StdRng,
    admission: Admission,
    digest_server: Option<DigestServer>,
    table: TransactionTable,
    legs: HashMap<LegId, Leg>,
    dialogs: HashMap<DialogKey, LegId>,
    /// INVITEs from peers, for CANCEL.
    incoming: HashMap<TxId, LegId>,
    /// What our requests are for.
    purposes: HashMap<TxId, Purpose>,
    /// INVITEs of ours that got a 2xx: it may come again, or from a fork.
    answered: HashMap<TxId, AnsweredInvite>,
    /// The dialogs that ended last, by key and peer's tag: a Replaces that names one is declined.
    ended: VecDeque<(DialogKey, String)>,
    deadlines: Deadlines<LegId>,
    /// When a re-INVITE of ours that is still undecided is given up, whether its leg lives or not.
    undecided: Deadlines<TxId>,
    outsize: Outsize,
    out: VecDeque<Output>,
    draining: bool,
    phones: register::Phones,
}

/// What a request of ours is for.
#[derive(Debug)]
enum Purpose {
    /// The INVITE of an outgoing call.
    Invite(LegId),
    /// A re-INVITE by command, or to refresh the session.
    Reinvite(LegId),
    /// Another request inside a dialog.
    Said(Box<said::Said>),
    /// A BYE, kept to be sent again with credentials.
    Bye(Box<outgoing::Farewell>),
    /// A CANCEL; its answer says nothing.
    Cancel,
    /// An OPTIONS to see whether a peer lives.
    Ping { id: u64, sent: Instant },
    /// A request of the layer above, outside of any dialog.
    Request(Box<requests::Asked>),
}

impl UserAgent {
    /// A user agent without calls. `rng` makes tags, branches and Call-IDs: it must be unpredictable outside of
    /// tests, or strangers could speak in our dialogs.
    pub fn new(config: UaConfig, trunks: Trunks, mut rng: StdRng) -> Self {
        Self {
            table: TransactionTable::new(config.timers),
            admission: Admission::new(&config, rng.random()),
            digest_server: None,
            config,
            trunks,
            rng,
            legs: HashMap::new(),
            dialogs: HashMap::new(),
            incoming: HashMap::new(),
            purposes: HashMap::new(),
            answered: HashMap::new(),
            ended: VecDeque::new(),
            deadlines: Deadlines::default(),
            undecided: Deadlines::default(),
            outsize: Outsize::default(),
            out: VecDeque::new(),
            draining: false,
            phones: register::Phones::default(),
        }
    }

    /// Takes a message from the network.
    pub fn receive(&mut self, now: Instant, incoming: Incoming) {
        let back = incoming.back();
        match incoming.message {
            Ok(Message::Request(request)) => self.receive_request(now, request, back),
            Ok(Message::Response(response)) => {
                metrics::counter!("tandem_sip_messages_total", "direction" => "in", "kind" => "response")
                    .increment(1);
                if !self.table.receive_response(now, response) {
                    dropped("stray_response");
                }
            }
            Err(error) => self.receive_malformed(now, &error, back),
        }
        self.settle(now);
    }

    /// Takes a command of a call. One for a leg that is over does nothing.
    pub fn command(&mut self, now: Instant, leg: LegId, command: LegCommand) {
        self.leg_command(now, leg, command);
        self.settle(now);
    }

    /// Starts an outgoing call. Its events carry `leg`.
    pub fn invite(&mut self, now: Instant, leg: LegId, invite: OutgoingInvite) {
        self.start_outgoing(now, leg, invite);
        self.settle(now);
    }

    /// Sends OPTIONS to see whether a peer lives; the outcome is [`UaEvent::Pong`] with this `id`.
    pub fn ping(&mut self, now: Instant, id: u64, target: Target) {
        self.send_ping(now, id, target);
        self.settle(now);
    }

    /// Sends a request outside of any dialog, with credentials when it is challenged; the outcome is
    /// [`UaEvent::Answer`] with this `id`.
    pub fn request(&mut self, now: Instant, id: u64, request: OutRequest) {
        self.send_out_request(now, id, request);
        self.settle(now);
    }

    /// The shell could not deliver to this address, or a connection broke with messages unsent.
    pub fn transport_failed(
        &mut self,
        now: Instant,
        transport: Transport,
        remote: SocketAddr,
        connection: Option<ConnectionId>,
    ) {
        self.table.transport_failed(now, transport, remote, connection);
        self.settle(now);
    }

    /// Refuses new calls with 503 and Retry-After from here on (or takes them again); calls that exist go on.
    pub fn drain(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Runs every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.table.handle_timeout(now);
        self.phones_timeout(now);
        self.settle(now);
        while let Some(leg) = self.deadlines.pop_due(now) {
            self.leg_timeout(now, leg);
            self.settle(now);
        }
        while let Some(tx) = self.undecided.pop_due(now) {
            if self.table.is_pending(tx) {
                self.no_response(now, tx, super::StatusCode::REQUEST_TIMEOUT);
                self.table.abandon(tx);
            }
            self.settle(now);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let phones = self.phones.next_timeout();
        let own = [self.table.next_timeout(), self.deadlines.next(), self.undecided.next(), phones];
        own.into_iter().flatten().min()
    }

    /// What to do next, until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// How many legs there are, those that still say goodbye included.
    pub fn leg_count(&self) -> usize {
        self.legs.len()
    }

    /// Whether requests of ours still wait for their answers, such as the BYEs of a shutdown.
    pub fn is_busy(&self) -> bool {
        let waits = |purpose: &Purpose| matches!(purpose, Purpose::Bye(_) | Purpose::Cancel);
        !self.legs.is_empty() || self.purposes.values().any(waits)
    }

    /// What is left, for a test that expected nothing.
    #[cfg(test)]
    fn remains(&self) -> String {
        format!("{:?} {:?} {:?}", self.legs, self.purposes, self.table)
    }

    /// How many transactions there are: from peers, and our own.
    pub fn transaction_counts(&self) -> (usize, usize) {
        (self.table.server_count(), self.table.client_count())
    }

    /// Whether a call or a registered phone depends on this connection.
    pub fn uses_connection(&self, connection: ConnectionId) -> bool {
        self.legs.values().any(|leg| leg.peer.connection == Some(connection)) || self.phones.uses(connection)
    }

    /// Whether somebody at this address may open a connection: a peer, or anybody while phones may register.
    pub fn may_connect(&self, remote: SocketAddr) -> bool {
        self.phones.is_open() || self.hears(remote)
    }

    /// Whether this address is the peer of a call, a trunk's, or that of a registered phone.
    pub fn hears(&self, remote: SocketAddr) -> bool {
        self.trunks.admit(remote.ip()).is_some()
            || self.phones.knows_source(remote.ip())
            || self.legs.values().any(|leg| leg.peer.remote.ip() == remote.ip())
    }

    /// Carries what the transactions produced to where it belongs, until nothing is left.
    fn settle(&mut self, now: Instant) {
        while let Some(output) = self.table.poll() {
            match output {
                TableOutput::Send { target, bytes, again } => {
                    if again {
                        metrics::counter!("tandem_sip_retransmissions_total").increment(1);
                    }
                    self.send(target, bytes);
                }
                TableOutput::Event(TxEvent::Response { tx, response }) => {
                    self.outsize.heard(tx);
                    self.response(now, tx, *response);
                }
                TableOutput::Event(TxEvent::TimedOut(tx)) => {
                    self.no_response(now, tx, super::StatusCode::REQUEST_TIMEOUT);
                }
                TableOutput::Event(TxEvent::TransportFailed(tx)) if self.fall_back_to_udp(now, tx) => {}
                TableOutput::Event(TxEvent::TransportFailed(tx)) => {
                    self.no_response(now, tx, super::StatusCode::SERVICE_UNAVAILABLE);
                }
                TableOutput::Event(TxEvent::Terminated(tx)) => {
                    self.purposes.remove(&tx);
                    self.answered.remove(&tx);
                    self.outsize.heard(tx);
                    self.undecided.set(tx, None);
                }
            }
        }
    }

    fn send(&mut self, target: Target, bytes: Bytes) {
        let kind = if bytes.starts_with(b"SIP/") { "response" } else { "request" };
        metrics::counter!("tandem_sip_messages_total", "direction" => "out", "kind" => kind).increment(1);
        self.out.push_back(Output::Send { target, bytes });
    }

    fn tell(&mut self, event: UaEvent) {
        self.out.push_back(Output::Event(event));
    }
}

/// Counts a message that gets no answer.
fn dropped(reason: &'static str) {
    metrics::counter!("tandem_sip_dropped_total", "reason" => reason).increment(1);
}
