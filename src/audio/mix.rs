//! Adding voices: sums in 32 bits that saturate when they are brought back to 16.

/// Sums any number of streams, one frame at a time, and can leave a listener out of what it hears.
///
/// Voices are added at full level, as in a room: halving them would make every listener quieter as soon
/// as a silent party joins. Peaks of loud voices together are rounded off above three quarters of full
/// scale, which is far less audible than hard clipping; below that the sum is exact.
#[derive(Debug, Clone, Default)]
pub struct Mixer {
    sum: Vec<i32>,
}

impl Mixer {
    /// A mixer with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a frame of `samples`, all silent.
    pub fn start(&mut self, samples: usize) {
        self.sum.clear();
        self.sum.resize(samples, 0);
    }

    /// Adds a voice to the frame. What is longer than the frame is ignored; what is shorter, silent.
    pub fn add(&mut self, voice: &[i16]) {
        for (sum, sample) in self.sum.iter_mut().zip(voice) {
            *sum += i32::from(*sample);
        }
    }

    /// Appends the frame to `out`.
    pub fn mix(&self, out: &mut Vec<i16>) {
        out.extend(self.sum.iter().map(|sum| rounded_off(*sum)));
    }

    /// Appends the frame without `own` to `out`: what the party speaking `own` is to hear.
    pub fn mix_without(&self, own: &[i16], out: &mut Vec<i16>) {
        let own = own.iter().copied().chain(std::iter::repeat(0));
        out.extend(self.sum.iter().zip(own).map(|(sum, own)| rounded_off(sum - i32::from(own))));
    }
}

/// Adds `voice` to `frame`, saturating.
pub fn add_saturating(frame: &mut [i16], voice: &[i16]) {
    for (sample, other) in frame.iter_mut().zip(voice) {
        *sample = sample.saturating_add(*other);
    }
}

/// Appends `left` and `right` to `out` as stereo; the shorter is silent at its end.
pub fn interleave(left: &[i16], right: &[i16], out: &mut Vec<i16>) {
    let length = left.len().max(right.len());
    let at = |side: &[i16], index: usize| side.get(index).copied().unwrap_or(0);
    out.reserve(2 * length);
    out.extend((0..length).flat_map(|index| [at(left, index), at(right, index)]));
}

/// Scales samples by `gain`, saturating.
pub fn amplify(samples: &mut [i16], gain: f32) {
    for sample in samples {
        // The cast saturates.
        *sample = (f32::from(*sample) * gain) as i16;
    }
}

/// Exact up to the knee; above it, approaches full scale ever more slowly.
fn rounded_off(sum: i32) -> i16 {
    let over = sum.abs() - KNEE;
    if over <= 0 {
        return sum as i16;
    }
    // room * over / (room + over) has slope 1 at the knee and never reaches `room`.
    let bent = i64::from(ROOM) * i64::from(over) / (i64::from(ROOM) + i64::from(over));
    let size = KNEE + bent as i32;
    (if sum < 0 { -size } else { size }) as i16
}

const KNEE: i32 = 24_576;
const ROOM: i32 = 32_767 - KNEE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_of_quiet_voices_is_their_exact_sum() {
        let mut mixer = Mixer::new();
        mixer.start(3);
        mixer.add(&[100, -200, 300]);
        mixer.add(&[1, 2]);
        let mut out = vec![9];
        mixer.mix(&mut out);
        assert_eq!(out, [9, 101, -198, 300]);
    }

    #[test]
    fn nobody_hears_himself() {
        let mut mixer = Mixer::new();
        mixer.start(2);
        mixer.add(&[1_000, 2_000]);
        mixer.add(&[30, 40]);
        let mut out = Vec::new();
        mixer.mix_without(&[1_000, 2_000], &mut out);
        assert_eq!(out, [30, 40]);
    }

    #[test]
    fn many_loud_voices_approach_full_scale_and_never_wrap() {
        for voices in 1..=64 {
            let mut mixer = Mixer::new();
            mixer.start(2);
            (0..voices).for_each(|_| mixer.add(&[i16::MAX, i16::MIN]));
            let mut out = Vec::new();
            mixer.mix(&mut out);
            assert!(out[0] > 28_000 && out[1] < -28_000, "{voices}: {out:?}");
        }
    }

    #[test]
    fn rounding_off_never_changes_the_order_of_two_sums() {
        let sums = (-200_000..200_000).step_by(7).map(rounded_off);
        assert!(sums.is_sorted());
    }

    #[test]
    fn sides_of_different_length_are_padded_with_silence() {
        let mut out = Vec::new();
        interleave(&[1, 2], &[3], &mut out);
        assert_eq!(out, [1, 3, 2, 0]);
    }

    #[test]
    fn adding_and_amplifying_saturate() {
        let mut frame = [30_000, -30_000, 5];
        add_saturating(&mut frame, &[10_000, -10_000]);
        assert_eq!(frame, [i16::MAX, i16::MIN, 5]);
        amplify(&mut frame, 2.0);
        assert_eq!(frame, [i16::MAX, i16::MIN, 10]);
    }
}
