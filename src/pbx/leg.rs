//! A party behind a PBX's own door: a channel and its media joined into one leg of a call.
//!
//! The thin shell on a media worker, with the face that a SIP leg has: the call polls it and gets
//! [`PbxSignal`]s; dropping it hangs up and closes its media. A channel that is controlled may be there before its
//! media, outlive it and get another: what is to be heard meanwhile waits.

mod waiting;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::media::{DetachedMedium, Heard, Idle, Media, PbxSettings};
use super::{ChannelEvent, Control, Departure, Exit, LegParts, PendingMedia, WireEnd};
use crate::audio::Codec;
use crate::event::Quality;
use crate::id::LegId;
use crate::rtp::media::MediaSignal;
use crate::rtp::pacer::Pacer;
use crate::rtp::{ItemKey, PlayError, PlayedItem, StreamEvent};
use waiting::Waiting;

/// What a PBX leg tells its call. The words are those of a SIP leg's signals.
#[derive(Debug, Clone, PartialEq)]
pub enum PbxSignal {
    /// Audio of the party waits.
    Audio {
        /// When the oldest of it was read.
        since: Instant,
    },
    /// A slot has passed.
    Sent {
        /// When it was due.
        due: Instant,
        /// An item's audio was in it.
        item: bool,
    },
    /// A key was pressed.
    Dtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// `pbx`, `rtp` or `inband`.
        method: &'static str,
    },
    /// The first frame of an item has left.
    ItemStarted(ItemKey),
    /// The last frame of an item has left.
    ItemFinished {
        /// Which.
        item: ItemKey,
        /// All of it.
        played_ms: u64,
    },
    /// Keys have been pressed.
    DtmfSent,
    /// The party keeps us waiting, or does not any more.
    Held(bool),
    /// Outgoing: it rings.
    Ringing,
    /// The party is there and can be heard.
    Established,
    /// It went where it was sent. [`PbxSignal::Gone`] follows, for a call that did not send it there.
    Left,
    /// It could not go there; in words, why.
    Stayed(String),
    /// It is over. Nothing follows.
    Gone(Departure),
}

/// One party behind a PBX.
pub struct PbxLeg {
    id: LegId,
    control: Option<Box<dyn Control>>,
    events: mpsc::Receiver<ChannelEvent>,
    coming: mpsc::Receiver<PendingMedia>,
    media: Option<Media>,
    /// What goes on over the next medium: of one that is gone, with all that waits in it.
    idle: Option<Idle>,
    settings: PbxSettings,
    pacer: Pacer,
    signals: VecDeque<PbxSignal>,
    /// Before there was any media.
    waiting: Waiting,
    slots_watched: bool,
    /// How often keys were played as tones.
    keys: u32,
    answering: bool,
    up: bool,
    told: bool,
    /// The channel tells nothing more.
    deaf: bool,
    /// Until when other media may come, and what became of the last.
    lost: Option<(Instant, WireEnd)>,
    timer: Pin<Box<Sleep>>,
    /// Of media that is gone.
    quality: Option<Quality>,
    over: bool,
}

impl PbxLeg {
    /// A leg on the worker of this pacer.
    pub fn new(parts: LegParts, settings: PbxSettings, pacer: Pacer) -> Self {
        let mut leg = Self {
            id: parts.id,
            control: parts.control,
            events: parts.events,
            coming: parts.media,
            media: None,
            idle: None,
            settings,
            pacer,
            signals: VecDeque::new(),
            waiting: Waiting::default(),
            slots_watched: true,
            keys: 0,
            answering: false,
            up: parts.up,
            told: false,
            deaf: false,
            lost: None,
            timer: Box::pin(tokio::time::sleep_until(tokio::time::Instant::now())),
            quality: None,
            over: false,
        };
        // What came with the caller is there before the first word.
        if let Ok(media) = leg.coming.try_recv() {
            leg.attach(media);
        }
        leg
    }

    /// Its name.
    pub fn id(&self) -> LegId {
        self.id
    }

    /// Where further legs of the same call join the grid.
    pub fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// The codec that is most like what is spoken, once there is media.
    pub fn codec(&self) -> Option<Codec> {
        self.media.as_ref().map(Media::codec)
    }

    /// Whether the party is or was there: [`PbxSignal::Established`] has been told, or is about to be.
    pub fn is_established(&self) -> bool {
        self.told
    }

    /// Whether the party hears us already, answered or not: nobody else makes a ringing tone for it then.
    pub fn is_open(&self) -> bool {
        self.up && self.media.is_some()
    }

