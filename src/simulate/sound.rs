//! What the simulator borrows from the engine's audio floor, all of it off the call path.

use crate::audio::BRIDGE_RATE;
use crate::audio::convert::convert;
use crate::audio::voice;
use crate::audio::wav::Wav;

/// `samples` at another rate, whole and without delay.
pub fn resample(samples: &[i16], from: u32, to: u32) -> Vec<i16> {
    if from == to { samples.to_vec() } else { convert(samples, from, to) }
}

/// The words as a synthetic voice says them.
pub fn speak(text: &str, rate: u32) -> Vec<i16> {
    resample(&voice::speak(text), BRIDGE_RATE, rate)
}

/// The samples of a WAV file, mono, and their rate.
///
/// # Errors
/// Why it cannot be used.
pub fn read_wav(bytes: &[u8]) -> Result<(Vec<i16>, u32), String> {
    let wav = Wav::parse(bytes).map_err(|error| error.to_string())?;
    Ok((wav.mono(), wav.rate))
}
