//! How much each source may ask of us: token buckets and bans, in tables that do not grow.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Bounds on what one source may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FloodPolicy {
    /// Requests a second from one source outside of every trunk, beyond which they are not even looked at.
    /// Default 200; 0: no limit.
    pub requests_per_second: u32,
    /// How many of them may come at once. Default 400.
    pub burst: u32,
    /// New calls a second from one address of a trunk; further ones get 503. Default 0: no limit.
    pub invites_per_second: u32,
    /// Wrong passwords a minute from one source before it is banned. Default 10; 0: never.
    pub auth_failures: u32,
    /// How long a banned source is not heard. Default 5 min.
    pub ban: Duration,
}

impl Default for FloodPolicy {
    fn default() -> Self {
        Self {
            requests_per_second: 200,
            burst: 400,
            invites_per_second: 0,
            auth_failures: 10,
            ban: Duration::from_secs(300),
        }
    }
}

/// A token bucket for each source. When the table is full, the source that has been silent longest is forgotten, so
/// that a flood of forged sources costs no memory.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Thousandths of a token a second; 0: no limit.
    milli_per_second: u64,
    /// Most thousandths a bucket holds.
    milli_max: u64,
    sources: HashMap<IpAddr, Bucket>,
    /// Sources by their last use.
    order: BTreeMap<u64, IpAddr>,
    uses: u64,
}

#[derive(Debug)]
struct Bucket {
    milli: u64,
    /// Until when tokens are credited.
    until: Instant,
    /// Its place in the order of use.
    used: u64,
}

impl Buckets {
    /// So many tokens a second, and so many at once. 0 a second: no limit.
    pub(super) fn per_second(tokens: u32, burst: u32) -> Self {
        Self::new(u64::from(tokens) * MILLI, burst)
    }

    /// So many tokens a minute, all of them at once if need be. 0: no limit.
    pub(super) fn per_minute(tokens: u32) -> Self {
        Self::new(u64::from(tokens) * MILLI / 60, tokens)
    }

    fn new(milli_per_second: u64, burst: u32) -> Self {
        let milli_max = u64::from(burst.max(1)) * MILLI;
        Self { milli_per_second, milli_max, sources: HashMap::new(), order: BTreeMap::new(), uses: 0 }
    }

    /// Takes a token of this source; whether there was one.
    pub(super) fn take(&mut self, now: Instant, source: IpAddr) -> bool {
        if self.milli_per_second == 0 {
            return true;
        }
        let source = network_of(source);
        self.uses += 1;
        if !self.sources.contains_key(&source)
            && self.sources.len() >= SOURCES_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.sources.remove(&oldest);
        }
        let full = Bucket { milli: self.milli_max, until: now, used: self.uses };
        let bucket = self.sources.entry(source).or_insert(full);
        self.order.remove(&bucket.used);
        self.order.insert(self.uses, source);
        bucket.used = self.uses;
        bucket.fill(now, self.milli_per_second, self.milli_max);
        let taken = bucket.milli.checked_sub(MILLI);
        bucket.milli = taken.unwrap_or(bucket.milli);
        taken.is_some()
    }
}

impl Bucket {
    fn fill(&mut self, now: Instant, milli_per_second: u64, milli_max: u64) {
        let passed = u64::try_from(now.saturating_duration_since(self.until).as_micros()).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(milli_per_second) / 1_000_000;
        // What is too little for a thousandth counts the next time.
        if gained > 0 {
            self.until = now;
            self.milli = self.milli.saturating_add(gained).min(milli_max);
        }
    }
}

/// Sources that are not heard for a while. Forged sources cannot push a ban out before its time, unless there are
/// more bans than [`SOURCES_MAX`]; then the one that ends first is lifted.
#[derive(Debug)]
pub(super) struct Bans {
    failures: Buckets,
    time: Duration,
    until: HashMap<IpAddr, Instant>,
}

