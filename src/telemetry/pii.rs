//! Phone numbers and other personal values in logs.

use std::fmt;
use std::sync::OnceLock;

/// A personal value that logs may mention but not tell: all but its last two digits are hidden, unless
/// the operator has set `log.personal_data`.
///
/// Text without at least four letters or digits is hidden altogether.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pii<T>(pub T);

impl<T: fmt::Display> fmt::Display for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if told() { fmt::Display::fmt(&self.0, f) } else { f.write_str(&masked(&self.0.to_string())) }
    }
}

impl<T: fmt::Display> fmt::Debug for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is left of a value when it is hidden: `…00` of `+15550100`, `…` of `ann`.
pub fn masked(text: &str) -> String {
    let plain: Vec<char> = text.chars().filter(char::is_ascii_digit).collect();
    match plain.len() {
        0..4 => "…".into(),
        n => format!("…{}", plain[n - 2..].iter().collect::<String>()),
    }
}

/// The operator's answer, given once at start. A value prints itself far from any configuration, so this
/// is one of the few things the whole process shares.
static TOLD: OnceLock<bool> = OnceLock::new();

/// Sets whether personal values are printed in full. The first answer stands.
pub(super) fn tell(personal_data: bool) {
    let _ = TOLD.set(personal_data); // A second start in one process is a test's.
}

fn told() -> bool {
    TOLD.get().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_its_last_two_digits() {
        assert_eq!(Pii("+15550100").to_string(), "…00");
        assert_eq!(format!("{:?}", Pii("sip:+15550123@example.com")), "…23");
    }

    #[test]
    fn short_numbers_and_names_are_hidden() {
        assert_eq!(Pii("100").to_string(), "…");
        assert_eq!(Pii("Ann Smith").to_string(), "…");
    }
}
