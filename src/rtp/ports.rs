//! UDP port pairs for media: even for RTP, the next odd one for RTCP.
//!
//! A pair is a guard: dropping it gives the ports back. They are then kept out of use for a while, so
//! that packets still under way to an ended call cannot reach the next one.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// Which ports, and what their sockets are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortPoolConfig {
    /// First port, inclusive; rounded up to an even one. Default 20000.
    pub first: u16,
    /// Last port, inclusive. Default 29999.
    pub last: u16,
    /// Time a returned pair is out of use. Default 30 s.
    pub quarantine: Duration,
    /// DSCP of sent packets, 0..=63. Default 46, expedited forwarding (RFC 3246).
    pub dscp: u8,
    /// Receive buffer of each RTP socket in bytes, as asked of the kernel. Default 128 KiB.
    pub receive_buffer: usize,
}

impl Default for PortPoolConfig {
    fn default() -> Self {
        Self {
            first: 20_000,
            last: 29_999,
            quarantine: Duration::from_secs(30),
            dscp: 46,
            receive_buffer: 128 * 1024,
        }
    }
}

/// Why there is no port pair.
#[derive(Debug, Error)]
pub enum PortError {
    /// The range holds no even port followed by an odd one.
    #[error("rtp_ports {first}-{last} holds no pair of an even and an odd port; the first must be the lower")]
    EmptyRange {
        /// As configured.
        first: u16,
        /// As configured.
        last: u16,
    },
    /// All are in use.
    #[error(
        "all {pairs} port pairs of rtp_ports are taken ({in_use} by calls, {quarantined} resting after calls, \
         {foreign} by other programs); widen rtp_ports"
    )]
    Exhausted {
        /// Pairs in the range.
        pairs: usize,
        /// Held by guards.
        in_use: usize,
        /// In quarantine.
        quarantined: usize,
        /// Bound by somebody else.
        foreign: usize,
    },
    /// The address is not one of this machine, or sockets are exhausted.
    #[error("cannot open media sockets on {address}: {source}")]
    Socket {
        /// Address and port that were tried.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

/// A range of ports, shared by all calls. Clones are handles to the same pool.
#[derive(Debug, Clone)]
pub struct PortPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: PortPoolConfig,
    /// State of each pair, lowest port first. Locked for a look at a byte, never across a system call
    /// other than bind.
    pairs: Mutex<Vec<Pair>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pair {
    Free,
    InUse,
    Resting(Instant),
}

/// Two bound non-blocking sockets. Register them with the worker's own runtime.
#[derive(Debug)]
pub struct PortPair {
    /// On the even port.
    pub rtp: UdpSocket,
    /// On the odd port above it.
    pub rtcp: UdpSocket,
    /// Gives the ports back when dropped; keep it as long as the sockets.
    pub guard: PortGuard,
}

/// The right to use a pair of ports.
#[derive(Debug)]
pub struct PortGuard {
    pool: Arc<Shared>,
    at: usize,
    /// Nobody outside was told of the ports, so they need no rest.
    unused: bool,
}

impl PortPool {
    /// A pool with all pairs free.
    ///
    /// # Errors
    /// When the range holds no pair.
    pub fn new(config: PortPoolConfig) -> Result<Self, PortError> {
        let (first, last) = (u32::from(config.first).next_multiple_of(2), u32::from(config.last));
        if first + 1 > last {
            return Err(PortError::EmptyRange { first: config.first, last: config.last });
        }
        let pairs = (last - first).div_ceil(2) as usize;
        Ok(Self(Arc::new(Shared { config, pairs: Mutex::new(vec![Pair::Free; pairs]) })))
    }

    /// Binds a pair on `address`, starting the search at a random one and passing over ports that other
    /// programs hold.
    ///
    /// # Errors
    /// When no pair is free, or sockets cannot be opened on that address at all.
    pub fn allocate(&self, address: IpAddr, now: Instant) -> Result<PortPair, PortError> {
        let count = self.capacity();
        let start = rand::random::<u32>() as usize % count;
        let (mut foreign, mut after) = (0, 0);
        while let Some((step, guard)) = self.reserve_from(start, after, now) {
            after = step + 1;
            match self.bound(address, guard)? {
                Some(pair) => return Ok(pair),
                None => foreign += 1,
            }
        }
        // Rather a pair that has rested a little than no call: whatever still comes for the old call has another
        // source, and is not believed.
        for _ in 0..HURRIED_TRIES {
            let Some(guard) = self.reserve_longest_resting(now) else { break };
            match self.bound(address, guard)? {
                Some(pair) => return Ok(pair),
                None => foreign += 1,
            }
        }
        let pairs = self.0.lock();
        let in_use = pairs.iter().filter(|pair| **pair == Pair::InUse).count();
        let quarantined = pairs.iter().filter(|pair| matches!(pair, Pair::Resting(_))).count();
        Err(PortError::Exhausted { pairs: count, in_use, quarantined, foreign })
    }

    /// Pairs in the range.
    pub fn capacity(&self) -> usize {
        self.0.lock().len()
    }

    /// Pairs held by guards.
    pub fn in_use(&self) -> usize {
        self.0.lock().iter().filter(|pair| **pair == Pair::InUse).count()
    }

    /// The sockets of a pair; none when another program holds one of its ports.
    fn bound(&self, address: IpAddr, guard: PortGuard) -> Result<Option<PortPair>, PortError> {
        match self.0.bind(address, guard.at) {
            Ok((rtp, rtcp)) => Ok(Some(PortPair { rtp, rtcp, guard })),
            Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse => {
                guard.release_unused();
                Ok(None)
            }
            Err((address, source)) => {
                guard.release_unused();
                Err(PortError::Socket { address, source })
            }
        }
    }

    /// The first usable pair `after` so many steps from `start`, and how many steps that is.
    fn reserve_from(&self, start: usize, after: usize, now: Instant) -> Option<(usize, PortGuard)> {
        let mut pairs = self.0.lock();
        let count = pairs.len();
        let usable = |pair: Pair| match pair {
            Pair::Free => true,
            Pair::InUse => false,
            Pair::Resting(until) => until <= now,
        };
        let step = (after..count).find(|step| usable(pairs[(start + step) % count]))?;
        let at = (start + step) % count;
        pairs[at] = Pair::InUse;
        drop(pairs);
        Some((step, PortGuard::new(&self.0, at)))
    }

    /// The pair that has rested longest, if that was long enough for packets under way to have arrived.
    fn reserve_longest_resting(&self, now: Instant) -> Option<PortGuard> {
        let least = self.0.config.quarantine.saturating_sub(LEAST_REST);
        let mut pairs = self.0.lock();
        let resting = pairs.iter().enumerate().filter_map(|(at, pair)| match pair {
            Pair::Resting(until) => Some((*until, at)),
            Pair::Free | Pair::InUse => None,
        });
        let (_, at) = resting.min().filter(|(until, _)| *until <= now + least)?;
        pairs[at] = Pair::InUse;
        drop(pairs);
        Some(PortGuard::new(&self.0, at))
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pair>> {
        // Every state of the vector is a valid one, whoever panicked.
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn port(&self, at: usize) -> u16 {
        self.config.first.next_multiple_of(2) + 2 * at as u16
    }

    fn bind(&self, ip: IpAddr, at: usize) -> Result<(UdpSocket, UdpSocket), (SocketAddr, io::Error)> {
        let rtp = SocketAddr::new(ip, self.port(at));
        let rtcp = SocketAddr::new(ip, self.port(at) + 1);
        let open = |address, buffer| self.socket(address, buffer).map_err(|error| (address, error));
        Ok((open(rtp, Some(self.config.receive_buffer))?, open(rtcp, None)?))
    }

    fn socket(&self, address: SocketAddr, buffer: Option<usize>) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // Marking and buffer size are wishes: a system that refuses them still carries calls.
        let traffic_class = u32::from(self.config.dscp & 0x3f) << 2;
        let marked = match address {
            SocketAddr::V4(_) => socket.set_tos_v4(traffic_class),
            SocketAddr::V6(_) => socket.set_tclass_v6(traffic_class),
        };
        if let Err(error) = marked {
            tracing::debug!(%error, "media packets are not marked with a DSCP");
        }
        if let Some(Err(error)) = buffer.map(|bytes| socket.set_recv_buffer_size(bytes)) {
            tracing::debug!(%error, "the media receive buffer keeps its size");
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    }
}

impl PortGuard {
    /// The RTP port.
    pub fn port(&self) -> u16 {
        self.pool.port(self.at)
    }

    fn new(pool: &Arc<Shared>, at: usize) -> Self {
        metrics::gauge!("tandem_rtp_port_pairs").increment(1.0);
        Self { pool: Arc::clone(pool), at, unused: false }
    }

    /// Gives the pair back without rest, because nobody was told of it.
    fn release_unused(mut self) {
        self.unused = true;
    }
}

impl Drop for PortGuard {
    fn drop(&mut self) {
        let until = Instant::now() + self.pool.config.quarantine;
        self.pool.lock()[self.at] = if self.unused { Pair::Free } else { Pair::Resting(until) };
        metrics::gauge!("tandem_rtp_port_pairs").decrement(1.0);
    }
}

/// How long a pair rests at the least.
const LEAST_REST: Duration = Duration::from_secs(2);
/// Pairs tried once none has rested fully.
const HURRIED_TRIES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn pool(first: u16, last: u16) -> PortPool {
        PortPool::new(PortPoolConfig { first, last, ..PortPoolConfig::default() }).expect("range")
    }

    #[test]
    fn pairs_are_even_and_odd_within_the_range_and_all_different() {
        let pool = pool(18_001, 18_008);
        assert_eq!(pool.capacity(), 3);
        let pairs: Vec<_> = (0..3).map(|_| pool.allocate(LOOPBACK, Instant::now()).expect("free")).collect();
        let mut ports: Vec<u16> = pairs.iter().map(|pair| pair.guard.port()).collect();
        for pair in &pairs {
            let (rtp, rtcp) = (pair.rtp.local_addr().expect("bound"), pair.rtcp.local_addr().expect("bound"));
            assert_eq!((rtp.port(), rtcp.port()), (pair.guard.port(), pair.guard.port() + 1));
        }
        ports.sort_unstable();
        assert_eq!(ports, [18_002, 18_004, 18_006]);
        let refused = pool.allocate(LOOPBACK, Instant::now()).expect_err("exhausted");
        assert!(matches!(refused, PortError::Exhausted { pairs: 3, in_use: 3, .. }), "{refused}");
    }

    #[test]
    fn without_a_rested_pair_the_one_that_rested_longest_is_used() {
        let pool = pool(18_020, 18_023);
        let now = Instant::now();
        let (first, second) = (pool.allocate(LOOPBACK, now), pool.allocate(LOOPBACK, now));
        let port = first.as_ref().expect("free").guard.port();
        drop(first);
        drop(second);
        assert!(pool.allocate(LOOPBACK, now).is_err(), "packets may still be under way");
        let pair = pool.allocate(LOOPBACK, Instant::now() + LEAST_REST).expect("rested a little");
        assert_eq!(pair.guard.port(), port);
    }

    #[test]
    fn a_returned_pair_rests_before_it_is_used_again() {
        let pool = pool(18_010, 18_011);
        drop(pool.allocate(LOOPBACK, Instant::now()).expect("free"));
        assert_eq!(pool.in_use(), 0);
        let refused = pool.allocate(LOOPBACK, Instant::now()).expect_err("resting");
        assert!(matches!(refused, PortError::Exhausted { quarantined: 1, .. }), "{refused}");
        pool.allocate(LOOPBACK, Instant::now() + Duration::from_secs(31)).expect("rested");
    }

    #[test]
    fn ports_of_other_programs_are_passed_over() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 18_021)).expect("bind");
        let pool = pool(18_020, 18_023);
        let pair = pool.allocate(LOOPBACK, Instant::now()).expect("the other pair");
        assert_eq!(pair.guard.port(), 18_022);
        let refused = pool.allocate(LOOPBACK, Instant::now()).expect_err("exhausted");
        assert!(matches!(refused, PortError::Exhausted { foreign: 1, in_use: 1, .. }), "{refused}");
        drop(taken);
        let freed = pool.allocate(LOOPBACK, Instant::now()).expect("not put to rest by the failed try");
        assert_eq!(freed.guard.port(), 18_020);
    }

    #[test]
    fn an_address_of_another_machine_is_an_error_that_names_it() {
        let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let error = pool(18_030, 18_031).allocate(elsewhere, Instant::now()).expect_err("not ours");
        assert!(error.to_string().contains("192.0.2.1:18030"), "{error}");
    }

    #[test]
    fn ipv6_works_where_the_machine_has_it() {
        if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            return;
        }
        let pair = pool(18_040, 18_041).allocate(Ipv6Addr::LOCALHOST.into(), Instant::now()).expect("free");
        assert!(pair.rtp.local_addr().expect("bound").is_ipv6());
    }

    #[test]
    fn an_empty_range_is_refused() {
        for (first, last) in [(20_001, 20_002), (20_000, 20_000), (30_000, 20_000), (65_535, 65_535)] {
            let config = PortPoolConfig { first, last, ..PortPoolConfig::default() };
            assert!(PortPool::new(config).is_err(), "{first}-{last}");
        }
        assert_eq!(pool(65_534, 65_535).capacity(), 1);
    }
}
