//! From `[[trunk]]` to carriers: where calls go out, registrations, health and limits.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{self, CallerHeader, Config, Dtmf, NumberFormat, Refer, Srtp};
use crate::sip::carrier::Carriers;
use crate::sip::endpoint::EndpointHandle;
use crate::sip::identity::{self, NumberPolicy};
use crate::sip::message::Transport;
use crate::sip::profile;
use crate::sip::resolver::Resolver;
use crate::sip::trunk::{
    HealthPolicy, Peer, RedirectPolicy, ReferPolicy, RegistrationSpec, SrtpPolicy, Trunk,
};
use crate::sip::uri::Uri;

/// Starts what watches the trunks.
pub(super) fn start(config: &Config, endpoint: &EndpointHandle) -> anyhow::Result<Carriers> {
    let resolver = Resolver::system().unwrap_or_else(|error| {
        warn!(%error, "names of trunks cannot be looked up; addresses can be called");
        Resolver::fixed([])
    });
    let trunks = super::parts::trunks(config)?;
    Ok(Carriers::start(endpoint.clone(), resolver, &trunks, CancellationToken::new()))
}

/// What the section says of the way out.
pub(super) fn outward(trunk: &mut Trunk, section: &config::Trunk) -> anyhow::Result<()> {
    let usual = trunk.profile.transport;
    let peer = |text: &String| text.parse::<Peer>().map(|peer| peer.over(usual));
    trunk.peers = section.peers.iter().map(peer).collect::<Result<_, _>>()?;
    trunk.domain.clone_from(&section.domain);
    trunk.registrations = section
        .register
        .iter()
        .map(|one| registration(section, one, usual))
        .collect::<anyhow::Result<_>>()?;
    trunk.health = health(trunk, section);
    trunk.channels = section.channels as usize;
    trunk.outbound_calls = section.outbound_calls as usize;
    trunk.cps = section.cps.unwrap_or(trunk.profile.cps);
    trunk.outbound_proxy = section.outbound_proxy.as_deref().map(proxy).transpose()?;
    if let Some(caller) = &section.caller {
        trunk.from = caller.parse()?;
    }
    numbers(&mut trunk.numbers, section);
    headers(trunk, section)?;
    let profiles = || trunk.profile.failover_statuses.clone();
    trunk.failover_statuses = section.failover_statuses.clone().unwrap_or_else(profiles);
    trunk.refer = section.refer.map_or(trunk.refer, |wanted| match wanted {
        Refer::Local => ReferPolicy::Local,
        Refer::Pass => ReferPolicy::Pass,
        Refer::Refuse => ReferPolicy::Refuse,
    });
    trunk.redirects = RedirectPolicy {
        follow: section.redirects,
        hosts: section.redirect_hosts.clone(),
        ..RedirectPolicy::default()
    };
    Ok(())
}

/// What a trunk does about encryption: what it says itself, or its profile, or the installation.
pub(super) fn srtp(section: &config::Trunk, profile: SrtpPolicy, usual: Srtp) -> SrtpPolicy {
    match (section.srtp, profile) {
        (Some(wanted), _) => default_srtp(wanted),
        (None, SrtpPolicy::Off) => default_srtp(usual),
        (None, profile) => profile,
    }
}

/// What `media.srtp` says to whoever has no say of their own.
pub(super) fn default_srtp(wanted: Srtp) -> SrtpPolicy {
    match wanted {
        Srtp::Off => SrtpPolicy::Off,
        Srtp::Optional => SrtpPolicy::Optional,
        Srtp::Required => SrtpPolicy::Required,
        Srtp::Opportunistic => SrtpPolicy::Opportunistic,
    }
}

