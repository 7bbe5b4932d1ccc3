//! What the caller has said and no transcript tells yet, so that another session can hear it: a pure core.
//!
//! The audio of a turn is kept from a moment before the speech was noticed until its words are known. It costs
//! little: 8 kHz µ-law, at most [`BYTES_MAX`] octets a call.

use std::collections::VecDeque;

use crate::audio::g711;
use crate::provider::ItemId;

/// The caller's audio that may be needed again.
#[derive(Debug, Default)]
pub struct Backlog {
    /// The last moment, while nobody speaks.
    recent: Tape,
    turns: VecDeque<Turn>,
    /// Nobody listens.
    nobody: bool,
    /// Samples that do not yet make one at 8 kHz.
    carry: Vec<i16>,
}

#[derive(Debug)]
struct Turn {
    item: Option<ItemId>,
    /// Call time of its first sample.
    start_ms: u64,
    audio: Tape,
    /// It goes on.
    open: bool,
    /// When its answer was complete.
    answered_ms: Option<u64>,
    /// How often it was given to another session.
    replays: u8,
}

/// What a new session is to hear first.
#[derive(Debug, Default, PartialEq)]
pub struct Replay {
    /// 24 kHz.
    pub pcm: Vec<i16>,
    /// Where each stretch of it lies: milliseconds of `pcm` before it, and its call time.
    pub places: Vec<(u64, u64)>,
    /// A turn of the caller is in it that is over: an answer is due.
    pub whole_turn: bool,
}

impl Backlog {
    /// The caller was heard; `end_ms` is the call time of the end of `pcm`, 24 kHz, whose mean square is `power`.
    pub fn hear(&mut self, end_ms: u64, pcm: &[i16], power: f32) {
        let to = match self.turns.back_mut().filter(|turn| turn.open) {
            Some(turn) => {
                if turn.audio.is_empty() {
                    turn.start_ms = end_ms.saturating_sub(pcm.len() as u64 / 24);
                }
                &mut turn.audio
            }
            None => &mut self.recent,
        };
        if self.carry.is_empty() && pcm.len().is_multiple_of(RATIO) {
            match power < SILENT {
                true => to.rest(pcm.len() / RATIO),
                false => to.record(pcm),
            }
        } else {
            self.carry.extend_from_slice(pcm);
            let whole = self.carry.len() / RATIO * RATIO;
            to.record(&self.carry[..whole]);
            self.carry.drain(..whole);
        }
        if self.turns.iter().any(|turn| turn.answered_ms.is_some()) {
            self.turns.retain(|turn| turn.answered_ms.is_none_or(|at| end_ms < at + WORDS_WITHIN_MS));
        }
        self.disown();
        self.shrink();
    }

    /// The caller speaks; their turn will be called `item`. `now_ms` is the call time; `replayed`: it was in what
    /// the session heard first. Answers whether they speak now.
    pub fn started(&mut self, now_ms: u64, item: Option<ItemId>, replayed: bool) -> bool {
        let waiting = self.turns.iter_mut().find(|turn| replayed && turn.item.is_none());
        if let Some(turn) = waiting {
            turn.item = item;
            return turn.open;
        }
        if let Some(turn) = self.turns.back_mut().filter(|turn| turn.open) {
            turn.item = item;
            return true;
        }
        if !replayed {
            self.open(now_ms, item);
        }
        !replayed
    }

    fn open(&mut self, now_ms: u64, item: Option<ItemId>) {
        let audio = std::mem::take(&mut self.recent);
        let start_ms = now_ms.saturating_sub(audio.len() as u64 / BYTES_PER_MS);
        self.turns.push_back(Turn { item, start_ms, audio, open: true, answered_ms: None, replays: 0 });
    }

    /// The turn of that name is over.
    pub fn stopped(&mut self, item: Option<&ItemId>) {
        let found = self.turns.iter_mut().rev().find(|turn| item.is_none() || turn.item.as_ref() == item);
        if let Some(turn) = found {
            turn.open = false;
        }
    }

