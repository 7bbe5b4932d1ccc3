//! `tandem apply`: makes organizations, users, assistants and numbers as a file says.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::failure::{Exit, Failure};
use crate::config::resources;

/// Make organizations, users, assistants and numbers as a file says; what is so already is left alone.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem apply -f resources.toml\n  tandem apply -f - < resources.toml")]
pub struct ApplyArgs {
    /// The resources file; `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Only check the file, without a server; exits with 7 when there are errors.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(context: &Context, args: ApplyArgs) -> Result<(), Failure> {
    let name = args.file.display().to_string();
    let text = read(&args.file)?;
    let (_, findings) = resources::parse(&name, &text, None);
    if args.dry_run {
        let bad = findings.iter().any(|finding| finding.is_error());
        if context.output.json {
            context.output.document(&serde_json::json!({ "ok": !bad, "findings": findings }))?;
        } else {
            findings.iter().try_for_each(|finding| context.output.line(&finding.to_string()))?;
        }
        return if bad { Err(Failure::told(Exit::Problems)) } else { Ok(()) };
    }
    if findings.iter().any(|finding| finding.is_error()) {
        return Err(super::unusable(&name, &findings));
    }
    findings.iter().for_each(|warning| context.output.remark(&warning.to_string()));
    let answer = context.client()?.post("/api/v1/apply", "application/toml", text).await?;
    if context.output.json {
        return context.output.document(&answer);
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        let text = |key: &str| super::output::text(&warning[key]);
        context.output.remark(&format!(
            "warning: {}: {}\n  fix: {}",
            text("key"),
            text("message"),
            text("fix")
        ));
    }
    show(context, &answer)
}

fn show(context: &Context, answer: &serde_json::Value) -> Result<(), Failure> {
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let rows: Vec<_> =
        results.iter().map(|r| vec![text(&r["kind"]), text(&r["name"]), text(&r["outcome"])]).collect();
    context.output.table(&["KIND", "NAME", "OUTCOME"], &rows)
}

fn read(path: &PathBuf) -> Result<String, Failure> {
    let text = if path.as_os_str() == "-" {
        if std::io::stdin().is_terminal() {
            return Err(Failure::new(
                Exit::Usage,
                "standard input is a terminal",
                "pipe the file in, or use -f FILE",
            ));
        }
        let mut text = String::new();
        std::io::stdin().take(INPUT_MAX).read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failure };
        Failure::new(
            exit,
            format!("{} cannot be read: {error}", path.display()),
            "name a readable resources file",
        )
    })
}

/// Far above any installation's resources.
const INPUT_MAX: u64 = 16 << 20;
