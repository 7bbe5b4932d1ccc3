//! TLS, WebSocket and STUN through real sockets on the loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::tests::{SDP, address, config, next, next_of_leg, options};
use super::{Endpoint, EndpointConfig, EndpointHandle, StartError};
use crate::id::LegId;
use crate::sip::message::Transport;
use crate::sip::tls::{Connector, HostNames, TlsClients, TlsFiles, TlsRoots};
use crate::sip::ua::{LegCommand, LegEvent, OutgoingInvite, UaEvent};
use crate::sip::uri::Uri;

const NAME: &str = "sip.example.test";

fn fixture(name: &str) -> String {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn files(leaf: &str) -> TlsFiles {
    TlsFiles::new(fixture(&format!("{leaf}.pem")), fixture(&format!("{leaf}.key.pem")))
}

fn roots() -> TlsRoots {
    TlsRoots::File(fixture("ca.pem").into())
}

fn secure(listen: &str, leaf: &str) -> EndpointConfig {
    EndpointConfig { tls: Some(files(leaf)), tls_roots: roots(), ..config(&[listen], "127.0.0.0/8") }
}

async fn start(config: EndpointConfig) -> (EndpointHandle, mpsc::Receiver<UaEvent>) {
    let (events, received) = mpsc::channel(64);
    (Endpoint::start(config, events).await.expect("loopback ports are free"), received)
}

/// A call to the callee's TLS listener, whose certificate must be for [`NAME`].
fn call(caller: &EndpointHandle, callee: &EndpointHandle) {
    let target = caller.target(Transport::Tls, address(callee, Transport::Tls)).expect("a listener fits");
    let target = target.named(caller.host(NAME).expect("a name"));
    let to = Uri::sip("100", NAME, None).expect("a URI");
    let from = Uri::sip("200", "127.0.0.1", None).expect("a URI");
    let invite = OutgoingInvite { sdp: Some(SDP.into()), ..OutgoingInvite::new(target, to, from) };
    caller.invite(LegId::fresh(), invite).expect("the endpoint takes it");
}

#[tokio::test]
async fn a_call_over_tls_to_a_peer_that_proves_its_name() {
    let (caller, mut caller_events) = start(secure("tls://127.0.0.1:0", "named")).await;
    let (callee, mut callee_events) = start(secure("tls://127.0.0.1:0", "named")).await;
    call(&caller, &callee);
    let UaEvent::Invite(invited) = next(&mut callee_events).await else { panic!("not an INVITE") };
    assert_eq!(invited.transport, Transport::Tls);
    let contact = String::from_utf8_lossy(&invited.request.to_bytes()).into_owned();
    let port = address(&caller, Transport::Tls).port();
    assert!(contact.contains(&format!("Contact: <sip:127.0.0.1:{port};transport=tls>")), "{contact}");
    assert!(contact.contains("Via: SIP/2.0/TLS"), "{contact}");
    callee.command(invited.leg, LegCommand::Answer { sdp: SDP.into() });
    assert_eq!(next_of_leg(&mut caller_events).await, LegEvent::Answered { sdp: Some(SDP.into()) });
    assert_eq!(next_of_leg(&mut callee_events).await, LegEvent::Acked { answer: None });
    callee.command(invited.leg, LegCommand::Hangup { reason: None });
    assert!(matches!(next_of_leg(&mut callee_events).await, LegEvent::Ended { .. }));
    assert!(matches!(next_of_leg(&mut caller_events).await, LegEvent::Ended { .. }));
    let by_address = caller.ping(Transport::Tls, address(&callee, Transport::Tls)).await;
    assert_eq!(
        by_address.expect("it runs").status.map(|status| status.get()),
        Some(200),
        "an address is proven too"
    );
}

#[tokio::test]
async fn a_peer_that_proves_another_name_is_not_spoken_to() {
    let (caller, mut caller_events) = start(secure("tls://127.0.0.1:0", "named")).await;
    let (callee, mut callee_events) = start(secure("tls://127.0.0.1:0", "other")).await;
    call(&caller, &callee);
    match next_of_leg(&mut caller_events).await {
        LegEvent::Failed { status, .. } => assert_eq!(status.get(), 503),
        other => panic!("not a failure: {other:?}"),
    }
    assert!(callee_events.try_recv().is_err(), "nothing was said");
}

#[tokio::test]
async fn an_authority_we_do_not_know_is_not_believed() {
    let strict = EndpointConfig { tls_roots: TlsRoots::WebPki, ..secure("tls://127.0.0.1:0", "named") };
    let (caller, mut caller_events) = start(strict).await;
    let (callee, _events) = start(secure("tls://127.0.0.1:0", "named")).await;
    call(&caller, &callee);
    assert!(matches!(next_of_leg(&mut caller_events).await, LegEvent::Failed { .. }));
}

async fn proves(at: SocketAddr, name: &str) -> bool {
    let names = HostNames::default();
    let number = names.number(name);
    let connector = Connector::new(&roots(), names, None).expect("an authority");
    let stream = TcpStream::connect(at).await.expect("it listens");
    connector.connect(stream, number, at).await.is_ok()
}

#[tokio::test]
async fn a_sip_uri_in_the_certificate_proves_a_domain() {
    let (endpoint, _events) = start(secure("tls://127.0.0.1:0", "domain")).await;
    let at = address(&endpoint, Transport::Tls);
    assert!(proves(at, NAME).await, "RFC 5922 section 7.1");
    assert!(!proves(at, "person.example.test").await, "a URI with a user is no domain");
    assert!(!proves(at, "other.example.test").await);
}

/// An endpoint whose callers must show a certificate, and whether one that shows `own` is heard.
async fn heard_by(clients: TlsClients, own: bool) -> bool {
    let asking = TlsFiles { clients, ..files("named") };
    let asking = EndpointConfig { tls: Some(asking), ..secure("tls://127.0.0.1:0", "named") };
    let (callee, _events) = start(asking).await;
    let showing = TlsFiles { to_servers: own, ..files("named") };
    let showing = EndpointConfig { tls: Some(showing), ..secure("tls://127.0.0.1:0", "named") };
    let (caller, _events) = start(showing).await;
    let pong = caller.ping(Transport::Tls, address(&callee, Transport::Tls)).await.expect("it runs");
    pong.status.is_some_and(|status| status.is_success())
}

#[tokio::test]
async fn callers_show_a_certificate_where_it_is_asked_for() {
    let ca = || fixture("ca.pem").into();
    assert!(heard_by(TlsClients::Any, false).await);
    assert!(heard_by(TlsClients::Optional(ca()), false).await);
    assert!(heard_by(TlsClients::Required(ca()), true).await);
    assert!(!heard_by(TlsClients::Required(ca()), false).await, "none was shown");
    // A self-made authority that did not sign ours.
    let stranger = TlsClients::Required(fixture("stranger.pem").into());
    assert!(!heard_by(stranger, true).await, "it is of another authority");
}

#[tokio::test]
async fn a_phone_makes_tls_connections_without_a_certificate() {
    let (callee, mut callee_events) = start(secure("tls://127.0.0.1:0", "named")).await;
    let bare =
        EndpointConfig { tls: None, tls_without_certificate: true, ..secure("tls://127.0.0.1:0", "named") };
    let (caller, _caller_events) = start(bare).await;
    call(&caller, &callee);
    let UaEvent::Invite(invited) = next(&mut callee_events).await else { panic!("not an INVITE") };
    assert_eq!(invited.transport, Transport::Tls);
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| dir.path().join(name);
    let install = |leaf: &str, certificate: &Path, key: &Path| {
        std::fs::copy(fixture(&format!("{leaf}.pem")), certificate).expect("a copy");
        std::fs::copy(fixture(&format!("{leaf}.key.pem")), key).expect("a copy");
    };
    install("named", &place("cert.pem"), &place("key.pem"));
    let files = TlsFiles {
        reload_every: Duration::from_millis(5),
        ..TlsFiles::new(place("cert.pem"), place("key.pem"))
    };
    let renewing = EndpointConfig { tls: Some(files), ..secure("tls://127.0.0.1:0", "named") };
    let (endpoint, _events) = start(renewing).await;
    let at = address(&endpoint, Transport::Tls);
    assert!(proves(at, NAME).await && !proves(at, "other.example.test").await);
    // A file that is no certificate changes nothing.
    std::fs::write(place("cert.pem"), "half a certificate").expect("a file");
    assert!(proves(at, NAME).await);
    install("other", &place("cert.pem"), &place("key.pem"));
    let renewed = async { while !proves(at, "other.example.test").await {} };
    timeout(Duration::from_secs(10), renewed).await.expect("the new certificate within its time");
}

#[tokio::test]
async fn what_is_no_certificate_is_told_at_the_start() {
    let (events, _received) = mpsc::channel(1);
    let keyless = TlsFiles::new(fixture("named.pem"), fixture("ca.pem"));
    let wrong = EndpointConfig { tls: Some(keyless), ..secure("tls://127.0.0.1:0", "named") };
    let error = Endpoint::start(wrong, events.clone()).await.map(drop).expect_err("no key");
    assert!(format!("{:#}", anyhow::Error::new(error)).contains("ca.pem holds no private key"));
    let none = EndpointConfig { tls: None, ..secure("wss://127.0.0.1:0", "named") };
    let error = Endpoint::start(none, events).await.map(drop).expect_err("no certificate");
    assert!(matches!(error, StartError::NoCertificate(_)));
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_closed() {
    let (endpoint, _events) = start(secure("tls://127.0.0.1:0", "named")).await;
    let mut stream = TcpStream::connect(address(&endpoint, Transport::Tls)).await.expect("it listens");
    stream.write_all(options("TLS").as_bytes()).await.expect("it reads");
    let mut text = Vec::new();
    let _reset = timeout(Duration::from_secs(5), stream.read_to_end(&mut text)).await.expect("in time");
    assert!(!String::from_utf8_lossy(&text).contains("SIP/2.0"));
}

async fn web_socket(
    endpoint: &EndpointHandle,
    protocol: Option<&'static str>,
) -> Result<WebSocketStream<TcpStream>, tokio_tungstenite::tungstenite::Error> {
    let at = address(endpoint, Transport::Ws);
    let stream = TcpStream::connect(at).await.expect("it listens");
    let mut request = format!("ws://{at}/").into_client_request().expect("a request");
    if let Some(protocol) = protocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().expect("a value"));
    }
    client_async(request, stream).await.map(|(socket, _)| socket)
}

