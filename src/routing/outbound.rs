//! Where calls go out: trunks, targets and the INVITEs for them. For phones of the house see `phones`.
//!
//! A number goes over the trunks asked for, or over all that have peers, in order. A URI is dialled only when
//! its host is one of a trunk's: neither a flow, a REFER nor a 3xx makes this an open relay.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::directory::Directory;
use super::doors;
use super::lines::LegLines;
use super::media::MediaSettings;
use super::plan::Planner;
use crate::call::dial::{Attempt, DialRequest, DialSource, DialTarget, Outbound, Permit, RouteRefusal, Way};
use crate::call::hunt::Policy;
use crate::call::onward::{Asker, Onward};
use crate::id::LegId;
use crate::pbx::{Originate, OutgoingChannel, PbxSettings};
use crate::sip::carrier::{Carriers, TargetOutcome};
use crate::sip::endpoint::EndpointHandle;
use crate::sip::identity::{self, CallIdentity};
use crate::sip::message::Transport;
use crate::sip::registrar;
use crate::sip::transport::Target;
use crate::sip::trunk::{SrtpPolicy, Trunk, Trunks};
use crate::sip::ua::{LegEvent, OutgoingInvite};
use crate::sip::uri::{Host, Uri};

/// The way out over trunks.
#[derive(Clone)]
pub struct Trunking {
    /// Sends.
    pub endpoint: EndpointHandle,
    /// All trunks.
    pub trunks: Trunks,
    /// Trunks for calls that name none, in order; empty: all that have peers.
    pub order: Vec<String>,
    /// Lines of legs.
    pub lines: LegLines,
    /// What legs' media is made with.
    pub media: MediaSettings,
    /// Our address in SDP, where it is not the one packets leave from.
    pub advertise: Option<IpAddr>,
    /// Targets, channels and pace of the trunks.
    pub carriers: Carriers,
    /// Phones, and whose they are.
    pub directory: Directory,
    /// Makes flows runnable.
    pub planner: Planner,
    /// Names phones register at, besides our addresses.
    pub domains: Vec<String>,
    /// Encryption of media with phones.
    pub phone_srtp: SrtpPolicy,
    /// The PBX, where calls leave by its channels.
    pub pbx: Option<PbxOut>,
    /// Where targets are looked up.
    pub runtime: tokio::runtime::Handle,
}

/// The way out over channels of a PBX.
#[derive(Clone)]
pub struct PbxOut {
    /// Makes channels.
    pub by: Arc<dyn Originate>,
    /// What their media is made with.
    pub settings: PbxSettings,
}

impl Outbound for Trunking {
    fn route(&self, request: DialRequest) -> oneshot::Receiver<Result<Vec<Attempt>, RouteRefusal>> {
        let trunking = self.clone();
        self.answer(async move { trunking.attempts(&request).await })
    }

    fn onward(
        &self,
        request: DialRequest,
        asker: Asker,
    ) -> oneshot::Receiver<Result<Option<Onward>, RouteRefusal>> {
        let trunking = self.clone();
        self.answer(async move { trunking.flow_of(&request, &asker).await })
    }

    fn permit(&self, trunk: &str) -> oneshot::Receiver<Result<Permit, RouteRefusal>> {
        let (carriers, trunk) = (self.carriers.clone(), trunk.to_owned());
        self.answer(async move {
            if trunk == registrar::TRUNK || trunk == doors::ARI {
                return Ok(Permit::default());
            }
            let permit = carriers.permit(&trunk).await;
            permit.map(Permit::holding).map_err(|error| RouteRefusal::new(503, error.to_string()))
        })
    }

    fn report(&self, attempt: &Attempt, outcome: TargetOutcome) {
        if attempt.trunk.name == registrar::TRUNK {
            return;
        }
        if let Way::Sip { invite, .. } = &attempt.way {
            self.carriers.report(&attempt.trunk.name, invite.target.remote, outcome);
        }
    }

    fn line(&self, leg: LegId) -> mpsc::Receiver<LegEvent> {
        self.lines.add(leg, None)
    }

    fn forget(&self, leg: LegId) {
        self.lines.remove(leg);
    }
}

