//! Sections that are read and checked although this version does not act on them. Whoever writes one
//! is told so; nothing is ignored in silence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Several nodes as one installation. Not available in this version.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Redis that nodes share.
    #[schemars(extend("format" = "redis-url"), example = &"redis://127.0.0.1:6379")]
    pub redis_url: String,
}
