//! Session descriptions (RFC 8866): a lenient reader, an exact writer.
//!
//! Telephony equipment leaves out `s=` and `t=`, puts attributes anywhere, ends lines with LF and writes
//! `a=rtpmap:31 LPC`. What can be understood is; what cannot is skipped, except the `v=` that says this is
//! SDP at all and the `m=` lines, because an answer must have one for each of them.

use std::fmt;
use std::net::IpAddr;

/// A session description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sdp {
    /// `o=`: everything after it, as written. Empty when the peer left it out.
    pub origin: Origin,
    /// `s=`; may be empty.
    pub session_name: String,
    /// `c=` of the session.
    pub connection: Option<Connection>,
    /// `b=` of the session, as written.
    pub bandwidth: Vec<String>,
    /// `a=` of the session.
    pub attributes: Vec<Attribute>,
    /// The `m=` sections in order.
    pub media: Vec<Media>,
}

/// `o=`, kept as text: its numbers may be larger than any integer, its address is not where media goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin(pub String);

/// `c=`: where media goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The address as written, without TTL: an IP address (never in brackets) or a name.
    pub host: String,
    /// Whether it was declared `IP6`.
    pub is_ip6: bool,
}

/// `a=`: a property (`sendrecv`) or a value (`ptime:20`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// What stands before the colon.
    pub name: String,
    /// What stands after it.
    pub value: Option<String>,
}

/// An `m=` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `image`, ...
    pub kind: String,
    /// Port; 0 means refused or switched off.
    pub port: u16,
    /// `RTP/AVP`, `RTP/SAVP`, ...
    pub proto: String,
    /// Payload types, or whatever else `proto` counts by.
    pub formats: Vec<String>,
    /// `c=` of this section.
    pub connection: Option<Connection>,
    /// `b=` of this section, as written.
    pub bandwidth: Vec<String>,
    /// `a=` of this section.
    pub attributes: Vec<Attribute>,
}

/// `a=rtpmap`: what a payload type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpMap<'a> {
    /// Encoding name; case does not matter.
    pub encoding: &'a str,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Channels; 1 when left out.
    pub channels: u8,
}

/// Which way media flows, as seen by whoever wrote the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// Both ways; the default.
    #[default]
    SendRecv,
    /// Out only.
    SendOnly,
    /// In only.
    RecvOnly,
    /// Neither way. RTCP goes on.
    Inactive,
}

/// Octets that are no session description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// There is no `v=0` line at the start.
    #[error("no `v=0` at the start")]
    NotSdp,
    /// An `m=` line cannot be read, so it cannot be answered either.
    #[error("an `m=` line that cannot be read")]
    MediaLine,
    /// It exceeds 32 KiB, 64 media sections, 128 formats or 256 attributes in one section.
    #[error("too many or too long {0}")]
    TooMuch(&'static str),
}

impl Sdp {
    /// Reads a description.
    ///
    /// # Errors
    /// When it is none, an `m=` line is broken, or a bound is exceeded.
    pub fn parse(text: &[u8]) -> Result<Self, SdpError> {
        if text.len() > MAX_BYTES {
            return Err(SdpError::TooMuch("octets"));
        }
        let mut lines = lines_of(text);
        match lines.next() {
            Some((b'v', version)) if trim(version) == b"0" => {}
            _ => return Err(SdpError::NotSdp),
        }
        let mut sdp = Self::default();
        for (kind, value) in lines {
            sdp.read_line(kind, &String::from_utf8_lossy(value))?;
        }
        Ok(sdp)
    }

