//! What the phones say, so that it can be found again on the other side: a pure schedule.
//!
//! Packets are quiet or loud. A call begins with its number in loud and quiet packets, by which the
//! service's side tells whose connection it is looking at. Then, over and over: the caller speaks, which
//! the service answers, and clicks three times while the assistant talks. A click is one packet, too
//! short to count as speech. The first loud packet after a quiet one is a marker; its journey is timed.

use std::time::{Duration, Instant};

/// Largest number of calls that can be told apart.
pub const CALLS_MAX: usize = 1 << BITS;
/// A marker that takes longer than this is lost.
pub const LIMIT: Duration = Duration::from_millis(700);
/// From the answer of a call until its number is told and its first greeting is over.
pub const SETTLED: Duration = Duration::from_millis(20 * CYCLES_BEGIN + 1000);
/// How long the assistant speaks after each turn of the caller.
pub const ANSWER_MS: u32 = 2_400;

/// When the phone of one call is loud.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    call: usize,
}

impl Schedule {
    /// The schedule of call number `call`, below [`CALLS_MAX`].
    pub const fn of(call: usize) -> Self {
        Self { call }
    }

    /// Whether packet `n` of the call is loud.
    pub fn is_loud(self, n: u64) -> bool {
        if n >= CYCLES_BEGIN {
            let place = (n - CYCLES_BEGIN) % CYCLE;
            return place < SPEECH || CLICKS.contains(&place);
        }
        match n.checked_sub(CODE_BEGINS) {
            Some(place) if place < CODE_LENGTH => code(self.call, place),
            Some(_) | None => false,
        }
    }

    /// Whether the journey of packet `n` is timed.
    pub fn is_marker(self, n: u64) -> bool {
        n >= CYCLES_BEGIN && self.is_loud(n) && !self.is_loud(n - 1)
    }
}

/// One bit is two packets, loud-quiet or quiet-loud, so that at most two loud ones follow each other.
fn code(call: usize, place: u64) -> bool {
    if place < 2 {
        return place == 0;
    }
    let bit = (call >> ((place - 2) / 2)) & 1 == 1;
    bit == place.is_multiple_of(2)
}

/// Finds the call's number, and then its markers, in what arrives.
#[derive(Debug, Default)]
pub struct Ear {
    /// The call's number, once it is understood.
    pub call: Option<usize>,
    code: Vec<bool>,
    was_loud: bool,
}

impl Ear {
    /// Takes the next 20 ms; `true` when a marker begins there.
    pub fn hear(&mut self, loud: bool) -> bool {
        let was_loud = std::mem::replace(&mut self.was_loud, loud);
        let begins = loud && !was_loud;
        if self.call.is_some() {
            return begins;
        }
        if loud || !self.code.is_empty() {
            self.code.push(loud);
        }
        if self.code.len() as u64 == CODE_LENGTH {
            self.call = decode(&self.code);
            self.code.clear();
        }
        false
    }
}

fn decode(heard: &[bool]) -> Option<usize> {
    let (start, bits) = heard.split_at_checked(2)?;
    if start != [true, false] {
        return None;
    }
    bits.chunks(2).enumerate().try_fold(0, |call, (index, pair)| match pair {
        [true, false] => Some(call | 1 << index),
        [false, true] => Some(call),
        _ => None,
    })
}

/// Finds where the assistant begins to speak: loud after at least [`PAUSE`] quiet packets.
#[derive(Debug, Default)]
pub struct Onset {
    quiet: u32,
}

impl Onset {
    /// Takes the next packet; `true` when speech begins there.
    pub fn hear(&mut self, loud: bool) -> bool {
        let begins = loud && self.quiet >= PAUSE;
        self.quiet = if loud { 0 } else { self.quiet.saturating_add(1) };
        begins
    }
}

/// Whether samples are loud: half a packet of [`AMPLITUDE`] is, line noise and filter tails are not.
pub fn is_loud(samples: &[i16]) -> bool {
    let sum: u64 = samples.iter().map(|sample| u64::from(sample.unsigned_abs())).sum();
    sum > LOUD * samples.len() as u64
}

