//! Secrets, variables and options: what does not stand in the file itself.

use super::*;

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
