//! Without events, and after a restart of either side.

use super::world::*;
use crate::ari::app::*;

#[test]
fn a_call_goes_on_while_events_are_away_and_learns_what_it_missed() {
    let mut world = World::new(Orphans::Adopt);
    let stays = world.caller();
    world.pbx.call("1.8");
    world.settle();
    let goes = world.visitors[1].0;
    world.pass(Duration::from_secs(1));
    world.cut();
    world.pbx.hang_up("1.8", 16);
    world.pbx.events.clear();
    world.pass(Duration::from_secs(30));
    world.settle();
    world.connect();
    world.settle();
    assert!(world.told(stays).is_empty() && world.pbx.bridged("1.7"));
    assert!(matches!(world.told(goes), [ChannelEvent::Gone(_)]));
    assert_eq!(world.pbx.channels.len(), 2, "a caller and their audio");
    assert_eq!(world.pbx.bridges.len(), 1);
}

#[test]
fn without_events_a_call_goes_on_as_long_as_the_pbx_has_its_channel() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Answer);
    world.settle();
    world.cut();
    for _ in 0..100 {
        world.pass(Duration::from_secs(10));
        world.settle();
    }
    assert_eq!(world.told(leg), [ChannelEvent::Up]);
    world.pbx.channels.remove("1.7");
    for _ in 0..4 {
        world.pass(Duration::from_secs(10));
        world.settle();
    }
    assert!(matches!(world.told(leg), [ChannelEvent::Up, ChannelEvent::Gone(_)]));
    world.connect();
    world.settle();
    world.nothing_is_left();
}

#[test]
fn nothing_new_is_asked_for_while_events_are_away() {
    let mut world = World::new(Orphans::Adopt);
    let called = world.app.originate(world.now, call());
    let listening = world.app.listen(world.now, "9.9", "300".into(), None);
    world.act();
    assert!(world.asked.is_empty());
    for leg in [called, listening] {
        assert!(matches!(world.told(leg), [ChannelEvent::Gone(gone)] if gone.cause == 41));
    }
    assert!(world.app.is_idle());
}

#[test]
fn after_a_restart_of_the_pbx_everything_of_before_is_gone() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.pass(Duration::from_secs(1));
    world.cut();
    world.pbx = Pbx::default();
    world.pass(Duration::from_secs(3));
    world.connect();
    world.settle();
    assert!(matches!(world.told(leg), [ChannelEvent::Gone(gone)] if !gone.by_peer));
    assert!(world.app.is_idle());
}

#[test]
fn after_a_restart_of_ours_callers_get_what_is_configured_and_leftovers_go() {
    for orphans in [Orphans::Adopt, Orphans::Continue, Orphans::HangUp] {
        let mut before = World::new(orphans);
        let leg = before.caller();
        before.command(leg, Command::Answer);
        before.settle();
        let mut world = World::new(orphans);
        world.pbx = std::mem::take(&mut before.pbx);
        world.pass(Duration::from_secs(1));
        world.connect();
        world.settle();
        assert!(world.visitors.is_empty(), "an event may still tell");
        world.nothing_is_left();
        world.pass(Duration::from_secs(1));
        world.settle();
        match orphans {
            Orphans::Adopt => {
                assert!(matches!(&world.visitors[..], [(_, called, true)] if called == "200"));
                assert!(world.pbx.bridged("1.7"));
            }
            Orphans::Continue => assert_eq!(world.pbx.continued, [("1.7".to_owned(), String::new())]),
            Orphans::HangUp => assert!(world.pbx.channels.is_empty()),
        }
    }
}

#[test]
fn a_caller_of_before_is_for_whom_they_called() {
    let mut world = World::new(Orphans::Adopt);
    world.pbx.args = ",called=300";
    world.pbx.call("1.7");
    world.connect();
    world.settle();
    world.pass(Duration::from_secs(1));
    world.settle();
    assert!(matches!(&world.visitors[..], [(_, called, _)] if called == "300"), "{:?}", world.visitors);
}

#[test]
fn a_caller_who_is_seen_before_they_are_told_of_is_one_caller() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.pbx.channels.insert("1.7".into(), PbxChannel { state: "Up", inside: true, bridge: None });
    world.settle();
    world.pbx.start("1.7");
    world.settle();
    world.pbx.hang_up("1.7", 16);
    world.settle();
    world.pass(Duration::from_secs(2));
    world.settle();
    assert_eq!(world.visitors.len(), 1);
    assert!(world.app.is_idle());
}

#[test]
fn what_another_tandem_has_is_left_alone() {
    let mut world = World::new(Orphans::Adopt);
    for (node, application) in [("n", "other"), ("n ", "tandem"), ("m", "tandem")] {
        let names = Names::new(node, application);
        let id = LegId::from_parts(1, 1);
        let (bridge, media) = (names.of(Kind::Bridge, id, 1), names.of(Kind::Media, id, 1));
        world.pbx.bridges.push(bridge.clone());
        let inside = PbxChannel { state: "Up", inside: true, bridge: Some(bridge) };
        world.pbx.channels.insert(media, inside.clone());
        world.pbx.channels.insert(format!("{node}.{application}"), inside);
    }
    world.connect();
    world.settle();
    world.pass(Duration::from_secs(2));
    world.settle();
    assert_eq!((world.pbx.bridges.len(), world.pbx.channels.len(), world.visitors.len()), (3, 6, 0));
}
