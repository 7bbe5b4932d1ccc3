//! The switchboard: takes each INVITE from its arrival to its place on a media worker, and hands every
//! later event to the leg it belongs to.
//!
//! The order at the door is: route, record, place. A call that cannot be recorded is refused (503), so
//! there is no call without a record; a call that is refused for any other reason has one that says why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info_span, warn};

use super::directory::{Directory, PhoneRoute, Route, Snapshot};
use super::flow;
use super::lines::LegLines;
use super::media::MediaSettings;
use super::plan::{HOPS_MOST, Planner, Situation};
use crate::call::dial::{DialKit, Outbound, Party, Permit};
use crate::call::handle::{CallCommand, CallHandle, Calls};
use crate::call::ledger::{Ending, Ledger};
use crate::call::recording::RecordingWriter;
use crate::call::replace::{Arriving, Newcomer};
use crate::call::transfer::Reach;
use crate::call::worker::{Surroundings, Workers};
use crate::call::{Call, Frame};
use crate::cost::{Account, Costs};
use crate::event::{CallCreated, CallEvent, CallEventKind, Direction, Disposition};
use crate::id::{CallId, LegId};
use crate::sip::carrier::Carriers;
use crate::sip::endpoint::EndpointHandle;
use crate::sip::leg::{LegMedia, SipLeg};
use crate::sip::message::StatusCode;
use crate::sip::ua::{IncomingInvite, LegCommand, LegEvent, UaEvent};
use crate::store::JournalHandle;
use crate::time::UnixMs;

pub use super::media::codecs;

/// Everything the switchboard works with. Shared by all calls.
pub struct Exchange {
    /// Who is called.
    pub directory: Directory,
    /// Makes flows runnable.
    pub planner: Planner,
    /// Writes records.
    pub journal: JournalHandle,
    /// Where calls live.
    pub workers: Workers,
    /// What legs' media is made with.
    pub media: MediaSettings,
    /// The way to each leg.
    pub lines: LegLines,
    /// How calls leave.
    pub outbound: Arc<dyn Outbound>,
    /// Counts the calls of each trunk.
    pub carriers: Carriers,
    /// What calls cost, and what they may.
    pub costs: Costs,
    /// Live calls.
    pub calls: Calls,
    /// Writes recordings, if the installation records at all.
    pub recordings: Option<RecordingWriter>,
    /// What a party hears while another keeps it waiting; none: silence.
    pub hold_music: Option<Arc<[i16]>>,
    /// Answers in signalling.
    pub endpoint: EndpointHandle,
    /// Set while the server stops: no call begins any more.
    pub draining: Arc<AtomicBool>,
}

impl Exchange {
    /// Whether the server is stopping.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The account of a call of this organization that begins now.
    pub(super) fn account(&self, directory: &Snapshot, organization: Option<&str>) -> Account {
        let daily = organization.and_then(|name| directory.daily_budget(name));
        self.costs.open(UnixMs::now(), organization, daily)
    }

    /// Whom a call in this situation can reach. Whose it is, is not yet said.
    pub(super) fn reach(&self, situation: &Situation) -> Reach {
        Reach {
            kit: DialKit { outbound: Arc::clone(&self.outbound), endpoint: self.endpoint.clone() },
            calls: self.calls.clone(),
            from: situation.from.clone(),
            organization: None,
            max_forwards: situation.max_forwards.unwrap_or(HOPS_MOST),
            hold_music: self.hold_music.clone(),
        }
    }
}

/// Runs until the endpoint stops. Admissions in progress are tracked in `tasks`.
pub async fn run(exchange: Arc<Exchange>, mut events: mpsc::Receiver<UaEvent>, tasks: TaskTracker) {
    while let Some(event) = events.recv().await {
        match event {
            UaEvent::Invite(invite) if invite.replaces.is_some() => replace(&exchange, *invite),
            UaEvent::Invite(invite) => {
                let stop = exchange.workers.stop_token().child_token();
                let inbox = exchange.lines.add(invite.leg, Some(stop.clone()));
                tasks.spawn(admit(Arc::clone(&exchange), invite, inbox, stop));
            }
            UaEvent::Leg(leg, event) => exchange.lines.tell(leg, event),
            UaEvent::Pong(_) | UaEvent::Answer { .. } | UaEvent::Phone(_) => {}
        }
    }
}

