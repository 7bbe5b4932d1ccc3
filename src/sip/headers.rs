//! The header section: ordered rows, looked up without regard to case or compact form.
//!
//! A row's value is kept as octets (peers send Latin-1, and worse). Rows read from the wire are spans of
//! the received buffer, so a parsed message costs one copy and one allocation for its rows; rows that are
//! added own their octets. Unknown headers are kept, in place, with the name as written.

use std::fmt;

use bytes::Bytes;

pub use super::header::name::HeaderName;
use super::header::{self, Malformed, list_values};
use super::message::StatusCode;

/// The header section of a message.
#[derive(Clone, Default)]
pub struct Headers {
    /// What the spans of `rows` point into: the datagram or stream chunk this was read from.
    wire: Bytes,
    rows: Vec<Row>,
}

/// What is wrong with a header, or with what should become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A header the message needs is not there.
    #[error("{0} is missing")]
    Missing(HeaderName),
    /// A header that may stand once stands twice.
    #[error("{0} stands more than once")]
    Repeated(HeaderName),
    /// A value breaks the grammar.
    #[error("{0}: {1}")]
    Invalid(HeaderName, Malformed),
    /// A name that must be a token is not.
    #[error("not a token")]
    NotAToken,
    /// A value to be sent holds CR, LF, NUL or another control octet.
    #[error("a header value may not hold control octets")]
    ControlOctet,
    /// A value to be sent is longer than 16 384 octets.
    #[error("a header value may not be longer than 16384 octets")]
    TooLong,
}

/// A value that is safe to put on the wire: no CR, LF or NUL.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct HeaderValue(Bytes);

impl HeaderValue {
    /// A value from text that comes from a peer, an API or a person.
    ///
    /// # Errors
    /// When it holds control octets other than TAB, or is longer than 16 384 octets.
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self, HeaderError> {
        let text = text.as_ref();
        if text.iter().any(|b| is_forbidden(*b)) {
            return Err(HeaderError::ControlOctet);
        }
        if text.len() > MAX_VALUE_BYTES {
            return Err(HeaderError::TooLong);
        }
        Ok(Self(Bytes::copy_from_slice(text)))
    }

    /// A value written in the program.
    ///
    /// # Panics
    /// When the text holds control octets.
    pub fn from_static(text: &'static str) -> Self {
        assert!(!text.bytes().any(is_forbidden), "a header value in the program holds control octets");
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text with every control octet made a space and what exceeds 16 384 octets cut off.
    pub fn cleaned(text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref().iter().take(MAX_VALUE_BYTES);
        Self(text.map(|b| if is_forbidden(*b) { b' ' } else { *b }).collect())
    }

    /// A value that was part of a received header (it may hold an escaped NUL, never CR or LF), or that was
    /// put together from checked parts.
    pub(crate) fn trusted(octets: impl Into<Bytes>) -> Self {
        let octets = octets.into();
        debug_assert!(!octets.iter().any(|b| matches!(b, b'\r' | b'\n')));
        Self(octets)
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text; octets that are not UTF-8 replaced.
    pub fn to_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_text())
    }
}

impl From<u32> for HeaderValue {
    fn from(number: u32) -> Self {
        Self(number.to_string().into())
    }
}

/// What to look a header up by: a known name, or text in any case or compact form.
#[derive(Debug, Clone, Copy)]
pub enum Name<'a> {
    /// A name we know.
    Known(HeaderName),
    /// Any other.
    Other(&'a [u8]),
}

impl From<HeaderName> for Name<'_> {
    fn from(name: HeaderName) -> Self {
        Self::Known(name)
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(text: &'a str) -> Self {
        Self::from_bytes(text.as_bytes())
    }
}

impl<'a> Name<'a> {
    pub(crate) fn from_bytes(text: &'a [u8]) -> Self {
        HeaderName::lookup(text).map_or(Self::Other(text), Self::Known)
    }
}

