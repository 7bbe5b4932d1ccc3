//! What `tandem.toml` accepts, and the exact words for what it does not.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::ExposeSecret;
use tandem::config::{self, Finding, Loaded, Place, ProviderSection, Sources};

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
fn a_secure_listener_needs_a_certificate_that_can_be_read() {
    check(
        "[sip]\nlisten = [\"wss://127.0.0.1:8089\"]\n",
        &[
            "tandem.toml:2:11: error: sip.listen[0]: a wss:// listener needs a certificate\n  fix: add [sip.tls] with certificate and private_key",
        ],
    );
    check(
        "[sip]\nlisten = [\"tls://127.0.0.1:5061\"]\n[sip.tls]\ncertificate = \"tests/tls/named.pem\"\nprivate_key = \"none.pem\"\n",
        &[
            "tandem.toml:5:15: error: sip.tls.private_key: none.pem cannot be read: No such file or directory (os error 2)\n  fix: name a readable PEM file",
        ],
    );
}

#[test]
fn the_audiosocket_door_is_judged() {
    check("[audiosocket]\n", &[]);
    check(
        "[http]\nlisten = \"127.0.0.1:9092\"\n[audiosocket]\nnumber = \"1 00\"\nrate = 11025\nallow = []\nidle_timeout = \"0s\"\n",
        &[
            "tandem.toml:3:2: error: audiosocket.listen: 127.0.0.1:9092 is taken by http.listen (127.0.0.1:9092)\n  fix: give each listener an address and port of its own",
            "tandem.toml:4:10: error: audiosocket.number: \"1 00\" is no number\n  fix: write E.164 without spaces such as \"+15550100\", a SIP user such as \"100\", or \"*\" for all others",
            "tandem.toml:5:8: error: audiosocket.rate: 11025 Hz is no rate of Asterisk's\n  fix: write 8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000 or 192000",
            "tandem.toml:6:9: error: audiosocket.allow: the list is empty\n  fix: write [\"127.0.0.0/8\", \"192.0.2.10\"]",
        ],
    );
    check(
        "[audiosocket]\nnumber = \"*\"\n",
        &[
            "tandem.toml:2:10: error: audiosocket.number: \"*\" is no number that can be called\n  fix: write the number or extension whose flow answers",
        ],
    );
    check(
        "[audiosocket]\nlisten = \"0.0.0.0:9092\"\n",
        &[
            "tandem.toml:2:10: warning: audiosocket.listen: other machines can reach it, but none is let in\n  fix: add the PBX's address to audiosocket.allow",
        ],
    );
    check("[audiosocket]\nlisten = \"0.0.0.0:9092\"\nallow = [\"192.0.2.10\"]\n", &[]);
}

