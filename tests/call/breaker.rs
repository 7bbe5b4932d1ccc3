//! The circuit breaker and the keys of a whole server: who is tried, who is not, and who can see it.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tandem::config::{MasterKey, ProviderSection};
use tandem::simulate::openai::report::Report;
use tandem::simulate::phone::Act;
use tandem::store::{FeedItem, Role};

use super::PORTS;
use super::support::{Lab, Setup, data_of, http, ms, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_to_a_dead_service_are_a_handful_of_attempts_and_everybody_can_see_why() {
    let lab = Lab::open(PORTS, Setup::default().fault("refuse:503")).await;
    let token = lab.token().await;
    let mut feed = lab.server.feed().subscribe();
    assert_eq!(lab.http("GET", "/ready", &token, "").await.0, 200);
    let reports = join_all((0..40).map(|_| lab.call("100", Vec::new()))).await;
    assert!(reports.iter().all(|report| report.hang_up.as_ref().is_some_and(|end| end.status == 503)));

    let provider = provider(&lab, &token).await;
    assert_eq!((provider["state"].as_str(), provider["usable"].as_bool()), (Some("open"), Some(false)));
    assert_eq!((provider["kind"].as_str(), provider["default_chain"].as_u64()), (Some("openai"), Some(1)));
    assert_eq!((provider["opened"].as_u64(), provider["failures"].as_u64()), (Some(1), Some(5)));
    assert!(provider["retry_in_ms"].as_u64().is_some_and(|wait| wait > 0 && wait <= 30_000), "{provider}");
    let (status, body) = lab.http("GET", "/ready", &token, "").await;
    let reason = body["reasons"][0]["reason"].as_str().unwrap_or_default();
    assert_eq!((status, body["reasons"][0]["part"].as_str()), (503, Some("provider")), "{body}");
    assert!(
        reason.contains("it has failed too often, last: provider openai refused") && reason.contains("503")
    );

    let mut told = Vec::new();
    while told.len() < 2 {
        if let Some(FeedItem::System(event)) = feed.next().await {
            told.push((event.seq, event.kind.to_string()));
        }
    }
    assert_eq!(told, [(1, "breaker.opened".to_owned()), (2, "system.alert".to_owned())]);
    let kept = lab.server.feed().system_since(1, 10).await.expect("the store answers");
    let alert: Value = serde_json::from_str(kept[0].data.get()).expect("JSON");
    assert_eq!((alert["code"].as_str(), alert["provider"].as_str()), (Some("provider_down"), Some("openai")));

    // A check tries all the same, and says what came of it.
    let (status, check) = lab.http("POST", "/api/v1/providers/openai/check", &token, "").await;
    assert_eq!((status, check["ok"].as_bool()), (200, Some(false)), "{check}");
    let (_, after) = lab.http("POST", "/api/v1/providers/openai/reset", &token, "").await;
    assert_eq!(after["state"], "closed");
    assert_eq!(lab.http("GET", "/ready", &token, "").await.0, 200);

    let report = lab.close().await;
    assert_eq!(attempts(&report), 6, "five calls and the check");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_finds_out_that_a_service_is_back() {
    // The first five are refused, the others are not.
    let mut setup = Setup::default().fault("refuse:500").configure(|config| {
        if let Some(ProviderSection::Openai(openai)) = config.providers.get_mut("openai") {
            openai.breaker.cool_down = ms(300);
        }
    });
    setup.service.fault_scope = "first:5".parse().expect("a scope");
    let lab = Lab::open(PORTS, setup).await;
    let token = lab.token().await;
    join_all((0..8).map(|_| lab.call("100", Vec::new()))).await;
    within(60, "the cool-down is over", async || {
        (provider(&lab, &token).await["state"] == "half_open").then_some(())
    })
    .await;
    let report = lab.call("100", vec![Act::Wait(ms(300)), Act::HangUp]).await;
    assert!(report.answered.is_some(), "the probe is a call like any other");
    assert_eq!(provider(&lab, &token).await["state"], "closed");
    let kept = lab.server.feed().system_since(0, 10).await.expect("the store answers");
    let kinds: Vec<_> = kept.iter().map(|event| &*event.kind).collect();
    assert_eq!(kinds, ["breaker.opened", "system.alert", "breaker.half_open", "breaker.closed"]);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organizations_own_key_is_kept_sealed_and_used_for_its_calls_alone() {
    let mut setup = Setup::default().configure(|config| config.secrets.key = Some(MasterKey::new([7; 32])));
    setup.service.policy.api_key = Some(KEY.to_owned());
    let lab = Lab::open(PORTS, setup).await;
    let token = lab.token().await;
    let path = "/api/v1/providers/openai/keys";
    let body = json!({"key": KEY, "organization": "acme"}).to_string();
    let (status, added) = lab.http("POST", path, &token, &body).await;
    assert_eq!((status, added["organization"].as_str()), (201, Some("acme")), "{added}");

    let hang_up = || vec![Act::Wait(ms(200)), Act::HangUp];
    assert!(lab.call("100", hang_up()).await.answered.is_some(), "with its own key");
    assert!(
        lab.call("500", hang_up()).await.answered.is_none(),
        "globex has the installation's, which is wrong"
    );
    let (_, keys) = lab.http("GET", path, &token, "").await;
    let shown: Vec<_> = keys["data"].as_array().expect("a list").iter().collect();
    assert_eq!(
        (shown[0]["source"].as_str(), shown[0]["state"].as_str()),
        (Some("environment"), Some("resting"))
    );
    assert_eq!((shown[1]["source"].as_str(), shown[1]["state"].as_str()), (Some("store"), Some("in_use")));
    assert!(
        lab.call("100", hang_up()).await.answered.is_some(),
        "another's rejected key is no matter of its own"
    );

    // A manager of an organization sees and keeps its own keys, an analyst none.
    let store = lab.server.store();
    let of = async |role, organization| {
        store.create_token("t", role, Some(organization), None).await.expect("a token").secret
    };
    let manager = of(Role::Manager, "globex").await;
    assert_eq!(lab.http("GET", path, &manager, "").await.1["data"], json!([]));
    let foreign = json!({"key": "sk-another-key", "organization": "acme"}).to_string();
    assert_eq!(lab.http("POST", path, &manager, &foreign).await.0, 403);
    let (status, own) = lab.http("POST", path, &manager, r#"{"key": "sk-another-key"}"#).await;
    assert_eq!((status, own["organization"].as_str()), (201, Some("globex")), "{own}");
    let acmes = format!("{path}/{}", added["id"].as_str().expect("an id"));
    assert_eq!(lab.http("DELETE", &acmes, &manager, "").await.0, 404);
    assert_eq!(lab.http("GET", path, &of(Role::Analyst, "acme").await, "").await.0, 403);
    assert_eq!(lab.http("GET", "/api/v1/providers", &manager, "").await.0, 403);

    assert_eq!(lab.http("DELETE", &acmes, &token, "").await.0, 204);
    assert!(lab.call("100", hang_up()).await.answered.is_none(), "without its own it has the installation's");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_in_no_answer_no_event_and_no_file() {
    let setup = Setup::default()
        .fault("refuse:401")
        .configure(|config| config.secrets.key = Some(MasterKey::new([7; 32])));
    let lab = Lab::open(PORTS, setup).await;
    let token = lab.token().await;
    let path = "/api/v1/providers/openai/keys";
    let body = json!({"key": KEY, "organization": "acme"}).to_string();
    let mut answers = Vec::new();
    answers.push(lab.http("POST", path, &token, &body).await);
    answers.push(lab.http("POST", path, &token, &body).await);
    for wrong in [
        json!({"key": format!("{KEY} with more"), "organization": "acme"}),
        json!({"key": KEY, "organization": "nobody"}),
        json!({"key": KEY, "organisation": "acme"}),
        json!({"key": [KEY]}),
        json!({"organization": KEY, "key": 5}),
    ] {
        answers.push(lab.http("POST", path, &token, &wrong.to_string()).await);
    }
    let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [201, 409, 422, 404, 400, 400, 400], "{answers:#?}");
    lab.call("100", Vec::new()).await;
    for path in [path, "/api/v1/providers", "/api/v1/providers/openai", "/ready", "/api/v1/calls"] {
        answers.push(lab.http("GET", path, &token, "").await);
    }
    answers.push(lab.http("POST", "/api/v1/providers/openai/check", &token, "").await);
    answers.push(lab.http("POST", "/api/v1/provider-keys/rotate", &token, "").await);
    let mut text = format!("{answers:?}");
    let (_, events) = lab.record().await;
    events.iter().for_each(|event| text.push_str(event.data.get()));
    assert_eq!(data_of(&events, "provider.lost").len(), 1);
    let kept = lab.server.feed().system_since(0, 100).await.expect("the store answers");
    kept.iter().for_each(|event| text.push_str(event.data.get()));
    assert!(kept.iter().any(|event| &*event.kind == "key.rested"), "{kept:?}");
    assert!(!text.contains(KEY) && !text.contains("sk-test"), "{text}");

    let folder = lab.directory.path().to_owned();
    let directory = lab.directory;
    lab.phone.stop().await;
    lab.server.stop(ms(0), tokio_util::sync::CancellationToken::new()).await;
    let mut octets = 0;
    for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
        if entry.path().is_file() {
            let file = std::fs::read(entry.path()).expect("it can be read");
            octets += file.len();
            assert!(!file.windows(KEY.len()).any(|part| part == KEY.as_bytes()), "{:?}", entry.path());
        }
    }
    assert!(octets > 10_000, "the database is among them");
    drop(directory);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_master_key_no_key_is_taken() {
    let lab = Lab::open(PORTS, Setup::default()).await;
    let token = lab.token().await;
    let body = json!({"key": KEY}).to_string();
    let answer =
        http(lab.server.http_address(), "POST", "/api/v1/providers/openai/keys", &token, &body).await;
    assert_eq!(answer.0, 409);
    assert!(
        answer.1["detail"].as_str().is_some_and(|text| text.contains("TANDEM_SECRETS_KEY")),
        "{answer:?}"
    );
    let scripted = lab.http("POST", "/api/v1/providers/scripted/keys", &token, &body).await;
    assert_eq!(scripted.0, 409, "it uses no keys");
    assert_eq!(lab.http("POST", "/api/v1/providers/other/keys", &token, &body).await.0, 404);
    lab.close().await;
}

async fn provider(lab: &Lab, token: &str) -> Value {
    lab.http("GET", "/api/v1/providers/openai", token, "").await.1
}

/// Connections somebody tried to open.
fn attempts(report: &Report) -> usize {
    (report.summary.refused + report.summary.sessions) as usize
}

const KEY: &str = "sk-of-acme-0123456789";
