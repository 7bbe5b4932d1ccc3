//! DTMF as sound: the sixteen pairs of tones, made and recognized (ITU-T Q.23, Q.24).
//!
//! Digits sent as RTP events (RFC 4733) are `rtp`'s business; this is for legs that have none.

use super::SampleRate;
use super::tone::Tone;

/// One of the sixteen keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digit(u8);

impl Digit {
    /// All of them, in the order of their event codes.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..16).map(Self)
    }

    /// The key printed so: `0`–`9`, `*`, `#`, `A`–`D` in either case.
    pub fn from_char(key: char) -> Option<Self> {
        let key = key.to_ascii_uppercase();
        KEYS.iter().position(|known| *known == key).map(|code| Self(code as u8))
    }

    /// The key of an RFC 4733 event code, 0–15.
    pub fn from_event(code: u8) -> Option<Self> {
        (code < 16).then_some(Self(code))
    }

    /// The RFC 4733 event code, 0–15.
    pub fn event(self) -> u8 {
        self.0
    }

    /// The key as printed.
    pub fn to_char(self) -> char {
        KEYS[usize::from(self.0)]
    }

    /// Low and high frequency in Hz.
    pub fn frequencies(self) -> (f64, f64) {
        let place = LAYOUT.iter().position(|key| *key == self.to_char()).unwrap_or(0);
        (ROWS[place / 4], COLUMNS[place % 4])
    }

    /// Appends `samples` of the digit at `rate` Hz to `out`. `level_dbm0` is the low tone's; the high one
    /// is 2 dB louder, because lines attenuate it more. [`USUAL_LEVEL_DBM0`] suits a trunk.
    pub fn render(self, rate: u32, samples: usize, level_dbm0: f64, out: &mut Vec<i16>) {
        let (low, high) = self.frequencies();
        let start = out.len();
        Tone::new(&[low], level_dbm0).render(rate, samples, out);
        let mut other = Vec::with_capacity(samples);
        Tone::new(&[high], level_dbm0 + 2.0).render(rate, samples, &mut other);
        super::mix::add_saturating(&mut out[start..], &other);
    }
}

impl std::fmt::Display for Digit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.to_char())
    }
}

/// Level of the low tone that trunks expect, in dBm0.
pub const USUAL_LEVEL_DBM0: f64 = -10.0;

/// What a [`Detector`] noticed. Positions count the samples fed since the detector was made and are exact
/// to one block of 13 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// A key is down, for at least 26 ms so far.
    Pressed {
        /// Which.
        digit: Digit,
        /// Where its tone began.
        at: u64,
    },
    /// It has been up for 26 ms.
    Released {
        /// Which.
        digit: Digit,
        /// Where its tone ended.
        at: u64,
    },
}

/// Recognizes DTMF in a stream of audio.
///
/// Accepts tones of 40 ms and more with pauses of 30 ms and more, down to about -36 dBm0, off by up to
/// 1.5 %, and with the high tone between 8 dB louder and 6 dB softer than the low one. What protects
/// speech from being taken for a key: both tones must hold most of the energy, stand out of their groups,
/// and be there twice in a row.
#[derive(Debug, Clone)]
pub struct Detector {
    /// Input samples summed into one at 8 kHz.
    decimation: usize,
    partial: i32,
    partial_count: usize,
    block: Vec<f32>,
    /// Blocks finished.
    blocks: u64,
    candidate: Option<Digit>,
    pressed: Option<Digit>,
    misses: u32,
}

impl Detector {
    /// A detector for samples at `rate`: 8 kHz or a multiple of it; other rates are taken to be the
    /// multiple below.
    pub fn new(rate: SampleRate) -> Self {
        Self {
            decimation: (rate.hz() / 8_000).max(1) as usize,
            partial: 0,
            partial_count: 0,
            block: Vec::with_capacity(BLOCK),
            blocks: 0,
            candidate: None,
            pressed: None,
            misses: 0,
        }
    }

    /// Listens to `samples` (any number) and appends what it noticed to `edges`.
    pub fn feed(&mut self, samples: &[i16], edges: &mut Vec<Edge>) {
        for sample in samples {
            // A running sum is filter enough: its nulls lie on the multiples of 8 kHz.
            self.partial += i32::from(*sample);
            self.partial_count += 1;
            if self.partial_count == self.decimation {
                self.block.push(self.partial as f32 / self.decimation as f32);
                (self.partial, self.partial_count) = (0, 0);
                if self.block.len() == BLOCK {
                    self.finish_block(edges);
                }
            }
        }
    }

    fn finish_block(&mut self, edges: &mut Vec<Edge>) {
        let found = recognize(&self.block);
        self.block.clear();
        self.blocks += 1;
        match self.pressed {
            Some(digit) if found == Some(digit) => self.misses = 0,
            Some(digit) => {
                self.misses += 1;
                // A different key twice in a row ends this one as surely as silence does.
                if self.misses >= 2 {
                    self.pressed = None;
                    edges.push(Edge::Released { digit, at: self.position(2) });
                    self.press_if_held(found, edges);
                }
            }
            None => self.press_if_held(found, edges),
        }
        self.candidate = found;
    }

