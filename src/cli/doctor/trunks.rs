//! Certificate of the SIP listeners, and the trunks.

use std::net::IpAddr;

use serde_json::Value;

use super::Check;
use crate::cli::client::Client;
use crate::config::Config;
use crate::sip::dns::Reach;
use crate::sip::message::Transport;
use crate::sip::resolver::Resolver;
use crate::sip::tls;
use crate::sip::trunk::Peer;
use crate::telemetry::for_terminal;
use crate::time::UnixMs;

/// Whether peers will take our certificate.
pub(super) fn certificate(config: &Config, now: UnixMs) -> Option<Check> {
    let section = config.sip.tls.as_ref()?;
    let secure = config.sip.listen.iter().any(|listen| listen.transport.is_secure());
    if !secure && !section.show_to_servers {
        return None;
    }
    let file = section.certificate.display();
    let facts = match tls::examine(&section.certificate, &section.private_key) {
        Ok(facts) => facts,
        Err(error) => {
            let what = crate::cli::output::chain(&error);
            let why = "the tls:// and wss:// listeners cannot be opened";
            return Some(Check::fail(ID, what, why, "name a PEM chain, leaf first, and the key of the leaf"));
        }
    };
    let hours = |until: i64| (until - now.get() / 1000) / 3600;
    let names: Vec<String> = facts
        .names
        .iter()
        .chain(&facts.sip_domains)
        .map(|name| for_terminal(name))
        .chain(facts.addresses.iter().map(IpAddr::to_string))
        .collect();
    let renew = format!("renew {file}; it is taken without a restart");
    let no_calls = "peers refuse the connection";
    let check = match (hours(facts.not_after), names.is_empty()) {
        (left, _) if left < 0 => {
            Check::fail(ID, format!("{file} ran out {} days ago", -left / 24), no_calls, renew)
        }
        _ if hours(facts.not_before) > 0 => {
            let what = format!("{file} holds only in {} hours", hours(facts.not_before));
            Check::fail(ID, what, no_calls, "check the clock, or use the certificate that holds now")
        }
        (_, true) => {
            let fix = "have one issued with the host name as subject alternative name; the common name does not count";
            Check::fail(ID, format!("{file} is for no name"), no_calls, fix)
        }
        (left, false) if left < SOON_HOURS => {
            let what = format!("{file} runs out in {} days", left / 24);
            Check::warn(ID, what, "from then on peers refuse the connection", renew)
        }
        (left, false) => {
            Check::ok(ID, format!("{file} is for {}, {} days left", names.join(", "), left / 24))
        }
    };
    // Peers are told an address; those who connect to it want it proven.
    let by_address = facts.names.is_empty() && facts.sip_domains.is_empty();
    match config.sip.advertise.filter(|address| by_address && !facts.addresses.contains(address)) {
        Some(address) if check.fix.is_empty() => {
            let why = "peers that connect to that address do not believe it";
            let fix = "have one issued for the host name that peers connect to";
            Some(Check::warn(ID, format!("{file} is not for {address}, which is advertised"), why, fix))
        }
        _ => Some(check),
    }
}

