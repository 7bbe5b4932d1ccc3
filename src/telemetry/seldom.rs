//! Warnings that strangers can cause: one a minute, and how many were kept back.

use std::time::{Duration, Instant};

/// Decides whether a warning is due.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Option<Instant>,
    kept_back: u64,
}

impl Seldom {
    /// How many were kept back since the last one, when one is due.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + WARNING_EVERY) {
            self.kept_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.kept_back))
    }
}

const WARNING_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_a_minute() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.due(start), Some(0));
        assert_eq!(seldom.due(start + Duration::from_secs(1)), None);
        assert_eq!(seldom.due(start + Duration::from_secs(59)), None);
        assert_eq!(seldom.due(start + WARNING_EVERY), Some(2));
    }
}
