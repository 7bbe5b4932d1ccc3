//! What the API tells of one call's signalling and media.

use serde::{Deserialize, Serialize};

use super::glance::{self, Glance, Kind};
use super::story::StoryLine;
use super::{Kept, Trace};

/// The messages and the media story of one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceDocument {
    /// The call.
    pub call_id: String,
    /// Its dialogs, by Call-ID, in the order they came up.
    pub legs: Vec<TracedLeg>,
    /// All messages that are kept, by time.
    pub messages: Vec<TracedMessage>,
    /// What became of the media, by time.
    pub story: Vec<StoryLine>,
}

/// One dialog of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedLeg {
    /// The Call-ID header.
    pub sip_call_id: String,
    /// How many of its messages are kept; 0 when they have made room for newer calls.
    pub messages: usize,
    /// Messages given up from the middle of a long dialog.
    pub dropped: u64,
}

/// One message of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TracedMessage {
    /// Microseconds since 1970-01-01 UTC.
    pub at_us: i64,
    /// Milliseconds since the first message of the call.
    pub offset_ms: f64,
    /// The Call-ID header.
    pub sip_call_id: String,
    /// From Tandem to the peer.
    pub outgoing: bool,
    /// `udp`, `tcp`, `tls`, `ws` or `wss`.
    pub transport: String,
    /// Tandem's address.
    pub local: String,
    /// The peer's address.
    pub remote: String,
    /// The first line.
    pub start_line: String,
    /// Status of a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The method; of a response the method it answers.
    pub method: String,
    /// The CSeq number, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cseq: Option<u32>,
    /// The session description in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdp: Option<String>,
    /// The same octets again.
    pub repeated: bool,
    /// All of it; secrets are stars, octets that are no UTF-8 are replaced.
    pub text: String,
}

impl TraceDocument {
    /// Puts together what is known. `asked` are the Call-IDs of the call, `found` those that are still kept.
    pub fn new(call_id: String, asked: &[String], found: &[Trace], story: Vec<StoryLine>) -> Self {
        let of = |asked: &str| found.iter().find(|trace| &*trace.call_id == asked);
        let legs = asked
            .iter()
            .map(|sip_call_id| TracedLeg {
                sip_call_id: sip_call_id.clone(),
                messages: of(sip_call_id).map_or(0, |trace| trace.messages.len()),
                dropped: of(sip_call_id).map_or(0, |trace| trace.dropped),
            })
            .collect();
        let mut all: Vec<(&str, &Kept)> = found
            .iter()
            .flat_map(|trace| trace.messages.iter().map(|message| (&*trace.call_id, message)))
            .collect();
        all.sort_by_key(|(_, message)| message.at_us);
        let began = all.first().map_or(0, |(_, message)| message.at_us);
        let messages = all.iter().map(|(leg, message)| TracedMessage::new(leg, message, began)).collect();
        let mut document = Self { call_id, legs, messages, story };
        document.place_story(began);
        document
    }

    /// Story times count from the first message, as the messages' do.
    fn place_story(&mut self, began_us: i64) {
        let began = if self.messages.is_empty() {
            self.story.first().map(|line| line.at_ms * 1_000)
        } else {
            Some(began_us)
        };
        for line in &mut self.story {
            line.offset_ms = (line.at_ms * 1_000 - began.unwrap_or_default()) as f64 / 1_000.0;
        }
    }
}

impl TracedMessage {
    fn new(leg: &str, message: &Kept, began_us: i64) -> Self {
        let text = String::from_utf8_lossy(&message.bytes).into_owned();
        let start_line = text.lines().next().unwrap_or_default().to_owned();
        let (status, method) = match Glance::of(&message.bytes).map(|glance| glance.kind) {
            Some(Kind::Request { method }) => (None, method.to_owned()),
            Some(Kind::Response { status, method }) => (Some(status), method.to_owned()),
            None => (None, String::new()),
        };
        let head = String::from_utf8_lossy(glance::head(&message.bytes));
        let cseq =
            glance::header(&head, "CSeq", "").and_then(|value| value.split_whitespace().next()?.parse().ok());
        Self {
            at_us: message.at_us,
            offset_ms: (message.at_us - began_us) as f64 / 1_000.0,
            sip_call_id: leg.to_owned(),
            outgoing: message.outgoing,
            transport: message.transport.uri_token().to_owned(),
            local: message.local.to_string(),
            remote: message.remote.to_string(),
            start_line,
            status,
            method,
            cseq,
            sdp: session(&message.bytes),
            repeated: message.repeated,
            text,
        }
    }
}

