//! What the faults of all simulators have in common: for whom they are, and how times are written.

use std::str::FromStr;
use std::time::Duration;

/// Which connections the configured faults are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FaultScope {
    /// All.
    #[default]
    All,
    /// The first so many.
    First(u64),
    /// Every n-th, starting with the n-th.
    Every(u64),
}

impl FaultScope {
    /// Whether the `n`th connection, counted from 1, is one of them.
    pub const fn covers(self, n: u64) -> bool {
        match self {
            Self::All => true,
            Self::First(count) => n <= count,
            Self::Every(step) => step != 0 && n.is_multiple_of(step),
        }
    }
}

impl FromStr for FaultScope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let count = |n: &str| n.parse().ok().filter(|n| *n > 0).ok_or_else(|| ScopeError(text.to_owned()));
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            Some(("first", n)) => count(n).map(Self::First),
            Some(("every", n)) => count(n).map(Self::Every),
            _ => Err(ScopeError(text.to_owned())),
        }
    }
}

/// No set of connections.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no connections; give all, first:N or every:N")]
pub struct ScopeError(String);

/// Seconds as a decimal number, with or without an `s`, or milliseconds with `ms`.
pub fn read_seconds(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_picks_connections() {
        let covered = |text: &str| -> Vec<u64> {
            let scope: FaultScope = text.parse().unwrap();
            (1..=6).filter(|n| scope.covers(*n)).collect()
        };
        assert_eq!(covered("all"), [1, 2, 3, 4, 5, 6]);
        assert_eq!(covered("first:2"), [1, 2]);
        assert_eq!(covered("every:3"), [3, 6]);
        assert!("every:0".parse::<FaultScope>().is_err());
    }
}
