//! The `[cost]` section: what things cost, and how much may be spent.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::money::Money;

/// What calls cost, and how much may be spent on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cost {
    /// File with dated prices of models, transcription, sessions and trunk minutes. Absent: the list prices this
    /// version was built with, in USD, and no prices of trunks.
    #[schemars(example = &"/etc/tandem/prices.toml")]
    pub prices: Option<PathBuf>,
    /// Most a single call with an assistant may cost, in the price table's currency. Absent: no limit.
    #[schemars(example = &"2.50")]
    pub max_per_call: Option<Money>,
    /// Most all calls that begin on one day (UTC) may cost together. Absent: no limit.
    #[schemars(example = &"100.00")]
    pub max_per_day: Option<Money>,
    /// What happens to a conversation with an assistant at a limit: `end` says the farewell and hangs up,
    /// `continue_flow` goes on with the steps after the assistant's.
    pub on_limit: OnLimit,
    /// What the assistant says when a limit ends a call.
    pub farewell: String,
}

/// What happens at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnLimit {
    /// The assistant says goodbye and the call ends.
    #[default]
    End,
    /// The flow goes on with the steps after the assistant's.
    ContinueFlow,
}

impl Default for Cost {
    fn default() -> Self {
        Self {
            prices: None,
            max_per_call: None,
            max_per_day: None,
            on_limit: OnLimit::End,
            farewell: "I am sorry, I have to end our call here. Goodbye.".into(),
        }
    }
}
