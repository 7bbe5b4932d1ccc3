//! A party on a phone: SIP signalling and RTP media joined into one leg of a call.
//!
//! The thin shell on a media worker. Signalling goes to the user agent through its endpoint and comes
//! back as events; media flows through [`RtpMedia`]. The call polls the leg and gets [`LegSignal`]s;
//! dropping the leg hangs up and gives every port back.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::endpoint::EndpointHandle;
use super::message::StatusCode;
use super::negotiation::{Capabilities, MediaPlan, Negotiation, NegotiationError};
use super::profile::DtmfMethod;
use super::ua::{EndedBy, HangupReason, LegCommand, LegEvent};
use crate::audio::Codec;
use crate::event::Quality;
use crate::id::LegId;
use crate::rtp::media::{MediaSignal, RtpMedia};
use crate::rtp::pacer::Pacer;
use crate::rtp::{Direction, LatchPolicy, PortPair, PortPool, Stream, StreamConfig, StreamEvent};
use crate::time::UnixMs;

mod detached;
mod keys;
mod playing;
mod signal;
mod transfer;

pub use detached::DetachedLeg;
pub use signal::{HangUp, HangUpCause, LegSignal};

/// What a leg's media is made with.
#[derive(Debug, Clone)]
pub struct LegMedia {
    /// Ports to take a pair from.
    pub ports: PortPool,
    /// Our address as the peer reaches it; goes into SDP.
    pub address: IpAddr,
    /// Where the peer signals from.
    pub peer: IpAddr,
    /// What we offer and answer.
    pub capabilities: Capabilities,
    /// Who may send us media beside the address in the peer's SDP.
    pub latch: LatchPolicy,
    /// Listen for keys in the audio itself.
    pub inband_dtmf: bool,
    /// How long a packet that overtook another waits for it.
    pub reorder_wait: Duration,
    /// Most audio that may wait to be heard.
    pub playout_limit: Duration,
    /// Hang up after this long without RTP, when not on hold.
    pub media_timeout: Option<Duration>,
    /// How keys are sent.
    pub dtmf: DtmfMethod,
}

/// Why media could not be set up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MediaError {
    /// The offer does not suit; the INVITE gets this status.
    #[error("the session description is refused: {0}")]
    Refused(NegotiationError),
    /// Every RTP port is in use, or a socket could not be had; the INVITE gets 503.
    #[error("no media: {0}")]
    Unavailable(String),
}

/// One party on a phone.
pub struct SipLeg {
    id: LegId,
    endpoint: EndpointHandle,
    events: mpsc::Receiver<LegEvent>,
    pacer: Pacer,
    settings: LegMedia,
    negotiation: Negotiation,
    /// Ports of a leg whose codec is not agreed on yet.
    reserved: Option<PortPair>,
    media: Option<RtpMedia>,
    /// The answer (or, after an INVITE without SDP, the offer) our next 18x or 200 carries.
    local_sdp: Option<Vec<u8>>,
    signals: VecDeque<LegSignal>,
    /// Whether the call wants to know of each slot.
    slots_watched: bool,
    /// How often keys were sent as tones.
    keys: u32,
    /// From the answer on silence of the peer means that it is gone.
    up: bool,
    over: bool,
}

impl SipLeg {
    /// A leg for an incoming INVITE: negotiates its offer (`None`: we offer, and the answer comes with the
    /// ACK) and reserves ports. Nothing is sent yet.
    ///
    /// # Errors
    /// [`MediaError`] when the call cannot have media; the leg has then been rejected accordingly.
    pub fn incoming(
        id: LegId,
        endpoint: EndpointHandle,
        events: mpsc::Receiver<LegEvent>,
        pacer: Pacer,
        settings: LegMedia,
        offer: Option<&[u8]>,
    ) -> Result<Self, MediaError> {
        let mut leg = Self::new(id, endpoint, events, pacer, settings);
        match leg.prepare(offer) {
            Ok(()) => Ok(leg),
            Err(error) => {
                leg.refuse(&error);
                Err(error)
            }
        }
    }