    /// Whether the channel can be sent elsewhere in the PBX: one that is controlled anywhere, another only to the
    /// next step of its dialplan.
    pub fn can_leave(&self, to: &Exit) -> bool {
        self.control.as_ref().map_or(*to == Exit::Continue, |control| control.can_leave(to))
    }

    /// Lets the caller hear ringing, where somebody can make it.
    pub fn ring(&mut self) {
        if let Some(control) = self.control.as_mut().filter(|_| !self.up) {
            control.ring();
        }
    }

    /// Answers. Done at once, or as soon as there is media: nobody is to miss the first words.
    pub fn answer(&mut self) {
        self.answering = true;
        // A caller who came with media has it before anybody asks what is spoken.
        if self.media.is_none()
            && let Ok(media) = self.coming.try_recv()
        {
            return self.attach(media);
        }
        self.answer_with_media();
    }

    fn answer_with_media(&mut self) {
        if self.answering && !self.up && self.media.is_some() {
            self.answering = false;
            match &mut self.control {
                Some(control) => control.answer(),
                None => self.up = true,
            }
        }
        self.tell_established();
    }

    fn tell_established(&mut self) {
        if self.up && self.media.is_some() && !self.told {
            self.told = true;
            self.signals.push_back(PbxSignal::Established);
        }
    }

