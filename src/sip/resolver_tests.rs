//! The resolver against fixed answers and against a name server of our own.

use std::net::Ipv4Addr;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, NAPTR, SRV};
use hickory_resolver::proto::rr::{Name, Record};
use tokio::net::UdpSocket;

use super::*;
use crate::sip::Transport;

const OURS: [Reach; 2] = [
    Reach { transport: Transport::Udp, v4: true, v6: false },
    Reach { transport: Transport::Tcp, v4: true, v6: false },
];

fn peer(text: &str) -> Peer {
    text.parse().expect("a peer")
}

fn listed(found: &[Candidate]) -> Vec<String> {
    found.iter().map(|one| format!("{} {}", one.transport, one.address)).collect()
}

#[tokio::test]
async fn fixed_answers_are_followed_and_nothing_else() {
    let resolver = Resolver::fixed([(
        Question::Addresses("pbx.example".to_owned()),
        Rows::Addresses(vec![Ipv4Addr::new(192, 0, 2, 1).into()]),
    )]);
    let found = resolver.resolve(&peer("pbx.example"), &OURS).await.expect("it is listed");
    assert_eq!(listed(&found), ["udp 192.0.2.1:5060"]);
    let error = resolver.resolve(&peer("other.example"), &OURS).await.expect_err("it is not");
    assert_eq!(error.to_string(), "`other.example` has no address in DNS");
}

/// A name server for `carrier.example` that answers `answers` queries and then falls silent.
async fn name_server(answers: usize) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        let mut asked = Vec::new();
        let mut buffer = [0; 1500];
        while asked.len() < answers {
            let (length, from) = socket.recv_from(&mut buffer).await.expect("a query");
            let query = Message::from_vec(&buffer[..length]).expect("a DNS message");
            let question = query.queries.first().expect("a question").clone();
            let kind = question.query_type();
            asked.push(format!("{kind} {}", question.name()));
            let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
            reply.metadata.message_type = MessageType::Response;
            reply.add_query(question.clone());
            let row = |data| Record::from_rdata(question.name().clone(), 60, data);
            let name = |text: &str| Name::from_ascii(text).expect("a name");
            match (kind, question.name().to_ascii().as_str()) {
                (RecordType::NAPTR, "carrier.example.") => {
                    let empty = Box::from(*b"");
                    let next = name("_sip._tcp.carrier.example.");
                    let naptr = NAPTR::new(10, 5, Box::from(*b"s"), Box::from(*b"SIP+D2T"), empty, next);
                    reply.add_answer(row(RData::NAPTR(naptr)));
                }
                (RecordType::SRV, "_sip._tcp.carrier.example.") => {
                    reply.add_answer(row(RData::SRV(SRV::new(10, 0, 5070, name("a.carrier.example.")))));
                    reply.add_answer(row(RData::SRV(SRV::new(20, 0, 5071, name("b.carrier.example.")))));
                }
                (RecordType::A, "a.carrier.example.") => {
                    reply.add_answer(row(RData::A(A::new(192, 0, 2, 1))));
                }
                (RecordType::A, "b.carrier.example.") => {
                    reply.add_answer(row(RData::A(A::new(192, 0, 2, 2))));
                }
                _ => reply.metadata.response_code = ResponseCode::NXDomain,
            }
            let bytes = reply.to_vec().expect("it fits");
            socket.send_to(&bytes, from).await.expect("sent");
        }
        asked
    });
    (address, serving)
}

#[tokio::test]
async fn a_carriers_name_is_followed_through_naptr_srv_and_addresses() {
    let (server, serving) = name_server(6).await;
    let resolver = Resolver::asking(server).expect("a resolver");
    let found = resolver.resolve(&peer("carrier.example"), &OURS).await.expect("it leads somewhere");
    assert_eq!(listed(&found), ["tcp 192.0.2.1:5070", "tcp 192.0.2.2:5071"]);
    let left = found[0].expires.expect("a TTL") - Instant::now();
    assert!((50..=60).contains(&left.as_secs()), "{left:?}");
    let mut asked = serving.await.expect("six queries");
    asked.sort();
    assert_eq!(asked.len(), 6, "{asked:?}");
    // The server is silent by now: the second time is answered from memory.
    let again = resolver.resolve(&peer("carrier.example"), &OURS).await.expect("it is known");
    assert_eq!(listed(&again), listed(&found));
}
