//! Outgoing calls.

use secrecy::SecretString;

use super::*;
use crate::sip::uri::Uri;

pub(super) fn call(sdp: Option<&str>) -> OutgoingInvite {
    let target = Target::new(Transport::Udp, address(CARRIER), address(US));
    let to = Uri::parse("sip:+15550122@carrier.example").expect("a URI");
    let from = Uri::parse("sip:+15550111@198.51.100.20").expect("a URI");
    OutgoingInvite {
        from_display: Some("Tandem \"test\"".into()),
        sdp: sdp.map(Into::into),
        headers: vec![("X-Test".into(), "1".into())],
        ..OutgoingInvite::new(target, to, from)
    }
}

pub(super) fn leg() -> LegId {
    LegId::from_parts(1, 1)
}

pub(super) fn dialled(invite: OutgoingInvite) -> (Desk, Request) {
    let mut desk = Desk::new();
    desk.ua.invite(desk.now, leg(), invite);
    desk.collect();
    let request = desk.last_request().clone();
    assert_eq!(desk.sent(), ["INVITE"]);
    (desk, request)
}

pub(super) const CONTACT: &str = "Contact: <sip:callee@192.0.2.1:5060>\n";

#[test]
fn a_call_rings_is_answered_and_acknowledged_each_time() {
    let (mut desk, invite) = dialled(call(Some(OFFER)));
    assert_eq!(invite.headers.get_str("X-Test"), Some("1"));
    desk.hear(&answer(&invite, 100, "", "", ""));
    desk.hear(&answer(&invite, 183, "a", CONTACT, OFFER));
    desk.hear(&answer(&invite, 200, "a", CONTACT, OFFER));
    let answered = LegEvent::Answered { sdp: Some(OFFER.into()) };
    assert_eq!(desk.told(), [progress(100, None, 0), progress(183, Some(OFFER), 0), answered]);
    assert_eq!(desk.last_request().uri.as_str(), "sip:callee@192.0.2.1:5060");
    desk.hear(&answer(&invite, 200, "a", CONTACT, OFFER));
    assert_eq!(desk.sent(), ["ACK", "ACK"]);
    desk.command(leg(), LegCommand::Hangup { reason: None });
    let bye = desk.last_request().clone();
    assert_eq!(bye.headers.cseq().expect("a CSeq").number, 2);
    desk.hear(&answer(&bye, 200, "a", "", ""));
    desk.pass(Duration::from_secs(60));
    assert!(!desk.ua.is_busy());
    assert_eq!(desk.ua.transaction_counts(), (0, 0));
}

#[test]
fn the_first_fork_to_answer_wins_and_others_are_ended() {
    let (mut desk, invite) = dialled(call(Some(OFFER)));
    desk.hear(&answer(&invite, 180, "a", CONTACT, ""));
    desk.hear(&answer(&invite, 180, "b", CONTACT, ""));
    desk.hear(&answer(&invite, 200, "b", CONTACT, OFFER));
    desk.told();
    assert_eq!(desk.sent(), ["ACK"]);
    desk.hear(&answer(&invite, 200, "a", CONTACT, OFFER));
    assert_eq!(desk.last_request().headers.to().expect("a To").tag(), Some("a"));
    assert_eq!(desk.sent(), ["ACK", "BYE"]);
    desk.hear(&answer(&invite, 200, "a", CONTACT, OFFER));
    assert_eq!(desk.sent(), ["ACK"]);
    assert_eq!(desk.told(), []);
}

#[test]
fn a_refusal_is_acknowledged_and_told() {
    let (mut desk, invite) = dialled(call(Some(OFFER)));
    desk.hear(&answer(&invite, 486, "a", "Retry-After: 7\n", ""));
    let retry_after = Some(Duration::from_secs(7));
    let details = Box::default();
    let failed = LegEvent::Failed { status: code(486), reason: "Whatever".into(), retry_after, details };
    assert_eq!(desk.told(), [failed]);
    let ack = desk.last_request();
    assert_eq!(ack.headers.via_top().ok(), invite.headers.via_top().ok());
    assert_eq!(ack.headers.to().expect("a To").tag(), Some("a"));
    desk.hear(&answer(&invite, 486, "a", "", ""));
    assert_eq!(desk.sent(), ["ACK", "ACK"]);
}

#[test]
fn silence_and_a_dead_transport_are_408_and_503() {
    let (mut desk, _) = dialled(call(Some(OFFER)));
    desk.pass(Duration::from_secs(33));
    assert!(matches!(desk.told()[..], [LegEvent::Failed { status: StatusCode::REQUEST_TIMEOUT, .. }]));
    assert_eq!(desk.sent(), ["INVITE"; 6]);
    let (mut desk, _) = dialled(call(Some(OFFER)));
    desk.ua.transport_failed(desk.now, Transport::Udp, address(CARRIER), None);
    desk.collect();
    assert!(matches!(desk.told()[..], [LegEvent::Failed { status: StatusCode::SERVICE_UNAVAILABLE, .. }]));
    assert!(!desk.ua.is_busy());
}

