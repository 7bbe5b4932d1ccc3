//! Digest credentials: asked of peers, and given to them (RFC 3261 section 22, RFC 8760).

use std::time::{Duration, Instant};

use rand::RngExt;
use secrecy::ExposeSecret;

use super::UserAgent;
use super::checks::Refusal;
use super::command::Credentials;
use super::legs::Leg;
use crate::id::LegId;
use crate::sip::digest::{Challenged, DigestClient, DigestServer, Verdict};
use crate::sip::headers::HeaderName;
use crate::sip::message::{Request, Response, StatusCode};
use crate::sip::registrar;
use crate::sip::trunk::Trunk;

impl UserAgent {
    /// Checks the credentials of an INVITE, if its trunk asks for them.
    pub(super) fn authenticate(
        &mut self,
        now: Instant,
        request: &Request,
        trunk: &Trunk,
    ) -> Result<(), Refusal> {
        if trunk.name == registrar::TRUNK {
            return self.authenticate_phone(now, request, HeaderName::From).map(drop);
        }
        if !trunk.inbound_auth {
            return Ok(());
        }
        let Some(expected) = trunk_credentials(trunk) else {
            // A trunk that asks for a password it does not have lets nobody in.
            return Err(Refusal::bare(StatusCode::FORBIDDEN));
        };
        let (key, random) = (self.rng.random(), self.rng.random());
        let server =
            self.digest_server.get_or_insert_with(|| DigestServer::new(REALM, key, NONCE_LIFETIME, now));
        let rows = request.headers.rows(HeaderName::Authorization);
        let password =
            |user: &str| (user == expected.username).then(|| expected.password.expose_secret().to_owned());
        let verdict = server.verify(now, rows, request.method.as_str(), &request.body, password);
        let stale = match verdict {
            Verdict::Accepted { .. } => return Ok(()),
            Verdict::Stale => true,
            Verdict::Refused => false,
        };
        metrics::counter!("tandem_sip_challenges_total").increment(1);
        let challenges = server.challenge(now, random, stale);
        let headers = challenges.into_iter().map(|value| (HeaderName::WwwAuthenticate, value)).collect();
        Err(Refusal { status: StatusCode::UNAUTHORIZED, headers })
    }

    /// Puts the answer to a 401 or 407 into a request; whether there is one worth sending.
    pub(super) fn authorize(
        &mut self,
        request: &mut Request,
        response: &Response,
        digest: &mut DigestClient,
        met: &mut Challenged,
    ) -> bool {
        if digest.challenged(&response.headers, met).is_err() {
            return false;
        }
        self.put_credentials(request, digest);
        true
    }

    /// Answers in a request what the leg was asked before, so that it is not asked again (sections 22.2, 22.3).
    pub(super) fn authorize_unasked(&mut self, id: LegId, request: &mut Request) {
        let asked = |leg: &Leg| leg.digest.clone().filter(DigestClient::is_asked);
        let Some(mut digest) = self.legs.get(&id).and_then(asked) else { return };
        self.put_credentials(request, &mut digest);
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.digest = Some(digest);
        }
    }

    pub(super) fn put_credentials(&mut self, request: &mut Request, digest: &mut DigestClient) {
        let cnonce = self.tag();
        let answers = digest.authorize(request.method.as_str(), request.uri.as_str(), &request.body, &cnonce);
        request.headers.remove(HeaderName::Authorization);
        request.headers.remove(HeaderName::ProxyAuthorization);
        // Readers that look for one name inside the other find the right row first.
        let (ours, proxies): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(name, _)| *name == HeaderName::Authorization);
        for (name, value) in ours.into_iter().chain(proxies) {
            request.headers.push(name, value);
        }
    }
}

/// What a trunk is configured with.
pub(super) fn trunk_credentials(trunk: &Trunk) -> Option<Credentials> {
    Some(Credentials { username: trunk.username.clone()?, password: trunk.password.clone()? })
}

const REALM: &str = "tandem";
const NONCE_LIFETIME: Duration = Duration::from_secs(120);
