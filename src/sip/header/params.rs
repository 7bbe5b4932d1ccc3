//! Header parameters: `;name=value` in order, values a token, a host or a quoted string.

use super::{Malformed, end_of_quoted, is_token_byte, quote, token, trim, unquote};
use crate::sip::headers::HeaderError;

/// The parameters of a header value, as received.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Params {
    /// Empty, or starts with `;`.
    text: Vec<u8>,
}

impl Params {
    /// Reads what follows a header value: nothing, or `;` and parameters.
    ///
    /// # Errors
    /// On an empty name, an unclosed quote, more than 64 parameters, or text that does not start with `;`.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let text = trim(text);
        check(text)?;
        Ok(Self { text: text.to_vec() })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The text, with its leading `;`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Every parameter in order: name, and value as written when there is one.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        iter(&self.text)
    }

    /// The value of a parameter as written, `Some(b"")` for one without value. Names match without case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        get(&self.text, name)
    }

    /// The value of a parameter, when it is UTF-8; quotes are left on.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value of a parameter without quotes and escapes; octets that are not UTF-8 replaced.
    pub fn get_text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| String::from_utf8_lossy(&unquote(value)).into_owned())
    }

    /// Whether a parameter stands, with or without value.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets a parameter, in its place or at the end; `None` for one without value.
    ///
    /// # Errors
    /// When the name is no token, or the value neither token, host nor quoted string.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), HeaderError> {
        token(name.as_bytes()).ok_or(HeaderError::NotAToken)?;
        if let Some(value) = value {
            let plain = !value.is_empty() && value.bytes().all(|b| is_token_byte(b) || b"[]:".contains(&b));
            let quoted = end_of_quoted(value.as_bytes(), 0) == Some(value.len());
            if !(plain || value.starts_with('"') && quoted && !value.bytes().any(|b| b < b' ' || b == 127)) {
                return Err(HeaderError::NotAToken);
            }
        }
        self.put(name, value.map(str::as_bytes));
        Ok(())
    }

    /// Sets a parameter to a quoted string.
    ///
    /// # Errors
    /// When the name is no token.
    pub fn set_quoted(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        token(name.as_bytes()).ok_or(HeaderError::NotAToken)?;
        self.put(name, Some(&quote(value)));
        Ok(())
    }

    /// Removes a parameter.
    pub fn remove(&mut self, name: &str) {
        let mut text = Vec::with_capacity(self.text.len());
        for (n, v) in self.iter().filter(|(n, _)| !n.eq_ignore_ascii_case(name.as_bytes())) {
            append(&mut text, n, v);
        }
        self.text = text;
    }

    fn put(&mut self, name: &str, value: Option<&[u8]>) {
        let mut text = Vec::with_capacity(self.text.len() + name.len() + 2 + value.map_or(0, <[u8]>::len));
        let mut placed = false;
        for (n, v) in self.iter() {
            match n.eq_ignore_ascii_case(name.as_bytes()) {
                true if placed => {}
                true => {
                    append(&mut text, n, value);
                    placed = true;
                }
                false => append(&mut text, n, v),
            }
        }
        if !placed {
            append(&mut text, name.as_bytes(), value);
        }
        self.text = text;
    }
}

fn append(text: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    text.push(b';');
    text.extend_from_slice(name);
    if let Some(value) = value {
        text.push(b'=');
        text.extend_from_slice(value);
    }
}

/// The value of a parameter in text that [`check`] has passed.
pub(crate) fn get<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    iter(text)
        .find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value.unwrap_or_default())
}

fn iter(text: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let [b';', after @ ..] = rest else {
            return None;
        };
        let end = end_of_param(after).unwrap_or(after.len());
        let param = trim(&after[..end]);
        rest = &after[end..];
        if param.is_empty() {
            return None;
        }
        Some(match param.iter().position(|b| *b == b'=') {
            Some(equals) => (trim(&param[..equals]), Some(trim(&param[equals + 1..]))),
            None => (param, None),
        })
    })
}

