//! `tandem call`: live and past calls, through the API.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use super::output::{Output, Style, ago, clock, items, text, transcript_line};
use super::{Context, dial, tail, trace};
use crate::id::CallId;
use crate::time::UnixMs;

/// Look at calls and act on them.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem call list\n  tandem call tail call_01KE0000000000000000000000")]
pub struct CallArgs {
    #[command(subcommand)]
    command: CallCommand,
}

#[derive(Debug, Subcommand)]
enum CallCommand {
    /// List calls, the latest first.
    #[command(before_help = "Examples:\n  tandem call list --live\n  tandem call list --limit 200 --json")]
    List(ListArgs),
    /// Call somebody; an assistant or a flow runs once they answer.
    #[command(
        before_help = "Examples:\n  tandem call start +15550123 --assistant reception --organization acme\n  tandem call start sip:bob@192.0.2.7 --flow 100 --trunk pbx\n  tandem call start +15550123 --watch"
    )]
    Start(dial::StartArgs),
    /// Move a call to somebody else, who takes the place of the callee or the assistant.
    #[command(
        before_help = "Examples:\n  tandem call transfer call_01KE0000000000000000000000 +15550199\n  tandem call transfer call_01KE0000000000000000000000 100"
    )]
    Transfer {
        /// The call.
        id: CallId,
        /// Number or SIP URI; a number of the call's organization runs its flow.
        to: String,
    },
    /// Show one call.
    #[command(
        before_help = "Examples:\n  tandem call show call_01KE0000000000000000000000\n  tandem call list -q | head -1 | xargs tandem call show"
    )]
    Show {
        /// The call.
        id: CallId,
    },
    /// Print what happens as it happens; with --json one object a line.
    #[command(
        before_help = "Examples:\n  tandem call tail\n  tandem call tail call_01KE0000000000000000000000 --json"
    )]
    Tail(tail::TailArgs),
    /// Print the SIP ladder of a call with times, and what became of its media.
    #[command(
        before_help = "Examples:\n  tandem call trace call_01KE0000000000000000000000\n  tandem call trace call_01KE0000000000000000000000 --pcap call.pcap"
    )]
    Trace(trace::TraceArgs),
    /// End a call.
    #[command(
        before_help = "Examples:\n  tandem call end call_01KE0000000000000000000000\n  tandem call list --live -q | xargs -n 1 tandem call end"
    )]
    End {
        /// The call.
        id: CallId,
    },
    /// Let the assistant say something.
    #[command(
        before_help = "Examples:\n  tandem call say call_01KE0000000000000000000000 \"We close in five minutes.\"\n  tandem call say call_01KE0000000000000000000000 one moment please"
    )]
    Say {
        /// The call.
        id: CallId,
        /// The words.
        #[arg(required = true, num_args = 1..)]
        text: Vec<String>,
    },
    /// Print what was said.
    #[command(
        before_help = "Examples:\n  tandem call transcript call_01KE0000000000000000000000\n  tandem call transcript call_01KE0000000000000000000000 --json"
    )]
    Transcript {
        /// The call.
        id: CallId,
    },
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only calls that are up now.
    #[arg(long)]
    live: bool,
    /// How many, 1 to 200.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// Go on after a page: its `next_cursor`.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Only calls of this number.
    #[arg(long, value_name = "NUMBER")]
    from: Option<String>,
    /// Only calls to this number.
    #[arg(long, value_name = "NUMBER")]
    to: Option<String>,
}

