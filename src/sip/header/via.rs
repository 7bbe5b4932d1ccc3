//! `Via: SIP/2.0/UDP host:port;branch=...`: one hop of the way a request came (RFC 3261 section 20.42).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::params::{self, Params};
use super::{Malformed, assembled, is_token_byte, token, trim};
use crate::sip::headers::{HeaderError, HeaderValue};
use crate::sip::message::Transport;
use crate::sip::uri::{Host, read_ipv6, read_port, scan_host};

/// One hop.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Via {
    transport: Box<str>,
    host: Box<str>,
    ip: Option<Ipv6Addr>,
    port: Option<u16>,
    /// `branch`, `received`, `rport`, `maddr`, `ttl` and others.
    pub params: Params,
}

impl Via {
    /// Our own hop: `host` is an IP address or a name; `rport` is asked for over UDP (RFC 3581 section 3).
    ///
    /// # Errors
    /// When host or branch may not stand there.
    pub fn new(
        transport: Transport,
        host: &str,
        port: Option<u16>,
        branch: &str,
    ) -> Result<Self, HeaderError> {
        let host = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
            _ => host.to_owned(),
        };
        let not_a_host = |_| HeaderError::NotAToken;
        let ((_, ip), end) = scan_host(host.as_bytes(), 0).map_err(not_a_host)?;
        if end != host.len() {
            return Err(HeaderError::NotAToken);
        }
        let mut params = Params::default();
        if transport == Transport::Udp {
            params.set("rport", None)?;
        }
        params.set("branch", Some(branch))?;
        Ok(Self { transport: transport.via_token().into(), host: host.into(), ip, port, params })
    }

    /// Reads one value.
    ///
    /// # Errors
    /// When protocol, host, port or parameters are broken.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let parts = Parts::split(text)?;
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into();
        Ok(Self {
            transport: text(parts.transport),
            host: text(parts.host),
            ip: parts.ip,
            port: parts.port,
            params: Params::parse(parts.params)?,
        })
    }

    /// The transport, when it is one we know.
    pub fn transport(&self) -> Option<Transport> {
        Transport::from_token(&self.transport)
    }

    /// The transport as written.
    pub fn transport_text(&self) -> &str {
        &self.transport
    }

    /// The host of sent-by.
    pub fn host(&self) -> Host<'_> {
        self.ip.map_or_else(|| Host::of(&self.host), |v6| Host::Ip(v6.into()))
    }

    /// The port of sent-by, when one is written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Host and port of sent-by as written, the host in lower case: part of a transaction's key.
    pub fn sent_by(&self) -> String {
        let host = self.host.to_ascii_lowercase();
        self.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }

    /// The `branch` parameter.
    pub fn branch(&self) -> Option<&str> {
        self.params.get_str("branch").filter(|branch| !branch.is_empty())
    }

    /// The `received` parameter; brackets around IPv6 are forgiven (RFC 5118 section 4.5).
    pub fn received(&self) -> Option<IpAddr> {
        self.address_param("received")
    }

    /// The `maddr` parameter, when it is an address.
    pub fn maddr(&self) -> Option<IpAddr> {
        self.address_param("maddr")
    }

    /// The `rport` parameter: `Some(None)` when it asks, `Some(Some(port))` when it answers (RFC 3581).
    pub fn rport(&self) -> Option<Option<u16>> {
        let value = self.params.get_str("rport")?;
        Some(value.parse().ok().filter(|port| *port != 0))
    }

    /// Notes where the request really came from. Written without brackets.
    pub fn set_received(&mut self, ip: IpAddr) {
        // An address is made of octets that may stand in a parameter.
        let _always = self.params.set("received", Some(&ip.to_canonical().to_string()));
    }

    /// Notes the port the request really came from.
    pub fn set_rport(&mut self, port: u16) {
        // A number is a token.
        let _always = self.params.set("rport", Some(&port.to_string()));
    }

    /// The value as it stands in a header.
    pub fn to_value(&self) -> HeaderValue {
        assembled(format_head(&self.transport, &self.host, self.port, self.params.as_bytes()))
    }

    fn address_param(&self, name: &str) -> Option<IpAddr> {
        let text = self.params.get_str(name)?;
        let text = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        text.parse().ok().or_else(|| read_ipv6(text.as_bytes()).ok().map(IpAddr::V6))
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_value().to_text())
    }
}

