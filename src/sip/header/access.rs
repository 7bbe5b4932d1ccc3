//! Typed access to the headers of a message.

use super::content_type::ContentType;
use super::cseq::CSeq;
use super::name_addr::NameAddr;
use super::reason::Reason;
use super::via::Via;
use super::{Malformed, clamped_number, token, trim};
use crate::sip::headers::{HeaderError, HeaderName, Headers};

impl Headers {
    /// The topmost Via.
    ///
    /// # Errors
    /// When there is none, or it is broken.
    pub fn via_top(&self) -> Result<Via, HeaderError> {
        self.first(HeaderName::Via, Via::parse)
    }

    /// Every Via, topmost first.
    ///
    /// # Errors
    /// When one is broken.
    pub fn vias(&self) -> Result<Vec<Via>, HeaderError> {
        self.all(HeaderName::Via, Via::parse)
    }

    /// How many Via values there are.
    pub fn via_count(&self) -> usize {
        self.values(HeaderName::Via).count()
    }

    /// The From.
    ///
    /// # Errors
    /// When there is none, or it is broken.
    pub fn from(&self) -> Result<NameAddr, HeaderError> {
        self.first(HeaderName::From, NameAddr::parse)
    }

    /// The To.
    ///
    /// # Errors
    /// When there is none, or it is broken.
    pub fn to(&self) -> Result<NameAddr, HeaderError> {
        self.first(HeaderName::To, NameAddr::parse)
    }

    /// The Call-ID.
    ///
    /// # Errors
    /// When there is none, or it is empty, or holds something other than visible ASCII.
    pub fn call_id(&self) -> Result<&str, HeaderError> {
        let value = self.get(HeaderName::CallId).ok_or(HeaderError::Missing(HeaderName::CallId))?;
        read_call_id(value).map_err(|e| HeaderError::Invalid(HeaderName::CallId, e))
    }

    /// The CSeq.
    ///
    /// # Errors
    /// When there is none, or it is broken.
    pub fn cseq(&self) -> Result<CSeq, HeaderError> {
        self.first(HeaderName::CSeq, CSeq::parse)
    }

    /// The first Contact.
    ///
    /// # Errors
    /// When there is none, or it is broken or `*`.
    pub fn contact(&self) -> Result<NameAddr, HeaderError> {
        self.first(HeaderName::Contact, NameAddr::parse)
    }

    /// Every Contact.
    ///
    /// # Errors
    /// When one is broken or `*`.
    pub fn contacts(&self) -> Result<Vec<NameAddr>, HeaderError> {
        self.all(HeaderName::Contact, NameAddr::parse)
    }

    /// The Record-Route set, topmost first.
    ///
    /// # Errors
    /// When one is broken.
    pub fn record_routes(&self) -> Result<Vec<NameAddr>, HeaderError> {
        self.all(HeaderName::RecordRoute, NameAddr::parse)
    }

    /// The Route set, topmost first.
    ///
    /// # Errors
    /// When one is broken.
    pub fn routes(&self) -> Result<Vec<NameAddr>, HeaderError> {
        self.all(HeaderName::Route, NameAddr::parse)
    }

    /// Addresses of another header that holds them (`P-Asserted-Identity`, `Diversion`, `Refer-To`).
    ///
    /// # Errors
    /// When one is broken.
    pub fn addresses(&self, name: HeaderName) -> Result<Vec<NameAddr>, HeaderError> {
        self.all(name, NameAddr::parse)
    }

    /// Max-Forwards; `None` when absent, or over 255, which is no reason to refuse a message.
    ///
    /// # Errors
    /// When it is no number.
    pub fn max_forwards(&self) -> Result<Option<u8>, HeaderError> {
        Ok(self.number(HeaderName::MaxForwards)?.and_then(|hops| u8::try_from(hops).ok()))
    }

    /// Expires in seconds, clamped to 2^32-1.
    ///
    /// # Errors
    /// When it is no number.
    pub fn expires(&self) -> Result<Option<u32>, HeaderError> {
        self.number(HeaderName::Expires)
    }

    /// Retry-After in seconds, clamped to 2^32-1; its comment and parameters are left out.
    ///
    /// # Errors
    /// When it does not start with a number.
    pub fn retry_after(&self) -> Result<Option<u32>, HeaderError> {
        self.number(HeaderName::RetryAfter)
    }

    /// A header that starts with a number, clamped to 2^32-1.
    ///
    /// # Errors
    /// When it does not.
    pub fn number(&self, name: HeaderName) -> Result<Option<u32>, HeaderError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let value = trim(value);
        let end = value.iter().position(|b| matches!(b, b' ' | b'\t' | b';' | b'(')).unwrap_or(value.len());
        clamped_number(&value[..end]).map(Some).map_err(|e| HeaderError::Invalid(name, e))
    }

    /// The tokens of a list header (Require, Supported, Allow, ...), in order; empty elements left out.
    ///
    /// # Errors
    /// When an element is no token.
    pub fn tokens(&self, name: HeaderName) -> Result<Vec<&str>, HeaderError> {
        let not_a_token = HeaderError::Invalid(name, Malformed("not a token"));
        self.values(name).filter(|v| !v.is_empty()).map(|v| token(v).ok_or(not_a_token)).collect()
    }

    /// The option tags the peer insists on.
    ///
    /// # Errors
    /// When one is no token.
    pub fn require(&self) -> Result<Vec<&str>, HeaderError> {
        self.tokens(HeaderName::Require)
    }

    /// The option tags the peer knows.
    ///
    /// # Errors
    /// When one is no token.
    pub fn supported(&self) -> Result<Vec<&str>, HeaderError> {
        self.tokens(HeaderName::Supported)
    }

    /// The methods the peer takes.
    ///
    /// # Errors
    /// When one is no token.
    pub fn allow(&self) -> Result<Vec<&str>, HeaderError> {
        self.tokens(HeaderName::Allow)
    }

    /// Every reason that can be read; broken ones are left out, they only inform.
    pub fn reasons(&self) -> Vec<Reason> {
        self.values(HeaderName::Reason).filter_map(|value| Reason::parse(value).ok()).collect()
    }

    /// The type of the body.
    ///
    /// # Errors
    /// When it is broken.
    pub fn content_type(&self) -> Result<Option<ContentType>, HeaderError> {
        match self.first(HeaderName::ContentType, ContentType::parse) {
            Err(HeaderError::Missing(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    fn first<T>(
        &self,
        name: HeaderName,
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<T, HeaderError> {
        let value = self.values(name).next().ok_or(HeaderError::Missing(name))?;
        parse(value).map_err(|e| HeaderError::Invalid(name, e))
    }

    fn all<T>(
        &self,
        name: HeaderName,
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, HeaderError> {
        self.values(name).map(|value| parse(value).map_err(|e| HeaderError::Invalid(name, e))).collect()
    }
}

/// A Call-ID: visible ASCII without white space.
pub(crate) fn read_call_id(value: &[u8]) -> Result<&str, Malformed> {
    let visible = !value.is_empty() && value.iter().all(u8::is_ascii_graphic);
    let text = if visible { std::str::from_utf8(value).ok() } else { None };
    text.ok_or(Malformed("empty, or not visible ASCII"))
}
