//! The input audio buffer: what the client appended and nobody committed, and where speech is in it.
//!
//! Its clock is the audio written, not the time of day: a client that stops appending stops this clock.

use std::sync::Arc;

use super::detection::{DetectionKind, TurnDetection};
use super::format::AudioFormat;
use super::vad::{Change, Detector, FRAME_MS};

/// A change of the caller's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Speech began; the time includes the prefix padding.
    Started {
        /// Audio written before.
        audio_start_ms: u64,
    },
    /// Speech ended; the time includes the silence that proved it.
    Stopped {
        /// Audio written before.
        audio_end_ms: u64,
    },
}

/// Audio that became a turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// Its samples, oldest first.
    pub audio: Arc<[i16]>,
    /// Samples per second.
    pub rate: u32,
}

/// Samples not committed yet, in the format they came in.
#[derive(Debug)]
pub struct InputBuffer {
    format: AudioFormat,
    /// Audio written in formats used before this one.
    earlier_ms: u64,
    /// Samples written in this format.
    written: u64,
    /// Samples the detector has seen.
    scanned: u64,
    /// Where the buffer begins: after the last commit or clear.
    begin: u64,
    /// Where the turn in progress begins, prefix included.
    turn: Option<u64>,
    kept: Vec<i16>,
    detector: Detector,
}

impl InputBuffer {
    /// An empty buffer.
    pub const fn new(format: AudioFormat) -> Self {
        Self {
            format,
            earlier_ms: 0,
            written: 0,
            scanned: 0,
            begin: 0,
            turn: None,
            kept: Vec::new(),
            detector: Detector::new(),
        }
    }

    /// Audio written since the session began.
    pub fn written_ms(&self) -> u64 {
        self.earlier_ms + self.ms(self.written)
    }

    /// Audio written since the last commit or clear.
    pub fn buffered_ms(&self) -> u64 {
        self.ms(self.written - self.begin)
    }

    /// Where the buffer begins, on the clock of audio written.
    pub fn begin_ms(&self) -> u64 {
        self.earlier_ms + self.ms(self.begin)
    }

    /// Whether the caller is speaking.
    pub const fn in_speech(&self) -> bool {
        self.turn.is_some()
    }

    /// Reads what comes next in another format. Uncommitted audio is lost.
    pub fn set_format(&mut self, format: AudioFormat) {
        if format != self.format {
            *self = Self { earlier_ms: self.written_ms(), ..Self::new(format) };
        }
    }

    /// Starts detection afresh, as after a change of its settings.
    pub fn reset_detection(&mut self) {
        self.detector = Detector::new();
        self.turn = None;
        self.scanned = self.written;
    }

