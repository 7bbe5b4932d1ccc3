//! Sealing of secrets that the database keeps: AES-256-GCM (NIST SP 800-38D) under a master key that it does
//! not have.
//!
//! Sealed text is `v1.NAME.BODY`: the version, the name of the master key (the first eight hexadecimal digits of
//! its SHA-256), and nonce, ciphertext and tag in base64. Version, name and what the secret is for are
//! authenticated with it: a row copied to another provider or organization does not open there.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::config::{MasterKey, Secrets};

/// The present master key, and earlier ones that still open what they sealed.
#[derive(Debug)]
pub struct Vault {
    present: Sealer,
    previous: Vec<Sealer>,
}

#[derive(Debug)]
struct Sealer {
    name: String,
    key: LessSafeKey,
}

/// Why something is not sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The system gives no random numbers, or the key is unusable.
    #[error("the secret cannot be sealed: the system gives no random numbers")]
    Seal,
    /// The text was not sealed by us.
    #[error("a sealed secret is damaged; remove it and add it again")]
    Damaged,
    /// It was sealed with a master key we do not have.
    #[error(
        "it was sealed with master key {name}, which is not there; name its variable in secrets.previous_key_env"
    )]
    OtherKey {
        /// Which one.
        name: String,
    },
    /// It does not open: changed, or moved from somewhere else.
    #[error("a sealed secret does not open: it was changed, or belongs to another row")]
    Forged,
}

impl Vault {
    /// The vault of an installation; `None` when it has no master key.
    pub fn of(secrets: &Secrets) -> Option<Self> {
        let present = Sealer::new(secrets.key.as_ref()?)?;
        Some(Self { present, previous: secrets.previous.iter().filter_map(Sealer::new).collect() })
    }

    /// What the present master key is called.
    pub fn name(&self) -> &str {
        &self.present.name
    }

    /// Whether that sealed text is under the present master key.
    pub fn is_present(&self, sealed: &str) -> bool {
        parts(sealed).is_some_and(|(name, _)| name == self.present.name)
    }

    /// Seals a secret under the present master key. `purpose` says where it belongs; it is not kept.
    ///
    /// # Errors
    /// [`VaultError::Seal`].
    pub fn seal(&self, secret: &SecretString, purpose: &[&str]) -> Result<String, VaultError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| VaultError::Seal)?;
        let mut body = secret.expose_secret().as_bytes().to_vec();
        let aad = Aad::from(authenticated(&self.present.name, purpose));
        self.present
            .key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
            .map_err(|_| VaultError::Seal)?;
        let body = [nonce.as_slice(), &body].concat();
        let body = base64_simd::URL_SAFE_NO_PAD.encode_to_string(body);
        Ok(format!("{VERSION}.{}.{body}", self.present.name))
    }

    /// Opens what was sealed for the same purpose.
    ///
    /// # Errors
    /// When it is damaged, forged, or under a master key that is not there.
    pub fn open(&self, sealed: &str, purpose: &[&str]) -> Result<SecretString, VaultError> {
        let (name, body) = parts(sealed).ok_or(VaultError::Damaged)?;
        let mut all = std::iter::once(&self.present).chain(&self.previous);
        let sealer = all
            .find(|sealer| sealer.name == name)
            .ok_or_else(|| VaultError::OtherKey { name: name.escape_debug().to_string() })?;
        let body = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(body).map_err(|_| VaultError::Damaged)?;
        let (nonce, body) = body.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Damaged)?;
        let mut body = body.to_vec();
        let aad = Aad::from(authenticated(name, purpose));
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = sealer.key.open_in_place(nonce, aad, &mut body).map_err(|_| VaultError::Forged)?;
        let text = String::from_utf8(plain.to_vec()).map_err(|_| VaultError::Damaged)?;
        Ok(text.into())
    }
}

impl Sealer {
    /// `None` does not happen: the length is right.
    fn new(master: &MasterKey) -> Option<Self> {
        let octets = master.octets();
        let name = Sha256::digest(octets).iter().take(4).map(|octet| format!("{octet:02x}")).collect();
        let key = UnboundKey::new(&AES_256_GCM, octets).ok()?;
        Some(Self { name, key: LessSafeKey::new(key) })
    }
}

fn parts(sealed: &str) -> Option<(&str, &str)> {
    sealed.strip_prefix(VERSION)?.strip_prefix('.')?.split_once('.')
}

/// Each part with its length, so that no two lists of parts read alike.
fn authenticated(name: &str, purpose: &[&str]) -> Vec<u8> {
    let mut octets = Vec::new();
    for part in [VERSION, name].iter().chain(purpose) {
        octets.extend((part.len() as u64).to_be_bytes());
        octets.extend(part.as_bytes());
    }
    octets
}

const VERSION: &str = "v1";

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(present: u8, previous: &[u8]) -> Vault {
        let master = |n: u8| MasterKey::new([n; 32]);
        let previous = previous.iter().map(|n| master(*n)).collect();
        Vault::of(&Secrets { key: Some(master(present)), previous, ..Secrets::default() }).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_no_other() {
        let vault = vault(1, &[]);
        let sealed = vault.seal(&"sk-secret".into(), &["openai", "acme"]).unwrap();
        assert!(!sealed.contains("sk-secret"));
        let open = |purpose: &[&str]| vault.open(&sealed, purpose).map(|s| s.expose_secret().to_owned());
        assert_eq!(open(&["openai", "acme"]), Ok("sk-secret".to_owned()));
        for purpose in [&["openai", "other"][..], &["openaiacme"], &["openai", "acme", ""], &[]] {
            assert_eq!(open(purpose), Err(VaultError::Forged), "{purpose:?}");
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_alike() {
        let vault = vault(1, &[]);
        let seal = || vault.seal(&"sk-secret".into(), &[]).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_change_anywhere_is_noticed() {
        let vault = vault(1, &[]);
        let sealed = vault.seal(&"sk-secret".into(), &["x"]).unwrap();
        for at in 0..sealed.len() {
            let mut other = sealed.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(vault.open(&other, &["x"]).is_err(), "{at}");
        }
        for cut in 0..sealed.len() {
            assert!(vault.open(&sealed[..cut], &["x"]).is_err(), "{cut}");
        }
    }

    #[test]
    fn an_earlier_master_key_opens_until_it_is_gone() {
        let old = vault(1, &[]).seal(&"sk-secret".into(), &[]).unwrap();
        let both = vault(2, &[1]);
        assert!(both.open(&old, &[]).is_ok() && !both.is_present(&old));
        let new = both.seal(&both.open(&old, &[]).unwrap(), &[]).unwrap();
        assert!(both.is_present(&new) && vault(2, &[]).open(&new, &[]).is_ok());
        assert!(matches!(vault(2, &[]).open(&old, &[]), Err(VaultError::OtherKey { .. })));
    }

    #[test]
    fn a_text_sealed_elsewhere_opens_here() {
        // Python: AESGCM(bytes([7])*32).encrypt(bytes(range(12)), b"sk-secret", aad) of `cryptography`, aad being
        // "v1", "4bb06f8e" and "openai", each after its length.
        let name = vault(7, &[]).name().to_owned();
        assert_eq!(name, FOREIGN.split('.').nth(1).unwrap());
        assert_eq!(vault(7, &[]).open(FOREIGN, &["openai"]).unwrap().expose_secret(), "sk-secret");
    }

    const FOREIGN: &str = "v1.4bb06f8e.AAECAwQFBgcICQoLa-rEA3hqqywDdUaPfPKhc0IQLXBV4dBmjw";
}
