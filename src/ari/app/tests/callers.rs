//! Callers: answered, kept waiting, sent on, listened to, gone.

use super::world::*;
use crate::ari::app::*;

#[test]
fn a_caller_is_answered_once_their_audio_is_in_the_bridge() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    world.pbx.call("1.7");
    world.event();
    let (leg, called, up) = world.visitors[0].clone();
    assert_eq!((called.as_str(), up), ("200", false));
    world.command(leg, Command::Answer);
    // Everything but the delivery of the medium.
    world.prepare();
    while !world.asked.is_empty() || !world.answers.is_empty() || !world.pbx.events.is_empty() {
        while !world.asked.is_empty() {
            assert!(!matches!(world.asked[0].1, Request::Answer { .. }), "no audio flows yet");
            world.perform(0);
        }
        while !world.answers.is_empty() {
            world.answer(0);
        }
        world.event();
    }
    assert!(world.pbx.bridged("1.7"));
    world.deliver(Ok(()));
    world.settle();
    assert_eq!(world.told(leg), [ChannelEvent::Up]);
    assert_eq!(world.pbx.answered, 1);
    world.pbx.events.push_back(Event::Key { channel: "1.7".into(), key: '5' });
    world.pbx.events.push_back(Event::Held { channel: "1.7".into(), held: true });
    world.pbx.hang_up("1.7", 16);
    world.settle();
    let told = world.told(leg);
    assert_eq!(told[1..3], [ChannelEvent::Digit('5'), ChannelEvent::Held(true)]);
    assert!(matches!(&told[3..], [ChannelEvent::Gone(gone)] if gone.cause == 16 && gone.by_peer), "{told:?}");
    world.nothing_is_left();
    assert!(world.app.is_idle());
}

#[test]
fn a_channel_leaves_for_the_dialplan_and_takes_nothing_along() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Answer);
    world.settle();
    let nowhere = Exit::Dialplan { context: None, extension: "nowhere".into(), priority: 1 };
    world.command(leg, Command::Leave(nowhere));
    world.settle();
    assert!(matches!(world.told(leg).last(), Some(ChannelEvent::Stayed(why)) if why.contains("nowhere")));
    assert!(world.pbx.bridged("1.7"), "the caller is still ours");
    world.command(leg, Command::Leave(Exit::Queue("support".into())));
    world.settle();
    assert_eq!(world.told(leg).last(), Some(&ChannelEvent::Left));
    assert_eq!(world.pbx.continued, [("1.7".to_owned(), "support@queues,1".to_owned())]);
    world.nothing_is_left();
    // It comes back: another caller.
    world.pbx.start("1.7");
    world.settle();
    assert_eq!(world.visitors.len(), 2);
}

#[test]
fn a_place_without_context_is_where_the_channel_came_from() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    let to = Exit::Dialplan { context: None, extension: "300".into(), priority: 2 };
    world.command(leg, Command::Leave(to));
    world.settle();
    assert_eq!(world.pbx.continued[0].1, "300@from-trunk,2");
}

#[test]
fn keys_are_told_as_sent_after_the_time_they_take() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.command(leg, Command::Keys("12#".into()));
    world.command(leg, Command::Hold(true));
    world.settle();
    assert!(world.told(leg).is_empty());
    world.pass(Duration::from_millis(599));
    assert!(world.told(leg).is_empty() && world.asked.is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.told(leg), [ChannelEvent::KeysSent]);
    assert!(matches!(world.asked[0].1, Request::Hold { on: true, .. }), "one after the other");
}

#[test]
fn whoever_was_answered_and_goes_has_hung_up_unless_the_network_failed() {
    for (cause, expected, by_peer) in [(127, 127, true), (17, 17, true), (0, 16, true), (38, 38, false)] {
        let mut world = World::new(Orphans::Adopt);
        let leg = world.caller();
        world.command(leg, Command::Answer);
        world.settle();
        world.pbx.hang_up("1.7", cause);
        world.settle();
        let Some(ChannelEvent::Gone(gone)) = world.told(leg).last() else { panic!("{cause}") };
        assert_eq!((gone.cause, gone.by_peer), (expected, by_peer), "{cause}");
        let busy = gone.reason == "hung up: user busy";
        assert_eq!(busy, cause == 17, "{}", gone.reason);
    }
}

