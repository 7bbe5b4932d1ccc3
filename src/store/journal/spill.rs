//! The file that stands in for the database while it is away: numbered events, one JSON object a line,
//! synced before they are shown.
//!
//! Entries are appended, replayed into the database from the front, and the file is removed when all of
//! them are there. Replaying twice does no harm: the database knows an event by call and number. A line
//! torn by a crash was never shown; it is skipped.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;
use serde::{Deserialize, Serialize};

use super::numbers::{Entry, meaning};
use crate::store::error::StoreError;
use crate::store::feed::Committed;

/// The spill file, shared by the writer and the readers of the log. Cloning it is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Spilled(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: AtomicU64,
    file: Mutex<SpillFile>,
}

#[derive(Debug)]
struct SpillFile {
    path: PathBuf,
    rejected: PathBuf,
    epoch: Arc<str>,
    foreign: bool,
    open: Option<Open>,
    tail: VecDeque<Arc<Committed>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Bytes that are whole lines.
    length: u64,
    /// Bytes that are in the database.
    replayed: u64,
}

/// The first line: whose numbers these are.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    epoch: Arc<str>,
}

/// Entries to replay.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) entries: Vec<Entry>,
    end: u64,
    lines: u64,
}

impl Chunk {
    /// Whether nothing is left to replay.
    pub(super) fn is_empty(&self) -> bool {
        self.lines == 0
    }
}

impl Spilled {
    /// The file in `folder`, with what an earlier process left in it. `epoch` is the database's.
    pub(super) fn open(folder: &Path, epoch: Arc<str>) -> Result<Self, StoreError> {
        let mut file = SpillFile {
            path: folder.join("spill.jsonl"),
            rejected: folder.join("rejected.jsonl"),
            epoch,
            foreign: false,
            open: None,
            tail: VecDeque::new(),
        };
        let waiting = file.find().map_err(|e| StoreError::file(&file.path, e))?;
        Ok(Self(Arc::new(Shared { waiting: AtomicU64::new(waiting), file: Mutex::new(file) })))
    }

    /// Events that the database does not have yet.
    pub(super) fn waiting(&self) -> u64 {
        self.0.waiting.load(Ordering::Acquire)
    }

    /// Whether the file was written beside another database, so that its numbers mean nothing here.
    pub(super) async fn is_foreign(&self) -> bool {
        self.on_file(|file| Ok(file.foreign)).await.unwrap_or(false)
    }

    /// Appends and syncs.
    pub(super) async fn append(&self, entries: Arc<[Entry]>) -> Result<(), StoreError> {
        let count = entries.len() as u64;
        self.on_file(move |file| file.append(&entries)).await?;
        self.0.waiting.fetch_add(count, Ordering::AcqRel);
        Ok(())
    }

    /// The next entries to replay; none when all are in the database.
    pub(super) async fn next(&self, limit: usize) -> Result<Chunk, StoreError> {
        self.on_file(move |file| file.next(limit)).await
    }

    /// The chunk is in the database.
    pub(super) async fn replayed(&self, chunk: &Chunk) -> Result<(), StoreError> {
        let (end, lines) = (chunk.end, chunk.lines);
        self.on_file(move |file| {
            if let Some(open) = &mut file.open {
                open.replayed = open.replayed.max(end);
            }
            Ok(())
        })
        .await?;
        let left = self.waiting().saturating_sub(lines);
        self.0.waiting.store(left, Ordering::Release);
        Ok(())
    }

    /// Everything is in the database; the file is removed.
    pub(super) async fn clear(&self) -> Result<(), StoreError> {
        self.on_file(SpillFile::clear).await?;
        self.0.waiting.store(0, Ordering::Release);
        Ok(())
    }

