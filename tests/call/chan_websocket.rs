//! Whole calls through `[asterisk_websocket]`: the far end is the simulator's channel of `chan_websocket`.

use futures_util::future::join_all;
use serde_json::json;
use tandem::config::AsteriskWebsocket;
use tandem::event::Disposition;
use tandem::pbx::Coding;
use tandem::simulate::asterisk::ari::{Asterisk, Settings as Pbx};
use tandem::simulate::asterisk::websocket::{
    ConnectError, Fault, How, Report, Setup as Channel, WebSocketCall,
};
use tandem::store::CallRecord;

use super::PORTS;
use super::clock::in_real_time;
use super::support::{LOCALHOST, Lab, PATIENCE, Setup, answer, data_of, kinds, ms, tone, truncations};
use super::waveform::{decibels, rms, sine};

fn door(config: &mut tandem::config::Config) {
    let listen = Some((LOCALHOST, 0).into());
    config.asterisk_websocket = Some(AsteriskWebsocket { listen, ..AsteriskWebsocket::default() });
}

async fn open(setup: Setup) -> (Lab, String) {
    let lab = Lab::open(PORTS, setup.configure(door)).await;
    let address = lab.server.asterisk_websocket_address().expect("the door is open");
    (lab, format!("ws://{address}/media"))
}

async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

async fn ended(call: &WebSocketCall) -> Report {
    in_time("the channel ended", call.ended()).await
}

/// Amplitude of a sine among samples of any rate, by whole seconds.
fn amplitude(pcm: &[i16], rate: u32, hz: f64) -> f64 {
    let step = std::f64::consts::TAU * hz / f64::from(rate);
    let (mut re, mut im) = (0.0, 0.0);
    for (n, sample) in pcm.iter().enumerate() {
        let (s, c) = (step * n as f64).sin_cos();
        (re, im) = (re + f64::from(*sample) * c, im + f64::from(*sample) * s);
    }
    2.0 * re.hypot(im) / pcm.len() as f64
}

/// The same of the tenth of a second in which it is greatest: a machine that is busy leaves slots out.
fn loudest(pcm: &[i16], rate: u32, hz: f64) -> f64 {
    pcm.chunks_exact(rate as usize / 10).map(|part| amplitude(part, rate, hz)).fold(0.0, f64::max)
}

/// Frames that wait in the end. While a machine that is busy runs one clock late, there are more: they must not stay.
fn waiting(report: &Report) -> u64 {
    report.counts.queued - report.counts.played - report.counts.flushed
}

