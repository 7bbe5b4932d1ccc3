//! Phones that register with the server: calls between them, what they may do, and what nobody may.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;
use tandem::audio::Codec;
use tandem::event::Disposition;
use tandem::simulate::phone::{Act, AnswerPlan, CallPlan, CallReport, Phone, Registration};
use tandem::sip::message::Transport;
use tandem::sip::ua::{Credentials, TransferNews};
use tandem::sip::uri::Uri;

use super::PORTS;
use super::support::{LOCALHOST, Lab, Setup, answer, data_of, ms, say, tone};

pub const PASSWORD: &str = "correct horse";

/// A lab with a registrar.
async fn lab() -> Lab {
    Lab::open(PORTS, Setup::default().configure(|config| config.sip.registrar.enabled = true)).await
}

/// Makes phones over the API.
pub async fn add(lab: &Lab, users: &[&str]) {
    let token = lab.token().await;
    for user in users {
        let body = json!({"organization": "acme", "user": user, "password": PASSWORD}).to_string();
        let (status, answer) = lab.http("POST", "/api/v1/phones", &token, &body).await;
        assert_eq!(status, 201, "{answer}");
        assert!(!answer.to_string().contains("ha1") && !answer.to_string().contains(PASSWORD), "{answer}");
    }
}

fn credentials(user: &str, password: &str) -> Option<Credentials> {
    Some(Credentials { username: user.to_owned(), password: SecretString::from(password.to_owned()) })
}

fn registration(lab: &Lab, user: &str, password: &str) -> Registration {
    Registration {
        address: Uri::sip(user, "127.0.0.1", None).expect("an address"),
        registrar: lab.sip,
        transport: Transport::Udp,
        credentials: credentials(user, password),
        expires: Duration::from_secs(600),
    }
}

async fn phone(block: u16) -> Arc<Phone> {
    let first = PORTS + 4000 + 40 * block;
    Arc::new(Phone::start_answering(LOCALHOST, 0, (first, first + 39), 1).await.expect("a phone"))
}

/// A phone that has registered.
pub async fn registered(lab: &Lab, user: &str, block: u16) -> Arc<Phone> {
    let phone = phone(block).await;
    let status = phone.register(&registration(lab, user, PASSWORD)).await.expect("an answer");
    assert_eq!(status.get(), 200);
    phone
}

pub fn dials(lab: &Lab, user: &str, called: &str, acts: Vec<Act>) -> CallPlan {
    let plan = lab.plan(called, Codec::Pcmu, acts);
    CallPlan { from: user.to_owned(), credentials: credentials(user, PASSWORD), ..plan }
}

/// Takes the next call.
fn answers(phone: &Arc<Phone>, ring: Duration, acts: Vec<Act>) -> tokio::task::JoinHandle<CallReport> {
    let phone = Arc::clone(phone);
    let plan = AnswerPlan { ring, codecs: vec![Codec::Pcmu], acts, limit: Duration::from_secs(30) };
    tokio::spawn(async move { phone.answer(plan).await.expect("the phone takes it") })
}

