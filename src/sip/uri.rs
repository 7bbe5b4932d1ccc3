//! URIs: `sip:`, `sips:` and `tel:` taken apart, every other scheme kept whole.
//!
//! The text is kept as received, escapes included, because a URI that is echoed (a remote target, a
//! Request-URI) must come back as the peer wrote it. Parts are views into it; comparison decodes.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

use super::message::Transport;

/// A URI. Equality is of the text; [`Uri::equivalent`] compares by RFC 3261 section 19.1.4.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uri {
    text: Box<str>,
    parts: UriParts,
}

/// The scheme of a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:` (RFC 3966)
    Tel,
    /// Anything else; the URI is opaque.
    Other,
}

/// A host: an address, or a name to be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Host<'a> {
    /// A domain name, as written. It may be one no resolver accepts.
    Name(&'a str),
    /// An IPv4 address, or an IPv6 address that stood in brackets.
    Ip(IpAddr),
}

/// Text that is no URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a URI: {0}")]
pub struct UriError(pub(crate) &'static str);

impl Uri {
    /// Reads a URI without angle brackets.
    ///
    /// # Errors
    /// When the text has no scheme, holds spaces, control or non-ASCII octets, or its host or port is broken.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, UriError> {
        let text = text.as_ref();
        let parts = UriParts::scan(text)?;
        let text = std::str::from_utf8(text).map_err(|_| UriError("not ASCII"))?;
        Ok(Self { text: text.into(), parts })
    }

    /// `sip:user@host:port`, the user escaped. `user` may be empty, `port` absent.
    ///
    /// # Errors
    /// When the host is not one.
    pub fn sip(user: &str, host: &str, port: Option<u16>) -> Result<Self, UriError> {
        let mut text = String::from("sip:");
        if !user.is_empty() {
            text.push_str(&escape_user(user));
            text.push('@');
        }
        match host.parse::<Ipv6Addr>() {
            Ok(v6) => text.push_str(&format!("[{v6}]")),
            Err(_) => text.push_str(host),
        }
        if let Some(port) = port {
            text.push_str(&format!(":{port}"));
        }
        Self::parse(text)
    }

    /// The URI as received.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.parts.scheme
    }

    /// The user part of a SIP URI as written (escapes kept, password left out); `None` when absent.
    /// Of a `tel:` URI the number as written.
    pub fn user(&self) -> Option<&str> {
        self.parts.user.map(|span| &self.text[span.range()])
    }

    /// The user part with escapes decoded. Octets that are not UTF-8 are replaced.
    pub fn user_decoded(&self) -> Option<Cow<'_, str>> {
        self.user().map(|user| match decode(user) {
            Cow::Borrowed(_) => Cow::Borrowed(user),
            Cow::Owned(octets) => Cow::Owned(String::from_utf8_lossy(&octets).into_owned()),
        })
    }

    /// What was dialled: the decoded user part up to `;`, and for something that looks like a phone number
    /// without visual separators (`+1-555-0100` is `+15550100`).
    pub fn dialled(&self) -> Option<String> {
        let user = self.user_decoded()?;
        let user = user.split(';').next().unwrap_or_default();
        let is_number = user.starts_with(|c: char| c == '+' || c == '(' || c.is_ascii_digit())
            && user.chars().all(|c| c.is_ascii_digit() || "+-.()".contains(c));
        if is_number {
            return Some(user.chars().filter(|c| !"-.()".contains(*c)).collect());
        }
        Some(user.to_owned())
    }

    /// The password part as written (deprecated by RFC 3261 section 19.1.1, still met).
    pub fn password(&self) -> Option<&str> {
        self.parts.password.map(|span| &self.text[span.range()])
    }

    /// The host of a SIP URI; `None` for other schemes.
    pub fn host(&self) -> Option<Host<'_>> {
        let span = self.parts.host?;
        Some(self.parts.ip.map_or_else(|| Host::of(&self.text[span.range()]), |v6| Host::Ip(v6.into())))
    }

    /// The port when one is written; a written 0 counts as none.
    pub fn port(&self) -> Option<u16> {
        self.parts.port
    }

    /// The value of a parameter, its name compared without case: `Some("")` for one without a value.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params().find(|(n, _)| same_text(n, name)).map(|(_, value)| value.unwrap_or_default())
    }

    /// The parameters in order, as written.
    pub fn params(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.text[self.parts.params.range()].split(';').filter(|p| !p.is_empty()).map(|param| {
            match param.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (param, None),
            }
        })
    }

    /// What follows `?`, as written; empty when there is nothing.
    pub fn headers_text(&self) -> &str {
        &self.text[self.parts.headers.range()]
    }

    /// The headers that follow `?`, as written.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.headers_text().split('&').filter(|h| !h.is_empty());
        headers.map(|header| header.split_once('=').unwrap_or((header, "")))
    }

    /// The `transport` parameter, when it names one we know. `sips:` without one means TLS.
    pub fn transport(&self) -> Option<Transport> {
        match self.param("transport") {
            Some(text) => Transport::from_token(text),
            None if self.scheme() == Scheme::Sips => Some(Transport::Tls),
            None => None,
        }
    }

    /// Whether a route with this URI is a loose router's (`lr`, `lr=on`, `lr=true`; RFC 3261 section 19.1.1).
    pub fn is_loose_route(&self) -> bool {
        self.param("lr").is_some()
    }

    /// This URI without `?headers` and the parameters that a Request-URI may not carry (`method`, and with
    /// `keep_headers` false the headers), for use as a Request-URI (RFC 3261 section 19.1.1 table 1).
    pub fn to_request_uri(&self) -> Self {
        if self.parts.headers.is_empty() && self.param("method").is_none() {
            return self.clone();
        }
        let head = &self.text[..self.parts.params.start as usize];
        let mut text = head.trim_end_matches(';').to_owned();
        for (name, value) in self.params().filter(|(name, _)| !same_text(name, "method")) {
            push_param(&mut text, name, value);
        }
        Self::parse(text).unwrap_or_else(|_| self.clone())
    }

    /// This URI with one parameter set (replaced or added). Name and value must need no escaping.
    ///
    /// # Errors
    /// When the parameter would break the URI, or the scheme is unknown.
    pub fn with_param(&self, name: &str, value: Option<&str>) -> Result<Self, UriError> {
        if self.scheme() == Scheme::Other {
            return Err(UriError("an opaque URI takes no parameters"));
        }
        if [Some(name), value].into_iter().flatten().any(|part| part.contains([';', '?', '>', '@'])) {
            return Err(UriError("a parameter needs escaping"));
        }
        let mut text = self.text[..self.parts.params.start as usize].trim_end_matches(';').to_owned();
        for (n, v) in self.params().filter(|(n, _)| !same_text(n, name)) {
            push_param(&mut text, n, v);
        }
        push_param(&mut text, name, value);
        if !self.parts.headers.is_empty() {
            text.push('?');
            text.push_str(self.headers_text());
        }
        Self::parse(text)
    }

    /// Equality by RFC 3261 section 19.1.4: escapes decoded, host and parameter names without case, `user`,
    /// `ttl`, `method`, `maddr` and `transport` must be on both sides or neither.
    pub fn equivalent(&self, other: &Self) -> bool {
        // Also where a parameter is there twice, which the comparison of parameters does not follow.
        if self.text == other.text {
            return true;
        }
        if self.scheme() != other.scheme() || self.scheme() == Scheme::Other {
            return false;
        }
        let users = match (self.user(), other.user()) {
            (Some(a), Some(b)) => decode(a) == decode(b),
            (None, None) => true,
            _ => false,
        };
        let hosts = match (self.host(), other.host()) {
            (Some(Host::Name(a)), Some(Host::Name(b))) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        };
        users
            && hosts
            && self.password() == other.password()
            && self.port() == other.port()
            && self.params_match(other)
            && other.params_match(self)
            && self.headers_match(other)
    }

    fn params_match(&self, other: &Self) -> bool {
        const NEVER_IGNORED: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];
        self.params().all(|(name, value)| match other.param(name) {
            Some(theirs) => same_text(value.unwrap_or_default(), theirs),
            None => !NEVER_IGNORED.iter().any(|n| same_text(n, name)),
        })
    }

    fn headers_match(&self, other: &Self) -> bool {
        let sorted = |uri: &Self| {
            let mut all: Vec<_> = uri
                .headers()
                .map(|(n, v)| (decode(n).to_ascii_lowercase(), decode(v).into_owned()))
                .collect();
            all.sort();
            all
        };
        self.headers_text().is_empty() && other.headers_text().is_empty() || sorted(self) == sorted(other)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

impl std::str::FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl<'a> Host<'a> {
    /// A host without brackets: an IPv4 address, or a name.
    pub(crate) fn of(text: &'a str) -> Self {
        match text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.parse()) {
            Some(Ok(v4)) => Self::Ip(IpAddr::V4(v4)),
            _ => Self::Name(text),
        }
    }
}

