//! Requests inside an established call, and outside of any.

use super::*;

#[test]
fn keys_by_info_are_told() {
    let mut desk = Desk::new();
    let (_, tag) = desk.established();
    let relay = "Content-Type: application/dtmf-relay\n";
    desk.hear(&in_dialog("INFO", 2, &tag, relay, "Signal=5\nDuration=160\n"));
    desk.hear(&in_dialog("INFO", 3, &tag, "Content-Type: application/dtmf\n", "#"));
    assert_eq!(
        desk.told(),
        [
            LegEvent::Dtmf { digit: '5', duration_ms: Some(160) },
            LegEvent::Dtmf { digit: '#', duration_ms: None }
        ]
    );
    assert_eq!(desk.sent(), ["200 INFO", "200 INFO"]);
}

#[test]
fn other_infos_are_refused_with_what_would_be_taken() {
    let mut desk = Desk::new();
    let (_, tag) = desk.established();
    desk.hear(&in_dialog("INFO", 2, &tag, "Content-Type: text/plain\n", "hello"));
    assert!(desk.last_response().headers.contains(HeaderName::Accept));
    desk.hear(&in_dialog("INFO", 3, &tag, "Info-Package: foo\n", ""));
    assert!(desk.last_response().headers.contains(HeaderName::RecvInfo));
    desk.hear(&in_dialog("INFO", 4, &tag, "", ""));
    assert_eq!(desk.sent(), ["415 INFO", "469 INFO", "200 INFO"]);
    assert_eq!(desk.told(), []);
}

#[test]
fn a_key_is_sent_by_info() {
    let mut desk = Desk::new();
    let (leg, _) = desk.established();
    desk.command(leg, LegCommand::SendDtmf { digit: '7', duration_ms: 120 });
    let info = desk.last_request();
    assert_eq!(&info.body[..], b"Signal=7\r\nDuration=120\r\n");
    assert_eq!(desk.sent(), ["INFO"]);
}

#[test]
fn numbers_that_return_are_refused() {
    let mut desk = Desk::new();
    let (_, tag) = desk.established();
    desk.hear(&in_dialog("OPTIONS", 9, &tag, "", ""));
    desk.hear(&in_dialog("INFO", 8, &tag, "", ""));
    assert_eq!(desk.sent(), ["200 OPTIONS", "500 INFO"]);
}

#[test]
fn a_foreign_tag_is_no_dialog() {
    let mut desk = Desk::new();
    let (_, tag) = desk.established();
    desk.hear(&in_dialog("BYE", 2, &tag, "", "").replace("tag=theirs", "tag=other"));
    desk.hear(&in_dialog("BYE", 2, "guess", "", "").replace("in-BYE-2", "in-BYE-3"));
    desk.hear(&in_dialog("ACK", 7, "guess", "", ""));
    assert_eq!(desk.sent(), ["481 BYE", "481 BYE"]);
    assert_eq!(desk.told(), []);
}

#[test]
fn options_tell_what_we_can() {
    let mut desk = Desk::new();
    desk.hear(&in_dialog("OPTIONS", 1, "", "", "").replace("Max-Forwards: 70", "Max-Forwards: 0"));
    let headers = &desk.last_response().headers;
    assert!(headers.allow().is_ok_and(|allow| allow.contains(&"INVITE") && allow.contains(&"UPDATE")));
    assert!(headers.contains(HeaderName::Accept) && headers.contains(HeaderName::Supported));
    assert_eq!(desk.sent(), ["200 OPTIONS"]);
}

#[test]
fn methods_without_a_place_here_are_refused_by_name() {
    for (method, status) in [
        ("REGISTER", 405),
        ("MESSAGE", 405),
        ("SUBSCRIBE", 489),
        ("REFER", 403),
        ("DANCE", 501),
        ("BYE", 481),
        ("UPDATE", 481),
    ] {
        let mut desk = Desk::new();
        desk.hear(&in_dialog(method, 1, "", "", ""));
        if matches!(status, 405 | 501) {
            assert!(desk.last_response().headers.contains(HeaderName::Allow), "{method}");
        }
        assert_eq!(desk.sent(), [format!("{status} {method}")]);
    }
}

#[test]
fn while_draining_new_calls_are_refused_and_old_ones_go_on() {
    let mut desk = Desk::new();
    let (_, tag) = desk.established();
    desk.ua.drain(true);
    desk.hear(&invite("9", "").replace("call-1", "call-9"));
    assert_eq!(desk.last_response().headers.get_str(HeaderName::RetryAfter), Some("10"));
    desk.hear(&in_dialog("OPTIONS", 1, "", "", ""));
    desk.hear(&in_dialog("BYE", 2, &tag, "", ""));
    assert_eq!(desk.sent(), ["503 INVITE", "503 OPTIONS", "200 BYE"]);
}

#[test]
fn a_ping_measures_the_round_trip_or_tells_the_silence() {
    let mut desk = Desk::new();
    let target = Target::new(Transport::Udp, address(CARRIER), address(US));
    desk.ua.ping(desk.now, 3, target);
    desk.collect();
    let options = desk.last_request().clone();
    desk.now += Duration::from_millis(40);
    desk.hear(&answer(&options, 404, "x", "", ""));
    let pong = |event: &UaEvent| match event {
        UaEvent::Pong(pong) => *pong,
        _ => panic!("not a pong"),
    };
    let round_trip = Duration::from_millis(40);
    assert_eq!(pong(&desk.told[0]), Pong { id: 3, status: Some(code(404)), round_trip });
    desk.ua.ping(desk.now, 4, target);
    desk.pass(Duration::from_secs(33));
    assert_eq!(pong(&desk.told[1]).status, None);
}
