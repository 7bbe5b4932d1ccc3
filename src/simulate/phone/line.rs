//! The phone's SIP sockets.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use tokio::sync::mpsc;

use crate::sip::endpoint::{Endpoint, EndpointConfig, EndpointHandle, Listener, StartError};
use crate::sip::message::Transport;
use crate::sip::profile::Profile;
use crate::sip::trunk::{Trunk, Trunks};
use crate::sip::ua::{UaConfig, UaEvent};

/// Opens UDP and TCP on this port; 0 takes free ones. Callers are admitted only to a phone that `answers`.
pub(super) async fn open(
    local: IpAddr,
    port: u16,
    answers: bool,
    events: mpsc::Sender<UaEvent>,
) -> Result<EndpointHandle, StartError> {
    let address = SocketAddr::new(local, port);
    let listen = [Transport::Udp, Transport::Tcp].map(|transport| Listener { transport, address });
    let mut config =
        EndpointConfig::new(listen.to_vec(), if answers { everybody() } else { Trunks::default() });
    config.ua =
        UaConfig { user_agent: "Tandem simulated phone".to_owned(), legs_max: 10_000, ..UaConfig::default() };
    Endpoint::start(config, events).await
}

/// A phone takes calls from whoever reaches it.
fn everybody() -> Trunks {
    let Some(profile) = Profile::builtin("generic") else { return Trunks::default() };
    let mut everybody = Trunk::new("everybody", profile);
    everybody.allow = ["0.0.0.0/0", "::/0"].iter().filter_map(|network| network.parse().ok()).collect();
    Trunks::new([everybody])
}

/// Our address as seen by `remote`. Nothing is sent.
pub(super) fn towards(remote: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = if remote.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let probe = UdpSocket::bind(any)?;
    probe.connect(remote)?;
    Ok(probe.local_addr()?.ip())
}
