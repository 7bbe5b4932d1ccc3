//! Requests that are too large for a datagram.

use super::outgoing::{call, leg};
use super::*;
use crate::sip::trunk::Peer;

fn large() -> OutgoingInvite {
    let headers = (0..6).map(|at| (format!("X-{at}"), "x".repeat(200))).collect();
    OutgoingInvite { headers, ..call(Some(OFFER)) }
}

fn desk(trunk: Trunk) -> Desk {
    let listeners = vec![(Transport::Udp, address(US)), (Transport::Tcp, address("198.51.100.20:5070"))];
    Desk::with(UaConfig { listeners, ..UaConfig::default() }, trunk)
}

fn way(desk: &Desk) -> (Transport, String) {
    let via = desk.last_request().headers.via_top().expect("a Via");
    (desk.last_target().transport, via.sent_by())
}

#[test]
fn a_large_invite_and_its_cancel_go_by_tcp_and_a_small_one_does_not() {
    let mut small = desk(trunk());
    small.ua.invite(small.now, leg(), call(Some(OFFER)));
    small.collect();
    assert_eq!(way(&small).0, Transport::Udp);
    let mut desk = desk(trunk());
    desk.ua.invite(desk.now, leg(), large());
    desk.collect();
    assert_eq!(way(&desk), (Transport::Tcp, "198.51.100.20:5070".into()));
    let invite = desk.last_request().clone();
    desk.hear(&answer(&invite, 180, "a", "", ""));
    desk.command(leg(), LegCommand::Hangup { reason: None });
    assert_eq!(way(&desk).0, Transport::Tcp);
    let cancel = desk.last_request().clone();
    desk.hear(&answer(&cancel, 200, "a", "", ""));
    desk.hear(&answer(&invite, 487, "a", "", ""));
    assert_eq!((desk.last_request().method.as_str(), way(&desk).0), ("ACK", Transport::Tcp));
    desk.told();
    desk.at_rest();
}

#[test]
fn a_peer_without_tcp_gets_it_by_udp_with_another_branch_and_the_next_one_at_once() {
    let mut desk = desk(trunk());
    desk.ua.invite(desk.now, leg(), large());
    desk.collect();
    let by_tcp = desk.last_request().clone();
    desk.ua.transport_failed(desk.now, Transport::Tcp, address(CARRIER), None);
    desk.collect();
    assert_eq!(way(&desk), (Transport::Udp, "198.51.100.20:5060".into()));
    let invite = desk.last_request().clone();
    let branch = |request: &Request| request.headers.via_top().expect("a Via").branch().map(str::to_owned);
    assert_ne!(branch(&invite), branch(&by_tcp));
    assert_eq!(invite.headers.cseq(), by_tcp.headers.cseq());
    assert!(desk.told().is_empty());
    desk.hear(&answer(&invite, 401, "a", "WWW-Authenticate: Digest realm=r, nonce=n\n", ""));
    desk.told();
    desk.ua.invite(desk.now, leg(), large());
    desk.collect();
    assert_eq!(way(&desk).0, Transport::Udp);
    let invite = desk.last_request().clone();
    desk.hear(&answer(&invite, 486, "a", "", ""));
    desk.told();
    desk.at_rest();
}

#[test]
fn a_trunk_by_udp_alone_stays_there() {
    for (peer, transport) in [("192.0.2.1:5060;transport=udp", Transport::Udp), ("192.0.2.1", Transport::Tcp)]
    {
        let peers = vec![peer.parse::<Peer>().expect("a peer")];
        let mut desk = desk(Trunk { peers, ..trunk() });
        desk.ua.invite(desk.now, leg(), large());
        desk.collect();
        assert_eq!(way(&desk).0, transport, "{peer}");
    }
}
