//! Arguments as the record may show them: what is marked sensitive or looks personal is hidden.

use serde_json::{Map, Value};

use super::schema::SENSITIVE;
use crate::telemetry::masked as pii_masked;

/// `arguments` with what is sensitive by `schema` (`"x-sensitive": true`), named like something personal, or looks
/// like a number of a person or an address masked. Bounded, whatever the model wrote.
pub fn masked(schema: &Value, arguments: &Value) -> Value {
    let mut room = VALUES_MOST;
    value(Some(schema), "", arguments, 0, &mut room)
}

fn value(schema: Option<&Value>, name: &str, found: &Value, depth: usize, room: &mut usize) -> Value {
    if *room == 0 || depth > DEPTH_MOST {
        return Value::String("…".to_owned());
    }
    *room -= 1;
    let sensitive = schema.and_then(|schema| schema.get(SENSITIVE)).and_then(Value::as_bool) == Some(true);
    if sensitive || is_personal(name) {
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
            let of = schema.and_then(|schema| schema.get("items"));
            Value::Array(items.iter().take(32).map(|item| value(of, name, item, depth + 1, room)).collect())
        }
        Value::Object(members) => {
            let properties = schema.and_then(|schema| schema.get("properties"));
            let mut shown = Map::new();
            for (name, found) in members.iter().take(32) {
                let of = properties.and_then(|properties| properties.get(name));
                shown.insert(short(name), value(of, name, found, depth + 1, room));
            }
            Value::Object(shown)
        }
        Value::Null | Value::Bool(_) => found.clone(),
    }
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

fn plain(text: &str) -> String {
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
