//! The service fails, lies or dawdles: the caller hears of it politely, and the record says so.

use futures_util::future::join_all;
use tandem::event::Disposition;
use tandem::simulate::phone::{Act, CallReport};
use tandem::store::{CallRecord, Committed};

use super::PORTS;
use super::support::{Lab, Setup, acts, answer, data_of, kinds, listen, ms, utterance};
use super::waveform::rms;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_refuses_costs_the_caller_nothing() {
    for fault in ["refuse:401", "refuse:429:7", "invalid-api-key"] {
        let (report, call, events) = call(Setup::default().fault(fault), Vec::new()).await;
        assert_eq!(report.hang_up.map(|hang_up| hang_up.status), Some(503), "{fault}");
        assert_eq!(data_of(&events, "provider.lost").len(), 1, "{fault}: {:?}", kinds(&events));
        assert_eq!((call.disposition, call.sip_status), (Some(Disposition::Failed), Some(503)), "{fault}");
        assert_eq!(call.answered_at, None, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_rejects_the_only_key_makes_the_server_not_ready() {
    let lab = Lab::open(PORTS, Setup::default().fault("refuse:401")).await;
    let token = lab.token().await;
    assert_eq!(lab.http("GET", "/ready", &token, "").await.0, 200);
    lab.call("100", Vec::new()).await;
    let (status, body) = lab.http("GET", "/ready", &token, "").await;
    let reason = body["reasons"][0]["reason"].as_str().unwrap_or_default();
    assert_eq!((status, body["reasons"][0]["part"].as_str()), (503, Some("provider")), "{body}");
    assert!(reason.contains("the service has rejected all its keys"), "{body}");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_never_answers_is_given_up_while_the_phone_rings() {
    let setup = Setup::default().fault("no-handshake").configure(|config| {
        if let Some(tandem::config::ProviderSection::Openai(openai)) = config.providers.get_mut("openai") {
            openai.connect_timeout = ms(1000);
        }
    });
    let (report, call, events) = call(setup, Vec::new()).await;
    assert!(report.ringing.is_some(), "it rang");
    assert_eq!(report.hang_up.map(|hang_up| hang_up.status), Some(503));
    assert_eq!(call.disposition, Some(Disposition::Failed), "{:?}", kinds(&events));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_gives_up_while_the_service_is_dialled_is_cancelled() {
    let lab = Lab::open(PORTS, Setup::default().fault("slow-handshake:4")).await;
    let mut plan = lab.plan("100", tandem::audio::Codec::Pcmu, Vec::new());
    plan.limit = ms(600);
    let report = lab.phone.call(plan).await.expect("the phone can try");
    assert!(report.ringing.is_some() && report.answered.is_none());
    let (call, events) = lab.record().await;
    assert_eq!((call.disposition, call.sip_status), (Some(Disposition::Cancelled), Some(487)));
    assert_eq!(kinds(&events).last(), Some(&"call.ended"));
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_dies_again_and_again_is_come_back_to_and_its_words_are_kept() {
    // Each session is cut in the middle of a long answer: by a reset, an orderly close, the service's time limit.
    join_all(["die:2.5", "close:2.5", "expire:2.5"].map(async |fault| {
        let setup = Setup::default().greeting("One two three four five six seven eight.").fault(fault);
        let setup = setup.behave(|behaviour| {
            behaviour.answer_ms = 6000;
            behaviour.speed = 1.5;
        });
        let (report, call, events) = call(setup, vec![Act::Wait(ms(7000)), Act::HangUp]).await;
        assert_eq!(report.hang_up, None, "{fault}: the phone hangs up");
        assert_eq!(call.disposition, Some(Disposition::Completed), "{fault}");
        assert!(data_of(&events, "provider.lost").len() >= 2, "{fault}: {:?}", kinds(&events));
        let lines = data_of(&events, "transcript.final");
        assert!(lines.len() >= 2, "{fault}: {lines:?}");
        assert_eq!(lines[0]["who"], "assistant");
        let heard = lines[0]["heard_text"].as_str().or(lines[0]["text"].as_str());
        assert!(heard.is_some_and(|text| text.starts_with("One")), "{fault}: {lines:?}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_services_are_put_up_with() {
    // A whole exchange works as if nothing was wrong.
    let faults = ["invalid-json", "unknown-events", "giant-delta", "slow-drip:0.6", "fail-transcription"];
    join_all(faults.map(async |fault| {
        let setup = Setup::default().fault(fault).script(&answer("tone:600", 900));
        let lab = Lab::open(PORTS, setup).await;
        let report = lab.call("100", acts([&listen(), &[utterance(400)], &listen(), &[Act::HangUp]])).await;
        assert_eq!(report.hang_up, None, "{fault}: the phone hangs up, not the server");
        let (call, events) = lab.record().await;
        assert_eq!(call.disposition, Some(Disposition::Completed), "{fault}");
        let lines = data_of(&events, "transcript.final");
        let full = lines.iter().filter(|line| line["who"] == "assistant" && line["heard"] == "full");
        assert_eq!(full.count(), 2, "{fault}: {lines:?}");
        let loud = report.heard.chunks(24).filter(|chunk| rms(chunk) > 1000.0).count();
        // Where the service was too slow, the tone fades out and in.
        assert!((1750..=1850).contains(&loud), "{fault}: {loud} of twice 900 ms were heard");
        lab.close_without_violations().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_falls_silent_leaves_the_call_to_the_caller() {
    let setup = Setup::default().fault("stall:1").script(&answer("tone:600", 900));
    let acts = vec![utterance(400), Act::Wait(ms(1500)), utterance(400), Act::Wait(ms(300)), Act::HangUp];
    let (report, call, _) = call(setup, acts).await;
    assert_eq!(report.hang_up, None);
    assert_eq!(call.disposition, Some(Disposition::Completed));
}

async fn call(setup: Setup, acts: Vec<Act>) -> (CallReport, CallRecord, Vec<Committed>) {
    let lab = Lab::open(PORTS, setup).await;
    let report = lab.call("100", acts).await;
    let (call, events) = lab.record().await;
    lab.close_without_violations().await;
    (report, call, events)
}
