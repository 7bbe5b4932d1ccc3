//! Rules that concern more than one key, or the world outside the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::check::nearest;
use super::finding::Finding;
use super::tree::{Item, Value};
use super::values::{SipTransport, check_format, split_url};
use super::{AriMedium, Config, InboundAuth, ProviderSection};

/// SIP profiles that are part of the program.
pub const BUILT_IN_PROFILES: [&str; 10] = [
    "generic",
    "twilio",
    "twilio-secure",
    "asterisk",
    "freeswitch",
    "telnyx",
    "bandwidth",
    "vonage",
    "signalwire",
    "plivo",
];

/// Judges a configuration whose single keys are right.
/// `tree` is what `config` was made of; `written` also has what was cut from it.
pub(super) fn judge(config: &Config, tree: &Item, written: &Item, findings: &mut Vec<Finding>) {
    let mut rules = Rules { config, tree, written, findings };
    rules.node();
    rules.sip();
    rules.listeners();
    rules.tls();
    rules.media();
    rules.http();
    rules.audiosocket();
    rules.ari();
    rules.asterisk_websocket();
    rules.log();
    rules.providers();
    rules.chain();
    rules.mcp();
    rules.trunks();
    rules.later();
}

/// Those of them that refuse a REFER unless the trunk says otherwise.
const REFER_REFUSED_BY: [&str; 7] =
    ["twilio", "twilio-secure", "telnyx", "bandwidth", "vonage", "signalwire", "plivo"];

struct Rules<'a> {
    config: &'a Config,
    tree: &'a Item,
    written: &'a Item,
    findings: &'a mut Vec<Finding>,
}

