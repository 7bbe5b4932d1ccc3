//! Streaming resampling between the bridge's 24 kHz and the rates that telephony knows.
//!
//! Each ratio is one linear-phase low-pass filter (a Kaiser-windowed sinc) split into polyphase
//! branches. Input is dealt into as many streams as the ratio's denominator, so that every branch reads
//! its streams contiguously and the loops run over outputs: they vectorise on any target without
//! reordering a sum, which is why the result does not depend on how the input was cut into chunks.
//!
//! | pair | taps | flat (±0.1 dB) to | stop band | delay |
//! | --- | --- | --- | --- | --- |
//! | 8 ↔ 24 kHz | 97 at 24 kHz | 3.4 kHz | 80 dB from 4.6 kHz | 2.0 ms |
//! | 16 ↔ 24 kHz | 121 at 48 kHz | 7.0 kHz | 80 dB from 9.0 kHz | 1.25 ms |
//! | 48 ↔ 24 kHz | 97 at 48 kHz | 10.5 kHz | 80 dB from 13.2 kHz | 1.0 ms |
//! | 12 ↔ 24 kHz | 97 at 24 kHz | 5.2 kHz | 80 dB from 6.5 kHz | 2.0 ms |
//! | 32, 96, 192 ↔ 24 kHz | as 48, at 96 or 192 kHz | 10.5 kHz | 80 dB from 13.2 kHz | 1.0 ms |
//!
//! 44.1 kHz, whose ratio of 147 : 80 would make tables of no size, goes through [`fractional`](super::fractional).
//!
//! G.711's noise lies near -38 dB, so 80 dB is ample, and the telephone band (G.712) ends at 3.4 kHz.

use std::f64::consts::PI;
use std::sync::OnceLock;
use std::time::Duration;

use multiversion::multiversion;

use super::SampleRate;
use super::fractional::Fractional;

/// Converts a stream from one rate to another, keeping its filter state between chunks.
#[derive(Debug, Clone)]
pub struct Resampler(Way);

#[derive(Debug, Clone)]
enum Way {
    Polyphase(Polyphase),
    Fractional(Box<Fractional>),
}

/// A ratio of small numbers.
#[derive(Debug, Clone)]
struct Polyphase {
    design: &'static Design,
    /// Input dealt round robin: `history` old samples each, then what is not used up yet.
    streams: Vec<Vec<f32>>,
    /// The stream the next input sample goes to.
    next_stream: usize,
}

impl Resampler {
    /// A resampler with silence behind it; `None` unless one rate is 24 kHz and the other 8, 12, 16, 32, 44.1, 48, 96
    /// or 192 kHz. For other pairs there is [`convert`](super::convert), which does not stream.
    pub fn new(from: SampleRate, to: SampleRate) -> Option<Self> {
        if let (CD, BRIDGE) | (BRIDGE, CD) = (from.hz(), to.hz()) {
            return Some(Self(Way::Fractional(Box::new(Fractional::new(from.hz(), to.hz())))));
        }
        Design::of(from, to).map(|design| Self(Way::Polyphase(Polyphase::new(design))))
    }

    /// Appends the resampled `input` to `out` and returns how many samples that made.
    ///
    /// After `n` input samples in all, `n / down * up` have come out for a ratio of `up : down` in
    /// lowest terms: a chunk of whole 20 ms (indeed of whole 125 μs) yields exactly as much audio.
    pub fn process(&mut self, input: &[i16], out: &mut Vec<i16>) -> usize {
        let before = out.len();
        match &mut self.0 {
            Way::Polyphase(polyphase) => {
                for chunk in input.chunks(CHUNK) {
                    polyphase.process_chunk(chunk, out);
                }
            }
            Way::Fractional(fractional) => fractional.process(input, out),
        }
        out.len() - before
    }

    /// Forgets the past, as if it had been silence.
    pub fn reset(&mut self) {
        match &mut self.0 {
            Way::Polyphase(polyphase) => polyphase.reset(),
            Way::Fractional(fractional) => fractional.reset(),
        }
    }