    /// Ends the leg with this Q.850 cause.
    pub fn hang_up(&mut self, cause: u16) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if let Some(control) = &mut self.control {
            control.hang_up(cause);
        }
        self.close_media();
    }

    fn close_media(&mut self) {
        if let Some(media) = self.media.take() {
            self.quality = Some(media.quality());
            drop(media.finish());
        }
    }

    /// Sends the party elsewhere in the PBX. [`PbxSignal::Left`] or [`PbxSignal::Stayed`] follows.
    pub fn leave(&mut self, to: &Exit) {
        match &mut self.control {
            Some(control) => control.leave(to),
            None if *to == Exit::Continue => {
                // The application returns, and the dialplan goes on.
                self.hang_up(NORMAL_CLEARING);
                self.left();
            }
            None => {
                let reason = "the channel is not controlled: configure [ari]".to_owned();
                self.signals.push_back(PbxSignal::Stayed(reason));
            }
        }
    }

    /// Keeps the party waiting in the PBX's own way, or takes it back.
    pub fn hold(&mut self, on: bool) {
        if let Some(control) = &mut self.control {
            control.hold(on);
        }
    }

    /// Presses keys towards the party: by its channel, or as tones in the audio.
    pub fn send_dtmf(&mut self, digits: &str) {
        if let Some(control) = self.control.as_mut().filter(|control| control.is_apart()) {
            return control.send_dtmf(digits);
        }
        // A name of its own each time: what was cleared once is not played again.
        self.keys += 1;
        let item = ItemKey::from(format!("{KEYS}{}", self.keys).as_str());
        let sent = self.media.as_mut().is_some_and(|media| media.play_keys(&item, digits, KEY_PRESS));
        if !sent {
            self.signals.push_back(PbxSignal::DtmfSent);
        }
    }

    /// Polls the channel and the media. Cancel-safe: nothing is lost when whoever polls goes away.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<PbxSignal> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Poll::Ready(signal);
            }
            if self.over {
                return Poll::Pending;
            }
            let event = if self.deaf { Poll::Pending } else { self.events.poll_recv(cx) };
            if let Poll::Ready(event) = event {
                match event {
                    Some(event) => self.channel_event(event),
                    None => self.channel_silent(),
                }
            } else if let Poll::Ready(Some(media)) = self.coming.poll_recv(cx) {
                self.attach(media);
            } else if let Some(Poll::Ready(heard)) = self.media.as_mut().map(|media| media.poll(cx)) {
                self.heard(heard);
            } else if self.lost.is_some() && self.timer.as_mut().poll(cx).is_ready() {
                self.media_given_up();
            } else {
                return Poll::Pending;
            }
        }
    }

    fn channel_event(&mut self, event: ChannelEvent) {
        let signal = match event {
            ChannelEvent::Ringing => PbxSignal::Ringing,
            ChannelEvent::Up => {
                self.up = true;
                return self.tell_established();
            }
            ChannelEvent::Digit(digit) => PbxSignal::Dtmf { digit, method: "pbx" },
            ChannelEvent::KeysSent => PbxSignal::DtmfSent,
            ChannelEvent::Held(held) => PbxSignal::Held(held),
            ChannelEvent::Left => return self.left(),
            ChannelEvent::Stayed(reason) => PbxSignal::Stayed(reason),
            ChannelEvent::Gone(departure) => return self.gone(departure),
        };
        self.signals.push_back(signal);
    }

    /// The channel is not ours any more: for a call that did not send it away, that is the end of it.
    fn left(&mut self) {
        self.over = true;
        self.close_media();
        let reason = "went on in the PBX".to_owned();
        let departure = Departure { cause: NORMAL_CLEARING, reason, by_peer: true };
        self.signals.extend([PbxSignal::Left, PbxSignal::Gone(departure)]);
    }

    /// Whoever follows the channel has gone without a last word.
    fn channel_silent(&mut self) {
        self.deaf = true;
        if self.control.as_ref().is_some_and(|control| control.is_apart()) {
            let reason = "the PBX's channel is not followed any more".to_owned();
            self.gone(Departure { cause: TEMPORARY_FAILURE, reason, by_peer: false });
        }
    }

    fn gone(&mut self, departure: Departure) {
        if !std::mem::replace(&mut self.over, true) {
            self.close_media();
            self.signals.push_back(PbxSignal::Gone(departure));
        }
    }

    fn attach(&mut self, media: PendingMedia) {
        self.lose_media();
        let idle = self.idle.take().and_then(|idle| self.fitting(idle, &media));
        match Media::attach(media, idle, &self.settings, &self.pacer) {
            Ok(media) => {
                self.media = Some(media);
                self.lost = None;
                self.say_what_waited();
                self.answer_with_media();
            }
            Err(error) => self.media_lost(WireEnd::Lost(error.to_string())),
        }
    }

    fn heard(&mut self, heard: Heard) {
        let signal = match heard {
            Heard::Media(MediaSignal::Audio { since }) => PbxSignal::Audio { since },
            Heard::Media(MediaSignal::Sent { .. }) if !self.slots_watched => return,
            Heard::Media(MediaSignal::Sent { due, item }) => PbxSignal::Sent { due, item },
            Heard::Media(MediaSignal::Event(event)) => match event {
                StreamEvent::Dtmf { digit, method } => PbxSignal::Dtmf { digit, method: method.as_str() },
                StreamEvent::ItemStarted { item } if item.0.starts_with(KEYS) => return,
                StreamEvent::ItemFinished { item, .. } if item.0.starts_with(KEYS) => PbxSignal::DtmfSent,
                StreamEvent::ItemStarted { item } => PbxSignal::ItemStarted(item),
                StreamEvent::ItemFinished { item, played_ms } => PbxSignal::ItemFinished { item, played_ms },
                StreamEvent::DtmfSent => PbxSignal::DtmfSent,
                other => return tracing::debug!(event = ?other, "media"),
            },
            Heard::Key(digit) => PbxSignal::Dtmf { digit, method: "pbx" },
            Heard::Closed(end) => {
                self.lose_media();
                return self.media_lost(end);
            }
        };
        self.signals.push_back(signal);
    }

    /// A channel that is controlled says by itself how it ended, or gets other media.
    fn media_lost(&mut self, end: WireEnd) {
        match self.control.as_mut().filter(|control| control.is_apart()) {
            Some(control) => {
                let wait = if control.media_lost() { OTHER_MEDIA } else { LAST_WORD };
                let until = Instant::now() + wait;
                self.timer.as_mut().reset(until.into());
                self.lost = Some((until, end));
            }
            None => self.gone(departure(end)),
        }
    }

    fn media_given_up(&mut self) {
        let Some((_, end)) = self.lost.take() else { return };
        let reason = match end {
            WireEnd::HungUp => "the PBX closed the audio".to_owned(),
            WireEnd::Lost(reason) | WireEnd::Protocol(reason) => reason,
        };
        if let Some(control) = &mut self.control {
            control.hang_up(TEMPORARY_FAILURE);
        }
        self.gone(Departure { cause: TEMPORARY_FAILURE, reason, by_peer: false });
    }

    // What is said to the party.

    /// Queues audio of an item, 24 kHz. Answers how many milliseconds were given up because the queue is full.
    pub fn play(&mut self, item: &ItemKey, pcm: &[i16]) -> u64 {
        let played = match (&mut self.media, &mut self.idle) {
            (Some(media), _) => media.play(item, pcm),
            (None, Some(idle)) => idle.play(item, pcm),
            (None, None) => return self.waiting.play(item, pcm),
        };
        match played {
            Ok(()) | Err(PlayError::Cleared) => 0,
            Err(PlayError::Full { accepted }) => (pcm.len() - accepted) as u64 / 24,
        }
    }

    /// The media is gone, the party perhaps not: what waits to be heard does so until other media comes.
    fn lose_media(&mut self) {
        let Some(media) = self.media.take() else { return };
        self.quality = Some(media.quality());
        self.idle = Some(media.finish());
    }

    /// What cannot go on over a medium of another kind is not heard, and nobody is to wait for it.
    fn fitting(&mut self, mut idle: Idle, media: &PendingMedia) -> Option<Idle> {
        if idle.fits(media) {
            return Some(idle);
        }
        let items = idle.clear().into_iter();
        let finished = |PlayedItem { item, played_ms, .. }| PbxSignal::ItemFinished { item, played_ms };
        self.signals.extend(items.map(finished));
        None
    }

    fn say_what_waited(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if let Some(media) = self.media.as_mut().filter(|_| waiting.paused) {
            media.pause();
        }
        for (item, pcm, ended) in waiting.items {
            self.play(&item, &pcm);
            if ended {
                self.end_item(&item);
            }
        }
    }

    /// Queues live audio of another party, 24 kHz: heard while no item is.
    pub fn play_live(&mut self, pcm: &[i16]) {
        self.media.iter_mut().for_each(|media| media.play_live(pcm));
    }

    /// Audio of items that waits to be heard.
    pub fn queued(&self) -> Duration {
        match (&self.media, &self.idle) {
            (Some(media), _) => media.queued(),
            (None, Some(idle)) => idle.queued(),
            (None, None) => self.waiting.length(),
        }
    }

    /// No more audio follows for that item.
    pub fn end_item(&mut self, item: &ItemKey) {
        match (&mut self.media, &mut self.idle) {
            (Some(media), _) => media.end_item(item),
            (None, Some(idle)) => idle.end_item(item),
            (None, None) => self.waiting.end(item),
        }
    }

    /// Drops everything queued, within the next slot; answers what was unfinished, the audible one first.
    pub fn clear(&mut self) -> Vec<PlayedItem> {
        let mut cleared = match (&mut self.media, &mut self.idle) {
            (Some(media), _) => media.clear(),
            (None, Some(idle)) => idle.clear(),
            (None, None) => self.waiting.clear(),
        };
        let all = cleared.len();
        cleared.retain(|played| !played.item.0.starts_with(KEYS));
        if cleared.len() < all {
            self.signals.push_back(PbxSignal::DtmfSent);
        }
        cleared
    }

    /// Holds queued audio back, within the next slot, until [`Self::resume`] or [`Self::clear`].
    pub fn pause(&mut self) {
        match (&mut self.media, &mut self.idle) {
            (Some(media), _) => media.pause(),
            (None, Some(idle)) => idle.pause(),
            (None, None) => self.waiting.paused = true,
        }
    }

    /// Queued audio is heard again, from where it was held back.
    pub fn resume(&mut self) {
        match (&mut self.media, &mut self.idle) {
            (Some(media), _) => media.resume(),
            (None, Some(idle)) => idle.resume(),
            (None, None) => self.waiting.paused = false,
        }
    }

    /// Whether nothing is being said and nothing waits.
    pub fn is_idle(&self) -> bool {
        match (&self.media, &self.idle) {
            (Some(media), _) => media.is_idle(),
            (None, Some(idle)) => idle.is_idle(),
            (None, None) => self.waiting.items.is_empty(),
        }
    }

    /// Appends audio of the party that has come in, 24 kHz.
    pub fn take_audio(&mut self, out: &mut Vec<i16>) {
        self.media.iter_mut().for_each(|media| media.take_audio(out));
    }

    /// What the last slot carried, 24 kHz: for the recording. Called after every slot or never.
    pub fn sent_frame(&mut self, out: &mut Vec<i16>) {
        self.media.iter_mut().for_each(|media| media.sent_frame(out));
    }

    /// Whether [`PbxSignal::Sent`] is wanted for every slot.
    pub fn watch_slots(&mut self, wanted: bool) {
        self.slots_watched = wanted;
    }

    /// Notes how long received audio took until it was written towards the AI.
    pub fn note_uplink(&mut self, took: Duration) {
        self.media.iter_mut().for_each(|media| media.note_uplink(took));
    }

    /// Statistics so far.
    pub fn quality(&self) -> Option<Quality> {
        self.media.as_ref().map(Media::quality).or_else(|| self.quality.clone())
    }

    /// Takes the leg off its worker.
    ///
    /// # Errors
    /// When its connection cannot be had; the leg has then hung up.
    pub fn detach(mut self) -> std::io::Result<DetachedPbxLeg> {
        let media = self.media.take().map(Media::detach).transpose()?;
        let (_, no_events) = mpsc::channel(1);
        let (_, no_media) = mpsc::channel(1);
        let parts = LegParts {
            id: self.id,
            up: self.up,
            control: self.control.take(),
            events: std::mem::replace(&mut self.events, no_events),
            media: std::mem::replace(&mut self.coming, no_media),
        };
        let rest = Rest {
            media,
            settings: self.settings.clone(),
            idle: self.idle.take(),
            waiting: std::mem::take(&mut self.waiting),
            signals: std::mem::take(&mut self.signals),
            keys: self.keys,
            answering: self.answering,
            slots_watched: self.slots_watched,
            told: self.told,
            deaf: self.deaf,
            lost: self.lost.take(),
            quality: self.quality.take(),
            over: self.over,
        };
        // From here on it is not this value's to hang up.
        self.over = true;
        Ok(DetachedPbxLeg { parts, rest })
    }
}