pub(super) async fn run(context: &Context, args: CallArgs) -> Result<(), Failure> {
    let client = context.client()?;
    match args.command {
        CallCommand::List(args) => list(context, client.get(&args.path()).await?),
        CallCommand::Show { id } => {
            let call = client.get(&format!("/api/v1/calls/{id}")).await?;
            let cost = match client.get(&format!("/api/v1/calls/{id}/cost")).await {
                Ok(cost) => cost,
                // Nothing is worse for it if the server is too old to know.
                Err(failure) if failure.exit() == Exit::NotFound => Value::Null,
                Err(failure) => return Err(failure),
            };
            show(context, call, &cost)
        }
        CallCommand::Tail(args) => tail::run(context, &client, &args).await,
        CallCommand::Trace(args) => trace::run(context, &client, &args).await,
        CallCommand::Start(args) => dial::start(context, &client, args).await,
        CallCommand::Transfer { id, to } => {
            dial::tell(context, &client, id, "transfer", json!({ "to": to })).await
        }
        CallCommand::End { id } => {
            let answer = client.post(&format!("/api/v1/calls/{id}/end"), JSON, "{}".into()).await?;
            done(context, id, "ended", answer)
        }
        CallCommand::Say { id, text } => {
            let body = json!({ "text": text.join(" ") }).to_string();
            let answer = client.post(&format!("/api/v1/calls/{id}/say"), JSON, body).await?;
            done(context, id, "said", answer)
        }
        CallCommand::Transcript { id } => {
            transcript(context, client.get(&format!("/api/v1/calls/{id}/transcript")).await?)
        }
    }
}

const JSON: &str = "application/json";

impl ListArgs {
    fn path(&self) -> String {
        let mut path = format!("/api/v1/calls?limit={}", self.limit);
        if self.live {
            path.push_str("&live=true");
        }
        for (name, value) in [("after", &self.after), ("from", &self.from), ("to", &self.to)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", percent(value)));
            }
        }
        path
    }
}

/// For a query: everything but letters, digits and `-._~` as `%XX` (RFC 3986 §2.1).
fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn list(context: &Context, page: Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&page);
    }
    let calls = page["data"].as_array().cloned().unwrap_or_default();
    if context.output.quiet {
        return calls.iter().try_for_each(|call| context.output.line(&text(&call["id"])));
    }
    let now = UnixMs::now();
    let rows: Vec<_> = calls
        .iter()
        .map(|call| {
            vec![
                text(&call["id"]),
                text(&call["from"]),
                text(&call["to"]),
                state(call),
                UnixMs::parse_rfc3339(&text(&call["created_at"]))
                    .map_or_else(|_| String::new(), |at| ago(at, now)),
                call["duration_ms"].as_u64().map_or_else(String::new, clock),
                text(&call["assistant"]),
                text(&call["trunk"]),
            ]
        })
        .collect();
    context.output.table(&["ID", "FROM", "TO", "STATE", "BEGAN", "LENGTH", "ASSISTANT", "TRUNK"], &rows)?;
    if let Some(cursor) = page["next_cursor"].as_str() {
        context.output.remark(&format!("more: tandem call list --after {cursor}"));
    }
    Ok(())
}

/// Its disposition once it is over, its phase before.
fn state(call: &Value) -> String {
    let over = text(&call["disposition"]);
    if over.is_empty() { text(&call["phase"]) } else { over }
}

fn show(context: &Context, mut call: Value, cost: &Value) -> Result<(), Failure> {
    if context.output.json {
        if !cost["currency"].is_null() {
            call["cost"] = cost.clone();
        }
        return context.output.document(&call);
    }
    if context.output.quiet {
        return context.output.line(&text(&call["id"]));
    }
    if let Some(fields) = call.as_object_mut() {
        fields.remove("cost");
    }
    print_fields(context, &call, "")?;
    marks(context, &call)?;
    if cost["currency"].is_null() { Ok(()) } else { cost_table(context, cost) }
}

/// Its tags and notes.
fn marks(context: &Context, call: &Value) -> Result<(), Failure> {
    let list = |name: &str| call[name].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let tags = list("tags");
    if !tags.is_empty() {
        let name = context.output.paint(Style::Faint, "tags:");
        context.output.line(&format!("{name} {}", tags.join(", ")))?;
    }
    list("notes").iter().try_for_each(|note| {
        let name = context.output.paint(Style::Faint, "note:");
        context.output.line(&format!("{name} {note}"))
    })
}

