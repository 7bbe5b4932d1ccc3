//! From configuration to tools: the webhooks of organizations and the MCP servers.

use std::collections::BTreeMap;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{Config, Mcp};
use crate::store::Store;
use crate::tools::guard::Guard;
use crate::tools::mcp::{Link, ServerConfig, Servers};
use crate::tools::registry::Registry;
use crate::tools::webhook::Webhooks;

/// The registry, with the tools that are stored. MCP servers are kept until `stop`.
pub(super) async fn registry(
    config: &Config,
    store: &Store,
    stop: &CancellationToken,
) -> anyhow::Result<Registry> {
    let allowed = config.tools.allow_networks.iter().map(|network| network.0).collect();
    let webhooks = Webhooks::new(Guard::new(allowed))
        .map_err(anyhow::Error::msg)
        .context("making a client for webhooks")?;
    let servers = config.mcp.iter().map(|(name, section)| server(name, section)).collect();
    let registry = Registry::new(webhooks, Servers::start(servers, stop));
    refresh(&registry, store).await;
    Ok(registry)
}

/// Lets assistants have the tools that are stored now. Those of before stay when the store does not answer.
pub(super) async fn refresh(registry: &Registry, store: &Store) {
    match store.tools(None).await {
        Ok(stored) => {
            let stored: Vec<_> = stored.into_iter().map(|stored| stored.value).collect();
            registry.declare(&stored);
        }
        Err(error) => warn!(%error, "the tools cannot be read; those of before stay"),
    }
}

fn server(name: &str, section: &Mcp) -> ServerConfig {
    let link = match &section.url {
        Some(url) => Link::Http { url: url.clone(), headers: section.header_secrets.clone() },
        None => {
            let plain = section.env.iter().map(|(name, value)| (name.clone(), value.clone().into()));
            let mut environment: BTreeMap<_, _> = plain.collect();
            environment.extend(section.env_secrets.clone());
            Link::Program { command: section.command.clone(), environment }
        }
    };
    ServerConfig {
        name: name.to_owned(),
        link,
        tools: section.tools.clone(),
        prefix: section.prefix.clone().unwrap_or_else(|| format!("{name}_")),
        organizations: section.organizations.clone(),
        timeout: section.timeout,
        cancel_on_barge_in: section.cancel_on_barge_in,
    }
}
