//! How the bytes on a PBX's connection stand for samples.

use std::fmt;
use std::time::Duration;

/// What a payload on a PBX's own connection is made of. Unlike RTP there is no header, no clock and no
/// payload type: bytes in order are samples in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// 16-bit linear, **little endian**, mono, at this rate in Hz (Asterisk: `slin`, `slin12` .. `slin192`).
    Linear(u32),
    /// G.711 u-law, 8 kHz (`ulaw`).
    Ulaw,
    /// G.711 A-law, 8 kHz (`alaw`).
    Alaw,
    /// G.722 at 64 kbit/s (`g722`).
    G722,
    /// One Opus packet a message (`opus`).
    Opus,
}

impl Coding {
    /// The coding under Asterisk's name for it; `None` for one that Tandem does not speak.
    pub fn from_asterisk(name: &str) -> Option<Self> {
        let linear = |rate: &(&str, u32)| (rate.0 == name).then_some(Self::Linear(rate.1));
        LINEAR.iter().find_map(linear).or(match name {
            "ulaw" => Some(Self::Ulaw),
            "alaw" => Some(Self::Alaw),
            "g722" => Some(Self::G722),
            "opus" => Some(Self::Opus),
            _ => None,
        })
    }

    /// Asterisk's name for it; `None` for a linear rate that Asterisk has no format for.
    pub fn asterisk(self) -> Option<&'static str> {
        match self {
            Self::Linear(rate) => LINEAR.iter().find(|named| named.1 == rate).map(|named| named.0),
            Self::Ulaw => Some("ulaw"),
            Self::Alaw => Some("alaw"),
            Self::G722 => Some("g722"),
            Self::Opus => Some("opus"),
        }
    }

    /// Samples a second of what is coded, in Hz.
    pub const fn sample_rate(self) -> u32 {
        match self {
            Self::Linear(rate) => rate,
            Self::Ulaw | Self::Alaw => 8_000,
            Self::G722 => 16_000,
            Self::Opus => 24_000,
        }
    }

    /// Bytes of `span` of audio; `None` for Opus, whose packets have no fixed size.
    pub const fn bytes_in(self, span: Duration) -> Option<usize> {
        let per_second = match self {
            Self::Linear(rate) => rate as u128 * 2,
            Self::Ulaw | Self::Alaw | Self::G722 => 8_000,
            Self::Opus => return None,
        };
        let bytes = per_second * span.as_micros() / 1_000_000;
        Some(match self {
            // Never half a sample.
            Self::Linear(_) => (bytes / 2 * 2) as usize,
            _ => bytes as usize,
        })
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear(rate) => write!(f, "slin/{rate}"),
            Self::Ulaw => f.write_str("PCMU/8000"),
            Self::Alaw => f.write_str("PCMA/8000"),
            Self::G722 => f.write_str("G722/8000"),
            Self::Opus => f.write_str("opus/48000"),
        }
    }
}

/// Asterisk's linear formats and their rates.
const LINEAR: [(&str, u32); 9] = [
    ("slin", 8_000),
    ("slin12", 12_000),
    ("slin16", 16_000),
    ("slin24", 24_000),
    ("slin32", 32_000),
    ("slin44", 44_100),
    ("slin48", 48_000),
    ("slin96", 96_000),
    ("slin192", 192_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_of_each_linear_rate_has_the_length_of_the_protocol_text() {
        let lengths = [320, 480, 640, 960, 1280, 1764, 1920, 3840, 7680];
        for ((name, rate), length) in LINEAR.into_iter().zip(lengths) {
            let coding = Coding::from_asterisk(name);
            assert_eq!(coding, Some(Coding::Linear(rate)));
            assert_eq!(coding.and_then(Coding::asterisk), Some(name));
            assert_eq!(Coding::Linear(rate).bytes_in(Duration::from_millis(20)), Some(length), "{name}");
        }
        assert_eq!(Coding::from_asterisk("speex"), None);
        assert_eq!(Coding::Linear(11_025).asterisk(), None);
    }
}
