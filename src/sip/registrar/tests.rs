//! The registrar, by table.

use super::*;
use crate::sip::message::Method;

struct Desk {
    registrar: Registrar,
    now: Instant,
}

impl Desk {
    fn new() -> Self {
        let config = RegistrarConfig { contacts_max: 2, ..RegistrarConfig::default() };
        Self { registrar: Registrar::new(config), now: Instant::now() }
    }

    fn send(&mut self, cseq: u32, rows: &[(HeaderName, &str)]) -> Answered {
        let request = register("<sip:ann@example.com>", cseq, rows);
        self.registrar.register(self.now, &request, flow(5060), "ann")
    }

    fn contacts(&self) -> Vec<String> {
        self.registrar.bindings(self.now, "ann").iter().map(|b| b.contact.to_string()).collect()
    }
}

fn flow(port: u16) -> Target {
    let at = |port| std::net::SocketAddr::from(([192, 0, 2, 7], port));
    Target::new(Transport::Udp, at(port), at(5060))
}

fn register(to: &str, cseq: u32, rows: &[(HeaderName, &str)]) -> Request {
    let mut request = Request::new(Method::Register, Uri::parse("sip:example.com").expect("a URI"));
    request.headers.push(HeaderName::To, HeaderValue::cleaned(to));
    request.headers.push(HeaderName::CallId, HeaderValue::from_static("one"));
    request.headers.push(HeaderName::CSeq, HeaderValue::cleaned(format!("{cseq} REGISTER")));
    for (name, value) in rows {
        request.headers.push(*name, HeaderValue::cleaned(value));
    }
    request
}

const HOME: (HeaderName, &str) = (HeaderName::Contact, "<sip:ann@10.0.0.5:5060>");

#[test]
fn a_contact_is_listed_with_the_time_it_has_left_and_goes_by_itself() {
    let mut desk = Desk::new();
    let answer = desk.send(1, &[HOME, (HeaderName::Expires, "120")]);
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[0].1.to_text(), "<sip:ann@10.0.0.5:5060>;expires=120");
    desk.now += Duration::from_secs(60);
    assert_eq!(desk.send(2, &[]).headers[0].1.to_text(), "<sip:ann@10.0.0.5:5060>;expires=60");
    assert!(desk.registrar.is_on(&flow(5060), "ann") && !desk.registrar.is_on(&flow(5060), "bob"));
    assert!(desk.registrar.knows_flow(&flow(5060)) && !desk.registrar.knows_flow(&flow(5061)));
    assert!(desk.registrar.knows_source(flow(1).remote.ip()));
    desk.now = desk.registrar.next_timeout().expect("a contact expires");
    assert_eq!(desk.registrar.handle_timeout(desk.now), ["ann"]);
    assert!(desk.contacts().is_empty() && desk.registrar.is_empty());
    assert_eq!(desk.registrar.next_timeout(), None);
    assert!(!desk.registrar.knows_flow(&flow(5060)) && !desk.registrar.knows_source(flow(1).remote.ip()));
}

#[test]
fn a_lost_connection_takes_its_contacts_with_it() {
    let mut desk = Desk::new();
    let over = |id: u64| Target {
        transport: Transport::Ws,
        connection: Some(ConnectionId(id)),
        ..flow(5000 + id as u16)
    };
    for (id, cseq) in [(1, 1), (2, 2)] {
        let contact = format!("<sip:ann@{id}.invalid;transport=ws>");
        let request = register("<sip:ann@example.com>", cseq, &[(HeaderName::Contact, &contact)]);
        desk.registrar.register(desk.now, &request, over(id), "ann");
    }
    assert!(desk.registrar.uses(ConnectionId(1)));
    assert!(desk.registrar.connection_closed(ConnectionId(1)).is_empty(), "it has another contact");
    assert_eq!(desk.contacts(), ["sip:ann@2.invalid;transport=ws"]);
    assert!(!desk.registrar.uses(ConnectionId(1)) && !desk.registrar.knows_flow(&over(1)));
    assert_eq!(desk.registrar.connection_closed(ConnectionId(2)), ["ann"]);
    assert!(desk.registrar.is_empty() && desk.registrar.next_timeout().is_none());
}

#[test]
fn two_phones_may_share_a_flow() {
    let mut desk = Desk::new();
    desk.send(1, &[HOME]);
    let request = register("<sip:bob@example.com>", 1, &[(HeaderName::Contact, "<sip:bob@10.0.0.5:5060>")]);
    desk.registrar.register(desk.now, &request, flow(5060), "bob");
    assert!(desk.registrar.is_on(&flow(5060), "ann") && desk.registrar.is_on(&flow(5060), "bob"));
    assert_eq!(desk.registrar.keep(|user| user == "bob"), ["ann"]);
    assert!(!desk.registrar.is_on(&flow(5060), "ann") && desk.registrar.knows_flow(&flow(5060)));
}

