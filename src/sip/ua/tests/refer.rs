//! Transfers: REFER, NOTIFY and Replaces.

use super::outgoing::{call, leg};
use super::*;
use crate::sip::uri::Uri;

const TO: &str = "Refer-To: <sip:+15550199@carrier.example>\n";

fn fragment(status: u16) -> String {
    format!("SIP/2.0 {status} Whatever\r\n")
}

fn news(state: &str) -> String {
    format!("Event: refer\nSubscription-State: {state}\nContent-Type: message/sipfrag;version=2.0\n")
}

fn bye(desk: &mut Desk, tag: &str) {
    desk.hear(&in_dialog("BYE", 90, tag, "", ""));
    desk.at_rest();
}

fn referral() -> LegCommand {
    let to = Uri::parse("sip:+15550199@carrier.example").expect("a URI");
    LegCommand::Refer(Box::new(Referral { to, replaces: None, referred_by: None }))
}

#[test]
fn a_transfer_is_accepted_told_about_and_done() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    let by = "Referred-By: <sip:+15550122@carrier.example>\n";
    desk.hear(&in_dialog("REFER", 2, &tag, &format!("{TO}{by}"), ""));
    let [LegEvent::Transfer(asked)] = &desk.told()[..] else { panic!("no transfer") };
    assert_eq!(asked.to.as_str(), "sip:+15550199@carrier.example");
    assert!(asked.notify && asked.referred_by.is_some() && asked.replaces.is_none());
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.command(leg, LegCommand::AcceptTransfer);
    let notify = desk.last_request().clone();
    assert_eq!(&notify.body[..], b"SIP/2.0 100 Trying\r\n");
    assert_eq!(notify.headers.get_str(HeaderName::Event), Some("refer"));
    assert_eq!(notify.headers.get_str(HeaderName::SubscriptionState), Some("active;expires=180"));
    assert_eq!(desk.sent(), ["202 REFER", "NOTIFY"]);
    // Further news wait for the answer of the first; only the latest counts.
    for status in [180, 200] {
        desk.command(leg, LegCommand::TransferProgress { status: code(status), reason: None });
    }
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.hear(&answer(&notify, 200, "theirs", "", ""));
    let last = desk.last_request().clone();
    assert_eq!(&last.body[..], b"SIP/2.0 200 OK\r\n");
    assert_eq!(last.headers.get_str(HeaderName::SubscriptionState), Some("terminated;reason=noresource"));
    desk.hear(&answer(&last, 200, "theirs", "", ""));
    desk.sent();
    desk.command(leg, LegCommand::TransferProgress { status: code(200), reason: None });
    assert_eq!(desk.sent(), Vec::<String>::new());
    desk.hear(&in_dialog("REFER", 3, &tag, TO, ""));
    desk.command(leg, LegCommand::AcceptTransfer);
    assert_eq!(desk.last_request().headers.get_str(HeaderName::Event), Some("refer;id=3"));
    bye(&mut desk, &tag);
}

#[test]
fn transfers_that_cannot_be_are_refused() {
    let outside = "Refer-To: <mailto:a@b>\n";
    let bye_it = "Refer-To: <sip:a@b;method=BYE>\n";
    let broken = "Refer-To: <sip:a@b?Replaces=x>\n";
    let two = format!("{TO}{TO}");
    for (extra, status) in
        [("", "400"), (two.as_str(), "400"), (outside, "416"), (bye_it, "603"), (broken, "400")]
    {
        let mut desk = Desk::new();
        let (_, tag) = desk.established();
        desk.hear(&in_dialog("REFER", 2, &tag, extra, ""));
        assert_eq!(desk.sent(), [format!("{status} REFER")], "{extra}");
        assert_eq!(desk.told(), []);
        bye(&mut desk, &tag);
    }
}

#[test]
fn the_call_may_refuse_and_one_transfer_is_open_at_a_time() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.hear(&in_dialog("REFER", 2, &tag, TO, ""));
    desk.hear(&in_dialog("REFER", 3, &tag, TO, ""));
    assert_eq!(desk.sent(), ["491 REFER"]);
    desk.command(leg, LegCommand::RejectTransfer { status: code(403) });
    assert_eq!(desk.sent(), ["403 REFER"]);
    desk.hear(&in_dialog("REFER", 4, &tag, TO, ""));
    desk.pass(Duration::from_secs(21));
    assert_eq!(desk.sent(), ["603 REFER"]);
    desk.hear(&in_dialog("REFER", 5, &tag, TO, ""));
    desk.command(leg, LegCommand::Hangup { reason: None });
    assert_eq!(desk.sent(), ["487 REFER", "BYE"]);
    let last = desk.ua.leg_count();
    assert_eq!(last, 0);
    desk.pass(Duration::from_secs(40));
    desk.at_rest();
}

