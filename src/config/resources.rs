//! `resources.toml`: organizations, users, assistants, numbers and phones, as `tandem apply` takes them and in the
//! shape of the REST bodies.
//!
//! A file may refer to what is in the store already, so references are judged against [`Known`]. The store
//! has types of its own for what it keeps; their JSON is that of the types here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checker, nearest};
use super::finding::{self, Finding};
use super::flow::Step;
use super::load;
use super::manners::{BargeIn, BargeInMode, FirstSpeaker, Silence, Who, unheeded};
use super::money::Money;
use super::providers::NoiseReduction;
use super::tree::{self, Item};

/// The contents of a resources file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "resources.toml")]
pub struct Resources {
    /// Tenants.
    pub organization: Vec<Organization>,
    /// People with a login.
    pub user: Vec<User>,
    /// AI personas.
    pub assistant: Vec<Assistant>,
    /// Phone numbers and what happens to calls of them.
    pub number: Vec<Number>,
    /// Phones that register with this installation.
    pub phone: Vec<Phone>,
    /// Tools that an organization's own web server answers.
    pub tool: Vec<Tool>,
}

/// A tenant: one business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// Unique short name.
    #[schemars(extend("format" = "name"), example = &"acme")]
    pub name: String,
    /// `on` when callers are told and have consented: calls are recorded if `recording.enabled` is set too.
    #[serde(default)]
    pub recording: RecordingConsent,
    /// Most its calls that begin on one day (UTC) may cost together, in the price table's currency. Absent: no limit of
    /// its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"20.00")]
    pub daily_budget: Option<Money>,
}

/// Consent to recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum RecordingConsent {
    /// Audio is never kept.
    #[default]
    Off,
    /// Calls may be recorded.
    On,
}

/// Someone with a login.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Owner. Absent only for the role `admin`.
    #[serde(default)]
    #[schemars(example = &"acme")]
    pub organization: Option<String>,
    /// Address to log in with; unique.
    #[schemars(extend("format" = "mail-address"), example = &"ann@example.com")]
    pub email: String,
    /// Name for people.
    #[serde(default)]
    #[schemars(example = &"Ann Smith")]
    pub name: String,
    /// What the user may do.
    pub role: Role,
}

/// What a user or token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Role {
    /// The whole installation.
    Admin,
    /// One organization.
    Manager,
    /// Watches and helps agents.
    Supervisor,
    /// Handles calls.
    Agent,
    /// Reads.
    Analyst,
}

impl Role {
    /// As in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Manager => "manager",
            Self::Supervisor => "supervisor",
            Self::Agent => "agent",
            Self::Analyst => "analyst",
        }
    }
}

