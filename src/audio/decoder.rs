//! From payloads to the bridge: one decoder per received stream.
//!
//! The stream's codec, its resampler and its concealment live together because they share one time line:
//! what is concealed must pass through the same filter, and be the past of the next packet.

use std::time::Duration;

use super::g711::{self, G711};
use super::plc::Concealer;
use super::resample::Resampler;
use super::{AudioError, BRIDGE_RATE, Codec, MAX_PACKET, SampleRate, g722};

/// Turns a leg's payloads into 24 kHz bridge samples and fills what is lost.
///
/// Every method appends exactly the time it is given, so that samples appended and RTP time stay equal.
/// Counts of 24 kHz samples are taken to whole samples of the codec (rounded down); any span of the
/// codec's RTP clock is one.
#[derive(Debug)]
pub struct Decoder {
    codec: Codec,
    wire: Wire,
    resampler: Option<Resampler>,
    /// Samples at the codec's rate, between its stages.
    native: Vec<i16>,
}

#[derive(Debug)]
enum Wire {
    G711(&'static G711, Concealer),
    G722(Box<g722::Decoder>, Concealer),
    L16(Concealer),
    Opus(Opus),
}

impl Decoder {
    /// A decoder with silence behind it.
    ///
    /// # Errors
    /// For L16 at a rate that is not spoken, and if libopus has no memory.
    pub fn new(codec: Codec) -> Result<Self, AudioError> {
        let rate = codec.sample_rate();
        let wire = match codec {
            Codec::Pcmu => Wire::G711(&g711::MULAW, Concealer::new(rate)),
            Codec::Pcma => Wire::G711(&g711::ALAW, Concealer::new(rate)),
            Codec::G722 => Wire::G722(Box::default(), Concealer::new(rate)),
            Codec::L16(_) => Wire::L16(Concealer::new(rate)),
            Codec::Opus => Wire::Opus(Opus::new()?),
        };
        Ok(Self { codec, wire, resampler: bridge_resampler(rate)?, native: Vec::new() })
    }

    /// The codec this decodes.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Appends the payload's samples at 24 kHz to `out`; returns how many. An empty payload is none.
    ///
    /// # Errors
    /// For a payload that is not of the codec or longer than [`MAX_PACKET`]; nothing is appended then and
    /// the packet is best concealed.
    pub fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) -> Result<usize, AudioError> {
        if payload.is_empty() {
            return Ok(0);
        }
        self.check_length(payload)?;
        self.native.clear();
        match &mut self.wire {
            Wire::Opus(opus) => return opus.decode(payload, out),
            Wire::G711(law, concealer) => {
                law.decode(payload, &mut self.native);
                concealer.heard(&mut self.native);
            }
            Wire::G722(decoder, concealer) => {
                decoder.decode(payload, &mut self.native);
                concealer.heard(&mut self.native);
            }
            Wire::L16(concealer) => {
                let (pairs, rest) = payload.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err(AudioError::HalfSample(payload.len()));
                }
                self.native.extend(pairs.iter().map(|pair| i16::from_be_bytes(*pair)));
                concealer.heard(&mut self.native);
            }
        }
        Ok(self.widen(out))
    }

    /// Appends `samples_24k` samples in place of lost ones: what was heard goes on, fades, and is zero
    /// after 60 ms. Calls without a decoded packet between them are one gap.
    pub fn conceal(&mut self, samples_24k: usize, out: &mut Vec<i16>) {
        let native = self.native_samples(samples_24k);
        self.native.clear();
        match &mut self.wire {
            Wire::Opus(opus) => return opus.conceal(samples_24k, out),
            Wire::G711(_, concealer) | Wire::G722(_, concealer) | Wire::L16(concealer) => {
                concealer.conceal(native, &mut self.native);
            }
        }
        self.widen(out);
    }

    /// Like [`Decoder::conceal`], but with the packet after the gap at hand: Opus may carry a coarse copy
    /// of the last lost frame in it (in-band FEC, RFC 6716 §2.1.7). Does not decode `next` itself.
    pub fn recover(&mut self, samples_24k: usize, next: &[u8], out: &mut Vec<i16>) {
        match &mut self.wire {
            Wire::Opus(opus) => opus.recover(samples_24k, next, out),
            Wire::G711(..) | Wire::G722(..) | Wire::L16(_) => self.conceal(samples_24k, out),
        }
    }

    /// Appends `samples_24k` samples of silence: the sender stopped on purpose (DTX, mute, hold).
    pub fn silence(&mut self, samples_24k: usize, out: &mut Vec<i16>) {
        let native = self.native_samples(samples_24k);
        self.native.clear();
        match &mut self.wire {
            Wire::Opus(opus) => opus.silence(),
            Wire::G711(_, concealer) | Wire::G722(_, concealer) | Wire::L16(concealer) => {
                concealer.silence(native);
            }
        }
        self.native.resize(native, 0);
        self.widen(out);
    }

    /// Samples at 24 kHz that `payload` stands for, without decoding it; 0 if it cannot be told.
    pub fn payload_duration(&self, payload: &[u8]) -> usize {
        let bridge = BRIDGE_RATE as usize;
        match self.codec {
            Codec::Pcmu | Codec::Pcma | Codec::G722 => payload.len() * bridge / 8_000,
            Codec::L16(rate) => payload.len() / 2 * bridge / rate.hz() as usize,
            Codec::Opus if payload.is_empty() => 0,
            Codec::Opus => opus::packet::get_nb_samples(payload, BRIDGE_RATE).unwrap_or(0),
        }
    }

    /// Time by which samples come out later than they went in: the resampler's delay.
    pub fn delay(&self) -> Duration {
        self.resampler.as_ref().map_or(Duration::ZERO, Resampler::delay)
    }

    fn check_length(&self, payload: &[u8]) -> Result<(), AudioError> {
        let length = SampleRate::HZ_24000.duration_of(self.payload_duration(payload));
        if length > MAX_PACKET { Err(AudioError::PacketTooLong(length)) } else { Ok(()) }
    }

    fn native_samples(&self, samples_24k: usize) -> usize {
        (samples_24k as u64 * u64::from(self.codec.sample_rate().hz()) / u64::from(BRIDGE_RATE)) as usize
    }

    /// Brings the native samples to the bridge.
    fn widen(&mut self, out: &mut Vec<i16>) -> usize {
        match &mut self.resampler {
            Some(resampler) => resampler.process(&self.native, out),
            None => {
                out.extend_from_slice(&self.native);
                self.native.len()
            }
        }
    }
}

