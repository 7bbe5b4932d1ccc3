//! `tandem man`: manual pages.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::failure::{Exit, Failure};

/// Write manual pages, one per command.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem man --out /usr/share/man/man1\n  tandem man --out man --json")]
pub struct ManArgs {
    /// The directory to write to; created when missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(context: &Context, args: &ManArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let message = format!("{} cannot be written: {error}", args.out.display());
        Failure::new(Exit::Failure, message, "name a directory that you may write")
    };
    std::fs::create_dir_all(&args.out).map_err(failed)?;
    clap_mangen::generate_to(super::command(), &args.out).map_err(failed)?;
    let mut pages: Vec<String> = std::fs::read_dir(&args.out)
        .map_err(failed)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("tandem") && name.ends_with(".1"))
        .collect();
    pages.sort();
    if context.output.json {
        return context.output.document(&serde_json::json!({ "directory": args.out, "pages": pages }));
    }
    pages.iter().try_for_each(|page| context.output.line(&args.out.join(page).display().to_string()))
}
