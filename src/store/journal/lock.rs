//! One process per journal, and when the last one was alive.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::error::StoreError;
use crate::time::UnixMs;

/// Holds `journal/lock` until it is dropped; the system lets go of it when the process dies. The file's
/// time of change is moved forward every second: a later process learns from it until when calls that
/// were never closed had lived.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    last_alive: Option<UnixMs>,
}

impl Lock {
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("lock");
        let last_alive = std::fs::metadata(&path).and_then(|m| m.modified()).ok().and_then(unix_ms);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| StoreError::file(&path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, last_alive }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path }),
            Err(TryLockError::Error(source)) => Err(StoreError::file(&path, source)),
        }
    }

    /// When the previous holder was alive for certain, to the second.
    pub(super) fn last_alive(&self) -> Option<UnixMs> {
        self.last_alive
    }

    /// Notes that we are alive.
    pub(super) fn touch(&self) {
        if let Err(error) = self.file.set_modified(SystemTime::now()) {
            tracing::debug!(%error, "the journal's lock file could not be touched");
        }
    }
}

fn unix_ms(moment: SystemTime) -> Option<UnixMs> {
    let since = moment.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(UnixMs::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        assert_eq!(first.last_alive(), None);
        first.touch();
        assert!(matches!(Lock::take(folder.path()), Err(StoreError::Locked { .. })));
        drop(first);
        assert!(Lock::take(folder.path()).unwrap().last_alive().is_some());
    }
}
