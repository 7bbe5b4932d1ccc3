//! The phone's SIP sockets.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::sip::endpoint::{Endpoint, EndpointConfig, EndpointHandle, Listener, StartError};
use crate::sip::message::Transport;
use crate::sip::profile::Profile;
use crate::sip::transport::Target;
use crate::sip::trunk::{Trunk, Trunks};
use crate::sip::ua::{UaConfig, UaEvent};
use crate::sip::uri::{Host, Uri};

use super::Secrecy;

/// Opens UDP and TCP on this port; 0 takes free ones. TLS has the next port. Callers are admitted only to a phone that
/// answers.
pub(super) async fn open(
    local: IpAddr,
    answers_at: Option<u16>,
    secrecy: Secrecy,
    events: mpsc::Sender<UaEvent>,
) -> Result<EndpointHandle, StartError> {
    let port = answers_at.unwrap_or(0);
    let listener = |transport, port| Listener { transport, address: SocketAddr::new(local, port) };
    let mut listen = vec![listener(Transport::Udp, port), listener(Transport::Tcp, port)];
    if secrecy.tls {
        let next = if port == 0 { 0 } else { port.saturating_add(1) };
        listen.push(listener(Transport::Tls, next));
    }
    let trunks = if answers_at.is_some() { everybody() } else { Trunks::default() };
    let mut config = EndpointConfig::new(listen, trunks);
    config.tls = secrecy.certificate;
    config.tls_roots = secrecy.roots;
    config.tls_without_certificate = true;
    config.ua =
        UaConfig { user_agent: "Tandem simulated phone".to_owned(), legs_max: 10_000, ..UaConfig::default() };
    Endpoint::start(config, events).await
}

/// Where a request to `uri` goes. Over TLS the peer must prove the host that stands there.
pub(super) fn target(
    endpoint: &EndpointHandle,
    transport: Transport,
    remote: SocketAddr,
    uri: &Uri,
) -> anyhow::Result<Target> {
    let target = endpoint.target(transport, remote)?;
    match uri.host() {
        Some(Host::Name(name)) if transport.is_secure() => {
            let host = endpoint.host(name).context("too many host names are known")?;
            Ok(target.named(host))
        }
        _ => Ok(target),
    }
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
