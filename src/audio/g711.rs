//! G.711: the two companding laws of the telephone network, by table.
//!
//! Both laws keep 13 or 14 of 16 bits in a sign, a three-bit segment and a four-bit step. The tables
//! are made at compile time by the arithmetic of ITU-T G.711, so that encoding and decoding are one look-up
//! a sample.

use std::fmt;

/// μ-law (PCMU), used in North America and Japan.
pub static MULAW: G711 =
    G711 { name: "PCMU", decode: &MULAW_DECODE, encode: &MULAW_ENCODE, shift: MULAW_SHIFT };

/// A-law (PCMA), used everywhere else.
pub static ALAW: G711 = G711 { name: "PCMA", decode: &ALAW_DECODE, encode: &ALAW_ENCODE, shift: ALAW_SHIFT };

/// One of the two companding laws: see [`MULAW`] and [`ALAW`].
pub struct G711 {
    name: &'static str,
    decode: &'static [i16; 256],
    encode: &'static [u8],
    /// Low bits of a 16-bit sample the law does not look at.
    shift: u32,
}

impl G711 {
    /// Appends the sample of each byte to `out`. Every byte is valid.
    pub fn decode(&self, bytes: &[u8], out: &mut Vec<i16>) {
        out.extend(bytes.iter().map(|byte| self.decode[usize::from(*byte)]));
    }

    /// Appends the byte of each sample to `out`.
    pub fn encode(&self, samples: &[i16], out: &mut Vec<u8>) {
        out.extend(samples.iter().map(|sample| self.encode_one(*sample)));
    }

    /// The sample a byte stands for.
    pub fn decode_one(&self, byte: u8) -> i16 {
        self.decode[usize::from(byte)]
    }

    /// The byte nearest to a sample.
    pub fn encode_one(&self, sample: i16) -> u8 {
        self.encode[usize::from(sample.cast_unsigned() >> self.shift)]
    }

    /// The byte of a zero sample: 0xFF in μ-law, 0xD5 in A-law.
    pub fn silence(&self) -> u8 {
        self.encode_one(0)
    }
}

impl fmt::Debug for G711 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "G711({})", self.name)
    }
}

const MULAW_SHIFT: u32 = 2;
const ALAW_SHIFT: u32 = 4;

static MULAW_DECODE: [i16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = expand_mulaw(byte as u8);
        byte += 1;
    }
    table
};

static ALAW_DECODE: [i16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = expand_alaw(byte as u8);
        byte += 1;
    }
    table
};

static MULAW_ENCODE: [u8; 1 << (16 - MULAW_SHIFT)] = {
    let mut table = [0; 1 << (16 - MULAW_SHIFT)];
    let mut index = 0;
    while index < table.len() {
        table[index] = compress_mulaw((index << MULAW_SHIFT) as u16 as i16);
        index += 1;
    }
    table
};

static ALAW_ENCODE: [u8; 1 << (16 - ALAW_SHIFT)] = {
    let mut table = [0; 1 << (16 - ALAW_SHIFT)];
    let mut index = 0;
    while index < table.len() {
        table[index] = compress_alaw((index << ALAW_SHIFT) as u16 as i16);
        index += 1;
    }
    table
};

/// Added to a 14-bit magnitude so that every segment starts at a power of two.
const MULAW_BIAS: u32 = 33;

const fn compress_mulaw(sample: i16) -> u8 {
    let biased = (magnitude(sample) >> MULAW_SHIFT) + MULAW_BIAS;
    let biased = if biased > 0x1fff { 0x1fff } else { biased };
    // The bias makes bit 5 the lowest that can lead; bit 12 the highest.
    let segment = 26 - biased.leading_zeros();
    let step = (biased >> (segment + 1)) & 0xf;
    let code = ((segment << 4) | step) as u8;
    // G.711 sends μ-law inverted, so that silence has many ones.
    if sample < 0 { !(code | 0x80) } else { !code }
}

const fn expand_mulaw(byte: u8) -> i16 {
    let code = !byte;
    let segment = (code >> 4) & 7;
    let step = (code & 0xf) as i16;
    let value = (((step << 3) + 0x84) << segment) - 0x84;
    if code & 0x80 != 0 { -value } else { value }
}