/// An AI persona.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assistant {
    /// Owner.
    #[schemars(example = &"acme")]
    pub organization: String,
    /// Name, unique in its organization.
    #[schemars(extend("format" = "name"), example = &"reception")]
    pub name: String,
    /// Providers in order of preference. Empty: `routing.default_chain`.
    #[serde(default)]
    #[schemars(example = ["openai", "scripted"])]
    pub chain: Vec<String>,
    /// Provider's model. Absent: the provider's configured one.
    #[serde(default)]
    #[schemars(example = &"gpt-realtime-2.1")]
    pub model: Option<String>,
    /// Provider's voice. Absent: the provider's configured one.
    #[serde(default)]
    #[schemars(example = &"marin")]
    pub voice: Option<String>,
    /// BCP 47 language of callers, as a hint for transcription. Absent: any.
    #[serde(default)]
    #[schemars(example = &"en-US")]
    pub language: Option<String>,
    /// The system prompt.
    #[serde(default)]
    #[schemars(example = &"You answer the phone for Acme.")]
    pub instructions: String,
    /// What the assistant says first. Absent: what the instructions lead it to say.
    #[serde(default)]
    #[schemars(example = &"Acme, good morning!")]
    pub greeting: Option<String>,
    /// Tools it may use.
    #[serde(default)]
    #[schemars(example = ["end_call", "send_dtmf"])]
    pub tools: Vec<String>,
    /// Where `transfer_call` may move calls to: a name the model knows, and a number, a phone (`phone:101`) or a SIP
    /// URI. Empty: it cannot move calls.
    #[serde(default)]
    #[schemars(example = BTreeMap::from([("sales", "+15550123")]))]
    pub transfer_to: BTreeMap<String, String>,
    /// How the end of the caller's turn is found. Absent: the provider's default.
    #[serde(default)]
    #[schemars(example = TurnDetection::eager())]
    pub turn_detection: Option<TurnDetection>,
    /// For the provider kind `scripted`: its script file. Absent: the provider's configured one.
    #[serde(default)]
    #[schemars(example = &"scripts/reception.toml")]
    pub script: Option<PathBuf>,
    /// Seconds after which the call is ended politely. 1 to 86400. Absent: no limit.
    #[serde(default)]
    #[schemars(range(min = 1, max = 86_400), example = 1800)]
    pub max_duration_s: Option<u32>,
    /// Most a call with it may cost, in the price table's currency. Absent: `cost.max_per_call` alone counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"1.00")]
    pub max_cost: Option<Money>,
    /// What it says when the call has reached its longest duration, or the caller has gone silent for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"Thank you for calling. Goodbye.")]
    pub closing: Option<String>,
    /// Sound file it greets with, WAV, at most a minute; `greeting` is then what is said in it. Read when a call comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"sounds/hello.wav")]
    pub greeting_file: Option<PathBuf>,
    /// Who speaks first. Absent: the assistant, at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = FirstSpeaker { who: Who::Caller, delay: None })]
    pub first_speaker: Option<FirstSpeaker>,
    /// What happens when nobody says anything. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<Silence>,
    /// How the caller interrupts the assistant. Absent: as the provider hears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = BargeIn { mode: BargeInMode::Local, ..BargeIn::default() })]
    pub barge_in: Option<BargeIn>,
    /// The service's noise reduction before turn detection. Absent: the provider's configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = NoiseReduction::NearField)]
    pub noise_reduction: Option<NoiseReduction>,
    /// How fast the voice speaks, as a multiple. 0.25 to 1.5. Absent: the service's own pace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.25, max = 1.5), example = 1.1)]
    pub speed: Option<f32>,
    /// Longest answer in tokens. 1 to 4096. Absent: the provider's configured limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096), example = 800)]
    pub max_output_tokens: Option<u32>,
}

/// How the end of the caller's turn is found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[schemars(inline)]
pub enum TurnDetection {
    /// By silence after speech.
    ServerVad {
        /// 0 to 1; higher needs louder speech.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 0, max = 1), example = 0.5)]
        threshold: Option<f32>,
        /// Audio kept from before the detected start, in milliseconds. At most 5000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 5000), example = 300)]
        prefix_padding_ms: Option<u32>,
        /// Silence that ends a turn, in milliseconds. 100 to 10000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 100, max = 10_000), example = 500)]
        silence_duration_ms: Option<u32>,
        /// After this much silence, counted from the end of what the assistant said, the model speaks again by itself,
        /// in milliseconds. 5000 to 30000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 5000, max = 30_000), example = 15_000)]
        idle_timeout_ms: Option<u32>,
        /// Whether the model answers by itself when a turn is over. Off: it speaks when told to (`tandem call say`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(example = false)]
        create_response: Option<bool>,
        /// Whether a caller who speaks stops the answer that is being made. Absent: unless `barge_in` is off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(example = true)]
        interrupt_response: Option<bool>,
    },
    /// By what was said.
    SemanticVad {
        /// How soon a turn is believed to be over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(example = Eagerness::Auto)]
        eagerness: Option<Eagerness>,
        /// Whether the model answers by itself when a turn is over. Off: it speaks when told to (`tandem call say`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(example = false)]
        create_response: Option<bool>,
        /// Whether a caller who speaks stops the answer that is being made. Absent: unless `barge_in` is off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(example = true)]
        interrupt_response: Option<bool>,
    },
}

