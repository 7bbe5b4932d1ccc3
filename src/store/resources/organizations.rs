//! Organizations: the tenants.

use serde::{Deserialize, Serialize};

use super::{Applied, Stored, check_name};
use crate::config::Money;
use crate::id::OrganizationId;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::row::{parsed, reading, row, signed, unsigned, word, writing};
use crate::time::UnixMs;

const INSERT: &str = "INSERT INTO organizations (id, name, recording, created_at, updated_at, daily_budget) \
     VALUES ($1, $2, $3, $4, $4, $5) ON CONFLICT (name) DO NOTHING";
const UPDATE: &str = "UPDATE organizations SET recording = $2, updated_at = $3, daily_budget = $4 WHERE name = $1 \
     AND (recording <> $2 OR COALESCE(daily_budget, -1) <> COALESCE($4, -1))";
const ALL: &str =
    "SELECT id, name, recording, created_at, updated_at, daily_budget FROM organizations ORDER BY name";
const BY_NAME: &str =
    "SELECT id, name, recording, created_at, updated_at, daily_budget FROM organizations WHERE name = $1";

/// A tenant: one business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// Its name, the key by which everything refers to it: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// Whether its calls may be recorded. Off unless it says so.
    #[serde(default)]
    pub recording: RecordingSetting,
    /// Most its calls that begin on one day (UTC) may cost together. Absent: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_budget: Option<Money>,
}

/// Consent to recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordingSetting {
    /// Audio is never kept.
    #[default]
    Off,
    /// Every call is recorded.
    On,
}

impl RecordingSetting {
    /// As in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
        }
    }
}

impl Store {
    /// Stores an organization.
    ///
    /// # Errors
    /// When its name is none, or the database fails.
    pub async fn put_organization(&self, organization: &Organization) -> Result<Applied, StoreError> {
        check_name("organization.name", &organization.name)?;
        let id = OrganizationId::fresh().to_string();
        let (name, recording, now) =
            (&organization.name, organization.recording.as_str(), UnixMs::now().get());
        let budget = organization.daily_budget.map(|money| signed(money.nanos()));
        let added = writing!(self, pool => {
            sqlx::query(INSERT)
                .bind(id)
                .bind(name)
                .bind(recording)
                .bind(now)
                .bind(budget)
                .execute(pool)
                .await
                .map(|d| d.rows_affected())
        })?;
        if added > 0 {
            return Ok(Applied::Created);
        }
        let changed = writing!(self, pool => {
            sqlx::query(UPDATE)
                .bind(name)
                .bind(recording)
                .bind(now)
                .bind(budget)
                .execute(pool)
                .await
                .map(|d| d.rows_affected())
        })?;
        Ok(if changed > 0 { Applied::Updated } else { Applied::Unchanged })
    }

    /// All organizations, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn organizations(&self) -> Result<Vec<Stored<OrganizationId, Organization>>, StoreError> {
        let rows: Vec<OrganizationRow> = reading!(self, pool => sqlx::query_as(ALL).fetch_all(pool).await)?;
        rows.into_iter().map(OrganizationRow::read).collect()
    }

    /// The organization of that name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn organization(
        &self,
        name: &str,
    ) -> Result<Option<Stored<OrganizationId, Organization>>, StoreError> {
        let row: Option<OrganizationRow> =
            reading!(self, pool => sqlx::query_as(BY_NAME).bind(name).fetch_optional(pool).await)?;
        row.map(OrganizationRow::read).transpose()
    }
}

row! {
    struct OrganizationRow {
        id: String,
        name: String,
        recording: String,
        created_at: i64,
        updated_at: i64,
        daily_budget: Option<i64>,
    }
}

impl OrganizationRow {
    fn read(self) -> Result<Stored<OrganizationId, Organization>, StoreError> {
        let recording = word("organizations", self.recording)?;
        Ok(Stored {
            id: parsed("organizations", &self.id)?,
            value: Organization {
                name: self.name,
                recording,
                daily_budget: self.daily_budget.map(|nanos| Money::from_nanos(unsigned(nanos))),
            },
            created_at: UnixMs::new(self.created_at),
            updated_at: UnixMs::new(self.updated_at),
        })
    }
}
