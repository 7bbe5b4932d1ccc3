//! Whole calls without sockets: a user agent, hand-written messages, and a clock that jumps.

mod admission;
mod cancel;
mod challenges;
mod early;
mod flood;
mod in_dialog;
mod incoming;
mod late_offer;
mod network;
mod outgoing;
mod outsize;
mod refer;
mod register;
mod reinvite;
mod requests;
mod wishes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;

use super::*;
use crate::sip::headers::HeaderName;
use crate::sip::message::{Method, Request, Response, StatusCode};
use crate::sip::profile::Profile;
use crate::sip::trunk::Trunk;
use crate::sip::{Limits, parse_datagram};

pub(super) const CARRIER: &str = "192.0.2.1:5060";
pub(super) const US: &str = "198.51.100.20:5060";
pub(super) const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
                                m=audio 4000 RTP/AVP 0\r\n";

/// A user agent, what it sent, and what it told.
pub(super) struct Desk {
    pub(super) ua: UserAgent,
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) transport: Transport,
    sent: Vec<(Target, Message)>,
    told: Vec<UaEvent>,
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(super) fn trunk() -> Trunk {
    let mut trunk = Trunk::new("carrier", Arc::new(Profile::default()));
    trunk.allow = vec!["192.0.2.0/24".parse().expect("a network")];
    trunk
}

pub(super) fn agent(config: UaConfig, trunk: Trunk, seed: u64) -> UserAgent {
    UserAgent::new(config, Trunks::new([trunk]), StdRng::seed_from_u64(seed))
}

impl Desk {
    pub(super) fn new() -> Self {
        Self::with(UaConfig::default(), trunk())
    }

    pub(super) fn with(config: UaConfig, trunk: Trunk) -> Self {
        let now = Instant::now();
        let ua = agent(config, trunk, 7);
        Self { ua, now, start: now, transport: Transport::Udp, sent: Vec::new(), told: Vec::new() }
    }

    /// Receives a message written with `\n`.
    pub(super) fn hear_from(&mut self, source: &str, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        let incoming = Incoming {
            raw: Bytes::new(),
            message: parse_datagram(text.as_bytes(), &Limits::default()),
            source: address(source),
            local: address(US),
            transport: self.transport,
            connection: None,
        };
        self.ua.receive(self.now, incoming);
        self.collect();
    }

    pub(super) fn hear(&mut self, text: &str) {
        self.hear_from(CARRIER, text);
    }

    pub(super) fn command(&mut self, leg: LegId, command: LegCommand) {
        self.ua.command(self.now, leg, command);
        self.collect();
    }

    pub(super) fn collect(&mut self) {
        while let Some(output) = self.ua.poll() {
            match output {
                Output::Send { target, bytes } => {
                    let message = parse_datagram(&bytes, &Limits::default()).expect("we send what we accept");
                    self.sent.push((target, message));
                }
                Output::Event(event) => self.told.push(event),
            }
        }
    }

    /// Lets time jump to the next deadline; returns the milliseconds since the start.
    pub(super) fn tick(&mut self) -> u128 {
        self.now = self.ua.next_timeout().expect("a deadline");
        self.ua.handle_timeout(self.now);
        self.collect();
        (self.now - self.start).as_millis()
    }

    /// Lets a span pass, running what is due on the way.
    pub(super) fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while self.ua.next_timeout().is_some_and(|at| at <= until) {
            self.tick();
        }
        self.now = until;
    }

    /// What was sent since last asked: statuses and methods.
    pub(super) fn sent(&mut self) -> Vec<String> {
        let all = self.sent.drain(..);
        all.map(|(_, message)| match message {
            Message::Request(request) => request.method.to_string(),
            Message::Response(response) => {
                let cseq = response.headers.cseq().expect("a CSeq");
                format!("{} {}", response.status, cseq.method)
            }
        })
        .collect()
    }

    pub(super) fn last_response(&self) -> &Response {
        let found = self.sent.iter().rev().find_map(|(_, message)| match message {
            Message::Response(response) => Some(response),
            Message::Request(_) => None,
        });
        found.expect("a response was sent")
    }

    pub(super) fn last_request(&self) -> &Request {
        let found = self.sent.iter().rev().find_map(|(_, message)| match message {
            Message::Request(request) => Some(request),
            Message::Response(_) => None,
        });
        found.expect("a request was sent")
    }

    pub(super) fn last_target(&self) -> Target {
        self.sent.last().expect("something was sent").0
    }

    /// What the calls were told since last asked.
    pub(super) fn told(&mut self) -> Vec<LegEvent> {
        let all = self.told.drain(..);
        all.filter_map(|event| match event {
            UaEvent::Leg(_, event) => Some(event),
            _ => None,
        })
        .collect()
    }

    pub(super) fn invited(&mut self) -> Box<IncomingInvite> {
        let at = self.told.iter().position(|event| matches!(event, UaEvent::Invite(_))).expect("an INVITE");
        match self.told.remove(at) {
            UaEvent::Invite(invite) => invite,
            _ => unreachable!("the position is of an INVITE"),
        }
    }

    /// An INVITE, answered and acknowledged; returns the leg and our tag.
    pub(super) fn established(&mut self) -> (LegId, String) {
        self.hear(&invite("1", ""));
        let leg = self.invited().leg;
        self.command(leg, LegCommand::Answer { sdp: OFFER.into() });
        let tag = self.our_tag();
        self.hear(&in_dialog("ACK", 1, &tag, "", ""));
        assert_eq!(self.told(), [LegEvent::Acked { answer: None }]);
        self.sent();
        (leg, tag)
    }

    /// An outgoing call, answered by `theirs` and acknowledged; returns its INVITE.
    pub(super) fn connected(&mut self, invite: OutgoingInvite) -> Request {
        self.ua.invite(self.now, outgoing::leg(), invite);
        self.collect();
        let invite = self.last_request().clone();
        self.hear(&answer(&invite, 200, "theirs", outgoing::CONTACT, OFFER));
        self.told();
        self.sent();
        invite
    }

    /// The call is over, and nothing of it is left.
    pub(super) fn at_rest(&mut self) {
        self.pass(Duration::from_secs(200));
        assert_eq!((self.ua.leg_count(), self.ua.transaction_counts()), (0, (0, 0)), "{}", self.ua.remains());
        assert!(self.ua.purposes.is_empty() && self.ua.answered.is_empty());
    }

    pub(super) fn our_tag(&self) -> String {
        let to = self.last_response().headers.to().expect("a To");
        to.tag().expect("our tag").to_owned()
    }
}

