//! Where a peer may make us send media to.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// What media addresses are refused, so that a description cannot aim our packets at ourselves, at the
/// network's plumbing or at a third party's services.
///
/// Loopback is allowed exactly when the peer itself signals from loopback. Link-local, multicast and
/// broadcast are always refused; unspecified means hold, not an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Networks that are refused besides: ours, for control.
    pub denied: Vec<IpNet>,
    /// The lowest port media may go to. Default 1024.
    pub lowest_port: u16,
}

impl Default for AddressPolicy {
    fn default() -> Self {
        Self { denied: Vec::new(), lowest_port: 1024 }
    }
}

impl AddressPolicy {
    /// Whether media may go to `target` for a peer that signals from `peer`.
    pub fn allows(&self, target: SocketAddr, peer: IpAddr) -> bool {
        let ip = target.ip().to_canonical();
        let special = ip.is_multicast() || ip.is_unspecified() || is_link_local(ip) || is_broadcast(ip);
        let loopback_ok = !ip.is_loopback() || peer.to_canonical().is_loopback();
        let denied = self.denied.iter().any(|network| network.contains(&ip));
        !special && loopback_ok && !denied && target.port() >= self.lowest_port
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, peer: &str) -> bool {
        AddressPolicy::default().allows(target.parse().unwrap(), peer.parse().unwrap())
    }

    #[test]
    fn a_carrier_cannot_aim_us_at_ourselves() {
        for target in [
            "127.0.0.1:5000",
            "[::1]:5000",
            "[::ffff:127.0.0.1]:5000",
            "169.254.169.254:8000",
            "[fe80::1]:5000",
            "224.0.0.1:5000",
            "255.255.255.255:5000",
            "0.1.2.3:5000",
            "192.0.2.1:53",
        ] {
            assert!(!check(target, "198.51.100.1"), "{target}");
        }
        assert!(check("192.0.2.1:4000", "198.51.100.1"));
        assert!(check("10.1.2.3:4000", "198.51.100.1"));
    }

    #[test]
    fn loopback_is_for_peers_on_loopback() {
        assert!(check("127.0.0.1:5000", "127.0.0.1"));
        assert!(check("[::1]:5000", "::1"));
    }

    #[test]
    fn denied_networks_are_refused() {
        let policy = AddressPolicy { denied: vec!["10.0.0.0/8".parse().unwrap()], ..Default::default() };
        assert!(!policy.allows("10.9.9.9:4000".parse().unwrap(), "192.0.2.1".parse().unwrap()));
    }
}
