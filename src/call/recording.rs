//! Stereo recording: the caller on the left, what the caller was sent on the right.
//!
//! [`Track`] joins the two streams sample by sample on the call's clock and hands out blocks; a
//! [`Recorder`] passes the blocks to one writer thread for all calls, so that no disk ever makes audio
//! late. When the disk does not keep up, a block is replaced by silence of the same length and counted:
//! time in the file stays true.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::audio::BRIDGE_RATE;
use crate::audio::wav::StereoWriter;

/// Two streams on one clock.
#[derive(Debug)]
pub struct Track {
    start: Instant,
    left: Side,
    right: Side,
}

#[derive(Debug, Default)]
struct Side {
    samples: VecDeque<i16>,
    started: bool,
}

impl Track {
    /// A track whose time 0 is `start`.
    pub fn new(start: Instant) -> Self {
        Self { start, left: Side::default(), right: Side::default() }
    }

    /// Caller audio, which ends at `now`.
    pub fn caller(&mut self, now: Instant, pcm: &[i16]) {
        let start = self.start;
        self.left.push(start, now, pcm);
    }

    /// What was sent to the caller, a frame which begins at `now`.
    pub fn sent(&mut self, now: Instant, pcm: &[i16]) {
        let start = self.start;
        let end = now + Duration::from_secs_f64(pcm.len() as f64 / f64::from(BRIDGE_RATE));
        self.right.push(start, end, pcm);
    }

    /// A block of interleaved samples, once both sides have `BLOCK_SAMPLES`, or one side is far behind
    /// (it is then taken as silent).
    pub fn take_block(&mut self) -> Option<Vec<i16>> {
        let (left, right) = (self.left.samples.len(), self.right.samples.len());
        if left.min(right) >= BLOCK_SAMPLES || left.max(right) >= PATIENCE_SAMPLES {
            Some(self.interleave(BLOCK_SAMPLES))
        } else {
            None
        }
    }

    /// What is left at the end, the shorter side padded with silence.
    pub fn take_rest(&mut self) -> Vec<i16> {
        let rest = self.left.samples.len().max(self.right.samples.len());
        self.interleave(rest)
    }

    fn interleave(&mut self, count: usize) -> Vec<i16> {
        let mut block = Vec::with_capacity(count * 2);
        for _ in 0..count {
            block.push(self.left.samples.pop_front().unwrap_or(0));
            block.push(self.right.samples.pop_front().unwrap_or(0));
        }
        block
    }
}

impl Side {
    /// The first samples are placed by the clock; after them the stream's own count is the clock.
    fn push(&mut self, start: Instant, end: Instant, pcm: &[i16]) {
        if !self.started && !pcm.is_empty() {
            self.started = true;
            let end_sample =
                (end.saturating_duration_since(start).as_secs_f64() * f64::from(BRIDGE_RATE)) as usize;
            self.samples.extend(std::iter::repeat_n(0, end_sample.saturating_sub(pcm.len())));
        }
        self.samples.extend(pcm);
    }
}

/// Writes one call's recording.
#[derive(Debug)]
pub struct Recorder {
    track: Track,
    file: PathBuf,
    writer: SyncSender<Job>,
    id: u64,
    lost_samples: u64,
}

impl Recorder {
    /// Starts a recording whose time 0 is `now`.
    fn start(writer: SyncSender<Job>, id: u64, file: PathBuf, now: Instant) -> Self {
        let mut recorder = Self { track: Track::new(now), file: file.clone(), writer, id, lost_samples: 0 };
        recorder.hand_over(Job::Open { id, file });
        recorder
    }

    /// Where the recording is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Caller audio, which ends at `now`.
    pub fn caller(&mut self, now: Instant, pcm: &[i16]) {
        self.track.caller(now, pcm);
        self.flush();
    }

    /// A frame that goes to the caller, beginning at `now`.
    pub fn sent(&mut self, now: Instant, pcm: &[i16]) {
        self.track.sent(now, pcm);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(block) = self.track.take_block() {
            self.hand_over(Job::Block { id: self.id, block });
        }
    }

