//! Answering challenges.

use secrecy::{ExposeSecret, SecretString};

use super::params::AuthParams;
use super::{Algorithm, Exchange, Qop};
use crate::sip::header::quote;
use crate::sip::headers::{HeaderName, HeaderValue, Headers};

/// A challenge we know how to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The protection space.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// To be returned as it is.
    pub opaque: Option<String>,
    /// The algorithm; MD5 when none is named.
    pub algorithm: Algorithm,
    /// Whether it is the `-sess` variant.
    pub session: bool,
    /// What is protected; `None` is RFC 2069.
    pub qop: Option<Qop>,
    /// The nonce was too old, the credentials were right.
    pub stale: bool,
    /// As the challenge wrote the algorithm, to be echoed; `None` when it named none.
    named: Option<String>,
}

/// A user name and its password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

/// Why a challenge is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No challenge has a scheme and algorithm we know.
    #[error("no challenge we can answer")]
    NoKnownChallenge,
    /// The realm has seen our answer and asks again, and not because the nonce was stale: the credentials are wrong.
    #[error("the credentials were refused")]
    Refused,
}

/// The challenges one request has met so far, over its retries.
///
/// A realm that asks the same request again has rejected its credentials, whatever nonce it names: they are not tried
/// a second time (RFC 3261 section 22.1), unless only the nonce was stale.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenged {
    rounds: u8,
    realms: Vec<(HeaderName, String)>,
}

/// The client's side: what was asked of us, and how often each nonce was used.
///
/// Feed it every 401 and 407, ask it for the headers of the next try and of later requests to the same
/// peer (they are sent unasked, RFC 3261 sections 22.2 and 22.3).
#[derive(Debug, Clone)]
pub struct DigestClient {
    credentials: Credentials,
    /// At most [`MAX_REALMS`]; the oldest goes.
    answered: Vec<Answered>,
}

#[derive(Debug, Clone)]
struct Answered {
    challenge: Challenge,
    header: HeaderName,
    count: u32,
}

impl Challenge {
    /// The challenges of one header row that we can answer; others (Basic, unknown algorithms) are ignored.
    pub fn read_row(row: &[u8]) -> Vec<Self> {
        AuthParams::read_row(row).iter().filter_map(Self::read).collect()
    }

    fn read(params: &AuthParams) -> Option<Self> {
        if !params.scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let named = params.get("algorithm");
        let (algorithm, session) = named.map_or(Some((Algorithm::Md5, false)), Algorithm::from_token)?;
        let qop = match params.get("qop") {
            None => None,
            Some(list) => {
                let has = |qop: Qop| list.split(',').any(|q| q.trim().eq_ignore_ascii_case(qop.as_str()));
                Some([Qop::Auth, Qop::AuthInt].into_iter().find(|qop| has(*qop))?)
            }
        };
        Some(Self {
            realm: params.get("realm")?.to_owned(),
            nonce: params.get("nonce")?.to_owned(),
            opaque: params.get("opaque").map(str::to_owned),
            algorithm,
            session,
            qop,
            stale: params.get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
            named: named.map(str::to_owned),
        })
    }
}

impl DigestClient {
    /// A client that has not been asked yet.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, answered: Vec::new() }
    }

    /// Takes the challenges of a 401 or 407: of each realm the strongest (RFC 8760 section 2.4; the first
    /// among equals). `met` is what the request met before.
    ///
    /// # Errors
    /// When there is none we know, or a realm refuses what it was answered.
    pub fn challenged(&mut self, response: &Headers, met: &mut Challenged) -> Result<(), DigestError> {
        met.rounds += 1;
        if met.rounds > ROUNDS_MAX {
            return Err(DigestError::Refused);
        }
        let mut any = false;
        for (asked, answer) in [
            (HeaderName::WwwAuthenticate, HeaderName::Authorization),
            (HeaderName::ProxyAuthenticate, HeaderName::ProxyAuthorization),
        ] {
            let all: Vec<_> = response.rows(asked).take(MAX_REALMS).flat_map(Challenge::read_row).collect();
            for challenge in strongest_of_each_realm(all) {
                any = true;
                met.note(&challenge, answer)?;
                self.remember(challenge, answer)?;
            }
        }
        if any { Ok(()) } else { Err(DigestError::NoKnownChallenge) }
    }

    /// Whether anybody asked yet.
    pub fn is_asked(&self) -> bool {
        !self.answered.is_empty()
    }

    /// The headers that answer every challenge so far, for a request with this method, Request-URI and
    /// body. `cnonce` is fresh randomness of the caller, made of token characters.
    pub fn authorize(
        &mut self,
        method: &str,
        uri: &str,
        body: &[u8],
        cnonce: &str,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let credentials = &self.credentials;
        let answer = |known: &mut Answered| {
            known.count = known.count.wrapping_add(1);
            (known.header, known.answer(credentials, method, uri, body, cnonce))
        };
        self.answered.iter_mut().map(answer).collect()
    }

    fn remember(&mut self, challenge: Challenge, header: HeaderName) -> Result<(), DigestError> {
        let same = |a: &Answered| a.header == header && a.challenge.realm == challenge.realm;
        if let Some(known) = self.answered.iter_mut().find(|known| same(known)) {
            if known.challenge.nonce == challenge.nonce && known.count > 0 && !challenge.stale {
                return Err(DigestError::Refused);
            }
            *known = Answered { challenge, header, count: 0 };
            return Ok(());
        }
        if self.answered.len() == MAX_REALMS {
            self.answered.remove(0);
        }
        self.answered.push(Answered { challenge, header, count: 0 });
        Ok(())
    }
}

