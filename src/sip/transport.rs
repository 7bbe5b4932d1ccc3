//! Where a SIP message comes from and goes to, as values: the cores name addresses, the shell owns sockets.

use std::net::SocketAddr;

use bytes::Bytes;

use super::message::{Message, Transport};
use super::parse::ParseError;

/// One stream connection, numbered by the shell; never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A host name a TLS peer must prove, by number so that [`Target`] stays `Copy`;
/// [`super::endpoint::EndpointHandle::host`] gives it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostId(pub u32);

/// Where a message goes.
///
/// For a stream the shell uses `connection` while it is open, else any open connection to `remote`, else it
/// opens one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// How.
    pub transport: Transport,
    /// To whom.
    pub remote: SocketAddr,
    /// Our own address: of the socket that sends (UDP), or of the listener whose port stands in Via and
    /// Contact (streams).
    pub local: SocketAddr,
    /// The connection to prefer.
    pub connection: Option<ConnectionId>,
    /// The name a TLS peer must prove; `None`: its address (RFC 5922 section 7.1). Of no meaning without TLS.
    pub name: Option<HostId>,
}

impl Target {
    /// A target without a connection yet.
    pub const fn new(transport: Transport, remote: SocketAddr, local: SocketAddr) -> Self {
        Self { transport, remote, local, connection: None, name: None }
    }

    /// The same target, whose TLS peer must prove this name.
    pub const fn named(self, name: HostId) -> Self {
        Self { name: Some(name), ..self }
    }
}

/// A message as it came in.
#[derive(Debug)]
pub struct Incoming {
    /// What the parser made of it.
    pub message: Result<Message, ParseError>,
    /// The sender's address.
    pub source: SocketAddr,
    /// Our address it came to: a concrete one, even when the socket is bound to `0.0.0.0`. For a stream, the port
    /// is the listener's.
    pub local: SocketAddr,
    /// How it came.
    pub transport: Transport,
    /// On which connection.
    pub connection: Option<ConnectionId>,
    /// The octets as they came; empty unless the endpoint has a tap.
    pub raw: Bytes,
}

impl Incoming {
    /// Where an answer goes when nothing in the message says otherwise: back.
    pub fn back(&self) -> Target {
        Target {
            transport: self.transport,
            remote: self.source,
            local: self.local,
            connection: self.connection,
            name: None,
        }
    }
}
