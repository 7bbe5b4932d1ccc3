//! Who is expected at the doors that tell nothing but a key: a UUID of AudioSocket's, a connection id of the
//! WebSocket channel's.
//!
//! A key is a bearer secret: it is good once, for a while, from the networks it was announced for. What has
//! been used or has run out is remembered for a while, so that a door can say which it was.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use tokio::sync::mpsc;

use super::{PendingMedia, Uuid};
use crate::config::Network;

/// Whose connection is expected.
#[derive(Debug, Clone)]
pub enum Awaited {
    /// A new call's: it is for `called`.
    Call {
        /// Whom they call: an E.164 number or an extension.
        called: String,
        /// Their number or extension, where it is known.
        caller: Option<String>,
    },
    /// A leg's that is there already: the connection is its media. A sender that is dropped unused tells the
    /// leg that none comes.
    Leg(mpsc::Sender<PendingMedia>),
}

/// What is announced.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// Whose connection it will be.
    pub who: Awaited,
    /// How long it is waited for.
    pub ttl: Duration,
    /// Where it may come from. Empty: from wherever the door lets in.
    pub networks: Vec<Network>,
    /// What audio without a rate of its own is sampled at, in Hz; absent: what the door is configured for.
    pub rate: Option<u32>,
    /// Whose it is: they may take it back. Absent: the operator's.
    pub organization: Option<String>,
}

impl Announcement {
    /// Of a connection that comes within `ttl`, from anywhere the door lets in.
    pub fn new(who: Awaited, ttl: Duration) -> Self {
        Self { who, ttl, networks: Vec::new(), rate: None, organization: None }
    }
}

/// What a connection was announced as.
#[derive(Debug)]
pub struct Arrival {
    /// Whose it is.
    pub who: Awaited,
    /// See [`Announcement::rate`].
    pub rate: Option<u32>,
}

/// Why nothing can be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotExpect {
    /// The key is in use, or was a little while ago.
    #[error("this key is taken; announce the call with a fresh one")]
    Taken,
    /// The key is too short or too long.
    #[error("a key has 1 to {KEY_LONGEST} bytes")]
    Key,
    /// The table has no room for more of this kind.
    #[error("{0} connections are announced and have not come; wait until some have, or have run out")]
    Full(usize),
}

/// Why a connection is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotExpected {
    /// Nobody announced it.
    #[error("nobody has announced it")]
    Unknown,
    /// It came too late.
    #[error("it was announced, and came too late")]
    Expired,
    /// It came before.
    #[error("it came once before; each announcement is good for one connection")]
    Used,
    /// It was taken back, or was for a leg that is over or does not wait for it any more.
    #[error("whoever announced it waits no longer")]
    Deserted,
    /// It came from elsewhere.
    #[error("it was announced for another network")]
    WrongSource,
}

/// The table of who is expected. A handle: clones share the table.
#[derive(Clone)]
pub struct Announcements {
    // Held for one look-up; nothing of a call's audio passes here.
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    table: Table,
    rng: StdRng,
}