impl Challenged {
    fn note(&mut self, challenge: &Challenge, header: HeaderName) -> Result<(), DigestError> {
        let known = self.realms.iter().any(|(asked, realm)| *asked == header && *realm == challenge.realm);
        match (known, challenge.stale) {
            (true, false) => return Err(DigestError::Refused),
            (true, true) => {}
            (false, _) if self.realms.len() >= MAX_REALMS => return Err(DigestError::Refused),
            (false, _) => self.realms.push((header, challenge.realm.clone())),
        }
        Ok(())
    }
}

impl Answered {
    fn answer(
        &self,
        credentials: &Credentials,
        method: &str,
        uri: &str,
        body: &[u8],
        cnonce: &str,
    ) -> HeaderValue {
        let challenge = &self.challenge;
        let nc = format!("{:08x}", self.count);
        let exchange = Exchange {
            algorithm: challenge.algorithm,
            session: challenge.session,
            realm: &challenge.realm,
            nonce: &challenge.nonce,
            protection: challenge.qop.map(|qop| (qop, nc.as_str(), cnonce)),
            method,
            uri,
            body,
        };
        let response = exchange.response(&credentials.username, credentials.password.expose_secret());
        let mut out = Vec::with_capacity(320);
        out.extend_from_slice(b"Digest username=");
        out.extend(quote(&credentials.username));
        for (name, value) in
            [("realm", &*challenge.realm), ("nonce", &challenge.nonce), ("uri", uri), ("response", &response)]
        {
            put(&mut out, name, &quote(value));
        }
        if let Some(named) = &challenge.named {
            put(&mut out, "algorithm", named.as_bytes());
        }
        if challenge.qop.is_some() || challenge.session {
            put(&mut out, "cnonce", &quote(cnonce));
        }
        if let Some(qop) = challenge.qop {
            put(&mut out, "qop", qop.as_str().as_bytes());
            put(&mut out, "nc", nc.as_bytes());
        }
        if let Some(opaque) = &challenge.opaque {
            put(&mut out, "opaque", &quote(opaque));
        }
        HeaderValue::cleaned(out)
    }
}

fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(b", ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value);
}

fn strongest_of_each_realm(all: Vec<Challenge>) -> Vec<Challenge> {
    let mut best: Vec<Challenge> = Vec::new();
    for challenge in all {
        match best.iter_mut().find(|known| known.realm == challenge.realm) {
            Some(known) if known.algorithm < challenge.algorithm => *known = challenge,
            Some(_) => {}
            None => best.push(challenge),
        }
    }
    best
}