async fn text(socket: &mut WebSocketStream<TcpStream>) -> String {
    loop {
        match timeout(Duration::from_secs(5), socket.next()).await.expect("in time") {
            Some(Ok(Message::Text(text))) => return text.to_string(),
            Some(Ok(_)) => {}
            other => panic!("no message: {other:?}"),
        }
    }
}

fn over_ws(method: &str, cseq: u32, to_tag: &str, body: &[u8]) -> String {
    format!(
        "{method} sip:100@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/WS df7jal23ls0d.invalid;branch=z9hG4bK{method}{cseq}\r\n\
         From: <sip:200@example.test>;tag=1\r\nTo: <sip:100@127.0.0.1>{to_tag}\r\nCall-ID: ws@x\r\n\
         CSeq: {cseq} {method}\r\nMax-Forwards: 70\r\nContact: <sip:200@df7jal23ls0d.invalid;transport=ws>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{}",
        body.len(),
        String::from_utf8_lossy(body)
    )
}

#[tokio::test]
async fn a_web_socket_client_calls_and_is_hung_up_on_over_its_own_connection() {
    let (endpoint, mut events) = start(config(&["ws://127.0.0.1:0"], "127.0.0.0/8")).await;
    let mut socket = web_socket(&endpoint, Some("chat, sip")).await.expect("the subprotocol is taken");
    socket.send(Message::text("\r\n\r\n")).await.expect("it reads");
    socket.send(Message::text(over_ws("INVITE", 1, "", SDP))).await.expect("it reads");
    let UaEvent::Invite(invited) = next(&mut events).await else { panic!("not an INVITE") };
    assert_eq!(invited.transport, Transport::Ws);
    assert!(text(&mut socket).await.starts_with("SIP/2.0 100"));
    endpoint.command(invited.leg, LegCommand::Answer { sdp: SDP.into() });
    let answer = text(&mut socket).await;
    assert!(answer.starts_with("SIP/2.0 200") && answer.contains(";transport=ws"), "{answer}");
    let tag =
        answer.lines().find_map(|line| line.strip_prefix("To: ")?.split_once(";tag=")).expect("a tag").1;
    let ack = over_ws("ACK", 1, &format!(";tag={tag}"), b"");
    // A binary frame is as good.
    socket.send(Message::binary(Bytes::from(ack))).await.expect("it reads");
    assert_eq!(next_of_leg(&mut events).await, LegEvent::Acked { answer: None });
    endpoint.command(invited.leg, LegCommand::Hangup { reason: None });
    assert!(text(&mut socket).await.starts_with("BYE sip:200@df7jal23ls0d.invalid"));
}

