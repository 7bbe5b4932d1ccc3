//! The providers of this installation, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::health::Health;
use super::noted::Noted;
use super::openai::{OpenAi, OpenAiConfig};
use super::scripted::{Scripted, ScriptedConfig};
use super::{Provider, ProviderError};

/// One `[providers.NAME]` section, by kind.
#[derive(Debug, Clone)]
pub enum ProviderConfig {
    /// OpenAI Realtime, or a service that speaks it.
    OpenAi(Box<OpenAiConfig>),
    /// The embedded default.
    Scripted(ScriptedConfig),
}

/// All providers, built once and shared by all calls.
#[derive(Clone, Default)]
pub struct Providers {
    by_name: BTreeMap<String, Arc<Noted>>,
}

impl Providers {
    /// Builds every provider. A later one of the same name replaces an earlier one.
    ///
    /// # Errors
    /// Every provider that is misconfigured, not only the first.
    pub fn build(configs: impl IntoIterator<Item = ProviderConfig>) -> Result<Self, Vec<ProviderError>> {
        let mut providers = Self::default();
        let mut wrong = Vec::new();
        for config in configs {
            match config {
                ProviderConfig::OpenAi(config) => match OpenAi::new(*config) {
                    Ok(provider) => providers.insert(Arc::new(provider)),
                    Err(error) => wrong.push(error),
                },
                ProviderConfig::Scripted(config) => providers.insert(Arc::new(Scripted::new(&config))),
            }
        }
        if wrong.is_empty() { Ok(providers) } else { Err(wrong) }
    }

    /// Adds a provider, or replaces the one of its name.
    pub fn insert(&mut self, provider: Arc<dyn Provider>) {
        let name = provider.name().to_owned();
        self.by_name.insert(name, Arc::new(Noted { provider, health: Arc::default() }));
    }

    /// The provider of that name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Provider>> {
        let noted = Arc::clone(self.by_name.get(name)?);
        Some(noted)
    }

    /// How the last sessions with the provider of that name were opened.
    pub fn health(&self, name: &str) -> Option<&Health> {
        Some(&self.by_name.get(name)?.health)
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
    use std::time::Instant;

    use super::super::{OpenFuture, SessionSpec};
    use super::*;

    #[test]
    fn every_misconfigured_provider_is_reported() {
        let wrong = |name: &str| {
            let url = "https://example.com".to_owned();
            ProviderConfig::OpenAi(Box::new(OpenAiConfig {
                name: name.into(),
                url,
                ..OpenAiConfig::default()
            }))
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
        let providers = Providers::build([scripted, openai]).unwrap();
        assert_eq!(providers.names().collect::<Vec<_>>(), ["openai", "scripted"]);
        assert_eq!(providers.get("openai").unwrap().name(), "openai");
        assert!(providers.get("other").is_none());
    }

    #[tokio::test]
    async fn openings_are_noted_by_the_name_of_the_provider() {
        let mut providers = Providers::default();
        providers.insert(Arc::new(Down));
        for _ in 0..3 {
            assert!(providers.get("down").unwrap().open(SessionSpec::default()).await.is_err());
        }
        let complaint = providers.health("down").unwrap().complaint(Instant::now()).unwrap();
        assert!(complaint.starts_with("provider down is unreachable: no route (3 attempts"), "{complaint}");
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