    /// The filter's group delay.
    pub fn delay(&self) -> Duration {
        match &self.0 {
            Way::Polyphase(polyphase) => polyphase.design.delay,
            Way::Fractional(fractional) => fractional.delay(),
        }
    }
}

impl Polyphase {
    fn new(design: &'static Design) -> Self {
        // One chunk's share and the padding of the last block: they never grow.
        let most = design.history + (CHUNK / design.down).next_multiple_of(LANES) + LANES;
        let streams = (0..design.down).map(|_| {
            let mut stream = Vec::with_capacity(most);
            stream.resize(design.history, 0.0);
            stream
        });
        Self { design, streams: streams.collect(), next_stream: 0 }
    }

    fn reset(&mut self) {
        for stream in &mut self.streams {
            stream.clear();
            stream.resize(self.design.history, 0.0);
        }
        self.next_stream = 0;
    }

    fn process_chunk(&mut self, input: &[i16], out: &mut Vec<i16>) {
        let Design { up, down, history, .. } = *self.design;
        match (down, self.next_stream) {
            (1, _) => deal::<1>(input, &mut self.streams),
            (2, 0) => deal::<2>(input, &mut self.streams),
            (3, 0) => deal::<3>(input, &mut self.streams),
            // The last chunk ended within a cycle.
            (_, next) => deal_from(next, input, &mut self.streams),
        }
        self.next_stream = (self.next_stream + input.len()) % down;

        // A cycle is `down` samples in and `up` out; the last stream is the last to receive its share.
        let cycles = self.streams[down - 1].len() - history;
        let start = out.len();
        out.resize(start + cycles * up, 0);
        let lengths: [usize; MAX_FACTOR] = std::array::from_fn(|i| self.streams.get(i).map_or(0, Vec::len));
        for stream in &mut self.streams {
            let padded = history + cycles.next_multiple_of(LANES);
            stream.resize(padded.max(stream.len()), 0.0);
        }
        filter(self.design, &self.streams, &mut out[start..]);
        for (stream, length) in self.streams.iter_mut().zip(lengths) {
            stream.copy_within(cycles..length, 0);
            stream.truncate(length - cycles);
        }
    }
}

/// Computes all outputs of a chunk. Built for the widest registers the processor may have as well: the sums
/// are the same, bit for bit, whichever is chosen.
#[multiversion(targets("x86_64+avx2", "x86_64+avx512f"))]
fn filter(design: &Design, streams: &[Vec<f32>], out: &mut [i16]) {
    match design.up {
        1 => filter_blocks::<1>(design, streams, out),
        2 => filter_blocks::<2>(design, streams, out),
        3 => filter_blocks::<3>(design, streams, out),
        4 => filter_blocks::<4>(design, streams, out),
        _ => filter_blocks::<8>(design, streams, out),
    }
}

/// Computes blocks of [`LANES`] cycles; `UP` is the design's number of branches.
#[inline(always)]
fn filter_blocks<const UP: usize>(design: &Design, streams: &[Vec<f32>], out: &mut [i16]) {
    for (block, block_out) in out.chunks_mut(LANES * UP).enumerate() {
        let mut phases = [[0; LANES]; UP];
        for (phase, branch) in phases.iter_mut().zip(&design.branches) {
            let mut sums = [0.0; LANES];
            for (stream, part) in streams.iter().zip(branch) {
                accumulate(&part.taps, &stream[block * LANES + part.first..], &mut sums);
            }
            *phase = to_i16(&sums);
        }
        for (cycle, place) in block_out.as_chunks_mut::<UP>().0.iter_mut().enumerate() {
            *place = std::array::from_fn(|phase| phases[phase][cycle]);
        }
    }
}

/// Deals `input` out to `N` streams, beginning with the first.
fn deal<const N: usize>(input: &[i16], streams: &mut [Vec<f32>]) {
    let (cycles, rest) = input.as_chunks::<N>();
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.extend(cycles.iter().map(|cycle| f32::from(cycle[index])));
        stream.extend(rest.get(index).map(|sample| f32::from(*sample)));
    }
}

