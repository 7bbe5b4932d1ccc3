//! Writing who calls whom into an INVITE of ours.

use std::net::SocketAddr;

use super::incoming::{pass_list, plan};
use super::numbers::{NumberError, NumberPolicy, e164, is_user, write};
use super::{CallIdentity, CallerPolicy, Diverted, OutgoingIdentity, passing};
use crate::sip::header::name_addr::NameAddr;
use crate::sip::headers::HeaderValue;
use crate::sip::profile::{CallerHeader, FromDomain, NumberFormat};
use crate::sip::trunk::Trunk;
use crate::sip::uri::Uri;

/// Addresses and headers for a call over this trunk. `local` is our address as the peer is to see it.
///
/// # Errors
/// When the number may not be dialled over this trunk or cannot be written as it wants, or a header may not be set.
pub fn outgoing(
    call: &CallIdentity<'_>,
    trunk: &Trunk,
    local: SocketAddr,
) -> Result<OutgoingIdentity, NumberError> {
    let plan = plan(trunk);
    let far = FarEnd::of(trunk)?;
    let called = dialled(call.called, &plan)?;
    let to = far.address(&called.written)?;
    let caller = Caller::of(call, trunk, &plan);
    let host = near_host(trunk, &far, local);
    let from = match (caller.withheld, &caller.written) {
        (true, _) => Uri::parse(ANONYMOUS).map_err(|_| NumberError::NoHost)?,
        (false, Some(user)) => near_address(user, &host)?,
        (false, None) => near_address(trunk.username.as_deref().unwrap_or(NOBODY), &host)?,
    };
    let mut headers = caller.headers(trunk, &host)?;
    headers.extend(diversion(call, &caller, trunk, &plan, &host)?);
    headers.extend(identity(call, &caller, &called));
    carry(&mut headers, call, trunk)?;
    Ok(OutgoingIdentity {
        request_uri: to.clone(),
        to,
        from,
        from_display: if caller.withheld { Some("Anonymous".to_owned()) } else { caller.name },
        headers,
        privacy: caller.withheld,
    })
}

/// Where the Request-URI points: the trunk's domain, or else its first peer with its port, or else where it registers.
struct FarEnd {
    host: String,
    port: Option<u16>,
}

impl FarEnd {
    fn of(trunk: &Trunk) -> Result<Self, NumberError> {
        if let Some(domain) = &trunk.domain {
            return Ok(Self { host: domain.clone(), port: None });
        }
        if let Some(peer) = trunk.peers.first() {
            return Ok(Self { host: peer.host_text(), port: peer.port });
        }
        // Who takes our registrations takes our calls.
        let registration = trunk.registrations.first().ok_or(NumberError::NoHost)?;
        Ok(Self { host: registration.domain.clone(), port: None })
    }

    fn address(&self, user: &str) -> Result<Uri, NumberError> {
        Uri::sip(user, &self.host, self.port).map_err(|_| NumberError::NoHost)
    }
}

/// The host in From and the headers beside it.
fn near_host(trunk: &Trunk, far: &FarEnd, local: SocketAddr) -> String {
    match trunk.profile.from_domain {
        FromDomain::Own => local.ip().to_canonical().to_string(),
        FromDomain::Trunk => far.host.clone(),
    }
}

fn near_address(user: &str, host: &str) -> Result<Uri, NumberError> {
    Uri::sip(user, host, None).map_err(|_| NumberError::NoHost)
}

/// What is dialled: as the trunk wants it, and in E.164 where there is such a form.
struct Called {
    written: String,
    e164: Option<String>,
}

fn dialled(called: &str, plan: &NumberPolicy) -> Result<Called, NumberError> {
    let called = called.trim();
    let number = e164(called, plan);
    plan.check(called, number.as_deref())?;
    let format = plan.format.unwrap_or_default();
    let written = match (&number, format) {
        (Some(number), NumberFormat::E164 | NumberFormat::E164Plain | NumberFormat::National) => {
            write(number, format, plan)
        }
        // A text with anything else in it could be read as parameters, or as another address.
        (_, NumberFormat::AsDialled | NumberFormat::National) if is_user(called) => called.to_owned(),
        _ => return Err(NumberError::NotANumber),
    };
    Ok(Called { written, e164: number })
}

/// The caller as this trunk is told.
struct Caller {
    /// The user part; `None` when nobody said.
    written: Option<String>,
    e164: Option<String>,
    name: Option<String>,
    /// Hidden from the callee.
    withheld: bool,
    /// The number is that of the call this one carries on.
    carried: bool,
}

impl Caller {
    fn of(call: &CallIdentity<'_>, trunk: &Trunk, plan: &NumberPolicy) -> Self {
        let inbound = call.from_inbound;
        let theirs = inbound.and_then(|from| from.caller_e164.as_deref().or(from.caller.as_deref()));
        let (number, carried) = match (&trunk.from, call.caller) {
            (CallerPolicy::Own(number), _) => (Some(number.as_str()), false),
            (CallerPolicy::Pass | CallerPolicy::Withhold, Some(number)) => {
                (Some(number), theirs == Some(number))
            }
            (CallerPolicy::Pass | CallerPolicy::Withhold, None) => (theirs, theirs.is_some()),
        };
        // Who called without a number must not be given one of ours by passing the call on, unless the trunk says so.
        let hidden = inbound.is_some_and(|from| from.privacy || from.caller.is_none());
        let own = matches!(trunk.from, CallerPolicy::Own(_));
        let withheld =
            call.withheld || trunk.from == CallerPolicy::Withhold || hidden && !own && call.caller.is_none();
        let number = number.map(str::trim).filter(|number| is_user(number));
        let e164 = number.and_then(|number| e164(number, plan));
        let format = plan.format.unwrap_or_default();
        let written = match (&e164, format) {
            (Some(e164), NumberFormat::E164 | NumberFormat::E164Plain | NumberFormat::National) => {
                Some(write(e164, format, plan))
            }
            _ => number.map(str::to_owned),
        };
        let name = call.caller_name.or(inbound.and_then(|from| from.caller_name.as_deref()));
        let name = name.map(shown).filter(|name| !name.is_empty() && !withheld);
        Self { written, e164, name, withheld, carried }
    }

