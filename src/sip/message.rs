//! Messages: a request or a response, its headers in order, its body as octets.

use std::fmt;

use bytes::Bytes;

use super::headers::{HeaderError, HeaderName, HeaderValue, Headers};
use super::uri::Uri;

/// A request or a response.
#[derive(Debug, Clone)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// Of whom: the Request-URI.
    pub uri: Uri,
    /// The header rows in order. `Content-Length` is written by [`Request::to_bytes`] whatever stands here.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The reason phrase; may be empty.
    pub reason: HeaderValue,
    /// The header rows in order. `Content-Length` is written by [`Response::to_bytes`] whatever stands here.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

/// A SIP method. Method names are case-sensitive (RFC 3261 section 7.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Method {
    /// RFC 3261
    Invite,
    /// RFC 3261
    Ack,
    /// RFC 3261
    Bye,
    /// RFC 3261
    Cancel,
    /// RFC 3261
    Options,
    /// RFC 3261
    Register,
    /// RFC 3262
    Prack,
    /// RFC 6665
    Subscribe,
    /// RFC 6665
    Notify,
    /// RFC 3903
    Publish,
    /// RFC 6086
    Info,
    /// RFC 3515
    Refer,
    /// RFC 3428
    Message,
    /// RFC 3311
    Update,
    /// A method we have no name for; a token.
    Other(Box<str>),
}

/// A status code, 100 to 699.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusCode(u16);

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// A stream under TLS.
    Tls,
    /// WebSocket (RFC 7118).
    Ws,
    /// WebSocket under TLS (RFC 7118).
    Wss,
}

impl Message {
    /// The header rows.
    pub fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    /// The header rows, to change them.
    pub fn headers_mut(&mut self) -> &mut Headers {
        match self {
            Self::Request(request) => &mut request.headers,
            Self::Response(response) => &mut response.headers,
        }
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        match self {
            Self::Request(request) => &request.body,
            Self::Response(response) => &response.body,
        }
    }

    /// The message as it goes on the wire.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }
}

impl From<Request> for Message {
    fn from(request: Request) -> Self {
        Self::Request(request)
    }
}

impl From<Response> for Message {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

impl Request {
    /// A request without headers and body.
    pub fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, headers: Headers::new(), body: Bytes::new() }
    }

    /// Sets the body and its `Content-Type`.
    pub fn set_body(&mut self, content_type: &'static str, body: impl Into<Bytes>) {
        self.headers.replace(HeaderName::ContentType, HeaderValue::from_static(content_type));
        self.body = body.into();
    }

    /// The request as it goes on the wire, `Content-Length` exact and last.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.headers.wire_len() + self.body.len() + 128);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.uri.as_str().as_bytes());
        out.extend_from_slice(b" SIP/2.0\r\n");
        finish(out, &self.headers, &self.body)
    }
}

impl Response {
    /// A response without headers and body, with the usual reason phrase.
    pub fn new(status: StatusCode) -> Self {
        let reason = HeaderValue::from_static(status.default_reason());
        Self { status, reason, headers: Headers::new(), body: Bytes::new() }
    }

    /// The response to a request as RFC 3261 section 8.2.6 builds it: Via rows, From, To, Call-ID and CSeq
    /// copied; `to_tag` added to To when it has none and the status is not 100; Timestamp copied into a 100.
    /// Record-Route is left to the dialog.
    pub fn to_request(request: &Request, status: StatusCode, to_tag: Option<&str>) -> Self {
        let mut response = Self::new(status);
        response.headers.copy_response_headers(&request.headers, status, to_tag);
        response
    }

    /// Sets the reason phrase.
    #[must_use]
    pub fn with_reason(mut self, reason: HeaderValue) -> Self {
        self.reason = reason;
        self
    }

    /// Sets the body and its `Content-Type`.
    pub fn set_body(&mut self, content_type: &'static str, body: impl Into<Bytes>) {
        self.headers.replace(HeaderName::ContentType, HeaderValue::from_static(content_type));
        self.body = body.into();
    }

    /// The response as it goes on the wire, `Content-Length` exact and last.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.headers.wire_len() + self.body.len() + 128);
        out.extend_from_slice(b"SIP/2.0 ");
        push_number(&mut out, u64::from(self.status.get()));
        out.push(b' ');
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        finish(out, &self.headers, &self.body)
    }
}

