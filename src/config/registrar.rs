//! `[sip.registrar]`: phones that register with this node.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::duration;

/// Phones that register with this node, and call over it. Who may is said by `[[phone]]` in `resources.toml`, or by
/// `tandem phone add`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SipRegistrar {
    /// Lets phones register. Off, a REGISTER of a source outside every trunk gets no answer, like all else.
    pub enabled: bool,
    /// The realm that phones are asked for their password in. Passwords are kept as hashes that contain it: another
    /// realm means that every password has to be set again.
    #[schemars(length(min = 1, max = 128), example = &"example.com")]
    pub realm: String,
    /// Host names or addresses phones register at, such as `example.com` in `sip:101@example.com`. A REGISTER for
    /// another one gets no answer. Empty: the addresses of the listeners, and `advertise`.
    #[schemars(example = ["sip.example.com"])]
    pub domains: Vec<String>,
    /// Shortest registration granted; who asks for less gets 423. 5s to 1d.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "5s", "x-maximum" = "1d"))]
    pub min_expires: Duration,
    /// Longest registration granted; a longer wish is cut. 1m to 7d.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1m", "x-maximum" = "7d"))]
    pub max_expires: Duration,
    /// Most contacts of one phone; the ten it prefers most (`q`) ring, all at once. 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub contacts_max: u32,
}

impl Default for SipRegistrar {
    fn default() -> Self {
        Self {
            enabled: false,
            realm: "tandem".into(),
            domains: Vec::new(),
            min_expires: Duration::from_secs(60),
            max_expires: Duration::from_secs(3_600),
            contacts_max: 10,
        }
    }
}
