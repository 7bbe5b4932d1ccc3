//! One connection's session, without its socket: whose it is, at what rate, and when it is over.
//!
//! The owner reads into [`Link::space`], says what came, takes events until there are none, and writes what
//! [`Link::unsent`] has. Frames leave whole or not at all: when the connection takes only a part of one, the
//! rest of it goes before anything else, and the frames of the meantime are dropped.

use std::io;
use std::time::{Duration, Instant};

use super::codec::{AudioKind, Decoder, ErrorCode, HANGUP, KIND_UUID, Message, Oddities};
use super::kinds::{CHANGES_MOST, Kind, Kinds};
use crate::pbx::{Coding, Uuid, WireEnd};

/// What a session is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSettings {
    /// Sample rate of audio of kind 0x10, in Hz. Releases that know the other kinds mean 8000 by it; older
    /// ones send any rate as this kind.
    pub rate: u32,
    /// How long the UUID may take to come.
    pub uuid_timeout: Duration,
    /// It is over when nothing at all came for this long. Zero: never.
    pub idle_timeout: Duration,
    /// It is over when the far end took no whole frame for this long.
    pub stall_timeout: Duration,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            rate: 8_000,
            uuid_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: STALL_TIMEOUT,
        }
    }
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Whose connection it is. The first event, and only once.
    Named(Uuid),
    /// Samples, put into the buffer of [`Link::event`]; [`Link::coding`] says of what rate. `since` is when
    /// they were read.
    Audio {
        /// Of the read from the socket.
        since: Instant,
    },
    /// A key was pressed.
    Digit(char),
    /// It is over. Nothing follows.
    Ended(WireEnd),
}

/// What was lost or passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounts {
    /// Messages that were passed over.
    pub oddities: Oddities,
    /// Slots of ours that the connection did not take.
    pub dropped: u64,
    /// Frames of another kind than those around them, which were not heard.
    pub unsettled: u64,
}

/// One session.
#[derive(Debug)]
pub struct Link {
    decoder: Decoder,
    settings: LinkSettings,
    state: State,
    /// Of the last audio that came; what we send is of the same.
    kind: AudioKind,
    kinds: Kinds,
    /// What the connection was last told to let wait.
    unsent_limit: u32,
    read_at: Instant,
    /// Unknown kinds since the last message of a known one.
    unknown_in_a_row: u64,
    unknown_before: u64,
    outgoing: Outgoing,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The UUID is awaited.
    Unnamed {
        until: Instant,
    },
    /// Audio flows.
    Up,
    /// It has ended, which has not been told.
    Ending(WireEnd),
    Over,
}

/// The frame that is on its way out.
#[derive(Debug, Default)]
struct Outgoing {
    frame: Vec<u8>,
    sent: usize,
    /// Since when no frame has left whole.
    blocked_since: Option<Instant>,
    dropped: u64,
}

impl Link {
    /// The session of a connection that was accepted `now`.
    pub fn new(now: Instant, settings: LinkSettings) -> Self {
        Self {
            decoder: Decoder::default(),
            state: State::Unnamed { until: now + settings.uuid_timeout },
            settings,
            kind: AudioKind::Slin,
            kinds: Kinds::default(),
            unsent_limit: 0,
            read_at: now,
            unknown_in_a_row: 0,
            unknown_before: 0,
            outgoing: Outgoing::default(),
        }
    }

    /// Audio of kind 0x10 has this rate, in Hz, on this connection.
    pub fn set_rate(&mut self, rate: u32) {
        self.settings.rate = rate;
    }

    /// How audio is coded: as the last that came. Before any has come, kind 0x10 is what every release takes.
    pub fn coding(&self) -> Coding {
        Coding::Linear(match self.kind {
            AudioKind::Slin => self.settings.rate,
            kind => kind.rate(),
        })
    }

    /// Whether the UUID has come.
    pub fn is_named(&self) -> bool {
        !matches!(self.state, State::Unnamed { .. })
    }

    /// Room for bytes to be read into; see [`Decoder::space`].
    pub fn space(&mut self) -> &mut [u8] {
        self.decoder.space()
    }

    /// So many bytes have been read into [`Self::space`]; none means that the far end has closed.
    pub fn received(&mut self, now: Instant, count: usize) {
        if count == 0 {
            // Asterisk says no other goodbye.
            self.end(WireEnd::HungUp);
        } else {
            self.read_at = now;
            self.decoder.filled(count);
        }
    }

