//! Keys in session descriptions: `a=crypto` (SDES, RFC 4568), also beside plain RTP (RFC 8643).

use rand::SeedableRng;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};

use super::{Attribute, Media, MediaPlan, Negotiation, NegotiationError, SrtpPolicy};
use crate::rtp::srtp::{MasterKey, SrtpKeys, Suite};

/// A line of `a=crypto` that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) tag: u32,
    pub(super) suite: Suite,
    pub(super) key: MasterKey,
    mki: Option<Vec<u8>>,
}

/// Where our keys come from, and the one in use.
#[derive(Clone, Default)]
pub(super) struct KeySource {
    seed: Option<[u8; 32]>,
    given: u64,
    /// What the session was agreed on with; a refresh repeats it.
    pub(super) ours: Option<Line>,
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySource").field("given", &self.given).finish_non_exhaustive()
    }
}

impl KeySource {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self { seed: Some(seed), ..Self::default() }
    }

    fn fresh(&mut self, suite: Suite) -> Option<MasterKey> {
        self.given += 1;
        let mut hash = Sha256::new();
        hash.update(self.seed?);
        hash.update(self.given.to_be_bytes());
        Some(MasterKey::fresh(suite, &mut StdRng::from_seed(hash.finalize().into())))
    }
}

/// How media of a section travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// `RTP/AVP`, `RTP/AVPF`.
    Plain,
    /// `RTP/SAVP`, `RTP/SAVPF`.
    Secure,
}

impl Profile {
    pub(super) fn of(proto: &str) -> Option<Self> {
        let is = |names: [&str; 2]| names.iter().any(|name| proto.eq_ignore_ascii_case(name));
        if is(["RTP/AVP", "RTP/AVPF"]) {
            Some(Self::Plain)
        } else if is(["RTP/SAVP", "RTP/SAVPF"]) {
            Some(Self::Secure)
        } else {
            None
        }
    }
}

impl Negotiation {
    /// What protects an offered section: the line of the offer to take up, `None` for none.
    ///
    /// # Errors
    /// When policy forbids what is offered, or none of its lines can be used.
    pub(super) fn protection(&self, media: &Media) -> Result<Option<Line>, NegotiationError> {
        let profile = Profile::of(&media.proto).ok_or(NegotiationError::Transport)?;
        let policy = self.srtp_policy();
        let line = || self.choose_line(media);
        match (profile, policy) {
            (Profile::Secure, SrtpPolicy::Off) => Err(NegotiationError::Transport),
            (Profile::Secure, _) => line().map(Some).ok_or(NegotiationError::NoCommonCrypto),
            // Who was encrypted is not talked to in the clear; keys beside plain RTP will do.
            (Profile::Plain, SrtpPolicy::Required) => line().map(Some).ok_or(NegotiationError::InTheClear),
            (Profile::Plain, _) if self.is_secure() => line().map(Some).ok_or(NegotiationError::InTheClear),
            (Profile::Plain, SrtpPolicy::Opportunistic) => Ok(line()),
            (Profile::Plain, SrtpPolicy::Off | SrtpPolicy::Optional) => Ok(None),
        }
    }

    /// Our line to answer `theirs` with, under its tag, and the keys of both. The key in use stays while its
    /// suite does.
    pub(super) fn take_up(&mut self, theirs: Line) -> Option<SrtpKeys> {
        let kept = self.keys.ours.take().filter(|line| line.suite == theirs.suite).map(|line| line.key);
        let key = match kept {
            Some(key) => key,
            None => self.keys.fresh(theirs.suite)?,
        };
        let ours = Line { tag: theirs.tag, suite: theirs.suite, key, mki: None };
        let keys = ours.keys_with(theirs);
        self.keys.ours = Some(ours);
        Some(keys)
    }

    /// The lines of an offer of ours: the one in use, or one for each suite, or none by policy.
    pub(super) fn lines_to_offer(&mut self) -> Vec<Line> {
        if let Some(ours) = self.keys.ours.clone().filter(|_| self.is_secure()) {
            return vec![ours];
        }
        if !matches!(self.srtp_policy(), SrtpPolicy::Required | SrtpPolicy::Opportunistic) {
            return Vec::new();
        }
        let suites = self.capabilities.suites.clone();
        let mut lines = Vec::new();
        for (suite, tag) in suites.into_iter().zip(1..) {
            let Some(key) = self.keys.fresh(suite) else { break };
            lines.push(Line { tag, suite, key, mki: None });
        }
        lines
    }

