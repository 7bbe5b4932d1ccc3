//! G.722 at 64 kbit/s (mode 1): wideband telephony, two samples at 16 kHz in one byte.
//!
//! A quadrature mirror filter splits the signal at 4 kHz (ITU-T G.722 §3.1); the lower band is coded in
//! six bits and the upper in two by ADPCM whose step sizes and predictors adapt alike on both sides
//! (§3.2–3.6, §4). Names of blocks in comments are those of the recommendation's §6. Its arithmetic is
//! integer and exact: two implementations that differ in one bit drift apart.

/// Encodes 16 kHz samples; keeps filters and predictors from call to call.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// The last samples of the input, which the filter still needs.
    history: [i16; HISTORY],
    low: Band,
    high: Band,
}

/// Decodes to 16 kHz samples; keeps filters and predictors from call to call.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// The last sums and differences of both bands, which the filter still needs.
    history: [i16; HISTORY],
    low: Band,
    high: Band,
}

impl Encoder {
    /// An encoder in the reset state of the recommendation.
    pub fn new() -> Self {
        Self { history: [0; HISTORY], low: Band::new(LOW_STEP), high: Band::new(HIGH_STEP) }
    }

    /// Appends one byte per pair of samples to `out`. An odd last sample is dropped.
    pub fn encode(&mut self, samples: &[i16], out: &mut Vec<u8>) {
        let mut line = [0; HISTORY + 2 * BLOCK];
        for block in samples.chunks(2 * BLOCK) {
            let end = HISTORY + block.len();
            line[..HISTORY].copy_from_slice(&self.history);
            line[HISTORY..end].copy_from_slice(block);
            out.extend((0..block.len() / 2).map(|pair| {
                let window: &[i16; TAPS] = window_at(&line, 2 * pair);
                let low = dot(window, &ANALYSIS_LOW) >> 14;
                let high = dot(window, &ANALYSIS_HIGH) >> 14;
                self.encode_pair(low, high)
            }));
            self.history.copy_from_slice(&line[end - HISTORY..end]);
        }
    }

    fn encode_pair(&mut self, low: i32, high: i32) -> u8 {
        let low_code = quantize_low(saturate(low - self.low.estimate), self.low.step);
        let difference = (self.low.step * QM4[low_code as usize >> 2]) >> 15;
        self.low.adapt_low(low_code >> 2);
        self.low.predict(difference);

        let high_code = quantize_high(saturate(high - self.high.estimate), self.high.step);
        let difference = (self.high.step * QM2[high_code as usize]) >> 15;
        self.high.adapt_high(high_code);
        self.high.predict(difference);
        high_code << 6 | low_code
    }
}

impl Decoder {
    /// A decoder in the reset state of the recommendation.
    pub fn new() -> Self {
        Self { history: [0; HISTORY], low: Band::new(LOW_STEP), high: Band::new(HIGH_STEP) }
    }

