//! Whole calls with Ultravox: what the caller hears, what is written down, and that the service, which is
//! strict, has nothing to complain of.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tandem::config::{ProviderSection, Ultravox};
use tandem::event::Disposition;
use tandem::simulate::phone::Act;
use tandem::simulate::script::Script;
use tandem::simulate::ultravox::record::{Record, Report};
use tandem::simulate::ultravox::{Running, SimConfig, UltravoxSimulator};

use super::PORTS;
use super::clock::{in_real_time, lateness, watch};
use super::support::{Lab, PATIENCE, Setup, acts, data_of, kinds, listen, ms, utterance};

/// 110 is an assistant on Ultravox with a greeting, 111 one without.
const RESOURCES: &str = r#"
[[assistant]]
organization = "acme"
name = "vox"
chain = ["ultravox"]
instructions = "You answer the phone for Acme."
greeting = "Good morning, this is Acme."
tools = ["end_call", "send_dtmf", "set_language"]

[[assistant]]
organization = "acme"
name = "vox-silent"
chain = ["ultravox"]

[[assistant]]
organization = "acme"
name = "vox-first"
chain = ["ultravox", "openai"]

[[assistant]]
organization = "acme"
name = "vox-second"
chain = ["openai", "ultravox"]
instructions = "You answer the phone for Acme."

[[number]]
organization = "acme"
number = "112"
flow = [{ step = "assistant", assistant = "vox-first" }]

[[number]]
organization = "acme"
number = "113"
flow = [{ step = "assistant", assistant = "vox-second" }]

[[number]]
organization = "acme"
number = "110"
flow = [{ step = "assistant", assistant = "vox" }]

[[number]]
organization = "acme"
number = "111"
flow = [{ step = "assistant", assistant = "vox-silent" }]
"#;

/// Server, Ultravox and phone.
struct Vox {
    lab: Lab,
    service: Running,
    opened: Instant,
}

impl Vox {
    async fn open(
        script: &str,
        faults: &[&str],
        change: impl FnOnce(&mut Ultravox) + Send + 'static,
    ) -> Self {
        Self::beside(Setup::default(), script, faults, change).await
    }

    /// Beside an OpenAI service of that kind.
    async fn beside(
        setup: Setup,
        script: &str,
        faults: &[&str],
        change: impl FnOnce(&mut Ultravox) + Send + 'static,
    ) -> Self {
        watch();
        let mut config = SimConfig { api_keys: vec!["uv.key".to_owned()], ..SimConfig::default() };
        config.behaviour.script = Script::parse(script).expect("the test's own script");
        config.faults = faults.iter().map(|fault| fault.parse().expect("the test's own fault")).collect();
        let service = UltravoxSimulator::start(config).await.expect("the simulator starts");
        let mut section =
            Ultravox { url: service.url(), api_keys: vec!["uv.key".into()], ..Ultravox::default() };
        change(&mut section);
        let setup = Setup { resources: RESOURCES.to_owned(), ..setup };
        let setup = setup.configure(move |config| {
            config.providers.insert("ultravox".to_owned(), ProviderSection::Ultravox(section));
        });
        Self { lab: Lab::open(PORTS, setup).await, service, opened: Instant::now() }
    }

    /// Stops everything. The service saw no mistake of ours.
    async fn close(self) -> Report {
        self.lab.close_without_violations().await;
        let report = self.service.stop().await.expect("the report is complete");
        let late = lateness(self.opened, Instant::now());
        // A server that was kept from its work sends too little for a while, and then too much: no mistake of its own.
        let pace = ["audio_too_fast", "audio_too_slow"];
        let excused = |record: &Record| {
            !late.is_zero()
                && matches!(record, Record::Violation { code, .. } if pace.contains(&code.as_str()))
        };
        let violations = report.violations().map(|entry| &entry.record).filter(|record| !excused(record));
        let violations: Vec<_> = violations.collect();
        assert!(violations.is_empty(), "{late:?}: {violations:#?}");
        report
    }
}

