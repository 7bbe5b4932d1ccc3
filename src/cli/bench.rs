//! `tandem bench`: how many calls this machine carries, relays and takes a second, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::Style;
use super::{Context, Exit, Failure};
use crate::bench::{Check, Options, audiosocket, bridge, failover, load, soak, tools};

/// Measure how many calls this machine carries, relays and takes a second.
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
    /// As `calls`, with callers who come from an Asterisk by AudioSocket.
    #[command(
        before_help = "Examples:\n  tandem bench audiosocket --calls 100 --seconds 30\n  tandem bench audiosocket --calls 100 --seconds 30 --rate 24000 --check"
    )]
    Audiosocket(AudioSocketArgs),
    /// Place calls from one simulated carrier to another through a server of its own; measure what relaying costs.
    #[command(
        before_help = "Examples:\n  tandem bench bridge --calls 200 --seconds 30\n  tandem bench bridge --calls 50 --seconds 10 --check"
    )]
    Bridge(BridgeArgs),
    /// Place many short calls a second; or flood the server with ten times as many while others talk.
    #[command(
        before_help = "Examples:\n  tandem bench load --rate 200 --seconds 60 --check\n  tandem bench load --rate 200 --seconds 10 --flood --check"
    )]
    Load(LoadArgs),
    /// Let calls come and go for a long time; look whether memory, files and ports stay as they are.
    #[command(
        before_help = "Examples:\n  tandem bench soak --minutes 30 --calls 100 --check\n  tandem bench soak --minutes 3 --call-seconds 5"
    )]
    Soak(SoakArgs),
    /// Let a simulated model call tools; measure the way there and back, without the tool's own time.
    #[command(
        before_help = "Examples:\n  tandem bench tools --check\n  tandem bench tools --calls 100 --at-once 20 --check"
    )]
    Tools(ToolsArgs),
    /// Let the provider of every call die at some moment of it; look whether calls, words or time are lost.
    #[command(
        before_help = "Examples:\n  tandem bench failover --calls 200 --check\n  tandem bench failover --calls 32 --parallel 8"
    )]
    Failover(FailoverArgs),
}

