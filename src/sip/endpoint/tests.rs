//! Calls through real sockets on the loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Endpoint, EndpointConfig, EndpointHandle, Listener};
use crate::id::LegId;
use crate::sip::message::Transport;
use crate::sip::profile::Profile;
use crate::sip::trunk::{Trunk, Trunks};
use crate::sip::ua::{EndedBy, LegCommand, LegEvent, OutgoingInvite, UaEvent};
use crate::sip::uri::Uri;

pub(super) const SDP: &[u8] =
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

pub(super) fn config(listen: &[&str], allow: &str) -> EndpointConfig {
    let mut trunk = Trunk::new("test", Arc::new(Profile::default()));
    trunk.allow = vec![allow.parse().expect("a network")];
    let listen = listen.iter().map(|text| text.parse().expect("a listener")).collect();
    EndpointConfig::new(listen, Trunks::new([trunk]))
}

async fn start(listen: &[&str], allow: &str) -> (EndpointHandle, mpsc::Receiver<UaEvent>) {
    let (events, received) = mpsc::channel(64);
    let endpoint = Endpoint::start(config(listen, allow), events).await;
    (endpoint.expect("loopback ports are free"), received)
}

pub(super) fn address(endpoint: &EndpointHandle, transport: Transport) -> SocketAddr {
    let found = endpoint.local_addrs().iter().find(|l: &&Listener| l.transport == transport);
    found.expect("it listens").address
}

pub(super) async fn next(events: &mut mpsc::Receiver<UaEvent>) -> UaEvent {
    timeout(Duration::from_secs(5), events.recv()).await.expect("in time").expect("the endpoint runs")
}

pub(super) async fn next_of_leg(events: &mut mpsc::Receiver<UaEvent>) -> LegEvent {
    loop {
        match next(events).await {
            // 100 Trying: the callee has the INVITE.
            UaEvent::Leg(_, LegEvent::Progress { status, .. }) if status.get() == 100 => {}
            UaEvent::Leg(_, event) => return event,
            other => panic!("not a leg's: {other:?}"),
        }
    }
}

async fn whole_call(listen: &str, allow: &str, transport: Transport) {
    let (caller, mut caller_events) = start(&[listen], allow).await;
    let (callee, mut callee_events) = start(&[listen], allow).await;
    let leg = LegId::fresh();
    let target = caller.target(transport, address(&callee, transport)).expect("a listener fits");
    let to = Uri::sip("100", &target.remote.ip().to_string(), None).expect("a URI");
    let from = Uri::sip("200", &target.local.ip().to_string(), None).expect("a URI");
    let invite = OutgoingInvite { sdp: Some(SDP.into()), ..OutgoingInvite::new(target, to, from) };
    caller.invite(leg, invite).expect("the endpoint takes it");
    let UaEvent::Invite(invited) = next(&mut callee_events).await else { panic!("not an INVITE") };
    assert_eq!(invited.called, "100");
    assert_eq!(invited.local.ip(), target.remote.ip());
    callee.command(invited.leg, LegCommand::Answer { sdp: SDP.into() });
    assert_eq!(next_of_leg(&mut caller_events).await, LegEvent::Answered { sdp: Some(SDP.into()) });
    assert_eq!(next_of_leg(&mut callee_events).await, LegEvent::Acked { answer: None });
    callee.command(invited.leg, LegCommand::Hangup { reason: None });
    assert!(matches!(next_of_leg(&mut callee_events).await, LegEvent::Ended { by: EndedBy::Us, .. }));
    assert!(matches!(next_of_leg(&mut caller_events).await, LegEvent::Ended { by: EndedBy::Peer, .. }));
    let pong = caller.ping(transport, target.remote).await.expect("the endpoint runs");
    assert_eq!(pong.status.map(|status| status.get()), Some(200));
    callee.stop(Duration::from_secs(5)).await;
    caller.stop(Duration::from_secs(5)).await;
    assert!(!caller.is_running());
}

#[tokio::test]
async fn a_call_over_udp() {
    whole_call("udp://127.0.0.1:0", "127.0.0.0/8", Transport::Udp).await;
}

#[tokio::test]
async fn a_call_over_tcp() {
    whole_call("tcp://127.0.0.1:0", "127.0.0.0/8", Transport::Tcp).await;
}

#[tokio::test]
async fn a_call_over_udp_to_a_wildcard_listener() {
    let (caller, _events) = start(&["udp://0.0.0.0:0"], "127.0.0.0/8").await;
    let (callee, _others) = start(&["udp://0.0.0.0:0", "udp://127.0.0.2:0"], "127.0.0.0/8").await;
    let port = address(&callee, Transport::Udp).port();
    let target =
        caller.target(Transport::Udp, SocketAddr::from(([127, 0, 0, 1], port))).expect("a listener fits");
    assert_eq!(target.local.ip(), SocketAddr::from(([127, 0, 0, 1], 0)).ip());
    let pong = caller.ping(Transport::Udp, target.remote).await.expect("the endpoint runs");
    assert_eq!(pong.status.map(|status| status.get()), Some(200));
}