impl TurnDetection {
    /// As an example.
    fn eager() -> Self {
        let (create_response, interrupt_response) = (None, None);
        Self::SemanticVad { eagerness: Some(Eagerness::High), create_response, interrupt_response }
    }
}

/// How soon semantic turn detection believes that a turn is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Eagerness {
    /// Lets callers think.
    Low,
    /// Between the two.
    Medium,
    /// Answers quickly.
    High,
    /// The service decides.
    Auto,
}

/// A number and what happens to its calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// Owner.
    #[schemars(example = &"acme")]
    pub organization: String,
    /// E.164, or a plain SIP user such as `100`; `*` matches what has no entry of its own.
    #[schemars(extend("format" = "number"), example = &"+15550100")]
    pub number: String,
    /// What happens to a call, step by step.
    #[schemars(length(min = 1), example = [Step::Assistant { assistant: "reception".into() }])]
    pub flow: Vec<Step>,
}

/// A phone that registers with this installation. Its password is in an environment variable of the server, or is
/// given as its hashes; it is kept as hashes only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phone {
    /// Owner.
    #[schemars(example = &"acme")]
    pub organization: String,
    /// User of its address and of its credentials, and its extension: others of the organization call it by that.
    #[schemars(extend("format" = "name"), example = &"101")]
    pub user: String,
    /// Environment variable of the server that holds the password; with `_FILE` added to its name, the path of a file
    /// that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "variable-name"), example = &"PHONE_101_PASSWORD")]
    pub password_env: Option<String>,
    /// MD5 of `USER:REALM:PASSWORD` in hexadecimal, in place of `password_env`. The realm is `sip.registrar.realm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9a-fA-F]{32}$"))]
    pub ha1_md5: Option<String>,
    /// SHA-256 of the same. Both are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9a-fA-F]{64}$"))]
    pub ha1_sha256: Option<String>,
    /// The number its calls come from. Absent: its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "number"), example = &"+15550100")]
    pub number: Option<String>,
    /// Trunks it may call out over. Empty: it reaches the phones and numbers of its organization alone.
    #[serde(default)]
    #[schemars(example = ["twilio"])]
    pub trunks: Vec<String>,
}

/// A tool that an organization's own web server answers: a signed POST of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Owner.
    #[schemars(example = &"acme")]
    pub organization: String,
    /// Function name: letters, digits, `_` and `-`.
    #[schemars(extend("format" = "name"), example = &"find_order")]
    pub name: String,
    /// When and how a model should use it.
    #[schemars(example = &"Finds an order by its number.")]
    pub description: String,
    /// JSON Schema of its arguments. `"x-sensitive" = true` hides a value in the call's record.
    #[schemars(example = serde_json::json!({"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}))]
    pub parameters: serde_json::Value,
    /// Where it is asked: https, or http on this machine.
    #[schemars(extend("format" = "http-url"), example = &"https://crm.example.com/tandem/find-order")]
    pub url: String,
    /// Environment variable of the server that holds the secret requests are signed with; with `_FILE` added to its
    /// name, the path of a file that does. Absent: they are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "variable-name"), example = &"CRM_WEBHOOK_SECRET")]
    pub secret_env: Option<String>,
    /// More headers, each with the environment variable that holds its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("authorization", "CRM_AUTHORIZATION")]))]
    pub headers_env: BTreeMap<String, String>,
    /// Seconds it may take. 1 to 120. Absent: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 120), example = 10)]
    pub timeout_s: Option<u32>,
    /// Said while it runs, if it takes long enough for the caller to wonder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"One moment, I am looking that up.")]
    pub speak: Option<String>,
    /// Give it up when the caller speaks.
    #[serde(default)]
    pub cancel_on_barge_in: bool,
}

/// Says what is wrong with a text, if something is, and what to write.
pub type Judge = fn(&str) -> Result<(), String>;