impl From<&Via> for HeaderValue {
    fn from(via: &Via) -> Self {
        via.to_value()
    }
}

impl From<Via> for HeaderValue {
    fn from(via: Via) -> Self {
        via.to_value()
    }
}

/// Checks one value without allocating.
pub(crate) fn check(text: &[u8]) -> Result<(), Malformed> {
    params::check(Parts::split(text)?.params)
}

fn format_head(transport: &str, host: &str, port: Option<u16>, params: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + host.len() + params.len());
    out.extend_from_slice(b"SIP/2.0/");
    out.extend_from_slice(transport.as_bytes());
    out.push(b' ');
    out.extend_from_slice(host.as_bytes());
    if let Some(port) = port {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
    out.extend_from_slice(params);
    out
}

struct Parts<'a> {
    transport: &'a [u8],
    host: &'a [u8],
    ip: Option<Ipv6Addr>,
    port: Option<u16>,
    params: &'a [u8],
}

impl<'a> Parts<'a> {
    /// White space may stand around every `/`, `:`, `;` and `=`.
    fn split(text: &'a [u8]) -> Result<Self, Malformed> {
        let (protocol, rest) = until_slash(text)?;
        let (version, rest) = until_slash(rest)?;
        if !protocol.eq_ignore_ascii_case(b"SIP") || version != b"2.0" {
            return Err(Malformed("not SIP/2.0"));
        }
        let rest = trim(rest);
        let end = rest.iter().position(|b| !is_token_byte(*b)).ok_or(Malformed("no host"))?;
        let transport = &rest[..end];
        if token(transport).is_none() || !matches!(rest[end], b' ' | b'\t') {
            return Err(Malformed("no transport"));
        }
        let rest = trim(&rest[end..]);
        let ((_, ip), end) = scan_host(rest, 0)?;
        let host = &rest[..end];
        let mut rest = trim(&rest[end..]);
        let mut port = None;
        if let [b':', after @ ..] = rest {
            let after = trim(after);
            let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
            port = read_port(&after[..digits])?;
            rest = trim(&after[digits..]);
        }
        Ok(Self { transport, host, ip, port, params: rest })
    }
}

fn until_slash(text: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let slash = text.iter().position(|b| *b == b'/').ok_or(Malformed("not SIP/2.0"))?;
    Ok((trim(&text[..slash]), &text[slash + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_hop_is_written_with_rport_on_udp() {
        let via = Via::new(Transport::Udp, "2001:db8::1", Some(5060), "z9hG4bKx").unwrap();
        assert_eq!(via.to_string(), "SIP/2.0/UDP [2001:db8::1]:5060;rport;branch=z9hG4bKx");
        let via = Via::new(Transport::Tcp, "sip.example.com", None, "z9hG4bKx").unwrap();
        assert_eq!(via.to_string(), "SIP/2.0/TCP sip.example.com;branch=z9hG4bKx");
        assert!(Via::new(Transport::Tcp, "a\r\nb", None, "z").is_err());
        assert!(Via::new(Transport::Tcp, "a", None, "z;x").is_err());
    }

    #[test]
    fn the_source_is_noted() {
        let mut via = Via::parse(b"sip / 2.0/udp  h : 5062 ;branch=z9hG4bKa;rport;received=x").unwrap();
        assert_eq!(
            (via.transport(), via.port(), via.rport()),
            (Some(Transport::Udp), Some(5062), Some(None))
        );
        via.set_received("::ffff:192.0.2.1".parse().unwrap());
        via.set_rport(40000);
        assert_eq!(via.to_string(), "SIP/2.0/udp h:5062;branch=z9hG4bKa;rport=40000;received=192.0.2.1");
        assert_eq!(via.rport(), Some(Some(40000)));
    }

    #[test]
    fn broken_hops_are_refused() {
        for text in [
            "",
            "SIP/2.0/UDP",
            "SIP/3.0/UDP h",
            "SIP/2.0/UDP h;;",
            "SIP/2.0/UDP h:99999",
            "UDP h",
            "SIP/2.0/ h",
            "SIP/2.0/UDP a b",
        ] {
            assert!(Via::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
