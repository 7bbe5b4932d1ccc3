//! A channel's codec: payloads of 20 ms.

use crate::audio::{Codec, Decoder, Encoder};
use crate::pbx::Coding;

/// Both directions of one channel.
pub(super) enum Voice {
    /// Linear, little endian.
    Linear(u32),
    /// Anything else, at the bridge's rate.
    Coded(Box<(Encoder, Decoder)>),
}

impl Voice {
    /// # Errors
    /// In words, when the codec cannot be had.
    pub(super) fn of(coding: Coding) -> Result<Self, String> {
        let codec = match coding {
            Coding::Linear(rate) => return Ok(Self::Linear(rate)),
            Coding::Ulaw => Codec::Pcmu,
            Coding::Alaw => Codec::Pcma,
            Coding::G722 => Codec::G722,
            Coding::Opus => Codec::Opus,
        };
        let encoder = Encoder::new(codec).map_err(|error| error.to_string())?;
        let decoder = Decoder::new(codec).map_err(|error| error.to_string())?;
        Ok(Self::Coded(Box::new((encoder, decoder))))
    }

    /// Of what goes in and comes out, in Hz.
    pub(super) fn rate(&self) -> u32 {
        match self {
            Self::Linear(rate) => *rate,
            Self::Coded(_) => crate::audio::BRIDGE_RATE,
        }
    }

    /// A payload of these samples; empty when they cannot be coded.
    pub(super) fn encode(&mut self, pcm: &[i16]) -> Vec<u8> {
        match self {
            Self::Linear(_) => pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
            Self::Coded(both) => {
                let (mut native, mut payload) = (Vec::new(), Vec::new());
                both.0.narrow(pcm, &mut native);
                // What cannot be coded is not sent.
                let _ = both.0.encode(&native, &mut payload);
                payload
            }
        }
    }

    /// The samples of a payload.
    pub(super) fn decode(&mut self, payload: &[u8]) -> Vec<i16> {
        match self {
            Self::Linear(_) => {
                payload.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
            }
            Self::Coded(both) => {
                let mut pcm = Vec::new();
                // Garbage is heard as nothing.
                let _ = both.1.decode(payload, &mut pcm);
                pcm
            }
        }
    }
}
