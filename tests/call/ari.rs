//! Whole calls over ARI: the far end is a simulated Asterisk, or two people on it.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tandem::ari::Access;
use tandem::ari::app::{Kind, Names};
use tandem::ari::client::Client;
use tandem::ari::events::Reader;
use tandem::ari::request::{ExternalMedia, Request};
use tandem::config::{Ari, AriMedium, AudioSocket};
use tandem::event::Disposition;
use tandem::id::LegId;
use tandem::simulate::asterisk::ari::{Asterisk, Caller, Endpoint, Fate, Settings};
use tandem::simulate::asterisk::measure;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::PORTS;
use super::clock::{lateness, watch};
use super::dial::post;
use super::support::{Lab, PATIENCE, Setup, answer, data_of, kinds, ms, tone, within};

/// What the server under test is called.
const NODE: &str = "edge-1";

const MEDIA: [(AriMedium, &str); 4] = [
    (AriMedium::Audiosocket, "slin24"),
    (AriMedium::Rtp, "g722"),
    (AriMedium::Rtp, "slin"),
    (AriMedium::Websocket, "slin16"),
];

/// A PBX and a server whose section `[ari]` is about it.
async fn pbx(settings: Settings) -> Asterisk {
    Asterisk::start(settings).await.expect("it listens")
}

fn section(pbx: &Asterisk, medium: AriMedium, format: &str) -> Ari {
    let text = format!(
        "url = {:?}\nusername = \"tandem\"\npassword_env = \"ARI\"\napplication = \"tandem\"\nmedia_format = {format:?}\n\
         dial = \"PJSIP/{{number}}\"",
        pbx.url()
    );
    let mut ari: Ari = toml::from_str(&text).expect("a section");
    ari.medium = Some(medium);
    ari.password = Some("secret".into());
    ari
}

async fn lab(pbx: &Asterisk, medium: AriMedium, format: &str) -> Lab {
    let lab = Lab::open(PORTS, setup(pbx, medium, format)).await;
    pbx.until_app("tandem").await;
    lab
}

fn setup(pbx: &Asterisk, medium: AriMedium, format: &str) -> Setup {
    watch();
    let ari = section(pbx, medium, format);
    let setup = Setup::default().script(&answer("tone:440", 1500)).configure(move |config| {
        config.node.name = NODE.to_owned();
        config.ari = Some(ari);
        config.audiosocket = Some(AudioSocket {
            listen: "127.0.0.1:0".parse().expect("an address"),
            ..AudioSocket::default()
        });
    });
    Setup {
        resources: "[[number]]\norganization = \"acme\"\nnumber = \"700\"\nflow = [{ step = \"wait\", seconds = 20 }]\n"
            .to_owned(),
        ..setup
    }
}

/// An application that takes calls and does nothing about them, until it is cancelled.
async fn application(pbx: &Asterisk, name: &str) -> (Access, CancellationToken, JoinHandle<()>) {
    let access =
        Access { url: pbx.url(), username: "tandem".to_owned(), password: "secret".to_owned().into() };
    let (news, mut told) = mpsc::channel(64);
    let application = name.to_owned();
    let reader = Reader { access: access.clone(), application, news, missed: Arc::default() };
    let life = CancellationToken::new();
    let stop = life.clone();
    let following = tokio::spawn(async move {
        let heard = async { while told.recv().await.is_some() {} };
        tokio::join!(reader.run(stop), heard);
    });
    pbx.until_app(name).await;
    (access, life, following)
}

/// Says a tone and listens to what comes back of it; again, where it is torn or missing because this machine was
/// late.
async fn echoed(caller: &Caller, hz: f64) -> Option<measure::Tone> {
    let mut rest = 10;
    loop {
        let began = Instant::now();
        caller.say(tone(hz, 9000.0, 1500), 24_000);
        let pcm = caller.hear(ms(1500)).await;
        let rate = caller.person().tape().rate;
        let heard = measure::tone(&pcm, rate);
        let whole = heard.is_some_and(|heard| (heard.hz - hz).abs() < 5.0 && heard.purity > 0.9);
        rest -= 1;
        if whole || rest == 0 || lateness(began, Instant::now()).is_zero() {
            return heard;
        }
    }
}

