//! API keys that the database keeps, sealed: from there to the rings the providers take them from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::keys::{Fingerprint, KeyState};
use super::registry::Providers;
use crate::id::ProviderKeyId;
use crate::store::provider_keys::{ProviderKey, SealedKey};
use crate::store::vault::{Vault, VaultError};
use crate::store::{Store, StoreError};
use crate::time::UnixMs;

/// The keys in the database, and what opens them.
pub struct StoredKeys {
    store: Store,
    vault: Option<Vault>,
    providers: Arc<Providers>,
    /// One change at a time: what is read last is what the rings have.
    turn: tokio::sync::Mutex<()>,
}

/// A key of a provider, wherever it comes from, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownKey {
    /// Its name: the first eight hexadecimal digits of its SHA-256.
    pub fingerprint: String,
    /// `environment` or `store`.
    pub source: &'static str,
    /// For removing it; `None`: it is in the environment.
    pub id: Option<ProviderKeyId>,
    /// Whose calls use it; `None`: all without keys of their own.
    pub organization: Option<String>,
    /// When it was added, for those in the database.
    pub created_at: Option<UnixMs>,
    /// `in_use`, `resting` or `unreadable`.
    pub state: &'static str,
    /// Why it rests.
    pub reason: Option<&'static str>,
    /// How much longer it rests.
    pub retry_in_ms: Option<u64>,
    /// Sessions it was tried with since the server has started.
    pub used: u64,
}

/// What came of sealing everything anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// What the present master key is called.
    pub master_key: String,
    /// Keys that were sealed anew.
    pub resealed: u64,
    /// Keys that were under it already.
    pub unchanged: u64,
    /// Keys that could not be opened, and why.
    pub failed: Vec<Unreadable>,
}

/// A key that does not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Which one.
    #[serde(flatten)]
    pub key: ProviderKey,
    /// Why, and what to do.
    pub cause: String,
}