    /// Appends two samples per byte to `out`. Every byte is valid.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<i16>) {
        let mut line = [0; HISTORY + 2 * BLOCK];
        for block in bytes.chunks(BLOCK) {
            let end = HISTORY + 2 * block.len();
            line[..HISTORY].copy_from_slice(&self.history);
            for (place, byte) in line[HISTORY..end].chunks_exact_mut(2).zip(block) {
                let (low, high) = self.decode_byte(*byte);
                // Both bands are limited to 15 bits, so neither of these can overflow.
                place[0] = (low + high) as i16;
                place[1] = (low - high) as i16;
            }
            let pairs = (0..block.len()).map(|pair| {
                let window: &[i16; TAPS] = window_at(&line, 2 * pair);
                let second = saturate(dot(window, &SYNTHESIS_SECOND) >> 11) as i16;
                [saturate(dot(window, &SYNTHESIS_FIRST) >> 11) as i16, second]
            });
            // Filled through a slice: an iterator of pairs that is flattened is asked for its samples one by one.
            let start = out.len();
            out.resize(start + 2 * block.len(), 0);
            out[start..].as_chunks_mut::<2>().0.iter_mut().zip(pairs).for_each(|(place, pair)| *place = pair);
            self.history.copy_from_slice(&line[end - HISTORY..end]);
        }
    }

    fn decode_byte(&mut self, byte: u8) -> (i32, i32) {
        let (low_code, high_code) = (byte & 0x3f, byte >> 6);
        // INVQBL: the decoder listens to all six bits, the predictors to the upper four.
        let fine = (self.low.step * QM6[usize::from(low_code)]) >> 15;
        let low = (self.low.estimate + fine).clamp(-16_384, 16_383);
        let difference = (self.low.step * QM4[usize::from(low_code >> 2)]) >> 15;
        self.low.adapt_low(low_code >> 2);
        self.low.predict(difference);

        let difference = (self.high.step * QM2[usize::from(high_code)]) >> 15;
        let high = (self.high.estimate + difference).clamp(-16_384, 16_383);
        self.high.adapt_high(high_code);
        self.high.predict(difference);
        (low, high)
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// The adaptive predictor and quantizer of one band, the same on both sides of the line.
#[derive(Debug, Clone)]
struct Band {
    /// Predicted signal (SL, SH).
    estimate: i32,
    /// The zeros' share of it (SZ).
    zeros: i32,
    /// Step size (DET) and its logarithm (NB).
    step: i32,
    log_step: i32,
    /// Last two reconstructed signals (RLT), doubled as FILTEP wants them.
    reconstructed: [i32; 2],
    /// Last two partial reconstructions (PLT).
    partial: [i32; 2],
    /// Coefficients of the two poles (AL).
    poles: [i32; 2],
    /// Last differences (DLT), doubled as FILTEZ wants them, and the coefficients of the six zeros (BL).
    /// Two lanes are padding; 16 bits, so that all eight are one vector.
    differences: [i16; 8],
    coefficients: [i16; 8],
}

impl Band {
    fn new(step: i32) -> Self {
        Self {
            estimate: 0,
            zeros: 0,
            step,
            log_step: 0,
            reconstructed: [0; 2],
            partial: [0; 2],
            poles: [0; 2],
            differences: [0; 8],
            coefficients: [0; 8],
        }
    }

    /// LOGSCL, SCALEL: the step that follows a four-bit code.
    fn adapt_low(&mut self, code: u8) {
        self.log_step = (((self.log_step * 127) >> 7) + WL[usize::from(code)]).clamp(0, 18_432);
        self.step = step_of(self.log_step, 8);
    }

    /// LOGSCH, SCALEH: the step that follows a two-bit code.
    fn adapt_high(&mut self, code: u8) {
        self.log_step = (((self.log_step * 127) >> 7) + WH[usize::from(code)]).clamp(0, 22_528);
        self.step = step_of(self.log_step, 10);
    }

    /// Takes in a quantized difference, adapts the predictor and predicts the next signal.
    fn predict(&mut self, difference: i32) {
        let reconstructed = saturate(self.estimate + difference);
        let partial = saturate(self.zeros + difference);
        self.adapt_poles(partial);
        self.adapt_zeros(difference);

        let [a, b, c, d, e, ..] = self.differences;
        self.differences = [saturate(2 * difference) as i16, a, b, c, d, e, 0, 0];
        self.reconstructed = [saturate(2 * reconstructed), self.reconstructed[0]];
        self.partial = [partial, self.partial[0]];

        // FILTEP, FILTEZ
        let pole = |i: usize| (self.poles[i] * self.reconstructed[i]) >> 15;
        let poles = saturate(pole(0) + pole(1));
        let terms = self.coefficients.iter().zip(&self.differences);
        self.zeros = saturate(terms.map(|(b, d)| (i32::from(*b) * i32::from(*d)) >> 15).sum());
        self.estimate = saturate(poles + self.zeros);
    }

    /// UPPOL2, UPPOL1: moves the poles by the signs of the last three partial reconstructions.
    fn adapt_poles(&mut self, partial: i32) {
        let [first, second] = self.poles;
        let same_as_last = same_sign(partial, self.partial[0]);
        let same_as_before = same_sign(partial, self.partial[1]);

        let pull = saturate(4 * first);
        let pull = if same_as_last { (-pull).min(32_767) } else { pull };
        let nudge = if same_as_before { 128 } else { -128 };
        let second = ((pull >> 7) + nudge + ((second * 32_512) >> 15)).clamp(-12_288, 12_288);

        let nudge = if same_as_last { 192 } else { -192 };
        let limit = 15_360 - second;
        let first = (nudge + ((first * 32_640) >> 15)).clamp(-limit, limit);
        self.poles = [first, second];
    }

    /// UPZERO: lets each coefficient leak and nudges it towards agreement with the new difference.
    fn adapt_zeros(&mut self, difference: i32) {
        let nudge: i16 = if difference == 0 { 0 } else { 128 };
        let sign = (difference >> 31) as i16;
        for (b, d) in self.coefficients.iter_mut().zip(&self.differences) {
            // All ones where the signs differ: then `(x ^ mask) - mask` is `-x`.
            let mask = (d >> 15) ^ sign;
            // 255/256, rounded down. Neither this nor the nudge can leave 16 bits.
            let leak = (*b >> 8) + (((*b & 255) + 255) >> 8);
            *b = *b - leak + ((nudge ^ mask) - mask);
        }
    }
}

/// QUANTL: the six-bit code of a lower-band error.
fn quantize_low(error: i32, step: i32) -> u8 {
    let size = (if error < 0 { !error } else { error }) as i16;
    // Comparing with all levels at once is faster than searching: it is a handful of vectors. Steps have
    // 15 bits and levels, times 16, have 16, so that the upper half of their product is what is wanted.
    let step = step as u16;
    let reached =
        Q6.iter().map(|level| i16::from(size >= ((u32::from(16 * level) * u32::from(step)) >> 16) as i16));
    let level = reached.sum::<i16>().min(LOW_LEVELS);
    // Codes count down from the largest positive and from the largest negative error; the two smallest
    // negative levels have the codes that transmission with no ones would otherwise need.
    match (error < 0, level as u8) {
        (false, level) => 61 - level,
        (true, level @ 0..=1) => 63 - level,
        (true, level) => 33 - level,
    }
}

/// QUANTH: the two-bit code of an upper-band error.
fn quantize_high(error: i32, step: i32) -> u8 {
    let size = if error < 0 { !error } else { error };
    let far = size >= (564 * step) >> 12;
    match (error < 0, far) {
        (true, true) => 0,
        (true, false) => 1,
        (false, true) => 2,
        (false, false) => 3,
    }
}

/// The linear step of a logarithmic one.
fn step_of(log_step: i32, offset: i32) -> i32 {
    let mantissa = ILB[(log_step >> 6) as usize & 31];
    let shift = offset - (log_step >> 11);
    (if shift < 0 { mantissa << -shift } else { mantissa >> shift }) << 2
}

fn saturate(value: i32) -> i32 {
    value.clamp(-32_768, 32_767)
}

fn same_sign(a: i32, b: i32) -> bool {
    (a ^ b) >= 0
}

fn dot(window: &[i16; TAPS], taps: &[i16; TAPS]) -> i32 {
    window.iter().zip(taps).map(|(x, tap)| i32::from(*x) * i32::from(*tap)).sum()
}

/// The filter's view of `line` from `start`; the line always has a history before the last pair.
fn window_at(line: &[i16; HISTORY + 2 * BLOCK], start: usize) -> &[i16; TAPS] {
    line[start..].first_chunk().unwrap_or(&[0; TAPS])
}

const TAPS: usize = 24;

/// Samples a filter looks back beyond the pair it works on.
const HISTORY: usize = TAPS - 2;

/// Bytes worked on at a time: 20 ms.
const BLOCK: usize = 160;

/// Step sizes after a reset.
const LOW_STEP: i32 = 32;
const HIGH_STEP: i32 = 8;

/// Every second coefficient of the quadrature mirror filter; the others are these backwards.
const HALF_FILTER: [i16; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

static ANALYSIS_LOW: [i16; TAPS] = filter(1, 1);
static ANALYSIS_HIGH: [i16; TAPS] = filter(-1, 1);
static SYNTHESIS_FIRST: [i16; TAPS] = filter(0, 1);
static SYNTHESIS_SECOND: [i16; TAPS] = filter(1, 0);

/// The mirror filter with its even and its odd taps weighted.
const fn filter(even: i16, odd: i16) -> [i16; TAPS] {
    let mut taps = [0; TAPS];
    let mut index = 0;
    while index < TAPS / 2 {
        taps[2 * index] = even * HALF_FILTER[index];
        taps[2 * index + 1] = odd * HALF_FILTER[TAPS / 2 - 1 - index];
        index += 1;
    }
    taps
}

/// Decision levels of the lower band from the first to the last, then padding.
static Q6: [u16; 32] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121, 1219,
    1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919, 4095, 4095, 4095,
];
const LOW_LEVELS: i16 = 29;

/// Output levels of the lower band for four bits and for six.
static QM4: [i32; 16] =
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0];
static QM6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360,
    -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688,
    -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856,
    7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136,
    -432, -136,
];