impl Drop for PbxLeg {
    fn drop(&mut self) {
        self.hang_up(NORMAL_CLEARING);
    }
}

impl std::fmt::Debug for PbxLeg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PbxLeg").field("id", &self.id).field("up", &self.up).finish_non_exhaustive()
    }
}

/// A leg on its way from one worker to another.
pub struct DetachedPbxLeg {
    parts: LegParts,
    rest: Rest,
}

struct Rest {
    media: Option<DetachedMedium>,
    settings: PbxSettings,
    idle: Option<Idle>,
    waiting: Waiting,
    signals: VecDeque<PbxSignal>,
    keys: u32,
    answering: bool,
    slots_watched: bool,
    told: bool,
    deaf: bool,
    lost: Option<(Instant, WireEnd)>,
    quality: Option<Quality>,
    over: bool,
}

impl DetachedPbxLeg {
    /// Which leg.
    pub fn id(&self) -> LegId {
        self.parts.id
    }

    /// Goes on at the worker of this pacer.
    ///
    /// # Errors
    /// When the worker takes no more sockets; the leg has then hung up.
    pub fn attach(self, pacer: Pacer) -> std::io::Result<PbxLeg> {
        let Self { parts, rest } = self;
        let mut leg = PbxLeg::new(parts, rest.settings, pacer);
        // What came on the way, if anything did, is newer than what was taken along.
        leg.signals.extend(rest.signals);
        (leg.keys, leg.told, leg.deaf, leg.over) = (rest.keys, rest.told, rest.deaf, rest.over);
        (leg.answering, leg.slots_watched, leg.quality) = (rest.answering, rest.slots_watched, rest.quality);
        if leg.media.is_none() {
            (leg.idle, leg.waiting) = (rest.idle, rest.waiting);
            leg.media = rest.media.map(|media| media.attach(&leg.pacer)).transpose()?;
        }
        if let Some((until, _)) = &rest.lost {
            leg.timer.as_mut().reset((*until).into());
        }
        leg.lost = rest.lost.filter(|_| leg.media.is_none());
        Ok(leg)
    }
}

impl std::fmt::Debug for DetachedPbxLeg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DetachedPbxLeg").field(&self.parts.id).finish()
    }
}

fn departure(end: WireEnd) -> Departure {
    match end {
        WireEnd::HungUp => Departure { cause: NORMAL_CLEARING, reason: "hung up".to_owned(), by_peer: true },
        WireEnd::Lost(reason) => Departure { cause: TEMPORARY_FAILURE, reason, by_peer: false },
        WireEnd::Protocol(reason) => Departure { cause: PROTOCOL_ERROR, reason, by_peer: false },
    }
}

/// How long a channel without media waits for other media.
const OTHER_MEDIA: Duration = Duration::from_secs(20);
/// How long its end may follow that of its media.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How items of tones are named.
const KEYS: &str = "keys-";
/// How long each key is pressed.
const KEY_PRESS: Duration = Duration::from_millis(120);
/// Q.850.
const NORMAL_CLEARING: u16 = 16;
const TEMPORARY_FAILURE: u16 = 41;
const PROTOCOL_ERROR: u16 = 111;
