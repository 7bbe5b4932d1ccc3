//! The store: SQLite or PostgreSQL, the journal that writes calls into it, and the feed of what was
//! written.
//!
//! [`Store`] is a cheap handle with one method per question; the SQL is the same text for both back ends
//! wherever they agree. [`Journal`](journal::JournalHandle) is the one writer of calls and their events:
//! it numbers them, writes each with the state it changes in one transaction, and only then shows it on
//! the [`Feed`]. When the database is away, events go to files in the data directory and from there into
//! the database when it is back.
//!
//! Invariants: nothing is shown before it is on disk; one journal writes a database; `call_events` never
//! changes after it was written; names (of organizations, assistants, numbers) are keys, ids are for
//! people's URLs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

mod backup;
mod error;
mod row;
mod schema;
mod tables;

pub mod calls;
pub mod costs;
pub mod feed;
pub mod idempotency;
pub mod journal;
pub mod log;
pub mod provider_keys;
pub mod resources;
pub mod system;
pub mod tokens;
pub mod vault;

pub use backup::BackupSummary;
pub use calls::{CallFilter, CallPage, CallRecord};
pub use costs::{Amount, CallCost, CostBy, CostRow};
pub use error::StoreError;
pub use feed::{Committed, Feed, FeedItem, Shown, Subscription};
pub use journal::{JournalHandle, JournalHealth};
pub use resources::{
    Applied, Assistant, Number, Organization, Phone, PhoneSecret, RecordingSetting, Resources, Role, Stored,
    Tool, User,
};
pub use schema::{MigrationState, MigrationStatus};
pub use system::{SystemEvent, SystemLog};
pub use tokens::{NewToken, Token};

/// A handle on the database. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Store(Arc<Backend>);

/// The two databases we speak to.
#[derive(Debug)]
pub(crate) enum Backend {
    Sqlite {
        reader: SqlitePool,
        writer: SqlitePool,
        file: Option<PathBuf>,
    },
    /// The journal has connections of its own: no crowd of readers keeps it waiting.
    Postgres {
        pool: PgPool,
        journal: PgPool,
    },
}

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendKind {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

impl Store {
    /// Opens the database with [`DEFAULT_CONNECTIONS`].
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_with(url, DEFAULT_CONNECTIONS).await
    }

    /// Opens `sqlite://PATH` (relative to the working directory, or absolute with three slashes; the file
    /// and its directory are created), `sqlite::memory:` or `postgres://…`. `connections` (1..=100) is the
    /// number of readers of SQLite, or of connections to PostgreSQL (the journal has two more). The tables are not touched: see
    /// [`Store::migrate`].
    ///
    /// # Errors
    /// When the URL makes no sense or the database cannot be reached.
    pub async fn open_with(url: &str, connections: u32) -> Result<Self, StoreError> {
        let backend = if url.starts_with("sqlite:") {
            open_sqlite(url, connections).await?
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            open_postgres(url, connections).await?
        } else {
            let cause = "it begins with neither `sqlite:` nor `postgres:`".to_owned();
            return Err(StoreError::Url { url: without_password(url), cause });
        };
        Ok(Self(Arc::new(backend)))
    }

    /// Which database it is.
    pub fn kind(&self) -> BackendKind {
        match self.backend() {
            Backend::Sqlite { .. } => BackendKind::Sqlite,
            Backend::Postgres { .. } => BackendKind::Postgres,
        }
    }

    /// The database's file, for SQLite on disk.
    pub fn file(&self) -> Option<&Path> {
        match self.backend() {
            Backend::Sqlite { file, .. } => file.as_deref(),
            Backend::Postgres { .. } => None,
        }
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When there is none within [`PING_PATIENCE`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        let answer =
            async { row::reading!(self, pool => sqlx::query("SELECT 1").execute(pool).await.map(|_| ())) };
        match tokio::time::timeout(PING_PATIENCE, answer).await {
            Ok(answer) => answer.map_err(StoreError::from),
            Err(_) => Err(StoreError::Database(sqlx::Error::PoolTimedOut)),
        }
    }

    /// Closes all connections, waiting for statements in progress.
    pub async fn close(&self) {
        match self.backend() {
            Backend::Sqlite { reader, writer, .. } => {
                reader.close().await;
                writer.close().await;
            }
            Backend::Postgres { pool, journal } => {
                pool.close().await;
                journal.close().await;
            }
        }
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.0
    }
}

async fn open_sqlite(url: &str, connections: u32) -> Result<Backend, StoreError> {
    let options: SqliteConnectOptions = url
        .parse()
        .map_err(|cause: sqlx::Error| StoreError::Url { url: url.to_owned(), cause: cause.to_string() })?;
    if url.contains(":memory:") || url.contains("mode=memory") {
        return open_memory(url, options).await;
    }
    let file = options.get_filename().to_owned();
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| StoreError::file(folder, e))?;
    }
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(BUSY_PATIENCE)
        .foreign_keys(true);
    // The promise is "on disk within a second": the writer syncs every transaction. Readers never write.
    let writing = options.clone().synchronous(SqliteSynchronous::Full);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_PATIENCE)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(writing)
        .await
        .map_err(|source| unopened(url, source))?;
    let reading = options.synchronous(SqliteSynchronous::Normal).read_only(true);
    let reader = SqlitePoolOptions::new()
        .max_connections(connections.clamp(1, 100))
        .acquire_timeout(ACQUIRE_PATIENCE)
        .connect_with(reading)
        .await
        .map_err(|source| unopened(url, source))?;
    Ok(Backend::Sqlite { reader, writer, file: Some(file) })
}

