//! What can be said of audio that arrived: its pace, its level, its tone.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::audio::level::dbov;

/// How frames kept to the 20 ms grid that the first of them began.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Pace {
    /// Frames that came.
    pub frames: u64,
    /// Milliseconds of audio in them.
    pub audio_ms: f64,
    /// From the beginning to the first frame; absent: none came.
    pub first_ms: Option<f64>,
    /// The most that a frame came after its time.
    pub late_max_ms: f64,
    /// The most that a frame came before its time.
    pub early_max_ms: f64,
    /// The longest time without a frame.
    pub gap_max_ms: f64,
    /// The most frames that came within 2 ms of each other.
    pub burst_max: u64,
    /// The most audio that waited at once, if it is played as it comes.
    pub backlog_max_ms: f64,
    /// Frames that are not 20 ms.
    pub odd_sized: u64,
    #[serde(skip)]
    track: Track,
}

#[derive(Debug, Clone, Default)]
struct Track {
    first: Option<Instant>,
    last: Option<Instant>,
    burst: u64,
    backlog: Duration,
}

impl Pace {
    /// A frame of so much audio came; `began` is when the call did. How much audio waits now.
    pub(super) fn frame(&mut self, now: Instant, began: Instant, length: Duration) -> Duration {
        let track = &mut self.track;
        let first = *track.first.get_or_insert(now);
        let due = first + Duration::from_secs_f64(self.audio_ms / 1e3);
        let gap = track.last.map(|last| now.saturating_duration_since(last));
        self.first_ms.get_or_insert_with(|| ms(now.saturating_duration_since(began)));
        self.late_max_ms = self.late_max_ms.max(ms(now.saturating_duration_since(due)));
        self.early_max_ms = self.early_max_ms.max(ms(due.saturating_duration_since(now)));
        self.gap_max_ms = self.gap_max_ms.max(gap.map_or(0.0, ms));
        track.burst = if gap.is_some_and(|gap| gap < TOGETHER) { track.burst + 1 } else { 1 };
        track.backlog = track.backlog.saturating_sub(gap.unwrap_or_default()) + length;
        self.burst_max = self.burst_max.max(track.burst);
        self.backlog_max_ms = self.backlog_max_ms.max(ms(track.backlog));
        self.odd_sized += u64::from(length != SLOT);
        self.frames += 1;
        self.audio_ms += ms(length);
        track.last = Some(now);
        track.backlog
    }
}

/// The loudest half second of what was heard.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tone {
    /// The strongest frequency.
    pub hz: f64,
    /// Level in dB below the largest sine's square.
    pub dbov: f64,
    /// Share of the power that is at that frequency, from 0 to 1.
    pub purity: f64,
}

/// The strongest frequency in the loudest half second; `None` for silence and less than 100 ms.
pub fn tone(pcm: &[i16], rate: u32) -> Option<Tone> {
    let window = (rate as usize / 2).min(pcm.len());
    if rate == 0 || window < rate as usize / 10 {
        return None;
    }
    let power = |piece: &[i16]| piece.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / piece.len() as f64;
    let starts = (0..=pcm.len() - window).step_by((window / 4).max(1));
    let piece = starts.map(|at| &pcm[at..at + window]).max_by(|a, b| power(a).total_cmp(&power(b)))?;
    let whole = power(piece);
    if whole < 1.0 {
        return None;
    }
    // A Hann window, so that a tone between two of the frequencies looked at is seen as one.
    let weight = |n: usize| 1.0 - (std::f64::consts::TAU * n as f64 / window as f64).cos();
    let weighted: Vec<f64> = piece.iter().enumerate().map(|(n, s)| f64::from(*s) * weight(n)).collect();
    let share = |hz: f64| {
        // Goertzel's.
        let turn = 2.0 * (std::f64::consts::TAU * hz / f64::from(rate)).cos();
        let (mut one, mut two) = (0.0, 0.0);
        for sample in &weighted {
            (one, two) = (sample + turn * one - two, one);
        }
        let length = window as f64;
        (one * one + two * two - turn * one * two) * 2.0 / (length * length) / whole
    };
    let top = f64::from(rate.min(8_000)) / 2.0;
    let best = |from: f64, to: f64, step: f64| {
        let count = ((to - from) / step) as usize;
        let all = (0..=count).map(|n| from + n as f64 * step).map(|hz| (hz, share(hz)));
        all.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((from, 0.0))
    };
    let resolution = f64::from(rate) / window as f64;
    let (near, _) = best(40.0, top, resolution);
    let (hz, purity) = best(near - resolution, near + resolution, resolution / 20.0);
    Some(Tone { hz, dbov: f64::from(dbov(piece)), purity: purity.min(1.0) })
}

pub(super) fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

const TOGETHER: Duration = Duration::from_millis(2);
pub(super) const SLOT: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::speech::tone_sample;

    #[test]
    fn a_tone_is_measured_at_every_rate() {
        for rate in [8_000, 16_000, 24_000] {
            let mut pcm = vec![0; rate as usize];
            pcm.extend((0..u64::from(rate)).map(|n| tone_sample(443.0, rate, n)));
            let tone = tone(&pcm, rate).unwrap();
            assert!((tone.hz - 443.0).abs() < 0.5 && tone.purity > 0.98, "{tone:?}");
            assert!((tone.dbov + 15.26).abs() < 0.1, "{tone:?}");
        }
        assert_eq!(tone(&[0; 8_000], 8_000), None);
    }

    #[test]
    fn bursts_gaps_and_backlog_are_seen() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for when in [10, 30, 50, 150, 151, 152, 153] {
            pace.frame(at(when), start, SLOT);
        }
        assert_eq!((pace.frames, pace.burst_max, pace.first_ms), (7, 4, Some(10.0)));
        assert_eq!((pace.gap_max_ms, pace.late_max_ms.round()), (100.0, 80.0));
        assert!((pace.backlog_max_ms - 77.0).abs() < 0.1, "{}", pace.backlog_max_ms);
    }
}
