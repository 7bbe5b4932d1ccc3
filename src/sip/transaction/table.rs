//! All transactions of a node: finds the one a message belongs to, and runs it.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;

use super::matching::{ClientKey, MergeKey, ServerKey};
use super::{
    ClientInput, ClientOutput, InviteClient, InviteServer, NonInviteClient, NonInviteServer, ServerInput,
    ServerOutput, TimerValues,
};
use crate::sip::deadlines::Deadlines;
use crate::sip::header::via::Via;
use crate::sip::headers::{HeaderError, HeaderName, HeaderValue};
use crate::sip::message::{Method, Request, Response, Transport};
use crate::sip::transport::{ConnectionId, Target};
use crate::sip::uri::Host;

/// A transaction of this node, numbered in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(u64);

/// What a request turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// A new request; the transaction user must answer this transaction.
    New(TxId),
    /// A CANCEL, with a transaction of its own, and the INVITE it means, if that is known (section 9.2).
    Cancel {
        /// The CANCEL's.
        cancel: TxId,
        /// The INVITE's.
        invite: Option<TxId>,
    },
    /// The same request came by another way (section 8.2.2.2): to be answered with 482.
    Merged(TxId),
    /// An ACK for a 2xx: it has no transaction; the dialog finds the INVITE.
    Ack,
    /// A repeat, or an ACK of a refusal: dealt with.
    Absorbed,
}

/// What the table wants.
#[derive(Debug)]
pub enum TableOutput {
    /// Send these octets.
    Send {
        /// To whom.
        target: Target,
        /// The message.
        bytes: Bytes,
        /// A retransmission.
        again: bool,
    },
    /// Something for the transaction user.
    Event(TxEvent),
}

/// What happens to a client transaction.
#[derive(Debug)]
pub enum TxEvent {
    /// A response that is not a repeat (but each 2xx to INVITE is one of its own).
    Response {
        /// Whose.
        tx: TxId,
        /// The response.
        response: Box<Response>,
    },
    /// No answer in time.
    TimedOut(TxId),
    /// The request could not be sent.
    TransportFailed(TxId),
    /// The transaction is over and forgotten; nothing more comes of it.
    Terminated(TxId),
}

/// All transactions.
#[derive(Debug)]
pub struct TransactionTable {
    values: TimerValues,
    next: u64,
    clients: HashMap<TxId, Client>,
    /// INVITEs of transactions that are over, until their last event is taken: on streams a refusal ends one at once.
    parting: HashMap<TxId, Box<Request>>,
    client_keys: HashMap<ClientKey, TxId>,
    servers: HashMap<TxId, Server>,
    server_keys: HashMap<ServerKey, TxId>,
    merges: HashMap<MergeKey, TxId>,
    deadlines: Deadlines<TxId>,
    out: VecDeque<TableOutput>,
}

#[derive(Debug)]
struct Client {
    machine: ClientMachine,
    key: ClientKey,
    target: Target,
    /// The INVITE, from which ACK and CANCEL are made.
    invite: Option<Box<Request>>,
}

#[derive(Debug)]
enum ClientMachine {
    Invite(InviteClient),
    Other(NonInviteClient),
}

#[derive(Debug)]
struct Server {
    machine: ServerMachine,
    key: ServerKey,
    merge: Option<MergeKey>,
    target: Target,
}

#[derive(Debug)]
enum ServerMachine {
    Invite(InviteServer),
    Other(NonInviteServer),
}

impl TransactionTable {
    /// No transactions.
    pub fn new(values: TimerValues) -> Self {
        Self {
            values,
            next: 0,
            clients: HashMap::new(),
            parting: HashMap::new(),
            client_keys: HashMap::new(),
            servers: HashMap::new(),
            server_keys: HashMap::new(),
            merges: HashMap::new(),
            deadlines: Deadlines::default(),
            out: VecDeque::new(),
        }
    }

    /// Takes a request that came from `back`. `via` is its topmost Via, already annotated with `received`.
    ///
    /// # Errors
    /// When a header that identifies the transaction is missing or broken.
    pub fn receive_request(
        &mut self,
        now: Instant,
        request: &Request,
        via: &Via,
        back: Target,
    ) -> Result<Arrival, HeaderError> {
        let key = ServerKey::of_request(request, via)?;
        if let Some(&tx) = self.server_keys.get(&key) {
            let input = if request.method == Method::Ack { ServerInput::Ack } else { ServerInput::Repeat };
            return Ok(if self.feed_server(now, tx, input) { Arrival::Ack } else { Arrival::Absorbed });
        }
        if request.method == Method::Ack {
            return Ok(Arrival::Ack);
        }
        let merge = MergeKey::of_request(request).filter(|_| request.method != Method::Cancel);
        let is_merged = merge.as_ref().is_some_and(|merge| self.merges.contains_key(merge));
        let tx = self.open_server(request, key, if is_merged { None } else { merge }, via, back);
        Ok(match request.method {
            _ if is_merged => Arrival::Merged(tx),
            Method::Cancel => {
                let invite = ServerKey::of_cancelled(request, via)?;
                Arrival::Cancel { cancel: tx, invite: self.server_keys.get(&invite).copied() }
            }
            _ => Arrival::New(tx),
        })
    }