const MAX_REALMS: usize = 8;
/// A proxy and the callee, each perhaps stale once.
const ROUNDS_MAX: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> DigestClient {
        DigestClient::new(Credentials { username: "bob".into(), password: "zanzibar".to_owned().into() })
    }

    fn challenge(rows: &[&'static str]) -> Headers {
        let mut headers = Headers::new();
        for row in rows {
            headers.push(HeaderName::WwwAuthenticate, HeaderValue::from_static(row));
        }
        headers
    }

    fn answers(client: &mut DigestClient) -> Vec<String> {
        let headers = client.authorize("INVITE", "sip:a@b", b"", "c0ffee");
        headers.iter().map(|(_, value)| value.to_text().into_owned()).collect()
    }

    #[test]
    fn the_strongest_known_algorithm_is_answered() {
        let mut client = client();
        let asked = challenge(&[
            "Digest realm=\"r\", nonce=\"m\", algorithm=MD5",
            "Digest realm=\"r\", nonce=\"x\", algorithm=SHA-1024",
            "Digest realm=\"r\", nonce=\"s\", algorithm=SHA-256, qop=\"auth-int,auth\", opaque=\"o\"",
            "Basic realm=\"r\"",
        ]);
        client.challenged(&asked, &mut Challenged::default()).unwrap();
        let answer = answers(&mut client);
        assert_eq!(answer.len(), 1);
        assert!(answer[0].contains("nonce=\"s\"") && answer[0].contains("algorithm=SHA-256"), "{answer:?}");
        assert!(answer[0].contains("qop=auth, nc=00000001, opaque=\"o\""), "{answer:?}");
        assert!(answers(&mut client)[0].contains("nc=00000002"));
    }

    #[test]
    fn without_qop_the_answer_is_rfc_2069() {
        let mut client = client();
        let asked = challenge(&["Digest realm=biloxi.com,nonce=\"dcd98b\""]);
        client.challenged(&asked, &mut Challenged::default()).unwrap();
        let answer = answers(&mut client).remove(0);
        assert!(!answer.contains("qop") && !answer.contains("nc=") && !answer.contains("algorithm"));
        // MD5(MD5("bob:biloxi.com:zanzibar"):dcd98b:MD5("INVITE:sip:a@b"))
        let a1 = Algorithm::Md5.hash(&[b"bob", b"biloxi.com", b"zanzibar"]);
        let a2 = Algorithm::Md5.hash(&[b"INVITE", b"sip:a@b"]);
        let expected = Algorithm::Md5.hash(&[a1.as_bytes(), b"dcd98b", a2.as_bytes()]);
        assert!(answer.contains(&expected));
    }

    #[test]
    fn a_realm_that_asks_again_has_refused_unless_the_nonce_was_stale() {
        let (mut client, mut met) = (client(), Challenged::default());
        assert_eq!(client.challenged(&challenge(&["Digest realm=r, nonce=n"]), &mut met), Ok(()));
        answers(&mut client);
        for again in ["Digest realm=r, nonce=n", "Digest realm=r, nonce=n2"] {
            let refused = client.clone().challenged(&challenge(&[again]), &mut met.clone());
            assert_eq!(refused, Err(DigestError::Refused), "{again}");
        }
        assert_eq!(
            client.challenged(&challenge(&["Digest realm=r, nonce=n2, stale=TRUE"]), &mut met),
            Ok(())
        );
        assert_eq!(client.challenged(&challenge(&["Digest realm=q, nonce=n"]), &mut met), Ok(()));
        let unknown = client.challenged(&challenge(&["NoOne knows=this"]), &mut Challenged::default());
        assert_eq!(unknown, Err(DigestError::NoKnownChallenge));
    }

    #[test]
    fn a_later_request_may_be_asked_anew_but_not_for_the_nonce_it_answered() {
        let mut client = client();
        client.challenged(&challenge(&["Digest realm=r, nonce=n"]), &mut Challenged::default()).unwrap();
        answers(&mut client);
        answers(&mut client);
        let same = client.challenged(&challenge(&["Digest realm=r, nonce=n"]), &mut Challenged::default());
        assert_eq!(same, Err(DigestError::Refused));
        let other = client.challenged(&challenge(&["Digest realm=r, nonce=n2"]), &mut Challenged::default());
        assert_eq!(other, Ok(()));
    }

    #[test]
    fn a_peer_that_calls_every_nonce_stale_is_left_after_a_few() {
        let (mut client, mut met) = (client(), Challenged::default());
        let stale = challenge(&["Digest realm=r, nonce=n, stale=true"]);
        let tries: Vec<_> = (0..5).map(|_| client.challenged(&stale, &mut met).is_ok()).collect();
        assert_eq!(tries, [true, true, true, true, false]);
    }

    #[test]
    fn a_realm_cannot_break_out_of_its_header() {
        let mut client = client();
        let asked = challenge(&["Digest realm=\"a\\\"b\\\\\", nonce=\"n\""]);
        client.challenged(&asked, &mut Challenged::default()).unwrap();
        let answer = answers(&mut client).remove(0);
        let read = AuthParams::read_row(answer.as_bytes());
        assert_eq!(read[0].get("realm"), Some("a\"b\\"));
    }
}
