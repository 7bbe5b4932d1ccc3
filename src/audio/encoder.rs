//! From the bridge to payloads, in two stages, so that a playout queue can hold narrow audio.
//!
//! A provider's answer arrives faster than it is played. It is brought to the codec's rate when it
//! arrives ([`Encoder::narrow`]) and waits in that form; it becomes a packet only when it is due
//! ([`Encoder::encode`]), so that dropping the queue at a barge-in leaves the codec's state true to what
//! the far end has heard.

use std::time::Duration;

use super::decoder::refused;
use super::g711::{self, G711};
use super::resample::Resampler;
use super::{AudioError, BRIDGE_RATE, Codec, SampleRate, g722};

/// Bits per second the Opus encoder is set to while nothing is lost.
pub const OPUS_BIT_RATE: u32 = 32_000;

/// And while packets are lost: the copies of FEC (RFC 6716 §2.1.7) take about a third of them.
pub const OPUS_BIT_RATE_WITH_FEC: u32 = 44_000;

/// How hard libopus works unless told otherwise, 0–10. From 4 on it weighs two ways of rounding the signal
/// against each other: on synthetic speech, which is hard for it, 0.7 PESQ better than 3 for a quarter more
/// time; the next step that is heard costs half as much again.
pub const OPUS_COMPLEXITY: u8 = 4;

/// At less reported loss libopus spends nothing on FEC.
const OPUS_LEAST_LOSS: u8 = 10;

/// Turns 24 kHz bridge samples into a leg's payloads.
#[derive(Debug)]
pub struct Encoder {
    codec: Codec,
    wire: Wire,
    resampler: Option<Resampler>,
}

#[derive(Debug)]
enum Wire {
    G711(&'static G711),
    G722(Box<g722::Encoder>),
    L16,
    Opus { encoder: opus::Encoder, lookahead: Duration },
}

impl Encoder {
    /// An encoder with silence behind it.
    ///
    /// # Errors
    /// For L16 at a rate that is not spoken, and if libopus has no memory.
    pub fn new(codec: Codec) -> Result<Self, AudioError> {
        let rate = codec.sample_rate();
        let wire = match codec {
            Codec::Pcmu => Wire::G711(&g711::MULAW),
            Codec::Pcma => Wire::G711(&g711::ALAW),
            Codec::G722 => Wire::G722(Box::default()),
            Codec::L16(_) => Wire::L16,
            Codec::Opus => opus_encoder().map_err(refused("set-up"))?,
        };
        let resampler = match rate {
            SampleRate::HZ_24000 => None,
            _ => Some(Resampler::new(SampleRate::HZ_24000, rate).ok_or(AudioError::UnsupportedRate(rate))?),
        };
        Ok(Self { codec, wire, resampler })
    }

    /// The codec this encodes.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// First stage: appends `pcm24k`, brought to the codec's own rate, to `out`. Chunks may have any size;
    /// whole 20 ms yield whole 20 ms.
    pub fn narrow(&mut self, pcm24k: &[i16], out: &mut Vec<i16>) {
        let Some(resampler) = &mut self.resampler else {
            return out.extend_from_slice(pcm24k);
        };
        resampler.process(pcm24k, out);
    }

    /// Forgets the first stage's past: the next sample narrowed does not follow the last one.
    pub fn reset_narrow(&mut self) {
        if let Some(resampler) = &mut self.resampler {
            resampler.reset();
        }
    }

    /// Second stage: appends one packet made of `native` samples (at the codec's rate) to `out` and
    /// returns its bytes.
    ///
    /// # Errors
    /// For Opus, if the samples are not 2.5, 5, 10, 20, 40 or 60 ms; for G.722, if they are odd.
    pub fn encode(&mut self, native: &[i16], out: &mut Vec<u8>) -> Result<usize, AudioError> {
        let start = out.len();
        match &mut self.wire {
            Wire::G711(law) => law.encode(native, out),
            Wire::G722(encoder) if native.len().is_multiple_of(2) => encoder.encode(native, out),
            Wire::L16 => out.extend(native.iter().flat_map(|sample| sample.to_be_bytes())),
            Wire::Opus { encoder, .. } if OPUS_FRAMES.contains(&native.len()) => {
                out.resize(start + OPUS_LARGEST, 0);
                let made = encoder.encode(native, &mut out[start..]);
                out.truncate(start + made.as_ref().copied().unwrap_or(0));
                made.map_err(refused("encoding"))?;
            }
            Wire::G722(_) | Wire::Opus { .. } => {
                return Err(AudioError::PacketSize { codec: self.codec, samples: native.len() });
            }
        }
        Ok(out.len() - start)
    }

