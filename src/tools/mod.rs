//! What assistants can do besides speaking: one registry for every provider.
//!
//! A [`Tool`] is a name, a description, a JSON Schema, and something that does it: the call itself
//! ([`action::Action`]), a web server of the organization ([`webhook`]) or an MCP server ([`mcp`]). An assistant's
//! [`toolbox::Toolbox`] holds those it may use on this call; what the model writes is checked there before anything
//! runs, and what is wrong comes back in words by which the model can mend it.
//!
//! Invariants: a model is shown no tool that cannot work on its call; nothing here runs on a media worker but the
//! check of arguments; arguments reach the record masked ([`mask`]) and logs not at all.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::id::CallId;
use crate::provider::ToolSpec;

pub mod action;
pub mod builtin;
pub mod guard;
pub mod mask;
pub mod mcp;
pub mod registry;
pub mod schema;
pub mod toolbox;
pub mod webhook;

use action::Action;
use schema::Schema;

/// One tool, ready to be used.
pub struct Tool {
    /// What it is.
    pub definition: Definition,
    /// Of its arguments.
    pub schema: Schema,
    /// What does it.
    pub handler: Handler,
}

/// What a tool is, whoever it is shown to.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Function name, `[a-zA-Z0-9_-]{1,64}`.
    pub name: String,
    /// When and how the model should use it.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// The model is told after this long that it took too long.
    pub timeout: Duration,
    /// Said while it runs, if it takes long enough for the caller to wonder.
    pub speak: Option<String>,
    /// Given up when the caller speaks.
    pub cancel_on_barge_in: bool,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a tool comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This server.
    BuiltIn,
    /// A `[[tool]]` of an organization.
    Webhook {
        /// Whose.
        organization: String,
    },
    /// A `[mcp.NAME]` section.
    Mcp {
        /// Its name.
        server: String,
    },
}

/// What does it.
pub enum Handler {
    /// The call. What well-formed arguments ask of it, or what is wrong with them that a schema cannot say.
    Call(fn(&Value) -> Result<Action, String>),
    /// Somebody else.
    Remote(Arc<dyn Remote>),
}

/// A handler outside of the call.
pub trait Remote: Send + Sync {
    /// Runs the tool on the ordinary runtime. Dropping the future gives it up.
    fn run(&self, invocation: Invocation) -> RemoteFuture;
}

/// What [`Remote::run`] returns: text for the model.
pub type RemoteFuture = Pin<Box<dyn Future<Output = Result<String, Failure>> + Send>>;

/// One run of a tool.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The provider's id of the tool call; the same for every attempt.
    pub id: String,
    /// As checked against the schema.
    pub arguments: Value,
    /// On which call; `None` for a trial run.
    pub call: Option<CallId>,
    /// For whom.
    pub context: Arc<Context>,
}

/// Whose call it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// Organization, by name.
    pub organization: Option<String>,
    /// Assistant, by name.
    pub assistant: Option<String>,
    /// The number the call comes from, where it is known.
    pub from: Option<String>,
}

/// Why a tool did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// How, in one word: `error`, `timeout`, `unreachable`, `cancelled`.
    pub outcome: &'static str,
    /// For the model.
    pub text: String,
}

impl Failure {
    /// The tool's own fault.
    pub fn error(text: impl Into<String>) -> Self {
        Self { outcome: "error", text: text.into() }
    }

    /// Whoever should do it is not there.
    pub fn unreachable(text: impl Into<String>) -> Self {
        Self { outcome: "unreachable", text: text.into() }
    }
}

impl Tool {
    /// Makes a tool of its definition.
    ///
    /// # Errors
    /// When the name is none, or the parameters are no JSON Schema of an object.
    pub fn new(definition: Definition, handler: Handler) -> Result<Self, String> {
        check_name(&definition.name)?;
        let schema = Schema::compile(&definition.parameters)?;
        Ok(Self { definition, schema, handler })
    }

    /// As shown to a model.
    pub fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.definition.name.clone(),
            description: self.definition.description.clone(),
            parameters: schema::shown(&self.definition.parameters),
        }
    }
}

/// Whether every provider takes this as the name of a function.
///
/// # Errors
/// In words.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=NAME_MOST).contains(&name.len()) && name.chars().all(fits) {
        return Ok(());
    }
    Err(format!("a tool's name is 1 to {NAME_MOST} letters, digits, `_` or `-`, such as `order_status`"))
}

/// Runs a tool that is not the call's, for at most its time.
pub async fn run(
    remote: Arc<dyn Remote>,
    timeout: Duration,
    invocation: Invocation,
) -> Result<String, Failure> {
    let ran = tokio::time::timeout(timeout, remote.run(invocation)).await;
    let answer = ran.unwrap_or_else(|_| {
        let text = format!("the tool did not answer within {} seconds", timeout.as_secs_f32());
        Err(Failure { outcome: "timeout", text })
    });
    answer
        .map(|text| bounded(text, RESULT_MOST))
        .map_err(|failure| Failure { text: bounded(failure.text, 2000), ..failure })
}

/// A text of at most `most` bytes, with a word about what is missing.
fn bounded(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = text.floor_char_boundary(most);
        let missing = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("… ({missing} more bytes are left out)"));
    }
    text
}

/// Longest name that every provider takes.
const NAME_MOST: usize = 64;
/// Bytes of a result that a model is shown.
const RESULT_MOST: usize = 16 << 10;
