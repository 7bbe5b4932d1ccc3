//! TLS for SIP: certificates, their reload, and whom we believe (RFC 5922).
//!
//! A peer proves the name it was asked for by a subject alternative name of its certificate; the common name counts
//! for nothing. A wildcard counts as on the web: RFC 5922 section 7.2 would refuse it, but carriers use them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::transport::HostId;

/// Certificate and key of `tls://` and `wss://` listeners, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key of the leaf.
    pub private_key: PathBuf,
    /// How often the files are looked at; new ones hold for the connections that come after. 10 s by default.
    pub reload_every: Duration,
}

impl TlsFiles {
    /// These files, looked at every 10 s.
    pub fn new(certificate: impl Into<PathBuf>, private_key: impl Into<PathBuf>) -> Self {
        let reload_every = Duration::from_secs(10);
        Self { certificate: certificate.into(), private_key: private_key.into(), reload_every }
    }
}

/// Whose certificates we believe when we connect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TlsRoots {
    /// The authorities that browsers believe.
    #[default]
    WebPki,
    /// The authorities of a PEM file, and no others.
    File(PathBuf),
}

/// Why TLS cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file without what it should hold.
    #[error("{path} holds no {what}; it must be PEM")]
    Empty {
        /// Which.
        path: PathBuf,
        /// What it lacks.
        what: &'static str,
    },
    /// Certificate and key do not fit together, or are of no use.
    #[error("{path} cannot be used: {source}")]
    Refused {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// What listeners prove themselves with. Cheap to clone; a clone sees later files too.
#[derive(Debug, Clone)]
pub(super) struct Certificates(watch::Receiver<Arc<ServerConfig>>);

impl Certificates {
    /// Reads the files, and returns what keeps reading them until it is cancelled.
    ///
    /// # Errors
    /// When the files cannot be used.
    pub(super) fn load(
        files: TlsFiles,
        stop: CancellationToken,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), TlsError> {
        let seen = Stamp::of(&files);
        let (sender, receiver) = watch::channel(server_config(&files)?);
        Ok((Self(receiver), keep_fresh(files, seen, sender, stop)))
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.borrow()))
    }
}

/// Reads the files anew when they change. What cannot be used is told once, and the old certificate stays: half of a
/// renewal may be there already, the other half a moment later.
async fn keep_fresh(
    files: TlsFiles,
    mut seen: Stamp,
    current: watch::Sender<Arc<ServerConfig>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(files.reload_every) => {}
            () = stop.cancelled() => return,
        }
        let stamp = Stamp::of(&files);
        if stamp == seen {
            continue;
        }
        seen = stamp;
        let outcome = match server_config(&files) {
            Ok(config) => {
                tracing::info!(certificate = %files.certificate.display(), "SIP has a new TLS certificate");
                current.send_replace(config);
                "ok"
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::warn!("the TLS certificate of SIP stays as it was: {error:#}");
                "failed"
            }
        };
        metrics::counter!("tandem_sip_tls_reloads_total", "outcome" => outcome).increment(1);
    }
}

/// When the files were written, and how long they are.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([Option<(SystemTime, u64)>; 2]);

impl Stamp {
    fn of(files: &TlsFiles) -> Self {
        let look = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        Self([look(&files.certificate), look(&files.private_key)])
    }
}

fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let refused = |source| TlsError::Refused { path: files.certificate.clone(), source };
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.private_key)?)
        .map_err(|_| TlsError::Empty { path: files.private_key.clone(), what: "private key" })?;
    let config = ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(refused)?;
    Ok(Arc::new(config))
}

/// Makes connections to peers that prove their names.
#[derive(Clone)]
pub(super) struct Connector {
    tls: TlsConnector,
    names: HostNames,
}

impl Connector {
    /// # Errors
    /// When the file of authorities cannot be used.
    pub(super) fn new(roots: &TlsRoots, names: HostNames) -> Result<Self, TlsError> {
        let (store, path) = match roots {
            TlsRoots::WebPki => (webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(), PathBuf::new()),
            TlsRoots::File(path) => (authorities(path)?, path.clone()),
        };
        let config = ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Refused { path, source })?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), names })
    }

    /// The handshake. The peer must prove the name, or without one its address.
    ///
    /// # Errors
    /// When it does not, or the connection breaks.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        name: Option<HostId>,
        remote: SocketAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = match name {
            None => ServerName::IpAddress(remote.ip().to_canonical().into()),
            Some(number) => {
                let name = self.names.name(number).ok_or(io::ErrorKind::NotFound)?;
                ServerName::try_from(name.to_string()).map_err(io::Error::other)?
            }
        };
        self.tls.connect(name, stream).await
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        let refused = |source| TlsError::Refused { path: path.to_owned(), source };
        store.add(certificate).map_err(refused)?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| TlsError::Empty { path: path.to_owned(), what: "certificate" })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// The provider is named, so that no other crate's choice of one can make this panic.
fn crypto() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The names that TLS peers must prove, each by a number that stays.
#[derive(Debug, Clone, Default)]
pub(super) struct HostNames(Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<Arc<str>, HostId>,
    names: Vec<Arc<str>>,
}

impl HostNames {
    /// The number of a name, in lower case and without the final dot; `None` for an empty name or when
    /// [`HOST_NAMES_MAX`] are known.
    pub(super) fn number(&self, name: &str) -> Option<HostId> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        // A number is pushed and entered under one lock, so a panic elsewhere leaves nothing half done.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.numbers.get(name.as_str()) {
            return Some(*number);
        }
        let number = HostId(u32::try_from(known.names.len()).ok()?);
        if name.is_empty() || known.names.len() >= HOST_NAMES_MAX {
            return None;
        }
        let name: Arc<str> = name.into();
        known.names.push(Arc::clone(&name));
        known.numbers.insert(name, number);
        Some(number)
    }

    /// The name behind a number.
    pub(super) fn name(&self, number: HostId) -> Option<Arc<str>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.names.get(usize::try_from(number.0).ok()?).cloned()
    }
}

/// Names that may be known at a time: those of trunks and registrars, and of SRV records they lead to.
const HOST_NAMES_MAX: usize = 4_096;
