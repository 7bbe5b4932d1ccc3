//! Tools that organizations declare: webhooks their assistants may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Applied, Stored, check_name, needs_organization};
use crate::id::ToolId;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::row::{json, parsed, reading, row, storable, writing};
use crate::time::UnixMs;

const INSERT: &str = "INSERT INTO tools (id, organization, name, body, created_at, updated_at) \
     VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (organization, name) DO NOTHING";
const UPDATE: &str = "UPDATE tools SET body = $3, updated_at = $4 \
     WHERE organization = $1 AND name = $2 AND body <> $3";
const ALL: &str = "SELECT id, body, created_at, updated_at FROM tools \
     WHERE (CAST($1 AS TEXT) IS NULL OR organization = $1) ORDER BY organization, name";
const REMOVE: &str = "DELETE FROM tools WHERE organization = $1 AND name = $2";

/// A tool that an organization's own web server answers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Whose it is.
    pub organization: String,
    /// Function name, unique in its organization.
    pub name: String,
    /// When and how a model should use it.
    pub description: String,
    /// JSON Schema of its arguments.
    pub parameters: serde_json::Value,
    /// Where it is asked, by POST.
    pub url: String,
    /// Environment variable of the server that holds the secret it is signed with; absent: it is not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// More headers, each with the environment variable that holds its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers_env: BTreeMap<String, String>,
    /// Seconds it may take, 1..=120; absent: [`Self::TIMEOUT_S`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 120))]
    pub timeout_s: Option<u32>,
    /// Said while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speak: Option<String>,
    /// Given up when the caller speaks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_on_barge_in: bool,
}

impl Tool {
    /// Seconds a tool may take that says nothing else.
    pub const TIMEOUT_S: u32 = 10;
}

impl Store {
    /// Stores a tool.
    ///
    /// # Errors
    /// When a value is out of range, the organization does not exist, or the database fails.
    pub async fn put_tool(&self, tool: &Tool) -> Result<Applied, StoreError> {
        check_name("tool.name", &tool.name)?;
        if let Some(seconds) = tool.timeout_s.filter(|seconds| !(1..=120).contains(seconds)) {
            let cause = format!("{seconds} is not within 1..=120 seconds");
            return Err(StoreError::Invalid { field: "tool.timeout_s", cause });
        }
        let body = serde_json::to_string(tool)
            .map_err(|cause| StoreError::Invalid { field: "tool", cause: cause.to_string() })?;
        let body = storable(&body);
        let (organization, name) = (&tool.organization, &tool.name);
        let (id, now) = (ToolId::fresh().to_string(), UnixMs::now().get());
        let added = writing!(self, pool => {
            sqlx::query(INSERT)
                .bind(id)
                .bind(organization)
                .bind(name)
                .bind(&*body)
                .bind(now)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })
        .map_err(|error| needs_organization(error.into(), organization))?;
        if added > 0 {
            return Ok(Applied::Created);
        }
        let changed = writing!(self, pool => {
            sqlx::query(UPDATE)
                .bind(organization)
                .bind(name)
                .bind(&*body)
                .bind(now)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })?;
        Ok(if changed > 0 { Applied::Updated } else { Applied::Unchanged })
    }

    /// All tools, or those of one organization, by organization and name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn tools(&self, organization: Option<&str>) -> Result<Vec<Stored<ToolId, Tool>>, StoreError> {
        let rows: Vec<ToolRow> =
            reading!(self, pool => sqlx::query_as(ALL).bind(organization).fetch_all(pool).await)?;
        rows.into_iter().map(ToolRow::read).collect()
    }

    /// Removes a tool; whether there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_tool(&self, organization: &str, name: &str) -> Result<bool, StoreError> {
        let removed = writing!(self, pool => {
            sqlx::query(REMOVE).bind(organization).bind(name).execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(removed > 0)
    }
}

row! {
    struct ToolRow { id: String, body: String, created_at: i64, updated_at: i64 }
}

impl ToolRow {
    fn read(self) -> Result<Stored<ToolId, Tool>, StoreError> {
        Ok(Stored {
            id: parsed("tools", &self.id)?,
            value: json("tools", &self.body)?,
            created_at: UnixMs::new(self.created_at),
            updated_at: UnixMs::new(self.updated_at),
        })
    }
}
