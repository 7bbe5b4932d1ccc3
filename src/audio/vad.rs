//! Voice activity: when does somebody start to speak, and when have they stopped?
//!
//! Speech is what stands out of the noise floor, which is learnt while the line is quiet. This is no
//! classifier: music is speech to it. It is small, has no warm-up and is the same on every machine, which
//! is what the scripted provider and the simulators need.

use super::{SampleRate, level};

/// How eager a [`Detector`] is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Level over the noise floor that counts as speech, in dB.
    pub margin_db: f32,
    /// Level below which nothing is speech, in dBov.
    pub least_dbov: f32,
    /// Speech it takes to begin an utterance, in milliseconds.
    pub min_speech_ms: u32,
    /// Silence it takes to end one, in milliseconds.
    pub silence_ms: u32,
    /// Audio before the first loud block that still belongs to the utterance, in milliseconds.
    pub prefix_ms: u32,
}

impl Default for Settings {
    /// 12 dB over the floor and at least -45 dBov; 60 ms of speech, 500 ms of silence, 300 ms of prefix.
    fn default() -> Self {
        Self { margin_db: 12.0, least_dbov: -45.0, min_speech_ms: 60, silence_ms: 500, prefix_ms: 300 }
    }
}

impl Settings {
    /// Takes a threshold from 0 to 1, as realtime providers have it, in place of the margin and the least
    /// level: 0.5 is the default, 1 needs speech to be 16 dB louder, 0 takes it 16 dB softer.
    pub fn with_threshold(self, threshold: f32) -> Self {
        let shift = (threshold.clamp(0.0, 1.0) - 0.5) * 32.0;
        let default = Self::default();
        let margin_db = (default.margin_db + shift).max(4.0);
        Self { margin_db, least_dbov: default.least_dbov + shift, ..self }
    }
}

/// An utterance begins or ends. Positions count the samples fed since the detector was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Somebody is speaking.
    Start {
        /// Where the utterance begins, its prefix included, but never before the end of the last one.
        at: u64,
        /// The position by which this was certain.
        noticed: u64,
    },
    /// They have stopped.
    End {
        /// Where the last speech was heard.
        at: u64,
        /// The position by which this was certain: the silence asked for later.
        noticed: u64,
    },
}

/// Finds utterances in a stream of audio.
#[derive(Debug, Clone)]
pub struct Detector {
    settings: Settings,
    /// Samples in a millisecond and in a block.
    per_ms: u64,
    block: usize,
    pending: Vec<i16>,
    /// Samples in finished blocks.
    position: u64,
    floor_dbov: f32,
    state: State,
    /// End of the last utterance.
    last_end: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// With the loud blocks of the last moment, less the soft ones.
    Quiet { loud_ms: u32, since: u64 },
    /// With the end of the last loud block.
    Speaking { last_loud: u64 },
}

impl Detector {
    /// A detector for samples at `rate`.
    pub fn new(rate: SampleRate, settings: Settings) -> Self {
        let per_ms = u64::from(rate.hz() / 1_000).max(1);
        Self {
            settings,
            per_ms,
            block: per_ms as usize * BLOCK_MS as usize,
            pending: Vec::new(),
            position: 0,
            floor_dbov: FIRST_FLOOR_DBOV,
            state: State::Quiet { loud_ms: 0, since: 0 },
            last_end: 0,
        }
    }

    /// Listens to `samples` (any number) and appends what it noticed to `edges`.
    pub fn feed(&mut self, mut samples: &[i16], edges: &mut Vec<Edge>) {
        if !self.pending.is_empty() {
            let missing = (self.block - self.pending.len()).min(samples.len());
            let (now, later) = samples.split_at(missing);
            self.pending.extend_from_slice(now);
            samples = later;
            if self.pending.len() < self.block {
                return;
            }
            let level = level::dbov(&self.pending);
            self.pending.clear();
            edges.extend(self.take_in(level));
        }
        let blocks = samples.chunks_exact(self.block);
        self.pending.extend_from_slice(blocks.remainder());
        for block in blocks {
            edges.extend(self.take_in(level::dbov(block)));
        }
    }

    /// As [`feed`](Self::feed), for audio whose level is known already, and of which no block is loud enough for speech:
    /// it is not looked at.
    pub fn feed_quiet(&mut self, samples: &[i16], level_dbov: f32, edges: &mut Vec<Edge>) {
        if !self.pending.is_empty() || !samples.len().is_multiple_of(self.block) {
            return self.feed(samples, edges);
        }
        for _ in 0..samples.len() / self.block {
            edges.extend(self.take_in(level_dbov));
        }
    }

