//! Sections that are read and checked although this version does not act on them. Whoever writes one
//! is told so; nothing is ignored in silence.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Several nodes as one installation. Not available in this version.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Redis that nodes share.
    #[schemars(extend("format" = "redis-url"), example = &"redis://127.0.0.1:6379")]
    pub redis_url: String,
}

/// Calls controlled through Asterisk's REST interface. Not available in this version.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ari {
    /// Base URL of the interface.
    #[schemars(extend("format" = "http-url"), example = &"http://127.0.0.1:8088/ari")]
    pub url: String,
    /// User of `ari.conf`.
    #[schemars(example = &"tandem")]
    pub username: String,
    /// Environment variable that holds the password; with `_FILE` added to its name, the path of a file that does.
    #[schemars(extend("format" = "variable-name"), example = &"ARI_PASSWORD")]
    pub password_env: String,
    /// Stasis application that calls are sent to.
    #[schemars(example = &"tandem")]
    pub application: String,
    /// The password, from `password_env`.
    #[serde(skip)]
    pub password: Option<SecretString>,
}
