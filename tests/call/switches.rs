//! An assistant's manners on whole calls: who speaks first, what is said into silence, how it is interrupted, and
//! what the service is told.

use tandem::event::Disposition;
use tandem::simulate::openai::record::Record;
use tandem::simulate::openai::report::Report;
use tandem::simulate::phone::Act;

use super::PORTS;
use super::support::{
    Lab, PATIENCE, Setup, acts, data_of, kinds, listen, ms, say, tone, truncations, utterance,
};
use super::waveform::rms;

/// One line, whatever it is asked.
fn script(duration_ms: u32) -> String {
    format!("speech = \"tone:600\"\n[[turn]]\nsay = \"Good morning to you.\"\nduration_ms = {duration_ms}\n")
}

fn asked(report: &Report) -> usize {
    report.entries.iter().filter(|entry| matches!(entry.record, Record::ResponseStarted { .. })).count()
}

/// Milliseconds of sound in what the phone heard.
fn sound(heard: &[i16]) -> usize {
    heard.chunks(24).filter(|chunk| rms(chunk) > 1000.0).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_caller_is_asked_twice_and_let_go() {
    let assistant = "silence = { after = 1.2, prompts = [\"Are you still there?\", \"Hello?\"] }";
    let lab = Lab::open(PORTS, Setup { assistant, ..Setup::default() }.script(&script(400))).await;
    let report = lab.call("100", vec![Act::Wait(PATIENCE)]).await;
    assert!(report.hang_up.is_some(), "the server says BYE");
    let (call, events) = lab.record().await;
    assert_eq!(call.reason.as_deref(), Some("the caller said nothing any more"));
    assert_eq!(call.disposition, Some(Disposition::Completed));
    assert_eq!(data_of(&events, "transcript.final").len(), 4);
    // Four lines, and 1.2 s after each of the first three.
    let spoken = call.billable_ms.expect("answered");
    assert!((4 * 400 + 3 * 1200..4 * 400 + 3 * 1200 + 2500).contains(&spoken), "{spoken} ms");
    let service = lab.close_without_violations().await;
    assert_eq!(asked(&service), 4, "the greeting, two questions and the last words");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_speaks_is_not_silent_and_silence_may_lead_on_with_the_flow() {
    let resources = "[[assistant]]\norganization = \"acme\"\nname = \"patient\"\nchain = [\"openai\"]\n\
                     silence = { after = 1.5, prompts = [\"Hello?\"], then = \"continue\" }\n\
                     [[number]]\norganization = \"acme\"\nnumber = \"700\"\nflow = [\n\
                     { step = \"assistant\", assistant = \"patient\" }, { step = \"wait\", seconds = 0.2 } ]\n";
    let lab =
        Lab::open(PORTS, Setup { resources: resources.to_owned(), ..Setup::default() }.script(&script(400)))
            .await;
    let spoken = [Act::Wait(ms(700)), utterance(400)];
    let report =
        lab.call("700", acts([&listen(), &spoken, &listen(), &spoken, &[Act::Wait(PATIENCE)]])).await;
    assert!(report.hang_up.is_some());
    let (call, events) = lab.record().await;
    assert_eq!(call.reason.as_deref(), Some("the flow has ended"), "{:?}", kinds(&events));
    let lines = data_of(&events, "transcript.final");
    assert_eq!(lines.iter().filter(|line| line["who"] == "assistant").count(), 4, "{lines:?}");
    let service = lab.close_without_violations().await;
    assert_eq!(asked(&service), 4, "the greeting, two answers, one question");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assistant_that_lets_the_caller_begin_says_nothing_until_then() {
    for (delay, expected) in [("", 0), (", delay = 0.8", 1)] {
        let assistant = format!("first_speaker = {{ who = \"caller\"{delay} }}");
        let setup = Setup { assistant: assistant.leak(), ..Setup::default() };
        let lab = Lab::open(PORTS, setup.script(&script(500))).await;
        let report = lab.call("100", vec![Act::Wait(ms(2500)), Act::HangUp]).await;
        let heard = sound(&report.heard);
        assert!((expected * 490..=expected * 520).contains(&heard), "{heard} ms for {delay:?}");
        let service = lab.close_without_violations().await;
        assert_eq!(asked(&service), expected, "{delay:?}");
    }
    let assistant = "first_speaker = { who = \"caller\", delay = 6 }";
    let lab = Lab::open(PORTS, Setup { assistant, ..Setup::default() }.script(&script(500))).await;
    lab.call("100", acts([&[Act::Wait(ms(300)), utterance(400)], &listen(), &[Act::HangUp]])).await;
    let service = lab.close_without_violations().await;
    assert_eq!(asked(&service), 1, "the answer; the greeting has no place any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_from_a_file_is_heard_recorded_and_known_to_the_service() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("hello.wav");
    std::fs::write(&file, wav(&tone(440.0, 8000.0, 1200))).expect("written");
    let assistant = format!("greeting_file = \"{}\"", file.display());
    let setup = Setup { assistant: assistant.leak(), ..Setup::default() }.greeting("Acme, good day!");
    let lab = Lab::open(PORTS, setup.script(&script(500))).await;
    let report = lab.call("100", acts([&listen(), &[Act::HangUp]])).await;
    let heard = sound(&report.heard);
    assert!((1190..=1215).contains(&heard), "{heard} ms of 1200");
    let (_, events) = lab.record().await;
    let lines = data_of(&events, "transcript.final");
    assert_eq!((lines.len(), lines[0]["text"].as_str()), (1, Some("Acme, good day!")));
    assert_eq!((lines[0]["who"].as_str(), lines[0]["heard"].as_str()), (Some("assistant"), Some("full")));
    let service = lab.close_without_violations().await;
    assert_eq!(asked(&service), 0, "nobody had to generate it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_that_cannot_be_read_is_spoken() {
    let setup = Setup { assistant: "greeting_file = \"/no/such/file.wav\"", ..Setup::default() };
    let lab = Lab::open(PORTS, setup.greeting("Good day.").script(&script(500))).await;
    let report = lab.call("100", acts([&listen(), &[Act::HangUp]])).await;
    assert!(sound(&report.heard) >= 490);
    let service = lab.close_without_violations().await;
    assert_eq!(asked(&service), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_duration_ends_with_the_assistants_own_words() {
    let setup = Setup { assistant: "max_duration_s = 1\nclosing = \"Until tomorrow.\"", ..Setup::default() };
    let lab = Lab::open(PORTS, setup.script(&script(400))).await;
    let report = lab.call("100", vec![Act::Wait(PATIENCE)]).await;
    assert!(report.hang_up.is_some());
    let (call, _) = lab.record().await;
    assert_eq!(call.reason.as_deref(), Some("the longest duration was reached"));
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_service_is_to_do_is_in_its_configuration() {
    let assistant = "noise_reduction = \"far_field\"\nspeed = 1.1\nmax_output_tokens = 300\n\
                     turn_detection = { kind = \"server_vad\", threshold = 0.6, idle_timeout_ms = 9000, \
                     create_response = false, interrupt_response = false }";
    let lab = Lab::open(PORTS, Setup { assistant, ..Setup::default() }.script(&script(400))).await;
    lab.call("100", acts([&listen(), &[utterance(400), Act::Wait(ms(1500)), Act::HangUp]])).await;
    let service = lab.close_without_violations().await;
    assert_eq!(asked(&service), 1, "the greeting; it does not answer by itself");
    let session = configured(&service);
    assert_eq!(session["audio"]["input"]["noise_reduction"]["type"], "far_field");
    assert_eq!(session["audio"]["output"]["speed"], 1.1);
    assert_eq!(session["max_output_tokens"], 300);
    let turns = &session["audio"]["input"]["turn_detection"];
    assert_eq!((turns["threshold"].as_f64(), turns["idle_timeout_ms"].as_u64()), (Some(0.6), Some(9000)));
    assert_eq!((&turns["create_response"], &turns["interrupt_response"]), (&false.into(), &false.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cough_holds_the_assistant_back_and_nothing_of_its_words_is_lost() {
    // The service is told to be hard of hearing: it does not notice the cough at all.
    let assistant = "barge_in = { mode = \"local\", min_ms = 60, confirm_ms = 600 }\n\
                     turn_detection = { kind = \"server_vad\", threshold = 1.0 }";
    let lab = Lab::open(PORTS, Setup { assistant, ..Setup::default() }.script(&script(2500))).await;
    let cough = say(tone(500.0, 350.0, 140));
    let report =
        lab.call("100", acts([&[Act::WaitForSpeech(ms(800)), cough], &listen(), &[Act::HangUp]])).await;
    let heard = sound(&report.heard);
    assert!((2470..=2520).contains(&heard), "{heard} ms of 2500 were heard");
    let gap = longest_gap(&report.heard);
    assert!((150..800).contains(&gap), "held back for {gap} ms");
    let (_, events) = lab.record().await;
    let lines = data_of(&events, "transcript.final");
    assert_eq!((lines.len(), lines[0]["heard"].as_str()), (1, Some("full")), "{lines:?}");
    assert!(data_of(&events, "barge_in").is_empty());
    let service = lab.close_without_violations().await;
    assert!(truncations(&service).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speech_that_only_we_hear_stops_the_assistant_and_is_answered() {
    let assistant = "barge_in = { mode = \"local\", min_ms = 60, confirm_ms = 300 }\n\
                     turn_detection = { kind = \"server_vad\", threshold = 1.0 }";
    let lab = Lab::open(PORTS, Setup { assistant, ..Setup::default() }.script(&script(6000))).await;
    let quiet = say(tone(500.0, 350.0, 900));
    let acts = acts([&[Act::WaitForSpeech(ms(800)), quiet, Act::WaitForSpeech(ms(500)), Act::HangUp]]);
    let report = lab.call("100", acts).await;
    assert!(report.hang_up.is_none());
    let (_, events) = lab.record().await;
    let barged = data_of(&events, "barge_in");
    assert_eq!(barged.len(), 1, "{:?}", kinds(&events));
    let played = barged[0]["played_ms"].as_u64().expect("milliseconds");
    assert!((800..1600).contains(&played), "{played} ms were heard before it was held back");
    let service = lab.close_without_violations().await;
    assert_eq!(asked(&service), 2, "the service had not heard it and was told to go on");
    assert_eq!(truncations(&service).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_barge_in_off_the_assistant_finishes_what_it_says() {
    let setup = Setup { assistant: "barge_in = { mode = \"off\" }", ..Setup::default() };
    let lab = Lab::open(PORTS, setup.script(&script(2500))).await;
    let report = lab
        .call("100", acts([&[Act::WaitForSpeech(ms(500)), utterance(600)], &listen(), &[Act::HangUp]]))
        .await;
    assert!(sound(&report.heard) >= 2490, "{} ms", sound(&report.heard));
    let (_, events) = lab.record().await;
    assert!(data_of(&events, "barge_in").is_empty());
    assert_eq!(data_of(&events, "transcript.final")[0]["heard"], "full");
    let service = lab.close_without_violations().await;
    assert_eq!(configured(&service)["audio"]["input"]["turn_detection"]["interrupt_response"], false);
    assert!(truncations(&service).is_empty());
}

fn configured(report: &Report) -> serde_json::Value {
    let shown = report.entries.iter().find_map(|entry| match &entry.record {
        Record::Configured { session, .. } => Some(session.clone()),
        _ => None,
    });
    shown.expect("the session was configured")
}

/// The longest silence between two sounds, in milliseconds.
fn longest_gap(heard: &[i16]) -> usize {
    let loud: Vec<usize> =
        heard.chunks(24).enumerate().filter(|(_, chunk)| rms(chunk) > 1000.0).map(|(at, _)| at).collect();
    loud.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// A WAV file, 24 kHz mono.
fn wav(pcm: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let length = u32::try_from(data.len()).expect("a short file");
    let mut file = b"RIFF".to_vec();
    file.extend((36 + length).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    file.extend([1u16, 1].map(u16::to_le_bytes).concat());
    file.extend([24_000u32, 48_000].map(u32::to_le_bytes).concat());
    file.extend([2u16, 16].map(u16::to_le_bytes).concat());
    file.extend(b"data");
    file.extend(length.to_le_bytes());
    file.extend(data);
    file
}
