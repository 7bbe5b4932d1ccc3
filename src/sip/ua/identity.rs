//! Who calls whom, from the places the trunk's profile trusts.

use crate::sip::header::name_addr::NameAddr;
use crate::sip::headers::{HeaderName, Headers};
use crate::sip::message::Request;
use crate::sip::profile::{CalledFrom, CallerFrom, Profile};

/// The number or user dialled; empty when there is none.
pub(super) fn called(request: &Request, profile: &Profile) -> String {
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
pub(super) fn caller(headers: &Headers, profile: &Profile) -> (Option<String>, Option<String>) {
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

fn claim(headers: &Headers, place: CallerFrom) -> Option<NameAddr> {
    match place {
        CallerFrom::PAssertedIdentity => {
            headers.addresses(HeaderName::PAssertedIdentity).ok()?.into_iter().next()
        }
        CallerFrom::RemotePartyId => headers.addresses(HeaderName::RemotePartyId).ok()?.into_iter().next(),
        CallerFrom::From => headers.from().ok(),
    }
}

/// `Privacy: id` (RFC 3325), `user` or `header` (RFC 3323).
fn asks_for_privacy(headers: &Headers) -> bool {
    headers.rows(HeaderName::Privacy).any(|row| {
        let mut wishes = row.split(|b| matches!(b, b';' | b','));
        wishes.any(|wish| {
            ["id", "user", "header"].iter().any(|w| wish.trim_ascii().eq_ignore_ascii_case(w.as_bytes()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::headers::HeaderValue;
    use crate::sip::message::Method;
    use crate::sip::uri::Uri;

    fn request(rows: &[(HeaderName, &'static str)]) -> Request {
        let uri = Uri::parse("sip:+1-555-0111@198.51.100.20").expect("a URI");
        let mut request = Request::new(Method::Invite, uri);
        for (name, value) in rows {
            request.headers.push(*name, HeaderValue::from_static(value));
        }
        request
    }

    fn twilio() -> std::sync::Arc<Profile> {
        Profile::builtin("twilio").expect("it ships")
    }

    #[test]
    fn the_dialled_number_comes_without_separators() {
        assert_eq!(called(&request(&[]), &twilio()), "+15550111");
    }

    #[test]
    fn the_asserted_identity_wins_where_it_is_trusted() {
        let rows = [
            (HeaderName::From, "\"Fake\" <sip:+19990000@x>;tag=1"),
            (HeaderName::PAssertedIdentity, "<sip:+15550122@206.147.76.45:5060>"),
        ];
        let headers = request(&rows).headers;
        assert_eq!(caller(&headers, &twilio()).0.as_deref(), Some("+15550122"));
        assert_eq!(caller(&headers, &Profile::default()).0.as_deref(), Some("+19990000"));
    }

    #[test]
    fn a_withheld_number_is_none() {
        for from in ["<sip:Anonymous@anonymous.invalid>;tag=1", "<sip:+266696687@x>;tag=1", "<sip:x.y>;tag=1"]
        {
            assert_eq!(
                caller(&request(&[(HeaderName::From, from)]).headers, &twilio()),
                (None, None),
                "{from}"
            );
        }
        let private = request(&[(HeaderName::From, "<sip:+15550122@x>;tag=1"), (HeaderName::Privacy, "id")]);
        assert_eq!(caller(&private.headers, &twilio()), (None, None));
    }
}
