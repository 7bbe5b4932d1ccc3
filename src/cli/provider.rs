//! `tandem provider`: whether the providers can be used, why not, and the keys they are used with.

use std::io::{IsTerminal as _, Read as _};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use super::output::{items, text};
use super::{Context, tools};
use crate::id::ProviderKeyId;

/// See and check the AI providers of a running Tandem, and keep their keys.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem provider list\n  tandem provider check openai")]
pub struct ProviderArgs {
    #[command(subcommand)]
    command: ProviderCommand,
}

#[derive(Debug, Subcommand)]
enum ProviderCommand {
    /// List the providers with the state of their circuit breakers.
    #[command(before_help = "Examples:\n  tandem provider list\n  tandem provider list --json")]
    List,
    /// Show one provider and its keys.
    #[command(before_help = "Examples:\n  tandem provider show openai\n  tandem provider show openai --json")]
    Show {
        /// Its name.
        name: String,
    },
    /// Open a session and close it again; exit code 7 when that fails.
    #[command(
        before_help = "Examples:\n  tandem provider check openai\n  tandem provider check openai --json"
    )]
    Check {
        /// Its name.
        name: String,
    },
    /// Close its circuit breaker and end the rest of its keys.
    #[command(
        before_help = "Examples:\n  tandem provider reset openai\n  tandem provider reset openai --json"
    )]
    Reset {
        /// Its name.
        name: String,
    },
    /// List the tools assistants can use: built in, of organizations, of MCP servers.
    Tools(tools::ToolsArgs),
    /// Keep API keys in the database, sealed.
    #[command(
        before_help = "Examples:\n  tandem provider key add openai --org acme < key\n  tandem provider key list openai"
    )]
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Take a key from standard input; calls use it at once.
    #[command(
        before_help = "Examples:\n  tandem provider key add openai --org acme < key\n  tandem provider key add openai < /run/secrets/openai"
    )]
    Add {
        /// The provider.
        provider: String,
        /// Whose calls use it, and no other key [default: all that have no keys of their own].
        #[arg(long, visible_alias = "organization", value_name = "NAME")]
        org: Option<String>,
    },
    /// List the keys by their fingerprints: the first eight hexadecimal digits of their SHA-256.
    #[command(
        before_help = "Examples:\n  tandem provider key list openai\n  tandem provider key list openai --json"
    )]
    List {
        /// The provider.
        provider: String,
    },
    /// Remove a key from the database; no new session uses it.
    #[command(
        before_help = "Examples:\n  tandem provider key remove openai pkey_01KE0000000000000000000000\n  tandem provider key list openai -q | xargs -n 1 tandem provider key remove openai"
    )]
    Remove {
        /// The provider.
        provider: String,
        /// The key's id.
        id: ProviderKeyId,
    },
    /// Seal all keys anew under the present master key; exit code 7 when one does not open.
    #[command(before_help = "Examples:\n  tandem provider key rotate\n  tandem provider key rotate --json")]
    Rotate,
}

pub(super) async fn run(context: &Context, args: ProviderArgs) -> Result<(), Failure> {
    let client = context.client()?;
    match args.command {
        ProviderCommand::Tools(args) => tools::run(context, &client, &args).await,
        ProviderCommand::List => list(context, client.get(PATH).await?),
        ProviderCommand::Show { name } => {
            let provider = client.get(&path(&name, "")?).await?;
            let keys = client.get(&path(&name, "/keys")?).await?;
            show(context, provider, &keys)
        }
        ProviderCommand::Check { name } => check(context, post(&client, &path(&name, "/check")?).await?),
        ProviderCommand::Reset { name } => {
            let provider = post(&client, &path(&name, "/reset")?).await?;
            if context.output.json {
                return context.output.document(&provider);
            }
            context.output.line(&format!("{}: {}", text(&provider["name"]), text(&provider["state"])))
        }
        ProviderCommand::Key { command } => match command {
            KeyCommand::Add { provider, org } => {
                let body = json!({ "key": read_key()?, "organization": org });
                let path = path(&provider, "/keys")?;
                let added = client.post(&path, "application/json", body.to_string()).await?;
                if context.output.json {
                    return context.output.document(&added);
                }
                context
                    .output
                    .remark(&format!("It is named by its fingerprint: {}", text(&added["fingerprint"])));
                context.output.line(&text(&added["id"]))
            }
            KeyCommand::List { provider } => {
                list_keys(context, client.get(&path(&provider, "/keys")?).await?)
            }
            KeyCommand::Remove { provider, id } => {
                client.delete(&path(&provider, &format!("/keys/{id}"))?).await?;
                if context.output.json {
                    return context.output.document(&json!({ "id": id, "removed": true }));
                }
                context.output.line(&id.to_string())
            }
            KeyCommand::Rotate => rotate(context, post(&client, "/api/v1/provider-keys/rotate").await?),
        },
    }
}

async fn post(client: &super::client::Client, path: &str) -> Result<Value, Failure> {
    client.post(path, "application/json", String::new()).await
}

fn path(name: &str, rest: &str) -> Result<String, Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(Failure::new(Exit::Usage, "this is no name of a provider", "see `tandem provider list`"));
    }
    Ok(format!("{PATH}/{name}{rest}"))
}

