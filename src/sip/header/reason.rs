//! `Reason: Q.850;cause=16;text="Normal call clearing"`: why a call ends (RFC 3326).

use super::params::Params;
use super::{Malformed, assembled, quote, token, trim};
use crate::sip::headers::HeaderValue;

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reason {
    /// `SIP`, `Q.850`, or another protocol.
    pub protocol: String,
    /// The cause: a status code for `SIP`, an ITU-T Q.850 cause for `Q.850`.
    pub cause: Option<u16>,
    /// What a person may read.
    pub text: Option<String>,
}

impl Reason {
    /// An ITU-T Q.850 cause.
    pub fn q850(cause: u16, text: &str) -> Self {
        Self { protocol: "Q.850".into(), cause: Some(cause), text: Some(text.into()) }
    }

    /// A SIP status.
    pub fn sip(status: u16, text: &str) -> Self {
        Self { protocol: "SIP".into(), cause: Some(status), text: Some(text.into()) }
    }

    /// Reads one value.
    ///
    /// # Errors
    /// When the protocol is no token or the parameters are broken.
    pub fn parse(value: &[u8]) -> Result<Self, Malformed> {
        let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
        let protocol = token(trim(&value[..end])).ok_or(Malformed("a protocol that is no token"))?;
        let params = Params::parse(&value[end..])?;
        Ok(Self {
            protocol: protocol.to_owned(),
            cause: params.get_text("cause").and_then(|cause| cause.parse().ok()),
            text: params.get_text("text"),
        })
    }
}

impl From<&Reason> for HeaderValue {
    fn from(reason: &Reason) -> Self {
        let protocol = token(reason.protocol.as_bytes()).unwrap_or("SIP");
        let mut out = protocol.as_bytes().to_vec();
        if let Some(cause) = reason.cause {
            out.extend_from_slice(format!(";cause={cause}").as_bytes());
        }
        if let Some(text) = &reason.text {
            out.extend_from_slice(b";text=");
            out.extend_from_slice(&quote(text));
        }
        assembled(out)
    }
}

impl From<Reason> for HeaderValue {
    fn from(reason: Reason) -> Self {
        Self::from(&reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_and_written() {
        let text = b"Q.850 ;cause=16 ;text=\"Normal call clearing\"";
        let reason = Reason::parse(text).unwrap();
        assert_eq!(reason, Reason::q850(16, "Normal call clearing"));
        let value = HeaderValue::from(&Reason::sip(200, "Call \"completed\"\r\nelsewhere"));
        assert_eq!(value.to_text(), "SIP;cause=200;text=\"Call \\\"completed\\\"  elsewhere\"");
        assert_eq!(Reason::parse(b"SIP;cause=abc").unwrap().cause, None);
    }
}
