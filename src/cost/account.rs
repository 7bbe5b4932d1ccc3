//! A call's meter, held against the limits of the call and of its day.

use std::sync::Arc;

use super::budget::{Costs, Purse};
use super::meter::{Charge, Meter};
use crate::config::{MONEY_SCALE, Money, OnLimit};
use crate::event::{CallEventKind, Cost, CostLimit, CostScope, Direction};
use crate::time::UnixMs;

/// What one call spends, and what it may.
#[derive(Debug)]
pub struct Account {
    costs: Costs,
    meter: Meter,
    /// Of this call alone.
    limit: Option<Money>,
    told: u8,
    /// The call's own leg.
    own: Option<String>,
    organization: Option<String>,
    pots: Vec<Pot>,
    /// What of the sum has gone into the pots.
    counted: u64,
    shown: u64,
    unshown: bool,
}

/// A purse shared with other calls.
#[derive(Debug)]
pub(super) struct Pot {
    pub(super) scope: CostScope,
    pub(super) purse: Arc<Purse>,
    pub(super) limit: Option<Money>,
}

/// A mark that was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    /// Whose limit.
    pub scope: CostScope,
    /// 80 or 100.
    pub percent: u8,
    /// In billionths.
    pub spent: u64,
    /// In billionths.
    pub limit: u64,
}

impl Account {
    pub(super) fn new(costs: Costs, now: UnixMs, organization: Option<String>, pots: Vec<Pot>) -> Self {
        let limit = costs.rules().max_per_call;
        Self {
            costs,
            meter: Meter::new(now),
            limit,
            told: 0,
            own: None,
            organization,
            pots,
            counted: 0,
            shown: 0,
            unshown: false,
        }
    }

    /// This call may cost no more than this, either.
    pub fn limit_to(&mut self, most: Money) {
        self.limit = Some(self.limit.map_or(most, |limit| limit.min(most)));
    }

    /// Counts what a provider charges for.
    pub fn charge(&mut self, provider: &str, charge: Charge<'_>) {
        let kind = self.costs.kind(provider);
        self.unshown = true;
        if !self.meter.charge(self.costs.book(), provider, kind, charge) {
            return;
        }
        let model = match charge {
            Charge::Response { model, .. }
            | Charge::Transcription { model, .. }
            | Charge::Session { model, .. } => model,
        };
        metrics::counter!("tandem_cost_unpriced_total").increment(1);
        if self.costs.first_unpriced(format!("{kind} {model}")) {
            tracing::warn!(
                provider,
                model,
                "the price table has no price for this; add one to the file named by cost.prices"
            );
        }
    }

    /// Counts what the record tells of.
    pub fn observe(&mut self, event: &CallEventKind, now_ms: u64) {
        let book = self.costs.book();
        match event {
            CallEventKind::ProviderConnected { .. } => self.meter.new_session(),
            // One that was refused has not run.
            CallEventKind::ToolFinished { name, outcome, .. } if outcome != "refused" => {
                self.meter.tool(book, name);
                self.unshown = true;
            }
            CallEventKind::LegAdded { leg, direction, to, trunk: Some(trunk), .. } => {
                self.meter.leg(book, leg, trunk, *direction, to);
                // One that comes to take somebody's place is there.
                if *direction == Direction::Inbound {
                    self.meter.leg_up(leg, now_ms);
                }
            }
            CallEventKind::Answered { .. } => {
                self.own.iter().for_each(|leg| self.meter.leg_up(leg, now_ms));
            }
            CallEventKind::Bridged { legs, .. } => {
                legs.iter().for_each(|leg| self.meter.leg_up(leg, now_ms));
            }
            CallEventKind::LegEnded { leg, .. } => self.meter.leg_down(leg, now_ms),
            _ => {}
        }
    }

    /// The leg of an incoming call, over this trunk.
    pub fn incoming(&mut self, leg: &str, trunk: &str, number: &str) {
        self.meter.leg(self.costs.book(), leg, trunk, Direction::Inbound, number);
    }

    /// Which leg the call's own is.
    pub fn own(&mut self, leg: String) {
        self.own = Some(leg);
    }

