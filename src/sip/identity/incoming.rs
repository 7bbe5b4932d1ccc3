//! Reading who calls whom from an INVITE.

use std::borrow::Cow;

use super::numbers::{NumberPolicy, e164};
use super::{IncomingIdentity, diversion, passing};
use crate::sip::header::name_addr::NameAddr;
use crate::sip::headers::{HeaderName, HeaderValue, Headers};
use crate::sip::message::Request;
use crate::sip::profile::{CalledFrom, CallerFrom, Profile, Verstat};
use crate::sip::trunk::Trunk;

/// Who calls whom, from the places the trunk's profile trusts. What cannot be read is left out: an INVITE is not
/// refused for its identity headers.
pub fn incoming(request: &Request, trunk: &Trunk) -> IncomingIdentity {
    let (headers, profile) = (&request.headers, &trunk.profile);
    let plan = plan(trunk);
    let called = called(request, profile);
    let called_e164 = e164(&called, &plan);
    let (caller, caller_name) = caller(headers, profile);
    let mut diversions = diversion::diversions(headers, &plan);
    // Carriers note the called number itself on ordinary calls; nobody sent such a call on.
    let own = called_e164.as_ref().unwrap_or(&called);
    diversions.retain(|diverted| diverted.number.as_ref() != Some(own));
    IncomingIdentity {
        caller_e164: caller.as_deref().and_then(|caller| e164(caller, &plan)),
        called_e164,
        called,
        caller,
        caller_name,
        verstat: verstat(headers, profile),
        diversions,
        identity: headers.rows(HeaderName::Identity).take(IDENTITY_MAX).map(HeaderValue::cleaned).collect(),
        passed: passing::passed(headers, pass_list(trunk), &trunk.headers.rename),
        privacy: asks_for_privacy(headers),
    }
}

/// The trunk's number plan, its format filled in from the profile.
pub(super) fn plan(trunk: &Trunk) -> Cow<'_, NumberPolicy> {
    match trunk.numbers.format {
        Some(_) => Cow::Borrowed(&trunk.numbers),
        None => {
            Cow::Owned(NumberPolicy { format: Some(trunk.profile.number_format), ..trunk.numbers.clone() })
        }
    }
}

/// The headers that may be carried to and from another leg.
pub(super) fn pass_list(trunk: &Trunk) -> &[String] {
    trunk.headers.pass.as_deref().unwrap_or(&trunk.profile.pass_headers)
}

/// The number or user dialled; empty when there is none.
fn called(request: &Request, profile: &Profile) -> String {
    let user = |address: Option<NameAddr>| address.and_then(|address| address.uri.dialled());
    let headers = &request.headers;
    let found = match profile.called_from {
        CalledFrom::RequestUri => None,
        CalledFrom::To => user(headers.to().ok()),
        CalledFrom::PCalledPartyId => {
            user(headers.get("P-Called-Party-ID").and_then(|value| NameAddr::parse(value).ok()))
        }
    };
    found.or_else(|| request.uri.dialled()).unwrap_or_default()
}

/// The caller's number or user and display name; no number when it is withheld.
fn caller(headers: &Headers, profile: &Profile) -> (Option<String>, Option<String>) {
    let Some(address) = profile.caller_from.iter().find_map(|place| claim(headers, *place)) else {
        return (None, None);
    };
    let number = address.uri.dialled().filter(|user| !profile.is_anonymous(user));
    let withheld = number.is_none() || asks_for_privacy(headers);
    if withheld {
        return (None, None);
    }
    (number, address.display_name().filter(|name| !name.trim().is_empty()))
}

/// Of the two identities that may be asserted (RFC 3325 section 9.1), one that has a number.
fn claim(headers: &Headers, place: CallerFrom) -> Option<NameAddr> {
    let asserted = |name| {
        let mut all = headers.addresses(name).ok()?;
        let numbered = all.iter().position(|address| address.uri.dialled().is_some());
        (!all.is_empty()).then(|| all.swap_remove(numbered.unwrap_or(0)))
    };
    match place {
        CallerFrom::PAssertedIdentity => asserted(HeaderName::PAssertedIdentity),
        CallerFrom::RemotePartyId => asserted(HeaderName::RemotePartyId),
        CallerFrom::From => headers.from().ok(),
    }
}

/// `Privacy: id` (RFC 3325), `user` or `header` (RFC 3323), or a Remote-Party-ID that says so.
fn asks_for_privacy(headers: &Headers) -> bool {
    let wished = headers.rows(HeaderName::Privacy).any(|row| {
        let mut wishes = row.split(|b| matches!(b, b';' | b','));
        wishes.any(|wish| {
            ["id", "user", "header"].iter().any(|w| wish.trim_ascii().eq_ignore_ascii_case(w.as_bytes()))
        })
    });
    wished
        || claim(headers, CallerFrom::RemotePartyId).is_some_and(|party| {
            party.params.get_text("privacy").is_some_and(|privacy| !privacy.eq_ignore_ascii_case("off"))
        })
}

/// What the peer says the caller's number is worth. Only a word is taken: it goes into records.
fn verstat(headers: &Headers, profile: &Profile) -> Option<String> {
    let text = match profile.verstat {
        Verstat::None => return None,
        Verstat::XTwilioVerstat => headers.get_str("X-Twilio-VerStat")?.to_owned(),
        Verstat::XPlivo => headers.get_str("X-Plivo-Stir-Verification")?.to_owned(),
        Verstat::PaiParam => {
            let asserted = headers.addresses(HeaderName::PAssertedIdentity).unwrap_or_default();
            asserted.iter().find_map(verstat_param).or_else(|| verstat_param(&headers.from().ok()?))?
        }
    };
    let text = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == ' ';
    (!text.is_empty() && text.len() <= VERSTAT_OCTETS_MAX && text.chars().all(fits)).then(|| text.to_owned())
}

/// A parameter of the URI, or of the number within its user part (ATIS-1000074).
fn verstat_param(address: &NameAddr) -> Option<String> {
    let of_user = |user: &str| {
        user.split(';').find_map(|param| {
            let (name, value) = param.split_once('=')?;
            name.eq_ignore_ascii_case("verstat").then(|| value.to_owned())
        })
    };
    let of_header = || address.params.get_text("verstat");
    let uri = &address.uri;
    uri.param("verstat").map(str::to_owned).or_else(|| of_user(&uri.user_decoded()?)).or_else(of_header)
}

const IDENTITY_MAX: usize = 8;
const VERSTAT_OCTETS_MAX: usize = 64;