impl Bans {
    pub(super) fn new(policy: &FloodPolicy) -> Self {
        Self { failures: Buckets::per_minute(policy.auth_failures), time: policy.ban, until: HashMap::new() }
    }

    /// A source gave a wrong password; whether it is banned for it from now on.
    pub(super) fn failed(&mut self, now: Instant, source: IpAddr) -> bool {
        if self.failures.take(now, source) {
            return false;
        }
        if self.until.len() >= SOURCES_MAX {
            self.lift(now);
        }
        self.until.insert(network_of(source), now + self.time).is_none_or(|until| until <= now)
    }

    /// Whether the source is not to be heard.
    pub(super) fn holds(&self, now: Instant, source: IpAddr) -> bool {
        !self.until.is_empty() && self.until.get(&network_of(source)).is_some_and(|until| *until > now)
    }

    /// Makes room: forgets what is over, or else the ban that ends first.
    fn lift(&mut self, now: Instant) {
        self.until.retain(|_, until| *until > now);
        if self.until.len() < SOURCES_MAX {
            return;
        }
        let first = self.until.iter().min_by_key(|(_, until)| **until).map(|(source, _)| *source);
        if let Some(first) = first {
            self.until.remove(&first);
        }
    }
}

/// Who counts as one source: an IPv4 address, or the /64 that one IPv6 host can choose its addresses from.
fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) if v6.is_loopback() => IpAddr::V6(v6),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// Sources in one table.
const SOURCES_MAX: usize = 4_096;
const MILLI: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u32) -> IpAddr {
        IpAddr::V4((0xC000_0200 + last).into())
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut buckets = Buckets::per_second(10, 3);
        let start = Instant::now();
        let at_once = (0..5).filter(|_| buckets.take(start, source(1))).count();
        assert_eq!(at_once, 3);
        let asked_every_ms = (1..=1_000).map(|ms| start + Duration::from_millis(ms));
        let later = asked_every_ms.filter(|now| buckets.take(*now, source(1))).count();
        assert_eq!(later, 10);
        assert!(buckets.take(start, source(2)), "another source has its own");
    }

    #[test]
    fn no_rate_is_no_limit_and_no_memory() {
        let mut buckets = Buckets::per_second(0, 0);
        assert!((0..10_000).all(|_| buckets.take(Instant::now(), source(1))));
        assert!(buckets.sources.is_empty());
    }

    #[test]
    fn a_flood_of_forged_sources_forgets_the_silent_and_not_the_busy() {
        let (mut buckets, now) = (Buckets::per_second(1, 1), Instant::now());
        assert!(buckets.take(now, source(0)));
        for forged in 1..20_000 {
            buckets.take(now, source(forged));
            assert!(!buckets.take(now, source(0)), "its bucket is empty and remembered");
        }
        assert_eq!((buckets.sources.len(), buckets.order.len()), (SOURCES_MAX, SOURCES_MAX));
    }

    #[test]
    fn wrong_passwords_ban_for_a_while_and_forged_ones_do_not_lift_it() {
        let policy = FloodPolicy { auth_failures: 2, ban: Duration::from_secs(60), ..FloodPolicy::default() };
        let (mut bans, now) = (Bans::new(&policy), Instant::now());
        let banned: Vec<bool> = (0..4).map(|_| bans.failed(now, source(1))).collect();
        assert_eq!(banned, [false, false, true, false], "told once");
        for forged in 2..10_000 {
            bans.failed(now, source(forged));
        }
        assert!(bans.holds(now, source(1)) && !bans.holds(now, source(2)));
        assert!(!bans.holds(now + Duration::from_secs(61), source(1)));
    }

    #[test]
    fn one_ipv6_host_is_one_source_however_many_addresses_it_takes() {
        let mut buckets = Buckets::per_second(1, 1);
        let now = Instant::now();
        let host = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        assert!(buckets.take(now, host(1)) && !buckets.take(now, host(2)));
    }
}
