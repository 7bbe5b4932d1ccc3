//! The providers of this installation, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::breaker::Policy;
use super::guarded::{Guarded, Status};
use super::lease::Keys;
use super::notice::Witness;
use super::openai::{OpenAi, OpenAiConfig};
use super::scripted::{Scripted, ScriptedConfig};
use super::ultravox::{Ultravox, UltravoxConfig};
use super::{Provider, ProviderError};

/// One `[providers.NAME]` section, by kind.
#[derive(Debug, Clone)]
pub enum ProviderConfig {
    /// OpenAI Realtime, or a service that speaks it.
    OpenAi(Box<OpenAiConfig>),
    /// Ultravox.
    Ultravox(Box<UltravoxConfig>),
    /// The embedded default.
    Scripted(ScriptedConfig),
}

/// All providers, built once and shared by all calls.
#[derive(Clone, Default)]
pub struct Providers {
    by_name: BTreeMap<String, Arc<Guarded>>,
}

impl Providers {
    /// Builds every provider, each behind a breaker of these values. A later one of the same name replaces an earlier one.
    ///
    /// # Errors
    /// Every provider that is misconfigured, not only the first.
    pub fn build(
        configs: impl IntoIterator<Item = (ProviderConfig, Policy)>,
    ) -> Result<Self, Vec<ProviderError>> {
        let mut providers = Self::default();
        let mut wrong = Vec::new();
        for (config, policy) in configs {
            let provider: Result<Arc<dyn Provider>, _> = match config {
                ProviderConfig::OpenAi(config) => {
                    OpenAi::new(*config).map(|provider| Arc::new(provider) as _)
                }
                ProviderConfig::Ultravox(config) => {
                    Ultravox::new(*config).map(|provider| Arc::new(provider) as _)
                }
                ProviderConfig::Scripted(config) => Ok(Arc::new(Scripted::new(&config))),
            };
            match provider {
                Ok(provider) => providers.insert(provider, policy),
                Err(error) => wrong.push(error),
            }
        }
        if wrong.is_empty() { Ok(providers) } else { Err(wrong) }
    }

    /// Adds a provider, or replaces the one of its name.
    pub fn insert(&mut self, provider: Arc<dyn Provider>, policy: Policy) {
        let name = provider.name().to_owned();
        self.by_name.insert(name, Arc::new(Guarded::new(provider, policy)));
    }

    /// The provider of that name, behind its breaker.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Provider>> {
        let guarded = Arc::clone(self.by_name.get(name)?);
        Some(guarded)
    }

    /// The provider of that name itself, for those who look after it.
    pub fn guarded(&self, name: &str) -> Option<&Arc<Guarded>> {
        self.by_name.get(name)
    }

    /// The keys of the provider of that name; `None`: there is no such provider, or it uses none.
    pub fn keys(&self, name: &str) -> Option<&Keys> {
        self.by_name.get(name)?.keys()
    }

    /// How the provider of that name is.
    pub fn status(&self, name: &str) -> Option<Status> {
        Some(self.by_name.get(name)?.status())
    }

    /// Closes the breaker of the provider of that name and ends the rest of its keys. False: there is none.
    pub fn reset(&self, name: &str) -> bool {
        self.by_name.get(name).map(|guarded| guarded.reset()).is_some()
    }

    /// Who is told what happens to the providers. The first stays.
    pub fn tell(&self, witness: &Arc<dyn Witness>) {
        self.by_name.values().for_each(|guarded| guarded.tell(witness));
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

impl std::fmt::Debug for Providers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Providers").field(&self.by_name.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::breaker::State;
    use super::super::{OpenFuture, SessionSpec};
    use super::*;

    #[test]
    fn every_misconfigured_provider_is_reported() {
        let wrong = |name: &str| {
            let url = "https://example.com".to_owned();
            let config = OpenAiConfig { name: name.into(), url, ..OpenAiConfig::default() };
            (ProviderConfig::OpenAi(Box::new(config)), Policy::default())
        };
        let errors = Providers::build([wrong("a"), wrong("b")]).unwrap_err();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(
            texts[0].contains("provider a is not usable") && texts[1].contains("provider b"),
            "{texts:?}"
        );
    }

    #[test]
    fn providers_are_found_by_name() {
        let scripted = ProviderConfig::Scripted(ScriptedConfig { name: "scripted".into(), script: None });
        let openai = ProviderConfig::OpenAi(Box::default());
        let providers =
            Providers::build([scripted, openai].map(|config| (config, Policy::default()))).unwrap();
        assert_eq!(providers.names().collect::<Vec<_>>(), ["openai", "scripted"]);
        assert_eq!(providers.get("openai").unwrap().name(), "openai");
        assert!(providers.get("other").is_none());
    }

    #[tokio::test]
    async fn a_provider_that_fails_is_no_longer_tried() {
        let mut providers = Providers::default();
        providers.insert(Arc::new(Down), Policy { failures: 3, ..Policy::default() });
        let down = providers.get("down").unwrap();
        for _ in 0..3 {
            assert!(down.unusable().is_none());
            assert!(down.open(SessionSpec::default()).await.is_err());
        }
        let status = providers.status("down").unwrap();
        assert_eq!((status.state, status.failures, status.opened), (State::Open, 3, 1));
        let complaint = down.unusable().unwrap().to_string();
        let expected = "provider down is not tried: it has failed too often, last: provider down is unreachable: no route";
        assert_eq!(complaint, expected);
        assert!(providers.reset("down") && down.unusable().is_none());
        assert!(!providers.reset("other"));
    }

    struct Down;

    impl Provider for Down {
        fn name(&self) -> &str {
            "down"
        }

        fn open(&self, _spec: SessionSpec) -> OpenFuture {
            let (provider, cause) = ("down".to_owned(), "no route".to_owned());
            Box::pin(async { Err(ProviderError::Unreachable { provider, cause }) })
        }
    }
}
