//! `[audiosocket]`: calls of an Asterisk that come as plain audio over TCP.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Network, duration};

/// Calls of Asterisk's `AudioSocket()` application and channel. The section opens the door; without it nothing
/// listens. Nothing is encrypted: across networks that are not yours, put a TLS tunnel in front.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AudioSocket {
    /// Address and port that Asterisk connects to.
    #[schemars(with = "String", extend("format" = "socket-address"), example = &"127.0.0.1:9092")]
    pub listen: SocketAddr,
    /// Who may connect: addresses and networks of PBXs. Others are closed at once.
    #[schemars(length(min = 1), example = ["127.0.0.0/8", "192.0.2.10"])]
    pub allow: Vec<Network>,
    /// Number or extension whose flow answers calls that nobody announced. Absent: those are refused.
    #[schemars(extend("format" = "number"), example = &"100")]
    pub number: Option<String>,
    /// Sample rate of audio of kind 0x10, in Hz. 8000 but for releases before 20.17, 22.7 and 23.1 whose channels were
    /// dialled with `c(slin16)` or another rate: those do not say which. Newer ones do, and are believed.
    #[schemars(range(min = 8_000, max = 192_000))]
    pub rate: u32,
    /// How long a connection may take to say whose it is. 100ms to 1m.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "100ms", "x-maximum" = "1m"))]
    pub uuid_timeout: Duration,
    /// Hang up after nothing came for this long. Asterisk sends nothing while a caller is held or silent, so not too
    /// short. 0s never does. At most 1d.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-maximum" = "1d"))]
    pub idle_timeout: Duration,
    /// Most connections at a time; more are closed. 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_calls: u32,
}

impl Default for AudioSocket {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9092)),
            allow: ["127.0.0.0/8", "::1"].iter().filter_map(|network| network.parse().ok()).collect(),
            number: None,
            rate: 8_000,
            uuid_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            max_calls: 1_000,
        }
    }
}
