//! `"Name" <uri>;params`: From, To, Contact, Route, Record-Route, P-Asserted-Identity, Diversion, Refer-To.

use std::fmt;

use super::params::{self, Params};
use super::{Malformed, assembled, end_of_quoted, is_token_byte, quote, trim, unquote};
use crate::sip::headers::{HeaderError, HeaderValue};
use crate::sip::uri::{Uri, UriParts};

/// An address with an optional display name, and the parameters of the header that holds it.
///
/// Without angle brackets the parameters belong to the header, within them to the URI (RFC 3261 section
/// 20.10). Printed always with brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameAddr {
    /// As written: tokens or a quoted string.
    display: Option<Box<[u8]>>,
    /// The address.
    pub uri: Uri,
    /// The header's parameters (`tag`, `expires`, `q`, ...).
    pub params: Params,
}

impl NameAddr {
    /// An address without display name and parameters.
    pub fn new(uri: Uri) -> Self {
        Self { display: None, uri, params: Params::default() }
    }

    /// Reads one value.
    ///
    /// # Errors
    /// When brackets or quotes do not match, the URI is none, or the parameters are broken.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        // A received value has none; from anywhere else they would begin a header of their own.
        if text.iter().any(|octet| matches!(octet, b'\r' | b'\n')) {
            return Err(Malformed("a line break"));
        }
        let parts = Parts::split(text)?;
        Ok(Self {
            display: (!parts.display.is_empty()).then(|| parts.display.into()),
            uri: Uri::parse(parts.uri)?,
            params: Params::parse(parts.params)?,
        })
    }

    /// The display name without quotes and escapes; octets that are not UTF-8 replaced.
    pub fn display_name(&self) -> Option<String> {
        let display = self.display.as_deref()?;
        Some(String::from_utf8_lossy(&unquote(display)).into_owned())
    }

    /// This address with a display name; an empty one removes it.
    #[must_use]
    pub fn with_display_name(mut self, name: &str) -> Self {
        self.display = (!name.is_empty()).then(|| quote(name).into());
        self
    }

    /// The `tag` parameter.
    pub fn tag(&self) -> Option<&str> {
        self.params.get_str("tag").filter(|tag| !tag.is_empty())
    }

    /// This address with a tag. Octets of `tag` that may not stand in a token are left out.
    #[must_use]
    pub fn with_tag(mut self, tag: &str) -> Self {
        let tag: String = tag.chars().filter(|c| c.is_ascii() && is_token_byte(*c as u8)).collect();
        match self.params.set("tag", Some(&tag)) {
            Ok(()) => self,
            Err(_) => self.without_tag(),
        }
    }

    /// This address without a tag.
    #[must_use]
    pub fn without_tag(mut self) -> Self {
        self.params.remove("tag");
        self
    }

    /// This address with a header parameter.
    ///
    /// # Errors
    /// When name or value may not stand in a header.
    pub fn with_param(mut self, name: &str, value: Option<&str>) -> Result<Self, HeaderError> {
        self.params.set(name, value)?;
        Ok(self)
    }

    /// The value as it stands in a header.
    pub fn to_value(&self) -> HeaderValue {
        let uri = self.uri.as_str();
        let mut out = Vec::with_capacity(uri.len() + self.params.as_bytes().len() + 16);
        if let Some(display) = &self.display {
            out.extend_from_slice(display);
            out.push(b' ');
        }
        out.push(b'<');
        out.extend_from_slice(uri.as_bytes());
        out.push(b'>');
        out.extend_from_slice(self.params.as_bytes());
        assembled(out)
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_value().to_text())
    }
}

impl From<NameAddr> for HeaderValue {
    fn from(address: NameAddr) -> Self {
        address.to_value()
    }
}

impl From<&NameAddr> for HeaderValue {
    fn from(address: &NameAddr) -> Self {
        address.to_value()
    }
}

/// Checks one value without allocating.
pub(crate) fn check(text: &[u8]) -> Result<(), Malformed> {
    let parts = Parts::split(text)?;
    UriParts::scan(parts.uri)?;
    params::check(parts.params)
}

/// Whether a value carries a tag; false for one that cannot be read.
pub(crate) fn has_tag(text: &[u8]) -> bool {
    tag_of(text).is_some_and(|tag| !tag.is_empty())
}

/// The tag of a value.
pub(crate) fn tag_of(text: &[u8]) -> Option<&[u8]> {
    let parts = Parts::split(text).ok()?;
    params::check(parts.params).ok()?;
    params::get(trim(parts.params), "tag")
}

