//! The shell of `dns`: asks the name servers and remembers their answers.
//!
//! Answers live as long as their TTL says; that a name does not exist is believed for 30 s. When no name server
//! answers, what was known before stays in use (RFC 8767), so that an outage of DNS is none of telephony.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;

use super::dns::{self, Candidate, DnsError, Lookup, Naptr, Question, Reach, Records, Srv, Step};
use super::trunk::Peer;

/// Resolves the names of SIP peers. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    /// `None`: what `known` does not say does not exist.
    servers: Option<TokioResolver>,
    known: Mutex<HashMap<Question, Known>>,
    slots: Semaphore,
}

/// An answer of DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// To [`Question::Naptr`].
    Naptr(Vec<Naptr>),
    /// To [`Question::Srv`].
    Srv(Vec<Srv>),
    /// To [`Question::Addresses`].
    Addresses(Vec<IpAddr>),
}

#[derive(Debug, Clone)]
struct Known {
    rows: Rows,
    expires: Option<Instant>,
}

/// Why a name could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// DNS says that it leads nowhere.
    #[error(transparent)]
    Nowhere(#[from] DnsError),
    /// The name servers do not answer.
    #[error("`{0}` could not be looked up: {1}; see /etc/resolv.conf")]
    Failed(String, String),
    /// The system's resolver configuration cannot be used.
    #[error("the system's resolver configuration cannot be used: {0}; see /etc/resolv.conf")]
    Setup(String),
}

impl Resolver {
    /// Asks the name servers of `/etc/resolv.conf`, after `/etc/hosts`.
    ///
    /// # Errors
    /// When that file cannot be read.
    pub fn system() -> Result<Self, ResolveError> {
        let setup = |error: NetError| ResolveError::Setup(error.to_string());
        let mut builder = TokioResolver::builder_tokio().map_err(setup)?;
        bound(builder.options_mut());
        Ok(Self::with(Some(builder.build().map_err(setup)?)))
    }

    /// Asks one name server.
    ///
    /// # Errors
    /// When the system gives no socket.
    pub fn asking(server: SocketAddr) -> Result<Self, ResolveError> {
        let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
        (udp.port, tcp.port) = (server.port(), server.port());
        let mut one = NameServerConfig::udp_and_tcp(server.ip());
        one.connections = vec![udp, tcp];
        let config = ResolverConfig::from_name_servers(vec![one]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        bound(builder.options_mut());
        let built = builder.build().map_err(|error| ResolveError::Setup(error.to_string()))?;
        Ok(Self::with(Some(built)))
    }

    /// Knows these answers and no others.
    pub fn fixed(zone: impl IntoIterator<Item = (Question, Rows)>) -> Self {
        let resolver = Self::with(None);
        let known = zone.into_iter().map(|(question, rows)| (question, Known { rows, expires: None }));
        resolver.known().extend(known);
        resolver
    }

    /// Where a peer can be reached over transports of ours, best first. Waits at most 5 s.
    ///
    /// # Errors
    /// When it leads nowhere, or DNS does not answer.
    pub async fn resolve(&self, peer: &Peer, ours: &[Reach]) -> Result<Vec<Candidate>, ResolveError> {
        match tokio::time::timeout(LIMIT, self.follow(peer, ours)).await {
            Ok(answer) => answer,
            Err(_) => Err(ResolveError::Failed(peer.to_string(), "no answer within 5 s".to_owned())),
        }
    }

    async fn follow(&self, peer: &Peer, ours: &[Reach]) -> Result<Vec<Candidate>, ResolveError> {
        let mut failure = None;
        for _ in 0..ROUNDS_MAX {
            let step = {
                let mut known = View { known: &self.known(), now: Instant::now() };
                dns::select(peer, ours, &mut known, &mut StdRng::from_rng(&mut rand::rng()))
            };
            match step {
                Step::Done(Ok(found)) => return Ok(found),
                Step::Done(Err(error)) => {
                    return Err(failure.map_or(ResolveError::Nowhere(error), |reason| {
                        ResolveError::Failed(peer.to_string(), reason)
                    }));
                }
                Step::Need(questions) => {
                    let answers = join_all(questions.iter().map(|question| self.ask(question))).await;
                    failure = answers.into_iter().flatten().next_back().or(failure);
                }
            }
        }
        Err(ResolveError::Failed(peer.to_string(), "its records lead on and on".to_owned()))
    }

    /// Fetches one answer into the cache; tells why there is none.
    async fn ask(&self, question: &Question) -> Option<String> {
        let now = Instant::now();
        let answer = match &self.0.servers {
            Some(servers) => {
                let _slot = self.0.slots.acquire().await;
                fetch(servers, question).await
            }
            None => Ok(None),
        };
        let outcome = match &answer {
            Ok(Some(_)) => "answered",
            Ok(None) => "none",
            Err(_) => "failed",
        };
        metrics::counter!("tandem_dns_queries_total", "outcome" => outcome).increment(1);
        let (rows, expires, failure) = match answer {
            Ok(Some((rows, expires))) => (rows, expires.clamp(now + TTL_MIN, now + TTL_MAX), None),
            Ok(None) => (nothing(question), now + NEGATIVE, None),
            Err(error) => {
                let stale = self.known().get(question).map(|known| known.rows.clone());
                let failure = stale.is_none().then(|| error.to_string());
                // With nothing to fall back on it is asked again soon.
                let again = if stale.is_some() { NEGATIVE } else { TTL_MIN };
                (stale.unwrap_or_else(|| nothing(question)), now + again, failure)
            }
        };
        self.learn(now, question.clone(), Known { rows, expires: Some(expires) });
        failure
    }

    fn learn(&self, now: Instant, question: Question, answer: Known) {
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.retain(|_, one| one.expires.is_none_or(|at| at > now));
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(question, answer);
    }

    fn with(servers: Option<TokioResolver>) -> Self {
        Self(Arc::new(Inner { servers, known: Mutex::default(), slots: Semaphore::new(IN_FLIGHT) }))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Question, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("known", &self.known().len()).finish_non_exhaustive()
    }
}

/// What the cache says at one moment.
struct View<'a> {
    known: &'a HashMap<Question, Known>,
    now: Instant,
}

