//! What `tandem.toml` accepts, and the exact words for what it does not.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::ExposeSecret;
use tandem::config::{self, Finding, Loaded, Place, ProviderSection, Sources};

#[path = "config/doors.rs"]
mod doors;
#[path = "config/overlays.rs"]
mod overlays;
#[path = "config/resources.rs"]
mod resources;

/// Loads a file of this text. The file is called `tandem.toml` in messages.
fn load(text: &str, variables: &[(&str, &str)]) -> Loaded {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("tandem.toml");
    std::fs::write(&path, text).expect("written");
    let mut loaded = config::load(&sources(Some(&path), variables));
    let long = path.display().to_string();
    for finding in &mut loaded.findings {
        finding.file = finding.file.take().map(|file| file.replace(&long, "tandem.toml"));
    }
    loaded
}

fn sources(file: Option<&Path>, variables: &[(&str, &str)]) -> Sources {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Sources { file: file.map(Into::into), variables: variables.collect(), ..Sources::default() }
}

fn printed(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(Finding::to_string).collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    check_with(text, &[], expected);
}

#[track_caller]
fn check_with(text: &str, variables: &[(&str, &str)], expected: &[&str]) {
    assert_eq!(printed(&load(text, variables).findings), expected);
}

/// Every key of the published contract.
const CONTRACT: &str = r#"
[node]
name = "edge-1"
data_dir = "data"

[sip]
listen = ["udp://0.0.0.0:5060", "tcp://0.0.0.0:5060", "tls://0.0.0.0:5061"]
advertise = "203.0.113.10"

[sip.tls]
certificate = "tests/tls/named.pem"
private_key = "tests/tls/named.key.pem"

[media]
rtp_ports = "20000-29999"
workers = 0

[http]
listen = "127.0.0.1:8080"

[store]
url = "sqlite://data/tandem.db"

[cluster]
redis_url = "redis://127.0.0.1:6379"

[audiosocket]
listen = "127.0.0.1:9092"

[ari]
url = "http://127.0.0.1:8088/ari"
username = "tandem"
password_env = "ARI_PASSWORD"
application = "tandem"

[providers.openai]
kind = "openai"
url = "wss://api.openai.com/v1/realtime"
model = "gpt-realtime-2.1"
api_key_env = ["OPENAI_API_KEY"]

[providers.ultravox]
kind = "ultravox"
url = "https://api.ultravox.ai"
api_key_env = ["ULTRAVOX_API_KEY"]

[routing]
default_chain = ["openai", "ultravox"]

[[trunk]]
name = "twilio"
profile = "twilio"
peers = ["example.pstn.twilio.com"]
allow = ["54.172.60.0/30"]
username = "acme"
password_env = "TWILIO_SIP_PASSWORD"
inbound_auth = "none"
"#;

const SECRETS: [(&str, &str); 4] = [
    ("ARI_PASSWORD", "a"),
    ("OPENAI_API_KEY", "sk-1"),
    ("ULTRAVOX_API_KEY", "uv-1"),
    ("TWILIO_SIP_PASSWORD", "t"),
];

#[test]
fn every_key_of_the_contract_is_accepted() {
    let loaded = load(CONTRACT, &SECRETS);
    assert!(!loaded.has_errors(), "{:#?}", printed(&loaded.findings));
    let about: Vec<_> = loaded.findings.iter().map(|f| (f.key.as_str(), f.message.as_str())).collect();
    assert_eq!(about, [("cluster", "[cluster] is not available in this version"),]);
    let trunk = &loaded.config.trunk[0];
    assert_eq!(trunk.password.as_ref().map(|p| p.expose_secret()), Some("t"));
    let ProviderSection::Openai(openai) = &loaded.config.providers["openai"] else { panic!("kind") };
    assert_eq!(openai.api_keys.len(), 1);
}

#[test]
fn without_a_file_all_is_loopback_sqlite_and_scripted() {
    let loaded = config::load(&sources(None, &[]));
    assert_eq!(printed(&loaded.findings), [""; 0]);
    let config = loaded.config;
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    let listen: Vec<_> = config.sip.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"]);
    assert_eq!(config.store.url, "sqlite://data/tandem.db");
    assert_eq!(config.routing.default_chain, ["scripted"]);
    assert!(matches!(config.providers["scripted"], ProviderSection::Scripted(_)));
    assert_eq!(config.socket_path(), Path::new("data/tandem.sock"));
}

#[test]
fn what_init_writes_changes_nothing() {
    let template = config::template();
    let loaded = load(&template, &[]);
    assert_eq!(printed(&loaded.findings), [""; 0]);
    assert_eq!(config::to_toml(&loaded.config), config::to_toml(&config::Config::default()));
}

#[test]
fn every_key_is_explained_with_a_default_or_an_example() {
    fn walk(schema: &serde_json::Value, path: &str, bare: &mut Vec<String>) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            let shown = ["default", "examples", "const", "$ref"].iter().any(|k| !property[k].is_null());
            let known = property.get("description").is_some() && (shown || property.get("default").is_some());
            if !known && property.get("const").is_none() {
                bare.push(path.clone());
            }
            walk(property, &path, bare);
        }
        for choice in schema["oneOf"].as_array().into_iter().flatten() {
            walk(choice, path, bare);
        }
    }
    let schema = config::schema();
    let mut bare = Vec::new();
    walk(&schema, "", &mut bare);
    for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
        walk(definition, name, &mut bare);
    }
    assert_eq!(bare, [""; 0]);
}