    fn press_if_held(&mut self, found: Option<Digit>, edges: &mut Vec<Edge>) {
        if let Some(digit) = found.filter(|_| found == self.candidate) {
            self.pressed = found;
            self.misses = 0;
            edges.push(Edge::Pressed { digit, at: self.position(2) });
        }
    }

    /// The input position `back` blocks ago.
    fn position(&self, back: u64) -> u64 {
        (self.blocks - back) * (BLOCK * self.decimation) as u64
    }
}

/// The key one block sounds like.
fn recognize(block: &[f32]) -> Option<Digit> {
    let energy: f32 = block.iter().map(|x| x * x).sum();
    if energy < LEAST_POWER * block.len() as f32 {
        return None;
    }
    let powers = goertzel(block);
    let (row, low) = strongest(&powers[..4])?;
    let (column, high) = strongest(&powers[4..])?;
    let in_tones = (low + high) / (energy * block.len() as f32 / 2.0);
    let twist_allowed = high < low * HIGH_OVER_LOW && low < high * LOW_OVER_HIGH;
    if in_tones < LEAST_SHARE || !twist_allowed {
        return None;
    }
    Digit::from_char(LAYOUT[4 * row + column])
}

/// The index and power of the strongest of a group, if it stands out.
fn strongest(group: &[f32]) -> Option<(usize, f32)> {
    let (index, power) = group.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let alone = group.iter().enumerate().all(|(other, p)| other == index || p * STANDS_OUT < power);
    alone.then_some((index, power))
}

/// Squared magnitude of the block's spectrum at the eight frequencies, side by side so that it vectorises.
fn goertzel(block: &[f32]) -> [f32; 8] {
    let coefficients = &*COEFFICIENTS;
    let (mut last, mut before) = ([0.0f32; 8], [0.0f32; 8]);
    for sample in block {
        for tone in 0..8 {
            let next = sample + coefficients[tone] * last[tone] - before[tone];
            before[tone] = last[tone];
            last[tone] = next;
        }
    }
    std::array::from_fn(|tone| {
        let (a, b) = (last[tone], before[tone]);
        a * a + b * b - coefficients[tone] * a * b
    })
}

static COEFFICIENTS: std::sync::LazyLock<[f32; 8]> = std::sync::LazyLock::new(|| {
    std::array::from_fn(|tone| {
        let frequency = if tone < 4 { ROWS[tone] } else { COLUMNS[tone - 4] };
        (2.0 * (std::f64::consts::TAU * frequency / 8_000.0).cos()) as f32
    })
});

/// Keys by event code, and by row and column.
const KEYS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];
const LAYOUT: [char; 16] = ['1', '2', '3', 'A', '4', '5', '6', 'B', '7', '8', '9', 'C', '*', '0', '#', 'D'];
const ROWS: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f64; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];

/// Samples at 8 kHz looked at together: 13.1 ms, so that any 40 ms hold two whole blocks.
const BLOCK: usize = 105;

/// Mean square below which nothing is looked for: -42 dBov, about -36 dBm0.
const LEAST_POWER: f32 = 67_750.0;

/// Share of the energy both tones must hold; a pair 1.5 % off still has 0.7.
const LEAST_SHARE: f32 = 0.65;

/// Power ratios: twist of 8 dB one way and 6 dB the other, 7 dB over the rest of the group.
const HIGH_OVER_LOW: f32 = 6.3;
const LOW_OVER_HIGH: f32 = 4.0;
const STANDS_OUT: f32 = 5.0;

#[cfg(test)]
mod tests {
    use super::super::test_signal::{Noise, speech_like};
    use super::*;

    #[test]
    fn every_digit_is_recognized_at_every_rate() {
        for rate in [SampleRate::HZ_8000, SampleRate::HZ_16000, SampleRate::HZ_24000] {
            let heard = digits(rate, &dialled(rate, "1234567890*#ABCD", 40, 40, -10.0));
            assert_eq!(heard, "1234567890*#ABCD", "{rate}");
        }
    }

    #[test]
    fn a_repeated_digit_is_two_digits_if_30_ms_lie_between() {
        for offset in 0..10 {
            let mut sound = vec![0; offset * 11];
            sound.extend(dialled(SampleRate::HZ_8000, "5577", 40, 32, -10.0));
            assert_eq!(digits(SampleRate::HZ_8000, &sound), "5577", "offset {offset}");
        }
    }

    #[test]
    fn a_held_key_is_one_digit_with_its_length() {
        let sound = dialled(SampleRate::HZ_24000, "7", 1_000, 100, -10.0);
        let edges = edges(SampleRate::HZ_24000, &sound);
        let digit = Digit::from_char('7').unwrap();
        let [Edge::Pressed { digit: down, at: start }, Edge::Released { digit: up, at: end }] = edges[..]
        else {
            panic!("{edges:?}");
        };
        assert_eq!((down, up), (digit, digit));
        assert!((end - start).abs_diff(24_000) < 700, "{start} to {end}");
    }