#[test]
fn without_a_subscription_nothing_is_told() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.hear(&in_dialog("REFER", 2, &tag, &format!("{TO}Refer-Sub: false\n"), ""));
    assert!(matches!(&desk.told()[..], [LegEvent::Transfer(asked)] if !asked.notify));
    desk.command(leg, LegCommand::AcceptTransfer);
    assert_eq!(desk.last_response().headers.get_str(HeaderName::ReferSub), Some("false"));
    desk.command(leg, LegCommand::TransferProgress { status: code(200), reason: None });
    assert_eq!(desk.sent(), ["202 REFER"]);
    bye(&mut desk, &tag);
}

#[test]
fn a_refused_notify_ends_the_subscription_and_not_the_call() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.hear(&in_dialog("REFER", 2, &tag, TO, ""));
    desk.command(leg, LegCommand::AcceptTransfer);
    let notify = desk.last_request().clone();
    desk.hear(&answer(&notify, 481, "theirs", "", ""));
    desk.told();
    desk.sent();
    desk.command(leg, LegCommand::TransferProgress { status: code(200), reason: None });
    assert_eq!((desk.sent(), desk.told(), desk.ua.leg_count()), (vec![], vec![], 1));
    bye(&mut desk, &tag);
}

#[test]
fn the_last_word_is_said_before_we_hang_up() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.hear(&in_dialog("REFER", 2, &tag, TO, ""));
    desk.command(leg, LegCommand::AcceptTransfer);
    desk.command(leg, LegCommand::TransferProgress { status: code(200), reason: None });
    desk.command(leg, LegCommand::Hangup { reason: None });
    assert_eq!(desk.sent(), ["202 REFER", "NOTIFY", "NOTIFY", "BYE"]);
    desk.at_rest();
}

#[test]
fn a_transfer_that_takes_too_long_is_told_so() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.hear(&in_dialog("REFER", 2, &tag, TO, ""));
    desk.command(leg, LegCommand::AcceptTransfer);
    let notify = desk.last_request().clone();
    desk.hear(&answer(&notify, 200, "theirs", "", ""));
    desk.sent();
    desk.pass(Duration::from_millis(180_100));
    assert_eq!(
        desk.last_request().headers.get_str(HeaderName::SubscriptionState),
        Some("terminated;reason=timeout")
    );
    bye(&mut desk, &tag);
}

#[test]
fn the_peer_carries_out_our_transfer() {
    let mut desk = Desk::new();
    let invite = desk.connected(call(Some(OFFER)));
    desk.command(leg(), referral());
    let refer = desk.last_request().clone();
    assert_eq!(refer.headers.get_str(HeaderName::ReferTo), Some("<sip:+15550199@carrier.example>"));
    // A NOTIFY may overtake the 202.
    desk.hear(&of_callee(&invite, "theirs", "NOTIFY", 1, &news("active;expires=60"), &fragment(100)));
    desk.hear(&answer(&refer, 202, "theirs", "", ""));
    desk.hear(&of_callee(&invite, "theirs", "NOTIFY", 2, &news("active;expires=60"), &fragment(180)));
    desk.hear(&of_callee(
        &invite,
        "theirs",
        "NOTIFY",
        3,
        &news("terminated;reason=noresource"),
        &fragment(200),
    ));
    desk.hear(&of_callee(
        &invite,
        "theirs",
        "NOTIFY",
        4,
        &news("terminated;reason=noresource"),
        &fragment(200),
    ));
    let news = [
        TransferNews::Accepted,
        TransferNews::Progress(100),
        TransferNews::Progress(180),
        TransferNews::Done(200),
    ];
    assert_eq!(desk.told(), news.map(LegEvent::Transferring));
    assert_eq!(desk.sent(), ["REFER", "200 NOTIFY", "200 NOTIFY", "200 NOTIFY", "200 NOTIFY"]);
    desk.hear(&of_callee(&invite, "theirs", "BYE", 9, "", ""));
    desk.at_rest();
}

