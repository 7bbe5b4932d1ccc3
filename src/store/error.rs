//! What can go wrong with the store, and what to do about it.

use std::path::PathBuf;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no database we know.
    #[error(
        "`{url}` is not a store URL: {cause}; use `sqlite://data/tandem.db` or `postgres://user@host/database`"
    )]
    Url {
        /// The URL, without its password.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The database could not be opened.
    #[error("cannot open the database {url}: {source}; {fix}")]
    Open {
        /// The URL, without its password.
        url: String,
        /// What to try.
        fix: &'static str,
        /// What the driver said.
        source: sqlx::Error,
    },
    /// The database failed or refused a statement.
    #[error("the database failed: {0}; `tandem doctor` checks it")]
    Database(#[from] sqlx::Error),
    /// The tables could not be brought up to date.
    #[error("cannot bring the database up to date: {0}; take a copy of it, then run `tandem db migrate`")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database was written by a later version.
    #[error(
        "the database has schema {found}, this version knows {known}; use the newer tandem, or restore an older backup"
    )]
    TooNew {
        /// Its schema number.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// There is no such thing.
    #[error("there is no {what} `{name}`; `tandem {what} list` shows what there is")]
    NotFound {
        /// `organization`, `assistant`, `number`, `call`, ...
        what: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// What was asked contradicts what is stored.
    #[error("{what}; {fix}")]
    Conflict {
        /// What contradicts what.
        what: String,
        /// What to do.
        fix: String,
    },
    /// A value cannot be stored.
    #[error("{field}: {cause}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong, and what is right.
        cause: String,
    },
    /// A cursor that we did not make.
    #[error("the cursor is not one this server gave out; start again without it")]
    Cursor,
    /// A stored value that cannot be read.
    #[error(
        "{table} holds a value that cannot be read: {cause}; restore the latest backup or correct the row"
    )]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// What is wrong with the value.
        cause: String,
    },
    /// A file of the store failed.
    #[error("{path}: {source}; check that the disk has room and the directory belongs to tandem's user")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process writes this data directory's journal.
    #[error(
        "{path} is in use by another tandem process; stop that one, or give this one its own `node.data_dir`"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A backup that cannot be restored.
    #[error("{path}, line {line}: {cause}")]
    Backup {
        /// The file.
        path: PathBuf,
        /// 1 is the first line.
        line: u64,
        /// What is wrong, and what to do.
        cause: String,
    },
    /// Neither the database nor the journal's files take the event.
    #[error(
        "neither the database nor the journal can be written; free disk space in `node.data_dir` or mend the database"
    )]
    NotDurable,
    /// The journal was closed.
    #[error("the journal is closed; the server is stopping")]
    Closed,
}

impl StoreError {
    /// Whether the cause lies outside the request, so that trying again later may help.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Database(error) | Self::Open { source: error, .. } => is_outage(error),
            Self::NotDurable | Self::Closed | Self::File { .. } | Self::Locked { .. } => true,
            Self::Url { .. }
            | Self::Migrate(_)
            | Self::TooNew { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Invalid { .. }
            | Self::Cursor
            | Self::Corrupt { .. }
            | Self::Backup { .. } => false,
        }
    }

    pub(super) fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { path: path.into(), source }
    }
}

/// Whether the database, and not the values handed to it, is to blame.
pub(super) fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(refusal) => !refusal.code().is_some_and(|code| blames_the_values(&code)),
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => false,
        sqlx::Error::Encode(_) => false,
        _ => true,
    }
}

/// PostgreSQL: class 22 (data exception) and 23 (integrity constraint). SQLite: TOOBIG, CONSTRAINT and
/// MISMATCH, with the extended codes of CONSTRAINT in the higher bits.
fn blames_the_values(code: &str) -> bool {
    match code.parse::<u32>() {
        Ok(sqlite) if code.len() < 5 => matches!(sqlite & 0xff, 18..=20),
        _ => code.starts_with("22") || code.starts_with("23"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constraint_blames_the_values_and_a_full_disk_the_database() {
        assert!(blames_the_values("23505") && blames_the_values("22021"));
        assert!(blames_the_values("2067") && blames_the_values("1555") && blames_the_values("20"));
        assert!(!blames_the_values("53100") && !blames_the_values("57P01") && !blames_the_values("42P01"));
        assert!(!blames_the_values("13") && !blames_the_values("5") && !blames_the_values("1"));
    }
}