fn loud_ms(pcm: &[i16]) -> usize {
    pcm.chunks(240).filter(|chunk| chunk.iter().any(|sample| sample.unsigned_abs() > 2000)).count() * 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_phones_talk_hold_and_hang_up() {
    let lab = lab().await;
    add(&lab, &["101", "102"]).await;
    let (ann, bob) = (registered(&lab, "101", 0).await, registered(&lab, "102", 1).await);
    let speech = || say(tone(500.0, 9000.0, 600));
    let taken = answers(&bob, ms(100), vec![Act::Wait(ms(300)), speech()]);
    let acts = vec![
        Act::Wait(ms(300)),
        speech(),
        Act::Hold,
        Act::Wait(ms(400)),
        Act::Unhold,
        Act::Wait(ms(400)),
        speech(),
        Act::Wait(ms(300)),
        Act::HangUp,
    ];
    let report = ann.call(dials(&lab, "101", "102", acts)).await.expect("the phone can try");
    assert!(report.answered.is_some(), "{:?}", report.hang_up);
    assert!(loud_ms(&report.heard) > 400, "{} ms of bob", loud_ms(&report.heard));
    let heard = loud_ms(&taken.await.expect("bob").heard);
    assert!(heard > 1000, "{heard} ms of ann, before and after the hold");
    let (call, events) = lab.record().await;
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("caller")));
    assert_eq!((call.from.as_str(), call.to.as_str(), call.trunk), ("101", "102", None));
    assert_eq!(data_of(&events, "call.created")[0]["organization"], "acme");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_of_a_phone_rings_and_the_first_to_answer_has_the_call() {
    let lab = lab().await;
    add(&lab, &["101", "102"]).await;
    let ann = registered(&lab, "101", 0).await;
    let (slow, quick) = (registered(&lab, "102", 1).await, registered(&lab, "102", 2).await);
    let missed = answers(&slow, Duration::from_secs(20), Vec::new());
    let taken = answers(&quick, ms(300), Vec::new());
    let acts = vec![Act::Wait(ms(300)), Act::HangUp];
    let report = ann.call(dials(&lab, "101", "102", acts)).await.expect("the phone can try");
    assert!(report.answered.is_some(), "{:?}", report.hang_up);
    let missed = missed.await.expect("the other device");
    assert!(missed.answered.is_none());
    let reason = missed.hang_up.expect("it is told").reason;
    assert!(reason.contains("elsewhere"), "{reason}");
    assert!(taken.await.expect("the quick device").answered.is_some());
    let (_, events) = lab.record().await;
    assert_eq!(data_of(&events, "leg.added").len(), 2);
    assert_eq!(data_of(&events, "leg.ended").len(), 2);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_busy_does_not_stop_the_other() {
    let lab = lab().await;
    add(&lab, &["101", "102"]).await;
    let ann = registered(&lab, "101", 0).await;
    // This one takes no calls: it refuses.
    let deaf = Phone::start(LOCALHOST, (PORTS + 5000, PORTS + 5039), 1).await.expect("a phone");
    deaf.register(&registration(&lab, "102", PASSWORD)).await.expect("an answer");
    let bob = registered(&lab, "102", 1).await;
    let taken = answers(&bob, ms(500), Vec::new());
    let acts = vec![Act::Wait(ms(200)), Act::HangUp];
    let report = ann.call(dials(&lab, "101", "102", acts)).await.expect("the phone can try");
    assert!(report.answered.is_some(), "{:?}", report.hang_up);
    taken.await.expect("bob");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_moves_its_call_to_another_phone_and_not_out_of_the_house() {
    let lab = lab().await;
    add(&lab, &["101", "102", "103"]).await;
    let ann = registered(&lab, "101", 0).await;
    let (bob, eve) = (registered(&lab, "102", 1).await, registered(&lab, "103", 2).await);
    let to = |user: &str| Act::Transfer(Uri::sip(user, "127.0.0.1", None).expect("a URI"));
    let held = answers(&bob, ms(100), Vec::new());
    let moved = answers(&eve, ms(100), vec![Act::Wait(ms(700)), Act::HangUp]);
    let acts = vec![Act::Wait(ms(200)), to("+15550199"), Act::Wait(ms(100)), Act::HangUp];
    let report = ann.call(dials(&lab, "101", "102", acts)).await.expect("the phone can try");
    let refused = matches!(report.transfer, Some(TransferNews::Done(403) | TransferNews::Refused(403)));
    assert!(refused, "{:?}", report.transfer);
    assert!(held.await.expect("bob").hang_up.is_some());
    let held = answers(&bob, ms(100), Vec::new());
    let acts = vec![Act::Wait(ms(200)), to("103")];
    let report = ann.call(dials(&lab, "101", "102", acts)).await.expect("the phone can try");
    assert_eq!(report.transfer, Some(TransferNews::Done(200)));
    assert!(moved.await.expect("eve").answered.is_some());
    assert!(held.await.expect("bob").hang_up.is_some(), "eve has hung up");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_that_was_called_moves_the_caller_to_the_assistant() {
    let setup = Setup::default().script(&answer("tone:500", 4000));
    let lab = Lab::open(PORTS, setup.configure(|config| config.sip.registrar.enabled = true)).await;
    add(&lab, &["101", "102"]).await;
    let (ann, bob) = (registered(&lab, "101", 0).await, registered(&lab, "102", 1).await);
    let to = Act::Transfer(Uri::sip("100", "127.0.0.1", None).expect("a URI"));
    let moved = answers(&bob, ms(100), vec![Act::Wait(ms(200)), to]);
    let acts = vec![Act::WaitForSpeech(ms(300)), Act::HangUp];
    let report = ann.call(dials(&lab, "101", "102", acts)).await.expect("the phone can try");
    assert!(loud_ms(&report.heard) >= 300, "{} ms of the assistant", loud_ms(&report.heard));
    let moved = moved.await.expect("bob");
    assert_eq!(moved.transfer, Some(TransferNews::Done(200)));
    assert!(moved.hang_up.is_some(), "bob hears BYE");
    let (call, events) = lab.record().await;
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("caller")));
    assert_eq!(data_of(&events, "provider.connected").len(), 1);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_registers_without_the_password_or_calls_out_without_leave() {
    let lab = lab().await;
    add(&lab, &["101", "102"]).await;
    let ann = phone(0).await;
    let try_as = async |user: &str, password: &str| {
        ann.register(&registration(&lab, user, password)).await.expect("an answer").get()
    };
    assert_eq!(try_as("101", "wrong password").await, 401);
    assert_eq!(try_as("999", PASSWORD).await, 401);
    assert_eq!(try_as("101", PASSWORD).await, 200);
    let mut as_another = registration(&lab, "102", PASSWORD);
    as_another.credentials = credentials("101", PASSWORD);
    assert_eq!(ann.register(&as_another).await.expect("an answer").get(), 403);
    for (called, status) in [("+15550199", 403), ("102", 480), ("77", 404)] {
        let report = ann.call(dials(&lab, "101", called, Vec::new())).await.expect("the phone can try");
        assert_eq!(report.hang_up.map(|hang_up| hang_up.status), Some(status), "{called}");
    }
    let flow = ann.call(dials(&lab, "101", "400", vec![Act::Wait(ms(200)), Act::HangUp])).await;
    assert!(flow.expect("the phone can try").answered.is_some(), "the numbers of the house answer");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phones_are_managed_over_the_api() {
    let lab = lab().await;
    add(&lab, &["101"]).await;
    let token = lab.token().await;
    let again = json!({"organization": "acme", "user": "101", "password": PASSWORD}).to_string();
    assert_eq!(lab.http("POST", "/api/v1/phones", &token, &again).await.0, 200);
    for (body, status) in [
        (json!({"organization": "nobody", "user": "102", "password": PASSWORD}), 404),
        (json!({"organization": "acme", "user": "1 2", "password": PASSWORD}), 422),
        (json!({"organization": "acme", "user": "102", "password": "short"}), 422),
        (json!({"organization": "acme", "user": "102", "password": PASSWORD, "trunks": ["none"]}), 422),
        (json!({"organization": "acme", "user": "102"}), 400),
    ] {
        let (got, answer) = lab.http("POST", "/api/v1/phones", &token, &body.to_string()).await;
        assert_eq!(got, status, "{answer}");
    }
    let ann = registered(&lab, "101", 0).await;
    let (status, shown) = lab.http("GET", "/api/v1/phones/101", &token, "").await;
    assert_eq!((status, &shown["registered"]), (200, &json!(true)), "{shown}");
    assert_eq!(shown["contacts"][0]["transport"], "udp", "{shown}");
    let gone = Registration { expires: Duration::ZERO, ..registration(&lab, "101", PASSWORD) };
    assert_eq!(ann.register(&gone).await.expect("an answer").get(), 200);
    let (_, all) = lab.http("GET", "/api/v1/phones", &token, "").await;
    assert_eq!(all["data"][0]["registered"], false, "{all}");
    assert_eq!(lab.http("DELETE", "/api/v1/phones/101", &token, "").await.0, 204);
    assert_eq!(lab.http("DELETE", "/api/v1/phones/101", &token, "").await.0, 404);
    let refused = ann.register(&registration(&lab, "101", PASSWORD)).await.expect("an answer");
    assert_eq!(refused.get(), 401, "it is no phone of ours any more");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_registers_with_another_as_its_carrier() {
    let carrier = lab().await;
    add(&carrier, &["550", "101"]).await;
    let registrar = carrier.sip;
    let near = Lab::open(
        PORTS + 2000,
        Setup::default().configure(move |config| {
            let trunk = format!(
                "name = \"carrier\"\nprofile = \"generic\"\nallow = [\"127.0.0.1\"]\nusername = \"550\"\n\
                 domain = \"127.0.0.1\"\nregister = [{{ registrar = \"{registrar}\" }}]"
            );
            config.trunk = vec![toml::from_str(&trunk).expect("a trunk")];
            config.trunk[0].password = Some(PASSWORD.into());
        }),
    )
    .await;
    let token = carrier.token().await;
    super::support::within(60, "the other server is registered", async || {
        let (_, shown) = carrier.http("GET", "/api/v1/phones/550", &token, "").await;
        (shown["registered"] == true).then_some(())
    })
    .await;
    let token = near.token().await;
    let (_, trunk) = near.http("GET", "/api/v1/trunks/carrier", &token, "").await;
    assert_eq!(trunk["registered"][0]["registered"], true, "{trunk}");
    // The carrier calls the account: its contact's user is `550`, for which the other has no number.
    let ann = registered(&carrier, "101", 0).await;
    let report = ann.call(dials(&carrier, "101", "550", Vec::new())).await.expect("the phone can try");
    let (there, _) = near.record().await;
    assert_eq!((there.to.as_str(), there.trunk.as_deref()), ("550", Some("carrier")));
    assert_eq!(report.hang_up.map(|hang_up| hang_up.status), Some(404), "as the other server said");
    near.close().await;
    carrier.close().await;
}