/// Deals `input` out to all streams, beginning with the one given.
fn deal_from(first: usize, input: &[i16], streams: &mut [Vec<f32>]) {
    let count = streams.len();
    for (index, sample) in input.iter().enumerate() {
        streams[(first + index) % count].push(f32::from(*sample));
    }
}

/// `sums[lane] += taps · input[lane..]`, tap by tap in order.
#[inline(always)]
fn accumulate(taps: &[f32], input: &[f32], sums: &mut [f32; LANES]) {
    let mut local = *sums;
    for (tap, window) in taps.iter().zip(input.array_windows::<LANES>()) {
        for lane in 0..LANES {
            local[lane] += tap * window[lane];
        }
    }
    *sums = local;
}

/// Rounds to nearest and saturates. Adding 1.5 · 2²³ leaves the integer in the low mantissa bits, which
/// vectorises where a saturating cast does not.
#[inline(always)]
fn to_i16(values: &[f32; LANES]) -> [i16; LANES] {
    const MAGIC: f32 = 12_582_912.0;
    values.map(|value| {
        let clamped = value.clamp(-32_768.0, 32_767.0);
        ((clamped + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits())) as i16
    })
}

/// Outputs of one branch computed at a time: eight SSE registers of sums.
const LANES: usize = 32;

/// Longest input filtered at once, which bounds the buffers.
const CHUNK: usize = 480;

/// The two rates whose ratio has no small numbers.
const CD: u32 = 44_100;
const BRIDGE: u32 = super::BRIDGE_RATE;

/// Largest numerator or denominator of a ratio.
const MAX_FACTOR: usize = 8;

/// A ratio's filter, shared by all its resamplers.
#[derive(Debug)]
struct Design {
    up: usize,
    down: usize,
    /// Old samples each stream keeps.
    history: usize,
    /// `up` branches, each with a part for each of the `down` streams.
    branches: Vec<Vec<Part>>,
    delay: Duration,
}

/// What one branch takes from one stream.
#[derive(Debug, Default)]
struct Part {
    /// Index, within the history, of the oldest sample used for the first output.
    first: usize,
    /// Coefficients, oldest sample first.
    taps: Vec<f32>,
}

impl Design {
    fn of(from: SampleRate, to: SampleRate) -> Option<&'static Self> {
        static NARROW: [OnceLock<Design>; 2] = [const { OnceLock::new() }; 2];
        static WIDE: [OnceLock<Design>; 2] = [const { OnceLock::new() }; 2];
        static FULL: [OnceLock<Design>; 2] = [const { OnceLock::new() }; 2];
        static HALF: [OnceLock<Design>; 2] = [const { OnceLock::new() }; 2];
        static RARE: [OnceLock<Design>; 6] = [const { OnceLock::new() }; 6];
        let (cell, filter, up, down) = match (from.hz(), to.hz()) {
            (8_000, 24_000) => (&NARROW[0], NARROW_FILTER, 3, 1),
            (24_000, 8_000) => (&NARROW[1], NARROW_FILTER, 1, 3),
            (16_000, 24_000) => (&WIDE[0], WIDE_FILTER, 3, 2),
            (24_000, 16_000) => (&WIDE[1], WIDE_FILTER, 2, 3),
            (24_000, 48_000) => (&FULL[0], FULL_FILTER, 2, 1),
            (48_000, 24_000) => (&FULL[1], FULL_FILTER, 1, 2),
            (12_000, 24_000) => (&HALF[0], HALF_FILTER, 2, 1),
            (24_000, 12_000) => (&HALF[1], HALF_FILTER, 1, 2),
            (32_000, 24_000) => (&RARE[0], WIDEST_FILTER, 3, 4),
            (24_000, 32_000) => (&RARE[1], WIDEST_FILTER, 4, 3),
            (96_000, 24_000) => (&RARE[2], WIDEST_FILTER, 1, 4),
            (24_000, 96_000) => (&RARE[3], WIDEST_FILTER, 4, 1),
            (192_000, 24_000) => (&RARE[4], STUDIO_FILTER, 1, 8),
            (24_000, 192_000) => (&RARE[5], STUDIO_FILTER, 8, 1),
            _ => return None,
        };
        Some(cell.get_or_init(|| Self::new(filter, up, down)))
    }

    /// Splits the prototype: output `q * up + phase` of the interpolated-then-decimated stream needs
    /// tap `t * up + phase * down % up` on input `q * down + phase * down / up - t`.
    fn new(filter: Filter, up: usize, down: usize) -> Self {
        let prototype = filter.taps();
        let history = prototype.len().div_ceil(up).div_ceil(down);
        let mut branches = Vec::new();
        for phase in 0..up {
            let newest = phase * down / up;
            let mut parts: Vec<Vec<f32>> = vec![vec![0.0; history + 1]; down];
            for (t, tap) in prototype.iter().skip(phase * down % up).step_by(up).enumerate() {
                let back = (t + down - 1 - newest) / down;
                let stream = (newest + back * down - t) % down;
                parts[stream][history - back] = (tap * up as f64) as f32;
            }
            branches.push(parts.into_iter().map(Part::trimmed).collect());
        }
        let delay = Duration::from_secs_f64((prototype.len() - 1) as f64 / 2.0 / filter.rate);
        Self { up, down, history, branches, delay }
    }
}