impl Announcements {
    /// An empty table. Keys are drawn from `rng`, whose seed must be unguessable.
    pub fn new(rng: StdRng) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { table: Table::default(), rng })) }
    }

    /// Expects a connection by `key`; `None`: by a new UUID. Answers the key, UUIDs in small letters.
    ///
    /// # Errors
    /// [`CannotExpect`].
    pub fn expect(
        &self,
        now: Instant,
        key: Option<&str>,
        announcement: Announcement,
    ) -> Result<String, CannotExpect> {
        let mut inner = self.lock();
        let key = match key {
            Some(key) => normal(key),
            None => Uuid::random(&mut inner.rng).to_string(),
        };
        inner.table.expect(now, key.clone(), announcement)?;
        Ok(key)
    }

    /// The connection of `key` has come from `source`. It is expected no more.
    ///
    /// # Errors
    /// [`NotExpected`]; one from the wrong source uses nothing up.
    pub fn take(&self, now: Instant, key: &str, source: IpAddr) -> Result<Arrival, NotExpected> {
        self.lock().table.take(now, &normal(key), source)
    }

    /// The connection of `key` has come from `source`, for a leg that is there already: what is announced for a
    /// new call is not found by it. For keys that are no secrets.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_leg(&self, now: Instant, key: &str, source: IpAddr) -> Result<Arrival, NotExpected> {
        let (key, mut inner) = (normal(key), self.lock());
        match inner.table.expected(&key) {
            Some(Announcement { who: Awaited::Leg(_), .. }) => inner.table.take(now, &key, source),
            _ => Err(NotExpected::Unknown),
        }
    }

    /// Expects it no longer. Whether it was expected still. One that comes all the same is [`NotExpected::Deserted`].
    pub fn cancel(&self, now: Instant, key: &str) -> bool {
        self.lock().table.cancel(now, &normal(key))
    }

    /// As [`Self::cancel`], for a call that somebody announced who `sees` what is this organization's.
    pub fn withdraw(&self, now: Instant, key: &str, sees: impl FnOnce(Option<&str>) -> bool) -> bool {
        let (key, mut inner) = (normal(key), self.lock());
        let theirs = match inner.table.expected(&key) {
            Some(Announcement { who: Awaited::Call { .. }, organization, .. }) => {
                sees(organization.as_deref())
            }
            _ => false,
        };
        theirs && inner.table.cancel(now, &key)
    }

    /// Lets go of what has run out. Doors call it every second or so.
    pub fn expire(&self, now: Instant) {
        self.lock().table.expire(now);
    }

    /// How many connections are expected.
    pub fn len(&self) -> usize {
        self.lock().table.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held; and a table after a panic is still a table.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Announcements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No keys.
        f.debug_struct("Announcements").field("expected", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Table {
    entries: HashMap<String, Entry>,
    /// Calls that are expected, by whose they are.
    calls: HashMap<Option<String>, usize>,
    /// Legs whose connection is expected.
    legs: usize,
}

enum Entry {
    Expected {
        announcement: Announcement,
        until: Instant,
    },
    Used {
        forget: Instant,
    },
    Expired {
        forget: Instant,
    },
    /// Its connection may be on its way, and is not a stranger's.
    Deserted {
        forget: Instant,
    },
}

impl Entry {
    /// What becomes of an announcement that has run out: the leg of a connection that comes too late has been told.
    fn run_out(announcement: &Announcement, now: Instant) -> Self {
        let forget = now + REMEMBERED;
        match announcement.who {
            Awaited::Call { .. } => Self::Expired { forget },
            Awaited::Leg(_) => Self::Deserted { forget },
        }
    }
}

impl Table {
    fn expect(&mut self, now: Instant, key: String, announcement: Announcement) -> Result<(), CannotExpect> {
        if key.is_empty() || key.len() > KEY_LONGEST {
            return Err(CannotExpect::Key);
        }
        if self.room(&announcement).is_err() || self.entries.len() >= ENTRIES_MOST {
            self.expire(now);
        }
        if self.entries.contains_key(&key) {
            return Err(CannotExpect::Taken);
        }
        self.room(&announcement)?;
        if self.entries.len() >= ENTRIES_MOST {
            // What is over is worth a better message, not a refusal.
            self.entries.retain(|_, entry| matches!(entry, Entry::Expected { .. }));
        }
        match &announcement.who {
            Awaited::Leg(_) => self.legs += 1,
            Awaited::Call { .. } => *self.calls.entry(announcement.organization.clone()).or_default() += 1,
        }
        let until = now + announcement.ttl;
        self.entries.insert(key, Entry::Expected { announcement, until });
        Ok(())
    }

    /// Whether there is room for one more. What some organization announces leaves that of the others, and that
    /// of legs.
    fn room(&self, announcement: &Announcement) -> Result<(), CannotExpect> {
        if let Awaited::Leg(_) = announcement.who {
            return if self.legs < LEGS_MOST { Ok(()) } else { Err(CannotExpect::Full(LEGS_MOST)) };
        }
        match self.calls.get(&announcement.organization) {
            Some(&theirs) if theirs >= THEIRS_MOST => Err(CannotExpect::Full(THEIRS_MOST)),
            _ if self.len() - self.legs >= CALLS_MOST => Err(CannotExpect::Full(CALLS_MOST)),
            _ => Ok(()),
        }
    }

    fn len(&self) -> usize {
        self.legs + self.calls.values().sum::<usize>()
    }

    /// What is expected by this key.
    fn expected(&self, key: &str) -> Option<&Announcement> {
        match self.entries.get(key) {
            Some(Entry::Expected { announcement, .. }) => Some(announcement),
            _ => None,
        }
    }

    fn take(&mut self, now: Instant, key: &str, source: IpAddr) -> Result<Arrival, NotExpected> {
        let Some(entry) = self.entries.get_mut(key) else { return Err(NotExpected::Unknown) };
        let forget = now + REMEMBERED;
        let announcement = match entry {
            Entry::Used { .. } => return Err(NotExpected::Used),
            Entry::Expired { .. } => return Err(NotExpected::Expired),
            Entry::Deserted { .. } => return Err(NotExpected::Deserted),
            Entry::Expected { announcement, until } if *until <= now => {
                over(&mut self.calls, &mut self.legs, announcement);
                *entry = Entry::run_out(announcement, now);
                return self.take(now, key, source);
            }
            Entry::Expected { announcement, .. } => announcement,
        };
        let networks = &announcement.networks;
        if !networks.is_empty() && !networks.iter().any(|network| network.contains(source)) {
            return Err(NotExpected::WrongSource);
        }
        let Entry::Expected { announcement, .. } = std::mem::replace(entry, Entry::Used { forget }) else {
            return Err(NotExpected::Used);
        };
        over(&mut self.calls, &mut self.legs, &announcement);
        Ok(Arrival { who: announcement.who, rate: announcement.rate })
    }

    fn cancel(&mut self, now: Instant, key: &str) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let Entry::Expected { announcement, .. } = entry else { return false };
        over(&mut self.calls, &mut self.legs, announcement);
        *entry = Entry::Deserted { forget: now + REMEMBERED };
        true
    }

    fn expire(&mut self, now: Instant) {
        let (calls, legs) = (&mut self.calls, &mut self.legs);
        self.entries.retain(|_, entry| match entry {
            Entry::Expected { announcement, until } if *until <= now => {
                over(calls, legs, announcement);
                *entry = Entry::run_out(announcement, now);
                true
            }
            Entry::Used { forget } | Entry::Expired { forget } | Entry::Deserted { forget } => *forget > now,
            Entry::Expected { .. } => true,
        });
    }
}

/// What was expected is no more.
fn over(calls: &mut HashMap<Option<String>, usize>, legs: &mut usize, announcement: &Announcement) {
    if let Awaited::Leg(_) = announcement.who {
        *legs -= 1;
    } else if let Some(count) = calls.get_mut(&announcement.organization) {
        *count -= 1;
        if *count == 0 {
            calls.remove(&announcement.organization);
        }
    }
}

/// UUIDs in small letters, as the wire's bytes are written; other keys as they stand.
fn normal(key: &str) -> String {
    key.parse::<Uuid>().map_or_else(|_| key.to_owned(), |uuid| uuid.to_string())
}

/// Most calls that are expected at a time, and of them those of one organization.
const CALLS_MOST: usize = 10_000;
const THEIRS_MOST: usize = 1_000;

/// Most legs that wait for their connection.
const LEGS_MOST: usize = 1_000;

/// Most entries, with those that are over.
const ENTRIES_MOST: usize = 4 * CALLS_MOST;

/// How long what is over is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Longest key, in bytes.
const KEY_LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn table() -> Announcements {
        Announcements::new(StdRng::seed_from_u64(1))
    }

    fn call(called: &str) -> Announcement {
        Announcement::new(Awaited::Call { called: called.to_owned(), caller: None }, TTL)
    }

    fn here() -> IpAddr {
        "192.0.2.7".parse().expect("an address")
    }

    #[track_caller]
    fn called(arrival: Result<Arrival, NotExpected>) -> String {
        match arrival.expect("expected").who {
            Awaited::Call { called, .. } => called,
            Awaited::Leg(_) => panic!("a leg"),
        }
    }

    #[test]
    fn an_announcement_is_good_once() {
        let (table, now) = (table(), Instant::now());
        let key = table.expect(now, None, call("100")).expect("room");
        assert!(key.parse::<Uuid>().is_ok(), "{key}");
        assert_eq!(table.len(), 1);
        assert_eq!(called(table.take(now, &key.to_uppercase(), here())), "100");
        assert!(table.is_empty());
        assert_eq!(table.take(now, &key, here()).err(), Some(NotExpected::Used));
        assert_eq!(table.take(now, "another", here()).err(), Some(NotExpected::Unknown));
        assert_eq!(table.expect(now, Some(&key), call("100")), Err(CannotExpect::Taken));
    }

    #[test]
    fn it_runs_out_and_is_forgotten_later() {
        let (table, now) = (table(), Instant::now());
        let early = table.expect(now, None, call("1")).expect("room");
        let seen = table.expect(now, None, call("2")).expect("room");
        assert_eq!(called(table.take(now + TTL - Duration::from_millis(1), &early, here())), "1");
        assert_eq!(table.take(now + TTL, &seen, here()).err(), Some(NotExpected::Expired));
        assert_eq!(table.len(), 0);
        table.expire(now + TTL + REMEMBERED);
        assert_eq!(table.take(now, &seen, here()).err(), Some(NotExpected::Unknown));
    }

    #[test]
    fn a_leg_that_waits_is_told_when_nothing_comes() {
        let (table, now) = (table(), Instant::now());
        let (sender, mut media) = mpsc::channel(1);
        let leg = Announcement::new(Awaited::Leg(sender), TTL);
        table.expect(now, Some("em-1"), leg).expect("room");
        assert!(matches!(media.try_recv(), Err(mpsc::error::TryRecvError::Empty)));
        table.expire(now + TTL);
        assert!(matches!(media.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        assert_eq!(table.take(now + TTL, "em-1", here()).err(), Some(NotExpected::Deserted));
    }

    #[test]
    fn a_stranger_who_knows_the_key_gets_nothing_and_uses_nothing_up() {
        let (table, now) = (table(), Instant::now());
        let networks = vec!["192.0.2.0/24".parse().expect("a network")];
        let key = table.expect(now, None, Announcement { networks, ..call("100") }).expect("room");
        let stranger = "203.0.113.1".parse().expect("an address");
        assert_eq!(table.take(now, &key, stranger).err(), Some(NotExpected::WrongSource));
        assert_eq!(called(table.take(now, &key, "::ffff:192.0.2.7".parse().expect("an address"))), "100");
    }

    #[test]
    fn one_organization_leaves_room_for_the_others_and_for_legs() {
        let (table, now) = (table(), Instant::now());
        let of = |name: usize| Announcement { organization: Some(format!("org{name}")), ..call("100") };
        for name in 0..CALLS_MOST / THEIRS_MOST {
            for _ in 0..THEIRS_MOST {
                table.expect(now, None, of(name)).expect("room");
            }
            assert_eq!(table.expect(now, None, of(name)), Err(CannotExpect::Full(THEIRS_MOST)));
        }
        assert_eq!(table.expect(now, None, of(999)), Err(CannotExpect::Full(CALLS_MOST)));
        let leg = || Announcement::new(Awaited::Leg(mpsc::channel(1).0), TTL);
        for _ in 0..LEGS_MOST {
            table.expect(now, None, leg()).expect("room");
        }
        assert_eq!(table.expect(now, None, leg()), Err(CannotExpect::Full(LEGS_MOST)));
        assert_eq!(table.len(), CALLS_MOST + LEGS_MOST);
        table.expire(now + TTL);
        assert!(table.is_empty());
    }

    #[test]
    fn only_who_sees_an_announcement_takes_it_back_and_only_a_call() {
        let (table, now) = (table(), Instant::now());
        let acme = Announcement { organization: Some("acme".to_owned()), ..call("100") };
        let key = table.expect(now, None, acme).expect("room");
        assert!(!table.withdraw(now, &key, |org| org == Some("globex")));
        assert_eq!(table.len(), 1);
        assert!(table.withdraw(now, &key.to_uppercase(), |org| org == Some("acme")));
        assert!(!table.withdraw(now, &key, |_| true));
        let leg = Announcement::new(Awaited::Leg(mpsc::channel(1).0), TTL);
        let key = table.expect(now, None, leg).expect("room");
        assert!(!table.withdraw(now, &key, |_| true), "a leg's connection is not theirs to refuse");
    }

    #[test]
    fn what_is_found_by_a_key_that_is_no_secret_is_a_leg() {
        let (table, now) = (table(), Instant::now());
        table.expect(now, Some("176.7"), call("100")).expect("room");
        assert_eq!(table.take_leg(now, "176.7", here()).err(), Some(NotExpected::Unknown));
        let leg = Announcement::new(Awaited::Leg(mpsc::channel(1).0), TTL);
        table.expect(now, Some("176.8"), leg).expect("room");
        assert!(matches!(table.take_leg(now, "176.8", here()).expect("a leg").who, Awaited::Leg(_)));
        assert_eq!(called(table.take(now, "176.7", here())), "100");
    }

    #[test]
    fn what_was_cancelled_is_no_strangers() {
        let (table, now) = (table(), Instant::now());
        let key = table.expect(now, None, call("100")).expect("room");
        assert!(table.cancel(now, &key));
        assert_eq!(table.take(now, &key, here()).err(), Some(NotExpected::Deserted));
        table.expire(now + REMEMBERED);
        assert_eq!(table.take(now, &key, here()).err(), Some(NotExpected::Unknown));
    }

    #[test]
    fn the_table_has_a_bound_and_makes_room_by_itself() {
        let (table, now) = (table(), Instant::now());
        for index in 0..THEIRS_MOST {
            table.expect(now, Some(&index.to_string()), call("100")).expect("room");
        }
        assert_eq!(table.expect(now, None, call("100")), Err(CannotExpect::Full(THEIRS_MOST)));
        assert!(table.cancel(now, "0") && !table.cancel(now, "0"));
        table.expect(now, None, call("100")).expect("room again");
        table.expect(now + TTL, None, call("100")).expect("the others have run out");
        assert_eq!(table.len(), 1);
        assert_eq!(table.expect(now, Some(""), call("100")), Err(CannotExpect::Key));
        assert_eq!(table.expect(now, Some(&"x".repeat(129)), call("100")), Err(CannotExpect::Key));
    }

    #[test]
    fn what_is_shown_of_the_table_holds_no_key() {
        let (table, now) = (table(), Instant::now());
        let key = table.expect(now, None, call("100")).expect("room");
        assert!(!format!("{table:?}").contains(&key));
    }
}