/// What the call has cost, thing by thing.
fn cost_table(context: &Context, cost: &Value) -> Result<(), Failure> {
    let currency = text(&cost["currency"]);
    let total = money(&cost["total"], &cost["scale"]);
    context.output.line(&format!("{} {total} {currency}", context.output.paint(Style::Faint, "cost:")))?;
    let items = cost["items"].as_array().cloned().unwrap_or_default();
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            let amount = match &item["amount"] {
                Value::Null => "no price".to_owned(),
                amount => money(amount, &cost["scale"]),
            };
            let mut row: Vec<_> = ["part", "provider", "model", "what"].map(|key| text(&item[key])).into();
            row.extend([used(item), amount]);
            row
        })
        .collect();
    context.output.table(&["FOR", "FROM", "MODEL", "WHAT", "USED", &currency], &rows)?;
    if cost["unpriced"] == true {
        context.output.remark("the sum leaves out what has no price; see cost.prices");
    }
    Ok(())
}

/// An amount in 10^-scale units, exactly, with two decimal places or more.
fn money(amount: &Value, scale: &Value) -> String {
    let (amount, scale) = (amount.as_u64().unwrap_or(0), scale.as_u64().unwrap_or(0).min(18) as usize);
    let unit = 10_u64.pow(u32::try_from(scale).unwrap_or(0));
    let fraction = format!("{:0scale$}", amount % unit);
    let shown = fraction.trim_end_matches('0').len().max(2.min(scale));
    if scale == 0 { amount.to_string() } else { format!("{}.{}", amount / unit, &fraction[..shown]) }
}

fn used(item: &Value) -> String {
    match item["unit"].as_str() {
        Some("ms") => clock(item["quantity"].as_u64().unwrap_or(0)),
        unit => format!("{} {}", item["quantity"], unit.unwrap_or_default()),
    }
}

fn print_fields(context: &Context, value: &Value, indent: &str) -> Result<(), Failure> {
    for (key, value) in
        value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null() && !value.is_array())
    {
        let name = context.output.paint(Style::Faint, &format!("{indent}{key}:"));
        if value.is_object() {
            context.output.line(&name)?;
            print_fields(context, value, &format!("{indent}  "))?;
        } else {
            context.output.line(&format!("{name} {}", text(value)))?;
        }
    }
    Ok(())
}

fn done(context: &Context, id: CallId, what: &str, answer: Value) -> Result<(), Failure> {
    if context.output.json {
        let answer = if answer.is_null() { json!({ "id": id, what: true }) } else { answer };
        return context.output.document(&answer);
    }
    context.output.line(&id.to_string())
}

fn transcript(context: &Context, page: Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&page);
    }
    let lines = ["data", "lines"].iter().find_map(|key| page[*key].as_array()).or(page.as_array());
    let lines = lines.ok_or_else(|| {
        Failure::new(
            Exit::Failure,
            "the server's answer has no lines in it",
            "use a Tandem of about this version",
        )
    })?;
    let output = &context.output;
    let start = |line: &Value| line["start_ms"].as_u64().unwrap_or_default();
    let mut told: Vec<(u64, String)> =
        lines.iter().map(|line| (start(line), transcript_line(output, line))).collect();
    let changes = items(&page["changes"]);
    told.extend(changes.iter().map(|change| provider_change(output, change)));
    if !changes.is_empty() {
        told.sort_by_key(|(at, _)| *at);
    }
    told.iter().try_for_each(|(_, line)| output.line(line))
}

/// Where a provider was lost, or another one went on.
fn provider_change(output: &Output, change: &Value) -> (u64, String) {
    let at = change["at_ms"].as_u64().unwrap_or_default();
    let provider = text(&change["provider"]);
    let words = match change["reason"].as_str() {
        Some(_) => format!("{provider} lost: {}", text(&change["reason"])),
        None => format!("{provider} goes on"),
    };
    (at, format!("{:>7}  {}", clock(at), output.paint(Style::Faint, &format!("-- {words}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_printed_exactly() {
        let shown = |amount: u64, scale: u64| money(&amount.into(), &scale.into());
        assert_eq!(shown(2_500_000_000, 9), "2.50");
        assert_eq!(shown(476_000, 9), "0.000476");
        assert_eq!((shown(0, 9), shown(250, 2), shown(7, 0)), ("0.00".into(), "2.50".into(), "7".into()));
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(percent("+1 555&x=ü"), "%2B1%20555%26x%3D%C3%BC");
    }
}
