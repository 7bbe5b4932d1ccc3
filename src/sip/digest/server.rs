//! Asking for credentials and checking them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::params::AuthParams;
use super::{Algorithm, Exchange, Qop, ha1, hex};
use crate::sip::header::quote;
use crate::sip::headers::HeaderValue;

/// The server's side of one realm.
///
/// A nonce says when it was made and proves by HMAC that we made it, so that asking costs no memory. Only
/// nonces that were answered rightly are remembered, to refuse replays; at most 4096 of them, the oldest
/// being forgotten and then refused as stale.
#[derive(Debug)]
pub struct DigestServer {
    realm: String,
    algorithms: Vec<Algorithm>,
    lifetime: Duration,
    key: Key,
    epoch: Instant,
    used: BTreeMap<NonceId, Window>,
    /// Nonces made at or before this time are forgotten.
    forgotten: Option<u64>,
}

/// What credentials are worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They are right.
    Accepted {
        /// Who asks.
        username: String,
    },
    /// The nonce is too old, used up, or of before a restart: challenge again with `stale=true`.
    Stale,
    /// They are wrong, absent, or for someone unknown: challenge again.
    Refused,
}

/// What the server knows of a user.
pub enum Known {
    /// The password.
    Password(String),
    /// Hashes of user, realm and password: one for each algorithm that is asked for.
    Ha1 {
        /// With MD5.
        md5: String,
        /// With SHA-256.
        sha256: String,
    },
}

impl Known {
    fn hash(&self, algorithm: Algorithm, username: &str, realm: &str) -> String {
        match (self, algorithm) {
            (Self::Password(password), _) => ha1(algorithm, username, realm, password),
            (Self::Ha1 { md5, .. }, Algorithm::Md5) => md5.to_ascii_lowercase(),
            (Self::Ha1 { sha256, .. }, Algorithm::Sha256) => sha256.to_ascii_lowercase(),
            // It is never asked for, so nobody who answers with it is right.
            (Self::Ha1 { .. }, Algorithm::Sha512_256) => String::new(),
        }
    }
}

/// When a nonce was made, in milliseconds since `epoch`, and what makes it unique.
type NonceId = (u64, u64);

struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The counts of one nonce that were used: the highest, and which of the 64 below it.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    highest: u32,
    below: u64,
}

/// Length of a nonce: 32 octets in hexadecimal.
const NONCE_DIGITS: usize = 64;

impl DigestServer {
    /// A realm that asks for MD5 and SHA-256, MD5 first: RFC 8760 wants the stronger one first, but phones
    /// that know only MD5 are many, and not a few of them give up at the first challenge they cannot read.
    /// `key` is fresh randomness. Nonces live for `lifetime`, which
    /// is held between 60 and 300 s.
    pub fn new(realm: &str, key: [u8; 32], lifetime: Duration, now: Instant) -> Self {
        Self {
            realm: realm.to_owned(),
            algorithms: vec![Algorithm::Md5, Algorithm::Sha256],
            lifetime: lifetime.clamp(Duration::from_secs(60), Duration::from_secs(300)),
            key: Key(key),
            epoch: now,
            used: BTreeMap::new(),
            forgotten: None,
        }
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The challenges of a 401 or 407, one header row each. `random` makes the nonce
    /// unique.
    pub fn challenge(&self, now: Instant, random: u64, stale: bool) -> Vec<HeaderValue> {
        let nonce = self.nonce((self.millis(now), random));
        let row = |algorithm: &Algorithm| {
            let realm = quote(&self.realm);
            let realm = String::from_utf8_lossy(&realm);
            let stale = if stale { ", stale=true" } else { "" };
            let algorithm = algorithm.as_str();
            HeaderValue::cleaned(format!(
                "Digest realm={realm}, nonce=\"{nonce}\", algorithm={algorithm}, qop=\"auth\"{stale}"
            ))
        };
        self.algorithms.iter().map(row).collect()
    }

    /// Judges the credentials of a request: the rows of its Authorization or Proxy-Authorization header.
    /// `password` looks a user up; the work is the same whether there is one. The `uri` of the credentials
    /// is not compared with the Request-URI, which proxies on the way may have changed.
    pub fn verify<'a>(
        &mut self,
        now: Instant,
        rows: impl Iterator<Item = &'a [u8]>,
        method: &str,
        body: &[u8],
        password: impl Fn(&str) -> Option<String>,
    ) -> Verdict {
        let nobody = Known::Password("no such user".to_owned());
        self.verify_among(now, rows, (method, body), &nobody, |user| password(user).map(Known::Password))
    }

