//! The media of a PBX leg on its worker: a stream of samples and the wire it flows over, or RTP.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::{PcmStream, PendingMedia, PendingWire, Wire, WireEnd, WireEvent};
use crate::audio::{AudioError, Codec};
use crate::event::Quality;
use crate::rtp::media::{MediaSignal, RtpMedia};
use crate::rtp::pacer::{Pacer, Ticket};
use crate::rtp::playout::PlayoutEvent;
use crate::rtp::stream::Stream;
use crate::rtp::timer::Timer;
use crate::rtp::{DtmfMethod, ItemKey, PlayError, PlayedItem, StreamEvent};

/// What media is made with.
#[derive(Debug, Clone)]
pub struct PbxSettings {
    /// Most audio that may wait to be heard.
    pub playout_limit: Duration,
    /// Listen for keys in the audio itself.
    pub inband_dtmf: bool,
}

/// What media tells its leg.
#[derive(Debug)]
pub(super) enum Heard {
    /// As media of SIP legs tells it.
    Media(MediaSignal),
    /// A key that came over the wire.
    Key(char),
    /// The wire is gone.
    Closed(WireEnd),
}

/// Either kind.
pub(super) enum Media {
    Pcm(Box<PcmMedia>),
    Rtp(Box<RtpMedia>),
}

impl Media {
    /// `idle` is what flowed over the medium before, if there was one and it [fits](Idle::fits).
    pub(super) fn attach(
        media: PendingMedia,
        idle: Option<Idle>,
        settings: &PbxSettings,
        pacer: &Pacer,
    ) -> io::Result<Self> {
        Ok(match media {
            PendingMedia::Wire(wire) => {
                let wire = wire.attach()?;
                let media = match idle {
                    Some(Idle::Pcm(stream)) => PcmMedia::with(*stream, wire, pacer),
                    _ => PcmMedia::begin(wire, settings, pacer).map_err(io::Error::other)?,
                };
                Self::Pcm(Box::new(media))
            }
            PendingMedia::Rtp(mut rtp) => {
                if let Some(Idle::Rtp(stream)) = idle {
                    rtp.take_over(*stream).map_err(io::Error::other)?;
                }
                Self::Rtp(Box::new(rtp.attach(pacer)?))
            }
        })
    }

    pub(super) fn detach(self) -> io::Result<DetachedMedium> {
        Ok(match self {
            Self::Pcm(pcm) => DetachedMedium::Pcm(Box::new(pcm.stream), pcm.wire.detach()?),
            Self::Rtp(rtp) => DetachedMedium::Rtp(Box::new(rtp.detach()?)),
        })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        match self {
            Self::Pcm(pcm) => pcm.poll(cx),
            Self::Rtp(rtp) => rtp.poll(cx).map(Heard::Media),
        }
    }

    pub(super) fn codec(&self) -> Codec {
        match self {
            Self::Pcm(pcm) => pcm.stream.codec(),
            Self::Rtp(rtp) => rtp.stream_ref().config().codec,
        }
    }

    pub(super) fn take_audio(&mut self, out: &mut Vec<i16>) {
        match self {
            Self::Pcm(pcm) => pcm.stream.take_audio(out),
            Self::Rtp(rtp) => rtp.stream().take_audio(out),
        }
    }

    pub(super) fn play(&mut self, item: &ItemKey, pcm24k: &[i16]) -> Result<(), PlayError> {
        match self {
            Self::Pcm(pcm) => pcm.stream.play(item, pcm24k),
            Self::Rtp(rtp) => rtp.stream().play(item, pcm24k),
        }
    }

    pub(super) fn play_live(&mut self, pcm24k: &[i16]) {
        match self {
            Self::Pcm(pcm) => pcm.stream.play_live(pcm24k),
            Self::Rtp(rtp) => rtp.stream().play_live(pcm24k),
        }
    }

    pub(super) fn end_item(&mut self, item: &ItemKey) {
        match self {
            Self::Pcm(pcm) => pcm.stream.end_item(item),
            Self::Rtp(rtp) => rtp.stream().end_item(item),
        }
    }

    pub(super) fn clear(&mut self) -> Vec<PlayedItem> {
        match self {
            Self::Pcm(pcm) => {
                let unheard = pcm.wire.flush(Instant::now());
                pcm.stream.clear(unheard)
            }
            Self::Rtp(rtp) => rtp.stream().clear(),
        }
    }

    pub(super) fn pause(&mut self) {
        match self {
            Self::Pcm(pcm) => pcm.stream.pause(),
            Self::Rtp(rtp) => rtp.stream().pause(),
        }
    }

