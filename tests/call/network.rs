//! Loss, duplicates and reordering on the caller's way to us: the service hears as much time as has
//! passed, nothing twice, and the record counts what happened.

use futures_util::future::join_all;
use tandem::audio::{Codec, voice};
use tandem::simulate::phone::Act;

use super::PORTS;
use super::clock::in_real_time;
use super::relay::{Damage, Relay, Weather};
use super::support::{Lab, Setup, acts, answer, listen, ms, plan, say, tone};
use super::waveform::{find, onset, rms, snr};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_networks_cost_what_they_lose_and_not_a_sample_of_time() {
    let lost = |lost| Weather { lost, ..Weather::default() };
    let weathers = [
        ("1 % loss", lost(0.01)),
        ("3 % loss", lost(0.03)),
        ("10 % loss", lost(0.10)),
        ("duplicates", Weather { doubled: 0.1, ..Weather::default() }),
        ("reordering", Weather { overtaken: 0.1, ..Weather::default() }),
        ("all of it", Weather { lost: 0.03, doubled: 0.05, overtaken: 0.05 }),
    ];
    join_all(
        weathers.into_iter().enumerate().map(|(seed, (name, weather))| {
            in_real_time(async move || check(name, weather, seed as u64).await)
        }),
    )
    .await;
}

async fn check(name: &str, weather: Weather, seed: u64) {
    let lab = Lab::open(PORTS, Setup::default().script(&answer("tone:600", 400))).await;
    let relay = Relay::open(lab.sip, weather, seed + 1, 25, 400).await;
    let program = program();
    let talk = acts([&listen(), &[say(program.clone()), Act::Wait(ms(300)), Act::HangUp]]);
    let report = lab.phone.call(plan(relay.sip, "100", Codec::Pcmu, talk)).await.expect("the phone can try");
    let (call, _) = lab.record().await;
    let sent = lab.ears.pcm(1);
    lab.close_without_violations().await;

    let damage = relay.damage();
    let quality = call.quality.expect("RTP statistics");
    eprintln!(
        "{name}: {damage:?}, concealed {} ms, silence {} ms, late {}",
        quality.concealed_ms, quality.silence_ms, quality.packets_late
    );
    assert!(damage != Damage::default(), "{name}: the relay was passed by");
    let counted = Damage {
        lost: quality.packets_lost,
        doubled: quality.packets_duplicate,
        overtaken: quality.packets_reordered,
    };
    assert_eq!(counted, damage, "{name}: {quality:?}");

    assert!(quality.concealed_ms.abs_diff(damage.lost * 20) <= 40, "{name}: {quality:?}");
    // What left the phone, slot by slot, is what must arrive.
    let said = &report.said[onset(&report.said, 0).expect("the first sound")..][..LENGTH];
    let first = onset(&sent, 0).expect("the first sound");
    let (at, _) = find(said, &sent, first, 480);
    let (last, like) = find(&said[LAST..], &sent, at + LAST, 2400);
    assert!(like > 0.7, "{name}: the last tone is missing: {like}");
    assert!((last - at).abs_diff(LAST) <= 24, "{name}: {LAST} samples became {}", last - at);
    let fidelity = snr(said, &sent[at..]);
    eprintln!("{name}: {fidelity:.1} dB");
    if damage.lost == 0 {
        assert!(fidelity > 30.0, "{name}: {fidelity:.1} dB from what left");
    } else {
        // What is lost is made up from the voice before it: no hole opens in the steady tone.
        let steady = &sent[at + STEADY.start..at + STEADY.end];
        let holes = steady.chunks(480).filter(|slot| rms(slot) < 500.0).count() as u64;
        assert!(holes * 5 <= damage.lost, "{name}: {holes} holes for {} lost packets", damage.lost);
    }
}

/// A mark, a steady tone, speech, a mark: 8.8 s.
fn program() -> Vec<i16> {
    let mut pcm = tone(800.0, 8000.0, 300);
    pcm.resize(STEADY.start, 0);
    pcm.extend(tone(440.0, 6000.0, 5000));
    pcm.extend(voice::speak("The quick brown fox jumps over the lazy dog, again and again and again."));
    pcm.resize(LAST, 0);
    pcm.extend(tone(1200.0, 8000.0, 300));
    pcm
}

const STEADY: std::ops::Range<usize> = 9600..9600 + 120_000;
/// Where the last mark begins: 8.5 s.
const LAST: usize = 204_000;
/// To the middle of the last mark.
const LENGTH: usize = LAST + 4_800;
