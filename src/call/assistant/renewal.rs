//! When a session is replaced before its service ends it: a pure core.

use std::time::{Duration, Instant};

/// The end of one session, and what comes before it.
#[derive(Debug, Clone, Copy)]
pub struct Renewal {
    /// A quiet moment is waited for from here on; a new session is opened in any case; it takes over in any case.
    steps: Option<[Instant; 3]>,
    not_before: Instant,
}

impl Renewal {
    /// Of a session that was opened at `now` and ends after `limit`.
    pub fn new(now: Instant, limit: Option<Duration>) -> Self {
        let before = |limit: Duration, part: u32, most: Duration| now + (limit - (limit / part).min(most));
        let steps = limit.map(|limit| {
            [
                before(limit, 4, LOOK_FOR_QUIET),
                before(limit, 8, OPEN_ANYWAY),
                before(limit, 16, SWITCH_ANYWAY),
            ]
        });
        Self { steps, not_before: now }
    }

    /// Whether nothing has to be done about it for now, however quiet it is.
    pub fn is_far(&self, now: Instant) -> bool {
        self.steps.is_none_or(|[look, _, _]| now < look)
    }

    /// Whether a new session should be opened now.
    pub fn opens(&self, now: Instant, quiet: bool) -> bool {
        let Some([look, anyway, _]) = self.steps else { return false };
        now >= self.not_before && (now >= anyway || (quiet && now >= look))
    }

    /// Whether the new session, which is ready, takes over now. `between`: nobody is in the middle of anything.
    pub fn switches(&self, now: Instant, quiet: bool, between: bool) -> bool {
        let Some([_, _, anyway]) = self.steps else { return true };
        // It is not heard while it waits, so it does not wait for long.
        quiet || between || now >= anyway
    }

    /// No new session was to be had: it is tried again later.
    pub fn failed(&mut self, now: Instant) {
        self.not_before = now + AGAIN_AFTER;
    }

    /// The next moment at which something may have to be done.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let steps = self.steps?.into_iter().chain([self.not_before]);
        steps.filter(|at| *at > now).min()
    }
}

const LOOK_FOR_QUIET: Duration = Duration::from_secs(120);
const OPEN_ANYWAY: Duration = Duration::from_secs(30);
const SWITCH_ANYWAY: Duration = Duration::from_secs(8);
const AGAIN_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_moment_is_waited_for_until_there_is_no_time_left() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let renewal = Renewal::new(start, Some(Duration::from_secs(3600)));
        assert_eq!(renewal.deadline(start), Some(at(3480)));
        assert!(renewal.is_far(at(3479)) && !renewal.is_far(at(3480)));
        assert!(!renewal.opens(at(3479), true) && !renewal.opens(at(3569), false));
        assert!(renewal.opens(at(3480), true) && renewal.opens(at(3570), false));
        assert!(renewal.switches(at(3481), true, true) && renewal.switches(at(3481), false, true));
        assert!(!renewal.switches(at(3571), false, false));
        assert!(renewal.switches(at(3592), false, false));
        assert_eq!(renewal.deadline(at(3592)), None);
    }

    #[test]
    fn a_session_without_a_limit_is_never_renewed_and_a_failed_renewal_waits() {
        let start = Instant::now();
        let renewal = Renewal::new(start, None);
        assert!(!renewal.opens(start + Duration::from_secs(1 << 20), true));
        let mut renewal = Renewal::new(start, Some(Duration::from_secs(4)));
        let late = start + Duration::from_secs(4);
        renewal.failed(late);
        assert!(!renewal.opens(late, true) && renewal.opens(late + AGAIN_AFTER, true));
        assert_eq!(renewal.deadline(late), Some(late + AGAIN_AFTER));
    }
}
