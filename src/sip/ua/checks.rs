//! What a request must be before anybody acts on it (RFC 3261 section 8.2), and which answer it earns otherwise.

use bytes::Bytes;

use super::reply::{OPTIONS, accept, allow};
use crate::sip::headers::{HeaderName, HeaderValue, Headers};
use crate::sip::message::{Method, Request, StatusCode};
use crate::sip::negotiation::{self, BodyError};
use crate::sip::uri::Scheme;

/// A refusal: a status and the headers that explain it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn bare(status: StatusCode) -> Self {
        Self { status, headers: Vec::new() }
    }

    pub(super) fn with(status: StatusCode, name: HeaderName, value: HeaderValue) -> Self {
        Self { status, headers: vec![(name, value)] }
    }
}

/// Method, URI scheme and required extensions, in the order of section 8.2. `in_dialog` tells whether the request
/// names a dialog.
pub(super) fn check(request: &Request, in_dialog: bool) -> Result<(), Refusal> {
    check_method(&request.method, in_dialog)?;
    if request.uri.scheme() == Scheme::Other {
        return Err(Refusal::bare(StatusCode::UNSUPPORTED_URI_SCHEME));
    }
    // 0 to 255 (section 20.22); old elements leave it out.
    let hops = request.headers.number(HeaderName::MaxForwards);
    if !matches!(hops, Ok(None | Some(0..=255))) {
        return Err(Refusal::bare(StatusCode::BAD_REQUEST));
    }
    check_required(request)
}

fn check_method(method: &Method, in_dialog: bool) -> Result<(), Refusal> {
    let status = match method {
        Method::Invite | Method::Ack | Method::Cancel | Method::Bye | Method::Options | Method::Info => {
            return Ok(());
        }
        Method::Update | Method::Prack => return Ok(()),
        Method::Refer | Method::Notify if in_dialog => return Ok(()),
        // No subscription exists whose notification this could be.
        Method::Notify => StatusCode::CALL_DOES_NOT_EXIST,
        Method::Subscribe | Method::Publish => {
            // Its own dialog comes of REFER alone (RFC 6665 section 8.3.1).
            let none = HeaderValue::from_static("refer");
            return Err(Refusal::with(StatusCode::BAD_EVENT, HeaderName::AllowEvents, none));
        }
        // A transfer of a call nobody knows here would let anybody place calls.
        Method::Refer => StatusCode::FORBIDDEN,
        Method::Register | Method::Message => {
            return Err(Refusal::with(StatusCode::METHOD_NOT_ALLOWED, HeaderName::Allow, allow()));
        }
        Method::Other(_) => {
            return Err(Refusal::with(StatusCode::NOT_IMPLEMENTED, HeaderName::Allow, allow()));
        }
    };
    Err(Refusal::bare(status))
}

