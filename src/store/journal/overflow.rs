//! Where events go that the queue has no room for.
//!
//! Order is kept: once an event has overflowed, all later ones do, until the writer has emptied the
//! queue and taken the file. The mutex is touched only while overflowing.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::counter;

use crate::event::CallEvent;
use crate::store::error::StoreError;

/// The overflow, shared by those who record and the writer.
#[derive(Debug)]
pub(super) struct Overflow {
    active: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    path: PathBuf,
    draining: PathBuf,
    file: Option<File>,
    memory: Vec<CallEvent>,
}

impl Overflow {
    pub(super) fn new(folder: &Path) -> Self {
        let state = State {
            path: folder.join("overflow.jsonl"),
            draining: folder.join("overflow.draining.jsonl"),
            file: None,
            memory: Vec::new(),
        };
        Self { active: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Whether events must come here rather than into the queue.
    pub(super) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Keeps an event. `queue` is tried once more under the lock, and gives the event back when it is
    /// full.
    pub(super) fn push(&self, event: CallEvent, queue: impl FnOnce(CallEvent) -> Option<CallEvent>) {
        let mut state = self.state();
        let event = if self.is_active() {
            event
        } else {
            match queue(event) {
                Some(event) => event,
                None => return,
            }
        };
        self.active.store(true, Ordering::Release);
        state.keep(event);
    }

    /// The writer's turn: `drain` empties the queue, then what overflowed is taken and the queue is used
    /// again. Events taken from the file stay in it until [`Overflow::drained`].
    pub(super) fn take(&self, drain: impl FnOnce()) -> Result<Vec<CallEvent>, StoreError> {
        let mut state = self.state();
        drain();
        let events = state.take()?;
        self.active.store(false, Ordering::Release);
        Ok(events)
    }

    /// What was taken is on disk elsewhere.
    pub(super) fn drained(&self) -> Result<(), StoreError> {
        let state = self.state();
        match std::fs::remove_file(&state.draining) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::file(&state.draining, error))
            }
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, event: CallEvent) {
        // Once something waits in memory, later events must wait behind it.
        if self.memory.is_empty() {
            match self.append(&event) {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, "the journal's overflow file cannot be written"),
            }
        }
        if self.memory.len() < MEMORY {
            self.memory.push(event);
        } else {
            counter!("tandem_journal_lost_events_total").increment(1);
            tracing::error!(call = %event.call, seq = event.seq, "an event is lost: database, files and memory are full");
        }
    }

    fn append(&mut self, event: &CallEvent) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().create(true).append(true).open(&self.path)?),
        };
        let before = file.metadata()?.len();
        file.write_all(&line).inspect_err(|_| {
            // A torn line would take the next one with it; if it cannot be cut off it is skipped when read.
            let _ = file.set_len(before);
        })
    }

    fn take(&mut self) -> Result<Vec<CallEvent>, StoreError> {
        self.file = None;
        let mut events = read_events(&self.draining)?;
        if self.path.exists() {
            if events.is_empty() {
                std::fs::rename(&self.path, &self.draining).map_err(|e| StoreError::file(&self.path, e))?;
                events = read_events(&self.draining)?;
            } else {
                // An earlier process died while draining: both files are read, and removed together.
                events.extend(read_events(&self.path)?);
                let mut all = OpenOptions::new()
                    .append(true)
                    .open(&self.draining)
                    .map_err(|e| StoreError::file(&self.draining, e))?;
                let rest = std::fs::read(&self.path).map_err(|e| StoreError::file(&self.path, e))?;
                all.write_all(&rest).map_err(|e| StoreError::file(&self.draining, e))?;
                std::fs::remove_file(&self.path).map_err(|e| StoreError::file(&self.path, e))?;
            }
        }
        events.append(&mut self.memory);
        Ok(events)
    }
}

/// The events of a file; lines that were torn by a crash are skipped and counted.
fn read_events(path: &Path) -> Result<Vec<CallEvent>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::file(path, error)),
    };
    let mut events = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(|e| StoreError::file(path, e))?;
        match serde_json::from_slice(&line) {
            Ok(event) => events.push(event),
            Err(_) if line.is_empty() => {}
            Err(error) => {
                counter!("tandem_journal_rejected_events_total").increment(1);
                tracing::error!(%error, path = %path.display(), "a line of the journal cannot be read");
            }
        }
    }
    Ok(events)
}

/// Events kept in memory when the overflow file cannot be written.
pub(super) const MEMORY: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::CallEventKind;
    use crate::id::CallId;
    use crate::time::UnixMs;

    #[test]
    fn after_one_event_overflowed_all_do_until_they_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let overflow = Overflow::new(folder.path());
        overflow.push(event(2), Some);
        assert!(overflow.is_active());
        overflow.push(event(3), |_| panic!("the queue must not be used"));
        assert_eq!(overflow.take(|| ()).unwrap(), [event(2), event(3)]);
        assert!(!overflow.is_active());
        overflow.push(event(4), |_| None);
        assert!(!overflow.is_active());
    }

    #[test]
    fn what_a_dead_process_left_is_found_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let dead = Overflow::new(folder.path());
        dead.push(event(2), Some);
        dead.take(|| ()).unwrap();
        dead.push(event(3), Some);
        drop(dead);
        let mut torn = OpenOptions::new().append(true).open(folder.path().join("overflow.jsonl")).unwrap();
        torn.write_all(b"{\"call\":").unwrap();
        let next = Overflow::new(folder.path());
        assert_eq!(next.take(|| ()).unwrap(), [event(2), event(3)]);
        next.drained().unwrap();
        assert_eq!(next.take(|| ()).unwrap(), []);
    }

    #[test]
    fn without_a_disk_events_wait_in_memory_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let overflow = Overflow::new(&folder.path().join("missing"));
        overflow.push(event(2), Some);
        overflow.push(event(3), Some);
        assert_eq!(overflow.take(|| ()).unwrap(), [event(2), event(3)]);
    }

    fn event(seq: u64) -> CallEvent {
        let kind = CallEventKind::Answered { codec: "PCMU/8000".to_owned() };
        CallEvent { call: CallId::from_parts(1, 1), seq, at: UnixMs::new(5), kind }
    }
}
