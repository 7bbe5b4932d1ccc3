//! API keys of providers, as they are kept: sealed. Who can open them is not this module's matter.

use super::Store;
use super::error::StoreError;
use super::row::{parsed, reading, row, writing};
use crate::id::ProviderKeyId;
use crate::time::UnixMs;

const ADD: &str = "INSERT INTO provider_keys (id, provider, organization, fingerprint, sealed, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6)";
const ALL: &str = "SELECT id, provider, organization, fingerprint, sealed, created_at \
     FROM provider_keys ORDER BY provider, organization, created_at, id";
const REMOVE: &str = "DELETE FROM provider_keys WHERE id = $1 AND provider = $2";
const RESEAL: &str = "UPDATE provider_keys SET sealed = $3 WHERE id = $1 AND sealed = $2";
const HAS_ORGANIZATION: &str = "SELECT COUNT(*) FROM organizations WHERE name = $1";

/// A key as it may be shown: without itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ProviderKey {
    /// Its id, for removing it.
    pub id: ProviderKeyId,
    /// The `[providers.NAME]` section it belongs to.
    pub provider: String,
    /// Whose calls use it; `None`: those of every organization without keys of its own.
    pub organization: Option<String>,
    /// The first eight hexadecimal digits of its SHA-256.
    pub fingerprint: String,
    /// When it was added.
    pub created_at: UnixMs,
}

/// A key with its sealed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// What may be shown of it.
    pub key: ProviderKey,
    /// By [`super::vault::Vault::seal`].
    pub sealed: String,
}

impl Store {
    /// Keeps a key.
    ///
    /// # Errors
    /// When the same key is there already, the organization does not exist, or the database fails.
    pub async fn add_provider_key(&self, new: &SealedKey) -> Result<(), StoreError> {
        let key = &new.key;
        if let Some(name) = &key.organization {
            let found: i64 = reading!(self, pool => {
                sqlx::query_scalar(HAS_ORGANIZATION).bind(name).fetch_one(pool).await
            })?;
            if found == 0 {
                return Err(StoreError::NotFound { what: "org", name: name.clone() });
            }
        }
        let added = writing!(self, pool => {
            sqlx::query(ADD)
                .bind(key.id.to_string())
                .bind(&key.provider)
                .bind(&key.organization)
                .bind(&key.fingerprint)
                .bind(&new.sealed)
                .bind(key.created_at.get())
                .execute(pool)
                .await
                .map(|_| ())
        });
        added.map_err(|error| match error.as_database_error() {
            Some(refused) if refused.is_unique_violation() => StoreError::Conflict {
                what: format!("{} has key {} already", key.provider, key.fingerprint),
                fix: "see `tandem provider key list`".to_owned(),
            },
            _ => error.into(),
        })
    }

    /// All keys.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn provider_keys(&self) -> Result<Vec<SealedKey>, StoreError> {
        let rows: Vec<KeyRow> = reading!(self, pool => sqlx::query_as(ALL).fetch_all(pool).await)?;
        rows.into_iter().map(KeyRow::read).collect()
    }

    /// Removes a provider's key. `false` when it has none of that id.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn remove_provider_key(&self, provider: &str, id: ProviderKeyId) -> Result<bool, StoreError> {
        let id = id.to_string();
        let gone = writing!(self, pool => {
            sqlx::query(REMOVE).bind(id).bind(provider).execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(gone > 0)
    }

    /// Keeps another sealed text of a key. `false` when it was no longer as it was read.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn reseal_provider_key(&self, read: &SealedKey, sealed: &str) -> Result<bool, StoreError> {
        let id = read.key.id.to_string();
        let changed = writing!(self, pool => {
            let update = sqlx::query(RESEAL).bind(id).bind(&read.sealed).bind(sealed);
            update.execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(changed > 0)
    }
}

row! {
    struct KeyRow {
        id: String,
        provider: String,
        organization: Option<String>,
        fingerprint: String,
        sealed: String,
        created_at: i64,
    }
}

impl KeyRow {
    fn read(self) -> Result<SealedKey, StoreError> {
        let key = ProviderKey {
            id: parsed("provider_keys", &self.id)?,
            provider: self.provider,
            organization: self.organization,
            fingerprint: self.fingerprint,
            created_at: UnixMs::new(self.created_at),
        };
        Ok(SealedKey { key, sealed: self.sealed })
    }
}
