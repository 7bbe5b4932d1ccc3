//! What the section `[ari]` comes to.

use std::time::Duration;

use secrecy::SecretString;

use crate::config::values::split_url;
use crate::config::{Ari, AriMedium, AriOrphans, Config};
use crate::pbx::Coding;

use super::app::{AppSettings, Orphans};

/// Everything the shell is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How the interface is reached.
    pub access: Access,
    /// What the application decides by.
    pub app: AppSettings,
    /// How audio travels.
    pub medium: AriMedium,
    /// How it is coded.
    pub coding: Coding,
    /// Where the PBX reaches us for audio: a host, and a port where another than ours is to be used.
    pub media_host: String,
    /// Endpoint of outgoing calls, with `{number}` in it.
    pub dial: Option<String>,
    /// Most audio that may wait to be heard.
    pub playout_limit: Duration,
}

/// How the interface is reached.
#[derive(Debug, Clone)]
pub struct Access {
    /// Base URL, without a slash at the end.
    pub url: String,
    /// User of `ari.conf`.
    pub username: String,
    /// Their password.
    pub password: SecretString,
}

impl Access {
    /// Of the section.
    ///
    /// # Errors
    /// In words, when there is no password.
    pub fn of(ari: &Ari) -> Result<Self, String> {
        let missing = || {
            let name = &ari.password_env;
            format!(
                "the password of [ari] is not there; set {name}, or {name}_FILE to the path of a file with it"
            )
        };
        Ok(Self {
            url: ari.url.trim_end_matches('/').to_owned(),
            username: ari.username.clone(),
            password: ari.password.clone().ok_or_else(missing)?,
        })
    }

    /// The same server's media WebSocket.
    pub fn media_url(&self) -> String {
        let base = self.socket_url();
        let base = base.strip_suffix("/ari").unwrap_or(&base);
        format!("{base}/media")
    }

    /// The base URL for WebSockets.
    pub fn socket_url(&self) -> String {
        match self.url.strip_prefix("https://") {
            Some(rest) => format!("wss://{rest}"),
            None => format!("ws://{}", self.url.strip_prefix("http://").unwrap_or(&self.url)),
        }
    }
}

impl Settings {
    /// Of a configuration that has the section.
    ///
    /// # Errors
    /// In words, when something is missing.
    pub fn of(config: &Config, ari: &Ari) -> Result<Self, String> {
        let medium = ari.medium(config.audiosocket.is_some());
        let format = ari.format(medium);
        let coding = Coding::from_asterisk(format).ok_or_else(|| format!("{format:?} is no codec"))?;
        let orphans = match ari.orphans {
            AriOrphans::Adopt => Orphans::Adopt,
            AriOrphans::Continue => Orphans::Continue,
            AriOrphans::Hangup => Orphans::HangUp,
        };
        Ok(Self {
            access: Access::of(ari)?,
            app: AppSettings {
                application: ari.application.clone(),
                node: config.node.name.clone(),
                format: coding.asterisk().ok_or("the codec has no name in Asterisk")?,
                orphans,
                queue_context: ari.queue_context.clone(),
            },
            medium,
            coding,
            media_host: media_host(config, ari),
            dial: ari.dial.clone(),
            playout_limit: config.media.max_playout,
        })
    }

    /// The endpoint that a number is called at; `None`: nobody is called.
    pub fn endpoint(&self, number: &str) -> Option<String> {
        Some(self.dial.as_ref()?.replace("{number}", number))
    }
}

/// Our address as the PBX sees it.
pub fn media_host(config: &Config, ari: &Ari) -> String {
    if let Some(host) = &ari.media_host {
        return host.clone();
    }
    let door = config.audiosocket.as_ref().map(|door| door.listen);
    if ari.medium(door.is_some()) == AriMedium::Audiosocket
        && let Some(listen) = door.filter(|listen| !listen.ip().is_unspecified())
    {
        return listen.ip().to_string();
    }
    if split_url(&ari.url).is_some_and(|url| url.is_loopback()) {
        return "127.0.0.1".to_owned();
    }
    config.sip.advertise.map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string())
}

/// `host:port`, unless the host has a port already; IPv6 addresses in brackets.
pub(super) fn with_port(host: &str, port: u16) -> String {
    if let Ok(ip) = host.parse() {
        return std::net::SocketAddr::new(ip, port).to_string();
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:{port}") }
}

/// The host of `host:port`, without brackets.
pub(super) fn without_port(host: &str) -> &str {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return host;
    }
    match host.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host.trim_matches(['[', ']']),
        _ => host.trim_matches(['[', ']']),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_interface_wants_them() {
        for (host, joined, bare) in [
            ("192.0.2.1", "192.0.2.1:9092", "192.0.2.1"),
            ("192.0.2.1:1000", "192.0.2.1:1000", "192.0.2.1"),
            ("2001:db8::1", "[2001:db8::1]:9092", "2001:db8::1"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7", "2001:db8::1"),
            ("tandem.example.com", "tandem.example.com:9092", "tandem.example.com"),
        ] {
            assert_eq!((with_port(host, 9092).as_str(), without_port(host)), (joined, bare));
        }
        let access = |url: &str| Access {
            url: url.to_owned(),
            username: String::new(),
            password: String::new().into(),
        };
        assert_eq!(access("http://127.0.0.1:8088/ari").media_url(), "ws://127.0.0.1:8088/media");
        assert_eq!(access("https://pbx/x/ari").media_url(), "wss://pbx/x/media");
    }
}
