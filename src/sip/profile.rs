//! SIP profiles: the habits of one kind of peer, as a file.
//!
//! A profile says what a carrier or PBX does on the wire, not which one it is: addresses and credentials of an
//! instance belong to its trunk. `generic`, `twilio` and `asterisk` are built in; a file of the same name in
//! `sip.profiles_dir` takes their place.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

/// The habits of one kind of peer. The field docs are the reference of the file format.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// What this profile is for, in one sentence.
    pub description: String,
    /// Codecs to offer and accept, best first: `PCMU`, `PCMA`, `G722`, `opus`, `L16`. Empty: `media.codecs`.
    #[serde(deserialize_with = "codecs")]
    pub codecs: Vec<String>,
    /// How keys are sent to the peer; keys in every form are understood.
    pub dtmf: DtmfMethod,
    /// Networks or addresses that signalling comes from, for trunks without their own `allow`.
    #[serde(deserialize_with = "networks")]
    pub allow: Vec<IpNet>,
    /// Networks or addresses that media may come from, besides the address in the SDP and the signalling address.
    #[serde(deserialize_with = "networks")]
    pub media_networks: Vec<IpNet>,
    /// Where the dialled number stands.
    pub called_from: CalledFrom,
    /// Where the caller's number stands: the first of these that is present.
    pub caller_from: Vec<CallerFrom>,
    /// User parts that mean "no number", compared without case and with or without `+`.
    pub anonymous_users: Vec<String>,
    /// Packet time to send, milliseconds, when the peer names none: 10 to 60. Default: 20.
    pub ptime_ms: u32,
    /// `a=maxptime` to put into SDP, milliseconds; 0: none.
    pub max_ptime_ms: u32,
    /// Reliable provisional responses (RFC 3262) for incoming calls.
    pub reliable_provisional: ReliableProvisional,
    /// Whether a session timer (RFC 4028) the peer asks for is kept. `false`: the request for one is ignored.
    pub session_timer: bool,
    /// Where requests inside a dialog go.
    pub next_hop: NextHop,
    /// Seconds without RTP (outside of hold) after which a call is taken for dead; 0: never. Default: 60.
    pub media_timeout_s: u64,
    /// Answers Comfort Noise (payload type 13) when offered.
    pub comfort_noise: bool,
}

/// How keys are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DtmfMethod {
    /// RFC 4733 telephone-event where negotiated, else as tones in the audio.
    #[default]
    TelephoneEvent,
    /// SIP INFO with `application/dtmf-relay`.
    Info,
    /// Tones in the audio.
    Inband,
}

/// Where the dialled number stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalledFrom {
    /// User of the Request-URI.
    #[default]
    RequestUri,
    /// User of the To header, for peers that put an account name into the Request-URI.
    To,
    /// User of `P-Called-Party-ID`, or else of the Request-URI.
    PCalledPartyId,
}

/// Where the caller's number may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallerFrom {
    /// `P-Asserted-Identity` (RFC 3325). Only for peers whose assertions are trusted.
    PAssertedIdentity,
    /// `Remote-Party-ID`, its predecessor.
    RemotePartyId,
    /// The From header.
    From,
}

/// When provisional responses are sent reliably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReliableProvisional {
    /// When the INVITE carries `Require: 100rel`.
    #[default]
    WhenRequired,
    /// Also when it carries `Supported: 100rel`.
    WhenSupported,
    /// Never: `Require: 100rel` gets 420.
    Never,
}

/// Where requests inside a dialog go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextHop {
    /// Along the route set, or else to the Contact, as RFC 3261 says. A host name that is no address is
    /// answered by the address the call came from.
    #[default]
    Route,
    /// Back to the address the call came from, for peers behind NAT that put private addresses into Contact.
    Source,
}

/// Why a profile was refused.
#[derive(Debug, thiserror::Error)]
#[error("SIP profile `{name}`: {message}")]
pub struct ProfileError {
    /// The profile's name.
    pub name: String,
    /// What is wrong, with the line where there is one.
    pub message: String,
}

