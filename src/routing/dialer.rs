//! Starts calls of our own: record first, then dial on a worker, then the flow, as an incoming call has it.

use std::sync::{Arc, Weak};
use std::time::Instant;

use tracing::{Instrument as _, info_span};

use super::directory::{Route, Snapshot, Unclear};
use super::flow;
use super::plan::Situation;
use super::switchboard::{Counted, Exchange};
use crate::call::Frame;
use crate::call::dial::{DialRequest, Dialling, RouteRefusal};
use crate::call::handle::CallHandle;
use crate::call::ledger::Ledger;
use crate::call::outgoing::Outgoing;
use crate::call::transfer::Reach;
use crate::event::{CallCreated, CallEvent, CallEventKind, Direction};
use crate::id::CallId;
use crate::time::UnixMs;

/// Starts calls.
#[derive(Clone)]
pub struct Dialer {
    exchange: Weak<Exchange>,
}

impl Dialer {
    /// A dialer of this exchange, which it does not keep alive.
    pub fn new(exchange: &Arc<Exchange>) -> Self {
        Self { exchange: Arc::downgrade(exchange) }
    }

    /// What `number` of the directory does with a call.
    pub fn route(&self, number: &str) -> Option<Route> {
        self.exchange.upgrade().and_then(|exchange| exchange.directory.now().route(number))
    }

    /// Who talks once somebody answers; see [`Snapshot::conversation`].
    ///
    /// # Errors
    /// When that is nobody, or more than one.
    pub fn conversation(
        &self,
        organization: Option<&str>,
        assistant: Option<&str>,
    ) -> Result<Route, Unclear> {
        let exchange = self.exchange.upgrade().ok_or(Unclear::Unknown)?;
        exchange.directory.now().conversation(organization, assistant)
    }

    /// Starts a call; `then` runs once somebody answers. The call's record exists when this returns, and
    /// nothing is dialled before.
    ///
    /// # Errors
    /// When the server stops, cannot write the record, or has no room for the call.
    pub async fn start_call(&self, dial: DialRequest, then: Route) -> Result<CallId, RouteRefusal> {
        let exchange = self.exchange.upgrade().ok_or_else(stopping)?;
        if exchange.workers.stop_token().is_cancelled() || exchange.draining() {
            return Err(stopping());
        }
        let (id, started) = (CallId::fresh(), Instant::now());
        let span = info_span!("call", %id, direction = "outbound");
        let kind = created(&dial, &then);
        let created = CallEvent { call: id, seq: 1, at: UnixMs::now(), kind };
        exchange.journal.open_call(created).await.map_err(|error| {
            RouteRefusal::new(503, format!("the call's record cannot be written: {error}"))
        })?;
        metrics::counter!("tandem_calls_total", "direction" => "outbound").increment(1);
        let directory = exchange.directory.now();
        let account = exchange.account(&directory, then.organization.as_deref());
        let ledger = Ledger::opened(id, Arc::new(exchange.journal.clone()), started).on_account(account);
        let situation = Situation::default();
        let steps = exchange.planner.plan(&directory, &then, &situation).instrument(span.clone()).await;
        let stop = exchange.workers.stop_token().child_token();
        let (handle, inbox) = CallHandle::new(id, stop.clone());
        let listed = exchange.calls.enter(handle);
        let recordings = exchange.recordings.clone().filter(|_| then.recording);
        let reach = Reach {
            from: dial.from.clone(),
            organization: then.organization.clone(),
            ..exchange.reach(&situation)
        };
        let kit = reach.kit.clone();
        let runtime = tokio::runtime::Handle::current();
        let frame = Frame { ledger, inbox, stop, listed, recordings, runtime, reach };
        let placed = exchange.workers.place(move |surroundings| {
            let life = async move {
                metrics::gauge!("tandem_calls_active").increment(1.0);
                let _counted = Counted;
                let dialling = Dialling::start(kit, surroundings.pacer, dial);
                if let Some(call) = Box::pin(Box::new(Outgoing { dialling, frame }).answered()).await {
                    Box::pin(flow::run(call, steps)).await;
                }
            };
            life.instrument(span)
        });
        // A call that was not placed has closed its own record when it was dropped.
        placed.map(|()| id).map_err(|error| RouteRefusal::new(503, error.to_string()))
    }
}

fn created(dial: &DialRequest, then: &Route) -> CallEventKind {
    CallEventKind::Created(CallCreated {
        direction: Direction::Outbound,
        from: dial.from.clone().unwrap_or_else(|| "anonymous".to_owned()),
        to: dial.to.to_string(),
        trunk: dial.trunks.first().cloned(),
        organization: then.organization.clone(),
        assistant: Snapshot::first_assistant(then),
        sip_call_id: None,
        verstat: None,
        diversion: None,
    })
}

fn stopping() -> RouteRefusal {
    RouteRefusal::new(503, "the server is stopping")
}