    /// A leg for a call we place; the returned SDP is the offer of its INVITE.
    ///
    /// # Errors
    /// [`MediaError::Unavailable`] without a free port.
    pub fn outgoing(
        id: LegId,
        endpoint: EndpointHandle,
        events: mpsc::Receiver<LegEvent>,
        pacer: Pacer,
        settings: LegMedia,
    ) -> Result<(Self, Vec<u8>), MediaError> {
        let mut leg = Self::new(id, endpoint, events, pacer, settings);
        let offer = leg.reserve().map(|()| leg.negotiation.offer());
        match offer {
            Ok(offer) => Ok((leg, offer)),
            Err(error) => {
                leg.over = true;
                Err(error)
            }
        }
    }

    fn new(
        id: LegId,
        endpoint: EndpointHandle,
        events: mpsc::Receiver<LegEvent>,
        pacer: Pacer,
        settings: LegMedia,
    ) -> Self {
        // The port is set when one is reserved, before anything is negotiated.
        let local = SocketAddr::new(settings.address, 0);
        let mut negotiation = Negotiation::new(settings.capabilities.clone(), local, rand::random());
        negotiation.set_key_source(rand::random());
        Self {
            id,
            endpoint,
            events,
            pacer,
            settings,
            negotiation,
            reserved: None,
            media: None,
            local_sdp: None,
            signals: VecDeque::new(),
            slots_watched: true,
            keys: 0,
            up: false,
            over: false,
        }
    }

    /// The leg's name in signalling.
    pub fn id(&self) -> LegId {
        self.id
    }

    /// Our address as the peer reaches it.
    pub fn shown(&self) -> IpAddr {
        self.settings.address
    }

    /// The codec we send, once it is agreed on.
    pub fn codec(&self) -> Option<Codec> {
        self.media.as_ref().map(|media| media.stream_ref().config().codec)
    }

