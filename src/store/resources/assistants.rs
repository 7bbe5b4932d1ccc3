//! Assistants: the AI personas of an organization.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Applied, Stored, check_name, needs_organization};
use crate::config::manners::{BargeIn, FirstSpeaker, Silence};
use crate::config::{Money, NoiseReduction};
use crate::id::AssistantId;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::row::{json, parsed, reading, row, storable, writing};
use crate::time::UnixMs;

const INSERT: &str = "INSERT INTO assistants (id, organization, name, body, created_at, updated_at) \
     VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (organization, name) DO NOTHING";
const UPDATE: &str = "UPDATE assistants SET body = $3, updated_at = $4 \
     WHERE organization = $1 AND name = $2 AND body <> $3";
const ALL: &str = "SELECT id, body, created_at, updated_at FROM assistants \
     WHERE (CAST($1 AS TEXT) IS NULL OR organization = $1) ORDER BY organization, name";
const BY_NAME: &str = "SELECT id, body, created_at, updated_at FROM assistants \
     WHERE organization = $1 AND name = $2";

/// An AI persona. What is left out is decided by its provider or the configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assistant {
    /// Whose it is.
    pub organization: String,
    /// Its name within the organization: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// Providers by name, the first that can be reached is taken. Empty: `routing.default_chain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// The provider's name of a voice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    /// The provider's name of a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// BCP 47 language of the callers, such as `en` or `pt-BR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The system prompt.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instructions: String,
    /// What it says first; without one, what the instructions lead it to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greeting: Option<String>,
    /// Tools it may use, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Where it may move calls to: a name for each number, phone (`phone:101`) or SIP URI.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub transfer_to: std::collections::BTreeMap<String, String>,
    /// How the end of the caller's turn is found, such as `{ kind = "server_vad", silence_duration_ms = 500 }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_detection: Option<serde_json::Value>,
    /// The script of the `scripted` provider: a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Seconds after which the call is ended politely, 1..=86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_duration_s: Option<u32>,
    /// Most a call with it may cost, in the price table's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<Money>,
    /// What it says when the call has reached its longest duration, or the caller has gone silent for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<String>,
    /// Sound file it greets with; `greeting` is then what is said in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greeting_file: Option<PathBuf>,
    /// Who speaks first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_speaker: Option<FirstSpeaker>,
    /// What happens when nobody says anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<Silence>,
    /// How the caller interrupts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barge_in: Option<BargeIn>,
    /// The service's noise reduction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_reduction: Option<NoiseReduction>,
    /// How fast the voice speaks, 0.25..=1.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f32>,
    /// Longest answer in tokens, 1..=4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
}

impl Store {
    /// Stores an assistant.
    ///
    /// # Errors
    /// When a value is out of range, the organization does not exist, or the database fails.
    pub async fn put_assistant(&self, assistant: &Assistant) -> Result<Applied, StoreError> {
        check_name("assistant.name", &assistant.name)?;
        check_duration(assistant.max_duration_s)?;
        let body = serde_json::to_string(assistant)
            .map_err(|cause| StoreError::Invalid { field: "assistant", cause: cause.to_string() })?;
        let body = storable(&body);
        let (organization, name) = (&assistant.organization, &assistant.name);
        let (id, now) = (AssistantId::fresh().to_string(), UnixMs::now().get());
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

    /// All assistants, or those of one organization, by organization and name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn assistants(
        &self,
        organization: Option<&str>,
    ) -> Result<Vec<Stored<AssistantId, Assistant>>, StoreError> {
        let rows: Vec<AssistantRow> =
            reading!(self, pool => sqlx::query_as(ALL).bind(organization).fetch_all(pool).await)?;
        rows.into_iter().map(AssistantRow::read).collect()
    }

    /// The assistant of that organization and name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn assistant(
        &self,
        organization: &str,
        name: &str,
    ) -> Result<Option<Stored<AssistantId, Assistant>>, StoreError> {
        let row: Option<AssistantRow> = reading!(self, pool => {
            sqlx::query_as(BY_NAME).bind(organization).bind(name).fetch_optional(pool).await
        })?;
        row.map(AssistantRow::read).transpose()
    }
}

fn check_duration(seconds: Option<u32>) -> Result<(), StoreError> {
    match seconds {
        Some(seconds) if !(1..=86_400).contains(&seconds) => Err(StoreError::Invalid {
            field: "assistant.max_duration_s",
            cause: format!("{seconds} is not within 1..=86400 seconds; leave it out for no limit"),
        }),
        _ => Ok(()),
    }
}

row! {
    struct AssistantRow { id: String, body: String, created_at: i64, updated_at: i64 }
}

impl AssistantRow {
    fn read(self) -> Result<Stored<AssistantId, Assistant>, StoreError> {
        Ok(Stored {
            id: parsed("assistants", &self.id)?,
            value: json("assistants", &self.body)?,
            created_at: UnixMs::new(self.created_at),
            updated_at: UnixMs::new(self.updated_at),
        })
    }
}
