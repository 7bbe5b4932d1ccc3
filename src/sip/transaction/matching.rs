//! Which transaction a message belongs to: RFC 3261 sections 17.1.3 and 17.2.3.

use crate::sip::header::name_addr;
use crate::sip::header::via::Via;
use crate::sip::headers::{HeaderError, HeaderName, Headers};
use crate::sip::message::{Method, Request, Response};

/// A client transaction: the branch we made, and the method.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientKey {
    branch: String,
    method: Method,
}

impl ClientKey {
    /// Of a request we send.
    pub fn new(branch: &str, method: Method) -> Self {
        Self { branch: branch.to_owned(), method }
    }

    /// The branch.
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// Of a response; `None` when it cannot be ours (section 8.1.3.3: exactly one Via).
    pub fn of_response(response: &Response) -> Option<Self> {
        if response.headers.via_count() != 1 {
            return None;
        }
        let via = response.headers.via_top().ok()?;
        let cseq = response.headers.cseq().ok()?;
        Some(Self { branch: via.branch()?.to_owned(), method: cseq.method })
    }
}

/// A server transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerKey {
    /// The peer makes unique branches.
    Rfc3261 {
        /// Branch with its cookie.
        branch: String,
        /// Host and port of the topmost Via.
        sent_by: String,
        /// ACK counts as INVITE.
        method: Method,
    },
    /// The peer's branch is missing or a bare cookie: the old rules, as one text. The To tag is left out; peers
    /// that old do not change it within one INVITE.
    Rfc2543 {
        /// Request-URI, From tag, Call-ID, CSeq number and topmost Via.
        identity: String,
        /// ACK counts as INVITE.
        method: Method,
    },
}

impl ServerKey {
    /// Of a request; an ACK gets the key of its INVITE.
    ///
    /// # Errors
    /// When a header that identifies it is missing or broken.
    pub fn of_request(request: &Request, via: &Via) -> Result<Self, HeaderError> {
        let method = match request.method {
            Method::Ack => Method::Invite,
            ref method => method.clone(),
        };
        Self::with_method(request, via, method)
    }

    /// Of the INVITE that this CANCEL means (section 9.2).
    ///
    /// # Errors
    /// When a header that identifies it is missing or broken.
    pub fn of_cancelled(cancel: &Request, via: &Via) -> Result<Self, HeaderError> {
        Self::with_method(cancel, via, Method::Invite)
    }

    fn with_method(request: &Request, via: &Via, method: Method) -> Result<Self, HeaderError> {
        let headers = &request.headers;
        if let Some(branch) = via.branch().filter(|b| is_unique_branch(b)) {
            return Ok(Self::Rfc3261 { branch: branch.to_owned(), sent_by: via.sent_by(), method });
        }
        let identity = [
            request.uri.as_str(),
            tag_in(headers, HeaderName::From).unwrap_or_default(),
            headers.call_id()?,
            &headers.cseq()?.number.to_string(),
            &via.sent_by(),
            via.branch().unwrap_or_default(),
        ]
        .join(" ");
        Ok(Self::Rfc2543 { identity, method })
    }
}

/// What two copies of one request have in common that came by different ways (section 8.2.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MergeKey(String);

impl MergeKey {
    /// Of a request without To tag; others cannot be merged.
    pub fn of_request(request: &Request) -> Option<Self> {
        let headers = &request.headers;
        if request.method == Method::Ack || tag_in(headers, HeaderName::To).is_some() {
            return None;
        }
        let cseq = headers.get(HeaderName::CSeq)?;
        let tag = tag_in(headers, HeaderName::From).unwrap_or_default();
        Some(Self(format!("{tag} {} {}", headers.call_id().ok()?, String::from_utf8_lossy(cseq))))
    }
}

/// The tag of From or To, read without taking the header apart; `None` when absent, empty or unreadable.
pub(crate) fn tag_in(headers: &Headers, name: HeaderName) -> Option<&str> {
    let tag = name_addr::tag_of(headers.get(name)?)?;
    std::str::from_utf8(tag).ok().filter(|tag| !tag.is_empty())
}

/// The cookie, and something after it (a bare cookie names no transaction).
fn is_unique_branch(branch: &str) -> bool {
    let (cookie, rest) = branch.split_at_checked(COOKIE.len()).unwrap_or((branch, ""));
    cookie.eq_ignore_ascii_case(COOKIE) && !rest.is_empty()
}

/// Marks branches that are unique (section 8.1.1.7).
pub(crate) const COOKIE: &str = "z9hG4bK";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Message;
    use crate::sip::{Limits, parse_datagram};

    fn request(method: &str, via: &str, to: &str) -> Request {
        let text = format!(
            "{method} sip:a@b SIP/2.0\r\nVia: {via}\r\nFrom: <sip:c@d>;tag=1\r\nTo: <sip:a@b>{to}\r\n\
             Call-ID: x@y\r\nCSeq: 7 {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        match parse_datagram(text.as_bytes(), &Limits::default()) {
            Ok(Message::Request(request)) => request,
            other => panic!("not a request: {other:?}"),
        }
    }

    fn key(method: &str, via: &str) -> ServerKey {
        let request = request(method, via, "");
        let via = request.headers.via_top().expect("a Via");
        ServerKey::of_request(&request, &via).expect("a key")
    }

    const VIA: &str = "SIP/2.0/UDP h:5060;branch=z9hG4bKx";

    #[test]
    fn an_ack_has_the_key_of_its_invite_and_a_bye_has_not() {
        assert_eq!(key("INVITE", VIA), key("ACK", VIA));
        assert_ne!(key("INVITE", VIA), key("BYE", VIA));
    }

    #[test]
    fn the_same_branch_from_another_sender_is_another_transaction() {
        assert_ne!(key("INVITE", VIA), key("INVITE", "SIP/2.0/UDP i:5060;branch=z9hG4bKx"));
    }

    #[test]
    fn a_missing_or_bare_cookie_falls_back_to_the_old_rules() {
        for via in ["SIP/2.0/UDP h:5060", "SIP/2.0/UDP h:5060;branch=z9hG4bK", "SIP/2.0/UDP h;branch=1"] {
            assert!(matches!(key("INVITE", via), ServerKey::Rfc2543 { .. }), "{via}");
            assert_eq!(key("INVITE", via), key("ACK", via));
        }
    }

    #[test]
    fn copies_by_two_ways_share_their_merge_key() {
        let one = MergeKey::of_request(&request("INVITE", VIA, ""));
        let two = MergeKey::of_request(&request("INVITE", "SIP/2.0/UDP j;branch=z9hG4bKother", ""));
        assert!(one.is_some() && one == two);
        assert_eq!(MergeKey::of_request(&request("INVITE", VIA, ";tag=2")), None);
    }
}
