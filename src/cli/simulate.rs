//! `tandem simulate`: far ends that speak the real wire protocols.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Context, Failure};

/// Far ends that speak the real wire protocols, for tests and load.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  tandem simulate openai\n  tandem simulate phone sip:100@127.0.0.1:5060"
)]
pub struct SimulateArgs {
    #[command(subcommand)]
    command: SimulateCommand,
}

#[derive(Debug, Subcommand)]
enum SimulateCommand {
    /// An OpenAI Realtime server.
    #[command(before_help = "Examples:\n  tandem simulate openai\n  tandem simulate openai --help")]
    Openai(crate::simulate::openai::cli::SimulateOpenAiArgs),
    /// An Ultravox service: REST, media sockets and webhooks.
    #[command(before_help = "Examples:\n  tandem simulate ultravox\n  tandem simulate ultravox --help")]
    Ultravox(crate::simulate::ultravox::cli::SimulateUltravoxArgs),
    /// A phone that places calls.
    #[command(
        before_help = "Examples:\n  tandem simulate phone sip:100@127.0.0.1:5060\n  tandem simulate phone --help"
    )]
    Phone(crate::simulate::phone::cli::SimulatePhoneArgs),
}

pub(super) async fn run(context: &Context, args: SimulateArgs) -> Result<ExitCode, Failure> {
    let log = crate::config::Log {
        level: if context.output.quiet { "error" } else { "info" }.into(),
        ..Default::default()
    };
    let _guard = crate::telemetry::start_logging(&log).map_err(anyhow::Error::from)?;
    let json = context.output.json;
    Ok(match args.command {
        SimulateCommand::Openai(args) => crate::simulate::openai::cli::run(args, json).await?,
        SimulateCommand::Ultravox(args) => crate::simulate::ultravox::cli::run(args, json).await?,
        SimulateCommand::Phone(args) => crate::simulate::phone::cli::run(args, json).await?,
    })
}
