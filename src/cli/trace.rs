//! `tandem call trace`: what was said in signalling, as a ladder, a document or a capture file.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::client::Client;
use super::failure::{Exit, Failure};
use crate::id::CallId;
use crate::sip::trace::document::TraceDocument;
use crate::sip::trace::ladder;

/// Which call, and how.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The call.
    id: CallId,
    /// Write a capture file for Wireshark instead of printing.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, client: &Client, args: &TraceArgs) -> Result<(), Failure> {
    match &args.pcap {
        Some(file) => capture(context, client, args.id, file).await,
        None => print(context, client.get(&format!("/api/v1/calls/{}/trace", args.id)).await?),
    }
}

fn print(context: &Context, answer: Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&answer);
    }
    let document: TraceDocument = serde_json::from_value(answer).map_err(|error| {
        let fix = "use a Tandem of about this version";
        Failure::new(Exit::Failure, format!("the server's answer is no trace: {error}"), fix)
    })?;
    context.output.line(&ladder::render(&document, context.output.width.unwrap_or(WIDTH)))?;
    if document.messages.is_empty() {
        context.output.remark(
            "no message of this call is kept; sip.trace.calls says how many calls are, sip.trace.keep whether any",
        );
    }
    Ok(())
}

async fn capture(context: &Context, client: &Client, id: CallId, file: &Path) -> Result<(), Failure> {
    let bytes = client.get_file(&format!("/api/v1/calls/{id}/pcap")).await?;
    std::fs::write(file, &bytes).map_err(|error| {
        let fix = "name a file in a directory that can be written";
        Failure::new(Exit::Failure, format!("{} cannot be written: {error}", file.display()), fix)
    })?;
    if context.output.json {
        return context.output.document(&json!({ "file": file, "bytes": bytes.len() }));
    }
    context.output.line(&file.display().to_string())
}

/// Columns when standard output is no terminal.
const WIDTH: usize = 100;
