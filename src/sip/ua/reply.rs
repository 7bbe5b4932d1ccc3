//! Responses as this user agent writes them.

use std::time::Instant;

use rand::RngExt;

use super::UserAgent;
use super::command::ContactSpec;
use crate::sip::headers::{HeaderName, HeaderValue};
use crate::sip::message::{Method, Request, Response, StatusCode, Transport};
use crate::sip::transaction::TxId;
use crate::sip::transport::Target;
use crate::sip::uri::{Host, escape_user};

impl UserAgent {
    /// Answers a transaction with a bare status.
    pub(super) fn reply(&mut self, now: Instant, tx: TxId, request: &Request, status: StatusCode) {
        self.reply_with(now, tx, request, status, &[]);
    }

    /// Answers a transaction with a status and a few headers.
    pub(super) fn reply_with(
        &mut self,
        now: Instant,
        tx: TxId,
        request: &Request,
        status: StatusCode,
        headers: &[(HeaderName, HeaderValue)],
    ) {
        let tag = self.tag();
        let mut response = self.response_to(request, status, &tag);
        for (name, value) in headers {
            response.headers.push(*name, value.clone());
        }
        self.table.respond(now, tx, &response);
    }

    /// A response with what RFC 3261 section 8.2.6 asks for, and our name.
    pub(super) fn response_to(&self, request: &Request, status: StatusCode, to_tag: &str) -> Response {
        let mut response = Response::to_request(request, status, Some(to_tag));
        if !self.config.user_agent.is_empty() {
            response.headers.push(HeaderName::Server, HeaderValue::cleaned(&self.config.user_agent));
        }
        response
    }

    /// A response that makes or keeps a dialog: Record-Route as it came, our Contact, what we can.
    pub(super) fn dialog_response(
        &self,
        request: &Request,
        status: StatusCode,
        to_tag: &str,
        target: &Target,
    ) -> Response {
        let mut response = self.response_to(request, status, to_tag);
        response.headers.copy_from(&request.headers, HeaderName::RecordRoute);
        response.headers.push(HeaderName::Contact, self.contact(target));
        response.headers.push(HeaderName::Allow, allow());
        response.headers.push(HeaderName::Supported, supported());
        response
    }

    /// Our address as this peer is to use it.
    pub(super) fn contact(&self, target: &Target) -> HeaderValue {
        self.contact_with(target, &ContactSpec::default())
    }

    /// The same with a user and header parameters.
    pub(super) fn contact_with(&self, target: &Target, spec: &ContactSpec) -> HeaderValue {
        let (host, port) = (Host::Ip(self.advertised(target)), self.advertised_port(target));
        let transport = match target.transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
            Transport::Ws => ";transport=ws",
            Transport::Wss => ";transport=wss",
        };
        let user = match spec.user.as_str() {
            "" => String::new(),
            user => format!("{}@", escape_user(user)),
        };
        HeaderValue::cleaned(format!("<sip:{user}{host}:{port}{transport}>{}", spec.params))
    }

    /// 96 unpredictable bits, as a tag or the unique part of a branch or Call-ID.
    pub(super) fn tag(&mut self) -> String {
        let bits: u128 = self.rng.random();
        format!("{:024x}", bits >> 32)
    }

    /// A Retry-After for a collision: 0 to 10 s (RFC 3261 section 14.2).
    pub(super) fn short_wait(&mut self) -> HeaderValue {
        HeaderValue::from(self.rng.random_range(0..=10_u32))
    }

    /// The Retry-After of a 503.
    pub(super) fn retry_after(&self) -> HeaderValue {
        HeaderValue::from(u32::try_from(self.config.retry_after.as_secs()).unwrap_or(u32::MAX))
    }
}

/// Methods we take.
pub(super) fn allow() -> HeaderValue {
    HeaderValue::from_static("INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, REFER, NOTIFY")
}

/// Extensions we know, as they stand in Require.
pub(super) const OPTIONS: [&str; 4] = ["timer", "100rel", "replaces", "norefersub"];

/// Extensions we know.
pub(super) fn supported() -> HeaderValue {
    HeaderValue::from_static("timer, 100rel, replaces, norefersub")
}

/// Extensions we know as the caller; reliable provisional responses only where they are wanted.
pub(super) fn supported_by_caller(reliable: bool) -> HeaderValue {
    if reliable { supported() } else { HeaderValue::from_static("timer, replaces, norefersub") }
}

/// Bodies we take.
pub(super) fn accept() -> HeaderValue {
    HeaderValue::from_static("application/sdp, application/dtmf-relay, application/dtmf")
}

/// Whether the peer's headers list a method it takes.
pub(super) fn takes(headers: &crate::sip::Headers, method: &Method) -> bool {
    headers.allow().is_ok_and(|allow| allow.iter().any(|m| *m == method.as_str()))
}

/// Whether the peer knows or insists on an option.
pub(super) fn knows_option(headers: &crate::sip::Headers, option: &str) -> bool {
    requires(headers, option)
        || headers.supported().is_ok_and(|tags| tags.iter().any(|tag| tag.eq_ignore_ascii_case(option)))
}

/// Whether the peer insists on an option.
pub(super) fn requires(headers: &crate::sip::Headers, option: &str) -> bool {
    headers.require().is_ok_and(|tags| tags.iter().any(|tag| tag.eq_ignore_ascii_case(option)))
}
