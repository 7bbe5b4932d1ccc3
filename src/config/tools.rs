//! `[tools]` and `[mcp.NAME]`: what assistants may use besides what is built in.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::values::{Network, VariableName, duration};

/// Tools that organizations declare.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tools {
    /// Private networks that webhooks may be in. Empty: webhooks are on the internet; this machine and its networks
    /// are not asked.
    #[schemars(example = ["10.1.2.0/24", "127.0.0.0/8"])]
    pub allow_networks: Vec<Network>,
}

/// An MCP server whose tools assistants may use.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mcp {
    /// Program and arguments of a server that speaks over standard input and output. Or `url`.
    #[schemars(example = ["npx", "-y", "@example/crm-mcp"])]
    pub command: Vec<String>,
    /// Its environment, besides PATH, HOME, LANG and TMPDIR. Nothing secret: use `env_from`.
    #[schemars(example = BTreeMap::from([("CRM_REGION", "eu")]))]
    pub env: BTreeMap<String, String>,
    /// Variables of this server's environment that are handed on to it; with `_FILE` added to a name, the path of a
    /// file with the value.
    #[schemars(with = "Vec<VariableName>", example = ["CRM_TOKEN"])]
    pub env_from: Vec<String>,
    /// URL of a server that speaks streamable HTTP. Or `command`.
    #[schemars(extend("format" = "http-url"), example = &"https://crm.example.com/mcp")]
    pub url: Option<String>,
    /// Headers sent to it, each with the environment variable that holds its value.
    #[schemars(example = BTreeMap::from([("authorization", "CRM_AUTHORIZATION")]))]
    pub headers_env: BTreeMap<String, String>,
    /// Its tools that may be used. Empty: all.
    #[schemars(example = ["find_customer"])]
    pub tools: Vec<String>,
    /// Put before the names of its tools. Absent: the section's name and `_`.
    #[schemars(example = &"crm_")]
    pub prefix: Option<String>,
    /// Organizations whose assistants may use it. Empty: all.
    #[schemars(example = ["acme"])]
    pub organizations: Vec<String>,
    /// How long a tool may take. 1s to 120s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "1s", "x-maximum" = "120s"))]
    pub timeout: Duration,
    /// Give its tools up when the caller speaks.
    pub cancel_on_barge_in: bool,
    /// The values of `env_from`, by variable.
    #[serde(skip)]
    pub env_secrets: BTreeMap<String, SecretString>,
    /// The values of `headers_env`, by header.
    #[serde(skip)]
    pub header_secrets: BTreeMap<String, SecretString>,
}

impl Default for Mcp {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            env: BTreeMap::new(),
            env_from: Vec::new(),
            url: None,
            headers_env: BTreeMap::new(),
            tools: Vec::new(),
            prefix: None,
            organizations: Vec::new(),
            timeout: Duration::from_secs(20),
            cancel_on_barge_in: false,
            env_secrets: BTreeMap::new(),
            header_secrets: BTreeMap::new(),
        }
    }
}
