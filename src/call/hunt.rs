//! Which target is dialled next, and when a dialled call is given up: the policy of an outgoing call,
//! without its clock and its sockets.
//!
//! Targets are tried in order. A target that did not answer, or answered that it cannot serve the call
//! (408, 5xx, what the trunk adds), is followed by the next one; every other refusal is the callee's word
//! and ends the hunt (RFC 3261 section 16.7). A 6xx ends it always. A redirect is followed only where the
//! trunk allows it, to hosts it names, and never twice to the same place.

use std::time::{Duration, Instant};

use crate::event::Disposition;
use crate::sip::uri::{Host, Uri};

/// What a trunk says about failing over and being redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The trunk, by name.
    pub trunk: String,
    /// Statuses after which the next target is tried, beside 408 and 5xx.
    pub failover: Vec<u16>,
    /// Whether 3xx is followed at all.
    pub follow: bool,
    /// Hosts a redirect may lead to; empty: none but the trunk's own targets.
    pub hosts: Vec<String>,
    /// Most redirects of one call.
    pub hops: u8,
}

impl Policy {
    /// Fails over on 408 and 5xx, follows no redirect.
    pub fn plain(trunk: &str) -> Self {
        Self { trunk: trunk.to_owned(), failover: Vec::new(), follow: false, hosts: Vec::new(), hops: 5 }
    }

    fn tries_next(&self, status: u16) -> bool {
        status == 408 || (500..600).contains(&status) || self.failover.contains(&status)
    }

    fn may_follow(&self, contact: &Uri) -> bool {
        let Some(host) = contact.host() else { return false };
        let host = match host {
            Host::Name(name) => name.to_ascii_lowercase(),
            Host::Ip(ip) => ip.to_string(),
        };
        self.follow && self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&host))
    }
}

/// Why a target did not take the call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    /// The final status; 408 for silence and 503 for a transport that failed.
    pub status: u16,
    /// Its reason phrase.
    pub reason: String,
    /// The Q.850 cause it gave.
    pub cause: Option<u16>,
    /// Of a 3xx, best first.
    pub contacts: Vec<Uri>,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Dial this target.
    Dial(usize),
    /// Ask for targets of this URI, and dial those.
    Redirect(Uri),
    /// Nobody answers.
    GiveUp(Refusal),
}

/// The state of one hunt.
#[derive(Debug, Clone)]
pub struct Hunt {
    policies: Vec<Policy>,
    deadline: Instant,
    next: usize,
    hops: u8,
    seen: Vec<Uri>,
    /// The refusal that says most about the callee.
    best: Option<Refusal>,
}

impl Hunt {
    /// A hunt over targets with these policies, in order. No target is dialled after `deadline`.
    pub fn new(policies: Vec<Policy>, deadline: Instant) -> Self {
        Self { policies, deadline, next: 0, hops: 0, seen: Vec::new(), best: None }
    }

    /// The first target.
    pub fn first(&mut self) -> Next {
        self.advance(Refusal { status: 503, reason: "no target".to_owned(), ..Refusal::default() })
    }

    /// A target refused, or was given up.
    pub fn failed(&mut self, now: Instant, target: usize, refusal: Refusal) -> Next {
        let Some(policy) = self.policies.get(target).cloned() else { return Next::GiveUp(refusal) };
        if refusal.status >= 600 {
            return Next::GiveUp(refusal);
        }
        if (300..400).contains(&refusal.status) {
            return self.redirected(&policy, refusal);
        }
        if !policy.tries_next(refusal.status) || now >= self.deadline {
            return Next::GiveUp(refusal);
        }
        self.advance(refusal)
    }

    /// A target could not even be tried: its trunk is full, or media is short.
    pub fn skipped(&mut self, refusal: Refusal) -> Next {
        self.advance(refusal)
    }

    /// The targets a redirect has led to take the place of those that are left.
    pub fn redirect(&mut self, policies: Vec<Policy>) -> Next {
        self.policies = policies;
        self.next = 0;
        self.first()
    }

    /// Whether another target could be tried if the present one stays silent.
    pub fn has_more(&self) -> bool {
        self.next < self.policies.len()
    }

    /// No target is dialled after this moment, and the present one stops ringing.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    fn advance(&mut self, refusal: Refusal) -> Next {
        if self.best.as_ref().is_none_or(|best| weight(refusal.status) >= weight(best.status)) {
            self.best = Some(refusal.clone());
        }
        if self.next < self.policies.len() {
            self.next += 1;
            return Next::Dial(self.next - 1);
        }
        Next::GiveUp(self.best.take().unwrap_or(refusal))
    }

    fn redirected(&mut self, policy: &Policy, refusal: Refusal) -> Next {
        let fresh = |uri: &&Uri| policy.may_follow(uri) && !self.seen.iter().any(|seen| seen.equivalent(uri));
        let contact = refusal.contacts.iter().find(fresh).cloned();
        match contact.filter(|_| self.hops < policy.hops) {
            Some(contact) => {
                self.hops += 1;
                self.seen.push(contact.clone());
                Next::Redirect(contact)
            }
            None => Next::GiveUp(refusal),
        }
    }
}