/// Why a key was not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such provider.
    #[error("there is no provider `{0}`; `tandem provider list` shows what there is")]
    NoProvider(String),
    /// A provider of a kind that has no keys.
    #[error("provider `{0}` uses no keys")]
    Keyless(String),
    /// The installation has no master key.
    #[error(
        "there is no master key to seal keys with; set TANDEM_SECRETS_KEY to what `openssl rand -base64 32` prints, and restart (see `secrets` in tandem.toml)"
    )]
    NoMasterKey,
    /// No service has such keys.
    #[error("this is no API key: it must be 8 to 512 printable ASCII characters without spaces")]
    Malformed,
    /// It cannot be sealed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// It cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StoredKeys {
    /// The keys in that database, for those providers.
    pub fn new(store: Store, vault: Option<Vault>, providers: Arc<Providers>) -> Self {
        Self { store, vault, providers, turn: tokio::sync::Mutex::new(()) }
    }

    /// Gives the providers the keys that the database has now. Answers those that do not open: the calls of
    /// their organization use the installation's meanwhile, rather than none at all.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn load(&self) -> Result<Vec<Unreadable>, StoreError> {
        let _turn = self.turn.lock().await;
        self.reload().await
    }

    async fn reload(&self) -> Result<Vec<Unreadable>, StoreError> {
        let mut unreadable = Vec::new();
        let mut found: BTreeMap<(String, Option<String>), Vec<SecretString>> = BTreeMap::new();
        for sealed in self.store.provider_keys().await? {
            match self.open(&sealed) {
                Ok(secret) => {
                    found.entry((sealed.key.provider, sealed.key.organization)).or_default().push(secret);
                }
                Err(cause) => unreadable.push(Unreadable { key: sealed.key, cause }),
            }
        }
        for name in self.providers.names() {
            let Some(keys) = self.providers.keys(name) else { continue };
            let mut organizations: BTreeSet<Option<String>> =
                keys.organizations().into_iter().map(Some).collect();
            organizations.insert(None);
            organizations
                .extend(found.keys().filter(|(provider, _)| provider == name).map(|(_, o)| o.clone()));
            for organization in organizations {
                let secrets = found.remove(&(name.to_owned(), organization.clone())).unwrap_or_default();
                keys.set_stored(organization.as_deref(), secrets);
            }
        }
        Ok(unreadable)
    }

    /// Keeps a key for the calls of an organization, or of all without keys of their own. It is used at once.
    ///
    /// # Errors
    /// When provider, organization or master key are missing, the key is malformed or there already, or the
    /// database fails.
    pub async fn add(
        &self,
        provider: &str,
        organization: Option<&str>,
        secret: &SecretString,
    ) -> Result<ProviderKey, KeyError> {
        self.check(provider)?;
        let vault = self.vault.as_ref().ok_or(KeyError::NoMasterKey)?;
        let text = secret.expose_secret().trim();
        if !(8..=512).contains(&text.len()) || !text.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err(KeyError::Malformed);
        }
        let secret = SecretString::from(text);
        let key = ProviderKey {
            id: ProviderKeyId::fresh(),
            provider: provider.to_owned(),
            organization: organization.map(str::to_owned),
            fingerprint: Fingerprint::of(&secret).to_string(),
            created_at: UnixMs::now(),
        };
        let sealed = vault.seal(&secret, &purpose(&key).each_ref().map(String::as_str))?;
        let _turn = self.turn.lock().await;
        self.store.add_provider_key(&SealedKey { key: key.clone(), sealed }).await?;
        self.reload().await?;
        Ok(key)
    }

    /// Removes a key; no new session uses it. `false` when that provider has none of that id.
    ///
    /// # Errors
    /// When there is no such provider, or the database fails.
    pub async fn remove(&self, provider: &str, id: ProviderKeyId) -> Result<bool, KeyError> {
        self.check(provider)?;
        let _turn = self.turn.lock().await;
        let removed = self.store.remove_provider_key(provider, id).await?;
        self.reload().await?;
        Ok(removed)
    }

    /// The keys of a provider: the environment's and the database's.
    ///
    /// # Errors
    /// When there is no such provider, or the database cannot be read.
    pub async fn list(&self, provider: &str) -> Result<Vec<ShownKey>, KeyError> {
        let Some(keys) = self.providers.keys(provider) else {
            return self.check(provider).map(|()| Vec::new()).or_else(|error| match error {
                KeyError::Keyless(_) => Ok(Vec::new()),
                other => Err(other),
            });
        };
        let stored = self.store.provider_keys().await?;
        let stored = stored.into_iter().map(|sealed| sealed.key).filter(|key| key.provider == provider);
        let mut installation = keys.states(None);
        let mut shown = Vec::new();
        for key in stored {
            let states = match &key.organization {
                Some(organization) => keys.states(Some(organization)),
                None => installation.clone(),
            };
            let state = states.into_iter().find(|state| state.fingerprint.to_string() == key.fingerprint);
            if key.organization.is_none() {
                installation.retain(|state| state.fingerprint.to_string() != key.fingerprint);
            }
            shown.push(ShownKey {
                source: "store",
                id: Some(key.id),
                organization: key.organization,
                created_at: Some(key.created_at),
                ..shown_as(key.fingerprint, state.as_ref())
            });
        }
        let environment =
            installation.iter().map(|state| shown_as(state.fingerprint.to_string(), Some(state)));
        Ok(environment.chain(shown).collect())
    }

    /// Seals every key anew that is not under the present master key.
    ///
    /// # Errors
    /// When there is no master key, or the database fails. What was sealed anew until then stays so.
    pub async fn rotate(&self) -> Result<Rotated, KeyError> {
        let vault = self.vault.as_ref().ok_or(KeyError::NoMasterKey)?;
        let _turn = self.turn.lock().await;
        let mut rotated =
            Rotated { master_key: vault.name().to_owned(), resealed: 0, unchanged: 0, failed: Vec::new() };
        for sealed in self.store.provider_keys().await? {
            if vault.is_present(&sealed.sealed) {
                rotated.unchanged += 1;
                continue;
            }
            match self.open(&sealed) {
                Ok(secret) => {
                    let anew = vault.seal(&secret, &purpose(&sealed.key).each_ref().map(String::as_str))?;
                    // A key that was removed meanwhile stays so.
                    if self.store.reseal_provider_key(&sealed, &anew).await? {
                        rotated.resealed += 1;
                    }
                }
                Err(cause) => rotated.failed.push(Unreadable { key: sealed.key, cause }),
            }
        }
        self.reload().await?;
        Ok(rotated)
    }

    fn open(&self, sealed: &SealedKey) -> Result<SecretString, String> {
        let vault = self.vault.as_ref().ok_or_else(|| KeyError::NoMasterKey.to_string())?;
        let purpose = purpose(&sealed.key);
        vault.open(&sealed.sealed, &purpose.each_ref().map(String::as_str)).map_err(|error| error.to_string())
    }

    /// Whether there is such a provider, and it uses keys.
    fn check(&self, provider: &str) -> Result<(), KeyError> {
        match (self.providers.get(provider), self.providers.keys(provider)) {
            (None, _) => Err(KeyError::NoProvider(provider.escape_debug().to_string())),
            (Some(_), None) => Err(KeyError::Keyless(provider.to_owned())),
            (Some(_), Some(_)) => Ok(()),
        }
    }
}