#[test]
fn the_asterisk_websocket_door_is_judged() {
    check(
        "[asterisk_websocket]\n",
        &[
            "tandem.toml:1:1: error: asterisk_websocket: Asterisk has nowhere to connect to\n  fix: add listen = \"127.0.0.1:9093\", or connect = \"ws://127.0.0.1:8088/media\" to connect to Asterisk",
        ],
    );
    check("[asterisk_websocket]\nlisten = \"127.0.0.1:9093\"\n", &[]);
    check("[asterisk_websocket]\nconnect = \"wss://pbx.example.net:8089/media\"\n", &[]);
    check(
        "[asterisk_websocket]\nconnect = \"ws://pbx:secret@192.0.2.10:8088/media\"\n",
        &[
            "tandem.toml:2:11: error: asterisk_websocket.connect: user and password have keys of their own\n  fix: write a URL such as \"ws://127.0.0.1:8088/media\"",
        ],
    );
    check(
        "[asterisk_websocket]\nconnect = \"ws://192.0.2.10:8088/media\"\nconnect_username = \"tandem\"\n",
        &[
            "tandem.toml:2:11: warning: asterisk_websocket.connect: the password travels readable\n  fix: use wss://, or keep it within a network you trust",
            "tandem.toml:3:20: error: asterisk_websocket.connect_username: there is a user but no password\n  fix: add connect_password_env = \"ASTERISK_CONNECT_PASSWORD\"",
        ],
    );
    check(
        "[asterisk_websocket]\nlisten = \"127.0.0.1:9093\"\npath = \"media?x\"\nallow = []\n",
        &[
            "tandem.toml:3:8: error: asterisk_websocket.path: \"media?x\" is no path\n  fix: write a path such as \"/media\"",
            "tandem.toml:4:9: error: asterisk_websocket.allow: the list is empty\n  fix: write [\"127.0.0.0/8\", \"192.0.2.10\"]",
        ],
    );
    check(
        "[http]\nlisten = \"127.0.0.1:9093\"\n[asterisk_websocket]\nlisten = \"127.0.0.1:9093\"\nformat = \"slim16\"\nusername = \"pbx\"\nnumber = \"*\"\n",
        &[
            "tandem.toml:4:10: error: asterisk_websocket.listen: 127.0.0.1:9093 is taken by http.listen (127.0.0.1:9093)\n  fix: give each listener an address and port of its own",
            "tandem.toml:5:10: error: asterisk_websocket.format: \"slim16\" is no format that Tandem speaks\n  fix: write one of slin16, slin24, slin, slin12, slin32, slin44, slin48, slin96, slin192, ulaw, alaw, g722, opus",
            "tandem.toml:6:12: error: asterisk_websocket.username: there is a user but no password\n  fix: add password_env = \"ASTERISK_WEBSOCKET_PASSWORD\"",
            "tandem.toml:7:10: error: asterisk_websocket.number: \"*\" is no number that can be called\n  fix: write the number or extension whose flow answers",
        ],
    );
    // A password that cannot be had must not open the door.
    check(
        "[asterisk_websocket]\nlisten = \"0.0.0.0:9093\"\nusername = \"pbx\"\npassword_env = \"PBX\"\n",
        &[
            "tandem.toml:2:10: warning: asterisk_websocket.listen: other machines can reach it, but none is let in\n  fix: add the PBX's address to asterisk_websocket.allow",
            "tandem.toml:4:16: error: asterisk_websocket.password_env: the environment variable PBX is not set\n  fix: set PBX, or set PBX_FILE to the path of a file that holds the secret",
        ],
    );
    let text =
        "[asterisk_websocket]\nlisten = \"127.0.0.1:9093\"\nusername = \"pbx\"\npassword_env = \"PBX\"\n";
    let loaded = load(text, &[("PBX", "open sesame")]);
    assert_eq!(printed(&loaded.findings), [""; 0]);
    let shown = config::to_toml(&loaded.config);
    assert!(shown.contains("[asterisk_websocket]") && !shown.contains("sesame"), "{shown}");
}

#[test]
fn the_ari_section_is_judged() {
    let ari = "[ari]\nurl = \"http://192.0.2.7:8088/ari\"\nusername = \"t\"\npassword_env = \"ARI_PASSWORD\"\napplication = \"tandem\"\n";
    let judged = |more: &str| printed(&load(&format!("{ari}{more}"), &[("ARI_PASSWORD", "a")]).findings);
    let readable = "tandem.toml:2:7: warning: ari.url: the password travels readable\n  fix: use https:// (tlsenable in http.conf), or keep it within a network you trust";
    assert_eq!(
        judged(""),
        [
            "tandem.toml:1:1: error: ari: where Asterisk reaches us for audio is not known\n  fix: add media_host: our address as the PBX sees it",
            readable
        ]
    );
    assert_eq!(judged("media_host = \"192.0.2.20\"\n"), [readable]);
    assert_eq!(judged("medium = \"websocket\"\n"), [readable]);
    assert_eq!(
        judged("media_host = \"192.0.2.20\"\nmedia_format = \"slin16\"\n"),
        [
            readable,
            "tandem.toml:7:16: error: ari.media_format: \"slin16\" is no codec for this medium\n  fix: write one of g722, slin, ulaw, alaw",
        ]
    );
    assert_eq!(
        judged(
            "media_host = \"192.0.2.20\"\nmedium = \"audiosocket\"\nmedia_format = \"ulaw\"\ndial = \"PJSIP/100\"\n"
        ),
        [
            readable,
            "tandem.toml:7:10: error: ari.medium: Asterisk would connect to an AudioSocket door that is not there\n  fix: add an [audiosocket] section, or choose medium = \"rtp\"",
            "tandem.toml:8:16: error: ari.media_format: \"ulaw\" is no codec for this medium\n  fix: write one of slin, slin12, slin16, slin24, slin32, slin44, slin48",
            "tandem.toml:9:8: error: ari.dial: every call would go to the same endpoint\n  fix: write the endpoint with {number} in it, such as \"PJSIP/{number}@carrier\"",
        ]
    );
    let local = ari.replace("192.0.2.7", "127.0.0.1");
    check_with(&local, &[("ARI_PASSWORD", "a")], &[]);
}

