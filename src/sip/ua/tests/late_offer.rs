//! INVITEs without an offer whose caller wants reliable responses.

use super::*;

const ANSWER: &str =
    "v=0\r\no=- 9 9 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\n";

/// Rings with our offer; returns the leg, our tag, and the RSeq.
fn ringing(desk: &mut Desk) -> (LegId, String, u32) {
    desk.hear(&invite_with("1", "Require: 100rel\n", ""));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Ring { status: code(180), sdp: Some(OFFER.into()) });
    let response = desk.last_response();
    assert_eq!(response.body, OFFER.as_bytes());
    let rseq = response.headers.number(HeaderName::RSeq).ok().flatten().expect("an RSeq");
    (leg, desk.our_tag(), rseq)
}

fn prack(cseq: u32, tag: &str, rseq: u32, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    in_dialog("PRACK", cseq, tag, &format!("RAck: {rseq} 1 INVITE\n{kind}"), body)
}

fn bye(desk: &mut Desk, cseq: u32, tag: &str) {
    desk.hear(&in_dialog("BYE", cseq, tag, "", ""));
    desk.told();
    desk.at_rest();
}

#[test]
fn our_offer_stands_in_the_first_reliable_response_and_the_prack_answers_it() {
    let mut desk = Desk::new();
    let (leg, tag, rseq) = ringing(&mut desk);
    desk.command(leg, LegCommand::Ring { status: code(183), sdp: Some(OFFER.into()) });
    desk.hear(&prack(2, &tag, rseq, ANSWER));
    assert_eq!(desk.told(), [LegEvent::EarlyAnswer { answer: ANSWER.into() }]);
    // The second response waited, and does not offer again.
    assert_eq!((desk.last_response().status, desk.last_response().body.len()), (code(183), 0));
    desk.hear(&prack(3, &tag, rseq + 1, ""));
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    assert_eq!((desk.last_response().status, desk.last_response().body.len()), (code(200), 0));
    desk.hear(&in_dialog("ACK", 1, &tag, "", ""));
    assert_eq!(desk.told(), [LegEvent::Acked { answer: None }]);
    bye(&mut desk, 4, &tag);
}

#[test]
fn a_prack_without_the_answer_leaves_the_offer_to_the_200() {
    let mut desk = Desk::new();
    let (leg, tag, rseq) = ringing(&mut desk);
    desk.hear(&in_dialog("UPDATE", 2, &tag, "Content-Type: application/sdp\n", OFFER));
    assert_eq!(desk.last_response().status, code(491));
    desk.hear(&prack(3, &tag, rseq, ""));
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    assert_eq!(desk.last_response().body, OFFER.as_bytes());
    desk.hear(&in_dialog("ACK", 1, &tag, "Content-Type: application/sdp\n", ANSWER));
    assert_eq!(desk.told(), [LegEvent::Acked { answer: Some(ANSWER.into()) }]);
    bye(&mut desk, 4, &tag);
}

#[test]
fn without_reliable_responses_the_offer_waits_for_the_200() {
    let mut desk = Desk::new();
    desk.hear(&invite_with("1", "", ""));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Ring { status: code(183), sdp: Some(OFFER.into()) });
    assert!(desk.last_response().body.is_empty());
    desk.command(leg, LegCommand::Reject { status: code(486), reason: None, headers: Vec::new() });
    let tag = desk.our_tag();
    desk.hear(&in_dialog("ACK", 1, &tag, "", "").replace("in-ACK-1", "1"));
    desk.told();
    desk.at_rest();
}
