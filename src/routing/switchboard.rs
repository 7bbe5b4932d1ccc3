//! The switchboard: takes each INVITE from its arrival to its place on a media worker, and hands every
//! later event to the leg it belongs to.
//!
//! The order at the door is: route, record, place. A call that cannot be recorded is refused (503), so
//! there is no call without a record; a call that is refused for any other reason has one that says why.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info_span, warn};

use super::directory::{Directory, Route, Snapshot};
use super::flow;
use super::plan::Planner;
use crate::audio::Codec;
use crate::call::handle::{CallHandle, Calls, Listed};
use crate::call::ledger::{Ending, Ledger};
use crate::call::recording::RecordingWriter;
use crate::call::worker::{Surroundings, Workers};
use crate::call::{Call, Parts};
use crate::event::{CallCreated, CallEvent, CallEventKind, Direction, Disposition};
use crate::id::{CallId, LegId};
use crate::rtp::{LatchPolicy, PortPool};
use crate::sip::endpoint::EndpointHandle;
use crate::sip::leg::{LegMedia, SipLeg};
use crate::sip::message::StatusCode;
use crate::sip::negotiation::Capabilities;
use crate::sip::trunk::Trunk;
use crate::sip::ua::{IncomingInvite, LegCommand, LegEvent, UaEvent};
use crate::store::JournalHandle;
use crate::time::UnixMs;

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
    /// RTP ports.
    pub ports: PortPool,
    /// Live calls.
    pub calls: Calls,
    /// Writes recordings, if the installation records at all.
    pub recordings: Option<RecordingWriter>,
    /// Codecs of trunks that name none.
    pub codecs: Vec<Codec>,
    /// Listen for keys in the audio itself.
    pub inband_dtmf: bool,
    /// How long a packet that overtook another waits for it.
    pub reorder_wait: Duration,
    /// Most assistant audio that may wait to be heard.
    pub playout_limit: Duration,
    /// Hang up after this long without RTP; `None` never.
    pub media_timeout: Option<Duration>,
    /// Answers in signalling.
    pub endpoint: EndpointHandle,
}

/// Runs until the endpoint stops. Admissions in progress are tracked in `tasks`.
pub async fn run(exchange: Arc<Exchange>, mut events: mpsc::Receiver<UaEvent>, tasks: TaskTracker) {
    let mut legs: HashMap<LegId, LegLine> = HashMap::new();
    while let Some(event) = events.recv().await {
        match event {
            UaEvent::Invite(invite) => {
                let (line, inbox) = mpsc::channel(LEG_QUEUE);
                let stop = exchange.workers.stop_token().child_token();
                legs.insert(invite.leg, LegLine { line, stop: stop.clone() });
                tasks.spawn(admit(Arc::clone(&exchange), invite, inbox, stop));
            }
            UaEvent::Leg(leg, event) => {
                let last = matches!(
                    event,
                    LegEvent::Cancelled { .. } | LegEvent::Failed { .. } | LegEvent::Ended { .. }
                );
                if let Some(line) = legs.get(&leg) {
                    line.tell(event);
                }
                if last {
                    legs.remove(&leg);
                }
            }
            UaEvent::Pong(_) => {}
        }
    }
}

/// The way to a leg on its worker.
struct LegLine {
    line: mpsc::Sender<LegEvent>,
    stop: CancellationToken,
}

impl LegLine {
    /// A leg that does not read its events is ended: its peer floods it, or its worker is stuck.
    fn tell(&self, event: LegEvent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.line.try_send(event) {
            metrics::counter!("tandem_leg_queue_full_total").increment(1);
            warn!("a leg does not keep up with its signalling and is ended");
            self.stop.cancel();
        }
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
    let route = directory.route(&invite.called);
    let created = CallEvent { call: id, seq: 1, at: UnixMs::now(), kind: created(&invite, route.as_ref()) };
    metrics::counter!("tandem_calls_total", "direction" => "inbound").increment(1);
    if let Err(error) = exchange.journal.open_call(created).await {
        warn!(parent: &span, %error, "the call is refused: its record cannot be written");
        return refuse(&exchange, invite.leg, StatusCode::SERVICE_UNAVAILABLE);
    }
    let ledger = Ledger::opened(id, Arc::new(exchange.journal.clone()), started);
    let Some(route) = route else {
        refuse(&exchange, invite.leg, StatusCode::NOT_FOUND);
        return end(ledger, Disposition::Rejected, StatusCode::NOT_FOUND, "nobody has this number");
    };
    let steps = exchange.planner.plan(&directory, &route).instrument(span.clone()).await;
    let (handle, commands) = CallHandle::new(id, stop.clone());
    let listed = exchange.calls.enter(handle);
    let media = leg_media(&exchange, &invite);
    let arrival = Box::new(Arrival { invite, inbox, commands, stop, ledger, listed, media, route });
    let leg = arrival.invite.leg;
    let runtime = tokio::runtime::Handle::current();
    let here = Arc::clone(&exchange);
    let placed = exchange
        .workers
        .place(move |surroundings| settle(here, arrival, steps, surroundings, runtime).instrument(span));
    // A call that was not placed has closed its own record when it was dropped.
    if placed.is_err() {
        refuse(&exchange, leg, StatusCode::SERVICE_UNAVAILABLE);
    }
}

/// A call on its way to a worker.
struct Arrival {
    invite: Box<IncomingInvite>,
    inbox: mpsc::Receiver<LegEvent>,
    commands: mpsc::Receiver<crate::call::handle::CallCommand>,
    stop: CancellationToken,
    ledger: Ledger,
    listed: Listed,
    media: LegMedia,
    route: Route,
}

/// The call's life on its worker.
async fn settle(
    exchange: Arc<Exchange>,
    arrival: Box<Arrival>,
    steps: Vec<flow::Planned>,
    surroundings: Surroundings,
    runtime: tokio::runtime::Handle,
) {
    metrics::gauge!("tandem_calls_active").increment(1.0);
    let _counted = Counted;
    if let Some(call) = build(&exchange, *arrival, surroundings, runtime) {
        drop(exchange);
        Box::pin(flow::run(call, steps)).await;
    }
}

/// Makes the call, or refuses it. Not in `settle` itself, whose future would keep the room of every value
/// that passes through here for as long as the call lasts.
fn build(
    exchange: &Exchange,
    arrival: Arrival,
    surroundings: Surroundings,
    runtime: tokio::runtime::Handle,
) -> Option<Box<Call>> {
    let Arrival { invite, inbox, commands, stop, ledger, listed, media, route } = arrival;
    let endpoint = exchange.endpoint.clone();
    let offer = invite.offer.as_deref();
    match SipLeg::incoming(invite.leg, endpoint, inbox, surroundings.pacer, media, offer) {
        Ok(leg) => {
            let recordings = exchange.recordings.clone().filter(|_| route.recording);
            let parts = Parts { leg, ledger, inbox: commands, stop, listed, recordings, runtime };
            Some(Box::new(Call::new(parts)))
        }
        Err(error) => {
            tracing::info!(%error, "the call is refused: no media");
            end(ledger, Disposition::Rejected, StatusCode::NOT_ACCEPTABLE_HERE, &error.to_string());
            None
        }
    }
}

struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("tandem_calls_active").decrement(1.0);
    }
}

