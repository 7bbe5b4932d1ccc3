//! An estimate of listening quality from loss and delay: the E-model, ITU-T G.107.
//!
//! It sees neither echo nor level nor what the codec did before us; treat it as an estimate.

use std::time::Duration;

use crate::audio::Codec;

/// How a codec suffers: G.113 Appendix I.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impairment {
    /// Ie: impairment without loss.
    pub equipment: f64,
    /// Bpl: robustness against random loss, with concealment.
    pub robustness: f64,
}

impl Impairment {
    /// The codec's figures. G.711 is the scale's origin; wideband codecs are put on the same scale.
    pub fn of(codec: Codec) -> Self {
        match codec {
            Codec::Pcmu | Codec::Pcma | Codec::L16(_) => Self { equipment: 0.0, robustness: 25.1 },
            Codec::G722 => Self { equipment: 4.0, robustness: 13.0 },
            Codec::Opus => Self { equipment: 0.0, robustness: 20.0 },
        }
    }
}

/// The rating R, 0..=93.2, of a one-way mouth-to-ear `delay` and a `loss` of 0..=1 (lost and too late).
pub fn rating(codec: Codec, delay: Duration, loss: f64) -> f64 {
    let Impairment { equipment, robustness } = Impairment::of(codec);
    let percent = loss.clamp(0.0, 1.0) * 100.0;
    let effective = equipment + (95.0 - equipment) * percent / (percent + robustness);
    (BEST - delay_impairment(delay) - effective).clamp(0.0, BEST)
}

/// Idd of G.107 section 7.4: nothing up to 100 ms, then more and more.
fn delay_impairment(delay: Duration) -> f64 {
    let octaves = (delay.as_secs_f64() / 0.1).log2();
    if octaves <= 0.0 {
        return 0.0;
    }
    let sixth = |x: f64| (1.0 + x.powi(6)).powf(1.0 / 6.0);
    25.0 * (sixth(octaves) - 3.0 * sixth(octaves / 3.0) + 2.0)
}

/// The mean opinion score, 1..=4.41, of a rating.
pub fn mos(rating: f64) -> f64 {
    let r = rating.clamp(0.0, 100.0);
    (1.0 + 0.035 * r + 7e-6 * r * (r - 60.0) * (100.0 - r)).clamp(1.0, 4.5)
}

const BEST: f64 = 93.2;

#[cfg(test)]
mod tests {
    use super::*;

    fn g711(delay_ms: u64, loss: f64) -> f64 {
        mos(rating(Codec::Pcmu, Duration::from_millis(delay_ms), loss))
    }

    #[test]
    fn concealed_g711_scores_what_the_tables_say() {
        for (loss, score) in [(0.0, 4.4), (0.005, 4.37), (0.01, 4.33), (0.03, 4.13), (0.05, 3.92)] {
            let got = g711(50, loss);
            assert!((got - score).abs() < 0.06, "{loss}: {got}");
        }
        assert!((g711(250, 0.0) - 4.18).abs() < 0.06, "{}", g711(250, 0.0));
        assert!((g711(400, 0.0) - 3.56).abs() < 0.1, "{}", g711(400, 0.0));
    }

    #[test]
    fn the_score_stays_in_range() {
        assert_eq!(g711(100_000, 1.0), 1.0);
        assert!(g711(0, -5.0) <= 4.5);
    }
}
