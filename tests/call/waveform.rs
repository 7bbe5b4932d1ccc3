//! What waveforms show, independent of the code that made them.

use tandem::audio::{Codec, Decoder, Encoder};

/// Amplitude of the sine of that frequency in `pcm`, and the rest beside it relative to it in dB.
pub fn sine(pcm: &[i16], hz: f64) -> (f64, f64) {
    let step = std::f64::consts::TAU * hz / 24_000.0;
    let (mut cc, mut ss, mut cs, mut xc, mut xs) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (n, sample) in pcm.iter().enumerate() {
        let ((s, c), x) = ((step * n as f64).sin_cos(), f64::from(*sample));
        (cc, ss, cs, xc, xs) = (cc + c * c, ss + s * s, cs + c * s, xc + x * c, xs + x * s);
    }
    let det = cc * ss - cs * cs;
    let (a, b) = ((xc * ss - xs * cs) / det, (xs * cc - xc * cs) / det);
    let (mut signal, mut rest) = (0.0, 1e-9);
    for (n, sample) in pcm.iter().enumerate() {
        let (s, c) = (step * n as f64).sin_cos();
        let fitted = a * c + b * s;
        signal += fitted * fitted;
        rest += (f64::from(*sample) - fitted).powi(2);
    }
    (a.hypot(b), 10.0 * (rest / signal.max(1e-9)).log10())
}

/// The largest second difference: a click is one where the voice has none.
pub fn roughness(pcm: &[i16]) -> i32 {
    let bends = pcm.windows(3).map(|w| (i32::from(w[0]) - 2 * i32::from(w[1]) + i32::from(w[2])).abs());
    bends.max().unwrap_or(0)
}

/// dB between two levels.
pub fn decibels(a: f64, b: f64) -> f64 {
    20.0 * (a / b).log10()
}

/// Root mean square.
pub fn rms(pcm: &[i16]) -> f64 {
    let sum: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (sum / pcm.len().max(1) as f64).sqrt()
}

/// The first sample from `from` on where sound begins, to 1 ms.
pub fn onset(pcm: &[i16], from: usize) -> Option<usize> {
    pcm[from..].chunks(24).position(|window| rms(window) > LOUD).map(|window| from + window * 24)
}

/// Where in `heard` the beginning of `reference` is, looked for within `slack` samples of `around`.
pub fn find(reference: &[i16], heard: &[i16], around: usize, slack: usize) -> (usize, f64) {
    let probe = &reference[..reference.len().min(2400)];
    let last = heard.len().saturating_sub(probe.len());
    let (from, to) = (around.saturating_sub(slack).min(last), (around + slack).min(last));
    let found = (from..=to).map(|at| (at, likeness(probe, &heard[at..at + probe.len()])));
    found.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0))
}

/// Normalized correlation.
pub fn likeness(a: &[i16], b: &[i16]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0, 1e-9, 1e-9);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        (ab, aa, bb) = (ab + x * y, aa + x * x, bb + y * y);
    }
    ab / (aa * bb).sqrt()
}

/// Signal to noise ratio of `heard` against `reference`, sample by sample, in dB.
pub fn snr(reference: &[i16], heard: &[i16]) -> f64 {
    let (mut signal, mut noise) = (0.0, 1e-9);
    for (x, y) in reference.iter().zip(heard) {
        signal += f64::from(*x).powi(2);
        noise += (f64::from(*x) - f64::from(*y)).powi(2);
    }
    10.0 * (signal / noise).log10()
}

/// The waveform after our own encoder and decoder with nothing between them: the best a call can do.
/// Half a second of silence goes before it, as in a call.
pub fn through(codec: Codec, pcm: &[i16]) -> Vec<i16> {
    const LEAD: usize = 12_000;
    let mut all = vec![0; LEAD];
    all.extend_from_slice(pcm);
    all.resize(all.len().next_multiple_of(480) + 2400, 0);
    let (mut encoder, mut decoder) =
        (Encoder::new(codec).expect("codec"), Decoder::new(codec).expect("codec"));
    let mut native = Vec::new();
    encoder.narrow(&all, &mut native);
    let frame = (codec.sample_rate().hz() / 50) as usize;
    let (mut packet, mut heard) = (Vec::new(), Vec::with_capacity(all.len()));
    for samples in native.chunks_exact(frame) {
        packet.clear();
        encoder.encode(samples, &mut packet).expect("whole frames");
        decoder.decode(&packet, &mut heard).expect("our own packets");
    }
    heard.split_off(LEAD)
}

/// About -50 dBov.
const LOUD: f64 = 100.0;