/// What a key's sealed text is bound to.
fn purpose(key: &ProviderKey) -> [String; 4] {
    let organization = key.organization.clone().unwrap_or_default();
    ["provider_keys".to_owned(), key.id.to_string(), key.provider.clone(), organization]
}

fn shown_as(fingerprint: String, state: Option<&KeyState>) -> ShownKey {
    let rest = state.and_then(|state| state.rest);
    ShownKey {
        fingerprint,
        source: "environment",
        id: None,
        organization: None,
        created_at: None,
        state: match (state, rest) {
            (None, _) => "unreadable",
            (Some(_), Some(_)) => "resting",
            (Some(_), None) => "in_use",
        },
        reason: rest.map(|(fault, _)| fault.name()),
        retry_in_ms: rest.map(|(_, left)| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        used: state.map_or(0, |state| state.used),
    }
}

#[cfg(test)]
mod tests {
    use super::super::breaker::Policy;
    use super::super::openai::OpenAiConfig;
    use super::super::registry::ProviderConfig;
    use super::*;
    use crate::config::{MasterKey, Secrets};
    use crate::store::{Organization, RecordingSetting};

    async fn store() -> Store {
        let store = Store::open("sqlite::memory:").await.unwrap();
        store.migrate().await.unwrap();
        let acme = Organization { name: "acme".into(), recording: RecordingSetting::Off, daily_budget: None };
        store.put_organization(&acme).await.unwrap();
        store
    }

    fn keys(store: &Store, present: Option<u8>, previous: &[u8]) -> StoredKeys {
        let master = |n: u8| MasterKey::new([n; 32]);
        let previous = previous.iter().map(|n| master(*n)).collect();
        let secrets = Secrets { key: present.map(master), previous, ..Secrets::default() };
        let openai = OpenAiConfig { api_keys: vec!["sk-environment".into()], ..OpenAiConfig::default() };
        let config = (ProviderConfig::OpenAi(Box::new(openai)), Policy::default());
        let providers = Providers::build([config]).unwrap();
        StoredKeys::new(store.clone(), Vault::of(&secrets), Arc::new(providers))
    }

    /// The fingerprints the calls of an organization use.
    fn used(keys: &StoredKeys, organization: Option<&str>) -> Vec<String> {
        let states = keys.providers.keys("openai").unwrap().states(organization);
        states.iter().map(|state| state.fingerprint.to_string()).collect()
    }

    #[tokio::test]
    async fn a_key_is_kept_sealed_used_at_once_and_found_again_after_a_restart() {
        let store = store().await;
        let first = keys(&store, Some(1), &[]);
        let added = first.add("openai", Some("acme"), &"sk-of-acme-123\n".into()).await.unwrap();
        let common = first.add("openai", None, &"sk-for-everybody".into()).await.unwrap();
        let stored = format!("{:?}", store.provider_keys().await.unwrap());
        assert!(!stored.contains("sk-of-acme") && !stored.contains("everybody"), "{stored}");
        let second = keys(&store, Some(1), &[]);
        assert_eq!(second.load().await.unwrap(), []);
        for keys in [&first, &second] {
            assert_eq!(used(keys, Some("acme")), std::slice::from_ref(&added.fingerprint));
            assert_eq!(used(keys, None).len(), 2);
            assert!(used(keys, None).contains(&common.fingerprint));
        }
        let listed = second.list("openai").await.unwrap();
        let shown: Vec<_> =
            listed.iter().map(|key| (key.source, key.state, key.organization.as_deref())).collect();
        assert_eq!(
            shown,
            [("environment", "in_use", None), ("store", "in_use", None), ("store", "in_use", Some("acme"))]
        );
        let text = serde_json::to_string(&listed).unwrap();
        assert!(!text.contains("sk-"), "{text}");
    }

    #[tokio::test]
    async fn a_removed_key_is_used_no_more() {
        let store = store().await;
        let keys = keys(&store, Some(1), &[]);
        let added = keys.add("openai", Some("acme"), &"sk-of-acme-123".into()).await.unwrap();
        assert!(keys.remove("openai", added.id).await.unwrap());
        assert!(!keys.remove("openai", added.id).await.unwrap());
        assert!(used(&keys, Some("acme")).is_empty() && used(&keys, None).len() == 1);
    }

    #[tokio::test]
    async fn keys_are_sealed_anew_under_the_present_master_key() {
        let store = store().await;
        keys(&store, Some(1), &[]).add("openai", Some("acme"), &"sk-of-acme-123".into()).await.unwrap();
        let both = keys(&store, Some(2), &[1]);
        let rotated = both.rotate().await.unwrap();
        assert_eq!((rotated.resealed, rotated.unchanged, rotated.failed.len()), (1, 0, 0));
        assert_eq!(both.rotate().await.unwrap().unchanged, 1);
        let new = keys(&store, Some(2), &[]);
        assert_eq!(new.load().await.unwrap(), []);
        assert_eq!(used(&new, Some("acme")).len(), 1);
    }

    #[tokio::test]
    async fn a_key_that_does_not_open_is_told_and_the_installations_are_used() {
        let store = store().await;
        keys(&store, Some(1), &[]).add("openai", Some("acme"), &"sk-of-acme-123".into()).await.unwrap();
        let other = keys(&store, Some(2), &[]);
        let unreadable = other.load().await.unwrap();
        assert_eq!(unreadable.len(), 1);
        assert!(unreadable[0].cause.contains("secrets.previous_key_env"), "{unreadable:?}");
        assert!(used(&other, Some("acme")).is_empty());
        assert_eq!(other.list("openai").await.unwrap()[1].state, "unreadable");
        assert_eq!(other.rotate().await.unwrap().failed.len(), 1);
        let none = keys(&store, None, &[]).load().await.unwrap();
        assert!(none[0].cause.contains("TANDEM_SECRETS_KEY"), "{none:?}");
    }

    #[tokio::test]
    async fn what_is_no_key_or_has_no_place_is_refused_without_repeating_it() {
        let store = store().await;
        let keys_1 = keys(&store, Some(1), &[]);
        for (provider, organization, key, expected) in [
            ("other", None, "sk-123456789", "there is no provider"),
            ("openai", Some("nobody"), "sk-123456789", "there is no org `nobody`"),
            ("openai", None, "sk-1", "this is no API key"),
            ("openai", None, "sk-1234 56789", "this is no API key"),
        ] {
            let error = keys_1.add(provider, organization, &key.into()).await.unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains(key), "{error}");
        }
        keys_1.add("openai", None, &"sk-123456789".into()).await.unwrap();
        let twice = keys_1.add("openai", None, &"sk-123456789".into()).await.unwrap_err().to_string();
        assert!(twice.contains("already") && !twice.contains("sk-123456789"), "{twice}");
        let error = keys(&store, None, &[]).add("openai", None, &"sk-987654321".into()).await.unwrap_err();
        assert!(matches!(error, KeyError::NoMasterKey));
    }
}