    pub(super) fn resume(&mut self) {
        match self {
            Self::Pcm(pcm) => pcm.stream.resume(),
            Self::Rtp(rtp) => rtp.stream().resume(),
        }
    }

    pub(super) fn queued(&self) -> Duration {
        match self {
            Self::Pcm(pcm) => pcm.stream.queued(),
            Self::Rtp(rtp) => rtp.stream_ref().queued(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Pcm(pcm) => pcm.stream.is_idle(),
            Self::Rtp(rtp) => rtp.stream_ref().is_idle(),
        }
    }

    pub(super) fn sent_frame(&mut self, out: &mut Vec<i16>) {
        match self {
            Self::Pcm(pcm) => pcm.sent_frame(out),
            Self::Rtp(rtp) => rtp.stream().sent_frame(out),
        }
    }

    pub(super) fn note_uplink(&mut self, took: Duration) {
        match self {
            Self::Pcm(pcm) => pcm.stream.note_uplink(took),
            Self::Rtp(rtp) => rtp.stream().note_uplink(took),
        }
    }

    pub(super) fn quality(&self) -> Quality {
        match self {
            Self::Pcm(pcm) => pcm.stream.quality(),
            Self::Rtp(rtp) => rtp.stream_ref().quality(),
        }
    }

    /// Presses keys as tones in the audio. Whether they will be heard.
    pub(super) fn play_keys(&mut self, item: &ItemKey, digits: &str, press: Duration) -> bool {
        match self {
            Self::Pcm(pcm) => pcm.stream.play_keys(item, digits, press).is_ok(),
            Self::Rtp(rtp) if rtp.stream_ref().config().telephone_event.is_some() => {
                rtp.stream().send_dtmf(digits, press).is_ok()
            }
            Self::Rtp(rtp) => rtp.stream().send_dtmf_tones(item, digits, press).is_ok(),
        }
    }

    /// Says goodbye. What is left can go on over another medium of its kind.
    pub(super) fn finish(self) -> Idle {
        match self {
            Self::Pcm(pcm) => {
                let PcmMedia { stream, mut wire, .. } = *pcm;
                wire.hang_up();
                Idle::Pcm(Box::new(stream))
            }
            Self::Rtp(rtp) => Idle::Rtp(Box::new(rtp.leave())),
        }
    }
}

/// A medium's stream between two media, with all that waits in it.
pub(super) enum Idle {
    Pcm(Box<PcmStream>),
    Rtp(Box<Stream>),
}

impl Idle {
    /// Whether it can go on over that medium.
    pub(super) fn fits(&self, media: &PendingMedia) -> bool {
        match self {
            Self::Pcm(_) => matches!(media, PendingMedia::Wire(_)),
            Self::Rtp(_) => matches!(media, PendingMedia::Rtp(_)),
        }
    }

    pub(super) fn play(&mut self, item: &ItemKey, pcm24k: &[i16]) -> Result<(), PlayError> {
        match self {
            Self::Pcm(stream) => stream.play(item, pcm24k),
            Self::Rtp(stream) => stream.play(item, pcm24k),
        }
    }

    pub(super) fn end_item(&mut self, item: &ItemKey) {
        match self {
            Self::Pcm(stream) => stream.end_item(item),
            Self::Rtp(stream) => stream.end_item(item),
        }
    }

    pub(super) fn clear(&mut self) -> Vec<PlayedItem> {
        match self {
            Self::Pcm(stream) => stream.clear(Duration::ZERO),
            Self::Rtp(stream) => stream.clear(),
        }
    }

    pub(super) fn pause(&mut self) {
        match self {
            Self::Pcm(stream) => stream.pause(),
            Self::Rtp(stream) => stream.pause(),
        }
    }

    pub(super) fn resume(&mut self) {
        match self {
            Self::Pcm(stream) => stream.resume(),
            Self::Rtp(stream) => stream.resume(),
        }
    }

    pub(super) fn queued(&self) -> Duration {
        match self {
            Self::Pcm(stream) => stream.queued(),
            Self::Rtp(stream) => stream.queued(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Pcm(stream) => stream.is_idle(),
            Self::Rtp(stream) => stream.is_idle(),
        }
    }
}

/// Media on its way from one worker to another.
pub(super) enum DetachedMedium {
    Pcm(Box<PcmStream>, Box<dyn PendingWire>),
    Rtp(Box<crate::rtp::media::DetachedMedia>),
}

impl DetachedMedium {
    pub(super) fn attach(self, pacer: &Pacer) -> io::Result<Media> {
        Ok(match self {
            Self::Pcm(stream, wire) => Media::Pcm(Box::new(PcmMedia::with(*stream, wire.attach()?, pacer))),
            Self::Rtp(rtp) => Media::Rtp(Box::new(rtp.attach(pacer)?)),
        })
    }
}

/// A stream, its wire and its place on the grid.
pub(super) struct PcmMedia {
    stream: PcmStream,
    wire: Box<dyn Wire>,
    ticket: Ticket,
    timer: Timer,
    payload: Vec<u8>,
    out: Vec<u8>,
    /// What was sent of a tick that carried none, or more than one slot: for the recording.
    sent: Option<Vec<i16>>,
    closed: bool,
}

impl PcmMedia {
    fn begin(wire: Box<dyn Wire>, settings: &PbxSettings, pacer: &Pacer) -> Result<Self, AudioError> {
        let (limit, inband) = (settings.playout_limit, settings.inband_dtmf);
        let stream = PcmStream::new(wire.coding(), limit, inband, Instant::now())?;
        Ok(Self::with(stream, wire, pacer))
    }

