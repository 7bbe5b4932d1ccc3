//! Backups: one portable file of JSON lines, the same from SQLite and PostgreSQL.
//!
//! The first line says what the file is, then comes a line per row, and the last line counts them: a file
//! that was cut short is recognised before anything of it is kept. A backup is a snapshot, taken while
//! calls go on. It goes into an empty database of either kind, all or nothing.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, Database, Encode, QueryBuilder, Row, Type};

use super::error::StoreError;
use super::row::{reading, signed};
use super::schema::{SET_META, fresh_epoch};
use super::tables::{Kind, TABLES, Table};
use super::{Backend, BackendKind, Store};
use crate::time::UnixMs;

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupSummary {
    /// The file.
    pub file: PathBuf,
    /// Rows of all tables.
    pub rows: u64,
    /// Calls among them.
    pub calls: u64,
}

/// The columns of a row that are not null, by name.
type Columns = Map<String, Value>;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    tandem_backup: u32,
    schema: u64,
    store: BackendKind,
    made_at: UnixMs,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    table: String,
    row: Columns,
}

#[derive(Debug, Serialize, Deserialize)]
struct Footer {
    rows: u64,
}

/// Walks through every table by its key, in pages.
macro_rules! copy_out {
    ($snapshot:ident, $file:ident) => {
        for table in TABLES {
            let text = page_text(table);
            let (mut after_text, mut after_number) = (String::new(), i64::MIN);
            loop {
                let query = sqlx::query(AssertSqlSafe(text.as_str())).bind(PAGE);
                let query = match table.key_kind() {
                    Kind::Text => query.bind(after_text.clone()),
                    Kind::Int => query.bind(after_number),
                };
                let rows = query.fetch_all(&mut *$snapshot).await?;
                for row in &rows {
                    let mut object = Map::new();
                    for (place, (name, kind)) in table.columns.iter().enumerate() {
                        let value = match kind {
                            Kind::Text => row.try_get::<Option<String>, _>(place)?.map(Value::from),
                            Kind::Int => row.try_get::<Option<i64>, _>(place)?.map(Value::from),
                        };
                        if *name == table.key {
                            after_text =
                                value.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
                            after_number = value.as_ref().and_then(Value::as_i64).unwrap_or_default();
                        }
                        if let Some(value) = value {
                            object.insert((*name).to_owned(), value);
                        }
                    }
                    $file.row(table, object)?;
                }
                if rows.len() < PAGE as usize {
                    break;
                }
            }
        }
    };
}

/// Inserts the rows of a backup and gives the numbering a new epoch.
macro_rules! copy_in {
    ($transaction:ident, $backup:ident) => {
        while let Some((table, rows)) = $backup.next_rows()? {
            let filled = insert(table, &rows).build().execute(&mut *$transaction).await;
            filled.map_err(|error| $backup.damage(&error.to_string()))?;
        }
        sqlx::query(SET_META).bind("epoch").bind(fresh_epoch()).execute(&mut *$transaction).await?;
    };
}

impl Store {
    /// Writes everything into a new file, readable by its owner only. It holds call records, transcripts
    /// and hashes of tokens; recordings are files of their own and are not in it.
    ///
    /// # Errors
    /// When the file exists or cannot be written, or the database cannot be read.
    pub async fn backup(&self, to: &Path) -> Result<BackupSummary, StoreError> {
        let status = self.migration_status().await?;
        let header = Header {
            tandem_backup: FORMAT,
            schema: status.schema,
            store: self.kind(),
            made_at: UnixMs::now(),
        };
        let mut file = NewFile::create(to)?;
        file.line(&header)?;
        match self.backend() {
            Backend::Sqlite { reader, .. } => {
                let mut snapshot = reader.begin().await?;
                copy_out!(snapshot, file);
            }
            Backend::Postgres { pool, .. } => {
                let mut snapshot = pool.begin_with(POSTGRES_SNAPSHOT).await?;
                copy_out!(snapshot, file);
            }
        }
        file.finish()
    }

    /// Fills this database, which must be empty, from a backup. Its numbering gets a new epoch: clients
    /// start from a snapshot.
    ///
    /// # Errors
    /// When the database holds anything, the file is damaged or of a later version, or the database fails.
    /// Nothing is kept then.
    pub async fn restore(&self, from: &Path) -> Result<BackupSummary, StoreError> {
        self.migrate().await?;
        self.check_empty().await?;
        let mut backup = Backup::open(from)?;
        let latest = self.migration_status().await?.latest;
        if backup.schema > latest {
            return Err(StoreError::TooNew { found: signed(backup.schema), known: signed(latest) });
        }
        match self.backend() {
            Backend::Sqlite { writer, .. } => {
                let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
                copy_in!(transaction, backup);
                transaction.commit().await?;
            }
            Backend::Postgres { pool, .. } => {
                let mut transaction = pool.begin().await?;
                copy_in!(transaction, backup);
                transaction.commit().await?;
            }
        }
        Ok(BackupSummary { file: from.to_owned(), rows: backup.rows, calls: backup.calls })
    }

