//! `tandem doctor`: what is wrong with this installation, why it matters, and the fix.
//!
//! Each check looks at one thing and answers for itself; none changes anything.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::Context;
use super::client::Client;
use super::failure::{Exit, Failure};
use super::output::Style;
use crate::config::{Config, Loaded};
use crate::time::UnixMs;

mod ari;
mod asterisk_websocket;
mod host;
mod network;
mod services;
mod trunks;

/// Find what is wrong with this installation, and the fix; exits with 7 when a check fails.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  tandem doctor\n  tandem doctor --offline --json")]
pub struct DoctorArgs {
    /// Connect to nothing outside this machine.
    #[arg(long)]
    offline: bool,
}

/// What one check found.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Stable name, such as `rtp_ports`.
    id: String,
    /// The verdict.
    status: Status,
    /// What was found.
    what: String,
    /// Why it matters; empty when all is well.
    why: String,
    /// What to do; empty when all is well.
    fix: String,
}

/// Verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All is well.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// It does not work.
    Fail,
}

impl Check {
    fn ok(id: impl Into<String>, what: impl Into<String>) -> Self {
        Self { id: id.into(), status: Status::Ok, what: what.into(), why: String::new(), fix: String::new() }
    }

    fn warn(id: impl Into<String>, what: impl Into<String>, why: &str, fix: impl Into<String>) -> Self {
        Self { id: id.into(), status: Status::Warn, what: what.into(), why: why.into(), fix: fix.into() }
    }

    fn fail(id: impl Into<String>, what: impl Into<String>, why: &str, fix: impl Into<String>) -> Self {
        Self { id: id.into(), status: Status::Fail, what: what.into(), why: why.into(), fix: fix.into() }
    }
}

pub(super) async fn run(context: &Context, args: DoctorArgs) -> Result<(), Failure> {
    let loaded = context.load();
    let client = context.client().ok();
    let checks = examine(&loaded, client.as_ref(), args.offline).await;
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    if context.output.json {
        context.output.document(&json!({ "ok": !failed, "checks": checks }))?;
    } else {
        checks.iter().try_for_each(|check| show(context, check))?;
    }
    if failed { Err(Failure::told(Exit::Problems)) } else { Ok(()) }
}

async fn examine(loaded: &Loaded, client: Option<&Client>, offline: bool) -> Vec<Check> {
    let config = &loaded.config;
    let running = tokio::net::UnixStream::connect(config.socket_path()).await.is_ok();
    let mut checks = configuration(loaded);
    checks.push(server(config, running));
    checks.extend(network::listeners(config, running).await);
    checks.push(network::rtp_ports(config));
    checks.push(network::address(config));
    checks.push(host::open_files(config));
    checks.push(host::realtime(config));
    checks.push(host::clock());
    checks.push(host::disk(config));
    checks.push(services::store(config).await);
    checks.push(services::tls_roots());
    checks.extend(trunks::certificate(config, UnixMs::now()));
    checks.extend(trunks::trunks(config, client.filter(|_| running), offline).await);
    checks.extend(services::providers(config, offline).await);
    checks.extend(ari::ari(config, client.filter(|_| running), offline).await);
    checks.extend(asterisk_websocket::connection(config, offline).await);
    checks
}

fn configuration(loaded: &Loaded) -> Vec<Check> {
    let name =
        loaded.file.as_ref().map_or_else(|| "no file; all defaults".into(), |f| f.display().to_string());
    if loaded.findings.is_empty() {
        return vec![Check::ok("config", name)];
    }
    let check = |finding: &crate::config::Finding| {
        let text = finding.to_string();
        let what = text.lines().next().unwrap_or_default().to_owned();
        if finding.is_error() {
            Check::fail("config", what, "`tandem serve` does not start", finding.fix.clone())
        } else {
            Check::warn("config", what, "part of the configuration has no effect", finding.fix.clone())
        }
    };
    loaded.findings.iter().map(check).collect()
}

fn server(config: &Config, running: bool) -> Check {
    let socket = config.socket_path().display().to_string();
    match running {
        true => Check::ok("server", format!("running, at {socket}")),
        false => Check::ok("server", "not running"),
    }
}

fn show(context: &Context, check: &Check) -> Result<(), Failure> {
    let (word, style) = match check.status {
        Status::Ok => ("ok  ", Style::Green),
        Status::Warn => ("warn", Style::Yellow),
        Status::Fail => ("FAIL", Style::Red),
    };
    let output = &context.output;
    output.line(&format!("{}  {:<12} {}", output.paint(style, word), check.id, check.what))?;
    if !check.why.is_empty() {
        output.line(&format!("{:18} {}", "", check.why))?;
    }
    if !check.fix.is_empty() {
        output.line(&format!("{:18} fix: {}", "", check.fix))?;
    }
    Ok(())
}