    fn with(mut stream: PcmStream, wire: Box<dyn Wire>, pacer: &Pacer) -> Self {
        stream.interrupted();
        Self {
            stream,
            wire,
            ticket: pacer.join(),
            timer: Timer::new(),
            payload: Vec::new(),
            out: Vec::new(),
            sent: None,
            closed: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        let event = |event| Heard::Media(MediaSignal::Event(event));
        loop {
            if let Some(news) = self.stream.poll_event() {
                return Poll::Ready(event(match news {
                    PlayoutEvent::Started(item) => StreamEvent::ItemStarted { item },
                    PlayoutEvent::Finished { item, played_ms } => {
                        StreamEvent::ItemFinished { item, played_ms }
                    }
                }));
            }
            if let Some(digit) = self.stream.poll_key() {
                return Poll::Ready(event(StreamEvent::Dtmf { digit, method: DtmfMethod::Inband }));
            }
            if self.closed {
                return Poll::Pending;
            }
            if let Poll::Ready(tick) = self.ticket.poll_tick(cx) {
                let item = self.send_slot(tick.deadline);
                return Poll::Ready(Heard::Media(MediaSignal::Sent { due: tick.deadline, item }));
            }
            if let Poll::Ready(event) = self.wire.poll(cx, &mut self.payload) {
                if let Some(heard) = self.heard(event) {
                    return Poll::Ready(heard);
                }
                continue;
            }
            let now = ready!(self.poll_timer(cx));
            if self.wire.next_timeout().is_some_and(|due| due <= now)
                && let Some(end) = self.wire.handle_timeout(now)
            {
                self.closed = true;
                return Poll::Ready(Heard::Closed(end));
            }
            if self.stream.handle_timeout(now) {
                return Poll::Ready(Heard::Media(MediaSignal::Audio { since: now }));
            }
        }
    }

    fn heard(&mut self, event: WireEvent) -> Option<Heard> {
        match event {
            WireEvent::Audio { since } => {
                let coding = self.wire.coding();
                if let Err(error) = self.stream.set_coding(coding) {
                    self.closed = true;
                    return Some(Heard::Closed(WireEnd::Protocol(error.to_string())));
                }
                self.stream.receive(since, &mut self.payload);
                Some(Heard::Media(MediaSignal::Audio { since }))
            }
            WireEvent::Digit(digit) => Some(Heard::Key(digit)),
            WireEvent::Closed(end) => {
                self.closed = true;
                Some(Heard::Closed(end))
            }
        }
    }

    /// Sends what is due now; tells whether an item's audio was in it. Slots that were missed stay missed: the far
    /// end would play them in a burst.
    fn send_slot(&mut self, deadline: Instant) -> bool {
        let now = Instant::now();
        // The far end may have said how it wants to be spoken to without having spoken itself. One that cannot be
        // spoken to ends the wire with its first payload.
        let _as_before = self.stream.set_coding(self.wire.coding());
        let mut item = false;
        let due = self.wire.due(now);
        self.sent = (due != 1).then(Vec::new);
        for _ in 0..due {
            let slot = self.stream.tick(&mut self.out);
            item |= slot.item;
            if !self.out.is_empty() {
                self.wire.send(now, &self.out, slot.voice);
            }
            if let Some(sent) = &mut self.sent {
                self.stream.sent_frame(sent);
            }
        }
        self.stream.note_lateness(now.saturating_duration_since(deadline));
        item
    }

    /// Appends what the last tick carried.
    fn sent_frame(&mut self, out: &mut Vec<i16>) {
        match &mut self.sent {
            Some(sent) => out.append(sent),
            None => self.stream.sent_frame(out),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        let stream = self.stream.next_timeout();
        let next = self.wire.next_timeout().map_or(stream, |wire| wire.min(stream));
        self.timer.poll(cx, next)
    }
}
