//! Resource files: what is judged in them beyond their syntax.

use tandem::config::flow::{Seconds, Step};
use tandem::config::resources::{self, Known};

fn known() -> Known {
    Known {
        own_tools: Vec::new(),
        built_in_tools: vec!["end_call".into()],
        later_tools: vec!["send_sms".into()],
        judge_destination: Some(|target| match target {
            "nowhere at all" => Err("write a number".to_owned()),
            _ => Ok(()),
        }),
        organizations: vec!["stored".into()],
        assistants: vec![("stored".into(), "night".into())],
        providers: vec!["openai".into(), "ultravox".into(), "scripted".into()],
        tools: vec!["end_call".into(), "send_dtmf".into()],
        trunks: vec!["twilio".into()],
        kinds: ["openai", "ultravox", "scripted"].map(|kind| (kind.into(), kind.into())).into(),
        default_chain: vec!["scripted".into()],
    }
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let (_, findings) = resources::parse("r.toml", text, Some(&known()));
    assert_eq!(super::printed(&findings), expected);
}

#[test]
fn names_of_tools_that_are_taken_and_destinations_that_are_none_are_found() {
    let tool = |name: &str| {
        format!(
            "[[tool]]\norganization = \"stored\"\nname = \"{name}\"\ndescription = \"x\"\n\
             url = \"https://example.com/\"\nparameters = {{ type = \"object\" }}\n"
        )
    };
    let assistant = "[[assistant]]\norganization = \"stored\"\nname = \"a\"\n\
                     transfer_to = { sales = \"+15550123\", desk = \"nowhere at all\" }\n";
    let text = format!("{assistant}{}{}{}", tool("end_call"), tool("send_sms"), tool("find_order"));
    let (_, findings) = resources::parse("r.toml", &text, Some(&known()));
    let found: Vec<_> = findings.iter().map(|f| (f.key.as_str(), f.is_error())).collect();
    let expected = [("assistant[0].transfer_to.desk", true), ("tool[0].name", true), ("tool[1].name", false)];
    assert_eq!(found, expected);
}

#[test]
fn an_assistants_manners_are_judged() {
    let assistant = |rest: &str| format!("[[assistant]]\norganization = \"stored\"\nname = \"a\"\n{rest}\n");
    let openai = "chain = [\"openai\"]\n";
    let all = "first_speaker = { who = \"caller\", delay = \"1500ms\" }\nclosing = \"Bye.\"\n\
               silence = { after = 8, prompts = [\"Hello?\"], then = \"continue\" }\nspeed = 1.2\n\
               barge_in = { mode = \"off\" }\nnoise_reduction = \"off\"\nmax_output_tokens = 9\n\
               turn_detection = { kind = \"semantic_vad\", create_response = false }\nmax_cost = \"0.5\"\n";
    check(&assistant(&format!("{openai}{all}")), &[]);
    for (rest, says) in [
        ("silence = { after = 0 }", "silence is 1 to 600 seconds long"),
        ("silence = { prompts = [] }", "after"),
        ("greeting_file = \"x.wav\"", "nobody knows what is said in this file"),
        ("barge_in = { mode = \"local\", min_ms = 5 }", "5 is out of range"),
        ("speed = 3.0", "3 is out of range"),
        ("max_cost = \"1,50\"", "no amount of money"),
        ("chain = [\"ultravox\"]\nnoise_reduction = \"off\"", "\"ultravox\" does not do this"),
        ("speed = 1.0", "the provider \"scripted\" does not do this"),
        ("chain = [\"openai\", \"ultravox\"]\nbarge_in = { mode = \"off\" }", "\"ultravox\""),
    ] {
        let (_, findings) = resources::parse("r.toml", &assistant(rest), Some(&known()));
        let printed = super::printed(&findings);
        assert!(printed.len() == 1 && printed[0].contains(says), "{rest}: {printed:?}");
    }
}

#[test]
fn phones_are_judged_with_their_passwords_and_trunks() {
    let hash = "0".repeat(32);
    let phone = |rest: &str| format!("[[phone]]\norganization = \"stored\"\nuser = \"101\"\n{rest}\n");
    check(&phone("password_env = \"P101\"\ntrunks = [\"twilio\"]"), &[]);
    check(&phone(&format!("ha1_md5 = \"{hash}\"\nha1_sha256 = \"{hash}{hash}\"")), &[]);
    for (rest, says) in [
        ("", "a phone needs its password"),
        (&*format!("ha1_md5 = \"{hash}\""), "a phone needs its password"),
        ("password = \"x\"", "unknown key"),
        ("password_env = \"P101\"\ntrunks = [\"twili\"]", "did you mean \"twilio\""),
    ] {
        let (_, findings) = resources::parse("r.toml", &phone(rest), Some(&known()));
        let told: String = findings.iter().map(ToString::to_string).collect();
        assert!(told.contains(says), "{rest}: {told}");
    }
    let twice = phone("password_env = \"P101\"").repeat(2);
    let (_, findings) = resources::parse("r.toml", &twice, Some(&known()));
    assert!(findings.iter().any(|finding| finding.to_string().contains("also phone[0]")), "{findings:?}");
}

