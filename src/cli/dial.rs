//! `tandem call start`, `transfer`, `hold` and `dtmf`.

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::client::Client;
use super::failure::Failure;
use super::output::text;
use super::tail::{self, TailArgs};
use crate::id::CallId;

/// What `call start` takes.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Number or SIP URI to call.
    #[arg(value_name = "TO")]
    to: String,
    /// The assistant that talks to whoever answers [default: the only one there is]
    #[arg(long, value_name = "NAME", conflicts_with = "flow")]
    assistant: Option<String>,
    /// A number of yours whose flow runs once somebody answers.
    #[arg(long, value_name = "NUMBER")]
    flow: Option<String>,
    /// The number shown to whoever is called.
    #[arg(long, value_name = "NUMBER")]
    from: Option<String>,
    /// Owner of the assistant.
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    /// The trunk to call over.
    #[arg(long, value_name = "NAME")]
    trunk: Option<String>,
    /// Seconds it may ring.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=180))]
    timeout: u64,
    /// Follow the call until it ends, as `tandem call tail` does.
    #[arg(long)]
    watch: bool,
}

/// Starts a call and prints its id. Each run is a call of its own: the client makes a new `Idempotency-Key`.
pub(super) async fn start(context: &Context, client: &Client, args: StartArgs) -> Result<(), Failure> {
    let mut body = json!({"to": args.to, "timeout_s": args.timeout});
    let optional = [
        ("assistant", args.assistant),
        ("flow", args.flow),
        ("from", args.from),
        ("organization", args.organization),
        ("trunk", args.trunk),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = Value::from(value);
        }
    }
    let answer = client.post("/api/v1/calls", "application/json", body.to_string()).await?;
    let watched = args.watch.then(|| text(&answer["id"]).parse::<CallId>());
    match watched {
        Some(Ok(id)) => {
            context.output.remark(&format!("call {id}"));
            tail::run(context, client, &TailArgs::of(id)).await
        }
        _ if context.output.json => context.output.document(&answer),
        _ => context.output.line(&text(&answer["id"])),
    }
}

/// Tells a call something; prints its id.
pub(super) async fn tell(
    context: &Context,
    client: &Client,
    id: CallId,
    what: &str,
    body: Value,
) -> Result<(), Failure> {
    let path = format!("/api/v1/calls/{id}/{what}");
    let answer = client.post(&path, "application/json", body.to_string()).await?;
    if context.output.json {
        return context.output.document(&answer);
    }
    context.output.line(&id.to_string())
}