#[tokio::test]
async fn a_web_socket_without_the_sip_subprotocol_is_refused() {
    let (endpoint, _events) = start(config(&["ws://127.0.0.1:0"], "127.0.0.0/8")).await;
    for protocol in [None, Some("chat")] {
        let refused = web_socket(&endpoint, protocol).await;
        let Err(tokio_tungstenite::tungstenite::Error::Http(response)) = refused else {
            panic!("not refused by HTTP: {refused:?}");
        };
        assert_eq!(response.status(), 400);
    }
}

#[tokio::test]
async fn a_web_socket_client_is_pinged() {
    let lively = EndpointConfig {
        keep_alive: Duration::from_millis(10),
        ..config(&["ws://127.0.0.1:0"], "127.0.0.0/8")
    };
    let (endpoint, _events) = start(lively).await;
    let mut socket = web_socket(&endpoint, Some("sip")).await.expect("the subprotocol is taken");
    let message = timeout(Duration::from_secs(5), socket.next()).await.expect("in time");
    assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
}

#[tokio::test]
async fn a_stream_that_we_opened_is_kept_alive() {
    let lively = EndpointConfig {
        keep_alive: Duration::from_millis(10),
        ..config(&["tcp://127.0.0.1:0"], "127.0.0.0/8")
    };
    let (endpoint, _events) = start(lively).await;
    let peer = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = peer.local_addr().expect("an address");
    let pinging = tokio::spawn(async move { endpoint.ping(Transport::Tcp, at).await });
    let (mut stream, _) = peer.accept().await.expect("a connection");
    let mut heard = String::new();
    let mut chunk = [0; 2_048];
    while !heard.ends_with("\r\n\r\n\r\n\r\n") {
        let read = timeout(Duration::from_secs(5), stream.read(&mut chunk)).await.expect("in time");
        heard.push_str(&String::from_utf8_lossy(&chunk[..read.expect("it writes")]));
    }
    assert!(heard.starts_with("OPTIONS "), "{heard}");
    pinging.abort();
}

