//! `tandem db`: the database of this host.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Context;
use super::failure::{Exit, Failure};
use crate::store::Store;

/// Migrate, back up and restore the database.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem db status\n  tandem db backup tandem-backup.jsonl")]
pub struct DbArgs {
    #[command(subcommand)]
    command: DbCommand,
}

#[derive(Debug, Subcommand)]
enum DbCommand {
    /// Bring the tables up to this version.
    #[command(
        before_help = "Examples:\n  tandem db migrate\n  tandem db migrate --set store.url=postgres://tandem@db/tandem"
    )]
    Migrate,
    /// Say which migrations have been applied; exits with 7 when some are missing.
    #[command(before_help = "Examples:\n  tandem db status\n  tandem db status --json")]
    Status,
    /// Write everything to a file, while calls go on.
    #[command(
        before_help = "Examples:\n  tandem db backup tandem-backup.jsonl\n  tandem db backup /srv/backup/$(date +%F).jsonl"
    )]
    Backup {
        /// The file; it must not exist.
        file: PathBuf,
    },
    /// Read a backup into an empty database. The server must not run.
    #[command(
        before_help = "Examples:\n  tandem db restore tandem-backup.jsonl\n  tandem db restore tandem-backup.jsonl --set store.url=postgres://tandem@db/tandem"
    )]
    Restore {
        /// The backup.
        file: PathBuf,
    },
}

pub(super) async fn run(context: &Context, args: DbArgs) -> Result<(), Failure> {
    let config = context.config()?;
    let store = Store::open(&config.store.url).await?;
    match args.command {
        DbCommand::Migrate => {
            store.migrate().await?;
            status(context, &store).await
        }
        DbCommand::Status => status(context, &store).await,
        DbCommand::Backup { file } => {
            let summary = store.backup(&file).await?;
            context.output.document(&summary)
        }
        DbCommand::Restore { file } => {
            if tokio::net::UnixStream::connect(config.socket_path()).await.is_ok() {
                let fix = "stop it first, or its calls will be mixed with those of the backup";
                return Err(Failure::new(Exit::Conflict, "Tandem is running on this database", fix));
            }
            store.migrate().await?;
            let summary = store.restore(&file).await?;
            context.output.document(&summary)
        }
    }
}

async fn status(context: &Context, store: &Store) -> Result<(), Failure> {
    let status = store.migration_status().await?;
    if context.output.json {
        context.output.document(&status)?;
    } else {
        let rows: Vec<_> = status
            .migrations
            .iter()
            .map(|m| {
                vec![
                    m.number.to_string(),
                    m.name.clone(),
                    if m.applied { "applied" } else { "missing" }.into(),
                ]
            })
            .collect();
        context.output.table(&["NUMBER", "MIGRATION", "STATE"], &rows)?;
    }
    if status.is_current() { Ok(()) } else { Err(Failure::told(Exit::Problems)) }
}
