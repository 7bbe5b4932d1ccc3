//! Bytes to message.
//!
//! One pass finds lines, a second look checks what every message must have, both linear and without
//! recursion. What is refused comes back with everything that was readable, so that an error can be
//! answered without state.

use bytes::Bytes;

use super::header::{Malformed, access, clamped_number, cseq, list_values, name_addr, trim, via};
use super::headers::{HeaderError, HeaderName, HeaderValue, Headers, Name, WireName};
use super::limits::Limits;
use super::message::{Message, Method, Request, Response, StatusCode};
use super::uri::{Uri, UriError};

/// Reads the message of one datagram. Octets after the declared body are dropped; without Content-Length
/// the body is the rest (RFC 3261 section 18.3).
///
/// # Errors
/// When it is no SIP message, breaks the grammar where a UA must care, or exceeds a limit.
pub fn parse_datagram(datagram: &[u8], limits: &Limits) -> Result<Message, ParseError> {
    if datagram.len() > limits.message_bytes {
        let kept = &datagram[..limits.message_bytes.min(HEAD_KEPT_FOR_REPLY)];
        let head = read_head(Bytes::copy_from_slice(kept), limits);
        return Err(ParseError::of(ParseProblem::TooLarge, head.partial));
    }
    let wire = Bytes::copy_from_slice(datagram);
    parse_message(wire, limits)
}

/// Reads one message that fills `wire`, without copying it. `wire` must be shorter than 4 GiB.
///
/// # Errors
/// As [`parse_datagram`].
pub fn parse_message(wire: Bytes, limits: &Limits) -> Result<Message, ParseError> {
    let head = read_head(wire.clone(), limits);
    let Head { partial, body_at, problem } = head;
    match problem.map_or_else(|| check(&partial, limits), Err) {
        Ok(()) => finish(partial, wire, body_at),
        Err(problem) => Err(ParseError::of(problem, partial)),
    }
}

