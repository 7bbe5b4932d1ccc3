//! Requests of ours outside of any dialog: REGISTER, OPTIONS and their like, with answers to challenges (RFC 3261
//! sections 8.1, 10.2, 22).

use std::net::SocketAddr;
use std::time::Instant;

use super::command::OutRequest;
use super::event::{Answer, UaEvent};
use super::incoming::push_checked;
use super::outgoing::renumber;
use super::reply::{accept, supported};
use super::{Purpose, UserAgent};
use crate::sip::digest::{Challenged, DigestClient};
use crate::sip::header::cseq::CSeq;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::headers::{HeaderName, HeaderValue};
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::transport::Target;

/// A request on its way, kept to be sent again with credentials.
#[derive(Debug)]
pub(super) struct Asked {
    id: u64,
    request: Request,
    target: Target,
    digest: Option<DigestClient>,
    met: Challenged,
    sent: Instant,
}

impl UserAgent {
    pub(super) fn send_out_request(&mut self, now: Instant, id: u64, wanted: OutRequest) {
        let target = wanted.target;
        let digest = wanted.credentials.clone().map(DigestClient::new);
        let request = self.out_request(wanted);
        self.ask(now, Asked { id, request, target, digest, met: Challenged::default(), sent: now });
    }

    fn out_request(&mut self, wanted: OutRequest) -> Request {
        let mut request = Request::new(wanted.method.clone(), wanted.uri.to_request_uri());
        let (from_tag, fresh) = (self.tag(), self.tag());
        let call_id = wanted.call_id.unwrap_or(fresh);
        let headers = &mut request.headers;
        for route in wanted.route {
            headers.push(HeaderName::Route, NameAddr::new(route));
        }
        headers.push(HeaderName::MaxForwards, 70);
        headers.push(HeaderName::From, NameAddr::new(wanted.from).with_tag(&from_tag));
        headers.push(HeaderName::To, NameAddr::new(wanted.to));
        headers.push(HeaderName::CallId, HeaderValue::cleaned(call_id));
        headers.push(HeaderName::CSeq, CSeq::new(wanted.cseq.unwrap_or(1), wanted.method.clone()));
        if let Some(spec) = &wanted.contact {
            headers.push(HeaderName::Contact, self.contact_with(&wanted.target, spec));
        }
        if wanted.method == Method::Options {
            headers.push(HeaderName::Accept, accept());
            headers.push(HeaderName::Supported, supported());
        }
        for (name, value) in &wanted.headers {
            push_checked(headers, name, value);
        }
        request
    }

    fn ask(&mut self, now: Instant, asked: Asked) {
        let (request, target) = (asked.request.clone(), asked.target);
        self.send_request(now, request, target, Purpose::Request(Box::new(asked)));
    }

    pub(super) fn request_answered(&mut self, now: Instant, mut asked: Asked, response: Response) {
        if matches!(response.status.get(), 401 | 407) && self.answers_challenge(&mut asked, &response) {
            asked.sent = now;
            return self.ask(now, asked);
        }
        self.tell_answer(now, &asked, response.status, Some(response));
    }

    pub(super) fn request_unanswered(&mut self, now: Instant, asked: Asked, status: StatusCode) {
        self.tell_answer(now, &asked, status, None);
    }

    fn answers_challenge(&mut self, asked: &mut Asked, response: &Response) -> bool {
        let Some(digest) = &mut asked.digest else { return false };
        renumber(&mut asked.request);
        self.authorize(&mut asked.request, response, digest, &mut asked.met)
    }

    fn tell_answer(&mut self, now: Instant, asked: &Asked, status: StatusCode, response: Option<Response>) {
        // The response names the try it belongs to; `renumber` may have gone on without sending.
        let numbered = response.as_ref().map_or(&asked.request.headers, |response| &response.headers);
        let answer = Answer {
            status,
            cseq: numbered.cseq().map(|cseq| cseq.number).unwrap_or_default(),
            round_trip: now.saturating_duration_since(asked.sent),
            local: SocketAddr::new(self.advertised(&asked.target), self.advertised_port(&asked.target)),
            response,
        };
        self.tell(UaEvent::Answer { id: asked.id, answer: Box::new(answer) });
    }
}
