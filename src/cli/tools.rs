//! `tandem provider tools`: what assistants can do.

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::client::Client;
use super::failure::{Exit, Failure};
use super::output::{items, text};
use crate::tools::guard::Guard;
use crate::tools::mcp::Servers;
use crate::tools::registry::Registry;
use crate::tools::webhook::Webhooks;

/// What of the tools is listed.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem provider tools\n  tandem provider tools --all --json")]
pub struct ToolsArgs {
    /// Also those that wait for a part of Tandem that is not there yet.
    #[arg(long)]
    all: bool,
    /// Only those assistants of this organization can use.
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
}

pub(super) async fn run(context: &Context, client: &Client, args: &ToolsArgs) -> Result<(), Failure> {
    let mut path = format!("/api/v1/tools?all={}", args.all);
    if let Some(organization) = &args.organization {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !organization.chars().all(fits) {
            return Err(Failure::new(
                Exit::Usage,
                "this is no name of an organization",
                "see `tandem provider tools`",
            ));
        }
        path.push_str(&format!("&organization={organization}"));
    }
    let answer = match client.get(&path).await {
        Ok(answer) => answer,
        Err(failure) if failure.exit() == Exit::Unreachable && client.has_no_server() => {
            context.output.remark("no Tandem runs here: these are the tools that are built in");
            built_in(args.all)?
        }
        Err(failure) => return Err(failure),
    };
    print(context, &answer)
}

/// What there is without a server.
fn built_in(all: bool) -> Result<Value, Failure> {
    let webhooks = Webhooks::new(Guard::default()).map_err(|cause| Failure::new(Exit::Failure, cause, ""))?;
    let mut tools = Registry::new(webhooks, Servers::default()).list(None);
    tools.retain(|tool| tool.available || all);
    Ok(json!({"server": false, "data": tools, "mcp_servers": [], "has_more": false, "next_cursor": null}))
}

fn print(context: &Context, answer: &Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(answer);
    }
    let tools = items(&answer["data"]);
    if context.output.quiet {
        return tools.iter().try_for_each(|tool| context.output.line(&text(&tool["name"])));
    }
    let rows: Vec<_> = tools
        .iter()
        .map(|tool| {
            let whose =
                ["organization", "server"].iter().find_map(|key| tool[*key].as_str()).unwrap_or_default();
            let description = text(&tool["description"]);
            let first = description.split_inclusive(". ").next().unwrap_or_default().trim_end().to_owned();
            vec![
                text(&tool["name"]),
                text(&tool["origin"]),
                whose.to_owned(),
                if tool["available"] == true { "yes" } else { "no" }.to_owned(),
                text(&tool["needs"]),
                first,
            ]
        })
        .collect();
    context.output.table(&["TOOL", "ORIGIN", "OF", "AVAILABLE", "NEEDS", "WHAT IT DOES"], &rows)?;
    for server in items(&answer["mcp_servers"]) {
        if let Some(cause) = server["away"].as_str() {
            context.output.remark(&format!("MCP server {} is away: {cause}", text(&server["name"])));
        }
    }
    Ok(())
}
