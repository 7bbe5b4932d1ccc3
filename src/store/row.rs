//! Rows that are read alike from both back ends.

/// Declares a struct whose fields are the columns of a query, readable from SQLite and PostgreSQL.
macro_rules! row {
    ($(#[$meta:meta])* struct $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        struct $name { $($field: $type),* }
        crate::store::row::row!(@from sqlx::sqlite::SqliteRow, $name { $($field),* });
        crate::store::row::row!(@from sqlx::postgres::PgRow, $name { $($field),* });
    };
    (@from $row:ty, $name:ident { $($field:ident),* }) => {
        impl<'r> sqlx::FromRow<'r, $row> for $name {
            fn from_row(row: &'r $row) -> Result<Self, sqlx::Error> {
                use sqlx::Row as _;
                Ok(Self { $($field: row.try_get(stringify!($field))?),* })
            }
        }
    };
}
pub(crate) use row;

/// Runs an expression with the pool for reading of whichever back end it is.
macro_rules! reading {
    ($store:expr, $pool:ident => $body:expr) => {
        match $store.backend() {
            crate::store::Backend::Sqlite { reader: $pool, .. } => $body,
            crate::store::Backend::Postgres { pool: $pool, .. } => $body,
        }
    };
}
pub(crate) use reading;

/// Runs an expression with the pool for writing of whichever back end it is.
macro_rules! writing {
    ($store:expr, $pool:ident => $body:expr) => {
        match $store.backend() {
            crate::store::Backend::Sqlite { writer: $pool, .. } => $body,
            crate::store::Backend::Postgres { pool: $pool, .. } => $body,
        }
    };
}
pub(crate) use writing;

use serde::de::DeserializeOwned;

use super::error::StoreError;

/// Reads an id or anything else that has a text form.
pub(super) fn parsed<T>(table: &'static str, text: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|cause: T::Err| StoreError::Corrupt { table, cause: cause.to_string() })
}

/// Reads one of an enum's words.
pub(super) fn word<T: DeserializeOwned>(table: &'static str, text: String) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(text))
        .map_err(|cause| StoreError::Corrupt { table, cause: cause.to_string() })
}

/// Reads a JSON column.
pub(super) fn json<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|cause| StoreError::Corrupt { table, cause: cause.to_string() })
}

/// Numbers are `BIGINT` in both databases; ours are never negative.
pub(super) fn unsigned(value: i64) -> u64 {
    value.max(0).unsigned_abs()
}

/// The largest `BIGINT` stands for everything above it.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// PostgreSQL refuses U+0000 in text; the replacement character takes its place on both back ends.
pub(super) fn storable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}
