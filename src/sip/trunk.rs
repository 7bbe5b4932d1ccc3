//! What a trunk is, and which trunk a message belongs to, by its source address; the first gate of signalling.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

use super::identity::{CallerPolicy, HeaderPolicy, NumberPolicy};
use super::message::Transport;
use super::profile::{CallerHeader, DtmfMethod, Profile};
use super::uri::Uri;

/// A connection to a carrier or PBX, as signalling needs it.
#[derive(Debug, Clone)]
pub struct Trunk {
    /// Unique name, as in logs, metrics and call records.
    pub name: String,
    /// The peer's habits.
    pub profile: Arc<Profile>,
    /// Inbound signalling sources; empty: those of the profile.
    pub allow: Vec<IpNet>,
    /// Sources of media besides the SDP's address and the signalling address; empty: those of the profile.
    pub media_networks: Vec<IpNet>,
    /// Answers outbound challenges; with `inbound_auth` also asked of the peer.
    pub username: Option<String>,
    /// The password that belongs to `username`.
    pub password: Option<SecretString>,
    /// Asks the peer for credentials besides its address.
    pub inbound_auth: bool,
    /// Most incoming calls at a time over this trunk; 0: no limit of its own.
    pub max_calls: usize,
    /// Where calls go out, in order of preference; those of equal `priority` share by `weight`.
    pub peers: Vec<Peer>,
    /// Registrars we register with, all at once.
    pub registrations: Vec<RegistrationSpec>,
    /// Most calls at a time in both directions; 0: no limit.
    pub channels: usize,
    /// Most outgoing calls at a time; 0: no limit of its own.
    pub outbound_calls: usize,
    /// Most outgoing calls a second; 0: no limit.
    pub cps: f32,
    /// How the peers are watched.
    pub health: HealthPolicy,
    /// What the far end is told about the caller.
    pub from: CallerPolicy,
    /// Headers put into, and taken from, INVITEs.
    pub headers: HeaderPolicy,
    /// Headers besides From that tell the peer the caller's number.
    pub caller_headers: Vec<CallerHeader>,
    /// Whether a call that is carried on says in `Diversion` which number it came for.
    pub send_diversion: bool,
    /// How numbers are written and which may be dialled.
    pub numbers: NumberPolicy,
    /// Encryption of media.
    pub srtp: SrtpPolicy,
    /// What becomes of a REFER.
    pub refer: ReferPolicy,
    /// What becomes of a 3xx.
    pub redirects: RedirectPolicy,
    /// Final statuses that send an outgoing call on to the next target. Empty: 408 and every 5xx.
    pub failover_statuses: Vec<u16>,
    /// Session interval to ask for in our INVITEs (RFC 4028).
    pub session_expires: Option<Duration>,
    /// Offers reliable provisional responses (RFC 3262) in our INVITEs.
    pub reliable_out: bool,
    /// A proxy that every request goes through, as a loose Route.
    pub outbound_proxy: Option<Uri>,
    /// Host of Request-URI, To and From. Absent: that of the target.
    pub domain: Option<String>,
    /// Trunks that a transfer by its party may go out over; `None`: as any other call.
    pub reach: Option<Vec<String>>,
    /// The phone that this stands for, by its user, where it is no trunk at all.
    pub phone: Option<String>,
    /// How keys are sent.
    pub dtmf: DtmfMethod,
    /// Whether re-INVITEs are answered here or carried to the other leg of a bridge.
    pub reinvite: Across,
}

/// A host that calls or registrations go to, before it is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// An address, or a name to be resolved by RFC 3263.
    pub host: PeerHost,
    /// The port, where one is written: then neither NAPTR nor SRV is asked.
    pub port: Option<u16>,
    /// The transport, where one is written.
    pub transport: Option<Transport>,
    /// Lower is tried first (RFC 2782).
    pub priority: u16,
    /// Share among peers of the same priority.
    pub weight: u16,
}

/// An address, or a name to be resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerHost {
    /// A domain name in lower case.
    Name(Arc<str>),
    /// An address.
    Ip(IpAddr),
}

/// Text that names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SIP peer; write it as sip.example.com, 192.0.2.5:5060 or 192.0.2.5;transport=tcp")]
pub struct PeerError(String);

/// A registration with a carrier (RFC 3261 section 10.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationSpec {
    /// Where REGISTER goes.
    pub registrar: Peer,
    /// User of the address of record.
    pub aor_user: String,
    /// Host of the address of record and of the Request-URI.
    pub domain: String,
    /// How long a registration is asked to hold.
    pub expires: Duration,
    /// User of our Contact: what the carrier puts into the Request-URI of its calls.
    pub contact_user: String,
}

