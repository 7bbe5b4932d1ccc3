//! Everything in any order.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::world::*;
use crate::ari::app::*;

/// Answers and events in any order, lost answers with and without effect, cut event sockets, callers who come,
/// press, hang up and are sent elsewhere.
#[test]
fn whatever_happens_every_leg_ends_once_and_nothing_stays_on_the_pbx() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(Orphans::Adopt);
        world.connect();
        let mut legs: Vec<LegId> = Vec::new();
        let mut callers = 0;
        for _ in 0..rng.random_range(50..400) {
            match rng.random_range(0..100) {
                0..25 if !world.asked.is_empty() => {
                    let at = rng.random_range(0..world.asked.len());
                    world.perform(at);
                }
                25..45 if !world.answers.is_empty() => {
                    let at = rng.random_range(0..world.answers.len());
                    world.answer(at);
                }
                45..65 => world.event(),
                65..72 => world.prepare(),
                72..76 => world.deliver(Ok(())),
                76 => world.deliver(Err("refused".into())),
                77..80 if !world.asked.is_empty() => {
                    // Lost, with or without effect.
                    let at = rng.random_range(0..world.asked.len());
                    let (id, request) = world.asked.remove(at);
                    if rng.random() {
                        world.pbx.perform(&request);
                    }
                    world.answers.push((id, Outcome::Lost("time-out".into())));
                }
                80..84 if callers < 4 => {
                    callers += 1;
                    world.pbx.call(&format!("1.{callers}"));
                    if !world.connected {
                        world.pbx.channels.remove(&format!("1.{callers}"));
                        world.pbx.events.clear();
                    }
                }
                84..86 => {
                    world.pbx.hang_up(&format!("1.{}", rng.random_range(1..5)), 16);
                }
                86 if world.connected => world.cut(),
                87 if !world.connected => world.connect(),
                88 => {
                    let call = Outgoing {
                        endpoint: "PJSIP/x".into(),
                        caller: None,
                        timeout: Duration::from_secs(30),
                        variables: vec![],
                    };
                    let id = world.app.originate(world.now, call);
                    legs.push(id);
                    world.act();
                }
                89 => {
                    let outgoing = world.pbx.channels.keys().find(|id| id.contains("-out-")).cloned();
                    if let Some(name) = outgoing {
                        world.pbx.channels.get_mut(&name).unwrap().state = "Up";
                        world.pbx.start(&name);
                    }
                }
                90..95 => {
                    let known: Vec<_> = world.visitors.iter().map(|v| v.0).chain(legs.clone()).collect();
                    if !known.is_empty() {
                        let leg = known[rng.random_range(0..known.len())];
                        let command = match rng.random_range(0..6) {
                            0 => Command::Leave(Exit::Continue),
                            1 => Command::HangUp(16),
                            2 => Command::Keys("1".into()),
                            3 => Command::MediaLost,
                            _ => Command::Answer,
                        };
                        world.command(leg, command);
                    }
                }
                95 => {
                    let id = world.app.listen(world.now, "9.9", "300".into(), None);
                    legs.push(id);
                    world.act();
                }
                _ => world.pass(Duration::from_millis(rng.random_range(0..1500))),
            }
            if !world.connected {
                world.pbx.events.clear();
            }
        }
        // The network is good again, and everybody hangs up.
        if !world.connected {
            world.connect();
        }
        for _ in 0..4 {
            world.settle();
            world.pass(Duration::from_secs(3));
        }
        world.cut();
        world.connect();
        world.settle();
        world.pass(Duration::from_secs(2));
        world.settle();
        let went = |id: &str| world.pbx.continued.iter().any(|(channel, _)| channel == id);
        let theirs = |id: &&String| !id.starts_with("tandem-") || went(id);
        let callers: Vec<_> = world.pbx.channels.keys().filter(theirs).cloned().collect();
        for id in &callers {
            world.pbx.hang_up(id, 16);
        }
        for _ in 0..10 {
            world.settle();
            world.pass(Duration::from_secs(5));
        }
        let known: Vec<_> = world.visitors.iter().map(|v| v.0).chain(legs).collect();
        for leg in &known {
            world.command(*leg, Command::HangUp(16));
        }
        world.settle();
        for _ in 0..3 {
            world.pass(Duration::from_secs(5));
            world.settle();
        }
        let ends = |events: &[ChannelEvent]| {
            let end = |event: &&ChannelEvent| matches!(event, ChannelEvent::Gone(_) | ChannelEvent::Left);
            events.iter().filter(end).count()
        };
        for leg in &known {
            let told = world.told(*leg);
            assert_eq!(ends(told), 1, "seed {seed}, {leg}: {told:?}");
            assert!(
                matches!(told.last(), Some(ChannelEvent::Gone(_) | ChannelEvent::Left)),
                "seed {seed}: {told:?}"
            );
        }
        let ours: Vec<_> = world.pbx.channels.keys().filter(|id| id.starts_with("tandem-")).collect();
        assert!(
            ours.is_empty() && world.pbx.bridges.is_empty(),
            "seed {seed}: {ours:?} {:?}",
            world.pbx.bridges
        );
        assert!(world.app.is_idle(), "seed {seed}: {:?} {:?}", world.app.doomed, world.app.desk.asked);
    }
}
