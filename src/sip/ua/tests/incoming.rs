//! Incoming calls up to their ACK.

use super::*;

#[test]
fn an_invite_is_told_once_and_answered_with_100_at_once() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", ""));
    assert_eq!(desk.last_response().headers.to().expect("a To").tag(), None);
    assert_eq!(desk.sent(), ["100 INVITE"]);
    let told = desk.invited();
    assert_eq!((told.called.as_str(), told.caller.as_deref()), ("+15550111", Some("+15550122")));
    assert_eq!(told.offer.as_deref(), Some(OFFER.as_bytes()));
    desk.hear(&invite("1", ""));
    assert_eq!(desk.sent(), ["100 INVITE"]);
    assert!(desk.told.is_empty());
}

#[test]
fn ringing_and_answer_carry_one_tag_our_contact_and_record_route_in_order() {
    let mut desk = Desk::new();
    desk.hear(&invite(
        "1",
        "Record-Route: <sip:192.0.2.1:5061;transport=tls;lr;r2=on>\nRecord-Route: <sip:192.0.2.1;lr;r2=on>\n",
    ));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Ring { status: StatusCode::RINGING, sdp: None });
    let tag = desk.our_tag();
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    assert_eq!(desk.our_tag(), tag);
    let ok = desk.last_response();
    let routes: Vec<_> = ok.headers.rows(HeaderName::RecordRoute).map(String::from_utf8_lossy).collect();
    assert_eq!(routes, ["<sip:192.0.2.1:5061;transport=tls;lr;r2=on>", "<sip:192.0.2.1;lr;r2=on>"]);
    assert_eq!(ok.headers.get_str(HeaderName::Contact), Some("<sip:198.51.100.20:5060>"));
    assert_eq!(&ok.body[..], OFFER.as_bytes());
    assert_eq!(desk.sent(), ["100 INVITE", "180 INVITE", "200 INVITE"]);
}

#[test]
fn a_200_is_repeated_on_every_transport_and_ends_in_bye() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut desk = Desk::new();
        desk.transport = transport;
        desk.hear(&invite("1", ""));
        let leg = desk.invited().leg;
        desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
        desk.sent();
        let mut at = Vec::new();
        while desk.told().is_empty() {
            at.push(desk.tick());
        }
        assert_eq!(at, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500, 32_000]);
        let mut expected = vec!["200 INVITE"; 10];
        expected.push("BYE");
        assert_eq!(desk.sent(), expected, "{transport}");
        assert_eq!(desk.ua.leg_count(), 0);
    }
}

#[test]
fn an_ack_stops_the_200_and_a_repeated_invite_changes_nothing() {
    let mut desk = Desk::new();
    desk.established();
    desk.hear(&invite("1", ""));
    desk.pass(Duration::from_secs(60));
    assert_eq!(desk.sent(), Vec::<String>::new());
    assert_eq!(desk.ua.transaction_counts(), (0, 0));
}

#[test]
fn a_late_offer_gets_its_answer_with_the_ack() {
    let mut desk = Desk::new();
    desk.hear(&invite_with("1", "", ""));
    let invited = desk.invited();
    assert_eq!(invited.offer, None);
    desk.command(invited.leg, LegCommand::Answer { sdp: OFFER.into() });
    let tag = desk.our_tag();
    desk.hear(&in_dialog("ACK", 1, &tag, "Content-Type: application/sdp\n", OFFER));
    assert_eq!(desk.told(), [LegEvent::Acked { answer: Some(OFFER.into()) }]);
}

#[test]
fn an_ack_without_the_answer_ends_the_call() {
    let mut desk = Desk::new();
    desk.hear(&invite_with("1", "", ""));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    let tag = desk.our_tag();
    desk.sent();
    desk.hear(&in_dialog("ACK", 1, &tag, "", ""));
    assert!(matches!(desk.told()[..], [LegEvent::Ended { by: EndedBy::ProtocolError, .. }]));
    assert_eq!(desk.sent(), ["BYE"]);
}

