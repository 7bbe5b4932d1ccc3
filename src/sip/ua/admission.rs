//! The gate: whom we listen to, and how much.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::checks::Refusal;
use super::{UaConfig, UserAgent, dropped};
use crate::sip::flood::{Bans, Buckets};
use crate::sip::header::via::Via;
use crate::sip::headers::{HeaderName, HeaderValue, Headers};
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::parse::ParseError;
use crate::sip::transaction::{Arrival, annotate, response_target, tag_in};
use crate::sip::transport::Target;
use crate::sip::trunk::{PeerHost, Trunk, Trunks};

/// What each source has left, and who is not heard at all.
#[derive(Debug)]
pub(super) struct Admission {
    /// Replies without state to strangers.
    replies: Buckets,
    /// Requests of strangers.
    requests: Buckets,
    /// New calls of one address of a trunk.
    invites: Buckets,
    /// Refusals without state to those we know: while we are full, and of what cannot be read.
    refusals: Buckets,
    bans: Bans,
    /// Makes the To tags of refusals without state, the same for each copy of a request (RFC 3261 section 8.2.7).
    secret: u64,
}

impl Admission {
    pub(super) fn new(config: &UaConfig, secret: u64) -> Self {
        let (replies, flood) = (config.stateless_replies_per_second, &config.flood);
        let invites = flood.invites_per_second;
        Self {
            // No rate means no limit to a bucket, but no reply here.
            replies: Buckets::per_second(replies.max(1), replies),
            requests: Buckets::per_second(flood.requests_per_second, flood.burst),
            invites: Buckets::per_second(invites, invites),
            refusals: Buckets::per_second(REFUSALS_PER_SECOND, REFUSALS_PER_SECOND),
            bans: Bans::new(flood),
            secret,
        }
    }

    /// Whether one more reply to this source is within its budget; counts it.
    fn allows_reply(&mut self, now: Instant, source: IpAddr) -> bool {
        self.replies.take(now, source)
    }

    /// A source gave a wrong password, or tries number after number.
    pub(super) fn auth_failed(&mut self, now: Instant, source: IpAddr) {
        if self.bans.failed(now, source) {
            metrics::counter!("tandem_sip_banned_total").increment(1);
            tracing::warn!(%source, "banned for wrong SIP passwords or for trying numbers");
        }
    }

    fn is_banned(&self, now: Instant, source: IpAddr) -> bool {
        self.bans.holds(now, source)
    }

