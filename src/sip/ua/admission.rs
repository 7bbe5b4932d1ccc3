//! The gate: whom we listen to, and how much.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checks::Refusal;
use super::{UserAgent, dropped};
use crate::sip::headers::{HeaderName, Headers};
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::parse::ParseError;
use crate::sip::transaction::{Arrival, annotate, response_target, tag_in};
use crate::sip::transport::Target;
use crate::sip::trunk::Trunk;

/// How many replies without state each source has left.
#[derive(Debug)]
pub(super) struct Admission {
    per_second: u32,
    budgets: HashMap<IpAddr, Budget>,
}

#[derive(Debug)]
struct Budget {
    left: u32,
    since: Instant,
}

impl Admission {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, budgets: HashMap::new() }
    }

    /// Whether one more reply to this source is within its budget; counts it.
    fn allows_reply(&mut self, now: Instant, source: IpAddr) -> bool {
        if self.budgets.len() >= SOURCES_MAX {
            // A forged flood must not grow the table; everybody starts anew.
            self.budgets.clear();
        }
        let full = Budget { left: self.per_second, since: now };
        let budget = self.budgets.entry(source).or_insert(full);
        if now.saturating_duration_since(budget.since) >= Duration::from_secs(1) {
            *budget = Budget { left: self.per_second, since: now };
        }
        let allowed = budget.left > 0;
        budget.left = budget.left.saturating_sub(1);
        allowed
    }
}

impl UserAgent {
    pub(super) fn receive_request(&mut self, now: Instant, mut request: Request, back: Target) {
        metrics::counter!("tandem_sip_messages_total", "direction" => "in", "kind" => "request").increment(1);
        let Ok(mut via) = request.headers.via_top() else { return dropped("no_via") };
        let trunk = self.trunks.admit(back.remote.ip()).cloned();
        let known =
            trunk.is_some() || self.is_peer_of_a_call(&request, back) || self.table.knows(&request, &via);
        if !known {
            return self.refuse_stranger(now, &request, back);
        }
        annotate(&mut via, back.remote);
        request.headers.replace_first_value(HeaderName::Via, &via);
        let in_dialog = tag_in(&request.headers, HeaderName::To).is_some();
        if !in_dialog && is_scanner(&request) {
            return dropped("scanner");
        }
        let full = self.table.server_count() >= self.config.transactions_max;
        if full && !in_dialog && is_fresh(&request.method) && !self.table.knows(&request, &via) {
            dropped("transactions_full");
            let refusal =
                Refusal::with(StatusCode::SERVICE_UNAVAILABLE, HeaderName::RetryAfter, self.retry_after());
            return self.reply_without_state(now, &request, refusal, response_target(&via, back));
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
            Some(reply) if self.admission.allows_reply(now, source) => {
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
        if request.method == Method::Ack || !self.admission.allows_reply(now, target.remote.ip()) {
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
/// Sources remembered for their reply budget.
const SOURCES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_a_budget_of_its_own_that_returns_every_second() {
        let now = Instant::now();
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut admission = Admission::new(2);
        let heard: Vec<bool> = (0..3).map(|_| admission.allows_reply(now, one)).collect();
        assert_eq!(heard, [true, true, false]);
        assert!(admission.allows_reply(now, two));
        assert!(admission.allows_reply(now + Duration::from_secs(1), one));
    }
}
