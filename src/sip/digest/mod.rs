//! Digest authentication (RFC 7616, RFC 8760, RFC 3261 section 22): asking and being asked.
//!
//! Time and randomness are handed in. Passwords never appear in `Debug`.

mod client;
mod params;
mod server;

pub use client::{Challenge, Challenged, Credentials, DigestClient, DigestError};
pub use server::{DigestServer, Known, Verdict};

use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};

/// A digest algorithm, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `MD5`
    Md5,
    /// `SHA-256`
    Sha256,
    /// `SHA-512-256`
    Sha512_256,
}

/// What of a request is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qop {
    /// Method and URI.
    Auth,
    /// Method, URI and body.
    AuthInt,
}

impl Algorithm {
    /// The algorithm's name in headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512_256 => "SHA-512-256",
        }
    }

    /// The algorithm of this name, and whether it is its `-sess` variant.
    pub fn from_token(text: &str) -> Option<(Self, bool)> {
        let (name, session) = match text.len().checked_sub(5).and_then(|at| text.split_at_checked(at)) {
            Some((name, suffix)) if suffix.eq_ignore_ascii_case("-sess") => (name, true),
            _ => (text, false),
        };
        let known = [Self::Md5, Self::Sha256, Self::Sha512_256];
        known.into_iter().find(|a| a.as_str().eq_ignore_ascii_case(name)).map(|a| (a, session))
    }

    /// Lower-case hexadecimal digest of parts with colons between.
    fn hash(self, parts: &[&[u8]]) -> String {
        match self {
            Self::Md5 => hash_with(Md5::new(), parts),
            Self::Sha256 => hash_with(Sha256::new(), parts),
            Self::Sha512_256 => hash_with(Sha512_256::new(), parts),
        }
    }
}

impl Qop {
    /// The name in headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }
}

/// What goes into a response besides the secret.
struct Exchange<'a> {
    algorithm: Algorithm,
    session: bool,
    realm: &'a str,
    nonce: &'a str,
    /// qop, nc (8 hexadecimal digits) and cnonce; `None` is RFC 2069.
    protection: Option<(Qop, &'a str, &'a str)>,
    method: &'a str,
    uri: &'a str,
    body: &'a [u8],
}

impl Exchange<'_> {
    fn response(&self, username: &str, password: &str) -> String {
        let (username, realm) = (username.as_bytes(), self.realm.as_bytes());
        self.response_of(self.algorithm.hash(&[username, realm, password.as_bytes()]))
    }

    /// The response of who has only the hash of user, realm and password.
    fn response_of(&self, mut secret: String) -> String {
        let hash = |parts: &[&[u8]]| self.algorithm.hash(parts);
        let cnonce = self.protection.map_or("", |(_, _, cnonce)| cnonce);
        if self.session {
            secret = hash(&[secret.as_bytes(), self.nonce.as_bytes(), cnonce.as_bytes()]);
        }
        let request = match self.protection {
            Some((Qop::AuthInt, ..)) => {
                let body = hash(&[self.body]);
                hash(&[self.method.as_bytes(), self.uri.as_bytes(), body.as_bytes()])
            }
            Some((Qop::Auth, ..)) | None => hash(&[self.method.as_bytes(), self.uri.as_bytes()]),
        };
        let (secret, nonce, request) = (secret.as_bytes(), self.nonce.as_bytes(), request.as_bytes());
        match self.protection {
            Some((qop, nc, cnonce)) => {
                hash(&[secret, nonce, nc.as_bytes(), cnonce.as_bytes(), qop.as_str().as_bytes(), request])
            }
            None => hash(&[secret, nonce, request]),
        }
    }
}

/// The hash of user, realm and password that stands for the password (HA1, RFC 7616 section 3.4.2).
pub fn ha1(algorithm: Algorithm, username: &str, realm: &str, password: &str) -> String {
    algorithm.hash(&[username.as_bytes(), realm.as_bytes(), password.as_bytes()])
}

fn hash_with(mut hasher: impl Digest, parts: &[&[u8]]) -> String {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hasher.update(b":");
        }
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

fn hex(octets: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble & 15)]);
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(*octet)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc7616(algorithm: Algorithm, nonce_response: &str) {
        let exchange = Exchange {
            algorithm,
            session: false,
            realm: "http-auth@example.org",
            nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            protection: Some((Qop::Auth, "00000001", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")),
            method: "GET",
            uri: "/dir/index.html",
            body: b"",
        };
        assert_eq!(exchange.response("Mufasa", "Circle of Life"), nonce_response);
    }

    #[test]
    fn the_examples_of_rfc_7616_come_out() {
        rfc7616(Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec");
        rfc7616(Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
    }

    #[test]
    fn the_example_of_rfc_2069_as_corrected_comes_out() {
        let exchange = Exchange {
            algorithm: Algorithm::Md5,
            session: false,
            realm: "testrealm@host.com",
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            protection: None,
            method: "GET",
            uri: "/dir/index.html",
            body: b"",
        };
        assert_eq!(exchange.response("Mufasa", "CircleOfLife"), "1949323746fe6a43ef61f9606e7febea");
    }

    #[test]
    fn algorithms_are_read_in_any_case() {
        assert_eq!(Algorithm::from_token("md5"), Some((Algorithm::Md5, false)));
        assert_eq!(Algorithm::from_token("SHA-256-SESS"), Some((Algorithm::Sha256, true)));
        assert_eq!(Algorithm::from_token("SHA-512"), None);
    }
}
