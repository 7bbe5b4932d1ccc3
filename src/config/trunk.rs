//! `[[trunk]]` entries.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::media::CodecName;
use super::values::{Network, SipTarget};

/// A connection to a carrier or PBX: an instance of a SIP profile.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Unique name, as in logs, metrics and call records.
    #[schemars(extend("format" = "name"), example = &"twilio")]
    pub name: String,
    /// The peer's habits: `generic`, `twilio`, `asterisk` or a file of `sip.profiles_dir`.
    #[serde(default = "generic")]
    #[schemars(extend("format" = "name"), example = &"twilio")]
    pub profile: String,
    /// Outbound targets, tried in order: host names or addresses, with port and transport where needed.
    #[serde(default)]
    #[schemars(with = "Vec<SipTarget>", example = ["example.pstn.twilio.com"])]
    pub peers: Vec<String>,
    /// Inbound sources: networks or addresses. A profile may bring its own list.
    #[serde(default)]
    #[schemars(example = ["54.172.60.0/30"])]
    pub allow: Vec<Network>,
    /// User for outbound challenges; with `inbound_auth = "digest"` also asked of the peer.
    #[serde(default)]
    #[schemars(example = &"tandem")]
    pub username: Option<String>,
    /// Environment variable that holds the password; with `_FILE` added to its name, the path of a file that does.
    #[serde(default)]
    #[schemars(extend("format" = "variable-name"), example = &"TWILIO_SIP_PASSWORD")]
    pub password_env: Option<String>,
    /// `none` trusts the source address alone; `digest` also asks for user and password.
    #[serde(default)]
    pub inbound_auth: InboundAuth,
    /// Most calls at a time over this trunk. 0: no limit of its own.
    #[serde(default)]
    #[schemars(range(max = 100_000))]
    pub max_calls: u32,
    /// Codecs on this trunk, best first. Absent: the profile's, or else `media.codecs`.
    #[serde(default)]
    #[schemars(example = ["PCMU", "PCMA"])]
    pub codecs: Option<Vec<CodecName>>,
    /// The password, from `password_env`.
    #[serde(skip)]
    pub password: Option<SecretString>,
}

fn generic() -> String {
    "generic".into()
}

/// How a peer proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum InboundAuth {
    /// By its source address alone.
    #[default]
    None,
    /// By its source address, and by user and password.
    Digest,
}