    /// Up to `limit` entries whose number is greater than `since`; `number` is `None` for those of other
    /// topics.
    pub(crate) async fn after<N>(
        &self,
        since: u64,
        limit: usize,
        number: N,
    ) -> Result<Vec<Committed>, StoreError>
    where
        N: Fn(&Committed) -> Option<u64> + Send,
    {
        if self.waiting() == 0 {
            return Ok(Vec::new());
        }
        let wanted = |event: &Committed| number(event).is_some_and(|number| number > since);
        // Numbers are dense: if the tail has the very next one, it has all that follow.
        let tail: Vec<_> = self.on_file(|file| Ok(file.tail.iter().cloned().collect::<Vec<_>>())).await?;
        let first = tail.iter().position(|event| number(event) == Some(since + 1));
        if let Some(first) = first {
            let events = tail[first..].iter().filter(|event| wanted(event)).take(limit);
            return Ok(events.map(|event| Committed::clone(event)).collect());
        }
        let mut found = Vec::new();
        let mut from = 0;
        while found.len() < limit {
            let chunk = self.on_file(move |file| file.read(from, SCAN)).await?;
            if chunk.lines == 0 {
                break;
            }
            from = chunk.end;
            let events = chunk.entries.into_iter().filter(|entry| wanted(&entry.committed));
            found.extend(events.map(|entry| Committed::clone(&entry.committed)));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Keeps an event the database will never take, for a person to look at.
    pub(super) fn reject(&self, event: &Committed, cause: &dyn std::fmt::Display) {
        let line = serde_json::to_vec(event).unwrap_or_default();
        let path = &self.0.file.lock().unwrap_or_else(PoisonError::into_inner).rejected;
        reject(path, &line, cause);
    }

    /// Runs on a thread that may wait for the disk.
    async fn on_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SpillFile) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            // Every method leaves the state valid, also when it fails.
            let mut file = shared.file.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut file).map_err(|e| StoreError::file(&file.path, e))
        });
        done.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl SpillFile {
    /// Opens what is there and counts its entries.
    fn find(&mut self) -> std::io::Result<u64> {
        let mut file = match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::new(&mut file);
        let mut header = Vec::new();
        let start = reader.read_until(b'\n', &mut header)? as u64;
        let Ok(Header { epoch }) = serde_json::from_slice(&header) else {
            // A crash tore the first line, so nothing was ever shown from this file.
            drop(file);
            return std::fs::remove_file(&self.path).map(|()| 0);
        };
        self.foreign = epoch != self.epoch;
        let (mut length, mut lines, mut line) = (start, 0, Vec::new());
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)? as u64;
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            length += read;
            lines += 1;
        }
        file.set_len(length)?;
        self.open = Some(Open { file, length, replayed: start });
        Ok(lines)
    }

    fn append(&mut self, entries: &[Entry]) -> std::io::Result<()> {
        let mut text = Vec::with_capacity(entries.len() * 512);
        for entry in entries {
            serde_json::to_writer(&mut text, &*entry.committed)?;
            text.push(b'\n');
        }
        let open = self.opened()?;
        let written = open
            .file
            .seek(SeekFrom::Start(open.length))
            .and_then(|_| open.file.write_all(&text))
            .and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            // What was not synced must not be found by a replay: it is going to be numbered anew.
            open.file.set_len(open.length)?;
            return Err(error);
        }
        open.length += text.len() as u64;
        self.tail.extend(entries.iter().map(|entry| entry.committed.clone()));
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        Ok(())
    }

    fn opened(&mut self) -> std::io::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.create()?,
        };
        Ok(self.open.insert(open))
    }

    fn create(&self) -> std::io::Result<Open> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&self.path)?;
        let mut header = serde_json::to_vec(&Header { epoch: self.epoch.clone() })?;
        header.push(b'\n');
        file.write_all(&header)?;
        file.sync_all()?;
        if let Some(folder) = self.path.parent() {
            // The name of a new file is part of its folder.
            File::open(folder)?.sync_all()?;
        }
        let length = header.len() as u64;
        Ok(Open { file, length, replayed: length })
    }

    fn next(&mut self, limit: usize) -> std::io::Result<Chunk> {
        let from = self.open.as_ref().map_or(0, |open| open.replayed);
        self.read(from, limit)
    }

    /// Up to `limit` lines from byte `from` on; 0 is the first entry.
    fn read(&mut self, from: u64, limit: usize) -> std::io::Result<Chunk> {
        let mut chunk = Chunk { entries: Vec::new(), end: from, lines: 0 };
        let Some(open) = &mut self.open else { return Ok(chunk) };
        open.file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::new((&mut open.file).take(open.length.saturating_sub(from)));
        let mut line = Vec::new();
        while chunk.lines < limit as u64 {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            let is_header = chunk.end == 0;
            chunk.end += read as u64;
            if is_header {
                continue;
            }
            chunk.lines += 1;
            match serde_json::from_slice::<Committed>(&line) {
                Ok(event) => {
                    let kind = meaning(&event);
                    chunk.entries.push(Entry { committed: Arc::new(event), kind });
                }
                Err(error) => reject(&self.rejected, &line, &error),
            }
        }
        Ok(chunk)
    }

    fn clear(&mut self) -> std::io::Result<()> {
        self.foreign = false;
        self.tail.clear();
        if self.open.take().is_some() {
            std::fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

/// Keeps what cannot be used, for a person to look at.
fn reject(path: &Path, line: &[u8], cause: &dyn std::fmt::Display) {
    counter!("tandem_journal_rejected_events_total").increment(1);
    let kept = OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| {
        file.write_all(line)?;
        if line.ends_with(b"\n") { Ok(()) } else { file.write_all(b"\n") }
    });
    let kept = kept.is_ok();
    tracing::error!(%cause, kept, path = %path.display(), "an event cannot be stored");
}

/// Entries kept in memory for readers of the log.
const TAIL: usize = 8192;
/// Lines read at once by a reader of the log.
const SCAN: usize = 4096;
