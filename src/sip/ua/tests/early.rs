//! Before the answer: reliable provisional responses and offers in early dialogs.

use super::outgoing::{CONTACT, call, dialled, leg};
use super::*;
use crate::sip::profile::ReliableProvisional;

const SDP: &str = "Content-Type: application/sdp\n";

fn reliable(sdp: Option<&str>) -> (Desk, Request) {
    dialled(OutgoingInvite { reliable: true, ..call(sdp) })
}

fn numbered(rseq: u32) -> String {
    format!("{CONTACT}Require: 100rel\nRSeq: {rseq}\nAllow: INVITE, ACK, BYE, UPDATE, PRACK\n")
}

fn number(request: &Request) -> u32 {
    request.headers.cseq().expect("a CSeq").number
}

fn hang_up(desk: &mut Desk, tag: &str) {
    desk.command(leg(), LegCommand::Hangup { reason: None });
    let bye = desk.last_request().clone();
    assert_eq!(bye.method, Method::Bye);
    desk.hear(&answer(&bye, 200, tag, "", ""));
    desk.at_rest();
}

#[test]
fn reliable_responses_are_acknowledged_once_and_in_order() {
    let (mut desk, invite) = reliable(Some(OFFER));
    assert!(invite.headers.get_str(HeaderName::Supported).is_some_and(|tags| tags.contains("100rel")));
    let routed = format!("{}Record-Route: <sip:192.0.2.77;lr>\n", numbered(41));
    desk.hear(&answer(&invite, 183, "a", &routed, OFFER));
    let prack = desk.last_request().clone();
    assert_eq!(prack.headers.get_str(HeaderName::RAck), Some("41 1 INVITE"));
    assert_eq!(prack.headers.get_str(HeaderName::Route), Some("<sip:192.0.2.77;lr>"));
    assert_eq!((prack.uri.as_str(), number(&prack)), ("sip:callee@192.0.2.1:5060", 2));
    desk.hear(&answer(&prack, 200, "a", "", ""));
    desk.hear(&answer(&invite, 183, "a", &routed, OFFER));
    desk.hear(&answer(&invite, 180, "a", &numbered(43), ""));
    assert_eq!(desk.sent(), ["PRACK"]);
    desk.hear(&answer(&invite, 180, "a", &numbered(42), ""));
    let second = desk.last_request().clone();
    assert_eq!(second.headers.get_str(HeaderName::RAck), Some("42 1 INVITE"));
    desk.hear(&answer(&second, 481, "a", "", ""));
    assert_eq!(desk.told(), [progress(183, Some(OFFER), 0), progress(180, None, 0)]);
    desk.hear(&answer(&invite, 200, "a", CONTACT, ""));
    assert_eq!(desk.told(), [LegEvent::Answered { sdp: None }]);
    assert_eq!(number(desk.last_request()), 1);
    assert_eq!(desk.sent(), ["PRACK", "ACK"]);
    desk.command(leg(), LegCommand::SendDtmf { digit: '1', duration_ms: 100 });
    let info = desk.last_request().clone();
    assert_eq!(number(&info), 4);
    desk.hear(&answer(&info, 200, "a", "", ""));
    hang_up(&mut desk, "a");
}

#[test]
fn who_did_not_ask_for_reliability_does_not_acknowledge() {
    let (mut desk, invite) = dialled(call(Some(OFFER)));
    desk.hear(&answer(&invite, 183, "a", &numbered(1), OFFER));
    assert_eq!(desk.sent(), Vec::<String>::new());
    assert_eq!(desk.told(), [progress(183, Some(OFFER), 0)]);
    desk.hear(&answer(&invite, 486, "a", "", ""));
    desk.at_rest();
}

#[test]
fn every_fork_counts_for_itself_and_a_late_answer_goes_on_with_its_numbers() {
    let (mut desk, invite) = reliable(Some(OFFER));
    for (tag, rseq) in [("a", 5), ("b", 900)] {
        desk.hear(&answer(&invite, 183, tag, &numbered(rseq), OFFER));
        let prack = desk.last_request().clone();
        assert_eq!((prack.headers.to().expect("a To").tag(), number(&prack)), (Some(tag), 2));
        desk.hear(&answer(&prack, 200, tag, "", ""));
    }
    assert_eq!(desk.told(), [progress(183, Some(OFFER), 0), progress(183, Some(OFFER), 1)]);
    desk.hear(&answer(&invite, 200, "b", CONTACT, ""));
    desk.hear(&answer(&invite, 200, "a", CONTACT, ""));
    let bye = desk.last_request().clone();
    assert_eq!((bye.method.as_str(), bye.headers.to().expect("a To").tag()), ("BYE", Some("a")));
    assert_eq!(number(&bye), 3);
    assert_eq!(desk.sent(), ["PRACK", "PRACK", "ACK", "ACK", "BYE"]);
    desk.hear(&answer(&bye, 200, "a", "", ""));
    hang_up(&mut desk, "b");
}

