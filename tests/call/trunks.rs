//! What a trunk carries, and what its calls say of themselves.

use serde_json::{Value, json};
use tandem::audio::Codec;
use tandem::event::Disposition;
use tandem::simulate::phone::Act;
use tokio::net::UdpSocket;

use super::PORTS;
use super::dial::{post, setup};
use super::support::{Lab, PATIENCE, Setup, data_of, ms, within};

/// A server with one trunk, all of whose keys are written here.
async fn with_trunk(keys: &str, setup: Setup) -> Lab {
    let text = format!("name = \"carrier\"\nallow = [\"127.0.0.1\"]\n{keys}");
    let lab = setup.configure(move |config| config.trunk = vec![toml::from_str(&text).expect("a trunk")]);
    Lab::open(PORTS, lab).await
}

async fn trunk(lab: &Lab, token: &str) -> Value {
    let (status, answer) = lab.http("GET", "/api/v1/trunks/carrier", token, "").await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_channels_are_busy_and_channels_come_back() {
    let lab = with_trunk("channels = 1", Setup::default()).await;
    let token = lab.token().await;
    let held = lab.phone.call(lab.plan("400", Codec::Pcmu, vec![Act::Wait(ms(900)), Act::HangUp]));
    let second = async {
        within(60, "the first call is counted", async || {
            (trunk(&lab, &token).await["calls"] == 1).then_some(())
        })
        .await;
        lab.call("400", Vec::new()).await
    };
    let (first, second) = tokio::join!(held, second);
    assert!(first.expect("the phone can try").answered.is_some());
    assert_eq!(second.hang_up.map(|hang_up| hang_up.status), Some(486));
    within(60, "the channel is free", async || (trunk(&lab, &token).await["calls"] == 0).then_some(())).await;
    let third = lab.call("400", vec![Act::Wait(ms(100)), Act::HangUp]).await;
    assert!(third.answered.is_some());
    let calls = lab.closed(3).await;
    let refused = calls.iter().find(|call| call.sip_status == Some(486)).expect("the second");
    assert_eq!(refused.disposition, Some(Disposition::Rejected));
    assert!(refused.reason.as_deref().is_some_and(|reason| reason.contains("channel")));
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_finds_no_channel_to_leave_by_says_so() {
    let far = Lab::open(PORTS + 2000, Setup::default()).await;
    let mut setup = setup(vec![far.sip.to_string()]);
    let trunk_of = std::mem::replace(&mut setup.configure, Box::new(|_| ()));
    let near = setup.configure(move |config| {
        trunk_of(config);
        config.trunk[0].channels = 1;
    });
    let near = Lab::open(PORTS, near).await;
    // The caller's own leg takes the only channel; nothing is left for the other one.
    let report = near.call("600", Vec::new()).await;
    // A 503 would turn the caller's carrier away from us altogether (RFC 3261 section 16.7).
    assert_eq!(report.hang_up.map(|hang_up| hang_up.status), Some(500));
    let token = near.token().await;
    let free = async || {
        let (_, answer) = near.http("GET", "/api/v1/trunks/out", &token, "").await;
        (answer["calls"] == 0).then_some(())
    };
    within(60, "nothing is counted any more", free).await;
    near.close().await;
    far.close().await;
}

/// What an INVITE of the server looks like to the peer.
async fn invite_to(peer: &UdpSocket) -> String {
    let mut buffer = vec![0; 65_536];
    loop {
        let read = tokio::time::timeout(PATIENCE, peer.recv_from(&mut buffer)).await.expect("in time");
        let text = String::from_utf8_lossy(&buffer[..read.expect("a datagram").0]).into_owned();
        if text.starts_with("INVITE ") {
            return text;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_carries_what_its_trunk_was_told_to() {
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let at = peer.local_addr().expect("an address");
    let keys = format!(
        "peers = [\"localhost:{port}\"]\nsrtp = \"required\"\ncaller_headers = [\"p_asserted_identity\"]\n\
         headers = {{ X-Account = \"acme\" }}\nnumber_format = \"e164_plain\"\ncountry = \"1\"\n\
         outbound_proxy = \"127.0.0.1:{port}\"",
        port = at.port()
    );
    let lab = with_trunk(&keys, setup(Vec::new())).await;
    let token = lab.token().await;
    let body = json!({"to": "+15550123", "flow": "700", "from": "+15550100"}).to_string();
    let (status, answer) = post(lab.server.http_address(), &token, Some("h"), &body).await;
    assert_eq!(status, 202, "{answer}");
    let invite = invite_to(&peer).await;
    // The peer is named, not its address: carriers find an account by that.
    let line = format!("INVITE sip:15550123@localhost:{} SIP/2.0\r\n", at.port());
    assert!(invite.starts_with(&line), "{invite}");
    for wanted in [
        &format!("Route: <sip:127.0.0.1:{};lr>\r\n", at.port()),
        "X-Account: acme\r\n",
        "P-Asserted-Identity: <sip:15550100@",
        "m=audio ",
        " RTP/SAVP ",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:",
    ] {
        assert!(invite.contains(wanted), "{wanted:?} is missing in {invite}");
    }
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_carrier_says_of_the_caller_is_in_the_record() {
    let lab = with_trunk("profile = \"telnyx\"", Setup::default()).await;
    let token = lab.token().await;
    let caller = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let at = caller.local_addr().expect("an address");
    let body = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\n",
        at.port()
    );
    let invite = format!(
        "INVITE sip:+15550300@{sip} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bKverdict\r\n\
         From: <sip:2015550177@x>;tag=1\r\nTo: <sip:300@{sip}>\r\nCall-ID: verdict@x\r\nCSeq: 1 INVITE\r\n\
         Max-Forwards: 70\r\nContact: <sip:{at}>\r\n\
         P-Asserted-Identity: <sip:+12015550177@sip.telnyx.com;verstat=TN-Validation-Passed-B>\r\n\
         Diversion: <sip:+15550188@x>;reason=no-answer\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len(),
        sip = lab.sip,
    );
    caller.send_to(invite.as_bytes(), lab.sip).await.expect("it is sent");
    let (call, events) = lab.record().await;
    assert_eq!((call.from.as_str(), call.to.as_str()), ("+12015550177", "+15550300"));
    assert_eq!(call.verstat.as_deref(), Some("TN-Validation-Passed-B"));
    assert_eq!(call.diversion.as_deref(), Some("+15550188"));
    assert_eq!(data_of(&events, "call.created")[0]["verstat"], "TN-Validation-Passed-B");
    let (_, shown) = lab.http("GET", &format!("/api/v1/calls/{}", call.id), &token, "").await;
    assert_eq!((&shown["verstat"], &shown["diversion"]), (&json!(call.verstat), &json!(call.diversion)));
    lab.close().await;
}

/// Answers every INVITE with 503 and the wish to be left alone for a while.
async fn overloaded(peer: UdpSocket) {
    let mut buffer = vec![0; 65_536];
    while let Ok((length, from)) = peer.recv_from(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if !text.starts_with("INVITE ") {
            continue;
        }
        let kept = |line: &&str| {
            ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name))
        };
        let head: Vec<&str> = text.split("\r\n").filter(kept).collect();
        let answer = format!(
            "SIP/2.0 503 Service Unavailable\r\n{}\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n",
            head.join("\r\n").replace("To: ", "To:  ")
        );
        peer.send_to(answer.as_bytes(), from).await.expect("it is sent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trunk_that_is_overloaded_is_followed_by_the_next_and_left_alone_for_a_while() {
    let busy = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let at = busy.local_addr().expect("an address");
    let answering = tokio::spawn(overloaded(busy));
    let far = Lab::open(PORTS + 2000, Setup::default()).await;
    let mut setup = setup(vec![far.sip.to_string()]);
    let second = std::mem::replace(&mut setup.configure, Box::new(|_| ()));
    let first = format!("name = \"first\"\npeers = [\"{at}\"]");
    let near = setup.configure(move |config| {
        second(config);
        config.trunk.insert(0, toml::from_str(&first).expect("a trunk"));
    });
    let near = Lab::open(PORTS, near).await;
    let token = near.token().await;
    let body = json!({"to": "400", "flow": "700"}).to_string();
    assert_eq!(post(near.server.http_address(), &token, Some("a"), &body).await.0, 202);
    let (call, events) = near.record().await;
    assert_eq!(call.disposition, Some(Disposition::Completed));
    let trunks: Vec<_> = data_of(&events, "leg.added").iter().map(|leg| leg["trunk"].clone()).collect();
    assert_eq!(trunks, ["first", "out"]);
    assert_eq!(data_of(&events, "leg.ended")[0]["status"], 503);
    let shown = async |name: &str| near.http("GET", &format!("/api/v1/trunks/{name}"), &token, "").await.1;
    within(60, "the first target is left alone", async || {
        shown("first").await["targets"][0]["quarantined_until"].is_string().then_some(())
    })
    .await;
    assert!(shown("out").await["targets"][0]["quarantined_until"].is_null());
    answering.abort();
    near.close().await;
    far.close().await;
}