    async fn check_empty(&self) -> Result<(), StoreError> {
        for table in TABLES {
            let text = format!("SELECT COUNT(*) FROM {}", table.name);
            let rows: i64 = reading!(self, pool => {
                sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(pool).await
            })?;
            if rows > 0 {
                return Err(StoreError::Conflict {
                    what: format!("the database is not empty: {} holds {rows} rows", table.name),
                    fix: "restore into a new one, by another `store.url`".to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn page_text(table: &Table) -> String {
    let columns: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
    let (columns, name, key) = (columns.join(", "), table.name, table.key);
    format!("SELECT {columns} FROM {name} WHERE {key} > $2 ORDER BY {key} LIMIT $1")
}

fn insert<DB>(table: &Table, rows: &[Columns]) -> QueryBuilder<DB>
where
    DB: Database,
    Option<String>: for<'q> Encode<'q, DB> + Type<DB>,
    Option<i64>: for<'q> Encode<'q, DB> + Type<DB>,
{
    let columns: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
    let mut query = QueryBuilder::new(format!("INSERT INTO {} ({}) ", table.name, columns.join(", ")));
    query.push_values(rows, |mut values, row| {
        for (name, kind) in table.columns {
            let value = row.get(*name);
            match kind {
                Kind::Text => values.push_bind(value.and_then(Value::as_str).map(str::to_owned)),
                Kind::Int => values.push_bind(value.and_then(Value::as_i64)),
            };
        }
    });
    query
}

/// A backup being written: under another name until it is complete.
struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    rows: u64,
    calls: u64,
}

impl NewFile {
    fn create(path: &Path) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::Conflict {
                what: format!("{} exists", path.display()),
                fix: "choose another name, or remove it".to_owned(),
            });
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&partial).map_err(|e| StoreError::file(&partial, e))?;
        Ok(Self { path: path.to_owned(), partial, file: BufWriter::new(file), rows: 0, calls: 0 })
    }

    fn row(&mut self, table: &Table, row: Columns) -> Result<(), StoreError> {
        self.rows += 1;
        self.calls += u64::from(table.name == "calls");
        self.line(&Line { table: table.name.to_owned(), row })
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), StoreError> {
        let written = serde_json::to_writer(&mut self.file, value)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|e| StoreError::file(&self.partial, e))
    }

    fn finish(mut self) -> Result<BackupSummary, StoreError> {
        self.line(&Footer { rows: self.rows })?;
        let kept = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .and_then(|()| std::fs::rename(&self.partial, &self.path));
        kept.map_err(|e| StoreError::file(&self.path, e))?;
        Ok(BackupSummary { file: self.path, rows: self.rows, calls: self.calls })
    }
}

/// A backup being read.
struct Backup {
    path: PathBuf,
    lines: std::io::Lines<BufReader<File>>,
    number: u64,
    schema: u64,
    rows: u64,
    calls: u64,
    /// The first row of the next table, read ahead.
    ahead: Option<(&'static Table, Columns)>,
    complete: bool,
}

impl Backup {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|e| StoreError::file(path, e))?;
        let lines = BufReader::new(file).lines();
        let mut backup = Self {
            path: path.to_owned(),
            lines,
            number: 0,
            schema: 0,
            rows: 0,
            calls: 0,
            ahead: None,
            complete: false,
        };
        let header = backup.line()?.and_then(|text| serde_json::from_str::<Header>(&text).ok());
        match header {
            Some(header) if header.tandem_backup == FORMAT => backup.schema = header.schema,
            _ => return Err(backup.damage("this is no backup of ours; `tandem db backup` makes one")),
        }
        Ok(backup)
    }

    /// Some rows of one table; none after the last, which is checked to be there.
    fn next_rows(&mut self) -> Result<Option<(&'static Table, Vec<Columns>)>, StoreError> {
        let Some((table, first)) = self.next_row()? else { return Ok(None) };
        let mut rows = vec![first];
        while rows.len() < ROWS_AT_ONCE {
            match self.next_row()? {
                Some((same, row)) if same.name == table.name => rows.push(row),
                other => {
                    self.ahead = other;
                    break;
                }
            }
        }
        Ok(Some((table, rows)))
    }

    fn next_row(&mut self) -> Result<Option<(&'static Table, Columns)>, StoreError> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        if self.complete {
            return Ok(None);
        }
        let Some(text) = self.line()? else {
            return Err(self.damage("the file ends too early; use another backup"));
        };
        if let Ok(footer) = serde_json::from_str::<Footer>(&text) {
            self.complete = true;
            if footer.rows != self.rows {
                let cause = format!("{} of {} rows are there; use another backup", self.rows, footer.rows);
                return Err(self.damage(&cause));
            }
            return Ok(None);
        }
        let line: Line = serde_json::from_str(&text).map_err(|cause| self.damage(&cause.to_string()))?;
        let table = TABLES.iter().find(|table| table.name == line.table);
        let table = table.ok_or_else(|| self.damage(&format!("unknown table `{}`", line.table)))?;
        if let Some(unknown) = line.row.keys().find(|name| table.columns.iter().all(|(n, _)| n != name)) {
            return Err(self.damage(&format!("unknown column `{unknown}` of {}", table.name)));
        }
        self.rows += 1;
        self.calls += u64::from(table.name == "calls");
        Ok(Some((table, line.row)))
    }

    fn line(&mut self) -> Result<Option<String>, StoreError> {
        self.number += 1;
        self.lines.next().transpose().map_err(|e| StoreError::file(&self.path, e))
    }

    fn damage(&self, cause: &str) -> StoreError {
        StoreError::Backup { path: self.path.clone(), line: self.number, cause: cause.to_owned() }
    }
}

impl Table {
    fn key_kind(&self) -> Kind {
        let key = self.columns.iter().find(|(name, _)| *name == self.key);
        key.map_or(Kind::Text, |(_, kind)| *kind)
    }
}

const FORMAT: u32 = 1;
const POSTGRES_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
const PAGE: i64 = 500;
/// PostgreSQL takes 65535 values in a statement, SQLite 32766.
const ROWS_AT_ONCE: usize = 200;
