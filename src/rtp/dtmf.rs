//! Keys as telephone events: RFC 4733.
//!
//! A press is several packets with one timestamp and a growing duration, the last one three times. The
//! receiver tells it once, whichever of them arrive; the sender makes one packet per 20 ms slot.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::audio::BRIDGE_RATE;
use crate::audio::dtmf::{Digit, USUAL_LEVEL_DBM0};

/// How a key came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DtmfMethod {
    /// As an RFC 4733 event.
    Rtp,
    /// As a tone in the audio.
    Inband,
}

impl DtmfMethod {
    /// `rtp` or `inband`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rtp => "rtp",
            Self::Inband => "inband",
        }
    }
}

/// Why digits are not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DtmfError {
    /// The peer takes no telephone events.
    #[error("telephone-event was not negotiated with the far end; send the digits as tones or as SIP INFO")]
    NotNegotiated,
    /// No such key.
    #[error("`{0}` is no DTMF digit; use 0-9, *, #, A-D, and a comma for a pause of half a second")]
    NoSuchDigit(char),
    /// Too many digits are waiting.
    #[error("{MAX_QUEUE} digits are waiting to be sent; send fewer at once")]
    Full,
}

/// Tells presses from packets.
#[derive(Debug, Default)]
pub struct DtmfReceiver {
    /// The last few presses, oldest first: late repetitions of one may come after the next began.
    recent: VecDeque<Press>,
}

#[derive(Debug, Clone, Copy)]
struct Press {
    ssrc: u32,
    timestamp: u32,
    event: u8,
    duration: u16,
    ended: bool,
    seen: Instant,
}

impl DtmfReceiver {
    /// Takes an event packet and says which key it is the first news of.
    pub fn receive(&mut self, now: Instant, ssrc: u32, timestamp: u32, payload: &[u8]) -> Option<char> {
        let (&[event, flags, high, low], _) = payload.split_first_chunk::<4>()?;
        let digit = Digit::from_event(event)?.to_char();
        let (ended, duration) = (flags & END != 0, u16::from_be_bytes([high, low]));
        // A sender whose clock stands still between presses uses one timestamp for all of them.
        self.recent.retain(|press| now.saturating_duration_since(press.seen) < FORGET);
        let same_key = |press: &&mut Press| press.ssrc == ssrc && press.event == event;
        for press in self.recent.iter_mut().filter(same_key) {
            let known = press.timestamp == timestamp;
            // A press longer than 0xFFFF units goes on under a timestamp that much later (2.5.1.3).
            let goes_on =
                !press.ended && timestamp == press.timestamp.wrapping_add(u32::from(press.duration));
            if known || goes_on && press.duration > 0 {
                press.timestamp = timestamp;
                press.duration = if known { press.duration.max(duration) } else { duration };
                press.ended |= ended;
                press.seen = now;
                return None;
            }
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Press { ssrc, timestamp, event, duration, ended, seen: now });
        Some(digit)
    }
}

/// What a slot carries while digits are being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtmfSlot {
    /// Nothing of ours: audio.
    Audio,
    /// Silence between digits.
    Pause,
    /// An event packet.
    Event {
        /// The press's timestamp, not the slot's.
        timestamp: u32,
        /// First packet of the press.
        marker: bool,
        /// The event.
        payload: [u8; 4],
    },
}

/// Makes one packet per slot of the digits in its queue.
#[derive(Debug, Default)]
pub struct DtmfSender {
    queue: VecDeque<Queued>,
    state: Sending,
}

#[derive(Debug, Clone, Copy)]
struct Queued {
    /// `None` is a pause.
    event: Option<u8>,
    slots: u32,
}

#[derive(Debug, Clone, Copy, Default)]
enum Sending {
    #[default]
    Idle,
    /// The key is down.
    Pressed {
        event: u8,
        slots_left: u32,
        timestamp: u32,
        duration: u32,
        first: bool,
    },
    /// The last packet is repeated.
    Ending {
        event: u8,
        timestamp: u32,
        duration: u16,
        repeats: u32,
    },
    Pausing {
        slots_left: u32,
    },
}

impl DtmfSender {
    /// Queues digits of `duration` each, 40 ms..=60 s, rounded up to whole slots. A comma is a pause of
    /// half a second.
    ///
    /// # Errors
    /// On characters that are no digits, or when more than 64 would wait; then none is queued.
    pub fn queue(&mut self, digits: &str, duration: Duration) -> Result<(), DtmfError> {
        let duration = duration.clamp(SHORTEST, LONGEST);
        let slots = duration.as_millis().div_ceil(SLOT.as_millis()) as u32;
        let before = self.queue.len();
        for digit in digits.chars() {
            let queued = match (digit, Digit::from_char(digit)) {
                (',', _) => Queued { event: None, slots: COMMA_SLOTS },
                (_, Some(key)) => Queued { event: Some(key.event()), slots },
                (_, None) => {
                    self.queue.truncate(before);
                    return Err(DtmfError::NoSuchDigit(digit));
                }
            };
            if self.queue.len() == MAX_QUEUE {
                self.queue.truncate(before);
                return Err(DtmfError::Full);
            }
            self.queue.push_back(queued);
        }
        Ok(())
    }