#[test]
fn times_are_held_between_the_bounds() {
    let mut desk = Desk::new();
    let brief = desk.send(1, &[(HeaderName::Contact, "<sip:ann@10.0.0.5>;expires=5")]);
    assert_eq!(brief.status, StatusCode::INTERVAL_TOO_BRIEF);
    assert_eq!(brief.headers, [(HeaderName::MinExpires, HeaderValue::from(60))]);
    let long = desk.send(2, &[HOME, (HeaderName::Expires, "99999")]);
    assert!(long.headers[0].1.to_text().ends_with("expires=3600"));
}

#[test]
fn a_contact_is_removed_by_zero_and_all_by_a_star() {
    let mut desk = Desk::new();
    desk.send(1, &[HOME, (HeaderName::Contact, "<sip:ann@10.0.0.6>;q=0.5")]);
    assert_eq!(desk.contacts(), ["sip:ann@10.0.0.5:5060", "sip:ann@10.0.0.6"]);
    desk.send(2, &[(HeaderName::Contact, "<sip:ann@10.0.0.5:5060>;expires=0")]);
    assert_eq!(desk.contacts(), ["sip:ann@10.0.0.6"]);
    let star = (HeaderName::Contact, "*");
    assert_eq!(desk.send(3, &[star]).status, StatusCode::BAD_REQUEST);
    assert_eq!(desk.send(4, &[star, HOME, (HeaderName::Expires, "0")]).status, StatusCode::BAD_REQUEST);
    assert_eq!(desk.send(5, &[star, (HeaderName::Expires, "0")]).status, StatusCode::OK);
    assert!(desk.contacts().is_empty());
}

#[test]
fn an_older_request_undoes_nothing() {
    let mut desk = Desk::new();
    desk.send(7, &[HOME]);
    let late = desk.send(
        7,
        &[
            (HeaderName::Contact, "<sip:ann@10.0.0.9>"),
            (HeaderName::Contact, "<sip:ann@10.0.0.5:5060>;expires=0"),
        ],
    );
    assert_eq!(late.status, StatusCode::SERVER_INTERNAL_ERROR);
    let star = [(HeaderName::Contact, "*"), (HeaderName::Expires, "0")];
    assert_eq!(desk.send(6, &star).status, StatusCode::SERVER_INTERNAL_ERROR);
    assert_eq!(desk.contacts(), ["sip:ann@10.0.0.5:5060"], "not even half of it");
}

#[test]
fn a_device_that_moved_keeps_one_contact_and_there_is_an_end_to_contacts() {
    let mut desk = Desk::new();
    let at = |host: &str, id: u32| format!("<sip:ann@{host}>;+sip.instance=\"<urn:uuid:{id}>\"");
    desk.send(1, &[(HeaderName::Contact, &at("10.0.0.5", 1))]);
    desk.send(2, &[(HeaderName::Contact, &at("10.0.0.6", 1))]);
    assert_eq!(desk.contacts(), ["sip:ann@10.0.0.6"]);
    desk.send(3, &[(HeaderName::Contact, &at("10.0.0.7", 2))]);
    let third = desk.send(4, &[(HeaderName::Contact, &at("10.0.0.8", 3))]);
    assert_eq!(third.status, StatusCode::FORBIDDEN);
    assert_eq!(desk.registrar.len(), 2);
}

#[test]
fn nobody_registers_for_another_and_nonsense_is_refused() {
    let mut desk = Desk::new();
    let other = register("<sip:bob@example.com>", 1, &[HOME]);
    let answer = desk.registrar.register(desk.now, &other, flow(5060), "ann");
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    for contact in ["<tel:+15550100>", "<sip:ann@h", "<mailto:a@b>"] {
        assert_eq!(
            desk.send(1, &[(HeaderName::Contact, contact)]).status,
            StatusCode::BAD_REQUEST,
            "{contact}"
        );
    }
    let long = format!("<sip:{}@h>", "x".repeat(600));
    assert_eq!(desk.send(1, &[(HeaderName::Contact, &long)]).status, StatusCode::BAD_REQUEST);
    assert!(desk.registrar.is_empty());
}

#[test]
fn proxies_on_the_way_are_kept_and_told_back() {
    let mut desk = Desk::new();
    let answer = desk.send(1, &[HOME, (HeaderName::Path, "<sip:p1;lr>, <sip:p2;lr>")]);
    assert!(
        answer.headers.contains(&(HeaderName::Path, HeaderValue::from_static("<sip:p1;lr>, <sip:p2;lr>")))
    );
    let path: Vec<String> =
        desk.registrar.bindings(desk.now, "ann")[0].path.iter().map(Uri::to_string).collect();
    assert_eq!(path, ["sip:p1;lr", "sip:p2;lr"]);
}
