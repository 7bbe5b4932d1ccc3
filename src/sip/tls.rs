//! TLS for SIP: certificates, their reload, and whom we believe (RFC 5922).
//!
//! A peer proves the name it was asked for by a subject alternative name of its certificate, a DNS name or a `sip:` URI
//! of the domain; the common name counts for nothing. A wildcard counts as on the web: RFC 5922 section 7.2 would refuse it, but carriers use them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::certificate::Facts;
use super::transport::HostId;

/// Certificate and key of `tls://` and `wss://` listeners, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key of the leaf.
    pub private_key: PathBuf,
    /// Who connects to us shows a certificate, too.
    pub clients: TlsClients,
    /// Peers we connect to are shown this certificate when they ask for one.
    pub to_servers: bool,
    /// How often the files are looked at; new ones hold for the connections that come after. 10 s by default.
    pub reload_every: Duration,
}

impl TlsFiles {
    /// These files, looked at every 10 s.
    pub fn new(certificate: impl Into<PathBuf>, private_key: impl Into<PathBuf>) -> Self {
        let reload_every = Duration::from_secs(10);
        Self {
            certificate: certificate.into(),
            private_key: private_key.into(),
            clients: TlsClients::Any,
            to_servers: false,
            reload_every,
        }
    }
}

/// What a peer that connects to a `tls://` or `wss://` listener proves itself with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TlsClients {
    /// Nothing.
    #[default]
    Any,
    /// A certificate of the authorities in this PEM file, if it shows one; a wrong one ends the handshake.
    Optional(PathBuf),
    /// A certificate of the authorities in this PEM file.
    Required(PathBuf),
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
pub(super) struct Certificates(watch::Receiver<Arc<Proof>>);

/// One state of the files.
#[derive(Debug)]
struct Proof {
    /// For peers that connect to us.
    server: Arc<ServerConfig>,
    /// For peers that we connect to and that ask.
    key: Arc<CertifiedKey>,
}

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
        let (sender, receiver) = watch::channel(proof(&files)?);
        Ok((Self(receiver), keep_fresh(files, seen, sender, stop)))
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.borrow().server))
    }
}

/// Shows the certificate that is the newest at the time.
impl ResolvesClientCert for Certificates {
    fn resolve(&self, _authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = Arc::clone(&self.0.borrow().key);
        // A key that cannot sign as the peer wants would end the handshake; none may not.
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Reads the files anew when they change. What cannot be used is told once, and the old certificate stays: half of a
/// renewal may be there already, the other half a moment later.
async fn keep_fresh(
    files: TlsFiles,
    mut seen: Stamp,
    current: watch::Sender<Arc<Proof>>,
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
        let outcome = match proof(&files) {
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
struct Stamp([Option<(SystemTime, u64)>; 3]);

impl Stamp {
    fn of(files: &TlsFiles) -> Self {
        let look = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        let clients = match &files.clients {
            TlsClients::Any => None,
            TlsClients::Optional(roots) | TlsClients::Required(roots) => look(roots),
        };
        Self([look(&files.certificate), look(&files.private_key), clients])
    }
}

fn proof(files: &TlsFiles) -> Result<Arc<Proof>, TlsError> {
    let refused = |source| TlsError::Refused { path: files.certificate.clone(), source };
    let key = Arc::new(certified(&files.certificate, &files.private_key)?);
    let builder = ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .map_err(refused)?;
    let builder = match &files.clients {
        TlsClients::Any => builder.with_no_client_auth(),
        TlsClients::Required(roots) => builder.with_client_cert_verifier(clients(roots, false)?),
        TlsClients::Optional(roots) => builder.with_client_cert_verifier(clients(roots, true)?),
    };
    let server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&key))));
    Ok(Arc::new(Proof { server: Arc::new(server), key }))
}

fn clients(roots: &Path, anonymous: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let store = Arc::new(authorities(roots)?);
    let builder = WebPkiClientVerifier::builder_with_provider(store, crypto());
    let builder = if anonymous { builder.allow_unauthenticated() } else { builder };
    let path = roots.to_owned();
    builder
        .build()
        .map_err(|error| TlsError::Refused { path, source: rustls::Error::General(error.to_string()) })
}

/// A chain and the key of its leaf, which must fit together.
fn certified(certificate: &Path, private_key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(private_key)?)
        .map_err(|_| TlsError::Empty { path: private_key.to_owned(), what: "private key" })?;
    CertifiedKey::from_der(chain, key, &crypto())
        .map_err(|source| TlsError::Refused { path: certificate.to_owned(), source })
}

/// What the certificate of these files says, when it and its key can be used.
///
/// # Errors
/// When they cannot.
pub fn examine(certificate: &Path, private_key: &Path) -> Result<Facts, TlsError> {
    let key = certified(certificate, private_key)?;
    let facts = key.cert.first().and_then(|leaf| Facts::read(leaf));
    facts
        .ok_or_else(|| TlsError::Empty { path: certificate.to_owned(), what: "certificate that can be read" })
}

/// Believes a server that proves its name on the web's terms, or by a `sip:` URI of its domain.
#[derive(Debug)]
struct SipServers(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for SipServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        let verdict = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        // The name is looked at last: the chain was good.
        let wrong_name = matches!(
            verdict,
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
        );
        let ServerName::DnsName(name) = server_name else { return verdict };
        let name = name.as_ref().to_ascii_lowercase();
        let of_domain = || Facts::read(end_entity).is_some_and(|facts| facts.sip_domains.contains(&name));
        if wrong_name && of_domain() { Ok(ServerCertVerified::assertion()) } else { verdict }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
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
    pub(super) fn new(
        roots: &TlsRoots,
        names: HostNames,
        own: Option<Certificates>,
    ) -> Result<Self, TlsError> {
        let (store, path) = match roots {
            TlsRoots::WebPki => (webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(), PathBuf::new()),
            TlsRoots::File(path) => (authorities(path)?, path.clone()),
        };
        let refused = |source| TlsError::Refused { path: path.clone(), source };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), crypto())
            .build()
            .map_err(|error| refused(rustls::Error::General(error.to_string())))?;
        let builder = ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(SipServers(verifier)));
        let config = match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(own)),
            None => builder.with_no_client_auth(),
        };
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

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("names", &self.names).finish_non_exhaustive()
    }
}

/// What a handshake agreed on, in words: the version, and the names of the peer's certificate.
pub(super) fn agreed(stream: &TlsStream<TcpStream>) -> String {
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        _ => "TLS 1.2",
    };
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let facts = leaf.and_then(|leaf| Facts::read(leaf)).unwrap_or_default();
    let addresses = facts.addresses.iter().map(ToString::to_string);
    let names: Vec<String> = facts.names.into_iter().chain(facts.sip_domains).chain(addresses).collect();
    format!("{version}, its certificate is for {}", names.join(", "))
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