pub(super) fn progress(status: u16, sdp: Option<&str>, fork: u16) -> LegEvent {
    let sdp = sdp.map(Into::into);
    LegEvent::Progress { status: code(status), sdp, fork, early_media_authorized: None }
}

pub(super) fn code(number: u16) -> StatusCode {
    StatusCode::new(number).expect("a status")
}

/// The carrier's INVITE with an offer; `extra` are whole header lines.
pub(super) fn invite(branch: &str, extra: &str) -> String {
    invite_with(branch, extra, OFFER)
}

pub(super) fn invite_with(branch: &str, extra: &str, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    format!(
        "INVITE sip:+15550111@198.51.100.20:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{branch};rport\n\
         From: \"Caller\" <sip:+15550122@carrier.example>;tag=theirs\nTo: <sip:+15550111@198.51.100.20>\n\
         Call-ID: call-1@192.0.2.1\nCSeq: 1 INVITE\nContact: <sip:+15550122@192.0.2.1:5060>\nMax-Forwards: 70\n\
         {extra}{kind}Content-Length: {}\n\n{body}",
        body.len()
    )
}

/// A request of the carrier inside the dialog of [`invite`].
pub(super) fn in_dialog(method: &str, cseq: u32, our_tag: &str, extra: &str, body: &str) -> String {
    let branch = if method == "CANCEL" { "1".to_owned() } else { format!("in-{method}-{cseq}") };
    let tag = if our_tag.is_empty() { String::new() } else { format!(";tag={our_tag}") };
    format!(
        "{method} sip:198.51.100.20:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{branch};rport\n\
         From: \"Caller\" <sip:+15550122@carrier.example>;tag=theirs\nTo: <sip:+15550111@198.51.100.20>{tag}\n\
         Call-ID: call-1@192.0.2.1\nCSeq: {cseq} {method}\nContact: <sip:+15550122@192.0.2.1:5060>\nMax-Forwards: 70\n\
         {extra}Content-Length: {}\n\n{body}",
        body.len()
    )
}

/// The answer of a peer to a request of ours.
pub(super) fn answer(request: &Request, status: u16, tag: &str, extra: &str, body: &str) -> String {
    let mut text = format!("SIP/2.0 {status} Whatever\n");
    for name in [HeaderName::Via, HeaderName::From, HeaderName::CallId, HeaderName::CSeq] {
        for row in request.headers.rows(name) {
            text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(row)));
        }
    }
    let to = request.headers.to().expect("a To").without_tag();
    let tag = if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    text.push_str(&format!("To: {to}{tag}\n{extra}{kind}Content-Length: {}\n\n{body}", body.len()));
    text
}

/// A request of the callee inside the dialog of an INVITE of ours.
pub(super) fn of_callee(
    invite: &Request,
    tag: &str,
    method: &str,
    cseq: u32,
    extra: &str,
    body: &str,
) -> String {
    let from = invite.headers.from().expect("a From");
    let ours = from.tag().expect("our tag");
    let call_id = invite.headers.call_id().expect("a Call-ID");
    format!(
        "{method} sip:198.51.100.20:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKc-{method}-{cseq}-{tag}\n\
         From: <sip:+15550122@carrier.example>;tag={tag}\nTo: <sip:+15550111@198.51.100.20>;tag={ours}\n\
         Call-ID: {call_id}\nCSeq: {cseq} {method}\nContact: <sip:callee@192.0.2.1:5060>\nMax-Forwards: 70\n\
         {extra}Content-Length: {}\n\n{body}",
        body.len()
    )
}
