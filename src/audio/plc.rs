//! Packet loss concealment by repeating the pitch, after ITU-T G.711 Appendix I.
//!
//! A lost frame is filled with the last pitch period of what was heard, repeated; after 10 and 20 ms of
//! loss with the last two and three, so that a long gap does not buzz. The level is held for 10 ms, then
//! falls to zero at 60 ms. The first good frame is blended in.
//!
//! One thing differs from the appendix on purpose: it delays all speech by 3.75 ms in order to blend the
//! start of a gap into samples not yet played. Here the start is blended on the gap's own side, and
//! speech that suffers no loss is not delayed at all.

use super::SampleRate;

/// Remembers what was heard and continues it when packets are missing.
#[derive(Debug, Clone)]
pub struct Concealer {
    times: Times,
    /// The last 48.75 ms, oldest first: three of the longest periods and a quarter.
    history: Vec<i16>,
    /// The history as it was when the gap began, kept between gaps for its memory.
    before: Vec<i16>,
    gap: Option<Gap>,
}

impl Concealer {
    /// A concealer that has heard silence so far.
    pub fn new(rate: SampleRate) -> Self {
        let times = Times::at(rate);
        Self { times, history: vec![0; times.history], before: Vec::new(), gap: None }
    }

    /// Takes in a good frame; the first one after a gap has its start blended with the gap's end.
    pub fn heard(&mut self, frame: &mut [i16]) {
        if let Some(mut gap) = self.gap.take() {
            self.blend(&mut gap, frame);
        }
        self.remember(frame);
    }

    /// Appends `samples` that continue what was heard. Consecutive calls are one gap.
    pub fn conceal(&mut self, samples: usize, out: &mut Vec<i16>) {
        let start = out.len();
        let mut gap = self.gap.take().unwrap_or_else(|| self.open_gap());
        // Beyond 60 ms only the count matters.
        let audible = samples.min(self.times.silent_after.saturating_sub(gap.elapsed));
        out.extend((0..audible).map(|_| gap.next(&self.times, &self.before)));
        out.resize(start + samples, 0);
        gap.elapsed += samples - audible;
        self.gap = Some(gap);
        self.remember_from(out, start);
    }

    /// Ends a gap without blending: what follows is silence that was meant.
    pub fn silence(&mut self, samples: usize) {
        self.gap = None;
        let kept = self.history.len().saturating_sub(samples);
        self.history.copy_within(self.times.history - kept.., 0);
        self.history[kept..].fill(0);
    }

    fn open_gap(&mut self) -> Gap {
        self.before.clone_from(&self.history);
        Gap::new(pitch(&self.before, &self.times), &self.before)
    }

    /// Fades from the continued gap to the frame, over a quarter period and 4 ms more for each 10 ms lost.
    fn blend(&self, gap: &mut Gap, frame: &mut [i16]) {
        if gap.elapsed >= self.times.silent_after {
            return self.fade_in(frame);
        }
        let lost_tens = gap.elapsed / self.times.hold;
        let length = gap.pitch / 4 + lost_tens.saturating_sub(1) * self.times.blend_step;
        let length = length.min(self.times.hold).min(frame.len());
        for (index, sample) in frame[..length].iter_mut().enumerate() {
            let weight = (index + 1) as f32 / (length + 1) as f32;
            let old = f32::from(gap.next(&self.times, &self.before));
            *sample = (old + (f32::from(*sample) - old) * weight) as i16;
        }
    }

    /// Speech that returns after silence starts softly, within 2 ms.
    fn fade_in(&self, frame: &mut [i16]) {
        let length = (self.times.hold / 5).min(frame.len());
        for (index, sample) in frame[..length].iter_mut().enumerate() {
            *sample = (f32::from(*sample) * (index + 1) as f32 / (length + 1) as f32) as i16;
        }
    }

    fn remember_from(&mut self, out: &[i16], start: usize) {
        self.remember(&out[start..]);
    }

    fn remember(&mut self, frame: &[i16]) {
        let size = self.history.len();
        if let Some(skipped) = frame.len().checked_sub(size) {
            self.history.copy_from_slice(&frame[skipped..]);
        } else {
            self.history.copy_within(frame.len().., 0);
            self.history[size - frame.len()..].copy_from_slice(frame);
        }
    }
}

/// The appendix' durations, in samples.
#[derive(Debug, Clone, Copy)]
struct Times {
    history: usize,
    /// Shortest and longest pitch period: 5 and 15 ms (200 and 66 Hz).
    pitch: (usize, usize),
    /// Length of the passage whose like is looked for.
    template: usize,
    /// Distance of the samples compared in the first, coarse search: 4 kHz.
    coarse: usize,
    /// Time the level is held, and after which one more period is used.
    hold: usize,
    silent_after: usize,
    blend_step: usize,
}