/// The resampler a codec of this rate needs in front of the bridge; none at the bridge's own.
fn bridge_resampler(rate: SampleRate) -> Result<Option<Resampler>, AudioError> {
    if rate == SampleRate::HZ_24000 {
        return Ok(None);
    }
    Resampler::new(rate, SampleRate::HZ_24000).map(Some).ok_or(AudioError::UnsupportedRate(rate))
}

/// libopus at 24 kHz, with its own concealment.
#[derive(Debug)]
struct Opus {
    decoder: opus::Decoder,
    /// Samples concealed since the last packet.
    concealed: usize,
}

impl Opus {
    fn new() -> Result<Self, AudioError> {
        let decoder = opus::Decoder::new(BRIDGE_RATE, opus::Channels::Mono).map_err(refused("set-up"))?;
        Ok(Self { decoder, concealed: 0 })
    }

    fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) -> Result<usize, AudioError> {
        let samples = opus::packet::get_nb_samples(payload, BRIDGE_RATE).map_err(refused("decoding"))?;
        let start = out.len();
        out.resize(start + samples, 0);
        match self.decoder.decode(payload, &mut out[start..], false) {
            Ok(made) => {
                self.concealed = 0;
                out.truncate(start + made);
                Ok(made)
            }
            Err(error) => {
                out.truncate(start);
                Err(refused("decoding")(error))
            }
        }
    }

    fn conceal(&mut self, samples: usize, out: &mut Vec<i16>) {
        self.extrapolate(&[], samples, out);
    }

    fn recover(&mut self, samples: usize, next: &[u8], out: &mut Vec<i16>) {
        let recovered = opus::packet::get_samples_per_frame(next, BRIDGE_RATE).unwrap_or(0).min(samples);
        self.conceal(samples - recovered, out);
        self.concealed = 0;
        self.extrapolate(next, recovered, out);
    }

    /// Appends `samples` from libopus' concealment, or from the copy in `next` if it is not empty. What
    /// it cannot make is silent.
    fn extrapolate(&mut self, next: &[u8], samples: usize, out: &mut Vec<i16>) {
        let start = out.len();
        let audible = samples.min(SILENT_AFTER.saturating_sub(self.concealed));
        // libopus makes whole steps of 2.5 ms; the surplus is cut off.
        out.resize(start + audible.next_multiple_of(OPUS_STEP), 0);
        if audible > 0 && self.decoder.decode(next, &mut out[start..], !next.is_empty()).is_err() {
            out[start..].fill(0);
        }
        out.truncate(start + audible);
        for (index, sample) in out[start..].iter_mut().enumerate() {
            let late = (self.concealed + index).saturating_sub(FADE_AFTER) as f32;
            *sample = (f32::from(*sample) * (1.0 - late / (SILENT_AFTER - FADE_AFTER) as f32)) as i16;
        }
        out.resize(start + samples, 0);
        self.concealed += samples;
    }

    fn silence(&mut self) {
        self.concealed = SILENT_AFTER;
    }
}

