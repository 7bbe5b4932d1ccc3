//! Answering an offer (RFC 3264 section 6).

use std::net::{IpAddr, SocketAddr};

use super::{
    Attribute, Capabilities, Codec, Direction, Format, Layout, Line, Media, MediaPlan, Negotiated,
    Negotiation, NegotiationError, Preference, Sdp, Section,
};

impl Negotiation {
    /// Answers the offer of a peer that signals from `peer`. On an error nothing has changed: the session
    /// goes on as it was (RFC 3261 section 14.2).
    ///
    /// Our own offer that was still waiting for its answer is given up.
    ///
    /// # Errors
    /// When no session can be made of it; [`NegotiationError::status`] says how to refuse.
    pub fn answer(&mut self, offer: &[u8], peer: IpAddr) -> Result<Negotiated, NegotiationError> {
        self.answer_to(&Sdp::parse(offer)?, peer)
    }

    /// As [`Negotiation::answer`], for an offer that is already read.
    ///
    /// # Errors
    /// As [`Negotiation::answer`].
    pub fn answer_to(&mut self, offer: &Sdp, peer: IpAddr) -> Result<Negotiated, NegotiationError> {
        let (place, choice, line) = self.choose_section(offer)?;
        let media = &offer.media[place];
        let remote =
            Remote::of(offer, media, (&self.capabilities, self.capabilities.rtcp_mux), self.local, peer)?;
        let direction = remote.direction.reversed().and(self.wish);
        let ptime_ms = ptime_to_send(offer, media, &self.capabilities);

        self.withdraw_offer();
        // There is a source of keys when there is a line to take up.
        let srtp = line.and_then(|line| self.take_up(line));
        self.layout = Layout { sections: offer.media.iter().map(Section::of).collect(), audio: place };
        self.learn(&choice.formats);
        let section =
            self.answer_section(media, &choice.formats, direction, (remote.rtcp_mux, srtp.is_some()));
        let sdp = self.describe(section);
        let answer = self.seal(sdp).to_bytes();
        let plan = MediaPlan {
            remote: remote.rtp,
            remote_rtcp: remote.rtcp,
            codec: choice.codec,
            payload_type: choice.payload_type,
            receive: audio_of(&choice.formats),
            telephone_event: choice.telephone_event(),
            receive_events: events_of(&choice.formats),
            ptime_ms,
            direction,
            rtcp_mux: remote.rtcp_mux,
            secure: srtp.is_some(),
            srtp,
        };
        Ok(self.commit(plan, Some(answer)))
    }

    fn answer_section(
        &self,
        offered: &Media,
        formats: &[(u8, Format)],
        direction: Direction,
        (rtcp_mux, secure): (bool, bool),
    ) -> Media {
        let mut attributes = Vec::new();
        for (payload_type, format) in formats {
            format.describe(*payload_type, &mut attributes);
        }
        attributes.push(Attribute::value("ptime", self.capabilities.ptime_ms));
        attributes.push(Attribute::flag(direction.as_str()));
        if rtcp_mux {
            attributes.push(Attribute::flag("rtcp-mux"));
        }
        attributes.extend(self.keys.ours.as_ref().filter(|_| secure).map(Line::to_attribute));
        Media {
            kind: offered.kind.clone(),
            port: self.local.port(),
            proto: offered.proto.clone(),
            formats: formats.iter().map(|(payload_type, _)| payload_type.to_string()).collect(),
            connection: None,
            bandwidth: Vec::new(),
            attributes,
        }
    }

    /// The first audio section we can take, an encrypted one before a plain one; what is common in it, and
    /// how it is protected. The error tells about the section that came nearest.
    fn choose_section(&self, offer: &Sdp) -> Result<(usize, Choice, Option<Line>), NegotiationError> {
        let mut nearest = NegotiationError::NoAudio;
        let mut plain = None;
        for (place, media) in offer.media.iter().enumerate() {
            if !media.kind.eq_ignore_ascii_case("audio") || media.port == 0 {
                continue;
            }
            let line = match self.protection(media) {
                Ok(line) => line,
                Err(error) => {
                    if nearest == NegotiationError::NoAudio {
                        nearest = error;
                    }
                    continue;
                }
            };
            match Choice::of(&formats_of(media), &self.capabilities, self.capabilities.preference) {
                Some(choice) if line.is_some() => return Ok((place, self.narrowed(choice), line)),
                Some(choice) => plain = plain.or(Some((place, choice))),
                None => nearest = NegotiationError::NoCommonCodec,
            }
        }
        let (place, choice) = plain.ok_or(nearest)?;
        Ok((place, self.narrowed(choice), None))
    }

    fn narrowed(&self, choice: Choice) -> Choice {
        if self.capabilities.single_codec { choice.without_alternatives() } else { choice }
    }
}

/// The formats both sides know, the one to send first.
pub(super) struct Choice {
    pub(super) formats: Vec<(u8, Format)>,
    pub(super) codec: Codec,
    pub(super) payload_type: u8,
}

impl Choice {
    /// The codecs of `known` that `capabilities` has, in the order `preference` says, and with them the
    /// telephone events of their clocks.
    pub(super) fn of(
        known: &[(u8, Format)],
        capabilities: &Capabilities,
        preference: Preference,
    ) -> Option<Self> {
        let rank = |codec: &Codec| capabilities.codecs.iter().position(|ours| ours == codec);
        let mut codecs: Vec<(u8, Codec, usize)> = Vec::new();
        for (payload_type, format) in known {
            if let Format::Audio(codec) = format
                && let Some(rank) = rank(codec)
            {
                codecs.push((*payload_type, *codec, rank));
            }
        }
        if preference == Preference::Ours {
            codecs.sort_by_key(|(_, _, rank)| *rank);
        }
        let (payload_type, codec, _) = *codecs.first()?;
        let mut formats: Vec<_> = codecs.iter().map(|(pt, codec, _)| (*pt, Format::Audio(*codec))).collect();
        if capabilities.telephone_event {
            formats.extend(events_for(known, codec, &codecs));
        }
        Some(Self { formats, codec, payload_type })
    }

