//! `tandem completions`: completion scripts for shells.

use clap::Args;

use super::{Context, Failure};

/// Print a completion script.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  tandem completions bash > /etc/bash_completion.d/tandem\n  tandem completions zsh > ~/.zfunc/_tandem"
)]
pub struct CompletionsArgs {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(super) fn run(context: &Context, args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "tandem", &mut script);
    let script = String::from_utf8_lossy(&script);
    if context.output.json {
        return context
            .output
            .document(&serde_json::json!({ "shell": args.shell.to_string(), "script": script }));
    }
    context.output.line(script.trim_end())
}
