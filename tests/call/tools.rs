//! What the model may do on a call, and what it is told when it errs. Keys in both directions.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tandem::event::Disposition;
use tandem::simulate::openai::record::Record;
use tandem::simulate::openai::report::Report;
use tandem::simulate::phone::Act;
use tandem::store::Committed;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::PORTS;
use super::clock::in_real_time;
use super::support::{Lab, PATIENCE, Setup, acts, data_of, http_with, listen, ms, utterance, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_assistant_hangs_up_once_its_goodbye_was_heard() {
    let script = "speech = \"tone:600\"\n[[turn]]\nsay = \"Goodbye.\"\nduration_ms = 1500\n\
                  tool = { name = \"end_call\", arguments = { reason = \"all is said\" } }\n";
    let lab = in_real_time(async || {
        let lab = Lab::open(PORTS, Setup::default().script(script)).await;
        let report = lab.call("100", vec![Act::Wait(PATIENCE)]).await;
        assert!(report.hang_up.is_some(), "the server says BYE");
        let heard = report.heard.chunks(24).filter(|chunk| super::waveform::rms(chunk) > 1000.0).count();
        assert!((1490..=1515).contains(&heard), "{heard} ms of 1500 were heard");
        lab
    })
    .await;
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

/// An assistant `150` with these tools, and more lines of its resource.
fn helper(tools: &str, more: &str) -> String {
    format!(
        "\n[[assistant]]\norganization = \"acme\"\nname = \"helper\"\nchain = [\"openai\"]\ntools = [{tools}]\n{more}\n\
         [[number]]\norganization = \"acme\"\nnumber = \"150\"\n\
         flow = [{{ step = \"assistant\", assistant = \"helper\" }}]\n"
    )
}

fn setup(script: &str, tools: &str, more: &str) -> Setup {
    let mut setup = Setup::default().script(&format!("speech = \"tone:600\"\n{script}"));
    setup.resources.push_str(&helper(tools, more));
    setup.configure(lets_loopback)
}

/// Tools may be on this machine.
fn lets_loopback(config: &mut tandem::config::Config) {
    config.tools.allow_networks = vec![tandem::config::Network("127.0.0.0/8".parse().expect("a network"))];
}

/// What the model was told by its tools, in order.
fn told(service: &Report) -> Vec<Value> {
    let answers = service.entries.iter().filter_map(|entry| match &entry.record {
        Record::ToolAnswered { output, .. } => {
            Some(serde_json::from_str(output).unwrap_or_else(|_| output.clone().into()))
        }
        _ => None,
    });
    answers.collect()
}

fn outcomes(events: &[Committed]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    data_of(events, "tool.finished")
        .iter()
        .map(|tool| (text(&tool["name"]), text(&tool["outcome"])))
        .collect()
}

fn outcome(name: &str, outcome: &str) -> (String, String) {
    (name.to_owned(), outcome.to_owned())
}

/// A request: head, body, and where its answer goes.
type Asked = (String, String, oneshot::Sender<(u16, String)>);

/// A web server of an organization: gives each request to the test, and answers what it is told.
struct Hook {
    address: SocketAddr,
    requests: mpsc::Receiver<Asked>,
}

impl Hook {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (tell, requests) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
                    let (head, body) = loop {
                        let count = stream.read(&mut buffer).await.unwrap_or(0);
                        if count == 0 {
                            return;
                        }
                        read.extend_from_slice(&buffer[..count]);
                        let text = String::from_utf8_lossy(&read).into_owned();
                        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                        let head = head.to_ascii_lowercase();
                        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                        if Some(body.len()) == length.map(|length| length.parse().expect("a length")) {
                            break (head, body.to_owned());
                        }
                    };
                    let (answer, answered) = oneshot::channel::<(u16, String)>();
                    if tell.send((head, body, answer)).await.is_err() {
                        return;
                    }
                    let Ok((status, body)) = answered.await else { return };
                    let response = format!(
                        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    // Whoever gave up is not told.
                    let _gone = stream.write_all(response.as_bytes()).await;
                });
            }
        });
        Self { address, requests }
    }

    async fn next(&mut self) -> (String, Value, oneshot::Sender<(u16, String)>) {
        let request = tokio::time::timeout(PATIENCE, self.requests.recv()).await;
        let (head, body, answer) = request.expect("in time").expect("the hook runs");
        (head, serde_json::from_str(&body).expect("JSON"), answer)
    }

    /// A tool that it answers.
    fn tool(&self, name: &str, more: &str) -> String {
        format!(
            "\n[[tool]]\norganization = \"acme\"\nname = \"{name}\"\ndescription = \"Finds an order.\"\n\
             url = \"http://{}/{name}\"\n{more}\n[tool.parameters]\ntype = \"object\"\nrequired = [\"order\"]\n\
             properties.order = {{ type = \"string\" }}\nproperties.pin = {{ type = \"string\", x-sensitive = true }}\n",
            self.address
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_asked_with_a_signature_and_the_record_has_its_arguments_masked() {
    let mut hook = Hook::open().await;
    let script = "[[turn]]\ntool = { name = \"find_order\", arguments = { order = \"A17\", pin = \"4711\" } }\n\
                  [[turn]]\nsay = \"It is on its way.\"\nduration_ms = 300\n";
    let mut setup = setup(script, "\"find_order\"", "");
    setup.resources.push_str(&hook.tool("find_order", "secret_env = \"PATH\""));
    let lab = Lab::open(PORTS, setup).await;
    let answer = async {
        let (head, body, answer) = hook.next().await;
        answer.send((200, json!({"state": "shipped"}).to_string())).expect("it waits");
        (head, body)
    };
    let (_, (head, body)) = tokio::join!(lab.call("150", acts([&listen(), &[Act::HangUp]])), answer);
    assert!(head.starts_with("post /find_order"), "{head}");
    let id = body["tool_call_id"].as_str().expect("an id").to_ascii_lowercase();
    assert!(head.contains(&format!("idempotency-key: {id}")), "{head}");
    assert!(head.contains("tandem-signature: t=") && head.contains(",v1="), "{head}");
    assert_eq!(body["arguments"], json!({"order": "A17", "pin": "4711"}), "the hook gets all of it");
    let (call, events) = lab.record().await;
    assert_eq!(
        (body["call"]["id"].as_str(), body["call"]["organization"].as_str()),
        (Some(call.id.to_string().as_str()), Some("acme"))
    );
    assert_eq!(body["call"]["from"].as_str(), Some(super::support::CALLER));
    assert_eq!(data_of(&events, "tool.started")[0]["args"], json!({"order": "A17", "pin": "****"}));
    assert_eq!(outcomes(&events), [outcome("find_order", "ok")]);
    let service = lab.close_without_violations().await;
    assert_eq!(told(&service), [json!({"state": "shipped"})]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caller_is_told_something_while_a_tool_takes_its_time() {
    let mut hook = Hook::open().await;
    let script = "[[turn]]\ntool = { name = \"find_order\", arguments = { order = \"A17\" } }\n\
                  [[turn]]\nsay = \"One moment please.\"\nduration_ms = 400\n\
                  [[turn]]\nsay = \"It is on its way.\"\nduration_ms = 300\n";
    let mut setup = setup(script, "\"find_order\"", "");
    setup.resources.push_str(&hook.tool("find_order", "speak = \"One moment please.\""));
    let lab = Lab::open(PORTS, setup).await;
    let heard = [Act::WaitForSpeech(ms(200)), Act::WaitForSilence(ms(2000))];
    let phone = lab.call("150", acts([&heard, &[Act::HangUp]]));
    let answer = async {
        let (_, _, answer) = hook.next().await;
        // Not before the caller was told.
        let said = |report: &Report| {
            report.entries.iter().filter(|e| matches!(e.record, Record::ResponseDone { .. })).count() >= 2
        };
        lab.service_until("it has said something", said).await;
        answer.send((200, "{}".to_owned())).expect("it waits");
    };
    tokio::join!(phone, answer);
    let (_, events) = lab.record().await;
    let lines: Vec<_> =
        data_of(&events, "transcript.final").iter().map(|line| line["text"].clone()).collect();
    assert_eq!(lines, ["One moment please.", "It is on its way."]);
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_fails_or_never_answers_leaves_the_talk_going() {
    let mut hook = Hook::open().await;
    let script = "[[turn]]\ntools = [{ name = \"find_order\", arguments = { order = \"1\" } }, \
                  { name = \"slow_order\", arguments = { order = \"2\" } }, { name = \"find_order\", arguments = { order = 3 } }, \
                  { name = \"gone_order\", arguments = { order = \"4\" } }]\n\
                  [[turn]]\nsay = \"I am sorry.\"\nduration_ms = 300\n";
    let mut setup = setup(script, "\"*_order\"", "");
    setup.resources.push_str(&hook.tool("find_order", ""));
    setup.resources.push_str(&hook.tool("slow_order", "timeout_s = 1"));
    let gone = Hook { address: "127.0.0.1:9".parse().expect("an address"), requests: mpsc::channel(1).1 };
    setup.resources.push_str(&gone.tool("gone_order", ""));
    let setup = Setup {
        resources: setup.resources.replace("\"*_order\"", "\"find_order\", \"slow_order\", \"gone_order\""),
        ..setup
    };
    let lab = Lab::open(PORTS, setup).await;
    let answers = async {
        let mut kept = Vec::new();
        for _ in 0..2 {
            let (head, _, answer) = hook.next().await;
            match head.starts_with("post /find") {
                true => answer.send((500, "a secret of the server".to_owned())).expect("it waits"),
                false => kept.push(answer),
            }
        }
        kept
    };
    let (_, _kept) = tokio::join!(lab.call("150", acts([&listen(), &[Act::HangUp]])), answers);
    let (_, events) = lab.record().await;
    let mut all = outcomes(&events);
    all.sort();
    assert_eq!(
        all,
        [
            outcome("find_order", "error"),
            outcome("find_order", "refused"),
            outcome("gone_order", "unreachable"),
            outcome("slow_order", "timeout")
        ]
    );
    let service = lab.close_without_violations().await;
    let told = told(&service).iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    assert!(told.contains("`order`") && told.contains("string"), "what to mend: {told}");
    assert!(!told.contains("secret"), "a failing server's words are not the model's: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_is_given_up_when_the_caller_speaks_if_it_allows_that_and_when_they_hang_up() {
    let mut hook = Hook::open().await;
    let script = "[[turn]]\ntools = [{ name = \"find_order\", arguments = { order = \"1\" } }, \
                  { name = \"slow_order\", arguments = { order = \"2\" } }]\n\
                  [[turn]]\nsay = \"Yes?\"\nduration_ms = 300\n";
    let mut setup = setup(script, "\"find_order\", \"slow_order\"", "");
    setup.resources.push_str(&hook.tool("find_order", "cancel_on_barge_in = true\ntimeout_s = 60"));
    setup.resources.push_str(&hook.tool("slow_order", "timeout_s = 60"));
    let lab = Lab::open(PORTS, setup).await;
    let asked = async { (hook.next().await, hook.next().await) };
    let phone = lab.call("150", acts([&[Act::Wait(ms(500)), utterance(800)], &listen(), &[Act::HangUp]]));
    let (_, _kept) = tokio::join!(phone, asked);
    let (_, events) = lab.record().await;
    assert_eq!(outcomes(&events), [outcome("find_order", "cancelled"), outcome("slow_order", "cancelled")]);
    let service = lab.close_without_violations().await;
    assert_eq!(told(&service).len(), 1, "nobody is left to be told of the second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_notes_and_a_language_are_kept_and_sent_on() {
    let script = "[[turn]]\ntools = [{ name = \"add_tag\", arguments = { tag = \"Refund\" } }, \
                  { name = \"add_note\", arguments = { text = \"Wants the money back.\" } }, \
                  { name = \"set_language\", arguments = { language = \"de-AT\" } }, \
                  { name = \"add_tag\", arguments = { tag = \"<b>\" } }]\n\
                  [[turn]]\nsay = \"Gerne.\"\nduration_ms = 300\n";
    let lab = Lab::open(PORTS, setup(script, "\"add_tag\", \"add_note\", \"set_language\"", "")).await;
    lab.call("150", acts([&listen(), &[Act::HangUp]])).await;
    let (call, _) = lab.record().await;
    let (_, shown) = lab.http("GET", &format!("/api/v1/calls/{}", call.id), &lab.token().await, "").await;
    assert_eq!((&shown["tags"], &shown["notes"]), (&json!(["refund"]), &json!(["Wants the money back."])));
    let service = lab.close_without_violations().await;
    let configured = service.entries.iter().filter_map(|entry| match &entry.record {
        Record::Configured { session, .. } => Some(session["audio"]["input"]["transcription"].clone()),
        _ => None,
    });
    let languages: Vec<_> = configured.map(|transcription| transcription["language"].clone()).collect();
    assert_eq!(languages, [Value::Null, "de".into()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_collected_for_a_tool_reach_the_model_and_nobody_else() {
    let script = "[[turn]]\ntool = { name = \"collect_digits\", arguments = { terminator = \"#\" } }\n\
                  [[turn]]\nsay = \"Thank you.\"\nduration_ms = 300\n";
    let lab = Lab::open(PORTS, setup(script, "\"collect_digits\"", "")).await;
    let pressed = [Act::Wait(ms(700)), Act::Press("4711#".to_owned())];
    // Somebody who thinks that the entry goes on.
    let late = [Act::Press("9".to_owned()), Act::Wait(ms(300)), Act::HangUp];
    lab.call("150", acts([&pressed, &listen(), &late])).await;
    let (_, events) = lab.record().await;
    let keys: Vec<_> = data_of(&events, "dtmf.received").iter().map(|key| key["digit"].clone()).collect();
    assert_eq!(keys, ["?"; 6], "the record has not the PIN");
    let service = lab.close_without_violations().await;
    assert_eq!(told(&service), [json!({"digits": "4711"})]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assistant_moves_the_call_where_it_may_and_hears_of_it_when_nobody_answers() {
    let script = "speech = \"tone:600\"\n[[turn]]\ntools = [{ name = \"transfer_call\", arguments = { to = \"+19005550100\" } }, \
                  { name = \"transfer_call\", arguments = { to = \"carol\" } }]\n\
                  [[turn]]\ntool = { name = \"transfer_call\", arguments = { to = \"bob\" } }\n";
    // The addresses of those it may move calls to are known only once they are open.
    let stage = |bob, carol| {
        let mut setup = Setup::default().script(script);
        let to = format!("transfer_to = {{ bob = \"sip:bob@{bob}\", carol = \"sip:carol@{carol}\" }}");
        setup.resources.push_str(&helper("\"transfer_call\"", &to));
        setup
    };
    let mut stage = super::transfer::Stage::open_with(stage).await;
    let ann = stage.ann.call(stage.at(), "150").await;
    ann.line.hush(true);
    let (invite, server) = stage.carol.ringing().await;
    stage.carol.refuse(&invite, server, "486 Busy Here").await;
    let mut bob = stage.bob.pick_up("0 101").await;
    bob.line.hears(10, "nobody yet", |_| true).await;
    stage.bob.bye(&mut bob).await;
    let (_, events) = stage.lab.record().await;
    assert_eq!(
        outcomes(&events),
        [
            outcome("transfer_call", "refused"),
            outcome("transfer_call", "error"),
            outcome("transfer_call", "ok")
        ]
    );
    let states: Vec<_> = data_of(&events, "call.transfer").iter().map(|e| e["state"].clone()).collect();
    assert_eq!(states, ["accepted", "failed", "accepted", "completed"]);
    let service = stage.lab.close_without_violations().await;
    let told = told(&service);
    assert!(told[0]["problems"][0].as_str().is_some_and(|problem| problem.contains("bob")), "{told:?}");
    assert!(told[1]["error"].as_str().is_some_and(|error| error.contains("busy")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_while_the_recording_is_paused_is_silence_in_it() {
    let script = "[[turn]]\ntool = { name = \"pause_recording\" }\n[[turn]]\nsay = \"Secret.\"\nduration_ms = 1500\n\
                  [[turn]]\ntool = { name = \"resume_recording\" }\n[[turn]]\nsay = \"Open.\"\nduration_ms = 1500\n";
    let mut setup = setup(script, "", "");
    let own =
        helper("\"pause_recording\", \"resume_recording\"", "").replace("acme", "loud").replace("150", "160");
    setup.resources.push_str(&format!("\n[[organization]]\nname = \"loud\"\nrecording = \"on\"\n{own}"));
    let setup = setup.configure(|config| config.recording.enabled = true);
    let lab = Lab::open(PORTS, setup).await;
    let parts = acts([&listen(), &[utterance(600)], &listen(), &[Act::HangUp]]);
    lab.call("160", parts).await;
    let (call, events) = lab.record().await;
    lab.server.settle_recordings();
    let file = lab.directory.path().join("recordings").join(call.recording.expect("it is recorded"));
    let states: Vec<_> = data_of(&events, "recording.state").iter().map(|e| e["state"].clone()).collect();
    assert_eq!(states, ["started", "paused", "resumed", "stopped"]);
    let bytes = std::fs::read(file).expect("the recording");
    let samples: Vec<i16> =
        bytes[44..].as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    let right: Vec<i16> = samples.iter().skip(1).step_by(2).copied().collect();
    let loud = right.chunks(24).filter(|chunk| super::waveform::rms(chunk) > 1000.0).count();
    assert!((1300..=1600).contains(&loud), "{loud} ms of the second line alone are in the recording");
    lab.close_without_violations().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_can_be_tried_over_the_api_and_private_addresses_are_not_asked() {
    let mut hook = Hook::open().await;
    let mut setup = setup("[[turn]]\nsay = \"Hello.\"\n", "\"find_order\"", "");
    setup.resources.push_str(&hook.tool("find_order", ""));
    let lab = Lab::open(PORTS, setup).await;
    let token = lab.token().await;
    let try_it = |name: &'static str, body: Value| {
        let (lab, token) = (&lab, token.as_str());
        async move {
            let path = format!("/api/v1/tools/{name}/test");
            let key = "idempotency-key: one-trial\r\n";
            http_with(lab.server.http_address(), "POST", &path, token, key, &body.to_string()).await
        }
    };
    let answer = async {
        let (_, _, answer) = hook.next().await;
        answer.send((200, json!({"state": "shipped"}).to_string())).expect("it waits");
    };
    let wish = json!({"organization": "acme", "arguments": {"order": "1"}});
    let ((status, body), ()) = tokio::join!(try_it("find_order", wish), answer);
    assert_eq!((status, body["ok"].as_bool()), (200, Some(true)), "{body}");
    assert_eq!(body["output"], json!({"state": "shipped"}));
    let (_, body) = try_it("find_order", json!({"organization": "acme", "arguments": {}})).await;
    assert_eq!((body["valid"].as_bool(), body["ran"].as_bool()), (Some(false), Some(false)), "{body}");
    let (status, _) =
        try_it("find_order", json!({"organization": "globex", "arguments": {"order": "1"}})).await;
    assert_eq!(status, 404, "it is not theirs");
    let wish = json!({"organization": "acme", "arguments": {"order": "1"}}).to_string();
    let (status, body) = lab.http("POST", "/api/v1/tools/find_order/test", &token, &wish).await;
    assert_eq!(status, 400, "a repetition would run it twice: {body}");
    let (status, body) = lab.http("GET", "/api/v1/tools?all=perhaps", &token, "").await;
    assert_eq!((status, body["code"].as_str()), (400, Some("bad_request")), "{body}");
    for (wrong, word) in [
        ("url = \"https://169.254.169.254/latest\"\nparameters = { type = \"object\" }", "allow_networks"),
        ("url = \"https://example.com/\"\nparameters = { type = \"text\" }", "JSON Schema"),
    ] {
        let text =
            format!("[[tool]]\norganization = \"acme\"\nname = \"inside\"\ndescription = \"x\"\n{wrong}\n");
        let (status, body) = lab.http("POST", "/api/v1/apply", &token, &text).await;
        assert_eq!(status, 422, "{body}");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{body}");
    }
    let (_, body) = try_it("send_dtmf", json!({"arguments": {"digits": "x"}})).await;
    assert_eq!(body["valid"].as_bool(), Some(false));
    let (_, list) = lab.http("GET", "/api/v1/tools", &token, "").await;
    let names: Vec<_> =
        list["data"].as_array().expect("a list").iter().map(|tool| tool["name"].clone()).collect();
    assert!(names.contains(&"find_order".into()) && names.contains(&"end_call".into()), "{names:?}");
    assert!(!names.contains(&"send_sms".into()), "what waits is not listed unless asked for");
    let (status, _) = lab.http("DELETE", "/api/v1/tools/find_order?organization=acme", &token, "").await;
    assert_eq!(status, 204);
    let (status, _) = try_it("find_order", json!({"organization": "acme"})).await;
    assert_eq!(status, 404);
    lab.close().await;
}

/// A server of tools in a shell: knows the weather, and dies when it is asked to.
const TINY: &str = r#"while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-03-26","capabilities":{"tools":{}},"serverInfo":{"name":"tiny","version":"1"}}}\n' "$id" ;;
    *'"method":"tools/list"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[{"name":"weather","description":"Tells the weather.","inputSchema":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}},{"name":"die","inputSchema":{"type":"object"}},{"name":"hidden","inputSchema":{"type":"object"}}]}}\n' "$id" ;;
    *'"name":"die"'*) exit 1 ;;
    *'"method":"tools/call"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"rain, %s"}]}}\n' "$id" "$SECRET_OF_OURS$GREETING" ;;
  esac
done"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_of_an_mcp_program_are_used_and_its_death_is_survived() {
    let script = "[[turn]]\ntool = { name = \"tiny_weather\", arguments = { city = \"Rome\" } }\n\
                  [[turn]]\ntools = [{ name = \"tiny_hidden\" }, { name = \"tiny_weather\", arguments = { city = 1 } }]\n\
                  [[turn]]\ntool = { name = \"tiny_die\" }\n[[turn]]\nsay = \"It rains.\"\nduration_ms = 300\n";
    let setup = setup(script, "\"tiny_*\"", "").configure(|config| {
        let server = tandem::config::Mcp {
            command: ["sh", "-c", TINY].map(str::to_owned).to_vec(),
            env: [("GREETING".to_owned(), "bring a coat".to_owned())].into(),
            tools: ["weather", "die"].map(str::to_owned).to_vec(),
            ..tandem::config::Mcp::default()
        };
        config.mcp.insert("tiny".to_owned(), server);
    });
    let lab = Lab::open(PORTS, setup).await;
    let token = lab.token().await;
    let there = async || {
        let (_, list) = lab.http("GET", "/api/v1/tools", &token, "").await;
        (list["mcp_servers"][0]["tools"] == 2).then_some(())
    };
    within(60, "the program offers its tools", there).await;
    lab.call("150", acts([&listen(), &[Act::HangUp]])).await;
    let (_, events) = lab.record().await;
    assert_eq!(
        outcomes(&events),
        [
            outcome("tiny_weather", "ok"),
            outcome("tiny_hidden", "refused"),
            outcome("tiny_weather", "refused"),
            outcome("tiny_die", "unreachable")
        ]
    );
    within(60, "the program runs again", there).await;
    let service = lab.close_without_violations().await;
    assert_eq!(told(&service)[0], "rain, bring a coat", "it has its own environment and nothing of ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_of_an_mcp_web_server_are_used() {
    let mut hook = Hook::open().await;
    let address = hook.address;
    tokio::spawn(async move {
        loop {
            let (_, message, answer) = hook.next().await;
            let id = message["id"].clone();
            let result = match message["method"].as_str().unwrap_or_default() {
                "initialize" => json!({"protocolVersion": "2025-03-26", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "web", "version": "1"}}),
                "tools/list" => json!({"tools": [{"name": "add", "description": "Adds.",
                    "inputSchema": {"type": "object", "properties": {"a": {"type": "integer"}}}}]}),
                "tools/call" => {
                    json!({"content": [{"type": "text", "text": "no such sum"}], "isError": true})
                }
                // A notification.
                _ => {
                    answer.send((202, String::new())).ok();
                    continue;
                }
            };
            answer.send((200, json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())).ok();
        }
    });
    let script = "[[turn]]\ntool = { name = \"sum_add\", arguments = { a = 1 } }\n\
                  [[turn]]\nsay = \"No.\"\nduration_ms = 300\n";
    let setup = setup(script, "\"sum_add\"", "").configure(move |config| {
        let url = Some(format!("http://{address}/mcp"));
        let server =
            tandem::config::Mcp { url, prefix: Some("sum_".to_owned()), ..tandem::config::Mcp::default() };
        config.mcp.insert("web".to_owned(), server);
    });
    let lab = Lab::open(PORTS, setup).await;
    let token = lab.token().await;
    within(60, "the server offers its tools", async || {
        let (_, list) = lab.http("GET", "/api/v1/tools", &token, "").await;
        (list["mcp_servers"][0]["tools"] == 1).then_some(())
    })
    .await;
    lab.call("150", acts([&listen(), &[Act::HangUp]])).await;
    let (_, events) = lab.record().await;
    assert_eq!(outcomes(&events), [outcome("sum_add", "error")]);
    let service = lab.close_without_violations().await;
    assert_eq!(told(&service)[0]["error"], "no such sum");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_on_hold_hears_music_for_its_time_or_until_the_other_tools_have_answered() {
    let mut hook = Hook::open().await;
    let music = tempfile::NamedTempFile::new().expect("a file");
    let tone = super::support::tone(700.0, 9000.0, 1000);
    std::fs::write(music.path(), super::transfer::wav(&tone)).expect("it can be written");
    let path = music.path().to_owned();
    let script = "[[turn]]\ntool = { name = \"hold\", arguments = { seconds = 3 } }\n\
                  [[turn]]\ntools = [{ name = \"hold\", arguments = { seconds = 60 } }, \
                  { name = \"find_order\", arguments = { order = \"A17\" } }]\n\
                  [[turn]]\nsay = \"Here it is.\"\nduration_ms = 500\n";
    let mut setup = setup(script, "\"hold\", \"find_order\"", "");
    setup.resources.push_str(&hook.tool("find_order", "timeout_s = 60"));
    let setup = setup.configure(move |config| {
        lets_loopback(config);
        config.media.hold_music = Some(path);
    });
    let lab = Lab::open(PORTS, setup).await;
    let heard = [Act::WaitForSpeech(ms(2000)), Act::WaitForSilence(ms(1500))];
    let answer = async {
        let (_, _, answer) = hook.next().await;
        answer.send((200, "{}".to_owned())).expect("it waits");
    };
    let (report, ()) = tokio::join!(lab.call("150", acts([&heard, &[Act::HangUp]])), answer);
    let loud = report.heard.chunks(24).filter(|chunk| super::waveform::rms(chunk) > 1000.0).count();
    assert!((3200..5000).contains(&loud), "{loud} ms of three seconds of music and the answer were heard");
    let (_, events) = lab.record().await;
    assert_eq!(
        outcomes(&events),
        [outcome("hold", "ok"), outcome("find_order", "ok"), outcome("hold", "ok")]
    );
    let service = lab.close_without_violations().await;
    let told = told(&service);
    assert_eq!(told[0]["ended_because"], "the time is over");
    assert_eq!(told[2]["ended_because"], "the other tools have answered");
}
