//! Requests to other people's web servers: one client, one idea of whom to trust.
//!
//! Whoever is asked sees a connection with TLS by `ring` and the web's certificate authorities, is not
//! followed anywhere else (a redirect would carry keys and signatures to strangers), and has a time limit.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

pub mod homed;

/// A client for one purpose. Cheap to clone; connections are kept and used again.
///
/// # Errors
/// When one of `extra_roots` is not a certificate.
pub fn client(extra_roots: &[CertificateDer<'static>], limit: Duration) -> Result<reqwest::Client, String> {
    let builder = builder(extra_roots)?.timeout(limit).connect_timeout(limit.min(CONNECT_LIMIT));
    builder.build().map_err(|error| error.to_string())
}

/// A client that asks only the addresses `resolver` gives. No proxy of the environment comes between: it would look
/// names up by itself.
///
/// # Errors
/// When there is no client to be had.
pub fn guarded_client(
    resolver: Arc<dyn reqwest::dns::Resolve>,
    limit: Duration,
) -> Result<reqwest::Client, String> {
    let builder =
        builder(&[])?.timeout(limit).connect_timeout(CONNECT_LIMIT).no_proxy().dns_resolver(resolver);
    builder.build().map_err(|error| error.to_string())
}

/// A client for a neighbour such as a PBX: no proxy comes between, and connections that were unused for `idle` are not
/// used again, since servers close theirs after a while.
///
/// # Errors
/// When there is no client to be had.
pub fn neighbour_client(limit: Duration, idle: Duration) -> Result<reqwest::Client, String> {
    let builder = builder(&[])?.timeout(limit).connect_timeout(limit.min(CONNECT_LIMIT));
    builder.no_proxy().pool_idle_timeout(idle).build().map_err(|error| error.to_string())
}

/// A client for answers that go on and on: only connecting has a time limit.
///
/// # Errors
/// When there is no client to be had.
pub fn streaming_client() -> Result<reqwest::Client, String> {
    builder(&[])?.connect_timeout(CONNECT_LIMIT).build().map_err(|error| error.to_string())
}

fn builder(extra_roots: &[CertificateDer<'static>]) -> Result<reqwest::ClientBuilder, String> {
    let tls = trust(extra_roots).map_err(|error| error.to_string())?;
    Ok(reqwest::Client::builder()
        .use_preconfigured_tls(tls)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
        .tcp_nodelay(true))
}

/// Trusts the web's certificate authorities, and `extra_roots` besides them.
///
/// # Errors
/// When one of `extra_roots` is not a certificate.
pub fn trust(extra_roots: &[CertificateDer<'static>]) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in extra_roots {
        roots.add(certificate.clone())?;
    }
    // The crypto provider is named, so that no other crate's choice of one can make this panic.
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// DNS, TCP and TLS may take this long together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
