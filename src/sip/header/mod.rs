//! Typed views of header values, one file per header, and the pieces of grammar they share.
//!
//! Values arrive here unfolded (no CR or LF), so linear white space is SP and TAB.

pub mod access;
pub mod cause;
pub mod content_type;
pub mod cseq;
pub mod name;
pub mod name_addr;
pub mod params;
pub mod reason;
pub mod via;

use super::headers::HeaderValue;
use super::uri::UriError;

/// What is wrong with a header value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);

impl From<UriError> for Malformed {
    fn from(error: UriError) -> Self {
        Self(error.0)
    }
}

/// Whether an octet may stand in a token (RFC 3261 section 25.1).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// The text when it is a token.
pub(crate) fn token(text: &[u8]) -> Option<&str> {
    let is_token = !text.is_empty() && text.iter().all(|b| is_token_byte(*b));
    if is_token { std::str::from_utf8(text).ok() } else { None }
}

/// Without white space at both ends.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Where the quoted string that starts at `at` ends: the place after its closing quote.
pub(crate) fn end_of_quoted(text: &[u8], at: usize) -> Option<usize> {
    let mut place = at + 1;
    loop {
        match text.get(place)? {
            b'"' => return Some(place + 1),
            b'\\' => place += 2,
            _ => place += 1,
        }
    }
}

/// The content of a quoted string, its escapes removed; other text as it is.
pub(crate) fn unquote(text: &[u8]) -> Vec<u8> {
    let [b'"', inner @ .., b'"'] = text else {
        return text.to_vec();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut octets = inner.iter();
    while let Some(octet) = octets.next() {
        match octet {
            b'\\' => out.extend(octets.next()),
            other => out.push(*other),
        }
    }
    out
}

/// Text as a quoted string: quotes and backslashes escaped, control octets made spaces.
pub(crate) fn quote(text: &str) -> Vec<u8> {
    let mut out = vec![b'"'];
    for octet in text.bytes() {
        match octet {
            b'"' | b'\\' => out.extend([b'\\', octet]),
            0..=31 | 127 => out.push(b' '),
            _ => out.push(octet),
        }
    }
    out.push(b'"');
    out
}

/// The values of one row: split at commas outside quotes and angle brackets when `is_list`. Empty
/// elements between commas come out empty; an empty row of a list header has no value.
pub(crate) fn list_values(row: &[u8], is_list: bool) -> ListValues<'_> {
    let rest = (!is_list || !row.is_empty()).then_some(row);
    ListValues { rest, is_list }
}

/// See [`list_values`].
pub(crate) struct ListValues<'a> {
    rest: Option<&'a [u8]>,
    is_list: bool,
}

impl<'a> Iterator for ListValues<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        if !self.is_list {
            return Some(rest);
        }
        let (mut at, mut in_brackets) = (0, false);
        while let Some(offset) = rest[at..].iter().position(|b| matches!(b, b'"' | b',' | b'<' | b'>')) {
            at += offset;
            match rest[at] {
                b'"' if !in_brackets => {
                    let Some(end) = end_of_quoted(rest, at) else { break };
                    at = end;
                    continue;
                }
                b'<' => in_brackets = true,
                b'>' => in_brackets = false,
                b',' if !in_brackets => {
                    self.rest = Some(&rest[at + 1..]);
                    return Some(trim(&rest[..at]));
                }
                _ => {}
            }
            at += 1;
        }
        Some(trim(rest))
    }
}

/// A number without sign, of digits only; what exceeds `u32` is clamped to its maximum.
pub(crate) fn clamped_number(text: &[u8]) -> Result<u32, Malformed> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Malformed("not a number"));
    }
    let push = |sum: u32, digit: &u8| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    Ok(text.iter().fold(0, push))
}

/// A value put together from checked parts.
pub(crate) fn assembled(octets: Vec<u8>) -> HeaderValue {
    HeaderValue::trusted(octets)
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
            | b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn split(row: &str) -> Vec<String> {
        list_values(row.as_bytes(), true).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
    }

    #[test]
    fn commas_in_quotes_and_brackets_do_not_split() {
        assert_eq!(
            split("\"Doe, \\\"J\" <sip:a,b@c>;x=\"1,2\" , <sip:d>"),
            ["\"Doe, \\\"J\" <sip:a,b@c>;x=\"1,2\"", "<sip:d>"]
        );
        assert_eq!(split("a,,b,"), ["a", "", "b", ""]);
        assert_eq!(split("\"open, <a>, b"), ["\"open, <a>, b"]);
        assert!(split("").is_empty());
    }

    #[test]
    fn numbers_are_clamped_never_wrapped() {
        assert_eq!(clamped_number(b"4294967301"), Ok(u32::MAX));
        assert_eq!(clamped_number(b"007"), Ok(7));
        assert!(clamped_number(b"-1").is_err() && clamped_number(b"").is_err());
    }

    #[test]
    fn quoting_is_undone_by_unquoting() {
        assert_eq!(quote("a\"b\\c\r\n"), b"\"a\\\"b\\\\c  \"");
        assert_eq!(unquote(&quote("a\"b\\c")), b"a\"b\\c");
    }
}