fn list(context: &Context, answer: Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&answer);
    }
    let providers = items(&answer["data"]);
    if context.output.quiet {
        return providers.iter().try_for_each(|provider| context.output.line(&text(&provider["name"])));
    }
    let rows: Vec<_> = providers
        .iter()
        .map(|provider| {
            vec![
                text(&provider["name"]),
                text(&provider["kind"]),
                provider["default_chain"].as_u64().map_or_else(|| "-".to_owned(), |place| place.to_string()),
                text(&provider["state"]),
                keys(provider),
                text(&provider["sessions"]),
                text(&provider["failures"]),
                text(&provider["reason"]),
            ]
        })
        .collect();
    let head = ["PROVIDER", "KIND", "CHAIN", "BREAKER", "KEYS", "SESSIONS", "FAILURES", "REASON"];
    context.output.table(&head, &rows)
}

/// How many of its keys are in use, such as `1/2`.
fn keys(provider: &Value) -> String {
    let (all, resting) = (provider["keys"].as_u64(), provider["keys_resting"].as_u64());
    match (all, resting) {
        (Some(all), Some(resting)) if all > 0 => format!("{}/{all}", all.saturating_sub(resting)),
        _ => "-".to_owned(),
    }
}

fn show(context: &Context, mut provider: Value, keys: &Value) -> Result<(), Failure> {
    if context.output.json {
        provider["key_list"] = keys["data"].clone();
        return context.output.document(&provider);
    }
    let usable = if provider["usable"] == true { "usable" } else { "not usable now" };
    let head = format!("{} ({}): {usable}", text(&provider["name"]), text(&provider["kind"]));
    context.output.line(&head)?;
    let line = |key: &str, value: String| context.output.line(&format!("{key}: {value}"));
    let mut breaker = text(&provider["state"]);
    if let Some(wait) = provider["retry_in_ms"].as_u64() {
        breaker.push_str(&format!(", tried again in {}", seconds(wait)));
    }
    line("breaker", breaker)?;
    if !provider["reason"].is_null() {
        line("reason", text(&provider["reason"]))?;
    }
    match provider["default_chain"].as_u64() {
        Some(place) => line("default chain", format!("place {place}"))?,
        None => line("default chain", "not in it".to_owned())?,
    }
    let since_start = |key: &str| text(&provider[key]);
    line(
        "since the start",
        format!(
            "{} sessions, {} failures, opened {} times",
            since_start("sessions"),
            since_start("failures"),
            since_start("opened")
        ),
    )?;
    if let Some(ago) = provider["last_failure"]["ago_ms"].as_u64() {
        line("last failure", format!("{} ago: {}", seconds(ago), text(&provider["last_failure"]["cause"])))?;
    }
    if items(&keys["data"]).is_empty() { Ok(()) } else { list_keys(context, keys.clone()) }
}

fn list_keys(context: &Context, answer: Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&answer);
    }
    let keys = items(&answer["data"]);
    if context.output.quiet {
        let stored = keys.iter().filter(|key| !key["id"].is_null());
        return stored.map(|key| text(&key["id"])).try_for_each(|id| context.output.line(&id));
    }
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let mut state = text(&key["state"]);
            if let Some(wait) = key["retry_in_ms"].as_u64() {
                state = format!("{state} ({}, {} more)", text(&key["reason"]), seconds(wait));
            }
            let owner =
                if key["organization"].is_null() { "all".to_owned() } else { text(&key["organization"]) };
            vec![
                text(&key["fingerprint"]),
                text(&key["source"]),
                owner,
                state,
                text(&key["used"]),
                text(&key["id"]),
            ]
        })
        .collect();
    context.output.table(&["KEY", "SOURCE", "ORGANIZATION", "STATE", "USED", "ID"], &rows)
}

fn check(context: &Context, answer: Value) -> Result<(), Failure> {
    let ok = answer["ok"] == true;
    if context.output.json {
        context.output.document(&answer)?;
    } else if ok {
        let took = text(&answer["took_ms"]);
        context.output.line(&format!("{}: a session opened in {took} ms", text(&answer["provider"])))?;
    } else {
        context.output.line(&text(&answer["error"]))?;
    }
    if ok { Ok(()) } else { Err(Failure::told(Exit::Problems)) }
}

fn rotate(context: &Context, answer: Value) -> Result<(), Failure> {
    let failed = items(&answer["failed"]);
    if context.output.json {
        context.output.document(&answer)?;
    } else {
        context.output.line(&format!(
            "{} keys sealed anew under master key {}, {} were under it already, {} do not open",
            text(&answer["resealed"]),
            text(&answer["master_key"]),
            text(&answer["unchanged"]),
            failed.len()
        ))?;
        for one in failed {
            context.output.line(&format!(
                "{} of {}: {}",
                text(&one["id"]),
                text(&one["provider"]),
                text(&one["cause"])
            ))?;
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::told(Exit::Problems)) }
}

fn seconds(ms: u64) -> String {
    format!("{} s", ms.div_ceil(1000))
}

fn read_key() -> Result<String, Failure> {
    let mut input = std::io::stdin();
    let fix = "pipe the key in, such as `tandem provider key add openai < key`";
    if input.is_terminal() {
        return Err(Failure::new(Exit::Usage, "standard input is a terminal", fix));
    }
    let mut key = String::new();
    input
        .by_ref()
        .take(KEY_MOST)
        .read_to_string(&mut key)
        .map_err(|error| Failure::new(Exit::Failure, format!("the key cannot be read: {error}"), fix))?;
    match key.trim() {
        "" => Err(Failure::new(Exit::Usage, "standard input holds no key", fix)),
        key => Ok(key.to_owned()),
    }
}

const PATH: &str = "/api/v1/providers";
const KEY_MOST: u64 = 4_096;
