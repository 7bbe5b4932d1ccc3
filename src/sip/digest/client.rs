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
    /// The same nonce was answered before and is not stale: the credentials are wrong.
    #[error("the credentials were refused")]
    Refused,
}

/// The client's side: what was asked of us, and how often each nonce was used.
///
/// Feed it every 401 and 407, ask it for the headers of the next try and of later requests to the same
/// peer (they are sent unasked, RFC 3261 section 22.1). The caller tries a request at most three times.
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
    /// among equals).
    ///
    /// # Errors
    /// When there is none we know, or one repeats a nonce that was answered already.
    pub fn challenged(&mut self, response: &Headers) -> Result<(), DigestError> {
        let mut any = false;
        for (asked, answer) in [
            (HeaderName::WwwAuthenticate, HeaderName::Authorization),
            (HeaderName::ProxyAuthenticate, HeaderName::ProxyAuthorization),
        ] {
            let all: Vec<_> = response.rows(asked).take(MAX_REALMS).flat_map(Challenge::read_row).collect();
            for challenge in strongest_of_each_realm(all) {
                any = true;
                self.remember(challenge, answer)?;
            }
        }
        if any { Ok(()) } else { Err(DigestError::NoKnownChallenge) }
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
        client
            .challenged(&challenge(&[
                "Digest realm=\"r\", nonce=\"m\", algorithm=MD5",
                "Digest realm=\"r\", nonce=\"x\", algorithm=SHA-1024",
                "Digest realm=\"r\", nonce=\"s\", algorithm=SHA-256, qop=\"auth-int,auth\", opaque=\"o\"",
                "Basic realm=\"r\"",
            ]))
            .unwrap();
        let answer = answers(&mut client);
        assert_eq!(answer.len(), 1);
        assert!(answer[0].contains("nonce=\"s\"") && answer[0].contains("algorithm=SHA-256"), "{answer:?}");
        assert!(answer[0].contains("qop=auth, nc=00000001, opaque=\"o\""), "{answer:?}");
        assert!(answers(&mut client)[0].contains("nc=00000002"));
    }

    #[test]
    fn without_qop_the_answer_is_rfc_2069() {
        let mut client = client();
        client.challenged(&challenge(&["Digest realm=biloxi.com,nonce=\"dcd98b\""])).unwrap();
        let answer = answers(&mut client).remove(0);
        assert!(!answer.contains("qop") && !answer.contains("nc=") && !answer.contains("algorithm"));
        // MD5(MD5("bob:biloxi.com:zanzibar"):dcd98b:MD5("INVITE:sip:a@b"))
        let a1 = Algorithm::Md5.hash(&[b"bob", b"biloxi.com", b"zanzibar"]);
        let a2 = Algorithm::Md5.hash(&[b"INVITE", b"sip:a@b"]);
        let expected = Algorithm::Md5.hash(&[a1.as_bytes(), b"dcd98b", a2.as_bytes()]);
        assert!(answer.contains(&expected));
    }

    #[test]
    fn a_repeated_nonce_means_refused_unless_stale() {
        let mut client = client();
        let asked = challenge(&["Digest realm=r, nonce=n"]);
        assert_eq!(client.challenged(&asked), Ok(()));
        answers(&mut client);
        assert_eq!(client.challenged(&asked), Err(DigestError::Refused));
        assert_eq!(client.challenged(&challenge(&["Digest realm=r, nonce=n, stale=TRUE"])), Ok(()));
        assert_eq!(client.challenged(&challenge(&["Digest realm=r, nonce=n2"])), Ok(()));
        assert_eq!(client.challenged(&challenge(&["NoOne knows=this"])), Err(DigestError::NoKnownChallenge));
    }

    #[test]
    fn a_realm_cannot_break_out_of_its_header() {
        let mut client = client();
        client.challenged(&challenge(&["Digest realm=\"a\\\"b\\\\\", nonce=\"n\""])).unwrap();
        let answer = answers(&mut client).remove(0);
        let read = AuthParams::read_row(answer.as_bytes());
        assert_eq!(read[0].get("realm"), Some("a\"b\\"));
    }
}
