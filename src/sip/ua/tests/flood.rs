//! More than we take: shed without state, and sources that are not heard.

use super::*;
use crate::sip::flood::FloodPolicy;

fn call(number: u32) -> String {
    invite(&number.to_string(), "").replace("call-1", &format!("call-{number}"))
}

#[test]
fn a_full_house_refuses_without_state_and_the_same_each_time() {
    let mut desk = Desk::with(UaConfig { legs_max: 1, ..UaConfig::default() }, trunk());
    desk.hear(&call(1));
    let before = desk.ua.transaction_counts();
    desk.sent();
    desk.hear(&call(2));
    let first = desk.last_response().to_bytes();
    desk.hear(&call(2));
    assert_eq!(desk.last_response().to_bytes(), first, "one To tag for all copies (RFC 3261 section 8.2.7)");
    assert_eq!(desk.sent(), ["503 INVITE", "503 INVITE"]);
    assert_eq!((desk.ua.transaction_counts(), desk.ua.leg_count()), (before, 1));
    desk.hear(&call(1));
    assert_eq!(desk.sent(), ["100 INVITE"], "the call that got in goes on");
}

#[test]
fn ten_times_too_many_calls_leave_the_admitted_alone_and_nothing_behind() {
    let mut desk = Desk::with(UaConfig { legs_max: 10, ..UaConfig::default() }, trunk());
    for number in 1..=100 {
        desk.hear(&call(number));
    }
    let sent = desk.sent();
    assert_eq!(sent.iter().filter(|text| *text == "100 INVITE").count(), 10);
    assert_eq!(sent.iter().filter(|text| *text == "503 INVITE").count(), 90);
    assert_eq!((desk.ua.leg_count(), desk.ua.transaction_counts().0), (10, 10));
}

#[test]
fn a_trunk_that_may_place_so_many_calls_a_second_gets_503_for_more() {
    let flood = FloodPolicy { invites_per_second: 2, ..FloodPolicy::default() };
    let mut desk = Desk::with(UaConfig { flood, ..UaConfig::default() }, trunk());
    for number in [1, 2, 2, 3] {
        desk.hear(&call(number));
    }
    assert_eq!(desk.sent(), ["100 INVITE", "100 INVITE", "100 INVITE", "503 INVITE"], "a copy costs nothing");
}

#[test]
fn who_sweeps_through_numbers_hears_nothing_even_where_strangers_are_refused() {
    let config = UaConfig { refuse_unknown: true, ..UaConfig::default() };
    let mut desk = Desk::with(config, trunk());
    for number in ["900441234567890", "00972592345678", "011441234567890", "*0441234567890"] {
        desk.hear_from("203.0.113.66:5060", &invite("1", "").replacen("+15550111", number, 1));
    }
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.hear_from("203.0.113.66:5060", &invite("2", ""));
    assert_eq!(desk.sent(), ["403 INVITE"]);
}

#[test]
fn a_source_that_sweeps_on_is_not_heard_any_more() {
    let flood = FloodPolicy { auth_failures: 3, ..FloodPolicy::default() };
    let config = UaConfig { refuse_unknown: true, flood, ..UaConfig::default() };
    let mut desk = Desk::with(config, trunk());
    for number in 0..5 {
        let sweep = invite("1", "").replacen("+15550111", &format!("0097259234567{number}"), 1);
        desk.hear_from("203.0.113.66:5060", &sweep);
    }
    desk.hear_from("203.0.113.66:5060", &invite("2", ""));
    assert_eq!(desk.sent(), Vec::<String>::new(), "banned");
    desk.hear_from("203.0.113.67:5060", &invite("2", ""));
    assert_eq!(desk.sent(), ["403 INVITE"], "its neighbour is not");
}

#[test]
fn strangers_beyond_their_rate_are_not_even_looked_at() {
    let flood = FloodPolicy { requests_per_second: 2, burst: 2, ..FloodPolicy::default() };
    let config = UaConfig { refuse_unknown: true, flood, ..UaConfig::default() };
    let mut desk = Desk::with(config, trunk());
    for _ in 0..5 {
        desk.hear_from("203.0.113.66:5060", &in_dialog("OPTIONS", 1, "", "", ""));
    }
    assert_eq!(desk.sent(), ["403 OPTIONS", "403 OPTIONS"]);
}

#[test]
fn a_draining_node_refuses_calls_without_state() {
    let mut desk = Desk::new();
    desk.ua.drain(true);
    desk.hear(&call(1));
    assert_eq!(desk.sent(), ["503 INVITE"]);
    assert_eq!(desk.ua.transaction_counts(), (0, 0));
}

#[test]
fn wrong_passwords_from_a_trunk_that_must_have_one_ban_it_for_a_while() {
    let mut locked = trunk();
    locked.inbound_auth = true;
    locked.username = Some("tandem".into());
    locked.password = Some(secrecy::SecretString::from("correct horse"));
    let flood = FloodPolicy { auth_failures: 2, ..FloodPolicy::default() };
    let mut desk = Desk::with(UaConfig { flood, ..UaConfig::default() }, locked);
    let wrong = "Authorization: Digest username=\"tandem\", realm=\"tandem\", nonce=\"0\", uri=\"sip:x\", response=\"0\"\n";
    for number in 1..=4 {
        desk.hear(&invite(&number.to_string(), wrong).replace("call-1", &format!("call-{number}")));
    }
    assert_eq!(
        desk.sent(),
        ["401 INVITE", "401 INVITE", "401 INVITE"],
        "the third bans, the fourth is not heard"
    );
    desk.pass(Duration::from_secs(301));
    desk.sent();
    desk.hear(&call(9));
    assert_eq!(desk.sent(), ["401 INVITE"]);
}
