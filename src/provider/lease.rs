//! The keys of one provider as its sessions take them: shared by all calls, touched once per opening.
//!
//! An organization that has keys of its own uses those and nobody else's; all others use the installation's.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use secrecy::SecretString;

use super::ProviderError;
use super::keys::{Fingerprint, KeyFault, KeyState, Ring};
use super::notice::{Notice, Witness};

/// A provider's keys. Clones share them.
#[derive(Clone)]
pub struct Keys(Arc<Shared>);

struct Shared {
    provider: String,
    /// The installation's, from its environment; those of the database come besides.
    environment: Vec<SecretString>,
    rings: Mutex<Rings>,
    witness: OnceLock<Arc<dyn Witness>>,
}

#[derive(Default)]
struct Rings {
    installation: Ring,
    organizations: HashMap<String, Ring>,
}

impl Rings {
    /// The ring that calls of this organization use, and whether it is its own.
    fn of(&self, organization: Option<&str>) -> (&Ring, bool) {
        match organization.and_then(|name| self.organizations.get(name)) {
            Some(ring) => (ring, true),
            None => (&self.installation, false),
        }
    }

    fn of_mut(&mut self, organization: Option<&str>) -> &mut Ring {
        match organization.and_then(|name| self.organizations.get_mut(name)) {
            Some(ring) => ring,
            None => &mut self.installation,
        }
    }
}

/// A key in use for one session, or the right to do without one.
#[derive(Clone)]
pub struct Lease {
    keys: Keys,
    organization: Option<Arc<str>>,
    key: Option<(Fingerprint, SecretString)>,
}

impl Lease {
    /// The key to send; `None`: none is configured, so none is sent.
    pub fn secret(&self) -> Option<&SecretString> {
        self.key.as_ref().map(|(_, secret)| secret)
    }

    /// What the key is called.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.key.as_ref().map(|(fingerprint, _)| *fingerprint)
    }

    /// The service has said this of the key, at the opening or at any time of the session: the key rests.
    pub fn fault(&self, fault: KeyFault) {
        if let Some(fingerprint) = self.fingerprint() {
            self.keys.fault(self.organization.as_deref(), fingerprint, fault);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.fingerprint().map(|name| name.to_string())).finish()
    }
}

impl Keys {
    /// The keys of the installation for this provider; none: sessions are opened without a key.
    pub fn new(provider: &str, installation: impl IntoIterator<Item = SecretString>) -> Self {
        let environment: Vec<SecretString> = installation.into_iter().collect();
        let installation = Ring::new(environment.iter().cloned());
        let rings = Rings { installation, organizations: HashMap::new() };
        let shared = Shared {
            provider: provider.to_owned(),
            environment,
            rings: Mutex::new(rings),
            witness: OnceLock::new(),
        };
        Self(Arc::new(shared))
    }

