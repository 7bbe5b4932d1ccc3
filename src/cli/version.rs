//! `tandem version`.

use clap::Args;
use serde_json::json;

use super::{Context, Failure};

/// Print the version.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem version\n  tandem version --json")]
pub struct VersionArgs {}

pub(super) fn run(context: &Context, _: &VersionArgs) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if !context.output.json {
        return context.output.line(&format!("tandem {version}"));
    }
    context.output.document(&json!({
        "name": "tandem",
        "version": version,
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
    }))
}
