//! `tandem ari`: the PBX behind `[ari]`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::failure::{Exit, Failure};
use super::output::{items, text};

/// See the Asterisk that a running Tandem controls, and listen to its channels.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  tandem ari status\n  tandem ari channels\n  tandem ari listen 1760000000.7 --to 200"
)]
pub struct AriArgs {
    #[command(subcommand)]
    command: AriCommand,
}

#[derive(Debug, Subcommand)]
enum AriCommand {
    /// Show whether it is connected; exit code 7 when it is not.
    #[command(before_help = "Examples:\n  tandem ari status\n  tandem ari status --json")]
    Status,
    /// List its channels.
    #[command(before_help = "Examples:\n  tandem ari channels\n  tandem ari channels --json")]
    Channels,
    /// Let the flow of a number hear what is said on a channel, both ways; nobody there hears it.
    #[command(
        before_help = "Examples:\n  tandem ari listen 1760000000.7 --to 200\n  tandem ari listen 1760000000.7 --to 200 --json"
    )]
    Listen {
        /// Id of the channel, as `tandem ari channels` shows it.
        channel: String,
        /// Number or extension whose flow hears it.
        #[arg(long)]
        to: String,
    },
}

pub(super) async fn run(context: &Context, args: AriArgs) -> Result<(), Failure> {
    let client = context.client()?;
    match args.command {
        AriCommand::Status => status(context, client.get("/api/v1/ari").await?),
        AriCommand::Channels => channels(context, client.get("/api/v1/ari/channels").await?),
        AriCommand::Listen { channel, to } => {
            if channel.is_empty() {
                let fix = "see `tandem ari channels`";
                return Err(Failure::new(Exit::Usage, "this is no id of a channel", fix));
            }
            let path = format!("/api/v1/ari/channels/{}/listen", encoded(&channel));
            let answer = client.post(&path, "application/json", json!({ "to": to }).to_string()).await?;
            if context.output.json {
                return context.output.document(&answer);
            }
            context.output.line(&text(&answer["leg"]))
        }
    }
}

/// For one segment of a path (RFC 3986 section 2.1).
fn encoded(segment: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let write = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    segment.bytes().map(write).collect()
}

fn status(context: &Context, answer: Value) -> Result<(), Failure> {
    let connected = answer["connected"] == true;
    if context.output.json {
        context.output.document(&answer)?;
    } else {
        let state = match connected {
            true => format!("connected since {}", text(&answer["connected_since"])),
            false => format!("not connected: {}", text(&answer["reason"])),
        };
        context.output.line(&format!("{}: {state}", text(&answer["url"])))?;
        context.output.line(&format!("application: {}", text(&answer["application"])))?;
        if !answer["version"].is_null() {
            context.output.line(&format!("Asterisk {}", text(&answer["version"])))?;
        }
        context.output.line(&format!("legs: {}", answer["legs"]))?;
    }
    if connected { Ok(()) } else { Err(Failure::told(Exit::Problems)) }
}

fn channels(context: &Context, answer: Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&answer);
    }
    let channels = items(&answer["data"]);
    if context.output.quiet {
        return channels.iter().try_for_each(|channel| context.output.line(&text(&channel["id"])));
    }
    let rows: Vec<_> = channels
        .iter()
        .map(|channel| {
            let place = format!("{}@{}", text(&channel["extension"]), text(&channel["context"]));
            let columns = ["id", "name", "state", "caller", "connected"];
            let mut row: Vec<_> = columns.iter().map(|column| text(&channel[*column])).collect();
            row.extend([place, text(&channel["leg"])]);
            row
        })
        .collect();
    context.output.table(&["ID", "NAME", "STATE", "CALLER", "CONNECTED", "PLACE", "LEG"], &rows)
}
