//! Values that are written as text: durations, listeners, port ranges, networks, URLs.
//!
//! Each has a JSON Schema `format` by which the checker finds its parser ([`check_format`]), so a file is
//! judged by the same code that later reads it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// Why a text is not the value it should be, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {fix}")]
pub struct ValueError {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: String,
}

impl ValueError {
    pub(super) fn new(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { message: message.into(), fix: fix.into() }
    }
}

/// Serde, JSON Schema and the checker agree on a type that is written as text.
macro_rules! text_value {
    ($name:ident, $format:literal) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

pub(super) use text_value;

/// Marks the format of a list's or option's text in the schema.
macro_rules! text_schema {
    ($name:ident, $format:literal) => {
        #[derive(schemars::JsonSchema)]
        #[schemars(inline, extend("format" = $format))]
        #[expect(dead_code, reason = "only its schema is used")]
        pub(super) struct $name(String);
    };
}

text_schema!(VariableName, "variable-name");
text_schema!(SipTarget, "sip-target");
text_schema!(IpAddress, "ip-address");

/// What SIP runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SipTransport {
    /// RFC 3261 §18 over UDP.
    Udp,
    /// RFC 3261 §18 over TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket (RFC 7118).
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl SipTransport {
    /// As in a listener's URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether a listener of it needs a certificate.
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }
}

/// Where SIP is accepted: `udp://0.0.0.0:5060`, `tcp://[::]:5060`, `tls://0.0.0.0:5061`, `ws://127.0.0.1:8088`,
/// `wss://0.0.0.0:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SipListen {
    /// What it runs over.
    pub transport: SipTransport,
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
}

impl fmt::Display for SipListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.transport.as_str(), self.address)
    }
}

impl FromStr for SipListen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let fix = "write udp://, tcp://, tls://, ws:// or wss:// and an address with port, such as \"udp://0.0.0.0:5060\"";
        let (scheme, address) = text
            .split_once("://")
            .ok_or_else(|| ValueError::new(format!("\"{text}\" has no transport"), fix))?;
        let transport = match scheme {
            "udp" => SipTransport::Udp,
            "tcp" => SipTransport::Tcp,
            "tls" => SipTransport::Tls,
            "ws" => SipTransport::Ws,
            "wss" => SipTransport::Wss,
            other => return Err(ValueError::new(format!("\"{other}\" is no SIP transport"), fix)),
        };
        let address = address
            .parse()
            .map_err(|_| ValueError::new(format!("\"{address}\" is not an IP address with a port"), fix))?;
        Ok(Self { transport, address })
    }
}

text_value!(SipListen, "sip-listener");

/// UDP ports, first to last, inclusive: `20000-29999`. Holds at least one even/odd pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl PortRange {
    /// How many RTP/RTCP pairs (even port and the odd one above it) fit.
    pub fn pairs(self) -> u32 {
        let first_even = u32::from(self.first).next_multiple_of(2);
        (u32::from(self.last) + 1).saturating_sub(first_even) / 2
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let fix = "write the first and the last port, such as \"20000-29999\"";
        let bad = || ValueError::new(format!("\"{text}\" is not a range of ports"), fix);
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let port = |part: &str| part.trim().parse::<u16>().map_err(|_| bad());
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first > range.last {
            return Err(ValueError::new(
                format!("\"{text}\" is empty"),
                format!("put the lower port first: \"{}-{}\"", range.last, range.first),
            ));
        }
        if range.first < 1024 {
            return Err(ValueError::new(
                format!("\"{text}\" begins below 1024, where ports belong to system services"),
                "begin at 1024 or higher, such as \"20000-29999\"",
            ));
        }
        if range.pairs() == 0 {
            return Err(ValueError::new(
                format!(
                    "\"{text}\" holds no even port followed by an odd one, which a call needs for RTP and RTCP"
                ),
                "give two ports per call, such as \"20000-29999\" for 5000 calls",
            ));
        }
        Ok(range)
    }
}

text_value!(PortRange, "port-range");

/// A network such as `54.172.60.0/30`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(pub ipnet::IpNet);

