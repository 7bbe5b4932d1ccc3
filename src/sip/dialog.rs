//! A dialog: what both ends remember between requests of one call (RFC 3261 section 12).

use super::header::cseq::CSeq;
use super::header::name_addr::NameAddr;
use super::headers::{HeaderError, HeaderName, HeaderValue, Headers};
use super::message::{Method, Request, Response};
use super::uri::Uri;

/// One end's view of a dialog.
#[derive(Debug, Clone)]
pub struct Dialog {
    call_id: String,
    local_tag: String,
    /// Empty for a peer that knows no tags (RFC 2543).
    remote_tag: String,
    /// From of our requests.
    local: HeaderValue,
    /// To of our requests.
    remote: HeaderValue,
    local_cseq: u32,
    remote_cseq: Option<u32>,
    /// Where the peer wants its requests, kept as written.
    remote_target: Uri,
    /// First hop first; kept as written.
    route_set: Vec<NameAddr>,
}

/// A request is older than one already seen (section 12.2.2): to be answered with 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's CSeq is lower than one already seen")]
pub struct OutOfOrder;

impl Dialog {
    /// The callee's dialog, from an INVITE and the tag that stands in our responses (section 12.1.1).
    ///
    /// # Errors
    /// When a header it is made of is missing or broken.
    pub fn of_callee(invite: &Request, local_tag: &str) -> Result<Self, HeaderError> {
        let headers = &invite.headers;
        let from = headers.from()?;
        Ok(Self {
            call_id: headers.call_id()?.to_owned(),
            local_tag: local_tag.to_owned(),
            remote_tag: from.tag().unwrap_or_default().to_owned(),
            local: headers.to()?.with_tag(local_tag).to_value(),
            remote: from.to_value(),
            local_cseq: 0,
            remote_cseq: Some(headers.cseq()?.number),
            remote_target: headers.contact()?.uri,
            route_set: headers.record_routes()?,
        })
    }

    /// The caller's dialog, from its INVITE and a response with a To tag (section 12.1.2). A response without
    /// Contact, as some 18x are, leaves the Request-URI as the target.
    ///
    /// # Errors
    /// When a header it is made of is missing or broken.
    pub fn of_caller(invite: &Request, response: &Response) -> Result<Self, HeaderError> {
        let from = invite.headers.from()?;
        let to = response.headers.to()?;
        let mut route_set = response.headers.record_routes()?;
        route_set.reverse();
        Ok(Self {
            call_id: invite.headers.call_id()?.to_owned(),
            local_tag: from.tag().unwrap_or_default().to_owned(),
            remote_tag: to.tag().unwrap_or_default().to_owned(),
            local: from.to_value(),
            remote: to.to_value(),
            local_cseq: invite.headers.cseq()?.number,
            remote_cseq: None,
            remote_target: match response.headers.contact() {
                Ok(contact) => contact.uri,
                Err(_) => invite.uri.clone(),
            },
            route_set,
        })
    }

    /// The Call-ID.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Our tag.
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The peer's tag; empty when it has none.
    pub fn remote_tag(&self) -> &str {
        &self.remote_tag
    }

    /// The number of our last request.
    pub fn local_cseq(&self) -> u32 {
        self.local_cseq
    }

    /// The peer's Contact.
    pub fn remote_target(&self) -> &Uri {
        &self.remote_target
    }

    /// Where our requests go first: the first route, or else the remote target.
    pub fn next_hop(&self) -> &Uri {
        self.route_set.first().map_or(&self.remote_target, |route| &route.uri)
    }

    /// The next request: Request-URI, Route, From, To, Call-ID, CSeq and Max-Forwards (section 12.2.1.1). The user
    /// agent adds Via and Contact.
    pub fn request(&mut self, method: Method) -> Request {
        self.local_cseq += 1;
        self.numbered(method, self.local_cseq)
    }

    /// Takes the next number of ours, for a request that is sent again.
    pub fn next_cseq(&mut self) -> u32 {
        self.local_cseq += 1;
        self.local_cseq
    }

