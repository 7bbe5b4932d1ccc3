//! The `[sip]` section.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::registrar::SipRegistrar;
use super::trace::SipTrace;
use super::values::{IpAddress, Network, SipListen, SipTransport, duration};

/// SIP: where it listens and how it behaves.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sip {
    /// Listeners. Port 0 takes a free one.
    #[schemars(length(min = 1), example = ["udp://0.0.0.0:5060", "tcp://0.0.0.0:5060", "tls://0.0.0.0:5061"])]
    pub listen: Vec<SipListen>,
    /// Address put into Via, Contact and SDP, for a node behind NAT. Absent: the address the packet came in on.
    #[schemars(with = "Option<IpAddress>", example = &"203.0.113.10")]
    pub advertise: Option<IpAddr>,
    /// Other addresses for some peers, in place of `advertise`: the first whose network (and listener, where one is
    /// written) fits. For a node with a leg in a private network.
    #[schemars(example = [serde_json::json!({ "network": "10.0.0.0/8", "address": "10.0.0.5" })])]
    pub advertise_for: Vec<AdvertiseFor>,
    /// Directory of SIP profiles besides those built in (see `trunk.profile`). A file here
    /// replaces a built-in profile of the same name.
    pub profiles_dir: PathBuf,
    /// Text of the `Server` and `User-Agent` headers. Empty: none is sent.
    #[schemars(example = &"Tandem")]
    pub user_agent: String,
    /// Most calls at a time; further ones get 503. 0: as many as there are media ports.
    #[schemars(range(max = 100_000))]
    pub max_calls: u32,
    /// What an OPTIONS request from a known source is told: `auto` is 200, or 503 while draining; `refuse` is 405.
    pub options: OptionsPolicy,
    /// What a source outside every trunk's `allow` list gets: `drop` is no answer at all, `refuse` is a bare 403.
    pub unknown_sources: UnknownSources,
    /// Timer T1 of RFC 3261: the round trip estimate that paces retransmissions. 100ms to 4s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "100ms", "x-maximum" = "4s"))]
    pub t1: Duration,
    /// Timer T2 of RFC 3261: the longest interval between retransmissions. 1s to 32s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "32s"))]
    pub t2: Duration,
    /// How long a call may ring before it is given up. 10s to 10m.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "10s", "x-maximum" = "10m"))]
    pub ring_timeout: Duration,
    /// Largest message accepted, in bytes. 2048 to 1048576; UDP cannot carry more than 65507.
    #[schemars(range(min = 2048, max = 1_048_576))]
    pub max_message_bytes: u32,
    /// Most TCP, TLS and WebSocket connections at a time. 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_connections: u32,
    /// A TCP or TLS connection without traffic and without a call is closed after this long. 10s to 1d.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "10s", "x-maximum" = "1d"))]
    pub idle_timeout: Duration,
    /// How often a TCP or TLS connection that Tandem made is kept alive by an empty message, and a WebSocket client
    /// pinged. 0s: never. Up to 10m.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-maximum" = "10m"))]
    pub keep_alive: Duration,
    /// Certificate of `tls://` and `wss://` listeners, and whom Tandem believes when it connects by TLS.
    pub tls: Option<SipTls>,
    /// What one source may ask of this node.
    pub flood: SipFlood,
    /// Phones that register with this node.
    pub registrar: SipRegistrar,
    /// Signalling kept in memory for `tandem call trace`. Secrets are masked before anything is kept.
    pub trace: SipTrace,
}

impl Default for Sip {
    fn default() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 5060));
        Self {
            listen: vec![
                SipListen { transport: SipTransport::Udp, address },
                SipListen { transport: SipTransport::Tcp, address },
            ],
            advertise: None,
            advertise_for: Vec::new(),
            profiles_dir: "sip-profiles".into(),
            user_agent: "Tandem".into(),
            max_calls: 1_000,
            options: OptionsPolicy::Auto,
            unknown_sources: UnknownSources::Drop,
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            ring_timeout: Duration::from_secs(180),
            max_message_bytes: 65_536,
            max_connections: 1_000,
            idle_timeout: Duration::from_secs(300),
            keep_alive: Duration::from_secs(25),
            tls: None,
            flood: SipFlood::default(),
            registrar: SipRegistrar::default(),
            trace: SipTrace::default(),
        }
    }
}

