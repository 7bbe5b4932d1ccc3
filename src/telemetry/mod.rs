//! What Tandem tells its operator: logs on standard error, metrics for Prometheus.
//!
//! Phone numbers are logged as [`Pii`], text from the wire as [`Wire`]; words of a call are not logged at
//! INFO or above at all.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

pub mod capture;
mod escape;
mod names;
mod pii;
mod prometheus;
mod seldom;
mod writer;

pub use escape::{Wire, for_terminal};
pub use names::{Kind, METRICS, Metric};
pub use pii::{Pii, masked};
pub use prometheus::{Metrics, MetricsError};
pub use seldom::Seldom;
pub use writer::LogGuard;

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` or `RUST_LOG` is no filter.
    #[error("\"{filter}\" is no log filter: {cause}")]
    Filter {
        /// As given.
        filter: String,
        /// What the parser said.
        cause: String,
    },
    /// No thread for writing.
    #[error("the log's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// Somebody else logs already.
    #[error("logging is set up already")]
    Twice,
}

/// Starts logging to standard error. Keep the guard until the end of the process.
///
/// # Errors
/// When the filter is unusable, or logging has been set up already.
pub fn start_logging(log: &Log) -> Result<LogGuard, LogError> {
    let text = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let text = text.unwrap_or_else(|| log.level.clone());
    // What MCP servers say is not escaped there, and addresses may hold keys; what matters of it we say ourselves.
    let filter = EnvFilter::try_new(format!("rmcp=off,{text}"))
        .map_err(|error| LogError::Filter { filter: text, cause: error.to_string() })?;
    let (lines, guard) = writer::start(std::io::stderr())?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(lines);
    let started = match log.format {
        LogFormat::Human => registry.with(layer.with_ansi(colours_wanted())).try_init(),
        LogFormat::Json => {
            let layer = layer.json().flatten_event(true).with_current_span(true).with_span_list(true);
            registry.with(layer).try_init()
        }
    };
    started.map_err(|_| LogError::Twice)?;
    pii::tell(log.personal_data);
    Ok(guard)
}

/// Standard error is a terminal that shows colours.
fn colours_wanted() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