impl Trunking {
    fn answer<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        self.runtime.spawn(async move {
            // Who asked may have gone.
            let _gone = answer.send(work.await);
        });
        answered
    }

    async fn attempts(&self, request: &DialRequest) -> Result<Vec<Attempt>, RouteRefusal> {
        if request.max_forwards == 0 {
            return Err(RouteRefusal::new(483, "the call has taken too many hops"));
        }
        if let Some(user) = self.phone_of(request)? {
            return self.phone_attempts(request, &user).await;
        }
        let Some((place, attempt)) = self.over_pbx(request)? else { return self.over_trunks(request).await };
        let sip: Vec<_> = request.trunks.iter().filter(|name| *name != doors::ARI).cloned().collect();
        if sip.is_empty() {
            return Ok(vec![attempt]);
        }
        // Trunks beside it keep their order; of those none need lead out.
        let others = self.over_trunks(&DialRequest { trunks: sip.clone(), ..request.clone() }).await;
        let mut attempts = others.unwrap_or_default();
        let before = |other: &&Attempt| sip[..place].contains(&other.trunk.name);
        let at = attempts.iter().take_while(before).count();
        attempts.insert(at, attempt);
        Ok(attempts)
    }

    async fn over_trunks(&self, request: &DialRequest) -> Result<Vec<Attempt>, RouteRefusal> {
        let (user, trunks) = self.choose(request)?;
        let mut attempts = Vec::new();
        let mut refusal = None;
        for trunk in trunks {
            let targets = match self.targets(request, &trunk).await {
                Ok(targets) => targets,
                Err(why) => {
                    refusal = Some(why);
                    continue;
                }
            };
            for (target, name) in targets {
                match self.attempt(request, &user, &trunk, (target, &name)) {
                    Ok(attempt) => attempts.push(attempt),
                    Err(why) => refusal = Some(why),
                }
            }
        }
        attempts.truncate(TARGETS_MAX);
        match (attempts.is_empty(), refusal) {
            (false, _) => Ok(attempts),
            (true, Some(refusal)) => Err(refusal),
            (true, None) => Err(RouteRefusal::new(503, "no trunk has a target to call; set trunk.peers")),
        }
    }

    /// A channel of the PBX, when that is asked for, or nothing else leads out; and how many trunks go before it.
    fn over_pbx(&self, request: &DialRequest) -> Result<Option<(usize, Attempt)>, RouteRefusal> {
        let asked = request.trunks.iter().any(|name| name == doors::ARI);
        let DialTarget::Number(number) = &request.to else { return Ok(None) };
        let reached = request.reach.as_ref().is_none_or(|names| names.iter().any(|name| name == doors::ARI));
        let only = request.trunks.is_empty() && !self.trunks.iter().any(|trunk| leads_out(trunk));
        let Some(pbx) = self.pbx.as_ref().filter(|_| asked || (only && reached)) else {
            let missing = "no calls leave over ARI: set ari.dial, such as \"PJSIP/{number}@carrier\"";
            return if asked { Err(RouteRefusal::new(503, missing)) } else { Ok(None) };
        };
        if !reached {
            return Err(RouteRefusal::new(403, "the phone may not call out"));
        }
        let to = OutgoingChannel {
            number: dialled(number),
            caller: request.from.clone().filter(|_| !request.withheld),
            caller_name: request.from_name.clone().filter(|_| !request.withheld),
            ring_timeout: request.ring_timeout,
        };
        let way = Way::Channel { by: Arc::clone(&pbx.by), to, settings: pbx.settings.clone() };
        let (trunk, policy) = (doors::trunk(doors::ARI), Policy::plain(doors::ARI));
        let place = request.trunks.iter().position(|name| name == doors::ARI).unwrap_or(0);
        Ok(Some((place, Attempt { trunk, policy, way, rivals: Vec::new() })))
    }

    /// What is dialled, and over which trunks.
    fn choose(&self, request: &DialRequest) -> Result<(String, Vec<Arc<Trunk>>), RouteRefusal> {
        match &request.to {
            DialTarget::Number(number) => Ok((number.clone(), self.asked(request)?)),
            // Phones are found before.
            DialTarget::Phone(_) => Err(RouteRefusal::new(404, "there is no such phone")),
            DialTarget::Exit(_) => Err(RouteRefusal::new(403, NO_CHANNEL)),
            DialTarget::Uri(uri) => {
                let user = uri.dialled().filter(|user| !user.is_empty());
                let user = user.ok_or_else(|| RouteRefusal::new(484, "the URI names nobody"))?;
                let wanted =
                    |trunk: &Trunk| request.trunks.is_empty() || request.trunks.contains(&trunk.name);
                let fits = |trunk: &&Arc<Trunk>| {
                    wanted(trunk) && belongs(uri, trunk, request.source) && reaches(request, trunk)
                };
                let trunks: Vec<_> = self.trunks.iter().filter(fits).cloned().collect();
                // A party that wants to be connected to us means a number we can reach.
                let moved = request.source == DialSource::Transfer;
                if trunks.is_empty() && moved && self.is_our_domain(uri, request.at) {
                    return Ok((user, self.asked(request)?));
                }
                if trunks.is_empty() {
                    return Err(RouteRefusal::new(403, "the URI's host is no trunk's; set trunk.peers"));
                }
                Ok((user, trunks))
            }
        }
    }

    fn asked(&self, request: &DialRequest) -> Result<Vec<Arc<Trunk>>, RouteRefusal> {
        if request.reach.as_ref().is_some_and(Vec::is_empty) {
            return Err(RouteRefusal::new(403, "the phone may not call out"));
        }
        let names = if request.trunks.is_empty() { &self.order } else { &request.trunks };
        if names.is_empty() {
            let fits = |trunk: &&Arc<Trunk>| leads_out(trunk) && reaches(request, trunk);
            return Ok(self.trunks.iter().filter(fits).cloned().collect());
        }
        let named = |name: &String| {
            let unknown = || RouteRefusal::new(404, format!("there is no trunk `{}`", name.escape_debug()));
            self.trunks.named(name).cloned().ok_or_else(unknown)
        };
        let chosen = names.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        Ok(chosen.into_iter().filter(|trunk| reaches(request, trunk)).collect())
    }

    /// Whether a URI has an address of ours; `at` is the one that who wrote it reaches us at.
    pub(super) fn is_ours(&self, uri: &Uri, at: Option<IpAddr>) -> bool {
        let Some(Host::Ip(ip)) = uri.host() else { return false };
        let listens = |listener: &crate::sip::endpoint::Listener| listener.address.ip() == ip;
        [self.advertise, at].contains(&Some(ip))
            || ip.is_loopback()
            || self.endpoint.local_addrs().iter().any(listens)
    }

    /// Where an INVITE goes, and under which name that was found.
    async fn targets(
        &self,
        request: &DialRequest,
        trunk: &Trunk,
    ) -> Result<Vec<(Target, Arc<str>)>, RouteRefusal> {
        if let (DialSource::Redirect, DialTarget::Uri(uri)) = (request.source, &request.to)
            && let Some(target) = self.redirected(uri, trunk)
        {
            return Ok(vec![(target, target.remote.ip().to_string().into())]);
        }
        let found = self.carriers.targets(&trunk.name).await;
        let found = found.map_err(|error| RouteRefusal::new(503, error.to_string()))?;
        Ok(found.into_iter().map(|(target, candidate)| (target, candidate.name)).collect())
    }

    fn redirected(&self, uri: &Uri, trunk: &Trunk) -> Option<Target> {
        let Some(Host::Ip(ip)) = uri.host() else { return None };
        let usual = trunk.profile.transport.unwrap_or(Transport::Udp);
        let transport = uri.transport().unwrap_or(usual);
        // A trunk that is spoken to by TLS is not led out of it.
        if usual.is_secure() && !transport.is_secure() {
            return None;
        }
        let remote = SocketAddr::new(ip, uri.port().unwrap_or(transport.default_port()));
        self.endpoint.target(transport, remote).ok()
    }

    /// The trunk's own proxy, or what its registrar told us to go through.
    fn preloaded(&self, trunk: &Trunk) -> Vec<Uri> {
        match &trunk.outbound_proxy {
            Some(proxy) => vec![proxy.clone()],
            None => self.carriers.service_route(&trunk.name),
        }
    }

    fn attempt(
        &self,
        request: &DialRequest,
        user: &str,
        trunk: &Arc<Trunk>,
        (target, name): (Target, &str),
    ) -> Result<Attempt, RouteRefusal> {
        let call = CallIdentity {
            called: user,
            caller: request.from.as_deref(),
            caller_name: request.from_name.as_deref(),
            withheld: request.withheld,
            from_inbound: request.inbound.as_deref(),
            extra: &request.headers,
        };
        let refused = |error: &dyn std::fmt::Display| RouteRefusal::new(403, error.to_string());
        // What this peer reaches us at, which another one may not.
        let shown = self.endpoint.shown(&target);
        let identity = identity::outgoing(&call, trunk, SocketAddr::new(shown, target.local.port()))
            .map_err(|error| refused(&error))?;
        // Without a domain of its own the trunk is its target, by the name it was asked for: carriers find our
        // account by it.
        let written = identity.request_uri.user_decoded().unwrap_or_default().into_owned();
        let (host, port) = trunk.host_at(name, target.remote);
        let to = Uri::sip(&written, &host, port).map_err(|error| refused(&error))?;
        let request_uri = to.clone();
        let invite = OutgoingInvite {
            from_display: identity.from_display,
            trunk: Some(trunk.name.clone()),
            headers: identity.headers,
            request_uri: Some(request_uri),
            route: self.preloaded(trunk),
            max_forwards: request.max_forwards,
            reliable: trunk.reliable_out,
            session_expires: trunk.session_expires,
            replaces: request.replaces.clone(),
            privacy: identity.privacy,
            ..OutgoingInvite::new(target, to, identity.from)
        };
        let media = self.media.leg(trunk, shown, target.remote.ip());
        let (trunk, policy) = (Arc::clone(trunk), policy(trunk));
        let way = Way::Sip { invite: Box::new(invite), media: Box::new(media) };
        Ok(Attempt { trunk, policy, way, rivals: Vec::new() })
    }
}

