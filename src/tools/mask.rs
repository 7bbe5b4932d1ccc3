//! Arguments as the record may show them: what is marked sensitive or looks personal is hidden.

use serde_json::{Map, Value};

use super::schema::SENSITIVE;
use crate::telemetry::masked as pii_masked;

/// `arguments` with what is sensitive by `schema` (`"x-sensitive": true`), named like something personal, or looks
/// like a number of a person or an address masked. Bounded, whatever the model wrote.
pub fn masked(schema: &Value, arguments: &Value) -> Value {
    Mask { root: schema, misfit: false, room: VALUES_MOST }.value(Some(vec![schema]), "", arguments, 0)
}

/// As [`masked`], of arguments that do not fit `schema`: a secret may stand under a misspelt name or in the wrong
/// place, so what the schema does not know is hidden as well.
pub fn masked_misfit(schema: &Value, arguments: &Value) -> Value {
    Mask { root: schema, misfit: true, room: VALUES_MOST }.value(Some(vec![schema]), "", arguments, 0)
}

struct Mask<'a> {
    /// The whole schema, which `$ref` points into.
    root: &'a Value,
    misfit: bool,
    /// Values that may still be looked at.
    room: usize,
}

/// The schemas that may speak of one value; `None`: too many, or one that is not here.
type Schemas<'a> = Option<Vec<&'a Value>>;

impl<'a> Mask<'a> {
    fn value(&mut self, schemas: Schemas<'a>, name: &str, found: &Value, depth: usize) -> Value {
        if self.room == 0 || depth > DEPTH_MOST {
            return Value::String("…".to_owned());
        }
        self.room -= 1;
        let Some(schemas) = schemas.and_then(|schemas| self.all_of(schemas)) else { return hidden(found) };
        let sensitive = |schema: &&Value| schema.get(SENSITIVE).and_then(Value::as_bool) == Some(true);
        if schemas.iter().any(sensitive)
            || is_personal(name)
            || (self.misfit && is_misplaced(&schemas, found))
        {
            return hidden(found);
        }
        match found {
            Value::String(text) => Value::String(plain(text)),
            Value::Number(number) => match number.to_string() {
                digits if digits.chars().filter(char::is_ascii_digit).count() >= DIGITS_PERSONAL => {
                    Value::String(pii_masked(&digits))
                }
                _ => found.clone(),
            },
            Value::Array(items) => {
                let shown = items.iter().take(32).enumerate();
                let shown =
                    shown.map(|(at, item)| self.value(Some(of_item(&schemas, at)), name, item, depth + 1));
                Value::Array(shown.collect())
            }
            Value::Object(members) => {
                let mut shown = Map::new();
                for (name, found) in members.iter().take(32) {
                    let of = of_member(&schemas, name);
                    shown.insert(short(name), self.value(Some(of), name, found, depth + 1));
                }
                Value::Object(shown)
            }
            Value::Null | Value::Bool(_) => found.clone(),
        }
    }

    /// These schemas and those they consist of.
    fn all_of(&self, mut schemas: Vec<&'a Value>) -> Schemas<'a> {
        let mut next = 0;
        while let Some(schema) = schemas.get(next).copied() {
            next += 1;
            let mut parts = Vec::new();
            for list in ["allOf", "anyOf", "oneOf"] {
                parts.extend(schema.get(list).and_then(Value::as_array).into_iter().flatten());
            }
            parts.extend(["if", "then", "else"].into_iter().filter_map(|key| schema.get(key)));
            parts.extend(members(schema, "dependentSchemas"));
            if let Some(reference) = schema.get("$ref").or_else(|| schema.get("$dynamicRef")) {
                parts.push(self.root.pointer(reference.as_str()?.strip_prefix('#')?)?);
            }
            for part in parts {
                if !schemas.iter().any(|known| std::ptr::eq(*known, part)) {
                    schemas.push(part);
                }
            }
            if schemas.len() > SCHEMAS_MOST {
                return None;
            }
        }
        Some(schemas)
    }
}

fn members<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(key).and_then(Value::as_object).into_iter().flat_map(Map::values)
}

/// What speaks of the element number `at`.
fn of_item<'a>(schemas: &[&'a Value], at: usize) -> Vec<&'a Value> {
    let mut of = Vec::new();
    for schema in schemas {
        let keys = ["items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"];
        for items in keys.into_iter().filter_map(|key| schema.get(key)) {
            match items {
                Value::Array(places) => of.extend(places.get(at)),
                one => of.push(one),
            }
        }
    }
    of
}

/// What speaks of the member of this name. Patterns are taken to fit: too much is hidden rather than too little.
fn of_member<'a>(schemas: &[&'a Value], name: &str) -> Vec<&'a Value> {
    let mut of = Vec::new();
    for schema in schemas {
        let named = schema.get("properties").and_then(|properties| properties.get(name));
        of.extend(named);
        of.extend(members(schema, "patternProperties"));
        if named.is_none() {
            let others = ["additionalProperties", "unevaluatedProperties"];
            of.extend(others.into_iter().filter_map(|key| schema.get(key)).filter(|one| one.is_object()));
        }
    }
    of
}

/// Whether no schema knows this value, or they speak of something that has parts where it has none.
fn is_misplaced(schemas: &[&Value], found: &Value) -> bool {
    let has_parts = |schema: &&Value| {
        let parts = ["properties", "patternProperties", "additionalProperties", "items", "prefixItems"];
        parts.into_iter().any(|key| schema.get(key).is_some_and(|part| !part.is_boolean()))
    };
    schemas.is_empty() || (!found.is_object() && !found.is_array() && schemas.iter().any(has_parts))
}

