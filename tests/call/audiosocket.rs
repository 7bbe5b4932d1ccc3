//! Calls that come from an Asterisk by AudioSocket: both of its doors, all rates, every way to end.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tandem::config::AudioSocket;
use tandem::event::Disposition;
use tandem::simulate::asterisk::audiosocket::{
    AudioSocketCall, Delivery, Door, Fault, How, Report, Setup as Far,
};
use tandem::simulate::asterisk::person::Tape;
use tandem::simulate::asterisk::release::Release;
use tandem::simulate::asterisk::uuid::Uuid;

use super::PORTS;
use super::clock::{in_real_time, lateness, watch};
use super::support::{LOCALHOST, Lab, PATIENCE, Setup, answer, data_of, ms, truncations, within};
use super::waveform::{decibels, sine};

/// A server whose AudioSocket is open; calls that nobody announced are for 100.
async fn open(setup: Setup) -> (Lab, SocketAddr) {
    open_with(setup, |_| ()).await
}

async fn open_with(
    setup: Setup,
    change: impl FnOnce(&mut AudioSocket) + Send + 'static,
) -> (Lab, SocketAddr) {
    watch();
    let setup = setup.configure(|config| {
        let mut door = AudioSocket {
            listen: SocketAddr::new(LOCALHOST, 0),
            number: Some("100".to_owned()),
            ..AudioSocket::default()
        };
        change(&mut door);
        config.audiosocket = Some(door);
    });
    let lab = Lab::open(PORTS, setup).await;
    let door = lab.server.audiosocket_address().expect("the door is open");
    (lab, door)
}

async fn connect(door: SocketAddr, far: Far) -> AudioSocketCall {
    AudioSocketCall::connect(door, Uuid::random(), far).await.expect("the door is open")
}

/// A sine at this rate.
fn tone(hz: f64, rate: u32, millis: usize) -> Vec<i16> {
    let step = std::f64::consts::TAU * hz / f64::from(rate);
    let samples = millis * rate as usize / 1_000;
    (0..samples).map(|n| (AMPLITUDE * (step * n as f64).sin()).round() as i16).collect()
}

/// Amplitude and what is beside it, in dB, of a tone at any rate.
fn sine_at(pcm: &[i16], hz: f64, rate: u32) -> (f64, f64) {
    sine(pcm, hz * 24_000.0 / f64::from(rate))
}

/// Waits until the caller has heard so many milliseconds from the first loud sample on, and gives them.
async fn hears(call: &AudioSocketCall, millis: usize) -> (Vec<i16>, u32) {
    let from = |tape: &Tape| tape.pcm.iter().position(|sample| sample.unsigned_abs() > 1_000);
    let wanted = |tape: &Tape| millis * tape.rate as usize / 1_000;
    let heard = call.person().until(|tape| from(tape).is_some_and(|at| tape.pcm.len() >= at + wanted(tape)));
    let heard = tokio::time::timeout(PATIENCE, heard).await.expect("the assistant speaks");
    assert!(heard, "the call ended: {:?}", call.report());
    let tape = call.person().tape();
    let at = from(&tape).expect("it was there");
    (tape.pcm[at..at + wanted(&tape)].to_vec(), tape.rate)
}