/// A number without what people write between its figures; an extension that is a name stays as it is.
fn dialled(number: &str) -> String {
    if number.chars().any(|c| c.is_ascii_alphabetic()) {
        return number.to_owned();
    }
    number.chars().filter(|c| c.is_ascii_digit() || "+*#".contains(*c)).collect()
}

/// Whether the request may go over this trunk.
fn reaches(request: &DialRequest, trunk: &Trunk) -> bool {
    request.reach.as_ref().is_none_or(|names| names.contains(&trunk.name))
}

fn leads_out(trunk: &Trunk) -> bool {
    !trunk.peers.is_empty() || !trunk.registrations.is_empty() || trunk.outbound_proxy.is_some()
}

fn policy(trunk: &Trunk) -> Policy {
    let peers = trunk.peers.iter().map(|peer| peer.host_text());
    Policy {
        trunk: trunk.name.clone(),
        failover: trunk.failover_statuses.clone(),
        follow: trunk.redirects.follow,
        hosts: trunk.redirects.hosts.iter().cloned().chain(peers).collect(),
        hops: trunk.redirects.hops,
    }
}

/// Whether a URI leads to a trunk: to its domain, one of its peers, or where its redirects may lead.
pub(super) fn belongs(uri: &Uri, trunk: &Trunk, source: DialSource) -> bool {
    let host = match uri.host() {
        Some(Host::Name(name)) => name.to_ascii_lowercase(),
        Some(Host::Ip(ip)) => ip.to_string(),
        None => return false,
    };
    let own = trunk.domain.as_deref().is_some_and(|domain| domain.eq_ignore_ascii_case(&host))
        || trunk.peers.iter().any(|peer| {
            let port = |port: Option<u16>| port.unwrap_or(5060);
            peer.host_text().eq_ignore_ascii_case(&host)
                && (source == DialSource::Redirect || port(peer.port) == port(uri.port()))
        });
    let redirect = source == DialSource::Redirect
        && trunk.redirects.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&host));
    own || redirect
}

/// Said when a place in a PBX is dialled.
const NO_CHANNEL: &str = "only a caller on a channel of the PBX can be sent to a place in it";
/// Targets of one call.
const TARGETS_MAX: usize = 16;