    /// Whether a request belongs to a transaction that exists, and so passes every cap.
    pub fn knows(&self, request: &Request, via: &Via) -> bool {
        ServerKey::of_request(request, via).is_ok_and(|key| self.server_keys.contains_key(&key))
    }

    /// Answers a server transaction. Does nothing when it has its final response already, or is gone.
    pub fn respond(&mut self, now: Instant, tx: TxId, response: &Response) {
        self.respond_bytes(now, tx, response.status.get(), response.to_bytes());
    }

    /// Answers a server transaction with a response that is printed already.
    pub fn respond_bytes(&mut self, now: Instant, tx: TxId, status: u16, response: Bytes) {
        self.feed_server(now, tx, ServerInput::Respond { status, response });
    }

    /// Where the responses of a server transaction go.
    pub fn response_target(&self, tx: TxId) -> Option<Target> {
        self.servers.get(&tx).map(|server| server.target)
    }

    /// Whether an INVITE from a peer still waits for its final response.
    pub fn is_unanswered(&self, tx: TxId) -> bool {
        match self.servers.get(&tx).map(|server| &server.machine) {
            Some(ServerMachine::Invite(machine)) => machine.is_proceeding(),
            Some(ServerMachine::Other(_)) | None => false,
        }
    }

    /// Sends a request whose topmost Via carries `branch`.
    pub fn request(&mut self, now: Instant, request: Request, branch: &str, target: Target) -> TxId {
        let tx = self.next_id();
        let bytes = request.to_bytes();
        let reliable = target.transport.is_reliable();
        let key = ClientKey::new(branch, request.method.clone());
        let is_invite = request.method == Method::Invite;
        let machine = match is_invite {
            true => ClientMachine::Invite(InviteClient::new(now, bytes, self.values, reliable)),
            false => ClientMachine::Other(NonInviteClient::new(now, bytes, self.values, reliable)),
        };
        let invite = is_invite.then(|| Box::new(request));
        self.client_keys.insert(key.clone(), tx);
        self.clients.insert(tx, Client { machine, key, target, invite });
        self.drain_client(tx, None);
        tx
    }

    /// Sends CANCEL for an INVITE of ours (section 9.1). Returns the CANCEL's transaction; `None` when the INVITE has
    /// no provisional response yet (a CANCEL might overtake it) or has its final one.
    pub fn cancel(&mut self, now: Instant, invite: TxId, reason: Option<HeaderValue>) -> Option<TxId> {
        let client = self.clients.get(&invite)?;
        let ClientMachine::Invite(machine) = &client.machine else { return None };
        if !machine.is_proceeding() {
            return None;
        }
        let request = client.invite.as_deref()?;
        let mut cancel = Request::new(Method::Cancel, request.uri.clone());
        copy_for_companion(request, &mut cancel, Method::Cancel);
        cancel.headers.copy_from(&request.headers, HeaderName::To);
        if let Some(reason) = reason {
            cancel.headers.push(HeaderName::Reason, reason);
        }
        let (branch, target) = (client.key.branch().to_owned(), client.target);
        Some(self.request(now, cancel, &branch, target))
    }

    /// Forgets a request of ours that nobody waits for any more; late responses to it are strays.
    pub fn abandon(&mut self, tx: TxId) {
        self.deadlines.set(tx, None);
        if let Some(client) = self.clients.remove(&tx) {
            self.client_keys.remove(&client.key);
            self.out.push_back(TableOutput::Event(TxEvent::Terminated(tx)));
        }
    }

    /// The INVITE of a client transaction.
    pub fn sent_invite(&self, tx: TxId) -> Option<&Request> {
        let living = self.clients.get(&tx).and_then(|client| client.invite.as_deref());
        living.or_else(|| self.parting.get(&tx).map(|invite| &**invite))
    }

    /// Whether an INVITE of ours has no final response yet.
    pub fn is_pending(&self, tx: TxId) -> bool {
        match self.clients.get(&tx).map(|client| &client.machine) {
            Some(ClientMachine::Invite(machine)) => machine.is_pending(),
            Some(ClientMachine::Other(_)) | None => false,
        }
    }