fn created(invite: &IncomingInvite, route: Option<&Route>) -> CallEventKind {
    CallEventKind::Created(CallCreated {
        direction: Direction::Inbound,
        from: invite.caller.clone().unwrap_or_else(|| "anonymous".to_owned()),
        to: invite.called.clone(),
        trunk: Some(invite.trunk.name.clone()),
        organization: route.and_then(|route| route.organization.clone()),
        assistant: route.and_then(Snapshot::first_assistant),
        sip_call_id: Some(invite.call_id.clone()),
    })
}

fn leg_media(exchange: &Exchange, invite: &IncomingInvite) -> LegMedia {
    let profile = &invite.trunk.profile;
    let own: Vec<Codec> = profile.codecs.iter().flat_map(|name| codecs(name)).copied().collect();
    let known = if own.is_empty() { exchange.codecs.clone() } else { own };
    let ptime_ms = u16::try_from(profile.ptime_ms).unwrap_or(20);
    LegMedia {
        ports: exchange.ports.clone(),
        address: invite.local.ip(),
        peer: invite.source.ip(),
        capabilities: Capabilities { codecs: known, single_codec: true, ptime_ms, ..Capabilities::default() },
        latch: LatchPolicy {
            allowed: media_sources(&invite.trunk, invite.source.ip()),
            ..LatchPolicy::default()
        },
        inband_dtmf: exchange.inband_dtmf,
        reorder_wait: exchange.reorder_wait,
        playout_limit: exchange.playout_limit,
        media_timeout: match profile.media_timeout_s {
            0 => exchange.media_timeout,
            seconds => Some(Duration::from_secs(seconds)),
        },
    }
}

/// Who may send media beside the address in the SDP: the trunk's media networks and whoever signals.
fn media_sources(trunk: &Trunk, signalling: IpAddr) -> Vec<IpNet> {
    let mut allowed = trunk.allowed_media_networks().to_vec();
    allowed.push(signalling.into());
    allowed
}

/// The codecs of a name used in configuration and profiles, none for an unknown one. `L16` alone stands for
/// every rate we speak it at, the highest first.
pub fn codecs(name: &str) -> &'static [Codec] {
    use crate::audio::SampleRate as Rate;
    match name.to_ascii_lowercase().as_str() {
        "pcmu" => &[Codec::Pcmu],
        "pcma" => &[Codec::Pcma],
        "g722" => &[Codec::G722],
        "opus" => &[Codec::Opus],
        "l16" => &[Codec::L16(Rate::HZ_24000), Codec::L16(Rate::HZ_16000), Codec::L16(Rate::HZ_8000)],
        "l16/8000" => &[Codec::L16(Rate::HZ_8000)],
        "l16/16000" => &[Codec::L16(Rate::HZ_16000)],
        "l16/24000" => &[Codec::L16(Rate::HZ_24000)],
        _ => &[],
    }
}

fn refuse(exchange: &Exchange, leg: LegId, status: StatusCode) {
    let headers = if status == StatusCode::SERVICE_UNAVAILABLE {
        vec![("Retry-After".to_owned(), "5".to_owned())]
    } else {
        Vec::new()
    };
    exchange.endpoint.command(leg, LegCommand::Reject { status, reason: None, headers });
}

fn end(mut ledger: Ledger, disposition: Disposition, status: StatusCode, reason: &str) {
    ledger.end(Instant::now(), Ending::new(disposition, "system", status.get(), reason));
}

/// Events a leg may leave unread.
const LEG_QUEUE: usize = 64;