    /// The socket failed.
    pub fn failed(&mut self, error: &io::Error) {
        self.end(match error.kind() {
            // So does a hang-up look when the far end had not read all that we sent.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => {
                WireEnd::HungUp
            }
            _ => WireEnd::Lost(error.to_string()),
        });
    }

    /// The next event. Samples replace what `payload` holds.
    pub fn event(&mut self, payload: &mut Vec<u8>) -> Option<LinkEvent> {
        loop {
            let unnamed = match &self.state {
                State::Unnamed { .. } => true,
                State::Up => false,
                State::Ending(_) => {
                    // What came before the end is told before it.
                    if let Some(event) = self.last_words(payload) {
                        return Some(event);
                    }
                    let State::Ending(end) = std::mem::replace(&mut self.state, State::Over) else {
                        return None;
                    };
                    return Some(LinkEvent::Ended(end));
                }
                State::Over => return None,
            };
            if unnamed && let Some(kind) = self.decoder.kind().filter(|&kind| kind != KIND_UUID) {
                let said = match kind {
                    0x00 => WireEnd::HungUp,
                    _ => WireEnd::Protocol(format!("the first message is of kind {kind:#04x}, not a UUID")),
                };
                self.end(said);
                continue;
            }
            let message = match self.decoder.message() {
                Ok(message) => message,
                Err(broken) => {
                    self.end(WireEnd::Protocol(broken.to_string()));
                    continue;
                }
            };
            let event = match message {
                None => {
                    self.note_unknown();
                    if matches!(self.state, State::Ending(_)) {
                        continue;
                    }
                    return None;
                }
                Some(Message::Uuid(uuid)) if unnamed => {
                    self.state = State::Up;
                    LinkEvent::Named(uuid)
                }
                // Asterisk names itself once; what a second name should mean nobody says.
                Some(Message::Uuid(_)) => continue,
                Some(Message::Audio(kind, samples)) => {
                    match self.kinds.hear(self.read_at, self.kind, kind) {
                        Kind::Settled => {}
                        Kind::Doubtful => continue,
                        Kind::Restless => {
                            let end =
                                format!("more than {CHANGES_MOST} changes of the kind of audio in 10 s");
                            self.end_at_once(WireEnd::Protocol(end));
                            continue;
                        }
                    }
                    self.kind = kind;
                    payload.clear();
                    payload.extend_from_slice(samples);
                    LinkEvent::Audio { since: self.read_at }
                }
                Some(Message::Digit(key)) => LinkEvent::Digit(key),
                Some(Message::Hangup) => {
                    self.end_at_once(WireEnd::HungUp);
                    continue;
                }
                Some(Message::Error(code)) => {
                    self.end_at_once(match code {
                        ErrorCode::HungUp => WireEnd::HungUp,
                        code => WireEnd::Lost(format!("the PBX says {code}")),
                    });
                    continue;
                }
            };
            self.note_unknown();
            self.unknown_in_a_row = 0;
            return Some(event);
        }
    }

    /// Puts the payload of one slot into a frame, unless an earlier one is not out, or the session is over;
    /// then it is dropped, and counted in the former case. Whether there is something to write.
    pub fn frame(&mut self, now: Instant, payload: &[u8]) -> bool {
        if !matches!(self.state, State::Up) || payload.is_empty() {
            return false;
        }
        if !self.unsent().is_empty() {
            self.outgoing.dropped += 1;
            self.outgoing.blocked_since.get_or_insert(now);
            return false;
        }
        self.outgoing.frame.clear();
        self.outgoing.sent = 0;
        // A slot is whole samples and short; anything else is not sent, rather than cut.
        Message::Audio(self.kind, payload).write(&mut self.outgoing.frame).is_ok()
    }

    /// How many bytes may wait for the network: [`UNSENT_SLOTS`] slots of the present kind. `None`: as many as were
    /// answered last.
    pub fn new_unsent_limit(&mut self) -> Option<u32> {
        let slot = self.coding().bytes_in(SLOT).unwrap_or_default() + HEADER;
        let limit = u32::try_from(slot).unwrap_or(u32::MAX).saturating_mul(UNSENT_SLOTS);
        (std::mem::replace(&mut self.unsent_limit, limit) != limit).then_some(limit)
    }

    /// What has to be written next, if anything.
    pub fn unsent(&self) -> &[u8] {
        &self.outgoing.frame[self.outgoing.sent..]
    }

    /// The connection took so many bytes of [`Self::unsent`].
    pub fn sent(&mut self, now: Instant, count: usize) {
        let outgoing = &mut self.outgoing;
        outgoing.sent = (outgoing.sent + count).min(outgoing.frame.len());
        if outgoing.sent == outgoing.frame.len() {
            outgoing.blocked_since = None;
            return;
        }
        outgoing.blocked_since.get_or_insert(now);
        if outgoing.sent == 0 {
            // Nothing of it is out: what is newer then is worth more.
            outgoing.frame.clear();
            outgoing.dropped += 1;
        }
    }

    /// Ends the session: what to write last, if the far end may still hear it. The remainder of a frame goes
    /// before the goodbye, which would be taken for its samples otherwise.
    pub fn hang_up(&mut self) -> Option<&[u8]> {
        let alive = matches!(self.state, State::Unnamed { .. } | State::Up);
        self.state = State::Over;
        if !alive {
            return None;
        }
        self.outgoing.frame.extend_from_slice(&HANGUP);
        Some(&self.outgoing.frame[self.outgoing.sent..])
    }

    /// When [`Self::handle_timeout`] must be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Unnamed { until } => Some(until),
            State::Up => {
                let stalled = self.outgoing.blocked_since.map(|since| since + self.settings.stall_timeout);
                [self.idle_at(), stalled].into_iter().flatten().min()
            }
            State::Ending(_) | State::Over => None,
        }
    }

    /// A deadline may have passed. Answers the end if that is what it means; it is not told again as an event.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<WireEnd> {
        if self.next_timeout().is_none_or(|at| now < at) {
            return None;
        }
        let end = match self.state {
            State::Unnamed { .. } => {
                let waited = self.settings.uuid_timeout;
                WireEnd::Protocol(format!("no UUID came within {waited:?}"))
            }
            _ if self.idle_at().is_some_and(|at| now >= at) => {
                WireEnd::Lost(format!("nothing came from the PBX for {:?}", self.settings.idle_timeout))
            }
            _ => WireEnd::Lost(format!("the PBX has taken no audio for {:?}", self.settings.stall_timeout)),
        };
        self.state = State::Over;
        Some(end)
    }

    /// What was lost or passed over until now.
    pub fn counts(&self) -> LinkCounts {
        LinkCounts {
            oddities: self.decoder.oddities(),
            dropped: self.outgoing.dropped,
            unsettled: self.kinds.unsettled,
        }
    }

    fn idle_at(&self) -> Option<Instant> {
        let idle = self.settings.idle_timeout;
        (!idle.is_zero()).then(|| self.read_at + idle)
    }

    /// Ends it behind what has been read.
    fn end(&mut self, end: WireEnd) {
        if matches!(self.state, State::Unnamed { .. }) {
            self.end_at_once(end);
        } else if self.state == State::Up {
            self.state = State::Ending(end);
        }
    }

    /// Ends it here; what was read behind this is of no concern.
    fn end_at_once(&mut self, end: WireEnd) {
        self.decoder = Decoder::with_oddities(self.decoder.oddities());
        self.state = State::Ending(end);
    }

    /// What was read before the end came.
    fn last_words(&mut self, payload: &mut Vec<u8>) -> Option<LinkEvent> {
        loop {
            return match self.decoder.message() {
                Ok(Some(Message::Audio(kind, samples))) => {
                    if self.kinds.hear(self.read_at, self.kind, kind) != Kind::Settled {
                        continue;
                    }
                    self.kind = kind;
                    payload.clear();
                    payload.extend_from_slice(samples);
                    Some(LinkEvent::Audio { since: self.read_at })
                }
                Ok(Some(Message::Digit(key))) => Some(LinkEvent::Digit(key)),
                Ok(Some(Message::Uuid(_))) => continue,
                Ok(Some(Message::Hangup | Message::Error(_)) | None) | Err(_) => None,
            };
        }
    }

    /// A stream of nothing but unknown kinds has lost its place.
    fn note_unknown(&mut self) {
        let unknown = self.decoder.oddities().unknown;
        self.unknown_in_a_row += unknown - self.unknown_before;
        self.unknown_before = unknown;
        if self.unknown_in_a_row > UNKNOWN_MOST && self.state == State::Up {
            let end = format!("{} messages of unknown kinds, one after the other", self.unknown_in_a_row);
            self.end_at_once(WireEnd::Protocol(end));
        }
    }
}

