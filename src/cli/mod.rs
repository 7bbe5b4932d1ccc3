//! What a person types: `tandem <command>`.
//!
//! One file per command. Manners all commands share: `--json` prints exactly one JSON document on
//! standard output (`call tail`: one object a line), everything else goes to standard error; exit codes
//! are those of [`failure::Exit`]; nothing ever waits for an answer from somebody who is not there.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{self, Config, Finding, Loaded, Sources};
use failure::{Exit, Failure};
use output::{Colour, Output};

pub mod failure;
pub mod output;

mod apply;
mod ari;
mod bench;
mod call;
mod client;
mod completions;
#[path = "config.rs"]
mod config_command;
mod db;
mod demo;
mod dial;
mod doctor;
mod init;
mod man;
mod phone;
mod provider;
mod serve;
mod simulate;
mod tail;
mod token;
mod tools;
mod trace;
mod trunk;
mod version;

/// A native SIP/RTP media server that puts a realtime speech AI and people on the same phone call.
#[derive(Debug, Parser)]
#[command(
    name = "tandem",
    version,
    before_help = "Examples:\n  tandem demo              hear one whole call on this machine, nothing else needed\n  tandem serve             answer calls",
    arg_required_else_help = true,
    infer_subcommands = false
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Print exactly one JSON document on standard output.
    #[arg(long, global = true)]
    json: bool,
    /// Print ids only, and no remarks.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// When to use colours.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    color: Colour,
    /// Configuration file [default: $TANDEM_CONFIG, ./tandem.toml, /etc/tandem/tandem.toml].
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key of the configuration, over file and environment; may be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Speak to the Tandem at this URL, with the token in TANDEM_TOKEN [default: the one on this host].
    #[arg(long, global = true, value_name = "URL", env = "TANDEM_SERVER")]
    server: Option<String>,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, once")]
enum Command {
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Init(init::InitArgs),
    Apply(apply::ApplyArgs),
    Config(config_command::ConfigArgs),
    Token(token::TokenArgs),
    Trunk(trunk::TrunkArgs),
    Ari(ari::AriArgs),
    Provider(provider::ProviderArgs),
    Phone(phone::PhoneArgs),
    Call(call::CallArgs),
    Simulate(simulate::SimulateArgs),
    Bench(bench::BenchArgs),
    Db(db::DbArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    Version(version::VersionArgs),
}

/// What a command has at hand.
#[derive(Debug)]
pub struct Context {
    /// How to print.
    pub output: Output,
    global: Global,
}

impl Context {
    /// The configuration with all that is wrong with it.
    pub fn load(&self) -> Loaded {
        config::load(&Sources::of_process(self.global.config.clone(), self.global.set.clone()))
    }

    /// The configuration, if it can be used. Warnings are told on standard error.
    ///
    /// # Errors
    /// With all findings, when one of them is an error.
    pub fn config(&self) -> Result<Config, Failure> {
        match self.load().usable() {
            Ok((config, warnings)) => {
                warnings.iter().for_each(|warning| self.output.remark(&warning.to_string()));
                Ok(config)
            }
            Err(findings) => Err(unusable("the configuration", &findings)),
        }
    }

    /// A client of the server that is meant.
    ///
    /// # Errors
    /// When `--server` is no URL.
    fn client(&self) -> Result<client::Client, Failure> {
        client::Client::new(self.global.server.as_deref(), self.load().config.socket_path())
    }
}

/// The failure for a file with errors in it.
fn unusable(what: &str, findings: &[Finding]) -> Failure {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let count = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
    let message = format!("{what} has {count}\n{}", list.join("\n"));
    Failure::new(Exit::Failure, message, "")
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs a command line; its first word is the program's name.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    let parsed = command().try_get_matches_from(&words).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return misused(&error, words.iter().any(|word| word == "--json")),
    };
    let Cli { global, command } = cli;
    let json = global.json;
    let context = Context { output: Output::new(global.json, global.quiet, global.color), global };
    match dispatch(&context, command) {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    }
}

/// The command tree, for parsing, completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

fn misused(error: &clap::Error, json: bool) -> ExitCode {
    if error.use_stderr() && json {
        let text = error.render().to_string();
        let text = text.trim().strip_prefix("error: ").unwrap_or(&text).to_owned();
        return Failure::new(Exit::Usage, text, "see `tandem --help`").report(true);
    }
    // Nobody is left to tell when the output is closed.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
}

fn dispatch(context: &Context, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Init(args) => init::run(context, &args)?,
        Command::Config(args) => config_command::run(context, &args)?,
        Command::Completions(args) => completions::run(context, &args)?,
        Command::Man(args) => man::run(context, &args)?,
        Command::Version(args) => version::run(context, &args)?,
        // It makes its own threads and puts them on cores of their own.
        Command::Bench(args) => bench::run(context, &args)?,
        Command::Serve(args) => in_runtime(serve::run(context, args))?,
        Command::Apply(args) => in_runtime(apply::run(context, args))?,
        Command::Token(args) => in_runtime(token::run(context, args))?,
        Command::Trunk(args) => in_runtime(trunk::run(context, args))?,
        Command::Ari(args) => in_runtime(ari::run(context, args))?,
        Command::Provider(args) => in_runtime(provider::run(context, args))?,
        Command::Phone(args) => in_runtime(phone::run(context, args))?,
        Command::Call(args) => in_runtime(call::run(context, args))?,
        Command::Db(args) => in_runtime(db::run(context, args))?,
        Command::Doctor(args) => in_runtime(doctor::run(context, args))?,
        Command::Demo(args) => return in_runtime(demo::run(context, args)),
        Command::Simulate(args) => return in_runtime(simulate::run(context, args)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command on the ordinary runtime; media workers have their own.
fn in_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tandem").build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Failure, format!("no runtime: {error}"), "raise the limits on threads and files")
    })?;
    runtime.block_on(work)
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it like http.listen=127.0.0.1:8080")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_commands_help_begins_with_two_examples() {
        fn walk(command: &mut clap::Command, path: &str) {
            let help = command.render_help().to_string();
            let mut lines = help.lines();
            assert_eq!(lines.next(), Some("Examples:"), "{path}");
            for _ in 0..2 {
                let line = lines.next().unwrap_or_default();
                assert!(line.starts_with("  tandem"), "{path}: {line}");
            }
            for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
                let path = format!("{path} {}", inner.get_name());
                walk(inner, &path);
            }
        }
        let mut tree = command();
        tree.build();
        walk(&mut tree, "tandem");
    }
}
