//! Media workers: OS threads on which calls live.
//!
//! A worker is one thread with its own single-threaded runtime. Everything of a call (RTP, bridge,
//! provider connection) runs on the worker it was placed on, so no frame crosses a thread or takes a
//! lock, and nothing but call work ever runs there: a stall elsewhere cannot make audio late.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{CpuSet, clock_nanosleep_absolute};
use rustix::time::{ClockId, Timespec, clock_gettime};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::rtp::pacer::Pacer;

/// How the kernel schedules a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduling {
    /// `SCHED_FIFO`: other load on the machine does not delay audio.
    Realtime,
    /// The ordinary policy: under load, audio can be late by tens of milliseconds.
    Ordinary,
}

/// Why the workers could not be started.
#[derive(Debug, thiserror::Error)]
#[error("starting media worker {index}")]
pub struct StartError {
    index: usize,
    source: std::io::Error,
}

/// What a worker gives to the calls it runs.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Ticks every 20 ms for each call.
    pub pacer: Pacer,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

/// All media workers of this process.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<Worker>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    jobs: mpsc::Sender<Job>,
    load: Arc<AtomicUsize>,
    scheduling: Scheduling,
    thread: Option<JoinHandle<()>>,
}

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;
type Job = Box<dyn FnOnce(Surroundings) -> LocalFuture + Send>;

impl Workers {
    /// Starts `count` workers (0: one per core), asking for real-time scheduling of that `priority` (1..=99;
    /// 0: none is asked for).
    ///
    /// # Errors
    /// When a thread or its runtime cannot be created.
    pub fn start(count: usize, priority: u8) -> Result<Self, StartError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if count == 0 { cores } else { count };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let threads = (0..count)
            .map(|index| Worker::start(index, (count == cores).then_some(index), priority, &tasks, &stop))
            .collect::<Result<Vec<_>, _>>()?;
        let workers = Self { threads, tasks, stop };
        workers.report(priority > 0);
        Ok(workers)
    }

    /// Runs a call on the worker with the fewest calls. `start` makes the call's future on that worker.
    ///
    /// # Errors
    /// [`Overloaded`] when that worker's intake is full: it is not keeping up, and the call is refused.
    pub fn place<F, Fut>(&self, start: F) -> Result<(), Overloaded>
    where
        F: FnOnce(Surroundings) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let least = self.threads.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed));
        let worker = least.ok_or(Overloaded)?;
        let placed = Placed::on(&worker.load);
        let token = self.tasks.token();
        let job: Job = Box::new(move |surroundings| {
            let call = start(surroundings);
            Box::pin(async move {
                call.await;
                drop((placed, token));
            })
        });
        worker.jobs.try_send(job).map_err(|_| Overloaded)
    }

    /// The scheduling the workers got; `Ordinary` if any one of them got no better.
    pub fn scheduling(&self) -> Scheduling {
        let ordinary = self.threads.iter().any(|worker| worker.scheduling == Scheduling::Ordinary);
        if ordinary { Scheduling::Ordinary } else { Scheduling::Realtime }
    }

    /// How many workers run.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Whether there is no worker; never so after [`Self::start`].
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Cancelled when the workers stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Tells every call to end, waits up to `patience` for them, and ends the threads. Answers whether
    /// all calls ended in time.
    pub async fn stop(mut self, patience: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        let all_ended = tokio::time::timeout(patience, self.tasks.wait()).await.is_ok();
        let threads: Vec<_> = self.threads.drain(..).filter_map(|worker| worker.thread).collect();
        // The intakes are closed by now, so each thread leaves its loop once its calls are done.
        if all_ended {
            let joined = tokio::task::spawn_blocking(move || {
                threads.into_iter().for_each(|thread| drop(thread.join()));
            });
            if joined.await.is_err() {
                warn!("a media worker could not be joined");
            }
        }
        all_ended
    }

    fn report(&self, wanted: bool) {
        let scheduling = self.scheduling();
        metrics::gauge!("tandem_media_workers").set(self.threads.len() as f64);
        metrics::gauge!("tandem_media_realtime").set(if scheduling == Scheduling::Realtime {
            1.0
        } else {
            0.0
        });
        match (scheduling, wanted) {
            (Scheduling::Realtime, _) => {
                info!(workers = self.threads.len(), "media workers run with real-time priority");
            }
            (Scheduling::Ordinary, false) => info!(workers = self.threads.len(), "media workers run"),
            (Scheduling::Ordinary, true) => warn!(
                workers = self.threads.len(),
                "no real-time priority for the media workers: under load callers will hear gaps; grant \
                 CAP_SYS_NICE or LimitRTPRIO=10 (see `tandem doctor`)"
            ),
        }
    }
}

/// The worker does not keep up with its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("every media worker is overloaded")]
pub struct Overloaded;