#[test]
fn tls_alone_is_enough_to_listen_on() {
    let tls = "[sip.tls]\ncertificate = \"tests/tls/named.pem\"\nprivate_key = \"tests/tls/named.key.pem\"\n";
    check(&format!("[sip]\nlisten = [\"tls://127.0.0.1:5061\", \"ws://127.0.0.1:8088\"]\n{tls}"), &[]);
}

#[test]
fn an_address_for_some_peers_is_read() {
    let loaded = load("[[sip.advertise_for]]\nnetwork = \"10.0.0.0/8\"\naddress = \"10.0.0.5\"\n", &[]);
    assert_eq!(printed(&loaded.findings), [""; 0]);
    assert_eq!(loaded.config.sip.advertise_for[0].address.to_string(), "10.0.0.5");
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
fn a_missing_secret_is_an_error_only_where_it_is_needed() {
    let text = "[providers.openai]\nkind = \"openai\"\n[routing]\ndefault_chain = [\"openai\"]\n";
    check(
        text,
        &[
            "tandem.toml:1:12: error: providers.openai.api_key_env[0]: the environment variable OPENAI_API_KEY is not set\n  fix: set OPENAI_API_KEY, or set OPENAI_API_KEY_FILE to the path of a file that holds the secret",
        ],
    );
    check_with(text, &[("OPENAI_API_KEY", "sk-1")], &[]);
    let unused = "[providers.openai]\nkind = \"openai\"\n[routing]\ndefault_chain = [\"scripted\"]\n";
    assert!(!load(unused, &[]).has_errors());
}

#[test]
fn secret_files_are_read_and_their_faults_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (good, empty) = (dir.path().join("good"), dir.path().join("empty"));
    std::fs::write(&good, "sk-from-file\n").expect("written");
    std::fs::write(&empty, "\n").expect("written");
    let text = "[providers.openai]\nkind = \"openai\"\n[routing]\ndefault_chain = [\"openai\"]\n";
    let with = |path: &Path, more: &[(&str, &str)]| {
        let path = path.display().to_string();
        load(text, &[&[("OPENAI_API_KEY_FILE", path.as_str())], more].concat())
    };
    let loaded = with(&good, &[]);
    let ProviderSection::Openai(openai) = &loaded.config.providers["openai"] else { panic!("kind") };
    assert_eq!(openai.api_keys[0].expose_secret(), "sk-from-file");
    let message = |loaded: Loaded| loaded.findings[0].message.clone();
    assert!(message(with(&empty, &[])).ends_with("/empty is empty"));
    assert!(message(with(&dir.path().join("absent"), &[])).contains("/absent cannot be read: No such file"));
    assert_eq!(
        message(with(&good, &[("OPENAI_API_KEY", "x")])),
        "both OPENAI_API_KEY and OPENAI_API_KEY_FILE are set"
    );
}

#[test]
fn a_secret_in_the_wrong_key_is_refused_and_not_repeated() {
    let loaded = load("[providers.openai]\nkind = \"openai\"\napi_key_env = [\"sk-proj-abcdef\"]\n", &[]);
    let printed = printed(&loaded.findings).join("\n");
    assert!(printed.contains("it may be the secret itself"), "{printed}");
    assert!(!printed.contains("abcdef"), "{printed}");
}

