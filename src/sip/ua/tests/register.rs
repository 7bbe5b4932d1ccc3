//! Phones that register with us, and call.

use secrecy::SecretString;

use super::*;
use crate::sip::digest::{Algorithm, Challenged, Credentials, DigestClient, ha1};
use crate::sip::registrar::{Phone, PhoneBook, RegistrarConfig, Secret};

const PHONE: &str = "203.0.113.7:31400";

fn book() -> PhoneBook {
    let hash = |algorithm| SecretString::from(ha1(algorithm, "ann", "example.com", "right"));
    let secret = Secret::Ha1 { md5: hash(Algorithm::Md5), sha256: hash(Algorithm::Sha256) };
    let ann = Phone::new("ann", secret, Some("+15550142".into()), Vec::new());
    PhoneBook {
        realm: "example.com".into(),
        domains: vec!["example.com".into()],
        phones: [("ann".to_owned(), ann)].into(),
        settings: RegistrarConfig::default(),
    }
}

fn open() -> Desk {
    let mut desk = Desk::new();
    desk.ua.set_phones(Arc::new(book()));
    desk
}

fn register(cseq: u32, domain: &str, user: &str, extra: &str) -> String {
    format!(
        "REGISTER sip:{domain} SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bKr{cseq}{user};rport\n\
         From: <sip:{user}@{domain}>;tag=t\nTo: <sip:{user}@{domain}>\nCall-ID: reg-1\nCSeq: {cseq} REGISTER\n\
         Contact: <sip:{user}@10.0.0.5:5060>\nMax-Forwards: 70\n{extra}Content-Length: 0\n\n"
    )
}

/// The credentials that answer the last response.
fn credentials(desk: &Desk, method: &str, uri: &str, user: &str, password: &str) -> String {
    let password = SecretString::from(password.to_owned());
    let mut client = DigestClient::new(Credentials { username: user.into(), password });
    client.challenged(&desk.last_response().headers, &mut Challenged::default()).expect("a challenge");
    let rows = client.authorize(method, uri, b"", "cnonce");
    rows.iter().map(|(name, value)| format!("{name}: {}\n", value.to_text())).collect()
}

fn registered() -> Desk {
    let mut desk = open();
    desk.hear_from(PHONE, &register(1, "example.com", "ann", ""));
    let answer = credentials(&desk, "REGISTER", "sip:example.com", "ann", "right");
    desk.hear_from(PHONE, &register(2, "example.com", "ann", &answer));
    assert_eq!(desk.sent(), ["401 REGISTER", "200 REGISTER"]);
    desk
}

#[test]
fn a_phone_registers_and_is_found_by_the_flow_it_came_on() {
    let mut desk = registered();
    let bindings = desk.ua.bindings(desk.now, "ann");
    assert_eq!(bindings.len(), 1);
    assert_eq!(bindings[0].contact.as_str(), "sip:ann@10.0.0.5:5060");
    assert_eq!(bindings[0].target.remote, address(PHONE));
    let news = desk.told.drain(..).map(|event| format!("{event:?}")).collect::<String>();
    assert!(news.contains("Registered") && news.contains("contacts: 1"), "{news}");
    desk.pass(Duration::from_secs(3601));
    assert!(desk.ua.bindings(desk.now, "ann").is_empty());
    assert!(desk.told.drain(..).any(|event| format!("{event:?}").contains("Unregistered")));
    assert_eq!(desk.ua.transaction_counts(), (0, 0));
}

#[test]
fn other_domains_and_a_closed_registrar_hear_nothing() {
    let mut closed = Desk::new();
    closed.hear_from(PHONE, &register(1, "example.com", "ann", ""));
    assert_eq!(closed.sent(), Vec::<String>::new());
    let mut desk = open();
    desk.hear_from(PHONE, &register(1, "other.example", "ann", ""));
    desk.hear_from(PHONE, &register(2, "198.51.100.20", "ann", ""));
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.hear(&register(3, "other.example", "ann", ""));
    assert_eq!(desk.sent(), ["404 REGISTER"], "a trunk is told");
}

#[test]
fn wrong_passwords_and_unknown_users_look_alike_and_end_in_a_ban() {
    let mut desk = open();
    let mut heard = Vec::new();
    for (round, user) in ["ann", "bob"].into_iter().enumerate() {
        let cseq = round as u32 * 10;
        desk.hear_from(PHONE, &register(cseq + 1, "example.com", user, ""));
        let answer = credentials(&desk, "REGISTER", "sip:example.com", user, "wrong");
        desk.hear_from(PHONE, &register(cseq + 2, "example.com", user, &answer));
        let shape: Vec<String> =
            desk.last_response().headers.iter().map(|(name, _)| name.to_owned()).collect();
        heard.push((desk.sent(), shape));
    }
    assert_eq!(heard[0].0, ["401 REGISTER", "401 REGISTER"]);
    assert_eq!(heard[0], heard[1]);
    desk.hear_from(PHONE, &register(30, "example.com", "ann", ""));
    let answer = credentials(&desk, "REGISTER", "sip:example.com", "ann", "wrong");
    for cseq in 31..60 {
        desk.hear_from(PHONE, &register(cseq, "example.com", "ann", &answer));
    }
    desk.sent();
    desk.hear_from(PHONE, &register(61, "example.com", "ann", ""));
    assert_eq!(desk.sent(), Vec::<String>::new(), "banned");
}

