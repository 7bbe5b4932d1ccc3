//! Secrets: in an environment variable, or in the file that a `…_FILE` variable names. Never in
//! `tandem.toml`, never printed.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::finding::{Finding, Place};
use super::values::ValueError;

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
