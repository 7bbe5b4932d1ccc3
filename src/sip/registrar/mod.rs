//! Where the phones that register with us are (RFC 3261 section 10).

mod book;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub use book::{Phone, PhoneBook, Secret, TRUNK};

use super::header::name_addr::NameAddr;
use super::headers::{HeaderName, HeaderValue, Headers};
use super::message::{Request, StatusCode, Transport};
use super::transport::{ConnectionId, Target};
use super::uri::{Scheme, Uri};

/// Settings of the registrar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrarConfig {
    /// Shortest registration granted; a shorter wish gets 423.
    pub min_expires: Duration,
    /// Longest registration granted; a longer wish is cut.
    pub max_expires: Duration,
    /// Most contacts of one phone's address.
    pub contacts_max: usize,
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self {
            min_expires: Duration::from_secs(60),
            max_expires: Duration::from_secs(3600),
            contacts_max: 10,
        }
    }
}

/// Where a registered phone is.
#[derive(Debug, Clone)]
pub struct Binding {
    /// Its Contact, for the Request-URI.
    pub contact: Uri,
    /// Where its REGISTER came from: the flow calls to it take, through NAT too.
    pub target: Target,
    /// Proxies on the way (RFC 3327), for Route.
    pub path: Vec<Uri>,
    /// Until when it is there.
    pub expires: Instant,
    /// Preference, thousandths.
    pub q: u16,
    /// Which device it is (`+sip.instance`, RFC 5626).
    pub instance: Option<String>,
}

/// The bindings of every phone (RFC 3261 section 10.3). Who may register is settled before.
#[derive(Debug, Default)]
pub struct Registrar {
    config: RegistrarConfig,
    entries: HashMap<String, Vec<Entry>>,
    /// Who registered over which flow; looked at for every request of a stranger.
    flows: HashMap<Flow, Vec<String>>,
    /// How many flows each address has.
    sources: HashMap<IpAddr, usize>,
    /// When each phone's next contact expires.
    due: BTreeSet<(Instant, String)>,
}

/// The way a REGISTER came: a connection, or the address a datagram was sent from.
type Flow = (Transport, SocketAddr, Option<ConnectionId>);

fn flow_of(target: &Target) -> Flow {
    (target.transport, target.remote, target.connection)
}

#[derive(Debug)]
struct Entry {
    binding: Binding,
    call_id: String,
    cseq: u32,
}

/// The answer to a REGISTER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// Its headers, besides those of every response.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a Contact asks for.
struct Wish {
    contact: NameAddr,
    expires: Duration,
    q: u16,
    instance: Option<String>,
}