impl Method {
    /// The method with this name.
    ///
    /// # Errors
    /// When the text is no token.
    pub fn parse(text: &[u8]) -> Result<Self, HeaderError> {
        Ok(match text {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"OPTIONS" => Self::Options,
            b"REGISTER" => Self::Register,
            b"PRACK" => Self::Prack,
            b"SUBSCRIBE" => Self::Subscribe,
            b"NOTIFY" => Self::Notify,
            b"PUBLISH" => Self::Publish,
            b"INFO" => Self::Info,
            b"REFER" => Self::Refer,
            b"MESSAGE" => Self::Message,
            b"UPDATE" => Self::Update,
            other => Self::Other(super::header::token(other).ok_or(HeaderError::NotAToken)?.into()),
        })
    }

    /// The method's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Options => "OPTIONS",
            Self::Register => "REGISTER",
            Self::Prack => "PRACK",
            Self::Subscribe => "SUBSCRIBE",
            Self::Notify => "NOTIFY",
            Self::Publish => "PUBLISH",
            Self::Info => "INFO",
            Self::Refer => "REFER",
            Self::Message => "MESSAGE",
            Self::Update => "UPDATE",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! statuses {
    ($($constant:ident $code:literal $reason:literal;)*) => {
        impl StatusCode {
            $(
                #[doc = concat!("`", $code, " ", $reason, "`")]
                pub const $constant: Self = Self($code);
            )*

            /// The usual reason phrase; for a code we have no phrase for, that of its class.
            pub fn default_reason(self) -> &'static str {
                match self.0 {
                    $($code => $reason,)*
                    100..=199 => "Progress",
                    200..=299 => "OK",
                    300..=399 => "Redirection",
                    400..=499 => "Request Failure",
                    500..=599 => "Server Failure",
                    _ => "Global Failure",
                }
            }
        }
    };
}

statuses! {
    TRYING 100 "Trying";
    RINGING 180 "Ringing";
    CALL_IS_BEING_FORWARDED 181 "Call Is Being Forwarded";
    QUEUED 182 "Queued";
    SESSION_PROGRESS 183 "Session Progress";
    EARLY_DIALOG_TERMINATED 199 "Early Dialog Terminated";
    OK 200 "OK";
    ACCEPTED 202 "Accepted";
    NO_NOTIFICATION 204 "No Notification";
    MULTIPLE_CHOICES 300 "Multiple Choices";
    MOVED_PERMANENTLY 301 "Moved Permanently";
    MOVED_TEMPORARILY 302 "Moved Temporarily";
    USE_PROXY 305 "Use Proxy";
    ALTERNATIVE_SERVICE 380 "Alternative Service";
    BAD_REQUEST 400 "Bad Request";
    UNAUTHORIZED 401 "Unauthorized";
    PAYMENT_REQUIRED 402 "Payment Required";
    FORBIDDEN 403 "Forbidden";
    NOT_FOUND 404 "Not Found";
    METHOD_NOT_ALLOWED 405 "Method Not Allowed";
    NOT_ACCEPTABLE 406 "Not Acceptable";
    PROXY_AUTHENTICATION_REQUIRED 407 "Proxy Authentication Required";
    REQUEST_TIMEOUT 408 "Request Timeout";
    GONE 410 "Gone";
    CONDITIONAL_REQUEST_FAILED 412 "Conditional Request Failed";
    REQUEST_ENTITY_TOO_LARGE 413 "Request Entity Too Large";
    REQUEST_URI_TOO_LONG 414 "Request-URI Too Long";
    UNSUPPORTED_MEDIA_TYPE 415 "Unsupported Media Type";
    UNSUPPORTED_URI_SCHEME 416 "Unsupported URI Scheme";
    BAD_EXTENSION 420 "Bad Extension";
    EXTENSION_REQUIRED 421 "Extension Required";
    SESSION_INTERVAL_TOO_SMALL 422 "Session Interval Too Small";
    INTERVAL_TOO_BRIEF 423 "Interval Too Brief";
    USE_IDENTITY_HEADER 428 "Use Identity Header";
    PROVIDE_REFERRER_IDENTITY 429 "Provide Referrer Identity";
    ANONYMITY_DISALLOWED 433 "Anonymity Disallowed";
    BAD_IDENTITY_INFO 436 "Bad Identity Info";
    UNSUPPORTED_CREDENTIAL 437 "Unsupported Credential";
    INVALID_IDENTITY_HEADER 438 "Invalid Identity Header";
    BAD_INFO_PACKAGE 469 "Bad Info Package";
    TEMPORARILY_UNAVAILABLE 480 "Temporarily Unavailable";
    CALL_DOES_NOT_EXIST 481 "Call/Transaction Does Not Exist";
    LOOP_DETECTED 482 "Loop Detected";
    TOO_MANY_HOPS 483 "Too Many Hops";
    ADDRESS_INCOMPLETE 484 "Address Incomplete";
    AMBIGUOUS 485 "Ambiguous";
    BUSY_HERE 486 "Busy Here";
    REQUEST_TERMINATED 487 "Request Terminated";
    NOT_ACCEPTABLE_HERE 488 "Not Acceptable Here";
    BAD_EVENT 489 "Bad Event";
    REQUEST_PENDING 491 "Request Pending";
    UNDECIPHERABLE 493 "Undecipherable";
    SECURITY_AGREEMENT_REQUIRED 494 "Security Agreement Required";
    SERVER_INTERNAL_ERROR 500 "Server Internal Error";
    NOT_IMPLEMENTED 501 "Not Implemented";
    BAD_GATEWAY 502 "Bad Gateway";
    SERVICE_UNAVAILABLE 503 "Service Unavailable";
    SERVER_TIMEOUT 504 "Server Time-out";
    VERSION_NOT_SUPPORTED 505 "Version Not Supported";
    MESSAGE_TOO_LARGE 513 "Message Too Large";
    BUSY_EVERYWHERE 600 "Busy Everywhere";
    DECLINE 603 "Decline";
    DOES_NOT_EXIST_ANYWHERE 604 "Does Not Exist Anywhere";
    NOT_ACCEPTABLE_ANYWHERE 606 "Not Acceptable";
    UNWANTED 607 "Unwanted";
    REJECTED 608 "Rejected";
}