impl fmt::Display for Host<'_> {
    /// As it stands in a URI or a Via: IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(v4)) => write!(f, "{v4}"),
            Self::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

/// Escapes what may not stand in the user part of a SIP URI (RFC 3261 section 25.1).
pub fn escape_user(user: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&b);
    if user.bytes().all(plain) {
        return Cow::Borrowed(user);
    }
    let mut text = String::with_capacity(user.len() + 8);
    for byte in user.bytes() {
        match plain(byte) {
            true => text.push(byte as char),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    Cow::Owned(text)
}

/// Decodes `%41` escapes; a `%` that starts none stays.
pub fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |i: usize| bytes.get(i).and_then(|b| (*b as char).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

/// Where the parts of a URI are. Found without allocating, so that a message can be checked cheaply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct UriParts {
    pub(crate) scheme: Scheme,
    user: Option<Span>,
    password: Option<Span>,
    host: Option<Span>,
    ip: Option<Ipv6Addr>,
    port: Option<u16>,
    params: Span,
    pub(crate) headers: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end
    }
}

impl UriParts {
    pub(crate) fn scan(text: &[u8]) -> Result<Self, UriError> {
        if text.len() > MAX_URI_BYTES {
            return Err(UriError("too long"));
        }
        if !text.iter().all(|b| KIND[usize::from(*b)] & IN_URI != 0) {
            return Err(UriError("a space, quote, bracket, control or non-ASCII octet"));
        }
        let colon = text.iter().position(|b| *b == b':').ok_or(UriError("no scheme"))?;
        let scheme = read_scheme(&text[..colon])?;
        let rest = colon + 1;
        if rest == text.len() {
            return Err(UriError("nothing after the scheme"));
        }
        match scheme {
            Scheme::Sip | Scheme::Sips => Self::scan_sip(text, scheme, rest),
            Scheme::Tel => Self::scan_tel(text, rest),
            Scheme::Other => Ok(Self::opaque(text.len())),
        }
    }