/// What the running server knows of its trunks, or else whether their names lead somewhere.
pub(super) async fn trunks(config: &Config, client: Option<&Client>, offline: bool) -> Vec<Check> {
    if let Some(client) = client {
        let answer = client.get("/api/v1/trunks").await;
        let trunks = answer.ok().and_then(|answer| answer["data"].as_array().cloned()).unwrap_or_default();
        return trunks.iter().map(known).collect();
    }
    if offline {
        return Vec::new();
    }
    let Ok(resolver) = Resolver::system() else {
        let fix = "see /etc/resolv.conf";
        return vec![Check::warn("trunks", "names cannot be looked up", "trunks by name lead nowhere", fix)];
    };
    let ours = config.sip.listen.iter().filter_map(|listen| {
        let transport = Transport::from_token(listen.transport.as_str())?;
        let v4 = listen.address.is_ipv4();
        Some(Reach { transport, v4, v6: !v4 })
    });
    let ours: Vec<Reach> = ours.collect();
    let mut checks = Vec::new();
    for trunk in &config.trunk {
        let peers = trunk.peers.iter().chain(trunk.register.iter().map(|one| &one.registrar));
        for peer in peers.filter_map(|text| text.parse::<Peer>().ok()) {
            let id = format!("trunk:{}", trunk.name);
            checks.push(match resolver.resolve(&peer, &ours).await {
                Ok(found) => Check::ok(id, format!("{peer} leads to {} addresses", found.len())),
                Err(error) => {
                    let fix = "check trunk.peers, sip.listen and DNS";
                    Check::fail(id, error.to_string(), "no call goes out over it", fix)
                }
            });
        }
    }
    checks
}

/// A trunk as the server tells it.
fn known(trunk: &Value) -> Check {
    let text = |key: &str| for_terminal(trunk[key].as_str().unwrap_or_default());
    let (name, state, reason) = (text("name"), text("state"), text("reason"));
    let id = format!("trunk:{name}");
    let fix = format!("see `tandem trunk test {name}`");
    let what = if reason.is_empty() { state.clone() } else { format!("{state}: {reason}") };
    match state.as_str() {
        "down" => Check::fail(id, what, "no call goes out over it", fix),
        "degraded" => Check::warn(id, what, "part of it does not answer", fix),
        _ => Check::ok(id, what),
    }
}

const ID: &str = "certificate";
/// Certificates are renewed weeks before they run out; two days of slack are left for whoever is told.
const SOON_HOURS: i64 = 14 * 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SipTls;

    fn config(certificate: &str, key: &str) -> Config {
        let mut config = Config::default();
        let fixture = |name: &str| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = format!("certificate = {:?}\nprivate_key = {:?}", fixture(certificate), fixture(key));
        config.sip.tls = Some(toml::from_str::<SipTls>(&text).expect("the section"));
        config.sip.listen = vec!["tls://127.0.0.1:5061".parse().expect("a listener")];
        config
    }

    fn verdict(config: &Config, at: i64) -> (String, String) {
        let check = certificate(config, UnixMs::new(at)).expect("TLS is used");
        (format!("{:?}", check.status), check.what)
    }

    #[test]
    fn a_certificate_is_judged_by_key_times_and_names() {
        let good = config("named.pem", "named.key.pem");
        let facts = tls::examine(
            &good.sip.tls.as_ref().expect("set").certificate,
            &good.sip.tls.as_ref().expect("set").private_key,
        );
        let facts = facts.expect("a pair");
        let day = 86_400_000;
        let (begins, ends) = (facts.not_before * 1000, facts.not_after * 1000);
        let (status, what) = verdict(&good, begins + day);
        assert!(status == "Ok" && what.contains("is for sip.example.test, 127.0.0.1"), "{what}");
        assert!(verdict(&good, begins - day).1.contains("holds only in 24 hours"));
        let (status, what) = verdict(&good, ends - 3 * day);
        assert!(status == "Warn" && what.contains("runs out in 3 days"), "{what}");
        let (status, what) = verdict(&good, ends + 2 * day);
        assert!(status == "Fail" && what.contains("ran out 2 days ago"), "{what}");
        let (status, what) = verdict(&config("named.pem", "other.key.pem"), begins + day);
        assert!(status == "Fail" && what.contains("cannot be used"), "{what}");
        let (status, what) = verdict(&config("none.pem", "named.key.pem"), begins + day);
        assert!(status == "Fail" && what.contains("none.pem"), "{what}");
        let mut plain = config("named.pem", "named.key.pem");
        plain.sip.listen.clear();
        assert!(certificate(&plain, UnixMs::new(begins)).is_none(), "nobody is shown it");
    }
}
