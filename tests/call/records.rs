//! Whatever way a call ends, its record is closed once, its events are dense and say how.

use std::time::Duration;

use serde_json::json;
use tandem::audio::{Codec, SampleRate};
use tandem::config::CodecName;
use tandem::event::Disposition;
use tandem::simulate::openai::script::Script;
use tandem::simulate::phone::Act;
use tandem::store::{CallRecord, Committed};
use tokio_util::sync::CancellationToken;

use super::PORTS;
use super::support::{Lab, PATIENCE, Setup, VOICE, answer, data_of, kinds, ms, utterance, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_the_caller_ends_is_completed_with_its_transcript() {
    let script = format!("hears = [\"I need a table\"]\n{}", answer("tone:600", 700));
    let lab =
        Lab::open(PORTS, Setup::default().greeting("Good morning.").script(&script).behave(quick)).await;
    let turn = [Act::WaitForSpeech(ms(200)), Act::WaitForSilence(ms(700))];
    let acts = [turn.to_vec(), vec![utterance(400)], turn.to_vec(), vec![Act::HangUp]].concat();
    lab.call("100", acts).await;
    let (call, events) = lab.record().await;
    assert_ended(&call, &events, Disposition::Completed, "caller", 200);
    let head =
        ["call.created", "call.phase", "call.phase", "provider.connected", "call.answered", "call.phase"];
    assert_eq!(kinds(&events)[..6], head);
    let lines = lab.server.store().transcript(call.id).await.expect("the store answers");
    let spoken: Vec<_> = lines.iter().map(|line| (line.who.as_str(), line.text.as_str())).collect();
    let wanted = [
        ("assistant", "Good morning."),
        ("caller", "I need a table"),
        ("assistant", "An answer of some length."),
    ];
    assert_eq!(spoken, wanted);
    assert!(lines.windows(2).all(|pair| pair[0].start_ms <= pair[1].start_ms), "{lines:?}");
    assert!(lines.iter().all(|line| line.start_ms < line.end_ms && line.heard_text.is_none()), "{lines:?}");
    let quality = call.quality.expect("RTP statistics");
    assert!(quality.packets_received > 0 && quality.packets_sent > 0 && quality.packets_lost == 0);
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_was_cut_says_which_words_were_heard() {
    let script = "speech = \"tone:600\"\n[[turn]]\nsay = \"one two three four five six seven eight\"\n\
                  duration_ms = 4000\n[[turn]]\nsay = \"Yes?\"\nduration_ms = 500\n";
    let lab = Lab::open(PORTS, Setup::default().script(script).behave(quick)).await;
    let acts = vec![
        Act::WaitForSpeech(ms(1900)),
        utterance(400),
        Act::WaitForSpeech(ms(200)),
        Act::WaitForSilence(ms(600)),
        Act::HangUp,
    ];
    lab.call("100", acts).await;
    let (call, events) = lab.record().await;
    let lines = data_of(&events, "transcript.final");
    let cut = lines.iter().find(|line| line["heard"] == "cut").expect("a line was cut");
    assert_eq!(cut["text"], "one two three four five six seven eight");
    let heard = cut["heard_text"].as_str().expect("the words that were heard");
    assert!(heard.starts_with("one two three") && !heard.contains("seven"), "{heard}");
    let barge_in = &data_of(&events, "barge_in")[0];
    assert_eq!(barge_in["line_id"], cut["line_id"]);
    assert!((1900..3000).contains(&barge_in["played_ms"].as_u64().expect("milliseconds")), "{barge_in}");
    assert_eq!(lines.iter().filter(|line| line["heard"] == "full" && line["who"] == "assistant").count(), 1);
    assert_ended(&call, &events, Disposition::Completed, "caller", 200);
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_and_abandoned_calls_have_records_that_say_why() {
    let setup = Setup::default().configure(|config| config.media.codecs = vec![CodecName::Pcmu]);
    let lab = Lab::open(PORTS, setup).await;
    let status = async |number: &str, codec, limit: u64| {
        let mut plan = lab.plan(number, codec, Vec::new());
        plan.limit = ms(limit);
        let report = lab.phone.call(plan).await.expect("the phone can try");
        report.hang_up.map(|hang_up| hang_up.status)
    };
    assert_eq!(status("999", Codec::Pcmu, 20_000).await, Some(404));
    assert_eq!(status("300", Codec::Pcmu, 20_000).await, Some(486));
    assert_eq!(status("100", Codec::L16(SampleRate::HZ_16000), 20_000).await, Some(488));
    assert_eq!(status("200", Codec::Pcmu, 700).await, None, "the caller gives up while it rings");
    let records = lab.closed(4).await;
    for (to, disposition, by, code) in [
        ("999", Disposition::Rejected, "system", 404),
        ("300", Disposition::Busy, "system", 486),
        ("100", Disposition::Rejected, "system", 488),
        ("200", Disposition::Cancelled, "caller", 487),
    ] {
        let call = records.iter().find(|call| call.to == to).unwrap_or_else(|| panic!("no record of {to}"));
        assert_ended(call, &lab.events(call.id).await, disposition, by, code);
        assert_eq!((call.answered_at, call.billable_ms), (None, Some(0)), "{to}");
    }
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_lets_the_assistant_speak_and_ends_the_call() {
    let lab = Lab::open(
        PORTS,
        Setup::default().behave(|b| {
            b.speech = VOICE;
            b.script = Script::parse("[[turn]]\nsay = \"Hello.\"").expect("a script");
        }),
    );
    let lab = lab.await;
    let token = lab.token().await;
    let caller = lab.call("100", vec![Act::Wait(PATIENCE)]);
    let operator = async {
        let call = within(60, "the call is answered", async || {
            let call = lab.live_call().await;
            call.answered_at.is_some().then_some(call)
        });
        let path = format!("/api/v1/calls/{}", call.await.id);
        let words = json!({"text": "Your table is ready."}).to_string();
        assert_eq!(lab.http("POST", &format!("{path}/say"), &token, &words).await.0, 202);
        assert_eq!(lab.http("POST", &format!("{path}/say"), &token, "{\"text\": \"\"}").await.0, 422);
        assert_eq!(lab.http("POST", &format!("{path}/say"), "tandem_wrong", &words).await.0, 401);
        within(60, "the words have been heard", async || {
            let (status, body) = lab.http("GET", &format!("{path}/transcript"), &token, "").await;
            assert_eq!(status, 200);
            body["data"].as_array().filter(|lines| lines.len() == 2).cloned()
        })
        .await;
        let reason = json!({"reason": "closing time"}).to_string();
        assert_eq!(lab.http("POST", &format!("{path}/end"), &token, &reason).await.0, 202);
        path
    };
    let (report, path) = tokio::join!(caller, operator);
    assert!(report.hang_up.is_some(), "the server says BYE");
    let (call, events) = lab.record().await;
    assert_ended(&call, &events, Disposition::Completed, "api", 200);
    assert_eq!(call.reason.as_deref(), Some("closing time"));
    assert_eq!(data_of(&events, "transcript.final")[1]["text"], "Your table is ready.");
    assert_eq!(lab.http("POST", &format!("{path}/end"), &token, "").await.0, 409, "it has ended");
    let (status, shown) = lab.http("GET", &path, &token, "").await;
    assert_eq!((status, shown["disposition"].as_str()), (200, Some("completed")));
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_any_rtp_ends_as_failed() {
    let setup = Setup::default();
    let mut setup = setup.configure(|config| {
        let trunk = "name = \"lab\"\nprofile = \"quick\"\nallow = [\"127.0.0.1\"]";
        config.trunk = vec![toml::from_str(trunk).expect("a trunk")];
        config.sip.profiles_dir = config.node.data_dir.join("profiles");
        std::fs::create_dir_all(&config.sip.profiles_dir).expect("a folder");
        let profile = include_str!("../../sip-profiles/generic.toml")
            .replace("media_timeout_s = 60", "media_timeout_s = 2");
        std::fs::write(config.sip.profiles_dir.join("quick.toml"), profile).expect("a profile");
    });
    setup.service.behaviour.answer_ms = 500;
    let lab = Lab::open(PORTS, setup).await;
    let report = lab.call("100", vec![Act::Mute(PATIENCE), Act::HangUp]).await;
    assert!(report.hang_up.is_some(), "the server says BYE");
    let (call, events) = lab.record().await;
    assert_ended(&call, &events, Disposition::Failed, "system", 408);
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_refuses_new_calls_and_ends_the_others_with_a_record() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite://{}", directory.path().join("calls.db").display());
    let store = url.clone();
    let setup = Setup::default().configure(move |config| config.store.url = store);
    let Lab { server, service, phone, sip, directory: _kept, .. } = Lab::open(PORTS, setup).await;
    let plan = |acts| super::support::plan(sip, "100", Codec::Pcmu, acts);
    let talking = phone.call(plan(vec![Act::Wait(PATIENCE)]));
    let stopping = async {
        service.wait_until(|report| report.summary.sessions == 1).await;
        within(60, "the call is answered", async || {
            let page = server.store().calls(&Default::default(), None, 1).await.expect("the store answers");
            page.data.first().and_then(|call| call.answered_at)
        })
        .await;
        let hurry = CancellationToken::new();
        let refused = async {
            let report = phone.call(plan(Vec::new())).await.expect("the phone can try");
            hurry.cancel();
            report.hang_up.map(|hang_up| hang_up.status)
        };
        let stop = server.stop(Duration::from_secs(30), hurry.clone());
        // The stop begins first: it is polled first.
        let ((), refused) = tokio::join!(biased; stop, refused);
        refused
    };
    let (talked, refused) = tokio::join!(talking, stopping);
    assert_eq!(refused, Some(503), "a draining server takes no call");
    assert!(talked.expect("the phone can try").hang_up.is_some(), "the server says BYE");
    phone.stop().await;
    let store = tandem::store::Store::open(&url).await.expect("the store is readable");
    let calls = store.calls(&Default::default(), None, 10).await.expect("the store answers").data;
    let ended: Vec<_> = calls.iter().map(|call| (call.disposition, call.ended_by.as_deref())).collect();
    assert_eq!(ended, [(Some(Disposition::Interrupted), Some("system"))]);
    assert_eq!(store.live_calls().await.expect("the store answers"), 0);
}

/// The record and the events agree on the end, which came once.
#[track_caller]
fn assert_ended(call: &CallRecord, events: &[Committed], disposition: Disposition, by: &str, status: u16) {
    let ends = data_of(events, "call.ended");
    assert_eq!(ends.len(), 1, "{:?}", kinds(events));
    assert_eq!(kinds(events).last(), Some(&"call.ended"));
    assert_eq!(kinds(events)[0], "call.created");
    let of_event =
        (ends[0]["disposition"].as_str(), ends[0]["ended_by"].as_str(), ends[0]["sip_status"].as_u64());
    assert_eq!(of_event, (Some(disposition.as_str()), Some(by), Some(u64::from(status))), "{}", ends[0]);
    let of_record = (call.disposition, call.ended_by.as_deref(), call.sip_status);
    assert_eq!(of_record, (Some(disposition), Some(by), Some(status)));
    assert_eq!(call.last_seq, events.len() as u64);
}

fn quick(behaviour: &mut tandem::simulate::openai::Behaviour) {
    behaviour.answer_ms = 600;
    behaviour.transcription_latency = ms(50);
}