/// How the record calls a call that nobody answered, by the last status (`timed_out`: we gave up ringing).
pub fn disposition(status: u16, timed_out: bool) -> Disposition {
    match status {
        _ if timed_out => Disposition::NoAnswer,
        486 | 600 => Disposition::Busy,
        408 | 480 | 487 => Disposition::NoAnswer,
        404 | 410 | 484 | 604 | 500..600 => Disposition::Failed,
        _ => Disposition::Rejected,
    }
}

/// A refusal of the callee says more than one of the network; the later one of two equals is kept.
fn weight(status: u16) -> u8 {
    match status {
        503 => 0,
        408 | 500..600 => 1,
        _ => 2,
    }
}

/// A target that has not even said 100 within this time is given up while there is another: timer B's 32 s
/// are longer than a caller waits.
pub const NO_PROVISIONAL: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_target_is_tried_when_the_first_cannot_serve_the_call() {
        for status in [408, 500, 502, 503, 504, 599, 480] {
            let mut hunt = two();
            assert_eq!(hunt.first(), Next::Dial(0));
            assert_eq!(hunt.failed(now(), 0, refusal(status)), Next::Dial(1), "{status}");
        }
    }

    #[test]
    fn what_the_callee_says_ends_the_hunt() {
        for status in [400, 401, 403, 404, 407, 410, 484, 486, 487, 488, 600, 603, 604, 606] {
            let mut hunt = two();
            hunt.first();
            assert_eq!(hunt.failed(now(), 0, refusal(status)), Next::GiveUp(refusal(status)), "{status}");
        }
    }

    #[test]
    fn nobody_is_dialled_after_the_deadline() {
        let mut hunt = Hunt::new(vec![policy("a"), policy("b")], now());
        hunt.first();
        let later = now() + Duration::from_secs(1);
        assert_eq!(hunt.failed(later, 0, refusal(503)), Next::GiveUp(refusal(503)));
    }

    #[test]
    fn the_end_of_a_hunt_is_its_most_telling_refusal() {
        let mut hunt = two();
        hunt.first();
        hunt.failed(now(), 0, refusal(480));
        assert_eq!(hunt.failed(now(), 1, refusal(503)), Next::GiveUp(refusal(480)));
        let mut hunt = two();
        hunt.first();
        hunt.skipped(refusal(503));
        assert_eq!(hunt.failed(now(), 1, refusal(500)), Next::GiveUp(refusal(500)));
    }

    #[test]
    fn a_redirect_is_followed_to_allowed_hosts_and_never_twice() {
        let good = uri("sip:5@good.example");
        let mut hunt =
            Hunt::new(vec![Policy { follow: true, ..policy("a") }], now() + Duration::from_secs(9));
        hunt.first();
        let mut moved = refusal(302);
        moved.contacts = vec![uri("sip:5@evil.example"), good.clone()];
        assert_eq!(hunt.failed(now(), 0, moved.clone()), Next::Redirect(good));
        assert_eq!(hunt.redirect(vec![Policy { follow: true, ..policy("a") }]), Next::Dial(0));
        assert_eq!(hunt.failed(now(), 0, moved.clone()), Next::GiveUp(moved));
    }

    #[test]
    fn a_redirect_is_not_followed_unless_the_trunk_says_so() {
        let mut hunt = two();
        hunt.first();
        let mut moved = refusal(301);
        moved.contacts = vec![uri("sip:5@good.example")];
        assert_eq!(hunt.failed(now(), 0, moved.clone()), Next::GiveUp(moved));
    }

    #[test]
    fn every_outcome_has_a_disposition() {
        for (status, disposition) in [
            (486, Disposition::Busy),
            (600, Disposition::Busy),
            (408, Disposition::NoAnswer),
            (480, Disposition::NoAnswer),
            (403, Disposition::Rejected),
            (603, Disposition::Rejected),
            (302, Disposition::Rejected),
            (404, Disposition::Failed),
            (484, Disposition::Failed),
            (503, Disposition::Failed),
        ] {
            assert_eq!(super::disposition(status, false), disposition, "{status}");
        }
        assert_eq!(super::disposition(503, true), Disposition::NoAnswer);
    }

    fn two() -> Hunt {
        Hunt::new(vec![policy("a"), policy("b")], now() + Duration::from_secs(30))
    }

    fn policy(trunk: &str) -> Policy {
        Policy { failover: vec![480], hosts: vec!["GOOD.example".to_owned()], ..Policy::plain(trunk) }
    }

    fn refusal(status: u16) -> Refusal {
        Refusal { status, reason: "no".to_owned(), ..Refusal::default() }
    }

    fn uri(text: &str) -> Uri {
        Uri::parse(text).expect("the test's own URI")
    }

    /// One moment for the whole test.
    fn now() -> Instant {
        static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }
}