    /// Opens with one key after the other until one is not refused for its own sake: each is tried once.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`] when all keys rest, else what the last attempt came to.
    pub async fn open<T, F, Opening>(
        &self,
        organization: Option<Arc<str>>,
        mut open: F,
    ) -> Result<T, ProviderError>
    where
        F: FnMut(Lease) -> Opening,
        Opening: Future<Output = Result<T, ProviderError>>,
    {
        let mut tried = Vec::new();
        let mut last = None;
        loop {
            let lease = match self.lease(organization.clone(), &tried) {
                Ok(lease) => lease,
                Err(resting) => return Err(last.unwrap_or(resting)),
            };
            let error = match open(lease.clone()).await {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            let (Some(fault), Some(fingerprint)) = (KeyFault::of(&error), lease.fingerprint()) else {
                return Err(error);
            };
            lease.fault(fault);
            tried.push(fingerprint);
            last = Some(error);
        }
    }

    /// The next key that is not resting and was not tried.
    fn lease(&self, organization: Option<Arc<str>>, tried: &[Fingerprint]) -> Result<Lease, ProviderError> {
        let now = Instant::now();
        let mut rings = self.rings();
        let ring = rings.of_mut(organization.as_deref());
        let key = ring.next(now, tried);
        if key.is_none() && !ring.is_empty() {
            return Err(self.all_rest(ring.all_rest(now)));
        }
        drop(rings);
        Ok(Lease { keys: self.clone(), organization, key })
    }

    /// Why no call can have a key now: all of the installation's rest and no organization has its own.
    pub fn unusable(&self) -> Option<ProviderError> {
        let rings = self.rings();
        if !rings.organizations.is_empty() {
            return None;
        }
        rings.installation.all_rest(Instant::now()).map(|first| self.all_rest(Some(first)))
    }

    /// Whether a fault of the key used for this organization is also the provider's: it has no other left,
    /// or none at all. What an organization's own keys come to is nobody else's matter.
    pub fn left_without(&self, organization: Option<&str>) -> bool {
        let rings = self.rings();
        let (ring, own) = rings.of(organization);
        !own && (ring.is_empty() || ring.all_rest(Instant::now()).is_some())
    }

    /// What the database has from here on: an organization's own keys, of which none means that it uses the
    /// installation's; or those the installation has besides its environment's.
    pub fn set_stored(&self, organization: Option<&str>, secrets: impl IntoIterator<Item = SecretString>) {
        let mut rings = self.rings();
        let Some(organization) = organization else {
            rings.installation.replace(self.0.environment.iter().cloned().chain(secrets));
            return;
        };
        let ring = rings.organizations.entry(organization.to_owned()).or_default();
        ring.replace(secrets);
        if ring.is_empty() {
            rings.organizations.remove(organization);
        }
    }

    /// The organizations that have keys of their own here.
    pub fn organizations(&self) -> Vec<String> {
        let mut names: Vec<_> = self.rings().organizations.keys().cloned().collect();
        names.sort();
        names
    }

    /// How the keys are: the installation's, or an organization's own.
    pub fn states(&self, organization: Option<&str>) -> Vec<KeyState> {
        let rings = self.rings();
        let ring = match organization {
            Some(name) => rings.organizations.get(name),
            None => Some(&rings.installation),
        };
        ring.map(|ring| ring.states(Instant::now()).collect()).unwrap_or_default()
    }

    /// Ends every rest.
    pub fn wake(&self) {
        let mut rings = self.rings();
        rings.installation.wake();
        rings.organizations.values_mut().for_each(Ring::wake);
    }

    /// Who is told when a key rests. The first stays.
    pub fn tell(&self, witness: Arc<dyn Witness>) {
        let _already_told = self.0.witness.set(witness);
    }

    fn fault(&self, organization: Option<&str>, fingerprint: Fingerprint, fault: KeyFault) {
        let new = self.rings().of_mut(organization).fault(Instant::now(), fingerprint, fault);
        if !new {
            return;
        }
        let provider = self.0.provider.clone();
        metrics::counter!("tandem_provider_key_rests_total", "provider" => provider, "reason" => fault.name())
            .increment(1);
        if let Some(witness) = self.0.witness.get() {
            witness.saw(Notice::KeyRested {
                provider: self.0.provider.clone(),
                organization: organization.map(str::to_owned),
                key: fingerprint,
                fault,
            });
        }
    }

    fn all_rest(&self, first: Option<(KeyFault, Duration)>) -> ProviderError {
        let cause = match first {
            Some((KeyFault::Limited { .. }, _)) => "the service limits all its keys",
            Some((KeyFault::Rejected, _)) => "the service has rejected all its keys",
            Some((KeyFault::NoQuota, _)) => "no key's account has quota left",
            None => "all its keys were tried",
        };
        ProviderError::Unavailable {
            provider: self.0.provider.clone(),
            cause: cause.to_owned(),
            retry_in: first.map(|(_, left)| left),
        }
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.0.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.0.provider).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn refused(status: u16) -> ProviderError {
        ProviderError::Refused { provider: "p".into(), status, retry_after: None }
    }

    /// Opens and says which key was taken, in which order; `bad` ones are refused with that status.
    async fn open(
        keys: &Keys,
        organization: Option<&str>,
        bad: &[(&str, u16)],
    ) -> (Vec<String>, Result<(), ProviderError>) {
        let mut tried = Vec::new();
        let outcome = keys
            .open(organization.map(Into::into), |lease| {
                let key = lease.secret().map(|s| s.expose_secret().to_owned()).unwrap_or_default();
                let refusal = bad.iter().find(|(name, _)| *name == key).map(|(_, status)| *status);
                tried.push(key);
                async move { refusal.map_or(Ok(()), |status| Err(refused(status))) }
            })
            .await;
        (tried, outcome)
    }

    fn two() -> Keys {
        Keys::new("p", ["a".into(), "b".into()])
    }

    #[tokio::test]
    async fn a_refused_key_is_followed_by_the_next_at_once_and_rests() {
        let keys = two();
        let (tried, outcome) = open(&keys, None, &[("a", 401)]).await;
        assert_eq!((tried.as_slice(), outcome.is_ok()), (["a".to_owned(), "b".to_owned()].as_slice(), true));
        assert_eq!(open(&keys, None, &[("a", 401)]).await.0, ["b"]);
        assert!(keys.unusable().is_none() && !keys.left_without(None));
    }

    #[tokio::test]
    async fn when_all_are_refused_the_refusal_is_told_and_then_none_is_tried() {
        let keys = two();
        let (tried, outcome) = open(&keys, None, &[("a", 429), ("b", 429)]).await;
        assert_eq!(tried, ["a", "b"]);
        assert!(matches!(outcome, Err(ProviderError::Refused { status: 429, .. })), "{outcome:?}");
        let (tried, outcome) = open(&keys, None, &[]).await;
        assert!(tried.is_empty());
        assert!(matches!(outcome, Err(ProviderError::Unavailable { retry_in: Some(_), .. })), "{outcome:?}");
        assert!(keys.unusable().is_some() && keys.left_without(None));
    }

    #[tokio::test]
    async fn other_failures_are_not_tried_with_another_key() {
        let (tried, outcome) = open(&two(), None, &[("a", 503)]).await;
        assert_eq!((tried.len(), outcome.is_err()), (1, true));
    }

    #[tokio::test]
    async fn an_organization_uses_its_own_keys_and_nobody_elses() {
        let keys = two();
        keys.set_stored(Some("acme"), ["x".into()]);
        assert_eq!(open(&keys, Some("acme"), &[]).await.0, ["x"]);
        assert_eq!(open(&keys, Some("other"), &[]).await.0, ["a"]);
        let (tried, outcome) = open(&keys, Some("acme"), &[("x", 401)]).await;
        assert_eq!((tried.len(), outcome.is_err()), (1, true));
        assert!(!keys.left_without(Some("acme")), "its own keys' faults are not the provider's");
        assert_eq!(open(&keys, None, &[]).await.0, ["b"]);
        keys.set_stored(Some("acme"), []);
        assert_eq!(open(&keys, Some("acme"), &[]).await.0, ["a"]);
    }

    #[tokio::test]
    async fn without_keys_none_is_sent_and_its_refusal_is_the_providers() {
        let keys = Keys::new("p", []);
        let (tried, outcome) = open(&keys, None, &[("", 401)]).await;
        assert_eq!((tried.len(), outcome.is_err()), (1, true));
        assert!(keys.left_without(None) && keys.unusable().is_none());
    }
}