/// How the peers of a trunk are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPolicy {
    /// Sends OPTIONS.
    pub options: bool,
    /// How often.
    pub interval: Duration,
    /// A peer that failed this often in a row is degraded.
    pub degraded_after: u8,
    /// A peer that failed this often in a row is down.
    pub down_after: u8,
    /// A peer that was down is up after so many answers in a row.
    pub up_after: u8,
    /// How long a peer that failed a call is tried last.
    pub quarantine: Duration,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            options: false,
            interval: Duration::from_secs(30),
            degraded_after: 1,
            down_after: 3,
            up_after: 2,
            quarantine: Duration::from_secs(60),
        }
    }
}

/// Encryption of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SrtpPolicy {
    /// None: a peer that wants it is refused.
    #[default]
    Off,
    /// Offers plain RTP and takes SRTP when it is offered.
    Optional,
    /// SRTP or no call.
    Required,
    /// Offers plain RTP with keys beside it (RFC 8643), and takes both.
    Opportunistic,
}

impl SrtpPolicy {
    /// As in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
            Self::Opportunistic => "opportunistic",
        }
    }
}

/// What becomes of a REFER of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReferPolicy {
    /// We dial the target ourselves.
    #[default]
    Local,
    /// It is carried to the other leg.
    Pass,
    /// 403.
    Refuse,
}

/// What becomes of a 3xx of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectPolicy {
    /// Follows redirects.
    pub follow: bool,
    /// Hosts they may lead to, besides the trunk's own peers.
    pub hosts: Vec<String>,
    /// Most redirects in a row.
    pub hops: u8,
}

impl Default for RedirectPolicy {
    fn default() -> Self {
        Self { follow: false, hosts: Vec::new(), hops: 5 }
    }
}

/// Whether something is dealt with on its own leg or carried across the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Across {
    /// On its own leg.
    #[default]
    Local,
    /// Carried across.
    Pass,
}

impl Peer {
    /// A peer at an address or name, with everything else left open.
    pub fn new(host: PeerHost) -> Self {
        Self { host, port: None, transport: None, priority: 0, weight: 0 }
    }

    /// The same over this transport, where none is written.
    #[must_use]
    pub fn over(self, usual: Option<Transport>) -> Self {
        Self { transport: self.transport.or(usual), ..self }
    }