    /// Puts what was spent since the last time into the pots; the marks that were passed by it.
    pub fn settle(&mut self, now_ms: u64) -> Vec<Crossing> {
        let total = self.meter.total(now_ms);
        let more = total.saturating_sub(self.counted);
        self.counted += more;
        let mut crossings = Vec::new();
        for pot in &self.pots {
            let spent = pot.purse.spend(more);
            let passed = passed(spent, pot.limit).filter(|(percent, _)| pot.purse.tell(*percent));
            crossings.extend(passed.map(|(percent, limit)| Crossing {
                scope: pot.scope,
                percent,
                spent,
                limit,
            }));
        }
        if let Some((percent, limit)) = passed(total, self.limit)
            && percent > self.told
        {
            self.told = percent;
            crossings.push(Crossing { scope: CostScope::Call, percent, spent: total, limit });
        }
        crossings
    }

    /// The limit that is used up.
    pub fn used_up(&self) -> Option<CostScope> {
        let up = |spent, limit| passed(spent, limit).is_some_and(|(percent, _)| percent == 100);
        if up(self.counted, self.limit) {
            return Some(CostScope::Call);
        }
        self.pots.iter().find(|pot| up(pot.purse.spend(0), pot.limit)).map(|pot| pot.scope)
    }

    /// What happens at a limit, and what the caller is told.
    pub fn at_limit(&self) -> (OnLimit, Arc<str>) {
        let rules = self.costs.rules();
        (rules.on_limit, Arc::clone(&rules.farewell))
    }

    /// For the record; whoever watches limits that calls share is told.
    pub fn limit_event(&self, crossing: Crossing) -> CostLimit {
        let limit = CostLimit {
            scope: crossing.scope,
            percent: crossing.percent,
            currency: self.costs.book().currency().to_owned(),
            scale: MONEY_SCALE,
            spent: crossing.spent,
            limit: crossing.limit,
        };
        let whose = match crossing.scope {
            CostScope::Organization => self.organization.as_deref(),
            CostScope::Installation | CostScope::Call => None,
        };
        if let Some(alarm) = self.costs.alarm().filter(|_| crossing.scope != CostScope::Call) {
            alarm.limit(whose, &limit);
        }
        limit
    }

    /// Whether [`Self::show`] is worth a look before long.
    pub fn is_moving(&self) -> bool {
        self.unshown || self.meter.is_running()
    }

    /// The sum, if it is not the one shown last.
    pub fn show(&mut self, now_ms: u64) -> Option<Cost> {
        let total = self.meter.total(now_ms);
        let news = self.unshown || total != self.shown;
        self.unshown = false;
        self.shown = total;
        (news && !self.meter.is_empty()).then(|| self.meter.cost(self.costs.book(), now_ms))
    }
}

/// The highest mark that was passed, and the limit.
fn passed(spent: u64, limit: Option<Money>) -> Option<(u8, u64)> {
    let limit = limit?.nanos();
    if spent >= limit {
        return Some((100, limit));
    }
    let near = u128::from(spent) * 100 >= u128::from(limit) * u128::from(NEAR_PERCENT);
    near.then_some((NEAR_PERCENT, limit))
}

