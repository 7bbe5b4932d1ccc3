//! Offer and answer (RFC 3264, RFC 6337): two session descriptions become one [`MediaPlan`].
//!
//! A [`Negotiation`] lives as long as a leg. It answers the peer's offers, makes ours (a late offer in a
//! 200, a re-INVITE), keeps what must not change between them (payload types, the order of media lines,
//! the version of `o=`), and leaves everything as it was when an exchange fails.

mod address;
mod answer;
mod body;
mod crypto;
mod offer;

use std::net::{IpAddr, SocketAddr};

pub use address::AddressPolicy;
pub use body::{BodyError, session_description};

use super::headers::HeaderValue;
use super::message::StatusCode;
use super::sdp::{Attribute, Connection, Direction, Media, Origin, Sdp, SdpError};
use super::trunk::SrtpPolicy;
use crate::audio::Codec;
use crate::rtp::srtp::{SrtpKeys, Suite};

use crypto::{KeySource, Line};

/// What both sides agreed on: everything a media stream must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPlan {
    /// Where the peer wants its RTP. Unspecified (`0.0.0.0`) while it is held the old way; none is sent then.
    pub remote: SocketAddr,
    /// Where the peer wants its RTCP.
    pub remote_rtcp: SocketAddr,
    /// What we send.
    pub codec: Codec,
    /// The payload type we send it with.
    pub payload_type: u8,
    /// What the peer may send, switching at any time: payload type and codec.
    pub receive: Vec<(u8, Codec)>,
    /// Telephone events we send: payload type and RTP clock in Hz; `None` when not agreed.
    pub telephone_event: Option<(u8, u32)>,
    /// Telephone events the peer may send: one payload type for each clock.
    pub receive_events: Vec<(u8, u32)>,
    /// Audio per packet we send, in milliseconds.
    pub ptime_ms: u16,
    /// Which way media flows, as seen by us.
    pub direction: Direction,
    /// RTCP shares the RTP port (RFC 5761).
    pub rtcp_mux: bool,
    /// Keys of SRTP; `None` when media goes in the clear.
    pub srtp: Option<SrtpKeys>,
    /// Whether media is encrypted.
    pub secure: bool,
}

impl MediaPlan {
    /// Whether the peer put us on hold: it does not want to hear us.
    pub fn is_held(&self) -> bool {
        !self.direction.sends()
    }
}

/// What we can do and how we choose.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// The codecs we take, best first.
    pub codecs: Vec<Codec>,
    /// Whose order decides when we answer. Default: the offerer's.
    pub preference: Preference,
    /// Answer with the chosen codec alone, so that the peer cannot switch in mid-stream. Default: no.
    pub single_codec: bool,
    /// Offer and accept telephone events (RFC 4733). Default: yes.
    pub telephone_event: bool,
    /// What we like to receive per packet, in milliseconds; also what we send unless asked otherwise.
    /// Default 20.
    pub ptime_ms: u16,
    /// What we are able to send per packet, in milliseconds. Default 20, 40, 60.
    pub ptimes_ms: Vec<u16>,
    /// Accept RTCP on the RTP port when it is offered (RFC 5761); never offered by us. Default: yes.
    pub rtcp_mux: bool,
    /// Whether media is encrypted. Anything but `Off` needs [`Negotiation::set_key_source`]. Default: off.
    pub srtp: SrtpPolicy,
    /// The suites we take and offer, best first. Default: all.
    pub suites: Vec<Suite>,
    /// Where we let ourselves be sent to.
    pub addresses: AddressPolicy,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            preference: Preference::Theirs,
            single_codec: false,
            telephone_event: true,
            ptime_ms: 20,
            ptimes_ms: vec![20, 40, 60],
            rtcp_mux: true,
            srtp: SrtpPolicy::Off,
            suites: Suite::ALL.to_vec(),
            addresses: AddressPolicy::default(),
        }
    }
}

/// Whose codec order decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// The first of the offer that we know.
    Theirs,
    /// The first of ours that is in the offer.
    Ours,
}

/// The offer/answer state of one leg.
#[derive(Debug, Clone)]
pub struct Negotiation {
    capabilities: Capabilities,
    /// Where we receive RTP, as told to the peer; RTCP on the next port.
    local: SocketAddr,
    session_id: u64,
    version: u64,
    /// Which way we want media to flow; `SendRecv` unless we hold.
    wish: Direction,
    /// The description the peer last got from us.
    sent: Option<Sdp>,
    /// Ours that waits for an answer, with what the session was before it.
    pending: Option<Pending>,
    /// What every payload type of this session means; it never changes (RFC 3264 section 8.3.2).
    payload_types: Vec<(u8, Format)>,
    /// The media sections of the session, ours being one of them.
    layout: Layout,
    plan: Option<MediaPlan>,
    keys: KeySource,
}

