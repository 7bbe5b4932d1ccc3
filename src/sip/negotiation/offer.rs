//! Making an offer and reading its answer (RFC 3264 sections 5, 7 and 8).

use std::net::IpAddr;

use super::answer::{Choice, Remote, audio_of, events_of, formats_of, ptime_to_send};
use super::{
    Attribute, Codec, Format, Layout, Line, Media, MediaPlan, Negotiated, Negotiation, NegotiationError,
    Pending, Preference, Sdp, Section,
};

impl Negotiation {
    /// Makes an offer of everything we can: the first one, a late one for a 200, or one for a re-INVITE.
    /// Payload types and the order of sections stay as the session has them.
    ///
    /// An earlier offer that was never answered is given up first.
    pub fn offer(&mut self) -> Vec<u8> {
        self.withdraw_offer();
        let (payload_types_before, layout_before) = (self.payload_types.clone(), self.layout.clone());
        let formats = self.formats_to_offer();
        self.learn(&formats);
        let lines = self.lines_to_offer();
        let section = self.offer_section(&formats, &lines);
        if self.layout.sections.is_empty() {
            self.layout = Layout { sections: vec![Section::of(&section)], audio: 0 };
        }
        let sdp = self.describe(section);
        let offer = self.seal(sdp).to_bytes();
        self.pending = Some(Pending { formats, lines, payload_types_before, layout_before, answered: false });
        offer
    }

    /// Reads the answer to our offer. The answer of a 183 may come again, or differ, in the 200: the offer
    /// stays answerable until [`Negotiation::offer_done`], an offer of either side, or
    /// [`Negotiation::withdraw_offer`].
    ///
    /// # Errors
    /// When there is no offer, or the answer does not make a session with it; nothing has changed then.
    pub fn accept(&mut self, answer: &[u8], peer: IpAddr) -> Result<Negotiated, NegotiationError> {
        let pending = self.pending.as_ref().ok_or(NegotiationError::NoOffer)?;
        let answer = Sdp::parse(answer)?;
        let media = answer.media.get(self.layout.audio).ok_or(NegotiationError::AnswerMismatch)?;
        if !media.kind.eq_ignore_ascii_case("audio") || media.port == 0 {
            return Err(NegotiationError::AnswerMismatch);
        }
        let (line, srtp) = self.taken_up(&pending.lines, media)?.unzip();
        let theirs = self.formats_of_answer(media, &pending.formats);
        let choice = Choice::of(&theirs, &self.capabilities, Preference::Theirs)
            .ok_or(NegotiationError::NoCommonCodec)?;
        let mux_offered = self.uses_rtcp_mux();
        let remote = Remote::of(&answer, media, (&self.capabilities, mux_offered), self.local, peer)?;
        let plan = MediaPlan {
            remote: remote.rtp,
            remote_rtcp: remote.rtcp,
            codec: choice.codec,
            payload_type: choice.payload_type,
            receive: receivable(&pending.formats, &choice),
            telephone_event: choice.telephone_event(),
            receive_events: receivable_events(&pending.formats, &choice),
            ptime_ms: ptime_to_send(&answer, media, &self.capabilities),
            direction: remote.direction.reversed().and(self.wish),
            rtcp_mux: remote.rtcp_mux,
            secure: srtp.is_some(),
            srtp,
        };
        if let Some(pending) = &mut self.pending {
            pending.answered = true;
        }
        self.keys.ours = line;
        Ok(self.commit(plan, None))
    }

    /// The exchange is complete: the answer stands.
    pub fn offer_done(&mut self) {
        self.pending = None;
    }

    /// Our offer was refused or given up: unless it was answered, the session is as it was before (RFC 3261
    /// section 14.1). The version that was used up is not used again.
    pub fn withdraw_offer(&mut self) {
        if let Some(pending) = self.pending.take()
            && !pending.answered
        {
            self.payload_types = pending.payload_types_before;
            self.layout = pending.layout_before;
        }
    }

