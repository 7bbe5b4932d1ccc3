//! `Content-Type: application/sdp`.

use super::params::Params;
use super::{Malformed, token, trim};

/// The type of a body.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContentType {
    kind: Box<str>,
    subtype: Box<str>,
    /// `boundary`, `charset` and others.
    pub params: Params,
}

impl ContentType {
    /// Reads a value.
    ///
    /// # Errors
    /// When it is not `type/subtype` and parameters.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
        let slash = text[..end].iter().position(|b| *b == b'/').ok_or(Malformed("no `/`"))?;
        let part = |octets| token(trim(octets)).ok_or(Malformed("a media type that is no token"));
        Ok(Self {
            kind: part(&text[..slash])?.into(),
            subtype: part(&text[slash + 1..end])?.into(),
            params: Params::parse(&text[end..])?,
        })
    }

    /// Whether the type is this one; case does not matter.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
    }

    /// Whether the body is a session description.
    pub fn is_sdp(&self) -> bool {
        self.is("application", "sdp")
    }

    /// Whether the body has parts.
    pub fn is_multipart(&self) -> bool {
        self.kind.eq_ignore_ascii_case("multipart")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_in_any_case() {
        let kind = ContentType::parse(b"Multipart / Mixed ;boundary=\"a b\"").unwrap();
        assert!(kind.is_multipart() && kind.params.get_text("boundary").as_deref() == Some("a b"));
        assert!(ContentType::parse(b"APPLICATION/sdp").unwrap().is_sdp());
        assert!(ContentType::parse(b"sdp").is_err() && ContentType::parse(b"a/b c").is_err());
    }
}