#[test]
fn an_offer_in_a_reliable_response_is_answered_in_its_prack() {
    let (mut desk, invite) = reliable(None);
    desk.hear(&answer(&invite, 183, "a", &numbered(7), OFFER));
    assert_eq!(desk.told(), [LegEvent::EarlyOffer { offer: OFFER.into() }, progress(183, None, 0)]);
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.command(leg(), LegCommand::AnswerEarly { sdp: OFFER.into() });
    let prack = desk.last_request().clone();
    assert_eq!((prack.method.as_str(), &prack.body[..]), ("PRACK", OFFER.as_bytes()));
    desk.hear(&answer(&prack, 200, "a", "", ""));
    desk.hear(&answer(&invite, 200, "a", CONTACT, ""));
    assert_eq!((desk.last_request().method.as_str(), desk.last_request().body.len()), ("ACK", 0));
    hang_up(&mut desk, "a");
}

#[test]
fn an_offer_in_a_reliable_response_that_does_not_suit_ends_the_call() {
    let (mut desk, invite) = reliable(None);
    desk.hear(&answer(&invite, 183, "a", &numbered(7), OFFER));
    desk.command(leg(), LegCommand::RejectEarly { status: code(488) });
    let cancel = desk.last_request().clone();
    assert_eq!(cancel.method, Method::Cancel);
    desk.hear(&answer(&cancel, 200, "a", "", ""));
    desk.hear(&answer(&invite, 487, "a", "", ""));
    desk.at_rest();
}

#[test]
fn a_challenged_prack_is_sent_again_with_credentials() {
    let credentials = Some(Credentials { username: "tandem".into(), password: "secret".to_owned().into() });
    let (mut desk, invite) = dialled(OutgoingInvite { reliable: true, credentials, ..call(Some(OFFER)) });
    desk.hear(&answer(&invite, 183, "a", &numbered(1), ""));
    let first = desk.last_request().clone();
    let challenge = "Proxy-Authenticate: Digest realm=\"p\",nonce=\"n\",qop=\"auth\"\n";
    desk.hear(&answer(&first, 407, "a", challenge, ""));
    let second = desk.last_request().clone();
    assert_eq!((number(&first), number(&second)), (2, 3));
    assert_eq!(second.headers.get_str(HeaderName::RAck), Some("1 1 INVITE"));
    assert!(second.headers.contains(HeaderName::ProxyAuthorization));
    desk.hear(&answer(&second, 407, "a", challenge, ""));
    assert_eq!(desk.sent(), ["PRACK", "PRACK"]);
    desk.hear(&answer(&invite, 486, "a", "", ""));
    desk.at_rest();
}

#[test]
fn the_callee_may_offer_anew_once_the_first_offer_is_settled() {
    let (mut desk, invite) = reliable(Some(OFFER));
    desk.hear(&answer(&invite, 180, "a", CONTACT, ""));
    desk.hear(&of_callee(&invite, "a", "UPDATE", 1, SDP, OFFER));
    assert_eq!(desk.sent(), ["491 UPDATE"]);
    desk.hear(&answer(&invite, 183, "a", &numbered(1), OFFER));
    let prack = desk.last_request().clone();
    desk.hear(&answer(&prack, 200, "a", "", ""));
    desk.told();
    desk.hear(&of_callee(&invite, "a", "UPDATE", 2, SDP, OFFER));
    assert_eq!(desk.told(), [LegEvent::EarlyOffer { offer: OFFER.into() }]);
    desk.hear(&of_callee(&invite, "a", "UPDATE", 3, SDP, OFFER));
    assert!(desk.last_response().headers.contains(HeaderName::RetryAfter));
    desk.command(leg(), LegCommand::AnswerEarly { sdp: OFFER.into() });
    assert_eq!(&desk.last_response().body[..], OFFER.as_bytes());
    assert_eq!(desk.sent(), ["PRACK", "500 UPDATE", "200 UPDATE"]);
    desk.command(leg(), LegCommand::Update { sdp: OFFER.into() });
    let update = desk.last_request().clone();
    assert_eq!(update.method, Method::Update);
    desk.hear(&of_callee(&invite, "a", "UPDATE", 4, SDP, OFFER));
    desk.hear(&answer(&update, 200, "a", CONTACT, OFFER));
    assert_eq!(desk.told(), [LegEvent::ReinviteResult { status: code(200), sdp: Some(OFFER.into()) }]);
    assert_eq!(desk.sent(), ["UPDATE", "491 UPDATE"]);
    desk.hear(&of_callee(&invite, "a", "UPDATE", 5, SDP, OFFER));
    desk.hear(&answer(&invite, 486, "a", "", ""));
    assert_eq!(desk.sent(), ["ACK", "487 UPDATE"]);
    desk.at_rest();
}