/// From here on a limit is near.
const NEAR_PERCENT: u8 = 80;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::cost::{PriceBook, Rules, Tokens};

    fn costs(call: &str, day: &str) -> Costs {
        let limit = |text: &str| text.parse().ok();
        let rules = Rules {
            max_per_call: limit(call),
            max_per_day: limit(day),
            on_limit: OnLimit::End,
            farewell: "Goodbye.".into(),
        };
        let kinds = HashMap::from([("o".to_owned(), "openai".to_owned())]);
        Costs::new(PriceBook::built_in(), kinds, rules, None)
    }

    fn moment(text: &str) -> UnixMs {
        UnixMs::parse_rfc3339(text).expect("a moment")
    }

    /// So many cents.
    fn spend(account: &mut Account, cents: u64) -> Vec<(CostScope, u8)> {
        let tokens = Tokens { output_audio: cents * 10_000 / 64, ..Tokens::default() };
        assert_eq!(cents * 10_000 % 64, 0, "whole tokens");
        account.charge("o", Charge::Response { model: "gpt-realtime-2.1", tokens });
        account.settle(0).into_iter().map(|crossing| (crossing.scope, crossing.percent)).collect()
    }

    #[test]
    fn a_call_is_warned_at_eighty_per_cent_and_ends_at_its_limit() {
        let costs = costs("1.00", "");
        let mut account = costs.open(moment("2026-11-21T12:00:00Z"), None, None);
        assert_eq!(spend(&mut account, 72), []);
        assert_eq!(spend(&mut account, 8), [(CostScope::Call, 80)]);
        assert_eq!((spend(&mut account, 16), account.used_up()), (vec![], None));
        assert_eq!(spend(&mut account, 8), [(CostScope::Call, 100)]);
        assert_eq!((spend(&mut account, 8), account.used_up()), (vec![], Some(CostScope::Call)));
    }

    #[test]
    fn a_day_is_shared_by_its_calls_and_told_once() {
        let costs = costs("", "2.08");
        let now = moment("2026-11-21T12:00:00Z");
        costs.resume(now, [(Some("acme".to_owned()), 400_000_000), (None, 800_000_000)]);
        let daily = "0.80".parse().ok();
        let mut one = costs.open(now, Some("acme"), daily);
        let mut other = costs.open(now, Some("zeta"), None);
        assert_eq!(spend(&mut one, 32), [(CostScope::Organization, 80)]);
        assert_eq!(spend(&mut other, 40), [(CostScope::Installation, 80)]);
        assert_eq!(spend(&mut one, 8), [(CostScope::Organization, 100)]);
        assert_eq!((one.used_up(), other.used_up()), (Some(CostScope::Organization), None));
        assert_eq!(spend(&mut other, 8), [(CostScope::Installation, 100)]);
        assert_eq!(other.used_up(), Some(CostScope::Installation), "everybody's");
        let late = costs.open(now, Some("zeta"), None);
        assert_eq!(late.used_up(), Some(CostScope::Installation), "a new call finds it used up");
        let tomorrow = costs.open(moment("2026-11-22T00:00:00Z"), Some("acme"), daily);
        assert_eq!(tomorrow.used_up(), None, "a new day");
    }

    #[test]
    fn the_lower_limit_of_a_call_counts_and_what_did_not_change_is_not_shown() {
        let costs = costs("1.00", "");
        let mut account = costs.open(moment("2026-11-21T12:00:00Z"), None, None);
        account.limit_to(Money::from_nanos(160_000_000));
        account.limit_to(Money::from_nanos(400_000_000));
        assert!(account.show(0).is_none() && !account.is_moving());
        assert_eq!(spend(&mut account, 16), [(CostScope::Call, 100)]);
        assert_eq!(account.show(0).map(|cost| cost.total), Some(160_000_000));
        assert!(account.show(0).is_none() && !account.is_moving());
    }

    #[test]
    fn a_tool_that_was_refused_costs_nothing() {
        let book = "currency = \"USD\"\n[[tool]]\nname = \"find\"\nper_call = \"0.01\"\n";
        let (rules, now) = (costs("", "").rules().clone(), moment("2026-11-21T12:00:00Z"));
        let book = PriceBook::parse(book).expect("a table");
        let mut account = Costs::new(book, HashMap::new(), rules, None).open(now, None, None);
        for outcome in ["refused", "ok", "error"] {
            let (id, name) = ("1".to_owned(), "find".to_owned());
            let (ok, outcome) = (outcome == "ok", outcome.to_owned());
            account.observe(&CallEventKind::ToolFinished { id, name, ms: 1, ok, outcome }, 0);
        }
        assert_eq!(account.show(0).map(|cost| cost.total), Some(20_000_000));
    }

    #[test]
    fn a_limit_of_nothing_lets_nothing_begin() {
        let costs = costs("", "0");
        assert!(costs.open(moment("2026-11-21T12:00:00Z"), None, None).used_up().is_some());
    }
}