#[test]
fn what_is_shown_can_be_read_back() {
    let shown = config::to_toml(&load(CONTRACT, &SECRETS).config);
    let again = load(&shown, &SECRETS);
    assert!(!again.has_errors(), "{shown}\n{:#?}", printed(&again.findings));
    assert_eq!(config::to_toml(&again.config), shown);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    check(
        "[sip]\nlisen = [\"udp://127.0.0.1:5060\"]\n",
        &["tandem.toml:2:1: error: sip.lisen: unknown key\n  fix: did you mean `listen`?"],
    );
    check(
        "[htpp]\nlisten = \"127.0.0.1:1\"\n",
        &["tandem.toml:1:2: error: htpp: unknown key\n  fix: did you mean `http`?"],
    );
    check(
        "[sip]\nrtp_ports = \"20000-20100\"\n",
        &["tandem.toml:2:1: error: sip.rtp_ports: unknown key\n  fix: `rtp_ports` belongs in [media]"],
    );
    check(
        "[[trunk]]\nname = \"a\"\nallow = [\"192.0.2.1\"]\npassword = \"secret\"\n",
        &["tandem.toml:4:1: error: trunk[0].password: unknown key\n  fix: did you mean `password_env`?"],
    );
}

#[test]
fn wrong_types_say_what_to_write() {
    check(
        "[media]\nworkers = \"4\"\nrtp_timeout = 30\ninband_dtmf = \"yes\"\n[sip]\nlisten = \"udp://127.0.0.1:5060\"\n",
        &[
            "tandem.toml:2:11: error: media.workers: expected a whole number, found text\n  fix: write 4 without quotes",
            "tandem.toml:3:15: error: media.rtp_timeout: expected text, found a whole number\n  fix: write a number with a unit in quotes, such as \"30s\"",
            "tandem.toml:4:15: error: media.inband_dtmf: expected true or false, found text\n  fix: write false",
            "tandem.toml:6:10: error: sip.listen: expected a list, found text\n  fix: write [\"udp://127.0.0.1:5060\"]",
        ],
    );
}

#[test]
fn values_out_of_bounds_are_refused() {
    check(
        "[media]\nrtp_ports = \"29999-20000\"\nrealtime_priority = 100\nreorder_window = \"1s\"\n[log]\nformat = \"jsn\"\nlevel = \"inof\"\n",
        &[
            "tandem.toml:2:13: error: media.rtp_ports: \"29999-20000\" is empty\n  fix: put the lower port first: \"20000-29999\"",
            "tandem.toml:3:21: error: media.realtime_priority: 100 is out of range\n  fix: write a number from 0 to 99",
            "tandem.toml:4:18: error: media.reorder_window: \"1s\" is too long\n  fix: write \"200ms\" or less",
            "tandem.toml:6:10: error: log.format: \"jsn\" is not one of \"human\", \"json\"\n  fix: did you mean \"json\"?",
            "tandem.toml:7:9: error: log.level: \"inof\" is no log level\n  fix: did you mean \"info\"?",
        ],
    );
}

#[test]
fn syntax_errors_do_not_hide_other_errors() {
    let loaded = load("[sip]\nmax_calls = \n[http]\nlissten = \"127.0.0.1:1\"\n", &[]);
    let printed = printed(&loaded.findings);
    assert_eq!(printed.len(), 2, "{printed:#?}");
    assert!(printed[0].starts_with("tandem.toml:2:"), "{}", printed[0]);
    assert!(printed[1].contains("http.lissten: unknown key"), "{}", printed[1]);
}

#[test]
fn impossible_combinations_are_found_together() {
    check(
        r#"
[http]
listen = "0.0.0.0:8080"
[sip]
listen = ["udp://127.0.0.1:5060", "udp://0.0.0.0:5060", "udp://127.0.0.1:20010"]
t1 = "4s"
t2 = "1s"
[routing]
default_chain = ["opnai"]
[providers.openai]
kind = "openai"
url = "ws://127.0.0.1:9400/v1/realtime"
api_key_env = []
[[trunk]]
name = "a"
profile = "twillio"
allow = ["192.0.2.0/24"]
[[trunk]]
name = "a"
allow = ["192.0.2.7"]
inbound_auth = "digest"
"#,
        &[
            "tandem.toml:3:10: error: http.listen: 0.0.0.0:8080 can be reached by other machines, and HTTP here is not encrypted\n  fix: listen on 127.0.0.1 behind a proxy that does TLS, or set http.insecure = true on a private network",
            "tandem.toml:5:35: error: sip.listen[1]: 0.0.0.0:5060 is taken by sip.listen[0] (127.0.0.1:5060)\n  fix: give each listener an address and port of its own",
            "tandem.toml:5:57: error: sip.listen[2]: port 20010 lies within media.rtp_ports (20000-29999)\n  fix: move the listener or the range",
            "tandem.toml:6:6: error: sip.t1: t1 is longer than t2\n  fix: make t1 shorter, such as \"500ms\" (RFC 3261 table 4)",
            "tandem.toml:9:18: error: routing.default_chain[0]: there is no provider \"opnai\"\n  fix: did you mean \"openai\"?",
            "tandem.toml:16:11: error: trunk[0].profile: there is no SIP profile \"twillio\"\n  fix: did you mean \"twilio\"?",
            "tandem.toml:19:8: error: trunk[1].name: \"a\" is also the name of trunk[0]\n  fix: give each trunk a name of its own",
            "tandem.toml:20:10: warning: trunk[1].allow[0]: 192.0.2.7 overlaps a source of trunk \"a\", which is matched first\n  fix: let each source belong to one trunk, or put the narrower trunk first",
            "tandem.toml:21:16: error: trunk[1].inbound_auth: digest needs a user and a password\n  fix: add username and password_env, or set inbound_auth = \"none\"",
        ],
    );
}

