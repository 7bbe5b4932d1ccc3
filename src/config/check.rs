//! Judges a tree against a JSON Schema, so that everything that is wrong is reported at once.
//!
//! Only what schemas of ours contain is understood: types, enums, formats, ranges, nested and tagged
//! tables. What is wrong is cut from the returned tree; the rest can still be read and judged further.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::finding::{Finding, Place};
use super::tree::{Item, Value};
use super::values::{check_format, parse_duration};

/// A schema with its definitions, ready to judge.
pub(super) struct Checker {
    root: Json,
}

impl Checker {
    pub fn new(root: Json) -> Self {
        Self { root }
    }

    /// Judges a document. Returns the part of it that is right.
    pub fn check(&self, item: &Item, findings: &mut Vec<Finding>) -> Item {
        let mut walk = Walk { checker: self, findings };
        walk.item(item, &self.root, "").unwrap_or_else(|| Item::table(item.place.clone()))
    }

    /// The schema of a path of keys; a table with a `kind` may have it in any of its kinds.
    pub fn schema_at(&self, path: &[String]) -> Option<&Json> {
        path.iter().try_fold(&self.root, |schema, key| self.inner_schema(schema, key))
    }

    /// The keys a table at this path may have.
    pub fn keys_at(&self, path: &[String]) -> BTreeSet<String> {
        let Some(schema) = self.schema_at(path) else { return BTreeSet::new() };
        let schema = self.resolve(schema);
        let variants = schema["oneOf"].as_array().into_iter().flatten();
        std::iter::once(schema)
            .chain(variants)
            .filter_map(|s| self.resolve(s)["properties"].as_object())
            .flat_map(|properties| properties.keys().cloned())
            .collect()
    }

    fn inner_schema<'a>(&'a self, schema: &'a Json, key: &str) -> Option<&'a Json> {
        let schema = self.resolve(schema);
        let variants = schema["oneOf"].as_array().into_iter().flatten();
        std::iter::once(schema)
            .chain(variants)
            .find_map(|s| self.resolve(s)["properties"].get(key))
            .or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()))
    }

    /// Follows references, and looks through "this or null".
    pub fn resolve<'a>(&'a self, schema: &'a Json) -> &'a Json {
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.rsplit('/').next().unwrap_or_default();
            return self.resolve(&self.root["$defs"][name]);
        }
        match schema["anyOf"].as_array() {
            Some(choices) => match choices.iter().find(|s| s["type"] != "null") {
                Some(choice) => self.resolve(choice),
                None => schema,
            },
            None => schema,
        }
    }

    /// The top-level sections that have a key of this name.
    fn sections_with(&self, key: &str) -> Vec<&str> {
        let sections = self.root["properties"].as_object().into_iter().flatten();
        sections
            .filter(|(_, schema)| self.resolve(schema)["properties"].get(key).is_some())
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

/// The name among `known` that was probably meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let limit = (word.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|name| {
            let extends = word.len() >= 3 && (name.starts_with(&word) || word.starts_with(name));
            (if extends { 1 } else { strsim::damerau_levenshtein(&word, name) }, name)
        })
        .filter(|(distance, name)| *distance <= limit && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// Whether a schema allows this JSON type.
pub(super) fn allows(schema: &Json, kind: &str) -> bool {
    match &schema["type"] {
        Json::String(one) => one == kind,
        Json::Array(several) => several.iter().any(|one| one == kind),
        _ => false,
    }
}

struct Walk<'a> {
    checker: &'a Checker,
    findings: &'a mut Vec<Finding>,
}