#[test]
fn a_hang_up_while_ringing_cancels_only_after_a_provisional_response() {
    let (mut desk, invite) = dialled(call(Some(OFFER)));
    desk.command(leg(), LegCommand::Hangup { reason: None });
    assert!(matches!(desk.told()[..], [LegEvent::Ended { by: EndedBy::Us, .. }]));
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.hear(&answer(&invite, 100, "", "", ""));
    let cancel = desk.last_request().clone();
    assert_eq!(cancel.headers.via_top().ok(), invite.headers.via_top().ok());
    assert_eq!(cancel.headers.to().expect("a To").tag(), None);
    assert_eq!(desk.sent(), ["CANCEL"]);
    desk.hear(&answer(&cancel, 200, "a", "", ""));
    desk.hear(&answer(&invite, 487, "a", "", ""));
    assert_eq!((desk.sent(), desk.told()), (vec!["ACK".to_owned()], vec![]));
    desk.pass(Duration::from_secs(60));
    assert!(!desk.ua.is_busy());
}

#[test]
fn an_answer_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let (mut desk, invite) = dialled(call(Some(OFFER)));
    desk.hear(&answer(&invite, 180, "a", CONTACT, ""));
    desk.command(leg(), LegCommand::Hangup { reason: None });
    desk.told();
    desk.hear(&answer(&invite, 200, "a", CONTACT, OFFER));
    assert_eq!(desk.sent(), ["CANCEL", "ACK", "BYE"]);
    assert_eq!((desk.told(), desk.ua.leg_count()), (vec![], 0));
}

#[test]
fn a_callee_that_answers_a_cancel_and_nothing_more_is_given_up() {
    let (mut desk, invite) = dialled(call(Some(OFFER)));
    desk.hear(&answer(&invite, 180, "a", CONTACT, ""));
    desk.command(leg(), LegCommand::Hangup { reason: None });
    desk.pass(Duration::from_secs(70));
    assert!(!desk.ua.is_busy());
    assert_eq!(desk.ua.transaction_counts(), (0, 0));
}

#[test]
fn a_challenge_is_answered_once_per_nonce() {
    let mut invite = call(Some(OFFER));
    let password = SecretString::from("secret");
    invite.credentials = Some(Credentials { username: "tandem".into(), password });
    let (mut desk, first) = dialled(invite);
    let challenge =
        "Proxy-Authenticate: Digest realm=\"sip.twilio.com\",nonce=\"abc\",opaque=\"x\",qop=\"auth\"\n";
    desk.hear(&answer(&first, 407, "a", challenge, ""));
    let second = desk.last_request().clone();
    assert_eq!(desk.sent(), ["ACK", "INVITE"]);
    assert!(
        second.headers.get_str(HeaderName::ProxyAuthorization).is_some_and(|a| a.contains("nc=00000001"))
    );
    assert_eq!(second.headers.cseq().expect("a CSeq").number, 2);
    assert_eq!(second.headers.call_id(), first.headers.call_id());
    assert_ne!(second.headers.via_top().ok(), first.headers.via_top().ok());
    desk.hear(&answer(&second, 407, "a", challenge, ""));
    assert_eq!(desk.sent(), ["ACK"]);
    assert!(matches!(
        desk.told()[..],
        [LegEvent::Failed { status: StatusCode::PROXY_AUTHENTICATION_REQUIRED, .. }]
    ));
}

#[test]
fn an_offer_in_the_answer_is_answered_by_the_call() {
    let (mut desk, invite) = dialled(call(None));
    desk.hear(&answer(&invite, 200, "a", CONTACT, OFFER));
    assert_eq!(desk.told(), [LegEvent::Answered { sdp: Some(OFFER.into()) }]);
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.command(leg(), LegCommand::Acknowledge { sdp: OFFER.into() });
    assert_eq!(&desk.last_request().body[..], OFFER.as_bytes());
    assert_eq!(desk.sent(), ["ACK"]);
}

#[test]
fn the_called_party_may_speak_in_the_call_though_it_is_no_trunk() {
    let mut desk = Desk::with(UaConfig::default(), Trunk::new("other", Arc::new(Profile::default())));
    desk.ua.invite(desk.now, leg(), call(Some(OFFER)));
    desk.collect();
    let invite = desk.last_request().clone();
    desk.hear(&answer(&invite, 200, "theirs", CONTACT, OFFER));
    desk.told();
    let from = invite.headers.from().expect("a From");
    let bye = in_dialog("BYE", 1, from.tag().expect("our tag"), "", "")
        .replace("call-1@192.0.2.1", invite.headers.call_id().expect("a Call-ID"));
    desk.hear_from("203.0.113.1:5060", &bye);
    assert_eq!(desk.told(), []);
    desk.hear(&bye);
    assert!(matches!(desk.told()[..], [LegEvent::Ended { by: EndedBy::Peer, .. }]));
}

#[test]
fn a_2xx_that_crosses_a_refusal_is_acknowledged_and_ended() {
    let (mut desk, invite) = dialled(call(Some(OFFER)));
    desk.hear(&answer(&invite, 180, "p", CONTACT, ""));
    desk.hear(&answer(&invite, 486, "q", "", ""));
    assert_eq!(desk.sent(), ["ACK"]);
    desk.hear(&answer(&invite, 200, "p", CONTACT, OFFER));
    let bye = desk.last_request().clone();
    assert_eq!(desk.sent(), ["ACK", "BYE"]);
    desk.hear(&answer(&bye, 200, "p", "", ""));
    desk.told();
    desk.at_rest();
}