#[test]
fn a_broken_trunk_does_not_shift_the_others() {
    check(
        "[[trunk]]\nprofile = \"generic\"\n[[trunk]]\nname = \"b\"\nprofile = \"nokia\"\nallow = [\"192.0.2.1\", \"pbx.example.com\"]\n",
        &[
            "tandem.toml:1:1: error: trunk[0].name: this key is required\n  fix: add name = \"twilio\"",
            "tandem.toml:5:11: error: trunk[1].profile: there is no SIP profile \"nokia\"\n  fix: use one of generic, twilio, twilio-secure, asterisk, freeswitch, telnyx, bandwidth, vonage, signalwire, plivo, or add nokia.toml to sip-profiles",
            "tandem.toml:6:23: error: trunk[1].allow[1]: \"pbx.example.com\" is no network\n  fix: write an address, or an address and a prefix length such as \"54.172.60.0/30\"; a host name cannot be an inbound source",
        ],
    );
}

#[test]
fn a_provider_needs_a_known_kind() {
    check(
        "[providers.a]\nurl = \"wss://x\"\n[providers.b]\nkind = \"open-ai\"\n[providers.c]\nkind = \"scripted\"\nmodel = \"x\"\n[routing]\ndefault_chain = [\"a\", \"b\", \"c\"]\n",
        &[
            "tandem.toml:1:12: error: providers.a.kind: this key is required\n  fix: add kind = \"openai\"; known: openai, scripted, ultravox, ultravox_sip",
            "tandem.toml:4:8: error: providers.b.kind: \"open-ai\" is not one of \"openai\", \"scripted\", \"ultravox\", \"ultravox_sip\"\n  fix: did you mean \"openai\"?",
            "tandem.toml:7:1: error: providers.c.model: unknown key\n  fix: remove it; known here: kind, script",
        ],
    );
}

#[test]
fn a_trunk_to_an_agent_should_refuse_transfers() {
    let config = |trunk: &str| {
        format!(
            "[[trunk]]\nname = \"agents\"\npeers = [\"192.0.2.1\"]\n{trunk}\n[providers.voice]\n\
             kind = \"ultravox_sip\"\nagent = \"sip:a@192.0.2.1\"\ntrunk = \"agents\"\n\
             [routing]\ndefault_chain = [\"voice\"]\n"
        )
    };
    let warned = |trunk: &str| {
        let loaded = load(&config(trunk), &[]);
        loaded.findings.iter().any(|finding| finding.key == "trunk[0].refer" && !finding.is_error())
    };
    assert!(warned("profile = \"generic\"") && warned("profile = \"twilio\"\nrefer = \"local\""));
    assert!(!warned("profile = \"generic\"\nrefer = \"refuse\"") && !warned("profile = \"twilio\""));
}

#[test]
fn a_breaker_has_its_defaults_and_its_ranges() {
    let openai =
        |more: &str| load(&format!("[providers.x]\nkind = \"openai\"\napi_key_env = []\n{more}"), &[]);
    let plain = openai("");
    let breaker = plain.config.providers["x"].breaker().expect("it can fail");
    assert_eq!((breaker.failures, breaker.probes), (5, 1));
    assert_eq!((breaker.cool_down.as_secs(), breaker.slow.as_secs()), (30, 3));
    let changed = openai("breaker = { failures = 3, cool_down = \"1m\", slow = \"900ms\", probes = 2 }\n");
    let breaker = changed.config.providers["x"].breaker().expect("it can fail");
    assert_eq!((breaker.failures, breaker.cool_down.as_secs(), breaker.slow.as_millis()), (3, 60, 900));
    for wrong in ["failures = 0", "cool_down = \"0s\"", "slow = \"2m\"", "probes = 11", "coolDown = \"1s\""] {
        let loaded = openai(&format!("[providers.x.breaker]\n{wrong}\n"));
        assert!(loaded.has_errors(), "{wrong}");
    }
    assert!(plain.config.providers["scripted"].breaker().is_none());
}