/// Headers that go to the peer and come from it, and keys.
fn headers(trunk: &mut Trunk, section: &config::Trunk) -> anyhow::Result<()> {
    let told = section.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let renamed = section.header_names.values().map(|name| (name.as_str(), ""));
    if let Some((name, _)) = told.chain(renamed).find(|(name, value)| !identity::may_be_set(name, value)) {
        anyhow::bail!("the header `{name}` may not be set; use an X- header");
    }
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    trunk.headers.add = pairs(&section.headers);
    trunk.headers.rename = pairs(&section.header_names);
    trunk.headers.pass.clone_from(&section.pass_headers);
    if let Some(wanted) = &section.caller_headers {
        let header = |wanted: &CallerHeader| match wanted {
            CallerHeader::PAssertedIdentity => profile::CallerHeader::PAssertedIdentity,
            CallerHeader::RemotePartyId => profile::CallerHeader::RemotePartyId,
        };
        trunk.caller_headers = wanted.iter().map(header).collect();
    }
    trunk.send_diversion = section.send_diversion.unwrap_or(trunk.send_diversion);
    trunk.dtmf = section.dtmf.map_or(trunk.dtmf, |wanted| match wanted {
        Dtmf::TelephoneEvent => profile::DtmfMethod::TelephoneEvent,
        Dtmf::Info => profile::DtmfMethod::Info,
        Dtmf::Inband => profile::DtmfMethod::Inband,
    });
    Ok(())
}

/// A proxy as a loose Route.
fn proxy(text: &str) -> anyhow::Result<Uri> {
    let scheme = if text.starts_with("sip:") || text.starts_with("sips:") { "" } else { "sip:" };
    let uri = Uri::parse(format!("{scheme}{text}")).with_context(|| format!("outbound_proxy {text:?}"))?;
    if uri.is_loose_route() { Ok(uri) } else { Ok(uri.with_param("lr", None)?) }
}

fn registration(
    section: &config::Trunk,
    wanted: &config::Register,
    usual: Option<Transport>,
) -> anyhow::Result<RegistrationSpec> {
    let registrar = wanted.registrar.parse::<Peer>()?.over(usual);
    let user = wanted.user.clone().or_else(|| section.username.clone());
    let user = user.context("`register` needs a user; add username to the trunk or user to `register`")?;
    Ok(RegistrationSpec {
        domain: section.domain.clone().unwrap_or_else(|| registrar.host_text()),
        registrar,
        contact_user: user.clone(),
        aor_user: user,
        expires: wanted.expires,
    })
}

fn health(trunk: &Trunk, section: &config::Trunk) -> HealthPolicy {
    let interval = section.options.unwrap_or(Duration::from_secs(trunk.profile.options_interval_s));
    let usual = HealthPolicy::default();
    // Asking more often than a datagram is repeated tells nothing new.
    let asked = interval.max(Duration::from_secs(1));
    HealthPolicy {
        options: !interval.is_zero(),
        interval: if interval.is_zero() { usual.interval } else { asked },
        ..usual
    }
}