#[test]
fn a_transfer_is_refused_challenged_or_lost() {
    let mut desk = Desk::new();
    let credentials = Some(Credentials { username: "tandem".into(), password: "secret".to_owned().into() });
    let invite = desk.connected(OutgoingInvite { credentials, ..call(Some(OFFER)) });
    desk.command(leg(), referral());
    let challenge = "WWW-Authenticate: Digest realm=\"p\",nonce=\"n\",qop=\"auth\"\n";
    let first = desk.last_request().clone();
    desk.hear(&answer(&first, 401, "theirs", challenge, ""));
    let second = desk.last_request().clone();
    assert!(second.headers.contains(HeaderName::Authorization));
    desk.hear(&answer(&second, 405, "theirs", "", ""));
    assert_eq!(desk.told(), [LegEvent::Transferring(TransferNews::Refused(405))]);
    desk.command(leg(), referral());
    let third = desk.last_request().clone();
    desk.hear(&answer(&third, 202, "theirs", "", ""));
    desk.pass(Duration::from_secs(61));
    let told = [TransferNews::Accepted, TransferNews::Lost].map(LegEvent::Transferring);
    assert_eq!(desk.told(), told);
    desk.command(leg(), referral());
    desk.command(leg(), referral());
    desk.hear(&of_callee(&invite, "theirs", "BYE", 9, "", ""));
    let told = desk.told();
    let news = [TransferNews::Refused(491), TransferNews::Lost].map(LegEvent::Transferring);
    assert_eq!(told[..2], news);
    assert!(matches!(told[2], LegEvent::Ended { by: EndedBy::Peer, .. }));
    desk.at_rest();
}

#[test]
fn news_of_no_transfer_are_refused() {
    let mut desk = Desk::new();
    let (_, tag) = desk.established();
    let active = news("active");
    desk.hear(&in_dialog("NOTIFY", 2, &tag, &active, &fragment(100)));
    desk.hear(&in_dialog("NOTIFY", 3, &tag, "Event: presence\nSubscription-State: active\n", ""));
    desk.hear(&in_dialog("NOTIFY", 4, &tag, "Event: refer\nContent-Type: text/plain\n", "hello"));
    desk.hear(&in_dialog("NOTIFY", 5, &tag, &active, "hello"));
    assert_eq!(desk.sent(), ["481 NOTIFY", "489 NOTIFY", "481 NOTIFY", "400 NOTIFY"]);
    bye(&mut desk, &tag);
}

/// An INVITE besides the call of [`Desk::established`].
fn second(extra: &str) -> String {
    invite("second", extra).replace("Call-ID: call-1@192.0.2.1", "Call-ID: call-2@192.0.2.1")
}

fn replaces(tag: &str, more: &str) -> String {
    format!("Replaces: call-1@192.0.2.1;to-tag={tag};from-tag=theirs{more}\nRequire: replaces\n")
}

#[test]
fn an_invite_names_the_call_it_replaces() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    desk.hear(&second(&replaces(&tag, "")));
    let invited = desk.invited();
    assert_eq!(invited.replaces, Some(leg));
    desk.command(invited.leg, LegCommand::Reject { status: code(486), reason: None, headers: vec![] });
    bye(&mut desk, &tag);
}

#[test]
fn a_call_that_cannot_be_replaced_is_not() {
    for (wanted, status) in [
        ("nobody", 481),
        ("early", 486),
        ("broken", 400),
        ("twice", 400),
        ("ended", 603),
        ("unanswered", 481),
    ] {
        let mut desk = Desk::new();
        let tag = if wanted == "unanswered" {
            desk.hear(&invite("1", ""));
            let leg = desk.invited().leg;
            desk.command(leg, LegCommand::Ring { status: code(180), sdp: None });
            desk.our_tag()
        } else {
            desk.established().1
        };
        if wanted == "ended" {
            desk.hear(&in_dialog("BYE", 2, &tag, "", ""));
        }
        desk.sent();
        let header = match wanted {
            "nobody" => replaces("other", ""),
            "early" => replaces(&tag, ";early-only"),
            "broken" => "Replaces: call-1@192.0.2.1\n".to_owned(),
            "twice" => replaces(&tag, "").repeat(2),
            _ => replaces(&tag, ""),
        };
        desk.hear(&second(&header));
        assert_eq!(desk.sent(), [format!("{status} INVITE")], "{wanted}");
    }
}

#[test]
fn a_transfer_that_replaces_a_call_of_ours_says_which() {
    let mut desk = Desk::new();
    let (leg, tag) = desk.established();
    for (to_tag, from_tag) in [(tag.as_str(), "theirs"), ("theirs", tag.as_str())] {
        let to = format!(
            "Refer-To: <sip:a@192.0.2.1?Replaces=call-1%40192.0.2.1%3Bto-tag%3D{to_tag}%3Bfrom-tag%3D{from_tag}>\n"
        );
        let cseq = if to_tag == "theirs" { 3 } else { 2 };
        desk.hear(&in_dialog("REFER", cseq, &tag, &to, ""));
        let [LegEvent::Transfer(asked)] = &desk.told()[..] else { panic!("no transfer") };
        assert_eq!((asked.ours, asked.to.as_str()), (Some(leg), "sip:a@192.0.2.1"));
        desk.command(leg, LegCommand::RejectTransfer { status: code(603) });
    }
    bye(&mut desk, &tag);
}