/// Nothing of ours is left on the PBX, and we have made no mistake.
async fn clean(pbx: &Asterisk) {
    let done = tokio::time::timeout(PATIENCE, pbx.until(|report| report.left_over.is_empty()));
    assert!(done.await.is_ok(), "left over: {:?}", pbx.report().left_over);
    let violations = pbx.report().violations;
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_heard_and_answered_over_every_medium() {
    for (medium, format) in MEDIA {
        let pbx = pbx(Settings::default()).await;
        let lab = lab(&pbx, medium, format).await;
        let caller = pbx.call("tandem", "400", "+15550100");
        assert!(caller.answered().await, "{medium:?} {format}");
        let heard = echoed(&caller, 1000.0).await.unwrap_or_else(|| panic!("{medium:?} {format}: silence"));
        assert!((heard.hz - 1000.0).abs() < 5.0 && heard.purity > 0.9, "{medium:?} {format}: {heard:?}");
        // 9000 of 32768.
        assert!((heard.dbov + 14.2).abs() < 1.0, "{medium:?} {format}: {heard:?}");
        caller.hang_up();
        let (call, events) = lab.record().await;
        assert_eq!(call.disposition, Some(Disposition::Completed), "{:?}", kinds(&events));
        assert_eq!((call.to.as_str(), call.ended_by.as_deref()), ("400", Some("caller")));
        clean(&pbx).await;
        lab.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assistant_talks_and_listens_and_keys_go_both_ways() {
    let pbx = pbx(Settings::default()).await;
    let lab = lab(&pbx, AriMedium::Audiosocket, "slin16").await;
    let caller = pbx.call("tandem", "100", "+15550100");
    assert!(caller.answered().await);
    let pcm = caller.hear(ms(2500)).await;
    let words = measure::tone(&pcm, caller.person().tape().rate).expect("the assistant speaks first");
    assert!((words.hz - 440.0).abs() < 5.0, "{words:?}");
    caller.say(tone(700.0, 9000.0, 800), 24_000);
    caller.press('7');
    let id = lab.live_call().await.id;
    within(60, "the key is recorded", async || {
        let events = lab.events(id).await;
        data_of(&events, "dtmf.received").iter().any(|data| data["digit"] == "7").then_some(())
    })
    .await;
    let token = lab.token().await;
    let (status, _) =
        lab.http("POST", &format!("/api/v1/calls/{id}/dtmf"), &token, r#"{"digits": "12#"}"#).await;
    assert_eq!(status, 202);
    within(60, "keys are pressed", async || pbx.keys(caller.id()).filter(|keys| keys == "12#").map(drop))
        .await;
    within(60, "the service hears the caller", async || {
        // Not yet while only its beginning is there.
        let heard = measure::tone(&lab.ears.pcm(1), 24_000)?;
        ((heard.hz - 700.0).abs() < 10.0 && heard.purity > 0.9).then_some(())
    })
    .await;
    let (status, _) = lab.http("POST", &format!("/api/v1/calls/{id}/end"), &token, "{}").await;
    assert_eq!(status, 202);
    assert!(matches!(caller.fate().await.fate, Fate::HungUp { by_app: true, .. }));
    let events = lab.events(id).await;
    assert_eq!(data_of(&events, "dtmf.received").len(), 1, "no key twice");
    clean(&pbx).await;
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_sent_to_an_extension_or_a_queue_of_the_dialplan() {
    for (to, context, extension) in
        [("dialplan:200@internal", "internal", "200"), ("queue:support", "tandem-queues", "support")]
    {
        let pbx = pbx(Settings::default()).await;
        let lab = lab(&pbx, AriMedium::Rtp, "g722").await;
        let caller = pbx.call("tandem", "100", "+15550100");
        assert!(caller.answered().await);
        let id = lab.live_call().await.id;
        let token = lab.token().await;
        let path = format!("/api/v1/calls/{id}/transfer");
        let nowhere = json!({"to": "dialplan:999@internal"}).to_string();
        let (status, _) = lab.http("POST", &path, &token, &nowhere).await;
        assert_eq!(status, 202);
        within(60, "the transfer fails", async || {
            let told = data_of(&lab.events(id).await, "call.transfer");
            told.iter().any(|data| data.to_string().contains("999")).then_some(())
        })
        .await;
        assert_eq!(caller.state().as_deref(), Some("Up"), "the caller is still ours");
        within(60, "the transfer is taken", async || {
            let (status, _) = lab.http("POST", &path, &token, &json!({ "to": to }).to_string()).await;
            (status == 202).then_some(())
        })
        .await;
        let Fate::WentOn(went) = caller.fate().await.fate else { panic!("{to}") };
        assert_eq!((went.context.as_str(), went.extension.as_str()), (context, extension));
        let (call, _) = lab.record().await;
        assert_eq!(call.disposition, Some(Disposition::Completed));
        clean(&pbx).await;
        lab.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_made_over_the_pbx_with_every_outcome() {
    let endpoints = vec![
        ("PJSIP/1".to_owned(), Endpoint::Answers(ms(100))),
        ("PJSIP/2".to_owned(), Endpoint::Busy),
        ("PJSIP/3".to_owned(), Endpoint::RingsOn),
        ("PJSIP/4".to_owned(), Endpoint::Unknown),
        ("PJSIP/5".to_owned(), Endpoint::Says("BUSY")),
        ("PJSIP/6".to_owned(), Endpoint::Says("CONGESTION")),
        ("PJSIP/7".to_owned(), Endpoint::Says("NOANSWER")),
        ("PJSIP/8".to_owned(), Endpoint::Rejects(1)),
        ("PJSIP/9".to_owned(), Endpoint::Rejects(21)),
    ];
    let pbx = pbx(Settings { endpoints, ..Settings::default() }).await;
    let lab = lab(&pbx, AriMedium::Audiosocket, "slin16").await;
    let token = lab.token().await;
    for (to, disposition, status, reason) in [
        ("11", Disposition::Completed, 200, "hung up"),
        ("22", Disposition::Busy, 486, "User busy"),
        ("33", Disposition::NoAnswer, 480, "User alerting, no answer"),
        ("44", Disposition::Failed, 503, "the PBX did not make the call"),
        // The dialplan says it with `Busy()` and `Congestion()`, and the channel's end does not say it at all.
        ("55", Disposition::Busy, 486, "user busy"),
        ("66", Disposition::Failed, 503, "no circuit available"),
        ("77", Disposition::NoAnswer, 480, "no answer"),
        ("88", Disposition::Failed, 404, "Unallocated (unassigned) number"),
        ("99", Disposition::Rejected, 403, "Call Rejected"),
    ] {
        let body = json!({"to": to, "flow": "400", "trunk": "ari", "timeout_s": 2}).to_string();
        let (code, answer) = post(lab.server.http_address(), &token, Some(to), &body).await;
        assert_eq!(code, 202, "{answer}");
        let id: tandem::id::CallId = answer["id"].as_str().expect("an id").parse().expect("a call's");
        if disposition == Disposition::Completed {
            let channel = pbx.until_channel(|id| id.contains("-out-")).await;
            let party = pbx.party(&channel).expect("the far end");
            assert!(party.answered().await);
            let heard = echoed(&party, 800.0).await.expect("the echo");
            assert!((heard.hz - 800.0).abs() < 5.0, "{heard:?}");
            party.hang_up();
        }
        let call = within(60, "the call ends", async || {
            let call = lab.server.store().call(id).await.expect("the store answers").expect("its record");
            call.ended_at.is_some().then_some(call)
        })
        .await;
        assert_eq!(call.disposition, Some(disposition), "{to}: {call:?}");
        let (ended, why) = (call.sip_status, call.reason.as_deref().unwrap_or_default());
        // Which of the two gives up waiting first, the PBX or we, is a matter of milliseconds.
        let ours = to == "33" && (ended, why) == (Some(408), "no answer in time");
        assert!(ours || (ended == Some(status) && why.starts_with(reason)), "{to}: {ended:?} {why}");
        assert_eq!(call.answered_at.is_some(), disposition == Disposition::Completed, "{to}");
    }
    let done = tokio::time::timeout(PATIENCE, pbx.until(|report| report.left_over.is_empty()));
    assert!(done.await.is_ok(), "left over: {:?}", pbx.report().left_over);
    // An endpoint that nobody knows is not called, as asked for.
    assert_eq!(pbx.report().violations, ["POST channels: 500 "]);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_on_while_the_event_socket_is_cut() {
    let pbx = pbx(Settings::default()).await;
    let lab = lab(&pbx, AriMedium::Audiosocket, "slin16").await;
    let (stays, goes) = (pbx.call("tandem", "400", "+15550100"), pbx.call("tandem", "400", "+15550101"));
    assert!(stays.answered().await && goes.answered().await);
    pbx.cut_events();
    // Nobody tells us.
    goes.hang_up();
    assert!(echoed(&stays, 600.0).await.is_some_and(|heard| (heard.hz - 600.0).abs() < 5.0));
    let ended = lab.closed(1).await;
    assert_eq!((ended.len(), ended[0].from.as_str()), (1, "+15550101"));
    pbx.until_app("tandem").await;
    stays.press('4');
    let id = lab.live_call().await.id;
    within(60, "a key is told again", async || {
        let events = lab.events(id).await;
        (!data_of(&events, "dtmf.received").is_empty()).then_some(())
    })
    .await;
    stays.hang_up();
    lab.closed(2).await;
    clean(&pbx).await;
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_pbx_restarts_its_calls_end_and_new_ones_come() {
    for (medium, format) in [(AriMedium::Audiosocket, "slin16"), (AriMedium::Rtp, "ulaw")] {
        let pbx = pbx(Settings::default()).await;
        let lab = lab(&pbx, medium, format).await;
        let caller = pbx.call("tandem", "400", "+15550100");
        assert!(caller.answered().await);
        pbx.go_down();
        let token = lab.token().await;
        within(60, "it is noticed", async || {
            let (_, state) = lab.http("GET", "/api/v1/ari", &token, "").await;
            (state["connected"] == false).then_some(())
        })
        .await;
        pbx.come_up();
        let (call, events) = lab.record().await;
        assert!(call.ended_at.is_some(), "{:?}", kinds(&events));
        pbx.until_app("tandem").await;
        let caller = pbx.call("tandem", "400", "+15550100");
        assert!(caller.answered().await);
        assert!(echoed(&caller, 600.0).await.is_some());
        caller.hang_up();
        lab.closed(2).await;
        clean(&pbx).await;
        lab.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_whom_a_crash_of_ours_left_alone_is_adopted_and_leftovers_go() {
    let pbx = pbx(Settings::default()).await;
    // A predecessor that takes a caller, makes bridge and media, and is no more.
    let (access, life, following) = application(&pbx, "tandem").await;
    let caller = pbx.call("tandem", "400", "+15550100");
    let client = Client::new(&access).expect("a client");
    let (names, leg) = (Names::new(NODE, "tandem"), LegId::fresh());
    let (bridge, media) = (names.of(Kind::Bridge, leg, 1), names.of(Kind::Media, leg, 1));
    let medium = ExternalMedia::Rtp { to: "127.0.0.1:9".to_owned() };
    let application = "tandem".to_owned();
    for request in [
        Request::CreateBridge { bridge: bridge.clone() },
        Request::ExternalMedia { channel: media.clone(), application, medium, format: "slin16" },
        Request::AddChannel { bridge: bridge.clone(), channel: caller.id().to_owned(), absorb_keys: true },
        Request::Answer { channel: caller.id().to_owned() },
    ] {
        assert!(client.ask(&request).await.is_done(), "{request:?}");
    }
    life.cancel();
    following.await.expect("it stops");

    let lab = Lab::open(PORTS, setup(&pbx, AriMedium::Rtp, "g722")).await;
    let call = lab.live_call().await;
    assert_eq!((call.to.as_str(), call.from.as_str()), ("400", "+15550100"));
    within(60, "they are heard again", async || {
        echoed(&caller, 600.0).await.filter(|heard| (heard.hz - 600.0).abs() < 5.0)
    })
    .await;
    assert!(!pbx.channels().contains(&media) && !pbx.report().left_over.contains(&bridge));
    caller.hang_up();
    lab.record().await;
    clean(&pbx).await;
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_listens_in_on_two_people() {
    let pbx = pbx(Settings::default()).await;
    let lab = lab(&pbx, AriMedium::Websocket, "slin16").await;
    // They talk in an application of somebody else's.
    let (_, life, following) = application(&pbx, "tandem-other").await;
    let [one, _other] = pbx.conversation("tandem-other", "their-bridge", ["+15550100", "+15550101"]);
    let token = lab.token().await;
    let path = format!("/api/v1/ari/channels/{}/listen", one.id());
    let (status, answer) = lab.http("POST", &path, &token, r#"{"to": "100"}"#).await;
    assert_eq!(status, 202, "{answer}");
    let (status, answer) =
        lab.http("POST", "/api/v1/ari/channels/9.9/listen", &token, r#"{"to": "100"}"#).await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("not_found")), "{answer}");
    let (status, answer): (u16, Value) = lab.http("GET", "/api/v1/ari", &token, "").await;
    assert_eq!((status, &answer["connected"], &answer["legs"]), (200, &json!(true), &json!(1)));
    one.say(tone(900.0, 9000.0, 1500), 24_000);
    within(60, "the service hears them", async || {
        measure::tone(&lab.ears.pcm(1), 24_000).filter(|heard| (heard.hz - 900.0).abs() < 10.0)
    })
    .await;
    let id = lab.live_call().await.id;
    let (status, _) = lab.http("POST", &format!("/api/v1/calls/{id}/end"), &token, "{}").await;
    assert_eq!(status, 202);
    lab.closed(1).await;
    lab.close().await;
    life.cancel();
    following.await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_to_be_said_outlives_the_medium() {
    for (medium, format) in [(AriMedium::Rtp, "g722"), (AriMedium::Audiosocket, "slin16")] {
        let pbx = pbx(Settings::default()).await;
        let wanted = setup(&pbx, medium, format).script(&answer("tone:440", 20_000));
        let lab = Lab::open(PORTS, wanted).await;
        pbx.until_app("tandem").await;
        let caller = pbx.call("tandem", "100", "+15550100");
        assert!(caller.answered().await);
        let words = async || {
            let pcm = caller.hear(ms(400)).await;
            let heard = measure::tone(&pcm, caller.person().tape().rate)?;
            ((heard.hz - 440.0).abs() < 5.0 && heard.purity > 0.9).then_some(())
        };
        within(60, "the assistant speaks", &words).await;
        let is_medium = |id: &str| id.contains("-media-");
        let first = pbx.until_channel(is_medium).await;
        pbx.party(&first).expect("the medium").hang_up();
        pbx.until_channel(|id| is_medium(id) && id != first).await;
        // It has been given all of it: what is heard now is what waited.
        within(60, "the assistant goes on", &words).await;
        caller.hang_up();
        let (call, _) = lab.record().await;
        assert_eq!(call.disposition, Some(Disposition::Completed), "{medium:?}");
        clean(&pbx).await;
        lab.close().await;
    }
}
