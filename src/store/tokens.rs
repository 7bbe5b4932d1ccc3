//! API tokens: random 256-bit secrets of which only a hash is kept.

use sha2::{Digest, Sha256};

use super::Store;
use super::error::StoreError;
use super::resources::Role;
use super::row::{parsed, reading, row, word, writing};
use crate::id::TokenId;
use crate::time::UnixMs;

const CREATE: &str = "INSERT INTO api_tokens \
     (id, hash, label, role, organization, created_at, expires_at, last_used_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, NULL)";
const BY_HASH: &str = "SELECT id, label, role, organization, created_at, expires_at, last_used_at \
     FROM api_tokens WHERE hash = $1";
const ALL: &str = "SELECT id, label, role, organization, created_at, expires_at, last_used_at \
     FROM api_tokens ORDER BY created_at, id";
const REVOKE: &str = "DELETE FROM api_tokens WHERE id = $1";
const TOUCH: &str = "UPDATE api_tokens SET last_used_at = $2 \
     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $3)";
const HAS_ORGANIZATION: &str = "SELECT COUNT(*) FROM organizations WHERE name = $1";

/// A token as it is stored: without its secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Token {
    /// Its id, for revoking it.
    pub id: TokenId,
    /// What it is for, in the words of whoever made it.
    pub label: String,
    /// What it may do.
    pub role: Role,
    /// The only organization it may see, by name; `None` for the whole installation.
    pub organization: Option<String>,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it stops working.
    pub expires_at: Option<UnixMs>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<UnixMs>,
}

/// A token at the one moment its secret is known.
#[derive(Clone)]
pub struct NewToken {
    /// `tandem_` and 52 letters and digits. Shown once and kept nowhere.
    pub secret: String,
    /// The rest.
    pub token: Token,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("secret", &"***").field("token", &self.token).finish()
    }
}

impl Store {
    /// Makes a token. With an organization it sees that one only; an admin's sees all.
    ///
    /// # Errors
    /// When role and organization do not fit, the organization does not exist, or the database fails.
    pub async fn create_token(
        &self,
        label: &str,
        role: Role,
        organization: Option<&str>,
        expires_at: Option<UnixMs>,
    ) -> Result<NewToken, StoreError> {
        role.check_organization(organization)?;
        if let Some(name) = organization {
            let found: i64 = reading!(self, pool => {
                sqlx::query_scalar(HAS_ORGANIZATION).bind(name).fetch_one(pool).await
            })?;
            if found == 0 {
                return Err(StoreError::NotFound { what: "org", name: name.to_owned() });
            }
        }
        let secret = fresh_secret();
        let token = Token {
            id: TokenId::fresh(),
            label: label.to_owned(),
            role,
            organization: organization.map(str::to_owned),
            created_at: UnixMs::now(),
            expires_at,
            last_used_at: None,
        };
        writing!(self, pool => {
            sqlx::query(CREATE)
                .bind(token.id.to_string())
                .bind(hash(&secret))
                .bind(&token.label)
                .bind(role.as_str())
                .bind(&token.organization)
                .bind(token.created_at.get())
                .bind(token.expires_at.map(UnixMs::get))
                .execute(pool)
                .await
                .map(|_| ())
        })?;
        Ok(NewToken { secret, token })
    }

    /// The token of a secret, if there is one and it has not expired at `now`. Its hash is what is looked
    /// up, so the time this takes says nothing about other secrets. Its use is noted once a minute.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn verify_token(&self, secret: &str, now: UnixMs) -> Result<Option<Token>, StoreError> {
        if !secret.starts_with(PREFIX) || secret.len() != PREFIX.len() + SECRET_DIGITS {
            return Ok(None);
        }
        let hash = hash(secret);
        let row: Option<TokenRow> =
            reading!(self, pool => sqlx::query_as(BY_HASH).bind(hash).fetch_optional(pool).await)?;
        let Some(token) = row.map(TokenRow::read).transpose()? else { return Ok(None) };
        if token.expires_at.is_some_and(|at| at <= now) {
            return Ok(None);
        }
        if token.last_used_at.is_none_or(|at| now.millis_since(at) >= TOUCH_EVERY_MS) {
            self.touch(token.id, now).await;
        }
        Ok(Some(token))
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let rows: Vec<TokenRow> = reading!(self, pool => sqlx::query_as(ALL).fetch_all(pool).await)?;
        rows.into_iter().map(TokenRow::read).collect()
    }

    /// Makes a token useless, at once. `false` when there was none of that id.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn revoke_token(&self, id: TokenId) -> Result<bool, StoreError> {
        let id = id.to_string();
        let gone = writing!(self, pool => {
            sqlx::query(REVOKE).bind(id).execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(gone > 0)
    }

    /// A token works even when its use cannot be noted.
    async fn touch(&self, id: TokenId, now: UnixMs) {
        let (id, before) = (id.to_string(), now.get() - TOUCH_EVERY_MS);
        let noted = writing!(self, pool => {
            sqlx::query(TOUCH).bind(id).bind(now.get()).bind(before).execute(pool).await.map(|_| ())
        });
        if let Err(error) = noted {
            tracing::debug!(%error, "the use of a token was not noted");
        }
    }
}

row! {
    struct TokenRow {
        id: String,
        label: String,
        role: String,
        organization: Option<String>,
        created_at: i64,
        expires_at: Option<i64>,
        last_used_at: Option<i64>,
    }
}

impl TokenRow {
    fn read(self) -> Result<Token, StoreError> {
        Ok(Token {
            id: parsed("api_tokens", &self.id)?,
            label: self.label,
            role: word("api_tokens", self.role)?,
            organization: self.organization,
            created_at: UnixMs::new(self.created_at),
            expires_at: self.expires_at.map(UnixMs::new),
            last_used_at: self.last_used_at.map(UnixMs::new),
        })
    }
}

fn fresh_secret() -> String {
    let bytes: [u8; 32] = rand::random();
    let mut secret = PREFIX.to_owned();
    let (mut bits, mut count) = (0u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            secret.push(DIGITS[(bits >> count) as usize & 31].into());
        }
    }
    secret.push(DIGITS[(bits << (5 - count)) as usize & 31].into());
    secret
}

fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

const PREFIX: &str = "tandem_";
const SECRET_DIGITS: usize = 52;
/// RFC 4648 base 32, in small letters.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const TOUCH_EVERY_MS: i64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_prefix_and_256_bits_in_base_32() {
        let (one, two) = (fresh_secret(), fresh_secret());
        assert_eq!(one.len(), PREFIX.len() + SECRET_DIGITS);
        assert!(one.strip_prefix(PREFIX).unwrap().bytes().all(|digit| DIGITS.contains(&digit)));
        assert_ne!(one, two);
    }

    #[test]
    fn printing_a_new_token_does_not_print_its_secret() {
        let token = Token {
            id: TokenId::from_parts(1, 1),
            label: "ci".to_owned(),
            role: Role::Admin,
            organization: None,
            created_at: UnixMs::new(0),
            expires_at: None,
            last_used_at: None,
        };
        let new = NewToken { secret: "tandem_secret".to_owned(), token };
        assert!(!format!("{new:?}").contains("tandem_secret"));
    }
}
