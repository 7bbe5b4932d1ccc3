//! Requests of ours outside of any dialog.

use super::*;
use crate::sip::uri::Uri;

fn register(credentials: bool) -> OutRequest {
    let uri = |text: &str| Uri::parse(text).expect("a URI");
    let password = || "secret".to_owned().into();
    OutRequest {
        method: Method::Register,
        target: Target::new(Transport::Udp, address(CARRIER), address(US)),
        uri: uri("sip:carrier.example"),
        from: uri("sip:me@carrier.example"),
        to: uri("sip:me@carrier.example"),
        call_id: Some("reg-1".into()),
        cseq: Some(41),
        route: vec![uri("sip:192.0.2.3;lr")],
        credentials: credentials.then(|| Credentials { username: "me".into(), password: password() }),
        headers: vec![("Expires".into(), "300".into()), ("X-Bad".into(), "a\r\nb".into())],
        contact: Some(ContactSpec { user: "me".into(), params: ";expires=300".into() }),
    }
}

fn asked(request: OutRequest) -> (Desk, Request) {
    let mut desk = Desk::new();
    desk.ua.request(desk.now, 9, request);
    desk.collect();
    let sent = desk.last_request().clone();
    (desk, sent)
}

fn outcome(desk: &mut Desk) -> (u16, bool, u32) {
    match desk.told.drain(..).next() {
        Some(UaEvent::Answer { id: 9, answer }) => {
            (answer.status.get(), answer.response.is_some(), answer.cseq)
        }
        other => panic!("not an answer: {other:?}"),
    }
}

const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"r\",nonce=\"n\",qop=\"auth\"\n";

#[test]
fn a_register_is_sent_challenged_and_answered() {
    let (mut desk, first) = asked(register(true));
    assert_eq!(first.headers.get_str(HeaderName::Contact), Some("<sip:me@198.51.100.20:5060>;expires=300"));
    assert_eq!(first.headers.get_str(HeaderName::Route), Some("<sip:192.0.2.3;lr>"));
    assert_eq!(first.headers.get_str(HeaderName::CallId), Some("reg-1"));
    assert!(!first.headers.contains("X-Bad") && first.headers.contains(HeaderName::Expires));
    desk.hear(&answer(&first, 401, "a", CHALLENGE, ""));
    let second = desk.last_request().clone();
    assert_eq!(second.headers.cseq().expect("a CSeq").number, 42);
    assert_eq!(second.headers.from().ok(), first.headers.from().ok());
    assert!(second.headers.contains(HeaderName::Authorization));
    desk.hear(&answer(&second, 200, "a", "", ""));
    assert_eq!(outcome(&mut desk), (200, true, 42));
    desk.at_rest();
}

#[test]
fn wrong_or_missing_credentials_are_told() {
    let (mut desk, first) = asked(register(true));
    desk.hear(&answer(&first, 401, "a", CHALLENGE, ""));
    let second = desk.last_request().clone();
    desk.hear(&answer(&second, 401, "a", CHALLENGE, ""));
    assert_eq!(outcome(&mut desk), (401, true, 42));
    desk.at_rest();
    let (mut desk, first) = asked(register(false));
    desk.hear(&answer(&first, 407, "a", CHALLENGE, ""));
    assert_eq!(outcome(&mut desk), (407, true, 41));
    desk.at_rest();
}

#[test]
fn silence_and_a_dead_transport_are_told_as_408_and_503() {
    let (mut desk, _) = asked(register(false));
    assert!(!desk.ua.is_busy(), "a shutdown does not wait for it");
    desk.pass(Duration::from_secs(33));
    assert_eq!(outcome(&mut desk), (408, false, 41));
    desk.at_rest();
    let (mut desk, _) = asked(register(false));
    desk.ua.transport_failed(desk.now, Transport::Udp, address(CARRIER), None);
    desk.collect();
    assert_eq!(outcome(&mut desk), (503, false, 41));
    desk.at_rest();
}
