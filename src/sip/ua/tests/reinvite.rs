//! Changing established sessions.

use super::*;

const SDP: &str = "Content-Type: application/sdp\n";

#[test]
fn a_hold_is_told_and_answered_and_moves_the_target() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    let moved = in_dialog("INVITE", 2, &tag, SDP, OFFER)
        .replace("<sip:+15550122@192.0.2.1:5060>", "<sip:new@192.0.2.90:5066>");
    desk.hear(&moved);
    assert_eq!(desk.told(), [LegEvent::Reinvite { offer: Some(OFFER.into()) }]);
    desk.command(leg, LegCommand::AnswerReinvite { sdp: OFFER.into() });
    assert_eq!(desk.our_tag(), tag);
    assert_eq!(desk.sent(), ["100 INVITE", "200 INVITE"]);
    desk.tick();
    assert_eq!(desk.sent(), ["200 INVITE"]);
    desk.hear(&in_dialog("ACK", 2, &tag, "", ""));
    assert_eq!(desk.told(), []);
    desk.command(leg, LegCommand::Hangup { reason: None });
    assert_eq!(desk.last_request().uri.as_str(), "sip:new@192.0.2.90:5066");
    assert_eq!(desk.last_target().remote, address("192.0.2.90:5066"));
}

#[test]
fn a_reinvite_without_sdp_gets_an_offer_and_answers_in_the_ack() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.hear(&in_dialog("INVITE", 2, &tag, "", ""));
    assert_eq!(desk.told(), [LegEvent::Reinvite { offer: None }]);
    desk.command(leg, LegCommand::AnswerReinvite { sdp: OFFER.into() });
    desk.hear(&in_dialog("ACK", 2, &tag, SDP, OFFER));
    assert_eq!(desk.told(), [LegEvent::ReinviteAcked { answer: Some(OFFER.into()) }]);
}

#[test]
fn a_refused_reinvite_leaves_the_call_and_its_target() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.hear(
        &in_dialog("INVITE", 2, &tag, SDP, OFFER)
            .replace("<sip:+15550122@192.0.2.1:5060>", "<sip:new@192.0.2.90>"),
    );
    desk.told();
    desk.command(leg, LegCommand::RejectReinvite { status: code(488) });
    assert_eq!(desk.sent(), ["100 INVITE", "488 INVITE"]);
    desk.command(leg, LegCommand::Hangup { reason: None });
    assert_eq!(desk.last_request().uri.as_str(), "sip:+15550122@192.0.2.1:5060");
}

#[test]
fn a_second_offer_while_one_is_open_is_refused_by_whose_it_is() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.hear(&in_dialog("INVITE", 2, &tag, SDP, OFFER));
    desk.hear(&in_dialog("INVITE", 3, &tag, SDP, OFFER));
    assert!(desk.last_response().headers.contains(HeaderName::RetryAfter));
    desk.hear(&in_dialog("UPDATE", 4, &tag, SDP, OFFER));
    assert_eq!(desk.sent(), ["100 INVITE", "500 INVITE", "500 UPDATE"]);
    desk.command(leg, LegCommand::AnswerReinvite { sdp: OFFER.into() });
    desk.hear(&in_dialog("ACK", 2, &tag, "", ""));
    desk.command(leg, LegCommand::Reinvite { sdp: OFFER.into() });
    desk.sent();
    desk.hear(&in_dialog("INVITE", 5, &tag, SDP, OFFER));
    assert_eq!(desk.sent(), ["491 INVITE"]);
}

#[test]
fn our_reinvite_is_acknowledged_and_its_answer_told() {
    let mut desk = Desk::new();
    let (leg, _) = desk.established();
    desk.command(leg, LegCommand::Reinvite { sdp: OFFER.into() });
    let ours = desk.last_request().clone();
    let ok = answer(&ours, 200, "theirs", "Contact: <sip:moved@192.0.2.3>\n", OFFER);
    desk.hear(&ok);
    assert_eq!(desk.told(), [LegEvent::ReinviteResult { status: StatusCode::OK, sdp: Some(OFFER.into()) }]);
    assert_eq!(desk.last_request().uri.as_str(), "sip:moved@192.0.2.3");
    desk.hear(&ok);
    assert_eq!(desk.sent(), ["INVITE", "ACK", "ACK"]);
}