    #[test]
    fn loud_soft_noisy_and_detuned_tones_are_heard() {
        for level in [-3.0, -20.0, -33.0] {
            assert_eq!(
                digits(SampleRate::HZ_8000, &dialled(SampleRate::HZ_8000, "159D", 60, 60, level)),
                "159D"
            );
        }
        let mut noise = Noise::new(2);
        let mut sound = dialled(SampleRate::HZ_8000, "3690", 60, 60, -10.0);
        sound.iter_mut().for_each(|sample| *sample += (noise.next() * 1_000.0) as i16);
        assert_eq!(digits(SampleRate::HZ_8000, &sound), "3690");
        for detuned in [0.985, 1.015] {
            let mut sound = Vec::new();
            Tone::new(&[852.0 * detuned, 1_477.0 * detuned], -10.0).render(8_000, 640, &mut sound);
            sound.resize(1_600, 0);
            assert_eq!(digits(SampleRate::HZ_8000, &sound), "9", "{detuned}");
        }
    }

    #[test]
    fn what_is_no_key_is_not_heard() {
        let pair = |low: f64, high: f64, low_db: f64, high_db: f64, samples: usize| {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            Tone::new(&[low], low_db).render(8_000, samples, &mut a);
            Tone::new(&[high], high_db).render(8_000, samples, &mut b);
            crate::audio::mix::add_saturating(&mut a, &b);
            a.resize(samples + 800, 0);
            a
        };
        let none = [
            ("20 ms", pair(697.0, 1_209.0, -10.0, -10.0, 160)),
            ("twist", pair(697.0, 1_209.0, -10.0, -22.0, 800)),
            ("reverse twist", pair(697.0, 1_209.0, -22.0, -10.0, 800)),
            ("one tone", pair(697.0, 697.0, -10.0, -10.0, 800)),
            ("between keys", pair(733.0, 1_270.0, -10.0, -10.0, 800)),
            ("dial tone", pair(350.0, 440.0, -10.0, -10.0, 8_000)),
            ("busy", pair(480.0, 620.0, -10.0, -10.0, 8_000)),
            ("inaudible", pair(697.0, 1_209.0, -50.0, -50.0, 800)),
        ];
        for (name, sound) in none {
            assert_eq!(digits(SampleRate::HZ_8000, &sound), "", "{name}");
        }
    }

    #[test]
    fn speech_and_noise_press_no_keys() {
        assert_eq!(edges(SampleRate::HZ_8000, &speech_like(8_000, 40_000, 14_000.0)), []);
        assert_eq!(edges(SampleRate::HZ_8000, &Noise::new(4).samples(80_000, 12_000.0)), []);
        let speech =
            crate::audio::voice::speak("Good morning, one two three four, how can I help you today?");
        assert_eq!(edges(SampleRate::HZ_24000, &speech), []);
    }

    #[test]
    fn chunk_sizes_do_not_matter() {
        let sound = dialled(SampleRate::HZ_24000, "42#", 50, 50, -10.0);
        let (mut detector, mut found) = (Detector::new(SampleRate::HZ_24000), Vec::new());
        sound.chunks(77).for_each(|chunk| detector.feed(chunk, &mut found));
        assert_eq!(found, edges(SampleRate::HZ_24000, &sound));
    }

    #[test]
    fn keys_and_event_codes_agree_with_rfc_4733() {
        for digit in Digit::all() {
            assert_eq!(Digit::from_char(digit.to_char()), Some(digit));
            assert_eq!(Digit::from_event(digit.event()), Some(digit));
        }
        assert_eq!(Digit::from_char('#').map(Digit::event), Some(11));
        assert_eq!(Digit::from_char('d').map(Digit::event), Some(15));
        assert_eq!((Digit::from_char('x'), Digit::from_event(16)), (None, None));
    }

    fn dialled(rate: SampleRate, keys: &str, tone_ms: usize, pause_ms: usize, level: f64) -> Vec<i16> {
        let ms = rate.hz() as usize / 1_000;
        let mut sound = vec![0; 50 * ms];
        for key in keys.chars() {
            Digit::from_char(key).unwrap().render(rate.hz(), tone_ms * ms, level, &mut sound);
            sound.resize(sound.len() + pause_ms * ms, 0);
        }
        sound.resize(sound.len() + 50 * ms, 0);
        sound
    }

    fn edges(rate: SampleRate, sound: &[i16]) -> Vec<Edge> {
        let mut edges = Vec::new();
        Detector::new(rate).feed(sound, &mut edges);
        edges
    }

    fn digits(rate: SampleRate, sound: &[i16]) -> String {
        let pressed = |edge: &Edge| match edge {
            Edge::Pressed { digit, .. } => Some(digit.to_char()),
            Edge::Released { .. } => None,
        };
        edges(rate, sound).iter().filter_map(pressed).collect()
    }
}
