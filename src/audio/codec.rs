//! The codecs a leg can speak, and the three rates each of them has.
//!
//! A codec's *samples* have a rate, its *RTP clock* has one, and the bridge has its own. For G.722 the
//! first two differ by a historical accident (RFC 3551 §4.5.2), for Opus because it is decoded to what
//! the bridge wants while its clock always runs at 48 kHz (RFC 7587 §4.1).

use std::fmt;
use std::time::Duration;

use super::SampleRate;

/// A codec, with everything that fixes its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 μ-law, 8 kHz, 64 kbit/s.
    Pcmu,
    /// G.711 A-law, 8 kHz, 64 kbit/s.
    Pcma,
    /// G.722 at 64 kbit/s: 16 kHz samples on an 8 kHz RTP clock.
    G722,
    /// Opus, mono, coded from and decoded to 24 kHz on a 48 kHz RTP clock.
    Opus,
    /// Linear 16-bit samples, big endian, mono (RFC 3551 §4.5.11), at 8, 16 or 24 kHz.
    L16(SampleRate),
}

impl Codec {
    /// Rate of the samples that go into the encoder and come out of the decoder.
    pub const fn sample_rate(self) -> SampleRate {
        match self {
            Self::Pcmu | Self::Pcma => SampleRate::HZ_8000,
            Self::G722 => SampleRate::HZ_16000,
            Self::Opus => SampleRate::HZ_24000,
            Self::L16(rate) => rate,
        }
    }

    /// Rate of the RTP timestamp in Hz.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 8_000,
            Self::Opus => 48_000,
            Self::L16(rate) => rate.hz(),
        }
    }

    /// The encoding name of `a=rtpmap`, in the spelling of its registration.
    pub const fn rtpmap_name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
            Self::L16(_) => "L16",
        }
    }

    /// The channel count of `a=rtpmap`. Opus always says two, whatever it carries (RFC 7587 §7).
    pub const fn rtpmap_channels(self) -> u8 {
        match self {
            Self::Opus => 2,
            Self::Pcmu | Self::Pcma | Self::G722 | Self::L16(_) => 1,
        }
    }

    /// The payload type RFC 3551 §6 assigns; `None` for codecs that need a dynamic one.
    pub const fn static_payload_type(self) -> Option<u8> {
        match self {
            Self::Pcmu => Some(0),
            Self::Pcma => Some(8),
            Self::G722 => Some(9),
            Self::Opus | Self::L16(_) => None,
        }
    }

    /// The codec RFC 3551 §6 gives to a static payload type.
    pub const fn from_static_payload_type(payload_type: u8) -> Option<Self> {
        match payload_type {
            0 => Some(Self::Pcmu),
            8 => Some(Self::Pcma),
            9 => Some(Self::G722),
            _ => None,
        }
    }

    /// The codec of an `a=rtpmap` line: encoding name (any case), clock rate, channels (1 if left out).
    /// `None` for what Tandem does not speak.
    pub fn from_rtpmap(name: &str, clock_rate: u32, channels: u8) -> Option<Self> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        match (clock_rate, channels) {
            (8_000, 1) if is("PCMU") => Some(Self::Pcmu),
            (8_000, 1) if is("PCMA") => Some(Self::Pcma),
            (8_000, 1) if is("G722") => Some(Self::G722),
            (48_000, 1 | 2) if is("opus") => Some(Self::Opus),
            (8_000 | 16_000 | 24_000, 1) if is("L16") => SampleRate::new(clock_rate).map(Self::L16),
            _ => None,
        }
    }

    /// Samples, at [`Codec::sample_rate`], in a packet of `ptime`.
    pub const fn samples_per_packet(self, ptime: Duration) -> usize {
        self.sample_rate().samples_in(ptime)
    }

    /// RTP timestamp units in a packet of `ptime`.
    pub const fn clock_ticks(self, ptime: Duration) -> u32 {
        (ptime.as_nanos() * self.clock_rate() as u128 / 1_000_000_000) as u32
    }

    /// Whether a sample is one companded byte (PCMU, PCMA).
    pub const fn is_g711(self) -> bool {
        matches!(self, Self::Pcmu | Self::Pcma)
    }

    /// Bits per second of payload; for Opus, what its encoder is set to.
    pub const fn bit_rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 64_000,
            Self::Opus => super::encoder::OPUS_BIT_RATE,
            Self::L16(rate) => rate.hz() * 16,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.rtpmap_name(), self.clock_rate())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Codec; 7] = [
        Codec::Pcmu,
        Codec::Pcma,
        Codec::G722,
        Codec::Opus,
        Codec::L16(SampleRate::HZ_8000),
        Codec::L16(SampleRate::HZ_16000),
        Codec::L16(SampleRate::HZ_24000),
    ];

    #[test]
    fn every_codec_is_found_again_by_its_rtpmap_line() {
        for codec in ALL {
            let found = Codec::from_rtpmap(codec.rtpmap_name(), codec.clock_rate(), codec.rtpmap_channels());
            assert_eq!(found, Some(codec));
        }
        assert_eq!(Codec::from_rtpmap("pcmu", 8000, 1), Some(Codec::Pcmu));
        assert_eq!(Codec::from_rtpmap("PCMU", 16000, 1), None);
        assert_eq!(Codec::from_rtpmap("L16", 44100, 1), None);
        assert_eq!(Codec::from_rtpmap("G729", 8000, 1), None);
    }

    #[test]
    fn static_payload_types_are_those_of_rfc_3551() {
        for codec in ALL {
            if let Some(number) = codec.static_payload_type() {
                assert_eq!(Codec::from_static_payload_type(number), Some(codec));
            }
        }
        assert_eq!(Codec::Pcma.static_payload_type(), Some(8));
        assert_eq!(Codec::from_static_payload_type(18), None);
    }

    #[test]
    fn a_packet_of_20_ms_has_the_samples_and_ticks_of_its_codec() {
        let ptime = Duration::from_millis(20);
        let sizes = ALL.map(|codec| (codec.samples_per_packet(ptime), codec.clock_ticks(ptime)));
        assert_eq!(
            sizes,
            [(160, 160), (160, 160), (320, 160), (480, 960), (160, 160), (320, 320), (480, 480)]
        );
    }

    #[test]
    fn a_codec_is_printed_as_in_sdp() {
        assert_eq!(Codec::Pcmu.to_string(), "PCMU/8000");
        assert_eq!(Codec::G722.to_string(), "G722/8000");
        assert_eq!(Codec::Opus.to_string(), "opus/48000");
        assert_eq!(Codec::L16(SampleRate::HZ_16000).to_string(), "L16/16000");
    }
}