impl Network {
    /// Whether the address is in it. An IPv4 address that arrived on an IPv6 socket
    /// (`::ffff:192.0.2.1`) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether some address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            return fmt::Display::fmt(&self.0.addr(), f);
        }
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Network {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.into()));
        }
        let network: ipnet::IpNet = text.parse().map_err(|_| {
            ValueError::new(
                format!("\"{text}\" is no network"),
                "write an address, or an address and a prefix length such as \"54.172.60.0/30\"; a host name cannot be an inbound source",
            )
        })?;
        if network.addr() != network.network() {
            return Err(ValueError::new(
                format!("\"{text}\" has bits set behind its prefix"),
                format!(
                    "write \"{}\" for the whole network, or \"{}\" for the one address",
                    network.trunc(),
                    network.addr()
                ),
            ));
        }
        Ok(Self(network))
    }
}

text_value!(Network, "network");

/// Reads a duration: numbers with units `ms`, `s`, `m`, `h`, `d`, largest first (`1m30s`).
///
/// # Errors
/// When there is no unit, an unknown one, or the sum overflows.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let bad = |what: String| {
        ValueError::new(what, "write a number and a unit (ms, s, m, h, d), such as \"30s\" or \"1m30s\"")
    };
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad("the duration is empty".into()));
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_length = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_length);
        let number: u64 = number.parse().map_err(|_| bad(format!("\"{text}\" is no duration")))?;
        let millis_each: u64 = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => return Err(bad(format!("\"{text}\" has no unit"))),
            other => return Err(bad(format!("\"{other}\" is no unit of time"))),
        };
        let part = number.checked_mul(millis_each).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| bad(format!("\"{text}\" is too long")))?;
        rest = tail;
    }
    Ok(total)
}

/// A duration in the largest unit that holds it without a fraction: `90s`, `2m`, `1500ms`.
pub fn print_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    if millis == 0 { "0s".into() } else { format!("{millis}ms") }
}

/// For `#[serde(with)]`: a [`Duration`] as text.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::print_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The parts of a URL that configuration cares about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UrlParts<'a> {
    /// Before `://`.
    pub scheme: &'a str,
    /// Host without port, user or brackets.
    pub host: &'a str,
    /// Port, where one is written.
    pub port: Option<u16>,
    /// Everything from the first `/` after the host, or nothing.
    pub path: &'a str,
}

impl UrlParts<'_> {
    /// Whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// The written port or the scheme's own.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            "https" | "wss" => 443,
            "postgres" | "postgresql" => 5432,
            "redis" | "rediss" => 6379,
            _ => 80,
        })
    }
}

/// Splits a URL; `None` when it has no scheme or no host, or a bad port.
pub fn split_url(text: &str) -> Option<UrlParts<'_>> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host_port.strip_prefix('[') {
        Some(v6) => {
            let (host, tail) = v6.split_once(']')?;
            (host, tail.strip_prefix(':'))
        }
        None => match host_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_port, None),
        },
    };
    let port = port.map(str::parse).transpose().ok()?;
    let printable = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
    (!scheme.is_empty() && !host.is_empty() && printable(text)).then_some(UrlParts {
        scheme,
        host,
        port,
        path,
    })
}

/// The URL with its password, if it has one, replaced by `***`.
pub fn mask_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let Some((userinfo, _)) = rest[..end].rsplit_once('@') else { return text.to_owned() };
    let user = userinfo.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}:***{}", &rest[userinfo.len()..])
}

/// A path of a URL: plain words, from the root.
fn check_path(text: &str) -> Result<(), ValueError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    if text.starts_with('/') && !text.contains("//") && text.chars().all(plain) {
        return Ok(());
    }
    Err(ValueError::new(format!("\"{text}\" is no path"), "write a path such as \"/media\""))
}