    /// Takes a response. Returns whether it belongs to a transaction.
    pub fn receive_response(&mut self, now: Instant, response: Response) -> bool {
        let Some(tx) = ClientKey::of_response(&response).and_then(|key| self.client_keys.get(&key).copied())
        else {
            return false;
        };
        let Some(client) = self.clients.get_mut(&tx) else { return false };
        let ack = match &client.invite {
            Some(invite) if response.status.get() >= 300 => Some(ack_for_refusal(invite, &response)),
            _ => None,
        };
        client.handle(now, ClientInput::Response { status: response.status.get(), ack });
        self.drain_client(tx, Some(response));
        true
    }

    /// The shell could not deliver to this address: pending requests to it fail.
    pub fn transport_failed(
        &mut self,
        now: Instant,
        transport: Transport,
        remote: SocketAddr,
        connection: Option<ConnectionId>,
    ) {
        let mut hit: Vec<TxId> = self
            .clients
            .iter()
            .filter(|(_, client)| {
                let target = &client.target;
                let same_way = target.transport == transport && target.remote == remote;
                same_way || connection.is_some() && target.connection == connection
            })
            .map(|(tx, _)| *tx)
            .collect();
        hit.sort_unstable();
        for tx in hit {
            if let Some(client) = self.clients.get_mut(&tx) {
                client.handle(now, ClientInput::TransportFailed);
            }
            self.drain_client(tx, None);
        }
    }

    /// Runs every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(tx) = self.deadlines.pop_due(now) {
            if let Some(client) = self.clients.get_mut(&tx) {
                client.handle(now, ClientInput::Timeout);
                self.drain_client(tx, None);
            } else {
                self.feed_server(now, tx, ServerInput::Timeout);
            }
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// What to do next, until `None`.
    pub fn poll(&mut self) -> Option<TableOutput> {
        let output = self.out.pop_front();
        if let Some(TableOutput::Event(TxEvent::Terminated(tx))) = &output {
            self.parting.remove(tx);
        }
        output
    }

    /// How many server transactions there are.
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// How many client transactions there are.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    fn next_id(&mut self) -> TxId {
        self.next += 1;
        TxId(self.next)
    }

    fn open_server(
        &mut self,
        request: &Request,
        key: ServerKey,
        merge: Option<MergeKey>,
        via: &Via,
        back: Target,
    ) -> TxId {
        let tx = self.next_id();
        let reliable = back.transport.is_reliable();
        let machine = match request.method {
            Method::Invite => ServerMachine::Invite(InviteServer::new(self.values, reliable)),
            _ => ServerMachine::Other(NonInviteServer::new(self.values, reliable)),
        };
        if let Some(merge) = &merge {
            self.merges.insert(merge.clone(), tx);
        }
        self.server_keys.insert(key.clone(), tx);
        self.servers.insert(tx, Server { machine, key, merge, target: response_target(via, back) });
        tx
    }

    /// Returns whether the input was an ACK for the transaction user.
    fn feed_server(&mut self, now: Instant, tx: TxId, input: ServerInput) -> bool {
        let Some(server) = self.servers.get_mut(&tx) else { return false };
        let mut pass_ack = false;
        server.machine.handle(now, input);
        while let Some(output) = server.machine.poll() {
            let (bytes, again) = match output {
                ServerOutput::Send(bytes) => (bytes, false),
                ServerOutput::Resend(bytes) => (bytes, true),
                ServerOutput::PassAck => {
                    pass_ack = true;
                    continue;
                }
                ServerOutput::NoAck => continue,
            };
            self.out.push_back(TableOutput::Send { target: server.target, bytes, again });
        }
        if server.machine.is_terminated() {
            self.forget_server(tx);
        } else {
            self.deadlines.set(tx, server.machine.next_timeout());
        }
        pass_ack
    }

    fn drain_client(&mut self, tx: TxId, mut response: Option<Response>) {
        let Some(client) = self.clients.get_mut(&tx) else { return };
        while let Some(output) = client.poll() {
            let target = client.target;
            let output = match output {
                ClientOutput::Send(bytes) => TableOutput::Send { target, bytes, again: false },
                ClientOutput::Resend(bytes) => TableOutput::Send { target, bytes, again: true },
                ClientOutput::Pass => match response.take() {
                    Some(response) => {
                        TableOutput::Event(TxEvent::Response { tx, response: Box::new(response) })
                    }
                    None => continue,
                },
                ClientOutput::TimedOut => TableOutput::Event(TxEvent::TimedOut(tx)),
                ClientOutput::TransportFailed => TableOutput::Event(TxEvent::TransportFailed(tx)),
            };
            self.out.push_back(output);
        }
        if client.is_terminated() {
            self.deadlines.set(tx, None);
            if let Some(client) = self.clients.remove(&tx) {
                self.client_keys.remove(&client.key);
                self.parting.extend(client.invite.map(|invite| (tx, invite)));
            }
            self.out.push_back(TableOutput::Event(TxEvent::Terminated(tx)));
        } else {
            self.deadlines.set(tx, client.next_timeout());
        }
    }

    fn forget_server(&mut self, tx: TxId) {
        self.deadlines.set(tx, None);
        if let Some(server) = self.servers.remove(&tx) {
            self.server_keys.remove(&server.key);
            if let Some(merge) = server.merge {
                self.merges.remove(&merge);
            }
        }
    }
}

