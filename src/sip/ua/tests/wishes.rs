//! What an outgoing INVITE asks for, and what its refusals tell.

use super::outgoing::{CONTACT, call, dialled, leg};
use super::*;
use crate::sip::header::reason::Reason;
use crate::sip::uri::Uri;

fn uri(text: &str) -> Uri {
    Uri::parse(text).expect("a URI")
}

fn row(request: &Request, name: HeaderName) -> Option<String> {
    request.headers.get_str(name).map(str::to_owned)
}

#[test]
fn every_wish_stands_in_the_invite() {
    let replaces =
        ReplacesRef { call_id: "x@y".into(), to_tag: "1".into(), from_tag: "2".into(), early_only: false };
    let (mut desk, invite) = dialled(OutgoingInvite {
        call_id: Some("chosen@us".into()),
        request_uri: Some(uri("sip:+15550122@trunk.example")),
        route: vec![uri("sip:192.0.2.3;lr"), uri("sip:192.0.2.4;lr")],
        max_forwards: 12,
        ring_timeout: Some(Duration::from_secs(30)),
        expires: true,
        session_expires: Some(Duration::from_secs(1_800)),
        replaces: Some(replaces),
        privacy: true,
        ..call(Some(OFFER))
    });
    assert_eq!(invite.uri.as_str(), "sip:+15550122@trunk.example");
    assert_eq!(row(&invite, HeaderName::To).as_deref(), Some("<sip:+15550122@carrier.example>"));
    let routes: Vec<_> = invite.headers.rows(HeaderName::Route).collect();
    assert_eq!(routes, [b"<sip:192.0.2.3;lr>", b"<sip:192.0.2.4;lr>"]);
    for (name, value) in [
        (HeaderName::CallId, "chosen@us"),
        (HeaderName::MaxForwards, "12"),
        (HeaderName::Expires, "30"),
        (HeaderName::SessionExpires, "1800"),
        (HeaderName::MinSe, "90"),
        (HeaderName::Require, "replaces"),
        (HeaderName::Replaces, "x@y;to-tag=1;from-tag=2"),
        (HeaderName::Supported, "timer, replaces, norefersub"),
    ] {
        assert_eq!(row(&invite, name).as_deref(), Some(value));
    }
    assert!(row(&invite, HeaderName::From).is_some_and(|from| from.starts_with("<sip:")));
    desk.hear(&answer(&invite, 486, "a", "", ""));
    desk.at_rest();
}

#[test]
fn a_callee_rings_no_longer_than_wanted_whatever_it_says() {
    let invite = OutgoingInvite { ring_timeout: Some(Duration::from_secs(20)), ..call(Some(OFFER)) };
    let (mut desk, invite) = dialled(invite);
    for _ in 0..3 {
        desk.pass(Duration::from_secs(6));
        desk.hear(&answer(&invite, 180, "a", CONTACT, ""));
    }
    desk.told();
    desk.sent();
    desk.pass(Duration::from_secs(3));
    let cancel = desk.last_request().clone();
    assert!(desk.sent().iter().all(|method| method == "CANCEL"));
    let told = desk.told();
    assert!(matches!(&told[..], [LegEvent::Failed { details, .. }] if details.timed_out), "{told:?}");
    desk.hear(&answer(&cancel, 200, "a", "", ""));
    desk.hear(&answer(&invite, 487, "a", "", ""));
    desk.at_rest();
}

#[test]
fn without_a_limit_a_sign_of_life_renews_timer_c() {
    let (mut desk, invite) = dialled(call(Some(OFFER)));
    for _ in 0..3 {
        desk.hear(&answer(&invite, 180, "a", CONTACT, ""));
        desk.pass(Duration::from_secs(170));
    }
    assert_eq!(desk.told().len(), 3);
    desk.pass(Duration::from_secs(11));
    assert!(matches!(desk.told()[..], [LegEvent::Failed { .. }]));
    desk.at_rest();
}

#[test]
fn a_refusal_tells_where_else_to_call_and_why() {
    let (mut desk, invite) = dialled(call(Some(OFFER)));
    let extra = "Contact: <sip:low@192.0.2.8>;q=0.2, <sip:best@192.0.2.9>, <mailto:x@y>\n\
                 Reason: Q.850;cause=17, SIP;cause=302\nX-Why: moved\nWarning: 399 x \"y\"\nServer: z\n";
    desk.hear(&answer(&invite, 302, "a", extra, ""));
    let told = desk.told();
    let [LegEvent::Failed { details, .. }] = &told[..] else { panic!("{told:?}") };
    let contacts: Vec<_> = details.contacts.iter().map(|(at, q)| (at.uri.as_str(), *q)).collect();
    assert_eq!(contacts, [("sip:best@192.0.2.9", 1_000), ("sip:low@192.0.2.8", 200)]);
    let causes: Vec<_> = details.causes.iter().map(|Reason { cause, .. }| *cause).collect();
    assert_eq!(causes, [Some(17), Some(302)]);
    let names: Vec<_> = details.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["X-Why", "Warning"]);
    assert!(!details.timed_out && !details.transport_failed);
    desk.at_rest();
}