    /// The transport of the first offer; later ones keep that of the session.
    pub(super) fn proto_to_offer(&self) -> &'static str {
        if self.srtp_policy() == SrtpPolicy::Required { "RTP/SAVP" } else { "RTP/AVP" }
    }

    /// What the answer to our offer of `lines` agreed on; the line of ours that it took up.
    ///
    /// # Errors
    /// When it leaves out what must be encrypted, or takes up what was not offered.
    pub(super) fn taken_up(
        &self,
        lines: &[Line],
        media: &Media,
    ) -> Result<Option<(Line, SrtpKeys)>, NegotiationError> {
        let profile = Profile::of(&media.proto).ok_or(NegotiationError::AnswerMismatch)?;
        let must = self.srtp_policy() == SrtpPolicy::Required || self.is_secure();
        let answers: Vec<Line> = lines_of(media);
        let pair = answers.into_iter().find_map(|theirs| {
            let ours = lines.iter().find(|ours| (ours.tag, ours.suite) == (theirs.tag, theirs.suite))?;
            Some((ours.clone(), ours.keys_with(theirs)))
        });
        match pair {
            Some(pair) => Ok(Some(pair)),
            None if must || profile == Profile::Secure => Err(NegotiationError::AnswerMismatch),
            None => Ok(None),
        }
    }

    fn choose_line(&self, media: &Media) -> Option<Line> {
        // The offerer's order decides (RFC 4568 section 5.1.2).
        self.keys.seed?;
        lines_of(media).into_iter().find(|line| self.capabilities.suites.contains(&line.suite))
    }

    /// Without a source of keys there is no encryption, and where it is required no session.
    fn srtp_policy(&self) -> SrtpPolicy {
        match self.capabilities.srtp {
            SrtpPolicy::Optional | SrtpPolicy::Opportunistic if self.keys.seed.is_none() => SrtpPolicy::Off,
            policy => policy,
        }
    }

    fn is_secure(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan: &MediaPlan| plan.secure)
    }
}

impl Line {
    /// As an attribute: no lifetime, no identifier.
    pub(super) fn to_attribute(&self) -> Attribute {
        let (name, key) = (self.suite.sdp_name(), self.key.to_inline());
        Attribute::value("crypto", format!("{} {name} inline:{key}", self.tag))
    }

    fn keys_with(&self, theirs: Line) -> SrtpKeys {
        SrtpKeys { suite: self.suite, send: self.key.clone(), receive: theirs.key.clone(), mki: theirs.mki }
    }

    /// Reads `1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^20|1:4`. Lines that would change what is encrypted, or
    /// ask for what we do not do, are not ours to take.
    fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split_ascii_whitespace();
        let tag = fields.next()?.parse().ok()?;
        let suite = Suite::from_sdp_name(fields.next()?)?;
        let (method, parameters) = fields.next()?.split_once(':')?;
        // Several keys in one line are told apart by identifiers in mid-stream; nobody does it.
        if !method.eq_ignore_ascii_case("inline") || parameters.contains(';') || !fields.all(is_harmless) {
            return None;
        }
        let mut parts = parameters.split('|');
        let key = MasterKey::from_inline(parts.next()?, suite)?;
        let mut mki = None;
        for part in parts {
            // A lifetime has no colon; ours is far longer than a call.
            if let Some((value, length)) = part.split_once(':') {
                mki = Some(identifier(value, length)?);
            }
        }
        Some(Self { tag, suite, key, mki })
    }
}

/// The usable lines of a section, in order.
fn lines_of(media: &Media) -> Vec<Line> {
    let values = media.attributes.iter().filter(|a| a.name.eq_ignore_ascii_case("crypto"));
    values.filter_map(|a| a.value.as_deref().and_then(Line::parse)).collect()
}

/// Session parameters that may be there: the hint about the window, and what may be ignored by its `-`.
fn is_harmless(parameter: &str) -> bool {
    parameter.starts_with('-') || parameter.to_ascii_uppercase().starts_with("WSH=") || parameter == "KDR=0"
}

/// The identifier as its octets on the wire.
fn identifier(value: &str, length: &str) -> Option<Vec<u8>> {
    let value: u64 = value.parse().ok()?;
    let length: usize = length.parse().ok().filter(|length| (1..=8).contains(length))?;
    let octets = value.to_be_bytes();
    let (rest, kept) = octets.split_at(8 - length);
    rest.iter().all(|octet| *octet == 0).then(|| kept.to_vec())
}
