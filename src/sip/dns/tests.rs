//! Selection over made-up zones.

use std::collections::HashMap;

use rand::SeedableRng;

use super::*;

/// A zone of fixed answers; what it does not list does not exist.
#[derive(Default)]
struct Zone {
    naptr: HashMap<&'static str, Vec<Naptr>>,
    srv: HashMap<&'static str, Vec<Srv>>,
    hosts: HashMap<&'static str, Vec<&'static str>>,
    asked: Vec<String>,
}

fn records<T: Clone>(rows: Option<&Vec<T>>) -> Option<Records<T>> {
    Some(Records { rows: rows.cloned().unwrap_or_default(), expires: None })
}

impl Lookup for Zone {
    fn naptr(&mut self, name: &str) -> Option<Records<Naptr>> {
        self.asked.push(format!("NAPTR {name}"));
        records(self.naptr.get(name))
    }

    fn srv(&mut self, name: &str) -> Option<Records<Srv>> {
        self.asked.push(format!("SRV {name}"));
        records(self.srv.get(name))
    }

    fn addresses(&mut self, name: &str) -> Option<Records<IpAddr>> {
        self.asked.push(format!("A {name}"));
        let rows =
            self.hosts.get(name).map(|ips| ips.iter().map(|ip| ip.parse().expect("an address")).collect());
        records(rows.as_ref())
    }
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
    Srv { priority, weight, port, target: target.to_owned() }
}

fn naptr(order: u16, service: &str, replacement: &str) -> Naptr {
    let (flags, service, replacement) = ("S".to_owned(), service.to_owned(), replacement.to_owned());
    Naptr { order, preference: 0, flags, service, replacement }
}

fn carrier() -> Zone {
    Zone {
        naptr: HashMap::from([(
            "full.example",
            vec![
                naptr(20, "SIP+D2U", "_sip._udp.full.example"),
                naptr(10, "SIPS+D2T", "_sips._tcp.full.example"),
            ],
        )]),
        srv: HashMap::from([
            ("_sip._udp.full.example", vec![srv(0, 0, 5070, "a.example.")]),
            ("_sips._tcp.full.example", vec![srv(0, 0, 5071, "b.example.")]),
            ("_sip._udp.srv.example", vec![srv(20, 0, 5062, "b.example."), srv(10, 0, 5061, "a.example.")]),
            ("_sip._tcp.srv.example", vec![srv(0, 0, 5063, "a.example.")]),
            ("_sip._udp.gone.example", vec![srv(0, 0, 0, ".")]),
        ]),
        hosts: HashMap::from([
            ("a.example", vec!["192.0.2.1", "2001:db8::1"]),
            ("b.example", vec!["192.0.2.2"]),
            ("plain.example", vec!["192.0.2.3", "192.0.2.4"]),
            ("six.example", vec!["2001:db8::6"]),
        ]),
        asked: Vec::new(),
    }
}

fn ours(transports: &[Transport]) -> Vec<Reach> {
    transports.iter().map(|transport| Reach { transport: *transport, v4: true, v6: false }).collect()
}

/// Where a peer leads with UDP, TCP and TLS over IPv4: `udp 192.0.2.1:5060 …`, or the error.
fn check(peer: &str, expected: &str) {
    check_with(&[Transport::Udp, Transport::Tcp, Transport::Tls], peer, expected);
}

fn check_with(transports: &[Transport], peer: &str, expected: &str) {
    let peer: Peer = peer.parse().expect("a peer");
    let mut rng = StdRng::seed_from_u64(7);
    let found = match select(&peer, &ours(transports), &mut carrier(), &mut rng) {
        Step::Done(Ok(found)) => {
            found.iter().map(|c| format!("{} {}", c.transport, c.address)).collect::<Vec<_>>().join(", ")
        }
        Step::Done(Err(error)) => error.to_string(),
        Step::Need(need) => format!("{need:?}"),
    };
    assert_eq!(found, expected, "{peer}");
}

#[test]
fn an_address_is_taken_as_it_is() {
    check("192.0.2.9", "udp 192.0.2.9:5060");
    check("192.0.2.9:5080;transport=tcp", "tcp 192.0.2.9:5080");
    check("192.0.2.9;transport=tls", "tls 192.0.2.9:5061");
}