/// What exists besides the file, for judging its references.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Organizations in the store.
    pub organizations: Vec<String>,
    /// Assistants in the store: organization and name.
    pub assistants: Vec<(String, String)>,
    /// Configured providers.
    pub providers: Vec<String>,
    /// Tools that all assistants can use.
    pub tools: Vec<String>,
    /// Names of tools that are part of the program: no other tool is ever called by them.
    pub built_in_tools: Vec<String>,
    /// Names that later versions will give to tools of their own.
    pub later_tools: Vec<String>,
    /// Says what is wrong with a destination, if something is.
    pub judge_destination: Option<Judge>,
    /// Tools in the store: organization and name.
    pub own_tools: Vec<(String, String)>,
    /// Configured trunks.
    pub trunks: Vec<String>,
    /// The kinds of the configured providers, by name.
    pub kinds: Vec<(String, String)>,
    /// `routing.default_chain`.
    pub default_chain: Vec<String>,
}

/// Reads a resources file and reports everything that is wrong with it at once. `file` is its name in
/// findings. Without `known` (a client that has no store) references are not judged.
pub fn parse(file: &str, text: &str, known: Option<&Known>) -> (Resources, Vec<Finding>) {
    let mut findings = Vec::new();
    let root = tree::parse(file, text, &mut findings);
    let right = load::check(&CHECKER, &root, &mut findings);
    let resources = serde_json::from_value(right.to_json()).unwrap_or_else(|error| {
        let message = format!("the file cannot be read: {error}");
        findings.push(Finding::error(&root.place, "", message, "correct the value"));
        Resources::default()
    });
    let mut rules = Rules { resources: &resources, tree: &right, whole: &root, findings: &mut findings };
    rules.names();
    rules.flows();
    rules.manners();
    if let Some(known) = known {
        rules.references(known);
    }
    finding::sort(&mut findings);
    (resources, findings)
}

/// The JSON Schema of a resources file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Resources).to_value()
}

struct Rules<'a> {
    resources: &'a Resources,
    tree: &'a Item,
    whole: &'a Item,
    findings: &'a mut Vec<Finding>,
}