impl Client {
    fn handle(&mut self, now: Instant, input: ClientInput) {
        match &mut self.machine {
            ClientMachine::Invite(machine) => machine.handle(now, input),
            ClientMachine::Other(machine) => machine.handle(now, input),
        }
    }

    fn poll(&mut self) -> Option<ClientOutput> {
        match &mut self.machine {
            ClientMachine::Invite(machine) => machine.poll(),
            ClientMachine::Other(machine) => machine.poll(),
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match &self.machine {
            ClientMachine::Invite(machine) => machine.next_timeout(),
            ClientMachine::Other(machine) => machine.next_timeout(),
        }
    }

    fn is_terminated(&self) -> bool {
        match &self.machine {
            ClientMachine::Invite(machine) => machine.is_terminated(),
            ClientMachine::Other(machine) => machine.is_terminated(),
        }
    }
}

impl ServerMachine {
    fn handle(&mut self, now: Instant, input: ServerInput) {
        match self {
            Self::Invite(machine) => machine.handle(now, input),
            Self::Other(machine) => machine.handle(now, input),
        }
    }

    fn poll(&mut self) -> Option<ServerOutput> {
        match self {
            Self::Invite(machine) => machine.poll(),
            Self::Other(machine) => machine.poll(),
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Invite(machine) => machine.next_timeout(),
            Self::Other(machine) => machine.next_timeout(),
        }
    }

    fn is_terminated(&self) -> bool {
        match self {
            Self::Invite(machine) => machine.is_terminated(),
            Self::Other(machine) => machine.is_terminated(),
        }
    }
}

/// Notes on the topmost Via where the request really came from (RFC 3261 section 18.2.1, RFC 3581 section 4).
pub(crate) fn annotate(via: &mut Via, source: SocketAddr) {
    let asks_port = via.rport().is_some();
    if asks_port || via.host() != Host::Ip(source.ip().to_canonical()) {
        via.set_received(source.ip());
    }
    if asks_port {
        via.set_rport(source.port());
    }
}

/// Where responses go: RFC 3261 section 18.2.2, RFC 3581 section 4. On a stream back over its connection, and when
/// that is gone to the sender's listening port.
pub(crate) fn response_target(via: &Via, back: Target) -> Target {
    let listening = via.port().unwrap_or(back.transport.default_port());
    let remote = if back.transport.is_reliable() {
        SocketAddr::new(back.remote.ip(), listening)
    } else if let Some(maddr) = via.maddr().filter(is_unicast) {
        SocketAddr::new(maddr, listening)
    } else if via.rport().is_some() {
        back.remote
    } else {
        SocketAddr::new(back.remote.ip(), listening)
    };
    Target { remote, ..back }
}

/// A multicast or broadcast `maddr` would multiply our answers.
fn is_unicast(ip: &IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_multicast() && !ip.is_unspecified() && !broadcast
}

/// The ACK of a 3xx-6xx: same branch, Request-URI, Route and CSeq number; To of the response (section 17.1.1.3).
fn ack_for_refusal(invite: &Request, response: &Response) -> Bytes {
    let mut ack = Request::new(Method::Ack, invite.uri.clone());
    copy_for_companion(invite, &mut ack, Method::Ack);
    ack.headers.copy_from(&response.headers, HeaderName::To);
    ack.to_bytes()
}

/// What ACK and CANCEL have in common with the INVITE they belong to (sections 9.1 and 17.1.1.3).
fn copy_for_companion(invite: &Request, companion: &mut Request, method: Method) {
    let headers = &mut companion.headers;
    if let Ok(via) = invite.headers.via_top() {
        headers.push(HeaderName::Via, via);
    }
    headers.push(HeaderName::MaxForwards, 70);
    for name in [HeaderName::Route, HeaderName::From, HeaderName::CallId] {
        headers.copy_from(&invite.headers, name);
    }
    if let Ok(mut cseq) = invite.headers.cseq() {
        cseq.method = method;
        headers.push(HeaderName::CSeq, cseq);
    }
}
