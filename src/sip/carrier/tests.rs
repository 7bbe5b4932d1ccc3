//! Carriers over loopback, against an endpoint of our own that plays the carrier.

use tokio::sync::mpsc::Receiver;

use super::*;
use crate::sip::dns::{Question, Srv};
use crate::sip::endpoint::{Endpoint, EndpointConfig};
use crate::sip::profile::Profile;
use crate::sip::resolver::Rows;
use crate::sip::trunk::HealthPolicy;
use crate::sip::ua::UaEvent;

async fn endpoint() -> (EndpointHandle, SocketAddr, Receiver<UaEvent>) {
    let mut neighbour = Trunk::new("neighbour", Arc::new(Profile::default()));
    neighbour.allow = vec!["127.0.0.0/8".parse().expect("a network")];
    let listen = vec!["udp://127.0.0.1:0".parse().expect("a listener")];
    let (events, inbox) = mpsc::channel(16);
    let handle = Endpoint::start(EndpointConfig::new(listen, Trunks::new([neighbour])), events).await;
    let handle = handle.expect("loopback has a free port");
    let address = handle.local_addrs()[0].address;
    (handle, address, inbox)
}

fn trunk(name: &str, peers: &[SocketAddr], change: impl FnOnce(&mut Trunk)) -> Trunk {
    let mut trunk = Trunk::new(name, Arc::new(Profile::default()));
    trunk.peers = peers.iter().map(|peer| peer.to_string().parse().expect("a peer")).collect();
    change(&mut trunk);
    trunk
}

fn start(endpoint: &EndpointHandle, trunks: impl IntoIterator<Item = Trunk>) -> Carriers {
    let trunks = Trunks::new(trunks);
    Carriers::start(endpoint.clone(), Resolver::fixed([]), &trunks, CancellationToken::new())
}

