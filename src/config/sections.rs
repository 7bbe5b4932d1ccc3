//! The sections of `tandem.toml` that describe this node: its name, HTTP, store, logs, drain, recording,
//! routing. Each field's documentation, default and example are also the manual, the JSON Schema and
//! what `tandem init` writes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::duration;

/// This node.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Name of this node in logs and metrics.
    #[schemars(extend("format" = "name"), example = &"edge-1")]
    pub name: String,
    /// Where the database, recordings and the local socket live. A relative path starts at the working
    /// directory. Created when missing.
    #[schemars(example = &"/var/lib/tandem")]
    pub data_dir: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self { name: "tandem".into(), data_dir: "data".into() }
    }
}

/// The HTTP API, the live feed, health and metrics.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port. Port 0 takes a free one. Anything but a loopback address needs `insecure`.
    #[schemars(with = "String", extend("format" = "socket-address"), example = &"127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Unix socket for commands on this host, which need no token. Absent: `tandem.sock` in `node.data_dir`.
    #[schemars(example = &"/run/tandem/tandem.sock")]
    pub socket: Option<PathBuf>,
    /// Accept plain HTTP on an address other machines can reach. Set it only behind a proxy that does
    /// TLS, or on a private network: tokens and transcripts cross the wire readable.
    pub insecure: bool,
    /// Largest request body, in bytes. 1024 to 16777216.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub max_body_bytes: u32,
    /// How often the live feed pings a client that is silent. A client that is silent three times is cut off. 1s to 5m.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "5m"))]
    pub feed_heartbeat: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            socket: None,
            insecure: false,
            max_body_bytes: 1 << 20,
            feed_heartbeat: Duration::from_secs(20),
        }
    }
}

/// The database: calls, events, transcripts, resources, tokens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// SQLite file or PostgreSQL database. While it is not set, the file follows `node.data_dir`. A
    /// password is better given as `TANDEM__STORE__URL` or `TANDEM__STORE__URL_FILE` than in this file.
    #[schemars(extend("format" = "store-url"), example = &"postgres://tandem@db.example.com/tandem")]
    pub url: String,
    /// Connections to PostgreSQL, or readers of SQLite (which has one writer). 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub connections: u32,
}

impl Default for Store {
    fn default() -> Self {
        Self { url: "sqlite://data/tandem.db".into(), connections: 8 }
    }
}

/// What is logged, and how. Logs go to standard error.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `human` for people, `json` for one JSON object a line.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,tandem::sip=debug`.
    /// The variable `RUST_LOG` overrides it.
    #[schemars(extend("format" = "log-filter"), example = &"info,tandem::sip=debug")]
    pub level: String,
    /// Write phone numbers in full. They are masked to the last two digits otherwise.
    pub personal_data: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".into(), personal_data: false }
    }
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What happens on SIGTERM: new calls are refused, calls in progress may finish.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long calls may go on before they get a BYE. A second SIGTERM ends the wait. At most 1d.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-maximum" = "1d"))]
    pub limit: Duration,
    /// `Retry-After` of the 503 that new calls get, in whole seconds. 1s to 1h.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "1h"))]
    pub retry_after: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { limit: Duration::from_secs(60), retry_after: Duration::from_secs(60) }
    }
}

/// Call recordings: stereo WAV, caller left, assistant right.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recording {
    /// Record the calls of organizations whose `recording` setting consents to it. Off: nothing is recorded.
    pub enabled: bool,
    /// Where recordings go. Absent: `recordings` in `node.data_dir`.
    #[schemars(example = &"/srv/recordings")]
    pub dir: Option<PathBuf>,
}

/// Which AI answers when nothing more specific is said.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Routing {
    /// Providers in order of preference, for assistants without a `chain` of their own.
    #[schemars(length(min = 1), example = ["openai", "scripted"])]
    pub default_chain: Vec<String>,
    /// When a provider of a chain has not opened a session after this long, the next one is tried beside it; the first
    /// that is ready is taken. 100ms to 30s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "100ms", "x-maximum" = "30s"))]
    pub hedge_after: Duration,
    /// A provider that says nothing for this long while an answer is due has stalled: another session takes over.
    /// 1s to 1m.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "1m"))]
    pub stall_after: Duration,
    /// When a provider is lost and the caller has waited in silence for this long, the filler is played. 200ms to 10s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "200ms", "x-maximum" = "10s"))]
    pub filler_after: Duration,
    /// What is said to a caller who waits while a provider is lost. Empty: nothing.
    #[schemars(example = &"One moment, please.")]
    pub filler: String,
    /// WAV file that is played in place of `filler`.
    #[schemars(example = &"sounds/moment.wav")]
    pub filler_file: Option<PathBuf>,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            default_chain: vec![super::providers::BUILT_IN.into()],
            hedge_after: Duration::from_secs(1),
            stall_after: Duration::from_secs(4),
            filler_after: Duration::from_millis(700),
            filler: "One moment, please.".into(),
            filler_file: None,
        }
    }
}