impl Registrar {
    /// A registrar without bindings.
    pub fn new(config: RegistrarConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Other settings, for the registrations to come.
    pub fn configure(&mut self, config: RegistrarConfig) {
        self.config = config;
    }

    /// Takes the REGISTER of a phone that proved to be `user`; `back` is the flow it came on. Either all of it
    /// is done or nothing.
    pub fn register(&mut self, now: Instant, request: &Request, back: Target, user: &str) -> Answered {
        let before = self.indexed(user);
        self.forget_expired(now, user);
        let applied = self.apply(now, request, back, user);
        self.index(user, &before);
        match applied {
            Ok(()) => self.listing(now, request, user),
            Err(refused) => refused,
        }
    }

    fn apply(&mut self, now: Instant, request: &Request, back: Target, user: &str) -> Result<(), Answered> {
        let headers = &request.headers;
        let to = headers.to().map_err(|_| Answered::bare(StatusCode::BAD_REQUEST))?;
        if to.uri.user_decoded().as_deref() != Some(user) {
            return Err(Answered::bare(StatusCode::FORBIDDEN));
        }
        let (Ok(call_id), Ok(cseq)) = (headers.call_id(), headers.cseq()) else {
            return Err(Answered::bare(StatusCode::BAD_REQUEST));
        };
        let order = (call_id, cseq.number);
        let contacts: Vec<&[u8]> = headers.values(HeaderName::Contact).collect();
        if contacts.contains(&&b"*"[..]) {
            return self.remove_all(headers, contacts.len(), user, order);
        }
        let wishes = contacts.iter().map(|text| self.wish(headers, text)).collect::<Result<Vec<_>, _>>()?;
        let path = path(headers)?;
        self.check(user, &wishes, order)?;
        for wish in wishes {
            let entries = self.entries.entry(user.to_owned()).or_default();
            entries.retain(|entry| !wish.names(&entry.binding));
            if !wish.expires.is_zero() {
                let binding = Binding {
                    contact: wish.contact.uri,
                    target: back,
                    path: path.clone(),
                    expires: now + wish.expires,
                    q: wish.q,
                    instance: wish.instance,
                };
                entries.push(Entry { binding, call_id: call_id.to_owned(), cseq: cseq.number });
            }
        }
        self.drop_if_gone(user);
        Ok(())
    }

    /// `Contact: *` stands alone and with `Expires: 0` (section 10.3 step 6).
    fn remove_all(
        &mut self,
        headers: &Headers,
        contacts: usize,
        user: &str,
        order: (&str, u32),
    ) -> Result<(), Answered> {
        if contacts != 1 || headers.expires().ok().flatten() != Some(0) {
            return Err(Answered::bare(StatusCode::BAD_REQUEST));
        }
        let entries = self.entries.get(user).map_or(&[][..], Vec::as_slice);
        if entries.iter().any(|entry| entry.is_newer_than(order)) {
            return Err(Answered::bare(StatusCode::SERVER_INTERNAL_ERROR));
        }
        self.entries.remove(user);
        Ok(())
    }

    fn wish(&self, headers: &Headers, text: &[u8]) -> Result<Wish, Answered> {
        let bad = || Answered::bare(StatusCode::BAD_REQUEST);
        let contact = NameAddr::parse(text).map_err(|_| bad())?;
        let scheme = contact.uri.scheme();
        if !matches!(scheme, Scheme::Sip | Scheme::Sips) || contact.uri.as_str().len() > URI_OCTETS_MAX {
            return Err(bad());
        }
        let own = contact.params.get_str("expires").and_then(|text| text.parse::<u32>().ok());
        let seconds = own.or_else(|| headers.expires().ok().flatten()).unwrap_or(DEFAULT_EXPIRES);
        let asked = Duration::from_secs(u64::from(seconds));
        if !asked.is_zero() && asked < self.config.min_expires {
            let min = u32::try_from(self.config.min_expires.as_secs()).unwrap_or(u32::MAX);
            let headers = vec![(HeaderName::MinExpires, HeaderValue::from(min))];
            return Err(Answered { status: StatusCode::INTERVAL_TOO_BRIEF, headers });
        }
        let instance =
            contact.params.get_text("+sip.instance").filter(|text| text.len() <= INSTANCE_OCTETS_MAX);
        let q = contact.params.get_str("q").and_then(thousandths).unwrap_or(1000);
        Ok(Wish { expires: asked.min(self.config.max_expires), q, instance, contact })
    }

    /// Step 7: an older request must not undo a newer one. And there is an end to contacts.
    fn check(&self, user: &str, wishes: &[Wish], order: (&str, u32)) -> Result<(), Answered> {
        let entries = self.entries.get(user).map_or(&[][..], Vec::as_slice);
        let late = |wish: &Wish| entries.iter().any(|e| wish.names(&e.binding) && e.is_newer_than(order));
        if wishes.iter().any(late) {
            return Err(Answered::bare(StatusCode::SERVER_INTERNAL_ERROR));
        }
        let kept = entries.iter().filter(|e| !wishes.iter().any(|wish| wish.names(&e.binding))).count();
        let added = wishes.iter().filter(|wish| !wish.expires.is_zero()).count();
        match added > 0 && kept + added > self.config.contacts_max {
            true => Err(Answered::bare(StatusCode::FORBIDDEN)),
            false => Ok(()),
        }
    }

    /// 200 with every contact there is and how long it holds (step 8).
    fn listing(&self, now: Instant, request: &Request, user: &str) -> Answered {
        let row = |binding: &Binding| {
            let left = binding.expires.saturating_duration_since(now).as_secs();
            let contact = NameAddr::new(binding.contact.clone()).to_value();
            let value = HeaderValue::cleaned(format!("{};expires={left}", contact.to_text()));
            (HeaderName::Contact, value)
        };
        let mut headers: Vec<_> = self.bindings(now, user).iter().map(row).collect();
        headers.extend(
            request.headers.rows(HeaderName::Path).map(|p| (HeaderName::Path, HeaderValue::cleaned(p))),
        );
        Answered { status: StatusCode::OK, headers }
    }

    /// Where a phone is, the preferred contact first.
    pub fn bindings(&self, now: Instant, user: &str) -> Vec<Binding> {
        let entries = self.entries.get(user).map_or(&[][..], Vec::as_slice);
        let live = entries.iter().map(|entry| &entry.binding).filter(|binding| binding.expires > now);
        let mut bindings: Vec<Binding> = live.cloned().collect();
        bindings.sort_by_key(|binding| std::cmp::Reverse(binding.q));
        bindings
    }

    /// Whether a registration of this phone came on this flow.
    pub fn is_on(&self, back: &Target, user: &str) -> bool {
        self.flows.get(&flow_of(back)).is_some_and(|users| users.iter().any(|known| known == user))
    }

    /// Whether any registration came on this flow.
    pub fn knows_flow(&self, back: &Target) -> bool {
        self.flows.contains_key(&flow_of(back))
    }

    /// Whether any registration came from this address.
    pub fn knows_source(&self, source: IpAddr) -> bool {
        self.sources.contains_key(&source)
    }

    /// Whether calls of a phone depend on this connection.
    pub fn uses(&self, connection: ConnectionId) -> bool {
        self.flows.keys().any(|(.., id)| *id == Some(connection))
    }

    /// How many contacts are registered.
    pub fn len(&self) -> usize {
        self.entries.values().map(Vec::len).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets the bindings of phones that may not register any more; who they were.
    pub fn keep(&mut self, known: impl Fn(&str) -> bool) -> Vec<String> {
        let gone: Vec<String> = self.entries.keys().filter(|user| !known(user)).cloned().collect();
        for user in &gone {
            let before = self.indexed(user);
            self.entries.remove(user);
            self.index(user, &before);
        }
        gone
    }

    /// A connection is gone, and with it every way to the phones behind it (RFC 5626 section 5.3); who has no
    /// contact any more.
    pub fn connection_closed(&mut self, connection: ConnectionId) -> Vec<String> {
        let lost = self.flows.iter().filter(|((.., id), _)| *id == Some(connection));
        let users: Vec<String> = lost.flat_map(|(_, users)| users.iter().cloned()).collect();
        self.prune(users, |entry| entry.binding.target.connection != Some(connection))
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Forgets what expired; the phones that have no contact any more.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<String> {
        let users = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, user)| user.clone()).collect();
        self.prune(users, |entry| entry.binding.expires > now)
    }

    /// Keeps what `keeps` says of these phones; those that have no contact any more.
    fn prune(&mut self, users: Vec<String>, keeps: impl Fn(&Entry) -> bool) -> Vec<String> {
        let mut gone = Vec::new();
        for user in users {
            let before = self.indexed(&user);
            if let Some(entries) = self.entries.get_mut(&user) {
                entries.retain(&keeps);
            }
            let went = self.drop_if_gone(&user);
            self.index(&user, &before);
            if went {
                gone.push(user);
            }
        }
        gone
    }

    fn forget_expired(&mut self, now: Instant, user: &str) {
        if let Some(entries) = self.entries.get_mut(user) {
            entries.retain(|entry| entry.binding.expires > now);
        }
        self.drop_if_gone(user);
    }

    fn drop_if_gone(&mut self, user: &str) -> bool {
        let gone = self.entries.get(user).is_some_and(Vec::is_empty);
        gone && self.entries.remove(user).is_some()
    }

    /// What the indices hold of a phone.
    fn indexed(&self, user: &str) -> (Vec<Flow>, Option<Instant>) {
        let entries = self.entries.get(user).map_or(&[][..], Vec::as_slice);
        let mut flows: Vec<Flow> = Vec::new();
        for entry in entries {
            let flow = flow_of(&entry.binding.target);
            if !flows.contains(&flow) {
                flows.push(flow);
            }
        }
        (flows, entries.iter().map(|entry| entry.binding.expires).min())
    }

    /// Brings the indices up to date after a phone's contacts changed.
    fn index(&mut self, user: &str, (flows, due): &(Vec<Flow>, Option<Instant>)) {
        for flow in flows {
            self.leave(flow, user);
        }
        if let Some(due) = due {
            self.due.remove(&(*due, user.to_owned()));
        }
        let (flows, due) = self.indexed(user);
        for flow in flows {
            let users = self.flows.entry(flow).or_default();
            if users.is_empty() {
                *self.sources.entry(flow.1.ip()).or_default() += 1;
            }
            users.push(user.to_owned());
        }
        self.due.extend(due.map(|due| (due, user.to_owned())));
    }

    fn leave(&mut self, flow: &Flow, user: &str) {
        let Some(users) = self.flows.get_mut(flow) else { return };
        users.retain(|known| known != user);
        if !users.is_empty() {
            return;
        }
        self.flows.remove(flow);
        let source = flow.1.ip();
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl Answered {
    fn bare(status: StatusCode) -> Self {
        Self { status, headers: Vec::new() }
    }
}

impl Entry {
    /// Whether this was registered by the same client after the request of this Call-ID and CSeq.
    fn is_newer_than(&self, (call_id, cseq): (&str, u32)) -> bool {
        self.call_id == call_id && self.cseq >= cseq
    }
}

impl Wish {
    /// A device that moved has another address and the same instance (RFC 5626 section 6).
    fn names(&self, binding: &Binding) -> bool {
        match (&self.instance, &binding.instance) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.contact.uri.equivalent(&binding.contact),
        }
    }
}

/// The proxies between (RFC 3327), which calls to the phone go through.
fn path(headers: &Headers) -> Result<Vec<Uri>, Answered> {
    let rows = headers.values(HeaderName::Path).map(NameAddr::parse);
    let path: Vec<NameAddr> =
        rows.collect::<Result<_, _>>().map_err(|_| Answered::bare(StatusCode::BAD_REQUEST))?;
    match path.len() <= PATH_MAX {
        true => Ok(path.into_iter().map(|address| address.uri).collect()),
        false => Err(Answered::bare(StatusCode::BAD_REQUEST)),
    }
}

/// `0.7` is 700; nothing above 1.
fn thousandths(text: &str) -> Option<u16> {
    let q: f32 = text.parse().ok()?;
    (0.0..=1.0).contains(&q).then_some((q * 1000.0) as u16)
}

/// Section 10.2.1.1 leaves it to us.
const DEFAULT_EXPIRES: u32 = 3600;
const URI_OCTETS_MAX: usize = 512;
const INSTANCE_OCTETS_MAX: usize = 256;
const PATH_MAX: usize = 8;

#[cfg(test)]
mod tests;
