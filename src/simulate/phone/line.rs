//! The phone's SIP sockets.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use tokio::sync::mpsc;

use crate::sip::endpoint::{Endpoint, EndpointConfig, EndpointHandle, Listener, StartError};
use crate::sip::message::Transport;
use crate::sip::trunk::Trunks;
use crate::sip::ua::{UaConfig, UaEvent};

/// Opens UDP and TCP on free ports. Nobody is admitted as a caller: this phone only dials.
pub(super) async fn open(local: IpAddr, events: mpsc::Sender<UaEvent>) -> Result<EndpointHandle, StartError> {
    let address = SocketAddr::new(local, 0);
    let listen = [Transport::Udp, Transport::Tcp].map(|transport| Listener { transport, address });
    let mut config = EndpointConfig::new(listen.to_vec(), Trunks::default());
    config.ua =
        UaConfig { user_agent: "Tandem simulated phone".to_owned(), legs_max: 10_000, ..UaConfig::default() };
    Endpoint::start(config, events).await
}

/// Our address as seen by `remote`. Nothing is sent.
pub(super) fn towards(remote: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = if remote.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let probe = UdpSocket::bind(any)?;
    probe.connect(remote)?;
    Ok(probe.local_addr()?.ip())
}
