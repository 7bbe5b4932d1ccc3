//! `[[trunk]]` entries.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::media::{CodecName, Srtp};
use super::values::{Network, SipTarget, duration};

/// A connection to a carrier or PBX: an instance of a SIP profile.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Unique name, as in logs, metrics and call records.
    #[schemars(extend("format" = "name"), example = &"twilio")]
    pub name: String,
    /// The peer's habits: `generic`, `twilio`, `twilio-secure`, `asterisk`, `freeswitch`, `telnyx`, `bandwidth`,
    /// `vonage`, `signalwire`, `plivo` or a file of `sip.profiles_dir`.
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
    /// Where media may come from, besides the address in the peer's SDP and its signalling address. Absent: as the
    /// profile says.
    #[serde(default)]
    #[schemars(example = ["168.86.128.0/18"])]
    pub media_networks: Vec<Network>,
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
    /// Most incoming calls at a time over this trunk. 0: no limit of their own.
    #[serde(default)]
    #[schemars(range(max = 100_000))]
    pub max_calls: u32,
    /// Codecs on this trunk, best first. Absent: the profile's, or else `media.codecs`.
    #[serde(default)]
    #[schemars(example = ["PCMU", "PCMA"])]
    pub codecs: Option<Vec<CodecName>>,
    /// Host of Request-URI, To and From. Absent: that of the target.
    #[serde(default)]
    #[schemars(extend("format" = "sip-target"), example = &"acme.pstn.twilio.com")]
    pub domain: Option<String>,
    /// Registrars to register with, all at once, as `username`. Their addresses may then call.
    #[serde(default)]
    #[schemars(example = [Register::example()])]
    pub register: Vec<Register>,
    /// How often each target is asked by OPTIONS whether it is there. `0s`: never. Absent: as the profile says.
    #[serde(default, with = "optional_duration")]
    #[schemars(with = "Option<String>", extend("format" = "duration-text", "x-maximum" = "1h"), example = &"30s")]
    pub options: Option<Duration>,
    /// Encryption of media: `off` refuses it, `optional` takes it when it is offered, `required` makes no call without
    /// it, `opportunistic` offers it beside plain RTP (RFC 8643). Absent: as the profile says, or else `media.srtp`.
    #[serde(default)]
    #[schemars(example = &"required")]
    pub srtp: Option<Srtp>,
    /// How keys are sent. Absent: as the profile says.
    #[serde(default)]
    #[schemars(example = &"info")]
    pub dtmf: Option<Dtmf>,
    /// Most calls at a time in both directions. 0: no limit.
    #[serde(default)]
    #[schemars(range(max = 100_000))]
    pub channels: u32,
    /// Most outgoing calls at a time. 0: no limit of their own.
    #[serde(default)]
    #[schemars(range(max = 100_000))]
    pub outbound_calls: u32,
    /// Most new outgoing calls a second; a call waits up to 2 s for its turn. 0: no limit. Absent: as the profile says.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 10_000.0), example = 1.0)]
    pub cps: Option<f32>,
    /// A proxy that every request goes through first, as a loose Route.
    #[serde(default)]
    #[schemars(extend("format" = "sip-target"), example = &"sip:proxy.example.com;lr")]
    pub outbound_proxy: Option<String>,
    /// What the far end is told about the caller: `pass`, `withhold`, or `own:` and a number.
    #[serde(default)]
    #[schemars(example = &"own:+15550100")]
    pub caller: Option<String>,
    /// Country code that national numbers are read and written by, such as `1` or `49`.
    #[serde(default)]
    #[schemars(example = &"1")]
    pub country: Option<String>,
    /// How numbers are written. Absent: as the profile says.
    #[serde(default)]
    pub number_format: Option<NumberFormat>,
    /// What alone may be dialled: with `+` the beginning of a number, without it a whole short number. Empty:
    /// everything.
    #[serde(default)]
    #[schemars(example = ["+1", "+44"])]
    pub allowed_prefixes: Vec<String>,
    /// Dials emergency numbers such as 112, 911 and 999. Off, they are refused: a call from here would reach the wrong
    /// place, or nobody. Absent: as the profile says; those of PBXs dial them, for they are extensions there.
    #[serde(default)]
    pub emergency_calls: Option<bool>,
    /// What may not be dialled besides emergency and premium-rate numbers, written as in `allowed_prefixes`. A number
    /// that is refused by default is dialled when `allowed_prefixes` names it as narrowly.
    #[serde(default)]
    #[schemars(example = ["+1900"])]
    pub blocked_prefixes: Vec<String>,
    /// Headers put into every INVITE to the peer.
    #[serde(default)]
    #[schemars(example = serde_json::json!({ "X-Account": "acme" }))]
    pub headers: BTreeMap<String, String>,
    /// Names that headers of incoming INVITEs go on under: theirs, and ours.
    #[serde(default)]
    #[schemars(example = serde_json::json!({ "X-Twilio-CallSid": "X-Carrier-Call" }))]
    pub header_names: BTreeMap<String, String>,
    /// Headers besides From that tell the peer the caller's number. Absent: as the profile says.
    #[serde(default)]
    #[schemars(example = ["p_asserted_identity"])]
    pub caller_headers: Option<Vec<CallerHeader>>,
    /// Whether a call that is carried on says in `Diversion` (RFC 5806) which number it came for. Absent: as the
    /// profile says.
    #[serde(default)]
    pub send_diversion: Option<bool>,
    /// Headers of incoming INVITEs that are kept, such as `X-*`. Absent: as the profile says.
    #[serde(default)]
    #[schemars(example = ["X-*"])]
    pub pass_headers: Option<Vec<String>>,
    /// Final statuses that send an outgoing call on to the next target. Absent: as the profile says.
    #[serde(default)]
    #[schemars(example = [408, 503])]
    pub failover_statuses: Option<Vec<u16>>,
    /// What becomes of a transfer the peer asks for. Absent: as the profile says; those of carriers refuse it.
    #[serde(default)]
    pub refer: Option<Refer>,
    /// Follows redirects of the peer (3xx) to its own peers and to `redirect_hosts`.
    #[serde(default)]
    pub redirects: bool,
    /// Hosts that redirects may lead to.
    #[serde(default)]
    #[schemars(example = ["sbc2.example.com"])]
    pub redirect_hosts: Vec<String>,
    /// The password, from `password_env`.
    #[serde(skip)]
    pub password: Option<SecretString>,
}