/// How many milliseconds of samples are louder than a whisper.
fn loud_ms(pcm: &[i16], rate: u32) -> usize {
    pcm.chunks(rate as usize / 1000).filter(|window| rms(window) > 560.0).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tones_pass_both_ways_in_every_format_and_dialect() {
    let formats = ["ulaw", "alaw", "g722", "slin", "slin16", "slin24", "slin48", "opus"];
    let each = formats.into_iter().enumerate().map(|(index, format)| {
        in_real_time(async move || {
            let (lab, url) = open(Setup::default().greeting("Good morning.").speech("tone:440")).await;
            let mut channel = Channel::of(Coding::from_asterisk(format).expect("one of ours"));
            channel.json = index % 2 == 1;
            channel.audio_first = index % 3 == 2;
            let call = WebSocketCall::connect(&format!("{url}/100"), channel).await.expect("taken");
            // The service says four seconds of 440 Hz.
            let heard = call.person().until(|tape| loud_ms(&tape.pcm, tape.rate.max(8_000)) > 3_900);
            assert!(in_time("the greeting was heard", heard).await, "{format}");
            call.say(tone(1000.0, 8000.0, 2500), 24_000);
            in_time("it was said", call.person().said()).await;
            lab.service_until("the caller has been heard", |report| report.entries.len() > 3).await;
            let tape = call.person().tape();
            call.hang_up();
            let report = ended(&call).await;
            let (record, _) = lab.record().await;
            let said = lab.ears.pcm(1);
            lab.close_without_violations().await;

            assert_eq!(record.trunk.as_deref(), Some("asterisk_websocket"), "{format}");
            assert!(
                record.codec.as_deref().is_some_and(|codec| codec.contains('/')),
                "{format}: {:?}",
                record.codec
            );
            assert!(report.violations.is_empty(), "{format}: {:?}", report.violations);
            assert_eq!(report.counts.discarded_bytes, 0, "{format}");
            assert!(waiting(&report) <= 5, "{format}: {:?}", report.counts);
            let first = tape.pcm.iter().position(|s| s.unsigned_abs() > 4000).expect("the tone");
            let second = &tape.pcm[first + tape.rate as usize..][..tape.rate as usize];
            let level = decibels(amplitude(second, tape.rate, 440.0), 8000.0);
            assert!(level.abs() < 1.0, "{format}: 440 Hz was heard {level} dB from its level");
            let first = said.iter().position(|s| s.unsigned_abs() > 4000).expect("the caller");
            let (loud, rest) = sine(&said[first + 12_000..first + 36_000], 1000.0);
            let level = decibels(loud, 8000.0);
            assert!(level.abs() < 1.0, "{format}: 1000 Hz reached the service {level} dB from its level");
            assert!(rest < -15.0, "{format}: {rest} dB beside the tone");
            eprintln!(
                "{format}: {level:.2} dB, rest {rest:.1} dB, queue {}, at most {}",
                waiting(&report),
                report.counts.queue_max
            );
        })
    });
    // Two at a time: each is a whole server.
    let mut each: Vec<_> = each.map(Box::pin).collect();
    while !each.is_empty() {
        let some = each.split_off(each.len().saturating_sub(2));
        join_all(some).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_stays_short_whatever_the_clock() {
    in_real_time(async || {
        let (lab, url) = open(Setup::default().script(&answer("tone:440", 20_000))).await;
        let mut channel = Channel::of(Coding::Linear(24_000));
        channel.drift_ppm = 2_000.0;
        let call = WebSocketCall::connect(&format!("{url}/100"), channel).await.expect("taken");
        let heard = call.person().until(|tape| tape.length() > ms(20_000));
        in_time("twenty seconds were heard", heard).await;
        call.hang_up();
        let report = ended(&call).await;
        lab.close().await;
        // A clock that is 2000 ppm slower leaves two frames more by now; as many as the machine was ever late stay, too.
        assert!(waiting(&report) <= 5, "{:?}", report.counts);
        assert_eq!(report.counts.dropped, 0);
        assert!(report.violations.is_empty(), "{:?}", report.violations);
        let marks = report.counts.commands.iter().filter(|text| text.starts_with("MARK_MEDIA")).count();
        assert!(marks > 60, "{marks} marks in 20 s of speech");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_as_heard_is_what_asterisk_played() {
    in_real_time(async || {
        let mut setup = Setup::default().script(&answer("sweep:300-3000", 6_000)).behave(|behaviour| {
            behaviour.speed = 12.0;
            behaviour.response_latency = ms(20);
        });
        setup.assistant = r#"turn_detection = { kind = "server_vad", silence_duration_ms = 200 }"#;
        let (lab, url) = open(setup).await;
        for (round, json) in [false, true, false, true].into_iter().enumerate() {
            let mut channel = Channel::of(Coding::Linear(24_000));
            channel.json = json;
            let call = WebSocketCall::connect(&format!("{url}/100"), channel).await.expect("taken");
            let listens = 900 + round * 137;
            let heard = call.person().until(|tape| loud_ms(&tape.pcm, 24_000) > listens);
            assert!(in_time("the answer began", heard).await);
            call.say(tone(500.0, 9000.0, 260), 24_000);
            let count = round + 1;
            lab.service_until("it was told what was heard", |report| truncations(report).len() == count)
                .await;
            // What was on its way has come.
            in_time("the silence after it", call.hear(ms(100))).await;
            let tape = call.person().tape();
            call.hang_up();
            let report = ended(&call).await;
            assert!(report.violations.is_empty(), "{:?}", report.violations);
            let flushes = report.counts.commands.iter().filter(|text| text.contains("FLUSH_MEDIA")).count();
            assert_eq!(flushes, 1, "{:?}", report.counts.commands);

            let flushed_at = report.flushed_at.expect("the queue was emptied");
            let (told, mut played) = (lab.closed(count).await, 0);
            assert_eq!(told.len(), count);
            // The first answer: up to the first 200 ms of silence.
            let mut silence = 0;
            for window in tape.pcm.chunks(24).skip_while(|window| rms(window) <= 560.0) {
                silence = if rms(window) > 560.0 { 0 } else { silence + 1 };
                if silence > 200 {
                    break;
                }
                played += usize::from(silence == 0);
            }
            let report = lab.service.report();
            let (_, told) = truncations(&report).pop().expect("it was told");
            let off = played as f64 - told as f64;
            eprintln!("played {played} ms, told {told} ms");
            assert!(off.abs() <= 25.0, "the service was told {told} ms, and {played} ms were played");
            // A frame that had begun, and the fade.
            let old = tape.last_loud(560).expect("it was loud");
            let after = old.saturating_duration_since(flushed_at);
            assert!(after <= ms(60), "heard {after:?} after the flush");
        }
        lab.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_the_ends_of_both_sides_are_told() {
    let resources = r#"
[[number]]
organization = "acme"
number = "600"
flow = [{ step = "answer" }, { step = "wait", seconds = 1 }, { step = "hangup" }]

[[number]]
organization = "acme"
number = "700"
flow = [{ step = "answer" }, { step = "wait", seconds = 60 }]
"#
    .to_owned();
    let setup = Setup { resources, ..Setup::default() };
    let (lab, url) = open(setup).await;

    let call = WebSocketCall::connect(&format!("{url}?to=600&from=%2B15550177321"), Channel::default())
        .await
        .expect("taken");
    let report = ended(&call).await;
    assert_eq!(report.ended, Some(How::ToldToHangUp));
    assert!(report.violations.is_empty(), "{:?}", report.violations);

    lab.closed(1).await;
    let call = WebSocketCall::connect(&format!("{url}/700"), Channel::default().json()).await.expect("taken");
    for key in ['1', '#', 'D'] {
        call.press(key);
    }
    let id = lab.live_call().await.id;
    super::support::within(60, "the keys are told", async || {
        let events = lab.events(id).await;
        (data_of(&events, "dtmf.received").len() >= 3).then_some(())
    })
    .await;
    call.hang_up();
    assert_eq!(ended(&call).await.ended, Some(How::HungUp));

    let records = lab.closed(2).await;
    let first: &CallRecord = records.iter().find(|record| record.to == "600").expect("recorded");
    assert_eq!(first.from, "+15550177321");
    let events = lab.events(id).await;
    let keys: Vec<_> = data_of(&events, "dtmf.received").iter().map(|key| key["digit"].clone()).collect();
    assert_eq!(keys, ["1", "#", "D"], "{:?}", kinds(&events));
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_dialled_with_n_is_answered_by_its_flow() {
    let resources = r#"
[[number]]
organization = "acme"
number = "600"
flow = [{ step = "answer" }, { step = "wait", seconds = 60 }]
"#
    .to_owned();
    let setup = Setup { resources, ..Setup::default() };
    let (lab, url) = open(setup).await;
    let mut channel = Channel::of(Coding::Ulaw);
    channel.no_answer = true;
    channel.query = "answer=manual".to_owned();
    let call = WebSocketCall::connect(&format!("{url}/600"), channel.clone()).await.expect("taken");
    super::support::within(60, "it is answered", async || call.report().answered.then_some(())).await;
    call.hang_up();
    ended(&call).await;
    let record = lab.closed(1).await.remove(0);
    assert_eq!(record.disposition, Some(Disposition::Completed), "{record:?}");
    assert_eq!(record.ended_by.as_deref(), Some("caller"), "{record:?}");
    // A flow that refuses does not answer.
    let call = WebSocketCall::connect(&format!("{url}/300"), channel).await.expect("taken");
    let report = ended(&call).await;
    assert!(!report.answered, "{report:?}");
    assert_eq!(report.ended, Some(How::ToldToHangUp));
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asterisk_that_is_lost_ends_its_calls() {
    let (lab, url) = open(Setup::default().greeting("Good morning.").speech("tone:440")).await;
    let faults = [
        // In words of the library's; a shut-down is an ordinary end.
        (Fault::Reset(ms(1500)), Disposition::Failed, "eset"),
        (Fault::Close(ms(1500), 1001), Disposition::Completed, ""),
        (Fault::Close(ms(1500), 1011), Disposition::Failed, "code 1011"),
    ];
    let mut seen = Vec::new();
    for (fault, disposition, reason) in faults {
        let call = WebSocketCall::connect(&format!("{url}/100"), Channel::default().fault(fault)).await;
        let call = call.expect("taken");
        ended(&call).await;
        let records = lab.closed(seen.len() + 1).await;
        let record = records.iter().find(|record| !seen.contains(&record.id)).expect("a record of its own");
        seen.push(record.id);
        eprintln!("{fault:?}: {:?} by {:?}: {:?}", record.disposition, record.ended_by, record.reason);
        assert_eq!(record.disposition, Some(disposition), "{fault:?}: {record:?}");
        let by_caller = record.ended_by.as_deref() == Some("caller");
        assert_eq!(by_caller, disposition == Disposition::Completed, "{fault:?}: {record:?}");
        let told = record.reason.as_deref().unwrap_or_default();
        assert!(told.contains(reason), "{fault:?}: {record:?}");
    }
    // It is back at once.
    let call = WebSocketCall::connect(&format!("{url}/100"), Channel::default()).await.expect("taken");
    let heard = call.person().until(|tape| loud_ms(&tape.pcm, 16_000) > 200);
    assert!(in_time("the next call hears", heard).await);
    call.hang_up();
    ended(&call).await;
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_may_come_in_does() {
    let setup = Setup::default().greeting("Good morning.");
    let lab = Lab::open(
        PORTS,
        setup.configure(|config| {
            door(config);
            let section = config.asterisk_websocket.as_mut().expect("just made");
            section.username = Some("pbx1".to_owned());
            section.password = Some("change-me".into());
        }),
    )
    .await;
    let address = lab.server.asterisk_websocket_address().expect("the door is open");
    let login = |password: &str| Channel {
        login: Some(("pbx1".to_owned(), password.to_owned())),
        ..Channel::default()
    };
    for (path, channel, status) in [
        ("/media/100", Channel::default(), 401),
        ("/media/100", login("wrong"), 401),
        ("/elsewhere", login("change-me"), 404),
    ] {
        let refused = WebSocketCall::connect(&format!("ws://{address}{path}"), channel).await;
        assert!(matches!(refused, Err(ConnectError::Refused(found)) if found == status), "{path}");
    }
    // A number that nobody has is a call, and refused as one.
    let call = WebSocketCall::connect(&format!("ws://{address}/media/999"), login("change-me")).await;
    let report = ended(&call.expect("let in")).await;
    assert_eq!(report.ended, Some(How::ToldToHangUp));
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_waits_is_fetched_when_its_connection_id_is_told() {
    let pbx = Asterisk::start(Pbx::default()).await.expect("it listens");
    let connect = Some(pbx.media_url());
    let resources = r#"
[[number]]
organization = "acme"
number = "600"
flow = [{ step = "answer" }, { step = "wait", seconds = 1 }, { step = "hangup" }]
"#
    .to_owned();
    let setup = Setup { resources, ..Setup::default().greeting("Good morning.").speech("tone:440") };
    let lab = Lab::open(
        PORTS,
        setup.configure(|config| {
            config.asterisk_websocket = Some(AsteriskWebsocket { connect, ..AsteriskWebsocket::default() });
        }),
    )
    .await;
    assert_eq!(lab.server.asterisk_websocket_address(), None, "nobody asked to listen");
    let token = lab.token().await;
    let fetch = async |id: &str, to: &str| {
        let body = json!({"connection_id": id, "to": to, "from": "+15550177321"}).to_string();
        lab.http("POST", "/api/v1/connections", &token, &body).await
    };

    // What is wrong is said, and nothing is asked of the PBX.
    let (status, told) = fetch("../ari/asterisk/info", "999").await;
    assert_eq!(status, 422, "{told}");
    let wrong: Vec<_> = told["errors"].as_array().expect("all of it").iter().collect();
    assert_eq!(wrong.len(), 2, "{told}");
    let (status, told) = fetch("8f1c2e0a-4d0b-4c6e-9f0e-2f6a1b7c9d10", "100").await;
    assert_eq!(status, 404, "{told}");

    let call = pbx.incoming_media(Channel::of(Coding::Linear(24_000)));
    let (status, told) = fetch(call.connection(), "100").await;
    assert_eq!(status, 201, "{told}");
    let (status, again) = fetch(call.connection(), "100").await;
    assert_eq!(status, 409, "{again}");
    // The service says four seconds of 440 Hz.
    let heard = call.person().until(|tape| loud_ms(&tape.pcm, tape.rate.max(8_000)) > 2_500);
    assert!(in_time("the greeting was heard", heard).await);
    call.say(tone(1000.0, 8000.0, 2500), 24_000);
    in_time("it was said", call.person().said()).await;
    lab.service_until("the caller has been heard", |report| report.entries.len() > 3).await;
    let tape = call.person().tape();
    call.hang_up();
    let report = ended(&call).await;
    assert_eq!(report.ended, Some(How::HungUp));
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    let level = decibels(loudest(&tape.pcm, tape.rate, 440.0), 8000.0);
    assert!(level.abs() < 1.0, "440 Hz was heard {level} dB from its level");
    let (record, _) = lab.record().await;
    assert_eq!(told["call"], json!(record.id.to_string()));
    assert_eq!((record.to.as_str(), record.from.as_str()), ("100", "+15550177321"));
    assert_eq!(record.trunk.as_deref(), Some("asterisk_websocket"));
    assert_eq!(record.organization.as_deref(), Some("acme"));
    let level = decibels(loudest(&lab.ears.pcm(1), 24_000, 1000.0), 8000.0);
    assert!(level.abs() < 1.0, "1000 Hz reached the service {level} dB from its level");
    // It is over.
    assert_eq!(fetch(call.connection(), "100").await.0, 404);

    // A flow that hangs up, on somebody who withholds their number.
    let call = pbx.incoming_media(Channel::default().json());
    let body = json!({"connection_id": call.connection(), "to": "600", "from": ""}).to_string();
    assert_eq!(lab.http("POST", "/api/v1/connections", &token, &body).await.0, 201);
    assert_eq!(ended(&call).await.ended, Some(How::ToldToHangUp));
    let records = lab.closed(2).await;
    let second: &CallRecord = records.iter().find(|record| record.to == "600").expect("recorded");
    assert_eq!(second.from, "anonymous");
    lab.close().await;
}