    /// Another block was heard.
    fn take_in(&mut self, level_dbov: f32) -> Option<Edge> {
        self.position += self.block as u64;
        self.judge(level_dbov)
    }

    /// Whether an utterance is going on.
    pub fn is_speaking(&self) -> bool {
        matches!(self.state, State::Speaking { .. })
    }

    /// The noise floor learnt so far, in dBov.
    pub fn floor_dbov(&self) -> f32 {
        self.floor_dbov
    }

    /// Changes the settings from here on; an utterance that is going on continues.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Ends an utterance that is going on without an edge, as if it had been committed by hand.
    pub fn reset(&mut self) {
        self.last_end = self.position;
        self.state = State::Quiet { loud_ms: 0, since: self.position };
    }

    fn judge(&mut self, level_dbov: f32) -> Option<Edge> {
        let threshold = (self.floor_dbov + self.settings.margin_db).max(self.settings.least_dbov);
        let loud = level_dbov >= threshold;
        self.learn_floor(level_dbov);
        match self.state {
            State::Quiet { loud_ms, since } => self.wait_for_start(loud, loud_ms, since),
            State::Speaking { last_loud } => self.wait_for_end(loud, last_loud),
        }
    }

    fn wait_for_start(&mut self, loud: bool, loud_ms: u32, since: u64) -> Option<Edge> {
        let block_start = self.position - self.block as u64;
        let since = if loud_ms == 0 { block_start } else { since };
        let loud_ms = if loud { loud_ms + BLOCK_MS } else { loud_ms.saturating_sub(BLOCK_MS) };
        if !loud || loud_ms < self.settings.min_speech_ms {
            self.state = State::Quiet { loud_ms, since };
            return None;
        }
        self.state = State::Speaking { last_loud: self.position };
        let prefix = u64::from(self.settings.prefix_ms) * self.per_ms;
        Some(Edge::Start { at: since.saturating_sub(prefix).max(self.last_end), noticed: self.position })
    }

    fn wait_for_end(&mut self, loud: bool, last_loud: u64) -> Option<Edge> {
        if loud {
            self.state = State::Speaking { last_loud: self.position };
            return None;
        }
        if self.position - last_loud < u64::from(self.settings.silence_ms) * self.per_ms {
            return None;
        }
        self.last_end = last_loud;
        self.state = State::Quiet { loud_ms: 0, since: self.position };
        Some(Edge::End { at: last_loud, noticed: self.position })
    }

    /// Falls to a softer level within about 50 ms; rises slowly, and hardly at all while somebody speaks.
    fn learn_floor(&mut self, level_dbov: f32) {
        let difference = level_dbov - self.floor_dbov;
        let rise = if self.is_speaking() { RISE_SPEAKING_DB } else { RISE_QUIET_DB };
        let change = if difference < 0.0 { difference * FALL } else { difference.min(rise) };
        self.floor_dbov = (self.floor_dbov + change).clamp(LOWEST_FLOOR_DBOV, HIGHEST_FLOOR_DBOV);
    }
}

/// Duration of the blocks levels are taken of.
const BLOCK_MS: u32 = 10;

const FIRST_FLOOR_DBOV: f32 = -62.0;
const LOWEST_FLOOR_DBOV: f32 = -75.0;
const HIGHEST_FLOOR_DBOV: f32 = -30.0;

/// Share of a fall followed in one block, and most dB of a rise in one block.
const FALL: f32 = 0.2;
const RISE_QUIET_DB: f32 = 0.1;
const RISE_SPEAKING_DB: f32 = 0.01;

#[cfg(test)]
mod tests {
    use super::super::test_signal::{Noise, speech_like};
    use super::*;

    #[test]
    fn an_utterance_has_one_start_and_one_end() {
        let edges = edges(Settings::default(), &spoken(1_000, 800, 1_000));
        let [Edge::Start { at: start, noticed: heard }, Edge::End { at: end, noticed: over }] = edges[..]
        else {
            panic!("{edges:?}");
        };
        // 300 ms of prefix; positions are exact to a block or two of 10 ms.
        assert!(near(start, 700) && near(heard, 1_060) && near(end, 1_800) && near(over, 2_300), "{edges:?}");
    }

    #[test]
    fn a_click_is_no_speech_and_a_breath_does_not_end_it() {
        assert_eq!(edges(Settings::default(), &spoken(500, 30, 1_000)), []);
        let mut sound = spoken(500, 600, 300);
        sound.extend(spoken(0, 600, 1_000));
        assert_eq!(edges(Settings::default(), &sound).len(), 2);
        let eager = Settings { silence_ms: 200, ..Settings::default() };
        assert_eq!(edges(eager, &sound).len(), 4);
    }

