//! The doors of a PBX: callers that come by AudioSocket, by WebSocket or through ARI become calls like any other.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info_span, warn};

use super::directory::Snapshot;
use super::flow;
use super::plan::{HOPS_MOST, Situation};
use super::switchboard::{Counted, Exchange, end};
use crate::call::dial::{Party, Permit};
use crate::call::handle::CallHandle;
use crate::call::ledger::Ledger;
use crate::call::transfer::Reach;
use crate::call::{Call, Frame};
use crate::event::{CallCreated, CallEvent, CallEventKind, Direction, Disposition};
use crate::pbx::{PbxLeg, PbxSettings, Visitor};
use crate::sip::message::StatusCode;
use crate::sip::profile::Profile;
use crate::sip::trunk::Trunk;
use crate::time::UnixMs;

/// How calls over ARI name their trunk.
pub const ARI: &str = "ari";

/// What stands for a trunk in the record and the metrics of calls by that door. The PBX is our own: what it asks for
/// is done.
pub fn trunk(door: &str) -> Arc<Trunk> {
    Arc::new(Trunk::new(door, Arc::new(Profile::default())))
}

/// Takes visitors in until their doors are shut. Admissions in progress are tracked in `tasks`.
pub async fn run(
    exchange: Arc<Exchange>,
    settings: PbxSettings,
    mut visitors: mpsc::Receiver<Visitor>,
    tasks: TaskTracker,
) {
    while let Some(visitor) = visitors.recv().await {
        tasks.spawn(admit(Arc::clone(&exchange), settings.clone(), visitor));
    }
}

/// As with an INVITE: route, record, place. A visitor that is not taken is hung up as it is dropped.
async fn admit(exchange: Arc<Exchange>, settings: PbxSettings, visitor: Visitor) {
    let started = Instant::now();
    if exchange.draining() {
        // As calls that a server that stops cuts off: where the PBX can, they go on in the dialplan.
        return refused(&exchange, settings, visitor, TEMPORARY_FAILURE);
    }
    let id = visitor.call;
    let span = info_span!("call", %id, leg = %visitor.leg.id, trunk = visitor.door);
    let directory = exchange.directory.now();
    let route = directory.route(&visitor.called);
    let kind = CallEventKind::Created(CallCreated {
        direction: Direction::Inbound,
        from: visitor.caller.clone().unwrap_or_else(|| "anonymous".to_owned()),
        to: visitor.called.clone(),
        trunk: Some(visitor.door.to_owned()),
        organization: route.as_ref().and_then(|route| route.organization.clone()),
        assistant: route.as_ref().and_then(Snapshot::first_assistant),
        sip_call_id: Some(visitor.reference.clone()),
        verstat: None,
        diversion: None,
    });
    metrics::counter!("tandem_calls_total", "direction" => "inbound").increment(1);
    let created = CallEvent { call: id, seq: 1, at: UnixMs::now(), kind };
    if let Err(error) = exchange.journal.open_call(created).await {
        warn!(parent: &span, %error, "the call is refused: its record cannot be written");
        return refused(&exchange, settings, visitor, CONGESTION);
    }
    let organization = route.as_ref().and_then(|route| route.organization.as_deref());
    let mut account = exchange.account(&directory, organization);
    account.incoming(&visitor.leg.id.to_string(), visitor.door, &visitor.called);
    let ledger = Ledger::opened(id, Arc::new(exchange.journal.clone()), started).on_account(account);
    let Some(route) = route else {
        refused(&exchange, settings, visitor, UNALLOCATED);
        return end(ledger, Disposition::Rejected, StatusCode::NOT_FOUND, "nobody has this number");
    };
    let situation = Situation {
        from: visitor.caller.clone(),
        max_forwards: Some(HOPS_MOST.saturating_sub(1)),
        ..Situation::default()
    };
    let steps = exchange.planner.plan(&directory, &route, &situation).instrument(span.clone()).await;
    let stop = exchange.workers.stop_token().child_token();
    let (handle, inbox) = CallHandle::new(id, stop.clone());
    let listed = exchange.calls.enter(handle);
    let reach = Reach { organization: route.organization.clone(), ..exchange.reach(&situation) };
    let recordings = exchange.recordings.clone().filter(|_| route.recording);
    let runtime = tokio::runtime::Handle::current();
    let frame = Frame { ledger, inbox, stop, listed, recordings, runtime, reach };
    // A call that is not placed closes its own record, and its leg hangs up, as they are dropped.
    let placed = exchange.workers.place(move |surroundings| {
        async move {
            metrics::gauge!("tandem_calls_active").increment(1.0);
            let _counted = Counted;
            let Visitor { door, leg, .. } = visitor;
            let leg = PbxLeg::new(leg, settings, surroundings.pacer);
            let party = Party { leg: leg.into(), permit: Permit::default(), trunk: trunk(door) };
            Box::pin(flow::run(Box::new(Call::new(frame, party, false)), steps)).await;
        }
        .instrument(span)
    });
    if let Err(error) = placed {
        warn!(%error, "a call by a door of the PBX is refused");
    }
}

/// Tells the PBX why, on a worker: a wire says goodbye only where it is attached.
fn refused(exchange: &Exchange, settings: PbxSettings, visitor: Visitor, cause: u16) {
    let placed = exchange.workers.place(move |surroundings| async move {
        let mut leg = PbxLeg::new(visitor.leg, settings, surroundings.pacer);
        // Its media, if it came with some, is there at once.
        std::future::poll_fn(|cx| {
            let _nothing_yet = leg.poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
        leg.hang_up(cause);
    });
    if let Err(error) = placed {
        warn!(%error, "a caller at a door of the PBX is dropped without a goodbye");
    }
}

/// Q.850.
const UNALLOCATED: u16 = 1;
const TEMPORARY_FAILURE: u16 = 41;
const CONGESTION: u16 = 42;
