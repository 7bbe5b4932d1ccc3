use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const WIDE: Codec = Codec::L16(SampleRate::HZ_24000);

fn playout(codec: Codec) -> Playout {
    Playout::new(codec, Duration::from_secs(600)).expect("a known codec")
}

fn key(name: &str) -> ItemKey {
    name.into()
}

/// A tone without jumps.
fn tone(samples: usize) -> Vec<i16> {
    (0..samples).map(|n| ((n as f32 * 0.1).sin() * 10_000.0) as i16).collect()
}

/// The next slots as linear samples, and the items heard in them.
fn slots(playout: &mut Playout, count: usize) -> (Vec<i16>, Vec<Option<ItemKey>>) {
    let (mut pcm, mut items) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let mut slot = Samples::of(playout.codec());
        items.push(playout.slot(&mut slot));
        assert_eq!(slot.len(), playout.slot_samples());
        slot.copy_linear(0..slot.len(), &mut pcm);
    }
    (pcm, items)
}

fn largest_step(pcm: &[i16]) -> i32 {
    pcm.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs()).max().unwrap_or(0)
}

#[test]
fn chunks_of_an_item_are_joined_without_a_seam() {
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::G722, WIDE] {
        let speech = tone(24_000);
        let mut whole = playout(codec);
        whole.play(&key("a"), &speech).expect("room");
        let mut pieces = playout(codec);
        for chunk in speech.chunks(1237) {
            pieces.play(&key("a"), chunk).expect("room");
        }
        assert_eq!(slots(&mut whole, 49).0, slots(&mut pieces, 49).0, "{codec}");
    }
}

#[test]
fn an_item_is_followed_by_the_next_within_the_frame() {
    let mut playout = playout(WIDE);
    playout.play(&key("a"), &[1000; 500]).expect("room");
    playout.end_item(&key("a"));
    playout.play(&key("b"), &[1000; 460]).expect("room");
    playout.end_item(&key("b"));
    let (pcm, items) = slots(&mut playout, 2);
    assert_eq!(pcm, [1000; 960]);
    assert_eq!(items, [Some(key("a")), Some(key("b"))]);
    let events: Vec<_> = std::iter::from_fn(|| playout.poll_event()).collect();
    let finished = |name, played_ms| PlayoutEvent::Finished { item: key(name), played_ms };
    let started = |name| PlayoutEvent::Started(key(name));
    assert_eq!(events, [started("a"), finished("a", 20), started("b"), finished("b", 19)]);
    assert!(playout.is_idle());
    assert_eq!((playout.underruns(), playout.heard_ms(), playout.generated_ms()), (0, 40, 40));
}

#[test]
fn played_is_what_left_less_the_delay_of_the_filter() {
    let mut playout = playout(Codec::Pcmu);
    playout.play(&key("a"), &tone(24_000)).expect("room");
    assert_eq!(playout.played_ms(&key("a")), Some(0));
    slots(&mut playout, 5);
    assert_eq!(playout.played_ms(&key("a")), Some(98));
    playout.end_item(&key("a"));
    slots(&mut playout, 46);
    assert_eq!(playout.played_ms(&key("a")), Some(1000));
    assert_eq!(playout.poll_event(), Some(PlayoutEvent::Started(key("a"))));
    let finished = PlayoutEvent::Finished { item: key("a"), played_ms: 1000 };
    assert_eq!(playout.poll_event(), Some(finished));
    assert_eq!(playout.played_ms(&key("b")), None);
}

#[test]
fn clear_leaves_a_short_fade_and_no_click() {
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::G722, WIDE] {
        for slots_before in (1..30).step_by(4) {
            let mut playout = playout(codec);
            playout.play(&key("a"), &tone(24_000)).expect("room");
            playout.play(&key("b"), &tone(2_400)).expect("room");
            let (before, _) = slots(&mut playout, slots_before);
            let cleared = playout.clear();
            let (after, items) = slots(&mut playout, 3);
            assert_eq!(items, [None, None, None]);
            let fade = playout.slot_samples() / 4;
            assert!(after[fade..].iter().all(|sample| sample.abs() <= 8), "{codec}");
            let usual = largest_step(&before);
            let joint = [&before[before.len() - 1..], &after[..]].concat();
            assert!(largest_step(&joint) <= usual + 400, "{codec} {} {usual}", largest_step(&joint));
            assert_eq!(cleared.len(), 2);
            let delay = if codec == WIDE { 0 } else { 2 };
            assert!(cleared[0].played_ms.abs_diff(slots_before as u64 * 20 - delay) <= 1, "{cleared:?}");
            assert_eq!((cleared[0].total_ms, cleared[1].played_ms), (1000, 0));
        }
    }
}