    /// This dialog, made by a 2xx, as the continuation of its early one: route set and target are new, the numbers go
    /// on (RFC 3261 section 13.2.2.4).
    #[must_use]
    pub fn continuing(mut self, early: &Self) -> Self {
        self.local_cseq = self.local_cseq.max(early.local_cseq);
        self.remote_cseq = self.remote_cseq.max(early.remote_cseq);
        self
    }

    /// The ACK of a 2xx to the INVITE with this number (section 13.2.2.4).
    pub fn ack(&self, invite_cseq: u32) -> Request {
        self.numbered(Method::Ack, invite_cseq)
    }

    /// Takes the number of a request from the peer; gaps are fine. ACK and CANCEL bear their INVITE's number and
    /// are not to be given here.
    ///
    /// # Errors
    /// When a later request was already seen, or this one is no newer.
    pub fn receive(&mut self, cseq: u32) -> Result<(), OutOfOrder> {
        if self.remote_cseq.is_some_and(|last| cseq <= last) {
            return Err(OutOfOrder);
        }
        self.remote_cseq = Some(cseq);
        Ok(())
    }

    /// Follows the peer's Contact in a re-INVITE, an UPDATE, or a 2xx to one (section 12.2.1.2, RFC 6141). The route
    /// set stays (section 12.2). A missing or broken Contact changes nothing.
    pub fn refresh_target(&mut self, headers: &Headers) {
        if let Ok(contact) = headers.contact() {
            self.remote_target = contact.uri;
        }
    }

    fn numbered(&self, method: Method, number: u32) -> Request {
        let (uri, routes) = self.route();
        let mut request = Request::new(method.clone(), uri);
        let headers = &mut request.headers;
        for route in routes {
            headers.push(HeaderName::Route, route);
        }
        headers.push(HeaderName::MaxForwards, 70);
        headers.push(HeaderName::From, self.local.clone());
        headers.push(HeaderName::To, self.remote.clone());
        headers.push(HeaderName::CallId, HeaderValue::cleaned(&self.call_id));
        headers.push(HeaderName::CSeq, CSeq::new(number, method));
        request
    }