/// `PCMU PCMA telephone-event, 192.0.2.1:4000, sendrecv`, or `None` without a session description.
fn session(message: &[u8]) -> Option<String> {
    let body = String::from_utf8_lossy(glance::body(message));
    // A body of several parts has the description somewhere inside.
    let body = &body[body.find("v=0")?..];
    let mut address = "";
    let mut streams: Vec<Stream<'_>> = Vec::new();
    let mut direction = "";
    for line in body.lines() {
        let stream = streams.last_mut();
        if let Some(media) = line.strip_prefix("m=") {
            streams.push(Stream::read(media, address, direction));
        } else if let Some(connection) = line.strip_prefix("c=") {
            let value = connection.split_whitespace().nth(2).unwrap_or_default();
            stream.map_or_else(|| address = value, |stream| stream.address = value);
        } else if let Some(attribute) = line.strip_prefix("a=") {
            if let "sendrecv" | "sendonly" | "recvonly" | "inactive" = attribute {
                stream.map_or_else(|| direction = attribute, |stream| stream.direction = attribute);
            } else if let Some(stream) = stream {
                stream.attribute(attribute);
            }
        }
    }
    let told: Vec<String> = streams.iter().map(Stream::told).collect();
    Some(told.join("; ")).filter(|told| !told.is_empty())
}

struct Stream<'a> {
    kind: &'a str,
    port: &'a str,
    secure: bool,
    suite: Option<&'a str>,
    formats: Vec<(&'a str, &'a str)>,
    address: &'a str,
    direction: &'a str,
}

impl<'a> Stream<'a> {
    fn read(media: &'a str, address: &'a str, direction: &'a str) -> Self {
        let mut words = media.split_whitespace();
        let (kind, port) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let secure = words.next().unwrap_or_default().contains("SAVP");
        let formats = words.map(|number| (number, static_name(number))).collect();
        Self { kind, port, secure, suite: None, formats, address, direction }
    }

    fn attribute(&mut self, attribute: &'a str) {
        if let Some(map) = attribute.strip_prefix("rtpmap:") {
            let Some((number, name)) = map.split_once(' ') else { return };
            let name = name.split('/').next().unwrap_or_default();
            for (_, known) in self.formats.iter_mut().filter(|(n, _)| *n == number) {
                *known = name;
            }
        } else if let Some(crypto) = attribute.strip_prefix("crypto:") {
            self.suite = self.suite.or(crypto.split_whitespace().nth(1));
        }
    }

    fn told(&self) -> String {
        let mut text = if self.kind == "audio" { String::new() } else { format!("{} ", self.kind) };
        if self.port == "0" {
            return format!("{} refused", if text.is_empty() { "audio" } else { self.kind });
        }
        let names: Vec<&str> = self.formats.iter().map(|(_, name)| *name).collect();
        text.push_str(&names.join(" "));
        let open =
            if self.address.contains(':') { format!("[{}]", self.address) } else { self.address.to_owned() };
        text.push_str(&format!(", {open}:{}", self.port));
        if !self.direction.is_empty() {
            text.push_str(&format!(", {}", self.direction));
        }
        match (self.secure, self.suite) {
            (_, Some(suite)) => text.push_str(&format!(", SRTP {suite}")),
            (true, None) => text.push_str(", SRTP"),
            (false, None) => {}
        }
        text
    }
}

/// Of the static payload types (RFC 3551 §6) those that are still met; another stands as its number.
fn static_name(number: &str) -> &str {
    match number {
        "0" => "PCMU",
        "3" => "GSM",
        "8" => "PCMA",
        "9" => "G722",
        "13" => "CN",
        "18" => "G729",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_description_fits_a_line() {
        let told = |body: &str| session(format!("INVITE sip:a SIP/2.0\r\n\r\n{body}").as_bytes());
        assert_eq!(
            told(
                "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
            ),
            Some("PCMU PCMA telephone-event, 192.0.2.1:4000, sendrecv".into())
        );
        assert_eq!(
            told(
                "v=0\r\na=inactive\r\nm=audio 4000 RTP/SAVP 96\r\nc=IN IP6 ::1\r\na=rtpmap:96 opus/48000/2\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\nm=video 0 RTP/AVP 31\r\n"
            ),
            Some("opus, [::1]:4000, inactive, SRTP AES_CM_128_HMAC_SHA1_80; video refused".into())
        );
        assert_eq!(told("Signal=1"), None);
        assert_eq!(told(""), None);
    }
}