/// libopus' smallest frame at 24 kHz.
const OPUS_STEP: usize = 60;

/// libopus lowers the level by itself; these make sure it is zero at 60 ms, as for the other codecs.
const FADE_AFTER: usize = 960;
const SILENT_AFTER: usize = 1_440;

/// Says what libopus refused to do.
pub(super) fn refused(doing: &'static str) -> impl Fn(opus::Error) -> AudioError {
    move |error| AudioError::Opus { doing, reason: error.description() }
}

#[cfg(test)]
mod tests {
    use super::super::test_signal::{Noise, level_db, speech_like, tone};
    use super::super::{Encoder, FRAME_SAMPLES};
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
    fn a_frame_through_any_codec_is_a_frame_again() {
        for codec in ALL {
            let mut decoder = Decoder::new(codec).unwrap();
            for packet in packets(codec, &tone(440.0, BRIDGE_RATE, 4_800, 8_000.0)) {
                assert_eq!(decoder.payload_duration(&packet), FRAME_SAMPLES, "{codec}");
                let mut out = vec![7];
                assert_eq!(decoder.decode(&packet, &mut out), Ok(FRAME_SAMPLES), "{codec}");
                assert_eq!(out.len(), 1 + FRAME_SAMPLES);
            }
        }
    }

    #[test]
    fn a_tone_keeps_its_level_through_every_codec() {
        let input = tone(1_000.0, BRIDGE_RATE, 24_000, 8_000.0);
        for codec in ALL {
            let mut decoder = Decoder::new(codec).unwrap();
            let mut out = Vec::new();
            for packet in packets(codec, &input) {
                decoder.decode(&packet, &mut out).unwrap();
            }
            let change = level_db(&out[2_400..]) - level_db(&input);
            assert!(change.abs() < 0.5, "{codec}: {change} dB");
        }
    }

    #[test]
    fn a_gap_has_exactly_the_samples_asked_for_and_fades_to_zero_by_60_ms() {
        for codec in ALL {
            let mut decoder = Decoder::new(codec).unwrap();
            let mut heard = Vec::new();
            for packet in packets(codec, &speech_like(BRIDGE_RATE, 12_000, 12_000.0)) {
                decoder.decode(&packet, &mut heard).unwrap();
            }
            let mut gap = Vec::new();
            (0..10).for_each(|_| decoder.conceal(FRAME_SAMPLES, &mut gap));
            assert_eq!(gap.len(), 10 * FRAME_SAMPLES, "{codec}");
            // The resampler's tail is over 4 ms after its input.
            assert!(gap[1_440 + 100..].iter().all(|sample| *sample == 0), "{codec}");
        }
    }

    #[test]
    fn a_lost_frame_of_a_tone_is_filled_with_the_tone() {
        // A pure tone is not what libopus' concealment of speech is made for.
        for codec in ALL.into_iter().filter(|codec| *codec != Codec::Opus) {
            let mut decoder = Decoder::new(codec).unwrap();
            let mut out = Vec::new();
            let packets = packets(codec, &tone(200.0, BRIDGE_RATE, 24_000, 8_000.0));
            for (index, packet) in packets.iter().enumerate() {
                match index {
                    30 => decoder.conceal(FRAME_SAMPLES, &mut out),
                    _ => assert_eq!(decoder.decode(packet, &mut out), Ok(FRAME_SAMPLES)),
                }
            }
            let filled = level_db(&out[30 * FRAME_SAMPLES + 60..31 * FRAME_SAMPLES]);
            let usual = level_db(&out[20 * FRAME_SAMPLES..29 * FRAME_SAMPLES]);
            assert!((filled - usual).abs() < 3.0, "{codec}: {filled} and {usual} dB");
        }
    }

    #[test]
    fn silence_counts_samples_and_is_silent_after_the_filters_tail() {
        for codec in ALL {
            let mut decoder = Decoder::new(codec).unwrap();
            let mut out = Vec::new();
            decoder.decode(&packets(codec, &speech_like(BRIDGE_RATE, 480, 9_000.0))[0], &mut out).unwrap();
            out.clear();
            decoder.silence(960, &mut out);
            assert_eq!(out.len(), 960);
            assert!(out[100..].iter().all(|sample| *sample == 0), "{codec}");
        }
    }

