//! `[sip.trace]`: what is kept of signalling, and who else gets a copy.

use std::net::SocketAddr;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Signalling kept in memory for `tandem call trace`. Secrets are masked before anything is kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SipTrace {
    /// Whether messages are kept at all.
    pub keep: bool,
    /// Dialogs kept; the oldest that has ended makes room. All together never take more than 64 MiB. 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub calls: u32,
    /// Most bytes kept of one dialog; of a longer one the middle is given up. 16384 to 16777216.
    #[schemars(range(min = 16_384, max = 16_777_216))]
    pub bytes_per_call: u32,
    /// Also keep and export what sources outside every trunk send.
    pub strangers: bool,
    /// A capture server, such as Homer, that gets a copy of every message.
    pub hep: Option<SipHep>,
}

impl Default for SipTrace {
    fn default() -> Self {
        Self { keep: true, calls: 2_000, bytes_per_call: 262_144, strangers: false, hep: None }
    }
}

/// A capture server that takes HEP version 3 over UDP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SipHep {
    /// Address and port of the server.
    #[schemars(with = "String", extend("format" = "socket-address"), example = &"192.0.2.1:9060")]
    pub target: SocketAddr,
    /// Number of this node at the server.
    #[serde(default = "capture_id")]
    pub capture_id: u32,
    /// Environment variable that holds the server's password; with `_FILE` added to its name, the path of a file that
    /// does. HEP carries it in clear.
    #[serde(default)]
    #[schemars(extend("format" = "variable-name"), example = &"HEP_PASSWORD")]
    pub password_env: Option<String>,
    /// The password, from `password_env`.
    #[serde(skip)]
    pub password: Option<SecretString>,
}

fn capture_id() -> u32 {
    2_001
}
