//! Measures a call by its waveforms alone, never by the server's own clocks.

use crate::audio::{BRIDGE_RATE, Codec, Decoder, Encoder};

/// Where speech is in a waveform: `(start, end)` in samples, pauses up to `pause_ms` included.
pub fn stretches(pcm: &[i16], pause_ms: f64) -> Vec<(usize, usize)> {
    let pause = samples(pause_ms);
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (index, window) in pcm.chunks(WINDOW).enumerate() {
        if !is_loud(window) {
            continue;
        }
        let (start, end) = (index * WINDOW, index * WINDOW + window.len());
        match found.last_mut() {
            Some((_, last)) if start - *last <= pause => *last = end,
            _ => found.push((start, end)),
        }
    }
    found
}

/// Milliseconds of `reference` that can be heard in `heard` from about sample `around` on, and how well
/// they fit (0..=1). The beginning of the reference is looked for within `slack_ms` of `around`.
///
/// `None` when it is not there.
pub fn audible(reference: &[i16], heard: &[i16], around: usize, slack_ms: f64) -> Option<(f64, f64)> {
    let probe = &reference[first_loud(reference)?..];
    let lead = reference.len() - probe.len();
    let probe = &probe[..probe.len().min(samples(PROBE_MS))];
    let from = around.saturating_sub(samples(slack_ms));
    let to = (around + samples(slack_ms)).min(heard.len().checked_sub(probe.len())?);
    let (offset, fit) =
        (from..=to).map(|at| (at, likeness(probe, &heard[at..]))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    if fit < 0.7 {
        return None;
    }
    let start = offset.checked_sub(lead)?;
    let (mut end, mut lost) = (offset, 0);
    for (index, window) in reference.chunks(WINDOW).enumerate().filter(|(_, window)| is_loud(window)) {
        let at = start + index * WINDOW;
        let Some(played) = heard.get(at..at + window.len()) else { break };
        if is_loud(played) {
            (end, lost) = (at + window.len(), 0);
        } else {
            lost += window.len();
        }
        if lost > samples(LOST_MS) {
            break;
        }
    }
    Some((millis(end - start), fit))
}

/// The waveform as it sounds after a G.711 line: the reference for what comes out of a phone.
pub fn through_phone(pcm: &[i16]) -> Vec<i16> {
    let coded = Encoder::new(Codec::Pcmu).and_then(|mut encoder| {
        let (mut narrow, mut coded) = (Vec::new(), Vec::new());
        encoder.narrow(pcm, &mut narrow);
        for packet in narrow.chunks(160) {
            encoder.encode(packet, &mut coded)?;
        }
        Ok(coded)
    });
    let heard = coded.and_then(|coded| {
        let mut heard = Vec::with_capacity(pcm.len());
        let mut decoder = Decoder::new(Codec::Pcmu)?;
        for packet in coded.chunks(160) {
            decoder.decode(packet, &mut heard)?;
        }
        Ok(heard)
    });
    // G.711 refuses nothing of ours; should it ever, the plain waveform is the next best reference.
    heard.unwrap_or_else(|_| pcm.to_vec())
}

/// Milliseconds of `count` samples.
pub fn millis(count: usize) -> f64 {
    count as f64 * 1000.0 / f64::from(BRIDGE_RATE)
}

/// Samples of that many milliseconds.
pub fn samples(millis: f64) -> usize {
    (millis * f64::from(BRIDGE_RATE) / 1000.0).max(0.0) as usize
}

fn first_loud(pcm: &[i16]) -> Option<usize> {
    pcm.chunks(WINDOW).position(is_loud).map(|window| window * WINDOW)
}

fn is_loud(window: &[i16]) -> bool {
    let sum: u64 = window.iter().map(|sample| u64::from(sample.unsigned_abs())).sum();
    sum / window.len().max(1) as u64 > LOUD
}

/// Normalized correlation of two waveforms over the length of the first.
fn likeness(a: &[i16], b: &[i16]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    if aa == 0.0 || bb == 0.0 { 0.0 } else { ab / (aa * bb).sqrt() }
}

/// 2 ms: fine enough for a measure of 20 ms.
const WINDOW: usize = 48;
/// About -47 dBov.
const LOUD: u64 = 150;
/// How much of a reference is looked for.
const PROBE_MS: f64 = 120.0;
/// A reference that cannot be followed for this long has ended.
const LOST_MS: f64 = 60.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_is_found_between_silences() {
        let mut pcm = vec![0; samples(100.0)];
        pcm.extend(tone(300.0));
        pcm.extend(vec![0; samples(500.0)]);
        pcm.extend(tone(200.0));
        let found: Vec<_> = stretches(&pcm, 50.0).iter().map(|(a, b)| (millis(*a), millis(*b))).collect();
        assert_eq!(found, [(100.0, 400.0), (900.0, 1100.0)]);
    }

    #[test]
    fn what_was_heard_of_a_line_is_measured_to_a_few_milliseconds() {
        let line = noise(2000.0);
        let mut heard = vec![0; samples(333.0)];
        heard.extend(&line[..samples(741.0)]);
        heard.extend(vec![0; samples(1500.0)]);
        let (audible, fit) = audible(&line, &heard, samples(300.0), 100.0).expect("it is there");
        assert!((audible - 741.0).abs() <= 4.0 && fit > 0.99, "{audible} {fit}");
    }

    #[test]
    fn a_line_that_was_not_played_is_not_found() {
        assert_eq!(audible(&noise(500.0), &vec![0; samples(1000.0)], 0, 500.0), None);
    }

    fn tone(ms: f64) -> Vec<i16> {
        let radians = |n: usize| n as f64 * 2.0 * std::f64::consts::PI * 500.0 / f64::from(BRIDGE_RATE);
        (0..samples(ms)).map(|n| (radians(n).cos() * 8000.0) as i16).collect()
    }

    fn noise(ms: f64) -> Vec<i16> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) as i16) / 4
        };
        (0..samples(ms)).map(|_| next()).collect()
    }
}
