//! The phones' RTP: one thread for all of them.
//!
//! Each phone has a connected socket and a place in the 20 ms frame; deadlines are absolute. The thread
//! waits in one place for the next deadline and for all sockets together, and takes the time as soon as it
//! wakes, before anything is read: that is when the packets that woke it arrived.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, TcpStream as StdStream, UdpSocket as StdSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::task::AtomicWaker;
use rustix::thread::Pid;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::grid::{Faults, Spread};
use super::line::{Line, Loud};
use super::machine;
use crate::audiosocket::codec::AudioKind;

/// The generator's handle.
pub struct Generator {
    /// The thread it runs on.
    pub thread: Pid,
    commands: Commands,
    heard: oneshot::Receiver<Heard>,
}

/// Where the generator is told what to do.
pub type Commands = mpsc::Sender<Command>;

/// What the generator can be told.
pub enum Command {
    /// Begin to send for this call, from this socket to there.
    Add {
        /// Its number.
        call: usize,
        /// Bound, not connected.
        socket: StdSocket,
        /// The server's RTP address.
        remote: SocketAddr,
    },
    /// Begin to send for this call over an AudioSocket that has named itself.
    AddAudioSocket {
        /// Its number.
        call: usize,
        /// Connected.
        socket: StdStream,
        /// What is sent.
        kind: AudioKind,
        /// When it began to connect.
        since: Instant,
    },
    /// Tell how many AudioSockets are up: something came, and they are not closed.
    Alive(oneshot::Sender<usize>),
    /// The call is over.
    Remove(usize),
    /// Begin or end to count.
    Measure(bool),
    /// Tell the distances from the grid so far, and count anew.
    Page(oneshot::Sender<Spread>),
    /// Tell everything and end.
    Stop,
}

/// What the phones say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// Loud packets among quiet ones, by the schedule of [`marker`](super::marker).
    Markers,
    /// Each packet tells when it left. Who relays packets as they are delivers it so; who transcodes does not.
    Stamps,
}

/// Everything the phones have to tell.
pub struct Heard {
    /// By call number.
    pub calls: Vec<Option<Phone>>,
    /// How late packets of ours left, while measuring.
    pub lateness: Spread,
    /// |distance of two packets − 20 ms|, while measuring.
    pub gap_error: Spread,
    /// Distance from each stream's grid, while measuring.
    pub grid_error: Spread,
    /// How long stamped packets took, while measuring.
    pub delay: Spread,
    /// Packets that came without the stamp they left with, while measuring.
    pub unstamped: u64,
    /// Packets received while measuring.
    pub received: u64,
    /// Packets sent while measuring.
    pub sent: u64,
    /// Faults of the streams over the whole run.
    pub faults: Faults,
    /// Datagrams that could not be sent, or frames that a connection did not take.
    pub send_errors: u64,
    /// From connecting to the first audio, of AudioSockets.
    pub begun: Spread,
    /// AudioSockets that the server closed.
    pub closed: usize,
    /// While measuring.
    pub from: Instant,
    /// While measuring.
    pub to: Instant,
    /// Whether the generator had real-time scheduling.
    pub realtime: bool,
}

/// The moments of one phone.
#[derive(Debug, Default, Clone)]
pub struct Phone {
    /// When its markers left.
    pub marked: Vec<Instant>,
    /// When the assistant began to be heard.
    pub heard: Vec<Instant>,
}

