//! Which provider is tried next, and when: a pure core.
//!
//! The providers of a chain are tried in order, the next one at once when one has failed and beside it when it
//! is slow; the first session that is ready wins. Nobody is tried twice in a round. Between rounds there is a
//! pause, for a service that restarts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Open a session with the provider of this place in the chain.
    Open(usize),
    /// Nobody is left to try.
    GiveUp,
}

/// The openings of one search.
#[derive(Debug)]
pub struct Race {
    order: Vec<usize>,
    /// Not yet tried in this round.
    left: VecDeque<usize>,
    running: Vec<usize>,
    rounds_left: u32,
    hedge_after: Duration,
    /// When the next one is opened beside those that run.
    hedge_at: Option<Instant>,
    /// When the next round begins.
    pause_until: Option<Instant>,
    over: bool,
}

impl Race {
    /// Tries `order` up to `rounds` times; the next one joins in when one has not answered within `hedge_after`.
    pub fn new(order: Vec<usize>, rounds: u32, hedge_after: Duration) -> Self {
        Self {
            left: order.iter().copied().collect(),
            order,
            running: Vec::new(),
            rounds_left: rounds.max(1),
            hedge_after,
            hedge_at: None,
            pause_until: None,
            over: false,
        }
    }

    /// What to do now. Asked again after each step until there is none. `usable` says whether a provider is
    /// worth a try.
    pub fn next(&mut self, now: Instant, mut usable: impl FnMut(usize) -> bool) -> Option<Step> {
        if self.over {
            return None;
        }
        if let Some(until) = self.pause_until {
            if now < until {
                return None;
            }
            self.pause_until = None;
            self.left = self.order.iter().copied().collect();
        }
        let wanted = self.running.is_empty() || self.hedge_at.is_some_and(|at| now >= at);
        if !wanted {
            return None;
        }
        while let Some(index) = self.left.pop_front() {
            if !self.running.contains(&index) && usable(index) {
                self.running.push(index);
                self.hedge_at = Some(now + self.hedge_after);
                return Some(Step::Open(index));
            }
        }
        self.hedge_at = None;
        if self.running.is_empty() {
            self.rounds_left -= 1;
            if self.rounds_left == 0 || self.order.is_empty() {
                self.over = true;
                return Some(Step::GiveUp);
            }
            self.pause_until = Some(now + PAUSE);
        }
        None
    }

    /// Tries `rounds` times at least, the present one counted.
    pub fn insist(&mut self, rounds: u32) {
        self.rounds_left = self.rounds_left.max(rounds);
    }

    /// That provider's session could not be opened.
    pub fn failed(&mut self, now: Instant, index: usize) {
        self.running.retain(|running| *running != index);
        // The next one need not wait.
        self.hedge_at = self.hedge_at.map(|_| now);
    }

    /// When [`Self::next`] has something to do without anything having happened.
    pub fn deadline(&self) -> Option<Instant> {
        self.pause_until.or(self.hedge_at)
    }
}

/// The order in which a chain of `count` is tried after the provider at `present` was lost: those after it, those
/// before it, and itself last; or itself first, when it was not at fault.
pub fn order_after(present: usize, count: usize, itself_first: bool) -> Vec<usize> {
    let shift = usize::from(!itself_first);
    (0..count).map(|step| (present + step + shift) % count.max(1)).collect()
}

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const HEDGE: Duration = Duration::from_secs(1);

    #[test]
    fn an_error_moves_on_at_once_and_the_last_one_ends_the_round() {
        let now = Instant::now();
        let mut race = Race::new(vec![0, 1], 1, HEDGE);
        assert_eq!(steps(&mut race, now), [Step::Open(0)]);
        race.failed(now, 0);
        assert_eq!(steps(&mut race, now), [Step::Open(1)]);
        race.failed(now, 1);
        assert_eq!(steps(&mut race, now), [Step::GiveUp]);
        assert_eq!(steps(&mut race, now + HEDGE * 9), []);
    }

    #[test]
    fn a_slow_one_is_joined_by_the_next_and_may_still_win() {
        let now = Instant::now();
        let mut race = Race::new(vec![0, 1], 1, HEDGE);
        steps(&mut race, now);
        assert_eq!(race.deadline(), Some(now + HEDGE));
        assert_eq!(steps(&mut race, now + HEDGE / 2), []);
        assert_eq!(steps(&mut race, now + HEDGE), [Step::Open(1)]);
        assert_eq!(steps(&mut race, now + HEDGE * 2), []);
        assert_eq!(race.deadline(), None);
        race.failed(now + HEDGE * 2, 1);
        assert_eq!(steps(&mut race, now + HEDGE * 2), [], "the first is still being opened");
        race.failed(now + HEDGE * 5, 0);
        assert_eq!(steps(&mut race, now + HEDGE * 5), [Step::GiveUp]);
    }

    #[test]
    fn a_second_round_comes_after_a_pause() {
        let now = Instant::now();
        let mut race = Race::new(vec![0], 2, HEDGE);
        steps(&mut race, now);
        race.failed(now, 0);
        assert_eq!(steps(&mut race, now), []);
        assert_eq!(race.deadline(), Some(now + PAUSE));
        assert_eq!(steps(&mut race, now + PAUSE), [Step::Open(0)]);
        race.failed(now + PAUSE, 0);
        assert_eq!(steps(&mut race, now + PAUSE), [Step::GiveUp]);
    }

    #[test]
    fn nobody_is_tried_who_is_of_no_use() {
        let now = Instant::now();
        let mut race = Race::new(vec![0, 1, 2], 1, HEDGE);
        assert_eq!(race.next(now, |index| index == 2), Some(Step::Open(2)));
        let mut none = Race::new(vec![0, 1], 1, HEDGE);
        assert_eq!(none.next(now, |_| false), Some(Step::GiveUp));
        assert_eq!(Race::new(vec![], 2, HEDGE).next(now, |_| true), Some(Step::GiveUp));
    }

    #[test]
    fn the_one_that_was_lost_comes_last_unless_it_was_not_at_fault() {
        assert_eq!(order_after(0, 3, false), [1, 2, 0]);
        assert_eq!(order_after(1, 3, false), [2, 0, 1]);
        assert_eq!(order_after(1, 3, true), [1, 2, 0]);
        assert_eq!(order_after(0, 1, false), [0]);
    }

    fn steps(race: &mut Race, now: Instant) -> Vec<Step> {
        std::iter::from_fn(|| race.next(now, |_| true)).collect()
    }
}
