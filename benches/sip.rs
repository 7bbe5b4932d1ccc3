//! What does signalling cost? Reading an INVITE as Twilio sends it (beside what rsip needs for the same
//! octets), reading its headers, printing, and answering its offer.
//!
//! `cargo bench --bench sip`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tandem::sip::framing::StreamFramer;
use tandem::sip::negotiation::{Capabilities, Negotiation, session_description};
use tandem::sip::{Limits, Message, Response, StatusCode, parse_datagram};

const INVITE_HEAD: &str = "INVITE sip:+15550111@198.51.100.20:5060 SIP/2.0\r\n\
Record-Route: <sip:54.172.60.1:5060;lr;r2=on>\r\n\
CSeq: 1 INVITE\r\n\
From: \"+15550122\" <sip:+15550122@acme.pstn.twilio.com>;tag=28460006_c3356d0b_5cdada8c-cbf0-4369-b02d\r\n\
To: <sip:+15550111@198.51.100.20>\r\n\
Max-Forwards: 66\r\n\
P-Asserted-Identity: <sip:+15550122@206.147.76.45:5060>\r\n\
Diversion: <sip:+15550111@twilio.com>;reason=unconditional\r\n\
Min-SE: 120\r\n\
Call-ID: f304a1d2cafb8139c1f9ff93a7733586@0.0.0.0\r\n\
Contact: <sip:+15550122@172.25.10.217:5060;transport=udp>\r\n\
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY\r\n\
Via: SIP/2.0/UDP 54.172.60.1:5060;branch=z9hG4bK1e5a.0da2ace9.0\r\n\
Via: SIP/2.0/UDP 172.25.10.217:5060;rport=5060;branch=z9hG4bK5cdada8c_c3356d0b_54-45746327\r\n\
Supported: timer\r\n\
User-Agent: Twilio Gateway\r\n\
X-Twilio-AccountSid: AC00000000000000000000000000000000\r\n\
X-Twilio-CallSid: CA00000000000000000000000000000000\r\n\
Content-Type: application/sdp\r\n";

const OFFER: &str = "v=0\r\no=root 1185414872 1185414872 IN IP4 172.18.155.180\r\n\
s=Twilio Media Gateway\r\nc=IN IP4 168.86.138.232\r\nt=0 0\r\n\
m=audio 19534 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:20\r\na=sendrecv\r\n";

fn invite() -> Vec<u8> {
    format!("{INVITE_HEAD}Content-Length: {}\r\n\r\n{OFFER}", OFFER.len()).into_bytes()
}

fn reading_an_invite(c: &mut Criterion) {
    let (octets, limits) = (invite(), Limits::default());
    let mut group = c.benchmark_group("sip/read_invite");
    group.throughput(Throughput::Bytes(octets.len() as u64));
    group.bench_function("tandem", |b| b.iter(|| parse_datagram(black_box(&octets), &limits)));
    group.bench_function("tandem_with_typed_headers", |b| {
        b.iter(|| {
            let message = parse_datagram(black_box(&octets), &limits).ok()?;
            let headers = message.headers();
            black_box((headers.via_top().ok()?, headers.from().ok()?, headers.to().ok()?));
            black_box((headers.cseq().ok()?, headers.call_id().ok()?.len(), headers.contact().ok()?));
            Some(message)
        });
    });
    group.bench_function("tandem_from_a_stream", |b| {
        b.iter(|| {
            let mut framer = StreamFramer::new(limits.clone());
            framer.feed(black_box(&octets));
            framer.next_frame()
        });
    });
    group.bench_function("rsip", |b| b.iter(|| rsip::Request::try_from(black_box(&octets[..]))));
    group.finish();
}

fn answering_an_invite(c: &mut Criterion) {
    let octets = invite();
    let Ok(Message::Request(request)) = parse_datagram(&octets, &Limits::default()) else {
        panic!("the INVITE of this bench does not parse")
    };
    c.bench_function("sip/print_request", |b| b.iter(|| black_box(&request).to_bytes()));
    c.bench_function("sip/build_and_print_100", |b| {
        b.iter(|| Response::to_request(black_box(&request), StatusCode::TRYING, None).to_bytes());
    });
    let (local, peer) = ("203.0.113.10:20000", "54.172.60.1");
    let (local, peer) = (local.parse().expect("an address"), peer.parse().expect("an address"));
    c.bench_function("sip/answer_an_offer", |b| {
        b.iter(|| {
            let offer = session_description(&request.headers, &request.body).ok().flatten()?;
            Negotiation::new(Capabilities::default(), local, 1 << 40).answer(&offer, peer).ok()
        });
    });
}

criterion_group!(benches, reading_an_invite, answering_an_invite);
criterion_main!(benches);