/// Judges a text by the `format` of its key's schema. Formats of no concern to us pass.
///
/// # Errors
/// What is wrong with the text, and what to write.
pub fn check_format(format: &str, text: &str) -> Result<(), ValueError> {
    match format {
        "duration-text" => parse_duration(text).map(drop),
        "money" => text.parse::<super::money::Money>().map(drop),
        "sip-listener" => text.parse::<SipListen>().map(drop),
        "port-range" => text.parse::<PortRange>().map(drop),
        "network" => text.parse::<Network>().map(drop),
        "socket-address" => check_socket_address(text),
        "ip-address" => text.parse::<IpAddr>().map(drop).map_err(|_| {
            ValueError::new(
                format!("\"{text}\" is no IP address"),
                "write an address such as \"203.0.113.10\"",
            )
        }),
        "url-path" => check_path(text),
        "websocket-url" => check_url(text, &["wss", "ws"], "wss://api.openai.com/v1/realtime"),
        "media-url" => check_media_url(text),
        "http-url" => check_url(text, &["https", "http"], "https://example.com"),
        "redis-url" => check_url(text, &["redis", "rediss"], "redis://127.0.0.1:6379"),
        "store-url" => check_store_url(text),
        "sip-target" => check_sip_target(text),
        "variable-name" => check_variable_name(text),
        "name" => check_name(text),
        "number" => check_number(text),
        "mail-address" => check_mail_address(text),
        _ => Ok(()),
    }
}

fn check_socket_address(text: &str) -> Result<(), ValueError> {
    text.parse::<SocketAddr>().map(drop).map_err(|_| {
        ValueError::new(
            format!("\"{text}\" is not an IP address with a port"),
            "write an address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
        )
    })
}

fn check_url(text: &str, schemes: &[&str], example: &str) -> Result<(), ValueError> {
    let fix = format!("write a URL such as \"{example}\"");
    let Some(parts) = split_url(text) else {
        return Err(ValueError::new("this is no URL", fix));
    };
    if !schemes.contains(&parts.scheme) {
        let message = format!("\"{}://\" cannot be used here", parts.scheme);
        return Err(ValueError::new(message, format!("begin with {}://", schemes.join(":// or "))));
    }
    Ok(())
}

/// What is put behind it must be its path.
fn check_media_url(text: &str) -> Result<(), ValueError> {
    let example = "ws://127.0.0.1:8088/media";
    check_url(text, &["ws", "wss"], example)?;
    let odd = if text.contains(['?', '#']) {
        "a connection id cannot be put behind a query"
    } else if text.contains('@') {
        "user and password have keys of their own"
    } else {
        return Ok(());
    };
    Err(ValueError::new(odd, format!("write a URL such as \"{example}\"")))
}

fn check_store_url(text: &str) -> Result<(), ValueError> {
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.trim_start_matches("//");
        let empty = path.is_empty() || path.starts_with('?');
        let error = ValueError::new("the SQLite URL names no file", "write \"sqlite://data/tandem.db\"");
        return if empty { Err(error) } else { Ok(()) };
    }
    check_url(text, &["sqlite", "postgres", "postgresql"], "sqlite://data/tandem.db")
}

fn check_sip_target(text: &str) -> Result<(), ValueError> {
    let fix = "write a host name or address, with a port and transport where needed: \"example.pstn.twilio.com\", \"192.0.2.5:5060\", \"192.0.2.5;transport=tcp\"";
    let bare = text.strip_prefix("sip:").or_else(|| text.strip_prefix("sips:")).unwrap_or(text);
    let host = bare.split(';').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]@+".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(ValueError::new(format!("\"{text}\" is no SIP host"), fix));
    }
    Ok(())
}

/// The text may be a secret that was put into the wrong key, so it is not repeated.
fn check_variable_name(text: &str) -> Result<(), ValueError> {
    let head = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if head && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(ValueError::new(
        "this is not the name of an environment variable; it may be the secret itself",
        "write the variable's name, such as \"OPENAI_API_KEY\", and put the secret into the variable or, with _FILE added to the name, the path of a file that holds it",
    ))
}

fn check_name(text: &str) -> Result<(), ValueError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 64 && text.chars().all(fits) {
        return Ok(());
    }
    let fix = "use 1 to 64 letters, digits, `-`, `_` and `.`, a letter or digit first";
    Err(ValueError::new(format!("\"{text}\" is no name"), fix))
}

fn check_number(text: &str) -> Result<(), ValueError> {
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let user = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let right = match text.strip_prefix('+') {
        Some(rest) => digits(rest) && (7..=15).contains(&rest.len()) && !rest.starts_with('0'),
        None => text == "*" || (!text.is_empty() && text.len() <= 64 && user(text)),
    };
    if right {
        return Ok(());
    }
    Err(ValueError::new(
        format!("\"{text}\" is no number"),
        "write E.164 without spaces such as \"+15550100\", a SIP user such as \"100\", or \"*\" for all others",
    ))
}