    /// The words of that turn are known: its audio is not needed any more.
    pub fn known(&mut self, item: &ItemId) {
        self.turns.retain(|turn| turn.open || turn.item.as_ref() != Some(item));
    }

    /// The caller was answered to the end: turns whose words do not come soon are given up.
    pub fn answered(&mut self, now_ms: u64) {
        for turn in self.turns.iter_mut().filter(|turn| !turn.open) {
            turn.answered_ms.get_or_insert(now_ms);
        }
    }

    /// Somebody of ours has heard the caller begin to speak; what the service makes of it is still to come.
    pub fn overheard(&mut self, now_ms: u64) {
        if !self.turns.back().is_some_and(|turn| turn.open) {
            self.open(now_ms, None);
        }
    }

    /// The service has heard nothing in what was overheard.
    pub fn was_nothing(&mut self) {
        if let Some(turn) = self.turns.pop_back_if(|turn| turn.open && turn.item.is_none()) {
            self.recent = turn.audio;
        }
    }

    /// Nobody listens from here on: what is heard is kept.
    pub fn outage(&mut self, now_ms: u64) {
        self.nobody = true;
        if !self.turns.back().is_some_and(|turn| turn.open) {
            self.open(now_ms, None);
        }
    }

    /// Whether the caller is in a turn of theirs, as far as the session before said.
    pub fn is_open(&self) -> bool {
        self.turns.back().is_some_and(|turn| turn.open && turn.item.is_some())
    }

    /// Whether anything of the caller's is kept for another session.
    pub fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// What a new session must hear. It tells its own names of the turns.
    pub fn replay(&mut self) -> Replay {
        let mut replay = Replay::default();
        self.nobody = false;
        self.turns.retain(|turn| turn.open || turn.replays < REPLAYS_MAX);
        for turn in &mut self.turns {
            turn.replays = turn.replays.saturating_add(1);
            let before = replay.pcm.len() as u64 / 24;
            replay.places.push((before, turn.start_ms));
            decode(&turn.audio, &mut replay.pcm);
            // A turn ends in silence, which must not have to be waited for.
            if !turn.open {
                replay.pcm.resize(replay.pcm.len() + TURN_END_MS * 24, 0);
                replay.whole_turn = true;
            }
            turn.item = None;
        }
        replay
    }

    /// Forgets what was kept: a session that cannot be given it has taken over.
    pub fn forget(&mut self) {
        self.turns.clear();
    }

    /// An outage in which the caller said nothing, as the session after it found.
    fn disown(&mut self) {
        let nobody = self.nobody;
        let unclaimed = |turn: &mut Turn| {
            turn.open && turn.item.is_none() && !nobody && turn.audio.len() > UNCLAIMED_BYTES
        };
        if let Some(turn) = self.turns.pop_back_if(unclaimed) {
            self.recent = turn.audio;
        }
        let over = self.recent.len().saturating_sub(RECENT_BYTES);
        self.recent.give_up(over);
    }

    /// Octets kept.
    pub fn bytes(&self) -> usize {
        self.recent.len() + self.turns.iter().map(|turn| turn.audio.len()).sum::<usize>()
    }

    fn shrink(&mut self) {
        let mut over = self.bytes().saturating_sub(BYTES_MAX);
        while over > 0
            && let Some(turn) = self.turns.front_mut()
        {
            let gone = over.min(turn.audio.len());
            turn.audio.give_up(gone);
            turn.start_ms += gone as u64 / BYTES_PER_MS;
            over -= gone;
            if turn.audio.is_empty() && !turn.open {
                self.turns.pop_front();
            } else if turn.audio.is_empty() {
                return;
            }
        }
    }
}

