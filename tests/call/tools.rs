//! What the model may do on a call, and what it is told when it errs. Keys in both directions.

use tandem::event::Disposition;
use tandem::simulate::openai::record::Record;
use tandem::simulate::phone::Act;

use super::PORTS;
use super::support::{Lab, PATIENCE, Setup, acts, data_of, listen};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_assistant_hangs_up_once_its_goodbye_was_heard() {
    let script = "speech = \"tone:600\"\n[[turn]]\nsay = \"Goodbye.\"\nduration_ms = 1500\n\
                  tool = { name = \"end_call\", arguments = { reason = \"all is said\" } }\n";
    let lab = Lab::open(PORTS, Setup::default().script(script)).await;
    let report = lab.call("100", vec![Act::Wait(PATIENCE)]).await;
    assert!(report.hang_up.is_some(), "the server says BYE");
    let heard = report.heard.chunks(24).filter(|chunk| super::waveform::rms(chunk) > 1000.0).count();
    assert!((1490..=1515).contains(&heard), "{heard} ms of 1500 were heard");
    let (call, events) = lab.record().await;
    assert_eq!(
        (call.disposition, call.ended_by.as_deref()),
        (Some(Disposition::Completed), Some("assistant"))
    );
    assert_eq!(call.reason.as_deref(), Some("all is said"));
    assert_eq!(
        data_of(&events, "transcript.final").last().map(|line| line["heard"].clone()),
        Some("full".into())
    );
    let tool = &data_of(&events, "tool.finished")[0];
    assert_eq!((tool["name"].as_str(), tool["ok"].as_bool()), (Some("end_call"), Some(true)));
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_the_assistant_presses_are_heard_at_the_phone() {
    let script = "speech = \"tone:600\"\n[[turn]]\ntool = { name = \"send_dtmf\", arguments = { digits = \"12*#0d\" } }\n\
                  [[turn]]\nsay = \"Done.\"\nduration_ms = 500\n";
    let lab = Lab::open(PORTS, Setup::default().script(script)).await;
    let report = lab.call("100", acts([&listen(), &[Act::HangUp]])).await;
    assert_eq!(report.digits, "12*#0D");
    let (_, events) = lab.record().await;
    let started = &data_of(&events, "tool.started")[0];
    assert_eq!(started["args"]["digits"], "******", "digits may be secret");
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_is_unknown_or_misused_is_refused_in_words_and_the_talk_goes_on() {
    let script = "speech = \"tone:600\"\n[[turn]]\ntools = [{ name = \"fly\", arguments = { to = \"moon\" } }, \
                  { name = \"send_dtmf\", arguments = \"not json\" }]\n\
                  [[turn]]\nsay = \"I cannot do that.\"\nduration_ms = 500\n";
    let lab = Lab::open(PORTS, Setup::default().script(script)).await;
    let report = lab.call("100", acts([&listen(), &[Act::HangUp]])).await;
    assert_eq!((report.hang_up, report.digits.as_str()), (None, ""));
    let (_, events) = lab.record().await;
    let finished = data_of(&events, "tool.finished");
    let outcomes: Vec<_> =
        finished.iter().map(|tool| (tool["name"].as_str(), tool["ok"].as_bool())).collect();
    assert_eq!(outcomes, [(Some("fly"), Some(false)), (Some("send_dtmf"), Some(false))]);
    assert_eq!(
        data_of(&events, "transcript.final").last().map(|line| line["text"].clone()),
        Some("I cannot do that.".into())
    );
    let service = lab.close_without_violations().await;
    let answered = service.entries.iter().filter(|entry| matches!(entry.record, Record::ToolAnswered { .. }));
    assert_eq!(answered.count(), 2, "every tool call is answered");
    let asked = service.entries.iter().filter(|entry| matches!(entry.record, Record::ResponseStarted { .. }));
    assert_eq!(asked.count(), 2, "both answers are given before the model goes on, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_the_caller_presses_reach_the_assistant_and_the_record() {
    let script = "speech = \"tone:600\"\n[[turn]]\nsay = \"Extension one two.\"\nduration_ms = 500\n";
    let lab = Lab::open(PORTS, Setup::default().script(script)).await;
    let (by_rtp, by_info) = (Act::Press("12#".to_owned()), Act::PressByInfo("4*".to_owned()));
    let acts = acts([&listen(), &[by_rtp], &listen(), &[by_info], &listen(), &[Act::HangUp]]);
    lab.call("100", acts).await;
    let (_, events) = lab.record().await;
    let keys: Vec<_> = data_of(&events, "dtmf.received");
    let keys: Vec<_> = keys.iter().map(|key| (key["digit"].as_str(), key["method"].as_str())).collect();
    let of = |digit, method| (Some(digit), Some(method));
    assert_eq!(keys, [of("1", "rtp"), of("2", "rtp"), of("#", "rtp"), of("4", "info"), of("*", "info")]);
    let service = lab.close_without_violations().await;
    let asked = service.entries.iter().filter(|entry| matches!(entry.record, Record::ResponseStarted { .. }));
    assert_eq!(asked.count(), 3, "keys pressed together are told together");
}
