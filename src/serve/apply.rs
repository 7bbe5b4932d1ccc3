//! Takes declared resources: everything is checked as a whole before anything is changed.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::warn;

use crate::call::tools;
use crate::config::Finding;
use crate::config::resources::{self, Known};
use crate::http::problem::{FieldError, Problem};
use crate::http::{ApplyResources, BoxFuture};
use crate::routing::directory::Directory;
use crate::store::{Applied, Store, StoreError};

/// Applies resources over the API, and lets calls see them.
pub(super) struct Applier {
    pub(super) store: Store,
    pub(super) directory: Directory,
    pub(super) providers: Vec<String>,
}

/// Why resources were not applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// What is wrong with the file.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Findings(Vec<Finding>),
    /// The database does not take them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApplyResources for Applier {
    fn apply(&self, text: String) -> BoxFuture<'_, Result<Value, Problem>> {
        Box::pin(async move {
            let applied = apply(&self.store, &self.providers, "resources.toml", &text).await;
            let results = applied.map_err(problem)?;
            self.directory.refresh(&self.store).await.map_err(|error| {
                warn!(%error, "resources were applied but could not be read back");
                Problem::unavailable("the resources are stored but not yet in use; apply them again")
            })?;
            Ok(results)
        })
    }
}

/// Applies a resources text; answers what became of each resource.
pub(super) async fn apply(
    store: &Store,
    providers: &[String],
    file: &str,
    text: &str,
) -> Result<Value, ApplyError> {
    let known = known(store, providers).await?;
    let (declared, findings) = resources::parse(file, text, Some(&known));
    if findings.iter().any(Finding::is_error) {
        return Err(ApplyError::Findings(findings));
    }
    for finding in &findings {
        warn!("{finding}");
    }
    let mut results = Vec::new();
    let mut note = |kind: &str, name: &str, outcome: Applied| {
        results.push(json!({"kind": kind, "name": name, "outcome": outcome}));
    };
    for organization in &declared.organization {
        let outcome = store.put_organization(&stored(organization)?).await?;
        note("organization", &organization.name, outcome);
    }
    for user in &declared.user {
        note("user", &user.email, store.put_user(&stored(user)?).await?);
    }
    for assistant in &declared.assistant {
        note("assistant", &assistant.name, store.put_assistant(&stored(assistant)?).await?);
    }
    for number in &declared.number {
        note("number", &number.number, store.put_number(&stored(number)?).await?);
    }
    Ok(json!({"results": results, "warnings": findings}))
}

async fn known(store: &Store, providers: &[String]) -> Result<Known, StoreError> {
    let assistants = store.assistants(None).await?.into_iter();
    Ok(Known {
        organizations: store.organizations().await?.into_iter().map(|s| s.value.name).collect(),
        assistants: assistants.map(|s| (s.value.organization, s.value.name)).collect(),
        providers: providers.to_vec(),
        tools: tools::names().map(str::to_owned).to_vec(),
    })
}

/// The store's form of a declared resource: the same members, checked by the store's own rules.
fn stored<T: DeserializeOwned>(declared: &impl Serialize) -> Result<T, StoreError> {
    let value = serde_json::to_value(declared).and_then(serde_json::from_value);
    value.map_err(|cause| StoreError::Corrupt { table: "resources", cause: cause.to_string() })
}

fn problem(error: ApplyError) -> Problem {
    match error {
        ApplyError::Findings(findings) => {
            let errors = findings.iter().map(|finding| FieldError {
                pointer: finding.key.clone(),
                code: "invalid",
                message: finding.to_string(),
            });
            Problem::unprocessable("the resources have errors; nothing was changed", errors.collect())
        }
        ApplyError::Store(error) => {
            warn!(%error, "resources could not be applied");
            Problem::unavailable("the store does not take resources now; try again")
        }
    }
}
