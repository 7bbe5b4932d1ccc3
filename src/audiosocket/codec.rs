//! The messages: a kind, a length and a payload, cut out of a stream of bytes and written into one.
//!
//! ```text
//! byte 0     kind
//! byte 1-2   length of the payload, big endian
//! byte 3..   payload
//! ```
//!
//! Reading is lenient where a message can be passed over and nothing is lost but itself: unknown kinds, audio
//! without a sample, half a sample at the end, keys that are none. They are counted. Only a UUID of a wrong
//! length breaks the protocol: who is calling cannot be known then.

use std::fmt;

use crate::pbx::Uuid;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// The call is over.
    Hangup,
    /// Whose connection this is; the first message.
    Uuid(Uuid),
    /// A key was pressed: `0`-`9`, `*`, `#`, `A`-`D`.
    Digit(char),
    /// Whole samples, at least one: 16 bits each, little endian.
    Audio(AudioKind, &'a [u8]),
    /// The far end failed. It is over.
    Error(ErrorCode),
}

/// What audio is sampled at: a kind of its own for each of Asterisk's linear formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioKind {
    /// 8 kHz; or, from releases before 20.17, 22.7 and 23.1, audio of any rate.
    Slin = 0x10,
    /// 12 kHz.
    Slin12 = 0x11,
    /// 16 kHz.
    Slin16 = 0x12,
    /// 24 kHz.
    Slin24 = 0x13,
    /// 32 kHz.
    Slin32 = 0x14,
    /// 44.1 kHz.
    Slin44 = 0x15,
    /// 48 kHz.
    Slin48 = 0x16,
    /// 96 kHz.
    Slin96 = 0x17,
    /// 192 kHz.
    Slin192 = 0x18,
}

impl AudioKind {
    /// All of them, by rate.
    pub const ALL: [Self; 9] = [
        Self::Slin,
        Self::Slin12,
        Self::Slin16,
        Self::Slin24,
        Self::Slin32,
        Self::Slin44,
        Self::Slin48,
        Self::Slin96,
        Self::Slin192,
    ];

    /// The kind of this byte; `None` for one that is not audio.
    pub fn from_byte(byte: u8) -> Option<Self> {
        let index = usize::from(byte).checked_sub(Self::Slin as usize)?;
        Self::ALL.get(index).copied()
    }

    /// The kind of this rate in Hz, where there is one.
    pub fn from_rate(rate: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.rate() == rate)
    }

    /// The rate in Hz that it stands for by the protocol.
    pub const fn rate(self) -> u32 {
        match self {
            Self::Slin => 8_000,
            Self::Slin12 => 12_000,
            Self::Slin16 => 16_000,
            Self::Slin24 => 24_000,
            Self::Slin32 => 32_000,
            Self::Slin44 => 44_100,
            Self::Slin48 => 48_000,
            Self::Slin96 => 96_000,
            Self::Slin192 => 192_000,
        }
    }
}

/// Why the far end failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// It says nothing.
    Unspecified,
    /// The calling party hung up: 1.
    HungUp,
    /// A frame could not be forwarded: 2.
    Forwarding,
    /// It ran out of memory: 4.
    Memory,
    /// A code of no known meaning.
    Other(u8),
}

impl ErrorCode {
    const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Unspecified,
            1 => Self::HungUp,
            2 => Self::Forwarding,
            4 => Self::Memory,
            other => Self::Other(other),
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::HungUp => 1,
            Self::Forwarding => 2,
            Self::Memory => 4,
            Self::Other(byte) => byte,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unspecified => f.write_str("an error it does not name"),
            Self::HungUp => f.write_str("that the calling party hung up"),
            Self::Forwarding => f.write_str("that it could not forward a frame"),
            Self::Memory => f.write_str("that it has no memory left"),
            Self::Other(code) => write!(f, "error {code}"),
        }
    }
}

/// A message that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotWrite {
    /// Asterisk ends the call when it gets one.
    #[error("audio without a sample")]
    Empty,
    /// More than a length can say, or half a sample.
    #[error("{0} bytes of audio are not whole samples of one message")]
    Length(usize),
}

