//! A small voice, so that a fresh install can hold a call with nothing installed and no network.
//!
//! English text becomes sounds by letter-to-sound rules ([`letters`]), sounds become formant targets
//! ([`sounds`]), and a source and a row of resonators do the rest, after the classic cascade synthesizer.
//! It is plainly a robot, and understood. The same text always gives the same samples.

mod letters;
mod sounds;

use std::f32::consts::{PI, TAU};

use super::BRIDGE_RATE;
use letters::{Pause, Word};
use sounds::Sound;

/// Speaks `text` at [`BRIDGE_RATE`]: about 14 characters a second, peak 6 dB below full scale, with
/// pauses at punctuation. Text without a letter or digit gives nothing.
///
/// At most [`MOST_CHARACTERS`] are spoken, so that a slip cannot ask for hours of speech.
pub fn speak(text: &str) -> Vec<i16> {
    let text: String = text.chars().take(MOST_CHARACTERS).collect();
    let segments = segments(&letters::words(&text));
    if segments.is_empty() {
        return Vec::new();
    }
    let mut synthesizer = Synthesizer::new();
    let mut speech = Vec::new();
    for segment in &segments {
        synthesizer.say(segment, &mut speech);
    }
    to_samples(&speech)
}

/// Longest text spoken, in characters: about five minutes.
pub const MOST_CHARACTERS: usize = 4_000;

/// A stretch with one set of targets.
#[derive(Debug, Clone, Copy)]
struct Segment {
    sound: Sound,
    /// Duration in ms.
    ms: f32,
    /// Pitch aimed at by its end, in Hz.
    pitch: f32,
}

/// Gives every sound its length and pitch, sentence by sentence.
fn segments(words: &[Word]) -> Vec<Segment> {
    let mut segments = Vec::new();
    for sentence in words.split_inclusive(|word| word.pause >= Pause::Stop) {
        let last = sentence.len() - 1;
        let asks = sentence[last].pause == Pause::Question;
        for (index, word) in sentence.iter().enumerate() {
            // The pitch falls through a sentence, and rises at the end of a question.
            let along = index as f32 / last.max(1) as f32;
            let level = if asks && index == last { 1.15 } else { 1.12 - 0.26 * along };
            say_word(word, PITCH_HZ * level, if index == last { 1.2 } else { 1.0 }, &mut segments);
            if asks && index == last {
                raise_end(&mut segments);
            }
        }
    }
    segments
}

fn say_word(word: &Word, pitch: f32, stretch: f32, segments: &mut Vec<Segment>) {
    // Little words are said in passing; the first vowel of the others is stressed.
    let mut stress = word.sounds.len() > 3;
    for (index, sound) in word.sounds.iter().enumerate() {
        let stressed = sound.is_vowel && std::mem::take(&mut stress);
        let final_stretch = if index + 1 == word.sounds.len() { stretch } else { 1.0 };
        let ms = sound.ms * final_stretch * if stressed { 1.2 } else { 1.0 };
        let pitch = if stressed { pitch * 1.14 } else { pitch };
        segments.extend(sound.parts().map(|(part, share)| Segment { sound: part, ms: ms * share, pitch }));
    }
    let pause = word.pause.ms();
    segments.push(Segment { sound: sounds::SILENCE, ms: pause, pitch });
}

fn raise_end(segments: &mut [Segment]) {
    let voiced = segments.iter_mut().rev().filter(|segment| segment.sound.voice > 0.0);
    for (segment, raise) in voiced.take(3).zip([1.35, 1.25, 1.1]) {
        segment.pitch *= raise;
    }
}

/// Middle of the voice's range.
const PITCH_HZ: f32 = 118.0;

/// Everything that sounds at a moment; it moves towards a segment's targets.
#[derive(Debug, Clone, Copy)]
struct Synthesizer {
    formants: [f32; 3],
    voice: f32,
    breath: f32,
    hiss: f32,
    hiss_hz: f32,
    pitch: f32,
    /// Position within a pitch period, 0–1.
    phase: f32,
    glottis: Resonator,
    /// Three moving formants and two fixed ones.
    tract: [Resonator; 5],
    hiss_filter: Resonator,
    last_flow: f32,
    noise: u32,
}

impl Synthesizer {
    fn new() -> Self {
        Self {
            formants: [500.0, 1_500.0, 2_500.0],
            voice: 0.0,
            breath: 0.0,
            hiss: 0.0,
            hiss_hz: 4_000.0,
            pitch: PITCH_HZ,
            phase: 0.0,
            glottis: Resonator::default(),
            tract: [Resonator::default(); 5],
            hiss_filter: Resonator::default(),
            last_flow: 0.0,
            noise: 0x2545_f491,
        }
    }

    fn say(&mut self, segment: &Segment, speech: &mut Vec<f32>) {
        let samples = (segment.ms * BRIDGE_RATE as f32 / 1_000.0) as usize;
        for start in (0..samples).step_by(STEP) {
            self.approach(segment);
            speech.extend((start..samples.min(start + STEP)).map(|_| self.next()));
        }
    }

