//! The 20 ms grid of one media worker: a timer of the kernel's, a wheel, and a ticket per stream.
//!
//! The shell around [`SlotWheel`]. It uses a timer file descriptor with absolute deadlines, because the
//! runtime's own timers round up to the next millisecond.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::slots::{Due, SlotWheel};

/// Hands out tickets; one per media worker. A clone is the same pacer.
#[derive(Debug, Clone)]
pub struct Pacer(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    wheel: RefCell<SlotWheel<u64>>,
    members: RefCell<HashMap<u64, Rc<Member>>>,
    next_key: Cell<u64>,
    timer: AsyncFd<OwnedFd>,
    armed: Cell<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Member {
    due: RefCell<VecDeque<Tick>>,
    waker: RefCell<Option<Waker>>,
}

/// One 20 ms slot of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// When the packet should leave.
    pub deadline: Instant,
    /// Slots before this one that were missed altogether.
    pub missed: u32,
}

impl Pacer {
    /// Starts the pacer on the calling thread's `LocalSet`, with which it ends.
    ///
    /// # Errors
    /// When the kernel gives no timer.
    pub fn start() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "an OwnedFd is one descriptor for its whole life, so this use is sound"
        )]
        let timer = AsyncFd::new(timer)?;
        let inner = Rc::new(Inner {
            wheel: RefCell::new(SlotWheel::new(next_millisecond())),
            members: RefCell::default(),
            next_key: Cell::new(0),
            timer,
            armed: Cell::new(None),
        });
        let pacer = Self(Rc::clone(&inner));
        tokio::task::spawn_local(async move {
            while let Ok(()) = inner.turn().await {}
            tracing::error!("the media timer failed; streams of this worker stop");
        });
        Ok(pacer)
    }

    /// Joins the grid, at the slot that begins next.
    pub fn join(&self) -> Ticket {
        let key = self.0.next_key.get();
        self.0.next_key.set(key + 1);
        let member = Rc::new(Member::default());
        self.0.members.borrow_mut().insert(key, Rc::clone(&member));
        let now = Instant::now();
        let mut wheel = self.0.wheel.borrow_mut();
        let slot = wheel.slot_after(now);
        wheel.join(now, slot, key);
        drop(wheel);
        self.0.rearm();
        Ticket { pacer: self.clone(), key, member }
    }
}

/// One stream's place on the grid; dropping it gives the place back.
#[derive(Debug)]
pub struct Ticket {
    pacer: Pacer,
    key: u64,
    member: Rc<Member>,
}

impl Ticket {
    /// Ready when a slot of this stream is due. Each slot is handed out once.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Tick> {
        if let Some(tick) = self.member.due.borrow_mut().pop_front() {
            return Poll::Ready(tick);
        }
        let mut waker = self.member.waker.borrow_mut();
        match waker.as_mut() {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pacer.0.wheel.borrow_mut().leave(self.key);
        self.pacer.0.members.borrow_mut().remove(&self.key);
    }
}

impl Inner {
    /// Waits for the next deadline and wakes whose turn it is.
    async fn turn(&self) -> io::Result<()> {
        let mut guard = self.timer.readable().await?;
        let mut expirations = [0u8; 8];
        match rustix::io::read(guard.get_inner(), &mut expirations) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
            Err(error) => return Err(error.into()),
        }
        self.armed.set(None);
        let mut due = Vec::new();
        self.wheel.borrow_mut().due(Instant::now(), &mut due);
        let members = self.members.borrow();
        for Due { key, deadline, missed } in due {
            let Some(member) = members.get(&key) else { continue };
            let mut waiting = member.due.borrow_mut();
            if waiting.len() < MOST_WAITING {
                waiting.push_back(Tick { deadline, missed });
            } else if let Some(last) = waiting.back_mut() {
                *last = Tick { deadline, missed: last.missed + missed + 1 };
            }
            drop(waiting);
            if let Some(waker) = member.waker.borrow_mut().take() {
                waker.wake();
            }
        }
        drop(members);
        self.rearm();
        Ok(())
    }

    /// Sets the timer to the wheel's next deadline, unless it already is.
    fn rearm(&self) {
        let Some(next) = self.wheel.borrow().next_deadline() else { return };
        if self.armed.get().is_some_and(|armed| armed <= next) {
            return;
        }
        let at = monotonic(next);
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        match timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &spec) {
            Ok(_) => self.armed.set(Some(next)),
            Err(error) => tracing::error!(%error, "the media timer cannot be set"),
        }
    }
}

/// The kernel's monotonic time of an `Instant`. The standard library hides it, so it is found from the
/// distance to now, on the same clock.
fn monotonic(at: Instant) -> Timespec {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = Duration::new(clock.tv_sec.unsigned_abs(), u32::try_from(clock.tv_nsec).unwrap_or(0));
    let target = now + at.saturating_duration_since(Instant::now());
    Timespec { tv_sec: target.as_secs().cast_signed(), tv_nsec: i64::from(target.subsec_nanos()) }
}

/// The next whole millisecond of the kernel's monotonic clock: where a worker that gathers its wake-ups looks
/// up, so that slots are neither early nor late.
fn next_millisecond() -> Instant {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let passed = clock.tv_nsec.unsigned_abs() % NANOS_PER_MILLISECOND;
    Instant::now() + Duration::from_nanos(NANOS_PER_MILLISECOND - passed)
}

const NANOS_PER_MILLISECOND: u64 = 1_000_000;
/// Slots a stream may leave unread before they count as missed: a task that is this late has bigger
/// troubles than the frames in between.
const MOST_WAITING: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ticket_gets_its_slots_in_order_twenty_milliseconds_apart() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let pacer = Pacer::start().expect("a timer");
            let mut ticket = pacer.join();
            let mut other = pacer.join();
            let mut deadlines = Vec::new();
            for _ in 0..3 {
                deadlines.push(std::future::poll_fn(|cx| ticket.poll_tick(cx)).await);
                std::future::poll_fn(|cx| other.poll_tick(cx)).await;
            }
            // A tick that was missed on a loaded machine is told as such: the grid itself never moves.
            for pair in deadlines.windows(2) {
                let distance = pair[1].deadline - pair[0].deadline;
                assert_eq!(distance, Duration::from_millis(20) * (1 + pair[1].missed));
            }
        });
    }
}
