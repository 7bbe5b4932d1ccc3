//! Users: people with a login, and the roles they and API tokens have.

use serde::{Deserialize, Serialize};

use super::{Applied, Stored, needs_organization};
use crate::id::UserId;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::row::{parsed, reading, row, word, writing};
use crate::time::UnixMs;

const INSERT: &str = "INSERT INTO users (id, email, name, role, organization, created_at, updated_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (email) DO NOTHING";
const UPDATE: &str = "UPDATE users SET name = $2, role = $3, organization = $4, updated_at = $5 \
     WHERE email = $1 AND (name <> $2 OR role <> $3 OR COALESCE(organization, '') <> COALESCE($4, ''))";
const ALL: &str =
    "SELECT id, email, name, role, organization, created_at, updated_at FROM users ORDER BY email";
const BY_EMAIL: &str =
    "SELECT id, email, name, role, organization, created_at, updated_at FROM users WHERE email = $1";

/// Someone with a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The only organization they may see; without one, all of them.
    #[serde(default)]
    pub organization: Option<String>,
    /// The name they log in with. Case does not matter.
    pub email: String,
    /// As others see them.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, in the whole installation.
    Admin,
    /// Everything within an organization.
    Manager,
    /// Watches over agents and calls.
    Supervisor,
    /// Handles calls.
    Agent,
    /// Reads.
    Analyst,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Admin, Self::Manager, Self::Supervisor, Self::Agent, Self::Analyst];

    /// As in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Manager => "manager",
            Self::Supervisor => "supervisor",
            Self::Agent => "agent",
            Self::Analyst => "analyst",
        }
    }

    /// Checks that somebody of this role may be bound to that organization.
    ///
    /// # Errors
    /// For an admin of one organization.
    pub fn check_organization(self, organization: Option<&str>) -> Result<(), StoreError> {
        match (self, organization) {
            (Self::Admin, Some(name)) => Err(StoreError::Conflict {
                what: format!("an admin sees the whole installation, not only `{name}`"),
                fix: "take the role `manager`, or leave the organization out".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| StoreError::Invalid {
            field: "role",
            cause: format!("`{text}` is none of admin, manager, supervisor, agent, analyst"),
        })
    }
}

impl Store {
    /// Stores a user.
    ///
    /// # Errors
    /// When the address is none, role and organization do not fit, the organization does not exist, or the
    /// database fails.
    pub async fn put_user(&self, user: &User) -> Result<Applied, StoreError> {
        let email = checked_email(&user.email)?;
        user.role.check_organization(user.organization.as_deref())?;
        let (id, role, now) = (UserId::fresh().to_string(), user.role.as_str(), UnixMs::now().get());
        let wrong = |error: sqlx::Error| {
            needs_organization(error.into(), user.organization.as_deref().unwrap_or_default())
        };
        let added = writing!(self, pool => {
            sqlx::query(INSERT)
                .bind(id)
                .bind(&email)
                .bind(&user.name)
                .bind(role)
                .bind(&user.organization)
                .bind(now)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })
        .map_err(wrong)?;
        if added > 0 {
            return Ok(Applied::Created);
        }
        let changed = writing!(self, pool => {
            sqlx::query(UPDATE)
                .bind(&email)
                .bind(&user.name)
                .bind(role)
                .bind(&user.organization)
                .bind(now)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })
        .map_err(wrong)?;
        Ok(if changed > 0 { Applied::Updated } else { Applied::Unchanged })
    }

    /// All users, by address.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn users(&self) -> Result<Vec<Stored<UserId, User>>, StoreError> {
        let rows: Vec<UserRow> = reading!(self, pool => sqlx::query_as(ALL).fetch_all(pool).await)?;
        rows.into_iter().map(UserRow::read).collect()
    }

    /// The user with that address.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn user(&self, email: &str) -> Result<Option<Stored<UserId, User>>, StoreError> {
        let email = email.to_lowercase();
        let row: Option<UserRow> =
            reading!(self, pool => sqlx::query_as(BY_EMAIL).bind(email).fetch_optional(pool).await)?;
        row.map(UserRow::read).transpose()
    }
}

fn checked_email(email: &str) -> Result<String, StoreError> {
    let fits = email
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
    if !fits || email.len() > 254 || email.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let cause = format!("`{email}` is no e-mail address, such as `jo@example.com`");
        return Err(StoreError::Invalid { field: "user.email", cause });
    }
    Ok(email.to_lowercase())
}

row! {
    struct UserRow {
        id: String,
        email: String,
        name: String,
        role: String,
        organization: Option<String>,
        created_at: i64,
        updated_at: i64,
    }
}

impl UserRow {
    fn read(self) -> Result<Stored<UserId, User>, StoreError> {
        let role = word("users", self.role)?;
        Ok(Stored {
            id: parsed("users", &self.id)?,
            value: User { organization: self.organization, email: self.email, name: self.name, role },
            created_at: UnixMs::new(self.created_at),
            updated_at: UnixMs::new(self.updated_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_printed() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse::<Role>().unwrap(), role);
        }
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("supervisor"));
    }

    #[test]
    fn addresses_are_compared_in_small_letters() {
        assert_eq!(checked_email("Jo@Example.COM").unwrap(), "jo@example.com");
        for bad in ["", "jo", "@x", "jo@", "a@b@c", "a b@c"] {
            assert!(checked_email(bad).is_err(), "{bad}");
        }
    }
}