/// Output levels of the upper band.
static QM2: [i32; 4] = [-7408, -1616, 7408, 1616];

/// Logarithmic step changes by code.
static WL: [i32; 16] = [-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60];
static WH: [i32; 4] = [798, -214, 798, -214];

/// Mantissas of the inverse logarithm.
static ILB: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896,
    2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

#[cfg(test)]
mod tests {
    use super::super::test_signal::{Noise, level_db, speech_like, tone};
    use super::*;

    #[test]
    fn tones_of_the_lower_band_come_back_clean() {
        for (frequency, least) in [(300.0, 30.0), (1_000.0, 30.0), (2_500.0, 28.0), (3_400.0, 25.0)] {
            let snr = round_trip_snr(&tone(frequency, 16_000, 8_000, 8_000.0));
            assert!(snr >= least, "{frequency} Hz: {snr} dB");
        }
    }

    #[test]
    fn tones_of_the_upper_band_come_back_recognizable() {
        for frequency in [4_800.0, 6_000.0, 7_000.0] {
            let snr = round_trip_snr(&tone(frequency, 16_000, 8_000, 4_000.0));
            assert!(snr >= 9.0, "{frequency} Hz: {snr} dB");
        }
    }

    #[test]
    fn speech_keeps_its_quality() {
        let snr = round_trip_snr(&speech_like(16_000, 16_000, 14_000.0));
        assert!(snr >= 20.0, "{snr} dB");
    }

