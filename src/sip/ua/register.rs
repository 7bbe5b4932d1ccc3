//! Phones of our own: their registrations (RFC 3261 section 10.3), and the calls they make.
//!
//! Closed until a book of phones is given. A phone is let in by where it registered from and by its credentials,
//! both; a REGISTER for a domain that is not ours gets no answer, like everything else of strangers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};

use super::checks::Refusal;
use super::event::{PhoneNews, UaEvent};
use super::{UserAgent, dropped};
use crate::sip::digest::{DigestServer, Known, Verdict};
use crate::sip::headers::{HeaderName, HeaderValue};
use crate::sip::identity::IncomingIdentity;
use crate::sip::message::{Method, Request, StatusCode};
use crate::sip::registrar::{Binding, Phone, PhoneBook, Registrar, Secret, TRUNK};
use crate::sip::transaction::TxId;
use crate::sip::transport::{ConnectionId, Target};
use crate::sip::trunk::Trunk;
use crate::sip::uri::Host;

/// The phones that may register, and those that did.
#[derive(Debug)]
pub(super) struct Phones {
    book: Option<Arc<PhoneBook>>,
    registrar: Registrar,
    digest: Option<DigestServer>,
    /// What our calls to phones go over.
    trunk: Arc<Trunk>,
}

impl Default for Phones {
    fn default() -> Self {
        let nobody = Secret::Password(SecretString::default());
        let trunk = Phone::new("", nobody, None, Vec::new()).trunk;
        Self { book: None, registrar: Registrar::default(), digest: None, trunk }
    }
}

impl Phones {
    /// Whether phones may register.
    pub(super) fn is_open(&self) -> bool {
        self.book.is_some()
    }

    pub(super) fn trunk(&self, name: &str) -> Option<Arc<Trunk>> {
        (name == TRUNK).then(|| Arc::clone(&self.trunk))
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.registrar.next_timeout()
    }

    pub(super) fn uses(&self, connection: ConnectionId) -> bool {
        self.registrar.uses(connection)
    }

    /// Whether a phone is reached this way, and by no other.
    pub(super) fn is_flow(&self, target: &Target) -> bool {
        self.registrar.knows_flow(target)
    }

    pub(super) fn knows_source(&self, source: IpAddr) -> bool {
        self.registrar.knows_source(source)
    }

    /// Whether we are the registrar of this REGISTER's domain.
    /// `shown` is the address it reaches us at.
    fn serves(&self, request: &Request, back: &Target, shown: IpAddr) -> bool {
        let Some(book) = &self.book else { return false };
        match request.uri.host() {
            Some(Host::Name(name)) => book.domains.iter().any(|domain| domain.eq_ignore_ascii_case(name)),
            Some(Host::Ip(ip)) => {
                let ours = [back.local.ip().to_canonical(), shown];
                book.domains.iter().any(|domain| *domain == ip.to_string())
                    || book.domains.is_empty() && ours.contains(&ip)
            }
            None => false,
        }
    }

    fn phone(&self, user: &str) -> Option<&Phone> {
        self.book.as_ref()?.phones.get(user)
    }
}

impl Phone {
    /// The phone is the caller, whatever its From says.
    pub(super) fn identify(&self, identity: &mut IncomingIdentity) {
        if identity.caller.is_none() {
            return;
        }
        identity.caller = Some(self.number.clone().unwrap_or_else(|| self.user.clone()));
        identity.caller_e164 = self.number.clone().filter(|number| number.starts_with('+'));
    }
}

impl UserAgent {
    /// Opens the registrar to these phones, or takes another list of them. Who is not in it any more loses the
    /// contacts it has.
    pub fn set_phones(&mut self, book: Arc<PhoneBook>) {
        let phones = &mut self.phones;
        if phones.book.as_ref().is_none_or(|old| old.realm != book.realm) {
            phones.digest = None;
        }
        phones.registrar.configure(book.settings.clone());
        // Who registered with a password that is no longer good has to do so again.
        let old = phones.book.take();
        let before = |user: &str| old.as_ref().and_then(|old| old.phones.get(user));
        let gone = phones.registrar.keep(|user| {
            let same = |now: &Phone| before(user).is_none_or(|before| before.secret.is(&now.secret));
            book.phones.get(user).is_some_and(same)
        });
        phones.book = Some(book);
        self.phones_gone(gone);
    }

    /// Where a registered phone is, the preferred contact first.
    pub fn bindings(&self, now: Instant, user: &str) -> Vec<Binding> {
        self.phones.registrar.bindings(now, user)
    }

    /// A connection is gone, and with it the way to the phones behind it.
    pub fn connection_closed(&mut self, connection: ConnectionId) {
        let gone = self.phones.registrar.connection_closed(connection);
        self.phones_gone(gone);
    }

    /// Whether a stranger by address is heard as a phone: it wants to register with us, or did over this very flow.
    pub(super) fn is_phone(&self, request: &Request, back: &Target) -> bool {
        match request.method {
            Method::Register => self.phones.serves(request, back, self.advertised(back)),
            _ => self.phones.registrar.knows_flow(back),
        }
    }

