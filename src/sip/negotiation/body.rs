//! The session description in a message body, which may be one part of several (RFC 5621).

use bytes::Bytes;

use crate::sip::header::content_type::ContentType;
use crate::sip::headers::{HeaderName, Headers};
use crate::sip::message::StatusCode;

/// Why a body holds nothing we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The type is one we do not read; answer 415 with `Accept: application/sdp`.
    #[error("a body of a type we do not read")]
    MediaType,
    /// The body is compressed; answer 415 with an empty `Accept-Encoding`.
    #[error("a body with an encoding")]
    Encoding,
    /// Content-Type is missing or broken.
    #[error("a body without a readable Content-Type")]
    NoType,
}

impl BodyError {
    /// The status to answer with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MediaType | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoType => StatusCode::BAD_REQUEST,
        }
    }
}

/// The session description of a message: `None` without a body, or when the body may be ignored
/// (`Content-Disposition: ...;handling=optional`).
///
/// # Errors
/// When there is a body that must be understood and is not.
pub fn session_description(headers: &Headers, body: &Bytes) -> Result<Option<Bytes>, BodyError> {
    if body.is_empty() {
        return Ok(None);
    }
    let found = find(headers, body);
    match found {
        Err(_) if is_optional(headers.get(HeaderName::ContentDisposition)) => Ok(None),
        other => other,
    }
}

fn find(headers: &Headers, body: &Bytes) -> Result<Option<Bytes>, BodyError> {
    let encoded = headers.values(HeaderName::ContentEncoding).any(|e| !e.eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Err(BodyError::Encoding);
    }
    let kind = match headers.content_type() {
        Ok(Some(kind)) => kind,
        Ok(None) | Err(_) => return Err(BodyError::NoType),
    };
    match kind.is_multipart() {
        true => first_sdp_part(&kind, body, MAX_NESTING).ok_or(BodyError::MediaType).map(Some),
        false if kind.is_sdp() => Ok(Some(body.clone())),
        false => Err(BodyError::MediaType),
    }
}

/// The first part that is SDP; multiparts within are looked into `depth` levels deep.
fn first_sdp_part(kind: &ContentType, body: &Bytes, depth: usize) -> Option<Bytes> {
    let boundary = kind.params.get_text("boundary").filter(|b| !b.is_empty() && b.len() <= 70)?;
    let mut level = vec![(boundary, body.clone())];
    for _ in 0..depth {
        let mut deeper = Vec::new();
        for (boundary, body) in level {
            for part in parts(&body, boundary.as_bytes()) {
                let (kind, content) = read_part(&part)?;
                if kind.is_sdp() {
                    return Some(content);
                }
                if kind.is_multipart() {
                    deeper.extend(kind.params.get_text("boundary").map(|boundary| (boundary, content)));
                }
            }
        }
        level = deeper;
    }
    None
}

/// What stands between the delimiter lines, at most 16 parts.
fn parts(body: &Bytes, boundary: &[u8]) -> Vec<Bytes> {
    let mut starts: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    for line in body.split_inclusive(|b| *b == b'\n') {
        if let Some(rest) = line.strip_prefix(b"--").and_then(|l| l.strip_prefix(boundary)) {
            starts.push((at, at + line.len()));
            if rest.starts_with(b"--") || starts.len() > MAX_PARTS {
                break;
            }
        }
        at += line.len();
    }
    starts.windows(2).map(|pair| body.slice(pair[0].1..pair[1].0)).collect()
}

/// A part's type and content. A part without Content-Type is text (RFC 2046 section 5.1).
fn read_part(part: &Bytes) -> Option<(ContentType, Bytes)> {
    let mut kind = ContentType::parse(b"text/plain").ok()?;
    let mut at = 0;
    for line in part.split_inclusive(|b| *b == b'\n') {
        at += line.len();
        let line = line.trim_ascii_end();
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let name = line[..colon].trim_ascii();
        if HeaderName::lookup(name) == Some(HeaderName::ContentType) {
            kind = ContentType::parse(line[colon + 1..].trim_ascii()).unwrap_or(kind);
        }
    }
    Some((kind, part.slice(at..)))
}

fn is_optional(disposition: Option<&[u8]>) -> bool {
    let text = disposition.map(|d| String::from_utf8_lossy(d).to_ascii_lowercase().replace(' ', ""));
    text.is_some_and(|text| text.contains(";handling=optional"))
}

const MAX_NESTING: usize = 2;
const MAX_PARTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::HeaderValue;

    fn check(kind: &'static str, body: &str) -> Result<Option<String>, BodyError> {
        let mut headers = Headers::new();
        headers.push(HeaderName::ContentType, HeaderValue::from_static(kind));
        let found = session_description(&headers, &Bytes::copy_from_slice(body.as_bytes()))?;
        Ok(found.map(|sdp| String::from_utf8_lossy(&sdp).into_owned()))
    }

    #[test]
    fn sdp_is_found_alone_and_among_parts() {
        assert_eq!(check("Application/SDP ;charset=utf-8", "v=0"), Ok(Some("v=0".into())));
        let body = "ignored\r\n--b\r\nContent-Type: application/isup\r\n\r\n\u{1}\r\n--b\r\nc: application/sdp\r\n\r\nv=0\r\n\r\n--b--\r\n";
        assert_eq!(check("multipart/mixed;boundary=b", body), Ok(Some("v=0\r\n\r\n".into())));
        let nested =
            format!("--a\r\nContent-Type: multipart/alternative;boundary=\"b\"\r\n\r\n{body}--a--\r\n");
        assert_eq!(check("multipart/mixed;boundary=a", &nested), Ok(Some("v=0\r\n\r\n".into())));
    }

    #[test]
    fn what_cannot_be_read_is_refused_unless_it_is_optional() {
        assert_eq!(check("application/unknownformat", "x"), Err(BodyError::MediaType));
        assert_eq!(check("nonsense", "x"), Err(BodyError::NoType));
        let mut headers = Headers::new();
        headers.push(HeaderName::ContentType, HeaderValue::from_static("text/plain"));
        let disposition = HeaderValue::from_static("render; handling = optional");
        headers.push(HeaderName::ContentDisposition, disposition);
        assert_eq!(session_description(&headers, &Bytes::from_static(b"x")), Ok(None));
        headers.push(HeaderName::ContentEncoding, HeaderValue::from_static("gzip"));
        headers.remove(HeaderName::ContentDisposition);
        let refused = session_description(&headers, &Bytes::from_static(b"x"));
        assert_eq!(refused, Err(BodyError::Encoding));
    }
}
