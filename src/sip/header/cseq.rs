//! `CSeq: 4711 INVITE`.

use super::{Malformed, assembled, trim};
use crate::sip::headers::HeaderValue;
use crate::sip::message::Method;

/// The sequence number of a request in its dialog, and its method.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CSeq {
    /// 0 to 2^31-1.
    pub number: u32,
    /// The method of the request.
    pub method: Method,
}

impl CSeq {
    /// A sequence number and its method.
    pub fn new(number: u32, method: Method) -> Self {
        Self { number, method }
    }

    /// Reads a value.
    ///
    /// # Errors
    /// When the number is none or over 2^31-1, or the method no token.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let (number, method) = split(text)?;
        let method = Method::parse(method).map_err(|_| Malformed("a method that is no token"))?;
        Ok(Self { number, method })
    }
}

impl From<&CSeq> for HeaderValue {
    fn from(cseq: &CSeq) -> Self {
        assembled(format!("{} {}", cseq.number, cseq.method).into_bytes())
    }
}

impl From<CSeq> for HeaderValue {
    fn from(cseq: CSeq) -> Self {
        Self::from(&cseq)
    }
}

/// Number and method of a value, without allocating.
pub(crate) fn split(text: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let text = trim(text);
    let end = text.iter().position(|b| !b.is_ascii_digit()).ok_or(Malformed("no method"))?;
    let too_big = Malformed("a sequence number over 2^31-1");
    let mut number: u32 = 0;
    for digit in &text[..end] {
        let next = number.checked_mul(10).and_then(|n| n.checked_add(u32::from(digit - b'0')));
        number = next.filter(|n| *n < 1 << 31).ok_or(too_big)?;
    }
    match (end, text[end]) {
        (1.., b' ' | b'\t') => Ok((number, trim(&text[end..]))),
        _ => Err(Malformed("no sequence number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_up_to_two_to_the_31_less_one() {
        assert_eq!(CSeq::parse(b"0009\t INVITE"), Ok(CSeq::new(9, Method::Invite)));
        assert_eq!(CSeq::parse(b"2147483647 ACK").map(|c| c.number), Ok(i32::MAX as u32));
        for text in
            ["2147483648 ACK", "36893488147419103232 REGISTER", "-1 ACK", "1", "1ACK", "", "x ACK", "1 A B"]
        {
            assert!(CSeq::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