    fn hand_over(&mut self, job: Job) {
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = self.writer.try_send(job)
            && let Job::Block { block, .. } = job
        {
            self.lost_samples += block.len() as u64 / 2;
            metrics::counter!("tandem_recording_lost_samples_total").increment(block.len() as u64 / 2);
        }
        if self.lost_samples > 0 {
            let gap = Job::Gap { id: self.id, samples: self.lost_samples };
            if self.writer.try_send(gap).is_ok() {
                self.lost_samples = 0;
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let block = self.track.take_rest();
        self.hand_over(Job::Block { id: self.id, block });
        // A queue that is full here leaves the file open until the writer ends; its header is patched as
        // it goes, so the file is playable all the same.
        self.hand_over(Job::Close { id: self.id });
    }
}

/// The one thread that writes recordings.
#[derive(Debug, Clone)]
pub struct RecordingWriter {
    jobs: SyncSender<Job>,
    directory: PathBuf,
    next: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl RecordingWriter {
    /// Starts the writer for files in `directory`, which is created when the first recording starts.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(directory: PathBuf) -> std::io::Result<Self> {
        let (jobs, inbox) = sync_channel(QUEUE);
        std::thread::Builder::new().name("recordings".to_owned()).spawn(move || write_all(inbox))?;
        Ok(Self { jobs, directory, next: std::sync::Arc::default() })
    }

    /// Starts the recording `name` (a file name without folders) whose time 0 is `now`.
    pub fn record(&self, name: &str, now: Instant) -> Recorder {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Recorder::start(self.jobs.clone(), id, self.directory.join(name), now)
    }

    /// Waits until everything handed over so far is in its file.
    pub fn settle(&self) {
        let (done, wait) = sync_channel(1);
        if self.jobs.send(Job::Settle(done)).is_ok() {
            // An error means that the writer is gone, and with it the wait.
            let _gone = wait.recv();
        }
    }
}

#[derive(Debug)]
enum Job {
    Open { id: u64, file: PathBuf },
    Block { id: u64, block: Vec<i16> },
    Gap { id: u64, samples: u64 },
    Close { id: u64 },
    Settle(SyncSender<()>),
}

type Files = std::collections::HashMap<u64, StereoWriter<BufWriter<File>>>;

fn write_all(inbox: Receiver<Job>) {
    let mut files = Files::new();
    for job in inbox {
        let result = match job {
            Job::Open { id, file } => open(&file).map(|writer| drop(files.insert(id, writer))),
            Job::Block { id, block } => files.get_mut(&id).map_or(Ok(()), |file| file.write(&block)),
            Job::Gap { id, samples } => files.get_mut(&id).map_or(Ok(()), |file| silence(file, samples)),
            Job::Close { id } => files.remove(&id).map_or(Ok(()), StereoWriter::finish),
            Job::Settle(done) => {
                // Nobody waits any more: nothing to tell.
                let _unheard = done.send(());
                Ok(())
            }
        };
        if let Err(error) = result {
            metrics::counter!("tandem_recording_errors_total").increment(1);
            warn!(%error, "a recording could not be written; check the disk of data_dir");
        }
    }
}

fn open(file: &Path) -> std::io::Result<StereoWriter<BufWriter<File>>> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    StereoWriter::new(BufWriter::new(File::create_new(file)?), BRIDGE_RATE)
}

fn silence(file: &mut StereoWriter<BufWriter<File>>, samples: u64) -> std::io::Result<()> {
    static ZEROS: [i16; 2 * BLOCK_SAMPLES] = [0; 2 * BLOCK_SAMPLES];
    let mut left = samples as usize * 2;
    while left > 0 {
        let now = left.min(ZEROS.len());
        file.write(&ZEROS[..now])?;
        left -= now;
    }
    Ok(())
}

/// 200 ms.
const BLOCK_SAMPLES: usize = 4800;
/// One side may be this far ahead before the other is taken as silent: 2 s.
const PATIENCE_SAMPLES: usize = 48_000;
/// Blocks that may wait for the disk, over all calls: about 10 s of 100 calls.
const QUEUE: usize = 5000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_placed_by_the_clock_and_then_by_their_own_count() {
        let start = Instant::now();
        let mut track = Track::new(start);
        track.caller(start + Duration::from_millis(30), &[1; 480]);
        track.sent(start + Duration::from_millis(50), &[2; 480]);
        let rest = track.take_rest();
        let left = rest.iter().step_by(2).position(|s| *s == 1);
        let right = rest.iter().skip(1).step_by(2).position(|s| *s == 2);
        assert_eq!((left, right), (Some(240), Some(1200)));
        assert_eq!(rest.len(), 2 * 1680);
    }

    #[test]
    fn a_side_that_says_nothing_does_not_hold_up_the_other() {
        let start = Instant::now();
        let mut track = Track::new(start);
        track.sent(start, &[7; PATIENCE_SAMPLES]);
        let block = track.take_block().expect("two seconds are there");
        assert_eq!(block[..4], [0, 7, 0, 7]);
    }
}