    /// The description as octets, CRLF line ends. Control octets within values become spaces.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = String::with_capacity(512);
        line(&mut out, 'v', "0");
        line(&mut out, 'o', &self.origin.0);
        line(&mut out, 's', if self.session_name.is_empty() { "-" } else { &self.session_name });
        section(&mut out, self.connection.as_ref(), &self.bandwidth, &[]);
        line(&mut out, 't', "0 0");
        section(&mut out, None, &[], &self.attributes);
        for media in &self.media {
            line(&mut out, 'm', &media.to_line());
            section(&mut out, media.connection.as_ref(), &media.bandwidth, &media.attributes);
        }
        out.into_bytes()
    }

    /// The connection that holds for a section: its own, or the session's.
    pub fn connection_of<'a>(&'a self, media: &'a Media) -> Option<&'a Connection> {
        media.connection.as_ref().or(self.connection.as_ref())
    }

    /// The direction that holds for a section: its own, or the session's, or both ways.
    pub fn direction_of(&self, media: &Media) -> Direction {
        let find = |attributes: &[Attribute]| attributes.iter().rev().find_map(|a| Direction::parse(&a.name));
        find(&media.attributes).or_else(|| find(&self.attributes)).unwrap_or_default()
    }

    /// `ptime` in milliseconds that holds for a section; 0 and nonsense count as absent.
    pub fn ptime_of(&self, media: &Media) -> Option<u16> {
        self.milliseconds_of(media, "ptime")
    }

    /// `maxptime` in milliseconds that holds for a section; 0 and nonsense count as absent.
    pub fn max_ptime_of(&self, media: &Media) -> Option<u16> {
        self.milliseconds_of(media, "maxptime")
    }

    fn milliseconds_of(&self, media: &Media, name: &str) -> Option<u16> {
        let text = media.attribute(name).or_else(|| value_of(&self.attributes, name))?;
        // "20.0" and "20 " occur.
        let digits = text.trim().split('.').next().unwrap_or_default();
        digits.parse().ok().filter(|ms| *ms > 0)
    }

    fn read_line(&mut self, kind: u8, value: &str) -> Result<(), SdpError> {
        if kind == b'm' {
            if self.media.len() == MAX_MEDIA {
                return Err(SdpError::TooMuch("media sections"));
            }
            self.media.push(Media::parse(value)?);
            return Ok(());
        }
        let (connection, bandwidth, attributes) = match self.media.last_mut() {
            Some(media) => (&mut media.connection, &mut media.bandwidth, &mut media.attributes),
            None => (&mut self.connection, &mut self.bandwidth, &mut self.attributes),
        };
        match kind {
            b'o' if self.origin.0.is_empty() => self.origin.0 = value.to_owned(),
            b's' if self.session_name.is_empty() => self.session_name = value.trim().to_owned(),
            b'c' => *connection = Connection::parse(value).or(connection.take()),
            b'b' | b'a' if attributes.len() + bandwidth.len() >= MAX_ATTRIBUTES => {
                return Err(SdpError::TooMuch("attributes"));
            }
            b'b' => bandwidth.push(value.to_owned()),
            b'a' => attributes.push(Attribute::parse(value)),
            _ => {}
        }
        Ok(())
    }
}

impl fmt::Display for Sdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

impl Origin {
    /// The `sess-id` and `sess-version` fields.
    pub fn id_and_version(&self) -> Option<(&str, &str)> {
        let mut fields = self.0.split_ascii_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    }
}

impl Connection {
    /// An IP address.
    pub fn of(ip: IpAddr) -> Self {
        Self { host: ip.to_string(), is_ip6: ip.is_ipv6() }
    }

    /// The address, when it is one. An IPv4 address mapped into IPv6 comes out as IPv4.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    }

    /// Reads `IN IP4 198.51.100.1/127`; `None` when it is broken.
    fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split_ascii_whitespace();
        let network = fields.next()?;
        let family = fields.next()?;
        let host = fields.next()?.split('/').next()?;
        // What was no UTF-8 has become a character of three bytes.
        let family_is_ip =
            family.len() == 3 && family.get(..2).is_some_and(|ip| ip.eq_ignore_ascii_case("IP"));
        if !network.eq_ignore_ascii_case("IN") || !family_is_ip || host.is_empty() {
            return None;
        }
        Some(Self { host: host.to_owned(), is_ip6: family.ends_with('6') })
    }
}

impl Attribute {
    /// A property.
    pub fn flag(name: &str) -> Self {
        Self { name: name.to_owned(), value: None }
    }

    /// A value.
    pub fn value(name: &str, value: impl fmt::Display) -> Self {
        Self { name: name.to_owned(), value: Some(value.to_string()) }
    }

    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((name, value)) => {
                Self { name: name.trim().to_owned(), value: Some(value.trim().to_owned()) }
            }
            None => Self::flag(text.trim()),
        }
    }
}