    /// As [`Self::verify`], for users of whom more or less than a password is known.
    pub fn verify_known<'a>(
        &mut self,
        now: Instant,
        rows: impl Iterator<Item = &'a [u8]>,
        method: &str,
        body: &[u8],
        known: impl Fn(&str) -> Option<Known>,
    ) -> Verdict {
        // Who has hashes for its phones does no more work for a phone it does not have.
        let nobody = Known::Ha1 { md5: NOBODY.to_owned(), sha256: NOBODY.repeat(2) };
        self.verify_among(now, rows, (method, body), &nobody, known)
    }

    fn verify_among<'a>(
        &mut self,
        now: Instant,
        rows: impl Iterator<Item = &'a [u8]>,
        (method, body): (&str, &[u8]),
        nobody: &Known,
        known: impl Fn(&str) -> Option<Known>,
    ) -> Verdict {
        let credentials = rows.flat_map(AuthParams::read_row).find(|c| {
            let ours = c.get("realm") == Some(self.realm.as_str());
            ours && c.scheme.eq_ignore_ascii_case("Digest")
        });
        match credentials {
            Some(credentials) => self.judge(now, &credentials, (method, body), nobody, known),
            None => Verdict::Refused,
        }
    }

    fn judge(
        &mut self,
        now: Instant,
        credentials: &AuthParams,
        (method, body): (&str, &[u8]),
        nobody: &Known,
        lookup: impl Fn(&str) -> Option<Known>,
    ) -> Verdict {
        let Some(answer) = Answer::read(credentials) else {
            return Verdict::Refused;
        };
        let Some(id) = self.open_nonce(answer.nonce) else {
            // Perhaps ours, of before a restart: no password was tried with it, and it is asked for anew.
            let like_ours =
                answer.nonce.len() == NONCE_DIGITS && answer.nonce.bytes().all(|b| b.is_ascii_hexdigit());
            return if like_ours { Verdict::Stale } else { Verdict::Refused };
        };
        let known = lookup(answer.username);
        let secret = known.as_ref().unwrap_or(nobody).hash(answer.algorithm, answer.username, &self.realm);
        let expected = Exchange {
            algorithm: answer.algorithm,
            session: answer.session,
            realm: &self.realm,
            nonce: answer.nonce,
            protection: answer.protection,
            method,
            uri: answer.uri,
            body,
        }
        .response_of(secret);
        let right: bool = expected.as_bytes().ct_eq(answer.response.as_bytes()).into();
        if !right || known.is_none() || !self.algorithms.contains(&answer.algorithm) {
            return Verdict::Refused;
        }
        match self.is_fresh(now, id) && self.use_count(now, id, answer.count) {
            true => Verdict::Accepted { username: answer.username.to_owned() },
            false => Verdict::Stale,
        }
    }

    fn is_fresh(&self, now: Instant, id: NonceId) -> bool {
        let age = self.millis(now).checked_sub(id.0);
        let forgotten = self.forgotten.is_some_and(|until| id.0 <= until) && !self.used.contains_key(&id);
        age.is_some_and(|age| age <= self.lifetime.as_millis() as u64) && !forgotten
    }

    /// Notes the use of a count; false when it was used before.
    fn use_count(&mut self, now: Instant, id: NonceId, count: u32) -> bool {
        let oldest_alive = self.millis(now).saturating_sub(self.lifetime.as_millis() as u64);
        self.used = self.used.split_off(&(oldest_alive, 0));
        if self.used.len() >= MAX_USED
            && !self.used.contains_key(&id)
            && let Some(((made, _), _)) = self.used.pop_first()
        {
            self.forgotten = self.forgotten.max(Some(made));
        }
        self.used.entry(id).or_default().take(count)
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }

    fn nonce(&self, (made, random): NonceId) -> String {
        let mut octets = [0u8; 32];
        octets[..8].copy_from_slice(&made.to_be_bytes());
        octets[8..16].copy_from_slice(&random.to_be_bytes());
        let proof = self.proof(&octets[..16]);
        octets[16..].copy_from_slice(&proof);
        hex(&octets)
    }

    /// What a nonce of ours says; `None` for one that is not ours.
    fn open_nonce(&self, nonce: &str) -> Option<NonceId> {
        let head = nonce.get(..32)?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let id = (number(head.get(..16)?)?, number(head.get(16..)?)?);
        let genuine: bool = self.nonce(id).as_bytes().ct_eq(nonce.as_bytes()).into();
        genuine.then_some(id)
    }

    fn proof(&self, octets: &[u8]) -> [u8; 16] {
        let mut proof = [0u8; 16];
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key.0) {
            mac.update(octets);
            proof.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        proof
    }
}