#[test]
fn what_is_held_back_is_heard_later_whole_and_without_a_click() {
    for codec in [Codec::Pcmu, Codec::G722, WIDE] {
        let speech = tone(24_000);
        let mut plain = playout(codec);
        let mut held = playout(codec);
        for playout in [&mut plain, &mut held] {
            playout.play(&key("a"), &speech).expect("room");
            playout.end_item(&key("a"));
        }
        let (before, _) = slots(&mut held, 7);
        held.pause();
        let (pause, items) = slots(&mut held, 5);
        assert!(items.iter().all(Option::is_none), "{items:?}");
        let fade = held.slot_samples() / 4;
        assert!(pause[fade..].iter().all(|sample| sample.abs() <= 8), "{codec}");
        assert!(!held.is_idle() && held.underruns() == 0);
        held.resume();
        let (after, _) = slots(&mut held, 60);
        let (whole, _) = slots(&mut plain, 67);
        // But for the 5 ms that are faded into, everything is heard.
        let start = before.len() + fade;
        assert_eq!(before, whole[..before.len()], "{codec}");
        assert_eq!(after[fade..40 * fade], whole[start..start + 39 * fade], "{codec}");
        let usual = largest_step(&whole);
        let joined = [&before[..], &pause[..], &after[..]].concat();
        assert!(largest_step(&joined) <= usual + 400, "{codec} {} {usual}", largest_step(&joined));
        assert_eq!(held.played_ms(&key("a")), plain.played_ms(&key("a")));
        // A barge-in during a pause: nothing more is heard, and the count stands.
        let mut held = playout(codec);
        held.play(&key("b"), &speech).expect("room");
        slots(&mut held, 7);
        let heard = held.played_ms(&key("b"));
        held.pause();
        slots(&mut held, 3);
        assert_eq!(held.clear()[0].played_ms, heard.unwrap_or_default());
        assert!(slots(&mut held, 3).0.iter().all(|sample| sample.abs() <= 8), "{codec}");
        held.play(&key("c"), &speech).expect("room");
        assert_eq!(slots(&mut held, 1).1, [Some(key("c"))], "a clear ends the pause");
    }
}

#[test]
fn nothing_of_a_cleared_item_is_heard_in_the_next_one() {
    let mut playout = playout(Codec::Pcmu);
    playout.play(&key("a"), &[12_000; 4800]).expect("room");
    slots(&mut playout, 1);
    playout.clear();
    assert_eq!(playout.play(&key("a"), &[12_000; 4800]), Err(PlayError::Cleared));
    slots(&mut playout, 1);
    playout.play(&key("b"), &[0; 4800]).expect("room");
    let (pcm, items) = slots(&mut playout, 2);
    assert!(pcm.iter().all(|sample| *sample == 0), "{:?}", &pcm[..20]);
    assert_eq!(items, [Some(key("b")), Some(key("b"))]);
}

#[test]
fn running_dry_within_an_item_is_faded_and_counted_once() {
    let mut playout = playout(WIDE);
    playout.play(&key("a"), &tone(700)).expect("room");
    let (pcm, _) = slots(&mut playout, 6);
    assert_eq!(playout.underruns(), 1);
    assert!(largest_step(&pcm) <= 1100, "{}", largest_step(&pcm));
    playout.play(&key("a"), &[10_000; 700]).expect("room");
    playout.end_item(&key("a"));
    let (pcm, _) = slots(&mut playout, 3);
    assert!(pcm[0].abs() < 200, "faded in");
    assert!(largest_step(&pcm) <= 1100, "{}", largest_step(&pcm));
    assert_eq!((playout.underruns(), playout.played_ms(&key("a"))), (1, Some(58)));
}

#[test]
fn an_item_that_ends_in_mid_wave_does_not_click() {
    let mut playout = playout(WIDE);
    playout.play(&key("a"), &[9_000; 480]).expect("room");
    playout.end_item(&key("a"));
    let (pcm, _) = slots(&mut playout, 2);
    assert!(largest_step(&pcm) <= 400);
    assert_eq!(playout.underruns(), 0);
}

#[test]
fn an_item_that_never_ends_does_not_grow() {
    let mut playout = playout(Codec::Pcmu);
    for n in 1..=5_000u64 {
        playout.play(&key("echo"), &[0; 480]).expect("room");
        slots(&mut playout, 1);
        assert_eq!(playout.played_ms(&key("echo")), Some(n * 20 - 2));
    }
    assert!(playout.items[0].audio.len() <= COMPACT + 160);
    assert_eq!((playout.underruns(), playout.heard_ms()), (0, 99_998));
}

#[test]
fn a_full_queue_says_how_much_it_took() {
    let mut playout = Playout::new(Codec::Pcmu, Duration::from_secs(1)).expect("a known codec");
    playout.play(&key("a"), &[0; 18_000]).expect("room");
    assert_eq!(playout.play(&key("a"), &[0; 18_000]), Err(PlayError::Full { accepted: 6_000 }));
    assert_eq!(playout.queued(), Duration::from_secs(1));
    slots(&mut playout, 1);
    assert_eq!(playout.play(&key("a"), &[0; 12_000]), Err(PlayError::Full { accepted: 480 }));
}

