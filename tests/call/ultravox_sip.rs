//! An assistant that is an Ultravox agent, called by SIP and followed by webhooks.

use serde_json::Value;
use tandem::config::{Config, ProviderSection, UltravoxSip};
use tandem::event::Disposition;
use tandem::simulate::phone::{Act, CallReport};
use tandem::simulate::ultravox::create::Callback;
use tandem::simulate::ultravox::record::Record;
use tandem::simulate::ultravox::sip::SipConfig;
use tandem::simulate::ultravox::{Behaviour, Running, SimConfig, UltravoxSimulator, signature};
use tandem::store::{CallRecord, Committed};

use super::PORTS;
use super::support::{LOCALHOST, Lab, Setup, acts, answer, data_of, kinds, listen, ms, utterance};
use super::waveform::rms;

const SECRET: &str = "a secret of the account";

/// The service, and a server whose assistant is an agent of it; `then` are the other providers of its chain.
async fn open(faults: &[&str], chain: &[&'static str]) -> (Lab, Running) {
    let script = format!("hears = [\"a table for two\"]\n{}", answer("tone:600", 700));
    let behaviour = Behaviour {
        script: tandem::simulate::script::Script::parse(&script).expect("the test's own script"),
        webhook_retry: ms(50),
        ..Behaviour::default()
    };
    let service = UltravoxSimulator::start(SimConfig {
        behaviour,
        faults: faults.iter().map(|fault| fault.parse().expect("the test's own fault")).collect(),
        api_keys: vec!["the key".to_owned()],
        sip: Some(SipConfig { listen: (LOCALHOST, 0).into(), rtp_ports: (PORTS + 4000, PORTS + 4399) }),
        ..SimConfig::default()
    });
    let service = service.await.expect("the service starts");
    let (sip, url) = (service.sip_addr().expect("it answers SIP"), service.url());
    let chain: Vec<String> = chain.iter().map(|name| (*name).to_owned()).collect();
    let setup = Setup::default().script(&answer("tone:900", 700)).configure(move |config: &mut Config| {
        let trunk = format!(
            "name = \"ultravox\"\nprofile = \"generic\"\nallow = [\"127.0.0.1\"]\npeers = [\"{sip}\"]"
        );
        config.trunk.push(toml::from_str(&trunk).expect("a trunk"));
        let agent = UltravoxSip {
            agent: format!("sip:agent_1@{sip}"),
            trunk: "ultravox".to_owned(),
            api_url: url.trim_end_matches("/api/").to_owned(),
            api_keys: vec!["wrong key".into(), "the key".into()],
            webhook_secrets: vec!["an older secret".into(), SECRET.into()],
            ring_timeout: ms(2000),
            account_timeout: ms(5000),
            ..UltravoxSip::default()
        };
        config.providers.insert("voice".to_owned(), ProviderSection::UltravoxSip(agent));
        config.routing.default_chain = chain;
    });
    let mut setup = setup;
    setup.resources.push_str(
        "\n[[assistant]]\norganization = \"acme\"\nname = \"concierge\"\n\n[[number]]\norganization = \"acme\"\n\
         number = \"700\"\nflow = [{ step = \"assistant\", assistant = \"concierge\" }]\n",
    );
    let lab = Lab::open(PORTS, setup).await;
    let url = format!("http://{}/hooks/ultravox/voice", lab.server.http_address());
    service.tell(vec![Callback { url, secrets: vec![SECRET.to_owned()] }]);
    (lab, service)
}

/// Calls an assistant that has the default chain.
async fn call(lab: &Lab, acts: Vec<Act>) -> (CallReport, CallRecord, Vec<Committed>) {
    let report = lab.call("700", acts).await;
    let (call, events) = lab.record().await;
    (report, call, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caller_talks_with_the_agent_and_the_record_has_it_all() {
    let (lab, service) = open(&["webhooks-twice"], &["voice"]).await;
    let talk = acts([&listen(), &[utterance(400)], &listen(), &[Act::HangUp]]);
    let (report, call, events) = call(&lab, talk).await;
    let loud = report.heard.chunks(24).filter(|chunk| rms(chunk) > 1000.0).count();
    assert!((1300..=1500).contains(&loud), "{loud} of twice 700 ms were heard: {:?}", kinds(&events));
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("caller")));
    assert_eq!(data_of(&events, "provider.connected")[0]["provider"], "voice");
    let lines = data_of(&events, "transcript.final");
    let said: Vec<(&str, &str)> =
        lines.iter().map(|l| (l["who"].as_str().unwrap(), l["text"].as_str().unwrap())).collect();
    let words = "An answer of some length.";
    assert_eq!(said, [("assistant", words), ("caller", "a table for two"), ("assistant", words)]);
    let moments: Vec<u64> = lines.iter().map(|line| line["start_ms"].as_u64().unwrap()).collect();
    assert!(moments.is_sorted() && moments[2] > moments[0] + 700, "{moments:?}");
    let cost = data_of(&events, "cost.updated").pop().expect("what it costs");
    // Six seconds are billed: at 0.05 a minute for the conversation and 0.005 for the way there.
    assert_eq!((cost["total"].as_u64(), cost["scale"].as_u64()), (Some(5_500_000), Some(9)), "{cost}");
    assert_eq!(kinds(&events).last(), Some(&"call.ended"));
    let report = service.stop().await.expect("the report is complete");
    let created = report.entries.iter().find_map(|entry| match &entry.record {
        Record::Created { request, .. } => Some(request["templateContext"].clone()),
        _ => None,
    });
    assert_eq!(created.expect("a call")["tandem_call"], Value::from(call.id.to_string()));
    assert_eq!(report.violations().count(), 0);
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_of_the_chain_answers_when_the_agent_does_not() {
    for fault in ["refuse:486", "no-handshake"] {
        let (lab, service) = open(&[fault], &["voice", "openai"]).await;
        let (report, call, events) = call(&lab, acts([&listen(), &[Act::HangUp]])).await;
        assert!(report.answered.is_some(), "{fault}: {:?}", kinds(&events));
        assert_eq!(call.disposition, Some(Disposition::Completed), "{fault}");
        assert_eq!(data_of(&events, "provider.lost")[0]["provider"], "voice", "{fault}");
        assert_eq!(data_of(&events, "provider.connected")[0]["provider"], "openai", "{fault}");
        service.stop().await.expect("the report is complete");
        lab.close_without_violations().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_whose_only_agent_refuses_is_not_left_ringing() {
    let (lab, service) = open(&["refuse:503"], &["voice"]).await;
    let (report, call, events) = call(&lab, Vec::new()).await;
    assert!(report.answered.is_none() && report.hang_up.is_some(), "{:?}", kinds(&events));
    assert_eq!((call.disposition, call.sip_status), (Some(Disposition::Failed), Some(503)));
    assert_eq!(data_of(&events, "provider.lost").len(), 1);
    service.stop().await.expect("the report is complete");
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_hangs_up_ends_the_call_and_a_forged_webhook_tells_nothing() {
    let (lab, service) = open(&["hang-up:1", "webhooks-forged"], &["voice"]).await;
    let (report, call, events) = call(&lab, vec![Act::Wait(ms(20_000))]).await;
    assert!(report.hang_up.is_some(), "the server says BYE");
    assert_eq!((call.disposition, call.ended_by.as_deref()), (Some(Disposition::Completed), Some("callee")));
    assert_eq!(data_of(&events, "transcript.final"), [] as [Value; 0]);
    // The wait for the account is no part of the call.
    assert!(call.duration_ms.is_some_and(|ms| ms < 4000), "{:?}", call.duration_ms);
    service.stop().await.expect("the report is complete");
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_of_strangers_are_turned_away() {
    let (lab, service) = open(&[], &["voice"]).await;
    let body = r#"{"event":"call.ended","call":{"callId":"c"}}"#;
    let now = chrono::Utc::now();
    let send = async |stamp: &str, secret: &str, to: &str| {
        let signed = signature(secret, body.as_bytes(), stamp);
        let client = tandem::web::client(&[], ms(5000)).expect("a client");
        let request = client.post(format!("http://{}{to}", lab.server.http_address()));
        let request = request.header("x-ultravox-webhook-timestamp", stamp);
        let request = request.header("x-ultravox-webhook-signature", signed);
        request.body(body).send().await.expect("an answer").status().as_u16()
    };
    let (fresh, old) = (now.to_rfc3339(), (now - chrono::TimeDelta::seconds(90)).to_rfc3339());
    let here = "/hooks/ultravox/voice";
    assert_eq!(send(&fresh, SECRET, here).await, 204);
    assert_eq!(send(&fresh, "another", here).await, 401);
    assert_eq!(send(&old, SECRET, here).await, 401);
    assert_eq!(send(&fresh, SECRET, "/hooks/ultravox/openai").await, 404);
    service.stop().await.expect("the report is complete");
    lab.close().await;
}