impl Window {
    /// Uses a count; false when it was used, or is too far below the highest to know.
    fn take(&mut self, count: u32) -> bool {
        if count > self.highest {
            let step = count - self.highest;
            self.below = match step {
                1..=63 => self.below << step | 1 << (step - 1),
                64 => 1 << 63,
                _ => 0,
            };
            if self.highest == 0 {
                self.below = 0;
            }
            self.highest = count;
            return true;
        }
        let distance = self.highest - count;
        if count == 0 || distance == 0 || distance > 64 || self.below >> (distance - 1) & 1 == 1 {
            return false;
        }
        self.below |= 1 << (distance - 1);
        true
    }
}

/// Credentials, read.
struct Answer<'a> {
    username: &'a str,
    nonce: &'a str,
    uri: &'a str,
    response: &'a str,
    algorithm: Algorithm,
    session: bool,
    protection: Option<(Qop, &'a str, &'a str)>,
    /// `nc`; without qop a nonce is good once.
    count: u32,
}

impl<'a> Answer<'a> {
    fn read(params: &'a AuthParams) -> Option<Self> {
        let (algorithm, session) =
            params.get("algorithm").map_or(Some((Algorithm::Md5, false)), Algorithm::from_token)?;
        let (protection, count) = match params.get("qop") {
            None => (None, 1),
            Some(qop) => {
                let qop =
                    [Qop::Auth, Qop::AuthInt].into_iter().find(|q| q.as_str().eq_ignore_ascii_case(qop))?;
                let nc = params.get("nc").filter(|nc| nc.len() == 8)?;
                let count = u32::from_str_radix(nc, 16).ok().filter(|count| *count > 0)?;
                (Some((qop, nc, params.get("cnonce")?)), count)
            }
        };
        Some(Self {
            username: params.get("username")?,
            nonce: params.get("nonce")?,
            uri: params.get("uri")?,
            response: params.get("response")?,
            algorithm,
            session,
            protection,
            count,
        })
    }
}

