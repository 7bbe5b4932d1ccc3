//! The commented `tandem.toml` that `tandem init` writes, made of the same documentation and defaults as
//! the schema.

use serde_json::Value as Json;

use super::check::{Checker, toml_of};
use super::show::SECTIONS;

/// A `tandem.toml` in which every key is explained. Keys with defaults are commented out; as it stands the
/// file changes nothing.
pub fn template() -> String {
    let checker = Checker::new(super::schema());
    let mut text = String::from(HEAD);
    for section in SECTIONS {
        let Some(schema) = checker.schema_at(&[section.to_owned()]).map(|s| checker.resolve(s)) else {
            continue;
        };
        match section {
            "providers" => providers(&mut text, &checker, schema),
            "mcp" => {
                let entry = checker.resolve(&schema["additionalProperties"]);
                table(&mut text, &checker, "# [mcp.crm]", entry, &[]);
            }
            "trunk" => {
                let entry = checker.resolve(&schema["items"]);
                table(&mut text, &checker, "# [[trunk]]", entry, &[]);
            }
            "cluster" | "audiosocket" | "ari" | "asterisk_websocket" => {
                table(&mut text, &checker, &format!("# [{section}]"), schema, &[])
            }
            _ => table(&mut text, &checker, &format!("[{section}]"), schema, &[]),
        }
    }
    text
}

const HEAD: &str = "\
# Tandem configuration. Every key has a default; a line that begins with `# ` and a key shows it (or, where
# there is none, an example). Any key can also be set from outside: TANDEM__HTTP__LISTEN=127.0.0.1:8080, or
# TANDEM__STORE__URL_FILE=/run/secrets/url to read the value from a file.
# Check this file with `tandem config check`.
";

fn providers(text: &mut String, checker: &Checker, schema: &Json) {
    let kinds = checker.resolve(&schema["additionalProperties"])["oneOf"].as_array();
    for kind in kinds.into_iter().flatten() {
        let name = kind["properties"]["kind"]["const"].as_str().unwrap_or_default();
        table(text, checker, &format!("# [providers.{name}]"), kind, &["kind"]);
    }
}

fn table(text: &mut String, checker: &Checker, header: &str, schema: &Json, first: &[&str]) {
    text.push('\n');
    comment(text, schema);
    text.push_str(header);
    text.push('\n');
    let Some(properties) = schema["properties"].as_object() else { return };
    for key in first {
        line(text, key, &properties[*key]);
    }
    let mut tables = Vec::new();
    for (key, property) in properties.iter().filter(|(key, _)| !first.contains(&key.as_str())) {
        let resolved = checker.resolve(property);
        if resolved["type"] == "object" {
            tables.push((key, resolved));
        } else {
            line(text, key, property);
        }
    }
    for (key, inner) in tables {
        let parent = header.trim_matches(['#', ' ', '[', ']']);
        table(text, checker, &format!("# [{parent}.{key}]"), inner, &[]);
    }
}

fn line(text: &mut String, key: &str, property: &Json) {
    comment(text, property);
    let value = property
        .get("const")
        .or(property.get("default").filter(|value| !value.is_null()))
        .or(property["examples"].get(0));
    match value {
        Some(value) => text.push_str(&format!("# {key} = {}\n", toml_of(value))),
        None => text.push_str(&format!("# {key} = …\n")),
    }
}

fn comment(text: &mut String, schema: &Json) {
    let Some(description) = schema["description"].as_str() else { return };
    for line in description.lines() {
        text.push_str(&format!("## {line}\n"));
    }
}
