//! SIP profiles: the habits of one kind of peer, as a file.
//!
//! A profile says what a carrier or PBX does on the wire, not which one it is: addresses and credentials of an
//! instance belong to its trunk. A file in `sip.profiles_dir` with the name of a built-in one takes its place.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::message::Transport;
use super::trunk::{ReferPolicy, SrtpPolicy};

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
    /// Longest packets sent to the peer, milliseconds, whatever it asks for; 0: what we are able to.
    pub max_ptime_ms: u32,
    /// Reliable provisional responses (RFC 3262) for incoming calls.
    pub reliable_provisional: ReliableProvisional,
    /// Whether a session timer (RFC 4028) the peer asks for is kept. `false`: the request for one is ignored.
    pub session_timer: bool,
    /// Where requests inside a dialog go.
    pub next_hop: NextHop,
    /// Seconds without RTP (outside of hold) after which a call is taken for dead; 0: never. Default: 60.
    pub media_timeout_s: u64,
    /// How numbers are written to the peer.
    pub number_format: NumberFormat,
    /// The host of From in calls to the peer.
    pub from_domain: FromDomain,
    /// Headers besides From that tell the peer the caller's number. Only for peers that are trusted with a number
    /// that is withheld from the callee.
    pub caller_header: Vec<CallerHeader>,
    /// Where the peer says what the caller's number is worth (STIR).
    pub verstat: Verstat,
    /// Headers that may be carried from one leg to the other; `*` at the end takes every ending.
    pub pass_headers: Vec<String>,
    /// Whether a call that is carried on says in `Diversion` (RFC 5806) which number it came for.
    pub send_diversion: bool,
    /// Whether numbers such as 112 are dialled: extensions of a PBX, but a danger on a carrier's trunk.
    pub emergency_calls: bool,
    /// What the peer is reached over when nobody says: `any`, `udp`, `tcp` or `tls`.
    #[serde(deserialize_with = "transport")]
    pub transport: Option<Transport>,
    /// Statuses after which an outgoing call tries the next target, as `"408"` or `"5xx"`.
    #[serde(deserialize_with = "statuses")]
    pub failover_statuses: Vec<u16>,
    /// Session interval to ask for in calls to the peer (RFC 4028), seconds; 0: none, else at least 90.
    pub session_expires_s: u64,
    /// Offers reliable provisional responses (RFC 3262) in calls to the peer.
    pub reliable_outbound: bool,
    /// Encryption of media: `off`, `optional`, `required` or `opportunistic`.
    #[serde(deserialize_with = "srtp")]
    pub srtp: SrtpPolicy,
    /// What becomes of a REFER of the peer: `local`, `pass` or `refuse`.
    #[serde(deserialize_with = "refer")]
    pub refer: ReferPolicy,
    /// Seconds between OPTIONS that see whether the peer lives; 0: none are sent.
    pub options_interval_s: u64,
    /// Most new calls to the peer a second; 0: no limit.
    pub cps: f32,
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

/// How numbers are written to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberFormat {
    /// As dialled, extensions and names too.
    #[default]
    AsDialled,
    /// `+15550100`; what cannot be written so is not dialled.
    E164,
    /// `15550100`; what cannot be written so is not dialled.
    E164Plain,
    /// As dialled within the trunk's `country`.
    National,
}

/// The host of From in calls to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromDomain {
    /// Our address as the peer sees it.
    #[default]
    Own,
    /// The trunk's `domain`, or else its first peer.
    Trunk,
}

/// A header besides From that tells the caller's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallerHeader {
    /// `P-Asserted-Identity` (RFC 3325).
    PAssertedIdentity,
    /// `Remote-Party-ID`, its predecessor.
    RemotePartyId,
}

/// Where a peer says what the caller's number is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verstat {
    /// Nowhere that we know of.
    #[default]
    None,
    /// `X-Twilio-VerStat`.
    XTwilioVerstat,
    /// The `verstat` parameter of `P-Asserted-Identity`, or else of From.
    PaiParam,
    /// `X-Plivo-Stir-Verification`.
    XPlivo,
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
        if !(profile.session_expires_s == 0 || (90..=86_400).contains(&profile.session_expires_s)) {
            return Err(error("session_expires_s is out of range; give 0 or 90 to 86400".to_owned()));
        }
        if !(0.0..=10_000.0).contains(&profile.cps) {
            return Err(error("cps is out of range; give 0 to 10000".to_owned()));
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
            number_format: NumberFormat::default(),
            from_domain: FromDomain::default(),
            caller_header: Vec::new(),
            verstat: Verstat::default(),
            pass_headers: vec!["X-*".into(), "User-to-User".into()],
            send_diversion: false,
            emergency_calls: false,
            transport: None,
            failover_statuses: failover_default(),
            session_expires_s: 1_800,
            reliable_outbound: true,
            srtp: SrtpPolicy::Off,
            refer: ReferPolicy::Local,
            options_interval_s: 0,
            cps: 0.0,
        }
    }
}

/// The variant of this name.
fn one_of<'de, T: Copy, D: Deserializer<'de>>(deserializer: D, known: &[(&str, T)]) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    known.iter().find(|(name, _)| *name == text).map(|(_, variant)| *variant).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        serde::de::Error::custom(format!("`{text}` is none of {}", names.join(", ")))
    })
}

fn srtp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SrtpPolicy, D::Error> {
    let known = [
        ("off", SrtpPolicy::Off),
        ("optional", SrtpPolicy::Optional),
        ("required", SrtpPolicy::Required),
        ("opportunistic", SrtpPolicy::Opportunistic),
    ];
    one_of(deserializer, &known)
}

fn transport<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Transport>, D::Error> {
    let known = [
        ("any", None),
        ("udp", Some(Transport::Udp)),
        ("tcp", Some(Transport::Tcp)),
        ("tls", Some(Transport::Tls)),
    ];
    one_of(deserializer, &known)
}

fn refer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ReferPolicy, D::Error> {
    let known = [("local", ReferPolicy::Local), ("pass", ReferPolicy::Pass), ("refuse", ReferPolicy::Refuse)];
    one_of(deserializer, &known)
}

/// RFC 3263 section 4.3 names 503 and silence; a carrier's other 5xx are as little about the callee.
fn failover_default() -> Vec<u16> {
    std::iter::once(408).chain(500..=599).collect()
}

/// Statuses as `"408"` or, for a whole class, `"5xx"`.
fn statuses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u16>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let mut all = Vec::new();
    for text in &texts {
        let class = text.strip_suffix("xx").and_then(|digit| digit.parse::<u16>().ok());
        match (class, text.parse::<u16>().ok()) {
            (Some(class @ 4..=6), _) => all.extend(class * 100..class * 100 + 100),
            (_, Some(status @ 400..=699)) => all.push(status),
            _ => {
                let message = format!("`{text}` is no final status; write \"408\" or \"5xx\"");
                return Err(serde::de::Error::custom(message));
            }
        }
    }
    Ok(all)
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
    ("twilio-secure", include_str!("../../sip-profiles/twilio-secure.toml")),
    ("asterisk", include_str!("../../sip-profiles/asterisk.toml")),
    ("freeswitch", include_str!("../../sip-profiles/freeswitch.toml")),
    ("telnyx", include_str!("../../sip-profiles/telnyx.toml")),
    ("bandwidth", include_str!("../../sip-profiles/bandwidth.toml")),
    ("vonage", include_str!("../../sip-profiles/vonage.toml")),
    ("signalwire", include_str!("../../sip-profiles/signalwire.toml")),
    ("plivo", include_str!("../../sip-profiles/plivo.toml")),
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
