//! From files, variables and options to a [`Config`] and everything that is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::check::Checker;
use super::finding::{self, Finding, Place};
use super::tree::{self, Item};
use super::{BUILT_IN, Config, ProviderSection, Scripted, layers, rules, secrets};

/// Everything a configuration is made of. A value of this type fully determines [`load`]'s result, but
/// for the files it names.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// From `--config`; must exist.
    pub file: Option<PathBuf>,
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// From `--set key=value`, in order.
    pub options: Vec<(String, String)>,
    /// Where a file is looked for when none is named.
    pub search: Vec<PathBuf>,
}

impl Sources {
    /// The process's environment, and the usual places: `./tandem.toml`, `/etc/tandem/tandem.toml`.
    pub fn of_process(file: Option<PathBuf>, options: Vec<(String, String)>) -> Self {
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Self {
            file,
            variables,
            options,
            search: vec!["tandem.toml".into(), "/etc/tandem/tandem.toml".into()],
        }
    }

    /// The file to read and who named it; a named file need not exist.
    fn locate(&self) -> Option<(PathBuf, Place)> {
        if let Some(file) = &self.file {
            return Some((file.clone(), Place::Option("--config".into())));
        }
        if let Some(file) = self.variables.get("TANDEM_CONFIG").filter(|file| !file.is_empty()) {
            return Some((file.into(), Place::Variable("TANDEM_CONFIG".into())));
        }
        self.search.iter().find(|path| path.exists()).map(|path| (path.clone(), Place::Default))
    }
}

/// A configuration with what is wrong with it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The file that was read; `None` when there is none and all is default.
    pub file: Option<PathBuf>,
    /// What could be understood. Where a finding is an error, the key's default.
    pub config: Config,
    /// Errors and warnings in the order of the file.
    pub findings: Vec<Finding>,
    pub(super) tree: Item,
}

impl Loaded {
    /// The configuration and its warnings, if nothing keeps Tandem from starting.
    ///
    /// # Errors
    /// All findings, when one of them is an error.
    pub fn usable(self) -> Result<(Config, Vec<Finding>), Vec<Finding>> {
        if self.has_errors() { Err(self.findings) } else { Ok((self.config, self.findings)) }
    }

    /// Whether something keeps Tandem from starting.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(Finding::is_error)
    }

    /// Where the value of a key such as `sip.listen` came from.
    pub fn origin(&self, key: &str) -> Place {
        self.tree.at(key).map_or(Place::Default, |item| item.place.clone())
    }
}

/// Reads, lays over and judges. Never fails: what is wrong is in [`Loaded::findings`].
pub fn load(sources: &Sources) -> Loaded {
    let mut findings = Vec::new();
    let located = sources.locate();
    let root = match &located {
        Some((path, named_by)) => read(path, named_by, &mut findings),
        None => Item::table(Place::Default),
    };
    assemble(located.map(|(path, _)| path), root, sources, findings)
}

/// Judges the text of a `tandem.toml` over which nothing is laid. `file` is its name in findings.
pub fn parse(file: &str, text: &str) -> Loaded {
    let mut findings = Vec::new();
    let root = tree::parse(file, text, &mut findings);
    assemble(Some(file.into()), root, &Sources::default(), findings)
}

/// From the tree of the file, if there is one, to the configuration.
fn assemble(file: Option<PathBuf>, mut root: Item, sources: &Sources, mut findings: Vec<Finding>) -> Loaded {
    layers::apply_variables(&mut root, &sources.variables, &CHECKER, &mut findings);
    layers::apply_options(&mut root, &sources.options, &CHECKER, &mut findings);
    let right = check(&CHECKER, &root, &mut findings);
    let mut config = serde_json::from_value(right.to_json()).unwrap_or_else(|error| {
        let message = format!("the configuration cannot be read: {error}");
        findings.push(Finding::error(&root.place, "", message, "correct the value"));
        Config::default()
    });
    complete(&mut config, &root);
    fill_secrets(&mut config, &right, &sources.variables, &mut findings);
    rules::judge(&config, &right, &root, &mut findings);
    finding::sort(&mut findings);
    Loaded { file, config, findings, tree: root }
}