impl Media {
    /// The value of the first attribute of this name, in this section.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        value_of(&self.attributes, name)
    }

    /// Whether the attribute stands in this section.
    pub fn has(&self, name: &str) -> bool {
        self.attributes.iter().any(|a| a.name == name)
    }

    /// What `a=rtpmap` says of a payload type; a line that cannot be read is passed over.
    pub fn rtpmap(&self, payload_type: u8) -> Option<RtpMap<'_>> {
        self.of_payload_type("rtpmap", payload_type).find_map(RtpMap::parse)
    }

    /// What `a=fmtp` says of a payload type.
    pub fn fmtp(&self, payload_type: u8) -> Option<&str> {
        self.of_payload_type("fmtp", payload_type).next()
    }

    /// The formats that are payload types, in order.
    pub fn payload_types(&self) -> impl Iterator<Item = u8> {
        self.formats.iter().filter_map(|f| f.parse().ok()).filter(|payload_type| *payload_type < 128)
    }

    /// `a=rtcp`: port, and address when one is written (RFC 3605).
    pub fn rtcp(&self) -> Option<(u16, Option<IpAddr>)> {
        let (port, rest) = match self.attribute("rtcp")?.split_once(' ') {
            Some((port, rest)) => (port, Some(rest)),
            None => (self.attribute("rtcp")?, None),
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some((port, rest.and_then(Connection::parse).and_then(|c| c.ip())))
    }

    fn of_payload_type<'a>(&'a self, name: &'a str, payload_type: u8) -> impl Iterator<Item = &'a str> {
        let values =
            self.attributes.iter().filter(move |a| a.name == name).filter_map(|a| a.value.as_deref());
        values.filter_map(move |value| {
            let (number, rest) = value.split_once([' ', '\t'])?;
            (number.parse() == Ok(payload_type)).then_some(rest.trim())
        })
    }

    fn parse(value: &str) -> Result<Self, SdpError> {
        // Printed as a space, a control octet would make two fields of one.
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(SdpError::MediaLine);
        }
        let mut fields = value.split_ascii_whitespace();
        let mut next = || fields.next().ok_or(SdpError::MediaLine);
        let (kind, port, proto) = (next()?, next()?, next()?);
        let port = port.split('/').next().and_then(|p| p.parse().ok()).ok_or(SdpError::MediaLine)?;
        let formats: Vec<String> = fields.take(MAX_FORMATS + 1).map(str::to_owned).collect();
        if formats.len() > MAX_FORMATS {
            return Err(SdpError::TooMuch("formats"));
        }
        Ok(Self {
            kind: kind.to_owned(),
            port,
            proto: proto.to_owned(),
            formats,
            connection: None,
            bandwidth: Vec::new(),
            attributes: Vec::new(),
        })
    }

    fn to_line(&self) -> String {
        let mut text = format!("{} {} {}", self.kind, self.port, self.proto);
        for format in &self.formats {
            text.push(' ');
            text.push_str(format);
        }
        text
    }
}

impl<'a> RtpMap<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut fields = text.split('/');
        let encoding = fields.next()?.trim();
        let clock_rate = fields.next()?.trim().parse().ok()?;
        let channels = fields.next().and_then(|c| c.trim().parse().ok()).unwrap_or(1);
        Some(Self { encoding, clock_rate, channels })
    }
}

impl Direction {
    /// As written in an attribute.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// A direction of its two halves.
    pub const fn of(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whether media goes out.
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether media comes in.
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same, seen from the other side.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self::of(self.receives(), self.sends())
    }

    /// What both allow.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self::of(self.sends() && other.sends(), self.receives() && other.receives())
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|direction| direction.as_str().eq_ignore_ascii_case(name))
    }
}

fn value_of<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|a| a.name == name && a.value.is_some()).and_then(|a| a.value.as_deref())
}

