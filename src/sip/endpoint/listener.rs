//! Where an endpoint listens, as it is written.

use std::net::SocketAddr;
use std::str::FromStr;

use crate::sip::message::Transport;

/// A transport and an address: `udp://0.0.0.0:5060`, `tcp://[::]:5060`, `tls://0.0.0.0:5061`, `ws://127.0.0.1:8088`,
/// `wss://0.0.0.0:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The transport.
    pub transport: Transport,
    /// The address.
    pub address: SocketAddr,
}

/// Text that names no listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no SIP listener; write it as udp://0.0.0.0:5060, tcp://[::]:5060, tls://0.0.0.0:5061, ws://127.0.0.1:8088 or wss://0.0.0.0:443"
)]
pub struct ListenerError(String);

impl FromStr for Listener {
    type Err = ListenerError;

    fn from_str(text: &str) -> Result<Self, ListenerError> {
        let error = || ListenerError(text.to_owned());
        let (scheme, address) = text.split_once("://").ok_or_else(error)?;
        let transport = Transport::from_token(scheme).ok_or_else(error)?;
        Ok(Self { transport, address: address.parse().map_err(|_| error())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_written_as_urls() {
        let listener: Listener = "tcp://[::]:5060".parse().expect("a listener");
        assert_eq!((listener.transport, listener.address.port()), (Transport::Tcp, 5060));
        for wrong in ["5060", "http://0.0.0.0:80", "udp://example.com:5060", "udp://0.0.0.0"] {
            assert!(wrong.parse::<Listener>().is_err(), "{wrong}");
        }
    }
}
