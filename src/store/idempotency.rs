//! Requests that must not be carried out twice (`Idempotency-Key`): the first answer is kept for a day and
//! given again.

use sha2::{Digest, Sha256};

use super::Store;
use super::error::StoreError;
use super::row::{reading, row, writing};
use crate::time::UnixMs;

const FORGET: &str = "DELETE FROM idempotency WHERE created_at < $1";
const BEGIN: &str = "INSERT INTO idempotency (id, body_hash, status, response, created_at) \
     VALUES ($1, $2, 0, '', $3) ON CONFLICT (id) DO NOTHING";
const FIND: &str = "SELECT body_hash, status, response FROM idempotency WHERE id = $1";
const FINISH: &str = "UPDATE idempotency SET status = $2, response = $3 WHERE id = $1";
const RELEASE: &str = "DELETE FROM idempotency WHERE id = $1";

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nothing: the request is to be carried out, and its answer to be kept.
    New,
    /// This was the answer.
    Answered {
        /// HTTP status.
        status: u16,
        /// The body.
        response: String,
    },
    /// The same request is being carried out.
    UnderWay,
    /// The key came with another request.
    Conflict,
}

/// A key within its organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of a request to `path` by somebody of that organization (`None`: the installation).
    pub fn new(organization: Option<&str>, path: &str, key: &str) -> Self {
        let parts = [organization.unwrap_or_default(), path, key];
        Self(hash(&parts.join("\n")))
    }
}

impl Store {
    /// Claims a key for a request with this body.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(&self, key: &IdempotencyKey, body: &str) -> Result<Known, StoreError> {
        let now = UnixMs::now().get();
        let (id, body_hash) = (key.0.as_str(), hash(body));
        writing!(self, pool => {
            sqlx::query(FORGET).bind(now - KEPT_MS).execute(pool).await.map(|_| ())
        })?;
        let inserted = writing!(self, pool => {
            let insert = sqlx::query(BEGIN).bind(id).bind(&body_hash).bind(now);
            insert.execute(pool).await.map(|done| done.rows_affected())
        })?;
        if inserted > 0 {
            return Ok(Known::New);
        }
        row! { struct Found { body_hash: String, status: i64, response: String } }
        let found: Option<Found> =
            reading!(self, pool => sqlx::query_as(FIND).bind(id).fetch_optional(pool).await)?;
        Ok(match found {
            Some(found) if found.body_hash != body_hash => Known::Conflict,
            Some(found) if found.status > 0 => Known::Answered {
                status: u16::try_from(found.status).unwrap_or(202),
                response: found.response,
            },
            Some(_) => Known::UnderWay,
            // It was given up in between; the next try will have it.
            None => Known::UnderWay,
        })
    }

    /// Keeps the answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_answer(
        &self,
        key: &IdempotencyKey,
        status: u16,
        response: &str,
    ) -> Result<(), StoreError> {
        let (id, status) = (key.0.as_str(), i64::from(status));
        writing!(self, pool => {
            sqlx::query(FINISH).bind(id).bind(status).bind(response).execute(pool).await.map(|_| ())
        })?;
        Ok(())
    }

    /// Gives a key back: its request was not carried out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(&self, key: &IdempotencyKey) -> Result<(), StoreError> {
        let id = key.0.as_str();
        writing!(self, pool => sqlx::query(RELEASE).bind(id).execute(pool).await.map(|_| ()))?;
        Ok(())
    }
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A day.
const KEPT_MS: i64 = 24 * 3600 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_carried_out_once_and_answered_twice() {
        let store = Store::open("sqlite::memory:").await.unwrap();
        store.migrate().await.unwrap();
        let key = IdempotencyKey::new(Some("acme"), "/api/v1/calls", "k");
        assert_eq!(store.claim(&key, "{}").await.unwrap(), Known::New);
        assert_eq!(store.claim(&key, "{}").await.unwrap(), Known::UnderWay);
        store.keep_answer(&key, 202, "done").await.unwrap();
        let answer = Known::Answered { status: 202, response: "done".to_owned() };
        assert_eq!(store.claim(&key, "{}").await.unwrap(), answer);
        assert_eq!(store.claim(&key, "{ }").await.unwrap(), Known::Conflict);
        let other = IdempotencyKey::new(None, "/api/v1/calls", "k");
        assert_eq!(store.claim(&other, "{}").await.unwrap(), Known::New);
        store.release(&other).await.unwrap();
        assert_eq!(store.claim(&other, "{}").await.unwrap(), Known::New);
    }
}