impl Times {
    fn at(rate: SampleRate) -> Self {
        let eighth_ms = (rate.hz() / 8_000).max(1) as usize;
        let ms = 8 * eighth_ms;
        Self {
            history: 390 * eighth_ms,
            pitch: (5 * ms, 15 * ms),
            template: 20 * ms,
            coarse: 2 * eighth_ms,
            hold: 10 * ms,
            silent_after: 60 * ms,
            blend_step: 4 * ms,
        }
    }
}

/// A gap being filled.
#[derive(Debug, Clone)]
struct Gap {
    /// Period repeated, in samples.
    pitch: usize,
    /// Where in the loop of periods the next sample lies.
    place: Place,
    /// The smaller loop being left, and how much of the change is still to come.
    leaving: Option<(Place, usize)>,
    /// Samples of the gap so far.
    elapsed: usize,
    /// Step between the last sample heard and the loop's start, faded out over a quarter period.
    step: f32,
}

/// A position in a loop of the last `periods` periods.
#[derive(Debug, Clone, Copy)]
struct Place {
    periods: usize,
    offset: usize,
}

impl Gap {
    fn new(pitch: usize, before: &[i16]) -> Self {
        let end = before.len();
        let step = f32::from(before[end - 1]) - f32::from(before[end - 1 - pitch]);
        Self { pitch, place: Place { periods: 1, offset: 0 }, leaving: None, elapsed: 0, step }
    }

    fn next(&mut self, times: &Times, before: &[i16]) -> i16 {
        let quarter = self.pitch / 4;
        let wanted = (1 + self.elapsed / times.hold).min(3);
        if wanted > self.place.periods {
            // The same phase in the oldest period of the larger loop: the freshest material.
            self.leaving = Some((self.place, quarter));
            self.place = Place { periods: wanted, offset: self.place.offset % self.pitch };
        }
        let mut value = self.place.next(self.pitch, before);
        if let Some((mut place, left)) = self.leaving {
            let weight = left as f32 / (quarter + 1) as f32;
            value += (place.next(self.pitch, before) - value) * weight;
            self.leaving = (left > 1).then_some((place, left - 1));
        }
        if self.elapsed < quarter {
            value += self.step * (quarter - self.elapsed) as f32 / (quarter + 1) as f32;
        }
        let fading = self.elapsed.saturating_sub(times.hold) as f32;
        let gain = 1.0 - fading / (times.silent_after - times.hold) as f32;
        self.elapsed += 1;
        // The cast saturates.
        (value * gain.max(0.0)) as i16
    }
}

impl Place {
    /// The sample here; the loop's last quarter period is blended into what precedes its first.
    fn next(&mut self, pitch: usize, before: &[i16]) -> f32 {
        let (length, quarter) = (self.periods * pitch, pitch / 4);
        let start = before.len() - length;
        let mut value = f32::from(before[start + self.offset]);
        if let Some(into) = (self.offset + quarter).checked_sub(length) {
            let weight = (into + 1) as f32 / (quarter + 1) as f32;
            value += (f32::from(before[start - quarter + into]) - value) * weight;
        }
        self.offset = (self.offset + 1) % length;
        value
    }
}

/// The period at which the end of `history` resembles itself most: coarsely first, then exactly.
fn pitch(history: &[i16], times: &Times) -> usize {
    let (shortest, longest) = times.pitch;
    let coarse = best_lag(history, times, (shortest..=longest).step_by(times.coarse), times.coarse);
    let from = coarse.saturating_sub(times.coarse - 1).max(shortest);
    let to = (coarse + times.coarse - 1).min(longest);
    best_lag(history, times, from..=to, 1)
}