const fn compress_alaw(sample: i16) -> u8 {
    let value = magnitude(sample) >> ALAW_SHIFT;
    // The two lowest segments share one step size, so the first needs no leading one.
    let segment = if value < 16 { 0 } else { 28 - value.leading_zeros() };
    let step = if segment < 2 { value & 0xf } else { (value >> (segment - 1)) & 0xf };
    let code = ((segment << 4) | step) as u8;
    // Even bits are inverted on the line; positive samples have the sign bit set.
    (if sample < 0 { code } else { code | 0x80 }) ^ 0x55
}

const fn expand_alaw(byte: u8) -> i16 {
    let code = byte ^ 0x55;
    let segment = (code >> 4) & 7;
    let step = ((code & 0xf) as i16) << 4;
    let value = if segment == 0 { step + 8 } else { (step + 0x108) << (segment - 1) };
    if code & 0x80 != 0 { value } else { -value }
}

/// One's complement magnitude: -1 is 0, as the recommendation's sign-and-magnitude codes want it.
const fn magnitude(sample: i16) -> u32 {
    (if sample < 0 { !sample } else { sample }) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for byte in 0..=255u8 {
            // μ-law has a negative zero, which comes back as the positive one.
            let expected = if byte == 0x7f { 0xff } else { byte };
            assert_eq!(MULAW.encode_one(MULAW.decode_one(byte)), expected);
            assert_eq!(ALAW.encode_one(ALAW.decode_one(byte)), byte);
        }
    }

    #[test]
    fn every_sample_is_encoded_as_the_segment_search_of_the_recommendation_does() {
        for sample in i16::MIN..=i16::MAX {
            assert_eq!(MULAW.encode_one(sample), mulaw_by_search(sample), "mu-law of {sample}");
            assert_eq!(ALAW.encode_one(sample), alaw_by_search(sample), "A-law of {sample}");
        }
    }

    #[test]
    fn known_values_of_the_tables_in_the_recommendation_hold() {
        assert_eq!([0x00, 0x80, 0xff, 0x7f, 0xfe].map(|b| MULAW.decode_one(b)), [-32124, 32124, 0, 0, 8]);
        assert_eq!([0xd5, 0x55, 0xaa, 0x2a].map(|b| ALAW.decode_one(b)), [8, -8, 32256, -32256]);
        assert_eq!((MULAW.silence(), ALAW.silence()), (0xff, 0xd5));
    }

    #[test]
    fn a_sample_is_never_further_from_its_decoded_self_than_half_a_step() {
        for law in [&MULAW, &ALAW] {
            for sample in i16::MIN..=i16::MAX {
                let error = (i32::from(sample) - i32::from(law.decode_one(law.encode_one(sample)))).abs();
                let loudness = i32::from(sample).abs();
                assert!(
                    error <= 16.max(loudness / 31 + 4).max(loudness - 32_124),
                    "{law:?} {sample}: {error}"
                );
            }
        }
    }

    #[test]
    fn slices_are_appended_sample_by_sample() {
        let mut bytes = vec![1];
        MULAW.encode(&[0, 1000, -1000], &mut bytes);
        assert_eq!(bytes, [1, 0xff, 0xce, 0x4e]);
        let mut samples = vec![7];
        MULAW.decode(&bytes[1..], &mut samples);
        assert_eq!(samples, [7, 0, 988, -988]);
    }

    fn mulaw_by_search(sample: i16) -> u8 {
        let negative = sample < 0;
        let value = if negative { !sample } else { sample } >> 2;
        let biased = i32::from(value) + 33;
        let ends = [0x3f, 0x7f, 0xff, 0x1ff, 0x3ff, 0x7ff, 0xfff, 0x1fff];
        let Some(segment) = ends.iter().position(|end| biased <= *end) else {
            return if negative { 0 } else { 0x80 };
        };
        let code = (segment as u8) << 4 | ((biased >> (segment + 1)) & 0xf) as u8;
        code ^ if negative { 0x7f } else { 0xff }
    }

    fn alaw_by_search(sample: i16) -> u8 {
        let negative = sample < 0;
        let value = i32::from(if negative { !sample } else { sample } >> 3);
        let ends = [0x1f, 0x3f, 0x7f, 0xff, 0x1ff, 0x3ff, 0x7ff, 0xfff];
        let segment = ends.iter().position(|end| value <= *end).expect("12 bits");
        let step = if segment < 2 { value >> 1 } else { value >> segment } & 0xf;
        let code = (segment as u8) << 4 | step as u8;
        code ^ if negative { 0x55 } else { 0xd5 }
    }
}
