//! How Ultravox finds the caller's turns.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::duration;

/// How Ultravox finds the caller's turns, for assistants that do not say. The service works in steps of 32 ms.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UltravoxVad {
    /// Silence that ends a turn. More makes the assistant slower and less likely to speak too early. 32ms to 5s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-minimum" = "32ms", "x-maximum" = "5s"))]
    pub turn_endpoint_delay: Duration,
    /// Speech that makes a turn; what is shorter is not answered. At most 5s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-maximum" = "5s"))]
    pub minimum_turn: Duration,
    /// Speech that interrupts the assistant. At most 5s.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration-text", "x-maximum" = "5s"))]
    pub minimum_interruption: Duration,
    /// How sure the service must be that it hears speech: 0.1 to 1.
    #[schemars(range(min = 0.1, max = 1.0))]
    pub activation_threshold: f64,
}

impl Default for UltravoxVad {
    fn default() -> Self {
        Self {
            turn_endpoint_delay: Duration::from_millis(384),
            minimum_turn: Duration::ZERO,
            minimum_interruption: Duration::from_millis(90),
            activation_threshold: 0.1,
        }
    }
}