impl Part {
    fn trimmed(taps: Vec<f32>) -> Self {
        let first = taps.iter().position(|tap| *tap != 0.0).unwrap_or(0);
        let end = taps.iter().rposition(|tap| *tap != 0.0).map_or(0, |last| last + 1);
        Self { first, taps: taps[first.min(end)..end].to_vec() }
    }
}

/// A Kaiser-windowed sinc at the least common multiple of both rates.
#[derive(Debug, Clone, Copy)]
struct Filter {
    rate: f64,
    /// Frequency that is 6 dB down, in Hz.
    cutoff: f64,
    length: usize,
}

const NARROW_FILTER: Filter = Filter { rate: 24_000.0, cutoff: 3_900.0, length: 97 };
const WIDE_FILTER: Filter = Filter { rate: 48_000.0, cutoff: 7_900.0, length: 121 };
const FULL_FILTER: Filter = Filter { rate: 48_000.0, cutoff: 11_800.0, length: 97 };
const HALF_FILTER: Filter = Filter { rate: 24_000.0, cutoff: 5_850.0, length: 97 };
const WIDEST_FILTER: Filter = Filter { rate: 96_000.0, cutoff: 11_800.0, length: 193 };
const STUDIO_FILTER: Filter = Filter { rate: 192_000.0, cutoff: 11_800.0, length: 385 };

/// Shape of the Kaiser window: 80 dB.
const BETA: f64 = 8.0;

impl Filter {
    /// The impulse response, scaled to unity gain at 0 Hz.
    fn taps(self) -> Vec<f64> {
        let middle = (self.length - 1) as f64 / 2.0;
        let tap = |index: usize| {
            let offset = index as f64 - middle;
            sinc(2.0 * self.cutoff / self.rate * offset) * kaiser(offset / middle, BETA)
        };
        let taps: Vec<f64> = (0..self.length).map(tap).collect();
        let sum: f64 = taps.iter().sum();
        taps.into_iter().map(|tap| tap / sum).collect()
    }
}

/// sin(πx) / πx.
pub(super) fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// The Kaiser window at `position`, from -1 to 1.
pub(super) fn kaiser(position: f64, beta: f64) -> f64 {
    let inside = (1.0 - position * position).max(0.0);
    bessel_i0(beta * inside.sqrt()) / bessel_i0(beta)
}

