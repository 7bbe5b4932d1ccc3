//! Phones: who may register, and what their calls may do.

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::{Applied, Stored, check_name, needs_organization};
use crate::id::PhoneId;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::row::{json, parsed, reading, row, writing};
use crate::time::UnixMs;

const INSERT: &str = "INSERT INTO phones \
     (id, organization, name, realm, ha1_md5, ha1_sha256, number, trunks, created_at, updated_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT (name) DO NOTHING";
const UPDATE: &str = "UPDATE phones \
     SET realm = $3, ha1_md5 = $4, ha1_sha256 = $5, number = $6, trunks = $7, updated_at = $8 \
     WHERE organization = $1 AND name = $2 AND (realm <> $3 OR ha1_md5 <> $4 OR ha1_sha256 <> $5 \
     OR COALESCE(number, '') <> COALESCE($6, '') OR trunks <> $7)";
const ALL: &str = "SELECT id, organization, name, realm, ha1_md5, ha1_sha256, number, trunks, created_at, updated_at \
     FROM phones WHERE (CAST($1 AS TEXT) IS NULL OR organization = $1) ORDER BY organization, name";
const BY_USER: &str = "SELECT id, organization, name, realm, ha1_md5, ha1_sha256, number, trunks, created_at, \
     updated_at FROM phones WHERE name = $1";
const REMOVE: &str = "DELETE FROM phones WHERE name = $1";

/// A phone of an organization.
#[derive(Debug, Clone, Serialize)]
pub struct Phone {
    /// Whose it is.
    pub organization: String,
    /// User of its address and of its credentials. One installation has each once.
    pub user: String,
    /// The number its calls come from; absent: its user.
    pub number: Option<String>,
    /// Trunks it may call out over; empty: it reaches phones and flows of the house alone.
    pub trunks: Vec<String>,
    /// What it proves itself with. Shown to nobody.
    #[serde(skip)]
    pub secret: PhoneSecret,
}

/// Hashes of user, realm and password (RFC 7616 section 3.4.2), in lower-case hexadecimal.
#[derive(Debug, Clone)]
pub struct PhoneSecret {
    /// The realm they were made for.
    pub realm: String,
    /// With MD5.
    pub md5: SecretString,
    /// With SHA-256.
    pub sha256: SecretString,
}

impl Store {
    /// Stores a phone. One that belongs to another organization stays there.
    ///
    /// # Errors
    /// When the user is no name or belongs to another organization, a hash is none, the organization does not
    /// exist, or the database fails.
    pub async fn put_phone(&self, phone: &Phone) -> Result<Applied, StoreError> {
        check_name("phone.user", &phone.user)?;
        check_hash("phone.ha1_md5", phone.secret.md5.expose_secret(), 32)?;
        check_hash("phone.ha1_sha256", phone.secret.sha256.expose_secret(), 64)?;
        let trunks = serde_json::Value::from(phone.trunks.clone()).to_string();
        let (id, now) = (PhoneId::fresh().to_string(), UnixMs::now().get());
        let Phone { organization, user, number, secret, .. } = phone;
        let (md5, sha256) = (secret.md5.expose_secret(), secret.sha256.expose_secret());
        let added = writing!(self, pool => {
            sqlx::query(INSERT)
                .bind(id)
                .bind(organization)
                .bind(user)
                .bind(&secret.realm)
                .bind(md5)
                .bind(sha256)
                .bind(number)
                .bind(&trunks)
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
                .bind(user)
                .bind(&secret.realm)
                .bind(md5)
                .bind(sha256)
                .bind(number)
                .bind(&trunks)
                .bind(now)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })?;
        if changed > 0 {
            return Ok(Applied::Updated);
        }
        match self.phone(user).await? {
            Some(known) if known.value.organization != *organization => Err(StoreError::Conflict {
                what: format!("phone {user} belongs to organization {}", known.value.organization),
                fix: "remove it there first, or use another user".to_owned(),
            }),
            _ => Ok(Applied::Unchanged),
        }
    }

    /// All phones, or those of one organization, by organization and user.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn phones(
        &self,
        organization: Option<&str>,
    ) -> Result<Vec<Stored<PhoneId, Phone>>, StoreError> {
        let rows: Vec<PhoneRow> =
            reading!(self, pool => sqlx::query_as(ALL).bind(organization).fetch_all(pool).await)?;
        rows.into_iter().map(PhoneRow::read).collect()
    }

    /// The phone of this user.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn phone(&self, user: &str) -> Result<Option<Stored<PhoneId, Phone>>, StoreError> {
        let row: Option<PhoneRow> =
            reading!(self, pool => sqlx::query_as(BY_USER).bind(user).fetch_optional(pool).await)?;
        row.map(PhoneRow::read).transpose()
    }

    /// Removes a phone; whether there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_phone(&self, user: &str) -> Result<bool, StoreError> {
        let removed = writing!(self, pool => {
            sqlx::query(REMOVE).bind(user).execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(removed > 0)
    }
}

fn check_hash(field: &'static str, text: &str, digits: usize) -> Result<(), StoreError> {
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.len() == digits && text.bytes().all(hex) {
        return Ok(());
    }
    let cause = format!("this is no hash: {digits} lower-case hexadecimal digits of USER:REALM:PASSWORD");
    Err(StoreError::Invalid { field, cause })
}

row! {
    struct PhoneRow {
        id: String,
        organization: String,
        name: String,
        realm: String,
        ha1_md5: String,
        ha1_sha256: String,
        number: Option<String>,
        trunks: String,
        created_at: i64,
        updated_at: i64,
    }
}

impl PhoneRow {
    fn read(self) -> Result<Stored<PhoneId, Phone>, StoreError> {
        let secret =
            PhoneSecret { realm: self.realm, md5: self.ha1_md5.into(), sha256: self.ha1_sha256.into() };
        Ok(Stored {
            id: parsed("phones", &self.id)?,
            value: Phone {
                organization: self.organization,
                user: self.name,
                number: self.number,
                trunks: json("phones", &self.trunks)?,
                secret,
            },
            created_at: UnixMs::new(self.created_at),
            updated_at: UnixMs::new(self.updated_at),
        })
    }
}