#[test]
fn a_rejection_carries_what_it_was_given_and_waits_for_its_ack() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", ""));
    let leg = desk.invited().leg;
    let headers = vec![("Retry-After".into(), "5".into()), ("X-Bad".into(), "a\r\nEvil: yes".into())];
    desk.command(leg, LegCommand::Reject { status: code(486), reason: Some("Occupied".into()), headers });
    assert!(matches!(desk.told()[..], [LegEvent::Ended { by: EndedBy::Us, .. }]));
    let response = desk.last_response();
    assert_eq!(&response.reason.to_text(), "Occupied");
    assert_eq!(response.headers.get_str(HeaderName::RetryAfter), Some("5"));
    assert!(!response.headers.contains("Evil") && !response.headers.contains("X-Bad"));
    assert_eq!(desk.sent(), ["100 INVITE", "486 INVITE"]);
    desk.tick();
    assert_eq!(desk.sent(), ["486 INVITE"]);
    desk.hear(&in_dialog("ACK", 1, "any", "", "").replace("in-ACK-1", "1"));
    desk.pass(Duration::from_secs(60));
    assert_eq!(desk.sent(), Vec::<String>::new());
    assert_eq!(desk.ua.transaction_counts(), (0, 0));
}

#[test]
fn a_call_nobody_answers_gets_480() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", ""));
    desk.sent();
    assert_eq!(desk.tick(), 180_000);
    assert_eq!(desk.sent(), ["480 INVITE"]);
    assert!(matches!(desk.told()[..], [LegEvent::Ended { by: EndedBy::Us, .. }]));
}

#[test]
fn an_invite_that_expires_gets_487() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", "Expires: 20\n"));
    desk.sent();
    assert_eq!(desk.tick(), 20_000);
    assert_eq!(desk.sent(), ["487 INVITE"]);
}

#[test]
fn what_cannot_be_served_is_refused_as_the_rfcs_say() {
    let sdp = "Content-Type: application/sdp\n";
    for (extra, replace, status) in [
        ("Require: precondition\n", None, 420),
        ("Accept: text/plain\n", None, 406),
        ("", Some((sdp, "Content-Type: text/plain\n")), 415),
        ("", Some((sdp, "Content-Type: application/sdp\nContent-Encoding: gzip\n")), 415),
        ("", Some(("INVITE sip:+15550111@198.51.100.20:5060 SIP", "INVITE nobody:x SIP")), 416),
        ("", Some(("To: <sip:+15550111@198.51.100.20>", "To: <sip:+15550111@198.51.100.20>;tag=x")), 481),
        ("", Some(("Contact: <sip:+15550122@192.0.2.1:5060>\n", "")), 400),
        ("Session-Expires: 60\nSupported: timer\n", None, 422),
    ] {
        let mut desk = Desk::new();
        let mut text = invite("1", extra);
        if let Some((from, to)) = replace {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        desk.hear(&text);
        assert_eq!(desk.sent(), [format!("{status} INVITE")], "{extra:?} {replace:?}");
        assert!(desk.told.is_empty());
    }
}

#[test]
fn too_short_an_interval_of_a_client_without_timers_is_none() {
    for interval in ["0", "1", "10;refresher=uac", "89"] {
        let mut desk = Desk::new();
        desk.hear(&invite("1", &format!("Session-Expires: {interval}\n")));
        let leg = desk.invited().leg;
        desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
        assert!(!desk.last_response().headers.contains(HeaderName::SessionExpires), "{interval}");
    }
}

#[test]
fn a_refused_extension_and_interval_are_named() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", "Require: timer, precondition\n"));
    assert_eq!(desk.last_response().headers.get_str(HeaderName::Unsupported), Some("precondition"));
    desk.hear(&invite("2", "Session-Expires: 60\nSupported: timer\n").replace("call-1", "call-2"));
    assert_eq!(desk.last_response().headers.get_str(HeaderName::MinSe), Some("90"));
}

#[test]
fn the_same_call_by_another_way_is_merged() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", ""));
    desk.hear(&invite("2", ""));
    assert_eq!(desk.sent(), ["100 INVITE", "482 INVITE"]);
}

