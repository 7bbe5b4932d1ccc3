//! What the socket tasks tell the endpoint, and in which queue it waits.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::sip::headers::HeaderName;
use crate::sip::message::{Message, Method, Transport};
use crate::sip::transaction::tag_in;
use crate::sip::transport::{ConnectionId, Incoming};

/// How the socket tasks reach the endpoint.
///
/// What they say that would make new state waits in a queue of its own, so that a flood of it does not hold up what
/// is said in calls.
#[derive(Clone)]
pub(in crate::sip) struct ToEndpoint {
    pub(in crate::sip) first: mpsc::Sender<Wire>,
    pub(in crate::sip) fresh: mpsc::Sender<Wire>,
    /// Messages are wanted as they came, too.
    pub(in crate::sip) tapped: bool,
}

impl ToEndpoint {
    /// The queue for this message. A CANCEL stays behind its INVITE.
    pub(in crate::sip) fn queue(&self, incoming: &Incoming) -> &mpsc::Sender<Wire> {
        let fresh = match &incoming.message {
            Ok(Message::Response(_)) => false,
            Ok(Message::Request(request)) => match request.method {
                Method::Cancel => true,
                Method::Ack | Method::Bye => false,
                _ => tag_in(&request.headers, HeaderName::To).is_none(),
            },
            Err(_) => true,
        };
        if fresh { &self.fresh } else { &self.first }
    }
}

/// What the socket tasks tell the endpoint.
pub(in crate::sip) enum Wire {
    Message(Box<Incoming>),
    Accepted {
        stream: TcpStream,
        transport: Transport,
        remote: SocketAddr,
        local: SocketAddr,
    },
    Idle {
        id: ConnectionId,
    },
    Closed {
        id: ConnectionId,
        broken: bool,
    },
    /// What looks like STUN, on the datagram socket bound here.
    Stun {
        bound: SocketAddr,
        source: SocketAddr,
        datagram: Bytes,
    },
}

/// Messages of calls read and not yet handled.
pub(super) const WIRE_QUEUE: usize = 1_024;
/// behind a flood.
pub(super) const FRESH_QUEUE: usize = 512;