    /// Time by which audio leaves the two stages later than it entered: the resampler's delay, and for
    /// Opus its look-ahead.
    pub fn delay(&self) -> Duration {
        let lookahead = match self.wire {
            Wire::Opus { lookahead, .. } => lookahead,
            Wire::G711(_) | Wire::G722(_) | Wire::L16 => Duration::ZERO,
        };
        lookahead + self.resampler.as_ref().map_or(Duration::ZERO, Resampler::delay)
    }

    /// Opus: how hard to work, 0–10 (default [`OPUS_COMPLEXITY`]), from the next packet on. Others ignore
    /// it.
    ///
    /// # Errors
    /// For values above 10.
    pub fn set_complexity(&mut self, complexity: u8) -> Result<(), AudioError> {
        match &mut self.wire {
            Wire::Opus { encoder, .. } => {
                encoder.set_complexity(i32::from(complexity)).map_err(refused("setting the complexity"))
            }
            Wire::G711(_) | Wire::G722(_) | Wire::L16 => Ok(()),
        }
    }

    /// Opus: share of packets the far end reports lost, in percent (0 at first). While there is loss, packets
    /// carry a coarse copy of the one before them, and more bits to pay for it; while there is none, all bits
    /// go into sound. Others ignore it.
    ///
    /// # Errors
    /// For values above 100.
    pub fn set_expected_loss(&mut self, percent: u8) -> Result<(), AudioError> {
        let Wire::Opus { encoder, .. } = &mut self.wire else { return Ok(()) };
        let expected = if percent == 0 { 0 } else { percent.max(OPUS_LEAST_LOSS) };
        let bit_rate = if percent == 0 { OPUS_BIT_RATE } else { OPUS_BIT_RATE_WITH_FEC };
        encoder.set_packet_loss_perc(i32::from(expected)).map_err(refused("setting the expected loss"))?;
        encoder
            .set_bitrate(opus::Bitrate::Bits(bit_rate.cast_signed()))
            .map_err(refused("setting the bit rate"))
    }
}

fn opus_encoder() -> Result<Wire, opus::Error> {
    let mut encoder = opus::Encoder::new(BRIDGE_RATE, opus::Channels::Mono, opus::Application::Voip)?;
    encoder.set_bitrate(opus::Bitrate::Bits(OPUS_BIT_RATE.cast_signed()))?;
    encoder.set_complexity(i32::from(OPUS_COMPLEXITY))?;
    encoder.set_signal(opus::Signal::Voice)?;
    encoder.set_inband_fec(true)?;
    let lookahead = u32::try_from(encoder.get_lookahead()?).unwrap_or(0);
    let lookahead = SampleRate::HZ_24000.duration_of(lookahead as usize);
    Ok(Wire::Opus { encoder, lookahead })
}

/// Frame sizes of Opus at 24 kHz: 2.5 to 60 ms.
const OPUS_FRAMES: [usize; 6] = [60, 120, 240, 480, 960, 1_440];

/// The largest Opus packet of one frame (RFC 6716 §3.2.1).
const OPUS_LARGEST: usize = 1_275;

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::super::FRAME_SAMPLES;
    use super::super::test_signal::{spectral_distance_db, speech_like};
    use super::super::voice::speak;
    use super::*;

    #[test]
    fn twenty_milliseconds_make_the_payload_each_codec_is_known_for() {
        let sizes = [
            (Codec::Pcmu, 160),
            (Codec::Pcma, 160),
            (Codec::G722, 160),
            (Codec::L16(SampleRate::HZ_8000), 320),
            (Codec::L16(SampleRate::HZ_16000), 640),
            (Codec::L16(SampleRate::HZ_24000), 960),
        ];
        for (codec, size) in sizes {
            let mut encoder = Encoder::new(codec).unwrap();
            let (mut native, mut payload) = (Vec::new(), vec![1]);
            encoder.narrow(&[0; FRAME_SAMPLES], &mut native);
            assert_eq!(encoder.encode(&native, &mut payload), Ok(size), "{codec}");
            assert_eq!(payload.len(), 1 + size);
        }
    }

