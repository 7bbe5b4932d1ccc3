//! Strict reading of JSON objects: every field is asked for by name, what is left over is an error
//! that carries the full path of the field, as the service reports it.

use serde_json::{Map, Value};

use super::error::ApiError;

/// One JSON object being read.
#[derive(Debug)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: String,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Starts reading `value`, which sits at `path` (empty: the event itself).
    ///
    /// # Errors
    /// `invalid_type` when it is no object.
    pub fn of(value: &'a Value, path: impl Into<String>) -> Result<Self, ApiError> {
        let path = path.into();
        match value {
            Value::Object(object) => Ok(Self { object, path, known: Vec::with_capacity(8) }),
            other => Err(ApiError::wrong_type(&path, "an object", other)),
        }
    }

    /// The path of one of this object's fields.
    pub fn path_of(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// The field as it stands, `null` included.
    pub fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.object.get(name)
    }

    /// A text, if the field is there.
    pub fn string(&mut self, name: &'static str) -> Result<Option<&'a str>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(ApiError::wrong_type(&self.path_of(name), "a string", other)),
        }
    }

    /// A text, where `null` counts as absent.
    pub fn nullable_string(&mut self, name: &'static str) -> Result<Option<&'a str>, ApiError> {
        match self.object.get(name) {
            Some(Value::Null) => {
                self.known.push(name);
                Ok(None)
            }
            _ => self.string(name),
        }
    }

    /// A text that must be there.
    pub fn required_string(&mut self, name: &'static str) -> Result<&'a str, ApiError> {
        self.string(name)?.ok_or_else(|| ApiError::missing(&self.path_of(name)))
    }

    /// A text out of a fixed set, if the field is there.
    pub fn one_of(&mut self, name: &'static str, allowed: &[&str]) -> Result<Option<&'a str>, ApiError> {
        match self.string(name)? {
            Some(text) if !allowed.contains(&text) => {
                Err(ApiError::not_one_of(&self.path_of(name), text, allowed))
            }
            text => Ok(text),
        }
    }

    /// A text out of a fixed set that must be there.
    pub fn required_one_of(&mut self, name: &'static str, allowed: &[&str]) -> Result<&'a str, ApiError> {
        self.one_of(name, allowed)?.ok_or_else(|| ApiError::missing(&self.path_of(name)))
    }

    /// A boolean, if the field is there.
    pub fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(ApiError::wrong_type(&self.path_of(name), "a boolean", other)),
        }
    }

    /// A number within `low..=high`, if the field is there.
    pub fn number(&mut self, name: &'static str, low: f64, high: f64) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let path = self.path_of(name);
        let number = value.as_f64().ok_or_else(|| ApiError::wrong_type(&path, "a decimal", value))?;
        if number < low {
            let why =
                format!("decimal below minimum value. Expected a value >= {low}, but got {number} instead.");
            return Err(ApiError { code: "decimal_below_min_value", ..ApiError::invalid(&path, &why) });
        }
        if number > high {
            let why =
                format!("decimal above maximum value. Expected a value <= {high}, but got {number} instead.");
            return Err(ApiError { code: "decimal_above_max_value", ..ApiError::invalid(&path, &why) });
        }
        Ok(Some(number))
    }

    /// An integer within `low..=high`, if the field is there.
    pub fn integer(&mut self, name: &'static str, low: i64, high: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        integer(&self.path_of(name), value, low, high).map(Some)
    }

    /// An integer that must be there.
    pub fn required_integer(&mut self, name: &'static str, low: i64, high: i64) -> Result<i64, ApiError> {
        self.integer(name, low, high)?.ok_or_else(|| ApiError::missing(&self.path_of(name)))
    }

    /// A nested object, if the field is there and not `null`.
    pub fn object(&mut self, name: &'static str) -> Result<Option<Fields<'a>>, ApiError> {
        match self.value(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Fields::of(value, self.path_of(name)).map(Some),
        }
    }

    /// The elements of an array with their paths, if the field is there.
    pub fn array(&mut self, name: &'static str) -> Result<Option<Vec<(String, &'a Value)>>, ApiError> {
        let path = self.path_of(name);
        match self.value(name) {
            None => Ok(None),
            Some(Value::Array(values)) => {
                Ok(Some(values.iter().enumerate().map(|(i, v)| (format!("{path}[{i}]"), v)).collect()))
            }
            Some(other) => Err(ApiError::wrong_type(&path, "an array", other)),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `unknown_parameter` for the first field nobody asked for.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.object.keys().find(|key| !self.known.contains(&key.as_str())) {
            Some(key) => Err(ApiError::unknown(&self.path_of(key))),
            None => Ok(()),
        }
    }
}

/// An integer within `low..=high`; `2.0` is no integer.
pub fn integer(path: &str, value: &Value, low: i64, high: i64) -> Result<i64, ApiError> {
    let number = value.as_i64().ok_or_else(|| ApiError::wrong_type(path, "an integer", value))?;
    if number < low {
        let why =
            format!("integer below minimum value. Expected a value >= {low}, but got {number} instead.");
        return Err(ApiError { code: "integer_below_min_value", ..ApiError::invalid(path, &why) });
    }
    if number > high {
        let why =
            format!("integer above maximum value. Expected a value <= {high}, but got {number} instead.");
        return Err(ApiError { code: "integer_above_max_value", ..ApiError::invalid(path, &why) });
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_left_over_field_is_named_with_its_whole_path() {
        let value = json!({"a": {"b": 1, "c": 2}});
        let mut outer = Fields::of(&value, "session").unwrap();
        let mut inner = outer.object("a").unwrap().unwrap();
        assert_eq!(inner.integer("b", 0, 9), Ok(Some(1)));
        assert_eq!(inner.finish().unwrap_err().param.as_deref(), Some("session.a.c"));
        outer.finish().unwrap();
    }

    #[test]
    fn a_decimal_is_no_integer() {
        let value = json!({"ms": 12.5, "low": -1});
        let mut fields = Fields::of(&value, "").unwrap();
        assert_eq!(fields.required_integer("ms", 0, 100).unwrap_err().code, "invalid_type");
        assert_eq!(fields.required_integer("low", 0, 100).unwrap_err().code, "integer_below_min_value");
        assert_eq!(fields.required_string("gone").unwrap_err().code, "missing_required_parameter");
    }
}