    #[test]
    fn a_prefix_never_reaches_into_the_last_utterance() {
        let mut sound = spoken(500, 500, 260);
        sound.extend(spoken(0, 500, 1_000));
        let eager = Settings { silence_ms: 200, prefix_ms: 1_000, ..Settings::default() };
        let edges = edges(eager, &sound);
        let (Edge::End { at: end, .. }, Edge::Start { at: start, .. }) = (edges[1], edges[2]) else {
            panic!("{edges:?}");
        };
        assert_eq!(start, end);
        assert_eq!(edges[0], Edge::Start { at: 0, noticed: 560 * 24 });
    }

    #[test]
    fn steady_noise_becomes_the_floor_and_speech_still_stands_out() {
        let mut noise = Noise::new(6);
        let mut sound = spoken(8_000, 1_000, 1_000);
        sound.iter_mut().for_each(|sample| *sample = sample.saturating_add((noise.next() * 400.0) as i16));
        let late: Vec<Edge> = edges(Settings::default(), &sound)
            .into_iter()
            .filter(|edge| matches!(edge, Edge::Start { noticed, .. } if *noticed > 7_000 * 24))
            .collect();
        assert_eq!(late.len(), 1, "{late:?}");
    }

    #[test]
    fn a_higher_threshold_needs_louder_speech() {
        let soft: Vec<i16> = spoken(500, 800, 1_000).iter().map(|sample| sample / 16).collect();
        assert_eq!(edges(Settings::default().with_threshold(1.0), &soft), []);
        assert_eq!(edges(Settings::default().with_threshold(0.2), &soft).len(), 2);
        assert_eq!(Settings::default().with_threshold(0.5), Settings::default());
    }

    #[test]
    fn chunk_sizes_do_not_matter() {
        let sound = spoken(300, 700, 900);
        let mut detector = Detector::new(SampleRate::HZ_24000, Settings::default());
        let mut found = Vec::new();
        sound.chunks(333).for_each(|chunk| detector.feed(chunk, &mut found));
        assert_eq!(found, edges(Settings::default(), &sound));
    }

    #[test]
    fn the_built_in_voice_is_heard_sentence_by_sentence() {
        let mut sound = vec![0; 12_000];
        sound.extend(crate::audio::voice::speak("Hello, how can I help you?"));
        sound.resize(sound.len() + 24_000, 0);
        assert_eq!(edges(Settings::default(), &sound).len(), 2);
    }

    #[test]
    fn quiet_audio_need_not_be_looked_at() {
        let sound = spoken(1_000, 800, 1_000);
        let (mut all, mut some) = (Vec::new(), Vec::new());
        let mut detector = Detector::new(SampleRate::HZ_24000, Settings::default());
        detector.feed(&sound, &mut all);
        let mut spared = Detector::new(SampleRate::HZ_24000, Settings::default());
        let mut quiet = 0;
        for frame in sound.chunks(480) {
            let level = level::dbov(frame);
            if level < Settings::default().least_dbov - 3.1 {
                quiet += 1;
                spared.feed_quiet(frame, level, &mut some);
            } else {
                spared.feed(frame, &mut some);
            }
        }
        assert!(quiet > 80, "{quiet}");
        assert_eq!(all, some);
    }

    #[test]
    fn a_reset_forgets_the_utterance() {
        let mut detector = Detector::new(SampleRate::HZ_24000, Settings::default());
        let mut found = Vec::new();
        detector.feed(&spoken(300, 500, 0), &mut found);
        assert!(detector.is_speaking());
        detector.reset();
        detector.feed(&[0; 24_000], &mut found);
        assert!(!detector.is_speaking() && found.len() == 1);
    }

    /// Silence, a voiced burst and silence again, in milliseconds at 24 kHz.
    fn spoken(before_ms: usize, burst_ms: usize, after_ms: usize) -> Vec<i16> {
        let mut sound = vec![0; before_ms * 24];
        // The second syllable of the signal, its softest parts left out, over and over.
        let voice = speech_like(24_000, 10_000, 14_000.0);
        sound.extend(voice[1_000..3_400].iter().cycle().take(burst_ms * 24));
        sound.resize(sound.len() + after_ms * 24, 0);
        sound
    }

    fn edges(settings: Settings, sound: &[i16]) -> Vec<Edge> {
        let mut edges = Vec::new();
        Detector::new(SampleRate::HZ_24000, settings).feed(sound, &mut edges);
        edges
    }

    fn near(position: u64, ms: u64) -> bool {
        position.abs_diff(ms * 24) <= 20 * 24
    }
}