const MAX_USED: usize = 4096;
/// As long as a hash, and the hash of nothing anybody could say.
const NOBODY: &str = "00000000000000000000000000000000";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::digest::{Challenged, Credentials, DigestClient};
    use crate::sip::headers::{HeaderName, Headers};

    struct Pair {
        server: DigestServer,
        client: DigestClient,
        now: Instant,
    }

    impl Pair {
        fn new(password: &str) -> Self {
            let now = Instant::now();
            let credentials = Credentials { username: "bob".into(), password: password.to_owned().into() };
            let server = DigestServer::new("tandem", [7; 32], Duration::from_secs(60), now);
            Self { server, client: DigestClient::new(credentials), now }
        }

        fn ask(&mut self, random: u64) {
            let mut response = Headers::new();
            for row in self.server.challenge(self.now, random, false) {
                response.push(HeaderName::WwwAuthenticate, row);
            }
            self.client.challenged(&response, &mut Challenged::default()).unwrap();
        }

        fn answer(&mut self) -> Vec<u8> {
            let headers = self.client.authorize("INVITE", "sip:x@y", b"", "abc");
            headers[0].1.as_bytes().to_vec()
        }

        fn verify(&mut self, row: &[u8]) -> Verdict {
            let lookup = |user: &str| (user == "bob").then(|| "right".to_owned());
            self.server.verify(self.now, std::iter::once(row), "INVITE", b"", lookup)
        }
    }

    fn accepted() -> Verdict {
        Verdict::Accepted { username: "bob".into() }
    }

    #[test]
    fn right_credentials_pass_as_often_as_the_count_goes_up() {
        let mut pair = Pair::new("right");
        pair.ask(1);
        for _ in 0..3 {
            let row = pair.answer();
            assert_eq!(pair.verify(&row), accepted());
        }
    }

    #[test]
    fn a_replay_and_an_old_nonce_are_stale() {
        let mut pair = Pair::new("right");
        pair.ask(1);
        let row = pair.answer();
        assert_eq!(pair.verify(&row), accepted());
        assert_eq!(pair.verify(&row), Verdict::Stale);
        let row = pair.answer();
        pair.now += Duration::from_secs(61);
        assert_eq!(pair.verify(&row), Verdict::Stale);
    }

    #[test]
    fn counts_may_arrive_out_of_order_once_each() {
        let mut window = Window::default();
        let taken: Vec<bool> = [5, 3, 5, 3, 4, 70, 5, 69, 0].iter().map(|n| window.take(*n)).collect();
        assert_eq!(taken, [true, true, false, false, true, true, false, true, false]);
    }

    #[test]
    fn wrong_passwords_and_unknown_users_are_refused_alike() {
        let mut pair = Pair::new("wrong");
        pair.ask(1);
        let row = pair.answer();
        assert_eq!(pair.verify(&row), Verdict::Refused);
        let text = String::from_utf8(row).unwrap();
        assert_eq!(pair.verify(text.replace("bob", "eve").as_bytes()), Verdict::Refused);
        let mut other = Pair::new("right");
        other.server = DigestServer::new("tandem", [8; 32], Duration::from_secs(60), other.now);
        other.ask(1);
        let foreign = other.answer();
        assert_eq!(pair.verify(&foreign), Verdict::Stale, "as one of ours of before a restart");
        let text = String::from_utf8(foreign).unwrap();
        let invented = text.replace("nonce=\"", "nonce=\"x");
        assert_ne!(invented, text);
        assert_eq!(pair.verify(invented.as_bytes()), Verdict::Refused);
        assert_eq!(pair.verify(b"NoOneKnowsThisScheme opaque-data=here"), Verdict::Refused);
    }

    #[test]
    fn the_hashes_of_a_password_are_as_good_as_it() {
        let mut pair = Pair::new("right");
        let hash = |algorithm| ha1(algorithm, "bob", "tandem", "right");
        for random in [1, 2] {
            pair.ask(random);
            let row = pair.answer();
            let lookup = |user: &str| {
                let known = Known::Ha1 { md5: hash(Algorithm::Md5), sha256: hash(Algorithm::Sha256) };
                (user == "bob").then_some(known)
            };
            let rows = || std::iter::once(row.as_slice());
            assert_eq!(pair.server.verify_known(pair.now, rows(), "INVITE", b"", lookup), accepted());
            let wrong =
                |_: &str| Some(Known::Ha1 { md5: hash(Algorithm::Sha256), sha256: hash(Algorithm::Md5) });
            assert_eq!(pair.server.verify_known(pair.now, rows(), "INVITE", b"", wrong), Verdict::Refused);
        }
    }

    #[test]
    fn the_replay_table_is_bounded_and_forgets_safely() {
        let mut pair = Pair::new("right");
        pair.ask(0);
        let first = pair.answer();
        assert_eq!(pair.verify(&first), accepted());
        for random in 1..=MAX_USED as u64 {
            pair.now += Duration::from_millis(1);
            pair.ask(random);
            let row = pair.answer();
            assert_eq!(pair.verify(&row), accepted());
        }
        assert!(pair.server.used.len() <= MAX_USED);
        assert_eq!(pair.verify(&first), Verdict::Stale);
    }
}