    /// Whether digits are being sent or waiting.
    pub fn is_active(&self) -> bool {
        !self.queue.is_empty() || !matches!(self.state, Sending::Idle)
    }

    /// Forgets all digits.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.state = Sending::Idle;
    }

    /// The packet of the slot that begins at `timestamp`; a slot is `units` of the event clock long.
    pub fn slot(&mut self, timestamp: u32, units: u32) -> DtmfSlot {
        if matches!(self.state, Sending::Idle) {
            self.state = match self.queue.pop_front() {
                None => return DtmfSlot::Audio,
                Some(Queued { event: Some(event), slots }) => {
                    Sending::Pressed { event, slots_left: slots, timestamp, duration: 0, first: true }
                }
                Some(Queued { event: None, slots }) => Sending::Pausing { slots_left: slots },
            };
        }
        match self.state {
            Sending::Idle => DtmfSlot::Audio,
            Sending::Pressed { event, slots_left, timestamp, duration, first } => {
                self.press(event, slots_left, timestamp, duration + units, first)
            }
            Sending::Ending { event, timestamp, duration, repeats } => {
                self.state = if repeats > 1 {
                    Sending::Ending { event, timestamp, duration, repeats: repeats - 1 }
                } else {
                    Sending::Pausing { slots_left: PAUSE_SLOTS }
                };
                DtmfSlot::Event { timestamp, marker: false, payload: payload(event, true, duration) }
            }
            Sending::Pausing { slots_left } => {
                self.state = match slots_left {
                    0 | 1 => Sending::Idle,
                    left => Sending::Pausing { slots_left: left - 1 },
                };
                DtmfSlot::Pause
            }
        }
    }

    fn press(&mut self, event: u8, slots_left: u32, timestamp: u32, duration: u32, first: bool) -> DtmfSlot {
        let marker = first;
        if duration > SEGMENT {
            // This slot says that the segment is full; the rest counts in a new one.
            let (next, rest) = (timestamp.wrapping_add(SEGMENT), duration - SEGMENT);
            let slots_left = slots_left.saturating_sub(1).max(1);
            self.state =
                Sending::Pressed { event, slots_left, timestamp: next, duration: rest, first: false };
            return DtmfSlot::Event { timestamp, marker, payload: payload(event, false, SEGMENT as u16) };
        }
        let duration16 = duration as u16;
        let ended = slots_left <= 1;
        self.state = if ended {
            Sending::Ending { event, timestamp, duration: duration16, repeats: END_REPEATS }
        } else {
            Sending::Pressed { event, slots_left: slots_left - 1, timestamp, duration, first: false }
        };
        DtmfSlot::Event { timestamp, marker, payload: payload(event, ended, duration16) }
    }
}

/// Appends the digits as tones, 24 kHz: each `duration` (40 ms..=60 s) long, with pauses of 60 ms. For far
/// ends that take no events.
///
/// # Errors
/// On characters that are no digits, or more than 64.
pub fn render_tones(digits: &str, duration: Duration, out: &mut Vec<i16>) -> Result<(), DtmfError> {
    if digits.len() > MAX_QUEUE {
        return Err(DtmfError::Full);
    }
    let wrong = |digit: &char| *digit != ',' && Digit::from_char(*digit).is_none();
    if let Some(wrong) = digits.chars().find(wrong) {
        return Err(DtmfError::NoSuchDigit(wrong));
    }
    let samples = |span: Duration| (span.as_millis() * u128::from(BRIDGE_RATE) / 1000) as usize;
    for digit in digits.chars() {
        let Some(key) = Digit::from_char(digit) else {
            out.resize(out.len() + samples(SLOT * COMMA_SLOTS), 0);
            continue;
        };
        key.render(BRIDGE_RATE, samples(duration.clamp(SHORTEST, LONGEST)), USUAL_LEVEL_DBM0, out);
        out.resize(out.len() + samples(SLOT * (END_REPEATS + PAUSE_SLOTS)), 0);
    }
    Ok(())
}

fn payload(event: u8, ended: bool, duration: u16) -> [u8; 4] {
    let [high, low] = duration.to_be_bytes();
    [event, if ended { END | VOLUME } else { VOLUME }, high, low]
}

