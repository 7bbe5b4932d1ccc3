//! Providers fail, at the start of a call and in the middle of it: the caller hardly notices, and the record says so.

use std::time::Duration;

use futures_util::future::join_all;
use tandem::config::{Config, OpenAi, ProviderSection};
use tandem::event::Disposition;
use tandem::simulate::openai::fault::FaultScope;
use tandem::simulate::openai::record::Record;
use tandem::simulate::openai::report::{Entry, Report};
use tandem::simulate::openai::script::Script;
use tandem::simulate::openai::{Behaviour, OpenAiSimulator, Running, SimConfig};
use tandem::simulate::phone::{Act, CallReport};
use tandem::store::{CallRecord, Committed};

use super::PORTS;
use super::clock::in_real_time;
use super::support::{Lab, Setup, acts, answer, data_of, kinds, listen, ms, utterance, within};
use super::waveform::rms;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_cannot_be_had_is_passed_over_while_the_phone_rings() {
    for fault in ["refuse:503", "refuse:429:7", "invalid-api-key"] {
        let (report, call, events) = told(two(fault, FaultScope::All, |_| ()).await, answered()).await;
        assert_eq!(report.hang_up, None, "{fault}: the phone hangs up");
        assert_eq!(call.disposition, Some(Disposition::Completed), "{fault}");
        let lost = data_of(&events, "provider.lost");
        assert_eq!(lost.len(), 1, "{fault}: {lost:?}");
        assert_eq!(lost[0]["provider"], "openai");
        let connected = data_of(&events, "provider.connected");
        assert_eq!((connected.len(), connected[0]["provider"].as_str()), (1, Some("backup")), "{fault}");
        assert_eq!(connected[0].get("resumed"), None, "nothing was resumed: {connected:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_provider_is_overtaken_by_the_next_one() {
    let pair = two("no-handshake", FaultScope::All, |config| config.routing.hedge_after = ms(300)).await;
    let (report, _, events) = told(pair, answered()).await;
    let rang = report.answered.expect("it is answered").duration_since(report.dialled);
    assert!(rang < Duration::from_secs(3), "it rang for {rang:?}; the first provider would have taken 5 s");
    assert_eq!(data_of(&events, "provider.connected")[0]["provider"], "backup");
    assert_eq!(data_of(&events, "provider.lost").len(), 0, "it was not lost but slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_provider_the_flow_goes_on() {
    let setup = Setup::default().fault("refuse:503");
    let setup =
        Setup { resources: number("110", "reception", r#", { step = "echo", seconds = 1 }"#), ..setup };
    let lab = Lab::open(PORTS, setup).await;
    let report = lab.call("110", vec![utterance(700), Act::Wait(ms(3000))]).await;
    assert!(report.answered.is_some(), "the step after it has answered");
    assert!(loud_ms(&report.heard) > 300, "the caller hears themselves");
    let (call, events) = lab.record().await;
    assert_eq!(call.reason.as_deref(), Some("the flow has ended"), "{:?}", kinds(&events));
    assert_eq!(data_of(&events, "provider.lost").len(), 1);
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_dies_at_any_moment_drops_no_call_and_no_line() {
    // In its greeting, while the caller speaks, while it answers, while nobody speaks; by reset, close and expiry.
    let faults = [
        "die-after-deltas:3",
        "die-after-appends:155",
        "die-after-deltas:14",
        "die:2.2",
        "die:4.1",
        "close:2.9",
        "expire:3.6",
    ];
    join_all(faults.map(async |fault| {
        let (report, call, events) = in_real_time(async || {
            let pair = two(fault, FaultScope::First(1), |_| ()).await;
            let talk =
                acts([&listen(), &[utterance(900)], &listen(), &[utterance(900)], &listen(), &[Act::HangUp]]);
            let (report, call, events) = told(pair, talk).await;
            let resumed = data_of(&events, "provider.connected").pop();
            let gap = resumed.and_then(|resumed| resumed["gap_ms"].as_u64());
            assert!(gap.is_some_and(|gap| gap < 1000), "{fault}: {gap:?}");
            let spoke = |n: usize| report.position_ms(report.spoke[n].0);
            let gap = longest_silence_ms(&report.heard, 0.0, spoke(0)).max(answer_gap_ms(&report));
            assert!(gap < 1900.0, "{fault}: {gap} ms of silence where an answer was due");
            // Where sound came late there is silence in it, in which a turn ends.
            let lines = data_of(&events, "transcript.final");
            let caller = lines.iter().filter(|line| line["who"] == "caller").count();
            assert_eq!(
                caller,
                report.spoke.len(),
                "{fault}: each turn of the caller is one line: {lines:#?}"
            );
            (report, call, events)
        })
        .await;
        assert_eq!(report.hang_up, None, "{fault}: the phone hangs up, not the server");
        assert_eq!(call.disposition, Some(Disposition::Completed), "{fault}");
        assert_eq!(data_of(&events, "provider.lost").len(), 1, "{fault}: {:?}", kinds(&events));
        let connected = data_of(&events, "provider.connected");
        assert_eq!(connected.len(), 2, "{fault}");
        assert_eq!(connected[1]["resumed"], true, "{fault}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_without_another_is_given_a_fresh_session() {
    let script = "speech = \"tone:600\"\n[[turn]]\nsay = \"One two three four five six seven eight nine ten.\"\n\
                  duration_ms = 3000\n";
    let setup = Setup::default().script(script).fault("die-after-deltas:5");
    let setup = Setup { service: SimConfig { fault_scope: FaultScope::First(1), ..setup.service }, ..setup };
    let lab = Lab::open(PORTS, setup).await;
    let report = lab.call("100", acts([&listen(), &[Act::HangUp]])).await;
    assert_eq!(report.hang_up, None);
    let (_, events) = lab.record().await;
    let connected = data_of(&events, "provider.connected");
    assert_eq!((connected.len(), connected[1]["provider"].as_str()), (2, Some("openai")));
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_falls_silent_is_replaced_and_the_silence_is_filled() {
    let faults = ["stall:1", "stall:2", "stall-after-deltas:3"];
    join_all(faults.map(async |fault| {
        let (report, call, events) = in_real_time(async || {
            let pair = two(fault, FaultScope::All, |config| config.routing.stall_after = ms(2000)).await;
            let talk = acts([
                &[Act::WaitForSpeech(ms(200)), Act::WaitForSilence(ms(2500))],
                &[utterance(700)],
                &[Act::WaitForSpeech(ms(200)), Act::Wait(ms(4500)), Act::HangUp],
            ]);
            let (report, call, events) = told(pair, talk).await;
            let gap = answer_gap_ms(&report);
            assert!(gap < 1900.0, "{fault}: {gap} ms of silence; a filler should have come");
            let lines = data_of(&events, "transcript.final");
            let caller = lines.iter().filter(|line| line["who"] == "caller").count();
            assert_eq!(caller, 1, "{fault}: {lines:#?}");
            (report, call, events)
        })
        .await;
        let ended = (report.hang_up.is_none(), call.disposition);
        assert_eq!(ended, (true, Some(Disposition::Completed)), "{fault}");
        let lost = data_of(&events, "provider.lost");
        assert_eq!(lost[0]["reason"], "an answer was due and nothing came", "{fault}: {:?}", kinds(&events));
        assert_eq!(data_of(&events, "provider.connected")[1]["provider"], "backup", "{fault}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_hears_nothing_any_more_is_noticed_once_the_caller_speaks() {
    // Nothing was due when it fell silent, and it does not tell that the caller speaks.
    let pair = two("mute:2.6", FaultScope::All, |_| ()).await;
    let talk = acts([&listen(), &[Act::Wait(ms(800))], &[utterance(900)], &listen(), &[Act::HangUp]]);
    let (report, call, events) = told(pair, talk).await;
    assert_eq!((report.hang_up.is_none(), call.disposition), (true, Some(Disposition::Completed)));
    let lost = data_of(&events, "provider.lost");
    assert_eq!(lost[0]["reason"], "the caller spoke and nothing came", "{:?}", kinds(&events));
    let lines = data_of(&events, "transcript.final");
    let who: Vec<_> = lines.iter().map(|line| line["who"].as_str().unwrap_or_default()).collect();
    assert_eq!(who, ["assistant", "caller", "assistant"], "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_quota_leads_to_the_next_provider() {
    let mut pair = two("slow-drip:0.9", FaultScope::All, |_| ()).await;
    let script = "speech = \"tone:600\"\n[[turn]]\nfail = \"insufficient_quota\"\n";
    pair.setup.service.behaviour.script = Script::parse(script).expect("the test's own script");
    let (report, _, events) = told(pair, answered()).await;
    assert_eq!(report.hang_up, None);
    let lost = data_of(&events, "provider.lost");
    assert_eq!(lost[0]["reason"], "the account has no quota left", "{:?}", kinds(&events));
    assert_eq!(data_of(&events, "provider.connected")[1]["provider"], "backup");
    assert!(loud_ms(&report.heard) > 700, "the greeting was said by the other one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_renewed_before_it_expires() {
    let setup = Setup::default().fault("expire:6").script(&answer("tone:600", 900)).configure(|config| {
        if let Some(ProviderSection::Openai(openai)) = config.providers.get_mut("openai") {
            openai.session_limit = ms(6000);
        }
    });
    let lab = Lab::open(PORTS, setup).await;
    let talk = acts([&listen(), &[Act::Wait(ms(8000))], &[utterance(700)], &listen(), &[Act::HangUp]]);
    let report = lab.call("100", talk).await;
    assert_eq!(report.hang_up, None);
    let (call, events) = lab.record().await;
    assert_eq!(call.disposition, Some(Disposition::Completed));
    assert_eq!(data_of(&events, "provider.lost").len(), 0, "{:?}", kinds(&events));
    let connected = data_of(&events, "provider.connected");
    assert!(connected.len() >= 2, "{connected:?}");
    assert_eq!((connected[1]["resumed"].as_bool(), connected[1]["gap_ms"].as_u64()), (Some(true), Some(0)));
    let lines = data_of(&events, "transcript.final");
    assert_eq!(lines.len(), 3, "greeting, question, answer: {lines:#?}");
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_are_down_in_mid_call_the_flow_goes_on_or_the_caller_is_told() {
    for (number, reason) in [("110", "the flow has ended"), ("100", "the assistant was lost")] {
        let setup = Setup::default().fault("die:2").script(&answer("tone:600", 900));
        let resources = self::number("110", "reception", r#", { step = "echo", seconds = 1 }"#);
        let lab = Lab::open(PORTS, Setup { resources, ..setup }).await;
        let Lab { server, service, phone, sip, .. } = lab;
        let plan = super::support::plan(sip, number, tandem::audio::Codec::Pcmu, vec![Act::Wait(ms(30_000))]);
        let calling = phone.call(plan);
        let gone = async {
            let begun = |entry: &Entry| matches!(entry.record, Record::ResponseStarted { .. });
            service.wait_until(|report| report.entries.iter().any(begun)).await;
            // Nothing listens there any more.
            service.stop().await.expect("the report is complete")
        };
        let (report, _) = tokio::join!(calling, gone);
        assert!(report.expect("the phone can try").hang_up.is_some(), "{number}: the server says BYE");
        let calls = within(60, "the record is closed", async || {
            let filter = tandem::store::CallFilter { live: Some(false), ..Default::default() };
            let page = server.store().calls(&filter, None, 9).await.expect("the store answers");
            (!page.data.is_empty()).then_some(page.data)
        });
        assert_eq!(calls.await[0].reason.as_deref(), Some(reason), "{number}");
        phone.stop().await;
        server.stop(Duration::ZERO, tokio_util::sync::CancellationToken::new()).await;
    }
}

/// A lab with a second service.
struct Pair {
    setup: Setup,
    backup: Running,
}

/// The first service has this fault; the second one is sound. 110 is an assistant that has both.
async fn two(fault: &str, scope: FaultScope, change: impl FnOnce(&mut Config) + Send + 'static) -> Pair {
    let script = "speech = \"tone:600\"\n[[turn]]\nsay = \"Good morning, this is the number you have called.\"\n\
                  duration_ms = 1500\n[[turn]]\nsay = \"This is an answer of some length to what was said.\"\n\
                  duration_ms = 1500\n";
    let behaviour = Behaviour { script: Script::parse(script).expect("valid"), ..Behaviour::default() };
    let service = SimConfig { behaviour, ..SimConfig::default() };
    let backup = OpenAiSimulator::start(SimConfig { seed: 2, ..service.clone() }).await.expect("it starts");
    let url = backup.url();
    let mut setup = Setup { service: SimConfig { fault_scope: scope, ..service }, ..Setup::default() }
        .fault(fault)
        .configure(move |config| {
            let openai = OpenAi { url, api_keys: vec!["sk-test".into()], ..OpenAi::default() };
            config.providers.insert("backup".to_owned(), ProviderSection::Openai(openai));
            change(config);
        });
    setup.resources = r#"
[[assistant]]
organization = "acme"
name = "safe"
chain = ["openai", "backup"]
instructions = "You answer the phone for Acme."
tools = ["end_call", "send_dtmf"]
greeting = "Good morning, this is the number you have called."
"#
    .to_owned()
        + &number("110", "safe", "");
    Pair { setup, backup }
}

fn number(number: &str, assistant: &str, then: &str) -> String {
    format!(
        "\n[[number]]\norganization = \"acme\"\nnumber = \"{number}\"\n\
         flow = [{{ step = \"assistant\", assistant = \"{assistant}\" }}{then}]\n"
    )
}

/// One call to 110; neither service may have anything to complain of.
async fn told(pair: Pair, acts: Vec<Act>) -> (CallReport, CallRecord, Vec<Committed>) {
    let Pair { setup, backup } = pair;
    let lab = Lab::open(PORTS, setup).await;
    let report = lab.call("110", acts).await;
    let (call, events) = lab.record().await;
    lab.close_without_violations().await;
    let other: Report = backup.stop().await.expect("the report is complete");
    let violations: Vec<_> = other.violations().map(|entry| &entry.record).collect();
    assert!(violations.is_empty(), "{violations:#?}");
    (report, call, events)
}

fn answered() -> Vec<Act> {
    acts([&listen(), &[Act::HangUp]])
}

fn loud_ms(heard: &[i16]) -> usize {
    heard.chunks(24).filter(|chunk| rms(chunk) > 500.0).count()
}

/// The longest time without a sound in this part of what was heard, up to its last sound.
fn longest_silence_ms(heard: &[i16], from_ms: f64, to_ms: f64) -> f64 {
    let slot = |ms: f64| (ms.max(0.0) / 20.0) as usize;
    let slots: Vec<bool> = heard.chunks(480).map(|chunk| rms(chunk) > 100.0).collect();
    let part = &slots[slot(from_ms).min(slots.len())..slot(to_ms).min(slots.len())];
    let part = &part[..part.iter().rposition(|loud| *loud).map_or(0, |last| last + 1)];
    part.split(|loud| *loud).map(<[bool]>::len).max().unwrap_or_default() as f64 * 20.0
}

/// The longest time from the end of what the caller said to the first sound after it.
fn answer_gap_ms(report: &CallReport) -> f64 {
    let gap = |(_, end): &(std::time::Instant, std::time::Instant)| {
        let from = report.position_ms(*end);
        let slots = report.heard.chunks(480).skip((from / 20.0) as usize);
        slots.take_while(|chunk| rms(chunk) <= 100.0).count() as f64 * 20.0
    };
    report.spoke.iter().map(gap).fold(0.0, f64::max)
}