#[test]
fn an_interval_too_small_is_asked_for_again() {
    let invite = OutgoingInvite { session_expires: Some(Duration::from_secs(120)), ..call(Some(OFFER)) };
    let (mut desk, first) = dialled(invite);
    desk.hear(&answer(&first, 422, "a", "Min-SE: 300\n", ""));
    let second = desk.last_request().clone();
    assert_eq!(desk.sent(), ["ACK", "INVITE"]);
    assert_eq!(second.headers.call_id(), first.headers.call_id());
    assert_eq!(second.headers.cseq().expect("a CSeq").number, 2);
    assert_eq!(row(&second, HeaderName::SessionExpires).as_deref(), Some("300"));
    assert_eq!(row(&second, HeaderName::MinSe).as_deref(), Some("300"));
    let granted = format!("{CONTACT}Session-Expires: 300;refresher=uac\nRequire: timer\nAllow: UPDATE\n");
    desk.hear(&answer(&second, 200, "b", &granted, OFFER));
    desk.sent();
    desk.pass(Duration::from_secs(151));
    let update = desk.last_request().clone();
    assert_eq!(row(&update, HeaderName::SessionExpires).as_deref(), Some("300;refresher=uac"));
    desk.hear(&answer(&update, 200, "b", &granted, ""));
    desk.pass(Duration::from_secs(151));
    assert_eq!(desk.last_request().method, Method::Update);
    desk.told();
    desk.hear(&of_callee(&second, "b", "BYE", 1, "", ""));
    assert!(matches!(desk.told()[..], [LegEvent::Ended { by: EndedBy::Peer, .. }]));
    desk.at_rest();
}

#[test]
fn a_refresh_without_update_repeats_the_same_description() {
    let invite = OutgoingInvite { session_expires: Some(Duration::from_secs(200)), ..call(Some(OFFER)) };
    let (mut desk, first) = dialled(invite);
    let granted = format!("{CONTACT}Session-Expires: 200;refresher=uac\nAllow: INVITE, BYE\n");
    desk.hear(&answer(&first, 200, "b", &granted, OFFER));
    desk.pass(Duration::from_secs(101));
    let again = desk.last_request().clone();
    assert_eq!((again.method.as_str(), &again.body[..]), ("INVITE", OFFER.as_bytes()));
    desk.hear(&answer(&again, 200, "b", &granted, OFFER));
    desk.hear(&of_callee(&first, "b", "BYE", 1, "", ""));
    desk.at_rest();
}

#[test]
fn a_callee_that_never_refreshes_loses_the_call_and_one_without_timers_keeps_it() {
    for (extra, ends) in [("Session-Expires: 90;refresher=uas\n", true), ("", false)] {
        let invite = OutgoingInvite { session_expires: Some(Duration::from_secs(90)), ..call(Some(OFFER)) };
        let (mut desk, first) = dialled(invite);
        desk.hear(&answer(&first, 200, "b", &format!("{CONTACT}{extra}"), OFFER));
        desk.told();
        desk.pass(Duration::from_secs(100));
        let told = desk.told();
        let expired = matches!(&told[..], [LegEvent::Ended { by: EndedBy::SessionExpired, .. }]);
        assert_eq!(expired, ends, "{told:?}");
        if !ends {
            desk.hear(&of_callee(&first, "b", "BYE", 1, "", ""));
        }
        desk.at_rest();
    }
}

#[test]
fn an_invite_of_ours_that_comes_back_is_a_loop() {
    let (mut desk, sent) = dialled(call(Some(OFFER)));
    let from = sent.headers.from().expect("a From");
    let mine = invite("back", "")
        .replace("call-1@192.0.2.1", sent.headers.call_id().expect("a Call-ID"))
        .replace("tag=theirs", &format!("tag={}", from.tag().expect("our tag")));
    let same_user = mine.replace("INVITE sip:+15550111@", "INVITE sip:+15550122@");
    desk.hear(&same_user);
    assert_eq!(desk.sent(), ["482 INVITE"]);
    // For another user it is a spiral.
    desk.hear(&mine.replace("z9hG4bKback", "z9hG4bKother").replace("CSeq: 1 ", "CSeq: 2 "));
    assert_eq!(desk.sent(), ["100 INVITE"]);
    desk.invited();
    desk.hear(&answer(&sent, 486, "a", "", ""));
    assert_eq!(leg(), LegId::from_parts(1, 1));
}