/// Waits until the trunk is as it should be.
async fn until(carriers: &Carriers, trunk: &str, wanted: impl Fn(&TrunkStatus) -> bool) -> TrunkStatus {
    let line = carriers.line(trunk).expect("it exists");
    let mut changes = line.changed.subscribe();
    let waiting = async {
        loop {
            let status = line.status();
            if wanted(&status) {
                return status;
            }
            changes.changed().await.expect("the task runs");
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await.expect("it comes to that")
}

#[tokio::test]
async fn a_peer_that_answers_options_is_up() {
    let (ours, _, _inbox) = endpoint().await;
    let (_theirs, address, _their_inbox) = endpoint().await;
    let health = HealthPolicy { options: true, ..HealthPolicy::default() };
    let carriers = start(&ours, [trunk("carrier", &[address], |trunk| trunk.health = health)]);
    let status = until(&carriers, "carrier", |status| status.state == TrunkState::Up).await;
    assert!(status.targets[0].round_trip_ms.is_some() && status.reason.is_none());
    let test = carriers.test("carrier").await.expect("it exists");
    let steps: Vec<_> = test.steps.iter().map(|step| (step.step, step.ok)).collect();
    assert!(test.ok, "{test:?}");
    assert_eq!(steps, [("dns", true), ("options", true)]);
    carriers.stop().await;
    assert_eq!(carriers.permit("carrier").await.expect_err("stopped"), CarrierError::Down);
}

#[tokio::test]
async fn targets_come_in_order_and_a_failed_one_comes_last() {
    let (ours, _, _inbox) = endpoint().await;
    let [first, second] = [5071, 5072].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let carriers = start(&ours, [trunk("carrier", &[first, second], |_| {})]);
    let ports = async || {
        let targets = carriers.targets("carrier").await.expect("it has two");
        targets.iter().map(|(target, _)| target.remote.port()).collect::<Vec<_>>()
    };
    assert_eq!(ports().await, [5071, 5072]);
    carriers.report("carrier", first, TargetOutcome::Timeout);
    until(&carriers, "carrier", |status| status.targets[0].quarantined_until.is_some()).await;
    assert_eq!(ports().await, [5072, 5071]);
    let refused = carriers.targets("nobody").await.expect_err("there is none");
    assert_eq!(refused, CarrierError::Unknown);
}

#[tokio::test]
async fn a_name_leads_to_its_srv_targets_in_order_and_a_failed_one_comes_last() {
    let (ours, _, _inbox) = endpoint().await;
    let srv = |priority, port, target: &str| Srv { priority, weight: 0, port, target: target.into() };
    let ip = |last| Rows::Addresses(vec![IpAddr::from([127, 0, 0, last])]);
    let zone = [
        (Question::Naptr("carrier.example".into()), Rows::Naptr(Vec::new())),
        (
            Question::Srv("_sip._udp.carrier.example".into()),
            Rows::Srv(vec![srv(20, 5072, "b.carrier.example."), srv(10, 5071, "a.carrier.example.")]),
        ),
        (Question::Addresses("a.carrier.example".into()), ip(1)),
        (Question::Addresses("b.carrier.example".into()), ip(2)),
    ];
    let trunks = Trunks::new([trunk("carrier", &[], |trunk| {
        trunk.peers = vec!["carrier.example".parse().expect("a peer")];
    })]);
    let carriers = Carriers::start(ours.clone(), Resolver::fixed(zone), &trunks, CancellationToken::new());
    let targets = async || {
        let found = carriers.targets("carrier").await.expect("it has two");
        // The name that was asked for, not what SRV led to: that is what a certificate must prove.
        assert!(found.iter().all(|(_, candidate)| &*candidate.name == "carrier.example"));
        found.iter().map(|(target, _)| target.remote.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(targets().await, ["127.0.0.1:5071", "127.0.0.2:5072"]);
    let first: SocketAddr = "127.0.0.1:5071".parse().expect("an address");
    carriers.report("carrier", first, TargetOutcome::TransportFailed);
    until(&carriers, "carrier", |status| status.targets.iter().any(|one| one.quarantined_until.is_some()))
        .await;
    assert_eq!(targets().await, ["127.0.0.2:5072", "127.0.0.1:5071"]);
    let trunk = carriers.line("carrier").expect("it exists").trunk.clone();
    assert_eq!(trunk.host_at("carrier.example", first), ("carrier.example".to_owned(), None));
}

#[tokio::test]
async fn a_trunk_that_leads_nowhere_says_why() {
    let (ours, _, _inbox) = endpoint().await;
    let mut empty = trunk("empty", &[], |_| {});
    let named = trunk("named", &[], |trunk| trunk.peers = vec!["sip.example".parse().expect("a peer")]);
    empty.allow = Vec::new();
    let carriers = start(&ours, [empty, named]);
    let why = async |name| carriers.targets(name).await.expect_err("nowhere").to_string();
    assert_eq!(why("empty").await, "the trunk has no target: give it `peers` or `register`");
    assert_eq!(why("named").await, "the trunk has no target: `sip.example` has no address in DNS");
    let status = until(&carriers, "named", |status| status.reason.is_some()).await;
    assert_eq!(status.state, TrunkState::Down);
}

#[tokio::test]
async fn channels_come_back_and_the_pace_is_waited_for() {
    let (ours, _, _inbox) = endpoint().await;
    let limited = trunk("carrier", &[], |trunk| (trunk.channels, trunk.cps) = (2, 50.0));
    let carriers = start(&ours, [limited]);
    let began = Instant::now();
    let first = carriers.permit("carrier").await.expect("a channel");
    let _inbound = carriers.enter_inbound("carrier").expect("the other channel");
    assert!(carriers.enter_inbound("carrier").is_none());
    assert_eq!(carriers.permit("carrier").await.expect_err("full"), CarrierError::Full);
    assert_eq!(carriers.status()[0].calls, 2);
    drop(first);
    let _second = carriers.permit("carrier").await.expect("it came back");
    assert!(began.elapsed().as_millis() >= 20, "{:?}", began.elapsed());
    assert!(carriers.enter_inbound("phones").is_some(), "unknown trunks have no limit");
}

#[test]
fn a_fresh_uuid_has_its_version_and_variant() {
    let uuid = fresh_uuid();
    assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"), "{uuid}");
    assert!("89ab".contains(&uuid[19..20]), "{uuid}");
}
