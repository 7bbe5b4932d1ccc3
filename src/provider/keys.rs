//! The API keys of one provider, used in turn: a pure core.
//!
//! A key that the service limits or refuses rests for a while; the others go on. Keys are named by a
//! [`Fingerprint`], never by their text.

use std::fmt;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::ProviderError;

/// What a key is called: the first eight hexadecimal digits of its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 4]);

impl Fingerprint {
    /// Of this key.
    pub fn of(secret: &SecretString) -> Self {
        let digest = Sha256::digest(secret.expose_secret().trim().as_bytes());
        Self([digest[0], digest[1], digest[2], digest[3]])
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// What a service holds against a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    /// Too many requests (429).
    Limited {
        /// From `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Not valid, or not allowed to do this (401, 403).
    Rejected,
    /// Its account has no quota left (402, `insufficient_quota`).
    NoQuota,
}

impl KeyFault {
    /// What the failure to open a session says of the key it was tried with; `None`: nothing.
    pub fn of(error: &ProviderError) -> Option<Self> {
        match error {
            ProviderError::Refused { status: 401 | 403, .. } => Some(Self::Rejected),
            ProviderError::Refused { status: 402, .. } => Some(Self::NoQuota),
            ProviderError::Refused { status: 429, retry_after, .. } => {
                Some(Self::Limited { retry_after: *retry_after })
            }
            ProviderError::SessionRefused { code, .. } => Self::of_code(code),
            _ => None,
        }
    }

    /// What a service's error code says of the key; `None`: nothing.
    pub fn of_code(code: &str) -> Option<Self> {
        match code {
            "invalid_api_key" | "authentication_error" | "account_deactivated" | "permission_error" => {
                Some(Self::Rejected)
            }
            "insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active" => Some(Self::NoQuota),
            "rate_limit_exceeded" | "rate_limit_error" => Some(Self::Limited { retry_after: None }),
            _ => None,
        }
    }

    /// How long the key rests.
    pub fn rest(self) -> Duration {
        match self {
            Self::Limited { retry_after } => retry_after.unwrap_or(LIMITED_REST).clamp(REST_MIN, REST_MAX),
            Self::Rejected => REJECTED_REST,
            Self::NoQuota => NO_QUOTA_REST,
        }
    }

    /// A short name, for states, events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Limited { .. } => "rate_limited",
            Self::Rejected => "rejected",
            Self::NoQuota => "no_quota",
        }
    }
}

/// Without a `Retry-After`.
const LIMITED_REST: Duration = Duration::from_secs(60);
/// A service that says "at once" has just refused us all the same.
const REST_MIN: Duration = Duration::from_secs(1);
/// Nobody's clock mistake disables a key for days.
const REST_MAX: Duration = Duration::from_secs(60 * 60);
/// A key that is not valid rarely becomes so by itself.
const REJECTED_REST: Duration = Duration::from_secs(10 * 60);
/// Somebody has to pay first.
const NO_QUOTA_REST: Duration = Duration::from_secs(15 * 60);

/// Keys that are used in turn.
#[derive(Debug, Default)]
pub struct Ring {
    keys: Vec<Held>,
    /// Whose turn it is.
    turn: usize,
}

#[derive(Debug)]
struct Held {
    fingerprint: Fingerprint,
    secret: SecretString,
    rest: Option<(Instant, KeyFault)>,
    used: u64,
}

/// How a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyState {
    /// Its name.
    pub fingerprint: Fingerprint,
    /// Sessions it was tried with.
    pub used: u64,
    /// Why it rests, and for how much longer; `None`: it is in use.
    pub rest: Option<(KeyFault, Duration)>,
}

impl Ring {
    /// These keys, in this order; a key that comes twice is taken once.
    pub fn new(secrets: impl IntoIterator<Item = SecretString>) -> Self {
        let mut ring = Self::default();
        ring.replace(secrets);
        ring
    }

    /// These keys from here on. Those that stay keep resting.
    pub fn replace(&mut self, secrets: impl IntoIterator<Item = SecretString>) {
        let mut before = std::mem::take(&mut self.keys);
        for secret in secrets {
            let fingerprint = Fingerprint::of(&secret);
            if self.keys.iter().any(|held| held.fingerprint == fingerprint) {
                continue;
            }
            let known = before.iter().position(|held| held.fingerprint == fingerprint);
            self.keys.push(match known {
                Some(index) => before.swap_remove(index),
                None => Held { fingerprint, secret, rest: None, used: 0 },
            });
        }
        self.turn = self.turn.checked_rem(self.keys.len()).unwrap_or(0);
    }

