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
    trunk.refer = match section.refer {
        Refer::Local => ReferPolicy::Local,
        Refer::Pass => ReferPolicy::Pass,
        Refer::Refuse => ReferPolicy::Refuse,
    };
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