    fn opaque(end: usize) -> Self {
        let nothing = Span::new(end, end);
        Self {
            scheme: Scheme::Other,
            user: None,
            password: None,
            host: None,
            ip: None,
            port: None,
            params: nothing,
            headers: nothing,
        }
    }

    fn scan_tel(text: &[u8], rest: usize) -> Result<Self, UriError> {
        let end = rest + text[rest..].iter().position(|b| *b == b';').unwrap_or(text.len() - rest);
        let digits = text[rest..end].iter().any(|b| b.is_ascii_hexdigit() || matches!(b, b'*' | b'#'));
        if !digits {
            return Err(UriError("a tel URI without a number"));
        }
        let params = Span::new((end + 1).min(text.len()), text.len());
        Ok(Self { scheme: Scheme::Tel, user: Some(Span::new(rest, end)), params, ..Self::opaque(text.len()) })
    }

    fn scan_sip(text: &[u8], scheme: Scheme, rest: usize) -> Result<Self, UriError> {
        let mut parts = Self { scheme, ..Self::opaque(text.len()) };
        let mut at = rest;
        if let Some(length) = text[rest..].iter().position(|b| *b == b'@') {
            let end = rest + length;
            let colon = text[rest..end].iter().position(|b| *b == b':').map(|i| rest + i);
            parts.user = Some(Span::new(rest, colon.unwrap_or(end)));
            parts.password = colon.map(|colon| Span::new(colon + 1, end));
            if parts.user.is_some_and(Span::is_empty) {
                return Err(UriError("an empty user part"));
            }
            at = end + 1;
        }
        let (host, port, after) = scan_host_port(text, at)?;
        (parts.host, parts.ip, parts.port) = (Some(host.0), host.1, port);
        at = after;
        if text.get(at) == Some(&b';') {
            let end = at + text[at..].iter().position(|b| *b == b'?').unwrap_or(text.len() - at);
            parts.params = Span::new(at + 1, end);
            at = end;
        } else {
            parts.params = Span::new(at, at);
        }
        if text.get(at) == Some(&b'?') {
            parts.headers = Span::new(at + 1, text.len());
            at = text.len();
        }
        match at == text.len() && !text[at.min(parts.host.map_or(0, |h| h.end as usize))..].contains(&b'@') {
            true => Ok(parts),
            false => Err(UriError("something between host and parameters, or a second @")),
        }
    }
}