    /// Moves the articulators for 2.5 ms: levels quickly, formants more slowly, pitch slowest.
    fn approach(&mut self, segment: &Segment) {
        let sound = &segment.sound;
        let towards = |now: &mut f32, target: f32, share: f32| *now += (target - *now) * share;
        if let Some(targets) = sound.formants {
            for (now, target) in self.formants.iter_mut().zip(targets) {
                towards(now, target, 0.14);
            }
        }
        towards(&mut self.voice, sound.voice, 0.35);
        towards(&mut self.breath, sound.breath, 0.35);
        towards(&mut self.hiss, sound.hiss, 0.5);
        towards(&mut self.pitch, segment.pitch, 0.06);
        if sound.hiss > 0.0 {
            self.hiss_hz = sound.hiss_hz;
        }
        let [first, second, third] = self.formants;
        let poles = [(first, 80.0), (second, 100.0), (third, 150.0), (3_500.0, 250.0), (4_600.0, 350.0)];
        for (resonator, (frequency, width)) in self.tract.iter_mut().zip(poles) {
            resonator.tune(frequency, width);
        }
        self.glottis.tune(0.0, 220.0);
        self.hiss_filter.tune(self.hiss_hz, 0.3 * self.hiss_hz);
    }

    fn next(&mut self) -> f32 {
        self.phase += self.pitch / BRIDGE_RATE as f32;
        let pulse = if self.phase >= 1.0 { 40.0 } else { 0.0 };
        self.phase = self.phase.fract();
        let noise = self.noise();

        // Lips radiate the change of flow.
        let flow = self.glottis.next(pulse);
        let radiated = flow - std::mem::replace(&mut self.last_flow, flow);
        let source = radiated * 16.0 * self.voice + noise * 0.12 * (self.breath + 0.04 * self.voice);
        let voiced = self.tract.iter_mut().fold(source, |signal, resonator| resonator.next(signal));
        voiced + self.hiss_filter.next(noise * 0.5) * self.hiss
    }

    /// White, from -1 to 1.
    fn noise(&mut self) -> f32 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 17;
        self.noise ^= self.noise << 5;
        self.noise as i32 as f32 / 2_147_483_648.0
    }
}

/// Samples between two moves of the articulators: 2.5 ms.
const STEP: usize = 60;

/// Two poles with unity gain at 0 Hz.
#[derive(Debug, Clone, Copy, Default)]
struct Resonator {
    gain: f32,
    first: f32,
    second: f32,
    memory: [f32; 2],
}

impl Resonator {
    fn tune(&mut self, frequency: f32, width: f32) {
        let rate = BRIDGE_RATE as f32;
        let radius = (-PI * width / rate).exp();
        self.second = -radius * radius;
        self.first = 2.0 * radius * (TAU * frequency / rate).cos();
        self.gain = 1.0 - self.first - self.second;
    }

    fn next(&mut self, input: f32) -> f32 {
        let out = self.gain * input + self.first * self.memory[0] + self.second * self.memory[1];
        self.memory = [out, self.memory[0]];
        out
    }
}

/// Scales to a peak of half of full scale.
fn to_samples(speech: &[f32]) -> Vec<i16> {
    let peak = speech.iter().fold(0.0f32, |peak, value| peak.max(value.abs()));
    let gain = if peak > 0.0 { 16_384.0 / peak } else { 0.0 };
    speech.iter().map(|value| (value * gain) as i16).collect()
}

#[cfg(test)]
mod tests {
    use super::super::level::{dbov, peak};
    use super::*;

    const GREETING: &str = "Hello, this is the reception desk. How can I help you today?";

    #[test]
    fn it_speaks_about_14_characters_a_second_at_minus_6_decibels() {
        let speech = speak(GREETING);
        let rate = GREETING.len() as f32 / (speech.len() as f32 / BRIDGE_RATE as f32);
        assert!((11.0..17.0).contains(&rate), "{rate} characters a second");
        assert!((16_000..=16_384).contains(&peak(&speech)));
        assert!((-32.0..-14.0).contains(&dbov(&speech)), "{} dBov", dbov(&speech));
    }

    #[test]
    fn the_same_text_gives_the_same_samples() {
        assert_eq!(speak("One two three."), speak("One two three."));
    }

    #[test]
    fn sentences_have_real_pauses_between_them() {
        let longest_quiet = |text: &str| {
            let speech = speak(text);
            let spoken = &speech[..speech.len() - 12_000];
            let quiet = spoken.chunks(240).map(|block| dbov(block) < -50.0);
            let (longest, _) = quiet.fold((0, 0), |(longest, now), is_quiet| {
                let now = if is_quiet { now + 1 } else { 0 };
                (now.max(longest), now)
            });
            longest * 10
        };
        assert!(longest_quiet("Good morning. Here we are.") >= 300);
        assert!(longest_quiet("Good morning here we are.") < 150);
    }

    #[test]
    fn vowels_have_their_formants() {
        // Energy near the second formant tells "ee" from "oo".
        let bright = |text: &str| {
            let speech = speak(text);
            let (near, far) = (energy(&speech, 2_250.0), energy(&speech, 900.0));
            near / far
        };
        assert!(bright("eeee") > 3.0 * bright("oooo"));
    }

    #[test]
    fn text_without_anything_to_say_is_silent_and_long_text_is_cut() {
        assert!(speak("").is_empty() && speak("... !?").is_empty());
        assert!(speak("你好").is_empty());
        assert_eq!(speak("mañana"), speak("manana"));
        let words = letters::words(&"na ".repeat(3_000).chars().take(MOST_CHARACTERS).collect::<String>());
        assert!(words.len() <= MOST_CHARACTERS / 3 + 1);
    }

    /// Energy within some 100 Hz of `frequency`.
    fn energy(speech: &[i16], frequency: f32) -> f64 {
        speech
            .chunks_exact(240)
            .map(|block| {
                let turn = TAU * frequency / BRIDGE_RATE as f32;
                let (mut re, mut im) = (0.0, 0.0);
                for (index, sample) in block.iter().enumerate() {
                    let (s, c) = (turn * index as f32).sin_cos();
                    (re, im) = (re + f32::from(*sample) * c, im + f32::from(*sample) * s);
                }
                f64::from(re * re + im * im)
            })
            .sum()
    }
}