const CONTRACT: &str = r#"
[[organization]]
name = "acme"

[[assistant]]
organization = "acme"
name = "reception"
chain = ["openai", "ultravox"]
voice = "marin"
instructions = "You answer the phone for Acme..."
greeting = "Acme, good morning!"
tools = ["end_call"]

[[number]]
organization = "acme"
number = "+15550100"
flow = [{ step = "assistant", assistant = "reception" }]

[[number]]
organization = "acme"
number = "*"
flow = [
  { step = "progress", seconds = 2 }, { step = "answer" }, { step = "play", file = "a.wav" },
  { step = "wait", seconds = "500ms" }, { step = "echo", seconds = 1.5 }, { step = "hangup" },
]
"#;

#[test]
fn the_contracts_resources_are_accepted() {
    let (resources, findings) = resources::parse("r.toml", CONTRACT, Some(&known()));
    assert_eq!(super::printed(&findings), [""; 0]);
    assert_eq!(resources.number[0].flow, [Step::Assistant { assistant: "reception".into() }]);
    let half_a_second = Seconds(std::time::Duration::from_millis(500));
    assert_eq!(resources.number[1].flow[3], Step::Wait { seconds: half_a_second });
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    check(
        r#"
[[organisation]]
name = "acme"
[[assistant]]
organization = "acme"
name = "reception"
chain = ["opena"]
tools = ["transfer_call"]
[[number]]
organization = "stored"
number = "555 0100"
flow = []
[[number]]
organization = "stored"
number = "100"
flow = [
  { step = "assistant", assistant = "nihgt" },
  { step = "reject", status = 200 },
  { step = "jump" },
  { step = "wait" },
  { step = "play", file = "a.wav", seconds = 2 },
  { step = "progress", seconds = 1 },
  { step = "dial", to = "+15550123" },
]
[[user]]
email = "ann"
role = "boss"
"#,
        &[
            "r.toml:2:3: error: organisation: unknown key\n  fix: did you mean `organization`?",
            "r.toml:5:16: error: assistant[0].organization: there is no organization \"acme\"\n  fix: known: stored",
            "r.toml:7:10: error: assistant[0].chain[0]: there is no provider \"opena\"\n  fix: did you mean \"openai\"?",
            "r.toml:8:10: warning: assistant[0].tools[0]: there is no tool \"transfer_call\" now\n  fix: the assistant works without it; `tandem provider tools` lists what there is",
            "r.toml:11:10: error: number[0].number: \"555 0100\" is no number\n  fix: write E.164 without spaces such as \"+15550100\", a SIP user such as \"100\", or \"*\" for all others",
            "r.toml:12:8: error: number[0].flow: the list is empty\n  fix: write [{ assistant = \"reception\", step = \"assistant\" }]",
            "r.toml:17:37: error: number[1].flow[0].assistant: there is no assistant of \"stored\" \"nihgt\"\n  fix: did you mean \"night\"?",
            "r.toml:18:3: error: number[1].flow[1]: `reject` comes after a step that answers the call\n  fix: move it before that step",
            "r.toml:18:3: warning: number[1].flow[1]: nothing after `reject` is reached\n  fix: remove the steps that follow",
            "r.toml:18:31: error: number[1].flow[1].status: 200 is out of range\n  fix: write a number from 400 to 699",
            "r.toml:19:12: error: number[1].flow[2].step: \"jump\" is not one of \"answer\", \"progress\", \"play\", \"assistant\", \"dial\", \"echo\", \"wait\", \"hangup\", \"reject\"\n  fix: write one of \"answer\", \"progress\", \"play\", \"assistant\", \"dial\", \"echo\", \"wait\", \"hangup\", \"reject\"",
            "r.toml:20:3: error: number[1].flow[3].seconds: this key is required\n  fix: add seconds = 2",
            "r.toml:21:36: error: number[1].flow[4].seconds: unknown key\n  fix: remove it; known here: file, step",
            "r.toml:22:3: error: number[1].flow[5]: `progress` comes after a step that answers the call\n  fix: move it before that step",
            "r.toml:26:9: error: user[0].email: \"ann\" is no mail address\n  fix: write one such as \"ann@example.com\"",
            "r.toml:27:8: error: user[0].role: \"boss\" is not one of \"admin\", \"manager\", \"supervisor\", \"agent\", \"analyst\"\n  fix: write one of \"admin\", \"manager\", \"supervisor\", \"agent\", \"analyst\"",
        ],
    );
}

#[test]
fn names_are_unique() {
    check(
        "[[organization]]\nname = \"a\"\n[[organization]]\nname = \"a\"\n",
        &[
            "r.toml:4:8: error: organization[1].name: \"a\" is also organization[0]\n  fix: remove one of the two",
        ],
    );
}

#[test]
fn without_a_store_references_are_not_judged() {
    let text = "[[number]]\norganization = \"elsewhere\"\nnumber = \"*\"\nflow = [{ step = \"assistant\", assistant = \"x\" }]\n";
    assert!(resources::parse("r.toml", text, None).1.is_empty());
}