/// One loud packet at this rate in Hz: a tone in its first half. The second half is quiet, so that the tail of a
/// resampler does not make the next frame loud.
pub fn loud_packet(rate: u32) -> Vec<i16> {
    let samples = rate as usize / 50;
    let radians = |n: usize| n as f64 * std::f64::consts::TAU * 1000.0 / f64::from(rate);
    (0..samples).map(|n| if n < samples / 2 { (radians(n).cos() * AMPLITUDE) as i16 } else { 0 }).collect()
}

/// How long each marker took, and how many never came.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Journeys {
    /// In the order they were sent.
    pub took: Vec<Duration>,
    /// Not seen before the next one was sent or [`LIMIT`] was over.
    pub missing: usize,
}

/// Joins the markers sent between `from` and `to` with what was seen. Both are in the order of time.
pub fn journeys(sent: &[Instant], seen: &[Instant], from: Instant, to: Instant) -> Journeys {
    let mut journeys = Journeys::default();
    for (index, &left) in sent.iter().enumerate() {
        if left < from || left >= to {
            continue;
        }
        let until = sent.get(index + 1).map_or(left + LIMIT, |next| (*next).min(left + LIMIT));
        let first = seen.partition_point(|at| *at < left);
        match seen.get(first).filter(|at| **at < until) {
            Some(at) => journeys.took.push(*at - left),
            None => journeys.missing += 1,
        }
    }
    journeys
}

const BITS: u32 = 12;
/// Packets before the code: the server's media settles.
const CODE_BEGINS: u64 = 50;
const CODE_LENGTH: u64 = 2 + 2 * BITS as u64;
/// 3.5 s, when the greeting is over.
const CYCLES_BEGIN: u64 = 175;
/// 4 s: 0.6 s speech, 0.65 s until the service answers, [`ANSWER_MS`], a pause.
const CYCLE: u64 = 200;
const SPEECH: u64 = 30;
const CLICKS: [u64; 3] = [80, 120, 160];
/// About -12 dBov.
const AMPLITUDE: f64 = 8_000.0;
/// Mean magnitude.
const LOUD: u64 = 600;
const PAUSE: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_known_by_its_code_and_its_markers_are_found() {
        for call in [0, 1, 199, 0xAAA, CALLS_MAX - 1] {
            let (schedule, mut ear) = (Schedule::of(call), Ear::default());
            let mut found = Vec::new();
            for n in 0..CYCLES_BEGIN + 2 * CYCLE {
                if ear.hear(schedule.is_loud(n)) {
                    assert!(schedule.is_marker(n), "{n}");
                    found.push((n - CYCLES_BEGIN) % CYCLE);
                }
            }
            assert_eq!(ear.call, Some(call));
            assert_eq!(found, [0, 80, 120, 160, 0, 80, 120, 160]);
        }
    }

    #[test]
    fn a_code_never_has_three_loud_packets_in_a_row() {
        for call in 0..CALLS_MAX {
            let loud: Vec<bool> = (0..CYCLES_BEGIN).map(|n| Schedule::of(call).is_loud(n)).collect();
            assert!(!loud.windows(3).any(|run| run == [true; 3]), "{call}");
        }
    }

    #[test]
    fn a_damaged_code_is_no_number() {
        let mut code: Vec<bool> = (0..CODE_LENGTH).map(|place| code(77, place)).collect();
        assert_eq!(decode(&code), Some(77));
        code[5] = !code[5];
        assert_eq!(decode(&code), None);
    }

    #[test]
    fn speech_begins_after_a_pause_only() {
        let mut onset = Onset::default();
        let heard = [0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1];
        let begins: Vec<usize> = (0..heard.len()).filter(|n| onset.hear(heard[*n] == 1)).collect();
        assert_eq!(begins, [5, 15]);
    }

    #[test]
    fn a_marker_is_joined_with_the_first_arrival_before_the_next_one() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let sent = [at(0), at(1000), at(2000), at(3000)];
        let seen = [at(1003), at(1005), at(2900), at(3001)];
        let found = journeys(&sent, &seen, at(1), at(9000));
        assert_eq!(found.took, [Duration::from_millis(3), Duration::from_millis(1)]);
        assert_eq!(found.missing, 1);
    }

    #[test]
    fn loud_packets_are_loud_and_noise_is_not() {
        assert!(is_loud(&loud_packet(8_000)) && is_loud(&loud_packet(24_000)));
        assert!(!is_loud(&[40; 160]));
        assert!(!is_loud(&[]));
    }
}