#[tokio::test]
async fn a_peer_that_closes_without_a_word_has_failed_at_once() {
    let (endpoint, _events) = start(config(&["tcp://127.0.0.1:0"], "127.0.0.0/8")).await;
    let peer = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = peer.local_addr().expect("an address");
    let closing = async {
        let (mut stream, _) = peer.accept().await.expect("a connection");
        let mut chunk = [0; 2_048];
        let read = stream.read(&mut chunk).await.expect("a request");
        assert!(chunk[..read].starts_with(b"OPTIONS "));
    };
    let (pong, ()) = tokio::join!(endpoint.ping(Transport::Tcp, at), closing);
    let pong = pong.expect("it runs");
    // Long before Timer F, which is 32 s.
    assert!(pong.round_trip < Duration::from_secs(5), "{pong:?}");
    assert!(!pong.status.is_some_and(|status| status.is_success()), "{pong:?}");
}

#[tokio::test]
async fn stun_is_answered_for_known_sources_only() {
    let (endpoint, _events) = start(config(&["udp://127.0.0.1:0"], "127.0.0.1/32")).await;
    let to = address(&endpoint, Transport::Udp);
    let stranger = UdpSocket::bind("127.0.0.2:0").await.expect("a loopback address");
    let friend = UdpSocket::bind("127.0.0.1:0").await.expect("a loopback address");
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    stranger.send_to(&request, to).await.expect("it is sent");
    friend.send_to(&request, to).await.expect("it is sent");
    let mut buffer = [0; 64];
    let received = timeout(Duration::from_secs(5), friend.recv_from(&mut buffer)).await.expect("in time");
    assert_eq!(received.expect("an answer").0, 32);
    assert_eq!(buffer[..2], [1, 1]);
    assert!(stranger.try_recv_from(&mut buffer).is_err());
}