#[test]
fn a_port_skips_naptr_and_srv() {
    check("full.example:5080", "`full.example:5080` has no address in DNS");
    check("plain.example:5080", "udp 192.0.2.3:5080, udp 192.0.2.4:5080");
}

#[test]
fn a_transport_without_port_asks_its_srv() {
    check("srv.example;transport=tcp", "tcp 192.0.2.1:5063");
    check("srv.example;transport=udp", "udp 192.0.2.1:5061, udp 192.0.2.2:5062");
    check("plain.example;transport=tcp", "tcp 192.0.2.3:5060, tcp 192.0.2.4:5060");
}

#[test]
fn naptr_orders_the_transports_both_sides_have() {
    check("full.example", "tls 192.0.2.2:5071, udp 192.0.2.1:5070");
    check_with(&[Transport::Udp], "full.example", "udp 192.0.2.1:5070");
}

#[test]
fn without_naptr_every_transport_of_ours_is_asked_by_srv() {
    check("srv.example", "udp 192.0.2.1:5061, udp 192.0.2.2:5062, tcp 192.0.2.1:5063");
}

#[test]
fn without_srv_the_name_itself_is_the_host() {
    check("plain.example", "udp 192.0.2.3:5060, udp 192.0.2.4:5060");
    check_with(&[Transport::Tls], "plain.example", "tls 192.0.2.3:5061, tls 192.0.2.4:5061");
}

#[test]
fn a_name_that_leads_nowhere_says_why() {
    check("none.example", "`none.example` has no address in DNS");
    check("gone.example", "`gone.example` has no address in DNS");
    let advice = "is reached by no listener of sip.listen: add one of its transport and address family";
    check("six.example", &format!("`six.example` {advice}"));
    check("plain.example;transport=wss", &format!("`plain.example;transport=wss` {advice}"));
}

#[test]
fn the_name_to_prove_is_the_one_that_was_asked_for() {
    let peer: Peer = "full.example;transport=tls".parse().expect("a peer");
    let mut rng = StdRng::seed_from_u64(7);
    let Step::Done(Ok(found)) = select(&peer, &ours(&[Transport::Tls]), &mut carrier(), &mut rng) else {
        panic!("nothing found")
    };
    assert_eq!(found[0].name.as_ref(), "full.example");
}

#[test]
fn what_is_not_known_yet_is_asked_for() {
    struct Empty;
    impl Lookup for Empty {
        fn naptr(&mut self, _: &str) -> Option<Records<Naptr>> {
            None
        }
        fn srv(&mut self, _: &str) -> Option<Records<Srv>> {
            None
        }
        fn addresses(&mut self, _: &str) -> Option<Records<IpAddr>> {
            None
        }
    }
    let mut rng = StdRng::seed_from_u64(7);
    let mut need =
        |peer: &str| select(&peer.parse().expect("a peer"), &ours(&[Transport::Udp]), &mut Empty, &mut rng);
    assert_eq!(need("a.example"), Step::Need(vec![Question::Naptr("a.example".into())]));
    assert_eq!(need("a.example:5060"), Step::Need(vec![Question::Addresses("a.example".into())]));
    assert_eq!(
        need("a.example;transport=udp"),
        Step::Need(vec![Question::Srv("_sip._udp.a.example".into())])
    );
}

#[test]
fn weights_share_the_load_and_priorities_decide_before() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut first = HashMap::new();
    for _ in 0..4_000 {
        let rows = vec![("b", 10, 1), ("a", 10, 3), ("never", 10, 0), ("last", 20, 9)];
        let ordered = in_order(rows, |row| (row.1, row.2), &mut rng);
        assert_eq!((ordered.len(), ordered[3].0), (4, "last"));
        *first.entry(ordered[0].0).or_insert(0_u32) += 1;
    }
    assert!((2_800..3_200).contains(&first["a"]), "{first:?}");
    assert!(!first.contains_key("never"), "{first:?}");
    let plain = in_order(vec![("x", 0, 0), ("y", 0, 0)], |row| (row.1, row.2), &mut rng);
    assert_eq!(plain[0].0, "x");
}
