//! `config show`: the effective configuration, and where each value came from.

use serde_json::Value as Json;

use super::check::toml_of;
use super::finding::Place;
use super::load::Loaded;
use super::values::mask_url;
use super::{BUILT_IN, Config};

/// One effective value.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Path of its key, such as `trunk[0].name`.
    pub key: String,
    /// The value, with passwords masked.
    pub value: Json,
    /// Who set it.
    pub origin: Place,
}

impl Loaded {
    /// All effective values in the order of the file's sections. Secrets do not appear; a password within
    /// a URL is masked.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        flatten(&shown(&self.config), String::new(), &mut |key, value| {
            let origin = self.origin(&key);
            settings.push(Setting { key, value, origin });
        });
        settings
    }
}

/// The effective configuration as JSON, with passwords masked.
pub fn shown(config: &Config) -> Json {
    let mut json = serde_json::to_value(config).unwrap_or_default();
    mask(&mut json);
    json
}

/// The effective configuration as TOML that could be read back (but for masked passwords).
pub fn to_toml(config: &Config) -> String {
    let Json::Object(root) = shown(config) else { return String::new() };
    let mut text = String::new();
    for section in SECTIONS {
        match root.get(section) {
            Some(Json::Object(table)) if section == "providers" => {
                for (name, provider) in table {
                    let bare = name == BUILT_IN && provider["script"].is_null();
                    if !bare {
                        write_table(&mut text, &format!("[providers.{name}]"), provider);
                    }
                }
            }
            Some(Json::Array(entries)) => {
                entries.iter().for_each(|entry| write_table(&mut text, &format!("[[{section}]]"), entry));
            }
            Some(table @ Json::Object(_)) => write_table(&mut text, &format!("[{section}]"), table),
            _ => {}
        }
    }
    text
}

/// Sections in the order a reader expects.
pub(super) const SECTIONS: [&str; 19] = [
    "node",
    "sip",
    "media",
    "http",
    "store",
    "secrets",
    "log",
    "drain",
    "recording",
    "providers",
    "routing",
    "cost",
    "tools",
    "mcp",
    "trunk",
    "cluster",
    "audiosocket",
    "ari",
    "asterisk_websocket",
];

fn write_table(text: &mut String, header: &str, table: &Json) {
    let entries = table.as_object().into_iter().flatten();
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(header);
    text.push('\n');
    let (tables, plain): (Vec<_>, Vec<_>) =
        entries.filter(|(_, v)| !v.is_null()).partition(|(_, v)| v.is_object());
    for (key, value) in plain {
        text.push_str(&format!("{key} = {}\n", toml_of(value)));
    }
    for (key, inner) in tables {
        write_table(text, &format!("[{}.{key}]", header.trim_matches(['[', ']'])), inner);
    }
}

fn flatten(value: &Json, key: String, visit: &mut impl FnMut(String, Json)) {
    let join = |inner: &str| if key.is_empty() { inner.to_owned() } else { format!("{key}.{inner}") };
    match value {
        Json::Object(table) if key.is_empty() => {
            for section in SECTIONS {
                if let Some(inner) = table.get(section) {
                    flatten(inner, section.to_owned(), visit);
                }
            }
        }
        Json::Object(table) => table.iter().for_each(|(name, inner)| flatten(inner, join(name), visit)),
        Json::Array(items) if items.iter().any(Json::is_object) => {
            items.iter().enumerate().for_each(|(i, inner)| flatten(inner, format!("{key}[{i}]"), visit));
        }
        Json::Null => {}
        other => visit(key, other.clone()),
    }
}

fn mask(value: &mut Json) {
    match value {
        Json::String(text) if text.contains("://") && text.contains('@') => *text = mask_url(text),
        Json::Array(items) => items.iter_mut().for_each(mask),
        Json::Object(table) => table.values_mut().for_each(mask),
        _ => {}
    }
}
