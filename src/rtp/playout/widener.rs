//! What was sent, for whoever records it.

use std::ops::Range;

use crate::audio::{AudioError, Codec, Decoder};
use crate::rtp::playout::Samples;

/// Brings audio in queued form back to the bridge's rate.
#[derive(Debug)]
pub struct Widener {
    decoder: Decoder,
    bytes: Vec<u8>,
}

impl Widener {
    /// For audio queued for `codec`.
    ///
    /// # Errors
    /// When there is no such codec.
    pub fn new(codec: Codec) -> Result<Self, AudioError> {
        let queued = if codec.is_g711() { codec } else { Codec::L16(codec.sample_rate()) };
        Ok(Self { decoder: Decoder::new(queued)?, bytes: Vec::new() })
    }

    /// Appends a part of `samples` at 24 kHz to `out`.
    pub fn widen(&mut self, samples: &Samples, range: Range<usize>, out: &mut Vec<i16>) {
        const CHUNK: usize = 960;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + CHUNK);
            let payload = match samples {
                Samples::Mu(bytes) | Samples::A(bytes) => &bytes[at..end],
                Samples::Linear(pcm) => {
                    self.bytes.clear();
                    self.bytes.extend(pcm[at..end].iter().flat_map(|sample| sample.to_be_bytes()));
                    &self.bytes
                }
            };
            // Whole samples of a short packet: the decoder has no reason to refuse them.
            if self.decoder.decode(payload, out).is_err() {
                out.resize(out.len() + (end - at), 0);
            }
            at = end;
        }
    }
}