impl View<'_> {
    fn fresh(&self, question: &Question) -> Option<&Known> {
        self.known.get(question).filter(|known| known.expires.is_none_or(|at| at > self.now))
    }
}

impl Lookup for View<'_> {
    fn naptr(&mut self, name: &str) -> Option<Records<Naptr>> {
        let known = self.fresh(&Question::Naptr(name.to_owned()))?;
        let Rows::Naptr(rows) = &known.rows else { return None };
        Some(Records { rows: rows.clone(), expires: known.expires })
    }

    fn srv(&mut self, name: &str) -> Option<Records<Srv>> {
        let known = self.fresh(&Question::Srv(name.to_owned()))?;
        let Rows::Srv(rows) = &known.rows else { return None };
        Some(Records { rows: rows.clone(), expires: known.expires })
    }

    fn addresses(&mut self, name: &str) -> Option<Records<IpAddr>> {
        let known = self.fresh(&Question::Addresses(name.to_owned()))?;
        let Rows::Addresses(rows) = &known.rows else { return None };
        Some(Records { rows: rows.clone(), expires: known.expires })
    }
}

fn bound(options: &mut ResolverOpts) {
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
}

fn nothing(question: &Question) -> Rows {
    match question {
        Question::Naptr(_) => Rows::Naptr(Vec::new()),
        Question::Srv(_) => Rows::Srv(Vec::new()),
        Question::Addresses(_) => Rows::Addresses(Vec::new()),
    }
}

/// Rows and until when they hold; `None`: there are none.
async fn fetch(servers: &TokioResolver, question: &Question) -> Result<Option<(Rows, Instant)>, NetError> {
    let answer = match question {
        Question::Naptr(name) => rows(servers, name, RecordType::NAPTR)
            .await
            .map(|(data, until)| (Rows::Naptr(data.iter().filter_map(naptr).collect()), until)),
        Question::Srv(name) => rows(servers, name, RecordType::SRV)
            .await
            .map(|(data, until)| (Rows::Srv(data.iter().filter_map(srv).collect()), until)),
        Question::Addresses(name) => servers
            .lookup_ip(absolute(name))
            .await
            .map(|found| (Rows::Addresses(found.iter().collect()), found.valid_until())),
    };
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_no_records_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn rows(
    servers: &TokioResolver,
    name: &str,
    kind: RecordType,
) -> Result<(Vec<RData>, Instant), NetError> {
    let found = servers.lookup(absolute(name), kind).await?;
    let data = found.answers().iter().map(|record| record.data.clone()).collect();
    Ok((data, found.valid_until()))
}

/// A name with a dot in it is a whole one; a bare host may be completed by the system's search list.
fn absolute(name: &str) -> String {
    if name.contains('.') { format!("{}.", name.trim_end_matches('.')) } else { name.to_owned() }
}

fn naptr(data: &RData) -> Option<Naptr> {
    let RData::NAPTR(row) = data else { return None };
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    Some(Naptr {
        order: row.order,
        preference: row.preference,
        flags: text(&row.flags),
        service: text(&row.services),
        replacement: row.replacement.to_ascii().trim_end_matches('.').to_owned(),
    })
}

fn srv(data: &RData) -> Option<Srv> {
    let RData::SRV(row) = data else { return None };
    let target = row.target.to_ascii();
    Some(Srv { priority: row.priority, weight: row.weight, port: row.port, target })
}

/// Longest time for one peer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long "does not exist" is believed.
const NEGATIVE: Duration = Duration::from_secs(30);
/// Shorter TTLs are taken for this.
const TTL_MIN: Duration = Duration::from_secs(5);
/// Longer TTLs are taken for this.
const TTL_MAX: Duration = Duration::from_secs(86_400);
/// Questions on their way at a time; further ones wait.
const IN_FLIGHT: usize = 64;
/// Answers kept. When there are more, stale ones go first.
const KNOWN_MAX: usize = 4_096;
/// NAPTR, SRV, SRV without NAPTR, addresses, and one to spare.
const ROUNDS_MAX: usize = 6;

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