/// The outcome of a completed exchange.
#[derive(Debug, Clone)]
pub struct Negotiated {
    /// What to do from here on.
    pub plan: MediaPlan,
    /// Whether the plan differs from the one before; a session refresh leaves it as it was.
    pub changed: bool,
    /// The answer to send; `None` when the peer answered us.
    pub answer: Option<Vec<u8>>,
}

/// Why two descriptions do not make a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// The body is no session description.
    #[error("session description: {0}")]
    Sdp(#[from] SdpError),
    /// There is no audio section that is switched on.
    #[error("no audio is offered")]
    NoAudio,
    /// Audio only over a transport we do not have, or SRTP where the trunk has it off.
    #[error("audio is offered over a transport we do not have")]
    Transport,
    /// SRTP, but no `a=crypto` line that we could use.
    #[error("SRTP is offered without a suite and key in common")]
    NoCommonCrypto,
    /// Plain RTP where media must be encrypted.
    #[error("media must be encrypted and is offered in the clear")]
    InTheClear,
    /// No codec in common.
    #[error("no codec in common")]
    NoCommonCodec,
    /// The media address is missing, or a name; we take addresses only.
    #[error("the media address is missing or a name")]
    NoAddress,
    /// The media address is of the other IP family than the one we listen on.
    #[error("the media address is of another IP family")]
    AddressFamily,
    /// The media address is one nobody may send us to.
    #[error("the media address is refused")]
    AddressRefused,
    /// An answer came without an offer of ours.
    #[error("an answer without an offer")]
    NoOffer,
    /// The answer refuses the audio, or does not fit the offer.
    #[error("the answer does not fit the offer")]
    AnswerMismatch,
}

impl NegotiationError {
    /// The status for an INVITE or re-INVITE that carried the offer.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Sdp(_) => StatusCode::BAD_REQUEST,
            Self::NoAudio
            | Self::Transport
            | Self::NoCommonCrypto
            | Self::InTheClear
            | Self::NoCommonCodec
            | Self::NoAddress
            | Self::AddressFamily
            | Self::AddressRefused
            | Self::NoOffer
            | Self::AnswerMismatch => StatusCode::NOT_ACCEPTABLE_HERE,
        }
    }

    /// The Warning code and text that go with a 488 (RFC 3261 section 20.43).
    pub const fn warning(self) -> (u16, &'static str) {
        match self {
            Self::AddressFamily => (300, "Incompatible network protocol"),
            Self::NoAddress => (301, "Incompatible network address formats"),
            Self::Transport | Self::InTheClear => (302, "Incompatible transport protocol"),
            Self::NoAudio => (304, "Media type not available"),
            Self::NoCommonCodec | Self::NoCommonCrypto => (305, "Incompatible media format"),
            Self::Sdp(_) | Self::AddressRefused | Self::NoOffer | Self::AnswerMismatch => {
                (399, "Session description not acceptable")
            }
        }
    }

    /// The Warning header of the answer; `agent` is our host or name.
    pub fn warning_header(self, agent: &str) -> HeaderValue {
        let (code, text) = self.warning();
        let agent: String = agent.chars().filter(|c| c.is_ascii_graphic() && !"\",".contains(*c)).collect();
        HeaderValue::cleaned(format!("{code} {agent} \"{text}\""))
    }
}

impl Negotiation {
    /// The state of a leg before its first exchange. `local` is where the peer sends its RTP: the
    /// advertised address, its RTCP port one above. `session_id` goes into `o=`; make it random.
    pub fn new(capabilities: Capabilities, local: SocketAddr, session_id: u64) -> Self {
        Self {
            capabilities,
            local,
            // RFC 8866 section 5.2: numeric; 2^62 keeps it printable for peers with signed integers.
            session_id: session_id >> 2,
            version: 1,
            wish: Direction::SendRecv,
            sent: None,
            pending: None,
            payload_types: Vec::new(),
            layout: Layout::default(),
            plan: None,
            keys: KeySource::default(),
        }
    }

    /// Where the keys we offer come from: a secret, random for each leg. Without it media is never encrypted.
    pub fn set_key_source(&mut self, seed: [u8; 32]) {
        self.keys = KeySource::new(seed);
    }

    /// What was last agreed on.
    pub fn plan(&self) -> Option<&MediaPlan> {
        self.plan.as_ref()
    }

    /// The description the peer last got from us, as it was sent: for a 200 that repeats a 183.
    pub fn sent(&self) -> Option<Vec<u8>> {
        self.sent.as_ref().map(Sdp::to_bytes)
    }

    /// Whether an offer of ours waits for its answer.
    pub fn is_offering(&self) -> bool {
        self.pending.is_some()
    }

    /// Which way we want media to flow from the next exchange on: `SendOnly` or `Inactive` to hold,
    /// `SendRecv` to resume.
    pub fn set_direction(&mut self, wish: Direction) {
        self.wish = wish;
    }

    /// Moves our RTP to another port or address from the next exchange on.
    pub fn set_local(&mut self, local: SocketAddr) {
        self.local = local;
    }