/// Checks the grammar without allocating. One `;` with nothing after it at the very end is forgiven.
pub(crate) fn check(text: &[u8]) -> Result<(), Malformed> {
    let mut rest = trim(text);
    let mut count = 0;
    while let [first, after @ ..] = rest {
        if *first != b';' {
            return Err(Malformed("something other than parameters after the value"));
        }
        let end = end_of_param(after).ok_or(Malformed("a quote that never closes"))?;
        let param = trim(&after[..end]);
        rest = &after[end..];
        if param.is_empty() && rest.is_empty() && count > 0 {
            return Ok(());
        }
        check_one(param)?;
        count += 1;
        if count > MAX_PARAMS {
            return Err(Malformed("too many parameters"));
        }
    }
    Ok(())
}

fn check_one(param: &[u8]) -> Result<(), Malformed> {
    let name_end = param.iter().position(|b| !is_token_byte(*b)).unwrap_or(param.len());
    if name_end == 0 {
        return Err(Malformed("a parameter without a name"));
    }
    match trim(&param[name_end..]) {
        [] => Ok(()),
        [b'=', value @ ..] => check_value(trim(value)),
        _ => Err(Malformed("a parameter name that is no token")),
    }
}

fn check_value(value: &[u8]) -> Result<(), Malformed> {
    if value.first() == Some(&b'"') {
        return match end_of_quoted(value, 0) {
            Some(end) if end == value.len() => Ok(()),
            _ => Err(Malformed("text after a quoted parameter value")),
        };
    }
    // Most values are tokens; what else may stand there is found out only if need be.
    let is_bad = |b: &u8| matches!(b, 0..=b' ' | 127 | b'"' | b',' | b'<' | b'>');
    match !value.iter().all(|b| is_token_byte(*b)) && value.iter().any(is_bad) {
        true => Err(Malformed("a parameter value that needs quotes")),
        false => Ok(()),
    }
}

/// Where the parameter ends that starts `text`: at the next `;` outside quotes, or the end.
fn end_of_param(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(offset) = text[at..].iter().position(|b| matches!(b, b';' | b'"')) {
        match text[at + offset] {
            b';' => return Some(at + offset),
            _ => at = end_of_quoted(text, at + offset)?,
        }
    }
    Some(text.len())
}

const MAX_PARAMS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_with_white_space_and_quotes() {
        let params = Params::parse(b" ; tag = 1 ;lr; text=\"a;\\\"b\" ;received=[2001:db8::1]").unwrap();
        assert_eq!(params.get("TAG"), Some(&b"1"[..]));
        assert_eq!(params.get("lr"), Some(&b""[..]));
        assert_eq!(params.get_text("text").as_deref(), Some("a;\"b"));
        assert_eq!(params.get_str("received"), Some("[2001:db8::1]"));
        assert_eq!(params.iter().count(), 4);
    }

    #[test]
    fn broken_ones_are_refused() {
        for text in [";;a", ";", ";a;;b", "a=b", ";=x", ";a=\"open", ";a=\"b\"c", ";a=b c", ";a=<b>", ";a@=b"]
        {
            assert!(Params::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Params::parse(";a=b;".as_bytes()).is_ok(), "one at the end is forgiven");
        assert!(Params::parse(";a=1".repeat(65).as_bytes()).is_err());
    }

    #[test]
    fn setting_replaces_in_place_and_refuses_injection() {
        let mut params = Params::parse(b";a=1;b;a=2").unwrap();
        params.set("A", Some("3")).unwrap();
        params.set("c", None).unwrap();
        assert_eq!(params.as_bytes(), b";a=3;b;c");
        for value in ["x\r\ny", "a;b", "a b", "", "\"open", "\"a\"b\""] {
            assert!(params.set("d", Some(value)).is_err(), "{value:?}");
        }
        params.set_quoted("t", "a\"\r\nb").unwrap();
        assert_eq!(params.get("t"), Some(&b"\"a\\\"  b\""[..]));
        params.remove("b");
        assert!(!params.contains("b"));
    }
}