impl Rules<'_> {
    fn error(&mut self, key: &str, message: impl Into<String>, fix: impl Into<String>) {
        let (place, key) = self.tree.locate(key);
        self.findings.push(Finding::error(&place, key, message, fix));
    }

    fn warning(&mut self, key: &str, message: impl Into<String>, fix: impl Into<String>) {
        let (place, key) = self.tree.locate(key);
        self.findings.push(Finding::warning(&place, key, message, fix));
    }

    fn written(&self, key: &str) -> bool {
        self.written.at(key).is_some()
    }

    fn node(&mut self) {
        let dir = &self.config.node.data_dir;
        if dir.exists() && !dir.is_dir() {
            let message = format!("{} is not a directory", dir.display());
            self.error("node.data_dir", message, "name a directory; it is created when missing");
        }
    }

    fn sip(&mut self) {
        let sip = &self.config.sip;
        if sip.t1 > sip.t2 {
            self.error(
                "sip.t1",
                "t1 is longer than t2",
                "make t1 shorter, such as \"500ms\" (RFC 3261 table 4)",
            );
        }
        if sip.profiles_dir != super::Sip::default().profiles_dir && !sip.profiles_dir.is_dir() {
            let message = format!("{} is not a directory", sip.profiles_dir.display());
            self.error(
                "sip.profiles_dir",
                message,
                "create it, or remove the key to use the built-in profiles alone",
            );
        }
        if sip.registrar.min_expires > sip.registrar.max_expires {
            let message = "the shortest registration is longer than the longest";
            self.error("sip.registrar.min_expires", message, "make it shorter than max_expires");
        }
        let wide = sip.listen.iter().any(|listen| !listen.address.ip().is_loopback());
        match sip.advertise {
            Some(address) if address.is_unspecified() => {
                let message = format!("{address} cannot be put into Contact and SDP");
                self.error("sip.advertise", message, "write the address peers can reach, or remove the key");
            }
            Some(address) if address.is_loopback() && wide => {
                let fix = "write the address peers can reach";
                self.warning("sip.advertise", format!("peers elsewhere cannot reach {address}"), fix);
            }
            _ => {}
        }
        if wide && !sip.registrar.enabled && self.config.trunk.is_empty() && !self.written("trunk") {
            let fix = "add a [[trunk]] with an `allow` list; see `tandem init`";
            self.warning("sip.listen", "other machines can reach SIP, but no trunk lets their calls in", fix);
        }
    }

    /// No two listeners on one socket.
    fn listeners(&mut self) {
        let mut taken: Vec<(bool, SocketAddr, String)> = Vec::new();
        let sip = self.config.sip.listen.iter().enumerate();
        let sip = sip.map(|(i, l)| (l.transport == SipTransport::Udp, l.address, format!("sip.listen[{i}]")));
        let http = (false, self.config.http.listen, "http.listen".to_owned());
        let audiosocket = self.config.audiosocket.as_ref();
        let audiosocket = audiosocket.map(|door| (false, door.listen, "audiosocket.listen".to_owned()));
        let door = self.config.asterisk_websocket.as_ref().and_then(|door| door.listen);
        let door = door.map(|listen| (false, listen, "asterisk_websocket.listen".to_owned()));
        for (udp, address, key) in sip.chain([http]).chain(audiosocket).chain(door) {
            let clash = taken.iter().find(|(u, a, _)| *u == udp && collide(*a, address));
            if let Some((_, other, other_key)) = clash {
                let message = format!("{address} is taken by {other_key} ({other})");
                self.error(&key, message, "give each listener an address and port of its own");
            }
            taken.push((udp, address, key));
        }
        let ports = self.config.media.rtp_ports;
        for (_, address, key) in taken.iter().filter(|(udp, ..)| *udp) {
            if (ports.first..=ports.last).contains(&address.port()) {
                let message = format!("port {} lies within media.rtp_ports ({ports})", address.port());
                self.error(key, message, "move the listener or the range");
            }
        }
    }

    /// What proves secure listeners must be there.
    fn tls(&mut self) {
        let config = self.config;
        let secure = |listen: &super::SipListen| listen.transport.is_secure();
        let first = config.sip.listen.iter().position(secure);
        let Some(tls) = &config.sip.tls else {
            if let Some(index) = first.filter(|_| !self.written("sip.tls")) {
                let scheme = config.sip.listen[index].transport.as_str();
                let fix = "add [sip.tls] with certificate and private_key";
                let message = format!("a {scheme}:// listener needs a certificate");
                self.error(&format!("sip.listen[{index}]"), message, fix);
            }
            return;
        };
        let ours = [("certificate", &tls.certificate), ("private_key", &tls.private_key)];
        let ours = ours.into_iter().filter(|_| first.is_some() || tls.show_to_servers);
        let roots = tls.roots.iter().map(|path| ("roots", path));
        let roots = roots.chain(tls.client_roots.iter().map(|path| ("client_roots", path)));
        if tls.client_certificates != super::ClientCertificates::Off && tls.client_roots.is_none() {
            let fix = "add client_roots = \"tls/peers-ca.pem\"";
            self.error("sip.tls.client_certificates", "nobody is named whose certificates are good", fix);
        }
        for (key, path) in ours.chain(roots) {
            if let Err(error) = std::fs::File::open(path) {
                let message = format!("{} cannot be read: {error}", path.display());
                self.error(&format!("sip.tls.{key}"), message, "name a readable PEM file");
            }
        }
    }

    fn media(&mut self) {
        let pairs = self.config.media.rtp_ports.pairs();
        let wanted = self.config.sip.max_calls;
        if wanted > pairs && (self.written("media.rtp_ports") || self.written("sip.max_calls")) {
            let range = self.config.media.rtp_ports;
            let message = format!("{range} has ports for {pairs} calls, fewer than sip.max_calls ({wanted})");
            self.warning(
                "media.rtp_ports",
                message,
                format!("widen the range, or set sip.max_calls = {pairs}"),
            );
        }
        if let Some(path) = &self.config.media.hold_music
            && let Err(reason) = looks_like_wav(path)
        {
            let message = format!("the music {} cannot be played: {reason}", path.display());
            self.error(
                "media.hold_music",
                message,
                "name a WAV file, PCM or μ-law, or remove the key for silence",
            );
        }
        let mut seen = Vec::new();
        for (index, codec) in self.config.media.codecs.iter().enumerate() {
            if seen.contains(codec) {
                self.error(&format!("media.codecs[{index}]"), "this codec is listed twice", "remove one");
            }
            seen.push(*codec);
        }
    }

    fn http(&mut self) {
        let listen = self.config.http.listen;
        if !listen.ip().is_loopback() && !self.config.http.insecure {
            let message =
                format!("{listen} can be reached by other machines, and HTTP here is not encrypted");
            let fix = "listen on 127.0.0.1 behind a proxy that does TLS, or set http.insecure = true on a private network";
            self.error("http.listen", message, fix);
        }
        let socket = self.config.socket_path();
        let length = std::path::absolute(&socket).unwrap_or(socket).as_os_str().len();
        if length > SOCKET_PATH_MAX {
            let key = if self.written("http.socket") { "http.socket" } else { "node.data_dir" };
            let message = format!(
                "the path of the local socket has {length} bytes; the system allows {SOCKET_PATH_MAX}"
            );
            self.error(
                key,
                message,
                "set http.socket to a shorter path, such as \"/run/tandem/tandem.sock\"",
            );
        }
    }

    fn audiosocket(&mut self) {
        let Some(door) = &self.config.audiosocket else { return };
        if !AUDIOSOCKET_RATES.contains(&door.rate) {
            let message = format!("{} Hz is no rate of Asterisk's", door.rate);
            let fix = "write 8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000 or 192000";
            self.error("audiosocket.rate", message, fix);
        }
        if door.number.as_deref() == Some("*") {
            let fix = "write the number or extension whose flow answers";
            self.error("audiosocket.number", "\"*\" is no number that can be called", fix);
        }
        let elsewhere = |network: &super::Network| !network.0.addr().is_loopback();
        if !door.listen.ip().is_loopback() && !door.allow.iter().any(elsewhere) {
            let fix = "add the PBX's address to audiosocket.allow";
            self.warning("audiosocket.listen", "other machines can reach it, but none is let in", fix);
        }
    }

    fn ari(&mut self) {
        let Some(ari) = &self.config.ari else { return };
        let audiosocket = self.config.audiosocket.as_ref();
        let medium = ari.medium(audiosocket.is_some());
        let formats = match medium {
            AriMedium::Audiosocket => &ARI_FORMATS[..7],
            AriMedium::Websocket => &ARI_FORMATS[..],
            AriMedium::Rtp => &ARI_RTP_FORMATS[..],
        };
        if !formats.contains(&ari.format(medium)) {
            let message = format!("{:?} is no codec for this medium", ari.format(medium));
            self.error("ari.media_format", message, format!("write one of {}", formats.join(", ")));
        }
        if medium == AriMedium::Audiosocket && audiosocket.is_none() {
            let fix = "add an [audiosocket] section, or choose medium = \"rtp\"";
            self.error("ari.medium", "Asterisk would connect to an AudioSocket door that is not there", fix);
        }
        let local = split_url(&ari.url).is_some_and(|url| url.is_loopback());
        if ari.media_host.is_none() && medium != AriMedium::Websocket && !local {
            let listens = match (medium, audiosocket) {
                (AriMedium::Audiosocket, Some(door)) => Some(door.listen.ip()),
                _ => None,
            };
            let known = listens.or(self.config.sip.advertise).filter(|ip| !ip.is_unspecified());
            match known.or(self.config.sip.advertise) {
                None => self.error(
                    "ari",
                    "where Asterisk reaches us for audio is not known",
                    "add media_host: our address as the PBX sees it",
                ),
                Some(ip) if ip.is_loopback() => {
                    let message = format!("Asterisk is on another machine and would send audio to {ip}");
                    self.error("ari", message, "add media_host: our address as the PBX sees it");
                }
                Some(_) => {}
            }
        }
        if ari.dial.as_ref().is_some_and(|dial| !dial.contains("{number}")) {
            let fix = "write the endpoint with {number} in it, such as \"PJSIP/{number}@carrier\"";
            self.error("ari.dial", "every call would go to the same endpoint", fix);
        }
        if self.config.trunk.iter().any(|trunk| trunk.name == "ari") {
            let fix = "name the trunk something else";
            self.error("ari", "a [[trunk]] is called \"ari\", as calls of this section are", fix);
        }
        if split_url(&ari.url).is_some_and(|url| url.scheme == "http" && !url.is_loopback()) {
            let fix = "use https:// (tlsenable in http.conf), or keep it within a network you trust";
            self.warning("ari.url", "the password travels readable", fix);
        }
    }

    fn asterisk_websocket(&mut self) {
        let Some(door) = &self.config.asterisk_websocket else { return };
        let key = |name: &str| format!("asterisk_websocket.{name}");
        if !self.written(&key("listen")) && !self.written(&key("connect")) {
            let fix = "add listen = \"127.0.0.1:9093\", or connect = \"ws://127.0.0.1:8088/media\" to connect to Asterisk";
            return self.error("asterisk_websocket", "Asterisk has nowhere to connect to", fix);
        }
        if !FORMATS.contains(&door.format.as_str()) {
            let fix = format!("write one of {}", FORMATS.join(", "));
            self.error(&key("format"), format!("\"{}\" is no format that Tandem speaks", door.format), fix);
        }
        if door.number.as_deref() == Some("*") {
            let fix = "write the number or extension whose flow answers";
            self.error(&key("number"), "\"*\" is no number that can be called", fix);
        }
        let listens = ("", &door.username, &door.password_env, "ASTERISK_WEBSOCKET_PASSWORD");
        let connects =
            ("connect_", &door.connect_username, &door.connect_password_env, "ASTERISK_CONNECT_PASSWORD");
        for (prefix, user, password, example) in [listens, connects] {
            let key = |name: &str| key(&format!("{prefix}{name}"));
            if user.is_some() && password.is_none() {
                let fix = format!("add {prefix}password_env = \"{example}\"");
                self.error(&key("username"), "there is a user but no password", fix);
            }
            if user.is_none() && password.is_some() {
                let fix = format!("add {prefix}username");
                self.error(&key("password_env"), "there is a password but no user", fix);
            }
        }
        if door.connect.is_none() && door.connect_username.is_some() {
            let fix = "add connect = \"ws://127.0.0.1:8088/media\", or remove it";
            self.error(&key("connect_username"), "there is nothing to show it to", fix);
        }
        let url = door.connect.as_deref().and_then(split_url);
        if door.connect_username.is_some() && url.is_some_and(|url| url.scheme == "ws" && !url.is_loopback())
        {
            let fix = "use wss://, or keep it within a network you trust";
            self.warning(&key("connect"), "the password travels readable", fix);
        }
        let elsewhere = |network: &super::Network| !network.0.addr().is_loopback();
        let wide = door.listen.is_some_and(|listen| !listen.ip().is_loopback());
        if wide && !door.allow.iter().any(elsewhere) {
            let fix = "add the PBX's address to asterisk_websocket.allow";
            self.warning(&key("listen"), "other machines can reach it, but none is let in", fix);
        }
    }

    fn log(&mut self) {
        let level = self.config.log.level.as_str();
        let words = ["off", "error", "warn", "info", "debug", "trace"];
        if level.contains(['=', ',']) {
            if let Err(error) = tracing_subscriber::EnvFilter::try_new(level) {
                let fix = "write directives such as \"info,tandem::sip=debug\"";
                self.error("log.level", format!("\"{level}\" is no log filter: {error}"), fix);
            }
        } else if !words.contains(&level) {
            let fix = match nearest(level, words) {
                Some(word) => format!("did you mean \"{word}\"?"),
                None => "write error, warn, info, debug or trace".to_owned(),
            };
            self.error("log.level", format!("\"{level}\" is no log level"), fix);
        }
    }

    fn providers(&mut self) {
        for name in self.provider_names() {
            let key = format!("providers.{name}");
            if let Err(problem) = check_format("name", &name).and_then(|()| check_no_dot(&name)) {
                self.error(&key, problem.message, problem.fix);
            }
            match self.config.providers.get(&name) {
                Some(ProviderSection::Ultravox(ultravox)) => {
                    let (input, output) = (ultravox.input_sample_rate, ultravox.output_sample_rate);
                    for (rate, of) in [(input, "input_sample_rate"), (output, "output_sample_rate")] {
                        if ![8_000, 16_000, 24_000, 48_000].contains(&rate) {
                            let fix = "write 8000, 16000, 24000 or 48000";
                            self.error(&format!("{key}.{of}"), format!("{rate} Hz cannot be made"), fix);
                        }
                    }
                }
                Some(ProviderSection::Scripted(scripted)) => {
                    let Some(path) = &scripted.script else { continue };
                    if let Err(error) = std::fs::File::open(path) {
                        let message = format!("the script {} cannot be read: {error}", path.display());
                        self.error(
                            &format!("{key}.script"),
                            message,
                            "name a readable script file, or remove the key",
                        );
                    }
                }
                Some(ProviderSection::UltravoxSip(agent)) => {
                    let (agent, trunk) = (agent.agent.clone(), agent.trunk.clone());
                    self.sip_agent(&key, &agent, &trunk);
                }
                Some(ProviderSection::Openai(_)) | None => {}
            }
        }
    }

    fn sip_agent(&mut self, key: &str, agent: &str, trunk: &str) {
        let at = agent.strip_prefix("sip:").or_else(|| agent.strip_prefix("sips:")).unwrap_or_default();
        if at.split_once('@').is_none_or(|(user, host)| user.is_empty() || host.is_empty()) {
            let fix = "write agent = \"sip:agent_ID@DOMAIN\"";
            self.error(&format!("{key}.agent"), "it is no address of an agent".to_owned(), fix);
        }
        if !self.config.trunk.iter().any(|known| known.name == trunk) {
            let fix = "add a [[trunk]] whose peer is the agent's domain, and write its name";
            self.error(&format!("{key}.trunk"), format!("there is no trunk \"{trunk}\""), fix);
        }
        let config = self.config;
        let Some(index) = config.trunk.iter().position(|known| known.name == trunk) else { return };
        let refuses = match config.trunk[index].refer {
            Some(refer) => refer == super::Refer::Refuse,
            None => REFER_REFUSED_BY.contains(&config.trunk[index].profile.as_str()),
        };
        if !refuses {
            let message = "whoever talks the agent into a transfer (REFER) has it dialled at your cost";
            self.warning(&format!("trunk[{index}].refer"), message, "add refer = \"refuse\" to this trunk");
        }
    }

    /// Configured and built-in names, with those whose sections have errors of their own.
    fn provider_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.config.providers.keys().cloned().collect();
        if let Some(Value::Table(written)) = self.written.at("providers").map(|item| &item.value) {
            names.extend(written.keys().cloned());
        }
        names.sort();
        names.dedup();
        names
    }

    fn chain(&mut self) {
        let names = self.provider_names();
        let chain = &self.config.routing.default_chain;
        for (index, name) in chain.iter().enumerate() {
            let key = format!("routing.default_chain[{index}]");
            if !names.contains(name) {
                let fix = match nearest(name, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("add [providers.{name}], or use one of {}", names.join(", ")),
                };
                self.error(&key, format!("there is no provider \"{name}\""), fix);
            } else if chain[..index].contains(name) {
                self.warning(&key, format!("\"{name}\" is listed twice"), "remove one");
            }
        }
        if !self.written("routing.default_chain") {
            let unused: Vec<_> =
                self.config.providers.keys().filter(|name| !chain.contains(name)).cloned().collect();
            for name in unused.iter().take(1) {
                let message =
                    format!("calls go to \"{}\" although \"{name}\" is configured", chain.join("\", \""));
                let fix = format!("set routing.default_chain = [\"{name}\"]");
                self.warning(&format!("providers.{name}"), message, fix);
            }
        }
    }

    fn trunks(&mut self) {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let config = self.config;
        for (index, trunk) in config.trunk.iter().enumerate() {
            let key = |field: &str| format!("trunk[{index}].{field}");
            if let Some(first) = names.insert(&trunk.name, index) {
                let message = format!("\"{}\" is also the name of trunk[{first}]", trunk.name);
                self.error(&key("name"), message, "give each trunk a name of its own");
            }
            self.profile(&key("profile"), &trunk.profile);
            let digest = trunk.inbound_auth == InboundAuth::Digest;
            if digest && (trunk.username.is_none() || trunk.password_env.is_none()) {
                let fix = "add username and password_env, or set inbound_auth = \"none\"";
                self.error(&key("inbound_auth"), "digest needs a user and a password", fix);
            }
            if digest && trunk.profile.starts_with("twilio") {
                let fix = "set inbound_auth = \"none\" and rely on the source addresses";
                self.error(
                    &key("inbound_auth"),
                    "Twilio sends no credentials, so every call would be refused",
                    fix,
                );
            }
            if trunk.password_env.is_some() && trunk.username.is_none() && !digest {
                self.warning(&key("password_env"), "there is a password but no user", "add username");
            }
            let leads_nowhere = trunk.peers.is_empty() && trunk.register.is_empty();
            if trunk.allow.is_empty() && leads_nowhere && trunk.profile == "generic" {
                let fix = "add allow = [\"192.0.2.10\"] for inbound calls, peers = [\"192.0.2.10\"] for outbound ones";
                self.warning(&key("name"), "this trunk has neither sources nor targets", fix);
            }
            self.headers(index);
            self.keys_in_the_clear(index);
            self.overlaps(index);
        }
    }

    /// A server of tools is a program or a URL.
    fn mcp(&mut self) {
        for (name, server) in &self.config.mcp {
            let key = format!("mcp.{name}");
            if server.command.is_empty() == server.url.is_none() {
                let fix = "set either command = [\"program\"] or url = \"https://...\"";
                self.error(&key, "an MCP server is a program or a URL", fix);
            }
            let prefix = server.prefix.clone().unwrap_or_else(|| format!("{name}_"));
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if prefix.len() > 32 || !prefix.chars().all(fits) {
                let fix = format!("set mcp.{name}.prefix to at most 32 letters, digits, `_` or `-`");
                self.error(&key, format!("\"{prefix}\" cannot begin the name of a tool"), fix);
            }
        }
    }

    fn profile(&mut self, key: &str, profile: &str) {
        let dir = &self.config.sip.profiles_dir;
        if BUILT_IN_PROFILES.contains(&profile) || dir.join(format!("{profile}.toml")).is_file() {
            return;
        }
        let fix = match nearest(profile, BUILT_IN_PROFILES) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => {
                let known = BUILT_IN_PROFILES.join(", ");
                format!("use one of {known}, or add {profile}.toml to {}", dir.display())
            }
        };
        self.error(key, format!("there is no SIP profile \"{profile}\""), fix);
    }

    /// Names and values that can be headers at all; which of them may be set, the start of the server tells.
    fn headers(&mut self, index: usize) {
        let trunk = &self.config.trunk[index];
        let token = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._!%*+`'~".contains(&b))
        };
        let names = trunk.header_names.iter().flat_map(|(theirs, ours)| [theirs, ours]);
        let names = names.map(|name| ("header_names", name)).collect::<Vec<_>>();
        let names: Vec<_> = trunk.headers.keys().map(|name| ("headers", name)).chain(names).collect();
        for (key, name) in names {
            if !token(name) {
                let message = format!("{name:?} is no name of a header");
                self.error(&format!("trunk[{index}].{key}"), message, "write a name such as X-Account");
            }
        }
        for (name, value) in &trunk.headers {
            if value.contains(|c: char| c.is_control()) || value.len() > HEADER_VALUE_MAX {
                let key = format!("trunk[{index}].headers.{name}");
                let fix = format!("write one line of at most {HEADER_VALUE_MAX} bytes");
                self.error(&key, "this value cannot be sent in a header", fix);
            }
        }
    }

    /// Keys of SRTP stand in the SDP; who can read that can listen.
    fn keys_in_the_clear(&mut self, index: usize) {
        let trunk = &self.config.trunk[index];
        if !matches!(trunk.srtp, Some(super::Srtp::Required | super::Srtp::Opportunistic)) {
            return;
        }
        let secure = |peer: &String| peer.starts_with("sips:") || peer.to_ascii_lowercase().contains("=tls");
        if let Some(peer) = trunk.peers.iter().find(|peer| !secure(peer))
            && trunk.profile != "twilio-secure"
            && trunk.outbound_proxy.is_none()
        {
            let message = format!("the keys of SRTP go to {peer:?} readable: they stand in the SDP");
            let fix = format!("write the peer as \"{peer};transport=tls\"");
            self.warning(&format!("trunk[{index}].srtp"), message, fix);
        }
    }

    /// A call must belong to one trunk.
    fn overlaps(&mut self, index: usize) {
        let config = self.config;
        for (place, network) in config.trunk[index].allow.iter().enumerate() {
            let earlier = &config.trunk[..index];
            let Some(other) = earlier.iter().find(|t| t.allow.iter().any(|n| n.overlaps(network))) else {
                continue;
            };
            let message =
                format!("{network} overlaps a source of trunk \"{}\", which is matched first", other.name);
            let fix = "let each source belong to one trunk, or put the narrower trunk first";
            self.warning(&format!("trunk[{index}].allow[{place}]"), message, fix);
        }
    }

    fn later(&mut self) {
        let config = self.config;
        let sections = [("cluster", config.cluster.is_some(), "this node runs alone")];
        for (section, present, fix) in sections {
            if present {
                let message = format!("[{section}] {NOT_AVAILABLE}");
                self.warning(section, message, format!("{fix}; remove the section to silence this"));
            }
        }
    }
}

/// What Asterisk calls the formats that Tandem speaks on a connection of its own.
const FORMATS: [&str; 13] = [
    "slin16", "slin24", "slin", "slin12", "slin32", "slin44", "slin48", "slin96", "slin192", "ulaw", "alaw",
    "g722", "opus",
];

/// Longest value of a header of a trunk.
const HEADER_VALUE_MAX: usize = 1024;

/// What Asterisk has linear formats for, in Hz.
const AUDIOSOCKET_RATES: [u32; 9] = [8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];

/// What audio of `[ari]` can be coded in, under Asterisk's names; AudioSocket takes the linear ones.
const ARI_FORMATS: [&str; 10] =
    ["slin", "slin12", "slin16", "slin24", "slin32", "slin44", "slin48", "ulaw", "alaw", "g722"];
/// Those with a static payload type: others Asterisk sends over RTP without signalling, but does not take.
const ARI_RTP_FORMATS: [&str; 4] = ["g722", "slin", "ulaw", "alaw"];

const NOT_AVAILABLE: &str = "is not available in this version";

/// `sun_path` has 108 bytes, the last of them 0.
const SOCKET_PATH_MAX: usize = 107;

/// Whether two listeners of one transport want the same socket. Port 0 never does.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let wildcard = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || (wildcard && a.is_ipv4() == b.is_ipv4()))
}

/// Whether a file can be read and begins as a WAV file does; the server reads the rest when it starts.
fn looks_like_wav(path: &std::path::Path) -> Result<(), String> {
    let mut head = [0; 12];
    let mut file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    std::io::Read::read_exact(&mut file, &mut head).map_err(|_| "it is no WAV file".to_owned())?;
    match (&head[..4], &head[8..]) {
        (b"RIFF", b"WAVE") => Ok(()),
        _ => Err("it is no WAV file".to_owned()),
    }
}

fn check_no_dot(name: &str) -> Result<(), super::values::ValueError> {
    let problem = || super::values::ValueError {
        message: format!("the provider name \"{name}\" has a dot in it"),
        fix: "use letters, digits, `-` and `_`".into(),
    };
    if name.contains('.') { Err(problem()) } else { Ok(()) }
}