#[test]
fn an_update_that_is_under_way_when_the_call_is_answered_still_counts() {
    let (mut desk, invite) = reliable(Some(OFFER));
    desk.hear(&answer(&invite, 183, "a", &numbered(1), OFFER));
    let prack = desk.last_request().clone();
    desk.hear(&answer(&prack, 200, "a", "", ""));
    desk.command(leg(), LegCommand::Update { sdp: OFFER.into() });
    let update = desk.last_request().clone();
    desk.hear(&answer(&invite, 200, "a", CONTACT, ""));
    desk.told();
    desk.hear(&of_callee(&invite, "a", "INVITE", 1, SDP, OFFER));
    assert_eq!(desk.sent(), ["PRACK", "UPDATE", "ACK", "491 INVITE"]);
    desk.hear(&answer(&update, 200, "a", CONTACT, OFFER));
    assert_eq!(desk.told(), [LegEvent::ReinviteResult { status: code(200), sdp: Some(OFFER.into()) }]);
    desk.hear(&of_callee(&invite, "a", "INVITE", 2, SDP, OFFER));
    assert_eq!(desk.told(), [LegEvent::Reinvite { offer: Some(OFFER.into()) }]);
    hang_up(&mut desk, "a");
}

#[test]
fn an_offer_in_prack_is_answered_in_its_200_before_the_call_is() {
    let mut trunk = trunk();
    let profile = Profile { reliable_provisional: ReliableProvisional::WhenSupported, ..Profile::default() };
    trunk.profile = Arc::new(profile);
    let mut desk = Desk::with(UaConfig::default(), trunk);
    desk.hear(&invite("1", "Supported: 100rel\nAllow: UPDATE\n"));
    let leg = desk.invited().leg;
    let ring = LegCommand::Ring { status: code(183), sdp: Some(OFFER.into()) };
    desk.command(leg, ring);
    let (rseq, tag) = (desk.last_response().headers.get_str("RSeq").map(str::to_owned), desk.our_tag());
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    desk.hear(&in_dialog("UPDATE", 2, &tag, SDP, OFFER));
    assert_eq!(desk.sent(), ["100 INVITE", "183 INVITE", "500 UPDATE"]);
    let rack = format!("RAck: {} 1 INVITE\n{SDP}", rseq.expect("an RSeq"));
    desk.hear(&in_dialog("PRACK", 3, &tag, &rack, OFFER));
    assert_eq!(desk.told(), [LegEvent::EarlyOffer { offer: OFFER.into() }]);
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.command(leg, LegCommand::AnswerEarly { sdp: OFFER.into() });
    assert_eq!(desk.sent(), ["200 PRACK", "200 INVITE"]);
    desk.hear(&in_dialog("ACK", 1, &tag, "", ""));
    desk.hear(&in_dialog("BYE", 4, &tag, "", ""));
    desk.at_rest();
}

#[test]
fn an_early_offer_nobody_answers_gets_500() {
    let (mut desk, invite) = reliable(Some(OFFER));
    desk.hear(&answer(&invite, 183, "a", &numbered(1), OFFER));
    let prack = desk.last_request().clone();
    desk.hear(&answer(&prack, 200, "a", "", ""));
    desk.hear(&of_callee(&invite, "a", "UPDATE", 1, SDP, OFFER));
    desk.sent();
    desk.pass(Duration::from_secs(21));
    assert_eq!(desk.sent(), ["500 UPDATE"]);
    desk.hear(&answer(&invite, 486, "a", "", ""));
    desk.at_rest();
}