    #[test]
    fn opus_recovers_a_lost_frame_from_the_next_packet() {
        let mut encoder = Encoder::new(Codec::Opus).unwrap();
        encoder.set_expected_loss(10).unwrap();
        let packets = packets_of(&mut encoder, &speech_like(BRIDGE_RATE, 36_000, 12_000.0));
        let whole = heard_by_opus(&packets, |_, _, _| false);
        let concealed = heard_by_opus(&packets, |decoder, _, out| {
            decoder.conceal(FRAME_SAMPLES, out);
            true
        });
        let recovered = heard_by_opus(&packets, |decoder, next, out| {
            decoder.recover(FRAME_SAMPLES, next, out);
            true
        });
        let error = |heard: &[i16]| {
            let error: Vec<i16> = whole.iter().zip(heard).map(|(a, b)| a.saturating_sub(*b)).collect();
            level_db(&error)
        };
        assert_eq!(recovered.len(), whole.len());
        let (concealed, recovered) = (error(&concealed), error(&recovered));
        assert!(recovered < concealed - 3.0, "recovered {recovered} dB, concealed {concealed} dB");
    }

    /// Decodes all packets but lets `lose` fill in for every tenth.
    fn heard_by_opus(
        packets: &[Vec<u8>],
        mut lose: impl FnMut(&mut Decoder, &[u8], &mut Vec<i16>) -> bool,
    ) -> Vec<i16> {
        let mut decoder = Decoder::new(Codec::Opus).unwrap();
        let mut out = Vec::new();
        for (index, packet) in packets.iter().enumerate() {
            if index % 10 != 7 || !lose(&mut decoder, &packets[index + 1], &mut out) {
                decoder.decode(packet, &mut out).unwrap();
            }
        }
        out
    }

    #[test]
    fn bad_payloads_are_errors_that_append_nothing() {
        let mut out = Vec::new();
        let mut l16 = Decoder::new(Codec::L16(SampleRate::HZ_16000)).unwrap();
        assert_eq!(l16.decode(&[1, 2, 3], &mut out), Err(AudioError::HalfSample(3)));
        let mut pcmu = Decoder::new(Codec::Pcmu).unwrap();
        let error = pcmu.decode(&[0xff; 8_000], &mut out).unwrap_err();
        assert_eq!(error.to_string(), "a packet of 1s is longer than the 400ms a decoder accepts");
        let mut opus = Decoder::new(Codec::Opus).unwrap();
        assert!(opus.decode(&[0xff], &mut out).is_err());
        assert_eq!(pcmu.decode(&[], &mut out), Ok(0));
        assert!(out.is_empty());
        let odd = SampleRate::new(11_025).unwrap();
        assert_eq!(Decoder::new(Codec::L16(odd)).unwrap_err(), AudioError::UnsupportedRate(odd));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic() {
        let mut noise = Noise::new(1);
        for codec in ALL {
            let mut decoder = Decoder::new(codec).unwrap();
            let mut out = Vec::new();
            for length in 0..200 {
                let payload: Vec<u8> = (0..length).map(|_| (noise.next() * 128.0) as i8 as u8).collect();
                // Whether it is an error does not matter, only that there is an answer.
                let _answer = decoder.decode(&payload, &mut out);
                decoder.recover(length, &payload, &mut out);
            }
        }
    }

    #[test]
    fn l16_is_big_endian() {
        let mut out = Vec::new();
        let mut decoder = Decoder::new(Codec::L16(SampleRate::HZ_24000)).unwrap();
        decoder.decode(&[0x12, 0x34, 0xff, 0xfe], &mut out).unwrap();
        assert_eq!(out, [0x1234, -2]);
    }

    fn packets(codec: Codec, pcm: &[i16]) -> Vec<Vec<u8>> {
        packets_of(&mut Encoder::new(codec).unwrap(), pcm)
    }

    fn packets_of(encoder: &mut Encoder, pcm: &[i16]) -> Vec<Vec<u8>> {
        let pack = |frame: &[i16]| {
            let (mut native, mut payload) = (Vec::new(), Vec::new());
            encoder.narrow(frame, &mut native);
            encoder.encode(&native, &mut payload).unwrap();
            payload
        };
        pcm.chunks_exact(FRAME_SAMPLES).map(pack).collect()
    }
}
