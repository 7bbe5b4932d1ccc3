//! What the service hears: the caller's turns, by its own voice activity detection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::json;

use super::agent::{Doing, Reply};
use super::create::VadSettings;
use super::record::Record;
use super::session::{CallSession, Words};
use crate::simulate::vad::{Change, Detector, FRAME_MS};

/// The caller's audio of one call.
#[derive(Debug)]
pub(super) struct Hearing {
    rate: u32,
    detector: Detector,
    threshold: f64,
    silence_ms: u32,
    minimum_turn: Duration,
    minimum_interruption: Duration,
    /// Samples of a frame that is not complete.
    partial: Vec<i16>,
    odd: Option<u8>,
    /// Frames since speech was heard to begin.
    speech_frames: u32,
    /// The present turn, or the last one.
    turn: Vec<i16>,
    turns: usize,
    transcripts: VecDeque<Transcript>,
}

#[derive(Debug)]
struct Transcript {
    at: Instant,
    ordinal: u64,
    text: String,
}

impl Hearing {
    pub(super) fn new(rate: u32, vad: &VadSettings) -> Self {
        Self {
            rate,
            detector: Detector::new(),
            // The service's 0.1 is an ordinary sensitivity.
            threshold: 0.5 + (vad.frame_threshold - 0.1) * 0.4,
            silence_ms: u32::try_from(vad.turn_endpoint_delay.as_millis()).unwrap_or(u32::MAX),
            minimum_turn: vad.minimum_turn,
            minimum_interruption: vad.minimum_interruption,
            partial: Vec::new(),
            odd: None,
            speech_frames: 0,
            turn: Vec::new(),
            turns: 0,
            transcripts: VecDeque::new(),
        }
    }

    /// Whether the caller speaks.
    pub(super) fn speaking(&self) -> bool {
        self.detector.is_speaking()
    }

    /// The samples of the caller's last turn and their rate.
    pub(super) fn last_turn(&self) -> (&[i16], u32) {
        (&self.turn, self.rate)
    }

    pub(super) fn next_transcript(&self) -> Option<Instant> {
        self.transcripts.front().map(|transcript| transcript.at)
    }

    /// The next whole frame of what has come.
    fn frame(&mut self) -> Option<Vec<i16>> {
        let length = (self.rate * FRAME_MS / 1_000) as usize;
        (self.partial.len() >= length).then(|| self.partial.drain(..length).collect())
    }

    fn take(&mut self, mut audio: &[u8]) {
        if let (Some(low), Some((&high, rest))) = (self.odd, audio.split_first()) {
            self.partial.push(i16::from_le_bytes([low, high]));
            (self.odd, audio) = (None, rest);
        }
        let (pairs, rest) = audio.as_chunks::<2>();
        self.partial.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
        self.odd = rest.first().copied().or(self.odd);
    }
}

impl CallSession {
    pub(super) fn hear(&mut self, now: Instant, audio: &[u8]) {
        self.hearing.take(audio);
        while let Some(frame) = self.hearing.frame() {
            self.hear_frame(now, &frame);
        }
    }

    fn hear_frame(&mut self, now: Instant, frame: &[i16]) {
        let hearing = &mut self.hearing;
        let change = hearing.detector.feed(frame, hearing.threshold, hearing.silence_ms);
        if let Some(Change::Start { frames }) = change {
            hearing.speech_frames = frames;
            hearing.turn.clear();
            self.speech_started(now);
        } else if self.hearing.speaking() {
            self.hearing.speech_frames += 1;
        }
        if self.hearing.speaking() {
            if self.hearing.turn.len() < TURN_SECONDS * self.hearing.rate as usize {
                self.hearing.turn.extend_from_slice(frame);
            }
            let spoken = Duration::from_millis((self.hearing.speech_frames * FRAME_MS).into());
            if spoken >= self.hearing.minimum_interruption {
                self.interrupt(now, false);
            }
        }
        if change == Some(Change::Stop) {
            self.speech_stopped(now);
        }
    }

    fn speech_started(&mut self, now: Instant) {
        (self.idle_from, self.idle_next, self.fallback_at) = (None, 0, None);
        let audio_ms = self.heard_ms();
        self.record(now, Record::SpeechStarted { audio_ms });
        if self.request.medium.messages.user_started_speaking {
            self.emit("user_started_speaking", json!({}));
        }
        // The caller was not done: the answer waits for the rest.
        if matches!(self.doing, Doing::Thinking { reply: Reply::Turn { answers_caller: true }, .. }) {
            self.doing = Doing::Listening;
            self.set_state("listening");
        }
    }

    fn speech_stopped(&mut self, now: Instant) {
        let audio_ms = self.heard_ms();
        self.record(now, Record::SpeechStopped { audio_ms });
        if self.request.medium.messages.user_stopped_speaking {
            self.emit("user_stopped_speaking", json!({}));
        }
        let spoken = self.hearing.speech_frames * FRAME_MS;
        let spoken = Duration::from_millis(spoken.saturating_sub(self.hearing.silence_ms).into());
        if spoken < self.hearing.minimum_turn {
            return self.idle_again(now);
        }
        let text = self.behaviour.script.hears(self.hearing.turns);
        self.hearing.turns += 1;
        self.totals.turns += 1;
        let at = now + self.behaviour.transcription_latency;
        let ordinal = self.ordinal();
        self.hearing.transcripts.push_back(Transcript { at, ordinal, text });
        self.think_soon(now, Reply::Turn { answers_caller: true });
    }

    fn idle_again(&mut self, now: Instant) {
        if matches!(self.doing, Doing::Listening) {
            self.listen(now);
        }
    }

    pub(super) fn run_transcripts(&mut self, now: Instant) {
        while self.hearing.next_transcript().is_some_and(|at| at <= now) {
            let Some(Transcript { ordinal, text, .. }) = self.hearing.transcripts.pop_front() else { return };
            self.transcript("user", "voice", ordinal, Words::Text(&text, true));
            self.note_message("MESSAGE_ROLE_USER", &text, "voice", |_| {});
        }
    }
}

/// As much of a turn as is kept for an echo.
const TURN_SECONDS: usize = 30;