impl Walk<'_> {
    fn item(&mut self, item: &Item, schema: &Json, path: &str) -> Option<Item> {
        let checker = self.checker;
        let schema = checker.resolve(schema);
        if let Some(choices) = schema["oneOf"].as_array() {
            return match words(choices) {
                Some(words) => self.word(item, &words, path),
                None => self.tagged(item, choices, path),
            };
        }
        match &item.value {
            Value::Table(table) if allows(schema, "object") => self.table(item, table, schema, path),
            Value::List(items) if allows(schema, "array") => self.list(item, items, schema, path),
            Value::Text(text) if allows(schema, "string") => self.text(item, text, schema, path),
            Value::Integer(number) if allows(schema, "integer") => self.integer(item, *number, schema, path),
            Value::Integer(number) if allows(schema, "number") => {
                self.number(item, *number as f64, schema, path)
            }
            Value::Float(number) if allows(schema, "number") => self.number(item, *number, schema, path),
            Value::Boolean(_) if allows(schema, "boolean") => Some(item.clone()),
            _ if schema.get("type").is_none() => Some(item.clone()),
            found => self.wrong_type(item, found, schema, path),
        }
    }

    fn wrong_type(&mut self, item: &Item, found: &Value, schema: &Json, path: &str) -> Option<Item> {
        let message = format!("expected {}, found {}", expected(schema), found.kind());
        let example = schema["examples"].get(0).or(schema.get("default").filter(|d| !d.is_null()));
        let fix = match (found, example) {
            (Value::Text(text), _) if allows(schema, "integer") && text.parse::<i64>().is_ok() => {
                format!("write {text} without quotes")
            }
            (Value::Text(text), _) if allows(schema, "boolean") && (text == "true" || text == "false") => {
                format!("write {text} without quotes")
            }
            (Value::Text(text), _) if allows(schema, "array") => format!("write [{}]", toml_text(text)),
            (Value::Integer(number), _) if schema["format"] == "duration-text" => {
                format!("write a number with a unit in quotes, such as \"{number}s\"")
            }
            (_, Some(example)) => format!("write {}", toml_of(example)),
            (_, None) => format!("write {}", expected(schema)),
        };
        self.error(&item.place, path, message, fix)
    }

    fn word(&mut self, item: &Item, words: &[&str], path: &str) -> Option<Item> {
        let list = words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", ");
        let Value::Text(text) = &item.value else {
            let message = format!("expected one of {list}, found {}", item.value.kind());
            return self.error(&item.place, path, message, format!("write \"{}\"", words[0]));
        };
        if words.contains(&text.as_str()) {
            return Some(item.clone());
        }
        let message = format!("\"{text}\" is not one of {list}");
        let same = words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied();
        let fix = match same.or_else(|| nearest(text, words.iter().copied())) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => format!("write one of {list}"),
        };
        self.error(&item.place, path, message, fix)
    }

    fn text(&mut self, item: &Item, text: &str, schema: &Json, path: &str) -> Option<Item> {
        let format = schema["format"].as_str().unwrap_or_default();
        if let Err(problem) = check_format(format, text) {
            return self.error(&item.place, path, problem.message, problem.fix);
        }
        let bound = |name: &str| {
            let text = schema[name].as_str()?;
            Some((text.to_owned(), parse_duration(text).ok()?))
        };
        let value = parse_duration(text).unwrap_or_default();
        match (bound("x-minimum"), bound("x-maximum")) {
            (Some((least, limit)), _) if value < limit => self.error(
                &item.place,
                path,
                format!("\"{text}\" is too short"),
                format!("write \"{least}\" or more"),
            ),
            (_, Some((most, limit))) if value > limit => self.error(
                &item.place,
                path,
                format!("\"{text}\" is too long"),
                format!("write \"{most}\" or less"),
            ),
            _ => Some(item.clone()),
        }
    }

    fn integer(&mut self, item: &Item, number: i64, schema: &Json, path: &str) -> Option<Item> {
        let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
        let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
        if !(least..=most).contains(&number) {
            let message = format!("{number} is out of range");
            return self.error(&item.place, path, message, format!("write a number from {least} to {most}"));
        }
        match schema["multipleOf"].as_i64() {
            Some(step) if number % step != 0 => {
                let message = format!("{number} is not a multiple of {step}");
                self.error(&item.place, path, message, format!("write {}", number / step * step))
            }
            _ => Some(item.clone()),
        }
    }

    fn number(&mut self, item: &Item, number: f64, schema: &Json, path: &str) -> Option<Item> {
        let least = schema["minimum"].as_f64().unwrap_or(f64::MIN);
        let most = schema["maximum"].as_f64().unwrap_or(f64::MAX);
        if (least..=most).contains(&number) {
            return Some(item.clone());
        }
        let message = format!("{number} is out of range");
        self.error(&item.place, path, message, format!("write a number from {least} to {most}"))
    }

    fn list(&mut self, item: &Item, items: &[Item], schema: &Json, path: &str) -> Option<Item> {
        if (items.len() as u64) < schema["minItems"].as_u64().unwrap_or(0) {
            let example = schema["examples"].get(0).or(schema.get("default")).map(toml_of);
            let fix = format!("write {}", example.unwrap_or_else(|| "at least one element".into()));
            return self.error(&item.place, path, "the list is empty", fix);
        }
        let right = items.iter().enumerate();
        let right = right.filter_map(|(i, inner)| {
            let kept = self.item(inner, &schema["items"], &format!("{path}[{i}]"))?;
            Some(Item { index: Some(i), ..kept })
        });
        let right = right.collect();
        Some(Item { value: Value::List(right), ..item.clone() })
    }

    fn table(
        &mut self,
        item: &Item,
        table: &BTreeMap<String, Item>,
        schema: &Json,
        path: &str,
    ) -> Option<Item> {
        let mut right = BTreeMap::new();
        for (key, inner) in table {
            let inner_path = join(path, key);
            let known = schema["properties"].get(key);
            let kept = match known.or_else(|| schema.get("additionalProperties").filter(|s| s.is_object())) {
                Some(inner_schema) => self.item(inner, inner_schema, &inner_path),
                None if schema.get("additionalProperties") == Some(&Json::Bool(false)) => {
                    self.unknown_key(inner, key, schema, path)
                }
                None => Some(inner.clone()),
            };
            right.extend(kept.map(|kept| (key.clone(), kept)));
        }
        let mut complete = true;
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if !table.contains_key(key) {
                let example = schema["properties"][key]["examples"].get(0).map(toml_of);
                let fix = match example {
                    Some(example) => format!("add {key} = {example}"),
                    None => format!("add {key} = …"),
                };
                self.error(&item.key_place, &join(path, key), "this key is required", fix);
            }
            complete &= right.contains_key(key);
        }
        complete.then(|| Item { value: Value::Table(right), ..item.clone() })
    }

    fn unknown_key(&mut self, inner: &Item, key: &str, schema: &Json, path: &str) -> Option<Item> {
        let known: Vec<&str> =
            schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let elsewhere = self.checker.sections_with(key);
        let fix = match (nearest(key, known.iter().copied()), elsewhere.first()) {
            (Some(name), _) => format!("did you mean `{name}`?"),
            (None, Some(section)) => format!("`{key}` belongs in [{section}]"),
            (None, None) => format!("remove it; known here: {}", known.join(", ")),
        };
        self.error(&inner.key_place, &join(path, key), "unknown key", fix)
    }

    /// A table whose `kind` or `step` says which keys it may have.
    fn tagged(&mut self, item: &Item, choices: &[Json], path: &str) -> Option<Item> {
        let tag = tag_of(choices)?;
        let Value::Table(table) = &item.value else {
            let message = format!("expected a table with `{tag}`, found {}", item.value.kind());
            return self.error(&item.place, path, message, format!("write {{ {tag} = \"…\" }}"));
        };
        let name_of =
            |choice: &Json| choice["properties"][tag]["const"].as_str().unwrap_or_default().to_owned();
        let names: Vec<String> = choices.iter().map(name_of).collect();
        let Some(given) = table.get(tag) else {
            let fix = format!("add {tag} = \"{}\"; known: {}", names[0], names.join(", "));
            return self.error(&item.key_place, &join(path, tag), "this key is required", fix);
        };
        let words: Vec<&str> = names.iter().map(String::as_str).collect();
        self.word(given, &words, &join(path, tag))?;
        let choice = choices.iter().find(|choice| Value::Text(name_of(choice)) == given.value)?;
        self.table(item, table, choice, path)
    }

    fn error(
        &mut self,
        place: &Place,
        path: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Option<Item> {
        self.findings.push(Finding::error(place, path, message, fix));
        None
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The words of an enum of texts.
fn words(choices: &[Json]) -> Option<Vec<&str>> {
    choices.iter().map(|choice| choice["const"].as_str()).collect()
}

/// The key whose value tells the choices apart.
fn tag_of(choices: &[Json]) -> Option<&str> {
    let properties = choices.first()?["properties"].as_object()?;
    properties.iter().find(|(_, schema)| schema.get("const").is_some()).map(|(key, _)| key.as_str())
}

fn expected(schema: &Json) -> &'static str {
    let kinds = [
        ("number", "a number"),
        ("string", "text"),
        ("integer", "a whole number"),
        ("boolean", "true or false"),
        ("array", "a list"),
        ("object", "a table"),
    ];
    kinds.iter().find(|(kind, _)| allows(schema, kind)).map_or("something else", |(_, words)| words)
}

/// A JSON value in TOML's notation.
pub(super) fn toml_of(value: &Json) -> String {
    match value {
        Json::String(text) => toml_text(text),
        Json::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Json::Object(table) => {
            let entries =
                table.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| format!("{k} = {}", toml_of(v)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
