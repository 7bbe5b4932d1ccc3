//! The `[providers.NAME]` sections: realtime speech AIs.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::ultravox::UltravoxVad;
use super::values::{VariableName, duration};

/// Name of the provider that is there without any configuration.
pub const BUILT_IN: &str = "scripted";

/// One provider, by `kind`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProviderSection {
    /// OpenAI Realtime, or a compatible server.
    Openai(OpenAi),
    /// The embedded default: no network, no key.
    Scripted(Scripted),
    /// Ultravox.
    Ultravox(Ultravox),
    /// An Ultravox agent that is called by SIP.
    UltravoxSip(UltravoxSip),
}

impl ProviderSection {
    /// As written in `kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Openai(_) => "openai",
            Self::Scripted(_) => "scripted",
            Self::Ultravox(_) => "ultravox",
            Self::UltravoxSip(_) => "ultravox_sip",
        }
    }

    /// When it is no longer tried, for kinds that can fail.
    pub const fn breaker(&self) -> Option<&Breaker> {
        match self {
            Self::Openai(openai) => Some(&openai.breaker),
            Self::Ultravox(ultravox) => Some(&ultravox.breaker),
            // Its trunk's targets have a watch of their own.
            Self::Scripted(_) | Self::UltravoxSip(_) => None,
        }
    }

    /// The service's URL, for kinds that have one.
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Openai(openai) => Some(&openai.url),
            Self::Ultravox(ultravox) => Some(&ultravox.url),
            Self::UltravoxSip(agent) => Some(&agent.api_url),
            Self::Scripted(_) => None,
        }
    }
}

/// OpenAI Realtime (the GA protocol), or any server that speaks it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAi {
    /// WebSocket URL of the service, without the model.
    #[schemars(extend("format" = "websocket-url"), example = &"ws://127.0.0.1:9400/v1/realtime")]
    pub url: String,
    /// Model, for assistants that name none.
    #[schemars(example = &"gpt-realtime-2.1-mini")]
    pub model: String,
    /// Voice, for assistants that name none.
    #[schemars(example = &"cedar")]
    pub voice: String,
    /// Environment variables that hold API keys, used in turn; with `_FILE` added to a name, the path of a
    /// file that does. Empty: no key is sent.
    #[schemars(with = "Vec<VariableName>", example = ["OPENAI_API_KEY", "OPENAI_API_KEY_2"])]
    pub api_key_env: Vec<String>,
    /// Model that writes down what the caller says. Empty: the caller's words are not transcribed.
    #[schemars(example = &"gpt-realtime-whisper")]
    pub transcription_model: String,
    /// Audio sent per WebSocket message, in milliseconds: a multiple of 20 up to 200. More saves CPU and adds delay.
    #[schemars(range(min = 20, max = 200), extend("multipleOf" = 20))]
    pub uplink_interval_ms: u16,
    /// The same for a caller who is quiet and whom the service does not hear speak. Their next sound is not
    /// kept for it, so it saves CPU and delays no word. Below `uplink_interval_ms` it has no effect.
    #[schemars(range(min = 20, max = 200), extend("multipleOf" = 20))]
    pub quiet_uplink_interval_ms: u16,
    /// Noise reduction before turn detection: `off`, `near_field` (handset) or `far_field` (speakerphone).
    pub noise_reduction: NoiseReduction,
    /// Longest answer in tokens. 0: the service's own limit. At most 4096.
    #[schemars(range(max = 4096))]
    pub max_output_tokens: u32,
    /// How long DNS, TCP, TLS and the first reply may take together. 1s to 30s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "30s"))]
    pub connect_timeout: Duration,
    /// When it is no longer tried.
    pub breaker: Breaker,
    /// How long the service lets a session last. A call that goes on longer is given a new session a little before, at
    /// a quiet moment. 0s: for ever. At most 1d.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-maximum" = "1d"))]
    pub session_limit: Duration,
    /// The keys, from `api_key_env`.
    #[serde(skip)]
    pub api_keys: Vec<SecretString>,
}

