//! Calls that the application makes.

use super::world::*;
use crate::ari::app::*;

#[test]
fn a_call_rings_is_answered_or_refused() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    let leg = world.app.originate(world.now, call());
    world.act();
    world.settle();
    assert_eq!(world.told(leg), [ChannelEvent::Ringing]);
    let name = world.pbx.channels.keys().find(|id| id.contains("-out-")).unwrap().clone();
    world.pbx.channels.get_mut(&name).unwrap().state = "Up";
    world.pbx.start(&name);
    world.settle();
    assert_eq!(world.told(leg), [ChannelEvent::Ringing, ChannelEvent::Up]);
    assert!(world.pbx.bridged(&name) && world.visitors.is_empty());
    world.command(leg, Command::HangUp(16));
    world.settle();
    world.nothing_is_left();

    let leg = world.app.originate(world.now, call());
    world.act();
    world.settle();
    let name = world.pbx.channels.keys().find(|id| id.contains("-out-")).unwrap().clone();
    world.pbx.hang_up(&name, 17);
    world.settle();
    assert!(matches!(world.told(leg), [ChannelEvent::Ringing, ChannelEvent::Gone(gone)] if gone.cause == 17));
    world.nothing_is_left();
}

#[test]
fn whom_we_called_and_sent_to_a_queue_is_left_alone_and_may_come_back() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    let leg = world.app.originate(world.now, call());
    world.act();
    world.settle();
    let name = world.pbx.channels.keys().find(|id| id.contains("-out-")).unwrap().clone();
    world.pbx.channels.get_mut(&name).unwrap().state = "Up";
    world.pbx.start(&name);
    world.settle();
    world.command(leg, Command::Leave(Exit::Queue("support".into())));
    world.settle();
    assert_eq!(world.told(leg).last(), Some(&ChannelEvent::Left));
    for _ in 0..3 {
        world.pass(Duration::from_secs(20));
        world.cut();
        world.connect();
        world.settle();
        assert!(world.pbx.channels.contains_key(&name), "they wait in a queue");
    }
    world.pbx.start(&name);
    world.settle();
    assert_eq!(world.visitors.len(), 1);
    assert!(world.pbx.bridged(&name));
    world.pass(Duration::from_secs(20));
    world.cut();
    world.connect();
    world.settle();
    assert!(world.pbx.bridged(&name), "they are somebody's");
    // After a restart of ours nobody knows whom they spoke with.
    let mut after = World::new(Orphans::Adopt);
    after.pbx = std::mem::take(&mut world.pbx);
    after.connect();
    after.settle();
    after.nothing_is_left();
}

#[test]
fn an_extension_behind_a_local_channel_says_why_it_did_not_answer_although_its_end_does_not() {
    // What the PBX says of the call, the cause of its channel's end, and what comes of them.
    for (said, cause, expected, words) in [
        ("BUSY", 0, 17, "user busy"),
        ("CONGESTION", 0, 34, "no circuit available"),
        ("NOANSWER", 0, 19, "no answer"),
        ("CHANUNAVAIL", 0, 20, "subscriber absent"),
        ("CANCEL", 0, 31, "the channel ended"),
        ("", 0, 31, "the channel ended"),
        // The channel's own cause is the better one.
        ("NOANSWER", 21, 21, "Call Rejected"),
    ] {
        let mut world = World::new(Orphans::Adopt);
        world.connect();
        world.settle();
        let leg = world.app.originate(world.now, call());
        world.act();
        world.settle();
        let channel = world.pbx.channels.keys().find(|id| id.contains("-out-")).unwrap().clone();
        world.pbx.channels.remove(&channel);
        let reason = if cause == 0 { "Unknown" } else { words }.to_owned();
        world.pbx.events.push_back(Event::Dialled { peer: channel.clone(), status: said.into() });
        world.pbx.events.push_back(Event::Destroyed { channel, cause, reason, technical: None });
        world.settle();
        let Some(ChannelEvent::Gone(gone)) = world.told(leg).last() else { panic!("{said}") };
        assert_eq!((gone.cause, gone.reason.as_str()), (expected, words), "{said}");
        world.nothing_is_left();
    }
}