impl Profile {
    /// A profile from the text of its file.
    ///
    /// # Errors
    /// When the text is no TOML, has an unknown key or a value out of range.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ProfileError> {
        let error = |message: String| ProfileError { name: name.to_owned(), message };
        let profile: Self = toml::from_str(text).map_err(|e| error(e.to_string()))?;
        if !(10..=60).contains(&profile.ptime_ms) {
            return Err(error(format!("ptime_ms = {} is out of range; give 10 to 60", profile.ptime_ms)));
        }
        if profile.max_ptime_ms != 0 && profile.max_ptime_ms < profile.ptime_ms {
            return Err(error("max_ptime_ms is below ptime_ms; give 0 or at least ptime_ms".to_owned()));
        }
        if profile.caller_from.is_empty() {
            return Err(error("caller_from is empty; give at least [\"from\"]".to_owned()));
        }
        Ok(profile)
    }

    /// The built-in profile of this name.
    pub fn builtin(name: &str) -> Option<Arc<Self>> {
        let (_, text) = BUILTIN.iter().find(|(builtin, _)| *builtin == name)?;
        Self::from_toml(name, text).ok().map(Arc::new)
    }

    /// Names of the built-in profiles.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The commented file of a built-in profile.
    pub fn builtin_text(name: &str) -> Option<&'static str> {
        BUILTIN.iter().find(|(builtin, _)| *builtin == name).map(|(_, text)| *text)
    }

    /// Whether this user part stands for a withheld number.
    pub fn is_anonymous(&self, user: &str) -> bool {
        let digits = user.strip_prefix('+').unwrap_or(user);
        digits.is_empty()
            || self.anonymous_users.iter().any(|a| a.trim_start_matches('+').eq_ignore_ascii_case(digits))
    }

    /// How long a call may be without RTP; `None`: for ever.
    pub fn media_timeout(&self) -> Option<Duration> {
        (self.media_timeout_s > 0).then(|| Duration::from_secs(self.media_timeout_s))
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            description: String::new(),
            codecs: Vec::new(),
            dtmf: DtmfMethod::default(),
            allow: Vec::new(),
            media_networks: Vec::new(),
            called_from: CalledFrom::default(),
            caller_from: vec![CallerFrom::From],
            anonymous_users: vec![
                "anonymous".into(),
                "unknown".into(),
                "restricted".into(),
                "unavailable".into(),
            ],
            ptime_ms: 20,
            max_ptime_ms: 0,
            reliable_provisional: ReliableProvisional::default(),
            session_timer: true,
            next_hop: NextHop::default(),
            media_timeout_s: 60,
            comfort_noise: false,
        }
    }
}

/// Networks as `192.0.2.0/24` or bare addresses.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| {
            text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                serde::de::Error::custom(format!(
                    "`{text}` is no network; write it as 192.0.2.0/24 or 192.0.2.1"
                ))
            })
        })
        .collect()
}

fn codecs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    match names.iter().find(|name| !CODECS.iter().any(|known| known.eq_ignore_ascii_case(name))) {
        Some(unknown) => Err(serde::de::Error::custom(format!(
            "`{unknown}` is no codec of ours; choose from {}",
            CODECS.join(", ")
        ))),
        None => Ok(names),
    }
}

const CODECS: &[&str] = &["PCMU", "PCMA", "G722", "opus", "L16"];

const BUILTIN: &[(&str, &str)] = &[
    ("generic", include_str!("../../sip-profiles/generic.toml")),
    ("twilio", include_str!("../../sip-profiles/twilio.toml")),
    ("asterisk", include_str!("../../sip-profiles/asterisk.toml")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_that_ships_is_read() {
        for (name, text) in BUILTIN {
            let profile = Profile::from_toml(name, text).expect("the file ships");
            assert!(!profile.description.is_empty(), "{name} does not say what it is for");
        }
    }

    #[test]
    fn twilio_brings_its_networks_and_number_places() {
        let twilio = Profile::builtin("twilio").expect("it ships");
        assert_eq!(twilio.allow.len(), 8);
        assert_eq!(twilio.media_networks, ["168.86.128.0/18".parse().expect("a network")]);
        assert_eq!(twilio.caller_from.first(), Some(&CallerFrom::PAssertedIdentity));
        assert!(twilio.is_anonymous("+266696687") && twilio.is_anonymous("Anonymous"));
        assert!(!twilio.is_anonymous("+15550122"));
    }

    fn refusal(text: &str) -> String {
        Profile::from_toml("mine", text).expect_err("it is wrong").to_string()
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line() {
        let message = refusal("ptime_ms = 20\nalow = []\n");
        assert!(message.contains("alow") && message.contains("line 2"), "{message}");
    }

    #[test]
    fn values_out_of_range_are_refused_with_what_to_write() {
        assert!(refusal("ptime_ms = 200").contains("10 to 60"));
        assert!(refusal("codecs = [\"G729\"]").contains("PCMU"));
        assert!(refusal("allow = [\"example.com\"]").contains("192.0.2.0/24"));
        assert!(refusal("caller_from = []").contains("from"));
    }
}
