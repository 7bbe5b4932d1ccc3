//! The call's own record: numbers its events and makes sure that it is closed exactly once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Money, OnLimit};
use crate::cost::{Account, Charge};
use crate::event::{CallEnded, CallEvent, CallEventKind, CostScope, Disposition, Ephemeral, EventSink};
use crate::id::{CallId, LegId};
use crate::time::UnixMs;

/// How a call ended, as far as its task knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// In one word.
    pub disposition: Disposition,
    /// `caller`, `callee`, `assistant`, `api`, `system`.
    pub by: String,
    /// The status that fits the end.
    pub sip_status: u16,
    /// In words.
    pub reason: String,
}

impl Ending {
    /// An ending.
    pub fn new(disposition: Disposition, by: &str, sip_status: u16, reason: impl Into<String>) -> Self {
        Self { disposition, by: by.to_owned(), sip_status, reason: reason.into() }
    }
}

/// Writes the events of one call, in order, without gaps.
///
/// Dropped without [`Ledger::end`] (a panic, a cancelled task), it closes the record as failed: no way
/// out of a call leaves it open.
pub struct Ledger {
    call: CallId,
    sink: Arc<dyn EventSink>,
    last_seq: u64,
    started: Instant,
    answered: Option<Instant>,
    ended: bool,
    /// What it costs.
    account: Option<Box<Account>>,
    cost_shown: Option<Instant>,
}

impl Ledger {
    /// The ledger of a call whose `call.created` (sequence number 1) is already stored.
    pub fn opened(call: CallId, sink: Arc<dyn EventSink>, started: Instant) -> Self {
        Self {
            call,
            sink,
            last_seq: 1,
            started,
            answered: None,
            ended: false,
            account: None,
            cost_shown: None,
        }
    }

    /// What the call costs goes on this account.
    pub fn on_account(mut self, account: Account) -> Self {
        self.account = Some(Box::new(account));
        self
    }

    /// Which call.
    pub fn call(&self) -> CallId {
        self.call
    }

    /// Records what happened.
    pub fn record(&mut self, kind: CallEventKind) {
        if let Some(account) = &mut self.account {
            account.observe(&kind, millis(self.started.elapsed()));
        }
        self.write(kind);
    }

    fn write(&mut self, kind: CallEventKind) {
        self.last_seq += 1;
        self.sink.record(CallEvent { call: self.call, seq: self.last_seq, at: UnixMs::now(), kind });
    }

    /// Shows what need not be kept.
    pub fn show(&self, event: Ephemeral) {
        self.sink.show(self.call, event);
    }

    /// The caller hears us from `now` on. Only the first answer counts.
    pub fn answered(&mut self, now: Instant, codec: String) {
        if self.answered.is_none() {
            self.answered = Some(now);
            self.record(CallEventKind::Answered { codec });
        }
    }

    /// The call's own leg is this one.
    pub fn own_leg(&mut self, leg: LegId) {
        if let Some(account) = &mut self.account {
            account.own(leg.to_string());
        }
    }

    /// The call may cost no more than this.
    pub fn limit_cost(&mut self, most: Option<Money>) {
        if let (Some(account), Some(most)) = (&mut self.account, most) {
            account.limit_to(most);
        }
    }

    /// Counts what a provider charges for.
    pub fn charge(&mut self, provider: &str, charge: Charge<'_>) {
        if let Some(account) = &mut self.account {
            account.charge(provider, charge);
            self.tell_cost(Instant::now());
        }
    }

    /// When [`Ledger::tell_cost`] has something to tell at the latest.
    pub fn cost_due(&self) -> Option<Instant> {
        self.account.as_ref().filter(|account| account.is_moving())?;
        Some(self.cost_shown.unwrap_or(self.started) + COST_INTERVAL)
    }

    /// Writes what the call costs, if that is due and has changed, and the marks of limits that were passed.
    pub fn tell_cost(&mut self, now: Instant) {
        let now_ms = self.elapsed_ms(now);
        let Some(account) = &mut self.account else { return };
        let crossings = account.settle(now_ms);
        let limits: Vec<_> = crossings.into_iter().map(|crossing| account.limit_event(crossing)).collect();
        for limit in limits {
            let (scope, percent) = (limit.scope, limit.percent);
            match percent {
                100.. => tracing::warn!(?scope, "a limit of cost was reached"),
                _ => tracing::warn!(?scope, percent, "a limit of cost is near"),
            }
            metrics::counter!("tandem_cost_limits_total", "percent" => percent.to_string()).increment(1);
            // What the whole installation spends is no organization's to know; its administrators are told.
            if scope != CostScope::Installation {
                self.write(CallEventKind::CostLimit(limit));
            }
        }
        if self.cost_shown.is_none_or(|shown| now >= shown + COST_INTERVAL) {
            self.show_cost(now, now_ms);
        }
    }

