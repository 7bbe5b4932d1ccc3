//! CANCEL, BYE and the ways they cross.

use super::*;

fn cancel() -> String {
    in_dialog("CANCEL", 1, "", "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\n", "")
}

#[test]
fn a_cancelled_call_gets_487_and_is_told() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", ""));
    desk.hear(&cancel());
    assert_eq!(desk.sent(), ["100 INVITE", "200 CANCEL", "487 INVITE"]);
    let reason = Some("SIP;cause=200;text=\"Call completed elsewhere\"".to_owned());
    assert_eq!(desk.told(), [LegEvent::Cancelled { reason }]);
    desk.hear(&cancel());
    assert_eq!(desk.sent(), ["200 CANCEL"]);
    assert_eq!(desk.ua.leg_count(), 0);
}

#[test]
fn a_cancel_after_the_answer_has_no_effect() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", ""));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    let tag = desk.our_tag();
    desk.sent();
    desk.hear(&cancel());
    assert_eq!(desk.sent(), ["200 CANCEL"]);
    desk.hear(&in_dialog("ACK", 1, &tag, "", ""));
    assert_eq!(desk.told(), [LegEvent::Acked { answer: None }]);
}

#[test]
fn an_answer_after_the_cancel_is_ignored() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", ""));
    let leg = desk.invited().leg;
    desk.hear(&cancel());
    desk.sent();
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    assert_eq!(desk.sent(), Vec::<String>::new());
}

#[test]
fn a_cancel_of_nothing_gets_481() {
    let mut desk = Desk::new();
    desk.hear(&cancel());
    assert_eq!(desk.sent(), ["481 CANCEL"]);
}

#[test]
fn a_bye_ends_the_call_with_its_reason_and_twice_gets_200_twice() {
    let mut desk = Desk::new();
    let (_, tag) = desk.established();
    let bye = in_dialog("BYE", 2, &tag, "Reason: Q.850;cause=16\n", "");
    desk.hear_from("192.0.2.77:5060", &bye);
    let reason = Some("Q.850;cause=16".to_owned());
    assert_eq!(desk.told(), [LegEvent::Ended { by: EndedBy::Peer, reason, cause: Some(16) }]);
    desk.hear(&bye);
    assert_eq!(desk.sent(), ["200 BYE", "200 BYE"]);
    desk.hear(&in_dialog("BYE", 3, &tag, "", ""));
    assert_eq!(desk.sent(), ["481 BYE"]);
}

#[test]
fn crossing_byes_are_both_answered() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.command(leg, LegCommand::Hangup { reason: None });
    let ours = desk.last_request().clone();
    assert!(matches!(desk.told()[..], [LegEvent::Ended { by: EndedBy::Us, .. }]));
    desk.hear(&in_dialog("BYE", 2, &tag, "", ""));
    assert_eq!(desk.sent(), ["BYE", "481 BYE"]);
    desk.hear(&answer(&ours, 481, "theirs", "", ""));
    desk.pass(Duration::from_secs(60));
    assert_eq!((desk.told(), desk.sent()), (vec![], vec![]));
    assert!(!desk.ua.is_busy());
}

#[test]
fn our_bye_waits_for_the_ack_and_follows_the_route_set() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", "Record-Route: <sip:192.0.2.50:5080;lr>\n"));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    let tag = desk.our_tag();
    desk.sent();
    desk.command(leg, LegCommand::Hangup { reason: Some(HangupReason::normal()) });
    assert!(matches!(desk.told()[..], [LegEvent::Ended { by: EndedBy::Us, .. }]));
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.hear(&in_dialog("ACK", 1, &tag, "", ""));
    assert_eq!(desk.last_target().remote, address("192.0.2.50:5080"));
    let bye = desk.last_request();
    assert_eq!(bye.uri.as_str(), "sip:+15550122@192.0.2.1:5060");
    assert_eq!(bye.headers.get_str(HeaderName::Route), Some("<sip:192.0.2.50:5080;lr>"));
    assert_eq!(bye.headers.get_str(HeaderName::Reason), Some("Q.850;cause=16;text=\"Normal call clearing\""));
    assert_eq!(desk.sent(), ["BYE"]);
}

#[test]
fn a_hang_up_before_the_answer_is_480_with_its_reason() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", ""));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Hangup { reason: None });
    assert!(desk.last_response().headers.get_str(HeaderName::Reason).is_some_and(|r| r.starts_with("Q.850")));
    assert_eq!(desk.sent(), ["100 INVITE", "480 INVITE"]);
}

#[test]
fn an_early_bye_ends_the_invite_with_487() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", ""));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Ring { status: StatusCode::RINGING, sdp: None });
    let tag = desk.our_tag();
    desk.sent();
    desk.hear(&in_dialog("BYE", 2, &tag, "", ""));
    assert_eq!(desk.sent(), ["200 BYE", "487 INVITE"]);
    assert_eq!(desk.told(), [LegEvent::Cancelled { reason: None }]);
}
