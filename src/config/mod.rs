//! Configuration: `tandem.toml`, the environment and the command line, as one typed [`Config`].
//!
//! ```text
//! file, variables, options → tree (with places) → checked against the schema → Config → rules
//! ```
//!
//! The schema is derived from the types of this module: their documentation, defaults and examples are
//! what `config schema` prints and `tandem init` writes. Everything that is wrong is found in one go, as
//! [`Finding`]s with file, line, column, key and fix. Later layers win: defaults, file, environment
//! (`TANDEM__SECTION__KEY`), command line. Nothing here listens, connects or spawns.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod ari;
mod asterisk_websocket;
mod audiosocket;
mod check;
mod cost;
mod later;
mod layers;
mod load;
mod media;
mod money;
mod providers;
mod registrar;
mod rules;
mod secrets;
mod sections;
mod show;
mod sip;
mod template;
mod tools;
mod trace;
mod tree;
mod trunk;

pub mod finding;
pub mod flow;
pub mod manners;
pub mod resources;
mod ultravox;
pub mod values;

pub use ari::{Ari, AriMedium, AriOrphans};
pub use asterisk_websocket::AsteriskWebsocket;
pub use audiosocket::AudioSocket;
pub use cost::{Cost, OnLimit};
pub use finding::{Finding, Place, Severity};
pub use later::Cluster;
pub use load::{Loaded, Sources, load, parse};
pub use media::{CodecName, Media, Srtp};
pub use money::{MONEY_SCALE, Money};
pub use providers::{
    BUILT_IN, Breaker, NoiseReduction, OpenAi, ProviderSection, Scripted, Ultravox, UltravoxSip,
};
pub use registrar::SipRegistrar;
pub use rules::BUILT_IN_PROFILES;
pub(crate) use secrets::secret_of_process;
pub use secrets::{MasterKey, Secrets};
pub use sections::{Drain, Http, Log, LogFormat, Node, Recording, Routing, Store};
pub use show::{Setting, shown, to_toml};
pub use sip::{AdvertiseFor, ClientCertificates, OptionsPolicy, Sip, SipFlood, SipTls, UnknownSources};
pub use template::template;
pub use tools::{Mcp, Tools};
pub use trace::{SipHep, SipTrace};
pub use trunk::{CallerHeader, Dtmf, InboundAuth, NumberFormat, Refer, Register, Trunk};
pub use ultravox::UltravoxVad;
pub use values::{Network, PortRange, SipListen, SipTransport};

/// Everything `tandem.toml` can say, checked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "tandem.toml")]
pub struct Config {
    /// This node.
    pub node: Node,
    /// SIP: where it listens and how it behaves.
    pub sip: Sip,
    /// RTP and the threads that handle it.
    pub media: Media,
    /// The HTTP API, the live feed, health and metrics.
    pub http: Http,
    /// The database.
    pub store: Store,
    /// How secrets in the database are kept.
    pub secrets: Secrets,
    /// What is logged, and how.
    pub log: Log,
    /// What happens on SIGTERM.
    pub drain: Drain,
    /// Call recordings.
    pub recording: Recording,
    /// Which AI answers when nothing more specific is said.
    pub routing: Routing,
    /// What calls cost, and how much may be spent on them.
    pub cost: Cost,
    /// Realtime speech AIs by name. `scripted` is there without being written.
    pub providers: BTreeMap<String, ProviderSection>,
    /// Tools that organizations declare.
    pub tools: Tools,
    /// MCP servers whose tools assistants may use, by name.
    pub mcp: BTreeMap<String, Mcp>,
    /// Connections to carriers and PBXs.
    pub trunk: Vec<Trunk>,
    /// Several nodes as one installation. Not available in this version.
    pub cluster: Option<Cluster>,
    /// Calls of Asterisk's `AudioSocket()` application and channel. Absent: nothing listens.
    pub audiosocket: Option<AudioSocket>,
    /// Calls controlled through Asterisk's REST interface. Absent: none are.
    pub ari: Option<Ari>,
    /// Calls of Asterisk's `WebSocket` channel. Absent: nothing listens.
    pub asterisk_websocket: Option<AsteriskWebsocket>,
}

impl Default for Config {
    fn default() -> Self {
        let scripted = ProviderSection::Scripted(Scripted::default());
        Self {
            node: Node::default(),
            sip: Sip::default(),
            media: Media::default(),
            http: Http::default(),
            store: Store::default(),
            secrets: Secrets::default(),
            log: Log::default(),
            drain: Drain::default(),
            recording: Recording::default(),
            routing: Routing::default(),
            cost: Cost::default(),
            providers: BTreeMap::from([(BUILT_IN.into(), scripted)]),
            tools: Tools::default(),
            mcp: BTreeMap::new(),
            trunk: Vec::new(),
            cluster: None,
            audiosocket: None,
            ari: None,
            asterisk_websocket: None,
        }
    }
}

impl Config {
    /// The Unix socket for commands on this host.
    pub fn socket_path(&self) -> PathBuf {
        self.http.socket.clone().unwrap_or_else(|| self.node.data_dir.join("tandem.sock"))
    }

    /// The directory of recordings.
    pub fn recordings_dir(&self) -> PathBuf {
        self.recording.dir.clone().unwrap_or_else(|| self.node.data_dir.join("recordings"))
    }

    /// Most calls at a time: the limit, or what the RTP ports allow if that is less.
    pub fn call_limit(&self) -> u32 {
        let ports = self.media.rtp_ports.pairs();
        if self.sip.max_calls == 0 { ports } else { ports.min(self.sip.max_calls) }
    }
}

/// The JSON Schema of `tandem.toml`, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}
