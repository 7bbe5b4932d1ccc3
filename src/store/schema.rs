//! The migrations, compiled in, and which of them the database has.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::error::StoreError;
use super::row::{reading, row, unsigned, writing};
use super::{Backend, Store};
use crate::time::UnixMs;

/// Number, name, and text for SQLite and for PostgreSQL. A released migration never changes: the
/// database keeps its checksum.
const MIGRATIONS: &[(i64, &str, &str, &str)] = &[
    (
        1,
        "initial",
        include_str!("../../migrations/sqlite/0001_initial.sql"),
        include_str!("../../migrations/postgres/0001_initial.sql"),
    ),
    (
        3,
        "idempotency",
        include_str!("../../migrations/sqlite/0003_idempotency.sql"),
        include_str!("../../migrations/postgres/0003_idempotency.sql"),
    ),
    (
        4,
        "phones",
        include_str!("../../migrations/sqlite/0004_phones.sql"),
        include_str!("../../migrations/postgres/0004_phones.sql"),
    ),
    (
        5,
        "caller_verdict",
        include_str!("../../migrations/sqlite/0005_caller_verdict.sql"),
        include_str!("../../migrations/postgres/0005_caller_verdict.sql"),
    ),
    (
        6,
        "providers",
        include_str!("../../migrations/sqlite/0006_providers.sql"),
        include_str!("../../migrations/postgres/0006_providers.sql"),
    ),
    (
        7,
        "tools",
        include_str!("../../migrations/sqlite/0007_tools.sql"),
        include_str!("../../migrations/postgres/0007_tools.sql"),
    ),
    (
        8,
        "cost",
        include_str!("../../migrations/sqlite/0008_cost.sql"),
        include_str!("../../migrations/postgres/0008_cost.sql"),
    ),
];

const ADD_META: &str = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING";
pub(super) const SET_META: &str =
    "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const GET_META: &str = "SELECT value FROM meta WHERE key = $1";
const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
const HAS_MIGRATIONS_SQLITE: &str =
    "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'";
const HAS_MIGRATIONS_POSTGRES: &str = "SELECT COUNT(*) FROM information_schema.tables \
     WHERE table_schema = current_schema() AND table_name = '_sqlx_migrations'";

/// Which migrations there are and which the database has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MigrationStatus {
    /// The database's schema number; 0 when it is empty.
    pub schema: u64,
    /// Ours.
    pub latest: u64,
    /// Each migration.
    pub migrations: Vec<MigrationState>,
}

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MigrationState {
    /// 1, 2, 3, …
    pub number: u64,
    /// What it is about.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

impl MigrationStatus {
    /// Whether nothing is left to do.
    pub fn is_current(&self) -> bool {
        self.schema == self.latest
    }
}

impl Store {
    /// Brings the tables up to date. Harmless when they are. Several processes may try at once: the
    /// database makes them take turns.
    ///
    /// # Errors
    /// When the database is newer than this version, or refuses a statement.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let found = self.migration_status().await?;
        if found.schema > found.latest {
            return Err(StoreError::TooNew { found: found.schema as i64, known: found.latest as i64 });
        }
        match self.backend() {
            Backend::Sqlite { writer, .. } => migrator(|(.., sqlite, _)| sqlite).run(writer).await?,
            Backend::Postgres { pool, .. } => migrator(|(.., postgres)| postgres).run(pool).await?,
        }
        self.add_meta("epoch", &fresh_epoch()).await?;
        self.add_meta("created_at", &UnixMs::now().to_rfc3339()).await
    }

    /// Which migrations the database has.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn migration_status(&self) -> Result<MigrationStatus, StoreError> {
        let applied = self.applied_migrations().await?;
        let latest = MIGRATIONS.iter().map(|(number, ..)| *number).max().unwrap_or(0);
        let migrations = MIGRATIONS
            .iter()
            .map(|(number, name, ..)| MigrationState {
                number: unsigned(*number),
                name: (*name).to_owned(),
                applied: applied.contains(number),
            })
            .collect();
        let schema = applied.last().copied().unwrap_or(0);
        Ok(MigrationStatus { schema: unsigned(schema), latest: unsigned(latest), migrations })
    }

    /// The random name of this database's numbering. It changes when a backup is restored, and with it
    /// the meaning of every number a client remembers.
    ///
    /// # Errors
    /// When it cannot be read, or the tables were never made.
    pub async fn epoch(&self) -> Result<String, StoreError> {
        self.meta("epoch").await?.ok_or_else(|| StoreError::Corrupt {
            table: "meta",
            cause: "the epoch is missing; run `tandem db migrate`".to_owned(),
        })
    }

    pub(super) async fn meta(&self, key: &'static str) -> Result<Option<String>, StoreError> {
        row! { struct Meta { value: String } }
        let row: Option<Meta> =
            reading!(self, pool => sqlx::query_as(GET_META).bind(key).fetch_optional(pool).await)?;
        Ok(row.map(|row| row.value))
    }

    async fn add_meta(&self, key: &'static str, value: &str) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(ADD_META).bind(key).bind(value).execute(pool).await.map(|_| ()))?;
        Ok(())
    }

    async fn applied_migrations(&self) -> Result<Vec<i64>, StoreError> {
        let tables: i64 = match self.backend() {
            Backend::Sqlite { reader, .. } => {
                sqlx::query_scalar(HAS_MIGRATIONS_SQLITE).fetch_one(reader).await?
            }
            Backend::Postgres { pool, .. } => {
                sqlx::query_scalar(HAS_MIGRATIONS_POSTGRES).fetch_one(pool).await?
            }
        };
        if tables == 0 {
            return Ok(Vec::new());
        }
        Ok(reading!(self, pool => sqlx::query_scalar(APPLIED).fetch_all(pool).await)?)
    }
}

fn migrator(text: fn(&(i64, &str, &'static str, &'static str)) -> &'static str) -> Migrator {
    let migrations = MIGRATIONS.iter().map(|migration| {
        let sql = text(migration).into_sql_str();
        Migration::new(migration.0, migration.1.into(), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}

pub(super) fn fresh_epoch() -> String {
    format!("{:016x}", rand::random::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_file_of_both_back_ends_is_compiled_in() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        for back_end in ["sqlite", "postgres"] {
            let mut files: Vec<_> = std::fs::read_dir(root.join(back_end))
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let known: Vec<_> = MIGRATIONS.iter().map(|(n, name, ..)| format!("{n:04}_{name}.sql")).collect();
            assert_eq!(files, known, "{back_end}");
        }
    }

    #[tokio::test]
    async fn migrating_twice_changes_nothing() {
        let store = Store::open("sqlite::memory:").await.unwrap();
        assert!(!store.migration_status().await.unwrap().is_current());
        store.migrate().await.unwrap();
        let epoch = store.epoch().await.unwrap();
        store.migrate().await.unwrap();
        assert!(store.migration_status().await.unwrap().is_current());
        assert_eq!(store.epoch().await.unwrap(), epoch);
    }
}