/// The lag of the highest normalized correlation, looking at every `stride`-th sample.
fn best_lag(history: &[i16], times: &Times, lags: impl Iterator<Item = usize>, stride: usize) -> usize {
    let start = history.len() - times.template;
    let mut best = (f32::MIN, times.pitch.1);
    for lag in lags {
        let (mut product, mut energy) = (0.0f32, 1.0f32);
        for index in (start..history.len()).step_by(stride) {
            let (now, then) = (f32::from(history[index]), f32::from(history[index - lag]));
            product += now * then;
            energy += then * then;
        }
        let likeness = product / energy.sqrt();
        if likeness > best.0 {
            best = (likeness, lag);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::super::test_signal::{level_db, speech_like, tone};
    use super::*;

    const RATES: [SampleRate; 3] = [SampleRate::HZ_8000, SampleRate::HZ_16000, SampleRate::HZ_24000];

    #[test]
    fn a_steady_tone_goes_on_through_a_lost_frame() {
        for rate in RATES {
            let ms = rate.hz() as usize / 1000;
            let wanted = tone(150.0, rate.hz(), 100 * ms, 8_000.0);
            let mut concealer = Concealer::new(rate);
            concealer.heard(&mut wanted[..80 * ms].to_vec());
            let mut filled = Vec::new();
            concealer.conceal(10 * ms, &mut filled);
            let error: Vec<i16> = filled.iter().zip(&wanted[80 * ms..]).map(|(a, b)| a - b).collect();
            assert!(level_db(&error) < level_db(&filled) - 20.0, "{rate}");
        }
    }

    #[test]
    fn the_level_is_held_for_10_ms_and_gone_at_60() {
        for rate in RATES {
            let ms = rate.hz() as usize / 1000;
            let mut concealer = Concealer::new(rate);
            concealer.heard(&mut tone(200.0, rate.hz(), 100 * ms, 10_000.0));
            let mut filled = Vec::new();
            (0..10).for_each(|_| concealer.conceal(20 * ms, &mut filled));
            assert_eq!(filled.len(), 200 * ms);
            let peak =
                |from: usize, to: usize| filled[from * ms..to * ms].iter().map(|s| s.abs()).max().unwrap();
            assert!(peak(0, 10) > 9_500, "{rate}");
            assert!((4_000..6_500).contains(&peak(35, 40)), "{rate}: {}", peak(35, 40));
            assert!(filled[60 * ms..].iter().all(|sample| *sample == 0), "{rate}");
        }
    }

    #[test]
    fn neither_edge_of_a_gap_clicks() {
        for rate in RATES {
            let ms = rate.hz() as usize / 1000;
            for lost in [10, 20, 30, 60, 100] {
                let signal = tone(170.0, rate.hz(), 400 * ms, 10_000.0);
                let usual = jump(&signal);
                let mut concealer = Concealer::new(rate);
                let mut heard = signal[..101 * ms].to_vec();
                concealer.heard(&mut heard);
                concealer.conceal(lost * ms, &mut heard);
                let mut after = signal[(101 + lost) * ms..].to_vec();
                concealer.heard(&mut after);
                heard.extend(after);
                assert!(jump(&heard) < 3 * usual, "{rate}, {lost} ms: {} and {usual}", jump(&heard));
            }
        }
    }

    #[test]
    fn the_pieces_of_a_gap_add_up() {
        let mut whole = Concealer::new(SampleRate::HZ_8000);
        whole.heard(&mut speech_like(8_000, 800, 12_000.0));
        let mut pieces = whole.clone();
        let (mut one, mut many) = (Vec::new(), Vec::new());
        whole.conceal(480, &mut one);
        [160, 1, 79, 240].into_iter().for_each(|samples| pieces.conceal(samples, &mut many));
        assert_eq!(one, many);
    }

    #[test]
    fn concealed_speech_is_nearer_to_the_truth_than_silence() {
        let truth = speech_like(8_000, 16_000, 12_000.0);
        let (mut concealer, mut error, mut lost) =
            (Concealer::new(SampleRate::HZ_8000), Vec::new(), Vec::new());
        for (index, frame) in truth.chunks(160).enumerate() {
            let mut out = Vec::new();
            if index % 12 == 11 {
                concealer.conceal(160, &mut out);
                lost.extend_from_slice(frame);
                error.extend(out.iter().zip(frame).map(|(a, b)| a.saturating_sub(*b)));
            } else {
                out.extend_from_slice(frame);
                concealer.heard(&mut out);
            }
        }
        assert!(level_db(&error) < level_db(&lost) - 2.0, "{} {}", level_db(&error), level_db(&lost));
    }

    #[test]
    fn intended_silence_is_not_blended_with_the_past() {
        let mut concealer = Concealer::new(SampleRate::HZ_8000);
        concealer.heard(&mut tone(200.0, 8_000, 800, 10_000.0));
        concealer.conceal(160, &mut Vec::new());
        concealer.silence(800);
        let mut frame = vec![100; 160];
        concealer.heard(&mut frame);
        assert_eq!(frame, [100; 160]);
    }

    #[test]
    fn the_loudest_signal_does_not_overflow() {
        let mut concealer = Concealer::new(SampleRate::HZ_8000);
        let square: Vec<i16> = (0..800).map(|i| if i / 31 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        concealer.heard(&mut square.clone());
        let mut out = Vec::new();
        concealer.conceal(480, &mut out);
        concealer.heard(&mut square.clone());
        assert_eq!(out.len(), 480);
    }

    fn jump(samples: &[i16]) -> i32 {
        let steps = samples.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs());
        steps.max().unwrap_or(0)
    }
}