impl StatusCode {
    /// The status with this number; `None` outside 100 to 699.
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            100..=699 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The hundreds: 1 to 6.
    pub const fn class(self) -> u16 {
        self.0 / 100
    }

    /// Whether this is a 1xx.
    pub const fn is_provisional(self) -> bool {
        self.0 < 200
    }

    /// Whether this is a 2xx.
    pub const fn is_success(self) -> bool {
        self.0 >= 200 && self.0 < 300
    }

    /// Whether this ends a transaction (2xx to 6xx).
    pub const fn is_final(self) -> bool {
        self.0 >= 200
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Transport {
    /// Whether the transport itself delivers or fails (everything but UDP), so that timers A, E, G are off.
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// Whether the transport hides what it carries.
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// As it stands in a Via: `UDP`.
    pub const fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// As it stands in a URI's `transport` parameter: `udp`.
    pub const fn uri_token(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The transport with this token, without regard to case.
    pub fn from_token(text: &str) -> Option<Self> {
        [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss]
            .into_iter()
            .find(|transport| transport.uri_token().eq_ignore_ascii_case(text))
    }

    /// The port meant when none is written.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri_token())
    }
}

fn finish(mut out: Vec<u8>, headers: &Headers, body: &Bytes) -> Bytes {
    headers.write_without(HeaderName::ContentLength, &mut out);
    out.extend_from_slice(b"Content-Length: ");
    push_number(&mut out, body.len() as u64);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
    out.into()
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{CSeq, Limits, NameAddr, Via, parse_datagram};
    use rsip::prelude::{HasHeaders, HeadersExt, ToTypedHeader, UntypedHeader};

    fn invite() -> Request {
        let uri = |text| NameAddr::new(Uri::parse(text).unwrap());
        let mut request = Request::new(Method::Invite, Uri::parse("sip:+15550100@198.51.100.20").unwrap());
        let headers = &mut request.headers;
        headers
            .push(HeaderName::Via, Via::new(Transport::Udp, "203.0.113.1", Some(5060), "z9hG4bKa").unwrap());
        headers.push(HeaderName::MaxForwards, 70);
        headers.push(HeaderName::From, uri("sip:a@b.example").with_display_name("A B").with_tag("f1"));
        headers.push(HeaderName::To, uri("sip:+15550100@198.51.100.20"));
        headers.push(HeaderName::CallId, HeaderValue::from_static("call@203.0.113.1"));
        headers.push(HeaderName::CSeq, CSeq::new(7, Method::Invite));
        headers.push(HeaderName::Contact, uri("sip:a@203.0.113.1:5060"));
        request.set_body("application/sdp", "v=0\r\n");
        request
    }

    #[test]
    fn an_independent_reader_understands_what_we_print() {
        let printed = invite().to_bytes();
        let read = rsip::Request::try_from(printed.as_ref()).unwrap();
        assert_eq!(read.method, rsip::Method::Invite);
        assert_eq!(read.uri.to_string(), "sip:+15550100@198.51.100.20");
        assert_eq!(read.call_id_header().unwrap().value(), "call@203.0.113.1");
        assert_eq!(read.cseq_header().unwrap().seq().unwrap(), 7);
        assert_eq!(read.from_header().unwrap().tag().unwrap().unwrap().value(), "f1");
        assert_eq!(read.via_header().unwrap().typed().unwrap().branch().unwrap().value(), "z9hG4bKa");
        assert_eq!(read.headers().iter().count(), 9);
        assert_eq!(read.body, b"v=0\r\n");

        let response = Response::to_request(&invite(), StatusCode::RINGING, Some("t1"));
        let read = rsip::Response::try_from(response.to_bytes().as_ref()).unwrap();
        assert_eq!(read.status_code.code(), 180);
        assert_eq!(read.to_header().unwrap().tag().unwrap().unwrap().value(), "t1");
    }

    #[test]
    fn content_length_is_exact_whatever_the_headers_say() {
        let mut request = invite();
        request.headers.push(HeaderName::ContentLength, 99);
        let printed = String::from_utf8(request.to_bytes().to_vec()).unwrap();
        assert!(printed.ends_with("Content-Length: 5\r\n\r\nv=0\r\n"), "{printed}");
        assert_eq!(printed.matches("Content-Length").count(), 1);
    }

    #[test]
    fn a_response_carries_what_rfc_3261_copies() {
        let mut request = invite();
        request.headers.push(HeaderName::Timestamp, HeaderValue::from_static("54"));
        let trying = Response::to_request(&request, StatusCode::TRYING, Some("t"));
        assert_eq!(trying.headers.to().unwrap().tag(), None);
        assert_eq!(trying.headers.get("timestamp"), Some(&b"54"[..]));
        let ok = Response::to_request(&request, StatusCode::OK, Some("t"));
        assert_eq!(ok.headers.to().unwrap().tag(), Some("t"));
        let names: Vec<_> = ok.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Via", "From", "To", "Call-ID", "CSeq"]);
    }

    #[test]
    fn statuses_have_classes_and_phrases() {
        assert_eq!(StatusCode::new(299).map(StatusCode::default_reason), Some("OK"));
        assert_eq!(StatusCode::new(700), None);
        assert!(StatusCode::RINGING.is_provisional() && StatusCode::DECLINE.is_final());
    }

    proptest::proptest! {
        #[test]
        fn parse_and_print_are_inverse(
            method in "[A-Z]{1,8}",
            user in "[a-zA-Z0-9+%;=]{0,12}",
            display in "\\PC{0,16}",
            rows in proptest::collection::vec(("X-[A-Za-z0-9]{1,10}", "[ -~\u{80}-\u{ff}]{0,30}"), 0..10),
            body in proptest::collection::vec(proptest::num::u8::ANY, 0..100),
        ) {
            let mut request = invite();
            request.method = Method::parse(method.as_bytes()).unwrap();
            request.uri = Uri::sip(&user, "example.com", None).unwrap();
            request.headers.replace(HeaderName::CSeq, CSeq::new(1, request.method.clone()));
            let to = request.headers.to().unwrap().with_display_name(&display);
            request.headers.replace(HeaderName::To, &to);
            for (name, value) in &rows {
                request.headers.push_named(name, HeaderValue::new(value.trim()).unwrap()).unwrap();
            }
            request.body = body.into();
            let printed = request.to_bytes();
            let read = parse_datagram(&printed, &Limits::default()).unwrap();
            proptest::prop_assert_eq!(read.to_bytes(), printed);
            let Message::Request(read) = read else { panic!("a response") };
            proptest::prop_assert_eq!(&read.uri, &request.uri);
            proptest::prop_assert_eq!(&read.body, &request.body);
            proptest::prop_assert_eq!(read.headers.to().unwrap(), to);
        }
    }
}
