//! `tandem phone`: phones that register with a running Tandem.

use std::io::{IsTerminal as _, Read as _};

use clap::{Args, Subcommand};
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

use super::Context;
use super::failure::{Exit, Failure};
use super::output::{items, text};
use crate::telemetry::for_terminal;

/// See, add and remove the phones that may register.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem phone list\n  tandem phone add 101 --org acme")]
pub struct PhoneArgs {
    #[command(subcommand)]
    command: PhoneCommand,
}

#[derive(Debug, Subcommand)]
enum PhoneCommand {
    /// List the phones, and where they are registered.
    #[command(before_help = "Examples:\n  tandem phone list\n  tandem phone list --json")]
    List,
    /// Show one phone and its contacts.
    #[command(before_help = "Examples:\n  tandem phone show 101\n  tandem phone show 101 --json")]
    Show {
        /// Its user.
        user: String,
    },
    /// Add a phone, or change the one of this user. Prints its password, which is kept nowhere.
    #[command(
        before_help = "Examples:\n  tandem phone add 101 --org acme\n  tandem phone add 102 --org acme --number +15550142 --trunk twilio --password-stdin < password"
    )]
    Add {
        /// Its user: what it registers as, and its extension.
        user: String,
        /// Whose it is.
        #[arg(long, visible_alias = "organization", value_name = "NAME")]
        org: String,
        /// The number its calls come from [default: its user].
        #[arg(long, value_name = "NUMBER")]
        number: Option<String>,
        /// A trunk it may call out over; may be repeated [default: none].
        #[arg(long = "trunk", value_name = "NAME")]
        trunks: Vec<String>,
        /// Read the password from standard input in place of making one.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove a phone and its registrations; calls go on.
    #[command(
        before_help = "Examples:\n  tandem phone remove 101\n  tandem phone list -q | xargs -n 1 tandem phone remove"
    )]
    Remove {
        /// Its user.
        user: String,
    },
}

pub(super) async fn run(context: &Context, args: PhoneArgs) -> Result<(), Failure> {
    let client = context.client()?;
    match args.command {
        PhoneCommand::List => list(context, client.get(PATH).await?),
        PhoneCommand::Show { user } => show(context, client.get(&path(&user)?).await?),
        PhoneCommand::Add { user, org, number, trunks, password_stdin } => {
            let password = if password_stdin { read_password()? } else { make_password() };
            let body = json!({
                "organization": org,
                "user": user,
                "password": password,
                "number": number,
                "trunks": trunks,
            });
            let mut answer = client.post(PATH, "application/json", body.to_string()).await?;
            if context.output.json {
                if !password_stdin {
                    answer["password"] = password.into();
                }
                return context.output.document(&answer);
            }
            if password_stdin {
                return context.output.line(&text(&answer["user"]));
            }
            context.output.remark("Its password; it is shown only now, and kept nowhere:");
            context.output.line(&password)
        }
        PhoneCommand::Remove { user } => {
            client.delete(&path(&user)?).await?;
            if context.output.json {
                return context.output.document(&json!({ "user": user, "removed": true }));
            }
            context.output.line(&for_terminal(&user))
        }
    }
}

fn path(user: &str) -> Result<String, Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if user.is_empty() || !user.chars().all(fits) {
        return Err(Failure::new(Exit::Usage, "this is no user of a phone", "see `tandem phone list`"));
    }
    Ok(format!("{PATH}/{user}"))
}

fn list(context: &Context, answer: Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&answer);
    }
    let phones = items(&answer["data"]);
    if context.output.quiet {
        return phones.iter().try_for_each(|phone| context.output.line(&text(&phone["user"])));
    }
    let rows: Vec<_> = phones
        .iter()
        .map(|phone| {
            let contacts = items(&phone["contacts"]);
            let first = contacts.first().map(place).unwrap_or_default();
            let more =
                if contacts.len() > 1 { format!(" and {} more", contacts.len() - 1) } else { String::new() };
            let trunks: Vec<String> = items(&phone["trunks"]).iter().map(text).collect();
            vec![
                text(&phone["user"]),
                text(&phone["organization"]),
                text(&phone["number"]),
                trunks.join(", "),
                if contacts.is_empty() { "no".to_owned() } else { format!("{first}{more}") },
                text(&phone["problem"]),
            ]
        })
        .collect();
    context.output.table(&["PHONE", "ORGANIZATION", "NUMBER", "TRUNKS", "REGISTERED", "PROBLEM"], &rows)
}

fn show(context: &Context, phone: Value) -> Result<(), Failure> {
    if context.output.json {
        return context.output.document(&phone);
    }
    let contacts = items(&phone["contacts"]);
    let state = if contacts.is_empty() { "not registered" } else { "registered" };
    context.output.line(&format!("{} of {}: {state}", text(&phone["user"]), text(&phone["organization"])))?;
    for key in ["number", "problem"] {
        if !phone[key].is_null() {
            context.output.line(&format!("{key}: {}", text(&phone[key])))?;
        }
    }
    let trunks: Vec<String> = items(&phone["trunks"]).iter().map(text).collect();
    let reach = if trunks.is_empty() { "the house alone".to_owned() } else { trunks.join(", ") };
    context.output.line(&format!("calls out over: {reach}"))?;
    if contacts.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> =
        contacts.iter().map(|one| vec![text(&one["contact"]), place(one), text(&one["until"])]).collect();
    context.output.table(&["CONTACT", "REACHED AT", "UNTIL"], &rows)
}

fn place(contact: &Value) -> String {
    format!("{} {}", text(&contact["transport"]), text(&contact["address"]))
}

/// About 119 bits, without characters that are taken for each other.
fn make_password() -> String {
    let mut rng = rand::rng();
    (0..PASSWORD_LENGTH)
        .filter_map(|_| PASSWORD_DIGITS.choose(&mut rng))
        .map(|digit| char::from(*digit))
        .collect()
}

fn read_password() -> Result<String, Failure> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        return Err(Failure::new(Exit::Usage, "standard input is a terminal", "pipe the password in"));
    }
    let mut password = String::new();
    input.by_ref().take(PASSWORD_MOST).read_to_string(&mut password).map_err(|error| {
        Failure::new(
            Exit::Failure,
            format!("the password cannot be read: {error}"),
            "pipe it in as one line of text",
        )
    })?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.chars().any(char::is_control) {
        return Err(Failure::new(
            Exit::Usage,
            "standard input holds no password",
            "pipe it in as one line of text",
        ));
    }
    Ok(password.to_owned())
}

const PATH: &str = "/api/v1/phones";
const PASSWORD_LENGTH: usize = 24;
const PASSWORD_DIGITS: &[u8] = b"23456789abcdefghjkmnpqrstuvwxyz";
const PASSWORD_MOST: u64 = 1_024;