fn decode(audio: &Tape, out: &mut Vec<i16>) {
    let mut last = i32::from(audio.bytes().next().map_or(0, |byte| g711::MULAW.decode_one(byte)));
    out.reserve(audio.len() * RATIO);
    for byte in audio.bytes() {
        let next = i32::from(g711::MULAW.decode_one(byte));
        let step = next - last;
        out.extend([last + step / 3, last + 2 * step / 3, next].map(|sample| sample as i16));
        last = next;
    }
}

/// Octets of audio, the oldest first. It takes no more room than what can be heard of it, for most calls keep a second
/// of it as long as they last, and in most of that nobody speaks.
#[derive(Debug, Default)]
struct Tape {
    pieces: VecDeque<Piece>,
    len: usize,
    /// Octets of the first piece's sound that were given up.
    gone: usize,
}

/// Some sound, and then some silence.
#[derive(Debug, Default)]
struct Piece {
    sound: Vec<u8>,
    silence: usize,
}

impl Tape {
    fn len(&self) -> usize {
        self.len
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        let silence = g711::MULAW.silence();
        let all = self.pieces.iter().flat_map(move |piece| {
            piece.sound.iter().copied().chain(std::iter::repeat_n(silence, piece.silence))
        });
        all.skip(self.gone)
    }

    /// Appends audio at 24 kHz, a whole number of samples at 8 kHz.
    fn record(&mut self, mut pcm: &[i16]) {
        self.len += pcm.len() / RATIO;
        while !pcm.is_empty() {
            let last = self.pieces.back().map(|piece| (piece.silence > 0, piece.sound.len() >= BLOCK));
            match last {
                Some((false, false)) => {}
                // It goes on for a while, as it seems.
                Some((false, true)) => {
                    self.pieces.push_back(Piece { sound: Vec::with_capacity(BLOCK), silence: 0 });
                }
                Some((true, _)) | None => self.pieces.push_back(Piece::default()),
            }
            let Some(piece) = self.pieces.back_mut() else { return };
            let (now, later) = pcm.split_at(pcm.len().min((BLOCK - piece.sound.len()) * RATIO));
            piece.sound.extend(now.as_chunks::<RATIO>().0.iter().map(|three| {
                let sum: i32 = three.iter().map(|sample| i32::from(*sample)).sum();
                g711::MULAW.encode_one((sum / RATIO as i32) as i16)
            }));
            pcm = later;
        }
    }

    /// Appends silence.
    fn rest(&mut self, octets: usize) {
        if self.pieces.is_empty() {
            self.pieces.push_back(Piece::default());
        }
        if let Some(piece) = self.pieces.back_mut() {
            piece.silence += octets;
            self.len += octets;
        }
    }

    /// Drops that many of the oldest.
    fn give_up(&mut self, octets: usize) {
        let mut octets = octets.min(self.len);
        self.len -= octets;
        while let Some(piece) = self.pieces.front_mut() {
            let sound = octets.min(piece.sound.len() - self.gone);
            self.gone += sound;
            let silence = (octets - sound).min(piece.silence);
            piece.silence -= silence;
            octets -= sound + silence;
            if self.gone < piece.sound.len() {
                return;
            }
            (piece.sound, self.gone) = (Vec::new(), 0);
            if piece.silence > 0 {
                return;
            }
            self.pieces.pop_front();
        }
    }
}