impl Rules<'_> {
    fn error(&mut self, key: &str, message: impl Into<String>, fix: impl Into<String>) {
        let (place, key) = self.tree.locate(key);
        self.findings.push(Finding::error(&place, key, message, fix));
    }

    fn warning(&mut self, key: &str, message: impl Into<String>, fix: impl Into<String>) {
        let (place, key) = self.tree.locate(key);
        self.findings.push(Finding::warning(&place, key, message, fix));
    }

    /// Names are unique where they must be.
    fn names(&mut self) {
        let resources = self.resources;
        let organizations = resources.organization.iter().map(|o| ("name", o.name.clone()));
        let users = resources.user.iter().map(|u| ("email", u.email.to_lowercase()));
        let assistants =
            resources.assistant.iter().map(|a| ("name", format!("{}/{}", a.organization, a.name)));
        let numbers = resources.number.iter().map(|n| ("number", n.number.clone()));
        self.unique("organization", organizations.collect());
        self.unique("user", users.collect());
        self.unique("assistant", assistants.collect());
        self.unique("number", numbers.collect());
        let phones = resources.phone.iter().map(|p| ("user", p.user.clone()));
        self.unique("phone", phones.collect());
        let tools = resources.tool.iter().map(|t| ("name", format!("{}/{}", t.organization, t.name)));
        self.unique("tool", tools.collect());
        for (index, phone) in resources.phone.iter().enumerate() {
            let hashes = phone.ha1_md5.is_some() && phone.ha1_sha256.is_some();
            let some = phone.ha1_md5.is_some() || phone.ha1_sha256.is_some();
            if phone.password_env.is_some() == some || some != hashes {
                let message = "a phone needs its password: a variable that holds it, or both hashes";
                let fix = "add password_env = \"PHONE_101_PASSWORD\", or ha1_md5 and ha1_sha256";
                self.error(&format!("phone[{index}].user"), message, fix);
            }
        }
        for (index, user) in resources.user.iter().enumerate() {
            if user.organization.is_none() && user.role != Role::Admin {
                let message = format!("a user with role {} needs an organization", user.role.as_str());
                self.error(&format!("user[{index}].organization"), message, "add organization = \"acme\"");
            }
        }
    }

    fn unique(&mut self, kind: &str, names: Vec<(&str, String)>) {
        for (index, (field, name)) in names.iter().enumerate() {
            if let Some(first) = names[..index].iter().position(|(_, earlier)| earlier == name) {
                let message = format!("\"{name}\" is also {kind}[{first}]");
                self.error(&format!("{kind}[{index}].{field}"), message, "remove one of the two");
            }
        }
    }

    fn manners(&mut self) {
        let resources = self.resources;
        for (index, assistant) in resources.assistant.iter().enumerate() {
            let after = assistant.silence.as_ref().map(|silence| silence.after.0.as_secs_f64());
            if after.is_some_and(|after| !(1.0..=600.0).contains(&after)) {
                let (message, fix) = ("silence is 1 to 600 seconds long", "write after = 8");
                self.error(&format!("assistant[{index}].silence.after"), message, fix);
            }
            if assistant.greeting_file.is_some() && assistant.greeting.is_none() {
                let message = "nobody knows what is said in this file";
                let fix = "add greeting = \"...\" with its words, for the transcript and for the model";
                self.warning(&format!("assistant[{index}].greeting_file"), message, fix);
            }
        }
    }

    fn flows(&mut self) {
        let resources = self.resources;
        for (number_index, number) in resources.number.iter().enumerate() {
            let mut answered = false;
            for (index, step) in number.flow.iter().enumerate() {
                let key = format!("number[{number_index}].flow[{index}]");
                if answered && step.needs_unanswered() {
                    let message = format!("`{}` comes after a step that answers the call", step.name());
                    self.error(&key, message, "move it before that step");
                }
                if step.is_last() && index + 1 < number.flow.len() {
                    let message = format!("nothing after `{}` is reached", step.name());
                    self.warning(&key, message, "remove the steps that follow");
                }
                answered |= step.needs_answer();
            }
        }
    }

    fn references(&mut self, known: &Known) {
        let resources = self.resources;
        let mut organizations = known.organizations.clone();
        organizations.extend(self.written("organization", "name"));
        let users = resources.user.iter().enumerate();
        let users = users.filter_map(|(i, u)| Some((format!("user[{i}]"), u.organization.clone()?)));
        let assistants = resources.assistant.iter().enumerate();
        let assistants = assistants.map(|(i, a)| (format!("assistant[{i}]"), a.organization.clone()));
        let numbers = resources.number.iter().enumerate();
        let numbers = numbers.map(|(i, n)| (format!("number[{i}]"), n.organization.clone()));
        let phones = resources.phone.iter().enumerate();
        let phones = phones.map(|(i, p)| (format!("phone[{i}]"), p.organization.clone()));
        let tools = resources.tool.iter().enumerate();
        let tools = tools.map(|(i, t)| (format!("tool[{i}]"), t.organization.clone()));
        for (key, organization) in users.chain(assistants).chain(numbers).chain(phones).chain(tools) {
            let key = format!("{key}.organization");
            self.refer(&key, "organization", &organization, &organizations);
        }
        for (index, phone) in resources.phone.iter().enumerate() {
            for (place, trunk) in phone.trunks.iter().enumerate() {
                self.refer(&format!("phone[{index}].trunks[{place}]"), "trunk", trunk, &known.trunks);
            }
        }
        for (index, assistant) in resources.assistant.iter().enumerate() {
            for (place, provider) in assistant.chain.iter().enumerate() {
                self.refer(
                    &format!("assistant[{index}].chain[{place}]"),
                    "provider",
                    provider,
                    &known.providers,
                );
            }
            self.beyond_the_providers(index, assistant, known);
            self.destinations(index, assistant, known);
            for (place, tool) in assistant.tools.iter().enumerate() {
                let key = format!("assistant[{index}].tools[{place}]");
                let own = self.resources.tool.iter().filter(|t| t.organization == assistant.organization);
                let own = own.map(|tool| tool.name.as_str());
                let stored = known.own_tools.iter().filter(|(owner, _)| *owner == assistant.organization);
                let stored = stored.map(|(_, name)| name.as_str());
                let mut names = known.tools.iter().map(String::as_str).chain(own).chain(stored);
                let found = match tool.strip_suffix('*') {
                    Some(beginning) => names.any(|name| name.starts_with(beginning)),
                    None => names.any(|name| name == tool),
                };
                if !found {
                    let fix = "the assistant works without it; `tandem provider tools` lists what there is";
                    self.warning(&key, format!("there is no tool \"{tool}\" now"), fix);
                } else if tool == "transfer_call" && assistant.transfer_to.is_empty() {
                    let fix = "add transfer_to = { sales = \"+15550123\" }";
                    self.warning(&key, "transfer_call has nowhere to move calls to", fix);
                }
            }
        }
        self.names_of_tools(known);
        self.assistants_of_flows(known);
    }

    /// Where an assistant moves calls to must be somewhere.
    fn destinations(&mut self, index: usize, assistant: &Assistant, known: &Known) {
        let Some(judge) = known.judge_destination else { return };
        for (name, target) in &assistant.transfer_to {
            if let Err(fix) = judge(target) {
                let key = format!("assistant[{index}].transfer_to.{name}");
                self.error(&key, format!("\"{target}\" cannot be dialled"), fix);
            }
        }
    }

    /// A tool whose name is taken would never run.
    fn names_of_tools(&mut self, known: &Known) {
        for (index, tool) in self.resources.tool.iter().enumerate() {
            let (key, name) = (format!("tool[{index}].name"), &tool.name);
            if known.built_in_tools.contains(name) {
                let fix = format!("choose another name, such as \"{}_{name}\"", tool.organization);
                self.error(&key, format!("\"{name}\" is built in, so this one would never be used"), fix);
            } else if known.later_tools.contains(name) {
                let fix = "choose another name before an update does";
                self.warning(&key, format!("a later version has a tool \"{name}\" of its own"), fix);
            }
        }
    }

    /// Switches that a provider of the chain cannot do.
    fn beyond_the_providers(&mut self, index: usize, assistant: &Assistant, known: &Known) {
        let chain = if assistant.chain.is_empty() { &known.default_chain } else { &assistant.chain };
        for provider in chain {
            let kind = known.kinds.iter().find(|(name, _)| name == provider).map(|(_, kind)| kind.as_str());
            for switch in kind.map(|kind| unheeded(assistant, kind)).unwrap_or_default() {
                let message = format!("the provider \"{provider}\" does not do this");
                let fix = "conversations it takes go without; see the README's section on assistants";
                self.warning(&format!("assistant[{index}].{switch}"), message, fix);
            }
        }
    }

    fn assistants_of_flows(&mut self, known: &Known) {
        let resources = self.resources;
        for (number_index, number) in resources.number.iter().enumerate() {
            let mut names: Vec<String> = known
                .assistants
                .iter()
                .filter(|(o, _)| *o == number.organization)
                .map(|(_, n)| n.clone())
                .collect();
            names.extend(self.written("assistant", "name"));
            for (index, step) in number.flow.iter().enumerate() {
                if let Step::Assistant { assistant } = step {
                    let key = format!("number[{number_index}].flow[{index}].assistant");
                    let of = format!("assistant of \"{}\"", number.organization);
                    self.refer(&key, &of, assistant, &names);
                }
            }
        }
    }

    /// Names of a kind as written, with those of entries that are wrong in other ways.
    fn written(&self, kind: &str, field: &str) -> Vec<String> {
        let names = (0..).map_while(|i| self.whole.at(&format!("{kind}[{i}]")));
        names.filter_map(|entry| entry.at(field)?.to_json().as_str().map(str::to_owned)).collect()
    }

    fn refer(&mut self, key: &str, kind: &str, name: &str, names: &[String]) {
        if names.iter().any(|known| known == name) {
            return;
        }
        let fix = match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if names.is_empty() => "there is none yet; add one".to_owned(),
            None => format!("known: {}", names.join(", ")),
        };
        self.error(key, format!("there is no {kind} \"{name}\""), fix);
    }
}

/// Making the schema costs more than judging a file by it.
static CHECKER: LazyLock<Checker> = LazyLock::new(|| Checker::new(schema()));