#[test]
fn a_peer_of_rfc_2543_has_its_whole_call() {
    let mut desk = Desk::new();
    let old = |text: String| text.replace(";branch=z9hG4bK1", "").replace(";branch=z9hG4bKin-ACK-1", "");
    desk.hear(&old(invite("1", "")).replace(";tag=theirs", ""));
    let leg = desk.invited().leg;
    desk.hear(&old(invite("1", "")).replace(";tag=theirs", ""));
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    let tag = desk.our_tag();
    assert_eq!(desk.sent(), ["100 INVITE", "100 INVITE", "200 INVITE"]);
    desk.hear(&old(in_dialog("ACK", 1, &tag, "", "")).replace(";tag=theirs", ""));
    assert_eq!(desk.told(), [LegEvent::Acked { answer: None }]);
}

#[test]
fn a_required_100rel_is_kept() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", "Require: 100rel\n"));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Ring { status: code(183), sdp: Some(OFFER.into()) });
    let rseq = desk.last_response().headers.number(HeaderName::RSeq).ok().flatten().expect("an RSeq");
    let tag = desk.our_tag();
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    assert_eq!(desk.sent(), ["100 INVITE", "183 INVITE"]);
    assert_eq!((desk.tick(), desk.tick()), (500, 1_500));
    assert_eq!(desk.sent(), ["183 INVITE", "183 INVITE"]);
    desk.hear(&in_dialog("PRACK", 2, &tag, &format!("RAck: {} 1 INVITE\n", rseq + 1), ""));
    assert_eq!(desk.sent(), ["481 PRACK"]);
    desk.hear(&in_dialog("PRACK", 3, &tag, &format!("RAck: {rseq} 1 INVITE\n"), ""));
    assert_eq!(desk.sent(), ["200 PRACK", "200 INVITE"]);
}

#[test]
fn a_session_timer_is_granted_and_kept() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", "Supported: timer\nSession-Expires: 1800\n"));
    let leg = desk.invited().leg;
    desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
    let ok = desk.last_response();
    assert_eq!(ok.headers.get_str(HeaderName::SessionExpires), Some("1800;refresher=uac"));
    assert_eq!(ok.headers.get_str(HeaderName::Require), Some("timer"));
    let tag = desk.our_tag();
    desk.hear(&in_dialog("ACK", 1, &tag, "", ""));
    desk.pass(Duration::from_secs(900));
    desk.hear(&in_dialog("UPDATE", 2, &tag, "Supported: timer\nSession-Expires: 1800;refresher=uac\n", ""));
    desk.told();
    assert_eq!(desk.sent().last().map(String::as_str), Some("200 UPDATE"));
    desk.pass(Duration::from_secs(1_767));
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.pass(Duration::from_millis(1_200));
    assert_eq!(desk.sent(), ["BYE"]);
    assert!(matches!(desk.told()[..], [LegEvent::Ended { by: EndedBy::SessionExpired, .. }]));
}

#[test]
fn a_session_that_is_ours_to_refresh_is_refreshed() {
    for (allow, method) in [("Allow: INVITE, UPDATE\n", "UPDATE"), ("", "INVITE")] {
        let mut desk = Desk::new();
        desk.hear(&invite("1", &format!("{allow}Session-Expires: 600;refresher=uas\n")));
        let leg = desk.invited().leg;
        desk.command(leg, LegCommand::Answer { sdp: OFFER.into() });
        let tag = desk.our_tag();
        desk.hear(&in_dialog("ACK", 1, &tag, "", ""));
        desk.sent();
        desk.pass(Duration::from_secs(300));
        let request = desk.last_request().clone();
        assert_eq!(request.method.as_str(), method);
        assert_eq!(request.headers.get_str(HeaderName::SessionExpires), Some("600;refresher=uac"));
        let body = if method == "INVITE" { OFFER } else { "" };
        desk.hear(&answer(&request, 200, "theirs", "Session-Expires: 600;refresher=uac\n", body));
        desk.sent();
        desk.pass(Duration::from_secs(299));
        assert_eq!(desk.sent(), Vec::<String>::new());
        desk.pass(Duration::from_secs(1));
        assert_eq!(desk.sent(), [method]);
    }
}