impl Message<'_> {
    /// Puts the whole message, header and payload, behind what is in `out`. On an error nothing is.
    ///
    /// # Errors
    /// [`CannotWrite`], for audio only.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), CannotWrite> {
        match self {
            Self::Hangup => out.extend_from_slice(&HANGUP),
            Self::Uuid(uuid) => put(out, KIND_UUID, &uuid.0),
            Self::Digit(key) => put(out, KIND_DTMF, &[*key as u8]),
            Self::Audio(_, []) => return Err(CannotWrite::Empty),
            Self::Audio(_, payload) if payload.len() > LENGTH_MAX || !payload.len().is_multiple_of(2) => {
                return Err(CannotWrite::Length(payload.len()));
            }
            Self::Audio(kind, payload) => put(out, *kind as u8, payload),
            Self::Error(ErrorCode::Unspecified) => put(out, KIND_ERROR, &[]),
            Self::Error(code) => put(out, KIND_ERROR, &[code.byte()]),
        }
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    out.extend_from_slice(&[kind, high, low]);
    out.extend_from_slice(payload);
}

/// The whole message that ends a call.
pub const HANGUP: [u8; HEADER] = [KIND_HANGUP, 0, 0];

/// What breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A UUID has 16 bytes.
    #[error("a UUID of {0} bytes")]
    UuidLength(usize),
}

/// Messages that were passed over, or taken with something missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Oddities {
    /// Of an unknown kind.
    pub unknown: u64,
    /// Audio without a sample.
    pub empty: u64,
    /// Audio with half a sample at its end, which is cut off.
    pub odd: u64,
    /// A key that is none, or of a length other than 1.
    pub keys: u64,
}

impl Oddities {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.unknown + self.empty + self.odd + self.keys
    }
}

/// Cuts a stream of bytes into messages. Bytes are read into [`Self::space`] or fed; audio is handed out
/// where it lies. It holds at most one message and what was read behind it.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// What has not been handed out: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Bytes to come that nobody wants.
    skip: usize,
    oddities: Oddities,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER_FIRST], start: 0, end: 0, skip: 0, oddities: Oddities::default() }
    }
}

impl Decoder {
    /// An empty one that goes on counting.
    pub fn with_oddities(oddities: Oddities) -> Self {
        Self { oddities, ..Self::default() }
    }