/// Section 8.2.2.3: a tag we do not know is told back. ACK and CANCEL are never refused for it.
fn check_required(request: &Request) -> Result<(), Refusal> {
    if matches!(request.method, Method::Ack | Method::Cancel) {
        return Ok(());
    }
    let Ok(required) = request.headers.require() else {
        return Err(Refusal::bare(StatusCode::BAD_REQUEST));
    };
    let known = |tag: &&str| OPTIONS.iter().any(|ours| ours.eq_ignore_ascii_case(tag));
    let unknown: Vec<&str> = required.into_iter().filter(|tag| !known(tag)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let unsupported = HeaderValue::cleaned(unknown.join(", "));
    Err(Refusal::with(StatusCode::BAD_EXTENSION, HeaderName::Unsupported, unsupported))
}

/// The session description of an INVITE, UPDATE, ACK or response, if it brings one (sections 8.2.3, 13.3.1).
///
/// # Errors
/// 415 or 400 for a body we must understand and do not.
pub(super) fn session_description(headers: &Headers, body: &Bytes) -> Result<Option<Vec<u8>>, Refusal> {
    // Old gateways leave the type out.
    if !headers.contains(HeaderName::ContentType) && body.starts_with(b"v=0") {
        return Ok(Some(body.to_vec()));
    }
    match negotiation::session_description(headers, body) {
        Ok(found) => Ok(found.map(|sdp| sdp.to_vec())),
        Err(error @ BodyError::Encoding) => {
            let identity = HeaderValue::from_static("identity");
            Err(Refusal::with(error.status(), HeaderName::AcceptEncoding, identity))
        }
        Err(error) => Err(Refusal::with(error.status(), HeaderName::Accept, accept())),
    }
}

/// Section 21.4.7: a caller that does not take SDP cannot be answered.
pub(super) fn check_accept(headers: &Headers) -> Result<(), Refusal> {
    let mut any = false;
    for value in headers.values(HeaderName::Accept) {
        any = true;
        let kind = value.split(|b| *b == b';').next().unwrap_or_default();
        let kind = String::from_utf8_lossy(kind).trim().to_ascii_lowercase();
        if matches!(kind.as_str(), "application/sdp" | "application/*" | "*/*") {
            return Ok(());
        }
    }
    if any { Err(Refusal::bare(StatusCode::NOT_ACCEPTABLE)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Uri;

    fn headers(rows: &[(HeaderName, &'static str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in rows {
            headers.push(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn verdict(method: &str, uri: &str, require: Option<&'static str>, in_dialog: bool) -> u16 {
        let method = Method::parse(method.as_bytes()).expect("a method");
        let mut request = Request::new(method, Uri::parse(uri).expect("a URI"));
        if let Some(tags) = require {
            request.headers.push(HeaderName::Require, HeaderValue::from_static(tags));
        }
        check(&request, in_dialog).err().map_or(200, |refusal| refusal.status.get())
    }

    #[test]
    fn methods_earn_what_the_rfcs_say() {
        for (method, in_dialog, status) in [
            ("INVITE", false, 200),
            ("REGISTER", false, 405),
            ("MESSAGE", false, 405),
            ("SUBSCRIBE", false, 489),
            ("PUBLISH", false, 489),
            ("NOTIFY", false, 481),
            ("NOTIFY", true, 200),
            ("REFER", false, 403),
            ("REFER", true, 200),
            ("DANCE", false, 501),
        ] {
            assert_eq!(verdict(method, "sip:a@b", None, in_dialog), status, "{method}");
        }
    }

    #[test]
    fn unknown_schemes_and_extensions_are_refused() {
        assert_eq!(verdict("INVITE", "nobodyKnowsThis:x", None, false), 416);
        assert_eq!(verdict("OPTIONS", "tel:+15550100", None, false), 200);
        assert_eq!(verdict("INVITE", "sip:a@b", Some("timer, Precondition"), false), 420);
        assert_eq!(verdict("CANCEL", "sip:a@b", Some("anything"), false), 200);
    }

    #[test]
    fn a_description_is_taken_with_its_type_and_without() {
        let read = |kind: Option<&'static str>, body: &'static [u8]| {
            let rows: Vec<_> = kind.map(|kind| (HeaderName::ContentType, kind)).into_iter().collect();
            session_description(&headers(&rows), &Bytes::from_static(body))
        };
        assert_eq!(read(Some("application/sdp"), b"v=0\r\n"), Ok(Some(b"v=0\r\n".to_vec())));
        assert_eq!(read(None, b"v=0\r\n"), Ok(Some(b"v=0\r\n".to_vec())));
        assert_eq!(read(Some("application/sdp"), b""), Ok(None));
        let refusal = read(Some("text/plain"), b"hello").expect_err("it is no SDP");
        assert_eq!(refusal.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(refusal.headers[0].0, HeaderName::Accept);
    }

    #[test]
    fn a_caller_that_takes_no_sdp_cannot_be_answered() {
        assert!(check_accept(&headers(&[(HeaderName::Accept, "text/plain")])).is_err());
        assert!(
            check_accept(&headers(&[(HeaderName::Accept, "text/plain, application/sdp;level=1")])).is_ok()
        );
        assert!(check_accept(&headers(&[])).is_ok());
    }
}