#[track_caller]
fn well_behaved(report: &Report) {
    let ended = report.ended_at.expect("it is over");
    let late = lateness(ended - Duration::from_secs_f64(report.lasted_ms / 1_000.0), ended);
    // What a server that was kept from its work sends in one go is no mistake of its own.
    let hurried =
        |violation: &&String| !late.is_zero() && *violation == "audio comes faster than it can be heard";
    assert_eq!(report.violations.iter().find(|violation| !hurried(violation)), None, "{late:?}: {report:#?}");
    assert_eq!(report.pace.odd_sized, 0, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tones_go_both_ways_at_every_rate_with_their_frequency_and_level() {
    in_real_time(async || {
        let (lab, door) = open(Setup::default().script(&answer("tone:440", 1_500))).await;
        let rates = [8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];
        let mut fars = vec![(Far::default(), 8_000)];
        fars.extend(rates.map(|rate| (Far::channel(rate), rate)));
        for (group, fars) in fars.chunks(2).enumerate() {
            join_all(fars.iter().enumerate().map(async |(place, (far, rate))| {
                let said = frequency(group * 2 + place);
                let call = connect(door, far.clone()).await;
                let (heard, at) = hears(&call, 1_200).await;
                assert_eq!(at, *rate);
                let (begin, end) = (heard.len() / 12, heard.len() * 11 / 12);
                let (amplitude, rest) = sine_at(&heard[begin..end], 440.0, at);
                let level = decibels(amplitude, AMPLITUDE);
                eprintln!("{rate} Hz down: {level:+.2} dB, {rest:.1} dB beside it");
                assert!(level.abs() < 1.0, "{rate} Hz: the tone is {level:.2} dB off");
                assert!(rest < -30.0, "{rate} Hz: {rest:.1} dB beside the tone");
                call.say(tone(said, *rate, 1_200), *rate);
                call.person().said().await;
                call.hear(ms(200)).await;
                call.hang_up();
                let report = call.ended().await;
                assert_eq!(report.ended, Some(How::HungUp));
                well_behaved(&report);
            }))
            .await;
        }
        lab.closed(10).await;
        let sessions = own_sessions(&lab, 10);
        for (place, (far, rate)) in fars.iter().enumerate() {
            let (amplitude, rest) = loudest(&sessions[place], frequency(place));
            let level = decibels(amplitude, AMPLITUDE);
            eprintln!("{:?} {rate} Hz up: {level:+.2} dB, {rest:.1} dB beside it", far.door);
            assert!(level.abs() < 1.0, "{rate} Hz: the caller's tone is {level:.2} dB off");
            assert!(rest < -30.0, "{rate} Hz: {rest:.1} dB beside the caller's tone");
        }
        lab.close_without_violations().await;
    })
    .await;
}

/// The half second in which this tone is loudest.
fn loudest(pcm: &[i16], hz: f64) -> (f64, f64) {
    let halves = pcm.windows(12_000).step_by(2_400).map(|half| sine(half, hz));
    halves.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, 0.0))
}

/// What the service has heard of each caller, by place: in a session of which no other caller is heard.
fn own_sessions(lab: &Lab, count: usize) -> Vec<Vec<i16>> {
    let mut sessions = vec![Vec::new(); count];
    for connection in 1..=count as u64 {
        let pcm = lab.ears.pcm(connection);
        let heard = |place: &usize| loudest(&pcm, frequency(*place)).0 > AMPLITUDE / 4.0;
        let places: Vec<_> = (0..count).filter(heard).collect();
        let [place] = places[..] else { panic!("session {connection} is that of {places:?}") };
        assert!(sessions[place].is_empty(), "caller {place} is heard in two sessions");
        sessions[place] = pcm;
    }
    sessions
}

