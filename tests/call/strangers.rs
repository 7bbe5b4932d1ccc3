//! Whoever has no business here: packets, requests and floods of strangers, while calls are up.

use std::net::SocketAddr;

use tandem::audio::Codec;
use tandem::simulate::phone::{Act, CallReport};
use tokio::net::UdpSocket;

use super::PORTS;
use super::support::{Lab, Setup, ms, say, tone, within};

/// A server that knows 127.0.0.1 alone.
async fn lab() -> Lab {
    let trunk = "name = \"known\"\nallow = [\"127.0.0.1\"]";
    let setup =
        Setup::default().configure(|config| config.trunk = vec![toml::from_str(trunk).expect("a trunk")]);
    Lab::open(PORTS, setup).await
}

/// A call that gives back what it is told, for three seconds.
async fn echo(lab: &Lab) -> CallReport {
    let acts = vec![Act::Wait(ms(400)), say(tone(500.0, 9000.0, 2000)), Act::Wait(ms(600)), Act::HangUp];
    lab.phone.call(lab.plan("400", Codec::Pcmu, acts)).await.expect("the phone can try")
}

fn loud_ms(report: &CallReport) -> usize {
    let loud = |chunk: &&[i16]| chunk.iter().any(|sample| sample.unsigned_abs() > 2000);
    report.heard.chunks(240).filter(loud).count() * 10
}

async fn stranger() -> UdpSocket {
    UdpSocket::bind("127.0.0.2:0").await.expect("a loopback address")
}

async fn call_is_up(lab: &Lab) {
    within(60, "the call is answered", async || {
        let call = lab.live_call().await;
        call.answered_at.map(|_| ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sprays_the_media_ports_is_neither_heard_nor_sent_anything() {
    let lab = lab().await;
    let attacker = stranger().await;
    let attack = async {
        call_is_up(&lab).await;
        // A loud packet of PCMU to every port there is, again and again (RTPBleed).
        let mut packet = [&[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4][..], &[0x80; 160]].concat();
        for sequence in 0..20_u8 {
            packet[3] = sequence;
            for port in PORTS..PORTS + 1000 {
                // A port without a listener is no obstacle.
                let _closed = attacker.send_to(&packet, ("127.0.0.1", port)).await;
            }
            tokio::task::yield_now().await;
        }
    };
    let (report, ()) = tokio::join!(echo(&lab), attack);
    let heard = loud_ms(&report);
    assert!((1_700..2_300).contains(&heard), "{heard} ms came back of 2000");
    let mut buffer = [0; 2048];
    let got = attacker.try_recv_from(&mut buffer);
    assert!(!matches!(got, Ok((length, _)) if length > 0), "the attacker was sent something: {got:?}");
    lab.close().await;
}

fn request(method: &str, number: usize, agent: &str, at: SocketAddr, lab: &Lab) -> String {
    format!(
        "{method} sip:{number}@{sip} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bKs{number}\r\n\
         From: <sip:100@{sip}>;tag={number}\r\nTo: <sip:{number}@{sip}>\r\nCall-ID: {number}@scan\r\n\
         CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContact: <sip:{at}>\r\nUser-Agent: {agent}\r\n\
         Content-Length: 0\r\n\r\n",
        sip = lab.sip,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_scanners_hear_nothing_and_calls_do_not_notice_them() {
    let lab = lab().await;
    let (outside, inside) = (stranger().await, UdpSocket::bind("127.0.0.1:0").await.expect("a socket"));
    let at = |socket: &UdpSocket| socket.local_addr().expect("an address");
    let flood = async {
        call_is_up(&lab).await;
        for number in 0..3_000 {
            let method = ["INVITE", "REGISTER", "OPTIONS"][number % 3];
            let text = request(method, number, "Grandstream", at(&outside), &lab);
            outside.send_to(text.as_bytes(), lab.sip).await.expect("it is sent");
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        // A known tool from an address that may call.
        let text = request("OPTIONS", 1, "friendly-scanner", at(&inside), &lab);
        inside.send_to(text.as_bytes(), lab.sip).await.expect("it is sent");
    };
    let (report, ()) = tokio::join!(echo(&lab), flood);
    let heard = loud_ms(&report);
    assert!((1_700..2_300).contains(&heard), "{heard} ms came back of 2000");
    // The same address is answered when it says something sensible, after all of the above.
    let text = request("OPTIONS", 2, "tandem test", at(&inside), &lab);
    inside.send_to(text.as_bytes(), lab.sip).await.expect("it is sent");
    let mut buffer = [0; 2048];
    let answer = tokio::time::timeout(super::support::PATIENCE, inside.recv_from(&mut buffer)).await;
    let (length, _) = answer.expect("in time").expect("a datagram");
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(text.starts_with("SIP/2.0 200") && text.contains("Call-ID: 2@scan"), "{text}");
    assert!(outside.try_recv_from(&mut buffer).is_err(), "the stranger was answered");
    let calls = lab.closed(1).await;
    assert_eq!(calls.len(), 1, "no call of a stranger has a record");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_peers_are_told_the_private_address_and_others_the_public_one() {
    let trunks =
        ["name = \"inside\"\nallow = [\"127.0.0.3\"]", "name = \"outside\"\nallow = [\"127.0.0.2\"]"];
    let lab = Lab::open(
        PORTS,
        Setup::default().configure(move |config| {
            config.trunk = trunks.map(|text| toml::from_str(text).expect("a trunk")).into();
            config.sip.advertise = Some([203, 0, 113, 10].into());
            let private = "network = \"127.0.0.3/32\"\naddress = \"127.0.0.1\"";
            config.sip.advertise_for = vec![toml::from_str(private).expect("an address")];
        }),
    )
    .await;
    for (from, shown) in [("127.0.0.3", "127.0.0.1"), ("127.0.0.2", "203.0.113.10")] {
        let peer = UdpSocket::bind((from, 0)).await.expect("a loopback address");
        let at = peer.local_addr().expect("an address");
        let body = format!(
            "v=0\r\no=- 1 1 IN IP4 {from}\r\ns=-\r\nc=IN IP4 {from}\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\n",
            at.port()
        );
        let head = request("INVITE", 400, "peer", at, &lab);
        // Another call each: one that comes again by another way would be a loop (482).
        let head = head
            .replace("400@scan", from)
            .replace("Content-Length: 0\r\n\r\n", "Content-Type: application/sdp\r\n");
        let invite = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        peer.send_to(invite.as_bytes(), lab.sip).await.expect("it is sent");
        let mut buffer = vec![0; 65_536];
        let answer = loop {
            let read = tokio::time::timeout(super::support::PATIENCE, peer.recv_from(&mut buffer)).await;
            let (length, _) = read.expect("in time").expect("a datagram");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with("SIP/2.0 200") {
                break text;
            }
        };
        assert!(answer.contains(&format!("c=IN IP4 {shown}\r\n")), "{from}: {answer}");
        assert!(answer.contains(&format!("Contact: <sip:{shown}:")), "{from}: {answer}");
    }
    lab.close().await;
}
