//! A TOML document as a tree whose every value knows where it was written.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Finding, Place};

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// Where its key stands; for a list element, where the element begins.
    pub key_place: Place,
    /// Where the value begins.
    pub place: Place,
    /// For a list element: which one it was before wrong ones were cut.
    pub index: Option<usize>,
    /// The value.
    pub value: Value,
}

/// What TOML can say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Moment(String),
    List(Vec<Item>),
    Table(BTreeMap<String, Item>),
}

impl Value {
    /// What it is, for a person.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Moment(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Item {
    /// An empty table.
    pub fn table(place: Place) -> Self {
        Self::new(place, Value::Table(BTreeMap::new()))
    }

    /// A value whose key and value stand in one place.
    pub fn new(place: Place, value: Value) -> Self {
        Self { key_place: place.clone(), place, index: None, value }
    }

    /// The value as JSON, for serde.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Text(text) | Value::Moment(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Boolean(flag) => (*flag).into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Table(table) => {
                serde_json::Value::Object(table.iter().map(|(k, v)| (k.clone(), v.to_json())).collect())
            }
        }
    }

    /// The item at a path such as `trunk[0].profile`, or `None` where nobody wrote it.
    pub fn at(&self, path: &str) -> Option<&Self> {
        segments(path).try_fold(self, |item, segment| match (&item.value, segment) {
            (Value::Table(table), Segment::Key(key)) => table.get(key),
            (Value::List(items), Segment::Index(index)) => items.get(index),
            _ => None,
        })
    }

    /// Where the value at a path was written, or else what encloses it; and the path as the writer counts.
    pub fn locate(&self, path: &str) -> (Place, String) {
        let mut item = Some(self);
        let mut place = self.place.clone();
        let mut label = String::new();
        for segment in segments(path) {
            let outer = item;
            item = outer.and_then(|item| match (&item.value, &segment) {
                (Value::Table(table), Segment::Key(key)) => table.get(*key),
                (Value::List(items), Segment::Index(index)) => items.get(*index),
                _ => None,
            });
            match (item, outer) {
                (Some(inner), _) => place = inner.place.clone(),
                (None, Some(outer)) => place = outer.key_place.clone(),
                (None, None) => {}
            }
            match segment {
                Segment::Key(key) if label.is_empty() => label.push_str(key),
                Segment::Key(key) => label.extend([".", key]),
                Segment::Index(index) => {
                    let written = item.and_then(|item| item.index).unwrap_or(index);
                    label.push_str(&format!("[{written}]"));
                }
            }
        }
        (place, label)
    }
}

enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

fn segments(path: &str) -> impl Iterator<Item = Segment<'_>> {
    path.split(['.', '[']).filter(|part| !part.is_empty()).map(|part| {
        match part.strip_suffix(']').and_then(|n| n.parse().ok()) {
            Some(index) => Segment::Index(index),
            None => Segment::Key(part),
        }
    })
}

/// Parses a document. Syntax errors become findings; what could be read in spite of them is returned.
pub(super) fn parse(file: &str, text: &str, findings: &mut Vec<Finding>) -> Item {
    let lines = Lines::of(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = lines.place(error.span().map_or(0, |span| span.start));
        let message = format!("this is not TOML: {}", one_line(error.message()));
        findings.push(Finding::error(&place, "", message, syntax_fix(error.message())));
    }
    let mut root = Item::table(lines.place(0));
    root.value = lines.convert_table(table.get_ref());
    root
}

/// Parses one TOML value, as found in a variable or option.
pub(super) fn parse_value(text: &str, place: &Place) -> Result<Item, String> {
    let parsed = DeValue::parse(text).map_err(|error| one_line(error.message()))?;
    let mut item = Lines::of("", text).convert(&parsed);
    set_place(&mut item, place);
    Ok(item)
}

fn set_place(item: &mut Item, place: &Place) {
    item.place = place.clone();
    item.key_place = place.clone();
    match &mut item.value {
        Value::List(items) => items.iter_mut().for_each(|inner| set_place(inner, place)),
        Value::Table(table) => table.values_mut().for_each(|inner| set_place(inner, place)),
        Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Moment(_) => {}
    }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}

fn syntax_fix(message: &str) -> &'static str {
    if message.contains("duplicate key") {
        "keep one of the two"
    } else {
        "see https://toml.io/en/v1.0.0 for the notation; text stands in \"quotes\""
    }
}

struct Lines<'a> {
    file: &'a str,
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(file: &'a str, text: &'a str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { file, text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    fn place(&self, offset: usize) -> Place {
        let offset = if self.text.is_char_boundary(offset) { offset } else { self.text.len() };
        let line = self.starts.partition_point(|start| *start <= offset);
        let column = self.text[self.starts[line - 1]..offset].chars().count() + 1;
        Place::File { file: self.file.to_owned(), line: line as u32, column: column as u32 }
    }

    fn convert_table(&self, table: &DeTable<'_>) -> Value {
        let entries = table.iter().map(|(key, value)| {
            let mut item = self.convert(value);
            item.key_place = self.place(key.span().start);
            (key.get_ref().to_string(), item)
        });
        Value::Table(entries.collect())
    }

    fn convert(&self, value: &Spanned<DeValue<'_>>) -> Item {
        let place = self.place(value.span().start);
        let converted = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                i64::from_str_radix(&digits, number.radix())
                    .map_or_else(|_| Value::Float(digits.parse().unwrap_or(f64::MAX)), Value::Integer)
            }
            DeValue::Float(number) => {
                Value::Float(number.as_str().replace('_', "").parse().unwrap_or(f64::NAN))
            }
            DeValue::Boolean(flag) => Value::Boolean(*flag),
            DeValue::Datetime(moment) => Value::Moment(moment.to_string()),
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.convert(item)).collect()),
            DeValue::Table(table) => self.convert_table(table),
        };
        Item::new(place, converted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_column(place: &Place) -> (u32, u32) {
        match place {
            Place::File { line, column, .. } => (*line, *column),
            other => panic!("{other:?} is no file"),
        }
    }

    #[test]
    fn every_value_knows_its_line_and_column() {
        let mut findings = Vec::new();
        let text =
            "[sip]\nlisten = [\"a\", \"b\"]\n\n[[trunk]]\nname = \"é\" # x\n[[trunk]]\n  max_calls = 3\n";
        let root = parse("t.toml", text, &mut findings);
        assert!(findings.is_empty());
        assert_eq!(line_column(&root.locate("sip.listen[1]").0), (2, 16));
        assert_eq!(line_column(&root.locate("trunk[0].name").0), (5, 8));
        assert_eq!(line_column(&root.locate("trunk[1].max_calls").0), (7, 15));
        assert_eq!(line_column(&root.locate("trunk[1].absent").0), (6, 1));
        assert_eq!(line_column(&root.locate("sip.absent").0), (1, 2));
    }

    #[test]
    fn several_syntax_errors_are_found_at_once() {
        let mut findings = Vec::new();
        let root = parse("t.toml", "a = \nb = 1\nc = [1\n\nd = 2\nb = 3\n", &mut findings);
        assert!(findings.len() >= 2, "{findings:?}");
        assert!(root.at("b").is_some());
    }
}
