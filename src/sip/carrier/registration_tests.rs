//! A registration against answers of a registrar, in made-up time.

use rand::SeedableRng;

use super::*;
use crate::sip::message::{Message, Response};
use crate::sip::parse::parse_datagram;

struct Drive {
    registration: Registration,
    now: Instant,
    rng: StdRng,
}

fn drive() -> Drive {
    let now = Instant::now();
    let spec = RegistrationSpec {
        registrar: "sip.example.com".parse().expect("a peer"),
        aor_user: "alice".to_owned(),
        domain: "example.com".to_owned(),
        expires: Duration::from_secs(300),
        contact_user: "alice".to_owned(),
    };
    let registration = Registration::new(spec, "call-1".to_owned(), "urn:uuid:1".to_owned(), now);
    Drive { registration, now, rng: StdRng::seed_from_u64(3) }
}

impl Drive {
    fn ask(&mut self) -> Ask {
        self.registration.due(self.now).expect("a REGISTER is due")
    }

    fn hear(&mut self, status: u16, change: impl FnOnce(&mut Heard)) {
        let mut heard = Heard { status, reason: "x".to_owned(), cseq: 1, ..Heard::default() };
        change(&mut heard);
        self.registration.answered(self.now, &Reply::Final(Box::new(heard)), 1, &mut self.rng);
    }

    /// Seconds until the next REGISTER.
    fn wait(&self) -> u64 {
        (self.registration.next_timeout().expect("it goes on") - self.now).as_secs()
    }

    fn skip(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

#[test]
fn it_holds_as_long_as_our_own_contact_does_and_is_refreshed_before() {
    let mut drive = drive();
    let first = drive.ask();
    assert_eq!((first.cseq, first.expires), (1, 300));
    drive.hear(200, |heard| {
        heard.contacts = vec![
            ("alice".to_owned(), None, Some(3600)),
            ("alice".to_owned(), Some("<urn:uuid:1>".to_owned()), Some(120)),
        ];
    });
    assert!(drive.registration.is_registered(drive.now) && drive.registration.reason().is_none());
    assert!((60..=108).contains(&drive.wait()), "{}", drive.wait());
    drive.skip(110);
    let second = drive.ask();
    assert_eq!((second.cseq, second.call_id.as_str()), (2, "call-1"));
    drive.skip(11);
    assert!(!drive.registration.is_registered(drive.now));
}

#[test]
fn digest_may_have_counted_on() {
    let mut drive = drive();
    drive.ask();
    drive.hear(200, |heard| heard.cseq = 7);
    drive.skip(300);
    assert_eq!(drive.ask().cseq, 8);
}

#[test]
fn the_interval_is_raised_when_it_is_too_brief_but_not_for_ever() {
    let mut drive = drive();
    for least in [600, 900] {
        drive.ask();
        drive.hear(423, |heard| heard.min_expires = Some(least));
        assert_eq!(drive.wait(), 0);
    }
    assert_eq!(drive.ask().expires, 900);
    drive.hear(423, |heard| heard.min_expires = Some(1200));
    assert!(drive.wait() >= 30 && drive.registration.reason().is_some());
    drive.skip(60);
    drive.ask();
    drive.hear(423, |_| {});
    assert!(drive.wait() >= 60);
}

#[test]
fn failures_wait_longer_and_longer_up_to_half_an_hour() {
    let mut drive = drive();
    for ceiling in [60, 120, 240, 480, 960, 1800, 1800] {
        drive.ask();
        drive.hear(403, |_| {});
        let wait = drive.wait();
        assert!((ceiling / 2..=ceiling).contains(&wait), "{wait} of {ceiling}");
        drive.skip(1800);
    }
    drive.ask();
    drive.hear(200, |_| {});
    drive.skip(300);
    drive.ask();
    drive.hear(403, |_| {});
    assert!(drive.wait() <= 60, "success forgives");
}

#[test]
fn a_registrar_that_says_when_is_asked_then() {
    let mut drive = drive();
    drive.ask();
    drive.hear(503, |heard| heard.retry_after = Some(600));
    assert_eq!(drive.wait(), 600);
}

#[test]
fn a_silent_address_is_followed_by_the_next_one_at_once() {
    let mut drive = drive();
    let silent = Reply::None("no answer".to_owned());
    for (expected, due_at_once) in [(0, true), (1, true), (2, false)] {
        assert_eq!(drive.ask().candidate, expected);
        drive.registration.answered(drive.now, &silent, 3, &mut drive.rng);
        assert_eq!(drive.wait() == 0, due_at_once);
    }
    assert_eq!(drive.registration.reason(), Some("no answer"));
}

#[test]
fn leaving_takes_back_only_what_there_is() {
    let mut drive = drive();
    assert_eq!(drive.registration.leave(drive.now), None);
    let mut drive = self::drive();
    drive.ask();
    drive.hear(200, |_| {});
    let last = drive.registration.leave(drive.now).expect("it holds");
    assert_eq!((last.expires, last.cseq), (0, 2));
    assert!(!drive.registration.is_registered(drive.now) && drive.registration.next_timeout().is_none());
}

#[test]
fn a_contact_that_is_not_ours_is_no_registration() {
    let mut drive = drive();
    drive.ask();
    drive.hear(200, |heard| heard.contacts = vec![("bob".to_owned(), None, Some(3600))]);
    assert!(!drive.registration.is_registered(drive.now) && drive.wait() >= 30);
}

fn response(text: &str) -> Response {
    match parse_datagram(text.replace('\n', "\r\n").as_bytes(), &crate::sip::Limits::default()) {
        Ok(Message::Response(response)) => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_response_is_read() {
    let heard = Heard::of(
        &response(
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\nFrom: <sip:a@example.com>;tag=1\n\
             To: <sip:a@example.com>;tag=2\nCall-ID: c\nCSeq: 2 REGISTER\n\
             Contact: <sip:a@192.0.2.1>;expires=60;+sip.instance=\"<urn:uuid:1>\", <sip:b@192.0.2.2>\n\
             Expires: 120\nService-Route: <sip:edge.example.com;lr>\nContent-Length: 0\n\n",
        ),
        2,
    );
    assert_eq!((heard.status, heard.cseq, heard.expires), (200, 2, Some(120)));
    let instance = Some("<urn:uuid:1>".to_owned());
    assert_eq!(heard.contacts, [("a".to_owned(), instance, Some(60)), ("b".to_owned(), None, None)]);
    assert_eq!(heard.service_route[0].as_str(), "sip:edge.example.com;lr");
}
