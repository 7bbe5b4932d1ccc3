//! The three audio formats of the wire.

use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::Fields;
use crate::audio::g711;

/// How audio is packed inside base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioFormat {
    /// 24 kHz, 16-bit little-endian.
    Pcm,
    /// 8 kHz μ-law.
    Pcmu,
    /// 8 kHz A-law.
    Pcma,
}

impl AudioFormat {
    /// Samples per second.
    pub const fn rate(self) -> u32 {
        match self {
            Self::Pcm => 24_000,
            Self::Pcmu | Self::Pcma => 8_000,
        }
    }

    /// Bytes per sample.
    pub const fn width(self) -> usize {
        match self {
            Self::Pcm => 2,
            Self::Pcmu | Self::Pcma => 1,
        }
    }

    /// Appends the samples of `bytes` to `out`. An odd last byte of [`AudioFormat::Pcm`] is left out.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<i16>) {
        match self {
            Self::Pcm => {
                let (pairs, _) = bytes.as_chunks::<2>();
                out.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
            }
            Self::Pcmu => g711::MULAW.decode(bytes, out),
            Self::Pcma => g711::ALAW.decode(bytes, out),
        }
    }

    /// The bytes of `samples`, which are at [`AudioFormat::rate`].
    pub fn encode(self, samples: &[i16]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(samples.len() * self.width());
        match self {
            Self::Pcm => bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes())),
            Self::Pcmu => g711::MULAW.encode(samples, &mut bytes),
            Self::Pcma => g711::ALAW.encode(samples, &mut bytes),
        }
        bytes
    }

    /// Reads the `format` member of an `audio.input` or `audio.output`.
    pub fn read(fields: &mut Fields<'_>) -> Result<Option<Self>, ApiError> {
        let Some(mut format) = fields.object("format")? else { return Ok(None) };
        let read = match format.required_one_of("type", &["audio/pcm", "audio/pcmu", "audio/pcma"])? {
            "audio/pcm" => {
                format.integer("rate", 24_000, 24_000)?;
                Self::Pcm
            }
            "audio/pcmu" => Self::Pcmu,
            _ => Self::Pcma,
        };
        format.finish()?;
        Ok(Some(read))
    }

    /// As shown in `session.updated`.
    pub fn to_json(self) -> Value {
        match self {
            Self::Pcm => json!({"type": "audio/pcm", "rate": 24_000}),
            Self::Pcmu => json!({"type": "audio/pcmu"}),
            Self::Pcma => json!({"type": "audio/pcma"}),
        }
    }
}
