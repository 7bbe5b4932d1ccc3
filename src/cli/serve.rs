//! `tandem serve`: answers calls.

use std::path::PathBuf;

use clap::Args;

use super::{Context, Failure};
use crate::telemetry;

/// Answer calls until SIGTERM.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  tandem serve\n  tandem serve --config /etc/tandem/tandem.toml --apply resources.toml"
)]
pub struct ServeArgs {
    /// Apply this resources file before the first call.
    #[arg(long, value_name = "FILE")]
    apply: Option<PathBuf>,
    /// Allow plain HTTP on an address other machines can reach (`http.insecure`).
    #[arg(long)]
    insecure: bool,
}

pub(super) async fn run(context: &Context, args: ServeArgs) -> Result<(), Failure> {
    let mut sources =
        crate::config::Sources::of_process(context.global.config.clone(), context.global.set.clone());
    if args.insecure {
        sources.options.push(("http.insecure".into(), "true".into()));
    }
    let (config, warnings) = crate::config::load(&sources)
        .usable()
        .map_err(|findings| super::unusable("the configuration", &findings))?;
    let _guard = telemetry::start_logging(&config.log).map_err(anyhow::Error::from)?;
    for warning in warnings {
        tracing::warn!(key = warning.key, fix = warning.fix, "{}", warning.message);
    }
    crate::serve::run(config, crate::serve::Options { apply: args.apply }).await?;
    Ok(())
}