    fn show_cost(&mut self, now: Instant, now_ms: u64) {
        let Some(account) = &mut self.account else { return };
        self.cost_shown = Some(now);
        if let Some(cost) = account.show(now_ms) {
            self.write(CallEventKind::Cost(Box::new(cost)));
        }
    }

    /// The limit that is used up, what happens then, and what the caller is told.
    pub fn out_of_money(&self) -> Option<(CostScope, OnLimit, Arc<str>)> {
        let account = self.account.as_ref()?;
        let scope = account.used_up()?;
        let (on_limit, farewell) = account.at_limit();
        Some((scope, on_limit, farewell))
    }

    /// Milliseconds into the call.
    pub fn elapsed_ms(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.started))
    }

    /// Closes the record. Only the first ending counts.
    pub fn end(&mut self, now: Instant, ending: Ending) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.tell_cost(now);
        self.show_cost(now, self.elapsed_ms(now));
        let billable = self.answered.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.record(CallEventKind::Ended(CallEnded {
            disposition: ending.disposition,
            ended_by: ending.by,
            sip_status: ending.sip_status,
            reason: ending.reason,
            duration_ms: self.elapsed_ms(now),
            billable_ms: millis(billable),
        }));
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.end(
            Instant::now(),
            Ending::new(Disposition::Failed, "system", 500, "the call's task stopped unexpectedly"),
        );
    }
}

/// What a call costs is written at most this often, and at its end.
const COST_INTERVAL: Duration = Duration::from_secs(5);

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::cost::{Costs, PriceBook, Rules};

    #[test]
    fn events_are_numbered_without_gaps_and_the_end_comes_once() {
        let sink = Arc::new(Kept::default());
        let start = Instant::now();
        let mut ledger = Ledger::opened(CallId::from_parts(1, 1), sink.clone(), start);
        ledger.answered(start + Duration::from_millis(100), "PCMU/8000".to_owned());
        ledger.answered(start + Duration::from_millis(200), "PCMU/8000".to_owned());
        ledger.end(start + Duration::from_millis(1100), ending());
        ledger.end(start + Duration::from_millis(9000), ending());
        drop(ledger);
        let events = sink.events();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
        match &events[1].kind {
            CallEventKind::Ended(ended) => assert_eq!((ended.duration_ms, ended.billable_ms), (1100, 1000)),
            other => panic!("the last event is {other:?}"),
        }
    }

    #[test]
    fn a_call_whose_task_is_lost_is_closed_as_failed() {
        let sink = Arc::new(Kept::default());
        drop(Ledger::opened(CallId::from_parts(1, 1), sink.clone(), Instant::now()));
        let events = sink.events();
        assert!(matches!(&events[0].kind, CallEventKind::Ended(e) if e.disposition == Disposition::Failed));
    }

    #[test]
    fn what_the_installation_spends_is_not_in_an_organizations_record() {
        let rules = Rules {
            max_per_call: "1".parse().ok(),
            max_per_day: "1".parse().ok(),
            on_limit: OnLimit::End,
            farewell: "Goodbye.".into(),
        };
        let kinds = [("o".to_owned(), "openai".to_owned())].into();
        let costs = Costs::new(PriceBook::built_in(), kinds, rules, None);
        let sink = Arc::new(Kept::default());
        let account = costs.open(UnixMs::now(), Some("acme"), "1".parse().ok());
        let mut ledger =
            Ledger::opened(CallId::from_parts(1, 1), sink.clone(), Instant::now()).on_account(account);
        let tokens = crate::provider::Tokens { output_audio: 20_000, ..Default::default() };
        ledger.charge("o", Charge::Response { model: "gpt-realtime-2.1", tokens });
        let mut told: Vec<_> = sink
            .events()
            .into_iter()
            .filter_map(|event| match event.kind {
                CallEventKind::CostLimit(limit) => Some(format!("{:?}", limit.scope)),
                _ => None,
            })
            .collect();
        told.sort();
        assert_eq!(told, ["Call", "Organization"]);
        assert!(ledger.out_of_money().is_some());
    }

    fn ending() -> Ending {
        Ending::new(Disposition::Completed, "caller", 200, "the caller hung up")
    }

    #[derive(Default)]
    struct Kept(Mutex<Vec<CallEvent>>);

    impl Kept {
        fn events(&self) -> Vec<CallEvent> {
            self.0.lock().expect("no test thread panicked").clone()
        }
    }

    impl EventSink for Kept {
        fn record(&self, event: CallEvent) {
            self.0.lock().expect("no test thread panicked").push(event);
        }

        fn show(&self, _call: CallId, _event: Ephemeral) {}
    }
}