    /// The host without brackets, as it stands in a URI's host part or a certificate.
    pub fn host_text(&self) -> String {
        match &self.host {
            PeerHost::Name(name) => name.to_string(),
            PeerHost::Ip(ip) => ip.to_string(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            PeerHost::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            PeerHost::Ip(IpAddr::V4(ip)) => write!(f, "{ip}")?,
            PeerHost::Name(name) => f.write_str(name)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.transport {
            Some(transport) => write!(f, ";transport={transport}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let error = || PeerError(text.to_owned());
        let (secure, bare) = match (text.strip_prefix("sip:"), text.strip_prefix("sips:")) {
            (_, Some(rest)) => (true, rest),
            (Some(rest), None) => (false, rest),
            (None, None) => (false, text),
        };
        let mut parts = bare.split(';');
        let address = parts.next().filter(|address| !address.contains('@')).ok_or_else(error)?;
        let (host, port) = host_and_port(address).ok_or_else(error)?;
        let mut peer = Self { port, ..Self::new(host) };
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(error)?;
            match name.to_ascii_lowercase().as_str() {
                "transport" => peer.transport = Some(Transport::from_token(value).ok_or_else(error)?),
                "priority" => peer.priority = value.parse().map_err(|_| error())?,
                "weight" => peer.weight = value.parse().map_err(|_| error())?,
                _ => return Err(error()),
            }
        }
        if secure {
            // RFC 5630: sips asks for TLS on every hop.
            match peer.transport {
                None | Some(Transport::Tls | Transport::Tcp) => peer.transport = Some(Transport::Tls),
                Some(Transport::Wss) => {}
                Some(Transport::Udp | Transport::Ws) => return Err(error()),
            }
        }
        Ok(peer)
    }
}

fn host_and_port(text: &str) -> Option<(PeerHost, Option<u16>)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    if let Some(v6) = text.strip_prefix('[') {
        let (ip, rest) = v6.split_once(']')?;
        let host = PeerHost::Ip(ip.parse::<Ipv6Addr>().ok()?.into());
        return match rest.strip_prefix(':') {
            Some(number) => Some((host, Some(port(number)?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Some((PeerHost::Ip(ip.into()), None));
    }
    let (host, number) = match text.split_once(':') {
        Some((host, number)) => (host, Some(port(number)?)),
        None => (text, None),
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some((PeerHost::Ip(ip), number));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let host = host.trim_end_matches('.');
    let is_name =
        host.len() <= 253 && host.split('.').all(label) && !host.ends_with(|c: char| c.is_ascii_digit());
    is_name.then(|| (PeerHost::Name(host.to_ascii_lowercase().into()), number))
}

impl Trunk {
    /// A trunk that takes its networks from the profile and asks for no credentials.
    pub fn new(name: impl Into<String>, profile: Arc<Profile>) -> Self {
        let (dtmf, srtp, refer, cps) = (profile.dtmf, profile.srtp, profile.refer, profile.cps);
        let health = HealthPolicy {
            options: profile.options_interval_s > 0,
            interval: match profile.options_interval_s {
                0 => HealthPolicy::default().interval,
                seconds => Duration::from_secs(seconds),
            },
            ..HealthPolicy::default()
        };
        let failover_statuses = profile.failover_statuses.clone();
        let session_expires = Some(profile.session_expires_s).filter(|s| *s > 0).map(Duration::from_secs);
        let reliable_out = profile.reliable_outbound;
        let (caller_headers, send_diversion) = (profile.caller_header.clone(), profile.send_diversion);
        let emergency = profile.emergency_calls;
        Self {
            name: name.into(),
            profile,
            allow: Vec::new(),
            media_networks: Vec::new(),
            username: None,
            password: None,
            inbound_auth: false,
            max_calls: 0,
            peers: Vec::new(),
            registrations: Vec::new(),
            channels: 0,
            outbound_calls: 0,
            cps,
            health,
            from: CallerPolicy::default(),
            headers: HeaderPolicy::default(),
            caller_headers,
            send_diversion,
            numbers: NumberPolicy { emergency, ..NumberPolicy::default() },
            srtp,
            refer,
            redirects: RedirectPolicy::default(),
            reach: None,
            phone: None,
            failover_statuses,
            session_expires,
            reliable_out,
            outbound_proxy: None,
            domain: None,
            dtmf,
            reinvite: Across::default(),
        }
    }

    /// Host and port of a Request-URI to a target that was found under `name` at `address`: the trunk's domain, or
    /// the name with its written port, or the address. Behind an outbound proxy the target is not the proxy.
    pub fn host_at(&self, name: &str, address: std::net::SocketAddr) -> (String, Option<u16>) {
        if let Some(domain) = &self.domain {
            return (domain.clone(), None);
        }
        let written = |peer: &&Peer| self.outbound_proxy.is_some() || peer.host_text() == name;
        match self.peers.iter().find(written) {
            Some(peer) if peer.host_text().parse::<IpAddr>().is_err() => (peer.host_text(), peer.port),
            Some(peer) if self.outbound_proxy.is_some() => (peer.host_text(), peer.port),
            None if name.parse::<IpAddr>().is_err() => match self.registrations.first() {
                Some(registration) => (registration.domain.clone(), None),
                None => (name.to_owned(), None),
            },
            Some(_) | None => (address.ip().to_canonical().to_string(), Some(address.port())),
        }
    }

    /// Signalling sources: the trunk's own, or else the profile's.
    pub fn allowed_networks(&self) -> &[IpNet] {
        if self.allow.is_empty() { &self.profile.allow } else { &self.allow }
    }

    /// Media sources: the trunk's own, or else the profile's.
    pub fn allowed_media_networks(&self) -> &[IpNet] {
        if self.media_networks.is_empty() { &self.profile.media_networks } else { &self.media_networks }
    }
}

/// All trunks, looked up by source address: the longest matching prefix wins, then the order of configuration.
#[derive(Debug, Clone, Default)]
pub struct Trunks {
    trunks: Vec<Arc<Trunk>>,
    /// Longest prefix first.
    sources: Vec<(IpNet, usize)>,
}

impl Trunks {
    /// The table of these trunks.
    pub fn new(trunks: impl IntoIterator<Item = Trunk>) -> Self {
        Self::table(trunks.into_iter().map(Arc::new).collect())
    }

    /// The same trunks, with addresses learned from DNS added to their sources. An address that some trunk
    /// lists by itself stays with that trunk.
    pub fn with_learned(&self, learned: &[(String, IpAddr)]) -> Self {
        let mut table = Self::table(self.trunks.clone());
        for (name, ip) in learned {
            let source = IpNet::from(ip.to_canonical());
            let taken = table.sources.iter().any(|(net, _)| *net == source);
            if let Some(index) = self.trunks.iter().position(|t| t.name == *name).filter(|_| !taken) {
                table.sources.push((source, index));
            }
        }
        table.sort();
        table
    }

    fn table(trunks: Vec<Arc<Trunk>>) -> Self {
        let sources: Vec<(IpNet, usize)> = trunks
            .iter()
            .enumerate()
            .flat_map(|(index, trunk)| trunk.allowed_networks().iter().map(move |net| (*net, index)))
            .collect();
        let mut table = Self { trunks, sources };
        table.sort();
        table
    }

    fn sort(&mut self) {
        self.sources.sort_by_key(|(net, index)| (std::cmp::Reverse(net.prefix_len()), *index));
    }

    /// The trunk this address may speak for.
    pub fn admit(&self, source: IpAddr) -> Option<&Arc<Trunk>> {
        let source = source.to_canonical();
        self.sources.iter().find(|(net, _)| net.contains(&source)).map(|(_, index)| &self.trunks[*index])
    }

    /// The trunk of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Trunk>> {
        self.trunks.iter().find(|trunk| trunk.name == name)
    }

    /// All trunks, in the order of configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Trunk>> {
        self.trunks.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trunk(name: &str, allow: &[&str]) -> Trunk {
        let mut trunk = Trunk::new(name, Arc::new(Profile::default()));
        trunk.allow = allow.iter().map(|net| net.parse().expect("a network")).collect();
        trunk
    }

    fn admitted<'a>(trunks: &'a Trunks, source: &str) -> Option<&'a str> {
        trunks.admit(source.parse().expect("an address")).map(|t| t.name.as_str())
    }

    #[test]
    fn the_longest_matching_prefix_decides() {
        let trunks =
            Trunks::new([trunk("wide", &["10.0.0.0/8"]), trunk("narrow", &["10.1.0.0/16", "2001:db8::/32"])]);
        assert_eq!(admitted(&trunks, "10.1.2.3"), Some("narrow"));
        assert_eq!(admitted(&trunks, "10.2.2.3"), Some("wide"));
        assert_eq!(admitted(&trunks, "2001:db8::1"), Some("narrow"));
        assert_eq!(admitted(&trunks, "192.0.2.1"), None);
    }

    #[test]
    fn learned_addresses_are_sources_unless_another_trunk_lists_them() {
        let trunks =
            Trunks::new([trunk("pbx", &["10.1.0.0/16", "10.9.9.9/32"]), trunk("carrier", &["192.0.2.0/24"])]);
        let learned = ["10.1.2.3", "10.9.9.9", "198.51.100.7"]
            .map(|ip| ("carrier".to_owned(), ip.parse().expect("an address")));
        let trunks = trunks.with_learned(&learned);
        assert_eq!(admitted(&trunks, "198.51.100.7"), Some("carrier"));
        assert_eq!(admitted(&trunks, "10.1.2.3"), Some("carrier"));
        assert_eq!(admitted(&trunks, "10.9.9.9"), Some("pbx"));
        assert_eq!(admitted(&trunks.with_learned(&[]), "198.51.100.7"), None);
    }

    #[test]
    fn peers_are_read_and_written() {
        for (text, printed) in [
            ("sip.Example.com", "sip.example.com"),
            ("sip.example.com.", "sip.example.com"),
            ("sip:pbx:5080", "pbx:5080"),
            ("192.0.2.5:5060;transport=TCP", "192.0.2.5:5060;transport=tcp"),
            ("[::1]:5060", "[::1]:5060"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("sips:example.com", "example.com;transport=tls"),
        ] {
            assert_eq!(text.parse::<Peer>().expect(text).to_string(), printed);
        }
        let weighted: Peer = "a.example.com;priority=10;weight=60".parse().expect("a peer");
        assert_eq!((weighted.priority, weighted.weight), (10, 60));
        for wrong in [
            "",
            "a b",
            "user@host",
            "host:0",
            "host:70000",
            "host;transport=carrier-pigeon",
            "1.2.3",
            "sips:a;transport=udp",
        ] {
            assert!(wrong.parse::<Peer>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_mapped_into_ipv6_is_the_ipv4_address() {
        let trunks = Trunks::new([trunk("a", &["192.0.2.0/24"])]);
        assert_eq!(admitted(&trunks, "::ffff:192.0.2.7"), Some("a"));
    }

    #[test]
    fn a_trunk_without_a_list_takes_the_profiles() {
        let twilio = Trunk::new("carrier", Profile::builtin("twilio").expect("twilio ships"));
        let trunks = Trunks::new([twilio]);
        assert_eq!(admitted(&trunks, "54.172.60.2"), Some("carrier"));
        assert_eq!(admitted(&trunks, "54.172.60.9"), None);
    }
}
