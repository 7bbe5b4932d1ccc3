//! Where tools of organizations may send requests: the internet, and what the operator names besides.
//!
//! Whoever declares a webhook chooses an address that this server then asks. Addresses inside (loopback, private and
//! link-local networks, a cloud's metadata service) are therefore refused, by the address that a name really leads
//! to: it is judged where the connection is made, so that a name cannot change its mind in between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Which addresses may be asked.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
}

impl Guard {
    /// The internet, and these networks.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether this address may be asked.
    pub fn lets(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allowed.iter().any(|network| network.contains(&address))
    }

    /// Whether this URL may be asked, as far as can be told without looking its name up.
    ///
    /// # Errors
    /// In words, with what to do.
    pub fn check(&self, url: &Url) -> Result<(), String> {
        let address: Option<IpAddr> = match url.host_str().unwrap_or_default() {
            "" => {
                return Err("the URL has no host; write one such as https://crm.example.com/hook".to_owned());
            }
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            // Every spelling of an IPv4 address has become the usual one when the URL was read.
            host => host.trim_start_matches('[').trim_end_matches(']').parse().ok(),
        };
        let loopback = address.is_some_and(|address| address.to_canonical().is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            _ => return Err("the URL must begin with https:// (http:// to this machine alone)".to_owned()),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL must hold no password; use headers_env".to_owned());
        }
        match address {
            Some(address) if !self.lets(address) => Err(refused(address)),
            _ => Ok(()),
        }
    }
}

fn refused(address: IpAddr) -> String {
    format!("{address} is a private address; name its network in tools.allow_networks if tools may ask it")
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let public: Vec<SocketAddr> =
                found.iter().copied().filter(|found| guard.lets(found.ip())).collect();
            match (public.is_empty(), found.first()) {
                (true, Some(inside)) => Err(refused(inside.ip()).into()),
                _ => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether everybody on the internet means the same by this address (the IANA special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let inside = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19));
    !inside
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Only 2000::/3 is in use; of it, what leads to IPv4 addresses or is for documents is left out.
    (segments[0] & 0xe000) == 0x2000
        && segments[0] != 0x2002
        && !(segments[0] == 0x2001 && (segments[1] < 0x0200 || segments[1] == 0x0db8))
        && !(segments[0] == 0x3fff && segments[1] < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_is_refused_in_every_spelling() {
        let guard = Guard::default();
        for inside in [
            "http://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://10.1.2.3/",
            "https://192.168.0.1/",
            "https://172.16.5.5/",
            "https://169.254.169.254/latest",
            "https://100.100.100.200/",
            "https://0.0.0.0/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[2002:a00:1::]/",
            "https://localhost/",
            "https://224.0.0.1/",
            "https://198.18.0.1/",
        ] {
            let url: Url = inside.parse().unwrap();
            assert!(guard.check(&url).is_err(), "{inside}");
        }
        for outside in ["https://example.com/hook", "https://8.8.8.8/", "https://[2606:4700::1111]/"] {
            assert!(guard.check(&outside.parse().unwrap()).is_ok(), "{outside}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_where_it_is_looked_up() {
        let name = || "localhost".parse().expect("a name");
        let refusal = Guard::default().resolve(name()).await.err().expect("it is this machine");
        assert!(refusal.to_string().contains("tools.allow_networks"), "{refusal}");
        let both = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
        assert!(Guard::new(both.to_vec()).resolve(name()).await.is_ok());
    }

    #[test]
    fn plain_http_goes_to_this_machine_alone_and_only_if_it_is_allowed() {
        let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
        for (url, right) in [
            ("http://127.0.0.1:9/", true),
            ("https://10.0.0.4/", true),
            ("http://10.0.0.4/", false),
            ("http://example.com/", false),
            ("ftp://example.com/", false),
            ("https://me:secret@example.com/", false),
        ] {
            assert_eq!(guard.check(&url.parse().unwrap()).is_ok(), right, "{url}");
        }
    }
}