#[test]
fn after_a_glare_we_wait_and_try_again() {
    let mut desk = Desk::new();
    let (leg, _) = desk.established();
    desk.command(leg, LegCommand::Reinvite { sdp: OFFER.into() });
    let first = desk.last_request().clone();
    desk.hear(&answer(&first, 491, "theirs", "", ""));
    assert_eq!((desk.sent(), desk.told()), (vec!["INVITE".to_owned(), "ACK".to_owned()], vec![]));
    desk.pass(Duration::from_millis(2_000));
    let again = desk.last_request().clone();
    assert_eq!(desk.sent().first().map(String::as_str), Some("INVITE"));
    assert!(again.headers.cseq().expect("a CSeq").number > first.headers.cseq().expect("a CSeq").number);
    desk.hear(&answer(&again, 200, "theirs", "", OFFER));
    assert!(matches!(desk.told()[..], [LegEvent::ReinviteResult { sdp: Some(_), .. }]));
}

#[test]
fn a_reinvite_the_peer_does_not_know_ends_the_call() {
    let mut desk = Desk::new();
    let (leg, _) = desk.established();
    desk.command(leg, LegCommand::Reinvite { sdp: OFFER.into() });
    let ours = desk.last_request().clone();
    desk.hear(&answer(&ours, 481, "theirs", "", ""));
    assert!(matches!(desk.told()[..], [LegEvent::Ended { by: EndedBy::Lost, .. }]));
    assert_eq!(desk.sent(), ["INVITE", "ACK", "BYE"]);
}

#[test]
fn a_failed_reinvite_leaves_the_call() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.command(leg, LegCommand::Reinvite { sdp: OFFER.into() });
    let ours = desk.last_request().clone();
    desk.hear(&answer(&ours, 488, "theirs", "", ""));
    assert_eq!(desk.told(), [LegEvent::ReinviteResult { status: code(488), sdp: None }]);
    desk.hear(&in_dialog("INFO", 2, &tag, "", ""));
    assert_eq!(desk.sent(), ["INVITE", "ACK", "200 INFO"]);
}

#[test]
fn an_update_with_an_offer_is_answered_and_one_without_refreshes() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.hear(&in_dialog("UPDATE", 2, &tag, SDP, OFFER));
    assert_eq!(desk.told(), [LegEvent::Reinvite { offer: Some(OFFER.into()) }]);
    desk.command(leg, LegCommand::AnswerReinvite { sdp: OFFER.into() });
    desk.hear(&in_dialog("UPDATE", 3, &tag, "", ""));
    assert_eq!(desk.sent(), ["200 UPDATE", "200 UPDATE"]);
    assert_eq!(desk.told(), []);
}

#[test]
fn a_reinvite_before_the_ack_proves_that_our_200_arrived() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", ""));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    let tag = desk.our_tag();
    desk.hear(&in_dialog("INVITE", 2, &tag, SDP, OFFER));
    assert_eq!(
        desk.told(),
        [LegEvent::Acked { answer: None }, LegEvent::Reinvite { offer: Some(OFFER.into()) }]
    );
}

#[test]
fn a_cancelled_reinvite_gets_487_and_the_call_goes_on() {
    let mut desk = Desk::new();
    let (_, tag) = desk.established();
    desk.hear(&in_dialog("INVITE", 2, &tag, SDP, OFFER));
    desk.sent();
    let cancel = in_dialog("CANCEL", 2, &tag, "", "").replace("z9hG4bK1", "z9hG4bKin-INVITE-2");
    desk.hear(&cancel);
    assert_eq!(desk.sent(), ["200 CANCEL", "487 INVITE"]);
    assert_eq!(desk.ua.leg_count(), 1);
}
