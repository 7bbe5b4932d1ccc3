//! A party behind a PBX's own door: a channel and its media joined into one leg of a call.
//!
//! The thin shell on a media worker, with the face that a SIP leg has: the call polls it and gets
//! [`PbxSignal`]s; dropping it hangs up and closes its media. A channel that is controlled may be there before its
//! media, outlive it and get another: what is to be heard meanwhile waits.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::media::{DetachedMedium, Heard, Media, PbxSettings};
use super::{ChannelEvent, Control, Departure, Exit, LegParts, PendingMedia, WireEnd};
use crate::audio::Codec;
use crate::event::Quality;
use crate::id::LegId;
use crate::rtp::media::MediaSignal;
use crate::rtp::pacer::Pacer;
use crate::rtp::{ItemKey, PlayError, PlayedItem, StreamEvent};

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
    /// It went where it was sent. Nothing follows.
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
    settings: PbxSettings,
    pacer: Pacer,
    signals: VecDeque<PbxSignal>,
    waiting: Waiting,
    slots_watched: bool,
    /// How often keys were played as tones.
    keys: u32,
    answering: bool,
    up: bool,
    told: bool,
    /// Until when other media may come, and what became of the last.
    lost: Option<(Instant, WireEnd)>,
    timer: Pin<Box<Sleep>>,
    /// Of media that is gone.
    quality: Option<Quality>,
    over: bool,
}

/// Audio for a party whose media is not there yet.
#[derive(Debug, Default)]
struct Waiting {
    items: Vec<(ItemKey, Vec<i16>, bool)>,
    samples: usize,
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
            settings,
            pacer,
            signals: VecDeque::new(),
            waiting: Waiting::default(),
            slots_watched: true,
            keys: 0,
            answering: false,
            up: parts.up,
            told: false,
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

    /// Whether the party hears us already, answered or not: nobody else makes a ringing tone for it then.
    pub fn is_open(&self) -> bool {
        self.up && self.media.is_some()
    }

    /// Whether the channel can be sent elsewhere in the PBX: one that is controlled anywhere, another only to the
    /// next step of its dialplan.
    pub fn can_leave(&self, to: &Exit) -> bool {
        self.control.is_some() || *to == Exit::Continue
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
            media.finish();
        }
    }

    /// Sends the party elsewhere in the PBX. [`PbxSignal::Left`] or [`PbxSignal::Stayed`] follows.
    pub fn leave(&mut self, to: &Exit) {
        match &mut self.control {
            Some(control) => control.leave(to),
            None if *to == Exit::Continue => {
                // The application returns, and the dialplan goes on.
                self.hang_up(NORMAL_CLEARING);
                self.signals.push_back(PbxSignal::Left);
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
            if let Poll::Ready(Some(event)) = self.events.poll_recv(cx) {
                self.channel_event(event);
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
            ChannelEvent::Left => {
                self.over = true;
                self.close_media();
                PbxSignal::Left
            }
            ChannelEvent::Stayed(reason) => PbxSignal::Stayed(reason),
            ChannelEvent::Gone(departure) => return self.gone(departure),
        };
        self.signals.push_back(signal);
    }

    fn gone(&mut self, departure: Departure) {
        if !std::mem::replace(&mut self.over, true) {
            self.close_media();
            self.signals.push_back(PbxSignal::Gone(departure));
        }
    }

    fn attach(&mut self, media: PendingMedia) {
        self.close_media();
        match Media::attach(media, &self.settings, &self.pacer) {
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
                self.close_media();
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
        let Some(media) = &mut self.media else { return self.waiting.play(item, pcm) };
        match media.play(item, pcm) {
            Ok(()) | Err(PlayError::Cleared) => 0,
            Err(PlayError::Full { accepted }) => (pcm.len() - accepted) as u64 / 24,
        }
    }

    fn say_what_waited(&mut self) {
        for (item, pcm, ended) in std::mem::take(&mut self.waiting).items {
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
        self.media.as_ref().map_or_else(|| self.waiting.length(), Media::queued)
    }

    /// No more audio follows for that item.
    pub fn end_item(&mut self, item: &ItemKey) {
        match &mut self.media {
            Some(media) => media.end_item(item),
            None => self.waiting.end(item),
        }
    }

    /// Drops everything queued, within the next slot; answers what was unfinished, the audible one first.
    pub fn clear(&mut self) -> Vec<PlayedItem> {
        match &mut self.media {
            Some(media) => media.clear(),
            None => std::mem::take(&mut self.waiting).unheard(),
        }
    }

    /// Holds queued audio back, within the next slot, until [`Self::resume`] or [`Self::clear`].
    pub fn pause(&mut self) {
        self.media.iter_mut().for_each(Media::pause);
    }

    /// Queued audio is heard again, from where it was held back.
    pub fn resume(&mut self) {
        self.media.iter_mut().for_each(Media::resume);
    }

    /// Whether nothing is being said and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.media.as_ref().map_or(self.waiting.items.is_empty(), Media::is_idle)
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
            signals: std::mem::take(&mut self.signals),
            keys: self.keys,
            told: self.told,
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
    signals: VecDeque<PbxSignal>,
    keys: u32,
    told: bool,
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
        (leg.signals, leg.keys, leg.told, leg.over) = (rest.signals, rest.keys, rest.told, rest.over);
        leg.media = rest.media.map(|media| media.attach(&leg.pacer)).transpose()?;
        Ok(leg)
    }
}

impl std::fmt::Debug for DetachedPbxLeg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DetachedPbxLeg").field(&self.parts.id).finish()
    }
}

impl Waiting {
    fn play(&mut self, item: &ItemKey, pcm: &[i16]) -> u64 {
        let accepted = pcm.len().min(WAITING_MOST.saturating_sub(self.samples));
        self.samples += accepted;
        match self.items.iter_mut().find(|(key, ..)| key == item) {
            Some((_, waiting, _)) => waiting.extend_from_slice(&pcm[..accepted]),
            None => self.items.push((item.clone(), pcm[..accepted].to_vec(), false)),
        }
        (pcm.len() - accepted) as u64 / 24
    }

    fn end(&mut self, item: &ItemKey) {
        self.items.iter_mut().filter(|(key, ..)| key == item).for_each(|(.., ended)| *ended = true);
    }

    fn length(&self) -> Duration {
        Duration::from_millis(self.samples as u64 / 24)
    }

    fn unheard(self) -> Vec<PlayedItem> {
        let unheard = |(item, pcm, _): (ItemKey, Vec<i16>, bool)| PlayedItem {
            item,
            played_ms: 0,
            total_ms: pcm.len() as u64 / 24,
            complete: false,
        };
        self.items.into_iter().map(unheard).collect()
    }
}

fn departure(end: WireEnd) -> Departure {
    match end {
        WireEnd::HungUp => Departure { cause: NORMAL_CLEARING, reason: "hung up".to_owned(), by_peer: true },
        WireEnd::Lost(reason) => Departure { cause: TEMPORARY_FAILURE, reason, by_peer: false },
        WireEnd::Protocol(reason) => Departure { cause: PROTOCOL_ERROR, reason, by_peer: false },
    }
}

/// Audio that may wait for media, at 24 kHz: 20 s. A greeting comes at once, and media within a moment.
const WAITING_MOST: usize = 20 * crate::audio::BRIDGE_RATE as usize;
/// How long a channel without media waits for other media.
const OTHER_MEDIA: Duration = Duration::from_secs(5);
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