impl Worker {
    fn start(
        index: usize,
        core: Option<usize>,
        priority: u8,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let (jobs, inbox) = mpsc::channel(INTAKE);
        let (started, answer) = std::sync::mpsc::sync_channel(1);
        let (tasks, stop) = (tasks.clone(), stop.clone());
        let load: Arc<AtomicUsize> = Arc::default();
        let busy = Arc::clone(&load);
        let thread = std::thread::Builder::new()
            .name(format!("media-{index}"))
            .spawn(move || {
                let gathering = Gathering::default();
                let scheduling = schedule(core, priority);
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .on_thread_park(move || gathering.wait(busy.load(Ordering::Relaxed)))
                    .build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, async {
                    let pacer = match Pacer::start() {
                        Ok(pacer) => pacer,
                        Err(error) => return drop(started.send(Err(error))),
                    };
                    if started.send(Ok(scheduling)).is_ok() {
                        run(inbox, Surroundings { pacer, stop }, &tasks).await;
                    }
                });
            })
            .map_err(|source| StartError { index, source })?;
        let scheduling = match answer.recv() {
            Ok(Ok(scheduling)) => scheduling,
            Ok(Err(source)) => return Err(StartError { index, source }),
            Err(_) => return Err(StartError { index, source: std::io::ErrorKind::Other.into() }),
        };
        Ok(Self { jobs, load, scheduling, thread: Some(thread) })
    }
}

/// Starts each job as a task of this thread, and stays until all of them are done.
async fn run(mut inbox: mpsc::Receiver<Job>, surroundings: Surroundings, tasks: &TaskTracker) {
    let own = TaskTracker::new();
    loop {
        tokio::select! {
            job = inbox.recv() => match job {
                Some(job) => {
                    let call = tasks.track_future(job(surroundings.clone()));
                    own.spawn_local(call);
                }
                None => break,
            },
            () = surroundings.stop.cancelled() => break,
        }
    }
    own.close();
    own.wait().await;
}

/// Pins the calling thread to `core`, if each core has its worker, and gives it real-time priority, where
/// the system allows it.
fn schedule(core: Option<usize>, priority: u8) -> Scheduling {
    if let Some(index) = core {
        let mut core = CpuSet::new();
        core.set(index);
        // An unpinned worker is slower, not wrong; containers often forbid pinning.
        if let Err(error) = rustix::thread::sched_setaffinity(None, &core) {
            tracing::debug!(%error, "media worker is not pinned to a core");
        }
    }
    if priority > 0 && raise_priority(priority) { Scheduling::Realtime } else { Scheduling::Ordinary }
}

/// When a worker with many calls looks at its sockets: not at once, but at the next step of a grid of whole
/// half or full milliseconds of the monotonic clock. Packets then come in batches, and each wake-up of the
/// thread serves several; the slots of the pacer fall on the same grid. It adds half a step of delay to
/// received packets on average.
#[derive(Debug, Default)]
struct Gathering {
    /// The step, counted since the clock began, at which the thread last looked up.
    last: AtomicI64,
}

impl Gathering {
    /// Called before the thread waits for its sockets.
    fn wait(&self, calls: usize) {
        let step = match calls {
            0..GATHER_FROM => return,
            GATHER_FROM..GATHER_LONGER_FROM => GATHER_STEP_NS,
            _ => 2 * GATHER_STEP_NS,
        };
        let now = clock_gettime(ClockId::Monotonic);
        let steps = (now.tv_sec * NANOS_PER_SECOND + now.tv_nsec) / step;
        // A step that passed during the work is not waited out: it has been missed already.
        if self.last.swap(steps, Ordering::Relaxed) < steps {
            return;
        }
        let next = (steps + 1) * step;
        self.last.store(steps + 1, Ordering::Relaxed);
        let until = Timespec { tv_sec: next / NANOS_PER_SECOND, tv_nsec: next % NANOS_PER_SECOND };
        // Woken early by a signal: then there is something to do anyway.
        let _early = clock_nanosleep_absolute(rustix::thread::ClockId::Monotonic, &until);
    }
}

/// Whether this thread could be given `SCHED_FIFO` of that priority, 1..=99. Also how `tandem doctor` finds
/// out.
pub fn raise_priority(priority: u8) -> bool {
    let Ok(value) = ThreadPriorityValue::try_from(priority) else { return false };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(value), policy).is_ok()
}

/// Counts a call on its worker until it ends.
struct Placed(Arc<AtomicUsize>);

impl Placed {
    fn on(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls on one worker from which on it gathers.
const GATHER_FROM: usize = 20;
/// Calls from which on its steps are twice as long: there are more of them to serve in each.
const GATHER_LONGER_FROM: usize = 80;
/// 500 us.
const GATHER_STEP_NS: i64 = 500_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// Calls that may wait to be started on one worker; beyond it new calls are refused with 503.
const INTAKE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_spread_over_the_workers_and_awaited_at_the_end() {
        let workers = Workers::start(2, 0).expect("two threads can be started");
        let (tx, mut rx) = mpsc::channel(4);
        for _ in 0..4 {
            let tx = tx.clone();
            let placed = workers.place(move |around| async move {
                let name = std::thread::current().name().map(str::to_owned);
                tx.send(name).await.expect("the test still listens");
                around.stop.cancelled().await;
            });
            assert_eq!(placed, Ok(()));
        }
        let mut names = Vec::new();
        for _ in 0..4 {
            names.push(rx.recv().await.flatten().expect("each call tells its thread"));
        }
        names.sort();
        assert_eq!(names, ["media-0", "media-0", "media-1", "media-1"]);
        assert!(workers.stop(Duration::from_secs(5)).await);
    }
}
