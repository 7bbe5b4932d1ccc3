//! The Asterisk behind `[ari]`: whether it is there, lets us in, and has what calls need.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Check;
use crate::ari::client::Client;
use crate::ari::model::{Info, Module};
use crate::ari::request::{Outcome, Request};
use crate::ari::settings::{self, Access};
use crate::config::values::split_url;
use crate::config::{Ari, AriMedium, Config};
use crate::telemetry::for_terminal;

/// All checks of the section; none without it.
pub(super) async fn ari(
    config: &Config,
    tandem: Option<&crate::cli::client::Client>,
    offline: bool,
) -> Vec<Check> {
    let Some(ari) = &config.ari else { return Vec::new() };
    let medium = ari.medium(config.audiosocket.is_some());
    let mut checks = vec![media_host(config, ari, medium)];
    let Some(parts) = split_url(&ari.url) else { return checks };
    if offline && !parts.is_loopback() {
        checks.push(Check::ok("ari", "not tried (--offline)"));
        return checks;
    }
    let reached = timeout(PATIENCE, TcpStream::connect((parts.host, parts.port_or_default()))).await;
    let problem = match reached {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    if let Some(problem) = problem {
        let what = format!("{} cannot be reached: {problem}", ari.url);
        let fix =
            "start Asterisk; set enabled, bindaddr and bindport in http.conf; check the firewall and ari.url";
        checks.push(Check::fail("ari", what, NO_CALLS, fix));
        return checks;
    }
    let client = match Access::of(ari).and_then(|access| Client::new(&access)) {
        Ok(client) => client,
        Err(problem) => {
            let fix = format!("set {}", ari.password_env);
            checks.push(Check::fail("ari", problem, NO_CALLS, fix));
            return checks;
        }
    };
    let (check, version) = access(&client, ari).await;
    checks.push(check);
    let Some(version) = version else { return checks };
    checks.push(release(&version, medium, ari.format(medium)));
    checks.push(rights(&client).await);
    checks.push(modules(client.ask(&Request::Modules).await, medium));
    let state = match tandem {
        Some(tandem) => tandem.get("/api/v1/ari").await.ok(),
        None => None,
    };
    checks.push(match state {
        Some(state) => following(&ari.application, &state),
        None => application(&client, ari, tandem.is_some()).await,
    });
    checks
}

/// Whether the PBX finds us.
fn media_host(config: &Config, ari: &Ari, medium: AriMedium) -> Check {
    let id = "ari_media";
    if medium == AriMedium::Websocket {
        return Check::ok(id, "we connect to the PBX for audio");
    }
    let host = settings::media_host(config, ari);
    let local = split_url(&ari.url).is_some_and(|url| url.is_loopback());
    let bare = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
    let loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if loopback && !local {
        let what = format!("the PBX at {} would send audio to {host}, which is itself", ari.url);
        return Check::fail(
            id,
            what,
            "calls have no audio",
            "set ari.media_host to our address as the PBX sees it",
        );
    }
    if medium == AriMedium::Audiosocket
        && !loopback
        && config.audiosocket.as_ref().is_some_and(|door| door.listen.ip().is_loopback())
    {
        let what = format!("the PBX connects to {host}, but audiosocket.listen is a loopback address");
        let fix = "listen on an address the PBX reaches, such as \"0.0.0.0:9092\", and allow the PBX";
        return Check::fail(id, what, "calls have no audio", fix);
    }
    Check::ok(id, format!("the PBX reaches us for audio at {host}"))
}

/// Whether we are let in; and the PBX's release then.
async fn access(client: &Client, ari: &Ari) -> (Check, Option<String>) {
    let answer = client.ask(&Request::Info).await;
    let check = match answer {
        Outcome::Done(body) => match serde_json::from_slice::<Info>(&body) {
            Ok(info) if !info.system.version.is_empty() => {
                let what = format!("{} answers as user {}", ari.url, ari.username);
                return (Check::ok("ari", what), Some(for_terminal(&info.system.version)));
            }
            _ => {
                let what = format!("{} is no Asterisk", ari.url);
                Check::fail("ari", what, NO_CALLS, "correct ari.url: http://HOST:8088/ari")
            }
        },
        Outcome::Refused { status: 401, .. } => {
            let what = format!("{} refuses user {} or the password (401)", ari.url, ari.username);
            let fix = format!(
                "in ari.conf: [{}] type=user password=...; the same in {}; then `module reload res_ari.so`",
                ari.username, ari.password_env
            );
            Check::fail("ari", what, NO_CALLS, fix)
        }
        Outcome::Refused { status: 403, .. } => {
            let what = format!("user {} may not do this (403)", ari.username);
            Check::fail("ari", what, NO_CALLS, "set read_only=no for the user in ari.conf")
        }
        Outcome::NotThere(_) => {
            let what = format!("{} has no ARI (404)", ari.url);
            let fix = "set enabled=yes in ari.conf; load res_ari; mind `prefix` in http.conf: it belongs into ari.url";
            Check::fail("ari", what, NO_CALLS, fix)
        }
        other => {
            Check::fail("ari", format!("{}: {}", ari.url, other.problem()), NO_CALLS, "see Asterisk's log")
        }
    };
    (check, None)
}

/// What the release lacks, by the releases in which things came.
fn release(version: &str, medium: AriMedium, format: &str) -> Check {
    let id = "ari_release";
    let what = format!("Asterisk {version}");
    let Some((major, minor)) = parse(version) else {
        return Check::ok(id, format!("{what}, whose features are not known here"));
    };
    let since = |table: [(u32, u32); 4]| match table.iter().find(|(line, _)| *line == major) {
        Some((_, first)) => minor >= *first,
        None => major > 23,
    };
    let wide = !matches!(format, "slin" | "ulaw" | "alaw");
    match medium {
        AriMedium::Websocket if !since([(20, 16), (21, 11), (22, 6), (23, 0)]) => {
            let fix =
                "upgrade to 20.16, 21.11, 22.6 or 23.0, or set ari.medium to \"rtp\" or \"audiosocket\"";
            Check::fail(id, what, "it has no chan_websocket, so calls have no audio", fix)
        }
        AriMedium::Audiosocket if wide && !since([(20, 17), (21, 12), (22, 7), (23, 1)]) => {
            let why = "its AudioSocket takes what we say for 8 kHz audio: callers hear it slowed down";
            let fix = "upgrade to 20.17, 21.12, 22.7 or 23.1, or set ari.media_format to \"slin\"";
            Check::fail(id, what, why, fix)
        }
        AriMedium::Audiosocket if !since([(20, 19), (21, u32::MAX), (22, 9), (23, 3)]) => {
            let why =
                "its AudioSocket can lose its place when a header arrives in pieces; ours are written whole";
            Check::warn(id, what, why, "upgrade to 20.19, 22.9 or 23.3 when you can")
        }
        _ => Check::ok(id, what),
    }
}

/// `22.4.1`, `certified/20.7-cert3`, `GIT-master-...`: the first two numbers.
fn parse(version: &str) -> Option<(u32, u32)> {
    let version = version.rsplit('/').next()?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    if !version.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the user may do things, found out by doing nothing: a bridge that is not there is deleted.
async fn rights(client: &Client) -> Check {
    let nothing = Request::DeleteBridge { bridge: "tandem-doctor".to_owned() };
    match client.ask(&nothing).await {
        Outcome::Refused { status: 403, .. } => Check::fail(
            "ari_rights",
            "the user may only read",
            "no call can be answered or made",
            "set read_only=no for the user in ari.conf, then `module reload res_ari.so`",
        ),
        Outcome::Done(_) | Outcome::NotThere(_) => Check::ok("ari_rights", "the user may control calls"),
        other => Check::warn(
            "ari_rights",
            other.problem(),
            "whether calls can be controlled is not known",
            "see Asterisk's log",
        ),
    }
}

/// Whether what calls need is loaded.
fn modules(answer: Outcome, medium: AriMedium) -> Check {
    let id = "ari_modules";
    let unknown = |problem: String| {
        let what = format!("its modules are not told: {problem}");
        Check::warn(id, what, "whether calls can be carried is not known", "load res_ari_asterisk.so")
    };
    let modules: Vec<Module> = match answer {
        Outcome::Done(body) => match serde_json::from_slice(&body) {
            Ok(modules) => modules,
            Err(error) => return unknown(error.to_string()),
        },
        other => return unknown(other.problem()),
    };
    let runs = |name: &&str| modules.iter().any(|module| module.name == *name && module.status == "Running");
    let audio: &[&str] = match medium {
        AriMedium::Audiosocket => &["res_audiosocket.so", "chan_audiosocket.so"],
        AriMedium::Rtp => &["chan_rtp.so"],
        AriMedium::Websocket => &["chan_websocket.so"],
    };
    let missing: Vec<_> = NEEDED.iter().chain(audio).filter(|name| !runs(name)).copied().collect();
    if !missing.is_empty() {
        let fix = format!(
            "`module load {}` at Asterisk's console; mind `noload` in modules.conf",
            missing.join("`, `module load ")
        );
        return Check::fail(id, format!("not running: {}", missing.join(", ")), NO_CALLS, fix);
    }
    let useful: Vec<_> = USEFUL.iter().filter(|(name, _)| !runs(name)).collect();
    if useful.is_empty() {
        return Check::ok(id, "all that calls need are running");
    }
    let names: Vec<_> = useful.iter().map(|(name, _)| *name).collect();
    let why: Vec<_> = useful.iter().map(|(_, why)| *why).collect();
    let fix = format!("`module load {}`", names.join("`, `module load "));
    Check::warn(id, format!("not running: {}", names.join(", ")), &why.join("; "), fix)
}

/// Whether the running server has the application.
fn following(name: &str, state: &serde_json::Value) -> Check {
    let id = "ari_app";
    if state["connected"] == true {
        return Check::ok(id, format!("the server has the application {name}"));
    }
    let reason = for_terminal(state["reason"].as_str().unwrap_or("not connected"));
    let what = format!("the server does not have the application {name}: {reason}");
    let fix = "stop the other client, or give ari.application a name of its own";
    Check::fail(id, what, "Stasis() hands no calls to it", fix)
}

/// Whether somebody else has the application.
async fn application(client: &Client, ari: &Ari, running: bool) -> Check {
    let id = "ari_app";
    let name = ari.application.clone();
    match client.ask(&Request::Application { application: name.clone() }).await {
        Outcome::Done(_) if running => Check::ok(id, format!("the application {name} is registered")),
        Outcome::Done(_) => Check::warn(
            id,
            format!("the application {name} is there although no Tandem runs here"),
            "two clients of one application take it from each other",
            "stop the other client or give ari.application a name of its own; one that was registered before stays \
             known until Asterisk forgets it",
        ),
        Outcome::NotThere(_) if running => Check::fail(
            id,
            format!("the application {name} is not registered although Tandem runs"),
            "Stasis() fails, so calls do not come in",
            "see `tandem ari status`",
        ),
        Outcome::NotThere(_) => Check::ok(id, format!("the application {name} is free")),
        other => Check::warn(id, other.problem(), "whether calls come in is not known", "see Asterisk's log"),
    }
}

const NO_CALLS: &str = "no calls come from the PBX or go to it";
const PATIENCE: Duration = Duration::from_secs(3);
const NEEDED: [&str; 6] = [
    "res_stasis.so",
    "app_stasis.so",
    "res_ari_events.so",
    "res_ari_channels.so",
    "res_ari_bridges.so",
    "res_ari_applications.so",
];
const USEFUL: [(&str, &str); 3] = [
    ("res_stasis_snoop.so", "channels cannot be listened to"),
    ("res_stasis_playback.so", "sounds of the PBX cannot be played"),
    ("func_dialplan.so", "transfers to an extension that does not exist lose the call"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Status;

    #[test]
    fn releases_are_judged_by_what_they_lack() {
        let judged = |version, medium, format| release(version, medium, format).status;
        assert_eq!(judged("22.5.2", AriMedium::Websocket, "slin16"), Status::Fail);
        assert_eq!(judged("22.6.0", AriMedium::Websocket, "slin16"), Status::Ok);
        assert_eq!(judged("18.9", AriMedium::Websocket, "slin16"), Status::Fail);
        assert_eq!(judged("22.6.0", AriMedium::Audiosocket, "slin16"), Status::Fail);
        assert_eq!(judged("22.9.0", AriMedium::Audiosocket, "slin16"), Status::Ok);
        assert_eq!(judged("24.0.0", AriMedium::Audiosocket, "slin24"), Status::Ok);
        assert_eq!(judged("certified/20.7-cert3", AriMedium::Rtp, "ulaw"), Status::Ok);
        assert_eq!(parse("certified/20.7-cert3"), Some((20, 7)));
        assert_eq!(parse("GIT-master-0123abc"), None);
    }

    #[test]
    fn a_server_that_lost_its_application_is_a_failure() {
        let state = |connected| serde_json::json!({ "connected": connected, "reason": "taken over" });
        assert_eq!(following("tandem", &state(true)).status, Status::Ok);
        let check = following("tandem", &state(false));
        assert!(check.status == Status::Fail && check.what.contains("taken over"));
    }

    #[test]
    fn missing_modules_are_named() {
        let all = |without: &str| {
            let names = NEEDED.iter().chain(&["chan_rtp.so"]).chain(USEFUL.iter().map(|(name, _)| name));
            let modules: Vec<_> = names
                .filter(|name| **name != without)
                .map(|name| serde_json::json!({ "name": name, "status": "Running" }))
                .collect();
            Outcome::Done(serde_json::json!(modules).to_string().into_bytes())
        };
        assert_eq!(modules(all(""), AriMedium::Rtp).status, Status::Ok);
        assert_eq!(modules(all("chan_rtp.so"), AriMedium::Rtp).status, Status::Fail);
        assert_eq!(modules(all("res_stasis_snoop.so"), AriMedium::Rtp).status, Status::Warn);
        assert_eq!(modules(all(""), AriMedium::Websocket).status, Status::Fail);
        assert_eq!(modules(Outcome::Lost("x".into()), AriMedium::Rtp).status, Status::Warn);
    }
}