/// Samples at 24 kHz for one at 8 kHz.
const RATIO: usize = 3;
const BYTES_PER_MS: u64 = 8;
/// Octets that are allocated at a time.
const BLOCK: usize = 1024;
/// Mean square of a frame in which nobody speaks: -66 dBov.
const SILENT: f32 = 256.0;
/// What is kept of the time before the speech was noticed: a second, since notice comes late.
const RECENT_BYTES: usize = 8_000;
/// Audio no service found speech in is given up at this length, at the latest.
const UNCLAIMED_BYTES: usize = 40_000;
/// A turn that no service makes words of is not given to a third one.
const REPLAYS_MAX: u8 = 2;
/// Words that have not come so long after the answer will not come.
const WORDS_WITHIN_MS: u64 = 3_000;
/// 15 s.
pub const BYTES_MAX: usize = 120_000;
/// Silence that ends a turn at any service.
const TURN_END_MS: usize = 900;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::level;

    #[test]
    fn a_turn_is_kept_with_the_moment_before_it_until_its_words_are_known() {
        let mut backlog = Backlog::default();
        hear(&mut backlog, 0, 100, 3000);
        backlog.started(3000, Some("u".into()), false);
        hear(&mut backlog, 3000, 8000, 2000);
        backlog.stopped(Some(&"u".into()));
        hear(&mut backlog, 5000, 100, 1000);
        let replay = backlog.replay();
        assert_eq!(replay.places, [(0, 2000)]);
        assert_eq!(replay.pcm.len(), 24 * (1000 + 2000 + TURN_END_MS));
        assert!(replay.whole_turn);
        let level = |ms: usize| replay.pcm[24 * ms].abs();
        assert!(level(500) < 200 && level(1500) > 7500 && level(3100) == 0, "{} {}", level(500), level(1500));
        backlog.started(6000, Some("2:u".into()), true);
        backlog.known(&"2:u".into());
        assert!(backlog.replay().pcm.is_empty());
    }

    #[test]
    fn a_turn_that_nobody_makes_words_of_is_given_to_two_other_sessions() {
        let mut backlog = Backlog::default();
        backlog.started(0, Some("u".into()), false);
        hear(&mut backlog, 0, 8000, 500);
        backlog.stopped(None);
        let lengths: Vec<usize> = (0..3).map(|_| backlog.replay().pcm.len() / 24).collect();
        assert_eq!(lengths, [500 + TURN_END_MS, 500 + TURN_END_MS, 0]);
    }

    #[test]
    fn known_words_need_no_audio() {
        let mut backlog = Backlog::default();
        backlog.started(0, Some("u".into()), false);
        hear(&mut backlog, 0, 8000, 500);
        backlog.stopped(None);
        backlog.known(&"u".into());
        assert_eq!((backlog.replay().pcm.len(), backlog.bytes()), (0, 0));
    }

    #[test]
    fn words_that_never_come_are_not_waited_for_once_the_turn_was_answered() {
        let mut backlog = Backlog::default();
        backlog.started(0, Some("u".into()), false);
        hear(&mut backlog, 0, 8000, 500);
        backlog.stopped(None);
        backlog.answered(1000);
        hear(&mut backlog, 1000, 10, 2900);
        assert!(backlog.has_turns());
        hear(&mut backlog, 3900, 10, 100);
        assert!(!backlog.has_turns());
    }

    #[test]
    fn what_is_said_while_nobody_listens_is_kept_and_goes_on_after() {
        let mut backlog = Backlog::default();
        hear(&mut backlog, 0, 100, 200);
        backlog.outage(200);
        hear(&mut backlog, 200, 8000, 700);
        let replay = backlog.replay();
        assert_eq!((replay.places.as_slice(), replay.pcm.len()), ([(0, 0)].as_slice(), 24 * 900));
        assert!(!replay.whole_turn && !backlog.is_open());
        backlog.started(1000, Some("u".into()), true);
        assert!(backlog.is_open());
        hear(&mut backlog, 900, 8000, 100);
        assert_eq!(backlog.replay().pcm.len(), 24 * 1000, "the second session may be lost as well");
    }

    #[test]
    fn an_outage_without_a_word_is_not_kept_for_ever() {
        let mut backlog = Backlog::default();
        backlog.outage(0);
        hear(&mut backlog, 0, 10, 1000);
        backlog.replay();
        hear(&mut backlog, 1000, 10, 20_000);
        assert!(backlog.bytes() <= RECENT_BYTES, "{}", backlog.bytes());
        assert_eq!(backlog.replay().places, []);
    }

    #[test]
    fn what_only_we_have_heard_is_given_to_the_next_session() {
        let mut backlog = Backlog::default();
        hear(&mut backlog, 0, 10, 500);
        backlog.overheard(500);
        hear(&mut backlog, 500, 8000, 1000);
        assert!(!backlog.is_open());
        assert_eq!(backlog.replay().pcm.len(), 24 * 1500);
        backlog.was_nothing();
        assert!(!backlog.has_turns());
    }

    #[test]
    fn an_endless_turn_keeps_its_last_quarter_of_a_minute() {
        let mut backlog = Backlog::default();
        backlog.started(0, Some("u".into()), false);
        for second in 0..60 {
            hear(&mut backlog, second * 1000, 8000, 1000);
            assert!(backlog.bytes() <= BYTES_MAX);
        }
        assert_eq!(backlog.replay().places, [(0, 45_000)]);
    }

    #[test]
    fn a_tape_gives_back_what_it_was_given_less_what_was_given_up() {
        let (mut tape, mut expected) = (Tape::default(), VecDeque::new());
        for round in 0..400u32 {
            let level = |n: u32| ((n * 37 + round * 911) % 20_000) as i16 - 10_000;
            let count = 1 + round % 190;
            if round % 7 > 3 {
                tape.rest(count as usize);
                expected.extend(std::iter::repeat_n(g711::MULAW.silence(), count as usize));
            } else {
                let pcm: Vec<i16> = (0..RATIO as u32 * count).map(|n| level(n / 3)).collect();
                tape.record(&pcm);
                expected.extend(pcm.iter().step_by(RATIO).map(|sample| g711::MULAW.encode_one(*sample)));
            }
            let over = (round as usize * 53) % 170;
            tape.give_up(over);
            expected.drain(..over.min(expected.len()));
            assert!(tape.bytes().eq(expected.iter().copied()), "round {round}");
            assert_eq!((tape.len(), tape.is_empty()), (expected.len(), expected.is_empty()));
        }
        tape.give_up(usize::MAX);
        assert!(tape.is_empty() && tape.pieces.is_empty());
    }

    #[test]
    fn silence_takes_no_room_and_sound_no_more_than_it_needs() {
        let mut backlog = Backlog::default();
        hear(&mut backlog, 0, 3, 60_000);
        let room = |tape: &Tape| tape.pieces.iter().map(|piece| piece.sound.capacity()).sum::<usize>();
        assert_eq!((backlog.bytes(), room(&backlog.recent)), (RECENT_BYTES, 0));
        hear(&mut backlog, 60_000, 8000, 60_000);
        assert_eq!(backlog.bytes(), RECENT_BYTES);
        assert!(room(&backlog.recent) <= RECENT_BYTES + 2 * BLOCK, "{}", room(&backlog.recent));
        hear(&mut backlog, 120_000, 3, 1_000);
        assert_eq!((backlog.bytes(), room(&backlog.recent)), (RECENT_BYTES, 0));
    }

    #[test]
    fn audio_that_comes_in_odd_pieces_is_not_lost() {
        let (mut odd, mut even) = (Backlog::default(), Backlog::default());
        let pcm: Vec<i16> = (0..4800).map(|n| (n % 997 * 13) as i16).collect();
        let mut heard = 0;
        for piece in pcm.chunks(481) {
            heard += piece.len() as u64;
            odd.hear(heard / 24, piece, level::power(piece));
        }
        even.hear(200, &pcm, level::power(&pcm));
        odd.overheard(200);
        even.overheard(200);
        assert_eq!(odd.replay().pcm, even.replay().pcm);
    }

    fn hear(backlog: &mut Backlog, from_ms: u64, level: i16, ms: u64) {
        for twenty in 0..ms / 20 {
            backlog.hear(from_ms + (twenty + 1) * 20, &[level; 480], f32::from(level).powi(2));
        }
    }
}
