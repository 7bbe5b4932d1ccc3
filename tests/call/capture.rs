//! What a capture server (Homer) gets of a call: HEP3 over UDP, read chunk by chunk.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::time::Duration;

use tandem::config::SipHep;
use tandem::simulate::phone::Act;
use tandem::sip::message::Message;
use tandem::sip::{Limits, parse_datagram};

use super::PORTS;
use super::support::{Lab, Setup, ms};

/// The chunks of one packet: by type, of vendor 0.
fn chunks(packet: &[u8]) -> HashMap<u16, Vec<u8>> {
    assert_eq!(&packet[..4], b"HEP3");
    assert_eq!(usize::from(number(&packet[4..6])), packet.len(), "the length is that of the packet");
    let (mut found, mut rest) = (HashMap::new(), &packet[6..]);
    while !rest.is_empty() {
        let (vendor, kind, length) =
            (number(&rest[..2]), number(&rest[2..4]), usize::from(number(&rest[4..6])));
        assert!(vendor == 0 && length >= 6 && length <= rest.len(), "chunk {kind} of {length}");
        assert!(found.insert(kind, rest[6..length].to_vec()).is_none(), "chunk {kind} comes twice");
        rest = &rest[length..];
    }
    found
}

fn number(octets: &[u8]) -> u16 {
    u16::from_be_bytes([octets[0], octets[1]])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_server_can_follow_a_call() {
    let collector = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    collector.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    let target = collector.local_addr().expect("it is bound");
    let setup = Setup::default().configure(move |config| {
        let hep = format!("target = \"{target}\"\ncapture_id = 2001");
        config.sip.trace.hep = Some(toml::from_str::<SipHep>(&hep).expect("a capture server"));
    });
    let lab = Lab::open(PORTS, setup).await;
    let report = lab.call("400", vec![Act::Wait(ms(200)), Act::HangUp]).await;
    assert!(report.answered.is_some());
    let (call, _) = lab.record().await;
    let reading = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        let mut packet = [0; 65_535];
        while said.last().is_none_or(|(line, _): &(String, _)| line != "200 BYE") {
            let length = collector.recv(&mut packet).expect("the whole call in time");
            let chunks = chunks(&packet[..length]);
            let line = match parse_datagram(&chunks[&15], &Limits::default())
                .expect("SIP as it was on the wire")
            {
                Message::Request(request) => request.method.to_string(),
                Message::Response(response) => {
                    format!("{} {}", response.status.get(), response.headers.cseq().expect("a CSeq").method)
                }
            };
            said.push((line, chunks));
        }
        said
    });
    let said = reading.await.expect("the collector");
    let lines: Vec<&str> = said.iter().map(|(line, _)| line.as_str()).collect();
    let order: Vec<usize> = ["INVITE", "100 INVITE", "200 INVITE", "ACK", "BYE", "200 BYE"]
        .iter()
        .map(|wanted| {
            lines.iter().position(|line| line == wanted).unwrap_or_else(|| panic!("{wanted}: {lines:?}"))
        })
        .collect();
    assert!(order.is_sorted(), "{lines:?}");
    let port = |octets: &Vec<u8>| number(octets);
    for (line, chunks) in &said {
        assert_eq!(
            (&chunks[&1][..], &chunks[&2][..], &chunks[&11][..]),
            (&[2][..], &[17][..], &[1][..]),
            "{line}"
        );
        assert_eq!(chunks[&12], 2001u32.to_be_bytes());
        assert_eq!(chunks[&17], call.sip_call_id.as_deref().unwrap_or_default().as_bytes(), "{line}");
        let ours = if line.starts_with(|c: char| c.is_ascii_digit()) { 7 } else { 8 };
        assert_eq!(port(&chunks[&ours]), lab.sip.port(), "{line}: which side is ours");
    }
    let times: Vec<u64> = said
        .iter()
        .map(|(_, chunks)| {
            let of = |kind: u16| chunks[&kind].iter().fold(0u64, |all, octet| all << 8 | u64::from(*octet));
            of(9) * 1_000_000 + of(10)
        })
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let begun = times[0] / 1000;
    let recorded = u64::try_from(call.created_at.get()).expect("after 1970");
    assert!(begun.abs_diff(recorded) < 5_000, "wall-clock time: {begun} {recorded}");
    lab.close().await;
}
