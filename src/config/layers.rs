//! What lies over the file: `TANDEM__SECTION__KEY` variables and `--set section.key=value` options.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::check::{Checker, allows, nearest};
use super::finding::{Finding, Place};
use super::secrets::read_secret_file;
use super::tree::{Item, Value, parse_value};

/// Lays all `TANDEM__…` variables over the tree.
pub(super) fn apply_variables(
    root: &mut Item,
    variables: &BTreeMap<String, String>,
    checker: &Checker,
    findings: &mut Vec<Finding>,
) {
    for (name, text) in variables.range(PREFIX.to_owned()..).take_while(|(name, _)| name.starts_with(PREFIX))
    {
        let place = Place::Variable(name.clone());
        let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        match target_of(&path, checker) {
            Target::Key => lay(root, &path, text, &place, checker, findings),
            Target::FileOf(path) => {
                let plain = name.strip_suffix("_FILE").unwrap_or(name);
                if variables.contains_key(plain) {
                    let message = format!("both {plain} and {name} are set");
                    findings.push(Finding::error(&place, path.join("."), message, "unset one of the two"));
                    continue;
                }
                match read_secret_file(text) {
                    Ok(text) => lay(root, &path, &text, &place, checker, findings),
                    Err(problem) => {
                        findings.push(Finding::error(&place, path.join("."), problem.message, problem.fix));
                    }
                }
            }
            Target::Unknown { known, key } => {
                let fix = match nearest(&key, known.iter().map(String::as_str)) {
                    Some(near) => format!(
                        "did you mean {}?",
                        name.to_uppercase().replace(&key.to_uppercase(), &near.to_uppercase())
                    ),
                    None => format!("unset it; known here: {}", known.join(", ")),
                };
                findings.push(Finding::error(&place, path.join("."), "names no key of tandem.toml", fix));
            }
        }
    }
}

/// Lays `--set section.key=value` options over the tree, in order.
pub(super) fn apply_options(
    root: &mut Item,
    options: &[(String, String)],
    checker: &Checker,
    findings: &mut Vec<Finding>,
) {
    for (key, text) in options {
        let place = Place::Option(format!("--set {key}"));
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        match target_of(&path, checker) {
            Target::Key => lay(root, &path, text, &place, checker, findings),
            Target::FileOf(_) => {
                let fix = "set the key itself, or use an environment variable";
                findings.push(Finding::error(&place, key, "files are read for variables only", fix));
            }
            Target::Unknown { known, key: unknown } => {
                let fix = match nearest(&unknown, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                findings.push(Finding::error(&place, key, "unknown key", fix));
            }
        }
    }
}

/// Prefix of variables that set keys.
pub(super) const PREFIX: &str = "TANDEM__";

enum Target {
    Key,
    /// The variable names a file that holds the value of this key.
    FileOf(Vec<String>),
    Unknown {
        known: Vec<String>,
        key: String,
    },
}

fn target_of(path: &[String], checker: &Checker) -> Target {
    if checker.schema_at(path).is_some() {
        return Target::Key;
    }
    if let Some((last, parents)) = path.split_last()
        && let Some(plain) = last.strip_suffix("_file")
    {
        let path = [parents, &[plain.to_owned()]].concat();
        if checker.schema_at(&path).is_some() {
            return Target::FileOf(path);
        }
    }
    let reached = (0..path.len()).rev().find(|n| checker.schema_at(&path[..*n]).is_some()).unwrap_or(0);
    Target::Unknown {
        known: checker.keys_at(&path[..reached]).into_iter().collect(),
        key: path.get(reached).cloned().unwrap_or_default(),
    }
}

fn lay(
    root: &mut Item,
    path: &[String],
    text: &str,
    place: &Place,
    checker: &Checker,
    findings: &mut Vec<Finding>,
) {
    let Some(schema) = checker.schema_at(path) else { return };
    let item = match read_text(text, checker.resolve(schema), checker, place) {
        Ok(item) => item,
        Err(why) => {
            let fix = "write it as in tandem.toml; a list may be plain words with commas between them";
            findings.push(Finding::error(place, path.join("."), format!("this is not TOML: {why}"), fix));
            return;
        }
    };
    if !insert(root, path, item, place) {
        let message = "one entry of a list cannot be set from outside the file";
        let fix = "set the whole list, as TOML: [{ … }, { … }]";
        findings.push(Finding::error(place, path.join("."), message, fix));
    }
}

/// Texts are taken as they stand; the rest follows the type of the key.
fn read_text(text: &str, schema: &Json, checker: &Checker, place: &Place) -> Result<Item, String> {
    let item = |value| Item::new(place.clone(), value);
    if allows(schema, "object") || (schema["oneOf"].is_array() && text.trim_start().starts_with('{')) {
        return parse_value(text, place);
    }
    if allows(schema, "array") {
        if text.trim_start().starts_with('[') {
            return parse_value(text, place);
        }
        let inner = checker.resolve(&schema["items"]);
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let parts = parts.map(|part| read_text(part, inner, checker, place)).collect::<Result<_, _>>()?;
        return Ok(item(Value::List(parts)));
    }
    let value = match text {
        "true" | "1" if allows(schema, "boolean") => Value::Boolean(true),
        "false" | "0" if allows(schema, "boolean") => Value::Boolean(false),
        number if allows(schema, "integer") => {
            number.trim().parse().map_or_else(|_| Value::Text(number.to_owned()), Value::Integer)
        }
        text => Value::Text(text.to_owned()),
    };
    Ok(item(value))
}

fn insert(root: &mut Item, path: &[String], item: Item, place: &Place) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let mut table = root;
    for key in parents {
        let Value::Table(entries) = &mut table.value else { return false };
        let key = existing_key(entries, key);
        table = entries.entry(key).or_insert_with(|| Item::table(place.clone()));
    }
    let Value::Table(entries) = &mut table.value else { return false };
    let key = existing_key(entries, last);
    entries.insert(key, item);
    true
}

/// A variable cannot spell `My-Provider`; the key that differs only in case and dashes is meant.
fn existing_key(entries: &BTreeMap<String, Item>, key: &str) -> String {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    entries.keys().find(|known| plain(known) == plain(key)).cloned().unwrap_or_else(|| key.to_owned())
}
