//! `tandem trunk`: whether the trunks can be used, and why not.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Context;
use super::failure::{Exit, Failure};
use super::output::{items, text};

/// See and test the trunks of a running Tandem.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem trunk list\n  tandem trunk test twilio")]
pub struct TrunkArgs {
    #[command(subcommand)]
    command: TrunkCommand,
}

#[derive(Debug, Subcommand)]
enum TrunkCommand {
    /// List the trunks with their state.
    #[command(before_help = "Examples:\n  tandem trunk list\n  tandem trunk list --json")]
    List,
    /// Show one trunk with its targets and registrations.
    #[command(before_help = "Examples:\n  tandem trunk show twilio\n  tandem trunk show twilio --json")]
    Show {
        /// Its name.
        name: String,
    },
    /// Look its names up, ask its targets by OPTIONS, register anew; exit code 7 when a step fails.
    #[command(before_help = "Examples:\n  tandem trunk test twilio\n  tandem trunk test twilio --json")]
    Test {
        /// Its name.
        name: String,
    },
}

pub(super) async fn run(context: &Context, args: TrunkArgs) -> Result<(), Failure> {
    let client = context.client()?;
    match args.command {
        TrunkCommand::List => list(context, client.get("/api/v1/trunks").await?),
        TrunkCommand::Show { name } => show(context, client.get(&path(&name, "")?).await?),
        TrunkCommand::Test { name } => {
            let answer = client.post(&path(&name, "/test")?, "application/json", String::new()).await?;
            test(context, answer)
        }
    }
}

fn path(name: &str, rest: &str) -> Result<String, Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(Failure::new(Exit::Usage, "this is no name of a trunk", "see `tandem trunk list`"));
    }
    Ok(format!("/api/v1/trunks/{name}{rest}"))
}

fn list(context: &Context, answer: Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&answer);
    }
    let trunks = items(&answer["data"]);
    if context.output.quiet {
        return trunks.iter().try_for_each(|trunk| context.output.line(&text(&trunk["name"])));
    }
    let rows: Vec<_> = trunks
        .iter()
        .map(|trunk| {
            vec![
                text(&trunk["name"]),
                text(&trunk["state"]),
                share(&trunk["registered"], |one| one["registered"] == true),
                share(&trunk["targets"], |one| one["state"] == "up"),
                calls(trunk),
                text(&trunk["reason"]),
            ]
        })
        .collect();
    context.output.table(&["TRUNK", "STATE", "REGISTERED", "TARGETS UP", "CALLS", "REASON"], &rows)
}

fn show(context: &Context, trunk: Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&trunk);
    }
    let state =
        format!("{}: {} since {}", text(&trunk["name"]), text(&trunk["state"]), text(&trunk["since"]));
    context.output.line(&state)?;
    if !trunk["reason"].is_null() {
        context.output.line(&text(&trunk["reason"]))?;
    }
    context.output.line(&format!("profile: {}", text(&trunk["profile"])))?;
    let pace = match trunk["cps"].as_f64() {
        Some(pace) if pace > 0.0 => format!(", at most {pace} new ones a second"),
        _ => String::new(),
    };
    context.output.line(&format!("calls: {}{pace}", calls(&trunk)))?;
    context.output.line(&format!("media encryption: {}", text(&trunk["srtp"])))?;
    let registrations: Vec<_> = items(&trunk["registered"])
        .iter()
        .map(|one| {
            let state = if one["registered"] == true { "yes" } else { "no" };
            vec![
                text(&one["registrar"]),
                text(&one["user"]),
                state.to_owned(),
                text(&one["until"]),
                text(&one["reason"]),
            ]
        })
        .collect();
    if !registrations.is_empty() {
        context.output.table(&["REGISTRAR", "USER", "REGISTERED", "UNTIL", "REASON"], &registrations)?;
    }
    let targets: Vec<_> = items(&trunk["targets"])
        .iter()
        .map(|one| {
            let took = one["round_trip_ms"].as_f64().map_or_else(String::new, |ms| format!("{ms:.1} ms"));
            let place = format!("{} {}", text(&one["transport"]), text(&one["address"]));
            vec![place, text(&one["state"]), took, text(&one["quarantined_until"]), text(&one["reason"])]
        })
        .collect();
    if targets.is_empty() {
        return Ok(());
    }
    context.output.table(&["TARGET", "STATE", "ROUND TRIP", "LAST UNTIL", "REASON"], &targets)
}

fn test(context: &Context, answer: Value) -> Result<(), Failure> {
    let ok = answer["ok"] == true;
    if context.output.json {
        context.output.document(&answer)?;
    } else {
        let steps = items(&answer["steps"]);
        if steps.is_empty() {
            context.output.remark("There is nothing to test: the trunk has neither peers nor registrations.");
        }
        let rows: Vec<_> = steps
            .iter()
            .map(|step| {
                let outcome = if step["ok"] == true { "ok" } else { "failed" };
                let took = format!("{:.1} ms", step["took_ms"].as_f64().unwrap_or_default());
                vec![
                    text(&step["step"]),
                    text(&step["target"]),
                    outcome.to_owned(),
                    took,
                    text(&step["detail"]),
                ]
            })
            .collect();
        context.output.table(&["STEP", "TARGET", "OUTCOME", "TOOK", "DETAIL"], &rows)?;
    }
    if ok { Ok(()) } else { Err(Failure::told(Exit::Problems)) }
}

/// How many of the list, such as `1/2`.
fn share(list: &Value, counts: impl Fn(&Value) -> bool) -> String {
    let all = items(list);
    match all.len() {
        0 => "-".to_owned(),
        many => format!("{}/{many}", all.iter().filter(|one| counts(one)).count()),
    }
}

fn calls(trunk: &Value) -> String {
    match trunk["channels"].as_u64() {
        Some(channels) if channels > 0 => format!("{}/{channels}", trunk["calls"]),
        _ => trunk["calls"].to_string(),
    }
}