    /// Our codecs and the telephone events of their clocks, under the payload types this session gives
    /// them.
    fn formats_to_offer(&self) -> Vec<(u8, Format)> {
        let mut wanted: Vec<Format> =
            self.capabilities.codecs.iter().map(|codec| Format::Audio(*codec)).collect();
        if self.capabilities.telephone_event {
            let mut clocks: Vec<u32> =
                self.capabilities.codecs.iter().map(|codec| codec.clock_rate()).collect();
            clocks.sort_unstable();
            clocks.dedup();
            wanted.extend(clocks.into_iter().map(Format::TelephoneEvent));
        }
        let mut formats: Vec<(u8, Format)> = Vec::new();
        for format in wanted {
            if let Some(payload_type) = self.payload_type_for(format, &formats) {
                formats.push((payload_type, format));
            }
        }
        formats
    }

    /// The payload type a format has in this session, or RFC 3551's, or a usual one, or a free one.
    fn payload_type_for(&self, format: Format, taken: &[(u8, Format)]) -> Option<u8> {
        if let Some((payload_type, _)) = self.payload_types.iter().find(|(_, known)| *known == format) {
            return Some(*payload_type);
        }
        let usual = match format {
            Format::Audio(codec) => codec.static_payload_type().unwrap_or(111),
            Format::TelephoneEvent(8_000) => 101,
            Format::TelephoneEvent(48_000) => 110,
            Format::TelephoneEvent(_) => 102,
        };
        let is_free = |candidate: &u8| {
            self.meaning(*candidate).is_none()
                && taken.iter().all(|(payload_type, _)| payload_type != candidate)
        };
        std::iter::once(usual).chain(96..=127).find(is_free)
    }

    fn offer_section(&self, formats: &[(u8, Format)], lines: &[Line]) -> Media {
        let mut attributes = Vec::new();
        for (payload_type, format) in formats {
            format.describe(*payload_type, &mut attributes);
        }
        attributes.push(Attribute::value("ptime", self.capabilities.ptime_ms));
        attributes.push(Attribute::flag(self.wish.as_str()));
        if self.uses_rtcp_mux() {
            attributes.push(Attribute::flag("rtcp-mux"));
        }
        attributes.extend(lines.iter().map(Line::to_attribute));
        let first = self.proto_to_offer();
        Media {
            kind: "audio".into(),
            port: self.local.port(),
            // A section keeps its transport for the life of the session.
            proto: self.layout.sections.get(self.layout.audio).map_or(first, |s| &s.proto).into(),
            formats: formats.iter().map(|(payload_type, _)| payload_type.to_string()).collect(),
            connection: None,
            bandwidth: Vec::new(),
            attributes,
        }
    }

    /// Whether the peer asked for RTCP on the RTP port earlier; only then do we offer it.
    fn uses_rtcp_mux(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.rtcp_mux)
    }

    /// The formats of an answer. A dynamic payload type without rtpmap means what we offered by it; formats
    /// we did not offer are not used.
    fn formats_of_answer(&self, media: &Media, offered: &[(u8, Format)]) -> Vec<(u8, Format)> {
        let mut formats = formats_of(media);
        for payload_type in media.payload_types() {
            if media.rtpmap(payload_type).is_none() && formats.iter().all(|(known, _)| *known != payload_type)
            {
                formats.extend(offered.iter().find(|(known, _)| *known == payload_type));
            }
        }
        let order = |payload_type: u8| media.payload_types().position(|other| other == payload_type);
        formats.sort_by_key(|(payload_type, _)| order(*payload_type));
        formats.retain(|(_, format)| offered.iter().any(|(_, ours)| ours == format));
        formats
    }
}

/// What may come in: everything we offered, by our payload types, and what the peer listed by its own,
/// should they differ.
fn receivable(offered: &[(u8, Format)], choice: &Choice) -> Vec<(u8, Codec)> {
    let mut receive = audio_of(offered);
    for (payload_type, codec) in audio_of(&choice.formats) {
        if offered.iter().all(|(known, _)| *known != payload_type) {
            receive.push((payload_type, codec));
        }
    }
    receive
}

/// The telephone events that may come in, when any were agreed on: by our payload types, and by those of the peer.
fn receivable_events(offered: &[(u8, Format)], choice: &Choice) -> Vec<(u8, u32)> {
    let theirs = events_of(&choice.formats);
    if theirs.is_empty() {
        return theirs;
    }
    let mut receive = events_of(offered);
    receive.extend(theirs.into_iter().filter(|(theirs, _)| offered.iter().all(|(known, _)| known != theirs)));
    receive
}