    fn tag(&self, request: &Request) -> String {
        let mut hasher = DefaultHasher::new();
        self.secret.hash(&mut hasher);
        request.headers.get(HeaderName::CallId).hash(&mut hasher);
        request.headers.get(HeaderName::From).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

impl UserAgent {
    /// The host name by which a trunk that this address belongs to is configured.
    pub fn name_of_peer(&self, address: IpAddr) -> Option<&str> {
        let trunk = self.trunks.admit(address)?;
        let names = trunk.peers.iter().find_map(|peer| match &peer.host {
            PeerHost::Name(name) => Some(name.as_ref()),
            PeerHost::Ip(_) => None,
        });
        names.or(trunk.domain.as_deref())
    }

    /// Replaces the trunks; calls that exist keep theirs.
    pub fn set_trunks(&mut self, trunks: Trunks) {
        self.trunks = trunks;
    }

    pub(super) fn receive_request(&mut self, now: Instant, mut request: Request, back: Target) {
        metrics::counter!("tandem_sip_messages_total", "direction" => "in", "kind" => "request").increment(1);
        let Ok(mut via) = request.headers.via_top() else { return dropped("no_via") };
        let source = back.remote.ip();
        let trunk = self.trunks.admit(source).cloned();
        let in_dialog = tag_in(&request.headers, HeaderName::To).is_some();
        let fresh = !in_dialog && is_fresh(&request.method);
        let trusted = trunk.as_ref().is_some_and(|trunk| !trunk.inbound_auth);
        if fresh && !trusted && self.admission.is_banned(now, source) {
            return dropped("banned");
        }
        let known =
            trunk.is_some() || self.is_peer_of_a_call(&request, back) || self.table.knows(&request, &via);
        let known =
            known || self.is_phone(&request, &back) && self.admission.requests.take(now, back.remote.ip());
        if !known {
            return self.stranger_arrived(now, &request, back);
        }
        annotate(&mut via, back.remote);
        request.headers.replace_first_value(HeaderName::Via, &via);
        if !in_dialog && is_scanner(&request) {
            return dropped("scanner");
        }
        if fresh && self.must_shed(now, &request, &via, (source, trunk.is_some())) {
            return self.shed(now, &request, response_target(&via, back));
        }
        match self.table.receive_request(now, &request, &via, back) {
            Ok(arrival) => self.arrived(now, request, arrival, trunk, back),
            Err(_) if request.method == Method::Ack => dropped("malformed"),
            Err(_) => {
                let refusal = Refusal::bare(StatusCode::BAD_REQUEST);
                self.reply_without_state(now, &request, refusal, response_target(&via, back));
            }
        }
    }

    /// Counts credentials that were refused. Credentials that came too late are right, and count for nothing.
    pub(super) fn note_wrong_password(
        &mut self,
        now: Instant,
        request: &Request,
        refusal: &Refusal,
        back: Target,
    ) {
        let tried = request.headers.get(HeaderName::Authorization).is_some();
        let stale = |value: &HeaderValue| value.to_text().contains("stale=true");
        let stale = refusal.headers.iter().any(|(_, value)| stale(value));
        if tried && !stale && refusal.status == StatusCode::UNAUTHORIZED {
            self.admission.auth_failed(now, back.remote.ip());
        }
    }

    /// Whether a request that would make new state comes when there is no room for it. Copies of one that is being
    /// answered are let through.
    fn must_shed(
        &mut self,
        now: Instant,
        request: &Request,
        via: &Via,
        (source, of_trunk): (IpAddr, bool),
    ) -> bool {
        let invite = request.method == Method::Invite;
        // Anybody can send a REGISTER: who is of no trunk leaves half of the room to trunks.
        let most = self.config.transactions_max / if of_trunk { 1 } else { 2 };
        let full = self.table.server_count() >= most
            || invite && (self.draining || self.legs.len() >= self.config.legs_max);
        let refused = full || invite && self.config.flood.invites_per_second > 0;
        if !refused || self.table.knows(request, via) {
            return false;
        }
        full || !self.admission.invites.take(now, source)
    }

    /// A 503 that leaves nothing behind: neither a transaction nor its timers (RFC 3261 section 8.2.7). Beyond
    /// [`REFUSALS_PER_SECOND`] the peer's own timers tell it.
    fn shed(&mut self, now: Instant, request: &Request, target: Target) {
        if !self.admission.refusals.take(now, target.remote.ip()) {
            metrics::counter!("tandem_sip_flood_dropped_total", "what" => "silence").increment(1);
            return;
        }
        metrics::counter!("tandem_sip_flood_dropped_total", "what" => "503").increment(1);
        let tag = self.admission.tag(request);
        let mut response = Response::to_request(request, StatusCode::SERVICE_UNAVAILABLE, Some(&tag));
        response.headers.push(HeaderName::RetryAfter, self.retry_after());
        self.send(target, response.to_bytes());
    }

    fn arrived(
        &mut self,
        now: Instant,
        request: Request,
        arrival: Arrival,
        trunk: Option<Arc<Trunk>>,
        back: Target,
    ) {
        match arrival {
            Arrival::Absorbed => {}
            Arrival::Ack => self.ack_arrived(now, &request),
            Arrival::Merged(tx) => self.reply(now, tx, &request, StatusCode::LOOP_DETECTED),
            Arrival::Cancel { cancel, invite } => self.cancel_arrived(now, cancel, invite, &request),
            Arrival::New(tx) => self.request_arrived(now, tx, request, trunk, back),
        }
    }

    /// Octets that are no message: answered without state, to trunks only.
    pub(super) fn receive_malformed(&mut self, now: Instant, error: &ParseError, back: Target) {
        metrics::counter!("tandem_sip_messages_total", "direction" => "in", "kind" => "malformed")
            .increment(1);
        let source = back.remote.ip();
        if self.trunks.admit(source).is_none() {
            return dropped("unknown_source");
        }
        tracing::debug!(%source, problem = %error.problem, "malformed SIP message");
        let tag = self.tag();
        match error.reply(&tag) {
            Some(reply) if self.admission.refusals.take(now, source) => {
                let target = match error.headers().via_top() {
                    Ok(via) => response_target(&via, back),
                    Err(_) => back,
                };
                self.send(target, reply.to_bytes());
            }
            Some(_) => dropped("reply_rate"),
            None => dropped("malformed"),
        }
    }

    /// A request from outside of every trunk. Who tries number after number is not told even that there is somebody.
    fn stranger_arrived(&mut self, now: Instant, request: &Request, back: Target) {
        let source = back.remote.ip();
        if !self.admission.requests.take(now, source) {
            metrics::counter!("tandem_sip_flood_dropped_total", "what" => "stranger").increment(1);
            return;
        }
        if is_sweep(request) {
            self.admission.auth_failed(now, source);
            return dropped("sweep");
        }
        self.refuse_stranger(now, request, back);
    }

    /// Strangers hear nothing, or by setting one bare 403 that is no larger than what they sent.
    fn refuse_stranger(&mut self, now: Instant, request: &Request, back: Target) {
        dropped("unknown_source");
        let refuse = self.config.refuse_unknown && request.method != Method::Ack;
        if refuse && self.admission.allows_reply(now, back.remote.ip()) {
            let response = Response::to_request(request, StatusCode::FORBIDDEN, None);
            self.send(back, response.to_bytes());
        }
    }

    fn reply_without_state(&mut self, now: Instant, request: &Request, refusal: Refusal, target: Target) {
        if request.method == Method::Ack || !self.admission.refusals.take(now, target.remote.ip()) {
            return dropped("reply_rate");
        }
        let tag = self.tag();
        let mut response = Response::to_request(request, refusal.status, Some(&tag));
        for (name, value) in refusal.headers {
            response.headers.push(name, value);
        }
        self.send(target, response.to_bytes());
    }

    /// A request inside a call of ours from the address the call is with.
    fn is_peer_of_a_call(&self, request: &Request, back: Target) -> bool {
        let leg = super::established::key_of(&request.headers).and_then(|key| self.dialogs.get(&key));
        leg.and_then(|id| self.legs.get(id)).is_some_and(|leg| leg.peer.remote.ip() == back.remote.ip())
    }
}

/// Requests that would make new state.
fn is_fresh(method: &Method) -> bool {
    !matches!(method, Method::Ack | Method::Cancel | Method::Bye)
}

/// Tools that look for open systems. An answer of any kind would make us a target.
fn is_scanner(request: &Request) -> bool {
    let agent = |headers: &Headers| {
        let agent = headers.get(HeaderName::UserAgent)?;
        Some(String::from_utf8_lossy(agent).to_ascii_lowercase())
    };
    agent(&request.headers).is_some_and(|agent| SCANNERS.iter().any(|name| agent.contains(name)))
        || request
            .headers
            .get(HeaderName::To)
            .is_some_and(|to| to.windows(SCANNER_TO.len()).any(|w| w == SCANNER_TO))
}

/// A call to a number abroad behind one of the prefixes by which open gateways are sought: `00…`, `011…`, `9011…`.
fn is_sweep(request: &Request) -> bool {
    let digits = request.uri.user().unwrap_or_default().trim_start_matches('+');
    request.method == Method::Invite
        && digits.len() >= SWEEP_DIGITS_MIN
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'*' || b == b'#')
        && SWEEP_PREFIXES.iter().any(|prefix| digits.starts_with(prefix))
}

/// An outside line and then an international prefix, or that prefix alone.
const SWEEP_PREFIXES: &[&str] = &["00", "011", "9011", "900", "8011", "800", "810", "*", "#"];
const SWEEP_DIGITS_MIN: usize = 10;
/// Refusals a second to one known source; each costs some 20 µs.
const REFUSALS_PER_SECOND: u32 = 2_000;

const SCANNERS: &[&str] = &[
    "friendly-scanner",
    "friendly-request",
    "sipvicious",
    "sipcli",
    "sundayddr",
    "vaxsipuseragent",
    "pplsip",
    "sip-scan",
    "iwar",
    "sivus",
];
const SCANNER_TO: &[u8] = b"100@1.1.1.1";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_source_has_a_budget_of_its_own_that_returns_every_second() {
        let now = Instant::now();
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let config = UaConfig { stateless_replies_per_second: 2, ..UaConfig::default() };
        let mut admission = Admission::new(&config, 0);
        let heard: Vec<bool> = (0..3).map(|_| admission.allows_reply(now, one)).collect();
        assert_eq!(heard, [true, true, false]);
        assert!(admission.allows_reply(now, two));
        assert!(admission.allows_reply(now + Duration::from_secs(1), one));
    }
}