/// How OPTIONS is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OptionsPolicy {
    /// 200, or 503 while draining.
    #[default]
    Auto,
    /// 405.
    Refuse,
}

/// What strangers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum UnknownSources {
    /// No answer.
    #[default]
    Drop,
    /// A bare 403.
    Refuse,
}

/// Certificate and key of `tls://` and `wss://` listeners, PEM. New files are taken without a restart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SipTls {
    /// Certificate chain, leaf first.
    #[schemars(example = &"tls/cert.pem")]
    pub certificate: PathBuf,
    /// Private key of the leaf certificate.
    #[schemars(example = &"tls/key.pem")]
    pub private_key: PathBuf,
    /// Authorities believed when Tandem connects by TLS, and no others. Absent: those that browsers believe.
    #[serde(default)]
    #[schemars(example = &"tls/ca.pem")]
    pub roots: Option<PathBuf>,
    /// Whether peers that connect here prove themselves by a certificate of `client_roots`: `off`, `optional` (one that
    /// is shown must be good) or `required`.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// Authorities whose certificates such peers may show.
    #[serde(default)]
    #[schemars(example = &"tls/peers-ca.pem")]
    pub client_roots: Option<PathBuf>,
    /// Shows this certificate to peers that Tandem connects to and that ask for one (mutual TLS).
    #[serde(default)]
    pub show_to_servers: bool,
    /// How often the files are looked at. 1s to 1d.
    #[serde(default = "reload", with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "1d"))]
    pub reload: Duration,
}

/// Whether peers that connect prove themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ClientCertificates {
    /// They need not.
    #[default]
    Off,
    /// Who shows a certificate must show a good one.
    Optional,
    /// Without a good one there is no connection.
    Required,
}

fn reload() -> Duration {
    Duration::from_secs(10)
}

/// An address that some peers reach this node at.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct AdvertiseFor {
    /// The peers.
    #[schemars(example = &"10.0.0.0/8")]
    pub network: Network,
    /// The address put into Via, Contact and SDP towards them.
    #[schemars(with = "IpAddress", example = &"10.0.0.5")]
    pub address: IpAddr,
    /// The port put into Via and Contact. Absent: the listener's.
    #[serde(default)]
    #[schemars(range(min = 1), example = &5060)]
    pub port: Option<u16>,
    /// Only for what goes over this listener of `sip.listen`. Absent: over any.
    #[serde(default)]
    #[schemars(example = &"udp://0.0.0.0:5060")]
    pub listener: Option<SipListen>,
}

/// What one source may ask of this node. Messages inside calls are never counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SipFlood {
    /// Requests a second from one source outside of every trunk; further ones are not looked at. 0: no limit.
    #[schemars(range(max = 1_000_000))]
    pub requests_per_second: u32,
    /// How many of those requests may come at once. At least 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
    /// New calls a second from one address of a trunk; further ones get 503. 0: no limit.
    #[schemars(range(max = 1_000_000))]
    pub invites_per_second: u32,
    /// Wrong passwords a minute from one source before it is not heard for a while. A source outside of every trunk
    /// that tries number after number counts too. 0: never.
    #[schemars(range(max = 1_000_000))]
    pub auth_failures: u32,
    /// How long such a source is not heard. 1s to 7d.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "7d"))]
    pub ban: Duration,
}

impl Default for SipFlood {
    fn default() -> Self {
        Self {
            requests_per_second: 200,
            burst: 400,
            invites_per_second: 0,
            auth_failures: 10,
            ban: Duration::from_secs(300),
        }
    }
}
