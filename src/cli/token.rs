//! `tandem token`: API tokens, made in the store of this host.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::failure::{Exit, Failure};
use super::output::ago;
use crate::config::values::parse_duration;
use crate::id::TokenId;
use crate::store::{Role, Store};
use crate::time::UnixMs;

/// Make, list and revoke API tokens.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem token create --role analyst --org acme\n  tandem token list")]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it, once.
    #[command(
        before_help = "Examples:\n  tandem token create --role admin\n  tandem token create --role analyst --org acme --expires 30d"
    )]
    Create {
        /// What the token may do: admin, manager, supervisor, agent or analyst.
        #[arg(long, value_parser = role)]
        role: Role,
        /// The only organization it may see.
        #[arg(long, visible_alias = "organization", value_name = "NAME")]
        org: Option<String>,
        /// How long it works, such as 12h or 30d [default: for ever].
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<std::time::Duration>,
        /// What it is for.
        #[arg(long, value_name = "TEXT", default_value = "made with tandem token create")]
        label: String,
    },
    /// List tokens, without their secrets.
    #[command(before_help = "Examples:\n  tandem token list\n  tandem token list --json")]
    List,
    /// Make a token stop working.
    #[command(
        before_help = "Examples:\n  tandem token revoke tok_01KE0000000000000000000000\n  tandem token list -q | xargs -n 1 tandem token revoke"
    )]
    Revoke {
        /// Its id.
        id: TokenId,
    },
}

pub(super) async fn run(context: &Context, args: TokenArgs) -> Result<(), Failure> {
    let store = open(context).await?;
    match args.command {
        TokenCommand::Create { role, org, expires, label } => {
            let expires_at = expires.map(|time| {
                UnixMs::new(
                    UnixMs::now().get().saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
                )
            });
            let made = store.create_token(&label, role, org.as_deref(), expires_at).await?;
            if context.output.json {
                let mut document = serde_json::to_value(&made.token).unwrap_or_default();
                document["token"] = made.secret.as_str().into();
                return context.output.document(&document);
            }
            context.output.remark(
                "Keep it safe: it is shown only now. Use it as TANDEM_TOKEN or `Authorization: Bearer`.",
            );
            context.output.line(&made.secret)
        }
        TokenCommand::List => list(context, &store).await,
        TokenCommand::Revoke { id } => {
            if !store.revoke_token(id).await? {
                return Err(Failure::new(
                    Exit::NotFound,
                    format!("there is no token {id}"),
                    "see `tandem token list`",
                ));
            }
            if context.output.json {
                return context.output.document(&json!({ "id": id, "revoked": true }));
            }
            context.output.line(&id.to_string())
        }
    }
}

async fn list(context: &Context, store: &Store) -> Result<(), Failure> {
    let tokens = store.tokens().await?;
    if context.output.json {
        return context.output.document(&json!({ "data": tokens, "has_more": false, "next_cursor": null }));
    }
    if context.output.quiet {
        return tokens.iter().try_for_each(|token| context.output.line(&token.id.to_string()));
    }
    let now = UnixMs::now();
    let never = || "never".to_owned();
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            vec![
                token.id.to_string(),
                token.role.as_str().to_owned(),
                token.organization.clone().unwrap_or_else(|| "all".into()),
                token.last_used_at.map_or_else(never, |at| ago(at, now)),
                token.expires_at.map_or_else(never, |at| at.to_rfc3339()[..10].to_owned()),
                token.label.clone(),
            ]
        })
        .collect();
    context.output.table(&["ID", "ROLE", "ORGANIZATION", "USED", "EXPIRES", "LABEL"], &rows)
}

/// The store of this host, with its tables made.
async fn open(context: &Context) -> Result<Store, Failure> {
    let config = context.config()?;
    let store = Store::open(&config.store.url).await?;
    store.migrate().await?;
    Ok(store)
}

fn role(text: &str) -> Result<Role, String> {
    let known = || Role::ALL.map(Role::as_str).join(", ");
    Role::ALL
        .into_iter()
        .find(|role| role.as_str() == text)
        .ok_or_else(|| format!("known roles: {}", known()))
}

fn lifetime(text: &str) -> Result<std::time::Duration, String> {
    match parse_duration(text) {
        Ok(time) if time.is_zero() => Err("a token must work for some time, such as 30d".into()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}
