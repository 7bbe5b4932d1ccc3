//! Numbers: what is dialled, whose it is, and what happens then.

use serde::{Deserialize, Serialize};

use super::{Applied, Stored, needs_organization};
use crate::id::NumberId;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::row::{json, parsed, reading, row, storable, writing};
use crate::time::UnixMs;

const INSERT: &str = "INSERT INTO numbers (id, organization, number, flow, created_at, updated_at) \
     VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (number) DO NOTHING";
const UPDATE: &str =
    "UPDATE numbers SET flow = $3, updated_at = $4 WHERE organization = $1 AND number = $2 AND flow <> $3";
const ALL: &str = "SELECT id, organization, number, flow, created_at, updated_at FROM numbers \
     WHERE (CAST($1 AS TEXT) IS NULL OR organization = $1) ORDER BY organization, number";
const ANY_OF: &str = "SELECT id, organization, number, flow, created_at, updated_at FROM numbers \
     WHERE number IN ($1, $2, $3)";

/// A number of an organization, bound to a flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// Whose it is.
    pub organization: String,
    /// E.164 (`+15550100`), a plain SIP user (`100`), or `*` for what has no entry of its own. One
    /// installation has each number once.
    pub number: String,
    /// Ordered steps.
    pub flow: serde_json::Value,
}

impl Store {
    /// Stores a number. One that belongs to another organization stays there.
    ///
    /// # Errors
    /// When the number is none or belongs to another organization, the organization does not exist, or the
    /// database fails.
    pub async fn put_number(&self, number: &Number) -> Result<Applied, StoreError> {
        check_number(&number.number)?;
        let flow = number.flow.to_string();
        let (flow, organization, digits) = (storable(&flow), &number.organization, &number.number);
        let (id, now) = (NumberId::fresh().to_string(), UnixMs::now().get());
        let added = writing!(self, pool => {
            sqlx::query(INSERT)
                .bind(id)
                .bind(organization)
                .bind(digits)
                .bind(&*flow)
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
                .bind(digits)
                .bind(&*flow)
                .bind(now)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })?;
        if changed > 0 {
            return Ok(Applied::Updated);
        }
        match self.number(digits).await? {
            Some(known) if known.value.organization != *organization => Err(StoreError::Conflict {
                what: format!("number {digits} belongs to organization {}", known.value.organization),
                fix: "remove it there first, or use another number".to_owned(),
            }),
            _ => Ok(Applied::Unchanged),
        }
    }

    /// All numbers, or those of one organization, by organization and number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn numbers(
        &self,
        organization: Option<&str>,
    ) -> Result<Vec<Stored<NumberId, Number>>, StoreError> {
        let rows: Vec<NumberRow> =
            reading!(self, pool => sqlx::query_as(ALL).bind(organization).fetch_all(pool).await)?;
        rows.into_iter().map(NumberRow::read).collect()
    }

    /// The entry of exactly that number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn number(&self, number: &str) -> Result<Option<Stored<NumberId, Number>>, StoreError> {
        Ok(self.numbers_of([number, number, number]).await?.pop())
    }

    /// The entry that takes a call to `called`: that number as it stands, else with or without its `+`,
    /// else `*`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn number_for_call(
        &self,
        called: &str,
    ) -> Result<Option<Stored<NumberId, Number>>, StoreError> {
        let called = storable(called);
        let other = other_spelling(&called);
        let wanted = [&*called, other.as_deref().unwrap_or(ANY), ANY];
        let mut found = self.numbers_of(wanted).await?;
        let best =
            wanted.iter().find_map(|number| found.iter().position(|entry| entry.value.number == *number));
        Ok(best.map(|at| found.swap_remove(at)))
    }

    async fn numbers_of(&self, numbers: [&str; 3]) -> Result<Vec<Stored<NumberId, Number>>, StoreError> {
        let [first, second, third] = numbers;
        let rows: Vec<NumberRow> = reading!(self, pool => {
            sqlx::query_as(ANY_OF).bind(first).bind(second).bind(third).fetch_all(pool).await
        })?;
        rows.into_iter().map(NumberRow::read).collect()
    }
}

/// `+15550100` for `15550100` and the other way round; `+` also for the international prefix `00`.
/// Short numbers are extensions and have one spelling.
fn other_spelling(number: &str) -> Option<String> {
    let digits = |text: &str| text.len() >= E164_DIGITS_MIN && text.bytes().all(|b| b.is_ascii_digit());
    match number.strip_prefix('+') {
        Some(rest) => digits(rest).then(|| rest.to_owned()),
        None if !digits(number) => None,
        None => Some(format!("+{}", number.strip_prefix("00").unwrap_or(number))),
    }
}

fn check_number(number: &str) -> Result<(), StoreError> {
    let e164 = |digits: &str| {
        (E164_DIGITS_MIN..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let user = |c: char| c.is_ascii_alphanumeric() || "-_.!~*'()&=$,;?/#".contains(c);
    let fits = match number.strip_prefix('+') {
        Some(digits) => e164(digits),
        None => !number.is_empty() && number.len() <= 64 && number.chars().all(user),
    };
    if fits {
        return Ok(());
    }
    let cause =
        format!("`{number}` is no number: E.164 such as `+15550100`, a SIP user such as `100`, or `*`");
    Err(StoreError::Invalid { field: "number.number", cause })
}

row! {
    struct NumberRow {
        id: String,
        organization: String,
        number: String,
        flow: String,
        created_at: i64,
        updated_at: i64,
    }
}

impl NumberRow {
    fn read(self) -> Result<Stored<NumberId, Number>, StoreError> {
        let flow = json("numbers", &self.flow)?;
        Ok(Stored {
            id: parsed("numbers", &self.id)?,
            value: Number { organization: self.organization, number: self.number, flow },
            created_at: UnixMs::new(self.created_at),
            updated_at: UnixMs::new(self.updated_at),
        })
    }
}

const ANY: &str = "*";
const E164_DIGITS_MIN: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_have_a_spelling_with_and_one_without_plus() {
        assert_eq!(other_spelling("+15550100").as_deref(), Some("15550100"));
        assert_eq!(other_spelling("15550100").as_deref(), Some("+15550100"));
        assert_eq!(other_spelling("004930123456").as_deref(), Some("+4930123456"));
        assert_eq!(other_spelling("100"), None);
        assert_eq!(other_spelling("reception"), None);
    }

    #[test]
    fn numbers_are_e164_or_sip_users() {
        for good in ["+15550100", "100", "*", "reception", "jo.doe"] {
            assert!(check_number(good).is_ok(), "{good}");
        }
        for bad in ["", "+", "+12", "+1 555 0100", "a b", "a@b", "+1234567890123456"] {
            assert!(check_number(bad).is_err(), "{bad}");
        }
    }
}
