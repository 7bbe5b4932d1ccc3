//! Collects what the connections of a simulator have to tell: in memory for tests in the same process,
//! as JSON lines in a file for everyone else.

use std::fmt::Debug;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::watch;

/// A kind of record and what its sums are.
pub trait Recorded: Clone + Debug + Serialize + Send + 'static {
    /// Sums over all connections.
    type Summary: Clone + Debug + Default + Serialize + Send;
    /// Sees things as they happen, for measurements in the same process.
    type Observer: ?Sized + Send + Sync;

    /// Adds this record to the sums.
    fn sum(&self, summary: &mut Self::Summary);

    /// A record was not kept in memory because there are too many.
    fn dropped(summary: &mut Self::Summary);

    /// Whether it is a mistake of the client that no race excuses.
    fn is_violation(&self) -> bool;

    /// Shows a record to who wants to see it as it happens.
    fn show(entry: &Entry<Self>, observer: &Self::Observer);
}

/// One record with where and when.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry<R> {
    /// 1, 2, 3, … in the order of arrival.
    pub connection: u64,
    /// Milliseconds since the simulator started.
    pub at_ms: f64,
    /// The same moment for tests in this process.
    #[serde(skip)]
    pub at: Instant,
    /// What happened.
    #[serde(flatten)]
    pub record: R,
}

/// Everything recorded so far.
#[derive(Debug, Clone)]
pub struct Report<R: Recorded> {
    /// In the order they happened.
    pub entries: Vec<Entry<R>>,
    /// The sums.
    pub summary: R::Summary,
}

impl<R: Recorded> Default for Report<R> {
    fn default() -> Self {
        Self { entries: Vec::new(), summary: R::Summary::default() }
    }
}

impl<R: Recorded> Report<R> {
    /// The client's mistakes that no race excuses.
    pub fn violations(&self) -> impl Iterator<Item = &Entry<R>> {
        self.entries.iter().filter(|entry| entry.record.is_violation())
    }

    /// The records of one connection.
    pub fn of(&self, connection: u64) -> impl Iterator<Item = &Entry<R>> {
        self.entries.iter().filter(move |entry| entry.connection == connection)
    }
}

/// Where the connections' tasks leave their records.
pub struct Collector<R: Recorded> {
    started: Instant,
    observer: Option<Arc<R::Observer>>,
    inner: Mutex<Collected<R>>,
    /// Counts records, for those who wait for one.
    changes: watch::Sender<u64>,
}

struct Collected<R: Recorded> {
    report: Report<R>,
    file: Option<BufWriter<File>>,
    file_error: Option<std::io::Error>,
}

impl<R: Recorded> Collector<R> {
    /// A collector that also writes to `file`, if there is one.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(
        started: Instant,
        file: Option<&Path>,
        observer: Option<Arc<R::Observer>>,
    ) -> std::io::Result<Self> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        let inner = Mutex::new(Collected { report: Report::default(), file, file_error: None });
        Ok(Self { started, observer, inner, changes: watch::Sender::new(0) })
    }

    /// Who wants to see things as they happen.
    pub fn observer(&self) -> Option<&R::Observer> {
        self.observer.as_deref()
    }

    /// Takes a record.
    pub fn add(&self, connection: u64, at: Instant, record: R) {
        let at_ms = at.saturating_duration_since(self.started).as_secs_f64() * 1_000.0;
        let entry = Entry { connection, at_ms, at, record };
        if let Some(observer) = &self.observer {
            R::show(&entry, observer);
        }
        let mut inner = self.lock();
        entry.record.sum(&mut inner.report.summary);
        inner.write(&entry);
        if inner.report.entries.len() < ENTRIES_MAX {
            inner.report.entries.push(entry);
        } else {
            R::dropped(&mut inner.report.summary);
        }
        drop(inner);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Waits until `done` says so; asks it again after every record.
    pub async fn wait_until(&self, mut done: impl FnMut(&Report<R>) -> bool) {
        let mut changes = self.changes.subscribe();
        while !done(&self.lock().report) {
            // The sender is ours: it cannot be gone.
            let _ = changes.changed().await;
        }
    }

    /// What there is so far.
    pub fn report(&self) -> Report<R> {
        self.lock().report.clone()
    }

    /// Only the sums.
    pub fn summary(&self) -> R::Summary {
        self.lock().report.summary.clone()
    }

    /// Ends the file with the sums.
    ///
    /// # Errors
    /// The first thing that went wrong with the file.
    pub fn finish(&self) -> std::io::Result<()> {
        #[derive(Serialize)]
        struct Last<'a, S> {
            r#type: &'static str,
            #[serde(flatten)]
            summary: &'a S,
        }
        let mut inner = self.lock();
        let summary = inner.report.summary.clone();
        inner.write(&Last { r#type: "summary", summary: &summary });
        if let Some(mut file) = inner.file.take() {
            file.flush()?;
        }
        inner.file_error.take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Collected<R>> {
        // Each change under the lock is complete in itself.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Recorded> Collected<R> {
    /// Writes one line. After the first error the file is left alone, and `finish` tells.
    fn write(&mut self, line: &impl Serialize) {
        let Some(file) = &mut self.file else { return };
        let written = serde_json::to_writer(&mut *file, line)
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.flush());
        if let Err(error) = written {
            self.file = None;
            self.file_error = Some(error);
        }
    }
}

/// Records kept in memory.
const ENTRIES_MAX: usize = 200_000;