const END: u8 = 0x80;
/// -10 dBm0.
const VOLUME: u8 = 10;
const SEGMENT: u32 = 0xffff;
/// After the first packet with the E bit.
const END_REPEATS: u32 = 2;
/// The repeats last 40 ms; this much more silence follows.
const PAUSE_SLOTS: u32 = 1;
const COMMA_SLOTS: u32 = 25;
const SLOT: Duration = Duration::from_millis(20);
const SHORTEST: Duration = Duration::from_millis(40);
const LONGEST: Duration = Duration::from_secs(60);
const MAX_QUEUE: usize = 64;
const RECENT: usize = 8;
/// A packet of a press this long after its previous one is another press.
const FORGET: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: u8, ended: bool, duration: u16) -> [u8; 4] {
        payload(event, ended, duration)
    }

    struct Phone(DtmfReceiver, Instant);

    impl Phone {
        fn new() -> Self {
            Self(DtmfReceiver::default(), Instant::now())
        }

        fn hear(&mut self, timestamp: u32, payload: [u8; 4]) -> Option<char> {
            self.0.receive(self.1, 7, timestamp, &payload)
        }
    }

    #[test]
    fn a_press_is_told_once() {
        let mut phone = Phone::new();
        assert_eq!(phone.hear(100, event(5, false, 160)), Some('5'));
        for packet in [(false, 320), (false, 480), (true, 480), (true, 480), (true, 480)] {
            assert_eq!(phone.hear(100, event(5, packet.0, packet.1)), None);
        }
        assert_eq!(phone.hear(4000, event(5, false, 160)), Some('5'));
    }

    #[test]
    fn a_press_of_which_only_the_end_arrives_is_told() {
        assert_eq!(Phone::new().hear(9, event(11, true, 800)), Some('#'));
    }

    #[test]
    fn a_late_end_of_the_previous_press_is_no_new_press() {
        let mut phone = Phone::new();
        assert_eq!(phone.hear(100, event(1, true, 800)), Some('1'));
        assert_eq!(phone.hear(2000, event(2, false, 160)), Some('2'));
        assert_eq!(phone.hear(100, event(1, true, 800)), None);
        assert_eq!(phone.hear(2000, event(2, true, 800)), None);
    }

    #[test]
    fn a_press_longer_than_the_field_is_one_press() {
        let mut phone = Phone::new();
        assert_eq!(phone.hear(0, event(3, false, 65_440)), Some('3'));
        assert_eq!(phone.hear(0, event(3, false, 65_535)), None);
        assert_eq!(phone.hear(65_535, event(3, false, 160)), None);
        assert_eq!(phone.hear(65_535, event(3, true, 320)), None);
    }

    #[test]
    fn a_sender_with_a_standing_clock_is_understood_after_a_while() {
        let mut phone = Phone::new();
        assert_eq!(phone.hear(5, event(4, true, 800)), Some('4'));
        phone.1 += Duration::from_secs(3);
        assert_eq!(phone.hear(5, event(4, true, 800)), Some('4'));
    }

    #[test]
    fn flash_unknown_events_and_short_payloads_are_ignored() {
        let mut phone = Phone::new();
        assert_eq!(phone.hear(1, event(16, true, 1)), None);
        assert_eq!(phone.hear(2, event(200, true, 1)), None);
        assert_eq!(phone.0.receive(phone.1, 7, 3, &[1, 2, 3]), None);
    }

    fn sent(digits: &str, duration_ms: u64, slots: usize) -> Vec<DtmfSlot> {
        let mut sender = DtmfSender::default();
        sender.queue(digits, Duration::from_millis(duration_ms)).expect("digits");
        (0..slots).map(|n| sender.slot(1000 + 160 * n as u32, 160)).collect()
    }

    #[test]
    fn a_press_is_sent_as_the_rfc_says() {
        let packet = |marker, ended, duration| DtmfSlot::Event {
            timestamp: 1000,
            marker,
            payload: event(9, ended, duration),
        };
        let wanted = [
            packet(true, false, 160),
            packet(false, false, 320),
            packet(false, true, 480),
            packet(false, true, 480),
            packet(false, true, 480),
            DtmfSlot::Pause,
            DtmfSlot::Audio,
        ];
        assert_eq!(sent("9", 60, 7), wanted);
    }

    #[test]
    fn digits_are_at_least_40_ms_apart() {
        let mut last_end = None;
        let mut starts = 0;
        for slot in sent("12,3", 100, 80) {
            let DtmfSlot::Event { timestamp, marker, payload } = slot else { continue };
            if marker {
                starts += 1;
                assert!(last_end.is_none_or(|end| timestamp >= end + 320));
            }
            last_end = Some(timestamp + u32::from(u16::from_be_bytes([payload[2], payload[3]])));
        }
        assert_eq!(starts, 3);
    }

    #[test]
    fn a_long_press_is_split_and_heard_as_one_of_the_right_length() {
        let mut phone = Phone::new();
        let (mut heard, mut end) = (String::new(), 0);
        for slot in sent("7", 20_000, 1100) {
            let DtmfSlot::Event { timestamp, payload, .. } = slot else { continue };
            heard.extend(phone.hear(timestamp, payload));
            end = end.max(timestamp + u32::from(u16::from_be_bytes([payload[2], payload[3]])));
        }
        assert_eq!((heard.as_str(), end - 1000), ("7", 160_000));
    }

    #[test]
    fn wrong_digits_are_refused_as_a_whole() {
        let mut sender = DtmfSender::default();
        assert_eq!(sender.queue("12x", SHORTEST), Err(DtmfError::NoSuchDigit('x')));
        assert!(!sender.is_active());
        assert_eq!(sender.queue(&"1".repeat(65), SHORTEST), Err(DtmfError::Full));
        assert!(!sender.is_active());
        assert_eq!(sender.queue("aBcD*#", SHORTEST), Ok(()));
    }
}