    /// Only the codec to send, and the telephone events to send.
    fn without_alternatives(mut self) -> Self {
        let events = self.telephone_event().map(|(payload_type, _)| payload_type);
        let codec = self.payload_type;
        self.formats.retain(|(payload_type, _)| *payload_type == codec || Some(*payload_type) == events);
        self
    }

    pub(super) fn telephone_event(&self) -> Option<(u8, u32)> {
        events_of(&self.formats).first().copied()
    }
}

/// The telephone events among formats: payload type and clock.
pub(super) fn events_of(formats: &[(u8, Format)]) -> Vec<(u8, u32)> {
    let event = |(payload_type, format): &(u8, Format)| match format {
        Format::TelephoneEvent(clock) => Some((*payload_type, *clock)),
        Format::Audio(_) => None,
    };
    formats.iter().filter_map(event).collect()
}

/// The codecs among formats.
pub(super) fn audio_of(formats: &[(u8, Format)]) -> Vec<(u8, Codec)> {
    let audio = |(payload_type, format): &(u8, Format)| match format {
        Format::Audio(codec) => Some((*payload_type, *codec)),
        Format::TelephoneEvent(_) => None,
    };
    formats.iter().filter_map(audio).collect()
}

/// The telephone events to agree on: those whose clock one of the codecs has, that of the codec we send
/// first, then those at 8 kHz, which everybody reads. When no clock fits (Opus with events at 8 kHz only), 8 kHz
/// or else the first offered is better than none.
fn events_for(known: &[(u8, Format)], codec: Codec, codecs: &[(u8, Codec, usize)]) -> Vec<(u8, Format)> {
    let events: Vec<_> =
        known.iter().filter(|(_, format)| matches!(format, Format::TelephoneEvent(_))).copied().collect();
    let has_clock = |clock: u32| codecs.iter().any(|(_, codec, _)| codec.clock_rate() == clock);
    let mut fitting: Vec<_> =
        events.iter().filter(|(_, format)| has_clock(format.clock_rate())).copied().collect();
    let usual = |(_, format): &(u8, Format)| format.clock_rate() == USUAL_EVENT_CLOCK;
    fitting.sort_by_key(|event| (event.1.clock_rate() != codec.clock_rate(), !usual(event)));
    if !fitting.iter().any(|(_, format)| format.clock_rate() == codec.clock_rate()) {
        let instead = events.iter().find(|event| usual(event)).or(events.first()).copied();
        fitting.retain(|event| Some(*event) != instead);
        fitting.splice(0..0, instead);
    }
    fitting
}

pub(super) fn formats_of(media: &Media) -> Vec<(u8, Format)> {
    let mut formats: Vec<(u8, Format)> = Vec::new();
    for payload_type in media.payload_types() {
        if formats.iter().any(|(known, _)| *known == payload_type) {
            continue;
        }
        formats.extend(Format::of(media, payload_type).map(|format| (payload_type, format)));
    }
    formats
}

/// Where the peer is, by its description.
pub(super) struct Remote {
    pub(super) rtp: SocketAddr,
    pub(super) rtcp: SocketAddr,
    pub(super) rtcp_mux: bool,
    /// As seen by the peer; the old way of holding (an unspecified address) is inactive.
    pub(super) direction: Direction,
}

impl Remote {
    pub(super) fn of(
        sdp: &Sdp,
        media: &Media,
        (capabilities, mux_allowed): (&Capabilities, bool),
        local: SocketAddr,
        peer: IpAddr,
    ) -> Result<Self, NegotiationError> {
        let ip = sdp.connection_of(media).and_then(|c| c.ip()).ok_or(NegotiationError::NoAddress)?;
        let rtp = SocketAddr::new(ip, media.port);
        let rtcp_mux = mux_allowed && media.has("rtcp-mux");
        let rtcp = match media.rtcp() {
            _ if rtcp_mux => rtp,
            Some((port, address)) => SocketAddr::new(address.unwrap_or(ip), port),
            None => SocketAddr::new(ip, media.port.checked_add(1).unwrap_or(media.port)),
        };
        if ip.is_unspecified() {
            return Ok(Self { rtp, rtcp, rtcp_mux, direction: Direction::Inactive });
        }
        if ip.is_ipv4() != local.ip().to_canonical().is_ipv4() {
            return Err(NegotiationError::AddressFamily);
        }
        if ![rtp, rtcp].iter().all(|target| capabilities.addresses.allows(*target, peer)) {
            return Err(NegotiationError::AddressRefused);
        }
        Ok(Self { rtp, rtcp, rtcp_mux, direction: sdp.direction_of(media) })
    }
}

/// What the peer likes to receive, when we are able to; else our own.
pub(super) fn ptime_to_send(sdp: &Sdp, media: &Media, capabilities: &Capabilities) -> u16 {
    let most = sdp.max_ptime_of(media).unwrap_or(u16::MAX);
    let fits = |ms: &u16| *ms <= most && capabilities.ptimes_ms.contains(ms);
    sdp.ptime_of(media).filter(fits).unwrap_or(capabilities.ptime_ms)
}

/// Hz. What a peer that offers several clocks offers in any case.
const USUAL_EVENT_CLOCK: u32 = 8_000;
