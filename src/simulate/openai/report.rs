//! Collects what the connections of a simulator have to tell: in memory for tests in the same process,
//! as JSON lines in a file for everyone else.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::watch;

use super::format::AudioFormat;
use super::record::{Record, Totals};

/// One record with where and when.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// 1, 2, 3, … in the order of arrival.
    pub connection: u64,
    /// Milliseconds since the simulator started.
    pub at_ms: f64,
    /// The same moment for tests in this process.
    #[serde(skip)]
    pub at: Instant,
    /// What happened.
    #[serde(flatten)]
    pub record: Record,
}

/// Sees things as they happen, for measurements in the same process. Called from the connections' tasks:
/// must not block.
pub trait Observer: Send + Sync {
    /// An append was read; `audio` is in `format`.
    fn appended(&self, _connection: u64, _at: Instant, _audio: &[u8], _format: AudioFormat) {}

    /// An audio delta was handed to the socket: `samples` samples of `item` from `first_sample` on.
    fn delta_sent(&self, _connection: u64, _at: Instant, _item: &str, _first_sample: u64, _samples: u64) {}

    /// A record was made.
    fn recorded(&self, _entry: &Entry) {}
}

/// Everything recorded so far.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// In the order they happened.
    pub entries: Vec<Entry>,
    /// The sums.
    pub summary: Summary,
}

impl Report {
    /// The client's mistakes that no race excuses.
    pub fn violations(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| matches!(e.record, Record::Violation { harmless: false, .. }))
    }

    /// The records of one connection.
    pub fn of(&self, connection: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.connection == connection)
    }
}

/// Sums over all connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Connections that got a session.
    pub sessions: u64,
    /// Connections that did not.
    pub refused: u64,
    /// Connections that have ended.
    pub ended: u64,
    /// Append events of ended connections.
    pub appends: u64,
    /// Caller audio of ended connections.
    pub appended_ms: u64,
    /// The longest time between two appends of one connection.
    pub append_gap_max_ms: u64,
    /// Responses begun.
    pub responses: u64,
    /// Responses cancelled.
    pub cancelled: u64,
    /// Speech starts.
    pub turns: u64,
    /// Truncations accepted.
    pub truncations: u64,
    /// Assistant audio generated.
    pub generated_ms: u64,
    /// Mistakes of clients that no race excuses.
    pub violations: u64,
    /// Records not kept because there were too many; the file has them all.
    pub records_dropped: u64,
}

impl Summary {
    fn add(&mut self, totals: &Totals) {
        self.ended += 1;
        self.appends += totals.appends;
        self.appended_ms += totals.appended_ms;
        self.append_gap_max_ms = self.append_gap_max_ms.max(totals.append_gap_max_ms);
        self.responses += totals.responses;
        self.cancelled += totals.cancelled;
        self.turns += totals.turns;
        self.truncations += totals.truncations;
        self.generated_ms += totals.generated_ms;
    }
}

/// Where the connections' tasks leave their records.
pub struct Collector {
    started: Instant,
    observer: Option<Arc<dyn Observer>>,
    inner: Mutex<Collected>,
    /// Counts records, for those who wait for one.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Collected {
    report: Report,
    file: Option<BufWriter<File>>,
    file_error: Option<std::io::Error>,
}

impl Collector {
    /// A collector that also writes to `file`, if there is one.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(
        started: Instant,
        file: Option<&Path>,
        observer: Option<Arc<dyn Observer>>,
    ) -> std::io::Result<Self> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        let inner = Mutex::new(Collected { file, ..Collected::default() });
        Ok(Self { started, observer, inner, changes: watch::Sender::new(0) })
    }

    /// Who wants to see things as they happen.
    pub fn observer(&self) -> Option<&dyn Observer> {
        self.observer.as_deref()
    }

    /// Takes a record.
    pub fn add(&self, connection: u64, at: Instant, record: Record) {
        let at_ms = at.saturating_duration_since(self.started).as_secs_f64() * 1_000.0;
        let entry = Entry { connection, at_ms, at, record };
        if let Some(observer) = &self.observer {
            observer.recorded(&entry);
        }
        let mut inner = self.lock();
        inner.sum(&entry.record);
        inner.write(&entry);
        if inner.report.entries.len() < ENTRIES_MAX {
            inner.report.entries.push(entry);
        } else {
            inner.report.summary.records_dropped += 1;
        }
        drop(inner);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Waits until `done` says so; asks it again after every record.
    pub async fn wait_until(&self, mut done: impl FnMut(&Report) -> bool) {
        let mut changes = self.changes.subscribe();
        while !done(&self.lock().report) {
            // The sender is ours: it cannot be gone.
            let _ = changes.changed().await;
        }
    }

    /// What there is so far.
    pub fn report(&self) -> Report {
        self.lock().report.clone()
    }

    /// Only the sums.
    pub fn summary(&self) -> Summary {
        self.lock().report.summary.clone()
    }

    /// Ends the file with the sums.
    ///
    /// # Errors
    /// The first thing that went wrong with the file.
    pub fn finish(&self) -> std::io::Result<()> {
        #[derive(Serialize)]
        struct Last<'a> {
            r#type: &'static str,
            #[serde(flatten)]
            summary: &'a Summary,
        }
        let mut inner = self.lock();
        let summary = inner.report.summary.clone();
        inner.write(&Last { r#type: "summary", summary: &summary });
        if let Some(mut file) = inner.file.take() {
            file.flush()?;
        }
        inner.file_error.take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Collected> {
        // Each change under the lock is complete in itself.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collected {
    fn sum(&mut self, record: &Record) {
        let summary = &mut self.report.summary;
        match record {
            Record::Connected { .. } => summary.sessions += 1,
            Record::Refused { .. } => summary.refused += 1,
            Record::Violation { harmless: false, .. } => summary.violations += 1,
            Record::Disconnected(totals) => summary.add(totals),
            Record::Violation { harmless: true, .. }
            | Record::Configured { .. }
            | Record::SpeechStarted { .. }
            | Record::SpeechStopped { .. }
            | Record::Truncation { .. }
            | Record::ResponseStarted { .. }
            | Record::ResponseDone { .. }
            | Record::ToolCalled { .. }
            | Record::ToolAnswered { .. } => {}
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_json_lines_and_sums() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.jsonl");
        let now = Instant::now();
        let collector = Collector::new(now, Some(&path), None).unwrap();
        let refused = Record::Refused { status: 429, reason: "fault".into() };
        collector.add(1, now, refused);
        collector.add(2, now, Record::Truncation { item: "i".into(), audio_end_ms: 5, generated_ms: 9 });
        collector.add(2, now, Record::Disconnected(Totals { truncations: 1, ..Totals::default() }));
        collector.finish().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[1]["type"], "truncation");
        assert_eq!(lines[1]["audio_end_ms"], 5);
        assert_eq!(lines[3]["type"], "summary");
        assert_eq!((lines[3]["refused"].as_u64(), lines[3]["truncations"].as_u64()), (Some(1), Some(1)));
    }
}