/// An INVITE that wants the place of a leg of ours goes to the call that has it (RFC 3891).
fn replace(exchange: &Exchange, invite: IncomingInvite) {
    let leg = invite.leg;
    let owner = invite.replaces.and_then(|replaced| Some((replaced, exchange.calls.of_leg(replaced)?)));
    let Some((replaced, call)) = owner else {
        return refuse(exchange, leg, StatusCode::CALL_DOES_NOT_EXIST);
    };
    let Some(permit) = exchange.carriers.enter_inbound(&invite.trunk.name) else {
        return refuse(exchange, leg, StatusCode::TEMPORARILY_UNAVAILABLE);
    };
    let events = exchange.lines.add(leg, Some(call.stop_token()));
    let media = exchange.media.leg(&invite.trunk, invite.local.ip(), invite.source.ip());
    let rest = (events, Permit::holding(permit));
    let endpoint = exchange.endpoint.clone();
    let arriving = Arriving::new(leg, endpoint, invite.offer, media, invite.trunk, rest);
    let with = Newcomer::Arriving(Box::new(arriving));
    // Not taken, it is refused as it is dropped.
    if let Err(error) = call.command(CallCommand::Replace { leg: replaced, with }) {
        tracing::debug!(%error, "an INVITE with Replaces comes too late");
    }
}

async fn admit(
    exchange: Arc<Exchange>,
    invite: Box<IncomingInvite>,
    inbox: mpsc::Receiver<LegEvent>,
    stop: CancellationToken,
) {
    let started = Instant::now();
    let id = CallId::fresh();
    let span = info_span!("call", %id, leg = %invite.leg, trunk = invite.trunk.name);
    let directory = exchange.directory.now();
    let (route, way) = route(&directory, &invite);
    let created = CallEvent { call: id, seq: 1, at: UnixMs::now(), kind: created(&invite, route.as_ref()) };
    metrics::counter!("tandem_calls_total", "direction" => "inbound").increment(1);
    if let Err(error) = exchange.journal.open_call(created).await {
        warn!(parent: &span, %error, "the call is refused: its record cannot be written");
        return refuse(&exchange, invite.leg, StatusCode::SERVICE_UNAVAILABLE);
    }
    let organization = route.as_ref().and_then(|route| route.organization.as_deref());
    let mut account = exchange.account(&directory, organization);
    if invite.phone.is_none() {
        account.incoming(&invite.leg.to_string(), &invite.trunk.name, &invite.called);
    }
    let ledger = Ledger::opened(id, Arc::new(exchange.journal.clone()), started).on_account(account);
    let Some(route) = route else {
        let reason = match way.status {
            StatusCode::FORBIDDEN => "the phone may not call out",
            _ => "nobody has this number",
        };
        refuse(&exchange, invite.leg, way.status);
        return end(ledger, Disposition::Rejected, way.status, reason);
    };
    let permit = match invite.phone {
        Some(_) => Some(Permit::default()),
        None => exchange.carriers.enter_inbound(&invite.trunk.name).map(Permit::holding),
    };
    let Some(permit) = permit else {
        let (status, reason) = (StatusCode::BUSY_HERE, "every channel of the trunk is in use");
        refuse(&exchange, invite.leg, status);
        return end(ledger, Disposition::Rejected, status, reason);
    };
    let mut situation = Situation::of(&invite);
    way.shape(&mut situation);
    let steps = exchange.planner.plan(&directory, &route, &situation).instrument(span.clone()).await;
    let (handle, commands) = CallHandle::new(id, stop.clone());
    let listed = exchange.calls.enter(handle);
    let media = exchange.media.leg(&invite.trunk, invite.local.ip(), invite.source.ip());
    let reach = Reach { organization: route.organization.clone(), ..exchange.reach(&situation) };
    let recordings = exchange.recordings.clone().filter(|_| route.recording);
    let runtime = tokio::runtime::Handle::current();
    let frame = Frame { ledger, inbox: commands, stop, listed, recordings, runtime, reach };
    let arrival = Box::new(Arrival { invite, inbox, media, permit, frame });
    let leg = arrival.invite.leg;
    let endpoint = exchange.endpoint.clone();
    let placed = exchange
        .workers
        .place(move |surroundings| settle(endpoint, arrival, steps, surroundings).instrument(span));
    // A call that was not placed has closed its own record when it was dropped.
    if placed.is_err() {
        refuse(&exchange, leg, StatusCode::SERVICE_UNAVAILABLE);
    }
}

