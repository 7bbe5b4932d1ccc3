//! Audio in the form in which it waits to be sent: one byte a sample for G.711, else linear.

use std::ops::Range;

use crate::audio::Codec;
use crate::audio::g711::{ALAW, MULAW};

/// Samples at the codec's own rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Samples {
    /// PCMU, ready for the wire.
    Mu(Vec<u8>),
    /// PCMA, ready for the wire.
    A(Vec<u8>),
    /// 16-bit linear.
    Linear(Vec<i16>),
}

impl Samples {
    /// An empty buffer of the form that `codec` is queued in.
    pub fn of(codec: Codec) -> Self {
        match codec {
            Codec::Pcmu => Self::Mu(Vec::new()),
            Codec::Pcma => Self::A(Vec::new()),
            Codec::G722 | Codec::Opus | Codec::L16(_) => Self::Linear(Vec::new()),
        }
    }

    /// How many samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Mu(bytes) | Self::A(bytes) => bytes.len(),
            Self::Linear(pcm) => pcm.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all samples, and gives back the memory of a long answer.
    pub fn clear(&mut self) {
        match self {
            Self::Mu(bytes) | Self::A(bytes) => {
                bytes.clear();
                bytes.shrink_to(STEP);
            }
            Self::Linear(pcm) => {
                pcm.clear();
                pcm.shrink_to(STEP);
            }
        }
    }

    /// Grows by steps: doubling would hold twice what a call needs, times all calls.
    fn make_room(&mut self, more: usize) {
        let (len, capacity) = match self {
            Self::Mu(bytes) | Self::A(bytes) => (bytes.len(), bytes.capacity()),
            Self::Linear(pcm) => (pcm.len(), pcm.capacity()),
        };
        if len + more <= capacity {
            return;
        }
        let wanted = (len + more).next_multiple_of(STEP) - len;
        match self {
            Self::Mu(bytes) | Self::A(bytes) => bytes.reserve_exact(wanted),
            Self::Linear(pcm) => pcm.reserve_exact(wanted),
        }
    }

    /// Drops the first `count` samples.
    pub fn discard_front(&mut self, count: usize) {
        match self {
            Self::Mu(bytes) | Self::A(bytes) => drop(bytes.drain(..count)),
            Self::Linear(pcm) => drop(pcm.drain(..count)),
        }
    }

    /// Appends linear samples.
    pub fn extend(&mut self, pcm: &[i16]) {
        self.make_room(pcm.len());
        match self {
            Self::Mu(bytes) => MULAW.encode(pcm, bytes),
            Self::A(bytes) => ALAW.encode(pcm, bytes),
            Self::Linear(all) => all.extend_from_slice(pcm),
        }
    }

    /// Appends a part of a buffer, of the same form.
    pub fn extend_from(&mut self, other: &Self, range: Range<usize>) {
        match (self, other) {
            (Self::Mu(to), Self::Mu(from)) | (Self::A(to), Self::A(from)) => {
                to.extend_from_slice(&from[range]);
            }
            (Self::Linear(to), Self::Linear(from)) => to.extend_from_slice(&from[range]),
            (to, from) => range.for_each(|at| to.push(from.get(at))),
        }
    }

    /// Appends silence up to `len` samples.
    pub fn pad(&mut self, len: usize) {
        match self {
            Self::Mu(bytes) => bytes.resize(len, MULAW.silence()),
            Self::A(bytes) => bytes.resize(len, ALAW.silence()),
            Self::Linear(pcm) => pcm.resize(len, 0),
        }
    }

    /// Appends one linear sample.
    pub fn push(&mut self, sample: i16) {
        self.extend(&[sample]);
    }

    /// The sample at `at`, linear.
    pub fn get(&self, at: usize) -> i16 {
        match self {
            Self::Mu(bytes) => MULAW.decode_one(bytes[at]),
            Self::A(bytes) => ALAW.decode_one(bytes[at]),
            Self::Linear(pcm) => pcm[at],
        }
    }

    /// The last sample, linear; 0 if there is none.
    pub fn last(&self) -> i16 {
        self.len().checked_sub(1).map_or(0, |at| self.get(at))
    }

    /// Multiplies a part with a gain that goes evenly from `from`, just before it, to `to` at its end.
    pub fn ramp(&mut self, range: Range<usize>, from: f32, to: f32) {
        let steps = range.len() as f32;
        for (step, at) in range.enumerate() {
            let gain = from + (to - from) * (step + 1) as f32 / steps;
            let sample = (f32::from(self.get(at)) * gain) as i16;
            match self {
                Self::Mu(bytes) => bytes[at] = MULAW.encode_one(sample),
                Self::A(bytes) => bytes[at] = ALAW.encode_one(sample),
                Self::Linear(pcm) => pcm[at] = sample,
            }
        }
    }

    /// Appends a part, linear.
    pub fn copy_linear(&self, range: Range<usize>, out: &mut Vec<i16>) {
        match self {
            Self::Linear(pcm) => out.extend_from_slice(&pcm[range]),
            Self::Mu(_) | Self::A(_) => out.extend(range.map(|at| self.get(at))),
        }
    }
}

/// Samples by which a buffer grows: half a second of telephone audio.
const STEP: usize = 4096;