    /// Whether media is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.media.as_ref().is_some_and(|media| media.stream_ref().config().srtp.is_some())
    }

    /// Sends 180, or with `early_media` 183 with SDP after which audio may be played.
    pub fn ring(&mut self, early_media: bool) {
        let status = if early_media { StatusCode::SESSION_PROGRESS } else { StatusCode::RINGING };
        self.progress(status, early_media);
    }

    /// Sends a provisional response of another party: 101 to 199, with early media if it has any.
    pub fn progress(&mut self, status: StatusCode, early_media: bool) {
        // To an INVITE without an offer, ours goes with the first response that is sent reliably.
        let wanted = early_media || self.media.is_none();
        let sdp = if wanted { self.local_sdp.clone() } else { None };
        self.command(LegCommand::Ring { status, sdp });
    }

    /// Where further legs of the same call join the grid.
    pub fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Sends 200; the caller hears us from now on.
    pub fn answer(&mut self) {
        if let Some(sdp) = self.local_sdp.clone() {
            self.command(LegCommand::Answer { sdp });
        }
    }

    /// Refuses the call.
    pub fn reject(&mut self, status: StatusCode, headers: Vec<(String, String)>) {
        self.command(LegCommand::Reject { status, reason: None, headers });
        self.over = true;
    }

    /// Hangs up as the state requires.
    pub fn hang_up(&mut self, reason: HangupReason) {
        if !self.over {
            self.command(LegCommand::Hangup { reason: Some(reason) });
            self.over = true;
        }
    }

    /// Polls signalling and media. Cancel-safe: nothing is lost when whoever polls goes away.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LegSignal> {
        self.poll_towards(cx, None)
    }

    /// As [`Self::poll`], and packets that come in leave on `to`, unheard.
    pub fn poll_relay(&mut self, cx: &mut Context<'_>, to: &mut Self) -> Poll<LegSignal> {
        self.poll_towards(cx, Some(to))
    }

    fn poll_towards(&mut self, cx: &mut Context<'_>, mut to: Option<&mut Self>) -> Poll<LegSignal> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Poll::Ready(signal);
            }
            if self.over {
                return Poll::Pending;
            }
            if let Poll::Ready(event) = self.events.poll_recv(cx) {
                match event {
                    Some(event) => self.leg_event(event),
                    None => {
                        let text = "the leg's signalling is lost".to_owned();
                        let reason = HangupReason { protocol: "Q.850", cause: 41, text: text.clone() };
                        self.command(LegCommand::Hangup { reason: Some(reason) });
                        self.ended(HangUpCause::Lost, 500, text);
                    }
                }
                continue;
            }
            let Some(media) = &mut self.media else { return Poll::Pending };
            let polled = match to.as_mut().and_then(|to| to.media.as_mut()) {
                Some(to) => media.poll_relay(cx, to),
                None => media.poll(cx),
            };
            match polled {
                Poll::Ready(signal) => self.media_signal(signal),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether packets of this leg may leave on `other` as they are.
    pub fn can_relay_to(&self, other: &Self) -> bool {
        match (&self.media, &other.media) {
            (Some(media), Some(other)) => media.stream_ref().can_relay_to(other.stream_ref()),
            _ => false,
        }
    }

    /// Whether keys that come as telephone events reach the peer of `other` by themselves while packets are relayed.
    pub fn passes_keys_to(&self, other: &Self) -> bool {
        match (&self.media, &other.media) {
            (Some(media), Some(other)) => media.stream_ref().passes_keys_to(other.stream_ref()),
            _ => false,
        }
    }

    /// Leaves the grid of slots while packets are relayed, or joins it again.
    pub fn park(&mut self, parked: bool) {
        if let Some(media) = &mut self.media {
            media.park(parked);
        }
    }

    /// Appends audio of the party that has come in, 24 kHz.
    pub fn take_audio(&mut self, out: &mut Vec<i16>) {
        if let Some(media) = &mut self.media {
            media.stream().take_audio(out);
        }
    }

    /// Stops sending RTP, or goes on; signalling is not told. The next offer and answer decide anew.
    pub fn mute(&mut self, muted: bool) {
        let Some(media) = &mut self.media else { return };
        let mut config = media.stream_ref().config().clone();
        if config.direction.send == muted {
            config.direction.send = !muted;
            // The codec is the one that is in use: there is an encoder for it.
            let _unchanged = media.stream().reconfigure(config, Instant::now());
        }
    }

    /// What the last slot put on the wire, 24 kHz: for the recording. Called after every slot or never.
    pub fn sent_frame(&mut self, out: &mut Vec<i16>) {
        if let Some(media) = &mut self.media {
            media.stream().sent_frame(out);
        }
    }

    /// Whether [`LegSignal::Sent`] is wanted for every slot. It is, unless told otherwise; a call that records
    /// nothing saves a turn of its loop per slot.
    pub fn watch_slots(&mut self, wanted: bool) {
        self.slots_watched = wanted;
    }

    /// Notes how long received audio took until it was written towards the AI.
    pub fn note_uplink(&mut self, took: Duration) {
        if let Some(media) = &mut self.media {
            media.stream().note_uplink(took);
        }
    }

    /// RTP statistics so far.
    pub fn quality(&self) -> Option<Quality> {
        self.media.as_ref().map(|media| media.stream_ref().quality())
    }

    fn command(&self, command: LegCommand) {
        self.endpoint.command(self.id, command);
    }

    fn reserve(&mut self) -> Result<(), MediaError> {
        let ports = self
            .settings
            .ports
            .allocate(any_of_family(self.settings.address), Instant::now())
            .map_err(|error| MediaError::Unavailable(error.to_string()))?;
        self.negotiation.set_local(SocketAddr::new(self.settings.address, ports.guard.port()));
        self.reserved = Some(ports);
        Ok(())
    }

    fn prepare(&mut self, offer: Option<&[u8]>) -> Result<(), MediaError> {
        self.reserve()?;
        match offer {
            Some(offer) => {
                let peer = self.settings.peer;
                let negotiated = self.negotiation.answer(offer, peer).map_err(MediaError::Refused)?;
                self.local_sdp = negotiated.answer;
                self.start_media(&negotiated.plan)
            }
            None => {
                self.local_sdp = Some(self.negotiation.offer());
                Ok(())
            }
        }
    }

    /// Opens the stream, or changes the one that is open.
    fn start_media(&mut self, plan: &MediaPlan) -> Result<(), MediaError> {
        let unavailable = |error: &dyn std::fmt::Display| MediaError::Unavailable(error.to_string());
        let now = Instant::now();
        let config = self.stream_config(plan);
        if let Some(media) = &mut self.media {
            return media.stream().reconfigure(config, now).map_err(|e| unavailable(&e));
        }
        let Some(ports) = self.reserved.take() else { return Ok(()) };
        let stream = Stream::new(config, &mut rand::rng(), now).map_err(|e| unavailable(&e))?;
        self.media = Some(RtpMedia::new(stream, ports, &self.pacer).map_err(|e| unavailable(&e))?);
        Ok(())
    }

    fn established(&mut self) {
        self.up = true;
        let timeout = self.settings.media_timeout;
        if let Some(media) = &mut self.media {
            media.stream().watch_silence(Instant::now(), timeout);
        }
        self.signals.push_back(LegSignal::Established);
    }

    fn stream_config(&self, plan: &MediaPlan) -> StreamConfig {
        let mut config = StreamConfig::new(plan.codec, plan.payload_type, plan.remote);
        config.receive.clone_from(&plan.receive);
        config.telephone_event = plan.telephone_event;
        config.receive_events.clone_from(&plan.receive_events);
        config.ptime = Duration::from_millis(u64::from(plan.ptime_ms));
        config.remote_rtcp = plan.remote_rtcp;
        config.srtp.clone_from(&plan.srtp);
        config.rtcp_mux = plan.rtcp_mux;
        config.direction = Direction { send: plan.direction.sends(), receive: plan.direction.receives() };
        config.latch = self.settings.latch.clone();
        config.cname = self.id.to_string();
        config.inband_dtmf = self.settings.inband_dtmf;
        config.reorder_wait = self.settings.reorder_wait;
        config.playout_limit = self.settings.playout_limit;
        config.media_timeout = self.settings.media_timeout.filter(|_| self.up);
        config.wall_clock = UnixMs::now();
        config
    }

    fn refuse(&mut self, error: &MediaError) {
        match error {
            MediaError::Refused(refusal) => {
                let (code, text) = refusal.warning();
                let warning = format!("{code} {} \"{text}\"", self.settings.address);
                self.reject(refusal.status(), vec![("Warning".to_owned(), warning)]);
            }
            MediaError::Unavailable(_) => {
                let retry = ("Retry-After".to_owned(), "5".to_owned());
                self.reject(StatusCode::SERVICE_UNAVAILABLE, vec![retry]);
            }
        }
    }

    fn leg_event(&mut self, event: LegEvent) {
        match event {
            LegEvent::Cancelled { reason } => {
                let reason = reason.unwrap_or_else(|| "the caller gave up".to_owned());
                self.ended(HangUpCause::Cancelled, 487, reason);
            }
            LegEvent::Acked { answer } => self.acknowledged(answer.as_deref()),
            LegEvent::Progress { status, .. } if status.get() == 100 => {
                self.signals.push_back(LegSignal::Trying);
            }
            LegEvent::Progress { status, sdp, .. } => {
                // Early media is a preview: the answer in the 200 is final, and may differ.
                if let Some(sdp) = sdp {
                    self.take_answer(&sdp);
                    self.signals.extend(self.media.as_ref().map(|_| LegSignal::EarlyMedia));
                }
                self.signals.push_back(LegSignal::Ringing { status: status.get() });
            }
            LegEvent::Answered { sdp } => {
                match sdp {
                    Some(sdp) => self.take_answer(&sdp),
                    None if self.media.is_none() => self.protocol_error("the answer has no SDP"),
                    None => {}
                }
                self.established();
            }
            LegEvent::Failed { status, reason, retry_after, details } => {
                self.ended(HangUpCause::Refused, status.get(), reason);
                if let Some(LegSignal::HungUp(hang_up)) = self.signals.back_mut() {
                    hang_up.retry_after = retry_after;
                    hang_up.failure = Some(details);
                }
            }
            LegEvent::Reinvite { offer } => self.reinvited(offer.as_deref()),
            LegEvent::ReinviteAcked { answer } => {
                if let Some(answer) = answer {
                    self.take_answer(&answer);
                    self.negotiation.offer_done();
                    self.media_changed();
                }
            }
            LegEvent::ReinviteResult { status, sdp } => match sdp.filter(|_| status.is_success()) {
                Some(sdp) => {
                    self.take_answer(&sdp);
                    self.negotiation.offer_done();
                    self.media_changed();
                }
                None => self.negotiation.withdraw_offer(),
            },
            LegEvent::Dtmf { digit, duration_ms: _ } => {
                self.signals.push_back(LegSignal::Dtmf { digit, method: "info" });
            }
            LegEvent::Ended { by, reason, cause } => {
                self.ended_by(by, reason);
                if let Some(LegSignal::HungUp(hang_up)) = self.signals.back_mut() {
                    hang_up.cause_code = cause;
                }
            }
            LegEvent::EarlyOffer { offer } => self.offered_early(&offer),
            LegEvent::EarlyAnswer { answer } => {
                self.take_answer(&answer);
                self.negotiation.offer_done();
            }
            LegEvent::Transfer(asked) => self.signals.push_back(LegSignal::Transfer(asked)),
            LegEvent::Transferring(news) => self.signals.push_back(LegSignal::Transferring(news)),
        }
    }

    fn acknowledged(&mut self, answer: Option<&[u8]>) {
        match answer {
            Some(answer) => self.take_answer(answer),
            None if self.media.is_none() => self.protocol_error("the ACK has no SDP answer"),
            None => {}
        }
        if !self.over {
            self.established();
        }
    }

    fn take_answer(&mut self, answer: &[u8]) {
        let started = match self.negotiation.accept(answer, self.settings.peer) {
            Ok(negotiated) => self.start_media(&negotiated.plan),
            Err(refusal) => Err(MediaError::Refused(refusal)),
        };
        if let Err(error) = started {
            tracing::debug!(%error, "the SDP answer cannot be used");
            if self.media.is_none() {
                self.protocol_error("the SDP answer cannot be used");
            }
        }
    }

    fn reinvited(&mut self, offer: Option<&[u8]>) {
        let Some(offer) = offer else {
            let sdp = self.negotiation.offer();
            return self.command(LegCommand::AnswerReinvite { sdp });
        };
        match self.negotiation.answer(offer, self.settings.peer) {
            Ok(negotiated) => match self.start_media(&negotiated.plan) {
                Ok(()) => {
                    let sdp = negotiated.answer.unwrap_or_default();
                    self.command(LegCommand::AnswerReinvite { sdp });
                    if negotiated.changed {
                        self.media_changed();
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "new media cannot be set up");
                    self.command(LegCommand::RejectReinvite { status: StatusCode::NOT_ACCEPTABLE_HERE });
                }
            },
            Err(refusal) => self.command(LegCommand::RejectReinvite { status: refusal.status() }),
        }
    }

    /// An offer before the answer, in PRACK or UPDATE.
    fn offered_early(&mut self, offer: &[u8]) {
        let taken = match self.negotiation.answer(offer, self.settings.peer) {
            Ok(negotiated) => {
                self.start_media(&negotiated.plan).map(|()| negotiated.answer.unwrap_or_default())
            }
            Err(refusal) => Err(MediaError::Refused(refusal)),
        };
        match taken {
            Ok(sdp) => self.command(LegCommand::AnswerEarly { sdp }),
            Err(error) => {
                tracing::debug!(%error, "an early offer cannot be used");
                self.command(LegCommand::RejectEarly { status: StatusCode::NOT_ACCEPTABLE_HERE });
            }
        }
    }

    fn media_changed(&mut self) {
        let Some(media) = &self.media else { return };
        let config = media.stream_ref().config();
        let held = !config.direction.send || config.remote.ip().is_unspecified();
        let state = if held { "held_by_peer" } else { "active" };
        self.signals.push_back(LegSignal::MediaChanged { state, codec: config.codec });
    }

    fn media_signal(&mut self, signal: MediaSignal) {
        let signal = match signal {
            MediaSignal::Audio { since } => LegSignal::Audio { since },
            MediaSignal::Sent { .. } if !self.slots_watched => return,
            MediaSignal::Sent { due, item } => LegSignal::Sent { due, item },
            MediaSignal::Event(StreamEvent::Dtmf { digit, method }) => {
                LegSignal::Dtmf { digit, method: method.as_str() }
            }
            // Tones for keys are nobody's item.
            MediaSignal::Event(StreamEvent::ItemStarted { item }) if keys::is_tone(&item) => return,
            MediaSignal::Event(StreamEvent::ItemFinished { item, .. }) if keys::is_tone(&item) => {
                LegSignal::DtmfSent
            }
            MediaSignal::Event(StreamEvent::ItemStarted { item }) => LegSignal::ItemStarted(item),
            MediaSignal::Event(StreamEvent::ItemFinished { item, played_ms }) => {
                LegSignal::ItemFinished { item, played_ms }
            }
            MediaSignal::Event(StreamEvent::DtmfSent) => LegSignal::DtmfSent,
            MediaSignal::Event(StreamEvent::CodecHeard { codec }) => LegSignal::CodecHeard(codec),
            MediaSignal::Event(StreamEvent::MediaTimeout { silent }) => {
                let text = format!("no RTP for {} s", silent.as_secs());
                self.command(LegCommand::Hangup {
                    reason: Some(HangupReason { protocol: "Q.850", cause: 102, text: text.clone() }),
                });
                return self.ended(HangUpCause::MediaTimeout, 408, text);
            }
            MediaSignal::Event(StreamEvent::ForeignSource { total, .. }) => {
                metrics::counter!("tandem_rtp_foreign_sources_total").increment(1);
                tracing::warn!(total, "RTP from a stranger is dropped");
                return;
            }
            MediaSignal::Event(
                event @ (StreamEvent::MediaStarted { .. }
                | StreamEvent::Latched { .. }
                | StreamEvent::SsrcChanged { .. }
                | StreamEvent::MediaResumed
                | StreamEvent::PeerBye),
            ) => {
                tracing::debug!(?event, "media");
                return;
            }
        };
        self.signals.push_back(signal);
    }

    fn protocol_error(&mut self, text: &str) {
        self.command(LegCommand::Hangup {
            reason: Some(HangupReason { protocol: "SIP", cause: 488, text: text.to_owned() }),
        });
        self.ended(HangUpCause::Lost, 488, text.to_owned());
    }

    fn ended_by(&mut self, by: EndedBy, reason: Option<String>) {
        let (cause, status, words) = match by {
            EndedBy::Peer => (HangUpCause::Peer, 200, "hung up"),
            EndedBy::Us => (HangUpCause::Lost, 200, "ended by us"),
            EndedBy::NoAck => (HangUpCause::Lost, 408, "the answer was never acknowledged"),
            EndedBy::SessionExpired => (HangUpCause::Lost, 408, "the session timer ran out"),
            EndedBy::Lost => (HangUpCause::Lost, 481, "the peer does not know the call any more"),
            EndedBy::ProtocolError => (HangUpCause::Lost, 400, "the peer broke the protocol"),
        };
        self.ended(cause, status, reason.unwrap_or_else(|| words.to_owned()));
    }

    fn ended(&mut self, cause: HangUpCause, status: u16, reason: String) {
        if !self.over {
            self.over = true;
            self.signals.push_back(LegSignal::HungUp(HangUp {
                cause,
                status,
                reason,
                cause_code: None,
                retry_after: None,
                failure: None,
            }));
        }
    }
}

impl Drop for SipLeg {
    fn drop(&mut self) {
        self.hang_up(HangupReason::normal());
        if let Some(media) = self.media.take() {
            media.finish();
        }
    }
}

fn any_of_family(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}