/// What the caller of this place says.
fn frequency(place: usize) -> f64 {
    600.0 + 170.0 * place as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_events_and_a_caller_who_hangs_up_has_ended_the_call() {
    let (lab, door) = open(Setup::default().script(&answer("tone:440", 400))).await;
    let call = connect(door, Far::channel(24_000)).await;
    hears(&call, 300).await;
    for key in "1#D".chars() {
        call.press(key);
    }
    let live = lab.live_call().await;
    assert_eq!((live.trunk.as_deref(), live.to.as_str()), (Some("audiosocket"), "100"));
    within(60, "the keys are events", async || {
        (data_of(&lab.events(live.id).await, "dtmf.received").len() == 3).then_some(())
    })
    .await;
    call.hang_up();
    well_behaved(&call.ended().await);
    let (record, events) = lab.record().await;
    let keys: Vec<_> = data_of(&events, "dtmf.received").iter().map(|key| key["digit"].clone()).collect();
    assert_eq!(keys, ["1", "#", "D"]);
    assert_eq!(record.disposition, Some(Disposition::Completed));
    assert_eq!(record.ended_by.as_deref(), Some("caller"));
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_we_end_goes_on_in_the_dialplan() {
    let (lab, door) = open(Setup::default().script(&answer("tone:440", 300))).await;
    let call = connect(door, Far::default()).await;
    hears(&call, 200).await;
    let path = format!("/api/v1/calls/{}/end", lab.live_call().await.id);
    let (status, body) = lab.http("POST", &path, &lab.token().await, "{}").await;
    assert!(status < 300, "{status} {body}");
    let report = call.ended().await;
    assert_eq!(report.ended, Some(How::ServerHungUp), "{report:#?}");
    assert!(report.dialplan_goes_on);
    well_behaved(&report);
    let (record, _) = lab.record().await;
    assert_eq!(record.disposition, Some(Disposition::Completed));
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_assistant_stops_within_a_slot() {
    in_real_time(async || {
        let setup = Setup::default().script(&answer("tone:440", 20_000));
        let mut setup = setup.behave(|behaviour| behaviour.response_latency = ms(20));
        setup.assistant = r#"turn_detection = { kind = "server_vad", silence_duration_ms = 200 }"#;
        let (lab, door) = open(setup).await;
        let call = connect(door, Far::channel(24_000)).await;
        const TURNS: usize = 5;
        for turn in 1..=TURNS {
            // The tone is back: a quarter of a second of it.
            within(60, "the assistant speaks", async || {
                let heard = call.hear(ms(250)).await;
                (sine(&heard, 440.0).0 > AMPLITUDE * 0.8).then_some(())
            })
            .await;
            call.say(tone(900.0, 24_000, 300), 24_000);
            let live = lab.live_call().await;
            within(60, "it is interrupted", async || {
                (data_of(&lab.events(live.id).await, "barge_in").len() == turn).then_some(())
            })
            .await;
        }
        call.hang_up();
        well_behaved(&call.ended().await);
        let (_, events) = lab.record().await;
        let stops: Vec<f64> =
            data_of(&events, "barge_in").iter().filter_map(|data| data["stop_ms"].as_f64()).collect();
        eprintln!("stopped after {stops:?} ms");
        assert_eq!(stops.len(), TURNS);
        // A machine that is busy runs one slot late now and then.
        assert!(stops.iter().filter(|stop| **stop > 20.0).count() <= 1, "{stops:?}");
        let report = lab.close_without_violations().await;
        assert_eq!(truncations(&report).len(), TURNS, "each interruption truncates once");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_calls_reach_whom_they_are_for_and_strangers_nobody() {
    let (lab, door) =
        open_with(Setup::default().script(&answer("tone:440", 300)), |door| door.number = None).await;
    let call = connect(door, Far::default()).await;
    let report = call.ended().await;
    assert_eq!(report.ended, Some(How::ServerHungUp), "nobody announced it: {report:#?}");

    let token = lab.token().await;
    let body = json!({"to": "500", "from": "+15550123"}).to_string();
    let (status, answer) = lab.http("POST", "/api/v1/announcements", &token, &body).await;
    assert_eq!(status, 201, "{answer}");
    let uuid: Uuid = answer["key"].as_str().and_then(|key| key.parse().ok()).expect("a UUID");
    let call = AudioSocketCall::connect(door, uuid, Far::default()).await.expect("the door is open");
    hears(&call, 200).await;
    call.hang_up();
    well_behaved(&call.ended().await);
    let (record, _) = lab.record().await;
    assert_eq!((record.to.as_str(), record.from.as_str()), ("500", "+15550123"));
    assert_eq!(record.organization.as_deref(), Some("globex"));

    // Whoever has seen the UUID cannot use it again.
    let again = AudioSocketCall::connect(door, uuid, Far::default()).await.expect("the door is open");
    assert_eq!(again.ended().await.ended, Some(How::ServerHungUp));

    // A dialplan writes a caller who withholds the number so; the call is announced all the same.
    let body = json!({"to": "500", "from": ""}).to_string();
    let (status, answer) = lab.http("POST", "/api/v1/announcements", &token, &body).await;
    assert_eq!(status, 201, "{answer}");
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_and_releases_that_make_it_hard_are_heard_all_the_same() {
    in_real_time(async || {
        let (lab, door) = open(Setup::default().script(&answer("tone:440", 600))).await;
        let fars = [
            Far { delivery: Delivery::Pieces(2), ..Far::default() },
            Far { delivery: Delivery::Pieces(500), ..Far::channel(24_000) },
            Far { delivery: Delivery::Together(2), ..Far::channel(16_000) },
            // The channel's thread hears nothing until it has read a frame of ours.
            Far { starved: true, ..Far::default() },
            Far::default().release(Release::Early),
            Far::channel(24_000).release(Release::Rates),
            Far::default().fault(Fault::Garbage(ms(300), 0x42, 700)),
        ];
        let count = fars.len();
        join_all(fars.iter().enumerate().map(async |(place, far)| {
            let call = connect(door, far.clone()).await;
            let (heard, rate) = hears(&call, 500).await;
            let (amplitude, _) = sine_at(&heard[heard.len() / 5..], 440.0, rate);
            assert!(decibels(amplitude, AMPLITUDE).abs() < 1.0, "{far:?}: {amplitude}");
            call.say(tone(frequency(place), rate, 800), rate);
            call.person().said().await;
            call.hear(ms(100)).await;
            call.hang_up();
            let report = call.ended().await;
            assert_eq!(report.ended, Some(How::HungUp), "{far:?}");
            well_behaved(&report);
        }))
        .await;
        lab.closed(count).await;
        let sessions = own_sessions(&lab, count);
        for (place, far) in fars.iter().enumerate() {
            let (amplitude, _) = loudest(&sessions[place], frequency(place));
            assert!(decibels(amplitude, AMPLITUDE).abs() < 1.0, "{far:?}: {amplitude}");
        }
        lab.close_without_violations().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_releases_send_wideband_as_kind_0x10_at_the_configured_rate() {
    in_real_time(async || {
        let setup = Setup::default().script(&answer("tone:440", 900));
        let (lab, door) = open_with(setup, |door| door.rate = 16_000).await;
        let call = connect(door, Far::channel(16_000).release(Release::Pieces)).await;
        let (heard, rate) = hears(&call, 700).await;
        let (amplitude, rest) = sine_at(&heard[heard.len() / 7..], 440.0, rate);
        assert_eq!(rate, 16_000);
        assert!(decibels(amplitude, AMPLITUDE).abs() < 1.0 && rest < -30.0, "{amplitude} {rest}");
        call.hang_up();
        well_behaved(&call.ended().await);
        lab.record().await;
        lab.close_without_violations().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fail_end_their_call_and_no_other() {
    let setup = Setup::default().script(&answer("tone:440", 300));
    let (lab, door) = open_with(setup, |door| {
        door.idle_timeout = Duration::from_secs(2);
        door.uuid_timeout = Duration::from_millis(300);
    })
    .await;
    let healthy = connect(door, Far::default()).await;
    for fault in [Fault::NotAnswered, Fault::NoUuid, Fault::AudioFirst] {
        connect(door, Far::default().fault(fault)).await.ended().await;
    }
    let after = ms(400);
    let faults =
        [Fault::Reset(after), Fault::HalfMessage(after), Fault::Error(after, 1), Fault::StandStill(after)];
    join_all(faults.map(async |fault| {
        let far = Far { door: Door::Channel(24_000), ..Far::default() };
        let call = connect(door, far.fault(fault)).await;
        if !matches!(fault, Fault::StandStill(_)) {
            call.ended().await;
        } else {
            // It neither reads nor sends: its call is over when nothing has come for long enough.
            lab.closed(4).await;
        }
    }))
    .await;
    let ended = lab.closed(4).await;
    assert_eq!(ended.len(), 4, "one that never was, is none: {ended:#?}");
    let lost = ended.iter().filter(|call| call.disposition != Some(Disposition::Completed));
    let lost: Vec<_> = lost.map(|call| (call.disposition, call.reason.clone())).collect();
    eprintln!("{lost:?}");
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].1.as_deref().is_some_and(|reason| reason.contains("nothing came")), "{lost:?}");
    healthy.say(tone(1_000.0, 8_000, 300), 8_000);
    healthy.person().said().await;
    healthy.hang_up();
    well_behaved(&healthy.ended().await);
    lab.closed(5).await;
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_is_held_hears_us_and_is_not_given_up() {
    let (lab, door) = open(Setup::default().script(&answer("tone:440", 300))).await;
    let call = connect(door, Far::default()).await;
    hears(&call, 200).await;
    // Longer than the application waits for anything to happen.
    call.person().mute(true);
    call.hear(ms(3_000)).await;
    call.person().mute(false);
    call.hear(ms(300)).await;
    assert_eq!(call.report().ended, None);
    call.hang_up();
    let report = call.ended().await;
    well_behaved(&report);
    lab.record().await;
    lab.close_without_violations().await;
}

/// Of the service's tones, and ours.
const AMPLITUDE: f64 = 8_000.0;
