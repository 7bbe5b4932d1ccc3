//! Who may register, and what they prove themselves with.

use std::collections::HashMap;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::RegistrarConfig;
use crate::sip::profile::{NextHop, Profile};
use crate::sip::trunk::Trunk;

/// The phones that may register, and where they belong.
#[derive(Debug, Clone, Default)]
pub struct PhoneBook {
    /// The realm of challenges, for which every `Secret::Ha1` was made.
    pub realm: String,
    /// Domains we are the registrar of, in lower case. Empty: our own addresses.
    pub domains: Vec<String>,
    /// By user.
    pub phones: HashMap<String, Phone>,
    /// How long registrations last, and how many there may be.
    pub settings: RegistrarConfig,
}

/// A phone that may register.
#[derive(Debug, Clone)]
pub struct Phone {
    /// User of its address and of its credentials.
    pub user: String,
    /// What it proves itself with.
    pub secret: Secret,
    /// The number its calls come from; absent: its user.
    pub number: Option<String>,
    /// What its calls come and go over.
    pub trunk: Arc<Trunk>,
}

/// What a phone proves itself with.
#[derive(Debug, Clone)]
pub enum Secret {
    /// The password.
    Password(SecretString),
    /// Hashes of user, realm and password (RFC 7616 section 3.4.2), in lower-case hexadecimal.
    Ha1 {
        /// With MD5.
        md5: SecretString,
        /// With SHA-256.
        sha256: SecretString,
    },
}

impl Secret {
    /// Whether both are the same.
    pub(in crate::sip) fn is(&self, other: &Self) -> bool {
        let same = |a: &SecretString, b: &SecretString| a.expose_secret() == b.expose_secret();
        match (self, other) {
            (Self::Password(a), Self::Password(b)) => same(a, b),
            (Self::Ha1 { md5: a, sha256: b }, Self::Ha1 { md5: c, sha256: d }) => same(a, c) && same(b, d),
            _ => false,
        }
    }
}

impl Phone {
    /// A phone whose transfers may go out over these trunks, and no other.
    pub fn new(user: &str, secret: Secret, number: Option<String>, reach: Vec<String>) -> Self {
        // Its Contact often is a private address: requests go where its own came from.
        let profile = Profile { next_hop: NextHop::Source, ..Profile::default() };
        let named = Some(user.to_owned());
        let trunk = Trunk { reach: Some(reach), phone: named, ..Trunk::new(TRUNK, Arc::new(profile)) };
        Self { user: user.to_owned(), secret, number, trunk: Arc::new(trunk) }
    }
}

/// The name that calls of phones have in place of a trunk's. No trunk can be called so.
pub const TRUNK: &str = "(phones)";