/// A database in memory lives as long as its one connection, which both pools share.
async fn open_memory(url: &str, options: SqliteConnectOptions) -> Result<Backend, StoreError> {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_PATIENCE)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.foreign_keys(true))
        .await
        .map_err(|source| unopened(url, source))?;
    Ok(Backend::Sqlite { reader: pool.clone(), writer: pool, file: None })
}

async fn open_postgres(url: &str, connections: u32) -> Result<Backend, StoreError> {
    let options: PgConnectOptions = url.parse().map_err(|cause: sqlx::Error| StoreError::Url {
        url: without_password(url),
        cause: cause.to_string(),
    })?;
    let options = options.application_name("tandem");
    let pool = PgPoolOptions::new()
        .max_connections(connections.clamp(1, 100))
        .acquire_timeout(ACQUIRE_PATIENCE)
        .connect_with(options.clone())
        .await
        .map_err(|source| unopened(url, source))?;
    let journal = PgPoolOptions::new()
        .max_connections(JOURNAL_CONNECTIONS)
        .acquire_timeout(ACQUIRE_PATIENCE)
        .connect_lazy_with(options);
    Ok(Backend::Postgres { pool, journal })
}

fn unopened(url: &str, source: sqlx::Error) -> StoreError {
    let fix = if url.starts_with("sqlite:") {
        "check that the directory can be written, and that the file is an SQLite database"
    } else {
        "check that the server runs, and the host, user, password and database name in `store.url`"
    };
    StoreError::Open { url: without_password(url), fix, source }
}

/// The URL with `***` for its password, for messages.
pub fn without_password(url: &str) -> String {
    let hidden = || {
        let (scheme, rest) = url.split_once("://")?;
        let (user, host) = rest.rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:***@{host}"))
    };
    let shown = hidden().unwrap_or_else(|| url.to_owned());
    match shown.split_once("password=") {
        Some((before, after)) => {
            let rest = after.find('&').map_or("", |end| &after[end..]);
            format!("{before}password=***{rest}")
        }
        None => shown,
    }
}

/// Connections when nothing is said.
pub const DEFAULT_CONNECTIONS: u32 = 8;
/// How long [`Store::ping`] waits.
pub const PING_PATIENCE: Duration = Duration::from_secs(2);

/// One writes; the other may still be closing after it was given up.
const JOURNAL_CONNECTIONS: u32 = 2;
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
const ACQUIRE_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("postgres://me:s3:cr@t@db/x"), "postgres://me:***@db/x");
        assert_eq!(
            without_password("postgres:///x?user=a&password=b&host=c"),
            "postgres:///x?user=a&password=***&host=c"
        );
        assert_eq!(without_password("sqlite://data/tandem.db"), "sqlite://data/tandem.db");
    }

    #[tokio::test]
    async fn the_file_and_its_directory_are_created() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/tandem.db");
        let store = Store::open(&format!("sqlite://{}", file.display())).await.unwrap();
        store.ping().await.unwrap();
        assert!(file.is_file());
        assert_eq!(store.file(), Some(file.as_path()));
    }

    #[tokio::test]
    async fn a_url_of_another_database_is_refused_with_the_ones_we_know() {
        let error = Store::open("mysql://root:pw@localhost/x").await.unwrap_err().to_string();
        assert!(
            error.contains("sqlite://") && error.contains("postgres://") && !error.contains("pw@"),
            "{error}"
        );
    }
}