/// Octets that are no message we take, and what was readable of them.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
pub struct ParseError {
    /// What is wrong.
    pub problem: ParseProblem,
    partial: Box<Partial>,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseProblem {
    /// There is no start line of SIP at all: noise, or another protocol.
    #[error("not SIP")]
    NotSip,
    /// The start line is broken.
    #[error("start line: {0}")]
    StartLine(&'static str),
    /// The Request-URI is broken.
    #[error("Request-URI: {0}")]
    RequestUri(UriError),
    /// The version is not 2.0.
    #[error("a SIP version other than 2.0")]
    Version,
    /// The start line exceeds [`Limits::start_line_bytes`].
    #[error("the start line is too long")]
    StartLineTooLong,
    /// A header row is broken.
    #[error("header row: {0}")]
    Row(&'static str),
    /// A header is missing, repeated or broken.
    #[error("{0}")]
    Header(HeaderError),
    /// There are more of something than [`Limits`] allows.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// The message exceeds [`Limits::message_bytes`].
    #[error("the message is too large")]
    TooLarge,
    /// The message exceeds [`Limits::message_bytes`], on a stream, which is closed.
    #[error("the message is too large")]
    TooLargeForStream,
    /// Content-Length is missing on a stream, broken, contradictory, or larger than the datagram.
    #[error("Content-Length: {0}")]
    ContentLength(&'static str),
    /// The method of CSeq is not that of the request.
    #[error("the method of CSeq is not the request's")]
    MethodMismatch,
}

impl ParseError {
    fn of(problem: ParseProblem, partial: Partial) -> Self {
        Self { problem, partial: Box::new(partial) }
    }

    /// The status to answer with; `None` when the octets are to be discarded, because they are a response,
    /// an ACK, or not SIP.
    pub fn status(&self) -> Option<StatusCode> {
        match &self.partial.start {
            Start::Request { method: Some(method), .. } if *method != Method::Ack => {}
            _ => return None,
        }
        Some(match self.problem {
            ParseProblem::NotSip => return None,
            ParseProblem::Version => StatusCode::VERSION_NOT_SUPPORTED,
            ParseProblem::StartLineTooLong => StatusCode::REQUEST_URI_TOO_LONG,
            ParseProblem::TooLarge => StatusCode::REQUEST_ENTITY_TOO_LARGE,
            ParseProblem::TooLargeForStream => StatusCode::MESSAGE_TOO_LARGE,
            ParseProblem::StartLine(_)
            | ParseProblem::RequestUri(_)
            | ParseProblem::Row(_)
            | ParseProblem::Header(_)
            | ParseProblem::TooMany(_)
            | ParseProblem::ContentLength(_)
            | ParseProblem::MethodMismatch => StatusCode::BAD_REQUEST,
        })
    }

    /// The method of the request, when it could be read.
    pub fn method(&self) -> Option<&Method> {
        match &self.partial.start {
            Start::Request { method, .. } => method.as_ref(),
            Start::Response { .. } | Start::Unknown => None,
        }
    }

    /// Whether the octets are a response, or something like it.
    pub fn is_response(&self) -> bool {
        matches!(self.partial.start, Start::Response { .. })
    }

    /// The header rows that could be read.
    pub fn headers(&self) -> &Headers {
        &self.partial.headers
    }

    /// The answer to send, made of what was readable: Via rows as they came, the first From, To (with
    /// `to_tag` when it has none), Call-ID and CSeq, and a reason phrase that names the problem. `None` when
    /// nothing is to be answered, or no Via tells where to.
    ///
    /// No state is needed, nor kept. A Via that cannot be read is copied as it came; send to the source of
    /// the datagram then.
    pub fn reply(&self, to_tag: &str) -> Option<Response> {
        self.reply_with(self.status()?, to_tag)
    }

    /// As [`ParseError::reply`], with a status of the caller's choice (513 for a stream).
    pub fn reply_with(&self, status: StatusCode, to_tag: &str) -> Option<Response> {
        self.status()?;
        if !self.headers().contains(HeaderName::Via) {
            return None;
        }
        let mut response = Response::new(status);
        response.headers.copy_response_headers(self.headers(), status, Some(to_tag));
        if status == StatusCode::BAD_REQUEST {
            response.reason = HeaderValue::cleaned(format!("Bad Request ({self})"));
        }
        Some(response)
    }
}

/// What was readable of a message.
#[derive(Debug, Clone)]
struct Partial {
    start: Start,
    headers: Headers,
}

#[derive(Debug, Clone)]
enum Start {
    Unknown,
    Request { method: Option<Method>, uri: Option<Uri> },
    Response { status: Option<StatusCode>, reason: HeaderValue },
}

struct Head {
    partial: Partial,
    body_at: usize,
    problem: Option<ParseProblem>,
}

fn finish(partial: Partial, wire: Bytes, body_at: usize) -> Result<Message, ParseError> {
    let length = match content_length(&partial.headers) {
        Ok(length) => length.unwrap_or(wire.len() - body_at),
        Err(problem) => return Err(ParseError::of(problem, partial)),
    };
    if length > wire.len() - body_at {
        let problem = ParseProblem::ContentLength("more than what came");
        return Err(ParseError::of(problem, partial));
    }
    let body = wire.slice(body_at..body_at + length);
    let Partial { start, headers } = partial;
    match start {
        Start::Request { method: Some(method), uri: Some(uri) } => {
            Ok(Message::Request(Request { method, uri, headers, body }))
        }
        Start::Response { status: Some(status), reason } => {
            Ok(Message::Response(Response { status, reason, headers, body }))
        }
        start => Err(ParseError::of(ParseProblem::NotSip, Partial { start, headers })),
    }
}

/// Start line and rows. On a problem within the rows the reading goes on as far as it can, so that what
/// follows (a Via, a Call-ID) is there for the reply.
fn read_head(wire: Bytes, limits: &Limits) -> Head {
    let mut head = Head {
        partial: Partial { start: Start::Unknown, headers: Headers::over(wire.clone(), 32) },
        body_at: wire.len(),
        problem: None,
    };
    let start = wire.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    if start > limits.leading_blank_bytes {
        head.problem = Some(ParseProblem::NotSip);
        return head;
    }
    let Some(line) = Line::at(&wire, start) else {
        head.problem = Some(ParseProblem::NotSip);
        return head;
    };
    let text = &wire[line.start..line.end];
    let (begin, problem) = match text.len() > limits.start_line_bytes {
        true => (method_only(text), Some(ParseProblem::StartLineTooLong)),
        false => read_start_line(text),
    };
    head.partial.start = begin;
    head.problem = problem;
    read_rows(&wire, line.next, limits, &mut head);
    head
}

fn read_rows(wire: &[u8], mut at: usize, limits: &Limits, head: &mut Head) {
    let mut rows = 0;
    while let Some(line) = Line::at(wire, at) {
        at = line.next;
        if line.start == line.end {
            head.body_at = line.next;
            return;
        }
        let (last, folded) = last_line_of_row(wire, &line);
        at = at.max(last.next);
        rows += 1;
        if rows > limits.header_rows {
            head.problem = head.problem.or(Some(ParseProblem::TooMany("header rows")));
            return;
        }
        let row = match last.end - line.start > limits.header_line_bytes {
            true => Err(ParseProblem::Row("too long")),
            false => read_row(wire, &line, folded.then_some(last.end), &mut head.partial.headers),
        };
        if let Err(problem) = row {
            head.problem = head.problem.or(Some(problem));
        }
    }
    // A datagram may end after its last row: nothing follows, so nothing is lost.
    head.body_at = wire.len();
}

/// The last line of the row that starts with `first`, which may be folded over several (section 7.3.1).
fn last_line_of_row(wire: &[u8], first: &Line) -> (Line, bool) {
    let mut last = Line { ..*first };
    let mut folded = false;
    while let Some(b' ' | b'\t') = wire.get(last.next) {
        match Line::at(wire, last.next) {
            Some(line) => last = line,
            None => break,
        }
        folded = true;
    }
    (last, folded)
}

fn read_row(
    wire: &[u8],
    line: &Line,
    folded_end: Option<usize>,
    headers: &mut Headers,
) -> Result<(), ParseProblem> {
    let text = &wire[line.start..line.end];
    let name_end = text.iter().position(|b| !super::header::is_token_byte(*b)).unwrap_or(text.len());
    let colon = name_end + text[name_end..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    if name_end == 0 || text.get(colon) != Some(&b':') {
        return Err(ParseProblem::Row("no name, or no colon after it"));
    }
    let name = match Name::from_bytes(&text[..name_end]) {
        Name::Known(known) => WireName::Known(known),
        Name::Other(_) => WireName::Other(line.start, line.start + name_end),
    };
    let value_start = line.start + colon + 1;
    if let Some(end) = folded_end {
        headers.push_unfolded(name, unfold(&wire[value_start..end])?);
        return Ok(());
    }
    if line.bare_cr {
        return Err(ParseProblem::Row("a CR without LF"));
    }
    let value = &wire[value_start..line.end];
    let start = value_start + value.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    headers.push_wire(name, (start, start + trim(value).len()));
    Ok(())
}

/// Every fold with the white space around it becomes one space.
fn unfold(text: &[u8]) -> Result<Vec<u8>, ParseProblem> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split(|b| *b == b'\n') {
        let line = trim(line.strip_suffix(b"\r").unwrap_or(line));
        if line.contains(&b'\r') {
            return Err(ParseProblem::Row("a CR without LF"));
        }
        if !out.is_empty() && !line.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(line);
    }
    Ok(out)
}

fn read_start_line(line: &[u8]) -> (Start, Option<ParseProblem>) {
    if line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
        return read_status_line(line);
    }
    let mut parts = line.split(|b| *b == b' ');
    let method = parts.next().and_then(|method| Method::parse(method).ok());
    let (Some(uri), Some(version)) = (parts.next(), line.rsplit(|b| matches!(b, b' ' | b'\t')).next()) else {
        return (Start::Unknown, Some(ParseProblem::NotSip));
    };
    let Some(method) = method else {
        return (Start::Unknown, Some(ParseProblem::NotSip));
    };
    let refuse = |method, problem| (Start::Request { method: Some(method), uri: None }, Some(problem));
    if version.is_empty() {
        return refuse(method, ParseProblem::StartLine("white space at its end"));
    }
    if version.len() < 4 || !version[..4].eq_ignore_ascii_case(b"SIP/") {
        return (Start::Unknown, Some(ParseProblem::NotSip));
    }
    if &version[4..] != b"2.0" {
        return refuse(method, ParseProblem::Version);
    }
    if parts.count() != 1 {
        return refuse(method, ParseProblem::StartLine("more than two spaces"));
    }
    match Uri::parse(uri) {
        Ok(uri) if !uri.headers_text().is_empty() => {
            refuse(method, ParseProblem::RequestUri(UriError("headers are not allowed here")))
        }
        Ok(uri) => (Start::Request { method: Some(method), uri: Some(uri) }, None),
        Err(error) => refuse(method, ParseProblem::RequestUri(error)),
    }
}

fn read_status_line(line: &[u8]) -> (Start, Option<ParseProblem>) {
    let broken = Start::Response { status: None, reason: HeaderValue::default() };
    let mut parts = line[4..].splitn(3, |b| *b == b' ');
    if parts.next() != Some(b"2.0") {
        return (broken, Some(ParseProblem::Version));
    }
    let code = parts.next().unwrap_or_default();
    let number = if code.len() == 3 { clamped_number(code).ok() } else { None };
    let Some(status) = number.and_then(|n| StatusCode::new(n as u16)) else {
        return (broken, Some(ParseProblem::StartLine("a status that is none")));
    };
    let reason = parts.next().unwrap_or_default();
    if reason.contains(&b'\r') {
        return (broken, Some(ParseProblem::StartLine("a CR without LF")));
    }
    let reason = match reason == status.default_reason().as_bytes() {
        true => HeaderValue::from_static(status.default_reason()),
        false => HeaderValue::trusted(Bytes::copy_from_slice(reason)),
    };
    (Start::Response { status: Some(status), reason }, None)
}

/// The method of a start line that is not to be read whole.
fn method_only(line: &[u8]) -> Start {
    let end = line.iter().take(MAX_METHOD_BYTES).position(|b| *b == b' ');
    match end.and_then(|end| Method::parse(&line[..end]).ok()) {
        Some(method) => Start::Request { method: Some(method), uri: None },
        None => Start::Unknown,
    }
}

/// What every message must have, and what would mislead us if it were broken.
fn check(partial: &Partial, limits: &Limits) -> Result<(), ParseProblem> {
    let mut seen = Seen::default();
    for (name, value) in partial.headers.known_rows() {
        seen.note(name, value, limits)?;
    }
    for (present, name) in [
        (seen.vias > 0, HeaderName::Via),
        (seen.from, HeaderName::From),
        (seen.to, HeaderName::To),
        (seen.call_id, HeaderName::CallId),
        (seen.cseq.is_some(), HeaderName::CSeq),
    ] {
        if !present {
            return Err(ParseProblem::Header(HeaderError::Missing(name)));
        }
    }
    match (&partial.start, seen.cseq) {
        (Start::Request { method: Some(method), .. }, Some(cseq)) if method.as_str().as_bytes() != cseq => {
            Err(ParseProblem::MethodMismatch)
        }
        _ => Ok(()),
    }
}

/// The headers met so far.
#[derive(Default)]
struct Seen<'a> {
    vias: usize,
    routes: usize,
    record_routes: usize,
    contacts: usize,
    from: bool,
    to: bool,
    call_id: bool,
    max_forwards: bool,
    cseq: Option<&'a [u8]>,
}

impl<'a> Seen<'a> {
    fn note(&mut self, name: HeaderName, value: &'a [u8], limits: &Limits) -> Result<(), ParseProblem> {
        let broken = |error: Malformed| ParseProblem::Header(HeaderError::Invalid(name, error));
        match name {
            HeaderName::Via => check_list(value, &mut self.vias, limits.vias, "Via", via::check),
            HeaderName::Route => {
                check_list(value, &mut self.routes, limits.routes, "Route", name_addr::check)
            }
            HeaderName::RecordRoute => {
                check_list(value, &mut self.record_routes, limits.routes, "Record-Route", name_addr::check)
            }
            HeaderName::Contact => {
                check_list(value, &mut self.contacts, limits.contacts, "Contact", check_contact)
            }
            HeaderName::From => {
                once(&mut self.from, name)?;
                return name_addr::check(value).map_err(broken);
            }
            HeaderName::To => {
                once(&mut self.to, name)?;
                return name_addr::check(value).map_err(broken);
            }
            HeaderName::CallId => {
                once(&mut self.call_id, name)?;
                return access::read_call_id(value).map(drop).map_err(broken);
            }
            HeaderName::CSeq => {
                let (_, method) = cseq::split(value).map_err(broken)?;
                return match self.cseq.replace(method) {
                    None => Ok(()),
                    Some(_) => Err(ParseProblem::Header(HeaderError::Repeated(name))),
                };
            }
            HeaderName::MaxForwards => {
                once(&mut self.max_forwards, name)?;
                return clamped_number(value).map(drop).map_err(broken);
            }
            _ => return Ok(()),
        }
        .map_err(|error| match error {
            ListError::TooMany(what) => ParseProblem::TooMany(what),
            ListError::Malformed(error) => broken(error),
        })
    }
}

enum ListError {
    TooMany(&'static str),
    Malformed(Malformed),
}

fn check_list(
    row: &[u8],
    count: &mut usize,
    most: usize,
    what: &'static str,
    check: impl Fn(&[u8]) -> Result<(), Malformed>,
) -> Result<(), ListError> {
    for value in list_values(row, true) {
        *count += 1;
        if *count > most {
            return Err(ListError::TooMany(what));
        }
        check(value).map_err(ListError::Malformed)?;
    }
    Ok(())
}

fn check_contact(value: &[u8]) -> Result<(), Malformed> {
    if value == b"*" { Ok(()) } else { name_addr::check(value) }
}

fn once(seen: &mut bool, name: HeaderName) -> Result<(), ParseProblem> {
    match std::mem::replace(seen, true) {
        false => Ok(()),
        true => Err(ParseProblem::Header(HeaderError::Repeated(name))),
    }
}

/// The declared length of the body. Equal copies are forgiven, contradicting ones are not (section 20.14).
fn content_length(headers: &Headers) -> Result<Option<usize>, ParseProblem> {
    let mut declared = None;
    for value in headers.rows(HeaderName::ContentLength) {
        let length = clamped_number(trim(value)).map_err(|_| ParseProblem::ContentLength("not a number"))?;
        if declared.is_some_and(|earlier| earlier != length) {
            return Err(ParseProblem::ContentLength("two that contradict each other"));
        }
        declared = Some(length);
    }
    Ok(declared.map(|length| length as usize))
}

/// The declared length of a message on a stream, of which `wire` is start line and rows.
pub(crate) fn length_on_stream(wire: Bytes, limits: &Limits) -> Result<usize, ParseProblem> {
    let head = read_head(wire, limits);
    if head.problem == Some(ParseProblem::NotSip) {
        return Err(ParseProblem::NotSip);
    }
    content_length(&head.partial.headers)?.ok_or(ParseProblem::ContentLength("missing on a stream"))
}

/// An error about a message on a stream of which only the head is known.
pub(crate) fn stream_error(wire: Bytes, limits: &Limits, problem: ParseProblem) -> ParseError {
    ParseError::of(problem, read_head(wire, limits).partial)
}

/// One line: its text without line end, and where the next starts.
struct Line {
    start: usize,
    end: usize,
    next: usize,
    /// A CR stands within, where no line ends.
    bare_cr: bool,
}

impl Line {
    /// The line that starts at `at`, ended by CRLF, a bare LF or the end of the octets; `None` at the end.
    fn at(wire: &[u8], at: usize) -> Option<Self> {
        if at >= wire.len() {
            return None;
        }
        let mut line = Self { start: at, end: wire.len(), next: wire.len(), bare_cr: false };
        let mut from = at;
        while let Some(offset) = find_either(&wire[from..], b'\r', b'\n') {
            let place = from + offset;
            let length = if wire[place] == b'\n' { 1 } else { 2 };
            if length == 1 || wire.get(place + 1) == Some(&b'\n') {
                (line.end, line.next) = (place, place + length);
                break;
            }
            line.bare_cr = true;
            from = place + 1;
        }
        Some(line)
    }
}

/// The first LF.
pub(crate) fn find_lf(text: &[u8]) -> Option<usize> {
    find_either(text, b'\n', b'\n')
}

/// The first of two octets. Looks at eight a step: an octet that is sought becomes zero by the exclusive or,
/// and the lowest zero octet is the lowest that borrows into its top bit.
#[inline]
fn find_either(text: &[u8], a: u8, b: u8) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    let zeros = |octets: u64| octets.wrapping_sub(ONES) & !octets & TOPS;
    let (chunks, rest) = text.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let octets = u64::from_le_bytes(*chunk);
        let found = zeros(octets ^ (ONES * u64::from(a))) | zeros(octets ^ (ONES * u64::from(b)));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let place = rest.iter().position(|octet| *octet == a || *octet == b)?;
    Some(text.len() - rest.len() + place)
}

const MAX_METHOD_BYTES: usize = 64;
const HEAD_KEPT_FOR_REPLY: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:x@y>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n";

    fn parse(text: &str) -> Result<Message, ParseError> {
        parse_datagram(text.as_bytes(), &Limits::default())
    }

    fn status(text: &str) -> Option<u16> {
        parse(text).unwrap_err().status().map(StatusCode::get)
    }

    #[test]
    fn versions_are_told_apart() {
        assert!(parse(&format!("OPTIONS sip:a@b sip/2.0\r\n{REST}\r\n")).is_ok());
        assert_eq!(status(&format!("OPTIONS sip:a@b SIP/7.0\r\n{REST}\r\n")), Some(505));
        assert_eq!(status(&format!("OPTIONS sip:a@b HTTP/1.1\r\n{REST}\r\n")), None);
        assert_eq!(status(&format!("SIP/3.0 200 OK\r\n{REST}\r\n")), None);
    }

    #[test]
    fn noise_is_not_answered() {
        for text in ["", "\r\n\r\n", "\0\0\0\0", "x", "jaK", "INVITE", "INVITE sip:a@b", "SIP/2.0"] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.status(), None, "{text:?}");
            assert!(error.reply("t").is_none());
        }
    }

    #[test]
    fn a_broken_ack_or_response_is_not_answered() {
        assert_eq!(status(&format!("ACK sip:a@b SIP/2.0\r\n{REST}\r\n")), None);
        assert_eq!(status("SIP/2.0 200 OK\r\nVia: x\r\n\r\n"), None);
        assert_eq!(status(&format!("SIP/2.0 99 OK\r\n{REST}\r\n")), None);
    }

    #[test]
    fn the_reply_names_the_problem_and_carries_a_tag() {
        let error = parse(
            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nTo: <sip:a@b>\r\nFrom: \"x <sip:y@z>\r\n\r\n",
        )
        .unwrap_err();
        let reply = error.reply("our tag").unwrap();
        assert_eq!(reply.reason.to_text(), "Bad Request (From: a quote that never closes)");
        assert_eq!(reply.headers.get("To"), Some(&b"<sip:a@b>;tag=ourtag"[..]));
        assert_eq!(reply.headers.get("f"), Some(&b"\"x <sip:y@z>"[..]));
    }

    #[test]
    fn limits_hold() {
        let head = format!("OPTIONS sip:a@b SIP/2.0\r\n{REST}");
        let many = |row: &str, count: usize| format!("{head}{}\r\n", row.repeat(count));
        assert!(parse(&many("X: y\r\n", 251)).is_ok());
        assert_eq!(status(&many("X: y\r\n", 252)), Some(400));
        assert!(parse(&many("v: SIP/2.0/UDP h\r\n", 69)).is_ok());
        assert_eq!(status(&many("v: SIP/2.0/UDP h\r\n", 70)), Some(400));
        assert_eq!(status(&many("Route: <sip:a>,<sip:b>\r\n", 33)), Some(400));
        assert_eq!(status(&many("m: <sip:a>\r\n", 33)), Some(400));
        assert_eq!(status(&many(&format!("X: {}\r\n", "y".repeat(16_400)), 1)), Some(400));
        assert_eq!(status(&format!("OPTIONS sip:{} SIP/2.0\r\n{REST}\r\n", "a".repeat(8_300))), Some(414));
        assert_eq!(status(&format!("{head}\r\n{}", "b".repeat(65_536))), Some(413));
    }

    #[test]
    fn folds_become_one_space() {
        let Ok(message) =
            parse(&format!("OPTIONS sip:a@b SIP/2.0\r\n{REST}Subject : a  \r\n\t  b\r\n \r\n c\r\n\r\n"))
        else {
            panic!()
        };
        assert_eq!(message.headers().get("Subject"), Some(&b"a b c"[..]));
    }

    #[test]
    fn a_bare_cr_is_no_line_end() {
        assert_eq!(status(&format!("OPTIONS sip:a@b SIP/2.0\r\n{REST}X: a\rVia: b\r\n\r\n")), Some(400));
        assert_eq!(status(&format!("OPTIONS sip:a@b SIP/2.0\r\n{REST}X: a\r\n b\rc\r\n\r\n")), Some(400));
    }

    #[test]
    fn the_body_is_what_was_declared() {
        let body = |length: &str, body: &str| {
            let text = format!("OPTIONS sip:a@b SIP/2.0\n{}{length}\n{body}", REST.replace("\r\n", "\n"));
            parse(&text).map(|message| String::from_utf8_lossy(message.body()).into_owned())
        };
        assert_eq!(body("", "abc").unwrap(), "abc");
        assert_eq!(body("l:2\n", "abc").unwrap(), "ab");
        assert_eq!(body("l:2\nContent-Length: 02\n", "abc").unwrap(), "ab");
        assert!(body("l:4\n", "abc").is_err());
        assert!(body("l:99999999999999999999\n", "abc").is_err());
        assert!(body("l:+2\n", "abc").is_err());
    }

    #[test]
    fn line_feeds_are_found_wherever_they_are() {
        for length in 0..100 {
            for place in 0..length {
                let mut text = vec![b'x'; length];
                text[place] = b'\n';
                assert_eq!(find_lf(&text), Some(place));
            }
            assert_eq!(find_lf(&vec![b'x'; length]), None);
        }
    }
}
