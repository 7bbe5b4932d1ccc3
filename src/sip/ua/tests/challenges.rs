//! Challenges of requests of ours: answered once per realm, and not again.

use super::outgoing::{CONTACT, call, dialled, leg};
use super::*;

fn asked(nonce: &str, more: &str) -> String {
    format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", algorithm=MD5{more}\n")
}

fn with_password() -> OutgoingInvite {
    let credentials = Credentials { username: "u".into(), password: "p".to_owned().into() };
    OutgoingInvite { credentials: Some(credentials), ..call(Some(OFFER)) }
}

fn proof(request: &Request) -> Option<String> {
    request.headers.get_str(HeaderName::Authorization).map(str::to_owned)
}

#[test]
fn a_second_challenge_of_the_same_realm_ends_the_call() {
    let (mut desk, first) = dialled(with_password());
    desk.hear(&answer(&first, 401, "a", &asked("n1", ""), ""));
    let second = desk.last_request().clone();
    assert_eq!(desk.sent(), ["ACK", "INVITE"]);
    assert!(proof(&second).is_some_and(|proof| proof.contains("nonce=\"n1\"")));
    desk.hear(&answer(&second, 401, "b", &asked("n2", ""), ""));
    assert_eq!(desk.sent(), ["ACK"]);
    let told = desk.told();
    assert!(matches!(&told[..], [LegEvent::Failed { status, .. }] if *status == code(401)), "{told:?}");
    desk.at_rest();
}

#[test]
fn a_stale_nonce_and_a_proxy_of_another_realm_are_answered() {
    let (mut desk, first) = dialled(with_password());
    desk.hear(&answer(&first, 401, "a", &asked("n1", ""), ""));
    let second = desk.last_request().clone();
    desk.hear(&answer(&second, 401, "b", &asked("n2", ", stale=true"), ""));
    let third = desk.last_request().clone();
    let proxy = "Proxy-Authenticate: Digest realm=\"p\", nonce=\"n3\"\n";
    desk.hear(&answer(&third, 407, "c", proxy, ""));
    let fourth = desk.last_request().clone();
    assert_eq!(fourth.headers.cseq().expect("a CSeq").number, 4);
    assert!(proof(&fourth).is_some_and(|proof| proof.contains("nonce=\"n2\"")));
    assert!(fourth.headers.contains(HeaderName::ProxyAuthorization));
    desk.hear(&answer(&fourth, 486, "d", "", ""));
    desk.told();
    desk.at_rest();
}

#[test]
fn requests_in_the_call_bring_their_credentials_and_are_challenged_once() {
    let (mut desk, first) = dialled(with_password());
    desk.hear(&answer(&first, 401, "a", &asked("n1", ""), ""));
    let second = desk.last_request().clone();
    desk.hear(&answer(&second, 200, "b", CONTACT, OFFER));
    desk.told();
    desk.sent();
    desk.command(leg(), LegCommand::Reinvite { sdp: OFFER.into() });
    let offer = desk.last_request().clone();
    assert!(proof(&offer).is_some_and(|proof| proof.contains("nonce=\"n1\"")));
    desk.hear(&answer(&offer, 401, "b", &asked("n2", ""), ""));
    let again = desk.last_request().clone();
    assert!(proof(&again).is_some_and(|proof| proof.contains("nonce=\"n2\"")));
    desk.hear(&answer(&again, 401, "b", &asked("n3", ""), ""));
    let refused = LegEvent::ReinviteResult { status: code(401), sdp: None };
    assert_eq!(
        (desk.sent(), desk.told()),
        (vec!["INVITE".into(), "ACK".into(), "INVITE".into(), "ACK".into()], vec![refused])
    );
    desk.command(leg(), LegCommand::Hangup { reason: None });
    let bye = desk.last_request().clone();
    assert!(proof(&bye).is_some());
    desk.hear(&answer(&bye, 401, "b", &asked("n4", ""), ""));
    let bye = desk.last_request().clone();
    desk.hear(&answer(&bye, 401, "b", &asked("n5", ""), ""));
    assert_eq!(desk.sent(), ["BYE", "BYE"]);
    desk.told();
    desk.at_rest();
}

#[test]
fn a_challenge_on_a_stream_is_answered_too() {
    let target = Target::new(Transport::Tcp, address(CARRIER), address(US));
    let (mut desk, first) = dialled(OutgoingInvite { target, ..with_password() });
    desk.transport = Transport::Tcp;
    desk.hear(&answer(&first, 407, "a", "Proxy-Authenticate: Digest realm=\"p\", nonce=\"n1\"\n", ""));
    let second = desk.last_request().clone();
    assert_eq!(desk.sent(), ["ACK", "INVITE"]);
    assert!(second.headers.contains(HeaderName::ProxyAuthorization));
    desk.hear(&answer(&second, 486, "b", "", ""));
    desk.told();
    desk.at_rest();
}
