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
    /// An Asterisk that calls an AudioSocket server.
    #[command(before_help = "Examples:\n  tandem simulate audiosocket --to 127.0.0.1:9092 --tone 440\n  \
            tandem simulate audiosocket --rate 24000 --say 'Good morning.' --dtmf 12#")]
    Audiosocket(crate::simulate::asterisk::cli::SimulateAudioSocketArgs),
    /// An Asterisk: its REST interface (ARI), and calls by all three doors.
    #[command(before_help = "Examples:\n  tandem simulate asterisk --app tandem --say 'Good morning.'\n  \
            tandem simulate asterisk --websocket ws://127.0.0.1:8090/media")]
    Asterisk(crate::simulate::asterisk::cli::SimulateAsteriskArgs),
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
        SimulateCommand::Audiosocket(args) => {
            crate::simulate::asterisk::cli::run_audiosocket(args, json).await?
        }
        SimulateCommand::Asterisk(args) => crate::simulate::asterisk::cli::run_asterisk(args, json).await?,
    })
}