#[test]
fn waiting_audio_survives_a_change_of_codec() {
    let mut playout = playout(Codec::Pcmu);
    playout.play(&key("a"), &tone(24_000)).expect("room");
    playout.end_item(&key("a"));
    slots(&mut playout, 10);
    playout.reconfigure(Codec::G722, Duration::from_secs(600)).expect("a known codec");
    let before = playout.played_ms(&key("a")).expect("waiting");
    assert!((196..=200).contains(&before), "{before}");
    let (pcm, _) = slots(&mut playout, 20);
    assert!(pcm[3200..].iter().any(|sample| *sample > 9_000));
    slots(&mut playout, 22);
    assert_eq!(playout.played_ms(&key("a")), Some(1000));
    assert!(playout.is_idle());
}

/// Live audio that comes every 20 ms, early or late by up to `jitter`, and is heard in slots at `phase` of the grid:
/// the slots from the first audible one on that are silent, in part or altogether.
fn holes(codec: Codec, jitter: i64, phase: i64, seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut playout = playout(codec);
    let mut arrivals: Vec<i64> = (0..150).map(|n| n * 20 + rng.random_range(-jitter..=jitter)).collect();
    // On a connection nothing overtakes anything.
    for n in 1..arrivals.len() {
        arrivals[n] = arrivals[n].max(arrivals[n - 1]);
    }
    let mut arrivals = arrivals.into_iter().peekable();
    let mut heard = Vec::new();
    for slot in 0..145 {
        while arrivals.next_if(|at| *at <= slot * 20 + phase).is_some() {
            playout.play_live(&[8_000; 480]);
        }
        let (pcm, _) = slots(&mut playout, 1);
        heard.push(pcm.iter().filter(|sample| **sample < 4_000).count());
    }
    let silent = |lacking: &&usize| **lacking > playout.slot_samples() / 20;
    heard.iter().skip_while(silent).filter(silent).count()
}

#[test]
fn live_audio_that_jitters_by_ten_milliseconds_either_way_has_no_holes() {
    for codec in [Codec::Pcmu, Codec::G722, Codec::L16(SampleRate::HZ_8000), WIDE] {
        for phase in [0, 7, 11, 19] {
            for seed in 0..3 {
                assert_eq!(holes(codec, 10, phase, seed), 0, "{codec} phase {phase} seed {seed}");
            }
        }
    }
}

#[test]
fn live_audio_that_comes_later_still_has_few_holes_and_then_none() {
    for phase in [0, 7, 11, 19] {
        for seed in 0..5 {
            // Once it has run dry it waits a little more.
            assert!(holes(Codec::Pcmu, 25, phase, seed) <= 4, "phase {phase} seed {seed}");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Play(u8, u16),
    End(u8),
    Clear,
    Slot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..4, 0u16..3000).prop_map(|(item, samples)| Step::Play(item, samples)),
        1 => (0u8..4).prop_map(Step::End),
        1 => Just(Step::Clear),
        6 => Just(Step::Slot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn played_never_exceeds_given_and_nothing_sounds_after_clear(
        steps in proptest::collection::vec(step(), 1..150),
        codec in prop_oneof![Just(Codec::Pcmu), Just(WIDE)],
    ) {
        let mut playout = playout(codec);
        let mut given = std::collections::HashMap::<ItemKey, u64>::new();
        let mut cleared_since_play = true;
        // Item names are used once per generation, as providers do.
        let mut generation = 0;
        let mut fade_left = false;
        for step in steps {
            match step {
                Step::Play(item, samples) => {
                    let key = key(&format!("{generation}-{item}"));
                    if playout.play(&key, &tone(samples.into())).is_ok() {
                        *given.entry(key).or_default() += u64::from(samples);
                        cleared_since_play = false;
                    }
                }
                Step::End(item) => playout.end_item(&key(&format!("{generation}-{item}"))),
                Step::Clear => {
                    for item in playout.clear() {
                        prop_assert!(item.played_ms <= item.total_ms);
                        prop_assert!(item.total_ms <= given[&item.item] / 24);
                    }
                    generation += 1;
                    cleared_since_play = true;
                    fade_left = true;
                }
                Step::Slot => {
                    let (pcm, items) = slots(&mut playout, 1);
                    if cleared_since_play {
                        let fade = if fade_left { pcm.len() / 4 } else { 0 };
                        prop_assert_eq!(&items[0], &None);
                        // An ordinary end before the clear may fade in its place.
                        prop_assert!(pcm[fade..].iter().all(|s| s.abs() <= 8) || fade_left);
                    }
                    fade_left = false;
                }
            }
            for (key, given) in &given {
                if let Some(played) = playout.played_ms(key) {
                    prop_assert!(played <= given / 24, "{} {}", played, given);
                }
            }
            prop_assert!(playout.heard_ms() <= playout.generated_ms());
        }
    }
}
