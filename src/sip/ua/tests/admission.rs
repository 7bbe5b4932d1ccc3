//! Who is let in, and who hears nothing.

use secrecy::SecretString;

use super::*;
use crate::sip::digest::{Challenged, Credentials, DigestClient};

#[test]
fn strangers_hear_nothing_and_leave_no_trace() {
    let mut desk = Desk::new();
    for text in [
        invite("1", ""),
        in_dialog("OPTIONS", 1, "", "", ""),
        in_dialog("REGISTER", 1, "", "", ""),
        "noise".into(),
    ] {
        desk.hear_from("203.0.113.66:5060", &text);
    }
    assert_eq!(desk.sent(), Vec::<String>::new());
    assert!(desk.told.is_empty());
    assert_eq!((desk.ua.leg_count(), desk.ua.transaction_counts()), (0, (0, 0)));
}

#[test]
fn strangers_may_be_told_no_a_few_times_a_second() {
    let config = UaConfig { refuse_unknown: true, stateless_replies_per_second: 3, ..UaConfig::default() };
    let mut desk = Desk::with(config, trunk());
    let text = in_dialog("OPTIONS", 1, "", "", "");
    for _ in 0..10 {
        desk.hear_from("203.0.113.66:5060", &text);
    }
    assert!(desk.last_response().to_bytes().len() <= text.len() + text.lines().count());
    assert_eq!(desk.sent(), ["403 OPTIONS"; 3]);
    assert_eq!(desk.ua.transaction_counts(), (0, 0));
}

#[test]
fn scanners_hear_nothing_even_from_a_known_address() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", "User-Agent: friendly-scanner\n"));
    desk.hear(&in_dialog("OPTIONS", 1, "", "User-Agent: sipVicious 0.3\n", ""));
    assert_eq!(desk.sent(), Vec::<String>::new());
}

#[test]
fn a_malformed_request_of_a_trunk_is_answered_without_state() {
    let mut desk = Desk::new();
    desk.hear(&invite("1", "").replace("CSeq: 1 INVITE", "CSeq: 1 BYE"));
    assert_eq!(desk.sent().len(), 1);
    assert_eq!(desk.ua.transaction_counts(), (0, 0));
    desk.hear_from("203.0.113.66:5060", &invite("2", "").replace("CSeq: 1 INVITE", "CSeq: 1 BYE"));
    assert_eq!(desk.sent().len(), 0);
}

#[test]
fn responses_go_where_the_request_came_from() {
    let mut desk = Desk::new();
    desk.hear_from("192.0.2.1:39999", &invite("1", ""));
    assert_eq!(desk.last_target().remote, address("192.0.2.1:39999"));
    let via = desk.last_response().headers.via_top().expect("a Via");
    assert_eq!(via.rport(), Some(Some(39_999)));
    desk.hear_from("192.0.2.1:39999", &invite("2", "").replace(";rport", "").replace("call-1", "call-2"));
    assert_eq!(desk.last_target().remote, address("192.0.2.1:5060"));
    let elsewhere =
        invite("3", "").replace(";rport", "").replace("UDP 192.0.2.1:5060", "UDP proxy.example:5070");
    desk.hear_from("192.0.2.8:1234", &elsewhere.replace("call-1", "call-3"));
    assert_eq!(desk.last_target().remote, address("192.0.2.8:5070"));
    let via = desk.last_response().headers.via_top().expect("a Via");
    assert_eq!(via.received(), Some([192, 0, 2, 8].into()));
}

#[test]
fn a_full_house_says_503() {
    let mut desk = Desk::with(UaConfig { legs_max: 1, ..UaConfig::default() }, trunk());
    desk.hear(&invite("1", ""));
    desk.hear(&invite("2", "").replace("call-1", "call-2"));
    assert!(desk.last_response().headers.contains(HeaderName::RetryAfter));
    assert_eq!(desk.sent(), ["100 INVITE", "503 INVITE"]);
    let mut desk = Desk::with(UaConfig { transactions_max: 1, ..UaConfig::default() }, trunk());
    desk.hear(&invite("1", ""));
    desk.hear(&invite("2", "").replace("call-1", "call-2"));
    desk.hear(&invite("1", ""));
    assert_eq!(desk.sent(), ["100 INVITE", "503 INVITE", "100 INVITE"]);
    assert_eq!(desk.ua.transaction_counts().0, 1);
}

#[test]
fn a_trunk_full_of_calls_is_temporarily_unavailable() {
    let mut narrow = trunk();
    narrow.max_calls = 1;
    let mut desk = Desk::with(UaConfig::default(), narrow);
    desk.hear(&invite("1", ""));
    desk.hear(&invite("2", "").replace("call-1", "call-2"));
    assert_eq!(desk.sent(), ["100 INVITE", "480 INVITE"]);
}

#[test]
fn a_trunk_with_credentials_asks_for_them() {
    let mut locked = trunk();
    locked.inbound_auth = true;
    locked.username = Some("tandem".into());
    locked.password = Some(SecretString::from("correct horse"));
    let mut desk = Desk::with(UaConfig::default(), locked);
    desk.hear(&invite("1", ""));
    let challenge = desk.last_response().clone();
    assert_eq!(desk.sent(), ["401 INVITE"]);
    for (password, branch, expected) in [("wrong", "2", "401 INVITE"), ("correct horse", "3", "100 INVITE")] {
        let password = SecretString::from(password);
        let mut client = DigestClient::new(Credentials { username: "tandem".into(), password });
        client.challenged(&challenge.headers, &mut Challenged::default()).expect("a challenge we know");
        let uri = "sip:+15550111@198.51.100.20:5060";
        let answers = client.authorize("INVITE", uri, OFFER.as_bytes(), "0123456789");
        let rows: String =
            answers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_text())).collect();
        desk.hear(&invite(branch, &rows).replace("call-1", &format!("call-{branch}")));
        assert_eq!(desk.sent(), [expected]);
    }
}