    /// Takes the next `o=` version when the description differs from the last one sent, else the same
    /// (RFC 3264 section 8), and remembers it as sent.
    fn seal(&mut self, mut sdp: Sdp) -> Sdp {
        if let Some(sent) = &self.sent {
            sdp.origin = sent.origin.clone();
            if sdp != *sent {
                self.version += 1;
            }
        }
        let family = if self.local.is_ipv6() { "IP6" } else { "IP4" };
        let (id, version, ip) = (self.session_id, self.version, self.local.ip());
        sdp.origin = Origin(format!("- {id} {version} IN {family} {ip}"));
        self.sent = Some(sdp.clone());
        sdp
    }

    /// A description with our audio section at its place and everything else refused.
    fn describe(&self, audio: Media) -> Sdp {
        let mut media: Vec<Media> = self.layout.sections.iter().map(Section::refused).collect();
        match media.get_mut(self.layout.audio) {
            Some(place) => *place = audio,
            None => media.push(audio),
        }
        Sdp {
            session_name: "-".into(),
            connection: Some(Connection::of(self.local.ip())),
            media,
            ..Sdp::default()
        }
    }

    fn commit(&mut self, plan: MediaPlan, answer: Option<Vec<u8>>) -> Negotiated {
        let changed = self.plan.as_ref() != Some(&plan);
        self.plan = Some(plan.clone());
        Negotiated { plan, changed, answer }
    }

    fn meaning(&self, payload_type: u8) -> Option<Format> {
        self.payload_types.iter().find(|(known, _)| *known == payload_type).map(|(_, format)| *format)
    }

    fn learn(&mut self, formats: &[(u8, Format)]) {
        for (payload_type, format) in formats {
            match self.payload_types.iter_mut().find(|(known, _)| known == payload_type) {
                Some((_, meaning)) => *meaning = *format,
                None => self.payload_types.push((*payload_type, *format)),
            }
        }
    }
}

/// The address media of an offer would go to, for choosing a local address of the same family before
/// [`Negotiation::answer`]: the first audio section that is switched on.
pub fn offered_address(sdp: &Sdp) -> Option<IpAddr> {
    let audio = sdp.media.iter().find(|media| media.kind == "audio" && media.port != 0)?;
    sdp.connection_of(audio).and_then(Connection::ip)
}

/// An offer of ours, and what the session was before it.
#[derive(Debug, Clone)]
struct Pending {
    formats: Vec<(u8, Format)>,
    /// The keys that were offered.
    lines: Vec<Line>,
    payload_types_before: Vec<(u8, Format)>,
    layout_before: Layout,
    answered: bool,
}

/// What a payload type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Audio(Codec),
    TelephoneEvent(u32),
}

impl Format {
    fn clock_rate(self) -> u32 {
        match self {
            Self::Audio(codec) => codec.clock_rate(),
            Self::TelephoneEvent(clock) => clock,
        }
    }

    /// What a payload type of a description stands for: its rtpmap, or RFC 3551's table.
    fn of(media: &Media, payload_type: u8) -> Option<Self> {
        match media.rtpmap(payload_type) {
            Some(map) if map.encoding.eq_ignore_ascii_case("telephone-event") => {
                Some(Self::TelephoneEvent(map.clock_rate))
            }
            Some(map) => Codec::from_rtpmap(map.encoding, map.clock_rate, map.channels).map(Self::Audio),
            None => Codec::from_static_payload_type(payload_type).map(Self::Audio),
        }
    }

    /// Its `a=` lines.
    fn describe(self, payload_type: u8, attributes: &mut Vec<Attribute>) {
        let (name, clock, channels) = match self {
            Self::Audio(codec) => (codec.rtpmap_name(), codec.clock_rate(), codec.rtpmap_channels()),
            Self::TelephoneEvent(clock) => ("telephone-event", clock, 1),
        };
        let channels = if channels == 1 { String::new() } else { format!("/{channels}") };
        attributes.push(Attribute::value("rtpmap", format!("{payload_type} {name}/{clock}{channels}")));
        match self {
            Self::TelephoneEvent(_) => {
                attributes.push(Attribute::value("fmtp", format!("{payload_type} 0-15")));
            }
            Self::Audio(Codec::Opus) => {
                let wish = format!("{payload_type} maxplaybackrate=24000;stereo=0;useinbandfec=1");
                attributes.push(Attribute::value("fmtp", wish));
            }
            Self::Audio(_) => {}
        }
    }
}

/// The media sections of the session in order; sections are never removed, only refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Layout {
    sections: Vec<Section>,
    audio: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    kind: String,
    proto: String,
    formats: Vec<String>,
}

impl Section {
    fn of(media: &Media) -> Self {
        Self { kind: media.kind.clone(), proto: media.proto.clone(), formats: media.formats.clone() }
    }

    fn refused(&self) -> Media {
        Media {
            kind: self.kind.clone(),
            port: 0,
            proto: self.proto.clone(),
            formats: self.formats.clone(),
            connection: None,
            bandwidth: Vec::new(),
            attributes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod crypto_tests;
#[cfg(test)]
mod tests;