    #[test]
    fn the_level_is_flat_from_100_hz_to_7_khz() {
        for frequency in [100.0, 1_000.0, 3_000.0, 5_000.0, 7_000.0] {
            let input = tone(frequency, 16_000, 8_000, 8_000.0);
            let change = level_db(&round_trip(&input)[1_000..]) - level_db(&input[1_000..]);
            assert!(change.abs() < 1.0, "{frequency} Hz: {change} dB");
        }
    }

    #[test]
    fn silence_stays_below_the_telephone_noise_floor() {
        let out = round_trip(&[0; 1_600]);
        assert!(out.iter().all(|sample| sample.abs() <= 8), "{:?}", out.iter().max());
    }

    #[test]
    fn chunks_do_not_matter() {
        let input = speech_like(16_000, 4_000, 14_000.0);
        let (mut whole, mut parts) = (Vec::new(), Vec::new());
        Encoder::new().encode(&input, &mut whole);
        let mut encoder = Encoder::new();
        input.chunks(26).for_each(|chunk| encoder.encode(chunk, &mut parts));
        assert_eq!(parts, whole);

        let (mut one, mut many) = (Vec::new(), Vec::new());
        Decoder::new().decode(&whole, &mut one);
        let mut decoder = Decoder::new();
        whole.chunks(7).for_each(|chunk| decoder.decode(chunk, &mut many));
        assert_eq!(many, one);
    }

    #[test]
    fn extremes_and_garbage_saturate() {
        let loud: Vec<i16> = (0..3_200).map(|i| if i / 9 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        assert_eq!(round_trip(&loud).len(), loud.len());
        let mut noise = Noise::new(9);
        let bytes: Vec<u8> = (0..4_000).map(|_| (noise.next() * 128.0) as i8 as u8).collect();
        let mut out = Vec::new();
        Decoder::new().decode(&bytes, &mut out);
        assert_eq!(out.len(), 8_000);
    }

    #[test]
    fn the_bits_on_the_line_are_those_other_implementations_send() {
        // Checksums of what an independent implementation (libg722) makes of the same signal.
        let mut bytes = Vec::new();
        Encoder::new().encode(&sawtooth(), &mut bytes);
        let mut samples = Vec::new();
        Decoder::new().decode(&bytes, &mut samples);
        let sum =
            samples.iter().fold(0u32, |sum, s| sum.wrapping_mul(31).wrapping_add(s.cast_unsigned().into()));
        assert_eq!(
            bytes.iter().fold(0u32, |sum, b| sum.wrapping_mul(31).wrapping_add((*b).into())),
            1_879_856_206
        );
        assert_eq!(sum, 3_633_873_423);
    }

    /// Integer arithmetic only, so that any language can make the same.
    fn sawtooth() -> Vec<i16> {
        (0..8_000i32).map(|i| ((i * i / 97 + i * 523) % 24_001 - 12_000) as i16).collect()
    }

    fn round_trip(input: &[i16]) -> Vec<i16> {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        Encoder::new().encode(input, &mut bytes);
        Decoder::new().decode(&bytes, &mut out);
        out
    }

    fn round_trip_snr(input: &[i16]) -> f64 {
        let out = round_trip(input);
        // Both mirror filters together delay by 22 samples.
        let (sent, heard) = (&input[1_000..input.len() - 22], &out[1_022..]);
        let noise: f64 = sent.iter().zip(heard).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        level_db(sent) - 10.0 * (noise / sent.len() as f64).log10()
    }
}
