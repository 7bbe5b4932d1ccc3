//! Samples: codecs, resampling, concealment, mixing, tones, voice activity and WAV files.
//!
//! Everything here is a plain value that takes samples or bytes and gives samples or bytes: no socket,
//! no task, no clock, and no file beyond the `Read`, `Write` and `Seek` a caller hands in.
//!
//! Inside a call's bridge audio is mono, signed 16 bit, [`BRIDGE_RATE`], in frames of
//! [`FRAME_SAMPLES`]. A [`Decoder`] brings a leg's payloads to that form and an [`Encoder`] takes it
//! back; both keep their state from packet to packet, so that no joint between chunks can be heard.
//! Wire codecs, their filters and their clocks are known only here.

use std::fmt;
use std::time::Duration;

pub mod codec;
pub mod convert;
pub mod decoder;
pub mod dtmf;
pub mod encoder;
pub mod fractional;
pub mod g711;
pub mod g722;
pub mod level;
pub mod mix;
pub mod plc;
pub mod resample;
pub mod tone;
pub mod vad;
pub mod voice;
pub mod wav;

#[cfg(test)]
mod test_signal;

pub use codec::Codec;
pub use decoder::Decoder;
pub use encoder::Encoder;

/// Sample rate of audio inside a bridge, in Hz.
pub const BRIDGE_RATE: u32 = 24_000;

/// Samples of one bridge frame: 20 ms at [`BRIDGE_RATE`].
pub const FRAME_SAMPLES: usize = 480;

/// Duration of one bridge frame.
pub const FRAME: Duration = Duration::from_millis(20);

/// The longest packet a [`Decoder`] accepts.
pub const MAX_PACKET: Duration = Duration::from_millis(400);

/// Samples per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleRate(u32);

impl SampleRate {
    /// Telephone quality: G.711, `slin`.
    pub const HZ_8000: Self = Self(8_000);
    /// Wideband: G.722, `slin16`.
    pub const HZ_16000: Self = Self(16_000);
    /// The bridge, and what realtime providers speak.
    pub const HZ_24000: Self = Self(24_000);
    /// Browsers and sound cards.
    pub const HZ_48000: Self = Self(48_000);

    /// A rate in Hz; `None` for zero.
    pub const fn new(hz: u32) -> Option<Self> {
        if hz == 0 { None } else { Some(Self(hz)) }
    }

    /// The rate in Hz.
    pub const fn hz(self) -> u32 {
        self.0
    }

    /// Samples in `duration`, rounded down.
    pub const fn samples_in(self, duration: Duration) -> usize {
        (duration.as_nanos() * self.0 as u128 / 1_000_000_000) as usize
    }

    /// The time `samples` take at this rate.
    pub const fn duration_of(self, samples: usize) -> Duration {
        Duration::from_nanos((samples as u128 * 1_000_000_000 / self.0 as u128) as u64)
    }
}

impl fmt::Display for SampleRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Hz", self.0)
    }
}

/// Samples that cannot be made or bytes that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudioError {
    /// L16 is spoken at the rates that telephony knows.
    #[error(
        "L16 at {0} is not supported; use 8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000 or 192000 Hz"
    )]
    UnsupportedRate(SampleRate),
    /// An L16 payload that ends in the middle of a sample.
    #[error("an L16 payload of {0} bytes ends in the middle of a sample; 16-bit samples take an even number")]
    HalfSample(usize),
    /// A payload longer than [`MAX_PACKET`].
    #[error("a packet of {0:?} is longer than the {MAX_PACKET:?} a decoder accepts")]
    PacketTooLong(Duration),
    /// The number of samples is not one this codec makes packets of.
    #[error("{codec} makes no packet of {samples} samples; Opus takes 2.5 to 60 ms, G.722 an even number")]
    PacketSize {
        /// The codec asked to encode.
        codec: Codec,
        /// Samples given, at the codec's own rate.
        samples: usize,
    },
    /// libopus refused.
    #[error("opus {doing} failed: {reason}")]
    Opus {
        /// What was being done.
        doing: &'static str,
        /// libopus' own words.
        reason: &'static str,
    },
}