/// As many stars as characters, where that tells nothing but a length.
fn hidden(found: &Value) -> Value {
    let stars = match found {
        Value::String(text) => text.chars().count().min(STARS_MOST),
        Value::Null => return Value::Null,
        _ => 3,
    };
    Value::String("*".repeat(stars))
}

/// A text without what looks like a number of a person or an address; one line, bounded.
pub fn plain(text: &str) -> String {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    if digits >= DIGITS_PERSONAL || text.contains('@') {
        return pii_masked(text);
    }
    short(text)
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(TEXT_MOST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Names under which people's data goes about.
fn is_personal(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    PERSONAL.iter().any(|word| name.contains(word)) || name == "name" || name == "pin"
}

const PERSONAL: &[&str] = &[
    "email",
    "phone",
    "mobile",
    "address",
    "street",
    "birth",
    "password",
    "secret",
    "token",
    "card",
    "cvc",
    "cvv",
    "iban",
    "account",
    "ssn",
    "passport",
    "first_name",
    "last_name",
    "full_name",
    "customer_name",
    "caller_name",
];
/// So many digits are a telephone number, a card or an account.
const DIGITS_PERSONAL: usize = 6;
const TEXT_MOST: usize = 200;
const STARS_MOST: usize = 32;
const VALUES_MOST: usize = 128;
const DEPTH_MOST: usize = 6;
/// Schemas that speak of one value.
const SCHEMAS_MOST: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_marked_named_or_looks_personal_is_hidden_and_the_rest_is_not() {
        let schema = json!({"type": "object", "properties": {
            "pin_code": {"type": "string", "x-sensitive": true},
            "lines": {"type": "array", "items": {"type": "string", "x-sensitive": true}}
        }});
        let arguments = json!({
            "pin_code": "4711", "lines": ["a", "bc"], "table": 4, "reason": "wants a refund", "email": "a@b.de",
            "note": "call +49 151 2345678 back", "who": {"first_name": "Ann", "vip": true}, "order": 884_112_345
        });
        assert_eq!(
            masked(&schema, &arguments),
            json!({
                "pin_code": "****", "lines": ["*", "**"], "table": 4, "reason": "wants a refund",
                "email": "******", "note": "…78", "who": {"first_name": "***", "vip": true}, "order": "…45"
            })
        );
    }

    #[test]
    fn a_mark_counts_wherever_a_schema_can_have_it() {
        let secret = json!({"type": "string", "x-sensitive": true});
        let text = json!({"type": "string"});
        let schema = json!({
            "type": "object",
            "$defs": {"code": secret, "node": {"properties": {"code": {"$ref": "#/$defs/code"}, "next": {"$ref": "#/$defs/node"}}}},
            "properties": {
                "one": {"$ref": "#/$defs/code"},
                "two": {"allOf": [text, {"anyOf": [{"type": "null"}, secret]}]},
                "three": {"prefixItems": [text, secret]},
                "four": {"$ref": "#/$defs/node"},
                "five": {"type": "object", "additionalProperties": secret},
                "six": {"$ref": "elsewhere.json"},
                "seven": {"oneOf": [{"$ref": "#/properties/seven"}, text]},
            },
            "allOf": [{"properties": {"eight": secret}}],
        });
        let arguments = json!({
            "one": "a1", "two": "a2", "three": ["open", "a3"], "four": {"code": "a4", "next": {"code": "a5"}},
            "five": {"any": "a6"}, "six": "a7", "seven": "open", "eight": "a8", "nine": "open"
        });
        let shown = json!({
            "one": "**", "two": "**", "three": ["open", "**"], "four": {"code": "**", "next": {"code": "**"}},
            "five": {"any": "**"}, "six": "**", "seven": "open", "eight": "**", "nine": "open"
        });
        assert_eq!(masked(&schema, &arguments), shown);
    }

    #[test]
    fn of_arguments_that_do_not_fit_only_what_the_schema_knows_is_shown() {
        let schema = json!({"type": "object", "properties": {
            "table": {"type": "integer"},
            "card": {"type": "object", "properties": {"code": {"x-sensitive": true}}},
            "entry": {"type": "object", "properties": {"code": {"x-sensitive": true}}},
        }});
        let arguments = json!({"table": "four", "pincode": "4711", "entry": "4711", "who": {"a": 1}});
        let shown = json!({"table": "four", "pincode": "****", "entry": "****", "who": "***"});
        assert_eq!(masked_misfit(&schema, &arguments), shown);
    }

    #[test]
    fn what_a_schema_consists_of_is_bounded() {
        let many: Vec<Value> = (0..1000).map(|n| json!({"minLength": n})).collect();
        assert_eq!(
            masked(&json!({"properties": {"a": {"anyOf": many}}}), &json!({"a": "bc"})),
            json!({"a": "**"})
        );
    }

    #[test]
    fn whatever_a_model_writes_is_bounded() {
        let mut deep = json!("x");
        for _ in 0..100 {
            deep = json!({ "a": [deep] });
        }
        let wide = json!({ "list": (0..1000).collect::<Vec<_>>(), "text": "y".repeat(10_000) });
        for arguments in [deep, wide] {
            assert!(masked(&json!({}), &arguments).to_string().len() < 2000);
        }
    }
}
