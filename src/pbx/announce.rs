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
}

impl Announcement {
    /// Of a connection that comes within `ttl`, from anywhere the door lets in.
    pub fn new(who: Awaited, ttl: Duration) -> Self {
        Self { who, ttl, networks: Vec::new(), rate: None }
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
    /// The table is full.
    #[error("{CAPACITY} connections are announced and have not come; wait until some have, or have run out")]
    Full,
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

    /// Expects it no longer. Whether it was expected still.
    pub fn cancel(&self, key: &str) -> bool {
        self.lock().table.cancel(&normal(key))
    }

    /// Lets go of what has run out. Doors call it every second or so.
    pub fn expire(&self, now: Instant) {
        self.lock().table.expire(now);
    }

    /// How many connections are expected.
    pub fn len(&self) -> usize {
        self.lock().table.open
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
    /// Entries that are expected.
    open: usize,
}

enum Entry {
    Expected { announcement: Announcement, until: Instant },
    Used { forget: Instant },
    Expired { forget: Instant },
}

impl Table {
    fn expect(&mut self, now: Instant, key: String, announcement: Announcement) -> Result<(), CannotExpect> {
        if key.is_empty() || key.len() > KEY_LONGEST {
            return Err(CannotExpect::Key);
        }
        if self.open >= CAPACITY || self.entries.len() >= ENTRIES_MOST {
            self.expire(now);
        }
        if self.entries.contains_key(&key) {
            return Err(CannotExpect::Taken);
        }
        if self.open >= CAPACITY {
            return Err(CannotExpect::Full);
        }
        if self.entries.len() >= ENTRIES_MOST {
            // What is over is worth a better message, not a refusal.
            self.entries.retain(|_, entry| matches!(entry, Entry::Expected { .. }));
        }
        let until = now + announcement.ttl;
        self.entries.insert(key, Entry::Expected { announcement, until });
        self.open += 1;
        Ok(())
    }

    fn take(&mut self, now: Instant, key: &str, source: IpAddr) -> Result<Arrival, NotExpected> {
        let Some(entry) = self.entries.get_mut(key) else { return Err(NotExpected::Unknown) };
        let forget = now + REMEMBERED;
        let announcement = match entry {
            Entry::Used { .. } => return Err(NotExpected::Used),
            Entry::Expired { .. } => return Err(NotExpected::Expired),
            Entry::Expected { until, .. } if *until <= now => {
                *entry = Entry::Expired { forget };
                self.open -= 1;
                return Err(NotExpected::Expired);
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
        self.open -= 1;
        Ok(Arrival { who: announcement.who, rate: announcement.rate })
    }

    fn cancel(&mut self, key: &str) -> bool {
        if !matches!(self.entries.get(key), Some(Entry::Expected { .. })) {
            return false;
        }
        self.entries.remove(key);
        self.open -= 1;
        true
    }

    fn expire(&mut self, now: Instant) {
        let open = &mut self.open;
        self.entries.retain(|_, entry| {
            match entry {
                Entry::Expected { until, .. } if *until <= now => {
                    *entry = Entry::Expired { forget: now + REMEMBERED };
                    *open -= 1;
                }
                Entry::Used { forget } | Entry::Expired { forget } if *forget <= now => return false,
                Entry::Expected { .. } | Entry::Used { .. } | Entry::Expired { .. } => {}
            }
            true
        });
    }
}

/// UUIDs in small letters, as the wire's bytes are written; other keys as they stand.
fn normal(key: &str) -> String {
    key.parse::<Uuid>().map_or_else(|_| key.to_owned(), |uuid| uuid.to_string())
}

/// Most connections that are expected at a time.
const CAPACITY: usize = 10_000;

/// Most entries, with those that are over.
const ENTRIES_MOST: usize = 4 * CAPACITY;

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
        assert_eq!(table.take(now + TTL, "em-1", here()).err(), Some(NotExpected::Expired));
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
    fn the_table_has_a_bound_and_makes_room_by_itself() {
        let (table, now) = (table(), Instant::now());
        for index in 0..CAPACITY {
            table.expect(now, Some(&index.to_string()), call("100")).expect("room");
        }
        assert_eq!(table.expect(now, None, call("100")), Err(CannotExpect::Full));
        assert!(table.cancel("0") && !table.cancel("0"));
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