    #[test]
    fn opus_speaks_at_about_its_bit_rate() {
        let mut encoder = Encoder::new(Codec::Opus).unwrap();
        let mut bytes = Vec::new();
        for frame in speech_like(BRIDGE_RATE, 24_000, 12_000.0).chunks_exact(FRAME_SAMPLES) {
            encoder.encode(frame, &mut bytes).unwrap();
        }
        assert!((2_500..4_500).contains(&bytes.len()), "{} bytes a second", bytes.len());
    }

    /// As it was once: half of the bits in copies that nobody needed, and coarse rounding. PESQ (wide band) then gave
    /// 3.4 for recorded speech and 2.4 for synthetic speech; now 4.4 and 3.7.
    #[test]
    fn opus_keeps_the_spectrum_of_speech_and_spends_bits_on_copies_only_while_packets_are_lost() {
        let spoken = speak("Good morning, you have reached the front desk. How can I help you today?");
        let mut encoder = Encoder::new(Codec::Opus).unwrap();
        let (clean, bytes) = through_opus(&mut encoder, &spoken);
        encoder.set_expected_loss(3).unwrap();
        let (_, with_copies) = through_opus(&mut encoder, &spoken);
        encoder.set_expected_loss(0).unwrap();
        let (_, again) = through_opus(&mut encoder, &spoken);
        assert!(with_copies > bytes * 6 / 5, "{with_copies} bytes with copies, {bytes} without");
        assert!(again < bytes * 21 / 20, "{again} bytes again, {bytes} before");

        let mut coarse = Encoder::new(Codec::Opus).unwrap();
        coarse.set_complexity(3).unwrap();
        let Wire::Opus { encoder, .. } = &mut coarse.wire else { unreachable!("it is Opus") };
        encoder.set_packet_loss_perc(10).unwrap();
        encoder.set_bitrate(opus::Bitrate::Bits(28_000)).unwrap();
        let (coarse, _) = through_opus(&mut coarse, &spoken);
        assert!(clean < 2.7 && clean < 0.9 * coarse, "{clean} dB from the original, coarsely {coarse} dB");
    }

    /// How far the spectrum is from the original's, in dB, and the bytes it took.
    fn through_opus(encoder: &mut Encoder, pcm: &[i16]) -> (f64, usize) {
        let mut decoder = Decoder::new(Codec::Opus).unwrap();
        let (mut payload, mut heard, mut bytes) = (Vec::new(), Vec::new(), 0);
        for frame in pcm.chunks_exact(FRAME_SAMPLES) {
            payload.clear();
            bytes += encoder.encode(frame, &mut payload).unwrap();
            decoder.decode(&payload, &mut heard).unwrap();
        }
        let late = SampleRate::HZ_24000.samples_in(encoder.delay());
        (spectral_distance_db(pcm, &heard[late..]), bytes)
    }

    #[test]
    fn opus_refuses_frames_it_does_not_have() {
        let mut encoder = Encoder::new(Codec::Opus).unwrap();
        let error = encoder.encode(&[0; 481], &mut Vec::new()).unwrap_err();
        assert_eq!(error, AudioError::PacketSize { codec: Codec::Opus, samples: 481 });
        assert!(encoder.set_complexity(11).is_err() && encoder.set_complexity(1).is_ok());
        assert!(encoder.set_expected_loss(101).is_err() && encoder.set_expected_loss(20).is_ok());
    }

    #[test]
    fn the_delay_is_that_of_the_filter_and_of_opus_look_ahead() {
        let delays = [Codec::Pcmu, Codec::G722, Codec::L16(SampleRate::HZ_24000), Codec::Opus]
            .map(|codec| Encoder::new(codec).unwrap().delay());
        let expected = [2_000, 1_250, 0, 6_500].map(Duration::from_micros);
        assert_eq!(delays, expected);
    }

    #[test]
    fn narrowing_does_not_depend_on_the_provider_s_chunks() {
        let pcm = speech_like(BRIDGE_RATE, 5_000, 12_000.0);
        let (mut whole, mut parts) = (Vec::new(), Vec::new());
        Encoder::new(Codec::Pcmu).unwrap().narrow(&pcm, &mut whole);
        let mut encoder = Encoder::new(Codec::Pcmu).unwrap();
        pcm.chunks(733).for_each(|chunk| encoder.narrow(chunk, &mut parts));
        assert_eq!(whole, parts);
    }
}
