//! What calls cost, where that is shown, and what happens at a limit.

use serde_json::Value;
use tandem::config::OnLimit;
use tandem::cost::start_of_day;
use tandem::event::Disposition;
use tandem::simulate::openai::record::Record;
use tandem::simulate::phone::Act;
use tandem::time::UnixMs;

use super::PORTS;
use super::support::{Lab, PATIENCE, Setup, acts, data_of, kinds, listen, ms, utterance, within};

/// One line of two seconds, whatever it is asked.
const TWO_SECONDS: &str = "speech = \"tone:600\"\nhears = [\"Hello\"]\n[[turn]]\nsay = \"Good morning to you.\"\n\
                           duration_ms = 2000\n";
/// What its 40 tokens of audio cost.
const VOICE: u64 = 40 * 64_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_costs_what_the_service_reports_times_the_table() {
    let lab = Lab::open(PORTS, Setup::default().script(TWO_SECONDS)).await;
    lab.call("100", acts([&listen(), &[utterance(400)], &listen(), &[Act::HangUp]])).await;
    let (call, events) = lab.record().await;
    let told = data_of(&events, "cost.updated");
    let last = told.last().expect("the call has a cost");
    assert_eq!(call.cost.as_ref().map(|cost| cost.total), last["total"].as_u64());
    assert_eq!((last["currency"].as_str(), last["scale"].as_u64()), (Some("USD"), Some(9)));
    assert_eq!(last["by"]["tts"].as_u64(), Some(2 * VOICE), "{last}");
    assert!(last["by"]["llm"].as_u64() > Some(0) && last["by"]["stt"].as_u64() > Some(0), "{last}");
    let parts: u64 =
        ["trunk", "stt", "llm", "tts", "tools"].map(|p| last["by"][p].as_u64().unwrap_or(0)).iter().sum();
    assert_eq!(last["total"].as_u64(), Some(parts));
    let voice = item(last, "audio_out").expect("a line");
    assert_eq!((voice["model"].as_str(), voice["quantity"].as_u64()), (Some("gpt-realtime-2.1"), Some(80)));
    assert!(item(last, "text_cached").is_some(), "the second response finds the first one's text: {last}");

    let token = lab.token().await;
    let (status, shown) = lab.http("GET", &format!("/api/v1/calls/{}/cost", call.id), &token, "").await;
    assert_eq!((status, &shown["total"], &shown["by"]), (200, &last["total"], &last["by"]));
    assert_eq!(shown["unpriced"], false);
    let (_, record) = lab.http("GET", &format!("/api/v1/calls/{}", call.id), &token, "").await;
    assert_eq!(record["cost"]["total"], last["total"]);
    for (by, name) in [
        ("organization", "acme"),
        ("assistant", "reception"),
        ("provider", "openai"),
        ("day", &UnixMs::now().to_rfc3339()[..10]),
    ] {
        let (status, sums) = lab.http("GET", &format!("/api/v1/costs?by={by}"), &token, "").await;
        let row = &sums["data"][0];
        assert_eq!(
            (status, row["name"].as_str(), row["calls"].as_u64()),
            (200, Some(name), Some(1)),
            "{sums}"
        );
        assert_eq!(row["total"], last["total"], "{sums}");
    }
    let (_, models) = lab.http("GET", "/api/v1/costs?by=model", &token, "").await;
    assert_eq!(models["data"].as_array().map(Vec::len), Some(2), "the voice and the scribe: {models}");
    let (status, _) = lab.http("GET", "/api/v1/costs?by=moon&from=yesterday", &token, "").await;
    assert_eq!(status, 422);
    let spent = lab.server.store().spent_since(start_of_day(UnixMs::now())).await.expect("the store answers");
    assert_eq!(spent, [(Some("acme".to_owned()), parts)], "what a server finds when it starts");
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_without_a_price_is_never_free_in_silence() {
    let setup = Setup { assistant: "model = \"gpt-realtime-9\"", ..Setup::default() }.script(TWO_SECONDS);
    let lab = Lab::open(PORTS, setup).await;
    lab.call("100", acts([&listen(), &[Act::HangUp]])).await;
    let (call, events) = lab.record().await;
    let told = data_of(&events, "cost.updated");
    let voice = item(told.last().expect("it is shown"), "audio_out").expect("a line");
    assert_eq!((&voice["amount"], voice["quantity"].as_u64()), (&Value::Null, Some(40)));
    let token = lab.token().await;
    let (_, shown) = lab.http("GET", &format!("/api/v1/calls/{}/cost", call.id), &token, "").await;
    assert_eq!((&shown["unpriced"], shown["total"].as_u64()), (&Value::Bool(true), Some(0)));
    let (_, sums) = lab.http("GET", "/api/v1/costs", &token, "").await;
    assert_eq!(sums["unpriced_calls"], 1);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_reaches_its_limit_says_goodbye_and_ends() {
    // One answer costs about 0.003 dollars; the second one is too much.
    let setup = Setup { assistant: "max_cost = \"0.004\"", ..Setup::default() }.script(TWO_SECONDS);
    let lab = Lab::open(PORTS, setup).await;
    let report = lab.call("100", acts([&listen(), &[utterance(400)], &[Act::Wait(PATIENCE)]])).await;
    assert!(report.hang_up.is_some(), "the server says BYE");
    let (call, events) = lab.record().await;
    assert_eq!(call.reason.as_deref(), Some("a limit of cost was reached"), "{:?}", kinds(&events));
    assert_eq!(call.disposition, Some(Disposition::Completed));
    let limits = data_of(&events, "cost.limit");
    let reached = limits.last().expect("the record says so");
    assert_eq!((reached["scope"].as_str(), reached["percent"].as_u64()), (Some("call"), Some(100)));
    assert_eq!(reached["limit"].as_u64(), Some(4_000_000));
    let service = lab.close_without_violations().await;
    let asked = service.entries.iter().filter(|entry| matches!(entry.record, Record::ResponseStarted { .. }));
    assert_eq!(asked.count(), 3, "the greeting, an answer, and the farewell");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_the_day_is_used_up_new_calls_are_told_so_or_go_on_with_the_flow() {
    let more = "[[assistant]]\norganization = \"globex\"\nname = \"other\"\nchain = [\"openai\"]\n\
                [[number]]\norganization = \"globex\"\nnumber = \"600\"\n\
                flow = [{ step = \"assistant\", assistant = \"other\" }, { step = \"echo\", seconds = \"1s\" }]\n";
    for on_limit in [OnLimit::End, OnLimit::ContinueFlow] {
        let setup = Setup { resources: more.to_owned(), ..Setup::default() }.script(TWO_SECONDS).configure(
            move |config| {
                config.cost.max_per_day = "0.001".parse().ok();
                config.cost.on_limit = on_limit;
            },
        );
        let lab = Lab::open(PORTS, setup).await;
        // The day's first call is over the limit once it has begun; the second may not begin.
        lab.call("600", vec![Act::WaitForSpeech(ms(200)), Act::WaitForSilence(ms(600)), Act::HangUp]).await;
        let second = lab.call("600", vec![utterance(600), Act::Wait(PATIENCE)]).await;
        let calls = lab.closed(2).await;
        let events = lab.events(calls[0].id).await;
        assert!(second.hang_up.is_some());
        let told = within(60, "the alert is written", async || {
            let told = lab.server.store().system_since(0, 10).await.expect("the store answers");
            told.iter().find(|event| event.data.get().contains("cost_limit_reached")).cloned()
        });
        assert!(told.await.data.get().contains("of today's 0.001 USD"));
        assert!(!kinds(&events).contains(&"provider.connected"), "{:?}", kinds(&events));
        let heard = second.heard.iter().filter(|sample| sample.unsigned_abs() > 500).count();
        match on_limit {
            OnLimit::End => {
                assert_eq!(calls[0].reason.as_deref(), Some("a limit of cost was reached"));
                assert!(heard > 24_000 / 4, "the farewell was spoken: {heard}");
            }
            OnLimit::ContinueFlow => assert_eq!(calls[0].reason.as_deref(), Some("the flow has ended")),
        }
        lab.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minutes_of_trunks_cost_what_the_file_says() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let table = "currency = \"EUR\"\n[[trunk]]\ntrunk = \"local\"\ndirection = \"inbound\"\nper_minute = \"0.60\"\n\
                 increment_s = 60\nsetup = \"0.05\"\n";
    std::fs::write(file.path(), table).expect("written");
    let path = file.path().to_owned();
    let setup = Setup::default().script(TWO_SECONDS).configure(|config| config.cost.prices = Some(path));
    let lab = Lab::open(PORTS, setup).await;
    lab.call("400", vec![Act::Wait(ms(300)), Act::HangUp]).await;
    let (call, events) = lab.record().await;
    let told = data_of(&events, "cost.updated");
    let cost = told.last().expect("the trunk costs");
    assert_eq!((cost["by"]["trunk"].as_u64(), cost["currency"].as_str()), (Some(650_000_000), Some("EUR")));
    assert_eq!(call.cost.map(|cost| cost.total), Some(650_000_000));
    lab.close().await;
}

fn item<'a>(cost: &'a Value, what: &str) -> Option<&'a Value> {
    cost["items"].as_array().into_iter().flatten().find(|item| item["what"] == what)
}
