//! Bridges and the channels that carry audio: made, lost, made again.

use super::world::*;
use crate::ari::app::*;

#[test]
fn a_lost_medium_is_made_again_and_one_that_is_never_there_ends_the_call() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Answer);
    world.settle();
    let media = |world: &World| world.pbx.channels.keys().find(|id| id.contains("-media-")).cloned();
    let first = media(&world).unwrap();
    world.pass(Duration::from_secs(10));
    world.pbx.hang_up(&first, 16);
    world.settle();
    world.pass(Duration::from_millis(200));
    world.settle();
    let second = media(&world).unwrap();
    assert!(first != second && world.pbx.bridged("1.7"));
    // Only the connection is lost: the PBX's channel is taken away, and replaced.
    world.pass(Duration::from_secs(10));
    world.command(leg, Command::MediaLost);
    world.pass(Duration::from_millis(600));
    world.settle();
    world.pass(Duration::from_secs(1));
    world.settle();
    assert!(media(&world).is_some_and(|third| third != second) && world.pbx.bridged("1.7"));
    assert!(!world.pbx.channels.contains_key(&second));
    for _ in 0..20 {
        if let Some(name) = media(&world) {
            world.pbx.hang_up(&name, 16);
        }
        world.settle();
        world.pass(Duration::from_secs(1));
        world.settle();
    }
    assert!(matches!(world.told(leg).last(), Some(ChannelEvent::Gone(gone)) if gone.cause == 41));
    assert!(world.pbx.channels.is_empty(), "{:?}", world.pbx.channels);
    world.nothing_is_left();
}

#[test]
fn a_medium_whose_beginning_was_not_told_is_looked_for() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    world.pbx.call("1.7");
    world.event();
    world.prepare();
    while !world.asked.is_empty() {
        world.perform(0);
        world.answer(0);
        world.pbx.events.clear();
    }
    world.deliver(Ok(()));
    world.settle();
    assert!(!world.pbx.bridged("1.7"));
    world.pass(Duration::from_secs(2));
    world.settle();
    assert!(world.pbx.bridged("1.7"));
}

#[test]
fn who_falls_out_of_the_bridge_is_put_into_it_again() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Answer);
    world.settle();
    let bridge = world.pbx.bridges[0].clone();
    let parted = |channel: &str| Event::Parted { bridge: bridge.clone(), channel: channel.into() };
    let media = world.pbx.channels.keys().find(|id| id.contains("-media-")).unwrap().clone();
    for lost in ["1.7", &media] {
        world.pbx.channels.get_mut(lost).unwrap().bridge = None;
        world.pbx.events.push_back(parted(lost));
        world.settle();
        world.pass(Duration::from_millis(300));
        world.settle();
        assert!(world.pbx.bridged("1.7"), "{lost}");
    }
    // Put in a second time: it leaves and comes back at once, and nothing is asked.
    world.pbx.events.push_back(parted("1.7"));
    world.pbx.events.push_back(Event::Joined { bridge: bridge.clone(), channel: "1.7".into() });
    world.event();
    world.event();
    world.pass(Duration::from_millis(300));
    assert!(world.asked.is_empty(), "{:?}", world.asked);
    world.pbx.bridges.clear();
    world.pbx.channels.values_mut().for_each(|channel| channel.bridge = None);
    world.pbx.events.push_back(Event::BridgeGone { bridge });
    world.settle();
    assert!(world.pbx.bridged("1.7"));
    world.pbx.hang_up("1.7", 16);
    world.settle();
    world.nothing_is_left();
}

#[test]
fn what_failed_is_tried_again_when_its_time_has_come_even_late() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    world.pbx.call("1.7");
    world.event();
    let at = world.asked.iter().position(|(_, asked)| matches!(asked, Request::CreateBridge { .. }));
    let (id, _) = world.asked.remove(at.unwrap());
    let refused = Outcome::Refused { status: 500, message: "no".into() };
    world.app.answered(world.now, id, refused);
    world.act();
    // Something else wakes us at a time when it is due already.
    world.now += Duration::from_millis(400);
    assert!(world.app.next_timeout().is_some_and(|at| at <= world.now));
    world.settle();
    assert!(world.pbx.bridged("1.7"));
}

#[test]
fn looks_do_not_put_off_the_end_of_a_call_without_audio() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::MediaLost);
    let media = world.pbx.channels.keys().find(|id| id.contains("-media-")).unwrap().clone();
    world.pbx.hang_up(&media, 16);
    world.event();
    world.event();
    world.event();
    world.command(leg, Command::Answer);
    // Our side is never prepared.
    for _ in 0..12 {
        world.pass(Duration::from_secs(1));
        world.app.missed(world.now);
        world.pass(Duration::ZERO);
        while !world.asked.is_empty() {
            world.perform(0);
            world.answer(0);
        }
    }
    assert!(matches!(world.told(leg), [ChannelEvent::Gone(_)]), "{:?}", world.told(leg));
}

#[test]
fn a_call_without_events_and_without_audio_ends_after_a_while() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Answer);
    world.settle();
    world.pass(Duration::from_secs(5));
    world.cut();
    world.command(leg, Command::MediaLost);
    world.pass(Duration::from_secs(9));
    assert_eq!(world.told(leg), [ChannelEvent::Up]);
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.told(leg), [ChannelEvent::Up, ChannelEvent::Gone(gone)] if !gone.by_peer));
}