fn numbers(policy: &mut NumberPolicy, section: &config::Trunk) {
    let emergency = section.emergency_calls.unwrap_or(policy.emergency);
    if let Some(country) = &section.country {
        *policy = NumberPolicy::of_country(country);
    }
    policy.emergency = emergency;
    policy.format = section.number_format.map(|format| match format {
        NumberFormat::AsDialled => profile::NumberFormat::AsDialled,
        NumberFormat::E164 => profile::NumberFormat::E164,
        NumberFormat::E164Plain => profile::NumberFormat::E164Plain,
        NumberFormat::National => profile::NumberFormat::National,
    });
    policy.blocked.extend(section.blocked_prefixes.iter().cloned());
    policy.allowed.clone_from(&section.allowed_prefixes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BUILT_IN_PROFILES;

    fn trunk(keys: &str, usual: Srtp) -> anyhow::Result<Trunk> {
        let mut config = Config::default();
        config.media.srtp = usual;
        let text = format!("name = \"t\"\npeers = [\"sip.example.com\"]\n{keys}");
        config.trunk = vec![toml::from_str(&text).expect("a trunk")];
        let trunks = super::super::parts::trunks(&config)?;
        Ok(trunks.named("t").map(|trunk| Trunk::clone(trunk)).expect("it was configured"))
    }

    #[test]
    fn every_profile_makes_a_trunk_with_its_encryption_and_transport() {
        use SrtpPolicy::{Off, Optional, Required};
        let expected = |profile: &str| match profile {
            "twilio-secure" => (Required, Some(Transport::Tls), false),
            "signalwire" => (Optional, None, false),
            "asterisk" | "freeswitch" => (Off, None, true),
            _ => (Off, None, false),
        };
        for profile in BUILT_IN_PROFILES {
            let made = trunk(&format!("profile = \"{profile}\""), Srtp::Off).expect(profile);
            let seen = (made.srtp, made.peers[0].transport, made.numbers.emergency);
            assert_eq!(seen, expected(profile), "{profile}");
            let of_a_pbx = matches!(profile, "asterisk" | "freeswitch" | "generic");
            let refer = if of_a_pbx { ReferPolicy::Local } else { ReferPolicy::Refuse };
            assert_eq!(made.refer, refer, "{profile}");
            let own = "srtp = \"opportunistic\"\nemergency_calls = true\nrefer = \"pass\"";
            let made = trunk(&format!("profile = \"{profile}\"\n{own}"), Srtp::Required).expect(profile);
            assert_eq!((made.srtp, made.numbers.emergency), (SrtpPolicy::Opportunistic, true), "{profile}");
            assert_eq!(made.refer, ReferPolicy::Pass, "{profile}");
        }
        let names: Vec<&str> = crate::sip::profile::Profile::builtin_names().collect();
        assert_eq!(names, BUILT_IN_PROFILES);
    }

    #[test]
    fn what_nobody_says_about_encryption_the_installation_says() {
        let made = |keys: &str| trunk(keys, Srtp::Optional).expect("a trunk").srtp;
        assert_eq!(made(""), SrtpPolicy::Optional);
        assert_eq!(made("srtp = \"off\""), SrtpPolicy::Off);
        assert_eq!(made("profile = \"twilio-secure\""), SrtpPolicy::Required);
    }

    #[test]
    fn limits_headers_and_the_proxy_reach_the_trunk() {
        let made = trunk(
            "channels = 5\ncps = 2.5\noutbound_proxy = \"proxy.example.com:5070\"\nsend_diversion = true\n\
             headers = { X-A = \"1\" }\nheader_names = { X-B = \"X-C\" }\ndtmf = \"info\"\n\
             caller_headers = [\"remote_party_id\"]\nmedia_networks = [\"192.0.2.0/24\"]",
            Srtp::Off,
        );
        let made = made.expect("a trunk");
        assert_eq!((made.channels, made.cps, made.send_diversion), (5, 2.5, true));
        let proxy = made.outbound_proxy.as_ref().map(Uri::as_str);
        assert_eq!(proxy, Some("sip:proxy.example.com:5070;lr"));
        assert_eq!(made.headers.add, [("X-A".to_owned(), "1".to_owned())]);
        assert_eq!(made.headers.rename, [("X-B".to_owned(), "X-C".to_owned())]);
        assert_eq!(made.caller_headers, [profile::CallerHeader::RemotePartyId]);
        assert_eq!((made.dtmf, made.media_networks.len()), (profile::DtmfMethod::Info, 1));
        // Without a word of its own the pace is the profile's.
        assert_eq!(trunk("profile = \"plivo\"", Srtp::Off).expect("a trunk").cps, 2.0);
    }

    #[test]
    fn headers_that_are_not_a_users_to_set_are_refused_by_name() {
        for keys in ["headers = { From = \"x\" }", "header_names = { X-A = \"Contact\" }"] {
            let error = format!("{:#}", trunk(keys, Srtp::Off).expect_err("it is ours"));
            assert!(error.contains("trunk t") && error.contains("may not be set"), "{error}");
        }
    }
}