    /// Room for bytes to be read into; not empty once [`Self::message`] has answered `None`. Say afterwards
    /// how many there are ([`Self::filled`]).
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.buffer.len() - self.end < SPACE_LEAST {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            // It grows with what comes, not with what a header promises.
            self.buffer.resize((self.buffer.len() * 2).min(BUFFER_MAX), 0);
        }
        &mut self.buffer[self.end..]
    }

    /// The first `count` bytes of [`Self::space`] have been read.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// Takes as many of these bytes as there is room for, and answers how many. All of them are taken in the
    /// end when [`Self::message`] is called until it answers `None` in between.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let space = self.space();
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        self.filled(count);
        count
    }

    /// The kind of the message that has begun to come, whole or not.
    pub fn kind(&self) -> Option<u8> {
        let beginning = self.skip == 0 && self.start < self.end;
        beginning.then(|| self.buffer[self.start])
    }

    /// Whether the stream is between two messages.
    pub fn is_between(&self) -> bool {
        self.skip == 0 && self.start == self.end
    }

    /// What was passed over until now.
    pub const fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// The next message that is there; `None` until more bytes have come.
    ///
    /// # Errors
    /// [`Broken`]: the stream is of no use any more.
    pub fn message(&mut self) -> Result<Option<Message<'_>>, Broken> {
        loop {
            let skipped = self.skip.min(self.end - self.start);
            self.start += skipped;
            self.skip -= skipped;
            let &[kind, high, low, ..] = &self.buffer[self.start..self.end] else { return Ok(None) };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let payload = self.start + HEADER;
            let there = self.end - payload;
            // Messages that are worth their payload wait for all of it; the others are passed over as it comes.
            match (kind, length) {
                (KIND_HANGUP, _) => {
                    // As Asterisk does: a length that should be 0 is no reason to go on.
                    self.pass(length);
                    return Ok(Some(Message::Hangup));
                }
                (KIND_ERROR, 1..) if there == 0 => return Ok(None),
                (KIND_ERROR, _) => {
                    let code = if length == 0 { 0 } else { self.buffer[payload] };
                    self.pass(length);
                    return Ok(Some(Message::Error(ErrorCode::from_byte(code))));
                }
                (KIND_UUID, 16) => {
                    let Some(&bytes) = self.buffer[payload..self.end].first_chunk() else { return Ok(None) };
                    self.pass(length);
                    return Ok(Some(Message::Uuid(Uuid(bytes))));
                }
                (KIND_UUID, _) => return Err(Broken::UuidLength(length)),
                (KIND_DTMF, 1) if there == 0 => return Ok(None),
                (KIND_DTMF, 1) => {
                    let key = char::from(self.buffer[payload]).to_ascii_uppercase();
                    self.pass(length);
                    if KEYS.contains(key) {
                        return Ok(Some(Message::Digit(key)));
                    }
                    self.oddities.keys += 1;
                }
                (KIND_DTMF, _) => {
                    self.oddities.keys += 1;
                    self.pass(length);
                }
                (kind, length) => match AudioKind::from_byte(kind) {
                    Some(_) if length > there => return Ok(None),
                    Some(kind) => {
                        let whole = length & !1;
                        self.oddities.odd += u64::from(whole < length);
                        self.pass(length);
                        if whole > 0 {
                            let samples = &self.buffer[payload..payload + whole];
                            return Ok(Some(Message::Audio(kind, samples)));
                        }
                        self.oddities.empty += u64::from(length == 0);
                    }
                    None => {
                        self.oddities.unknown += 1;
                        self.pass(length);
                    }
                },
            }
        }
    }

    /// Goes behind the message at the start, as much of it as is there; the rest is skipped when it comes.
    fn pass(&mut self, length: usize) {
        let all = HEADER + length;
        let there = all.min(self.end - self.start);
        self.start += there;
        self.skip = all - there;
    }
}

/// Bytes of a header.
const HEADER: usize = 3;

/// Most bytes of audio in one message: whole samples.
const LENGTH_MAX: usize = u16::MAX as usize - 1;

const KIND_HANGUP: u8 = 0x00;
/// Of the message that says whose connection it is.
pub const KIND_UUID: u8 = 0x01;
const KIND_DTMF: u8 = 0x03;
const KIND_ERROR: u8 = 0xff;

const KEYS: &str = "0123456789*#ABCD";

/// What a decoder begins with: four slots of 24 kHz.
const BUFFER_FIRST: usize = 4 * 1024;

/// The longest message, and room to read what is behind it.
const BUFFER_MAX: usize = HEADER + u16::MAX as usize + SPACE_LEAST;