fn check_mail_address(text: &str) -> Result<(), ValueError> {
    let right = text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && host.contains('.') && !text.contains(char::is_whitespace) && !host.contains('@')
    });
    let error =
        || ValueError::new(format!("\"{text}\" is no mail address"), "write one such as \"ann@example.com\"");
    if right { Ok(()) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(format: &str, text: &str) -> String {
        check_format(format, text).map_or_else(|e| e.to_string(), |()| "accepted".into())
    }

    #[test]
    fn durations_are_read_and_printed() {
        for (text, millis, printed) in [
            ("30s", 30_000, "30s"),
            ("1m30s", 90_000, "90s"),
            ("1500ms", 1_500, "1500ms"),
            ("2h", 7_200_000, "2h"),
            ("0s", 0, "0s"),
            ("30d", 2_592_000_000, "30d"),
        ] {
            let read = parse_duration(text).expect("valid");
            assert_eq!((read.as_millis(), print_duration(read).as_str()), (millis, printed));
        }
    }

    #[test]
    fn each_bad_value_says_what_to_write() {
        let table = [
            ("duration-text", "30", "\"30\" has no unit; write a number and a unit"),
            ("duration-text", "5 parsecs", "\"parsecs\" is no unit of time"),
            ("sip-listener", "0.0.0.0:5060", "\"0.0.0.0:5060\" has no transport; write udp://"),
            ("sip-listener", "http://0.0.0.0:5060", "\"http\" is no SIP transport"),
            ("sip-listener", "udp://localhost:5060", "\"localhost:5060\" is not an IP address with a port"),
            (
                "port-range",
                "29999-20000",
                "\"29999-20000\" is empty; put the lower port first: \"20000-29999\"",
            ),
            ("port-range", "20001-20002", "\"20001-20002\" holds no even port followed by an odd one"),
            ("port-range", "20-30", "\"20-30\" begins below 1024"),
            ("port-range", "20000", "\"20000\" is not a range of ports"),
            (
                "network",
                "54.172.60.1/30",
                "\"54.172.60.1/30\" has bits set behind its prefix; write \"54.172.60.0/30\"",
            ),
            ("network", "sip.example.com", "\"sip.example.com\" is no network"),
            ("websocket-url", "https://x/", "\"https://\" cannot be used here; begin with wss:// or ws://"),
            ("websocket-url", "api.openai.com", "this is no URL"),
            ("store-url", "sqlite://", "the SQLite URL names no file"),
            ("store-url", "mysql://x/y", "\"mysql://\" cannot be used here"),
            ("socket-address", "8080", "\"8080\" is not an IP address with a port"),
            ("sip-target", "a b", "\"a b\" is no SIP host"),
            ("name", "two words", "\"two words\" is no name"),
        ];
        for (format, text, start) in table {
            let got = refusal(format, text);
            assert!(got.starts_with(start), "{format} {text:?}: {got}");
        }
    }

    #[test]
    fn a_secret_in_place_of_a_variable_name_is_not_repeated() {
        let got = refusal("variable-name", "sk-proj-123");
        assert!(got.contains("may be the secret itself") && !got.contains("123"), "{got}");
    }

    #[test]
    fn a_range_counts_its_pairs() {
        for (range, pairs) in
            [("20000-20001", 1), ("20000-29999", 5_000), ("20001-20004", 1), ("65534-65535", 1)]
        {
            assert_eq!(range.parse::<PortRange>().expect("valid").pairs(), pairs, "{range}");
        }
    }

    #[test]
    fn urls_lose_their_password_when_shown() {
        assert_eq!(mask_url("postgres://u:pw@db:5432/t"), "postgres://u:***@db:5432/t");
        assert_eq!(mask_url("sqlite://data/tandem.db"), "sqlite://data/tandem.db");
        assert_eq!(mask_url("redis://:p@ss@h/1"), "redis://:***@h/1");
    }

    #[test]
    fn an_ipv4_mapped_source_is_in_its_ipv4_network() {
        let network: Network = "192.0.2.0/24".parse().expect("valid");
        assert!(network.contains("::ffff:192.0.2.9".parse().expect("valid")));
        assert!(!network.contains("192.0.3.9".parse().expect("valid")));
    }
}