    /// The phone that calls: the one its From names, when it registered over the flow the call comes on. It comes
    /// before a trunk of the same address.
    pub(super) fn calling_phone(&self, request: &Request, back: &Target) -> Option<Phone> {
        if !self.phones.registrar.knows_flow(back) {
            return None;
        }
        let from = request.headers.from().ok()?;
        let user = from.uri.user_decoded()?;
        let phone = self.phones.phone(&user)?;
        self.phones.registrar.is_on(back, &user).then(|| phone.clone())
    }

    pub(super) fn register_arrived(&mut self, now: Instant, tx: TxId, request: &Request, back: Target) {
        if !self.phones.serves(request, &back, self.advertised(&back)) {
            return self.reply(now, tx, request, StatusCode::NOT_FOUND);
        }
        if let Some(refusal) = unknown_extension(request) {
            return self.reply_with(now, tx, request, refusal.status, &refusal.headers);
        }
        let user = match self.authenticate_phone(now, request, HeaderName::To) {
            Ok(user) => user,
            Err(refusal) => {
                self.note_wrong_password(now, request, &refusal, back);
                return self.reply_with(now, tx, request, refusal.status, &refusal.headers);
            }
        };
        let before = self.phones.registrar.bindings(now, &user).len();
        let answer = self.phones.registrar.register(now, request, back, &user);
        self.reply_with(now, tx, request, answer.status, &answer.headers);
        let contacts = self.phones.registrar.bindings(now, &user).len();
        match (before, contacts) {
            (0, 0) => {}
            (_, 0) => self.tell(UaEvent::Phone(PhoneNews::Unregistered { user })),
            _ => self.tell(UaEvent::Phone(PhoneNews::Registered { user, contacts })),
        }
        self.count_registrations();
    }

    /// Checks the credentials of a phone; who it is. A user that does not exist gets the same answers in the same
    /// time as one with a wrong password. `place` must name the user too.
    ///
    /// # Errors
    /// 401 with challenges, or 403 for who speaks for somebody else.
    pub(super) fn authenticate_phone(
        &mut self,
        now: Instant,
        request: &Request,
        place: HeaderName,
    ) -> Result<String, Refusal> {
        let Some(book) = self.phones.book.clone() else { return Err(Refusal::bare(StatusCode::FORBIDDEN)) };
        let (key, random) = (self.rng.random(), self.rng.random());
        let fresh = || DigestServer::new(&book.realm, key, NONCE_LIFETIME, now);
        let server = self.phones.digest.get_or_insert_with(fresh);
        let rows = request.headers.rows(HeaderName::Authorization);
        let known = |user: &str| book.phones.get(user).map(known);
        let verdict = server.verify_known(now, rows, request.method.as_str(), &request.body, known);
        let stale = match verdict {
            Verdict::Accepted { username } => return speaks_for_itself(request, place, username),
            Verdict::Stale => true,
            Verdict::Refused => false,
        };
        metrics::counter!("tandem_sip_challenges_total").increment(1);
        let challenges = server.challenge(now, random, stale);
        let headers = challenges.into_iter().map(|value| (HeaderName::WwwAuthenticate, value)).collect();
        Err(Refusal { status: StatusCode::UNAUTHORIZED, headers })
    }

    pub(super) fn phones_timeout(&mut self, now: Instant) {
        let gone = self.phones.registrar.handle_timeout(now);
        self.phones_gone(gone);
    }

    fn phones_gone(&mut self, gone: Vec<String>) {
        if gone.is_empty() {
            return;
        }
        gone.into_iter().for_each(|user| self.tell(UaEvent::Phone(PhoneNews::Unregistered { user })));
        self.count_registrations();
    }

    fn count_registrations(&self) {
        if self.phones.is_open() {
            metrics::gauge!("tandem_sip_registrations").set(self.phones.registrar.len() as f64);
        }
    }
}

fn known(phone: &Phone) -> Known {
    match &phone.secret {
        Secret::Password(password) => Known::Password(password.expose_secret().to_owned()),
        Secret::Ha1 { md5, sha256 } => {
            Known::Ha1 { md5: md5.expose_secret().to_owned(), sha256: sha256.expose_secret().to_owned() }
        }
    }
}

/// RFC 3261 section 22.1: right credentials are not yet the right to speak for somebody else.
fn speaks_for_itself(request: &Request, place: HeaderName, username: String) -> Result<String, Refusal> {
    let addresses = request.headers.addresses(place).unwrap_or_default();
    let same =
        addresses.first().and_then(|address| address.uri.user_decoded()).is_some_and(|user| user == username);
    if same {
        return Ok(username);
    }
    dropped("phone_of_another");
    Err(Refusal::bare(StatusCode::FORBIDDEN))
}

fn unknown_extension(request: &Request) -> Option<Refusal> {
    let required = request.headers.require().unwrap_or_default();
    let unknown: Vec<&str> = required.into_iter().filter(|tag| !tag.eq_ignore_ascii_case("path")).collect();
    if unknown.is_empty() {
        return None;
    }
    let unsupported = HeaderValue::cleaned(unknown.join(", "));
    Some(Refusal::with(StatusCode::BAD_EXTENSION, HeaderName::Unsupported, unsupported))
}

const NONCE_LIFETIME: Duration = Duration::from_secs(120);