/// What every benchmark takes.
#[derive(Debug, Args)]
struct CommonArgs {
    /// Configuration of the server under test, such as its workers; addresses, store and trunks are set by the
    /// benchmark.
    #[arg(long, value_name = "FILE")]
    server_config: Option<PathBuf>,
    /// Hold the figures against this server's limits; exit with 7 if one is missed.
    #[arg(long)]
    check: bool,
    /// Keep the server's directory, with its log.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Args)]
struct BridgeArgs {
    /// Bridged calls at a time, two legs each.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=2000))]
    calls: u16,
    /// Length of the measurement, once all calls are up.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=86_400))]
    seconds: u32,
    /// New calls a second while the load builds up.
    #[arg(long, value_name = "CPS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rate: u16,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// New calls a second.
    #[arg(long, value_name = "CPS", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    rate: u16,
    /// For how long calls are placed; with a flood, how long it lasts.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(3..=86_400))]
    seconds: u32,
    /// No short calls: ten times the rate as INVITEs from another source, which is limited to the rate.
    #[arg(long)]
    flood: bool,
    /// With a flood: calls that talk meanwhile.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    talking: u16,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct FailoverArgs {
    /// Calls in all.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    calls: u16,
    /// Of them at a time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=400))]
    parallel: u16,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct SoakArgs {
    /// How long calls come and go.
    #[arg(long, value_name = "MIN", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    minutes: u32,
    /// Calls at a time.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(4..=1_000))]
    calls: u16,
    /// How long a call lasts.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=86_400))]
    call_seconds: u32,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct ToolsArgs {
    /// Calls, all in all.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    calls: u16,
    /// Calls at a time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=200))]
    at_once: u16,
    /// Tool calls of each call.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=24))]
    rounds: u16,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct AudioSocketArgs {
    /// Calls at a time.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4096))]
    calls: u16,
    /// Length of the measurement, once all calls are up.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(5..=86_400))]
    seconds: u32,
    /// Sample rate of the audio: one of Asterisk's linear formats.
    #[arg(long, value_name = "HZ", default_value_t = 24_000)]
    rate: u32,
    /// Assistant audio in one message of the simulated service, about.
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..=2_000))]
    provider_delta_ms: u32,
    /// New calls a second while the load builds up.
    #[arg(long, value_name = "CPS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    calls_a_second: u16,
    #[command(flatten)]
    common: CommonArgs,
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
    let remark = |text: &str| context.output.remark(text);
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let checked = |check: bool, checks: Vec<Check>| if check { checks } else { Vec::new() };
    match &args.command {
        BenchCommand::Calls(args) => {
            let options = Options {
                calls: args.calls.into(),
                span: seconds(args.seconds),
                rate: args.rate.into(),
                delta_ms: args.provider_delta_ms,
                server_config: args.server_config.clone(),
                keep: args.keep,
            };
            let report = crate::bench::run(&options, remark)?;
            told(context, json!(report), &report.lines(), &checked(args.check, report.checks()), &report.void)
        }
        BenchCommand::Audiosocket(args) => {
            let options = Options {
                calls: args.calls.into(),
                span: seconds(args.seconds),
                rate: args.calls_a_second.into(),
                delta_ms: args.provider_delta_ms,
                server_config: args.common.server_config.clone(),
                keep: args.common.keep,
            };
            let report = audiosocket::run(&options, args.rate, remark)?;
            let checks = checked(args.common.check, report.checks());
            told(context, json!(report), &report.lines(), &checks, &report.void)
        }
        BenchCommand::Bridge(args) => {
            let options = bridge::Options {
                calls: args.calls.into(),
                span: seconds(args.seconds),
                rate: args.rate.into(),
                server_config: args.common.server_config.clone(),
                keep: args.common.keep,
            };
            let report = bridge::run(&options, remark)?;
            let checks = checked(args.common.check, report.checks());
            told(context, json!(report), &report.lines(), &checks, &report.void)
        }
        BenchCommand::Load(args) => {
            let options = load::Options {
                rate: args.rate.into(),
                span: seconds(args.seconds),
                flood: args.flood.then_some(args.talking.into()),
                server_config: args.common.server_config.clone(),
                keep: args.common.keep,
            };
            let report = load::run(&options, remark)?;
            let checks = checked(args.common.check, report.checks());
            told(context, json!(report), &report.lines(), &checks, &report.void)
        }
        BenchCommand::Failover(args) => {
            let options = failover::Options {
                calls: args.calls.into(),
                parallel: args.parallel.into(),
                server_config: args.common.server_config.clone(),
                keep: args.common.keep,
            };
            let report = failover::run(&options, remark)?;
            let checks = checked(args.common.check, report.checks());
            told(context, json!(report), &report.lines(), &checks, &report.void)
        }
        BenchCommand::Soak(args) => {
            let options = soak::Options {
                calls: args.calls.into(),
                span: seconds(args.minutes) * 60,
                call_span: seconds(args.call_seconds),
                server_config: args.common.server_config.clone(),
                keep: args.common.keep,
            };
            let report = soak::run(&options, remark)?;
            let checks = checked(args.common.check, report.checks());
            told(context, json!(report), &report.lines(), &checks, &[])
        }
        BenchCommand::Tools(args) => {
            let options = tools::Options {
                calls: args.calls.into(),
                at_once: args.at_once.into(),
                rounds: args.rounds.into(),
                server_config: args.common.server_config.clone(),
                keep: args.common.keep,
            };
            let report = tools::run(&options, remark)?;
            let checks = checked(args.common.check, report.checks());
            told(context, json!(report), &report.lines(), &checks, &report.void)
        }
    }
}

/// Prints a report, and fails when it is void or misses a limit.
fn told(
    context: &Context,
    document: Value,
    lines: &[String],
    checks: &[Check],
    void: &[String],
) -> Result<(), Failure> {
    print(context, document, lines, checks)?;
    if !void.is_empty() {
        let message = format!("the run is void: {}", void.join("; "));
        let advice = "use fewer calls, or a machine with less other work";
        return Err(Failure::new(Exit::Failure, message, advice));
    }
    if checks.iter().any(|check| !check.ok) {
        return Err(Failure::told(Exit::Problems));
    }
    Ok(())
}

fn print(context: &Context, mut document: Value, lines: &[String], checks: &[Check]) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        if !checks.is_empty() {
            document["checks"] = json!(checks);
        }
        return output.document(&document);
    }
    for line in lines {
        output.line(line)?;
    }
    for check in checks {
        let verdict =
            if check.ok { output.paint(Style::Green, "ok    ") } else { output.paint(Style::Red, "MISSED") };
        let Check { name, measured, limit, unit, .. } = check;
        output.line(&format!("{verdict} {name:<46} {measured:>9.3} of {limit} {unit}"))?;
    }
    Ok(())
}