#[test]
fn a_channel_that_was_to_end_and_does_not_is_ended() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.pbx.events.push_back(Event::HangUpAsked { channel: "1.7".into(), cause: None });
    world.settle();
    world.pass(Duration::from_secs(3));
    world.settle();
    assert!(matches!(world.told(leg), [ChannelEvent::Gone(_)]));
    assert!(world.pbx.channels.is_empty());
}

#[test]
fn once_closed_who_comes_goes_on_in_the_dialplan_and_who_is_in_stays() {
    let mut world = World::new(Orphans::Adopt);
    let leg = world.caller();
    world.app.close();
    world.pbx.call("1.8");
    world.settle();
    assert_eq!(world.pbx.continued, [("1.8".to_owned(), String::new())]);
    assert!(world.visitors.len() == 1 && world.told(leg).is_empty() && world.pbx.bridged("1.7"));
    assert!(!world.app.is_idle());
    world.command(leg, Command::HangUp(16));
    world.settle();
    assert!(world.app.is_idle());
}

#[test]
fn the_dialplan_is_told_that_nobody_took_the_caller_and_they_go_on_at_last() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    world.app.close();
    world.pbx.call("1.8");
    world.event();
    // No answer to either, without effect.
    for _ in 0..2 {
        let (id, _) = world.asked.remove(0);
        world.app.answered(world.now, id, Outcome::Lost("time-out".into()));
        world.act();
        world.pass(Duration::from_secs(1));
        world.perform(0);
        if world.pbx.continued.is_empty() {
            world.answer(0);
        }
    }
    world.settle();
    assert_eq!(world.pbx.variables, ["1.8 TANDEMSTATUS=CLOSED"]);
    assert_eq!(world.pbx.continued, [("1.8".to_owned(), String::new())]);
    assert!(world.app.is_idle() && world.visitors.is_empty());
}

#[test]
fn listening_in_is_a_visit_for_whom_the_listener_named() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    let leg = world.app.listen(world.now, "9.9", "300".into(), Some("+15550100".into()));
    world.act();
    world.settle();
    assert_eq!(world.visitors, [(leg, "300".to_owned(), true)]);
    assert_eq!(world.told(leg), [ChannelEvent::Up]);
    world.command(leg, Command::HangUp(16));
    world.settle();
    world.nothing_is_left();
}

#[test]
fn a_listener_whose_channel_never_comes_is_let_go() {
    let mut world = World::new(Orphans::Adopt);
    world.connect();
    world.settle();
    let leg = world.app.listen(world.now, "9.9", "300".into(), None);
    world.act();
    let at = world.asked.iter().position(|(_, asked)| matches!(asked, Request::Snoop { .. })).unwrap();
    world.perform(at);
    world.pbx.events.clear();
    world.settle();
    world.pass(Duration::from_secs(5));
    world.settle();
    assert!(matches!(world.told(leg), [ChannelEvent::Gone(gone)] if gone.cause == 41));
    assert!(world.visitors.is_empty());
    world.nothing_is_left();
}

#[test]
fn whom_a_server_that_stops_cuts_off_goes_on_in_the_dialplan() {
    let mut world = World::new(Orphans::Adopt);
    let cut = world.caller();
    world.command(cut, Command::Answer);
    world.settle();
    assert!(world.pbx.bridged("1.7"));
    world.app.close();
    world.command(cut, Command::HangUp(41));
    world.settle();
    assert_eq!(world.pbx.variables, ["1.7 TANDEMSTATUS=CLOSED"]);
    assert_eq!(world.pbx.continued, [("1.7".to_owned(), String::new())]);
    assert!(matches!(world.told(cut), [.., ChannelEvent::Gone(gone)] if gone.cause == 41));
    assert!(world.app.is_idle());
    world.nothing_is_left();

    // Whom we called has no dialplan of their own; and a call that fails while we stay is hung up.
    let mut world = World::new(Orphans::Adopt);
    let failed = world.caller();
    let called = world.app.originate(world.now, call());
    world.act();
    world.settle();
    world.command(failed, Command::HangUp(41));
    world.app.close();
    world.command(called, Command::HangUp(41));
    world.settle();
    assert!(world.pbx.continued.is_empty() && world.pbx.channels.is_empty());
}