fn call(cseq: u32, user: &str, extra: &str) -> String {
    format!(
        "INVITE sip:+15550111@example.com SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bKc{cseq};rport\n\
         From: <sip:{user}@example.com>;tag=t\nTo: <sip:+15550111@example.com>\nCall-ID: call-{user}\n\
         CSeq: {cseq} INVITE\nContact: <sip:ann@10.0.0.5:5060>\nMax-Forwards: 70\n{extra}Content-Length: 0\n\n"
    )
}

fn answered(desk: &Desk) -> String {
    credentials(desk, "INVITE", "sip:+15550111@example.com", "ann", "right")
}

#[test]
fn a_registered_phone_calls_with_its_password_and_as_itself() {
    let mut desk = registered();
    desk.hear_from(PHONE, &call(1, "ann", ""));
    let answer = answered(&desk);
    assert_eq!(desk.sent(), ["401 INVITE"]);
    desk.hear_from(PHONE, &call(2, "ann", &answer));
    assert_eq!(desk.sent(), ["100 INVITE"]);
    let invite = desk.invited();
    assert_eq!((invite.phone.as_deref(), invite.trunk.name.as_str()), (Some("ann"), "(phones)"));
    assert_eq!(invite.caller.as_deref(), Some("+15550142"));
    assert_eq!(invite.identity.caller_e164.as_deref(), Some("+15550142"));
}

#[test]
fn nobody_calls_from_elsewhere_or_in_anothers_name() {
    let mut desk = registered();
    desk.hear_from("203.0.113.7:9999", &call(1, "ann", ""));
    assert_eq!(desk.sent(), Vec::<String>::new(), "not the flow it registered on");
    desk.hear_from(PHONE, &call(2, "boss", ""));
    assert_eq!(desk.sent(), ["403 INVITE"]);
    desk.ua.set_phones(Arc::new(PhoneBook { phones: Default::default(), ..book() }));
    desk.hear_from(PHONE, &call(3, "ann", ""));
    assert_eq!(desk.sent(), Vec::<String>::new(), "it is no phone of ours any more");
}

#[test]
fn a_new_password_ends_what_was_registered_with_the_old_one() {
    let mut desk = registered();
    desk.ua.set_phones(Arc::new(book()));
    assert_eq!(desk.ua.bindings(desk.now, "ann").len(), 1, "nothing has changed");
    let mut book = book();
    book.phones.get_mut("ann").expect("ann").secret = Secret::Password("another".into());
    desk.ua.set_phones(Arc::new(book));
    assert!(desk.ua.bindings(desk.now, "ann").is_empty());
}

#[test]
fn the_right_password_of_another_does_not_register() {
    let mut desk = open();
    desk.hear_from(PHONE, &register(1, "example.com", "boss", ""));
    let answer = credentials(&desk, "REGISTER", "sip:example.com", "ann", "right");
    desk.hear_from(PHONE, &register(2, "example.com", "boss", &answer));
    assert_eq!(desk.sent(), ["401 REGISTER", "403 REGISTER"]);
    assert!(desk.ua.bindings(desk.now, "boss").is_empty() && desk.ua.bindings(desk.now, "ann").is_empty());
}

#[test]
fn credentials_that_were_heard_before_are_stale() {
    let mut desk = open();
    desk.hear_from(PHONE, &register(1, "example.com", "ann", ""));
    let answer = credentials(&desk, "REGISTER", "sip:example.com", "ann", "right");
    desk.hear_from(PHONE, &register(2, "example.com", "ann", &answer));
    desk.hear_from("198.51.100.66:5060", &register(3, "example.com", "ann", &answer));
    let challenge = desk.last_response().headers.get_str(HeaderName::WwwAuthenticate).unwrap_or_default();
    assert!(challenge.contains("stale=true"), "{challenge}");
    assert_eq!(desk.sent(), ["401 REGISTER", "200 REGISTER", "401 REGISTER"]);
    assert_eq!(desk.ua.bindings(desk.now, "ann")[0].target.remote, address(PHONE));
}

#[test]
fn a_trunk_of_the_same_address_stays_a_trunk_for_who_is_no_phone() {
    let mut desk = open();
    desk.hear(&register(1, "example.com", "ann", ""));
    let answer = credentials(&desk, "REGISTER", "sip:example.com", "ann", "right");
    desk.hear(&register(2, "example.com", "ann", &answer));
    desk.sent();
    desk.hear(&invite("trunk-call", ""));
    assert_eq!(desk.invited().trunk.name, "carrier");
    desk.sent();
    desk.hear(&call(1, "ann", ""));
    assert_eq!(desk.sent(), ["401 INVITE"], "the phone is asked for its password");
}
