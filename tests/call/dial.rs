//! Calls that are started over the API; the far end is a second server.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tandem::event::Disposition;

use super::PORTS;
use super::support::{Lab, Setup, data_of, http_with, kinds};

/// A lab whose trunk `out` leads to `peers`. `700` stays up for a moment and hangs up; `600` is joined to the
/// echo of the far end, `601` to somebody who is busy, `602` to somebody who rings.
pub fn setup(peers: Vec<String>) -> Setup {
    let mut setup = Setup::default().configure(move |config| {
        let peers = peers.iter().map(|peer| format!("{peer:?}")).collect::<Vec<_>>().join(", ");
        let trunk =
            format!("name = \"out\"\nprofile = \"generic\"\nallow = [\"127.0.0.1\"]\npeers = [{peers}]");
        config.trunk = vec![toml::from_str(&trunk).expect("a trunk")];
    });
    for (number, flow) in [
        ("700", "{ step = \"wait\", seconds = 0.3 }, { step = \"hangup\" }"),
        ("600", "{ step = \"dial\", to = \"400\" }"),
        ("601", "{ step = \"dial\", to = \"300\" }"),
        ("602", "{ step = \"dial\", to = \"200\" }"),
        ("603", "{ step = \"dial\", to = \"300\" }, { step = \"echo\" }"),
    ] {
        let entry =
            format!("\n[[number]]\norganization = \"acme\"\nnumber = \"{number}\"\nflow = [{flow}]\n");
        setup.resources.push_str(&entry);
    }
    setup
}

/// The server under test and the far end. Their RTP ports do not overlap.
pub async fn pair() -> (Lab, Lab) {
    let far = Lab::open(PORTS + 2000, Setup::default()).await;
    let near = Lab::open(PORTS, setup(vec![far.sip.to_string()])).await;
    (near, far)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_of_a_call_we_place_has_its_disposition() {
    let (near, far) = pair().await;
    let token = near.token().await;
    for (to, disposition, by, status) in [
        ("400", Disposition::Completed, "system", 200),
        ("300", Disposition::Busy, "callee", 486),
        ("200", Disposition::NoAnswer, "system", 408),
        ("998", Disposition::Failed, "system", 404),
    ] {
        let body = json!({"to": to, "flow": "700", "timeout_s": 1}).to_string();
        let (code, answer) = post(near.server.http_address(), &token, Some(to), &body).await;
        assert_eq!(code, 202, "{answer}");
        let id = answer["id"].as_str().expect("an id").to_owned();
        let call = super::support::within(60, "the call ends", async || {
            let id = id.parse().expect("a call id");
            let call = near.server.store().call(id).await.expect("the store answers").expect("its record");
            call.ended_at.map(|_| call)
        })
        .await;
        let events = near.events(call.id).await;
        let seen = (call.disposition, call.ended_by.as_deref(), call.sip_status);
        assert_eq!(seen, (Some(disposition), Some(by), Some(status)), "{to}: {:?}", kinds(&events));
        assert_eq!(call.answered_at.is_some(), disposition == Disposition::Completed);
        assert_eq!(data_of(&events, "call.created")[0]["direction"], "outbound");
        assert_eq!(data_of(&events, "leg.added")[0]["trunk"], "out");
    }
    near.close().await;
    far.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_does_not_dial_twice() {
    let (near, far) = pair().await;
    let token = near.token().await;
    let address = near.server.http_address();
    let body = json!({"to": "400", "flow": "700"}).to_string();
    let (code, _) = post(address, &token, None, &body).await;
    assert_eq!(code, 400, "an Idempotency-Key is required");
    let (code, first) = post(address, &token, Some("k"), &body).await;
    assert_eq!(code, 202);
    let (code, again) = post(address, &token, Some("k"), &body).await;
    assert_eq!((code, &again), (202, &first));
    let other = json!({"to": "300", "flow": "700"}).to_string();
    assert_eq!(post(address, &token, Some("k"), &other).await.0, 409);
    let wrong = json!({"to": "a b\n", "flow": "nobody", "trunk": "nope", "timeout_s": 0}).to_string();
    let (code, problem) = post(address, &token, Some("w"), &wrong).await;
    assert_eq!((code, problem["errors"].as_array().map(Vec::len)), (422, Some(4)), "{problem}");
    near.closed(1).await;
    let calls = near.server.store().calls(&Default::default(), None, 10).await.expect("the store answers");
    assert_eq!(calls.data.len(), 1);
    near.close().await;
    far.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_says_nothing_is_followed_by_the_next_one() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let silent_at = silent.local_addr().expect("its address").to_string();
    let far = Lab::open(PORTS + 2000, Setup::default()).await;
    let near = Lab::open(PORTS, setup(vec![silent_at, far.sip.to_string()])).await;
    let token = near.token().await;
    let body = json!({"to": "400", "flow": "700"}).to_string();
    assert_eq!(post(near.server.http_address(), &token, Some("f"), &body).await.0, 202);
    let (call, events) = near.record().await;
    assert_eq!(call.disposition, Some(Disposition::Completed), "{:?}", kinds(&events));
    assert_eq!(data_of(&events, "leg.added").len(), 2);
    assert_eq!(data_of(&events, "leg.ended")[0]["status"], 408);
    near.close().await;
    far.close().await;
}

/// `POST /api/v1/calls`.
pub async fn post(to: SocketAddr, token: &str, key: Option<&str>, body: &str) -> (u16, Value) {
    let key = key.map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default();
    http_with(to, "POST", "/api/v1/calls", token, &key, body).await
}
