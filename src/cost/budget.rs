//! What all calls of a day may spend together.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::account::{Account, Pot};
use super::prices::PriceBook;
use crate::config::{Money, OnLimit};
use crate::event::{CostLimit, CostScope};
use crate::time::UnixMs;

/// Is told of limits that many calls share, when they come near and when they are reached. Must not wait.
pub trait Alarm: Send + Sync {
    /// `whose`: the organization; `None`: everybody's.
    fn limit(&self, whose: Option<&str>, limit: &CostLimit);
}

/// Limits that hold for all calls.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Of one call.
    pub max_per_call: Option<Money>,
    /// Of all calls that begin on one day.
    pub max_per_day: Option<Money>,
    /// What happens at a limit.
    pub on_limit: OnLimit,
    /// What the caller is told then.
    pub farewell: Arc<str>,
}

/// Prices, limits and what the day has cost so far. Shared by all calls; opening an account takes a lock, spending
/// from it does not.
#[derive(Debug, Clone)]
pub struct Costs(Arc<Shared>);

struct Shared {
    alarm: Option<Box<dyn Alarm>>,
    book: Arc<PriceBook>,
    /// Kinds of providers, by the name of their section.
    kinds: HashMap<String, String>,
    rules: Rules,
    day: Mutex<Day>,
    unpriced: Mutex<HashSet<String>>,
}

/// The purses of one day. Calls keep those of the day they began on.
#[derive(Debug)]
struct Day {
    number: i64,
    all: Arc<Purse>,
    organizations: HashMap<String, Arc<Purse>>,
}

/// What was spent, by all calls that share it.
#[derive(Debug, Default)]
pub(super) struct Purse {
    spent: AtomicU64,
    /// The highest mark that was told, in per cent.
    told: AtomicU8,
}

impl Purse {
    fn holding(nanos: u64) -> Arc<Self> {
        Arc::new(Self { spent: AtomicU64::new(nanos), told: AtomicU8::new(0) })
    }

    /// Spends more; answers the sum.
    pub(super) fn spend(&self, nanos: u64) -> u64 {
        self.spent.fetch_add(nanos, Ordering::Relaxed).saturating_add(nanos)
    }

    /// Whether this mark is told for the first time.
    pub(super) fn tell(&self, percent: u8) -> bool {
        self.told.fetch_max(percent, Ordering::Relaxed) < percent
    }
}

impl Costs {
    /// These prices, the kinds of the providers' sections, and these limits.
    pub fn new(
        book: PriceBook,
        kinds: HashMap<String, String>,
        rules: Rules,
        alarm: Option<Box<dyn Alarm>>,
    ) -> Self {
        Self(Arc::new(Shared {
            alarm,
            book: Arc::new(book),
            kinds,
            rules,
            day: Mutex::new(Day::new(i64::MIN)),
            unpriced: Mutex::default(),
        }))
    }

    /// What the calls that began on the day of `now` have cost before this server started, by organization.
    pub fn resume(&self, now: UnixMs, spent: impl IntoIterator<Item = (Option<String>, u64)>) {
        let mut day = Day::new(day_of(now));
        for (organization, nanos) in spent {
            day.all.spend(nanos);
            if let Some(name) = organization {
                day.purse(&name).spend(nanos);
            }
        }
        *self.0.day.lock().unwrap_or_else(PoisonError::into_inner) = day;
    }

    /// The account of a call that begins now. `daily` is the organization's own limit of a day.
    pub fn open(&self, now: UnixMs, organization: Option<&str>, daily: Option<Money>) -> Account {
        let mut day = self.0.day.lock().unwrap_or_else(PoisonError::into_inner);
        if day.number < day_of(now) {
            *day = Day::new(day_of(now));
        }
        let pot = |scope, purse, limit| Pot { scope, purse, limit };
        let all = pot(CostScope::Installation, Arc::clone(&day.all), self.0.rules.max_per_day);
        let own = organization.map(|name| pot(CostScope::Organization, day.purse(name), daily));
        drop(day);
        let organization = organization.map(str::to_owned);
        Account::new(self.clone(), now, organization, own.into_iter().chain([all]).collect())
    }

    /// The prices.
    pub fn book(&self) -> &PriceBook {
        &self.0.book
    }

    /// The limits.
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }

    /// Who is told of shared limits.
    pub(super) fn alarm(&self) -> Option<&dyn Alarm> {
        self.0.alarm.as_deref()
    }

    /// The kind of a provider, by the name of its section.
    pub(super) fn kind<'a>(&'a self, provider: &'a str) -> &'a str {
        self.0.kinds.get(provider).map_or(provider, String::as_str)
    }

    /// Whether nobody was told yet that this has no price.
    pub(super) fn first_unpriced(&self, what: String) -> bool {
        let mut told = self.0.unpriced.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < UNPRICED_TOLD && told.insert(what)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Costs").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Day {
    fn new(number: i64) -> Self {
        Self { number, all: Purse::holding(0), organizations: HashMap::new() }
    }

    fn purse(&mut self, organization: &str) -> Arc<Purse> {
        if let Some(purse) = self.organizations.get(organization) {
            return Arc::clone(purse);
        }
        let purse = Purse::holding(0);
        self.organizations.insert(organization.to_owned(), Arc::clone(&purse));
        purse
    }
}

/// The day of a moment (UTC), in days since 1970-01-01.
fn day_of(at: UnixMs) -> i64 {
    at.get().div_euclid(DAY_MS)
}

/// The beginning of a moment's day (UTC).
pub fn start_of_day(at: UnixMs) -> UnixMs {
    UnixMs::new(day_of(at) * DAY_MS)
}

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Names that are told to have no price, at most.
const UNPRICED_TOLD: usize = 1000;