/// How a call of a phone goes on.
struct Way {
    /// Why there is no route.
    status: StatusCode,
    /// Of a call that leaves the house: over what, and from which number.
    outside: Option<(Vec<String>, Option<String>)>,
}

impl Way {
    fn shape(self, situation: &mut Situation) {
        if let Some((trunks, number)) = self.outside {
            situation.from = number;
            situation.inbound = None;
            situation.trunks = trunks;
        }
    }
}

fn route(directory: &Snapshot, invite: &IncomingInvite) -> (Option<Route>, Way) {
    let way = Way { status: StatusCode::NOT_FOUND, outside: None };
    let Some(user) = &invite.phone else {
        let full = invite.identity.called_e164.as_deref();
        let route = directory.route(&invite.called).or_else(|| directory.route(full?));
        return (route, way);
    };
    match directory.route_of_phone(user, &invite.called) {
        Ok(PhoneRoute { route, trunks }) if trunks.is_empty() => (Some(route), way),
        Ok(PhoneRoute { route, trunks }) => {
            let number = directory.phone(user).and_then(|phone| phone.number.clone());
            (Some(route), Way { outside: Some((trunks, number)), ..way })
        }
        Err(403) => (None, Way { status: StatusCode::FORBIDDEN, ..way }),
        Err(_) => (None, way),
    }
}

/// A call on its way to a worker.
struct Arrival {
    invite: Box<IncomingInvite>,
    inbox: mpsc::Receiver<LegEvent>,
    media: LegMedia,
    permit: Permit,
    frame: Frame,
}

/// The call's life on its worker.
async fn settle(
    endpoint: EndpointHandle,
    arrival: Box<Arrival>,
    steps: Vec<flow::Planned>,
    surroundings: Surroundings,
) {
    metrics::gauge!("tandem_calls_active").increment(1.0);
    let _counted = Counted;
    if let Some(call) = build(endpoint, *arrival, surroundings) {
        Box::pin(flow::run(call, steps)).await;
    }
}

/// Makes the call, or refuses it. Not in `settle` itself, whose future would keep the room of every value
/// that passes through here for as long as the call lasts.
fn build(endpoint: EndpointHandle, arrival: Arrival, surroundings: Surroundings) -> Option<Box<Call>> {
    let Arrival { invite, inbox, media, permit, frame } = arrival;
    let offer = invite.offer.as_deref();
    match SipLeg::incoming(invite.leg, endpoint, inbox, surroundings.pacer, media, offer) {
        Ok(leg) => {
            let party = Party { leg: leg.into(), permit, trunk: invite.trunk };
            Some(Box::new(Call::new(frame, party, false)))
        }
        Err(error) => {
            tracing::info!(%error, "the call is refused: no media");
            end(frame.ledger, Disposition::Rejected, StatusCode::NOT_ACCEPTABLE_HERE, &error.to_string());
            None
        }
    }
}

/// Counts a call as active until it is dropped.
pub(super) struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("tandem_calls_active").decrement(1.0);
    }
}

fn created(invite: &IncomingInvite, route: Option<&Route>) -> CallEventKind {
    let identity = &invite.identity;
    let caller = identity.caller_e164.clone().or_else(|| invite.caller.clone());
    let diverted = identity.diversions.first();
    CallEventKind::Created(CallCreated {
        direction: Direction::Inbound,
        from: caller.unwrap_or_else(|| "anonymous".to_owned()),
        to: invite.called.clone(),
        trunk: invite.phone.is_none().then(|| invite.trunk.name.clone()),
        organization: route.and_then(|route| route.organization.clone()),
        assistant: route.and_then(Snapshot::first_assistant),
        sip_call_id: Some(invite.call_id.clone()),
        verstat: identity.verstat.clone(),
        diversion: diverted.and_then(|last| last.number.clone().filter(|_| !last.private)),
    })
}

fn refuse(exchange: &Exchange, leg: LegId, status: StatusCode) {
    let headers = if status == StatusCode::SERVICE_UNAVAILABLE {
        vec![("Retry-After".to_owned(), "5".to_owned())]
    } else {
        Vec::new()
    };
    exchange.endpoint.command(leg, LegCommand::Reject { status, reason: None, headers });
}

pub(super) fn end(mut ledger: Ledger, disposition: Disposition, status: StatusCode, reason: &str) {
    ledger.end(Instant::now(), Ending::new(disposition, "system", status.get(), reason));
}
