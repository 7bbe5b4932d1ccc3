//! What an installation is made of: organizations, users, assistants and numbers.
//!
//! The types are those of `resources.toml` and of the REST bodies. Storing is idempotent: what is already
//! so is left alone, and the answer says which it was. Things are found by name; ids serve URLs.

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use crate::time::UnixMs;

mod assistants;
mod numbers;
mod organizations;
mod phones;
mod tools;
mod users;

pub use assistants::Assistant;
pub use numbers::Number;
pub use organizations::{Organization, RecordingSetting};
pub use phones::{Phone, PhoneSecret};
pub use tools::Tool;
pub use users::{Role, User};

/// Everything `resources.toml` can hold. Store it in this order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Tenants.
    pub organization: Vec<Organization>,
    /// People with a login.
    pub user: Vec<User>,
    /// AI personas.
    pub assistant: Vec<Assistant>,
    /// Phone numbers and what happens to calls to them.
    pub number: Vec<Number>,
}

/// What storing a resource did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// It is new.
    Created,
    /// It was different.
    Updated,
    /// It was so already.
    Unchanged,
}

/// A resource with what the store knows about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stored<Id, T> {
    /// Its id.
    pub id: Id,
    /// What it is.
    #[serde(flatten)]
    pub value: T,
    /// When it was first stored.
    pub created_at: UnixMs,
    /// When it was last changed.
    pub updated_at: UnixMs,
}

/// Checks a name: 1 to 64 letters, digits, `.`, `_` or `-`, beginning with a letter or digit.
fn check_name(field: &'static str, name: &str) -> Result<(), StoreError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && name.len() <= NAME_LENGTH && name.chars().all(fits) {
        return Ok(());
    }
    let cause =
        format!("`{name}` is no name: 1 to {NAME_LENGTH} letters, digits, `.`, `_` or `-`, such as `acme`");
    Err(StoreError::Invalid { field, cause })
}

/// A missing organization, found by the foreign key.
fn needs_organization(error: StoreError, organization: &str) -> StoreError {
    match &error {
        StoreError::Database(sqlx::Error::Database(refusal)) if refusal.is_foreign_key_violation() => {
            StoreError::NotFound { what: "org", name: organization.to_owned() }
        }
        _ => error,
    }
}

const NAME_LENGTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_the_design_is_read() {
        let text = r#"
            [[organization]]
            name = "acme"

            [[assistant]]
            organization = "acme"
            name = "reception"
            chain = ["openai", "ultravox"]
            voice = "marin"
            instructions = "You answer the phone for Acme..."
            greeting = "Acme, good morning!"
            tools = ["transfer_call", "take_message", "end_call"]

            [[number]]
            organization = "acme"
            number = "+15550100"
            flow = [{ step = "assistant", assistant = "reception" }]
        "#;
        let resources: Resources = toml::from_str(text).unwrap();
        assert_eq!(resources.organization[0].recording, RecordingSetting::Off);
        assert_eq!(resources.assistant[0].chain, ["openai", "ultravox"]);
        assert_eq!(resources.number[0].flow[0]["step"], "assistant");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = toml::from_str::<Resources>("[[organization]]\nname='a'\nrecordin='on'").unwrap_err();
        assert!(error.to_string().contains("recordin"), "{error}");
    }

    #[test]
    fn names_are_safe_in_urls_and_files() {
        for good in ["acme", "a", "Acme-2.eu_x", "100"] {
            assert!(check_name("name", good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(check_name("name", bad).is_err(), "{bad}");
        }
    }
}
