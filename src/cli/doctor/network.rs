//! Listeners, media ports and the address peers are told.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::Check;
use crate::config::{Config, SipTransport};

/// Whether each listener's port can be had.
pub(super) async fn listeners(config: &Config, running: bool) -> Vec<Check> {
    let sip = config.sip.listen.iter();
    let sip = sip.map(|listen| (listen.to_string(), listen.transport == SipTransport::Udp, listen.address));
    let http = (format!("http://{}", config.http.listen), false, config.http.listen);
    sip.chain([http]).map(|(name, udp, address)| listener(&name, udp, address, running)).collect()
}

fn listener(name: &str, udp: bool, address: SocketAddr, running: bool) -> Check {
    let bound = if udp { UdpSocket::bind(address).map(drop) } else { TcpListener::bind(address).map(drop) };
    let why = "`tandem serve` cannot listen there";
    match bound {
        Ok(()) => Check::ok("listener", format!("{name} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && running => {
            Check::ok("listener", format!("{name} is in use, by the Tandem that runs here"))
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => Check::fail(
            "listener",
            format!("{name} is taken"),
            why,
            format!(
                "find who has it with `ss -lpn 'sport = :{}'` and stop it, or take another port",
                address.port()
            ),
        ),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Check::fail(
            "listener",
            format!("{name} is not permitted"),
            why,
            "take a port from 1024 up, or run `setcap cap_net_bind_service=+ep` on the program",
        ),
        Err(error) => {
            Check::fail("listener", format!("{name}: {error}"), why, "write an address of this machine")
        }
    }
}

/// Tries some ports of the range.
pub(super) fn rtp_ports(config: &Config) -> Check {
    let range = config.media.rtp_ports;
    let ip =
        config.sip.listen.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |listen| listen.address.ip());
    let step = usize::try_from(range.pairs() / SAMPLES).unwrap_or(1).max(1) * 2;
    let ports: Vec<u16> =
        (range.first..=range.last).filter(|port| port % 2 == 0).step_by(step.div_ceil(2)).collect();
    let taken = ports.iter().filter(|port| UdpSocket::bind((ip, **port)).is_err()).count();
    let what = format!("{range}: {} calls; {taken} of {} ports tried are taken", range.pairs(), ports.len());
    let why = "fewer calls fit at a time";
    match taken {
        0 => Check::ok("rtp_ports", what),
        n if n == ports.len() => Check::fail(
            "rtp_ports",
            what,
            "no call would have audio",
            "move media.rtp_ports to a free range, or correct the address in sip.listen",
        ),
        n if n * 4 >= ports.len() => {
            let fix = "move media.rtp_ports away from other programs and from net.ipv4.ip_local_port_range";
            Check::warn("rtp_ports", what, why, fix)
        }
        _ => Check::ok("rtp_ports", what),
    }
}

/// Ports tried.
const SAMPLES: u32 = 50;

/// Whether peers elsewhere are told an address they can reach.
pub(super) fn address(config: &Config) -> Check {
    let wide: Vec<IpAddr> =
        config.sip.listen.iter().map(|listen| listen.address.ip()).filter(|ip| !ip.is_loopback()).collect();
    let private = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    if wide.is_empty() {
        return Check::ok("address", "SIP is for this machine only");
    }
    if let Some(advertise) = config.sip.advertise {
        let what = format!("peers are told {advertise}");
        let public_trunk = config.trunk.iter().flat_map(|t| &t.allow).any(|n| !private(&n.0.addr()));
        if private(&advertise) && public_trunk {
            let fix = "set sip.advertise to the public address that NAT translates";
            return Check::warn(
                "address",
                what,
                "a carrier on the internet cannot send audio to a private address",
                fix,
            );
        }
        return Check::ok("address", what);
    }
    let own = wide.iter().find(|ip| !ip.is_unspecified()).copied().or_else(outbound_address);
    match own {
        Some(ip) if private(&ip) => Check::warn(
            "address",
            format!("sip.advertise is not set, and this machine's address is {ip}"),
            "behind NAT, peers on the internet are told an address they cannot reach: calls without audio",
            "set sip.advertise to the public address; leave it when all peers are in this network",
        ),
        Some(ip) => Check::ok("address", format!("peers are told the address they send to, here {ip}")),
        None => Check::warn(
            "address",
            "this machine has no route to the internet",
            "carriers cannot be reached",
            "check the network; leave it when all peers are in this network",
        ),
    }
}

/// The address this machine would send from. Connecting a UDP socket sends nothing.
fn outbound_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
