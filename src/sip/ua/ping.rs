//! OPTIONS, both ways, and what becomes of responses (RFC 3261 sections 8.1.3, 11).

use std::time::Instant;

use super::event::{Pong, UaEvent};
use super::outgoing::{Farewell, renumber};
use super::reply::{accept, allow, supported};
use super::{Purpose, UserAgent};
use crate::sip::header::cseq::CSeq;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::headers::{HeaderName, HeaderValue};
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::transaction::{TxId, tag_in};
use crate::sip::transport::Target;
use crate::sip::uri::Uri;

impl UserAgent {
    /// Says what we can. While draining 503 tells the peer to call elsewhere.
    pub(super) fn options_arrived(&mut self, now: Instant, tx: TxId, request: &Request) {
        if !self.config.answer_options {
            let headers = [(HeaderName::Allow, allow())];
            return self.reply_with(now, tx, request, StatusCode::METHOD_NOT_ALLOWED, &headers);
        }
        let in_dialog = tag_in(&request.headers, HeaderName::To).is_some();
        if self.draining && !in_dialog {
            let headers = [(HeaderName::RetryAfter, self.retry_after())];
            return self.reply_with(now, tx, request, StatusCode::SERVICE_UNAVAILABLE, &headers);
        }
        let headers = [
            (HeaderName::Allow, allow()),
            (HeaderName::Accept, accept()),
            (HeaderName::AcceptEncoding, HeaderValue::from_static("identity")),
            (HeaderName::Supported, supported()),
        ];
        self.reply_with(now, tx, request, StatusCode::OK, &headers);
    }

    pub(super) fn send_ping(&mut self, now: Instant, id: u64, target: Target) {
        let host = |ip: std::net::IpAddr, port| Uri::sip("", &ip.to_string(), Some(port)).ok();
        let to = host(target.remote.ip(), target.remote.port());
        let from = host(self.advertised(&target), target.local.port());
        let (Some(to), Some(from)) = (to, from) else { return };
        let mut request = Request::new(Method::Options, to.clone());
        let (from_tag, call_id) = (self.tag(), self.tag());
        let contact = self.contact(&target);
        let headers = &mut request.headers;
        headers.push(HeaderName::MaxForwards, 70);
        headers.push(HeaderName::From, NameAddr::new(from).with_tag(&from_tag));
        headers.push(HeaderName::To, NameAddr::new(to));
        headers.push(HeaderName::CallId, HeaderValue::cleaned(call_id));
        headers.push(HeaderName::CSeq, CSeq::new(1, Method::Options));
        headers.push(HeaderName::Contact, contact);
        headers.push(HeaderName::Accept, accept());
        self.send_request(now, request, target, Purpose::Ping { id, sent: now });
    }

    /// A response of one of our requests. An INVITE keeps its purpose as long as its 2xx may come again; every other
    /// request is done with its final response.
    pub(super) fn response(&mut self, now: Instant, tx: TxId, response: Response) {
        match self.purposes.get(&tx) {
            Some(Purpose::Invite(id)) => return self.invite_response(now, tx, *id, response),
            Some(Purpose::Reinvite(id)) => return self.reinvite_response(now, tx, *id, &response),
            Some(_) if response.status.is_final() => {}
            Some(_) | None => return,
        }
        match self.purposes.remove(&tx) {
            Some(Purpose::Said(said)) => self.said_answered(now, tx, *said, &response),
            Some(Purpose::Ping { id, sent }) => self.pong(now, id, sent, Some(response.status)),
            Some(Purpose::Request(asked)) => self.request_answered(now, *asked, response),
            Some(Purpose::Bye(farewell)) if matches!(response.status.get(), 401 | 407) => {
                self.bye_challenged(now, *farewell, &response);
            }
            Some(Purpose::Bye(_) | Purpose::Cancel) => {}
            Some(Purpose::Invite(_) | Purpose::Reinvite(_)) | None => {}
        }
    }

    /// No response at all: 408 or 503 in its place (section 8.1.3.1).
    pub(super) fn no_response(&mut self, now: Instant, tx: TxId, status: StatusCode) {
        let Some(purpose) = self.purposes.remove(&tx) else { return };
        match purpose {
            Purpose::Invite(id) => self.invite_unanswered(now, id, status),
            Purpose::Reinvite(id) => {
                self.reinvite_response(now, tx, id, &Response::new(StatusCode::REQUEST_TIMEOUT))
            }
            Purpose::Said(said) => self.said_unanswered(now, tx, *said, StatusCode::REQUEST_TIMEOUT),
            Purpose::Ping { id, sent } => self.pong(now, id, sent, None),
            Purpose::Request(asked) => self.request_unanswered(now, *asked, status),
            Purpose::Bye(_) | Purpose::Cancel => {}
        }
    }

    fn pong(&mut self, now: Instant, id: u64, sent: Instant, status: Option<StatusCode>) {
        let round_trip = now.saturating_duration_since(sent);
        self.tell(UaEvent::Pong(Pong { id, status, round_trip }));
    }

    /// A BYE with credentials; when they are refused the peer may keep its dialog.
    fn bye_challenged(&mut self, now: Instant, farewell: Farewell, response: &Response) {
        let Farewell { mut request, target, digest, mut met } = farewell;
        let Some(mut digest) = digest else { return };
        renumber(&mut request);
        if self.authorize(&mut request, response, &mut digest, &mut met) {
            let again = Farewell { request: request.clone(), target, digest: Some(digest), met };
            self.send_request(now, request, target, Purpose::Bye(Box::new(again)));
        }
    }
}