impl Default for OpenAi {
    fn default() -> Self {
        Self {
            url: "wss://api.openai.com/v1/realtime".into(),
            model: "gpt-realtime-2.1".into(),
            voice: "marin".into(),
            api_key_env: vec!["OPENAI_API_KEY".into()],
            transcription_model: "gpt-transcribe".into(),
            uplink_interval_ms: 20,
            quiet_uplink_interval_ms: 100,
            noise_reduction: NoiseReduction::Off,
            max_output_tokens: 0,
            connect_timeout: Duration::from_secs(5),
            breaker: Breaker::default(),
            session_limit: Duration::from_secs(3600),
            api_keys: Vec::new(),
        }
    }
}

/// When a provider that fails is no longer tried, and when it is tried again. Calls go to the next provider
/// of their chain meanwhile.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ProviderBreaker")]
pub struct Breaker {
    /// Failures in a row after which it is no longer tried. While nothing shows that the service lives, no
    /// more openings than this are under way at a time. 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub failures: u32,
    /// How long it is not tried then. 1s to 10m.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "10m"))]
    pub cool_down: Duration,
    /// A session that takes this long to open counts as a failure. 100ms to 1m.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "100ms", "x-maximum" = "1m"))]
    pub slow: Duration,
    /// Openings in a row, one at a time, that must succeed after the cool-down before all calls use it
    /// again. 1 to 10.
    #[schemars(range(min = 1, max = 10))]
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, cool_down: Duration::from_secs(30), slow: Duration::from_secs(3), probes: 1 }
    }
}

/// The service's noise reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum NoiseReduction {
    /// None.
    #[default]
    Off,
    /// For a handset or headset.
    NearField,
    /// For a speakerphone.
    FarField,
}

/// The embedded provider: real voice activity detection and a script of spoken lines and tool calls.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scripted {
    /// Script file, for assistants that name none. Absent: a short built-in conversation.
    #[schemars(example = &"scripts/reception.toml")]
    pub script: Option<PathBuf>,
}

/// Ultravox Realtime, over its WebSocket medium.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ultravox {
    /// URL of the service.
    #[schemars(extend("format" = "http-url"), example = &"https://api.ultravox.ai")]
    pub url: String,
    /// Model, for assistants that name none. Absent: the service's default.
    #[schemars(example = &"ultravox-v0.7")]
    pub model: Option<String>,
    /// Voice, for assistants that name none: its id, or its name where that is unique. Absent: the service's default.
    #[schemars(example = &"Mark")]
    pub voice: Option<String>,
    /// 0 (the same words each time) to 1 (the most varied). Absent: the service's default.
    #[schemars(range(min = 0.0, max = 1.0), example = 0.4)]
    pub temperature: Option<f64>,
    /// Rate of the caller's audio towards the service: 8000, 16000, 24000 or 48000 Hz. The bridge has 24000.
    #[schemars(range(min = 8000, max = 48000))]
    pub input_sample_rate: u32,
    /// Rate of the assistant's audio: 8000, 16000, 24000 or 48000 Hz.
    #[schemars(range(min = 8000, max = 48000))]
    pub output_sample_rate: u32,
    /// How far ahead of playback the service may send, in milliseconds: 60 to 60000. Little makes gaps on a
    /// jittery network; what was not heard is dropped when the caller interrupts, so much does not hurt.
    #[schemars(range(min = 60, max = 60000))]
    pub client_buffer_ms: u32,
    /// Longest call: the service ends it then. 1m to 1d.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1m", "x-maximum" = "1d"))]
    pub max_duration: Duration,
    /// How long a call that was made waits for our audio connection before the service ends it. 5s to 5m.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "5s", "x-maximum" = "5m"))]
    pub join_timeout: Duration,
    /// How long the conversation may stand still for a tool. A result that takes longer is announced, and told
    /// when it is there. 2500ms to 40s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "2500ms", "x-maximum" = "40s"))]
    pub tool_timeout: Duration,
    /// How turns are found, for assistants that do not say.
    pub vad: UltravoxVad,
    /// How long making a call, joining it and its start may take together. 1s to 30s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "30s"))]
    pub connect_timeout: Duration,
    /// Environment variables that hold API keys, used in turn; with `_FILE` added to a name, the path of a
    /// file that does.
    #[schemars(with = "Vec<VariableName>", example = ["ULTRAVOX_API_KEY"])]
    pub api_key_env: Vec<String>,
    /// When it is no longer tried.
    pub breaker: Breaker,
    /// The keys, from `api_key_env`.
    #[serde(skip)]
    pub api_keys: Vec<SecretString>,
}