/// The value with `;tag=` appended.
pub(crate) fn with_tag(text: &[u8], tag: &str) -> HeaderValue {
    let mut out = Vec::with_capacity(text.len() + tag.len() + 5);
    out.extend_from_slice(text);
    out.extend_from_slice(b";tag=");
    out.extend(tag.bytes().filter(|b| is_token_byte(*b)));
    assembled(out)
}

struct Parts<'a> {
    display: &'a [u8],
    uri: &'a [u8],
    params: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(text: &'a [u8]) -> Result<Self, Malformed> {
        let text = trim(text);
        if text.first() == Some(&b'"') {
            let end = end_of_quoted(text, 0).ok_or(Malformed("a quote that never closes"))?;
            let rest = trim(&text[end..]);
            if rest.first() != Some(&b'<') {
                return Err(Malformed("no `<` after the display name"));
            }
            return Self::bracketed(&text[..end], rest);
        }
        match text.iter().position(|b| matches!(b, b'<' | b'"' | b';')) {
            Some(at) if text[at] == b'<' => {
                let display = trim(&text[..at]);
                let is_bad = |b: &u8| matches!(b, b',' | b'>' | 0..=8 | 10..=31 | 127);
                if display.iter().any(is_bad) {
                    return Err(Malformed("a display name that needs quotes"));
                }
                Self::bracketed(display, &text[at..])
            }
            Some(at) if text[at] == b'"' => Err(Malformed("a quote within an address")),
            place => Self::bare(text, place.unwrap_or(text.len())),
        }
    }

    /// `rest` starts with `<`.
    fn bracketed(display: &'a [u8], rest: &'a [u8]) -> Result<Self, Malformed> {
        let end = rest.iter().position(|b| *b == b'>').ok_or(Malformed("`<` without `>`"))?;
        Ok(Self { display, uri: &rest[1..end], params: &rest[end + 1..] })
    }

    fn bare(text: &'a [u8], end: usize) -> Result<Self, Malformed> {
        let uri = trim(&text[..end]);
        if uri.iter().any(|b| matches!(b, b'?' | b',')) {
            return Err(Malformed("a URI with `?` or `,` needs angle brackets"));
        }
        Ok(Self { display: &[], uri, params: &text[end..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> NameAddr {
        NameAddr::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn a_line_break_is_refused_even_within_quotes() {
        assert_eq!(NameAddr::parse(b"\"A\r\nFrom: B\" <sip:a@b>"), Err(Malformed("a line break")));
    }

    #[test]
    fn parameters_belong_to_the_uri_only_within_brackets() {
        let bare = parse("sip:a@b;tag=1");
        assert_eq!((bare.tag(), bare.uri.as_str()), (Some("1"), "sip:a@b"));
        let bracketed = parse("<sip:a@b;x=y>;tag=1");
        assert_eq!((bracketed.tag(), bracketed.uri.param("x")), (Some("1"), Some("y")));
        assert_eq!(bare.to_value().to_text(), "<sip:a@b>;tag=1");
    }

    #[test]
    fn display_names_of_every_kind() {
        for (text, name) in [
            ("\"A \\\"B\\\" <x>\" <sip:a@b>", Some("A \"B\" <x>")),
            ("caller<sip:a@b>", Some("caller")),
            ("J. Doe   <sip:a@b>", Some("J. Doe")),
            ("\"\" <sip:a@b>", Some("")),
            ("<sip:a@b>", None),
        ] {
            assert_eq!(parse(text).display_name().as_deref(), name, "{text}");
        }
        let named = NameAddr::new(Uri::parse("sip:a@b").unwrap()).with_display_name("x\"\r\ny");
        assert_eq!(named.to_value().to_text(), "\"x\\\"  y\" <sip:a@b>");
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        for text in [
            "\"open <sip:a@b>",
            "Bell, Alexander <sip:a@b>",
            "<sip:a@b",
            "< sip:a@b >",
            "sip:a@b?Route=x",
            "\"a\" sip:a@b",
            "a \"b\" <sip:a@b>",
            "<sip:a@b>tag=1",
            "",
            "*",
        ] {
            assert!(NameAddr::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn tags_are_set_and_taken_off() {
        let tagged = parse("<sip:a@b>;x=1").with_tag("abc\r\n;d");
        assert_eq!(tagged.to_value().to_text(), "<sip:a@b>;x=1;tag=abcd");
        assert!(has_tag(tagged.to_value().as_bytes()));
        assert_eq!(tagged.without_tag().to_value().to_text(), "<sip:a@b>;x=1");
        assert_eq!(with_tag(b"sip:a@b", "t").to_text(), "sip:a@b;tag=t");
    }
}