/// One slot, and what is before its payload.
const SLOT: Duration = Duration::from_millis(20);
const HEADER: usize = 3;

/// Slots of ours that may wait for the network, beside those that are on their way.
const UNSENT_SLOTS: u32 = 4;

/// How long a connection may take no whole frame.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Newer releases may send kinds we do not know, among the others; these in a row are something else.
const UNKNOWN_MOST: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = Uuid([9; 16]);

    struct Session {
        link: Link,
        now: Instant,
        payload: Vec<u8>,
    }

    impl Session {
        fn new(settings: LinkSettings) -> Self {
            let now = Instant::now();
            Self { link: Link::new(now, settings), now, payload: Vec::new() }
        }

        /// One whose UUID has come.
        fn named() -> Self {
            let mut session = Self::new(LinkSettings::default());
            assert_eq!(session.hear(&written(&[Message::Uuid(UUID)])), [LinkEvent::Named(UUID)]);
            session
        }

        fn hear(&mut self, bytes: &[u8]) -> Vec<LinkEvent> {
            let space = self.link.space();
            space[..bytes.len()].copy_from_slice(bytes);
            self.link.received(self.now, bytes.len());
            self.events()
        }

        fn events(&mut self) -> Vec<LinkEvent> {
            std::iter::from_fn(|| self.link.event(&mut self.payload)).collect()
        }

        fn audio(&self) -> LinkEvent {
            LinkEvent::Audio { since: self.now }
        }

        /// What would be written of a slot, when the connection takes everything.
        fn slot(&mut self, payload: &[u8]) -> Vec<u8> {
            assert!(self.link.frame(self.now, payload));
            let bytes = self.link.unsent().to_vec();
            self.link.sent(self.now, bytes.len());
            bytes
        }
    }

    fn written(messages: &[Message<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        messages.iter().for_each(|message| message.write(&mut out).expect("fits"));
        out
    }

    fn ended(end: WireEnd) -> Vec<LinkEvent> {
        vec![LinkEvent::Ended(end)]
    }

    #[test]
    fn the_uuid_comes_first_and_then_whatever_was_behind_it() {
        let mut session = Session::new(LinkSettings::default());
        assert!(!session.link.is_named());
        let stream =
            written(&[Message::Uuid(UUID), Message::Audio(AudioKind::Slin, &[1, 2]), Message::Digit('#')]);
        assert_eq!(session.hear(&stream[..7]), []);
        let audio = session.audio();
        assert_eq!(session.hear(&stream[7..]), [LinkEvent::Named(UUID), audio, LinkEvent::Digit('#')]);
        assert_eq!(session.payload, [1, 2]);
        assert!(session.link.is_named());
    }

    #[test]
    fn who_begins_with_anything_else_is_no_asterisk() {
        for (bytes, kind) in
            [(&b"GET / HTTP/1.1\r\n"[..], "0x47"), (&[0x10, 0, 2, 1, 1], "0x10"), (&[0xff, 0, 0], "0xff")]
        {
            let end = WireEnd::Protocol(format!("the first message is of kind {kind}, not a UUID"));
            assert_eq!(Session::new(LinkSettings::default()).hear(bytes), ended(end));
        }
        let mut session = Session::new(LinkSettings::default());
        assert_eq!(session.hear(&[1, 0, 15]), ended(WireEnd::Protocol("a UUID of 15 bytes".to_owned())));
        // A probe: the application connects before it looks whether the channel is answered.
        assert_eq!(Session::new(LinkSettings::default()).hear(&[]), ended(WireEnd::HungUp));
    }

    #[test]
    fn a_uuid_that_does_not_come_is_not_waited_for() {
        let mut session = Session::new(LinkSettings::default());
        session.hear(&[1, 0]);
        let at = session.link.next_timeout().expect("a deadline");
        assert_eq!(at, session.now + Duration::from_secs(2));
        assert_eq!(session.link.handle_timeout(at - Duration::from_millis(1)), None);
        let end = WireEnd::Protocol("no UUID came within 2s".to_owned());
        assert_eq!(session.link.handle_timeout(at), Some(end));
        assert_eq!((session.link.next_timeout(), session.events()), (None, vec![]));
    }

    #[test]
    fn what_we_send_is_of_the_kind_that_came_last() {
        let mut session = Session::named();
        assert_eq!(session.link.coding(), Coding::Linear(8_000));
        assert_eq!(session.slot(&[0; 320])[..3], [0x10, 1, 0x40]);
        for kind in AudioKind::ALL {
            session.hear(&written(&[Message::Audio(kind, &[0; 2])]).repeat(3));
            assert_eq!(session.link.coding(), Coding::Linear(kind.rate()));
            assert_eq!(session.slot(&[0; 2])[0], kind as u8);
        }
    }

    #[test]
    fn the_configured_rate_is_that_of_kind_0x10_only() {
        let mut session = Session::new(LinkSettings { rate: 16_000, ..LinkSettings::default() });
        session.hear(&written(&[Message::Uuid(UUID), Message::Audio(AudioKind::Slin, &[0; 640])]));
        assert_eq!(session.link.coding(), Coding::Linear(16_000));
        assert_eq!(session.slot(&[0; 640])[0], 0x10);
        session.hear(&written(&[Message::Audio(AudioKind::Slin24, &[0; 960])]).repeat(3));
        assert_eq!(session.link.coding(), Coding::Linear(24_000));
    }

    #[test]
    fn a_stray_frame_of_another_kind_changes_nothing_and_restlessness_is_no_call() {
        let mut session = Session::named();
        let of = |kind, count| written(&[Message::Audio(kind, &[0; 2])]).repeat(count);
        let audio = session.audio();
        assert_eq!(
            session.hear(&of(AudioKind::Slin24, 1)),
            std::slice::from_ref(&audio),
            "the first one at once"
        );
        for _ in 0..50 {
            assert_eq!(session.hear(&of(AudioKind::Slin16, 2)), []);
            assert_eq!(session.hear(&of(AudioKind::Slin24, 1)), std::slice::from_ref(&audio));
            assert_eq!(session.link.coding(), Coding::Linear(24_000));
        }
        assert_eq!(session.link.counts().unsettled, 100);
        // Ten changes in ten seconds may be; and as many again later.
        for round in 0..2 {
            for change in 0..10 {
                let kind = if change % 2 == 0 { AudioKind::Slin16 } else { AudioKind::Slin24 };
                assert_eq!(session.hear(&of(kind, 3)).len(), 1, "{round} {change}");
                assert_eq!(session.link.coding(), Coding::Linear(kind.rate()));
            }
            session.now += Duration::from_secs(10);
        }
        session.now -= Duration::from_secs(1);
        let end = "more than 10 changes of the kind of audio in 10 s".to_owned();
        assert_eq!(session.hear(&of(AudioKind::Slin16, 3)), ended(WireEnd::Protocol(end)));
    }

    #[test]
    fn what_may_wait_for_the_network_is_four_slots_of_any_rate() {
        let mut session = Session::named();
        assert_eq!(session.link.new_unsent_limit(), Some(4 * 323));
        assert_eq!(session.link.new_unsent_limit(), None);
        session.hear(&written(&[Message::Audio(AudioKind::Slin24, &[0; 960])]));
        assert_eq!(session.link.new_unsent_limit(), Some(4 * 963));
    }

    #[test]
    fn every_way_to_hang_up_is_one() {
        assert_eq!(Session::named().hear(&[]), ended(WireEnd::HungUp));
        assert_eq!(Session::named().hear(&[0, 0, 0]), ended(WireEnd::HungUp));
        assert_eq!(Session::named().hear(&[0xff, 0, 1, 1]), ended(WireEnd::HungUp));
        let end = WireEnd::Lost("the PBX says that it could not forward a frame".to_owned());
        assert_eq!(Session::named().hear(&[0xff, 0, 1, 2]), ended(end));
        for (kind, hung_up) in [(io::ErrorKind::ConnectionReset, true), (io::ErrorKind::TimedOut, false)] {
            let mut session = Session::named();
            session.link.failed(&kind.into());
            let [LinkEvent::Ended(end)] = &session.events()[..] else { panic!("it is over") };
            assert_eq!(*end == WireEnd::HungUp, hung_up, "{end:?}");
            assert_eq!((session.events(), session.link.frame(session.now, &[0; 2])), (vec![], false));
        }
    }

    #[test]
    fn what_was_said_before_the_end_is_heard() {
        let mut session = Session::named();
        let bytes = written(&[Message::Audio(AudioKind::Slin, &[1, 2]), Message::Digit('1')]);
        session.link.space()[..bytes.len()].copy_from_slice(&bytes);
        session.link.received(session.now, bytes.len());
        session.link.failed(&io::ErrorKind::ConnectionReset.into());
        let expected = [session.audio(), LinkEvent::Digit('1'), LinkEvent::Ended(WireEnd::HungUp)];
        assert_eq!(session.events(), expected);
    }

    #[test]
    fn unknown_kinds_are_passed_over_until_there_is_nothing_else() {
        let mut session = Session::named();
        let unknown = [0x20, 0, 1, 7];
        for _ in 0..10 {
            assert_eq!(session.hear(&unknown.repeat(60)), []);
            assert_eq!(session.hear(&written(&[Message::Digit('1')])), [LinkEvent::Digit('1')]);
        }
        assert_eq!(session.hear(&unknown.repeat(100)), []);
        let end = WireEnd::Protocol("101 messages of unknown kinds, one after the other".to_owned());
        assert_eq!(session.hear(&unknown), ended(end));
        assert_eq!(session.link.counts().oddities.unknown, 701);
    }

    #[test]
    fn a_frame_that_was_cut_is_finished_before_anything_else() {
        let mut session = Session::named();
        assert!(session.link.frame(session.now, &[7; 320]));
        session.link.sent(session.now, 100);
        assert!(!session.link.frame(session.now, &[8; 320]), "dropped whole");
        assert_eq!((session.link.unsent().len(), session.link.counts().dropped), (223, 1));
        session.link.sent(session.now, 223);
        assert_eq!(session.slot(&[9; 320])[3], 9);
        assert_eq!(session.link.counts().dropped, 1);
    }

    #[test]
    fn a_frame_of_which_nothing_left_makes_way_for_a_newer_one() {
        let mut session = Session::named();
        assert!(session.link.frame(session.now, &[7; 320]));
        session.link.sent(session.now, 0);
        assert_eq!(session.link.unsent(), [0; 0]);
        assert_eq!(session.slot(&[8; 320])[3], 8);
        assert_eq!(session.link.counts().dropped, 1);
    }

    #[test]
    fn a_far_end_that_takes_nothing_is_given_up() {
        let mut session = Session::named();
        session.link.frame(session.now, &[7; 320]);
        session.link.sent(session.now, 10);
        let stalled = session.now + Duration::from_secs(5);
        assert_eq!(session.link.next_timeout(), Some(stalled));
        session.now += Duration::from_secs(3);
        session.link.sent(session.now, 10);
        assert_eq!(session.link.next_timeout(), Some(stalled), "a part is not a frame");
        let end = WireEnd::Lost("the PBX has taken no audio for 5s".to_owned());
        assert_eq!(session.link.handle_timeout(stalled), Some(end));
        assert_eq!(session.link.hang_up(), None);
    }

    #[test]
    fn nothing_at_all_for_long_is_the_end_unless_that_is_switched_off() {
        let mut session = Session::named();
        session.now += Duration::from_secs(30);
        session.hear(&[0x20, 0, 0]);
        assert_eq!(session.link.next_timeout(), Some(session.now + Duration::from_secs(60)));
        let at = session.now + Duration::from_secs(60);
        let end = WireEnd::Lost("nothing came from the PBX for 60s".to_owned());
        assert_eq!(session.link.handle_timeout(at), Some(end));
        let mut patient =
            Session::new(LinkSettings { idle_timeout: Duration::ZERO, ..LinkSettings::default() });
        patient.hear(&written(&[Message::Uuid(UUID)]));
        assert_eq!(patient.link.next_timeout(), None);
    }

    #[test]
    fn the_goodbye_goes_behind_the_rest_of_a_frame() {
        let mut session = Session::named();
        assert_eq!(session.link.hang_up(), Some(&[0, 0, 0][..]));
        assert_eq!(session.link.hang_up(), None);
        let mut session = Session::named();
        session.link.frame(session.now, &[7; 4]);
        session.link.sent(session.now, 5);
        assert_eq!(session.link.hang_up(), Some(&[7, 7, 0, 0, 0][..]));
    }
}