impl Default for Ultravox {
    fn default() -> Self {
        Self {
            url: "https://api.ultravox.ai".into(),
            model: None,
            voice: None,
            temperature: None,
            input_sample_rate: 24_000,
            output_sample_rate: 24_000,
            client_buffer_ms: 30_000,
            max_duration: Duration::from_secs(3600),
            join_timeout: Duration::from_secs(15),
            tool_timeout: Duration::from_secs(6),
            vad: UltravoxVad::default(),
            connect_timeout: Duration::from_secs(5),
            api_key_env: vec!["ULTRAVOX_API_KEY".into()],
            breaker: Breaker::default(),
            api_keys: Vec::new(),
        }
    }
}

/// An Ultravox agent in its SIP-native medium: calls are sent to it over a trunk, no audio passes a session of ours, and
/// the call is followed by webhooks at `/hooks/ultravox/NAME`. What the agent says, knows and can do is set up there.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UltravoxSip {
    /// Where the agent answers: `sip:agent_ID@DOMAIN`, with the account's SIP domain. Must be set.
    #[schemars(example = &"sip:agent_3f1c@acme.sip.ultravox.ai")]
    pub agent: String,
    /// Name of the trunk that leads there: one of its peers is the agent's domain. Must be set.
    #[schemars(example = &"ultravox")]
    pub trunk: String,
    /// URL of the service's REST, from which transcripts are fetched.
    #[schemars(extend("format" = "http-url"), example = &"https://api.ultravox.ai")]
    pub api_url: String,
    /// Environment variables that hold API keys, tried in turn; with `_FILE` added to a name, the path of a file that
    /// does.
    #[schemars(with = "Vec<VariableName>", example = ["ULTRAVOX_API_KEY"])]
    pub api_key_env: Vec<String>,
    /// Environment variables that hold the secrets webhooks are signed with; any of them is enough. Without one no
    /// webhook is accepted, and calls have no transcript.
    #[schemars(with = "Vec<VariableName>", example = ["ULTRAVOX_WEBHOOK_SECRET"])]
    pub webhook_secret_env: Vec<String>,
    /// How long the agent may take to answer before the next provider of the chain is tried. 1s to 60s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "60s"))]
    pub ring_timeout: Duration,
    /// How long a call's record waits for its transcript and bill after the end. 1s to 5m.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "5m"))]
    pub account_timeout: Duration,
    /// The keys, from `api_key_env`.
    #[serde(skip)]
    pub api_keys: Vec<SecretString>,
    /// The secrets, from `webhook_secret_env`.
    #[serde(skip)]
    pub webhook_secrets: Vec<SecretString>,
}

impl Default for UltravoxSip {
    fn default() -> Self {
        Self {
            agent: String::new(),
            trunk: String::new(),
            api_url: "https://api.ultravox.ai".into(),
            api_key_env: vec!["ULTRAVOX_API_KEY".into()],
            webhook_secret_env: vec!["ULTRAVOX_WEBHOOK_SECRET".into()],
            ring_timeout: Duration::from_secs(8),
            account_timeout: Duration::from_secs(30),
            api_keys: Vec::new(),
            webhook_secrets: Vec::new(),
        }
    }
}