/// A read is worth so many bytes.
const SPACE_LEAST: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message with its own bytes.
    #[derive(Debug, Clone, PartialEq)]
    enum Heard {
        Hangup,
        Uuid(Uuid),
        Digit(char),
        Audio(AudioKind, Vec<u8>),
        Error(ErrorCode),
        Broken(Broken),
    }

    /// What comes out when the bytes come in these pieces, and what was odd.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Heard>, Oddities) {
        let (mut decoder, mut heard) = (Decoder::default(), Vec::new());
        for mut piece in pieces {
            while !piece.is_empty() {
                let taken = decoder.feed(piece);
                assert!(taken > 0, "there is room when everything was taken out");
                piece = &piece[taken..];
                loop {
                    heard.push(match decoder.message() {
                        Ok(None) => break,
                        Ok(Some(Message::Hangup)) => Heard::Hangup,
                        Ok(Some(Message::Uuid(uuid))) => Heard::Uuid(uuid),
                        Ok(Some(Message::Digit(key))) => Heard::Digit(key),
                        Ok(Some(Message::Audio(kind, samples))) => Heard::Audio(kind, samples.to_vec()),
                        Ok(Some(Message::Error(code))) => Heard::Error(code),
                        Err(broken) => {
                            heard.push(Heard::Broken(broken));
                            return (heard, decoder.oddities());
                        }
                    });
                }
                assert!(decoder.buffer.len() <= BUFFER_MAX);
            }
        }
        (heard, decoder.oddities())
    }

    fn bytes(messages: &[Heard]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            let message = match message {
                Heard::Hangup => Message::Hangup,
                Heard::Uuid(uuid) => Message::Uuid(*uuid),
                Heard::Digit(key) => Message::Digit(*key),
                Heard::Audio(kind, samples) => Message::Audio(*kind, samples),
                Heard::Error(code) => Message::Error(*code),
                Heard::Broken(_) => unreachable!("nobody writes that"),
            };
            message.write(&mut out).expect("fits");
        }
        out
    }

    #[test]
    fn the_examples_of_the_protocol_are_read_and_written() {
        let uuid = Uuid([0xab; 16]);
        for (message, written) in [
            (Heard::Uuid(uuid), [&[1, 0, 0x10][..], &[0xab; 16]].concat()),
            (Heard::Audio(AudioKind::Slin, vec![7; 320]), [&[0x10, 1, 0x40][..], &[7; 320]].concat()),
            (Heard::Audio(AudioKind::Slin16, vec![7; 640]), [&[0x12, 2, 0x80][..], &[7; 640]].concat()),
            (Heard::Digit('5'), vec![3, 0, 1, 0x35]),
            (Heard::Hangup, vec![0, 0, 0]),
            (Heard::Error(ErrorCode::Unspecified), vec![0xff, 0, 0]),
            (Heard::Error(ErrorCode::Memory), vec![0xff, 0, 1, 4]),
            (Heard::Error(ErrorCode::Other(9)), vec![0xff, 0, 1, 9]),
        ] {
            assert_eq!(bytes(std::slice::from_ref(&message)), written);
            assert_eq!(decode([&written[..]]), (vec![message], Oddities::default()));
        }
    }

    #[test]
    fn each_rate_has_its_kind() {
        let rates = [8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];
        for (byte, rate) in (0x10..=0x18).zip(rates) {
            let kind = AudioKind::from_byte(byte).expect("audio");
            assert_eq!((kind as u8, kind.rate()), (byte, rate));
            assert_eq!(AudioKind::from_rate(rate), Some(kind));
        }
        for byte in [0x00, 0x0f, 0x19, 0xff] {
            assert_eq!(AudioKind::from_byte(byte), None);
        }
        assert_eq!(AudioKind::from_rate(11_025), None);
    }

    #[test]
    fn what_is_odd_is_passed_over_and_counted() {
        let key = Heard::Digit('1');
        let behind = bytes(std::slice::from_ref(&key));
        let check = |odd: &[u8], of_it: &[Heard], count: fn(&Oddities) -> u64| {
            let stream = [odd, &behind].concat();
            let expected = [of_it, std::slice::from_ref(&key)].concat();
            let (heard, oddities) = decode(stream.chunks(1));
            assert_eq!((heard, oddities.total()), (expected, 1), "{odd:?}");
            assert_eq!(count(&oddities), 1, "{odd:?}");
        };
        check(&[0x10, 0, 0], &[], |o| o.empty);
        check(&[0x13, 0, 1, 9], &[], |o| o.odd);
        check(&[0x13, 0, 3, 1, 2, 3], &[Heard::Audio(AudioKind::Slin24, vec![1, 2])], |o| o.odd);
        check(&[0x02, 0, 0], &[], |o| o.unknown);
        check(&[0x19, 0, 2, 1, 2], &[], |o| o.unknown);
        check(&[[0x42, 0xff, 0xff].as_slice(), &[0; 0xffff]].concat(), &[], |o| o.unknown);
        check(&[0x03, 0, 0], &[], |o| o.keys);
        check(&[0x03, 0, 2, b'1', b'2'], &[], |o| o.keys);
        check(&[0x03, 0, 1, b'x'], &[], |o| o.keys);
    }

    #[test]
    fn a_hang_up_counts_at_its_header_and_an_error_at_its_code() {
        assert_eq!(decode([&[0, 0xff, 0xff][..]]).0, [Heard::Hangup]);
        assert_eq!(decode([&[0xff, 1, 0, 2][..]]).0, [Heard::Error(ErrorCode::Forwarding)]);
        let behind = [&[0, 0, 2, 9, 9][..], &[3, 0, 1, b'd']].concat();
        assert_eq!(decode(behind.chunks(2)).0, [Heard::Hangup, Heard::Digit('D')]);
    }

    #[test]
    fn a_uuid_of_another_length_breaks_the_protocol() {
        for length in [0, 15, 17] {
            let stream = [&[1, 0, length][..], &[7; 20]].concat();
            assert_eq!(decode([&stream[..]]).0, [Heard::Broken(Broken::UuidLength(length.into()))]);
        }
    }

    #[test]
    fn audio_that_cannot_be_sent_is_not() {
        let mut out = vec![1];
        let audio = |samples: &[u8], out: &mut Vec<u8>| Message::Audio(AudioKind::Slin, samples).write(out);
        assert_eq!(audio(&[], &mut out), Err(CannotWrite::Empty));
        assert_eq!(audio(&[1, 2, 3], &mut out), Err(CannotWrite::Length(3)));
        assert_eq!(audio(&[0; 65_536], &mut out), Err(CannotWrite::Length(65_536)));
        assert_eq!(out, [1]);
        assert_eq!(audio(&[0; 65_534], &mut out), Ok(()));
        assert_eq!(out[1..4], [0x10, 0xff, 0xfe]);
    }

    #[test]
    fn the_longest_message_fits_and_the_buffer_stays_small_without_one() {
        let longest = Heard::Audio(AudioKind::Slin192, vec![3; 65_534]);
        let stream = bytes(&[longest.clone(), longest.clone()]);
        assert_eq!(decode(stream.chunks(1_000)).0, [longest.clone(), longest]);
        let mut decoder = Decoder::default();
        let slot = bytes(&[Heard::Audio(AudioKind::Slin24, vec![3; 960])]);
        for piece in slot.repeat(100).chunks(700) {
            assert_eq!(decoder.feed(piece), piece.len());
            while let Ok(Some(_)) = decoder.message() {}
        }
        assert_eq!((decoder.buffer.len(), decoder.is_between()), (BUFFER_FIRST, true));
    }

    fn message() -> impl Strategy<Value = Heard> {
        let samples = proptest::collection::vec(any::<[u8; 2]>(), 1..400);
        prop_oneof![
            1 => Just(Heard::Hangup),
            1 => any::<[u8; 16]>().prop_map(|bytes| Heard::Uuid(Uuid(bytes))),
            2 => (0..KEYS.len()).prop_map(|at| Heard::Digit(char::from(KEYS.as_bytes()[at]))),
            1 => any::<u8>().prop_map(|byte| Heard::Error(ErrorCode::from_byte(byte))),
            8 => (0..9_usize, samples).prop_map(|(at, samples)| {
                Heard::Audio(AudioKind::ALL[at], samples.into_iter().flatten().collect())
            }),
        ]
    }

    /// The stream in pieces of these lengths, over and over.
    fn cut<'a>(mut stream: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for length in lengths.iter().cycle() {
            if stream.is_empty() {
                break;
            }
            let (piece, rest) = stream.split_at((*length).min(stream.len()));
            pieces.push(piece);
            stream = rest;
        }
        pieces
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_messages_are_the_same(
            messages in proptest::collection::vec(message(), 0..30),
            lengths in proptest::collection::vec(1..2_000_usize, 1..20),
        ) {
            let stream = bytes(&messages);
            prop_assert_eq!(decode(cut(&stream, &lengths)), (messages, Oddities::default()));
        }

        #[test]
        fn garbage_is_read_the_same_in_any_pieces(
            stream in proptest::collection::vec(any::<u8>(), 0..5_000),
            lengths in proptest::collection::vec(1..300_usize, 1..20),
        ) {
            prop_assert_eq!(decode(cut(&stream, &lengths)), decode([&stream[..]]));
        }
    }
}
