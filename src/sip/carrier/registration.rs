//! Registering with a carrier (RFC 3261 section 10.2): refresh, back-off and leaving, for one address of record.
//!
//! Pure: it says when a REGISTER is due and what stands in it; digest and transport are the user agent's.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::sip::header::name_addr::NameAddr;
use crate::sip::headers::HeaderName;
use crate::sip::message::Response;
use crate::sip::trunk::RegistrationSpec;
use crate::sip::uri::Uri;

/// One registration.
#[derive(Debug)]
pub struct Registration {
    spec: RegistrationSpec,
    /// Same in every REGISTER of this address of record (section 10.2).
    call_id: String,
    cseq: u32,
    /// `+sip.instance` of our Contact (RFC 5626), by which we find it among others.
    instance: String,
    phase: Phase,
    /// Until when the registrar knows us.
    holds_until: Option<Instant>,
    /// What we ask for; a 423 raises it.
    expires: Duration,
    failures: u32,
    raised: u8,
    candidate: usize,
    reason: Option<String>,
    service_route: Vec<Uri>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Due(Instant),
    Asking,
    Left,
}

/// A REGISTER to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Call-ID.
    pub call_id: String,
    /// CSeq.
    pub cseq: u32,
    /// Expires in seconds; 0 takes the registration back.
    pub expires: u64,
    /// Which address of the registrar: this one, counted round.
    pub candidate: usize,
    /// Parameters of Contact.
    pub contact_params: String,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A final response.
    Final(Box<Heard>),
    /// None, because of this.
    None(String),
}

/// What a response says about a registration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    /// The status.
    pub status: u16,
    /// Its reason phrase.
    pub reason: String,
    /// The CSeq it answers, which digest may have raised.
    pub cseq: u32,
    /// All contacts the registrar knows: the URI's user, `+sip.instance` and `expires`.
    pub contacts: Vec<(String, Option<String>, Option<u32>)>,
    /// `Expires`.
    pub expires: Option<u32>,
    /// `Min-Expires`.
    pub min_expires: Option<u32>,
    /// `Retry-After`.
    pub retry_after: Option<u32>,
    /// `Service-Route` (RFC 3608).
    pub service_route: Vec<Uri>,
}

impl Heard {
    /// What this response says.
    pub fn of(response: &Response, cseq: u32) -> Self {
        let headers = &response.headers;
        let number = |name| headers.number(name).ok().flatten();
        let routes = headers.addresses(HeaderName::ServiceRoute).unwrap_or_default();
        Self {
            status: response.status.get(),
            reason: response.reason.to_text().into_owned(),
            cseq,
            contacts: headers.contacts().unwrap_or_default().iter().map(contact).collect(),
            expires: number(HeaderName::Expires),
            min_expires: number(HeaderName::MinExpires),
            retry_after: headers.retry_after().ok().flatten(),
            service_route: routes.into_iter().map(|route| route.uri).take(ROUTES_MAX).collect(),
        }
    }
}

fn contact(contact: &NameAddr) -> (String, Option<String>, Option<u32>) {
    let user = contact.uri.user_decoded().unwrap_or_default().into_owned();
    let expires = contact.params.get_str("expires").and_then(|text| text.parse().ok());
    (user, contact.params.get_text("+sip.instance"), expires)
}

impl Registration {
    /// A registration that is due at once. `call_id` and `instance` (a URN) are fresh.
    pub fn new(spec: RegistrationSpec, call_id: String, instance: String, now: Instant) -> Self {
        let expires = spec.expires;
        Self {
            spec,
            call_id,
            cseq: 0,
            instance,
            phase: Phase::Due(now),
            holds_until: None,
            expires,
            failures: 0,
            raised: 0,
            candidate: 0,
            reason: None,
            service_route: Vec::new(),
        }
    }

    /// What is registered where.
    pub fn spec(&self) -> &RegistrationSpec {
        &self.spec
    }

    /// The REGISTER that is due now.
    pub fn due(&mut self, now: Instant) -> Option<Ask> {
        match self.phase {
            Phase::Due(at) if at <= now => {
                self.phase = Phase::Asking;
                Some(self.ask(self.expires.as_secs().max(1)))
            }
            Phase::Due(_) | Phase::Asking | Phase::Left => None,
        }
    }