/// Judges the tree. Of a line that is not TOML, what it might have meant is not judged as well.
pub(super) fn check(checker: &Checker, root: &Item, findings: &mut Vec<Finding>) -> Item {
    let unreadable: Vec<_> = findings.iter().filter(|f| f.line.is_some()).map(|f| f.line).collect();
    let mut found = Vec::new();
    let right = checker.check(root, &mut found);
    findings.extend(found.into_iter().filter(|f| !unreadable.contains(&f.line)));
    right
}

fn read(path: &Path, named_by: &Place, findings: &mut Vec<Finding>) -> Item {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => tree::parse(&name, &text, findings),
        Err(error) => {
            let message = format!("the file {name} cannot be read: {error}");
            let fix = "give the path of a readable tandem.toml; `tandem init` writes one";
            findings.push(Finding::error(named_by, "", message, fix));
            Item::table(Place::Default)
        }
    }
}

/// Defaults that depend on other keys.
fn complete(config: &mut Config, root: &Item) {
    let scripted = || ProviderSection::Scripted(Scripted::default());
    config.providers.entry(BUILT_IN.to_owned()).or_insert_with(scripted);
    if root.at("store.url").is_none() {
        config.store.url = format!("sqlite://{}", config.node.data_dir.join("tandem.db").display());
    }
}

fn fill_secrets(
    config: &mut Config,
    tree: &Item,
    variables: &BTreeMap<String, String>,
    findings: &mut Vec<Finding>,
) {
    master_keys(&mut config.secrets, variables, tree, findings);
    let chain = &config.routing.default_chain;
    for (name, provider) in &mut config.providers {
        let path = format!("providers.{name}.api_key_env");
        let in_use = chain.contains(name);
        match provider {
            ProviderSection::Openai(openai) => {
                let local = super::values::split_url(&openai.url).is_some_and(|url| url.is_loopback());
                let strict = in_use && !local;
                openai.api_keys = keys(&openai.api_key_env, strict, variables, tree, &path, findings);
            }
            ProviderSection::Ultravox(ultravox) => {
                let local = super::values::split_url(&ultravox.url).is_some_and(|url| url.is_loopback());
                let strict = in_use && !local;
                ultravox.api_keys = keys(&ultravox.api_key_env, strict, variables, tree, &path, findings);
            }
            ProviderSection::UltravoxSip(agent) => {
                agent.api_keys = keys(&agent.api_key_env, false, variables, tree, &path, findings);
                let path = format!("providers.{name}.webhook_secret_env");
                let names = &agent.webhook_secret_env;
                agent.webhook_secrets = keys(names, in_use, variables, tree, &path, findings);
            }
            ProviderSection::Scripted(_) => {}
        }
    }
    for (section, server) in &mut config.mcp {
        for (index, variable) in server.env_from.iter().enumerate() {
            let path = format!("mcp.{section}.env_from[{index}]");
            let value = password(variable, true, variables, tree, &path, findings);
            server.env_secrets.extend(value.map(|value| (variable.clone(), value)));
        }
        for (header, variable) in &server.headers_env {
            let path = format!("mcp.{section}.headers_env.{header}");
            let value = password(variable, true, variables, tree, &path, findings);
            server.header_secrets.extend(value.map(|value| (header.clone(), value)));
        }
    }
    for (index, trunk) in config.trunk.iter_mut().enumerate() {
        let Some(name) = &trunk.password_env else { continue };
        let strict = trunk.inbound_auth == super::InboundAuth::Digest;
        trunk.password =
            password(name, strict, variables, tree, &format!("trunk[{index}].password_env"), findings);
    }
    if let Some(hep) = &mut config.sip.trace.hep
        && let Some(name) = &hep.password_env
    {
        hep.password = password(name, true, variables, tree, "sip.trace.hep.password_env", findings);
    }
    if let Some(door) = &mut config.asterisk_websocket {
        // A door whose password is not known would be open or shut for all.
        let mut of = |name: &Option<String>, path: &str| {
            name.as_ref().and_then(|name| password(name, true, variables, tree, path, findings))
        };
        door.password = of(&door.password_env, "asterisk_websocket.password_env");
        door.connect_password = of(&door.connect_password_env, "asterisk_websocket.connect_password_env");
    }
    if let Some(ari) = &mut config.ari {
        ari.password = password(&ari.password_env, false, variables, tree, "ari.password_env", findings);
    }
}

