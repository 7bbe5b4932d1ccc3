//! `tandem demo`: one whole call on this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Context, Failure};

/// Hear one whole call on this machine: no key, no carrier, no database server.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  tandem demo\n  tandem demo --check        assert every step, and exit with 0 or 1"
)]
pub struct DemoArgs {
    /// Assert every step of the call, print a line for each, and exit with 0 or 1.
    #[arg(long)]
    check: bool,
    /// Open nothing in a browser.
    #[arg(long)]
    no_open: bool,
    /// Let this provider answer; `openai` needs OPENAI_API_KEY.
    #[arg(long, value_name = "NAME", default_value = "scripted", value_parser = ["scripted", "openai"])]
    provider: String,
    /// Keep the recording and the database in this directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, args: DemoArgs) -> Result<ExitCode, Failure> {
    let options = crate::demo::Options {
        check: args.check,
        no_open: args.no_open,
        provider: args.provider,
        keep: args.keep,
        json: context.output.json,
        colour: context.output.colour,
    };
    Ok(crate::demo::run(options).await?)
}