/// `x=...` lines; others are passed over.
fn lines_of(text: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    text.split(|b| matches!(b, b'\n' | b'\r')).filter_map(|line| match line {
        [kind, b'=', value @ ..] => Some((*kind, value)),
        _ => None,
    })
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

fn section(
    out: &mut String,
    connection: Option<&Connection>,
    bandwidth: &[String],
    attributes: &[Attribute],
) {
    if let Some(connection) = connection {
        let family = if connection.is_ip6 { "IP6" } else { "IP4" };
        line(out, 'c', &format!("IN {family} {}", connection.host));
    }
    for text in bandwidth {
        line(out, 'b', text);
    }
    for attribute in attributes {
        match &attribute.value {
            Some(value) => line(out, 'a', &format!("{}:{value}", attribute.name)),
            None => line(out, 'a', &attribute.name),
        }
    }
}

fn line(out: &mut String, kind: char, value: &str) {
    out.push(kind);
    out.push('=');
    out.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
    out.push_str("\r\n");
}

const MAX_BYTES: usize = 32_768;
const MAX_MEDIA: usize = 64;
const MAX_FORMATS: usize = 128;
const MAX_ATTRIBUTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Sdp {
        Sdp::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_telephony_equipment_leaves_out_is_no_error() {
        let sdp = parse(
            "v=0\no=- 99999999999999999999999 1 IN IP4 h\na=x\nc=IN IP4 192.0.2.1/127\nm=audio 4000 RTP/AVP 0\n",
        );
        assert_eq!(sdp.origin.id_and_version(), Some(("99999999999999999999999", "1")));
        assert_eq!(sdp.connection.as_ref().and_then(Connection::ip), "192.0.2.1".parse().ok());
        assert_eq!(sdp.media[0].port, 4000);
        assert!(sdp.session_name.is_empty());
    }

    #[test]
    fn a_bad_rtpmap_is_passed_over_and_the_next_one_read() {
        let sdp = parse(
            "v=0\r\nm=audio 4 RTP/AVP 31 101\r\na=rtpmap:31 LPC\r\na=rtpmap:x PCMU/8000\r\na=rtpmap:101 telephone-event/8000/1\r\n",
        );
        assert_eq!(sdp.media[0].rtpmap(31), None);
        let expected = RtpMap { encoding: "telephone-event", clock_rate: 8000, channels: 1 };
        assert_eq!(sdp.media[0].rtpmap(101), Some(expected));
    }

    #[test]
    fn media_overrides_session() {
        let sdp = parse(
            "v=0\r\nc=IN IP4 192.0.2.1\r\na=sendonly\r\na=ptime:30\r\nm=audio 4 RTP/AVP 0\r\nm=audio 6 RTP/AVP 0\r\nc=IN IP6 ::ffff:192.0.2.9\r\na=inactive\r\na=ptime:20\r\na=maxptime:0\r\na=rtcp:77 IN IP4 192.0.2.8\r\n",
        );
        let (first, second) = (&sdp.media[0], &sdp.media[1]);
        assert_eq!(sdp.direction_of(first), Direction::SendOnly);
        assert_eq!(sdp.direction_of(second), Direction::Inactive);
        assert_eq!((sdp.ptime_of(first), sdp.ptime_of(second)), (Some(30), Some(20)));
        assert_eq!(sdp.max_ptime_of(second), None);
        assert_eq!(sdp.connection_of(second).and_then(Connection::ip), "192.0.2.9".parse().ok());
        assert_eq!(second.rtcp(), Some((77, "192.0.2.8".parse().ok())));
    }

    #[test]
    fn printing_and_reading_gives_the_same() {
        let sdp = parse(
            "v=0\r\no=- 1 2 IN IP6 ::1\r\ns=x\r\nc=IN IP6 2001:db8::1\r\nb=AS:84\r\na=tool:x\r\nm=audio 4 RTP/AVP 0 8\r\nb=TIAS:64000\r\na=sendrecv\r\nm=video 0 RTP/AVP 31\r\n",
        );
        assert_eq!(Sdp::parse(&sdp.to_bytes()), Ok(sdp));
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_line() {
        let sdp = Sdp { session_name: "a\r\nm=audio 1 RTP/AVP 0".into(), ..Sdp::default() };
        assert!(Sdp::parse(&sdp.to_bytes()).unwrap().media.is_empty());
    }

    #[test]
    fn an_address_of_a_strange_family_is_passed_over() {
        for family in [&b"\xb8"[..], b"I\xff", b"IP", b"IPX4"] {
            let text = [b"v=0\r\nc=IN ", family, b" 192.0.2.1\r\n"].concat();
            assert_eq!(Sdp::parse(&text).unwrap().connection, None);
        }
    }

    #[test]
    fn bounds_hold() {
        let many = format!("v=0\r\n{}", "m=audio 1 RTP/AVP 0\r\n".repeat(65));
        assert_eq!(Sdp::parse(many.as_bytes()), Err(SdpError::TooMuch("media sections")));
        let many = format!("v=0\r\n{}", "a=x\r\n".repeat(257));
        assert_eq!(Sdp::parse(many.as_bytes()), Err(SdpError::TooMuch("attributes")));
        assert_eq!(Sdp::parse(b"m=audio 1 RTP/AVP 0\r\n"), Err(SdpError::NotSdp));
        assert_eq!(Sdp::parse(b"v=0\r\nm=audio x RTP/AVP 0\r\n"), Err(SdpError::MediaLine));
        assert_eq!(Sdp::parse(b"v=0\r\nm=au\x03dio 1 RTP/AVP 0\r\n"), Err(SdpError::MediaLine));
    }
}
