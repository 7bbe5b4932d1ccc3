//! Takes declared resources: everything is checked as a whole before anything is changed.

use secrecy::ExposeSecret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::warn;

use super::phones::{self, PhoneDesk};
use crate::call::dial::DialTarget;
use crate::config::resources::{self, Known};
use crate::config::{Config, Finding, secret_of_process};
use crate::http::problem::{FieldError, Problem, store_problem};
use crate::http::{ApplyResources, BoxFuture};
use crate::store::{Applied, Phone, PhoneSecret, Store, StoreError};
use crate::tools::guard::Guard;
use crate::tools::registry::Registry;
use crate::tools::{builtin, webhook};

/// Applies resources over the API, and lets calls see them.
pub(super) struct Applier {
    pub(super) store: Store,
    pub(super) phones: PhoneDesk,
    pub(super) installation: Installation,
    pub(super) tools: Registry,
}

/// What resources may refer to besides each other.
#[derive(Clone)]
pub(super) struct Installation {
    providers: Vec<String>,
    /// Their kinds, by name.
    kinds: Vec<(String, String)>,
    default_chain: Vec<String>,
    trunks: Vec<String>,
    /// What phones' passwords are hashed for.
    realm: String,
    /// Where tools may be.
    guard: Guard,
}

impl Installation {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            providers: config.providers.keys().cloned().collect(),
            kinds: config.providers.iter().map(|(name, s)| (name.clone(), s.kind().to_owned())).collect(),
            default_chain: config.routing.default_chain.clone(),
            trunks: config.trunk.iter().map(|trunk| trunk.name.clone()).collect(),
            realm: config.sip.registrar.realm.clone(),
            guard: Guard::new(config.tools.allow_networks.iter().map(|network| network.0).collect()),
        }
    }
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
    /// A tool cannot be used.
    #[error("tool {name}: {cause}")]
    Tool {
        /// Its name.
        name: String,
        /// Why, and what to do.
        cause: String,
    },
    /// A phone's password cannot be had.
    #[error("phone {user}: {cause}")]
    Password {
        /// Its user.
        user: String,
        /// Why, and what to do.
        cause: String,
    },
}

impl ApplyResources for Applier {
    fn apply(&self, text: String) -> BoxFuture<'_, Result<Value, Problem>> {
        Box::pin(async move {
            let offered = Some(self.tools.names());
            let applied = apply(&self.store, &self.installation, offered, "resources.toml", &text).await;
            // What was stored before a fault is in use, too.
            if !matches!(
                applied,
                Err(ApplyError::Findings(_) | ApplyError::Password { .. } | ApplyError::Tool { .. })
            ) {
                super::tools::refresh(&self.tools, &self.store).await;
                self.phones.refresh().await?;
            }
            applied.map_err(problem)
        })
    }
}

/// Applies a resources text (`offered`: the tools of a server that runs); answers what became of each resource.
pub(super) async fn apply(
    store: &Store,
    installation: &Installation,
    offered: Option<Vec<String>>,
    file: &str,
    text: &str,
) -> Result<Value, ApplyError> {
    let known = known(store, installation, offered).await?;
    let (declared, findings) = resources::parse(file, text, Some(&known));
    if findings.iter().any(Finding::is_error) {
        return Err(ApplyError::Findings(findings));
    }
    for finding in &findings {
        warn!("{finding}");
    }
    for tool in &declared.tool {
        webhook::check(&stored(tool)?, &installation.guard)
            .map_err(|cause| ApplyError::Tool { name: tool.name.clone(), cause })?;
    }
    let phones = declared.phone.iter().map(|phone| keyed(installation, phone));
    let phones = phones.collect::<Result<Vec<_>, _>>()?;
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
    for tool in &declared.tool {
        note("tool", &tool.name, store.put_tool(&stored(tool)?).await?);
    }
    for assistant in &declared.assistant {
        note("assistant", &assistant.name, store.put_assistant(&stored(assistant)?).await?);
    }
    for number in &declared.number {
        note("number", &number.number, store.put_number(&stored(number)?).await?);
    }
    for phone in &phones {
        note("phone", &phone.user, store.put_phone(phone).await?);
    }
    Ok(json!({"results": results, "warnings": findings}))
}

/// A phone with the hashes of its password.
fn keyed(installation: &Installation, phone: &resources::Phone) -> Result<Phone, ApplyError> {
    let realm = &installation.realm;
    let secret = match (&phone.password_env, &phone.ha1_md5, &phone.ha1_sha256) {
        (Some(variable), ..) => {
            let password = secret_of_process(variable)
                .map_err(|cause| ApplyError::Password { user: phone.user.clone(), cause })?;
            if password.expose_secret().len() < phones::PASSWORD_MIN {
                let cause = format!(
                    "the password in {variable} is too short; {} characters at least",
                    phones::PASSWORD_MIN
                );
                return Err(ApplyError::Password { user: phone.user.clone(), cause });
            }
            phones::secret(realm, &phone.user, password.expose_secret())
        }
        (None, md5, sha256) => {
            let lower =
                |hash: &Option<String>| hash.as_deref().unwrap_or_default().to_ascii_lowercase().into();
            PhoneSecret { realm: realm.clone(), md5: lower(md5), sha256: lower(sha256) }
        }
    };
    Ok(Phone {
        organization: phone.organization.clone(),
        user: phone.user.clone(),
        number: phone.number.clone(),
        trunks: phone.trunks.clone(),
        secret,
    })
}

async fn known(
    store: &Store,
    installation: &Installation,
    offered: Option<Vec<String>>,
) -> Result<Known, StoreError> {
    let assistants = store.assistants(None).await?.into_iter();
    let own = store.tools(None).await?.into_iter();
    Ok(Known {
        organizations: store.organizations().await?.into_iter().map(|s| s.value.name).collect(),
        assistants: assistants.map(|s| (s.value.organization, s.value.name)).collect(),
        providers: installation.providers.clone(),
        kinds: installation.kinds.clone(),
        default_chain: installation.default_chain.clone(),
        trunks: installation.trunks.clone(),
        tools: offered.unwrap_or_else(builtin_names),
        built_in_tools: builtin_names(),
        later_tools: builtin::WAITING.iter().map(|(name, _)| (*name).to_owned()).collect(),
        judge_destination: Some(|target| DialTarget::parse(target).map(drop)),
        own_tools: own.map(|s| (s.value.organization, s.value.name)).collect(),
    })
}

fn builtin_names() -> Vec<String> {
    builtin::all().into_iter().map(|tool| tool.tool.definition.name.clone()).collect()
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
        ApplyError::Password { .. } | ApplyError::Tool { .. } => {
            Problem::unprocessable(error.to_string(), Vec::new())
        }
        ApplyError::Store(error) => store_problem(error),
    }
}