    /// Appends audio; `false` when the bytes end inside a sample.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let before = self.kept.len();
        self.format.decode(bytes, &mut self.kept);
        self.written += (self.kept.len() - before) as u64;
        bytes.len().is_multiple_of(self.format.width())
    }

    /// Looks for the next change in what was appended. Call until `None`.
    pub fn scan(&mut self, detection: Option<&TurnDetection>) -> Option<Heard> {
        let Some(detection) = detection else {
            self.scanned = self.written;
            self.trim(MANUAL_KEPT_MS);
            return None;
        };
        let threshold = match detection.kind {
            DetectionKind::Server { threshold, .. } => threshold,
            DetectionKind::Semantic { .. } => 0.5,
        };
        let frame = self.samples(FRAME_MS);
        while self.written - self.scanned >= frame {
            let from = self.kept.len() - (self.written - self.scanned) as usize;
            let samples = &self.kept[from..from + frame as usize];
            let change = self.detector.feed(samples, threshold, detection.silence_ms());
            self.scanned += frame;
            match change {
                Some(Change::Start { frames }) => return Some(self.start(frames, detection)),
                Some(Change::Stop) => {
                    return Some(Heard::Stopped { audio_end_ms: self.earlier_ms + self.ms(self.scanned) });
                }
                None => {}
            }
        }
        if self.turn.is_none() {
            self.trim(detection.prefix_padding_ms() + 500);
        }
        None
    }

    /// Takes the turn the detector found, or with `all` everything buffered.
    pub fn commit(&mut self, all: bool) -> Committed {
        let end = if all { self.written } else { self.scanned };
        let first_kept = self.written - self.kept.len() as u64;
        let begin = self.turn.filter(|_| !all).unwrap_or(self.begin).max(first_kept);
        let range = (begin - first_kept) as usize..(end - first_kept) as usize;
        let audio = self.kept[range].into();
        self.forget_until(end);
        Committed { audio, rate: self.format.rate() }
    }

    /// Forgets everything buffered.
    pub fn clear(&mut self) {
        self.forget_until(self.written);
        self.reset_detection();
    }

    fn start(&mut self, frames: u32, detection: &TurnDetection) -> Heard {
        let back = self.samples(frames * FRAME_MS + detection.prefix_padding_ms());
        let begin = self.scanned.saturating_sub(back).max(self.begin);
        self.turn = Some(begin);
        Heard::Started { audio_start_ms: self.earlier_ms + self.ms(begin) }
    }

    fn forget_until(&mut self, end: u64) {
        let keep = (self.written - end) as usize;
        self.kept.drain(..self.kept.len() - keep);
        self.begin = end;
        self.turn = None;
    }

    /// Drops the oldest audio once there is twice as much of it as wanted.
    fn trim(&mut self, keep_ms: u32) {
        let keep = self.samples(keep_ms) as usize;
        if self.kept.len() > 2 * keep {
            self.kept.drain(..self.kept.len() - keep);
        }
    }

    fn samples(&self, ms: u32) -> u64 {
        u64::from(ms) * u64::from(self.format.rate()) / 1_000
    }

    fn ms(&self, samples: u64) -> u64 {
        samples * 1_000 / u64::from(self.format.rate())
    }
}

/// What a client without turn detection can have uncommitted before the oldest is dropped.
const MANUAL_KEPT_MS: u32 = 10 * 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn speech(ms: usize) -> Vec<u8> {
        let sample = |n: usize| if n % 40 < 20 { 4_000i16 } else { -4_000 };
        (0..ms * 24).flat_map(|n| sample(n).to_le_bytes()).collect()
    }

    #[test]
    fn a_turn_is_its_speech_with_padding_and_silence() {
        let mut buffer = InputBuffer::new(AudioFormat::Pcm);
        let detection = TurnDetection::DEFAULT;
        let mut heard = Vec::new();
        for bytes in [vec![0; 48_000], speech(1_000), vec![0; 48_000]] {
            for chunk in bytes.chunks(1_000) {
                assert!(buffer.append(chunk));
                while let Some(change) = buffer.scan(Some(&detection)) {
                    heard.push(change);
                    if matches!(change, Heard::Stopped { .. }) {
                        assert_eq!(buffer.commit(false).audio.len(), 1_800 * 24);
                    }
                }
            }
        }
        let expected = [Heard::Started { audio_start_ms: 700 }, Heard::Stopped { audio_end_ms: 2_500 }];
        assert_eq!(heard, expected);
        assert_eq!(buffer.written_ms(), 3_000);
        assert_eq!(buffer.buffered_ms(), 500);
    }

    #[test]
    fn without_detection_everything_waits_for_the_commit() {
        let mut buffer = InputBuffer::new(AudioFormat::Pcmu);
        buffer.append(&[0xff; 800]);
        assert_eq!(buffer.scan(None), None);
        assert_eq!(buffer.buffered_ms(), 100);
        assert_eq!(buffer.commit(true).audio.len(), 800);
        assert_eq!(buffer.buffered_ms(), 0);
        assert!(InputBuffer::new(AudioFormat::Pcm).append(&[0; 4]));
        assert!(!InputBuffer::new(AudioFormat::Pcm).append(&[0; 3]));
    }

    #[test]
    fn the_clock_goes_on_when_the_format_changes() {
        let mut buffer = InputBuffer::new(AudioFormat::Pcm);
        buffer.append(&[0; 4_800]);
        buffer.set_format(AudioFormat::Pcma);
        buffer.append(&[0xd5; 800]);
        assert_eq!(buffer.written_ms(), 200);
    }
}
