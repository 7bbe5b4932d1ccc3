//! What Tandem depends on: database, TLS roots, providers.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Check;
use crate::config::values::{mask_url, split_url};
use crate::config::{Config, ProviderSection};
use crate::store::Store;

pub(super) async fn store(config: &Config) -> Check {
    let url = &config.store.url;
    let shown = mask_url(url);
    if let Some(file) = sqlite_file(url)
        && !file.exists()
    {
        return Check::ok("store", format!("{shown} does not exist yet; `tandem serve` makes it"));
    }
    let why = "calls cannot be recorded in the database";
    let look = async {
        let store = Store::open(url).await?;
        store.ping().await?;
        let status = store.migration_status().await;
        store.close().await;
        status
    };
    match timeout(STORE_PATIENCE, look).await {
        Err(_) => Check::fail(
            "store",
            format!("{shown} does not answer"),
            why,
            "check that the database server runs",
        ),
        Ok(Err(error)) => {
            let what = super::super::output::chain(&error);
            Check::fail("store", what, why, "correct store.url, or the rights of its user")
        }
        Ok(Ok(status)) if status.is_current() => Check::ok("store", format!("{shown}, up to date")),
        Ok(Ok(status)) => Check::warn(
            "store",
            format!("{shown} has schema {} of {}", status.schema, status.latest),
            "`tandem serve` brings it up to date when it starts",
            "run `tandem db backup` and `tandem db migrate` at a quiet time",
        ),
    }
}

fn sqlite_file(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?.trim_start_matches("//");
    let path = if url.starts_with("sqlite:///") {
        format!("/{}", path.trim_start_matches('/'))
    } else {
        path.to_owned()
    };
    let path = path.split('?').next().unwrap_or_default();
    (path != ":memory:").then(|| path.into())
}

pub(super) fn tls_roots() -> Check {
    let roots = webpki_roots::TLS_SERVER_ROOTS.len();
    match (roots, rustls::crypto::CryptoProvider::get_default().is_some()) {
        (1.., true) => Check::ok("tls", format!("{roots} built-in root certificates")),
        _ => Check::fail(
            "tls",
            "no root certificates, or no cryptography",
            "no provider can be reached over wss://",
            "install a release build of Tandem",
        ),
    }
}

pub(super) async fn providers(config: &Config, offline: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, provider) in &config.providers {
        let id = format!("provider:{name}");
        checks.push(match provider.url() {
            None => Check::ok(id, "embedded"),
            Some(_) if offline => Check::ok(id, "not tried (--offline)"),
            Some(url) => reach(id, url, keys(provider)).await,
        });
    }
    checks
}

fn keys(provider: &ProviderSection) -> usize {
    match provider {
        ProviderSection::Openai(openai) => openai.api_keys.len(),
        ProviderSection::Ultravox(ultravox) => ultravox.api_keys.len(),
        ProviderSection::UltravoxSip(agent) => agent.api_keys.len(),
        ProviderSection::Scripted(_) => 0,
    }
}

async fn reach(id: String, url: &str, keys: usize) -> Check {
    let why = "calls for this provider cannot be answered";
    let Some(parts) = split_url(url) else {
        return Check::fail(id, "its url is none", why, "correct it");
    };
    let target = (parts.host, parts.port_or_default());
    let fix = "check DNS, the firewall for outgoing TCP, and the provider's url";
    match timeout(CONNECT_PATIENCE, TcpStream::connect(target)).await {
        Ok(Ok(_)) => Check::ok(id, format!("{} can be reached; {keys} keys in its environment", parts.host)),
        Ok(Err(error)) => Check::fail(id, format!("{} cannot be reached: {error}", parts.host), why, fix),
        Err(_) => {
            let seconds = CONNECT_PATIENCE.as_secs();
            Check::fail(id, format!("{} does not answer within {seconds} s", parts.host), why, fix)
        }
    }
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
const STORE_PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_an_sqlite_url_is_found() {
        let file = |url| sqlite_file(url).map(|path| path.display().to_string());
        assert_eq!(file("sqlite://data/tandem.db").as_deref(), Some("data/tandem.db"));
        assert_eq!(file("sqlite:///var/tandem.db?mode=rwc").as_deref(), Some("/var/tandem.db"));
        assert_eq!(file("postgres://db/x"), None);
    }
}
