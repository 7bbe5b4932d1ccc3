//! Options that the simulators of services share.

/// Seconds a simulator is told.
///
/// # Errors
/// In words, for what is outside of 0.02 to 86400.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.02..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("give seconds from 0.02 to 86400".to_owned()),
    }
}

/// How fast speech is sent, 1 being real time.
///
/// # Errors
/// In words, below 0.01.
pub(super) fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed >= 0.01 => Ok(speed),
        _ => Err("give a factor of at least 0.01, or inf".to_owned()),
    }
}

/// Exit code when the far end broke the protocol.
pub(super) const CHECK_FOUND_PROBLEMS: u8 = 7;
