//! Transfers to numbers of ours: the number's flow goes on with whoever is transferred.
//!
//! A phone may name the numbers of its organization and every public one, the party of a trunk those of the
//! call's organization and every public one, the API those of the call's organization. Any other number is
//! dialled, as everything that is not ours.

use super::flow::{self, Planned};
use super::outbound::{Trunking, belongs};
use super::plan::Situation;
use crate::call::dial::{DialRequest, DialSource, DialTarget, RouteRefusal};
use crate::call::onward::{Asker, Onward};

impl Trunking {
    /// The flow that a transfer leads to; `None`: somebody is to be dialled.
    pub(super) async fn flow_of(
        &self,
        request: &DialRequest,
        asker: &Asker,
    ) -> Result<Option<Onward>, RouteRefusal> {
        let Some(number) = self.number_with_us(request) else { return Ok(None) };
        let directory = self.directory.now();
        let organization = match asker {
            Asker::Phone(user) => directory.phone(user).map(|phone| phone.organization.as_str()),
            Asker::Trunk | Asker::Api => request.organization.as_deref(),
        };
        let public = *asker != Asker::Api;
        let Some(route) = directory.route_within(&number, organization, public) else { return Ok(None) };
        let situation = Situation {
            from: request.from.clone(),
            max_forwards: Some(request.max_forwards),
            ..Situation::default()
        };
        let steps = self.planner.plan(&directory, &route, &situation).await;
        match steps.first() {
            // Whoever is transferred stays where they are rather than be hung up on.
            Some(Planned::Reject(status)) => Err(RouteRefusal::new(*status, "the number takes no calls")),
            Some(Planned::Impossible { status, reason }) => Err(RouteRefusal::new(*status, reason.clone())),
            None => Err(RouteRefusal::new(480, "the number's flow has no steps")),
            Some(_) => {
                let rest = Onward::new(route.recording, move |call| Box::pin(flow::run_steps(call, steps)));
                Ok(Some(rest))
            }
        }
    }

    /// What is dialled with us, if a transfer is to lead here: not one that names a trunk or somebody's dialog.
    fn number_with_us(&self, request: &DialRequest) -> Option<String> {
        let plain = request.source == DialSource::Transfer && request.trunks.is_empty();
        if !plain || request.replaces.is_some() {
            return None;
        }
        match &request.to {
            DialTarget::Number(number) => Some(number.clone()),
            DialTarget::Phone(_) | DialTarget::Exit(_) => None,
            DialTarget::Uri(uri) => {
                let elsewhere = self.trunks.iter().any(|trunk| belongs(uri, trunk, request.source));
                let ours = !elsewhere && self.is_our_domain(uri, request.at);
                uri.dialled().filter(|user| ours && !user.is_empty())
            }
        }
    }
}