#[tokio::test]
async fn a_call_over_ipv6_where_the_system_has_it() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return;
    }
    whole_call("udp://[::1]:0", "::1/128", Transport::Udp).await;
    whole_call("tcp://[::1]:0", "::1/128", Transport::Tcp).await;
}

pub(super) fn options(transport: &str) -> String {
    format!(
        "OPTIONS sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.0.1:9;branch=z9hG4bK1;rport\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:x@127.0.0.1>\r\nCall-ID: 1@b\r\nCSeq: 1 OPTIONS\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
}

#[tokio::test]
async fn a_stream_that_comes_in_single_octets_is_read() {
    let (endpoint, _events) = start(&["tcp://127.0.0.1:0"], "127.0.0.0/8").await;
    let mut stream = TcpStream::connect(address(&endpoint, Transport::Tcp)).await.expect("it listens");
    stream.set_nodelay(true).expect("a TCP option");
    for octet in format!("\r\n\r\n{0}{0}", options("TCP")).bytes() {
        stream.write_all(&[octet]).await.expect("it reads");
    }
    let mut text = String::new();
    let mut chunk = [0; 4_096];
    while text.matches("SIP/2.0 200 OK").count() < 2 {
        let read = timeout(Duration::from_secs(5), stream.read(&mut chunk)).await.expect("in time");
        text.push_str(&String::from_utf8_lossy(&chunk[..read.expect("it answers")]));
    }
    assert!(text.starts_with("\r\nSIP/2.0 200 OK"), "the keep-alive is answered first: {text:?}");
}

#[tokio::test]
async fn a_stream_from_a_stranger_is_closed() {
    let (endpoint, _events) = start(&["tcp://127.0.0.1:0"], "192.0.2.0/24").await;
    let mut stream = TcpStream::connect(address(&endpoint, Transport::Tcp)).await.expect("it listens");
    let mut chunk = [0; 16];
    let read = timeout(Duration::from_secs(5), stream.read(&mut chunk)).await.expect("in time");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_stream_out_of_step_is_answered_and_closed() {
    let (endpoint, _events) = start(&["tcp://127.0.0.1:0"], "127.0.0.0/8").await;
    let mut stream = TcpStream::connect(address(&endpoint, Transport::Tcp)).await.expect("it listens");
    let broken = options("TCP").replace("Content-Length: 0", "Content-Length: 99999999");
    stream.write_all(broken.as_bytes()).await.expect("it reads");
    let mut text = String::new();
    // Both a clean end and a reset close it.
    let _end = timeout(Duration::from_secs(5), stream.read_to_string(&mut text)).await.expect("in time");
    assert!(text.is_empty() || text.starts_with("SIP/2.0 "), "{text}");
}

#[tokio::test]
async fn a_message_that_takes_too_long_closes_its_stream() {
    let mut config = config(&["tcp://127.0.0.1:0"], "127.0.0.0/8");
    config.message_timeout = Duration::from_millis(20);
    let (events, _received) = mpsc::channel(1);
    let endpoint = Endpoint::start(config, events).await.expect("loopback ports are free");
    let mut stream = TcpStream::connect(address(&endpoint, Transport::Tcp)).await.expect("it listens");
    stream.write_all(b"OPTIONS sip:x@y SIP/2.0\r\nVia: ").await.expect("it reads");
    let mut chunk = [0; 16];
    let read = timeout(Duration::from_secs(5), stream.read(&mut chunk)).await.expect("in time");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_stranger_by_udp_hears_nothing_and_a_trunk_does() {
    let (endpoint, _events) = start(&["udp://127.0.0.1:0"], "127.0.0.1/32").await;
    let to = address(&endpoint, Transport::Udp);
    let stranger = UdpSocket::bind("127.0.0.2:0").await.expect("a loopback address");
    let friend = UdpSocket::bind("127.0.0.1:0").await.expect("a loopback address");
    stranger.send_to(options("UDP").as_bytes(), to).await.expect("it is sent");
    friend.send_to(options("UDP").as_bytes(), to).await.expect("it is sent");
    let mut buffer = [0; 4_096];
    let (length, _) = timeout(Duration::from_secs(5), friend.recv_from(&mut buffer))
        .await
        .expect("in time")
        .expect("an answer");
    assert!(buffer[..length].starts_with(b"SIP/2.0 200 OK"));
    // The stranger's request was handled before the friend's, so an answer would be here.
    assert!(stranger.try_recv_from(&mut buffer).is_err());
}