    /// When [`Self::due`] will have something.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Due(at) => Some(at),
            Phase::Asking | Phase::Left => None,
        }
    }

    /// Takes the registration back: the last REGISTER there is, unless the registrar does not know us.
    pub fn leave(&mut self, now: Instant) -> Option<Ask> {
        let known = self.is_registered(now) || self.phase == Phase::Asking;
        self.phase = Phase::Left;
        self.holds_until = None;
        known.then(|| self.ask(0))
    }

    /// The REGISTER was answered. `candidates` is how many addresses the registrar has.
    pub fn answered(&mut self, now: Instant, reply: &Reply, candidates: usize, rng: &mut StdRng) {
        if self.phase != Phase::Asking {
            return;
        }
        match reply {
            Reply::Final(heard) => {
                self.cseq = self.cseq.max(heard.cseq);
                match heard.status {
                    200..=299 => self.registered(now, heard, rng),
                    423 => self.too_brief(now, heard, rng),
                    408 | 500..=599 => self.try_elsewhere(now, heard, candidates, rng),
                    _ => {
                        self.failed(now, format!("{} {}", heard.status, heard.reason), heard.retry_after, rng)
                    }
                }
            }
            Reply::None(reason) => {
                let silence = Heard { reason: reason.clone(), ..Heard::default() };
                self.try_elsewhere(now, &silence, candidates, rng);
            }
        }
    }

    /// Registers again now instead of later.
    pub fn hurry(&mut self, now: Instant) {
        if let Phase::Due(at) = &mut self.phase {
            *at = now.min(*at);
        }
    }

    /// Whether no REGISTER is due or on its way.
    pub fn is_settled(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Due(at) => at > now,
            Phase::Asking => false,
            Phase::Left => true,
        }
    }

    /// Whether the registrar knows us.
    pub fn is_registered(&self, now: Instant) -> bool {
        self.holds_until.is_some_and(|until| until > now)
    }

    /// Until when it does.
    pub fn holds_until(&self) -> Option<Instant> {
        self.holds_until
    }

    /// Why the last REGISTER failed; `None` since one succeeded.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The route of our calls over this registrar (RFC 3608).
    pub fn service_route(&self) -> &[Uri] {
        &self.service_route
    }

    fn ask(&mut self, expires: u64) -> Ask {
        self.cseq += 1;
        Ask {
            call_id: self.call_id.clone(),
            cseq: self.cseq,
            expires,
            candidate: self.candidate,
            contact_params: format!(";expires={expires};+sip.instance=\"<{}>\"", self.instance),
        }
    }

    fn registered(&mut self, now: Instant, heard: &Heard, rng: &mut StdRng) {
        let Some(seconds) = self.granted(heard) else {
            let reason = "the registrar answered 200 but does not list our contact".to_owned();
            return self.failed(now, reason, None, rng);
        };
        let granted = Duration::from_secs(seconds.into()).min(EXPIRES_MAX);
        (self.failures, self.raised, self.reason) = (0, 0, None);
        self.holds_until = Some(now + granted);
        self.service_route.clone_from(&heard.service_route);
        self.phase = Phase::Due(now + granted.mul_f32(rng.random_range(0.5..=0.9)));
    }

    /// How long the registrar keeps our contact; `None` when it does not.
    fn granted(&self, heard: &Heard) -> Option<u32> {
        let marked = format!("<{}>", self.instance);
        let ours = |(_, instance, _): &&(String, Option<String>, Option<u32>)| {
            instance.as_ref().is_some_and(|text| *text == marked)
        };
        let named = |(user, ..): &&(String, Option<String>, Option<u32>)| *user == self.spec.contact_user;
        let mine = heard.contacts.iter().find(ours).or_else(|| {
            // Old bindings of ours run out before the new one.
            heard.contacts.iter().filter(named).max_by_key(|(_, _, expires)| *expires)
        });
        let asked = u32::try_from(self.expires.as_secs()).unwrap_or(u32::MAX);
        let seconds = match mine {
            Some((_, _, expires)) => expires.or(heard.expires).unwrap_or(asked),
            // Some registrars list no contact at all.
            None if heard.contacts.is_empty() => heard.expires.unwrap_or(asked),
            None => 0,
        };
        (seconds > 0).then_some(seconds)
    }

    /// 423: the registrar says how long it must be at least (section 10.2.8).
    fn too_brief(&mut self, now: Instant, heard: &Heard, rng: &mut StdRng) {
        let least = heard.min_expires.map(|seconds| Duration::from_secs(seconds.into()));
        match least {
            Some(least) if least > self.expires && least <= EXPIRES_MAX && self.raised < RAISES_MAX => {
                self.raised += 1;
                self.expires = least;
                self.phase = Phase::Due(now);
            }
            _ => self.failed(now, "423 Interval Too Brief".to_owned(), None, rng),
        }
    }

    /// The next address of the registrar, at once while there is one that was not tried.
    fn try_elsewhere(&mut self, now: Instant, heard: &Heard, candidates: usize, rng: &mut StdRng) {
        let reason = match heard.status {
            0 => heard.reason.clone(),
            status => format!("{status} {}", heard.reason),
        };
        self.candidate += 1;
        if self.candidate.checked_rem(candidates).is_some_and(|place| place != 0) {
            self.reason = Some(reason);
            self.phase = Phase::Due(now);
            return;
        }
        self.candidate = 0;
        self.failed(now, reason, heard.retry_after, rng);
    }

    /// Waits as RFC 5626 section 4.5 says: 30 s doubled with each failure, at most 30 minutes, half of it by chance.
    fn failed(&mut self, now: Instant, reason: String, retry_after: Option<u32>, rng: &mut StdRng) {
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(reason);
        let ceiling = BACKOFF_BASE.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MAX);
        let wait = ceiling.mul_f32(rng.random_range(0.5..=1.0));
        let told = Duration::from_secs(retry_after.unwrap_or_default().into()).min(BACKOFF_MAX);
        self.phase = Phase::Due(now + wait.max(told));
    }
}

const BACKOFF_BASE: Duration = Duration::from_secs(30);
const BACKOFF_MAX: Duration = Duration::from_secs(1800);
/// Longest registration that is believed.
const EXPIRES_MAX: Duration = Duration::from_secs(86_400);
/// Times in a row a 423 is followed.
const RAISES_MAX: u8 = 2;
/// Most rows of Service-Route that are kept.
const ROUTES_MAX: usize = 8;

#[cfg(test)]
#[path = "registration_tests.rs"]
mod tests;
