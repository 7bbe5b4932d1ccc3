//! What happens to providers, told to those who want to know: the log and the feed's `system` topic.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tracing::{info, warn};

use crate::config::{Config, Money};
use crate::cost::Alarm;
use crate::event::CostLimit;
use crate::provider::keys::KeyFault;
use crate::provider::notice::{Notice, Witness};
use crate::provider::stored_keys::{StoredKeys, Unreadable};
use crate::routing::plan::Planner;
use crate::store::vault::Vault;
use crate::store::{Feed, Store, SystemLog};

/// Writes it all down.
pub(super) struct Reporter(SystemLog);

/// Gives the providers the keys of the database, and begins to write down what happens to them.
pub(super) async fn open(
    config: &Config,
    store: &Store,
    feed: &Feed,
    planner: &Planner,
) -> anyhow::Result<(Arc<Reporter>, Arc<StoredKeys>)> {
    let system = SystemLog::start(store.clone(), feed.clone()).await.context("reading the system's log")?;
    let reporter = Reporter(system);
    let vault = Vault::of(&config.secrets);
    let keys = StoredKeys::new(store.clone(), vault, Arc::clone(&planner.providers));
    reporter.unreadable(&keys.load().await.context("reading the providers' keys")?);
    Ok((Arc::new(reporter), Arc::new(keys)))
}

impl Witness for Reporter {
    fn saw(&self, notice: Notice) {
        match notice {
            Notice::BreakerOpened { provider, cause, cool_down } => {
                warn!(
                    provider,
                    cause,
                    cool_down_s = cool_down.as_secs(),
                    "a provider is not tried for a while"
                );
                let text = format!("provider {provider} is not tried for {} s: {cause}", cool_down.as_secs());
                self.0.tell(
                    "breaker.opened",
                    json!({"provider": provider, "cause": cause, "cool_down_ms": cool_down.as_millis() as u64}),
                );
                self.alert("provider_down", &provider, &text);
            }
            Notice::BreakerHalfOpen { provider } => {
                info!(provider, "a call tries whether a provider is back");
                self.0.tell("breaker.half_open", json!({"provider": provider}));
            }
            Notice::BreakerClosed { provider } => {
                info!(provider, "a provider is used again");
                self.0.tell("breaker.closed", json!({"provider": provider}));
            }
            Notice::KeyRested { provider, organization, key, fault } => {
                let key = key.to_string();
                let rest = fault.rest();
                warn!(
                    provider,
                    organization,
                    key,
                    reason = fault.name(),
                    rest_s = rest.as_secs(),
                    "a key rests"
                );
                self.0.tell(
                    "key.rested",
                    json!({
                        "provider": provider, "organization": organization, "key": key,
                        "reason": fault.name(), "rest_ms": rest.as_millis() as u64,
                    }),
                );
                // A limit passes by itself; the others wait for somebody.
                let (code, text) = match fault {
                    KeyFault::Limited { .. } => return,
                    KeyFault::Rejected => {
                        ("key_rejected", format!("provider {provider} rejects key {key}: replace it"))
                    }
                    KeyFault::NoQuota => (
                        "key_without_quota",
                        format!("the account of key {key} has no quota left at {provider}"),
                    ),
                };
                self.alert(code, &provider, &text);
            }
        }
    }
}

impl Alarm for Reporter {
    fn limit(&self, whose: Option<&str>, limit: &CostLimit) {
        let code = if limit.percent >= 100 { "cost_limit_reached" } else { "cost_limit_near" };
        let whose =
            whose.map_or_else(|| "the installation".to_owned(), |name| format!("organization {name}"));
        let amount = |nanos| format!("{} {}", Money::from_nanos(nanos), limit.currency);
        let (spent, most) = (amount(limit.spent), amount(limit.limit));
        self.alert(code, "", &format!("{whose} has spent {spent} of today's {most}"));
    }
}

impl Reporter {
    /// Keys of the database that do not open.
    fn unreadable(&self, keys: &[Unreadable]) {
        for one in keys {
            let (provider, key) = (&one.key.provider, &one.key.fingerprint);
            warn!(provider, key, cause = one.cause, "a kept key does not open");
            let text = format!("key {key} of provider {provider} does not open: {}", one.cause);
            self.alert("key_unreadable", provider, &text);
        }
    }

    /// As [`Reporter`], for limits of cost.
    pub(super) fn of_costs(&self) -> Box<dyn Alarm> {
        Box::new(Self(self.0.clone()))
    }

    fn alert(&self, code: &str, provider: &str, text: &str) {
        self.0.tell("system.alert", json!({"code": code, "provider": provider, "text": text}));
    }
}