/// The modified Bessel function of the first kind and order zero, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    let mut k = 1.0;
    while term > sum * 1e-17 {
        term *= (x / 2.0 / k) * (x / 2.0 / k);
        sum += term;
        k += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::test_signal::{Noise, level_db, tone};
    use super::*;

    const PAIRS: [(SampleRate, SampleRate); 8] = [
        (SampleRate::HZ_8000, SampleRate::HZ_24000),
        (SampleRate::HZ_24000, SampleRate::HZ_8000),
        (SampleRate::HZ_16000, SampleRate::HZ_24000),
        (SampleRate::HZ_24000, SampleRate::HZ_16000),
        (SampleRate::HZ_48000, SampleRate::HZ_24000),
        (SampleRate::HZ_24000, SampleRate::HZ_48000),
        (SampleRate(12_000), SampleRate::HZ_24000),
        (SampleRate::HZ_24000, SampleRate(12_000)),
    ];

    #[test]
    fn rare_rates_carry_a_tone_and_whole_slots() {
        for hz in [12_000, 32_000, 44_100, 48_000, 96_000, 192_000] {
            let rate = SampleRate(hz);
            for (from, to) in [(rate, SampleRate::HZ_24000), (SampleRate::HZ_24000, rate)] {
                let mut resampler = Resampler::new(from, to).unwrap();
                let input = tone(1_000.0, from.hz(), from.hz() as usize / 2, 10_000.0);
                let mut out = Vec::new();
                for slot in input.chunks(from.hz() as usize / 50) {
                    assert_eq!(resampler.process(slot, &mut out), to.hz() as usize / 50, "{from} to {to}");
                }
                let settled = &out[out.len() / 4..out.len() / 4 * 3];
                let level = level_db(settled) - level_db(&input[input.len() / 4..input.len() / 4 * 3]);
                assert!(level.abs() < 0.1, "{from} to {to}: {level} dB");
                // The tone turns its sign as often as it did.
                let turns = settled.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count() as f64;
                let hertz = turns / 2.0 / (settled.len() as f64 / f64::from(to.hz()));
                assert!((hertz - 1_000.0).abs() < 6.0, "{from} to {to}: {hertz} Hz");
            }
        }
    }

    #[test]
    fn the_pass_band_is_flat_to_a_tenth_of_a_decibel() {
        for (from, to) in PAIRS {
            let (flat_to, edge) = bands(from, to);
            for step in 0..=6 {
                let frequency = 200.0 + (flat_to - 200.0) * f64::from(step) / 6.0;
                let gain = gain_db(from, to, frequency);
                assert!(gain.abs() <= 0.1, "{from} to {to} at {frequency} Hz: {gain} dB");
            }
            let gain = gain_db(from, to, edge);
            assert!((-1.0..=0.1).contains(&gain), "{from} to {to} at {edge} Hz: {gain} dB");
        }
    }

    #[test]
    fn what_cannot_be_represented_is_74_decibels_down() {
        for (from, to) in PAIRS.into_iter().filter(|(from, to)| from > to) {
            let stop = stop_band(from, to);
            for step in 0..=8 {
                let frequency = stop + (f64::from(from.hz()) / 2.0 - 50.0 - stop) * f64::from(step) / 8.0;
                let gain = leak_db(from, to, frequency);
                assert!(gain <= -74.0, "{from} to {to} at {frequency} Hz: {gain} dB");
            }
        }
    }

    #[test]
    fn images_of_the_pass_band_are_74_decibels_down() {
        for (from, to) in PAIRS.into_iter().filter(|(from, to)| from < to) {
            let highest = f64::from(from.hz()) - stop_band(from, to);
            for step in 0..=8 {
                let frequency = 200.0 + (highest - 200.0) * f64::from(step) / 8.0;
                let image = image_db(from, to, frequency);
                assert!(image <= -74.0, "{from} to {to} at {frequency} Hz: {image} dB");
            }
        }
    }

    #[test]
    fn an_impulse_comes_out_after_the_stated_delay() {
        for (from, to) in PAIRS {
            let mut resampler = Resampler::new(from, to).unwrap();
            let mut input = vec![0; from.hz() as usize / 50];
            input[48] = 20_000;
            let mut out = Vec::new();
            resampler.process(&input, &mut out);
            let energy: f64 = out.iter().map(|s| f64::from(*s).powi(2)).sum();
            let moment: f64 = out.iter().enumerate().map(|(i, s)| i as f64 * f64::from(*s).powi(2)).sum();
            let late = moment / energy / f64::from(to.hz()) - 48.0 / f64::from(from.hz());
            assert!((late - resampler.delay().as_secs_f64()).abs() < 30e-6, "{from} to {to}: {late} s");
            assert!(resampler.delay() <= Duration::from_millis(2));
        }
    }

    #[test]
    fn any_chunking_gives_the_same_samples() {
        for (from, to) in PAIRS {
            let input = Noise::new(7).samples(4_000, 20_000.0);
            let whole = resampled(from, to, &input);
            for sizes in [vec![1], vec![7, 1, 480, 33], vec![160], vec![481, 2, 3]] {
                let mut resampler = Resampler::new(from, to).unwrap();
                let (mut out, mut rest, mut turn) = (Vec::new(), &input[..], sizes.iter().cycle());
                while !rest.is_empty() {
                    let (chunk, after) = rest.split_at((*turn.next().unwrap()).min(rest.len()));
                    resampler.process(chunk, &mut out);
                    rest = after;
                }
                assert!(out == whole, "{from} to {to} in chunks of {sizes:?}");
            }
        }
    }

    #[test]
    fn twenty_milliseconds_in_are_twenty_milliseconds_out() {
        for (from, to) in PAIRS {
            let mut resampler = Resampler::new(from, to).unwrap();
            for _ in 0..5 {
                let made = resampler.process(&vec![100; from.hz() as usize / 50], &mut Vec::new());
                assert_eq!(made, to.hz() as usize / 50);
            }
        }
    }

    #[test]
    fn there_and_back_keeps_36_decibels_of_signal_over_noise() {
        let (narrow, bridge) = (SampleRate::HZ_8000, SampleRate::HZ_24000);
        let noise = in_band_noise(8_000);
        for input in [tone(1_000.0, 8_000, 8_000, 10_000.0), tone(3_000.0, 8_000, 8_000, 10_000.0), noise] {
            let back = resampled(bridge, narrow, &resampled(narrow, bridge, &input));
            // Both filters delay by 2 ms: 32 samples at 8 kHz.
            let snr = snr_db(&input[200..7_000], &back[232..7_032]);
            assert!(snr >= 36.0, "{snr} dB");
        }
    }

    #[test]
    fn full_scale_saturates_and_does_not_wrap() {
        for (from, to) in PAIRS {
            let square: Vec<i16> =
                (0..2_000).map(|i| if i / 20 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
            let out = resampled(from, to, &square);
            // Gibbs' overshoot at the edges saturates; wrapped samples would jump by almost 65536.
            let jump = out.windows(2).map(|w| (i32::from(w[0]) - i32::from(w[1])).abs()).max();
            let limit = if from > to { 65_535 } else { 60_000 };
            assert!(jump <= Some(limit) && out.contains(&i16::MAX) && out.contains(&i16::MIN));
        }
    }

    #[test]
    fn a_reset_resampler_is_a_new_one() {
        let input = Noise::new(3).samples(500, 9_000.0);
        for (from, to) in PAIRS {
            let mut resampler = Resampler::new(from, to).unwrap();
            resampler.process(&input[..101], &mut Vec::new());
            resampler.reset();
            let mut out = Vec::new();
            resampler.process(&input, &mut out);
            assert_eq!(out, resampled(from, to, &input));
        }
    }

    #[test]
    fn rates_without_a_design_are_refused() {
        assert!(Resampler::new(SampleRate::HZ_8000, SampleRate::HZ_16000).is_none());
        assert!(Resampler::new(SampleRate::HZ_24000, SampleRate::HZ_24000).is_none());
    }

    #[test]
    fn rubato_hears_the_same_signal() {
        use rubato::audioadapter_buffers::direct::InterleavedSlice;
        use rubato::{Fft, FixedSync, Resampler as _};

        let narrow = in_band_noise(4_000);
        let ours = resampled(SampleRate::HZ_8000, SampleRate::HZ_24000, &narrow);
        let input: Vec<f32> = narrow.iter().map(|s| f32::from(*s)).collect();
        let adapter = InterleavedSlice::new(&input, 1, input.len()).unwrap();
        let mut oracle = Fft::<f32>::new(8_000, 24_000, 160, 1, FixedSync::Input).unwrap();
        let theirs = oracle.process_all(&adapter, input.len(), None).unwrap().take_data();
        let theirs: Vec<i16> = theirs.iter().map(|s| s.round() as i16).collect();
        // rubato takes its own delay out; ours is 48 samples at 24 kHz.
        let snr = snr_db(&theirs[1_000..10_000], &ours[1_048..10_048]);
        assert!(snr >= 36.0, "{snr} dB");
    }

    /// Flat to, and at most 1 dB down at, in Hz.
    fn bands(from: SampleRate, to: SampleRate) -> (f64, f64) {
        match from.min(to).hz() {
            8_000 => (3_000.0, 3_400.0),
            12_000 => (4_600.0, 5_200.0),
            16_000 => (6_400.0, 7_000.0),
            _ => (9_600.0, 10_500.0),
        }
    }

    fn stop_band(from: SampleRate, to: SampleRate) -> f64 {
        match from.min(to).hz() {
            8_000 => 4_600.0,
            12_000 => 6_500.0,
            16_000 => 9_000.0,
            _ => 13_200.0,
        }
    }

    fn resampled(from: SampleRate, to: SampleRate, input: &[i16]) -> Vec<i16> {
        let mut out = Vec::new();
        Resampler::new(from, to).unwrap().process(input, &mut out);
        out
    }

    fn response(from: SampleRate, to: SampleRate, frequency: f64) -> Vec<i16> {
        let input = tone(frequency, from.hz(), from.hz() as usize / 8, 30_000.0);
        resampled(from, to, &input).split_off(to.hz() as usize / 40)
    }

    fn gain_db(from: SampleRate, to: SampleRate, frequency: f64) -> f64 {
        let (amplitude, _) = fitted(&response(from, to, frequency), frequency, to);
        20.0 * (amplitude / 30_000.0).log10()
    }

    fn leak_db(from: SampleRate, to: SampleRate, frequency: f64) -> f64 {
        level_db(&response(from, to, frequency)) - level_db(&tone(frequency, from.hz(), 4_000, 30_000.0))
    }

    fn image_db(from: SampleRate, to: SampleRate, frequency: f64) -> f64 {
        let out = response(from, to, frequency);
        let (amplitude, residue) = fitted(&out, frequency, to);
        20.0 * (residue / (amplitude / 2f64.sqrt())).log10()
    }

    /// Amplitude of the best fitting sine at `frequency` and the RMS of what is left without it.
    fn fitted(samples: &[i16], frequency: f64, rate: SampleRate) -> (f64, f64) {
        let step = 2.0 * PI * frequency / f64::from(rate.hz());
        let (mut cc, mut ss, mut cs, mut xc, mut xs) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (index, sample) in samples.iter().enumerate() {
            let (s, c) = (step * index as f64).sin_cos();
            let x = f64::from(*sample);
            (cc, ss, cs, xc, xs) = (cc + c * c, ss + s * s, cs + c * s, xc + x * c, xs + x * s);
        }
        let determinant = cc * ss - cs * cs;
        let (a, b) = ((xc * ss - xs * cs) / determinant, (xs * cc - xc * cs) / determinant);
        let mut residue = 0.0;
        for (index, sample) in samples.iter().enumerate() {
            let (s, c) = (step * index as f64).sin_cos();
            residue += (f64::from(*sample) - a * c - b * s).powi(2);
        }
        (a.hypot(b), (residue / samples.len() as f64).sqrt())
    }

    /// Noise from 300 to 3000 Hz at 8 kHz: a sum of tones that are no harmonics of each other.
    fn in_band_noise(length: usize) -> Vec<i16> {
        let mut noise = Noise::new(11);
        let parts: Vec<(f64, f64)> =
            (0..60).map(|i| (300.0 + 45.0 * f64::from(i), f64::from(noise.next()) * PI)).collect();
        let sample = |i: usize| {
            let at = |(f, p): &(f64, f64)| (2.0 * PI * f * i as f64 / 8_000.0 + p).sin();
            (parts.iter().map(at).sum::<f64>() * 1_000.0) as i16
        };
        (0..length).map(sample).collect()
    }

    fn snr_db(signal: &[i16], other: &[i16]) -> f64 {
        let noise: f64 = signal.iter().zip(other).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        let power: f64 = signal.iter().map(|a| f64::from(*a).powi(2)).sum();
        10.0 * (power / noise).log10()
    }
}
