//! The `[providers.NAME]` sections: realtime speech AIs.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

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
}

impl ProviderSection {
    /// As written in `kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Openai(_) => "openai",
            Self::Scripted(_) => "scripted",
            Self::Ultravox(_) => "ultravox",
        }
    }

    /// When it is no longer tried, for kinds that can fail.
    pub const fn breaker(&self) -> Option<&Breaker> {
        match self {
            Self::Openai(openai) => Some(&openai.breaker),
            Self::Ultravox(ultravox) => Some(&ultravox.breaker),
            Self::Scripted(_) => None,
        }
    }

    /// The service's URL, for kinds that have one.
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Openai(openai) => Some(&openai.url),
            Self::Ultravox(ultravox) => Some(&ultravox.url),
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
            noise_reduction: NoiseReduction::Off,
            max_output_tokens: 0,
            connect_timeout: Duration::from_secs(5),
            breaker: Breaker::default(),
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

/// Ultravox.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ultravox {
    /// URL of the service.
    #[schemars(extend("format" = "http-url"), example = &"https://api.ultravox.ai")]
    pub url: String,
    /// Model, for assistants that name none. Absent: the service's default.
    pub model: Option<String>,
    /// Voice, for assistants that name none. Absent: the service's default.
    pub voice: Option<String>,
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
            api_key_env: vec!["ULTRAVOX_API_KEY".into()],
            breaker: Breaker::default(),
            api_keys: Vec::new(),
        }
    }
}
