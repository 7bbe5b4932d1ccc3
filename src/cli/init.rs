//! `tandem init`: writes a commented tandem.toml.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use super::failure::{Exit, Failure};
use crate::config;

/// Write a commented tandem.toml and print the next steps.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem init\n  tandem init /etc/tandem/tandem.toml")]
pub struct InitArgs {
    /// Where to write it.
    #[arg(value_name = "FILE", default_value = "tandem.toml")]
    file: PathBuf,
    /// Replace a file that exists.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(context: &Context, args: &InitArgs) -> Result<(), Failure> {
    write(args)?;
    let file = args.file.display().to_string();
    let steps = [
        format!("edit {file}, then `tandem config check --config {file}`"),
        "`tandem doctor` finds what is wrong with this machine".to_owned(),
        format!("`tandem serve --config {file}` answers calls"),
        "`tandem demo` plays one whole call without any of this".to_owned(),
    ];
    if context.output.json {
        return context.output.document(&json!({ "file": file, "next_steps": steps }));
    }
    context.output.line(&file)?;
    context.output.remark("Next steps:");
    steps.iter().for_each(|step| context.output.remark(&format!("  {step}")));
    Ok(())
}

fn write(args: &InitArgs) -> Result<(), Failure> {
    let path = &args.file;
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.open(path).and_then(|mut file| file.write_all(config::template().as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            Exit::Conflict,
            format!("{} exists already", path.display()),
            "use --force to replace it, or name another file",
        ),
        _ => Failure::new(
            Exit::Failure,
            format!("{} cannot be written: {error}", path.display()),
            "name a file in a directory that exists and that you may write",
        ),
    })
}