/// The master keys. That the present one is missing is said only when somebody has named its variable.
fn master_keys(
    secrets: &mut super::Secrets,
    variables: &BTreeMap<String, String>,
    tree: &Item,
    findings: &mut Vec<Finding>,
) {
    let previous = secrets.previous_key_env.iter().enumerate();
    let previous = previous.map(|(index, name)| (name, format!("secrets.previous_key_env[{index}]"), true));
    let named = tree.at("secrets.key_env").is_some();
    let all = std::iter::once((&secrets.key_env, "secrets.key_env".to_owned(), named)).chain(previous);
    let mut keys = all.map(|(name, path, wanted)| {
        let (place, path) = tree.locate(&path);
        match secrets::find(name, variables, &place, &path, findings) {
            secrets::Found::Secret(text) => {
                let key = super::MasterKey::read(&text);
                if key.is_none() {
                    let message = format!("{name} does not hold 32 octets in base64 or hexadecimal");
                    let fix = "make one with `openssl rand -base64 32`";
                    findings.push(Finding::error(&Place::Variable(name.clone()), path, message, fix));
                }
                key
            }
            secrets::Found::Missing => {
                if wanted {
                    findings.push(unset(name, false, &place, &path));
                }
                None
            }
            secrets::Found::Unusable => None,
        }
    });
    let key = keys.next().flatten();
    let previous = keys.flatten().collect();
    (secrets.key, secrets.previous) = (key, previous);
}

/// All keys that are there. Strict: having none is an error.
fn keys(
    names: &[String],
    strict: bool,
    variables: &BTreeMap<String, String>,
    tree: &Item,
    path: &str,
    findings: &mut Vec<Finding>,
) -> Vec<secrecy::SecretString> {
    let mut keys = Vec::new();
    let mut missing = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let (place, path) = tree.locate(&format!("{path}[{index}]"));
        match secrets::find(name, variables, &place, &path, findings) {
            secrets::Found::Secret(secret) => keys.push(secret),
            secrets::Found::Missing => missing.push((name, place, path)),
            secrets::Found::Unusable => {}
        }
    }
    let fatal = strict && keys.is_empty();
    for (name, place, path) in missing {
        findings.push(unset(name, fatal, &place, &path));
    }
    keys
}

fn password(
    name: &str,
    strict: bool,
    variables: &BTreeMap<String, String>,
    tree: &Item,
    path: &str,
    findings: &mut Vec<Finding>,
) -> Option<secrecy::SecretString> {
    let (place, path) = tree.locate(path);
    match secrets::find(name, variables, &place, &path, findings) {
        secrets::Found::Secret(secret) => Some(secret),
        secrets::Found::Missing => {
            findings.push(unset(name, strict, &place, &path));
            None
        }
        secrets::Found::Unusable => None,
    }
}

fn unset(name: &str, fatal: bool, place: &Place, path: &str) -> Finding {
    let message = format!("the environment variable {name} is not set");
    let fix = format!("set {name}, or set {name}_FILE to the path of a file that holds the secret");
    if fatal {
        Finding::error(place, path, message, fix)
    } else {
        Finding::warning(place, path, message, fix)
    }
}

/// Making the schema costs more than judging a file by it.
static CHECKER: LazyLock<Checker> = LazyLock::new(|| Checker::new(super::schema()));
