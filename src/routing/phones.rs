//! Calls to phones that register with us: to every contact at once, over the flow its registration came on.

use std::net::IpAddr;
use std::sync::Arc;

use super::outbound::Trunking;
use crate::call::dial::{Attempt, DialRequest, DialSource, DialTarget, RouteRefusal, Way};
use crate::call::hunt::Policy;
use crate::sip::profile::{NextHop, Profile};
use crate::sip::registrar::{Binding, TRUNK};
use crate::sip::trunk::Trunk;
use crate::sip::ua::OutgoingInvite;
use crate::sip::uri::{Host, Uri};
use crate::store::Phone;

impl Trunking {
    /// The phone that is meant, if one is: by its name, by its extension within its organization, or by its address
    /// with us when a party moves the call.
    pub(super) fn phone_of(&self, request: &DialRequest) -> Result<Option<String>, RouteRefusal> {
        let directory = self.directory.now();
        let own = |phone: &&Phone| request.organization.as_ref().is_some_and(|o| *o == phone.organization);
        match &request.to {
            DialTarget::Phone(user) => {
                let known = directory.phone(user);
                let foreign = request.organization.is_some() && known.filter(own).is_none();
                match known.filter(|_| !foreign) {
                    Some(phone) => Ok(Some(phone.user.clone())),
                    None => Err(RouteRefusal::new(404, "there is no such phone")),
                }
            }
            DialTarget::Number(number) => {
                Ok(directory.phone(number).filter(own).map(|phone| phone.user.clone()))
            }
            DialTarget::Uri(uri)
                if request.source == DialSource::Transfer && self.is_our_domain(uri, request.at) =>
            {
                let user = uri.user_decoded().unwrap_or_default();
                Ok(directory.phone(&user).filter(own).map(|phone| phone.user.clone()))
            }
            DialTarget::Uri(_) | DialTarget::Exit(_) => Ok(None),
        }
    }

    /// Whether a URI leads to us, by name or address.
    pub(super) fn is_our_domain(&self, uri: &Uri, at: Option<IpAddr>) -> bool {
        let named = match uri.host() {
            Some(Host::Name(name)) => self.domains.iter().any(|domain| domain.eq_ignore_ascii_case(name)),
            Some(Host::Ip(_)) | None => false,
        };
        named || self.is_ours(uri, at)
    }

    /// All its contacts, as one target whose legs ring together.
    pub(super) async fn phone_attempts(
        &self,
        request: &DialRequest,
        user: &str,
    ) -> Result<Vec<Attempt>, RouteRefusal> {
        let bindings = self.endpoint.bindings(user).await;
        if bindings.is_empty() {
            return Err(RouteRefusal::new(480, "the phone is not registered"));
        }
        let reach = self.directory.now().phone(user).map(|phone| phone.trunks.clone()).unwrap_or_default();
        let profile = Profile { next_hop: NextHop::Source, ..Profile::default() };
        let srtp = self.phone_srtp;
        let phone = Some(user.to_owned());
        let trunk = Trunk { reach: Some(reach), phone, srtp, ..Trunk::new(TRUNK, Arc::new(profile)) };
        let trunk = Arc::new(trunk);
        let attempts = bindings.into_iter().take(CONTACTS_MAX);
        let mut attempts = attempts
            .map(|binding| self.to_contact(request, user, &trunk, binding))
            .collect::<Result<Vec<_>, _>>()?;
        let mut first = attempts.remove(0);
        first.rivals = attempts;
        Ok(vec![first])
    }

    fn to_contact(
        &self,
        request: &DialRequest,
        user: &str,
        trunk: &Arc<Trunk>,
        binding: Binding,
    ) -> Result<Attempt, RouteRefusal> {
        let target = binding.target;
        let shown = self.endpoint.shown(&target);
        let own = shown.to_string();
        let domain = self.domains.first().map_or(own.as_str(), String::as_str);
        let address = |user: &str, host: &str| {
            Uri::sip(user, host, None).map_err(|error| RouteRefusal::new(500, error.to_string()))
        };
        let caller = request.from.as_deref().filter(|_| !request.withheld);
        let from = match caller {
            Some(caller) => address(caller, domain)?,
            None => address("anonymous", "anonymous.invalid")?,
        };
        let invite = OutgoingInvite {
            from_display: request.from_name.clone().filter(|_| !request.withheld),
            trunk: Some(TRUNK.to_owned()),
            headers: request.headers.clone(),
            request_uri: Some(binding.contact),
            route: binding.path,
            max_forwards: request.max_forwards,
            replaces: request.replaces.clone(),
            privacy: request.withheld,
            ..OutgoingInvite::new(target, address(user, domain)?, from)
        };
        let media = self.media.leg(trunk, shown, target.remote.ip());
        Ok(Attempt {
            trunk: Arc::clone(trunk),
            policy: Policy::plain(TRUNK),
            way: Way::Sip { invite: Box::new(invite), media: Box::new(media) },
            rivals: Vec::new(),
        })
    }
}

/// Contacts that ring at once.
const CONTACTS_MAX: usize = 10;
