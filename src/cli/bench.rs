//! `tandem bench`: how many calls this machine carries.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Style;
use super::{Context, Exit, Failure};
use crate::bench::{Check, Options, Report};

/// Measure how many calls this machine carries.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  tandem bench calls --calls 200 --seconds 60\n  tandem bench calls --calls 50 --seconds 20 --check"
)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Place calls to a server of its own and measure delay, pacing, processor time and memory from outside.
    #[command(
        before_help = "Examples:\n  tandem bench calls --calls 200 --seconds 60\n  tandem bench calls --calls 50 --seconds 20 --check"
    )]
    Calls(CallsArgs),
}

#[derive(Debug, Args)]
struct CallsArgs {
    /// Calls at a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    calls: u16,
    /// Length of the measurement, once all calls are up.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(5..=86_400))]
    seconds: u32,
    /// Assistant audio in one message of the simulated service, about.
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..=2_000))]
    provider_delta_ms: u32,
    /// New calls a second while the load builds up.
    #[arg(long, value_name = "CPS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rate: u16,
    /// Configuration of the server under test, such as its workers; addresses, store and provider are set
    /// by the benchmark.
    #[arg(long, value_name = "FILE")]
    server_config: Option<PathBuf>,
    /// Hold the figures against this server's limits; exit with 7 if one is missed.
    #[arg(long)]
    check: bool,
    /// Keep the server's directory, with its log.
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(context: &Context, args: &BenchArgs) -> Result<(), Failure> {
    let BenchCommand::Calls(args) = &args.command;
    let options = Options {
        calls: args.calls.into(),
        span: Duration::from_secs(args.seconds.into()),
        rate: args.rate.into(),
        delta_ms: args.provider_delta_ms,
        server_config: args.server_config.clone(),
        keep: args.keep,
    };
    let report = crate::bench::run(&options, |text| context.output.remark(text))?;
    let checks = if args.check { report.checks() } else { Vec::new() };
    print(context, &report, &checks)?;
    if !report.void.is_empty() {
        let message = format!("the run is void: {}", report.void.join("; "));
        return Err(Failure::new(
            Exit::Failure,
            message,
            "use fewer calls, or a machine with less other work",
        ));
    }
    if checks.iter().any(|check| !check.ok) {
        return Err(Failure::told(Exit::Problems));
    }
    Ok(())
}

fn print(context: &Context, report: &Report, checks: &[Check]) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        let mut document = json!(report);
        if !checks.is_empty() {
            document["checks"] = json!(checks);
        }
        return output.document(&document);
    }
    for line in report.lines() {
        output.line(&line)?;
    }
    for check in checks {
        let verdict =
            if check.ok { output.paint(Style::Green, "ok    ") } else { output.paint(Style::Red, "MISSED") };
        let Check { name, measured, limit, unit, .. } = check;
        output.line(&format!("{verdict} {name:<46} {measured:>9.3} of {limit} {unit}"))?;
    }
    Ok(())
}