    /// The headers that tell the number to a peer that is trusted with it, and ask it to hide it.
    fn headers(&self, trunk: &Trunk, host: &str) -> Result<Vec<(String, String)>, NumberError> {
        let mut headers = Vec::new();
        if let Some(user) = &self.written {
            let mut address = NameAddr::new(near_address(user, host)?);
            if let Some(name) = &self.name {
                address = address.with_display_name(name);
            }
            for header in &trunk.caller_headers {
                headers.push(match header {
                    CallerHeader::PAssertedIdentity => row("P-Asserted-Identity", &address.to_value()),
                    CallerHeader::RemotePartyId => {
                        let privacy = if self.withheld { "full" } else { "off" };
                        let party = address.to_value().to_text().into_owned();
                        let value = format!("{party};party=calling;privacy={privacy};screen=no");
                        ("Remote-Party-ID".to_owned(), value)
                    }
                });
            }
        }
        if self.withheld {
            headers.push(("Privacy".to_owned(), "id".to_owned()));
        }
        Ok(headers)
    }
}

/// The number a carried call came for, before those that sent it on earlier (RFC 5806 section 5).
fn diversion(
    call: &CallIdentity<'_>,
    caller: &Caller,
    trunk: &Trunk,
    plan: &NumberPolicy,
    host: &str,
) -> Result<Vec<(String, String)>, NumberError> {
    let Some(inbound) = call.from_inbound.filter(|_| trunk.send_diversion && caller.carried) else {
        return Ok(Vec::new());
    };
    let ours = Diverted {
        number: Some(inbound.called_e164.as_ref().unwrap_or(&inbound.called).clone()),
        reason: Some("unconditional".to_owned()),
        ..Diverted::default()
    };
    let all = std::iter::once(&ours).chain(&inbound.diversions).take(DIVERSIONS_MAX);
    let mut rows = Vec::new();
    for diverted in all {
        let user = diverted.number.as_deref().filter(|user| is_user(user) && !diverted.private);
        let user = user.map(|user| {
            e164(user, plan)
                .map_or_else(|| user.to_owned(), |n| write(&n, plan.format.unwrap_or_default(), plan))
        });
        let Some(user) = user else { continue };
        let known = |reason: &&str| REASONS.contains(reason);
        let reason = diverted.reason.as_deref().filter(known).unwrap_or("unknown");
        let counter = diverted.counter.unwrap_or(1).clamp(1, 99);
        let address = NameAddr::new(near_address(&user, host)?).to_value();
        rows.push((
            "Diversion".to_owned(),
            format!("{};reason={reason};counter={counter}", address.to_text()),
        ));
    }
    Ok(rows)
}

/// A signature holds for the two numbers it was made for (RFC 8224 section 4.1), so it goes on only with both.
fn identity(call: &CallIdentity<'_>, caller: &Caller, called: &Called) -> Vec<(String, String)> {
    let Some(inbound) = call.from_inbound else { return Vec::new() };
    let same = |ours: &Option<String>, theirs: &Option<String>| ours.is_some() && ours == theirs;
    if caller.withheld
        || !same(&caller.e164, &inbound.caller_e164)
        || !same(&called.e164, &inbound.called_e164)
    {
        return Vec::new();
    }
    inbound.identity.iter().map(|value| row("Identity", value)).collect()
}

/// Adds the trunk's own headers, those asked for, and those carried from the other leg; the first of a name stands.
fn carry(
    headers: &mut Vec<(String, String)>,
    call: &CallIdentity<'_>,
    trunk: &Trunk,
) -> Result<(), NumberError> {
    let pass = pass_list(trunk);
    for (name, value) in call.extra.iter().chain(&trunk.headers.add) {
        if !passing::may_be_set(name, value) {
            let name = name.chars().filter(char::is_ascii_graphic).take(64).collect();
            return Err(NumberError::Header(name));
        }
        add(headers, name, value);
    }
    let carried = call.from_inbound.map_or(&[][..], |inbound| &inbound.passed);
    for (name, value) in carried.iter().filter(|(name, _)| passing::may_pass(name, pass)) {
        if passing::may_be_set(name, value) {
            add(headers, name, value);
        }
    }
    Ok(())
}

fn add(headers: &mut Vec<(String, String)>, name: &str, value: &str) {
    if headers.len() < HEADERS_MAX && !headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
        headers.push((name.to_owned(), value.to_owned()));
    }
}

fn row(name: &str, value: &HeaderValue) -> (String, String) {
    (name.to_owned(), value.to_text().into_owned())
}

/// A display name without control characters, at most 64 characters.
fn shown(name: &str) -> String {
    name.trim().chars().filter(|c| !c.is_control()).take(64).collect()
}

/// RFC 3323 section 4.1.1.3.
const ANONYMOUS: &str = "sip:anonymous@anonymous.invalid";
/// User of From when nobody said who calls.
const NOBODY: &str = "tandem";
/// RFC 5806 section 4.
const REASONS: &[&str] = &[
    "unknown",
    "user-busy",
    "no-answer",
    "unavailable",
    "unconditional",
    "time-of-day",
    "do-not-disturb",
    "deflection",
    "follow-me",
    "out-of-service",
    "away",
];
const DIVERSIONS_MAX: usize = 8;
const HEADERS_MAX: usize = 64;
