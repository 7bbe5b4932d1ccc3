//! Suites and master keys, as session descriptions carry them (RFC 4568 section 6).

use std::fmt;
use std::hint::black_box;

use rand::Rng;

/// How packets are encrypted and authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-128 in counter mode, tags of 80 bits (RFC 4568): what everybody has.
    AesCm128Sha80,
    /// AES-128 in counter mode, RTP tags of 32 bits, RTCP tags of 80 bits (RFC 4568 section 6.2.2).
    AesCm128Sha32,
    /// AES-256 in counter mode, tags of 80 bits (RFC 6188).
    AesCm256Sha80,
    /// AES-256 in counter mode, RTP tags of 32 bits (RFC 6188).
    AesCm256Sha32,
    /// AES-128 in Galois counter mode (RFC 7714).
    AeadAes128Gcm,
    /// AES-256 in Galois counter mode (RFC 7714).
    AeadAes256Gcm,
}

impl Suite {
    /// All of them, in the order we offer them: the mandatory one first, short tags last.
    pub const ALL: [Self; 6] = [
        Self::AesCm128Sha80,
        Self::AesCm256Sha80,
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
        Self::AesCm128Sha32,
        Self::AesCm256Sha32,
    ];

    /// The name in `a=crypto`.
    pub const fn sdp_name(self) -> &'static str {
        match self {
            Self::AesCm128Sha80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128Sha32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AesCm256Sha80 => "AES_256_CM_HMAC_SHA1_80",
            Self::AesCm256Sha32 => "AES_256_CM_HMAC_SHA1_32",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// The suite of a name in `a=crypto`; case does not matter.
    pub fn from_sdp_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.sdp_name().eq_ignore_ascii_case(name))
    }

    /// Octets of a master key.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesCm128Sha80 | Self::AesCm128Sha32 | Self::AeadAes128Gcm => 16,
            Self::AesCm256Sha80 | Self::AesCm256Sha32 | Self::AeadAes256Gcm => 32,
        }
    }

    /// Octets of a master salt.
    pub const fn salt_len(self) -> usize {
        if self.is_aead() { 12 } else { 14 }
    }

    /// Octets that a packet of RTP grows by.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::AesCm128Sha80 | Self::AesCm256Sha80 => 10,
            Self::AesCm128Sha32 | Self::AesCm256Sha32 => 4,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
        }
    }

    pub(super) const fn is_aead(self) -> bool {
        matches!(self, Self::AeadAes128Gcm | Self::AeadAes256Gcm)
    }
}

/// A master key and its salt. Printed as `***`, overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey {
    octets: [u8; LONGEST],
    key_len: u8,
    salt_len: u8,
}

impl MasterKey {
    /// A new key out of `rng`, which must be fit for secrets.
    pub fn fresh<R: Rng + ?Sized>(suite: Suite, rng: &mut R) -> Self {
        let mut key = Self::empty(suite);
        let length = key.len();
        rng.fill_bytes(&mut key.octets[..length]);
        key
    }

    /// A key of its octets, the key before the salt; `None` when there are not as many as `suite` has.
    pub fn of(suite: Suite, octets: &[u8]) -> Option<Self> {
        let mut key = Self::empty(suite);
        let length = key.len();
        (octets.len() == length).then(|| {
            key.octets[..length].copy_from_slice(octets);
            key
        })
    }

    /// Reads what stands between `inline:` and the first `|`: base64, its padding may be missing.
    pub fn from_inline(text: &str, suite: Suite) -> Option<Self> {
        if text.len() > LONGEST * 2 {
            return None;
        }
        let digits = text.trim_end_matches('=');
        let mut octets = base64_simd::STANDARD_NO_PAD.decode_to_vec(digits).ok()?;
        let key = Self::of(suite, &octets);
        wipe(&mut octets);
        key
    }

    /// As written after `inline:`. A secret.
    pub fn to_inline(&self) -> String {
        base64_simd::STANDARD.encode_to_string(&self.octets[..self.len()])
    }

    /// Whether it has the lengths that `suite` asks for.
    pub(super) fn fits(&self, suite: Suite) -> bool {
        (usize::from(self.key_len), usize::from(self.salt_len)) == (suite.key_len(), suite.salt_len())
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.octets[..usize::from(self.key_len)]
    }

    pub(super) fn salt(&self) -> &[u8] {
        &self.octets[usize::from(self.key_len)..self.len()]
    }

    fn empty(suite: Suite) -> Self {
        Self { octets: [0; LONGEST], key_len: suite.key_len() as u8, salt_len: suite.salt_len() as u8 }
    }

    fn len(&self) -> usize {
        usize::from(self.key_len) + usize::from(self.salt_len)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        wipe(&mut self.octets);
    }
}

/// What offer and answer agreed on for one leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrtpKeys {
    /// Both ways the same.
    pub suite: Suite,
    /// Ours, from our description: what we encrypt with.
    pub send: MasterKey,
    /// The peer's, from its description: what it encrypts with.
    pub receive: MasterKey,
    /// The identifier the peer puts into every packet it sends, if it announced one. Ours carry none.
    pub mki: Option<Vec<u8>>,
}

/// Overwrites a secret; the black box keeps the compiler from leaving that out.
pub(super) fn wipe(octets: &mut [u8]) {
    octets.fill(0);
    black_box(octets);
}

/// AES-256 in counter mode: 32 octets of key, 14 of salt.
const LONGEST: usize = 46;