    /// Request-URI and Route rows. Behind a loose router the Request-URI is the remote target; a strict router (no
    /// `lr`) gets itself as Request-URI and the remote target as last Route.
    fn route(&self) -> (Uri, Vec<HeaderValue>) {
        let all = || self.route_set.iter().map(NameAddr::to_value);
        match self.route_set.first() {
            Some(first) if !first.uri.is_loose_route() => {
                let target = NameAddr::new(self.remote_target.clone()).to_value();
                (first.uri.to_request_uri(), all().skip(1).chain([target]).collect())
            }
            Some(_) | None => (self.remote_target.to_request_uri(), all().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Message;
    use crate::sip::{Limits, parse_datagram};

    fn read(text: &str) -> Message {
        let text = text.trim_start().replace('\n', "\r\n") + "\r\n";
        parse_datagram(text.as_bytes(), &Limits::default()).expect("a message")
    }

    fn invite(extra: &str) -> Request {
        let text = format!(
            "INVITE sip:+15550111@198.51.100.20 SIP/2.0\nVia: SIP/2.0/UDP 54.172.60.1;branch=z9hG4bK1\n\
             From: \"+15550122\" <sip:+15550122@acme.pstn.twilio.com>;tag=abc\nTo: <sip:+15550111@198.51.100.20>\n\
             Call-ID: f304@0.0.0.0\nCSeq: 5 INVITE\nMax-Forwards: 66\n{extra}Content-Length: 0\n"
        );
        match read(&text) {
            Message::Request(request) => request,
            Message::Response(_) => panic!("not a request"),
        }
    }

    fn rows(request: &Request, name: HeaderName) -> Vec<String> {
        request.headers.rows(name).map(|row| String::from_utf8_lossy(row).into_owned()).collect()
    }

    const TWILIO: &str = "Record-Route: <sip:54.172.60.1:5061;transport=tls;lr;r2=on>\n\
        Record-Route: <sip:54.172.60.1;lr;r2=on;twnat=sip:1.2.3.4:51830>\n\
        Contact: \"+15550122\" <sip:+172.25.10.217:5060;transport=udp>\n";

    #[test]
    fn a_callee_follows_the_route_set_as_received_to_a_contact_kept_verbatim() {
        let mut dialog = Dialog::of_callee(&invite(TWILIO), "mine").expect("a dialog");
        let bye = dialog.request(Method::Bye);
        assert_eq!(bye.uri.as_str(), "sip:+172.25.10.217:5060;transport=udp");
        assert_eq!(
            rows(&bye, HeaderName::Route),
            [
                "<sip:54.172.60.1:5061;transport=tls;lr;r2=on>",
                "<sip:54.172.60.1;lr;r2=on;twnat=sip:1.2.3.4:51830>"
            ]
        );
        assert_eq!(rows(&bye, HeaderName::From), ["<sip:+15550111@198.51.100.20>;tag=mine"]);
        assert_eq!(
            rows(&bye, HeaderName::To),
            ["\"+15550122\" <sip:+15550122@acme.pstn.twilio.com>;tag=abc"]
        );
        assert_eq!(rows(&bye, HeaderName::CSeq), ["1 BYE"]);
        assert_eq!(dialog.next_hop().port(), Some(5061));
    }

    #[test]
    fn a_strict_router_gets_itself_as_request_uri() {
        let strict = "Record-Route: <sip:p1.example.com>\nRecord-Route: <sip:p2.example.com;lr>\n\
                      Contact: <sip:a@192.0.2.1>\n";
        let mut dialog = Dialog::of_callee(&invite(strict), "mine").expect("a dialog");
        let bye = dialog.request(Method::Bye);
        assert_eq!(bye.uri.as_str(), "sip:p1.example.com");
        assert_eq!(rows(&bye, HeaderName::Route), ["<sip:p2.example.com;lr>", "<sip:a@192.0.2.1>"]);
    }

    #[test]
    fn a_caller_reverses_the_record_route_of_the_answer() {
        let invite = invite("Contact: <sip:me@192.0.2.9>\n");
        let ok = read(
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 54.172.60.1;branch=z9hG4bK1\nFrom: <sip:a@b>;tag=abc\n\
             To: <sip:c@d>;tag=theirs\nCall-ID: f304@0.0.0.0\nCSeq: 5 INVITE\nRecord-Route: <sip:p1;lr>, <sip:p2;lr>\n\
             Contact: <sip:c@192.0.2.5>\nContent-Length: 0\n",
        );
        let Message::Response(ok) = ok else { panic!("not a response") };
        let mut dialog = Dialog::of_caller(&invite, &ok).expect("a dialog");
        assert_eq!(rows(&dialog.ack(5), HeaderName::Route), ["<sip:p2;lr>", "<sip:p1;lr>"]);
        assert_eq!(rows(&dialog.ack(5), HeaderName::CSeq), ["5 ACK"]);
        assert_eq!(rows(&dialog.request(Method::Bye), HeaderName::CSeq), ["6 BYE"]);
        assert_eq!((dialog.local_tag(), dialog.remote_tag()), ("abc", "theirs"));
    }

    #[test]
    fn numbers_may_skip_but_not_return() {
        let mut dialog =
            Dialog::of_callee(&invite("Contact: <sip:a@192.0.2.1>\n"), "mine").expect("a dialog");
        assert_eq!(dialog.receive(6), Ok(()));
        assert_eq!(dialog.receive(90), Ok(()));
        assert_eq!(dialog.receive(90), Err(OutOfOrder));
        assert_eq!(dialog.receive(7), Err(OutOfOrder));
    }

    #[test]
    fn a_new_contact_moves_the_target_and_leaves_the_routes() {
        let mut dialog = Dialog::of_callee(&invite(TWILIO), "mine").expect("a dialog");
        dialog.refresh_target(&invite("Contact: <sip:new@192.0.2.77>\n").headers);
        dialog.refresh_target(&invite("").headers);
        let bye = dialog.request(Method::Bye);
        assert_eq!(bye.uri.as_str(), "sip:new@192.0.2.77");
        assert_eq!(rows(&bye, HeaderName::Route).len(), 2);
    }
}