/// A registrar to register with.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// Host name or address, with port and transport where needed.
    #[schemars(extend("format" = "sip-target"), example = &"sip.example.com")]
    pub registrar: String,
    /// User of the address of record. Absent: the trunk's `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"tandem")]
    pub user: Option<String>,
    /// How long a registration is asked to hold. 10s to 1d.
    #[serde(default = "five_minutes", with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "10s", "x-maximum" = "1d"))]
    pub expires: Duration,
}

impl Register {
    fn example() -> serde_json::Value {
        serde_json::json!({ "registrar": "sip.example.com" })
    }
}

/// How numbers are written to a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum NumberFormat {
    /// As dialled.
    AsDialled,
    /// `+15550100`.
    E164,
    /// `15550100`.
    E164Plain,
    /// As dialled within `country`.
    National,
}

/// How keys are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Dtmf {
    /// RFC 4733 telephone-event where it was agreed on, else tones.
    TelephoneEvent,
    /// SIP INFO.
    Info,
    /// Tones in the audio.
    Inband,
}

/// A header that tells the caller's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum CallerHeader {
    /// `P-Asserted-Identity` (RFC 3325).
    PAssertedIdentity,
    /// `Remote-Party-ID`, its predecessor.
    RemotePartyId,
}

/// What becomes of a transfer the peer asks for (REFER).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Refer {
    /// The target is dialled from here.
    #[default]
    Local,
    /// The other side of the call is asked to do it.
    Pass,
    /// 403.
    Refuse,
}

/// For `#[serde(with)]`: an optional [`Duration`] as text.
mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::config::values::{parse_duration, print_duration};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(print_duration).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
    }
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
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