impl Headers {
    /// No rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Every row in order: its name (canonical when known, else as written) and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.rows.iter().map(|row| (self.name_of(row), self.text(&row.value)))
    }

    /// The rows of one name in order, each value as it stands.
    pub fn rows<'a>(&'a self, name: impl Into<Name<'a>>) -> impl Iterator<Item = &'a [u8]> {
        let name = name.into();
        self.rows.iter().filter(move |row| self.is_named(row, name)).map(|row| self.text(&row.value))
    }

    /// The values of one name in order: rows of list headers are split at their commas (outside quotes and
    /// angle brackets), other rows are one value each (RFC 3261 section 7.3.1).
    pub fn values<'a>(&'a self, name: impl Into<Name<'a>>) -> impl Iterator<Item = &'a [u8]> {
        let name = name.into();
        let is_list = matches!(name, Name::Known(known) if known.is_list());
        self.rows(name).flat_map(move |row| list_values(row, is_list))
    }

    /// The first row of a name.
    pub fn get<'a>(&'a self, name: impl Into<Name<'a>>) -> Option<&'a [u8]> {
        self.rows(name).next()
    }

    /// The first row of a name, when it is UTF-8.
    pub fn get_str<'a>(&'a self, name: impl Into<Name<'a>>) -> Option<&'a str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Whether a row of this name stands.
    pub fn contains<'a>(&'a self, name: impl Into<Name<'a>>) -> bool {
        self.get(name).is_some()
    }

    /// Adds a row at the end.
    pub fn push(&mut self, name: HeaderName, value: impl Into<HeaderValue>) {
        self.rows.push(Row::new(name, value.into()));
    }

    /// Adds a row before all others.
    pub fn push_front(&mut self, name: HeaderName, value: impl Into<HeaderValue>) {
        self.rows.insert(0, Row::new(name, value.into()));
    }

    /// Adds a row of a name that is only known at run time.
    ///
    /// # Errors
    /// When the name is no token.
    pub fn push_named(&mut self, name: &str, value: impl Into<HeaderValue>) -> Result<(), HeaderError> {
        let name = match Name::from(name) {
            Name::Known(known) => RowName::Known(known),
            Name::Other(text) => {
                header::token(text).ok_or(HeaderError::NotAToken)?;
                RowName::Other(Text::Own(Bytes::copy_from_slice(text)))
            }
        };
        self.rows.push(Row { name, value: Text::Own(value.into().0) });
        Ok(())
    }

    /// Makes this the only row of its name, in the place of the first, or at the end.
    pub fn replace(&mut self, name: HeaderName, value: impl Into<HeaderValue>) {
        let row = Row::new(name, value.into());
        match self.rows.iter().position(|r| r.name.is(name)) {
            Some(place) => {
                self.rows[place] = row;
                let mut index = 0;
                self.rows.retain(|r| {
                    index += 1;
                    index - 1 <= place || !r.name.is(name)
                });
            }
            None => self.rows.push(row),
        }
    }

    /// Removes every row of a name; returns how many there were.
    pub fn remove<'a>(&mut self, name: impl Into<Name<'a>>) -> usize {
        let name = name.into();
        let before = self.rows.len();
        let wire = &self.wire;
        self.rows.retain(|row| !row_is_named(wire, row, name));
        before - self.rows.len()
    }

    /// Removes the topmost value of a list header (our Via of a response, the first Route), leaving the
    /// others of its row. Returns whether there was one.
    pub fn remove_first_value(&mut self, name: HeaderName) -> bool {
        self.edit_first_value(name, None)
    }

    /// Replaces the topmost value of a list header, leaving the others of its row. Returns whether there
    /// was one.
    pub fn replace_first_value(&mut self, name: HeaderName, value: impl Into<HeaderValue>) -> bool {
        self.edit_first_value(name, Some(value.into()))
    }

    /// Copies all rows of a name to the end of this section, in order.
    pub fn copy_from<'a>(&mut self, other: &Headers, name: impl Into<Name<'a>>) {
        let name = name.into();
        for row in other.rows.iter().filter(|row| other.is_named(row, name)) {
            self.copy_row(other, row);
        }
    }

    /// Adds a row read from the wire; name and value are spans of `self.wire`.
    #[inline]
    pub(crate) fn push_wire(&mut self, name: WireName, value: (usize, usize)) {
        let value = Text::Span(value.0 as u32, value.1 as u32);
        match name {
            WireName::Known(known) => self.rows.push(Row { name: RowName::Known(known), value }),
            WireName::Other(start, end) => {
                self.rows.push(Row { name: RowName::Other(Text::Span(start as u32, end as u32)), value });
            }
        }
    }

    /// Adds a row read from the wire whose value was folded and could not stay a span.
    pub(crate) fn push_unfolded(&mut self, name: WireName, value: Vec<u8>) {
        self.push_wire(name, (0, 0));
        if let Some(row) = self.rows.last_mut() {
            row.value = Text::Own(value.into());
        }
    }

    /// An empty section whose rows will be spans of `wire`, which must be shorter than 4 GiB.
    pub(crate) fn over(wire: Bytes, capacity: usize) -> Self {
        Self { wire, rows: Vec::with_capacity(capacity) }
    }

    /// The rows whose name we know, in order.
    pub(crate) fn known_rows(&self) -> impl Iterator<Item = (HeaderName, &[u8])> {
        self.rows.iter().filter_map(|row| match row.name {
            RowName::Known(name) => Some((name, self.text(&row.value))),
            RowName::Other(_) => None,
        })
    }

    /// See [`super::message::Response::to_request`].
    pub(crate) fn copy_response_headers(&mut self, request: &Self, status: StatusCode, tag: Option<&str>) {
        self.rows.reserve(8);
        self.copy_from(request, HeaderName::Via);
        self.copy_first(request, HeaderName::From);
        match (tag, request.get(HeaderName::To)) {
            (Some(tag), Some(to)) if status != StatusCode::TRYING => match header::name_addr::has_tag(to) {
                true => self.copy_first(request, HeaderName::To),
                false => self.push(HeaderName::To, header::name_addr::with_tag(to, tag)),
            },
            _ => self.copy_first(request, HeaderName::To),
        }
        self.copy_first(request, HeaderName::CallId);
        self.copy_first(request, HeaderName::CSeq);
        if status == StatusCode::TRYING {
            self.copy_first(request, HeaderName::Timestamp);
        }
    }

    fn copy_first(&mut self, other: &Self, name: HeaderName) {
        if let Some(row) = other.rows.iter().find(|row| row.name.is(name)) {
            self.copy_row(other, row);
        }
    }

    /// Shares the octets where it can: spans stay spans while both sections are over the same buffer.
    fn copy_row(&mut self, other: &Self, row: &Row) {
        if self.wire.is_empty() {
            self.wire = other.wire.clone();
        }
        let shared = self.wire.as_ptr() == other.wire.as_ptr() && self.wire.len() == other.wire.len();
        let copy = |text: &Text| match text {
            Text::Own(octets) => Text::Own(octets.clone()),
            Text::Span(start, end) if shared => Text::Span(*start, *end),
            Text::Span(..) => Text::Own(Bytes::copy_from_slice(other.text(text))),
        };
        let name = match &row.name {
            RowName::Known(known) => RowName::Known(*known),
            RowName::Other(text) => RowName::Other(copy(text)),
        };
        self.rows.push(Row { name, value: copy(&row.value) });
    }

    fn edit_first_value(&mut self, name: HeaderName, with: Option<HeaderValue>) -> bool {
        let Some(place) = self.rows.iter().position(|row| row.name.is(name)) else {
            return false;
        };
        let row = self.text(&self.rows[place].value);
        let mut others = list_values(row, name.is_list());
        others.next();
        let kept: Vec<&[u8]> = with.iter().map(HeaderValue::as_bytes).chain(others).collect();
        match kept.is_empty() {
            true => drop(self.rows.remove(place)),
            false => self.rows[place].value = Text::Own(kept.join(&b", "[..]).into()),
        }
        true
    }

    /// Octets the rows need on the wire, at least.
    pub(crate) fn wire_len(&self) -> usize {
        self.rows.iter().map(|row| self.name_of(row).len() + self.text(&row.value).len() + 4).sum()
    }

    /// Writes every row but those of one name.
    pub(crate) fn write_without(&self, left_out: HeaderName, out: &mut Vec<u8>) {
        for row in self.rows.iter().filter(|row| !row.name.is(left_out)) {
            out.extend_from_slice(self.name_of(row).as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.text(&row.value));
            out.extend_from_slice(b"\r\n");
        }
    }

    fn name_of<'a>(&'a self, row: &'a Row) -> &'a str {
        match &row.name {
            RowName::Known(name) => name.as_str(),
            RowName::Other(text) => std::str::from_utf8(self.text(text)).unwrap_or_default(),
        }
    }

    fn is_named(&self, row: &Row, name: Name<'_>) -> bool {
        row_is_named(&self.wire, row, name)
    }

    fn text<'a>(&'a self, text: &'a Text) -> &'a [u8] {
        text.of(&self.wire)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

/// The name of a row that is being read from the wire.
pub(crate) enum WireName {
    Known(HeaderName),
    Other(usize, usize),
}

#[derive(Clone)]
struct Row {
    name: RowName,
    value: Text,
}

#[derive(Clone)]
enum RowName {
    Known(HeaderName),
    Other(Text),
}

#[derive(Clone)]
enum Text {
    Span(u32, u32),
    Own(Bytes),
}

impl Row {
    fn new(name: HeaderName, value: HeaderValue) -> Self {
        Self { name: RowName::Known(name), value: Text::Own(value.0) }
    }
}

impl RowName {
    fn is(&self, name: HeaderName) -> bool {
        matches!(self, Self::Known(known) if *known == name)
    }
}

impl Text {
    fn of<'a>(&'a self, wire: &'a Bytes) -> &'a [u8] {
        match self {
            Self::Span(start, end) => wire.get(*start as usize..*end as usize).unwrap_or_default(),
            Self::Own(octets) => octets,
        }
    }
}

fn row_is_named(wire: &Bytes, row: &Row, name: Name<'_>) -> bool {
    match (&row.name, name) {
        (RowName::Known(a), Name::Known(b)) => *a == b,
        (RowName::Other(text), Name::Other(b)) => text.of(wire).eq_ignore_ascii_case(b),
        _ => false,
    }
}

fn is_forbidden(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}

const MAX_VALUE_BYTES: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&str, &'static str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in rows {
            headers.push_named(name, HeaderValue::from_static(value)).unwrap();
        }
        headers
    }

    #[test]
    fn lookups_see_all_spellings_and_keep_the_order() {
        let headers = headers(&[
            ("v", "a, b"),
            ("X-Other", "1, 2"),
            ("Via", "c"),
            ("x-other", "3"),
            ("Subject", "x, y"),
        ]);
        assert!(headers.values(HeaderName::Via).eq([b"a", b"b", b"c"]));
        assert!(headers.values("VIA").eq(headers.values("v")));
        assert!(headers.values("x-OTHER").eq([&b"1, 2"[..], b"3"]));
        assert!(headers.values("s").eq([b"x, y"]));
        let names: Vec<_> = headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Via", "X-Other", "Via", "x-other", "Subject"]);
    }

    #[test]
    fn the_top_value_of_a_list_is_changed_alone() {
        let mut headers = headers(&[("Via", "a, b"), ("Route", "<sip:r>"), ("Via", "c")]);
        assert!(headers.replace_first_value(HeaderName::Via, HeaderValue::from_static("z")));
        assert!(headers.rows(HeaderName::Via).eq([&b"z, b"[..], b"c"]));
        assert!(headers.remove_first_value(HeaderName::Via));
        assert!(headers.rows(HeaderName::Via).eq([b"b", b"c"]));
        assert!(headers.remove_first_value(HeaderName::Via));
        assert!(headers.rows(HeaderName::Via).eq([b"c"]));
        assert!(
            headers.remove_first_value(HeaderName::Route) && !headers.remove_first_value(HeaderName::Route)
        );
    }

    #[test]
    fn replacing_leaves_one_in_the_first_place() {
        let mut headers = headers(&[("a-x", "1"), ("Expires", "1"), ("To", "t"), ("Expires", "2")]);
        headers.replace(HeaderName::Expires, 3);
        headers.replace(HeaderName::MaxForwards, 70);
        let rows: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)))
            .collect();
        assert_eq!(rows, ["a-x=1", "Expires=3", "To=t", "Max-Forwards=70"]);
        assert_eq!(headers.remove("expires"), 1);
    }

    #[test]
    fn nothing_that_breaks_a_line_becomes_a_value_or_a_name() {
        for text in ["a\r\nb", "a\nb", "a\rb", "a\0b", "\u{7f}"] {
            assert_eq!(HeaderValue::new(text), Err(HeaderError::ControlOctet));
            assert!(!HeaderValue::cleaned(text).as_bytes().iter().any(|b| is_forbidden(*b)));
        }
        assert_eq!(HeaderValue::new("x".repeat(16_385)), Err(HeaderError::TooLong));
        let mut headers = Headers::new();
        for name in ["", "a b", "a:b", "a\r\nb"] {
            let pushed = headers.push_named(name, HeaderValue::default());
            assert_eq!(pushed, Err(HeaderError::NotAToken), "{name:?}");
        }
    }

    #[test]
    fn rows_are_shared_or_copied_with_the_same_text() {
        let wire = Bytes::from_static(b"Via: abc");
        let mut read = Headers::over(wire, 1);
        read.push_wire(WireName::Known(HeaderName::Via), (5, 8));
        let mut same = Headers::new();
        same.copy_from(&read, HeaderName::Via);
        assert!(same.rows("via").eq([b"abc"]));
        let mut other = Headers::over(Bytes::from_static(b"zzzzzzzzzzzz"), 1);
        other.copy_from(&read, HeaderName::Via);
        assert!(other.rows("via").eq([b"abc"]));
    }
}