/// Where a host is, and what address its brackets hold.
type ScannedHost = (Span, Option<Ipv6Addr>);

/// Host and optional port from `at`; returns where they end. Stops at `;`, `?` or the end.
pub(crate) fn scan_host_port(text: &[u8], at: usize) -> Result<(ScannedHost, Option<u16>, usize), UriError> {
    let (host, mut at) = scan_host(text, at)?;
    let mut port = None;
    if text.get(at) == Some(&b':') {
        let digits = text[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        port = read_port(&text[at + 1..at + 1 + digits])?;
        at += 1 + digits;
    }
    Ok((host, port, at))
}

/// A host from `at`; returns it and where it ends.
pub(crate) fn scan_host(text: &[u8], at: usize) -> Result<(ScannedHost, usize), UriError> {
    if text.get(at) == Some(&b'[') {
        let length = text[at..].iter().position(|b| *b == b']').ok_or(UriError("`[` without `]`"))?;
        let ip = read_ipv6(&text[at + 1..at + length])?;
        return Ok(((Span::new(at, at + length + 1), Some(ip)), at + length + 1));
    }
    let is_host = |b: &&u8| KIND[usize::from(**b)] & IN_HOST != 0;
    let length = text[at..].iter().take_while(is_host).count();
    if length == 0 {
        return Err(UriError("no host"));
    }
    Ok(((Span::new(at, at + length), None), at + length))
}

/// An IPv6 address without brackets. `:::`, which RFC 3261's grammar allows by mistake, is read as `::`
/// (RFC 5118 section 4.10); zone ids are refused.
pub(crate) fn read_ipv6(text: &[u8]) -> Result<Ipv6Addr, UriError> {
    let text = std::str::from_utf8(text).map_err(|_| UriError("not an IPv6 address"))?;
    let read = match text.contains(":::") {
        true => text.replacen(":::", "::", 1).parse(),
        false => text.parse(),
    };
    read.map_err(|_| UriError("not an IPv6 address"))
}

/// A port; an empty or zero one is none.
pub(crate) fn read_port(digits: &[u8]) -> Result<Option<u16>, UriError> {
    let mut port: u32 = 0;
    for digit in digits {
        port = port * 10 + u32::from(digit - b'0');
        if port > 65_535 {
            return Err(UriError("a port over 65535"));
        }
    }
    Ok((port != 0).then_some(port as u16))
}

fn read_scheme(text: &[u8]) -> Result<Scheme, UriError> {
    let is_scheme = text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
    if !is_scheme {
        return Err(UriError("no scheme"));
    }
    Ok(match text {
        s if s.eq_ignore_ascii_case(b"sip") => Scheme::Sip,
        s if s.eq_ignore_ascii_case(b"sips") => Scheme::Sips,
        s if s.eq_ignore_ascii_case(b"tel") => Scheme::Tel,
        _ => Scheme::Other,
    })
}

/// Equal once decoded, without case.
fn same_text(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || decode(a).eq_ignore_ascii_case(&decode(b))
}

fn push_param(text: &mut String, name: &str, value: Option<&str>) {
    text.push(';');
    text.push_str(name);
    if let Some(value) = value {
        text.push('=');
        text.push_str(value);
    }
}

const MAX_URI_BYTES: usize = 16_384;

/// Whether an octet may stand in a URI at all, and in the name of a host.
static KIND: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0u8;
    while byte < 128 {
        if byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"') {
            table[byte as usize] |= IN_URI;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'+' | b'~') {
            table[byte as usize] |= IN_HOST;
        }
        byte += 1;
    }
    table
};
const IN_URI: u8 = 1;
const IN_HOST: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        Uri::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn parts_are_found() {
        let uri = uri("sips:alice;day=tuesday:pw@[2001:db8::1]:5071;transport=TCP;lr?subject=x&a=b");
        assert_eq!(uri.scheme(), Scheme::Sips);
        assert_eq!((uri.user(), uri.password()), (Some("alice;day=tuesday"), Some("pw")));
        assert_eq!(uri.host(), Some(Host::Ip("2001:db8::1".parse().unwrap())));
        assert_eq!(uri.port(), Some(5071));
        assert_eq!(uri.transport(), Some(Transport::Tcp));
        assert!(uri.is_loose_route());
        assert_eq!(uri.headers().collect::<Vec<_>>(), [("subject", "x"), ("a", "b")]);
        assert_eq!(
            uri.to_request_uri().as_str(),
            "sips:alice;day=tuesday:pw@[2001:db8::1]:5071;transport=TCP;lr"
        );
    }

    #[test]
    fn odd_hosts_of_carriers_are_kept() {
        assert_eq!(uri("sip:+172.25.16.223:5060").host(), Some(Host::Name("+172.25.16.223")));
        assert_eq!(uri("sip:a@host;twnat=sip:1.2.3.4:51830;r2=on").param("twnat"), Some("sip:1.2.3.4:51830"));
        assert_eq!(uri("sip:a@host:0").port(), None);
        assert!(uri("sip:p.example.com;lr=on").is_loose_route());
        assert_eq!(uri("sip:*21#@host").user(), Some("*21#"));
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for text in [
            "",
            "sip",
            "sip:",
            ":a",
            "sip:@host",
            "sip:a@",
            "sip:a b@c",
            "sip:2001:db8::10",
            "sip:[::1",
            "sip:[1.2.3.4]",
            "sip:[fe80::1%eth0]",
            "sip:a@b@c",
            "sip:a@host:99999",
            "sip:a@host:50x",
            "<sip:a@b>",
            "sip:a@b\u{e9}",
            "tel:",
            "tel:;x=y",
            "1sip:a@b",
            "sip:a@b,c",
        ] {
            assert!(Uri::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_dialled_is_plain() {
        let dialled = |text| uri(text).dialled();
        assert_eq!(dialled("tel:+1-201-555-0123;phone-context=x").as_deref(), Some("+12015550123"));
        assert_eq!(dialled("sip:%2B15550100;npdi@h").as_deref(), Some("+15550100"));
        assert_eq!(dialled("sip:bob.smith@h").as_deref(), Some("bob.smith"));
        assert_eq!(dialled("sip:h"), None);
        assert_eq!(dialled("http://x/y"), None);
    }

    #[test]
    fn equivalence_is_that_of_rfc_3261() {
        for (a, b) in [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
            ("sip:a@b.com?subject=x&priority=urgent", "sip:a@b.com?priority=urgent&subject=x"),
            ("sip:a@[2001:DB8::0:1]", "sip:a@[2001:db8::1]"),
        ] {
            assert!(uri(a).equivalent(&uri(b)) && uri(b).equivalent(&uri(a)), "{a} {b}");
        }
        let twice = uri("tel:+1-555;x=1;x=2");
        assert!(twice.equivalent(&twice));
        for (a, b) in [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=x"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            ("sip:a@b", "sips:a@b"),
            ("sip:a@b", "sip:b"),
        ] {
            assert!(!uri(a).equivalent(&uri(b)) && !uri(b).equivalent(&uri(a)), "{a} {b}");
        }
    }

    #[test]
    fn uris_are_built_escaped() {
        assert_eq!(
            Uri::sip("a b@c", "2001:db8::1", Some(5070)).unwrap().as_str(),
            "sip:a%20b%40c@[2001:db8::1]:5070"
        );
        assert!(Uri::sip("x", "host\r\nVia: y", None).is_err());
        let uri = uri("sip:a@b;lr;x=1?h=2").with_param("X", Some("3")).unwrap();
        assert_eq!(uri.as_str(), "sip:a@b;lr;X=3?h=2");
        assert!(uri.with_param("y", Some("a;b")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn a_user_survives_escaping(user in "\\PC{1,20}") {
            let uri = Uri::sip(&user, "example.com", None).unwrap();
            // A `:` would start a password; it is escaped.
            proptest::prop_assert_eq!(uri.user_decoded().unwrap(), user);
        }

        #[test]
        fn reading_never_panics(text in ".{0,60}") {
            if let Ok(uri) = Uri::parse(&text) {
                let again = Uri::parse(uri.as_str());
                proptest::prop_assert_eq!(again.as_ref(), Ok(&uri));
                let _ = (uri.dialled(), uri.to_request_uri(), uri.equivalent(&uri));
            }
        }
    }
}