impl Generator {
    /// Starts the thread, for up to `calls` calls.
    ///
    /// # Errors
    /// When there is no thread or timer to be had.
    pub fn start(calls: usize, talk: Talk, cores: Vec<usize>) -> anyhow::Result<Self> {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (tell, heard) = oneshot::channel();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let work = move || {
            machine::pin(&cores);
            let realtime = machine::realtime(PRIORITY);
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                match Works::new(calls, talk, inbox, realtime) {
                    Ok(mut works) => {
                        let begun = ready.send(Ok(machine::this_thread()));
                        let whole = std::future::poll_fn(|cx| works.poll(cx));
                        tokio::task::unconstrained(whole).await;
                        if begun.is_ok() {
                            let _unwanted = tell.send(works.tell());
                        }
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        };
        std::thread::Builder::new().name("bench-phones".to_owned()).spawn(work)?;
        let thread = started.recv().context("the generator's thread stopped")??;
        Ok(Self { thread, commands, heard })
    }

    /// Where to send commands.
    pub fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Begins or ends to count.
    pub async fn measure(&self, on: bool) {
        // A generator that has died is noticed when it is asked for what it heard.
        let _gone = self.commands.send(Command::Measure(on)).await;
    }

    /// How far packets were from their grids since counting began, which begins anew.
    ///
    /// # Errors
    /// When the generator has died.
    pub async fn turn_page(&self) -> anyhow::Result<Spread> {
        let (tell, told) = oneshot::channel();
        let _gone = self.commands.send(Command::Page(tell)).await;
        told.await.context("the generator stopped by itself")
    }

    /// Ends the thread.
    ///
    /// # Errors
    /// When it has died.
    pub async fn stop(self) -> anyhow::Result<Heard> {
        let _gone = self.commands.send(Command::Stop).await;
        self.heard.await.context("the generator stopped by itself")
    }
}

/// The generator's state; lives on its thread.
struct Works {
    talk: Talk,
    inbox: mpsc::Receiver<Command>,
    bell: Arc<Bell>,
    timer: AsyncFd<OwnedFd>,
    lines: Vec<Option<Line>>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    ringing: Vec<usize>,
    loud: Loud,
    samples: Vec<i16>,
    epoch: Instant,
    measuring: bool,
    heard: Heard,
}

/// Collects which sockets have something to read.
#[derive(Default)]
struct Bell {
    ringing: Mutex<Vec<usize>>,
    generator: AtomicWaker,
}

struct Ring {
    line: usize,
    bell: Arc<Bell>,
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bell.ringing.lock().unwrap_or_else(PoisonError::into_inner).push(self.line);
        self.bell.generator.wake();
    }
}

impl Works {
    fn new(
        calls: usize,
        talk: Talk,
        inbox: mpsc::Receiver<Command>,
        realtime: bool,
    ) -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "an OwnedFd is one descriptor for its whole life, so this use is sound"
        )]
        let timer = AsyncFd::new(timer)?;
        let now = Instant::now();
        Ok(Self {
            talk,
            inbox,
            bell: Arc::default(),
            timer,
            lines: (0..calls).map(|_| None).collect(),
            due: BinaryHeap::with_capacity(calls),
            ringing: Vec::with_capacity(calls),
            loud: Loud::default(),
            samples: Vec::new(),
            epoch: now,
            measuring: false,
            heard: Heard {
                calls: vec![None; calls],
                lateness: Spread::default(),
                gap_error: Spread::default(),
                grid_error: Spread::default(),
                delay: Spread::default(),
                unstamped: 0,
                received: 0,
                sent: 0,
                faults: Faults::default(),
                send_errors: 0,
                begun: Spread::default(),
                closed: 0,
                from: now,
                to: now,
                realtime,
            },
        })
    }

    /// Ready when it is told to stop.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        self.bell.generator.register(cx.waker());
        self.receive(now);
        while let Poll::Ready(command) = self.inbox.poll_recv(cx) {
            match command {
                Some(Command::Add { call, socket, remote }) => {
                    let line = |waker| Line::rtp(call, socket, remote, waker);
                    self.add(call, line);
                }
                Some(Command::AddAudioSocket { call, socket, kind, since }) => {
                    let line = |waker| Line::audiosocket(call, socket, kind, since, waker);
                    self.add(call, line);
                }
                Some(Command::Alive(tell)) => {
                    let _unwanted =
                        tell.send(self.lines.iter().flatten().filter(|line| line.is_alive()).count());
                }
                Some(Command::Remove(call)) => self.remove(call),
                Some(Command::Measure(on)) => self.measure(on),
                Some(Command::Page(tell)) => {
                    self.heard.lateness = Spread::default();
                    let _unwanted = tell.send(std::mem::take(&mut self.heard.grid_error));
                }
                Some(Command::Stop) | None => return Poll::Ready(()),
            }
        }
        self.send();
        self.rearm(cx);
        Poll::Pending
    }

    fn add(&mut self, call: usize, line: impl FnOnce(std::task::Waker) -> std::io::Result<Line>) {
        let ring = Ring { line: call, bell: Arc::clone(&self.bell) };
        let (Ok(line), Some(place)) = (line(Arc::new(ring).into()), self.lines.get_mut(call)) else {
            self.heard.send_errors += 1;
            return;
        };
        *place = Some(line);
        // Each phone has its own place in the frame, all of them evenly apart.
        let place = FRAME * call as u32 / self.lines.len() as u32;
        let frames = (Instant::now() - self.epoch).as_nanos() / FRAME.as_nanos() + 1;
        self.due.push(Reverse((self.epoch + FRAME * frames as u32 + place, call)));
        // The first look registers the waker.
        self.ringing.push(call);
        self.receive(Instant::now());
    }

    fn remove(&mut self, call: usize) {
        if let Some(line) = self.lines.get_mut(call).and_then(Option::take) {
            let (phone, faults) = line.tell();
            self.heard.faults.add(faults);
            self.heard.calls[call] = Some(phone);
        }
    }

    fn measure(&mut self, on: bool) {
        self.measuring = on;
        if on {
            self.heard.from = Instant::now();
        } else {
            self.heard.to = Instant::now();
        }
    }

    /// Reads every socket that rang until it is empty. All packets found came at `now` or, those that came
    /// while others were being read, very little later.
    fn receive(&mut self, now: Instant) {
        self.ringing.append(&mut self.bell.ringing.lock().unwrap_or_else(PoisonError::into_inner));
        for call in self.ringing.drain(..) {
            let Some(line) = self.lines.get_mut(call).and_then(Option::as_mut) else { continue };
            let epoch = (self.talk == Talk::Stamps).then_some(self.epoch);
            line.receive(now, epoch, &mut self.samples, self.measuring, &mut self.heard);
        }
    }

    /// Sends everything that is due.
    fn send(&mut self) {
        while let Some(&Reverse((deadline, call))) = self.due.peek() {
            let now = Instant::now();
            if deadline > now {
                return;
            }
            self.due.pop();
            let Some(line) = self.lines.get_mut(call).and_then(Option::as_mut) else { continue };
            let epoch = (self.talk == Talk::Stamps).then_some(self.epoch);
            line.send(now, epoch, &mut self.loud, &mut self.heard);
            if self.measuring {
                self.heard.sent += 1;
                self.heard.lateness.add(now - deadline);
            }
            self.due.push(Reverse((deadline + FRAME, call)));
        }
    }

    fn rearm(&mut self, cx: &mut Context<'_>) {
        let Some(&Reverse((next, _))) = self.due.peek() else { return };
        while let Poll::Ready(Ok(mut guard)) = self.timer.poll_read_ready(cx) {
            let mut expirations = [0u8; 8];
            // Whether it had gone off or not: it is set anew below.
            let _count = rustix::io::read(self.timer.get_ref(), &mut expirations);
            guard.clear_ready();
        }
        let at = monotonic(next);
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        if let Err(error) = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &spec) {
            tracing::error!(%error, "the generator's timer cannot be set");
        }
    }

    fn tell(mut self) -> Heard {
        for call in 0..self.lines.len() {
            self.remove(call);
        }
        self.heard
    }
}

/// The kernel's monotonic time of an `Instant`, from its distance to now.
fn monotonic(at: Instant) -> Timespec {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = Duration::new(clock.tv_sec.unsigned_abs(), u32::try_from(clock.tv_nsec).unwrap_or(0));
    let target = now + at.saturating_duration_since(Instant::now());
    Timespec { tv_sec: target.as_secs().cast_signed(), tv_nsec: i64::from(target.subsec_nanos()) }
}

const FRAME: Duration = Duration::from_millis(20);
/// Commands that may wait; whoever adds calls then waits too.
const QUEUE: usize = 1024;
/// Above everything else of the benchmark.
const PRIORITY: u8 = 30;
