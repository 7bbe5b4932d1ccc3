//! From `[[trunk]]` to carriers: where calls go out, registrations, health and limits.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{self, Config, NumberFormat, Refer};
use crate::sip::carrier::Carriers;
use crate::sip::endpoint::EndpointHandle;
use crate::sip::identity::NumberPolicy;
use crate::sip::profile;
use crate::sip::resolver::Resolver;
use crate::sip::trunk::{HealthPolicy, Peer, RedirectPolicy, ReferPolicy, RegistrationSpec, Trunk};

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
    let peer = |text: &String| text.parse::<Peer>();
    trunk.peers = section.peers.iter().map(peer).collect::<Result<_, _>>()?;
    trunk.domain.clone_from(&section.domain);
    trunk.registrations =
        section.register.iter().map(|one| registration(section, one)).collect::<anyhow::Result<_>>()?;
    trunk.health = health(trunk, section);
    trunk.outbound_calls = section.outbound_calls as usize;
    if let Some(caller) = &section.caller {
        trunk.from = caller.parse()?;
    }
    numbers(&mut trunk.numbers, section);
    trunk.headers.pass.clone_from(&section.pass_headers);
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

fn registration(section: &config::Trunk, wanted: &config::Register) -> anyhow::Result<RegistrationSpec> {
    let registrar: Peer = wanted.registrar.parse()?;
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
    if let Some(country) = &section.country {
        *policy = NumberPolicy::of_country(country);
    }
    policy.format = section.number_format.map(|format| match format {
        NumberFormat::AsDialled => profile::NumberFormat::AsDialled,
        NumberFormat::E164 => profile::NumberFormat::E164,
        NumberFormat::E164Plain => profile::NumberFormat::E164Plain,
        NumberFormat::National => profile::NumberFormat::National,
    });
    policy.blocked.extend(section.blocked_prefixes.iter().cloned());
    policy.allowed.clone_from(&section.allowed_prefixes);
}