    /// The next key that does not rest and is none of `tried`.
    pub fn next(&mut self, now: Instant, tried: &[Fingerprint]) -> Option<(Fingerprint, SecretString)> {
        let count = self.keys.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let held = &mut self.keys[index];
            if held.resting(now).is_some() || tried.contains(&held.fingerprint) {
                continue;
            }
            held.used += 1;
            self.turn = (index + 1) % count;
            return Some((held.fingerprint, held.secret.clone()));
        }
        None
    }

    /// Lets a key rest. True when it did not rest before; a longer rest is never cut short.
    pub fn fault(&mut self, now: Instant, fingerprint: Fingerprint, fault: KeyFault) -> bool {
        let Some(held) = self.keys.iter_mut().find(|held| held.fingerprint == fingerprint) else {
            return false;
        };
        let until = now + fault.rest();
        let rested = held.resting(now).is_some();
        if held.rest.is_none_or(|(before, _)| before < until) {
            held.rest = Some((until, fault));
        }
        !rested
    }

    /// When the first of the keys is back: `None` when one is there now, or there are none.
    pub fn all_rest(&self, now: Instant) -> Option<(KeyFault, Duration)> {
        let mut first: Option<(KeyFault, Duration)> = None;
        for held in &self.keys {
            let (fault, left) = held.resting(now)?;
            if first.is_none_or(|(_, least)| left < least) {
                first = Some((fault, left));
            }
        }
        first
    }

    /// Ends every rest.
    pub fn wake(&mut self) {
        self.keys.iter_mut().for_each(|held| held.rest = None);
    }

    /// How each key is.
    pub fn states(&self, now: Instant) -> impl Iterator<Item = KeyState> {
        self.keys.iter().map(move |held| KeyState {
            fingerprint: held.fingerprint,
            used: held.used,
            rest: held.resting(now),
        })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Held {
    fn resting(&self, now: Instant) -> Option<(KeyFault, Duration)> {
        let (until, fault) = self.rest?;
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some((fault, left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[&str]) -> Ring {
        Ring::new(keys.iter().map(|key| SecretString::from(*key)))
    }

    fn taken(ring: &mut Ring, now: Instant) -> Option<String> {
        ring.next(now, &[]).map(|(_, secret)| secret.expose_secret().to_owned())
    }

    fn name(key: &str) -> Fingerprint {
        Fingerprint::of(&key.into())
    }

    #[test]
    fn keys_are_used_in_turn() {
        let (mut ring, now) = (ring(&["a", "b", "a", "c"]), Instant::now());
        let order: Vec<_> = (0..5).filter_map(|_| taken(&mut ring, now)).collect();
        assert_eq!(order, ["a", "b", "c", "a", "b"]);
    }

    #[test]
    fn a_limited_key_rests_for_its_retry_after_and_the_others_go_on() {
        let (mut ring, now) = (ring(&["a", "b"]), Instant::now());
        let limited = KeyFault::Limited { retry_after: Some(Duration::from_secs(17)) };
        assert!(ring.fault(now, name("a"), limited));
        assert!(!ring.fault(now, name("a"), limited), "it rests already");
        let at = |s| now + Duration::from_secs(s);
        assert_eq!(taken(&mut ring, at(1)).as_deref(), Some("b"));
        assert_eq!(taken(&mut ring, at(16)).as_deref(), Some("b"));
        assert_eq!(taken(&mut ring, at(17)).as_deref(), Some("a"));
    }

    #[test]
    fn when_all_rest_the_first_to_come_back_is_told() {
        let (mut ring, now) = (ring(&["a", "b"]), Instant::now());
        ring.fault(now, name("a"), KeyFault::Rejected);
        assert_eq!(ring.all_rest(now), None);
        ring.fault(now, name("b"), KeyFault::Limited { retry_after: None });
        let limited = KeyFault::Limited { retry_after: None };
        assert_eq!(ring.all_rest(now), Some((limited, Duration::from_secs(60))));
        assert_eq!(taken(&mut ring, now), None);
        ring.wake();
        assert!(ring.all_rest(now).is_none() && taken(&mut ring, now).is_some());
    }

    #[test]
    fn a_short_rest_does_not_end_a_long_one() {
        let (mut ring, now) = (ring(&["a"]), Instant::now());
        ring.fault(now, name("a"), KeyFault::NoQuota);
        ring.fault(now, name("a"), KeyFault::Limited { retry_after: Some(Duration::from_secs(2)) });
        assert_eq!(taken(&mut ring, now + Duration::from_secs(60)), None);
        assert!(taken(&mut ring, now + Duration::from_secs(900)).is_some());
    }

    #[test]
    fn keys_that_stay_keep_their_rest_when_others_come_and_go() {
        let (mut ring, now) = (ring(&["a", "b"]), Instant::now());
        ring.fault(now, name("b"), KeyFault::Rejected);
        ring.replace(["b".into(), "c".into()]);
        assert_eq!(taken(&mut ring, now).as_deref(), Some("c"));
        assert_eq!(ring.len(), 2);
    }

    #[test]
    fn a_retry_after_is_neither_nothing_nor_for_days() {
        let rest = |s| KeyFault::Limited { retry_after: Some(Duration::from_secs(s)) }.rest();
        assert_eq!((rest(0), rest(9_999_999)), (REST_MIN, REST_MAX));
    }

    #[test]
    fn errors_blame_the_key_or_not() {
        let refused = |status| {
            KeyFault::of(&ProviderError::Refused { provider: "p".into(), status, retry_after: None })
                .map(KeyFault::name)
        };
        let named: Vec<_> = [400, 401, 402, 403, 404, 429, 500, 503].map(refused).into();
        let (rejected, none) = (Some("rejected"), None);
        assert_eq!(
            named,
            [none, rejected, Some("no_quota"), rejected, none, Some("rate_limited"), none, none]
        );
        assert_eq!(KeyFault::of_code("insufficient_quota"), Some(KeyFault::NoQuota));
        assert_eq!(KeyFault::of_code("server_error"), None);
    }

    #[test]
    fn no_key_is_ever_shown() {
        let ring = ring(&["sk-very-secret"]);
        assert!(!format!("{ring:?}").contains("sk-very"), "{ring:?}");
        // printf abc | sha256sum
        assert_eq!(name("abc").to_string(), "ba7816bf");
    }
}
