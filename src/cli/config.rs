//! `tandem config`: checks and shows the configuration.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Context;
use super::failure::{Exit, Failure};
use super::output::Style;
use crate::config::{self, Finding, Loaded, Severity};

/// Check and show the configuration.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem config check\n  tandem config show --origin")]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Find everything that is wrong; exits with 7 when there are errors.
    #[command(
        before_help = "Examples:\n  tandem config check\n  tandem config check --config /etc/tandem/tandem.toml --json"
    )]
    Check {
        /// Exit with 7 for warnings too.
        #[arg(long)]
        strict: bool,
    },
    /// Print the configuration in effect, passwords masked.
    #[command(before_help = "Examples:\n  tandem config show\n  tandem config show --origin")]
    Show {
        /// Say where each value came from.
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema, for editors.
    #[command(
        before_help = "Examples:\n  tandem config schema > tandem.schema.json\n  tandem config schema --resources"
    )]
    Schema {
        /// The schema of resources.toml.
        #[arg(long)]
        resources: bool,
    },
}

pub(super) fn run(context: &Context, args: &ConfigArgs) -> Result<(), Failure> {
    match args.command {
        ConfigCommand::Check { strict } => check(context, strict),
        ConfigCommand::Show { origin } => show(context, origin),
        ConfigCommand::Schema { resources: true } => context.output.document(&config::resources::schema()),
        ConfigCommand::Schema { resources: false } => context.output.document(&config::schema()),
    }
}

fn check(context: &Context, strict: bool) -> Result<(), Failure> {
    let mut loaded = context.load();
    if !loaded.has_errors()
        && let Err(error) = crate::serve::check(&loaded.config)
    {
        let place = loaded.origin("trunk");
        let fix = "correct it; `tandem serve` does not start";
        loaded.findings.push(Finding::error(&place, "trunk", format!("{error:#}"), fix));
    }
    let errors = loaded.findings.iter().filter(|finding| finding.is_error()).count();
    let warnings = loaded.findings.len() - errors;
    let bad = errors > 0 || (strict && warnings > 0);
    if context.output.json {
        context.output.document(&json!({
            "ok": !bad,
            "file": loaded.file,
            "errors": errors,
            "warnings": warnings,
            "findings": loaded.findings,
        }))?;
    } else {
        for finding in &loaded.findings {
            context.output.line(&coloured(context, finding))?;
        }
        let file = name(&loaded);
        context.output.remark(&format!("{file}: {}, {}", count(errors, "error"), count(warnings, "warning")));
    }
    if bad { Err(Failure::told(Exit::Problems)) } else { Ok(()) }
}

fn name(loaded: &Loaded) -> String {
    loaded.file.as_ref().map_or_else(|| "no file, all defaults".into(), |file| file.display().to_string())
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn coloured(context: &Context, finding: &Finding) -> String {
    let (word, style) = match finding.severity {
        Severity::Error => ("error:", Style::Red),
        Severity::Warning => ("warning:", Style::Yellow),
    };
    finding.to_string().replacen(word, &context.output.paint(style, word), 1)
}

fn show(context: &Context, origin: bool) -> Result<(), Failure> {
    let loaded = context.load();
    loaded.findings.iter().for_each(|finding| context.output.remark(&finding.to_string()));
    match (context.output.json, origin) {
        (true, false) => context.output.document(&config::shown(&loaded.config))?,
        (true, true) => {
            let settings = loaded.settings();
            let entries = settings.into_iter().map(|setting| {
                (setting.key, json!({ "value": setting.value, "origin": setting.origin.to_string() }))
            });
            context.output.document(&Value::Object(entries.collect::<Map<_, _>>()))?;
        }
        (false, false) => context.output.line(config::to_toml(&loaded.config).trim_end())?,
        (false, true) => {
            let rows: Vec<_> = loaded
                .settings()
                .into_iter()
                .map(|setting| vec![setting.key, setting.value.to_string(), setting.origin.to_string()])
                .collect();
            context.output.table(&["KEY", "VALUE", "ORIGIN"], &rows)?;
        }
    }
    if loaded.has_errors() { Err(Failure::told(Exit::Problems)) } else { Ok(()) }
}