#[test]
fn the_challenges_of_several_forks_are_answered_together() {
    let credentials = Some(Credentials { username: "tandem".into(), password: "secret".to_owned().into() });
    let (mut desk, first) = dialled(OutgoingInvite { credentials, ..call(Some(OFFER)) });
    let challenges = "WWW-Authenticate: Digest realm=\"a\",nonce=\"1\",algorithm=MD5\n\
                      WWW-Authenticate: Digest realm=\"a\",nonce=\"2\",algorithm=SHA-256\n\
                      WWW-Authenticate: Digest realm=\"b\",nonce=\"3\"\n\
                      Proxy-Authenticate: Digest realm=\"p\",nonce=\"4\"\n";
    desk.hear(&answer(&first, 401, "a", challenges, ""));
    let second = desk.last_request().clone();
    let rows: Vec<_> = second.headers.rows(HeaderName::Authorization).collect();
    assert_eq!(rows.len(), 2);
    assert!(String::from_utf8_lossy(rows[0]).contains("algorithm=SHA-256"));
    assert!(second.headers.contains(HeaderName::ProxyAuthorization));
    desk.hear(&answer(&second, 486, "a", "", ""));
    desk.at_rest();
}

#[test]
fn a_refresh_that_is_too_short_for_the_peer_asks_for_more() {
    for (allow, method) in [("INVITE, BYE, UPDATE", "UPDATE"), ("INVITE, BYE", "INVITE")] {
        let invite = OutgoingInvite { session_expires: Some(Duration::from_secs(200)), ..call(Some(OFFER)) };
        let (mut desk, first) = dialled(invite);
        let granted = format!("{CONTACT}Session-Expires: 200;refresher=uac\nAllow: {allow}\n");
        desk.hear(&answer(&first, 200, "b", &granted, OFFER));
        desk.pass(Duration::from_secs(101));
        let refresh = desk.last_request().clone();
        assert_eq!(row(&refresh, HeaderName::MinSe).as_deref(), Some("90"));
        desk.hear(&answer(&refresh, 422, "b", "Min-SE: 400\n", ""));
        let again = desk.last_request().clone();
        assert_eq!(again.method.as_str(), method);
        assert_eq!(row(&again, HeaderName::SessionExpires).as_deref(), Some("400;refresher=uac"));
        assert_eq!(row(&again, HeaderName::MinSe).as_deref(), Some("400"));
        // Who refuses even that is asked again in a while, as it is.
        desk.hear(&answer(&again, 422, "b", "Min-SE: 400\n", ""));
        desk.sent();
        desk.pass(Duration::from_millis(5_200));
        assert_eq!(desk.sent().iter().filter(|sent| *sent == method).count(), 1);
        desk.hear(&of_callee(&first, "b", "BYE", 1, "", ""));
        desk.told();
        desk.at_rest();
    }
}

#[test]
fn what_a_421_asks_for_is_said_if_we_know_it() {
    for (wanted, again) in [("100rel", true), ("100rel, teleportation", false)] {
        let (mut desk, first) = dialled(call(Some(OFFER)));
        desk.hear(&answer(&first, 421, "a", &format!("Require: {wanted}\n"), ""));
        let last = desk.last_request().clone();
        assert_eq!(
            desk.sent().last().map(String::as_str),
            Some(if again { "INVITE" } else { "ACK" }),
            "{wanted}"
        );
        if again {
            assert!(row(&last, HeaderName::Supported).is_some_and(|tags| tags.contains("100rel")));
            desk.hear(&answer(&last, 421, "a", "Require: 100rel\n", ""));
        }
        let told = desk.told();
        assert!(matches!(&told[..], [LegEvent::Failed { status, .. }] if status.get() == 421), "{told:?}");
        desk.at_rest();
    }
}

#[test]
fn a_peer_that_answers_every_ack_with_its_200_is_left_to_itself() {
    let (mut desk, first) = dialled(call(Some(OFFER)));
    for _ in 0..1_000 {
        desk.hear(&answer(&first, 200, "b", CONTACT, OFFER));
    }
    assert_eq!(desk.sent().len(), 65);
    desk.hear(&of_callee(&first, "b", "BYE", 1, "", ""));
    desk.told();
    desk.at_rest();
}

#[test]
fn an_invite_without_hops_goes_no_further() {
    for (hops, status) in [("0", "483 INVITE"), ("300", "400 INVITE"), ("x", "400 INVITE")] {
        let mut desk = Desk::new();
        desk.hear(&invite("1", "").replace("Max-Forwards: 70", &format!("Max-Forwards: {hops}")));
        assert_eq!(desk.sent(), [status]);
    }
}
