//! Secrets: in an environment variable, or in the file that a `…_FILE` variable names. Never in
//! `tandem.toml`, never printed.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Place};
use super::values::{ValueError, VariableName};

/// How secrets in the database are kept: the API keys that `tandem provider key add` takes. Each is sealed
/// with AES-256-GCM under a master key that is in no file of Tandem's.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// Environment variable that holds the master key: 32 random octets in base64 or hexadecimal, such as
    /// `openssl rand -base64 32` prints; with `_FILE` added to the name, the path of a file that does. While
    /// it is not set, no secret is taken into the database.
    #[schemars(with = "VariableName")]
    pub key_env: String,
    /// Variables that hold earlier master keys, while secrets sealed with those are still there. To change the
    /// master key, name the old one here, restart, and run `tandem provider key rotate`.
    #[schemars(with = "Vec<VariableName>", example = ["TANDEM_SECRETS_KEY_OLD"])]
    pub previous_key_env: Vec<String>,
    /// The master key, from `key_env`.
    #[serde(skip)]
    pub key: Option<MasterKey>,
    /// Earlier ones, from `previous_key_env`.
    #[serde(skip)]
    pub previous: Vec<MasterKey>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            key_env: "TANDEM_SECRETS_KEY".into(),
            previous_key_env: Vec::new(),
            key: None,
            previous: Vec::new(),
        }
    }
}

/// A master key: 32 octets, never printed.
#[derive(Debug, Clone)]
pub struct MasterKey(Arc<SecretBox<[u8; 32]>>);

impl MasterKey {
    /// These octets.
    pub fn new(octets: [u8; 32]) -> Self {
        Self(Arc::new(SecretBox::new(Box::new(octets))))
    }

    /// The octets.
    pub fn octets(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }

    /// Reads base64, in either alphabet and with or without padding, or hexadecimal. `None`: it is neither, or
    /// not 32 octets.
    pub fn read(text: &SecretString) -> Option<Self> {
        let text = text.expose_secret().trim();
        let octets = if text.len() == 64 {
            let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
            (0..64).step_by(2).map(digit).collect::<Option<Vec<u8>>>()?
        } else {
            let plain = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
            base64_simd::STANDARD_NO_PAD.decode_to_vec(plain.as_bytes()).ok()?
        };
        <[u8; 32]>::try_from(octets.as_slice()).ok().map(Self::new)
    }
}

/// Reads the file of a `…_FILE` variable. One trailing newline is not part of the value.
pub(super) fn read_secret_file(path: &str) -> Result<String, ValueError> {
    let problem = |message: String, fix: &str| ValueError { message, fix: fix.to_owned() };
    let text = std::fs::read_to_string(path).map_err(|error| {
        problem(
            format!("the file {path} cannot be read: {error}"),
            "give the path of a file that the user running Tandem may read",
        )
    })?;
    let value = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if value.is_empty() {
        return Err(problem(format!("the file {path} is empty"), "write the value into it"));
    }
    Ok(value.to_owned())
}

/// What became of a named secret.
pub(super) enum Found {
    Secret(SecretString),
    /// Neither variable is set.
    Missing,
    /// It is there but unusable; a finding says why.
    Unusable,
}

/// The secret of a variable of this process, or of the file its `…_FILE` names.
///
/// # Errors
/// In words, with what to do.
pub fn secret_of_process(name: &str) -> Result<SecretString, String> {
    let names = [name.to_owned(), format!("{name}_FILE")];
    let variables =
        names.into_iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))).collect();
    let mut findings = Vec::new();
    match find(name, &variables, &Place::Variable(name.to_owned()), name, &mut findings) {
        Found::Secret(secret) => Ok(secret),
        Found::Missing => {
            Err(format!("neither {name} nor {name}_FILE is set where the server runs; set one"))
        }
        Found::Unusable => Err(findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

/// Looks up `NAME` and `NAME_FILE`.
pub(super) fn find(
    name: &str,
    variables: &BTreeMap<String, String>,
    place: &Place,
    key: &str,
    findings: &mut Vec<Finding>,
) -> Found {
    let file_name = format!("{name}_FILE");
    let mut unusable = |message: String, fix: &str| {
        findings.push(Finding::error(place, key, message, fix));
        Found::Unusable
    };
    match (variables.get(name), variables.get(&file_name)) {
        (Some(_), Some(_)) => {
            unusable(format!("both {name} and {file_name} are set"), "unset one of the two")
        }
        (Some(value), None) if value.trim().is_empty() => {
            unusable(format!("the environment variable {name} is empty"), "set it, or unset it altogether")
        }
        (Some(value), None) if value.chars().any(char::is_control) => unusable(
            format!("the environment variable {name} contains a line break or control character"),
            "set it to the secret alone",
        ),
        (Some(value), None) => Found::Secret(value.clone().into()),
        (None, Some(path)) => match read_secret_file(path) {
            Ok(value) if value.chars().any(char::is_control) => unusable(
                format!("{file_name}: the file {path} has more than one line"),
                "leave only the secret in it",
            ),
            Ok(value) => Found::Secret(value.into()),
            Err(problem) => unusable(format!("{file_name}: {}", problem.message), &problem.fix),
        },
        (None, None) => Found::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_key_is_read_from_base64_and_from_hexadecimal() {
        let octets: [u8; 32] = std::array::from_fn(|n| 255 - 3 * n as u8);
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let base64 = base64_simd::STANDARD.encode_to_string(octets);
        let url_safe = base64_simd::URL_SAFE_NO_PAD.encode_to_string(octets);
        for text in [hex, base64, url_safe] {
            let read = MasterKey::read(&text.clone().into());
            assert_eq!(read.map(|key| *key.octets()), Some(octets), "{text}");
        }
        for wrong in ["", "short", &"g".repeat(64), &"A".repeat(42), &"A".repeat(44)] {
            assert!(MasterKey::read(&(*wrong).into()).is_none(), "{wrong}");
        }
        assert!(!format!("{:?}", MasterKey::new(octets)).contains("255"));
    }
}