fn lines(events: &[tandem::store::Committed]) -> Vec<(String, String)> {
    let field = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    data_of(events, "transcript.final").iter().map(|line| (field(line, "who"), field(line, "text"))).collect()
}

fn line(who: &str, text: &str) -> (String, String) {
    (who.to_owned(), text.to_owned())
}

const TABLE: &str = "speech = \"tone:600\"\nhears = [\"I need a table.\"]\n\
                     [[turn]]\nsay = \"For how many?\"\nduration_ms = 1200\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_heard_written_down_and_billed() {
    let rates = [(24_000, 24_000, 30_000), (8_000, 48_000, 60), (16_000, 8_000, 30_000)];
    join_all(rates.map(async |(input, output, buffer)| {
        let change = move |section: &mut Ultravox| {
            section.input_sample_rate = input;
            section.output_sample_rate = output;
            section.client_buffer_ms = buffer;
        };
        let vox = Vox::open(TABLE, &[], change).await;
        let report =
            vox.lab.call("110", acts([&listen(), &[utterance(500)], &listen(), &[Act::HangUp]])).await;
        let (call, events) = vox.lab.record().await;
        assert_eq!(call.disposition, Some(Disposition::Completed), "{input} Hz: {:?}", kinds(&events));
        assert_eq!(
            lines(&events),
            [
                line("assistant", "Good morning, this is Acme."),
                line("caller", "I need a table."),
                line("assistant", "For how many?"),
            ],
            "{input} Hz"
        );
        let heard = report.heard.chunks(24).filter(|chunk| super::waveform::rms(chunk) > 1000.0).count();
        assert!(heard > 1200, "{heard} ms were heard");
        assert_eq!(data_of(&events, "provider.connected")[0]["provider"], "ultravox");
        let service = vox.close().await;
        let ended: Vec<_> = service
            .entries
            .iter()
            .filter_map(
                |entry| if let Record::Ended { reason, .. } = &entry.record { Some(reason) } else { None },
            )
            .collect();
        assert_eq!(ended, ["hangup"]);
        let whole = service.entries.iter().filter(
            |entry| matches!(&entry.record, Record::SpeakingDone { interrupted: false, text, .. } if !text.is_empty()),
        );
        assert_eq!(whole.count(), 2);
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assistant_without_a_greeting_finds_its_own_first_words() {
    let vox = Vox::open(TABLE, &[], |_| ()).await;
    vox.lab.call("111", acts([&listen(), &[Act::HangUp]])).await;
    let (_, events) = vox.lab.record().await;
    assert_eq!(lines(&events), [line("assistant", "For how many?")]);
    vox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caller_interrupts_and_the_service_agrees_on_what_was_heard() {
    in_real_time(interrupted).await;
}

async fn interrupted() {
    let script = "speech = \"tone:600\"\nhears = [\"Stop please.\"]\n\
                  [[turn]]\nsay = \"One two three four five six seven eight nine ten eleven twelve.\"\nduration_ms = 9000\n\
                  [[turn]]\nsay = \"I am listening.\"\nduration_ms = 800\n";
    let vox = Vox::open(script, &[], |_| ()).await;
    let talk = [Act::WaitForSpeech(ms(200)), Act::Wait(ms(2500)), utterance(700)];
    let report = vox.lab.call("111", acts([&talk, &listen(), &[Act::Wait(ms(600)), Act::HangUp]])).await;
    let (_, events) = vox.lab.record().await;
    let told = data_of(&events, "transcript.final");
    assert_eq!(told[0]["heard"], "cut", "{told:#?}");
    let heard_text = told[0]["heard_text"].as_str().unwrap_or_default();
    assert!(heard_text.starts_with("One") && !heard_text.contains("eleven"), "{told:#?}");
    assert_eq!(told[1]["text"], "Stop please.", "{told:#?}");
    assert_eq!(told[2]["text"], "I am listening.", "{told:#?}");
    let barge_in = &data_of(&events, "barge_in")[0];
    let played_ms = barge_in["played_ms"].as_u64().unwrap_or_default();
    assert!((1500..6000).contains(&played_ms), "{barge_in}");
    assert!(report.hang_up.is_none());
    let service = vox.close().await;
    let (text, its_ms) = service
        .entries
        .iter()
        .find_map(|entry| match &entry.record {
            Record::SpeakingDone { interrupted: true, text, played_ms, .. } => {
                Some((text.clone(), *played_ms))
            }
            _ => None,
        })
        .expect("the service was interrupted");
    assert_eq!(heard_text, text.trim(), "what the service says was heard");
    assert!(its_ms.abs_diff(played_ms) < 600, "it thinks {its_ms} ms were played of which {played_ms} were");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_are_run_and_answered_in_the_services_words() {
    let script = "speech = \"tone:600\"\n\
        [[turn]]\nsay = \"One moment.\"\nduration_ms = 500\ntool = { name = \"send_dtmf\", arguments = { digits = \"12#\" } }\n\
        [[turn]]\ntool = { name = \"set_language\", arguments = { language = \"de\" } }\n\
        [[turn]]\ntool = { name = \"fly\", arguments = { to = \"moon\" } }\n\
        [[turn]]\nsay = \"Goodbye.\"\nduration_ms = 700\ntool = { name = \"end_call\", arguments = { reason = \"all is said\" } }\n";
    let vox = Vox::open(script, &[], |_| ()).await;
    let report = vox.lab.call("110", acts([&listen(), &[utterance(500)], &[Act::Wait(PATIENCE)]])).await;
    assert!(report.hang_up.is_some(), "the server says BYE");
    assert_eq!(report.digits, "12#");
    let (call, events) = vox.lab.record().await;
    assert_eq!(call.reason.as_deref(), Some("all is said"));
    let finished = data_of(&events, "tool.finished");
    let outcomes: Vec<_> =
        finished.iter().map(|tool| (tool["name"].as_str().unwrap(), tool["ok"].as_bool().unwrap())).collect();
    assert_eq!(outcomes, [("send_dtmf", true), ("set_language", true), ("fly", false), ("end_call", true)]);
    let service = vox.close().await;
    let stages: Vec<_> = service
        .entries
        .iter()
        .filter_map(
            |entry| if let Record::StageChanged { settings } = &entry.record { Some(settings) } else { None },
        )
        .collect();
    assert_eq!(stages.len(), 1);
    assert_eq!(stages[0]["languageHint"], "de");
    let errors: Vec<_> = service
        .entries
        .iter()
        .filter_map(|entry| match &entry.record {
            Record::ToolAnswered { result, error: true, .. } => Some(result.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(errors, ["undefined"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_the_caller_presses_interrupt_and_are_answered() {
    let script = "speech = \"tone:600\"\n[[turn]]\nsay = \"Press a key at any time, or wait for a very long while.\"\nduration_ms = 8000\n\
                  [[turn]]\nsay = \"Extension one two.\"\nduration_ms = 500\n";
    let vox = Vox::open(script, &[], |_| ()).await;
    let press = [Act::WaitForSpeech(ms(200)), Act::Wait(ms(500)), Act::Press("12#".to_owned())];
    vox.lab.call("111", acts([&press, &[Act::Wait(ms(2500))], &listen(), &[Act::HangUp]])).await;
    let (_, events) = vox.lab.record().await;
    let told = data_of(&events, "transcript.final");
    assert_eq!(told.len(), 2, "the keys are nobody's words: {told:#?}");
    assert_eq!(
        (told[0]["heard"].as_str(), told[1]["text"].as_str()),
        (Some("cut"), Some("Extension one two."))
    );
    let service = vox.close().await;
    let texts = service.entries.iter().filter_map(|entry| match &entry.record {
        Record::TextReceived { text, urgency } => Some((text.clone(), *urgency)),
        _ => None,
    });
    let keys: Vec<_> = texts.filter(|(text, _)| text.contains("12#")).collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].1, "immediate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_odd_service_does_not_disturb_a_call() {
    let faults = ["unknown-events", "invalid-json", "giant-delta", "slow-start:1.5", "slow-handshake:1"];
    join_all(faults.map(async |fault| {
        let vox = Vox::open(TABLE, &[fault], |_| ()).await;
        vox.lab.call("110", acts([&listen(), &[utterance(500)], &listen(), &[Act::HangUp]])).await;
        let (call, events) = vox.lab.record().await;
        assert_eq!(call.disposition, Some(Disposition::Completed), "{fault}: {:?}", kinds(&events));
        assert_eq!(lines(&events).last(), Some(&line("assistant", "For how many?")), "{fault}");
        vox.close().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_not_there_fails_in_time() {
    for fault in ["refuse:503", "refuse:429:5", "invalid-api-key", "no-handshake", "no-join", "unjoinable"] {
        let quick = |section: &mut Ultravox| section.connect_timeout = Duration::from_secs(1);
        let vox = Vox::open(TABLE, &[fault], quick).await;
        let began = Instant::now();
        vox.lab.call("110", vec![Act::Wait(PATIENCE)]).await;
        let (call, events) = vox.lab.record().await;
        assert_eq!(call.disposition, Some(Disposition::Failed), "{fault}: {:?}", kinds(&events));
        assert!(began.elapsed() < Duration::from_secs(12), "{fault} took {:?}", began.elapsed());
        let lost = data_of(&events, "provider.lost");
        let why = lost[0]["reason"].as_str().unwrap_or_default();
        assert!(why.contains("ultravox") && !why.contains("uv.key"), "{fault}: {why}");
        vox.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_hangs_up_ends_the_call_once_it_was_heard() {
    let vox = Vox::open(TABLE, &["hang-up:1"], |_| ()).await;
    let report = vox.lab.call("110", vec![Act::Wait(PATIENCE)]).await;
    assert!(report.hang_up.is_some(), "the server says BYE");
    let heard = report.heard.chunks(24).filter(|chunk| super::waveform::rms(chunk) > 300.0).count();
    assert!(heard > 500, "{heard} ms were heard");
    let (call, events) = vox.lab.record().await;
    assert_eq!(call.reason.as_deref(), Some("the assistant hung up"), "{:?}", kinds(&events));
    assert_eq!(lines(&events), [line("assistant", "Good morning, this is Acme.")]);
    assert!(data_of(&events, "provider.lost").is_empty());
    vox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_provider_goes_on_when_ultravox_is_lost() {
    // A session whose time is over is followed by a fresh one of the same service.
    let cases =
        [("die:3", "openai"), ("close:3", "openai"), ("expire:3", "ultravox"), ("refuse:503", "openai")];
    join_all(cases.map(async |(fault, next)| {
        let vox = Vox::open(TABLE, &[fault], |_| ()).await;
        let acts = acts([&listen(), &[Act::Wait(ms(3000)), utterance(500)], &listen(), &[Act::HangUp]]);
        let report = vox.lab.call("112", acts).await;
        assert!(report.hang_up.is_none(), "{fault}: the call goes on until the caller hangs up");
        let (call, events) = vox.lab.record().await;
        assert_eq!(call.disposition, Some(Disposition::Completed), "{fault}: {:?}", kinds(&events));
        let connected = data_of(&events, "provider.connected");
        assert_eq!(connected.last().map(|event| event["provider"].clone()), Some(next.into()), "{fault}");
        vox.close().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ultravox_goes_on_where_another_provider_is_lost() {
    let setup = Setup::default().fault("die:4");
    let vox = Vox::beside(setup, TABLE, &[], |_| ()).await;
    let acts = acts([&listen(), &[Act::Wait(ms(3000)), utterance(500)], &listen(), &[Act::HangUp]]);
    vox.lab.call("113", acts).await;
    let (call, events) = vox.lab.record().await;
    assert_eq!(call.disposition, Some(Disposition::Completed), "{:?}", kinds(&events));
    assert_eq!(lines(&events).last(), Some(&line("assistant", "For how many?")));
    let service = vox.close().await;
    let request = service.entries.iter().find_map(|entry| match &entry.record {
        Record::Created { request, .. } => Some(request.clone()),
        _ => None,
    });
    let history = request.expect("a call was made")["initialMessages"].clone();
    assert_eq!(history[0]["role"], "MESSAGE_ROLE_AGENT", "{history}");
}