#[test]
fn master_keys_come_from_variables_and_are_shown_nowhere() {
    let present = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let old = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let text = "[secrets]\nprevious_key_env = [\"OLD_KEY\"]\n";
    let loaded = load(text, &[("TANDEM_SECRETS_KEY", present), ("OLD_KEY", old)]);
    assert_eq!(printed(&loaded.findings), [""; 0]);
    let secrets = &loaded.config.secrets;
    assert_eq!(secrets.key.as_ref().map(|key| key.octets()[1]), Some(0x11));
    assert_eq!(secrets.previous[0].octets()[31], 0x1f);
    let shown = format!("{:?}{}", loaded.config, config::to_toml(&loaded.config)).to_lowercase();
    assert!(!shown.contains(&present[..8]) && !shown.contains("aaecawqf"), "{shown}");

    // Without one there is nothing to say, unless somebody has named it.
    assert_eq!(printed(&load("", &[]).findings), [""; 0]);
    let named = load("[secrets]\nkey_env = \"MY_KEY\"\n", &[]);
    assert!(
        printed(&named.findings)[0]
            .contains("warning: secrets.key_env: the environment variable MY_KEY is not set")
    );
    let short = load("", &[("TANDEM_SECRETS_KEY", "c2hvcnQ=")]);
    let message = printed(&short.findings).join("\n");
    assert!(
        short.has_errors() && message.contains("TANDEM_SECRETS_KEY does not hold 32 octets"),
        "{message}"
    );
    assert!(message.contains("openssl rand -base64 32") && !message.contains("c2hvcnQ"), "{message}");
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

#[test]
fn variables_lie_over_the_file() {
    let variables = [
        ("TANDEM__HTTP__LISTEN", "127.0.0.1:9999"),
        ("TANDEM__SIP__LISTEN", "udp://127.0.0.1:5070, tcp://127.0.0.1:5070"),
        ("TANDEM__MEDIA__WORKERS", "3"),
        ("TANDEM__LOG__PERSONAL_DATA", "true"),
        ("TANDEM__ROUTING__DEFAULT_CHAIN", "[\"scripted\"]"),
        ("TANDEM__PROVIDERS__LOCAL_AI__URL", "ws://127.0.0.1:1/"),
        ("TANDEM__TRUNK", "[{ name = \"x\", allow = [\"192.0.2.1\"] }]"),
    ];
    let text =
        "[http]\nlisten = \"127.0.0.1:1\"\n[providers.local-ai]\nkind = \"openai\"\napi_key_env = []\n";
    let loaded = load(text, &variables);
    assert_eq!(printed(&loaded.findings), [""; 0]);
    let config = &loaded.config;
    assert_eq!(config.http.listen.port(), 9999);
    assert_eq!(config.sip.listen[1].to_string(), "tcp://127.0.0.1:5070");
    assert_eq!((config.media.workers, config.log.personal_data), (3, true));
    assert_eq!(config.providers["local-ai"].url(), Some("ws://127.0.0.1:1/"));
    assert_eq!(config.trunk[0].name, "x");
    assert_eq!(loaded.origin("http.listen"), Place::Variable("TANDEM__HTTP__LISTEN".into()));
    assert_eq!(loaded.origin("media.rtp_ports"), Place::Default);
}

#[test]
fn bad_variables_are_named() {
    check_with(
        "",
        &[
            ("TANDEM__HTTP__LISTN", "x"),
            ("TANDEM__MEDIA__WORKERS", "many"),
            ("TANDEM__SIP__MAX_CALLS__X", "1"),
        ],
        &[
            "environment variable TANDEM__HTTP__LISTN: error: http.listn: names no key of tandem.toml\n  fix: did you mean TANDEM__HTTP__LISTEN?",
            "environment variable TANDEM__MEDIA__WORKERS: error: media.workers: expected a whole number, found text\n  fix: write 0",
            "environment variable TANDEM__SIP__MAX_CALLS__X: error: sip.max_calls.x: names no key of tandem.toml\n  fix: unset it; known here: ",
        ],
    );
}

#[test]
fn options_lie_over_variables() {
    let mut sources = sources(None, &[("TANDEM__HTTP__LISTEN", "127.0.0.1:1")]);
    sources.options = vec![("http.listen".into(), "127.0.0.1:2".into())];
    let loaded = config::load(&sources);
    assert_eq!(loaded.config.http.listen.port(), 2);
    assert_eq!(loaded.origin("http.listen").to_string(), "option --set http.listen");
}

#[test]
fn a_named_file_must_exist() {
    let missing = config::load(&sources(Some(Path::new("/nonexistent/tandem.toml")), &[]));
    assert_eq!(
        printed(&missing.findings),
        [
            "option --config: error: the file /nonexistent/tandem.toml cannot be read: No such file or directory (os error 2)\n  fix: give the path of a readable tandem.toml; `tandem init` writes one"
        ]
    );
}

#[test]
fn a_password_in_a_url_is_masked_when_shown() {
    let loaded = load("[store]\nurl = \"postgres://tandem:hunter2@db/tandem\"\n", &[]);
    let origin: BTreeMap<_, _> = loaded.settings().into_iter().map(|s| (s.key.clone(), s)).collect();
    assert_eq!(origin["store.url"].value, "postgres://tandem:***@db/tandem");
    assert!(!config::to_toml(&loaded.config).contains("hunter2"));
}

#[test]
fn the_database_follows_the_data_directory() {
    let loaded = load("[node]\ndata_dir = \"/var/lib/tandem\"\n", &[]);
    assert_eq!(loaded.config.store.url, "sqlite:///var/lib/tandem/tandem.db");
}

mod resources {
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
        let expected =
            [("assistant[0].transfer_to.desk", true), ("tool[0].name", true), ("tool[1].name", false)];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_assistants_manners_are_judged() {
        let assistant =
            |rest: &str| format!("[[assistant]]\norganization = \"stored\"\nname = \"a\"\n{rest}\n");
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
}
